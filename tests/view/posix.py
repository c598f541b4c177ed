#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""POSIX behaviour, call by call, of a directory:

    posix.py DIRECTORY [CASE...]

Each case runs in a directory of its own below DIRECTORY, in a process of its own, and prints one line per call:

    rename 12: rename('a', 'b') = 0
    rename 13: link('a', 'c') = ENOENT

What differs between two good file systems (inode numbers, times, sizes of directories, the order of listings) is printed as
a relation: `mtime moved`, `same inode`.  So the output is the same in any directory that behaves like the others.
compare.py runs this program on the view and on ext4.  Root has to run it: some cases become other users.

Failure modes: a case that raises or hangs (20 s) says so in a line, which differs from the reference's.
"""
import ctypes
import errno
import fcntl
import mmap
import os
import select
import signal
import socket
import stat
import struct
import subprocess
import sys
import time

from os import (O_APPEND, O_CREAT, O_DIRECT, O_DIRECTORY, O_DSYNC, O_EXCL, O_NOATIME, O_NOFOLLOW, O_NONBLOCK, O_PATH, O_RDONLY,
                O_RDWR, O_SYNC, O_TMPFILE, O_TRUNC, O_WRONLY)

OWNER, GROUP, MEMBER, OTHER = 23101, 23102, 23103, 23104    # no user of these numbers need exist
AT_FDCWD, RENAME_NOREPLACE, RENAME_EXCHANGE, RENAME_WHITEOUT = -100, 1, 2, 4
UTIME_NOW, UTIME_OMIT = (1 << 30) - 1, (1 << 30) - 2
KEEP_SIZE, PUNCH_HOLE, COLLAPSE, ZERO, INSERT = 1, 2, 8, 16, 32
TICK = 0.03             # s: more than the grain of any file system's times
SECONDS = 120           # for a case: one that takes longer hangs
LIBRARY = bool(os.environ.get("FASTSPOOL_TEST_LIBRARY"))        # the outputs to compare are without a view

libc = ctypes.CDLL(None, use_errno=True)
cases = []


def case(function):
    cases.append(function)
    return function


def shown(value):
    if isinstance(value, bytes):
        return repr(value) if len(value) <= 40 else f"{value[:16]!r}... {len(value)} bytes, hash {digest(value):08x}"
    if isinstance(value, str):
        return repr(value) if len(value) <= 40 else f"{value[:16]!r}... {len(value)} characters"
    if isinstance(value, os.stat_result):
        return attributes(value)
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(shown, value)) + "]"
    return "0" if value is None else str(value)


def digest(data):
    import zlib
    return zlib.crc32(data)


def attributes(found):
    size = "" if stat.S_ISDIR(found.st_mode) else f" size {found.st_size}"
    return f"{stat.filemode(found.st_mode)} {oct(stat.S_IMODE(found.st_mode))} nlink {found.st_nlink} {found.st_uid}:{found.st_gid}{size}"


class Calls:
    """Makes calls by name, and prints each with its result.  A call that fails prints its errno and returns -1."""

    def __init__(self, name):
        self.name, self.count = name, 0

    def say(self, text):
        self.count += 1
        print(f"{self.name} {self.count}: {text}", flush=True)

    def make(self, name, function, arguments, keywords):
        told = ", ".join([shown(one) for one in arguments] + [f"{key}={value}" for key, value in keywords.items()])
        try:
            value = function(*arguments, **keywords)
        except OSError as error:
            self.say(f"{name}({told}) = {errno.errorcode.get(error.errno, error.errno)}")
            return -1
        except (OverflowError, ValueError) as error:
            self.say(f"{name}({told}) = {error}")
            return -1
        self.say(f"{name}({told}) = {shown(value)}")
        return value

    def __getattr__(self, name):
        function = EXTRA.get(name) or getattr(os, name)
        return lambda *arguments, **keywords: self.make(name, function, arguments, keywords)

    def quiet(self, name, *arguments, **keywords):
        """The call without a line; for what is no question.  Returns the errno's name if it fails."""
        try:
            return (EXTRA.get(name) or getattr(os, name))(*arguments, **keywords)
        except OSError as error:
            return errno.errorcode.get(error.errno, str(error.errno))

    def file(self, path, content=b"", mode=0o644):
        """Make a file.  Returns nothing, and prints nothing unless it fails."""
        try:
            fd = os.open(path, O_WRONLY | O_CREAT | O_TRUNC, mode)
            os.write(fd, content)
            os.close(fd)
        except OSError as error:
            self.say(f"can't make {path}: {error.strerror}")

    def holds(self, path):
        try:
            with open(path, "rb") as file:
                return self.say(f"{os.path.basename(path)} holds {shown(file.read())}")
        except OSError as error:
            self.say(f"{path}: {errno.errorcode[error.errno]}")

    def process(self, function, *arguments):
        """Run FUNCTION in a child, and wait.  The numbers of lines go on."""
        reader, writer = os.pipe()
        sys.stdout.flush()
        pid = os.fork()
        if pid == 0:
            status = 0
            try:
                function(*arguments)
            except BaseException as problem:
                self.say(f"raised {problem!r}")
                status = 1
            os.write(writer, struct.pack("i", self.count))
            os._exit(status)
        os.close(writer)
        told = os.read(reader, 4)
        os.close(reader)
        _, status = os.waitpid(pid, 0)
        if told:
            self.count = struct.unpack("i", told)[0]
        if os.WIFSIGNALED(status):
            self.say(f"the child died by {signal.Signals(os.WTERMSIG(status)).name}")

    def user(self, uid, gid, function, *arguments, groups=()):
        def become():
            os.setgroups(groups)
            os.setresgid(gid, gid, gid)
            os.setresuid(uid, uid, uid)
            function(*arguments)
        self.process(become)


# --- calls that os does not have -----------------------------------------------------------------------------------

def checked(result):
    if result < 0:
        raise OSError(ctypes.get_errno(), "")
    return result


def renameat2(old, new, flags):
    return checked(libc.renameat2(AT_FDCWD, old.encode(), AT_FDCWD, new.encode(), flags))


def fallocate(fd, mode, offset, length):
    return checked(libc.fallocate(fd, mode, ctypes.c_long(offset), ctypes.c_long(length)))


def lock(fd, kind, start=0, length=0):
    fcntl.fcntl(fd, fcntl.F_SETLK, struct.pack("hhqqi4x", kind, os.SEEK_SET, start, length, 0))


def locked(fd, kind, start=0, length=0):
    """F_GETLK: the type of the lock found, its start and its length."""
    found = struct.unpack("hhqqi4x", fcntl.fcntl(fd, fcntl.F_GETLK, struct.pack("hhqqi4x", kind, os.SEEK_SET, start, length, 0)))
    return {fcntl.F_RDLCK: "read", fcntl.F_WRLCK: "write"}[found[0]] + f" {found[2]} {found[3]}" if found[0] != fcntl.F_UNLCK else "none"


def utimensat(path, atime, mtime, flags=0):
    times = ((ctypes.c_long * 2) * 2)((ctypes.c_long * 2)(*atime), (ctypes.c_long * 2)(*mtime))
    return checked(libc.utimensat(AT_FDCWD, path.encode(), times, flags))


def syncfs(fd):
    return checked(libc.syncfs(fd))


def sync_file_range(fd, offset, length, flags):
    return checked(libc.sync_file_range(fd, ctypes.c_long(offset), ctypes.c_long(length), flags))


def readahead(fd, offset, count):
    return checked(libc.readahead(fd, ctypes.c_long(offset), ctypes.c_size_t(count)))


def linkat(old, new, flags):
    return checked(libc.linkat(AT_FDCWD, old.encode(), AT_FDCWD, new.encode(), flags))


def faccessat(path, mode, flags):
    return checked(libc.faccessat(AT_FDCWD, path.encode(), mode, flags))


def bad_read(fd):
    return checked(libc.syscall(0, fd, ctypes.c_void_p(1), ctypes.c_size_t(10)))


def bad_write(fd):
    return checked(libc.syscall(1, fd, ctypes.c_void_p(1), ctypes.c_size_t(10)))


def bad_open():
    return checked(libc.open(ctypes.c_void_p(1), 0))


def getdents(fd, size):
    """The names of one getdents64."""
    buffer = ctypes.create_string_buffer(size)
    length, at, names = checked(libc.syscall(217, fd, buffer, size)), 0, []
    while at < length:
        one = struct.unpack_from("=H", buffer.raw, at + 16)[0]
        names.append(buffer.raw[at + 19:at + one].split(b"\0")[0].decode(errors="surrogateescape"))
        at += one
    return names


EXTRA = {function.__name__: function for function in (
    renameat2, fallocate, lock, locked, utimensat, syncfs, sync_file_range, readahead, linkat, faccessat, bad_read, bad_write, bad_open,
    getdents)}
EXTRA["flock"] = fcntl.flock
EXTRA["fcntl"] = fcntl.fcntl
EXTRA["status_flags"] = lambda fd: oct(fcntl.fcntl(fd, fcntl.F_GETFL) & ~0o100000)


class Dirent(ctypes.Structure):
    _fields_ = [("ino", ctypes.c_uint64), ("off", ctypes.c_int64), ("reclen", ctypes.c_uint16), ("type", ctypes.c_uint8),
                ("name", ctypes.c_char * 256)]


libc.opendir.restype = libc.fdopendir.restype = ctypes.c_void_p
libc.readdir.restype = ctypes.POINTER(Dirent)
libc.telldir.restype = ctypes.c_long
for name in ("readdir", "telldir", "rewinddir", "closedir"):
    getattr(libc, name).argtypes = [ctypes.c_void_p]
libc.seekdir.argtypes = [ctypes.c_void_p, ctypes.c_long]


class Stream:
    """opendir(3) and its friends."""

    def __init__(self, path):
        self.stream = libc.opendir(path.encode())
        if not self.stream:
            raise OSError(ctypes.get_errno(), "")

    def next(self):
        """(name, inode, type), or None at the end."""
        ctypes.set_errno(0)
        entry = libc.readdir(self.stream)
        if not entry:
            if ctypes.get_errno():
                raise OSError(ctypes.get_errno(), "")
            return None
        return entry.contents.name.decode(errors="surrogateescape"), entry.contents.ino, entry.contents.type

    def rest(self):
        found = []
        while entry := self.next():
            found.append(entry[0])
        return found

    def tell(self):
        return libc.telldir(self.stream)

    def seek(self, place):
        libc.seekdir(self.stream, place)

    def rewind(self):
        libc.rewinddir(self.stream)

    def close(self):
        libc.closedir(self.stream)


# --- opening --------------------------------------------------------------------------------------------------------

