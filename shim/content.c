/* SPDX-License-Identifier: MIT
 *
 * The content of spool files, by descriptor: reading, writing, seeking, syncing.
 *
 * Happy path:
 *   - The table of descriptors says whose the descriptor is.  A foreign one costs a look at an array.
 *   - sendfile, copy_file_range and mmap, which the kernel does by itself for real files, read and write here.
 *   - In a process that has left the store, the carrier does it for what may be written (carrier.c).
 *   - fsync of a real file below db/ or scan/ is free: Exim calls their content expendable.  Other foreign descriptors
 *     go to the kernel.
 *
 * Failure modes:
 *   - Those of the store, as errno.
 *   - A shared mapping of a spool file can't be written: ENODEV.
 */
#include "asking.h"
#include "attachment.h"
#include "base/atomic.h"
#include "descriptors.h"
#include "fastspool.h"
#include "paths.h"
#include "pointers.h"
#include "store/inside.h"
#include "wrapper.h"

#include <errno.h>
#include <limits.h>
#include <string.h>
#include <sys/syscall.h>

/* The description that @fd stands for, 0: none.  First in a wrapper. */
static inline int description_of(int fd)
{
    BOUND();
    return (int)descriptors_find(fd);
}

/* Was it opened with O_PATH, so that it only names the file? */
static bool is_name(int description)
{
    return inside_flags(OF(description)) & O_PATH;
}

/* Does the store or a carrier write to @fd? */
static bool is_ours(int fd)
{
    return descriptors_find(fd) || descriptors_carried(fd) >= 0;
}

/* As far as the program's memory goes: what the kernel transfers.  With none of it a call of nothing shows which other
 * error comes first. */
static ssize_t faulty(ssize_t result)
{
    return result < 0 ? result : -EFAULT;
}

/* Memory is looked at in pieces: a buffer may be much larger than the file. */
#define PIECE 65536u

static ssize_t read_some(int description, char *buffer, size_t size)
{
    size_t room = pointers_writable(buffer, size);

    return room || !size ? fastspool_read(OF(description), buffer, room)
                         : faulty(fastspool_read(OF(description), buffer, 0));
}

static ssize_t pread_some(int description, char *buffer, size_t size, off_t offset)
{
    size_t room = pointers_writable(buffer, size);

    return room || !size ? fastspool_pread(OF(description), buffer, room, offset)
                         : faulty(fastspool_pread(OF(description), buffer, 0, offset));
}

EXPORT ssize_t read(int fd, void *buffer, size_t size)
{
    int description = description_of(fd);
    ssize_t done = 0, got;

    if (!description)
        return real.read(fd, buffer, size);
    do {
        size_t part = size - (size_t)done < PIECE ? size - (size_t)done : PIECE;
        got = read_some(description, (char *)buffer + done, part);
        done += got > 0 ? got : 0;
    } while (got == PIECE && (size_t)done < size);
    return done ? done : result_of(got);
}

EXPORT ssize_t write(int fd, const void *buffer, size_t size)
{
    int description = description_of(fd);

    int file = description ? -1 : descriptors_carried(fd);
    if (!description && file < 0)
        return real.write(fd, buffer, size);
    size_t room = pointers_readable(buffer, size);
    if (description)
        return result_of(room || !size ? fastspool_write(OF(description), buffer, room)
                                       : faulty(fastspool_write(OF(description), buffer, 0)));
    return room || !size ? asking_write(file, fd, buffer, room) : result_of(-EFAULT);
}

EXPORT ssize_t pread(int fd, void *buffer, size_t size, off_t offset)
{
    int description = description_of(fd);
    ssize_t done = 0, got;

    if (!description)
        return real.pread(fd, buffer, size, offset);
    do {
        size_t part = size - (size_t)done < PIECE ? size - (size_t)done : PIECE;
        got = pread_some(description, (char *)buffer + done, part, offset + done);
        done += got > 0 ? got : 0;
    } while (got == PIECE && (size_t)done < size);
    return done ? done : result_of(got);
}
EXPORT_ALIAS(pread64, pread);

EXPORT ssize_t pwrite(int fd, const void *buffer, size_t size, off_t offset)
{
    int description = description_of(fd);

    int file = description ? -1 : descriptors_carried(fd);
    if (!description && file < 0)
        return real.pwrite(fd, buffer, size, offset);
    size_t room = pointers_readable(buffer, size);
    if (description)
        return result_of(room || !size ? fastspool_pwrite(OF(description), buffer, room, offset)
                                       : faulty(fastspool_pwrite(OF(description), buffer, 0, offset)));
    return room || !size ? asking_pwrite(file, buffer, room, offset) : result_of(-EFAULT);
}
EXPORT_ALIAS(pwrite64, pwrite);

