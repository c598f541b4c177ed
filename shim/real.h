/* SPDX-License-Identifier: MIT
 *
 * The functions behind the wrappers: real.open(...) is what open(2) would be without the library.
 */
#ifndef FASTSPOOL_REAL_H
#define FASTSPOOL_REAL_H

#include <dirent.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/statvfs.h>
#include <sys/time.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>
#include <utime.h>

_Static_assert(sizeof(off_t) == 8 && sizeof(long) == 8, "open64 is open: 64-bit machines only");

struct real {
#define SYMBOL(type, name, arguments) type(*name) arguments;
#define ALIAS(other, name)
#include "symbols.def"
#undef SYMBOL
#undef ALIAS
};

/** Bound before the first wrapper uses it: by the constructor, or by real_bind() where another library's constructor
 *  was faster. */
extern struct real real;
extern bool real_bound;
void real_bind(void);

/** The first line of every wrapper. */
#define BOUND()          \
    do {                 \
        if (!real_bound) \
            real_bind(); \
    } while (0)

/** A function that the library puts in front of libc's. */
#define EXPORT __attribute__((visibility("default")))

/** Another exported name of it.  (Under a C name of its own: the headers may have declared the other with types of its
 *  own, which are the same on these machines.) */
#define EXPORT_ALIAS(other, name) EXPORT __typeof__(name) alias_##other __asm__(#other) __attribute__((alias(#name)))

#endif