@case
def open_flags(t):
    t.file("f", b"0123456789")
    os.mkdir("d")
    for flags in (O_RDONLY, O_WRONLY, O_RDWR, O_RDONLY | O_APPEND, O_WRONLY | O_APPEND, O_RDWR | O_NOFOLLOW, O_RDONLY | O_NONBLOCK,
                  O_RDWR | O_SYNC, O_RDWR | O_DSYNC, O_RDONLY | O_NOATIME, O_PATH, 3):
        fd = t.open("f", flags)
        t.status_flags(fd)
        t.read(fd, 4)
        t.write(fd, b"ab")
        t.fstat(fd)
        t.lseek(fd, 0, os.SEEK_CUR)
        t.close(fd)
    t.holds("f")
    for path in ("missing", "f", "d", "f/", "f/x", "d/", "d/.", "missing/x", "", "d/../f", "./f", "d//"):
        for flags in (O_RDONLY, O_WRONLY, O_RDONLY | O_DIRECTORY, O_PATH | O_DIRECTORY, O_RDONLY | O_NOFOLLOW):
            fd = t.open(path, flags)
            if fd >= 0:
                os.close(fd)
    t.bad_open()


@case
def open_create(t):
    t.file("f", b"0123456789")
    os.mkdir("d")
    for path in ("new", "f", "d", "new2/", "missing/x", "f/x", "d/x", ".", "..", ""):
        for flags in (O_RDWR | O_CREAT | O_EXCL, O_RDWR | O_CREAT, O_RDONLY | O_CREAT, O_WRONLY | O_CREAT | O_TRUNC,
                      O_RDONLY | O_CREAT | O_NOFOLLOW):
            fd = t.open(path, flags, 0o640)
            if fd >= 0:
                t.fstat(fd)
                os.close(fd)
    t.open("x", O_RDWR | O_CREAT | O_DIRECTORY, 0o640)
    t.open("d", O_RDWR | O_CREAT | O_DIRECTORY, 0o640)
    fd = t.open("readonly", O_RDWR | O_CREAT | O_EXCL, 0o000)
    t.write(fd, b"mode 0 may be written by who made it")
    t.close(fd)
    t.holds("readonly")


@case
def open_truncate(t):
    for flags in (O_RDONLY, O_WRONLY, O_RDWR, O_WRONLY | O_APPEND):
        t.file("f", b"0123456789")
        reader = os.open("f", O_RDONLY)
        os.read(reader, 4)
        fd = t.open("f", flags | O_TRUNC)
        t.fstat(fd)
        t.read(reader, 4)
        t.write(fd, b"ab")
        t.pread(reader, 10, 0)
        os.close(fd)
        os.close(reader)
    os.mkdir("d")
    t.open("d", O_RDONLY | O_TRUNC)
    t.open("d", O_WRONLY | O_TRUNC)
    t.file("f", b"0123456789")
    t.open("f", O_RDWR | O_CREAT | O_EXCL | O_TRUNC)
    t.holds("f")


@case
def open_tmpfile(t):
    fd = t.open(".", O_RDWR | O_TMPFILE, 0o600)
    t.write(fd, b"abc")


@case
def open_direct(t):
    fd = t.open("f", O_RDWR | O_CREAT | O_DIRECT, 0o600)
    area = mmap.mmap(-1, 8192)
    area.write(b"x" * 8192)
    t.say(f"pwrite = {t.quiet('pwritev', fd, [area], 0)}")
    t.say(f"pread = {t.quiet('preadv', fd, [area], 4096)}")
    t.fstat(fd)


@case
def create_modes(t):
    for mask in (0, 0o022, 0o027, 0o077, 0o777):
        os.umask(mask)
        for mode in (0o666, 0o600, 0o777, 0o4755, 0o2755, 0o1777, 0):
            fd = t.open("f", O_RDWR | O_CREAT | O_EXCL, mode)
            t.fstat(fd)
            os.close(fd)
            os.unlink("f")
            t.mkdir("d", mode)
            t.stat("d")
            os.rmdir("d")
            t.mknod("n", stat.S_IFREG | mode)
            t.stat("n")
            t.quiet("unlink", "n")


@case
def errors_of_descriptors(t):
    t.file("f", b"0123456789")
    os.mkdir("d")
    read, write, directory, path = (os.open(*one) for one in (("f", O_RDONLY), ("f", O_WRONLY), ("d", O_RDONLY), ("f", O_PATH)))
    for fd in (read, write, directory, path):
        t.read(fd, 4)
        t.pread(fd, 4, 0)
        t.write(fd, b"x")
        t.pwrite(fd, b"x", 0)
        t.ftruncate(fd, 3)
        t.lseek(fd, 1, os.SEEK_SET)
        t.fsync(fd)
        t.fchmod(fd, 0o600)
        t.fchown(fd, 0, 0)
        t.fchdir(fd)
        t.bad_read(fd)
        t.bad_write(fd)
        t.fallocate(fd, 0, 0, 10)
        t.getdents(fd, 8)
        t.fstatvfs(fd) if fd == -2 else None
    t.pread(read, 4, -1)
    t.pwrite(write, b"x", -1)
    t.read(read, 0)
    t.write(write, b"")
    for fd in (read, write, directory, path):
        t.close(fd)
        t.close(fd)


# --- content --------------------------------------------------------------------------------------------------------

@case
def append(t):
    one, other = (t.open("f", O_RDWR | O_CREAT | O_APPEND, 0o600) for _ in range(2))
    plain = t.open("f", O_RDWR)
    for number in range(3):
        for fd in (one, other, plain):
            t.write(fd, b"%d%d" % (number, fd))
            t.lseek(fd, 0, os.SEEK_CUR)
    t.lseek(one, 1, os.SEEK_SET)
    t.write(one, b"end")
    t.pwrite(one, b"also", 0)               # Linux appends
    t.lseek(one, 0, os.SEEK_CUR)
    t.pwritev(plain, [b"flag"], 0, os.RWF_APPEND)
    t.ftruncate(one, 5)
    t.write(other, b"after")
    t.fcntl(plain, fcntl.F_SETFL, O_APPEND)
    t.write(plain, b"now")
    t.fcntl(one, fcntl.F_SETFL, 0)
    t.lseek(one, 0, os.SEEK_SET)
    t.write(one, b"first")
    t.status_flags(one)
    t.status_flags(plain)
    t.holds("f")


@case
def append_together(t):
    """Four processes append lines, by one descriptor that they inherit and by their own; none is torn or lost."""
    shared = os.open("f", O_WRONLY | O_CREAT | O_APPEND, 0o600)
    together = os.open("g", O_WRONLY | O_CREAT, 0o600)
    children = []
    for number in range(4):
        pid = os.fork()
        if pid == 0:
            own = os.open("f", O_WRONLY | O_APPEND)
            for line in range(100):
                os.write(own if line % 2 else shared, b"%d %03d %s\n" % (number, line, bytes([65 + number]) * (line * 3)))
                os.write(together, b"%d %03d\n" % (number, line))
            os._exit(0)
        children.append(pid)
    for pid in children:
        os.waitpid(pid, 0)
    for name in ("f", "g"):
        with open(name, "rb") as file:
            lines = file.read().splitlines()
        t.say(f"{name}: {len(lines)} lines, {len(set(line[:5] for line in lines))} different, hash {digest(b''.join(sorted(lines))):08x}")


@case
def reads_and_writes(t):
    fd = t.open("f", O_RDWR | O_CREAT, 0o600)
    pattern = bytes(range(251)) * 6000
    for offset in (0, 1, 1023, 1024, 1025, 4095, 4096, 4097, 65535, 65536, 131071, 131072, 131073, 1 << 20):
        for size in (1, 511, 1024, 4096, 4097, 65537, 131073, 300000):
            t.pwrite(fd, pattern[offset % 251:offset % 251 + size], offset)
            t.pread(fd, size + 7, max(0, offset - 3))
    t.fstat(fd)
    t.lseek(fd, 0, os.SEEK_SET)
    for size in (1, 10, 4096, 131072, 500000, 5000000, 1):
        t.read(fd, size)
        t.lseek(fd, 0, os.SEEK_CUR)
    t.writev(fd, [b"abc", b"", b"d" * 5000, b"e"])
    t.say(f"readv: {os.preadv(fd, [bytearray(3), bytearray(5000), bytearray(100000)], os.fstat(fd).st_size - 5004)}")
    t.pread(fd, 10, 1 << 40)
    t.pread(fd, 10, os.fstat(fd).st_size)
    t.bad_read(fd)
    t.bad_write(fd)
    with open("f", "rb") as file:
        t.say(f"hash {digest(file.read()):08x}")


@case
def holes(t):
    fd = t.open("f", O_RDWR | O_CREAT, 0o600)
    t.pwrite(fd, b"far", 200000)
    t.pread(fd, 10, 100000)
    t.pread(fd, 20, 199990)
    t.fstat(fd)
    t.ftruncate(fd, 100)
    t.ftruncate(fd, 300000)
    t.pread(fd, 300000, 0)
    t.pwrite(fd, b"x" * 5000, 10)
    t.ftruncate(fd, 2000)
    t.ftruncate(fd, 8000)
    t.pread(fd, 10000, 0)
    t.lseek(fd, 10000, os.SEEK_SET)
    t.read(fd, 1)
    t.write(fd, b"y")
    t.fstat(fd)
    t.pread(fd, 20, 7990)


@case
def seeks(t):
    t.file("f", b"0123456789" * 1000)
    fd = t.open("f", O_RDWR)
    for offset, whence in ((5, 0), (5, 1), (-3, 1), (-5, 2), (0, 2), (100, 2), (-1, 0), (-20000, 1), (-20000, 2), (0, 9), (1 << 40, 0),
                           (0, 3), (5000, 3), (10000, 3), (20000, 3), (-1, 3), (0, 4), (5000, 4), (10000, 4), (-1, 4)):
        t.lseek(fd, offset, whence)
        t.lseek(fd, 0, os.SEEK_CUR)
    sparse = t.open("g", O_RDWR | O_CREAT, 0o600)
    os.pwrite(sparse, b"data", 1 << 20)
    found = t.quiet("lseek", sparse, 1 << 20, os.SEEK_DATA)
    t.say(f"data is found where it is: {found}")
    found = t.quiet("lseek", sparse, (1 << 20) + 1, os.SEEK_HOLE)
    t.say(f"the end is a hole: {found}")
    found = t.quiet("lseek", sparse, 0, os.SEEK_DATA)
    t.say(f"data may begin at or before it: {0 <= found <= 1 << 20}")
    os.mkdir("d")
    directory = os.open("d", O_RDONLY)
    t.lseek(directory, 0, os.SEEK_SET)
    t.lseek(directory, -1, os.SEEK_SET)


