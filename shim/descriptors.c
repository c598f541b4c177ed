/* SPDX-License-Identifier: MIT
 *
 * Descriptors: which numbers of this process stand for open file descriptions of the store.
 *
 * Happy path:
 *   - A table has one entry for each number: unknown, foreign, or the description.  The wrappers (open, dup, close,
 *     ...) keep it up to date.
 *   - A number that was inherited over exec or received over a socket is unknown.  Its first use identifies it, by the
 *     placeholder's device and inode, and the number and cookie in its offset.
 *   - The numbers that stand for a description are counted.  At the last close of this process the store closes the
 *     description.  (lib/store/descriptions.c knows whether another process still holds it.)
 *   - A descriptor whose file is yet to be opened (later.c) is foreign from its first use on.
 *   - A quiet descriptor is foreign, and no path that says nothing itself leads from it to the store (opening.c).
 *   - A carried descriptor (carrier.c) is foreign, but the table remembers the number of the carrier's file.
 *   - The table grows page by page, whatever the limit of descriptors.
 *   - Every access is atomic, for threads and signal handlers.
 *
 * Failure modes:
 *   - A number beyond the table (1,048,576) is identified at every use.
 *   - A program can't close the library's own descriptors (EBADF), nor replace them (EBUSY).
 */
#include "descriptors.h"

#include "asking.h"
#include "attachment.h"
#include "base/atomic.h"
#include "base/fd.h"
#include "later.h"
#include "serve.h"
#include "store/inside.h"
#include "wrapper.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>

#define PAGE_ENTRIES 1024
#define PAGES        1024
#define LOWEST       64
#define WITHOUT_PROC 1024 /* numbers that are looked at where no list of them can be had */

#define UNKNOWN 0u
#define FOREIGN UINT32_MAX
#define HINT    (UINT32_MAX - 1)    /* foreign, below db/ or scan/: fsync is free */
#define QUIET   (UINT32_MAX - 2)    /* foreign: see descriptors_is_quiet() */
#define CARRIED (UINT32_C(1) << 31) /* foreign, plus the number of the carrier's file */
#define LATER   (UINT32_C(1) << 30) /* its file is yet to be opened */

/* What most processes write of these lies at the end, which is first in memory: in the page of the library's other
 * variables. */
static uint32_t *further_pages[PAGES];      /* but for the first entry */
static uint32_t first_page[PAGE_ENTRIES];   /* but for the first entries: */
static uint16_t *counts;                    /* of descriptions behind the first ones; few processes have any */
static uint16_t first_counts[PAGE_ENTRIES]; /* by description: the numbers of this process that stand for it */
static uint32_t lowest[LOWEST];
static int numbers; /* behind the last one that has stood for a description */

static bool is_description(uint32_t value)
{
    return value != UNKNOWN && value < ATTACHMENT_NUMBERS;
}

