#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""What examples/cluster/up and down leave on the machine: nothing.

    up_down.py [--build DIR] [NAME-PART...]

- `up`, a look at the outside, `down`.
- `up` gets SIGINT with its process group, as by Ctrl-C, or SIGTERM alone, at each of MOMENTS, and takes all away itself.
- `up` is killed with -9, or the private machine is; then `down` takes it away.
- `on HOST` is stopped; `power` and `down` do not wait for it.
- `demo` runs through all of its steps.

Left over would be: a process of the cluster's namespaces, or one that has its place in command line or environment; a loop
device, a mount, an interface, a named network, a control group; the place itself.

A moment is seen, not timed.  A suite ends with the line "N passed, N failed, N skipped".  The exit status is 1 if a test
failed.  FASTSPOOL_TEST_LONG=1: each moment with each signal.
"""
import functools
import os
import pathlib
import re
import signal
import subprocess
import tempfile
import time

import runner
from runner import EXAMPLE, Failure, check

PATIENCE = 30           # seconds in which nothing of what is left ends
LONGEST = 300           # seconds of a script on a busy machine


class Cluster:
    def __init__(self):
        self.place = pathlib.Path(tempfile.mkdtemp(prefix="fastspool-cluster.", dir="/run"))
        self.environment = {**os.environ, "FASTSPOOL_CLUSTER": str(self.place)}
        self.outside, self.process, self.namespaces, self.disks = self.look(), None, set(), None

    def end(self):
        """Take away what a failed test has left."""
        if self.process and self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        subprocess.run([EXAMPLE / "down"], env=self.environment, capture_output=True)

    def start(self):
        self.process = subprocess.Popen([EXAMPLE / "up"], env=self.environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                        stderr=subprocess.STDOUT, start_new_session=True)

    def script(self, *command):
        """Run a script of the example, which has to end: nothing that it does takes LONGEST."""
        result = subprocess.run([EXAMPLE / command[0], *command[1:]], env=self.environment, capture_output=True, text=True, timeout=LONGEST)
        check(result.returncode == 0, f"{' '.join(command)}: {result.stdout}{result.stderr}")
        return result.stdout

    def down(self):
        self.script("down")

    def machine(self):
        """The private machine's first process, or None."""
        try:
            return int((self.place / "machine").read_text())
        except (OSError, ValueError):
            return None

    def hosts(self):
        """How many hosts are on."""
        machine = self.machine()
        disks = pathlib.Path(f"/proc/{machine}/root{self.place}/disks")
        return len(list(disks.glob("*/process"))) if machine else 0

    def find_disks(self):
        """Find the file system of the disks, which only the private machine sees."""
        try:
            number = os.stat(f"/proc/{self.machine()}/root{self.place}/disks").st_dev
            self.disks = f"{os.major(number)}:{os.minor(number)}"
        except OSError:
            pass                                            # there is none yet

    def loops(self):
        """Loop devices on that file system."""
        devices = subprocess.run(["losetup", "--list", "--noheadings", "--output", "NAME,BACK-MAJ:MIN"], check=True,
                                 capture_output=True, text=True).stdout
        return [f"loop device {line.split()[0]}" for line in devices.splitlines() if line.split()[1:] == [self.disks]]

    # --- what is there ---

    def processes(self):
        """Processes of the cluster: by mounts, command line or environment, and all of a namespace that one of them was in."""
        mine, others, found = str(self.place).encode(), os.readlink("/proc/self/ns/pid"), {}
        for process in pathlib.Path("/proc").glob("[0-9]*"):
            try:
                words = [(process / name).read_bytes() for name in ("mountinfo", "cmdline", "environ")]
                namespace = os.readlink(process / "ns/pid")
            except OSError:
                continue                                    # it has ended
            if any(mine in word for word in words) and namespace != others:
                self.namespaces.add(namespace)
            if (any(mine in word for word in words) or namespace in self.namespaces) and int(process.name) != os.getpid():
                found[process.name] = words[1].replace(bytes(1), b" ").decode(errors="replace")
        return [f"{number} {words}" for number, words in found.items()]

    @staticmethod
    def look():
        """What of the machine a cluster could touch."""
        links = subprocess.run(["ip", "-o", "link"], check=True, capture_output=True, text=True).stdout
        networks = pathlib.Path("/run/netns")
        return {"interfaces": set(re.findall(r"^\d+: ([^:@]+)", links, re.M)),
                "named networks": {path.name for path in networks.iterdir()} if networks.exists() else set(),
                "control groups": {path for path, _, _ in os.walk("/sys/fs/cgroup")},
                "the resolver": {pathlib.Path("/etc/resolv.conf").read_text()}, "the host's name": {os.uname().nodename}}

    def left(self):
        """Everything of the cluster that is there, as sentences."""
        mounts = pathlib.Path("/proc/self/mountinfo").read_text()
        found = [f"process {process}" for process in self.processes()]
        found += self.loops()
        found += [line for line in mounts.splitlines() if str(self.place) in line]
        found += [str(self.place)] if self.place.exists() else []
        now = self.look()
        # Other work on the machine may take something away meanwhile, and make what is its own: only names of ours count.
        ours = re.compile(r"^(dns|store|scan|far|retry|main\d|backup|sender|watch|standby|mail|.*cluster.*)$")
        for what, before in self.outside.items():
            found += [f"{what}: {new}" for new in now[what] - before if what.startswith("the ") or ours.match(str(new))]
        return found

    def check_gone(self):
        """Nothing is left.  (The kernel ends the last processes of a namespace after its first one.)"""
        since, seen = time.monotonic(), None
        while left := self.left():
            if seen is None or len(left) < seen:
                since, seen = time.monotonic(), len(left)
            check(time.monotonic() - since < PATIENCE, f"{len(left)} are left: {left[:5]}")
            time.sleep(0.1)

    def reach(self, condition):
        """Wait until CONDITION holds while `up` runs, and stop it there.  Returns whether that came in time."""
        while not condition():
            if self.process.poll() is not None:
                raise Failure(f"up has ended: {self.process.stdout.read().decode()}")
            time.sleep(0.02)
        self.process.send_signal(signal.SIGSTOP)            # alone: what it has started goes on
        self.processes()                                    # for their namespaces
        self.find_disks()
        return self.process.poll() is None

    def signal(self, number, group):
        """`up`, which is stopped, or its process group, gets a signal, and goes on."""
        (os.killpg if group else os.kill)(self.process.pid, number)
        self.process.send_signal(signal.SIGCONT)
        return self.process.communicate()[0].decode()


