#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Set-user-ID execution.

- The library reaches Exim's own re-executions and no other program.
- All of them see one spool, never two.
- In secure execution the environment has no effect.
- No code of an ordinary user runs in a process with the store mapped.
- What the mail user writes to the segment's lock and numbers harms no process of root's.
"""
import concurrent.futures
import contextlib
import ctypes
import fcntl
import os
import pathlib
import pty
import pwd
import re
import shlex
import shutil
import signal
import struct
import subprocess
import tempfile
import time

from harness import (EXIM, LIBRARY, QUEUE_ONLY, TOOL, USER, USER_ID, Client, Log, Message, Skip, check, kill, main, processes, sleeps_in,
                     stores, suspend, test, wait_for)

SEGMENT = "/fastspool."                       # marks a mapped segment in /proc/PID/maps
INSTALLED = pathlib.Path("/usr/lib/x86_64-linux-gnu") / LIBRARY
PRELOAD = {"LD_PRELOAD": LIBRARY}
PRERM = pathlib.Path(__file__).resolve().parents[2] / "debian/fastspool.prerm"


def has_store():
    return bool(stores())


def served(*command, user=None, **environment):
    """Run COMMAND with the library preloaded by its bare name.  Returns (exit status, stdout, stderr)."""
    result = subprocess.run(command, env={"PATH": os.environ["PATH"], **PRELOAD, **environment}, capture_output=True,
                            user=user, group=USER_ID if user else None, extra_groups=[] if user else None,
                            stdin=subprocess.DEVNULL, timeout=60)
    return result.returncode, result.stdout.decode(errors="replace"), result.stderr.decode(errors="replace")


# --- loading --------------------------------------------------------------------------------------------------------

@test(library=True)
def found_at_once(exim):
    """In secure execution the loader finds the library where it looks first."""
    levels = subprocess.run(["/lib64/ld-linux-x86-64.so.2", "--help"], capture_output=True, text=True).stdout
    if not re.search(r"x86-64-v[234] \(supported, searched\)", levels):
        raise Skip("this processor has no directories of its own")
    trace = exim.work / "trace"
    subprocess.run(["strace", "-f", "-u", USER, "-o", trace, "-E", f"LD_PRELOAD={LIBRARY}", "-e", "trace=openat", EXIM, "-bV"],
                   check=True, stdout=subprocess.DEVNULL)
    places = re.findall(rf'openat\(AT_FDCWD, "(.*/{LIBRARY})".* = (\S+)', trace.read_text())
    check(len(places) == 1 and places[0][1] != "-1", f"the loader looks into {len(places)} places: {places}")


# --- no user's code with the store mapped -------------------------------------------------------------------------

@test(library=True, main=QUEUE_ONLY)
def no_mapping_for_a_caller(exim):
    """`exim -C own.conf -be` by a user shows no mapping of the store.  `exim -be` by root, after it has looked at the queue,
    shows one, so the test can fail."""
    message = Message()
    exim.submit(message)
    exim.queued = 1
    name = exim.queue()[0]
    look = "${if exists{%s/input/%s-D}{here}{no}} ${readfile{/proc/self/maps}}" % (exim.spool, name)
    _, shown, _ = served(EXIM, "-be", look)
    check("here" in shown and SEGMENT in shown, "root's own expansion shows no mapping: this test can't fail")
    own = pathlib.Path("/srv/own.conf")
    own.write_text(f"spool_directory = {exim.spool}\nlog_file_path = /srv/own-%slog\n")
    own.chmod(0o644)
    _, shown, errors = served(EXIM, "-C", str(own), "-be", look, user=USER)
    check("libc" in shown, f"no maps were shown: {errors}")
    check(SEGMENT not in shown, "an ordinary user's expansion runs with the store mapped")
    check("here" not in shown, "an ordinary user sees a file of the queue")


@test(library=True)
def no_mapping_in_a_filter(exim):
    """A user's filter sees no mapping, although Exim runs it in a process that had the store mapped before."""
    exim.forward("# Exim filter", f"logfile /home/{USER}/maps 0600", 'logwrite "${readfile{/proc/self/maps}}"')
    message = exim.expect(Message(f"{USER}@forward.test"), "sink")     # the filter itself delivers nothing
    exim.submit(message, "-odi")
    shown = pathlib.Path(f"/home/{USER}/maps")
    wait_for(shown.exists, "the filter ran")
    exim.wait_empty()
    text = shown.read_text()
    shown.unlink()
    check("libc" in text and SEGMENT not in text, "a user's filter runs with the store mapped")


@test(library=True)
def becoming_a_user(exim):
    """When a process becomes an ordinary user for good, the store is unmapped, its descriptors are closed, and its paths give
    EACCES.  Open files keep their content and offset."""
    script = f"""
import errno, os
spool = {str(exim.spool)!r}
os.makedirs(spool + "/input", exist_ok=True)
with open(spool + "/input/file", "w") as file: file.write("0123456789")
fd = os.open(spool + "/input/file", os.O_RDONLY)
assert os.read(fd, 4) == b"0123"
maps = lambda: open("/proc/self/maps").read()
assert {SEGMENT!r} in maps(), "nothing was mapped: this test can't fail"
os.setgroups([]); os.setgid({USER_ID}); os.setuid({USER_ID})
assert {SEGMENT!r} not in maps(), "still mapped"
links = [os.readlink("/proc/self/fd/" + name) for name in os.listdir("/proc/self/fd") if os.path.exists("/proc/self/fd/" + name)]
assert not [link for link in links if {SEGMENT!r} in link], links
assert os.read(fd, 100) == b"456789", "the offset or the content is lost"
assert os.pread(fd, 3, 0) == b"012"
try: os.open(spool + "/input/file", os.O_RDONLY); assert False, "opened"
except PermissionError: pass
"""
    status, _, errors = served("python3", "-c", script)
    check(status == 0, errors)
    served("rm", f"{exim.spool}/input/file")


@test(library=True)
def a_trusted_user(exim):
    """A fresh process of a trusted user reads, writes and syncs files of a store that was made before he was trusted;
    one of a user who isn't trusted does nothing of the kind."""
    make = f"""
import os
os.makedirs({str(exim.spool)!r} + "/input", exist_ok=True)
os.chmod({str(exim.spool)!r} + "/input", 0o777)
with open({str(exim.spool)!r} + "/input/roots", "w") as file: file.write("root's")
"""
    use = f"""
import os
os.chdir("/")
directory = {str(exim.spool)!r} + "/input"
assert open(directory + "/roots").read() == "root's"
with open(directory + "/own", "w") as file:
    file.write("his own")
    file.flush()
    os.fsync(file.fileno())
fd = os.open(directory, os.O_RDONLY)
os.fsync(fd)
assert os.stat(directory + "/own").st_uid == {USER_ID} and sorted(os.listdir(directory)) == ["own", "roots"]
assert {SEGMENT!r} in open("/proc/self/maps").read(), "not the store"
"""
    os.chmod(exim.spool, 0o751)                 # the way to the spool is the administrator's to give
    status, _, errors = served("python3", "-c", make)
    check(status == 0, errors)
    status, _, errors = served("python3", "-c", use, user=USER_ID)
    check(status != 0 and "FileNotFoundError" in errors, f"not trusted, and not on the disk: exit {status}, {errors}")
    exim.fastspool_configuration(f"trusted_user = {USER}")
    served("ls", f"{exim.spool}/input")
    status, _, errors = served("python3", "-c", use, user=USER_ID)
    check(status == 0, errors)
    status, text, errors = served("cat", f"{exim.spool}/input/own")
    check(text == "his own", errors)
    status, _, errors = served("cat", f"{exim.spool}/input/roots", user=USER_ID + 1)
    check(status != 0, "another user may, too")
    exim.fastspool_configuration()
    served("rm", f"{exim.spool}/input/own", f"{exim.spool}/input/roots")
    status, _, errors = served("python3", "-c", use, user=USER_ID)
    check(status != 0 and "FileNotFoundError" in errors, f"not trusted any more: exit {status}, {errors}")


