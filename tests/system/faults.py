#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Faults under the mirror: it is killed at each of its calls, each call fails, the disk fills up, the disk hangs.

The tests run the real mirror with a small journal, so a load of seconds sees commits, checkpoints and reuse of journal
files.  inject.c is preloaded into the mirror alone.  It kills the mirror at its n-th call, or makes that call fail, for n
from 1 until the load ends before call n.  In every case:

- no client hangs;
- each reply is true;
- mail is accepted again without intervention;
- no message answered with 250 is lost when the memory goes afterwards.
"""
import collections
import concurrent.futures
import errno
import json
import os
import pathlib
import shutil
import subprocess
import sys
import threading
import time

from disk import LoopDisk
from harness import TOOL, Client, Failure, Message, Skip, check, kill, kill_all, main, processes, suspend, test, wait_for

QUEUE_ONLY = ("queue_only = true", "check_spool_space = 0", "check_spool_inodes = 0")
DURABILITY = (("", {}), ("_strict", {"fastspool": ("durability = strict",)}))
CLIENTS, EACH, SIZE = 4, 2, 12000    # a batch of four fits into a journal file: larger files are not reused
WAITERS = 24                # senders during the freeze
JOURNAL = 65536             # bytes of the journal and of each file: a load sees several checkpoints, and reuse
REAL_TOOL = pathlib.Path(TOOL + ".real")
LIBRARY = pathlib.Path("/srv/inject.so")


class Sender:
    """An SMTP client that stays connected.  It adds accepted messages to the ledger."""

    def __init__(self, exim):
        self.exim, self.client = exim, None

    def send(self, size=3000, seconds=60):
        """Send one message.  Returns (reply code, seconds until the reply)."""
        message, start = Message("user@maildir.test", size=size), time.monotonic()
        try:
            self.client = self.client or Client(timeout=seconds)
            code, text = self.client.send(message, pipelining=True)
        except (OSError, ValueError) as error:
            raise Failure(f"no reply within {seconds} s: {error!r}") from error
        if code == 250:
            message.name = text.split("id=")[1].split()[0]
            self.exim.expect(message, "maildir")
        return code, time.monotonic() - start


def load(senders, time_enough=0.1):
    """All senders send EACH messages in parallel, then again after a pause long enough for a checkpoint.  Returns all
    replies."""
    answers = []
    with concurrent.futures.ThreadPoolExecutor(len(senders)) as pool:
        for pause in (time_enough, 0):
            for some in pool.map(lambda sender: [sender.send(SIZE) for _ in range(EACH)], senders):
                answers += some
            time.sleep(pause)
    return answers


class Injected:
    """A mirror that is killed, or sees an error, at call NUMBER."""

    def __init__(self, exim, number, calls="all", error=0):
        self.arm(exim, number, calls, error)
        self.process = subprocess.Popen([TOOL, "mirror", "--journal", str(JOURNAL), str(exim.spool)], env=self.environment,
                                        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        lock = exim.spool / ".fastspool" / "mirror.lock"
        wait_for(lambda: self.process.poll() is not None or subprocess.run(["flock", "-n", lock, "true"]).returncode == 1,
                 "the mirror runs")

    def arm(self, exim, number, calls="all", error=0):
        """Prepare the environment of the mirror, without starting it."""
        if not LIBRARY.exists():
            subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", LIBRARY, pathlib.Path(__file__).with_name("inject.c")],
                           check=True)
        self.report = exim.work / "injected"
        self.report.write_text("")
        self.report.chmod(0o666)
        self.environment = {"LD_PRELOAD": str(LIBRARY), "INJECT_AT": str(number), "INJECT_CALLS": calls,
                            "INJECT_ERROR": str(error), "INJECT_REPORT": str(self.report)}

    def met(self, exim):
        """The call that was hit, as "FUNCTION FILE", or None."""
        words = self.report.read_text().split()
        return f"{words[0]} {os.path.relpath(words[1], exim.spool / '.fastspool')}" if words else None


class Recovering(Injected):
    """The same for the next mirror that any process starts.  A script takes the place of the tool and arms it."""

    def __init__(self, exim, number):
        self.arm(exim, number)
        armed = exim.work / "armed"
        armed.mkdir(exist_ok=True)
        armed.chmod(0o777)
        (armed / "now").write_text("".join(f"export {name}={value}\n" for name, value in self.environment.items()))
        if not REAL_TOOL.exists():
            os.rename(TOOL, REAL_TOOL)
            pathlib.Path(TOOL).write_text(f"#!/bin/sh\nmv {armed}/now {armed}/met 2>/dev/null && . {armed}/met\n"
                                          f"exec {REAL_TOOL} \"$@\"\n")
            os.chmod(TOOL, 0o755)

    @staticmethod
    def end():
        if REAL_TOOL.exists():
            os.rename(REAL_TOOL, TOOL)


def forget_spares(exim):
    """Remove the spare journal files, while no mirror runs.  The next mirror has to create them."""
    for path in (exim.spool / ".fastspool" / "journal").glob("[0-9]*"):
        with open(path, "rb") as file:
            if not file.read(8).strip(b"\0"):
                path.unlink()


def kind(met):
    """MET with all journal files counted as one."""
    function, path = met.split()
    name = os.path.basename(path)
    return f"{function} {'journal/N' if name.isdigit() else path}"


def print_counts(what, met, exim, more=""):
    print(f"  {len(met)} {what}, {len(exim.expected)} messages accepted{more}; hit: " +
          ", ".join(f"{count} {name}" for name, count in sorted(collections.Counter(map(kind, met)).items())), flush=True)


def all_there(exim, delivered=0, meanwhile=lambda: None):
    """Take the memory away.  The queue must hold every accepted message except the DELIVERED ones."""
    kill_all()
    if exim.daemon:
        exim.daemon.wait()
    meanwhile()
    exim.reboot()
    queued, accepted = len(exim.queue()), len(exim.expected) - delivered
    check(queued == accepted, f"{accepted} messages were accepted, {queued} are in the queue")
    exim.start()


READ_ALL = """
import os, sys
for name in os.listdir(sys.argv[1]):
    if name.endswith("-D"):
        data = open(os.path.join(sys.argv[1], name), "rb").read()
        sys.stdout.buffer.write(b"%d\\n" % len(data) + data)
