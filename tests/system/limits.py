#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Limits and surroundings: where Exim starts, the library starts, too; and nobody gets more than without it.

- The daemon under one small limit: with the library and without it the result is the same.
- The memory lies in a file system of root's, which no other user can fill; else in /dev/shm.
- The mirror keeps nothing of its starter.
- What an ordinary user starts uses no shared memory, so nobody waits for what he stops.
"""
import contextlib
import errno
import mmap
import os
import pathlib
import re
import shutil
import signal
import subprocess
import tempfile
import time
from resource import (RLIMIT_AS, RLIMIT_CPU, RLIMIT_DATA, RLIMIT_FSIZE, RLIMIT_MEMLOCK, RLIMIT_NOFILE, RLIMIT_STACK,
                      RLIM_INFINITY)

from harness import (EXIM, LIBRARY, ROOTS_MEMORY, TOOL, USER, USER_ID, Client, Log, Message, Skip, check, main, processes,
                     stores, suspend, test, wait_for, words_of)

QUEUE_ONLY = ("queue_only = true",)
SEGMENT = "/fastspool."                 # marks a mapped segment in /proc/PID/maps
CGROUPS = pathlib.Path("/sys/fs/cgroup")
MAY_LIFT = 24                           # CAP_SYS_RESOURCE


def capable(capability):
    status = pathlib.Path("/proc/self/status").read_text()
    return int(re.search(r"^CapEff:\s*(\S+)", status, re.M).group(1), 16) >> capability & 1


def takes_mail(exim, count=2, queued=0):
    """The daemon takes messages by SMTP, the queue, which has QUEUED others, is listed, and a queue run delivers it."""
    client = Client()
    for _ in range(count):
        message = exim.expect(Message("user@maildir.test"), "maildir")
        code, text = client.send(message)
        check(code == 250, f"the message was refused: {text}")
    client.close()
    check(len(exim.queue()) == count + queued, f"the queue has {len(exim.queue())} messages")
    exim.deliver_queue()


def mirrors():
    return [pid for pid, name in processes() if name == "fastspool"]


def mirror_of(exim):
    """The mirror that holds the lock; 0: none.  All need not be well."""
    return exim.status()["mirror_pid"]


# --- limits of the daemon ---------------------------------------------------------------------------------------------


@test(("_soft", {}), ("_hard", {}), main=QUEUE_ONLY, memory="16G")
def address_space(exim):
    """256 MiB of address space are enough, whatever `memory` is: under a limit that can be shed, and under one that can't."""
    hard = 256 << 20 if exim.work.name.endswith("_hard") else RLIM_INFINITY
    exim.start(limits=[(RLIMIT_AS, (256 << 20, hard))])
    takes_mail(exim)


@test(main=QUEUE_ONLY)
def file_size(exim):
    """Files of 100 KiB are enough: what the library makes is no file of the daemon's."""
    exim.start(limits=[(RLIMIT_FSIZE, (100 << 10, RLIM_INFINITY))])
    takes_mail(exim)


@test(main=QUEUE_ONLY)
def file_size_for_good(exim):
    """A limit that root may not lift (no CAP_SYS_RESOURCE): no signal ends the daemon, one line says why it can't make the
    store, and when another process has made it, the daemon takes mail."""
    exim.start(limits=[(RLIMIT_FSIZE, (100 << 10, 100 << 10))])
    if not exim.stock and not capable(MAY_LIFT):
        for _ in range(2):
            client = Client()
            client.socket.sendall(b"MAIL FROM:<a@b.test>\r\n")
            check(client.reply()[0] in (421, 451), "without a store a message is taken")
        check(exim.daemon.poll() is None, "the daemon is dead")
        check("RLIMIT_FSIZE" in exim.said(), f"nothing says why: {exim.said()}")
        exim.panic = "Input/output error|File too large"
        exim.run("-bpc")
    takes_mail(exim)


@test(("_files", {}), ("_data", {}), ("_stack", {}), ("_memory", {}), ("_time", {}), main=QUEUE_ONLY)
def small(exim):
    """Each other limit, as small as Exim bears it."""
    limit, value = {"files": (RLIMIT_NOFILE, 20), "data": (RLIMIT_DATA, 16 << 20), "stack": (RLIMIT_STACK, 2 << 20),
                    "memory": (RLIMIT_MEMLOCK, 0), "time": (RLIMIT_CPU, 5)}[exim.work.name.rpartition("_")[2]]
    exim.start(limits=[(limit, (value, value))])
    takes_mail(exim)


TOO_SMALL = {"files": ("--nofile=19", "RLIMIT_NOFILE"), "data": (f"--data={8 << 20}", "RLIMIT_DATA")}


@test(("_files", {}), ("_data", {}), library=True, main=QUEUE_ONLY)
def too_small(exim):
    """Under a limit that can't be shed, with which Exim could not deliver, or no mirror starts: Exim is refused, and a sentence says
    which limit it is."""
    limit, name = TOO_SMALL[exim.work.name.rpartition("_")[2]]
    count = exim.command("--bounding-set=-sys_resource", "prlimit", limit, EXIM, "-bpc", program="setpriv")
    check(count.returncode == 75 and name.encode() in count.stderr, f"{count}")
    exim.start()
    takes_mail(exim)


# --- where the memory lies --------------------------------------------------------------------------------------------

SPARE = 32 << 20                        # what a store may take besides `memory` (lib/spool/runtime.c)


