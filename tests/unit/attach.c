/* SPDX-License-Identifier: MIT
 *
 * Attaching: make a store, find it again, and refuse one that can't be trusted or used.  attach_create() starts no
 * mirror process; the system tests do that.
 */
#include "spool/attach.h"
#include "base/namespace.h"
#include "base/places.h"
#include "fastspool.h"
#include "mirror/pagein.h"
#include "mirror/spill.h"
#include "spool/configuration.h"
#include "spool/presence.h"
#include "spool/viewed.h"
#include "store/layout.h"
#include "store/span.h"
#include "store/store.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

static char directory[64], spool[96], error[FASTSPOOL_ERROR_MAX];
static struct fastspool_config config;
static struct fastspool *fs;

static void setup(void)
{
    strcpy(directory, "/dev/shm/fastspool-test.XXXXXX");
    cr_assert_not_null(mkdtemp(directory));
    cr_assert_eq(chmod(directory, 0755), 0);
    snprintf(spool, sizeof(spool), "%s/spool", directory);
    cr_assert_eq(mkdir(spool, 0750), 0);
    config = (struct fastspool_config){.durability = FASTSPOOL_LAZY, .memory = 64 << 20, .flush_interval = 100000000};
    strcpy(config.runtime, directory);
}

static void teardown(void)
{
    char command[128];
    snprintf(command, sizeof(command), "rm -rf %s", directory);
    cr_assert_eq(system(command), 0);
}

TestSuite(attach, .init = setup, .fini = teardown);

static void create(void)
{
    cr_assert_eq(attach_create(spool, &config, &fs, error), 0, "%s", error);
}

/* How many stores the runtime directory holds. */
static int stores(void)
{
    char command[160];
    snprintf(command, sizeof(command), "exit $(ls -d %s/fastspool.* 2>/dev/null | wc -l)", directory);
    return WEXITSTATUS(system(command));
}

/* A second process opens the store that the first one made.  Before that, attach_open() gives ENOENT. */
Test(attach, found_again)
{
    struct fastspool *other;

    cr_assert_eq(attach_open(spool, &config, &other, error), -ENOENT);
    create();
    cr_assert_eq(fs->header->state, SEGMENT_RECOVERING);
    cr_assert_eq(attach_open(spool, &config, &other, error), 0, "%s", error);
    cr_assert_eq(other->header->hash_seed, fs->header->hash_seed);
    fastspool_detach(other);
    fastspool_detach(fs);
    cr_assert_eq(stores(), 1);
}

/* A store whose size nobody configures has the default, or what the file system has of that. */
Test(attach, without_a_size)
{
    config.memory = 0;
    create();
    cr_assert_gt(fs->header->memory_limit, 0);
    cr_assert_leq(fs->header->memory_limit, configuration_memory(0));
    config.memory = 1 << 20;
    struct fastspool *other;
    cr_assert_eq(attach_open(spool, &config, &other, error), -ENOSPC);
}

/* Sixteen processes that attach at once make one store. */
Test(attach, one_of_many)
{
    for (int i = 0; i < 16; i++) {
        if (fork() == 0)
            _exit(attach_create(spool, &config, &fs, error) != 0);
    }
    for (int i = 0, status; i < 16; i++) {
        cr_assert_gt(wait(&status), 0);
        cr_assert_eq(status, 0);
    }
    cr_assert_eq(stores(), 1);
}

/* Attach as another process would, beside @fs or after it.  The seed tells one store from another. */
static int attach_again(const char *to, uint64_t *seed)
{
    struct fastspool *other;
    int result = attach_create(to, &config, &other, error);

    if (result < 0)
        return result;
    *seed = other->header->hash_seed;
    fastspool_detach(other);
    return 0;
}

/* What the dead have left in memory is taken over: by another PID namespace, and for a spool that was moved or made
 * anew. */
