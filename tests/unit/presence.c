/* SPDX-License-Identifier: MIT
 *
 * Who lives: who counts as a process that uses the store, from when to when, and who waits for whom.
 */
#include "attaching.h"

#include "base/namespace.h"
#include "base/places.h"
#include "spool/presence.h"

#include <sched.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/utsname.h>

TestSuite(presence, .init = setup, .fini = teardown);

/* A process lives from attaching to detaching, and so do the children that it forks.  A program that it executes does
 * not. */
Test(presence, from_attaching_to_detaching)
{
    int state_fd, fd, ends[2], ready[2];
    char byte;

    create();
    state_fd = open(fs->state, O_RDONLY | O_DIRECTORY);
    fd = presence_open(state_fd, false);
    cr_assert_eq(presence_of_others(fd), PRESENCE_SHARED);
    cr_assert_eq(presence_claim(fd), -EAGAIN);
    cr_assert_eq(pipe(ends), 0);
    pid_t child = fork();
    if (child == 0) {
        close(ends[1]);
        _exit(read(ends[0], &byte, 1) != 0);
    }
    fastspool_detach(fs);
    cr_assert_eq(presence_of_others(fd), PRESENCE_SHARED, "the child does not count");
    cr_assert_eq(kill(child, SIGKILL), 0);
    cr_assert_eq(waitpid(child, NULL, 0), child);
    cr_assert_eq(presence_of_others(fd), PRESENCE_NONE, "a dead process counts");
    cr_assert_eq(pipe(ready), 0);
    if ((child = fork()) == 0) { /* without assertions: criterion expects none from a child */
        if (attach_create(spool, &config, &fs, error) < 0 || write(ready[1], "", 1) != 1)
            _exit(1);
        dup2(ends[0], 0);
        close(ends[1]);
        execl("/bin/cat", "cat", NULL);
        _exit(1);
    }
    cr_assert_eq(read(ready[0], &byte, 1), 1);
    close(ends[0]);
    for (int i = 0; i < 1000 && presence_of_others(fd) != PRESENCE_NONE; i++)
        usleep(10000);
    cr_assert_eq(presence_of_others(fd), PRESENCE_NONE, "a program counts that the process has executed");
    cr_assert_eq(presence_claim(fd), 0);
    close(ends[1]);
    cr_assert_eq(waitpid(child, NULL, 0), child);
}

/* The lock file that a process has open is STATE/lock still, until that is removed or made anew. */
Test(presence, lock_file_is_still_there)
{
    char identity[PRESENCE_IDENTITY_MAX];

    create();
    int state_fd = open(fs->state, O_RDONLY | O_DIRECTORY);
    cr_assert_eq(presence_identity(fs->presence_fd, fs->state, identity, error), 0);
    cr_assert(presence_is_still(identity, state_fd));
    cr_assert_eq(unlinkat(state_fd, PLACES_LOCK, 0), 0);
    cr_assert_not(presence_is_still(identity, state_fd), "it was removed");
    close(presence_open(state_fd, true));
    cr_assert_not(presence_is_still(identity, state_fd), "it is another one");
}

/* A process that has waited for others to end, and has the store now, waits no more: its mirror would end. */
Test(presence, waited)
{
    int ready[2], state_fd, fd;
    char byte;

    create();
    state_fd = open(fs->state, O_RDONLY | O_DIRECTORY);
    fastspool_detach(fs);
    fd = presence_open(state_fd, false);
    cr_assert_eq(presence_announce(fd), 0);                 /* one that lives, */
    cr_assert_eq(unlinkat(state_fd, PLACES_RUNTIME, 0), 0); /* and whose memory can't be found */
    cr_assert_eq(pipe(ready), 0);
    pid_t child = fork();
    if (child == 0) { /* without assertions: criterion expects none from a child */
        if (attach_create(spool, &config, &fs, error) < 0 || write(ready[1], "", 1) != 1)
            _exit(1);
        pause();
    }
    close(ready[1]);
    for (int i = 0; i < 6000 && !presence_is_awaited(fd); i++)
        usleep(10000);
    cr_assert(presence_is_awaited(fd), "this test can't fail");
    presence_withdraw(fd);
    cr_assert_eq(read(ready[0], &byte, 1), 1, "it has not got the store");
    bool waits = presence_is_awaited(fd);
    cr_assert_eq(kill(child, SIGKILL), 0);
    cr_assert_eq(waitpid(child, NULL, 0), child);
    cr_assert_not(waits);
}

/* A process that is killed while it makes the store, or takes it over, is in nobody's way. */
Test(presence, killed_in_the_making)
{
    uint64_t found;
    char command[256];
    int made = 0;

    for (int i = 0; i < 200; i++) {
        pid_t child = fork();
        if (child == 0) {
            attach_create(spool, &config, &fs, error);
            pause();
        }
        usleep((useconds_t)(i * 5));
        cr_assert_eq(kill(child, SIGKILL), 0);
        cr_assert_eq(waitpid(child, NULL, 0), child);
        snprintf(command, sizeof(command), "test -e %s/.fastspool/runtime", spool);
        made += system(command) == 0;
        if (i % 4 == 0) {
            cr_assert_eq(attach_again(spool, &found), 0, "killed after %d us: %s", i * 5, error);
            snprintf(command, sizeof(command), "rm -rf %s/fastspool.* %s/.fastspool", directory, spool);
            cr_assert_eq(system(command), 0);
        }
    }
    cr_assert_eq(attach_again(spool, &found), 0, "%s", error);
    cr_log_info("%d of 200 were killed after they had published", made);
}

