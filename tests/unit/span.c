/* SPDX-License-Identifier: MIT
 *
 * What a process maps of the segment: no more than the tables need, and all of that, also when other processes have
 * made them larger.
 */
#include "store/span.h"

#include "fixture.h"
#include "store/inside.h"
#include "store/section.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <setjmp.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

#define FILES 20000 /* more than are mapped at first, of inodes and of names */
#define LARGE (UINT64_C(20) << 20)

TestSuite(span, .init = fixture_setup, .fini = fixture_teardown);

static uint64_t address_space(void)
{
    unsigned long pages = 0;
    FILE *file = fopen("/proc/self/statm", "r");

    cr_assert_eq(fscanf(file, "%lu", &pages), 1);
    fclose(file);
    return (uint64_t)pages * 4096;
}

static void make_files(struct fastspool *store, int count)
{
    char path[32];

    for (int i = 0; i < count; i++) {
        snprintf(path, sizeof(path), "%d", i);
        int file = fastspool_open(store, path, O_CREAT | O_WRONLY, 0600);
        cr_assert_geq(file, 0);
        cr_assert_eq(fastspool_close(store, file), 0);
    }
}

static void make_large(struct fastspool *store)
{
    static char bytes[65536];
    int file = fastspool_open(store, "large", O_CREAT | O_WRONLY, 0600);

    memset(bytes, 'x', sizeof(bytes));
    for (uint64_t done = 0; done < LARGE; done += sizeof(bytes))
        cr_assert_eq(fastspool_write(store, file, bytes, sizeof(bytes)), (ssize_t)sizeof(bytes));
    cr_assert_eq(fastspool_close(store, file), 0);
}

