/* SPDX-License-Identifier: MIT
 *
 * The check of all invariants after every section (meson option check_sections, as tests/run sets it for the sanitized
 * build), so that a defect shows up where it is made.  A test that damages its segment, or is too slow with it, says so
 * by checking_every().
 *
 * Failure modes: what is wrong is printed with the last sections, and the process aborts.
 */
#ifndef FASTSPOOL_CHECKING_H
#define FASTSPOOL_CHECKING_H

#include "store/store.h"

/* Check after every @n-th section of a thread; 0: never. */
static inline void checking_every(unsigned n);
/* Check the store that *@fs is, as long as it is one. */
static inline void checking_begin(struct fastspool **fs);

#ifdef FASTSPOOL_CHECK_SECTIONS
#include "base/findings.h"
#include "base/guard.h"
#include "store/check.h"
#include "store/history.h"
#include "store/section.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

static struct fastspool **checking_store;
static unsigned checking_step;
static __thread unsigned checking_left;
static __thread bool checking_runs; /* the check has a section of its own, where it finds no other way */

static inline void checking_fail(const struct header *header, const struct findings *findings)
{
    struct history_line line;

    for (uint32_t i = 0; i < findings_kept(findings); i++)
        fprintf(stderr, "after a section: %s\n", findings->sentence[i]);
    for (uint32_t back = 0; back < 10 && history_read(header, back, &line); back++)
        fprintf(stderr, "  %s %s of thread %u: %d\n", history_kind_name(line.kind), line.name, line.thread,
                line.result);
    abort();
}

static inline void checking_leave(void)
{
    static struct findings *findings;
    struct fastspool *store = checking_store ? *checking_store : NULL;
    int saved = errno;

    if (checking_runs || checking_step == 0 || checking_left-- > 0 || !store || !store->header ||
        LOAD(store->header->state) != SEGMENT_READY)
        return;
    checking_left = checking_step - 1;
    checking_runs = true;
    if (!findings && !(findings = findings_new(20)))
        abort();
    if (check_segment(store, findings) != 0)
        checking_fail(store->header, findings);
    checking_runs = false;
    errno = saved;
}

static inline void checking_every(unsigned n)
{
    checking_step = n;
    checking_left = 0;
}

static inline void checking_begin(struct fastspool **store)
{
    checking_store = store;
    checking_every(1);
    section_guard.leave = checking_leave;
}
#else
static inline void checking_every(unsigned n)
{
    (void)n;
}

static inline void checking_begin(struct fastspool **store)
{
    (void)store;
}
#endif

#endif
