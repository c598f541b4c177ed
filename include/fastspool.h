/* SPDX-License-Identifier: MIT
 *
 * fastspool: a mail spool as fast as RAM and as safe as disk.
 *
 * One struct fastspool is one spool, attached by this process.  Its files live in a segment of shared
 * memory that every attached process maps; `fastspool mirror`, a process of its own, writes what changes
 * to the disk.  A call below does its work in the caller's own process: no server is asked.
 *
 * Conventions
 *   - A function that can fail returns a negative errno (-ENOENT, ...) and never sets errno.  Zero or a
 *     positive value is success.
 *   - PATH is relative to the spool ("input/8/1abcde-000001-AB-D"), without a leading slash.  Repeated
 *     slashes and "." are skipped, ".." climbs, never above the spool.
 *   - An open file description is a small number (not a file descriptor): what POSIX calls an open file
 *     description, with an offset and flags of its own.
 *   - Sizes and offsets are bytes, durations are nanoseconds unless a name says otherwise.
 *
 * Threads: every call may be made from several threads at once.
 * Signals: no call may be made from a signal handler that interrupted another call, and no handler may
 *   leave one by longjmp.  (The preloaded library sees to both by itself.)
 * Fork: the child of a fork may go on to use the attachment; descriptions that were open at the fork are
 *   shared with the parent, as descriptors are.  Call fastspool_after_fork_child() first.
 * Exec: an attachment does not survive it.
 * Death: a process may be killed at any instruction.  Each call is done wholly or not at all, and what the
 *   process had open is closed for it.
 *
 * Caveats
 *   - All processes of one spool must live in one PID namespace: the kernel's robust mutexes know their
 *     owners by thread number.  A process of another namespace is refused (-EXDEV).
 *   - The process must be root, the spool's owner, or one of the configured trusted users.
 *   - A time of last access is set when a file is made and by fastspool_utimens, not by reading.
 *   - A file that is being written is in memory as a whole: it has to fit.  One whose data is no longer there, and
 *     is larger than a quarter of the memory, or finds no room when it is opened, is read from the disk, and writing
 *     to it is -ENOSPC while anybody has it open.
 *   - There are no symbolic links, devices, sockets or FIFOs in a fastspool; a file is at most 4 GiB.
 *   - Record locks are POSIX record locks, with all their properties: closing any description of a file
 *     drops the process's locks on it, and a child does not inherit them.
 */
#ifndef FASTSPOOL_H
#define FASTSPOOL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#endif

#pragma GCC visibility push(default)

struct flock;
struct fastspool;

/** Bytes that an error sentence takes at the most, its final NUL included. */
#define FASTSPOOL_ERROR_MAX 512

/** When an fsync returns, and what a power cut may then take away.  (The death of any process takes nothing.) */
enum fastspool_durability {
    FASTSPOOL_ACKED = 0,  /* of a file: at once; of a directory: when all that the process has synced is on the disk.
                             Nothing that was acknowledged after it (Exim's 250) is lost */
    FASTSPOOL_LAZY = 1,   /* at once; the disk follows within the flush interval, which may be lost */
    FASTSPOOL_STRICT = 2, /* when what it was asked for is on the disk */
};

/** "acked", "lazy", "strict". */
const char *fastspool_durability_name(enum fastspool_durability durability);

/** Most images (`program`) and users (`trusted_user`) that a configuration can name. */
#define FASTSPOOL_PROGRAMS_MAX 16
#define FASTSPOOL_TRUSTED_MAX  16
#define FASTSPOOL_SPOOLS_MAX   16
#define FASTSPOOL_PATH_MAX     256

/** What /etc/fastspool.conf and, outside secure execution, FASTSPOOL_* say.  Plain data: copy it freely. */
struct fastspool_config {
    char spool[FASTSPOOL_SPOOLS_MAX][FASTSPOOL_PATH_MAX];     /* absolute paths, as configured */
    size_t spools;                                            /* how many; at least 1 after a load */
    enum fastspool_durability durability;                     /* default FASTSPOOL_ACKED */
    uint64_t memory;                                          /* bytes that the segment may hold */
    uint64_t flush_interval;                                  /* nanoseconds, default 100 ms */
    char state[FASTSPOOL_PATH_MAX];                           /* "" = SPOOL/.fastspool */
    char runtime[FASTSPOOL_PATH_MAX];                         /* "" = /dev/shm */
    char program[FASTSPOOL_PROGRAMS_MAX][FASTSPOOL_PATH_MAX]; /* images that are served in secure execution */
    size_t programs;
    uid_t trusted_user[FASTSPOOL_TRUSTED_MAX]; /* besides root and the spool's owner */
    size_t trusted_users;
};

