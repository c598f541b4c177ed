#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Export and import: a queue that goes to the plain disk, and comes back.  Exim with the library and plain Exim take turns."""
import contextlib
import fcntl
import os
import pathlib
import pty
import re
import select
import signal
import shlex
import shutil
import struct
import subprocess
import tempfile
import threading
import time

from disk import LoopDisk
from harness import (EXIM, QUEUE_ONLY, TOOL, USER_ID, Client, Message, check, held, main, processes, stores, suspend, test, wait_for,
                     words_of)

SPLIT = QUEUE_ONLY + ("split_spool_directory = true",)
LAYOUTS = (("", {"main": QUEUE_ONLY}), ("_split", {"main": SPLIT}))


def queue(exim, count):
    """COUNT messages in the store, of which Exim knows each."""
    client = Client()
    for _ in range(count):
        code, reply = client.send(exim.expect(Message(), "sink"))
        check(code == 250, reply)
    client.close()


def plain(exim, *arguments):
    return exim.run(*arguments, stock=True)


def stays_empty(exim):
    """No message is in the store, and none comes back from it."""
    check(exim.queue() == [], "the store has a message that was delivered")
    check("all is well" in exim.tool("verify"), "verify finds something")


@test(*LAYOUTS, library=True)
def exported(exim):
    """After an export plain Exim has the whole queue, in its order, and delivers each message once.  None comes back."""
    exim.start()
    queue(exim, 20)
    frozen = exim.queue()[3]
    exim.run("-Mf", frozen)
    exim.stop()
    before = exim.listing()
    said = exim.tool("export", "--yes")
    check("exported 20 messages in " in said, said)
    check(exim.listing(stock=True) == before, "the queue is another one")
    plain(exim, "-qff")
    exim.wait_arrived()
    stays_empty(exim)


@test(*LAYOUTS, library=True)
def there_and_back(exim):
    """An export, and an import while the daemon runs: Exim with the library sees each message once at any time."""
    exim.start()
    queue(exim, 20)
    before = sorted(exim.queue())
    exim.stop()
    exim.tool("export", "--yes")
    check(sorted(exim.queue()) == before, "the union has another queue")
    exim.start()
    said = exim.tool("import")
    check("imported 20 messages in " in said, said)
    check(sorted(exim.queue()) == before and not exim.real_files(), "the queue is another one")
    exim.deliver_queue()
    stays_empty(exim)


def refused(exim, *arguments):
    """It is refused, and nothing is changed.  Returns what is said."""
    result = exim.command(*arguments, program=TOOL, stock=True)
    said = result.stderr.decode()
    check(result.returncode == 1 and said.count("\n") == 1 and "nothing was " in said, f"{arguments}: {result}")
    return said


@test(library=True, main=QUEUE_ONLY)
def a_clock_that_was_set_back(exim):
    """An empty -D file of tomorrow, which a refused message has left before the clock was set back, is not one that Exim makes now: an
    import takes it, and an export gives it back."""
    exim.run("-bpc")
    (exim.spool / "input").mkdir(exist_ok=True)
    exim.own(exim.spool / "input")
    left = exim.spool / "input/1xWzyf-00002n-1M-D"
    left.touch()
    exim.own(left)
    tomorrow = time.time() + 86400
    os.utime(left, (tomorrow, tomorrow))
    said = exim.tool("import")
    check(not left.exists() and "1xWzyf-00002n-1M-D" in exim.tool("ls"), f"the import leaves it: {said}")
    said = exim.tool("export", "--yes")
    check(left.exists() and "1xWzyf-00002n-1M-D" not in exim.tool("ls"), f"the export leaves it: {said}")
    left.unlink()


@test(library=True, main=QUEUE_ONLY)
def beside_exim(exim):
    """What empties the store is refused beside an Exim that has it, also when its mirror was stopped; the import beside Exims that all
    have it not.  The Exim of another spool is in nobody's way."""
    exim.start()
    queue(exim, 3)
    before = exim.queue()
    copy, other = exim.work / "copy", exim.work / "other"
    (copy / "input").mkdir(parents=True)
    exim.own(copy)
    for stopped in False, True:
        exim.tool("stop") if stopped else None
        for arguments in (("export", "--yes"), ("export", "--yes", other), ("compact",)):
            said = refused(exim, *arguments)
            check(f"process {exim.daemon.pid} (" in said and "has the library" in said and "stop it first, `/etc/init.d/exim4 stop`" in said, said)
        owners = exim.command("export", "--yes", program=TOOL, stock=True, user="Debian-exim")
        check(owners.returncode == 1 and b"can't be looked at: stop Exim, or run it as root" in owners.stderr, f"{owners}")
        check("exported 0 messages" in exim.tool("export", "--yes", "--spool", copy), "the copy")
        check(exim.queue() == before and not other.exists(), "the queue is another one")
    exim.stop()
    ending = subprocess.Popen(["strace", "-f", "-o", "/dev/null", "-e", "inject=exit_group:delay_enter=100000000", EXIM, "-oPX"],
                              env=exim.environment(), cwd="/", stdin=subprocess.DEVNULL)
    wait_for(lambda: [pid for pid, _ in processes() if words_of(pid)[-1:] == ["-oPX"] and words_of(pid)[0] == EXIM],
             "an Exim that removes its pid file")
    exim.tool("export", "--yes")
    for pid, _ in processes():
        if words_of(pid)[-1:] == ["-oPX"]:
            os.kill(pid, signal.SIGKILL)
    ending.wait()
    daemon = subprocess.Popen([EXIM, "-bdf", "-oX", "2527"], env=exim.environment(stock=True), cwd="/", stdin=subprocess.DEVNULL)
    said = wait_for(lambda: f"process {daemon.pid} (" in (said := refused(exim, "import")) and said, "it is refused")
    check("has not got the library" in said and "`fastspool enable`, `/etc/init.d/exim4 restart`" in said, said)
    exim.start()                        # it delivers what is imported
    check("imported 3 messages" in exim.tool("import"), "beside the Exim with the library")
    daemon.terminate()
    daemon.wait(60)
    exim.tool("stop", "--spool", copy)
    exim.deliver_queue()
    stays_empty(exim)


# As Exim does: it opens a message's -D file, and locks it a moment later; with the lock the -H file is what it looks for.
DELIVERER = """
import fcntl, os, sys
data = os.open(sys.argv[1] + "-D", os.O_RDWR)
print("open", flush=True)
sys.stdin.readline()
try:
    fcntl.lockf(data, fcntl.LOCK_EX | fcntl.LOCK_NB, 19)
    print("delivers" if os.path.exists(sys.argv[1] + "-H") and os.fstat(data).st_nlink else "finds nothing", flush=True)
    sys.stdin.readline()
except OSError as error:
    print(f"locked: {error}")
"""