Test(attach, from_the_dead)
{
    uint64_t seed, found;

    create();
    seed = fs->header->hash_seed;
    WRITABLE(fs->header->pid_namespace)++;
    fastspool_detach(fs);
    create();
    cr_assert_eq(fs->header->hash_seed, seed);
    cr_assert_eq(attach_again(spool, &found), 0, "the store still belongs to the dead: %s", error);
    fastspool_detach(fs);
    char moved[112];
    snprintf(moved, sizeof(moved), "%s.moved", spool);
    cr_assert_eq(rename(spool, moved), 0);
    strcpy(spool, moved);
    cr_assert_eq(attach_again(moved, &found), 0, "%s", error);
    cr_assert_eq(found, seed);
    cr_assert_eq(stores(), 1);
}

/* A store whose memory is not there any more is made again where nobody lives, and not where somebody does. */
Test(attach, memory_is_gone)
{
    uint64_t seed, found;
    char command[FASTSPOOL_PATH_MAX + 16];

    create();
    seed = fs->header->hash_seed;
    snprintf(command, sizeof(command), "rm -rf %s", fs->runtime);
    cr_assert_eq(system(command), 0);
    cr_assert_eq(attach_again(spool, &found), -EBUSY, "%s", error);
    cr_assert_not_null(strstr(error, "can't be seen"), "it says %s", error);
    cr_assert_eq(stores(), 0);
    fastspool_detach(fs);
    cr_assert_eq(attach_again(spool, &found), 0, "%s", error);
    cr_assert_neq(found, seed);
    cr_assert_eq(stores(), 1);
}

/* A file system that outlives the machine's start may hold what is older than the disk's part: nothing is taken over
 * from there. */
Test(attach, memory_on_a_disk)
{
    uint64_t seed, found;
    char disk[] = "/var/tmp/fastspool-test.XXXXXX", command[64];
    struct statfs st;

    cr_assert_not_null(mkdtemp(disk));
    cr_assert_eq(statfs(disk, &st), 0);
    strcpy(config.runtime, disk);
    create();
    seed = fs->header->hash_seed;
    cr_assert_eq(attach_again(spool, &found), 0, "%s", error);
    cr_assert_eq(found, seed, "a store that lives was replaced");
    fastspool_detach(fs);
    cr_assert_eq(attach_again(spool, &found), 0, "%s", error);
    snprintf(command, sizeof(command), "rm -rf %s", disk);
    cr_assert_eq(system(command), 0);
    cr_assert_eq(found == seed, st.f_type == TMPFS_MAGIC);
}

/* A copy of a spool is another spool: it gets memory of its own, and the original keeps its own. */
Test(attach, copy)
{
    uint64_t seed, copied, found;
    char command[256], copy[112];

    create();
    seed = fs->header->hash_seed;
    snprintf(copy, sizeof(copy), "%s.copy", spool);
    snprintf(command, sizeof(command), "cp -a %s %s", spool, copy);
    cr_assert_eq(system(command), 0);
    cr_assert_eq(attach_again(copy, &copied), 0, "%s", error);
    cr_assert_neq(copied, seed);
    cr_assert_eq(attach_again(spool, &found), 0, "%s", error);
    cr_assert_eq(found, seed);
    fastspool_detach(fs);
    cr_assert_eq(attach_again(copy, &found), 0, "%s", error);
    cr_assert_eq(found, copied);
    cr_assert_eq(attach_again(spool, &found), 0, "%s", error);
    cr_assert_eq(found, seed);
    cr_assert_eq(stores(), 2);
}

/* Two spools can't share a state directory; one that was made anew at its old path goes on with it. */
Test(attach, spool_of_a_state)
{
    uint64_t seed, found;
    char other[112];

    snprintf(config.state, sizeof(config.state), "%s/state", directory);
    create();
    seed = fs->header->hash_seed;
    snprintf(other, sizeof(other), "%s.other", spool);
    cr_assert_eq(mkdir(other, 0750), 0);
    cr_assert_eq(attach_again(other, &found), -EBUSY, "%s", error);
    cr_assert_not_null(strstr(error, spool), "it says %s", error);
    cr_assert_eq(rmdir(spool), 0);
    cr_assert_eq(rename(other, spool), 0);
    cr_assert_eq(attach_again(spool, &found), 0, "%s", error);
    cr_assert_eq(found, seed);
    fastspool_detach(fs);
}

