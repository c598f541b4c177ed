#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Operating: an administrator's mistakes, each made on purpose, and what tells of them.

Each mistake is told by `fastspool doctor`, and `fastspool doctor --start`, which a service runs before Exim, refuses the
start with the same words.  `fastspool enable` and `disable` change nothing but what they say.
"""
import collections
import concurrent.futures
import contextlib
import fcntl
import json
import os
import pathlib
import pty
import re
import select
import shutil
import signal
import subprocess
import tempfile
import threading
import time

from disk import LoopDisk
from harness import (EXIM, EXIM_CONFIGURATION, FASTSPOOL_CONFIGURATION, ID, LIBRARY, QUEUE_ONLY, TOOL, USER, USER_ID, Client, Exim,
                     Failure, Log, Message, Skip, check, held, kill, kill_all, listens, main, processes, sleeps_in, stores, suspend, test,
                     wait_for, words_of)
from viewed import is_view

DEFAULTS = pathlib.Path("/etc/default/exim4")
BOOTED = pathlib.Path("/run/systemd/system")
PRELOAD = f"export LD_PRELOAD={LIBRARY}\n"
INSTALLED = pathlib.Path(f"/usr/lib/x86_64-linux-gnu/{LIBRARY}")
POSTINST = pathlib.Path(__file__).resolve().parents[2] / "debian/fastspool.postinst"
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
    wait_for(lambda: exim.status().get("recovering") is not True, "the store is recovered")
    try:
        yield disk
    finally:
        DEFAULTS.write_text(before)
        exim.stop()
        exim.tool("stop")
        exim.fastspool_configuration(f"memory = {exim.memory}", f"state = {place}/state", *more)


@contextlib.contextmanager
def well_with_view(exim):
    """The same, with the view mounted."""
    exim.make_directories()
    with well(exim, "view = auto"):
        wait_for(lambda: exim.status()["view_state"] == "mounted", "the view is mounted")
        yield


def receives(exim):
    """The daemon takes a message for the sink."""
    with contextlib.closing(Client()) as client:
        check(client.send(exim.expect(Message(), "sink"))[0] == 250, "mail is not taken")


def doctor(exim, *arguments, **environment):
    """(exit status, {check: (worst verdict, all that was found)}, standard error)."""
    result = exim.command("doctor", "--json", *arguments, program=TOOL, stock=True, environment=environment)
    report = json.loads(result.stdout)
    found = {}
    for finding in report["findings"]:
        check(re.fullmatch(r"\S(.*\S)?", finding["found"]), f"{finding} says nothing, or has a blank at an end")
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


def status_tells(exim, status, *words):
    """`fastspool status` ends with STATUS, and its first line has WORDS."""
    result = exim.command("status", program=TOOL, stock=True)
    line = (result.stderr or result.stdout).decode().splitlines()[0]
    check(result.returncode == status and all(word in line for word in words), f"status: exit {result.returncode}, {line!r}")


def comes_well(exim):
    """A new store, or a new mirror, is well a moment after its start."""
    wait_for(lambda: exim.command("status", program=TOOL, stock=True).returncode == 0, "all is well")


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
def little_room(exim):
    """A disk with less room than Exim's check_spool_space: `status` says that Exim answers 452, and it does."""
    with well(exim):
        place = exim.work / "disk"
        status_tells(exim, 0, "all is well")

        def room():
            return exim.status()["room_bytes"]
        with open(place / "filler", "wb") as filler:
            os.posix_fallocate(filler.fileno(), 0, room() - (5 << 20))
        check(1 << 20 < room() < 9 << 20, f"there is room for {room()} bytes")
        status_tells(exim, 2, "Exim answers 452", f"`df -h {place}/state`")
        client = Client()
        client.expect(452, b"MAIL FROM:<sender@sink.test>\r\n")
        client.close()
        (place / "filler").unlink()
        status_tells(exim, 0, "all is well")


@test(library=True)
def all_is_well(exim):
    """On a machine in order every line says ok, but that there is no view; the start is allowed."""
    with well(exim):
        status, found, _ = doctor(exim)
        bad = {name: finding for name, finding in found.items() if finding[0] != "ok"}
        check(set(bad) == {"readers"} and status == 1, f"exit {status}: {bad}")
        check("1, with the library" in found["running exims"][1], f"{found['running exims']}")
        memory = (exim.work / "disk/state/runtime").read_text().splitlines()[0]
        for name in ("memory", "huge pages"):
            check(memory in found[name][1], f"the memory is in {memory}: {found[name]}")
        room = os.statvfs(memory)
        check(f"of {room.f_blocks * room.f_frsize >> 20} MiB" not in found["memory"][1] and f"{memory} can grow to" in found["memory"][1],
              f"the file system grows, and {found['memory'][1]!r} does not tell")
        pages = exim.status()["pages"].split(",")[0]
        check(pages in found["huge pages"][1], f"status says {pages}, and doctor {found['huge pages']}")
        allows(exim)
        text = exim.command("doctor", program=TOOL, stock=True).stdout.decode()
        check(len(text.splitlines()) == len(found) and all(line.startswith(STATES) for line in text.splitlines()), text)


# --- each mistake -------------------------------------------------------------------------------------------------

