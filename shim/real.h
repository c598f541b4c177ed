/* SPDX-License-Identifier: MIT
 *
 * The real functions: real.open(...) is what open(2) would be without the library.  Read-only once they are bound.
 */
#ifndef FASTSPOOL_REAL_H
#define FASTSPOOL_REAL_H

#include "base/sealed.h"

#include <aio.h>
#include <dirent.h>
#include <fcntl.h>
#include <fts.h>
#include <ftw.h>

#include <glob.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/statvfs.h>
#include <sys/time.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <sys/xattr.h>
#include <unistd.h>
#include <utime.h>

_Static_assert(sizeof(off_t) == 8 && sizeof(long) == 8, "open64 is open: 64-bit machines only");

struct real {
#define SYMBOL(type, name, arguments) type(*name) arguments;
#define WRAPPER(name)
#define ALIAS(other, name)
#include "symbols.def"
#undef SYMBOL
#undef WRAPPER
#undef ALIAS
} SEALED;

/** Bound before the first wrapper uses it: by the constructor, or by real_bind() if another library's constructor was
 *  earlier. */
extern struct real real;
void real_bind(void);

/** (Not in the table: its page would be read before it is written, which are two page faults.) */
extern bool real_unbound;

/** The path of @fd, as the kernel says.  False: it has none. */
bool real_path_of(int fd, char *path, size_t size);

#endif
