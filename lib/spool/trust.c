/* SPDX-License-Identifier: MIT
 *
 * Trusted users: the rights of users besides root and the owner to attach.
 *
 * What a process opens when it attaches belongs to the owner alone.  An entry of its access control list gives each
 * trusted user what attaching needs, and no other user anything.  STATE can be read and searched, not written: a
 * trusted user makes no store and starts no mirror.  The way to the spool directory itself is the administrator's
 * business.
 *
 * The happy path: a process of root's or the owner's that attaches compares the list of the segment, which is set last,
 * and that of STATE, which outlives it, with the configuration, and sets all lists where one differs.  So the next such
 * process adds and removes users.  A mode without rights of a group has no list, or one that gives nobody anything (its
 * group's bits are the most that a list gives): where no user is trusted, nothing need be compared then.  A trusted
 * user's process only looks that the list names trusted users alone.
 *
 * Failure modes: a file system without lists: a line in syslog, and the kernel refuses trusted users.
 */
#include "spool/trust.h"

#include "base/acl.h"
#include "base/places.h"
#include "fastspool.h"
#include "store/layout.h"
#include "store/store.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

static int give(int fd, const struct fastspool_config *config, unsigned rights)
{
    return fd < 0 ? -errno : acl_give(fd, config->trusted_user, config->trusted_users, rights);
}

static int give_in(int directory, const char *name, int flags, const struct fastspool_config *config, unsigned rights)
{
    int fd = openat(directory, name, flags | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0600);
    int result = give(fd, config, rights);

    if (fd >= 0)
        close(fd);
    return result;
}

static int give_state(int state_fd, const struct fastspool_config *config)
{
    int result = give(state_fd, config, R_OK | X_OK);

    if (result == 0)
        result = give_in(state_fd, PLACES_RUNTIME, O_RDONLY, config, R_OK);
    if (result == 0)
        result = give_in(state_fd, PLACES_LOCK, O_RDONLY, config, R_OK);
    if (result == 0)
        result = give_in(state_fd, PLACES_MIRROR_LOCK, O_RDWR | O_CREAT, config, R_OK);
    if (result == 0 && mkdirat(state_fd, PLACES_SPILL, 0700) < 0 && errno != EEXIST)
        result = -errno;
    return result == 0 ? give_in(state_fd, PLACES_SPILL, O_RDONLY | O_DIRECTORY, config, R_OK | X_OK) : result;
}

static int give_runtime(const struct fastspool *fs, const struct fastspool_config *config)
{
    int result = give(fs->runtime_fd, config, R_OK | X_OK);

    for (unsigned i = 0; i < PLACEHOLDERS && result == 0; i++) {
        char name[PLACES_NAME_MAX];
        places_placeholder(i, name);
        result = give_in(fs->runtime_fd, name, O_RDONLY | O_DIRECTORY, config, R_OK | X_OK);
    }
    if (result == 0)
        result = give(fs->locks_fd, config, R_OK | W_OK);
    return result == 0 ? give(fs->segment_fd, config, R_OK | W_OK) : result;
}

int trust_settle(const struct fastspool *fs, const struct fastspool_config *config, int state_fd)
{
    if (config->trusted_users == 0 && !fs->may_have_lists)
        return 0;
    if (acl_is(fs->segment_fd, config->trusted_user, config->trusted_users, R_OK | W_OK) &&
        acl_is(state_fd, config->trusted_user, config->trusted_users, R_OK | X_OK))
        return 0;
    int result = give_state(state_fd, config);
    return result == 0 ? give_runtime(fs, config) : result;
}