"""


def read_queue(exim):
    """The content of every -D file of the store: message ID -> body."""
    raw, found = exim.run("run", "--", sys.executable, "-c", READ_ALL, exim.spool / "input", program=TOOL, stock=True), {}
    while raw:
        size, raw = raw.split(b"\n", 1)
        first, body = raw[:int(size)].split(b"\n", 1)
        found[first.decode().removesuffix("-D")] = body
        raw = raw[int(size):]
    return found


def deliver(exim, most=50):
    """Check every body in the queue.  Then deliver MOST messages and remove the rest, because delivery takes longest."""
    bodies = read_queue(exim)
    waiting = [message for _, message in exim.expected if message.name in bodies]
    for message in waiting:
        check(bodies[message.name] == message.body, f"the body of {message.name} is damaged")
    removed = waiting[most:]
    if removed:
        exim.run("-Mrm", *(message.name for message in removed))
        exim.expected = [(place, message) for place, message in exim.expected if message not in removed]
    exim.run("-qff", timeout=600)
    exim.wait_empty()


# --- kill points --------------------------------------------------------------------------------------------------

@test(*DURABILITY, library=True, main=QUEUE_ONLY)
def mirror_killed_at_each_call(exim):
    """A mirror killed at any call, in a commit, a checkpoint or a reuse, is replaced, and its waiters get 250."""
    exim.start()
    senders = [Sender(exim) for _ in range(CLIENTS)]
    load(senders)
    met, slowest, number = [], 0.0, 0

    def kill_at(number, calls="all", pause=0.1):
        """Kill a fresh mirror at call NUMBER during a load.  Returns the call that was hit, or None."""
        nonlocal slowest, mirror
        exim.tool("stop")
        forget_spares(exim)
        mirror = Injected(exim, number, calls)
        answers = load(senders, pause)
        what = mirror.met(exim)
        check({code for code, _ in answers} == {250}, f"killed at call {number}, {what}: replies {answers}")
        slowest = max(slowest, max(seconds for _, seconds in answers))
        if what:
            met.append(what)
            mirror.process.wait(60)
        return what

    mirror = None
    while kill_at(number := number + 1):
        pass
    for attempt in range(10):       # on a busy machine no checkpoint may come in time for a reuse
        if any(what.startswith("reuse") for what in met):
            break
        kill_at(1, "reuse", 1.0 + attempt)
    for wanted in ("mirror/data.mdb", "fallocate", "reuse"):
        check(any(wanted in what for what in met), f"{wanted} was never hit")
    print_counts("kill points", met, exim, f", the slowest reply took {slowest:.2f} s")
    exim.tool("stop")
    mirror.process.wait(60)
    all_there(exim)
    deliver(exim)


@test(library=True, main=QUEUE_ONLY)
def mirror_killed_in_recovery(exim):
    """A mirror killed at any call of its recovery after a power cut is replaced, and the queue is complete."""
    met, number, finished = [], 0, False
    try:
        while not finished:
            number += 1
            exim.start()
            sender = Sender(exim)
            for _ in range(3):
                check(sender.send()[0] == 250, "a message was refused")
            kill_all()
            exim.daemon.wait()
            exim.reboot()
            mirror = Recovering(exim, number)
            queued = len(exim.queue())
            check(queued == len(exim.expected), f"killed at call {number}, {mirror.met(exim)}: {queued} of "
                  f"{len(exim.expected)} messages are in the queue")
            finished = not mirror.met(exim)
            met += [] if finished else [mirror.met(exim)]
            kill_all()
            exim.reboot()
    finally:
        Recovering.end()
    print_counts("kill points", met, exim)
    check(any("mirror/data.mdb" in what for what in met), "no recovery was hit")
    all_there(exim)
    deliver(exim)


def mirrors():
    return [pid for pid, name in processes() if name.startswith("fastspool")]


def the_mirror():
    """The one that stays: of two that are started at the same time one ends at once."""
    return wait_for(lambda: len(running := mirrors()) == 1 and running[0], "one mirror runs")


def waiting(exim):
    """How many processes wait for a commit."""
    return exim.status()["waiters"]


@test(library=True, main=QUEUE_ONLY)
def waiters_notice(exim):
    """Waiters replace a dead mirror at their next check, at most 100 ms later."""
    exim.start()
    sender, times, starts = Sender(exim), [], []
    sender.send()
    for _ in range(20):
        mirror = the_mirror()
        suspend(mirror)             # so there is a waiter when the mirror dies
        waiter = threading.Thread(target=sender.send)
        waiter.start()
        wait_for(lambda: waiting(exim) == 1, "somebody waits")
        start = time.monotonic()
        kill(mirror)
        wait_for(lambda: set(mirrors()) - {mirror}, "another mirror runs")
        times.append(time.monotonic() - start)
        waiter.join(60)
        check(not waiter.is_alive(), "the waiter hangs")
        start = time.monotonic()
        exim.tool("help")
        starts.append(time.monotonic() - start)
    times.sort(), starts.sort()
    print(f"  20 deaths; the next mirror ran after {times[10] * 1000:.0f} ms (median), {times[16] * 1000:.0f} ms (four of five), "
          f"{times[-1] * 1000:.0f} ms (worst); a process takes {starts[10] * 1000:.0f} ms")
    check(len(exim.expected) == 21, "a message was refused")
    # Waiters check every 100 ms.  The rest is for the end of a process, fork, exec, and this test's own polling every 20 ms.
    check(times[16] <= 0.15 + 5 * starts[10], "the replacement takes longer than a waiter's check interval")
    deliver(exim)


@test(library=True, main=QUEUE_ONLY)
def one_mirror_writes(exim):
    """While a mirror lives, even a stopped one, no other mirror writes.  Of many started at once, one stays."""
    exim.start()
    sender = Sender(exim)
    sender.send()

    def start(name):
        return subprocess.Popen(["strace", "-f", "-qq", "-e", "trace=pwrite64,writev,fdatasync,fsync,rename,ftruncate", "-e", "status=successful", "-o",
                                 exim.work / name, TOOL, "mirror", str(exim.spool)],
                                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    mirror = the_mirror()
    suspend(mirror)
    waiter = threading.Thread(target=sender.send)
    waiter.start()
    wait_for(lambda: waiting(exim) == 1, "somebody waits")
    others = [start(f"other{n}") for n in range(3)]
    check([other.wait(60) for other in others] == [75] * 3, "another mirror started next to a stopped one")
    check(mirrors() == [mirror], "a waiter started another mirror next to a stopped one")
    os.kill(mirror, 18)
    waiter.join(60)
    rounds = 5
    for number in range(rounds):
        kill(the_mirror())
        many = [start(f"many{number}.{n}") for n in range(6)]
        check(sender.send()[0] == 250, "a message was refused")
        wait_for(lambda: sum(one.poll() is None for one in many) + len(mirrors()) <= 2 and len(mirrors()) == 1, "one mirror is left")
        for n, one in enumerate(many):
            if one.poll() is not None:
                check(one.returncode == 75, f"a mirror ended with {one.returncode}")
                said = (exim.work / f"many{number}.{n}").read_text()
                check("pwrite64" not in said and "sync(" not in said, f"a second mirror wrote: {said[:300]}")
    print(f"  {3 + 6 * rounds} extra mirrors were started")
    all_there(exim)
    deliver(exim)


# --- failing disks ------------------------------------------------------------------------------------------------

def stop(exim):
    """Stop the mirror, beside the daemon, which uses the store on.  The fault may hit its last commit; then the mirror goes on, so
    try again."""
    def stops():
        result = exim.command("stop", program=TOOL, stock=True)
        check(result.returncode == 1 or exim.went_on(result), f"{result}")
        return result.returncode != 1
    wait_for(stops, "the mirror stops")


def each_call_fails(exim, error):
    """Fail each call once: those that create or remove files, write or preallocate, sync.  Each reply is 451 or 250, as is
    true, and mail is accepted again without intervention."""
    exim.start()
    senders = [Sender(exim) for _ in range(CLIENTS)]
    load(senders)
    met, refused = [], 0
    for calls in ("make", "write", "sync"):
        number = 0
        while True:
            number += 1
            stop(exim)
            forget_spares(exim)
            mirror = Injected(exim, number, calls, error)
            answers = collections.Counter(code for code, _ in load(senders))
            what = mirror.met(exim)
            check(set(answers) <= {250, 451}, f"{calls} {number}, {what}: {answers}")
            check(what or not answers[451], f"nothing failed, but {answers[451]} messages were refused")
            refused += answers[451]
            wait_for(lambda: senders[0].send()[0] == 250, f"mail is accepted again ({calls} {number})")
            if not what:
                break
            check(mirror.process.poll() is None or what.endswith("mirror.lock"),
                  f"{calls} {number}, {what}: the mirror ended")
            met.append(what)
    print_counts("faults", met, exim, f", {refused} answered with 451")
    check(refused > 0, "no client ever saw a fault")
    check(any("fallocate" in what for what in met), "no preallocation was hit")
    stop(exim)
    all_there(exim)
    deliver(exim)


@test(library=True, main=QUEUE_ONLY)
def disk_fails(exim):
    """EIO at any call is answered with 451, and no accepted message is lost."""
    each_call_fails(exim, errno.EIO)


@test(library=True, main=QUEUE_ONLY)
def disk_full(exim):
    """ENOSPC at any call is answered with 451, and no accepted message is lost."""
    each_call_fails(exim, errno.ENOSPC)


def lose_journal(exim):
    """Remove all files of the journal, as the mirror makes and removes some."""
    for path in (exim.spool / ".fastspool/journal").iterdir():
        path.unlink(missing_ok=True)


def each_call_of_a_rescue(exim, error):
    """The journal is removed below a mirror that is killed (ERROR 0) at call NUMBER from its start, or whose call fails.  Mail is
    accepted again by itself, and then, at once, the memory is taken away."""
    exim.start()
    met, refused, what, number = [], 0, "the first", 0
    while what:
        number += 1
        sender = Sender(exim)
        check(sender.send()[0] == 250, f"{number}: mail is refused")
        stop(exim)
        mirror = Injected(exim, number, "all", error)
        sender.send()
        lose_journal(exim)
        code = sender.send()[0]
        what = mirror.met(exim)
        check(code == 250 or (code == 451 and error and what), f"call {number}, {what}: {code}")
        refused += code == 451
        wait_for(lambda: sender.send()[0] == 250, f"mail is accepted again ({number}, {what})")
        met += [what] if what else []
        all_there(exim)
        exim.run("-Mrm", *exim.queue())     # the database stays small
        exim.expected.clear()
    print_counts("faults" if error else "kill points", met, exim, f", {refused} answered with 451")
    check(any("mirror/data.mdb" in what for what in met), "no rescue was hit")


@test(library=True, main=QUEUE_ONLY)
def rescue_killed_at_each_call(exim):
    """A mirror that is killed while it writes all anew is replaced, and its waiters get 250: all of it is on the disk."""
    each_call_of_a_rescue(exim, 0)


@test(library=True, main=QUEUE_ONLY)
def rescue_fails(exim):
    """EIO at any call of it is answered with 451 or 250, as is true, and it is tried again."""
    each_call_of_a_rescue(exim, errno.EIO)


@test(library=True, main=QUEUE_ONLY)
def rescue_without_room(exim):
    """ENOSPC at any call of it is answered with 451 or 250, as is true, and it is tried again."""
    each_call_of_a_rescue(exim, errno.ENOSPC)


def fill(path, left):
    """Fill the disk with a file at PATH, except for LEFT bytes."""
    with open(path, "ab", buffering=0) as file:
        for piece in (1 << 20, 4096):
            try:
                while True:
                    file.write(bytes(piece))
            except OSError as error:
                check(error.errno == errno.ENOSPC, f"fill the disk: {error}")
        file.truncate(max(0, file.tell() - left))
        try:
            os.fsync(file.fileno())
        except OSError as error:
            check(error.errno == errno.ENOSPC, f"fill the disk: {error}")


@test(*DURABILITY, library=True, main=QUEUE_ONLY)
def small_disk(exim):
    """A real disk that fills up, from several amounts of free space: 451, and 250 again once there is space."""
    LoopDisk(exim.spool, 96)
    exim.own(exim.spool)
    exim.start()
    sender, refused, delivered = Sender(exim), 0, 0
    check(sender.send()[0] == 250, "a message was refused")
    ballast = exim.spool / "ballast"
    for left in (0, 64, 1024, 9000, 20000):                 # KiB
        fill(ballast, left * 1024)
        for number in range(400):
            code, _ = sender.send(size=500000)
            if code != 250:
                break
        check(code == 451, f"{left} KiB were left, and after {number} messages of 500 kB the reply was {code}")
        refused += 1
        kill(the_mirror())                                  # the next mirror starts on a full disk
        check(sender.send()[0] in (250, 451), "the reply on a full disk is neither 250 nor 451")
        # After a reboot with not a byte free, the queue is complete too.
        all_there(exim, delivered, lambda: fill(ballast, 0))
        sender = Sender(exim)
        check(sender.send()[0] in (250, 451), "the reply on a full disk is neither 250 nor 451")
        ballast.unlink()
        wait_for(lambda: sender.send()[0] == 250, "mail is accepted again")
        if left < 20000:
            deliver(exim, 8)
            delivered = len(exim.expected)
    print(f"  filled up {refused} times, {len(exim.expected)} messages accepted")
    all_there(exim, delivered)
    deliver(exim, 8)


def limited(exim, name, over=None):
    """Make subvolume NAME of a btrfs, also mounted on OVER.  Returns a function that sets its quota, in MiB; None: none.  statvfs(3) does
    not know of it, as of a user's on an ext4."""
    if not shutil.which("mkfs.btrfs") or "btrfs" not in pathlib.Path("/proc/filesystems").read_text():
        raise Skip("this kernel has no btrfs, or mkfs.btrfs is not installed")
    place, image = exim.work / "btrfs", exim.work / "btrfs.image"
    commands = [("btrfs", "subvolume", "create", place / name)] + ([("mount", "--bind", place / name, over)] if over else [])
    if not place.exists():
        place.mkdir()
        image.touch()
        os.truncate(image, 512 << 20)
        commands = [("mkfs.btrfs", "-q", image), ("mount", "-o", "loop", image, place), ("btrfs", "quota", "enable", place)] + commands
    for command in commands:
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)

    number = subprocess.run(["btrfs", "inspect-internal", "rootid", place / name], check=True, capture_output=True, text=True).stdout.strip()

    def limit(mebibytes):                   # said of the whole disk: in the full subvolume it would find no room
        subprocess.run(["btrfs", "qgroup", "limit", f"{mebibytes}M" if mebibytes else "none", f"0/{number}", place], check=True)
    return limit