/* The fortified names: the compiler knows the size of the buffer. */
void __chk_fail(void) __attribute__((noreturn));

EXPORT ssize_t __read_chk(int fd, void *buffer, size_t size, size_t room);
EXPORT ssize_t __read_chk(int fd, void *buffer, size_t size, size_t room)
{
    if (size > room)
        __chk_fail();
    return read(fd, buffer, size);
}

EXPORT ssize_t __pread_chk(int fd, void *buffer, size_t size, off_t offset, size_t room);
EXPORT ssize_t __pread_chk(int fd, void *buffer, size_t size, off_t offset, size_t room)
{
    if (size > room)
        __chk_fail();
    return pread(fd, buffer, size, offset);
}
EXPORT_ALIAS(__pread64_chk, __pread_chk);

/* ---- vectors ---- */

/* @offset < 0: at the description's offset. */
static ssize_t transfer(bool writing, int fd, const struct iovec *vector, int count, off_t offset)
{
    ssize_t done = 0;

    if (count < 0 || count > IOV_MAX)
        return result_of(-EINVAL);
    size_t vector_size = (size_t)count * sizeof(*vector);
    if (pointers_readable(vector, vector_size) < vector_size)
        return result_of(-EFAULT);
    for (int i = 0; i < count; i++) {
        if (vector[i].iov_len > SSIZE_MAX)
            return result_of(-EINVAL);
    }
    for (int i = 0; i < count; i++) {
        void *bytes = vector[i].iov_base;
        size_t size = vector[i].iov_len;
        ssize_t part;
        if (offset < 0)
            part = writing ? write(fd, bytes, size) : read(fd, bytes, size);
        else
            part = writing ? pwrite(fd, bytes, size, offset + done) : pread(fd, bytes, size, offset + done);
        if (part < 0)
            return done ? done : -1;
        done += part;
        if ((size_t)part < size)
            break;
    }
    return done;
}

EXPORT ssize_t readv(int fd, const struct iovec *vector, int count)
{
    BOUND();
    return descriptors_find(fd) ? transfer(false, fd, vector, count, -1) : real.readv(fd, vector, count);
}

EXPORT ssize_t writev(int fd, const struct iovec *vector, int count)
{
    BOUND();
    return is_ours(fd) ? transfer(true, fd, vector, count, -1) : real.writev(fd, vector, count);
}

static ssize_t transfer_at(bool writing, int fd, const struct iovec *vector, int count, off_t offset)
{
    if (offset < 0) {
        errno = EINVAL;
        return -1;
    }
    return transfer(writing, fd, vector, count, offset);
}

EXPORT ssize_t preadv(int fd, const struct iovec *vector, int count, off_t offset)
{
    BOUND();
    return descriptors_find(fd) ? transfer_at(false, fd, vector, count, offset)
                                : real.preadv(fd, vector, count, offset);
}
EXPORT_ALIAS(preadv64, preadv);

EXPORT ssize_t pwritev(int fd, const struct iovec *vector, int count, off_t offset)
{
    BOUND();
    return is_ours(fd) ? transfer_at(true, fd, vector, count, offset) : real.pwritev(fd, vector, count, offset);
}
EXPORT_ALIAS(pwritev64, pwritev);

/* The store reads from memory, so nothing waits, and has no priorities.  @offset -1: at the description's offset. */
EXPORT ssize_t preadv2(int fd, const struct iovec *vector, int count, off_t offset, int flags)
{
    BOUND();
    if (!descriptors_find(fd))
        return real.preadv2(fd, vector, count, offset, flags);
    if (flags & ~(RWF_HIPRI | RWF_NOWAIT))
        return result_of(-EOPNOTSUPP);
    return offset == -1 ? transfer(false, fd, vector, count, -1) : transfer_at(false, fd, vector, count, offset);
}
EXPORT_ALIAS(preadv64v2, preadv2);

EXPORT ssize_t pwritev2(int fd, const struct iovec *vector, int count, off_t offset, int flags)
{
    BOUND();
    if (!is_ours(fd))
        return real.pwritev2(fd, vector, count, offset, flags);
    if (flags & ~(RWF_HIPRI | RWF_DSYNC | RWF_SYNC))
        return result_of(-EOPNOTSUPP);
    ssize_t done = offset == -1 ? transfer(true, fd, vector, count, -1) : transfer_at(true, fd, vector, count, offset);
    return done > 0 && (flags & (RWF_DSYNC | RWF_SYNC)) && fsync(fd) < 0 ? -1 : done;
}
EXPORT_ALIAS(pwritev64v2, pwritev2);

/* ---- size and offset ---- */

