/* SPDX-License-Identifier: MIT
 *
 * The segment: one sparse tmpfs file that every process maps (span.c).
 *
 * The happy path:
 *   1. segment_create() makes the file, its lock file and the placeholder directories in a fresh runtime directory.
 *      It fills in the header, and writes the magic number last.
 *   2. segment_open() maps the beginning and checks owner, mode, size, layout version and tables.  Then it maps the
 *      rest.
 *
 * Failure modes:
 *   - The runtime file system has no room for the header: ENOSPC at the creation.  No later use gets SIGBUS.
 *   - The maker's files may not be so large (RLIMIT_FSIZE): the limit is lifted for that moment, or a sentence says so.
 *   - The maker dies before it writes the magic number: segment_open() finds a damaged segment.
 *   - A check fails: a sentence says which one, and the process uses nothing of the segment.
 */
#include "store/segment.h"

#include "base/acl.h"
#include "base/error.h"
#include "base/fd.h"
#include "base/namespace.h"
#include "base/places.h"
#include "fastspool.h"
#include "store/layout.h"
#include "store/mutex.h"
#include "store/span.h"
#include "store/store.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <linux/magic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <time.h>
#include <unistd.h>

/* The reserve: this share of `memory`, and at most RESERVE_MAX bytes. */
#define RESERVE_SHARE 16u
#define RESERVE_MAX   (UINT64_C(8) << 20)

#define BUCKETS_FIRST 1024u /* buckets of an empty store */

static const struct layout_mark mark __attribute__((used)) = {LAYOUT_MARK, LAYOUT_VERSION};

/* ---- creation ---- */

void segment_limit(const struct header *header, uint64_t memory)
{
    uint64_t reserve = memory / RESERVE_SHARE < RESERVE_MAX ? memory / RESERVE_SHARE : RESERVE_MAX;

    STORE(header->reserve, reserve / BLOCK_SIZE);
    STORE(header->memory_limit, memory);
}

/* Set the groups to their values in an empty store.  Four groups stay: `journal`, because no number of a batch is used
 * twice; `recovery`, because it says why the last try failed; `mirror` and `view`, because they belong to running
 * processes. */
static void reset_groups(struct header *header)
{
    static const struct table empty = {.used = 1};

    header->section.undo_count = 0;
    header->tables = (struct tables_state){empty, empty, empty, .buckets = BUCKETS_FIRST, .memory_bytes = HEADER_SIZE};
    header->blocks = (struct blocks_state){0};
    header->tree = (struct tree_state){0};
    header->residency = (struct residency_state){0};
    header->tickets = (struct tickets_state){.capture = 1};
    header->disk = (struct disk_state){0};
}

static void header_fill(struct header *header, const struct fastspool_config *config)
{
    header->version = LAYOUT_VERSION;
    header->state = SEGMENT_RECOVERING;
    header->way = (struct header_way){offsetof(struct header, mirror.ending), offsetof(struct header, mirror.wanted),
                                      offsetof(struct header, tickets.dirty_files), HEADER_SIZE};
    segment_limit(header, config->memory);
    header->flush_interval = config->flush_interval;
    reset_groups(header);
}

static int header_identify(struct header *header)
{
    int error = 0;

    header->pid_namespace = namespace_of_pids();
    if (getrandom(&header->hash_seed, sizeof(header->hash_seed), 0) != sizeof(header->hash_seed))
        error = -errno;
    return error;
}

