/* SPDX-License-Identifier: MIT
 *
 * Captures: all that is dirty, at one instant, and what becomes of it when it is on the disk.
 *
 * The happy path: a capture is taken in one section, so names and metadata are one instant of the whole spool.  The
 * data blocks that it names are pinned by the quarantine (header.tickets.committing), and are copied afterwards, beside
 * everybody's work.  When the capture is on the disk, capture_end() takes from the dirty list what has not changed
 * since, moves header.tickets.durable up to the capture's ticket, and wakes the waiters (lib/store/tickets.c).
 * header.tickets.capture counts captures, so "changed since" is one comparison an inode.
 *
 * Failure modes:
 *  - The segment is damaged: what makes no sense does not get to the disk.  The capture fails, and nothing is captured.
 *    An inode is copied, and the copy is checked: whoever can write the segment changes it at any time.
 *  - The commit fails: everything stays dirty, and its errno is in header.tickets.commit_error until a commit succeeds.
 *  - It fails, and there is another way to the disk: capture_put_back() leaves the waiters asleep for that one.
 *  - The mirror dies: it leaves `committing` set and everything dirty.  The next mirror calls capture_reset() and
 *    captures anew.  The dead one may have written any of it: so each dirty inode counts as persisted from then on, and
 *    its end will be written too.
 */
#include "mirror/capture.h"

#include "base/futex.h"
#include "store/blocks.h"
#include "store/change.h"
#include "store/data.h"
#include "store/doubt.h"
#include "store/durations.h"
#include "store/history.h"
#include "store/inodes.h"
#include "store/layout.h"
#include "store/names.h"
#include "store/section.h"
#include "store/store.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define END_STEP      128   /* inodes that one section takes from the dirty list */
#define EXPECTED_MOST 4096u /* files that room is made for before anything is counted */

/* ---- the capture ---- */

/* Where a capture is copied to under the lock: memory taken before, since a section cannot call the system. */
struct arena {
    struct capture *capture;
    struct captured_name *names;
    uint32_t *pieces;
    size_t files_max, names_max, pieces_max; /* what there is room for */
    size_t files, names_used, pieces_used;   /* what is needed */
    const char *last;                        /* nothing is to change after this capture: why; NULL: all goes on */
};

static int capture_names(struct fastspool *fs, struct captured *file, struct arena *arena)
{
    uint32_t entry = file->state.names;

    file->name = &arena->names[arena->names_used];
    for (uint32_t left = file->state.links; entry && left > 0; left--) {
        if (!names_valid(fs, entry) || arena->names_used >= names_most(fs))
            return doubt("an inode's list of names has no end, or leads nowhere");
        if (arena->names_used < arena->names_max) {
            struct captured_name *name = &arena->names[arena->names_used];
            char text[256];
            int length = names_read(fs, entry, text);
            if (length < 0)
                return length;
            name->parent = name_at(fs, entry)->parent;
            name->length = (uint8_t)length;
            memcpy(name->text, text, (size_t)length);
            file->names++;
        }
        arena->names_used++;
        entry = name_at(fs, entry)->sibling;
    }
    return 0;
}

static void capture_blocks(struct fastspool *fs, struct captured *file, struct arena *arena)
{
    const struct inode *state = &file->state;
    uint32_t end = data_blocks(state->size);

    file->first = state->dirty_from ? state->dirty_from - 1 : 0;
    if (file->first > end)
        file->first = end;
    file->count = (state->dirty_to < end ? state->dirty_to + 1 : end) - file->first;
    if (arena->pieces_used + file->count <= arena->pieces_max) {
        file->pieces = &arena->pieces[arena->pieces_used];
        for (uint32_t i = 0; i < file->count; i++)
            file->pieces[i] = data_piece(fs, state, file->first + i);
    }
    arena->pieces_used += file->count;
}

/* The copy of a dirty inode. */
static int capture_copy(struct fastspool *fs, struct captured *file, struct arena *arena)
{
    struct inode *state = &file->state;
    int result = inodes_check(state);

    if (result == 0 && (state->dirty_from > state->dirty_to || state->dirty_to > FILE_BLOCKS_MAX))
        result = doubt("more of a file is dirty than a file can have");
    if (result == 0)
        result = capture_names(fs, file, arena);
    if (result == 0 && S_ISREG(state->mode) && state->dirty_to > state->dirty_from)
        capture_blocks(fs, file, arena);
    return result;
}

/* One dirty inode.  What has neither names nor a future is captured as its own deletion. */
static int capture_inode(struct fastspool *fs, uint32_t i, struct arena *arena)
{
    if (arena->files++ >= arena->files_max)
        return 0;
    struct captured *file = &arena->capture->file[arena->files - 1];
    struct inode *state = &file->state;
    *file = (struct captured){.inode = i, .state = *inode_at(fs, i)};
    __atomic_signal_fence(__ATOMIC_ACQUIRE); /* the copy is checked, not what may stand there by now */
    if ((state->flags & INODE_USED) && state->links > 0 && !(S_ISDIR(state->mode) && state->links < 2))
        return capture_copy(fs, file, arena);
    state->links = 0;
    state->dirty_from = state->dirty_to = 0;
    return 0;
}

