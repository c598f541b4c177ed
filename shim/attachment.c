/* SPDX-License-Identifier: MIT
 *
 * The stores that this process has attached, each of its own spool.
 *
 * Happy path: most processes use one.  The number of a descriptor says in which store its description is.
 *
 * Failure modes: none.  A store stays attached until the process leaves all of them.
 */
#include "attachment.h"

#include <limits.h>
#include <sys/sysmacros.h>

struct fastspool *attachments[FASTSPOOL_SPOOLS_MAX];

uint32_t attachment_number(const struct fastspool *fs, uint32_t description)
{
    uint32_t spool = 0;

    while (spool < FASTSPOOL_SPOOLS_MAX - 1 && LOAD(attachments[spool]) != fs)
        spool++;
    return spool * INSIDE_DESCRIPTIONS + description;
}

bool attachment_any(void)
{
    return attachment_is(NULL, NULL);
}

void attachment_each(void (*each)(struct fastspool *fs))
{
    for (size_t i = 0; i < FASTSPOOL_SPOOLS_MAX; i++) {
        struct fastspool *fs = LOAD(attachments[i]);
        if (fs)
            each(fs);
    }
}

bool attachment_is(bool (*is)(struct fastspool *fs, const void *argument), const void *argument)
{
    for (size_t i = 0; i < FASTSPOOL_SPOOLS_MAX; i++) {
        struct fastspool *fs = LOAD(attachments[i]);
        if (fs && (!is || is(fs, argument)))
            return true;
    }
    return false;
}

unsigned attachment_next_own(unsigned from, unsigned to)
{
    unsigned next = UINT_MAX;

    for (size_t i = 0; i < FASTSPOOL_SPOOLS_MAX; i++) {
        struct fastspool *fs = LOAD(attachments[i]);
        unsigned own = fs ? inside_next_own(fs, from, to) : UINT_MAX;
        next = own < next ? own : next;
    }
    return next;
}

static bool refuses(struct fastspool *fs, const void *uid)
{
    return !inside_may_hold(fs, *(const uid_t *)uid);
}

bool attachment_may_hold(uid_t uid)
{
    return !attachment_is(refuses, &uid);
}

/* ---- devices ---- */

#define DEVICES 0xf00 /* majors that no driver has */

static int with_device(const struct fastspool *fs, int result, struct stat *st)
{
    unsigned spool = attachment_number(fs, 0) / INSIDE_DESCRIPTIONS;

    if (result == 0 && spool > 0)
        st->st_dev = makedev(DEVICES + spool, minor(st->st_dev));
    return result;
}

int attachment_stat(struct fastspool *fs, const char *path, struct stat *st)
{
    return with_device(fs, fastspool_stat(fs, path, st), st);
}

int attachment_fstat(uint32_t number, struct stat *st)
{
    return with_device(attachment_of(number), fastspool_fstat(OF(number), st), st);
}
