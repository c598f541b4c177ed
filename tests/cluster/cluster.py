#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The whole service of examples/cluster, end to end, with faults.

    cluster.py [--build DIR] [NAME-PART...]

One cluster of the tests' own is started, and taken down in the end, also after an interrupt.  After each test every host
is on, every queue run, and the ledger closed:

- what was answered with 250, by whichever server, has arrived, by IMAP from dovecot or at the customer's server, with the
  body that was sent;
- what arrived more than once is explained, as with any mail server: its sender had no answer and repeated it; or a server
  was killed, or its power cut, that had not yet written down, WINDOW before, that it was done with it; or a server was
  switched off in order before it was done with it; or a server's log says that the next one ended, or took too long, after
  the message and before the answer;
- nothing else arrived, and no queue holds anything.

No test depends on the machine's speed.  A wait gives up when nothing has changed for PATIENCE.

The machine's memory is the hosts' disk, so what a main server's flush costs is not shown here.

A suite ends with the line "N passed, N failed, N skipped".  The exit status is 1 if a test failed.
FASTSPOOL_TEST_LONG=1: the campaign has 200,000 messages, not 500; FASTSPOOL_TEST_MESSAGES says another number.
"""
import calendar
import collections
import concurrent.futures
import functools
import hashlib
import imaplib
import json
import os
import pathlib
import random
import re
import smtplib
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request

import runner
from runner import EXAMPLE, HERE, Failure, check

MAINS = ("main1", "main2")
MAIL_HOSTS = (*MAINS, "retry", "backup", "sender")
STORE, WATCH = "10.77.0.40", "10.77.0.70"
ADDRESSES = {"main1": "10.77.0.11", "main2": "10.77.0.12", "backup": "10.77.0.25", "far": "10.77.0.50"}
WINDOW = 5.0            # seconds: a commit, the log's whole seconds, and a mirror that waits for a CPU of a busy machine
PATIENCE = 300          # seconds without any change
STOP = "{ fastspool stop || [ $? = 2 ]; }"     # a delivery may go on, and use the store
SYN_SECONDS = 127       # a kernel gives up a connection to one host that answers nothing (tcp_syn_retries = 6)
# Lines of the panic log that say nothing of fastspool, with the hosts where they may be.  They are counted.  The hints and
# their locks are the disk's own with fastspool, too; docs/cluster.md has the counts of main servers without it.
PANIC = (
    (("main1", "main2", "backup"), r"(malware|spam) acl condition: ", "{host} of its scanner, away or slow"),
    (MAIL_HOSTS, r"Failed to get (read|write) lock for /var/spool/exim4/db/([\w-]+)\.lockfile: timed out$",
     "{host} of a minute without a turn at the hints {1}"),
)


def listed(counts):
    return ", ".join(f"{count} {what}" for what, count in sorted(counts.items()))


class Patience:
    """Ends when what is looked at has been the same for PATIENCE."""

    def __init__(self):
        self.seen, self.since = None, time.monotonic()

    def ends(self, now):
        if now != self.seen:
            self.seen, self.since = now, time.monotonic()
        return time.monotonic() - self.since > PATIENCE


def wait_for(condition, what, state=lambda: None):
    """Wait until CONDITION gives something that is true.  STATE gives what changes meanwhile."""
    patience = Patience()
    while not (value := condition()):
        check(not patience.ends(state()), f"nothing has changed for {PATIENCE} s; waited until {what}")
        time.sleep(0.2)
    return value


class Cluster:
    """The cluster, and the ledger of its mail."""

    def __init__(self, build):
        self.place = tempfile.mkdtemp(prefix="fastspool-cluster.", dir="/run")
        os.environ.update(FASTSPOOL_CLUSTER=self.place, FASTSPOOL_BUILD=str(build), FASTSPOOL_CLUSTER_VOLUME="512M")
        self.expected = {}          # token -> (domain, SHA-256 of the body)
        self.unsure = set()         # tokens that their sender repeated without an answer
        self.ends = []              # (host, how it ended, when, until when what it did is on its disk)
        self.loads = []

    def up(self):
        self.script("up")

    def down(self):
        for load in self.loads:
            load.kill()
        subprocess.run([EXAMPLE / "down"], check=True)

    def script(self, name, *arguments, input=b"", check_status=True):
        result = subprocess.run([EXAMPLE / name, *map(str, arguments)], input=input, capture_output=True)
        if check_status:
            check(result.returncode == 0, f"{name} {' '.join(map(str, arguments))}: {result.stdout.decode()[-500:]} "
                                          f"{result.stderr.decode()[-1500:]}")
        return result

    def on(self, host, *command, **options):
        """What COMMAND prints on HOST."""
        return self.script("on", host, *command, **options).stdout.decode(errors="replace")

    def is_on(self, host):
        return self.script("on", host, "true", check_status=False).returncode == 0

    def power(self, host, *what):
        began = time.time()
        self.script("power", host, *what)
        if what[0] in ("off", "kill", "cut"):
            ended = time.time()
            self.ends.append((host, what[0], ended, ended if what[0] == "off" else began - WINDOW))

    def drawn(self):
        """What `status` shows."""
        return self.script("status").stdout.decode()

    def far(self, what):
        """Tell the customer's server how to behave."""
        self.on("far", "far", what)

    def send(self, recipient, *options):
        """One message of `send`.  Returns (exit status, dialogue)."""
        result = self.script("on", "sender", "send", *options, recipient, check_status=False)
        return result.returncode, result.stdout.decode() + result.stderr.decode()

    def exim(self, host, *arguments):
        """What Exim says, with the library where there is one: it sees the queue before the view is mounted, too."""
        return self.on(host, *(("fastspool", "run", "--") if host in (*MAINS, "standby") else ()), "exim4", *arguments)

    def queue(self, host):
        return int(self.exim(host, "-bpc"))

    def identities(self, host):
        return sorted(re.findall(r"\w{6}-\w{6}-\w\w", self.exim(host, "-bp")))

    def log(self, host, name="mainlog"):
        return self.on(host, "sh", "-c", f"cat /var/log/exim4/{name} 2>/dev/null || true")

    # --- load ---

    def load(self, count, connections=16, domains=("boxes.test", "far.test")):
        """Send in the background.  wait_load() enters what was acknowledged into the ledger."""
        answer = tempfile.TemporaryFile()       # it is longer than what a pipe holds
        process = subprocess.Popen([EXAMPLE / "on", "sender", "python3", "-", str(count), str(connections), str(PATIENCE),
                                    ",".join(domains)], stdin=open(HERE / "load.py"), stdout=answer)
        process.answer = answer
        self.loads.append(process)
        return process

    def wait_load(self, load, all_taken=True):
        load.wait()
        load.answer.seek(0)
        answer = json.load(load.answer)
        self.loads.remove(load)
        for token, (_, _, domain, digest) in answer["acknowledged"].items():
            self.expected[token] = (domain, digest)
        self.unsure.update(answer["unsure"])
        if all_taken:
            check(answer["acknowledged"], f"nothing was acknowledged: {answer['refused']}")
        return answer

    # --- what arrived ---

    def arrived(self):
        """token -> [(domain, time of arrival, SHA-256 of the body)]."""
        found = collections.defaultdict(list)
        with imaplib.IMAP4(STORE, timeout=PATIENCE) as session:
            session.login("box", "secret")
            count = int(session.select("INBOX", readonly=True)[1][0])
            answer = session.fetch("1:*", "(INTERNALDATE BODY.PEEK[])")[1] if count else []
        for part in answer:
            if isinstance(part, tuple):
                moment = time.mktime(imaplib.Internaldate2tuple(part[0]))
                self.enter(found, "boxes.test", moment, part[1].replace(b"\r\n", b"\n"))
        files = self.script("on", "far", "sh", "-c", r'cd /var/mail/far && for f in [0-9]*; do [ ! -e "$f" ] || '
                            r'{ wc -c <"$f"; cat "$f"; }; done').stdout
        while files:
            size, _, files = files.partition(b"\n")
            head, _, content = files[:int(size)].partition(b"\n")
            files = files[int(size):]
            self.enter(found, "far.test", float(head.split()[0]), content)
        return found

    @staticmethod
    def enter(found, domain, moment, content):
        head, _, body = content.partition(b"\n\n")
        token = re.search(rb"^X-Token: (\S+)$", head, re.M)
        name = token.group(1).decode() if token else re.search(rb"^Subject: (.*)$", head, re.M).group(1).decode()
        found[name].append((domain, moment, hashlib.sha256(body).hexdigest()))

    def forget(self):
        """End the load, and empty every queue, mailbox, log and hint, for the next test."""
        if self.loads:                                  # of a test that failed
            self.on("sender", "pkill", "python3", check_status=False)
            self.loads.pop().wait()
        self.expected, self.unsure, self.ends = {}, set(), []
        self.log_of_standby = ""
        self.on("store", "sh", "-c", "rm -rf /var/mail/box")
        self.on("far", "sh", "-c", "rm -rf /var/mail/far && mkdir /var/mail/far && : >/var/log/far.log")
        self.on("sender", "rm", "-f", "/var/mail/bounces")
        for host in MAIL_HOSTS:
            if left := self.identities(host):       # of a test that failed
                self.on(host, "exim4", "-Mrm", *left, check_status=False)
            self.on(host, "sh", "-c", "cd /var/log/exim4 && for log in *; do [ ! -e $log ] || : >$log; done; "
                                      "rm -f /var/spool/exim4/db/*")

    def deliver(self):
        """Deliver every queue, as the next minutes would, until all are empty."""
        patience = Patience()
        while left := {host: count for host in MAIL_HOSTS if (count := self.queue(host))}:
            check(not patience.ends(left), f"no delivery for {PATIENCE} s: {left}; "
                  f"{[self.exim(host, '-bp')[-500:] + self.log(host)[-1500:] for host in left]}")
            for host in left:
                self.on(host, "sh", "-c", "exim4 -bpr | awk '$3 ~ /-/ { print $3 }' | head -n 200 | "
                                          "xargs -r -P 4 -n 20 exim4 -M")
            time.sleep(0.2)

    def repair(self):
        """Every host is on, main1 with its own volume, and the customer's server takes mail."""
        if self.is_on("standby"):
            self.log_of_standby = self.log("standby")
            self.power("standby", "off")
            self.power("main1", "take", "standby")
        for host in ("dns", "store", "scan", "far", *MAIL_HOSTS):
            if not self.is_on(host):
                self.power(host, "on")
        if self.on("far", "cat", "/run/far.mode") != "accept":
            self.far("accept")
        if self.script("on", "far", "sh", "-c", "kill -0 $(cat /run/far.pid)", check_status=False).returncode:
            self.far("revive")

    def judge(self):
        """Close the ledger.  Returns a line of counts."""
        self.repair()
        self.deliver()
        arrived = self.arrived()
        missing = [token for token in self.expected if token not in arrived]
        check(not missing, f"{len(missing)} of {len(self.expected)} acknowledged messages never arrived: {missing[:5]}")
        for token, (domain, digest) in self.expected.items():
            for copy in arrived[token]:
                check(copy[0] == domain and digest in (copy[2], None), f"{token} arrived damaged, or at {copy[0]}")
        stray = set(arrived) - set(self.expected) - self.unsure
        check(not stray, f"arrived, but was not acknowledged: {sorted(stray)[:5]}")
        panics = self.panics()
        twice = {token: copies for token, copies in arrived.items() if len(copies) > 1}
        reasons = collections.Counter(self.explain(twice))
        return "; ".join(filter(None, (
            f"{len(self.expected)} acknowledged, none lost" if self.expected else "",
            f"{len(twice)} more than once: " + listed(reasons) if twice else "",
            f"{sum(panics.values())} lines in panic logs: " + listed(panics) if panics else "")))

    def panics(self):
        """Counts the lines of the panic logs.  One that is not as in PANIC is a failure."""
        counts, others = collections.Counter(), []
        for host in MAIL_HOSTS:
            for line in self.log(host, "paniclog").splitlines():
                for hosts, pattern, sentence in PANIC:
                    if host in hosts and (found := re.search(pattern, line)):
                        counts[sentence.format(*found.groups(), host=host)] += 1
                        break
                else:
                    others.append(f"{host}: {line}")
        check(not others, f"{len(others)} lines in panic logs: {others[:5]}")
        return counts

    def explain(self, twice):
        """Why each of TWICE, token -> copies, arrived more than once."""
        logs = {"standby": self.log_of_standby, **{host: self.log(host) for host in MAIL_HOSTS}} if twice.keys() - self.unsure else {}
        histories = {host: self.histories(log) for host, log in logs.items()}
        for token, copies in twice.items():
            name = re.sub(r"\W+", "-", token)       # as in the Message-ID
            lines = [line for history in histories.values() for line in history.get(name, ())]
            ends = [f"{host}, {how}" for host, how, *end in self.ends if name in histories.get(host, ()) and
                    self.had(histories[host][name], *end)]
            if token in self.unsure:
                yield "repeated by a sender without an answer"
            elif ends:
                yield f"by {ends[-1]}, before it had written down that it was done"
            elif any(re.search(r"(end of data|data block)", line) for line in lines):
                yield "by a server that got no answer from the next"
            else:
                raise Failure(f"{token} arrived {len(copies)} times, and nothing explains it: {copies}; ends: {self.ends}; " + "\n".join(lines))

    @staticmethod
    def histories(log):
        """Name in the Message-ID -> the lines of its messages.  (What Exim took from Exim has the same Message-ID.)"""
        names, lines = {}, collections.defaultdict(list)
        for line in log.splitlines():
            identity = line[20:36]
            if found := re.search(r" <= .* id=([\w-]+)(\.\d+)?@sender.test", line):
                names[identity] = found.group(1)
            if identity in names:
                lines[names[identity]].append(line)
        return lines

    @staticmethod
    def had(lines, ended, written):
        """Whether a host with these LINES had a message when it ENDED, as far as its disk knew, which has all up to WRITTEN."""
        def moments(what):
            return [calendar.timegm(time.strptime(line[:19], "%Y-%m-%d %H:%M:%S")) for line in lines if re.search(what, line)]
        return min(moments(" <= ")) <= ended and not any(done < written for done in moments(r" Completed( QT=\S+)?$"))

    def note(self, recipient, subject, body=None):
        """A message that was acknowledged outside of a load."""
        self.expected[subject] = (recipient.split("@")[1], body)


