#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The real Exim and each subcommand, by root, while the mail user changes words of the segment.

    tests/system/namespace.sh --build BUILD tests/fuzz/exim.py BUILD/tests/fuzz/corrupt [SEED [COUNT]]

Each command ends by itself or by SIGTERM, and by no other signal.  What it answers does not matter.  COUNT: rounds, each
with a store of its own.  The last line counts."""
import os
import pathlib
import signal
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "system"))
from harness import EXIM, QUEUE_ONLY, TOOL, Exim, Message, kill_all, prepare_host  # noqa: E402

CORRUPT = os.path.abspath(sys.argv[1])
SEED = int(sys.argv[2]) if len(sys.argv) > 2 else int(time.time()) // 86400
COUNT = int(sys.argv[3]) if len(sys.argv) > 3 else 1
WORK, PATIENCE = 5, 10  # seconds, before and after SIGTERM


def commands(exim, message):
    names = ("status", "ls", "verify", "flush", "dump segment", "dump journal", "dump database")
    yield from ([TOOL, *name.split()] for name in names)
    for arguments in (["-bp"], ["-bpc"], ["-q"], ["-qff"], ["-M", message], ["-Mvh", message], ["-Mvb", message], ["-Mf", message],
                      ["-Mrm", message], ["-oi", "user@sink.test"]):
        yield [EXIM, *arguments]
    spool = str(exim.spool)
    yield [TOOL, "run", "--", "find", spool + "/input", "-ls"]
    yield [TOOL, "run", "--", "chown", "-R", "Debian-exim", spool + "/input"]
    yield [TOOL, "run", "--", "cp", "-a", spool + "/input", "/srv/copy"]


def run(exim, command, findings):
    process = subprocess.Popen(command, env=exim.environment(), stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL)
    try:
        process.communicate(b"Subject: x\n\nbody\n", timeout=WORK)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGTERM)
        try:
            process.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            findings.append(f"SIGTERM does not end {' '.join(command)}")
            return
    if process.returncode < 0 and process.returncode != -signal.SIGTERM:
        findings.append(f"{' '.join(command)} died of signal {-process.returncode}")


def one(seed, findings):
    work = pathlib.Path(f"/srv/fuzz-{seed}")
    work.mkdir()
    exim = Exim(work, stock=False, main=QUEUE_ONLY)
    for _ in range(6):
        exim.submit(Message())
    message = exim.command("-bp").stdout.decode().split()[2]
    sentinel = pathlib.Path("/etc/x")
    sentinel.write_text("root's")
    before = sentinel.stat()
    segment = pathlib.Path((exim.spool / ".fastspool/runtime").read_text().split("\n")[0]) / "segment"
    count = 0
    for i, command in enumerate(commands(exim, message)):
        attacker = subprocess.Popen([CORRUPT, segment, str(seed * 100 + i), str(WORK)])
        for _ in range(3):
            run(exim, command, findings)
            count += 1
        attacker.kill()
        attacker.wait()
    after = sentinel.stat()
    if (after.st_uid, after.st_mode, after.st_ctime_ns) != (before.st_uid, before.st_mode, before.st_ctime_ns):
        findings.append("a file outside of the spool has changed")
    kill_all()
    exim.sink.stop()
    return count


def main():
    findings, count = [], 0
    prepare_host()
    print(f"exim: from seed {SEED} on", flush=True)
    for seed in range(SEED, SEED + COUNT):
        known = len(findings)
        count += one(seed, findings)
        for finding in findings[known:]:
            print(f"exim: seed {seed}: {finding}", flush=True)
    print(f"exim: {count} commands, {len(findings)} findings")
    return bool(findings)


sys.exit(main())
