/* SPDX-License-Identifier: MIT
 *
 * Random calls on one file, compared with a model in memory.
 *
 *      fsx DIRECTORY kernel|library|both SEED COUNT [--spoil]
 *
 * Happy path: COUNT random reads, writes, appends, truncations, seeks and mappings of the file DIRECTORY/file, by one
 * of two hands.  A hand is a process that makes the call; its data lie in memory that all share.  The first goes
 * through the kernel, the second has the library: `both` takes one at random for each call, so each has to see at once
 * what the other did.  The master knows what every call must return.  Nothing is printed if all is right.
 *
 * Failure modes: a wrong result is printed with the last steps, and the status is 1.  --spoil makes one on purpose.
 */
#include "../random.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#define MOST  600000 /* bytes of the file */
#define PIECE 140000 /* bytes of a call: more than a request of FUSE holds */
#define FDS   3
#define HANDS 2
#define LAST  12 /* steps that are told */

enum operation {
    WRITE,
    PWRITE,
    APPEND,
    WRITEV,
    READ,
    PREAD,
    MAPPED,
    TRUNCATE,
    FTRUNCATE,
    SEEK,
    STAT,
    REOPEN,
    SYNC,
    ALLOCATE,
    UNLINK,
    OPERATIONS
};
static const char *const names[OPERATIONS] = {"write", "pwrite", "append",   "writev",    "read",
                                              "pread", "mapped", "truncate", "ftruncate", "lseek",
                                              "stat",  "reopen", "fsync",    "fallocate", "unlink"};

/* What a hand is asked, and its answer; in shared memory, with the data. */
struct request {
    int operation, fd;
    int64_t offset, size;
    int64_t result; /* of the call, or a negative errno */
    unsigned char data[PIECE];
};

static struct request *request;
static char path[4096], program[4096];

/* ---- a hand ---- */

static int fds[FDS + 1]; /* the last one has O_APPEND */

static int64_t read_mapped(void)
{
    long page = 4096;
    struct stat found;
    if (fstat(fds[request->fd], &found) < 0) /* as every program does, to know what it may touch */
        return -1;
    int64_t from = request->offset & ~(page - 1);
    unsigned char *area =
        mmap(NULL, (size_t)(request->size + request->offset - from), PROT_READ, MAP_PRIVATE, fds[request->fd], from);

    if (area == MAP_FAILED)
        return -1;
    memcpy(request->data, area + (request->offset - from), (size_t)request->size);
    munmap(area, (size_t)(request->size + request->offset - from));
    return request->size;
}

static int64_t reopen(int number)
{
    if (fds[number] > 0)
        close(fds[number]);
    fds[number] = open(path, O_RDWR | O_CREAT | (number == FDS ? O_APPEND : 0), 0600);
    return fds[number] < 0 ? -1 : 0;
}

static int64_t write_vector(void)
{
    size_t half = (size_t)request->size / 3;
    struct iovec parts[3] = {{request->data, half}, {NULL, 0}, {request->data + half, (size_t)request->size - half}};

    return writev(fds[request->fd], parts, 3);
}

static int64_t do_request(void)
{
    int fd = fds[request->fd];
    size_t size = (size_t)request->size;
    struct stat found;

    switch ((enum operation)request->operation) {
    case WRITE:
        return write(fd, request->data, size);
    case PWRITE:
        return pwrite(fd, request->data, size, request->offset);
    case APPEND:
        return write(fds[FDS], request->data, size);
    case WRITEV:
        return write_vector();
    case READ:
        return read(fd, request->data, size);
    case PREAD:
        return pread(fd, request->data, size, request->offset);
    case MAPPED:
        return read_mapped();
    case TRUNCATE:
        return truncate(path, request->offset);
    case FTRUNCATE:
        return ftruncate(fd, request->offset);
    case SEEK:
        return lseek(fd, request->offset, (int)request->size);
    case STAT:
        return fstat(fd, &found) < 0 ? -1 : found.st_size;
    case REOPEN:
        return reopen(request->fd);
    case SYNC:
        return fsync(fd);
    case ALLOCATE:
        return fallocate(fd, 0, request->offset, request->size);
    case UNLINK:
        return unlink(path);
    default:
        errno = ENOSYS;
        return -1;
    }
}

#define COMMAND(hand) (500 + 4 * (hand))
#define ANSWER(hand)  (502 + 4 * (hand))
#define SHARED        520

static void live(int hand)
{
    char byte;

    while (read(COMMAND(hand), &byte, 1) == 1) {
        errno = 0;
        request->result = do_request();
        if (request->result < 0)
            request->result = -errno;
        if (write(ANSWER(hand) + 1, &byte, 1) != 1)
            break;
    }
    _exit(0);
}

/* ---- the master ---- */

