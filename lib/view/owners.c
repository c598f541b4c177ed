/* SPDX-License-Identifier: MIT
 *
 * Lock owners: the record locks that processes hold through the view.
 *
 * The kernel names an owner by a number: a process's table of descriptors, or for F_OFD_SETLK an open file description.
 *
 * Happy path:
 *   - Each owner has, for each file that it has locked, an open file description of the store's lock file.  The
 *     kernel lets the locks of all of them, and those of processes with the library, exclude each other.
 *   - Closing that descriptor drops the owner's locks on the file: when the owner closes any descriptor of the file
 *     (FLUSH, as POSIX says; the kernel sends it for a process that dies, too), or when the description is gone by
 *     which the last lock came (RELEASE, for F_OFD_SETLK).
 *
 * Failure modes:
 *   - A lock that has to wait (F_SETLKW) occupies no thread of the server.  One thread tries all such locks again
 *     every WAIT, and whenever an owner here gives one up: the kernel tells nobody when a process with the library
 *     does.
 *   - A signal ends a wait with EINTR, within WAIT.
 *   - A deadlock of waiters is not found: no EDEADLK.
 *   - F_GETLK of a file with many owners does not know whose lock it has met: the pid is -1.
 *   - A user has many that wait: each is one of his locks (shares.c), or his next one is ENOLCK.
 */
#include "view/owners.h"

#include "base/clock.h"
#include "fastspool.h"
#include "store/inside.h"
#include "view/shares.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>
#include <uthash.h>
#include <utlist.h>

#define WAIT  (10 * NS_PER_MS) /* between two tries of a lock that has to wait */
#define ASKED 64               /* owners for one F_GETLK: all others wait meanwhile */

struct key {
    uint64_t handle;
    uint64_t owner;
};

struct owner {
    struct key key;
    int fd;          /* open file description of the lock file */
    int description; /* by which the last lock came */
    pid_t pid;       /* of the process that set it, for F_GETLK */
    uid_t uid;       /* whose share it is of */
    UT_hash_handle hh;
    struct owner *prev, *next; /* in `locked_by` */
};

struct wish {
    fuse_req_t req;
    struct key key;
    int description;
    struct flock lock;
    struct wish *prev, *next; /* in `waiters` */
};

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER; /* of all below */
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER; /* a lock was given up, or there is a new waiter */
static struct fastspool *store;
static struct owner *owners;
static struct owner *locked_by[INSIDE_DESCRIPTIONS]; /* lists: the owners whose last lock came by the description */
static struct wish *waiters;                         /* in the order in which they came */

static struct owner *find(struct key key)
{
    struct owner *owner;

    HASH_FIND(hh, owners, &key, sizeof(key), owner);
    return owner;
}

static int add(const struct wish *wish, struct owner **owner)
{
    uid_t uid = fuse_req_ctx(wish->req)->uid;

    if (!shares_take(SHARE_LOCK, uid))
        return -ENOLCK;
    struct owner *new = calloc(1, sizeof(*new));
    int fd = new ? fastspool_lock_owner(store) : -ENOMEM;
    if (fd < 0) {
        shares_give(SHARE_LOCK, uid);
        free(new);
        return fd;
    }
    *new = (struct owner){.key = wish->key, .fd = fd, .description = wish->description, .uid = uid};
    HASH_ADD(hh, owners, key, sizeof(new->key), new);
    DL_APPEND(locked_by[new->description], new);
    *owner = new;
    return 0;
}

static void has_locked(struct owner *owner, const struct wish *wish)
{
    DL_DELETE(locked_by[owner->description], owner);
    owner->description = wish->description;
    owner->pid = fuse_req_ctx(wish->req)->pid;
    DL_APPEND(locked_by[owner->description], owner);
}

static void drop(struct owner *owner)
{
    DL_DELETE(locked_by[owner->description], owner);
    HASH_DEL(owners, owner);
    close(owner->fd);
    shares_give(SHARE_LOCK, owner->uid);
    free(owner);
    pthread_cond_signal(&changed);
}

/* Try once.  -EAGAIN: another owner has a lock in the way. */
static int try_lock(const struct wish *wish)
{
    struct flock lock = wish->lock;
    struct owner *known = find(wish->key), *owner = known;

    if (!known && lock.l_type == F_UNLCK)
        return 0;
    int result = known ? 0 : add(wish, &owner);
    if (result == 0)
        result = fastspool_lock_for(store, wish->description, owner->fd, F_SETLK, &lock);
    if (result == 0 && lock.l_type == F_UNLCK)
        pthread_cond_signal(&changed);
    else if (result == 0)
        has_locked(owner, wish);
    else if (owner && !known)
        drop(owner);
    return result == -EACCES ? -EAGAIN : result;
}

