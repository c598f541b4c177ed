#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Operating: an administrator's mistakes, each made on purpose, and what tells of them.

Each mistake is told by `fastspool doctor`, and `fastspool doctor --start`, which a service runs before Exim, refuses the
start with the same words.
"""
import contextlib
import json
import os
import pathlib
import shutil
import subprocess

from disk import LoopDisk
from harness import (EXIM, FASTSPOOL_CONFIGURATION, LIBRARY, QUEUE_ONLY, TOOL, Message, check, main, test, wait_for)
from viewed import is_view

DEFAULTS = pathlib.Path("/etc/default/exim4")
PRELOAD = f"export LD_PRELOAD={LIBRARY}\n"
INSTALLED = pathlib.Path(f"/usr/lib/x86_64-linux-gnu/{LIBRARY}")
STATES = ("ok", "attention", "wrong")


# --- the patient --------------------------------------------------------------------------------------------------

@contextlib.contextmanager
def well(exim, *more):
    """A machine in order: the state on an ext4, the library in Exim's defaults, the daemon running."""
    before = DEFAULTS.read_text()
    DEFAULTS.write_text(before + PRELOAD)
    place = exim.work / "disk"
    place.mkdir()
    disk = LoopDisk(place, 256)
    (place / "state").mkdir(mode=0o700)
    shutil.chown(place / "state", "Debian-exim", "Debian-exim")
    exim.fastspool_configuration(f"memory = {exim.memory}", f"state = {place}/state", *more)
    exim.start()
    try:
        yield disk
    finally:
        DEFAULTS.write_text(before)
        exim.stop()
        exim.run("stop", program=TOOL, stock=True)
        exim.fastspool_configuration(f"memory = {exim.memory}", f"state = {place}/state", *more)


def doctor(exim, *arguments, **environment):
    """(exit status, {check: (worst verdict, all that was found)}, standard error)."""
    result = exim.command("doctor", "--json", *arguments, program=TOOL, stock=True, environment=environment)
    report = json.loads(result.stdout)
    found = {}
    for finding in report["findings"]:
        verdict, text = found.get(finding["check"], ("ok", ""))
        verdict = max(verdict, finding["verdict"], key=STATES.index)
        found[finding["check"]] = (verdict, f"{text}{finding['found']}; {finding.get('do', '')}\n")
    check(STATES[result.returncode] == report["verdict"] or "--start" in arguments,
          f"exit status {result.returncode}: {report['verdict']}")
    return result.returncode, found, result.stderr.decode()


def tells(exim, name, verdict, *words):
    """The doctor's check NAME has VERDICT, and says WORDS."""
    _, found, _ = doctor(exim)
    check(name in found and found[name][0] == verdict and all(word in found[name][1] for word in words),
          f"doctor does not say {verdict} and {words} of {name}: {found}")


def refuses(exim, *words, **environment):
    """A start of Exim is refused, with WORDS."""
    status, _, errors = doctor(exim, "--start", **environment)
    check(status == 2 and errors.startswith("fastspool: Exim must not start so: ") and all(word in errors for word in words),
          f"doctor --start: exit {status}, {errors!r}, and not {words}")


def allows(exim, **environment):
    """A start of Exim is not refused, and nothing is said."""
    status, found, errors = doctor(exim, "--start", **environment)
    check(status == 0 and not errors, f"doctor --start: exit {status}, {errors!r}, {found}")


@contextlib.contextmanager
def written(path, text):
    """PATH has TEXT, for a time."""
    path = pathlib.Path(path)
    before = path.read_text() if path.exists() else None
    path.write_text(text)
    try:
        yield
    finally:
        path.unlink() if before is None else path.write_text(before)


# --- all is well --------------------------------------------------------------------------------------------------

@test(library=True)
def all_is_well(exim):
    """On a machine in order every line says ok, but that there is no view; the start is allowed."""
    with well(exim):
        status, found, _ = doctor(exim)
        bad = {name: finding for name, finding in found.items() if finding[0] != "ok"}
        check(set(bad) == {"readers"} and status == 1, f"exit {status}: {bad}")
        check("1, with the library" in found["running exims"][1], f"{found['running exims']}")
        allows(exim)
        text = exim.command("doctor", program=TOOL, stock=True).stdout.decode()
        check(len(text.splitlines()) == len(found) and all(line.startswith(STATES) for line in text.splitlines()), text)


# --- each mistake -------------------------------------------------------------------------------------------------

@test(library=True)
def a_typo_in_the_configuration(exim):
    """An unknown key, a bad value, a file that others can write: the line is named."""
    with well(exim):
        good = pathlib.Path(FASTSPOOL_CONFIGURATION).read_text()
        for line, words in (("durabilty = acked", ("durabilty", "unknown key")), ("memory = lots", ("lots",))):
            with written(FASTSPOOL_CONFIGURATION, good + line + "\n"):
                where = f"{FASTSPOOL_CONFIGURATION}:{good.count(chr(10)) + 1}"
                tells(exim, "configuration", "wrong", where, *words)
                refuses(exim, where, *words)
        os.chmod(FASTSPOOL_CONFIGURATION, 0o666)
        tells(exim, "configuration", "wrong", "root alone")
        refuses(exim, "root alone")
        os.chmod(FASTSPOOL_CONFIGURATION, 0o644)
        allows(exim)