TESTS = []


def test(function):
    TESTS.append(function)
    return function


def taken(cluster, recipient, subject, *options):
    """Send a message that has to be taken.  Returns the dialogue."""
    status, said = cluster.send(recipient, "--subject", subject, *options)
    check(status == 0, f"not taken: {said}")
    cluster.note(recipient, subject)
    return said


# --- without faults ---

@test
def clean(cluster):
    """A clean message goes from an Exim outside by MX through a main server, and is read by IMAP; nothing in it changes."""
    body = b"A line of mail.\n.\n..\nFrom here\n\ttab \n"
    subject = "through everything"
    cluster.on("sender", "exim4", "-bm", "-i", "-f", "alice@sender.test", "box@boxes.test",
               input=b"From: alice@sender.test\nTo: box@boxes.test\nSubject: " + subject.encode() + b"\n\n" + body)
    cluster.note("box@boxes.test", subject, hashlib.sha256(body).hexdigest())
    wait_for(lambda: cluster.arrived(), "the message is in the mailbox")
    main = next(host for host in MAINS if "<= alice@sender.test" in cluster.log(host))
    check("T=lmtp" in cluster.log(main), "the main server did not deliver it by LMTP")
    check(not cluster.log("retry"), "it went through retry, too")


@test
def everything_at_once(cluster):
    """300 messages of 16 connections, half to dovecot, half to the customer's server: each arrives once."""
    answer = cluster.wait_load(cluster.load(300))
    check(len(answer["acknowledged"]) == 300 and not answer["refused"], f"refused: {answer['refused']}")
    for host in MAINS:
        check(cluster.log(host).count("<=") > 50, f"{host} took hardly anything: the MX name has two addresses")