@contextlib.contextmanager
def full_shm():
    """A /dev/shm of 8 MiB, which nobody has filled."""
    subprocess.run(["mount", "-o", "remount,size=8m", "/dev/shm"], check=True)
    fill = "dd if=/dev/zero of=/dev/shm/fill bs=64k 2>/dev/null; dd if=/dev/zero of=/dev/shm/rest bs=4k 2>/dev/null; true"
    try:
        subprocess.run(["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", "sh", "-c", fill], check=True)
        check(os.statvfs("/dev/shm").f_bfree == 0, "/dev/shm isn't full: this test can't fail")
        yield
    finally:
        for name in ("fill", "rest"):
            pathlib.Path("/dev/shm", name).unlink(missing_ok=True)
        subprocess.run(["mount", "-o", "remount,size=50%", "/dev/shm"], check=True)


def place_of(spool):
    """The directory of a spool's memory."""
    return pathlib.Path((spool / ".fastspool/runtime").read_text().split("\n")[0])


def spare():
    """Bytes of root's file system, and how many of them are free."""
    room = os.statvfs(ROOTS_MEMORY)
    return room.f_blocks * room.f_frsize, room.f_bfree * room.f_frsize


@test(main=QUEUE_ONLY)
def filled_shm(exim):
    """Nobody fills /dev/shm, then the machine boots: mail is taken."""
    exim.reboot()
    with full_shm():
        exim.start()
        takes_mail(exim)


@test(library=True, main=QUEUE_ONLY, memory="32M")
def memory_of_another_owner(exim):
    """The directory below root's memory that a spool's path leads to is another owner's, as by a hash that alice has found: it
    stays his with what is in it, and her spool has its memory elsewhere.  An empty one becomes hers."""
    spool = exim.work / "hers"
    (spool / "input").mkdir(parents=True)
    for path in (spool, spool / "input"):
        os.chown(path, USER_ID, USER_ID)
    use = ["run", "--spool", spool, "--", "ls", spool / "input"]
    exim.tool(*use)
    place = place_of(spool).parent
    check(str(place).startswith(ROOTS_MEMORY + "/") and place.stat().st_uid == USER_ID, f"the memory is {place}")
    exim.tool("stop", "--spool", spool)
    wait_for(lambda: not os.listdir(place), "the memory is given back")
    owner = exim.spool.stat()
    os.chown(place, owner.st_uid, owner.st_gid)
    (place / "his").touch()
    exim.tool(*use)
    check(place.stat().st_uid == owner.st_uid and os.listdir(place) == ["his"], f"{place} went to alice: {place.stat()}")
    check(place_of(spool).parent != place, f"the memory is {place_of(spool)}")
    exim.tool("stop", "--spool", spool)
    (place / "his").unlink()
    exim.tool(*use)
    check(place.stat().st_uid == USER_ID, f"an empty directory: {place.stat()}")
    exim.tool("stop", "--spool", spool)


@test(library=True, main=QUEUE_ONLY, memory="32M")
def roots_memory(exim):
    """The file system is root's alone, has room for each spool's `memory`, and grows with a second spool and a larger
    `memory`.  It is still mounted after the stop, and holds nothing of a spool that is gone when the next one comes."""
    exim.reboot()
    exim.start()
    takes_mail(exim)
    check(str(place_of(exim.spool)).startswith(ROOTS_MEMORY + "/"), f"the memory is {place_of(exim.spool)}")
    top = os.stat(ROOTS_MEMORY)
    check((top.st_mode & 0o7777, top.st_uid, top.st_gid) == (0o755, 0, 0), f"{top}")
    options = next(line.split()[3] for line in open("/proc/mounts") if line.split()[1] == ROOTS_MEMORY)
    check({"nosuid", "nodev", "noexec"} <= set(options.split(",")), options)
    own = place_of(exim.spool).stat()
    check((own.st_mode & 0o7777, own.st_uid) == (0o700, exim.spool.stat().st_uid), f"{own}")
    check(spare()[0] == (32 << 20) + SPARE, f"one spool: {spare()[0] >> 20} MiB")

    second = exim.work / "second"
    (second / "input").mkdir(parents=True)
    exim.own(second)
    use = ["ls", second / "input"]
    exim.tool("run", "--spool", second, "--", *use)
    check(place_of(second).parent.parent == pathlib.Path(ROOTS_MEMORY), f"the second memory is {place_of(second)}")
    check(spare()[0] == 2 * ((32 << 20) + SPARE), f"two spools: {spare()[0] >> 20} MiB")

    exim.fastspool_configuration("memory = 96M")
    exim.tool("stop")
    exim.run("-bpc")
    check(spare()[0] == (32 << 20) + (96 << 20) + 2 * SPARE, f"a larger `memory`: {spare()[0] >> 20} MiB")
    wait_for(lambda: exim.status()["memory_limit"] == 96 << 20, "a mirror with the larger `memory`, beside the daemon")

    exim.fastspool_configuration("memory = 128M")    # while the store is there: its next mirror may take that much
    killed = mirror_of(exim)
    os.kill(killed, signal.SIGKILL)
    wait_for(lambda: killed not in mirrors(), "the mirror is dead")
    subprocess.run(["ls", exim.spool / "input"], env=exim.environment(), check=True, stdout=subprocess.DEVNULL)
    wait_for(lambda: exim.status()["memory_limit"] == 128 << 20, "a mirror with the larger `memory`")
    check(spare()[0] == (32 << 20) + (128 << 20) + 2 * SPARE, f"a larger `memory` of a store: {spare()[0] >> 20} MiB")

    exim.tool("stop", "--spool", second)        # which gives back its memory
    shutil.rmtree(place_of(exim.spool))
    exim.stop()
    wait_for(lambda: not mirrors(), "the mirrors end with their memory")
    check(os.path.ismount(ROOTS_MEMORY), "it was unmounted")
    exim.tool("run", "--", "ls", exim.spool / "input")
    check(len(os.listdir(ROOTS_MEMORY)) == 2, f"there is {os.listdir(ROOTS_MEMORY)}")


