#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The power cut of a whole machine: the real Exim, 32 connections, its spool on ext4 on a loop device.

At a random moment everything is killed, what had reached the device is taken for the disk, the memory is removed, and
Exim starts.  Every message that was answered with 250 and didn't arrive before has to be in the queue, once; at last
each has to arrive, byte for byte.  What arrives twice was delivered just before a cut, and its end not yet on the disk:
it is counted, and may be no older than WINDOW.

The control is the same with `lazy` and a window of ten seconds, and must lose mail; with --stock, Exim without the
library has to pass too.  FASTSPOOL_TEST_CUTS says how many cuts (50), FASTSPOOL_TEST_SEED with which seed.
"""
import collections
import os
import random
import re
import shutil
import signal
import threading
import time

from disk import LoopDisk
from harness import Client, Failure, Message, check, kill_all, main, processes, split_message, test

CONNECTIONS = 32
DISK = 512              # MiB
WINDOW = 2.0            # seconds: flush_interval's bound of one, a commit, and a deliverer that waits for a processor
MAIL = ("queue_domains = maildir.test", "remote_max_parallel = 1")


class Load:
    """Clients that send until the power fails; they know what was answered with 250."""

    def __init__(self, seed):
        self.accepted, self.ending = {}, False      # identifier -> message
        self.threads = [threading.Thread(target=self.work, args=(random.Random(f"{seed}-{n}"),), daemon=True)
                        for n in range(CONNECTIONS)]
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
    """Stop everybody before the first dies: else who lives a moment longer starts another mirror, which writes."""
    stopped = set()
    while running := {pid for pid, _ in processes()} - stopped:
        for pid in running:
            try:
                os.kill(pid, signal.SIGSTOP)
            except ProcessLookupError:
                pass
        stopped |= running


def fail_power(exim, disk, load):
    """Everything ends here and now; what is on the device is what there is.  Returns when it happened."""
    freeze()
    moment = time.time()
    kill_all()
    load.end()
    exim.daemon.wait()
    exim.reboot()
    disk.copy()
    disk.use_copy()
    return moment


def times_of(exim):
    """token -> when it arrived, each time, in order."""
    with exim.sink.lock:
        found = {token: list(times) for token, times in exim.sink.times.items()}
    for path in (exim.work / "mail" / "maildir" / "new").glob("*"):
        found.setdefault(split_message(path.read_bytes())[0], []).append(path.stat().st_mtime)
    return {token: sorted(times) for token, times in found.items()}


def cut(exim, disk, seed, chance):
    """One load, one power cut.  Returns (what was accepted, which of it is lost, when the power failed)."""
    exim.start("-q1s")
    load = Load(seed)
    time.sleep(chance.uniform(0.2, 1.2))
    moment = fail_power(exim, disk, load)
    arrived = times_of(exim)
    queue = collections.Counter(exim.queue())
    twice = [name for name, count in queue.items() if count > 1]
    check(not twice, f"the queue lists {twice[:3]} more than once")
    lost = [name for name, message in load.accepted.items() if not queue[name] and message.token not in arrived]
    return load.accepted, lost, moment


def check_bodies(exim, accepted):
    """What arrived is what was sent."""
    bodies = {message.token: message.body for message in accepted}
    for place, raw in exim.arrived():
        token, body = split_message(raw)
        check(token not in bodies or body == bodies[token], f"{token} arrived damaged in {place}")


def check_twice(times, moments):
    """Mail that arrived again: for each, how long before a power cut the first copy came.  Returns these times."""
    ages = []
    for arrivals in times.values():
        for first in arrivals[:-1]:
            ages.append(min((moment - first for moment in moments if moment >= first - 0.5), default=float("inf")))
    check(not ages or max(ages) <= WINDOW, f"mail came again {max(ages, default=0):.1f} s after it had been delivered")
    return ages


def check_rest(exim, times):
    """No queue run ends what was cut between the removal of -D and of -H, the two steps of a message's end in Exim: it
    stays in the queue, as with stock Exim."""
    rest = exim.queue()
    exim.queued = len(rest)
    if exim.stock:
        return          # its queue holds half-written messages, too, which were never acknowledged
    for name in rest:
        token = re.search(rb"X-Token: (\S+)", exim.run("-Mvh", name)).group(1).decode()
        check(f"input/{name}-D" not in exim.tool("ls", "input").split(), f"{name} is whole, and isn't delivered")
        check(token in times, f"{name} has lost its data, and never arrived")
    if rest:
        print(f"  {len(rest)} delivered messages stay in the queue, cut between the removal of -D and of -H", flush=True)


def forget_arrivals(exim):
    """The harness's own comparisons would call duplicates, and what died unanswered, a fault."""
    exim.sink.messages.clear()
    shutil.rmtree(exim.work / "mail" / "maildir", ignore_errors=True)
    exim.panic = ".*"


def campaign(exim, cuts):
    seed = os.environ.get("FASTSPOOL_TEST_SEED", str(random.getrandbits(32)))
    chance = random.Random(seed)
    disk = LoopDisk(exim.spool, DISK)
    exim.own(exim.spool)
    accepted, moments = [], []
    for number in range(cuts):
        now, lost, moment = cut(exim, disk, f"{seed}-{number}", chance)
        accepted += now.values()
        moments.append(moment)
        check(not lost, f"cut {number + 1} of seed {seed}: {len(lost)} of {len(now)} accepted messages are lost: {lost[:5]}")
    exim.start()
    for _ in range(5):
        exim.run("-qff", timeout=600)
        exim.settle()
    times = times_of(exim)
    missing = [message.token for message in accepted if message.token not in times]
    check(not missing, f"{len(missing)} messages never arrived, seed {seed}: {missing[:5]}")
    check_bodies(exim, accepted)
    ages = check_twice(times, moments)
    check_rest(exim, times)
    print(f"  {cuts} power cuts, {len(accepted)} messages accepted, none lost; {len(ages)} arrived twice, delivered "
          f"at most {max(ages, default=0):.2f} s before a cut (seed {seed})", flush=True)
    forget_arrivals(exim)


@test(main=MAIL)
def acked(exim):
    """Nothing that was answered with 250 is lost."""
    campaign(exim, int(os.environ.get("FASTSPOOL_TEST_CUTS", "50")))


@test(main=MAIL, library=True, fastspool=("durability = strict",))
def strict(exim):
    """The same, fewer times."""
    campaign(exim, int(os.environ.get("FASTSPOOL_TEST_CUTS", "50")) // 5)


@test(main=MAIL, library=True, fastspool=("durability = lazy", "flush_interval = 10s"))
def control(exim):
    """The test can fail: where fsync doesn't wait, mail is lost, and it is noticed."""
    disk = LoopDisk(exim.spool, DISK)
    exim.own(exim.spool)
    accepted, lost, _ = cut(exim, disk, "control", random.Random(1))
    print(f"  {len(accepted)} messages accepted, {len(lost)} lost", flush=True)
    check(lost, "no message was lost, though nobody waited for the disk")
    exim.run("-qff")
    exim.settle()
    check_rest(exim, times_of(exim))
    forget_arrivals(exim)


if __name__ == "__main__":
    main("power_cut")
