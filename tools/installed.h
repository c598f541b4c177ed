/* SPDX-License-Identifier: MIT
 *
 * The library's file, as it is installed for Exim.
 */
#ifndef FASTSPOOL_TOOLS_INSTALLED_H
#define FASTSPOOL_TOOLS_INSTALLED_H

#include "config.h"
#include "exims.h"

#include <stdbool.h>

#define INSTALLED_LIBRARY  FASTSPOOL_TRUSTED_LIBDIR "/" EXIMS_LIBRARY
#define INSTALLED_SENTENCE 512

/** Do the stores of the library, which is there, have another layout version than this command's, as where an
 *  installation was interrupted between the two?  Then @sentence says it. */
bool installed_differs(char sentence[INSTALLED_SENTENCE]);

#endif
