/* SPDX-License-Identifier: MIT
 *
 * The dump of a segment: the header by its groups, the history, then inodes with their names, descriptions and chunks.
 *
 * Failure modes: the segment may be damaged.  Every index is bounded before it is followed, and every list is cut at
 * the number of entries that there can be.  Data is read after the snapshot was taken: what has changed since shows as
 * the new bytes, under the old attributes.
 */
#include "base/clock.h"
#include "base/escape.h"
#include "mirror/dump.h"
#include "store/data.h"
#include "store/history.h"
#include "store/layout.h"
#include "store/names.h"
#include "store/section.h"
#include "store/snapshot.h"
#include "store/store.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- the header ---- */

static void dump_table(const char *name, const struct table *table, FILE *out)
{
    fprintf(out, "  %-13s %u in use, %u of %u handed out, the first free one is %u\n", name, table->count, table->used,
            table->capacity, table->free);
}

static void dump_list(const char *name, const struct list *list, FILE *out)
{
    fprintf(out, "  %-13s from inode %u to %u\n", name, list->head, list->tail);
}

static void dump_header(const struct header *h, FILE *out)
{
    static const char *const states[] = {"no state", "RECOVERING", "READY", "FAILED"};
    char failure[SECTION_SENTENCE];

    fprintf(out, "segment of layout version %u, %s\n", h->version,
            h->state < 4 ? states[h->state] : "a state that there isn't");
    if (h->failure[0])
        fprintf(out, "  failure       %s\n", section_sentence(h, failure));
    fprintf(out, "  memory        %" PRIu64 " bytes of %" PRIu64 ", %" PRIu64 " blocks are the mirror's reserve\n",
            h->tables.memory_bytes, h->memory_limit, h->reserve);
    fprintf(out, "  section       sequence %u, %u rollbacks, %u undo entries\n", h->section.sequence,
            h->section.rollbacks / 2, h->section.undo_count);
    dump_table("inodes", &h->tables.inodes, out);
    dump_table("names", &h->tables.names, out);
    dump_table("descriptions", &h->tables.descriptions, out);
    fprintf(out, "  buckets       %u of %u\n", h->tables.buckets, h->tables.buckets_capacity);
    fprintf(out, "  blocks        %" PRIu64 " in use and %" PRIu64 " in quarantine of %" PRIu64 ", in %u chunks\n",
            h->blocks.used, h->blocks.held, h->blocks.total, h->blocks.chunks_used);
    fprintf(out, "  tree          root %u, %" PRIu64 " files, orphans from inode %u, last birth %" PRIu64 "\n",
            h->tree.root, h->tree.files, h->tree.orphans, h->tree.born);
    dump_list("clean", &h->residency.clean, out);
    dump_list("cold", &h->residency.cold, out);
    dump_list("page-ins", &h->residency.pageins, out);
    fprintf(out,
            "  residency     %" PRIu64 " clean, %" PRIu64 " of them cold, %" PRIu64 " evicted, %" PRIu64 " spilled\n",
            h->residency.clean_files, h->residency.cold_files, h->residency.evicted, h->residency.spilled);
    dump_list("dirty", &h->tickets.dirty, out);
    fprintf(out,
            "  tickets       change %" PRIu64 ", captured %" PRIu64 ", durable %" PRIu64 ", checkpointed %" PRIu64 "\n",
            h->tickets.change, h->tickets.captured, h->tickets.durable, h->residency.checkpointed);
    fprintf(out, "  not on disk   %" PRIu64 " files, %" PRIu64 " bytes; capture %u%s, the last commit's error %d\n",
            h->tickets.dirty_files, h->tickets.dirty_bytes, h->tickets.capture,
            h->tickets.committing ? ", a commit runs" : "", h->tickets.commit_error);
    fprintf(out, "  mirror        %" PRIu64 " commits, the last checkpoint's error %d\n", h->tickets.commits,
            h->disk.checkpoint_error);
    fprintf(out, "  journal       batch %" PRIu64 " was the last one given, %" PRIu64 " is durable\n", h->journal.batch,
            h->journal.durable);
}

static void dump_result(int result, FILE *out)
{
    const char *name = result < 0 && result > -4096 ? strerrorname_np(-result) : NULL;

    if (name)
        fprintf(out, "%s\n", name);
    else
        fprintf(out, "%d\n", result);
}

void dump_history(const struct header *header, uint32_t most, FILE *out)
{
    struct history_line line, last;

    if (!history_read(header, 0, &last))
        return;
    fprintf(out, "history, the last of %" PRIu64 " sections and commits first\n", header->history_count);
    for (uint32_t back = 0; back < most && history_read(header, back, &line); back++) {
        double ago = line.when < last.when ? (double)(last.when - line.when) / NS_PER_S : 0;
        fprintf(out, "  %9.3f s before  thread %-7u %-8s %-15s ", ago, line.thread, history_kind_name(line.kind),
                line.name);
        dump_result(line.result, out);
    }
}

/* ---- inodes ---- */

static void dump_flags(unsigned flags, FILE *out)
{
    static const char *const names[] = {"used",   "dirty",      "persisted", "orphan",     "clean", "evicted",
                                        "wanted", "referenced", "spilled",   "unreadable", "cold",  "ahead"};
    const char *comma = "";

    for (unsigned bit = 0; bit < 16; bit++) {
        if (!(flags & 1u << bit))
            continue;
        fprintf(out, "%s%s", comma, bit < sizeof(names) / sizeof(*names) ? names[bit] : "?");
        comma = ",";
    }
}

