/* SPDX-License-Identifier: MIT
 *
 * The stores that this process has attached, each of its own spool.
 */
#ifndef FASTSPOOL_ATTACHMENT_H
#define FASTSPOOL_ATTACHMENT_H

#include "base/atomic.h"
#include "fastspool.h"
#include "store/inside.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>

/** By the spool's number in serve.c, which sets them.  NULL: not attached. */
extern struct fastspool *attachments[FASTSPOOL_SPOOLS_MAX];

/** The shim's number of an open description: the spool's number, times INSIDE_DESCRIPTIONS, plus the store's. */
#define ATTACHMENT_NUMBERS (FASTSPOOL_SPOOLS_MAX * INSIDE_DESCRIPTIONS)
/** The store's number of @number. */
#define LOCAL(number)      ((uint32_t)(number) % INSIDE_DESCRIPTIONS)
/** The store of @number. */
static inline struct fastspool *attachment_of(uint32_t number)
{
    return LOAD(attachments[number / INSIDE_DESCRIPTIONS % FASTSPOOL_SPOOLS_MAX]);
}
/** The first two arguments of a call of the store on @number. */
#define OF(number) attachment_of((uint32_t)(number)), (int)LOCAL(number)

/** The shim's number of @fs's @description. */
uint32_t attachment_number(const struct fastspool *fs, uint32_t description);
/** Is a store attached? */
bool attachment_any(void);
/** Call @each with every attached store. */
void attachment_each(void (*each)(struct fastspool *fs));
/** Does @is say yes of an attached store?  NULL: is there one? */
bool attachment_is(bool (*is)(struct fastspool *fs, const void *argument), const void *argument);

/** The lowest of the library's own descriptors from @from up to @to, for any attached store; UINT_MAX: there is
 *  none. */
unsigned attachment_next_own(unsigned from, unsigned to);
/** Is the user root or the owner of every attached store? */
bool attachment_may_hold(uid_t uid);
/** As fastspool_stat() and fastspool_fstat(), and with the device of the spool.  Two spools may be of one disk, and
 *  their files have the same numbers: a copy from one to the other would take two of them for one file.  So all spools
 *  but the first have devices of their own. */
int attachment_stat(struct fastspool *fs, const char *path, struct stat *st);
int attachment_fstat(uint32_t number, struct stat *st);

#endif
