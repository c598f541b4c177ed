/* SPDX-License-Identifier: MIT
 *
 * Eviction: which files have their data in memory, and who waits for what isn't there.
 *
 * Names and attributes are always in memory, data while it is hot: a file whose last change is in the database
 * (header.checkpointed) and that nobody has open may give its blocks back.  It keeps its size and all that stat shows,
 * and is EVICTED.  Those that could go are in the clean list, the coldest first: files come to its end when a commit
 * has made them clean, and leave it when they change.  Opening one only marks it REFERENCED; eviction, which goes
 * through the list from its beginning, takes the mark away, puts the file at the end and goes on: the clock algorithm,
 * for one word an open.
 *
 * What is brought back is COLD until it is opened once more, and has a list of its own, also when it was written to
 * meanwhile (a delivery writes to the message's log): eviction goes through that one first, and spares an eighth.  So a
 * queue run over a million evicted messages pushes out what it has itself brought in, and not what is hot; and what is
 * opened again soon becomes hot.  (The 2Q algorithm, Johnson and Shasha, VLDB 1994, with its second queue a clock.)
 *
 * The happy path of an open of an evicted file: in one section it gets its description and joins the list of faults;
 * then its opener wakes the pager, a thread of the mirror, and waits.  The pager reads the file from the database
 * (pager.c), fills in its blocks, and with the last of them it is evicted no more.  The description keeps it in memory:
 * so whoever has a file open never needs the mirror, under whatever user he goes on.
 *
 * What is larger than memory should hold, or finds no room, is served from a spill file (spill.c).
 *
 * Memory.  Eviction begins where tables and blocks in use pass seven eighths of the limit (of a small one: where less
 * is left than a chunk and the reserve) and goes on for one eighth. A writer that finds none left asks for some and
 * waits, SPACE_WAIT at the most, less where the disk fails, for then nothing can be evicted; then it is ENOSPC, and a
 * line to syslog.  The same where the runtime directory's file system is full, whatever the limit.  Some blocks are the
 * mirror's alone (header.reserve), for the files that it brings back.
 *
 * Failure modes: the mirror dies: requests stay in their list, a waiter starts another one within 100 ms, and it goes
 * on; a file half brought back is brought back again, into the same blocks.  Where the reading itself was the end of it
 * (a damaged page), the next one lets that file fail, with EIO, and goes on with the others.  A file that is wanted
 * keeps its last name until it is there: its end must not reach the database before it has been read (directories.c).
 */
#include "store/eviction.h"

#include "base/clock.h"
#include "base/futex.h"
#include "spool/attach.h"
#include "store/data.h"
#include "store/inodes.h"
#include "store/layout.h"
#include "store/lists.h"
#include "store/section.h"
#include "store/segment.h"
#include "store/store.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <syslog.h>

#define SPACE_WAIT       (10 * NS_PER_S)   /* that a writer waits for memory, */
#define SPACE_WAIT_BAD   NS_PER_S          /* while commits or checkpoints fail, */
#define SPACE_WAIT_AGAIN (300 * NS_PER_MS) /* and after it has waited in vain */
#define TELL_EVERY       (60 * NS_PER_S)   /* between two lines to syslog */

#define COLD_SHARE  8u  /* this part of the clean files may be cold, before those are evicted first */
#define STEP_LOOKS  48u /* files that one section looks at: each may change twelve words */
#define STEP_BLOCKS 64u /* blocks after which it takes no further file: with that of the last one at most 192 */

/* ---- the clean list, and the cold one ---- */

static void set_flags(struct fastspool *fs, uint32_t i, unsigned set, unsigned clear)
{
    struct inode *inode = inode_at(fs, i);
    SET(fs, inode->flags, (uint16_t)((inode->flags & ~clear) | set));
}

static struct list *list_of(const struct fastspool *fs, uint32_t i)
{
    return inode_at(fs, i)->flags & INODE_COLD ? &fs->header->cold : &fs->header->clean;
}

/* One file more or less (@by: 1 or -1) in its list. */
static void count(struct fastspool *fs, uint32_t i, int by)
{
    SET(fs, fs->header->clean_files, fs->header->clean_files + (uint64_t)by);
    if (inode_at(fs, i)->flags & INODE_COLD)
        SET(fs, fs->header->cold_files, fs->header->cold_files + (uint64_t)by);
}

