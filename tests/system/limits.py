#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Small limits: where Exim starts, the library starts, too, with the same result."""
import pathlib
import re
from resource import RLIMIT_AS, RLIMIT_CPU, RLIMIT_DATA, RLIMIT_FSIZE, RLIMIT_MEMLOCK, RLIMIT_NOFILE, RLIMIT_STACK, RLIM_INFINITY

from harness import Client, Message, check, main, test

QUEUE_ONLY = ("queue_only = true",)
MAY_LIFT = 24                           # CAP_SYS_RESOURCE


def capable(capability):
    status = pathlib.Path("/proc/self/status").read_text()
    return int(re.search(r"^CapEff:\s*(\S+)", status, re.M).group(1), 16) >> capability & 1


def takes_mail(exim, count=2):
    """The daemon takes messages by SMTP, the queue is listed, and a queue run delivers it."""
    client = Client()
    for _ in range(count):
        message = exim.expect(Message("user@maildir.test"), "maildir")
        code, text = client.send(message)
        check(code == 250, f"the message was refused: {text}")
    client.close()
    check(len(exim.queue()) == count, f"the queue has {len(exim.queue())} messages")
    exim.deliver_queue()


# --- limits of the daemon ---------------------------------------------------------------------------------------------


@test(("_soft", {}), ("_hard", {}), main=QUEUE_ONLY, memory="16G")
def address_space(exim):
    """256 MiB of address space are enough, whatever `memory` is: under a limit that can be shed, and under one that can't."""
    hard = 256 << 20 if exim.work.name.endswith("_hard") else RLIM_INFINITY
    exim.start(limits=[(RLIMIT_AS, (256 << 20, hard))])
    takes_mail(exim)


@test(main=QUEUE_ONLY)
def file_size(exim):
    """Files of 100 KiB are enough: what the library makes is no file of the daemon's."""
    exim.start(limits=[(RLIMIT_FSIZE, (100 << 10, RLIM_INFINITY))])
    takes_mail(exim)


@test(main=QUEUE_ONLY)
def file_size_for_good(exim):
    """A limit that root may not lift (no CAP_SYS_RESOURCE): no signal ends the daemon, one line says why it can't make the
    store, and when another process has made it, the daemon takes mail."""
    exim.start(limits=[(RLIMIT_FSIZE, (100 << 10, 100 << 10))])
    if not exim.stock and not capable(MAY_LIFT):
        for _ in range(2):
            client = Client()
            client.socket.sendall(b"MAIL FROM:<a@b.test>\r\n")
            check(client.reply()[0] in (421, 451), "without a store a message is taken")
        check(exim.daemon.poll() is None, "the daemon is dead")
        check("RLIMIT_FSIZE" in exim.said(), f"nothing says why: {exim.said()}")
        exim.panic = "Input/output error|File too large"
        exim.run("-bpc")
    takes_mail(exim)


@test(("_files", {}), ("_data", {}), ("_stack", {}), ("_memory", {}), ("_time", {}), main=QUEUE_ONLY)
def small(exim):
    """Each other limit, as small as Exim bears it."""
    limit, value = {"files": (RLIMIT_NOFILE, 24), "data": (RLIMIT_DATA, 16 << 20), "stack": (RLIMIT_STACK, 2 << 20),
                    "memory": (RLIMIT_MEMLOCK, 0), "time": (RLIMIT_CPU, 5)}[exim.work.name.rpartition("_")[2]]
    exim.start(limits=[(limit, (value, value))])
    takes_mail(exim)


if __name__ == "__main__":
    main("limits")
