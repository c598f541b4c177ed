/* SPDX-License-Identifier: MIT
 *
 * Orphans: freeing files of any size in short sections.
 *
 * The happy path:
 *   - orphans_drop() drops an inode without name and description.  If it has few blocks, it is freed at once.
 *   - If it has many blocks, it becomes an orphan.  The process that dropped it frees DATA_FREE_STEP of its blocks in
 *     each section.
 *   - A large file that is truncated to nothing hands its blocks to an orphan.
 *
 * Failure modes:
 *   - A section fails: it rolls back, and all is as before.
 *   - The process dies: its orphans stay in their list, and the mirror frees them.
 */
#include "store/orphans.h"

#include "base/clock.h"
#include "store/change.h"
#include "store/data.h"
#include "store/inodes.h"
#include "store/layout.h"
#include "store/residency.h"
#include "store/section.h"
#include "store/store.h"

#include <errno.h>
#include <sys/stat.h>

int orphans_drop(struct fastspool *fs, uint32_t i)
{
    const struct inode *inode = inode_at(fs, i);
    bool directory = S_ISDIR(inode->mode);

    if (inode->opens > 0 || inode->links > (directory ? 1 : 0) || (inode->flags & INODE_ORPHAN))
        return 0;
    inodes_clean_data(fs, inode);
    residency_leave(fs, i);
    if (!(inode->flags & INODE_PERSISTED) && !fs->header->tickets.committing)
        inodes_leave_dirty(fs, i);
    else
        inodes_dirty(fs, i);
    if (!directory && !data_small(inode)) {
        SET(fs, inode->flags, (uint16_t)(inode->flags | INODE_ORPHAN));
        SET(fs, inode->names, fs->header->tree.orphans);
        SET(fs, fs->header->tree.orphans, i);
        return 0;
    }
    if (!directory) {
        int result = data_shrink(fs, i, 0, UINT32_MAX);
        if (result < 0)
            return result;
    }
    inodes_give(fs, i);
    return 0;
}

static int free_orphan_step(struct fastspool *fs, void *argument)
{
    uint32_t i = fs->header->tree.orphans;
    (void)argument;

    if (i == 0)
        return 0;
    if (!inode_valid(fs, i) || !(inode_at(fs, i)->flags & INODE_ORPHAN))
        return section_damaged(fs, "the list of orphans leads to none");
    int result = data_shrink(fs, i, 0, DATA_FREE_STEP);
    if (result < 0)
        return result;
    if (result == 0) {
        SET(fs, fs->header->tree.orphans, inode_at(fs, i)->names);
        inodes_give(fs, i);
    }
    return 1;
}

int orphans_free(struct fastspool *fs)
{
    int result = 0;
    while (LOAD(fs->header->tree.orphans) && (result = change_run(fs, free_orphan_step, NULL)) > 0)
        ;
    return result < 0 ? result : 0;
}

static int make_orphan(struct fastspool *fs, const struct inode *inode)
{
    uint32_t orphan;
    int result = inodes_take(fs, S_IFREG, inode->uid, inode->gid, &orphan);

    if (result < 0)
        return result;
    const struct inode *to = inode_at(fs, orphan);
    section_copy(fs, &to->map, &inode->map, sizeof(to->map));
    SET(fs, to->size, inode->size);
    SET(fs, to->parts, inode->parts);
    SET(fs, to->flags, (uint16_t)(to->flags | INODE_ORPHAN));
    SET(fs, to->names, fs->header->tree.orphans);
    SET(fs, fs->header->tree.orphans, orphan);
    return 0;
}

int orphans_discard(struct fastspool *fs, uint32_t i)
{
    const struct inode *inode = inode_at(fs, i);
    uint64_t before = inode->size;
    static const struct inode empty;

    if (data_small(inode)) {
        int result = data_shrink(fs, i, 0, UINT32_MAX);
        if (result < 0)
            return result;
        if (result > 0)
            return section_damaged(fs, "a file has blocks behind its end");
    } else {
        int result = make_orphan(fs, inode);
        if (result < 0)
            return result;
        data_changes(fs, inode);
        section_copy(fs, &inode->map, &empty.map, sizeof(inode->map));
        SET(fs, inode->parts, 0);
        SET(fs, inode->size, 0);
    }
    residency_leave(fs, i);
    SET(fs, inode->mtime, clock_realtime());
    SET(fs, inode->ctime, inode->mtime);
    inodes_dirty_data(fs, i, 0, data_blocks(before));
    return 0;
}