@test
def malware_and_spam(cluster):
    """GTUBE and the EICAR test file are refused at the end of DATA, by a main server and by backup."""
    for option, reason in (("--spam", "spam"), ("--virus", "malware")):
        status, said = cluster.send("box@boxes.test", option)
        check(status == 1 and re.search(rf"< 354.*\n.*bytes\)\n *< 550 .*{reason}", said), f"{option}: {said}")
    for host in MAINS:
        cluster.power(host, "off")
    for option, reason in (("--spam", "spam"), ("--virus", "malware")):
        status, said = cluster.send("box@boxes.test", option)
        check(status == 1 and "backup" in said and re.search(rf"< 550 .*{reason}", said), f"{option}: {said}")


@test
def blacklisted(cluster):
    """A blacklisted address is refused at RCPT; its neighbour is not."""
    status, said = cluster.send("box@boxes.test", "--source", "10.77.0.66")
    check(status == 1 and re.search(r"rcpt .*\n *< 550 10.77.0.66 is listed in bl.test", said), said)
    taken(cluster, "box@boxes.test", "from a neighbour")


@test
def scanner_gone(cluster):
    """What nobody can look at is not taken: 451 by all servers, and it is taken when the scanner is back."""
    cluster.power("scan", "kill")
    status, said = cluster.send("box@boxes.test")
    check(status == 2 and said.count("< 451") == 3, said)
    cluster.power("scan", "on")
    taken(cluster, "box@boxes.test", "scanned")