@case
def truncation(t):
    t.file("f", b"0123456789")
    os.mkdir("d")
    for path, size in (("f", 5), ("f", 5), ("f", 12), ("f", -1), ("missing", 0), ("d", 0), ("f/", 0), ("f/x", 0), ("f", 0)):
        t.truncate(path, size)
        t.holds("f")
    fd = os.open("f", O_RDONLY)
    t.ftruncate(fd, 3)
    fd = os.open("f", O_RDWR)
    t.ftruncate(fd, 70000)
    t.ftruncate(fd, -1)
    t.fstat(fd)
    t.truncate("f", 3 << 30)
    t.fstat(fd)
    t.pread(fd, 10, (3 << 30) - 10)
    t.pwrite(fd, b"end", (3 << 30) - 3)
    t.pread(fd, 10, (3 << 30) - 10)
    t.truncate("f", 10)


@case
def big_offsets(t):
    """The store's limit is 4 GiB."""
    fd = t.open("f", O_RDWR | O_CREAT, 0o600)
    t.pwrite(fd, b"x", (4 << 30) - 1)
    t.fstat(fd)
    t.pwrite(fd, b"x", 4 << 30)
    t.truncate("f", 5 << 30)


# --- attributes -----------------------------------------------------------------------------------------------------

def times(path):
    found = os.stat(path)
    return found.st_mtime_ns, found.st_ctime_ns


def moves(t, what, paths, function):
    """Say which times of PATHS FUNCTION moves."""
    before = [times(path) for path in paths]
    time.sleep(TICK)
    began = time.time_ns()
    result = function()
    text = []
    for path, (mtime, ctime) in zip(paths, before):
        try:
            now = times(path)
        except OSError:
            text.append(f"{path} gone")
            continue
        for name, old, new in (("mtime", mtime, now[0]), ("ctime", ctime, now[1])):
            text.append(f"{path} {name} " + ("stays" if new == old else "moved" if began - 10 ** 8 <= new <= time.time_ns() + 10 ** 7
                                             else "moved elsewhere"))
    t.say(f"{what}: {', '.join(text)}")
    return result


@case
def times_move(t):
    t.file("f", b"0123456789")
    os.mkdir("d")
    t.file("d/g")
    fd = os.open("f", O_RDWR)
    moves(t, "write", ["f", "."], lambda: os.write(fd, b"x"))
    moves(t, "write of nothing", ["f", "."], lambda: os.write(fd, b""))
    moves(t, "read", ["f", "."], lambda: os.read(fd, 2))
    moves(t, "ftruncate to less", ["f"], lambda: os.ftruncate(fd, 3))
    moves(t, "ftruncate to the same", ["f"], lambda: os.ftruncate(fd, 3))
    moves(t, "truncate to the same", ["f"], lambda: os.truncate("f", 3))
    moves(t, "open", ["f"], lambda: os.close(os.open("f", O_RDWR)))
    moves(t, "open O_CREAT", ["f", "."], lambda: os.close(os.open("f", O_RDWR | O_CREAT)))
    moves(t, "open O_TRUNC", ["f"], lambda: os.close(os.open("f", O_RDWR | O_TRUNC)))
    moves(t, "open O_TRUNC of an empty file", ["f"], lambda: os.close(os.open("f", O_RDWR | O_TRUNC)))
    moves(t, "chmod", ["f", "."], lambda: os.chmod("f", 0o600))
    moves(t, "chmod to the same", ["f"], lambda: os.chmod("f", 0o600))
    moves(t, "chown", ["f", "."], lambda: os.chown("f", 1, 1))
    moves(t, "chown of nothing", ["f"], lambda: os.chown("f", -1, -1))
    moves(t, "link", ["f", ".", "d"], lambda: os.link("f", "d/f"))
    moves(t, "rename", ["f", ".", "d"], lambda: os.rename("d/f", "d/f2"))
    moves(t, "rename across", ["f", ".", "d"], lambda: os.rename("d/f2", "f2"))
    moves(t, "unlink", ["f", ".", "d"], lambda: os.unlink("f2"))
    moves(t, "create", ["d", "."], lambda: t.file("d/new"))
    moves(t, "mkdir", ["d", "."], lambda: os.mkdir("d/e"))
    moves(t, "rename of a directory", ["d", "."], lambda: os.rename("d/e", "e"))
    moves(t, "rmdir", ["d", "."], lambda: os.rmdir("e"))
    moves(t, "rename over", ["f", ".", "d/g"], lambda: os.rename("d/new", "d/g"))
    moves(t, "utime", ["f", "."], lambda: os.utime("f", (1, 2)))
    moves(t, "pwrite", ["f"], lambda: os.pwrite(fd, b"x", 100))
    moves(t, "listing", ["d"], lambda: os.listdir("d"))
    moves(t, "a failed mkdir", ["."], lambda: t.quiet("mkdir", "d"))
    moves(t, "a failed unlink", ["."], lambda: t.quiet("unlink", "nothing"))
    os.unlink("f")
    before = os.fstat(fd).st_ctime_ns
    time.sleep(TICK)
    os.fchmod(fd, 0o640)
    t.say(f"fchmod of an unlinked file moves ctime: {os.fstat(fd).st_ctime_ns != before}")


@case
def stat_fields(t):
    t.file("f", b"0123456789")
    t.stat("f")
    t.lstat("f")
    t.stat(".")
    os.mkdir("d", 0o750)
    t.stat("d")
    t.stat(".")
    for name in ("d/a", "d/b"):
        os.mkdir(name)
        t.stat("d")
    t.file("d/c")
    t.stat("d")
    os.rmdir("d/a")
    t.stat("d")
    for name in ("g", "h"):
        os.link("f", name)
    t.stat("f")
    os.unlink("f")
    t.stat("g")
    fd = os.open("g", O_RDWR)
    os.unlink("g")
    os.unlink("h")
    t.fstat(fd)
    t.stat("h")
    for path in ("missing", "d/missing", "missing/x", "d/c/x", "d/c/", "d/", "", "d/.", "d/..", "d/b/../c"):
        t.stat(path)
    directory = os.open("d", O_RDONLY)
    os.unlink("d/c")
    os.rmdir("d/b")
    os.rmdir("d")
    t.fstat(directory)


@case
def inode_numbers(t):
    for name in "abc":
        t.file(name)
    os.mkdir("d")
    of = lambda path: os.stat(path).st_ino          # noqa: E731
    t.say(f"different files differ: {len({of(name) for name in ('a', 'b', 'c', 'd', '.')})}")
    a = of("a")
    os.link("a", "a2")
    t.say(f"links are the same: {of('a2') == a}")
    os.rename("a2", "d/a3")
    t.say(f"after a rename: {of('d/a3') == a}")
    fd = os.open("a", O_RDWR)
    os.write(fd, b"x" * 100000)
    t.say(f"fstat: {os.fstat(fd).st_ino == a}, after a write {of('a') == a}")
    os.unlink("a")
    os.unlink("d/a3")
    t.say(f"unlinked: {os.fstat(fd).st_ino == a}")
    with os.scandir(".") as entries:
        t.say(f"in a listing: {all(entry.inode() == of(entry.name) for entry in entries)}")
    stream = Stream("d")
    listed = {name: number for name, number, _ in iter(stream.next, None)}
    t.say(f"'.' is the directory: {listed['.'] == of('d')}, '..' its parent: {listed['..'] == of('.')}")
    t.say(f"one device: {len({os.stat(name).st_dev for name in ('b', 'c', 'd', '.')})}")


@case
def utimens(t):
    t.file("f")
    now = (0, UTIME_NOW)
    for atime, mtime in (((10, 20), (30, 40)), ((0, 0), (0, 0)), ((1 << 31, 0), (1 << 32, 999999999)), ((0, UTIME_OMIT), (77, 1)),
                         ((77, 1), (0, UTIME_OMIT)), ((0, UTIME_OMIT), (0, UTIME_OMIT)), ((1, 1000000000), (1, 1)), ((1, 1), (1, -1))):
        t.utimensat("f", atime, mtime)
        found = os.stat("f")
        t.say(f"atime {found.st_atime_ns} mtime {found.st_mtime_ns}")
    began = time.time() - TICK
    t.utimensat("f", now, now)
    found, ended = os.stat("f"), time.time()
    t.say(f"now: {began < found.st_atime <= ended} {began < found.st_mtime <= ended}")
    t.utimensat("missing", now, now)
    os.mkdir("d")
    t.utimensat("d", (1, 2), (3, 4))
    t.say(f"directory: {os.stat('d').st_mtime_ns}")
    fd = os.open("f", O_RDONLY)
    os.utime(fd, ns=(5, 6))
    t.say(f"futimens: {os.stat('f').st_mtime_ns}")
    os.chmod(".", 0o777)
    os.chown("f", OWNER, GROUP)
    os.chmod("f", 0o666)

    def others(who):
        for name, arguments in (("now", (now, now)), ("a time", ((1, 0), (1, 0))), ("omit", ((0, UTIME_OMIT), (0, UTIME_OMIT))),
                                ("one now", (now, (0, UTIME_OMIT)))):
            t.say(f"{who}, {name}: {t.quiet('utimensat', 'f', *arguments)}")
    for mode in (0o666, 0o444):
        os.chmod("f", mode)
        t.user(OWNER, GROUP, others, f"owner {mode:o}")
        t.user(OTHER, OTHER, others, f"other {mode:o}")


@case
def old_times(t):
    """The store keeps no time before 1970."""
    t.file("f")
    t.utimensat("f", (-10, 0), (-10, 0))
    t.say(f"mtime {os.stat('f').st_mtime_ns}")


