#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The view's mounts: who mounts them, where, and what users see while servers die.

- The first process of root's that uses the spool has the view mounted.
- Whoever dies, hangs or is stopped: no user ever sees an empty directory or misses a file, and the view is back in seconds.
- Where nothing can be mounted, everything is as without a view.
"""
import contextlib
import ctypes
import errno
import fcntl
import itertools
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import threading
import time

from harness import (EXIM, LIBRARY, QUEUE_ONLY, TOOL, USER, Log, Message, Skip, check, forget_memory, kill, kill_all, main,
                     processes, sleeps_in, suspend, test, views, wait_for, words_of)

AUTO = {"library": True, "main": QUEUE_ONLY, "fastspool": ("view = auto",)}
QUEUES = {**AUTO, "main": QUEUE_ONLY + ("acl_not_smtp_start = warn queue = ${if eq{$sender_address}{fast@sink.test}{fast}"
                                        "{${if eq{$sender_address}{slow@sink.test}{slow}}}}",)}
GONE = (errno.ENOTCONN, errno.ECONNABORTED, errno.EIO)     # what users may see of a dead server


# --- what the tests look at ---------------------------------------------------------------------------------------

def state(exim):
    """The line of `fastspool status` on the view.  All need not be well."""
    return exim.status()["view"]


def supervisor(exim):
    return exim.status()["view_pid"]


def children(pid):
    text = pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(child) for child in text.split()]


def runs(pid):
    return pid in dict(processes())


def server(exim):
    """The process that answers: the supervisor's child that is the spool's owner."""
    return wait_for(lambda: next((pid for pid in children(supervisor(exim))
                                  if os.stat(f"/proc/{pid}").st_uid == exim.spool.stat().st_uid), None), "a server runs")


def over(exim):
    """The names of the directories that a view is mounted over, the upper mounts first."""
    return [str(pathlib.Path(place).relative_to(exim.spool)) for _, place in views()
            if place.startswith(f"{exim.spool}/")]


def listing(directory):
    """The names in a directory of the view, sorted; None if the view is dead just now."""
    try:
        return sorted(os.listdir(directory))
    except OSError as error:
        if error.errno not in GONE:
            raise
        return None


def wait_mounted(exim, *names):
    """Wait until all NAMES are mounted, and answer: a dead view stays mounted."""
    wanted = set(names or ("input", "msglog"))
    wait_for(lambda: state(exim).startswith("mounted") and wanted <= set(over(exim)) and
             all(listing(exim.spool / name) is not None for name in wanted), f"{wanted} are mounted")


def kill_server(exim):
    """kill -9 of the server.  Returns when it is gone."""
    pid = server(exim)
    kill(pid)
    wait_for(lambda: not runs(pid), "the server is gone")


def use_as_root(exim):
    """Let a process of root's attach.  (Exim gives root's rights up before it lists the queue, or receives mail.)"""
    exim.run("-be", "${if exists{%s/input}{yes}{no}}" % exim.spool)


def fill(exim, count=3):
    """Queue messages, and wait for the view, which root's first process starts.  Returns the names in input/."""
    for _ in range(count):
        exim.submit(Message())
    exim.queued += count
    use_as_root(exim)
    wait_mounted(exim)
    return sorted(name + end for name in exim.queue() for end in ("-D", "-H"))


def links(pid):
    """{number: what it is} of the descriptors of a process, which closes some meanwhile."""
    found = {}
    for number in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):
            found[int(number)] = os.readlink(f"/proc/{pid}/fd/{number}")
    return found


class Reader(threading.Thread):
    """A program without the library that looks at input/ and at one file all the time."""

    def __init__(self, exim, names):
        super().__init__(daemon=True)
        self.directory, self.names = str(exim.spool / "input"), names
        self.good, self.bad, self.errors, self.ended = 0, [], 0, False

    def look(self):
        found = sorted(os.listdir(self.directory))
        if found != self.names:
            self.bad.append(f"lists {found}")
        os.stat(f"{self.directory}/{self.names[0]}")
        with open(f"{self.directory}/{self.names[0]}", "rb") as file:
            if not file.read():
                self.bad.append("reads an empty file")
        self.good += 1

    def run(self):
        while not self.ended:
            try:
                self.look()
            except OSError as error:
                self.errors += 1
                if error.errno not in GONE:
                    self.bad.append(str(error))

    def wait_good(self):
        """Wait until the reader has seen everything twice from now on.  Returns the seconds that took."""
        before, began = self.good, time.monotonic()
        wait_for(lambda: self.good > before + 1, "the view answers again")
        return time.monotonic() - began

    def end(self):
        self.ended = True
        self.join(60)
        check(not self.is_alive(), "the reader hangs")
        check(not self.bad, f"a reader sees what is not so: {self.bad[:3]}")
        check(self.good > 1, "the reader has seen nothing")


# --- the mounts ---------------------------------------------------------------------------------------------------

@test(**AUTO)
def mounted_at_start(exim):
    """Root's first process has the view mounted; all see the queue; nothing can be executed there, nor a device opened."""
    names = fill(exim)
    check(over(exim).count("input") == 1 and over(exim).count("msglog") == 1, f"mounted over {over(exim)}")
    for line in pathlib.Path("/proc/self/mountinfo").read_text().splitlines():
        if " - fuse.fastspool " in line:
            check({"nosuid", "nodev", "noexec"} <= set(line.split()[5].split(",")), f"mount options: {line}")
            check("default_permissions" in line and "allow_other" in line, f"mount options: {line}")
    check(sorted(os.listdir(exim.spool / "input")) == names, "a program without the library sees other files")
    count = exim.run("-bpc", stock=True)
    check(int(count) == len(names) / 2, f"Exim without the library counts {count}")
    text = said(exim, "status")[1]
    check("mounted over input, msglog" in text or "mounted over msglog, input" in text, text)


@test(**QUEUES)
def options(exim):
    """No set-ID bit, no device, no program and no symbolic link counts in the view, wherever it is mounted."""
    fill(exim, 1)
    exim.submit(Message(sender="fast@sink.test"))
    wait_mounted(exim, "input", "msglog", "fast/input")
    lines = [line.split() for line in open("/proc/self/mountinfo") if " - fuse.fastspool " in line and f" {exim.spool}/" in line]
    check(len(lines) >= 3, f"{len(lines)} mounts")
    for fields in lines:
        missing = {"nosuid", "nodev", "noexec", "nosymfollow"} - set(fields[5].split(","))
        check(not missing, f"{fields[4]} is mounted without {missing}")
    program = exim.spool / "input" / "program"
    shutil.copy("/usr/bin/true", program)
    program.chmod(0o4755)
    try:
        check(subprocess.run([program]).returncode is None, "a program of the view runs")
    except PermissionError:
        pass
    program.unlink()


@test(**AUTO)
def one_view(exim):
    """A second supervisor ends at once; many processes of root's at the same time start one."""
    fill(exim, 1)
    exim.tool("stop")
    check(not over(exim), f"still mounted over {over(exim)}")
    many = [subprocess.Popen([EXIM, "-be", "${if exists{%s/input}{}{}}" % exim.spool], env=exim.environment(),
                             stdout=subprocess.DEVNULL) for _ in range(8)]
    check(not any(process.wait(30) for process in many), "an Exim failed")
    wait_mounted(exim)
    second = exim.command("view", exim.spool, program="/usr/bin/fastspool", stock=True)
    check(second.returncode == 75, f"the second view ends with {second.returncode}")
    # Others may have been started, and end just now.
    wait_for(lambda: len([pid for pid, _ in processes() if "view" in words_of(pid)]) == 3, "supervisor, server and hand run alone")


@test(**AUTO)
def no_process_can_be_made(exim):
    """Where no process can be made the view says so, and not that the view of another state is mounted (EAGAIN is EWOULDBLOCK)."""
    fill(exim, 1)
    exim.tool("stop")
    forks = "clone,clone3,fork,vfork"
    view = subprocess.run(["strace", "-o", "/dev/null", "-e", f"trace={forks}", "-e", f"inject={forks}:error=EAGAIN", "fastspool", "view",
                           exim.spool], capture_output=True, timeout=60)
    check(view.returncode == 69 and b"Resource temporarily unavailable" in view.stderr and b"another" not in view.stderr, f"{view}")


LATE_MOUNT = """
#include <fcntl.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>
static void note(const char *file)
{
    close(open(file, O_CREAT, 0600));
}
int move_mount(int from, const char *from_path, int to, const char *to_path, unsigned flags)
{
    static int calls; /* the supervisor's one, and the hand's */
    if (++calls == 3) {
        note(WORK "/mounting");
        for (int i = 0; i < 5000 && access(WORK "/unmounted", F_OK) != 0; i++)
            usleep(1000);
    }
    return syscall(SYS_move_mount, from, from_path, to, to_path, flags);
}
int shutdown(int socket, int how) /* the supervisor has unmounted everything, and tells its server */
{
    note(WORK "/unmounted");
    usleep(300000);
    return syscall(SYS_shutdown, socket, how);
}
"""


