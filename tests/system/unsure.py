#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""What the library can't know is an error with one line, never an empty queue.

- Something about the configuration changes while Exim's daemon runs with the library.  The daemon has the store, and its
  re-executions must find out whether they have it.
- `fastspool status` knows when mail stands, and why.
"""
import contextlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import time

from harness import (EXIM, FASTSPOOL_CONFIGURATION, QUEUE_ONLY, TOOL, USER, Client, Failure, Log, Message, check, kill, main, suspend, test,
                     wait_for)

CONFIGURATION = pathlib.Path(FASTSPOOL_CONFIGURATION)


def group_writable(exim):
    CONFIGURATION.chmod(0o664)
    return "root alone can write", "chmod"


def another_owner(exim):
    shutil.chown(CONFIGURATION, USER)
    return "root alone can write", "chown"


def unreadable(exim):
    CONFIGURATION.unlink()
    CONFIGURATION.mkdir()
    return (FASTSPOOL_CONFIGURATION,)


def dangling(exim):
    CONFIGURATION.unlink()
    CONFIGURATION.symlink_to("/nowhere/fastspool.conf")
    return FASTSPOOL_CONFIGURATION, "is a link to what is not there"


def typo_first(exim):
    CONFIGURATION.write_text("spol = /srv\n" + CONFIGURATION.read_text())
    return "spol", FASTSPOOL_CONFIGURATION + ":1:"


def typo_in_the_spool(exim):
    CONFIGURATION.write_text(CONFIGURATION.read_text().replace("spool = ", "spol = "))
    return "spol", FASTSPOOL_CONFIGURATION


def missing(exim):
    CONFIGURATION.unlink()
    return "does not name", str(exim.spool)


def another_spool(exim):
    CONFIGURATION.write_text("spool = /srv\nview = off\n")
    return "does not name", str(exim.spool)


def another_program(exim):
    CONFIGURATION.write_text(CONFIGURATION.read_text() + "program = /usr/sbin/exim5\n")
    return "program", EXIM


CHANGES = (group_writable, another_owner, unreadable, dangling, typo_first, typo_in_the_spool, missing, another_spool, another_program)


@contextlib.contextmanager
def restored():
    """The configuration is as before afterwards."""
    text = CONFIGURATION.read_text()
    try:
        yield
    finally:
        if CONFIGURATION.is_dir():
            CONFIGURATION.rmdir()
        CONFIGURATION.unlink(missing_ok=True)
        CONFIGURATION.write_text(text)


def lines_of(text):
    return [line for line in text.splitlines() if line.startswith("fastspool: ")]


@test(*((f"_{change.__name__}", {"main": (f"# {change.__name__}",)}) for change in CHANGES), library=True)
def configuration(exim):
    """Mail that the daemon has answered with 250 isn't lost sight of: its delivery, the queue's listing and a queue run
    fail with one line that says what to mend.  Afterwards the mail is delivered."""
    change = next(change for change in CHANGES if f"_{change.__name__}" in str(exim.work) and
                  str(exim.work).endswith(change.__name__))
    exim.start()
    log = Log()
    with restored():
        words = change(exim)
        message = exim.expect(Message(), "sink")
        client = Client()
        code, reply = client.send(message)
        client.close()
        check(code == 250, f"the daemon answered {reply!r}")
        name = reply.rpartition("id=")[2].strip()
        wait_for(lambda: any(all(word in line for word in words) for line in log.lines()), f"syslog has a line with {words}")
        wait_for(lambda: "Input/output error" in exim.log() and name in exim.log(), "Exim's log says why")
        for arguments in (("-bpc",), ("-bp",), ("-bpr",), ("-q",)):
            result = exim.command(*arguments)
            said = lines_of(result.stderr.decode())
            check(result.returncode != 0, f"{arguments}: exit 0, {result.stdout!r}")
            check(len(said) == 1 and all(word in said[0] for word in words), f"{arguments}: {result.stderr!r}")
            check(not result.stdout.strip(), f"{arguments}: {result.stdout!r}")
        result = exim.command("-c", program="/usr/sbin/exiqgrep")
        check(result.returncode != 0, f"exiqgrep: exit 0, {result.stdout!r}")
        check(not exim.real_files(), f"on the disk: {exim.real_files()}")
        refused = Message()
        result = exim.command("-oi", "-f", refused.sender, *refused.recipients, input=refused.content())
        check(result.returncode != 0, "a message was accepted by Exim that may not have the store")
        if change not in (missing, another_spool, another_program):     # what makes it no store's, or no Exim's
            result = exim.command("status", "--spool", exim.spool, program=TOOL, stock=True)
            said = (result.stdout + result.stderr).decode()
            check(result.returncode == 2 and all(word in said for word in words), f"status: {result}")
    exim.panic = "Input/output error|Permission denied"
    exim.run("-qff")
    exim.wait_arrived()


def no_such_state(exim):
    state = exim.spool / ".fastspool"
    shutil.rmtree(state, ignore_errors=True)
    state.touch()
    return (".fastspool",)


def spool_beside(exim):
    (exim.work / "beside").mkdir()
    exim.own(exim.work / "beside")
    CONFIGURATION.write_text(f"spool = {exim.work}/beside\nview = off\n")


MISTAKES = (typo_first, unreadable, spool_beside, another_program, no_such_state)


def taken(exim, client=None):
    """Does the daemon take a message, by a connection of its own or by CLIENT?"""
    message, own = Message(), client or Client()
    try:
        code, _ = own.send(message)
    except (Failure, ConnectionError): # it has said so before, or does at MAIL
        code = 421
    finally:
        if not client:
            own.close()
    if code == 250:
        exim.expect(message, "sink")
    return code == 250


@test(*((f"_{mistake.__name__}", {"main": QUEUE_ONLY + (f"# mended_{mistake.__name__}",)}) for mistake in MISTAKES), library=True)
def mended(exim):
    """A daemon that was started with a mistake takes nothing; when the mistake is mended it takes mail into the store, without a
    restart."""
    mistake = next(mistake for mistake in MISTAKES if str(exim.work).endswith(f"mended_{mistake.__name__}"))
    if mistake is not no_such_state:    # a spool that has no store, and that nobody names, is plain Exim's
        exim.run("-bpc")
    with restored():
        mistake(exim)
        exim.start()
        check(not taken(exim) and not taken(exim), "a message was taken by Exim that may not have the store")
        check(not exim.real_files(), f"on the disk: {exim.real_files()}")
    if mistake is no_such_state:
        (exim.spool / ".fastspool").unlink()
    exim.panic = "Input/output error|Permission denied|Not a directory"
    wait_for(lambda: taken(exim), "the daemon takes mail")
    check(not exim.real_files(), f"on the disk: {exim.real_files()}")
    exim.deliver_queue()


LISTS = """
import os, sys
for line in sys.stdin:
    try:
        print(len(os.listdir(line.strip())), flush=True)
    except OSError as error:
        print(error.strerror, flush=True)
