/* SPDX-License-Identifier: MIT
 *
 * Read-ahead: who reads in order finds the next files in memory, who doesn't pays nothing, and nobody becomes hot by
 * it.
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

/* A queue whose data is in the database alone. */
static void queue(void)
{
    for (int i = 0; i < MESSAGES; i++) {
        fill(name(i, 'D'), (unsigned)i, 4000);
        fill(name(i, 'H'), (unsigned)i, 900);
    }
    persist();
    evict(0);
}

/* Open it, read it, and let the pager finish what it has begun. */
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

/* In order: 2, 4, 8 files ahead and so on, of those with the same ending; the first two tell nothing. */
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

/* What comes a little out of order is the same reader still; two of them don't disturb each other. */
Test(prefetch, nearly_in_order)
{
    queue();
    paging_begin(fs, NULL);
    look_at(0);
    look_at(100);
    look_at(2); /* not 1 */
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

/* One who opens -D and -H of each message comes again with each second file only. */
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

/* In random order nothing is read that nobody opens, though a message's files lie side by side. */
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

/* Who leaves out every other file is found out, and costs a file that he doesn't open in four that he does. */
Test(prefetch, leaving_out)
{
    queue();
    paging_begin(fs, NULL);
    for (int i = 0; i < MESSAGES; i += 2)
        look_at(i);
    paging_end(fs);
    cr_assert_leq(fs->header->residency.brought_back, MESSAGES / 2 * 5 / 4);
}

/* Who removes what he has read is followed, too. */
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

/* What was brought along is opened for the first time when it is opened: it stays cold, and doesn't push out what is
 * hot. */
Test(prefetch, stays_cold)
{
    queue();
    fill("hot", 99, 900);
    persist();
    paging_begin(fs, NULL);
    for (int i = 0; i < 60; i++)
        look_at(i);
    look_at(0); /* but for this one */
    paging_end(fs);
    evict(50);
    cr_assert_not(evicted("hot"));
    cr_assert(there(0, 'H') && !there(1, 'H') && !there(50, 'H'));
    cr_assert(there(67, 'H'), "what waits to be opened stays longest");
    evict(0);
    cr_assert_not(inode_at(fs, number(name(67, 'H')))->flags & INODE_AHEAD);
}

static int want_ahead(struct fastspool *store, void *argument)
{
    residency_want_ahead(store, *(uint32_t *)argument);
    return 0;
}

static void ask_ahead(int message)
{
    uint32_t i = number(name(message, 'H'));
    cr_assert_eq(change_run(fs, want_ahead, &i), 0);
}

/* The pager, once and to its end. */
static void paging_all_wanted(void)
{
    struct pager pager = paging_of(fs);

    while (pager_bring_back(&pager, error) > 0)
        ;
    shared_database_end(&paging_database);
}

/* How many are asked for when this message is opened, as the next one. */
static int follow(struct ahead *ahead, int message)
{
    struct pagein pagein = {.inode = number(name(message, 'H'))};

    pagein.generation = inode_at(fs, pagein.inode)->generation;
    return ahead_follow(fs, ahead, &pagein, 256);
}

/* Where memory is nearly at the mark, nothing is asked for ahead, nor brought back that was. */
Test(prefetch, not_without_memory)
{
    struct ahead ahead = {0};

    queue();
    fs->header->memory_limit = UINT64_C(64) << 20;
    while (residency_high(fs->header) > residency_in_use(fs->header) + 3 * BLOCK_SIZE / 2)
        fs->header->memory_limit -= BLOCK_SIZE / 4;
    for (int i = 0; i < 3; i++)
        cr_assert_eq(follow(&ahead, i), i < 2 ? 0 : 1, "there is room for one");
    for (int i = 3; i < 6; i++)
        cr_assert_eq(change_run(fs, want_ahead, &(uint32_t){number(name(10 * i, 'H'))}), 0);
    paging_all_wanted();
    cr_assert_eq(fs->header->residency.brought_back, 1);
    cr_assert_eq(fs->header->residency.pageins.head, 0);
}

/* What can't be brought back is forgotten, and who opens it asks again; what was opened meanwhile is tried in earnest.
 */
Test(prefetch, in_vain)
{
    struct pagein pagein;

    queue();
    ask_ahead(1);
    cr_assert_eq(pagein_collect(fs, &pagein, 1), 1);
    cr_assert(pagein.ahead);
    uint32_t event = fs->header->residency.pager_event;
    cr_assert_eq(pagein_end(fs, &pagein, false, -ENOSPC, false), 0);
    cr_assert_eq(fs->header->residency.pager_event, event, "nobody waits, and who waits for others isn't woken");
    cr_assert_eq(fs->header->residency.pageins.head, 0);
    paging_begin(fs, NULL);
    look_at(1);
    paging_end(fs);
    evict(0);
    ask_ahead(1);
    cr_assert_eq(pagein_collect(fs, &pagein, 1), 1);
    fs->mirror = true; /* who would wait for itself doesn't, but has asked */
    cr_assert_eq(fastspool_open(fs, name(1, 'H'), O_RDONLY, 0), -EDEADLK);
    event = fs->header->residency.pager_event;
    cr_assert_eq(pagein_end(fs, &pagein, false, -ENOSPC, false), -ESTALE);
    cr_assert_neq(fs->header->residency.pager_event, event, "who waits is woken");
    cr_assert_eq(pagein_collect(fs, &pagein, 1), 1);
    cr_assert_not(pagein.ahead);
}

/* What nobody has opened yet can be removed without waiting for it. */
Test(prefetch, unlinked)
{
    struct pagein pagein;

    queue();
    ask_ahead(1);
    cr_assert_eq(pagein_collect(fs, &pagein, 1), 1);
    cr_assert_eq(fastspool_unlink(fs, name(1, 'H')), 0);
    cr_assert_eq(fs->header->residency.pageins.head, 0);
    cr_assert_eq(pagein_end(fs, &pagein, false, 0, false), 0);
}
