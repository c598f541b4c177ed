# SPDX-License-Identifier: MIT
"""The sending world of the cluster's tests.  It runs on the host `sender`:

    python3 - COUNT CONNECTIONS SECONDS DOMAIN,... <load.py

COUNT messages of random sizes, to box@DOMAIN, by CONNECTIONS threads.  Each goes to the servers of the MX in their order,
to main1 and main2 at random, then to backup, again and again until one answers 250, or none has answered 250 to any
message for SECONDS.  They come from a partner's address, and one of STRANGERS threads from one that spamd looks at.
The answer is JSON:

    acknowledged    token -> [server, time of the 250, domain, SHA-256 of the body]
    unsure          tokens with a connection that ended after the message, before its answer: the sender must repeat it,
                    and the server may have it already
    refused         [server, code, text] -> how often; code 0 is a broken or refused connection
"""
import collections
import email.utils
import hashlib
import json
import random
import smtplib
import socket
import sys
import threading
import time

PARTNER, STRANGER = "10.77.0.61", "10.77.0.60"
STRANGERS = 16
TIMEOUT = 60            # seconds, for one answer
CONNECTING = 10         # seconds, for a connection: a kernel makes it, however busy the server is; none answers where a host is off
AVOIDING = 30           # seconds, in which a thread does not turn again to a server that it could not talk to: a mail server remembers, too
MAINS, BACKUP = ["10.77.0.11", "10.77.0.12"], "10.77.0.25"

WORDS = ("the", "meeting", "of", "last", "week", "was", "about", "budget", "and", "new", "office", "we", "talk", "on", "Tuesday",
         "please", "read", "this", "before", "train", "leaves", "at", "nine", "with", "regards", "from", "all", "here", "in")

acknowledged, unsure, refused = {}, set(), collections.Counter()
latest = time.monotonic()       # of the last 250
lock = threading.Lock()


class Session(smtplib.SMTP):
    def _get_socket(self, host, port, timeout):
        connection = socket.create_connection((host, port), CONNECTING, self.source_address)
        connection.settimeout(timeout)
        return connection


def content(token, domain):
    """(message, SHA-256 of its body): words, which spamd takes for no spam."""
    words = random.choices(WORDS, k=random.choice((20, 200, 200, 2000)))
    body = "".join(" ".join(words[at:at + 10]) + ".\n" for at in range(0, len(words), 10)).encode()
    head = (f"From: Alice <alice@sender.test>\nTo: Bob <box@{domain}>\nSubject: the report {token}\nX-Token: {token}\n"
            f"Date: {email.utils.formatdate()}\nMessage-ID: <{token}@sender.test>\n\n").encode()
    return (head + body).replace(b"\n", b"\r\n"), hashlib.sha256(body).hexdigest()


def attempt(sessions, source, server, token, domain, data):
    """One try.  Returns the reply that decides: (code, text)."""
    sent = False
    try:
        session = sessions.get(server)
        if not session:
            session = sessions[server] = Session(server, timeout=TIMEOUT, local_hostname="load.sender.test",
                                                  source_address=(source, 0))
            session.ehlo()
        code, text = session.mail("alice@sender.test")
        if code == 250:
            code, text = session.rcpt(f"box@{domain}")
        if code == 250:
            sent = True
            code, text = session.data(data)
        if code != 250:
            sessions.pop(server).close()
        return code, text.decode(errors="replace")
    except smtplib.SMTPDataError as error:          # before the message: to DATA
        sessions.pop(server).close()
        return error.smtp_code, error.smtp_error.decode(errors="replace")
    except (OSError, smtplib.SMTPException) as error:
        if session := sessions.pop(server, None):
            session.close()
        if sent:
            with lock:
                unsure.add(token)
        return getattr(error, "smtp_code", 0), type(error).__name__


def work(number, tokens, domains, seconds):
    global latest
    sessions, avoided = {}, {}
    source = STRANGER if number % STRANGERS == STRANGERS - 1 else PARTNER
    for token in tokens:
        domain = domains[hash(token) % len(domains)]
        data, digest = content(token, domain)
        while token not in acknowledged and time.monotonic() - latest < seconds:
            for server in random.sample(MAINS, 2) + [BACKUP]:
                if time.monotonic() < avoided.get(server, 0):
                    continue
                code, text = attempt(sessions, source, server, token, domain, data)
                if not code:
                    avoided[server] = time.monotonic() + AVOIDING
                with lock:
                    if code == 250:
                        acknowledged[token] = [server, time.time(), domain, digest]
                        latest = time.monotonic()
                        break
                    refused[f"{server} {code} {text.splitlines()[0] if text else ''}"] += 1
                if code >= 500:
                    return          # a test that expects it looks at `refused`
            else:
                time.sleep(0.5)
    for session in sessions.values():
        session.close()


def main():
    count, connections, seconds = map(int, sys.argv[1:4])
    run = f"{random.getrandbits(32):08x}"
    tokens = iter([f"T{run}-{number}" for number in range(count)])      # whichever thread is free takes the next
    threads = [threading.Thread(target=work, args=(n, tokens, sys.argv[4].split(","), seconds)) for n in range(connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    json.dump({"acknowledged": acknowledged, "unsure": sorted(unsure), "refused": refused}, sys.stdout)


main()
