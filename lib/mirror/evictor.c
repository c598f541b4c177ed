/* SPDX-License-Identifier: MIT
 *
 * The evictor: which data leaves memory, in which order.  (The marks and lists that it goes by: lib/store/residency.c.)
 *
 * The happy path: a file that was paged in and not opened since is cold.  The cold list goes first, but for an eighth
 * of all clean files; then the clean list, twice round the clock: a file that was opened since the last look loses its
 * mark and goes to the end, the first one without a mark is evicted.  Then the rest of the cold list.
 *
 * Failure modes: a file that no checkpoint holds yet cannot go, and is counted (@unready): the caller has a checkpoint
 * made.  A large file goes by DATA_FREE_STEP blocks a section; a mirror that dies in between leaves it evicted, at the
 * head of its list, with the blocks that it still has.
 */
#include "mirror/evictor.h"

#include "base/futex.h"
#include "store/data.h"
#include "store/layout.h"
#include "store/residency.h"
#include "store/section.h"
#include "store/store.h"

#include <errno.h>
#include <sys/stat.h>

#define COLD_SHARE  8u  /* this part of the clean files may be cold, before those are evicted first */
#define STEP_LOOKS  48u /* files that one section looks at: each may change twelve words */
#define STEP_BLOCKS 64u /* blocks after which it takes no further file: with that of the last one at most 192 */

struct eviction {
    uint64_t target;  /* bytes that may stay in use */
    uint64_t least;   /* blocks to free, also below the target */
    uint64_t parts;   /* of blocks freed, in all */
    uint64_t unready; /* parts of files that could go but for their checkpoint */
    const struct list *list;
    uint64_t looks;  /* how many files of this list are left to look at */
    uint64_t spared; /* the last @spared files are only moved to the end, so the order stays */
};

static bool enough(const struct header *h, const struct eviction *eviction)
{
    return residency_in_use(h) <= eviction->target && eviction->parts / BLOCK_PARTS >= eviction->least;
}

/* Of its list; of the clean one where it was opened. */
static void to_the_end(struct fastspool *fs, uint32_t i)
{
    residency_leave_clean(fs, i);
    residency_join(fs, i);
}

/* Some of its blocks.  A file that has more is evicted already, and stays at the head of the list until it has none. */
static int evict_one(struct fastspool *fs, uint32_t i)
{
    if (!(inode_at(fs, i)->flags & INODE_EVICTED))
        residency_evict(fs, i);
    int result = data_empty(fs, i, DATA_FREE_STEP);
    if (result == 0)
        residency_leave_clean(fs, i);
    return result;
}

static int evict_step(struct fastspool *fs, void *argument)
{
    struct eviction *eviction = argument, step = *eviction;
    uint64_t blocks = 0; /* or pieces, at most; not all of a large file go */

    for (uint32_t looks = 0; looks < STEP_LOOKS && blocks < STEP_BLOCKS; looks++) {
        uint32_t i = step.list->head;
        const struct inode *inode = inode_at(fs, i);
        if (i == 0 || step.looks == 0 || enough(fs->header, &step))
            break;
        if (!inode_valid(fs, i) || !(inode->flags & INODE_CLEAN) || residency_list(fs, i) != step.list)
            return section_damaged(fs, "the list of clean files leads nowhere");
        step.looks--;
        bool unready = inode->ticket > LOAD(fs->header->residency.checkpointed);
        if (inode->opens > 0 || (inode->flags & INODE_REFERENCED) || unready || step.looks < step.spared) {
            step.unready += unready && inode->opens == 0 ? inode->parts : 0;
            to_the_end(fs, i);
            continue;
        }
        uint32_t parts = inode->parts;
        int result = evict_one(fs, i);
        if (result < 0)
            return result;
        step.looks += (uint64_t)result; /* a large file is at the head again, and gave blocks */
        step.parts += parts - inode->parts;
        blocks += data_blocks(inode->size);
    }
    *eviction = step;
    return step.list->head != 0 && step.looks > 0;
}

/* Look at so many files of a list, and evict all but so many. */
static int evict_from(struct fastspool *fs, struct eviction *eviction, const struct list *list, uint64_t looks,
                      uint64_t spared)
{
    int result = looks > spared;

    eviction->list = list;
    eviction->looks = looks;
    eviction->spared = spared;
    while (result > 0 && !enough(fs->header, eviction)) {
        uint64_t before = eviction->parts;
        result = section_run(fs, evict_step, eviction);
        if (eviction->parts > before)
            futex_count(&ATOMIC(fs->header->residency.pager_event));
    }
    return result < 0 ? result : 0;
}

/* A count of files, which may be nonsense, as that of all inodes may be. */
static uint64_t at_most(const struct fastspool *fs, uint64_t files)
{
    uint64_t used = LOAD(fs->header->tables.inodes.used), mapped = LOAD(fs->span.inodes);
    uint64_t most = used < mapped ? used : mapped;
    return files < most ? files : most;
}

int64_t evictor_run(struct fastspool *fs, uint64_t target, uint64_t least, bool *unready)
{
    const struct header *h = fs->header;
    uint64_t all = at_most(fs, LOAD(h->residency.clean_files)), cold = at_most(fs, LOAD(h->residency.cold_files));
    struct eviction eviction = {.target = target, .least = least};
    int result = evict_from(fs, &eviction, &h->residency.cold, cold, all / COLD_SHARE);

    /* If the cold files only wait for a checkpoint, and no writer waits for memory, leave the working set alone. */
    bool more = least > 0 || residency_in_use(h) > target + eviction.unready * PART_SIZE;
    /* Twice round the clock: once to take the marks away, once more to see what has none. */
    if (result == 0 && more)
        result = evict_from(fs, &eviction, &h->residency.clean, 2 * all, 0);
    if (result == 0 && more)
        result = evict_from(fs, &eviction, &h->residency.cold, cold, 0);
    *unready = eviction.unready > 0;
    return result < 0 ? result : (int64_t)(eviction.parts / BLOCK_PARTS);
}