# --- recipients that fail ---

def first_failure(cluster, command, attempts):
    """COMMAND makes the customer's server fail.  A main server tries once, hands the message to retry, and is done with it.
    ATTEMPTS(log of the main server, log of the customer's server) counts its attempts."""
    cluster.far(command)
    taken(cluster, "box@far.test", "to a server with trouble")
    wait_for(lambda: cluster.queue("retry") == 1, "retry has the message")
    wait_for(lambda: not sum(map(cluster.queue, MAINS)), "the main servers are done with it")
    log = next(filter(None, map(cluster.log, MAINS)))
    check(re.search(r"=> box@far.test .*H=retry.filter.test", log), f"not handed to retry: {log}")
    asked = [line for line in cluster.on("far", "cat", "/var/log/far.log").splitlines() if line.split()[1] in ADDRESSES.values()]
    count = attempts(log, asked)
    check(count == 1, f"{count} attempts: {log}, {asked}")


@test
def recipient_dead(cluster):
    """The recipient's server is dead: one attempt by a main server, then retry has the message until it comes back."""
    first_failure(cluster, "die", lambda log, _: len(re.findall(r"H=far.filter.test .*Connection refused", log)))


@test
def recipient_known_dead(cluster):
    """A main server that knows from the message before that the recipient's server is dead hands on without an attempt."""
    cluster.far("die")
    spared = set()
    for number in range(20):                # three are enough for one of two main servers, if a minute is enough for them
        taken(cluster, "box@far.test", f"number {number}")
        wait_for(lambda: cluster.queue("retry") == number + 1, "retry has the message")
        log = "".join(map(cluster.log, MAINS))
        spared = set(re.findall(r"(\S+) => .*H=retry.filter.test", log)) - set(re.findall(r"(\S+) H=far.filter.test .*refused", log))
        if spared:
            return f"{number + 1} messages, {len(spared)} without an attempt"
    check(spared, f"an attempt for each: {log}")


