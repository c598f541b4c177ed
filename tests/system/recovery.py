#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Recovery: after kill -9 of everything, a reboot, a delivery killed half way, a mirror killed at work."""
import os
import pathlib
import pty
import pwd
import re
import struct
import subprocess

from harness import (EXIM, ID, QUEUED_LAYOUTS, QUEUE_ONLY, TOOL, Client, Message, by_message, check, kill, kill_all,
                     main, processes, stores, suspend, test, wait_for)


def accept(exim, count, recipient="user@sink.test", place="sink"):
    """Send COUNT messages over one connection; each must get 250.  Returns the messages."""
    client = Client()
    messages = [exim.expect(Message(recipient), place) for _ in range(count)]
    for message in messages:
        code, reply = client.send(message)
        check(code == 250, reply)
    client.close()
    return messages


@test(*QUEUED_LAYOUTS)
def killed(exim):
    """After kill -9 of every process, without a flush, the queue is as it was, and a new Exim delivers it."""
    exim.start()
    accept(exim, 10)
    before = exim.queue()
    kill_all()
    exim.daemon = None
    check(exim.queue() == before, f"the queue was {before}, is {exim.queue()}")
    exim.start()
    accept(exim, 2)
    exim.deliver_queue()


@test(*QUEUED_LAYOUTS, library=True)
def rebooted(exim):
    """After a reboot the flushed queue is rebuilt from the disk, byte for byte, with frozen messages and named queues.  A
    second reboot right after it changes nothing."""
    exim.start()
    accept(exim, 10)
    large = exim.expect(Message(size=3 << 20), "sink")
    exim.submit(large)
    names = exim.queue()
    exim.run("-MG", "slow", names[0])
    exim.run("-Mf", names[1])
    exim.run("-Mrm", names[2])
    gone = [message for _, message in exim.expected if message.token.encode() not in b"".join(
        exim.run("-Mvh", name) for name in names if name != names[2] and name != names[0]) + exim.run(
            "-qGslow", "-Mvh", names[0])]
    exim.expected = [(place, message) for place, message in exim.expected if message not in gone]
    check(len(exim.expected) == 10, f"{len(gone)} messages are gone, one was removed")
    exim.tool("flush")
    listing = exim.listing(), exim.listing("-qGslow")
    for _ in range(2):
        exim.reboot()
        check((exim.listing(), exim.listing("-qGslow")) == listing, "the queue has changed after a reboot")
    exim.start()
    accept(exim, 2)
    exim.run("-qffGslow")
    exim.deliver_queue()


@test(main=QUEUE_ONLY, library=True)
def window(exim):
    """The mirror writes everything without a flush command, and a reboot then loses nothing."""
    exim.start()
    accept(exim, 5)

    def flushed():
        status = exim.status()
        return status["dirty_bytes"] == 0 and status["unflushed_ms"] == 0
    wait_for(flushed, "the mirror has written everything by itself")
    exim.reboot()
    check(len(exim.queue()) == 5, f"the queue holds {len(exim.queue())} of 5 messages")
    exim.deliver_queue()


SLOW_TOOL = """#!/bin/sh
[ "$1" = mirror ] || exec {tool}.real "$@"
sleep 1.5
LD_PRELOAD={work}/syslog.so exec {tool}.real "$@"
"""
SYSLOG = """
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
void syslog(int priority, const char *format, ...)
{{
    va_list list;
    (void)priority;
    va_start(list, format);
    vdprintf(open("{work}/syslog", O_WRONLY | O_APPEND), format, list);
    dprintf(open("{work}/syslog", O_WRONLY | O_APPEND), "\\n");
}}
void __syslog_chk(int priority, int flag, const char *format, ...) /* of a hardened build */
{{
    char text[1024];
    va_list list;
    va_start(list, format);
    vsnprintf(text, sizeof(text), format, list);
    syslog(priority, "%s", text);
}}
"""


