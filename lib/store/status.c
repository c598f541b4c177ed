/* SPDX-License-Identifier: MIT
 *
 * Status: numbers read without the lock, each true at some instant of the call.
 */
#include "store/status.h"

#include "base/clock.h"
#include "base/futex.h"
#include "config.h"
#include "fastspool.h"
#include "store/await.h"
#include "store/doubt.h"
#include "store/durations.h"
#include "store/layout.h"
#include "store/names.h"
#include "store/residency.h"
#include "store/span.h"
#include "store/store.h"
#include "store/table.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

#define STATUS_PATH 1024 /* Exim's deepest, below a directory of an import or export, is half as long */

/* The number of further files that memory has room for: free table entries, and what the tables may still take.  Some
 * memory is left for data (residency_high()), of a small memory at least a chunk, because no file can be written
 * without one.  While one table has more free entries than the other, a file costs memory in the other alone. */
static uint64_t room_for_files(const struct header *h)
{
    uint64_t tables = table_bytes(h), most = residency_high(h), bytes = most > tables ? most - tables : 0;
    uint64_t inodes = h->tables.inodes.capacity - LOAD(h->tables.inodes.count),
             names = h->tables.names.capacity - LOAD(h->tables.names.count);
    uint64_t fewer = inodes < names ? inodes : names, more = inodes < names ? names : inodes;
    uint64_t cost = inodes < names ? sizeof(struct inode) : RESIDENCY_FILE_MEMORY - sizeof(struct inode);

    if (bytes / cost < more - fewer)
        return fewer + bytes / cost;
    return more + (bytes - (more - fewer) * cost) / RESIDENCY_FILE_MEMORY;
}

/* The memory in blocks of open files.  A file that is open n times counts for an nth each time. */
static uint64_t open_bytes(const struct fastspool *fs)
{
    uint32_t used = LOAD(fs->header->tables.descriptions.used);
    uint64_t parts = 0;

    for (uint32_t d = 1; d < used && d < DESCRIPTIONS_MAX; d++) {
        const struct description *description = description_at(fs, d);
        uint32_t i = LOAD(description->inode);
        if (LOAD(description->state) != DESCRIPTION_OPEN || !inode_valid(fs, i))
            continue;
        uint32_t opens = LOAD(inode_at(fs, i)->opens);
        parts += LOAD(inode_at(fs, i)->parts) / (opens ? opens : 1);
    }
    return parts * PART_SIZE;
}

/* The memory that open files leave for this process's data.  Data passes through memory, so this is no bound until they
 * hold nearly all that it may take (residency_must_wait()).  (Where it is the tables that hold memory, room_for_files()
 * is the bound.) */
static uint64_t left_by_open_files(const struct fastspool *fs)
{
    const struct header *h = fs->header;
    uint64_t most = residency_most(h), large = residency_most_large(h), margin = (most - large) / 2,
             own = fs->for_others ? large : most, open = open_bytes(fs), held = table_bytes(h) + open;

    if (open <= LOAD(h->memory_limit) / 8 || held + margin <= own)
        return UINT64_MAX;
    return own > held ? own - held : 0;
}

/* The bytes of data that there is room for.  While commits and checkpoints succeed, data passes through memory: the
 * bounds are the disk, and one block for each file that memory has room for.  While they fail, data stays in memory:
 * the bounds are the disk and the free memory.  In both cases open files may leave less. */
static uint64_t room_for_data(struct fastspool *fs, const struct statvfs *disk)
{
    const struct header *h = fs->header;
    uint64_t owed = LOAD(h->disk.owed), bytes = (uint64_t)disk->f_bavail * disk->f_frsize + LOAD(h->disk.reusable);
    uint64_t memory = room_for_files(h) * BLOCK_SIZE;

    if (LOAD(h->tickets.commit_error) || LOAD(h->disk.checkpoint_error)) {
        uint64_t used = residency_in_use(h) + h->reserve * BLOCK_SIZE;
        memory = h->memory_limit > used ? h->memory_limit - used : 0;
    }
    uint64_t left = left_by_open_files(fs);
    memory = left < memory ? left : memory;
    bytes = bytes > owed ? bytes - owed : 0;
    return bytes < memory ? bytes : memory;
}

