/* SPDX-License-Identifier: MIT
 *
 * The library's file, as it is installed for Exim.
 *
 * A library and a command of different versions are both in order, and of no use: the library makes a store that the
 * mirror, which is the command, refuses, or the other way round.
 *
 * Happy path: the file has the mark, and behind it the layout version of its stores (store/layout.h).
 *
 * Failure modes: a file that can't be read does not differ: whoever asks has seen that it is there.  One without the
 * mark is of a version before it, or no library of ours.
 */
#include "installed.h"

#include "store/layout.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define LARGEST (64 << 20) /* bytes of a library */

/* 0: there is no mark. */
static uint32_t version_in(const char *data, size_t size)
{
    static const char mark[] = LAYOUT_MARK;
    struct layout_mark found = {.version = 0};
    const char *at = memmem(data, size, mark, sizeof(mark));

    if (at && size - (size_t)(at - data) >= sizeof(found))
        memcpy(&found, at, sizeof(found));
    return found.version;
}

static bool read_version(int fd, uint32_t *version)
{
    struct stat st;
    char *data = fstat(fd, &st) == 0 && st.st_size > 0 && st.st_size <= LARGEST ? malloc((size_t)st.st_size) : NULL;
    ssize_t got = data ? pread(fd, data, (size_t)st.st_size, 0) : -1;

    if (got > 0)
        *version = version_in(data, (size_t)got);
    free(data);
    return got > 0;
}

bool installed_differs(char sentence[INSTALLED_SENTENCE])
{
    int fd = open(INSTALLED_LIBRARY, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    uint32_t version = LAYOUT_VERSION;

    bool differs = fd >= 0 && read_version(fd, &version) && version != LAYOUT_VERSION;
    if (fd >= 0)
        close(fd);
    if (differs)
        snprintf(sentence, INSTALLED_SENTENCE,
                 "%s is of another version than " FASTSPOOL_TOOL
                 ": its stores have layout version %u, and those of "
                 "the command, which is the mirror, %u",
                 INSTALLED_LIBRARY, version, LAYOUT_VERSION);
    return differs;
}
