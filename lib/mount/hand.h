/* SPDX-License-Identifier: MIT
 *
 * The hand: the supervisor's child that touches the view.
 */
#ifndef FASTSPOOL_MOUNT_HAND_H
#define FASTSPOOL_MOUNT_HAND_H

struct mounts;

/** Do what the messages on @socket ask for (control.h), in their order, until its other side is closed. */
int hand_run(const struct mounts *mounts, int view, int socket);

#endif
