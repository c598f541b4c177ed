#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Run the program `later` with the library and the view, and count what a delivery asks of the view's server:

    tests/system/namespace.sh --build build tests/shim/later.py build/tests/shim/later
"""
import os
import pathlib
import re
import shutil
import struct
import subprocess
import sys
import time

SPOOL = pathlib.Path("/srv/later")
TRACE = pathlib.Path("/srv/trace")
CONNECTIONS = pathlib.Path("/srv/connections")
KINDS = {1: "LOOKUP", 3: "GETATTR", 14: "OPEN", 15: "READ", 18: "RELEASE", 25: "FLUSH", 27: "OPENDIR", 29: "RELEASEDIR",
         35: "CREATE"}      # of a request: the second word that the server reads
OTHERS = 2, 17, 42          # FORGET, of what was before; STATFS, by which the view's hand looks whether the server lives
# The directory of all three, the one that is used, two reads of it, and the ends of both.
WANTED = ["GETATTR", "LOOKUP", "OPENDIR", "LOOKUP", "CREATE", "GETATTR", "READ", "READ", "FLUSH", "RELEASE", "RELEASEDIR"]


def server():
    """The process that answers the kernel."""
    for process in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            threads = list((process / "task").iterdir())
            if len(threads) > 1 and any(os.readlink(fd) == "/dev/fuse" for fd in (process / "fd").iterdir()):
                return process.name
        except OSError:
            continue
    return None


def run(*arguments):
    status = subprocess.run([sys.argv[1], SPOOL, *arguments], env=dict(os.environ, FASTSPOOL_VIEW="auto", LD_PRELOAD="libfastspool.so"), check=False).returncode
    if status:
        print("no view can be mounted here" if status == 77 else f"status {status}")
        sys.exit(status)


def use(connection):
    run("used")
    while int((connection / "waiting").read_text()):    # nobody waits for the last requests
        time.sleep(0.01)


def main():
    SPOOL.mkdir()
    CONNECTIONS.mkdir()
    subprocess.run(["mount", "-t", "fusectl", "none", CONNECTIONS], check=True)
    shutil.chown(SPOOL, "Debian-exim", "Debian-exim")
    pathlib.Path("/etc/fastspool.conf").write_text(f"spool = {SPOOL}\nmemory = 64M\nview = auto\nprogram = {os.path.realpath(sys.argv[1])}\n")
    run()
    connection = CONNECTIONS / str(os.minor(os.stat(SPOOL / "input").st_dev))
    strace = subprocess.Popen(["strace", "-f", "-P", "/dev/fuse", "-e", "trace=read", "-xx", "-s8", "-o", TRACE, "-p", server()],
                              stderr=subprocess.PIPE)
    strace.stderr.readline()    # attached
    use(connection)             # until each thread is seen
    before = len(TRACE.read_text())
    use(connection)
    strace.terminate()
    strace.communicate()
    kinds = [struct.unpack_from("I", bytes.fromhex(word.replace("\\x", "")), 4)[0] for word in re.findall(r'"((?:\\x..){8})"', TRACE.read_text()[before:])]
    found = [KINDS.get(kind, str(kind)) for kind in kinds if kind not in OTHERS]
    if sorted(found) != sorted(WANTED):
        sys.exit(f"the view was asked for {' '.join(found)}\ninstead of {' '.join(WANTED)}")


main()
