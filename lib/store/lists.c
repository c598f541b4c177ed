/* SPDX-License-Identifier: MIT
 *
 * Lists of inodes, linked both ways through a link in each inode.
 *
 * The header holds the two ends of a list.  The caller says which link of the inodes the list uses, by its offset:
 * LIST_LINK or PAGEIN_LINK.
 *
 * Failure modes: the undo log holds every change, so a killed process leaves no list half changed.
 */
#include "store/lists.h"

#include "store/layout.h"
#include "store/section.h"
#include "store/store.h"

static const struct link *link_of(const struct fastspool *fs, uint32_t i, size_t which)
{
    return (const struct link *)((const char *)inode_at(fs, i) + which);
}

/* Put @i between @prev and @next, 0: none. */
static void insert(struct fastspool *fs, const struct list *list, size_t which, uint32_t i, uint32_t prev,
                   uint32_t next)
{
    SET(fs, link_of(fs, i, which)->prev, prev);
    SET(fs, link_of(fs, i, which)->next, next);
    SET(fs, *(prev ? &link_of(fs, prev, which)->next : &list->head), i);
    SET(fs, *(next ? &link_of(fs, next, which)->prev : &list->tail), i);
}

void lists_append(struct fastspool *fs, const struct list *list, size_t which, uint32_t i)
{
    insert(fs, list, which, i, list->tail, 0);
}

void lists_remove(struct fastspool *fs, const struct list *list, size_t which, uint32_t i)
{
    const struct link link = *link_of(fs, i, which);

    SET(fs, *(link.prev ? &link_of(fs, link.prev, which)->next : &list->head), link.next);
    SET(fs, *(link.next ? &link_of(fs, link.next, which)->prev : &list->tail), link.prev);
}
