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
#include <string.h>

/** A table that a body may want (section_want()). */
enum table_id { TABLE_NONE = -1, TABLE_INODES, TABLE_NAMES, TABLE_DESCRIPTIONS, TABLE_BUCKETS, TABLE_CHUNKS };

/** The body of a section, a change of the store.
 *    - It runs under the lock, and may read all of the segment.
 *    - It changes the segment with SET() and its kin, and with section_copy(); without them only piece_bytes() and
 *      atomic fields.
 *    - It is short (it copies at most some 64 kB), and makes no system call but those by which a permission is checked
 *      (access.c), and the one that tells of damage.
 *  Returns 0 or more.  A negative errno rolls all its changes back.  -EAGAIN after section_want(): the caller of
 *  section_try() grows the table, and runs the body again from its start. */
typedef int section_body(struct fastspool *fs, void *argument);

/** Outside sections: run @body once, as one section.  Returns as section_run(), or SECTION_WANTS less the table that
 *  the body wants; then nothing has changed.  @name: of the body, by HISTORY_NAME_OF(). */
int section_try(struct fastspool *fs, const char *name, section_body *body, void *argument);
#define SECTION_WANTS (-4096) /* less than any negative errno */

/** Outside sections: run @body as one section; it must want no table.  Its changes happen completely or not at all,
 *  also when a process is killed.  Returns what @body returned, or -EIO when the segment is damaged or FAILED. */
#define section_run(fs, body, argument) section_run_named((fs), HISTORY_NAME_OF(body), (body), (argument))
int section_run_named(struct fastspool *fs, const char *name, section_body *body, void *argument);

/** The store in whose section this thread is, NULL: it is in none. */
extern __thread const struct fastspool *section_inside __attribute__((tls_model("initial-exec")));

/** The undo log has no room for what a section changes.  Outside a section: aborts. */
void section_log_full(const struct fastspool *fs);

/** Inside a section: the number of undo entries that it has made, if there is room for @more of them.  Otherwise
 *  SECTION_FULL (a damaged segment): the caller must not change the words, and the section will fail with -EIO.  The
 *  caller loads the count no second time: it may change after the check. */
#define SECTION_FULL UINT32_MAX
static inline uint32_t section_log_begin(const struct fastspool *fs, const struct header *header, uint32_t more)
{
    const uint32_t count = LOAD(header->section.undo_count);

    if (__builtin_expect(section_inside == fs && count <= UNDO_MAX - more, 1))
        return count;
    section_log_full(fs);
    return SECTION_FULL;
}

/** Record the word of the field of @size bytes at @field, which crosses none. */
static inline void section_log_word(const struct header *header, const struct undo *entry, const void *field,
                                    size_t size)
{
    const uintptr_t word = size == sizeof(uint64_t) ? (uintptr_t)field : (uintptr_t)field & ~(uintptr_t)7;

    WRITABLE(*entry) = (struct undo){word - (uintptr_t)header, *(const uint64_t *)word};
}

/** The log has @count entries now, and their words may change. */
static inline void section_log_end(const struct header *header, uint32_t count)
{
    STORE(header->section.undo_count, count);
    /* Neither compiler nor processor may move the change of a word before the count. */
    __atomic_thread_fence(__ATOMIC_RELEASE);
}

#define SECTION_PUT(field, value) __atomic_store_n(&WRITABLE(field), (value), __ATOMIC_RELEASE)

/** Inside a section: record a field in the undo log, then set it.  (Inline, because one operation sets some twenty.) */
#define SET(fs, field, value)                                                           \
    do {                                                                                \
        const struct header *const header_ = (fs)->header;                              \
        const uint32_t count_ = section_log_begin((fs), header_, 1);                    \
        if (count_ != SECTION_FULL) {                                                   \
            section_log_word(header_, &header_->undo[count_], &(field), sizeof(field)); \
            section_log_end(header_, count_ + 1);                                       \
            SECTION_PUT(field, value);                                                  \
        }                                                                               \
    } while (0)

/** Inside a section: the same for two or four fields, for which the log is looked at once.  The values are computed
 *  before any field changes. */
#define SET_PAIR(fs, a, value_a, b, value_b)                                        \
    do {                                                                            \
        const struct header *const header_ = (fs)->header;                          \
        const __typeof__(a) a_ = (value_a);                                         \
        const __typeof__(b) b_ = (value_b);                                         \
        const uint32_t count_ = section_log_begin((fs), header_, 2);                \
        if (count_ != SECTION_FULL) {                                               \
            section_log_word(header_, &header_->undo[count_], &(a), sizeof(a));     \
            section_log_word(header_, &header_->undo[count_] + 1, &(b), sizeof(b)); \
            section_log_end(header_, count_ + 2);                                   \
            SECTION_PUT(a, a_);                                                     \
            SECTION_PUT(b, b_);                                                     \
        }                                                                           \
    } while (0)
#define SET_FOUR(fs, a, value_a, b, value_b, c, value_c, d, value_d)                \
    do {                                                                            \
        const struct header *const header_ = (fs)->header;                          \
        const __typeof__(a) a_ = (value_a);                                         \
        const __typeof__(b) b_ = (value_b);                                         \
        const __typeof__(c) c_ = (value_c);                                         \
        const __typeof__(d) d_ = (value_d);                                         \
        const uint32_t count_ = section_log_begin((fs), header_, 4);                \
        if (count_ != SECTION_FULL) {                                               \
            section_log_word(header_, &header_->undo[count_], &(a), sizeof(a));     \
            section_log_word(header_, &header_->undo[count_] + 1, &(b), sizeof(b)); \
            section_log_word(header_, &header_->undo[count_] + 2, &(c), sizeof(c)); \
            section_log_word(header_, &header_->undo[count_] + 3, &(d), sizeof(d)); \
            section_log_end(header_, count_ + 4);                                   \
            SECTION_PUT(a, a_);                                                     \
            SECTION_PUT(b, b_);                                                     \
            SECTION_PUT(c, c_);                                                     \
            SECTION_PUT(d, d_);                                                     \
        }                                                                           \
    } while (0)

/** Inside a section: the same for two fields of 32 bits that share a word, @second behind @first (layout.h asserts
 *  which do).  By two SET() the word would have two entries, and the second would read what the first is just
 *  writing. */
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

/** Inside a section: record @size bytes at @to, whole words of the segment, then copy @from to them.  (Inline, so that
 *  a constant number of words is no loop.) */
static inline __attribute__((always_inline)) void section_copy(struct fastspool *fs, const void *to, const void *from,
                                                               size_t size)
{
    const struct header *const header = fs->header;
    const uint32_t words = (uint32_t)(size / sizeof(uint64_t));
    const uint32_t count = section_log_begin(fs, header, words);

    assert(size % sizeof(uint64_t) == 0);
    if (count == SECTION_FULL)
        return;
    const struct undo *entry = &header->undo[count];
#pragma GCC unroll 16
    for (uint32_t i = 0; i < words; i++)
        section_log_word(header, entry + i, (const uint64_t *)to + i, sizeof(uint64_t));
    section_log_end(header, count + words);
    memcpy(&WRITABLE(*(const char *)to), from, size);
}

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
