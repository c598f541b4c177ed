/* SPDX-License-Identifier: MIT
 *
 * Handing on: what becomes of spool descriptors where the store can't be used any more.
 */
#ifndef FASTSPOOL_HANDOVER_H
#define FASTSPOOL_HANDOVER_H

#include <stddef.h>

#define HANDOVER_ROOM 256

/** What was changed for a program. */
struct handover {
    struct handed *handed; /* NULL: nothing */
    int count, room;
    size_t size;                         /* of the memory at `handed`, 0: it is these: */
    _Alignas(8) char few[HANDOVER_ROOM]; /* for as many descriptors as a delivery has */
};

/** This process is about to leave the store. */
void handover_leave(void);
/** This process is about to execute a program without the library. */
void handover_begin(struct handover *handover);
/** The exec has failed, or another process has executed the program.  Keeps errno. */
void handover_undo(struct handover *handover);

#endif
