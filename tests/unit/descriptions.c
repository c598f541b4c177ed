/* SPDX-License-Identifier: MIT
 *
 * Open file descriptions: shared by a fork, freed after a process's death, recognized by their descriptors.
 */
#include "store/descriptions.h"
#include "base/atomic.h"
#include "base/clock.h"
#include "base/fd.h"
#include "fastspool.h"
#include "fixture.h"
#include "store/files.h"
#include "store/layout.h"
#include "store/store.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

TestSuite(descriptions, .init = fixture_setup, .fini = fixture_teardown);

static int create(const char *path)
{
    int d = fastspool_open(fs, path, O_RDWR | O_CREAT | O_EXCL, 0640);
    cr_assert_geq(d, 0);
    return d;
}

static pid_t fork_child(void)
{
    descriptions_shared(fs);
    pid_t pid = fork();
    if (pid == 0)
        fastspool_after_fork_child(fs);
    return pid;
}

static int end_of(pid_t pid)
{
    int status;
    cr_assert_eq(waitpid(pid, &status, 0), pid);
    return status;
}

/* A closed description is reused: 1,000 opens take no new entry of the table. */
Test(descriptions, pooled)
{
    int first = create("a");
    fastspool_close(fs, first);
    uint32_t used = fs->header->tables.descriptions.used;
    for (int i = 0; i < 1000; i++) {
        int d = fastspool_open(fs, "a", O_RDONLY, 0);
        cr_assert_geq(d, 0);
        fastspool_close(fs, d);
    }
    cr_assert_eq(fs->header->tables.descriptions.used, used);
}

/* An open that fails leaves a description idle in the pool as it was, and is one section. */
Test(descriptions, failed_open)
{
    int first = create("a");
    fastspool_close(fs, first);
    uint32_t used = fs->header->tables.descriptions.used, count = fs->header->tables.descriptions.count;
    uint64_t sections = fs->header->history_count;
    for (int i = 0; i < 100; i++)
        cr_assert_eq(fastspool_open(fs, "missing", O_RDONLY, 0), -ENOENT);
    cr_assert_eq(fs->header->history_count, sections + 100);
    cr_assert_eq(fs->header->tables.descriptions.used, used);
    cr_assert_eq(fs->header->tables.descriptions.count, count);
    cr_assert_eq(fastspool_open(fs, "a", O_RDONLY, 0), first);
}

/* Children of one parent, and the parent, do not draw the same cookies. */
Test(descriptions, cookies_of_siblings)
{
    enum { CHILDREN = 4 };
    uint64_t *cookie = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    fastspool_close(fs, create("a"));
    for (int i = 0; i < CHILDREN; i++) {
        pid_t pid = fork_child();
        if (pid == 0) {
            cookie[i] = description_at(fs, (uint32_t)fastspool_open(fs, "a", O_RDONLY, 0))->cookie;
            _exit(0);
        }
        cr_assert_eq(end_of(pid), 0);
    }
    fastspool_open(fs, "a", O_RDONLY, 0); /* the idle one */
    cookie[CHILDREN] = description_at(fs, (uint32_t)fastspool_open(fs, "a", O_RDONLY, 0))->cookie;
    for (int i = 0; i <= CHILDREN; i++) {
        for (int j = 0; j < i; j++)
            cr_assert_neq(cookie[i], cookie[j], "%d and %d", i, j);
    }
}

/* A process can have 90 files open at once, more than a page of its pool holds (64). */
Test(descriptions, many)
{
    int d[90];
    fastspool_close(fs, create("a"));
    for (size_t i = 0; i < 90; i++)
        cr_assert_geq(d[i] = fastspool_open(fs, "a", O_RDONLY, 0), 0, "open %zu: %s", i, strerror(-d[i]));
    for (size_t i = 0; i < 90; i++)
        cr_assert_eq(fastspool_close(fs, d[i]), 0);
}