@test(("", {}), ("_killed", {}), library=True, main=QUEUE_ONLY)
def opened_before(exim):
    """A process with the library has opened a message on the disk, and has not locked it yet: the import leaves it there, so
    the message is not delivered from both places; also where the import was killed before."""
    for _ in range(3):
        message = exim.expect(Message(), "sink")
        exim.run("-oi", "-odq", "-f", message.sender, *message.recipients, input=message.content(), stock=True)
    name = exim.queue()[1]
    deliverer = subprocess.Popen(["python3", "-c", DELIVERER, exim.spool / "input" / name], env=exim.environment(),
                                 stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    check(deliverer.stdout.readline() == "open\n", "the message can't be opened")
    if exim.work.name.endswith("_killed"):
        process = subprocess.Popen([TOOL, "import"], stdout=subprocess.DEVNULL)
        wait_for(lambda: list(exim.spool.glob("input/.fastspool.taken.*-D")), "the import has taken the names")
        process.send_signal(signal.SIGKILL)
        process.wait()
    said = exim.command("import", program=TOOL, stock=True)
    check(said.returncode == 2 and b"imported 2 messages" in said.stdout and b"1 that processes work on" in said.stdout, f"{said}")
    check(len(exim.queue()) == 3 and (exim.spool / "input" / f"{name}-H").exists(), "the message was moved")
    deliverer.stdin.write("\n")
    deliverer.stdin.flush()
    check(deliverer.stdout.readline() == "delivers\n", "it does not find its message")
    exim.run("-M", name)                # another deliverer meets its lock
    check(name in exim.queue() and not exim.arrived(), "delivered while a process has its lock")
    deliverer.communicate("\n")
    check("imported 1 message in" in exim.tool("import") and not exim.real_files(), "the message stays")
    exim.deliver_queue()
    stays_empty(exim)


@test(library=True, main=SPLIT)
def killed(exim):
    """kill -9 of an export and of an import at many instants: run again, each finishes, and each message is delivered once."""
    exim.start()
    queue(exim, 40)
    exim.stop()
    before = sorted(exim.queue())
    for verb in ("export", "import") * 6:
        for delay in (0.005, 0.02, 0.04, 0.08):
            process = subprocess.Popen([TOOL, verb] + (["--yes"] if verb == "export" else []), stdout=subprocess.DEVNULL,
                                       stderr=subprocess.DEVNULL)
            time.sleep(delay)           # any instant will do
            process.send_signal(signal.SIGKILL)
            process.wait()
        exim.tool(verb, *(["--yes"] if verb == "export" else []))
        check(sorted(exim.queue()) == before, f"after {verb} the queue is another one")
    exim.tool("export", "--yes")
    plain(exim, "-qff")
    exim.wait_arrived()
    stays_empty(exim)


MOVES = "renameat2", "renameat", "unlinkat", "mkdirat", "syncfs", "fsync", "futex"  # what a move does to the disk, and waits for


def die_at(name, call, *arguments):
    """`fastspool ARGUMENTS`, killed at the CALL-th system call NAME; was it?"""
    result = subprocess.run(["strace", "-o", "/dev/null", "-e", f"trace={name}", "-e", f"inject={name}:signal=KILL:when={call}",
                             TOOL, *arguments], capture_output=True)
    check(result.returncode in (0, -signal.SIGKILL), f"{arguments}: {result}")
    return result.returncode != 0


def in_store(told):
    """The messages in the store, or in the state on the disk, of a status TOLD."""
    return told["messages" if told["store"] else "state_messages"]


def count_everywhere(exim, truth, doctors):
    """status, doctor and Exim count each of TRUTH messages once, and name those that are half moved, also where no store is in memory.
    The doctor is slow: it is asked of what is not in DOCTORS yet.  Returns how many are half moved."""
    told = wait_for(lambda: (told := exim.status()).get("recovering") is not True and told, "the store is recovered")
    store, disk, half = in_store(told), told["disk_messages"], told["half_moved"]
    check(store + disk == truth, f"{store} in the store, {disk} on the disk, of {truth}: {told}")
    found = int(exim.run("-bpc"))
    check(found == truth - half, f"Exim finds {found}, and {half} of {truth} are half moved")
    words = f"{half} message{' is' if half == 1 else 's are'} half moved, and no Exim finds {'it' if half == 1 else 'them'}: run `fastspool "
    check(not half or words in told["line"] and told["health"] == 2, f"{half} half moved: {told['line']}")
    if (store, disk, half) not in doctors:
        doctors.add((store, disk, half))
        said = exim.command("doctor", program=TOOL, stock=True).stdout.decode()
        check(f"{store} message" in said and f"{disk} message{'' if disk == 1 else 's'} on the plain disk" in said or disk == 0 and
              "on the plain disk" not in said, f"{told}, and doctor says {said}")
        check(not half or words in said, f"doctor does not name {half} half moved: {said}")
        exim.tool("stop")
        told = exim.status()
        check((told["store"], told["state_messages"], told["disk_messages"], told["half_moved"]) == (False, store, disk, half),
              f"{store}, {disk} and {half} before the stop: {told}")
        said = exim.command("status", program=TOOL, stock=True).stderr.decode()
        check(not half or words in said, f"without a store status does not name {half} half moved: {said}")
    return half


@test(("_export", {}), ("_import", {}), library=True, main=QUEUE_ONLY)
def counted(exim):
    """kill -9 of an export or import at each of its steps: each message counts once, in the store or on the disk, for everybody that
    counts; one that no Exim finds is named.  After another call nothing is on the other side, and nothing remains there."""
    verb, other = ("import", "export") if exim.work.name.endswith("_import") else ("export", "import")
    options, doctors, halves, calls = {"export": ["--yes"], "import": []}, set(), 0, 0
    stride = 2 if verb == "export" and "FASTSPOOL_TEST_LONG" not in os.environ else 1   # after a killed one an export waits a second
    for _ in range(2):
        exim.submit(Message())
    exim.tool(other, *options[other])
    for name in MOVES:
        for call in range(1, 100, stride):
            killed = die_at(name, call, verb, *options[verb])
            calls += killed
            halves += count_everywhere(exim, 2, doctors) > 0
            told = exim.status()
            said = exim.tool(verb, *options[verb])
            check(verb == "export" or f"imported {told['disk_messages']} message" in said, f"{told['disk_messages']} were on the disk: {said}")
            told = exim.status()
            check((in_store(told), told["disk_messages"], told["half_moved"]) == ((2, 0, 0) if verb == "import" else (0, 2, 0)), f"{told}")
            check(not list(exim.spool.glob("input/**/.fastspool.*")), "something remains on the disk")
            exim.tool(other, *options[other])
            if not killed:
                break
    check(calls > 15 and halves > 2, f"only {calls} steps, {halves} with messages half moved")
    exim.tool("import")
    exim.run("-Mrm", *exim.queue())


@test(("_export", {}), ("_elsewhere", {}), ("_import", {}), library=True, main=QUEUE_ONLY)
def verbs_beside_a_killed_move(exim):
    """What a killed export or import has left is in the way of no other verb: a copy is made and tells what is half moved in it, and a
    restore of the copy counts the same; verify, dump, compact and stop go on, and lose nothing.  disable names the directory to which
    an export goes on."""
    verb = "import" if exim.work.name.endswith("_import") else "export"
    other = [exim.work / "the other"] if exim.work.name.endswith("_elsewhere") else []
    options = {"export": ["--yes", *other], "import": []}
    state, place, halves = exim.spool / ".fastspool", pathlib.Path(tempfile.mkdtemp(dir="/home")), 0

    def operate(*arguments, status=(0,)):
        result = exim.command(*arguments, program=TOOL, stock=True)
        check(result.returncode in status, f"{arguments}: {result}")
        return result

    def fill():
        for _ in range(2):
            exim.submit(Message())
        if verb == "import":
            exim.tool("export", "--yes")
    for name, call in (("syncfs", 1), ("renameat2", 1), ("renameat2", 2), ("renameat2", 3), ("renameat", 1), ("renameat", 2),
                       ("renameat", 3), ("fsync", 1), ("unlinkat", 1)):
        fill()
        die_at(name, call, verb, *map(str, options[verb]))
        exim.run("run", "--", "true", program=TOOL, stock=True)
        told = exim.status()
        counts = [in_store(told), told["disk_messages"], told["half_moved"]]
        copy = place / f"{name}{call}"
        said = operate("backup", copy, status=(2,) if counts[1] or counts[2] else (0,)).stderr.decode()
        check(not counts[2] or f"{counts[2]} message" in said and "half moved" in said and "make another one then" in said, said)
        operate("verify")
        operate("dump", "journal")
        exim.tool("stop")
        operate("compact")
        state.rename(exim.work / "before")
        shutil.copytree(copy, state)
        for path in (state, *state.rglob("*")):
            shutil.chown(path, "Debian-exim", "Debian-exim")
        exim.run("run", "--", "true", program=TOOL, stock=True)
        told = exim.status()
        check(counts == [in_store(told), told["disk_messages"], told["half_moved"]], f"{name} {call}: {counts}, and restored: {told}")
        operate("verify")
        halves += counts[2] > 0
        if counts[2] and other:
            said = operate("disable", "--yes", status=(1,)).stderr.decode()
            check(f"`fastspool export '{other[0]}'`" in said, said)
        exim.tool(verb, *options[verb])
        exim.tool("stop")
        shutil.rmtree(exim.work / "before")
        told = exim.status()
        check(not told["half_moved"], f"{told}")
        exim.tool("import")
        if other:
            found = len(list(other[0].glob("input/*-H")))
            check(found == 2, f"{name} {call}: {found} of 2 are there")
            shutil.rmtree(other[0])
        else:
            check(len(exim.queue()) == 2, f"{name} {call}: {exim.queue()}")
            exim.run("-Mrm", *exim.queue())
    check(halves > 0, "none was half moved")


@test(library=True, main=QUEUE_ONLY)
def counted_elsewhere(exim):
    """kill -9 of an export to another directory: each message counts once, in the store; who asks is sent to the same call,
    with its directory, also where no store is in memory, and the spool's own directory has none of it.  While it runs nothing is said."""
    other = exim.work / "the other"
    for _ in range(2):
        exim.submit(Message())
    check(die_at("renameat2", 1, "export", "--yes", str(other)), "it has come to its end")
    told = exim.status()
    check((in_store(told), told["disk_messages"], told["half_moved"]) == (2, 0, 2), f"{told}")
    words = f"run `fastspool export '{other}'` again to finish"
    check(words in told["line"] and "if that is the directory of before" in told["line"] and told["health"] == 2, f"{told}")
    exim.command("stop", program=TOOL, stock=True)
    said = exim.command("status", program=TOOL, stock=True)
    check(said.returncode == 2 and words in said.stderr.decode(), f"{said}")
    import_refused = exim.command("import", program=TOOL, stock=True)
    check(exim.status()["half_moved"] == 2, f"an import has taken it: {import_refused}")
    exporting, stopped = held(exim, "renameat2", other / "input", "export", "--yes", other)
    told = exim.status()
    check(told["half_moved"] == 2 and "half moved" not in told["line"], f"of what is on its way: {told}")
    os.kill(stopped, signal.SIGCONT)
    said = exporting.communicate(timeout=60)[0]
    check(exporting.returncode == 0, said)
    told = exim.status()
    check((in_store(told), told["disk_messages"], told["half_moved"]) == (0, 0, 0), f"{told}")
    check(len(list(other.glob("input/*-H"))) == 2, "not all is there")


FORGE = """
import ctypes, sys
library, config, fs, error = ctypes.CDLL("libfastspool.so.0"), ctypes.create_string_buffer(1 << 20), ctypes.c_void_p(), ctypes.create_string_buffer(512)
assert library.fastspool_config_load(config, None, False, error) == 0, error.value
assert library.fastspool_attach(sys.argv[1].encode(), config, ctypes.byref(fs), error) == 0, error.value
library.fastspool_act_for(ctypes.create_string_buffer(16))      # as root, which any process may that has the store
to = library.fastspool_open(fs, b".export/to", 0o1001, 0o600)   # O_WRONLY | O_TRUNC
assert to >= 0, to
for at, byte in enumerate(sys.argv[2].encode()):
    assert library.fastspool_pwrite(fs, to, bytes([byte]), ctypes.c_size_t(1), ctypes.c_long(at)) == 1
library.fastspool_close(fs, to)
library.fastspool_detach(fs)
"""


@test(library=True, main=QUEUE_ONLY)
def elsewhere_as_the_mail_user_says(exim):
    """The mail user writes another directory into the file that says where an interrupted export goes.  Root is not told to type what
    is no path, as an option; and a path is one word, of which is said who may have written it."""
    other = exim.work / "other"
    exim.submit(Message())
    check(die_at("renameat2", 1, "export", "--yes", str(other)), "it has come to its end")
    for forged in ("--help", "etc", "/etc/$(touch x); `id`'", str(other)):
        word = shlex.quote(forged).replace("'\"'\"'", "'\\''") if forged[0] == "/" else "DIRECTORY"
        written = exim.command("-c", FORGE, exim.spool, forged, program="/usr/bin/python3", user="Debian-exim", stock=True)
        check(written.returncode == 0, f"{written}")
        said = exim.status()["line"]
        check(f"`fastspool export {word}`" in said, said)
        check(("if that is the directory of before: a file that the mail user can write says so" in said) == (forged[0] == "/"), said)
        refused = exim.command("export", "--yes", exim.work / "third", program=TOOL, stock=True)
        said = refused.stderr.decode()
        check(refused.returncode == 1 and f"`fastspool export {word}`" in said and "as a file says that the mail user can write" in said, said)
    exim.tool("export", "--yes", other)
    check(len(list(other.glob("input/*-H"))) == 1, "not all is there")


@test(library=True, main=QUEUE_ONLY)
def elsewhere_lost(exim):
    """docs/operating.md, "An export whose disk is lost", word for word: each message is on the new disk, and delivered once."""
    other = exim.work / "other"
    for _ in range(3):
        exim.submit(exim.expect(Message(), "sink"))
    check(die_at("renameat2", 2, "export", "--yes", str(other)), "it has come to its end")
    check(exim.status()["half_moved"] == 3, f"{exim.status()}")
    shutil.rmtree(other)
    other.mkdir()
    refused = exim.command("export", "--yes", other, program=TOOL, stock=True)
    number = re.search(r"\.fastspool\.copied\.(\w+)\.here", refused.stderr.decode())[1]
    text = (pathlib.Path(__file__).parents[2] / "docs/operating.md").read_text().split("### An export whose disk is lost\n")[1]
    lines = "\n".join(re.findall(r"^ {4}(.*)$", text.split("\n#")[0], re.M)).replace("/mnt/plain", str(other)).replace("NUMBER", number)
    result = subprocess.run(["bash", "-ec", lines], env=exim.environment(stock=True), capture_output=True, text=True)
    check(result.returncode == 0 and "failed" not in result.stdout, f"{result}")
    told = exim.status()
    check((in_store(told), told["half_moved"]) == (0, 0), f"{told}")
    check(len(list(other.glob("input/*-H"))) == 3 and not list(other.glob("**/.fastspool*")), f"{list(other.rglob('*'))}")
    shutil.copytree(other / "input", exim.spool / "input", dirs_exist_ok=True, copy_function=shutil.move)
    subprocess.run(["chown", "-R", "Debian-exim:Debian-exim", exim.spool / "input"], check=True)
    plain(exim, "-qff")
    exim.wait_arrived()


def runs(*verbs):
    return [pid for pid, name in processes() if name.startswith("fastspool") and words_of(pid)[1:2] and words_of(pid)[1] in verbs]


@test(library=True, main=QUEUE_ONLY)
def counted_disable(exim):
    """kill -9 of `disable`, or of the export in it: each message counts once.  Another call ends with all of it on the plain disk."""
    seen = exim.work / "killed"
    for _ in range(2):
        exim.submit(Message())
    halves = 0
    for who, name, call in (("export", "renameat2", 1), ("export", "renameat2", 3), ("export", "openat2", 9), ("export", "syncfs", 1),
                            ("disable", "wait4", 1), ("disable", "wait4", 2), ("disable", "wait4", 3)):
        exim.tool("stop")
        # With -f strace lives as long as the mirror that the export has started.
        killed = subprocess.Popen(["strace", *(["-f"] if who == "export" else []), "-o", seen, "-e", f"trace={name}", "-e",
                                   f"inject={name}:signal=KILL:when={call}", TOOL, "disable", "--yes"], stdout=subprocess.DEVNULL,
                                  stderr=subprocess.DEVNULL)
        wait_for(lambda: seen.exists() and "killed by SIGKILL" in seen.read_text(), f"{who} dies at {name} {call}")
        wait_for(lambda: not runs("disable", "export"), "the rest of it ends")
        halves += count_everywhere(exim, 2, set()) > 0
        exim.tool("disable", "--yes")
        told = exim.status()
        check(int(plain(exim, "-bpc")) == told["disk_messages"] == 2 and not told["half_moved"] and not told["store"], f"{told}")
        killed.wait()
        seen.unlink()
        exim.tool("import")
    check(halves > 0, "none was half moved")
    exim.run("-Mrm", *exim.queue())


@test(library=True, main=QUEUE_ONLY)
def counted_backup(exim):
    """kill -9 of a backup, or of the child in it, at each of its steps, beside mail on both sides: the count is what it was, there is no
    half of a copy under its name, and the next call makes a whole one."""
    place = pathlib.Path(tempfile.mkdtemp(dir="/home"))
    exim.submit(Message())
    exim.command("-oi", "-odq", Message().recipients[0], input=b"Subject: plain\n\n", stock=True)
    doctors, killed = set(), 0
    for name in ("mkdir", "openat", "fsync", "fchown", "fork,vfork,clone,clone3", "renameat2"):
        for call in (1, 2, 4, 7, 12, 20):
            copy = place / f"{name[:5]}{call}"
            seen = exim.work / "killed"
            result = subprocess.run(["strace", "-f", "-o", seen, "-e", f"trace={name}", "-P", place, "-P", f"{copy}.new", "-P", copy, "-P",
                                     exim.spool / ".fastspool/journal", "-P", f"{copy}.new/mirror", "-P", f"{copy}.new/journal", "-e",
                                     f"inject={name}:signal=KILL:when={call}", TOOL, "backup", copy], capture_output=True)
            if "killed by SIGKILL" not in seen.read_text():
                check(result.returncode == 2 and copy.exists(), f"{result}")
                break
            killed += 1
            check(not copy.exists() or name == "renameat2", "a backup that was killed has made its copy")
            count_everywhere(exim, 2, doctors)
            exim.run("run", "--", "true", program=TOOL, stock=True)     # a store again
            again = exim.command("backup", copy, program=TOOL, stock=True)
            check(again.returncode == 2 and b"1 message on the plain disk" in again.stderr, f"{name} {call}: {again}")
    check(killed > 8, f"only {killed} steps")
    (place / "roots.new/journal").mkdir(mode=0o700, parents=True)
    (place / "roots.new").chmod(0o700)
    (place / "roots.new/journal/letters").touch()
    said = refused_backup(exim, place / "roots")
    check("remove it" in said and (place / "roots.new/journal/letters").exists(), said)
    (place / "files.new").mkdir(mode=0o700)
    (place / "files.new/journal").touch()
    said = refused_backup(exim, place / "files")
    check("remove it" in said and (place / "files.new/journal").exists(), said)
    exim.tool("import")
    exim.run("-Mrm", *exim.queue())


@test(library=True, main=QUEUE_ONLY)
def backup_beside_another(exim):
    """Two backups to one directory: the second one waits for the first, and is refused; the copy is the first one's, and whole."""
    place = pathlib.Path(tempfile.mkdtemp(dir="/home"))
    exim.submit(Message())
    copy = place / "copy"
    first = subprocess.Popen(["strace", "-f", "-o", "/dev/null", "-e", "trace=fsync", "-e", "inject=fsync:delay_enter=6000000:when=1",
                              TOOL, "backup", copy], stderr=subprocess.PIPE)
    wait_for(lambda: list(place.glob("copy.new/journal/*")), "the first one copies")
    second = exim.command("backup", copy, program=TOOL, stock=True)
    check(second.returncode == 1 and b"another `fastspool backup` has used" in second.stderr, f"{second}")
    check(first.wait(60) == 0, first.stderr.read())
    check(sorted(p.name for p in place.iterdir()) == ["copy"] and list(copy.glob("journal/*")) and (copy / "mirror/data.mdb").exists(),
          f"{list(place.rglob('*'))}")
    exim.run("-Mrm", *exim.queue())


@test(library=True, main=QUEUE_ONLY)
def backup_child_alive(exim):
    """A backup is killed while its child waits for the disk, and can't die: the child has the directory's lock still.  With the disk the
    child ends, and the next call makes a copy."""
    place = exim.work / "copies"
    place.mkdir()
    disk = LoopDisk(place, 64)
    exim.submit(Message())
    copy = place / "copy"
    tracer = subprocess.Popen(["strace", "-f", "-o", "/dev/null", "-e", "trace=fsync", "-e", "inject=fsync:delay_enter=5000000:when=1",
                               TOOL, "backup", copy], stderr=subprocess.DEVNULL)
    wait_for(lambda: list(place.glob("copy.new/journal/*")), "it copies")
    parent, child = sorted(pid for pid, _ in processes() if words_of(pid)[:2] == [str(TOOL), "backup"])
    lock = os.open(place / "copy.new", os.O_RDONLY | os.O_DIRECTORY)
    with disk.frozen():
        wait_for(lambda: pathlib.Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0] == "D", "the child waits for the disk")
        os.kill(parent, signal.SIGKILL)
        wait_for(lambda: parent not in dict(processes()), "its parent is dead")
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            check(False, "the child has no lock")
    os.close(lock)
    exim.tool("backup", copy)
    check((copy / "mirror/data.mdb").exists() and tracer.wait(60) != 0, "there is no copy")
    exim.run("-Mrm", *exim.queue())