@case
def chmod_and_chown(t):
    t.file("f")
    os.mkdir("d")
    for mode in (0, 0o777, 0o4711, 0o2711, 0o1711, 0o7777, 0o644):
        t.chmod("f", mode)
        t.stat("f")
        t.chmod("d", mode)
        t.stat("d")
    for uid, gid in ((OWNER, -1), (-1, GROUP), (0, 0), (-1, -1), (4000000000, 4000000001), (OWNER, GROUP)):
        os.chmod("f", 0o6755)
        t.chown("f", uid, gid)
        t.stat("f")
        os.chmod("d", 0o6755)
        t.chown("d", uid, gid)
        t.stat("d")
    for call in (lambda: t.chmod("missing", 0o600), lambda: t.chown("missing", 0, 0), lambda: t.chmod("f/x", 0o600)):
        call()
    os.chmod(".", 0o755)

    def try_all(who):
        t.say(who)
        for mode in (0o600, 0o2755, 0o4755, 0o644):
            t.chmod("f", mode)
            t.stat("f")
        for uid, gid in ((OWNER, -1), (-1, GROUP), (-1, MEMBER), (OTHER, -1), (-1, OTHER), (-1, -1)):
            t.chown("f", uid, gid)
            t.stat("f")
    os.chown("f", OWNER, GROUP)
    t.user(OWNER, GROUP, try_all, "owner")
    t.user(OWNER, OWNER, try_all, "owner of another group", groups=[MEMBER])
    os.chown("f", OWNER, GROUP)
    t.user(MEMBER, GROUP, try_all, "member")
    t.user(OTHER, OTHER, try_all, "other")
    os.chown("f", OTHER, GROUP)
    os.chmod("f", 0o6777)
    t.user(OTHER, OTHER, lambda: (os.write(os.open("f", O_WRONLY), b"x"), t.stat("f")))
    os.chmod("f", 0o6777)
    os.write(os.open("f", O_WRONLY), b"x")
    t.stat("f")
    os.chmod("f", 0o6777)
    t.user(OTHER, OTHER, lambda: (os.truncate("f", 0), t.stat("f")))
    os.chmod("f", 0o6777)
    t.user(OWNER, OWNER, lambda: (os.write(os.open("f", O_WRONLY), b"x"), t.stat("f")))


WHO = (("root", 0, 0, ()), ("owner", OWNER, GROUP, ()), ("member", MEMBER, GROUP, ()), ("by a further group", MEMBER, MEMBER, (GROUP,)),
       ("other", OTHER, OTHER, ()))


@case
def permissions_of_files(t):
    os.chmod(".", 0o755)

    def try_all(who, mode):
        found = []
        for flags in (O_RDONLY, O_WRONLY, O_RDWR, O_WRONLY | O_TRUNC, O_PATH, O_RDONLY | O_NOATIME, O_RDONLY | O_CREAT):
            fd = t.quiet("open", "f", flags)
            found.append(fd if isinstance(fd, str) else "opened")
            if not isinstance(fd, str):
                os.close(fd)
        for mask in (os.F_OK, os.R_OK, os.W_OK, os.X_OK, os.R_OK | os.W_OK):
            found.append(str(t.quiet("access", "f", mask)))
        found.append(str(t.quiet("truncate", "f", 1)))
        found.append(str(t.quiet("faccessat", "f", os.R_OK, 0x200)))
        found.append(attributes(os.stat("f")))
        t.say(f"{mode:o} {who}: {' '.join(found)}")
    for mode in (0o000, 0o400, 0o200, 0o600, 0o040, 0o020, 0o004, 0o002, 0o640, 0o604, 0o466, 0o777, 0o701):
        t.file("f", b"x" * 10)
        os.chown("f", OWNER, GROUP)
        for who, uid, gid, groups in WHO:
            os.chmod("f", mode)
            t.user(uid, gid, try_all, who, mode, groups=groups)
        os.unlink("f")


@case
def permissions_of_directories(t):
    os.chmod(".", 0o755)

    def try_all(who, mode):
        found = []
        for name, arguments in (("open", ("d/f", O_RDONLY)), ("open", ("d", O_RDONLY)), ("listdir", ("d",)), ("stat", ("d/f",)), ("chdir", ("d",)),
                                ("open", ("d/new", O_RDWR | O_CREAT, 0o600)), ("mkdir", ("d/e",)), ("link", ("d/own", "d/linked")), ("rename", ("d/own", "d/renamed")),
                                ("unlink", ("d/f",)), ("rmdir", ("d/sub",)), ("mknod", ("d/node", stat.S_IFREG | 0o600)), ("rename", ("d", "moved"))):
            value = t.quiet(name, *arguments)
            found.append(value if isinstance(value, str) else "yes")
            if name == "chdir" and not isinstance(value, str):
                os.chdir("..") if os.access("..", os.X_OK) else None
        t.say(f"{mode:o} {who}: {' '.join(found)}")

    def clean():
        for root, directories, files in os.walk("d", topdown=False):
            for name in files:
                os.unlink(f"{root}/{name}")
            for name in directories:
                os.rmdir(f"{root}/{name}")
        t.quiet("rename", "moved", "d")
        t.quiet("rmdir", "d")
    for mode in (0o000, 0o100, 0o400, 0o500, 0o700, 0o070, 0o030, 0o007, 0o005, 0o777, 0o1777, 0o1770, 0o3777):
        for who, uid, gid, groups in WHO:
            os.mkdir("d")
            os.mkdir("d/sub")
            t.file("d/f")
            t.file("d/own")
            os.chown("d/own", MEMBER, GROUP)
            os.chown("d", OWNER, GROUP)
            os.chmod("d", mode)
            t.user(uid, gid, try_all, who, mode, groups=groups)
            if os.path.exists("moved"):
                os.rename("moved", "d")
            clean()


@case
def sticky(t):
    os.chmod(".", 0o755)
    for mode in (0o777, 0o1777):
        for who, uid in (("owner of the directory", OWNER), ("owner of the file", MEMBER), ("other", OTHER)):
            os.mkdir("d")
            os.chown("d", OWNER, GROUP)
            os.chmod("d", mode)
            for name in ("a", "b", "c"):
                t.file(f"d/{name}", mode=0o666)
                os.chown(f"d/{name}", MEMBER, GROUP)
            os.mkdir("d/e")
            os.chown("d/e", MEMBER, GROUP)

            def attempt():
                t.say(f"{mode:o} {who}: unlink {t.quiet('unlink', 'd/a')}, rename {t.quiet('rename', 'd/b', 'd/b2')}, over it "
                      f"{t.quiet('close', t.quiet('open', 'd/mine', O_WRONLY | O_CREAT, 0o600))} {t.quiet('rename', 'd/mine', 'd/c')}, rmdir {t.quiet('rmdir', 'd/e')}, "
                      f"renameat2 {t.quiet('renameat2', 'd/c', 'd/x', RENAME_NOREPLACE)}")
            t.user(uid, uid, attempt)
            for name in os.listdir("d"):
                t.quiet("unlink", f"d/{name}")
                t.quiet("rmdir", f"d/{name}")
            os.rmdir("d")


@case
def setgid_directory(t):
    os.umask(0o002)
    os.mkdir("d")
    os.chown("d", OWNER, GROUP)
    os.chmod("d", 0o2777)
    os.chmod(".", 0o755)

    def make():
        os.close(os.open(f"d/f{os.getuid()}", O_RDWR | O_CREAT, 0o666))
        os.close(os.open(f"d/x{os.getuid()}", O_RDWR | O_CREAT, 0o2777))
        os.mkdir(f"d/d{os.getuid()}")
        for kind in "fxd":
            t.stat(f"d/{kind}{os.getuid()}")
    for _, uid, gid, groups in (*WHO, ("by the last of 100 groups", MEMBER, MEMBER, MANY_GROUPS)):
        t.user(uid, gid, make, groups=groups)
        for kind in "fxd":
            name = f"d/{kind}{uid}"
            os.rmdir(name) if kind == "d" else os.unlink(name)


def limited(uid, gid, capabilities, function, *arguments):
    """In a child: become the user, with these capabilities and no other, and call FUNCTION."""
    libc.prctl(8, 1, 0, 0, 0)                   # PR_SET_KEEPCAPS
    os.setgroups([])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    os.access(".", os.R_OK)
    mask = sum(1 << one for one in capabilities)
    checked(libc.capset(struct.pack("Ii", 0x20080522, 0), struct.pack("6I", mask, mask, 0, 0, 0, 0)))
    function(*arguments)


MANY_GROUPS = (*range(30000, 30099), GROUP)


def by_everybody(t, function, before=lambda: None):
    """FUNCTION(who), in a child each, as every kind of user; each time BEFORE comes before."""
    for who, uid, gid, groups in (*WHO, ("by the last of 100 groups", MEMBER, MEMBER, MANY_GROUPS)):
        before()
        t.user(uid, gid, function, who, groups=groups)
    for name, number in CAPABILITIES.items() if LIBRARY else ():       # the view's server knows of none
        before()
        t.process(limited, OTHER, OTHER, (number,), lambda: function(f"other with {name}"))


CAPABILITIES = {"CHOWN": 0, "DAC_OVERRIDE": 1, "DAC_READ_SEARCH": 2, "FOWNER": 3, "FSETID": 4}


@case
def capabilities(t):
    """Not the user's number decides, but the capabilities."""
    os.chmod(".", 0o777)

    def attempt(who):
        found = []
        for flags in (O_RDONLY, O_WRONLY, O_RDONLY | O_NOATIME):
            fd = t.quiet("open", "f", flags)
            found.append(fd if isinstance(fd, str) else "opened")
            if not isinstance(fd, str):
                os.close(fd)
        for mask in (os.R_OK, os.W_OK, os.X_OK):
            found += [str(t.quiet("access", "f", mask)), str(t.quiet("faccessat", "f", mask, 0x200))]
        found += [str(t.quiet(*call)) for call in (
            ("chmod", "f", 0o2060), ("chmod", "f", 0o060), ("chown", "f", OWNER, GROUP), ("chown", "f", -1, -1), ("chown", "f", OTHER, -1),
            ("chown", "f", OWNER, OTHER), ("chown", "f", OWNER, GROUP), ("utime", "f", (1, 1)), ("utime", "f"), ("listdir", "d"), ("faccessat", "d/x", os.F_OK, 0x200),
            ("mkdir", "d/y"), ("rmdir", "d/y"))]
        found.append(attributes(os.stat("f")))
        t.say(f"{who}: {' '.join(found)}")
    for mode in (0o000, 0o060, 0o606, 0o711, 0o044):
        def before():
            t.file("f", b"x" * 10)
            os.chown("f", OWNER, GROUP)
            os.chmod("f", mode)
        os.mkdir("d", 0o700)
        t.file("d/x")
        os.chown("d", OWNER, GROUP)
        by_everybody(t, lambda who: attempt(f"{mode:o} {who}"), before)
        before()
        t.process(limited, 0, 0, (), attempt, f"{mode:o} root without capabilities")
        subprocess.run(["rm", "-rf", "f", "d"], check=True)


