/* SPDX-License-Identifier: MIT
 *
 * The lock of the critical sections: a word of the segment that holds the thread id of its holder.
 *
 * The mail user can write the word, and root takes the lock.  So the word holds a number and nothing else: no pointer,
 * and no object of libc.  (A robust mutex keeps list pointers in the shared memory, and libc writes through them.)
 *
 * The happy path:
 *   1. The kernel keeps a list of robust locks for each thread.  Its head lies in the thread's own memory, and libc
 *      has registered it.  The head's field list_op_pending names one lock that is being taken or given back.  It is
 *      set to the word before the word changes, and set back after the lock is free again.
 *   2. The word goes from 0 to the thread id, by compare-and-swap.  A waiter adds FUTEX_WAITERS, and sleeps.
 *   3. The word goes back to 0.  If there are waiters, one of them is woken.
 *
 * Two processors in a rush: each handover moves all lines that sections change to the other processor, which takes as
 * long as three sections.  So a thread that had the lock last, and meets another one in it, waits for LONE.  If RUSH
 * more sections have begun by then, it lets the other one have a run of them (stand_back()), and is back after
 * LONE + MUTEX_RUN at most.  Then it tries at every instant, as one that comes to the lock for the first time does at
 * once.  Fewer sections are waited for and no more: a process that makes a file has two or three of them in LONE, and
 * then goes elsewhere.  (Measured, Exim with 32 connections: where a second section counted as a run, a message paused
 * for 4.2 us, and now for 0.4.)
 *
 * Failure modes:
 *   - The holder dies, also by exec or by the end of its thread: if the word still holds its thread id, the kernel sets
 *     FUTEX_OWNER_DIED and wakes a waiter, which takes over.
 *   - The kernel has not seen the death, or the word holds nonsense: a waiter looks ten times a second which thread
 *     that is (holder.h).  A thread that does not exist holds nothing, and the waiter takes over.
 *   - The word and the sequence count do not move for MUTEX_STUCK looks: a holder that is inside is killed, and one
 *     that is not inside holds nothing.  If neither can be known, the waiter waits on.
 *   - The word is changed under the holder: a second process may be inside.  Then the segment may be damaged, as by any
 *     other write of the mail user; the holder leaves the word alone when it ends.
 *   - The handler of a signal interrupts libc while it takes a robust mutex of the program's, and takes this lock:
 *     list_op_pending is saved and restored.
 *   - A fork: the child's thread has another id and, after a bare clone, no registered list.  A page that a fork wipes
 *     says that both must be asked again.  Which PID namespace it is in, a child knows from its parent, if that told of
 *     the fork, and still has its number here; else /proc is asked, which makes a new process's entries there (20 us).
 */
#include "store/mutex.h"

#include "base/atomic.h"
#include "base/clock.h"
#include "base/futex.h"
#include "base/namespace.h"
#include "store/holder.h"
#include "store/layout.h"
#include "store/store.h"

#include <errno.h>
#include <linux/futex.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define SPINS 200       /* tries before sleeping: a section takes less than a microsecond */
#define LONE  NS_PER_US /* longer than a section and the way to the next one */
#define RUSH  3         /* sections that begin in LONE, behind the one that was met: where fewer do there is no rush */
#define FIRST 1         /* process of a PID namespace */

/* ---- this thread ---- */

static __thread struct {
    uint32_t life;                 /* of the process in which the next fields were asked, 0: none */
    uint32_t thread;               /* its id */
    uint64_t pid_namespace;        /* that the id belongs to; 0: unknown */
    pid_t asker;                   /* the process in which this thread has asked for it, 0: none */
    uint32_t forks;                /* that were told of since then: 1 in a child of the asker */
    struct robust_list_head *head; /* of its list of robust locks */
    struct robust_list *outside;   /* list_op_pending as it was before the lock */
    uint32_t last;                 /* section.sequence when it gave the lock back */
} self;

static __thread struct robust_list_head own_head; /* for a thread without a registered list: one of a bare clone */

static uint32_t *life; /* a page that a fork wipes: the number of this process's life, 0: the process is new */
static uint32_t lives; /* numbers used by this process and those that it was forked from */