@test(library=True)
def whoever_ignores_children(exim):
    """Started by a program that ignores SIGCHLD, a command sees the ends of its own children: it says the same, and ends."""
    with well(exim):
        exim.stop()                     # what a command says changes no more
        for command in (("verify",), ("doctor", "--json"), ("dump", "database"), ("backup", "/home/copy"), ("status", "--json")):
            said = []
            for how in ([], ["env", "--ignore-signal=CHLD"]):
                result = subprocess.run([*how, TOOL, *command], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
                said.append((result.returncode, re.sub(r"[0-9]+", "N", result.stdout + result.stderr)))
                shutil.rmtree("/home/copy", ignore_errors=True)
            check(said[0] == said[1], f"{command}: {said}")


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
                status_tells(exim, 2, where, *words)
        os.chmod(FASTSPOOL_CONFIGURATION, 0o666)
        tells(exim, "configuration", "wrong", "root alone")
        refuses(exim, "root alone")
        advice = re.search(r"`([^`]*go-w[^`]*)`", doctor(exim)[1]["configuration"][1])[1]
        subprocess.run(advice, shell=True, check=True)
        allows(exim)
        os.chmod(FASTSPOOL_CONFIGURATION, 0o644)


@test(("", {"fastspool": ("view = auto",)}), library=True)
def a_typo_beside_a_view(exim):
    """While a view is mounted mail goes on by it, whatever the configuration says: status needs attention, and knows its numbers
    as before.  `fastspool view` by hand is an error, and not "no view is possible".  An error of the caller's own environment
    is not Exim's."""
    with well_with_view(exim):
        good = pathlib.Path(FASTSPOOL_CONFIGURATION).read_text()
        for text in (good + "memroy = 1G\n", "memroy = 1G\n" + good):
            with written(FASTSPOOL_CONFIGURATION, text):
                message, client = exim.expect(Message(), "sink"), Client()
                check(client.send(message)[0] == 250, "mail is not taken")
                client.close()
                exim.wait_arrived(message)
                exim.settle()                   # what has arrived is in the queue a moment longer
                status, said, told, numbers = each_form(exim)
                check(status == 1 and "goes by the view" in said and "memroy" in said and told["store"] and "memroy" in told["line"],
                      f"exit {status}: {said}")
                check(numbers["fastspool_configuration_wrong"] == "1" and numbers["exim_queue"] == str(told["messages"]), f"{numbers}")
                tells(exim, "configuration", "wrong", "memroy", "mail goes by the view")
                view = exim.command("view", exim.spool, program=TOOL, stock=True)
                check(view.returncode == 1 and b"memroy" in view.stderr, f"{view}")
        path = pathlib.Path(FASTSPOOL_CONFIGURATION)
        for make in (path.mkdir, lambda: path.symlink_to("/nowhere")):      # it names no spool
            path.unlink()
            make()
            try:
                message, client = exim.expect(Message(), "sink"), Client()
                check(client.send(message)[0] == 250, "mail is not taken")
                client.close()
                exim.wait_arrived(message)
                said = operate(exim, "status", status=1)
                check("mail goes by the view" in said and "Exim takes and delivers no mail" not in said, said)
                tells(exim, "configuration", "wrong", "mail goes by the view")
            finally:
                path.rmdir() if path.is_dir() else path.unlink()
                path.write_text(good)
        exim.settle()
        with written(FASTSPOOL_CONFIGURATION, re.sub("(?m)^memory *=.*$", "memory = 1M", good)):
            receives(exim)
            exim.settle()
            status, said, told, _ = each_form(exim)
            check(status == 1 and "goes by the view" in said and "4 MiB" in said and told["store"], f"exit {status}: {said}")
        wrong = exim.command("status", "--prometheus", program=TOOL, stock=True, environment={"FASTSPOOL_MEMORY": "lots"})
        check(wrong.returncode == 1 and b"fastspool_configuration_wrong{" in wrong.stdout and
              f'fastspool_configuration_wrong{{spool="{exim.spool}"}} 0' in wrong.stdout.decode(), f"{wrong}")
        check(each_form(exim)[0] == 0, f"{each_form(exim)}")
        exim.stop()
        with enabled(exim), written(FASTSPOOL_CONFIGURATION, good + "memroy = 1G\n"):
            check("no Exim runs, and its start is refused" in operate(exim, "status", status=1), "status says that mail goes")


@test(library=True, fastspool=("view = auto",))
def a_turned_link(exim):
    """The link in the spool that says where its state is may be the mail user's: turned to a directory that root alone may enter it
    leads nobody there, not even by a question.  The first view begins, and status and doctor say nothing of that directory."""
    secret, state = exim.work / "secret", exim.spool / ".fastspool"
    (secret / "state/mirror").mkdir(parents=True)
    (secret / "state/mirror/data.mdb").touch()
    secret.chmod(0o700)
    (exim.spool / ".fastspool.state").symlink_to(secret / "state")
    exim.make_directories()
    check(not state.exists(), "the state is there already")
    view = subprocess.Popen([TOOL, "view", "--state", state, exim.spool], stderr=subprocess.PIPE)
    try:
        wait_for(lambda: view.poll() is not None or exim.status()["view_state"] == "mounted", "the view is mounted")
        check(view.poll() is None, view.poll() and view.stderr.read())
        status, said, told, _ = each_form(exim)
        check("secret" not in said and told.get("other_state") is None, f"exit {status}: {said}")
        doctor = exim.command("doctor", program=TOOL, stock=True)
        check(b"secret" not in doctor.stdout + doctor.stderr, f"{doctor}")
        operate(exim, "stop")
    finally:
        view.terminate()
        view.wait(60)


@test(library=True)
def a_typo_beside_a_daemon(exim):
    """A daemon that has the store takes mail into it, whatever becomes of the configuration, and delivers none: doctor and status
    say so.  Where none has it Exim takes none, and that is said."""
    with well(exim):
        good = pathlib.Path(FASTSPOOL_CONFIGURATION).read_text()
        with written(FASTSPOOL_CONFIGURATION, good + "memroy = 1G\n"):
            for count in range(1, 4):
                receives(exim)
                check(exim.status()["messages"] == count, f"{exim.status()}")
            wait_for(lambda: exim.log().count("Spool error") == 3, "no delivery has the store")
            check("takes mail into it, and delivers none" in (told := operate(exim, "status", status=2)) and "memroy" in told, told)
            tells(exim, "configuration", "wrong", "memroy", "takes mail into it, and delivers none")
            refuses(exim, "memroy", "takes mail into it, and delivers none")
        exim.run("-qff")
        exim.wait_arrived()
        exim.stop()
        operate(exim, "stop")
        with written(FASTSPOOL_CONFIGURATION, good + "memroy = 1G\n"):
            tells(exim, "configuration", "wrong", "Exim takes and delivers no mail")
            refuses(exim, "Exim takes and delivers no mail")
            check("Exim takes and delivers no mail" in operate(exim, "status", status=2), "status says something else")
            check(exim.command("-bpc").returncode != 0, "Exim has a queue")


@test(library=True)
def an_exim_that_says_nothing(exim):
    """Exim's configuration is wrong, as one that Debian's script has generated may be, and generates anew before each start."""
    with well(exim):
        good = pathlib.Path(EXIM_CONFIGURATION).read_text()
        with written(EXIM_CONFIGURATION, "nonsense\n" + good):
            words = "-bP spool_directory` says nothing", "run `/usr/sbin/update-exim4.conf`"
            tells(exim, "spool", "wrong", *words)
            refuses(exim, *words)
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
        status_tells(exim, 0, "all is well")
        for spoil, mend, words, how in (
                (lambda: target.chmod(0o644), lambda: target.chmod(0o4644), "chmod 4644", "is root's, of mode 0644"),
                (lambda: os.chown(target, 1, 1), lambda: [os.chown(target, 0, 0), target.chmod(0o4644)], "chown root:root", "is user 1's"),
                (lambda: target.rename(f"{target}.away"), lambda: os.rename(f"{target}.away", target), "install the library",
                 "`meson install -C build`")):
            spoil()
            try:
                status_tells(exim, 2, how)
                if "install" in words:
                    with written("/var/lib/dpkg/info/libfastspool0:amd64.list", "/.\n"):
                        status_tells(exim, 2, "`apt-get install --reinstall libfastspool0`")
                        tells(exim, "library", "wrong", "`apt-get install --reinstall libfastspool0`")
                tells(exim, "library", "wrong", words)
                tells(exim, "secure execution", "wrong", "does not load the library")
                refuses(exim, words, "does not load the library")
                status_tells(exim, 2, "re-executions do not load the library", "takes mail, and delivers none", str(INSTALLED))
            finally:
                mend()
            allows(exim)


@test(("", {}), ("_in_dev_shm", {}), library=True, main=QUEUE_ONLY)
def a_run_of_its_own(exim):
    """Exim's service has a /run, or a /dev/shm, of its own, in which the store's memory is not: its start is refused, and where it
    was started all the same, and answers 421, doctor and status say why.  What they advise helps."""
    place, own, more = "/run/fastspool", "mount -t tmpfs own /run", ()
    if exim.work.name.endswith("_in_dev_shm"):
        place, own, more = "/dev/shm", "mount -t tmpfs own /dev/shm", ("runtime = /dev/shm",)
    for name in ("input", "msglog"):
        (exim.spool / name).mkdir()
        exim.own(exim.spool / name)
    with well(exim, "view = auto", *more):
        wait_for(lambda: is_view(exim.spool / "input"), "the view is mounted")
        exim.stop()
        wait_for(lambda: not [pid for pid, name in processes() if name == "exim4"], "Exim has ended")
        mend = f"`BindPaths={place}`"

        def sandboxed(script, *command):
            return ["unshare", "--mount", "sh", "-ec", f'{script}; exec "$@"', "sh", *command]
        result = subprocess.run(sandboxed(own, TOOL, "doctor", "--start", f"--preload={LIBRARY}"), capture_output=True, text=True)
        check(result.returncode == 2 and "is not to be seen in the mounts of Exim's service" in result.stderr and mend in result.stderr,
              f"{result}")
        exim.daemon = subprocess.Popen(sandboxed(own, EXIM, "-bdf"), env=exim.environment(), stdin=subprocess.DEVNULL,
                                       stdout=open(exim.work / "daemon.out", "ab"), stderr=subprocess.STDOUT)
        exim.wait_listens()
        client = Client()
        client.expect(421, b"MAIL FROM:<sender@sink.test>\r\n")
        status_tells(exim, 2, f"process {exim.daemon.pid}", "is not to be seen", mend)
        tells(exim, "running exims", "wrong", f"process {exim.daemon.pid}", "does not see the store's memory", mend)
        client.stream.close()
        client.socket.close()       # the Exim that answers it would be another one without the memory
        exim.stop()
        bound = f"mkdir -p /tmp/kept; mount --rbind {place} /tmp/kept; {own}; mkdir -p {place}; mount --rbind /tmp/kept {place}"
        result = subprocess.run(sandboxed(bound, TOOL, "doctor", "--start", f"--preload={LIBRARY}"), capture_output=True, text=True)
        check(result.returncode == 0 and not result.stderr, f"{result}")
        exim.start()
        receives(exim)
        status_tells(exim, 0, "all is well")
        exim.deliver_queue()
    exim.panic = "failed to stat spool directory"


@test(library=True, main=(*QUEUE_ONLY, "message_size_limit = 5M"), memory="16M")
def no_room_for_the_memory(exim):
    """Another user has filled the file system where the store's memory is to be, to the last byte, or file, before it is made: the start
    is refused, and status does not promise that a start brings the mail back.  A store that is there goes on."""
    place = exim.work / "memory;id"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=1777,size=24m,nr_inodes=200", "memory", place], check=True)
    fills = ("dd if=/dev/zero of=filler bs=64k 2>/dev/null; true", "mkdir -p many; cd many; while mktemp -p . x.XXXXXXXX; do :; done >/dev/null 2>&1; true")
    with well(exim, f"runtime = {place}"):
        receives(exim)
        for fill in fills:
            used = ["setpriv", f"--reuid={USER_ID}", f"--regid={USER_ID}", "--clear-groups", "sh", "-c", f"cd '{place}'; {fill}"]
            subprocess.run(used, check=True, stderr=subprocess.DEVNULL)
            check(exim.run("-bpc") == b"1\n", "the store that is there is not used")
            status_tells(exim, 0, "all is well") if "many" in fill else status_tells(exim, 1, "other files leave the store", f"`ls -la '{place}'`")
            allows(exim)
            exim.stop()
            operate(exim, "stop")
            subprocess.run(used, check=True, stderr=subprocess.DEVNULL)      # what the stop has given back
            words = f"{place}, where the store's memory is to be, has room for", f"`ls -la '{place}'`"
            refuses(exim, *words)
            said = operate(exim, "status", status=2)
            check(all(word in said for word in words) and "brings it back" not in said and "Exim takes no mail" in said, said)
            result = exim.command("-bpc")
            check(result.returncode != 0 and str(place).encode() in result.stderr and b"No space left on device" in result.stderr, f"{result}")
            for left in list(place.iterdir()):
                shutil.rmtree(left) if left.is_dir() else left.unlink()
            allows(exim)
            exim.start()
            comes_well(exim)
        exim.deliver_queue()


@test(library=True)
def a_place_that_fails(exim):
    """The file system of the store's memory does not say how much room it has: doctor says which, and why."""
    place = exim.work / "memory"
    place.mkdir()
    exim.own(place)
    with well(exim, f"runtime = {place}"):
        said = exim.command("-f", "-o", exim.work / "trace", "-P", place, "-e", "trace=statfs", "-e", "inject=statfs:error=EIO", TOOL, "doctor",
                            program="strace", stock=True).stdout.decode()
        check(f"{place}, the place of the store: Input/output error" in said, said)


@test(library=True)
def a_service_that_fails(exim):
    """systemd says that the spool's service, or Exim's, has failed: mail goes on, by Exim's own mirror, and doctor names it.  (The
    answer is systemctl's in a machine of tests/systemd.)"""
    unit, escaped = "fastspool@var-spool-exim4.service", r"fastspool@var-spool\x2da.service"
    systemctl = pathlib.Path(shutil.which("systemctl") or "/usr/bin/systemctl")
    own = systemctl.read_bytes() if systemctl.exists() else None
    with well(exim):
        check("services" not in doctor(exim)[1], "systemd is not process 1")
        BOOTED.mkdir(parents=True)
        try:
            for said, verdict, words in (
                    ("", "ok", ("none",)),
                    (f"{unit} loaded activating auto-restart fastspool: the mail spool", "attention",
                     (f"{unit} has failed", f"`journalctl -b -n 20 -u {unit}`", f"`systemctl restart {unit}`")),
                    (f"{escaped} loaded failed failed x", "attention",
                     (f"{escaped} has failed", f"-u '{escaped}'`", f"`systemctl restart '{escaped}'`")),
                    (f"exim4.service loaded failed failed LSB\n{unit} loaded failed failed x", "attention",
                     ("exim4.service has failed, or its start was refused", f"{unit} has failed"))):
                systemctl.unlink(missing_ok=True)
                systemctl.write_text(f"#!/bin/sh\n[ $1 != list-units ] || echo '{said}' | sed /^$/d\n")
                systemctl.chmod(0o755)
                tells(exim, "services", verdict, *words)
                allows(exim)
        finally:
            BOOTED.rmdir()
            systemctl.unlink()
            if own:
                systemctl.write_bytes(own)
                systemctl.chmod(0o755)


@test(library=True, main=QUEUE_ONLY)
def a_spool_with_an_accent(exim):
    """Exim prints what is no ASCII in the name of its spool by numbers: it is the same spool, and mail is taken."""
    with well(exim):
        old, good = exim.spool, pathlib.Path(FASTSPOOL_CONFIGURATION).read_text()
        exim.stop()
        operate(exim, "stop")
        exim.spool = exim.work / "sp\u00e9 \u20ac"
        exim.spool.mkdir()
        exim.own(exim.spool)
        exim.configure(QUEUE_ONLY)
        with written(FASTSPOOL_CONFIGURATION, good.replace(f"spool = {old}\n", f"spool = {exim.spool}\n")):
            tells(exim, "spool", "ok", str(exim.spool))
            allows(exim)
            exim.start()
            exim.submit(Message())
            check(len(exim.queue()) == 1, "the message is not in the queue")
            exim.run("-Mrm", *exim.queue())
            exim.stop()
            operate(exim, "stop")
        exim.spool = old
        exim.configure(QUEUE_ONLY)
        exim.start()


@test(("", {}), ("_with_view", {"fastspool": ("view = auto",)}), library=True, main=QUEUE_ONLY)
def a_spool_by_another_name(exim):
    """Exim's spool_directory is a link to the spool that `spool` names: no call of Exim's would get to the store, so its start is
    refused, and status says so.  What helps is to name the link; and `//`, `/./`, a slash at the end make no other name."""
    view = "auto" if exim.work.name.endswith("_with_view") else "off"
    for name in ("input", "msglog"):
        (exim.spool / name).mkdir()
        exim.own(exim.spool / name)
    with well(exim, f"view = {view}"):
        good, real, link = pathlib.Path(FASTSPOOL_CONFIGURATION).read_text(), exim.spool, exim.work / "link"
        link.symlink_to(real)
        wait_for(lambda: exim.status()["health"] == 0, "all is well")
        for same in (f"{real}/", f"{exim.work}//spool/.", f"{exim.work}/./spool"):
            exim.spool = same
            exim.configure(QUEUE_ONLY)
            status_tells(exim, 0, "all is well")
            allows(exim)
        exim.spool = link
        exim.configure(QUEUE_ONLY)
        refuses(exim, f"does not name Exim's spool as Exim does, {link}", f"`spool = {link}`")
        status_tells(exim, 1 if view == "auto" else 2, f"Exim's spool_directory is {link}, a link that `spool`", f"say `spool = {link}`")
        second = exim.work / "second"
        second.mkdir()
        exim.own(second)
        one = "".join(line for line in good.splitlines(True) if not line.startswith("state"))
        with written(FASTSPOOL_CONFIGURATION, one + f"spool = {second}\n"):
            operate(exim, "run", "--spool", second, "--", "true")
            result = exim.command("status", "--spool", second, program=TOOL, stock=True)
            check(b"spool_directory" not in result.stdout and b"messages" in result.stdout, f"the second spool is not Exim's: {result}")
            operate(exim, "stop", "--spool", second)
        with written(FASTSPOOL_CONFIGURATION, good.replace(f"spool = {real}\n", f"spool = {link}\n")):
            status_tells(exim, 0, "all is well")
            allows(exim)
            exim.stop()
            exim.start()
            receives(exim)
            check(exim.status()["messages"] == 1, "it is not in the store")
            exim.run("-qff")
            exim.wait_arrived()
            exim.stop()
        exim.spool = real
        exim.configure(QUEUE_ONLY)


@test(library=True, main=QUEUE_ONLY)
def another_spool_directory(exim):
    """Exim's spool_directory is changed, and the mail stays in the old spool, which `spool` names still: status says that it stands,
    with a store and without one, and what moves it; and that Exim works without fastspool where there is none.  Not where an Exim
    with a configuration of its own may have that spool."""
    with well(exim):
        old, other = exim.spool, exim.work / "other"
        other.mkdir()
        exim.own(other)
        receives(exim)
        status_tells(exim, 0, "all is well")
        exim.spool = other
        exim.configure(QUEUE_ONLY)
        words = "1 message stands: Exim's spool_directory is another one", str(other), f"`fastspool export --yes {other}`"
        status_tells(exim, 2, *words)
        refuses(exim, f"does not name Exim's spool, {other}")
        mine = exim.work / "mine.conf"
        mine.write_text(pathlib.Path(EXIM_CONFIGURATION).read_text().replace(str(other), str(old)).replace("exim.pid", "mine.pid"))
        second = subprocess.Popen([EXIM, "-C", mine, "-bdf", "-oX", "2527"], env=exim.environment(), stdin=subprocess.DEVNULL)
        wait_for(lambda: listens(2527), "an Exim with a configuration of its own listens")
        status_tells(exim, 0, "all is well")
        second.terminate()
        second.wait()
        exim.stop()
        operate(exim, "stop")
        said = operate(exim, "status", status=2)
        check(all(word in said for word in words), said)
        operate(exim, "export", "--yes", other)
        check("1 message" in exim.command("-bp", stock=True).stdout.decode() or len(list(other.glob("input/*-H"))) == 1, "it is not there")
        exim.start()
        status_tells(exim, 1, f"Exim's spool_directory is another one, {other}", f"`spool = {other}`")
        exim.run("-qff")
        exim.wait_arrived()
        exim.stop()
        exim.spool = old
        exim.configure(QUEUE_ONLY)


@test(library=True, main=QUEUE_ONLY)
def a_daemon_of_another_spool(exim):
    """A second Exim with a configuration, and a spool, of its own has not got the library: it is none of those that work without it,
    nor one that has the mail of this spool.  One of this spool is."""
    @contextlib.contextmanager
    def second(spool):
        mine = exim.work / "mine.conf"
        mine.write_text(pathlib.Path(EXIM_CONFIGURATION).read_text().replace(str(exim.spool), str(spool)).replace("exim.pid", "mine.pid"))
        with subprocess.Popen([EXIM, "-C", mine, "-bdf", "-oX", "2527"], env=exim.environment(stock=True), stdin=subprocess.DEVNULL,
                              cwd="/") as daemon:
            wait_for(lambda: listens(2527), "an Exim with a configuration of its own listens")
            try:
                yield f"process {daemon.pid} "
            finally:
                daemon.terminate()

    other = exim.work / "other"
    other.mkdir()
    exim.own(other)
    with well_with_view(exim), with_mail(exim):
        with second(other):
            status_tells(exim, 0, "all is well")
            tells(exim, "running exims", "ok", "1, with the library")
            check(exim.status()["exims_without_library"] == 0, "it counts as one without the library")
            with stopped(exim):
                status_tells(exim, 2, "1 message stands: no Exim runs that has the store; ")
                tells(exim, "running exims", "attention", "no Exim runs but those of ordinary users, or of other spools")
                check("exported 1 message" in operate(exim, "disable", "--yes"), "it is in the way of a disable")
                check("imported 1 message" in operate(exim, "import"), "it is in the way of an import")
        with second(exim.spool) as name:
            status_tells(exim, 1, "1 Exim daemon runs without the library")
            tells(exim, "running exims", "attention", name, "has not got the library")


@test(library=True)
def a_library_of_another_user(exim):
    """Its owner could give Exim other code, and the loader does not mind: mail is taken and delivered, and Exim's start is refused."""
    with well(exim):
        target = pathlib.Path(os.path.realpath(INSTALLED))
        for spoil in (lambda: os.chown(target, 1, 1), lambda: None):
            spoil()
            target.chmod(0o4644 if target.stat().st_uid else 0o4664)
            with contextlib.closing(Client()) as client:
                check(client.send(exim.expect(Message(), "sink"))[0] == 250, "mail is not taken")
            exim.wait_arrived()
            status_tells(exim, 1, "not root's alone to write", "mail goes on", "the next start of Exim is refused")
            refuses(exim, "not root's alone to write")
            subprocess.run(re.search("`(chown root:root .*?)`", operate(exim, "status", status=1))[1], shell=True, check=True)
            status_tells(exim, 0, "all is well")
            allows(exim)


@test(library=True)
def a_library_of_another_version(exim):
    """Half an upgrade: the library is of another version than the command, or has no mark of a version.  An Exim that starts would be
    refused by the other's store: its start is, and status does not say that all is well."""
    target, mark = pathlib.Path(os.path.realpath(INSTALLED)), b"\x7ffastspool has:\n"
    with well(exim):
        whole = target.read_bytes()
        at = whole.index(mark) + len(mark)
        version = int.from_bytes(whole[at:at + 4], "little")
        later = f"its stores have layout version {version + 1}, and those of the command, which is the mirror, {version}"
        for changed, words in ((whole[:at] + (version + 1).to_bytes(4, "little") + whole[at + 4:], later),
                               (whole.replace(mark, b"\x7ffastspool had:\n"), "its stores have layout version 0")):
            other = target.with_suffix(".new")
            other.write_bytes(changed)
            other.chmod(0o4644)
            target.rename(f"{target}.away")
            other.rename(target)
            try:
                status_tells(exim, 2, words, "`meson install -C build`")
                tells(exim, "library", "wrong", words, "`meson install -C build`")
                refuses(exim, words)
                with written("/var/lib/dpkg/info/libfastspool0:amd64.list", "/.\n"):
                    status_tells(exim, 2, "`dpkg --configure -a && apt-get install --reinstall libfastspool0 fastspool`")
            finally:
                os.rename(f"{target}.away", target)
            status_tells(exim, 0, "all is well")
            allows(exim)


@test(("", {}), ("_with_view", {"fastspool": ("view = auto",)}), library=True)
def a_library_that_is_none(exim):
    """Its file has the right mode, and is empty, a text, the beginning of a library, another machine's, or a directory: doctor and the
    refused start say so, and status does; without a view mail is taken, and not delivered."""
    viewed, good = exim.work.name.endswith("_with_view"), INSTALLED.read_bytes()
    target, away = pathlib.Path(os.path.realpath(INSTALLED)), pathlib.Path(f"{os.path.realpath(INSTALLED)}.away")
    for name in ("input", "msglog"):
        (exim.spool / name).mkdir()
        exim.own(exim.spool / name)
    with well(exim, f"view = {'auto' if viewed else 'off'}"):
        wait_for(lambda: exim.status()["view_state"] == ("mounted" if viewed else "off"), "the view is as it should be")
        for content in (b"", b"no library\n", good[:18] + b"\xb7" + good[19:], None, good[:10000]):
            target.rename(away)
            target.mkdir() if content is None else target.write_bytes(content)
            target.chmod(0o4644)
            fatal = content == good[:10000]     # the loader maps it, and touches what is not there
            found = "ends at once" if fatal else "does not load the library"
            try:
                message, client = exim.expect(Message(), "sink"), Client()
                check(client.send(message)[0] == 250, "mail is not taken")
                client.close()
                if viewed and not fatal:
                    exim.wait_arrived(message)
                else:
                    exim.settle()
                    check(exim.status()["messages"] and message.token not in str(exim.tokens()), "it is delivered")
                status_tells(exim, 1 if viewed and not fatal else 2, "end at once with the library" if fatal else "do not load the library",
                             "work on the view" if viewed and not fatal else "takes mail, and delivers none", f"{INSTALLED} is ",
                             "a part of a library: " if fatal else "no library that the loader takes: ", "install the library again")
                tells(exim, "secure execution", "wrong", found, "install the library again")
                refuses(exim, found, "install the library again")
                check(content is not None or "is root's, mode 4644" not in doctor(exim)[1]["library"][1], f"{doctor(exim)[1]['library']}")
            finally:
                target.rmdir() if content is None else target.unlink()
                away.rename(target)
            allows(exim)
        exim.settle()
        status_tells(exim, 0, "all is well")
        exim.run("-qff")
        exim.wait_arrived()


@test(("", {}), ("_with_view", {"fastspool": ("view = auto",)}), library=True)
def mail_beside_a_lost_library(exim):
    """What a daemon does then: without a view it takes mail, and delivers none, status 2; with one its deliveries work on that,
    status 1.  When the library has its bit again all arrives."""
    viewed = exim.work.name.endswith("_with_view")
    exim.make_directories()
    with well(exim, f"view = {'auto' if viewed else 'off'}"):
        wait_for(lambda: exim.status()["view_state"] == ("mounted" if viewed else "off"), "the view is as it should be")
        with without_its_bit():
            message, client = exim.expect(Message(), "sink"), Client()
            check(client.send(message)[0] == 250, "mail is not taken")
            client.close()
            if viewed:
                exim.wait_arrived(message)
            else:
                wait_for(lambda: re.search("Spool file .* not found", exim.log()), "the delivery finds nothing")
                check(exim.status()["messages"] == 1, f"{exim.status()}")
            status_tells(exim, 1 if viewed else 2, "work on the view" if viewed else "takes mail, and delivers none")
        exim.run("-qff")
        exim.wait_arrived(message)


@test(library=True)
def a_start_without_the_library(exim):
    """Nothing gives Exim the library, or a path with slashes does, also where doctor itself has it by that path, as in Exim's service:
    the start is refused.  Each of the other ways in counts."""
    with well(exim):
        good = DEFAULTS.read_text()
        for text, words in ((good.replace(PRELOAD, ""), "nothing gives Exim the library"),
                            (good.replace("export ", ""), "nothing gives Exim the library"),
                            (good.replace(LIBRARY, str(INSTALLED)), "the bare name")):
            with written(DEFAULTS, text):
                tells(exim, "start of exim", "wrong", words)
                refuses(exim, words)
        with written(DEFAULTS, good.replace(PRELOAD, "")):
            refuses(exim, "the bare name", LD_PRELOAD=str(INSTALLED))
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
        tells(exim, "running exims", "attention", "no Exim runs", "`/etc/init.d/exim4 start`")
        tells(exim, "mail in the store", "wrong", "1 message stands")
        daemon = subprocess.Popen([EXIM, "-bdf"], env=exim.environment(stock=True), cwd="/", stdin=subprocess.DEVNULL)
        try:
            tells(exim, "running exims", "wrong", f"process {daemon.pid} ({EXIM} -bdf) has not got the library")
            tells(exim, "mail in the store", "wrong", "1 message stands")
        finally:
            daemon.terminate()
            daemon.wait(60)


@test(library=True)
def daemons_by_their_words(exim):
    """An Exim that stays is known by its command line, as Exim itself reads that: a run of a queue whose name has a digit is soon
    gone, and a time may be a word of its own."""
    def runs():
        return [pid for pid, name in processes() if name == "exim4"]
    with machine(exim):
        for words, stays in ((["-bs", "-oMs", "-qGname1"], False), (["-bs", "-oMs", "-qffG2"], False),
                             (["-q", "30m"], True), (["-qff", "1h30m"], True), (["-qqifflGname1/30m"], True), (["-q1d"], True),
                             (["-bdf"], True)):
            with subprocess.Popen([EXIM, *words], env=exim.environment(), stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, cwd="/") as started:
                wait_for(lambda: runs() and (started.poll() is not None or runs() == [started.pid]), f"exim {words} runs")
                found = wait_for(lambda: (text := doctor(exim)[1]["running exims"][1]) and "no Exim runs" not in text and text, "doctor finds it")
                for pid in runs():
                    os.kill(pid, signal.SIGKILL)        # which leaves its notifier socket
                check(("no Exim daemon runs" not in found) == stays, f"exim {words}: {found}")
    exim.panic = "daemon_notifier_socket"


@test(library=True)
def an_image_that_was_replaced(exim):
    """Exim was upgraded beside its daemon: doctor names the restart alone, as the daemon has the library."""
    with well(exim):
        shutil.copy(EXIM, f"{EXIM}.new")
        os.chmod(f"{EXIM}.new", os.stat(EXIM).st_mode & 0o7777)
        os.rename(f"{EXIM}.new", os.path.realpath(EXIM))
        tells(exim, "running exims", "attention", "runs an image that was replaced; `/etc/init.d/exim4 restart`")


@contextlib.contextmanager
def serving_nothing(exim, spoil, mend, **environment):
    """A daemon of root's that was started while SPOIL held: it has the library in its memory, which serves nothing."""
    spoil()
    try:
        daemon = subprocess.Popen([EXIM, "-bdf", "-oX", "2527"], env={**exim.environment(), **environment}, cwd="/",
                                  stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_for(lambda: listens(2527), "the daemon listens")
    finally:
        mend()
    try:
        check(LIBRARY in pathlib.Path(f"/proc/{daemon.pid}/maps").read_text(), "the library is not in its memory")
        yield daemon
    finally:
        daemon.terminate()
        daemon.wait(60)


@test(library=True, main=QUEUE_ONLY)
def mapped_is_not_served(exim):
    """A daemon that was started by hand has the library in its memory, which serves nothing, as the library had lost its mode, or
    LD_PRELOAD has a path, or names a spool of its own; all that is mended since.  It takes mail onto the disk, and counts as one
    without the library: for doctor, status in each form, and disable."""
    target = pathlib.Path(os.path.realpath(INSTALLED))
    nothing = (lambda: None, lambda: None)
    with machine(exim):
        operate(exim, "enable", "--yes")
        exim.submit(Message())
        exim.queued = 1
        for spoil, mend, environment in ((lambda: target.chmod(0o644), lambda: target.chmod(0o4644), {}),
                                         (*nothing, {"LD_PRELOAD": str(INSTALLED)}),
                                         (*nothing, {"FASTSPOOL_SPOOL": "/srv/own"})):
            with serving_nothing(exim, spoil, mend, **environment) as daemon:
                tells(exim, "running exims", "wrong", f"process {daemon.pid}", "serves nothing", "the disk alone")
                tells(exim, "mail in the store", "wrong", "1 message")
                status_tells(exim, 2, "1 message stands")
                check("1 without the library" in exim.command("status", program=TOOL, stock=True).stdout.decode(), "status")
                check(exim.status()["exims_without_library"] == 1, f"{exim.status()}")
                said = exim.command("status", "--prometheus", program=TOOL, stock=True).stdout.decode()
                check(f'fastspool_exims_without_library{{spool="{exim.spool}"}} 1' in said, said)
                said = operate(exim, "disable", status=1)
                check("1 message is in the store" in said and "stop it first" not in said, said)
        exim.start()
        wait_for(lambda: len([pid for pid, name in processes() if name == "exim4"]) == 1, "the last daemon has ended, too")
        tells(exim, "running exims", "ok", "1, with the library")
        wait_for(lambda: exim.command("status", program=TOOL, stock=True).returncode == 0, "all is well")
        exim.stop()
        exim.run("-Mrm", *exim.queue())
        exim.queued = 0
        operate(exim, "disable", "--yes")


@test(library=True, main=QUEUE_ONLY)
def an_image_that_needs_the_library(exim):
    """Exim's image has the library among those that it needs, and no variable gives it: where mail stands as no Exim runs, status and
    doctor say to start it, and nothing of `fastspool enable`, as beside an image without it."""
    if not shutil.which("patchelf"):
        raise Skip("patchelf is not installed")
    saved, plain = f"{EXIM}.before", "`fastspool enable`, and start Exim"
    with well(exim):
        exim.submit(exim.expect(Message(), "sink"))
        exim.stop()
        with written(DEFAULTS, DEFAULTS.read_text().replace(PRELOAD, "")):
            status_tells(exim, 2, "no Exim runs that has the store", plain)
            shutil.copy2(EXIM, saved)
            try:
                subprocess.run(["patchelf", "--add-needed", LIBRARY, EXIM], check=True)
                os.chmod(EXIM, 0o4755)
                status_tells(exim, 2, "no Exim runs that has the store; start Exim, ")
                check("fastspool enable" not in operate(exim, "status", status=2), "status advises it")
                _, found, _ = doctor(exim)
                check(plain not in str(found) and "start Exim, " in found["mail in the store"][1], f"{found}")
                exim.run("-qff", stock=True)
                exim.wait_arrived()
            finally:
                shutil.move(saved, EXIM)
                os.chmod(EXIM, 0o4755)


def exchange_image(source, *more):
    """Exim's image is a copy of SOURCE from now on, changed by the command MORE: another file, as after an upgrade."""
    shutil.copy2(source, f"{EXIM}.new")
    if more:
        subprocess.run([*more, f"{EXIM}.new"], check=True)
    os.chmod(f"{EXIM}.new", 0o4755)
    os.rename(f"{EXIM}.new", os.path.realpath(EXIM))


@test(library=True)
def an_image_that_is_exchanged(exim):
    """Exim's image, which alone gives it the library, was exchanged below its daemon.  Where the new one needs the library doctor tells
    a daemon without it to be restarted, and nothing else; where the new one does not, as after an upgrade of Exim, a restart alone
    would take the library away, and `fastspool enable` is told before it."""
    if not shutil.which("patchelf"):
        raise Skip("patchelf is not installed")
    saved, enable = f"{EXIM}.before", "`fastspool enable`"
    needs = ("patchelf", "--add-needed", LIBRARY)
    shutil.copy2(EXIM, saved)
    with machine(exim), contextlib.ExitStack() as stack:
        stack.callback(lambda: exchange_image(saved))
        with plain_daemon(exim) as daemon:
            tells(exim, "running exims", "attention", f"process {daemon.pid} ", enable)
            exchange_image(saved, *needs)
            tells(exim, "running exims", "attention", "has not got the library", "; restart Exim, `/etc/init.d/exim4 restart`")
            check(enable not in doctor(exim)[1]["running exims"][1], "doctor advises enable, which does nothing here")
        with plain_daemon(exim) as daemon:
            exchange_image(saved, *needs)
            tells(exim, "running exims", "attention", "runs an image that was replaced; `/etc/init.d/exim4 restart`")
            exchange_image(saved)
            tells(exim, "running exims", "attention", f"process {daemon.pid} ", "gets the library no more when it is restarted; " + enable +
                  ", and `/etc/init.d/exim4 restart`")


@test(library=True, main=QUEUE_ONLY)
def a_run_of_the_command_s_own(exim):
    """A command with a /run of its own, in which the store's memory is not to be seen, waits for nothing, and says where it is; the
    command that it names works.  Nothing runs on the plain disk instead."""
    trace = exim.work / "waits"
    with well(exim):
        for command in ("status", "ls", "cat x", "flush", "export --yes", "export --yes /srv/to", "import", "backup /srv/copy", "verify", "stop",
                        "run -- echo run"):
            said = subprocess.run(["unshare", "--mount", "sh", "-c", "mount -t tmpfs none /run && exec strace -f -o " +
                                   f"{trace} -e trace=clock_nanosleep {TOOL} {command}"], env=exim.environment(stock=True), capture_output=True)
            text = (said.stdout + said.stderr).decode()
            check(said.returncode in (1, 2, 126) and "not to be seen from here" in text and "`nsenter --target 1 --mount -- COMMAND`" in text and
                  "run\n" not in text, f"{command}: {said}")
            check(trace.read_text().count("clock_nanosleep") < 100, f"{command} has waited")
        inside = subprocess.run(["unshare", "--mount", "sh", "-c", "mount -t tmpfs none /run && exec nsenter --target 1 --mount -- " +
                                 f"{TOOL} status"], env=exim.environment(stock=True), capture_output=True)
        check(inside.returncode == 0 and b"all is well" in inside.stdout, f"{inside}")
        status_tells(exim, 0, "all is well")


def asks_of_library(exim):
    """Has `fastspool status` run Exim as an ordinary user, to know whether the loader takes the library?  It says that all is well."""
    trace = exim.work / "asked"
    result = subprocess.run(["strace", "-f", "-qq", "-s", "200", "-o", trace, "-e", "trace=execve", TOOL, "status"], env=exim.environment(stock=True),
                            capture_output=True)
    check(result.returncode == 0, f"status: exit {result.returncode}, {result.stdout!r} {result.stderr!r}")
    return '"-bV"' in trace.read_text()


@test(library=True)
def a_daemon_is_the_proof(exim):
    """Beside a daemon that has loaded the installed library status runs no Exim to know whether one would.  It does where the library, or
    its mode, is another since, and beside no daemon."""
    target = pathlib.Path(os.path.realpath(INSTALLED))
    other, away = target.with_suffix(".other"), target.with_suffix(".away")

    def exchanged():
        shutil.copy2(target, other)
        target.rename(away)
        other.rename(target)
        target.chmod(0o4644)

    with well(exim):
        wait_for(lambda: not asks_of_library(exim), "the daemon is older by a second than the library's last change")
        target.chmod(0o4644)
        check(asks_of_library(exim), "the library was changed since")
        exim.stop()
        time.sleep(2)
        exim.start()
        check(not asks_of_library(exim), "the daemon was started since")
        exchanged()
        try:
            check(asks_of_library(exim), "the daemon has another file")
        finally:
            target.unlink()
            away.rename(target)
        exim.stop()
        check(asks_of_library(exim), "no daemon runs")


@test(library=True, main=QUEUE_ONLY)
def mail_on_the_disk(exim):
    """What Exim without the library has queued is counted, in each layout and queue."""
    with well(exim):
        tells(exim, "mail on the disk", "ok", "none")
        exim.command("-oi", Message().recipients[0], input=b"Subject: plain\n\n", stock=True)
        tells(exim, "mail on the disk", "ok", "1 message on the plain disk: the next queue run delivers it, or `fastspool import`")
        for queue in ("input/a", "other/input", "other/input/b"):
            (exim.spool / queue).mkdir(parents=True)
            for end in "HD":
                (exim.spool / queue / f"1pZzzz-000000-00-{end}").touch()
        tells(exim, "mail on the disk", "ok", "4 messages on the plain disk")
        exim.stop()
        tells(exim, "mail on the disk", "ok", "4 messages on the plain disk, and no Exim runs: the next one delivers them")
        with plain_daemon(exim):
            _, found, _ = doctor(exim)
            check("the next queue run delivers them; \n" in found["mail on the disk"][1], f"import is refused now: {found}")
        exim.start()
        with written(FASTSPOOL_CONFIGURATION, pathlib.Path(FASTSPOOL_CONFIGURATION).read_text().replace("view = off", "view = auto")):
            tells(exim, "mail on the disk", "ok", "the next view imports it: `fastspool run -- true`")
        shutil.rmtree(exim.spool / "other")
        shutil.rmtree(exim.spool / "input")
        shutil.rmtree(exim.spool / "msglog")


@test(library=True)
def the_wrong_owner(exim):
    """The spool, the state directory, or, as after a restore with numbers of another machine, both are another user's."""
    with well(exim):
        state, of_exim, alone = exim.work / "disk" / "state", "Exim runs as Debian-exim", "writable by that user alone"
        for paths, words, command in (((exim.spool,), of_exim, f"chown Debian-exim: {exim.spool}"),
                                      ((state,), alone, f"chown -R Debian-exim: {state}"),
                                      ((exim.spool, state), of_exim, f"fastspool stop; chown -R Debian-exim: {exim.spool} {state}")):
            for path in paths:
                os.chown(path, 12345, -1)
            tells(exim, "exim user", "wrong", words, "12345", f"`{command}`")
            check(("--reference" in str(doctor(exim)[1].get("state"))) == (paths == (state,)), "two of its lines disagree")
            refuses(exim, words, "12345")
            subprocess.run(["bash", "-c", command], check=True, capture_output=True)
            allows(exim)


@contextlib.contextmanager
def environment_of(name, value):
    """Commands of this test have a variable of their own."""
    plain = Exim.environment
    Exim.environment = lambda exim, stock=False: {**plain(exim, stock), name: value}
    try:
        yield
    finally:
        Exim.environment = plain


@test(("", {"fastspool": ("view = auto",)}), library=True, main=QUEUE_ONLY)
def a_state_of_one_of_two_spools(exim):
    """The configuration names two spools, and FASTSPOOL_STATE one state: no call applies it to both, and each says how to say which
    one; one that names the wrong spool ends no view.  What status and doctor say of that state can be typed."""
    with well_with_view(exim):
        exim.submit(Message())
        good, state, second = pathlib.Path(FASTSPOOL_CONFIGURATION).read_text(), exim.work / "disk/state", exim.work / "second"
        second.mkdir()
        exim.own(second)
        both = "".join(line for line in good.splitlines(True) if not line.startswith("state")) + f"spool = {second}\n"
        mirror, view = exim.status()["mirror_pid"], exim.status()["view_pid"]
        exim.stop()
        wait_for(lambda: not [pid for pid, name in processes() if name == "exim4"], "the last of Exim has ended, too")
        with written(FASTSPOOL_CONFIGURATION, both):
            with environment_of("FASTSPOOL_STATE", str(state)):
                words = f"FASTSPOOL_STATE is the state of one spool, and the configuration names 2: say which one, as by `FASTSPOOL_SPOOL={exim.spool}`"
                for verb, *arguments in (("stop",), ("status",), ("flush",), ("disable", "--yes"), ("export", "--yes")):
                    check(words in (said := operate(exim, verb, *arguments, status=1)), f"{verb}: {said}")
                said = operate(exim, "stop", "--spool", second, status=1)
                check(f"{state} is in use for another spool, {exim.spool}" in said, said)
            check({mirror, view} <= {pid for pid, _ in processes()} and is_view(exim.spool / "input"), f"{processes()}")
            said = operate_any(exim)
            command = f"FASTSPOOL_SPOOL={exim.spool} FASTSPOOL_STATE={state} fastspool stop"
            check(f"1 message stands in {state}" in said and f"`{command}`, and so `export`" in said and "say `state" not in said, said)
            tells(exim, "state", "wrong", command)
            export = f"FASTSPOOL_SPOOL={exim.spool} FASTSPOOL_STATE={state} fastspool export"
            for typed in (command, f"{export} --yes", command):
                done = subprocess.run(typed, shell=True, capture_output=True, text=True)
                check(done.returncode == 0 and (typed != command or f"`{export}`" in done.stdout or not is_view(exim.spool / "input")), f"{done}")
            check(str(state) not in operate_any(exim), operate_any(exim))
            exim.run("-Mrm", *ID.findall(exim.run("-bp", stock=True).decode()), stock=True)


@test(library=True, main=QUEUE_ONLY)
def a_second_spool(exim):
    """The configuration names another spool, which is missing, a file, or a link to nowhere; or was given to another user, whole or
    in part; or has to share its `state`: doctor and status say which, and what to do, and that helps.  Exim's own goes on."""
    with well(exim):
        exim.stop()
        operate(exim, "stop")
        good, second = pathlib.Path(FASTSPOOL_CONFIGURATION).read_text(), exim.work / "second"
        both = "".join(line for line in good.splitlines(True) if not line.startswith("state")) + f"spool = {second}\n"
        with written(FASTSPOOL_CONFIGURATION, good + f"spool = {second}\n"):
            second.mkdir()
            tells(exim, "spool", "wrong", "several spools, and one `state`", "take `state` out")
            refuses(exim, "several spools, and one `state`")
            second.rmdir()
        with written(FASTSPOOL_CONFIGURATION, both):
            exim.start()
            exim.run("-bpc")
            for make, what in ((lambda: None, "No such file"), (second.touch, "Not a directory"),
                               (lambda: second.symlink_to("/nowhere"), "No such file")):
                make()
                tells(exim, "spool", "attention", f"{second}: {what}", "make it, or take that line out")
                said = operate(exim, "status", status=1)
                check(f"{second}: {what}" in said and "make it, or take that line out" in said and "all is well" in said, said)
                second.unlink(missing_ok=True)
            second.mkdir()
            operate(exim, "run", "--spool", second, "--", "true")
            operate(exim, "stop", "--spool", second)
            for path in (second, second / ".fastspool"):        # each leaves what is in it to root
                shutil.chown(path, "Debian-exim", "Debian-exim")
                status = exim.command("status", "--spool", second, program=TOOL, stock=True)
                said = (status.stdout + status.stderr).decode()
                advice = f"chown -R --reference={second} {second}/.fastspool"
                check(status.returncode == 2 and f"`{advice}`" in said and "is root's" in said, f"{status}")
                tells(exim, "store", "wrong", f"`{advice}`")
            subprocess.run(advice, shell=True, check=True)
            check("has no store" in operate(exim, "status", "--spool", second, status=3), "the advice does not help")
            tells(exim, "store", "ok", "all is well", f"{second} has no store")
            exim.stop()
            operate(exim, "stop")
        exim.run("-bpc")


@test(library=True)
def a_spool_of_any_name(exim):
    """A spool and a state whose paths have blanks, quotes and control characters: what status and doctor tell to type is typed as it
    stands, and helps; and no control character gets to the terminal."""
    with well(exim):
        good = pathlib.Path(FASTSPOOL_CONFIGURATION).read_text()
        mine = "".join(line for line in good.splitlines(True) if not line.startswith("state"))
        exim.stop()
        operate(exim, "stop")
        for name in ("second", "the second one", "sender's", "$(touch x); x`id`", "esc\x1b[31mred\ttab"):
            second = exim.work / name
            second.mkdir()
            with written(FASTSPOOL_CONFIGURATION, mine + f"spool = {second}\n"):
                operate(exim, "run", "--spool", second, "--", "true")
                operate(exim, "stop", "--spool", second)
                shutil.chown(second, "Debian-exim", "Debian-exim")
                told = [operate(exim, "status", "--spool", second, status=2), exim.command("doctor", program=TOOL, stock=True).stdout.decode()]
                for said in told:
                    check("`chown -R --reference=" in said and "\x1b" not in said and "\t" not in said, repr(said))
                    check(name in said or "\x1b" in name, said)
                command = re.search("`(chown -R --reference=.*?/.fastspool'?)`", told[0])[1]
                subprocess.run(["bash", "-ec", command], check=True, cwd=exim.work)
                check("has no store" in (said := operate(exim, "status", "--spool", second, status=3)) and "\x1b" not in said, repr(said))
                record = second / ".fastspool/runtime"
                record.unlink(missing_ok=True)
                record.mkdir()
                exim.own(record)
                said = operate(exim, "status", "--spool", second, status=2)
                subprocess.run(["bash", "-ec", re.search("`(mv -T .*?[.]away'?)`", said)[1]], check=True, cwd=exim.work)
                check("has no store" in (said := operate(exim, "status", "--spool", second, status=3)), said)
                many = operate(exim, "ls", status=1)        # names one of the spools as a word
                check("say which one, as by `--spool " in many, many)
                operate(exim, "run", "--spool", second, "--", "true")
                said = operate(exim, "status", "--spool", second, status=exim.command("status", "--spool", second, program=TOOL, stock=True).returncode)
                check("\x1b" not in said, repr(said))
                operate(exim, "stop", "--spool", second)
            check(not (exim.work / "x").exists(), "a command of the path's was run")
        operate(exim, "run", "--", "true")


@test(library=True)
def a_disk_at_a_place_of_any_name(exim):
    """A disk is mounted at a path with blanks, backslashes, tabs, or with many: doctor names the place, and the command that it tells
    to type makes the disk writable again."""
    with well(exim):
        exim.stop()
        operate(exim, "stop")
        good = pathlib.Path(FASTSPOOL_CONFIGURATION).read_text()
        for name in ("the second disk", "back\\slash\\040", "a\ttab", " " * 90 + "x", "\\" * 70 + "'"):
            place = exim.work / name
            place.mkdir()
            second = LoopDisk(place, 16)
            (place / "state").mkdir(mode=0o700)
            shutil.chown(place / "state", "Debian-exim", "Debian-exim")
            with written(FASTSPOOL_CONFIGURATION, re.sub("(?m)^state.*$", lambda _: f"state = {place}/state", good)):
                tells(exim, "disk", "ok", "is on ext4, mounted over " + (str(place) if "\t" not in name else ""))
                subprocess.run(["mount", "-o", "remount,ro", place], check=True)
                _, found, _ = doctor(exim)
                check(found["disk"][0] == "wrong" and "to be read only" in found["disk"][1], f"{found['disk']}")
                subprocess.run(["bash", "-ec", re.search("`(mount -o remount,rw .*)`", found["disk"][1])[1]], check=True)
                tells(exim, "disk", "ok", "mounted over ")
            second.unmount()


@test(library=True, main=QUEUE_ONLY)
def a_start_beside_a_second_spool(exim):
    """Whatever the other spool of the configuration is, missing, a file, or in order: after `fastspool stop` the start of Exim brings
    its own store back, and its view."""
    with well_with_view(exim):
        exim.stop()
        operate(exim, "stop")
        good, second = pathlib.Path(FASTSPOOL_CONFIGURATION).read_text(), exim.work / "second"
        one = "".join(line for line in good.splitlines(True) if not line.startswith("state"))
        for make in (lambda: None, second.touch, second.mkdir):
            for both in (f"{one}spool = {second}\n", f"spool = {second}\n{one}"):
                if not second.exists():
                    make()
                with written(FASTSPOOL_CONFIGURATION, both):
                    exim.start()
                    wait_for(lambda: is_view(exim.spool / "input"), f"store and view are back with {both}")
                    exim.stop()
                    operate(exim, "stop", "--spool", exim.spool)
            if second.is_file():
                second.unlink()


@test(library=True, main=QUEUE_ONLY)
def a_damaged_state_without_a_store(exim):
    """The database is damaged, and no store is in memory: what counts the mail there is no start alone, as none may bring it back."""
    with well(exim):
        exim.submit(Message())
        exim.stop()
        operate(exim, "stop")
        database = exim.work / "disk/state/mirror/data.mdb"
        whole = database.read_bytes()
        database.write_bytes(b"x" * 8192 + whole[8192:])
        said = operate(exim, "status", status=2)
        check("can't be read" in said and "`fastspool verify` says what is damaged" in said and "not lost" not in said, said)
        tells(exim, "mail in the store", "wrong", "`fastspool verify` says what is damaged")
        database.write_bytes(whole)
        check("of 1 message," in (said := operate(exim, "status", status=2)), said)
        exim.run("-Mrm", *exim.queue())


@test(library=True, main=QUEUE_ONLY)
def no_room_to_leave(exim):
    """The plain disk is full: export and disable say to make room, and no message is lost."""
    with machine(exim):
        operate(exim, "enable", "--yes")
        exim.submit(Message(size=400_000))
        operate(exim, "stop")
        (exim.spool / "input").mkdir(exist_ok=True)
        exim.own(exim.spool / "input")
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k,mode=777", "tmpfs", exim.spool / "input"], check=True)
        for verb in ("export", "disable"):
            said = operate(exim, verb, "--yes", status=1)
            check("No space left on device: make room" in said, said)
        subprocess.run(["umount", exim.spool / "input"], check=True)
        operate(exim, "disable", "--yes")
        names = ID.findall(exim.run("-bp", stock=True).decode())
        check(len(names) == 1, f"plain Exim has {names}")
        exim.run("-Mrm", *names, stock=True)


@test(library=True, main=QUEUE_ONLY)
def no_state_beside_a_view(exim):
    """`state` names what can't be made, while another state's view is mounted and serves all mail: status does not say that Exim takes
    none, counts no message of the view as the disk's, and `stop` names the state that runs."""
    with well_with_view(exim):
        state = exim.work / "disk/state"
        exim.submit(Message())
        good = pathlib.Path(FASTSPOOL_CONFIGURATION).read_text()
        with written(FASTSPOOL_CONFIGURATION, good.replace(str(state), "/nowhere/state")):
            status, said, told, _ = each_form(exim)
            check(status == 2 and "Exim takes no mail" not in said and "goes on with the state" in said and str(state) in said, said)
            check(told["disk_messages"] == 0 and "no store in memory" not in told["view"], f"{told}")
            said = operate(exim, "stop", status=1)
            check(str(state) in said, said)
        exim.run("-Mrm", *exim.queue())


@contextlib.contextmanager
def counted_all_the_time(exim, least):
    """Exim of root's without the library counts the queue all the time, some hundred times: never fewer than LEAST() of before."""
    few, counts, ended = [], [], threading.Event()

    def count():
        while not ended.is_set():
            wanted, result = least(), exim.command("-bpc", stock=True)
            counts.append(result.stdout)
            if result.returncode != 0 or int(result.stdout or -1) < wanted:
                few.append((wanted, result.returncode, result.stdout, result.stderr))

    thread = threading.Thread(target=count)
    thread.start()
    try:
        yield
        so_far = len(counts)
        wait_for(lambda: len(counts) > so_far + 300, "the queue is counted")
    finally:
        ended.set()
        thread.join()
    check(not few, f"{len(few)} of {len(counts)} counts are too small: {few[:3]}")


@test(("", {}), ("_made_before", {}), library=True, main=QUEUE_ONLY)
def a_mistyped_state_beside_a_view(exim):
    """`state` is mistyped beside a running Exim and its view, and a process of root's uses the spool: no view is mounted over the
    living one, at no instant and after the mend either.  No state is made beside a living view: Exim ends with a sentence.  Where that state is there already, status names it, and the command that ends it."""
    with well_with_view(exim):
        good, state, wrong = pathlib.Path(FASTSPOOL_CONFIGURATION).read_text(), exim.work / "disk/state", exim.spool / ".fastspool2"
        sent = 0
        for _ in range(5):
            exim.submit(Message())
            sent += 1
        is_there = exim.work.name.endswith("_made_before")
        if is_there:
            wrong.mkdir(mode=0o700)
            exim.own(wrong)

        def mistyped():
            return written(FASTSPOOL_CONFIGURATION, good.replace(str(state), str(wrong)))

        def comes():
            """Each use tries to mount it: one at the instant of the other view's end may find that still."""
            operate(exim, "run", "--", "true")
            return exim.status()["view_state"] == "mounted"
        with counted_all_the_time(exim, lambda: sent):
            with mistyped():
                found = exim.command("-bpc")
                operate(exim, "run", "--", "true")
                client = Client()
                check(client.send(Message())[0] == 250, "the daemon, which has the store, takes no mail")
                client.close()
                sent += 1
                status, said, told, _ = each_form(exim)
            exim.submit(Message())
            sent += 1
        check(wrong.exists() == is_there, "a state was made beside a living view")
        check(found.returncode == 0 if is_there else found.returncode == 75 and b"is `state` mistyped?" in found.stderr, f"{found}")
        view = subprocess.run([TOOL, "view", "--state", wrong, exim.spool], capture_output=True, timeout=60)
        check(view.returncode == 75 and b"another state" in view.stderr and wrong.exists() == is_there, f"{view}")
        check(status == 2 and str(state) in said and told["other_state_messages"] == 6, f"exit {status}: {said}")
        if is_there:
            check(told["view_state"] == "unavailable" and "another state" in told["view"], f"{told}")
        check(int(exim.run("-bpc")) == sent, f"{exim.run('-bpc')} of {sent} are there")
        if is_there:
            said = each_form(exim)[1]
            check((command := f"FASTSPOOL_STATE={wrong} fastspool stop") in said, said)
            subprocess.run(command, shell=True, check=True, stdout=subprocess.DEVNULL)
        check((told := each_form(exim))[0] == 0, f"{told}")
        exim.run("-Mrm", *exim.queue())
        exim.stop()
        for ends in (lambda: operate(exim, "stop"), lambda: os.kill(exim.status()["view_pid"], signal.SIGKILL)) if is_there else ():
            wait_for(comes, "the view is mounted")
            ends()
            with mistyped():        # that view is gone, or dead: the other one's is mounted
                wait_for(comes, "the other view is mounted")
                operate(exim, "stop")


def no_state(exim, path, what):
    """Neither doctor nor status believes in the state directory PATH; a start is refused.  WHAT they say."""
    tells(exim, "state", "wrong", str(path), what)
    refuses(exim, "state: ", str(path), what)
    status, said, told, _ = each_form(exim)
    check(status == 2 and str(path) in said and what in said and str(path) in told["line"], f"exit {status}: {said}")


@test(library=True, main=QUEUE_ONLY)
def a_state_that_is_none(exim):
    """`state` names a directory that can't be made, that is none, that is a link, or another user's: Exim takes no mail, and doctor,
    the refused start and status say why."""
    with well(exim):
        exim.stop()
        operate(exim, "stop")
        good, state = pathlib.Path(FASTSPOOL_CONFIGURATION).read_text(), exim.work / "disk/state"
        allows(exim)
        (exim.work / "file").touch()
        (exim.work / "link").symlink_to(state)
        (exim.work / "roots").mkdir(mode=0o755)
        (exim.work / "anybodys").mkdir()
        (exim.work / "anybodys").chmod(0o777)
        for path, what in ((exim.work / "nowhere/state", "No such file"), (exim.work / "file", "Not a directory"),
                           (exim.work / "link", "Not a directory"), (exim.work / "roots/state", "Permission denied"),
                           (exim.work / "file/state", "Not a directory"), (exim.work / "anybodys", "writable by that user alone")):
            with written(FASTSPOOL_CONFIGURATION, good.replace(str(state), str(path))):
                no_state(exim, path, what)
                check(exim.command("-bpc").returncode != 0, f"Exim has a queue with {path}")
        exim.panic = "Input/output error|Permission denied|Not a directory"
        allows(exim)
        status_tells(exim, 3, "has no store")


@test(library=True, main=QUEUE_ONLY)
def another_state(exim):
    """`state` names another directory than the one that has the mail, SPOOL/.fastspool or one that a mirror still serves: doctor,
    the refused start, status in each form and disable name it, how many messages stand there, and what to do; and that helps."""
    with machine(exim):
        good, state, other = pathlib.Path(FASTSPOOL_CONFIGURATION).read_text(), exim.work / "disk/state", exim.work / "disk/other"
        other.mkdir(mode=0o700)
        shutil.chown(other, "Debian-exim", "Debian-exim")
        by_default = "".join(line for line in good.splitlines(True) if not line.startswith("state"))
        operate(exim, "enable", "--yes")
        for first, second, living in ((by_default, good, False), (by_default, good, True), (good, good.replace(str(state), str(other)), True),
                                      (good, good.replace(str(state), "/nowhere/state"), True)):
            place = exim.spool / ".fastspool" if first is by_default else state
            with written(FASTSPOOL_CONFIGURATION, first):
                exim.submit(Message())
                if not living:
                    operate(exim, "stop")
                mirror = exim.status().get("mirror_pid")
            with written(FASTSPOOL_CONFIGURATION, second):
                for used in (False, True):
                    if used and "/nowhere" in second:
                        break
                    if used:
                        check(exim.run("-bpc") == b"0\n", "the other state is not empty")
                        exim.start()
                    words = (f"1 message stands in {place}", *((f"process {mirror}",) if living else ()))
                    tells(exim, "state", "wrong", *words, f"`state = {place}`")
                    refuses(exim, *words)
                    status, said, told, numbers = each_form(exim)
                    check(status == 2 and all(word in said for word in words) and told["other_state_messages"] == 1 and
                          told["other_state"] == str(place) and numbers["fastspool_other_state_messages"] == "1", f"exit {status}: {said}")
                exim.stop()
                check(all(word in (told := operate(exim, "disable", "--yes", status=1)) for word in words), told)
                if "/nowhere" not in second:
                    operate(exim, "stop")
                    with environment_of("FASTSPOOL_STATE", str(place)):        # as they say
                        named = f"1 message is in {place}, which {FASTSPOOL_CONFIGURATION} does not name: now run `FASTSPOOL_STATE={place} fastspool export`"
                        for _ in range(2):                                      # the second time no store is in memory
                            check(named in (told := operate(exim, "stop")), told)
                        operate(exim, "export", "--yes")
                        check("FASTSPOOL_STATE" not in (told := operate(exim, "stop")), told)
                    check(each_form(exim)[2].get("other_state") is None, f"{each_form(exim)}")
                    allows(exim)
                    exim.run("-Mrm", *ID.findall(exim.run("-bp", stock=True).decode()), stock=True)
            with written(FASTSPOOL_CONFIGURATION, first):
                exim.run("-bpc")
                for name in exim.queue():
                    exim.run("-Mrm", name)
                operate(exim, "stop")
        operate(exim, "disable", "--yes")


@test(("", {}), ("_of_before", {}), library=True, main=QUEUE_ONLY)
def a_mistyped_state_without_a_view(exim):
    """`state` is mistyped, no view is there, and the mail is in memory, or only on the disk, in SPOOL/.fastspool or elsewhere: no state
    is made, Exim ends with a sentence, and doctor, the refused start and status say it, too.  Where that directory is there, and empty,
    these three name the mail.  The deliberate move, and a new beginning, are as docs/operating.md says."""
    elsewhere = exim.work.name.endswith("_of_before")
    with machine(exim):
        operate(exim, "enable", "--yes")
        good, state = pathlib.Path(FASTSPOOL_CONFIGURATION).read_text(), exim.work / "disk/state"
        if not elsewhere:
            operate(exim, "stop")
            shutil.rmtree(state)
            good, state = good.replace(f"state = {state}\n", ""), exim.spool / ".fastspool"
            pathlib.Path(FASTSPOOL_CONFIGURATION).write_text(good)

        def named(path):
            """The configuration names PATH as the state."""
            return written(FASTSPOOL_CONFIGURATION, "".join(line for line in good.splitlines(True) if not line.startswith("state")) +
                           f"state = {path}\n")

        def is_refused(path):
            words = (str(path), f"another one that may hold mail is, {state}", "is `state` mistyped?")
            with named(path):
                for found in (exim.command("-bpc"), exim.command("-odq", "you@mail.test", input=b"Subject: lost\n\n")):
                    check(found.returncode != 0 and all(word in found.stderr.decode() for word in words), f"{found}")
                tells(exim, "state", "wrong", *words)
                refuses(exim, *words)
                status, said, told, _ = each_form(exim)
                check(status == 2 and all(word in said for word in words) and all(word in told["line"] + told["more"] for word in words),
                      f"exit {status}: {said} {told}")
            check(not path.exists(), f"{path} was made")
        exim.submit(Message())
        exim.queued = 1
        wrong, there = exim.spool / ".fastspool2", exim.work / "disk/there"
        for place in ("memory", "disk", "machine"):
            operate(exim, "stop") if place == "disk" else exim.reboot() if place == "machine" else None
            is_refused(wrong)
            (exim.work / "spools").mkdir(exist_ok=True)
            text = pathlib.Path(FASTSPOOL_CONFIGURATION).read_text().replace(f"spool = {exim.spool}\n", f"spool = {exim.work}/spools\n")
            with written(FASTSPOOL_CONFIGURATION, text):
                said = operate(exim, "disable", "--yes", status=1)
                check(f"1 message stands in {state}, Exim's spool, which `spool` in" in said, said)
            there.mkdir(mode=0o700)
            exim.own(there)
            with named(there):
                for used in (False, True):
                    check(exim.run("-bpc") == b"0\n", "the other state is not empty") if used else None
                    tells(exim, "state", "wrong", f"1 message stands in {state}", f"`state = {state}`")
                    refuses(exim, f"1 message stands in {state}")
                    status, said, _, _ = each_form(exim)
                    check(status == 2 and f"1 message stands in {state}" in said, f"exit {status}: {said}")
                    check(f"1 message stands in {state}" in operate(exim, "disable", "--yes", status=1), "disable")
                operate(exim, "stop")
            shutil.rmtree(there)
            check(exim.run("-bpc") == b"1\n", "the mail is not back")

        operate(exim, "stop")           # a deliberate move
        state = state.rename(state.with_name(".moved"))
        with named(state):
            tells(exim, "state", "ok", "no other one holds mail")
            check(exim.run("-bpc") == b"1\n", "the mail was not moved")
            tells(exim, "state", "ok", "no other one holds mail")
            wait_for(lambda: os.readlink(exim.spool / ".fastspool.state") == str(state), "the spool names its state")
            operate(exim, "stop")
        is_refused(wrong)
        state.rename(state.with_name(".away"))      # a new beginning
        with named(wrong):
            tells(exim, "state", "ok", "no other one holds mail")
            check(exim.run("-bpc") == b"0\n" and wrong.is_dir(), "it does not begin anew")
            exim.queued = 0
            operate(exim, "disable", "--yes")
            operate(exim, "stop")
        for path in {exim.work / "disk/state", exim.work / "disk/state" if elsewhere else exim.spool / ".fastspool"}:
            path.mkdir(mode=0o700)
            exim.own(path)
        check(exim.run("-bpc") == b"0\n", "the first state can't be made anew")
    exim.panic = "Input/output error"


@test(library=True, main=QUEUE_ONLY)
def two_other_states(exim):
    """Two states that nothing names any more hold mail: the spool has a link to each, doctor tells of both, and a third one is made
    beside neither.  Each that is emptied takes its own link away."""
    with well(exim):
        good, first = pathlib.Path(FASTSPOOL_CONFIGURATION).read_text(), exim.work / "disk/state"
        second, third, wrong = exim.work / "disk/second", exim.work / "disk/third", exim.spool / ".fastspool2"
        links = [exim.spool / ".fastspool.state", exim.spool / ".fastspool.state.1"]

        def goes_on_with(state):
            exim.stop()
            operate(exim, "stop")
            if state != wrong:
                state.mkdir(mode=0o700, exist_ok=True)
                exim.own(state)
            return written(FASTSPOOL_CONFIGURATION, good.replace(str(first), str(state)))
        exim.submit(Message())
        with goes_on_with(second):
            exim.submit(Message())
            operate(exim, "flush")
            check([os.readlink(link) for link in links] == [str(first), str(second)], f"{list(exim.spool.iterdir())}")
            with goes_on_with(third):
                tells(exim, "state", "wrong", f"1 message stands in {first}", f"1 message stands in {second}", f"`state = {first}`",
                      f"`state = {second}`")
            with environment_of("FASTSPOOL_STATE", str(first)):
                operate(exim, "export", "--yes")
                operate(exim, "stop")
            check(not links[0].is_symlink() and os.readlink(links[1]) == str(second), f"{list(exim.spool.iterdir())}")
            with goes_on_with(wrong):
                tells(exim, "state", "wrong", f"another one that may hold mail is, {second}", f"1 message stands in {second}")
            check(not wrong.exists(), "it was made")
            with environment_of("FASTSPOOL_STATE", str(second)):
                operate(exim, "export", "--yes")
                operate(exim, "stop")
            check(not any(link.is_symlink() for link in links), f"{list(exim.spool.iterdir())}")
        exim.run("-Mrm", *ID.findall(exim.run("-bp", stock=True).decode()), stock=True)


@test(library=True, main=QUEUE_ONLY)
def a_mirror_of_another_state(exim):
    """A mirror serves a state without mail that the configuration does not name: doctor and status say whether Exims use it, and what
    they say, typed, ends it; a restart of Exim is advised only where one uses it."""
    with well(exim):
        good, state, other = pathlib.Path(FASTSPOOL_CONFIGURATION).read_text(), exim.work / "disk/state", exim.work / "disk/other"
        other.mkdir(mode=0o700)
        exim.own(other)
        mirror = exim.status()["mirror_pid"]
        command = f"`FASTSPOOL_STATE={state} fastspool stop`"

        def both():
            """What both say of it, which is the same."""
            status, text, _, _ = each_form(exim)
            said = doctor(exim)[1]["state"][1]
            check(f"a mirror, process {mirror}, serves {state}, which `state` does not name" in said, said)
            check(status == 1 and all(part in text for part in said.strip().split("; ")), f"exit {status}: {text} and {said}")
            return said
        with written(FASTSPOOL_CONFIGURATION, good.replace(str(state), str(other))):
            said = both()
            check("to the Exims that were started before" in said and f"restart Exim, and {command}" in said, said)
            exim.stop()
            wait_for(lambda: not [pid for pid, name in processes() if name == "exim4"], "the last of Exim has ended, too")
            said = both()
            check("and no Exim uses that" in said and command in said and "restart" not in said, said)
            exim.start()            # on the state that is named
            said = both()
            check("and no Exim uses that" in said and command in said and "restart" not in said, said)
            subprocess.run(command.strip("`"), shell=True, check=True, stdout=subprocess.DEVNULL)
            check(not pathlib.Path(f"/proc/{mirror}").exists() and each_form(exim)[0] == 0, f"{each_form(exim)}")
            exim.stop()
            operate(exim, "stop")


@test(("", {}), ("_with_view", {}), library=True, main=QUEUE_ONLY)
def a_spool_that_is_not_exims(exim):
    """`spool` is mistyped, as a directory that is there, or none; the mail of Exim's spool is in memory, or only on the disk: disable
    takes nothing away, status in each form and doctor say how many messages stand where, and that helps.  Without mail disable
    works."""
    with_view = exim.work.name.endswith("_with_view")
    if with_view:
        exim.make_directories()
    with machine(exim, *(["view = auto"] if with_view else [])):
        wait_for(lambda: not [pid for pid, name in processes() if name == "exim4"], "the last of Exim has ended, too")
        operate(exim, "stop")
        good, mistyped = pathlib.Path(FASTSPOOL_CONFIGURATION).read_text(), exim.work / "mistyped"
        good = "".join(line for line in good.splitlines(True) if not line.startswith("state"))
        wrong = good.replace(f"spool = {exim.spool}\n", f"spool = {mistyped}\n")
        check(wrong != good, good)
        mistyped.mkdir()
        place, mend = exim.spool / ".fastspool", f"`spool = {exim.spool}`"
        words = f"2 messages stand in {place}, Exim's spool, which `spool` in {FASTSPOOL_CONFIGURATION} does not name"
        operate(exim, "enable", "--yes")
        pathlib.Path(FASTSPOOL_CONFIGURATION).write_text(good)
        enabled = etc()

        def stands(living):
            status, said, told, numbers = forms_of(exim, mistyped)
            check(status == 2 and words in said and mend in said and "all is well" not in said, f"exit {status}: {said}")
            check(told["other_state"] == str(place) and told["other_state_messages"] == 2 and
                  numbers["fastspool_other_state_messages"] == "2", f"{told} {numbers}")
            check((f"process {mirror}" in said) == living, said)
        for living in (True, False):
            exim.start()
            for _ in range(2):
                exim.submit(Message())
            mirror = exim.status()["mirror_pid"]
            if with_view:
                wait_for(lambda: is_view(exim.spool / "input"), "the view is mounted")
            if not living:
                exim.stop()
                operate(exim, "stop")
            with written(FASTSPOOL_CONFIGURATION, wrong):
                for there in (True, False):
                    if there:
                        operate(exim, "run", "--", "true")      # it has a store, too, and status judges that
                    else:
                        operate(exim, "stop")
                        shutil.rmtree(mistyped)
                    between = etc()
                    if living:
                        _, found, _ = doctor(exim)
                        check("no Exim runs" not in found["running exims"][1] and " stand" not in found["mail in the store"][1] and
                              found["spool"][0] == "wrong", f"{found}")
                        check(f"process {exim.daemon.pid}" in (said := operate(exim, "disable", "--yes", status=1)), said)
                    else:
                        said = operate(exim, "disable", "--yes", status=1)
                        check("nothing was changed" in said and words in said and mend in said, said)
                    stands(living)
                    check(not changed(between), f"{changed(between)}")
                if living:
                    exim.stop()
                    check(words in (said := operate(exim, "disable", "--yes", status=1)), said)
                mistyped.mkdir()
            exim.run("-Mrm", *exim.queue())
            operate(exim, "stop")
        with written(FASTSPOOL_CONFIGURATION, wrong):
            check(changed(enabled) == [FASTSPOOL_CONFIGURATION], f"{changed(enabled)}")
            for store in (False, True):         # of the mistyped one; Exim finds its own, empty, and is refused it all the same
                operate(exim, "run", "--", "true") if store else None
                status, said, told, _ = forms_of(exim, mistyped)
                check(status == 2 and told["store"] == store and f"{exim.spool} has a store" in said and mend in said, f"exit {status}: {said}")
                check("other_state" not in told, f"mail of an empty state stands: {told}")
                check(doctor(exim)[0] == 2 and exim.command("-bpc").returncode != 0, "doctor is content, or Exim has a queue")
            operate(exim, "stop")
            operate(exim, "disable", "--yes")


@test(library=True)
def store_beside(exim):
    """The locks of the state are removed below a daemon: that takes no mail from then on, whether another store was made beside its
    one, or none.  status and doctor name it, and what to do."""
    with well(exim) as disk:
        for names in (("lock",), ("lock", "mirror.lock"), ("lock", "mirror.lock", "runtime")):
            for name in names:
                pathlib.Path(disk.place, "state", name).unlink()
            said = f"Exim, process {exim.daemon.pid}, has a store that was removed", "takes no mail: restart Exim, "
            for made in (False, True):
                exim.run("-bpc") if made else None
                status, line, _, _ = each_form(exim)        # at once
                check(status == 2 and all(words in line for words in said), f"exit {status}: {line}")
                tells(exim, "running exims", "wrong", f"process {exim.daemon.pid} ", "takes no mail", "init.d/exim4 restart")
            exim.stop()
            exim.start()
            status_tells(exim, 0, "all is well")
        pathlib.Path(disk.place, "state/mirror.lock").unlink()
        status_tells(exim, 1, "no mirror process runs; the next message starts one")
        with contextlib.closing(Client()) as client:
            check(client.send(exim.expect(Message(), "sink"))[0] == 250, "no mail is taken")
        exim.wait_arrived()
        status_tells(exim, 0, "all is well")


@test(library=True, fastspool=("view = auto",))
def removed_view_locks(exim):
    """A lock of the view is removed or replaced below it: no view of another state is told of, in no instant, by status, doctor or
    syslog, and the view takes its lock again: `stop` finds it."""
    for name in ("input", "msglog"):
        (exim.spool / name).mkdir()
        exim.own(exim.spool / name)
    with well(exim, "view = auto") as disk:
        wait_for(lambda: exim.status()["view_state"] == "mounted", "the view is mounted")
        lock, log, pid = disk.place / "state/view.lock", Log(), exim.status()["view_pid"]
        for spoil in (lock.unlink, lambda: lock.rename(f"{lock}.away"), lambda: [lock.unlink(), lock.touch(), exim.own(lock)],
                      (disk.place / "state/server.lock").unlink):
            spoil()
            began = time.monotonic()
            while time.monotonic() - began < 2:
                status_tells(exim, 0, "all is well")
                operate(exim, "run", "--", "true")
                found = doctor(exim)[1]["view"]
                check(found[0] == "ok" and "mounted over " in found[1], f"{found}")
            check(exim.status()["view_pid"] == pid, f"{exim.status()}")
        check(not log.lines("another state"), f"{log.lines()}")
        exim.stop()
        operate(exim, "stop")
        operate(exim, "run", "--", "true")
        wait_for(lambda: exim.status()["view_state"] == "mounted", "the view is mounted again")
        lock.unlink()
        operate(exim, "stop")       # at once
        check(not is_view(exim.spool / "input"), "`stop` has not found the view")


def spoil_lock(path, how):
    """Make of the lock PATH what can't be one.  Its owner is the spool's, but for "roots"."""
    path.unlink(missing_ok=True)
    if how == "directory":
        path.mkdir(mode=0o700)
    elif how == "link":
        path.symlink_to("nowhere")
    else:
        path.touch(mode=0 if how == "closed" else 0o600)
    if how != "roots":
        os.lchown(path, path.parent.stat().st_uid, path.parent.stat().st_gid)
    if how == "immutable":
        subprocess.run(["chattr", "+i", path], check=True)


def spoil_part(state, what):
    """A part of the state can't be used, whoever asks.  Its path."""
    name, how = what.split("_")
    part = state if name == "state" else pathlib.Path("/run/fastspool") if name == "registry" else state / name
    if name == "registry":
        subprocess.run(["umount", "-l", part / "memory"], check=True)
    if how == "immutable":
        subprocess.run(["chattr", "-R", "+i", part], check=True)
        return part
    if name == "journal":
        part.rename(state / "kept")
    elif name == "registry":
        shutil.rmtree(part)
    else:
        part.unlink()
    if how == "directory":
        part.mkdir(mode=0o700)
    else:
        part.touch()
    shutil.chown(part, "Debian-exim", "Debian-exim")
    return part


@test(*((f"_{what}", {}) for what in ("state_immutable", "journal_immutable", "mirror_immutable", "runtime_directory", "journal_file",
                                       "registry_file")), library=True)
def a_part_that_is_none(exim):
    """A part of the state has an attribute with which it can't be written, or is something else.  Exim takes no mail: the start is
    refused, and status says which part and what to do.  That mends it."""
    what = exim.work.name.split("is_none_")[1]
    with well(exim) as disk:
        state = disk.place / "state"
        exim.stop()
        operate(exim, "stop")
        part = spoil_part(state, what)
        refuses(exim, f"{part} ", "as root, run `")
        log, refused = Log(), Message()
        result = exim.command("-oi", "-odq", "-f", refused.sender, *refused.recipients, input=refused.content())
        check(result.returncode != 0 and b"descriptors" not in result.stderr, f"a message is taken, or why not is told wrongly: {result}")
        status_tells(exim, 2, f"{part} ", "as root, run `", "takes no")
        if what == "journal_file":      # a mirror that may not write would say so, and end, after 5 s
            time.sleep(6)
            lines = [line for line in log.lines() if not line.startswith("fastspool: ")]
            check(len(lines) == 1 and f"{part} has to be a directory" in lines[0], f"{lines}")
        subprocess.run(re.search(r"as root, run `([^`]*)`", operate(exim, "status", status=2))[1], shell=True, check=True)
        if (state / "kept").exists():
            (state / "kept").rename(part)
        allows(exim)
        exim.start()
        wait_for(lambda: exim.command("status", program=TOOL, stock=True).returncode == 0, "all is well")
        with contextlib.closing(Client()) as client:
            check(client.send(exim.expect(Message(), "sink"))[0] == 250, "no mail is taken")
        exim.wait_arrived()
    pathlib.Path("/run/fastspool.away").unlink(missing_ok=True)
    exim.panic = "Input/output error|Operation not permitted|failed to stat spool directory|^$"


@test(*((f"_{how}", {"fastspool": ("view = auto",)}) for how in ("directory", "link", "immutable", "roots", "closed")), library=True)
def a_lock_that_is_none(exim):
    """A lock of the state can't be opened.  Without its own, or the mirror's, Exim takes no mail: the start is refused, and Exim, which
    does not wait for ever, and status say which path and what to do.  Without the view's Exim starts and takes mail, and no view is
    mounted: status and doctor say why.  With one that is mounted already they say so, too.  The command that they name mends it."""
    how, roots = exim.work.name.rsplit("_", 1)[1], exim.work / "roots"
    roots.mkdir()
    for name in ("input", "msglog"):
        (exim.spool / name).mkdir()
        exim.own(exim.spool / name)

    def send():
        with contextlib.closing(Client()) as client:
            return client.send(exim.expect(Message(), "sink"))[0]
    with well(exim, "view = auto") as disk:
        def mend(said):
            if how == "link":       # where that goes the mail user may lead to
                pathlib.Path(f"{path}.away").symlink_to(roots)
            subprocess.run(re.search(r"as root, run `([^`]*)`", said)[1], shell=True, check=True)
            check(not list(roots.iterdir()), "what is moved away comes to a directory of root's")
            shutil.rmtree(f"{path}.away", ignore_errors=True)
            pathlib.Path(f"{path}.away").unlink(missing_ok=True)

        def mounted():
            operate(exim, "run", "--", "true")
            return exim.status()["view_state"] == "mounted"
        for name in ("lock", "mirror.lock"):
            exim.stop()
            operate(exim, "stop")
            path = disk.place / "state" / name
            spoil_lock(path, how)
            refuses(exim, f"{path} ", "as root, run `")
            result = exim.command("-bpc")
            check(result.returncode != 0 and f"{path} " in result.stderr.decode() and "as root, run `" in result.stderr.decode(), f"{result}")
            exim.start()
            with contextlib.suppress(Failure, ConnectionError):
                check(send() != 250, "mail is taken")
            exim.expected.pop()
            status_tells(exim, 2, f"{path} ", "as root, run `", "takes no")
            mend(operate(exim, "status", status=2))
            allows(exim)
            wait_for(mounted, "the view is mounted")
        for name in ("view.lock", "server.lock"):
            for before in (True, False):
                path = disk.place / "state" / name
                if before:
                    exim.stop()
                    operate(exim, "stop")
                    spoil_lock(path, how)
                    allows(exim)
                    log = Log()
                    exim.start()
                    wait_for(lambda: exim.status()["view_state"] == "unavailable", "no view can be mounted")
                    wait_for(lambda: any(f"{path} " in line and "as root, run `" in line for line in log.lines("view: ")), "syslog says why")
                else:
                    spoil_lock(path, how)
                status_tells(exim, 1, "no view can be mounted" if before else "after its end no other one can be", f"{path} ", "as root, run `")
                tells(exim, "view", "attention", f"{path} ", "as root, run `")
                check(send() == 250, "no mail is taken")
                exim.wait_arrived()
                mend(operate(exim, "status", status=1))
                wait_for(mounted, "the view is mounted")
                status_tells(exim, 0, "all is well")
    exim.panic = "Input/output error|Operation not permitted|Permission denied|Is a directory"


@test(library=True)
def no_file(exim):
    """In the configuration's place is no file: status and doctor say what is, and do not send to chmod."""
    path = pathlib.Path(FASTSPOOL_CONFIGURATION)
    good = path.read_text()
    for make, what, mend in ((path.mkdir, "is a directory", "move it away"), (lambda: os.mkfifo(path), "is a FIFO", "move it away"),
                             (lambda: path.symlink_to("/nowhere/conf"), "is a link to what is not there", "put that there")):
        path.unlink()
        make()
        try:
            result = exim.command("status", program=TOOL, stock=True)
            said = result.stderr.decode()
            check(result.returncode == 2 and f"{path}: {what}" in said and mend in said and "chmod" not in said, said)
            tells(exim, "configuration", "wrong", what, mend)
            refuses(exim, f"configuration: {path}: {what}", mend)
        finally:
            path.rmdir() if path.is_dir() else path.unlink()
            path.write_text(good)


@test(library=True)
def a_file_that_is_replaced(exim):
    """An editor takes the configuration away for the instant of one look: it is no link, and is read."""
    with well(exim):
        status, trace, look = exim.command("status", program=TOOL, stock=True), exim.work / "trace", [TOOL, "status"]
        said = exim.command("-o", trace, "-P", FASTSPOOL_CONFIGURATION, "-e", "trace=openat", "-e", "inject=openat:error=ENOENT:when=1", *look,
                            program="strace", stock=True)
        check("(INJECTED)" in trace.read_text(), "the file was there")
        check(said.returncode == status.returncode == 0 and not said.stderr, f"{said}")


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
        shutil.chown("/usr/state", "Debian-exim", "Debian-exim")
        with written(FASTSPOOL_CONFIGURATION, good.replace(f"{disk.place}/state", "/usr/state")):
            tells(exim, "disk", "attention", "overlay")
            allows(exim)
        exim.stop()
        exim.tool("stop")
        subprocess.run(["mount", "-o", "remount,nobarrier", disk.place], check=True)
        tells(exim, "barriers", "attention", "power cut")
        subprocess.run(["mount", "-o", "remount,barrier,ro", disk.place], check=True)
        tells(exim, "disk", "wrong", "read only", f"`mount -o remount,rw {disk.place}`")
        check("fdatasync" not in doctor(exim)[1], "a read-only disk is told twice")
        tells(exim, "barriers", "ok")
        refuses(exim, "read only")
        status_tells(exim, 2, f"{disk.place}/state is on a read-only file system", "Exim takes no mail")
        subprocess.run(["mount", "-o", "remount,rw", disk.place], check=True)
        exim.run("-bpc")
        status_tells(exim, 0, "all is well")
        operate(exim, "stop")
        with written(FASTSPOOL_CONFIGURATION, "".join(line for line in good.splitlines(True) if "state" not in line)):
            for used in (False, True):
                if used:
                    exim.submit(Message(), "-odq")
                    operate(exim, "stop")
                subprocess.run(["mount", "--bind", "-o", "ro", exim.spool, exim.spool], check=True)
                status_tells(exim, 2, "ReadWritePaths=" if used else "Read-only file system", "Exim takes no mail")
                check("brings it back" not in operate(exim, "status", status=2), "a start brings nothing back")
                subprocess.run(["umount", exim.spool], check=True)
            exim.run("-Mrm", *exim.queue())
            operate(exim, "stop")
        exim.start()


@test(library=True)
def a_read_only_memory(exim):
    """The store's memory is mounted read-only, for a service or for all: status says what to do in each case, and that helps."""
    with well(exim):
        subprocess.run(["mount", "--bind", "-o", "ro", "/run/fastspool/memory", "/run/fastspool/memory"], check=True)
        try:
            status_tells(exim, 2, "a service needs ReadWritePaths=/run/fastspool; outside of one, ")
            said = operate(exim, "status", status=2)
            subprocess.run(re.search(r"as root, run `([^`]*)`", said)[1], shell=True, check=True)
            status_tells(exim, 0, "all is well")
        finally:
            subprocess.run(["umount", "/run/fastspool/memory"], check=True)


@test(library=True)
def a_read_only_state(exim):
    """A mount shows the state read-only: the mirror that runs has its files open, and mail is taken; where it has ended none is.
    A sandbox of status's own that shows it so is no matter.  Each is told, and tried."""
    with well(exim) as disk:
        state, read_only = disk.place / "state", ["mount", "--bind", "-o", "ro", disk.place / "state", disk.place / "state"]

        def send():
            message = Message()
            with contextlib.closing(Client()) as client:
                code, _ = client.send(message)
            if code == 250:
                exim.expect(message, "sink")
            return code
        said = exim.command("--mount", "sh", "-c", '"$@" && exec fastspool status', "sh", *read_only, program="unshare", stock=True)
        check(said.returncode == 0 and b"all is well" in said.stdout, f"{said}")
        subprocess.run(read_only, check=True)
        mirror = exim.status()["mirror_pid"]
        mend = f"say `ReadWritePaths={exim.spool}` in its unit"          # what a service's sandbox does: no disk is sick
        tells(exim, "disk", "wrong", "read only", mend)
        check("dmesg" not in str(doctor(exim)), "a disk that is well is suspected")
        refuses(exim, mend)
        status_tells(exim, 1, f"{state} can't be written", mend, f"mail is taken now, as the mirror, process {mirror}, has open",
                     "after its end, Exim takes none")
        check(send() == 250, "no mail is taken")
        exim.wait_arrived()
        kill(mirror)
        status_tells(exim, 2, f"{state} can't be written", mend, "until that is mended Exim takes no mail")
        check(send() == 451, "mail is taken that no mirror writes")
        subprocess.run(["umount", "--lazy", state], check=True)
        wait_for(lambda: send() == 250, "mail is taken again")
        status_tells(exim, 0, "all is well")
        exim.wait_arrived()


@test(library=True, main=QUEUE_ONLY)
def a_journal_that_is_immutable(exim):
    """chattr makes the journal immutable: the files that are open as well, and status says before the first message that none is
    taken.  The directory alone: mail is taken.  In each case what is to be typed mends it."""
    with well(exim) as disk:
        journal = disk.place / "state/journal"

        def send():
            with contextlib.closing(Client()) as client:
                code, _ = client.send(Message())
            exim.queued += code == 250
            return code
        check(send() == 250, "no mail is taken")
        try:
            for options, health, says, code in ((("-R",), 2, "until that is mended Exim takes no mail", 451), ((), 1, "mail is taken now", 250)):
                subprocess.run(["chattr", *options, "+i", journal], check=True)
                status_tells(exim, health, f"`chattr -R -i -a {journal}`", says)
                check(send() == code, f"chattr {options}: {says}, and it is not so")
                subprocess.run(["chattr", "-R", "-i", "-a", journal], check=True)
                wait_for(lambda: send() == 250, "mail is taken again")
                status_tells(exim, 0, "all is well")
        finally:
            subprocess.run(["chattr", "-R", "-i", journal], check=True)


@test(library=True)
def a_place_for_no_memory(exim):
    """`runtime` names what is not there, no directory, a disk, root's directory, or a mount to be read only.  The store that is there
    goes on: status needs attention, and mail is taken.  Without one Exim takes none: doctor, the refused start and status say why."""
    (exim.work / "file").touch()
    for name in ("roots", "other", "read_only"):
        (exim.work / name).mkdir(mode=0o755)
    shutil.chown(exim.work / "read_only", "Debian-exim", "Debian-exim")
    subprocess.run(["mount", "--bind", "-o", "ro", exim.work / "read_only", exim.work / "read_only"], check=True)
    with well(exim) as disk:
        good = pathlib.Path(FASTSPOOL_CONFIGURATION).read_text()

        def send():
            with contextlib.closing(Client()) as client:
                return client.send(exim.expect(Message(), "sink"))[0]
        for place, what, mend in ((exim.work / "nowhere", "No such file", "mount -t tmpfs"), (exim.work / "file", "is no directory", "take `runtime` out"),
                                  (disk.place / "state", "is ext4", "mount -t tmpfs"), (exim.work / "roots", "is root's, of mode 0755", "`chown "),
                                  (exim.work / "read_only", "is mounted to be read only", "mount -o remount,rw")):
            with written(FASTSPOOL_CONFIGURATION, good + f"runtime = {place}\n"):
                status_tells(exim, 1, f"{place}, the place of the store", what, mend, "mail is taken now, and none after `fastspool stop`")
                tells(exim, "memory", "wrong", f"{place}, the place of the store", what, mend)
                refuses(exim, f"{place}, the place of the store", what, mend)
                if mend == "`chown ":           # to which the mail user may lead a link meanwhile
                    command = re.search("`(chown [^`]*)`", operate(exim, "status", status=1))[1]
                    away = place.rename(exim.work / "away")
                    place.symlink_to(exim.work / "other")
                    subprocess.run(command, shell=True, check=True)
                    check((exim.work / "other").stat().st_uid == 0, f"given away by {command}")
                    place.unlink()
                    away.rename(place)
                check(send() == 250, "no mail is taken")
                exim.wait_arrived()
                exim.stop()
                operate(exim, "stop")
                if what == "is ext4":           # a store can be made there, and should not be
                    exim.start()
                    continue
                refuses(exim, f"{place}, the place of the store", what, mend)
                exim.start()
                with contextlib.suppress(Failure, ConnectionError):
                    check(send() != 250, "mail is taken")
                exim.expected.pop()
                status_tells(exim, 2, f"{place}, the place of the store", what, mend, "Exim takes no mail")
            exim.run("-bpc")
            status_tells(exim, 0, "all is well")
            allows(exim)
    subprocess.run(["umount", exim.work / "read_only"], check=True)
    exim.panic = "No such file|Permission denied|Not a directory|Read-only|Input/output"


@test(library=True)
def a_stopped_mirror(exim):
    """A mirror that somebody has stopped: status says so, and what it names lets it go on."""
    with well(exim):
        suspend(exim.status()["mirror_pid"])
        wait_for(lambda: exim.command("status", program=TOOL, stock=True).returncode == 2, "it gives no sign of life")
        advice = re.search("`(kill -CONT [0-9]+)`", operate(exim, "status", status=2))[1]
        tells(exim, "store", "wrong", advice)
        subprocess.run(advice, shell=True, check=True)
        wait_for(lambda: exim.command("status", program=TOOL, stock=True).returncode == 0, "the mirror goes on")


@contextlib.contextmanager
def standing(exim, disk, how):
    """The mirror stands still, with a change that is not on the disk: what is said of it."""
    def change():
        operate(exim, "run", "--", "touch", exim.spool / "input" / how)
    mirror = exim.status()["mirror_pid"]
    if how == "stopped":
        suspend(mirror)
        try:
            change()
            yield f"waiting for the mirror, process {mirror}, which has been stopped for about ", f"`kill -CONT {mirror}`"
        finally:
            os.kill(mirror, signal.SIGCONT)
    elif how == "disk":
        with disk.frozen():
            change()
            yield f"waiting for the mirror, process {mirror}, to which its disk has not answered for about ", "`dmesg`"
    else:
        with frozen_view(how, [mirror]):
            change()
            yield f"waiting for the mirror, process {mirror}, which has been frozen for about ", f"/proc/{mirror}/cgroup"


def is_pending(pid, number):
    """Has a signal been sent to a process, which has not taken it yet?"""
    masks = re.findall(r"(?m)^(?:SigPnd|ShdPnd):\s*(\w+)$", pathlib.Path(f"/proc/{pid}/status").read_text())
    return any(int(mask, 16) >> number - 1 & 1 for mask in masks)


def waits_aloud(words, *arguments, signals=1):
    """`fastspool ARGUMENTS` says WORDS, and goes on waiting; ^C, SIGNALS times, ends it at once."""
    call = subprocess.Popen([TOOL, *map(str, arguments)], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                            text=True, start_new_session=True,
                            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))    # the test's starter may ignore it
    check(select.select([call.stderr], [], [], 60)[0], f"{arguments} says nothing")
    line = call.stderr.readline()
    check(all(word in line for word in words) and "^C" in line and "nothing is lost" in line, f"{arguments}: {line}")
    check(call.poll() is None, f"{arguments} does not wait on")
    for _ in range(signals):
        os.killpg(call.pid, signal.SIGINT)
        wait_for(lambda: call.poll() is not None or not is_pending(call.pid, signal.SIGINT), "^C has come")    # two at once are one
    check(call.wait(60) == -signal.SIGINT, f"{arguments} ended with {call.returncode}")
    call.stderr.close()


@test(("_stopped", {}), ("_disk", {}), ("_frozen", {}), ("_freezer", {}), library=True, main=QUEUE_ONLY)
def a_mirror_that_is_waited_for(exim):
    """Where the mirror is stopped or frozen, or its disk hangs, each call that waits for it says so, with its process and for how
    long, and goes on waiting; ^C ends it at once, `stop --timeout` by itself.  Nothing is lost."""
    how = exim.work.name.rsplit("_", 1)[1]
    if how in FREEZERS and not (FREEZERS[how][0] / "cgroup.procs").exists():
        raise Skip("this machine has no such control groups")
    with well(exim) as disk:
        exim.submit(Message())
        exim.queued = 1
        exim.stop()
        wait_for(lambda: not [pid for pid, name in processes() if name == "exim4"], "the last of Exim has ended, too")
        with standing(exim, disk, how) as words:
            waits_aloud(words, "flush")
            waits_aloud(words, "stop")
            if how in ("stopped", "disk"):
                waits_aloud(words, "backup", exim.work / "copy")
                waits_aloud(words, "disable", "--yes")
            if how == "stopped":        # on a frozen disk it opens its lock, and nobody gets out of that
                waits_aloud(words, "export", "--yes", signals=2)
                exim.command("-oi", Message().recipients[0], input=b"Subject: plain\n\n", stock=True)
                waits_aloud(words, "import", signals=2)
            said = operate(exim, "stop", "--timeout", "7", status=1)
            check(all(word in said for word in words) and "gave up after 7 s: view or mirror may run still" in said, said)
        operate(exim, "flush")
        if how == "stopped":
            operate(exim, "import")
            exim.queued += 1
        count = f"{exim.queued}\n".encode()
        check((exim.spool / ".fastspool.state").is_symlink() and exim.run("-bpc") == count, "the message is lost")
        operate(exim, "stop")
        if how == "disk":
            with disk.frozen():
                waits_aloud(("waiting for a child of this call, process ", "to which its disk has not answered"), "compact")
            operate(exim, "compact")
        exim.start()
        check(exim.run("-bpc") == count, "the message is lost")


@test(library=True)
def a_state_without_its_mode(exim):
    """The state directory has lost its mode: status, doctor and the refused start say how it gets that back."""
    with well(exim) as disk:
        state = disk.place / "state"
        advice = f"`chmod u+rwx {state}`"
        state.chmod(0)
        said = operate(exim, "status", status=2)
        check("has mode 0000" in said and advice in said, said)
        tells(exim, "state", "wrong", "has mode 0000", advice)
        tells(exim, "mail in the store", "attention", 'mend what "store" says; then')
        refuses(exim, advice)
        subprocess.run(advice.strip("`"), shell=True, check=True)
        operate(exim, "status")
        tells(exim, "state", "ok")
        exim.stop()
        state.chmod(0)
        tells(exim, "mail in the store", "wrong", 'mend what "store" says, and start Exim, `')
        check("would be refused" not in doctor(exim)[1]["mail in the store"][1], "what the store lacks is told twice")
        subprocess.run(advice.strip("`"), shell=True, check=True)


@test(library=True)
def a_spool_without_its_mode(exim):
    """The spool's directory has lost its mode, and the state is elsewhere: Exim takes no mail.  status, doctor and the refused start
    say how it gets that back."""
    with well(exim):
        advice = f"`chmod u+rwx {exim.spool}`"
        exim.spool.chmod(0o050)
        with contextlib.suppress(Failure, ConnectionError), contextlib.closing(Client()) as client:
            check(client.send(Message())[0] != 250, "mail is taken")
        status_tells(exim, 2, "has mode 0050", advice, "mail stands")
        tells(exim, "state", "wrong", advice)
        refuses(exim, advice)
        subprocess.run(advice.strip("`"), shell=True, check=True)
        status_tells(exim, 0, "all is well")
        allows(exim)
    exim.panic = "Permission denied|^$"


@test(library=True)
def a_mount_in_a_user_namespace(exim):
    """An Exim in a user namespace, which the mail user can make, has mounts of its own, and one is over a lock that it has open there:
    root is not told to unmount what is there in his own."""
    place = exim.work / "boot"
    place.mkdir()
    script = (f"mount -t tmpfs one {place} && mkdir {place}/x && exec 9>{place}/x/lock && mount -t tmpfs other {place} && "
              f"LD_PRELOAD={LIBRARY} exec {EXIM} -bdf -oX 2599 -oP {exim.work}/pid -q30m")
    with well(exim):
        call = subprocess.Popen(["unshare", "--user", "--mount", "sh", "-c", 'echo; read line; exec sh -c "$1"', "sh", script],
                                stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        call.stdout.readline()
        for ids in "uid_map", "gid_map":
            pathlib.Path(f"/proc/{call.pid}/{ids}").write_text("0 0 65536")
        call.stdin.write(b"\n")
        call.stdin.flush()
        try:
            wait_for(lambda: listens(2599), "the other Exim listens")
            said = exim.command("status", program=TOOL, stock=True).stdout + exim.command("doctor", program=TOOL, stock=True).stdout
        finally:
            call.terminate()
            call.communicate()
        check(b"umount" not in said, said.decode())
    exim.panic = "daemon_notifier_socket bind: Address already in use"


@test(library=True, main=QUEUE_ONLY)
def a_state_that_is_hidden(exim):
    """Something is mounted over the state directory, or over the spool that it is in, below a daemon, which refuses mail then.
    status and doctor say so, and what they say to do is enough."""
    with well(exim):
        exim.submit(Message())
        exim.queued += 1
        place, other = exim.work / "disk", exim.work / "other"
        other.mkdir()
        for below in (place, place / "state"):
            subprocess.run(["mount", "--bind", other, below], check=True)
            wait_for(lambda: not [pid for pid, name in processes() if name == "fastspool"], "the mirror ends")
            with contextlib.suppress(Failure, ConnectionError), contextlib.closing(Client(timeout=50)) as client:
                check(client.send(Message())[0] != 250, "mail is taken into nowhere")
            words = f"has the store of {place}/state, ", f"mounted over {below}", f"`umount {below}`"
            said = operate(exim, "status", status=2)
            check(all(word in said for word in words), f"status says {said}")
            tells(exim, "running exims", "wrong", *words)
            subprocess.run(re.search("`(umount .*?)`", said)[1], shell=True, check=True)
            with contextlib.closing(Client()) as client:
                check(client.send(Message())[0] == 250, "mail is refused")
            exim.queued += 1
            wait_for(lambda: exim.status()["health"] == 0, "all is well")
        disk = exim.work / "a disk"
        below = disk / "run/state"      # the disk is unmounted lazily: the kernel calls that /run/state then
        disk.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "disk", disk], check=True)
        below.mkdir(mode=0o700, parents=True)
        exim.own(below)
        exim.run("-Mrm", *exim.queue())
        exim.queued = 0
        exim.stop()
        operate(exim, "stop")
        exim.fastspool_configuration(f"memory = {exim.memory}", f"state = {below}")
        exim.start()
        exim.queue()
        subprocess.run(["mount", "--bind", other, disk], check=True)
        said = operate(exim, "status", status=2)
        check(f"has the store of {below}, which is hidden by what is mounted over {disk}: " in said, f"status says {said}")
        subprocess.run(re.search("`(umount .*?)`", said)[1], shell=True, check=True)
        subprocess.run(["umount", "--lazy", disk], check=True)
        for call in ("status", "doctor"):
            said = exim.command(call, program=TOOL, stock=True).stdout.decode()
            check("umount" not in said, f"{call} would have what hides nothing unmounted: {said}")
        exim.stop()
        exim.fastspool_configuration(f"memory = {exim.memory}", f"state = {place}/state")
        exim.start()
    exim.panic = "Input/output error|failed to stat spool directory|spool directory problem"