@test(library=True)
def another_spool_or_program(exim):
    """The configuration names another spool, or another program, than this Exim's."""
    with well(exim):
        good = pathlib.Path(FASTSPOOL_CONFIGURATION).read_text()
        for text, name, words in ((good.replace(f"spool = {exim.spool}", "spool = /srv"), "spool", (f"`spool = {exim.spool}`",)),
                                  (good + "program = /usr/sbin/exim5\n", "program", (f"`program = {EXIM}`",))):
            with written(FASTSPOOL_CONFIGURATION, text):
                tells(exim, name, "wrong", *words)
                refuses(exim, *words)
        allows(exim)


@test(library=True)
def the_library_is_lost(exim):
    """Its set-user-ID bit, its owner, or its file is lost: it is told, and that a real set-user-ID Exim does not load it."""
    target = pathlib.Path(os.path.realpath(INSTALLED))
    with well(exim):
        for spoil, mend, words in ((lambda: target.chmod(0o644), lambda: target.chmod(0o4644), "chmod 4644"),
                                   (lambda: os.chown(target, 1, 1), lambda: [os.chown(target, 0, 0), target.chmod(0o4644)],
                                    "chown root:root"),
                                   (lambda: target.rename(f"{target}.away"), lambda: os.rename(f"{target}.away", target),
                                    "install the library")):
            spoil()
            try:
                tells(exim, "library", "wrong", words)
                tells(exim, "secure execution", "wrong", "does not load the library")
                refuses(exim, words, "does not load the library")
            finally:
                mend()
            allows(exim)


@test(library=True)
def a_start_without_the_library(exim):
    """Nothing gives Exim the library, or a path with slashes does: the start is refused.  Each of the other ways in counts."""
    with well(exim):
        good = DEFAULTS.read_text()
        for text, words in ((good.replace(PRELOAD, ""), "nothing gives Exim the library"),
                            (good.replace("export ", ""), "nothing gives Exim the library"),
                            (good.replace(LIBRARY, str(INSTALLED)), "the bare name")):
            with written(DEFAULTS, text):
                tells(exim, "start of exim", "wrong", words)
                refuses(exim, words)
        with written(DEFAULTS, good.replace(PRELOAD, "")):
            allows(exim, LD_PRELOAD=LIBRARY)
            with written("/etc/ld.so.preload", f"{LIBRARY}\n"):
                allows(exim)


@test(library=True, main=QUEUE_ONLY)
def an_exim_without_the_library(exim):
    """A daemon without the library beside mail in the store: which process it is, and how many messages stand."""
    with well(exim):
        exim.submit(Message())
        exim.queued = 1
        exim.stop()
        tells(exim, "running exims", "attention", "no Exim runs")
        tells(exim, "mail in the store", "wrong", "1 messages stand")
        daemon = subprocess.Popen([EXIM, "-bdf"], env=exim.environment(stock=True), cwd="/", stdin=subprocess.DEVNULL)
        try:
            tells(exim, "running exims", "wrong", f"process {daemon.pid} ({EXIM} -bdf) has not got the library")
            tells(exim, "mail in the store", "wrong", "1 messages stand")
        finally:
            daemon.terminate()
            daemon.wait(20)


@test(library=True, main=QUEUE_ONLY)
def mail_on_the_disk(exim):
    """What Exim without the library has queued is counted, in each layout and queue."""
    with well(exim):
        tells(exim, "mail on the disk", "ok", "none")
        exim.command("-oi", Message().recipients[0], input=b"Subject: plain\n\n", stock=True)
        tells(exim, "mail on the disk", "attention", "1 messages on the plain disk")
        for queue in ("input/a", "other/input", "other/input/b"):
            (exim.spool / queue).mkdir(parents=True)
            (exim.spool / queue / "1pZzzz-000000-00-H").touch()
        tells(exim, "mail on the disk", "attention", "4 messages on the plain disk")
        shutil.rmtree(exim.spool / "other")
        shutil.rmtree(exim.spool / "input")
        shutil.rmtree(exim.spool / "msglog")


@test(library=True)
def the_wrong_owner(exim):
    """The spool or the state directory is another user's, as after a restore with numbers of another machine."""
    with well(exim):
        state = exim.work / "disk" / "state"
        for path, words in ((exim.spool, "Exim runs as Debian-exim"), (state, "writable by that user alone")):
            os.chown(path, 12345, -1)
            try:
                tells(exim, "exim user", "wrong", words, "12345", "chown -R Debian-exim:")
                refuses(exim, words, "12345")
            finally:
                shutil.chown(path, "Debian-exim")
        allows(exim)


