/* SPDX-License-Identifier: MIT
 *
 * Read-ahead: what is asked for before anybody opens it.
 */
#ifndef FASTSPOOL_AHEAD_H
#define FASTSPOOL_AHEAD_H

#include <stdint.h>

struct fastspool;
struct pagein;

/** Who reads at the same time, in the same directory or another: a split spool's 62 directories are read by turns, and
 * with a jump now and then. */
#define AHEAD_STREAMS 128u

/** Where the pager's readers are; all zero at first.  Of one thread. */
struct ahead {
    struct stream {
        uint64_t born;     /* of the last name that was opened or asked for: where it is in the directory's list */
        uint32_t parent;   /* inode of the directory */
        uint32_t ending;   /* of the names */
        uint32_t followed; /* how often he has come again */
        uint64_t used;     /* when he last came: counts; 0: never */
    } stream[AHEAD_STREAMS];
    uint64_t uses;
};

/** The mirror alone: somebody has opened the file @fault; ask for those that he will open next, @most at the most.  How
 *  many; -errno. */
int ahead_follow(struct fastspool *fs, struct ahead *ahead, const struct pagein *pagein, int most);

#endif