@test(**AUTO)
def ended_while_it_mounts(exim):
    """The view is told to end while its hand mounts the second directory: it ends with nothing mounted."""
    fill(exim, 1)
    exim.tool("stop")
    (exim.work / "late.c").write_text(LATE_MOUNT)
    subprocess.run(["cc", "-w", "-D_GNU_SOURCE", f'-DWORK="{exim.work}"', "-shared", "-fPIC", "-o", exim.work / "late.so",
                    exim.work / "late.c"], check=True)
    view = subprocess.Popen(["fastspool", "view", exim.spool], env={**os.environ, "LD_PRELOAD": f"{exim.work}/late.so"})
    wait_for((exim.work / "mounting").exists, "the hand mounts")
    check(len(over(exim)) == 1, f"mounted over {over(exim)}")
    view.terminate()
    check(view.wait(60) == 0 and not over(exim), f"status {view.returncode}, still mounted over {over(exim)}")


SLOW_START = """
#include <fcntl.h>
#include <string.h>
#include <unistd.h>
__attribute__((constructor)) static void start(void)
{
    char words[64] = "";
    int fd = open("/proc/self/cmdline", O_RDONLY);
    read(fd, words, sizeof(words) - 1);
    close(fd);
    if (strcmp(words, "fastspool") == 0 && strcmp(words + 10, "view") == 0)
        usleep(700000);
}
"""


@test(**AUTO)
def stopped_while_it_starts(exim):
    """A view that was started just now, and has no lock yet, is ended by `fastspool stop`, too."""
    source, library, preload = exim.work / "slow.c", exim.work / "slow.so", pathlib.Path("/etc/ld.so.preload")
    source.write_text(SLOW_START)
    subprocess.run(["cc", "-w", "-shared", "-fPIC", "-o", library, source], check=True)
    fill(exim, 1)
    exim.tool("stop")

    def running():
        return [words_of(pid) for pid, _ in processes() if "view" in words_of(pid)]
    check(not running(), f"{running()}")
    preload.write_text(f"{library}\n")
    try:
        use_as_root(exim)
        wait_for(running, "the view is started")   # its process is a child of Exim's before
        exim.tool("stop")
        check(not running() and not over(exim), f"left: {running()}, mounted over {over(exim)}")
    finally:
        preload.unlink()


@test(**AUTO)
def few_descriptors(exim):
    """A limit of 1,024 descriptors that root may not lift, as in a container: the view opens files all the same."""
    names = fill(exim)
    exim.tool("stop")
    exim.command("--nofile=1024:1024", "setpriv", "--bounding-set=-sys_resource", "--inh-caps=-sys_resource", TOOL, "run", "--", "true",
                 program="prlimit", stock=True)
    wait_mounted(exim)
    files = [open(exim.spool / "input" / name, "rb") for name in names for _ in range(40)]
    check(len(files) > 200 and all(file.read(1) for file in files), "a file can't be read")
    for file in files:
        file.close()


@test(**AUTO)
def descriptors(exim):
    """The server has no descriptor but its own; nothing of the view keeps the lock or the device open for others."""
    fill(exim, 1)
    keeper, answers = supervisor(exim), server(exim)
    for pid in children(keeper):
        opened = set(links(pid).values())
        check(not any("view.lock" in name for name in opened), f"a child holds the lock: {opened}")
        check(pid == answers or "/dev/fuse" not in opened, f"the hand holds the device: {opened}")
        check(pid != answers or not any("mnt:" in name for name in opened), f"the server holds a namespace: {opened}")
    status = pathlib.Path(f"/proc/{answers}/status").read_text()
    check("CapEff:\t0000000000000000" in status, "the server has capabilities")
    check("Groups:\t%d \n" % exim.spool.stat().st_gid in status, "the server has other groups")
    for number in range(3):
        check(links(answers)[number] == "/dev/null", f"the server has descriptor {number} of who started it")
    check(os.getsid(answers) == answers, "the server is in the session of who started it")
    check(not pathlib.Path(f"/proc/{answers}/environ").read_bytes().strip(b"\0"), "the server has an environment")
    mounts = pathlib.Path(f"/proc/{answers}/mountinfo").read_text()
    check("fuse.fastspool" not in mounts, "the server sees a view")


@test(**AUTO)
def seen_by_slaves(exim):
    """Another mount namespace that follows this one (as those of systemd's services do) sees the view, and each next one."""
    subprocess.run(["mount", "--make-shared", "/srv"], check=True)
    other = subprocess.Popen(["unshare", "--mount", "--propagation", "slave", "sleep", "300"])
    try:
        names = fill(exim, 1)
        for _ in range(2):
            wait_for(lambda: listing(f"/proc/{other.pid}/root{exim.spool}/input") == names,
                     "the other namespace sees the queue")
            kill_server(exim)
            server(exim)
            wait_mounted(exim)
        exim.tool("stop")
        check("fuse.fastspool" not in pathlib.Path(f"/proc/{other.pid}/mountinfo").read_text(), "still mounted there")
    finally:
        other.kill()
        other.wait()
        subprocess.run(["mount", "--make-private", "/srv"], check=True)


@test(**AUTO)
def started_in_a_sandbox(exim):
    """A root process with private mounts starts the view: it is mounted where everybody is, and there alone."""
    exim.submit(Message())
    exim.queued = 1
    subprocess.run(["unshare", "--mount", "env", f"LD_PRELOAD={LIBRARY}", EXIM, "-be", "${if exists{%s/input}{}{}}" % exim.spool],
                   env=exim.environment(stock=True), check=True, stdout=subprocess.DEVNULL)
    wait_mounted(exim)
    check(len(os.listdir(exim.spool / "input")) == 2, "the queue is not seen")


@test(**AUTO)
def service_in_a_sandbox(exim):
    """A service to which the spool is read-only mounts no view, and says which file it could not open, and what its unit lacks."""
    exim.submit(Message())
    exim.queued = 1
    script = f"mount --bind {exim.spool} {exim.spool}; mount -o remount,bind,ro {exim.spool}; exec {TOOL} view --replace {exim.spool}"
    result = subprocess.run(["unshare", "--mount", "sh", "-ec", script], env=exim.environment(stock=True), capture_output=True, text=True)
    check(result.returncode == 1 and f"{exim.spool}/.fastspool/view.lock" in result.stderr and "Read-only file system" in result.stderr and
          f"`ReadWritePaths={exim.spool}`" in result.stderr, f"{result}")


@test(**AUTO)
def replaced_in_a_sandbox(exim):
    """A view of a sandbox with a mount of /usr of its own is ended by `stop`, also after an upgrade has replaced its file."""
    exim.submit(Message())
    exim.queued = 1
    exim.tool("stop")                                # the submission may have started one outside
    subprocess.run(["unshare", "--mount", "sh", "-ec", "mount --bind /usr /usr; exec \"$@\"", "sh", "env", f"LD_PRELOAD={LIBRARY}",
                    EXIM, "-be", "${if exists{%s/input}{}{}}" % exim.spool],
                   env=exim.environment(stock=True), check=True, stdout=subprocess.DEVNULL)
    wait_mounted(exim)
    view = supervisor(exim)
    shutil.copy2(TOOL, f"{TOOL}.new")
    os.rename(f"{TOOL}.new", TOOL)
    check(os.readlink(f"/proc/{view}/exe") == "/bin/fastspool (deleted)", f"the view runs {os.readlink(f'/proc/{view}/exe')}")
    exim.tool("stop")
    wait_for(lambda: not os.path.exists(f"/proc/{view}"), "the view has ended")


@test(**AUTO)
def unmounted_by_hand(exim):
    """What somebody unmounts is mounted again; until then the library alone serves the queue."""
    names = fill(exim)
    for _ in range(2):
        subprocess.run(["umount", "--lazy", exim.spool / "input"], check=True)
        wait_for(lambda: "input" in over(exim), "input is mounted again")
        check(sorted(os.listdir(exim.spool / "input")) == names, "other files than before")


@test(**AUTO)
def written_below(exim):
    """What was written on the disk while the view was unmounted by hand is imported."""
    names = fill(exim)
    keeper = supervisor(exim)
    suspend(keeper)
    subprocess.run(["umount", "--lazy", exim.spool / "input"], check=True)
    (exim.spool / "input" / "new").write_text("written")
    os.chown(exim.spool / "input" / "new", *exim.spool.stat()[4:6])
    os.kill(keeper, signal.SIGCONT)
    wait_for(lambda: listing(exim.spool / "input") == [*names, "new"], "the new file is in the view")
    (exim.spool / "input" / "new").unlink()