/* May inode @i follow @before others in the dirty list?  (It may be free, and its end not on the disk yet.) */
static bool is_next_dirty(const struct fastspool *fs, uint32_t i, size_t before)
{
    uint32_t used = LOAD(fs->header->tables.inodes.used), mapped = LOAD(fs->span.inodes);
    uint32_t most = used < mapped ? used : mapped;

    return i < most && before < most && (inode_at(fs, i)->flags & INODE_DIRTY);
}

/* All that is dirty.  Where the arena is too small this only counts, and nothing is captured. */
static int capture_body(struct fastspool *fs, void *argument)
{
    struct arena *arena = argument;
    const struct header *h = fs->header;

    arena->files = arena->names_used = arena->pieces_used = 0;
    for (uint32_t i = h->tickets.dirty.head; i; i = inode_at(fs, i)->list.next) {
        if (!is_next_dirty(fs, i, arena->files))
            return doubt("the list of dirty inodes has no end, or leads nowhere");
        int result = capture_inode(fs, i, arena);
        if (result < 0)
            return result;
    }
    if (arena->files > arena->files_max || arena->names_used > arena->names_max ||
        arena->pieces_used > arena->pieces_max)
        return -E2BIG;
    arena->capture->count = arena->files;
    arena->capture->ticket = h->tickets.change;
    if (arena->last) {
        section_failure(fs, arena->last);
        STORE(h->state, SEGMENT_FAILED);
    }
    if (arena->files == 0) {
        SET(fs, h->tickets.durable, h->tickets.change);
        return 0;
    }
    SET(fs, h->tickets.capture, h->tickets.capture + 1);
    SET(fs, h->tickets.captured, h->tickets.change);
    SET(fs, h->tickets.committing, 1);
    SET(fs, h->tickets.oldest_captured, h->tickets.oldest_dirty);
    SET(fs, h->tickets.oldest_dirty, 0);
    return 0;
}

static void capture_free(struct capture *capture)
{
    free(capture->file);
    free(capture->names);
    free(capture->pieces);
    *capture = (struct capture){0};
}

static uint64_t expected(const uint64_t *word)
{
    uint64_t value = LOAD(*word);
    return value < EXPECTED_MOST ? value : EXPECTED_MOST;
}

/* What the first look will count, most likely: it need not be repeated.  (The counters may be nonsense.) */
static void expect(const struct header *h, struct arena *arena)
{
    uint64_t blocks = LOAD(h->tickets.dirty_bytes) / BLOCK_SIZE;

    arena->files = arena->names_used = expected(&h->tickets.dirty_files);
    arena->pieces_used = expected(&blocks) + 2 * arena->files;
}

/* Room for what is expected, or was counted, and some more. */
static int arena_grow(struct arena *arena)
{
    struct capture *capture = arena->capture;

    capture_free(capture);
    arena->files_max = arena->files + arena->files / 4 + 64;
    arena->names_max = arena->names_used + arena->names_used / 4 + 64;
    arena->pieces_max = arena->pieces_used + arena->pieces_used / 4 + 64;
    capture->file = reallocarray(NULL, arena->files_max, sizeof(*capture->file));
    capture->names = reallocarray(NULL, arena->names_max, sizeof(*capture->names));
    capture->pieces = reallocarray(NULL, arena->pieces_max, sizeof(*capture->pieces));
    arena->names = capture->names;
    arena->pieces = capture->pieces;
    return capture->file && capture->names && capture->pieces ? 0 : -ENOMEM;
}

static int take(struct fastspool *fs, struct capture *capture, const char *last)
{
    struct arena arena = {.capture = capture, .last = last};
    int result;

    *capture = (struct capture){0};
    expect(fs->header, &arena);
    do {
        result = arena_grow(&arena);
        if (result == 0)
            result = change_run(fs, capture_body, &arena);
    } while (result == -E2BIG);
    if (result == 0 && capture->count == 0)
        futex_count(&ATOMIC(fs->header->tickets.commit_event)); /* what was waited for has come to nothing */
    if (result < 0 || capture->count == 0)
        capture_free(capture);
    return result;
}

int capture_take(struct fastspool *fs, struct capture *capture)
{
    return take(fs, capture, NULL);
}

int capture_take_last(struct fastspool *fs, struct capture *capture, const char *why)
{
    return take(fs, capture, why);
}

/* ---- its end ---- */

struct ending {
    const struct capture *capture;
    size_t next; /* first captured inode not yet dealt with */
};

