/* SPDX-License-Identifier: MIT
 *
 * What victims do with evicted files, as preparation or as the operation itself.
 *
 * The happy path: the scene is in the database (EVICT), so all of its data can be evicted, requested and paged in.  The
 * process plays the pager.  With little memory the huge file goes to a spill file.  Two cases go wrong on purpose: a
 * pager that has died half-way, and a page-in that fails.
 *
 * Failure modes: a preparation that fails exits with a status, which counts as a victim that died of something else.
 *
 * Each function takes its store as an argument.  The `fs` of the fixture, which paging.h includes, is not set in this
 * file.
 */
#include "evicted.h"

#include "fastspool.h"
#include "mirror/database.h"
#include "mirror/evictor.h"
#include "mirror/pagein.h"
#include "mirror/pager.h"
#include "mirror/prefetch.h"
#include "mirror/spill.h"
#include "paging.h"
#include "scene.h"
#include "store/change.h"
#include "store/data.h"
#include "store/section.h"
#include "store/segment.h"
#include "store/store.h"

#include <errno.h>
#include <unistd.h>

static char why[FASTSPOOL_ERROR_MAX];

void evicted_all(struct fastspool *store)
{
    bool unready;

    if (evictor_run(store, 0, UINT64_MAX, &unready) < 0 || unready)
        _exit(4);
}

static int want_all(struct fastspool *store, void *argument)
{
    (void)argument;
    for (uint32_t i = 1; i < store->header->tables.inodes.used; i++)
        paging_want(store, &i);
    return 0;
}

void evicted_and_wanted(struct fastspool *store)
{
    evicted_all(store);
    if (change_run(store, want_all, NULL) < 0)
        _exit(4);
}

void evicted_prefetch(struct fastspool *store)
{
    struct prefetch prefetch = {0};
    int requested = 0;

    for (int n = 1; n <= 3; n++) {
        char path[16];
        struct stat st;
        snprintf(path, sizeof(path), "t/full/%d-H", n);
        scene_must(fastspool_stat(store, path, &st), path);
        struct pagein pagein = {.inode = (uint32_t)st.st_ino,
                                .generation = inode_at(store, (uint32_t)st.st_ino)->generation};
        requested = prefetch_follow(store, &prefetch, &pagein, 100);
    }
    if (requested != 2)
        _exit(4);
}

void evicted_and_prefetch(struct fastspool *store)
{
    evicted_all(store);
    evicted_prefetch(store);
}

void evicted_page_in(struct fastspool *store)
{
    struct pager pager = paging_of(store);

    while (pager_serve(&pager, why) > 0)
        ;
    shared_database_end(&paging_database);
}

void evicted_wanted_of_little_memory(struct fastspool *store)
{
    evicted_and_wanted(store);
    segment_limit(store->header, 3 * HUGE_SIZE); /* so the huge file is spilled */
}

void evicted_spilled(struct fastspool *store)
{
    evicted_wanted_of_little_memory(store);
    evicted_page_in(store);
    if (store->header->residency.spilled != 1)
        _exit(4);
}

void evicted_sweep_spilled(struct fastspool *store)
{
    spill_sweep(store);
}

void evicted_fail_page_ins(struct fastspool *store)
{
    struct pagein pageins[16];
    int count = pagein_collect(store, pageins, 16);

    for (int i = 0; i < count; i++)
        pagein_end(store, &pageins[i], false, -EIO, false);
}

/* What a pager leaves that dies while it pages in the huge file. */
static int page_in_half(struct fastspool *store, void *argument)
{
    (void)argument;
    for (uint32_t i = store->header->residency.pageins.head; i; i = inode_at(store, i)->pagein.next) {
        int result = inode_at(store, i)->size > DATA_STEP ? data_load(store, i, scene_bytes, DATA_STEP, 0) : 0;
        if (result < 0)
            return result;
    }
    return 0;
}

void evicted_half_back(struct fastspool *store)
{
    evicted_and_wanted(store);
    if (change_run(store, page_in_half, NULL) < 0)
        _exit(4);
}