@contextlib.contextmanager
def locked_for_a_moment(path):
    """A call that was killed has the lock until the fsync that it is in returns."""
    lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    timer = threading.Timer(1.5, os.close, (lock,))
    timer.start()
    yield
    timer.join()


@test(library=True, main=QUEUE_ONLY)
def again_at_once(exim):
    """kill -9 of a call on a slow disk, and the same call at once: it waits for the lock."""
    exim.submit(Message())
    lock = exim.spool / ".fastspool/view.lock"
    lock.touch(0o600)
    exim.own(lock)
    for arguments in ("export", "--yes"), ("import",):
        with locked_for_a_moment(lock):
            exim.tool(*arguments)
    for verb in ("enable",), ("disable", "--yes"):
        with locked_for_a_moment("/run/fastspool/.enable.lock"):
            result = exim.command(*verb, program=TOOL, stock=True)
            check(b"another" not in result.stderr, f"{result}")
    exim.run("-Mrm", *exim.queue())


def copies(exim, count):
    """COUNT more messages on the plain disk, made from one."""
    exim.command("-oi", Message().recipients[0], input=b"Subject: plain\n\n", stock=True)
    (header,) = exim.spool.glob("input/*-H")
    owner, name = header.stat(), header.name[:-2]
    for number in range(count):
        copy = f"1{number:05d}{name[6:]}"
        for part in ("-H", "-D"):
            file = header.with_name(copy + part)
            file.write_text(header.with_name(name + part).read_text().replace(name, copy))
            os.chown(file, owner.st_uid, owner.st_gid)
            file.chmod(0o640)
    return count + 1