static int add_waiter(const struct wish *wish)
{
    uid_t uid = fuse_req_ctx(wish->req)->uid;

    if (!shares_take(SHARE_LOCK, uid))
        return -ENOLCK;
    struct wish *waiter = malloc(sizeof(*waiter));
    if (!waiter) {
        shares_give(SHARE_LOCK, uid);
        return -ENOLCK;
    }
    *waiter = *wish;
    DL_APPEND(waiters, waiter);
    pthread_cond_signal(&changed);
    return 0;
}

void owners_set(fuse_req_t req, uint64_t handle, uint64_t owner, int description, const struct flock *lock, bool wait)
{
    const struct wish wish = {req, {handle, owner}, description, *lock, NULL, NULL};

    pthread_mutex_lock(&mutex);
    int result = try_lock(&wish);
    bool waits = result == -EAGAIN && wait;
    if (waits) {
        result = add_waiter(&wish);
        waits = result == 0;
    }
    pthread_mutex_unlock(&mutex);
    if (!waits)
        fuse_reply_err(req, -result);
}

/* Try all waiting locks again, and answer what is decided. */
static void try_waiters(void)
{
    for (struct wish *waiter = waiters, *next; waiter; waiter = next) {
        next = waiter->next;
        int result = fuse_req_interrupted(waiter->req) ? -EINTR : try_lock(waiter);
        if (result == -EAGAIN)
            continue;
        DL_DELETE(waiters, waiter);
        shares_give(SHARE_LOCK, fuse_req_ctx(waiter->req)->uid);
        fuse_reply_err(waiter->req, -result);
        free(waiter);
    }
}

static void *wait_for_locks(void *argument)
{
    (void)argument;
    pthread_mutex_lock(&mutex);
    for (;;) {
        struct timespec until = clock_timespec(clock_precise() + WAIT);
        if (waiters)
            pthread_cond_clockwait(&changed, &mutex, CLOCK_MONOTONIC, &until);
        else
            pthread_cond_wait(&changed, &mutex);
        try_waiters();
    }
    return NULL;
}

int owners_start(struct fastspool *fs)
{
    pthread_t thread;

    store = fs;
    return -pthread_create(&thread, NULL, wait_for_locks, NULL);
}

static int64_t end_of(const struct flock *lock)
{
    return lock->l_len ? lock->l_start + lock->l_len : INT64_MAX;
}

/* Is nothing in the way of owner @other where the locks @asked and @found meet? */
static bool is_free_for(const struct owner *other, int description, const struct flock *asked,
                        const struct flock *found)
{
    const int64_t from = asked->l_start > found->l_start ? asked->l_start : found->l_start;
    const int64_t to = end_of(asked) < end_of(found) ? end_of(asked) : end_of(found);
    struct flock lock = {
        .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = from, .l_len = to == INT64_MAX ? 0 : to - from};

    return fastspool_lock_for(store, description, other->fd, F_GETLK, &lock) == 0 && lock.l_type == F_UNLCK;
}

/* The process whose lock @found was in the way of @asked: the only other owner's, or that one's for whom nothing is in
 * the way there.  -1: several have read locks there, or the file has more owners than are to be asked. */
static pid_t holder(struct key asks, int description, const struct flock *asked, const struct flock *found)
{
    const struct owner *last = NULL;
    unsigned others = 0;

    for (const struct owner *other = owners; other && others <= ASKED; other = other->hh.next) {
        if (other->key.handle != asks.handle || other->key.owner == asks.owner)
            continue;
        if (others++ < ASKED && is_free_for(other, description, asked, found))
            return other->pid;
        last = other;
    }
    return others == 1 ? last->pid : -1;
}

int owners_get(uint64_t handle, uint64_t owner, int description, struct flock *lock)
{
    const struct key key = {handle, owner};
    const struct flock asked = *lock;

    pthread_mutex_lock(&mutex);
    const struct owner *asks = find(key);
    int fd = asks ? asks->fd : fastspool_lock_owner(store);
    int result = fd < 0 ? fd : fastspool_lock_for(store, description, fd, F_GETLK, lock);
    if (result == 0 && lock->l_type != F_UNLCK && lock->l_pid == -1)
        lock->l_pid = holder(key, description, &asked, lock);
    if (!asks && fd >= 0)
        close(fd);
    pthread_mutex_unlock(&mutex);
    return result;
}

void owners_flush(uint64_t handle, uint64_t owner)
{
    pthread_mutex_lock(&mutex);
    struct owner *closes = find((struct key){handle, owner});
    if (closes)
        drop(closes);
    pthread_mutex_unlock(&mutex);
}

void owners_release(int description)
{
    pthread_mutex_lock(&mutex);
    while (locked_by[description])
        drop(locked_by[description]);
    pthread_mutex_unlock(&mutex);
}