/* In another process, which ends by itself. */
static void in_child(void (*act)(void))
{
    int status;
    pid_t child = fork();

    if (child == 0) {
        act();
        _exit(0);
    }
    cr_assert_eq(waitpid(child, &status, 0), child);
    cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static void lift_limit(void)
{
    const struct rlimit unlimited = {RLIM_INFINITY, RLIM_INFINITY};

    cr_assert_eq(setrlimit(RLIMIT_AS, &unlimited), 0);
}

static void fill(void)
{
    lift_limit();
    checking_every(5000); /* a check looks at all files */
    struct fastspool *other = fixture_attach();

    make_files(other, FILES);
    make_large(other);
    fixture_detach(other);
}

/* An empty store takes little address space. */
Test(span, small)
{
    uint64_t before = address_space();
    struct fastspool *other = fixture_attach();

    cr_assert_lt(address_space() - before, UINT64_C(64) << 20, "attaching takes %llu MiB",
                 (unsigned long long)(address_space() - before) >> 20);
    fixture_detach(other);
    cr_assert_leq(address_space(), before + (UINT64_C(1) << 20));
}

/* A process sees all of what others have made since it attached: by a read without the lock, and by a change. */
Test(span, follows)
{
    char path[32], bytes[4096];
    struct stat st;

    in_child(fill);
    cr_assert(!span_reaches(fs), "this test can't fail");
    for (int i = 0; i < FILES; i += 97) {
        snprintf(path, sizeof(path), "%d", i);
        cr_assert_eq(fastspool_stat(fs, path, &st), 0);
    }
    cr_assert(span_reaches(fs));
    int file = fastspool_open(fs, "large", O_RDONLY, 0);
    for (uint64_t at = 0; at < LARGE; at += sizeof(bytes)) {
        cr_assert_eq(fastspool_read(fs, file, bytes, sizeof(bytes)), (ssize_t)sizeof(bytes));
        cr_assert(bytes[0] == 'x' && bytes[4095] == 'x', "at byte %llu", (unsigned long long)at);
    }
    cr_assert_eq(fastspool_close(fs, file), 0);
    cr_assert_eq(fastspool_unlink(fs, "large"), 0);
    make_files(fs, 100);
}

/* A child has what its parent had mapped: so the parent of many maps first. */
Test(span, follows_before_a_fork)
{
    in_child(fill);
    cr_assert(!span_reaches(fs), "this test can't fail");
    inside_shared(fs);
    cr_assert(span_reaches(fs));
}

static void fill_with_messages(void)
{
    char path[32];

    lift_limit();
    checking_every(5000);
    cr_assert_eq(fastspool_mkdir(fs, "input", 0700), 0);
    for (int i = 0; i < 2 * FILES; i++) {
        snprintf(path, sizeof(path), "input/%06d-000001-AB-H", i);
        cr_assert_eq(fastspool_close(fs, fastspool_open(fs, path, O_CREAT | O_WRONLY, 0600)), 0);
    }
}

/* Behind the next mmap() of the segment a handler runs. */
static void (*interrupt)(void);

void *mmap(void *at, size_t size, int protection, int flags, int fd, off_t offset)
{
    void *got = (void *)syscall(SYS_mmap, at, size, protection, flags, fd, offset);
    void (*handler)(void) = fs && fd == fs->segment_fd ? interrupt : NULL;

    if (handler) {
        interrupt = NULL;
        handler();
    }
    return got;
}

static jmp_buf call;

static void leave(void)
{
    longjmp(call, 1);
}

static void look(void)
{
    struct stat st;
    cr_assert_eq(fastspool_stat(fs, "1", &st), 0);
}

static void bear(void)
{
    in_child(look);
}

/* A handler comes between the mapping and its count.  It may use the store, leave by longjmp, or be a thread that
 * forks: all is mapped, and by the interrupted call, too. */
Test(span, interrupted)
{
    void (*const handlers[])(void) = {look, leave, bear};

    /* (volatile: a longjmp comes in between) */
    for (volatile size_t i = 0; i < sizeof(handlers) / sizeof(*handlers); i++) {
        in_child(fill);
        cr_assert(!span_reaches(fs), "this test can't fail");
        interrupt = handlers[i];
        if (setjmp(call) == 0)
            look();
        cr_assert(!interrupt);
        look();
        cr_assert(span_reaches(fs));
        fixture_teardown();
        fixture_setup();
    }
}

/* So does the status, which takes no lock and reads in no section. */
Test(span, counts)
{
    struct fastspool_status status;

    in_child(fill_with_messages);
    cr_assert(!span_reaches(fs), "this test can't fail");
    cr_assert_eq(fastspool_status(fs, &status), 0);
    cr_assert_eq(status.messages, 2 * FILES, "%u messages", (unsigned)status.messages);
}

static void limit_address_space(uint64_t more)
{
    const struct rlimit limit = {address_space() + more, RLIM_INFINITY};

    cr_assert_eq(setrlimit(RLIMIT_AS, &limit), 0);
}

static void refuse(void)
{
    struct stat st;
    char bytes[16];

    checking_every(0); /* a check needs memory, and all of the segment */
    int file = fastspool_open(fs, "file", O_CREAT | O_RDWR, 0600);

    if (fastspool_write(fs, file, "content", 7) != 7)
        _exit(1);
    limit_address_space(0);
    in_child(fill);
    if (fastspool_stat(fs, "1", &st) != -ENOMEM || fastspool_unlink(fs, "1") != -ENOMEM ||
        fastspool_pread(fs, file, bytes, sizeof(bytes), 0) != -ENOMEM)
        _exit(2);
    lift_limit();
    if (fastspool_stat(fs, "1", &st) != 0 || fastspool_pread(fs, file, bytes, sizeof(bytes), 0) != 7)
        _exit(3);
}

/* A process that may have no more address space gets ENOMEM, and the store stays well. */
Test(span, no_room)
{
    struct stat st;

    in_child(refuse);
    cr_assert_eq(fastspool_stat(fs, "1", &st), 0);
    cr_assert_eq(LOAD(fs->header->state), SEGMENT_READY);
}

/* A segment that counts more than any table can have takes no address beyond the tables. */
Test(span, nonsense)
{
    struct stat st;

    checking_every(0);
    make_files(fs, 1);
    uint32_t before = fs->header->tables.inodes.capacity;
    WRITABLE(fs->header->tables.inodes.capacity) = UINT32_MAX;
    limit_address_space(UINT64_C(4) << 30);
    cr_assert_eq(fastspool_stat(fs, "0", &st), 0);
    cr_assert_leq(fs->span.inodes, INODES_MAX);
    WRITABLE(fs->header->tables.inodes.capacity) = before;
}

/* Many stores in one process never come into each other's way. */
Test(span, many)
{
    enum { STORES = 100 };
    struct fastspool *other[STORES];
    struct stat st;

    in_child(fill);
    for (int i = 0; i < STORES; i++) {
        other[i] = fixture_attach();
        cr_assert_eq(fastspool_stat(other[i], "19999", &st), 0);
    }
    for (int i = 0; i < STORES; i++)
        fixture_detach(other[i]);
}

/* ---- where it lies ---- */

static ucontext_t outside;
static struct fastspool *other;

static void attach_here(void)
{
    other = fixture_attach();
}

/* A program attaches on a stack of its own, which lies near the beginning of all addresses. */
Test(span, low_stack)
{
    const size_t size = 1 << 20;
    ucontext_t inside;
    void *stack = mmap((void *)(uintptr_t)0x20000000, size, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);

    cr_assert(stack != MAP_FAILED && getcontext(&inside) == 0);
    inside.uc_stack = (stack_t){.ss_sp = stack, .ss_size = size};
    inside.uc_link = &outside;
    makecontext(&inside, attach_here, 0);
    cr_assert_eq(swapcontext(&outside, &inside), 0);
    make_files(other, 1);
    fixture_detach(other);
}