static void share(void)
{
    request = mmap(NULL, sizeof(*request), PROT_READ | PROT_WRITE, MAP_SHARED, SHARED, 0);
    if (request == MAP_FAILED)
        exit(2);
}

static pid_t hands[HANDS];
static char last[LAST][120];
static long number_now; /* of the step */

static void tell_last(long number)
{
    for (long n = number < LAST ? 1 : number - LAST + 1; n <= number; n++)
        printf("    %s\n", last[n % LAST]);
}

static void start_hand(int hand, bool library)
{
    char number[12];
    int ends[2];

    for (int i = 0; i < 2; i++) {
        if (pipe(ends) < 0 || dup2(ends[0], (i ? ANSWER(hand) : COMMAND(hand))) < 0 ||
            dup2(ends[1], (i ? ANSWER(hand) : COMMAND(hand)) + 1) < 0)
            exit(2);
        close(ends[0]);
        close(ends[1]);
    }
    hands[hand] = fork();
    if (hands[hand] == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        close(COMMAND(hand) + 1);
        snprintf(number, sizeof(number), "%d", hand);
        if (library)
            setenv("LD_PRELOAD", "libfastspool.so", 1);
        execl(program, program, "--hand", path, number, (char *)NULL);
        _exit(8);
    }
}

static void ask(int hand, int operation, int fd, int64_t offset, int64_t size)
{
    char byte = 0;

    request->operation = operation;
    request->fd = fd;
    request->offset = offset;
    request->size = size;
    struct pollfd answer = {.fd = ANSWER(hand), .events = POLLIN};
    if (write(COMMAND(hand) + 1, &byte, 1) != 1 || poll(&answer, 1, 20000) <= 0 || read(ANSWER(hand), &byte, 1) != 1) {
        int status = 0;
        waitpid(hands[hand], &status, WNOHANG);
        printf("hand %d does not answer, status %x\n", hand, (unsigned)status);
        tell_last(number_now);
        exit(1);
    }
}

static unsigned char model[MOST + 2 * PIECE];
static int64_t length, position[HANDS][FDS];
static uint64_t state;

static unsigned some(unsigned below)
{
    return (unsigned)(random_next(&state) % below);
}

static void wrong(long number, const char *what, int64_t expected)
{
    printf("step %ld: %s: %lld expected, %lld found\n", number, what, (long long)expected, (long long)request->result);
    tell_last(number);
    exit(1);
}

/* Sizes and offsets near the borders of blocks, pages and requests are the likely ones to go wrong. */
static int64_t some_size(void)
{
    static const int borders[] = {0, 1, 1024, 4096, 65536, 131072};

    if (some(3) == 0)
        return borders[some(6)] + (some(3) && borders[1] ? (int64_t)some(3) : 0);
    return some(4) ? some(5000) : some(PIECE - 10);
}
static int64_t some_offset(void)
{
    int64_t offset = some(4) ? (int64_t)some((unsigned)length + 1) : (int64_t)some(MOST - PIECE);
    return some(3) ? offset : offset & ~INT64_C(4095);
}

static void fill(int64_t size, long number)
{
    unsigned char seed = (unsigned char)(some(255) + 1);
    for (int64_t i = 0; i < size; i++)
        request->data[i] = (unsigned char)(seed + i + number);
}

/* The model of a write at @offset. */
static void store(int64_t offset, int64_t size)
{
    if (size <= 0)
        return;
    memcpy(model + offset, request->data, (size_t)size);
    if (offset + size > length)
        length = offset + size;
}

static void cut(int64_t size)
{
    if (size < length)
        memset(model + size, 0, (size_t)(length - size));
    length = size;
}

static void check_data(long number, int64_t offset, int64_t size)
{
    int64_t expected = offset >= length ? 0 : size < length - offset ? size : length - offset;

    if (request->result != expected)
        wrong(number, "size of a read", expected);
    for (int64_t i = 0; i < expected; i++) {
        if (request->data[i] != model[offset + i]) {
            printf("byte %lld: %d expected, %d found\n", (long long)(offset + i), model[offset + i], request->data[i]);
            wrong(number, "content", expected);
        }
    }
}

static void do_writes(long number, int hand, int operation, int fd, int64_t size)
{
    int64_t offset = operation == PWRITE ? some_offset() : operation == APPEND ? length : position[hand][fd];

    if (offset + size > MOST)
        size = offset > MOST ? 0 : MOST - offset;
    fill(size, number);
    ask(hand, operation, fd, offset, size);
    if (request->result != size)
        wrong(number, "size of a write", size);
    store(offset, size);
    if (operation == WRITE || operation == WRITEV)
        position[hand][fd] += size;
}

