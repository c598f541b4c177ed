/* SPDX-License-Identifier: MIT
 *
 * Critical sections: every change of the segment happens in one, wholly or not at all.
 */
#ifndef FASTSPOOL_SECTION_H
#define FASTSPOOL_SECTION_H

#include "store/layout.h"
#include "store/store.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/** A change of the store: runs under the lock, changes the segment only with SET() and section_copy(), and may
 *  read whatever it likes.  Negative: everything that it changed is taken back.  -EAGAIN after section_want():
 *  the table is grown, and the body runs again from its start.  It must be short (at most some 64 kB copied) and
 *  must not call the system. */
typedef int section_body(struct fastspool *fs, void *argument);

/** Run @body, once, as one section.  *@table: the table that it wants (then -EAGAIN, and nothing has changed), else
 *  TABLE_NONE.  Else as section_run(). */
int section_try(struct fastspool *fs, section_body *body, void *argument, int *table);

/** Run @body, which wants no table, as one section: wholly or not at all, whatever process is killed.  Returns what it
 *  returned; -EIO also when the segment is damaged or failed. */
int section_run(struct fastspool *fs, section_body *body, void *argument);

/** The store whose section this thread runs, NULL: it runs none. */
extern __thread const struct fastspool *section_inside __attribute__((tls_model("initial-exec")));

/** Record what the words around [address, address + size) hold now, for the case that the section fails.  False:
 *  the log is full (a damaged segment): the words must not be changed, and the section will fail with -EIO. */
bool section_log(struct fastspool *fs, const void *address, size_t size);

/** The same for one field, which never crosses a word: some twenty of them are an operation. */
static inline bool section_log_field(struct fastspool *fs, const void *address)
{
    const struct header *header = fs->header;
    uint64_t offset = (uint64_t)((const char *)address - fs->base) & ~UINT64_C(7);
    uint32_t count = header->section.undo_count;

    if (section_inside != fs || count >= UNDO_MAX)
        return section_log(fs, address, 1);
    WRITABLE(header->undo[count]) = (struct undo){offset, *(const uint64_t *)(fs->base + offset)};
    STORE(header->section.undo_count, count + 1);
    /* The field may change only now: neither compiler nor processor may let it change before the count. */
    __atomic_thread_fence(__ATOMIC_RELEASE);
    return true;
}

/** Change a field of the segment inside a section. */
#define SET(fs, field, value)                                              \
    do {                                                                   \
        if (section_log_field((fs), &(field)))                             \
            __atomic_store_n(&WRITABLE(field), (value), __ATOMIC_RELEASE); \
    } while (0)

/** Change @size bytes of the segment inside a section. */
void section_copy(struct fastspool *fs, const void *to, const void *from, size_t size);

enum table_id { TABLE_INODES, TABLE_NAMES, TABLE_DESCRIPTIONS, TABLE_BUCKETS, TABLE_CHUNKS };
#define TABLE_NONE (-1)

/** Inside a section: this table must grow first.  Returns -EAGAIN, to be returned by the body. */
int section_want(enum table_id table);

/** Tries of a reader without the lock before it takes the lock. */
#define SECTION_READ_TRIES 64u

/** Read without the lock: begin, copy, and repeat from begin where retry says so.  After many repeats begin takes
 *  the lock, so that a reader always gets through.
 *      struct section_read r = SECTION_READ;
 *      do { section_read_begin(fs, &r); ... } while (section_read_retry(fs, &r)); */
struct section_read {
    uint32_t sequence;
    uint32_t tries;
    bool locked;
};
#define SECTION_READ ((struct section_read){0, 0, false})
void section_read_begin(struct fastspool *fs, struct section_read *read);
bool section_read_retry(struct fastspool *fs, struct section_read *read);
/** A number of the segment as no unfinished section left it: one whose owner died will be rolled back. */
uint64_t section_load(struct fastspool *fs, const uint64_t *word);

/** What a process must do around each critical section: the preloaded library holds signals off, and keeps the
 *  lock from a user who could stop it.  Called before the lock is taken and after it is released.  Set once,
 *  before the first attach; default: nothing. */
struct section_guard {
    void (*enter)(void);
    void (*leave)(void);
};
extern struct section_guard section_guard;

/** The segment is damaged: one line to syslog (where @what is found wrong), and -EIO. */
int section_damaged(const struct fastspool *fs, const char *what);

/** Say in header.failure what went wrong, before the state or recovery.error says that something did.  May be called
 *  from a signal handler. */
void section_failure(const struct fastspool *fs, const char *sentence);

/** Make the mutex of a new segment. */
int section_create(struct header *header);

#endif
