#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""`fastspool status` for monitors, and for a terminal.

- The metrics are what Exim's own commands say, and real Prometheus' promtool reads them.
- Alerts and dashboard of examples/monitoring name only metrics that there are, and each alert fires when it should.
- --watch shows what happens, and leaves the terminal as it was.
"""
import fcntl
import json
import os
import pathlib
import pty
import re
import select
import shutil
import signal
import struct
import subprocess
import termios
import time

from harness import (EXIM, FASTSPOOL_CONFIGURATION, QUEUE_ONLY, TOOL, USER, USER_ID, Message, Skip, check, main, test, wait_for)

EXAMPLES = pathlib.Path(__file__).parent.parent.parent / "examples/monitoring"
FOREIGN = {"node_textfile_mtime_seconds"}       # node_exporter's
PROMTOOL = os.environ.get("PROMTOOL") or shutil.which("promtool")


def promtool(*arguments, **keywords):
    if not PROMTOOL:
        raise Skip("promtool is not installed; it is in Debian's package prometheus, and PROMTOOL may name it")
    result = subprocess.run([PROMTOOL, *arguments], capture_output=True, text=True, **keywords)
    check(result.returncode == 0, f"promtool {' '.join(arguments)}: {result.stdout} {result.stderr}")


def metrics(exim):
    """(text, {name: {labels without the spool: value}})."""
    text = exim.command("status", "--prometheus", program=TOOL, stock=True).stdout.decode()
    found = {}
    for name, labels, value in re.findall(r"^(\w+)\{([^}]*)\} (\S+)$", text, re.M):
        label = f'spool="{exim.spool}"'
        check(labels.startswith(label), f"{name} has the labels {labels}")
        found.setdefault(name, {})[labels[len(label):].lstrip(",")] = float(value)
    return text, found


def value(exim, name):
    return metrics(exim)[1].get(name, {}).get("")


def queue_mail(exim, number):
    for _ in range(number):
        exim.submit(exim.expect(Message(), "sink"))
    return exim.queue()


@test(main=QUEUE_ONLY, library=True)
def numbers(exim):
    """The metrics agree with Exim and with the JSON, and what should add up does."""
    names = queue_mail(exim, 5)
    exim.start()
    exim.run("-Mf", *names[:2])
    exim.tool("flush")
    text, found = metrics(exim)
    check(found["exim_queue"][""] == 5 and found["exim_queue_frozen"][""] == 2, text)
    check(found["fastspool_up"][""] == 1 and found["fastspool_health"][""] == 0, text)
    status = json.loads(exim.tool("status", "--json"))
    for name, key in (("fastspool_memory_limit_bytes", "memory_limit"), ("fastspool_files", "files"),
                      ("fastspool_evictions_total", "evictions"), ("fastspool_unflushed_files", "dirty_files")):
        check(found[name][""] == status[key], f"{name}: {found[name]}, and {key} is {status[key]}")
    check(sum(found["fastspool_view_state"].values()) == 1, f"states of the view: {found['fastspool_view_state']}")
    classes = list(found["fastspool_commit_seconds_bucket"].values())
    count = found["fastspool_commit_seconds_count"][""]
    check(classes == sorted(classes) and classes[-1] == count > 0, f"the histogram: {classes}, of {count}")
    check(0 < found["fastspool_commit_seconds_sum"][""] < 60 * count, "the sum of the commits' times")
    exim.run("-Mt", *names[:2])
    check(value(exim, "exim_queue_frozen") == 0, "none is frozen any more")
    exim.deliver_queue()


@test(main=QUEUE_ONLY + ("acl_not_smtp = accept set acl_m_kept = \\$h_X-Kept:",), library=True)
def values_of_senders(exim):
    """Exim writes ACL variables into the -H file, and a value may be a sender's, with lines that look like Exim's own."""
    queue, thawed = set(), []
    for kept, frozen in (("-x=0A-frozen_1", False), ("a=0Ab", True), ("-x=0A-y", True)):
        before = value(exim, "exim_queue_frozen")
        message = exim.expect(Message(), "sink")
        exim.run("-oi", "-f", message.sender, *message.recipients,
                 input=f"X-Kept: =?utf-8?Q?{kept}?=\n".encode() + message.content())
        name, = set(exim.queue()) - queue
        queue.add(name)
        if frozen:
            exim.run("-Mf", name)
        check(value(exim, "exim_queue_frozen") == (before or 0) + frozen, f"{kept}: {metrics(exim)[0]}")
        thawed += [name] if frozen else []
    exim.run("-Mt", *thawed)
    exim.deliver_queue()


@test(main=QUEUE_ONLY, library=True)
def pages(exim):
    """Status says which pages the memory has, and what small ones cost."""
    queue_mail(exim, 1)
    exim.start()
    mounts = [line.split() for line in pathlib.Path("/proc/mounts").read_text().splitlines()]
    huge = any(place == "/run/fastspool/memory" and "huge=within_size" in options.split(",") for _, place, _, options, *_ in mounts)
    check(("  pages        2 MiB" in exim.tool("status")) == huge, f"{huge}: {exim.tool('status')}")
    exim.stop()
    exim.tool("stop")
    exim.fastspool_configuration(f"memory = {exim.memory}", "runtime = /dev/shm")
    exim.start()
    check(exim.queue(), "the message is not there")
    said = json.loads(exim.tool("status", "--json"))["pages"]
    check(said.startswith("4 KiB, which cost") and "/dev/shm has no huge ones" in said, said)
    exim.deliver_queue()


@test(main=QUEUE_ONLY, library=True, memory="8M")
def cold(exim):
    """What is not in memory is not brought back to be counted: those messages are counted as unread."""
    for _ in range(30):
        exim.submit(exim.expect(Message(size=400_000), "sink"))
    exim.tool("flush")
    wait_for(lambda: value(exim, "fastspool_evicted_files") > 30, "files are evicted")
    before = value(exim, "fastspool_pageins_total")
    found = metrics(exim)[1]
    check(found["exim_queue"][""] == 30 and 0 < found["fastspool_queue_unread"][""] <= 30, str(found))
    check(value(exim, "fastspool_pageins_total") == before, "counting has brought data back")
    exim.deliver_queue()


@test(main=QUEUE_ONLY, library=True)
def readable(exim):
    """promtool reads the metrics, with and without a store."""
    queue_mail(exim, 1)
    promtool("check", "metrics", input=metrics(exim)[0])
    exim.tool("flush")
    exim.reboot()
    text, found = metrics(exim)
    promtool("check", "metrics", input=text)
    check(found["fastspool_up"][""] == 0 and found["fastspool_health"][""] == 2, text)
    check("exim_queue" not in found, "a queue that nobody knows is told as a number")
    exim.deliver_queue()


@test(main=QUEUE_ONLY, library=True)
def without_the_library(exim):
    """An Exim of this machine that runs without the library is counted, for root: a metric, in the JSON, and in the text."""
    queue_mail(exim, 1)
    exim.start()
    check(value(exim, "fastspool_exims_without_library") == 0, metrics(exim)[0])
    plain = [subprocess.Popen([EXIM, "-bs"], env=exim.environment(stock=True), cwd="/", stdin=subprocess.PIPE, stdout=subprocess.PIPE)
             for _ in range(2)]
    for process in plain:
        process.stdout.readline()       # its greeting
    try:
        check(value(exim, "fastspool_exims_without_library") == 2, metrics(exim)[0])
        check(json.loads(exim.tool("status", "--json"))["exims_without_library"] == 2, "the JSON")
        check("2 without the library" in exim.tool("status"), "the text")
        # As root in a container: the mail user's processes can't be looked at.
        daemon = subprocess.Popen([EXIM, "-bdf", "-oX", "2600"], env=exim.environment(stock=True), cwd="/", stdin=subprocess.DEVNULL)
        as_inside = ("--bounding-set=-sys_ptrace", TOOL)
        wait_for(lambda: b"exims_without" not in exim.command(*as_inside, "status", "--prometheus", program="setpriv", stock=True).stdout,
                 "what can't be known is not told")
        said = exim.command(*as_inside, "doctor", program="setpriv", stock=True).stdout.decode()
        check("can't be looked at" in said and "no Exim runs" not in said and "no Exim that runs" not in said, said)
        result = exim.command(*as_inside, "disable", "--yes", program="setpriv", stock=True)
        check(result.returncode == 1 and b"can't be looked at" in result.stderr, f"disable: {result}")
        daemon.terminate()
        daemon.wait(60)
        seen = exim.command("status", "--prometheus", program=TOOL, stock=True, user=USER).stdout.decode()
        check("fastspool_up" in seen and "fastspool_exims" not in seen, f"a user can't know: {seen}")
    finally:
        for process in plain:
            process.communicate(b"quit\r\n")
    check(value(exim, "fastspool_exims_without_library") == 0, metrics(exim)[0])
    exim.stop()
    exim.deliver_queue()


@test(main=QUEUE_ONLY, library=True)
def an_image_without_rights(exim):
    """Exim's image with a user's rights alone (no_new_privs) is no Exim.  Its memory is that user's, who could keep everybody
    waiting that looks into it."""
    if not shutil.which("setpriv"):
        raise Skip("no setpriv")
    queue_mail(exim, 1)
    exim.start()
    with subprocess.Popen(["setpriv", "--no-new-privs", EXIM, "-be"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                          stderr=subprocess.DEVNULL, user=USER, group=USER_ID, extra_groups=[], cwd="/") as process:
        process.stdin.write(b"here\n")
        process.stdin.flush()
        check(b"here" in process.stdout.readline(), "it does not run")
        check(value(exim, "fastspool_exims_without_library") == 0, metrics(exim)[0])
        said = exim.command("doctor", program=TOOL, stock=True).stdout.decode()
        check(f"process {process.pid}" not in said, said)
        process.communicate(b"")
    exim.stop()
    exim.deliver_queue()


@test(library=True)
def misconfigured(exim):
    """What the configuration lacks to be understood is told to monitors, too: health 2, whatever comes before the `spool`."""
    for lines in (f"spool = {exim.spool}\ndurabilty = acked\n", f"durabilty = acked\nspool = {exim.spool}\n"):
        pathlib.Path(FASTSPOOL_CONFIGURATION).write_text(lines)
        text = exim.command("status", "--prometheus", program=TOOL, stock=True)
        promtool("check", "metrics", input=text.stdout.decode())
        said = text.stdout.decode()
        for line in ("fastspool_health{", "fastspool_up{", "fastspool_configuration_wrong{"):
            check(line in said, f"{line} is missing: {text}")
        check(re.search("^fastspool_health{.*} 2$", said, re.M) and re.search("^fastspool_configuration_wrong{.*} 1$", said, re.M), said)
        result = exim.command("status", "--json", program=TOOL, stock=True)
        told = json.loads(result.stdout)
        check(told["health"] == 2 and "durabilty" in told["line"] and not told["store"], f"{told}")
        check(result.returncode == text.returncode == 2, f"exit status {result.returncode}, {text.returncode}")
    exim.fastspool_configuration(f"memory = {exim.memory}")


@test(main=QUEUE_ONLY, library=True)
def two_spools(exim):
    """Of two spools status shows, and stop ends, both; the exit status is the worse one's; what acts on one asks which."""
    other = exim.work / "other"
    (other / "input").mkdir(parents=True)
    for path in (other, other / "input"):
        exim.own(path)
    exim.fastspool_configuration(f"memory = {exim.memory}", f"spool = {other}")
    queue_mail(exim, 2)
    exim.start()
    check([json.loads(line)["health"] for line in exim.command("status", "--json", program=TOOL, stock=True).stdout.splitlines()] == [0, 3],
          "a spool that is not in use")
    exim.run("run", "--spool", other, "--", "true", program=TOOL, stock=True)
    told = {line["spool"]: line for line in map(json.loads, exim.tool("status", "--json").splitlines())}
    check(told[str(exim.spool)]["messages"] == 2 and told[str(other)]["messages"] == 0, f"{told}")
    check(all(f"{spool}: all is well" in exim.tool("status") for spool in told), exim.tool("status"))
    text = exim.tool("status", "--prometheus")
    promtool("check", "metrics", input=text)
    check(all(f'exim_queue{{spool="{spool}"}} {messages}' in text for spool, messages in ((exim.spool, 2), (other, 0))), text)
    check(text.count("# TYPE exim_queue ") == 1, "a metric has two heads")
    for command in (("ls",), ("flush",), ("cat", "input"), ("verify",), ("compact",), ("export",), ("import",), ("backup", "/b"),
                    ("dump", "journal"), ("status", "--watch")):
        result = exim.command(*command, program=TOOL, stock=True)
        check(result.returncode == 1 and b"names 2 spools" in result.stderr and b"--spool" in result.stderr, f"{command}: {result}")
    exim.stop()
    exim.tool("stop")
    check(not any(json.loads(line)["store"] for line in exim.command("status", "--json", program=TOOL, stock=True).stdout.splitlines()),
          "a store is left")
    exim.fastspool_configuration(f"memory = {exim.memory}", f"spool = {exim.spool}/")       # another name of the same
    exim.deliver_queue()
    check(len(exim.tool("status", "--json").splitlines()) == 1, "one spool is shown twice")
    exim.fastspool_configuration(f"memory = {exim.memory}")