EXPORT off_t lseek(int fd, off_t offset, int whence)
{
    int description = description_of(fd);

    if (description)
        return result_of(fastspool_lseek(OF(description), offset, whence));
    int file = descriptors_carried(fd);
    return file >= 0 ? asking_lseek(file, offset, whence) : real.lseek(fd, offset, whence);
}
EXPORT_ALIAS(lseek64, lseek);

EXPORT int ftruncate(int fd, off_t size)
{
    int description = description_of(fd);

    if (description)
        return (int)result_of(fastspool_ftruncate(OF(description), size));
    int file = descriptors_carried(fd);
    return file >= 0 ? asking_ftruncate(file, size) : real.ftruncate(fd, size);
}
EXPORT_ALIAS(ftruncate64, ftruncate);

EXPORT int posix_fallocate(int fd, off_t offset, off_t size)
{
    int description = description_of(fd);

    if (!description)
        return real.posix_fallocate(fd, offset, size);
    return -fastspool_allocate(OF(description), offset, size);
}
EXPORT_ALIAS(posix_fallocate64, posix_fallocate);

EXPORT int fallocate(int fd, int mode, off_t offset, off_t size)
{
    int description = description_of(fd);

    if (!description)
        return real.fallocate(fd, mode, offset, size);
    return (int)result_of(mode ? -EOPNOTSUPP : fastspool_allocate(OF(description), offset, size));
}
EXPORT_ALIAS(fallocate64, fallocate);

EXPORT int posix_fadvise(int fd, off_t offset, off_t size, int advice)
{
    int description = description_of(fd);

    if (!description)
        return real.posix_fadvise(fd, offset, size, advice);
    if (is_name(description))
        return EBADF;
    return size < 0 || advice < POSIX_FADV_NORMAL || advice > POSIX_FADV_NOREUSE ? EINVAL : 0;
}
EXPORT_ALIAS(posix_fadvise64, posix_fadvise);

/* ---- syncing ---- */

/* fsync of a directory that the disk has too: this process may have changed the disk's names there.  Not inlined
 * because of its buffer, a page of the stack. */
static __attribute__((noinline)) int sync_disk(struct fastspool *fs, int description)
{
    char path[PATH_MAX];
    struct stat st;

    if (!paths_ask_disk(fs) || fastspool_fstat(fs, description, &st) < 0 || !S_ISDIR(st.st_mode))
        return 0;
    if (paths_of(fs, (uint32_t)description, path) < 0)
        return 0;
    int fd = real.open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return errno == ENOENT ? 0 : -errno;
    int result = real.fsync(fd) < 0 ? -errno : 0;
    real.close(fd);
    return result;
}

static int sync_file(int fd, int (*sync)(int))
{
    int description = description_of(fd), saved = errno;

    if (!description && descriptors_carried(fd) >= 0)
        return asking_fsync(descriptors_carried(fd));
    if (!description)
        return descriptors_is_hint(fd) ? 0 : sync(fd);
    int result = fastspool_fsync(OF(description));
    if (result == 0 && LOAD(paths_disk_changed))
        result = sync_disk(OF(description));
    errno = saved;
    return (int)result_of(result);
}

EXPORT int fsync(int fd)
{
    BOUND();
    return sync_file(fd, real.fsync);
}

EXPORT int fdatasync(int fd)
{
    BOUND();
    return sync_file(fd, real.fdatasync);
}

/* All that any process has changed. */
EXPORT int syncfs(int fd)
{
    int description = description_of(fd);

    if (!description)
        return real.syncfs(fd);
    return (int)result_of(is_name(description) ? -EBADF : fastspool_flush(attachment_of((uint32_t)description), 0));
}

static void flush(struct fastspool *fs)
{
    fastspool_flush(fs, 0);
}

/* Of a process that has attached.  (Any other has changed nothing, and may be of a user who must not wait.) */
EXPORT void sync(void)
{
    int saved = errno;

    BOUND();
    attachment_each(flush);
    errno = saved;
    real.sync();
}

EXPORT int sync_file_range(int fd, off_t offset, off_t size, unsigned flags)
{
    int description = description_of(fd);

    if (!description)
        return real.sync_file_range(fd, offset, size, flags);
    if (flags & ~7u || offset < 0 || size < 0)
        return (int)result_of(is_name(description) ? -EBADF : -EINVAL);
    return is_name(description) ? (int)result_of(-EBADF) : 0;
}

EXPORT ssize_t readahead(int fd, off64_t offset, size_t size)
{
    int description = description_of(fd);

    if (!description)
        return real.readahead(fd, offset, size);
    return (inside_flags(OF(description)) & (O_PATH | O_WRONLY)) ? result_of(-EBADF) : 0;
}

/* ---- what the kernel does between two descriptors ---- */

