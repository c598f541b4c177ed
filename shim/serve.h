/* SPDX-License-Identifier: MIT
 *
 * Serving: whether this process is served, which spool, and the attachment.
 */
#ifndef FASTSPOOL_SERVE_H
#define FASTSPOOL_SERVE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct fastspool;
struct stat;

/** Is this process served?  Decided at the first call. */
bool serve_active(void);
/** Are its paths to be looked at?  Also where each call on a spool fails, and nothing else is served. */
bool serve_looks(void);
/** The store of the spool that serve_match() has found last in this thread: so call that first.  Attaches at the first
 *  call.  NULL: *@error is 0 where nothing is served, else the errno with which calls on the spool must fail. */
struct fastspool *serve_store(int *error);
/** The shim's number (attachment.h) of the description that descriptor @fd of a placeholder stands for, 0: none.
 *  Attaches the spools that aren't yet, until one says that it is its own. */
uint32_t serve_identify(int fd);
/** Where in @path the spool ends, 0: @path is outside every spool.  @path is absolute, without ".." and links; "//" and
 *  "." are allowed.  This thread's serve_store() is about the spool that was found, until another one is. */
size_t serve_match(const char *path);
/** How long the part of @path is that is the path of a spool, byte by byte, and that has no component with the name of
 *  a directory that Exim has in its spool: what follows says whether the path has one.  0: it has no such part.  @path
 *  is absolute. */
size_t serve_begins(const char *path);
/** The process is about to become an ordinary user: detach all.  From then on calls on the spool fail with EACCES. */
void serve_leave(void);

/** opendir or readdir on the spool has failed with @error.  Exim goes on after that as after an empty directory:
 *  `exim -bpc` would print 0, with exit status 0.  So its process ends here, with EX_TEMPFAIL, if the spool can't be
 *  had at all.  (Not that of a daemon: it goes on to answer 4xx.) */
void serve_end_listing(int error);

/** Did an ordinary user start this process?  Then it is not served, and what it executes must not be, either. */
bool serve_is_users(void);
/** Did LD_PRELOAD bring the library?  Then it must be restored for children. */
bool serve_by_preload(void);
/** Does the image itself, or /etc/ld.so.preload, name the library?  Then every execution of the image has it. */
bool serve_is_global(void);
/** Is this the file of the running image, or of another program that the configuration names? */
bool serve_is_program(const struct stat *st);
/** May this user keep all attached stores mapped? */
bool serve_may_stay(uid_t uid);

#endif
