/* SPDX-License-Identifier: MIT
 *
 * Open file descriptions: offset, flags and inode in the segment, identity and life in the kernel.
 *
 * A program holds a description by a kernel descriptor of an empty directory, a placeholder.
 *   - Identity: that descriptor's file offset in the kernel holds the description's number and cookie, 40 random bits
 *     that the description repeats.  So identity survives dup, fork and exec, cannot be forged, and goes stale visibly.
 *   - Life: the descriptor holds an open-file-description read lock on one byte of the placeholder.  The kernel drops
 *     it with the last copy of the descriptor, also after kill -9.  So the lock says whether any process still holds
 *     the description, however it came by it.
 *
 * The happy path:
 *   - descriptions_take() gets one from the process's pool.  If that is empty it reserves a number in the segment,
 *     opens a placeholder, sets the offset, takes the lock and looks again (3.7 us, and a section).  The program gets
 *     the very number that was opened, and the pool a duplicate.
 *   - descriptions_open() makes it an open file, descriptions_close() a pooled one again.  With the pool the pair costs
 *     a dup and a close (0.6 us).
 *   - The pool keeps a descriptor of its own of POOL_KEPT open files.  Others cost the program's descriptor alone
 *     (descriptions_give()), so that a program may have as many files open as its limit says.
 *
 * Forks: two processes hold what was open at the fork.  The pool's epoch counts forks (descriptions_shared()).  The
 * close of a description of an earlier epoch, or of an inherited one, asks the kernel whether its byte is still locked;
 * the last holder frees it.  A process that leaves the store doesn't ask: it is mostly a child, whose parent frees it;
 * else descriptions_reap() does.  The child closes its copies of the pool's idle descriptors.
 *
 * Failure modes:
 *   - A process dies: descriptions_reap() frees open descriptions whose byte is unlocked, and pooled ones that are
 *     unlocked and older than POOLED_MAX.
 *   - A placeholder is harmed by a system call that the library can't see: it is mended, or one that was removed, or
 *     that the process may not mend, is replaced.  Descriptions of a replaced one stay open, and in the table, as long
 *     as the store lives; another program that inherits one doesn't know it.
 *   - A process is stopped for longer than POOLED_MAX after it took a number and before it has locked the byte: its
 *     number is freed, perhaps to another process.  It looks again when it has the lock, and takes another number.
 *   - Somebody writes to the table so that this happens again and again: the segment is damaged.
 */
#include "store/descriptions.h"

#include "base/clock.h"
#include "base/fd.h"
#include "base/places.h"
#include "store/change.h"
#include "store/layout.h"
#include "store/mutex.h"
#include "store/noted.h"
#include "store/orphans.h"
#include "store/residency.h"
#include "store/section.h"
#include "store/store.h"
#include "store/table.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/xattr.h>
#include <unistd.h>

#define IDENTITY_BITS 16 /* of the offset, for the number; the cookie is above */
#define COOKIE_MASK   ((UINT64_C(1) << 40) - 1)
#define POOLED_MAX    (10 * NS_PER_S) /* from reserving a number to locking its byte */
#define NUMBER_TRIES  100             /* to take one: for each the process was stopped for so long */

#define LOST UINT64_MAX /* pooled_at: its placeholder is gone, so nobody can tell whether it is held */

#define POOL_IDLE 8 /* descriptions kept for the next opens */
#define POOL_KEPT 8 /* open ones of which the pool keeps a descriptor besides the program's */

#define IDLE    (UINT32_C(1) << 31) /* in pooled.key: not open, kept for an open */
#define CLAIMED UINT32_MAX          /* in pooled.key: a thread is just filling or emptying the place */

/* ---- the pool ---- */

/* NULL: this process has taken no description. */
static struct pool *pool_of(struct fastspool *fs)
{
    return LOAD(fs->pool.random) ? &fs->pool : NULL;
}

static uint32_t idle(const struct pool *pool)
{
    return (uint32_t)LOAD(pool->counts);
}

static uint32_t kept(const struct pool *pool)
{
    return (uint32_t)(LOAD(pool->counts) >> 32);
}

static void count(struct pool *pool, int of_idle, int of_kept)
{
    uint64_t more = ((uint64_t)of_kept << 32) + (uint64_t)(int64_t)of_idle;

    __atomic_add_fetch(&pool->counts, more, __ATOMIC_RELAXED);
}

