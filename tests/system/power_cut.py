#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Power cuts of a whole machine: the real Exim, 32 connections, the spool on ext4 on a loop device.

At a random moment everything is killed.  The disk becomes what has reached the device, the memory is removed, and Exim
starts again.  Every message that was answered with 250 and has not arrived must be in the queue, once.  In the end each
must arrive, byte for byte.  A message may arrive twice if a cut came after its delivery but before the end of the delivery
was on the disk.  Such messages are counted.  If Exim had completed the delivery, that was at most WINDOW seconds before the
cut: how long Exim takes from the delivery to its end depends on the machine, and is not judged.

With the view Exim runs without the library, and its fsync goes through the kernel: the same holds.

The control runs `lazy` with a flush interval of ten seconds, and must lose mail.  With --stock, Exim without the library
has to pass too.  FASTSPOOL_TEST_CUTS sets the number of cuts (25; with FASTSPOOL_TEST_LONG 50), FASTSPOOL_TEST_SEED the seed.
"""
import collections
import datetime
import os
import random
import re
import shutil
import signal
import threading
import time

from disk import LoopDisk
from harness import Client, Failure, Message, check, kill_all, main, processes, split_message, test, wait_for

CONNECTIONS = 32
CUTS = int(os.environ.get("FASTSPOOL_TEST_CUTS") or (50 if "FASTSPOOL_TEST_LONG" in os.environ else 25))
DISK = 512              # MiB
WINDOW = 2.0            # seconds: 1 as the age limit of unwritten changes, and a commit
MAIL = ("queue_domains = maildir.test", "remote_max_parallel = 1", "log_selector = +pid +millisec")


class Load:
    """Clients that send until the power fails, and record every 250."""

    def __init__(self, seed, connections):
        self.accepted, self.ending = {}, False      # message ID -> message
        self.threads = [threading.Thread(target=self.work, args=(random.Random(f"{seed}-{n}"),), daemon=True)
                        for n in range(connections)]
        for thread in self.threads:
            thread.start()

    def work(self, chance):
        try:
            client = Client(timeout=60)
            while not self.ending:
                place = chance.choice(("sink", "maildir"))
                message = Message(f"user@{place}.test", size=chance.choice((300, 3000, 3000, 30000)))
                code, text = client.send(message, pipelining=True)
                if code == 250:
                    self.accepted[text.split("id=")[1].split()[0]] = message
        except (OSError, ValueError, Failure):
            pass            # the power failed

    def end(self):
        self.ending = True
        for thread in self.threads:
            thread.join(60)
            check(not thread.is_alive(), "a client hangs: Exim doesn't answer it")


def freeze():
    """Stop every process before killing the first.  Otherwise a survivor would start another mirror, which writes."""
    stopped = set()
    while running := {pid for pid, _ in processes()} - stopped:
        for pid in running:
            try:
                os.kill(pid, signal.SIGSTOP)
            except ProcessLookupError:
                pass
        stopped |= running


def fail_power(exim, disk, load):
    """Cut the power: only what is on the device survives.  Returns when the cut began, and when the last process had stopped."""
    began = time.time()
    freeze()
    moment = began, time.time()
    kill_all()
    load.end()
    exim.daemon.wait()
    exim.reboot()
    disk.copy()
    disk.use_copy()
    for path in (exim.spool / "db").glob("__db.*"):     # Berkeley DB's half-made hints: whoever opens them would wait for ever
        path.unlink()
    return moment


def times_of(exim):
    """token -> sorted times of arrival, one per copy."""
    with exim.sink.lock:
        found = {token: list(times) for token, times in exim.sink.times.items()}
    for path in (exim.work / "mail" / "maildir" / "new").glob("*"):
        found.setdefault(split_message(path.read_bytes())[0], []).append(path.stat().st_mtime)
    return {token: sorted(times) for token, times in found.items()}


def cut(exim, disk, seed, chance, connections=CONNECTIONS):
    """One load, one power cut.  Returns (accepted messages, IDs of the lost ones, time of the cut)."""
    exim.start("-q1s")
    load = Load(seed, connections)
    time.sleep(chance.uniform(0.2, 1.2))
    enough = chance.randrange(1, 100)       # on a busy machine, too, there is something to lose
    wait_for(lambda: len(load.accepted) >= enough, f"{enough} messages were accepted", 300)
    moment = fail_power(exim, disk, load)
    arrived = times_of(exim)
    queue = collections.Counter(exim.queue())
    twice = [name for name, count in queue.items() if count > 1]
    check(not twice, f"the queue lists {twice[:3]} more than once")
    lost = [name for name, message in load.accepted.items() if not queue[name] and message.token not in arrived]
    return load.accepted, lost, moment


def check_bodies(exim, accepted):
    """Every copy is equal to what was sent."""
    bodies = {message.token: message.body for message in accepted}
    for place, raw in exim.arrived():
        token, body = split_message(raw)
        check(token not in bodies or body == bodies[token], f"{token} arrived damaged in {place}")


def completions(exim):
    """message ID -> times at which Exim has removed it from its queue, and said so."""
    found = {}
    for when, name in re.findall(r"^(\S+ \S+) \[\d+\] (\S+) Completed$", exim.log(), re.M):
        found.setdefault(name, []).append(datetime.datetime.fromisoformat(when).timestamp())
    return found


def check_twice(exim, accepted, times, moments):
    """What was completed, and arrived once more, was completed at most WINDOW before a cut.  Returns how many copies are too
    many, and these times."""
    completed = completions(exim)
    age = {(name, end): min((max(0.0, began - end) for began, stopped in moments if stopped >= end), default=float("inf"))
           for name, message in accepted.items() for end in completed.get(name, ())
           if times[message.token][-1] >= end + 0.001}      # Exim's log cuts what is below a millisecond off
    check(completed, "Exim completed nothing")
    late = [f"{name} arrived at {times[accepted[name].token]} and was completed at {completed[name]}"
            for (name, _), seconds in age.items() if seconds > WINDOW]
    check(not late, f"completed too long before a cut, and delivered again: {late[:3]}; the cuts: {moments}")
    return sum(len(arrivals) - 1 for arrivals in times.values()), age.values()


def check_rest(exim, times):
    """What is left in the queue was delivered.  Exim removes -D, then -H; a cut in between leaves the -H in the queue for
    good, as with stock Exim."""
    rest = exim.queue()
    exim.queued = len(rest)
    if exim.stock and not exim.with_view:
        return          # its queue also holds half-written messages, never acknowledged
    for name in rest:
        token = re.search(rb"X-Token: (\S+)", exim.run("-Mvh", name)).group(1).decode()
        check(f"input/{name}-D" not in exim.tool("ls", "input").split(), f"{name} is complete but not delivered")
        check(token in times, f"{name} has lost its -D file and never arrived")
    if rest:
        print(f"  {len(rest)} delivered messages stay in the queue: cut between the removal of -D and of -H", flush=True)


def forget_arrivals(exim):
    """Clear the ledger.  The harness would report duplicates and unacknowledged messages as failures."""
    exim.sink.messages.clear()
    shutil.rmtree(exim.work / "mail" / "maildir", ignore_errors=True)
    exim.panic = ".*"


def campaign(exim, cuts, connections=CONNECTIONS):
    seed = os.environ.get("FASTSPOOL_TEST_SEED", str(random.getrandbits(32)))
    chance = random.Random(seed)
    disk = LoopDisk(exim.spool, DISK)
    exim.own(exim.spool)
    accepted, moments = {}, []
    for number in range(cuts):
        now, lost, moment = cut(exim, disk, f"{seed}-{number}", chance, connections)
        accepted |= now
        moments.append(moment)
        check(not lost, f"cut {number + 1} of seed {seed}: {len(lost)} of {len(now)} accepted messages are lost: {lost[:5]}")
    exim.start()
    for _ in range(5):
        exim.run("-qff", timeout=600)
        exim.settle()
    times = times_of(exim)
    missing = [message.token for message in accepted.values() if message.token not in times]
    check(not missing, f"{len(missing)} messages never arrived, seed {seed}: {missing[:5]}")
    check_bodies(exim, accepted.values())
    copies, ages = check_twice(exim, accepted, times, moments)
    check_rest(exim, times)
    print(f"  {cuts} power cuts, {len(accepted)} messages accepted, none lost; {copies} extra copies, {len(ages)} of them "
          f"completed, at most {max(ages, default=0):.2f} s before a cut (seed {seed})", flush=True)
    forget_arrivals(exim)


@test(main=MAIL)
def acked(exim):
    """`acked`: no message answered with 250 is lost in a power cut."""
    campaign(exim, CUTS)


@test(main=MAIL, library=True, fastspool=("durability = strict",))
def strict(exim):
    """`strict`: the same, with two fifths of the cuts."""
    campaign(exim, CUTS * 2 // 5)


@test(("", {}), ("_strict", {"fastspool": ("durability = strict",)}), main=MAIL, view="stock")
def view(exim):
    """No message that an Exim without the library answered with 250, through the view, is lost in a power cut."""
    campaign(exim, CUTS // 5)


@test(main=MAIL, view="stock")
def view_8(exim):
    """The same with eight connections: fewer share a commit."""
    campaign(exim, CUTS // 5, 8)


@test(("", {}), ("_view", {"view": "stock"}), main=MAIL, library=True, fastspool=("durability = lazy", "flush_interval = 10s"))
def control(exim):
    """The test can fail: if fsync doesn't wait, mail is lost, and the test notices."""
    disk = LoopDisk(exim.spool, DISK)
    exim.own(exim.spool)
    accepted, lost, _ = cut(exim, disk, "control", random.Random(1))
    print(f"  {len(accepted)} messages accepted, {len(lost)} lost", flush=True)
    check(lost, "no message was lost, although no fsync waited for the disk")
    exim.run("-qff")
    exim.settle()
    check_rest(exim, times_of(exim))
    forget_arrivals(exim)


if __name__ == "__main__":
    main("power_cut")
