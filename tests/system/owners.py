#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Owners and modes: a chown or chmod by mistake, of each part of a spool, and what tells of it.

The table is PLACES x MISTAKES: all that a spool with a view consists of, and what hands slip to.  Whatever of it keeps Exim
from taking, delivering or showing mail is told by `fastspool status` (exit status 2) and refused by `fastspool doctor
--start`, with the path, the reason, and a command that mends it.  What does no harm is not told.
"""
import contextlib
import os
import pathlib
import pwd
import re
import shutil
import subprocess

from disk import LoopDisk
from harness import (FASTSPOOL_CONFIGURATION, LIBRARY, QUEUE_ONLY, TOOL, Client, Failure, Message, check, main, test, wait_for)
from viewed import is_view

DEFAULTS = pathlib.Path("/etc/default/exim4")
REGISTRY = pathlib.Path("/run/fastspool")
NOBODY = pwd.getpwnam("nobody")
MISTAKES = {"mode 0": lambda path: path.chmod(0), "mode 0777": lambda path: path.chmod(0o777),
            "root's": lambda path: os.chown(path, 0, 0), "nobody's": lambda path: os.chown(path, NOBODY.pw_uid, NOBODY.pw_gid)}
WELL = "all is well"


def below(directory):
    """All that is there; of the files of a journal, and the placeholders of a store, one."""
    alike = {}
    for path in sorted(directory.rglob("*")):
        alike.setdefault(path.with_name(re.sub(r"^(\d\d\d\d|p\d\d)$", "", path.name) or "any"), path)
    return [directory, *alike.values()]


def places(exim):
    """All that there is of a spool, but for the directories of its queue."""
    return [exim.spool, *below(exim.spool / ".fastspool"), *below(REGISTRY), pathlib.Path(FASTSPOOL_CONFIGURATION)]


@contextlib.contextmanager
def mistaken(path, mistake):
    """A mistake, until it is mended."""
    was = path.stat()
    MISTAKES[mistake](path)
    try:
        yield
    finally:
        os.chown(path, was.st_uid, was.st_gid)
        path.chmod(was.st_mode & 0o7777)


@contextlib.contextmanager
def on_disk(exim):
    """A machine in order, of which SPOOL is a file system."""
    before = DEFAULTS.read_text()
    exim.panic = "Permission denied|Input/output error"
    DEFAULTS.write_text(before + f"export LD_PRELOAD={LIBRARY}\n")
    LoopDisk(exim.spool, 256)
    (exim.spool / "lost+found").rmdir()
    exim.own(exim.spool)
    try:
        yield
    finally:
        DEFAULTS.write_text(before)


@contextlib.contextmanager
def spool_on_disk(exim):
    """The same with a view; one message is in its queue."""
    with on_disk(exim):
        exim.make_directories()
        exim.start()
        exim.submit(Message())
        exim.queued += 1
        wait_for(lambda: is_view(exim.spool / "msglog") and exim.status()["line"] == WELL, "all is well")
        yield


def start(exim):
    """Why a start of Exim is refused, "": it is not."""
    result = exim.command("doctor", "--start", program=TOOL, stock=True)
    check(bool(result.returncode) == bool(result.stderr), f"doctor --start: {result}")
    return result.stderr.decode()


def takes(exim):
    """Is a message taken?  It is in the queue then."""
    with contextlib.suppress(Failure, OSError), contextlib.closing(Client()) as client:
        return client.send(Message())[0] == 250
    return False


def shows(exim):
    """Does a new Exim show the queue?"""
    return exim.command("-bpc").returncode == 0


def commands(said):
    """What is to be typed, by the first line of what was said."""
    return re.findall("`((?:fastspool (?:stop; |run -- ))?ch(?:own|mod) .*?)`", said.splitlines()[0]) if said else []


def mend(exim, path, said):
    """What is wrong with what was SAID of a mistake at PATH; "": it has path and command, and typing that helps."""
    if not commands(said) or str(path) not in said:
        return f"no path, or no command: {said}"
    subprocess.run(["bash", "-c", commands(said)[0]], cwd="/", capture_output=True, check=False)
    return ""


def look(exim, path):
    """What is false while Exim runs beside a mistake at PATH."""
    status, refused = exim.status(), start(exim)
    line, health = status["line"], status["health"]
    works = takes(exim) and shows(exim)
    if (not works and health != 2) or (health == 0) != (line == WELL) or "no store in memory" in status["view"]:
        return f"mail stands, or a store is there, and status says {health}: {line}; {status['view']}"
    if refused and health == 0:
        return f"a start is refused, and status says {line}: {refused}"
    if health == 2 and not refused:
        return f"mail stands, and a start is not refused: {line}"
    if health and (problem := mend(exim, path, line if not commands(refused) else refused)):
        return problem
    if health and not commands(line):
        return f"status says no command: {line}"
    if health == 0:
        return ""
    with contextlib.suppress(Failure):
        wait_for(lambda: exim.status()["line"] == WELL and not start(exim) and shows(exim) and takes(exim), "mended")
        return ""
    return f"{commands(refused or line)[0]} does not mend it: {exim.status()['line']}; {start(exim)}"


def empty(exim):
    """Take the messages out of the queue that were taken since."""
    ids = exim.queue()[1:]
    if ids:
        exim.run("-Mrm", *ids)


@test(library=True, main=QUEUE_ONLY, fastspool=("view = auto",))
def mistakes_beside_a_running_exim(exim):
    """Each mistake while Exim, mirror and view run is told, with what mends it, if it does harm or will at the next start."""
    problems = []
    with spool_on_disk(exim):
        for path in [*places(exim), exim.spool / "input", exim.spool / "msglog"]:
            for mistake in MISTAKES:
                with mistaken(path, mistake):
                    problem = look(exim, path)
                if problem:
                    problems.append(f"{path} is {mistake}: {problem}")
        empty(exim)
    check(not problems, "\n".join(problems))


def look_stopped(exim, path):
    """What is false where no Exim runs, beside a mistake at PATH; None: its start is allowed."""
    refused = start(exim)
    if not refused:
        return None
    if problem := mend(exim, path, refused):
        return problem
    return f"{commands(refused)[0]} does not mend it: {again}" if (again := start(exim)) else ""


def type_what_is_said(exim):
    """The first line of status, and what it names is done: one mistake after the other, and then the view is mounted."""
    line = exim.status()["line"]
    for command in [*commands(line), *(["fastspool run -- true"] if line != WELL else [])]:
        subprocess.run(["bash", "-c", command], env=exim.environment(stock=True), check=True)
    return line


def try_all(exim, allowed, mistake):
    """A start with all MISTAKEs at ALLOWED, which no refusal names, takes mail and has the old.  If there is no view then, status
    says what mends that."""
    with contextlib.ExitStack() as mistakes:
        for path in allowed:
            mistakes.enter_context(mistaken(path, mistake))
        exim.start()
        good = takes(exim) and len(exim.queue()) == 2
        wait_for(lambda: (line := exim.status()["line"]) == WELL or commands(line), "status says what is")
        wait_for(lambda: type_what_is_said(exim) == WELL and is_view(exim.spool / "input"), "all is well")
        empty(exim)
        exim.stop()
    return "" if good else f"{mistake}, which no refusal names, of {[str(path) for path in allowed]}: no mail is taken, or shown: {exim.status()['line']}"


def go_through(exim, prepare, *more):
    """The whole table of mistakes, made before a start of Exim, and with those MORE places.  PREPARE: before the first, and each
    start.  (Of the directories below a view the import tells.)"""
    problems = []
    for mistake in MISTAKES:
        allowed = []
        for path in [*places(exim), *more]:
            with mistaken(path, mistake):
                problem = look_stopped(exim, path)
            if problem is None:
                allowed.append(path)
            elif problem:
                problems.append(f"{path} is {mistake}: {problem}")
        if problem := try_all(exim, allowed, mistake):
            problems.append(problem)
        prepare()
    check(not problems, "\n".join(problems))


@test(library=True, main=QUEUE_ONLY, fastspool=("view = auto",))
def mistakes_before_a_start(exim):
    """Each mistake while Exim is stopped, and the store in memory, refuses its start, with what mends it; or does no harm."""
    with spool_on_disk(exim):
        exim.stop()
        go_through(exim, lambda: None, exim.spool / "input", exim.spool / "msglog")


@test(library=True, main=QUEUE_ONLY, fastspool=("view = auto",))
def mistakes_after_stop(exim):
    """The same where `fastspool stop` has ended the store: the state on the disk has it."""
    with spool_on_disk(exim):
        exim.stop()
        exim.tool("stop")
        go_through(exim, lambda: exim.tool("stop"))


# --- directories of the queue on the disk, without a view -----------------------------------------------------------

IN_QUEUE = ("acl_smtp_mail = accept queue = ${if eq{$sender_address}{q@sink.test}{Q}}",)
DIRECTORIES = ("Q", "Q/input", "Q/msglog", "Q/input/8", "input", "msglog", "input/8")


def make(exim, name, mistake):
    """Directory NAME of the queue, as MISTAKE has left it, or a file.  What a named queue is known by is there."""
    path = exim.spool / name
    for other in ("Q", "Q/input" if name != "Q/input" else "Q/msglog", path.parent):
        (exim.spool / other).mkdir(exist_ok=True)
        exim.own(exim.spool / other)
    if mistake == "a file":
        path.touch()
        return path
    path.mkdir(exist_ok=True)
    exim.own(path)
    MISTAKES[mistake](path)
    return path


@test(library=True, main=QUEUE_ONLY)
def links_of_the_mail_user(exim):
    """A link of the mail user's in the place of a queue leads to a directory of root's: no command names what is behind it, which root
    would give away.  Exim starts, and the link is none of the store's."""
    with on_disk(exim):
        roots = exim.work / "roots"
        (roots / "input").mkdir(parents=True)
        for name, target in (("Q", roots), ("msglog", roots / "input")):
            (exim.spool / name).symlink_to(target)
            os.chown(exim.spool / name, exim.spool.stat().st_uid, -1, follow_symlinks=False)
        check(not (said := start(exim)), said)
        exim.start()
        check(str(roots) not in (line := exim.status()["line"]) and f"{exim.spool}/" not in line, line)