@test(main=QUEUE_ONLY, library=True)
def on_the_plain_disk(exim):
    """A message that a process without the library took is counted as one on the disk, and not as one of the store."""
    queue_mail(exim, 1)
    exim.start()
    message = exim.expect(Message(), "sink")
    exim.run("-oi", "-f", message.sender, *message.recipients, input=message.content(), stock=True)
    check((value(exim, "exim_queue"), value(exim, "fastspool_disk_messages")) == (1, 1), metrics(exim)[0])
    check("1; and 1 on the disk" in exim.tool("status"), "status does not tell")
    check(json.loads(exim.tool("status", "--json"))["disk_messages"] == 1, "nor as JSON")
    exim.deliver_queue()
    check(value(exim, "fastspool_disk_messages") == 0, "one is left")


@test(main=QUEUE_ONLY, library=True)
def a_journal_alone(exim):
    """A state that has a journal, and no database, may have mail: whatever the number of the journal's only file."""
    queue_mail(exim, 1)
    exim.reboot()
    state, away = exim.spool / ".fastspool", exim.work / "away"
    (first,) = (state / "journal").glob("0000")
    for file in (state / "journal").iterdir():
        file.rename(away.with_name(file.name))
    (state / "mirror").rename(away)
    check(exim.command("status", program=TOOL, stock=True).returncode == 3, "an empty state is in use")
    away.with_name(first.name).rename(first.with_name("0007"))
    result = exim.command("status", program=TOOL, stock=True)
    check(result.returncode == 2 and b"that it may have on the disk can't be read" in result.stderr, f"the journal is not seen: {result}")
    away.rename(state / "mirror")
    exim.deliver_queue()


