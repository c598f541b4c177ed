/* SPDX-License-Identifier: MIT
 *
 * Directories of files that a process hands on to itself: it opens them there when it is no longer privileged.
 */
#ifndef FASTSPOOL_VIEW_HANDED_H
#define FASTSPOOL_VIEW_HANDED_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>

struct fastspool;

/** Seconds for which the kernel may keep such a directory's attributes, which never change. */
#define HANDED_KEPT 3600.0

/** Is @node such a directory?  No handle is. */
bool handed_is(uint64_t node);
/** The kernel is about to learn of the directory that @name asks for (PLACES_HANDED): its node.  0: the name is of no
 *  such form. */
uint64_t handed_make(const char *name);
/** The kernel has forgotten @node, which may be anything. */
void handed_forget(uint64_t node);
/** Open the directory, with all of its files.  0 or -errno. */
int handed_open(struct fastspool *fs, uint64_t node);
/** An open directory is closed.  With its last one it is gone. */
void handed_close(struct fastspool *fs, uint64_t node);
/** The attributes of every such directory: a process that has it open may open what is in it. */
struct stat handed_attributes(uint64_t node);
/** The handle of file @name in @node, to be opened with @flags; 0: there is none.  *@share: whose share that is of. */
uint64_t handed_file(uint64_t node, const char *name, int flags, uid_t *share);

#endif