HUGE = 2048     # KiB of a huge page


def huge_pages_in(pid):
    """(KiB in memory, KiB of them mapped by huge pages) of each part of the segment that PID has mapped and used."""
    found = []
    for part in re.split(r"(?m)^(?=[0-9a-f]+-[0-9a-f]+ )", pathlib.Path(f"/proc/{pid}/smaps").read_text()):
        if SEGMENT in part.partition("\n")[0]:
            resident, huge = (int(re.search(rf"^{key}: +(\d+)", part, re.M).group(1)) for key in ("Rss", "ShmemPmdMapped"))
            found += [(resident, huge)] * (resident > 0)
    return found


def machine_has_huge_pages():
    """Does a file on such a tmpfs get one?"""
    with tempfile.TemporaryDirectory() as place:
        if subprocess.run(["mount", "-t", "tmpfs", "-o", "huge=within_size", "none", place], stderr=subprocess.DEVNULL).returncode:
            return False
        try:
            with open(f"{place}/file", "w+b") as file:
                file.truncate(HUGE << 10)
                with mmap.mmap(file.fileno(), HUGE << 10) as memory:
                    memory[0] = 1
                    return "ShmemPmdMapped:     2048" in pathlib.Path("/proc/self/smaps").read_text()
        finally:
            subprocess.run(["umount", place], check=True)


@test(library=True, main=QUEUE_ONLY, memory="256M")
def huge_pages(exim):
    """Where the machine has huge pages, each part of the store is mapped by them, also after a recovery."""
    if not machine_has_huge_pages():
        raise Skip("the machine has no huge page for a tmpfs")
    for _ in range(2):
        exim.start()
        client = Client()
        check(client.send(Message())[0] == 250, "refused")
        client.close()
        exim.tool("flush")
        for pid in (exim.daemon.pid, mirror_of(exim)):
            parts = huge_pages_in(pid)
            check(parts and all(resident == huge for resident, huge in parts), f"of {pid} are resident, huge: {parts}")
        exim.stop()
        exim.tool("stop")
    exim.run("-Mrm", *exim.queue())


@test(library=True, memory="16M")
def names_fit(exim):
    """`memory` full of names fits: the limit ends it, and not the file system."""
    exim.reboot()
    script = """
import errno, os, sys
count = 0
try:
    while True:
        os.close(os.open(f"{sys.argv[1]}/input/{count:07}-H", os.O_CREAT | os.O_WRONLY, 0o640))
        count += 1
except OSError as error:
    print(count, errno.errorcode[error.errno])
"""
    (exim.spool / "input").mkdir(exist_ok=True)
    exim.own(exim.spool / "input")
    result = subprocess.run(["python3", "-c", script, exim.spool], env=exim.environment(), capture_output=True)
    count, error = result.stdout.split()
    status = exim.status()
    size, free = spare()
    print(f"  {count.decode()} names in {status['memory_bytes'] >> 10} KiB; {(size - free) >> 10} KiB of {size >> 10} KiB taken",
          flush=True)
    check(error == b"ENOSPC" and status["memory_bytes"] > 15 << 20 and free > 0, f"{error}, {status['memory_bytes']}, {free}")


@test(("_daemon", {}), ("_else", {}), library=True, main=QUEUE_ONLY)
def elsewhere(exim):
    """A process of the owner's that comes first, and one of root's with a /run of its own, use /dev/shm without a word.  Where
    root's file system is mounted, the owner's process makes the store there."""
    exim.reboot()
    look = ["ls", exim.spool / "input"]
    if exim.work.name.endswith("_else"):
        look = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs -o mode=755 own /run && exec "$@"', "sh", *look]
    else:
        look = ["setpriv", "--reuid=Debian-exim", "--regid=Debian-exim", "--clear-groups", "--", *look]
    for base in ("/dev/shm", ROOTS_MEMORY):
        result = subprocess.run(look, env=exim.environment(), capture_output=True)
        check(b"fastspool" not in result.stderr, result.stderr.decode())
        expected = base if look[0] == "setpriv" else "/dev/shm"
        check(str(place_of(exim.spool)).startswith(expected), f"the memory is {place_of(exim.spool)}, not in {expected}")
        takes_mail(exim) if exim.daemon else None
        exim.reboot()
        exim.run("-bpc")                # root's
        check(str(place_of(exim.spool)).startswith(ROOTS_MEMORY), f"root's memory is {place_of(exim.spool)}")
        exim.tool("stop")
        for path in stores():
            shutil.rmtree(path)
    exim.start()
    takes_mail(exim)