@test(library=True, main=QUEUE_ONLY)
def links_put_there_later(exim):
    """The mail user puts a link in the place of a queue after it was said that a directory there is another user's: the command gives
    nothing away that the link leads to."""
    roots = exim.work / "roots"
    (roots / "input/8").mkdir(parents=True)
    with on_disk(exim):
        for name, top, target in (("Q/input", "Q", roots), ("input/8", "input", roots / "input"), ("input", "input", roots / "input")):
            path = make(exim, name, "nobody's")
            (command,) = commands(said := start(exim))
            check(f"{path} is user" in said, said)
            (exim.spool / top).rename(exim.spool / "away")
            (exim.spool / top).symlink_to(target)
            subprocess.run(["bash", "-c", command], cwd="/", check=True)
            check({entry.stat().st_uid for entry in (roots, *roots.rglob("*"))} == {0}, f"given away by {command}")
            (exim.spool / top).unlink()
            (exim.spool / "away").rename(exim.spool / top)
            clear(exim)


@test(library=True, main=QUEUE_ONLY, fastspool=("view = auto",))
def links_in_the_state(exim):
    """So it is in the state: the command for a part that has lost its mode shuts nobody out of what a link leads to.  And where the
    way to the state leads through a directory of the mail user's, no command opens what a link there leads to."""
    own, roots = exim.work / "own", exim.work / "roots"
    roots.mkdir(mode=0o755)
    own.mkdir()
    exim.own(own)
    with spool_on_disk(exim):
        journal = exim.spool / ".fastspool/journal"
        journal.chmod(0)
        (command,) = commands(said := start(exim))
        check(str(journal) in said, said)
        journal.rename(journal.with_name("away"))
        journal.symlink_to(roots)
        subprocess.run(["bash", "-c", command], cwd="/", check=True)
        check((roots.stat().st_uid, roots.stat().st_mode & 0o777) == (0, 0o755), f"changed by {command}")
        journal.unlink()
        journal.with_name("away").rename(journal)
        subprocess.run(["bash", "-c", command], cwd="/", check=True)
        check(not (said := start(exim)), said)
        exim.stop()
        exim.tool("stop")
        roots.chmod(0o700)
        (own / "link").symlink_to(roots)
        exim.fastspool_configuration("view = off", f"state = {own}/link/state")
        check("Permission denied" in (said := start(exim)) and not commands(said), said)
        exim.fastspool_configuration("view = auto")