/** Fill @config with the defaults, then with what the configuration file says, then (where @environment is
 *  true; never in secure execution) with the environment.  @path: the file; NULL is /etc/fastspool.conf,
 *  which may be missing.  A key that is unknown, a value that does not parse, a file that somebody other
 *  than root can write (checked where @environment is false): -EINVAL and a sentence with file and line
 *  in @error. */
int fastspool_config_load(struct fastspool_config *config, const char *path, bool environment,
                          char error[FASTSPOOL_ERROR_MAX]);

/** Attach the spool directory @spool (absolute).  Creates and, after a reboot, recovers the store where
 *  nobody has yet; starts the mirror process where none runs; waits until the store is ready.
 *  Ownership: *@out is the caller's until fastspool_detach().
 *  Errors, with a sentence in @error: -ENOENT, -ENOTDIR (no such spool), -EACCES (the process is neither
 *  root nor the owner nor trusted), -EXDEV (other PID namespace), -EPROTO (segment of another layout
 *  version), -EIO (damaged segment or database, or the names of its files need more than @config->memory),
 *  -ENOSPC (@config->memory is less than 4 MiB, or the runtime directory's file system is full), -ENOMEM. */
int fastspool_attach(const char *spool, const struct fastspool_config *config, struct fastspool **out,
                     char error[FASTSPOOL_ERROR_MAX]);

/** Unmap the store and close the library's own descriptors.  Descriptions that are still open are closed
 *  as at the death of the process. */
void fastspool_detach(struct fastspool *fs);

/** In the child of a fork, before its first call: forget what belongs to the parent alone. */
void fastspool_after_fork_child(struct fastspool *fs);

/** After a call that changes the process's effective user or group: permissions are checked, and new files owned,
 *  by what these were when a call first needed them, or at the last call of this function.  (Not needed with the
 *  preloaded library, which sees such calls.) */
void fastspool_credentials_changed(void);

/** open(2) on the store.  @flags: O_RDONLY, O_WRONLY or O_RDWR, O_CREAT, O_EXCL, O_TRUNC, O_APPEND,
 *  O_DIRECTORY, O_NOFOLLOW; others are kept or ignored as open(2) would.  @mode is taken literally (no
 *  umask).  Permission is checked for the effective user and group, as the real file system does.
 *  A file whose data is not in memory is brought back first, by the mirror, whole; while it is open it stays.
 *  -ENOSPC: there is no memory for a new file, and none came free within ten seconds, or neither memory nor disk has
 *  room for the data of an old one; -EIO: the database does not give it back.  Returns the description's number. */
int fastspool_open(struct fastspool *fs, const char *path, int flags, mode_t mode);
int fastspool_close(struct fastspool *fs, int description);

ssize_t fastspool_read(struct fastspool *fs, int description, void *buffer, size_t size);
/** write(2).  Where there is no memory it waits for other files to be evicted: ten seconds at the most, one while
 * commits fail; then -ENOSPC. */
ssize_t fastspool_write(struct fastspool *fs, int description, const void *buffer, size_t size);
ssize_t fastspool_pread(struct fastspool *fs, int description, void *buffer, size_t size, off_t offset);
ssize_t fastspool_pwrite(struct fastspool *fs, int description, const void *buffer, size_t size, off_t offset);
off_t fastspool_lseek(struct fastspool *fs, int description, off_t offset, int whence);
int fastspool_ftruncate(struct fastspool *fs, int description, off_t size);
int fastspool_fstat(struct fastspool *fs, int description, struct stat *st);
int fastspool_fchmod(struct fastspool *fs, int description, mode_t mode);
int fastspool_fchown(struct fastspool *fs, int description, uid_t uid, gid_t gid);
int fastspool_futimens(struct fastspool *fs, int description, const struct timespec times[2]);

/** fsync(2), as the durability that this process attached with says.  Also where it returns at once, it waits when
 *  what is not yet on the disk has reached its bound in time or in bytes.  0 where the file's last change is on the
 *  disk, whatever happened to others since; else -EIO, -ENOSPC, ...: why the last commit failed, until one succeeds.
 *  (What was not written is not forgotten: it is tried again, once a second.) */