/* A process lives from attaching to detaching, and so do the children that it forks.  A program that it executes does
 * not. */
Test(attach, presence)
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
Test(attach, lock_file_is_still_there)
{
    char identity[PRESENCE_IDENTITY_MAX];

    create();
    int state_fd = open(fs->state, O_RDONLY | O_DIRECTORY);
    cr_assert_eq(presence_identity(fs->presence_fd, identity), 0);
    cr_assert(presence_is_still(identity, state_fd));
    cr_assert_eq(unlinkat(state_fd, PLACES_LOCK, 0), 0);
    cr_assert_not(presence_is_still(identity, state_fd), "it was removed");
    close(presence_open(state_fd, true));
    cr_assert_not(presence_is_still(identity, state_fd), "it is another one");
}

/* A process that has waited for others to end, and has the store now, waits no more: its mirror would end. */
Test(attach, waited)
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
    for (int i = 0; i < 300 && !presence_is_awaited(fd); i++)
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
Test(attach, killed_in_the_making)
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
Test(attach, claim)
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

/* The store is refused with a message that has @word in it, and is not removed. */
static void refused(int result, const char *word)
{
    fastspool_detach(fs);
    cr_assert_eq(attach_create(spool, &config, &fs, error), result, "%s", error);
    cr_assert_not_null(strstr(error, word), "the message is: %s", error);
    cr_assert_eq(stores(), 1);
}

/* A store is not replaced because the file that names it can't be read. */
Test(attach, unreadable_runtime)
{
    char path[128];

    create();
    snprintf(path, sizeof(path), "%s/.fastspool/runtime", spool);
    cr_assert_eq(unlink(path), 0);
    cr_assert_eq(mkdir(path, 0700), 0);
    refused(-EISDIR, "cannot read");
}

/* Without a view the answer is no; where the kernel can't be asked there is none. */
Test(attach, viewed)
{
    const struct rlimit none = {0, 4096}, some = {1024, 4096};
    char input[128];

    cr_assert_eq(viewed(spool), 0);
    snprintf(input, sizeof(input), "%s/input", spool);
    cr_assert_eq(mkdir(input, 0750), 0);
    cr_assert_eq(viewed(spool), 0);
    cr_assert_eq(setrlimit(RLIMIT_NOFILE, &none), 0);
    int result = viewed(spool);
    cr_assert_eq(setrlimit(RLIMIT_NOFILE, &some), 0); /* for the end of the test */
    cr_assert_eq(result, -EMFILE);
}

/* A store with another layout version is refused, whatever size it has. */
Test(attach, other_layout)
{
    uint64_t found;

    create();
    WRITABLE(fs->header->version) = LAYOUT_VERSION + 1;
    for (int smaller = 0; smaller < 2; smaller++) {
        cr_assert_eq(attach_again(spool, &found), -EPROTO);
        cr_assert_not_null(strstr(error, "layout version"), "the message is: %s", error);
        cr_assert_eq(ftruncate(fs->segment_fd, (off_t)SEGMENT_SIZE / 2), 0);
    }
    cr_assert_eq(stores(), 1);
}

/* One that was left with all of it on the disk is dropped, and made anew; but not while somebody lives, nor one that
 * has what the disk has not, nor one that does not say how it is. */
