/* SPDX-License-Identifier: MIT
 *
 * Critical sections: every change of the segment happens in one, completely or not at all.
 */
#ifndef FASTSPOOL_SECTION_H
#define FASTSPOOL_SECTION_H

#include "base/escape.h"
#include "store/history.h"
#include "store/layout.h"
#include "store/store.h"

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/** A table that a body may want (section_want()). */
enum table_id { TABLE_NONE = -1, TABLE_INODES, TABLE_NAMES, TABLE_DESCRIPTIONS, TABLE_BUCKETS, TABLE_CHUNKS };

/** The body of a section, a change of the store.
 *    - It runs under the lock, and may read all of the segment.
 *    - It changes the segment with SET(), SET_TWO() and section_copy(); without them only piece_bytes(), and atomic
 *      fields.
 *    - It is short (it copies at most some 64 kB), and makes no system call but those by which a permission is checked
 *      (access.c), and the one that tells of damage.
 *  Returns 0 or more.  A negative errno rolls all its changes back.  -EAGAIN after section_want(): the caller of
 *  section_try() grows the table, and runs the body again from its start. */
typedef int section_body(struct fastspool *fs, void *argument);

/** Outside sections: run @body once, as one section.  Returns as section_run(), or SECTION_WANTS - @table: the body
 * wants this table, and nothing has changed.  @name: of the body, by HISTORY_NAME_OF(). */
int section_try(struct fastspool *fs, const char *name, section_body *body, void *argument);
#define SECTION_WANTS (-4096) /* less than any negative errno */

/** Outside sections: run @body as one section; it must want no table.  Its changes happen completely or not at all,
 *  also when a process is killed.  Returns what @body returned, or -EIO when the segment is damaged or FAILED. */
#define section_run(fs, body, argument) section_run_named((fs), HISTORY_NAME_OF(body), (body), (argument))
int section_run_named(struct fastspool *fs, const char *name, section_body *body, void *argument);

/** The store in whose section this thread is, NULL: it is in none. */
extern __thread const struct fastspool *section_inside __attribute__((tls_model("initial-exec")));

/** Inside a section: record the words around [address, address + size) in the undo log.  False: the log is full (a
 *  damaged segment); the caller must not change the words, and the section will fail with -EIO. */
bool section_log(struct fastspool *fs, const void *address, size_t size);

/** The same for one field, which never crosses a word.  Inline, because one operation changes some twenty fields. */
static inline bool section_log_field(struct fastspool *fs, const void *address)
{
    const struct header *header = fs->header;
    uint64_t offset = (uint64_t)((const char *)address - fs->base) & ~UINT64_C(7);
    uint32_t count = LOAD(header->section.undo_count); /* once: it may change after the check */

    if (section_inside != fs || count >= UNDO_MAX)
        return section_log(fs, address, 1);
    WRITABLE(header->undo[count]) = (struct undo){offset, *(const uint64_t *)(fs->base + offset)};
    STORE(header->section.undo_count, count + 1);
    /* Neither compiler nor processor may move the change of the field before the count. */
    __atomic_thread_fence(__ATOMIC_RELEASE);
    return true;
}

/** Inside a section: record a field in the undo log, then set it. */
#define SET(fs, field, value)                                              \
    do {                                                                   \
        if (section_log_field((fs), &(field)))                             \
            __atomic_store_n(&WRITABLE(field), (value), __ATOMIC_RELEASE); \
    } while (0)

/** Inside a section: the same for two fields of 32 bits that share a word, @second behind @first (layout.h asserts
 * which do).  By two SET() the word would have two entries, and the second would read what the first is just writing.
 */
#define SET_TWO(fs, first, value, second, other)                                       \
    do {                                                                               \
        const union {                                                                  \
            uint32_t half[2];                                                          \
            uint64_t word;                                                             \
        } both_ = {{(value), (other)}};                                                \
        _Static_assert(sizeof(first) == 4 && sizeof(second) == 4, "halves of a word"); \
        assert(&(second) == &(first) + 1);                                             \
        SET((fs), *(const uint64_t *)(const void *)&(first), both_.word);              \
    } while (0)

/** Inside a section: record @size bytes at @to, in the segment, then copy @from to them. */
void section_copy(struct fastspool *fs, const void *to, const void *from, size_t size);

/** Inside a section: ask for growth of this table.  Returns -EAGAIN; the body must return it. */
int section_want(enum table_id table);

/** Tries of a reader without the lock, before it takes the lock. */
#define SECTION_READ_TRIES 64u

/** Read without the lock: begin, copy, and repeat from begin while retry returns true.  After SECTION_READ_TRIES begin
 *  takes the lock, so every reader ends.  If the segment is FAILED the lock cannot be had: the copy is then unchecked,
 *  and no index in it may be believed.  begin returns 0, or -ENOMEM: tables are larger than this process can map, and
 *  only the header may be read.  Then retry returns false, too.
 *
 *      struct section_read r = SECTION_READ;
 *      do { result = section_read_begin(fs, &r); if (result == 0) ... } while (section_read_retry(fs, &r)); */
struct section_read {
    uint32_t sequence;
    uint32_t tries;
    bool locked;
};
#define SECTION_READ ((struct section_read){0, 0, false})
int section_read_begin(struct fastspool *fs, struct section_read *read);
bool section_read_retry(struct fastspool *fs, struct section_read *read);
/** Outside sections: read a word.  The value is never one of an unfinished section, which may yet be rolled back. */
uint64_t section_load(struct fastspool *fs, const uint64_t *word);

/** Mark the segment FAILED, because it is damaged: @what is wrong.  Writes one line to syslog.  Returns -EIO.  A
 * section in which it is called rolls back, and fails with -EIO, whatever its body returns. */
int section_damaged(const struct fastspool *fs, const char *what);

/** Copy header.failure to @sentence, as printable text: anybody's bytes may stand there.  Returns @sentence. */
#define SECTION_SENTENCE ESCAPE_ROOM(sizeof(((const struct header *)0)->failure))
const char *section_sentence(const struct header *header, char sentence[SECTION_SENTENCE]);

/** Write @sentence to header.failure.  Call it before you set the state to FAILED, or recovery.error.  A signal handler
 *  may call it. */
void section_failure(const struct fastspool *fs, const char *sentence);

#endif
