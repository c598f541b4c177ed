/* SPDX-License-Identifier: MIT
 *
 * The check of names, and of the tree that they make.
 *
 * The happy path: every hash chain, every directory's list and every inode's list is walked, and each name is noted in
 * each of them; it is looked up, so that it lies in the chain where its text says; at the end each name has been met in
 * all three, or in the free list alone, or is the rest of a longer one.
 *
 * Failure modes: a list that leads out of the table, or to a name that it has been to, is left there.
 */
#include "base/filename.h"
#include "base/findings.h"
#include "store/check_inside.h"
#include "store/layout.h"
#include "store/names.h"
#include "store/store.h"

#include <string.h>
#include <sys/stat.h>

#define DEPTH_MAX 10000u /* of the tree; paths are shorter: more is a circle */

enum { IN_CHAIN = 1, IN_DIRECTORY = 2, IN_INODE = 4, IN_FREE = 8, IN_MORE = 16 };

/* Note that name @i was met in list @where; it must not have been before.  False: the list can't be followed. */
static bool meet(struct check *check, uint32_t i, uint8_t where, const char *list)
{
    if (i == 0 || i >= check->extent.names) {
        findings_add(check->findings, "%s leads to name %u, out of the table", list, i);
        return false;
    }
    if (check->named[i] & where) {
        findings_add(check->findings, "name %u is twice in %s", i, list);
        return false;
    }
    check->named[i] |= where;
    uint32_t inode = name_at(check->fs, i)->inode;
    if ((where == IN_FREE) == (inode == 0) && (where == IN_MORE) == (inode == NAME_CONTINUES))
        return true;
    findings_add(check->findings, "name %u (inode %u) does not belong in %s", i, inode, list);
    return false;
}

/* ---- hash chains ---- */

static void check_rest(struct check *check, uint32_t i)
{
    const struct name *name = name_at(check->fs, i);
    uint32_t parts = name->length > NAME_INLINE ? (name->length - NAME_INLINE + NAME_MORE - 1) / NAME_MORE : 0;
    uint32_t more = name->more;

    for (; parts > 0; parts--) {
        if (!meet(check, more, IN_MORE, "the rest of a long name"))
            return;
        more = ((const struct name_more *)name_at(check->fs, more))->more;
    }
    if (more)
        findings_add(check->findings, "name %u of %u bytes goes on too long", i, name->length);
}

/* Could it be the name of a file, and is it found where it is looked up? */
static void check_text(struct check *check, uint32_t i)
{
    const struct name *name = name_at(check->fs, i);
    char text[256];
    size_t length = (size_t)names_text(check->fs, i, text);

    if (length != name->length || !filename_possible(text, length))
        findings_add(check->findings, "name %u of %u bytes is none that a file can have: \"%s\"", i, name->length,
                     text);
    uint64_t hash;
    uint32_t inode;
    int found = names_find(check->fs, name->parent, text, length, &hash, &inode);
    if (found <= 0)
        findings_add(check->findings, "name %u, \"%s\" in directory %u, is not found where it is looked up", i, text,
                     name->parent);
    else if ((uint32_t)found != i)
        findings_add(check->findings, "names %u and %u are both \"%s\" in directory %u", (uint32_t)found, i, text,
                     name->parent);
}

static void check_chains(struct check *check)
{
    for (uint32_t b = 0; b < check->extent.buckets; b++) {
        for (uint32_t i = *bucket_at(check->fs, b) & CHAIN_INDEX; i; i = name_at(check->fs, i)->chain & CHAIN_INDEX) {
            if (!meet(check, i, IN_CHAIN, "a hash chain"))
                break;
            check_rest(check, i);
            check_text(check, i);
        }
    }
    for (uint32_t i = check->fs->header->tables.names.free; i; i = name_at(check->fs, i)->chain) {
        if (!meet(check, i, IN_FREE, "the list of free names"))
            break;
    }
}

/* ---- directories ---- */

