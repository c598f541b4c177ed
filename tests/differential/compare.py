#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Run the same seeded sequences of calls twice and compare the traces.

    compare.py SEQUENCES --real DIR --spool DIR --preload LIBRARY [--count N] [--seed N] [--steps N] [--memory BYTES]
    compare.py SEQUENCES --real DIR --other DIR ...         two real directories: is the generator deterministic?
    compare.py SEQUENCES --real DIR --other DIR --mutate N  succeeds if the mutated result is found
    compare.py SEQUENCES --real DIR --spool DIR --view      nobody has the library, all go by the view
    compare.py SEQUENCES --real DIR --spool DIR --mixed     two actors have the library, two go by the view

The first run uses a real directory without the library, the second a spool with it.  Both run in parallel, in batches.  A
sequence that differs is printed: the first step that does, and those before it.

With --view and --mixed, DIR are new directories, and the real one is a private ext4, of 1 GiB for blocks of 4096 bytes,
the size of stdio's buffers.  With --view its input/ and msglog/ are two mounts, noexec, as in the view.  With --mixed the
two kinds change places after each batch.

FASTSPOOL_TEST_LONG=1 runs twenty times as many sequences with --view and --mixed.

--memory limits the memory of the store.  Choose it so small that files are evicted all the time; the run fails if no file
was paged in.
"""
import argparse
import contextlib
import itertools
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "system"))
sys.dont_write_bytecode = True
from disk import LoopDisk  # noqa: E402
from viewed import View, configure  # noqa: E402

BATCH = 100
SHOWN = 5


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sequences")
    parser.add_argument("--real", required=True)
    parser.add_argument("--other")
    parser.add_argument("--spool")
    parser.add_argument("--preload", default="libfastspool.so")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=10000)
    parser.add_argument("--steps", type=int, default=45)
    parser.add_argument("--memory")
    parser.add_argument("--view", action="store_true")
    parser.add_argument("--mixed", action="store_true")
    parser.add_argument("--mutate", type=int, default=0)
    return parser.parse_args()


class Run:
    """The program SEQUENCES on one directory."""

    def __init__(self, options, directory, preload=None):
        self.options, self.directory, self.environment = options, directory, dict(os.environ)
        self.mutate = 0
        self.programs = [options.sequences]
        if preload:
            self.environment.update(LD_PRELOAD=preload, FASTSPOOL_SPOOL=directory)
        for name in ("input", "msglog"):
            os.makedirs(os.path.join(directory, name), exist_ok=True)

    def start(self, seed, count):
        programs = self.programs[::-1] if (seed - 1) // BATCH % 2 else self.programs
        command = [programs[0], self.directory, "--seed", str(seed), "--count", str(count),
                   "--steps", str(self.options.steps)]
        command += ["--pause", "5000"] if self.options.memory else []
        command += ["--mutate", str(self.mutate)] if self.mutate else []
        command += ["--mixed", programs[1]] if self.options.mixed else []
        self.output = tempfile.TemporaryFile("w+", errors="replace")
        self.process = subprocess.Popen(command, env=self.environment, stdin=subprocess.DEVNULL, stdout=self.output)

    def traces(self, timeout=300):
        """Of the sequences, each a list of lines.  It ends early, or with one too much, if the program didn't end well."""
        try:
            self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        with self.output:
            self.output.seek(0)
            output = self.output.read()
        if self.process.returncode != 0:
            output += f"sequence that was not made: {self.directory}: the run ended with status {self.process.returncode}\n"
        return [("sequence " + trace).splitlines() for trace in output.split("sequence ")[1:]]


def batch(runs, seed, count):
    """The traces of each run."""
    for run in runs:
        run.start(seed, count)
    return [run.traces() for run in runs]


def explain(runs, traces):
    """Print the first line in which the two traces of a sequence differ, and those before it."""
    equal = list(itertools.takewhile(lambda lines: lines[0] == lines[1], zip(*traces)))
    for run, trace in zip(runs, traces):
        print(f"{run.directory}: {trace[len(equal)] if len(equal) < len(trace) else '(end)'}")
    print("\n".join("    " + line for line, _ in equal))


