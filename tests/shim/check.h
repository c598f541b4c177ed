/* SPDX-License-Identifier: MIT
 *
 * CHECK() of the programs in this directory, which run with the library and so without Criterion: a check that fails is
 * said and counted, and the test goes on.
 */
#ifndef CHECK_H
#define CHECK_H

#include <errno.h>
#include <stdio.h>
#include <string.h>

static int failures;

#define CHECK(condition)                                                                                \
    do {                                                                                                \
        if (!(condition)) {                                                                             \
            fprintf(stderr, "%s:%d: %s (errno %s)\n", __func__, __LINE__, #condition, strerror(errno)); \
            failures++;                                                                                 \
        }                                                                                               \
    } while (0)

#endif