static void dump_names(const struct fastspool *snapshot, const struct inode *inode, FILE *out)
{
    struct snapshot_extent extent = snapshot_extent(snapshot->header);
    uint32_t steps = 0;

    if (inode->flags & INODE_ORPHAN)
        return;
    for (uint32_t n = inode->names; n != 0 && n < extent.names && steps++ < extent.names;
         n = name_at(snapshot, n)->sibling) {
        char name[256], text[ESCAPE_ROOM(sizeof(name))];
        int length = names_text(snapshot, n, name);
        fprintf(out, "    name %u \"%s\" in directory %u, born %" PRIu64 "\n", n,
                escape_bytes(text, sizeof(text), name, (size_t)length), name_at(snapshot, n)->parent,
                name_at(snapshot, n)->born);
    }
}

/* The file's bytes, from the segment as it is now. */
static int dump_data(const struct fastspool *fs, const struct fastspool *snapshot, const struct inode *inode,
                     bool bodies, FILE *out)
{
    struct snapshot_extent extent = snapshot_extent(snapshot->header);
    uint64_t limit = (uint64_t)extent.chunks * CHUNK_SIZE, size = inode->size;
    char *bytes = size <= FILE_SIZE_MAX && (size <= limit || inode->parts == 0) ? calloc(1, size + 1) : NULL;

    if (!bytes) {
        fprintf(out, "    data %" PRIu64 " bytes: more than there is room for\n", size);
        return 0;
    }
    for (uint64_t at = 0; at < size; at += BLOCK_SIZE) {
        uint32_t piece = data_piece(snapshot, inode, (uint32_t)(at / BLOCK_SIZE)), block = piece_block(piece);
        if (piece == 0 || block / CHUNK_BLOCKS >= extent.chunks)
            continue;
        size_t part = size - at < piece_size(piece) ? (size_t)(size - at) : piece_size(piece);
        uint64_t from = DATA_AT + (uint64_t)block * BLOCK_SIZE + piece_first(piece) * PART_SIZE;
        if (pread(fs->segment_fd, bytes + at, part, (off_t)from) < 0)
            fprintf(out, "    block %u can't be read: %s\n", block, strerrordesc_np(errno));
    }
    fputs("    data", out);
    dump_bytes(bytes, size, bodies, out);
    free(bytes);
    return 0;
}

static void dump_inode(const struct fastspool *fs, const struct fastspool *snapshot, uint32_t i, bool bodies, FILE *out)
{
    const struct inode *inode = inode_at(snapshot, i);
    bool directory = S_ISDIR(inode->mode);

    if (!(inode->flags & (INODE_USED | INODE_DIRTY | INODE_PERSISTED)))
        return;
    fprintf(out, "inode %u %s mode %04o owner %u:%u size %" PRIu64 " generation %u ticket %" PRIu64 " ", i,
            directory ? "directory" : "file", inode->mode & 07777, inode->uid, inode->gid, inode->size,
            inode->generation, inode->ticket);
    dump_flags(inode->flags, out);
    fprintf(out, "\n    links %u opens %u memory %u kB dirty blocks [%u, %u) changed in capture %u mtime ",
            inode->links, inode->opens, inode->parts * PART_SIZE / 1024, inode->dirty_from, inode->dirty_to,
            inode->changed_in);
    dump_time(inode->mtime, out);
    if (directory)
        fprintf(out, "\n    %u names, from %u to %u, below directory %u", inode->dir.entries, inode->dir.first,
                inode->dir.last, inode->dir.parent);
    fputc('\n', out);
    if (!(inode->flags & INODE_USED))
        return;
    dump_names(snapshot, inode, out);
    if (!directory && inode->parts > 0)
        dump_data(fs, snapshot, inode, bodies, out);
}

/* ---- descriptions and chunks ---- */

static void dump_descriptions(const struct fastspool *snapshot, FILE *out)
{
    struct snapshot_extent extent = snapshot_extent(snapshot->header);

    for (uint32_t d = 1; d < extent.descriptions; d++) {
        const struct description *description = description_at(snapshot, d);
        if (description->state == DESCRIPTION_FREE)
            continue;
        fprintf(out, "description %u %s inode %u generation %u offset %" PRIu64 " flags %o", d,
                description->state == DESCRIPTION_OPEN     ? "open"
                : description->state == DESCRIPTION_POOLED ? "pooled"
                                                           : "in no state",
                description->inode, description->generation, description->offset, description->flags);
        if (description->locker)
            fprintf(out, ", bytes %" PRIu64 " to %" PRIu64 " locked by process %u", description->lock_from,
                    description->lock_to, description->locker);
        fprintf(out, "\n");
    }
}

static void dump_chunks(const struct fastspool *snapshot, FILE *out)
{
    static const char *const states[] = {"absent", "present", "leaving"};
    struct snapshot_extent extent = snapshot_extent(snapshot->header);

    for (uint32_t c = 0; c < extent.chunks; c++) {
        const struct chunk *chunk = chunk_at(snapshot, c);
        fprintf(out, "chunk %u %s, %u free blocks, %u free parts of others, %u parts in quarantine\n", c,
                chunk->state < 3 ? states[chunk->state] : "in no state", chunk->free_count, chunk->broken_count,
                chunk->held_count);
    }
}

int dump_segment(const struct fastspool *fs, const struct fastspool *snapshot, bool bodies, FILE *out)
{
    struct snapshot_extent extent = snapshot_extent(snapshot->header);

    dump_header(snapshot->header, out);
    dump_history(snapshot->header, UINT32_MAX, out);
    for (uint32_t i = 1; i < extent.inodes; i++)
        dump_inode(fs, snapshot, i, bodies, out);
    dump_descriptions(snapshot, out);
    dump_chunks(snapshot, out);
    return 0;
}
