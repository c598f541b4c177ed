#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""docs/calls.md has each system call of x86-64, by its number.

    numbers.py CALLS

A number stands in a row of the table, or in one of the lists below it ("1, 3-5."), and once in the lists.
"""
import pathlib
import re
import sys

HEADER = pathlib.Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h")


def main():
    if not HEADER.exists():
        sys.exit(77)
    text = pathlib.Path(sys.argv[1]).read_text()
    calls = {int(number): name for name, number in re.findall(r"__NR_(\w+) (\d+)", HEADER.read_text())}
    if len(calls) < 300:
        sys.exit(f"only {len(calls)} system calls in {HEADER}")
    table = {int(number) for numbers in re.findall(r"^\| `[^|]*\| ([\d, ]+) \|", text, re.M)
             for number in re.findall(r"\d+", numbers)}
    listed = []
    for line in re.findall(r"^[\d, -]+[,.]$", text, re.M):
        for first, last in re.findall(r"(\d+)(?:-(\d+))?", line):
            listed += range(int(first), int(last or first) + 1)
    wrong = [f"{number} {name}: in no row and no list" for number, name in sorted(calls.items())
             if number not in table and number not in listed]
    wrong += [f"{number}: in two places" for number in sorted(set(listed))
              if listed.count(number) > 1 or number in table]
    print("\n".join(wrong) or f"{len(calls)} system calls, {len(table)} in the table")
    sys.exit(1 if wrong else 0)


main()