def clear(exim):
    for name in ("Q", "input", "msglog"):
        path = exim.spool / name
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def refused_as_plain(exim, path):
    """What is false of a refused start beside PATH."""
    said = start(exim)
    if "mail stands" not in said or f"{path} " not in said or exim.command("doctor", program=TOOL, stock=True).returncode != 2:
        return f"not told: {said}"
    if path.is_dir():
        subprocess.run(["bash", "-c", commands(said)[0]], cwd="/", check=True)
    else:
        path.rename(path.with_name("away"))
    said = start(exim)
    return f"not mended: {said}" if said else ""


@test(library=True, main=QUEUE_ONLY + IN_QUEUE)
def directories_of_the_disk(exim):
    """Before the first use the store takes its queue's directories over from the disk, and those of a named queue: one that Exim's
    user can't use refuses the start, as that Exim would answer 421, or deliver nothing.  One that the store has is no matter."""
    problems = []
    with on_disk(exim):
        for name in DIRECTORIES:
            for mistake in ("mode 0", "root's", "nobody's", *(["a file"] if name != "Q" else [])):
                path = make(exim, name, mistake)
                if problem := refused_as_plain(exim, path):
                    problems.append(f"{path} is {mistake}: {problem}")
                clear(exim)
        check(not problems, "\n".join(problems))
        make(exim, "Q/input", "mode 0777")
        make(exim, "input", "mode 0777")
        check(not start(exim), f"what Exim can use is refused: {start(exim)}")
        exim.start()
        for sender in ("q@sink.test", "sender@sink.test"):
            with contextlib.closing(Client()) as client:
                check(client.send(exim.expect(Message(sender=sender), "sink"))[0] == 250, "a message was refused")
        exim.run("-qGQ")
        exim.deliver_queue()
        exim.stop()
        clear(exim)
        make(exim, "Q/input", "nobody's")
        check(not start(exim), f"what the store has is refused for the disk's: {start(exim)}")


