#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Small limits: where Exim starts, the library starts, too.

Each test runs the daemon under one limit.  With the library and without it the result is the same, and what the daemon
has started doesn't keep its limits.
"""
from resource import RLIMIT_AS

from harness import Client, Message, check, main, test

QUEUE_ONLY = ("queue_only = true",)


def takes_mail(exim, **sizes):
    """The daemon takes two messages by SMTP, which stay in the queue; and lists them."""
    client = Client()
    for _ in range(2):
        message = exim.expect(Message("user@maildir.test", **sizes), "maildir")
        check(client.send(message)[0] == 250, "the message was refused")
    client.close()


@test(("_soft", {}), ("_hard", {}), main=QUEUE_ONLY, memory="16G")
def address_space(exim):
    """256 MiB of address space are enough, whatever `memory` is: under a limit that can be shed, and under one that can't."""
    hard = 256 << 20 if exim.work.name.endswith("_hard") else -1
    exim.start(limits=[(RLIMIT_AS, (256 << 20, hard))])
    takes_mail(exim)
    check(len(exim.queue()) == 2, "the queue isn't listed")
    exim.deliver_queue()


if __name__ == "__main__":
    main("limits")
