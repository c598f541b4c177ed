/* SPDX-License-Identifier: MIT
 *
 * A program's list of tests, run one after the other.
 */
#ifndef TESTS_SHIM_TESTS_H
#define TESTS_SHIM_TESTS_H

#include "check.h"

#include <fcntl.h>
#include <stddef.h>

struct test {
    const char *name;
    void (*run)(void);
};

/** Below 800. */
static inline int open_descriptors(void)
{
    int count = 0;

    for (int fd = 0; fd < 800; fd++)
        count += fcntl(fd, F_GETFD) >= 0;
    return count;
}

/** Run @count tests, and say of each whether it has failed.  It fails, too, if @left counts more after it than before:
 * so many "descriptors", or whatever @what says.  Returns the exit status of the program. */
static inline int run_tests(const struct test *tests, size_t count, int (*left)(void), const char *what)
{
    for (size_t i = 0; i < count; i++) {
        int before = left(), already = failures;
        tests[i].run();
        if (left() > before) {
            fprintf(stderr, "%s leaves %s behind\n", tests[i].name, what);
            failures++;
        }
        printf("%s - %s\n", failures == already ? "ok" : "not ok", tests[i].name);
        fflush(stdout); /* otherwise a child's exit would print a copy of the buffer */
    }
    return failures != 0;
}

#endif