@test(library=True, main=QUEUE_ONLY)
def named_queues_of_the_disk(exim):
    """The mail user's named queues on the disk cost status a few calls each.  Of very many it looks at some, and says how many it has
    not looked at; a start is not refused.  When they are gone all is well."""
    def made(numbers):
        for number in numbers:
            for name in (f"q{number}", f"q{number}/input"):
                (exim.spool / name).mkdir()
                exim.own(exim.spool / name)

    with on_disk(exim):
        exim.start()
        made(range(100))
        trace = exim.work / "calls"
        subprocess.run(["strace", "-o", trace, "-e", "trace=openat2", TOOL, "status"], env=exim.environment(stock=True), check=True,
                       stdout=subprocess.DEVNULL)
        calls = sum("q" in line for line in trace.read_text().splitlines())
        check(500 < calls < 3000, f"{calls} look-ups for 100 queues")
        made(range(100, 10010))
        status, said = exim.status(), exim.command("doctor", program=TOOL, stock=True).stdout.decode()
        told = f"of 10010 named queues on the disk, in {exim.spool}, 10 were not looked at"
        check(status["health"] == 1 and told in status["line"] and told in said, f"{status['line']}, {said}")
        check(not start(exim), f"the start is refused: {start(exim)}")
        (exim.spool / "q0").chmod(0)
        check("q0 has mode 0000" in (line := exim.status()["line"]) or told in line, line)
        for number in range(10010):
            (exim.spool / f"q{number}/input").rmdir()
            (exim.spool / f"q{number}").rmdir()
        check((line := exim.status()["line"]) == WELL, line)


