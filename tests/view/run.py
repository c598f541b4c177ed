#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Run the programs of tests/view on the view and on ext4, and compare what they print:

    tests/system/namespace.sh --build build tests/view/run.py PROGRAMS posix|locks|lockers|fsx|names [--only NAME...]

PROGRAMS is the directory with the built programs.  The reference is a private ext4, mounted like the view (nosuid, nodev,
noexec).  A line that differs is an error, unless DOCUMENTED has it.

--reference takes a second ext4 in place of the view, which proves the tests: nothing may differ.  --spoil changes one line
of each output, which has to be found.
"""
import argparse
import contextlib
import os
import pathlib
import random
import re
import shutil
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "system"))
sys.dont_write_bytecode = True
from disk import LoopDisk  # noqa: E402
from harness import in_private_namespace  # noqa: E402
from viewed import View, configure  # noqa: E402

# What docs/limits.md says: the line on ext4, and the same line on the view.
DOCUMENTED = {
    "posix": (
        # no symbolic links, FIFOs, sockets, devices
        (r"other_kinds \d+: (symlink|mkfifo|mknod|bind).* = 0", r".* = EPERM"),
        (r"attributes_extended \d+: .*", r".* = (ENOTSUP|EOPNOTSUPP)"),
        (r"open_tmpfile 1: .* = \d+", r".* = ENOTSUP"),
        (r"open_tmpfile 2: .*", r".* = EBADF"),
        (r"allocation_modes \d+: .*", r"allocation_modes \d+: .*"),
        (r"polling_epoll .*", r".* = 0"),
    ),
    "kernel": (
        # no search for deadlocks between processes
        (r"deadlock 6: .* = EDEADLK", r".* = waits"),
        (r"locks of the open file description 19: .* of -1", r".* of [A-F]"),
    ),
    # the library: no locks of the description, no flock; an exec ends record locks; F_GETLK finds another way's holder nameless
    "library": (
        (r"deadlock 6: .* = EDEADLK", r".* = waits"),
        (r"(locks of the open file description|description's locks.*|flock.*) \d+: .*|\(no such line\)", r".*"),
        (r"exec \d: .*", r".*"),
        (r".* of [A-F]", r".* of -1"),
    ),
}


def lines(command):
    """What COMMAND prints."""
    done = subprocess.run(list(map(str, command)), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, errors="replace",
                          timeout=400)
    return done.stdout.splitlines() + ([f"status {done.returncode}"] if done.returncode else [])


def keyed(output):
    """{name and number of a line: the line}."""
    return {line.split(": ")[0]: line for line in output}


def compare(title, reference, other, documented, spoil):
    """Print what differs.  Returns the number of undocumented differences."""
    if spoil:
        number = random.Random(len(other)).randrange(len(other))
        other = other[:number] + [other[number] + " spoiled"] + other[number + 1:]
    one, two, differences, allowed = keyed(reference), keyed(other), 0, 0
    for key in list(one) + [key for key in two if key not in one]:
        first, second = one.get(key, "(no such line)"), two.get(key, "(no such line)")
        if first == second:
            continue
        if any(re.fullmatch(mine, first) and re.fullmatch(its, second) for mine, its in documented):
            allowed += 1
            continue
        differences += 1
        if differences <= 200:
            print(f"  ext4: {first}\n  view: {second}", flush=True)
    print(f"{'not ok' if differences else 'ok'} - {title}: {len(reference)} lines, {differences} differ, {allowed} as documented", flush=True)
    return differences


class Places:
    """A directory on ext4, and one on the view."""

    def __init__(self, stack, programs, reference):
        self.programs, self.count = pathlib.Path(programs).resolve(), 0
        self.real = self.disk(stack, "/srv/real")
        if reference:
            self.view = self.disk(stack, "/srv/other")
            self.served = False
            return
        self.served = True
        spool = pathlib.Path("/srv/spool")
        spool.mkdir()
        shutil.chown(spool, "Debian-exim", "Debian-exim")
        spool.chmod(0o755)
        configure(spool, "memory = 256M", *(f"program = {self.programs / name}" for name in ("locks", "lockers", "fsx", "names")))
        self.mounted = View(spool)
        stack.enter_context(self.mounted)
        self.view = spool / "input"
        self.view.chmod(0o755)

    @staticmethod
    def disk(stack, place):
        pathlib.Path(place).mkdir()
        disk = LoopDisk(place, 256)
        stack.callback(disk.unmount)
        subprocess.run(["mount", "-o", "remount,nosuid,nodev,noexec", place], check=True)
        return pathlib.Path(place)

    def pair(self):
        """Two new, empty directories."""
        self.count += 1
        for place in (self.real, self.view):
            (place / f"t{self.count}").mkdir()
            (place / f"t{self.count}").chmod(0o755)
        return self.real / f"t{self.count}", self.view / f"t{self.count}"

    def verify(self):
        """`fastspool verify` finds nothing wrong."""
        if not self.served:
            return 0
        done = subprocess.run(["fastspool", "verify", "--spool", str(self.view.parent)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        print(f"{'not ok' if done.returncode else 'ok'} - verify {done.stdout.strip() if done.returncode else ''}", flush=True)
        return int(done.returncode != 0)


def posix(places, options):
    real, view = places.pair()
    outputs = [lines([sys.executable, HERE / "posix.py", place, *options.only]) for place in (real, view)]
    return compare("posix", *outputs, DOCUMENTED["posix"], options.spoil)


def locks(places, options):
    bad = 0
    kinds = ("kernel", "library") if places.served else ("kernel",)
    program = places.programs / "locks"
    real, _ = places.pair()
    reference = lines([program, real, "kernel", "kernel", *options.only])
    for first in kinds:
        for second in kinds:
            _, view = places.pair()
            documented = DOCUMENTED["library" if "library" in (first, second) else "kernel"]
            bad += compare(f"locks, {first} and {second}", reference, lines([program, view, first, second, *options.only]), documented, options.spoil)
            for seed in () if options.only else range(1, 11):
                real, view = places.pair()
                outputs = lines([program, real, "kernel", "kernel", "--random", seed, 400]), lines([program, view, first, second, "--random", seed, 400])
                bad += compare(f"random locks {seed}, {first} and {second}", *outputs, documented, options.spoil)
    return bad


def lockers(places, options):
    """Lockers that die at each step."""
    bad = 0
    for first in ("kernel", "library") if places.served else ("kernel",):
        for second in ("kernel", "library") if places.served else ("kernel",):
            _, view = places.pair()
            output = lines([places.programs / "lockers", view, first, second] + (["--spoil"] if options.spoil else []))
            print(*output, sep="\n", flush=True)
            bad += any(not line.startswith("ok") for line in output)
    return bad


def model(name, count):
    """A program that knows by itself what must be, and prints what is wrong."""
    def run(places, options):
        bad = 0
        seed = int(os.environ.get("FASTSPOOL_TEST_SEED", "1"))
        for kind in ("kernel", "both", "library") if places.served else ("kernel",):
            for number in range(seed, seed + 5):
                _, view = places.pair()
                output = lines([places.programs / name, view, kind, number, count] + (["--spoil"] if options.spoil else []))
                print(f"{'not ok' if output else 'ok'} - {name}, {kind}, seed {number}", *output[:20], sep="\n  ", flush=True)
                bad += bool(output)
        return bad
    return run


SUITES = {"posix": posix, "locks": locks, "lockers": lockers, "fsx": model("fsx", 20000), "names": model("names", 5000)}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("programs")
    parser.add_argument("suite", choices=SUITES)
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--reference", action="store_true")
    parser.add_argument("--spoil", action="store_true")
    options = parser.parse_args()
    if not in_private_namespace():
        sys.exit("run this inside tests/system/namespace.sh")
    with contextlib.ExitStack() as stack:
        places = Places(stack, options.programs, options.reference)
        bad = SUITES[options.suite](places, options)
        bad += places.verify()
    sys.exit((bad == 0) if options.spoil else bad != 0)


if __name__ == "__main__":
    main()