void eviction_join(struct fastspool *fs, uint32_t i)
{
    const struct inode *inode = inode_at(fs, i);

    if (!S_ISREG(inode->mode) || inode->links == 0 || inode->blocks == 0 ||
        (inode->flags & (INODE_USED | INODE_DIRTY | INODE_ORPHAN | INODE_CLEAN | INODE_WANTED)) != INODE_USED)
        return;
    lists_append(fs, list_of(fs, i), LIST_LINK, i);
    set_flags(fs, i, INODE_CLEAN, 0);
    count(fs, i, 1);
}

void eviction_leave_clean(struct fastspool *fs, uint32_t i)
{
    if (!(inode_at(fs, i)->flags & INODE_CLEAN))
        return;
    lists_remove(fs, list_of(fs, i), LIST_LINK, i);
    count(fs, i, -1);
    set_flags(fs, i, 0, INODE_CLEAN | (inode_at(fs, i)->flags & INODE_REFERENCED ? INODE_REFERENCED | INODE_COLD : 0));
}

/* What was evicted is not any more; what stood in place of the data's marks goes. */
static void leave_evicted(struct fastspool *fs, uint32_t i)
{
    struct inode *inode = inode_at(fs, i);

    if (inode->flags & INODE_WANTED)
        lists_remove(fs, &fs->header->faults, FAULT_LINK, i);
    set_flags(fs, i, 0, INODE_EVICTED | INODE_WANTED | INODE_UNREADABLE | INODE_COLD);
    SET(fs, inode->data_in, 0);
    SET(fs, inode->since_from, 0);
    SET(fs, fs->header->evicted, fs->header->evicted - 1);
}

static void leave_spilled(struct fastspool *fs, uint32_t i)
{
    set_flags(fs, i, 0, INODE_SPILLED);
    SET(fs, fs->header->spilled, fs->header->spilled - 1);
}

void eviction_leave(struct fastspool *fs, uint32_t i)
{
    eviction_leave_clean(fs, i);
    if (inode_at(fs, i)->flags & INODE_EVICTED)
        leave_evicted(fs, i);
    if (inode_at(fs, i)->flags & INODE_SPILLED)
        leave_spilled(fs, i);
}

static void become_evicted(struct fastspool *fs, uint32_t i)
{
    set_flags(fs, i, INODE_EVICTED, INODE_AHEAD);
    SET(fs, inode_at(fs, i)->fault_error, 0);
    SET(fs, fs->header->evicted, fs->header->evicted + 1);
    SET(fs, fs->header->evictions, fs->header->evictions + 1);
}

void eviction_unspill(struct fastspool *fs, uint32_t i)
{
    leave_spilled(fs, i);
    become_evicted(fs, i);
}

void eviction_reference(struct fastspool *fs, uint32_t i)
{
    if (inode_at(fs, i)->flags & INODE_AHEAD)
        set_flags(fs, i, 0, INODE_AHEAD);
    else if ((inode_at(fs, i)->flags & (INODE_CLEAN | INODE_REFERENCED)) == INODE_CLEAN)
        set_flags(fs, i, INODE_REFERENCED, 0);
}

/* ---- how much memory ---- */

/* Above it a chunk could not leave where the tables want its memory. */
uint64_t eviction_high(const struct header *header)
{
    uint64_t limit = LOAD(header->memory_limit), high = limit / 8 * 7,
             chunk = CHUNK_SIZE + header->reserve * BLOCK_SIZE;
    return limit < chunk ? 0 : limit - chunk < high ? limit - chunk : high;
}

uint64_t eviction_low(const struct header *header)
{
    uint64_t high = eviction_high(header), less = LOAD(header->memory_limit) / 8;
    return high > less ? high - less : 0;
}

uint64_t eviction_in_use(const struct header *header)
{
    return segment_tables(header) + (LOAD(header->blocks_used) + LOAD(header->blocks_held)) * BLOCK_SIZE;
}

static void wake_pager(struct fastspool *fs)
{
    futex_count(&fs->header->pager_wanted);
}

void eviction_notice(struct fastspool *fs)
{
    if (!fs->mirror && eviction_in_use(fs->header) > eviction_high(fs->header))
        wake_pager(fs);
}