@test(("_replaced", {}), ("_gone", {}), library=True, main=QUEUE_ONLY)
def a_state_that_is_moved(exim):
    """The state directory is moved below a daemon, and a new one, or none, is in its place: a message is refused, and waits for no
    mirror that serves another store.  status and doctor say where the mail is; moved back, it is all there."""
    with well(exim):
        state, away = exim.work / "disk/state", exim.work / "disk/away"
        exim.own(state.parent)
        exim.submit(Message())
        exim.queued += 1
        with contextlib.closing(Client(timeout=50)) as client:
            state.rename(away)
            wait_for(lambda: not [pid for pid, name in processes() if name == "fastspool"], "the mirror ends")
            if exim.work.name.endswith("_replaced"):
                state.mkdir(mode=0o700)
                exim.own(state)
                check(exim.run("-bpc") == b"0\n", "the new state has mail")
                check(exim.status()["mirror_pid"], "the new state has no mirror: this test can't fail")
            with contextlib.suppress(Failure, ConnectionError):
                check(client.send(Message())[0] != 250, "mail is taken into nowhere")
        status = exim.command("status", program=TOOL, stock=True)
        said = (status.stdout + status.stderr).decode()
        check(status.returncode == 2 and f"has the store of {away}," in said and "move that directory back" in said, f"status: {status}")
        tells(exim, "running exims", "wrong", f"has the store of {away},", "move that directory back")
        exim.stop()
        exim.command("stop", program=TOOL, stock=True)
        shutil.rmtree(state, ignore_errors=True)
        away.rename(state)
        exim.start()
        comes_well(exim)
        check(len(exim.queue()) == 1, "the mail is gone")
    exim.panic = "Input/output error|failed to stat spool directory"


