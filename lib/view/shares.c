/* SPDX-License-Identifier: MIT
 *
 * Shares: how much of the store and of the view's server one user may hold.
 *
 * The store has 65,536 open file descriptions for all processes, and the server a limited number of descriptors.  An
 * ordinary user who may read a file of the spool, a member of its group, could take all of them: then no Exim opens a
 * file or locks a message.
 *
 * Happy path: each user's are counted.  A user may hold `of_user`, and all ordinary users together `of_users`.  Root
 * and the owner stop at `of_all`: the rest is left to the processes with the library.  (A user can have files that root
 * has opened for him, by hoarding the descriptors that his mail's commands inherit.)
 *
 * Failure modes: no memory to count: the answer is no.
 */
#include "view/shares.h"

#include "store/inside.h"
#include "view/pins.h"

#include <pthread.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>
#include <uthash.h>

#define OTHERS 256u /* descriptors of the server's that are no open file's, no pin's and no lock owner's */

struct user {
    uid_t uid;
    bool privileged;
    int held[SHARES];
    UT_hash_handle hh;
};

static int of_user, of_users, of_all; /* of each kind of share */

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER; /* of all below */
static struct user *users;
static int by_users[SHARES], by_all[SHARES];

void shares_begin(void)
{
    struct rlimit files = {0};

    getrlimit(RLIMIT_NOFILE, &files);
    of_all = INSIDE_DESCRIPTIONS - 8192;
    const rlim_t others = OTHERS + pins_begin(files.rlim_cur);
    if (files.rlim_cur < others + SHARES * (rlim_t)of_all)
        of_all = files.rlim_cur > others ? (int)((files.rlim_cur - others) / SHARES) : 0;
    of_users = of_all / 2;
    of_user = of_users / 4 < 2048 ? of_users / 4 : 2048;
}

static struct user *find(uid_t uid)
{
    struct user *user;

    HASH_FIND(hh, users, &uid, sizeof(uid), user);
    return user;
}

static void count(struct user *user, enum share share, int by)
{
    user->held[share] += by;
    by_all[share] += by;
    by_users[share] += user->privileged ? 0 : by;
}

bool shares_take(enum share share, uid_t uid)
{
    pthread_mutex_lock(&mutex);
    struct user *user = find(uid);
    if (!user && (user = calloc(1, sizeof(*user)))) {
        user->uid = uid;
        user->privileged = uid == 0 || uid == geteuid();
        HASH_ADD(hh, users, uid, sizeof(user->uid), user);
    }
    bool may = user && by_all[share] < of_all &&
               (user->privileged || (user->held[share] < of_user && by_users[share] < of_users));
    if (may)
        count(user, share, 1);
    pthread_mutex_unlock(&mutex);
    return may;
}

void shares_give(enum share share, uid_t uid)
{
    pthread_mutex_lock(&mutex);
    struct user *user = find(uid);
    if (user)
        count(user, share, -1);
    if (user && user->held[SHARE_OPEN] + user->held[SHARE_LOCK] == 0) {
        HASH_DEL(users, user);
        free(user);
    }
    pthread_mutex_unlock(&mutex);
}