@case
def set_id_bits(t):
    """What takes set-ID bits from a file, by whom."""
    os.chmod(".", 0o777)
    changes = {"write": lambda: os.write(os.open("f", O_WRONLY), b"x"), "write of nothing": lambda: os.write(os.open("f", O_WRONLY), b""),
               "append": lambda: os.write(os.open("f", O_WRONLY | O_APPEND), b"x"), "pwrite": lambda: os.pwrite(os.open("f", O_WRONLY), b"x", 5),
               "truncate": lambda: os.truncate("f", 3), "truncate to the same": lambda: os.truncate("f", 10),
               "ftruncate": lambda: os.ftruncate(os.open("f", O_WRONLY), 3), "O_TRUNC": lambda: os.open("f", O_WRONLY | O_TRUNC),
               "allocate": lambda: os.posix_fallocate(os.open("f", O_WRONLY), 0, 20),
               "allocate what is there": lambda: os.posix_fallocate(os.open("f", O_WRONLY), 0, 5),
               "chown of nothing": lambda: os.chown("f", -1, -1), "chown to the same": lambda: os.chown("f", OWNER, GROUP),
               "chgrp": lambda: os.chown("f", -1, GROUP), "utime": lambda: os.utime("f"), "chmod": lambda: os.chmod("f", 0o6777)}
    # Where the group can't execute the file, its members alone may keep the bit: the view's server knows no groups.
    for mode in (0o2777, 0o6777, *([0o2767] if LIBRARY else [])):
        for what, change in changes.items():
            def before():
                t.file("f", b"x" * 10)
                os.chown("f", OWNER, GROUP)
                os.chmod("f", mode)

            def attempt(who):
                result = "done"
                try:
                    change()
                except OSError as error:
                    result = errno.errorcode[error.errno]
                t.say(f"{mode:o} {what} by {who}: {result} {oct(os.stat('f').st_mode)}")
            by_everybody(t, attempt, before)


@case
def directories_that_move(t):
    """A directory that moves to another one changes its `..`: that takes the right to write to it."""
    os.chmod(".", 0o777)
    for mode in (0o755, 0o775, 0o777):
        for who, uid, gid, groups in WHO:
            os.mkdir("d")
            os.mkdir("from", 0o777)
            os.mkdir("to", 0o777)
            os.rename("d", "from/d")
            os.mkdir("to/empty")
            os.mkdir("from/other")
            for name in ("from", "to", "to/empty", "from/other"):
                os.chmod(name, 0o777)
            os.chown("from/d", OWNER, GROUP)
            os.chmod("from/d", mode)

            def attempt():
                t.say(f"{mode:o} {who}: within {t.quiet('rename', 'from/d', 'from/e')}, across {t.quiet('rename', 'from/e', 'to/e')}, over another "
                      f"{t.quiet('rename', 'from/e', 'to/empty')} {t.quiet('rename', 'from/other', 'to/other')}")
            t.user(uid, gid, attempt, groups=groups)
            subprocess.run(["rm", "-rf", "from", "to"], check=True)


@case
def links_to_foreign_files(t):
    """As /proc/sys/fs/protected_hardlinks says."""
    os.chmod(".", 0o777)
    for mode in (0o600, 0o644, 0o666, 0o660, 0o4666, 0o2666, 0o2676, 0o222, 0o444):
        t.file("f")
        os.chown("f", OWNER, GROUP)
        os.chmod("f", mode)
        by_everybody(t, lambda who: t.say(f"{mode:o} {who}: {t.quiet('link', 'f', 'g')} {t.quiet('link', 'f', 'f')} {t.quiet('unlink', 'g')}"))
        os.unlink("f")


@case
def files_in_sticky_directories(t):
    """As /proc/sys/fs/protected_regular says."""
    os.chmod(".", 0o755)
    for mode in (0o777, 0o1777, 0o1770, 0o1775):
        os.mkdir("d")
        os.chown("d", OWNER, GROUP)
        os.chmod("d", mode)
        t.file("d/f")
        os.chown("d/f", MEMBER, GROUP)
        os.chmod("d/f", 0o666)

        def attempt(who):
            found = []
            for flags in (O_WRONLY, O_WRONLY | O_CREAT, O_RDONLY | O_CREAT, O_WRONLY | O_CREAT | O_TRUNC, O_WRONLY | O_CREAT | O_EXCL):
                fd = t.quiet("open", "d/f", flags)
                found.append(fd if isinstance(fd, str) else "opened")
            t.say(f"{mode:o} {who}: {' '.join(found)}")
        by_everybody(t, attempt)
        subprocess.run(["rm", "-rf", "d"], check=True)


@case
def noatime(t):
    os.chmod(".", 0o777)
    t.file("f")
    os.chown("f", OWNER, GROUP)
    os.chmod("f", 0o666)

    def attempt(who):
        fd = t.quiet("open", "f", O_RDONLY | O_NOATIME)
        later = os.open("f", O_RDONLY)
        t.say(f"{who}: {fd if isinstance(fd, str) else 'opened'}, later {t.quiet('fcntl', later, fcntl.F_SETFL, O_NOATIME)} "
              f"{bool(fcntl.fcntl(later, fcntl.F_GETFL) & O_NOATIME)}, a new one "
              f"{isinstance(t.quiet('open', 'g', O_RDWR | O_CREAT | O_NOATIME, 0o600), int)} {t.quiet('unlink', 'g')}")
    by_everybody(t, attempt)


@case
def owners_of_new_files(t):
    os.chmod(".", 0o777)
    for who, uid, gid, groups in WHO:
        def make():
            fd = os.open("f", O_RDWR | O_CREAT | O_EXCL, 0o640)
            t.fstat(fd)
            os.mkdir("d", 0o750)
            t.stat("d")
            os.rename("f", "g")
            os.link("g", "h")
            t.stat("h")
            for name in "gh":
                os.unlink(name)
            os.rmdir("d")
        t.user(uid, gid, make, groups=groups)
    # The file system ids decide, as for NFS servers.
    t.process(lambda: (libc.setfsgid(GROUP), libc.setfsuid(OWNER), t.open("fs", O_RDWR | O_CREAT, 0o600), t.stat("fs")))
    # Root without capabilities is nobody special.

    def without():
        os.setresuid(0, OWNER, 0)
        t.open("e", O_RDWR | O_CREAT, 0o600)
        t.stat("e")
        t.access("e", os.W_OK)
        t.faccessat("e", os.W_OK, 0x200)
    t.process(without)


@case
def statvfs_sanity(t):
    t.file("f")
    for name, found in (("path", os.statvfs("f")), ("descriptor", os.fstatvfs(os.open("f", O_RDONLY)))):
        t.say(f"{name}: namemax {found.f_namemax}, blocks {found.f_blocks > 0}, free {0 < found.f_bfree <= found.f_blocks}, available "
              f"{0 < found.f_bavail <= found.f_bfree}, files {found.f_files > 0}, free {0 < found.f_ffree <= found.f_files}, frsize a power of 2 "
              f"{found.f_frsize & (found.f_frsize - 1) == 0 and found.f_frsize >= 512}, nosuid {bool(found.f_flag & os.ST_NOSUID)}, "
              f"read-only {bool(found.f_flag & os.ST_RDONLY)}, noexec {bool(found.f_flag & os.ST_NOEXEC)}, nodev {bool(found.f_flag & os.ST_NODEV)}")
    before = os.statvfs("f")
    fd = os.open("big", O_RDWR | O_CREAT, 0o600)
    for _ in range(16):
        os.write(fd, b"x" * (1 << 20))
    os.fsync(fd)
    after = os.statvfs("f")
    t.say(f"16 MiB take 15 or more: {(before.f_bfree - after.f_bfree) * after.f_frsize >= 15 << 20}")
    t.say(f"a file takes a file: {before.f_ffree - after.f_ffree >= 1}")
    t.statvfs("missing")


@case
def syncs(t):
    t.file("f", b"x" * 100000)
    os.mkdir("d")
    for path, flags in (("f", O_RDWR), ("f", O_RDONLY), ("d", O_RDONLY), ("f", O_PATH)):
        fd = os.open(path, flags)
        t.fsync(fd)
        t.fdatasync(fd)
        t.syncfs(fd)
        t.sync_file_range(fd, 0, 0, 2)
    fd = os.open("f", O_RDWR)
    os.unlink("f")
    t.fsync(fd)
    directory = os.open("d", O_RDONLY)
    os.rmdir("d")
    t.fsync(directory)
    t.fsync(999)


# --- names ----------------------------------------------------------------------------------------------------------

@case
def links(t):
    t.file("f", b"content")
    os.mkdir("d")
    for old, new in (("f", "g"), ("f", "g"), ("f", "f"), ("f", "d"), ("f", "d/f"), ("d", "e"), ("missing", "x"), ("f", "missing/x"), ("f/", "x"), ("f", "x/"),
                     ("f", "f/x"), ("f", "n" * 255), ("f", "n" * 256), (".", "x"), ("f", "."), ("f", ".."), ("", "x"), ("f", ""), ("g", "h")):
        t.link(old, new)
    t.stat("f")
    fd = os.open("d/f", O_WRONLY | O_APPEND)
    os.write(fd, b" more")
    for name in ("f", "g", "d/f", "h"):
        t.holds(name)
    held = os.open("f", O_PATH)
    t.linkat(f"/proc/self/fd/{held}", "by_descriptor", 0x400)
    t.stat("f")
    reader = os.open("f", O_RDONLY)
    t.linkat(f"/proc/self/fd/{reader}", "by_open", 0x400)
    for name in ("f", "g", "d/f", "h", "by_descriptor", "by_open", "n" * 255):
        t.unlink(name)
    t.linkat(f"/proc/self/fd/{reader}", "dead", 0x400)
    t.read(reader, 100)
    t.listdir(".")


@case
def many_links(t):
    t.file("f")
    for number in range(300):
        os.link("f", f"l{number}")
    t.stat("f")
    for number in range(300):
        os.unlink(f"l{number}")
    t.stat("f")


