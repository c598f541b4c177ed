/* SPDX-License-Identifier: MIT
 *
 * Asking: the calls of a process that has left the store, on files that its carrier writes to; and what is said between
 * the two.
 */
#ifndef FASTSPOOL_ASKING_H
#define FASTSPOOL_ASKING_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>

/** Bytes of one request; the store writes as many in one section. */
#define ASKING_PIECE 65536

enum asking_operation { ASKING_WRITE, ASKING_SEEK, ASKING_TRUNCATE, ASKING_SYNC, ASKING_STAT };

/** A message over the connection: this, and the bytes to write.  With it comes the pipe for the answer. */
struct asking_request {
    uint32_t file; /* the number that the carrier knows it by */
    uint32_t operation;
    int64_t offset; /* WRITE: where, -1: at the file's offset.  TRUNCATE: the size */
    int32_t whence;
    int32_t unused;
};

struct asking_answer {
    int64_t result; /* or -errno */
    struct stat st; /* STAT */
};

/** Make the connection, before the carrier is started.  Returns the carrier's end, or -errno. */
int asking_connect(void);
/** Is @fd the library's end? */
bool asking_is_own(int fd);
/** The library's end, if that is a descriptor from @from on; UINT_MAX: it is not. */
unsigned asking_next_own(unsigned from);

/** As the calls of these names.  When they return, it is done.  @fd: a descriptor of the file. */
ssize_t asking_write(int file, int fd, const void *bytes, size_t size);
ssize_t asking_pwrite(int file, const void *bytes, size_t size, off_t offset);
off_t asking_lseek(int file, off_t offset, int whence);
int asking_ftruncate(int file, off_t size);
int asking_fsync(int file);
int asking_fstat(int file, struct stat *st);

#endif
