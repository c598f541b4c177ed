#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""What fails under the mirror: it is killed at its n-th system call, its n-th write or sync fails.

strace starts the mirror and does the injecting.  Whatever happens, no client hangs, nothing that was answered with 250
is lost when the memory goes afterwards, and mail is taken again by itself.
"""
import subprocess
import time

from harness import TOOL, Client, Failure, Message, check, kill_all, main, test, wait_for

QUEUE_ONLY = ("queue_only = true",)
CALLS = "pwrite64,writev,fdatasync,fsync,openat,ftruncate,fallocate,rename,mkdir,unlinkat"


def send(exim, seconds=30):
    """One message: its code; what was accepted is expected in the queue."""
    message = Message("user@sink.test", size=3000)
    start = time.monotonic()
    try:
        client = Client(timeout=seconds)
        code, _ = client.send(message)
        client.close()
    except (OSError, ValueError) as error:
        raise Failure(f"no answer within {seconds} s: {error}") from error
    if code == 250:
        exim.expect(message, "sink")
    return code, time.monotonic() - start


def inject(exim, *expressions):
    """End the mirror, and start one that meets EXPRESSIONS."""
    exim.tool("stop")
    options = [part for expression in expressions for part in ("-e", f"inject={expression}")]
    tracer = subprocess.Popen(["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={CALLS}", *options, TOOL, "mirror",
                             "--journal", "524288", str(exim.spool)], stdin=subprocess.DEVNULL)
    lock = exim.spool / ".fastspool" / "mirror.lock"
    wait_for(lambda: tracer.poll() is not None or subprocess.run(["flock", "-n", lock, "true"]).returncode, "the mirror")
    return tracer


def all_there(exim):
    """The memory goes; the queue is what was accepted."""
    kill_all()
    exim.reboot()
    queued = len(exim.queue())
    check(queued == len(exim.expected), f"{len(exim.expected)} were answered with 250, {queued} are in the queue")


@test(library=True, main=QUEUE_ONLY)
def mirror_killed_at_each_call(exim):
    """Killed at its n-th system call, the mirror is replaced, and finishes what was owed."""
    exim.start()
    send(exim)
    slowest = 0.0
    for number in range(1, 31):
        tracer = inject(exim, f"{CALLS}:signal=KILL:when={number}")
        for _ in range(3):
            code, seconds = send(exim)
            check(code == 250, f"killed at call {number}: answered {code}")
            slowest = max(slowest, seconds)
        tracer.kill()
        tracer.wait()
    print(f"  30 kill points, {len(exim.expected)} messages, the slowest took {slowest:.2f} s")
    all_there(exim)
    exim.start()
    exim.deliver_queue()


def call_fails(exim, error):
    """The n-th write or fdatasync of the mirror fails: 451 or 250, as is true; then mail goes on by itself."""
    exim.start()
    send(exim)
    refused = 0
    for call in ("pwrite64", "fdatasync"):
        for number in range(1, 7):
            tracer = inject(exim, f"{call}:error={error}:when={number}")
            codes = [send(exim)[0] for _ in range(3)]
            check(set(codes) <= {250, 451}, f"{call} {number}: {codes}")
            refused += codes.count(451)
            wait_for(lambda: send(exim)[0] == 250, f"{call} {number}: mail again", seconds=10)
            tracer.kill()
            tracer.wait()
    print(f"  12 faults, {len(exim.expected)} messages accepted, {refused} answered with 451")
    check(refused > 0, "no fault was ever met")
    all_there(exim)
    exim.start()
    exim.deliver_queue()


@test(library=True, main=QUEUE_ONLY)
def disk_fails(exim):
    """EIO."""
    call_fails(exim, "EIO")


@test(library=True, main=QUEUE_ONLY)
def disk_full(exim):
    """ENOSPC."""
    call_fails(exim, "ENOSPC")


if __name__ == "__main__":
    main("faults")