@case
def renames(t):
    def begin():
        for name in ("a", "b"):
            t.file(name, name.encode())
        for name in ("d", "d/sub", "e", "full"):
            os.makedirs(name, exist_ok=True)
        t.file("full/x")
        t.file("d/f", b"f")

    def tree():
        found = []
        for root, directories, files in os.walk("."):
            found += [f"{root}/{name}/" for name in directories] + [f"{root}/{name}" for name in files]
        return " ".join(sorted(found))

    def clean():
        for root, directories, files in os.walk(".", topdown=False):
            for name in files:
                os.unlink(f"{root}/{name}")
            for name in directories:
                os.rmdir(f"{root}/{name}")
    for old, new in (("a", "c"), ("a", "b"), ("a", "a"), ("a", "d"), ("d", "a"), ("d", "e"), ("d", "full"), ("full", "e"), ("d", "d/sub/x"), ("d", "d/sub"), ("d", "d"),
                     ("d/sub", "d"), ("missing", "x"), ("a", "missing/x"), ("a", "a/x"), ("a", "x/"), ("a/", "x"), ("d/", "x/"), ("d", "x/"), ("d/", "x"), ("a", "d/"), (".", "x"),
                     ("d/.", "x"), ("a", "."), ("d", ".."), ("d/..", "x"), ("a", "d/a"), ("d/f", "f"), ("d/sub", "sub"), ("", "x"), ("a", ""), ("a", "n" * 255), ("a", "n" * 256), ("n" * 256, "a"),
                     ("d", "full/d"), ("full", "d/sub"), ("e", "d/sub")):
        begin()
        t.rename(old, new)
        t.say(tree())
        clean()
    for flags in (RENAME_NOREPLACE, 8, RENAME_NOREPLACE | RENAME_EXCHANGE, RENAME_NOREPLACE | RENAME_WHITEOUT):
        for old, new in (("a", "c"), ("a", "b"), ("a", "a"), ("d", "e"), ("d", "x"), ("missing", "x"), ("missing", "b"), ("a", "d/f")):
            begin()
            t.renameat2(old, new, flags)
            t.say(tree())
            clean()
    begin()
    os.link("a", "a2")
    t.rename("a", "a2")
    t.say(tree())
    t.stat("a")
    t.renameat2("a", "a2", RENAME_NOREPLACE)


@case
def rename_exchange(t):
    t.file("a", b"a")
    t.file("b", b"b")
    os.mkdir("d")
    for old, new in (("a", "b"), ("a", "d"), ("a", "missing"), ("missing", "a"), ("d", "b"), ("a", "a")):
        t.renameat2(old, new, RENAME_EXCHANGE)
    t.stat("a")
    t.stat("b")
    t.stat("d")


@case
def rename_while_open(t):
    t.file("a", b"old a")
    t.file("b", b"old b")
    a, b = os.open("a", O_RDWR), os.open("b", O_RDWR)
    t.rename("a", "b")
    t.pread(a, 100, 0)
    t.pread(b, 100, 0)
    t.fstat(a)
    t.fstat(b)
    t.write(b, b"unlinked")
    t.write(a, b"named")
    t.pread(b, 100, 0)
    t.holds("b")
    t.say(f"/proc says {os.path.basename(os.readlink(f'/proc/self/fd/{a}'))}")
    os.mkdir("d")
    os.mkdir("e")
    t.file("d/f", b"below")
    d, e = os.open("d", O_RDONLY), os.open("e", O_RDONLY)
    t.rename("d", "e")
    t.listdir(d)
    t.listdir(e)
    t.fstat(e)
    t.open("x", O_RDWR | O_CREAT, 0o600, dir_fd=e)
    fd = t.open("f", O_RDONLY, dir_fd=d)
    t.read(fd, 100)
    t.stat("e/f")


@case
def working_directory(t):
    """The working directory is renamed, moved, and removed."""
    os.makedirs("a/b/c")
    top = os.getcwd()
    os.chdir("a/b/c")
    relative = lambda: t.say("cwd " + (os.getcwd()[len(top):] if not isinstance(t.quiet("getcwd"), str) or t.quiet("getcwd").startswith("/") else t.quiet("getcwd")))  # noqa: E731
    relative()
    os.rename(f"{top}/a/b", f"{top}/x")
    relative()
    t.file("f", b"here")
    t.holds(f"{top}/x/c/f")
    t.listdir("..")
    os.unlink("f")
    os.rmdir(f"{top}/x/c")
    t.getcwd()
    t.listdir(".")
    t.open("f", O_RDWR | O_CREAT, 0o600)
    t.mkdir("d")
    t.stat(".")
    t.say(f"parent: {sorted(os.listdir('..')) if not isinstance(t.quiet('stat', '..'), str) else t.quiet('stat', '..')}")
    t.chdir("..")
    relative()
    t.chdir("missing")
    t.file("f")
    t.chdir("f")


@case
def removals(t):
    t.file("f")
    os.makedirs("d/e")
    t.file("d/f")
    for path in ("missing", "d", "f/", "f/x", "missing/x", ".", "..", "", "d/.", "n" * 256, "f", "f"):
        t.unlink(path)
    t.file("f")
    for path in ("missing", "f", "d", "d/.", ".", "..", "d/e/..", "f/", "f/x", "", "d/e/", "n" * 256, "d"):
        t.rmdir(path)
    t.unlink("d/f")
    t.rmdir("d")
    for path in ("f", "d", "new/", "", ".", "missing/x", "f/x", "n" * 255, "n" * 256):
        t.mkdir(path)
    t.mkdir("d")


@case
def unlinked_but_open(t):
    t.file("f", b"0123456789")
    one, other = os.open("f", O_RDWR), os.open("f", O_RDONLY)
    t.unlink("f")
    t.stat("f")
    t.fstat(one)
    t.read(other, 4)
    t.write(one, b"ab")
    t.read(other, 100)
    t.pwrite(one, b"x" * 100000, 5000)
    t.fstat(other)
    t.ftruncate(one, 7)
    t.fchmod(one, 0o600)
    t.fchown(one, OWNER, GROUP)
    t.fstat(other)
    t.fsync(one)
    t.fallocate(one, 0, 0, 100)
    t.utime(one, ns=(5, 6))
    t.say(f"mtime {os.fstat(one).st_mtime_ns}")
    again = t.open(f"/proc/self/fd/{one}", O_RDWR)
    t.pread(again, 100, 0)
    t.close(one)
    t.pread(other, 100, 0)
    t.file("f", b"another")
    t.pread(other, 100, 0)
    t.holds("f")
    t.close(other)
    t.pread(again, 100, 0)
    t.fstat(again)
    t.close(again)
    path = os.open("f", O_PATH)
    t.unlink("f")
    t.fstat(path)
    t.open(f"/proc/self/fd/{path}", O_RDONLY)


@case
def names(t):
    odd = ("with blank", "new\nline", "tab\t", "-dash", "ünïcödé", "\udcff\udcfe", "..x", ".x", "...", "a;b", "*", "\\", "\x01", "é" * 127, "n" * 255, " ", "#")
    for name in odd:
        fd = t.open(name, O_RDWR | O_CREAT | O_EXCL, 0o600)
        t.write(fd, b"x")
        os.close(fd)
    t.say(f"listed: {sorted(os.listdir('.')) == sorted(odd)}")
    for name in odd:
        t.rename(name, name[:200] + "2")
    for name in odd:
        t.unlink(name[:200] + "2")
    t.listdir(".")
    for name in ("n" * 256, "é" * 128, "d/" + "n" * 256, "x" * 5000, "y/" * 2100):
        t.open(name, O_RDONLY)
        t.open(name, O_RDWR | O_CREAT, 0o600)
        t.stat(name)
        t.mkdir(name)
    long = "./" * 2047
    t.stat(long)
    t.stat(long + ".")
    t.stat(long + "./")


@case
def deep(t):
    top = os.open(".", O_RDONLY)
    for level in range(60):
        t.mkdir(f"level{level}")
        t.chdir(f"level{level}")
    t.file("f", b"deep")
    t.say(f"cwd ends {os.getcwd()[-30:]}")
    os.fchdir(top)
    path = "/".join(f"level{level}" for level in range(60))
    t.holds(path + "/f")
    t.stat(path + "/" + "../" * 60 + ".")
    t.rename("level0/level1", "moved")
    t.stat("moved/" + "/".join(f"level{level}" for level in range(2, 60)) + "/f")
    t.rename("moved", "moved/level2/x")


@case
def relative_to_descriptors(t):
    os.makedirs("d/e")
    t.file("f")
    d, f, path = os.open("d", O_RDONLY), os.open("f", O_RDONLY), os.open("d", O_PATH)
    for base in (d, path, f, 999):
        fd = t.open("new", O_RDWR | O_CREAT, 0o600, dir_fd=base)
        t.quiet("close", fd)
        t.mkdir("sub", dir_fd=base)
        t.stat("new", dir_fd=base)
        t.chmod("new", 0o640, dir_fd=base)
        t.link("new", "linked", src_dir_fd=base, dst_dir_fd=base)
        t.rename("linked", "renamed", src_dir_fd=base, dst_dir_fd=base)
        t.utime("new", ns=(1, 2), dir_fd=base)
        t.access("new", os.R_OK, dir_fd=base)
        t.unlink("renamed", dir_fd=base)
        t.unlink("new", dir_fd=base)
        t.rmdir("sub", dir_fd=base)
        t.stat("..", dir_fd=base)
    t.chdir(path)
    t.fchdir(path)
    t.listdir(".")
    t.fchdir(f)


# --- listings -------------------------------------------------------------------------------------------------------

@case
def listing(t):
    t.listdir(".")
    names = [f"file {number:04}" for number in range(700)]
    for name in names:
        t.file(name)
    os.mkdir("d")
    t.say(f"complete: {sorted(os.listdir('.')) == sorted(names + ['d'])}")
    stream = Stream(".")
    entries = list(iter(stream.next, None))
    t.say(f"{len(entries)} entries, {len({name for name, _, _ in entries})} names, dots {[name for name, _, _ in entries if name in ('.', '..')].__len__()}")
    t.say(f"types: {sorted({(kind, name if name in ('.', '..', 'd') else 'file') for name, _, kind in entries})}")
    t.say(f"the end stays: {stream.next()}")
    stream.rewind()
    t.say(f"again: {len(stream.rest())}")
    t.file("one more")
    stream.rewind()
    t.say(f"a new one after rewinddir: {'one more' in stream.rest()}")
    for size in (8, 24, 50, 400, 32768, 1 << 20):
        fd = os.open(".", O_RDONLY)
        found, problem = [], ""
        while True:
            try:
                some = getdents(fd, size)
            except OSError as error:
                problem = errno.errorcode[error.errno]
                break
            if not some:
                break
            found += some
        t.say(f"getdents of {size}: {len(found)}, {len(set(found))} different {problem}")
        os.close(fd)
    t.file("newest")
    fd = os.open(".", O_RDONLY)
    os.lseek(fd, 1, os.SEEK_SET)
    t.say(f"from position 1, before any other: {'newest' in getdents(fd, 1 << 20)}")
    os.close(fd)
    t.quiet("opendir", "f") if False else None
    for path in ("file 0001", "missing", "d/"):
        t.listdir(path)
    t.say(f"of an O_PATH descriptor: {t.quiet('getdents', os.open('.', O_PATH), 1000)}")