@test(library=True)
def a_trusted_user_before_the_reboot(exim):
    """A trusted user that is removed while there is no store in memory keeps no right below the state directory."""
    os.chmod(exim.spool, 0o751)
    exim.fastspool_configuration(f"trusted_user = {USER}")
    served("ls", f"{exim.spool}/input")
    state = exim.spool / ".fastspool"

    def named():
        """Who has an entry of his own in a list: tag 2 (linux/posix_acl.h)."""
        lists = [os.getxattr(path, "system.posix_acl_access")[4:] for path in (state, *state.iterdir())
                 if "system.posix_acl_access" in os.listxattr(path)]
        return [user for one in lists for tag, _, user in struct.iter_unpack("<HHI", one) if tag == 2]
    check(named().count(USER_ID) >= 3, f"trusted, and the lists name only {named()}")
    exim.stop()
    exim.reboot()
    exim.fastspool_configuration()
    served("ls", f"{exim.spool}/input")
    check(not named(), f"not trusted any more, and the lists name {named()}")


@test(library=True)
def other_programs(exim):
    """In other set-user-ID programs the library does nothing: same output, no store, no state directory."""
    for command in (["su", "--version"], ["passwd", "-S"], ["mount"], ["chfn", "--help"]):
        if not shutil.which(command[0]):
            continue
        program = shutil.which(command[0])
        set_id = os.stat(program).st_mode & 0o4000
        plain = subprocess.run(command, capture_output=True, user=USER, group=USER_ID, extra_groups=[], timeout=30)
        status, output, errors = served(*command, user=USER)
        check((status, output, errors) == (plain.returncode, plain.stdout.decode(), plain.stderr.decode()),
              f"{command} ({'set-user-ID' if set_id else 'ordinary'}) behaves differently: {errors}")
    check(not has_store() and not (exim.spool / ".fastspool").exists(), "a store was created")


@test(library=True, main=QUEUE_ONLY)
def the_owner_of_another_spool(exim):
    """Root has registered a spool that an ordinary user owns.  That user's sendmail maps no other user's store: the
    user could stop it there."""
    exim.start()
    own = pathlib.Path("/home/own-spool")
    own.mkdir(mode=0o750)
    shutil.chown(own, USER_ID, USER_ID)
    exim.tool("run", "--spool", own, "--", "true")
    message = exim.expect(Message(sender=f"{USER}@mail.test", size=20_000), "sink")
    sendmail = subprocess.Popen([EXIM, "-oi", "-odq", *message.recipients], env={"PATH": os.environ["PATH"], **PRELOAD},
                                user=USER_ID, group=USER_ID, extra_groups=[], stdin=subprocess.PIPE)
    content = message.content()
    sendmail.stdin.write(content[:-1])
    sendmail.stdin.flush()
    data = f"{exim.spool}/input"
    wait_for(lambda: [fd for fd in pathlib.Path(f"/proc/{sendmail.pid}/fd").iterdir()
                      if os.readlink(fd).startswith(data) or "/fastspool." in os.readlink(fd)], "it writes its message")
    maps = pathlib.Path(f"/proc/{sendmail.pid}/maps").read_text()
    check(SEGMENT not in maps, "the store is mapped")
    sendmail.communicate(content[-1:], timeout=60)
    check(sendmail.returncode == 0, f"exit status {sendmail.returncode}")
    exim.tool("stop", "--spool", own)
    exim.deliver_queue()


# --- what the mail user writes, and root's commands follow ------------------------------------------------------

def has_mirror(state):
    with open(state / "mirror.lock") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def act_as_owner(state, act, lives):
    """A process of the mail user that acts when the mirror has ended.  LIVES: it uses the store."""
    wait_for(lambda: has_mirror(state), "the mirror lives")
    ready, told = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.setgroups([])
            os.setgid(pwd.getpwnam("Debian-exim").pw_gid)
            os.setuid(pwd.getpwnam("Debian-exim").pw_uid)
            lock, mirror = open(state / "lock", "r+b"), open(state / "mirror.lock", "r+b")
            if lives:
                fcntl.fcntl(lock, fcntl.F_OFD_SETLK, struct.pack("hhqqi4x", fcntl.F_RDLCK, os.SEEK_SET, 0, 1, 0))
            os.write(told, b"1")
            fcntl.flock(mirror, fcntl.LOCK_EX)
            fcntl.flock(mirror, fcntl.LOCK_UN)
            act()
            signal.pause()
        finally:                        # whatever fails here, the test's own end is the parent's
            os._exit(1)
    os.close(told)
    check(os.read(ready, 1) == b"1", "the mail user's process does not use the store")
    os.close(ready)
    return pid


def remove_package(exim):
    """What prerm says when nobody has the library."""
    def has_library(pid):
        try:
            return LIBRARY in pathlib.Path(f"/proc/{pid}/maps").read_text()
        except OSError:
            return False
    wait_for(lambda: not [pid for pid, _ in processes() if has_library(pid)], "the last Exim has ended")
    result = subprocess.run(["sh", PRERM, "remove"], capture_output=True, timeout=120, stdin=subprocess.DEVNULL)
    check(result.returncode == 0, result.stderr.decode())


def end_mirror(exim):
    """All is on the disk, and in memory."""
    exim.tool("flush")
    killed = {pid for pid, name in processes() if name == "fastspool"}
    for pid in killed:
        kill(pid)
    wait_for(lambda: not killed & {pid for pid, _ in processes()}, "the mirror has ended")


@test(library=True, main=QUEUE_ONLY)
def memory_behind_a_link(exim):
    """`fastspool stop` of root's removes the memory with the owner's rights: a link on the way to it, which the mail user
    turns, leads into no directory of root's."""
    exim.start()
    exim.stop()
    memory = pathlib.Path(stores()[0])
    end_mirror(exim)
    owned, roots = exim.work / "owned", exim.work / "roots"
    os.chmod(exim.work, 0o755)
    for directory in (owned, roots, roots / memory.name):
        directory.mkdir(mode=0o755)
    (roots / memory.name / "locks").write_text("root's")
    shutil.chown(owned, "Debian-exim", "Debian-exim")
    link, record = owned / "link", exim.spool / ".fastspool/runtime"
    link.symlink_to(memory.parent)
    record.write_text(record.read_text().replace(str(memory.parent), str(link)))
    served("ls", f"{exim.spool}/input")         # starts a mirror, where none lives
    pid = act_as_owner(record.parent, lambda: (link.unlink(), link.symlink_to(roots)), False)
    try:
        exim.tool("stop")
        wait_for(lambda: link.resolve() == roots, "the link is turned")     # mostly in time; always is not the test's to say
        check((roots / memory.name / "locks").exists(), "a file of root's is gone")
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        link.unlink()
        link.symlink_to(memory.parent)          # the store is there still


@test(library=True, main=QUEUE_ONLY)
def word_behind_a_link(exim):
    """`fastspool flush --anew` of root's takes its word back with the owner's rights, when no mirror has heard it: the mail user's
    link in the place of the state leads to no file of root's.  It waits for no FIFO in the place of the word."""
    exim.start()
    exim.submit(Message())
    exim.stop()
    state, away, roots = (exim.spool / name for name in (".fastspool", "away", "roots"))
    (state / "journal").rename(exim.spool / "journal")      # it may come back: so it is not sure that it is lost
    wait_for(lambda: exim.status()["commit_error"], "the mirror has looked at its disk")
    mirror = exim.status()["mirror_pid"]
    suspend(mirror)
    os.mkfifo(state / "anew")
    exim.own(state / "anew")
    refused = subprocess.run([TOOL, "flush", "--anew"], capture_output=True, timeout=60)
    check(refused.returncode == 1 and b"cannot make" in refused.stderr, f"{refused}")
    (state / "anew").unlink()
    roots.mkdir(mode=0o700)
    (roots / "anew").write_text("root's")
    with subprocess.Popen([TOOL, "flush", "--anew"], stderr=subprocess.PIPE) as flush:
        wait_for((state / "anew").exists, "it has said so")
        state.rename(away)
        state.symlink_to(roots)
        check(flush.wait(60) == 1, "all was written anew")
    check((roots / "anew").exists(), "a file of root's is gone")
    state.unlink()
    away.rename(state)
    os.kill(mirror, signal.SIGCONT)             # it finds the word now
    wait_for(lambda: not exim.status()["commit_error"], "all is on the disk again")
    exim.queued += 1