/* Whoever dies with the claim leaves nothing in the way; and whoever comes while it is held, waits. */
Test(presence, claim)
{
    int state_fd, fd, ends[2];
    uint64_t seed, found;
    char byte;

    create();
    seed = fs->header->hash_seed;
    state_fd = open(fs->state, O_RDONLY | O_DIRECTORY);
    fastspool_detach(fs);
    cr_assert_eq(pipe(ends), 0);
    pid_t child = fork();
    if (child == 0) {
        fd = presence_open(state_fd, false);
        _exit(presence_claim(fd) < 0 || write(ends[1], "", 1) != 1 || pause());
    }
    cr_assert_eq(read(ends[0], &byte, 1), 1);
    cr_assert_eq(attach_again(spool, &found), -EBUSY);
    cr_assert_not_null(strstr(error, "making"), "it says %s", error);
    cr_assert_eq(kill(child, SIGKILL), 0);
    cr_assert_eq(attach_again(spool, &found), 0, "%s", error);
    cr_assert_eq(waitpid(child, NULL, 0), child);
    cr_assert_eq(found, seed);
}

/* A store of another PID namespace is refused while a process of that one lives. */
Test(presence, other_pid_namespace)
{
    uint64_t found;

    create();
    WRITABLE(fs->header->pid_namespace)++;
    cr_assert_eq(attach_again(spool, &found), -EXDEV);
    cr_assert_not_null(strstr(error, "PID namespace"), "it says %s", error);
    fastspool_detach(fs);
    cr_assert_eq(stores(), 1);
}

/* In a mount namespace of its own the process has no /proc any more. */
static bool hide_proc(void)
{
    return unshare(CLONE_NEWNS) == 0 && mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 &&
           mount("none", "/proc", "tmpfs", MS_RDONLY, NULL) == 0;
}

/* The PID namespace, without /proc. */
static bool kernel_tells(void)
{
    struct utsname name;
    unsigned major = 0, minor = 0;

    return uname(&name) == 0 && sscanf(name.release, "%u.%u", &major, &minor) == 2 &&
           (major > 6 || (major == 6 && minor >= 11));
}

static int end_of(pid_t pid)
{
    int status;

    cr_assert_eq(waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/* Without /proc a store is as much its PID namespace's: who makes it notes the number, and who is of another one is
 * refused. */
Test(presence, pid_namespace_without_proc, .timeout = 60)
{
    uint64_t own = namespace_of_pids();
    struct stat st;

    if (geteuid() != 0)
        cr_skip_test("needs root");
    cr_assert(stat("/proc/self/ns/pid", &st) == 0 && st.st_ino == own);
    pid_t pid = fork();
    if (pid == 0) {
        if (!hide_proc() || (namespace_of_pids() == 0 && !kernel_tells()))
            _exit(77);
        _exit(attach_create(spool, &config, &fs, error) != 0 || fs->header->pid_namespace != own);
    }
    int status = end_of(pid);
    if (status == 77)
        cr_skip_test("no private /proc, or the kernel does not tell the namespace without it");
    cr_assert_eq(status, 0);
    create();
    pid = fork();
    if (pid == 0) {
        uint64_t found;
        if (unshare(CLONE_NEWPID) < 0)
            _exit(2);
        pid = fork();
        if (pid == 0)
            _exit(hide_proc() && attach_again(spool, &found) == -EXDEV ? 0 : 1);
        _exit(end_of(pid));
    }
    cr_assert_eq(end_of(pid), 0);
    fastspool_detach(fs);
    cr_assert_eq(stores(), 1);
}

/* ---- waits, with signals held off as the preloaded library holds them ---- */

/* SIGTERM ends the attachment of a child, which cannot come to an end by itself. */
static void must_be_ended(const char *lock)
{
    char path[160];
    sigset_t all, before;
    int status;

    snprintf(path, sizeof(path), "%s/.fastspool/%s", spool, lock);
    int fd = open(path, O_RDWR | O_CREAT, 0600);
    cr_assert_eq(flock(fd, LOCK_EX | LOCK_NB), 0);
    cr_assert_eq(fcntl(fd, F_OFD_SETLK, &(struct flock){.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_len = 1}), 0);
    sigfillset(&all);
    sigdelset(&all, SIGALRM);
    sigprocmask(SIG_SETMASK, &all, &before);
    pid_t child = fork();
    if (child == 0) {
        alarm(60);
        _exit(fastspool_attach(spool, &config, &fs, error) == -EINTR ? 7 : 1);
    }
    sigprocmask(SIG_SETMASK, &before, NULL);
    kill(child, SIGTERM);
    cr_assert_eq(waitpid(child, &status, 0), child);
    cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 7, "status %x", (unsigned)status);
    close(fd);
}

/* A process that waits for a mirror which recovers for ever, or for another one that makes the store, can be ended. */
Test(presence, ended)
{
    char state[128];

    snprintf(state, sizeof(state), "%s/.fastspool", spool);
    cr_assert_eq(mkdir(state, 0700), 0);
    must_be_ended("lock");
    create();
    fastspool_detach(fs);
    must_be_ended("mirror.lock");
}
