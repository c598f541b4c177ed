/* SPDX-License-Identifier: MIT
 *
 * Presence: which processes use the store of a state directory.
 */
#ifndef FASTSPOOL_PRESENCE_H
#define FASTSPOOL_PRESENCE_H

#include <stdbool.h>

enum presence {
    PRESENCE_NONE,   /* nobody lives */
    PRESENCE_SHARED, /* a process uses the store */
    PRESENCE_CLAIMED /* a process makes the store, or takes it over */
};

/** Open STATE/lock.  @create: make it if it is missing.  Where it can't be written it is opened for reading; then
 *  presence_claim() is -EBADF.  The descriptor is a high one.  It carries the lock: a forked child shares it, and it
 *  ends with the last copy.  -errno; -ENOENT: there is none. */
int presence_open(int state_fd, bool create);

/** What the others have announced.  Takes no lock. */
enum presence presence_of_others(int fd);

/** Can it be told?  0 or -errno: there are no such locks. */
int presence_check(int fd);

/** Take the shared lock, or turn the exclusive one into it at one instant.  0, -EAGAIN: another process has a claim, or
 *  -errno. */
int presence_announce(int fd);

/** Take the exclusive lock: nobody lives, and nobody can begin to.  0, -EAGAIN: somebody lives, or -errno. */
int presence_claim(int fd);

/** Give the lock up, and the wait. */
void presence_withdraw(int fd);

/** Wait for those who live to end: this process can't use what they use.  Until presence_wait_ends() or
 *  presence_withdraw(). */
void presence_wait(int fd);
void presence_wait_ends(int fd);
/** Does another process wait so? */
bool presence_is_awaited(int fd);

/** Is @fd still STATE/lock?  False: it was removed or replaced.  What can't be said counts as yes. */
bool presence_is_valid(int fd, int state_fd);

#define PRESENCE_IDENTITY_MAX 80

/** What tells the state directory @state from every other one, copies of it included: as text without blanks.  0, or
 * -errno with a sentence. */
int presence_identity(int fd, const char *state, char identity[PRESENCE_IDENTITY_MAX], char *error);
/** May @own, which this process found, be the same as @identity, and only lacks the time of birth?  As where statx(2)
 * is refused, and the C library does without. */
bool presence_is_uncertain(const char *identity, const char *own);
/** presence_is_valid() of the descriptor that gave this @identity. */
bool presence_is_still(const char *identity, int state_fd);

#endif