@test(library=True, main=QUEUE_ONLY)
def memory_that_is_roots(exim):
    """The mail user writes where the memory is, and root does what is told: nobody is told to give him what is root's."""
    exim.start()
    exim.stop()
    memory = pathlib.Path(stores()[0])
    end_mirror(exim)                            # it would see the other record
    roots = exim.work / "roots"
    (roots / memory.name).mkdir(parents=True, mode=0o700)
    (roots / memory.name / "segment").write_text("root's")
    roots.chmod(0o700)
    record = exim.spool / ".fastspool/runtime"
    before = record.read_text()
    for place in (roots, roots / memory.name, memory.parent / ".." / "..", f"{memory}/../../.."):
        record.write_text(before.replace(str(memory), str(place), 1))
        said = exim.command("-bp").stderr + b"".join(
            (result := exim.command(*verb, program=TOOL, stock=True)).stdout + result.stderr
            for verb in (("status",), ("doctor", "--start"), ("flush",), ("stop",)))
        check(not re.search(rb"`ch(own|mod) [^`]*%s" % re.escape(str(place)).encode(), said), f"{said}")
    record.write_text(before)


def terminal_of(pid):
    """Its controlling terminal's number, 0: none; and whether it has a terminal open."""
    words = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    has = False
    for fd in pathlib.Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):        # the loader's: it has just closed it
            has = has or "/pts/" in os.readlink(fd)
    return int(words[4]), has


def leave_memory(exim):
    """The last Exim may be just ending: it would keep the store."""
    wait_for(lambda: (exim.tool("stop"), not has_store())[1], "the memory is given back")


def readers(exim):
    """The processes of the spool owner's that read the record."""
    def is_owners(pid):
        try:
            return os.stat(f"/proc/{pid}").st_uid == os.stat(exim.spool).st_uid
        except OSError:
            return False
    return [pid for pid, name in processes() if name == "head" and is_owners(pid)]


@contextlib.contextmanager
def waiting_record(exim):
    """The record of a store whose memory is gone, as a FIFO of the mail user's: its reader waits.  Yields (path, what it said)."""
    exim.start()
    exim.stop()
    leave_memory(exim)
    record = exim.spool / ".fastspool/runtime"
    before = record.read_text()
    record.unlink()
    os.mkfifo(record, 0o600)
    shutil.chown(record, "Debian-exim", "Debian-exim")
    try:
        yield record, before
    finally:
        record.unlink()
        record.write_text(before)
        shutil.chown(record, "Debian-exim", "Debian-exim")
        record.chmod(0o600)


@test(library=True, main=QUEUE_ONLY)
def package_on_a_terminal(exim):
    """What prerm reads with the mail user's rights is read without root's terminal: he could take the reader over, and type
    into it (TIOCSTI)."""
    if not shutil.which("setpriv"):
        raise Skip("no setpriv")
    with waiting_record(exim) as (record, before):
        pid, terminal = pty.fork()
        if pid == 0:
            os.execvp("sh", ["sh", PRERM, "upgrade"])
        try:
            wait_for(lambda: readers(exim), "the record is read")
            for reader in readers(exim):
                check(terminal_of(reader) == (0, False), f"its terminal: {terminal_of(reader)}")
        finally:
            with open(record, "r+b", buffering=0) as fifo:
                fifo.write(before.encode())
            _, status = os.waitpid(pid, 0)
            os.close(terminal)
    check(status == 0, f"prerm: {status}")
    exim.start()


def stop_as_owner(pid, uid):
    """Stop process @pid, or a child of its, as soon as it has @uid.  Its number; None: they have ended before."""
    while os.waitpid(pid, os.WNOHANG)[0] == 0:
        try:
            children = pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
            for other in (pid, *map(int, children)):
                if f"Uid:\t{uid}\t{uid}\t{uid}" in pathlib.Path(f"/proc/{other}/status").read_text():
                    os.kill(other, signal.SIGSTOP)
                    while (state := re.search(r"State:\s(.)", pathlib.Path(f"/proc/{other}/status").read_text())[1]) not in "TZX":
                        pass
                    if state == "T":
                        return other
        except OSError:
            pass
    return None


@test(library=True, main=QUEUE_ONLY)
def compact_on_a_terminal(exim):
    """The database, which the mail user has written, is read by a process that has neither root's rights nor its terminal.
    It is the mail user's to stop; SIGTERM ends root's command all the same."""
    exim.start()
    exim.submit(Message())
    exim.queued = 1
    exim.stop()
    leave_memory(exim)
    reader = None
    while not reader:                           # it lives for some milliseconds
        pid, terminal = pty.fork()
        if pid == 0:
            os.execvp(TOOL, [TOOL, "compact", "--spool", str(exim.spool)])
        reader = stop_as_owner(pid, os.stat(exim.spool).st_uid)
        if not reader:
            os.close(terminal)
    found = terminal_of(reader)
    os.kill(pid, signal.SIGTERM)
    if reader == pid:
        os.kill(pid, signal.SIGCONT)
    os.waitpid(pid, 0)
    os.close(terminal)
    wait_for(lambda: reader not in [other for other, _ in processes()], "it ends with root's command")
    check(found == (0, False), f"its terminal: {found}")
    exim.tool("compact")
    exim.start()


def backup_beside(exim, copy, act):
    """Back up to @copy, and @act while the process that copies, which has the mail user's uid, is stopped, as he may stop it.
    The exit status, and what is said."""
    said, reader = exim.work / "said", None
    while not reader:                           # it lives for some milliseconds
        shutil.rmtree(copy, ignore_errors=True)
        pid = os.posix_spawn(TOOL, [TOOL, "backup", "--spool", exim.spool, copy], os.environ,
                             file_actions=[(os.POSIX_SPAWN_OPEN, 2, said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)])
        reader = stop_as_owner(pid, os.stat(exim.spool).st_uid)
    act(pathlib.Path(f"{copy}.new"))
    os.kill(reader, signal.SIGCONT)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), said.read_text()


@test(library=True, main=QUEUE_ONLY)
def copy_is_taken_back(exim):
    """While a backup is the mail user's to write, he opens it to all, links a file of his into it, or puts something else in its
    place.  It is root's alone in the end, or there is none; and his file stays his."""
    exim.start()
    exim.submit(Message())
    exim.queued = 1
    def in_copy(new, place):
        (new / place).mkdir(exist_ok=True)
        shutil.chown(new / place, "Debian-exim", "Debian-exim")
        (new / place).chmod(0o777)
        return new / place
    status, said = backup_beside(exim, exim.work / "opened", lambda new: (in_copy(new, "."), in_copy(new, "journal")))
    check(status == 0, said)
    modes = {path.name: oct(path.stat().st_mode & 0o777) for path in (exim.work / "opened", *(exim.work / "opened").rglob("*"))}
    check(set(modes.values()) == {"0o700", "0o600"}, f"{modes}")
    his = exim.work / "his"
    his.write_text("his")
    shutil.chown(his, "Debian-exim", "Debian-exim")
    for place in (".", "mirror", "journal"):
        status, said = backup_beside(exim, exim.work / "linked", lambda new, place=place: os.link(his, in_copy(new, place) / ".his"))
        check(status == 1 and "the spool's owner has put it there" in said, said)
        check(his.stat().st_uid == os.stat(exim.spool).st_uid, f"linked in {place}: his file is root's")
        shutil.rmtree(exim.work / "linked.new")
    status, said = backup_beside(exim, exim.work / "moved", lambda new: (new.rename(exim.work / "away"), new.symlink_to("/etc")))
    check(status == 1 and "not the directory any more" in said and not (exim.work / "moved").exists(), f"exit {status}, {said}")


