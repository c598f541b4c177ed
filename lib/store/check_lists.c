/* SPDX-License-Identifier: MIT
 *
 * The check of the lists of inodes: free, orphans, dirty, clean, cold, page-ins.
 *
 * The happy path: every list is walked, both ways agree, and each inode is noted in each list; then each inode must be
 * in exactly the lists that its flags say.
 *
 * Failure modes: a list that leads out of the table, or to an inode that it has been to, is left there.
 */
#include "base/findings.h"
#include "store/check_inside.h"
#include "store/layout.h"
#include "store/lists.h"
#include "store/store.h"

#include <sys/stat.h>

enum { IN_FREE = 1, IN_ORPHANS = 2, IN_DIRTY = 4, IN_CLEAN = 8, IN_COLD = 16, IN_PAGEINS = 32 };

static const struct list_name {
    uint8_t bit;
    const char *name;
} list_names[] = {
    {IN_FREE, "the list of free inodes"}, {IN_ORPHANS, "the list of orphans"}, {IN_DIRTY, "the dirty list"},
    {IN_CLEAN, "the clean list"},         {IN_COLD, "the cold list"},          {IN_PAGEINS, "the list of page-ins"},
};
#define LISTS (sizeof(list_names) / sizeof(*list_names))

static const char *name_of(uint8_t bit)
{
    for (size_t i = 0; i < LISTS; i++) {
        if (list_names[i].bit == bit)
            return list_names[i].name;
    }
    return "no list";
}

/* Note that inode @i was met in a list.  False: the list can't be followed. */
static bool meet(struct check *check, uint32_t i, uint8_t bit)
{
    if (i == 0 || i >= check->extent.inodes) {
        findings_add(check->findings, "%s leads to inode %u, out of the table", name_of(bit), i);
        return false;
    }
    if (check->listed[i] & bit) {
        findings_add(check->findings, "inode %u is twice in %s", i, name_of(bit));
        return false;
    }
    check->listed[i] |= bit;
    return true;
}

/* A list that is linked one way, by inode.names. */
static void check_chain(struct check *check, uint32_t first, uint8_t bit)
{
    for (uint32_t i = first; i; i = inode_at(check->fs, i)->names) {
        if (!meet(check, i, bit))
            return;
    }
}

static void check_list(struct check *check, const struct list *list, size_t which, uint8_t bit)
{
    uint32_t previous = 0;

    for (uint32_t i = list->head; i;) {
        if (!meet(check, i, bit))
            return;
        const struct link *link = (const struct link *)((const char *)inode_at(check->fs, i) + which);
        if (link->prev != previous)
            findings_add(check->findings, "%s does not agree both ways at inode %u: %u is before it, not %u",
                         name_of(bit), i, previous, link->prev);
        previous = i;
        i = link->next;
    }
    if (list->tail != previous)
        findings_add(check->findings, "%s ends at inode %u, not at %u", name_of(bit), previous, list->tail);
}

void check_lists(struct check *check)
{
    const struct header *h = check->fs->header;

    check_chain(check, h->tables.inodes.free, IN_FREE);
    check_chain(check, h->tree.orphans, IN_ORPHANS);
    check_list(check, &h->tickets.dirty, LIST_LINK, IN_DIRTY);
    check_list(check, &h->residency.clean, LIST_LINK, IN_CLEAN);
    check_list(check, &h->residency.cold, LIST_LINK, IN_COLD);
    check_list(check, &h->residency.pageins, PAGEIN_LINK, IN_PAGEINS);
}

/* In which lists it has to be. */
static uint8_t lists_of(const struct inode *inode)
{
    unsigned flags = inode->flags;
    bool used = flags & INODE_USED;
    bool clean = used && S_ISREG(inode->mode) && !(flags & (INODE_DIRTY | INODE_ORPHAN | INODE_WANTED)) &&
                 inode->links > 0 && inode->parts > 0;
    unsigned lists = used ? 0 : IN_FREE;

    lists |= flags & INODE_ORPHAN ? IN_ORPHANS : 0;
    lists |= flags & INODE_DIRTY ? IN_DIRTY : 0;
    if (clean)
        lists |= flags & INODE_COLD ? IN_COLD : IN_CLEAN;
    lists |= used && (flags & INODE_WANTED) ? IN_PAGEINS : 0;
    return (uint8_t)lists;
}

void check_lists_of(struct check *check, uint32_t i)
{
    const struct inode *inode = inode_at(check->fs, i);
    uint8_t is_in = check->listed[i], belongs_in = lists_of(inode);

    for (size_t l = 0; l < LISTS; l++) {
        uint8_t bit = list_names[l].bit;
        if ((is_in ^ belongs_in) & bit)
            findings_add(check->findings, "inode %u has flags %x, and is %sin %s", i, inode->flags,
                         is_in & bit ? "" : "not ", list_names[l].name);
    }
    if (!!(inode->flags & INODE_CLEAN) != !!(belongs_in & (IN_CLEAN | IN_COLD)))
        findings_add(check->findings, "inode %u has flags %x: clean, or not?", i, inode->flags);
}
