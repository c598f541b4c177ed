/* SPDX-License-Identifier: MIT
 *
 * A step of a sequence: one call that a mail server makes on its spool, its arguments, and its result.
 */
#ifndef FASTSPOOL_STEP_H
#define FASTSPOOL_STEP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define ACTORS    4     /* processes that do steps */
#define STREAMS   3     /* per actor */
#define BUFFER    20000 /* most bytes that a step reads or writes */
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
    int fd, to; /* descriptors; @to is also the actor that a fork makes */
    int stream;
    long flags, offset, size;
    unsigned salt; /* determines the bytes written */
    char path[PATH_SIZE], other[PATH_SIZE];
};

struct answer {
    long result;
    int error;
    pid_t pid;      /* the child of a fork, or the holder of the lock that GETLK found */
    char text[400]; /* everything else that is compared */
};

/** The name of @operation in a trace. */
const char *step_name(int operation);

/** True if @operation takes a path; true if it takes a stream. */
bool step_takes_path(int operation);
bool step_takes_stream(int operation);

/** Ask for the attributes of the file that @step will use, by its descriptor.  Of a file that is open by the view the
 * kernel keeps a size and pages until then (docs/limits.md): it uses the size for the offset after an append, and both
 * for sendfile(2). */
void step_refresh(const struct step *step);

/** Do @step in this process, except for FORK, EXEC and EXIT, which the actor does. */
void step_do(const struct step *step, struct answer *answer);

/** The hash that stands for content in a trace. */
uint64_t step_hash(const void *bytes, size_t size);

#endif
