/* SPDX-License-Identifier: MIT
 *
 * The history: the last HISTORY_MAX sections and commits, for the person who looks for a defect.
 *
 * It is a hint.  Nothing may decide by it, and its readers take it for garbage.
 */
#ifndef FASTSPOOL_HISTORY_H
#define FASTSPOOL_HISTORY_H

#include "store/layout.h"

#include <stdbool.h>
#include <stdint.h>

/** The name of a section's body as history_note() wants it: HISTORY_NAME bytes can be read there. */
#define HISTORY_NAME_OF(body) #body HISTORY_NO_NAME
#define HISTORY_NO_NAME       "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"

/** Under the lock: this has happened.  @name: see HISTORY_NAME_OF(). */
void history_note(const struct header *header, enum history_kind kind, const char *name, int result);

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
