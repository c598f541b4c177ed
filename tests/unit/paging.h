/* SPDX-License-Identifier: MIT
 *
 * The pager of a test's store.  paging_all() pages everything in at once.  paging_begin() and paging_end() run a pager
 * thread beside the test, as the mirror does.
 */
#ifndef FASTSPOOL_PAGING_H
#define FASTSPOOL_PAGING_H

#include "fastspool.h"
#include "fixture.h"
#include "mirror/database.h"
#include "mirror/pager.h"
#include "store/change.h"
#include "store/inodes.h"
#include "store/layout.h"
#include "store/residency.h"
#include "store/section.h"
#include "store/span.h"
#include "store/store.h"

#include <sys/file.h>

static struct shared_database paging_database;
static char paging_path[FASTSPOOL_PATH_MAX + 16];

static inline struct pager paging_of(struct fastspool *store)
{
    snprintf(paging_path, sizeof(paging_path), "%s/mirror", store->state);
    shared_database_init(&paging_database, paging_path);
    return (struct pager){.fs = store, .database = &paging_database};
}

static inline int paging_want(struct fastspool *store, void *argument)
{
    uint32_t i = *(uint32_t *)argument;

    if (inode_valid(store, i) && (inode_at(store, i)->flags & INODE_EVICTED))
        residency_want(store, i);
    return 0;
}

/* Page in all evicted files.  Returns how many can't be: a read of one waits for a pager. */
static inline int paging_all(struct fastspool *store)
{
    struct pager pager = paging_of(store);
    char why[FASTSPOOL_ERROR_MAX];
    int result = 1, left = 0;

    for (uint32_t i = 1; i < store->header->tables.inodes.used; i++) {
        if (change_run(store, paging_want, &i) < 0)
            fixture_fail("want", "everything");
    }
    while (result > 0)
        result = pager_serve(&pager, why);
    if (result < 0)
        fixture_fail("page everything in", why);
    shared_database_end(&paging_database);
    for (uint32_t i = 1; i < store->header->tables.inodes.used; i++)
        left += inode_valid(store, i) && (inode_at(store, i)->flags & INODE_EVICTED);
    return left;
}

/* The thread has its own attachment, as the mirror.  The test is an ordinary process meanwhile. */
static struct fastspool paging_store;
static struct pager paging_pager;
static bool paging;
static int paging_lock;

static inline void paging_begin(struct fastspool *store, void (*want_checkpoint)(void *))
{
    char path[FASTSPOOL_PATH_MAX + 16];

    mkdir(store->state, 0700);
    snprintf(path, sizeof(path), "%s/mirror.lock", store->state);
    paging_lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    flock(paging_lock, LOCK_EX | LOCK_NB); /* fails if the test holds it already */
    paging = true;
    store->mirror = false;
    paging_store = *store;
    paging_store.mirror = true;
    memset(&paging_store.pool, 0, sizeof(paging_store.pool));
    if (span_map(&paging_store) < 0 || span_follow(&paging_store) < 0)
        fixture_fail("map", "the segment once more");
    paging_pager = paging_of(&paging_store);
    paging_pager.want_checkpoint = want_checkpoint;
    if (pager_start(&paging_pager) < 0)
        fixture_fail("start", "the pager");
}

static inline void paging_end(struct fastspool *store)
{
    pager_end(&paging_pager);
    span_unmap(&paging_store);
    shared_database_end(&paging_database);
    close(paging_lock);
    paging = false;
    store->mirror = true;
}

#endif