static int pool_page(struct pool **link, struct pool **page)
{
    *page = LOAD(*link);
    if (*page)
        return 0;
    struct pool *new = mmap(NULL, sizeof(*new), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (new == MAP_FAILED)
        return -ENOMEM;
    if (!__atomic_compare_exchange_n(link, page, new, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
        munmap(new, sizeof(*new));
    else
        *page = new;
    return 0;
}

/* Claim the place if it has this key.  The caller owns it until it stores a key again. */
static bool claim(struct pooled *place, uint32_t key)
{
    return LOAD(place->key) == key &&
           __atomic_compare_exchange_n(&place->key, &key, CLAIMED, false, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED);
}

/* The pool is about to have @fd.  Its numbers are high, and a program's are not: so most are known for another's. */
static void pool_reach(struct pool *pool, int fd)
{
    uint32_t down = UINT32_MAX - (uint32_t)fd, before = LOAD(pool->down);

    while (fd >= 0 && before < down &&
           !__atomic_compare_exchange_n(&pool->down, &before, down, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
        ;
}

static int pool_put(struct pool *pool, const struct pooled *pooled)
{
    pool_reach(pool, pooled->fd);
    for (struct pool *page = pool;;) {
        for (int i = 0; i < POOL_PLACES; i++) {
            struct pooled *place = &page->place[i];
            if (!claim(place, 0))
                continue;
            place->fd = pooled->fd;
            place->spill = -1;
            place->cookie = pooled->cookie;
            place->epoch = pooled->epoch;
            STORE(place->key, pooled->key);
            return 0;
        }
        int result = pool_page(&page->next, &page);
        if (result < 0)
            return result;
    }
}

/* Claim the place of @description.  NULL: this process has not opened it. */
static struct pooled *pool_claim(struct pool *pool, uint32_t description)
{
    for (struct pool *page = pool; page; page = LOAD(page->next)) {
        for (int i = 0; i < POOL_PLACES; i++) {
            if (claim(&page->place[i], description))
                return &page->place[i];
        }
    }
    return NULL;
}

/* An idle description of the pool is taken: in its place, as each place that changes hands costs two atomic changes. */
static bool pool_take_idle(struct pool *pool, uint32_t *description, int *fd)
{
    for (struct pool *page = idle(pool) ? pool : NULL; page; page = LOAD(page->next)) {
        for (int i = 0; i < POOL_PLACES; i++) {
            struct pooled *place = &page->place[i];
            uint32_t key = LOAD(place->key);
            if (key == CLAIMED || !(key & IDLE) || !claim(place, key))
                continue;
            place->epoch = LOAD(pool->epoch);
            *description = key & ~IDLE;
            *fd = place->fd;
            STORE(place->key, *description);
            count(pool, -1, 1);
            return true;
        }
    }
    return false;
}

static void close_held(int fd)
{
    if (fd >= 0)
        close(fd);
}

static uint64_t mix(uint64_t state)
{
    state = (state ^ state >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    state = (state ^ state >> 27) * UINT64_C(0x94d049bb133111eb);
    return state ^ state >> 31;
}

/* A forked child goes on from its parent's state, as does each other child: their pids tell them apart.  Most children
 * take no cookie, and so don't ask for theirs. */
static uint64_t new_cookie(struct pool *pool)
{
    uint32_t life = mutex_life();
    uint64_t seed;

    if (LOAD(pool->random) == 0) {
        if (getrandom(&seed, sizeof(seed), 0) != sizeof(seed))
            seed = clock_monotonic() ^ (uint64_t)getpid() << 32;
        STORE(pool->life, life);
        STORE(pool->random, seed);
    } else if (LOAD(pool->life) != life || life == 0) {
        STORE(pool->salt, mix((uint64_t)getpid()));
        STORE(pool->life, life);
    }
    uint64_t state = __atomic_add_fetch(&pool->random, UINT64_C(0x9e3779b97f4a7c15), __ATOMIC_RELAXED);
    state = mix(state ^ LOAD(pool->salt)) & COOKIE_MASK;
    return state ? state : 1;
}

/* ---- reserving ---- */

static bool valid_description(const struct fastspool *fs, uint32_t d)
{
    return d != 0 && d < LOAD(fs->header->tables.descriptions.used) && d < DESCRIPTIONS_MAX;
}

static int take_number(struct fastspool *fs, void *argument)
{
    struct pooled *pooled = argument;
    uint32_t d;
    int result = table_take(fs, TABLE_DESCRIPTIONS, &d);

    if (result < 0)
        return result;
    struct description new = {.cookie = pooled->cookie, .state = DESCRIPTION_POOLED, .pooled_at = clock_monotonic()};
    section_copy(fs, description_at(fs, d), &new, sizeof(new));
    pooled->key = d;
    return 0;
}

static void free_number(struct fastspool *fs, uint32_t d)
{
    const struct description *description = description_at(fs, d);

    SET(fs, description->state, DESCRIPTION_FREE);
    SET(fs, description->cookie, 0);
    table_give(fs, TABLE_DESCRIPTIONS, d);
}

/* An open description becomes a pooled one, and its inode is open once less.  Returns 1 if somebody waits for a lock
 * that was noted by it. */
static int release_inode(struct fastspool *fs, uint32_t d)
{
    const struct description *description = description_at(fs, d);
    const uint32_t i = description->inode;
    const struct inode *inode = inode_at(fs, i);

    if (!inode_valid(fs, i) || inode->generation != description->generation || inode->opens == 0)
        return section_damaged(fs, "a description leads to no file");
    const int awaited = description->locker && noted_forget(fs, d);
    SET_PAIR(fs, description->state, DESCRIPTION_POOLED, inode->opens, inode->opens - 1);
    if (inode->opens > 0)
        return awaited;
    if (inode->flags & INODE_LOCKS_KERNELS)
        SET(fs, inode->flags, (uint16_t)(inode->flags & ~INODE_LOCKS_KERNELS));
    int result = orphans_drop(fs, i);
    return result < 0 ? result : awaited;
}

/* Free a description that no process holds, if it still has this cookie. */
static int discard(struct fastspool *fs, void *argument)
{
    const struct pooled *pooled = argument;
    const struct description *description = description_at(fs, pooled->key);
    int result = 0;

    if (description->state == DESCRIPTION_FREE || description->cookie != pooled->cookie)
        return 0;
    if (description->state == DESCRIPTION_OPEN)
        result = release_inode(fs, pooled->key);
    if (result >= 0)
        free_number(fs, pooled->key);
    return result;
}

/* ---- placeholders ---- */

/* Give @name the owner, mode and access control list of the runtime directory, which are those of its placeholders. */
static int mend_placeholder(const struct fastspool *fs, const char *name)
{
    static const char list[] = "system.posix_acl_access";
    char link[FD_LINK_MAX], rights[1024];
    struct stat st;
    int fd = openat(fs->runtime_fd, name, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

    if (fd < 0)
        return -errno;
    fd_link(fd, link);
    ssize_t size = fgetxattr(fs->runtime_fd, list, rights, sizeof(rights));
    int result = fstat(fs->runtime_fd, &st) < 0 || (chown(link, st.st_uid, st.st_gid) < 0 && errno != EPERM) ||
                         chmod(link, st.st_mode & 0777) < 0 ||
                         (size > 0 && setxattr(link, list, rights, (size_t)size, 0) < 0)
                     ? -errno
                     : 0;
    close(fd);
    return result;
}

struct replacement {
    uint32_t placeholder;
    uint64_t inode; /* of the new directory, 0: there is none yet */
};

/* The lives of its descriptions can't be seen any more: they stay.  The new one is then known to all processes. */
static int note_replacement(struct fastspool *fs, void *argument)
{
    const struct replacement *new = argument;
    uint32_t used = fs->header->tables.descriptions.used;

    for (uint32_t d = new->placeholder; d < used &&d < DESCRIPTIONS_MAX && !new->inode; d += PLACEHOLDERS) {
        if (d != 0 && description_at(fs, d)->state != DESCRIPTION_FREE)
            SET(fs, description_at(fs, d)->pooled_at, LOST);
    }
    if (new->inode)
        SET(fs, fs->header->placeholder_inode[new->placeholder], new->inode);
    return 0;
}

/* Make a placeholder anew that was removed, or that this process may not mend. */
static int replace_placeholder(struct fastspool *fs, uint32_t number, const char *name)
{
    struct replacement new = {.placeholder = number};
    struct stat st;

    if (fstatat(fs->runtime_fd, name, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
        st.st_ino != LOAD(fs->header->placeholder_inode[number]))
        return 0; /* another process was faster */
    int result = change_run(fs, note_replacement, &new);
    if (result < 0)
        return result;
    unlinkat(fs->runtime_fd, name, AT_REMOVEDIR);
    if (mkdirat(fs->runtime_fd, name, 0700) < 0)
        return errno == EEXIST ? 0 : -errno;
    result = mend_placeholder(fs, name);
    if (result == 0 && fstatat(fs->runtime_fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
        result = -errno;
    new.inode = result == 0 ? st.st_ino : 0;
    return result == 0 ? change_run(fs, note_replacement, &new) : result;
}

static int open_placeholder(struct fastspool *fs, uint32_t d)
{
    const int flags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
    char name[PLACES_NAME_MAX];

    places_placeholder(d % PLACEHOLDERS, name);
    int fd = openat(fs->runtime_fd, name, flags);
    int error = fd < 0 ? errno : 0;
    if (error != EACCES && error != ENOENT)
        return fd < 0 ? -error : fd;
    if ((error == EACCES && mend_placeholder(fs, name) == 0) || replace_placeholder(fs, d % PLACEHOLDERS, name) == 0)
        fd = openat(fs->runtime_fd, name, flags);
    else
        errno = error;
    return fd < 0 ? -errno : fd;
}

/* Open the placeholder, set the offset to the identity, and lock the description's byte.  A low number. */
static int open_identity(struct fastspool *fs, uint32_t d, uint64_t cookie)
{
    struct flock life = {.l_type = F_RDLCK, .l_whence = SEEK_SET, .l_start = d, .l_len = 1};
    int fd = open_placeholder(fs, d);

    if (fd < 0)
        return fd;
    if (lseek(fd, (off_t)(cookie << IDENTITY_BITS | d), SEEK_SET) < 0 || fcntl(fd, F_OFD_SETLK, &life) < 0) {
        int error = -errno;
        close(fd);
        return error;
    }
    return fd;
}

/* Does any process hold the description?  A descriptor without a lock of its own asks. */
static int is_held(struct fastspool *fs, uint32_t d)
{
    struct flock life = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = d, .l_len = 1};
    int fd = open_placeholder(fs, d);

    if (fd < 0)
        return fd;
    int result = fcntl(fd, F_OFD_GETLK, &life) < 0 ? -errno : life.l_type != F_UNLCK;
    close(fd);
    return result;
}

/* The byte is locked: from now on an unlocked byte means that the process is dead.  -ESTALE: the process was stopped
 * for so long that the number was freed before it had its lock. */
static int keep_number(struct fastspool *fs, void *argument)
{
    const struct pooled *pooled = argument;
    const struct description *description = description_at(fs, pooled->key);

    if (description->state != DESCRIPTION_POOLED || description->cookie != pooled->cookie)
        return -ESTALE;
    SET(fs, description->pooled_at, 0);
    return 0;
}

static int try_new(struct fastspool *fs, struct pool *pool, struct pooled *pooled)
{
    pooled->cookie = new_cookie(pool);
    int result = change_run(fs, take_number, pooled);
    if (result < 0)
        return result;
    pooled->fd = open_identity(fs, pooled->key, pooled->cookie);
    result = pooled->fd < 0 ? pooled->fd : change_run(fs, keep_number, pooled);
    if (result == 0)
        return 0;
    change_run(fs, discard, pooled);
    if (pooled->fd >= 0)
        close(pooled->fd);
    return result;
}

static int take_new(struct fastspool *fs, struct pool *pool, struct pooled *pooled)
{
    int result = -ESTALE;

    for (int tries = 0; result == -ESTALE && tries < NUMBER_TRIES; tries++)
        result = try_new(fs, pool, pooled);
    return result == -ESTALE ? section_damaged(fs, "descriptions are freed while they are taken") : result;
}

/* Put a new one into the pool.  (By itself, so that the way of most opens saves no registers for it.) */
static __attribute__((noinline)) int put_new(struct fastspool *fs, uint32_t *description, int *fd, int *fresh)
{
    struct pool *pool = &fs->pool;
    struct pooled pooled;
    int result = take_new(fs, pool, &pooled);

    if (result < 0)
        return result;
    int high = fd_duplicate_high(pooled.fd);
    if (high >= 0) { /* else the low number is the pool's */
        *fresh = pooled.fd;
        pooled.fd = high;
    }
    pooled.epoch = LOAD(pool->epoch);
    result = pool_put(pool, &pooled);
    if (result < 0) {
        change_run(fs, discard, &pooled);
        close(pooled.fd);
        close_held(*fresh);
        *fresh = -1;
        return result;
    }
    count(pool, 0, 1);
    *description = pooled.key;
    *fd = pooled.fd;
    return 0;
}

/* Of the pool, or else a new one. */
int descriptions_take(struct fastspool *fs, uint32_t *description, int *fd, int *fresh)
{
    *fresh = -1;
    return pool_take_idle(&fs->pool, description, fd) ? 0 : put_new(fs, description, fd, fresh);
}

bool descriptions_idle(const struct fastspool *fs)
{
    return idle(&fs->pool) > 0;
}

int descriptions_give(struct fastspool *fs, uint32_t description, bool few)
{
    struct pool *pool = pool_of(fs);

    if (!pool || (few && kept(pool) <= POOL_KEPT))
        return -1;
    struct pooled *place = pool_claim(pool, description);
    int fd = -1;
    if (!place)
        return -1;
    if (place->fd >= 0) {
        fd = place->fd;
        place->fd = -1;
        count(pool, 0, -1);
    }
    STORE(place->key, description);
    return fd;
}

int descriptions_set_spill(struct fastspool *fs, uint32_t description, int fd)
{
    struct pooled *place = pool_of(fs) ? pool_claim(&fs->pool, description) : NULL;

    if (!place)
        return -EBADF;
    pool_reach(&fs->pool, fd);
    place->spill = fd;
    STORE(place->key, description);
    return 0;
}

int descriptions_spill(struct fastspool *fs, uint32_t description)
{
    struct pooled *place = pool_of(fs) ? pool_claim(&fs->pool, description) : NULL;

    if (!place)
        return -1;
    int fd = place->spill;
    STORE(place->key, description);
    return fd;
}

int descriptions_open(struct fastspool *fs, uint32_t d, uint32_t i, int flags)
{
    const struct description *description = description_at(fs, d);
    const struct inode *inode = inode_at(fs, i);

    if (description->state != DESCRIPTION_POOLED)
        return section_damaged(fs, "a description is opened that was not pooled");
    SET_TWO(fs, description->state, DESCRIPTION_OPEN, description->inode, i);
    SET_TWO(fs, description->generation, inode->generation, description->flags, (uint32_t)flags);
    SET_PAIR(fs, description->offset, 0, inode->opens, inode->opens + 1);
    if (inode->flags & (INODE_AHEAD | INODE_CLEAN))
        residency_reference(fs, i);
    return 0;
}

/* ---- closing ---- */

/* Its only holder closes it: make it a pooled one. */
static int pool_again(struct fastspool *fs, void *argument)
{
    const struct pooled *pooled = argument;
    const struct description *description = description_at(fs, pooled->key);
    int result = 0;

    if (description->cookie != pooled->cookie || description->state == DESCRIPTION_FREE)
        return -EBADF;
    if (description->state == DESCRIPTION_OPEN)
        result = release_inode(fs, pooled->key);
    if (result >= 0 && description->pooled_at != 0 && description->pooled_at != LOST)
        SET(fs, description->pooled_at, 0); /* it keeps its lock */
    return result;
}

/* Empty @place, which is claimed.  Returns its descriptor. */
static int pool_empty(struct pool *pool, struct pooled *place)
{
    int fd = place->fd;

    STORE(place->key, 0);
    if (fd >= 0)
        count(pool, 0, -1);
    return fd;
}

/* @place is claimed, and has this key otherwise. */
static int close_unshared(struct fastspool *fs, struct pool *pool, struct pooled *place, uint32_t key)
{
    struct pooled pooled = *place;

    pooled.key = key;
    if (pooled.fd < 0 || idle(pool) >= POOL_IDLE) {
        pool_empty(pool, place);
        int result = change_run(fs, discard, &pooled);
        close_held(pooled.fd);
        return result;
    }
    bool opened = LOAD(description_at(fs, key)->state) != DESCRIPTION_POOLED; /* the open may have failed */
    int result = opened ? change_run(fs, pool_again, &pooled) : 0;
    if (result < 0) {
        close(pool_empty(pool, place));
        return result;
    }
    STORE(place->key, key | IDLE);
    count(pool, 1, -1);
    return result;
}

/* Another process may hold it, too: the kernel knows, if it @asks.  The lock that is noted by it is this one's alone.
 */
static int close_shared(struct fastspool *fs, struct pooled *pooled, bool asks)
{
    const struct description *description = description_at(fs, pooled->key);
    int awaited = noted_by(fs, pooled->key) ? noted_drop(fs, pooled->key, description->inode) : 0;
    int result = LOAD(description->pooled_at) == LOST || !asks ? 1 : is_held(fs, pooled->key);

    if (result == 0)
        result = change_run(fs, discard, pooled);
    return result < 0 ? result : awaited;
}

/* @asks: of one that others may hold, too, whether they do. */
static int close_one(struct fastspool *fs, uint32_t description, bool asks)
{
    struct pool *pool = pool_of(fs);
    struct pooled *place = pool ? pool_claim(pool, description) : NULL;
    int result;

    if (place) {
        close_held(place->spill);
        place->spill = -1;
        if (place->epoch == LOAD(pool->epoch)) {
            result = close_unshared(fs, pool, place, description);
        } else {
            struct pooled pooled = *place;
            pooled.key = description;
            close_held(pool_empty(pool, place));
            result = close_shared(fs, &pooled, asks);
        }
    } else {
        struct pooled inherited = {.key = description, .cookie = description_at(fs, description)->cookie};
        if (!valid_description(fs, description) || LOAD(description_at(fs, description)->state) != DESCRIPTION_OPEN)
            return -EBADF;
        result = close_shared(fs, &inherited, asks);
    }
    if (result >= 0 && LOAD(fs->header->tree.orphans)) {
        int freed = orphans_free(fs);
        return freed < 0 ? freed : result;
    }
    return result;
}

int descriptions_close(struct fastspool *fs, uint32_t description)
{
    return close_one(fs, description, true);
}

int descriptions_leave(struct fastspool *fs, uint32_t description)
{
    return close_one(fs, description, false);
}

int descriptions_kept(struct fastspool *fs, uint32_t description)
{
    struct pooled *place = pool_of(fs) ? pool_claim(&fs->pool, description) : NULL;

    if (!place)
        return -1;
    int fd = place->fd;
    STORE(place->key, description);
    return fd;
}

unsigned descriptions_next_own(struct fastspool *fs, unsigned from, unsigned to)
{
    const struct pool *pool = pool_of(fs);
    unsigned next = UINT_MAX;

    if (!pool || UINT32_MAX - to > LOAD(pool->down))
        return next;
    for (const struct pool *page = pool; page; page = LOAD(page->next)) {
        for (int i = 0; i < POOL_PLACES; i++) {
            if (LOAD(page->place[i].key))
                next = fd_next(from, page->place[i].spill, fd_next(from, page->place[i].fd, next));
        }
    }
    return next <= to ? next : UINT_MAX;
}

void descriptions_shared(struct fastspool *fs)
{
    if (pool_of(fs))
        __atomic_add_fetch(&fs->pool.epoch, 1, __ATOMIC_ACQ_REL);
}

void descriptions_after_fork_child(struct fastspool *fs)
{
    struct pool *pool = pool_of(fs);

    for (struct pool *page = pool; page; page = page->next) {
        for (int i = 0; i < POOL_PLACES; i++) {
            struct pooled *place = &page->place[i];
            if (place->key == CLAIMED) {
                place->key = 0; /* by a thread that this process does not have */
            } else if (place->key & IDLE) {
                close(place->fd);
                place->key = 0;
            } /* else open in both processes: this copy of the descriptor keeps it alive for the child */
        }
    }
    if (pool && idle(pool)) /* what is 0 is not written: a child pays for each page it changes */
        count(pool, -(int)idle(pool), 0);
}

void descriptions_pool_close(struct fastspool *fs)
{
    for (struct pool *page = pool_of(fs), *next; page; page = next) {
        next = page->next;
        for (int i = 0; i < POOL_PLACES; i++) {
            struct pooled pooled = page->place[i];
            pooled.key &= ~IDLE;
            if (page->place[i].key == 0 || page->place[i].key == CLAIMED)
                continue;
            close_held(pooled.fd);
            close_held(pooled.spill);
            close_shared(fs, &pooled, true);
        }
        if (page != &fs->pool)
            munmap(page, sizeof(*page));
    }
    fs->pool = (struct pool){0};
}

/* ---- recognising, looking, reaping ---- */

bool descriptions_is_placeholder(const struct fastspool *fs, const struct stat *st)
{
    bool found = false;

    for (unsigned i = 0; i < PLACEHOLDERS && S_ISDIR(st->st_mode) && st->st_dev == fs->placeholder_device; i++)
        found = found || st->st_ino == fs->header->placeholder_inode[i];
    return found;
}

/* Is @number that of the placeholder?  The mail user can write the number of any directory to the segment, so the
 * kernel is asked, once.  The segment counts where the process has no right to ask. */
static bool is_placeholder(struct fastspool *fs, uint32_t placeholder, ino_t number)
{
    char name[PLACES_NAME_MAX];
    struct stat st;

    if (LOAD(fs->placeholder_inode[placeholder]) == number)
        return true;
    places_placeholder(placeholder, name);
    if (fstatat(fs->runtime_fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return LOAD(fs->header->placeholder_inode[placeholder]) == number;
    if (st.st_ino == number)
        STORE(fs->placeholder_inode[placeholder], number);
    return st.st_ino == number;
}

uint32_t descriptions_identify(struct fastspool *fs, int fd)
{
    struct stat st;

    if (fstat(fd, &st) < 0 || !S_ISDIR(st.st_mode) || st.st_dev != fs->placeholder_device)
        return 0;
    off_t identity = lseek(fd, 0, SEEK_CUR);
    uint32_t d = (uint32_t)(identity & ((1 << IDENTITY_BITS) - 1));
    if (identity < 0 || !valid_description(fs, d) || !is_placeholder(fs, d % PLACEHOLDERS, st.st_ino))
        return 0;
    const struct description *description = description_at(fs, d);
    if (LOAD(description->state) != DESCRIPTION_OPEN || description->cookie != (uint64_t)identity >> IDENTITY_BITS)
        return 0;
    return d;
}

int descriptions_file(const struct fastspool *fs, uint32_t d, uint32_t *inode, uint32_t *generation)
{
    if (LOAD(fs->header->state) == SEGMENT_FAILED)
        return -EIO;
    if (!valid_description(fs, d) || LOAD(description_at(fs, d)->state) != DESCRIPTION_OPEN)
        return -EBADF;
    *inode = description_at(fs, d)->inode;
    *generation = description_at(fs, d)->generation;
    return inode_valid(fs, *inode) ? 0 : section_damaged(fs, "a description leads to no file");
}

/* What reaping saw.  It must still be so in the section that frees. */
struct suspect {
    uint32_t description;
    uint32_t state;
    uint64_t cookie;
    uint64_t pooled_at;
};

static int reap_one(struct fastspool *fs, void *argument)
{
    const struct suspect *suspect = argument;
    struct pooled pooled = {.key = suspect->description, .cookie = suspect->cookie};

    if (description_at(fs, suspect->description)->state != suspect->state ||
        description_at(fs, suspect->description)->pooled_at != suspect->pooled_at)
        return 0;
    return discard(fs, &pooled);
}

int descriptions_reap(struct fastspool *fs)
{
    uint32_t used = LOAD(fs->header->tables.descriptions.used);

    for (uint32_t d = 1; d < used && d < DESCRIPTIONS_MAX; d++) {
        const struct description *description = description_at(fs, d);
        struct suspect suspect = {d, LOAD(description->state), description->cookie, LOAD(description->pooled_at)};
        if (suspect.state == DESCRIPTION_FREE || suspect.pooled_at == LOST ||
            (suspect.state == DESCRIPTION_POOLED && clock_monotonic() - suspect.pooled_at < POOLED_MAX))
            continue;
        int result = is_held(fs, d);
        if (result == 0)
            result = change_run(fs, reap_one, &suspect);
        if (result < 0)
            return result;
    }
    return orphans_free(fs);
}