@test(main=QUEUE_ONLY)
def no_proc(exim):
    """Without /proc Exim works as it does without the library: as the first that comes, and after it."""
    hidden = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs -o ro none /proc && exec "$@"', "sh"]

    def submit(message):
        result = subprocess.run([*hidden, EXIM, "-oi", "-f", message.sender, *message.recipients], cwd="/",
                                env=exim.environment(), input=message.content(), capture_output=True)
        check(result.returncode == 0 and not result.stderr, f"exit {result.returncode}: {result.stderr.decode()}")
    for _ in range(2):
        exim.reboot()
        for turn in range(2):
            submit(exim.expect(Message("user@maildir.test"), "maildir"))
            count = subprocess.run([*hidden, EXIM, "-bpc"], cwd="/", env=exim.environment(), capture_output=True)
            check((count.stdout, count.stderr) == (b"%d\n" % (turn + 1), b""), f"{count}")
            script = 'exec env -u LD_PRELOAD cat <"$1"'        # inherits the file, and has no library
            name = f"input/{exim.queue()[0]}-H"
            inherited = subprocess.run([*hidden, "sh", "-c", script, "sh", name], cwd=exim.spool, env=exim.environment(),
                                       capture_output=True)
            check(name[6:-2].encode() in inherited.stdout, f"{inherited}")
            check(len(exim.queue()) == turn + 1, f"with /proc the queue has {len(exim.queue())} messages")
        exim.deliver_queue()
        if not exim.stock:
            exim.tool("flush")          # else the next turn's power cut may bring back what was just delivered (docs/limits.md)


ALLOCATOR = """
#include <stddef.h>
#include <unistd.h>
extern void *__libc_malloc(size_t), *__libc_calloc(size_t, size_t), *__libc_realloc(void *, size_t), __libc_free(void *);
static int holder, ready;
static void look(void) /* at its configuration, with its lock held, as jemalloc's first call does */
{
    char link[256];
    while (__atomic_load_n(&holder, __ATOMIC_ACQUIRE) && holder != gettid())
        usleep(1000);
    if (ready || holder)
        return;
    holder = gettid();
    ready = readlink("/etc/malloc.conf", link, sizeof(link)) != 0;
    __atomic_store_n(&holder, 0, __ATOMIC_RELEASE);
}
void *malloc(size_t size) { look(); return __libc_malloc(size); }
void *calloc(size_t count, size_t size) { look(); return __libc_calloc(count, size); }
void *realloc(void *memory, size_t size) { look(); return __libc_realloc(memory, size); }
void free(void *memory) { __libc_free(memory); }
"""


@test(("_before", {}), ("_behind", {}), library=True, main=QUEUE_ONLY)
def allocator(exim):
    """An allocator that reads a link in its first call, as jemalloc does: Exim starts, also as the first process after a boot,
    which makes room for the memory."""
    (exim.work / "allocator.c").write_text(ALLOCATOR)
    subprocess.run(["cc", "-w", "-shared", "-fPIC", "-D_GNU_SOURCE", "-o", exim.work / "allocator.so", exim.work / "allocator.c"], check=True)
    exim.reboot()
    order = [f"{exim.work}/allocator.so", LIBRARY]
    if exim.work.name.endswith("_behind"):
        order.reverse()
    count = exim.command("-bpc", environment={"LD_PRELOAD": ":".join(order)}, timeout=60)
    check((count.returncode, count.stdout, count.stderr) == (0, b"0\n", b""), f"{count}")
    check(str(place_of(exim.spool)).startswith(ROOTS_MEMORY), f"the memory is {place_of(exim.spool)}: this test can't fail")


DENIED = """
#include "filter.h"
#include <errno.h>
#include <fcntl.h>
int main(int count, char **arguments)
{
    return DENY < 0 ? 125 : execvp(arguments[1], arguments + 1);
}
"""


def denied(exim, call, error, command=None):
    """A program that runs its arguments where the system call CALL, with COMMAND alone if there is one, fails with ERROR."""
    program = exim.work / f"without-{call}"
    answer = f"SECCOMP_RET_ERRNO | {error}"
    deny = f"filter_command(SYS_{call}, {command}, {answer})" if command else f"filter_call(SYS_{call}, {answer}, 0)"
    tests = pathlib.Path(__file__).parent.parent
    subprocess.run(["cc", "-w", "-D_GNU_SOURCE", f"-DDENY={deny}", f"-I{tests}", "-x", "c", "-o", program, "-"],
                   input=DENIED, text=True, check=True)
    return program


@test(library=True, main=QUEUE_ONLY, view="library")
def old_kernel(exim):
    """Where close_range(2) is refused, as by a kernel before 5.9, mirror and view start, with none of their starter's descriptors."""
    old = denied(exim, "close_range", "ENOSYS")
    with open(exim.work / "kept", "w") as kept:
        count = subprocess.run([old, EXIM, "-bpc"], cwd="/", env=exim.environment(), pass_fds=[kept.fileno()],
                               stdin=subprocess.DEVNULL, capture_output=True, timeout=60)
    check((count.returncode, count.stdout, count.stderr) == (0, b"0\n", b""), f"{count}")
    exim.wait_view()
    for pid in mirrors():
        have = [os.readlink(link) for link in pathlib.Path(f"/proc/{pid}/fd").iterdir()]
        check(str(exim.work / "kept") not in have, f"{words_of(pid)} has {have}")
    check(mirror_of(exim) in mirrors(), "no mirror runs")
    exim.start()
    takes_mail(exim)


@test(library=True, main=QUEUE_ONLY)
def no_copy_in_memory(exim):
    """Without a view, and where no file in memory can be had, a local delivery waits, and syslog says what it needs."""
    exim.submit(exim.expect(Message("user@maildir.test"), "maildir"))
    log = Log()
    subprocess.run([denied(exim, "memfd_create", "EPERM"), EXIM, "-q"], cwd="/", env=exim.environment(), check=True)
    said = log.lines("memfd_create")
    log.close()
    check(len(said) == 1 and "mount the view" in said[0], f"syslog has {said}")
    check(len(exim.queue()) == 1 and not exim.tokens(), "a delivery without the message's content")
    exim.deliver_queue()


