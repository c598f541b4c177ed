/* SPDX-License-Identifier: MIT
 *
 * The pool of descriptions that a process has taken: what descriptions.c keeps in struct fastspool.
 */
#ifndef FASTSPOOL_POOL_H
#define FASTSPOOL_POOL_H

#include <stdint.h>

#define POOL_PLACES 64 /* of one page of the pool */

/** A description whose placeholder this process has opened. */
struct pooled {
    uint32_t key; /* the description's number, with a flag; 0: this place is empty; atomic */
    int fd;       /* -1: the program's descriptors alone hold it */
    int spill;    /* descriptor of the spill file that it reads from, -1: none */
    uint64_t cookie;
    uint32_t epoch; /* of the pool when the description was taken */
};

/** Private to the process, and to descriptions.c.  A place changes hands by an atomic exchange of its key, so threads
 *  and signal handlers need no lock.  All zeros: no description was taken yet. */
struct pool {
    struct pooled place[POOL_PLACES];
    struct pool *next; /* further places */
    uint32_t down;     /* in the first page: UINT32_MAX less the lowest descriptor that it has ever had, 0: none */
    uint32_t epoch;    /* in the first page: counts forks and other events that may copy descriptors */
    uint64_t counts;   /* in the first page: how many are idle, and above 32 bits, open and have a descriptor here */
    uint64_t random;   /* in the first page: state of the generator of cookies, 0: to be seeded; */
    uint64_t salt;     /* what tells its cookies from those of the process that this one was forked from, */
    uint32_t life;     /* and of which life that is (mutex.h) */
};

#endif