@test(library=True, main=QUEUE_ONLY)
def a_part_of_the_state_is_gone(exim):
    """The journal is removed, or its disk is unmounted, while memory has the mail and no mirror runs: the next mirror writes
    nothing that no recovery would read.  Without memory what is there is told.  All is back when that is."""
    with well(exim):
        journal, database, away = (exim.work / "disk/state" / name for name in ("journal", "mirror", "away"))
        exim.submit(Message())
        exim.queued += 1
        exim.stop()
        kill_all()
        journal.rename(away)
        exim.start()
        wait_for(lambda: exim.status()["commit_error"], "the mirror has looked at its disk")
        status_tells(exim, 2, "is gone, and memory alone has that mail")
        with contextlib.closing(Client()) as client:
            check(client.send(Message())[0] == 451, "mail is taken that no recovery would find")
        shutil.rmtree(journal)
        away.rename(journal)
        wait_for(lambda: not exim.status()["commit_error"], "commits succeed again")
        exim.reboot()
        database.rename(away)
        result = exim.command("status", program=TOOL, stock=True)
        check(result.returncode == 2 and b"that it may have on the disk can't be read" in result.stderr, f"status without a database: {result}")
        database.mkdir(mode=0o700)
        shutil.chown(database, "Debian-exim", "Debian-exim")
        check(b"it is empty: mount its disk" in exim.command("-bp").stderr, "an empty database is not told")
        database.rmdir()
        away.rename(database)
        wait_for(lambda: not exim.status().get("recovering"), "all is recovered")
        check(len(exim.queue()) == 1, "the mail is gone")