MISSING = {"statx": ((), "it can't be told which state "), "fcntl": (("F_OFD_SETLK",), "can't be locked (F_OFD_SETLK: "),
           "list": ((), "the store's lock needs the system calls get_robust_list and "),
           "gettid": ((), "the store's lock needs the system calls get_robust_list and gettid, ")}


@test(library=True, main=QUEUE_ONLY)
def no_time_of_birth(exim):
    """Where the C library does without statx(2), as that is unknown, a process can't tell the state of a living store from another
    one that was put in its place.  It says just that, and the store goes on."""
    program = denied(exim, "statx", "ENOSYS")
    exim.start()
    takes_mail(exim)
    for arguments, environment, status in (((EXIM, "-bpc"), exim.environment(), 75), ((TOOL, "status"), None, 2),
                                           ((TOOL, "doctor", "--start"), None, 2)):
        result = subprocess.run([program, *arguments], cwd="/", env=environment, capture_output=True, timeout=60)
        said = (result.stdout + result.stderr).decode()
        check(result.returncode == status and "it can't be told which state" in said and "replaced" not in said, f"{result}")
    takes_mail(exim)


@test(("_statx", {}), ("_fcntl", {}), ("_list", {}), ("_gettid", {}), library=True, main=QUEUE_ONLY)
def a_call_is_missing(exim):
    """Without a system call that makes a store safe Exim is refused it, with a sentence that says why; other processes have it.  No
    mirror is started that would say it again and again."""
    call = exim.work.name.rpartition("_")[2]
    command, wanted = MISSING[call]
    program = denied(exim, {"list": "get_robust_list"}.get(call, call), "EINVAL", *command)
    log = Log()
    for _ in range(2):
        result = subprocess.run([program, EXIM, "-bpc"], cwd="/", env=exim.environment(), capture_output=True, timeout=60)
        said = result.stderr.decode()
        check(result.returncode == 75 and wanted in said and said.count("fastspool: ") == 1, f"{result}")
        check(call != "list" or log.lines("get_robust_list") == [said.strip()], f"syslog has {log.lines()}, and not {said}")
        exim.run("-bpc")
        log.close()
        log = Log()
    log.close()
    exim.start()
    takes_mail(exim)


@test(library=True, main=QUEUE_ONLY)
def no_lock_of_a_mirror(exim):
    """Where flock is refused no mirror can have its lock: after the first one none is started, and a sentence says it at once:
    sooner than a mirror that does not start is given up."""
    log, program, began = Log(), denied(exim, "flock", "EPERM"), time.monotonic()
    result = subprocess.run([program, EXIM, "-bpc"], cwd="/", env=exim.environment(), capture_output=True, timeout=60)
    check(result.returncode == 75 and b"it can't be told whether its mirror lives" in result.stderr, f"{result}")
    check(time.monotonic() - began < 10, "it is waited for")
    check(len(log.lines("take the mirror's lock")) <= 1 and len(log.lines()) <= 2, f"syslog has {log.lines()}")
    log.close()
    exim.start()
    takes_mail(exim)


@test(library=True, main=QUEUE_ONLY, fastspool=("durability = lazy",))
def memory_that_cant_be_told(exim):
    """A store that nobody uses any more is not thrown away, with what the disk has not, by a process that can't tell whether it lies
    in memory (fstatfs is refused): Exim is refused it, with a sentence."""
    exim.submit(exim.expect(Message("user@maildir.test"), "maildir"))
    exim.tool("flush")
    [pid] = mirrors()
    suspend(pid)
    exim.submit(exim.expect(Message("user@maildir.test"), "maildir"))
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not mirrors(), "the mirror is dead")
    result = subprocess.run([denied(exim, "fstatfs", "EPERM"), EXIM, "-bpc"], cwd="/", env=exim.environment(), capture_output=True)
    check(result.returncode == 75 and b"(fstatfs: " in result.stderr, f"{result}")
    check(len(exim.queue()) == 2, f"the queue has {exim.queue()}")
    exim.deliver_queue()


@test(library=True, main=QUEUE_ONLY)
def a_mount_that_cant_be_seen(exim):
    """A process that can't tell whether root's file system is mounted (fstatfs is refused) mounts none over it, which would hide the
    memory of all spools: it has its store elsewhere."""
    exim.reboot()
    exim.start()
    exim.submit(exim.expect(Message("user@maildir.test"), "maildir"))
    second = exim.work / "second"
    (second / "input").mkdir(parents=True)
    exim.own(second)
    subprocess.run([denied(exim, "fstatfs", "EPERM"), TOOL, "run", "--spool", second, "--", "ls", second / "input"], check=True,
                   env=exim.environment(stock=True))
    mounted = [line for line in open("/proc/mounts") if line.split()[1] == ROOTS_MEMORY]
    check(len(mounted) == 1 and place_of(exim.spool).exists(), f"mounted: {mounted}")
    check(str(place_of(second)).startswith("/dev/shm/"), f"the second memory is {place_of(second)}")
    for pid in [pid for pid in mirrors() if str(second) in words_of(pid)]:      # which can't write either
        os.kill(pid, signal.SIGKILL)
    takes_mail(exim, queued=1)


# --- the mirror's starter -------------------------------------------------------------------------------------------

