#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The kill -9 storm: random processes (daemon, receivers, deliverers, mirror) are killed under load.

Every message answered with 250 must be in the queue or have arrived, however its processes died.  Some arrive twice,
which is Exim's own behaviour: a delivery was killed before it wrote its journal line.  They are counted.  Half of the
rounds run with so little memory that messages are evicted, and paged in for delivery, all the time.

With the view the daemon, and what it starts, have the library; sendmail of root and of a user, their deliverers and a
second queue runner go by the view.  The view's server, its hand and its supervisor are killed, too, or stopped.  Whoever
looks meanwhile gets an error, or finds the file that stays.  What sendmail ended with status 0 for must not be lost, either.

FASTSPOOL_TEST_ROUNDS sets the number of rounds (150; with the view a fifth of it), FASTSPOOL_TEST_SEED the seed.
"""
import collections
import os
import pathlib
import random
import re
import signal
import subprocess
import threading
import time

from harness import EXIM, ID, TOOL, Client, Failure, Message, check, kill, main, processes, split_message, test, wait_for

CLIENTS = 6         # with the view every second one is sendmail
AHEAD = 120         # with more undelivered messages than this the clients pause


class Load:
    """Clients that send until stop(), and record every accepted message."""

    def __init__(self, exim, seed):
        self.exim, self.accepted, self.stopping = exim, {}, False
        self.arrived = self.by_sendmail = 0
        ways = (self.by_smtp, self.submit if exim.with_view else self.by_smtp)
        self.threads = [threading.Thread(target=ways[n % 2], args=(random.Random(f"{seed}-{n}"),), daemon=True)
                        for n in range(CLIENTS)]
        for thread in self.threads:
            thread.start()

    def next(self, chance):
        """(place, message) to send; None: stop."""
        while not self.stopping:
            if len(self.accepted) - self.arrived > AHEAD:
                time.sleep(0.05)
                continue
            place = chance.choice(("sink", "sink", "maildir"))
            return place, Message(f"user@{place}.test", size=chance.choice((300, 3000, 30000)))
        return None

    def by_smtp(self, chance):
        client = None
        while got := self.next(chance):
            place, message = got
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

    def submit(self, chance):
        """As programs call sendmail: root, and a user who has no right to the spool."""
        while got := self.next(chance):
            place, message = got
            user = chance.choice((None, "nobody"))
            status = subprocess.run([EXIM, "-oi", "-f", message.sender, *message.recipients], input=message.content(), user=user,
                                    group=65534 if user else None, extra_groups=[] if user else None, cwd="/",
                                    env=self.exim.environment(stock=True), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode
            if status == 0:
                self.accepted[message.token] = (place, message)
                self.by_sendmail += 1
            else:
                time.sleep(0.02)

    def stop(self):
        self.stopping = True
        for thread in self.threads:
            thread.join(60)
            check(not thread.is_alive(), "a client hangs: Exim doesn't answer it")


class Service:
    """What runs beside the load with a view: a runner without the library, one who looks, and who starts the view again."""

    def __init__(self, exim, chance):
        self.exim, self.chance, self.stopping = exim, chance, False
        self.looks, self.errors, self.wrong = 0, 0, []
        (exim.spool / "input" / "stays").touch()
        self.threads = [threading.Thread(target=work, daemon=True) for work in (self.run_queue, self.look)]
        for thread in self.threads:
            thread.start()

    def run_queue(self):
        while not self.stopping:
            subprocess.run([EXIM, "-q"], env=self.exim.environment(stock=True), cwd="/", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            time.sleep(0.5)

    def sees(self):
        """None: the view is dead."""
        try:
            return "stays" in os.listdir(self.exim.spool / "input")
        except OSError:
            return None

    def look(self):
        while not self.stopping:
            seen = self.sees()
            self.looks += 1
            self.errors += seen is None
            self.wrong += [time.monotonic()] if seen is False else []
            time.sleep(0.01)

    def see_to_view(self):
        """The view's supervisor is dead: the service starts it again, or the next process of root's does."""
        if self.exim.view.process.poll() is not None and not by_role("supervisor") and self.chance.random() < 0.3:
            self.exim.view.process = subprocess.Popen([TOOL, "view", str(self.exim.spool)], cwd="/", stdin=subprocess.DEVNULL,
                                                      stdout=self.exim.view.output, stderr=self.exim.view.output)

    def stop(self):
        self.stopping = True
        if not by_role("supervisor"):
            self.chance = random.Random()
            self.chance.random = lambda: 0.0
            self.see_to_view()
        for thread in self.threads:
            thread.join(60)
            check(not thread.is_alive(), "who goes by the view hangs")
        wait_for(self.sees, "the view is back")
        check(not self.wrong, f"the queue was seen empty {len(self.wrong)} times in {self.looks} looks")
        (self.exim.spool / "input" / "stays").unlink()


def role(pid, name):
    """mirror; server, hand or supervisor of the view; Exim's are None."""
    if not name.startswith("fastspool"):
        return None
    try:
        words = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        if words[1:2] != [b"view"]:
            return "mirror"
        parent = int(pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
        if pathlib.Path(f"/proc/{parent}/cmdline").read_bytes().split(b"\0")[1:2] != [b"view"]:
            return "supervisor"
        return "hand" if os.stat(f"/proc/{pid}").st_uid == 0 else "server"
    except OSError:
        return "mirror"


def by_role(wanted):
    return [(pid, name) for pid, name in processes() if role(pid, name) == wanted]


def choose_of_view(exim, chance):
    """The victims of a round with the view, and the signal."""
    dice = chance.random()
    for part, wanted, number in ((0.20, "server", signal.SIGKILL), (0.06, "hand", signal.SIGKILL), (0.08, "supervisor", signal.SIGKILL),
                                 (0.06, "server", signal.SIGSTOP), (0.03, "hand", signal.SIGSTOP), (0.03, "supervisor", signal.SIGSTOP)):
        if dice < part:
            return by_role(wanted), number
        dice -= part
    return choose(exim, chance), signal.SIGKILL


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


def strike(victims, number, killed, exim):
    """Kill or stop VICTIMS, and count them.  A stopped supervisor goes on after a while: nobody watches it."""
    for pid, name in victims:
        kind = "daemon" if pid == exim.daemon.pid else role(pid, name) or "receivers and deliverers"
        killed[kind if number == signal.SIGKILL else f"{kind} stopped"] += 1
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue
        if number == signal.SIGSTOP and kind == "supervisor":
            threading.Timer(2, wake, (pid,)).start()


def wake(pid):
    try:
        os.kill(pid, signal.SIGCONT)
    except ProcessLookupError:
        pass


@test(("", {}), ("_little_memory", {"memory": "4M"}), ("_view", {"view": "mixed"}), ("_view_little_memory", {"view": "mixed", "memory": "4M"}),
      main=("split_spool_directory = true", "smtp_receive_timeout = 60s", "remote_max_parallel = 2",
            "log_selector = +pid +subject"))
def storm(exim):
    """After 75 rounds of kill -9 under load every message answered with 250 is there, intact."""
    rounds = int(os.environ.get("FASTSPOOL_TEST_ROUNDS", "150")) // (10 if exim.with_view else 2)
    seed = os.environ.get("FASTSPOOL_TEST_SEED", str(random.getrandbits(32)))
    chance = random.Random(seed)
    print(f"# storm: {rounds} rounds, seed {seed}", flush=True)
    killed = collections.Counter()
    exim.start("-q2s")
    service = Service(exim, chance) if exim.with_view else None
    load = Load(exim, seed)
    for number in range(rounds):
        time.sleep(chance.uniform(0.02, 2.0 if service else 0.7))
        strike(*(choose_of_view(exim, chance) if service else (choose(exim, chance), signal.SIGKILL)), killed, exim)
        if service:
            service.see_to_view()
        if exim.daemon.poll() is not None or exim.daemon.pid not in dict(processes()):
            exim.daemon.wait()
            exim.start("-q2s")
        load.arrived = len({token for _, token in arrivals(exim)})
        if number % 20 == 19:
            print(f"# storm: round {number + 1}, {len(load.accepted)} accepted, {load.arrived} arrived, "
                  f"killed {dict(killed)}", flush=True)
    if service:
        service.stop()
        print(f"# storm: {service.looks} looks, {service.errors} of them failed; {load.by_sendmail} accepted by sendmail", flush=True)
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
    check(not lost, f"{len(lost)} accepted messages are lost, seed {seed}: {lost[:5]}\n{history(exim, lost[:3])}")
    for place, raw in exim.arrived():
        token, body = split_message(raw)
        if token in load.accepted:
            check(body == load.accepted[token][1].body, f"{token} arrived damaged, seed {seed}")
    rest = half_removed(exim, queue, {token for _, token in copies})
    if rest:
        print(f"# storm: {len(rest)} delivered messages stay in the queue: a death between the removal of -D and of -H", flush=True)
    queue = [name for name in queue if name not in rest]
    exim.queued = len(rest)
    check(not queue, f"{len(queue)} messages are undeliverable, seed {seed}: {queue[:5]}\n{exim.log()[-2000:]}")
    # The harness would report duplicates and unacknowledged messages as failures.
    exim.panic = ".*"
    exim.sink.messages.clear()
    for path in (exim.work / "mail" / "maildir" / "new").glob("*"):
        path.unlink()


def half_removed(exim, queue, arrived):
    """Those of QUEUE that have arrived, and have lost their -D file.  Exim removes -D, then -H: without the library each is
    a request to the view's server, which may die in between."""
    there = exim.tool("ls", "input").split() if queue else ()
    tokens = {name: re.search(rb"X-Token: (\S+)", exim.run("-Mvh", name)).group(1).decode() for name in queue}
    return [name for name in queue if tokens[name] in arrived and not any(path.endswith(f"{name}-D") for path in there)]


def history(exim, tokens):
    """What the main log says of the messages with TOKENS."""
    lines = exim.log().splitlines()
    names = {name for line in lines for token in tokens if token in line for name in ID.findall(line)}
    return "\n".join(line for line in lines if names & set(ID.findall(line)))


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
