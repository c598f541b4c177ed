/* SPDX-License-Identifier: MIT
 *
 * A running Exim as the proof that the loader takes the library.
 *
 * To run Exim, and to look at its memory, says that for certain, and costs each call of a monitor 3.7 ms of a
 * processor.  An Exim that runs already, with the library, says the same where nothing has changed since it began.
 *
 * Happy path: its image is the one that a start would execute; it has mapped the file that is installed now, which was
 * last changed before it began; and the file's directory is one of the loader's own, the only ones in secure execution.
 * The library needs no other one but libc.
 *
 * Failure modes, each of which is no proof:
 *   - The library, or Exim, was replaced: its file is another one.
 *   - The library was written over in its place, or its mode was changed: its time of change is later.
 *   - The process is the child of another Exim: its start does not say when the loader did its work for that one.  (A
 *     daemon is a fork, too, of one that has ended at once: MARGIN covers that.)
 *   - The process has ended, and another one has its number: what is read of both is of neither.
 *   - LD_LIBRARY_PATH is set for this command: the loader's own directories can't be told from those.
 *   - This process may not look, as root in a container.
 */
#include "proof.h"

#include "base/clock.h"
#include "base/started.h"
#include "installed.h"
#include "maps.h"

#include <dlfcn.h>
#include <limits.h>
#include <link.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MARGIN NS_PER_S /* file times and process times are told in steps of some ms */

static bool is_same(const struct stat *one, const struct stat *other)
{
    return one->st_dev == other->st_dev && one->st_ino == other->st_ino;
}

static bool runs(pid_t pid, const struct stat *image)
{
    char path[32];
    struct stat st;

    snprintf(path, sizeof(path), "/proc/%ld/exe", (long)pid);
    return stat(path, &st) == 0 && is_same(&st, image);
}

/* Of a process that was @started: has the loader begun its work after @changed? */
static bool has_begun_since(uint64_t started, const struct timespec *changed)
{
    struct timespec boot, real;

    clock_gettime(CLOCK_BOOTTIME, &boot);
    clock_gettime(CLOCK_REALTIME, &real);
    uint64_t since_boot = clock_nanoseconds(&real) - clock_nanoseconds(&boot);
    return clock_nanoseconds(changed) + MARGIN < since_boot + started;
}

/* Does the loader look there by itself? */
static bool is_searched(const char *directory)
{
    void *self = dlopen(NULL, RTLD_NOW);
    Dl_serinfo size, *list = NULL;
    bool found = false;

    if (self && !getenv("LD_LIBRARY_PATH") && dlinfo(self, RTLD_DI_SERINFOSIZE, &size) == 0)
        list = malloc(size.dls_size);
    if (list && dlinfo(self, RTLD_DI_SERINFOSIZE, list) == 0 && dlinfo(self, RTLD_DI_SERINFO, list) == 0) {
        for (unsigned i = 0; i < list->dls_cnt && !found; i++)
            found = strcmp(list->dls_serpath[i].dls_name, directory) == 0;
    }
    free(list);
    if (self)
        dlclose(self);
    return found;
}

bool proof_of(pid_t pid, const char *exim, const struct stat *library)
{
    char name[STARTED_NAME];
    struct stat image;
    uint64_t started = started_at(pid, name);

    return started && stat(exim, &image) == 0 && runs(pid, &image) && !runs(started_parent(pid), &image) &&
           maps_has(pid, "/" EXIMS_LIBRARY, library) && has_begun_since(started, &library->st_ctim) &&
           is_searched(FASTSPOOL_TRUSTED_LIBDIR) && started_at(pid, name) == started;
}
