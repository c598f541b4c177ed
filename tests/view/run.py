#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Run the programs of tests/view on the view and on ext4, and compare what they print:

    tests/system/namespace.sh --build build tests/view/run.py PROGRAMS posix|users|locks|lockers|fsx|names|replaced [--only NAME...]

PROGRAMS is the directory with the built programs.  The reference is a private ext4, mounted like the view (nosuid, nodev,
noexec).  A line that differs is an error, unless the file `documented` has it.

--reference takes a second ext4 in place of the view, which proves the tests: nothing may differ.  --spoil changes one line
of each output, which has to be found.  FASTSPOOL_TEST_LONG=1 takes five times as many random sequences.
"""
import argparse
import contextlib
import os
import pathlib
import random
import shutil
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "system"))
sys.dont_write_bytecode = True
from disk import LoopDisk  # noqa: E402
from harness import in_private_namespace  # noqa: E402
from viewed import View, configure  # noqa: E402

import deaths as death  # noqa: E402
import synced as sync  # noqa: E402

OWNER, GROUP = 23101, 23102         # of the spool: set-ID bits show where its owner can have set them
USERS = OWNER, 23103, 23104         # that posix.py becomes
LONG = bool(os.environ.get("FASTSPOOL_TEST_LONG"))


def documented(title):
    """The lines of the view that docs/limits.md explains: a section of the file `documented`."""
    text = (HERE / "documented").read_text(errors="surrogateescape")
    sections = dict(part.split("]\n", 1) for part in text.split("\n[")[1:])
    return {line for line in sections.get(title, "").splitlines() if line and not line.startswith("#")}


def lines(command, env=None):
    """What COMMAND prints."""
    done = subprocess.run(list(map(str, command)), env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, errors="replace",
                          timeout=400)
    return done.stdout.splitlines() + ([f"status {done.returncode}"] if done.returncode else [])


def keyed(output):
    """{name and number of a line: the line}."""
    return {line.split(": ")[0]: line for line in output}


def compare(title, reference, other, spoil):
    """Print what differs.  Returns the number of undocumented differences."""
    if spoil:
        number = random.Random(len(other)).randrange(len(other))
        other = other[:number] + [other[number] + " spoiled"] + other[number + 1:]
    one, two, differences, known, allowed = keyed(reference), keyed(other), 0, documented(title), set()
    for key in list(one) + [key for key in two if key not in one]:
        first, second = one.get(key, "(no such line)"), two.get(key, "(no such line)")
        if first == second:
            continue
        line = second if key in two else f"{key}: {second}"
        if line in known:
            allowed.add(line)
            continue
        differences += 1
        if differences <= 200:
            print(f"  ext4: {first}\n  view: {second}", flush=True)
    print(f"{'not ok' if differences else 'ok'} - {title}: {len(reference)} lines, {differences} differ, {len(allowed)} as documented", flush=True)
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
        os.chown(spool, OWNER, GROUP)
        spool.chmod(0o755)
        configure(spool, "memory = 256M", *(f"program = {self.programs / name}" for name in ("locks", "lockers", "fsx", "names", "replaced")))
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
    return compare("posix", *outputs, options.spoil)


def locks(places, options):
    bad = 0
    kinds = ("kernel", "library") if places.served else ("kernel",)
    program = places.programs / "locks"
    real, _ = places.pair()
    reference = lines([program, real, "kernel", "kernel", *options.only])
    for first in kinds:
        for second in kinds:
            _, view = places.pair()
            bad += compare(f"locks, {first} and {second}", reference, lines([program, view, first, second, *options.only]), options.spoil)
            for seed in () if options.only else range(1, 16 if LONG else 4):
                real, view = places.pair()
                outputs = lines([program, real, "kernel", "kernel", "--random", seed, 400]), lines([program, view, first, second, "--random", seed, 400])
                bad += compare(f"random locks {seed}, {first} and {second}", *outputs, options.spoil)
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
            for number in range(seed, seed + (5 if LONG else 1 if options.spoil else 2)):
                _, view = places.pair()
                output = lines([places.programs / name, view, kind, number, count] + (["--spoil"] if options.spoil else []))
                print(f"{'not ok' if output else 'ok'} - {name}, {kind}, seed {number}", *output[:20], sep="\n  ", flush=True)
                bad += bool(output)
        return bad
    return run


def deaths(places, options):
    _, view = places.pair()
    return death.run(places.mounted, view, options.spoil, 200 if LONG else 39)


def synced(places, options):
    _, view = places.pair()
    return sync.run(places.mounted.spool, view)


def users(places, options):
    """The cases of posix.py that become other users, with the library, which all of these users may keep."""
    cases = options.only or ["capabilities", "set_id_bits", "directories_that_move", "links_to_foreign_files", "files_in_sticky_directories", "noatime",
                             "chmod_and_chown", "sticky", "setgid_directory",
                             "owners_of_new_files", "times_move", "utimens"]
    with open("/etc/passwd", "a") as passwd:
        passwd.writelines(f"user{uid}:x:{uid}:{uid}::/:/bin/sh\n" for uid in USERS)
    spool = pathlib.Path("/srv/served")
    spool.mkdir()
    os.chown(spool, OWNER, GROUP)
    spool.chmod(0o755)
    trusted = "".join(f"trusted_user = user{uid}\n" for uid in USERS)
    pathlib.Path("/etc/fastspool.conf").write_text(f"spool = {spool}\nmemory = 64M\nview = off\n{trusted}")
    real_environment = dict(os.environ, FASTSPOOL_TEST_LIBRARY="1")
    served = dict(real_environment, LD_PRELOAD="libfastspool.so", FASTSPOOL_VIEW="off")
    # The working directory is the kernel's: so the disk has these directories, too.
    subprocess.run(["mkdir", "-m", "755", spool / "input", *(spool / "input" / name for name in cases)], env=served, check=True)
    for name in cases:
        (spool / "input" / name).mkdir()
    real, _ = places.pair()
    subprocess.run(["mount", "-o", "remount,exec", places.real], check=True)
    outputs = [lines([sys.executable, HERE / "posix.py", place, *cases], env=environment)
               for place, environment in ((real, real_environment), (spool / "input", served))]
    subprocess.run(["fastspool", "stop", "--spool", spool], check=True, stdout=subprocess.DEVNULL)
    return compare("users, library", *outputs, options.spoil)


SUITES = {"users": users, "deaths": deaths, "synced": synced, "posix": posix, "locks": locks, "lockers": lockers, "fsx": model("fsx", 20000 if LONG else 10000), "names": model("names", 5000 if LONG else 2500),
          "replaced": model("replaced", 2500)}


def main():
    if not os.path.exists("/dev/fuse"):
        print("this machine has no /dev/fuse")
        sys.exit(77)
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
