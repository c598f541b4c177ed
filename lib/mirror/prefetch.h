/* SPDX-License-Identifier: MIT
 *
 * Prefetch: page-ins of files before any process opens them, for sequential readers.
 */
#ifndef FASTSPOOL_PREFETCH_H
#define FASTSPOOL_PREFETCH_H

#include <stdint.h>

struct fastspool;
struct pagein;

/** Readers to remember, in all directories: the 62 directories of a split spool are read by turns, with a jump now and
 *  then. */
#define PREFETCH_READERS 128u

/** Where the readers are.  All zero at first; the pager's thread alone. */
struct prefetch {
    struct prefetch_reader {
        uint64_t born;     /* of the last name opened or prefetched: its place in the directory's list */
        uint32_t parent;   /* inode of the directory */
        uint32_t ending;   /* of the names */
        uint32_t followed; /* times that this reader was recognized */
        uint64_t used;     /* when it last came: a count; 0: never */
    } reader[PREFETCH_READERS];
    uint64_t uses;
};

/** A process has opened the file @pagein: prefetch the files that it is likely to open next, at most @most.  How many,
 *  or a negative errno.  For the mirror alone. */
int prefetch_follow(struct fastspool *fs, struct prefetch *prefetch, const struct pagein *pagein, int most);

#endif
