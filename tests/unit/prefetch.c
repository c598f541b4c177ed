/* SPDX-License-Identifier: MIT
 *
 * Prefetch: a sequential reader finds the next files in memory, other readers pay little or nothing, and prefetch puts
 * no file into the working set.
 */
#include "mirror/prefetch.h"
#include "evicting.h"
#include "fastspool.h"
#include "mirror/database.h"
#include "mirror/pagein.h"
#include "mirror/pager.h"
#include "store/change.h"
#include "store/layout.h"
#include "store/residency.h"
#include "store/section.h"
#include "store/store.h"

TestSuite(prefetch, .init = durable_setup, .fini = durable_teardown, .timeout = 120);

#define MESSAGES 200

static char path[32];

static const char *name(int message, char ending)
{
    snprintf(path, sizeof(path), "1xW8Xm-%06d-0k-%c", message, ending);
    return path;
}

/* Make a queue of evicted messages. */
static void queue(void)
{
    for (int i = 0; i < MESSAGES; i++) {
        fill(name(i, 'D'), (unsigned)i, 4000);
        fill(name(i, 'H'), (unsigned)i, 900);
    }
    persist();
    evict(0);
}

/* Open and read a message's -H, then wait until the pager has no page-in left. */
static void look_at(int message)
{
    char got[900];
    int d = fastspool_open(fs, name(message, 'H'), O_RDONLY, 0);

    cr_assert_geq(d, 0, "%s: %s", path, strerror(-d));
    cr_assert_eq(fastspool_pread(fs, d, got, sizeof(got), 0), sizeof(got));
    for (unsigned i = 0; i < sizeof(got); i++)
        cr_assert_eq(got[i], (char)((unsigned)message * 7 + i * 31 + i / 251));
    fastspool_close(fs, d);
    for (int quiet = 0; quiet < 3; quiet = LOAD(fs->header->residency.pageins.head) ? 0 : quiet + 1)
        usleep(1000);
}

static bool there(int message, char ending)
{
    return !evicted(name(message, ending));
}

/* A sequential reader gets 2 files prefetched, then 4, 8, ... up to 64, with the ending that it opens.  Its first two
 * page-ins start no prefetch. */
Test(prefetch, in_order)
{
    static const int pageins[] = {0, 1, 2, 5, 10, 19, 36, 69, 134, 199};
    int asked = 0;

    queue();
    paging_begin(fs, NULL);
    for (int i = 0; i < MESSAGES; i++) {
        if (!there(i, 'H')) {
            cr_assert_eq(i, pageins[asked], "message %d", i);
            asked++;
        }
        look_at(i);
        cr_assert_not(there(i, 'D'));
    }
    paging_end(fs);
    cr_assert_eq(asked, 10);
    cr_assert_eq(fs->header->residency.brought_back, MESSAGES);
}

/* A reader that is a little out of order counts as sequential, and two readers do not disturb each other. */
Test(prefetch, nearly_in_order)
{
    queue();
    paging_begin(fs, NULL);
    look_at(0);
    look_at(100);
    look_at(2); /* skips 1 */
    look_at(101);
    look_at(4);
    cr_assert(there(5, 'H') && there(6, 'H') && !there(7, 'H'));
    look_at(102);
    cr_assert(there(103, 'H') && there(104, 'H') && !there(105, 'H'));
    look_at(6);
    look_at(5);
    look_at(8);
    cr_assert(there(12, 'H') && !there(13, 'H'));
    paging_end(fs);
}

/* A reader that opens -D and -H of each message gets prefetches for both endings. */
Test(prefetch, both_endings)
{
    queue();
    paging_begin(fs, NULL);
    for (int i = 0; i < 3; i++) {
        cr_assert_not(there(i, 'D'));
        put(name(i, 'D'), 0, "", 0, 0);
        cr_assert_not(there(i, 'H'));
        look_at(i);
    }
    cr_assert(there(3, 'D') && there(4, 'D') && !there(5, 'D'));
    cr_assert(there(3, 'H') && there(4, 'H') && !there(5, 'H'));
    paging_end(fs);
}

/* Opening messages in random order pages in only what is opened, though the names of a message are adjacent. */
Test(prefetch, here_and_there)
{
    queue();
    paging_begin(fs, NULL);
    for (int i = 0; i < 20; i++) {
        put(name(i * 7 % 20 * 10, 'D'), 0, "", 0, 0);
        look_at(i * 7 % 20 * 10);
    }
    paging_end(fs);
    cr_assert_eq(fs->header->residency.brought_back, 40);
}

/* Prefetching stops for a reader that skips every other file.  It costs at most one unopened file for four opened. */
Test(prefetch, leaving_out)
{
    queue();
    paging_begin(fs, NULL);
    for (int i = 0; i < MESSAGES; i += 2)
        look_at(i);
    paging_end(fs);
    cr_assert_leq(fs->header->residency.brought_back, MESSAGES / 2 * 5 / 4);
}

