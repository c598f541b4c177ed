/* SPDX-License-Identifier: MIT
 *
 * The invariants of the segment, checked from scratch: nothing is believed that can be counted again.
 *
 * The happy path: a snapshot is taken; each list and each table is walked, what refers to what is counted in tables of
 * the check's own, and that is compared with what the segment says:
 *   - every entry of a table is either in use or in its free list, exactly once;
 *   - a name is in exactly one hash chain, the right one, in its directory's list and in its inode's list; the lists
 *     agree both ways; every directory leads up to the root (check_names.c);
 *   - links, opens, files, blocks, dirty bytes and memory are what counting gives;
 *   - a block is free, in quarantine or reached from exactly one place; the lists of chunks hold those they should
 *     (check_blocks.c);
 *   - an inode is dirty exactly if it is in the dirty list, wanted if it is in the list of page-ins, and in the clean
 *     list or the cold one if it has data in memory and all of it is on the disk, and is not on its way back
 *     (check_lists.c);
 *   - no ticket, birth or capture has a number that was not yet given.
 *
 * Failure modes: each thing found wrong is a sentence that says what and where, and the check goes on.  A list that
 * leads nowhere is left there, so what lies behind shows up as missing.  Whatever stands in the segment, the check
 * ends.
 */
#include "store/check.h"

#include "base/findings.h"
#include "store/check_inside.h"
#include "store/layout.h"
#include "store/section.h"
#include "store/snapshot.h"
#include "store/store.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

bool check_inode_used(const struct check *check, uint32_t i)
{
    return i != 0 && i < check->extent.inodes && (inode_at(check->fs, i)->flags & INODE_USED);
}

void check_count(struct check *check, const char *what, uint64_t counted, uint64_t said)
{
    if (counted != said)
        findings_add(check->findings, "there are %llu %s, the store counts %llu", (unsigned long long)counted, what,
                     (unsigned long long)said);
}

/* ---- the header ---- */

static void check_table(struct check *check, const struct table *table, const char *name)
{
    if (table->used == 0 || table->used > (table->capacity ? table->capacity : 1))
        findings_add(check->findings, "the table of %s uses %u entries, and has memory for %u", name, table->used,
                     table->capacity);
}

static void check_header(struct check *check)
{
    const struct header *h = check->fs->header;
    const struct tickets_state *t = &h->tickets;
    char sentence[SECTION_SENTENCE];

    if (h->state == SEGMENT_FAILED)
        findings_add(check->findings, "the store has failed: %s", section_sentence(h, sentence));
    else if (h->state != SEGMENT_READY && h->state != SEGMENT_RECOVERING)
        findings_add(check->findings, "the store is in state %u, which there is not", h->state);
    if (h->section.sequence & 1)
        findings_add(check->findings,
                     "a section has begun and not ended, and its lock does not tell which thread runs it");
    if (h->section.undo_count != 0)
        findings_add(check->findings, "%u undo entries are left", h->section.undo_count);
    if (h->section.rollbacks & 1)
        findings_add(check->findings, "a rollback has begun and not ended: readers of data wait for its end");
    check_table(check, &h->tables.inodes, "inodes");
    check_table(check, &h->tables.names, "names");
    check_table(check, &h->tables.descriptions, "descriptions");
    if (h->tables.buckets > h->tables.buckets_capacity && h->tables.names.count > 0)
        findings_add(check->findings, "%u buckets are in use, and there is memory for %u", h->tables.buckets,
                     h->tables.buckets_capacity);
    if (!check_inode_used(check, h->tree.root) || !S_ISDIR(inode_at(check->fs, h->tree.root)->mode))
        findings_add(check->findings, "there is no root: inode %u is none", h->tree.root);
    if (t->durable > t->change || t->captured > t->change || h->residency.checkpointed > t->durable)
        findings_add(check->findings,
                     "of %llu changes %llu were captured, %llu are durable, and %llu in the database: more than before",
                     (unsigned long long)t->change, (unsigned long long)t->captured, (unsigned long long)t->durable,
                     (unsigned long long)h->residency.checkpointed);
}

