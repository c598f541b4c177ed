/* SPDX-License-Identifier: MIT
 *
 * Acting as the spool's owner, or another user.
 *
 * The mail user owns the state directory, and could plant links there for a root process to follow.  So root creates
 * and opens files there with the owner's rights.  setfsuid(2) changes file access alone, and this thread alone.  It is
 * a raw system call here, so the preloaded library's wrappers do not see it.
 *
 * That is not enough where code may be led astray by what it reads: LMDB believes the pages of its file, and the
 * mutexes in its lock file.  A process of root's that is led astray gets root's rights back with one call.  So a child
 * reads there that has given them up for good, and the terminal too.
 */
#include "base/rights.h"

#include "base/fd.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <signal.h>
#include <stdbool.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

struct rights rights_of_owner(uid_t owner, gid_t group)
{
    struct rights rights = {.lent = geteuid() == 0 && owner != 0};

    if (rights.lent) {
        rights.gid = (gid_t)syscall(SYS_setfsgid, group);
        syscall(SYS_setfsuid, owner);
    }
    return rights;
}

void rights_back(struct rights rights)
{
    if (rights.lent) {
        syscall(SYS_setfsuid, 0);
        syscall(SYS_setfsgid, rights.gid);
    }
}

static bool are(const unsigned ids[3], unsigned id)
{
    return ids[0] == id && ids[1] == id && ids[2] == id;
}

/* A process that has kept its capabilities (securebits, or a wrapper's bounding set) could be root again. */
int rights_settle(uid_t uid)
{
    uid_t ids[3];

    if (syscall(SYS_setresuid, uid, uid, uid) < 0 || syscall(SYS_getresuid, &ids[0], &ids[1], &ids[2]) < 0)
        return -errno;
    if (!are(ids, uid) || (uid != 0 && syscall(SYS_setresuid, 0, 0, 0) == 0))
        return -EPERM;
    return 0;
}

int rights_become(uid_t uid, gid_t gid)
{
    gid_t ids[3], group;

    if (syscall(SYS_setgroups, 1, &gid) < 0 || syscall(SYS_setresgid, gid, gid, gid) < 0 ||
        syscall(SYS_getresgid, &ids[0], &ids[1], &ids[2]) < 0)
        return -errno;
    if (!are(ids, gid) || syscall(SYS_getgroups, 1, &group) != 1 || group != gid)
        return -EPERM;
    return rights_settle(uid);
}

/* A process that lends no rights is not root, or the owner is: it stays what it is. */
static int keep_lent(void)
{
    uid_t uid = (uid_t)syscall(SYS_setfsuid, -1); /* changes nothing, and returns what is */
    gid_t gid = (gid_t)syscall(SYS_setfsgid, -1);

    return geteuid() == 0 && uid != 0 ? rights_become(uid, gid) : 0;
}

/* First what the other user shall not have: from the change of uid on it may stop this process. */
int rights_confine(pid_t parent, int out)
{
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);

    if (null < 0 || syscall(SYS_setsid) < 0 || dup2(null, STDIN_FILENO) < 0 ||
        dup2(out < 0 ? null : out, STDOUT_FILENO) < 0 || dup2(null, STDERR_FILENO) < 0 ||
        fd_close_range(STDERR_FILENO + 1, ~0U) < 0)
        return -errno;
    int result = keep_lent();
    syscall(SYS_prctl, PR_SET_DUMPABLE, 0);
    syscall(SYS_prctl, PR_SET_PDEATHSIG, SIGKILL); /* behind the change of uid, which takes it back */
    return result == 0 && getppid() != parent ? -ESRCH : result;
}

bool rights_may_mount(void)
{
    struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3];

    return syscall(SYS_capget, &header, data) == 0 && (data[0].effective & (1u << CAP_SYS_ADMIN));
}