"""


@test(library=True)
def mended_in_one_process(exim):
    """A process whose first call on the spool has failed is served when the cause is gone; one line tells of the failures."""
    no_such_state(exim)
    process = subprocess.Popen(["python3", "-c", LISTS], env=exim.environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True)

    def answer():
        process.stdin.write(f"{exim.spool}/input\n")
        process.stdin.flush()
        return process.stdout.readline().strip()
    for _ in range(4):
        check(answer() == "Input/output error", "a spool without a store is listed")
        time.sleep(0.4)
    (exim.spool / ".fastspool").unlink()
    wait_for(lambda: answer() != "Input/output error", "the process is served")
    _, said = process.communicate()
    check(len(lines_of(said)) == 1, said)


@test(library=True, main=QUEUE_ONLY)
def never_both(exim):
    """A process that has used the disk, as nobody had named its spool and it had no store, never uses the store that the next one
    makes: it is refused from then on."""
    with restored():
        CONFIGURATION.write_text("spol = /srv\nview = off\n")
        exim.start()
        client, other = Client(), Client()
        check(taken(exim, client) and taken(exim, other) and len(exim.real_files()) == 6, f"on the disk: {exim.real_files()}")
    other.close()
    wait_for(lambda: taken(exim) and "-D" in exim.command("ls", program=TOOL, stock=True).stdout.decode(),
             "another connection has the store")
    exim.panic = "Input/output error"
    time.sleep(1.1)                     # the process may decide again from here on
    before = exim.tool("ls"), exim.real_files()
    check(not taken(exim, client) and before == (exim.tool("ls"), exim.real_files()), f"{exim.tool('ls')} {exim.real_files()}")
    client.close()
    exim.deliver_queue()


def status(exim, tool=TOOL):
    """(exit status, headline, what --json says)."""
    told = json.loads(exim.command("status", "--json", program=tool, stock=True).stdout)
    result = exim.command("status", program=tool, stock=True)
    check(told["line"] == told["line"].strip() != "", f"no line: {told}")
    return result.returncode, result.stdout.decode().splitlines()[0], told


class Submission:
    """A message that is submitted in the background."""

    def __init__(self, exim):
        self.message = exim.expect(Message(), "sink")
        self.process = subprocess.Popen([EXIM, "-oi", "-odq", "-f", self.message.sender, *self.message.recipients],
                                        stdin=subprocess.PIPE, env=exim.environment(), cwd="/")
        self.process.stdin.write(self.message.content())
        self.process.stdin.close()


@test(library=True)
def frozen_mirror(exim):
    """While a stopped mirror makes mail wait, `status` says so, who waits, and since when.  Afterwards all is well."""
    exim.submit(exim.expect(Message(), "sink"), "-odq")
    exim.start()
    wait_for(lambda: status(exim)[0] == 0, "all is well before")
    check("all is well" in status(exim)[1], f"before: {status(exim)}")
    mirror = status(exim)[2]["mirror_pid"]
    suspend(mirror)
    first, second = Submission(exim), Submission(exim)
    try:
        wait_for(lambda: status(exim)[2]["waiters"] == 2, "two processes wait")
        code, line, told = wait_for(lambda: (now := status(exim))[2]["health"] and now, "status says that mail stands")
        check(code == 2 and f"process {mirror}, has given no sign of life for" in line, f"exit {code}: {line}")
        check("2 processes wait" in line and told["unflushed_ms"] > 0 and told["mirror_silent_ms"] >= 5000, f"{line}; {told}")
    finally:
        os.kill(mirror, signal.SIGCONT)
    check(first.process.wait(60) == 0 and second.process.wait(60) == 0, "a message was refused")
    wait_for(lambda: status(exim)[0] == 0, "all is well afterwards")
    exim.run("-qff")
    exim.wait_arrived()


@test(library=True)
def missing_tool(exim):
    """Without its image no mirror starts: `status` says which file is missing."""
    exim.submit(exim.expect(Message(), "sink"), "-odq")
    exim.tool("flush")
    moved = "/srv/fastspool.moved"
    shutil.move(TOOL, moved)
    try:
        kill(status(exim, moved)[2]["mirror_pid"])
        wait_for(lambda: not status(exim, moved)[2]["mirror_pid"], "the mirror is gone")
        code, line, _ = status(exim, moved)
        check(code == 2 and "none can be started: " + TOOL + ": No such file" in line, f"exit {code}: {line}")
    finally:
        shutil.move(moved, TOOL)
    exim.run("-qff")
    exim.wait_arrived()
    wait_for(lambda: status(exim)[0] == 0, "all is well afterwards")


@test(("", {}), ("_with_view", {"fastspool": ("view = auto",)}), library=True, main=QUEUE_ONLY)
def starting(exim):
    """While a store is being made again, `status` says that it starts, and that its counts are not whole yet; nothing is dead
    or unmounted, and no monitor is told how long the queue is."""
    exim.submit(exim.expect(Message(), "sink"))
    exim.tool("flush")
    exim.reboot()
    moved, hold = f"{TOOL}.moved", pathlib.Path("/srv/hold")        # beside it: what runs there is the command afterwards, too
    shutil.move(TOOL, moved)
    hold.touch()
    pathlib.Path(TOOL).write_text(f'#!/bin/sh\nwhile [ -e {hold} ]; do sleep 0.1; done\nexec {moved} "$@"\n')
    pathlib.Path(TOOL).chmod(0o755)
    listing = subprocess.Popen([EXIM, "-bpc"], env=exim.environment(), stdout=subprocess.PIPE, cwd="/")
    try:
        told = wait_for(lambda: (now := json.loads(exim.command("status", "--json", program=moved, stock=True).stdout))["store"] and now,
                        "the store is being made")
        check(told["health"] == 1 and told["recovering"] and "it is starting" in told["line"] and "not whole yet" in told["line"],
              f"{told}")
        check(told["view_state"] in ("starting", "off"), f"{told}")
        said = exim.command("status", program=moved, stock=True).stdout.decode()
        check("messages     0 so far" in said, said)
        metrics = exim.command("status", "--prometheus", program=moved, stock=True).stdout.decode()
        check("exim_queue" not in metrics and "fastspool_recovering{" in metrics, metrics)
    finally:
        hold.unlink()
        shutil.move(moved, TOOL)
    check(listing.communicate(timeout=120)[0] == b"1\n", "the queue is not whole")
    exim.start()                        # the listing had no right to mount the view
    wait_for(lambda: status(exim)[0] == 0 and not status(exim)[2]["recovering"], "all is well afterwards")
    check("exim_queue{" in exim.tool("status", "--prometheus"), "the queue is not told")
    exim.deliver_queue()


@test(library=True)
def not_in_use(exim):
    """A spool that nobody has used is neither well nor in need of anything."""
    result = exim.command("status", program=TOOL, stock=True)
    check(result.returncode == 3 and b"no process has used it" in result.stderr, f"status: {result}")


if __name__ == "__main__":
    main("unsure")