@test
def recipient_refuses(cluster):
    """The same with a server that answers 451."""
    first_failure(cluster, "refuse", lambda _, asked: len(asked))


@test
def recipient_hangs(cluster):
    """The same with a server that doesn't answer the message: a main server waits for ten seconds."""
    first_failure(cluster, "hang", lambda _, asked: len(asked))     # told to accept, it takes the first copy, too


@test
def recipient_rejects(cluster):
    """A server that says 550 is asked once, and by nobody else: the sender has the bounce."""
    cluster.far("reject")
    status, said = cluster.send("box@far.test")
    check(status == 0, said)
    wait_for(lambda: "550 no such user" in cluster.on("sender", "sh", "-c", "cat /var/mail/bounces 2>/dev/null || true"),
             "the sender has the bounce")
    check(not cluster.log("retry"), f"retry had something to do: {cluster.log('retry')}")


@test
def mailboxes_gone(cluster):
    """Dovecot is down: after one attempt the message goes from the main server to retry by the next queue run."""
    cluster.power("store", "off")
    taken(cluster, "box@boxes.test", "to a mailbox that is away")
    main = wait_for(lambda: next((host for host in MAINS if cluster.queue(host)), None), "a main server has it")
    wait_for(lambda: "== box@boxes.test" in cluster.log(main), "a main server has tried")
    cluster.on(main, "exim4", "-q")
    wait_for(lambda: cluster.queue("retry") == 1, "retry has it")
    log = cluster.log(main)
    check(len(re.findall(r"H=store.filter.test \[", log)) == 1, f"not exactly one attempt: {log}")


@test
def retry_gone(cluster):
    """Retry is down as well: the message stays with the main server, which offers it to retry by the next queue run."""
    cluster.far("die")
    cluster.power("retry", "kill")
    taken(cluster, "box@far.test", "to nowhere")
    main = wait_for(lambda: next((host for host in MAINS if cluster.queue(host)), None), "a main server has it")
    wait_for(lambda: "== box@far.test" in cluster.log(main), "a main server has tried")
    cluster.power("retry", "on")
    cluster.on(main, "exim4", "-qff")
    wait_for(lambda: cluster.queue("retry") == 1, "retry has it")


