# SPDX-License-Identifier: MIT
"""What the two programs of tests of the cluster share: arguments, a line for each test, the counts in the end."""
import argparse
import os
import pathlib
import signal
import sys
import time
import traceback

HERE = pathlib.Path(__file__).resolve().parent
EXAMPLE = HERE.parent.parent / "examples/cluster"


class Failure(Exception):
    """A condition that a test checked does not hold."""


def check(condition, sentence):
    if not condition:
        raise Failure(sentence)


def begin(documentation):
    """The arguments: `build`, an absolute path, and `names`.  From here on SIGTERM and SIGINT end the program in order."""
    parser = argparse.ArgumentParser(description=documentation.splitlines()[0])
    parser.add_argument("--build", default=HERE.parent.parent / "build", type=lambda path: pathlib.Path(path).resolve())
    parser.add_argument("names", nargs="*", help="run only tests whose name contains one of these")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    signal.signal(signal.SIGINT, signal.default_int_handler)    # a shell that starts us in the background has ignored it
    return parser.parse_args()


def run(suite, tests, names):
    """Run those of TESTS, (name, function), that one of NAMES is a part of; print and count; end the program.
    A function returns what it has to say, if anything, and fails by an exception."""
    passed = failed = 0
    for name, function in tests:
        if names and not any(part in name for part in names):
            continue
        began, verdict = time.monotonic(), "ok"
        try:
            said = function()
            passed += 1
        except Exception as error:
            alone = isinstance(error, Failure) and not error.__context__        # no failure before it
            verdict, said = "not ok", str(error) if alone else traceback.format_exc()
            failed += 1
        print(f"{verdict} - {suite}.{name} ({time.monotonic() - began:.1f} s)" + (f": {said}" if said else ""), flush=True)
    print(f"{passed} passed, {failed} failed, 0 skipped", flush=True)
    if "FASTSPOOL_TEST_COUNTS" in os.environ:           # for tests/run
        with open(os.environ["FASTSPOOL_TEST_COUNTS"], "a") as file:
            print(passed, failed, 0, file=file)
    sys.exit(0 if passed and not failed else 1)