def remove_plain(exim):
    for name in ("input", "msglog"):
        shutil.rmtree(exim.spool / name)


class Terminal:
    """`fastspool ARGUMENTS` as the only job of a terminal."""

    def __init__(self, *arguments):
        self.said = b""
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            signal.signal(signal.SIGINT, signal.SIG_DFL)    # the test's starter may ignore it
            os.execv(arguments[0] if arguments[0].startswith("/") else TOOL, arguments if arguments[0].startswith("/") else
                     [TOOL, *arguments])

    def read(self):
        """Some more.  Is there any?"""
        check(select.select([self.fd], [], [], 120)[0], f"nothing more is said: {self.said}")
        with contextlib.suppress(OSError):
            piece = os.read(self.fd, 4096)
            self.said += piece
            return bool(piece)
        return False

    def wait_for(self, text):
        while text not in self.said:
            check(self.read(), f"it has ended, and not said {text}: {self.said}")

    def end(self):
        """(exit status, as subprocess has it, all that was said)"""
        while self.read():
            pass
        os.close(self.fd)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1]), self.said.decode()


def mirrors():
    return [pid for pid, name in processes() if name.startswith("fastspool") and "mirror" in words_of(pid)]


def mirror():
    (found,) = mirrors()
    return found


@test(("_import", {}), ("_export", {}), library=True, main=QUEUE_ONLY)
def interrupted(exim):
    """On a terminal a bar shows after a second how far it is.  ^C: what is on its way is finished, a sentence says what remains,
    nothing is in the way of another verb, and the next call does the rest."""
    verb, other = ("import", "export") if exim.work.name.endswith("_import") else ("export", "import")
    count = copies(exim, 299)
    exim.run("run", "--", "true", program=TOOL, stock=True)     # a mirror that stays
    exim.tool("import")
    if verb == "import":
        exim.tool("export", "--yes")
    before = sorted(exim.queue())
    options = {"export": ["--yes"], "import": []}
    if verb == "export":                # what it notes before the first copy is on the disk
        exim.command("-o", "/dev/null", "-e", "trace=syncfs", "-e", "inject=syncfs:signal=KILL", TOOL, "export", "--yes", program="strace",
                     stock=True)
    halted = mirror()
    suspend(halted)                     # so that the first batch takes as long as it shall
    terminal = Terminal(verb, *options[verb])
    terminal.wait_for(f"{verb}ing [".encode())
    os.write(terminal.fd, b"\x03")
    terminal.wait_for(b"^C")
    os.kill(halted, signal.SIGCONT)
    code, said = terminal.end()
    plain_count = int(plain(exim, "-bpc"))
    moved = count - plain_count if verb == "import" else plain_count
    check(0 < moved < count, f"{moved} were moved")
    left = f"{count - moved} messages are {'on the disk' if verb == 'import' else 'in the store'} as before: run `fastspool {verb}` again"
    check(code == -signal.SIGINT and f"{verb}ed {moved} messages in" in said and f"interrupted: {left}" in said, f"{code}: {said}")
    check(not list(exim.spool.glob("input/.fastspool.*")) and sorted(exim.queue()) == before, "the queue is another one")
    for again in (other, verb):
        exim.tool(again, *options[again])
        check(sorted(exim.queue()) == before, "the queue is another one")
    check(int(plain(exim, "-bpc")) == (0 if verb == "import" else count), "not all was moved")
    exim.tool("export", "--yes")
    remove_plain(exim)