@test
def gone_without_an_answer(cluster):
    """A host that is gone behind a router, whose packets nobody answers, is given up long before the kernel would: retry and
    backup are free again, and a sender turns to the next server."""
    gone = {"retry": (ADDRESSES["far"],), "backup": (ADDRESSES["main1"], ADDRESSES["main2"]),
            "sender": (ADDRESSES["main1"], ADDRESSES["main2"])}
    domains = {"retry": "far.test", "backup": "boxes.test", "sender": "boxes.test"}

    def attempt(host):
        began = time.monotonic()
        cluster.on(host, "exim4", "-odf", "-f", "alice@sender.test", f"box@{domains[host]}", input=f"Subject: by {host}\n\na line\n".encode())
        return time.monotonic() - began

    for host in gone:
        for address in gone[host]:          # where no machine is
            cluster.on(host, "ip", "neigh", "replace", address, "lladdr", "02:00:00:00:00:01", "nud", "permanent", "dev", "eth0")
        cluster.note(f"box@{domains[host]}", f"by {host}")
    try:
        with concurrent.futures.ThreadPoolExecutor() as threads:
            seconds = dict(zip(gone, threads.map(attempt, gone)))
    finally:
        for host in gone:
            for address in gone[host]:
                cluster.on(host, "ip", "neigh", "del", address, "dev", "eth0")
    for host in gone:
        refused = cluster.log(host).count("Connection timed out")
        check(refused, f"{host} met nobody who was gone: {cluster.log(host)}")
        check(seconds[host] < SYN_SECONDS, f"{host} waited for {seconds[host]:.0f} s")
    check("=> box@boxes.test" in cluster.log("sender"), f"the sender did not turn to backup: {cluster.log('sender')}")
    return ", ".join(f"{host} {seconds[host]:.0f} s" for host in gone)


# --- what the operator sees ---

def metric(expression):
    """What prometheus has of EXPRESSION: instance -> value."""
    query = urllib.parse.urlencode({"query": expression})
    with urllib.request.urlopen(f"http://{WATCH}:9090/api/v1/query?{query}", timeout=PATIENCE) as answer:
        found = json.load(answer)["data"]["result"]
    return {series["metric"].get("instance", "").partition(":")[0]: float(series["value"][1]) for series in found}


@test
def watched(cluster):
    """Prometheus has the queues of both main servers, and raises an alert for one with a wrong configuration, until it is mended."""
    def alerts():
        return set(metric('ALERTS{alertname="ConfigurationIsWrong", alertstate="firing"}'))
    addresses = [ADDRESSES[host] for host in MAINS]
    cluster.power("store", "off")
    cluster.power("retry", "off")
    for number in range(4):
        taken(cluster, "box@boxes.test", f"seen by watch {number}")
    queues = dict(zip(addresses, map(float, map(cluster.queue, MAINS))))
    check(sum(queues.values()) == 4, f"the queues are {queues}")
    wait_for(lambda: {address: count for address, count in metric("exim_queue").items() if address in queues} == queues,
             f"prometheus says {queues}", lambda: metric("exim_queue"))
    cluster.on("main1", "sed", "-i.right", "s/^durability.*/durability = perhaps/", "/etc/fastspool.conf")
    try:
        wait_for(lambda: alerts() == {ADDRESSES["main1"]}, "there is an alert for main1", alerts)
        check(re.search(r"^alerts: .*ConfigurationIsWrong on 10.77.0.11:9100 \(firing\)", cluster.drawn(), re.M), cluster.drawn())
    finally:
        cluster.on("main1", "mv", "/etc/fastspool.conf.right", "/etc/fastspool.conf")
    wait_for(lambda: not alerts(), "the alert has gone", alerts)


# --- main servers that fail ---

@test
def mains_stopped(cluster):
    """Both main servers are stopped: mail goes to backup, and to the mailbox when one is back."""
    for host in MAINS:
        cluster.power(host, "off")
    answer = cluster.wait_load(cluster.load(40, 4))
    servers = {server for server, *_ in answer["acknowledged"].values()}
    check(len(answer["acknowledged"]) == 40 and servers == {ADDRESSES["backup"]}, f"taken by {servers}")
    check(cluster.queue("backup") == 40, "backup doesn't have it")
    cluster.power("main2", "on")


@test
def scanned_by_backup(cluster):
    """What backup has taken was scanned: a main server takes it without a scanner, so backup has nothing to bounce."""
    for host in MAINS:
        cluster.power(host, "off")
    taken(cluster, "box@boxes.test", "by way of backup")
    wait_for(lambda: "== box@boxes.test" in cluster.log("backup"), "backup has tried")
    cluster.power("scan", "kill")
    cluster.power("main2", "on")
    cluster.on("backup", "exim4", "-qff")
    check(cluster.queue("backup") == 0, f"still at backup: {cluster.log('backup')}")


