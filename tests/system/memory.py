#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""A queue larger than memory, and everything that can fill up: memory, its file system, the disk.

Evicted data is paged in on demand, even if processes die meanwhile.  If something is full the reply is 452 or 451, and
every 250 is kept.  Once there is space, mail is accepted again without intervention.
"""
import collections
import concurrent.futures
import contextlib
import errno
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import threading
import time

from disk import LoopDisk
from harness import (EXIM, TOOL, USER, USER_ID, Client, Failure, Message, check, kill, main, processes, sleeps_in,
                     suspend, test, wait_for)

QUEUE_ONLY = ("queue_only = true",)
UNCHECKED = QUEUE_ONLY + ("check_spool_space = 0", "check_spool_inodes = 0")
CONNECTIONS = 32
RUNNERS = 4                 # parallel queue runs


def usual_size():
    return random.randrange(3000, 4000)


def hand_over(client, message):
    """Send MESSAGE by DATA: Exim reads the data to the end even if it refuses it.  Returns the first refusal, or the last
    reply."""
    client.socket.sendall(f"MAIL FROM:<{message.sender}>\r\nRCPT TO:<{message.recipients[0]}>\r\nDATA\r\n".encode())
    replies = [client.reply() for _ in range(3)]
    if [code for code, _ in replies] != [250, 250, 354]:
        return next(reply for reply in replies if reply[0] != 250)
    client.socket.sendall(message.content().replace(b"\n", b"\r\n").replace(b"\r\n.", b"\r\n..") + b".\r\n")
    return client.reply()


def send(exim, client, size):
    """Send one message, and expect it in the maildir if it is accepted.  Returns (reply code, message, message ID)."""
    message = Message("user@maildir.test", size=size)
    start = time.monotonic()
    try:
        code, text = hand_over(client, message)
    except (OSError, ValueError) as error:
        raise Failure(f"no reply to {size} bytes after {time.monotonic() - start:.0f} s: {error!r}") from error
    if code == 250:
        exim.expect(message, "maildir")
    return code, message, text.partition("id=")[2]


def load(exim, count, size=usual_size, connections=CONNECTIONS, until_refused=False):
    """Send COUNT messages over CONNECTIONS.  Returns (count of each reply code, message ID -> accepted message)."""
    codes, taken, numbers, lock = collections.Counter(), {}, iter(range(count)), threading.Lock()

    def work(_):
        client = Client(timeout=90)
        while True:
            with lock:
                if next(numbers, None) is None or (until_refused and codes.total() > codes[250]):
                    break
            code, message, name = send(exim, client, size())
            with lock:
                codes[code] += 1
                if code == 250:
                    taken[name] = message
            if code == 421:                                 # Exim can't create a file, and closes the connection
                client = Client(timeout=90)
        client.close()
    with concurrent.futures.ThreadPoolExecutor(connections) as pool:
        list(pool.map(work, range(connections)))
    return codes, taken


def fill_up(exim, size, connections=CONNECTIONS):
    """Send messages of SIZE until none is accepted any more.  Returns the same as load()."""
    codes, taken = collections.Counter(), {}
    while True:
        more, names = load(exim, 20000, lambda: size, connections, until_refused=True)
        codes, taken = codes + more, taken | names
        if not more[250]:
            return codes, taken


def accept(exim, count, size=usual_size):
    """load() that must not see a refusal.  Returns message ID -> message."""
    codes, taken = load(exim, count, size)
    check(set(codes) == {250}, f"replies: {codes}")
    return taken


def deliver(exim):
    """Deliver the queue with parallel runs.  A final run takes the messages that they found locked by each other."""
    runs = [subprocess.Popen([EXIM, "-q"], env=exim.environment()) for _ in range(RUNNERS)]
    for run in runs:
        run.wait()
    exim.run("-qff", timeout=600)
    exim.settle()


def status(exim):
    """The output of `fastspool status`, or None while there is no store."""
    said = exim.command("status", "--json", program=TOOL, stock=True).stdout
    return json.loads(said) if said else None


def mirrors():
    return [pid for pid, name in processes() if name.startswith("fastspool")]


class Watch:
    """Polls the store to see that memory stays within its limit.  With KILLS, (least, most) seconds, it kills the mirror at
    random intervals in that range."""

    def __init__(self, exim, kills=None):
        self.exim, self.kills, self.looks, self.killed, self.most, self.over = exim, kills, 0, 0, 0, []
        self.ending = threading.Event()
        self.thread = threading.Thread(target=self.work, daemon=True)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.ending.set()
        self.thread.join()

    def next_kill(self):
        return time.monotonic() + random.uniform(*self.kills) if self.kills else float("inf")

    def work(self):
        due = self.next_kill()
        while not self.ending.wait(0.05):
            now = status(self.exim)
            if not now:
                continue
            self.looks += 1
            self.most = max(self.most, now["memory_bytes"])
            if now["memory_bytes"] > now["memory_limit"]:
                self.over.append(now["memory_bytes"])
            if time.monotonic() > due and now["mirror_pid"]:
                kill(now["mirror_pid"])
                self.killed += 1
                due = self.next_kill()


def taken_again(exim, seconds=60):
    """Mail is accepted again without intervention.  Returns after how many seconds."""
    client = Client(timeout=60)
    start = time.monotonic()
    wait_for(lambda: send(exim, client, 3000)[0] == 250, "mail is accepted again", seconds)
    client.close()
    return time.monotonic() - start


# --- larger than memory -------------------------------------------------------------------------------------------

# Messages for each `memory`.  20 MiB hold the header, 12 MB of names for 20,000 messages of three files each, and at the end the
# data of 500 messages.  The others hold as small a part of their queue.
QUEUES = {"6M": 4000, "20M": 20000, "140M": 200000}
LONG_QUEUES = (("_20000", {"memory": "20M"}), ("_200000", {"memory": "140M"})) if "FASTSPOOL_TEST_LONG" in os.environ else ()


@test(("", {"memory": "6M"}), *LONG_QUEUES, main=QUEUE_ONLY, library=True)
def larger_than_memory(exim):
    """A queue of which memory holds the data of few: all messages are accepted and arrive once, while the mirror is killed
    again and again."""
    count = QUEUES[exim.memory]
    exim.start()
    start = time.monotonic()
    with Watch(exim, (0.1, 0.6)) as watch:
        accept(exim, count)
        accepted, killed, full = time.monotonic() - start, watch.killed, status(exim)
        check(int(exim.run("-bpc")) == count, "the queue doesn't hold all accepted messages")
        deliver(exim)
    brought_back, delivered = status(exim)["brought_back"], time.monotonic() - start - accepted
    print(f"  {count} messages accepted in {accepted:.0f} s, {killed} mirrors killed; delivered in {delivered:.0f} s, "
          f"{watch.killed - killed} killed; at most {watch.most / 1048576:.1f} MiB in {watch.looks} samples;\n  "
          f"{full['evicted_files']} of {full['files']} files evicted when all were accepted, {brought_back} paged in", flush=True)
    check(full["evicted_files"] > full["files"] * 9 // 10, f"memory holds much of the queue: {full}")
    check(not watch.over, f"{len(watch.over)} of {watch.looks} samples exceed the memory limit: {watch.over[:3]}")
    check(killed >= 5 and watch.killed >= 20, "too few mirrors were killed")


@test(main=QUEUE_ONLY, library=True, memory="8M")
def reboot(exim):
    """After a reboot a queue larger than memory is listed at once, and every message arrives once."""
    exim.start()
    names = accept(exim, 1500, lambda: random.choice((3000, 5000, 20000)))
    exim.tool("flush")
    exim.reboot()
    start = time.monotonic()
    count = int(exim.run("-bpc"))
    counted = time.monotonic() - start
    listed = exim.queue()
    seconds = time.monotonic() - start
    check(count == len(names) and sorted(listed) == sorted(names), f"{count} counted, {len(listed)} listed, {len(names)} accepted")
    with Watch(exim) as watch:
        exim.start()
        deliver(exim)
    print(f"  {count} messages: counted {counted:.2f} s after the reboot, listed after {seconds:.2f} s", flush=True)
    check(not watch.over, f"memory exceeds the limit: {watch.over[:3]}")


@test(main=QUEUE_ONLY + ("hold_domains = *",), library=True, memory="8M")
def queue_run_keeps_what_is_hot(exim):
    """A queue run over more messages than memory holds evicts the files that it paged in itself, not the working set.  The
    run defers each message and writes to its log."""
    exim.start()
    names = sorted(accept(exim, 1000, lambda: random.randrange(9000, 10000)))
    hot = random.sample(names, 30)
    exim.expected.clear()                   # the messages stay in the queue
    exim.queued = len(names)

    def look():
        before = status(exim)["brought_back"]
        exim.tool("cat", *(f"input/{name}-H" for name in hot))
        return status(exim)["brought_back"] - before
    exim.run("-q", timeout=600)             # gives each message a log
    for _ in range(2):                      # the second read puts them into the working set
        look()
    before = status(exim)["brought_back"]
    for first in range(0, len(names), 100):
        exim.run("-q", names[first], names[min(first + 99, len(names) - 1)], timeout=600)
        time.sleep(0.5)                     # lets a checkpoint run: this memory holds the new logs of at most two parts
    brought_back, again = status(exim)["brought_back"] - before, look()
    print(f"  the queue run paged in {brought_back} files, and evicted {again} of {len(hot)} in the working set", flush=True)
    check(brought_back > 1000, "the queue fits into memory")
    check(again <= len(hot) // 5, f"{again} of {len(hot)} files in the working set were evicted")


@test(main=QUEUE_ONLY, library=True, memory="8M")
def mirror_killed_under_opens(exim):
    """An open of an evicted file succeeds even if the mirror is killed while it waits: the waiter starts another mirror.
    This holds for a body, a header, all headers of a listing, and a message being delivered."""
    exim.start()
    messages = accept(exim, 40)
    asked = collections.Counter()
    times = []
    for number in range(20):
        exim.tool("flush")
        exim.reboot()                                       # now only the database holds the data
        check(int(exim.run("-bpc")) == len(messages), "messages are missing from the queue")
        name = random.choice(list(messages))
        arguments = (("-Mvb", name), ("-Mvh", name), ("-bp",), ("-M", name))[number % 4]
        mirror, = wait_for(mirrors, "a mirror runs")
        suspend(mirror)
        process = subprocess.Popen([EXIM, *arguments], env=exim.environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        wait_for(lambda: process.poll() is not None or
                 any(sleeps_in(pid, "futex") for pid, program in processes() if program.startswith("exim")), "somebody waits")
        check(process.poll() is None, f"{arguments} didn't wait for the mirror")
        killed = time.monotonic()
        kill(mirror)
        said, complained = process.communicate(timeout=60)
        times.append(time.monotonic() - killed)
        check(process.returncode == 0 and not complained, f"{arguments}: exit {process.returncode}, {complained!r}")
        message = messages[name]
        check({"-Mvb": message.body in said, "-Mvh": message.token.encode() in said,
               "-bp": all(each.encode() in said for each in messages), "-M": True}[arguments[0]], f"{arguments}: {said[:500]!r}")
        if arguments[0] == "-M":
            exim.settle()
            exim.wait_arrived(message)
            del messages[name]
        asked[arguments[0]] += 1
    print(f"  {dict(asked)}; each open succeeded at most {max(times):.2f} s after the kill", flush=True)
    exim.start()
    deliver(exim)


# --- full memory --------------------------------------------------------------------------------------------------

@test(main=QUEUE_ONLY, library=True, memory="4M")
def names_fill_memory(exim):
    """When names fill memory, which can't be evicted, MAIL gets 452.  After some deliveries mail is accepted again."""
    exim.start()
    codes, names = fill_up(exim, 300)
    check(set(codes) == {250, 452}, f"replies: {codes}")
    client = Client()
    client.expect(452, b"MAIL FROM:<sender@sink.test>\r\n")
    client.close()
    check(int(exim.run("-bpc")) == len(names), "the queue isn't what was accepted")
    some = random.sample(list(names), len(names) // 4)
    exim.run("-M", *some, timeout=600)
    exim.settle()
    taken_again(exim)
    more = load(exim, 100, connections=4)[0]
    print(f"  {codes[250]} messages of 300 bytes accepted, then 452; after the delivery of {len(some)}: {dict(more)}", flush=True)
    check(set(more) == {250}, f"replies: {more}")
    deliver(exim)


@test(("", {"main": QUEUE_ONLY}), ("_unlimited", {"main": QUEUE_ONLY + ("message_size_limit = 0",)}),
      ("_limited", {"main": QUEUE_ONLY + ("message_size_limit = 3M",)}), library=True, memory="8M")
def message_larger_than_memory(exim):
    """A message that does not fit into memory gets 451; status and doctor say from which size on, unless Exim has a limit that is
    lower.  One that is a little smaller is taken."""
    exim.start()
    wait_for(lambda: status(exim).get("recovering") is not True, "the store is made")
    largest, limited = status(exim)["largest_bytes"], exim.work.name.endswith("_limited")
    said, wanted = exim.command("status", program=TOOL, stock=True), f"more than about {largest / 1048576:.1f} MiB gets 451"
    check((said.returncode, wanted in said.stdout.decode()) == ((0, False) if limited else (1, True)), f"{said}")
    for state in "without a store", "with one":
        found = [each for each in json.loads(exim.command("doctor", "--json", program=TOOL, stock=True).stdout)["findings"]
                 if each["check"] == "memory"]
        check([each["verdict"] for each in found] == ["ok" if limited else "attention"], f"{state}: {found}")
        exim.stop()
        exim.tool("stop")
        exim.start()
    client = Client()
    codes = [send(exim, client, size)[0] for size in (largest - (100 << 10), largest + (400 << 10))]
    client.close()
    check(codes == ([552, 552] if limited else [250, 451]), f"{codes}, {largest}")
    deliver(exim)


@test(main=UNCHECKED, library=True, memory="4M")
def names_fill_memory_unchecked(exim):
    """The same without Exim's space check: 451, or 421 if Exim can't begin.  Deliveries can't create their own files either.
    After some messages are removed, the others are delivered."""
    exim.start()
    codes, names = fill_up(exim, 300, 8)
    check(set(codes) <= {250, 421, 451}, f"replies: {codes}")
    print(f"  {dict(codes)}", flush=True)
    exim.panic = "No space left on device"
    check(int(exim.run("-bpc")) == len(names), "the queue isn't what was accepted")
    removed = [names[name] for name in list(names)[:30]]
    exim.run("-Mrm", *list(names)[:30])
    exim.expected = [(place, message) for place, message in exim.expected if message not in removed]
    start = time.monotonic()
    deliver(exim)
    taken_again(exim)
    print(f"  {len(removed)} messages removed, {len(exim.expected) - 1} delivered in {time.monotonic() - start:.0f} s", flush=True)
    deliver(exim)


@test(main=QUEUE_ONLY, library=True, memory="8M")
def open_files_fill_memory(exim):
    """Open files can't be evicted.  If incoming messages exceed memory some of them are refused, and other messages may be
    too.  Afterwards mail is accepted again."""
    exim.start()
    accept(exim, 50)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        large = pool.submit(load, exim, 16, lambda: 2 << 20, 16)
        small, client = collections.Counter(), Client(timeout=90)
        while not large.done():
            small[send(exim, client, 3000)[0]] += 1
        client.close()
        codes = large.result()[0]
    print(f"  16 parallel messages of 2 MiB: {dict(codes)}; small ones meanwhile: {dict(small)}", flush=True)
    check(set(codes) <= {250, 451, 452} and codes[250] < 16, f"replies: {codes}")
    check(set(small) <= {250, 451, 452}, f"replies: {small}")
    taken_again(exim)
    check(accept(exim, 50), "nothing was accepted")
    deliver(exim)


class Stalled:
    """Clients that send SIZE bytes of a message's data, and then nothing."""

    def __init__(self, count, size):
        self.clients = [Client(timeout=90) for _ in range(count)]
        self.threads = [threading.Thread(target=self.work, args=(client, size), daemon=True) for client in self.clients]

    def work(self, client, size):
        client.expect(250, b"MAIL FROM:<sender@sink.test>\r\n")
        client.expect(250, b"RCPT TO:<user@maildir.test>\r\n")
        client.expect(354, b"DATA\r\n")
        with contextlib.suppress(OSError):
            client.socket.sendall((b"x" * 70 + b"\r\n") * (size // 72))

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        for client in self.clients:
            with contextlib.suppress(OSError):
                client.socket.shutdown(socket.SHUT_RDWR)


@test(main=QUEUE_ONLY, library=True, memory="64M")
def large_senders_stall(exim):
    """Two clients that send more than memory holds, and then nothing, keep nobody else from sending mail."""
    exim.start()
    with Stalled(2, 25 << 20):
        wait_for(lambda: status(exim)["open_bytes"] > 40 << 20, "open files hold memory")
        start = time.monotonic()
        codes, _ = load(exim, 60, connections=4)
        seconds = time.monotonic() - start
        now = status(exim)
        check(set(codes) == {250}, f"replies: {codes}")
        check(now["open_bytes"] > 40 << 20 and now["room_bytes"] > 10 << 20, f"status: {now}")
    print(f"  60 messages in {seconds:.1f} s, while open files held {now['open_bytes'] >> 20} MiB of 64", flush=True)
    taken_again(exim)
    exim.panic = "No space left on device"
    deliver(exim)


@test(main=QUEUE_ONLY, library=True, memory="64M")
def large_into_full_memory(exim):
    """What can be evicted goes for a large message, too: those that others may not fill are not filled by the cache."""
    exim.start()
    accept(exim, 70, lambda: 800 << 10)
    start = time.monotonic()
    for _ in range(4):
        accept(exim, 1, lambda: 14 << 20)
    print(f"  four messages of 14 MiB in {time.monotonic() - start:.1f} s", flush=True)
    deliver(exim)


@test(main=QUEUE_ONLY, library=True, memory="32M")
def small_senders_stall(exim):
    """When open files hold all that memory has, `status` tells no room, and MAIL gets 452.  Afterwards mail is accepted."""
    exim.start()
    accept(exim, 10)
    with Stalled(40, 1 << 20):
        now = wait_for(lambda: (now := status(exim))["room_bytes"] < 4 << 20 and now, "status tells that there is no room")
        client = Client(timeout=90)
        client.expect(452, b"MAIL FROM:<sender@sink.test>\r\n")
        client.close()
    print(f"  open files held {now['open_bytes'] >> 20} MiB of 32, and there was room for {now['room_bytes'] >> 10} KiB", flush=True)
    taken_again(exim)
    exim.panic = "No space left on device"
    deliver(exim)


@test(main=QUEUE_ONLY, library=True, memory="32M", view="library")
def users_senders_stall(exim):
    """Sendmails of an ordinary user, by the view, that together send more than memory holds, and then wait for more, keep
    the daemon's clients from nothing."""
    exim.start()
    wait_for(lambda: status(exim)["view_state"] == "mounted", "the view is mounted")
    script = f"(printf 'Subject: x\\n\\n'; yes | head -c 1250000; exec sleep 1000) | {EXIM} -oi -odq user@maildir.test"
    senders = [subprocess.Popen(["sh", "-c", script], user=USER, group=USER_ID, extra_groups=[], start_new_session=True,
                                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) for _ in range(26)]
    try:
        wait_for(lambda: status(exim)["open_bytes"] > 20 << 20, "open files hold memory")
        codes, _ = load(exim, 60, connections=4)
        now = status(exim)
        check(set(codes) == {250}, f"replies: {codes}")
        check(now["open_bytes"] > 10 << 20, f"status: {now}")
    finally:
        for sender in senders:
            os.killpg(sender.pid, signal.SIGKILL)
            sender.wait()
    print(f"  60 messages, while open files held {now['open_bytes'] >> 20} MiB of 32", flush=True)
    exim.panic = "No space left on device"
    taken_again(exim)
    deliver(exim)


@test(main=UNCHECKED, library=True, memory="8M")
def hanging_disk(exim):
    """While the disk is frozen nothing can be evicted, and memory fills up.  No message is acknowledged, and those that find
    no space are refused.  After the thaw mail is accepted again."""
    disk = LoopDisk(exim.spool, 96)
    exim.own(exim.spool)
    exim.start()
    accept(exim, 50)
    before = len(exim.expected)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        with disk.frozen():
            clients = pool.submit(load, exim, CONNECTIONS, lambda: 500000)
            time.sleep(14)                                  # longer than a writer waits
            check(len(exim.expected) == before, "a message was acknowledged while the disk was frozen")
        codes = clients.result()[0]
    print(f"  {CONNECTIONS} messages of 500 kB: {dict(codes)}", flush=True)
    check(set(codes) <= {250, 451} and codes[451], f"replies: {codes}")
    taken_again(exim)
    accept(exim, 50)
    deliver(exim)


# --- a full file system under memory ------------------------------------------------------------------------------

@contextlib.contextmanager
def filled(directory, left):
    """Another program's file fills the file system of DIRECTORY, except for LEFT bytes."""
    path = directory / "filler"
    with open(path, "wb", buffering=0) as file:
        for piece in (1 << 20, 4096):
            try:
                while True:
                    file.write(bytes(piece))
            except OSError as error:
                check(error.errno == errno.ENOSPC, f"fill {directory}: {error}")
        file.truncate(max(0, file.tell() - left))
    try:
        yield
    finally:
        path.unlink()


def small_runtime(exim):
    """Put memory on a file system of 24 MiB.  Returns its directory."""
    runtime = exim.work / "runtime"
    runtime.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m,mode=1777", "runtime", runtime], check=True)
    exim.fastspool_configuration(f"memory = {exim.memory}", f"runtime = {runtime}")
    return runtime


@test(*((suffix, {"memory": memory}) for suffix, memory in (("", "16M"), ("_less_than_memory", "512M"))), main=UNCHECKED, library=True)
def full_shm(exim):
    """Another program fills the file system of memory: 451 or 452, no SIGBUS, no dead mirror, no lost file.  When that file
    goes, mail is accepted again."""
    runtime = small_runtime(exim)
    exim.start()
    accept(exim, 20)
    mirror, = mirrors()
    answers = {}
    for left in (0, 1024):                                  # KiB
        with filled(runtime, left << 10):
            codes = load(exim, 40, usual_size, 8)[0] + load(exim, 2, lambda: 12 << 20, 2)[0]
        check(set(codes) <= {250, 451, 452}, f"{left} KiB left: {codes}")
        check(codes[451] + codes[452], f"{left} KiB left, but all were accepted: {codes}")
        answers[f"{left} KiB left"] = dict(codes)
        taken_again(exim)
        accept(exim, 20)
    check(mirrors() == [mirror], "the mirror didn't survive")
    print(f"  {answers}; at most {status(exim)['memory_limit'] >> 20} MiB of memory", flush=True)
    deliver(exim)


@test(main=QUEUE_ONLY, library=True, memory="16M")
def recovery_without_room(exim):
    """A recovery without room for the names: callers get an error after a while, and the mirror keeps trying.  Once there is
    room, the queue is back without intervention."""
    runtime = small_runtime(exim)
    exim.start()
    names = accept(exim, 3000, lambda: 300)
    exim.stop()
    exim.tool("stop")
    for segment in runtime.iterdir():
        shutil.rmtree(segment)
    with filled(runtime, 1200 << 10):                       # enough for the recovery to begin
        result = exim.command("-bpc")
        said = (result.stderr + result.stdout).decode()
        check(f"the file system of {runtime}" in said and "is full" in said, f"exim -bpc said {said!r}, exit {result.returncode}")
        mirror, = mirrors()
        waiting = subprocess.Popen([EXIM, "-bpc"], env=exim.environment(), stdout=subprocess.PIPE)
        time.sleep(1)
        check(waiting.poll() is None, "exim -bpc didn't wait for the recovery")
    check(int(waiting.communicate(timeout=60)[0]) == len(names), "the queue has changed")
    check(mirrors() == [mirror], "the mirror gave up")
    exim.panic = "is full"
    exim.start()
    deliver(exim)


# --- a full disk --------------------------------------------------------------------------------------------------

@test(*((suffix, {"memory": memory}) for suffix, memory in (("", "512M"), ("_small_memory", "8M"))), main=QUEUE_ONLY, library=True)
def full_disk(exim):
    """When the disk of the state directory is full, MAIL gets 452, before the body.  Once there is space, mail is accepted
    again."""
    disk = exim.work / "disk"
    disk.mkdir()
    LoopDisk(disk, 160)
    exim.own(disk)
    exim.fastspool_configuration(f"memory = {exim.memory}", f"state = {disk}/state")
    exim.start()
    accept(exim, 200)
    check((disk / "state").is_dir(), "the state isn't on the disk")
    for left in (0, 8):                                     # MiB
        with filled(disk, left << 20):
            client = Client()
            client.expect(452, b"MAIL FROM:<sender@sink.test>\r\n")
            client.close()
            codes = load(exim, 50)[0]
            check(set(codes) == {452}, f"{left} MiB left: {codes}")
        seconds = taken_again(exim)
        accept(exim, 50)
    print(f"  {len(exim.expected)} messages accepted around two full disks; the last time {seconds:.2f} s after there was space",
          flush=True)
    deliver(exim)


# --- messages too large for memory ----------------------------------------------------------------------------------

@test(main=QUEUE_ONLY, library=True, memory="20M")
def large_messages(exim):
    """Messages larger than a quarter of memory are delivered whole: to files, by filter, pipe command and SMTP."""
    exim.start()
    client, places = Client(timeout=60), ("mbox", "maildir", "filtered", "pipe", "sink")
    for place in places:
        message = exim.expect(Message(f"user@{place}.test", size=6 << 20), "command" if place == "pipe" else place)
        check(client.send(message)[0] == 250, f"the message for {place} was refused")
    client.close()
    spilled, ending = [], threading.Event()

    def look():
        while not ending.wait(0.02):
            spilled.append(status(exim)["spilled_files"])

    thread = threading.Thread(target=look)
    thread.start()
    deliver(exim)
    ending.set()
    thread.join()
    check(max(spilled) > 0, "no message was ever in a spill file")
    wait_for(lambda: not list((exim.spool / ".fastspool" / "spill").iterdir()), "the spill files are gone")
    print(f"  {len(places)} messages of 6 MiB with `memory` = 20 MiB, at most {max(spilled)} in spill files at once", flush=True)


# --- a new limit --------------------------------------------------------------------------------------------------

def restart(exim, *configuration):
    exim.stop()
    exim.settle()
    exim.tool("stop")
    exim.fastspool_configuration(*configuration)
    exim.start()


@test(main=QUEUE_ONLY, library=True, memory="64M")
def another_limit(exim):
    """A smaller or larger `memory` takes effect at the next start, and keeps the store."""
    exim.start()
    names = dict(accept(exim, 2000))
    limits = []
    for mebibytes in (12, 96, 8):
        restart(exim, f"memory = {mebibytes}M")
        check(int(exim.run("-bpc")) == len(names), f"with {mebibytes} MiB the queue has changed")
        now = wait_for(lambda: (s := status(exim)) and s["memory_limit"] == mebibytes << 20 and s["mirror_pid"] and s,
                       f"the limit is {mebibytes} MiB")
        start = time.monotonic()
        wait_for(lambda: status(exim)["memory_bytes"] <= mebibytes << 20, f"the store holds at most {mebibytes} MiB")
        limits.append(f"{mebibytes} MiB (from {now['memory_bytes'] / 1048576:.1f} MiB in {time.monotonic() - start:.1f} s)")
        names.update(accept(exim, 200))
        check(sorted(exim.queue()) == sorted(names), f"with {mebibytes} MiB the queue has changed")
    print(f"  {len(names)} messages under 64 MiB, then {', '.join(limits)}", flush=True)
    deliver(exim)


@test(main=QUEUE_ONLY, library=True, memory="64M")
def names_need_more(exim):
    """A recovery whose names alone exceed `memory` says so.  A larger `memory` recovers the queue at the next start."""
    exim.start()
    names = accept(exim, 6000, lambda: 300)
    exim.stop()
    exim.tool("stop")
    exim.reboot()
    exim.fastspool_configuration("memory = 4M")
    for _ in range(2):                                      # the first recovers, the second finds the store FAILED
        result = exim.command("-bpc")
        said = result.stderr.decode() + result.stdout.decode()
        check("need more than the configured `memory`, 4 MiB" in said, f"exim -bpc said {said!r}, exit {result.returncode}")
    said = exim.command("status", program=TOOL, stock=True)
    check(said.returncode == 2 and b"FAILED: the names of the spool alone need more" in said.stdout, f"status: {said.stdout!r}")
    exim.fastspool_configuration("memory = 32M")
    check(int(exim.run("-bpc")) == len(names), "the queue has changed")
    check(sorted(exim.queue()) == sorted(names), "the queue has changed")
    check(status(exim)["memory_limit"] == 32 << 20, f"the limit is {status(exim)['memory_limit']}")
    print(f"  {len(names)} messages, with 4 MiB: {said.stdout.decode().splitlines()[0]}", flush=True)
    exim.start()
    accept(exim, 20)
    exim.panic = "need more than the configured"
    deliver(exim)


if __name__ == "__main__":
    main("memory")
