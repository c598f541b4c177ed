#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""verify and dump, the real command, on a spool with real mail: beside traffic, after a stop, after a reboot, damaged."""
import hashlib
import json
import os
import pathlib
import re
import shutil
import subprocess
import threading
import time

from harness import QUEUE_ONLY, TOOL, Client, Message, check, kill, kill_all, main, stores, test, text


def accept(exim, count, **options):
    client = Client()
    for _ in range(count):
        code, reply = client.send(exim.expect(Message(**options), "sink"))
        check(code == 250, reply)
    client.close()


def verify(exim, status=0, *arguments, user=None):
    """The output of verify, which must end with STATUS."""
    result = exim.command("verify", *arguments, program=TOOL, stock=True, user=user)
    output = (result.stdout + result.stderr).decode()
    check(result.returncode == status, f"verify: exit {result.returncode}, not {status}: {output[:2000]}")
    return output


def state(exim):
    """What lies below the state directory: names, sizes, content."""
    root = exim.spool / ".fastspool"
    return {str(path.relative_to(root)): (path.stat().st_mtime_ns, hashlib.md5(path.read_bytes()).hexdigest())
            for path in sorted(root.rglob("*")) if path.is_file()}


@test(main=QUEUE_ONLY, library=True)
def well(exim):
    """All is well beside a mirror, as root and as the owner, after a stop, after a reboot; and verify changes nothing."""
    exim.start()
    accept(exim, 20)
    for user in (None, "Debian-exim"):
        output = verify(exim, user=user)
        check("all is well" in output.splitlines()[0], output)
    exim.tool("flush")
    numbers = json.loads(verify(exim, 0, "--json"))
    check(numbers["well"] and numbers["wrong"] == 0 and numbers["journal_records"] > 40, numbers)
    exim.tool("stop")
    before = state(exim)
    numbers = json.loads(verify(exim, 0, "--json"))
    check(numbers["database_inodes"] > 40 and numbers["memory"] == "checked", numbers)
    exim.stop()
    exim.reboot()
    numbers = json.loads(verify(exim, 0, "--json"))
    check(numbers["database_inodes"] > 40 and numbers["memory"] == "none", numbers)
    check(state(exim) == before, "verify has changed the state directory")
    exim.start()
    exim.deliver_queue()