/* One line a minute, whoever comes first. */
static void tell(struct fastspool *fs)
{
    uint64_t now = clock_monotonic(), told = LOAD(fs->header->space_told);

    if ((told && now - told < TELL_EVERY) ||
        !__atomic_compare_exchange_n(&fs->header->space_told, &told, now, false, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED))
        return;
    syslog(LOG_MAIL | LOG_ERR,
           "fastspool: %s: no memory left in %s (%llu of %llu MiB are in use), and nothing more can be evicted",
           fs->spool, fs->runtime, (unsigned long long)(eviction_in_use(fs->header) >> 20),
           (unsigned long long)(LOAD(fs->header->memory_limit) >> 20));
}

int eviction_wait_for_space(struct fastspool *fs, uint64_t *since)
{
    struct header *h = fs->header;
    uint64_t now = clock_monotonic(), lived = now;
    bool bad = LOAD(h->commit_error) || LOAD(h->checkpoint_error);

    if (fs->mirror || LOAD(h->state) != SEGMENT_READY)
        return -ENOSPC;
    if (*since == 0)
        *since = now;
    /* Who has just waited in vain waits for a moment only: a program that was told of an error still tries to write
     * what it has buffered, and Exim does so ten times before it answers. */
    bool again = fs->refused && *since - fs->refused < SPACE_WAIT;
    if (now - *since > (again ? SPACE_WAIT_AGAIN : bad ? SPACE_WAIT_BAD : SPACE_WAIT)) {
        fs->refused = now;
        tell(fs);
        return -ENOSPC;
    }
    uint32_t event = LOAD(h->pager_event);
    __atomic_add_fetch(&h->space_wanted, 1, __ATOMIC_ACQ_REL);
    wake_pager(fs);
    return attach_wait_for_mirror(fs, &h->pager_event, event, &h->pager_wanted, &lived) < 0 ? -ENOSPC : 0;
}

/* ---- evicting ---- */

struct eviction {
    uint64_t target;  /* memory in use, and */
    uint64_t least;   /* blocks that came free: it is enough when both are reached */
    uint64_t blocks;  /* that came free, in all */
    uint64_t unready; /* blocks of files that could go but for their checkpoint */
    struct list *list;
    uint64_t looks;  /* at files of this list that are left, */
    uint64_t spared; /* the last of which are only looked at: so that whoever stays, the order is as before */
};

static bool enough(const struct header *h, const struct eviction *eviction)
{
    return eviction_in_use(h) <= eviction->target && eviction->blocks >= eviction->least;
}

/* Of its list; of the clean one where it was opened. */
static void to_the_end(struct fastspool *fs, uint32_t i)
{
    eviction_leave_clean(fs, i);
    eviction_join(fs, i);
}

/* Some of its blocks.  A file that has more is evicted already, and stays at the head of the list until it has none. */
static int evict_one(struct fastspool *fs, uint32_t i)
{
    if (!(inode_at(fs, i)->flags & INODE_EVICTED))
        become_evicted(fs, i);
    int result = data_empty(fs, i, DATA_FREE_STEP);
    if (result == 0)
        eviction_leave_clean(fs, i);
    return result;
}

static int evict_step(struct fastspool *fs, void *argument)
{
    struct eviction *eviction = argument, step = *eviction;
    uint64_t before = step.blocks;

    for (uint32_t looks = 0; looks < STEP_LOOKS && step.blocks - before < STEP_BLOCKS; looks++) {
        uint32_t i = step.list->head;
        const struct inode *inode = inode_at(fs, i);
        if (i == 0 || step.looks == 0 || enough(fs->header, &step))
            break;
        if (!inodes_valid(fs, i) || !(inode->flags & INODE_CLEAN) || list_of(fs, i) != step.list)
            return section_damaged(fs, "the list of clean files leads nowhere");
        step.looks--;
        bool unready = inode->ticket > LOAD(fs->header->checkpointed);
        if (inode->opens > 0 || (inode->flags & INODE_REFERENCED) || unready || step.looks < step.spared) {
            step.unready += unready && inode->opens == 0 ? inode->blocks : 0;
            to_the_end(fs, i);
            continue;
        }
        uint32_t blocks = inode->blocks;
        int result = evict_one(fs, i);
        if (result < 0)
            return result;
        step.looks += (uint64_t)result; /* a large file is at the head again, and gave blocks */
        step.blocks += blocks - inode->blocks;
    }
    *eviction = step;
    return step.list->head != 0 && step.looks > 0;
}