def is_removed(group):
    """Remove a control group.  It is busy until the last process in it has ended, which its list doesn't show any more."""
    try:
        group.rmdir()
    except OSError as error:
        return check(error.errno == errno.EBUSY, str(error))
    return True


@contextlib.contextmanager
def control_groups(*hierarchies):
    """A control group of its own in each hierarchy that this machine has; they are removed in the end."""
    groups = [CGROUPS / name / f"fastspool-test-{os.getpid()}-{time.monotonic_ns()}" for name in hierarchies
              if (CGROUPS / name / "cgroup.procs").exists()]
    try:
        for group in groups:
            group.mkdir()
        yield groups
    finally:
        for group in groups:
            for name, value in (("freezer.state", "THAWED"), ("cgroup.freeze", "0")):
                if (group / name).exists():
                    (group / name).write_text(value)
            for pid in (group / "cgroup.procs").read_text().split():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
            wait_for(lambda: is_removed(group), "the control group is empty")


def schedule(pid):
    """What a process may inherit: policy, nice value, processors, I/O class, points of the killer for memory, timer slack."""
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    idle = subprocess.run(["ionice", "-p", str(pid)], capture_output=True, check=True).stdout.decode()
    return {"policy": os.sched_getscheduler(pid), "nice": os.getpriority(os.PRIO_PROCESS, pid),
            "processors": len(os.sched_getaffinity(pid)), "io": idle.split(":")[0].strip(),
            "oom": pathlib.Path(f"/proc/{pid}/oom_score_adj").read_text().strip(),
            "slack": pathlib.Path(f"/proc/{pid}/timerslack_ns").read_text().strip(),
            "groups": re.search(r"^Groups:\s*(.*?)\s*$", status, re.M).group(1)}


@test(library=True, main=QUEUE_ONLY)
def the_mirror_keeps_nothing(exim):
    """A process of root's with the lowest priority in every way starts a mirror with the usual one."""
    exim_group = exim.spool.stat().st_gid
    usual = {**schedule(os.getpid()), "groups": str(exim_group)}
    usual["processors"] = os.cpu_count()

    def lower():
        os.setgroups([12345])
        os.nice(15)
        os.sched_setaffinity(0, {0})
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
        pathlib.Path("/proc/self/timerslack_ns").write_text("77777777")
        subprocess.run(["ionice", "-c", "3", "-p", str(os.getpid())], check=True)

    with control_groups("cpu", "freezer", "pids", "unified") as groups:
        def enter():
            lower()
            for group in groups:
                (group / "cgroup.procs").write_text("0")
        subprocess.run(["ls", exim.spool / "input"], env=exim.environment(), preexec_fn=enter, capture_output=True)
        wait_for(mirrors, "a mirror runs")
        now = schedule(mirrors()[0])
        check(now == usual, f"the mirror has {now}, not {usual}")
        kept = [line for line in pathlib.Path(f"/proc/{mirrors()[0]}/cgroup").read_text().split() if "fastspool-test" in line]
        check(not kept, f"the mirror is in {kept}")
        limits = pathlib.Path(f"/proc/{mirrors()[0]}/limits").read_text()
        check(re.search(r"Max address space +unlimited", limits) and re.search(r"Max file size +unlimited", limits), limits)


def read_only(exim, *command):
    """Run COMMAND where it sees the spool read-only, as a service with ProtectSystem=strict."""
    script = 'mount --make-rprivate / && mount --bind "$0" "$0" && mount -o remount,ro,bind "$0" && exec "$@"'
    return subprocess.Popen(["unshare", "--mount", "sh", "-c", script, exim.spool, *command], env=exim.environment(),
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE)


@test(library=True, main=QUEUE_ONLY)
def a_sandboxed_starter(exim):
    """A process of root's that sees the spool read-only starts a mirror that doesn't."""
    exim.start()
    exim.run("-bpc")
    exim.tool("stop")
    read_only(exim, "ls", exim.spool / "input").communicate()
    wait_for(mirrors, "a mirror runs")
    check(os.readlink(f"/proc/{mirrors()[0]}/ns/mnt") == os.readlink("/proc/1/ns/mnt"), "the mirror is in the sandbox")
    takes_mail(exim)


@test(library=True, main=QUEUE_ONLY)
def a_sick_mirror(exim):
    """A mirror that can't write ends after some seconds, with a line, and another one takes over.  Meanwhile no message is
    taken."""
    exim.start()
    takes_mail(exim)
    check(exim.daemon.poll() is None, "the daemon ended")
    [pid] = mirrors()
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not mirrors(), "the mirror is dead")
    sick = read_only(exim, "fastspool", "mirror", exim.spool)
    # A message that comes sooner would start another one.
    wait_for(lambda: mirror_of(exim) == sick.pid or sick.poll() is not None, "the sick mirror has its lock")

    def taken():
        message = Message("user@maildir.test")
        with contextlib.suppress(OSError):
            return Client().send(message)[0] == 250 and exim.expect(message, "maildir")
    wait_for(taken, "another mirror takes over")
    check(mirror_of(exim) != sick.pid, "a message is taken that the mirror can't keep")
    _, said = sick.communicate(timeout=60)
    check(sick.returncode == 1 and b"can't write" in said and b"Read-only" in said, f"exit {sick.returncode}: {said}")
    takes_mail(exim, queued=1)


