/* SPDX-License-Identifier: MIT
 *
 * fastspool: a mail spool as fast as RAM and as safe as disk.
 *
 * One struct fastspool is one spool, attached by this process.  Its files live in a segment of shared memory that every
 * attached process maps.  `fastspool mirror`, a process of its own, writes their changes to the disk.  A call works in
 * the caller's process.  It waits for the mirror only to sync, to page in a file's data, or to get memory.
 *
 * Link with -lfastspool (pkg-config fastspool), the library that Exim preloads.  So it stands before libc in a program
 * that links it, too: open(2) and so on of a configured spool's paths are the store's there.
 *
 * Conventions
 *   - A function that can fail returns a negative errno (-ENOENT, ...).  Zero or a positive value is success.  errno
 *     itself has no meaning after a call.
 *   - A path is relative to the spool ("input/8/1abcde-000001-AB-D"), without a leading slash.  Repeated slashes are
 *     skipped, and so is ".".  ".." climbs, but never above the spool.  "" is the spool.
 *   - A path may begin at a file instead of at the spool: "//HANDLE" or "//HANDLE/rest", with a handle of
 *     fastspool_lookup() in hexadecimal digits.  It reaches a file that is open but has no name any more, too. -ESTALE:
 *     the file is gone.
 *   - An open file description is a small number with an offset and flags, as in POSIX.  It is not a file descriptor.
 *   - Sizes and offsets are bytes.  Durations are nanoseconds.
 *   - A function with the name of a system call behaves and fails like it, unless its comment says otherwise.
 *
 * Rules
 *   - Threads: any number of threads may call at once.  fastspool_detach() must be the last call.
 *   - Signals: a signal handler must not call while it interrupts another call, and must not leave one by longjmp.
 *     (The preloaded library holds signals off by itself.)  A handler that runs in a wait does not end it, except in
 *     fastspool_lock() with F_SETLKW.
 *   - Fork: the child may use an attachment after it has called fastspool_after_fork_child() for it.  A description
 *     that was open at the fork may be used and closed by only one of the two processes; see Caveats.
 *   - Exec: an attachment does not survive it.
 *   - Death: a process may be killed at any instruction.  Its unfinished change is undone, and its descriptions are
 *     closed.  Two calls consist of several changes: a write of more than 64 KiB, and a truncation that frees more
 *     than 128 blocks but leaves some.  Death may leave those done in part.
 *
 * Caveats
 *   - All processes of a spool that live at one time must live in one PID namespace, because the store's lock names its
 *     holder by thread id.  attach() refuses a process of another namespace with -EXDEV.
 *   - Only root, the spool's owner and a configured `trusted_user` can attach: the state and runtime directories are
 *     the owner's, mode 0700, with an entry for each trusted user in their access control lists.  attach() by root or
 *     the owner sets these entries from @config.  A trusted user's process creates no store and starts no mirror: a
 *     call that needs one is -EIO after ten seconds, unless a process of root's or the owner's starts one meanwhile.
 *   - The library does not see a fork.  If parent and child both use a description that was open at the fork, the first
 *     close frees it for both, and its number may come to mean another file.  (The preloaded library does see forks,
 *     and shares descriptions as the kernel does.)
 *   - Reading does not change a file's time of last access.  Only its creation and utimens() set it.
 *   - A file's times come from CLOCK_REALTIME_COARSE, a tick (4 ms) coarse.  A time before 1970 becomes 1970.
 *   - What is open or not yet on the disk cannot leave memory, so a file that is being written must fit as a whole.
 *     An evicted file that is larger than a quarter of the memory, or finds no room when it is opened, is read from a
 *     spill file on the disk.  Writing to it is -ENOSPC until all its descriptions are closed.
 *   - A write of more than 64 KiB is not atomic: other processes see its parts, and may write between them, even
 *     with O_APPEND.
 *   - Names and attributes never leave memory.  A file takes 200 bytes if its name has up to 27; each further 44 bytes
 *     of the name take 64.
 *   - There are no symbolic links, devices, sockets or FIFOs.  A file has at most some 4 GiB: more is -EFBIG.
 *   - Record locks have all properties of POSIX record locks (fcntl(2)): closing any description of a file drops the
 *     process's locks on it, and a child inherits none.  A process that attaches one spool a second time loses them to
 *     the second attachment's first lock, or to its end.
 */
