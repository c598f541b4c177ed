/* SPDX-License-Identifier: MIT
 *
 * For the tests of attaching: an empty spool, and a runtime directory beside it, on tmpfs.  attach_create() starts no
 * mirror process; the system tests do that.
 */
#ifndef FASTSPOOL_ATTACHING_H
#define FASTSPOOL_ATTACHING_H

#include "fastspool.h"
#include "spool/attach.h"
#include "store/layout.h"
#include "store/span.h"
#include "store/store.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static char directory[64], spool[96], error[FASTSPOOL_ERROR_MAX];
static struct fastspool_config config;
static struct fastspool *fs;

static inline void setup(void)
{
    strcpy(directory, "/dev/shm/fastspool-test.XXXXXX");
    cr_assert_not_null(mkdtemp(directory));
    cr_assert_eq(chmod(directory, 0755), 0);
    snprintf(spool, sizeof(spool), "%s/spool", directory);
    cr_assert_eq(mkdir(spool, 0750), 0);
    config = (struct fastspool_config){.durability = FASTSPOOL_LAZY, .memory = 64 << 20, .flush_interval = 100000000};
    strcpy(config.runtime, directory);
}

static inline void teardown(void)
{
    char command[128];
    snprintf(command, sizeof(command), "rm -rf %s", directory);
    cr_assert_eq(system(command), 0);
}

static inline void create(void)
{
    cr_assert_eq(attach_create(spool, &config, &fs, error), 0, "%s", error);
}

/* How many stores the runtime directory holds. */
static inline int stores(void)
{
    char command[160];
    snprintf(command, sizeof(command), "exit $(ls -d %s/fastspool.* 2>/dev/null | wc -l)", directory);
    return WEXITSTATUS(system(command));
}

/* Attach as another process would, beside @fs or after it.  The seed tells one store from another. */
static inline int attach_again(const char *to, uint64_t *seed)
{
    struct fastspool *other;
    int result = attach_create(to, &config, &other, error);

    if (result < 0)
        return result;
    *seed = other->header->hash_seed;
    fastspool_detach(other);
    return 0;
}

#endif