/* Make the placeholders, and the file of the record locks. */
static int make_companions(int runtime_fd, struct header *header, const struct stat *spool)
{
    struct stat st;

    for (unsigned i = 0; i < PLACEHOLDERS; i++) {
        char name[PLACES_NAME_MAX];
        places_placeholder(i, name);
        if (mkdirat(runtime_fd, name, 0700) < 0 || fchownat(runtime_fd, name, spool->st_uid, spool->st_gid, 0) < 0 ||
            fstatat(runtime_fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
            return -errno;
        header->placeholder_inode[i] = st.st_ino;
    }
    int fd = openat(runtime_fd, PLACES_LOCKS, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0)
        return -errno;
    int error = fchown(fd, spool->st_uid, spool->st_gid) < 0 ? -errno : 0;
    close(fd);
    return error;
}

/* Give the file its size.  Beyond RLIMIT_FSIZE the kernel would kill the program by SIGXFSZ: so the limit is lifted as
 * far as this process may, and asked before.  The file takes no room by its size. */
static int make_size(int fd)
{
    struct rlimit before, lifted = {RLIM_INFINITY, RLIM_INFINITY};

    if (getrlimit(RLIMIT_FSIZE, &before) < 0)
        return -errno;
    if (before.rlim_cur < SEGMENT_SIZE && setrlimit(RLIMIT_FSIZE, &lifted) < 0) {
        lifted.rlim_cur = lifted.rlim_max = before.rlim_max;
        if (before.rlim_max < SEGMENT_SIZE || setrlimit(RLIMIT_FSIZE, &lifted) < 0)
            return -EFBIG;
    }
    int result = ftruncate(fd, (off_t)SEGMENT_SIZE) < 0 ? -errno : 0;
    setrlimit(RLIMIT_FSIZE, &before);
    return result;
}

static int create_in(int fd, int runtime_fd, const struct stat *spool, const struct fastspool_config *config)
{
    if (fchown(fd, spool->st_uid, spool->st_gid) < 0)
        return -errno;
    int error = make_size(fd);
    if (error == 0)
        error = fd_take_room(fd, 0, HEADER_SIZE);
    if (error)
        return error == -EAGAIN ? -ENOSPC : error;
    struct header *header = mmap(NULL, HEADER_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (header == MAP_FAILED)
        return -errno;
    header_fill(header, config);
    error = header_identify(header);
    if (error == 0)
        error = make_companions(runtime_fd, header, spool);
    if (error == 0)
        STORE(header->magic, LAYOUT_MAGIC);
    munmap(header, HEADER_SIZE);
    return error;
}

int segment_create(int runtime_fd, int spool_fd, const struct fastspool_config *config, char error[FASTSPOOL_ERROR_MAX])
{
    struct stat spool;

    if (fstat(spool_fd, &spool) < 0)
        return error_set(error, -errno, "look at the spool directory: %s", strerrordesc_np(errno));
    int fd = openat(runtime_fd, PLACES_SEGMENT, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0)
        return error_set(error, -errno, "create the segment: %s", strerrordesc_np(errno));
    int result = create_in(fd, runtime_fd, &spool, config);
    close(fd);
    if (result == -EFBIG)
        return error_set(
            error, result,
            "this process may not make the store, because its limit of a file's size (RLIMIT_FSIZE, ulimit "
            "-f) is below %llu GiB: let one without that limit use the spool first",
            (unsigned long long)(SEGMENT_SIZE >> 30) + 1);
    return result < 0 ? error_set(error, result, "create the segment: %s", strerrordesc_np(-result)) : 0;
}

/* ---- opening ---- */

/* 0: it is no segment. */
static uint32_t version_of(int fd)
{
    struct {
        uint64_t magic;
        uint32_t version;
    } first;

    return pread(fd, &first, sizeof(first), 0) == sizeof(first) && first.magic == LAYOUT_MAGIC ? first.version : 0;
}

static int another_version(uint32_t version, char *error)
{
    return error_set(error, -EPROTO,
                     "the segment has layout version %u, this library needs %u: stop the mail server, run `fastspool "
                     "stop`, start again",
                     version, LAYOUT_VERSION);
}

static int check_file(struct fastspool *fs, char *error)
{
    const int fd = fs->segment_fd;
    struct stat st;

    if (fstat(fd, &st) < 0)
        return error_set(error, -errno, "look at the segment: %s", strerrordesc_np(errno));
    if (!S_ISREG(st.st_mode) || !acl_alone(fd, &st) || (st.st_uid != fs->owner && st.st_uid != 0)) {
        return error_set(error, -EPERM, "the segment does not belong to the spool's owner alone");
    }
    fs->may_have_lists = fs->may_have_lists || (st.st_mode & 070);
    if ((uint64_t)st.st_size == SEGMENT_SIZE)
        return 0; /* which version it is, the header says */
    uint32_t version = version_of(fd);
    if (version && version != LAYOUT_VERSION)
        return another_version(version, error);
    return error_set(error, -EIO, "the segment has %lld bytes, not %llu", (long long)st.st_size,
                     (unsigned long long)SEGMENT_SIZE);
}

static int check_header(const struct header *header, char *error)
{
    if (LOAD(header->magic) != LAYOUT_MAGIC) {
        return error_set(error, -EIO, "the segment is damaged: it has no magic number");
    }
    return header->version == LAYOUT_VERSION ? 0 : another_version(header->version, error);
}

/* An entry without memory would be a SIGBUS.  So the sizes of the tables are checked once, before the first use. */
static int check_tables(const struct header *header, char *error)
{
    const struct table *tables[] = {&header->tables.inodes, &header->tables.names, &header->tables.descriptions};
    const uint32_t most[] = {INODES_MAX, NAMES_MAX, DESCRIPTIONS_MAX};

    for (int i = 0; i < 3; i++) {
        if (tables[i]->capacity > most[i] || tables[i]->used == 0 ||
            tables[i]->used > (tables[i]->capacity ? tables[i]->capacity : 1)) {
            return error_set(error, -EIO, "the segment is damaged: table %d is larger than it can be", i);
        }
    }
    if (header->tables.buckets_capacity > BUCKETS_MAX || header->blocks.chunks_used > CHUNKS_MAX) {
        return error_set(error, -EIO, "the segment is damaged: more buckets or chunks than there can be");
    }
    return 0;
}

int segment_open(struct fastspool *fs, const struct stat *spool, const struct stat *runtime,
                 char error[FASTSPOOL_ERROR_MAX])
{
    error[0] = '\0';
    fs->owner = spool->st_uid;
    fs->group = spool->st_gid;
    fs->device = spool->st_dev;
    fs->placeholder_device = runtime->st_dev;
    int fd = openat(fs->runtime_fd, PLACES_SEGMENT, O_RDWR | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return error_set(error, -errno, "open the segment in %s: %s", fs->runtime, strerrordesc_np(errno));
    fs->segment_fd = fd_high(fd);
    if (fs->segment_fd < 0)
        return error_set(error, fs->segment_fd, "open the segment in %s: %s", fs->runtime,
                         strerrordesc_np(-fs->segment_fd));
    fs->pid_namespace = mutex_pid_namespace();
    int result = check_file(fs, error);
    if (result == 0) {
        result = span_map(fs);
        if (result < 0)
            error_set(error, result,
                      "map the segment in %s: %s; is the limit of address space (RLIMIT_AS, ulimit -v) too small?",
                      fs->runtime, strerrordesc_np(-result));
    }
    if (result == 0)
        result = check_header(fs->header, error);
    if (result == 0)
        result = check_tables(fs->header, error);
    if (result == 0) {
        result = span_follow(fs);
        if (result < 0)
            error_set(error, result,
                      "map the segment in %s: the process may not have that much address space (RLIMIT_AS, ulimit -v)",
                      fs->runtime);
    }
    if (result == 0) {
        fd = openat(fs->runtime_fd, PLACES_LOCKS, O_RDWR | O_NOFOLLOW | O_CLOEXEC);
        fs->locks_fd = fd < 0 ? -errno : fd_high(fd);
        if (fs->locks_fd < 0)
            result = error_set(error, fs->locks_fd, "open the lock file in %s: %s", fs->runtime,
                               strerrordesc_np(-fs->locks_fd));
    }
    if (result < 0)
        segment_close(fs);
    return result;
}

void segment_close(struct fastspool *fs)
{
    if (fs->base)
        span_unmap(fs);
    if (fs->segment_fd >= 0)
        close(fs->segment_fd);
    if (fs->locks_fd >= 0)
        close(fs->locks_fd);
    fs->segment_fd = fs->locks_fd = -1;
}

bool segment_is_within_reach(const struct fastspool *fs)
{
    uint64_t theirs = LOAD(fs->header->pid_namespace), ours = fs->pid_namespace;

    return theirs == 0 || ours == 0 || theirs == ours;
}

bool segment_is_there(const struct fastspool *fs)
{
    struct stat st;

    return fstat(fs->segment_fd, &st) < 0 || st.st_nlink > 0;
}

int segment_is_memory(const struct fastspool *fs)
{
    struct statfs st;

    if (fstatfs(fs->segment_fd, &st) < 0)
        return -errno;
    return st.f_type == TMPFS_MAGIC || st.f_type == RAMFS_MAGIC;
}

void segment_inherit(struct fastspool *fs, bool viewed)
{
    const struct header *h = fs->header;

    STORE(h->pid_namespace, fs->pid_namespace);
    if (LOAD(h->section.lock)) /* of the dead, whose thread ids mean nothing here */
        STORE(h->section.lock, FUTEX_OWNER_DIED);
    STORE(h->mirror.pid, 0);
    STORE(h->mirror.starting, 0);
    STORE(h->view.starting, 0);
    STORE(h->view.status, viewed ? VIEW_MOUNTED : VIEW_NONE);
}

/* Zero the header's huge page behind the header, if there is memory.  A hole there would split the page, and then every
 * process maps the header's pages one by one.  The end of what is zero. */
static uint64_t clear_first_page(struct fastspool *fs)
{
    off_t data = lseek(fs->segment_fd, (off_t)HEADER_SIZE, SEEK_DATA);

    if (data < 0 ? errno == ENXIO : data >= (off_t)HUGE_PAGE)
        return HUGE_PAGE;
    if (data < 0 || fd_take_room(fs->segment_fd, HEADER_SIZE, HUGE_PAGE - HEADER_SIZE) < 0)
        return HEADER_SIZE;
    memset(&WRITABLE(fs->base[HEADER_SIZE]), 0, HUGE_PAGE - HEADER_SIZE);
    return HUGE_PAGE;
}

int segment_reset(struct fastspool *fs)
{
    /* A hole reads as zeros. */
    uint64_t from = clear_first_page(fs);
    if (fallocate(fs->segment_fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)from,
                  (off_t)(SEGMENT_SIZE - from)) < 0)
        return -errno;
    reset_groups(&WRITABLE(*fs->header));
    STORE(fs->header->recovery.done, 0); /* a waiter's progress bar reads these two meanwhile */
    STORE(fs->header->recovery.total, 0);
    return 0;
}