def mounts_beside(exim, options=""):
    """The view is mounted although a user has mounts of the same type, one below the other, which nobody serves."""
    exim.submit(Message())
    exim.queued = 1
    place = exim.work / "below" / "place"
    place.mkdir(parents=True)
    devices = [os.open("/dev/fuse", os.O_RDWR) for _ in range(2)]
    for device, where, kind in zip(devices, (place, place.parent), ("fuse.fastspool", "fuse.other")):
        subprocess.run(["mount", "-i", "-t", kind, "-o", f"fd={device},rootmode=40755,user_id=65534,group_id=65534{options}", kind, where],
                       check=True, pass_fds=[device])
    try:
        use_as_root(exim)
        wait_mounted(exim)
    finally:
        subprocess.run(["umount", "--lazy", place.parent], check=True)
        subprocess.run(["umount", "--lazy", place], check=True)
        for device in devices:
            os.close(device)


@test(**AUTO)
def hidden_mount(exim):
    """A user's own mounts of the same type, where root can't reach them, keep no view away."""
    mounts_beside(exim)


@test(**AUTO)
def hanging_mount(exim):
    """Nor where root would wait for the user's server (user_allow_other)."""
    mounts_beside(exim, ",allow_other")


# --- users --------------------------------------------------------------------------------------------------------

def as_member(exim, script, *arguments, **options):
    """A python program of an ordinary user who is a member of the mail group."""
    return subprocess.Popen(["/usr/bin/python3", "-c", script, *map(str, arguments)], user=USER, group=USER, text=True,
                            extra_groups=[exim.spool.stat().st_gid], stdout=subprocess.PIPE, **options)


@test(**AUTO)
def share_of_a_user(exim):
    """A user who may read the queue can't take all open files, nor all locks: others go on."""
    names = fill(exim, 1)
    path = exim.spool / "input" / names[0]
    script = """if 1:
        import fcntl, os, resource, sys, time
        resource.setrlimit(resource.RLIMIT_NOFILE, (5000, 5000))
        file, locks, files = os.open(sys.argv[1], os.O_RDONLY), 0, 1
        for _ in range(2100):
            read, write = os.pipe()
            if os.fork() == 0:
                try: fcntl.lockf(file, fcntl.LOCK_SH | fcntl.LOCK_NB); os.write(write, b"x"); time.sleep(1000)
                finally: os._exit(1)
            os.close(write)
            locks += len(os.read(read, 1))
            os.close(read)
        print(locks, flush=True)
        try:
            while files < 4500: os.open(sys.argv[1], os.O_RDONLY); files += 1
        except OSError as error: print(files, error.errno, flush=True)
        time.sleep(1000)"""
    hog = as_member(exim, script, path, start_new_session=True)
    try:
        locks = int(hog.stdout.readline())
        check(0 < locks < 2100, f"a user has {locks} locks")
        count, error = map(int, hog.stdout.readline().split())
        check(count < 4000 and error == errno.ENFILE, f"a user has {count} files open, then {errno.errorcode[error]}")
        check(path.read_bytes(), "root can't open a file")
        subprocess.run(["flock", "-s", path, "true"], check=True)
    finally:
        os.killpg(hog.pid, signal.SIGKILL)
        hog.wait()
    wait_for(lambda: as_member(exim, "import sys; print(len(open(sys.argv[1], 'rb').read()))", path).communicate()[0],
             "the user may open files again")


@test(**AUTO)
def waits_of_a_user(exim):
    """Each lock that a user waits for is one of his: he can't make the server try any number of them again and again."""
    names = fill(exim, 1)
    path = exim.spool / "input" / names[0]
    script = """if 1:
        import fcntl, os, sys, threading, time
        file, refused = os.open(sys.argv[1], os.O_RDONLY), []
        def wait():
            try: fcntl.lockf(file, fcntl.LOCK_SH, 1, 100)
            except OSError as error: refused.append(error.errno)
        threading.stack_size(65536)
        for _ in range(2100): threading.Thread(target=wait, daemon=True).start()
        for _ in range(600): refused or time.sleep(0.1)
        print(len(refused), refused[:1], flush=True)
        time.sleep(1000)"""
    with open(path, "r+b") as file:
        fcntl.lockf(file, fcntl.LOCK_EX, 1, 100)
        hog = as_member(exim, script, path)
        try:
            count, errors = hog.stdout.readline().split(maxsplit=1)
            check(0 < int(count) < 2100 and errors.strip() == f"[{errno.ENOLCK}]", f"{count} of 2100 are refused: {errors}")
            fcntl.lockf(file, fcntl.LOCK_EX, 1, 200)
        finally:
            hog.kill()
            hog.wait()


@test(**AUTO)
def group_of_a_user(exim):
    """Root's process in a control group that a user may freeze (Exim delivers so what his sendmail took) does not attach."""
    names = fill(exim, 1)
    program = exim.work / "tail"
    shutil.copy("/usr/bin/tail", program)
    exim.fastspool_configuration("view = auto", f"program = {program}")

    def attaches():
        process = subprocess.Popen([program, "-f", exim.spool / "input" / names[0]], env=exim.environment(), stdout=subprocess.PIPE)
        process.stdout.readline()
        mapped = "/fastspool." in pathlib.Path(f"/proc/{process.pid}/maps").read_text()
        process.kill()
        process.communicate()
        return mapped
    check(attaches(), "a process in root's group does not attach: the test can't fail")
    subprocess.run(["mount", "-t", "tmpfs", "cgroup", "/sys/fs/cgroup"], check=True)
    try:
        group = next(line.split(":", 2)[2].strip() for line in open("/proc/self/cgroup") if line.startswith("0::"))
        directory = pathlib.Path("/sys/fs/cgroup/unified" + group)
        directory.mkdir(parents=True)
        shutil.chown(directory, USER)
        check(not attaches(), "a process in a user's group attaches")
    finally:
        subprocess.run(["umount", "--lazy", "/sys/fs/cgroup"], check=True)


class DeepGroup:
    """A control group whose path is longer than PATH_MAX: any user to whom a group is delegated can make one."""

    def __enter__(self):
        self.made, root = [], pathlib.Path("/sys/fs/cgroup/unified")
        root = root if root.is_dir() else pathlib.Path("/sys/fs/cgroup")
        if not (root / "cgroup.procs").exists():
            raise Skip("no control groups are mounted")
        self.name = f"{time.monotonic_ns():d<250}"      # control groups are the whole machine's
        last = os.open(root, os.O_RDONLY)
        try:
            for _ in range(18):
                os.mkdir(self.name, dir_fd=last)
                self.made.append(last)
                last = os.open(self.name, os.O_RDONLY, dir_fd=last)
            self.join = os.open("cgroup.procs", os.O_WRONLY, dir_fd=last)
        except OSError as error:
            self.__exit__()
            raise Skip(f"no deep group can be made: {error}") from error
        return self

    def __exit__(self, *_):
        for above in reversed(self.made):
            wait_for(lambda: self.removed(above), "the group is empty")

    def removed(self, above):
        try:
            os.rmdir(self.name, dir_fd=above)
        except OSError as error:
            return error.errno != errno.EBUSY
        return True


@test(**AUTO)
def deep_group(exim):
    """A control group whose directory has too long a path to look at counts as a user's."""
    names = fill(exim, 1)
    program = exim.work / "tail"
    shutil.copy("/usr/bin/tail", program)
    exim.fastspool_configuration("view = auto", f"program = {program}")
    with DeepGroup() as group:
        process = subprocess.Popen([program, "-f", exim.spool / "input" / names[0]], env=exim.environment(), stdout=subprocess.PIPE,
                                   preexec_fn=lambda: os.write(group.join, b"0"))
        process.stdout.readline()
        mapped = "/fastspool." in pathlib.Path(f"/proc/{process.pid}/maps").read_text()
        process.kill()
        process.communicate()
        check(not mapped, "a process in a group that can't be looked at attaches")


@test(**AUTO)
def former_owner(exim):
    """Who has a file open that was his has no right to it when a process with the library gives it to somebody else."""
    fill(exim, 1)
    path = exim.spool / "input" / "his"
    path.write_text("his")
    shutil.chown(path, USER)
    changer = as_member(exim, """if 1:
        import os, sys
        file = os.open(sys.argv[1], os.O_RDWR)
        print("open", flush=True)
        sys.stdin.readline()
        try: os.fchmod(file, 0o666)
        except OSError as error: print(error.errno)""", path, stdin=subprocess.PIPE)
    changer.stdout.readline()
    program = exim.work / "chown"
    shutil.copy("/usr/bin/chown", program)
    exim.fastspool_configuration("view = auto", f"program = {program}")
    exim.command("root", path, program=program)
    said = changer.communicate("\n")[0]         # a stat before that would tell the kernel of the new owner
    check(path.stat().st_uid == 0, "the library did not change the owner")
    check(said.strip() == str(errno.EPERM) and path.stat().st_mode & 0o777 != 0o666, f"the former owner sees {said!r}")
    path.unlink()


# --- death --------------------------------------------------------------------------------------------------------

