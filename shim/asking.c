/* SPDX-License-Identifier: MIT
 *
 * Asking: the calls of a process that has left the store, on files that its carrier writes to (carrier.c).
 *
 * Happy path:
 *   - Each request goes over the connection, with a pipe of its own for the answer.  So any number of threads and
 *     forked children may ask, and each gets its own answer.
 *   - A large write is made of pieces, as in the store.
 *
 * Failure modes:
 *   - The carrier is dead: EIO.
 *   - The carrier waits, for the disk or for memory, or stands still, and a signal is to end this process: EINTR.  What
 *     was asked for may be done later.
 *   - No descriptor for the answer: the bytes go into the file's pipe, and arrive soon after write() has returned.
 */
#include "asking.h"

#include "base/atomic.h"
#include "base/fd.h"
#include "base/unconst.h"
#include "store/inside.h"
#include "wrapper.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>

/* ---- the connection of a process that has left the store ---- */

static int connection = -1;
static struct stat connected; /* the program may have closed it all the same */

int asking_connect(void)
{
    int ends[2];

    if (real.socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) < 0)
        return -errno;
    int high = fd_high(ends[0]);
    if (high < 0 || real.fstat(high, &connected) < 0) {
        real.close(ends[1]);
        return high < 0 ? high : -errno;
    }
    STORE(connection, high);
    return ends[1];
}

bool asking_is_own(int fd)
{
    struct stat st;

    return fd >= 0 && fd == LOAD(connection) && real.fstat(fd, &st) == 0 && st.st_dev == connected.st_dev &&
           st.st_ino == connected.st_ino;
}

unsigned asking_next_own(unsigned from)
{
    int fd = LOAD(connection);
    return fd >= 0 && (unsigned)fd >= from && asking_is_own(fd) ? (unsigned)fd : UINT_MAX;
}

/* ---- requests ---- */

#define NOT_ASKED INT64_MIN
#define LOOK      100 /* ms, between two looks for a signal */

static bool send_request(const struct asking_request *request, const void *bytes, size_t size, int answers)
{
    char control[CMSG_SPACE(sizeof(int))] = {0};
    struct iovec vector[2] = {{UNCONST(request), sizeof(*request)}, {UNCONST(bytes), size}};
    struct msghdr message = {
        .msg_iov = vector, .msg_iovlen = 2, .msg_control = control, .msg_controllen = sizeof(control)};
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);

    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(header), &answers, sizeof(int));
    return real.sendmsg(connection, &message, MSG_NOSIGNAL | MSG_DONTWAIT) >= 0;
}

/* Wait for the carrier, with all signals held off.  False: one that the program doesn't hold off itself, which @own
 * does, is to end this process. */
static bool await_carrier(int fd, short event, const sigset_t *own)
{
    struct pollfd awaited = {fd, event, 0};

    while (poll(&awaited, 1, LOOK) == 0) {
        if (inside_terminated(own))
            return false;
    }
    return true;
}

/* Send the request, and read the answer. */
static int64_t exchange(const struct asking_request *request, const void *bytes, size_t size, const int answers[2],
                        const sigset_t *own, struct asking_answer *answer)
{
    bool sent;

    while (!(sent = send_request(request, bytes, size, answers[1])) && errno == EAGAIN) {
        if (!await_carrier(connection, POLLOUT, own))
            break;
    }
    int error = errno;
    real.close(answers[1]);
    if (!sent)
        return error == EFAULT ? -EFAULT : error == EAGAIN ? -EINTR : -EIO;
    if (!await_carrier(answers[0], POLLIN, own))
        return -EINTR;
    return real.read(answers[0], answer, sizeof(*answer)) == (ssize_t)sizeof(*answer) ? answer->result : -EIO;
}

/* The result, -errno, or NOT_ASKED.  No handler of the program's runs meanwhile: it could leave by longjmp, or fork. */
static int64_t ask(const struct asking_request *request, const void *bytes, size_t size, struct asking_answer *answer)
{
    sigset_t all, old;
    int answers[2], saved = errno;

    if (!asking_is_own(LOAD(connection)))
        return -EIO;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    if (real.pipe2(answers, O_CLOEXEC) < 0) {
        answer->result = NOT_ASKED;
    } else {
        answer->result = exchange(request, bytes, size, answers, &old, answer);
        real.close(answers[0]);
    }
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    errno = saved;
    return answer->result;
}

/* @offset < 0: at the file's offset. */
static ssize_t write_by_carrier(int file, int fd, const char *bytes, size_t size, off_t offset)
{
    struct asking_answer answer;
    ssize_t done = 0;

    do {
        const struct asking_request request = {
            .file = (uint32_t)file, .operation = ASKING_WRITE, .offset = offset < 0 ? -1 : offset + done};
        size_t piece = size - (size_t)done < ASKING_PIECE ? size - (size_t)done : ASKING_PIECE;
        int64_t part = ask(&request, bytes + done, piece, &answer);
        if (part == NOT_ASKED)
            part = offset < 0 ? real.write(fd, bytes + done, piece) : -EMFILE;
        if (part < 0)
            return done ? done : result_of(part);
        done += part;
        if ((size_t)part < piece)
            break;
    } while ((size_t)done < size);
    return done;
}

ssize_t asking_write(int file, int fd, const void *bytes, size_t size)
{
    return write_by_carrier(file, fd, bytes, size, -1);
}

ssize_t asking_pwrite(int file, const void *bytes, size_t size, off_t offset)
{
    return offset < 0 ? result_of(-EINVAL) : write_by_carrier(file, -1, bytes, size, offset);
}

static int64_t ask_small(int file, enum asking_operation operation, off_t offset, int whence,
                         struct asking_answer *answer)
{
    const struct asking_request request = {
        .file = (uint32_t)file, .operation = operation, .offset = offset, .whence = whence};
    int64_t result = ask(&request, "", 0, answer);

    return result == NOT_ASKED ? -EMFILE : result;
}

off_t asking_lseek(int file, off_t offset, int whence)
{
    struct asking_answer answer;
    return result_of(ask_small(file, ASKING_SEEK, offset, whence, &answer));
}

int asking_ftruncate(int file, off_t size)
{
    struct asking_answer answer;
    return (int)result_of(ask_small(file, ASKING_TRUNCATE, size, 0, &answer));
}

int asking_fsync(int file)
{
    struct asking_answer answer;
    return (int)result_of(ask_small(file, ASKING_SYNC, 0, 0, &answer));
}

int asking_fstat(int file, struct stat *st)
{
    struct asking_answer answer;
    int64_t result = ask_small(file, ASKING_STAT, 0, 0, &answer);

    if (result == 0)
        *st = answer.st;
    return (int)result_of(result);
}
