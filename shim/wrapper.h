/* SPDX-License-Identifier: MIT
 *
 * What every wrapper is made of.
 *
 * A wrapper is short.  It asks whether the path (paths.h) or the descriptor (descriptors.h) is the store's.  If not, it
 * calls the real function.  If so, it calls the store and turns -errno into errno.
 */
#ifndef FASTSPOOL_WRAPPER_H
#define FASTSPOOL_WRAPPER_H

#include "real.h"

#include <errno.h>

/** The first line of every wrapper. */
#define BOUND()           \
    do {                  \
        if (real_unbound) \
            real_bind();  \
    } while (0)

/** An exported function, in front of libc's. */
#define EXPORT __attribute__((visibility("default")))

/** Another exported name of it.  It has a C name of its own, because headers may declare @other with other types.  (The
 *  types are the same on these machines.) */
#define EXPORT_ALIAS(other, name) EXPORT __typeof__(name) alias_##other __asm__(#other) __attribute__((alias(#name)))

/** -errno becomes errno and -1.  Success leaves errno alone. */
static inline long result_of(long result)
{
    if (result >= 0)
        return result;
    errno = (int)-result;
    return -1;
}

#endif