/* A captured inode is on the disk. */
static void end_inode(struct fastspool *fs, const struct captured *file)
{
    const struct inode *inode = inode_at(fs, file->inode);
    bool persisted = file->state.links > 0;

    if (persisted != !!(inode->flags & INODE_PERSISTED))
        SET(fs, inode->flags, (uint16_t)(inode->flags ^ INODE_PERSISTED));
    if (inode->changed_in != fs->header->tickets.capture) {
        inodes_clean(fs, file->inode);
        return;
    }
    /* Changed since: what is left of its data is what was changed since. */
    uint32_t from = inode->data_in == fs->header->tickets.capture ? inode->since_from : inode->dirty_to;
    if (from > inode->dirty_from && inode->dirty_to > inode->dirty_from) {
        if (from > inode->dirty_to)
            from = inode->dirty_to;
        SET(fs, fs->header->tickets.dirty_bytes,
            fs->header->tickets.dirty_bytes - (uint64_t)(from - inode->dirty_from) * BLOCK_SIZE);
        SET(fs, inode->dirty_from, from);
    }
}

static int end_step(struct fastspool *fs, void *argument)
{
    struct ending *ending = argument;
    size_t end = ending->capture->count - ending->next > END_STEP ? ending->next + END_STEP : ending->capture->count;

    for (size_t i = ending->next; i < end; i++)
        end_inode(fs, &ending->capture->file[i]);
    ending->next = end;
    return ending->next < ending->capture->count;
}

static int end_copying(struct fastspool *fs, void *argument)
{
    const int *error = argument;
    const struct header *h = fs->header;

    SET(fs, h->tickets.committing, 0);
    if (*error && h->tickets.oldest_captured)
        SET(fs, h->tickets.oldest_dirty, h->tickets.oldest_captured);
    SET(fs, h->tickets.oldest_captured, 0);
    history_note(h, HISTORY_COMMIT, HISTORY_NO_NAME, *error);
    return 0;
}

static int let_go(struct fastspool *fs, int error)
{
    int result = change_run(fs, end_copying, &error);

    return result == 0 ? blocks_release_held(fs) : result;
}

int capture_put_back(struct fastspool *fs, struct capture *capture, int error)
{
    capture_free(capture);
    return let_go(fs, error);
}

int capture_end(struct fastspool *fs, struct capture *capture, int error, uint64_t duration)
{
    const struct header *h = fs->header;
    struct ending ending = {.capture = capture};
    int result = 1;

    /* `next` moves only with a section that took place: a body that runs twice does the same twice. */
    while (error == 0 && result > 0) {
        size_t before = ending.next;
        result = change_run(fs, end_step, &ending);
        if (result < 0)
            ending.next = before;
    }
    if (result < 0)
        error = result;
    result = let_go(fs, error);
    if (error == 0) {
        STORE(h->tickets.durable, capture->ticket);
        STORE(h->tickets.commits, h->tickets.commits + 1);
        STORE(h->tickets.commit_ns, duration);
        durations_count(h, duration);
    }
    STORE(h->tickets.commit_error, error);
    if (error == 0) /* those whose change the next one will have sleep on */
        futex_count_without(&ATOMIC(h->tickets.commit_event), h->tickets.capture + 1);
    else
        futex_count(&ATOMIC(h->tickets.commit_event));
    capture_free(capture);
    return result;
}

void capture_fail(struct fastspool *fs, int error)
{
    STORE(fs->header->tickets.commit_error, error);
    futex_count(&ATOMIC(fs->header->tickets.commit_event));
}

/* ---- a new mirror ---- */

struct sweep {
    uint32_t next;
    uint32_t marked;
};

/* What a dead mirror captured may be on the disk: until it is written again, or deleted there, it counts as there. */
static int mark_persisted(struct fastspool *fs, void *argument)
{
    struct sweep *sweep = argument;
    uint32_t i = sweep->next;

    for (uint32_t step = 0; step < END_STEP && i; step++) {
        const struct inode *inode = inode_at(fs, i);
        if (!is_next_dirty(fs, i, sweep->marked + step))
            return doubt("the list of dirty inodes has no end, or leads nowhere");
        if (!(inode->flags & INODE_PERSISTED))
            SET(fs, inode->flags, (uint16_t)(inode->flags | INODE_PERSISTED));
        i = inode->list.next;
    }
    sweep->next = i;
    sweep->marked += END_STEP;
    return i != 0;
}

int capture_reset(struct fastspool *fs)
{
    struct sweep sweep = {LOAD(fs->header->tickets.dirty.head), 0};
    int result = 1, error = -EIO;

    if (LOAD(fs->header->tickets.committing)) {
        /* While `committing` is set no inode leaves the dirty list, so the sweep can be taken in steps. */
        while (result > 0)
            result = change_run(fs, mark_persisted, &sweep);
        if (result == 0)
            result = change_run(fs, end_copying, &error);
    }
    return result < 0 ? result : blocks_release_held(fs);
}