/* What the mail user writes to the segment about placeholders changes nothing: a descriptor of theirs stays one, and
 * one of another directory does not become one. */
Test(descriptions, numbers_in_the_segment)
{
    int fd, fresh, description = files_open_new(fs, "file", O_RDWR | O_CREAT, 0640, &fd, &fresh);
    struct stat st;
    char path[96];

    cr_assert_gt(description, 0);
    snprintf(path, sizeof(path), "%s/other", fixture_directory);
    cr_assert_eq(mkdir(path, 0700), 0);
    int other = open(path, O_RDONLY | O_DIRECTORY);
    cr_assert_eq(fstat(other, &st), 0);
    cr_assert_geq(lseek(other, lseek(fd, 0, SEEK_CUR), SEEK_SET), 0);
    for (unsigned i = 0; i < PLACEHOLDERS; i++)
        WRITABLE(fs->header->placeholder_inode[i]) = st.st_ino;
    cr_assert_eq(descriptions_identify(fs, fd), description);
    cr_assert_eq(descriptions_identify(fs, other), 0);
    struct fastspool *later = fixture_attach();
    cr_assert_eq(descriptions_identify(later, other), 0, "a directory of the mail user's choice was taken for a file");
    fixture_detach(later);
    close(other);
    close(fresh);
    close(fd);
}

static int lowest_free(void)
{
    int fd = dup(0);
    close(fd);
    return fd;
}

/* The number that a placeholder was opened with is the program's, and none is lost where the file can't be opened. */
Test(descriptions, fresh_number)
{
    int fd, fresh, lowest;

    fastspool_close(fs, create("a"));
    fixture_detach(fs);
    fs = fixture_attach();
    lowest = lowest_free();
    cr_assert_eq(files_open_new(fs, "a", O_RDWR | O_CREAT | O_EXCL, 0640, &fd, &fresh), -EEXIST);
    cr_assert_eq(fresh, -1);
    cr_assert_eq(lowest_free(), lowest, "it has kept a number");
    fixture_detach(fs);
    fs = fixture_attach();
    int d = files_open_new(fs, "a", O_RDWR, 0, &fd, &fresh);
    cr_assert_gt(d, 0);
    cr_assert_eq(fresh, lowest);
    cr_assert_gt(fd, fresh);
    cr_assert_eq(fcntl(fresh, F_GETFD), FD_CLOEXEC);
    cr_assert_eq(descriptions_identify(fs, fresh), d);
    close(fresh);
    cr_assert_eq(fastspool_close(fs, d), 0);
    d = files_open_new(fs, "a", O_RDWR, 0, &fd, &fresh);
    cr_assert_gt(d, 0);
    cr_assert_eq(fresh, -1, "the placeholder was open before");
    cr_assert_eq(fastspool_close(fs, d), 0);
}

/* Where the pool finds no memory for one more, no number is kept, nor told of: its caller would close it a second time,
 * when it may be another thread's. */
Test(descriptions, pool_without_memory)
{
    const struct rlimit nothing = {1, RLIM_INFINITY}, all = {RLIM_INFINITY, RLIM_INFINITY};
    uint32_t description;
    int fd, fresh;

#ifdef __SANITIZE_ADDRESS__
    cr_skip_test("the sanitizer needs memory, too");
#endif
    fastspool_close(fs, create("a"));
    for (int i = 0; i < POOL_PLACES; i++)
        cr_assert_geq(fastspool_open(fs, "a", O_RDONLY, 0), 0);
    int lowest = lowest_free();
    cr_assert_eq(setrlimit(RLIMIT_AS, &nothing), 0);
    int result = descriptions_take(fs, &description, &fd, &fresh);
    setrlimit(RLIMIT_AS, &all);
    cr_assert_eq(result, -ENOMEM);
    cr_assert_eq(fresh, -1);
    cr_assert_eq(lowest_free(), lowest);
}

static bool is_own(int fd)
{
    return descriptions_next_own(fs, (unsigned)fd, (unsigned)fd) == (unsigned)fd;
}