def says_quota(exim):
    """status and doctor say that mail stands, as the quota is reached, and that nothing is damaged."""
    status = exim.command("status", program=TOOL, stock=True)
    said = (status.stdout + status.stderr).decode()
    findings = json.loads(exim.command("doctor", "--json", program=TOOL, stock=True).stdout)["findings"]
    check(status.returncode == 2 and "Disk quota exceeded" in said and "damaged:" not in said, f"status: {status}")
    check(any(finding["verdict"] == "wrong" and "Disk quota exceeded" in finding["found"] for finding in findings), f"doctor: {findings}")


@test(*DURABILITY, library=True, main=QUEUE_ONLY)
def quota(exim):
    """The quota of the spool is reached: 451, as status and doctor say, also with the next mirror; and when it is raised all goes on by
    itself, also where it is reached at a reboot."""
    limit = limited(exim, "spool", exim.spool)
    exim.own(exim.spool)
    exim.start()
    sender = Sender(exim)
    for _ in range(3):
        check(sender.send(size=500000)[0] == 250, "a message was refused")
    limit(1)                                                # MiB, less than there is
    for death in (False, True):
        if death:
            kill(the_mirror())
        check([sender.send()[0] for _ in range(5)] == [451] * 5, f"mail is taken, and not on the disk: {death}")
        says_quota(exim)
    stop = exim.command("stop", program=TOOL, stock=True)
    check(stop.returncode == 1 and b"Disk quota exceeded: make room, and try again" in stop.stderr, f"{stop}")
    limit(None)
    wait_for(lambda: sender.send()[0] == 250, "mail is accepted again")
    kill_all()
    exim.daemon.wait()
    exim.reboot()
    limit(1)
    queue = exim.command("-bpc")                            # on a btrfs what is written in its place needs room, too
    check(queue.returncode and b"Disk quota exceeded" in queue.stderr and b"damaged" not in queue.stderr, f"{queue}")
    limit(None)
    queued, accepted = len(exim.queue()), len(exim.expected)
    check(queued == accepted, f"{accepted} messages were accepted, {queued} are in the queue")
    exim.start()
    deliver(exim, 8)


