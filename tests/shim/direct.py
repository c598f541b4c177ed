#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The store inside the preloaded library calls libc itself, never a function that the library puts in front of libc's.  So does
what decides whom the library serves: it looks at no descriptor of the program's.

    direct.py LIBRARY ARCHIVE [FILE...]

Exit status 0: no object of ARCHIVE, and of these source files, if any are given, leaves a name undefined that LIBRARY exports.
"""
import pathlib
import subprocess
import sys


def main():
    library, archive, files = sys.argv[1], sys.argv[2], [pathlib.Path(name).name for name in sys.argv[3:]]
    output = subprocess.run(["nm", "-D", "--defined-only", library], check=True, capture_output=True, text=True).stdout
    wrappers = {name for name in (line.split()[-1] for line in output.splitlines()) if not name.startswith("fastspool_")}
    output = subprocess.run(["nm", "--undefined-only", archive], check=True, capture_output=True, text=True).stdout
    if len(wrappers) < 100 or "real" not in output.split():
        sys.exit(f"{len(wrappers)} wrappers, and the archive does not use real: nm shows nothing")
    found, member = [], ""
    for line in output.splitlines():
        if line.endswith(":"):
            member = line
        elif line.split() and line.split()[-1] in wrappers and (not files or any(f"{name}.o" in member for name in files)):
            found.append(f"{member} {line.split()[-1]}")
    for line in found:
        print(f"calls a wrapper of the library: {line}")
    if not all(f"{name}.o" in output for name in files):
        sys.exit("a file is not in the archive")
    sys.exit(1 if found else 0)


main()