@test(library=True, main=QUEUE_ONLY)
def started_anyhow(exim):
    """The command's parent ignores SIGCHLD, and has closed the standard streams: a backup is made, and the mirror opens no file
    where its sentences go to."""
    def poor():
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        os.closerange(0, 3)
    exim.start()
    exim.submit(Message())
    exim.queued = 1
    backup = subprocess.Popen([TOOL, "backup", "--spool", exim.spool, exim.work / "copy"], preexec_fn=poor, restore_signals=False)
    try:
        check(backup.wait(60) == 0 and (exim.work / "copy/mirror/data.mdb").exists(), f"exit {backup.returncode}")
    finally:
        backup.kill()
    exim.stop()
    leave_memory(exim)
    subprocess.run([EXIM, "-bpc"], env={**exim.environment()}, check=True, capture_output=True)
    for pid in [pid for pid, name in processes() if name == "fastspool"]:
        kill(pid)
    mirror = subprocess.Popen([TOOL, "mirror", exim.spool], preexec_fn=poor, restore_signals=False)
    opened = pathlib.Path(f"/proc/{mirror.pid}/fd")
    try:
        wait_for(lambda: any("/journal" in os.readlink(fd) for fd in opened.iterdir()), "the mirror works")
        streams = [os.readlink(opened / str(fd)) for fd in range(3)]
        check(streams == ["/", "/", "/"], f"{streams}")
    finally:
        mirror.terminate()
        mirror.wait(60)
    exim.start()


@contextlib.contextmanager
def mirror_of(exim, state):
    """A mirror of STATE, made by the mail user, who stops it at once: it has only to be seen."""
    state.mkdir(mode=0o700)
    shutil.chown(state, "Debian-exim", "Debian-exim")
    stopped = False
    while not stopped:                          # it lives for some milliseconds
        process = subprocess.Popen([TOOL, "mirror", "--state", str(state), "--memory", "67108864", str(exim.spool)],
                                   stderr=subprocess.DEVNULL, user="Debian-exim", group="Debian-exim", extra_groups=[])
        os.kill(process.pid, signal.SIGSTOP)
        stopped = os.WIFSTOPPED(os.waitpid(process.pid, os.WUNTRACED)[1])
    try:
        yield
    finally:
        process.kill()
        process.wait()


@test(library=True, main=QUEUE_ONLY)
def a_state_of_the_mail_users(exim):
    """Another state of the spool is named in a command for root, unless its path says something to root's terminal or shell."""
    exim.start()
    for name, named in (("other", True), ("\x1b]0;you\x07", False), ("line\nfastspool: more", False), ("a;id", False), ("$(id)", False)):
        with mirror_of(exim, exim.spool / name):
            said = exim.command("status", program=TOOL, stock=True)
        said = (said.stdout + said.stderr).decode()
        check((f"FASTSPOOL_STATE={exim.spool / name} " in said) == named, said)
        check(named or name not in said, repr(said))


@test(library=True, main=QUEUE_ONLY)
def removal_of_the_package(exim):
    """prerm removes the memory of an empty store; where the mail user says that it is root's directory, that stays."""
    if not shutil.which("setpriv"):
        raise Skip("no setpriv")
    exim.start()
    exim.stop()
    check(has_store(), "no store: this test can't fail")
    precious = exim.work / "precious"
    precious.mkdir(mode=0o700)
    (precious / "file").write_text("root's")
    record = exim.spool / ".fastspool/runtime"
    before = record.read_text()
    pid = act_as_owner(record.parent, lambda: record.write_text(f"{precious}\n"), True)
    try:
        remove_package(exim)
        check(record.read_text() == f"{precious}\n", "the record was not changed in time")
        check((precious / "file").exists(), "root's file is gone")
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        record.write_text(before)
    exim.start()
    exim.stop()
    check(has_store(), "no store: the rest can't fail")
    remove_package(exim)
    check(not has_store(), "the memory stays")


@test(library=True, main=QUEUE_ONLY)
def removal_beside_a_silent_process(exim):
    """A look at all processes that does not end is no look: the removal is refused.  (The kernel of this machine lets nobody wait
    for a memory map, so a timeout(1) of the test's own stands in the way.)"""
    exim.start()
    exim.stop()
    with tempfile.TemporaryDirectory() as name:
        silent = pathlib.Path(name) / "timeout"
        silent.write_text('#!/bin/sh\ncase "$*" in *grep*) exit 124 ;; esac\nexec /usr/bin/timeout "$@"\n')
        silent.chmod(0o755)
        result = subprocess.run(["sh", PRERM, "remove"], env={"PATH": f"{name}:{os.environ['PATH']}"}, capture_output=True, timeout=120)
    check(result.returncode == 1 and b"does not answer" in result.stderr, f"{result}")
    check(has_store(), "the store is gone")


@test(library=True, main=QUEUE_ONLY)
def upgrade_beside_an_open_pipe(exim):
    """The mail user opens the pipe of what reads his record, and keeps it: prerm does not wait for its end.  (A timeout(1) of the
    test's own, as a minute is long.)"""
    if not shutil.which("setpriv"):
        raise Skip("no setpriv")
    with waiting_record(exim), tempfile.TemporaryDirectory() as name:
        short = pathlib.Path(name) / "timeout"
        short.write_text('#!/bin/sh\nshift 3\nexec /usr/bin/timeout -k 1 2 "$@"\n')
        short.chmod(0o755)
        with subprocess.Popen(["sh", PRERM, "upgrade"], env={"PATH": f"{name}:{os.environ['PATH']}"}) as prerm:
            kept = -1
            try:
                wait_for(lambda: readers(exim), "the record is read")
                kept = os.open(f"/proc/{readers(exim)[0]}/fd/1", os.O_WRONLY)
                check(prerm.wait(30) == 0, f"exit {prerm.returncode}")
            finally:
                prerm.kill()
                if kept >= 0:
                    os.close(kept)


# --- the environment -----------------------------------------------------------------------------------------------

@test(library=True, main=QUEUE_ONLY)
def environment_is_not_believed(exim):
    """In secure execution FASTSPOOL_* variables have no effect: a user's message goes to the configured spool, on the
    disk, and root's Exim finds it there."""
    other = pathlib.Path("/srv/other-spool")
    other.mkdir(mode=0o777, exist_ok=True)
    message = Message(sender=f"{USER}@mail.test")
    exim.run("-oi", *message.recipients, input=message.content(), user=USER,
             environment={"FASTSPOOL_SPOOL": str(other), "FASTSPOOL_STATE": str(other / "state"),
                          "FASTSPOOL_RUNTIME": str(other), "FASTSPOOL_MEMORY": "1"})
    exim.queued = 1
    check(not list(other.iterdir()), f"the user's directory was used: {list(other.iterdir())}")
    exim.real = exim.real_files()
    check(len(exim.queue()) == 1, "root doesn't see the message")


@test(("", {"main": ("keep_environment =",)}), ("_all", {"main": ("keep_environment = *",)}),
      ("_some", {"main": ("keep_environment = PATH",)}), library=True)
def preload_is_restored(exim):
    """Exim's re-execution for a delivery has the library, whatever keep_environment is.  This holds for submissions by a
    user and by root, and for a queue run."""
    for arguments, user in ((), USER), ((), None), (("-odq",), USER):
        exim.run("-oi", *arguments, "a@sink.test", user=user,
                 input=exim.expect(Message("a@sink.test"), "sink").content())
    exim.run("-q")
    exim.wait_arrived()
    exim.wait_empty()


# --- the installation ------------------------------------------------------------------------------------------------

