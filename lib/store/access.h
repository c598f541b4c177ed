/* SPDX-License-Identifier: MIT
 *
 * Access: the user that a call acts for, permission checks, and the attributes that only some users may change.
 */
#ifndef FASTSPOOL_ACCESS_H
#define FASTSPOOL_ACCESS_H

#include "store/store.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct timespec;

/** The user that a call acts for.  Capabilities and supplementary groups are read only if a check depends on them. */
struct credentials {
    uid_t uid; /* of new files */
    gid_t gid;
    uint32_t capabilities; /* private to access.c; a client's: all, as its server has checked */
};
/** The thread's fastspool_act_for(), or the ids and capabilities that the kernel checks for files, cached until
 *  fastspool_credentials_changed(). */
void access_credentials(struct credentials *who);
/** The process has become @uid, or of group @gid, for files too: as if it had said fastspool_credentials_changed(), but
 *  nothing of that need be asked. */
void access_became(uid_t uid);
void access_became_of(gid_t gid);
/** Those of access(2): the real ids. */
void access_real_credentials(struct credentials *who);
/** Where the highest change is kept that the process, or the client that the thread acts for, has synced. */
uint64_t *access_synced(struct fastspool *fs);
/** As access_permitted(), where the owner's own right does not say yes. */
int access_permitted_otherwise(const struct fastspool *fs, uint32_t inode, const struct credentials *who, int want);
/** May @who access inode @i, which is @inode?  @want: a mask of R_OK, W_OK, X_OK.  0 or -EACCES.  (Inline: each
 *  directory of a path is asked for, mostly by its owner.) */
static inline int access_permitted_to(const struct fastspool *fs, uint32_t i, const struct inode *inode,
                                      const struct credentials *who, int want)
{
    if (who->uid == inode->uid && (~(inode->mode >> 6) & want) == 0)
        return 0;
    return access_permitted_otherwise(fs, i, who, want);
}
/** The same, of the inode's number alone. */
static inline int access_permitted(const struct fastspool *fs, uint32_t i, const struct credentials *who, int want)
{
    return access_permitted_to(fs, i, inode_at(fs, i), who, want);
}
/** Is @who the inode's owner, or may do what an owner may? */
bool access_owns(const struct fastspool *fs, uint32_t inode, const struct credentials *who);
/** May @who take a name of the inode out of a directory whose names @who may change?  In a sticky directory only an
 *  owner may.  0 or -EPERM. */
int access_remove(const struct fastspool *fs, uint32_t directory, uint32_t inode, const struct credentials *who);
/** May @who link the inode?  /proc/sys/fs/protected_hardlinks decides for foreign files.  0 or -EPERM. */
int access_link(const struct fastspool *fs, uint32_t inode, const struct credentials *who);
/** May @who open the existing file with O_CREAT?  /proc/sys/fs/protected_regular decides in sticky directories.  0 or
 *  -EACCES. */
int access_open_or_create(const struct fastspool *fs, uint32_t directory, uint32_t inode,
                          const struct credentials *who);
/** The mode of a new file or directory of @who's, of this kind and mode, in @directory, which is set-group-ID. */
mode_t access_inherited_mode(const struct fastspool *fs, uint32_t directory, mode_t mode,
                             const struct credentials *who);

/** In a section: chmod(2), chown(2), utimensat(2) of the inode by @who.  0; -EPERM: @who may not; access_utimens() also
 *  -EACCES and -EINVAL, as utimensat(2). */
int access_chmod(struct fastspool *fs, uint32_t inode, mode_t mode, const struct credentials *who);
int access_chown(struct fastspool *fs, uint32_t inode, uid_t uid, gid_t gid, const struct credentials *who);
int access_utimens(struct fastspool *fs, uint32_t inode, const struct timespec times[2], const struct credentials *who);
/** In a section that changes a file's content: set-ID bits go, unless the caller may keep them (CAP_FSETID). */
void access_modified(struct fastspool *fs, uint32_t inode);

#endif
