/* SPDX-License-Identifier: MIT
 *
 * What a section asks the kernel: nothing but what a permission depends on (docs/store-rules.md).
 *
 * A child calls, and is stopped at each system call.  Its parent has mapped the same store, and sees by the lock
 * whether the child is in a section.
 */
#include "fastspool.h"
#include "fixture.h"

#include <criterion/criterion.h>
#include <grp.h>
#include <linux/futex.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#define USER  12345
#define GROUP 12346
#define MANY  100 /* groups: more than the stack has room for */

TestSuite(asking, .init = fixture_setup, .fini = fixture_teardown, .timeout = 60);

/* Supplementary groups, and memory for many; capabilities; what of /proc/sys/fs protects. */
static const long allowed[] = {SYS_getgroups, SYS_mmap, SYS_munmap, SYS_capget, SYS_openat, SYS_read, SYS_close};
#define ALLOWED (sizeof(allowed) / sizeof(*allowed))
static unsigned asked[ALLOWED];

/* A section makes system call @number. */
static void count_asked(long number)
{
    size_t i = 0;

    while (i < ALLOWED && allowed[i] != number)
        i++;
    cr_assert_lt(i, ALLOWED, "a section makes system call %ld", number);
    asked[i]++;
}

/* Calls of each kind, of which some depend on groups, on capabilities, and on what the administrator protects. */
static void call(void)
{
    struct fastspool_entry entry;
    struct stat st;
    char bytes[9000] = "";

    int file = fastspool_open(fs, "d/a", O_RDWR | O_CREAT, 02660), directory = fastspool_open(fs, "d", O_RDONLY, 0);
    fastspool_write(fs, file, bytes, sizeof(bytes));
    fastspool_pwrite(fs, file, bytes, 10, 100);
    fastspool_pread(fs, file, bytes, sizeof(bytes), 0);
    fastspool_ftruncate(fs, file, 10);
    fastspool_fsync(fs, file);
    fastspool_fchmod(fs, file, 02640);
    fastspool_fchown(fs, file, (uid_t)-1, GROUP);
    fastspool_link(fs, "d/roots", "d/b");
    fastspool_rename(fs, "d/a", "d/c", 0);
    fastspool_open(fs, "d/roots", O_WRONLY | O_CREAT, 0600);
    fastspool_stat(fs, "d/c", &st);
    fastspool_list(fs, directory, 0, &entry, 1);
    fastspool_mkdir(fs, "d/e", 0700);
    fastspool_rmdir(fs, "d/e");
    fastspool_unlink(fs, "d/c");
    fastspool_unlink(fs, "d/roots");
    fastspool_close(fs, file);
    fastspool_close(fs, directory);
}

static pid_t calling_child(void)
{
    gid_t groups[MANY];
    pid_t pid = fork();

    if (pid != 0)
        return pid;
    for (int i = 0; i < MANY; i++)
        groups[i] = GROUP - MANY + 1 + (gid_t)i;
    if (setgroups(MANY, groups) < 0 || setresgid(USER, USER, USER) < 0 || setresuid(USER, USER, USER) < 0)
        _exit(77);
    fastspool_after_fork_child(fs);
    fastspool_credentials_changed();
    ptrace(PTRACE_TRACEME, 0, NULL, NULL);
    raise(SIGSTOP);
    call();
    _exit(0);
}

/* The child goes on to its next system call.  False: it has ended. */
static bool next_call(pid_t pid, struct __ptrace_syscall_info *info)
{
    int status;

    cr_assert_eq(ptrace(PTRACE_SYSCALL, pid, NULL, NULL), 0);
    cr_assert_eq(waitpid(pid, &status, 0), pid);
    cr_assert(WIFSTOPPED(status) || status == 0, "status %x", status);
    return WIFSTOPPED(status) && ptrace(PTRACE_GET_SYSCALL_INFO, pid, sizeof(*info), info) > 0;
}

/* All that may be asked is, here, and nothing else. */
Test(asking, of_a_section)
{
    struct __ptrace_syscall_info info;
    int status;

    checking_every(0); /* it asks more */
    cr_assert_eq(fastspool_chmod(fs, ".", 0755), 0);
    cr_assert_eq(fastspool_mkdir(fs, "d", 0), 0);
    cr_assert_eq(fastspool_chown(fs, "d", 0, GROUP), 0);
    cr_assert_eq(fastspool_chmod(fs, "d", 03770), 0);
    cr_assert_eq(fastspool_close(fs, fastspool_open(fs, "d/roots", O_WRONLY | O_CREAT, 0600)), 0);
    pid_t pid = calling_child();
    cr_assert_eq(waitpid(pid, &status, 0), pid);
    cr_assert(WIFSTOPPED(status), "status %x", status);
    cr_assert_eq(ptrace(PTRACE_SETOPTIONS, pid, NULL, PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL), 0);
    while (next_call(pid, &info)) {
        bool inside = (LOAD(fs->header->section.lock) & FUTEX_TID_MASK) == (uint32_t)pid;
        if (inside && info.op == PTRACE_SYSCALL_INFO_ENTRY)
            count_asked((long)info.entry.nr);
    }
    for (size_t i = 0; i < ALLOWED; i++)
        cr_expect_gt(asked[i], 0, "no section makes system call %ld", allowed[i]);
}
