/* SPDX-License-Identifier: MIT
 *
 * Release: what every version of fastspool may do with the segment of every other one, to end its mirror and to know
 * whether its memory is needed still.  The fields up to header.way stay where they are for good; header.way says where
 * the rest is, which each version may move.
 *
 * Failure modes: an offset that leads out of the header, a version before header.way: -EPROTO.
 */
#include "store/release.h"

#include "base/acl.h"
#include "base/error.h"
#include "base/places.h"
#include "store/layout.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define FIRST_WITH_WAY 10
#define LARGEST        (1u << 24) /* bytes of a header */

_Static_assert(offsetof(struct header, way) == 280, "every version finds it there");
_Static_assert(sizeof(struct header_way) == 16, "every version reads it so");

/* A field of @size bytes at @offset of the header. */
static void *field(const struct release *release, uint32_t offset, size_t size)
{
    bool inside = offset % size == 0 && offset >= sizeof(uint64_t) && offset <= release->size - size;

    return inside ? (char *)release->header + offset : NULL;
}

static int read_way(struct release *release, int fd, char *error)
{
    struct {
        char prefix[offsetof(struct header, way)];
        struct header_way way;
    } first;
    uint64_t magic;

    if (pread(fd, &first, sizeof(first), 0) != sizeof(first))
        return error_set(error, -EIO, "the segment is damaged: it is too short");
    memcpy(&magic, first.prefix + offsetof(struct header, magic), sizeof(magic));
    memcpy(&release->version, first.prefix + offsetof(struct header, version), sizeof(release->version));
    if (magic != LAYOUT_MAGIC)
        return error_set(error, -EIO, "the segment is damaged: it has no magic number");
    release->size = first.way.size;
    if (release->version < FIRST_WITH_WAY || release->size < sizeof(first) || release->size > LARGEST)
        return error_set(error, -EPROTO,
                         "the segment has layout version %u, which does not say how it is released: run `fastspool "
                         "stop` of its own version",
                         release->version);
    release->header = mmap(NULL, release->size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (release->header == MAP_FAILED)
        return error_set(error, -errno, "map the segment: %s", strerrordesc_np(errno));
    release->ending = field(release, first.way.ending, sizeof(uint32_t));
    release->wanted = field(release, first.way.wanted, sizeof(uint32_t));
    release->unwritten = field(release, first.way.unwritten, sizeof(uint64_t));
    if (release->ending && release->wanted && release->unwritten)
        return 0;
    release_close(release);
    return error_set(error, -EPROTO, "the segment of layout version %u is damaged: it says wrongly how it is released",
                     release->version);
}

int release_open(const char *runtime, const struct stat *spool, struct release *release,
                 char error[FASTSPOOL_ERROR_MAX])
{
    struct stat st;
    int directory = open(runtime, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    int fd = directory < 0 ? -1 : openat(directory, PLACES_SEGMENT, O_RDWR | O_NOFOLLOW | O_CLOEXEC);
    int result = fd < 0 ? error_set(error, -errno, "open the segment in %s: %s", runtime, strerrordesc_np(errno)) : 0;

    *release = (struct release){0};
    if (directory >= 0)
        close(directory);
    if (fd < 0)
        return result;
    if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || !acl_alone(fd, &st) ||
        (st.st_uid != spool->st_uid && st.st_uid != 0))
        result = error_set(error, -EPERM, "the segment does not belong to the spool's owner alone");
    else
        result = read_way(release, fd, error);
    close(fd);
    return result;
}

void release_close(const struct release *release)
{
    munmap(release->header, release->size);
}