static void do_reads(long number, int hand, int operation, int fd, int64_t size)
{
    int64_t offset = operation == READ ? position[hand][fd] : some_offset();

    if (operation == MAPPED && (offset + size > length || size == 0))
        operation = PREAD;
    memset(request->data, 0xee, sizeof(request->data));
    ask(hand, operation, fd, offset, size);
    check_data(number, offset, size);
    if (operation == READ)
        position[hand][fd] += request->result;
}

static void expect(long number, const char *what, int64_t expected)
{
    if (request->result != expected)
        wrong(number, what, expected);
}

static void do_others(long number, int hand, int operation, int fd, int64_t size)
{
    int64_t offset = some_offset();

    switch (operation) {
    case TRUNCATE:
    case FTRUNCATE:
        ask(hand, operation, fd, offset, 0);
        expect(number, "truncation", 0);
        cut(offset);
        break;
    case ALLOCATE:
        size = size ? size : 1;
        ask(hand, operation, fd, offset, size);
        expect(number, "fallocate", 0);
        length = offset + size > length ? offset + size : length;
        break;
    case REOPEN:
        ask(hand, operation, (int)some(FDS + 1), 0, 0);
        expect(number, "open", 0);
        if (request->fd < FDS)
            position[hand][request->fd] = 0;
        break;
    case STAT:
        ask(hand, operation, fd, 0, 0);
        expect(number, "size of the file", length);
        break;
    default:
        ask(hand, operation, fd, 0, 0);
        expect(number, names[operation], 0);
    }
}

static void do_seek(long number, int hand, int fd)
{
    int64_t to = some_offset();
    int how = (int)some(3);
    int64_t argument = how == SEEK_SET ? to : how == SEEK_CUR ? to - position[hand][fd] : to - length;

    ask(hand, SEEK, fd, argument, how);
    expect(number, "lseek", to);
    position[hand][fd] = to;
}

static bool is_unlinked;

static void do_step(long number, int hand)
{
    static const int weights[OPERATIONS] = {14, 14, 8, 4, 14, 14, 3, 3, 4, 6, 6, 4, 2, 2, 0};
    int dice = (int)some(98), operation = 0, fd = (int)some(FDS);

    while (dice >= weights[operation] && operation < ALLOCATE)
        dice -= weights[operation++];
    if (is_unlinked && (operation == TRUNCATE || operation == REOPEN))
        operation = FTRUNCATE;
    int64_t size = some_size();
    number_now = number;
    snprintf(last[number % LAST], sizeof(last[0]), "%ld: hand %d %s, descriptor %d, about %lld, length %lld", number,
             hand, names[operation], fd, (long long)size, (long long)length);
    if (operation <= WRITEV)
        do_writes(number, hand, operation, fd, size);
    else if (operation <= MAPPED)
        do_reads(number, hand, operation, fd, size);
    else if (operation == SEEK)
        do_seek(number, hand, fd);
    else
        do_others(number, hand, operation, fd, size);
}

/* Compare all of the file. */
static void check_all(long number, int hand)
{
    for (int64_t offset = 0; offset <= length; offset += PIECE) {
        ask(hand, PREAD, 0, offset, PIECE);
        check_data(number, offset, PIECE);
    }
}

int main(int argc, char **argv)
{
    ssize_t size = readlink("/proc/self/exe", program, sizeof(program) - 1);

    if (argc == 4 && strcmp(argv[1], "--hand") == 0) {
        snprintf(path, sizeof(path), "%s", argv[2]);
        share();
        live(atoi(argv[3]));
    }
    if (argc < 5 || size < 0) {
        fprintf(stderr, "usage: fsx DIRECTORY kernel|library|both SEED COUNT [--spoil]\n");
        return 2;
    }
    snprintf(path, sizeof(path), "%.4000s/file", argv[1]);
    state = strtoull(argv[3], NULL, 10);
    long count = atol(argv[4]);
    int memory = memfd_create("request", 0);
    if (memory < 0 || ftruncate(memory, sizeof(struct request)) < 0 || dup2(memory, SHARED) < 0)
        return 2;
    share();
    bool both = strcmp(argv[2], "both") == 0;
    for (int hand = 0; hand < HANDS; hand++) {
        start_hand(hand, strcmp(argv[2], "library") == 0 || (both && hand == 1));
        for (int fd = 0; fd <= FDS; fd++)
            ask(hand, REOPEN, fd, 0, 0);
    }
    for (long number = 1; number <= count; number++) {
        do_step(number, (int)some(HANDS));
        if (number % 1000 == 0)
            check_all(number, (int)some(HANDS));
    }
    if (argc > 5)
        model[length / 2]++;
    check_all(count, 0);
    check_all(count, 1);
    ask(0, UNLINK, 0, 0, 0);
    is_unlinked = true; /* it goes on while it is open */
    for (long number = count + 1; number <= count + 500; number++)
        do_step(number, (int)some(HANDS));
    check_all(count, 1);
    return 0;
}