/* Name @i, which stands behind @previous in the list of directory @d. */
static void check_entry(struct check *check, uint32_t d, uint32_t i, uint32_t previous)
{
    const struct name *name = name_at(check->fs, i);
    uint64_t born = previous ? name_at(check->fs, previous)->born : 0;

    if (name->parent != d || name->prev != previous || name->born <= born)
        findings_add(check->findings,
                     "name %u doesn't fit the list of directory %u: it says directory %u, behind %u, born %llu", i, d,
                     name->parent, name->prev, (unsigned long long)name->born);
    if (name->born > check->fs->header->tree.born)
        findings_add(check->findings, "name %u has birth number %llu, and the last one given is %llu", i,
                     (unsigned long long)name->born, (unsigned long long)check->fs->header->tree.born);
    if (!check_inode_used(check, name->inode)) {
        findings_add(check->findings, "name %u leads to inode %u, which is not in use", i, name->inode);
        return;
    }
    const struct inode *inode = inode_at(check->fs, name->inode);
    if (!S_ISDIR(inode->mode))
        return;
    check->subdirectories[d]++;
    if (inode->dir.parent != d)
        findings_add(check->findings, "directory %u does not know its parent %u, but %u", name->inode, d,
                     inode->dir.parent);
}

static void check_directory(struct check *check, uint32_t d)
{
    const struct inode *directory = inode_at(check->fs, d);
    uint32_t previous = 0, count = 0;

    for (uint32_t i = directory->dir.first; i; i = name_at(check->fs, i)->next) {
        if (!meet(check, i, IN_DIRECTORY, "a directory's list"))
            return;
        check_entry(check, d, i, previous);
        previous = i;
        count++;
    }
    if (directory->dir.last != previous || directory->dir.entries != count)
        findings_add(check->findings, "directory %u counts %u names up to %u, and lists %u up to %u", d,
                     directory->dir.entries, directory->dir.last, count, previous);
}

/* Does directory @d, if it has a name, lead up to the root? */
static void check_way_up(struct check *check, uint32_t d)
{
    uint32_t above = d;

    for (uint32_t steps = 0; above != check->fs->header->tree.root; steps++) {
        if (!check_inode_used(check, above) || !S_ISDIR(inode_at(check->fs, above)->mode) || steps > DEPTH_MAX) {
            findings_add(check->findings, "directory %u does not lead up to the root, but to inode %u", d, above);
            return;
        }
        if (inode_at(check->fs, above)->names == 0)
            return; /* removed, and still open */
        above = inode_at(check->fs, above)->dir.parent;
    }
}

void check_names(struct check *check)
{
    check_chains(check);
    for (uint32_t i = 1; i < check->extent.inodes; i++) {
        if (!check_inode_used(check, i) || !S_ISDIR(inode_at(check->fs, i)->mode))
            continue;
        check_directory(check, i);
        check_way_up(check, i);
    }
}

/* ---- the names of an inode ---- */

void check_names_of(struct check *check, uint32_t i)
{
    const struct inode *inode = inode_at(check->fs, i);
    bool directory = S_ISDIR(inode->mode), root = i == check->fs->header->tree.root;
    uint32_t names = 0;

    for (uint32_t n = inode->flags & INODE_ORPHAN ? 0 : inode->names; n; n = name_at(check->fs, n)->sibling) {
        if (!meet(check, n, IN_INODE, "an inode's list of names"))
            break;
        if (name_at(check->fs, n)->inode != i)
            findings_add(check->findings, "inode %u lists name %u, which is of inode %u", i, n,
                         name_at(check->fs, n)->inode);
        names++;
    }
    uint32_t links = directory ? 1 + names + check->subdirectories[i] + root : names;
    if (inode->links != links)
        findings_add(check->findings, "inode %u counts %u links, and has %u", i, inode->links, links);
    if (directory && names > !root)
        findings_add(check->findings, "directory %u has %u names", i, names);
    if (names == 0 && inode->opens == 0 && !root && !(inode->flags & INODE_ORPHAN))
        findings_add(check->findings, "inode %u has neither names nor descriptions", i);
}

/* ---- all of them ---- */

/* In words, which of its lists a name is missing in. */
static const char *missing_in(uint8_t in)
{
    if (in == 0)
        return "every list";
    if (in & (IN_FREE | IN_MORE))
        return "its lists but for one in which it should not be";
    return !(in & IN_CHAIN) ? "every hash chain" : !(in & IN_DIRECTORY) ? "its directory's list" : "its inode's list";
}

void check_names_met(struct check *check)
{
    const struct table *table = &check->fs->header->tables.names;
    uint32_t count = 0;

    for (uint32_t i = 1; i < check->extent.names; i++) {
        uint8_t in = check->named[i];
        if (in != IN_FREE && in != IN_MORE && in != (IN_CHAIN | IN_DIRECTORY | IN_INODE))
            findings_add(check->findings, "name %u (inode %u) is missing in %s", i, name_at(check->fs, i)->inode,
                         missing_in(in));
        count += in != IN_FREE;
    }
    if (count != table->count)
        findings_add(check->findings, "%u names are in use, the table counts %u", count, table->count);
}
