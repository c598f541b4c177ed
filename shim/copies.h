/* SPDX-License-Identifier: MIT
 *
 * Private copies of spool files, for processes and programs that may not use the store.
 */
#ifndef FASTSPOOL_COPIES_H
#define FASTSPOOL_COPIES_H

#include <stdint.h>

/** An anonymous file with the content, offset and flags of @description.  Its descriptor, close-on-exec, or -errno. */
int copies_new(uint32_t description);
/** Replace @fd, a spool file's, by a copy with the same number, offset and flags.  0 or -errno. */
int copies_replace(int fd);

#endif