MOMENTS = {
    "as it begins": lambda cluster: True,
    "before the private machine is there": lambda cluster: (cluster.place / "ready").exists(),
    "with the private machine": lambda cluster: cluster.machine(),
    "with one host": lambda cluster: cluster.hosts() >= 1,
    "with some hosts": lambda cluster: cluster.hosts() >= 4,
    "with all hosts": lambda cluster: cluster.hosts() >= 10,
}


def up_and_down(cluster):
    """up starts ten hosts, and changes nothing outside; down takes them away; a second down has nothing to do."""
    cluster.start()
    said = cluster.process.communicate()[0].decode()
    check(cluster.process.returncode == 0 and cluster.hosts() == 10, f"up: {said}")
    cluster.find_disks()
    left = cluster.left()
    check(any(line.startswith("process") for line in left) and any(line.startswith("loop") for line in left),
          f"this test doesn't see the cluster: {left}")
    check(all(line.startswith(("process", "loop", str(cluster.place))) for line in left), f"up has changed the outside: {left}")
    cluster.down()
    cluster.check_gone()
    cluster.down()
    cluster.check_gone()


def start_and_reach(cluster, condition):
    """`up` is stopped where CONDITION holds.  (On a busy machine it may have ended before this test had its turn: then again.)"""
    cluster.start()
    while not cluster.reach(condition):
        cluster.process.communicate()
        cluster.down()
        cluster.start()


def interrupted(cluster, moment, number):
    start_and_reach(cluster, lambda: MOMENTS[moment](cluster))
    said = cluster.signal(number, group=number == signal.SIGINT)
    check(cluster.process.returncode != 0, f"up has not ended by the signal: {said}")
    if cluster.place.exists() and not any(cluster.place.iterdir()):
        cluster.place.rmdir()                                               # before it had done anything; this test's own
    cluster.check_gone()


