/* SPDX-License-Identifier: MIT
 *
 * A step of a sequence: one call that a mail server makes on its spool, with its arguments, and what came of it.
 */
#ifndef FASTSPOOL_STEP_H
#define FASTSPOOL_STEP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define ACTORS    4     /* processes that do steps */
#define STREAMS   3     /* of an actor */
#define BUFFER    20000 /* what a step reads or writes at the most */
#define PATH_SIZE 600

enum operation {
    OPEN,
    OPENAT,
    READ,
    PREAD,
    READV,
    WRITE,
    PWRITE,
    WRITEV,
    LSEEK,
    FTRUNCATE,
    TRUNCATE,
    DUP,
    DUP2,
    DUPFD,
    CLOSE,
    RENAME,
    LINK,
    UNLINK,
    UNLINKAT,
    MKDIR,
    RMDIR,
    STAT,
    LSTAT,
    FSTAT,
    FSTATAT,
    ACCESS,
    CHMOD,
    FCHMOD,
    CHOWN,
    FCHOWN,
    UMASK,
    GETFD,
    SETFD,
    GETFL,
    SETFL,
    SETLK,
    GETLK,
    LIST,
    LISTAT,
    SYNC,
    STATVFS,
    UTIMENS,
    SENDFILE,
    FOPEN,
    FDOPEN,
    FPRINTF,
    FGETS,
    FREAD,
    UNGETC,
    FSEEK,
    REWIND,
    FTELL,
    FFLUSH,
    FCLOSE,
    FORK,
    EXEC,
    EXIT,
    OPERATIONS
};

struct step {
    int operation;
    int fd, to; /* descriptors, or the actor that a fork makes */
    int stream;
    long flags, offset, size;
    unsigned salt; /* of the bytes written */
    char path[PATH_SIZE], other[PATH_SIZE];
};

struct answer {
    long result;
    int error;
    pid_t pid;      /* of a fork's child; of who holds the lock that GETLK found */
    char text[400]; /* what else is compared */
};

/** The name of @operation in a trace. */
const char *step_name(int operation);

/** Does @operation go by a path; does it go by a stream? */
bool step_takes_path(int operation);
bool step_takes_stream(int operation);

/** Do @step in this process.  Not for FORK, EXEC and EXIT, which are an actor's own. */
void step_do(const struct step *step, struct answer *answer);

/** What stands in a trace for content. */
uint64_t step_hash(const void *bytes, size_t size);

#endif