/* The pool's own descriptors are known, whatever their numbers, and no others. */
Test(descriptions, own_descriptors)
{
    int low = open("/", O_RDONLY), fd, fresh;
    uint32_t description;

    cr_assert_not(is_own(low));
    cr_assert_eq(descriptions_take(fs, &description, &fd, &fresh), 0);
    cr_assert(is_own(fd));
    cr_assert_not(is_own(fresh));
    cr_assert_not(is_own(low));
    cr_assert_eq(descriptions_set_spill(fs, description, low), 0);
    cr_assert(is_own(low) && is_own(fd));
    cr_assert_not(is_own(fresh));
    close(fresh);
    cr_assert_eq(descriptions_close(fs, description), 0);
    cr_assert_not(is_own(low));
    cr_assert(is_own(fd), "an idle one is the pool's, too");
}

/* The descriptor of a placeholder, and a copy of it, identify the description.  The same directory with a guessed
 * offset does not, nor does another directory, a description without a file, or a closed description. */
Test(descriptions, identity)
{
    uint32_t description, other;
    int fd, other_fd, fresh, other_fresh;

    cr_assert_eq(descriptions_take(fs, &description, &fd, &fresh), 0);
    cr_assert_eq(files_open(fs, "a", O_RDWR | O_CREAT, 0640, description), 0);
    cr_assert_eq(descriptions_identify(fs, fd), description);
    int copy = dup(fd);
    cr_assert_eq(descriptions_identify(fs, copy), description);
    char name[8];
    snprintf(name, sizeof(name), "p%02u", description % PLACEHOLDERS);
    int guess = openat(fs->runtime_fd, name, O_RDONLY | O_DIRECTORY);
    lseek(guess, (off_t)description, SEEK_SET);
    cr_assert_eq(descriptions_identify(fs, guess), 0, "an offset without the cookie was accepted");
    lseek(guess, lseek(fd, 0, SEEK_CUR), SEEK_SET);
    int elsewhere = open("/tmp", O_RDONLY | O_DIRECTORY);
    cr_assert_eq(descriptions_identify(fs, elsewhere), 0);
    cr_assert_eq(descriptions_take(fs, &other, &other_fd, &other_fresh), 0);
    cr_assert_eq(descriptions_identify(fs, other_fd), 0, "a description without a file was accepted");
    cr_assert_eq(descriptions_close(fs, description), 0);
    cr_assert_eq(descriptions_identify(fs, copy), 0, "a stale descriptor was accepted");
    close(copy);
    close(fresh);
    close(other_fresh);
    close(guess);
    close(elsewhere);
}

/* Parent and child share one offset.  An unlinked file lives until one has closed it and the other has died. */
Test(descriptions, shared_by_fork)
{
    char bytes[4];
    int d = create("a");

    cr_assert_eq(fastspool_write(fs, d, "abcdef", 6), 6);
    cr_assert_eq(fastspool_lseek(fs, d, 0, SEEK_SET), 0);
    pid_t pid = fork_child();
    if (pid == 0) {
        bool right = fastspool_read(fs, d, bytes, 3) == 3 && memcmp(bytes, "abc", 3) == 0;
        pause();
        _exit(!right);
    }
    while (fastspool_lseek(fs, d, 0, SEEK_CUR) != 3)
        usleep(1000);
    cr_assert_eq(fastspool_read(fs, d, bytes, 3), 3);
    cr_assert_eq(memcmp(bytes, "def", 3), 0);
    cr_assert_eq(fastspool_unlink(fs, "a"), 0);
    cr_assert_eq(fastspool_close(fs, d), 0);
    cr_assert_eq(descriptions_reap(fs), 0);
    cr_assert_eq(fs->header->tree.files, 1, "freed while the child had it open");
    kill(pid, SIGKILL);
    end_of(pid);
    cr_assert_eq(descriptions_reap(fs), 0);
    cr_assert_eq(fs->header->tree.files, 0);
    cr_assert_eq(fs->header->blocks.used, 0);
}