@test(main=QUEUE_ONLY, library=True, memory="20M")
def beside_traffic(exim):
    """Under mail, with evictions, and with the mirror killed now and then, verify finds nothing wrong."""
    exim.start()
    ended = threading.Event()
    failures = []

    def send():
        try:
            while not ended.is_set():
                accept(exim, 5, size=60000)
        except Exception as failure:                    # the main thread says it
            failures.append(failure)
    threads = [threading.Thread(target=send) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        began, turn, numbers = time.monotonic(), 0, {"evicted_files": 0}
        while time.monotonic() < began + (10 if numbers["evicted_files"] else 300):
            turn += 1
            numbers = json.loads(verify(exim, 0, "--json"))
            mirror = exim.status()["mirror_pid"] if turn % 10 == 9 else 0
            if mirror > 0:                              # 0: none runs, and kill(0) would be the test's own end
                kill(mirror)
    finally:
        ended.set()
        for thread in threads:
            thread.join()
    check(not failures, f"{failures[:1]}")
    check(numbers["evicted_files"] > 0, f"nothing was evicted: {numbers}")
    print(f"  {turn} verifications beside traffic", flush=True)
    exim.deliver_queue()


@test(main=QUEUE_ONLY, library=True)
def dumps(exim):
    """dump shows names and records; what the mails say only with --bodies; and no control character of a name."""
    exim.start()
    secret = "a sentence of the body"
    code, reply = Client().send(exim.expect(Message(body=secret.encode() + b"\n" + text(500)), "sink"))
    check(code == 250, reply)
    exim.run("-c", f"printf x >'{exim.spool}/input/'$(printf 'e\\033[31mvil')", program="/bin/sh")
    exim.tool("flush")
    name = exim.queue()[0]
    for part in ("segment", "journal"):
        brief, full = exim.tool("dump", part), exim.tool("dump", part, "--bodies")
        check(f"{name}-D" in brief and secret not in brief, f"dump {part}: {brief[:3000]}")
        check(secret in full, f"dump {part} --bodies: {full[:3000]}")
        check(r"e\x1b[31mvil" in brief and "\x1b" not in full, f"dump {part}: {brief[:3000]}")
    check(re.search(r"section +open_body", exim.tool("dump", "segment")), "the segment's history is missing")
    exim.tool("stop")
    brief, full = exim.tool("dump", "database"), exim.tool("dump", "database", "--bodies")
    check(f"{name}-D" in brief and secret not in brief and secret in full and "\x1b" not in full, brief[:3000])
    check(exim.command("dump", "database", "--nonsense", program=TOOL, stock=True).returncode == 64, "dump --nonsense")
    check(exim.command("dump", program=TOOL, stock=True).returncode == 64, "dump of nothing")
    check(exim.command("verify", "more", program=TOOL, stock=True).returncode == 64, "verify more")
    exim.run("-c", f"rm '{exim.spool}/input/'e*", program="/bin/sh")
    exim.deliver_queue()


@test(library=True)
def output(exim):
    """JSON of a path that is no UTF-8 is JSON, an escape sequence that another user wrote reaches no terminal, and an
    output that can't be written is an error."""
    spool = os.fsdecode(b"/srv/q\xff\xc0\xaf")

    def tool(*arguments, **options):
        return subprocess.run([TOOL, *arguments, "--spool", spool], timeout=60, **options)
    os.mkdir(spool)
    try:
        result = subprocess.run([TOOL, "run", "--spool", spool, "--", "sh", "-c", 'mkdir "$0/input" && echo >"$0/input/file"', spool],
                                capture_output=True)
        check(result.returncode == 0, result.stderr)
        for command in ("verify", "status"):
            shown = json.loads(tool(command, "--json", capture_output=True).stdout.decode())
            check(shown["spool"] == "/srv/q\ufffd\ufffd\ufffd", f"{command}: {shown}")
        for command in (["verify"], ["verify", "--json"], ["dump", "journal"], ["dump", "database"], ["status"], ["status", "--json"],
                        ["status", "--prometheus"], ["ls"], ["cat", "input/file"], ["status", "--help"]):
            with open("/dev/full", "wb") as full:
                result = tool(*command, stdout=full, stderr=subprocess.PIPE)
            check(result.returncode == os.EX_IOERR and result.stderr.count(b"No space left") == 1, f"{command}: {result}")
            result = tool(*command, stderr=subprocess.PIPE, preexec_fn=lambda: os.close(1))
            check(result.returncode == 0 and not result.stderr, f"{command}, closed output: {result}")
        tool("stop")
        (pathlib.Path(spool) / ".fastspool" / "runtime").write_text("/etc/passwd/\x1b[31mX")
        for command, code in (["verify"], 1), (["status"], 2), (["dump", "segment"], 1):
            result = tool(*command, capture_output=True)
            check(result.returncode == code and b"\x1b" not in result.stdout + result.stderr, f"{command}: {result}")
    finally:
        kill_all()
        shutil.rmtree(spool)


def flip(path, offset):
    with open(path, "r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 8]))


@test(main=QUEUE_ONLY, library=True)
def damaged(exim):
    """A flipped bit of the segment, of the journal, of the database is found, and the history is told with it."""
    exim.start()
    accept(exim, 5)
    exim.tool("flush")
    exim.stop()
    kill_all()
    journal = exim.spool / ".fastspool" / "journal" / "0000"
    flip(journal, 4096 + 100)
    output = verify(exim, 1)
    check("journal: file 0000, byte 4096: the checksum" in output, output)
    check("history" in output and "memory: " not in output, output)
    flip(journal, 4096 + 100)
    segment = pathlib.Path(stores()[0]) / "segment"
    inodes = 106_954_752                                 # docs/on-disk-format.md
    flip(segment, inodes + 3 * 128 + 48)                # inode.links of inode 3
    output = verify(exim, 1)
    check(re.search(r"memory: inode 3 counts \d+ links", output), output)
    flip(segment, inodes + 3 * 128 + 48)
    verify(exim)
    exim.start()
    exim.stop()
    exim.tool("stop")
    database = exim.spool / ".fastspool" / "mirror" / "data.mdb"
    well = database.read_bytes()
    os.truncate(database, 4 * 4096)
    output = verify(exim, 1)
    check("database: " in output, output)
    database.write_bytes(well)
    verify(exim)
    exim.start()
    exim.deliver_queue()


if __name__ == "__main__":
    main("verify")