@test(library=True)
def no_disk(exim):
    """The state lies in memory, on an overlay, on a disk without barriers or to be read only: each is told; a start on memory
    alone is refused."""
    with well(exim) as disk:
        good = pathlib.Path(FASTSPOOL_CONFIGURATION).read_text()
        with written(FASTSPOOL_CONFIGURATION, "".join(line for line in good.splitlines(True) if "state" not in line)):
            tells(exim, "disk", "wrong", f"{exim.spool} is on tmpfs", "loses all mail")
            tells(exim, "fdatasync", "wrong", "no disk is as fast")
            refuses(exim, "is on tmpfs")
        (pathlib.Path("/usr/state")).mkdir()
        with written(FASTSPOOL_CONFIGURATION, good.replace(f"{disk.place}/state", "/usr/state")):
            tells(exim, "disk", "attention", "overlay")
            allows(exim)
        exim.stop()
        exim.tool("stop")
        subprocess.run(["mount", "-o", "remount,nobarrier", disk.place], check=True)
        tells(exim, "barriers", "attention", "power cut")
        subprocess.run(["mount", "-o", "remount,barrier,ro", disk.place], check=True)
        tells(exim, "disk", "wrong", "read only")
        tells(exim, "barriers", "ok")
        refuses(exim, "read only")
        subprocess.run(["mount", "-o", "remount,rw", disk.place], check=True)
        exim.start()


@test(library=True)
def fsync_is_a_lie(exim):
    """A library like eatmydata, preloaded everywhere or into Exim alone.  Other libraries are no reason."""
    source, eats, other = exim.work / "lie.c", "/usr/lib/x86_64-linux-gnu/libeats.so", "/usr/lib/x86_64-linux-gnu/libother.so"
    for path, code in ((eats, "int fsync(int fd) { return 0; } int fdatasync(int fd) { return 0; }"),
                       (other, "int other(int fd) { return 0; }")):
        source.write_text(code)
        subprocess.run(["gcc", "-shared", "-fPIC", "-w", "-o", path, source], check=True)
        os.chmod(path, 0o4644)
    with well(exim):
        with written("/etc/ld.so.preload", f"{other}\n"):
            tells(exim, "other libraries", "ok")
        with written("/etc/ld.so.preload", f"{eats}\n"):
            tells(exim, "other libraries", "wrong", eats, "/etc/ld.so.preload")
            tells(exim, "fdatasync", "wrong", "no disk is as fast")
            refuses(exim, eats)
        with written(DEFAULTS, f"export LD_PRELOAD={LIBRARY}:libeats.so\n"):
            tells(exim, "other libraries", "wrong", "libeats.so, in Exim's LD_PRELOAD")
            refuses(exim, "libeats.so")


@test(library=True)
def too_little_memory(exim):
    """`memory` is more than the store's file system has, or that one is no tmpfs."""
    with well(exim) as disk:
        good = pathlib.Path(FASTSPOOL_CONFIGURATION).read_text()
        with written(FASTSPOOL_CONFIGURATION, good.replace(f"memory = {exim.memory}", "memory = 20T")):
            tells(exim, "memory", "attention", "has only")
        with written(FASTSPOOL_CONFIGURATION, f"{good}runtime = {disk.place}\n"):
            tells(exim, "memory", "wrong", "is ext4")
            refuses(exim, "is ext4")


@test(("", {"fastspool": ("view = auto",)}), library=True)
def the_view(exim):
    """With a view every line says ok; an Exim without the library works on it, and is told.  Without /dev/fuse it is told
    which readers see nothing."""
    for name in ("input", "msglog"):
        (exim.spool / name).mkdir()
        exim.own(exim.spool / name)
    with well(exim, "view = auto"):
        wait_for(lambda: is_view(exim.spool / "input") and is_view(exim.spool / "msglog"), "the view is mounted")
        status, found, _ = doctor(exim)
        bad = {name: finding for name, finding in found.items() if finding[0] != "ok"}
        check(status == 0 and "mounted over" in found["view"][1], f"exit {status}: {bad}")
        daemon = subprocess.Popen([EXIM, "-bdf", "-oX", "2527"], env=exim.environment(stock=True), cwd="/", stdin=subprocess.DEVNULL)
        tells(exim, "running exims", "attention", f"process {daemon.pid}", "works on the view")
        daemon.terminate()
        daemon.wait(20)
        closed = exim.command("--mount", "sh", "-c", f"mount --bind /srv /dev && {TOOL} doctor", program="unshare", stock=True)
        check(b"no view can be mounted: /dev/fuse: " in closed.stdout, f"{closed}")


@test(library=True)
def readers_without_a_view(exim):
    """Without a view the jobs are named that would see an empty queue."""
    job = "17 * * * * root mailq | mail -s queue postmaster\n"
    with well(exim), written("/etc/cron.d/queue", job):
        tells(exim, "readers", "attention", "/etc/cron.d/queue", "/etc/cron.daily/exim4-base")


@test(library=True)
def only_root(exim):
    """Another user is told that it takes root."""
    result = exim.command("doctor", program=TOOL, stock=True, user="Debian-exim")
    check(result.returncode == 77 and b"run `fastspool doctor` as root" in result.stderr and not result.stdout, f"{result}")


if __name__ == "__main__":
    main("operating")
