/* SPDX-License-Identifier: MIT
 *
 * Mounting the view.  For a process with one thread, of root's: some functions enter other mount namespaces and come
 * back. Functions return 0 or more, or a negative errno.
 */
#ifndef FASTSPOOL_MOUNT_MOUNTS_H
#define FASTSPOOL_MOUNT_MOUNTS_H

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct mounts {
    char path[PATH_MAX]; /* the real path of the spool */
    uid_t owner;         /* of the spool directory */
    gid_t group;
    int starter;   /* mount namespace of the view's users: of process 1, or of the process that started the view */
    int clean;     /* private one, in which nothing of the view is mounted: here its server lives */
    int work;      /* private one, in which the view is mounted once, over the spool as a whole: the supervisor's */
    int spool;     /* directory of the spool in `starter` */
    int disk;      /* the same in `work`, below the mount */
    int mountinfo; /* of `starter`: poll(2) says POLLPRI when something was mounted or unmounted there */
    int changes;   /* inotify: something was made in a directory that mounts_on_disk() has looked at; -1: none */
};

/** Find the spool, and in which namespace its view belongs.  *@step: for a failure, what could not be done. */
int mounts_find(struct mounts *m, const char *spool, const char **step);
/** Open the lock of the spool's view, of whichever state, in that namespace.  A descriptor; -EROFS or the like: this
 *  machine keeps none. */
int mounts_open_lock(const struct mounts *m);
/** Make the other namespaces, and enter `work`.  What an earlier supervisor left for users to see stays, but is dead
 *  from now on. */
int mounts_begin(struct mounts *m, const char *spool, const char **step);
/** Mount the file system that answers on @fuse, in `work` alone.  A descriptor of the mount, for mounts_drop().
 *  *@connection: its number in /sys/fs/fuse/connections. */
int mounts_view(const struct mounts *m, int fuse, unsigned *connection);
void mounts_drop(int view);

/** In the server: enter `clean`, for good. */
int mounts_enter_clean(const struct mounts *m);
/** Fill @names with the top directories that lie on the disk.  Their number, at most @size; -errno: it can't
 *  be said.  Touches no view.  From then on @m->changes tells of directories that are made there. */
#define MOUNTS_NAME 256
int mounts_on_disk(const struct mounts *m, char (*names)[MOUNTS_NAME], int size);
/** Take some of what @m->changes tells.  Was a directory made? */
bool mounts_have_changed(const struct mounts *m);
/** Does the spool directory still have a name?  Yes where it can't be said. */
bool mounts_has_spool(const struct mounts *m);

/** Mount directory @name of @view over that of the starter's namespace.  Of earlier views there, whose servers are
 * dead, the first one stays below it.  Waits for the view's server. */
int mounts_over(const struct mounts *m, int view, const char *name);
/** Take all views from directory @name of the starter's namespace, lazily. */
int mounts_remove(const struct mounts *m, const char *name);
/** Is directory @name of the view with this @connection mounted in the starter's namespace?  Yes where it can't be
 *  said. */
bool mounts_is_over(const struct mounts *m, unsigned connection, const char *name);
/** End a connection, whatever its server does. */
int mounts_abort(unsigned connection);

#endif