@test(**AUTO)
def server_killed(exim):
    """kill -9 of the server: errors, never an empty directory, and all is back within seconds, each time."""
    reader = Reader(exim, fill(exim))
    reader.start()
    times = []
    for _ in range(4):
        reader.wait_good()
        kill_server(exim)
        times.append(reader.wait_good())
    reader.end()
    check(times[0] < 8, f"mounted again after {times} s")      # the longest pause before a start
    check(reader.errors, "no death was seen: the test can't fail")
    wait_for(lambda: over(exim).count("input") == 2, "there are two layers over input")


def remover(exim, names, called="exim4"):
    """A process that gives a -H file a new version, and then removes what it reads the names of."""
    process = subprocess.Popen(["/usr/bin/python3", "-c", """if 1:
        import os, sys
        open("/proc/self/comm", "w").write(sys.argv[3])
        os.chdir(sys.argv[1])
        os.rename(sys.argv[2], "hdr.new")
        os.rename("hdr.new", sys.argv[2])
        print("ready", flush=True)
        for name in map(str.strip, sys.stdin):
            try: os.unlink(sys.argv[1] + "/" + name); print("removed", flush=True)
            except OSError as error: print(error.errno, flush=True)""", exim.spool / "input", names[1], called],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)
    check(process.stdout.readline() == "ready\n", "no new version")

    def remove(name):
        process.stdin.write(name + "\n")
        return process.stdout.readline().strip()
    return process, remove


@test(**AUTO)
def removal_after_a_death(exim):
    """The view dies between Exim's rename of a -H file and the sync of its directory.  Exim removes the file then, which
    would lose an accepted message: it stays.  Who starts with the new server, or does something else first, may remove."""
    names = fill(exim, 3)
    process, remove = remover(exim, names)
    other, remove_other = remover(exim, names)
    tool, remove_by_tool = remover(exim, names, "rsync")
    kill_server(exim)
    server(exim)
    wait_mounted(exim)
    refused = [remove(names[1]), remove(names[0])]
    check(refused == [str(errno.EAGAIN)] * 2, f"an older process: {refused}")
    check({names[0], names[1]} <= set(os.listdir(exim.spool / "input")), "the message is lost")
    (exim.spool / "input" / "log").touch()
    check([remove_other(name) for name in ("log", *names[:2])] == ["removed"] * 3, "an older process that removes a log first")
    younger, remove = remover(exim, names[2:])
    check([remove(name) for name in names[2:4]] == ["removed"] * 2, "a younger process")
    check([remove_by_tool(name) for name in names[4:]] == ["removed"] * 2, "an older process that is no Exim")
    for each in (process, other, tool, younger):
        each.communicate()
    exim.queued = 0


@test(**AUTO)
def hand_killed(exim):
    """kill -9 of the supervisor's helper: as a death of the server."""
    reader = Reader(exim, fill(exim))
    reader.start()
    hand = next(pid for pid in children(supervisor(exim)) if pid != server(exim))
    kill(hand)
    wait_for(lambda: not runs(hand), "the hand is gone")
    reader.wait_good()
    reader.end()


@test(**AUTO)
def supervisor_killed(exim):
    """kill -9 of the supervisor ends the server, too.  The next process of root's has the view mounted again."""
    reader = Reader(exim, fill(exim))
    reader.start()
    for _ in range(3):
        reader.wait_good()
        both = [supervisor(exim), *children(supervisor(exim))]
        kill(both[0])
        wait_for(lambda: not set(both) & {pid for pid, _ in processes()}, "all of them are gone")
        good = reader.good
        time.sleep(0.5)
        check(reader.good <= good + 1, "a view without a server answers")
        check(state(exim).startswith("dead"), f"status says {state(exim)}")
        time.sleep(2)                   # one start every two seconds
        use_as_root(exim)
        wait_mounted(exim)
        reader.wait_good()
    reader.end()
    wait_for(lambda: over(exim).count("input") == 2, "there are two layers over input")


@test(("_removed", {}), ("_failed", {}), **AUTO)
def store_gone(exim):
    """The store's segment is removed, or is damaged: the server ends by itself, and the next one has a new store."""
    reader = Reader(exim, fill(exim))
    exim.tool("flush")
    before = server(exim)
    mirror = exim.status()["mirror_pid"]
    runtime = pathlib.Path((exim.spool / ".fastspool/runtime").read_text().split("\n")[0])
    if exim.work.name.endswith("_failed"):
        with open(runtime / "segment", "r+b") as segment:
            segment.seek(12)
            segment.write(b"\3\0\0\0")     # header.state: SEGMENT_FAILED
        wait_for(lambda: not runs(mirror), "the mirror ends")
        wait_for(lambda: not runs(before), "the server ends")
        said = exim.status()["view"]
        check(said in ("not available: the store has failed", "dead, over input, msglog"), f"the view is {said}")
    kill(mirror)
    (runtime / "segment").unlink()
    wait_for(lambda: not runs(before), "the server ends")
    for _ in range(20):
        count = exim.run("-bpc").strip()
        check(count == b"3", f"Exim with the library counts {count}")
    reader.start()
    reader.wait_good()
    reader.end()
    wait_mounted(exim)


@test(("_service", {}), ("_by_hand", {}), **AUTO)
def store_damaged(exim):
    """Where the database can't be read, a view's servers end.  As a service the view ends, too, so that nothing waits for it
    until the service manager's patience does, which is ten minutes; by hand it waits for the mend."""
    fill(exim)
    exim.tool("stop")
    exim.tool("compact")
    database = exim.spool / ".fastspool/mirror/data.mdb"
    good = database.read_bytes()
    database.write_bytes(b"x" * len(good))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(exim.work / "notify"))
        service = exim.work.name.endswith("_service")
        view = subprocess.Popen([TOOL, "view", exim.spool], cwd="/", stdin=subprocess.DEVNULL,
                                env={**exim.environment(stock=True), **({"NOTIFY_SOCKET": str(exim.work / "notify")} if service else {})})
        if service:
            check(view.wait(90) == 1, f"exit status {view.returncode}")
            manager.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                check(b"READY" not in manager.recv(100), "it says that it is ready")
        else:
            with contextlib.suppress(subprocess.TimeoutExpired):
                check(False, f"it ends with {view.wait(25)}")
            view.terminate()
            check(view.wait(20) == 0, f"exit status {view.returncode}")
    database.write_bytes(good)
    shutil.rmtree((exim.spool / ".fastspool/runtime").read_text().split("\n")[0])
    use_as_root(exim)
    wait_mounted(exim)


@test(**AUTO)
def store_made_again(exim):
    """The file that names the store is removed by hand, and a process makes another store: the view is that one's."""
    names = fill(exim)
    exim.tool("flush")
    before = server(exim)
    kill(exim.status()["mirror_pid"])
    (exim.spool / ".fastspool/runtime").unlink()
    exim.submit(Message())
    exim.queued += 1
    wait_for(lambda: not runs(before), "the server ends")
    wait_for(lambda: len(listing(exim.spool / "input") or ()) == len(names) + 2, "the view shows the new message")


@test(**AUTO)
def memory_gone_below_a_dead_view(exim):
    """All are killed and the memory is gone, but the dead view is still there: a new store takes no look at the disk."""
    for _ in range(5):
        exim.submit(exim.expect(Message(), "sink"))
    use_as_root(exim)
    wait_mounted(exim)
    exim.tool("flush")
    kill_all()
    forget_memory()
    # No process of root's attaches, so no view is mounted: the owner's Exim meets the dead one.
    exim.fastspool_configuration("view = off")
    for _ in range(2):
        count = exim.run("-bpc")
        check(int(count) == 5, f"counts {count}")
    exim.deliver_queue()


@test(**AUTO)
def server_stopped(exim):
    """A server that is stopped is killed after some seconds; its callers get an error then, and all is well again."""
    reader = Reader(exim, fill(exim))
    reader.start()
    reader.wait_good()
    suspend(server(exim))
    waited = reader.wait_good()
    reader.end()
    check(1 < waited < 20, f"it took {waited:.1f} s")      # of five before a server that doesn't answer is killed
    check(reader.errors, "no call failed")


@test(**AUTO)
def all_stopped(exim):
    """Where all of the view's processes were stopped for longer than a server may be silent, `kill -CONT` of the supervisor lets all
    go on, and no server is killed for a silence that was the supervisor's own."""
    log, names = Log(), fill(exim)
    keeper, answers = supervisor(exim), server(exim)
    stopped = [keeper, *children(keeper)]
    hand = next(pid for pid in stopped if pid not in (keeper, answers))
    suspend(answers)
    wait_for(lambda: sleeps_in(hand, "request_wait_answer"), "the server owes an answer")
    suspend(keeper)
    os.kill(hand, signal.SIGSTOP)               # when it has its answer
    time.sleep(6)
    os.kill(keeper, signal.SIGCONT)
    check(listing(exim.spool / "input") == names, "the view shows something else")
    time.sleep(2)                               # two ticks
    check([keeper, *children(keeper)] == stopped and not log.lines("does not answer"), f"{log.lines()}")


