#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""One process uses two spools, as one that moves messages from one Exim's queue to another's does:

    tests/system/namespace.sh --build build tests/shim/spools.py

Each spool is a file system of its own: link and rename from one to the other are EXDEV.  Descriptors of both work side by
side, over fork and exec too.  Another process finds in each spool what belongs there.

The two stores give the same numbers to their descriptions and files.  So each call on a descriptor is made on one of each,
and must reach the right one.
"""
import array
import ctypes
import errno
import fcntl
import mmap
import os
import pathlib
import shutil
import subprocess
import sys

LIBC = ctypes.CDLL(None)
SPOOLS = [pathlib.Path("/srv/one"), pathlib.Path("/srv/two")]


def error_of(call, *arguments):
    try:
        call(*arguments)
        return "0"
    except OSError as error:
        return errno.errorcode[error.errno]


def expect(what, found, wanted):
    if found != wanted:
        sys.exit(f"{what}: {found!r} instead of {wanted!r}")


def calls(spool, letter, size):
    """Each call on descriptors of one spool.  The files of the other have another size, letter and mode."""
    path, content = spool / "input/calls", letter * size
    path.write_bytes(content)
    fd, directory, name = os.open(path, os.O_RDWR), os.open(spool / "input", os.O_RDONLY), os.open(path, os.O_PATH)
    other = os.open(spool / "input/others", os.O_RDWR | os.O_CREAT | os.O_APPEND)
    own_name = f"/proc/self/fd/{fd}"
    yield
    expect("fstat", (os.fstat(fd).st_size, os.fstat(name).st_size, os.stat(own_name).st_size), (size,) * 3)
    expect("the device", os.fstat(fd).st_dev, os.stat(path).st_dev)
    expect("reads", (os.read(fd, 99), os.pread(fd, 99, 1), os.preadv(fd, [bytearray(99)], 2)), (content, content[1:], size - 2))
    expect("offsets", (os.lseek(fd, 0, os.SEEK_CUR), os.lseek(fd, 0, os.SEEK_END), os.lseek(fd, 0, os.SEEK_SET)), (size, size, 0))
    expect("a mapping", mmap.mmap(fd, 0, access=mmap.ACCESS_READ)[:], content)
    expect("sendfile", (os.sendfile(other, fd, 0, 99), os.pread(other, 99, 0)), (size, content))
    expect("writes", (os.write(other, letter), os.pwrite(other, letter, 0), os.writev(other, [letter])), (1, 1, 1))
    os.ftruncate(other, 1)
    os.posix_fallocate(other, 0, size + 1)
    expect("sizes", os.stat(spool / "input/others").st_size, size + 1)
    for call in (os.fsync, os.fdatasync):
        expect(call.__name__, (error_of(call, fd), error_of(call, directory)), ("0", "0"))
    expect("syncfs", LIBC.syncfs(fd), 0)
    expect("sync", os.sync(), None)
    os.fchmod(fd, 0o600 + size)
    os.chown(fd, size, size)
    os.utime(fd, (size, size))
    st = os.stat(path)
    expect("attributes", (st.st_mode & 0o777, st.st_uid, st.st_gid, st.st_mtime), (0o600 + size, size, size, size))
    expect("fcntl", [fcntl.fcntl(each, fcntl.F_GETFL) & 0o17777777 for each in (fd, other, name)],
           [flags | (0 if flags & os.O_PATH else 0o100000) for flags in (os.O_RDWR, os.O_RDWR | os.O_APPEND, os.O_PATH)])
    waiting = array.array("i", [0])
    fcntl.ioctl(fd, 0x541b, waiting)            # FIONREAD
    expect("ioctl", waiting[0], size)
    expect("flock", (error_of(fcntl.flock, fd, fcntl.LOCK_EX), error_of(fcntl.flock, name, fcntl.LOCK_EX)),
           ("ENOTSUP", "EBADF"))
    expect("xattr", (error_of(os.getxattr, fd, "user.x"), error_of(os.getxattr, name, "user.x")), ("ENODATA", "EBADF"))
    expect("room", [os.statvfs(each).f_blocks for each in (fd, own_name, path)], [os.statvfs(spool).f_blocks] * 3)
    expect("limits", os.fpathconf(fd, "PC_NAME_MAX"), 255)
    expect("its name", (os.readlink(own_name), os.path.realpath(own_name)), (str(path), str(path)))
    with open(own_name, "rb") as again:
        expect("opened by its name", again.read(), content)
    expect("by a directory", os.stat("calls", dir_fd=directory).st_size, size)
    expect("a listing", sorted(os.listdir(directory)), ["calls", "others"])
    below = spool / "input" / ("long" * 10)     # with it the path is too long, without it it is not
    below.mkdir()
    os.link(path, below / "f")
    deep = os.open(below, os.O_RDONLY)
    expect("by a long path", os.stat("./" * 2030 + "f", dir_fd=deep).st_size, size)
    os.close(deep)
    (below / "f").unlink()
    below.rmdir()
    before = os.getcwd()
    os.fchdir(directory)
    expect("the working directory", (os.getcwd(), os.stat("calls").st_size), (str(spool / "input"), size))
    os.chdir(before)
    linked = LIBC.linkat(-100, own_name.encode(), -100, bytes(spool / "input/linked"), 0x400)   # AT_SYMLINK_FOLLOW
    expect("linked", (linked, os.stat(spool / "input/linked").st_size), (0, size))
    os.unlink(spool / "input/linked")
    copy = os.open(spool / "input/copy", os.O_RDWR | os.O_CREAT)
    expect("copy_file_range", (os.copy_file_range(fd, copy, 99), os.pread(copy, 99, 0)), (size, content))
    os.unlink(spool / "input/copy")
    expect("removed", (os.readlink(f"/proc/self/fd/{copy}"), os.fstat(copy).st_nlink), (f"{spool}/ (deleted)", 0))
    for each in (copy, fd, directory, name, other):
        os.close(each)
    os.unlink(path)
    os.unlink(spool / "input/others")


def locks(one, two):
    """A close in one spool says nothing of the locks in the other.  The files have the same number."""
    files = [os.open(directory / "lock", os.O_RDWR | os.O_CREAT) for directory in (one, two)]
    expect("the numbers", os.fstat(files[0]).st_ino, os.fstat(files[1]).st_ino)

    def locked(directory):
        pid = os.fork()
        if pid == 0:
            fd = os.open(directory / "lock", os.O_RDWR)
            os._exit(1 if error_of(fcntl.lockf, fd, fcntl.LOCK_EX | fcntl.LOCK_NB) == "EAGAIN" else 0)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    fcntl.lockf(files[0], fcntl.LOCK_EX)
    os.close(files[1])
    expect("the lock after the other's close", (locked(one), locked(two)), (1, 0))
    os.close(files[0])
    expect("the lock after the close", locked(one), 0)
    for directory in (one, two):
        (directory / "lock").unlink()


def leaves(one, two):
    """A process that becomes an ordinary user writes to files of both, and they stay what they were."""
    pid = os.fork()
    if pid == 0:
        files = [os.open(directory / "left", os.O_WRONLY | os.O_CREAT) for directory in (one, two)]
        devices = [os.fstat(fd).st_dev for fd in files]
        os.setresuid(12345, 12345, 12345)
        for fd, device, letters in zip(files, devices, (b"of one", b"of two, too")):
            os.write(fd, letters)
            expect("what has left", (os.fstat(fd).st_size, os.fstat(fd).st_dev), (len(letters), device))
        expect("both", [error_of(os.stat, directory / "left") for directory in (one, two)], ["EACCES"] * 2)
        os._exit(0)
    expect("one that leaves", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), 0)
    expect("what it has written", [(directory / "left").read_bytes() for directory in (one, two)], [b"of one", b"of two, too"])
    for directory in (one, two):
        (directory / "left").unlink()


def served():
    """All of it with the library."""
    one, two = (spool / "input" for spool in SPOOLS)
    for directory in (one, two):
        directory.mkdir()
    both = [calls(SPOOLS[0], b"x", 11), calls(SPOOLS[1], b"y", 22)]
    for step in (*both, *both):
        next(step, None)
    locks(one, two)
    leaves(one, two)
    (one / "a-D").write_bytes(b"of one")
    (two / "b-D").write_bytes(b"of two")
    for call in (os.rename, os.link):
        expect(f"{call.__name__} between two", error_of(call, one / "a-D", two / "a-D"), "EXDEV")
        expect(f"{call.__name__} of nothing", error_of(call, one / "x", two / "x"), "ENOENT")
    first, second = os.open(one / "a-D", os.O_RDWR), os.open(two / "b-D", os.O_RDWR)
    expect("the devices", os.fstat(first).st_dev != os.fstat(second).st_dev, True)
    again = os.dup(second)
    os.close(second)
    os.lseek(again, 3, os.SEEK_SET)
    expect("the two files", (os.read(first, 10), os.read(again, 10)), (b"of one", b"two"))
    os.fsync(first)
    os.fsync(again)
    # What a message mover does: copy, and remove the first.
    shutil.copyfile(one / "a-D", two / "a-D")
    (one / "a-D").unlink()
    expect("the listings", (os.listdir(one), sorted(os.listdir(two))), ([], ["a-D", "b-D"]))
    with open(two / "c-H", "wb") as file:       # a program inherits it, and is served in its turn
        subprocess.run(["sh", "-c", "echo inherited"], stdout=file, check=True)
    for fd in (first, again):
        pid = os.fork()
        if pid == 0:
            os.pwrite(fd, b"by a child", 0)
            os._exit(0)
        os.waitpid(pid, 0)
    expect("what the children have written", (os.pread(first, 20, 0), os.pread(again, 20, 0)), (b"by a child",) * 2)
    directory = os.open(two, os.O_RDONLY)
    expect("by a directory", error_of(lambda: os.rename("a-D", "d-D", src_dir_fd=directory, dst_dir_fd=directory)), "0")
    expect("by directories of both", error_of(lambda: os.rename(one / "x", "e-D", dst_dir_fd=directory)), "ENOENT")


def main():
    environment = dict(os.environ, LD_PRELOAD="libfastspool.so", FASTSPOOL_VIEW="off")
    for spool in SPOOLS:
        spool.mkdir()
        shutil.chown(spool, "Debian-exim", "Debian-exim")
    pathlib.Path("/etc/fastspool.conf").write_text("".join(f"spool = {spool}\n" for spool in SPOOLS) + "memory = 64M\nview = off\n")
    subprocess.run([sys.executable, __file__, "served"], env=environment, check=True)
    for spool, wanted in zip(SPOOLS, ("", "b-D by a child\nc-H inherited\nd-D of one\n")):
        shown = subprocess.run(["sh", "-c", 'cd "$0" && for f in $(ls "$0"); do echo "$f $(cat $0/$f)"; done', spool / "input"],
                               env=environment, capture_output=True, text=True, check=True).stdout
        expect(f"the files of {spool}", shown, wanted)
        subprocess.run(["fastspool", "verify", "--spool", spool], check=True, stdout=subprocess.DEVNULL)
        subprocess.run(["fastspool", "stop", "--spool", spool], check=True, stdout=subprocess.DEVNULL)
        expect("files on the disk", [path.name for path in (spool / "input").iterdir()], [])


served() if sys.argv[1:] == ["served"] else main()
