/* SPDX-License-Identifier: MIT
 *
 * A fault in LMDB: what the mirror says as it ends, and in which state it leaves the store.
 */
#include "mirror/database.h"

static int room; /* 0, or why there was none for a store to the lock file */

#define database_lacks_room(fault) ((void)(fault), room)
#include "../../lib/mirror/process.c"
#undef database_lacks_room

#include "fixture.h"

#include <criterion/criterion.h>
#include <sys/wait.h>

TestSuite(fault, .init = fixture_setup, .fini = fixture_teardown);

/* A SIGBUS without room is no damage, in recovery or later; any other fault is.  A state, its signal and room; and what
 * is left. */
Test(fault, of_damage_or_no_room)
{
    const struct {
        uint32_t before;
        int signal_number, room;
        uint32_t state;
        int recovery, commit;
        uint32_t fatal;
    } cases[] = {
        {SEGMENT_RECOVERING, SIGBUS, -EDQUOT, SEGMENT_RECOVERING, -EDQUOT, 0, 0},
        {SEGMENT_RECOVERING, SIGBUS, 0, SEGMENT_FAILED, 0, 0, 0},
        {SEGMENT_RECOVERING, SIGSEGV, -EDQUOT, SEGMENT_FAILED, 0, 0, 0},
        {SEGMENT_READY, SIGBUS, -EDQUOT, SEGMENT_READY, 0, -EDQUOT, 0},
        {SEGMENT_READY, SIGBUS, 0, SEGMENT_READY, 0, -EIO, PAGER_ALL},
    };
    int status;

    served = fs;
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        const struct header *h = fs->header;
        room = cases[i].room;
        STORE(h->state, cases[i].before);
        STORE(h->recovery.error, 0);
        STORE(h->tickets.commit_error, 0);
        STORE(h->residency.pagein_fatal, 0);
        pid_t mirror = fork();
        if (mirror == 0)
            on_fault(cases[i].signal_number, &(siginfo_t){0}, NULL);
        cr_assert_eq(waitpid(mirror, &status, 0), mirror);
        cr_expect(WIFEXITED(status) && WEXITSTATUS(status) == 1, "case %zu: %d", i, status);
        cr_expect_eq(h->state, cases[i].state, "case %zu: %u", i, h->state);
        cr_expect_eq(h->recovery.error, cases[i].recovery, "case %zu: %d", i, h->recovery.error);
        cr_expect_eq(h->tickets.commit_error, cases[i].commit, "case %zu: %d", i, h->tickets.commit_error);
        cr_expect_eq(h->residency.pagein_fatal, cases[i].fatal, "case %zu: %u", i, h->residency.pagein_fatal);
    }
    STORE(fs->header->state, SEGMENT_READY);
}