/* Look at so many files of a list, and evict all but so many. */
static int evict_from(struct fastspool *fs, struct eviction *eviction, struct list *list, uint64_t looks,
                      uint64_t spared)
{
    int result = looks > spared;

    eviction->list = list;
    eviction->looks = looks;
    eviction->spared = spared;
    while (result > 0 && !enough(fs->header, eviction)) {
        uint64_t before = eviction->blocks;
        result = section_run(fs, evict_step, eviction);
        if (eviction->blocks > before)
            futex_count(&fs->header->pager_event);
    }
    return result < 0 ? result : 0;
}

int64_t eviction_run(struct fastspool *fs, uint64_t target, uint64_t least, bool *unready)
{
    struct header *h = fs->header;
    uint64_t all = LOAD(h->clean_files), cold = LOAD(h->cold_files);
    struct eviction eviction = {.target = target, .least = least};
    int result = evict_from(fs, &eviction, &h->cold, cold, all / COLD_SHARE);

    /* What is hot stays where it is enough that the cold wait for a checkpoint, and nobody waits for their memory. */
    bool hot = least > 0 || eviction_in_use(h) > target + eviction.unready * BLOCK_SIZE;
    /* Twice round the clock: once to take the marks away, once more to see what has none. */
    if (result == 0 && hot)
        result = evict_from(fs, &eviction, &h->clean, 2 * all, 0);
    if (result == 0 && hot)
        result = evict_from(fs, &eviction, &h->cold, cold, 0);
    *unready = eviction.unready > 0;
    return result < 0 ? result : (int64_t)eviction.blocks;
}

/* ---- faults: asking ---- */

void eviction_want(struct fastspool *fs, uint32_t i)
{
    if (inode_at(fs, i)->flags & INODE_AHEAD)
        set_flags(fs, i, 0, INODE_AHEAD);
    if (inode_at(fs, i)->flags & INODE_WANTED)
        return;
    eviction_leave_clean(fs, i); /* it was half evicted */
    lists_append(fs, &fs->header->faults, FAULT_LINK, i);
    set_flags(fs, i, INODE_WANTED, 0);
}

void eviction_want_ahead(struct fastspool *fs, uint32_t i)
{
    eviction_want(fs, i);
    set_flags(fs, i, INODE_AHEAD, 0);
}

/* How an inode that somebody waits for is. */
static int look_at_fault(struct fastspool *fs, uint32_t i, uint32_t generation)
{
    struct section_read read = SECTION_READ;
    int result;

    do {
        section_read_begin(fs, &read);
        const struct inode *inode = inode_at(fs, i);
        if (!inodes_valid(fs, i) || inode->generation != generation || !(inode->flags & INODE_EVICTED))
            result = 0;
        else if (inode->flags & INODE_WANTED)
            result = -EINPROGRESS;
        else
            result = inode->fault_error ? -(int)inode->fault_error : 0; /* it came, and went again */
    } while (section_read_retry(fs, &read));
    return result;
}

int eviction_wait(struct fastspool *fs, uint32_t i, uint32_t generation)
{
    struct header *h = fs->header;
    uint64_t lived = clock_monotonic();
    int result = 0;

    wake_pager(fs);
    while (result == 0) {
        uint32_t event = LOAD(h->pager_event);
        if (LOAD(h->state) == SEGMENT_FAILED)
            return -EIO;
        int state = look_at_fault(fs, i, generation);
        if (state != -EINPROGRESS)
            return state;
        if (fs->mirror)
            return -EDEADLK; /* it would wait for itself */
        result = attach_wait_for_mirror(fs, &h->pager_event, event, &h->pager_wanted, &lived);
    }
    return result;
}

/* ---- faults: answering ---- */

struct faults {
    struct fault *fault;
    size_t most;
    size_t count;
};

