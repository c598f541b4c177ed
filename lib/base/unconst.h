/* SPDX-License-Identifier: MIT
 *
 * Constant bytes, for an interface of another library that takes them without const.
 */
#ifndef FASTSPOOL_UNCONST_H
#define FASTSPOOL_UNCONST_H

#include <stdint.h>

/** A pointer without its const, for a function that does not write through it: execve(2), LMDB, ISA-L. */
#define UNCONST(pointer) ((void *)(uintptr_t)(pointer))

#endif
