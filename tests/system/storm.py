#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The kill -9 storm: random processes (daemon, receivers, deliverers, mirror) are killed under load.

Every message answered with 250 must be in the queue or have arrived, however its processes died.  Some arrive twice,
which is Exim's own behaviour: a delivery was killed before it wrote its journal line.  They are counted.  Half of the
rounds run with so little memory that messages are evicted, and paged in for delivery, all the time.
FASTSPOOL_TEST_ROUNDS sets the number of rounds (150), FASTSPOOL_TEST_SEED the seed.
"""
import collections
import os
import random
import threading
import time

from harness import Client, Failure, Message, check, kill, main, processes, split_message, test

CLIENTS = 6
AHEAD = 120         # with more undelivered messages than this the clients pause


class Load:
    """Clients that send until stop(), and record every accepted message."""

    def __init__(self, exim, seed):
        self.exim, self.accepted, self.stopping = exim, {}, False
        self.arrived = 0
        self.threads = [threading.Thread(target=self.work, args=(random.Random(f"{seed}-{n}"),), daemon=True)
                        for n in range(CLIENTS)]
        for thread in self.threads:
            thread.start()

    def work(self, chance):
        client = None
        while not self.stopping:
            if len(self.accepted) - self.arrived > AHEAD:
                time.sleep(0.05)
                continue
            place = chance.choice(("sink", "sink", "maildir"))
            message = Message(f"user@{place}.test", size=chance.choice((300, 3000, 30000)))
            try:
                client = client or Client(timeout=20)
                code, _ = client.send(message, pipelining=chance.random() < 0.5, chunks=chance.choice((0, 0, 1, 3)))
                if code == 250:
                    self.accepted[message.token] = (place, message)
            except (OSError, ValueError, Failure):
                if client:
                    client.socket.close()
                client = None
                time.sleep(0.02)

    def stop(self):
        self.stopping = True
        for thread in self.threads:
            thread.join(60)
            check(not thread.is_alive(), "a client hangs: Exim doesn't answer it")


def choose(exim, chance):
    """The victims of a round: all processes, the mirror, the daemon, or up to three at random."""
    victims, dice = processes(), chance.random()
    if dice < 0.05:
        return victims
    if dice < 0.25:
        return [(pid, name) for pid, name in victims if name.startswith("fastspool")]
    if dice < 0.35:
        return [(pid, name) for pid, name in victims if pid == exim.daemon.pid]
    return chance.sample(victims, min(len(victims), chance.randint(1, 3)))


@test(("", {}), ("_little_memory", {"memory": "4M"}),
      main=("split_spool_directory = true", "smtp_receive_timeout = 60s", "remote_max_parallel = 2"))
def storm(exim):
    """After 75 rounds of kill -9 under load every message answered with 250 is there, intact."""
    rounds = int(os.environ.get("FASTSPOOL_TEST_ROUNDS", "150")) // 2
    seed = os.environ.get("FASTSPOOL_TEST_SEED", str(random.getrandbits(32)))
    chance = random.Random(seed)
    print(f"# storm: {rounds} rounds, seed {seed}", flush=True)
    killed = collections.Counter()
    exim.start("-q2s")
    load = Load(exim, seed)
    for number in range(rounds):
        time.sleep(chance.uniform(0.02, 0.7))
        for pid, name in choose(exim, chance):
            killed["daemon" if pid == exim.daemon.pid else "mirror" if name.startswith("fastspool") else
                   "receivers and deliverers"] += 1
            kill(pid)
        if exim.daemon.poll() is not None or exim.daemon.pid not in dict(processes()):
            exim.daemon.wait()
            exim.start("-q2s")
        load.arrived = len({token for _, token in arrivals(exim)})
        if number % 20 == 19:
            print(f"# storm: round {number + 1}, {len(load.accepted)} accepted, {load.arrived} arrived, "
                  f"killed {dict(killed)}", flush=True)
    load.stop()
    exim.settle()
    for _ in range(20):
        queue = exim.queue()
        if not queue:
            break
        exim.run("-qff")
        exim.settle()
    queue = exim.queue()
    queued = b"".join(exim.run("-Mvh", name) for name in queue)
    copies = collections.Counter(arrivals(exim))
    lost = [token for token, (place, _) in load.accepted.items()
            if not copies[(place, token)] and token.encode() not in queued]
    twice = sum(1 for count in copies.values() if count > 1)
    print(f"# storm: {len(load.accepted)} accepted, {sum(copies.values())} arrived, {twice} more than once, "
          f"{len(queue)} still queued, killed {dict(killed)}", flush=True)
    check(not lost, f"{len(lost)} accepted messages are lost, seed {seed}: {lost[:5]}")
    for place, raw in exim.arrived():
        token, body = split_message(raw)
        if token in load.accepted:
            check(body == load.accepted[token][1].body, f"{token} arrived damaged, seed {seed}")
    check(not queue, f"{len(queue)} messages are undeliverable, seed {seed}: {queue[:5]}\n{exim.log()[-2000:]}")
    # The harness would report duplicates and unacknowledged messages as failures.
    exim.panic = ".*"
    exim.sink.messages.clear()
    for path in (exim.work / "mail" / "maildir" / "new").glob("*"):
        path.unlink()


known = {}


def arrivals(exim):
    """(place, token) of each copy that arrived.  Reads each file once."""
    with exim.sink.lock:
        found = [("sink", split_message(raw)[0]) for _, raw in exim.sink.messages]
    new = exim.work / "mail" / "maildir" / "new"
    for path in new.glob("*") if new.exists() else ():
        if path.name not in known:
            known[path.name] = split_message(path.read_bytes())[0]
        found.append(("maildir", known[path.name]))
    return found


if __name__ == "__main__":
    main("storm")
