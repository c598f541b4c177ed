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

int change_run_named(struct fastspool *fs, const char *name, section_body *body, void *argument)
{
    uint64_t waiting = 0;

    for (;;) {
        enum table_id table;
        int result = section_try(fs, name, body, argument, &table);
        if (table == TABLE_NONE && result != -EAGAIN) {
            blocks_add_ahead(fs);
            return doubt_settle(fs, result);
        }
        if (table != TABLE_NONE)
            result = grow(fs, table);
        if (result == -EAGAIN)
            result = residency_wait_for_space(fs, &waiting);
        if (result < 0)
            return result;
    }
}