def interrupted_in_the_image(cluster):
    """up gets SIGTERM while it makes the image: it ends, and with it what makes the image, of which nothing is left."""
    with tempfile.TemporaryDirectory(prefix="fastspool-image.", dir="/var/tmp") as images:
        cluster.environment["FASTSPOOL_CLUSTER_IMAGE"] = f"{images}/image"
        cluster.start()
        while not pathlib.Path(f"{images}/image.making/debootstrap").exists():
            check(cluster.process.poll() is None, "up has ended before")
            time.sleep(0.05)
        cluster.processes()                                 # for their namespaces
        os.kill(cluster.process.pid, signal.SIGTERM)
        cluster.process.communicate(timeout=PATIENCE)
        if cluster.place.exists() and not any(cluster.place.iterdir()):
            cluster.place.rmdir()                           # this test's own
        cluster.check_gone()
        check(not os.listdir(images), f"left of the image: {os.listdir(images)}")


def killed(cluster):
    """up is killed with -9 while hosts start: down takes away what is there."""
    start_and_reach(cluster, lambda: cluster.hosts() >= 2)
    os.killpg(cluster.process.pid, signal.SIGKILL)
    cluster.process.wait()
    cluster.down()
    cluster.check_gone()


def machine_killed(cluster):
    """The private machine is killed: all in it ends by itself, and down has only the place to take away."""
    cluster.start()
    cluster.process.communicate()
    cluster.find_disks()
    os.kill(cluster.machine(), signal.SIGKILL)
    cluster.down()
    cluster.check_gone()


def demo(cluster):
    """demo says nothing that it did not expect, and leaves the cluster well; status draws it."""
    cluster.start()
    cluster.process.communicate()
    cluster.find_disks()
    said = cluster.script("demo")
    check(said.count("\n== ") == 6, f"not all steps: {said}")
    drawn = cluster.script("status")
    rows = {line.split()[0]: line.split() for line in drawn.splitlines() if line}
    off = [host for host, row in rows.items() if "off" in row[2:3]]
    check(len(rows) == 13 and off == ["standby"] and drawn.count("all is well") == 2, drawn)
    check(all(rows[host][-3] == "0" for host in ("retry", "backup", "sender")), f"mail is left: {drawn}")
    cluster.down()
    cluster.check_gone()


def stopped(cluster):
    """`on HOST` is stopped, as by ^Z: the host can be switched off, and the cluster taken down."""
    cluster.start()
    cluster.process.communicate()
    cluster.find_disks()
    for host, *command in (("sender", "power", "sender", "kill"), ("far", "down")):
        on = subprocess.Popen([EXAMPLE / "on", host, "sh", "-c", "echo there; exec sleep 3600"], env=cluster.environment,
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, start_new_session=True)
        try:
            check(on.stdout.readline(), f"nothing runs on {host}")
            os.killpg(on.pid, signal.SIGSTOP)
            cluster.script(*command)
        finally:
            os.killpg(on.pid, signal.SIGKILL)
            on.communicate()
    cluster.check_gone()


def tests():
    """(name, function) of each."""
    yield "up_and_down", up_and_down
    both = os.environ.get("FASTSPOOL_TEST_LONG")
    for index, moment in enumerate(MOMENTS):
        for number in (signal.SIGINT, signal.SIGTERM) if both else ((signal.SIGINT, signal.SIGTERM)[index % 2],):
            yield (f"interrupted, {moment}, by {number.name}",
                   lambda cluster, moment=moment, number=number: interrupted(cluster, moment, number))
    yield "interrupted, while the image is made", interrupted_in_the_image
    yield "killed", killed
    yield "machine_killed", machine_killed
    yield "stopped", stopped
    yield "demo", demo


def attempt(function):
    """A test with a cluster of its own, which ends with it."""
    cluster = Cluster()
    try:
        function(cluster)
    finally:
        cluster.end()


def main():
    arguments = runner.begin(__doc__)
    os.environ["FASTSPOOL_BUILD"] = str(arguments.build)
    runner.run("up_down", [(name, functools.partial(attempt, function)) for name, function in tests()], arguments.names)


main()
