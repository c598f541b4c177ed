/* SPDX-License-Identifier: MIT
 *
 * The messages between the view's supervisor and its children, the server and the hand.  The sockets are
 * SOCK_SEQPACKET.
 *
 *     server      -> supervisor   CONTROL_MOUNT NAME    all of directory NAME is imported: mount it
 *     server      -> supervisor   CONTROL_READY         every directory has been named
 *     supervisor  -> server       CONTROL_UP            what was named is mounted: import what has come before that
 *     supervisor  -> server       CONTROL_ADOPT NAME    NAME lies on the disk and is not mounted: import it, and answer
 *                                                       with CONTROL_MOUNT
 *     supervisor <-> hand         CONTROL_MOUNT NAME, CONTROL_READY, CONTROL_PROBE: done when the same comes back
 *
 * The supervisor shuts its side of the server's socket down: everything is unmounted, and the server shall end.
 *
 * NAME is a top directory (exim_is_place()), relative to the spool.
 */
#ifndef FASTSPOOL_MOUNT_CONTROL_H
#define FASTSPOOL_MOUNT_CONTROL_H

#include <stdint.h>

enum control_kind {
    CONTROL_MOUNT = 1,
    CONTROL_READY,
    CONTROL_UP,
    CONTROL_ADOPT,
    CONTROL_PROBE,
};

struct control {
    uint32_t kind; /* enum control_kind */
    int32_t error; /* of the hand's answer: 0 or a negative errno */
    char name[504];
};

/** A pair of sockets, close-on-exec. */
int control_pair(int sockets[2]);
/** @name: NULL is "".  -EAGAIN: the reader is far behind (the supervisor's sockets don't block). */
int control_send(int socket, enum control_kind kind, int error, const char *name);
/** 1: *@message is filled in, and its name is a string.  0: the other side has ended.  -EAGAIN: there is none now. */
int control_receive(int socket, struct control *message);

#endif