def lose(journal, what):
    """Files of the journal are removed: those that hold batches, some of them, all, or the directory; or that is moved away."""
    files = sorted((path for path in journal.iterdir() if path.read_bytes()[:8] == b"FSPJRNL1"),
                   key=lambda path: path.read_bytes()[8:16][::-1])
    for path in {"files": files, "middle": files[-2:-1], "first": files[:-1], "last": files[-1:], "none left": journal.iterdir(),
                 "all": [], "away": []}[what]:
        path.unlink()
    if what == "away":
        journal.rename(journal.with_name("away"))
        journal.mkdir(mode=0o700)
        shutil.chown(journal, "Debian-exim", "Debian-exim")
    if what == "all":
        shutil.rmtree(journal)


@test(("_running", {}), ("_killed", {}), library=True, main=QUEUE_ONLY)
def a_journal_that_is_lost(exim):
    """The journal, or files of it, are removed while memory has all: what is surely lost is written anew, and mail goes on; for the
    rest `fastspool flush --anew` is named, and does so.  No mail is lost by a reboot behind it, a stop, or a copy."""
    kills = exim.work.name.endswith("_killed")
    with well(exim):
        journal = exim.work / "disk/state/journal"

        def grow():
            with contextlib.closing(Client()) as client:
                check(client.send(Message())[0] == 250, "mail is refused")
            exim.queued += 1
        refused = exim.command("flush", "--anew", program=TOOL, stock=True)
        check(refused.returncode == 1 and b"nothing is to be written anew" in refused.stderr, f"{refused}")
        for what in ("files", "last", "none left", "away", "all"):
            for _ in range(2):          # a file of the journal for each mirror
                grow()
                os.kill(exim.status()["mirror_pid"], signal.SIGKILL)
                grow()
            if kills:
                exim.stop()
                kill_all()
            lose(journal, what)
            if kills:
                exim.start()
            if what == "away" or (what == "all" and kills):
                wait_for(lambda: exim.status()["commit_error"], "the mirror has looked at its disk")
                status_tells(exim, 2, "memory alone has that mail", "`fastspool flush --anew`")
                with contextlib.closing(Client()) as client:
                    check(client.send(Message())[0] == 451, "mail is taken that no recovery would find")
                operate(exim, "flush", "--anew")
            wait_for(lambda: exim.command("verify", program=TOOL, stock=True).returncode == 0, "all is on the disk again")
            status_tells(exim, 0, "all is well")
            grow()
            exim.tool("backup", exim.work / f"copy-{what}")
            exim.reboot()
            exim.start()
            check(int(exim.run("-bpc")) == exim.queued, f"{what}: messages are lost")


@test(library=True, main=QUEUE_ONLY)
def written_anew_without_a_mirror(exim):
    """`flush --anew` where no mirror runs starts one, and says that nothing is gone as soon as that has looked; and where none can be
    started, that."""
    with well(exim):
        exim.submit(Message())
        exim.queued += 1
        exim.stop()
        kill_all()
        trace = exim.work / "sleeps"
        whole = exim.command("-o", trace, "-e", "trace=clock_nanosleep", TOOL, "flush", "--anew", program="strace", stock=True)
        check(whole.returncode == 1 and b"nothing is to be written anew" in whole.stderr, f"{whole}")
        sleeps = trace.read_text().count("clock_nanosleep(")
        check(sleeps < 300, f"it slept {sleeps} times 20 ms")
        kill_all()
        tool, away = shutil.copy(TOOL, exim.work / "fastspool"), f"{TOOL}.away"
        os.rename(TOOL, away)
        try:
            none = exim.command("flush", "--anew", program=tool, stock=True)
        finally:
            os.rename(away, TOOL)
        check(none.returncode == 1 and b"no mirror has looked at what " in none.stderr and b"syslog says more" in none.stderr, f"{none}")


@test(library=True, main=QUEUE_ONLY)
def a_journal_that_is_lost_below_a_batch(exim):
    """The journal's files are removed while a batch is written to them: its client waits until all is written anew, and has its 250."""
    with well(exim) as disk:
        journal = exim.work / "disk/state/journal"
        exim.submit(Message())
        mirror = exim.status()["mirror_pid"]
        seen = exim.work / "seen"
        seen.write_text("")
        tracer = subprocess.Popen(["strace", "-o", seen, "-e", "trace=fdatasync", "-e", "inject=fdatasync:signal=STOP:when=1", "-p",
                                   str(mirror)], stderr=subprocess.DEVNULL)     # its first thread, which commits, alone
        wait_for(lambda: "TracerPid:\t0\n" not in pathlib.Path(f"/proc/{mirror}/status").read_text(), "the mirror is traced")
        with concurrent.futures.ThreadPoolExecutor() as pool, contextlib.closing(Client()) as client:
            answer = pool.submit(client.send, Message())
            wait_for(lambda: "stopped by SIGSTOP" in seen.read_text(), "the batch is written")
            for path in journal.iterdir():
                path.unlink()
            os.kill(mirror, signal.SIGCONT)
            answer = answer.result()
            disk.copy()
        tracer.terminate()
        tracer.wait()
        check(answer[0] == 250, f"mail is refused that memory has: {answer}")
        status_tells(exim, 0, "all is well")
        exim.reboot()
        disk.use_copy()
        exim.start()
        check(int(exim.run("-bpc")) == 2, "mail is lost")
        exim.queued = 2


@test(library=True, main=QUEUE_ONLY)
def a_disk_of_the_journal(exim):
    """The journal is a disk of its own, which is unmounted below a store that runs, or beside a dead mirror, and comes back: no mail
    is taken meanwhile, nothing is written below it, and all goes on by itself, whether there was mail meanwhile or not."""
    with well(exim) as disk:
        exim.stop()
        exim.tool("stop")
        journal = disk.place / "state/journal"
        shutil.rmtree(journal)
        journal.mkdir(mode=0o700)
        shutil.chown(journal, "Debian-exim", "Debian-exim")
        own = LoopDisk(journal, 64)     # its image lies beside it

        def sends():
            with contextlib.closing(Client()) as client:
                code = client.send(Message())[0]
            exim.queued += code == 250
            return code
        (journal / "lost+found").rmdir()
        exim.own(journal)
        exim.start()
        for death in (None, signal.SIGKILL, signal.SIGTERM):    # the last leaves all in the database
            for mail in (False, True):
                check(sends() == 250, f"{death}, {mail}: mail is refused")
                mirror = exim.status()["mirror_pid"]
                if death:
                    os.kill(mirror, death)
                    wait_for(lambda: mirror not in [pid for pid, _ in processes()], "the mirror has ended")
                subprocess.run(["umount", "--lazy", journal], check=True)
                if death:
                    exim.command("-bpc")
                    operate(exim, "run", "--", "true")
                wait_for(lambda: exim.status()["commit_error"], "the mirror has looked at its disk")
                status_tells(exim, 2, "memory alone has that mail", "mount its disk", "until then Exim takes and delivers no mail")
                check(not mail or sends() == 451, "mail is taken that is hidden later")
                check(not list(journal.iterdir()), "files lie below the mount point")
                own.mount()
                wait_for(lambda: exim.command("status", program=TOOL, stock=True).returncode == 0, "all goes on")
                check(sends() == 250, f"{death}, {mail}: mail is refused once more")
        exim.reboot()
        exim.start()
        check(int(exim.run("-bpc")) == exim.queued, "messages are lost")
        exim.stop()
        exim.tool("stop")
        own.unmount()


