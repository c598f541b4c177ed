/* SPDX-License-Identifier: MIT
 *
 * Lists of inodes, linked both ways through a link in each inode.
 *
 * The header holds the two ends of a list.  The caller says which link of the inodes the list uses, by its offset:
 * LIST_LINK or PAGEIN_LINK.
 *
 * Failure modes:
 *   - The undo log holds every change, so a killed process leaves no list half changed.
 *   - The links around an inode don't agree both ways: the segment is damaged, and the section fails.
 */
#include "store/lists.h"

#include "store/layout.h"
#include "store/section.h"
#include "store/store.h"

#include <stdbool.h>

static const struct link *link_of(const struct fastspool *fs, uint32_t i, size_t which)
{
    return (const struct link *)((const char *)inode_at(fs, i) + which);
}

/* Does @i, 0: the end of the list, lie in the table?  (A dirty inode may be free.) */
static bool in_table(const struct fastspool *fs, uint32_t i)
{
    return i < fs->header->tables.inodes.used && i < INODES_MAX;
}

void lists_append(struct fastspool *fs, const struct list *list, size_t which, uint32_t i)
{
    const uint32_t last = list->tail;

    if (!in_table(fs, last) || (last ? link_of(fs, last, which)->next : list->head) != 0) {
        section_damaged(fs, "a list of inodes has another end than it says");
        return;
    }
    SET(fs, link_of(fs, i, which)->prev, last);
    SET(fs, link_of(fs, i, which)->next, 0);
    SET(fs, *(last ? &link_of(fs, last, which)->next : &list->head), i);
    SET(fs, list->tail, i);
}

void lists_remove(struct fastspool *fs, const struct list *list, size_t which, uint32_t i)
{
    const struct link link = *link_of(fs, i, which);

    if (!in_table(fs, link.prev) || !in_table(fs, link.next) ||
        (link.prev ? link_of(fs, link.prev, which)->next : list->head) != i ||
        (link.next ? link_of(fs, link.next, which)->prev : list->tail) != i) {
        section_damaged(fs, "a list of inodes does not agree both ways");
        return;
    }
    SET(fs, *(link.prev ? &link_of(fs, link.prev, which)->next : &list->head), link.next);
    SET(fs, *(link.next ? &link_of(fs, link.next, which)->prev : &list->tail), link.prev);
}
