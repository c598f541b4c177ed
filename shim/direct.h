/* SPDX-License-Identifier: MIT
 *
 * Put in front of the store's sources where they are compiled into the library (-include): their calls go straight to
 * libc, not through the wrappers that the library exports.  The store knows nothing of it.
 */
#ifndef FASTSPOOL_DIRECT_H
#define FASTSPOOL_DIRECT_H

#include "real.h"

#include <sys/file.h>
#include <sys/xattr.h>

#define open(...)               real.open(__VA_ARGS__)
#define openat(...)             real.openat(__VA_ARGS__)
#define close(fd)               real.close(fd)
#define dup(fd)                 real.dup(fd)
#define fcntl(...)              real.fcntl(__VA_ARGS__)
#define flock(fd, operation)    real.flock(fd, operation)
#define read(fd, to, size)      real.read(fd, to, size)
#define pread(fd, to, size, at) real.pread(fd, to, size, at)
#define write(fd, from, size)   real.write(fd, from, size)
#define lseek(fd, at, whence)   real.lseek(fd, at, whence)
#define ftruncate(fd, size)     real.ftruncate(fd, size)
#define fallocate(fd, m, a, s)  real.fallocate(fd, m, a, s)
#define fsync(fd)               real.fsync(fd)
#define mmap(a, s, p, f, d, o)  real.mmap(a, s, p, f, d, o)
#define stat(path, st)          real.stat(path, st)
#define lstat(path, st)         real.lstat(path, st)
#define fstat(fd, st)           real.fstat(fd, st)
#define fstatat(d, p, st, f)    real.fstatat(d, p, st, f)
#define statvfs(path, st)       real.statvfs(path, st)
#define chown(p, u, g)          real.chown(p, u, g)
#define fchown(fd, u, g)        real.fchown(fd, u, g)
#define fchownat(d, p, u, g, f) real.fchownat(d, p, u, g, f)
#define fchmod(fd, mode)        real.fchmod(fd, mode)
#define mkdir(path, mode)       real.mkdir(path, mode)
#define mkdirat(d, path, mode)  real.mkdirat(d, path, mode)
#define rmdir(path)             real.rmdir(path)
#define unlink(path)            real.unlink(path)
#define unlinkat(d, path, f)    real.unlinkat(d, path, f)
#define renameat(a, b, c, d)    real.renameat(a, b, c, d)
#define readlink(p, to, size)   real.readlink(p, to, size)
#define opendir(path)           real.opendir(path)
#define readdir(listing)        real.readdir(listing)
#define closedir(listing)       real.closedir(listing)
#define fgetxattr(...)          real.fgetxattr(__VA_ARGS__)
#define umask(mode)             real.umask(mode)
#define execve(p, a, e)         real.execve(p, a, e)

#endif
