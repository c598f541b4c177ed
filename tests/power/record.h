/* SPDX-License-Identifier: MIT
 *
 * Recording what a process does to a directory on the disk, and making up the states that a disk may be left in.
 */
#ifndef FASTSPOOL_RECORD_H
#define FASTSPOOL_RECORD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum event_kind {
    EVENT_WRITE,    /* bytes to a file */
    EVENT_SIZE,     /* its size was set */
    EVENT_SYNC,     /* fdatasync or fsync of a file or directory has returned 0 */
    EVENT_SYNC_ONE, /* the write before was O_DSYNC and has returned */
    EVENT_LOST,   /* fdatasync has returned EIO: some of what was not synced is there, the rest never, whatever it says
                     later */
    EVENT_LINK,   /* a name in a directory leads to an object */
    EVENT_UNLINK, /* a name is gone */
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
    FAULT_NO_SYNC, /* fdatasync of journal files isn't done */
    FAULT_SWAPPED, /* each write to the journal goes out after the sync that was to follow it */
};

/** Begin to record what this process does below directory @root. */
void record_begin(const char *root, enum record_fault fault);
void record_end(void);
/** The next fdatasync of a journal file but @skip fails with EIO, and loses what it was for. */
void record_fail_sync(unsigned skip);

extern struct event *record_events;
/** How many there are; shared with forked children: what an fsync promised as it returned was done by this many. */
extern uint64_t *record_count;

/** In a child of the recording process: record below @root, what there is there is synced, into *@events. */
void record_nested(const char *root);
/** How many events that were; record_events are the parent's again. */
uint64_t record_nested_end(struct event **events);

/** A disk that the events are played to, in their order. */
struct disk;
struct disk *disk_new(void);
/** What lies below @root, all of it synced.  For record_nested(). */
void disk_load(struct disk *disk, const char *root);
void disk_free(struct disk *disk);
void disk_play(struct disk *disk, const struct event *event);
/** Write what a power cut now may leave below @root, which is emptied first: all that was synced; of the rest any
 *  subset of its 4 KiB blocks, some torn at 512 bytes, and of each directory's changes a beginning. */
void disk_cut(struct disk *disk, const char *root, unsigned *seed);

#endif
