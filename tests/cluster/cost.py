#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""What a message costs each host of examples/cluster, for the sizing in docs/cluster.md:

    examples/cluster/up && tests/cluster/cost.py [--messages N] [--connections N] [--strangers]

N messages go through the main servers, half to the mailboxes, half to the customer's server, from a partner's address
(clamd alone) or a stranger's (spamd, too).  Per message it prints each host's CPU time, and for the hosts with a volume
what was written to it, in how many writes and flushes.  Nothing else may use the cluster meanwhile.
"""
import argparse
import json
import pathlib
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
EXAMPLE = HERE.parent.parent / "examples/cluster"
HOSTS = ("main1", "main2", "scan", "store", "dns", "retry")

# On a host: hundredths of a second of all its processes, with their dead children; and of its volume the written sectors,
# the writes and the flushes.
COUNTERS = """
cat /proc/[0-9]*/stat 2>/dev/null | sed 's/.*) //' | awk '{ used += $12 + $13 + $14 + $15 } END { print used }'
device=$(mountpoint --fs-devno /var/spool/exim4)
awk '{ print $7, $5, $16 }' /sys/dev/block/$device/stat 2>/dev/null || echo 0 0 0
"""


def on(host, *command, **options):
    return subprocess.run([EXAMPLE / "on", host, *command], check=True, stdout=subprocess.PIPE, **options).stdout.decode()


def counters():
    return {host: list(map(float, on(host, "sh", "-c", COUNTERS).split())) for host in HOSTS}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--messages", type=int, default=1000)
    parser.add_argument("--connections", type=int, default=15)
    parser.add_argument("--strangers", action="store_true")
    arguments = parser.parse_args()
    before = counters()
    began = time.monotonic()
    script = (HERE / "load.py").read_text()
    if arguments.strangers:
        script = script.replace("STRANGERS = 16", "STRANGERS = 1")
    answer = json.loads(on("sender", "python3", "-", str(arguments.messages), str(arguments.connections), "900", "boxes.test,far.test",
                           input=script.encode()))
    taken = time.monotonic() - began
    if len(answer["acknowledged"]) != arguments.messages:
        sys.exit(f"only {len(answer['acknowledged'])} were taken: {answer['refused']}")
    while any(int(on(host, "exim4", "-bpc")) for host in ("main1", "main2", "retry")):
        time.sleep(0.5)
    after = counters()
    print(f"{arguments.messages} messages, {arguments.connections} connections, {arguments.messages / taken:.0f} messages/s taken")
    print(f"{'a message costs':16} {'CPU ms':>8} {'KB written':>11} {'writes':>8} {'flushes':>8}")
    for host in HOSTS:
        used, sectors, writes, flushes = (now - then for now, then in zip(after[host], before[host]))
        mine = sum(server == {"main1": "10.77.0.11", "main2": "10.77.0.12"}.get(host, server)
                   for server, *_ in answer["acknowledged"].values())
        print(f"{host:16} {used * 10 / mine:8.1f} {sectors / 2 / mine:11.1f} {writes / mine:8.2f} {flushes / mine:8.2f}")


main()