/* ---- descriptions ---- */

static uint32_t check_used_descriptions(struct check *check)
{
    uint32_t count = 0;

    for (uint32_t d = 1; d < check->extent.descriptions; d++) {
        const struct description *description = description_at(check->fs, d);
        count += description->state != DESCRIPTION_FREE;
        if (description->state > DESCRIPTION_OPEN)
            findings_add(check->findings, "description %u has the state %u, which there is not", d, description->state);
        if (description->state != DESCRIPTION_OPEN)
            continue;
        if (!check_inode_used(check, description->inode) ||
            inode_at(check->fs, description->inode)->generation != description->generation)
            findings_add(check->findings, "description %u leads to inode %u, generation %u, which is not in use", d,
                         description->inode, description->generation);
        else
            check->opens[description->inode]++;
        check->notes += description->locker != 0;
        if (description->locker != 0 && check_inode_used(check, description->inode) &&
            !(inode_at(check->fs, description->inode)->flags & INODE_NOTED))
            findings_add(check->findings, "description %u has a noted lock, and its inode %u does not say so", d,
                         description->inode);
    }
    return count;
}

static void check_descriptions(struct check *check)
{
    const struct table *table = &check->fs->header->tables.descriptions;
    uint32_t count = check_used_descriptions(check), free = 0;

    for (uint32_t d = table->free; d; d = description_at(check->fs, d)->next_free) {
        if (d >= check->extent.descriptions || description_at(check->fs, d)->state != DESCRIPTION_FREE ||
            ++free > check->extent.descriptions) {
            findings_add(check->findings, "the list of free descriptions leads to %u, which is not one of them", d);
            return;
        }
    }
    if (count != table->count || count + free != check->extent.descriptions - 1)
        findings_add(check->findings, "%u descriptions are in use and %u free, the table counts %u of %u", count, free,
                     table->count, check->extent.descriptions - 1);
}

/* ---- inodes ---- */

/* What the store counts of its inodes, counted again. */
struct tally {
    uint64_t inodes, files, dirty, dirty_bytes, evicted, spilled, clean, cold, noted;
};

static void count_inode(struct tally *tally, const struct inode *inode)
{
    unsigned flags = inode->flags;
    bool used = flags & INODE_USED;

    tally->dirty += !!(flags & INODE_DIRTY);
    if (!used)
        return;
    tally->inodes++;
    tally->files += !S_ISDIR(inode->mode);
    tally->dirty_bytes +=
        inode->dirty_to > inode->dirty_from ? (uint64_t)(inode->dirty_to - inode->dirty_from) * BLOCK_SIZE : 0;
    tally->noted += !!(flags & INODE_NOTED);
    tally->evicted += !!(flags & INODE_EVICTED);
    tally->spilled += !!(flags & INODE_SPILLED);
    tally->clean += !!(flags & INODE_CLEAN);
    tally->cold += (flags & (INODE_CLEAN | INODE_COLD)) == (INODE_CLEAN | INODE_COLD);
}

static void compare_tally(struct check *check, const struct tally *tally)
{
    const struct header *h = check->fs->header;

    check_count(check, "inodes", tally->inodes, h->tables.inodes.count);
    check_count(check, "files", tally->files, h->tree.files);
    check_count(check, "dirty inodes", tally->dirty, h->tickets.dirty_files);
    check_count(check, "bytes of dirty data", tally->dirty_bytes, h->tickets.dirty_bytes);
    check_count(check, "inodes with a noted lock", tally->noted, check->notes);
    check_count(check, "evicted files", tally->evicted, h->residency.evicted);
    check_count(check, "spilled files", tally->spilled, h->residency.spilled);
    check_count(check, "clean files", tally->clean, h->residency.clean_files);
    check_count(check, "cold files", tally->cold, h->residency.cold_files);
}