@case
def seekdir(t):
    names = [f"{number:03}" * 20 for number in range(300)]
    for name in names:
        t.file(name)
    stream, places, order = Stream("."), [], []
    while True:
        place = stream.tell()
        entry = stream.next()
        if not entry:
            break
        places.append(place)
        order.append(entry[0])
    end = stream.tell()
    wrong = 0
    for number in list(range(0, len(places), 7)) + list(range(len(places) - 1, -1, -11)):
        stream.seek(places[number])
        wrong += stream.rest() != order[number:]
    t.say(f"{len(order)} entries, {len(set(places))} places, {wrong} wrong after seekdir")
    stream.seek(end)
    t.say(f"at the end: {stream.next()}")
    # Places remain good for the others when entries are removed.
    stream.rewind()
    for name in order[3:300:2]:
        if name not in (".", ".."):
            os.unlink(name)
    left = set(os.listdir("."))
    wrong = 0
    for number in range(0, len(places), 5):
        stream.seek(places[number])
        wrong += {name for name in stream.rest() if name in left} != {name for name in order[number:] if name in left}
    t.say(f"after removals {wrong} wrong, {len(left)} left")
    # lseek of the descriptor to a place that getdents gave
    fd = os.open(".", O_RDONLY)
    first = getdents(fd, 2000)
    place = os.lseek(fd, 0, os.SEEK_CUR)
    rest = []
    while some := getdents(fd, 2000):
        rest += some
    os.lseek(fd, place, os.SEEK_SET)
    again = []
    while some := getdents(fd, 2000):
        again += some
    t.say(f"lseek: {rest == again}, {sorted(first + rest) == sorted(os.listdir('.') + ['.', '..'])}")


@case
def removal_while_listing(t):
    for size in (100, 1000):
        for number in range(1000):
            t.file(f"{number}")
        fd, seen = os.open(".", O_RDONLY), []
        while some := getdents(fd, size):
            for name in some:
                if name not in (".", ".."):
                    seen.append(name)
                    os.unlink(name)
        t.say(f"buffers of {size}: {len(seen)} seen, {len(set(seen))} different, {len(os.listdir('.'))} left")
        for name in os.listdir("."):
            os.unlink(name)
    # Those that stay are each seen once, whatever comes and goes meanwhile.
    for number in range(600):
        t.file(f"stay{number}")
    fd, seen, number = os.open(".", O_RDONLY), [], 0
    while some := getdents(fd, 500):
        seen += [name for name in some if name.startswith("stay")]
        for _ in range(20):
            t.file(f"new{number}")
            if number % 3 == 0:
                os.unlink(f"new{number}")
            if number % 5 == 0:
                os.rename(f"new{number}", f"newer{number}") if os.path.exists(f"new{number}") else None
            number += 1
        if number > 20000:
            t.say("it never ends")
            break
    t.say(f"those that stay: {len(seen)} seen, {len(set(seen))} different")


@case
def listing_of_the_removed(t):
    os.mkdir("d")
    t.file("d/f")
    fd = os.open("d", O_RDONLY)
    os.unlink("d/f")
    os.rmdir("d")
    t.listdir(fd)
    t.getdents(fd, 1000)
    t.open("new", O_RDWR | O_CREAT, 0o600, dir_fd=fd)
    t.mkdir("new", dir_fd=fd)
    t.stat(".", dir_fd=fd)
    t.open(".", O_RDONLY, dir_fd=fd)
    t.rename("f", "f2", src_dir_fd=fd, dst_dir_fd=fd)
    t.fchdir(fd)
    t.file("x")
    t.fchmod(fd, 0o700)
    t.fsync(fd)


# --- descriptors ----------------------------------------------------------------------------------------------------

@case
def sharing(t):
    t.file("f", b"0123456789")
    one = os.open("f", O_RDWR)
    twin, own = os.dup(one), os.open("f", O_RDWR)
    t.read(one, 2)
    t.read(twin, 2)
    t.read(own, 2)
    t.process(lambda: (t.read(one, 2), t.write(twin, b"AB")))
    t.read(one, 10)
    t.lseek(twin, 1, os.SEEK_SET)
    t.process(lambda: os.execv("/bin/sh", ["sh", "-c", f"head -c 3 <&{os.dup2(one, 9)} >/dev/null; printf XYZ >&9"])
              if os.set_inheritable(os.dup2(one, 9), True) is None else None)
    t.lseek(one, 0, os.SEEK_CUR)
    t.holds("f")
    left, right = socket.socketpair()
    socket.send_fds(left, [b"x"], [one])
    os.close(one)
    os.close(twin)
    _, received, _, _ = socket.recv_fds(right, 1, 1)
    t.pread(received[0], 100, 0)
    t.lseek(received[0], 0, os.SEEK_CUR)
    reopened = t.open(f"/proc/self/fd/{received[0]}", O_RDONLY)
    t.read(reopened, 100)
    held = os.open("f", O_PATH)
    writer = t.open(f"/proc/self/fd/{held}", O_RDWR | O_APPEND)
    t.write(writer, b"end")
    t.holds("f")


@case
def in_the_shell(t):
    for command in ("echo one >f; cat f", "echo two >>f; wc -c <f", "exec 3<>f; read x <&3; echo $x; echo three >&3; cat f", "set -C; echo no >f; echo $?", ": >f; test -s f; echo $?",
                    "printf '%s\\n' c a b >g; sort g -o g; cat g", "sed -i s/a/x/ g; cat g", "dd if=g of=h bs=1 skip=2 seek=4 2>/dev/null; od -c h", "cd /; cat <f 2>&1", "mkdir -p a/b/c; cd a/b; pwd | sed 's,.*/a,a,'; ls -1",
                    "cp -p g k; cmp g k; echo $?; ln k l; ls -1; rm k; cat l", "mv l a/; ls -1 a", "cat g g >>h; cksum h", "head -c 100000 /dev/zero >z; tail -c 3 z | od -c", "tr '\\0' x <z | sort -u | wc -c", "touch -d @100 z; stat -c %Y z; find . -newer z -name 'g'"):
        import subprocess
        done = subprocess.run(["/bin/bash", "-c", command], capture_output=True, env={"PATH": "/bin:/usr/bin", "LC_ALL": "C"})
        t.say(f"{command}: {done.returncode} {done.stdout!r} {done.stderr!r}")


@case
def record_locks(t):
    t.file("f", b"0123456789")
    fd = os.open("f", O_RDWR)
    for kind, start, length in ((fcntl.F_WRLCK, 0, 5), (fcntl.F_RDLCK, 2, 1), (fcntl.F_WRLCK, 100, 0), (fcntl.F_UNLCK, 1, 1)):
        t.lock(fd, kind, start, length)

    def other():
        fd = os.open("f", O_RDWR)
        for start, length in ((0, 0), (0, 1), (1, 1), (2, 1), (3, 1), (5, 1), (50, 50), (99, 2), (5000, 1)):
            t.locked(fd, fcntl.F_WRLCK, start, length)
            t.locked(fd, fcntl.F_RDLCK, start, length)
            t.lock(fd, fcntl.F_RDLCK, start, length)
            t.lock(fd, fcntl.F_UNLCK, start, length)
    t.process(other)
    t.lock(fd, fcntl.F_WRLCK, -1, 1)
    t.lock(fd, fcntl.F_WRLCK, 5, -3)
    t.lock(fd, fcntl.F_WRLCK, 1, -3)
    t.lock(fd, 9, 0, 1)
    reader, writer = os.open("f", O_RDONLY), os.open("f", O_WRONLY)
    t.lock(reader, fcntl.F_WRLCK)
    t.lock(writer, fcntl.F_RDLCK)
    t.lock(reader, fcntl.F_RDLCK, 500, 1)
    t.lock(writer, fcntl.F_WRLCK, 600, 1)
    t.locked(reader, fcntl.F_WRLCK)
    os.close(reader)                        # drops all
    t.process(other)
    os.mkdir("d")
    t.lock(os.open("d", O_RDONLY), fcntl.F_RDLCK)
    t.lock(os.open("f", O_PATH), fcntl.F_RDLCK)
    t.process(lambda: t.lock(fd, fcntl.F_WRLCK, 0, 10))
    t.process(lambda: t.lock(fd, fcntl.F_WRLCK, 0, 10))     # the other died


@case
def flocks(t):
    t.file("f")
    one, other, reader = os.open("f", O_RDWR), os.open("f", O_RDWR), os.open("f", O_RDONLY)
    twin = os.dup(one)
    now = fcntl.LOCK_NB
    for fd, how in ((one, fcntl.LOCK_SH | now), (other, fcntl.LOCK_SH | now), (other, fcntl.LOCK_EX | now), (one, fcntl.LOCK_UN), (other, fcntl.LOCK_EX | now), (one, fcntl.LOCK_SH | now),
                    (other, fcntl.LOCK_UN), (reader, fcntl.LOCK_EX | now), (one, fcntl.LOCK_EX | now), (reader, fcntl.LOCK_UN), (one, fcntl.LOCK_EX | now), (twin, fcntl.LOCK_EX | now),
                    (other, fcntl.LOCK_SH | now), (one, 64)):
        t.flock(fd, how)
    os.close(one)
    t.flock(other, fcntl.LOCK_SH | now)
    os.close(twin)
    t.flock(other, fcntl.LOCK_EX | now)
    t.process(lambda: t.flock(other, fcntl.LOCK_EX | now))
    t.process(lambda: (t.flock(os.open("f", O_RDONLY), fcntl.LOCK_EX | now)))
    t.lock(reader, fcntl.F_RDLCK)
    os.close(other)
    t.process(lambda: (t.flock(os.open("f", O_RDONLY), fcntl.LOCK_EX | now)))
    os.mkdir("d")
    d = os.open("d", O_RDONLY)
    t.flock(d, fcntl.LOCK_EX | now)
    t.flock(os.open("d", O_RDONLY), fcntl.LOCK_EX | now)
    t.flock(os.open("f", O_PATH), fcntl.LOCK_SH)

    def holder():
        fd = os.open("f", O_RDWR)
        fcntl.flock(fd, fcntl.LOCK_EX)
        os.write(writer, b"x")
        os.read(go_on, 1)
        time.sleep(0.3)
        os.kill(os.getpid(), signal.SIGKILL)
    ready, writer = os.pipe()
    go_on, teller = os.pipe()
    pid = os.fork()
    if pid == 0:
        holder()
    os.read(ready, 1)
    t.flock(reader, fcntl.LOCK_EX | now)
    os.write(teller, b"x")
    t.flock(reader, fcntl.LOCK_EX)          # waits for the holder's death
    os.waitpid(pid, 0)


# --- other ways to the content --------------------------------------------------------------------------------------

