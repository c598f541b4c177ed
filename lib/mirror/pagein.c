/* SPDX-License-Identifier: MIT
 *
 * Page-ins: the requests for files that are not in memory, as the pager answers them.
 *
 * The happy path: pagein_collect() takes the first requests, in the order of their inodes, which is the database's; the
 * pager fills in their data; pagein_end() makes a file resident, and wakes its waiters.
 *
 * Failure modes: the file has changed since the request was looked at (its ticket tells): -ESTALE, and the pager reads
 * it again.  It has been replaced, or is gone: there is nothing left to do.
 */
#include "mirror/pagein.h"

#include "base/futex.h"
#include "base/unconst.h"
#include "store/data.h"
#include "store/layout.h"
#include "store/residency.h"
#include "store/section.h"
#include "store/store.h"

#include <errno.h>
#include <stdlib.h>

struct pageins {
    struct pagein *pagein;
    size_t most;
    size_t count;
};

static int collect(struct fastspool *fs, void *argument)
{
    struct pageins *pageins = argument;

    pageins->count = 0;
    for (uint32_t i = fs->header->residency.pageins.head; i && pageins->count < pageins->most;
         i = inode_at(fs, i)->pagein.next) {
        const struct inode *inode = inode_at(fs, i);
        if (!inode_valid(fs, i) || (inode->flags & (INODE_EVICTED | INODE_WANTED)) != (INODE_EVICTED | INODE_WANTED))
            return section_damaged(fs, "the list of page-ins leads nowhere");
        bool prefetch = inode->flags & INODE_AHEAD;
        pageins->pagein[pageins->count++] = (struct pagein){i, inode->generation, inode->ticket, inode->size, prefetch};
    }
    return 0;
}

static int by_inode(const void *a, const void *b)
{
    const struct pagein *one = a, *other = b;
    return one->inode < other->inode ? -1 : one->inode > other->inode;
}

int pagein_collect(struct fastspool *fs, struct pagein *list, size_t most)
{
    struct pageins pageins = {list, most, 0};
    int result = section_run(fs, collect, &pageins);

    if (result < 0)
        return result;
    qsort(list, pageins.count, sizeof(*list), by_inode);
    return (int)pageins.count;
}

int pagein_check(struct fastspool *fs, const struct pagein *pagein)
{
    const struct inode *inode = inode_at(fs, pagein->inode);

    return inode_valid(fs, pagein->inode) && inode->generation == pagein->generation && (inode->flags & INODE_WANTED) &&
                   inode->ticket == pagein->ticket
               ? 0
               : -ESTALE;
}

static int empty_step(struct fastspool *fs, void *argument)
{
    const struct pagein *pagein = argument;
    return pagein_check(fs, pagein) < 0 ? 0 : data_empty(fs, pagein->inode, DATA_FREE_STEP);
}

/* Free the blocks that a page-in has filled. */
static int empty_all(struct fastspool *fs, const struct pagein *pagein)
{
    int result;

    do
        result = section_run(fs, empty_step, UNCONST(pagein));
    while (result > 0);
    return result;
}

struct ending {
    const struct pagein *pagein;
    bool spilled;
    int error;
    bool for_good;
    bool awaited; /* out: somebody may wait for it */
};

static int end(struct fastspool *fs, void *argument)
{
    struct ending *ending = argument;
    uint32_t i = ending->pagein->inode;
    const struct inode *inode = inode_at(fs, i);

    ending->awaited = !inode_valid(fs, i) || !(inode->flags & INODE_AHEAD);
    if (!inode_valid(fs, i) || inode->generation != ending->pagein->generation || !(inode->flags & INODE_WANTED))
        return 0; /* replaced by other data meanwhile, or gone */
    if (inode->ticket != ending->pagein->ticket)
        return -ESTALE;
    if (ending->error && !ending->for_good && ending->pagein->prefetch && !(inode->flags & INODE_AHEAD))
        return -ESTALE; /* opened meanwhile: now it has to be tried in earnest */
    if (ending->error) {
        residency_give_up(fs, i, ending->error, ending->for_good);
        return 0;
    }
    residency_paged_in(fs, i, ending->spilled);
    return 0;
}

int pagein_end(struct fastspool *fs, const struct pagein *pagein, bool spilled, int error, bool for_good)
{
    struct ending ending = {pagein, spilled, error, for_good, true};
    int result = error || spilled ? empty_all(fs, pagein) : 0;

    if (result == 0)
        result = section_run(fs, end, &ending);
    if (ending.awaited)
        futex_count(&ATOMIC(fs->header->residency.pager_event));
    return result;
}