static void check_residency(struct check *check, uint32_t i)
{
    const struct inode *inode = inode_at(check->fs, i);
    unsigned flags = inode->flags;

    if ((flags & INODE_WANTED) && !(flags & INODE_EVICTED))
        findings_add(check->findings, "inode %u is wanted, and not evicted", i);
    if ((flags & (INODE_AHEAD | INODE_EVICTED | INODE_WANTED)) == (INODE_AHEAD | INODE_EVICTED))
        findings_add(check->findings, "inode %u is prefetched, and is not wanted", i);
    if ((flags & INODE_SPILLED) && ((flags & INODE_EVICTED) || inode->parts > 0))
        findings_add(check->findings, "inode %u is spilled, has flags %x and %u parts of blocks", i, flags,
                     inode->parts);
    if ((flags & (INODE_EVICTED | INODE_SPILLED)) && (inode->size == 0 || inode->dirty_from != inode->dirty_to))
        findings_add(check->findings, "inode %u is evicted, of %llu bytes, and blocks [%u, %u) of it are dirty", i,
                     (unsigned long long)inode->size, inode->dirty_from, inode->dirty_to);
}

static void check_inode(struct check *check, uint32_t i)
{
    const struct header *h = check->fs->header;
    const struct inode *inode = inode_at(check->fs, i);

    check_lists_of(check, i);
    if (inode->dirty_to < inode->dirty_from)
        findings_add(check->findings, "inode %u has less than no dirty data: [%u, %u)", i, inode->dirty_from,
                     inode->dirty_to);
    if (!(inode->flags & INODE_USED))
        return;
    if (!S_ISREG(inode->mode) && !S_ISDIR(inode->mode))
        findings_add(check->findings, "inode %u has mode %o: neither file nor directory", i, inode->mode);
    if (inode->opens != check->opens[i])
        findings_add(check->findings, "inode %u counts %u descriptions, and has %u", i, inode->opens, check->opens[i]);
    if (inode->ticket > h->tickets.change || inode->changed_in > h->tickets.capture)
        findings_add(check->findings,
                     "inode %u has ticket %llu and capture %u, and the last ones given are %llu and %u", i,
                     (unsigned long long)inode->ticket, inode->changed_in, (unsigned long long)h->tickets.change,
                     h->tickets.capture);
    check_names_of(check, i);
    check_residency(check, i);
    if (!S_ISDIR(inode->mode))
        check_blocks_of(check, i);
}

static void check_inodes(struct check *check)
{
    struct tally tally = {0};

    for (uint32_t i = 1; i < check->extent.inodes; i++) {
        count_inode(&tally, inode_at(check->fs, i));
        check_inode(check, i);
    }
    compare_tally(check, &tally);
}

/* ---- all of it ---- */

static void check_all(struct check *check)
{
    check_header(check);
    check_descriptions(check);
    check_lists(check);
    check_names(check);
    check_inodes(check);
    check_names_met(check);
    check_chunks(check);
}

int check_snapshot(const struct fastspool *snapshot, struct findings *findings)
{
    struct snapshot_extent extent = snapshot_extent(snapshot->header);
    struct check check = {
        .fs = snapshot,
        .findings = findings,
        .extent = extent,
        .opens = calloc(extent.inodes, sizeof(uint32_t)),
        .subdirectories = calloc(extent.inodes, sizeof(uint32_t)),
        .listed = calloc(extent.inodes, 1),
        .named = calloc(extent.names, 1),
        .reached = calloc((size_t)extent.chunks * CHUNK_BLOCKS + 1, 1),
    };
    uint32_t before = findings->count;
    bool room = check.opens && check.subdirectories && check.listed && check.named && check.reached;

    if (room)
        check_all(&check);
    free(check.opens);
    free(check.subdirectories);
    free(check.listed);
    free(check.named);
    free(check.reached);
    return room ? (int)(findings->count - before) : -ENOMEM;
}

int check_segment(struct fastspool *fs, struct findings *findings)
{
    struct fastspool *snapshot;
    uint32_t before = findings->count;
    int result = snapshot_take(fs, &snapshot);

    if (result < 0)
        return result;
    result = check_snapshot(snapshot, findings);
    snapshot_free(snapshot);
    return result < 0 ? result : (int)(findings->count - before);
}