/* A reader that unlinks each file it has read gets prefetches too: 10 page-ins, as without unlinking. */
Test(prefetch, removing)
{
    int pageins = 0;

    queue();
    paging_begin(fs, NULL);
    for (int i = 0; i < MESSAGES; i++) {
        pageins += !there(i, 'H');
        look_at(i);
        cr_assert_eq(fastspool_unlink(fs, name(i, 'H')), 0);
    }
    paging_end(fs);
    cr_assert_eq(pageins, 10);
}

/* A prefetched file stays cold at its first open, and does not push out the working set.  Only a second
 * open makes a file part of it. */
Test(prefetch, stays_cold)
{
    queue();
    fill("hot", 99, 900);
    persist();
    paging_begin(fs, NULL);
    for (int i = 0; i < 60; i++)
        look_at(i);
    look_at(0); /* a second open */
    paging_end(fs);
    evict(13); /* blocks: 52 files of a part each */
    cr_assert_not(evicted("hot"));
    cr_assert(there(0, 'H') && !there(1, 'H') && !there(50, 'H'));
    cr_assert(there(67, 'H'), "a file that is prefetched and not opened yet was evicted first");
    evict(0);
    cr_assert_not(inode_at(fs, number(name(67, 'H')))->flags & INODE_AHEAD);
}

static int want_prefetch(struct fastspool *store, void *argument)
{
    residency_want_ahead(store, *(uint32_t *)argument);
    return 0;
}

static void request_prefetch(int message)
{
    uint32_t i = number(name(message, 'H'));
    cr_assert_eq(change_run(fs, want_prefetch, &i), 0);
}

/* Run the pager until it has no page-in left. */
static void paging_all_wanted(void)
{
    struct pager pager = paging_of(fs);

    while (pager_serve(&pager, error) > 0)
        ;
    shared_database_end(&paging_database);
}

/* How many files are prefetched when this message is opened next. */
static int follow(struct prefetch *prefetch, int message)
{
    struct pagein pagein = {.inode = number(name(message, 'H'))};

    pagein.generation = inode_at(fs, pagein.inode)->generation;
    return prefetch_follow(fs, prefetch, &pagein, 256);
}

/* Near the mark at which eviction begins, only files that still fit are prefetched.  Requests beyond that are
 * dropped, not paged in. */
Test(prefetch, not_without_memory)
{
    struct prefetch prefetch = {0};

    queue();
    WRITABLE(fs->header->memory_limit) = UINT64_C(64) << 20;
    while (residency_high(fs->header) > residency_in_use(fs->header) + 3 * BLOCK_SIZE / 2)
        WRITABLE(fs->header->memory_limit) -= BLOCK_SIZE / 4;
    for (int i = 0; i < 3; i++)
        cr_assert_eq(follow(&prefetch, i), i < 2 ? 0 : 1, "there is memory for one file");
    for (int i = 3; i < 6; i++)
        cr_assert_eq(change_run(fs, want_prefetch, &(uint32_t){number(name(10 * i, 'H'))}), 0);
    paging_all_wanted();
    cr_assert_eq(fs->header->residency.brought_back, 1);
    cr_assert_eq(fs->header->residency.pageins.head, 0);
}

/* A prefetch that fails is forgotten, and the next open requests the file again.  If the file was opened meanwhile,
 * the prefetch becomes an ordinary page-in. */
Test(prefetch, failed_prefetch_is_forgotten)
{
    struct pagein pagein;

    queue();
    request_prefetch(1);
    cr_assert_eq(pagein_collect(fs, &pagein, 1), 1);
    cr_assert(pagein.prefetch);
    uint32_t event = fs->header->residency.pager_event;
    cr_assert_eq(pagein_end(fs, &pagein, false, -ENOSPC, false), 0);
    cr_assert_eq(fs->header->residency.pager_event, event, "waiters for other files were woken");
    cr_assert_eq(fs->header->residency.pageins.head, 0);
    paging_begin(fs, NULL);
    look_at(1);
    paging_end(fs);
    evict(0);
    request_prefetch(1);
    cr_assert_eq(pagein_collect(fs, &pagein, 1), 1);
    fs->mirror = true; /* the mirror does not wait for itself, but its request stands */
    cr_assert_eq(fastspool_open(fs, name(1, 'H'), O_RDONLY, 0), -EDEADLK);
    event = fs->header->residency.pager_event;
    cr_assert_eq(pagein_end(fs, &pagein, false, -ENOSPC, false), -ESTALE);
    cr_assert_neq(fs->header->residency.pager_event, event, "the waiter was not woken");
    cr_assert_eq(pagein_collect(fs, &pagein, 1), 1);
    cr_assert_not(pagein.prefetch);
}

/* A file that is prefetched and not opened yet can be unlinked without waiting for its page-in. */
Test(prefetch, unlinked)
{
    struct pagein pagein;

    queue();
    request_prefetch(1);
    cr_assert_eq(pagein_collect(fs, &pagein, 1), 1);
    cr_assert_eq(fastspool_unlink(fs, name(1, 'H')), 0);
    cr_assert_eq(fs->header->residency.pageins.head, 0);
    cr_assert_eq(pagein_end(fs, &pagein, false, 0, false), 0);
}
