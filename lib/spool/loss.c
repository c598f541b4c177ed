/* SPDX-License-Identifier: MIT
 *
 * What an attached store has lost: a mirror and a view's server look once a second.
 *
 * Failure modes: what can't be said, because the disk fails, counts as nothing.
 */
#include "spool/loss.h"

#include "base/error.h"
#include "base/places.h"
#include "spool/presence.h"
#include "spool/record.h"
#include "store/store.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* The state directory is not at its path, or is another one. */
static enum loss lost_state(const struct fastspool *fs, char *error)
{
    struct stat st;

    if (fstat(fs->presence_fd, &st) < 0 || st.st_nlink > 0) {
        error_set(error, 0, "the state directory %s was moved, or its disk was unmounted", fs->state);
        return LOSS_MOVED;
    }
    error_set(error, 0,
              "the state directory %s was removed or replaced while the store was in use: mail is refused "
              "until all processes that use the spool have ended",
              fs->state);
    return LOSS_STATE;
}

static enum loss look_in_state(const struct fastspool *fs, int state_fd, char *error)
{
    struct record record;
    struct stat st;

    if (!presence_is_valid(fs->presence_fd, state_fd))
        return lost_state(fs, error);
    int result = record_read(state_fd, &record);
    if (result == -ENOENT || (result == 0 && strcmp(record.runtime, fs->runtime) != 0) ||
        (fstat(fs->segment_fd, &st) == 0 && st.st_nlink == 0)) {
        error_set(error, 0,
                  "the memory %s, or the record of it in %s, was removed while the store was in use: mail is "
                  "refused until all processes that use the spool have ended",
                  fs->runtime, fs->state);
        return LOSS_MEMORY;
    }
    if (stat(fs->spool, &st) < 0 && (errno == ENOENT || errno == ENOTDIR)) {
        error_set(error, 0, "the spool is gone");
        return LOSS_SPOOL;
    }
    return LOSS_NOTHING;
}

enum loss loss_look(const struct fastspool *fs, char error[FASTSPOOL_ERROR_MAX])
{
    int state_fd = open(fs->state, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

    if (state_fd < 0)
        return errno == ENOENT || errno == ENOTDIR || errno == ELOOP ? lost_state(fs, error) : LOSS_NOTHING;
    enum loss loss = look_in_state(fs, state_fd, error);
    close(state_fd);
    return loss;
}

bool loss_is_in_the_way(const struct fastspool *fs)
{
    return presence_is_awaited(fs->presence_fd) && presence_claim(fs->presence_fd) == 0;
}
