/* SPDX-License-Identifier: MIT
 *
 * Identity: the calls that change the process's user.
 *
 * No code of an ordinary user runs beside the mapped store.  But Exim becomes the caller for -C, and the recipient for
 * a local delivery or a filter, in the same process.
 *
 * Happy path:
 *   - After every such call the store knows the new ids, or looks them up again where the call doesn't say them.
 *   - Before a change after which the real or the saved uid is an ordinary user's, not root's, the owner's or a trusted
 *     user's, the process leaves the store, because that user may stop it: its spool descriptors become others of the
 *     same files (handover.c), the segment is unmapped, and the library's descriptors are closed.
 *   - From then on the spool's paths are EACCES, as its 0750 directory says.
 *
 * Failure modes:
 *   - If the real call then fails, the process has left the store all the same.  Exim exits.
 */
#include "attachment.h"
#include "fastspool.h"
#include "handover.h"
#include "serve.h"
#include "store/inside.h"
#include "wrapper.h"

#include <errno.h>
#include <sys/fsuid.h>
#include <sys/syscall.h>

static int changed(int result)
{
    fastspool_credentials_changed();
    return result;
}

/* What counts for files follows the effective id.  (uid_t)-1: that stays, and what counted may have been another. */
static int became(uid_t euid, int result)
{
    if (result < 0 || euid == (uid_t)-1)
        return changed(result);
    inside_became(euid);
    return result;
}

static int became_of(gid_t egid, int result)
{
    if (result < 0 || egid == (gid_t)-1)
        return changed(result);
    inside_became_of(egid);
    return result;
}

/* ---- becoming an ordinary user ---- */

/* (uid_t)-1: as before, who may stay, as the process is attached. */
static bool may_stay(uid_t uid)
{
    return uid == (uid_t)-1 || serve_may_stay(uid);
}

/* A call is about to set these ids. */
static void becoming(uid_t ruid, uid_t suid)
{
    int saved = errno;

    if (attachment_any() && (!may_stay(ruid) || !may_stay(suid)))
        handover_leave();
    errno = saved;
}

#define KEPT(new, old) ((new) == (uid_t)-1 ? (old) : (new))

EXPORT int setresuid(uid_t ruid, uid_t euid, uid_t suid)
{
    BOUND();
    becoming(ruid, suid);
    return became(euid, real.setresuid(ruid, euid, suid));
}

EXPORT int setreuid(uid_t ruid, uid_t euid)
{
    uid_t r, e, s;

    BOUND();
    if (attachment_any() && real.syscall(SYS_getresuid, &r, &e, &s) == 0) {
        bool saves = ruid != (uid_t)-1 || (euid != (uid_t)-1 && euid != r);
        becoming(KEPT(ruid, r), saves ? KEPT(euid, e) : s);
    }
    return became(euid, real.setreuid(ruid, euid));
}

EXPORT int setuid(uid_t uid)
{
    uid_t r, e, s;

    BOUND();
    /* Else all three become a user who may stay, or the effective one alone. */
    if (attachment_any() && !serve_may_stay(uid) && real.syscall(SYS_getresuid, &r, &e, &s) == 0)
        becoming(e == 0 ? uid : r, e == 0 ? uid : s);
    return became(uid, real.setuid(uid));
}

EXPORT int seteuid(uid_t euid)
{
    BOUND();
    return became(euid, real.seteuid(euid));
}

EXPORT int setfsuid(uid_t uid)
{
    BOUND();
    return changed(real.setfsuid(uid));
}

EXPORT int setgid(gid_t gid)
{
    BOUND();
    return became_of(gid, real.setgid(gid));
}

EXPORT int setegid(gid_t egid)
{
    BOUND();
    return became_of(egid, real.setegid(egid));
}

EXPORT int setregid(gid_t rgid, gid_t egid)
{
    BOUND();
    return became_of(egid, real.setregid(rgid, egid));
}

EXPORT int setresgid(gid_t rgid, gid_t egid, gid_t sgid)
{
    BOUND();
    return became_of(egid, real.setresgid(rgid, egid, sgid));
}

EXPORT int setfsgid(gid_t gid)
{
    BOUND();
    return changed(real.setfsgid(gid));
}

/* <sys/capability.h> is libcap's. */
int capset(void *header, const void *data);
EXPORT int capset(void *header, const void *data)
{
    BOUND();
    return changed(real.capset(header, data));
}
