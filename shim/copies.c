/* SPDX-License-Identifier: MIT
 *
 * Private copies of spool files.
 *
 * Happy path:
 *   - The content is copied to an anonymous file in memory.  That is opened again, for reading only: a write is EBADF.
 *   - Zeros stay holes: a file may say that it is large, and be nothing.
 *   - A spilled file has no room in memory.  Its spill file is opened instead.
 *
 * Failure modes:
 *   - -ENOMEM, -ENOSPC, ... from the copy.  The original stays open.
 *   - Without /proc: the anonymous file itself, sealed.  A write is EPERM.
 *   - The file has more bytes than the store can have: -EIO.
 */
#include "copies.h"

#include "attachment.h"
#include "base/fd.h"
#include "descriptors.h"
#include "real.h"
#include "store/inside.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>

static int copy_content(struct fastspool *fs, uint32_t description, int to)
{
    char bytes[16384];
    off_t offset = 0;
    uint64_t copied = 0;
    ssize_t got;

    while ((got = inside_read(fs, description, bytes, sizeof(bytes), offset)) > 0) {
        bool zeros = bytes[0] == 0 && memcmp(bytes, bytes + 1, (size_t)got - 1) == 0;
        copied += zeros ? 0 : (uint64_t)got;
        if (copied > inside_memory(fs))
            return -EIO;
        if (!zeros && real.pwrite(to, bytes, (size_t)got, offset) != got)
            return -errno;
        offset += got;
    }
    return got < 0 ? (int)got : real.ftruncate(to, offset) < 0 ? -errno : 0;
}

/* The same file for reading alone.  Without /proc it is sealed: a write is EPERM, not EBADF. */
static int for_reading(int memory, int flags)
{
    char link[FD_LINK_MAX];

    fd_link(memory, link);
    int fd = real.open(link, flags | O_CLOEXEC);
    if (fd >= 0 || errno != ENOENT)
        return fd < 0 ? -errno : fd;
    return real.fcntl(memory, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK) < 0 ? -errno : memory;
}

int copies_new(uint32_t number)
{
    struct fastspool *fs = attachment_of(number);
    const uint32_t description = LOCAL(number);
    int flags = inside_flags(fs, description) & O_NONBLOCK; /* for reading: what is written to a copy would be lost */
    int spill = inside_spill(fs, description);

    if (spill >= 0)
        real.lseek(spill, inside_offset(fs, description), SEEK_SET);
    if (spill != -ENOENT)
        return spill;
    int memory = (int)real.syscall(SYS_memfd_create, "fastspool", MFD_CLOEXEC | MFD_ALLOW_SEALING);

    if (memory < 0)
        return -errno;
    int result = copy_content(fs, description, memory);
    int fd = result < 0 ? result : for_reading(memory, flags);
    if (fd != memory)
        real.close(memory);
    if (fd >= 0)
        real.lseek(fd, inside_offset(fs, description), SEEK_SET);
    return fd;
}

int copies_replace(int fd)
{
    uint32_t description = descriptors_find(fd);
    int flags = real.fcntl(fd, F_GETFD);

    if (!description || !attachment_of(description))
        return -EBADF;
    int copy = copies_new(description);
    if (copy < 0)
        return copy;
    descriptors_detach(fd);
    int result = real.dup3(copy, fd, flags & FD_CLOEXEC ? O_CLOEXEC : 0) < 0 ? -errno : 0;
    real.close(copy);
    descriptors_set(fd, 0);
    descriptors_release(description);
    return result;
}
