/* SPDX-License-Identifier: MIT
 *
 * The history: the last HISTORY_MAX sections and commits, for the person who looks for a defect.
 *
 * It is a hint.  Nothing may decide by it, and its readers take it for garbage.
 */
#ifndef FASTSPOOL_HISTORY_H
#define FASTSPOOL_HISTORY_H

#include "base/atomic.h"
#include "base/clock.h"
#include "store/layout.h"
#include "store/store.h"

#include <linux/futex.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

/** The name of a section's body as history_note() wants it: HISTORY_NAME bytes can be read there. */
#define HISTORY_NAME_OF(body) #body HISTORY_NO_NAME
#define HISTORY_NO_NAME       "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"

_Static_assert((HISTORY_MAX & (HISTORY_MAX - 1)) == 0, "the ring's size is a power of two");

/** Under the lock: this has happened.  @name: see HISTORY_NAME_OF().  (Inline, because every section does it.) */
static inline void history_note(const struct header *header, enum history_kind kind, const char *name, int result)
{
    const uint64_t now = clock_monotonic(), count = header->history_count;
    struct history_entry *entry = &WRITABLE(header->history[count % HISTORY_MAX]);

    entry->when = now;
    entry->result = result;
    entry->thread = LOAD(header->section.lock) & FUTEX_TID_MASK;
    memcpy(entry->name, name, HISTORY_NAME);
    entry->kind = (uint8_t)kind;
    WRITABLE(header->history_count) = count + 1;
    __builtin_prefetch(&header->history[(count + 2) % HISTORY_MAX], 1);
}

/** An entry, made safe to show. */
struct history_line {
    enum history_kind kind;
    uint64_t when;               /* CLOCK_MONOTONIC ns */
    uint32_t thread;             /* the kernel's number of it */
    int result;                  /* 0 or more: it succeeded */
    char name[HISTORY_NAME + 1]; /* printable */
};
/** The entry that was made @back entries before the last one.  False: there is none. */
bool history_read(const struct header *header, uint32_t back, struct history_line *line);

/** What was done, in a word. */
const char *history_kind_name(enum history_kind kind);

#endif
