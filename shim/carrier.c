/* SPDX-License-Identifier: MIT
 *
 * Carriers: processes that write to spool files for processes and programs that may not use the store.
 *
 * Exim opens the file for a command's output as root, becomes the recipient, and writes there what the command prints.
 *
 * Happy path:
 *   - Before this process leaves the store or executes a program, it forks a carrier, which stays attached.
 *   - Each descriptor becomes the writing end of a pipe.  Whoever inherits it, with or without the library, writes
 *     to it as to any other descriptor, and the carrier writes that to the file.
 *   - A process that has the library still asks by a socket instead (asking.c).  So when write() returns, the bytes
 *     are in the store, and the error is the store's.  Before it serves a request, the carrier empties the file's
 *     pipe: one order of writes.
 *   - The carrier ends with the last of its clients' descriptors.
 *
 * What nobody notices of it: it is no child of the program's (a clone forks it), and its death sends no signal.  All
 * signals are blocked in it, so no handler of the program's runs.  It has no descriptor of the program's.  None of its
 * uids is an ordinary user's, so no user can stop it.
 *
 * Failure modes:
 *   - The carrier is killed: EIO.  Without the library EPIPE and SIGPIPE.
 *   - The store refuses what came by a pipe (ENOSPC): the pipe is closed, so the next write to it is EPIPE.
 */
#include "carrier.h"

#include "asking.h"
#include "attachment.h"
#include "base/fd.h"
#include "base/rights.h"
#include "descriptors.h"
#include "fastspool.h"
#include "serve.h"
#include "store/inside.h"
#include "wrapper.h"

#include <alloca.h>
#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#define STACK           (256u << 10) /* of a carrier, beside its table of descriptors */
#define STACK_ALIGNMENT 16u

/* ---- the carrier ---- */

struct carrier {
    struct carried *carried;
    int count;
    int requests; /* socket, -1: none, or closed by all */
};

static ssize_t put(struct carrier *carrier, uint32_t file, const char *bytes, size_t size, off_t offset)
{
    const uint32_t description = carrier->carried[file].description;
    ssize_t done = 0;

    do {
        ssize_t part = offset < 0 ? fastspool_write(OF(description), bytes + done, size - (size_t)done)
                                  : fastspool_pwrite(OF(description), bytes + done, size - (size_t)done, offset + done);
        if (part <= 0)
            return done ? done : part;
        done += part;
    } while ((size_t)done < size);
    return done;
}

static void close_pipe(struct carried *carried)
{
    real.close(carried->in);
    carried->in = -1;
}

/* Write what is in the pipe, without waiting for more. */
static void empty_pipe(struct carrier *carrier, uint32_t file)
{
    struct carried *carried = &carrier->carried[file];
    static char bytes[ASKING_PIECE]; /* a thread's stack may be small */

    while (carried->in >= 0) {
        ssize_t got = real.read(carried->in, bytes, sizeof(bytes));
        if (got < 0 && errno == EAGAIN)
            return;
        if (got <= 0 || put(carrier, file, bytes, (size_t)got, -1) != got)
            close_pipe(carried);
    }
}

static void perform(struct carrier *carrier, const struct asking_request *request, const char *bytes, size_t size,
                    struct asking_answer *answer)
{
    answer->result = -EINVAL;
    if (request->file >= (uint32_t)carrier->count)
        return;
    const uint32_t description = carrier->carried[request->file].description;
    empty_pipe(carrier, request->file);
    switch (request->operation) {
    case ASKING_WRITE:
        answer->result = put(carrier, request->file, bytes, size, request->offset);
        break;
    case ASKING_SEEK:
        answer->result = fastspool_lseek(OF(description), request->offset, request->whence);
        break;
    case ASKING_TRUNCATE:
        answer->result = fastspool_ftruncate(OF(description), request->offset);
        break;
    case ASKING_SYNC:
        answer->result = fastspool_fsync(OF(description));
        break;
    case ASKING_STAT:
        answer->result = attachment_fstat(description, &answer->st);
        break;
    }
}

/* The descriptor that came with @message, -1: none, or no pipe.  A client may send any: a write to a pipe does no harm,
 * whoever does it. */
static int answer_pipe(struct msghdr *message)
{
    struct cmsghdr *control = CMSG_FIRSTHDR(message);
    struct stat st;
    int fd;

    if (!control || control->cmsg_type != SCM_RIGHTS || control->cmsg_len != CMSG_LEN(sizeof(int)))
        return -1;
    memcpy(&fd, CMSG_DATA(control), sizeof(fd));
    if (real.fstat(fd, &st) == 0 && S_ISFIFO(st.st_mode))
        return fd;
    real.close(fd);
    return -1;
}

static void serve_request(struct carrier *carrier)
{
    static char bytes[ASKING_PIECE];
    char control[CMSG_SPACE(sizeof(int))];
    struct asking_request request = {0};
    struct asking_answer answer = {0};
    struct iovec vector[2] = {{&request, sizeof(request)}, {bytes, sizeof(bytes)}};
    struct msghdr message = {
        .msg_iov = vector, .msg_iovlen = 2, .msg_control = control, .msg_controllen = CMSG_LEN(sizeof(int))};
    /* CMSG_SPACE has room for a second descriptor, which nobody would close. */
    ssize_t size = real.recvmsg(carrier->requests, &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);

    if (size < 0 && errno == EAGAIN)
        return;
    if (size <= 0) {
        real.close(carrier->requests);
        carrier->requests = -1;
        return;
    }
    int fd = answer_pipe(&message);
    if (size >= (ssize_t)sizeof(request) && fd >= 0)
        perform(carrier, &request, bytes, (size_t)size - sizeof(request), &answer);
    else
        answer.result = -EINVAL;
    if (fd >= 0) {
        ssize_t ignored = real.write(fd, &answer, sizeof(answer));
        (void)ignored;
        real.close(fd);
    }
}