int fastspool_statvfs(struct fastspool *fs, struct statvfs *st)
{
    const struct header *h = fs->header;
    struct statvfs disk;

    if (statvfs(fs->state, &disk) < 0)
        return -errno;
    uint64_t files = room_for_files(h), used = LOAD(h->tables.inodes.count);
    if (files > INODES_MAX - used)
        files = INODES_MAX - used;
    memset(st, 0, sizeof(*st));
    st->f_bsize = st->f_frsize = BLOCK_SIZE;
    st->f_blocks = (uint64_t)disk.f_blocks * disk.f_frsize / BLOCK_SIZE;
    st->f_bfree = st->f_bavail = room_for_data(fs, &disk) / BLOCK_SIZE;
    st->f_files = used + files;
    st->f_ffree = st->f_favail = files;
    st->f_fsid = disk.f_fsid;
    st->f_namemax = 255;
    return 0;
}

int status_numbers(struct fastspool *fs, struct fastspool_status *status)
{
    span_follow(fs); /* where there is no address space: what is mapped */
    const struct header *h = fs->header;
    uint64_t oldest =
        LOAD(h->tickets.oldest_captured) ? LOAD(h->tickets.oldest_captured) : LOAD(h->tickets.oldest_dirty);
    uint64_t now = clock_monotonic();
    struct statvfs room;

    memset(status, 0, sizeof(*status));
    status->durability = fs->durability;
    status->files = LOAD(h->tree.files);
    status->memory_bytes = LOAD(h->tables.memory_bytes);
    status->memory_limit = LOAD(h->memory_limit);
    status->open_bytes = open_bytes(fs);
    status->evicted_files = LOAD(h->residency.evicted);
    status->spilled_files = LOAD(h->residency.spilled);
    status->evictions = LOAD(h->residency.evictions);
    status->brought_back = LOAD(h->residency.brought_back);
    if (fastspool_statvfs(fs, &room) == 0) {
        status->room_bytes = room.f_bavail * room.f_frsize;
        status->room_files = room.f_favail;
    }
    status->largest_bytes = residency_largest(h);
    status->dirty_bytes = LOAD(h->tickets.dirty_bytes);
    status->dirty_files = LOAD(h->tickets.dirty_files);
    status->unflushed_ns = oldest && now > oldest ? now - oldest : 0;
    status->commit_ns = LOAD(h->tickets.commit_ns);
    status->commits = LOAD(h->tickets.commits);
    status->commit_p50_ns = durations_percentile(h, 50);
    status->commit_p99_ns = durations_percentile(h, 99);
    status->descriptions = LOAD(h->tables.descriptions.count);
    status->commit_error = doubt_result(LOAD(h->tickets.commit_error));
    status->mirror_pid = await_lives(fs) != 0 ? LOAD(h->mirror.pid) : 0;
    uint64_t beat = LOAD(h->mirror.beat);
    status->mirror_silent_ns = now > beat ? now - beat : 0;
    status->waiters = futex_sleepers(&h->tickets.commit_event) + futex_sleepers(&h->residency.pager_event) +
                      futex_sleepers(&h->state);
    return LOAD(h->state) == SEGMENT_FAILED ? -EIO : 0;
}

/* The path of the name @entry, from the root on, which ends at the end of @text.  NULL: it leads nowhere, as when it or
 * a directory above has just gone; or it is longer than any of Exim's. */
static const char *path_of(const struct fastspool *fs, uint32_t entry, char text[STATUS_PATH])
{
    char *at = text + STATUS_PATH - 1, name[256];
    uint32_t root = LOAD(fs->header->tree.root), directory;

    *at = '\0';
    do {
        int length = names_valid(fs, entry) ? names_text(fs, entry, name) : 0;
        if (length == 0 || length + 1 > at - text)
            return NULL;
        at -= length;
        memcpy(at, name, (size_t)length);
        directory = LOAD(name_at(fs, entry)->parent);
        if (directory == root)
            return at;
        *--at = '/';
        entry = inode_valid(fs, directory) ? LOAD(inode_at(fs, directory)->names) : 0;
    } while (true); /* in a circle the path becomes too long */
}

void status_each(struct fastspool *fs, status_visit *visit, void *context)
{
    span_follow(fs); /* where there is no address space: what is mapped */
    const struct table *table = &fs->header->tables.names;
    uint32_t used = LOAD(table->used), capacity = LOAD(table->capacity);
    char text[STATUS_PATH];

    /* Behind the capacity there are holes: reading one would take memory. */
    for (uint32_t entry = 1; entry < used && entry < capacity && entry < NAMES_MAX; entry++) {
        uint32_t inode = LOAD(name_at(fs, entry)->inode);
        const char *path = inode == 0 || inode == NAME_CONTINUES ? NULL : path_of(fs, entry, text);
        if (path)
            visit(context, path, inode);
    }
}
