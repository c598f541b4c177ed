/* SPDX-License-Identifier: MIT
 *
 * What verify and dump share: where a spool's parts are, also where there is no store in memory.
 */
#ifndef FASTSPOOL_LOOK_H
#define FASTSPOOL_LOOK_H

#include "base/error.h"
#include "fastspool.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct history_line;

struct look {
    struct fastspool *fs;           /* the store in memory, attached; NULL: there is none, */
    int code;                       /* or it can't be attached: a negative errno, */
    char why[ERROR_MAX];            /* and why; else empty */
    char spool[FASTSPOOL_PATH_MAX]; /* its real path */
    char state[FASTSPOOL_PATH_MAX]; /* its state directory */
    uid_t owner;                    /* of the spool */
    gid_t group;
    bool view; /* the configuration says `view = auto` */
};

/** Find the spool @spool, NULL: the configured one.  Creates nothing, and starts no mirror.  0; or 1, with the reason
 *  printed. */
int look_begin(struct look *look, const char *spool);
void look_end(struct look *look);

#endif