USER = "import os, sys; os.listdir(sys.argv[1]); print('uses it', flush=True); sys.stdin.read()"


def make_small(spool, preload, memory):
    """Create the store by a first access, and start a mirror that limits it to MEMORY."""
    environment = dict(os.environ, FASTSPOOL_SPOOL=spool, FASTSPOOL_FLUSH_INTERVAL="1ms", LD_PRELOAD=preload)
    user = subprocess.Popen([sys.executable, "-c", USER, f"{spool}/input"], env=environment, stdin=subprocess.PIPE,
                            stdout=subprocess.PIPE)
    user.stdout.readline()              # while somebody uses the store, `stop` leaves it in memory, and says so
    stopped = subprocess.run(["fastspool", "stop", "--spool", spool], stderr=subprocess.PIPE)
    if stopped.returncode != 2:
        sys.exit(f"fastspool stop: {stopped}")
    mirror = subprocess.Popen(["fastspool", "mirror", "--memory", memory, "--journal", "65536", spool], stdin=subprocess.DEVNULL)
    while mirror.poll() is None and status(spool)["mirror_pid"] != mirror.pid:
        time.sleep(0.02)                # then nobody starts another one
    user.communicate()
    return mirror


def status(spool):
    return json.loads(subprocess.run(["fastspool", "status", "--json", "--spool", spool], stdout=subprocess.PIPE).stdout)


def evictions(spool):
    now = status(spool)
    print(f"{now['evictions']} evictions, {now['brought_back']} page-ins")
    return now["brought_back"]


def with_view(options, stack):
    """Runs on a private ext4, and on a spool with its view."""
    programs = [os.path.abspath(options.sequences)]
    options.count *= 20 if os.environ.get("FASTSPOOL_TEST_LONG") and options.count > 1 and not options.mutate else 1
    for place in (options.real, options.spool):
        os.makedirs(place)
    stack.callback(LoopDisk(options.real, 1024).unmount)
    shutil.chown(options.spool, "Debian-exim", "Debian-exim")
    os.environ.pop("FASTSPOOL_VIEW", None)
    if options.mixed:
        programs = ["/srv/served", "/srv/on-the-view"]
        for program in programs:
            shutil.copy(options.sequences, program)
    configure(options.spool, "memory = 256M", f"program = {programs[0]}")
    stack.enter_context(View(options.spool))
    runs = [Run(options, options.real), Run(options, options.spool, options.preload if options.mixed else None)]
    for run in runs:
        run.programs = programs
    if options.view:
        for name in ("input", "msglog"):
            place = f"{options.real}/{name}"
            subprocess.run(["mount", "--bind", place, place], check=True)
            stack.callback(subprocess.run, ["umount", place], check=True)
            subprocess.run(["mount", "-o", "remount,bind,nosuid,nodev,noexec", place], check=True)
    return runs


def main():
    with contextlib.ExitStack() as stack:
        sys.exit(compare(parse(), stack))


def compare(options, stack):
    """The exit status."""
    if not shutil.which(options.sequences):
        sys.exit(f"compare.py: {options.sequences}: no such program")
    if options.view or options.mixed:
        runs = with_view(options, stack)
    else:
        runs = [Run(options, options.real),
                Run(options, options.spool, options.preload) if options.spool else Run(options, options.other)]
    runs[1].mutate = options.mutate
    mirror = make_small(options.spool, options.preload, options.memory) if options.memory else None
    began, differing, done = time.monotonic(), 0, 0
    while done < options.count and differing <= 50 and not (options.mutate and differing):
        count = min(BATCH, options.count - done)
        for one, other in itertools.zip_longest(*batch(runs, options.seed + done, count), fillvalue=[]):
            if one != other:
                differing += 1
                if differing <= SHOWN:
                    explain(runs, (one, other))
        done += count
    print(f"{done} sequences of {options.steps} steps from seed {options.seed}, {differing} differ, "
          f"{time.monotonic() - began:.0f} s")
    if mirror:
        differing += evictions(options.spool) == 0
        mirror.terminate()
        mirror.wait()
    return (differing == 0) if options.mutate else (differing > 0)


main()