@test
def main_full(cluster):
    """Memory and disk of the main servers are full: they say 452, the sender turns to backup, nothing is lost."""
    for host in MAINS:
        cluster.on(host, "sh", "-c", f"service exim4 stop && {STOP} && "
                   "sed -i 's/^memory.*/memory = 48M/' /etc/fastspool.conf && "
                   "fallocate -l $(($(df --output=avail -B1 /var/spool/exim4 | tail -n 1) - (51 << 20))) "
                   "/var/spool/exim4/ballast; service exim4 start")
    cluster.power("store", "off")
    cluster.power("retry", "off")
    cluster.far("die")
    answer = cluster.wait_load(cluster.load(800, 16))
    check(len(answer["acknowledged"]) == 800, f"only {len(answer['acknowledged'])} were taken: {answer['refused']}")
    full = sum(count for line, count in answer["refused"].items() if re.match(r"10.77.0.1[12] 452 ", line))
    check(full, f"no 452: {answer['refused']}")
    servers = collections.Counter(server for server, *_ in answer["acknowledged"].values())
    check(len(servers) == 3, f"taken by {servers}")
    for host in MAINS:
        cluster.on(host, "sh", "-c", f"rm /var/spool/exim4/ballast && service exim4 stop && {STOP} && "
                   "sed -i 's/^memory.*/memory = 1G/' /etc/fastspool.conf && service exim4 start")
    return f"{dict(servers)}, {full} times 452"


def busy(cluster, host):
    """Wait until HOST is in the middle of its load."""
    wait_for(lambda: cluster.log(host).count("<=") > 30, f"{host} is busy", lambda: cluster.log(host).count("<="))


def lose(cluster, what, count=200):
    """Under load, with mail that stays in the queue, main1 loses its memory in the way WHAT.  main2 goes on."""
    cluster.power("store", "off")           # half of the mail stays in the main servers' queues
    load = cluster.load(count)
    busy(cluster, "main1")
    cluster.power("main1", what)
    seen = cluster.log("main2").count("<=")
    wait_for(lambda: load.poll() is not None or cluster.log("main2").count("<=") > seen + 20, "main2 goes on",
             lambda: cluster.log("main2").count("<="))
    cluster.power("main1", "on")
    recovered = cluster.queue("main1")
    answer = cluster.wait_load(load)
    check(len(answer["acknowledged"]) == count, f"only {len(answer['acknowledged'])} were taken: {answer['refused']}")
    check(recovered, "main1 had nothing in its queue")
    return f"{recovered} in main1's queue after it"


@test
def main_killed(cluster):
    """kill -9 of every process of main1, and its memory wiped, under load."""
    return lose(cluster, "kill")


@test
def power_cut(cluster):
    """The power of main1 fails under load: of its disk only that is left what had reached it."""
    return lose(cluster, "cut")


@test
def planned_reboot(cluster):
    """A main server with mail in its queue is stopped in order, and started in new namespaces: everything is there."""
    cluster.power("store", "off")
    cluster.power("retry", "off")
    cluster.power("main2", "off")
    answer = cluster.wait_load(cluster.load(100, domains=("boxes.test",)))
    on_main = sum(server == ADDRESSES["main1"] for server, *_ in answer["acknowledged"].values())
    before = cluster.identities("main1")
    card = cluster.on("main1", "cat", "/sys/class/net/eth0/address")
    cluster.on("main1", "sh", "-c", "setsid sh -c 'trap \"sleep 1; touch /ended; exit\" TERM; while :; do sleep 0.1; done' >/dev/null 2>&1 &")
    cluster.power("main1", "off")
    cluster.power("main1", "on")
    after = cluster.identities("main1")
    check(card == cluster.on("main1", "cat", "/sys/class/net/eth0/address"), "main1 has another MAC address: the others ask the old one")
    check(cluster.script("on", "main1", "rm", "/ended", check_status=False).returncode == 0, "a process had no time to end")
    check(len(before) == on_main > 0 and before == after, f"{len(before)} messages before, {len(after)} after, {on_main} taken")
    said = cluster.on("main1", "cat", "/var/log/syslog")
    check("/var/spool/exim4: view: unmounted" in said and "/var/spool/exim4: view: mounted" in said, f"the syslog of main1: {said}")
    return f"{len(after)} messages before and after"