def pending(pid):
    """The signals that have not come to a process yet."""
    return int(re.search(r"^ShdPnd:\t(\w+)", pathlib.Path(f"/proc/{pid}/status").read_text(), re.M).group(1), 16)


@test(("_import", {}), ("_export", {}), library=True, main=QUEUE_ONLY)
def interrupted_twice(exim):
    """A second ^C ends at once what waits for a mirror that does not answer, and says what is to be done.  That does the rest."""
    verb, other = ("import", "export") if exim.work.name.endswith("_import") else ("export", "import")
    copies(exim, 99)
    exim.run("run", "--", "true", program=TOOL, stock=True)     # a mirror that stays
    exim.tool("import")
    if verb == "import":
        exim.tool("export", "--yes")
    before = sorted(exim.queue())
    options = {"export": ["--yes"], "import": []}
    for second in signal.SIGINT, signal.SIGTERM:
        halted = mirror()
        suspend(halted)
        terminal = Terminal(verb, *options[verb])
        terminal.wait_for(f"{verb}ing [".encode())
        os.write(terminal.fd, b"\x03")
        terminal.wait_for(b"^C")
        wait_for(lambda: not pending(terminal.pid), "the first one has come")
        os.kill(terminal.pid, second)
        code, said = terminal.end()
        os.kill(halted, signal.SIGCONT)
        check(code == -second and "interrupted: at once: " in said and f"run `fastspool {verb}` again" in said, f"{code}: {said}")
        for again in (verb, other):
            exim.tool(again, *options[again])
            check(sorted(exim.queue()) == before, "the queue is another one")
    check("all is well" in exim.tool("verify"), "verify finds something")
    exim.run("-Mrm", *exim.queue())


