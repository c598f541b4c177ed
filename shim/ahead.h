/* SPDX-License-Identifier: MIT
 *
 * What stands before the library in the search order.
 */
#ifndef FASTSPOOL_AHEAD_H
#define FASTSPOOL_AHEAD_H

#include <stdbool.h>
#include <stddef.h>

/** Does another library define a function that this one serves, so that programs call that?  A sentence about it into
 *  @text, "" where none does.  True: it is fsync or its kin, whose success would be a lie. */
bool ahead_lies(char *text, size_t size);

#endif