@test(main=QUEUE_ONLY, library=True)
def reported(exim):
    """A recovery reports its work in one syslog line.  A program that waits for it longer than a second shows a progress bar
    on its terminal."""
    exim.start()
    accept(exim, 4)
    exim.reboot()
    (exim.work / "syslog").touch(mode=0o666)
    os.chmod(exim.work / "syslog", 0o666)
    (exim.work / "syslog.c").write_text(SYSLOG.format(work=exim.work))
    subprocess.run(["cc", "-shared", "-fPIC", "-o", exim.work / "syslog.so", exim.work / "syslog.c"], check=True)
    os.rename(TOOL, TOOL + ".real")
    try:
        pathlib.Path(TOOL).write_text(SLOW_TOOL.format(tool=TOOL, work=exim.work))
        os.chmod(TOOL, 0o755)
        terminal, end = pty.openpty()
        found = subprocess.run([EXIM, "-bp"], env=exim.environment(), cwd="/", stdin=subprocess.DEVNULL,
                               stdout=subprocess.PIPE, stderr=end, timeout=60, check=True).stdout
        os.close(end)
    finally:
        os.rename(TOOL + ".real", TOOL)
    seen = b""
    try:
        while piece := os.read(terminal, 4096):
            seen += piece
    except OSError:                             # the other end of the terminal is closed
        os.close(terminal)
    check(len(ID.findall(found.decode())) == 4, f"the queue is {found!r}")
    bars = re.findall(rb"\rfastspool: recovering (\S+) \[([#.]{40})\]", seen)
    check(len(bars) > 1 and bars[-1] == (str(exim.spool).encode(), b"#" * 40) and seen.endswith(b"\n"),
          f"on the terminal: {seen!r}")
    check(b"." in bars[0][1], f"the bar is full from the start: {bars}")
    # The store is ready before the mirror says so.
    lines = wait_for(lambda: len(lines := (exim.work / "syslog").read_text().splitlines()) == 2 and lines, "syslog has two lines")
    report = re.match(r"\S+: recovered 4 messages in \d+ files?, (\d+) batch(?:es)? of the journal, (\d+) bytes, in \d+\.\d\d s$", lines[0])
    check(report and int(report[1]) > 0 and int(report[2]) > 4 * 2000, f"the report is {lines}")
    start = rf"{exim.spool}: fastspool \d+\.\d+\.\d+: 4 messages, `durability` acked, `memory` {exim.memory[:-1]} MiB in pages of (2 MiB|4 KiB)"
    check(re.fullmatch(start, lines[1]), f"the start is {lines}")
    exim.deliver_queue()


@test(main=QUEUE_ONLY, library=True)
def delivered_stays_delivered(exim):
    """Delivered messages don't come back after a flush and a reboot."""
    exim.start()
    accept(exim, 5)
    exim.deliver_queue()
    exim.tool("flush")
    exim.reboot()
    check(not exim.queue(), f"the queue holds {exim.queue()}")
    exim.run("-qff")


@test(*QUEUED_LAYOUTS)
def journal(exim):
    """A delivery is killed after Exim's journal (-J) has one of two recipients.  The next run replays the journal and
    delivers to the other recipient, and neither gets a second copy."""
    message = exim.expect(Message(["user@mbox.test", "user@sink.test"], body=b"body\n"), "mbox", "sink")
    exim.submit(message)
    name, = exim.queue()
    exim.sink.delay = 3600
    delivery = subprocess.Popen([EXIM, "-M", name], env=exim.environment())
    wait_for(lambda: [place for place, _ in exim.arrived() if place == "mbox"], "the mbox has its copy")
    # Exim writes the journal line after that copy, and connects to the sink after the line.
    wait_for(lambda: exim.sink.waiting, "the sink holds the other copy")
    for pid, program in processes():
        if program.startswith("exim"):
            kill(pid)
    delivery.wait()
    exim.sink.delay = 0
    check(exim.queue() == [name], f"the queue is {exim.queue()}")
    exim.deliver_queue()


@test(main=QUEUE_ONLY, library=True)
def journal_after_reboot(exim):
    """The same with a reboot: Exim's journal is flushed like the other files."""
    message = exim.expect(Message(["user@mbox.test", "user@sink.test"], body=b"body\n"), "mbox", "sink")
    exim.submit(message)
    name, = exim.queue()
    exim.sink.delay = 3600
    delivery = subprocess.Popen([EXIM, "-M", name], env=exim.environment())
    wait_for(lambda: exim.sink.waiting, "the sink holds the other copy")
    exim.tool("flush")
    exim.reboot()
    delivery.wait()
    exim.sink.delay = 0
    check(exim.queue() == [name], f"the queue is {exim.queue()}")
    exim.deliver_queue()