@test(main=QUEUE_ONLY, library=True, view="library")
def below_the_view(exim):
    """Root's status counts what a view hides; what the view shows is not on the disk."""
    queue_mail(exim, 2)
    exim.wait_view()
    check((value(exim, "exim_queue"), value(exim, "fastspool_disk_messages")) == (2, 0), metrics(exim)[0])
    # Below the view: by a private mount of the disk alone.  The server can't read it, so it stays.
    hide = f"umask 077 && mount --bind {exim.spool} /mnt && touch /mnt/input/1abcde-000001-AB-D /mnt/input/1abcde-000001-AB-H"
    subprocess.run(["unshare", "--mount", "sh", "-c", hide], check=True)
    check(value(exim, "fastspool_disk_messages") == 1, "what the view hides is not seen")
    subprocess.run(["unshare", "--mount", "sh", "-c", hide.replace("touch", "rm")], check=True)
    exim.deliver_queue()


@test(main=QUEUE_ONLY, library=True)
def examples(exim):
    """The alerts are right, and fire when they should.  They and the dashboard name only metrics that there are."""
    queue_mail(exim, 1)
    known = set(metrics(exim)[1]) | FOREIGN
    dashboard = json.loads((EXAMPLES / "dashboard.json").read_text())
    expressions = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    expressions += re.findall(r"^\s+expr: (.*)$", (EXAMPLES / "alerts.yml").read_text(), re.M)
    check(len(expressions) > 25, f"only {len(expressions)} expressions were found")
    for expression in expressions:
        names = set(re.findall(r"\b((?:fastspool|exim|node)_\w+)", expression))
        check(names and names <= known, f"{expression}: {names - known} are no metrics")
    exim.deliver_queue()
    promtool("check", "rules", str(EXAMPLES / "alerts.yml"))
    promtool("test", "rules", "alerts_test.yml", cwd=EXAMPLES)