def refused(exim, preload, sentence):
    """With PRELOAD as LD_PRELOAD, the library prints SENTENCE and serves nothing.  Exim and its children use the plain
    disk."""
    message = exim.expect(Message(), "sink")
    result = exim.command("-oi", "-odq", *message.recipients, input=message.content(),
                          environment={"LD_PRELOAD": preload})
    errors = result.stderr.decode()
    check(result.returncode == 0, errors)
    lines = [line for line in errors.splitlines() if line.startswith("fastspool: serves nothing: ")]
    check(len(lines) == 1 and sentence in lines[0], f"it said {errors!r}")
    check(len(exim.real_files()) == 3 and not has_store(), f"the disk holds {exim.real_files()}")
    exim.command("-qff", environment={"LD_PRELOAD": preload})
    exim.wait_arrived()
    check(not has_store() and not exim.real_files(), "the delivery saw a different spool")


@test(library=True)
def full_path(exim):
    """A full path in LD_PRELOAD is refused: the loader ignores it in re-executions."""
    refused(exim, str(INSTALLED), "say LD_PRELOAD=" + LIBRARY)


@test(library=True)
def other_directory(exim):
    """A copy in another directory is refused."""
    shutil.copy(INSTALLED, "/srv/" + LIBRARY)
    refused(exim, "/srv/" + LIBRARY, "say LD_PRELOAD=" + LIBRARY)


@test(library=True)
def missing_set_user_id(exim):
    """A library file without its set-user-ID bit is refused."""
    INSTALLED.chmod(0o644)
    try:
        refused(exim, LIBRARY, "is not set-user-ID")
    finally:
        INSTALLED.chmod(0o4644)


@test(library=True, main=QUEUE_ONLY)
def ld_so_preload(exim):
    """The library works from /etc/ld.so.preload, without LD_PRELOAD."""
    preload = pathlib.Path("/etc/ld.so.preload")
    preload.write_text(f"{INSTALLED}\n")
    try:
        message = exim.expect(Message(), "sink")
        exim.run("-oi", *message.recipients, input=message.content(), stock=True)
        check(has_store() and not exim.real_files(), "the message is not in the store")
        exim.run("-qff", stock=True)
        exim.wait_arrived()
    finally:
        preload.unlink()


@test(library=True, main=QUEUE_ONLY)
def linked(exim):
    """An Exim linked with the library (DT_NEEDED) has it in every execution."""
    if not shutil.which("patchelf"):
        raise Skip("patchelf is not installed")
    saved = EXIM + ".before"
    shutil.copy2(EXIM, saved)
    try:
        subprocess.run(["patchelf", "--add-needed", LIBRARY, EXIM], check=True)
        os.chmod(EXIM, 0o4755)
        message = exim.expect(Message(), "sink")
        exim.run("-oi", *message.recipients, input=message.content(), stock=True)
        check(has_store() and not exim.real_files(), "the message is not in the store")
        exim.run("-qff", stock=True)
        exim.wait_arrived()
    finally:
        shutil.move(saved, EXIM)
        os.chmod(EXIM, 0o4755)


@test(library=True)
def unlisted_spool(exim):
    """A set-user-ID image refuses a spool named only by the environment.  Once root registers the spool it is served, and a
    user's message, which lies on its disk, is found there."""
    exim.fastspool_configuration()
    pathlib.Path("/etc/fastspool.conf").write_text("spool = /var/spool/exim4\nview = off\n")
    message = Message()
    result = exim.command("-oi", "-odq", *message.recipients, input=message.content(),
                          environment={"FASTSPOOL_SPOOL": str(exim.spool)})
    check(b"neither in /etc/fastspool.conf nor registered" in result.stderr, result.stderr.decode())
    for name in exim.real_files():
        (exim.spool / name).unlink()
    message = exim.expect(Message(), "sink")
    result = subprocess.run(["fastspool", "run", "--spool", exim.spool, "--", EXIM, "-oi", "-odq", *message.recipients],
                            input=message.content(), capture_output=True, timeout=30)
    check(result.returncode == 0 and not result.stderr, result.stderr.decode())
    check(not exim.real_files(), "the message is not in the store")
    message = exim.expect(Message(sender=f"{USER}@mail.test"), "sink")
    exim.run("-oi", "-odq", *message.recipients, input=message.content(), user=USER)
    subprocess.run(["fastspool", "run", "--spool", exim.spool, "--", EXIM, "-qff"], timeout=60)
    exim.wait_arrived()
    check(exim.status()["view_state"] == "off", f"`view = off` is not what root has registered: {exim.status()}")
    exim.fastspool_configuration()


@test(library=True)
def registered_state(exim):
    """A spool that root has registered has its own configuration, whatever the file says of the others."""
    pathlib.Path("/etc/fastspool.conf").write_text("spool = /var/spool/exim4\n")
    state = pathlib.Path("/srv/registered")
    state.mkdir(mode=0o700)
    shutil.chown(state, "Debian-exim", "Debian-exim")
    environment = dict(os.environ, FASTSPOOL_STATE=str(state))
    subprocess.run(["fastspool", "run", "--spool", exim.spool, "--", "true"], env=environment, check=True)
    message = exim.expect(Message(), "sink")
    exim.run("-oi", "-odq", *message.recipients, input=message.content())
    check(not exim.real_files() and not (exim.spool / ".fastspool").exists(), "the message is not in that store")
    exim.run("-qff")
    exim.wait_arrived()
    subprocess.run(["fastspool", "stop", "--spool", exim.spool], env=environment, check=True)
    exim.fastspool_configuration()
    shutil.rmtree(state)    # else the next store of this spool is refused, as that one may hold mail


# --- the mail user writes to the segment --------------------------------------------------------------------------------

ATTACK = pathlib.Path("/srv/attack")
MAIL_USER = "Debian-exim"


def attack(*arguments):
    """Start attack.c as the mail user, on the store's segment, and wait until it has begun."""
    if not ATTACK.exists():
        source = pathlib.Path(__file__).with_name("attack.c")
        subprocess.run(["cc", "-O1", "-I", source.parents[2] / "lib", "-o", ATTACK, source], check=True)
    place, = stores()
    segment = f"{place}/segment"
    process = subprocess.Popen([ATTACK, segment, *map(str, arguments)], user=MAIL_USER,
                               group=pwd.getpwnam(MAIL_USER).pw_gid, extra_groups=[], stdout=subprocess.PIPE)
    check(process.stdout.readline() == b"ready\n", "the mail user can't map the segment: this test can't fail")
    return process


def end(process):
    process.kill()
    process.wait()


def innocent():
    """A process of root's that has nothing to do with mail."""
    return subprocess.Popen(["sleep", "1000"])


def forget(exim):
    """The mail user may have damaged the store: begin again with none."""
    exim.reboot()
    shutil.rmtree(exim.spool / ".fastspool")


