#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The life of one message: the spool with the library against tmpfs without it, as ratios measured in one run.

    message_life.py PROGRAM PROGRAM_API [--rounds N] [--messages N] [--json FILE]

Run it where the library is installed (namespace.sh --build DIR): /etc/fastspool.conf is written.  PROGRAM makes libc calls,
PROGRAM_API the same calls through the C API.  A view is mounted over the spool, as by default, but for one way.  The runs
alternate, so that other load on the machine hits them all.
"""
import argparse
import contextlib
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

sys.dont_write_bytecode = True
import options  # noqa: E402

TURNS = 5


def run(program, directory, *arguments, preload=False):
    environment = dict(os.environ, FASTSPOOL_SPOOL=directory)
    if preload:
        environment["LD_PRELOAD"] = "libfastspool.so"
    done = subprocess.run([program, directory, *arguments], env=environment, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"message_life.py: {program} in {directory} ended with status {done.returncode}: {done.stderr.strip()}")
    return done.stdout.splitlines()


@contextlib.contextmanager
def viewed(spool, program):
    """A view over SPOOL, of which PROGRAM is served in process."""
    pathlib.Path("/etc/fastspool.conf").write_text(f"spool = {spool}\nprogram = {os.path.realpath(program)}\n")
    run(program, spool, "--rounds", "1", "--messages", "1", preload=True)     # makes the directories, which are mounted over
    view = subprocess.Popen(["fastspool", "view", spool])
    try:
        while not os.path.ismount(f"{spool}/input"):
            if view.poll() is not None:
                sys.exit(f"message_life.py: the view ended with status {view.returncode}")
            time.sleep(0.01)
        yield
    finally:
        view.terminate()
        view.wait()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program", type=options.program)
    parser.add_argument("program_api", type=options.program)
    parser.add_argument("--rounds", type=options.whole, default=5)
    parser.add_argument("--messages", type=options.whole, default=2000)
    parser.add_argument("--json", type=options.writable, help="a file for the medians, in ns")
    arguments = parser.parse_args()
    size = ["--rounds", str(arguments.rounds), "--messages", str(arguments.messages)]
    few = [*size[:2], "--messages", str(max(1, arguments.messages // 20))]
    with contextlib.ExitStack() as made:
        tmpfs, spool, bare = (made.enter_context(tempfile.TemporaryDirectory(dir=place)) for place in ("/dev/shm", "/srv", "/srv"))
        made.enter_context(viewed(spool, arguments.program))
        ways = {"tmpfs": (arguments.program, tmpfs, *size), "library": (arguments.program, spool, *size),
                "library, no view": (arguments.program, bare, *size),
                "api": (arguments.program_api, spool, "--api", *size),
                "tmpfs, forks": (arguments.program, tmpfs, "--forks", *few),
                "library, forks": (arguments.program, spool, "--forks", *few)}
        taken = {way: [] for way in ways}
        for _ in range(TURNS):
            for way, command in ways.items():
                taken[way].append(int(run(*command, preload=way.startswith("library"))[0]))
        median = {way: statistics.median(numbers) for way, numbers in taken.items()}
        if arguments.json:
            pathlib.Path(arguments.json).write_text(json.dumps(median))
        for way, number in median.items():
            print(f"{way:16} {number / 1000:9.2f} us per message")
        for what, slow, fast, least in (("with the library", "tmpfs", "library", 3.5),
                                        ("without a view", "tmpfs", "library, no view", 3.5), ("through the C API", "tmpfs", "api", 20),
                                        ("with a fork at each step", "tmpfs, forks", "library, forks", 1.0)):
            print(f"{what:25} {median[slow] / median[fast]:6.2f} times as fast as tmpfs (at least {least})")
        print("\nns per message by kind of call (the timing itself adds some 60 ns per call):")
        columns = [run(arguments.program, tmpfs, "--kinds", *few), run(arguments.program, spool, "--kinds", *few, preload=True),
                   run(arguments.program_api, spool, "--api", "--kinds", *few)]
        print(f"{'':15} {'tmpfs':>8} {'library':>8} {'C API':>8}")
        for lines in zip(*(column[1:] for column in columns)):
            numbers = [line.split()[-1] for line in lines]
            print(f"{lines[0][:15]} {numbers[0]:>8} {numbers[1]:>8} {numbers[2]:>8}")


main()
