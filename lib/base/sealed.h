/* SPDX-License-Identifier: MIT
 *
 * Sealed tables: function pointers that are found out at run time, once, and that nothing may change afterwards.
 *
 * A table has pages of its own.  sealed_close() makes them read-only: a write through a wild pointer is a SIGSEGV, and
 * no way to run other code.
 */
#ifndef FASTSPOOL_SEALED_H
#define FASTSPOOL_SEALED_H

#include <sys/mman.h>

#if defined(__x86_64__)
#define SEALED_PAGE 4096
#else
#define SEALED_PAGE 65536 /* the largest that a machine may have */
#endif

/** Of a struct type: each of its objects has pages of its own. */
#define SEALED __attribute__((aligned(SEALED_PAGE)))

/** Of an object of such a type: the linker puts it behind all other variables.  So it is one mapping, with none behind
 *  it: each mapping is copied by each fork. */
#define SEALED_LAST __attribute__((common))

/** Make @object, of a SEALED type, read-only.  Where the kernel refuses that, it stays as it is. */
#define sealed_close(object) ((void)!mprotect(&(object), sizeof(object), PROT_READ))

#endif
