# SPDX-License-Identifier: MIT
"""The harness of the system tests: a private Exim, SMTP clients, a sink, and a ledger of the mail.

A test is a function that takes an Exim and is marked @test.  Its docstring states what must hold.  Each test gets its
own Exim: a spool, a log and a configuration.  The configuration goes where Exim was compiled to look for it, so Exim
re-executes itself set-user-ID as on a production system.  This touches /etc, ports and every process in sight, so the
tests run only inside tests/system/namespace.sh, with private mounts, processes and network.

Every message carries a token.  A test calls expect() to say where a message has to arrive.  After the test the harness
checks:

- each message arrived exactly once in each of its places, byte for byte;
- the queue is as the test left it;
- the real input/ and msglog/ are empty, because the queue is in the store;
- the panic log is empty.

--stock runs Exim without the library, which proves the tests themselves.  Tests that need the library are skipped then.
--view runs Exim without the library on the view of the store.  After each test nothing may lie on the disk below the view.
--mixed is the same, but the daemon, and what it executes, have the library.

A suite ends with the line "N passed, N failed, N skipped".  The exit status is 1 if a test failed, 77 if none passed.
"""
import argparse
import base64
import contextlib
import glob
import hashlib
import itertools
import json
import os
import pathlib
import pwd
import random
import re
import resource
import select
import shutil
import signal
import socket
import socketserver
import ssl
import subprocess
import sys
import threading
import time
import traceback

from viewed import View, is_view

EXIM = "/usr/sbin/exim4"
TOOL = "/usr/bin/fastspool"
LIBRARY = "libfastspool.so"
EXIM_CONFIGURATION = "/etc/exim4/exim4.conf"
FASTSPOOL_CONFIGURATION = "/etc/fastspool.conf"
USER = "fastspool-test"                 # exists in the private /etc alone
USER_ID = 23001
SMTP_PORT, SINK_PORT = 2525, 2526
ROOTS_MEMORY = "/run/fastspool/memory"
ID = re.compile(r"\b[0-9A-Za-z]{6}-[0-9A-Za-z]{6,11}-[0-9A-Za-z]{2,4}\b")

CONFIGURATION = """
spool_directory = {spool}
log_file_path = {work}/log/%slog
pid_file_path = {work}/exim.pid
primary_hostname = mail.test
qualify_domain = mail.test
local_interfaces = 127.0.0.1
daemon_smtp_ports = {smtp_port}
smtp_accept_max = 200
smtp_accept_queue = 0
smtp_accept_queue_per_connection = 0
smtp_accept_max_per_connection = 0
smtp_connect_backlog = 200
smtp_enforce_sync = false
rfc1413_query_timeout = 0s
timeout_frozen_after = 0s
trusted_users = root
untrusted_set_sender = *
acl_smtp_rcpt = accept
log_selector = +pid
chunking_advertise_hosts = *
tls_advertise_hosts = *
tls_certificate = {work}/tls.pem
tls_privatekey = {work}/tls.pem
keep_environment =
{main}

begin acl
# For tests that set `acl_smtp_data`.
body:
  accept condition = ${{if match{{$message_body}}{{leading dot}}}}
  deny
command:
  accept set acl_m0 = ${{run{{{work}/inherit}}{{$value}}}}

begin routers
fail:
  driver = redirect
  domains = fail.test
  allow_fail
  data = :fail: no such user here
fails:
  driver = accept
  domains = fails.output.test
  transport = fails
works:
  driver = accept
  domains = works.output.test
  transport = works
defers:
  driver = accept
  domains = defers.output.test
  transport = defers
batch:
  driver = accept
  domains = batch.output.test
  transport = batch
forward:
  driver = redirect
  domains = forward.test
  check_local_user
  file = /home/{user}/.forward
  allow_filter
  file_transport = mbox
  pipe_transport = pipe
  directory_transport = maildir
mbox:
  driver = accept
  domains = mbox.test
  transport = mbox
maildir:
  driver = accept
  domains = maildir.test
  transport = maildir
pipe:
  driver = accept
  domains = pipe.test
  transport = command
filtered:
  driver = accept
  domains = filtered.test
  transport = filtered
remote:
  driver = manualroute
  domains = *
  route_list = * 127.0.0.1::{sink_port}
  self = send
  transport = {remote_transport}

begin transports
mbox:
  driver = appendfile
  file = {work}/mail/mbox
  user = {user}
maildir:
  driver = appendfile
  directory = {work}/mail/maildir
  maildir_format
  user = {user}
pipe:
  driver = pipe
  user = {user}
  return_output
fails:
  driver = pipe
  command = {work}/say 3
  user = {user}
  log_fail_output
  return_fail_output
works:
  driver = pipe
  command = {work}/say 0
  user = {user}
  log_output
  return_output
defers:
  driver = pipe
  command = {work}/say 75
  user = {user}
  log_defer_output
batch:
  driver = pipe
  command = {work}/say 3
  user = {user}
  batch_max = 10
  batch_id = $domain
  log_fail_output
  return_fail_output
command:
  driver = pipe
  command = {work}/deliver
  message_prefix =
  message_suffix =
  user = {user}
  log_output
filtered:
  driver = appendfile
  directory = {work}/mail/filtered
  maildir_format
  user = {user}
  transport_filter = /usr/bin/python3 {work}/filter
smtp:
  driver = smtp
  hosts_try_fastopen = :
  hosts_avoid_tls = *
smtp_filtered:
  driver = smtp
  hosts_try_fastopen = :
  hosts_avoid_tls = *
  transport_filter = /usr/bin/python3 {work}/filter
reply:
  driver = autoreply
  user = {user}

begin retry
*  *  F,1h,1s
"""