Test(attach, other_layout_left)
{
    uint64_t seed, found;

    create();
    seed = fs->header->hash_seed;
    WRITABLE(fs->header->version) = LAYOUT_VERSION + 1;
    WRITABLE(fs->header->tickets.dirty_files) = 1;
    cr_assert_eq(attach_again(spool, &found), -EPROTO);
    struct header *header = mmap(NULL, HEADER_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fs->segment_fd, 0);
    fastspool_detach(fs);
    cr_assert_eq(attach_again(spool, &found), -EPROTO);
    header->tickets.dirty_files = 0;
    const struct header_way good = header->way;
    const struct header_way bad[] = {{0},
                                     {good.ending, good.wanted, HEADER_SIZE, good.size},
                                     {good.ending, good.wanted, good.unwritten + 1, good.size},
                                     {UINT32_MAX, good.wanted, good.unwritten, good.size},
                                     {good.ending, good.wanted, good.unwritten, UINT32_MAX}};
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
        header->way = bad[i];
        cr_assert_eq(attach_again(spool, &found), -EPROTO, "way %zu", i);
    }
    header->way = good;
    cr_assert_eq(attach_again(spool, &found), 0, "%s", error);
    cr_assert_neq(found, seed);
    cr_assert_eq(stores(), 1);
    munmap(header, HEADER_SIZE);
}

/* A store of another PID namespace is refused while a process of that one lives. */
Test(attach, other_pid_namespace)
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
Test(attach, pid_namespace_without_proc, .timeout = 60)
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

/* A segment without its magic number is refused as damaged. */
Test(attach, no_magic)
{
    create();
    WRITABLE(fs->header->magic) = 0;
    refused(-EIO, "damaged");
}

/* A segment with an impossible table is refused as damaged. */
Test(attach, nonsense_tables)
{
    create();
    WRITABLE(fs->header->tables.names.used) = UINT32_MAX;
    refused(-EIO, "damaged");
}

/* A segment file that is too short is refused. */
Test(attach, cut_off)
{
    create();
    cr_assert_eq(ftruncate(fs->segment_fd, 4096), 0);
    span_unmap(fs);
    refused(-EIO, "bytes");
}

/* A runtime directory that other users may enter is refused. */
Test(attach, runtime_of_others)
{
    create();
    cr_assert_eq(chmod(fs->runtime, 0755), 0);
    refused(-EPERM, "alone");
}

/* A symbolic link in place of the runtime directory is refused. */
Test(attach, runtime_is_a_link)
{
    char moved[FASTSPOOL_PATH_MAX + 8];

    create();
    snprintf(moved, sizeof(moved), "%s.moved", fs->runtime);
    cr_assert_eq(rename(fs->runtime, moved), 0);
    cr_assert_eq(symlink(moved, fs->runtime), 0);
    fastspool_detach(fs);
    cr_assert_lt(attach_create(spool, &config, &fs, error), 0, "a symbolic link was followed");
}

/* Bad input gives its own errno and makes no store.  The message names a missing spool, or the key `memory`. */
Test(attach, bad_input)
{
    char missing[128];

    snprintf(missing, sizeof(missing), "%s/none", directory);
    cr_assert_eq(attach_create(missing, &config, &fs, error), -ENOENT);
    cr_assert_not_null(strstr(error, missing));
    snprintf(missing, sizeof(missing), "%s/file", directory);
    close(open(missing, O_CREAT | O_WRONLY, 0600));
    cr_assert_eq(attach_create(missing, &config, &fs, error), -ENOTDIR);
    config.memory = 1 << 20;
    cr_assert_eq(attach_create(spool, &config, &fs, error), -ENOSPC);
    cr_assert_not_null(strstr(error, "memory"));
    cr_assert_eq(stores(), 0);
}

/* A store configured for more memory than its runtime file system holds is limited to that file system's size. */
Test(attach, more_memory_than_there_is)
{
    struct statvfs st;

    config.memory = UINT64_C(1) << 50;
    create();
    cr_assert_eq(statvfs(fs->runtime, &st), 0);
    cr_assert_eq(fs->header->memory_limit, (uint64_t)st.f_blocks * st.f_frsize);
    fastspool_detach(fs);
}