@test(library=True, main=QUEUE_ONLY)
def quota_elsewhere(exim):
    """A backup, and an export, to a directory whose quota is too small say so; the backup leaves nothing, and the export goes on when it
    is raised: no message is lost, or twice."""
    exim.start()
    sender = Sender(exim)
    for _ in range(8):
        check(sender.send(size=500000)[0] == 250, "a message was refused")
    limit = limited(exim, "small")
    limit(2)
    sender.client.close()
    exim.stop()
    wait_for(lambda: "exim4" not in [name for _, name in processes()], "the last Exim has ended")
    small = exim.work / "btrfs/small"
    backup = exim.command("backup", small / "copy", program=TOOL, stock=True)
    check(backup.returncode == 1 and b"Disk quota exceeded" in backup.stderr and not list(small.iterdir()), f"{backup}, {list(small.iterdir())}")
    export = exim.command("export", "--yes", small / "plain", program=TOOL, stock=True)
    check(export.returncode == 1 and b"Disk quota exceeded: make room, and run `fastspool export` again" in export.stderr, f"{export}")
    limit(None)
    for verb, place in (("backup", small / "copy"), ("export", small / "plain")):
        exim.tool(verb, *(["--yes"] if verb == "export" else []), place)
    check(len(list(small.glob("plain/input/*-H"))) == 8 and not exim.queue(), "a message is not there once")
    for _, message in exim.expected:
        body = (small / f"plain/input/{message.name}-D").read_bytes().split(b"\n", 1)[1]
        check(body == message.body, f"the body of {message.name} is damaged")
    exim.expected = []