static int collect_faults(struct fastspool *fs, void *argument)
{
    struct faults *faults = argument;

    faults->count = 0;
    for (uint32_t i = fs->header->faults.head; i && faults->count < faults->most; i = inode_at(fs, i)->fault.next) {
        const struct inode *inode = inode_at(fs, i);
        if (!inodes_valid(fs, i) || (inode->flags & (INODE_EVICTED | INODE_WANTED)) != (INODE_EVICTED | INODE_WANTED))
            return section_damaged(fs, "the list of faults leads nowhere");
        bool ahead = inode->flags & INODE_AHEAD;
        faults->fault[faults->count++] = (struct fault){i, inode->generation, inode->ticket, inode->size, ahead};
    }
    return 0;
}

static int by_inode(const void *a, const void *b)
{
    const struct fault *one = a, *other = b;
    return one->inode < other->inode ? -1 : one->inode > other->inode;
}

int eviction_faults(struct fastspool *fs, struct fault *list, size_t most)
{
    struct faults faults = {list, most, 0};
    int result = section_run(fs, collect_faults, &faults);

    if (result < 0)
        return result;
    qsort(list, faults.count, sizeof(*list), by_inode);
    return (int)faults.count;
}

int eviction_check_fault(struct fastspool *fs, const struct fault *fault)
{
    const struct inode *inode = inode_at(fs, fault->inode);

    return inodes_valid(fs, fault->inode) && inode->generation == fault->generation && (inode->flags & INODE_WANTED) &&
                   inode->ticket == fault->ticket
               ? 0
               : -ESTALE;
}

static int empty_fault(struct fastspool *fs, void *argument)
{
    const struct fault *fault = argument;
    return eviction_check_fault(fs, fault) < 0 ? 0 : data_empty(fs, fault->inode, DATA_FREE_STEP);
}

int eviction_empty_fault(struct fastspool *fs, const struct fault *fault)
{
    int result;

    do
        result = section_run(fs, empty_fault, (void *)fault);
    while (result > 0);
    return result;
}

struct ending {
    const struct fault *fault;
    bool spilled;
    int error;
    bool for_good;
    bool awaited; /* out: somebody may wait for it */
};

/* It can't be brought back: who waits gets the error, and who comes next asks again, unless it is for good. */
static void give_up(struct fastspool *fs, uint32_t i, const struct ending *ending)
{
    lists_remove(fs, &fs->header->faults, FAULT_LINK, i);
    set_flags(fs, i, ending->for_good ? INODE_UNREADABLE : 0, INODE_WANTED | INODE_AHEAD);
    SET(fs, inode_at(fs, i)->fault_error, (uint32_t)ending->error);
    SET(fs, inode_at(fs, i)->since_from, 0);
}

static int end_fault(struct fastspool *fs, void *argument)
{
    struct ending *ending = argument;
    uint32_t i = ending->fault->inode;
    struct inode *inode = inode_at(fs, i);

    ending->awaited = !inodes_valid(fs, i) || !(inode->flags & INODE_AHEAD);
    if (!inodes_valid(fs, i) || inode->generation != ending->fault->generation || !(inode->flags & INODE_WANTED))
        return 0; /* replaced by other data meanwhile, or gone */
    if (inode->ticket != ending->fault->ticket)
        return -ESTALE;
    if (ending->error && !ending->for_good && ending->fault->ahead && !(inode->flags & INODE_AHEAD))
        return -ESTALE; /* opened meanwhile: now it has to be tried in earnest */
    if (ending->error) {
        give_up(fs, i, ending);
        eviction_join(fs, i); /* only if it has blocks still */
        return 0;
    }
    leave_evicted(fs, i);
    SET(fs, fs->header->brought_back, fs->header->brought_back + 1);
    if (ending->spilled) {
        set_flags(fs, i, INODE_SPILLED, 0);
        SET(fs, fs->header->spilled, fs->header->spilled + 1);
        return 0;
    }
    set_flags(fs, i, INODE_COLD, 0);
    eviction_join(fs, i);
    return 0;
}

int eviction_end_fault(struct fastspool *fs, const struct fault *fault, bool spilled, int error, bool for_good)
{
    struct ending ending = {fault, spilled, error, for_good, true};
    int result = error || spilled ? eviction_empty_fault(fs, fault) : 0;

    if (result == 0)
        result = section_run(fs, end_fault, &ending);
    if (ending.awaited)
        futex_count(&fs->header->pager_event);
    return result;
}
