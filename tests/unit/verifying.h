/* SPDX-License-Identifier: MIT
 *
 * A store whose disk is verified: what is told of it, and the state directory as it was.
 */
#ifndef FASTSPOOL_VERIFYING_H
#define FASTSPOOL_VERIFYING_H

#include "base/findings.h"
#include "evicting.h"
#include "fastspool.h"
#include "fixture.h"
#include "mirror/verify.h"
#include "store/snapshot.h"
#include "store/store.h"

static struct findings *findings;
static struct verified verified;
static char path[FASTSPOOL_PATH_MAX + 64], command[3 * FASTSPOOL_PATH_MAX];

static inline void verifying_setup(void)
{
    durable_setup();
    checking_every(0);
    findings = findings_new(50);
    cr_assert_eq(fastspool_mkdir(fs, "input", 0750), 0);
}

static inline void verifying_teardown(void)
{
    findings_free(findings, 50);
    durable_teardown();
}

/* How much is wrong; @memory: compared with what memory knows. */
static inline uint32_t verify(bool memory)
{
    struct fastspool *snapshot = NULL;

    findings->count = 0;
    if (memory)
        cr_assert_eq(snapshot_take(fs, &snapshot), 0);
    cr_assert_eq(verify_disk(fs->state, memory ? fs : NULL, snapshot, &verified, findings), 0);
    if (memory)
        snapshot_free(snapshot);
    return findings->count;
}

static inline const char *said(void)
{
    return findings->count ? findings->sentence[0] : "nothing";
}

static inline bool told(const char *words)
{
    for (uint32_t i = 0; i < findings_kept(findings); i++) {
        if (strstr(findings->sentence[i], words))
            return true;
    }
    return false;
}

static inline void must_be_well(const char *when)
{
    cr_assert_eq(verify(true), 0, "%s: %s", when, said());
    cr_assert_eq(verify(false), 0, "%s: %s", when, said());
}

static inline void shell(const char *what)
{
    cr_assert_eq(system(what), 0, "%s", what);
}

/* A copy of the state directory, and back. */
static inline void keep(const char *as)
{
    snprintf(command, sizeof(command), "rm -rf %s/%s; cp -a %s %s/%s", fixture_directory, as, fs->state,
             fixture_directory, as);
    shell(command);
}

static inline void restore(const char *as)
{
    snprintf(command, sizeof(command), "rm -rf %s; cp -a %s/%s %s", fs->state, fixture_directory, as, fs->state);
    shell(command);
}

/* In STATE, with two files of the journal as $a and $b. */
static inline void in_state(const char *what, uint32_t a, uint32_t b)
{
    snprintf(command, sizeof(command), "cd %s; a=journal/%04u; b=journal/%04u; %s", fs->state, a, b, what);
    shell(command);
}

#endif