@test(library=True, main=QUEUE_ONLY + ("hold_domains = *",))
def rewritten_lock(exim):
    """The mail user rewrites the lock and what lies behind it while root runs the queue and lists it.  No process of root's
    dies by a signal, and one that waits ends at SIGTERM."""
    for _ in range(5):
        exim.submit(Message())
    bystander = innocent()
    attacker = attack("scribble", bystander.pid, 1, os.getpid())
    for turn in range(15):
        command = subprocess.Popen([EXIM, "-bp" if turn % 2 else "-q"], env=exim.environment(), cwd="/",
                                   stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            status = command.wait(1)
            check(status >= 0, f"a process of root's died by signal {-status}")
        except subprocess.TimeoutExpired:
            command.terminate()
            command.wait(60)
    end(attacker)
    log = "".join(path.read_text(errors="replace") for path in (exim.work / "log").iterdir())
    check("signal" not in log, log[-2000:])
    check(bystander.poll() is None, f"a process that the lock named has ended: {bystander.returncode}")
    kill(bystander.pid)
    forget(exim)


@test(library=True, main=QUEUE_ONLY)
def numbers_in_the_segment(exim):
    """The mail user writes the number of a process of root's over that of the mirror, where it stands.  `fastspool stop` by
    root ends the mirror, and leaves that process alone."""
    exim.submit(Message())
    exim.queued = 1
    mirror = exim.status()["mirror_pid"]
    bystander = innocent()
    attack("replace", mirror, bystander.pid).wait()
    exim.tool("stop")
    wait_for(lambda: not pathlib.Path(f"/proc/{mirror}").exists(), "the mirror is gone")    # its lock was free before that
    check(bystander.poll() is None, f"a process that the segment named has ended: {bystander.returncode}")
    kill(bystander.pid)


@test(library=True, main=QUEUE_ONLY)
def named_in_the_lock(exim):
    """The lock names a living process of root's.  A queue run of root's takes the lock over within seconds, and the
    process is left alone.  While the lock is written again and again, SIGTERM ends a process that waits for it,
    and the mirror."""
    exim.submit(exim.expect(Message(), "sink"))
    bystander = innocent()
    attack("name", bystander.pid).wait()
    began = time.monotonic()
    exim.run("-q")
    check(time.monotonic() - began < 20, f"a queue run took {time.monotonic() - began:.0f} s")
    attacker = attack("keep", bystander.pid)
    waiting = subprocess.Popen([EXIM, "-q"], env=exim.environment(), cwd="/", stdin=subprocess.DEVNULL,
                               stdout=subprocess.DEVNULL)
    wait_for(lambda: sleeps_in(waiting.pid, "futex"), "a process waits for the lock")
    waiting.terminate()
    check(waiting.wait(60) == -signal.SIGTERM, "SIGTERM does not end the wait")
    mirror = exim.status()["mirror_pid"]
    check(mirror > 0, f"{exim.status()}")
    os.kill(mirror, signal.SIGTERM)
    wait_for(lambda: not pathlib.Path(f"/proc/{mirror}").exists(), "the mirror ends")
    end(attacker)
    check(bystander.poll() is None, f"a process that the lock named has ended: {bystander.returncode}")
    kill(bystander.pid)
    exim.run("-q")


# --- the mail user writes to the database -------------------------------------------------------------------------------

@test(library=True, main=QUEUE_ONLY)
def database_read_without_root(exim):
    """LMDB believes the pages of its file, and the mutexes in its lock file, and the mail user can write both.  Where root
    verifies or dumps the database, LMDB runs with the mail user's rights for good, and without root's terminal."""
    exim.submit(Message())
    exim.queued = 1
    exim.tool("stop")
    library, report = exim.work / "reader.so", exim.work / "report"
    source = pathlib.Path(__file__).with_name("reader.c")
    subprocess.run(["cc", "-O1", "-D_GNU_SOURCE", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    for command, said in ((["verify"], "all is well"), (["dump", "database"], "inode 1 directory")):
        report.write_text("")
        report.chmod(0o666)
        result = subprocess.run([TOOL, *command], capture_output=True, text=True, timeout=60,
                                env={**exim.environment(), "LD_PRELOAD": str(library), "READER_REPORT": str(report)})
        check(result.returncode == 0 and said in result.stdout, f"{result.stdout[-500:]} {result.stderr}")
        lines = report.read_text().split("\n")[:-1]
        own = " ".join([str(pwd.getpwnam(MAIL_USER).pw_uid)] * 3) + " alone"
        check(lines and set(lines) == {own}, f"{command}: LMDB runs with {lines}, and not {own}")


# --- the mail user's file systems ---------------------------------------------------------------------------------------

def mounted_by_the_mail_user(place):
    """What fusermount(1) mounts for him, with a type of his choice.  Returns its device, open."""
    fuse = os.open("/dev/fuse", os.O_RDWR)
    user = pwd.getpwnam(MAIL_USER)
    place.mkdir(parents=True)
    os.chown(place, user.pw_uid, user.pw_gid)
    libc = ctypes.CDLL(None, use_errno=True)
    options = f"fd={fuse},rootmode=40000,user_id={user.pw_uid},group_id={user.pw_gid}"
    check(libc.mount(b"x", os.fsencode(place), b"fuse.fastspool", 0x6, options.encode()) == 0, os.strerror(ctypes.get_errno()))
    return fuse


@test(library=True, main=QUEUE_ONLY)
def mounts_that_say_view(exim):
    """The mail user mounts file systems of the view's type, on directories whose names control a terminal.  One where no view
    can be is none; the name of another has no control character in what root reads."""
    exim.start()
    exim.submit(Message())
    exim.queued = 1
    evil = "\033]0;evil\007"
    fuses = [mounted_by_the_mail_user(exim.spool / evil)]
    before = exim.tool("status")
    check("all is well" in before, before)
    fuses.append(mounted_by_the_mail_user(exim.spool / (evil + "queue") / "input"))
    for command in ("status", "status --json", "doctor"):
        result = subprocess.run([TOOL, *command.split()], env=exim.environment(), capture_output=True, timeout=60)
        check(b"queue/input" in result.stdout, result.stdout.decode()[-800:])
        check(b"\033" not in result.stdout and b"u001b" not in result.stdout, result.stdout.decode()[-800:])
    for fuse in fuses:
        os.close(fuse)
    for place in (exim.spool / evil, exim.spool / (evil + "queue") / "input"):
        subprocess.run(["umount", "--lazy", place], check=True)
        place.rmdir()


# --- names on root's command line -----------------------------------------------------------------------------------------

COMPLETE = """
. /usr/share/bash-completion/completions/fastspool
COMP_WORDS=(fastspool "$@") COMP_CWORD=$#
_fastspool
printf '%s\\n' "${COMPREPLY[@]}"
"""


@test(library=True)
def names_in_the_completion(exim):
    """The mail user names a file so that a shell would take the name, or a part of it, for a command.  Root's completion runs
    nothing, and offers no such name."""
    cases = exim.work / "completion"
    cases.mkdir()
    names = ["$(id>pwned)", "`id>pwned`", "plain", "x;id>pwned", "-x", "*", "x$HOME", "\\x41", "'", '"', "a&b"]
    script = f"cd {exim.spool} && mkdir -p input && cd input && " + " && ".join(f"echo x >./{shlex.quote(name)}" for name in names)
    status, _, errors = served("sh", "-c", script, FASTSPOOL_SPOOL=str(exim.spool))
    check(status == 0, errors)
    for words in (("cat", "input/"), ("cat", ""), ("ls", "input/")):
        result = subprocess.run(["bash", "-c", COMPLETE, "bash", *words], cwd=cases, env=exim.environment(), capture_output=True,
                                text=True, timeout=30)
        offered = set(result.stdout.split("\n")[:-1])
        check(not (cases / "pwned").exists(), "root's completion has run a command of the mail user's")
        check("input/plain" in offered, f"{words}: {result.stdout} {result.stderr}")
        check(all(re.fullmatch("[a-zA-Z0-9_./-]+", name) for name in offered), f"{words}: {offered}")


# --- the mail user's state directory ------------------------------------------------------------------------------------

def ends(exim, *command):
    """Root's COMMAND ends by itself, or by SIGTERM."""
    process = subprocess.Popen(command, env=exim.environment(), cwd="/", stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL)
    try:
        process.wait(4)
    except subprocess.TimeoutExpired:
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            waits = pathlib.Path(f"/proc/{process.pid}/wchan").read_text()
            end(process)
            return f"{' '.join(map(str, command))} waits in {waits}, and SIGTERM does not end it"
    return None


@test(library=True, main=QUEUE_ONLY)
def fifos_in_the_state_directory(exim):
    """The mail user puts a FIFO in the place of each file of the state directory, and no store is in memory.  No process of root's
    waits for it where SIGTERM has no effect."""
    exim.submit(Message())
    state = exim.spool / ".fastspool"
    found = []
    for name in ("runtime.new", "runtime", "lock", "mirror.lock", "journal/0000", "mirror/data.mdb"):
        exim.reboot()
        shutil.copytree(state, "/srv/before", dirs_exist_ok=False)
        place = state / name
        if place.is_dir():
            shutil.rmtree(place)
        place.unlink(missing_ok=True)
        os.mkfifo(place)
        os.chown(place, pwd.getpwnam(MAIL_USER).pw_uid, -1)
        for command in ((EXIM, "-bp"), (TOOL, "verify")):
            waits = ends(exim, *command)
            found += [f"{name}: {waits}"] if waits else []
        exim.reboot()
        shutil.rmtree(state)
        shutil.move("/srv/before", state)
        subprocess.run(["chown", "-R", f"{MAIL_USER}:{MAIL_USER}", state], check=True)
    check(not found, "\n".join(found))
    exim.queued = 1


# --- descriptors at exec ----------------------------------------------------------------------------------------------

@contextlib.contextmanager
def locked(path, kind):
    """A process of the mail user has locked PATH.  KIND: "flock", "shared", or a command of fcntl(2).  Its number."""
    user = pwd.getpwnam("Debian-exim")
    ready, told = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.setgroups([])
            os.setgid(user.pw_gid)
            os.setuid(user.pw_uid)
            file = os.open(path, os.O_RDWR)
            if kind in ("flock", "shared"):
                fcntl.flock(file, fcntl.LOCK_EX if kind == "flock" else fcntl.LOCK_SH)
            else:
                fcntl.fcntl(file, kind, struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 1, 0))
            os.write(told, b"1")
            signal.pause()
        finally:
            os._exit(1)
    os.close(told)
    check(os.read(ready, 1) == b"1", f"the mail user can't lock {path}")
    try:
        yield pid
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(ready)


def names(exim, pid, status, *arguments, says=()):
    """fastspool ARGUMENTS ends with STATUS, and names process PID."""
    result = exim.command(*arguments, program=TOOL, stock=True, timeout=60)
    said = (result.stdout + result.stderr).decode()
    check(result.returncode == status and all(word in said for word in (f"process {pid} (python3)", *says)),
          f"fastspool {' '.join(map(str, arguments))}: exit {result.returncode}, {said!r}, and process {pid} has the lock")


@test(library=True, main=QUEUE_ONLY, fastspool=("view = auto",))
def a_lock_of_the_view(exim):
    """A process of the mail user has the view's lock: `view`, `stop` and `export` name it at once, as `status` and `doctor`
    do, and mail goes on.  When it has ended the view is mounted."""
    exim.start()
    wait_for(lambda: exim.status()["view"].startswith("mounted"), "the view is mounted")
    exim.tool("stop")
    lock = exim.spool / ".fastspool/view.lock"
    for kind in ("shared", fcntl.F_OFD_SETLK):
        with locked(lock, kind) as pid:
            names(exim, pid, 1, "view", exim.spool, says=("which is no view", f"kill {pid}"))
    with locked(lock, "flock") as pid:
        exim.submit(Message())
        exim.queued += 1
        names(exim, pid, 1, "status", says=("no view can be mounted",))
        names(exim, pid, 2, "doctor", says=("which is no view",))
        began = time.monotonic()
        names(exim, pid, 1, "stop")
        check(time.monotonic() - began < 10, "a lock of the mail user's is waited for")
        exim.stop()
        names(exim, pid, 1, "export", "--yes")
    exim.tool("run", "--", "true")
    wait_for(lambda: exim.status()["view"].startswith("mounted"), "the view is mounted")


@test(library=True, main=QUEUE_ONLY, fastspool=("view = auto",))
def the_lock_of_all_views(exim):
    """The lock that says "a view of this spool lives" is root's: the mail user can't hold it, and sees whether it is held."""
    exim.tool("run", "--", "true")
    wait_for(lambda: exim.status()["view"].startswith("mounted"), "the view is mounted")
    lock = next(pathlib.Path("/run/fastspool").glob(".*.view"))
    check(lock.stat().st_uid == 0 and lock.stat().st_mode & 0o077 == 0, f"{lock} is {lock.stat()}")
    exim.fastspool_configuration(f"memory = {exim.memory}", f"state = {exim.spool}/.another")
    result = exim.command("-be", "${if exists{%s/input}{yes}{no}}" % exim.spool, user="Debian-exim")
    check(b"the view of another state" in result.stdout + result.stderr, f"the mail user makes a state beside the view's: {result}")
    exim.fastspool_configuration(f"memory = {exim.memory}", "view = auto")


@test(library=True, main=QUEUE_ONLY)
def a_lock_of_the_mirror(exim):
    """A process of the mail user has the mirror's lock, and none runs: who needs one is told which it is, and waits no longer
    than it must; a start of Exim is refused.  When it has ended all is as before."""
    exim.submit(Message())
    exim.queued += 1
    exim.tool("stop")
    for kind in ("flock", "shared"):
        with locked(exim.spool / ".fastspool/mirror.lock", kind) as pid:
            says = ("which is no mirror", f"kill {pid}")
            names(exim, pid, 2, "status", says=says)
            names(exim, pid, 2, "doctor", says=says)
            names(exim, pid, 2, "doctor", "--start", says=("Exim must not start so: ", *says))
            names(exim, pid, 1, "export", "--yes", says=says)
            names(exim, pid, 2, "status", says=says)
            if kind == "flock":
                result = exim.command("-bp")
                check(f"process {pid} (python3)".encode() in result.stderr, f"exim -bp: {result}")
                names(exim, pid, 1, "compact", says=says)
                names(exim, pid, 1, "stop", says=says)
    check(len(exim.queue()) == 1, "the message is gone")


@test(library=True, main=QUEUE_ONLY)
def mail_waits_for_a_lock(exim):
    """A process of the mail user gets the mirror's lock while Exim runs: messages wait, or are refused where the lock is shared, and
    syslog says so once, of all that wait, with the file, and that status names the process.  The next time it is said again."""
    log = Log()
    exim.start()
    exim.submit(exim.expect(Message(), "sink"))

    def send(message):
        with contextlib.closing(Client()) as client:
            return client.send(message)[0]

    for times, kind in ((1, "flock"), (2, "shared")):
        exim.tool("stop")
        with contextlib.ExitStack() as stack, concurrent.futures.ThreadPoolExecutor(3) as pool:
            pid = stack.enter_context(locked(exim.spool / ".fastspool/mirror.lock", kind))
            messages = [Message() for _ in range(3)]
            answers = [pool.submit(send, message) for message in messages]
            wait_for(lambda: len(log.lines("no sign of life of the mirror")) == times, "syslog says that mail waits")
            names(exim, pid, 2, "status", says=("which is no mirror", f"kill {pid}"))
            if kind == "shared":
                concurrent.futures.wait(answers)
            time.sleep(1)
            stack.close()
            for message, answer in zip(messages, answers):
                check(answer.result() == (250 if kind == "flock" else 451), f"{kind}: the answer is {answer.result()}")
                if kind == "flock":
                    exim.expect(message, "sink")
            exim.tool("run", "--", "true")
        said = log.lines("no sign of life of the mirror")
        check(len(said) == times and f"{exim.spool}/.fastspool/mirror.lock: " in said[-1] and "`fastspool status`" in said[-1], f"{said}")
    log.close()
    exim.deliver_queue()


@test(library=True, main=QUEUE_ONLY)
def a_lock_of_the_store(exim):
    """A process of the mail user has the lock of those who use the store, and there is none: whoever is refused is told which."""
    exim.submit(Message())
    exim.queued += 1
    exim.tool("stop")
    for kind in (fcntl.F_OFD_SETLK, fcntl.F_SETLK):
        with locked(exim.spool / ".fastspool/lock", kind) as pid:
            names(exim, pid, 2, "status")
            names(exim, pid, 1, "flush")
    check(len(exim.queue()) == 1, "the message is gone")


@test(library=True, main=QUEUE_ONLY, fastspool=("view = auto",))
def a_lock_of_the_server(exim):
    """A process of the mail user has the lock of the view's server, which waits for it: `status` and `doctor` name it."""
    exim.start()
    wait_for(lambda: exim.status()["view"].startswith("mounted"), "the view is mounted")
    exim.tool("stop")
    with locked(exim.spool / ".fastspool/server.lock", fcntl.F_SETLK) as pid:
        exim.tool("run", "--", "true")
        wait_for(lambda: exim.status()["view_pid"], "the view has started")
        names(exim, pid, 1, "status", says=("no view can be mounted",))
        names(exim, pid, 2, "doctor")
    wait_for(lambda: exim.status()["view"].startswith("mounted"), "the view is mounted")


@test(library=True, main=QUEUE_ONLY)
def a_lock_of_the_database(exim):
    """A process of the mail user has LMDB's lock: the mirror says so, and who waits for it gives up."""
    exim.submit(Message())
    exim.queued += 1
    exim.tool("stop")
    with locked(exim.spool / ".fastspool/mirror/lock.mdb", fcntl.F_SETLK):
        result = exim.command("-bp")
        check(b"which is no mirror, holds the lock" in result.stderr, f"exim -bp: {result}")
        result = exim.command("status", program=TOOL, stock=True)
        check(result.returncode == 2 and b"which is no mirror, holds the lock" in result.stdout, f"status: {result}")
    wait_for(lambda: exim.status().get("recovering") is False, "the store is recovered")
    check(len(exim.queue()) == 1, "the message is gone")


@test(library=True)
def programs_without_the_library(exim):
    """A program without the library gets private copies of its standard streams, and no other spool file.  A program with the
    library finds its descriptors by their identity."""
    script = f"""
cd {exim.spool} && mkdir -p input && echo content >input/file && exec 7<input/file <input/file
read -r first </dev/null
env -u LD_PRELOAD cat
env -u LD_PRELOAD sh -c 'ls -l /proc/$$/fd' | grep -c '{SEGMENT}'
cat <&7
rm input/file
"""
    status, output, errors = served("sh", "-c", script, FASTSPOOL_SPOOL=str(exim.spool))
    check(output == "content\n0\ncontent\n", f"exit {status}, {output!r}, {errors!r}")


# --- what an attacker would find ------------------------------------------------------------------------------------

@test(library=True, main=QUEUE_ONLY)
def no_mail_in_a_core_dump(exim):
    """The store is no part of the core dump of a process that has attached, even if shared memory is dumped."""
    message = exim.expect(Message(), "sink")
    exim.submit(message)
    script = """if 1:
        import ctypes, os, resource, signal, sys
        os.listdir(sys.argv[1])
        print(open("/proc/self/smaps").read(), flush=True)
        open("/proc/self/coredump_filter", "w").write("0x7f")
        resource.setrlimit(resource.RLIMIT_CORE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        os.chdir("/srv")
        ctypes.CDLL(None).prctl(4, 1)       # PR_SET_DUMPABLE: borrowing the owner's rights for files has taken that away
        os.kill(os.getpid(), signal.SIGABRT)"""
    _, shown, errors = served("python3", "-c", script, f"{exim.spool}/input")
    area = next((part for part in shown.split("VmFlags:") if SEGMENT in part and "/segment" in part), None)
    check(area, f"the store is not mapped: this test can't fail; {errors}")
    flags = shown[shown.index(area) + len(area):].split("\n", 1)[0].split()
    check("dd" in flags, f"the store would be dumped: {flags}")
    cores = list(pathlib.Path("/srv").glob("core*"))
    check(cores or pathlib.Path("/proc/sys/kernel/core_pattern").read_text() != "core\n", "no core was dumped")
    for core in cores:
        check(message.body[:60] not in core.read_bytes(), "the core dump holds a mail")
        core.unlink()
    exim.run("-qff")
    exim.wait_arrived()


@test(library=True, main=QUEUE_ONLY)
def no_way_back_to_root(exim):
    """A mirror that could become root again, because its starter lets it keep its capabilities, does not start."""
    exim.submit(exim.expect(Message(), "sink"))
    exim.tool("stop")
    result = subprocess.run(["timeout", "60", "setpriv", "--securebits", "+no_setuid_fixup", TOOL, "mirror", str(exim.spool)],
                            capture_output=True)
    check(result.returncode == 1 and b"for good: Operation not permitted" in result.stderr, f"the mirror: {result}")
    exim.run("-qff")
    exim.wait_arrived()


# --- with a view ------------------------------------------------------------------------------------------------------

class DeadView:
    """What a view leaves when its server has died: a FUSE mount over input/ that says ENOTCONN to everybody."""

    def __init__(self, exim):
        self.place = str(exim.spool / "input")

    def __enter__(self):
        os.makedirs(self.place, exist_ok=True)
        try:
            fuse = os.open("/dev/fuse", os.O_RDWR)
        except OSError as error:
            raise Skip(f"no /dev/fuse: {error}") from None
        options = f"fd={fuse},rootmode=40000,user_id=0,group_id=0,allow_other".encode()
        mounted = ctypes.CDLL(None, use_errno=True).mount(b"fastspool", self.place.encode(), b"fuse.fastspool", 0, options)
        os.close(fuse)
        if mounted < 0:
            raise Skip(f"no FUSE mount: {os.strerror(ctypes.get_errno())}")

    def __exit__(self, *_):
        subprocess.run(["umount", self.place], check=True)


@test(library=True, main=QUEUE_ONLY)
def only_the_mta(exim):
    """With a view, even a dead one, the library serves Exim in process, as root or as its own user.  It serves no shell and no
    `fastspool run`, nor an Exim that an ordinary user started: those never see the directory of the disk."""
    exim.submit(Message())
    exim.queued = 1
    DEAD = "Transport endpoint is not connected"

    def listing(*command, **keywords):
        return "".join(served(*command, FASTSPOOL_SPOOL=str(exim.spool), **keywords)[1:])

    name = exim.queue()[0]
    check(f"{name}-D" in listing("ls", exim.spool / "input"), "without a view ls isn't served: this test can't fail")
    with DeadView(exim):
        check(exim.queue() == [name], "root's Exim isn't served")
        check(exim.command("-bpc", user="Debian-exim").stdout == b"1\n", "Exim of its own user isn't served")
        check(DEAD in listing("ls", exim.spool / "input"), "ls is served")
        check(DEAD in listing("sh", "-c", f"cat {exim.spool}/input/{name}-D"), "what a shell runs is served")
        ran = exim.command("run", "--spool", exim.spool, "--", "ls", exim.spool / "input", program=TOOL, stock=True)
        check(DEAD in ran.stderr.decode() and ran.stderr.startswith(b"fastspool: the view is dead"),
              f"fastspool run said {ran.stderr!r}")
        user = exim.command("-bpc", user=USER)
        check(b"1" not in user.stdout, f"a user's Exim is served: {user}")
        exim.submit(Message())
        exim.queued = 2
        check(len(exim.queue()) == 2, "root's sendmail isn't served")


@test(library=True, main=QUEUE_ONLY)
def run_by_a_user(exim):
    """Without a view `fastspool run` of a user that may not use the store, a member of the mail group too, is refused with a
    sentence: his Exim would count the disk alone, and end with 0."""
    exim.submit(Message())
    for group in (pwd.getpwnam(USER).pw_gid, exim.spool.stat().st_gid):
        ran = subprocess.run([TOOL, "run", "--", EXIM, "-bpc"], capture_output=True, cwd="/", user=USER, group=group, extra_groups=[],
                             env=exim.environment(True), timeout=60)
        check(ran.returncode == 126 and b"`trusted_user`" in ran.stderr and not ran.stdout, f"{ran}")
    owner = exim.command("run", "--", EXIM, "-bpc", program=TOOL, stock=True, user="Debian-exim")
    check(owner.stdout == b"1\n", f"{owner}")
    exim.run("-Mrm", *exim.queue())


if __name__ == "__main__":
    main("secure")