/* Copy up to @size bytes.  Offsets move by the bytes that were written. */
static ssize_t copy_between(int out, off_t *out_offset, int in, off_t *in_offset, size_t size)
{
    char bytes[16384];
    ssize_t done = 0;

    while ((size_t)done < size) {
        size_t want = size - (size_t)done < sizeof(bytes) ? size - (size_t)done : sizeof(bytes);
        ssize_t got = in_offset ? pread(in, bytes, want, *in_offset) : read(in, bytes, want);
        if (got <= 0)
            return done ? done : got;
        ssize_t put = out_offset ? pwrite(out, bytes, (size_t)got, *out_offset) : write(out, bytes, (size_t)got);
        ssize_t moved = put < 0 ? 0 : put;
        if (in_offset)
            *in_offset += moved;
        else if (moved < got)
            lseek(in, moved - got, SEEK_CUR);
        if (out_offset)
            *out_offset += moved;
        done += moved;
        if (put < got)
            return done || put >= 0 ? done : -1;
    }
    return done;
}

EXPORT ssize_t sendfile(int out, int in, off_t *offset, size_t size)
{
    BOUND();
    if (!descriptors_find(in) && !is_ours(out))
        return real.sendfile(out, in, offset, size);
    int saved = errno, source = (int)descriptors_find(in);
    if (offset && pointers_writable(offset, sizeof(*offset)) < sizeof(*offset))
        return result_of(-EFAULT);
    if (source && (inside_flags(OF(source)) & O_ACCMODE) == O_WRONLY)
        return result_of(-EBADF);
    ssize_t result = copy_between(out, NULL, in, offset, size);
    if (result < 0 && errno == EISDIR)
        errno = EINVAL;
    else if (result >= 0)
        errno = saved;
    return result;
}
EXPORT_ALIAS(sendfile64, sendfile);

/* Are both the same file, and do the two ranges of it overlap? */
static bool overlaps(int in, const off_t *in_offset, int out, const off_t *out_offset, size_t size)
{
    struct stat from, to;

    if (fstat(in, &from) < 0 || fstat(out, &to) < 0 || from.st_dev != to.st_dev || from.st_ino != to.st_ino)
        return false;
    off_t start = in_offset ? *in_offset : lseek(in, 0, SEEK_CUR);
    off_t other = out_offset ? *out_offset : lseek(out, 0, SEEK_CUR);
    size_t between = (size_t)(start < other ? other - start : start - other);
    return between < size;
}

EXPORT ssize_t copy_file_range(int in, off_t *in_offset, int out, off_t *out_offset, size_t size, unsigned flags)
{
    BOUND();
    if (!descriptors_find(in) && !is_ours(out))
        return real.copy_file_range(in, in_offset, out, out_offset, size, flags);
    if (flags)
        return result_of(-EINVAL);
    if ((in_offset && pointers_writable(in_offset, sizeof(*in_offset)) < sizeof(*in_offset)) ||
        (out_offset && pointers_writable(out_offset, sizeof(*out_offset)) < sizeof(*out_offset)))
        return result_of(-EFAULT);
    if (overlaps(in, in_offset, out, out_offset, size))
        return result_of(-EINVAL);
    return copy_between(out, out_offset, in, in_offset, size);
}

/* A mapping is a private copy, as MAP_PRIVATE promises. */
static void *map_copy(struct fastspool *fs, int description, size_t size, int protection, off_t offset)
{
    char *memory = real.mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (memory == MAP_FAILED)
        return MAP_FAILED;
    for (size_t done = 0; done < size;) {
        ssize_t got = fastspool_pread(fs, description, memory + done, size - done, offset + (off_t)done);
        if (got < 0) {
            munmap(memory, size);
            errno = (int)-got;
            return MAP_FAILED;
        }
        if (got == 0)
            break;
        done += (size_t)got;
    }
    mprotect(memory, size, protection);
    return memory;
}

EXPORT void *mmap(void *address, size_t size, int protection, int flags, int fd, off_t offset)
{
    BOUND();
    int description = flags & MAP_ANONYMOUS || fd < 0 ? 0 : (int)descriptors_find(fd);
    if (!description)
        return real.mmap(address, size, protection, flags, fd, offset);
    if (flags & MAP_FIXED || size == 0 || ((flags & MAP_SHARED) && (protection & PROT_WRITE))) {
        errno = size == 0 ? EINVAL : ENODEV;
        return MAP_FAILED;
    }
    int access_mode = inside_flags(OF(description)) & (O_ACCMODE | O_PATH);
    if (access_mode & (O_PATH | O_WRONLY)) {
        errno = access_mode & O_PATH ? EBADF : EACCES;
        return MAP_FAILED;
    }
    return map_copy(OF(description), size, protection, offset);
}
EXPORT_ALIAS(mmap64, mmap);