/* Parent and children go on from one state, and no two of them give a description the same cookie. */
Test(descriptions, cookies_of_a_family)
{
    uint64_t cookies[4] = {description_at(fs, create("a"))->cookie};
    int from_child[2];

    cr_assert_eq(pipe(from_child), 0);
    for (int i = 1; i < 3; i++) {
        char name[2] = {(char)('a' + i), '\0'};
        pid_t pid = fork_child();
        if (pid == 0) {
            cookies[i] = description_at(fs, create(name))->cookie;
            _exit(write(from_child[1], &cookies[i], sizeof(cookies[i])) != sizeof(cookies[i]));
        }
        cr_assert_eq(end_of(pid), 0);
        cr_assert_eq(read(from_child[0], &cookies[i], sizeof(cookies[i])), sizeof(cookies[i]));
    }
    cookies[3] = description_at(fs, create("d"))->cookie;
    for (int i = 0; i < 4; i++) {
        for (int j = 0; j < i; j++)
            cr_assert_neq(cookies[i], cookies[j]);
    }
}

/* Who leaves the store frees nothing that another process may have open; the last one's is freed by
 * descriptions_reap().
 */
Test(descriptions, left)
{
    int d = create("a"), alone = create("b"), ready[2], go[2];
    char byte;

    cr_assert_eq(fastspool_unlink(fs, "a"), 0);
    cr_assert(pipe(ready) == 0 && pipe(go) == 0);
    pid_t pid = fork_child();
    if (pid == 0) {
        bool right = read(go[0], &byte, 1) == 1 && descriptions_leave(fs, (uint32_t)d) == 0;
        _exit(!right);
    }
    cr_assert_eq(fastspool_close(fs, d), 0);
    cr_assert_eq(fs->header->tree.files, 2, "freed while the child had it open");
    cr_assert_eq(write(go[1], "x", 1), 1);
    cr_assert_eq(end_of(pid), 0);
    cr_assert_eq(fs->header->tree.files, 2, "nobody has looked yet");
    cr_assert_eq(descriptions_reap(fs), 0);
    cr_assert_eq(fs->header->tree.files, 1);
    int own = create("c"); /* of no fork: freed at once */
    cr_assert_eq(fastspool_unlink(fs, "c"), 0);
    cr_assert_eq(descriptions_leave(fs, (uint32_t)own), 0);
    cr_assert_eq(fs->header->tree.files, 1);
    cr_assert_eq(fastspool_close(fs, alone), 0);
}

/* descriptions_reap() frees what a killed process had open, and nothing before its death. */
Test(descriptions, death)
{
    int ready[2];
    char byte;

    cr_assert_eq(pipe(ready), 0);
    pid_t pid = fork_child();
    if (pid == 0) {
        int d = create("a");
        fastspool_write(fs, d, "x", 1);
        fastspool_unlink(fs, "a");
        if (write(ready[1], "r", 1) != 1)
            _exit(1);
        pause();
    }
    cr_assert_eq(read(ready[0], &byte, 1), 1);
    cr_assert_eq(descriptions_reap(fs), 0);
    cr_assert_eq(fs->header->tree.files, 1);
    kill(pid, SIGKILL);
    end_of(pid);
    cr_assert_eq(descriptions_reap(fs), 0);
    cr_assert_eq(fs->header->tree.files, 0);
}

/* Another process sees a record lock, and a forked child does not inherit it.  Closing any description of the file
 * drops the process's locks.  A read lock needs a description that can read. */
