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
    const struct link *link = link_of(fs, i, which);
    const uint32_t *before = last ? &link_of(fs, last, which)->next : &list->head;
    SET_FOUR(fs, link->prev, last, link->next, 0, *before, i, list->tail, i);
}

void lists_remove(struct fastspool *fs, const struct list *list, size_t which, uint32_t i)
{
    const struct link link = *link_of(fs, i, which);
    const uint32_t *before = link.prev ? &link_of(fs, link.prev, which)->next : &list->head;
    const uint32_t *behind = link.next ? &link_of(fs, link.next, which)->prev : &list->tail;

    if (!in_table(fs, link.prev) || !in_table(fs, link.next) || *before != i || *behind != i) {
        section_damaged(fs, "a list of inodes does not agree both ways");
        return;
    }
    SET_PAIR(fs, *before, link.next, *behind, link.prev);
}