static void serve(struct carrier *carrier)
{
    struct pollfd *polled = alloca((size_t)(carrier->count + 1) * sizeof(*polled));

    for (;;) {
        bool any = carrier->requests >= 0;
        polled[carrier->count] = (struct pollfd){carrier->requests, POLLIN, 0};
        for (int i = 0; i < carrier->count; i++) {
            polled[i] = (struct pollfd){carrier->carried[i].in, POLLIN, 0};
            any = any || carrier->carried[i].in >= 0;
        }
        if (!any)
            return;
        poll(polled, (nfds_t)carrier->count + 1, -1);
        for (int i = 0; i < carrier->count; i++) {
            if (polled[i].revents)
                empty_pipe(carrier, (uint32_t)i);
        }
        if (polled[carrier->count].revents)
            serve_request(carrier);
    }
}

/* ---- its birth ---- */

/* The lowest descriptor from @from on that it keeps; UINT_MAX: there is none. */
static unsigned next_kept(const struct carrier *carrier, unsigned from)
{
    unsigned next = fd_next(from, carrier->requests, attachment_next_own(from, UINT_MAX));

    for (int i = 0; i < carrier->count; i++)
        next = fd_next(from, carrier->carried[i].in, fd_next(from, carrier->carried[i].fd, next));
    return next;
}

static void close_others(const struct carrier *carrier)
{
    unsigned first = 0;

    for (unsigned kept; (kept = next_kept(carrier, first)) < UINT_MAX; first = kept + 1) {
        if (kept > first)
            fd_close_range(first, kept - 1);
    }
    fd_close_range(first, UINT_MAX);
    /* Nothing of the store's may become descriptor 0 to 2. */
    int fd;
    while ((fd = real.open("/dev/null", O_RDWR | O_CLOEXEC)) >= 0 && fd < 3)
        ;
    if (fd >= 0)
        real.close(fd);
}

/* The store may have no descriptor of a carried file but the program's: one of these stays. */
static void let_go(int fd, uint32_t description, void *argument)
{
    struct carrier *carrier = argument;

    for (int i = 0; i < carrier->count; i++) {
        struct carried *carried = &carrier->carried[i];
        if (carried->description != description)
            continue;
        carried->fd = carried->fd < 0 ? fd : carried->fd;
        return;
    }
    close(fd);
}

/* Whoever has the real or the saved uid may stop a process. */
static void shed_users(void)
{
    uid_t uid[3];

    if (real.syscall(SYS_getresuid, &uid[1], &uid[0], &uid[2]) < 0)
        return;
    for (int i = 0; i < 3; i++) {
        if (serve_may_stay(uid[i])) {
            if (rights_settle(uid[i]) < 0)
                _exit(1);
            return;
        }
    }
}

static __attribute__((noreturn)) void become_carrier(struct carrier *carrier)
{
    real.syscall(SYS_setsid);
    real.syscall(SYS_prctl, PR_SET_NAME, "fastspool write");
    attachment_each(fastspool_after_fork_child);
    attachment_each(inside_shared);
    shed_users();
    descriptors_each(let_go, carrier);
    close_others(carrier);
    if (chdir("/") < 0)
        _exit(1);
    serve(carrier);
    for (int i = 0; i < carrier->count; i++)
        inside_close(OF(carrier->carried[i].description));
    _exit(0);
}

/* Shares the memory of fork_carrier(), which sleeps meanwhile. */
static int bear(void *carrier)
{
    pid_t child = real._Fork();
    if (child == 0)
        become_carrier(carrier);
    _exit(child < 0 ? 1 : 0);
}

/* The first child sends no signal when it ends, and no wait() of the program's sees it.  It shares the memory of this
 * process, as one of vfork does: a copy of Exim with its thirty libraries, and the end of that copy, cost a
 * millisecond. The second is libc's, so that libc knows its thread id.  It is a copy, and so keeps the stack of the
 * first for its own. */
static int fork_carrier(struct carrier *carrier)
{
    const size_t size = STACK + (size_t)carrier->count * sizeof(struct pollfd);
    sigset_t all, old;
    int status = 0;

    char *stack = real.mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
    if (stack == MAP_FAILED)
        return -errno;
    attachment_each(inside_shared);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    pid_t child = clone(bear, stack + size / STACK_ALIGNMENT * STACK_ALIGNMENT, CLONE_VM | CLONE_VFORK, carrier);
    int result = child < 0 ? -errno : 0;
    while (child > 0 && waitpid(child, &status, __WCLONE) < 0 && errno == EINTR)
        ;
    attachment_each(inside_shared); /* what other threads have opened meanwhile, too */
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    munmap(stack, size);
    return result == 0 && status != 0 ? -EAGAIN : result;
}

int carrier_pipe(struct carried *carried, uint32_t description)
{
    int ends[2];

    if (real.pipe2(ends, O_CLOEXEC) < 0)
        return -errno;
    real.fcntl(ends[0], F_SETFL, O_NONBLOCK);
    *carried = (struct carried){description, ends[0], ends[1], -1};
    return 0;
}

int carrier_start(struct carried *carried, int count, bool asked)
{
    struct carrier carrier = {carried, count, -1};
    int saved = errno;

    carrier.requests = asked ? asking_connect() : -1;
    int result = asked && carrier.requests < 0 ? carrier.requests : fork_carrier(&carrier);
    if (carrier.requests >= 0)
        real.close(carrier.requests);
    for (int i = 0; i < count; i++) {
        real.close(carried[i].in);
        if (result < 0)
            real.close(carried[i].out);
    }
    errno = saved;
    return result;
}
