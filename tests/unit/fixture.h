/* SPDX-License-Identifier: MIT
 *
 * A private store for a test: an empty spool and a runtime directory in a temporary directory on tmpfs.  The segment is
 * READY, and there is no mirror process.  fixture_setup() attaches the store as `fs`.  fixture_teardown() removes
 * everything.  fixture_attach() attaches a second time, as another process does, or a child after a fork.
 */
#ifndef FASTSPOOL_FIXTURE_H
#define FASTSPOOL_FIXTURE_H

#include "checking.h"
#include "fastspool.h"
#include "spool/launch.h"
#include "store/descriptions.h"
#include "store/directories.h"
#include "store/inodes.h"
#include "store/layout.h"
#include "store/section.h" /* before the global `fs`: its prototypes have a parameter of that name */
#include "store/segment.h"
#include "store/span.h"
#include "store/store.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define FIXTURE_MEMORY (UINT64_C(256) << 20)

static char fixture_directory[64];
static struct fastspool *fs;

static inline void fixture_fail(const char *what, const char *why)
{
    fprintf(stderr, "fixture: %s: %s\n", what, why);
    abort();
}

static inline struct fastspool *fixture_attach(void)
{
    struct fastspool *store = calloc(1, sizeof(*store));
    char error[FASTSPOOL_ERROR_MAX];
    struct stat of_spool, of_runtime;

    snprintf(store->spool, sizeof(store->spool), "%s/spool", fixture_directory);
    snprintf(store->runtime, sizeof(store->runtime), "%s/runtime", fixture_directory);
    snprintf(store->state, sizeof(store->state), "%s/state", fixture_directory);
    store->durability = FASTSPOOL_LAZY;
    store->keeper = &launch_keeper;
    store->mirror = true; /* the test is the mirror, and waits for no other */
    store->spool_fd = open(store->spool, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    store->runtime_fd = open(store->runtime, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    store->segment_fd = store->locks_fd = store->presence_fd = -1;
    if (fstat(store->spool_fd, &of_spool) < 0 || fstat(store->runtime_fd, &of_runtime) < 0 ||
        segment_open(store, &of_spool, &of_runtime, error) < 0)
        fixture_fail("open the segment", error);
    return store;
}

static inline void fixture_detach(struct fastspool *store)
{
    descriptions_pool_close(store);
    segment_close(store);
    close(store->spool_fd);
    close(store->runtime_fd);
    free(store);
}

static inline void fixture_setup(void)
{
    struct fastspool_config config = {.memory = FIXTURE_MEMORY, .flush_interval = 100000000};
    char path[96], error[FASTSPOOL_ERROR_MAX];

    strcpy(fixture_directory, "/dev/shm/fastspool-test.XXXXXX");
    if (!mkdtemp(fixture_directory))
        fixture_fail("make", fixture_directory);
    snprintf(path, sizeof(path), "%s/spool", fixture_directory);
    int spool = mkdir(path, 0750) < 0 ? -1 : open(path, O_RDONLY | O_DIRECTORY);
    snprintf(path, sizeof(path), "%s/runtime", fixture_directory);
    int runtime = mkdir(path, 0700) < 0 ? -1 : open(path, O_RDONLY | O_DIRECTORY);
    if (segment_create(runtime, spool, &config, error) < 0)
        fixture_fail("create the segment", error);
    close(spool);
    close(runtime);
    fs = fixture_attach();
    if (directories_make_root(fs) < 0)
        fixture_fail("make", "the root");
    STORE(fs->header->state, SEGMENT_READY);
    checking_begin(&fs);
}

static inline void fixture_teardown(void)
{
    char command[128];

    fixture_detach(fs);
    fs = NULL;
    snprintf(command, sizeof(command), "rm -rf %s", fixture_directory);
    if (system(command) != 0)
        fixture_fail("remove", fixture_directory);
}

#endif
