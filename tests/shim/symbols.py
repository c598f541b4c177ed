#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Every libc function that could touch the spool is interposed, or left alone for a stated reason.

    symbols.py LIBRARY HEADER SYMBOLS [PROGRAM...]

The functions are those that a PROGRAM (the real Exim) or a probe imports, and that take a path, a descriptor, a stream
that could be opened on a spool file, an identity, or a program to execute.

Also, the library exports a wrapper of each name in SYMBOLS (shim/symbols.def), the public functions of HEADER, and
nothing else.  What it looks up at load (SYMBOL there) it calls: a look-up of the loader takes 1,240 instructions.

The probes are compiled here with FORTIFY 0, 2 and 3, and with 32- and 64-bit file offsets, because each of these makes the
compiler call the same functions by other names.
"""
import pathlib
import re
import subprocess
import sys
import tempfile

# libc functions that could touch the spool.  One that is neither exported nor in LEFT_ALONE was overlooked.
TELLING = re.compile(r"^(_*)(open(?!log)|creat|close(?!log)|dup|fcntl|ioctl|flock|lockf|p?read|p?write|p?readv|p?writev|lseek|f?truncate|"
                     r"fsync|fdatasync|sync|fallocate|posix_f|sendfile|copy_file|splice|tee|vmsplice|mmap|[lf]?stat|statx|"
                     r"x?stat|[lf]xstat|access|faccess|eaccess|euid|f?statv?fs|f?chmod|[lf]?chown|utime|futim|lutim|"
                     r"rename|link|unlink|remove|mkdir|rmdir|symlink|mknod|mkfifo|mkstemp|mkostemp|mkdtemp|tmp|readlink|"
                     r"realpath|canonicalize|f?chdir|getcwd|fopen|fdopen|freopen|fclose|opendir|fdopendir|readdir|closedir|"
                     r"rewinddir|telldir|seekdir|dirfd|scandir|glob|ftw|nftw|fts|exec|fexec|posix_spawn|system|popen|[fF]ork|"
                     r"vfork|clone|set[ref]*[ug]id|setres|setgroups|initgroups|umask|inotify|[lf]?(get|list|set)xattr|"
                     r"sendm?msg|recvm?msg|name_to|closefrom|close_range|pipe|eventfd|memfd)")

# Deliberate pass-throughs, each with its reason.
LEFT_ALONE = {
    "fclose": "closes a cookie stream through its own functions", "fork": "pthread_atfork sees it",
    "getcwd": "the kernel knows the directory",
    "setgroups": "groups are read when needed",
    "initgroups": "groups are read when needed", "inotify_init1": "makes a foreign descriptor",
    "inotify_init": "makes a foreign descriptor", "inotify_rm_watch": "of a foreign descriptor",
}

# In SYMBOLS for real.c to bind, but without a wrapper; each with its reason.
CALLED_ONLY = {}

# Wrappers without an entry in SYMBOLS, because they call other wrappers; and fortified or versioned names (__...).
BY_OTHERS = re.compile(r"creat(64)?|exec(l|le|lp|v|vp)|vfork|__\w+(_chk|_2)|__[lf]?xstat(at)?(64)?")

PROBE = r"""
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>
int main(int argc, char **argv)
{
    char bytes[64]; struct stat st; struct statvfs vfs; off_t at = argc;
    int fd = open(argv[1], argc), two = openat(fd, argv[1], argc), three = open(argv[1], O_CREAT | argc, 0600);
    FILE *stream = fopen(argv[1], "r+"); DIR *directory = opendir(argv[1]);
    return (int)(read(fd, bytes, (size_t)argc) + pread(two, bytes, (size_t)argc, at) + write(fd, bytes, 1) + lseek(fd, at, 0)
        + stat(argv[1], &st) + lstat(argv[1], &st) + fstat(fd, &st) + fstatat(fd, argv[1], &st, 0) + statvfs(argv[1], &vfs)
        + fstatvfs(fd, &vfs) + ftruncate(fd, at) + truncate(argv[1], at) + fcntl(fd, F_GETFL) + mkstemp(argv[1]) + three
        + sendfile(fd, two, &at, 1) + (int)fread(bytes, 1, (size_t)argc, stream) + (fgets(bytes, argc, stream) != NULL)
        + (readdir(directory) != NULL) + (int)readlink(argv[1], bytes, (size_t)argc) + pwrite(fd, bytes, 1, at)
        + fclose(stream) + closedir(directory) + fileno(stdin) + (fdopen(fd, "r") != NULL) + freopen("x", "r", stdin)->_fileno
        + lockf(fd, F_TEST, at) + posix_fadvise(fd, at, at, 0) + posix_fallocate(fd, at, at) + (int)strlen(bytes));
}
"""


def names(program, option):
    output = subprocess.run(["nm", "-D", option, program], check=True, capture_output=True, text=True).stdout
    return {line.split()[-1].split("@")[0] for line in output.splitlines()}


def probes(directory):
    for fortify in (0, 2, 3):
        for offsets in ("", "-D_FILE_OFFSET_BITS=64", "-D_LARGEFILE64_SOURCE"):
            program = f"{directory}/probe-{fortify}-{len(offsets)}"
            subprocess.run(["cc", "-O2", "-w", "-U_FORTIFY_SOURCE", f"-D_FORTIFY_SOURCE={fortify}", "-D_GNU_SOURCE",
                            *offsets.split(), "-xc", "-", "-o", program], input=PROBE.encode(), check=True)
            yield program


def check_exports(exported, header, symbols):
    """The library exports what HEADER and SYMBOLS promise, and nothing else."""
    public = set(re.findall(r"\b(fastspool_\w+)\(", re.sub(r"/\*.*?\*/", "", open(header).read(), flags=re.S)))
    wrapped = set(re.findall(r"^(?:SYMBOL\([^,]*, |WRAPPER\(|ALIAS\()(\w+)", open(symbols).read(), re.M)) - CALLED_ONLY.keys()
    if len(public) < 20 or len(wrapped) < 100:
        sys.exit(f"only {len(public)} functions in {header}, {len(wrapped)} in {symbols}: they were not read")
    if public - exported:
        sys.exit(f"declared in {header} and not exported: {', '.join(sorted(public - exported))}")
    if wrapped - exported:
        sys.exit(f"in {symbols}, but without a wrapper: {', '.join(sorted(wrapped - exported))}")
    inner = {name for name in exported - public - wrapped if not BY_OTHERS.fullmatch(name)}
    if inner:
        sys.exit(f"exported, but neither public nor in {symbols}: {', '.join(sorted(inner))}")


def check_calls(symbols):
    """Each bound function is called, by the library or by the store inside it."""
    shim = pathlib.Path(symbols).parent
    calls = "\n".join(source.read_text() for source in shim.glob("*.c"))
    store = "\n".join(source.read_text() for source in shim.parent.glob("lib/*/*.c"))
    idle = [name for name in re.findall(r"^SYMBOL\([^,]*, (\w+)", open(symbols).read(), re.M)
            if not re.search(rf"\breal\.{name}\b", calls) and not re.search(rf"(?<![\w.>]){name}(64)?\(", store)]
    if idle:
        sys.exit(f"looked up at load, and never called (say WRAPPER in {symbols}): {', '.join(idle)}")


def main():
    library, header, symbols, *programs = sys.argv[1:]
    exported = names(library, "--defined-only")
    failed = looked = 0
    check_exports(exported, header, symbols)
    check_calls(symbols)
    with tempfile.TemporaryDirectory() as directory:
        for program in [*programs, *probes(directory)]:
            telling = {name for name in names(program, "--undefined-only") if TELLING.match(name)}
            missing = sorted(telling - exported - LEFT_ALONE.keys())
            looked += len(telling)
            if missing:
                failed += 1
                print(f"{program}: neither interposed nor left alone for a reason: {', '.join(missing)}")
    if looked < 100:
        sys.exit(f"only {looked} names checked: nm shows nothing")
    print(f"{looked} names checked, {len(exported)} exported")
    sys.exit(1 if failed else 0)


main()
