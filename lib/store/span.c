/* SPDX-License-Identifier: MIT
 *
 * The span: the parts of the segment that this process has mapped.
 *
 * The segment's tables lie far apart, over 67 GiB, but a process maps only what has memory.  So attaching works under a
 * small limit of the address space (RLIMIT_AS), whatever `memory` is.
 *
 * The happy path:
 *   - The segment gets a range of addresses.  Nothing reserves that range, because a reservation counts as address
 *     space.  It lies where neither the kernel nor malloc puts anything: at random in the lower half of all
 *     addresses, below the program and the libraries.
 *   - Each table is mapped at its place in that range, by a power of two of entries, as far as its count in the header
 *     goes.  An index is cut to that power, so no index leads out of what is mapped.
 *   - A table grows: whoever is about to use it maps the rest first (span_follow()), next to what is mapped already. No
 *     pointer changes.
 *
 * Failure modes:
 *   - The process may have no more address space: -ENOMEM for its calls.  The store and other processes are well.
 *   - Something lies in the range: another range, or -ENOMEM if a part is mapped already.
 *   - Another thread maps (fastspool.stretching): this one waits for it.
 *   - A handler that interrupts it uses the store, or leaves by longjmp; or the process is the child of a fork that
 *     another thread made meanwhile: what is mapped is not counted yet.  A thread that has waited in vain maps it
 *     over again.
 *   - The segment's counts are nonsense: no more is mapped than the tables can have.
 */
#include "store/span.h"

#include "base/clock.h"

#include <errno.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/random.h>

/* Entries that are mapped at least: a huge page of each table.  The four parts take 28 MiB. */
static const struct mapped_span least = {.inodes = HUGE_PAGE / sizeof(struct inode),
                                         .names = HUGE_PAGE / sizeof(struct name),
                                         .buckets = HUGE_PAGE / sizeof(uint32_t),
                                         .chunks = 8};

#define TRIES 16  /* of a range */
#define WAITS 100 /* for another thread, 1 ms each: it makes some system calls */

/* A range is one of these, so two stores of one process have the same, which the kernel refuses, or have no byte in
 * common. */
#define RANGE (UINT64_C(1) << 37)
_Static_assert(SEGMENT_SIZE <= RANGE, "a segment fits its range");

static uint32_t enough(uint32_t count, uint32_t few, uint32_t most)
{
    uint32_t size = few;

    while (size < count && size < most)
        size *= 2;
    return size;
}

static struct mapped_span span_of(const struct header *h)
{
    return (struct mapped_span){.inodes = enough(LOAD(h->tables.inodes.capacity), least.inodes, INODES_MAX),
                                .names = enough(LOAD(h->tables.names.capacity), least.names, NAMES_MAX),
                                .buckets = enough(LOAD(h->tables.buckets_capacity), least.buckets, BUCKETS_MAX),
                                .chunks = enough(LOAD(h->blocks.chunks_used), least.chunks, CHUNKS_MAX)};
}

/* Map bytes [from, to) of the segment at their place.  @again: they may be mapped there. */
static int map(const struct fastspool *fs, uint64_t from, uint64_t to, bool again)
{
    bool own = fs->segment_fd < 0;
    int flags = (own ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED) | MAP_NORESERVE |
                (again && !own ? MAP_FIXED : MAP_FIXED_NOREPLACE);
    char *place = &WRITABLE(fs->base[from]);
    char *got = mmap(place, to - from, PROT_READ | PROT_WRITE, flags, fs->segment_fd, own ? 0 : (off_t)from);

    if (got == MAP_FAILED)
        return -errno;
    if (got == place)
        return 0;
    munmap(got, to - from); /* a kernel before 4.17 takes the place for a wish */
    return -EEXIST;
}

