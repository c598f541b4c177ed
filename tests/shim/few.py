#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""What the library adds to a program's system calls, where each call was weighed, is what is said here, call by call:

    tests/system/namespace.sh --build build tests/shim/few.py build/tests/shim/few
"""
import os
import pathlib
import pwd
import re
import shutil
import subprocess
import sys

SPOOL = pathlib.Path("/srv/few")
TRACE = "/srv/trace"
# By the steps of few.c, the program's own calls included.
WANTED = {
    # The ends of a pipe, or of a pair of sockets, are not asked what they are.
    "pipe": "pipe2 close close",
    "socketpair": "socketpair close close",
    # Who goes down from the root name by name, through no link, has told where he is.
    "name by name": "openat openat close faccessat2 close",
    # A number that is asked for its attributes shows by the same call what it is.
    "inherited": "newfstatat newfstatat",
    "not open": "newfstatat",
    # The ids are those that the program has set, and a file's owner needs no capability.
    "owner": "setresgid setresuid fcntl close",
    # Root does: they are asked for once.
    "root": "setresuid setresgid capget fcntl close fcntl close",
    # Who becomes the spool's owner for good needs no look at who he was.
    "for good": "setuid exit_group",
    # A copy of the file, the pool's descriptor of it, four parts of the segment, and the store's descriptors at once.
    "leaving": "getresuid fcntl memfd_create ftruncate openat close lseek dup3 close close munmap munmap munmap munmap close_range"
               " munmap setuid exit_group",
}
# Nowhere: lists of trusted users, where there are none; what another program would have loaded, where none is executed.
UNWANTED = ("fgetxattr(", '"/etc/ld.so.preload", O_RDONLY')


def main():
    SPOOL.mkdir()
    shutil.chown(SPOOL, "Debian-exim", "Debian-exim")
    owner = pwd.getpwnam("Debian-exim").pw_uid
    environment = dict(os.environ, FASTSPOOL_SPOOL=str(SPOOL), FASTSPOOL_MEMORY="64M", FASTSPOOL_VIEW="off")
    subprocess.run(["mkdir", SPOOL / "input"], env=dict(environment, LD_PRELOAD="libfastspool.so"), check=True)
    subprocess.run(["strace", "-f", "-qq", "-o", TRACE, "-E", "LD_PRELOAD=libfastspool.so", sys.argv[1], SPOOL, str(owner)], env=environment,
                   check=True)
    found, step = {}, {}    # of each process
    trace = pathlib.Path(TRACE).read_text(errors="replace")
    for line in trace.splitlines():
        call = re.match(r"(\d+) +(\w+)\(", line)
        named = re.search(r'"/step/([^"]*)"', line)
        if named:
            step[call[1]] = named[1]
        elif call:
            found.setdefault(step.get(call[1]), []).append(call[2])
    wrong = [f"{name}: {' '.join(found.get(name, ['nothing']))}\n   instead of {calls}" for name, calls in WANTED.items()
             if found.get(name, []) != calls.split()]
    wrong += [f"there is {call}" for call in UNWANTED if call in trace]
    # What the library writes only while it is loaded is one sealed page.
    if "mprotect(" in trace[trace.index("/etc/fastspool.conf"):]:
        wrong.append("who decides or attaches makes pages read-only")
    wrong += read_of_registry()
    if wrong:
        sys.exit("\n".join(wrong))


def read_of_registry():
    """Exim reads what root has registered of other spools, and not of one that is configured.  Who decides holds signals off without
    a call."""
    other = pathlib.Path("/srv/other")
    other.mkdir()
    found = []
    for spool in (SPOOL, other):
        shutil.chown(spool, "Debian-exim", "Debian-exim")
        subprocess.run(["fastspool", "run", "--spool", spool, "--", "true"], env=dict(os.environ, FASTSPOOL_MEMORY="64M"), check=True)
        pathlib.Path("/etc/fastspool.conf").write_text(f"spool = {SPOOL}\nview = off\n")
        subprocess.run(["strace", "-qq", "-o", TRACE, "-E", "LD_PRELOAD=libfastspool.so", "/usr/sbin/exim4", "-bV"], check=True,
                       stdout=subprocess.DEVNULL)
        trace = pathlib.Path(TRACE).read_text(errors="replace")
        found.append(re.findall(r'openat\(AT_FDCWD, "(/run/fastspool/[0-9a-f]{16})"', trace))
    if "rt_sigprocmask(SIG_SETMASK, ~[" in trace:
        return ["who decides holds signals off by a system call"]
    return [] if not found[0] and len(found[1]) == 1 else [f"of the registry Exim reads {found[0]}, and with another spool {found[1]}"]


main()
