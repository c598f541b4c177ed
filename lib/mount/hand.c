/* SPDX-License-Identifier: MIT
 *
 * The hand mounts, and asks the server whether it answers.
 *
 * Why a process of its own: one that waits for a FUSE server that does not answer can't be interrupted, nor killed. The
 * supervisor has to stay able to kill the server, after which the hand's call ends.
 */
#include "mount/hand.h"

#include "mount/control.h"
#include "mount/mounts.h"

#include <errno.h>
#include <sys/statfs.h>

static int probe(int view)
{
    struct statfs st;
    return fstatfs(view, &st) < 0 ? -errno : 0;
}

int hand_run(const struct mounts *mounts, int view, int socket)
{
    struct control order;

    while (control_receive(socket, &order) > 0) {
        int result = 0;
        if (order.kind == CONTROL_MOUNT)
            result = mounts_over(mounts, view, order.name);
        else if (order.kind == CONTROL_PROBE)
            result = probe(view);
        if (control_send(socket, (enum control_kind)order.kind, result, order.name) < 0)
            return 1;
    }
    return 0;
}