Test(descriptions, record_locks)
{
    struct flock all = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    int d = create("a");
    struct flock far = {.l_type = F_WRLCK, .l_whence = SEEK_CUR, .l_start = INT64_MAX},
                 before = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 5, .l_len = INT64_MIN};

    cr_assert_eq(fastspool_lseek(fs, d, 1, SEEK_SET), 1);
    cr_assert_eq(fastspool_lock(fs, d, F_SETLK, &far), -EOVERFLOW); /* as of a file on the disk */
    cr_assert_eq(fastspool_lock(fs, d, F_SETLK, &before), -EINVAL);
    cr_assert_eq(fastspool_lock(fs, d, F_SETLK, &all), 0);
    pid_t pid = fork_child();
    if (pid == 0) {
        struct flock probe = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 5, .l_len = 10};
        int e = fastspool_open(fs, "a", O_RDWR, 0);
        bool right = fastspool_lock(fs, e, F_SETLK, &probe) == -EAGAIN;
        right = right && fastspool_lock(fs, e, F_GETLK, &probe) == 0 && probe.l_type == F_WRLCK &&
                probe.l_pid == getppid() && probe.l_start == 0 && probe.l_len == 0;
        right = right && fastspool_close(fs, e) == 0;
        _exit(!right);
    }
    cr_assert_eq(end_of(pid), 0);
    int e = fastspool_open(fs, "a", O_RDONLY, 0);
    cr_assert_eq(fastspool_close(fs, e), 0);
    pid = fork_child();
    if (pid == 0) {
        e = fastspool_open(fs, "a", O_RDWR, 0);
        _exit(fastspool_lock(fs, e, F_SETLK, &all) != 0);
    }
    cr_assert_eq(end_of(pid), 0, "closing another description of the file did not drop the lock");
    struct flock read_lock = {.l_type = F_RDLCK, .l_whence = SEEK_SET};
    int write_only = fastspool_open(fs, "a", O_WRONLY, 0);
    cr_assert_eq(fastspool_lock(fs, write_only, F_SETLK, &read_lock), -EBADF);
}

/* ---- a process that is stopped while it takes a description ---- */

static bool stopping;

/* The library opens a placeholder: as if the process had been stopped here for longer than a reservation lasts. */
int openat(int directory, const char *name, int flags, ...)
{
    if (stopping && name[0] == 'p') {
        stopping = false;
        for (uint32_t d = 1; d < fs->header->tables.descriptions.used; d++) {
            const struct description *description = description_at(fs, d);
            if (description->state == DESCRIPTION_POOLED && description->pooled_at)
                STORE(description->pooled_at, description->pooled_at - 60 * NS_PER_S);
        }
        cr_assert_eq(descriptions_reap(fs), 0);
    }
    return (int)syscall(SYS_openat, directory, name, flags, 0600);
}

/* The mirror frees the number of a process that is stopped before it has locked it.  The process then takes another. */
Test(descriptions, stopped_between_number_and_lock)
{
    int first = create("a");

    stopping = true;
    int second = create("b");
    cr_assert_not(stopping, "no placeholder was opened");
    cr_assert_eq(LOAD(fs->header->state), SEGMENT_READY);
    cr_assert_eq(fastspool_pwrite(fs, second, "b", 1, 0), 1);
    cr_assert_eq(fs->header->tables.descriptions.count, 2);
    cr_assert_eq(fastspool_close(fs, first), 0);
    cr_assert_eq(fastspool_close(fs, second), 0);
}

/* A descriptor's name in /proc is what printf would make of it; of a negative number it is one that nobody has. */
Test(descriptions, name_in_proc)
{
    static const int numbers[] = {0, 7, 9, 10, 99, 100, 1023, 1024, INT_MAX};
    char link[FD_LINK_MAX], expected[FD_LINK_MAX];

    for (size_t i = 0; i < sizeof(numbers) / sizeof(*numbers); i++) {
        snprintf(expected, sizeof(expected), "/proc/self/fd/%d", numbers[i]);
        memset(link, '/', sizeof(link));
        fd_link(numbers[i], link);
        cr_assert_str_eq(link, expected);
    }
    fd_link(-1, link);
    cr_assert_lt(access(link, F_OK), 0);
}