@test(**AUTO)
def library_does_not_notice(exim):
    """Exim with the library takes and lists mail while the view is dead and while it hangs."""
    fill(exim, 1)
    keeper, answers = supervisor(exim), server(exim)
    suspend(keeper)                             # else it kills the server: who waits for the view would go on
    suspend(answers)
    exim.submit(Message())
    exim.queued += 1
    check(len(exim.queue()) == 2, "the queue has lost a message")
    kill(keeper)
    exim.submit(Message())
    exim.queued += 1
    check(len(exim.queue()) == 3, "the queue has lost a message")


# --- what is said -------------------------------------------------------------------------------------------------

@test(**AUTO)
def status_of_what_is_left(exim):
    """What the import can't take is hidden by the view: `fastspool status` says how much, and that all is not well."""
    log = Log()
    fill(exim, 1)
    exim.start()
    check(exim.tool("status").startswith(f"{exim.spool}: all is well\n") and "on the disk" not in exim.tool("status"),
          exim.tool("status"))
    exim.stop()
    exim.tool("stop")
    (name,) = exim.run("-bpr", stock=False).decode().split()[2:3]
    (exim.spool / "input/link").symlink_to("/etc/passwd")
    (exim.spool / f"input/{name}-D").write_bytes(b"another\n")
    shutil.chown(exim.spool / f"input/{name}-D", "Debian-exim", "Debian-exim")
    use_as_root(exim)
    wait_mounted(exim)
    exim.start()
    result = wait_for(lambda: (told := exim.command("status", program="/usr/bin/fastspool")).returncode and told, "all is not well")
    lines = result.stdout.decode().splitlines()
    check(result.returncode == 2, f"exit status {result.returncode}")
    check(lines[0].startswith(f"{exim.spool}: the view hides 1 message of the disk; `mount --bind {exim.spool} /mnt`"), lines[0])
    check(lines[-1] == "  on the disk  1 of which the store has others, 1 that can't be taken: hidden by the view", lines[-1])
    numbers = json.loads(exim.command("status", "--json", program="/usr/bin/fastspool").stdout)
    check([numbers[f"disk_{key}"] for key in ("locked", "conflicts", "left", "hidden")] == [0, 1, 1, 2], numbers)
    stays = log.lines("stays on the disk")
    check(len(stays) == 2 and all(line.startswith(f"{exim.spool}: view: input/") for line in stays), stays)
    check(all(line.startswith(f"{exim.spool}: ") and line.count(str(exim.spool)) == 1 for line in log.lines()), log.lines())
    exim.stop()
    exim.tool("stop")
    (exim.spool / "input/link").unlink()
    (exim.spool / f"input/{name}-D").unlink()


@test(**AUTO)
def closed_directories(exim):
    """A directory of the disk, below a view, has lost its mode, or is root's: the command that syslog says mends it, and the next
    look imports what is there.  So does that which `fastspool import` says.  It gives nothing away that a link there leads to, or
    one on the way there."""
    place, away, roots = exim.spool / "input", exim.spool / "away", exim.work / "roots"
    (roots / "8").mkdir(parents=True)
    spoils = ((lambda path: path.chmod(0), "chmod u+rwx "), (lambda path: [os.chown(path, 0, 0), path.chmod(0o700)], "chown -R --reference="))
    for closed, (spoil, mend), viewed in itertools.product((place, place / "8"), spoils, (True, False)):
        exim.fastspool_configuration(f"view = {'auto' if viewed else 'off'}")
        message = exim.expect(Message(), "sink")
        exim.run("-oi", "-odq", "-f", message.sender, *message.recipients, input=message.content(), stock=True)
        closed.mkdir(exist_ok=True)
        exim.own(closed)
        spoil(closed)
        log = Log()
        if viewed:
            use_as_root(exim)
            wait_for(lambda: "input" in over(exim), "the directory is below a view")
            said = wait_for(lambda: log.lines(f"{closed.relative_to(exim.spool)} stays on the disk"), "the directory is told of")[0]
        else:
            said = exim.command("import", program=TOOL).stderr.decode()
        log.close()
        check(mend in said, said)
        command = re.search("as root, run `([^`]*)`", said)[1]
        if not viewed:
            place.rename(away)
            place.symlink_to(roots)
            subprocess.run(command, shell=True, check=True)
            check(roots.stat().st_uid == 0 and (roots / "8").stat().st_uid == 0, "a directory of root's is given away")
            place.unlink()
            away.rename(place)
        subprocess.run(command, shell=True, check=True)
        exim.tool("stop")
        use_as_root(exim) if viewed else exim.tool("import")
        exim.deliver_queue()
        exim.tool("stop")


@test(**AUTO)
def run_of_programs(exim):
    """`fastspool run`: what the configuration names gets the library and nothing is said; all others run as they are."""
    fill(exim, 1)
    (name,) = exim.queue()
    (exim.work / "fast/input").mkdir(parents=True)
    subprocess.run(["chown", "-R", "Debian-exim:Debian-exim", exim.work / "fast"], check=True)
    (exim.work / "fast").rename(exim.spool / "fast")    # the view takes it as it is at the first sight
    wait_mounted(exim, "fast/input")
    environment = exim.environment(stock=True)
    moved = subprocess.run([EXIM, "-MG", "fast", name], env=environment, capture_output=True)
    exim.panic = "Invalid cross-device link"
    check(name in exim.queue() and b"Invalid cross-device link" in moved.stderr + moved.stdout + exim.log().encode(),
          f"-MG without the library: {moved}")
    for exim4 in ("exim4", EXIM):               # by PATH, and by its path
        listed = subprocess.run(["fastspool", "run", "--", "env"], env=environment, capture_output=True)
        check(b"LD_PRELOAD" not in listed.stdout and not listed.stderr, f"env: {listed}")
        listed = subprocess.run(["fastspool", "run", "--", exim4, "-bpc"], env=environment, capture_output=True)
        check(listed.stdout == b"1\n" and not listed.stderr, f"{exim4}: {listed}")
    moved = subprocess.run(["fastspool", "run", "--", "exim4", "-MG", "fast", name], env=environment, capture_output=True)
    check(moved.returncode == 0, f"-MG: {moved}")
    check(not exim.queue() and exim.queue("-qGfast") == [name], f"-MG moved nothing: {moved}")
    exim.queued = 0


def kill_view(exim):
    """kill -9 of the supervisor, which takes the others with it.  What is mounted is dead then."""
    both = [supervisor(exim), *children(supervisor(exim))]
    time.sleep(2)                               # one start every two seconds
    kill(both[0])
    wait_for(lambda: not set(both) & {pid for pid, _ in processes()}, "all of them are gone")


def said(exim, *arguments, **keywords):
    """A call of the command: exit status, standard output, standard error."""
    result = exim.command(*arguments, program="/usr/bin/fastspool", stock=True, **keywords)
    return result.returncode, result.stdout.decode(), result.stderr.decode()


@test(**AUTO)
def dead_view(exim):
    """A dead view is no good state: `status` and `doctor` say so, and change nothing; root's flush and run mount it again."""
    names = fill(exim)
    exim.start()
    for again in (("flush",), ("run", "--", "ls", exim.spool / "input")):
        kill_view(exim)
        before, mounts = processes(), pathlib.Path("/proc/self/mountinfo").read_text()
        for look in (("status",), ("status", "--json"), ("status", "--prometheus"), ("doctor",), ("doctor", "--start")):
            code, out, err = said(exim, *look)
            check(look[0] == "doctor" or code == 1, f"root's {look}: {code}, {out}, {err}")
            check("--start" in look or "dead" in out, f"root's {look}: {code}, {out}, {err}")
            check(processes() == before and pathlib.Path("/proc/self/mountinfo").read_text() == mounts, f"{look} changes something")
        owner = said(exim, "status", "--json", user="Debian-exim")
        check(owner[0] == 1 and json.loads(owner[1])["view_state"] == "dead", f"the owner's status: {owner}")
        headline = said(exim, "status", user="Debian-exim")[1].splitlines()[0]
        check("the view is dead: " in headline and "`fastspool run -- true`" in headline, headline)
        code, out, err = said(exim, *again)
        if again[0] == "run":
            check(code == 0 and sorted(out.split()) == names, f"run: {code}, {out}, {err}")
        wait_for(lambda: json.loads(said(exim, "status", "--json", user="Debian-exim")[1])["view_state"] == "mounted",
                 f"{again[0]} mounts it")
        wait_mounted(exim)
        check(sorted(os.listdir(exim.spool / "input")) == names, "other files than before")
    kill_view(exim)
    exim.fastspool_configuration("view = off")
    check("`fastspool stop`" in said(exim, "status")[1], f"with view = off: {said(exim, 'status')}")
    exim.tool("stop")
    check(not over(exim), f"still mounted over {over(exim)}")
    check(state(exim) == "off", f"status says {state(exim)}")


def submit_without_a_view(exim):
    """A message in the store, and no view, but the configuration wants one."""
    exim.fastspool_configuration("view = off")
    exim.submit(Message())
    exim.fastspool_configuration("view = auto")