/* Map a table, of entries of @size bytes at @at, up to @wanted entries. */
static int stretch(const struct fastspool *fs, const uint32_t *mapped, uint32_t wanted, uint64_t at, uint64_t size,
                   bool again)
{
    uint32_t before = LOAD(*mapped);
    int result = before < wanted ? map(fs, at + before * size, at + wanted * size, again) : 0;

    while (result == 0 && before < wanted &&
           !__atomic_compare_exchange_n(&ATOMIC(*mapped), &before, wanted, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
        ;
    return result == -EEXIST && LOAD(*mapped) >= wanted ? 0 : result;
}

/* Mails don't belong into a core dump.  One call for all that is mapped: between the parts is nothing, of which it
 * complains at its end (ENOMEM). */
static void keep_from_dumps(const struct fastspool *fs)
{
    madvise(&WRITABLE(*fs->base), SEGMENT_SIZE, MADV_DONTDUMP);
}

static int stretch_to(const struct fastspool *fs, const struct mapped_span *wanted, bool again)
{
    int result = stretch(fs, &fs->span.inodes, wanted->inodes, INODES_AT, sizeof(struct inode), again);

    if (result == 0)
        result = stretch(fs, &fs->span.names, wanted->names, NAMES_AT, sizeof(struct name), again);
    if (result == 0)
        result = stretch(fs, &fs->span.buckets, wanted->buckets, BUCKETS_AT, sizeof(uint32_t), again);
    return result == 0 ? stretch(fs, &fs->span.chunks, wanted->chunks, DATA_AT, CHUNK_SIZE, again) : result;
}

/* True: nobody stretches, and this thread may. */
static bool begin_stretching(struct fastspool *fs)
{
    uint32_t nobody = 0;
    return __atomic_compare_exchange_n(&fs->stretching, &nobody, 1, false, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED);
}

int span_stretch(struct fastspool *fs)
{
    const struct mapped_span wanted = span_of(fs->header);
    int saved = errno, waits = 0;

    while (!begin_stretching(fs) && waits < WAITS) {
        clock_sleep(NS_PER_MS);
        waits++;
    }
    int result = stretch_to(fs, &wanted, waits == WAITS);
    STORE(fs->stretching, 0);
    keep_from_dumps(fs);
    errno = saved;
    return result == 0 ? 0 : -ENOMEM;
}

/* What the tables lead to now, so that nothing is left to be mapped a second time.  The header is not checked yet: of
 * another version's counts nothing is believed, and of ours no more than the tables can have. */
static struct mapped_span first_span(const struct header *h)
{
    return LOAD(h->magic) == LAYOUT_MAGIC && h->version == LAYOUT_VERSION ? span_of(h) : least;
}

/* The header, and the buckets behind it: one part. */
static int map_header(struct fastspool *fs)
{
    int result = map(fs, 0, BUCKETS_AT + least.buckets * sizeof(uint32_t), false);

    fs->span = (struct mapped_span){.buckets = result == 0 ? least.buckets : 0};
    fs->header = result == 0 ? (const struct header *)fs->base : NULL;
    return result;
}

/* The first thread's stack lies at the end of all addresses, the libraries and what the kernel places lie below it, and
 * the program lies at two thirds, or near the beginning.  AT_RANDOM leads to that stack; the one of this thread may lie
 * anywhere. */
static const char *choose_range(void)
{
    uint64_t random = 0, ranges = getauxval(AT_RANDOM) / 2 / RANGE;

    if (getrandom(&random, sizeof(random), GRND_NONBLOCK) < 0)
        random = clock_monotonic();
    return (const char *)(uintptr_t)((1 + random % (ranges ? ranges : 1)) * RANGE);
}

int span_map(struct fastspool *fs)
{
    int result = -EEXIST;

    for (int tries = 0; tries < TRIES && result == -EEXIST; tries++) {
        fs->base = choose_range();
        result = map_header(fs);
        if (result == 0) {
            const struct mapped_span wanted = first_span(fs->header);
            result = stretch_to(fs, &wanted, false);
        }
        if (result == 0)
            keep_from_dumps(fs);
        if (result < 0 && fs->header)
            span_unmap(fs);
    }
    if (result < 0)
        fs->base = NULL;
    return result == -EEXIST ? -ENOMEM : result;
}

void span_parts(const struct fastspool *fs, struct span_part parts[SPAN_PARTS])
{
    parts[0] = (struct span_part){0, BUCKETS_AT + (uint64_t)fs->span.buckets * sizeof(uint32_t)};
    parts[1] = (struct span_part){INODES_AT, (uint64_t)fs->span.inodes * sizeof(struct inode)};
    parts[2] = (struct span_part){NAMES_AT, (uint64_t)fs->span.names * sizeof(struct name)};
    parts[3] = (struct span_part){DATA_AT, (uint64_t)fs->span.chunks * CHUNK_SIZE};
}

bool span_covers(const struct fastspool *fs, uint64_t at)
{
    struct span_part parts[SPAN_PARTS];
    bool covers = false;

    span_parts(fs, parts);
    for (unsigned i = 0; i < SPAN_PARTS; i++)
        covers = covers || (at >= parts[i].at && at - parts[i].at < parts[i].size);
    return covers;
}

void span_unmap(struct fastspool *fs)
{
    struct span_part parts[SPAN_PARTS];

    span_parts(fs, parts);
    for (unsigned i = 0; i < SPAN_PARTS; i++) {
        if (parts[i].size)
            munmap(&WRITABLE(fs->base[parts[i].at]), parts[i].size);
    }
    fs->base = NULL;
    fs->header = NULL;
}