DELIVER = """#!/bin/sh
# The command of the pipe transport: one file per message.  The rename to the final name marks it complete.
t=$(mktemp {work}/mail/command/.XXXXXXXX) && cat >"$t" && mv "$t" {work}/mail/command/$$-$(date +%N)
"""


INHERIT = """#!/bin/sh
# Lists the descriptors that a ${{run}} command inherits beyond its standard streams, one per line.
for descriptor in /proc/$$/fd/*; do
    case ${{descriptor##*/}} in 0|1|2|10|255) ;; *) readlink "$descriptor" ;; esac
done >{work}/mail/inherited
"""


SAY = """#!/bin/sh
# A command of a pipe transport that prints, and ends with status $1.  Its output is computed: a bounce quotes the command.
cat >{work}/mail/read; expr 111111 + 222222; expr 333333 + 333333 >&2; exit $1
"""


FILTER = """# A transport filter.  It notes the descriptors that it has.
import os, sys
opened = [f for f in sorted(os.listdir("/proc/self/fd"), key=int) if os.path.exists("/proc/self/fd/" + f)]
with open("{work}/mail/filter.descriptors", "w") as file:
    file.write(" ".join(opened))
sys.stdout.buffer.write(sys.stdin.buffer.read().replace(b"original", b"filtered"))
"""


class Failure(Exception):
    """A condition that a test checked does not hold."""


class Skip(Exception):
    """The test can't run on this machine."""


def check(condition, sentence):
    if not condition:
        raise Failure(sentence)