@test(library=True, main=QUEUE_ONLY)
def rescue_on_a_full_disk(exim):
    """A real disk has no room for all that memory has: 451, and status says so, until there is room; with the mirror that began
    it, and with the next one.  A power cut behind it loses nothing."""
    disk = LoopDisk(exim.spool, 96)
    exim.own(exim.spool)
    exim.start()
    ballast, sender, delivered = exim.spool / "ballast", Sender(exim), 0
    for kills in (False, True):
        for _ in range(30):
            check(sender.send(size=500000)[0] == 250, "a message was refused")
        suspend(the_mirror())
        lose_journal(exim)
        if kills:
            kill(the_mirror())
        fill(ballast, 0)
        if not kills:
            os.kill(the_mirror(), 18)
        check(sender.send()[0] == 451, "mail is taken that no recovery would find")
        time.sleep(3)
        check(sender.send()[0] == 451, "mail is taken that no recovery would find")
        status = exim.status()
        check(status["health"] == 2 and status["commit_error"], f"status: {status}")
        ballast.unlink()
        wait_for(lambda: exim.status()["commit_error"] == 0, "all goes on by itself")
        check(sender.send()[0] == 250, "mail is refused, and there is room")
        for pid, _ in processes():
            kill(pid)
        disk.copy()
        kill_all()
        exim.daemon.wait()
        exim.reboot()
        disk.use_copy()
        queued, accepted = len(exim.queue()), len(exim.expected) - delivered
        check(queued == accepted, f"{accepted} messages were accepted, {queued} are in the queue")
        exim.start()
        deliver(exim, 4)
        sender, delivered = Sender(exim), len(exim.expected)