/* A user that is neither root nor the spool's owner is refused.  The owner may attach. */
Test(attach, users)
{
    if (geteuid() != 0)
        cr_skip_test("needs root");
    cr_assert_eq(chmod(spool, 0755), 0);
    create();
    fastspool_detach(fs);
    cr_assert_eq(seteuid(12345), 0);
    cr_assert_eq(attach_create(spool, &config, &fs, error), -EACCES);
    cr_assert_eq(seteuid(0), 0);
    cr_assert_eq(chown(spool, 12345, 12345), 0);
    cr_assert_eq(chmod(directory, 0777), 0);
    char command[256];
    snprintf(command, sizeof(command), "rm -rf %s/.fastspool %s/fastspool.*", spool, directory);
    cr_assert_eq(system(command), 0);
    create();
    cr_assert_eq(fs->owner, 12345);
    fastspool_detach(fs);
    cr_assert_eq(seteuid(12345), 0);
    cr_assert_eq(attach_open(spool, &config, &fs, error), 0, "%s", error);
    fastspool_detach(fs);
    cr_assert_eq(seteuid(0), 0);
}

static char path_of[FASTSPOOL_PATH_MAX + 16];

static const char *in_store(const char *name)
{
    snprintf(path_of, sizeof(path_of), "%s/%s", fs->runtime, name);
    return path_of;
}

static int open_as(uid_t uid, const char *path, int flags)
{
    cr_assert_eq(seteuid(uid), 0);
    int fd = open(path, flags);
    int result = fd < 0 ? -errno : 0;
    close(fd);
    cr_assert_eq(seteuid(0), 0);
    return result;
}

static int attach_as(uid_t uid)
{
    struct fastspool *other;

    cr_assert_eq(seteuid(uid), 0);
    int result = attach_create(spool, &config, &other, error);
    if (result == 0)
        fastspool_detach(other);
    cr_assert_eq(seteuid(0), 0);
    return result;
}

/* What the mirror spills can be read by trusted users, too, and not written. */
static void check_spilling(void)
{
    const struct pagein pagein = {.inode = 5, .generation = 1, .size = 10};
    int fd = spill_create(fs, &pagein);

    cr_assert_geq(fd, 0, "%s", strerror(-fd));
    close(fd);
    snprintf(path_of, sizeof(path_of), "%s/spill/5-1", fs->state);
    cr_assert_eq(open_as(1002, path_of, O_RDONLY), 0);
    cr_assert_eq(open_as(1002, path_of, O_RDWR), -EACCES);
    cr_assert_eq(open_as(1004, path_of, O_RDONLY), -EACCES);
}

/* Users who are trusted have rights when root next attaches, and no longer than they are; nobody else has any. */
Test(attach, trusted_users)
{
    struct stat st;

    if (geteuid() != 0)
        cr_skip_test("needs root");
    cr_assert_eq(setgid(1), 0);
    cr_assert_eq(chmod(directory, 0777), 0);
    cr_assert_eq(chown(spool, 12345, 12345), 0);
    cr_assert_eq(chmod(spool, 0711), 0);
    create();
    cr_assert_eq(open_as(1002, in_store("segment"), O_RDWR), -EACCES);
    fastspool_detach(fs);
    config.trusted_user[0] = 1003;
    config.trusted_user[1] = 1002;
    config.trusted_users = 2;
    cr_assert_eq(attach_as(1002), -EACCES);
    cr_assert_not_null(strstr(error, "trusted"), "it says %s", error);
    cr_assert_eq(attach_as(12345), 0, "%s", error); /* the owner gives the rights */
    cr_assert_eq(attach_as(1002), 0, "%s", error);
    cr_assert_eq(attach_as(1003), 0, "%s", error);
    cr_assert_eq(attach_as(1004), -EACCES);
    create();
    cr_assert_eq(fstat(fs->segment_fd, &st), 0);
    cr_assert_eq(st.st_mode & 0777, 0660, "the group's bits are the mask");
    cr_assert_eq(open_as(1002, in_store("segment"), O_RDWR), 0);
    cr_assert_eq(open_as(1004, in_store("segment"), O_RDWR), -EACCES);
    check_spilling();
    fastspool_detach(fs);
    config.trusted_users = 1;
    cr_assert_eq(attach_as(1003), -EPERM);
    cr_assert_not_null(strstr(error, "not trusted any more"), "it says %s", error);
    create();
    cr_assert_eq(open_as(1002, in_store("segment"), O_RDWR), -EACCES);
    cr_assert_eq(attach_as(1003), 0, "%s", error);
    config.trusted_users = 0;
    fastspool_detach(fs);
    create();
    cr_assert_eq(open_as(1003, in_store("segment"), O_RDWR), -EACCES);
    cr_assert_eq(fstat(fs->segment_fd, &st), 0);
    cr_assert_eq(st.st_mode & 0777, 0600);
    fastspool_detach(fs);
}