@case
def mapping_private(t):
    t.file("f", bytes(range(256)) * 40)
    fd, writer, empty = os.open("f", O_RDWR), os.open("f", O_WRONLY), os.open("e", O_RDWR | O_CREAT)
    os.close(os.open("d", O_RDONLY)) if os.path.exists("d") else os.mkdir("d")
    area = mmap.mmap(fd, 10240, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE)
    t.say(f"content {digest(area[:]):08x}")
    area[5] = 99
    t.say(f"changed privately {area[5]}, file {os.pread(fd, 1, 5)}")
    os.unlink("f")
    os.close(fd)
    t.say(f"after close and unlink {digest(area[:]):08x}")
    t.say(f"second page {area[4096:4100]!r}")

    def beyond():
        fd = os.open("g", O_RDWR | O_CREAT, 0o600)
        os.write(fd, b"x" * 100)
        area = mmap.mmap(fd, 100, mmap.MAP_PRIVATE, mmap.PROT_READ)
        os.ftruncate(fd, 0)
        sys.stdout.flush()
        area[50]
        t.say("read beyond the end")
    t.process(beyond)
    for descriptor in (writer, os.open("d", O_RDONLY)):
        try:
            mmap.mmap(descriptor, 10, mmap.MAP_PRIVATE, mmap.PROT_READ)
            t.say("mapped")
        except (OSError, ValueError) as error:
            t.say(f"{error}")


@case
def mapping_shared(t):
    t.file("f", bytes(range(256)) * 40)
    fd = os.open("f", O_RDWR)
    for protection in (mmap.PROT_READ, mmap.PROT_READ | mmap.PROT_WRITE):
        try:
            area = mmap.mmap(fd, 10240, mmap.MAP_SHARED, protection)
        except OSError as error:
            t.say(f"mmap shared {protection}: {errno.errorcode[error.errno]}")
            continue
        t.say(f"mmap shared {protection}: {digest(area[:]):08x}")
        if protection & mmap.PROT_WRITE:
            area[5] = 99
            area.flush()
            t.pread(fd, 10, 0)


@case
def copies(t):
    content = bytes(range(256)) * 1000
    t.file("f", content)
    f, g = os.open("f", O_RDONLY), os.open("g", O_RDWR | O_CREAT, 0o600)
    left, right = socket.socketpair()
    t.sendfile(left.fileno(), f, 10, 5000)
    t.say(f"received {digest(right.recv(5000, socket.MSG_WAITALL)):08x}")
    t.lseek(f, 0, os.SEEK_CUR)
    t.sendfile(left.fileno(), f, None, 3000)
    t.lseek(f, 0, os.SEEK_CUR)
    t.sendfile(g, f, 0, 1000000)
    t.sendfile(g, f, 256000, 10)
    t.sendfile(left.fileno(), g, -1, 10)
    t.sendfile(left.fileno(), os.open("g", O_WRONLY), 0, 10)
    t.fstat(g)
    with open("g", "rb") as file:
        t.say(f"g {digest(file.read()):08x}")
    os.lseek(f, 0, os.SEEK_SET)
    for arguments in ((f, g, 1000), (f, g, 100000, 5, 300000), (f, g, 0), (f, g, 100, 256000, 0), (g, f, 10), (g, g, 100, 0, 50), (g, g, 100, 0, 5000), (f, f, 10, 0, 20)):
        t.copy_file_range(*arguments)
    with open("g", "rb") as file:
        t.say(f"g {digest(file.read()):08x}")
    outside = os.open("/dev/shm", O_RDWR | O_TMPFILE, 0o600)
    done = 0
    os.lseek(f, 0, os.SEEK_SET)
    while (some := os.copy_file_range(f, outside, 1000000) if not isinstance(t.quiet("copy_file_range", f, outside, 0), str) else 0) > 0:
        done += some
    t.say(f"to another file system: {done or t.quiet('copy_file_range', f, outside, 10)}")
    reader, writer = os.pipe()
    t.splice(f, writer, 3000, 100)
    t.say(f"spliced {digest(os.read(reader, 3000)):08x}")
    os.write(writer, b"from a pipe")
    t.splice(reader, g, 100, None, 0)
    t.pread(g, 20, 0)
    t.splice(f, g, 100)
    t.posix_fadvise(f, 0, 0, os.POSIX_FADV_DONTNEED)
    t.posix_fadvise(f, 0, 0, os.POSIX_FADV_WILLNEED)
    t.readahead(f, 0, 10000)
    t.fstat(f)


@case
def allocation(t):
    fd = os.open("f", O_RDWR | O_CREAT, 0o600)
    os.write(fd, b"0123456789")
    for offset, length in ((0, 5), (0, 10), (5, 5000), (100000, 1), (-1, 5), (0, 0), (0, -1)):
        t.fallocate(fd, 0, offset, length)
        t.fstat(fd)
    t.pread(fd, 20, 0)
    t.posix_fallocate(fd, 0, 200000)
    t.fstat(fd)
    t.fallocate(os.open("f", O_RDONLY), 0, 0, 10)
    t.fallocate(fd, 1 << 20, 0, 10)
    t.fallocate(fd, PUNCH_HOLE, 0, 10)


@case
def allocation_modes(t):
    fd = os.open("f", O_RDWR | O_CREAT, 0o600)
    os.write(fd, b"0123456789" * 2000)
    for mode, offset, length in ((KEEP_SIZE, 0, 100000), (PUNCH_HOLE | KEEP_SIZE, 5, 10), (ZERO, 30, 10), (ZERO | KEEP_SIZE, 0, 100), (COLLAPSE, 0, 4096), (INSERT, 4096, 4096)):
        t.fallocate(fd, mode, offset, length)
        t.fstat(fd)
        t.pread(fd, 50, 0)


@case
def attributes_extended(t):
    t.file("f")
    t.listxattr("f")
    t.getxattr("f", "user.x")
    t.setxattr("f", "user.x", b"1")
    t.getxattr("f", "user.x")
    t.removexattr("f", "user.x")
    t.getxattr("f", "system.posix_acl_access")
    t.getxattr("f", "security.capability")
    t.getxattr("missing", "user.x")


@case
def other_kinds(t):
    """Symbolic links, FIFOs, sockets and devices, which the store does not have."""
    t.symlink("f", "s")
    t.mkfifo("p")
    t.mknod("c", stat.S_IFCHR | 0o600, os.makedev(1, 3))
    try:
        socket.socket(socket.AF_UNIX).bind("u")
        t.say("bind = 0")
    except OSError as error:
        t.say(f"bind = {errno.errorcode[error.errno]}")


@case
def other_kinds_errors(t):
    t.file("f")
    os.mkdir("d")
    for path in ("f", "d", "missing", "f/x"):
        t.readlink(path)
    t.symlink("x", "f")
    t.mkfifo("f")
    t.mknod("f", stat.S_IFREG | 0o600)
    t.mknod("d", stat.S_IFREG | 0o600)
    t.mknod("missing/x", stat.S_IFREG | 0o600)
    t.mknod("r", stat.S_IFREG | 0o640)
    t.stat("r")
    t.user(OTHER, OTHER, lambda: t.mknod("c", stat.S_IFCHR | 0o600, os.makedev(1, 3)))


@case
def execution(t):
    """The mount is noexec."""
    t.file("f", b"#!/bin/sh\nexit 3\n", 0o755)
    t.chmod("f", 0o755)
    t.process(lambda: t.execv("./f", ["f"]))
    t.access("f", os.X_OK)


@case
def polling(t):
    t.file("f", b"x")
    poll = select.poll()
    fd = os.open("f", O_RDWR)
    poll.register(fd)
    t.say(f"poll {poll.poll(0)[0][1] & (select.POLLIN | select.POLLOUT)}")
    t.say(f"select {[len(ready) for ready in select.select([fd], [fd], [], 0)]}")


@case
def polling_epoll(t):
    t.file("f", b"x")
    try:
        select.epoll().register(os.open("f", O_RDONLY), select.EPOLLIN)
        t.say("epoll = 0")
    except OSError as error:
        t.say(f"epoll = {errno.errorcode[error.errno]}")


EVENTS = {1: "access", 2: "modify", 4: "attrib", 8: "close_write", 16: "close_nowrite", 32: "open", 64: "moved_from", 128: "moved_to", 256: "create",
          512: "delete", 1024: "delete_self", 2048: "move_self"}


@case
def inotify(t):
    """Events for what goes through the mount."""
    watcher = checked(libc.inotify_init1(O_NONBLOCK))
    t.say(f"watch {checked(libc.inotify_add_watch(watcher, b'.', 0xfff & ~1))}")

    def events(what):
        try:
            data = os.read(watcher, 65536)
        except BlockingIOError:
            return t.say(f"{what}: nothing")
        at, found = 0, []
        while at < len(data):
            _, mask, _, length = struct.unpack_from("iIII", data, at)
            found.append("+".join(name for bit, name in EVENTS.items() if mask & bit) + ("/" if mask & 1 << 30 else "") + " " +
                         data[at + 16:at + 16 + length].split(b"\0")[0].decode())
            at += 16 + length
        t.say(f"{what}: {', '.join(found)}")
    t.file("f", b"x")
    events("a file")
    with open("f", "ab") as file:
        file.write(b"more")
        file.flush()
        events("write")
    events("close")
    os.chmod("f", 0o600)
    events("chmod")
    os.rename("f", "g")
    events("rename")
    os.link("g", "h")
    events("link")
    os.truncate("g", 0)
    events("truncate")
    os.mkdir("d")
    events("mkdir")
    t.file("k")
    os.rename("k", "g")
    events("rename over")
    os.unlink("g")
    os.unlink("h")
    events("unlink")
    os.rmdir("d")
    events("rmdir")


# --- the program ----------------------------------------------------------------------------------------------------

def run_case(function, directory):
    """Run a case in a child, in a directory of its own."""
    name = function.__name__
    place = f"{directory}/{name}"
    if not os.path.isdir(place):
        os.mkdir(place)
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        os.setsid()
        calls = Calls(name)
        try:
            os.chdir(place)
            os.umask(0o022)
            function(calls)
        except BaseException as problem:
            line = problem.__traceback__
            while line.tb_next:
                line = line.tb_next
            calls.say(f"raised {problem!r} at line {line.tb_lineno}")
        sys.stdout.flush()
        os._exit(0)
    end = time.monotonic() + SECONDS
    while os.waitpid(pid, os.WNOHANG)[0] == 0:
        time.sleep(0.005)
        if time.monotonic() > end:
            print(f"{name}: hangs", flush=True)
            os.killpg(pid, signal.SIGKILL)
            break


def main():
    if len(sys.argv) < 2 or os.geteuid() != 0:
        sys.exit("usage, as root: posix.py DIRECTORY [CASE...]")
    wanted = sys.argv[2:]
    for function in cases:
        if not wanted or function.__name__ in wanted:
            run_case(function, os.path.abspath(sys.argv[1]))


if __name__ == "__main__":
    main()