def listens(port):
    """Does a socket listen on PORT?

    A connection would tell, too, but for each Exim has a child, which counts as one more Exim until it has noticed the end.
    """
    sockets = [line.split() for line in pathlib.Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return any(words[1].endswith(f":{port:04X}") and words[3] == "0A" for words in sockets)


def wait_for(condition, what, seconds=60.0):
    """Poll condition() until it is true.  Returns its value.

    A condition that looks at a process or a file that goes meanwhile isn't true yet.  SECONDS are for a busy machine: who
    means a rule of the product's, in seconds, compares times.
    """
    end = time.monotonic() + seconds
    while True:
        value, gone = None, ""
        try:
            value = condition()
        except (FileNotFoundError, ProcessLookupError) as error:
            gone = f": {error}"
        if value:
            return value
        if time.monotonic() > end:
            raise Failure(f"timed out after {seconds:.0f} s waiting until {what}{gone}")
        time.sleep(0.02)


# --- messages -----------------------------------------------------------------------------------------------------

class Message:
    """A message: a unique token, and a body of LF-terminated lines."""
    count = 0

    def __init__(self, recipient="user@sink.test", sender="sender@sink.test", body=None, size=2000):
        Message.count += 1
        self.token = f"T{os.getpid()}-{Message.count}-{random.getrandbits(32):08x}"
        self.sender = sender
        self.recipients = [recipient] if isinstance(recipient, str) else list(recipient)
        self.body = body if body is not None else text(size)

    def content(self):
        """The message as Exim receives it: headers, an empty line, the body."""
        return (f"From: {self.sender}\nTo: {(', ' + chr(10) + ' ').join(self.recipients)}\nSubject: {self.token}\n"
                f"X-Token: {self.token}\n\n").encode() + self.body


def text(size):
    """SIZE bytes of random lines, plus lines that transports tend to alter: dots, "From ", trailing blanks."""
    odd = b".\n..\n.leading dot\n\n \ttabs and trailing blanks \t \nFro m here\noriginal\n"
    lines = base64.encodebytes(os.urandom(max(0, size - len(odd)) * 57 // 77))
    return lines + odd


def split_message(raw):
    """(token, body) of a delivered message, with CRLF turned into LF.  The token is None if the message has none."""
    raw = raw.replace(b"\r\n", b"\n")
    header, _, body = raw.partition(b"\n\n")
    found = re.search(rb"^X-Token: (\S+)$", header, re.M)
    return (found.group(1).decode() if found else None), body


# --- the network --------------------------------------------------------------------------------------------------

class Client:
    """An SMTP client: one command at a time or pipelined, DATA or BDAT, with or without TLS."""

    def __init__(self, port=SMTP_PORT, tls=False, timeout=60):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=timeout)
        self.stream = self.socket.makefile("rb")
        self.expect(220)
        self.expect(250, b"EHLO client.test\r\n")
        if tls:
            self.expect(220, b"STARTTLS\r\n")
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
            self.socket = context.wrap_socket(self.socket)
            self.stream = self.socket.makefile("rb")
            self.expect(250, b"EHLO client.test\r\n")

    def reply(self):
        """The next reply: (code, text)."""
        lines = []
        while True:
            line = self.stream.readline()
            if not line.endswith(b"\n"):
                raise ConnectionError("Exim closed the connection")
            lines.append(line.decode(errors="replace").rstrip())
            if line[3:4] != b"-":
                return int(line[:3]), "\n".join(lines)

    def expect(self, code, command=b""):
        if command:
            self.socket.sendall(command)
        answer = self.reply()
        check(answer[0] == code, f"expected {code} to {command[:60]!r}, got {answer[1]!r}")
        return answer[1]

    def send(self, message, pipelining=False, chunks=0):
        """Send MESSAGE by DATA, or by BDAT in CHUNKS pieces if CHUNKS > 0.  Returns (code, text) of the reply to the final
        dot.  With BDAT: of the first reply that isn't 250, or else of the last."""
        data = message.content().replace(b"\n", b"\r\n")
        envelope = [f"MAIL FROM:<{message.sender}>\r\n".encode()]
        envelope += [f"RCPT TO:<{recipient}>\r\n".encode() for recipient in message.recipients]
        if chunks:
            size = -(-len(data) // chunks)
            pieces = [data[at:at + size] for at in range(0, len(data), size)]
            pieces = [b"BDAT %d%s\r\n" % (len(piece), b" LAST" if piece is pieces[-1] else b"") + piece
                      for piece in pieces]
            if pipelining:
                self.socket.sendall(b"".join(envelope + pieces))
                replies = [self.reply() for _ in envelope + pieces]
            else:
                replies = []
                for command in envelope + pieces:
                    self.socket.sendall(command)
                    replies.append(self.reply())
            return next((reply for reply in replies if reply[0] != 250), replies[-1])
        if data.startswith(b"."):
            data = b"." + data
        data = data.replace(b"\r\n.", b"\r\n..") + b".\r\n"
        if pipelining:
            self.socket.sendall(b"".join(envelope) + b"DATA\r\n")
            for _ in envelope:
                self.expect(250)
            self.expect(354)
        else:
            for command in envelope:
                self.expect(250, command)
            self.expect(354, b"DATA\r\n")
        self.socket.sendall(data)
        return self.reply()

    def close(self):
        try:
            self.expect(221, b"QUIT\r\n")
        except (OSError, ValueError):
            pass
        self.stream.close()
        self.socket.close()


class Sink(socketserver.ThreadingTCPServer):
    """An SMTP server that stores its mail.  It answers each message with 451 `refusals` times, then with 250."""
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 4096           # where it is full, clients wait for a greeting, for minutes

    def __init__(self, port=SINK_PORT):
        self.messages = []              # (recipients, raw bytes), in the order of acceptance
        self.refusals = 0
        self.refused = {}               # token -> number of 451 replies so far
        self.times = {}                 # token -> time.time() of each acceptance
        self.reject = False             # answer each RCPT with 550
        self.delay = 0.0                # seconds to hold back the reply to the final dot
        self.waiting = 0                # messages held back so far
        self.lock = threading.Lock()
        super().__init__(("127.0.0.1", port), SinkSession)
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def handle_error(self, request, client_address):
        """Stay silent: tests kill deliverers on purpose."""

    def stop(self):
        self.shutdown()
        self.server_close()


class SinkSession(socketserver.StreamRequestHandler):
    disable_nagle_algorithm = True      # a two-line reply would wait 40 ms for Exim's delayed ACK

    def answer(self, line):
        self.wfile.write(line.encode() + b"\r\n")

    def handle(self):
        sink, recipients = self.server, []
        self.answer("220 sink.test ESMTP")
        for line in self.rfile:
            verb = line[:4].upper()
            if verb in (b"EHLO", b"HELO"):
                self.answer("250-sink.test")
                self.answer("250 SIZE")
            elif verb == b"RCPT":
                if sink.reject:
                    self.answer("550 no such user at the sink")
                    continue
                recipients.append(line.split(b"<", 1)[1].split(b">", 1)[0].decode())
                self.answer("250 OK")
            elif verb == b"DATA":
                self.answer("354 go on")
                raw = []
                for piece in self.rfile:
                    if piece == b".\r\n":
                        break
                    raw.append(piece[1:] if piece.startswith(b".") else piece)
                else:
                    return              # the deliverer died before the final dot
                self.finish_message(recipients, b"".join(raw))
                recipients = []
            elif verb == b"QUIT":
                self.answer("221 bye")
                return
            else:
                recipients = [] if verb in (b"MAIL", b"RSET") else recipients
                self.answer("250 OK")

    def finish_message(self, recipients, raw):
        sink = self.server
        if sink.delay:
            sink.waiting += 1
            time.sleep(sink.delay)
        token = split_message(raw)[0]
        with sink.lock:
            if sink.refused.get(token, 0) < sink.refusals:
                sink.refused[token] = sink.refused.get(token, 0) + 1
                accepted = False
            else:
                sink.messages.append((recipients, raw))
                sink.times.setdefault(token, []).append(time.time())
                accepted = True
        self.answer("250 accepted" if accepted else "451 try again later")


# --- Exim ---------------------------------------------------------------------------------------------------------

def by_message(listing):
    """What stands before a listing, and its messages: without their ages, which change by themselves, and in an order of
    their own, as Exim lists those of one tick as it finds them in the directory."""
    return sorted(part.strip() for part in re.split(r"(?m)^ *\d+[mhd] ", listing))


class Exim:
    """A private Exim, with the library or without it (stock), and the ledger of its mail.

    VIEW: the view is mounted, and Exim is stock; with "mixed" the daemon has the library; with "library" every Exim has it."""

    def __init__(self, work, stock, main=(), remote_transport="smtp", memory="512M", fastspool=(), spool=None, view=None):
        self.work, self.stock, self.memory = pathlib.Path(work), stock or view not in (None, "library"), memory
        self.with_view, self.view = None if stock and view == "library" else view, None
        self.spool = pathlib.Path(spool) if spool else self.work / "spool"
        self.daemon = None
        self.expected = []              # (place, message)
        self.queued = 0                 # messages that the test leaves in the queue on purpose
        self.real = set()               # files that it leaves in the real input/ and msglog/ on purpose
        self.panic = None               # regular expression for lines allowed in the panic log
        for directory in (self.spool, self.work / "log"):
            directory.mkdir(parents=True, exist_ok=True)
            self.own(directory)
        (self.work / "mail").mkdir()
        (self.work / "mail" / "command").mkdir()
        for directory in (self.work / "mail", self.work / "mail" / "command"):
            os.chown(directory, USER_ID, USER_ID)
            directory.chmod(0o777)
        (self.work / "deliver").write_text(DELIVER.format(work=self.work))
        (self.work / "deliver").chmod(0o755)
        for name, script in (("inherit", INHERIT), ("say", SAY), ("filter", FILTER)):
            (self.work / name).write_text(script.format(work=self.work))
            (self.work / name).chmod(0o755)
        shutil.copy("/etc/fastspool-test.pem", self.work / "tls.pem")
        shutil.chown(self.work / "tls.pem", "Debian-exim")
        self.configure(main, remote_transport)
        self.fastspool_configuration(f"memory = {memory}", *fastspool)
        self.sink = Sink()

    @staticmethod
    def own(directory):
        """Give DIRECTORY to Exim's user, with the mode that Debian's package uses."""
        shutil.chown(directory, "Debian-exim", "Debian-exim")
        directory.chmod(0o750)

    def make_directories(self):
        """Make the directories that the view is mounted over, as Debian's package does."""
        for name in ("input", "msglog"):
            (self.spool / name).mkdir(exist_ok=True)
            self.own(self.spool / name)

    def configure(self, main=(), remote_transport="smtp"):
        os.makedirs(os.path.dirname(EXIM_CONFIGURATION), exist_ok=True)
        main = [option.replace("{work}", str(self.work)) for option in main]
        text = CONFIGURATION.format(
            work=self.work, spool=self.spool, user=USER, smtp_port=SMTP_PORT, sink_port=SINK_PORT,
            main="\n".join(main), remote_transport=remote_transport)
        for option in main:             # a test's option replaces the default above
            text = re.sub(rf"^{option.split('=')[0]}=.*\n(?=(.*\n)*{re.escape(option)}$)", "", text, count=1, flags=re.M)
        pathlib.Path(EXIM_CONFIGURATION).write_text(text)

    def fastspool_configuration(self, *lines):
        """Write the configuration.  A test that wants the view has the line "view = auto"."""
        view = () if any(line.startswith("view") for line in lines) else (f"view = {'auto' if self.with_view else 'off'}",)
        pathlib.Path(FASTSPOOL_CONFIGURATION).write_text("".join(
            line + "\n" for line in (f"spool = {self.spool}", *view, *lines)))

    def environment(self, stock=False):
        environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LC_ALL": "C"}
        if not self.stock and not stock:
            environment["LD_PRELOAD"] = LIBRARY
        return environment

    def mount_view(self):
        """Mount the view if the test wants it and has none: at its first command, after a reboot."""
        if self.with_view == "library":
            self.wait_view()
        elif self.with_view and not self.view:
            self.view = View(self.spool, open(self.work / "view.out", "ab")).start()

    def wait_view(self):
        """Wait for the view that the first process of root's starts.  As in Debian's package the directories are there before,
        and Exim's: docs/limits.md says what may come of a chown(2) while the first view is mounted."""
        if is_view(self.spool / "input") and is_view(self.spool / "msglog"):
            return
        self.make_directories()
        subprocess.run(["ls", "input"], env=self.environment(), cwd=self.spool, check=True, stdout=subprocess.DEVNULL)
        wait_for(lambda: is_view(self.spool / "input") and is_view(self.spool / "msglog"), "the view is mounted")

    def unmount_view(self):
        if self.view:
            self.view.stop()
            self.view = None

    def command(self, *arguments, input=None, user=None, stock=False, program=EXIM, timeout=120, environment=()):
        """Run exim4 (or PROGRAM) and wait for it.  ENVIRONMENT adds variables.  The result holds stdout and stderr."""
        self.mount_view()
        return subprocess.run([program, *map(str, arguments)], input=input, capture_output=True, timeout=timeout,
                              env={**self.environment(stock), **dict(environment)}, cwd="/", user=user,
                              group=pwd.getpwnam(user).pw_gid if user else None, extra_groups=[] if user else None,
                              stdin=subprocess.DEVNULL if input is None else None)

    def run(self, *arguments, **keywords):
        """command() that must succeed with an empty stderr.  Returns stdout."""
        result = self.command(*arguments, **keywords)
        check(result.returncode == 0 and not result.stderr,
              f"{' '.join(map(str, arguments))}: exit {result.returncode}, {result.stderr.decode(errors='replace')!r}")
        return result.stdout

    def start(self, *arguments, limits=()):
        """Start the daemon and wait until it listens.  LIMITS: (resource, (soft, hard)) pairs for it."""
        self.mount_view()
        environment = {**self.environment(), **({"LD_PRELOAD": LIBRARY} if self.with_view == "mixed" else {})}
        self.daemon = subprocess.Popen([EXIM, "-bdf", *arguments], env=environment, cwd="/",
                                       stdin=subprocess.DEVNULL, stdout=open(self.work / "daemon.out", "ab"),
                                       stderr=subprocess.STDOUT,
                                       preexec_fn=lambda: [resource.setrlimit(*limit) for limit in limits])

        self.wait_listens()
        if "LD_PRELOAD" in environment:
            maps = pathlib.Path(f"/proc/{self.daemon.pid}/maps").read_text()
            check(LIBRARY in maps, f"the library is not in the daemon: {self.said()}")

    def said(self):
        """The daemon's output, its panic log, and what the view says."""
        return " | ".join(path.read_text(errors="replace").strip() for path in
                          (self.work / "daemon.out", self.work / "view.out", self.work / "log" / "paniclog") if path.exists())

    def stop(self):
        """Stop the daemon with SIGTERM, like an init script."""
        if self.daemon:
            self.daemon.terminate()
            self.daemon.wait(60)
            self.daemon = None

    def operator(self, *arguments):
        """The fastspool command, as an administrator types it: what has become of it.

        `stop` beside the test's own daemon ends with 2, and names it.  Where none runs the last Exim may be about to end: then
        `stop` is run again, as it says, until none uses the store."""
        def typed():
            result = self.command(*arguments, program=TOOL, stock=True)
            return result, arguments[0] == "stop" and result.returncode == 2 and b" uses the store of " in result.stderr
        result, is_used = typed()
        if is_used and not (self.daemon and self.daemon.poll() is None):
            result = wait_for(lambda: (again := typed()) and not again[1] and again[0], "no Exim uses the store")
        return result

    def went_on(self, result):
        """Was this a `fastspool stop` beside the test's daemon?"""
        return (self.daemon is not None and result.returncode == 2 and
                f"Exim, process {self.daemon.pid} (".encode() in result.stderr and b" uses the store of " in result.stderr)

    def tool(self, *arguments):
        """Run the fastspool command as an administrator would.  Returns its output.  `stop` may be beside the daemon."""
        result = self.operator(*arguments)
        check((result.returncode == 0 and not result.stderr) or self.went_on(result),
              f"fastspool {' '.join(map(str, arguments))}: exit {result.returncode}, {result.stderr.decode(errors='replace')!r}")
        return result.stdout.decode()

    def status(self):
        """What `fastspool status` says, whether all is well or not."""
        return json.loads(self.command("status", "--json", program=TOOL, stock=True).stdout)

    def reboot(self):
        """Take away what a power cycle takes: all processes, the memory, and mounts."""
        kill_all()
        self.daemon = self.view = None
        for _, place in views():
            subprocess.run(["umount", "--lazy", place], check=True)
        forget_memory()
        if os.path.ismount(ROOTS_MEMORY):
            subprocess.run(["umount", "--lazy", ROOTS_MEMORY], check=True)

    def expect(self, message, *places):
        """MESSAGE must arrive in each of PLACES: "sink", "mbox", "maildir", "filtered", "command"."""
        self.expected += [(place, message) for place in places]
        return message

    def submit(self, message, *arguments, user=None):
        """Submit by exim -bm, the way programs call `sendmail`."""
        self.run("-oi", "-f", message.sender, *arguments, *message.recipients, input=message.content(), user=user)

    def queue(self, *options):
        """The message IDs in `exim -bp`, in its order.

        Exim sorts by the time in an ID, its first and last part.  Those of one tick it lists as the directory does; here by name.
        """
        names = ID.findall(self.run("-bp", *options).decode())
        ticks = itertools.groupby(names, lambda name: (name[:6], name.rpartition("-")[2]))
        return [name for _, same in ticks for name in sorted(same)]

    def listing(self, *options, stock=False):
        """What `exim -bp` tells of each message."""
        return by_message(self.run("-bp", *options, stock=stock).decode())

    def deliver_queue(self):
        """Run the queue as root until it is empty and the mail has arrived."""
        self.run("-qff")
        self.wait_arrived()
        self.wait_empty()

    def wait_listens(self):
        def ready():
            check(self.daemon.poll() is None, f"the daemon ended: {self.said()}")
            return listens(SMTP_PORT)
        wait_for(ready, "the daemon listens")

    def wait_queued(self, count, name):
        """Wait until named queue NAME has COUNT messages, each with its -D file.  Without a view it has them at once.

        Of a message that was being received when the view was mounted over its queue the view has the -H file, and the
        -D file a moment later.  Meanwhile a queue run passes it over.
        """
        wait_for(lambda: len(list((self.spool / name / "input").glob("*-D"))) == count if self.with_view else True,
                 f"queue {name} is in the view")
        check(len(self.queue(f"-qG{name}")) == count, f"queue {name} doesn't have its {count} messages")

    def wait_empty(self, seconds=120):
        wait_for(lambda: not self.queue(), "the queue is empty", seconds)

    def forward(self, *lines):
        """Write the test user's .forward.  Without lines, remove it."""
        path = pathlib.Path(f"/home/{USER}/.forward")
        path.unlink(missing_ok=True)
        if lines:
            path.write_text("".join(line + "\n" for line in lines))
            shutil.chown(path, USER, USER)

    def log(self):
        path = self.work / "log" / "mainlog"
        return path.read_text(errors="replace") if path.exists() else ""

    def real_files(self):
        """The queue of an Exim without the library: every real file below input/ and msglog/, and below a view of them."""
        if views():
            # All layers at a place, also one that was mounted just now.
            script = "".join(f"while umount --lazy {place} 2>/dev/null; do :; done; " for place in {place for _, place in views()})
            script += f"cd {self.spool}; find input msglog */input */msglog ! -type d 2>/dev/null"
            found = subprocess.run(["unshare", "--mount", "sh", "-c", script], capture_output=True, text=True)
            return set(found.stdout.split())
        return {str(path.relative_to(self.spool)) for pattern in ("input", "msglog", "*/input", "*/msglog")
                for top in self.spool.glob(pattern) if not top.is_symlink()
                for path in top.rglob("*") if not path.is_dir()}

    def arrived(self):
        """(place, raw bytes) of every message that arrived."""
        with self.sink.lock:
            found = [("sink", raw) for _, raw in self.sink.messages]
        for place in ("maildir", "filtered"):
            found += [(place, path.read_bytes()) for path in (self.work / "mail" / place / "new").glob("*")]
        found += [("command", path.read_bytes()) for path in (self.work / "mail" / "command").glob("[0-9]*")]
        mbox = self.work / "mail" / "mbox"
        if mbox.exists():
            # appendfile puts a "From ..." line before each message and an empty line after it.
            pieces = re.split(rb"^From \S+ \w{3} \w{3} [ \d]\d \d\d:\d\d:\d\d \d{4}\n", mbox.read_bytes(), flags=re.M)
            found += [("mbox", piece.removesuffix(b"\n")) for piece in pieces[1:]]
        return found

    def tokens(self):
        """(place, token) of every message that arrived."""
        return [(place, split_message(raw)[0]) for place, raw in self.arrived()]

    def wait_arrived(self, *messages, seconds=120):
        """Wait until MESSAGES, by default all expected ones, are in their places."""
        wanted = {(place, message.token) for place, message in self.expected if not messages or message in messages}
        try:
            wait_for(lambda: wanted <= set(self.tokens()), "the mail arrived", seconds)
        except Failure as failure:
            raise Failure(f"{failure}; missing: {sorted(wanted - set(self.tokens()))}") from None

    def settle(self):
        """Wait until only the daemon and the mirror run, so no delivery is in progress."""
        wait_for(lambda: not [pid for pid, name in processes() if name.startswith("exim")
                              and not (self.daemon and pid == self.daemon.pid)], "every delivery has ended")

    def judge(self):
        """Compare the ledger with what arrived, after every test."""
        self.settle()
        arrived = {}
        for place, raw in self.arrived():
            token, body = split_message(raw)
            arrived.setdefault((place, token), []).append(body)
        for place, message in self.expected:
            bodies = arrived.get((place, message.token), [])
            check(len(bodies) == 1, f"{message.token} arrived {len(bodies)} times in {place}")
            wanted = message.body.replace(b"original", b"filtered") if place == "filtered" else message.body
            check(bodies[0] == wanted, f"{message.token} in {place}: {difference(wanted, bodies[0])}")
        stray = set(arrived) - {(place, message.token) for place, message in self.expected} - {
            (place, None) for place in ("sink", "mbox", "maildir")}
        check(not stray, f"unexpected arrivals: {sorted(map(str, stray))}")
        count = int(self.run("-bpc"))
        check(count == self.queued, f"the queue holds {count} messages, expected {self.queued}")
        if self.view:
            self.stop()
            self.unmount_view()
            check(not is_view(self.spool / "input"), "the view is still mounted after fastspool stop")
        if self.with_view or not self.stock:
            real = self.real_files()
            check(real == self.real, f"wrong files in the real queue directories: {sorted(real ^ self.real)}")
        panic = self.work / "log" / "paniclog"
        lines = [line for line in (panic.read_text(errors="replace").splitlines() if panic.exists() else [])
                 if not (self.panic and re.search(self.panic, line))]
        check(not lines, f"panic log: {lines[:3]}")

    def end(self):
        """Kill everything that the test started, remove its segment, and give its disks back: the machine has few loop devices."""
        self.sink.stop()
        self.forward()
        self.reboot()
        places = [line.split()[1] for line in pathlib.Path("/proc/mounts").read_text().splitlines()]
        for place in reversed([place for place in places if place.startswith(f"{self.work}/")]):
            subprocess.run(["umount", "--lazy", place], stderr=subprocess.DEVNULL)


def difference(wanted, got):
    """A short description of where two bodies differ."""
    if len(wanted) > 1 << 20:
        return f"{len(wanted)} bytes expected, {len(got)} arrived; sha256 {hashlib.sha256(got).hexdigest()[:12]}"
    at = next((n for n, pair in enumerate(zip(wanted, got)) if pair[0] != pair[1]), min(len(wanted), len(got)))
    return (f"{len(wanted)} bytes expected, {len(got)} arrived, first difference at byte {at}: "
            f"{wanted[at:at + 40]!r} became {got[at:at + 40]!r}")


# --- processes ----------------------------------------------------------------------------------------------------

def in_private_namespace():
    outer = os.environ.get("FASTSPOOL_OUTER_PID_NAMESPACE")
    return bool(outer) and outer != os.readlink("/proc/self/ns/pid")


def processes():
    """(pid, name) of every live process in the private namespace, except pid 1, this process and its ancestors."""
    family, pid = {1}, os.getpid()
    while pid > 1:
        family.add(pid)
        pid = int(pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit() and int(entry) not in family:
            try:
                stat = pathlib.Path(f"/proc/{entry}/stat").read_text()
            except OSError:
                continue
            if stat.rsplit(")", 1)[1].split()[0] != "Z" or has_threads(entry):
                found.append((int(entry), stat.split("(", 1)[1].rsplit(")", 1)[0]))
    return found


def has_threads(pid):
    """Do threads of a process live that has ended?  They hold what it has open, its locks too."""
    try:
        return len(os.listdir(f"/proc/{pid}/task")) > 1
    except OSError:
        return False


def held(exim, call, path, *arguments):
    """`fastspool ARGUMENTS` on its way, stopped at its first CALL of PATH: (strace, process id).  Its output is strace's."""
    seen = exim.work / "seen"
    seen.write_text("")
    tracer = subprocess.Popen(["strace", "-f", "-o", seen, "-P", path, "-e", f"trace={call}", "-e", f"inject={call}:signal=STOP:when=1",
                               TOOL, *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    wait_for(lambda: tracer.poll() is not None or "stopped by SIGSTOP" in seen.read_text(), f"fastspool {arguments} is stopped")
    check(tracer.poll() is None, f"fastspool {arguments} was not stopped: {seen.read_text()}")
    return tracer, int(re.search(r"(\d+) +--- stopped by SIGSTOP", seen.read_text()).group(1))


def words_of(pid):
    """The command line of a process; [] when it has ended."""
    try:
        return pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")[:-1]
    except OSError:
        return []


def stores():
    """The directories of all stores' memory, of root's file system and of /dev/shm."""
    return sorted(glob.glob(f"{ROOTS_MEMORY}/*/fastspool.*") + glob.glob("/dev/shm/fastspool.*"))


def forget_memory():
    """Remove the memory of all stores."""
    for path in stores():
        shutil.rmtree(path)


def views():
    """(name of the mount's root, place) of every view in this mount namespace, the upper ones first."""
    lines = pathlib.Path("/proc/self/mountinfo").read_text().splitlines()
    return [(line.split()[3], line.split()[4]) for line in reversed(lines) if " - fuse.fastspool " in line]


def kill(pid):
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def suspend(pid):
    """Send SIGSTOP, and wait until every thread has stopped: until then some go on, and answer.

    Each stops in a system call: one in the program's own code may have the store's lock, and who waits for that kills it.
    """
    def threads(name):
        return [path.read_text() for path in pathlib.Path(f"/proc/{pid}/task").glob(f"*/{name}")]

    def stopped():
        os.kill(pid, signal.SIGSTOP)
        wait_for(lambda: all(stat.rsplit(")", 1)[1].split()[0] == "T" for stat in threads("stat")), "the process has stopped")
        if not any(call.startswith("-1 ") for call in threads("syscall")):
            return True
        os.kill(pid, signal.SIGCONT)
        return False
    wait_for(stopped, "the process has stopped in a system call")


def sleeps_in(pid, function):
    """Does a process wait in this FUNCTION of the kernel?"""
    return function in pathlib.Path(f"/proc/{pid}/wchan").read_text()


def kill_all():
    """kill -9 every process in the private namespace except the test's own."""
    assert in_private_namespace()
    while found := processes():
        for pid, _ in found:
            kill(pid)
        time.sleep(0.01)


def processor_time():
    """Seconds of CPU that this program and all others in the private namespace have used, without those that still run."""
    orphans = pathlib.Path("/proc/1/stat").read_text().rsplit(")", 1)[1].split()[13:15]     # pid 1 reaps them
    return sum(os.times()[:4]) + sum(map(int, orphans)) / os.sysconf("SC_CLK_TCK")


# --- syslog -------------------------------------------------------------------------------------------------------

class Log:
    """/dev/log: the lines that processes say in syslog from now on.  They are read at once: who says more than the socket holds would
    wait."""

    def __init__(self):
        pathlib.Path("/dev/log").unlink(missing_ok=True)     # of an earlier one: namespace.sh has made /dev private
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind("/dev/log")
        os.chmod("/dev/log", 0o666)
        self.socket.setblocking(False)
        self.said, self.lock, self.closed = [], threading.Lock(), False
        threading.Thread(target=self.follow, daemon=True).start()

    def read(self):
        with self.lock, contextlib.suppress(BlockingIOError):
            while True:
                line = self.socket.recv(65536).decode(errors="replace").rstrip("\0\n")
                self.said.append(re.sub(r"^<\d+>.{15} [^:]*: ", "", line))

    def follow(self):
        with self.socket:
            while not self.closed:
                select.select([self.socket], [], [])
                self.read()

    def lines(self, part=""):
        """All lines with PART, without date and process."""
        self.read()
        return [line for line in self.said if part in line]

    def close(self):
        self.closed = True
        with contextlib.suppress(OSError):      # a line came meanwhile: follow() has seen it, and has ended
            self.socket.shutdown(socket.SHUT_RD)    # select ends


# --- the runner ---------------------------------------------------------------------------------------------------

TESTS = []


def test(*parameters, library=False, **options):
    """Mark a test.  OPTIONS go to Exim().  PARAMETERS are (suffix, options) pairs; the test runs once with each.  A
    LIBRARY test makes no sense without the library."""
    def mark(function):
        for suffix, more in parameters or (("", {}),):
            TESTS.append((function.__name__ + suffix, function, {**options, **more}, library))
        return function
    return mark


# Tests run with both layouts of the queue directories, flat and split.
QUEUE_ONLY = ("queue_only = true",)
LAYOUTS = (("", {"main": ("split_spool_directory = false",)}), ("_split", {"main": ("split_spool_directory = true",)}))
QUEUED_LAYOUTS = tuple((suffix, {"main": options["main"] + QUEUE_ONLY}) for suffix, options in LAYOUTS)


def prepare_host():
    """Add the test user and a TLS certificate to the private /etc."""
    with open("/etc/passwd", "a+") as passwd, open("/etc/group", "a+") as group:
        passwd.seek(0)
        if USER + ":" not in passwd.read():
            passwd.write(f"{USER}:x:{USER_ID}:{USER_ID}::/home/{USER}:/bin/sh\n")
            group.write(f"{USER}:x:{USER_ID}:\n")
    os.makedirs(f"/home/{USER}", exist_ok=True)
    os.chown(f"/home/{USER}", USER_ID, USER_ID)
    if not os.path.exists("/etc/fastspool-test.pem"):
        subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj",
                        "/CN=mail.test", "-keyout", "/etc/fastspool-test.key", "-out", "/etc/fastspool-test.crt"],
                       check=True, capture_output=True)
        pathlib.Path("/etc/fastspool-test.pem").write_text(
            pathlib.Path("/etc/fastspool-test.crt").read_text() + pathlib.Path("/etc/fastspool-test.key").read_text())


def main(suite):
    parser = argparse.ArgumentParser(description=f"system tests of fastspool: {suite}")
    parser.add_argument("--stock", action="store_true", help="run Exim without the library, to prove the tests themselves")
    parser.add_argument("--view", action="store_const", const="stock", help="run Exim without the library on the view")
    parser.add_argument("--mixed", action="store_const", const="mixed", dest="view", help="the same, but the daemon has the library")
    parser.add_argument("--keep", action="store_true", help="stop at each failure and say where its files are")
    parser.add_argument("names", nargs="*", help="run only tests whose name contains one of these")
    arguments = parser.parse_args()
    if not in_private_namespace():
        sys.exit("run system tests inside tests/system/namespace.sh only: they kill every process they see")
    prepare_host()
    counts = {"ok": 0, "not ok": 0, "skip": 0}
    suite += f"--{'mixed' if arguments.view == 'mixed' else 'view'}" if arguments.view else ""
    for name, function, options, library in TESTS:
        if arguments.names and not any(part in name for part in arguments.names):
            continue
        began, used, problem = time.monotonic(), processor_time(), None
        verdict = "ok"
        options = {"view": arguments.view, **options, **({"view": None} if arguments.stock else {})}
        wants_view = options["view"] or any(line == "view = auto" for line in options.get("fastspool", ()))
        if library and (arguments.stock or arguments.view):
            verdict, problem = "skip", "needs the library"
        elif wants_view and not pathlib.Path("/dev/fuse").exists():
            verdict, problem = "skip", "this machine has no /dev/fuse"
        else:
            # /srv is a private tmpfs, and every user may search it.
            work = pathlib.Path(f"/srv/{suite}-{name}")
            exim, log = None, Log()
            try:
                exim = Exim(work, arguments.stock, **options)
                function(exim)
                exim.judge()
            except Skip as skip:
                verdict, problem = "skip", str(skip)
            except Failure as failure:
                verdict, problem = "not ok", str(failure)
            except Exception:                       # a bug in the test, or a hung program: the trace shows where
                verdict, problem = "not ok", traceback.format_exc()
            if verdict == "not ok" and exim:
                problem += f"\n  main log:\n{exim.log()[-3000:]}\n  said: {exim.said()[-1500:]}\n  syslog:\n" + "\n".join(log.lines()[-20:])
                if arguments.keep:
                    print(f"not ok - {suite}.{name}\n{problem}\nfiles: {work} (enter with nsenter -m -p -t "
                          "PID-outside; press Enter to go on)", flush=True)
                    input()
            if exim:
                exim.end()
            log.close()
            shutil.rmtree(work, ignore_errors=True)
        counts[verdict] += 1
        print(f"{verdict} - {suite}.{name} ({time.monotonic() - began:.1f} s, {processor_time() - used:.1f} s of CPU)" +
              ("" if problem is None else ": " + problem if verdict == "skip" else ""), flush=True)
        if verdict == "not ok":
            print("\n".join("  " + line for line in problem.splitlines()), flush=True)
    print(f"{counts['ok']} passed, {counts['not ok']} failed, {counts['skip']} skipped", flush=True)
    if "FASTSPOOL_TEST_COUNTS" in os.environ:       # for tests/run
        with open(os.environ["FASTSPOOL_TEST_COUNTS"], "a") as file:
            print(counts["ok"], counts["not ok"], counts["skip"], file=file)
    sys.exit(1 if counts["not ok"] else 77 if not counts["ok"] else 0)