@test(main=QUEUE_ONLY, library=True)
def examples_on_a_full_disk(exim):
    """The file for node_exporter appears whole, or stays as it was."""
    queue_mail(exim, 1)
    place = exim.work / "textfiles"
    place.mkdir()
    command = re.search(r"^ExecStart=/bin/sh -c '(.*)'$", (EXAMPLES / "fastspool-metrics.service").read_text(), re.M)[1]

    def collect():
        return exim.command("-c", command.replace("/var/lib/prometheus/node-exporter", str(place)), program="/bin/sh", stock=True)
    check(collect().returncode == exim.operator("status").returncode, "the exit status is not the health")
    whole = (place / "fastspool.prom").read_text()
    check(whole.endswith("\n") and "fastspool_disk_hidden{" in whole, f"the file is not whole: {whole[-200:]}")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4k", "none", place], check=True)
    try:
        (place / "fastspool.prom").touch()
        check(collect().returncode == os.EX_IOERR, "a full disk is no failure")
        check((place / "fastspool.prom").stat().st_size == 0, "a part of the metrics is in force")
    finally:
        subprocess.run(["umount", place], check=True)
    exim.deliver_queue()


class Terminal:
    """`fastspool status --watch` on a terminal of its own, behind the command BEFORE."""

    def __init__(self, exim, locale="C.UTF-8", rows=24, columns=60, before=()):
        self.rows, self.columns = rows, columns
        self.own, self.its = pty.openpty()
        fcntl.ioctl(self.its, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self.modes = termios.tcgetattr(self.its)
        self.said = b""
        self.process = subprocess.Popen([*before, TOOL, "status", "--watch"], stdin=self.its, stdout=self.its, stderr=self.its,
                                        env={**exim.environment(stock=True), "LC_ALL": locale}, start_new_session=True)

    def wait(self, what, seconds=60, times=1):
        end = time.monotonic() + seconds
        while self.said.count(what) < times and time.monotonic() < end:
            if select.select([self.own], [], [], 0.2)[0]:
                self.said += os.read(self.own, 65536)
        check(self.said.count(what) >= times, f"{what!r} is not shown: {self.said[-3000:]!r}")

    def screen(self):
        """The lines that were to be seen when the last screen but one was whole."""
        lines, row, column = [""] * self.rows, 0, 0
        for sign in re.findall(r"\x1b\[[?\d;]*[A-Za-z]|[^\x1b]", self.said[:self.said.rfind(b"\x1b[H")].decode()):
            if sign == "\r":
                column = 0
            elif sign[-1] == "H" and len(sign) > 1:
                row = column = 0
            elif sign in ("\x1b[K", "\x1b[J"):
                lines[row] = lines[row][:column]
                lines[row + 1:] = lines[row + 1:] if sign[-1] == "K" else [""] * (self.rows - row - 1)
            elif sign == "\n" or (len(sign) == 1 and column == self.columns):
                row += 1
                lines, row = (lines[1:] + [""], row - 1) if row == self.rows else (lines, row)
                column = 0 if sign != "\n" else column
            if len(sign) == 1 and sign not in "\r\n":
                lines[row] = lines[row][:column].ljust(column) + sign + lines[row][column + 1:]
                column += 1
        return lines

    def end(self, do, health=0):
        """DO ends it: the terminal has its first modes and its first screen, and the exit status is the health."""
        do()
        code = self.process.wait(60)
        self.wait(b"\x1b[?25h\x1b[?1049l")
        check(code == health, f"exit status {code}")
        check(termios.tcgetattr(self.its) == self.modes, "the terminal has other modes")
        os.close(self.own)
        os.close(self.its)


@test(main=QUEUE_ONLY, library=True)
def watch(exim):
    """--watch shows the queue as it grows, in bars; q, SIGINT and SIGTERM end it, and the terminal is as before."""
    queue_mail(exim, 2)
    exim.start()
    terminal = Terminal(exim)
    terminal.wait("▁".encode())
    terminal.wait(b" 2\x1b[K")
    check(terminal.said.startswith(b"\x1b[?1049h\x1b[?25l"), "it does not take the other screen")
    check(termios.tcgetattr(terminal.its)[3] & termios.ECHO == 0, "keys are echoed")
    queue_mail(exim, 3)
    terminal.wait(b" 5\x1b[K")
    terminal.wait("█".encode())
    widest = max(len(re.sub(r"\x1b\[[?\d]*\w", "", line)) for line in terminal.said.decode(errors="replace").split("\n")
                 if "messages" in line)
    check(widest <= 61, f"a line of bars has {widest} columns, and the terminal 60")
    terminal.end(lambda: os.write(terminal.own, b"q"))
    for number in (signal.SIGINT, signal.SIGTERM):
        terminal = Terminal(exim, locale="C")
        terminal.wait(b"_")
        terminal.end(lambda: terminal.process.send_signal(number))
    result = exim.command("status", "--watch", program=TOOL, stock=True)
    check(result.returncode == 64 and b"needs a terminal" in result.stderr and not result.stdout, str(result))
    exim.deliver_queue()


@test(library=True)
def watch_asks_once(exim):
    """Where no Exim runs, and `fastspool enable` was not run, --watch runs Exim once to know whether its image needs the library, and not
    at each look; and again when the image, the library, or /etc/ld.so.preload is another."""
    everywhere = pathlib.Path("/etc/ld.so.preload")
    trace = exim.work / "trace"
    exim.command("-bpc").check_returncode()         # makes the store
    terminal = Terminal(exim, before=("strace", "-f", "-qq", "-o", trace, "-e", "trace=execve"))

    def asks():
        """After three more looks."""
        looks = terminal.said.count(b"\x1b[H")
        terminal.wait(b"\x1b[H", times=looks + 4)
        return trace.read_text().count('"-bV"')
    check((first := asks()) > 0, "it has not asked")
    check(asks() == first, "it asks at each look")
    everywhere.write_text("")
    try:
        check(first < (again := asks()), "it has not asked again")
    finally:
        everywhere.unlink()
    before = again
    check(before < (again := asks()), "it has not asked for the third time")
    os.utime(os.path.realpath(EXIM))
    before = again
    check(before < (again := asks()) and asks() == again, "it has not asked once for another image")
    terminal.end(lambda: os.write(terminal.own, b"q"))


@test(main=QUEUE_ONLY, library=True)
def watch_on_a_low_terminal(exim):
    """Whatever has no room: the verdict is to be seen, as a whole, and on a terminal with room each line once."""
    queue_mail(exim, 2)
    verdict = exim.command("status", program=TOOL, stock=True).stdout.decode().splitlines()[0]
    check(len(verdict) > 60, f"it is not longer than a line: {verdict}")
    for rows, columns in (8, 60), (30, 60), (8, 200):
        terminal = Terminal(exim, rows=rows, columns=columns)
        terminal.wait(b" 2\x1b[K")
        terminal.wait(b"\x1b[H", times=3)
        seen = terminal.screen()
        check("".join(seen).startswith(verdict), f"{rows} rows: {seen}")
        check(rows < 20 or [line for line in seen if line.startswith("  messages")] and "q ends" in "".join(seen), f"{seen}")
        check("".join(seen).count(verdict) == 1, f"{rows} rows: {seen}")
        terminal.end(lambda: os.write(terminal.own, b"q"), health=2)
    exim.start()
    exim.deliver_queue()


@test(main=QUEUE_ONLY, library=True)
def watch_keys(exim):
    """Keys without a meaning, as a mouse wheel gives them on the other screen, neither end --watch nor hurry it."""
    queue_mail(exim, 2)
    exim.start()
    began = time.monotonic()                    # of all screens: those that the terminal has not read yet count, too
    terminal = Terminal(exim)
    terminal.wait(b" 2\x1b[K")
    for _ in range(3):
        os.write(terminal.own, b"\x1b[A" * 300)
        time.sleep(1)
    terminal.end(lambda: os.write(terminal.own, b"q"))
    frames, seconds = terminal.said.count(b"\x1b[H"), time.monotonic() - began
    check(frames <= seconds + 1, f"{frames} screens in {seconds:.1f} s")
    check(b"nan" not in terminal.said, "a rate is no number")
    exim.deliver_queue()


@test(main=QUEUE_ONLY, library=True)
def watch_goes_on(exim):
    """A store that is taken away and made again while somebody watches is shown again."""
    queue_mail(exim, 2)
    terminal = Terminal(exim)
    terminal.wait(b" 2\x1b[K")
    exim.tool("flush")
    watcher = terminal.process.pid
    pid = exim.status()["mirror_pid"]

    def given_back():
        exim.tool("stop")           # the store stays while the watcher looks at it
        return not exim.status()["store"]
    wait_for(given_back, "the store's memory is given back")
    wait_for(lambda: not pathlib.Path(f"/proc/{pid}").exists(), "the mirror has ended")
    terminal.wait(b"mail that it has on the disk")
    exim.start()
    queue_mail(exim, 1)
    terminal.wait(b" 3\x1b[K")
    check(pathlib.Path(f"/proc/{watcher}").exists(), "it has ended")
    terminal.end(lambda: os.write(terminal.own, b"q"))
    exim.deliver_queue()


if __name__ == "__main__":
    main("monitoring")
