/* SPDX-License-Identifier: MIT
 *
 * Record what a process does to a directory, and make the states of the disk that a power cut may leave.
 */
#ifndef FASTSPOOL_RECORD_H
#define FASTSPOOL_RECORD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum event_kind {
    EVENT_WRITE,    /* bytes were written to a file */
    EVENT_SIZE,     /* a file's size was set */
    EVENT_SYNC,     /* fdatasync or fsync of a file or directory has returned 0 */
    EVENT_SYNC_ONE, /* the write before it was O_DSYNC, and has returned */
    EVENT_LOST,     /* fdatasync has returned EIO: a part of what was not synced is on the disk, the rest never will be,
                       even if a later fdatasync returns 0 */
    EVENT_LINK,     /* a name in a directory leads to an object */
    EVENT_UNLINK,   /* a name is gone */
};

struct event {
    enum event_kind kind;
    uint32_t object; /* the file or directory */
    uint32_t target; /* EVENT_LINK: what the name leads to */
    char name[32];
    uint64_t offset; /* EVENT_WRITE; EVENT_SIZE: the size */
    size_t size;
    char *bytes;
    uint64_t time; /* CLOCK_MONOTONIC ns */
};

enum record_fault {
    FAULT_NONE,
    FAULT_NO_SYNC, /* fdatasync of a journal file does nothing */
    FAULT_SWAPPED, /* each write to the journal reaches the disk after the sync that should follow it */
};

/** Begin to record what this process does below directory @root, with @fault. */
void record_begin(const char *root, enum record_fault fault);
void record_end(void);
/** After @skip more fdatasyncs of journal files one fails with EIO, and loses a part of what it should sync. */
void record_fail_sync(unsigned skip);

extern struct event *record_events;
/** How many events there are, shared with forked children.  A promise of an fsync rests on the events so far. */
extern uint64_t *record_count;

/** In a child of the recording process: record below @root, anew.  What is there already counts as synced. */
void record_nested(const char *root);
/** End that.  How many events, in *@events; record_events are the parent's again. */
uint64_t record_nested_end(struct event **events);

/** A disk.  Events are played to it in their order. */
struct disk;
struct disk *disk_new(void);
/** Load all that is below @root, as synced.  For record_nested(). */
void disk_load(struct disk *disk, const char *root);
void disk_free(struct disk *disk);
void disk_play(struct disk *disk, const struct event *event);
/** Empty @root, and write there what a power cut now may leave: all that was synced; of other writes any subset of the
 *  4 KiB blocks, some torn at 512 bytes; of each directory's other changes a beginning. */
void disk_cut(struct disk *disk, const char *root, unsigned *seed);

#endif