@test(**AUTO)
def states(exim):
    """What `status` says of the view before the first mount, after `stop`, with `off` in the configuration; and `run` mounts it."""
    def told():
        status = json.loads(said(exim, "status", "--json")[1])
        return status["view_state"], status["view"]
    submit_without_a_view(exim)
    exim.queued = 1
    check(told()[0] == "unmounted" and "mounts it" in told()[1], f"before the first mount: {told()}")
    exim.tool("run", "--", "true")
    wait_for(lambda: told()[0] == "mounted", "`run` mounts it")     # it waits for some seconds itself
    exim.fastspool_configuration("view = off")
    check(told()[0] == "mounted" and "`fastspool stop` unmounts it" in told()[1], f"with off, and mounted: {told()}")
    exim.fastspool_configuration("view = auto")
    stopped = exim.tool("stop")
    check(stopped.startswith("1 message stays in the store: ") and stopped.count("\n") == 1, f"stop says {stopped!r}")
    check(told()[0] == "unmounted", f"after stop: {told()}")
    exim.fastspool_configuration("view = off")
    check(told() == ("off", "off"), f"with off: {told()}")
    exim.fastspool_configuration("view = auto")
    exim.tool("run", "--", "true")


@test(("_view", {}), ("_mirror", {}), **AUTO)
def stop_beside_a_start(exim):
    """Between two looks of `stop` the process that it has ended is followed by another one: it ends, too."""
    fill(exim, 1)
    mirror = exim.work.name.endswith("_mirror")
    field, command = ("mirror_pid", "mirror") if mirror else ("view_pid", "view")
    if mirror:                                  # the view's end would come first
        exim.fastspool_configuration("view = off")
        exim.tool("stop")
        exim.tool("run", "--", "exim4", "-bpc")
    status = exim.status()
    # strace stops the command behind its signal to the view, or in the sleep after its request to the mirror.
    call = "clock_nanosleep" if mirror else "pidfd_send_signal"
    stop = subprocess.Popen(["strace", "-o", "/dev/null", "-e", f"trace={call}", "-e", f"inject={call}:signal=STOP:when=1",
                             "fastspool", "stop", "--spool", str(exim.spool)], stdout=subprocess.DEVNULL)
    wait_for(lambda: status[field] not in [pid for pid, _ in processes()], f"the first {command} ends")
    follower = subprocess.Popen(["fastspool", command, str(exim.spool)], stdin=subprocess.DEVNULL)
    wait_for(lambda: json.loads(said(exim, "status", "--json")[1])[field] == follower.pid, f"another {command} runs")
    if not mirror:
        wait_mounted(exim)
    (stopped,) = children(stop.pid)
    os.kill(stopped, signal.SIGCONT)
    check(stop.wait(90) == 0, f"stop ended with status {stop.returncode}")
    follower.wait(60)
    check(not over(exim), f"still mounted over {over(exim)}")
    exim.tool("run", "--", "true")


@test(**AUTO)
def starting(exim):
    """A view that waits for a message in work is `starting`, and `run` shows the queue meanwhile.  After ten seconds
    `status` warns."""
    submit_without_a_view(exim)
    message = Message()
    exim.run("-oi", "-f", message.sender, *message.recipients, input=message.content(), stock=True)
    exim.queued = 2
    (data,) = (exim.spool / "input").glob("*-D")
    with open(data, "r+b") as file:
        fcntl.lockf(file, fcntl.LOCK_EX)
        began = time.monotonic()
        code, out, err = said(exim, "run", "--", "ls", exim.spool / "input")
        check(code == 0 and len(out.split()) == 4, f"run: {code} {out} {err}")
        check(4 < time.monotonic() - began < 20, f"run has waited for {time.monotonic() - began:.1f} s")
        status = json.loads(said(exim, "status", "--json")[1])
        check(status["view_state"] == "starting" and "`fastspool run -- mailq`" in status["view"], f"status says {status}")
        check(said(exim, "run", "--", "exim4", "-bpc")[1] == "2\n", "run counts other messages")
        exim.start()
        check(said(exim, "status")[0] == 1, "status is content, and mailq counts too few")
        code, out, _ = wait_for(lambda: "longer" in (told := said(exim, "status"))[1] and told, "status says that the view is late")
        check(code == 1 and "the view is not mounted after" in out and "longer than it should" in out, f"status says {out}")
    wait_mounted(exim)


@test(**AUTO)
def refusals(exim):
    """What can't be is said in plain words, with exit status 64 for wrong arguments."""
    fill(exim, 1)
    for command in ("status", "flush", "stop", "verify"):
        check(said(exim, command, "extra")[0] == 64, f"{command} extra: {said(exim, command, 'extra')}")
    check(said(exim, "view", exim.spool, user="Debian-exim") == (1, "", "fastspool: only root can mount: run `fastspool view` as root\n"), "view of a user")
    code, _, err = said(exim, "stop", user="Debian-exim")
    check(code == 1 and "only root can end" in err, f"the owner's stop: {err}")
    check(over(exim), "the owner's stop has unmounted the view")
    for command in ("status", "flush", "verify"):
        code, _, err = said(exim, command, "--spool", "/srv/spol")
        check(code == 1 and "/srv/spol: No such file or directory" in err and err.count("/srv/spol") == 1, f"{command}: {err}")
    without = subprocess.run(["setpriv", "--bounding-set", "-sys_admin", "fastspool", "view", exim.spool], capture_output=True)
    check(without.returncode == 69 and b"CAP_SYS_ADMIN" in without.stderr, f"view without the right: {without}")
    exim.tool("stop")
    forget_memory()
    code, out, err = said(exim, "status")
    check(code == 2 and "is not lost" in err and "`fastspool run -- true`" in err, f"after a reboot: {out}{err}")


@test(**AUTO)
def stop_without_a_store(exim):
    """`fastspool stop` says that there is no store, and ends the view that an earlier one has left."""
    fill(exim, 1)
    exim.tool("flush")
    pid = supervisor(exim)
    suspend(server(exim))                       # else it makes the store again
    forget_memory()
    stopped = exim.command("stop", program="/usr/bin/fastspool")
    check(stopped.returncode == 0 and b"the view of an earlier one, which has ended" in stopped.stdout, stopped)
    wait_for(lambda: not runs(pid), "the supervisor ends")
    check(not over(exim), f"still mounted over {over(exim)}")
    kill_all()                                  # the mirror of the lost store
    exim.queue()


@test(**AUTO)
def stop_of_a_stopped_view_without_a_store(exim):
    """Then no store is there to mount the view anew: `fastspool stop` says what takes away what the killed one has left."""
    fill(exim, 1)
    exim.tool("flush")
    pids = [supervisor(exim), *children(supervisor(exim))]
    for pid in pids:
        suspend(pid)
    forget_memory()
    code, out, err = said(exim, "stop")
    check(code == 1 and "it is killed" in out and "`fastspool run -- true`" in err and over(exim), f"exit {code}: {out}{err}")
    for pid, name in processes():
        if name == "fastspool":
            kill(pid)                           # the mirror of the lost store
    for command in (("run", "--", "true"), ("stop",)):
        code, out, err = said(exim, *command)
        check(code == 0, f"{command}: exit {code}: {out}{err}")
    check(not over(exim), f"still mounted over {over(exim)}")


@test(**AUTO)
def others_do_not_notice(exim):
    """A program that has the library, but nothing to do with the spool, does not wait for a view that hangs."""
    fill(exim, 1)
    keeper, answers = supervisor(exim), server(exim)
    suspend(keeper)                             # it hangs for ever
    suspend(answers)
    subprocess.run(["cat", "/etc/hostname"], env={**os.environ, "LD_PRELOAD": LIBRARY}, stdout=subprocess.DEVNULL, check=True,
                   timeout=60)
    exim.command("run", "--spool", exim.spool, "--", "true", program="/usr/bin/fastspool", stock=True, timeout=60)
    kill(keeper)                                # the harness's own look would wait


