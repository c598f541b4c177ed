/* SPDX-License-Identifier: MIT
 *
 * Preloaded into the command: says in the file that READER_REPORT names with which user ids LMDB opens a database, and
 * whether the process leads a session of its own, which has no terminal.
 */
#include <dlfcn.h>
#include <fcntl.h>
#include <lmdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int mdb_env_open(MDB_env *environment, const char *path, unsigned flags, mdb_mode_t mode)
{
    int (*real)(MDB_env *, const char *, unsigned, mdb_mode_t);
    char line[80];
    uid_t r, e, s;
    int fd = open(getenv("READER_REPORT"), O_WRONLY | O_APPEND);

    *(void **)&real = dlsym(RTLD_NEXT, "mdb_env_open");
    getresuid(&r, &e, &s);
    snprintf(line, sizeof(line), "%d %d %d %s\n", (int)r, (int)e, (int)s, getsid(0) == getpid() ? "alone" : "beside");
    if (fd < 0 || write(fd, line, strlen(line)) < 0)
        abort();
    return real(environment, path, flags, mode);
}
