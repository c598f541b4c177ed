/* SPDX-License-Identifier: MIT
 *
 * The names that a file can have.
 */
#ifndef FASTSPOOL_FILENAME_H
#define FASTSPOOL_FILENAME_H

#include <stdbool.h>
#include <stddef.h>

/** Could a directory have this name?  As the kernel asks of a file system's names: 1 to 255 bytes, no '/' and no NUL in
 *  it, neither "." nor "..". */
bool filename_possible(const char *text, size_t length);

#endif
