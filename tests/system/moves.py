#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Export and import: a queue that goes to the plain disk, and comes back.  Exim with the library and plain Exim take turns."""
import os
import pathlib
import re
import signal
import shutil
import struct
import subprocess
import tempfile
import threading
import time

from harness import QUEUE_ONLY, TOOL, USER_ID, Client, Message, check, held, main, stores, test, wait_for

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
    before = exim.run("-bp")
    said = exim.tool("export", "--yes")
    check("exported 20 messages in " in said, said)
    check(plain(exim, "-bp") == before, "the queue is another one")
    plain(exim, "-qff")
    exim.wait_arrived()
    stays_empty(exim)


@test(*LAYOUTS, library=True)
def there_and_back(exim):
    """An export and an import, while the daemon runs: Exim with the library sees each message once at any time."""
    exim.start()
    queue(exim, 20)
    before = sorted(exim.queue())
    exim.tool("export", "--yes")
    check(sorted(exim.queue()) == before, "the union has another queue")
    said = exim.tool("import")
    check("imported 20 messages in " in said, said)
    check(sorted(exim.queue()) == before and not exim.real_files(), "the queue is another one")
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
    check("imported 1 messages" in exim.tool("import") and not exim.real_files(), "the message stays")
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
    before = exim.run("-bp")
    other = exim.work / "other"
    exim.tool("export", "--yes", other)
    check(exim.queue() == [], "the store has messages still")
    configured = exim.spool
    exim.spool = other
    exim.configure(QUEUE_ONLY)
    check(plain(exim, "-bp") == before, "the queue is another one")
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
    used."""
    exim.start()
    queue(exim, 1)
    exim.stop()
    users = pathlib.Path("/home/users-plain")
    users.mkdir()
    shutil.chown(users, USER_ID, USER_ID)
    for directory, why in ((exim.spool / "plain", "below it"), (exim.spool, "below it"), (users, "belongs to a user")):
        refused = exim.command("export", "--yes", directory, program=TOOL, stock=True)
        check(refused.returncode == 1 and why in refused.stderr.decode(), f"{directory}: {refused.stderr.decode()}")
    check(not (exim.spool / "plain").exists() and not list(users.iterdir()), "something was made")
    users.rmdir()
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
    """Over a mounted view an export is refused, and after a stop it works."""
    exim.start()
    queue(exim, 3)
    exim.stop()
    refused = exim.command("export", "--yes", program=TOOL, stock=True)
    check(refused.returncode == 1 and b"run `fastspool stop` first" in refused.stderr, refused.stderr.decode())
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


def refused_backup(exim, directory):
    """The backup is refused.  Returns what it says."""
    result = exim.command("backup", directory, program=TOOL, stock=True)
    check(result.returncode == 1, f"exit status {result.returncode}")
    check(not directory.exists(), "there is a copy under its name")
    return result.stderr.decode()


@test(library=True, main=QUEUE_ONLY)
def backed_up_with_the_owners_rights(exim):
    """What the mail user puts into the state leads a backup by root no further than the mail user's own rights."""
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
    check(secret.read_text() == "root's", "root's file is written to")
    lock.unlink()
    lock.with_suffix(".own").rename(lock)
    exim.tool("backup", copy)           # goes on where the other one has ended
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
    refused = exim.command("compact", program=TOOL, stock=True)
    check(refused.returncode == 1 and b"a mirror of" in refused.stderr, f"{refused}")
    exim.stop()
    exim.tool("stop")                   # all of it is in the database
    exim.run("-Mrm", *exim.queue()[3:])
    listed = exim.run("-bp")
    exim.tool("stop")

    def size():
        return int(subprocess.run(["du", "-sk", exim.spool / ".fastspool"], capture_output=True, check=True).stdout.split()[0])
    before = size()
    for delay in (0.001, 0.003, 0.01):
        process = subprocess.Popen([TOOL, "compact"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(delay)               # any instant will do
        process.send_signal(signal.SIGKILL)
        process.wait()
    exim.tool("compact")
    check(before > 20_000 and size() < 4_000, f"{before} KiB before, {size()} after")
    check(exim.run("-bp") == listed, "the queue is another one")
    check("all is well" in exim.tool("verify"), "verify finds something")
    exim.run("-Mrm", *exim.queue())


if __name__ == "__main__":
    main("moves")