@test(library=True, main=QUEUE_ONLY)
def a_disk_that_becomes_read_only(exim):
    """An error makes the busy file system read-only, as ext4 does by itself: no mail is taken, status says what to do, and that does
    it, without loss.  One mirror after the other gives up, and syslog has each line of them once a minute.  By hand the file system
    can't be made so, beside a mirror."""
    log = Log()
    with well(exim) as disk:
        def sends():
            with contextlib.closing(Client()) as client:
                return client.send(Message())[0]
        busy = subprocess.run(["mount", "-o", "remount,ro", disk.place], capture_output=True)
        check(busy.returncode != 0 and b"busy" in busy.stderr, f"{busy}")
        check(sends() == 250, "mail is refused")
        mirrors, began = {0}, time.monotonic()
        subprocess.run(["mount", "-o", "remount,abort", disk.place], check=True)
        check(sends() == 451, "mail is taken that no disk has")
        status_tells(exim, 2, "its disk is read-only, and Exim takes no mail", "unmount it, run fsck, mount it")

        def others():
            mirrors.add(exim.status()["mirror_pid"])
            return sends() == 451 and len(mirrors) > 4
        wait_for(others, "three mirrors have given up")
        said = collections.Counter(log.lines("this mirror can't write to") + log.lines(": commit: "))
        check(len(said) > 1 and max(said.values()) <= 1 + (time.monotonic() - began) // 60, f"{said}")
        exim.stop()
        wait_for(lambda: subprocess.run(["umount", disk.place], stderr=subprocess.DEVNULL).returncode == 0, "the mirror has ended")
        check(subprocess.run(["e2fsck", "-fy", disk.image], capture_output=True).returncode == 1, "e2fsck mends nothing")
        disk.mount()
        exim.start()
        status_tells(exim, 0, "all is well")
        check(int(exim.run("-bpc")) == 1 and sends() == 250, "a message is lost")
        exim.queued = 2


@test(library=True, main=QUEUE_ONLY)
def a_disk_of_the_state(exim):
    """The disk of the whole state is unmounted below a store that runs, or beside a dead mirror, and comes back: what is told is true
    at each time, nothing is written below it, and the next message finds all."""
    exim.panic = "failed to stat spool directory"
    with well(exim) as disk:
        for kills in (False, True):
            for mail in (False, True):
                with contextlib.closing(Client()) as client:
                    check(client.send(Message())[0] == 250, f"{kills}, {mail}: mail is refused")
                exim.queued += 1
                mirror = exim.status()["mirror_pid"]
                if kills:
                    os.kill(mirror, signal.SIGKILL)
                subprocess.run(["umount", "--lazy", disk.place], check=True)
                wait_for(lambda: mirror not in [pid for pid, _ in processes()], "the mirror has ended")
                status_tells(exim, 2, "Exim takes no mail")
                if mail:
                    with contextlib.closing(Client()) as client:
                        client.socket.sendall(b"MAIL FROM:<sender@sink.test>\r\n")
                        check(client.reply()[0] == 421, "mail is taken")
                check(not list(disk.place.iterdir()), "files lie below the mount point")
                disk.mount()
                said = operate(exim, "status", status=1)
                check("the next message" in said and "each second" not in said, said)
                with contextlib.closing(Client()) as client:
                    check(client.send(Message())[0] == 250, f"{kills}, {mail}: mail is refused once more")
                exim.queued += 1
                wait_for(lambda: exim.command("status", program=TOOL, stock=True).returncode == 0, "all goes on")
        exim.reboot()
        exim.start()
        check(int(exim.run("-bpc")) == exim.queued, "messages are lost")


@test(library=True, main=QUEUE_ONLY)
def a_journal_that_is_lost_with_the_memory(exim):
    """The same while no store is in memory: status and doctor tell what the next start goes on with, and the recovery tells it in
    syslog; where no start goes on, they name what the operator has to do, and the mail that the database has comes back."""
    with well(exim):
        journal = exim.work / "disk/state/journal"
        exim.submit(Message())
        exim.stop()
        operate(exim, "stop")           # it is in the database
        for what, health, words, left in (("middle", 2, "files of the journal are missing", None),
                                          ("first", 2, "move the directory journal away", 1),
                                          ("all", 2, "the journal is missing", 1)):
            shutil.copytree(exim.work / "disk/state", exim.work / "before")
            exim.start()
            for _ in range(4):          # a file of the journal for each mirror
                exim.submit(Message())
                os.kill(exim.status()["mirror_pid"], signal.SIGKILL)
            exim.submit(Message())
            exim.reboot()
            lose(journal, what)
            said = operate(exim, "status", status=health)
            check(words in said and "is not lost" not in said, f"{what}: {said}")
            tells(exim, "store", "wrong", words)
            log = Log()
            result = exim.command("-bpc")
            if what == "first":
                check(result.returncode == 75 and b"`fastspool stop`" in result.stderr, f"{result}")
                status_tells(exim, 2, "FAILED: files of the journal are missing", f"move {journal} away", "`fastspool stop`")
                check("holds nothing: the next use tries again" in operate(exim, "stop"), "stop")
                journal.rename(exim.work / "disk/lost")
                result = exim.command("-bpc")
            told = "batches are missing" if what == "middle" else "the journal is missing in"
            wait_for(lambda: log.lines(told), f"syslog says {told}")
            log.close()
            check(result.returncode == 0 and (left is None or int(result.stdout) == left), f"{what}: {result}")
            operate(exim, "verify")
            exim.reboot()
            shutil.rmtree(exim.work / "disk/state")
            shutil.copytree(exim.work / "before", exim.work / "disk/state")
            for path in (exim.work / "disk/state", *(exim.work / "disk/state").rglob("*")):
                shutil.chown(path, "Debian-exim", "Debian-exim")
            shutil.rmtree(exim.work / "before")
        exim.start()
        exim.queued = 1


@test(library=True, main=QUEUE_ONLY)
def a_memory_that_is_gone(exim):
    """The memory is removed under an Exim that runs, and a client of its goes on behind its end: status and doctor name the daemon,
    and then the process that is left of it, and what they advise mends all."""
    with well(exim):
        client = Client()
        check(client.send(exim.expect(Message(), "sink"))[0] == 250, "mail is not taken")
        wait_for(lambda: exim.tool("flush") == "", "it is on the disk")
        for path in stores():
            shutil.rmtree(path)
        wait_for(lambda: not [pid for pid, name in processes() if name == "fastspool"], "the mirror has ended")
        said = operate(exim, "status", status=2)
        check(f"process {exim.daemon.pid} (exim4) holds the lock" in said and
              f"process {exim.daemon.pid}, has a store that was removed" in said and "restart Exim, `" in said, said)
        tells(exim, "store", "wrong", "restart Exim, `")
        tells(exim, "mail in the store", "attention", "1 message", 'mend what "store" says')
        exim.stop()
        left, = (pid for pid, name in processes() if name == "exim4")
        said = operate(exim, "status", status=2)
        check(f"process {left}, has a store that was removed" in said and f"where that does not end it, `kill {left}`" in said, said)
        tells(exim, "running exims", "wrong", f"process {left} ", f"`kill {left}`")
        os.kill(left, signal.SIGTERM)
        client.socket.close()
        exim.start()
        wait_for(lambda: exim.status()["health"] == 0, "all is well")
        exim.deliver_queue()


@test(library=True, main=QUEUE_ONLY)
def a_memory_that_is_unmounted(exim):
    """Its file system is unmounted by hand, and the mirror goes on with what nobody else sees.  A restart of Exim alone does not help;
    what status and doctor advise does."""
    with well(exim):
        receives(exim)
        subprocess.run(["umount", "--lazy", "/run/fastspool/memory"], check=True)
        advice = "run `fastspool stop`, and start Exim"
        check(advice in operate(exim, "status", status=2), "status does not say what helps")
        tells(exim, "store", "wrong", advice)
        exim.stop()
        operate(exim, "stop")
        exim.start()
        wait_for(lambda: exim.status()["health"] == 0, "all is well")
        exim.deliver_queue()


@test(library=True, main=QUEUE_ONLY)
def a_database_that_is_none(exim):
    """The database is emptied while nothing runs: the start is refused, and status and doctor say what helps.  A start all the same
    takes no mail, changes nothing there, and says so in one line of syslog.  When the file is back so is the mail."""
    exim.panic = "failed to stat spool directory"
    with well(exim) as disk:
        exim.submit(Message())
        exim.stop()
        operate(exim, "stop")
        database = disk.place / "state/mirror/data.mdb"
        whole, words = database.read_bytes(), (f"the database {database.parent} is empty", "put data.mdb back")
        os.truncate(database, 0)
        refuses(exim, *words)
        status_tells(exim, 2, *words, "takes no mail")
        check("brings it back" not in (said := operate(exim, "status", status=2)) and "not lost" not in said, said)
        tells(exim, "state", "wrong", *words)
        log = Log()
        exim.start()
        with contextlib.suppress(Failure, ConnectionError), contextlib.closing(Client()) as client:
            check(client.send(Message())[0] != 250, "mail is taken")
        refuses(exim, *words)
        status_tells(exim, 2, *words, "takes no mail")
        time.sleep(6)           # a mirror that may not write tries for less
        lines = [line for line in log.lines() if "open the database" in line or "can't write" in line]
        check(sum(not line.startswith("fastspool: ") for line in lines) == 1 and all("it is empty" in line for line in lines), f"{lines}")
        check(database.stat().st_size == 0, "something is written into it")
        database.write_bytes(whole)
        wait_for(lambda: exim.status()["health"] == 0, "all is well")
        check(any("recovered 1 message in 3 files" in line for line in log.lines()), f"{log.lines()}")
        exim.run("-Mrm", *exim.queue())


@test(("_running", {}), ("_killed", {}), library=True, main=QUEUE_ONLY)
def a_database_that_is_emptied(exim):
    """The same while memory has all that it held: from then on no mail is taken, as it would be lost with memory, and what is named
    writes all of it anew."""
    with well(exim) as disk:
        database = disk.place / "state/mirror/data.mdb"
        exim.submit(Message())
        exim.queued += 1
        if exim.work.name.endswith("_killed"):
            os.kill(exim.status()["mirror_pid"], signal.SIGKILL)
        os.truncate(database, 0)
        words = f"the database {database.parent} is empty", "`fastspool flush --anew`"
        refuses(exim, *words)
        if exim.work.name.endswith("_running"):
            wait_for(lambda: exim.status()["commit_error"], "the mirror has looked at its disk")
            with contextlib.closing(Client()) as client:
                check(client.send(Message())[0] == 451, "mail is taken that no recovery would find")
        status_tells(exim, 2, *words, "takes no mail")
        operate(exim, "flush", "--anew")
        wait_for(lambda: exim.command("verify", program=TOOL, stock=True).returncode == 0, "all is on the disk again")
        status_tells(exim, 0, "all is well")
        allows(exim)
        exim.reboot()
        exim.start()
        check(int(exim.run("-bpc")) == exim.queued, "messages are lost")


@test(library=True)
def an_exim_that_is_not_set_user_id(exim):
    """Exim's image has lost its set-user-ID bit: doctor tells what fails."""
    image = os.path.realpath(EXIM)
    with well(exim):
        os.chmod(image, 0o755)
        try:
            tells(exim, "secure execution", "attention", f"{image} is not set-user-ID", "`chmod u+s`")
            failed = exim.command("-oi", Message().recipients[0], input=b"Subject: user\n\n", user=USER)
            check(failed.returncode != 0, f"a user's mail is taken: {failed}")
            allows(exim)
        finally:
            os.chmod(image, 0o4755)
        tells(exim, "secure execution", "ok")


def waits_of(exim, *pids):
    """The waits of the processes' threads that have an end, within three seconds at least."""
    seen = exim.work / "futexes"
    seen.write_text("")
    tracer = subprocess.Popen(["strace", "-f", "-o", seen, "-e", "trace=futex", "-p", ",".join(map(str, pids))],
                              stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def found():
        return [line for line in seen.read_text().splitlines() if "FUTEX_WAIT" in line and "tv_sec" in line]
    try:
        time.sleep(3)
        wait_for(found, "one of them waits for a time")
    finally:
        tracer.terminate()
        tracer.wait()
    return found()


@test(library=True)
def a_clock_that_is_set_back(exim):
    """Neither the mirror nor the view's server waits by a clock that an administrator can set back: a checkpoint, or a record lock,
    would wait as long."""
    for name in ("input", "msglog"):
        (exim.spool / name).mkdir()
        exim.own(exim.spool / name)
    with well(exim, "view = auto"):
        wait_for(lambda: is_view(exim.spool / "input"), "the view is mounted")
        waits = waits_of(exim, exim.status()["mirror_pid"])
        check(not any("CLOCK_REALTIME" in line for line in waits), f"the mirror waits: {waits[:5]}")
        take = ["python3", "-c", "import fcntl, sys, time; f = open(sys.argv[1], 'a'); fcntl.lockf(f, fcntl.LOCK_EX); print(1, flush=True); "
                "time.sleep(60)", exim.spool / "input/locked"]
        with subprocess.Popen(take, stdout=subprocess.PIPE) as one:
            one.stdout.readline()
            other = subprocess.Popen(take, stdout=subprocess.DEVNULL)
            wait_for(lambda: sleeps_in(other.pid, "request_wait_answer"), "another process waits for the lock")
            servers = [pid for pid, name in processes() if name == "fastspool" and "view" in words_of(pid)]
            waits = waits_of(exim, *servers)
            other.kill()
            one.kill()
            other.wait()
        check(not any("CLOCK_REALTIME" in line for line in waits), f"the view waits: {waits[:5]}")
        (exim.spool / "input/locked").unlink()


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
    """`memory` is more than the store's file system has, or that one is no tmpfs; or it is not yet what the store has."""
    with well(exim) as disk:
        good = pathlib.Path(FASTSPOOL_CONFIGURATION).read_text()
        with written(FASTSPOOL_CONFIGURATION, good.replace(f"memory = {exim.memory}", "memory = 20T")):
            tells(exim, "memory", "attention", "has only")
        with written(FASTSPOOL_CONFIGURATION, good.replace(f"memory = {exim.memory}", "memory = 128M")):
            tells(exim, "memory", "ok", "is 128 MiB", "512 MiB until Exim is stopped, and `fastspool stop`")
            exim.stop()
            operate(exim, "stop")
            exim.start()
            operate(exim, "flush")
            check("until" not in doctor(exim)[1]["memory"][1], doctor(exim)[1]["memory"])
            exim.stop()
            operate(exim, "stop")
        exim.start()
        with written(FASTSPOOL_CONFIGURATION, f"{good}runtime = {disk.place}\n"):
            tells(exim, "memory", "wrong", "is ext4")
            refuses(exim, "is ext4")
        exim.stop()
        operate(exim, "stop")
        place = exim.work / "memory"
        with written(FASTSPOOL_CONFIGURATION, f"{good}runtime = {place}\n"):
            tells(exim, "memory", "wrong", f"{place}, the place of the store: No such file")
            refuses(exim, "No such file")
            check(exim.command("-bpc").returncode != 0, "Exim has a store there")
            advice = re.search(rf"`(mkdir -p {place} && [^`]*)`", doctor(exim)[1]["memory"][1])[1]
            subprocess.run(advice, shell=True, check=True)
            allows(exim)
            check(exim.run("-bpc") == b"0\n" and list(place.glob("fastspool.*")), f"{advice} does not help")
            operate(exim, "stop")
            subprocess.run(["umount", place], check=True)


@test(library=True)
def an_immutable_place_of_the_state(exim):
    """The directory in which the state is to be made has an attribute with which nobody can write there: Exim, status and the refused
    start say which command takes it away.  That mends it."""
    place = exim.work / "place"
    place.mkdir()
    LoopDisk(place, 64)
    exim.own(place)
    exim.fastspool_configuration(f"memory = {exim.memory}", f"state = {place}/state")
    subprocess.run(["chattr", "+i", place], check=True)
    words = f"{place} has an attribute", f"as root, run `chattr -i -a {place}`"
    refuses(exim, *words)
    status_tells(exim, 2, *words, "takes no mail")
    said = exim.command("-bpc")
    check(said.returncode != 0 and all(word in said.stderr.decode() for word in words), f"{said}")
    subprocess.run(re.search(r"as root, run `([^`]*)`", operate(exim, "status", status=2))[1], shell=True, check=True)
    check(exim.run("-bpc") == b"0\n", "the store is not made")


@test(library=True)
def a_namespace_without_its_users(exim):
    """A start in a user namespace of its own (PrivateUsers=), where the spool's owner is not to be seen: that alone is told, and no
    chown or chmod, which would harm outside of it."""
    with well(exim):
        for arguments in (["--start"], []):
            result = subprocess.run(["unshare", "--user", "--map-root-user", TOOL, "doctor", *arguments], capture_output=True, text=True,
                                    cwd="/", timeout=60)
            lines = (result.stdout + result.stderr).splitlines()
            check(result.returncode == 2 and len(lines) == 1 and "PrivateUsers=" in lines[0] and "chown" not in lines[0], f"{result}")
        allows(exim)


@test(library=True)
def a_limit_of_another_group(exim):
    """A control group has less than `memory`: doctor names the group, this process's own or the mirror's, which may be of a service of
    its own, and that one's limit.  The mirror's refuses no start, as it need not have all of the memory."""
    root = pathlib.Path("/sys/fs/cgroup/unified")
    if not (root / "cgroup.procs").exists():
        raise Skip("no control groups are mounted")
    with well(exim):
        mirror = exim.status()["mirror_pid"]
        group = root / f"fastspool-test-{time.monotonic_ns()}.service"  # control groups are the whole machine's
        own = pathlib.Path(f"{root}{next(line.split(':', 2)[2].strip() for line in open('/proc/self/cgroup') if line.startswith('0::'))}")
        group.mkdir()
        try:
            (group / "cgroup.procs").write_text(str(mirror))
            subprocess.run(["mount", "-t", "tmpfs", "cgroup", "/sys/fs/cgroup"], check=True)
            try:
                group.mkdir(parents=True)
                own.mkdir(parents=True, exist_ok=True)
                (group / "memory.max").write_text(str(64 << 20))
                tells(exim, "memory", "attention", f"the control group {group}, of the mirror, has 64 MiB", f"MemoryMax= of {group.name}")
                allows(exim)
                (group / "memory.max").unlink()
                (own / "memory.max").write_text(str(32 << 20))
                tells(exim, "memory", "wrong", f"the control group {own} has 32 MiB", "--memory" if own == root else f"MemoryMax= of {own.name}")
                refuses(exim, "has 32 MiB")
            finally:
                subprocess.run(["umount", "--lazy", "/sys/fs/cgroup"], check=True)
        finally:
            (root / "cgroup.procs").write_text(str(mirror))
            wait_for(lambda: not (group / "cgroup.procs").read_text(), "the group is empty")
            group.rmdir()


@test(library=True, main=QUEUE_ONLY)
def what_would_not_help(exim):
    """Mail stands, fastspool is not enabled, and the start that would help would not be served: status says why.  Enabled or not, what
    it names is typed as it stands."""
    with machine(exim):
        exim.submit(Message())
        good = pathlib.Path(FASTSPOOL_CONFIGURATION).read_text()
        for end in (lambda: None, lambda: operate(exim, "stop")):
            end()
            said = operate(exim, "status", status=2)
            check("would not be served" not in said and ("`fastspool enable`" in said or "`fastspool run -- true`" in said), said)
            with written(FASTSPOOL_CONFIGURATION, f"{good}runtime = /nowhere\n"):
                said = operate(exim, "status", status=2)
                check("/nowhere, the place of the store: No such file" in said and
                      ("with the library it would not be served" in said or "until that is mended Exim takes no mail" in said), said)
        operate(exim, "run", "--", "true")
        exim.run("-Mrm", *exim.queue())


@test(library=True, main=QUEUE_ONLY)
def the_command_is_gone(exim):
    """Without the file of the command no mirror starts: status says so, and doctor, and how it comes back.  The view, which is no
    more known as one then, is not counted as the disk."""
    copy = "/usr/lib/fastspool-copy"
    with well_with_view(exim):
        exim.submit(Message())
        shutil.copy(TOOL, copy)
        os.rename(TOOL, f"{TOOL}.away")
        try:
            os.kill(json.loads(subprocess.run([copy, "status", "--json"], capture_output=True).stdout)["mirror_pid"], 9)
            def looked(*command):
                return subprocess.run([copy, *command], capture_output=True, text=True)
            wait_for(lambda: looked("status").returncode == 2, "no mirror runs")
            check(json.loads(looked("status", "--json").stdout)["disk_messages"] == 0, "what the view shows lies on the disk")
            for command in ("status", "doctor"):
                said = looked(command)
                check(said.returncode == 2 and f"{TOOL}" in said.stdout and "install it again: `meson" in said.stdout, f"{said}")
        finally:
            os.rename(f"{TOOL}.away", TOOL)
        operate(exim, "run", "--", "true")
        exim.run("-Mrm", *exim.queue())


@test(library=True)
def before_the_first_start(exim):
    """While there is no store, the place of the next one is root's tmpfs, which Exim's start mounts: /dev/shm may be missing."""
    with well(exim):
        exim.stop()
        exim.tool("stop")
        subprocess.run("umount /run/fastspool/memory && umount /dev/shm && rmdir /dev/shm", shell=True, check=True)
        try:
            tells(exim, "memory", "ok", "in a tmpfs that Exim's start will mount")
            allows(exim)
            exim.start()
            exim.run("flush", program=TOOL, stock=True)
            tells(exim, "memory", "ok", "/run/fastspool/memory/")
        finally:
            os.mkdir("/dev/shm")
            subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=1777", "private", "/dev/shm"], check=True)


@test(("", {"fastspool": ("view = auto",)}), library=True)
def the_view(exim):
    """With a view every line says ok; an Exim without the library works on it, and is told.  Without /dev/fuse it is told
    which readers see nothing."""
    with well_with_view(exim):
        status, found, _ = doctor(exim)
        bad = {name: finding for name, finding in found.items() if finding[0] != "ok"}
        check(status == 0 and "mounted over" in found["view"][1], f"exit {status}: {bad}")
        daemon = subprocess.Popen([EXIM, "-bdf", "-oX", "2527"], env=exim.environment(stock=True), cwd="/", stdin=subprocess.DEVNULL)
        tells(exim, "running exims", "attention", f"process {daemon.pid}", "works on the view")
        daemon.terminate()
        daemon.wait(60)
        below = f"umount {exim.spool}/input; cd {exim.spool}/input; %s 1pZzzz-000000-00-H 1pZzzz-000000-00-D"
        tells(exim, "mail on the disk", "ok", "below the view, too")
        subprocess.run(["unshare", "--mount", "sh", "-ec", below % "umask 077; touch"], check=True)     # the server can't read it
        tells(exim, "mail on the disk", "wrong", "the view hides 1 message of the disk")
        subprocess.run(["unshare", "--mount", "sh", "-ec", below % "rm"], check=True)
        closed = exim.command("--mount", "sh", "-c", f"mount --bind /srv /dev && {TOOL} doctor", program="unshare", stock=True)
        check(b"mounted over" in closed.stdout and b"after its end no view can be mounted: /dev/fuse: " in closed.stdout, f"{closed}")


FREEZERS = {        # of version 2, whose processes look like any that sleep, and of version 1, where SIGKILL waits for the thaw
    "frozen": (pathlib.Path("/sys/fs/cgroup/unified"), "cgroup.freeze", "1", "0", "cgroup.events", "frozen 1"),
    "freezer": (pathlib.Path("/sys/fs/cgroup/freezer"), "freezer.state", "FROZEN", "THAWED", "freezer.state", "FROZEN")}


@contextlib.contextmanager
def frozen_view(kind, pids):
    """The group of these processes is frozen."""
    top, name, freeze, thaw, state, frozen = FREEZERS[kind]
    group = pathlib.Path(tempfile.mkdtemp(prefix="fastspool-view-", dir=top))      # groups are the whole machine's
    for pid in pids:
        (group / "cgroup.procs").write_text(str(pid))
    (group / name).write_text(freeze)
    wait_for(lambda: frozen in (group / state).read_text(), "the view is frozen")
    try:
        yield
    finally:
        (group / name).write_text(thaw)
        for pid in (group / "cgroup.procs").read_text().split():
            with contextlib.suppress(ProcessLookupError):
                (top / "cgroup.procs").write_text(pid)
        wait_for(lambda: not (group / "cgroup.procs").read_text(), "the group is empty")
        group.rmdir()


@test(("", {"fastspool": ("view = auto",)}), ("_frozen", {"fastspool": ("view = auto",)}), ("_freezer", {"fastspool": ("view = auto",)}),
      library=True, main=QUEUE_ONLY)
def a_stopped_view(exim):
    """A view with all its processes stopped, or frozen: status and doctor say so, and wait for nothing; what waits at it gets an
    answer when it goes on.  `fastspool stop` kills it, says so, and leaves nothing mounted."""
    kind = exim.work.name.rsplit("_", 1)[1]
    frozen = kind in FREEZERS
    if frozen and not (FREEZERS[kind][0] / "cgroup.procs").exists():
        raise Skip("this machine has no such control groups")
    with well_with_view(exim):
        exim.submit(Message())
        exim.queued += 1
        pids = processes_of_view(exim)
        with frozen_view(kind, pids) if frozen else stopped_view(exim):
            status_tells(exim, 1, f"the view, process {pids[0]}, does not answer", f"`kill -CONT {pids[0]}`")
            for check_name in ("store", "view", "readers"):
                tells(exim, check_name, "attention", *(() if check_name == "readers" else (f"`kill -CONT {pids[0]}`",)))
            view = each_form(exim)[2]["view"]
            check(view.startswith("mounted over ") and view.endswith(f"; process {pids[0]} is stopped or frozen"), view)
            waiter = subprocess.Popen(["ls", exim.spool / "input"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            wait_for(lambda: sleeps_in(waiter.pid, "request_wait_answer"), "a reader waits")
        waiter.wait(60)
        wait_for(lambda: exim.status()["health"] == 0, "all is well again")
        check(len(os.listdir(exim.spool / "input")) == 2, "the view shows something else")
        pids = processes_of_view(exim)
        with frozen_view(kind, pids) if frozen else contextlib.nullcontext():
            for pid in () if frozen else pids:
                suspend(pid)
            said = operate(exim, "stop", status=kind == "freezer")
            check(f"process {pids[0]}, was stopped or frozen: it is killed" in said, said)
            check(("thaw it, and run `fastspool stop` again" in said) == (kind == "freezer"), said)
        if kind == "freezer":
            operate(exim, "stop")
        check(not is_view(exim.spool / "input") and not set(pids) & {pid for pid, _ in processes()}, f"{processes()}")


@test(library=True, main=QUEUE_ONLY, fastspool=("view = auto",))
def a_view_that_is_not_seen(exim):
    """The view is mounted, and programs do not see it: another file system lies over it, or over the spool.  Or a part of it is
    unmounted while its processes are stopped.  status and doctor say so, and wait for nothing."""
    with well_with_view(exim):
        exim.submit(Message())
        exim.queued += 1
        for mount in (("-t", "tmpfs", "over", exim.spool / "input"), ("--bind", exim.spool, exim.spool)):
            subprocess.run(["mount", *map(str, mount)], check=True)
            check(not os.listdir(exim.spool / "input"), "the view is seen")
            status_tells(exim, 1, "another file system is mounted over it", f"`findmnt -T {exim.spool}/input`")
            for name in ("store", "view", "readers"):
                tells(exim, name, "attention", "see")
            subprocess.run(["umount", "--lazy", mount[-1]], check=True)
            status_tells(exim, 0, "all is well")
        with stopped_view(exim):
            subprocess.run(["umount", "--lazy", exim.spool / "input"], check=True)
            for command in (("status",), ("doctor",)):
                result = exim.command(*command, program=TOOL, stock=True, timeout=60)
                check(result.returncode == 1 and b"kill -CONT" in result.stdout, f"{command}: {result}")
        wait_for(lambda: exim.status()["health"] == 0 and is_view(exim.spool / "input"), "the view is mounted again")


@test(library=True, main=QUEUE_ONLY)
def a_database_that_is_locked(exim):
    """A process of the mail user's has the lock of the database: mail goes on, and status, doctor and syslog name the process."""
    with well(exim):
        state = exim.work / "disk/state"
        lock = state / "mirror/lock.mdb"
        log = Log()
        os.kill(exim.status()["mirror_pid"], signal.SIGKILL)
        code = ("import fcntl, os, struct, time; file = open(%r, 'r+b'); "
                "fcntl.fcntl(file, fcntl.F_OFD_SETLK, struct.pack('hhqqi4x', fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)); time.sleep(600)")
        locker = subprocess.Popen(["/usr/bin/python3", "-c", code % str(lock)], user="Debian-exim", group="Debian-exim", extra_groups=[])
        wait_for(lambda: str(lock.stat().st_ino) in pathlib.Path("/proc/locks").read_text(), "it has the lock")
        subprocess.Popen([TOOL, "mirror", "--journal", "4194304", "--state", state, exim.spool], stdin=subprocess.DEVNULL)
        exim.submit(Message())
        exim.queued += 1
        wait_for(lambda: exim.status()["health"] == 1, "a checkpoint has failed")
        words = f"process {locker.pid} (", f"`kill {locker.pid}`", str(lock)
        status_tells(exim, 1, "can't be written into the database", *words)
        tells(exim, "store", "attention", *words)
        check(any(all(word in line for word in words) for line in log.lines("checkpoint")), f"syslog: {log.lines()}")
        log.close()
        locker.kill()
        locker.wait()
        wait_for(lambda: exim.status()["health"] == 0, "checkpoints succeed again")


@test(("", {"fastspool": ("view = auto",)}), library=True, main=QUEUE_ONLY)
def while_it_imports(exim):
    """While a view imports, and waits for a process that works on a message, doctor and status say the same: how many messages
    the disk has, and that they come in by themselves."""
    exim.make_directories()
    for _ in range(2):
        exim.command("-oi", Message().recipients[0], input=b"Subject: plain\n\n", stock=True)
    with contextlib.ExitStack() as works:
        for path in (exim.spool / "input").glob("*-D"):
            fcntl.lockf(works.enter_context(open(path, "r+b")), fcntl.LOCK_EX)
        with well(exim, "view = auto"):
            wait_for(lambda: exim.status()["view_state"] == "starting", "the view starts")
            told = exim.status()
            check(told["messages"] == 0 and told["disk_messages"] == 2 and "count too few" in told["line"], f"{told}")
            tells(exim, "mail on the disk", "attention", "2 messages on the plain disk, which the view is importing")
            tells(exim, "mail in the store", "ok", "0 messages")
            tells(exim, "readers", "attention", "until the view is mounted")
            works.close()
            wait_for(lambda: exim.status()["view_state"] == "mounted", "the view is mounted")
            tells(exim, "mail in the store", "ok", "2 messages")
            tells(exim, "mail on the disk", "ok", "none")
            exim.run("-Mrm", *exim.queue())


@test(library=True)
def readers_without_a_view(exim):
    """Without a view the jobs are named that would see an empty queue."""
    job = "17 * * * * root mailq | mail -s queue postmaster\n"
    with well(exim), written("/etc/cron.d/queue", job):
        tells(exim, "readers", "attention", "/etc/cron.d/queue", "/etc/cron.daily/exim4-base", "see the plain disk alone",
              "`fastspool enable --everywhere`")


@test(library=True, main=QUEUE_ONLY)
def readers_of_the_plain_disk(exim):
    """With `view = off`, no mail in the store, and no Exim that has it, every program sees the queue: in memory and after a stop,
    until Exim runs with the library."""
    with well(exim):
        exim.stop()
        exim.submit(Message())
        tells(exim, "readers", "attention", "no mail in the store")
        operate(exim, "export", "--yes")
        for end in (lambda: None, lambda: operate(exim, "stop")):
            end()
            check(len(ID.findall(exim.run("-bp", stock=True).decode())) == 1, "mailq shows none")
            tells(exim, "readers", "ok", "every program sees the queue")
        exim.start()
        tells(exim, "readers", "attention", "see the plain disk alone")
        exim.run("-Mrm", *exim.queue())


@test(library=True)
def what_a_user_may_know(exim):
    """An ordinary user can't know whether there is a store, and a view: status does not say that there is none, in the text and as
    JSON."""
    (exim.spool / "input").mkdir()
    exim.own(exim.spool / "input")
    exim.spool.chmod(0o750)                     # as Debian's
    with well(exim, "view = auto"):
        for store in (True, False):
            operate(exim, "run", "--", "true") if store else operate(exim, "stop")
            wait_for(lambda: is_view(exim.spool / "input") == store, "the view is mounted, or not")
            text, told = (exim.command("status", *form, program=TOOL, stock=True, user=USER) for form in ((), ("--json",)))
            said = (text.stdout + text.stderr).decode()
            check(text.returncode == told.returncode == 1 and "no store" not in said and "run it as root" in said, said)
            check("the store is not to be seen by this user" in said, said)
            check(json.loads(told.stdout)["store"] is None and "no store" not in told.stdout.decode(), f"{told}")
            check(json.loads(told.stdout)["view_state"] is None and "not mounted" not in said, f"{told} {said}")
        exim.stop()
        operate(exim, "stop")
        check(exim.status()["store"] is False, "root can know")


@test(library=True)
def a_long_look(exim):
    """On a terminal doctor shows how far it is after a second, and then its findings, each on a line of its own; in a file are these
    alone, and where a start waits for it, too."""
    slow = ("strace", "-f", "-o", "/dev/null", "-e", "trace=fdatasync", "-e", "inject=fdatasync:delay_enter=150000", TOOL, "doctor")
    with well(exim):
        _, screen = on_terminal("", program=slow)
        check(re.search(r"\rfastspool: looking \[#*\.*\] [1-9] s", screen), screen)
        lines = [line for line in screen.splitlines() if line.strip() and "looking" not in line]
        check(lines and all(line.startswith(STATES) for line in lines), screen)
        plain = subprocess.run(slow, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        check("looking" not in plain.stdout + plain.stderr and len(plain.stdout.splitlines()) == len(lines), f"{plain}")


@test(library=True)
def without_a_look_at_others(exim):
    """Root in a container lacks CAP_SYS_PTRACE, and more: doctor says of each check what it can't see, and what lets it, at once."""
    has = "-all,+chown,+dac_override,+fowner,+fsetid,+kill,+setgid,+setuid,+setpcap,+net_bind_service,+net_raw,+sys_chroot,+mknod"
    with well(exim):
        powerless = ("setpriv", f"--bounding-set={has}", f"--inh-caps={has}", TOOL, "doctor", "--json")
        result = subprocess.run(powerless, env=exim.environment(stock=True), stdin=subprocess.DEVNULL, capture_output=True, text=True)
        found = {finding["check"]: finding for finding in json.loads(result.stdout)["findings"]}
        for name in ("secure execution", "running exims"):
            check(found[name]["verdict"] == "attention" and "--cap-add SYS_PTRACE" in found[name]["do"], f"{found[name]}")
        check("can't be seen from here" in found["secure execution"]["found"], f"{found['secure execution']}")
        maps_alone = ("setpriv", "--bounding-set=-sys_ptrace", "--inh-caps=-sys_ptrace", TOOL, "doctor", "--preload=", "--json")
        result = subprocess.run(maps_alone, env=exim.environment(stock=True), stdin=subprocess.DEVNULL, capture_output=True, text=True)
        found = {finding["check"]: finding for finding in json.loads(result.stdout)["findings"]}
        started = found.get("start of exim", found["secure execution"])      # CAP_PERFMON lets see the maps, of newer kernels
        check(started["verdict"] == "attention" and "--cap-add SYS_PTRACE" in started["do"], f"{started}")
        check("can't be seen from here" in started["found"], f"{started}")      # in the end it would say "Timer expired"


@test(library=True)
def only_root(exim):
    """Another user is told that it takes root."""
    result = exim.command("doctor", program=TOOL, stock=True, user="Debian-exim")
    check(result.returncode == 77 and b"run `fastspool doctor` as root" in result.stderr and not result.stdout, f"{result}")


# --- one rule -----------------------------------------------------------------------------------------------------

@contextlib.contextmanager
def stopped(exim, *, store=True):
    """No Exim runs, and with STORE False the state has all that there was in memory."""
    exim.stop()
    if not store:
        operate(exim, "stop")
    yield
    exim.start()


@contextlib.contextmanager
def plain_daemon(exim):
    """A daemon without the library."""
    daemon = subprocess.Popen([EXIM, "-bdf", "-oX", "2527"], env=exim.environment(stock=True), cwd="/", stdin=subprocess.DEVNULL)
    wait_for(lambda: listens(2527), "the plain daemon listens")
    try:
        yield daemon
    finally:
        daemon.terminate()
        daemon.wait(60)


@contextlib.contextmanager
def by_hand(exim):
    """An Exim of root's with the library that is no daemon, as a queue run by hand, and that stays for a time."""
    process = subprocess.Popen([EXIM, "-bs"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=exim.environment(), cwd="/")
    check(process.stdout.readline().startswith(b"220"), "it does not answer")
    try:
        yield
    finally:
        process.communicate(b"QUIT\r\n", timeout=60)


@contextlib.contextmanager
def with_mail(exim):
    """A message is in the store."""
    exim.submit(Message())
    yield
    exim.run("-Mrm", *exim.queue())


@contextlib.contextmanager
def with_plain_mail(exim):
    """A message is on the plain disk, of a program that has not got the library."""
    exim.command("-oi", Message().recipients[0], input=b"Subject: plain\n\n", stock=True)
    yield
    exim.run("-Mrm", *ID.findall(exim.run("-bp").decode()))


@contextlib.contextmanager
def below_the_view(exim):
    """A message is on the disk below the view, where the server can't read it."""
    below = f"mount --bind {exim.spool} /mnt; cd /mnt/input; %s 1pZzzz-000000-00-H 1pZzzz-000000-00-D"
    subprocess.run(["unshare", "--mount", "sh", "-ec", below % "umask 077; touch"], check=True)
    yield
    subprocess.run(["unshare", "--mount", "sh", "-ec", below % "rm"], check=True)


@contextlib.contextmanager
def without_view(exim, end):
    """END has ended the view, in order or not."""
    end()
    yield
    operate(exim, "run", "--", "true")
    wait_for(lambda: exim.status()["view_state"] == "mounted", "the view is mounted again")


def kill_view(exim):
    """kill -9 of the view's supervisor, which takes its server along.  A start comes two seconds after the last one."""
    pid = exim.status()["view_pid"]
    started = float(pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[19]) / os.sysconf("SC_CLK_TCK")
    wait_for(lambda: float(pathlib.Path("/proc/uptime").read_text().split()[0]) > started + 2.1, "another view might start")
    os.kill(pid, 9)
    wait_for(lambda: exim.status()["view_state"] == "dead", "the view is dead")


def processes_of_view(exim):
    """The view's supervisor, and its children, the server and the hand."""
    pid = exim.status()["view_pid"]
    return [pid, *map(int, pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]


@contextlib.contextmanager
def stopped_view(exim):
    """All processes of the view are stopped.  What `fastspool status` names lets them go on."""
    pids = processes_of_view(exim)
    for pid in pids:
        suspend(pid)
    yield
    subprocess.run(re.search("`(kill -CONT [0-9]+)`", operate(exim, "status", status=1))[1], shell=True, check=True)


@contextlib.contextmanager
def enabled(exim):
    """`fastspool enable` was run."""
    operate(exim, "enable", "--yes")
    try:
        yield
    finally:
        operate(exim, "disable", "--yes")


@contextlib.contextmanager
def all_of(*states):
    """Several at once, the first one first."""
    with contextlib.ExitStack() as stack:
        for state in states:
            stack.enter_context(state)
        yield


def judged(exim):
    """What status, doctor and doctor --start end with, and what they say."""
    results = [exim.command(*command, program=TOOL, stock=True) for command in (("status",), ("doctor",), ("doctor", "--start"))]
    return tuple(result.returncode for result in results), b"".join(result.stdout + result.stderr for result in results).decode()


def codes(exim):
    return judged(exim)[0]


def agree(exim, name, expected):
    """The three end as EXPECTED; doctor is as bad as the worse of the others, or looks at the machine; and each finding says what
    to do."""
    got, said = judged(exim)
    check(got == expected, f"{name}: status, doctor and --start end with {got}, and not {expected}: {said}")
    said = exim.command("doctor", "--json", program=TOOL, stock=True).stdout.decode()
    check(got[1] >= max(got[0] % 3, got[2]), f"{name}: doctor is milder than status or its own --start: {got}")
    for finding in json.loads(said)["findings"]:
        check(finding["verdict"] == "ok" or "do" in finding or finding["check"] == "store", f"{name}: {finding}")


def operate_any(exim):
    """What status says, whatever it ends with."""
    result = exim.command("status", program=TOOL, stock=True)
    return (result.stdout + result.stderr).decode()


@test(library=True, main=QUEUE_ONLY)
def one_rule_with_a_view(exim):
    """status, doctor and doctor --start judge each state of a machine with a view by one rule."""
    with well_with_view(exim):
        good, target = pathlib.Path(FASTSPOOL_CONFIGURATION).read_text(), pathlib.Path(os.path.realpath(INSTALLED))
        for name, expected, state in (
                ("in order", (0, 0, 0), contextlib.nullcontext()),
                ("a plain daemon, too", (1, 1, 0), plain_daemon(exim)),
                ("a plain daemon alone, with mail", (1, 1, 0), all_of(stopped(exim), with_mail(exim), plain_daemon(exim))),
                ("a daemon in which the library serves nothing", (1, 1, 0),
                 serving_nothing(exim, lambda: target.chmod(0o644), lambda: target.chmod(0o4644))),
                ("the view was stopped", (1, 1, 0), without_view(exim, lambda: operate(exim, "stop"))),
                ("the view is dead", (1, 1, 0), without_view(exim, lambda: kill_view(exim))),
                ("the view is stopped", (1, 1, 0), stopped_view(exim)),
                ("the view hides a message", (2, 2, 0), below_the_view(exim)),
                ("a typo", (1, 2, 2), written(FASTSPOOL_CONFIGURATION, good + "memroy = 1G\n")),
                ("the library has lost its bit", (1, 2, 2), without_its_bit()),
                ("no Exim, no mail", (0, 1, 0), stopped(exim)),
                ("no Exim, mail in the store", (2, 2, 0), all_of(stopped(exim), with_mail(exim))),
                ("no daemon, but an Exim by hand", (0, 1, 0), all_of(stopped(exim), by_hand(exim))),
                ("the same, and mail in the store", (1, 1, 0), all_of(stopped(exim), with_mail(exim), by_hand(exim))),
                ("no Exim, mail in the state", (2, 2, 0), all_of(with_mail(exim), stopped(exim, store=False))),
                ("no Exim, not in use", (3, 1, 0), stopped(exim, store=False))):
            with state:
                agree(exim, name, expected)
            # The server looks below the view once a minute.
            wait_for(lambda: codes(exim) == (0, 0, 0), f"{name}: all is well again", 120)


@test(library=True, main=QUEUE_ONLY)
def one_rule_without_a_view(exim):
    """The same of a machine with `view = off`, where doctor, which looks at the machine, tells of its readers, too."""
    with well(exim):
        good = pathlib.Path(FASTSPOOL_CONFIGURATION).read_text()
        for name, expected, state in (
                ("in order", (0, 1, 0), contextlib.nullcontext()),
                ("a plain daemon, too", (1, 1, 0), plain_daemon(exim)),
                ("a plain daemon alone", (1, 1, 0), all_of(stopped(exim), plain_daemon(exim))),
                ("a plain daemon alone, and mail", (2, 2, 0), all_of(stopped(exim), with_mail(exim), plain_daemon(exim))),
                ("mail on the plain disk", (0, 1, 0), with_plain_mail(exim)),
                ("mail on the plain disk, and no Exim", (0, 1, 0), all_of(stopped(exim), with_plain_mail(exim))),
                ("mail on the plain disk, enabled, and no Exim", (2, 2, 0),
                 all_of(stopped(exim), enabled(exim), with_plain_mail(exim))),
                ("a typo", (2, 2, 2), written(FASTSPOOL_CONFIGURATION, good + "memroy = 1G\n")),
                ("the library has lost its bit", (2, 2, 2), without_its_bit()),
                ("the library has lost its bit, and no Exim", (1, 2, 2), all_of(stopped(exim), without_its_bit())),
                ("a state that can't be made", (2, 2, 2), all_of(stopped(exim, store=False), written(
                    FASTSPOOL_CONFIGURATION, good.replace(str(exim.work / "disk/state"), "/nowhere/state")))),
                ("no daemon, but an Exim by hand", (0, 1, 0), all_of(stopped(exim), by_hand(exim))),
                ("the same, and mail in the store", (1, 1, 0), all_of(stopped(exim), with_mail(exim), by_hand(exim))),
                ("no Exim, mail in the state", (2, 2, 0), all_of(with_mail(exim), stopped(exim, store=False)))):
            with state:
                agree(exim, name, expected)
            wait_for(lambda: codes(exim) == (0, 1, 0), f"{name}: all is well again")


@test(("", {}), ("_view", {}), library=True, main=QUEUE_ONLY)
def no_daemon_by_design(exim):
    """/etc/default/exim4 says QUEUERUNNER=nodaemon, and a job of cron's runs the queue: between two runs all is well where these have the
    store, by the view or by the library, and mail stands where they have neither, or none is found; then what is told to do helps.
    An ordinary user's job is none."""
    view = exim.work.name.endswith("_view")
    queue, crontabs = pathlib.Path("/etc/cron.d/queue"), pathlib.Path("/var/spool/cron/crontabs")
    line, word = f"*/5 * * * * root %s{EXIM} -q\n", "no daemon is to run, by QUEUERUNNER in /etc/default/exim4, and "
    with (well_with_view if view else well)(exim), written(DEFAULTS, DEFAULTS.read_text() + "QUEUERUNNER=nodaemon\n"):
        exim.stop()
        exim.submit(exim.expect(Message(), "sink"))
        stands, waits = (2, 2, 0), (0, 0 if view else 1, 0)
        found = f"{word}{queue} runs the queue"
        agree(exim, "no job", stands)
        check(f"{word}no job of cron's is found that runs the queue: let cron run `fastspool run" in operate(exim, "status", status=2), "status")
        check("systemctl" not in operate(exim, "status", status=2) and "init.d" not in operate(exim, "status", status=2), "a start is told")
        subprocess.run(["mount", "-t", "tmpfs", "none", "/var/spool"], check=True)
        crontabs.mkdir(parents=True)
        for user, expected in (USER, stands), ("root", waits):
            with written(crontabs / user, line.replace("root ", "") % "fastspool run -- "):
                agree(exim, f"a crontab of {user}'s", expected)
        subprocess.run(["umount", "/var/spool"], check=True)
        for text in (f"# {line % ''}", f"* * * * * root {EXIM} -q30m\n", f"* * * * * root {EXIM} -bp | grep -q frozen\n", "0 0 * * * root runqueue\n"):
            with written(queue, text):
                agree(exim, text, stands)
        (queue.parent / "below").mkdir()
        for path in f"{queue}.dpkg-old", queue.parent / "below/queue":
            with written(path, line % "fastspool run -- "):
                agree(exim, f"{path}, which cron does not read", stands)
        (queue.parent / "below").rmdir()
        neither = f"the queue runs of {queue} have neither the library nor a view: say `fastspool run -- ` before the call there"
        for text in (line % "", f"{line % ''}* * * * * root fastspool status\n", f"{line % ''}* * * * * root fastspool run -- mailq\n",
                     f"@hourly root fastspool run -- mailq; {EXIM} -q\n", f"@hourly root su -c '{EXIM} -q'\n"):
            with written(queue, text):
                agree(exim, text, waits if view else stands)
                said = operate(exim, "status", status=0 if view else 2)
                check((f"all is well: 1 message waits for the next queue run; {found}" if view else neither) in said, said)
        plain = DEFAULTS.read_text().replace(PRELOAD, "")
        with written(queue, line % f". {DEFAULTS}; "), written(DEFAULTS, plain):
            said = operate(exim, "status", status=0 if view else 2)
            check((found if view else neither) in said, f"a job that reads what has not got the library: {said}")
        for text in (line % "fastspool run -- ", line % f". {DEFAULTS}; ", f"@hourly root . {DEFAULTS}; /usr/sbin/sendmail -qff\n",
                     "@hourly root fastspool run runq\n", f"@hourly root sh -c 'fastspool run -- {EXIM} -q'\n",
                     f"LD_PRELOAD={LIBRARY}\n{line % ''}"):
            with written(queue, text):
                agree(exim, text, waits)
                check(f"all is well: 1 message waits for the next queue run; {found}" in operate(exim, "status"), "status")
                tells(exim, "running exims", "ok", found)
                tells(exim, "mail in the store", "ok", "1 message")
        with written(queue, line % "fastspool run -- "):
            operate(exim, "stop")
            status = exim.command("status", program=TOOL, stock=True)
            check(status.returncode == 1 and b"is not lost" in status.stderr, f"after a stop, or a reboot: {status}")
            check(judged(exim)[0][1] == 1, f"{judged(exim)}")
            subprocess.run(["sh", "-ec", f"fastspool run -- {EXIM} -q"], env=exim.environment(stock=True), check=True)     # as cron does
            exim.wait_arrived()
            exim.wait_empty()
            agree(exim, "nothing to do", (0, 0, 0))


# --- on and off ---------------------------------------------------------------------------------------------------

DROP_IN = pathlib.Path("/etc/systemd/system/exim4.service.d/fastspool.conf")
SYSTEMD = pathlib.Path("/usr/lib/systemd/systemd")
WAYS = (("_booted", {}), ("_systemd", {}), ("_script", {}))    # systemd is process 1, is installed, is not there


def etc():
    """{path: its kind, mode, owner and content} of all that is in /etc."""
    found = {}
    for path in [pathlib.Path("/etc"), *pathlib.Path("/etc").rglob("*")]:
        st = path.lstat()
        content = path.read_bytes() if path.is_file() and not path.is_symlink() else path.is_symlink() and os.readlink(path)
        found[str(path)] = (st.st_mode, st.st_uid, st.st_gid, content)
    return found


def changed(before):
    now = etc()
    return sorted(path for path in before.keys() | now.keys() if before.get(path) != now.get(path))


@contextlib.contextmanager
def machine(exim, *more):
    """A machine in order on which fastspool is not enabled, with systemd or without it, as the test's name says."""
    script, booted = exim.work.name.endswith("_script"), exim.work.name.endswith("_booted")
    if booted:
        BOOTED.mkdir(parents=True)
    with well(exim, *more):
        DEFAULTS.write_text(DEFAULTS.read_text().replace(PRELOAD, ""))
        exim.stop()
        if script and SYSTEMD.exists():
            SYSTEMD.rename("/usr/lib/systemd/away")
        try:
            yield [DEFAULTS] if script else [DEFAULTS, DROP_IN]
        finally:
            if booted:
                BOOTED.rmdir()
            if os.path.exists("/usr/lib/systemd/away"):
                os.rename("/usr/lib/systemd/away", SYSTEMD)


def operate(exim, verb, *arguments, status=0):
    """`fastspool VERB` ends with STATUS.  Returns what it says."""
    result = exim.operator(verb, *arguments) if status == 0 else exim.command(verb, *arguments, program=TOOL, stock=True)
    said = (result.stdout + result.stderr).decode()
    check(result.returncode == status or (status == 0 and exim.went_on(result)), f"fastspool {verb} {arguments}: exit {result.returncode}, {said!r}")
    return said


@test(*WAYS, library=True)
def one_operator_at_a_time(exim):
    """While one enable or disable runs, another changes nothing.  Two enables at once, of which one is between taking away what
    was there before and writing its own, would leave lines that no disable takes away."""
    def beside(what):
        """Both wait some seconds, as the first may be about to end."""
        with concurrent.futures.ThreadPoolExecutor() as pool:
            others = pool.map(lambda verb: (verb, exim.command(verb, "--yes", program=TOOL, stock=True)), ("enable", "disable"))
            for verb, other in others:
                check(other.returncode == 1 and b"another" in other.stderr, f"{verb} beside {what}: {other}")

    with machine(exim):
        before = etc()
        first, stopped = held(exim, "mkdir", "/etc/default", "enable", "--yes")
        beside("an enable")
        os.kill(stopped, signal.SIGCONT)
        said = first.communicate(timeout=60)[0]
        check(first.returncode == 0 and "Done." in said, f"the first enable: {said}")
        check(DEFAULTS.read_text().count("wrote this") == 1, DEFAULTS.read_text())
        first, stopped = held(exim, "unlink", f"{DEFAULTS}.fastspool", "disable", "--yes")
        beside("a disable")
        os.kill(stopped, signal.SIGCONT)
        said = first.communicate(timeout=60)[0]
        check(first.returncode == 0 and not changed(before), f"the first disable: {said} {changed(before)}")


@test(*WAYS, library=True)
def on_and_off(exim):
    """enable asks, gives Exim the library, and does nothing the second time; disable leaves /etc byte for byte as it was: also
    where the last line has no end, something else is preloaded, or the drop-in's directory was there before."""
    booted = exim.work.name.endswith("_booted")
    with machine(exim) as ways:
        good = DEFAULTS.read_text()
        for text, value in ((good, LIBRARY), (good + "# no end", LIBRARY), (good + "export LD_PRELOAD=libm.so.6\n", f"{LIBRARY}:libm.so.6"),
                            (good + PRELOAD, LIBRARY),
                            (good + f"export LD_PRELOAD={INSTALLED}\n", LIBRARY), ("", LIBRARY)):
            with written(DEFAULTS, text):
                if not text:
                    DROP_IN.parent.mkdir(parents=True)
                before = etc()
                wanted = [DROP_IN] if PRELOAD in text and booted else ways      # the operator's own line does
                said = operate(exim, "enable", status=1)
                check("say --yes" in said and all(str(way) in said for way in wanted) and not changed(before), said)
                restart = "systemctl restart exim4" if booted else "/etc/init.d/exim4 restart"
                check(restart in operate(exim, "enable", "--yes"), f"enable does not say {restart}")
                made = {path for path in changed(before) if os.path.isfile(path)}
                check(made == set(map(str, wanted)), f"{made}")
                lines = [line for path in made for line in pathlib.Path(path).read_text().splitlines() if "fastspool" in line]
                check(lines and not [line for line in lines if line != line.rstrip()], f"blanks at the ends of lines: {lines}")
                between = etc()
                check("nothing to do" in operate(exim, "enable") and not changed(between), "enabled twice")
                seen = subprocess.run(["sh", "-ec", f". {DEFAULTS}; printenv LD_PRELOAD"], env={"PATH": os.environ["PATH"]},
                                      capture_output=True, text=True)
                check(seen.stdout.strip() == value, f"{DEFAULTS} says {seen}")
                if DROP_IN in ways:
                    unit = DROP_IN.read_text().splitlines()
                    check(f"ExecStartPre=!{TOOL} doctor --start" in unit and 'Environment="LD_PRELOAD=' in DROP_IN.read_text(), f"{unit}")
                    check("ReadWritePaths=-/run/fastspool" in unit, f"{unit}")
                check(("doctor --start" in DEFAULTS.read_text()) == (not booted), f"the script's check: {DEFAULTS.read_text()}")
                tells(exim, "start of exim", "ok", f"LD_PRELOAD={value}")
                operate(exim, "disable", "--yes")
                check(not changed(before), f"left: {changed(before)}")
                check("nothing to do" in operate(exim, "disable"), "disabled twice")
                if not text:
                    shutil.rmtree(DROP_IN.parent)


@test(library=True)
def what_others_write_stays(exim):
    """Lines that the operator adds before or behind ours, files beside ours, and another mode of the file stay."""
    with machine(exim):
        good = DEFAULTS.read_text()
        DEFAULTS.write_text(good.rstrip("\n"))
        operate(exim, "enable", "--yes")
        DEFAULTS.write_text("# before\n" + DEFAULTS.read_text() + "# behind\n")
        DEFAULTS.chmod(0o600)
        (DROP_IN.parent / "own.conf").write_text("[Service]\n")
        operate(exim, "disable", "--yes")
        check(DEFAULTS.read_text() == "# before\n" + good.rstrip("\n") + "\n# behind\n", DEFAULTS.read_text())
        check(DEFAULTS.stat().st_mode & 0o777 == 0o600 and (DROP_IN.parent / "own.conf").exists() and not DROP_IN.exists(), "gone")
        shutil.rmtree(DROP_IN.parent)
        DEFAULTS.chmod(0o644)
        operate(exim, "enable", "--yes")
        text = DEFAULTS.read_text()
        DEFAULTS.write_text(text.replace("# fastspool: the end\n", ""))
        check("by hand" in operate(exim, "disable", "--yes", status=1), "a mark is missing, and nothing is said")
        DEFAULTS.write_text(text)
        operate(exim, "disable", "--yes")


@test(library=True)
def the_service(exim):
    """systemd understands the drop-in: the service has the library and the check, and where the view's unit is installed it
    comes before."""
    unit = pathlib.Path("/usr/lib/systemd/system/fastspool@.service")
    name = subprocess.run(["systemd-escape", "--path", "--template=fastspool@.service", exim.spool], capture_output=True, text=True)
    with machine(exim):
        service = pathlib.Path("/etc/systemd/system/exim4.service")
        service.write_text(f"[Service]\nExecStart={EXIM} -bdf\n")
        exim.fastspool_configuration(f"state = {exim.work}/disk/state", "view = auto")
        for installed in (True, False):
            if not installed:
                unit.unlink()
            operate(exim, "enable", "--yes")
            said = subprocess.run(["systemd-analyze", "verify", "--man=no", "exim4.service"], capture_output=True, text=True)
            check("fastspool" not in said.stderr, f"systemd says {said.stderr}")
            check((f"Wants={name.stdout}After={name.stdout}" in DROP_IN.read_text()) == installed, DROP_IN.read_text())
            operate(exim, "disable", "--yes")
        service.unlink()


@test(*WAYS[1:], library=True)
def the_refused_start(exim):
    """Exim's real script starts Exim where systemd is not process 1, installed or not, and after a mistake does not, and says why; --no-check takes mail at any price."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "own", "/var/lib/exim4"], check=True)
    script, target = ["/etc/init.d/exim4", "start"], pathlib.Path(os.path.realpath(INSTALLED))
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "EX4DEBUG": ""}

    def start():
        return subprocess.run(script, env=environment, capture_output=True, text=True, timeout=60)

    def daemons():
        return [pid for pid, name in processes() if name.startswith("exim")]

    def end():
        for pid in daemons():
            os.kill(pid, 15)
        wait_for(lambda: not daemons(), "the daemon ends")

    SYSTEMD.rename("/usr/lib/systemd/away") if SYSTEMD.exists() and exim.work.name.endswith("_script") else None
    with well(exim):
        DEFAULTS.write_text(DEFAULTS.read_text().replace(PRELOAD, ""))
        exim.stop()
        operate(exim, "enable", "--yes")
        said = start()
        check(said.returncode == 0 and daemons(), f"{said}")
        wait_for(lambda: LIBRARY in pathlib.Path(f"/proc/{daemons()[0]}/maps").read_text(), "Exim has the library")
        end()
        target.chmod(0o644)
        said = start()
        check(said.returncode != 0 and "chmod 4644" in said.stderr and not daemons(), f"{said}")
        check("mend the above" in operate(exim, "enable", "--yes", status=1), "enabled on a machine that is not fit")
        operate(exim, "enable", "--yes", "--no-check")
        said = start()
        check(said.returncode == 0 and daemons(), f"{said}")
        end()
        target.chmod(0o4644)
        operate(exim, "disable", "--yes")
        check(LIBRARY not in DEFAULTS.read_text(), "disable left the library")
    os.rename("/usr/lib/systemd/away", SYSTEMD) if os.path.exists("/usr/lib/systemd/away") else None
    subprocess.run(["umount", "/var/lib/exim4"], check=True)


@contextlib.contextmanager
def idle_exims(exim, count, preload=""):
    """What any user may have: Exims that wait for him, here without the library.  They hide no other one, and nobody waits for
    each."""
    environment = {**exim.environment(), "LD_PRELOAD": preload}
    processes = [subprocess.Popen([EXIM, "-bs"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, env=environment, user=USER,
                                  group=USER_ID, extra_groups=[], cwd="/") for _ in range(count)]
    try:
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.communicate()


@test(library=True, main=QUEUE_ONLY)
def never_away_from_mail(exim):
    """While an Exim with the library runs, or mail stands in the store, in memory or only on the disk, disable changes nothing."""
    with machine(exim):
        operate(exim, "enable", "--yes")
        enabled = etc()
        with idle_exims(exim, 260):
            exim.start()
            said = operate(exim, "disable", "--yes", status=1)
        check(f"process {exim.daemon.pid}" in said and "stop it first" in said and not changed(enabled), said)
        exim.submit(Message())
        exim.queued = 1
        exim.stop()
        for again in range(2):
            said = operate(exim, "disable", status=1)
            check("1 message is in the store" in said and "fastspool export" in said and not changed(enabled), said)
            exim.reboot()
        exim.run("-bpc")
        exim.run("-Mrm", *exim.queue())
        exim.queued = 0
        operate(exim, "disable", "--yes")


@test(library=True, main=QUEUE_ONLY)
def the_packages_upgrade_beside_exim(exim):
    """The package's own postinst, where no service of fastspool's runs and Exim goes on: `fastspool stop` ends with 2, which is meant,
    and mirror and view are the new version's.  What stop could not do is said, and is no failure of the installation."""
    with well_with_view(exim):
        exim.submit(Message())
        exim.queued = 1

        def configured(*first):
            """(exit status, what postinst says) of a configuration after an upgrade.  FIRST: in front of the PATH."""
            environment = exim.environment(stock=True)
            environment["PATH"] = ":".join(map(str, (*first, environment["PATH"])))
            result = subprocess.run(["sh", POSTINST, "configure", "0.0.1"], env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True)
            return result.returncode, result.stdout + result.stderr
        before = exim.status()
        check((told := configured()) == (0, ""), f"{told}")
        wait_for(lambda: exim.status()["view_state"] == "mounted", "the view is mounted again")
        after = exim.status()
        check(all(after[name] and after[name] != before[name] for name in ("mirror_pid", "view_pid")), f"{before} {after}")
        check(exim.daemon.poll() is None and int(exim.run("-bpc")) == after["messages"] == 1, f"{after}")
        status_tells(exim, 0, "all is well")
        fails = exim.work / "fails"     # a stop that fails
        fails.mkdir()
        (fails / "fastspool").write_text(f'#!/bin/sh\n[ "$1" != stop ] || {{ echo "fastspool: no room" >&2; exit 1; }}\nexec {TOOL} "$@"\n')
        (fails / "fastspool").chmod(0o755)
        code, said = configured(fails)
        check(code == 0 and "fastspool: no room\n" in said and f"the old version still serves {exim.spool}: " in said, f"exit {code}: {said}")
        check(exim.status()["mirror_pid"] == after["mirror_pid"], "the mirror has ended")
        exim.run("-Mrm", *exim.queue())
        exim.queued = 0


@test(library=True, main=QUEUE_ONLY)
def mail_of_an_exim_by_hand(exim):
    """Exim got the library by hand, and enable has written nothing: disable counts the mail in the store all the same, in memory or
    only on the disk, and offers its export.  Without mail there is nothing to do, and no store comes back."""
    with machine(exim):
        before = etc()
        for _ in range(3):
            exim.submit(exim.expect(Message(), "sink"))
        for again in range(2):
            said = operate(exim, "disable", status=1)
            check("3 messages are in the store" in said and "fastspool export" in said, said)
            exim.reboot()
        listed = exim.listing()
        said = operate(exim, "disable", "--yes")
        check("exported 3 messages" in said and "nothing to do" in said and not changed(before), said)
        check(exim.listing(stock=True) == listed, "plain Exim has another queue")
        operate(exim, "stop")
        check("nothing to do" in operate(exim, "disable") and not stores(), "a store was brought back")
        exim.run("-qff", stock=True)
        exim.wait_arrived()


@test(library=True, main=QUEUE_ONLY)
def an_idle_exim_of_a_user(exim):
    """A user's Exim has the library, which does not serve it: it is none that delivers, and disable does not wait for its end.  One
    of root's is in the way."""
    with machine(exim):
        operate(exim, "enable", "--yes")
        exim.submit(Message())
        exim.queued = 1
        with idle_exims(exim, 1, LIBRARY) as (idle,):
            wait_for(lambda: LIBRARY in pathlib.Path(f"/proc/{idle.pid}/maps").read_text(), "a user's Exim has the library")
            tells(exim, "mail in the store", "wrong", "1 message stands")
            exim.run("-Mrm", *exim.queue())
            exim.queued = 0
            roots = subprocess.Popen([EXIM, "-bs"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, env=exim.environment(), cwd="/")
            check(f"process {roots.pid}" in (said := operate(exim, "disable", "--yes", status=1)), said)
            roots.kill()
            roots.communicate()
            operate(exim, "disable", "--yes")


@test(library=True, main=QUEUE_ONLY)
def mail_without_its_exim(exim):
    """status and doctor say that mail stands while no Exim runs that has the store, whether fastspool is enabled or not."""
    with machine(exim):
        exim.submit(Message())
        exim.queued = 1
        status_tells(exim, 2, "1 message stands", "no Exim runs", "`fastspool enable`")
        tells(exim, "mail in the store", "wrong", "1 message stands")
        operate(exim, "enable", "--yes")
        status_tells(exim, 2, "1 message stands", "no Exim runs")
        exim.start()
        wait_for(lambda: exim.command("status", program=TOOL, stock=True).returncode == 0, "the daemon has the store")
        status_tells(exim, 0, "all is well")
        exim.stop()
        exim.run("-Mrm", *exim.queue())
        exim.queued = 0
        status_tells(exim, 0, "all is well")
        operate(exim, "disable", "--yes")


@test(library=True, main=QUEUE_ONLY, view="library")
def mail_beside_a_users_exim(exim):
    """An Exim that an ordinary user has started, and that works on the view, delivers no queue: mail stands beside it."""
    with machine(exim):
        exim.submit(Message())
        exim.queued = 1
        wait_for(lambda: is_view(exim.spool / "input"), "the view is mounted")
        operate(exim, "enable", "--yes")
        status_tells(exim, 2, "1 message stands", "no Exim runs")
        with subprocess.Popen([EXIM, "-odq", "you@mail.test"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
                              stderr=subprocess.DEVNULL, user=USER, group=USER_ID, extra_groups=[], cwd="/") as users:
            wait_for(lambda: os.readlink(f"/proc/{users.pid}/exe") == os.path.realpath(EXIM), "it runs")
            status_tells(exim, 2, "1 message stands", "no Exim runs")
            check(users.poll() is None, "it has ended")
            users.kill()
        exim.run("-Mrm", *exim.queue())
        exim.queued = 0
        operate(exim, "disable", "--yes")


@test(library=True, main=QUEUE_ONLY)
def never_more_than_it_knows(exim):
    """status does not say that all is well where Exim was started by hand and has left mail, nor after a stop; a spool that was
    left is not in use."""
    with machine(exim):
        exim.start()
        exim.submit(Message())
        exim.queued = 1
        status_tells(exim, 0, "all is well")
        operate(exim, "stop")
        status_tells(exim, 1, "no mirror process runs")
        exim.run("-bpc")
        exim.submit(Message())
        exim.queued = 2
        wait_for(lambda: exim.command("status", program=TOOL, stock=True).returncode == 0, "the mirror is back")
        exim.stop()
        plain = subprocess.Popen([EXIM, "-bdf"], env=exim.environment(stock=True), cwd="/", stdin=subprocess.DEVNULL)
        try:
            wait_for(lambda: exim.command("status", program=TOOL, stock=True).returncode == 2, "status sees the plain Exim")
            status_tells(exim, 2, "2 messages stand", "no Exim runs", "fastspool enable")
        finally:
            plain.terminate()
            plain.wait(60)
        operate(exim, "enable", "--yes")
        operate(exim, "stop")
        said = operate(exim, "status", status=2)
        check("2 messages" in said, said)
        operate(exim, "disable", "--yes")
        exim.queued = 0
        said = operate(exim, "status", status=3)
        check("holds no mail" in said and str(exim.work / "disk/state") in said, said)
        check(exim.status()["health"] == 3, "as JSON")
        listed = exim.run("-bp", stock=True).decode()
        exim.run("-Mrm", *re.findall(r"\w{6}-\w+-\w+", listed), stock=True)


def forms_of(exim, spool):
    """What `fastspool status` says of the one SPOOL of the configuration: (exit status, its text, the JSON, {metric: value} of the spool's own)."""
    text, told, metrics = (exim.command("status", *form, program=TOOL, stock=True) for form in ((), ("--json",), ("--prometheus",)))
    numbers = dict(re.findall(rf'^(\w+){{spool="{spool}"}} (\S+)$', metrics.stdout.decode(), re.M))
    told_as_json = json.loads(told.stdout)
    check(text.returncode == told.returncode == metrics.returncode == told_as_json["health"] == int(numbers["fastspool_health"]),
          f"{text} {told} {metrics}")
    check(not re.search(rb"\b1 (messages|files|evictions|page-ins|processes|open (descriptions|files))\b", text.stdout + text.stderr), f"{text}")
    return text.returncode, (text.stdout + text.stderr).decode(), told_as_json, numbers


def each_form(exim):
    """The same of Exim's spool."""
    return forms_of(exim, exim.spool)


@test(library=True, main=QUEUE_ONLY)
def no_milder_after_a_stop(exim):
    """Mail that stands stands after `fastspool stop`, after a reboot, and where it can't be counted, too: in the text, as JSON, and
    as metrics, which say how much, and what else they know without a store."""
    with machine(exim):
        exim.start()
        for _ in range(2):
            exim.submit(Message())
        exim.queued = 2
        exim.stop()

        def stands(count):
            status, text, told, numbers = each_form(exim)
            check(status == 2, f"exit {status}: {text}")
            check((told.get("state_messages"), numbers.get("fastspool_state_messages")) == (count, None if count is None else str(count)),
                  f"{told} {numbers}")
            check(told["store"] or ("is not lost" in text and "no Exim runs that has it" in text), text)
            return text
        plain = subprocess.Popen([EXIM, "-bdf"], env=exim.environment(stock=True), cwd="/", stdin=subprocess.DEVNULL)
        wait_for(lambda: listens(2525), "the plain Exim listens")
        try:
            stands(None)
            operate(exim, "stop")
            check("1 without the library" in stands(2) and "  view " in stands(2), stands(2))
        finally:
            plain.terminate()
            plain.wait(60)
        stands(2)
        tells(exim, "mail in the store", "wrong", "2 messages stand")
        operate(exim, "enable", "--yes")
        stands(2)
        tells(exim, "mail in the store", "wrong", "2 messages stand")
        exim.run("-bpc")
        stands(None)
        pid = exim.status()["mirror_pid"]
        exim.submit(Message())
        exim.queued = 3
        os.kill(pid, 9)                         # what the journal has, the database has not
        exim.reboot()
        check("can't be counted" in stands(None), stands(None))
        exim.run("-Mrm", *exim.queue())
        exim.queued = 0
        operate(exim, "disable", "--yes")


@test(library=True)
def a_program_of_another_user(exim):
    """Root's status and disable do not run a `program` that another user can write, nor another mail server's.  One that hangs is not
    waited for."""
    program, trace = exim.work / "exim-5.0", exim.work / "trace"
    with machine(exim):
        program.write_text(f"#!/bin/sh\necho run >> {trace}\n")
        program.chmod(0o755)
        good = pathlib.Path(FASTSPOOL_CONFIGURATION).read_text()
        with written(FASTSPOOL_CONFIGURATION, f"program = {program}\n{good}"):
            exim.command("status", program=TOOL, stock=True)
            check(trace.exists(), "status does not ask the program")
            trace.unlink()
            program.write_text(f"#!/bin/sh\necho run >> {trace}\nexec sleep 60\n")
            began = time.monotonic()
            exim.command("status", program=TOOL, stock=True)
            check(trace.exists() and time.monotonic() - began < 30, f"status took {time.monotonic() - began:.0f} s")
            trace.unlink()
            other = program.rename(exim.work / "smtpd")
            with written(FASTSPOOL_CONFIGURATION, f"program = {other}\n{good}"):
                exim.command("status", program=TOOL, stock=True)
                check(not trace.exists(), "another mail server is asked")
            other.rename(program)
            for owner, mode in ((USER_ID, 0o755), (0, 0o757)):
                os.chown(program, owner, 0)
                program.chmod(mode)
                for arguments in (("status",), ("disable", "--yes")):
                    exim.command(*arguments, program=TOOL, stock=True)
                check(not trace.exists(), f"it is run, with mode {mode:o}")


@test(library=True, main=QUEUE_ONLY)
def mail_on_the_plain_disk_stands(exim):
    """Where Exim is enabled and none runs, mail on the plain disk stands, beside a store, after a stop, and as JSON and metrics; an
    Exim of any kind delivers it, and a machine that has been left is none of fastspool's."""
    with machine(exim):
        for _ in range(2):
            exim.submit(Message())
        operate(exim, "export", "--yes")
        words = "2 messages on the plain disk stand: start Exim"
        check(words not in each_form(exim)[1], "it is not enabled")
        operate(exim, "enable", "--yes")
        for store in (True, False):
            exim.run("-bpc") if store else operate(exim, "stop")
            status, said, told, _ = each_form(exim)
            check(status == 2 and words in said and told["store"] == store and told["disk_messages"] == 2, f"exit {status}: {said}")
            check(words in told["line"] + told.get("more", ""), f"{told}")
        tells(exim, "store", "wrong", words)
        exim.start()
        wait_for(lambda: exim.command("status", program=TOOL, stock=True).returncode == 0, "an Exim delivers it")
        exim.stop()
        wait_for(lambda: exim.command("status", program=TOOL, stock=True).returncode == 2, "no Exim runs any more")
        exim.run("-Mrm", *exim.queue())
        status_tells(exim, 0, "all is well")
        operate(exim, "disable", "--yes")


@contextlib.contextmanager
def without_its_bit():
    """The installed library has lost its set-user-ID bit, for a time."""
    INSTALLED.chmod(0o644)
    try:
        yield
    finally:
        INSTALLED.chmod(0o4644)


def lie(exim):
    """The path of a new library that makes fsync nothing: with it in /etc/ld.so.preload a start of Exim is refused."""
    source, eats = exim.work / "lie.c", "/usr/lib/x86_64-linux-gnu/libeats.so"
    source.write_text("int fsync(int fd) { return 0; } int fdatasync(int fd) { return 0; }")
    subprocess.run(["gcc", "-shared", "-fPIC", "-w", "-o", eats, source], check=True)
    return eats


@test(library=True, main=QUEUE_ONLY)
def a_start_that_is_refused_beside_mail(exim):
    """Mail stands in the store, in the state, or on the plain disk, and the start that would help would be refused: status says why."""
    eats = lie(exim)
    with machine(exim):
        operate(exim, "enable", "--yes")
        exim.submit(Message())
        for place, begin in (("store", lambda: None), ("state", lambda: operate(exim, "stop")), ("disk", lambda: (
                operate(exim, "export", "--yes"), operate(exim, "stop")))):
            begin()
            _, said, _, _ = each_form(exim)
            check("would be refused" not in said, said)
            for spoil, why in ((without_its_bit, "0644"), (lambda: written("/etc/ld.so.preload", f"{eats}\n"), eats)):
                with spoil():
                    refuses(exim, why)
                    status, said, told, _ = each_form(exim)
                    line = next((line for line in said.splitlines() if "would be refused" in line), "")
                    check(status == 2 and " stand" in line and why in line, f"{place}: exit {status}: {said}")
                    check("would be refused" in told["line"] + told["more"], f"{told}")
                    report = exim.command("doctor", program=TOOL, stock=True).stdout.decode()
                    check("would be refused" in report and all(line.count("to do: ") <= 1 for line in report.splitlines()), report)
        exim.run("-Mrm", *exim.queue())
        operate(exim, "disable", "--yes")


@test(library=True, main=QUEUE_ONLY)
def every_form_knows_it(exim):
    """What --json knows of a mirror that does not run, the text and the screen know, too."""
    with machine(exim):
        exim.start()
        operate(exim, "stop")
        _, text, told, numbers = each_form(exim)
        check(told["mirror_pid"] == 0 and numbers["fastspool_mirror_up"] == "0" and "mirror       none runs" in text, text)
        for name in ("locked", "conflicts", "left", "hidden"):
            check(float(numbers[f"fastspool_disk_{name}"]) == told[f"disk_{name}"] == 0, f"{numbers}")


@test(library=True, main=QUEUE_ONLY)
def no_circle(exim):
    """Neither doctor nor status sends to the other one: each says itself what to do.  What status names after a stop does bring
    the mail back, without a view, too."""
    with machine(exim):
        operate(exim, "enable", "--yes")
        exim.submit(Message())
        exim.queued = 1

        def own_words(status, *words):
            _, found, _ = doctor(exim)
            said = each_form(exim)
            check(said[0] == status and "fastspool doctor" not in said[1] and all(word in said[1] for word in words), f"{said}")
            check("fastspool status" not in found["store"][1], f"{found['store']}")
        own_words(2, "start Exim")
        exim.start()
        with without_its_bit():
            own_words(2, "chmod 4644", "takes mail, and delivers none")
        exim.stop()
        operate(exim, "stop")
        own_words(2, "`fastspool run -- true`")
        operate(exim, "run", "--", "true")
        check(exim.status()["messages"] == 1, "the mail is back")
        exim.run("-Mrm", *exim.queue())
        exim.queued = 0
        operate(exim, "disable", "--yes")


@test(library=True, main=QUEUE_ONLY)
def an_import_that_was_killed(exim):
    """Each message counts once, wherever a killed import has left it: on the disk, or in the store."""
    with machine(exim):
        exim.start()
        exim.stop()
        for _ in range(3):
            exim.command("-oi", Message().recipients[0], input=b"Subject: plain\n\n", stock=True)
        for calls in range(1, 400, 7):
            importing = subprocess.run(["strace", "-f", "-o", "/dev/null", "-e", "trace=all", "-e",
                                        f"inject=renameat2,renameat,rename,unlinkat,unlink,flock:signal=KILL:when={calls}",
                                        TOOL, "import"], capture_output=True)
            told = exim.status()
            check(told["messages"] + told["disk_messages"] == 3,
                  f"killed at {calls}: {told['messages']} in the store, {told['disk_messages']} on the disk")
            found = doctor(exim)[1]
            counted = re.search(r"(\d+) messages on the plain disk", found["mail on the disk"][1])
            check((f"{told['messages']} messages" in found["mail in the store"][1]) and
                  int(counted[1] if counted else 0) == told["disk_messages"], f"killed at {calls}: {told}, and doctor says {found}")
            if importing.returncode == 0:
                break
        check(importing.returncode == 0 and told["messages"] == 3, f"{importing}")
        exim.run("-Mrm", *exim.queue())


def not_well(exim, status, *words):
    """`fastspool status` ends with STATUS, its first line has WORDS, and advises a start or restart only where it is not refused."""
    status_tells(exim, status, *words)
    said = operate(exim, "status", status=status).splitlines()[0]
    check("would be refused" not in said or "exim4 start`" not in said and "exim4 restart`" not in said, said)


@test(library=True, main=QUEUE_ONLY)
def nothing_that_is_refused(exim):
    """doctor and status advise no start of Exim that would be refused, nor one before what is half moved is whole; and each command
    once."""
    with machine(exim):
        target = pathlib.Path(os.path.realpath(INSTALLED))
        operate(exim, "enable", "--yes")
        exim.submit(Message())
        begin = "start Exim, `/etc/init.d/exim4 start`"
        tells(exim, "mail in the store", "wrong", begin)
        check("no Exim runs; `/etc/init.d/exim4 start`" in doctor(exim)[1]["running exims"][1], f"{doctor(exim)}")
        target.chmod(0o644)
        _, found, _ = doctor(exim)
        for name in ("mail in the store", "running exims"):
            check("its start would be refused: " in found[name][1] and "`/etc/init.d/exim4 start`" not in found[name][1], f"{found}")
        refused = ("its start would be refused: ", "0644")
        not_well(exim, 2, "1 message stands", *refused)
        target.chmod(0o4644)
        with by_hand(exim):             # a queue run, say
            not_well(exim, 1, "has the store ends soon; start Exim, `/etc/init.d/exim4 start`")
            with without_its_bit():
                _, found, _ = doctor(exim)
                check("no Exim daemon runs" in found["running exims"][1] and refused[0] in found["running exims"][1] and
                      "exim4 start`" not in found["running exims"][1], f"{found}")
            with written("/etc/ld.so.preload", f"{lie(exim)}\n"):
                not_well(exim, 1, "has the store ends soon", refused[0], "libeats.so")
        with plain_daemon(exim) as daemon:
            not_well(exim, 2, "no Exim runs that has the store, and what runs has not got the library; restart Exim, `/etc/init.d/exim4 restart`")
            said = doctor(exim)[1]["running exims"][1]      # enabled it is
            check("`/etc/init.d/exim4 restart`" in said and "fastspool enable" not in said, f"another thing is advised: {said}")
            with without_its_bit():
                not_well(exim, 2, "no Exim runs that has the store", *refused)
                _, found, _ = doctor(exim)
                check(f"process {daemon.pid} " in found["running exims"][1] and refused[0] in found["running exims"][1] and
                      "exim4 restart`" not in found["running exims"][1], f"{found}")
        operate(exim, "export", "--yes")
        _, found, _ = doctor(exim)
        check(found["mail on the disk"][0] == "wrong" and begin in found["mail on the disk"][1] and
              found["mail on the disk"][1].count("exim4 start") == 1, f"{found}")
        target.chmod(0o644)
        _, found, _ = doctor(exim)
        check("its start would be refused: " in found["mail on the disk"][1] and begin not in found["mail on the disk"][1], f"{found}")
        target.chmod(0o4644)
        operate(exim, "import")
        for call in range(1, 10):
            subprocess.run(["strace", "-o", "/dev/null", "-e", "trace=renameat2", "-e", f"inject=renameat2:signal=KILL:when={call}",
                            TOOL, "export", "--yes"], capture_output=True)
            if exim.status()["half_moved"]:
                break
        _, found, _ = doctor(exim)
        told = [found[name][1] for name in ("mail on the disk", "mail in the store") if " stand" in found[name][1]]
        check(told and all("run `fastspool export` again" in text and "start Exim" not in text for text in told), f"{found}")
        operate(exim, "import")
        exim.run("-Mrm", *exim.queue())
        operate(exim, "disable", "--yes")


@test(library=True)
def what_to_do(exim):
    """Each sentence says what to do: after a stop, and to an ordinary user.  An empty store is listed."""
    with machine(exim):
        operate(exim, "run", "--", "true")
        check(operate(exim, "ls") == "", "an empty store has files")
        for command in ("status", "ls", "flush", "verify"):
            result = exim.command(command, program=TOOL, stock=True, user=USER)
            said = (result.stdout + result.stderr).decode()
            check(result.returncode == 1 and "run it as root" in said, f"{command}: {said!r}")
        operate(exim, "stop")
        for command in (("ls",), ("cat", "input"), ("flush",), ("backup", "/b")):
            said = operate(exim, *command, status=1)
            check("`fastspool run -- true`" in said and "start Exim" in said, said)
        said = operate(exim, "mirror", exim.spool, status=1)
        check(said.count(str(exim.spool)) == 1, f"the spool is named twice: {said}")


def on_terminal(answers, *arguments, program=(TOOL,), asked=None):
    """(exit status, what `fastspool ARGUMENTS` says) on a terminal where ANSWERS are typed.  ASKED: what is done when a question
    is there, before the answer."""
    master, slave = pty.openpty()
    process = subprocess.Popen([*program, *arguments], stdin=slave, stdout=slave, stderr=slave)
    os.close(slave)
    said = b""
    if asked:
        while b"[y/N]" not in said:
            said += os.read(master, 4096)
        asked()
    os.write(master, answers.encode())
    with contextlib.suppress(OSError):
        while piece := os.read(master, 4096):
            said += piece
    os.close(master)
    return process.wait(), said.decode()


@test(("", {}), ("_with_view", {}), library=True, main=QUEUE_ONLY)
def off_with_mail(exim):
    """disable offers the export.  After it plain Exim has every message, and delivers each once; after the next enable, and a
    reboot, none comes back.  A no, and an Exim that works on a message, leave the library where it is."""
    with_view = exim.work.name.endswith("_with_view")
    if with_view:
        exim.make_directories()
    with machine(exim, *(["view = auto"] if with_view else [])):
        before = etc()
        code, said = on_terminal("n\n", "enable")
        check(code == 1 and "nothing was written" in said and not changed(before), said)
        code, said = on_terminal("\x04", "enable")       # ^D
        check(code == 1 and "[y/N] \r\nfastspool: nothing was written" in said and not changed(before), said)
        operate(exim, "enable", "--yes")
        enabled = etc()
        for _ in range(12):
            exim.submit(exim.expect(Message(), "sink"))
        if with_view:
            wait_for(lambda: is_view(exim.spool / "input"), "the view is mounted")
            daemon = subprocess.Popen([EXIM, "-bdf", "-oX", "2527"], env=exim.environment(stock=True), cwd="/", stdin=subprocess.DEVNULL)
            refused = wait_for(lambda: f"process {daemon.pid}" in (said := operate(exim, "disable", status=1)) and said, "it is refused")
            check("works on the view" in refused and not changed(enabled), refused)
            daemon.terminate()
            daemon.wait(20)
        exim.run("-Mf", exim.queue()[3])
        listed = exim.listing()
        code, said = on_terminal("n\n", "disable")
        check(code == 1 and "12 messages are in the store" in said and not changed(enabled), said)
        if not with_view:               # there an Exim alone holds a lock, and is refused before
            holder = subprocess.Popen(["python3", "-c", HOLDER, exim.spool / "input" / f"{exim.queue()[0]}-D"], env=exim.environment(),
                                      stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            check(holder.stdout.readline() == "locked\n", "no lock")
            said = operate(exim, "disable", "--yes", status=1)
            check("exported 11 messages" in said and "1 message is in the store" in said and not changed(enabled), said)
            check("do what the export says" in said and "by `fastspool export`" not in said, f"what has failed is advised: {said}")
            holder.communicate()
            check((now := exim.listing()) == listed, f"Exim with the library has {now}, and had {listed}")
        if not with_view:
            code, said = on_terminal("n\n", "export")
            check(code == 1 and "nothing was moved" in said, said)
        code, said = on_terminal("y\n", "disable")
        check(code == 0 and f"exported {'12 messages' if with_view else '1 message'} in" in said and not changed(before),
              f"exit {code}, changed: {changed(before)}: {said}")
        check(said.count("[y/N]") == 1 and "stay in the store" not in said, f"asked twice, or stop's line: {said}")
        check(exim.listing(stock=True) == listed, "plain Exim has another queue")
        exim.run("-qff", stock=True)
        exim.wait_arrived()
        for again in range(2):
            operate(exim, "enable", "--yes")
            check(exim.queue() == [], "a message that was delivered is back")
            operate(exim, "disable", "--yes")
            exim.reboot()


def in_order(said, *words):
    """SAID has WORDS, one behind the other."""
    at = 0
    for word in words:
        found = said.find(word, at)
        check(found >= 0, f"{word!r} is missing, or not in its place: {said}")
        at = found + len(word)


@test(library=True, main=QUEUE_ONLY)
def one_story(exim):
    """disable tells what it does in the order in which it does it, also where its two streams are one.  An Exim comes while it
    asks: it says why it stops there, and nothing of what stop or a view would have done."""
    with machine(exim):
        operate(exim, "enable", "--yes")
        enabled = etc()
        for _ in range(2):
            exim.submit(Message())

        def told(*arguments):
            return subprocess.run([TOOL, *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                  text=True).stdout
        goes = ("What `fastspool enable` has written goes:", str(DEFAULTS))
        in_order(told("disable"), *goes, "2 messages are in the store", "nobody can be asked", "nothing was taken away: 2 messages are in the store")
        code, said = on_terminal("y\n", "disable", asked=exim.start)
        in_order(said, *goes, "2 messages are in the store", "[y/N]", f"nothing was changed: Exim, process {exim.daemon.pid} (",
                 "may put mail into the store: stop it first")
        check(code == 1 and "see it" not in said and "see mail" not in said and not changed(enabled), said)
        check(said.count("process ") == 1 and "`fastspool stop`" not in said, said)
        in_order(told("stop"), "2 messages stay in the store", "uses the store of", "then run `fastspool stop` again")
        exim.stop()
        in_order(told("disable", "--yes"), *goes, "2 messages are in the store", "exported 2 messages", "Done.")
        exim.run("-Mrm", *ID.findall(exim.run("-bp", stock=True).decode()), stock=True)


# Works on a message as Exim does, which holds the lock of its -D file.
HOLDER = """
import fcntl, os, sys
data = os.open(sys.argv[1], os.O_RDWR)
fcntl.lockf(data, fcntl.LOCK_EX | fcntl.LOCK_NB, 19)
print("locked", flush=True)
sys.stdin.read()
"""


@test(library=True)
def for_every_program(exim):
    """Where there is no view enable says what will not be seen by whom; --everywhere gives every program the library."""
    with machine(exim):
        for text in (None, "libm.so.6", "# a comment\nlibm.so.6\n", f"{LIBRARY}\n"):
            if text:
                pathlib.Path("/etc/ld.so.preload").write_text(text)
            before = etc()
            check("mailq" in operate(exim, "enable", status=1), "who will not see the queue is not said")
            check("mailq" not in operate(exim, "enable", "--yes", "--everywhere"), "every program has the library")
            shown = subprocess.run(["cat", "/proc/self/maps"], env={}, capture_output=True, text=True)
            check(LIBRARY in shown.stdout and LIBRARY not in shown.stderr, f"{shown}")
            operate(exim, "disable", "--yes")
            check(not changed(before), f"left: {changed(before)}")
        os.unlink("/etc/ld.so.preload")


if __name__ == "__main__":
    main("operating")