static uint32_t *entry_of(int fd, bool make)
{
    if (fd < 0 || fd >= PAGE_ENTRIES * PAGES)
        return NULL;
    if (fd < LOWEST)
        return &lowest[fd];
    if (fd < PAGE_ENTRIES)
        return &first_page[fd];
    uint32_t **page = &further_pages[fd / PAGE_ENTRIES];
    if (!LOAD(*page) && make) {
        uint32_t *none = NULL;
        uint32_t *new =
            real.mmap(NULL, PAGE_ENTRIES * sizeof(*new), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (new != MAP_FAILED &&
            !__atomic_compare_exchange_n(page, &none, new, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
            munmap(new, PAGE_ENTRIES * sizeof(*new));
    }
    return LOAD(*page) ? &LOAD(*page)[fd % PAGE_ENTRIES] : NULL;
}

static uint16_t *count_of(uint32_t description)
{
    if (description < PAGE_ENTRIES)
        return &first_counts[description];
    if (!LOAD(counts)) {
        uint16_t *none = NULL;
        uint16_t *new = real.mmap(NULL, ATTACHMENT_NUMBERS * sizeof(*new), PROT_READ | PROT_WRITE,
                                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (new == MAP_FAILED)
            return NULL;
        if (!__atomic_compare_exchange_n(&counts, &none, new, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
            munmap(new, ATTACHMENT_NUMBERS * sizeof(*new));
    }
    return &LOAD(counts)[description % ATTACHMENT_NUMBERS];
}

/* What does an unknown number stand for?  A placeholder is a directory with a cookie in its offset.  Nothing else is
 * worth asking the store. */
static uint32_t classify(int fd)
{
    struct stat st;
    int saved = errno;
    uint32_t value = UNKNOWN; /* not open */

    if (real.fstat(fd, &st) == 0) {
        value = FOREIGN;
        if (S_ISDIR(st.st_mode) && real.lseek(fd, 0, SEEK_CUR) > INSIDE_DESCRIPTIONS) {
            uint32_t description = serve_identify(fd);
            value = description ? description : FOREIGN;
        }
    }
    errno = saved;
    return value;
}

static void count_one_more(uint32_t description)
{
    uint16_t *count = count_of(description);

    if (count)
        __atomic_add_fetch(count, 1, __ATOMIC_ACQ_REL);
}

/* Number @fd is about to stand for a description: descriptors_each() looks as far. */
static void reach(int fd)
{
    int before = LOAD(numbers);

    while (before <= fd &&
           !__atomic_compare_exchange_n(&numbers, &before, fd + 1, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
        ;
}

/* @value is what an unknown number stands for.  Another thread that makes or closes it knows better.  Returns what it
 * stands for now. */
static uint32_t learn(int fd, uint32_t *entry, uint32_t value)
{
    uint32_t before = UNKNOWN;

    if (!entry || value == UNKNOWN)
        return value;
    if (is_description(value))
        reach(fd);
    if (!__atomic_compare_exchange_n(entry, &before, value, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
        return before;
    if (is_description(value))
        count_one_more(value);
    return value;
}

/* The entry of @fd, which is learnt if it is unknown. */
static uint32_t look(int fd)
{
    uint32_t *entry = entry_of(fd, true);
    uint32_t value = entry ? LOAD(*entry) : UNKNOWN;

    return value == UNKNOWN ? learn(fd, entry, classify(fd)) : value;
}

uint32_t descriptors_find(int fd)
{
    uint32_t known = fd >= 0 && fd < LOWEST ? LOAD(lowest[fd]) : UNKNOWN;

    if (is_description(known))
        return known;
    if (known >= CARRIED || !serve_active()) /* all of these are foreign */
        return 0;
    uint32_t value = look(fd), later = LATER;
    if (value == LATER && later_use(fd))
        __atomic_compare_exchange_n(entry_of(fd, false), &later, FOREIGN, false, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED);
    return is_description(value) ? value : 0;
}

int descriptors_fstat(int fd, struct stat *st)
{
    uint32_t *entry = serve_active() ? entry_of(fd, true) : NULL;

    if (!entry || LOAD(*entry) != UNKNOWN)
        return 1;
    if (real.fstat(fd, st) < 0)
        return -1;
    return S_ISDIR(st->st_mode) || learn(fd, entry, FOREIGN) != FOREIGN;
}

bool descriptors_stands(int fd, uint32_t description)
{
    uint32_t *entry = entry_of(fd, false);
    return entry && LOAD(*entry) == description;
}

void descriptors_set(int fd, uint32_t description)
{
    uint32_t *entry = entry_of(fd, true), value = description ? description : FOREIGN;

    if (entry && description)
        reach(fd);
    uint32_t before = entry ? __atomic_exchange_n(entry, value, __ATOMIC_ACQ_REL) : UNKNOWN;
    if (description && before != description) /* else another thread has learnt it just now */
        count_one_more(description);
}

void descriptors_mark_hint(int fd)
{
    uint32_t *entry = entry_of(fd, true);

    if (entry)
        STORE(*entry, HINT);
}

bool descriptors_is_hint(int fd)
{
    uint32_t *entry = entry_of(fd, false);
    return entry && LOAD(*entry) == HINT;
}

void descriptors_mark_quiet(int fd)
{
    uint32_t *entry = entry_of(fd, true);

    if (entry)
        STORE(*entry, QUIET);
}

bool descriptors_is_quiet(int fd)
{
    uint32_t *entry = entry_of(fd, false);
    return entry && LOAD(*entry) == QUIET;
}

void descriptors_set_later(int fd)
{
    uint32_t *entry = entry_of(fd, true);

    if (entry)
        STORE(*entry, LATER);
}

void descriptors_set_carried(int fd, int file)
{
    uint32_t *entry = entry_of(fd, true);

    if (entry)
        STORE(*entry, CARRIED | (uint32_t)file);
}

int descriptors_carried(int fd)
{
    uint32_t *entry = entry_of(fd, false);
    uint32_t value = entry ? LOAD(*entry) : UNKNOWN;

    return value >= CARRIED && value < QUIET ? (int)(value & ~CARRIED) : -1;
}

/* @new is a duplicate of @old, which is foreign. */
static void mark_as(int old, int new)
{
    uint32_t *from = entry_of(old, false), *to = entry_of(new, true);
    uint32_t value = from ? LOAD(*from) : UNKNOWN;

    if (to && value >= CARRIED)
        STORE(*to, value);
}

uint32_t descriptors_detach(int fd)
{
    uint32_t *entry = entry_of(fd, false);

    if (serve_active() && look(fd) == LATER) /* an inherited one is counted from here on */
        later_forget(fd);
    /* Not unknown as long as it is open: another thread would find out what it is (descriptors_discover()). */
    uint32_t value = entry ? __atomic_exchange_n(entry, FOREIGN, __ATOMIC_ACQ_REL) : UNKNOWN;
    return is_description(value) ? value : 0;
}

/* @fd was detached, and is closed now, or something else by another thread's doing. */
static void forget(int fd)
{
    uint32_t *entry = entry_of(fd, false), foreign = FOREIGN;

    if (entry)
        __atomic_compare_exchange_n(entry, &foreign, UNKNOWN, false, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED);
}

/* @fd was detached, and stays open.  False: by another thread's doing it is something else. */
static bool attach_again(int fd, uint32_t description)
{
    uint32_t *entry = entry_of(fd, false), foreign = FOREIGN;

    return entry &&
           __atomic_compare_exchange_n(entry, &foreign, description, false, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED);
}

static void end_one(uint32_t description, int (*end)(struct fastspool *fs, uint32_t description))
{
    uint16_t *count = description ? count_of(description) : NULL;
    int saved = errno;

    if (!description || !attachment_of(description))
        return;
    inside_drop_locks(OF(description)); /* POSIX: any close of the file drops them */
    if (!count || __atomic_sub_fetch(count, 1, __ATOMIC_ACQ_REL) == 0)
        end(OF(description));
    errno = saved;
}

void descriptors_release(uint32_t description)
{
    end_one(description, inside_close);
}

void descriptors_leave(uint32_t description)
{
    end_one(description, inside_leave);
}

int descriptors_new(uint32_t description, int pool_fd, int fresh, int flags)
{
    bool stays = flags & O_CLOEXEC;
    int fd = fresh >= 0 ? fresh : real.fcntl(pool_fd, stays ? F_DUPFD_CLOEXEC : F_DUPFD, 0);

    if (fd < 0 && errno != EMFILE) {
        fd = -errno;
        inside_close(OF(description));
        return fd;
    }
    /* The last number that was free, or there was no high one: the store's own is the program's. */
    bool takes = fd < 0 || pool_fd < fd;
    int given = inside_give(OF(description), !takes);
    if (takes) {
        if (fd >= 0)
            real.close(fd);
        fd = given;
    } else if (given >= 0) {
        real.close(given);
    }
    if (!stays && (takes || fresh >= 0))
        real.fcntl(fd, F_SETFD, 0);
    descriptors_set(fd, description);
    return fd;
}

/* Is @fd one of the library's own descriptors? */
static bool is_own(int fd)
{
    if (fd < LOAD(fd_lowest_high))
        return false;
    return (fd > 2 && attachment_next_own((unsigned)fd, (unsigned)fd) == (unsigned)fd) || asking_is_own(fd) ||
           later_is_own(fd);
}

/* The lowest one from @from on; UINT_MAX: there is none. */
static unsigned next_own(unsigned from)
{
    unsigned stores = attachment_next_own(from > 2 ? from : 3, UINT_MAX), asking = asking_next_own(from);
    unsigned next = stores < asking ? stores : asking, later = later_next_own(from);
    return next < later ? next : later;
}

/* An entry of getdents64(2). */
struct kernel_entry {
    uint64_t inode;
    int64_t offset;
    uint16_t length;
    uint8_t type;
    char name[];
};

void descriptors_discover(void)
{
    char bytes[2048] __attribute__((aligned(8)));
    int saved = errno;
    int fd = real.open("/proc/self/fd", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    for (long size; fd >= 0 && (size = real.syscall(SYS_getdents64, fd, bytes, sizeof(bytes))) > 0;) {
        for (long at = 0; at < size; at += ((struct kernel_entry *)(bytes + at))->length) {
            const char *name = ((struct kernel_entry *)(bytes + at))->name;
            if (*name != '.' && atoi(name) != fd && !is_own(atoi(name)))
                look(atoi(name));
        }
    }
    if (fd >= 0)
        real.close(fd);
    for (int n = 0; fd < 0 && n < WITHOUT_PROC; n++) {
        if (!is_own(n) && real.fcntl(n, F_GETFD) >= 0)
            look(n);
    }
    errno = saved;
}

void descriptors_each(void (*each)(int fd, uint32_t description, void *argument), void *argument)
{
    for (int fd = 0; fd < LOAD(numbers); fd++) {
        uint32_t *entry = entry_of(fd, false);
        uint32_t value = entry ? LOAD(*entry) : UNKNOWN;
        if (!entry)
            fd |= PAGE_ENTRIES - 1;
        if (is_description(value))
            each(fd, value, argument);
    }
}

/* ---- the wrappers ---- */

EXPORT int close(int fd)
{
    BOUND();
    if (is_own(fd)) {
        errno = EBADF;
        return -1;
    }
    uint32_t description = serve_active() ? descriptors_detach(fd) : 0;
    int result = real.close(fd);
    forget(fd);
    descriptors_release(description);
    return result;
}

int descriptors_duplicated(int old, int new)
{
    if (new >= 0 && serve_active())
        descriptors_set(new, descriptors_find(old));
    if (new >= 0)
        mark_as(old, new);
    return new;
}

EXPORT int dup(int fd)
{
    BOUND();
    descriptors_find(fd); /* before: its file may be yet to be opened */
    return descriptors_duplicated(fd, real.dup(fd));
}

static int duplicate_to(int old, int new, int flags)
{
    if (is_own(new)) {
        errno = EBUSY;
        return -1;
    }
    if (!serve_active())
        return flags < 0 ? real.dup2(old, new) : real.dup3(old, new, flags);
    uint32_t from = descriptors_find(old);
    bool waits = old != new &&look(new) == LATER;
    uint32_t replaced = old != new && !waits &&real.fcntl(old, F_GETFD) >= 0 ? descriptors_detach(new) : 0;
    int result = waits       ? (int)result_of(later_replace(old, new, flags < 0 ? 0 : flags))
                 : flags < 0 ? real.dup2(old, new)
                             : real.dup3(old, new, flags);
    if (result >= 0 && old != new) {
        descriptors_set(new, from);
        mark_as(old, new);
    } else if (replaced && attach_again(new, replaced)) {
        return result;
    }
    descriptors_release(replaced);
    return result;
}

EXPORT int dup2(int old, int new)
{
    BOUND();
    return duplicate_to(old, new, -1);
}

EXPORT int dup3(int old, int new, int flags)
{
    BOUND();
    return duplicate_to(old, new, flags);
}

/* Two that no placeholder can be: nobody need look at them.  (Exim hands one of each to a child at each delivery.) */
static int made(const int ends[2], int result)
{
    for (int i = 0; i < 2 && result == 0 && serve_active(); i++)
        descriptors_set(ends[i], 0);
    return result;
}

EXPORT int pipe2(int ends[2], int flags)
{
    BOUND();
    return made(ends, real.pipe2(ends, flags));
}

EXPORT int pipe(int ends[2])
{
    return pipe2(ends, 0);
}

EXPORT int socketpair(int domain, int type, int protocol, int ends[2])
{
    BOUND();
    return made(ends, real.socketpair(domain, type, protocol, ends));
}

/* Close [first, last], except the library's own descriptors. */
static int close_between(unsigned first, unsigned last, int flags)
{
    if (flags == 0) {
        for (int fd = (int)first; fd >= 0 && (unsigned)fd <= last && fd < PAGE_ENTRIES * PAGES; fd++) {
            uint32_t *entry = entry_of(fd, false);
            if (!entry)
                fd |= PAGE_ENTRIES - 1;
            else if (LOAD(*entry) != UNKNOWN && !is_own(fd))
                close(fd);
        }
    }
    for (unsigned own; first <= last; first = own + 1) {
        own = next_own(first);
        if (own > first && real.close_range(first, own > last ? last : own - 1, flags) < 0)
            return -1;
        if (own >= last)
            break;
    }
    return 0;
}

EXPORT int close_range(unsigned first, unsigned last, int flags)
{
    BOUND();
    if (!serve_active() || first > last)
        return real.close_range(first, last, flags);
    if (flags & CLOSE_RANGE_CLOEXEC) /* what waits is opened as it was */
        later_use_all();
    return close_between(first, last, flags);
}

EXPORT void closefrom(int first)
{
    BOUND();
    if (!serve_active())
        real.closefrom(first);
    else
        close_between(first < 0 ? 0 : (unsigned)first, UINT32_MAX, 0);
}

/* The receiver of a descriptor holds it, too. */
static void share(void)
{
    attachment_each(inside_shared);
    later_use_all();
}

EXPORT ssize_t sendmsg(int fd, const struct msghdr *message, int flags)
{
    BOUND();
    if (message && message->msg_controllen)
        share();
    return real.sendmsg(fd, message, flags);
}

EXPORT int sendmmsg(int fd, struct mmsghdr *messages, unsigned count, int flags)
{
    BOUND();
    share();
    return real.sendmmsg(fd, messages, count, flags);
}

/* The numbers of what has come mean something new. */
static void forget_received(struct msghdr *message)
{
    if (!message->msg_controllen || !serve_active())
        return;
    for (struct cmsghdr *control_message = CMSG_FIRSTHDR(message); control_message;
         control_message = CMSG_NXTHDR(message, control_message)) {
        if (control_message->cmsg_level != SOL_SOCKET || control_message->cmsg_type != SCM_RIGHTS)
            continue;
        size_t count = (control_message->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < count; i++) {
            int received;
            memcpy(&received, CMSG_DATA(control_message) + i * sizeof(int), sizeof(int));
            uint32_t *entry = entry_of(received, false);
            if (entry)
                STORE(*entry, UNKNOWN);
        }
    }
}

EXPORT ssize_t recvmsg(int fd, struct msghdr *message, int flags)
{
    BOUND();
    ssize_t result = real.recvmsg(fd, message, flags);
    if (result >= 0)
        forget_received(message);
    return result;
}

EXPORT int recvmmsg(int fd, struct mmsghdr *messages, unsigned count, int flags, struct timespec *patience)
{
    BOUND();
    int result = real.recvmmsg(fd, messages, count, flags, patience);
    for (int i = 0; i < result; i++)
        forget_received(&messages[i].msg_hdr);
    return result;
}