/* Rights of the group, or of others, are refused as ever, list or no list. */
Test(attach, rights_of_others)
{
    if (geteuid() != 0)
        cr_skip_test("needs root");
    for (int trusted = 0; trusted < 2; trusted++) {
        config.trusted_user[0] = 1002;
        config.trusted_users = (size_t)trusted;
        create();
        cr_assert_eq(fchmod(fs->segment_fd, 0604), 0);
        cr_assert_eq(attach_as(0), -EPERM);
        cr_assert_eq(fchmod(fs->segment_fd, 0600), 0);
        cr_assert_eq(fchmod(fs->runtime_fd, 0701), 0);
        cr_assert_eq(attach_as(0), -EPERM);
        cr_assert_eq(fchmod(fs->runtime_fd, 0700), 0);
        cr_assert_eq(attach_as(0), 0, "%s", error);
        fastspool_detach(fs);
    }
    config.trusted_users = 0;
    create();
    cr_assert_eq(fchmod(fs->segment_fd, 0640), 0);
    cr_assert_eq(attach_as(0), -EPERM);
    fastspool_detach(fs);
}

/* Root makes the state directory with the owner's rights: a link that the owner puts there can't make root write where
 * the owner may not. */
Test(attach, links_in_the_way_of_root)
{
    char state[128], target[128];
    struct stat st;

    if (geteuid() != 0)
        cr_skip_test("needs root");
    cr_assert_eq(chmod(directory, 0777), 0);
    cr_assert_eq(chown(spool, 12345, 12345), 0);
    snprintf(state, sizeof(state), "%s/.fastspool", spool);
    snprintf(target, sizeof(target), "%s/roots", directory);
    cr_assert_eq(mkdir(target, 0755), 0);
    cr_assert_eq(symlink(target, state), 0);
    cr_assert_lt(attach_create(spool, &config, &fs, error), 0, "a link in place of the state directory was followed");
    cr_assert_eq(unlink(state), 0);
    create();
    cr_assert_eq(stat(state, &st), 0);
    cr_assert_eq(st.st_uid, 12345);
    cr_assert_eq(fstat(fs->segment_fd, &st), 0);
    cr_assert_eq(st.st_uid, 12345);
    fastspool_detach(fs);
    /* A hard link to root's file, in place of a file that root writes. */
    char command[512];
    snprintf(command, sizeof(command),
             "cd %s && rm -rf fastspool.* && echo roots >roots/file && ln roots/file %s/runtime.new", directory, state);
    cr_assert_eq(system(command), 0);
    create();
    fastspool_detach(fs);
    snprintf(command, sizeof(command), "grep -q roots %s/file", target);
    cr_assert_eq(system(command), 0, "a file of root's was written");
    cr_assert_eq(stat(target, &st), 0);
    cr_assert_eq(st.st_uid, 0);
}

/* A process that detaches has no descriptor of the store left. */
Test(attach, leaves_nothing)
{
    create();
    fastspool_detach(fs);
    int before = dup(0);
    close(before);
    for (int i = 0; i < 50; i++) {
        create();
        fastspool_detach(fs);
    }
    int after = dup(0);
    close(after);
    cr_assert_eq(before, after);
    for (int fd = 800; fd < 1024; fd++)
        cr_assert_lt(fcntl(fd, F_GETFD), 0, "descriptor %d is left open", fd);
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
Test(attach, ended)
{
    char state[128];

    snprintf(state, sizeof(state), "%s/.fastspool", spool);
    cr_assert_eq(mkdir(state, 0700), 0);
    must_be_ended("lock");
    create();
    fastspool_detach(fs);
    must_be_ended("mirror.lock");
}
