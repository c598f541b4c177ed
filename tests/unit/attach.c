/* SPDX-License-Identifier: MIT
 *
 * Attaching: make a store, find it again, and refuse one that can't be trusted or used.
 */
#include "attaching.h"

#include "base/fd.h"
#include "mirror/pagein.h"
#include "mirror/spill.h"
#include "spool/configuration.h"
#include "spool/record.h"
#include "spool/viewed.h"

#include <linux/magic.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/statfs.h>
#include <sys/syscall.h>

TestSuite(attach, .init = setup, .fini = teardown);

static int refusal; /* the error of the next fsync or fallocate, or 0 */

static int refuse(void)
{
    errno = refusal;
    refusal = 0;
    return errno ? -1 : 0;
}

int fsync(int fd)
{
    (void)fd;
    return refuse();
}

int fallocate(int fd, int mode, off_t offset, off_t size)
{
    return refuse() < 0 ? -1 : (int)syscall(SYS_fallocate, fd, mode, offset, size);
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
    cr_assert_eq(attach_create(spool, &config, &other, error), -ENOSPC);
    cr_assert_eq(attach_open(spool, &config, &other, error), 0, "%s", error); /* it is there: to look at it, e.g. */
    fastspool_detach(other);
}

/* Where a disk is full or a quota reached the record of the store is written in its place, and its memory waits. */
Test(attach, without_room)
{
    const int codes[] = {ENOSPC, EDQUOT};
    struct record found, record = {.runtime = "/first"};
    int here = open(directory, O_RDONLY | O_DIRECTORY), fd = open(directory, O_RDWR | O_TMPFILE, 0600);

    cr_assert_eq(record_write(here, &record), 0);
    for (size_t i = 0; i < sizeof(codes) / sizeof(*codes); i++) {
        snprintf(record.runtime, sizeof(record.runtime), "/after %d", codes[i]);
        refusal = codes[i];
        cr_assert_eq(record_write(here, &record), 0, "%s", strerrorname_np(codes[i]));
        cr_assert(record_read(here, &found) == 0 && strcmp(found.runtime, record.runtime) == 0, "%s", found.runtime);
        refusal = codes[i];
        cr_assert_eq(fd_take_room(fd, 0, 4096), -EAGAIN, "%s", strerrorname_np(codes[i]));
    }
    close(fd);
    close(here);
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