@test(library=True, main=QUEUE_ONLY)
def no_threads(exim):
    """A mirror whose user may have no more processes says that, and so does `status` with syslog; the next one takes over."""
    exim.start()
    takes_mail(exim)
    [pid] = mirrors()
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not mirrors(), "the mirror is dead")
    result = subprocess.run(["prlimit", "--nproc=1", TOOL, "mirror", exim.spool], capture_output=True, text=True, timeout=60)
    check(result.returncode == 1 and "can't start its threads: Resource temporarily" in result.stderr and "`ulimit -u`" in result.stderr,
          f"{result}")
    status = exim.command("status", program=TOOL, stock=True)
    check(status.returncode == 2 and b"syslog says more" in status.stdout.splitlines()[0], f"{status}")

    def taken():
        message = Message("user@maildir.test")
        return Client().send(message)[0] == 250 and exim.expect(message, "maildir")
    wait_for(taken, "another mirror takes over")
    takes_mail(exim, queued=1)


@test(library=True, main=QUEUE_ONLY)
def no_process(exim):
    """Exim may make no process, and no mirror runs: it reads what is in memory; where that isn't there a sentence says why."""
    alone = ["setpriv", "--bounding-set=-sys_resource", "prlimit", "--nproc=1", EXIM, "-bpc"]
    exim.submit(exim.expect(Message("user@maildir.test"), "maildir"))
    [pid] = mirrors()
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not mirrors(), "the mirror is dead")
    count = exim.command(*alone[1:], program=alone[0])
    check((count.returncode, count.stdout) == (0, b"1\n"), f"{count}")
    exim.tool("stop")
    count = exim.command(*alone[1:], program=alone[0])
    check(count.returncode == 75 and b"can't be one more process (Resource temporarily" in count.stderr, f"{count}")
    exim.deliver_queue()


SYSLOG = """
#include <stdarg.h>
#include <stdio.h>
void syslog(int priority, const char *format, ...)
{
    va_list list;
    va_start(list, format);
    vdprintf(2, format, list);
}
void __syslog_chk(int priority, int flag, const char *format, ...) /* of a hardened build */
{
    va_list list;
    va_start(list, format);
    vdprintf(2, format, list);
}
"""


@test(library=True, main=QUEUE_ONLY)
def a_missing_command(exim):
    """Without the command there is no mirror, and a line says why.  When it is back mail goes on, without any other act."""
    (exim.work / "syslog.c").write_text(SYSLOG)
    subprocess.run(["cc", "-w", "-shared", "-fPIC", "-o", exim.work / "syslog.so", exim.work / "syslog.c"], check=True)
    exim.start()
    exim.run("-bpc")
    shutil.move(TOOL, f"{TOOL}.away")
    [pid] = mirrors()
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not mirrors(), "the mirror is dead")

    def said():
        look = subprocess.run(["ls", exim.spool / "input"], capture_output=True,
                              env={**exim.environment(), "LD_PRELOAD": f"{exim.work}/syslog.so:{LIBRARY}"})
        return look.stderr.decode()
    wait_for(lambda: f"{TOOL} can't be executed (No such file or directory)" in said(), "a line says what is missing")
    shutil.move(f"{TOOL}.away", TOOL)
    takes_mail(exim)


@test(library=True, memory="1G")
def memory_of_a_group(exim):
    """The default of `memory` is a quarter of what the control group has."""
    if not (CGROUPS / "memory" / "cgroup.procs").exists():
        raise Skip("this machine has no control groups of version 1 for memory")
    exim.fastspool_configuration()
    with control_groups("memory") as (group,):
        (group / "memory.limit_in_bytes").write_text(str(100 << 20))
        subprocess.run(["ls", exim.spool / "input"], env=exim.environment(), capture_output=True,
                       preexec_fn=lambda: (group / "cgroup.procs").write_text("0"))
        memory = exim.status()["memory_limit"]
        check(memory == 25 << 20, f"`memory` is {memory >> 20} MiB")


# --- an ordinary user -------------------------------------------------------------------------------------------------

@contextlib.contextmanager
def library_for_all():
    """Every program has the library, also Exim's re-executions with an empty environment."""
    preload = pathlib.Path("/etc/ld.so.preload")
    preload.write_text(f"{LIBRARY}\n")
    try:
        yield
    finally:
        preload.unlink()


def users_sendmail(exim, message, group="/dev/null"):
    """An ordinary user's sendmail in a control group, started and not waited for."""
    enter = 'echo 0 >"$0" && exec setpriv --reuid=%d --regid=%d --clear-groups -- "$@"' % (USER_ID, USER_ID)
    process = subprocess.Popen(["sh", "-c", enter, group, EXIM, "-oi", *message.recipients], stdin=subprocess.PIPE, cwd="/",
                               stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=exim.environment())
    process.stdin.write(message.content())
    process.stdin.close()
    return process


def mapped(pids):
    """Those processes that have the store mapped."""
    found = []
    for pid in pids:
        with contextlib.suppress(OSError):
            if SEGMENT in pathlib.Path(f"/proc/{pid}/maps").read_text():
                found.append(pid)
    return found


@test(library=True, main=QUEUE_ONLY)
def a_user_makes_no_store(exim):
    """After a boot an ordinary user's sendmail makes no store and starts no mirror.  Its message lies on the disk, and root's
    queue run delivers it from there."""
    with library_for_all():
        message = exim.expect(Message("user@maildir.test", sender=f"{USER}@mail.test"), "maildir")
        check(users_sendmail(exim, message).wait() == 0, "the message was refused")
        check(not (exim.spool / ".fastspool").exists() and not mirrors(), "the user's sendmail has made a store")
        check(len([name for name in exim.real_files() if name.endswith("-H")]) == 1, "the message isn't on the disk")
        exim.deliver_queue()
        check(mirrors(), "root's Exim has no store: this test can't fail")


