/* SPDX-License-Identifier: MIT
 *
 * The view's table of top directories.
 */
#include "mount/tops.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

static struct tops tops;
static char names[TOPS_MAX + 1][MOUNTS_NAME];

/* All that fit: q0/input, q1/input, ... */
static void fill(void)
{
    for (int i = 0; i <= TOPS_MAX; i++)
        snprintf(names[i], MOUNTS_NAME, "q%d/input", i);
    cr_assert(tops_present(&tops, names, TOPS_MAX));
}

/* A directory has one place, and that has its name. */
Test(tops, found)
{
    fill();
    for (int i = 0; i < TOPS_MAX; i++) {
        struct top *top = tops_find(&tops, names[i]);
        cr_assert(top && strcmp(top->name, names[i]) == 0 && top->present && !top->known && !top->mounted);
        cr_assert_eq(tops_find(&tops, names[i]), top);
    }
}

/* There is no place for one more, until one is gone. */
Test(tops, reuse)
{
    fill();
    cr_assert_null(tops_find(&tops, "new/input"));
    cr_assert(!tops_present(&tops, names, TOPS_MAX + 1));
    struct top *gone = tops_find(&tops, names[7]);
    gone->known = gone->mounted = true;
    strcpy(names[7], "new/input"); /* instead of q7/input */
    cr_assert(tops_present(&tops, names, TOPS_MAX), "the new one has no place");
    cr_assert_eq(tops_find(&tops, "new/input"), gone);
    cr_assert(gone->present && !gone->known && !gone->mounted, "it is taken for the old one");
    cr_assert_null(tops_find(&tops, "q7/input"));
}

/* One that a server has named stays while it is known or mounted; for the next server all are new. */
Test(tops, forgotten)
{
    fill();
    tops_present(&tops, names, 0);
    for (int i = 0; i < TOPS_MAX; i++)
        tops_find(&tops, names[i])->known = true;
    cr_assert_null(tops_find(&tops, "new/input"));
    tops_forget(&tops);
    cr_assert_not_null(tops_find(&tops, "new/input"));
}

/* A name that is too long has no place. */
Test(tops, long_name)
{
    char name[MOUNTS_NAME + 1];

    memset(name, 'q', MOUNTS_NAME);
    name[MOUNTS_NAME] = '\0';
    cr_assert_null(tops_find(&tops, name));
    cr_assert_eq(tops.count, 0);
}