@test(**AUTO)
def stop_of_a_server_with_a_child(exim):
    """A process that the server has forked holds the device, and does not answer: `fastspool stop` frees who waits for it."""
    fill(exim, 1)
    answers = server(exim)
    libc = ctypes.CDLL(None, use_errno=True)
    pidfd = os.pidfd_open(answers)
    device, = (number for number, name in links(answers).items() if name == "/dev/fuse")
    held = libc.syscall(438, pidfd, device, 0)          # pidfd_getfd
    check(held >= 0, "the device can't be had")
    child = threading.Thread(target=lambda: os.read(held, 1 << 21), daemon=True)
    suspend(answers)
    child.start()
    waiters = [subprocess.Popen(["stat", exim.spool / "input"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) for _ in range(2)]
    wait_for(lambda: all(waiter.poll() is not None or sleeps_in(waiter.pid, "request_wait_answer") for waiter in waiters),
             "both callers wait")
    wait_for(lambda: not child.is_alive(), "the child has taken a request")
    exim.tool("stop")
    try:
        check(all(waiter.wait(60) for waiter in waiters), "a caller got an answer")
    finally:
        os.close(held)


# --- the end ------------------------------------------------------------------------------------------------------

@test(**AUTO)
def stop_with_somebody_inside(exim):
    """`fastspool stop` unmounts a directory in which somebody works, and has a file open."""
    names = fill(exim)
    inside = subprocess.Popen(["sh", "-c", f"exec 3<{names[0]}; echo; read line; ls; cat <&3"], cwd=exim.spool / "input",
                              stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    inside.stdout.readline()
    exim.tool("stop")
    check(not over(exim), f"still mounted over {over(exim)}")
    wait_for(lambda: not [name for _, name in processes() if name == "fastspool"], "no process is left")
    _, said = inside.communicate(b"\n", timeout=60)
    check(b"not connected" in said or b"aborted" in said or b"Input/output" in said, f"who was inside sees {said}")
    check(state(exim).startswith("not mounted; "), f"status says {state(exim)}")
    check(os.listdir(exim.spool / "input") == [], "files on the disk")
    check(len(exim.queue()) == 3, "the queue has lost a message")
    use_as_root(exim)
    wait_mounted(exim)
    check(sorted(os.listdir(exim.spool / "input")) == names, "other files than before")


@test(**AUTO)
def stop_ends_nobody_else(exim):
    """A process of root's that has locked the file which stands for the view's lock is not ended."""
    fill(exim, 1)
    exim.tool("stop")
    file = exim.spool / "other"
    file.touch()
    other = subprocess.Popen(["/usr/bin/python3", "-c", "import fcntl,sys,time; f=open(sys.argv[1],'r+'); fcntl.lockf(f,fcntl.LOCK_EX); print('x',flush=True); time.sleep(60)",
                              file], stdout=subprocess.PIPE)
    other.stdout.read(1)
    (exim.spool / ".fastspool" / "view.lock").unlink()
    os.link(file, exim.spool / ".fastspool" / "view.lock")
    exim.run("-bpc")
    exim.tool("stop")
    check(other.poll() is None, "fastspool stop ended a process that is no view")
    other.kill()
    other.communicate()
    file.unlink()
    (exim.spool / ".fastspool" / "view.lock").unlink()


@test(**AUTO)
def stop_of_a_hanging_server(exim):
    """`fastspool stop` ends a view whose server is stopped."""
    fill(exim, 1)
    suspend(server(exim))
    began = time.monotonic()
    exim.tool("stop")
    check(time.monotonic() - began < 30, "stop takes long")        # half of its patience
    check(not over(exim), f"still mounted over {over(exim)}")


# --- no view ------------------------------------------------------------------------------------------------------

def works_without(exim, line, *wrapper):
    """Exim under WRAPPER queues a message; nothing is mounted; status says LINE."""
    message, log = Message(), Log()
    look = ["-be", "${if exists{%s/input}{yes}{no}}" % exim.spool]
    for arguments in [["-oi", "-f", message.sender, *message.recipients], look] * 3:
        result = subprocess.run([*wrapper, "env", f"LD_PRELOAD={LIBRARY}", EXIM, *arguments], input=message.content(),
                                env=exim.environment(stock=True), stdout=subprocess.DEVNULL)
        check(result.returncode == 0, f"Exim ends with {result.returncode}")
    exim.queued = 3
    exim.tool("stop")                           # which forgets when the last start was: there is another try
    subprocess.run([*wrapper, "env", f"LD_PRELOAD={LIBRARY}", EXIM, *look], env=exim.environment(stock=True), check=True,
                   stdout=subprocess.DEVNULL)
    wait_for(lambda: state(exim) == line, f"status says `{line}`")
    check(not over(exim), f"mounted over {over(exim)}")
    wait_for(lambda: line in exim.command("status", program=TOOL, stock=True).stdout.decode(), f"status says `{line}`")
    check(int(subprocess.run([*wrapper, "env", f"LD_PRELOAD={LIBRARY}", EXIM, "-bpc"], capture_output=True,
                             env=exim.environment(stock=True)).stdout) == 3, "the queue has lost a message")
    said = log.lines("no view")         # once for each store: `stop` has given back the first one's memory
    check(len(said) == 2 and said[0] == said[1] and str(exim.spool) in said[0], f"syslog has {said}")
    exim.fastspool_configuration()      # for the harness's own look at the queue


@test(**AUTO)
def no_device(exim):
    """No /dev/fuse (here: one that can't be opened)."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(f"{exim.work}/socket")
    works_without(exim, "not available: /dev/fuse: No such device or address", "unshare", "--mount", "sh", "-c",
                  f'mount --bind {exim.work}/socket /dev/fuse && exec "$@"', "sh")
    listener.close()


@test(**AUTO)
def no_right(exim):
    """Root without CAP_SYS_ADMIN, as in a container."""
    works_without(exim, "not available: CAP_SYS_ADMIN: Operation not permitted", "setpriv", "--bounding-set", "-sys_admin")


@test(**AUTO)
def no_mount(exim):
    """The kernel refuses the mount (here: because /dev/fuse is another device)."""
    works_without(exim, "not available: mount: Invalid argument", "unshare", "--mount", "sh", "-c",
                  'mount --bind /dev/null /dev/fuse && exec "$@"', "sh")


@test(**AUTO)
def no_device_any_more(exim):
    """After an unclean end, on a machine that has lost /dev/fuse: the view is not available, and not dead.  A `fastspool view`
    by hand that has not even the right to mount does not change the reason."""
    fill(exim, 1)
    kill_view(exim)
    for _, place in views():
        subprocess.run(["umount", "--lazy", place], check=True)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(f"{exim.work}/socket")
    without = ["unshare", "--mount", "sh", "-c", f'mount --bind {exim.work}/socket /dev/fuse && exec "$@"', "sh"]
    shown = subprocess.run([*without, "fastspool", "run", "--", "ls", exim.spool / "input"], capture_output=True,
                           env=exim.environment(stock=True))
    check(len(shown.stdout.split()) == 2, f"run shows {shown}")
    subprocess.run(["setpriv", "--bounding-set", "-sys_admin", "fastspool", "view", exim.spool], capture_output=True)
    code, out, _ = said(exim, "status", "--json")
    told = json.loads(out)
    check(code == 2 and told["view_state"] == "unavailable" and "/dev/fuse" in told["view"], f"status says {told['view']}")
    listener.close()
    exim.tool("stop")


@test(library=True, main=QUEUE_ONLY)
def off(exim):
    """`view = off`: nothing is mounted, and nothing tries."""
    exim.submit(Message())
    exim.queued = 1
    time.sleep(1)
    check(not over(exim), f"mounted over {over(exim)}")
    check(state(exim) == "off", f"status says {state(exim)}")


@test(**AUTO)
def not_by_a_user(exim):
    """An ordinary user's sendmail does not start the view: it would live in the user's namespace and limits."""
    exim.submit(Message(), user="nobody")
    exim.queued, exim.real = 1, exim.real_files()
    time.sleep(1)
    check(not over(exim), f"mounted over {over(exim)}")
    exim.fastspool_configuration()


# --- directories --------------------------------------------------------------------------------------------------


@test(**QUEUES)
def queue_by_library(exim):
    """A named queue that a process with the library makes is mounted soon after."""
    fill(exim, 1)
    exim.submit(Message(sender="fast@sink.test"))
    wait_mounted(exim, "fast/input")
    check(int(exim.run("-qGfast", "-bpc", stock=True)) == 1, "Exim without the library sees no message")


@test(**{**AUTO, "fastspool": ("view = auto", "program = /usr/bin/python3", f"program = {EXIM}")})
def queue_at_once(exim):
    """A directory that a process with the library makes is made once, and is mounted at once: not at the next second."""
    fill(exim, 1)
    maker = """import os, sys, time
for n in range(41):
    os.mkdir(f"{sys.argv[1]}/q{n}")
    made = time.monotonic()
    os.mkdir(f"{sys.argv[1]}/q{n}/input")
    place = f" {sys.argv[1]}/q{n}/input "
    while place not in open("/proc/self/mountinfo").read():
        pass
    print(time.monotonic() - made)
    time.sleep(0.07)
"""
    times = sorted(map(float, exim.run("-c", maker, str(exim.spool), program="/usr/bin/python3").split()))
    check(len(times) == 41, f"{len(times)} directories")
    print(f"  mounted after {times[20] * 1000:.1f} ms, at most {times[-1] * 1000:.1f} ms")
    check(times[20] < 0.5, f"mounted after {times[20] * 1000:.0f} ms in the median")


@test(**AUTO)
def queue_while_another_waits(exim):
    """A queue with a message in work waits for its mount, and no queue that comes meanwhile is forgotten."""
    fill(exim, 1)
    made = exim.work / "made"
    files = []
    for name in ("a", "b"):
        (made / name / "input").mkdir(parents=True)
        files.append(open(made / name / "input" / "1xWSI1-00002G-0Q-D", "wb"))
        files[-1].write(b"1xWSI1-00002G-0Q-D\nbody\n")
        files[-1].flush()
        fcntl.lockf(files[-1], fcntl.LOCK_EX)
    subprocess.run(["chown", "-R", "Debian-exim:Debian-exim", made], check=True)
    for count, name in enumerate(("a", "b"), 1):
        (made / name).rename(exim.spool / name)
        wait_for(lambda: f"{count} that processes work on: hidden by the view" in said(exim, "status")[1], f"status tells of {count}")
    check("a/input" not in over(exim) and "b/input" not in over(exim), "a queue in work is mounted over")
    for file in files:
        file.close()
    wait_mounted(exim, "a/input", "b/input")
    wait_for(lambda: "hidden by the view" not in said(exim, "status")[1], "status says that nothing is hidden any more")


@test(**AUTO)
def disk_in_work(exim):
    """Before the first mount a message in work keeps all others where a program without the library sees them."""
    log = Log()
    for _ in range(6):
        message = Message()
        exim.run("-oi", "-f", message.sender, *message.recipients, input=message.content(), stock=True)
    exim.queued = 6
    with open(next((exim.spool / "input").glob("*-D")), "rb+") as file:
        fcntl.lockf(file, fcntl.LOCK_EX, 19)
        use_as_root(exim)
        said = "not mounted yet: a process works on 1 of the messages on the disk; nothing is moved until it ends"
        wait_for(lambda: log.lines(said), "syslog says what is waited for")
        for _ in range(30):
            check(int(exim.run("-bpc", stock=True)) == 6, "Exim without the library misses messages")
            time.sleep(0.1)
        status = exim.status()
        check(status["view"].startswith("starting") and status["disk_locked"] == 1 and status["disk_hidden"] == 0, status)
        check(len(log.lines("not mounted")) == 1, log.lines())
        check(int(exim.run("-bpc")) == 6, "Exim with the library misses messages")
    wait_mounted(exim)
    check(int(exim.run("-bpc", stock=True)) == 6 and not exim.real_files(), "the view misses messages")
    wait_for(lambda: exim.status()["disk_locked"] == 0, "status forgets the message")


@test(**AUTO)
def earlier_server(exim):
    """A server that its supervisor's death has killed may still be in a call on the disk: the next one waits for its end."""
    message = Message()
    exim.run("-oi", "-f", message.sender, *message.recipients, input=message.content(), stock=True)
    exim.queued = 1
    lock_file = exim.spool / ".fastspool" / "server.lock"
    lock_file.parent.mkdir(mode=0o700)
    lock_file.touch(mode=0o600)
    for path in (lock_file.parent, lock_file):
        shutil.chown(path, "Debian-exim", "Debian-exim")
    with open(lock_file, "r+b") as lock:
        fcntl.lockf(lock, fcntl.LOCK_EX)        # as that server would
        use_as_root(exim)
        wait_for(lambda: re.search(rf"-> POSIX +ADVISORY +WRITE {server(exim)} ", pathlib.Path("/proc/locks").read_text()), "the server waits")
        check(len(exim.real_files()) >= 2 and not over(exim), f"imported: {exim.real_files()}, mounted over {over(exim)}")
    wait_mounted(exim)
    check(int(exim.run("-bpc", stock=True)) == 1 and not exim.real_files(), "the view misses a message")


@test(**QUEUES)
def queue_on_disk(exim):
    """A named queue that a process without the library makes is adopted: its message is in the store, and the view."""
    fill(exim, 1)
    message = Message(sender="slow@sink.test")
    exim.run("-oi", "-f", message.sender, *message.recipients, input=message.content(), stock=True)
    wait_mounted(exim, "slow/input")
    wait_for(lambda: int(exim.run("-qGslow", "-bpc")) == 1, "Exim with the library sees the message")
    check(int(exim.run("-qGslow", "-bpc", stock=True)) == 1, "Exim without the library sees no message")
    wait_for(lambda: not exim.real_files(), "what came before the mount is imported")


@test(**AUTO)
def symbolic_link(exim):
    """The mail user has put a link where a directory was: it is not followed, and nothing is mounted there."""
    fill(exim, 1)
    exim.tool("stop")
    target = exim.work / "target"
    target.mkdir()
    for name in ("input", "msglog"):
        (exim.spool / name).rmdir()
    (exim.spool / "input").symlink_to(target)
    (exim.spool / "elsewhere").symlink_to(exim.work)
    (exim.work / "input").mkdir()
    use_as_root(exim)
    wait_for(lambda: state(exim).startswith("mounted"), "the view is up")
    time.sleep(1.5)
    check(not [place for _, place in views() if "target" in place or place == f"{exim.work}/input"],
          f"mounted through a link: {views()}")
    check("input" not in over(exim), f"mounted over {over(exim)}")
    exim.tool("stop")
    (exim.spool / "input").unlink()
    (exim.spool / "elsewhere").unlink()
    exim.fastspool_configuration()


# --- leaving, backup ----------------------------------------------------------------------------------------------

def steps(heading, exim):
    """The commands of a section of docs/operating.md, for EXIM's spool."""
    text = (pathlib.Path(__file__).parents[2] / "docs/operating.md").read_text().split(f"### {heading}\n")[1]
    lines = re.findall(r"^ {4,6}(?=\S)(.*)$", re.split(r"^#", text, flags=re.M)[0], re.M)
    return [line.replace("/var/spool/exim4", str(exim.spool)).replace("/var/tmp/queue", f"{exim.work}/queue") for line in lines]


def shell(exim, *lines):
    result = subprocess.run(["bash", "-ec", "\n".join(lines)], env=exim.environment(stock=True), capture_output=True, text=True)
    check(result.returncode == 0, f"{lines}: {result}")
    return result.stdout + result.stderr


def send(exim, sender, stock=False):
    message = Message(sender=sender)
    exim.run("-oi", "-f", sender, *message.recipients, input=message.content(), stock=stock)


@test(("", {}), ("_rebooted", {}), **QUEUES)
def leaving(exim):
    """docs/operating.md, "Leaving", word for word: named queues come along, and what a sendmail brings between any two lines."""
    fill(exim, 2)
    for sender in ("fast@sink.test", "slow@sink.test", "fast@sink.test"):
        send(exim, sender)
    wait_mounted(exim, "fast/input", "slow/input")
    exim.fastspool_configuration("view = off")
    lines, sent = steps("Leaving", exim), 5
    if exim.work.name.endswith("_rebooted"):
        exim.tool("flush")
        exim.reboot()
        check("has no store" in exim.tool("stop"), "stop finds a store")
        lines[0] = "true"
    check(len(lines) == 3, f"{len(lines)} lines")
    for line in lines:
        shell(exim, line)
        for sender in ("late@sink.test", "slow@sink.test"):
            send(exim, sender, stock=True)
        sent += 2
    found = [name for name in exim.spool.rglob("*-D") if ".fastspool" not in str(name)]
    check(len(found) == sent, f"{len(found)} messages, of {sent}")
    counts = [int(exim.run(*queue, "-bpc", stock=True)) for queue in ((), ("-qGfast",), ("-qGslow",))]
    check(counts == [2 + len(lines), 2, 1 + len(lines)], f"the queues have {counts}")
    shutil.rmtree(exim.spool / "input")     # nothing of it is left for the harness
    for name in ("msglog", "fast", "slow"):
        shutil.rmtree(exim.spool / name, ignore_errors=True)
    exim.queued = 0


@test(**QUEUES)
def backup(exim):
    """docs/operating.md, "Backup and restore": what was removed since comes back, of all queues, and is Exim's."""
    fill(exim, 2)
    send(exim, "fast@sink.test")
    wait_mounted(exim, "fast/input")
    save, restore = steps("Backup and restore", exim)[-2:]
    shell(exim, save)
    for name in [*(exim.spool / "input").iterdir(), *(exim.spool / "fast/input").iterdir()]:
        name.unlink()
    check(not exim.queue(), "the queue is not empty")
    shell(exim, restore)
    check(len(exim.queue()) == 2 and int(exim.run("-qGfast", "-bpc", stock=True)) == 1, "not all came back")
    check(all(name.owner() == "Debian-exim" for name in (exim.spool / "input").iterdir()), "files of another user")


@test(**AUTO)
def backup_of_the_state(exim):
    """The same section: the state of a running spool comes back."""
    fill(exim, 2)
    exim.tool("backup", exim.work / "backup")
    exim.run("-Mrm", *exim.queue())
    exim.tool("stop")
    shell(exim, *(line.replace("/var/backups/queue", f"{exim.work}/backup").replace("/var/tmp/fastspool.before", f"{exim.work}/before")
                  for line in steps("Backup and restore", exim)[:-2]))
    use_as_root(exim)
    wait_mounted(exim)
    check(len(exim.queue()) == 2, f"{exim.queue()} came back")


if __name__ == "__main__":
    main("view_mounts")