@test(main=QUEUE_ONLY)
def a_user_syncs(exim):
    """An ordinary user's sendmail asks the disk for as many fsyncs as without the library."""
    def syncs():
        trace = exim.work / "trace"
        message = exim.expect(Message("user@maildir.test", sender=f"{USER}@mail.test"), "maildir")
        subprocess.run(["strace", "-f", "-u", USER, "-o", trace, "-e", "trace=fsync,fdatasync,fcntl", EXIM, "-oi",
                        *message.recipients], input=message.content(), env=exim.environment(), check=True)
        return len(re.findall(r"\bf(?:data)?sync\(\d+\) += 0", trace.read_text()))
    exim.run("-bpc")
    stock = syncs() if exim.stock else None
    with contextlib.nullcontext() if exim.stock else library_for_all():
        check(syncs() >= 3 and stock in (None, 3), f"the disk isn't asked: {stock}")
    exim.deliver_queue()


MOMENTS = 24


@test(("", {"main": ()}), ("_queued", {"main": QUEUE_ONLY}))
def a_frozen_user(exim):
    """An ordinary user's sendmail, with all that it executes, is frozen at many moments: mail goes on meanwhile, and nothing in
    his group has the store mapped.  Thawed, it delivers."""
    if not (CGROUPS / "freezer" / "cgroup.procs").exists():
        raise Skip("this machine has no freezer")
    exim.start()
    with contextlib.nullcontext() if exim.stock else library_for_all(), control_groups("freezer") as (group,):
        for moment in range(MOMENTS):
            message = exim.expect(Message("user@maildir.test", sender=f"{USER}@mail.test"), "maildir")
            user = users_sendmail(exim, message, group / "cgroup.procs")
            time.sleep(0.004 * moment)          # a moment, not a wait for anything
            (group / "freezer.state").write_text("FROZEN")
            wait_for(lambda: (group / "freezer.state").read_text().strip() == "FROZEN", "the user is frozen")
            stopped = (group / "cgroup.procs").read_text().split()
            check(not mapped(stopped), f"at moment {moment} a process that a user may freeze has the store mapped")
            client = Client()
            other = exim.expect(Message("user@maildir.test"), "maildir")
            check(client.send(other)[0] == 250, f"at moment {moment} mail stands")
            client.close()
            (group / "freezer.state").write_text("THAWED")
            check(user.wait(60) == 0, f"the user's sendmail fails: {user.stderr.read()}")
            user.stderr.close()
        wait_for(lambda: not (group / "cgroup.procs").read_text(), "the user's deliveries have ended")
    exim.deliver_queue()


@test(("_daemon", {}), ("_else", {}), main=QUEUE_ONLY)
def one_per_cent(exim):
    """Root's processes in a group that has 1 % of a processor: the daemon, or a queue run beside it.  Mail goes on, slowly in
    the first case, and as always in the other."""
    if not (CGROUPS / "cpu" / "cpu.cfs_quota_us").exists():
        raise Skip("this machine has no limit of processor time in groups of version 1")
    with control_groups("cpu") as (group,):
        (group / "cpu.cfs_quota_us").write_text("1000")     # of 100 ms

        def enter():
            (group / "cgroup.procs").write_text("0")
        exim.start()
        if exim.work.name.endswith("_daemon"):
            (group / "cgroup.procs").write_text(str(exim.daemon.pid))
            runner = None
        else:
            for _ in range(4):
                exim.submit(exim.expect(Message("user@maildir.test"), "maildir"))
            runner = subprocess.Popen([EXIM, "-q"], env=exim.environment(), preexec_fn=enter, stdin=subprocess.DEVNULL)
            wait_for(lambda: int(re.search(r"nr_throttled (\d+)", (group / "cpu.stat").read_text())[1]) > 2, "it is throttled")
        client = Client(timeout=180)
        for _ in range(3):
            check(client.send(exim.expect(Message("user@maildir.test"), "maildir"))[0] == 250, "mail stands")
        client.close()
        (group / "cpu.cfs_quota_us").write_text("-1")
        check(runner is None or runner.wait(120) == 0, "the queue run fails")
        wait_for(lambda: set((group / "cgroup.procs").read_text().split()) <= {str(exim.daemon.pid)}, "its processes end")
        exim.deliver_queue()
        exim.stop()


@test(library=True, main=QUEUE_ONLY)
def a_users_group(exim):
    """Root's process in a control group that was delegated to a user has no store, and says so."""
    exim.run("-bpc")
    with control_groups("freezer") as groups:
        if not groups:
            raise Skip("this machine has no freezer")
        command = [EXIM, "-be", "${if exists{%s/input/none}{yes}{no}} ${readfile{/proc/self/maps}}" % exim.spool]

        def look():
            result = subprocess.run(command, env=exim.environment(), capture_output=True,
                                    preexec_fn=lambda: (groups[0] / "cgroup.procs").write_text("0"))
            return SEGMENT in result.stdout.decode(), result.stderr.decode()
        check(look() == (True, ""), f"in root's group: {look()}")
        shutil.chown(groups[0], USER)
        has_store, said = look()
        check(not has_store and "an ordinary user may freeze" in said, f"in a user's group: {said}")


if __name__ == "__main__":
    main("limits")
