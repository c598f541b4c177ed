/* SPDX-License-Identifier: MIT
 *
 * What the preloaded library has decided for its process: shim/serve.c keeps it, and the fastspool command reads it
 * from the memory of an Exim (tools/decided.c).  That the library is in a process's memory says nothing: it may serve
 * nothing there.
 */
#ifndef FASTSPOOL_DECISION_H
#define FASTSPOOL_DECISION_H

#include <stdint.h>

enum decision {
    UNDECIDED, /* no call on a path yet */
    SERVE_NOTHING,
    WATCH,  /* nothing, but spools of this user that nobody has named */
    REFUSE, /* every call on a spool is an error */
    SERVE,
};

/** By this the word is found.  All versions keep the form. */
#define DECISION_MARK                                                                      \
    {                                                                                      \
        '\x7f', 'f', 'a', 's', 't', 's', 'p', 'o', 'o', 'l', ' ', 's', 'a', 'y', 's', '\n' \
    }

struct decision_word {
    char mark[16];
    uint32_t decision; /* enum decision; atomic */
};

#endif