@test(library=True, main=QUEUE_ONLY + IN_QUEUE)
def directories_of_the_store(exim):
    """Without a view the store's own are the same: status tells, and the start is refused; of a named queue, too."""
    with on_disk(exim):
        exim.start()
        for sender in ("q@sink.test", "sender@sink.test"):
            with contextlib.closing(Client()) as client:
                client.send(exim.expect(Message(sender=sender), "sink"))
        for name in ("Q/input", "Q/msglog", "input", "msglog"):
            for command in (("chmod", "0"), ("chown", "nobody")):
                exim.run("run", "--", *command, exim.spool / name, program=TOOL, stock=True)
                said, status = start(exim), exim.status()
                check(commands(said) == commands(status["line"]) and status["health"] == 2 and f"{exim.spool / name} " in said,
                      f"{name} after {command} is not told: {said}, {status['line']}")
                subprocess.run(["bash", "-c", commands(said)[0]], cwd="/", check=True)
                check(not start(exim) and exim.status()["line"] == WELL, f"{said} does not mend it: {start(exim)}")
        exim.run("-qGQ")
        exim.deliver_queue()


@test(("", {}), ("_view", {"fastspool": ("view = auto",)}), library=True, main=QUEUE_ONLY + IN_QUEUE)
def directories_of_the_database(exim):
    """After `fastspool stop` the disk has them alone: the start is refused as well, status says why, and what mends it in memory has
    mended it on the disk."""
    with on_disk(exim):
        exim.start()
        for sender in ("q@sink.test", "sender@sink.test"):
            with contextlib.closing(Client()) as client:
                client.send(exim.expect(Message(sender=sender), "sink"))
        exim.stop()
        for name in ("Q/input", "Q/msglog", "input", "msglog"):
            for command in (("chmod", "0"), ("chown", "nobody")):
                exim.tool("run", "--", *command, exim.spool / name)
                exim.tool("stop")
                said, line, doctor = start(exim), exim.status()["more"], exim.command("doctor", program=TOOL, stock=True)
                check(commands(said) and commands(said) == commands(line) and f"{exim.spool / name} " in said and
                      f"{exim.spool / name} ".encode() in doctor.stdout, f"{name} after {command} is not told: {said}, {line}, {doctor}")
                subprocess.run(["bash", "-c", commands(said)[0]], cwd="/", check=True)
                check(not (again := start(exim)), f"{said} does not mend it: {again}")
                exim.tool("stop")
                check(not (again := start(exim)), f"{said} does not mend it on the disk: {again}")
        exim.start()
        exim.run("-qGQ")
        exim.deliver_queue()


@test(library=True, main=QUEUE_ONLY, fastspool=("view = auto",))
def a_directory_below_the_view(exim):
    """The disk's input is another user's when the view is mounted, which is not mounted there then: status and doctor say so,
    and what mends it, and nothing of another file system."""
    with spool_on_disk(exim):
        exim.stop()
        exim.tool("stop")
        for mistake in ("nobody's", "a file"):
            path = exim.spool / "input"
            path.rmdir()
            path.touch() if mistake == "a file" else (path.mkdir(), MISTAKES[mistake](path))
            exim.tool("run", "--", "true")
            wait_for(lambda: is_view(exim.spool / "msglog"), "the view is mounted over msglog")
            status = exim.status()
            said = exim.command("doctor", program=TOOL, stock=True).stdout.decode()
            check(f"not over {path}, which is no directory of the spool owner's" in status["view"] and "findmnt" not in said and
                  "give that to the spool's owner" in said, f"{mistake}: {status['view']}, {said}")
            exim.tool("stop")
            path.unlink() if mistake == "a file" else path.rmdir()
            path.mkdir()
            exim.own(path)
        exim.tool("run", "--", "true")
        wait_for(lambda: is_view(exim.spool / "input") and exim.status()["line"] != "", "the view is mounted again")


if __name__ == "__main__":
    main("owners")