def serve_by_standby(cluster):
    """main1's power fails under load.  The standby takes its volume, answers 250, and delivers what main1 had."""
    cluster.power("store", "off")
    cluster.power("retry", "off")
    load = cluster.load(100, domains=("boxes.test",))
    busy(cluster, "main1")
    cluster.power("main1", "cut")
    answer = cluster.wait_load(load)
    owed = {token for token, (server, *_) in answer["acknowledged"].items() if server == ADDRESSES["main1"]}
    cluster.power("standby", "take", "main1")
    began = time.monotonic()
    cluster.power("standby", "on")
    with smtplib.SMTP("10.77.0.13", timeout=PATIENCE) as session:
        session.sendmail("alice@sender.test", ["box@boxes.test"], "Subject: to the standby\r\n\r\na line of mail\r\n")
    seconds = time.monotonic() - began
    cluster.note("box@boxes.test", "to the standby")
    headers = cluster.on("standby", "sh", "-c", "exim4 -bp | awk '$3 ~ /-/ { print $3 }' | xargs -n 1 exim4 -Mvh")
    tokens = set(re.findall(r"X-Token: (\S+)", headers))
    check(owed <= tokens, f"{len(owed - tokens)} of {len(owed)} messages that main1 answered with 250 are not there")
    cluster.power("store", "on")
    cluster.power("retry", "on")
    cluster.on("standby", "exim4", "-qff")
    check(cluster.queue("standby") == 0, f"not delivered: {cluster.on('standby', 'exim4', '-bp')}")
    return f"{len(owed)} of main1's messages were there, the first 250 {seconds:.1f} s after the standby was switched on"


@test
def standby(cluster):
    """main1's volume goes to a standby that has never seen it."""
    return serve_by_standby(cluster)


@test
def standby_of_another_user(cluster):
    """The same where Debian-exim has other numbers, and there is less memory; and back."""
    cluster.power("standby", "on")
    cluster.on("standby", "sh", "-c", "service exim4 stop; fastspool stop; sed -i 's/^memory.*/memory = 20M/' /etc/fastspool.conf; "
               "sed -i 's/^Debian-exim:x:[0-9]*/Debian-exim:x:5101/' /etc/group; "
               "sed -i 's/^Debian-exim:x:[0-9]*:[0-9]*/Debian-exim:x:5101:5101/' /etc/passwd; chown -R Debian-exim:adm /var/log/exim4")
    cluster.power("standby", "off")
    said = serve_by_standby(cluster)
    owner = cluster.on("standby", "stat", "-c", "%u", "/var/spool/exim4/.fastspool").strip()
    check(owner == "5101", f"the standby's state is user {owner}'s")
    return said


# --- everything together ---

@test
def campaign(cluster):
    """Mail of 32 connections, and a fault every few seconds: of recipients, of any host, of the main servers' power."""
    seed = os.environ.get("FASTSPOOL_TEST_SEED", str(random.getrandbits(32)))
    chance = random.Random(seed)
    count = int(os.environ.get("FASTSPOOL_TEST_MESSAGES", "200000" if "FASTSPOOL_TEST_LONG" in os.environ else "500"))
    load = cluster.load(count, 32)
    faults = collections.Counter()
    while load.poll() is None:
        host, what = chance.choice((("main1", "cut"), ("main2", "cut"), ("main1", "kill"), ("main2", "off"), ("store", "kill"),
                                    ("retry", "off"), ("backup", "off"), ("scan", "kill"), ("dns", "kill"),
                                    ("far", "refuse"), ("far", "hang"), ("far", "die")))
        faults[f"{host} {what}"] += 1
        if host == "far":
            cluster.far(what)
        else:
            cluster.power(host, what)
        time.sleep(chance.uniform(1, 5))                # how long the fault lasts; nothing waits for this moment
        cluster.repair()
        time.sleep(chance.uniform(0, 3))
    answer = cluster.wait_load(load)
    check(len(answer["acknowledged"]) == count, f"only {len(answer['acknowledged'])} were taken: {answer['refused']}")
    return f"seed {seed}; faults: {dict(faults)}"


# --- the runner ---

def main():
    arguments = runner.begin(__doc__)
    if not os.environ.get("FASTSPOOL_TEST_IN_NETWORK"):
        cluster = Cluster(arguments.build)
        status = 1
        try:
            cluster.up()
            # The tests read mail by IMAP, so they live in the network of the private machine.
            process = pathlib.Path(cluster.place, "machine").read_text().strip()
            status = subprocess.run(["nsenter", "--target", process, "--net", "--", sys.executable, __file__, *sys.argv[1:]],
                                    env={**os.environ, "FASTSPOOL_TEST_IN_NETWORK": cluster.place}).returncode
        finally:
            cluster.down()
        sys.exit(status)
    cluster = Cluster.__new__(Cluster)
    cluster.loads = []
    cluster.forget()

    def judged(function):
        try:
            return "; ".join(filter(None, (function(cluster), cluster.judge())))
        finally:
            cluster.repair()
            cluster.forget()

    runner.run("cluster", [(function.__name__, functools.partial(judged, function)) for function in TESTS], arguments.names)


main()
