#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The library takes few pages and few mappings, because each fork copies them.

    pages.py LIBRARY

- The variables that a process writes where it opens and closes spool files lie in one page.
- A process that has attached has five mappings of the library: its code, its relocated constants, two of its variables, and
  the sealed table.
"""
import os
import re
import subprocess
import sys

PAGE = 4096
WRITTEN = ("table", "attachments", "cached", "locked", "life", "numbers", "lowest")
MAPPINGS = 5


def output(*command, **options):
    return subprocess.run(command, check=True, capture_output=True, text=True, **options).stdout


def pages_written(library):
    pages = {}
    for line in output("nm", library).splitlines():
        value, _, name = line.rpartition(" ")
        if name in WRITTEN and value[-1] in "bBdD":
            pages[name] = int(value.split()[0], 16) // PAGE
    if sorted(pages) != sorted(WRITTEN):
        sys.exit(f"nm shows {pages}")
    return pages


def mappings(library):
    """Modes of the parts of the library in a process that has attached."""
    script = "import os, sys; os.listdir(sys.argv[1]); print(open('/proc/self/maps').read())"
    maps = output(sys.executable, "-c", script, "/srv/spool/input", env={
        "LD_PRELOAD": library, "FASTSPOOL_SPOOL": "/srv/spool", "FASTSPOOL_MEMORY": "16M", "FASTSPOOL_VIEW": "off"})
    if "/fastspool." not in maps:
        sys.exit("the process has not attached: nothing is seen")
    size = max(int(at, 16) + int(length, 16) for at, length in
               re.findall(r"^ +LOAD +\S+ +(\S+) +\S+ +\S+ +(\S+)", output("readelf", "-lW", library), re.M))
    areas = [(int(low, 16), mode, name) for low, mode, name in re.findall(r"^([0-9a-f]+)-\S+ (\S+) \S+ \S+ \S+ *(.*)$", maps, re.M)]
    base = min(low for low, _, name in areas if name == library)
    return [mode for low, mode, _ in areas if base <= low < base + size]


def main():
    library = os.path.realpath(sys.argv[1])
    subprocess.run(["mkdir", "-p", "/srv/spool/input"], check=True)
    subprocess.run(["chown", "-R", "Debian-exim:", "/srv/spool"], check=True)
    pages, parts = pages_written(library), mappings(library)
    if len(set(pages.values())) > 1:
        print(f"these lie in more than one page: {pages}")
    if len(parts) > MAPPINGS:
        print(f"the library has {len(parts)} mappings: {parts}")
    sys.exit(1 if len(set(pages.values())) > 1 or len(parts) > MAPPINGS else 0)


main()