@test(main=QUEUE_ONLY, library=True)
def mirror_killed(exim):
    """While mail comes in the mirror is killed again and again.  Another one starts each time, and a reboot after a flush
    loses nothing."""
    exim.start()
    for _ in range(10):
        accept(exim, 3)
        status = exim.status()
        if status["mirror_pid"]:
            kill(status["mirror_pid"])
    exim.tool("flush")
    exim.reboot()
    check(len(exim.queue()) == 30, f"{len(exim.queue())} of 30 messages are there")
    exim.deliver_queue()


@test(main=QUEUE_ONLY, library=True)
def stopped(exim):
    """`fastspool stop` flushes and ends the mirror.  After a reboot the queue is complete, and mail is accepted."""
    exim.start()
    accept(exim, 3)
    exim.stop()
    exim.tool("stop")
    wait_for(lambda: not [pid for pid, name in processes() if name.startswith("fastspool")], "the mirror has ended")
    exim.reboot()
    exim.start()
    accept(exim, 3)
    check(len(exim.queue()) == 6, f"the queue is {exim.queue()}")
    exim.deliver_queue()


@test(main=QUEUE_ONLY, library=True)
def tools(exim):
    """status, ls, cat and run agree with Exim's own commands."""
    exim.start()
    accept(exim, 4)
    status = exim.status()
    for key in ("spool", "durability", "messages", "files", "memory_bytes", "dirty_bytes", "unflushed_ms", "commit_ms",
                "mirror_pid"):
        check(key in status, f"status has no {key}: {status}")
    check((status["messages"], status["durability"], status["spool"]) == (4, "acked", str(exim.spool)),
          f"status: {status}")
    names = exim.queue()
    listed = exim.tool("ls", "input")
    check(all(f"{name}-D" in listed for name in names), f"ls shows {listed!r}")
    check(exim.tool("cat", f"input/{names[0]}-H").encode() == exim.run("-Mvh", names[0]), "cat differs from -Mvh")
    check(by_message(exim.tool("run", "--", EXIM, "-bp")) == exim.listing(), "run -- exim4 -bp differs from exim4 -bp")
    check(f"{names[0]}-D" in exim.tool("run", "--", "ls", str(exim.spool / "input")), "run -- ls shows a different queue")
    exim.deliver_queue()


@test(main=QUEUE_ONLY, library=True)
def other_programs(exim):
    """`fastspool run` shows the spool to programs that read it directly: exipick, ls and exim_tidydb.  exim_tidydb deletes
    the hints of every message that it doesn't see."""
    exim.sink.refusals = 1
    for _ in range(3):
        exim.submit(exim.expect(Message(), "sink"))
    exim.run("-qff")                                        # each is refused once, which leaves hints
    names = sorted(exim.queue())
    check(len(names) == 3, f"the queue is {names}")
    check(sorted(exim.tool("run", "--", "exipick", "-i").split()) == names, "exipick sees a different queue")
    listed = exim.tool("run", "--", "ls", f"{exim.spool}/input").split()
    check(sorted(listed) == sorted(name + suffix for name in names for suffix in ("-D", "-H")), f"ls shows {listed}")
    said = exim.tool("run", "--", "exim_tidydb", exim.spool, "retry")
    check("deleted" not in said, f"exim_tidydb deleted the hints of queued messages: {said}")
    exim.run("-qff")
    exim.wait_arrived()


def change_layout(exim, version):
    """As if the store in memory were another version's.  Which it was."""
    with open(f"{stores()[0]}/segment", "r+b") as segment:
        segment.seek(8)
        before, = struct.unpack("=I", segment.read(4))
        segment.seek(8)
        segment.write(struct.pack("=I", version))
    return before