@test(library=True, main=QUEUE_ONLY)
def own_mirror(exim):
    """A verb ends the mirror that it has started for its own work, and gives the memory back; not one that was there before, nor where
    another process has the store by then, and none is missed that comes meanwhile."""
    def alone(*arguments, status=0):
        result = exim.command(*arguments, program=TOOL, stock=True)
        check(result.returncode == status and not mirrors() and not stores(), f"{arguments}: {result}, {mirrors()}, {stores()}")

    for _ in range(3):
        exim.submit(Message())
    exim.tool("stop")
    plain_exim = subprocess.Popen([EXIM, "-bdf", "-oX", "2527"], env=exim.environment(stock=True), cwd="/", stdin=subprocess.DEVNULL)
    wait_for(lambda: "has not got the library" in refused(exim, "import"), "it is refused")
    plain_exim.terminate()
    plain_exim.wait(60)
    check(not mirrors(), "a refused call has left a mirror")
    alone("export", status=1)           # nobody says yes
    alone("export", "--yes")
    alone("import")
    alone("export", "--yes", exim.work / "other")
    exim.run("run", "--", "true", program=TOOL, stock=True)
    (before,) = mirrors()
    exim.tool("export", "--yes")
    check(mirrors() == [before], "the mirror of others has ended")
    exim.tool("stop")
    exim.spool.joinpath("input").mkdir(exist_ok=True)
    copies(exim, 2)
    importing = subprocess.Popen(["strace", "-o", "/dev/null", "-e", "trace=renameat", "-e",
                                  "inject=renameat:delay_enter=1000000:when=1", TOOL, "import"], stdout=subprocess.DEVNULL)
    wait_for(mirrors, "it has a mirror")
    listing = subprocess.Popen(["python3", "-c", "import os, sys; os.listdir(sys.argv[1]); print(flush=True); sys.stdin.read()",
                                exim.spool / "input"], env=exim.environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    listing.stdout.readline()
    check(importing.wait(60) == 0 and mirrors(), "the mirror has ended that another process uses")
    check(exim.run("-bpc") == b"3\n", "the queue is another one")
    listing.communicate()
    for _ in range(3):                  # an Exim comes at any instant
        exim.tool("stop")
        importing = subprocess.Popen([TOOL, "import"], stdout=subprocess.DEVNULL)
        while importing.poll() is None:
            check(exim.run("-bpc") == b"3\n", "the queue is another one")
        check(importing.returncode == 0, "the import")
    exim.run("-Mrm", *exim.queue())


@test(library=True, main=QUEUE_ONLY)
def own_mirror_interrupted(exim):
    """^C while a verb waits for the end of its mirror: the mail has moved, so it ends at once, and says what may run still."""
    exim.submit(Message())
    exim.tool("stop")
    terminal = Terminal("export")
    terminal.wait_for(b"Move all messages")
    user = subprocess.Popen([TOOL, "run", "--", "sh", "-c", f"exec 3<{exim.spool}/input; echo; read line"], stdin=subprocess.PIPE,
                            stdout=subprocess.PIPE)
    check(user.stdout.readline() == b"\n", "it has the store")       # so the mirror is not alone
    os.write(terminal.fd, b"y\n")
    terminal.wait_for(b"ending the mirror")
    os.write(terminal.fd, b"\x03")
    code, said = terminal.end()
    check(code == -signal.SIGINT and "exported 1 message" in said and "its mirror may run still: run `fastspool stop`" in said, f"{code}: {said}")
    user.communicate(b"\n", timeout=60)
    exim.tool("stop")
    check(not mirrors(), "the mirror runs")
    remove_plain(exim)


@test(library=True, main=QUEUE_ONLY)
def given_back_meanwhile(exim):
    """A process has opened the store's memory, and is about to say that it lives: then the memory is given back.  It has
    the store that is made anew, and not the one that nobody finds."""
    exim.submit(Message())
    trace = exim.work / "trace"
    exim.command("-o", trace, "-e", "trace=fcntl", TOOL, "run", "--", "true", program="strace", stock=True)
    calls = [line for line in trace.read_text().splitlines() if line.startswith("fcntl(")]
    announces = next(n for n, line in enumerate(calls, 1) if "F_OFD_SETLK" in line and "F_RDLCK" in line)
    late = subprocess.Popen(["strace", "-o", trace, "-e", "trace=fcntl", "-e", f"inject=fcntl:delay_enter=3000000:when={announces}",
                             TOOL, "run", "--", "true"])
    wait_for(lambda: any("segment" in pathlib.Path(f"/proc/{child}/maps").read_text()
                         for child in pathlib.Path(f"/proc/{late.pid}/task/{late.pid}/children").read_text().split()), "it has the memory")
    exim.tool("stop")
    check(not stores(), "the memory is there")
    check(late.wait(60) == 0 and mirrors() and stores(), f"it has another store: {late.returncode}, {mirrors()}, {stores()}")
    check(exim.run("-bpc") == b"1\n", "the queue is another one")
    exim.run("-Mrm", *exim.queue())


@test(library=True, main=QUEUE_ONLY)
def looked_at(exim):
    """status opens no file of the store to ask whether an export runs, but where mail is half moved."""
    exim.submit(Message())
    exim.command("-o", "/dev/null", "-e", "trace=syncfs", "-e", "inject=syncfs:signal=KILL", TOOL, "export", "--yes",
                 exim.work / "other", program="strace", stock=True)
    opened = [exim.tool("dump", "segment").count(" open_body ")]
    told = exim.status()
    opened.append(exim.tool("dump", "segment").count(" open_body "))
    check(told["messages"] == 1 and told["half_moved"] == 0, f"{told}")
    check(opened[0] and opened[0] == opened[1], f"status has opened a file: {opened}")
    exim.run("-Mrm", *exim.queue())


@test(library=True, main=QUEUE_ONLY)
def killed_before(exim):
    """After an import that was killed an export says in one sentence what comes first, and does not say that it has moved
    nothing."""
    copies(exim, 2)
    exim.run("run", "--", "true", program=TOOL, stock=True)
    halted = mirror()
    suspend(halted)
    process = subprocess.Popen([TOOL, "import"])
    wait_for(lambda: b"new" in exim.command("ls", ".import", program=TOOL, stock=True).stdout, "the import has begun")
    process.kill()
    process.wait()
    os.kill(halted, signal.SIGCONT)
    refused = exim.command("export", "--yes", program=TOOL, stock=True)
    said = refused.stderr.decode()
    check(refused.returncode == 1 and not refused.stdout and said.count("\n") == 1, f"{refused}")
    check("run `fastspool import` first, which goes on with it; then run `fastspool export` again" in said, said)
    check("imported 3 messages" in exim.tool("import") and "exported 3 messages" in exim.tool("export", "--yes"), "not all")
    remove_plain(exim)


@test(library=True, main=QUEUE_ONLY)
def named(exim):
    """What stays is named, of many the first ones, and no name does what it likes with the terminal."""
    exim.start()
    queue(exim, 2)
    exim.stop()
    locked, other = exim.queue()
    (exim.spool / "input").mkdir(exist_ok=True)
    exim.own(exim.spool / "input")
    deliverer = subprocess.Popen(["python3", "-c", DELIVERER, exim.spool / "input" / locked], env=exim.environment(),
                                 stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    check(deliverer.stdout.readline() == "open\n", "the message can't be opened")
    (exim.spool / "input" / f"{other}-H").write_text("another")
    exported = exim.command("export", "--yes", program=TOOL, stock=True)
    said = exported.stderr.decode().splitlines()
    check(exported.returncode == 2 and len(said) == 2, f"{exported}")
    check(any(f"input/{locked}-" in line and "a process works on it" in line for line in said), f"{said}")
    check(any(f"input/{other}-" in line and "the disk has another file of that name" in line for line in said), f"{said}")
    deliverer.kill()
    deliverer.communicate()
    (exim.spool / "input" / f"{other}-H").unlink()
    for number in range(30):
        os.mkfifo(exim.spool / "input" / f"fifo{number}\33[31m")
    imported = exim.command("import", program=TOOL, stock=True)
    said = imported.stderr.decode().splitlines()
    check(imported.returncode == 2 and b"30 that can't be taken" in imported.stdout, f"{imported}")
    check(len(said) == 21 and said[-1] == "fastspool: and 10 more", f"{said}")
    check(all(line.endswith("\\x1b[31m: no regular file") for line in said[:20]), f"{said}")
    shutil.rmtree(exim.spool / "input")
    exim.deliver_queue()


@test(library=True, main=QUEUE_ONLY)
def on_a_terminal(exim):
    """What takes more than a second is shown on a terminal, and ^C of it says what was done and what is to be done."""
    exim.start()
    queue(exim, 2)
    exim.stop()
    halted = mirror()
    for arguments, shown, words in ((("flush",), b"flushing ", "not all may be on the disk"),
                                    (("backup", "/srv/copy"), b"copying ", "there is no copy /srv/copy: run `fastspool backup` again"),
                                    (("stop",), b"stopping ", "run `fastspool stop` again")):
        for interrupt in (True, False):
            suspend(halted)
            exim.run("-c", f"echo {interrupt} >{exim.spool}/input/change", program="/bin/sh")
            terminal = Terminal(*arguments)
            terminal.wait_for(b"fastspool: " + shown)
            if interrupt:
                os.write(terminal.fd, b"\x03")
                code, said = terminal.end()
                check(code == -signal.SIGINT and f"fastspool: interrupted: " in said and words in said, f"{arguments}: {code}, {said}")
            os.kill(halted, signal.SIGCONT)
            if not interrupt:
                code, said = terminal.end()
                check(code == 0, f"{arguments}: {code}, {said}")
    for verb, shown, words in (("verify", b"verifying ", "nothing was changed"),
                               ("compact", b"compacting ", "run `fastspool compact` again")):
        for delay in (2, 8, 30):        # of a call, in seconds: ^C may come too late
            terminal = Terminal("/usr/bin/strace", "-f", "-o", "/dev/null", "-P", exim.spool / ".fastspool/mirror/data.mdb", "-P",
                                exim.spool / ".fastspool/journal", "-e", f"inject=openat:delay_enter={delay * 1_000_000}:when=1", TOOL, verb)
            terminal.wait_for(b"fastspool: " + shown)
            os.write(terminal.fd, b"\x03")
            code, said = terminal.end()
            if code != 0:
                break
        check(code != 0 and "interrupted: " in said and words in said, f"{verb}: {code}, {said}")
        exim.tool(verb)
    for verb, shown in (("status", b"counting "), ("doctor", b"looking")):
        terminal = Terminal("/usr/bin/strace", "-f", "-o", "/dev/null", "-P", exim.spool / ".fastspool/mirror/data.mdb", "-e",
                            "inject=openat:delay_enter=2000000:when=1", TOOL, verb)
        terminal.wait_for(b"fastspool: " + shown)
        terminal.end()
    exim.run(exim.spool / "input/change", program="/bin/rm")
    exim.deliver_queue()


@test(library=True, main=QUEUE_ONLY)
def reload_on_a_terminal(exim):
    """A daemon-reload of systemd's that takes more than a second is shown."""
    systemctl, fifo, booted = pathlib.Path("/usr/bin/systemctl"), exim.work / "fifo", pathlib.Path("/run/systemd/system")
    os.mkfifo(fifo)
    if systemctl.exists():
        systemctl.rename(systemctl.with_name("systemctl.aside"))
    systemctl.write_text(f"#!/bin/sh\n[ \"$1\" != daemon-reload ] || read -r line <{fifo}\n")
    systemctl.chmod(0o755)
    booted.mkdir(parents=True, exist_ok=True)
    terminal = Terminal("enable", "--yes", "--no-check")
    terminal.wait_for(b"reloading systemd's units")
    fifo.write_text("\n")
    code, said = terminal.end()
    check(code == 0, f"{code}: {said}")
    systemctl.write_text("#!/bin/sh\n")
    exim.command("disable", "--yes", program=TOOL, stock=True)
    booted.rmdir()
    systemctl.unlink()
    if systemctl.with_name("systemctl.aside").exists():
        systemctl.with_name("systemctl.aside").rename(systemctl)


@test(library=True, main=QUEUE_ONLY)
def stopped_beside_a_program(exim):
    """`stop` beside any other program that uses the store, as by `fastspool run`, names that, and its exit status is 2."""
    exim.submit(Message())
    user = subprocess.Popen([TOOL, "run", "--", "sh", "-c", f"exec 3<{exim.spool}/input; echo; read line"], stdin=subprocess.PIPE,
                            stdout=subprocess.PIPE)
    check(user.stdout.readline() == b"\n", "it has the store")
    result = exim.command("stop", program=TOOL, stock=True)
    said = f"process {user.pid} (sh) uses the store of {exim.spool} still, and starts its mirror again: wait for it, or `kill {user.pid}`"
    check(result.returncode == 2 and said in result.stderr.decode() and b"then run `fastspool stop` again" in result.stderr, f"{result}")
    user.communicate(b"\n", timeout=60)
    exim.run("stop", program=TOOL, stock=True)
    exim.run("-Mrm", *exim.queue())


@test(library=True, main=QUEUE_ONLY)
def stopped_beside_exim(exim):
    """`stop` beside Exims that use the store writes all to the disk, names them and what ends them, and its exit status is 2.  An Exim
    that the service's stop does not end is to be waited for, or to be killed, as export, compact and disable say, too."""
    def stop():
        result = exim.command("stop", program=TOOL, stock=True)
        return result.returncode, result.stderr.decode()
    exim.start()
    queue(exim, 3)
    session = subprocess.Popen([EXIM, "-bs"], env=exim.environment(), cwd="/", stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    session.stdin.write(b"HELO here.test\r\nMAIL FROM:<a@sink.test>\r\nRCPT TO:<b@sink.test>\r\nDATA\r\nSubject: begun\r\n\r\n")
    session.stdin.flush()
    wait_for(lambda: stores()[0] in pathlib.Path(f"/proc/{session.pid}/maps").read_text(), "the session has the store")
    code, said = stop()
    check(code == 2 and f"process {exim.daemon.pid} (" in said and "stop it first, `/etc/init.d/exim4 stop`" in said, f"{code}: {said}")
    check(f"process {session.pid} (" in said and f"wait for it, or `kill {session.pid}`" in said, said)
    check(said.count("uses the store of") == 2 and said.endswith("fastspool: then run `fastspool stop` again\n"), said)
    exim.stop()
    code, said = stop()
    check(code == 2 and said.count("uses the store of") == 1 and f"wait for it, or `kill {session.pid}`" in said and stores(), f"{code}: {said}")
    for arguments in (("export", "--yes"), ("compact",), ("disable", "--yes")):
        said = refused(exim, *arguments)
        check(f"process {session.pid} (" in said and f"wait for it, or `kill {session.pid}`" in said and "init.d" not in said, said)
    session.communicate(timeout=60)             # it ends with its input
    code, said = stop()
    check((code, said) == (0, "") and not stores(), f"{code}: {said}")
    exim.deliver_queue()


@test(library=True, main=QUEUE_ONLY)
def memory_given_back(exim):
    """`stop` gives the memory back when nobody uses the store, and not before.  The queue is there with the next Exim."""
    exim.start()
    queue(exim, 5)
    before = exim.queue()
    exim.tool("stop")
    check(stores(), "the memory of a running Exim is gone")
    queue(exim, 5)
    exim.stop()
    exim.tool("stop")
    check(not stores(), "the memory was not given back")
    check(len(exim.queue()) == 10 and set(before) < set(exim.queue()), "the queue is another one")
    exim.deliver_queue()


@test(library=True, main=QUEUE_ONLY)
def elsewhere(exim):
    """Another directory: a plain Exim with that spool_directory has the queue, and the store has nothing."""
    exim.start()
    queue(exim, 5)
    exim.stop()
    before = exim.listing()
    other = exim.work / "other"
    exim.tool("export", "--yes", other)
    check(exim.queue() == [], "the store has messages still")
    configured = exim.spool
    exim.spool = other
    exim.configure(QUEUE_ONLY)
    check(exim.listing(stock=True) == before, "the queue is another one")
    check((os.stat(other).st_uid, os.stat(other).st_mode) == (os.stat(configured).st_uid, os.stat(configured).st_mode),
          "the directory is not as the spool is")
    plain(exim, "-qff")
    exim.wait_arrived()
    exim.spool = configured
    exim.configure(QUEUE_ONLY)
    stays_empty(exim)


@test(library=True, main=QUEUE_ONLY)
def elsewhere_refused(exim):
    """A directory in the spool, where the mail user could put a link in its place, is not made, nor one that is a user's
    used, nor one behind a link."""
    exim.start()
    queue(exim, 1)
    exim.stop()
    users = pathlib.Path("/home/users-plain")
    users.mkdir()
    shutil.chown(users, USER_ID, USER_ID)
    exims, roots = exim.work / "exims", exim.work / "roots"
    for directory in (exims, roots, roots / "below"):
        directory.mkdir()
    shutil.chown(exims, "Debian-exim", "Debian-exim")
    (exims / "link").symlink_to(roots)          # which the mail user has turned
    for directory, why in ((exim.spool / "plain", "below it"), (exim.spool, "below it"), (users, "belongs to a user"),
                           (exims / "link", "symbolic link"), (exims / "link/below", "symbolic link"),
                           (exims / "link/new", "symbolic link")):
        result = exim.command("export", "--yes", directory, program=TOOL, stock=True)
        check(result.returncode == 1 and why in result.stderr.decode(), f"{directory}: {result.stderr.decode()}")
    check(not (exim.spool / "plain").exists() and not list(users.iterdir()), "something was made")
    check(list(roots.rglob("*")) == [roots / "below"], "something was made along a link")
    users.rmdir()
    exim.deliver_queue()


@test(library=True, main=QUEUE_ONLY)
def elsewhere_exchanged(exim):
    """The mail user owns the directory above, and moves one of root's to where root has just made the new one: it stays root's."""
    exim.start()
    queue(exim, 1)
    exim.stop()
    above = exim.work / "above"
    (above / "roots").mkdir(parents=True)
    (above / "roots/file").touch()
    shutil.chown(above, "Debian-exim", "Debian-exim")
    export, stopped = held(exim, "mkdirat", "new", "export", "--yes", above / "new")
    (above / "new").rename(above / "made")
    (above / "roots").rename(above / "new")
    os.kill(stopped, signal.SIGCONT)
    said = export.communicate(timeout=60)[0]
    check(export.returncode == 1 and (above / "new").stat().st_uid == 0, f"{export.returncode} {said} {(above / 'new').stat()}")
    exim.deliver_queue()


@test(library=True)
def no_spool(exim):
    """Where no spool is, no store is made."""
    other = exim.work / "other"
    other.mkdir()
    for verb in (["export", "--yes"], ["import"]):
        refused = exim.command(*verb, "--spool", str(other), program=TOOL, stock=True)
        check(refused.returncode == 1 and b"is no spool" in refused.stderr, f"{refused}")
    check(not list(other.iterdir()), f"there is {list(other.iterdir())}")


@test(library=True, main=QUEUE_ONLY, view="library")
def viewed(exim):
    """Over a mounted view an export is refused, and after a stop it works.  An import is the view's own work."""
    exim.start()
    queue(exim, 3)
    exim.stop()
    result = exim.command("export", "--yes", program=TOOL, stock=True)
    check(result.returncode == 1 and b"run `fastspool stop` first" in result.stderr, result.stderr.decode())
    result = exim.command("import", program=TOOL, stock=True)
    check(result.returncode == 1 and b"imports by itself" in result.stderr and b"stop" not in result.stderr, result.stderr.decode())
    exim.with_view = None               # the harness mounts none any more
    exim.fastspool_configuration("view = off")
    exim.tool("stop")
    exim.tool("export", "--yes")
    plain(exim, "-qff")
    exim.wait_arrived()
    stays_empty(exim)


@test(library=True, main=SPLIT)
def backed_up(exim):
    """Backups while mail comes: a spool with the last one as its state has each message that was acknowledged before it."""
    exim.start()
    for _ in range(4):
        queue(exim, 5)
        known = set(exim.queue())
        with_mail = threading.Thread(target=queue, args=(exim, 10))
        with_mail.start()
        backup = pathlib.Path(tempfile.mkdtemp(dir="/home")) / "copy" # another file system than the spool's
        check(os.stat("/home").st_dev != exim.spool.stat().st_dev, "/home and the spool are one file system")
        exim.tool("backup", backup)
        with_mail.join()
    exim.stop()
    exim.tool("flush")
    exim.reboot()
    shutil.rmtree(exim.spool / ".fastspool")
    shutil.copytree(backup, exim.spool / ".fastspool")
    subprocess.run(["chown", "-R", "Debian-exim:Debian-exim", exim.spool / ".fastspool"], check=True)
    back = set(exim.queue())
    check(known <= back, f"{len(known - back)} acknowledged messages are not in the backup")
    exim.start()
    exim.run("-Mrm", *back)
    exim.expected = []


@test(library=True, main=QUEUE_ONLY)
def backed_up_beside_the_disk(exim):
    """Mail on the plain disk is no part of a backup, which says so, and ends with 2; wherever a killed import has left it.  After the
    import the copy has all of it.  While an export is under way there is no copy."""
    places = pathlib.Path(tempfile.mkdtemp(dir="/home"))
    exim.start()
    queue(exim, 2)
    exim.stop()
    for _ in range(3):
        exim.command("-oi", "-odq", Message().recipients[0], input=b"Subject: plain\n\n", stock=True)

    def back_up(name):
        result = exim.command("backup", places / name, program=TOOL, stock=True)
        outside = exim.status()["disk_messages"]
        check(result.returncode == (2 if outside else 0) and (places / name).exists(), f"{outside} on the disk: {result}")
        words = f"{outside} message{'s' if outside > 1 else ''} on the plain disk"
        check(not outside or words in result.stderr.decode() and b"`fastspool import`" in result.stderr, f"{result}")
        return outside

    check(back_up("first") == 3, "another number")
    for calls in range(1, 400, 7):
        importing = subprocess.run(["strace", "-f", "-o", "/dev/null", "-e", "trace=all", "-e",
                                    f"inject=renameat2,renameat,rename,unlinkat,unlink,flock:signal=KILL:when={calls}", TOOL, "import"],
                                   capture_output=True)
        outside = back_up(str(calls))
        if importing.returncode == 0:
            break
    check(importing.returncode == 0 and outside == 0, f"{importing}")
    before = exim.queue()
    def export(calls, how):
        return ["strace", "-f", "-o", "/dev/null", "-e", "trace=all", "-e", f"inject=renameat2,renameat:signal={how}:when={calls}", TOOL,
                "export", "--yes"]

    def under_way():
        return b".export/tree" in exim.command("ls", ".export", program=TOOL, stock=True).stdout

    for calls in range(1, 400):
        subprocess.run(export(calls, "KILL"), capture_output=True)
        if under_way():
            break
    exim.tool("import")
    with subprocess.Popen(export(calls, "STOP"), stdout=subprocess.DEVNULL) as exporting:
        wait_for(under_way, "an export is under way")
        check("an export of" in refused_backup(exim, places / "none"), "there is a copy beside an export that runs")
        os.kill(int(pathlib.Path(f"/proc/{exporting.pid}/task/{exporting.pid}/children").read_text()), signal.SIGCONT)
    exim.tool("import")
    check(exim.queue() == before and back_up("last") == 0, "the import has not all")
    exim.tool("stop")
    shutil.rmtree(exim.spool / ".fastspool")
    shutil.copytree(places / "last", exim.spool / ".fastspool")
    subprocess.run(["chown", "-R", "Debian-exim:Debian-exim", exim.spool / ".fastspool"], check=True)
    check(exim.queue() == before, "the copy has another queue")
    exim.run("-Mrm", *before)
    exim.expected = []


@test(library=True, main=QUEUE_ONLY)
def backed_up_before_a_power_cut(exim):
    """A backup that is told as made is whole after a power cut of its disk at that moment."""
    place = pathlib.Path(tempfile.mkdtemp(dir="/srv"))
    disk = LoopDisk(place, 64)
    exim.start()
    queue(exim, 2)
    before = exim.queue()
    exim.tool("backup", place / "copy")
    disk.copy()
    disk.use_copy()
    exim.stop()
    exim.tool("stop")
    shutil.rmtree(exim.spool / ".fastspool")
    shutil.copytree(place / "copy", exim.spool / ".fastspool")
    disk.unmount()
    subprocess.run(["chown", "-R", "Debian-exim:Debian-exim", exim.spool / ".fastspool"], check=True)
    check(exim.queue() == before, "the copy has another queue")
    exim.run("-Mrm", *before)
    exim.expected = []


def refused_backup(exim, directory):
    """The backup is refused.  Returns what it says."""
    result = exim.command("backup", directory, program=TOOL, stock=True)
    check(result.returncode == 1, f"exit status {result.returncode}")
    check(not directory.exists(), "there is a copy under its name")
    return result.stderr.decode()


@test(library=True, main=QUEUE_ONLY)
def backed_up_with_the_owners_rights(exim):
    """What the mail user puts into the state leads a backup by root no further than the mail user's own rights, and leaves nothing of
    it."""
    exim.start()
    queue(exim, 2)
    secret, copy = exim.work / "secret", pathlib.Path(tempfile.mkdtemp(dir="/home")) / "copy"
    secret.write_text("root's")
    secret.chmod(0o600)
    os.chmod(exim.work, 0o755)
    lock = exim.spool / ".fastspool/mirror/lock.mdb"
    lock.rename(lock.with_suffix(".own"))
    lock.symlink_to(secret)
    said = refused_backup(exim, copy)
    check("Permission denied" in said, said)
    check(not list(copy.parent.iterdir()), "a part of the copy is left")
    check(secret.read_text() == "root's", "root's file is written to")
    lock.unlink()
    lock.with_suffix(".own").rename(lock)
    exim.tool("backup", copy)
    found = [copy, *copy.rglob("*")]
    check(len(found) > 4 and all(name.stat().st_uid == 0 and not name.stat().st_mode & 0o077 for name in found),
          f"not root's alone: {found}")
    exim.deliver_queue()


@test(library=True, main=QUEUE_ONLY)
def backed_up_by_a_child_led_astray(exim):
    """The child that reads the database writes to all the memory that it shares with root, and dies: root says what happened, and
    takes no number and no end of a sentence from there."""
    exim.start()
    queue(exim, 2)
    copy = pathlib.Path(tempfile.mkdtemp(dir="/home")) / "copy"
    for count, most in ((0x7fffff00, 0x7fffffff), (0, 0), (1, 1), (0xffffffff, 0xffffffff)):
        backup, child = held(exim, "mkdir", "mirror", "backup", str(copy))
        shared = re.findall(r"(\S+)-(\S+) rw-s .* /dev/zero", pathlib.Path(f"/proc/{child}/maps").read_text())
        with open(f"/proc/{child}/mem", "r+b") as memory:
            for start, end in shared:
                memory.seek(int(start, 16))
                memory.write(struct.pack("II", count, most).ljust(int(end, 16) - int(start, 16), b"\x1b"))
        os.kill(child, signal.SIGKILL)
        said = backup.communicate(timeout=60)[0]
        check(shared and backup.returncode == 1 and "cannot copy the state" in said and "\x1b" not in said and len(said) < 1000,
              f"count {count:#x}: status {backup.returncode}, {said!r}")
    exim.tool("backup", copy)
    exim.deliver_queue()


@test(library=True, main=QUEUE_ONLY)
def backed_up_beside_a_user(exim):
    """Where users may make files, a directory that one has made under the copy's name gets no mail."""
    exim.start()
    queue(exim, 2)
    shared = pathlib.Path(tempfile.mkdtemp(dir="/home"))
    shared.chmod(0o1777)
    trap = shared / "copy.new"
    for name in (trap, trap / "mirror", trap / "journal"):
        name.mkdir(mode=0o755)
        shutil.chown(name, USER_ID, USER_ID)
    said = refused_backup(exim, shared / "copy")
    check("remove it" in said, said)
    check(not list(trap.glob("*/*")), "the user has the mail")
    exim.deliver_queue()


@test(library=True, main=QUEUE_ONLY)
def backed_up_from_a_sick_disk(exim):
    """The list of the journal's files breaks off: there is no backup that lacks some of them."""
    exim.start()
    queue(exim, 3)
    journal, copy = exim.spool / ".fastspool/journal", pathlib.Path(tempfile.mkdtemp(dir="/home")) / "copy"
    for when in 1, 2:
        result = subprocess.run(["strace", "-f", "-o", "/dev/null", "-P", journal, "-e", "trace=getdents64",
                                 "-e", f"inject=getdents64:error=EIO:when={when}",
                                 "fastspool", "backup", copy], capture_output=True, text=True)
        check(result.returncode == 1 and "Input/output error" in result.stderr,
              f"getdents64 {when}: status {result.returncode}, {result.stdout}{result.stderr}")
    exim.run("-Mrm", *exim.queue())
    exim.expected = []


@test(library=True, main=QUEUE_ONLY)
def compacted(exim):
    """compact is refused beside a mirror, gives back what a large queue has left, and the queue is the same after it."""
    exim.start()
    client = Client()
    for _ in range(40):
        check(client.send(Message(size=500_000))[0] == 250, "refused")
    client.close()
    exim.stop()
    result = exim.command("compact", program=TOOL, stock=True)
    check(result.returncode == 1 and b"a mirror of" in result.stderr, f"{result}")
    exim.tool("stop")                   # all of it is in the database
    exim.run("-Mrm", *exim.queue()[3:])
    listed = exim.listing()
    exim.tool("stop")

    def size():
        return int(subprocess.run(["du", "-sk", exim.spool / ".fastspool"], capture_output=True, check=True).stdout.split()[0])
    before = size()
    for delay in (0.001, 0.003, 0.01):
        process = subprocess.Popen([TOOL, "compact"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(delay)               # any instant will do
        process.send_signal(signal.SIGKILL)
        process.wait()
    lock = os.open(exim.spool / ".fastspool/mirror.lock", os.O_RDWR)
    fcntl.flock(lock, fcntl.LOCK_EX)    # as the child of one that was killed may, until its fsync returns
    threading.Timer(0.5, os.close, (lock,)).start()
    exim.tool("compact")
    check(before > 20_000 and size() < 4_000, f"{before} KiB before, {size()} after")
    check(exim.listing() == listed, "the queue is another one")
    check("all is well" in exim.tool("verify"), "verify finds something")
    exim.run("-Mrm", *exim.queue())


if __name__ == "__main__":
    main("moves")
