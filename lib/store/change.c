/* SPDX-License-Identifier: MIT
 *
 * Changes: sections whose body may need memory.
 *
 * The happy path: the body runs once, in a section.
 *
 * Failure modes:
 *   - A table is full: the body wants it, and the section rolls back.  The table grows outside the lock, and the body
 *     runs again.
 *   - The body finds the segment damaged (doubt.h): the section rolls back, and the call is -EIO.
 *   - There is no memory, or what there is left is not for this file (-EAGAIN): the call waits for an eviction
 *     (residency_wait_for_space()), then returns -ENOSPC.
 */
#include "store/change.h"

#include "store/blocks.h"
#include "store/doubt.h"
#include "store/residency.h"
#include "store/section.h"
#include "store/table.h"

#include <errno.h>

static int grow(struct fastspool *fs, enum table_id table)
{
    residency_notice(fs);
    return table == TABLE_CHUNKS ? blocks_add_chunk(fs) : table_grow(fs, table);
}

static int settle(struct fastspool *fs, int result)
{
    blocks_add_ahead(fs);
    return doubt_settle(fs, result);
}

/* The body wants a table, or finds no memory: see to that, and run it again.  (By itself, as few do.) */
static __attribute__((noinline)) int run_again(struct fastspool *fs, const char *name, section_body *body,
                                               void *argument, int result)
{
    uint64_t waiting = 0;

    while (result == -EAGAIN || result <= SECTION_WANTS) {
        if (result <= SECTION_WANTS)
            result = grow(fs, (enum table_id)(SECTION_WANTS - result));
        if (result == -EAGAIN)
            result = residency_wait_for_space(fs, &waiting);
        if (result < 0)
            return result;
        result = section_try(fs, name, body, argument);
    }
    return settle(fs, result);
}

int change_run_named(struct fastspool *fs, const char *name, section_body *body, void *argument)
{
    const int result = section_try(fs, name, body, argument);

    if (result == -EAGAIN || result <= SECTION_WANTS)
        return run_again(fs, name, body, argument, result);
    return settle(fs, result);
}
