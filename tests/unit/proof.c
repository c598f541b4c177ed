/* SPDX-License-Identifier: MIT
 *
 * A running Exim as the proof that the loader takes the library: one process, from the first look at it to the last.
 */
#include "../../tools/maps.h"
#include "base/started.h"

static uint64_t play_started(void);

#define started_at(pid, name)     ((void)(pid), (void)(name), play_started())
#define started_parent(pid)       ((void)(pid), 0)
#define maps_has(pid, name, file) ((void)(pid), (void)(name), (void)(file), true)
#include "../../tools/proof.c"
#undef started_at

#include <criterion/criterion.h>

#define LONG_AGO 1 /* a file that was changed in 1970 */

static uint64_t started, looks, ends_at; /* its look number `ends_at` is at another process, 0: none is */

static uint64_t play_started(void)
{
    return ++looks == ends_at ? started + NS_PER_S : started;
}

static bool is_proof(uint64_t ends)
{
    const struct stat library = {.st_ctim = {.tv_sec = LONG_AGO}};

    unsetenv("LD_LIBRARY_PATH");
    started = NS_PER_S;
    looks = 0;
    ends_at = ends;
    return proof_of(getpid(), "/proc/self/exe", &library);
}

/* A process that is one and the same proves it; one that has ended while it was looked at, and whose number another one
 * has, does not. */
Test(proof, another_has_the_number)
{
    cr_expect(is_proof(0));
    uint64_t count = looks;
    cr_assert_geq(count, 2);
    for (uint64_t ends = 2; ends <= count; ends++)
        cr_expect_not(is_proof(ends), "another process at look %d", (int)ends);
}
