/* SPDX-License-Identifier: MIT
 *
 * Noted locks: record locks that stand in the store, and cost no system call.
 */
#ifndef FASTSPOOL_NOTED_H
#define FASTSPOOL_NOTED_H

#include <stdbool.h>
#include <stdint.h>

struct fastspool;

/** Bytes of one inode in the lock file: twice the largest file. */
#define LOCKS_RANGE (INT64_C(1) << 33)

/** A record lock that is asked for. */
struct noted_wish {
    uint32_t description;
    uint32_t inode;
    int64_t from; /* bytes [from, to) of the file */
    int64_t to;
    short type; /* F_RDLCK, F_WRLCK or F_UNLCK */
    bool look;  /* F_GETLK: nothing is taken */
    bool own;   /* it is to be this process's, not an owner's of locks_control_for() */
};

/** A noted lock: for writing, bytes [from, to). */
struct noted {
    uint32_t description; /* by which it was taken */
    uint32_t inode;
    uint32_t process;
    int64_t from;
    int64_t to;
    bool moved; /* for noted_end(): the kernel has it now */
};

enum noted_answer {
    NOTED_KERNELS, /* ask the kernel */
    NOTED_TAKEN,   /* it is noted, and the process has it */
    NOTED_OWN,     /* the process has the noted lock *@note on the file, which must end or go to the kernel first */
    NOTED_ANOTHERS /* another process has the noted lock *@note, which is in the way */
};

/** Outside sections: what to do for @wish.  Returns an enum noted_answer, or a negative errno. */
int noted_ask(struct fastspool *fs, const struct noted_wish *wish, struct noted *note);
/** Outside sections: end the noted lock, if it still stands.  Returns 1 if somebody waits for it, and it was there. */
int noted_end(struct fastspool *fs, const struct noted *note);
/** Outside sections: end the noted lock that this process has on the file @inode of @description, if it has one.
 * Returns 1 if somebody waits for it, and it was there. */
int noted_drop(struct fastspool *fs, uint32_t description, uint32_t inode);
/** Has any process a noted lock on the file?  Without a section. */
bool noted_on(const struct fastspool *fs, uint32_t inode);
/** Has this process noted any lock?  Without a section. */
bool noted_any(const struct fastspool *fs);
/** Does the process of the note live? */
bool noted_lives(const struct fastspool *fs, const struct noted *note);
/** Wait by @fd, a description of the lock file, with @command (F_SETLKW or F_OFD_SETLKW), until the note has ended or
 * its process is dead.  Returns 0, or the error of fcntl(2): -EINTR, -EDEADLK. */
int noted_wait(struct fastspool *fs, const struct noted *note, int fd, int command);
/** A noted lock of this process has ended, and somebody waits for it: end the wait.  @move takes what the process has
 *  noted elsewhere to the kernel: as noted_end(), with `moved` set; a negative errno: it could not. */
void noted_tell(struct fastspool *fs, int (*move)(struct fastspool *fs, struct noted *note));
/** Has this process noted a lock by the description?  Without a section. */
bool noted_by(const struct fastspool *fs, uint32_t description);
/** In a section: a description is not open any more.  What is noted there ends.  Does anybody wait for that? */
bool noted_forget(struct fastspool *fs, uint32_t description);

#endif