#ifndef FASTSPOOL_H
#define FASTSPOOL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/types.h>
#include <time.h>

#ifdef __cplusplus
extern "C" {
#endif

#pragma GCC visibility push(default)

struct flock;
struct fastspool;

/** Size of the buffer for an error sentence, NUL included. */
#define FASTSPOOL_ERROR_MAX 512

/** When an fsync returns, and so what a power cut may take.  The death of processes takes nothing in any mode. */
enum fastspool_durability {
    FASTSPOOL_ACKED = 0,  /* of a file: at once; of a directory: when all that the process has synced is on the disk.
                             Nothing acknowledged after the directory's fsync (Exim's 250) is lost */
    FASTSPOOL_LAZY = 1,   /* at once.  A power cut takes the changes since the last commit: a flush interval's, or on a
                             slow disk more, within the bounds of fastspool_fsync() */
    FASTSPOOL_STRICT = 2, /* when the file or directory is on the disk */
};

/** "acked", "lazy" or "strict"; static. */
const char *fastspool_durability_name(enum fastspool_durability durability);

/** The most images (`program`), users (`trusted_user`) and spools in a configuration; the size of a path's buffer. */
#define FASTSPOOL_PROGRAMS_MAX 16
#define FASTSPOOL_TRUSTED_MAX  16
#define FASTSPOOL_SPOOLS_MAX   16
#define FASTSPOOL_PATH_MAX     256

/** A configuration.  Plain data: copy it freely. */
struct fastspool_config {
    char spool[FASTSPOOL_SPOOLS_MAX][FASTSPOOL_PATH_MAX];     /* absolute paths, as configured */
    size_t spools;                                            /* 0: none configured, no default exists */
    enum fastspool_durability durability;                     /* default FASTSPOOL_ACKED */
    uint64_t memory;                                          /* bytes; 0: 25% of the machine's or control group's */
    uint64_t flush_interval;                                  /* nanoseconds, default 100 ms */
    char state[FASTSPOOL_PATH_MAX];                           /* "" = SPOOL/.fastspool */
    char runtime[FASTSPOOL_PATH_MAX];                         /* "": root's tmpfs, else /dev/shm */
    char program[FASTSPOOL_PROGRAMS_MAX][FASTSPOOL_PATH_MAX]; /* set-user-ID images that are served */
    size_t programs;
    uid_t trusted_user[FASTSPOOL_TRUSTED_MAX]; /* may attach besides root and the owner */
    size_t trusted_users;
    bool view; /* mount the store over the spool's directories for programs without the library; default true */
};

/** Load a configuration into @config: the defaults, then the file, then, if @environment, FASTSPOOL_* variables.
 *  @path: the file; NULL is /etc/fastspool.conf.  A missing file is no error.
 *  @environment: must be false in secure execution (getauxval(3), AT_SECURE).  If false, the file must be root's and
 *  writable by root alone.
 *  -EINVAL: an unknown key, a bad value, or a file that cannot be read or trusted; another errno: the file cannot be
 *  opened.  @error says which, with file and line.  Of @config then only `spool` and `program` mean something: what may
 *  be configured, so what must not be taken for an ordinary directory or program. */
int fastspool_config_load(struct fastspool_config *config, const char *path, bool environment,
                          char error[FASTSPOOL_ERROR_MAX]);

/** Attach the spool directory @spool (absolute).  Creates the store if there is none, recovers it after a reboot,
 *  starts the mirror if none runs, and waits until the store is ready.  A process that root has started also starts the
 *  view, if @config->view, and does not wait for it.  (A trusted user's process creates and starts nothing.  One of
 *  root's or the owner's gives the trusted users their rights, and takes those of others away.)
 *  Ownership: *@out is the caller's until fastspool_detach(); @config is read during the call alone.
 *  Errors, with a sentence in @error:
 *    -ENOENT, -ENOTDIR   there is no such spool; for a trusted user also: no store
 *    -EACCES             the effective user is neither root, nor the spool's owner, nor trusted; or it is trusted, and
 *                        has no right to the spool or its state directory yet (see Caveats)
 *    -EPERM              the state or runtime directory or the segment is open to other users; for a trusted user also:
 *                        to one that is not trusted any more
 *    -EXDEV              the store is in use in another PID namespace
 *    -EPROTO             the segment has another layout version
 *    -EBUSY              the store is in use, and can't be used from here: its memory can't be seen, its state
 *                        directory was replaced, or it is another spool's; or a process that is no mirror has the
 *                        lock of the store's mirror
 *    -EIO                the segment or database is damaged, its names need more than @config->memory, or no mirror
 *                        has come up within ten seconds
 *    -ENOSPC             @config->memory is less than 4 MiB, or the runtime directory's file system is full
 *    -EINTR              SIGTERM, SIGINT, SIGQUIT or SIGHUP came during a wait, and the caller holds it off
 *    -ENAMETOOLONG       a path has more than 255 bytes
 *    -ENOMEM, ...        a system call failed */
int fastspool_attach(const char *spool, const struct fastspool_config *config, struct fastspool **out,
                     char error[FASTSPOOL_ERROR_MAX]);

/** Unmap the store, close the library's descriptors and free @fs.  Descriptions that are still open are closed, unless
 *  another process holds them too.  No thread may be in a call, or call again. */
void fastspool_detach(struct fastspool *fs);

/** Call in the child of a fork, before its first other call.  Gives up what the parent alone may use: its record locks
 *  and the descriptions it keeps for the next opens. */
void fastspool_after_fork_child(struct fastspool *fs);

/** Call after changing the effective or file system uid or gid, or the effective capabilities.  The library caches them
 *  at first use: for permission checks, and as the owner of new files.  Supplementary groups are not cached.  (The
 *  preloaded library calls this by itself.) */
void fastspool_credentials_changed(void);

/** The user that a thread's calls act for. */
struct fastspool_client {
    uid_t uid; /* of new files */
    gid_t gid;
    uint64_t *synced; /* acked: the highest change that the client has synced, of the calls with a pointer to it; the
                         server's, 0 at first, and not the thread's alone: calls of several threads may share it.  NULL:
                         what the server's process has synced counts */
};
/** For a server: until this is called again, the calling thread's calls act for @client, which is copied.  New files
 *  are the client's.  No permission is checked, because the server has checked it.  NULL: back to the effective ids.
 *  (A process that has attached a store can change all of it: this gives it no right.) */
void fastspool_act_for(const struct fastspool_client *client);

/** open(2) on the store.  Returns the description's number.
 *  @flags: O_RDONLY, O_WRONLY or O_RDWR, O_CREAT, O_EXCL, O_TRUNC, O_APPEND, O_DIRECTORY, O_NOFOLLOW.  Others are kept
 *  or ignored as open(2) would.
 *  @mode: taken literally, without the umask.
 *  Waits until the mirror has paged in an evicted file's data, unless O_TRUNC discards it.  The data stays in memory
 *  while the file is open.
 *  -ENOSPC: no memory for a new file (after a wait, as in fastspool_write()), or neither memory nor disk has room for
 *  an evicted file's data.  -EIO: the data cannot be paged in, or no mirror has come up within ten seconds.
 *  -ENFILE: the store already has 65,535 descriptions. */
int fastspool_open(struct fastspool *fs, const char *path, int flags, mode_t mode);
int fastspool_close(struct fastspool *fs, int description);

ssize_t fastspool_read(struct fastspool *fs, int description, void *buffer, size_t size);
/** write(2).  If memory is short, waits for an eviction: at most ten seconds, one second while commits or checkpoints
 *  fail, 300 ms if a call of this process was refused in the last ten seconds (Exim tries a failed write ten times).
 *  Then -ENOSPC, or the number of bytes that were written. */
ssize_t fastspool_write(struct fastspool *fs, int description, const void *buffer, size_t size);
/** fastspool_write() at the end of the file, as with O_APPEND.  The description's offset stays. */
ssize_t fastspool_append(struct fastspool *fs, int description, const void *buffer, size_t size);
ssize_t fastspool_pread(struct fastspool *fs, int description, void *buffer, size_t size, off_t offset);
ssize_t fastspool_pwrite(struct fastspool *fs, int description, const void *buffer, size_t size, off_t offset);
off_t fastspool_lseek(struct fastspool *fs, int description, off_t offset, int whence);
int fastspool_ftruncate(struct fastspool *fs, int description, off_t size);
/** posix_fallocate(3): extend the file to @offset + @size, if it is shorter.  No room is reserved: a later write may
 * still be -ENOSPC. */
int fastspool_allocate(struct fastspool *fs, int description, off_t offset, off_t size);
int fastspool_fstat(struct fastspool *fs, int description, struct stat *st);
int fastspool_fchmod(struct fastspool *fs, int description, mode_t mode);
int fastspool_fchown(struct fastspool *fs, int description, uid_t uid, gid_t gid);
int fastspool_futimens(struct fastspool *fs, int description, const struct timespec times[2]);

/** fsync(2) with the durability of @config at attach.  Where that lets it return at once, it still waits while
 *  more than 64 MiB, more than 16,384 files, or a change older than ten flush intervals (at least a second) are not on
 *  the disk.
 *  Returns 0 if the file's last change is on the disk, whatever became of others (acked, a directory: the last change
 *  that the process has synced).  Otherwise, until a commit succeeds, the error of the last one: -EIO, -ENOSPC, ...
 *  A failed commit loses nothing: the mirror tries again once a second.  -EIO also: no mirror has come up within ten
 *  seconds. */
int fastspool_fsync(struct fastspool *fs, int description);

/** fcntl(2) with F_SETLK, F_SETLKW (-EINTR: a signal handler ran) or F_GETLK.  -EINVAL: another command. */
int fastspool_lock(struct fastspool *fs, int description, int command, struct flock *lock);

/** For a server that holds locks for several owners.  fastspool_lock_owner(): a descriptor, the caller's, that stands
 *  for a new owner; close(2) drops its locks.  fastspool_lock_for(): fastspool_lock() for @owner.  Locks of an owner
 *  and those of a process with fastspool_lock() exclude each other; F_GETLK gives -1 as the process of an owner's lock.
 *  A deadlock is not found.  A process that has locks of its own must not do this: the close would drop them. */
int fastspool_lock_owner(struct fastspool *fs);
int fastspool_lock_for(struct fastspool *fs, int description, int owner, int command, struct flock *lock);

int fastspool_stat(struct fastspool *fs, const char *path, struct stat *st);
/** No handle is less. */
#define FASTSPOOL_HANDLE_MIN UINT64_C(0x1000000)
/** fastspool_stat() and fastspool_fstat(), and the file's handle: a number that names this file, whatever its paths,
 *  until the file is gone, and never another one.  (It changes at a reboot.) */
int fastspool_lookup(struct fastspool *fs, const char *path, uint64_t *handle, struct stat *st);
int fastspool_flookup(struct fastspool *fs, int description, uint64_t *handle, struct stat *st);
int fastspool_access(struct fastspool *fs, const char *path, int mode, bool effective);
int fastspool_chmod(struct fastspool *fs, const char *path, mode_t mode);
int fastspool_chown(struct fastspool *fs, const char *path, uid_t uid, gid_t gid);
int fastspool_utimens(struct fastspool *fs, const char *path, const struct timespec times[2]);
/** truncate(2).  To a @size above 0 it pages an evicted file in first, and is -ENOSPC for a file read from a spill
 *  file. */
int fastspool_truncate(struct fastspool *fs, const char *path, off_t size);
int fastspool_mkdir(struct fastspool *fs, const char *path, mode_t mode);
int fastspool_rmdir(struct fastspool *fs, const char *path);
/** unlink(2).  If another process waits for the file's data, and this is its last name, waits for the page-in too. */
int fastspool_unlink(struct fastspool *fs, const char *path);
int fastspool_link(struct fastspool *fs, const char *from, const char *to);
/** renameat2(2).  @flags: 0 or RENAME_NOREPLACE.  Waits as fastspool_unlink() for a file that @to replaces. */
int fastspool_rename(struct fastspool *fs, const char *from, const char *to, unsigned flags);
/** statvfs(2): the room that can really be used.  Blocks have 4096 bytes.
 *  Files: as many as memory has room for, at 200 bytes each.
 *  Blocks: the room on the state directory's disk, less the needs of the next checkpoint; at most one block for each of
 *  those files.  While commits or checkpoints fail: at most what memory has room for. */
int fastspool_statvfs(struct fastspool *fs, struct statvfs *st);

/** One name of a listing. */
struct fastspool_entry {
    uint64_t inode;     /* inode number, as in st_ino */
    uint64_t position;  /* as @after, continues behind this name */
    unsigned char type; /* DT_REG or DT_DIR */
    char name[256];
};

/** List an open directory, oldest name first, without "." and "..": at most @size names behind @after into @entries.
 *  @after: 0 starts; 1 and 2 do too, so that a caller may use them for "." and "..".  A name that exists throughout a
 *  listing is returned exactly once.  Returns the number of entries, 0 at the end. */
ssize_t fastspool_list(struct fastspool *fs, int description, uint64_t after, struct fastspool_entry *entries,
                       size_t size);

/** The position of the newest name of all: a listing that ends there has an end, however fast new names are made. */
uint64_t fastspool_list_end(struct fastspool *fs);

/** Wait until every change made before the call, by any process, is on the disk.  @timeout: nanoseconds, 0 for ever;
 *  checked every 100 ms.  -ETIMEDOUT; -EIO: no mirror has come up within ten seconds; or the last commit's error. */
int fastspool_flush(struct fastspool *fs, uint64_t timeout);

/** The state of a spool.  Reading it stops no process, so its numbers may be of slightly different instants. */
struct fastspool_status {
    enum fastspool_durability durability;
    uint64_t messages;      /* that Exim finds: -H files in `input`, of all queues */
    uint64_t files;         /* inodes that are not directories */
    uint64_t memory_bytes;  /* of the segment, taken from the system */
    uint64_t memory_limit;  /* `memory`, or what the runtime directory's file system has */
    uint64_t open_bytes;    /* of memory, in blocks of open files: can't be evicted */
    uint64_t evicted_files; /* whose data is on the disk alone */
    uint64_t spilled_files; /* open, without room in memory: read from spill files */
    uint64_t evictions;     /* of files, since the segment was created */
    uint64_t brought_back;  /* files paged in, since the segment was created */
    uint64_t room_bytes;    /* free, as fastspool_statvfs() */
    uint64_t room_files;
    uint64_t largest_bytes;    /* of one file that can be written now, while no other is */
    uint64_t dirty_bytes;      /* not yet on the disk */
    uint64_t dirty_files;      /* inodes with changes that are not yet on the disk */
    uint64_t unflushed_ns;     /* age of the oldest change that is not yet on the disk; 0: none */
    uint64_t commit_ns;        /* duration of the last commit */
    uint64_t commits;          /* that succeeded, since the segment was created */
    uint64_t commit_p50_ns;    /* median and 99th percentile of their durations: upper bounds, at most 19 % above, */
    uint64_t commit_p99_ns;    /*   and 573 ms for any longer duration */
    uint64_t descriptions;     /* open file descriptions, and those that processes keep for their next opens */
    int commit_error;          /* of the last commit: 0 or a negative errno */
    pid_t mirror_pid;          /* 0: none runs */
    uint64_t mirror_silent_ns; /* since the mirror's last sign of life; it gives one each second, if its disk answers */
    uint64_t waiters;          /* threads that wait now: for a commit, for data from the disk, or for memory */
};

/** Fill in @status.  -EIO: the store has FAILED; @status is filled in all the same. */
int fastspool_status(struct fastspool *fs, struct fastspool_status *status);

/** The library's version, such as "0.1.0"; static. */
const char *fastspool_version(void);

#pragma GCC visibility pop

#ifdef __cplusplus
}
#endif

#endif