int fastspool_fsync(struct fastspool *fs, int description);

/** fcntl(2) with F_SETLK, F_SETLKW (-EINTR when a signal handler ran) or F_GETLK. */
int fastspool_lock(struct fastspool *fs, int description, int command, struct flock *lock);

int fastspool_stat(struct fastspool *fs, const char *path, struct stat *st);
int fastspool_access(struct fastspool *fs, const char *path, int mode, bool effective);
int fastspool_chmod(struct fastspool *fs, const char *path, mode_t mode);
int fastspool_chown(struct fastspool *fs, const char *path, uid_t uid, gid_t gid);
int fastspool_utimens(struct fastspool *fs, const char *path, const struct timespec times[2]);
int fastspool_truncate(struct fastspool *fs, const char *path, off_t size);
int fastspool_mkdir(struct fastspool *fs, const char *path, mode_t mode);
int fastspool_rmdir(struct fastspool *fs, const char *path);
int fastspool_unlink(struct fastspool *fs, const char *path);
int fastspool_link(struct fastspool *fs, const char *from, const char *to);
/** @flags: 0 or RENAME_NOREPLACE, as renameat2(2). */
int fastspool_rename(struct fastspool *fs, const char *from, const char *to, unsigned flags);
/** statvfs(2): what can really still be taken.  Of bytes: what the disk of the state directory has room for, less what
 *  the next checkpoint needs; while commits or checkpoints fail, what memory has room for.  Of files: those whose names
 *  memory has room for, at 200 bytes each; no more blocks than files are left.  Blocks are of 4096 bytes. */
int fastspool_statvfs(struct fastspool *fs, struct statvfs *st);

/** One name of a listing. */
struct fastspool_entry {
    uint64_t inode;     /* inode number, as in st_ino */
    uint64_t position;  /* what to give as @after to go on behind this name */
    unsigned char type; /* DT_REG or DT_DIR */
    char name[256];
};

/** The names of an open directory, oldest first, "." and ".." not among them: at the most @size of them
 *  into @entries, those behind @after (0: from the start; 1 and 2 are taken for "." and "..").  A name that
 *  exists throughout is listed exactly once.  Returns how many; 0 at the end. */
ssize_t fastspool_list(struct fastspool *fs, int description, uint64_t after, struct fastspool_entry *entries,
                       size_t size);

/** Wait until everything changed before the call is on the disk.  @timeout in nanoseconds, 0 = for ever
 *  (-ETIMEDOUT).  Other errors: why the commit failed. */
int fastspool_flush(struct fastspool *fs, uint64_t timeout);

/** How a spool is.  A snapshot, taken without stopping anybody: its numbers may be of slightly different
 *  instants. */
struct fastspool_status {
    enum fastspool_durability durability;
    uint64_t messages;      /* names that end in "-D" below a directory "input" */
    uint64_t files;         /* inodes that are not directories */
    uint64_t memory_bytes;  /* of the segment, taken from the system */
    uint64_t memory_limit;  /* the configured `memory` */
    uint64_t evicted_files; /* whose data is on the disk alone */
    uint64_t spilled_files; /* too large for memory, and open: read from the disk */
    uint64_t evictions;     /* how often a file's data left memory since the segment was made, */
    uint64_t brought_back;  /* and how often it came back */
    uint64_t room_bytes;    /* that can still be taken, memory and disk considered: as fastspool_statvfs() */
    uint64_t room_files;
    uint64_t dirty_bytes;   /* not yet on the disk */
    uint64_t dirty_files;   /* inodes with changes that are not yet on the disk */
    uint64_t unflushed_ns;  /* age of the oldest change that is not yet on the disk; 0: none */
    uint64_t commit_ns;     /* how long the last commit took */
    uint64_t commits;       /* since the segment was made */
    uint64_t commit_p50_ns; /* half of them took no longer, */
    uint64_t commit_p99_ns; /* and 99 of 100; both to a fifth of an octave */
    uint64_t descriptions;  /* open file descriptions */
    int commit_error;       /* why the last commit failed: 0 or a negative errno */
    pid_t mirror_pid;       /* 0: none runs */
};

int fastspool_status(struct fastspool *fs, struct fastspool_status *status);

/** The library's version, "0.1.0". */
const char *fastspool_version(void);

#pragma GCC visibility pop

#ifdef __cplusplus
}
#endif

#endif