uint32_t mutex_life(void)
{
    uint32_t *page = LOAD(life), none = 0;

    if (!page) {
        page = mmap(NULL, sizeof(*page), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (page == MAP_FAILED)
            return 0;
        uint32_t *before = NULL;
        *page = __atomic_add_fetch(&lives, 1, __ATOMIC_ACQ_REL); /* (a look before would be a page fault more) */
        if (madvise(page, sizeof(*page), MADV_WIPEONFORK) < 0 ||
            !__atomic_compare_exchange_n(&life, &before, page, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) {
            munmap(page, sizeof(*page));
            page = before;
        }
    }
    /* A look at a page that is new in this process, and then a change, would be two page faults. */
    if (page && (self.life == 0 || LOAD(*page) == 0))
        __atomic_compare_exchange_n(page, &none, __atomic_add_fetch(&lives, 1, __ATOMIC_ACQ_REL), false,
                                    __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
    return page ? LOAD(*page) : 0;
}

bool mutex_is_life(uint32_t number)
{
    const uint32_t *page = LOAD(life);
    return page && number != 0 && LOAD(*page) == number;
}

void mutex_after_fork_child(void)
{
    self.life = 0;
    self.forks++;
}

/* Is this the child of the process that has asked, in the same namespace?  In another one that has no number (it is 0),
 * or another number.  Each namespace has a process 1: where forks between the two were not told of, the parent may be
 * another one than the asker. */
static bool is_askers_child(void)
{
    return self.asker > FIRST && self.forks == 1 && getppid() == self.asker;
}

/* Only a child of this process may come into another one. */
uint64_t mutex_pid_namespace(void)
{
    static uint64_t found;
    static uint32_t found_in; /* life */
    uint32_t now = mutex_life();

    if (now == 0 || LOAD(found_in) != now) {
        if (LOAD(found) == 0 || !is_askers_child())
            STORE(found, namespace_of_pids());
        STORE(found_in, now);
        self.asker = getpid();
        self.forks = 0;
    }
    return LOAD(found);
}

static int ask_who_i_am(uint32_t now)
{
    size_t size;

    if (syscall(SYS_get_robust_list, 0, &self.head, &size) < 0)
        return -errno;
    if (!self.head) {
        own_head = (struct robust_list_head){.list.next = &own_head.list};
        self.head = &own_head;
        if (syscall(SYS_set_robust_list, &own_head, sizeof(own_head)) < 0)
            return -errno;
    }
    self.pid_namespace = mutex_pid_namespace();
    const long thread = syscall(SYS_gettid);
    if (thread < 0) /* the lock's word would say of its holder that it has died */
        return -errno;
    self.thread = (uint32_t)thread;
    self.life = now;
    return 0;
}

static bool knows_itself(void)
{
    const uint32_t *page = self.life ? LOAD(life) : NULL;

    return page && LOAD(*page) == self.life;
}

int mutex_know_myself(void)
{
    if (knows_itself())
        return 0;
    int saved = errno, result = ask_who_i_am(mutex_life());
    errno = saved;
    return result;
}

/* ---- the kernel ---- */

/* What the list of this thread's robust locks would have as its entry for the word. */
static struct robust_list *entry_of(const uint32_t *word)
{
    return (struct robust_list *)((uintptr_t)word - (uintptr_t)self.head->futex_offset);
}

/* The kernel reads it at the end of this thread alone: the compiler must keep the order, the processor does. */
static void set_pending(struct robust_list *entry)
{
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
    __atomic_store_n(&self.head->list_op_pending, entry, __ATOMIC_RELAXED);
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
}

/* ---- the lock ---- */

static uint32_t *word_of(const struct fastspool *fs)
{
    return &ATOMIC(fs->header->section.lock);
}

static bool swap(uint32_t *word, uint32_t before, uint32_t after)
{
    return __atomic_compare_exchange_n(word, &before, after, false, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED);
}

/* The lock of a holder that is known to be none. */
static bool take_over(uint32_t *word, uint32_t seen, const struct mutex_wait *wait)
{
    return swap(word, seen, self.thread | (seen & FUTEX_WAITERS) | (wait->slept ? FUTEX_WAITERS : 0));
}

static void pause_for(uint64_t nanoseconds)
{
    for (uint64_t start = clock_precise(); clock_precise() - start < nanoseconds;)
        atomic_pause();
}

/* The lock is taken.  No look at it in a run: each would take a line away from the holder. */
static void stand_back(const struct fastspool *fs)
{
    const uint32_t *sequence = &fs->header->section.sequence;

    if (LOAD(*sequence) - self.last > 1) /* others have had it since */
        return;
    pause_for(LONE);
    if (LOAD(*sequence) - self.last > 2 * RUSH) /* by two for each section, and it is odd inside */
        pause_for(MUTEX_RUN);
}

static int look(uint32_t *word, const struct mutex_wait *wait)
{
    uint32_t seen = __atomic_load_n(word, __ATOMIC_RELAXED), holder = seen & FUTEX_TID_MASK;

    if ((holder == 0 || holder == self.thread) && take_over(word, seen, wait))
        return seen == 0 ? MUTEX_TAKEN : MUTEX_TAKEN_OVER;
    return MUTEX_BUSY;
}

static int spin(const struct fastspool *fs, uint32_t *word, const struct mutex_wait *wait)
{
    int result = MUTEX_BUSY;

    stand_back(fs);
    for (int i = 0; i < SPINS && result == MUTEX_BUSY; i++) {
        atomic_pause();
        result = look(word, wait);
    }
    return result;
}

/* Does the thread in the word hold nothing?  Kills one that is stuck inside. */
static bool is_void(const struct fastspool *fs, uint32_t holder, const struct mutex_wait *wait)
{
    if (!holder_exists(holder, wait->looks > 0))
        return true;
    if (holder != wait->holder || wait->looks < MUTEX_STUCK || wait->looks % MUTEX_STUCK != 0)
        return false;
    return holder_is_outside(fs, holder) && LOAD(fs->header->section.sequence) == wait->sequence;
}

/* The lock was not free at the first look.  (By itself, so that the way of nearly all calls saves no registers for it.)
 */
static __attribute__((noinline)) int try_again(const struct fastspool *fs, uint32_t *word,
                                               const struct mutex_wait *wait)
{
    int result = look(word, wait);

    if (result == MUTEX_BUSY)
        result = spin(fs, word, wait);
    if (result == MUTEX_BUSY) {
        uint32_t seen = LOAD(*word), holder = seen & FUTEX_TID_MASK;
        if (holder && is_void(fs, holder, wait) && take_over(word, seen, wait))
            return MUTEX_TAKEN_OVER;
        set_pending(self.outside);
    }
    return result;
}

/* This thread is known. */
static inline int try_known(const struct fastspool *fs, const struct mutex_wait *wait)
{
    uint32_t *word = word_of(fs);
    struct robust_list *entry = entry_of(word), *pending = self.head->list_op_pending;

    if (__builtin_expect(self.pid_namespace != fs->pid_namespace, 0) && self.pid_namespace && fs->pid_namespace)
        return -EXDEV;
    if (pending == entry)
        return -EDEADLK;
    self.outside = pending;
    set_pending(entry);
    if (__atomic_load_n(word, __ATOMIC_RELAXED) == 0 && !wait->slept && swap(word, 0, self.thread))
        return MUTEX_TAKEN;
    return try_again(fs, word, wait);
}

static __attribute__((noinline)) int ask_and_try(const struct fastspool *fs, const struct mutex_wait *wait)
{
    int result = mutex_know_myself();

    return result < 0 ? result : try_known(fs, wait);
}

int mutex_try(const struct fastspool *fs, const struct mutex_wait *wait)
{
    return knows_itself() ? try_known(fs, wait) : ask_and_try(fs, wait);
}

void mutex_sleep(struct fastspool *fs, struct mutex_wait *wait)
{
    uint32_t *word = word_of(fs), seen = LOAD(*word), holder = seen & FUTEX_TID_MASK;

    if (wait->since == 0)
        wait->since = wait->looked = clock_monotonic();
    if (holder == 0 || (!(seen & FUTEX_WAITERS) && !swap(word, seen, seen | FUTEX_WAITERS)))
        return;
    wait->slept = true;
    futex_wait(word, seen | FUTEX_WAITERS, MUTEX_LOOK);
    uint32_t sequence = LOAD(fs->header->section.sequence);
    if (holder != wait->holder || sequence != wait->sequence) {
        *wait = (struct mutex_wait){wait->since, clock_monotonic(), holder, sequence, 0, true};
    } else if (clock_monotonic() - wait->looked >= MUTEX_LOOK / 2) { /* not a signal's doing */
        wait->looked = clock_monotonic();
        wait->looks++;
    }
}

/* Somebody waits, or the word was changed under the holder. */
static __attribute__((noinline)) void release_and_wake(uint32_t *word)
{
    uint32_t seen = LOAD(*word);

    while ((seen & FUTEX_TID_MASK) == self.thread &&
           !__atomic_compare_exchange_n(word, &seen, 0, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
        ;
    if (seen & FUTEX_WAITERS)
        futex_wake_one(word);
    set_pending(self.outside);
}

void mutex_release(struct fastspool *fs)
{
    uint32_t *word = word_of(fs);

    self.last = LOAD(fs->header->section.sequence);
    if (swap(word, self.thread, 0))
        set_pending(self.outside);
    else
        release_and_wake(word);
}
