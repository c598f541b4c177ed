#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Bad input: each mistake gets one clear line, and no mail is lost.

Mail that Exim accepts meanwhile is in the one queue that it shows.  Mail queued before is there once the fault is fixed.
"""
import glob
import hashlib
import os
import pathlib
import re
import shutil

from harness import (FASTSPOOL_CONFIGURATION, QUEUE_ONLY, TOOL, USER, USER_ID, Message, check, kill_all, main, processes,
                     stores, test, wait_for)


def tool_says(exim, *words, arguments=("status",), lines=1):
    """The tool fails with exactly LINES lines, and they contain each of WORDS."""
    result = exim.command(*arguments, program=TOOL, stock=True)
    said = result.stderr.decode(errors="replace")
    check(result.returncode not in (0, None) and result.returncode > 0, f"the tool returned {result.returncode}")
    check(said.count("\n") == lines and all(word in said for word in words), f"expected {lines} lines with {words}, got {said!r}")


def try_submit(exim):
    """Submit a message.  If Exim accepts it, expect it at the sink.  Returns (accepted, Exim's messages)."""
    message = Message()
    result = exim.command("-oi", "-f", message.sender, *message.recipients, input=message.content())
    if result.returncode == 0:
        exim.expect(message, "sink")
    said = result.stderr.decode(errors="replace") + exim.said()
    return result.returncode == 0, said


def mended(exim):
    """After the fix, mail queued before and mail accepted meanwhile is delivered once."""
    kill_all()
    exim.daemon = None
    exim.run("-qff")
    exim.wait_arrived()
    exim.wait_empty()
    exim.panic = ".*"            # the fault may be in the panic log


def with_fault(exim, *lines):
    """Queue a message, replace the configuration with LINES, then try another message.  Returns the old configuration."""
    exim.submit(exim.expect(Message(), "sink"))
    exim.tool("flush")
    kill_all()
    good = pathlib.Path(FASTSPOOL_CONFIGURATION).read_text()
    pathlib.Path(FASTSPOOL_CONFIGURATION).write_text("".join(line + "\n" for line in lines))
    accepted, said = try_submit(exim)
    if accepted:
        check(len(exim.real_files()) == 3, f"accepted, but not in the real queue: {exim.real_files()}; {said}")
    return good


def mend(good):
    pathlib.Path(FASTSPOOL_CONFIGURATION).write_text(good)


@test(main=QUEUE_ONLY, library=True)
def unknown_key(exim):
    """An unknown key: the message names the file, the line and the key."""
    good = with_fault(exim, f"spool = {exim.spool}", "speed = 11")
    tool_says(exim, FASTSPOOL_CONFIGURATION, "2", "speed")
    mend(good)
    mended(exim)


@test(main=QUEUE_ONLY, library=True)
def bad_value(exim):
    """An invalid value: the message names the file, the line and the value."""
    good = with_fault(exim, f"spool = {exim.spool}", "memory = lots")
    tool_says(exim, FASTSPOOL_CONFIGURATION, "2", "lots")
    mend(good)
    mended(exim)


@test(main=QUEUE_ONLY, library=True)
def missing_spool(exim):
    """A missing spool: the message names it.  Exim's own spool is no longer configured, but has a store: it is refused, and its mail
    is counted."""
    good = with_fault(exim, "spool = /srv/nowhere")
    tool_says(exim, "/srv/nowhere", f"1 message stands in {exim.spool}/.fastspool", lines=2)
    mend(good)
    mended(exim)


@test(main=QUEUE_ONLY, library=True)
def spool_of_others(exim):
    """A spool owned by another user: the message names the owner, and Exim accepts nothing.  With the owner restored the
    spool is served again."""
    shutil.chown(exim.spool, USER, USER)
    exim.spool.chmod(0o755)
    message = Message()
    result = exim.command("-oi", *message.recipients, input=message.content())
    lines = [line for line in result.stderr.decode().splitlines() if line.startswith("fastspool: ")]
    check(result.returncode != 0 and not exim.real_files(), f"exit {result.returncode}, {exim.real_files()}")
    check(len(lines) == 1 and str(exim.spool) in lines[0] and f"user {USER_ID}" in lines[0], result.stderr.decode())
    shutil.chown(exim.spool, "Debian-exim", "Debian-exim")
    exim.panic = "Permission denied"
    shutil.rmtree(exim.spool / ".fastspool", ignore_errors=True)
    mended(exim)


@test(main=QUEUE_ONLY, library=True)
def too_much_memory(exim):
    """`memory` larger than the machine's: a new segment takes the size of its file system as its limit."""
    exim.submit(exim.expect(Message(), "sink"))
    exim.tool("flush")
    exim.reboot()
    exim.fastspool_configuration("memory = 900G")
    exim.submit(exim.expect(Message(), "sink"))
    limit, room = exim.status()["memory_limit"], os.statvfs(stores()[0])
    check(limit == room.f_blocks * room.f_frsize, f"the store may hold {limit} bytes")
    mended(exim)


@test(main=QUEUE_ONLY, library=True)
def second_mirror(exim):
    """A second mirror of a spool reports the first and exits.  The first one keeps running."""
    exim.submit(exim.expect(Message(), "sink"))
    def running():
        return [pid for pid, name in processes() if name.startswith("fastspool")]
    mirrors = wait_for(lambda: len(running()) == 1 and running(), "one mirror runs")
    tool_says(exim, str(exim.spool), arguments=("mirror", exim.spool))
    check(running() == mirrors, "the first mirror is gone")
    mended(exim)


@test(main=QUEUE_ONLY, library=True)
def damaged_segment(exim):
    """A corrupt segment: no mail is accepted, and nothing crashes.  After a reboot the queue is complete."""
    exim.submit(exim.expect(Message(), "sink"))
    before = exim.queue()
    exim.tool("flush")
    kill_all()
    segment = f"{stores()[0]}/segment"
    with open(segment, "r+b") as file:
        file.write(b"\xa5" * 4096)
    accepted, said = try_submit(exim)
    check(not accepted and "fastspool" in said, f"accepted: {accepted}; said: {said}")
    tool_says(exim, str(exim.spool), "`fastspool verify` says what is damaged", lines=2)
    exim.reboot()
    check(exim.queue() == before, f"the queue is {exim.queue()}")
    mended(exim)


@test(main=QUEUE_ONLY, library=True)
def damaged_database(exim):
    """A corrupt database: no mail is accepted, and the file stays untouched for repair."""
    exim.submit(exim.expect(Message(), "sink"))
    before = exim.queue()
    exim.tool("flush")
    exim.reboot()
    database, = exim.spool.glob(".fastspool/**/data.mdb")
    whole = database.read_bytes()
    with open(database, "r+b") as file:
        file.write(b"\xa5" * 8192)
    damaged = hashlib.sha256(database.read_bytes()).digest()
    accepted, said = try_submit(exim)
    check(not accepted and "fastspool" in said, f"accepted: {accepted}; said: {said}")
    check(hashlib.sha256(database.read_bytes()).digest() == damaged, "the damaged file was changed")
    exim.reboot()
    with open(database, "r+b") as file:
        file.write(whole)
    check(exim.queue() == before, f"the queue is {exim.queue()}")
    mended(exim)


@test(("_without_bit", {}), ("_by_path", {}), main=QUEUE_ONLY, library=True)
def installation(exim):
    """An installation that Exim's re-executions would not load: the library says so and serves nothing.  Exim runs on the
    plain disk, so there are never two queues."""
    path = next(path for path in glob.glob("/usr/lib/*/libfastspool.so.0*") + glob.glob("/usr/lib/libfastspool.so.0*")
                if not os.path.islink(path))
    mode = os.stat(path).st_mode
    message = exim.expect(Message(), "sink")
    environment = {}
    try:
        if "without_bit" in str(exim.work):
            os.chmod(path, mode & ~0o4000)
        else:
            environment["LD_PRELOAD"] = path
        result = exim.command("-oi", "-f", message.sender, *message.recipients, input=message.content(),
                              environment=environment)
        check(result.returncode == 0 and b"fastspool" in result.stderr, f"said {result.stderr!r}")
        check(len(exim.real_files()) == 3, f"not on the plain disk: {exim.real_files()}")
    finally:
        os.chmod(path, mode)
    mended(exim)


@test(library=True)
def wrong_arguments(exim):
    """Each subcommand answers wrong arguments with a sentence of what is wrong, and then its usage.  -h is --help."""
    subcommands = re.findall(r"^  ([a-z]+) +\S", exim.tool("help"), re.M)
    takes_operands = {"cat": ["input"], "ls": [], "run": ["--", "true"], "export": [], "backup": ["/srv/copy"], "dump": ["journal"],
                      "mirror": [exim.spool], "view": [exim.spool]}
    check(len(subcommands) > 15, f"{subcommands}")
    wrong = [((), "SUBCOMMAND"), (("--what",), "--what"), (("help", "ls", "it"), "`it`"), (("--version", "it"), "`it`"),
             (("--help", "it"), "`it`"), (("help", "it"), "`it`")]
    for name in subcommands:
        wrong += [((name, "--what"), "--what"), ((name, "-x"), "'x'")]
        if name not in ("cat", "ls", "run"):
            operands = (takes_operands[name] or ["/srv/other"]) if name in takes_operands else []
            wrong.append(((name, *operands, "it"), "`it`"))
        if takes_operands.get(name):
            wrong.append(((name,), f"{name} needs "))
        if name not in ("doctor", "enable", "disable", "mirror", "view"):
            wrong.append(((name, "--spool", exim.spool, "--spool", "/srv"), "'--spool' is given twice"))
            wrong += [((name, "--spool", path), "--spool needs a path of 1 to 255 bytes") for path in ("", "x" * 256)]
    wrong += [(("flush", "--json"), "--json"), (("status", "--json", "--watch"), "--watch"), (("dump", "it"), "`it`"),
              (("run", "--durability", "it", "true"), "`it`"), (("view", "--state", "x" * 5000, exim.spool), "--state"),
              (("mirror", "--state", "", exim.spool), "--state")]
    wrong += [(("mirror", f"--{option}", number, exim.spool), f"`{number}`")
              for option in ("memory", "journal") for number in ("x", "", "-1", "1M", "9" * 30)] + [(("mirror", "--journal", "0", exim.spool), "`0`")]
    for arguments, words in wrong:
        result = exim.command(*arguments, program=TOOL, stock=True)
        said = result.stderr.decode().splitlines() + ["", ""]
        check(result.returncode == 64 and not result.stdout, f"{arguments}: {result}")
        usage = next((line for line in said[1:] if line.startswith("usage: fastspool ")), None)
        check(said[0].startswith("fastspool: ") and words in said[0] and usage, f"{arguments}: {said}")
        check(arguments[:1] == () or arguments[0] not in subcommands or f"fastspool {arguments[0]}" in usage, f"{arguments}: {usage}")
    for name in subcommands:
        check(exim.tool(name, "-h") == exim.tool(name, "--help"), f"{name} -h")
    for words in (("-h",), ("--help",), ("help", "help"), ("help", "--help")):
        check(exim.tool(*words) == exim.tool("help"), f"{words}")
    check(not list(exim.spool.glob(".fastspool")), "-h")


# What makes a store, mounts, or reads; %s: the directory.
ON_A_SPOOL = ("ls --spool %s", "cat --spool %s x", "flush --spool %s", "backup --spool %s /srv/copy", "stop --spool %s",
              "verify --spool %s", "compact --spool %s", "dump --spool %s journal", "export --yes --spool %s", "import --spool %s",
              "view %s", "run --spool %s -- true")


@test(library=True)
def no_spool(exim):
    """A directory that is no spool is refused by each subcommand, and nothing is made or mounted there."""
    exim.fastspool_configuration("view = auto")
    other, file = pathlib.Path("/srv/other"), pathlib.Path("/srv/other/notes")
    other.mkdir()
    file.write_text("no mail")
    for place in (pathlib.Path("/etc"), other, file):
        directory = place if place.is_dir() else other
        before = sorted(os.listdir(directory))
        for command in ON_A_SPOOL:
            result = exim.command(*(command % place).split(), program=TOOL, stock=True, timeout=60)
            said = result.stderr.decode()
            told = f"{place} is no spool" in said or place == file and f"{place}: Not a directory" in said
            check(result.returncode in (1, 126) and told and said.count("\n") == 1, f"{command}: {result}")
        check(sorted(os.listdir(directory)) == before, f"{place} has {os.listdir(directory)}")
    check("fuse" not in pathlib.Path("/proc/self/mounts").read_text(), "a view is mounted")


@test(library=True)
def no_such_spool(exim):
    """Each subcommand says of a spool that is not there just that, and makes nothing."""
    exim.fastspool_configuration("view = auto")
    for command in (*ON_A_SPOOL, "status --spool %s", "mirror %s"):
        result = exim.command(*(command % "/srv/none").split(), program=TOOL, stock=True, timeout=60)
        said = result.stderr.decode()
        check(result.returncode in (1, 126) and "the spool /srv/none: No such file or directory\n" in said and said.count("\n") == 1,
              f"{command}: {result}")
    check(not os.path.exists("/srv/none"), "it was made")


@test(library=True)
def no_store(exim):
    """Where no store is in memory that is said once, with what brings it back: of this spool, if one was named."""
    exim.fastspool_configuration("view = off")
    exim.run("run", "--", "ls", program=TOOL, stock=True)
    exim.tool("stop")
    for spool in ([], ["--spool", str(exim.spool)]):
        for command in (["ls"], ["cat", "x"], ["flush"], ["backup", "/srv/copy"]):
            result = exim.command(*command, *spool, program=TOOL, stock=True)
            said = result.stderr.decode()
            again = f"`fastspool run{' ' * bool(spool)}{' '.join(spool)} -- true`"
            check(result.returncode == 1 and again in said and said.count("`fastspool stop`") == 1, f"{command}: {result}")


@test(library=True)
def no_configured_spool(exim):
    """With none of the configured spools there, `run` runs nothing, as that would see no queue: root's, and a user's.  With one of two
    there it does."""
    away = exim.spool.with_name("away")
    exim.work.chmod(0o755)
    exim.spool.rename(away)
    for there in (False, True):
        exim.spool.touch() if there else None
        for user in (None, USER):
            result = exim.command("run", "--", "echo", "run", program=TOOL, stock=True, user=user)
            check(result.returncode == 126 and not result.stdout and result.stderr.count(b"\n") == 1 and
                  f"cannot find the spool {exim.spool}: there is no such directory; make it, ".encode() in result.stderr, f"{result}")
    exim.spool.unlink()
    exim.fastspool_configuration("view = off", f"spool = {away}")
    check(exim.run("run", "--", "echo", "run", program=TOOL, stock=True) == b"run\n", "one of two")
    away.rename(exim.spool)


@test(main=QUEUE_ONLY, library=True)
def paths(exim):
    """ls and cat take a path as a shell completes it, below the spool, as well as a relative one, and by a link to the spool.  What
    leads elsewhere, or to a file of the disk, is told."""
    exim.submit(exim.expect(Message(), "sink"))
    name = f"input/{exim.queue()[0]}-D"
    for path in (name, f"{exim.spool}/{name}", f"{exim.spool}//{name}"):
        check(exim.tool("cat", path) == exim.tool("cat", name) and exim.tool("ls", path) == exim.tool("ls", name), path)
    check(exim.tool("ls", str(exim.spool)) == exim.tool("ls"), "the spool itself")
    link = exim.work / "link"
    link.symlink_to(exim.spool)
    for path in (f"{link}/{name}", f"{exim.spool}/../{exim.spool.name}/{name}", f"{exim.spool}/input/.././{name}", f"./{name}",
                 f"{link}/../{exim.spool.name}//{name}", f"input/../{name}"):
        check(exim.tool("cat", path) == exim.tool("cat", name), path)
    for path in (f"{exim.spool}x/{name}", "/etc/passwd", "/", f"../{exim.spool.name}/{name}", f"{exim.spool}/../log", "input/../../x"):
        for command in ("cat", "ls"):
            result = exim.command(command, path, program=TOOL, stock=True)
            check(result.returncode == 1 and result.stderr.decode() == f"fastspool: {path} is not below the spool {exim.spool}\n",
                  f"{command} {path}: {result}")
    (exim.spool / "db").mkdir(exist_ok=True)
    (exim.spool / "db/own").touch()
    for path, says in (("db/own", "is on the disk alone, and not in the store"), (f"{exim.spool}/input/none", "No such file or directory"),
                       ("input/none", "No such file or directory")):
        for command in ("cat", "ls"):
            result = exim.command(command, path, program=TOOL, stock=True)
            check(result.returncode == 1 and says in result.stderr.decode() and str(exim.spool / path) in result.stderr.decode(),
                  f"{command} {path}: {result}")
    for command in ("cat", "ls"):
        result = exim.command(command, "", program=TOOL, stock=True)
        check(result.returncode == 1 and b"an empty PATH" in result.stderr, f"{command} of nothing: {result}")
    mended(exim)


@test(library=True)
def an_ordinary_user(exim):
    """A user who may not look into the spool gets that sentence, and not that it is no spool."""
    exim.run("run", "--", "ls", program=TOOL, stock=True)
    exim.spool.chmod(0o750)
    exim.work.chmod(0o755)
    for command in ON_A_SPOOL:
        if command.startswith("run"):       # the command says it, if it needs the spool
            continue
        result = exim.command(*(command % exim.spool).split(), program=TOOL, stock=True, user=USER)
        said = result.stderr.decode()
        check(result.returncode == 1 and "no spool" not in said and "as root" in said and said.count("\n") == 1, f"{command}: {result}")


@test(main=QUEUE_ONLY, library=True)
def caller_s_environment(exim):
    """In secure execution the caller's variables have no effect.  The mail is in the one queue."""
    message = exim.expect(Message(), "sink")
    exim.run("-oi", "-f", message.sender, *message.recipients, input=message.content(), user=USER, environment={
        "FASTSPOOL_SPOOL": "/srv/other", "FASTSPOOL_STATE": "/srv/other", "FASTSPOOL_RUNTIME": "/srv",
        "FASTSPOOL_MEMORY": "nonsense", "FASTSPOOL_DURABILITY": "nonsense"})
    check(len(exim.queue()) == 1, "the message isn't in the queue")
    mended(exim)


@test(main=QUEUE_ONLY, library=True)
def other_programs(exim):
    """The library does nothing in other programs, set-user-ID or not."""
    exim.submit(exim.expect(Message(), "sink"))
    for program, arguments in (("/bin/su", ("-c", "true", "nobody")), ("/usr/bin/passwd", ("-S",)), ("/bin/mount", ()),
                               ("/bin/cat", ("/proc/self/maps",))):
        for user in (None, USER):
            result = exim.command(*arguments, program=program, user=user)
            check(b"fastspool:" not in result.stderr and b"/fastspool." not in result.stdout,
                  f"{program}: {result.stderr!r}")
    mended(exim)


if __name__ == "__main__":
    main("bad_input")