@test(library=True, main=QUEUE_ONLY)
def another_layout(exim):
    """A store in memory of another version, with its mirror and its Exim: `stop` ends the mirror, and gives the memory back
    when Exim has ended.  One that was flushed and left needs no stop: the next Exim recovers it from the disk."""
    def mirrors():
        return [pid for pid, name in processes() if "fastspool" in name]
    exim.start()
    accept(exim, 3)
    listed = exim.listing()
    running = len(mirrors())
    change_layout(exim, 99)
    said = exim.command("stop", program=TOOL, stock=True)
    check(said.returncode == 1 and b"layout version 99, and a process uses it still" in said.stderr, f"{said}")
    check(running == 1 and not mirrors() and stores(), "the mirror runs, or the memory of a running Exim is gone")
    exim.stop()
    check("its memory is given back" in exim.tool("stop") and not stores(), "the memory was not given back")
    check(exim.listing() == listed, "the queue is another one")
    exim.start()
    accept(exim, 1)
    listed = exim.listing()
    exim.stop()
    exim.settle()
    exim.tool("flush")
    for pid in mirrors():
        kill(pid)
    wait_for(lambda: not mirrors(), "the mirror has ended")
    change_layout(exim, 98)
    check(exim.listing() == listed, "the queue is another one")
    exim.deliver_queue()


@test(library=True, main=QUEUE_ONLY)
def another_layout_that_was_killed(exim):
    """A store in memory of another version, whose mirror was killed with changes that the disk lacks: no start of this version is
    served, and status, doctor and the refused start say what helps, as `stop` does, which leaves it.  It does help."""
    exim.submit(exim.expect(Message(), "sink"))
    mirror = exim.status()["mirror_pid"]
    suspend(mirror)
    subprocess.run(["python3", "-c", f"import os; open('{exim.spool}/input/left', 'w').close(); os._exit(0)"], env=exim.environment(),
                   check=True)
    kill(mirror)
    wait_for(lambda: not exim.status()["mirror_pid"], "the mirror has ended")
    before = change_layout(exim, 14)
    words = b"layout version 14, has changes that are not on the disk", b"version before"
    for arguments, status in ((["status"], 2), (["doctor", "--start"], 2), (["doctor"], 2), (["stop"], 1)):
        said = exim.command(*arguments, program=TOOL, stock=True)
        check(said.returncode == status and all(word in said.stdout + said.stderr for word in words), f"{arguments}: {said}")
        check(b"stop the mail server, run `fastspool stop`, start again" not in said.stdout + said.stderr, f"{arguments}: {said}")
    said = exim.command("-bpc")
    check(said.returncode != 0 and all(word in said.stderr for word in words) and stores(), f"{said}")
    change_layout(exim, before)
    exim.tool("stop")
    exim.deliver_queue()


@test(library=True, main=QUEUE_ONLY)
def another_user_number(exim):
    """The spool is restored where Exim's user and group have other numbers: its mail is his, is delivered, and more comes."""
    exim.start()
    client = Client()
    for _ in range(3):
        check(client.send(exim.expect(Message(), "sink"))[0] == 250, "refused before")
    client.close()
    exim.stop()
    before = exim.queue()
    exim.tool("stop")
    owner = pwd.getpwnam("Debian-exim")
    for command in (["usermod", "-u", "4242", "Debian-exim"], ["groupmod", "-g", "4343", "Debian-exim"],
                    ["find", "/etc/exim4", "/var/spool/exim4", "/var/log/exim4", exim.work, "-uid", str(owner.pw_uid),
                     "-exec", "chown", "-h", "4242:4343", "{}", "+"]):
        subprocess.run(command, check=True, capture_output=True)
    try:
        said = exim.command("doctor", program=TOOL, stock=True).stdout.decode()
        check(re.search("^ok +queue ", said, re.MULTILINE), f"the queue's directories are another user's: {said}")
        exim.start()
        client = Client()
        check(client.send(exim.expect(Message(), "sink"))[0] == 250, "refused after")
        client.close()
        check(set(before) < set(exim.queue()), "the queue is another one")
        check(" 4242  4343 " in exim.tool("ls", "input"), exim.tool("ls", "input"))
        exim.deliver_queue()
        check("all is well" in exim.tool("verify"), "verify finds something")
    finally:
        exim.stop()
        exim.settle()
        exim.tool("stop")
        for command in (["usermod", "-u", str(owner.pw_uid), "Debian-exim"], ["groupmod", "-g", str(owner.pw_gid), "Debian-exim"],
                        ["find", "/etc/exim4", "/var/spool/exim4", "/var/log/exim4", exim.work, "-uid", "4242",
                         "-exec", "chown", "-h", f"{owner.pw_uid}:{owner.pw_gid}", "{}", "+"]):
            subprocess.run(command, check=True, capture_output=True)


if __name__ == "__main__":
    main("recovery")
