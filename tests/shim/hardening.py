#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The library and the command are built as hardened as the compiler can, and run so.

    hardening.py LIBRARY TOOL

- ELF: position-independent, bound at load, relocations read-only, no executable stack, stack protector, fortified calls.
- The tables of function pointers are read-only in a running process.

Stack-clash protection and the branch protection of a processor leave nothing in the file to look for.
"""
import os
import re
import subprocess
import sys

TABLES = ("real", "section_guard")


def output(*command, **options):
    return subprocess.run(command, check=True, capture_output=True, text=True, **options).stdout


def wants(path):
    """What is missing in the file PATH."""
    header, dynamic, segments, symbols = (output("readelf", option, "-W", path) for option in ("-h", "-d", "-l", "--dyn-syms"))
    stack = next(line for line in segments.splitlines() if "GNU_STACK" in line)
    return [what for what, there in {
        "position independence": "Type:                              DYN" in header,
        "BIND_NOW": re.search(r"BIND_NOW|Flags:.*\bNOW\b", dynamic),
        "GNU_RELRO": "GNU_RELRO" in segments,
        "a stack that isn't executable": "RWE" not in stack,
        "the stack protector": "__stack_chk_fail" in symbols,
        "fortified calls": len(re.findall(r"UND __(?!stack)\w+_chk@", symbols)) >= 3,
        "no text relocation": "TEXTREL" not in dynamic,
    }.items() if not there]


def writable_tables(library):
    """The tables of the library that a process may write, when the library has attached."""
    at = {}
    for line in output("nm", library).splitlines():
        value, _, name = line.rpartition(" ")
        if name in TABLES:
            at[name] = int(value.split()[0], 16)
    if sorted(at) != sorted(TABLES):
        sys.exit(f"nm shows {at}")
    script = "import os, sys; os.listdir(sys.argv[1]); print(open('/proc/self/maps').read())"
    maps = output(sys.executable, "-c", script, "/srv/spool/input", env={"LD_PRELOAD": library, "FASTSPOOL_SPOOL": "/srv/spool",
                                                                        "FASTSPOOL_MEMORY": "16M", "FASTSPOOL_VIEW": "off"})
    areas = [(int(low, 16), int(high, 16), mode) for low, high, mode in re.findall(r"^([0-9a-f]+)-([0-9a-f]+) (\S+)", maps, re.M)]
    base = min(int(low, 16) for low in re.findall(rf"^([0-9a-f]+)-.* {re.escape(library)}", maps, re.M))
    if "/fastspool." not in maps:
        sys.exit("the process has not attached: nothing is seen")
    return [name for name, offset in at.items()
            if not any(low <= base + offset < high and mode.startswith("r--") for low, high, mode in areas)]


def main():
    library, tool = map(os.path.realpath, sys.argv[1:])
    subprocess.run(["mkdir", "-p", "/srv/spool/input"], check=True)
    subprocess.run(["chown", "-R", "Debian-exim:", "/srv/spool"], check=True)
    found = [f"{path} lacks {what}" for path in (library, tool) for what in wants(path)]
    found += [f"{name} can be written" for name in writable_tables(library)]
    for line in found:
        print(line)
    sys.exit(1 if found else 0)


main()