def count_commits(exim):
    exim.tool("flush")
    return exim.status()["commits"]


@test(*DURABILITY, library=True, main=QUEUE_ONLY)
def hanging_disk(exim):
    """While the disk is frozen, senders wait and nothing is acknowledged.  The waiters share the next commits.  A power cut
    during the freeze loses nothing."""
    disk = LoopDisk(exim.spool, 64)
    exim.own(exim.spool)
    exim.start()
    senders = [Sender(exim) for _ in range(WAITERS)]
    load(senders)
    for power_fails in (False, True):
        before, commits = len(exim.expected), count_commits(exim)
        with disk.frozen():
            threads = [threading.Thread(target=send_until_cut, args=(sender,)) for sender in senders]
            for thread in threads:
                thread.start()
            wait_for(lambda: waiting(exim) == WAITERS, "all senders wait")
            time.sleep(1)
            check(len(exim.expected) == before, "a message was acknowledged while the disk was frozen")
            if power_fails:
                for pid, _ in processes():      # a process that waits for the disk dies at the thaw
                    kill(pid)
                disk.copy()
        for thread in threads:
            thread.join(60)
            check(not thread.is_alive(), "a sender hangs")
        if not power_fails:
            check(len(exim.expected) == before + WAITERS, "a message was refused after the thaw")
            commits = count_commits(exim) - commits
            print(f"  {WAITERS} waiters took {commits} commits")
            waits = WAITERS * (3 if exim.work.name.endswith("_strict") else 1)      # Exim calls fsync three times for each message
            check(commits <= waits // 2, "waiters don't share commits")
    kill_all()
    exim.daemon.wait()
    exim.reboot()
    disk.use_copy()
    queue = len(exim.queue())
    check(queue >= len(exim.expected), f"{len(exim.expected)} messages were accepted, {queue} are in the queue")
    deliver(exim)
    exim.wait_arrived()                     # unacknowledged messages arrive too, and judge() would call them stray
    shutil.rmtree(exim.work / "mail" / "maildir")
    exim.expected.clear()


def send_until_cut(sender):
    try:
        sender.send()
    except Failure:
        pass                # the power cut


if __name__ == "__main__":
    main("faults")
