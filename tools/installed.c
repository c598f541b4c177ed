/* SPDX-License-Identifier: MIT
 *
 * The library's file, as it is installed for Exim.
 *
 * A library and a command of different versions are both in order, and of no use: the library makes a store that the
 * mirror, which is the command, refuses, or the other way round.
 *
 * Happy path: the file has the mark, and behind it the layout version of its stores (store/layout.h).
 *
 * Failure modes:
 *   - The library has no mark: it is of a version before it.
 *   - The file can't be read, or is no library, a part of one, or another machine's: it does not differ, and what it is
 *     the loader says.
 */
#include "installed.h"

#include "store/layout.h"

#include <fcntl.h>
#include <link.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define LARGEST (64 << 20) /* bytes of a library */

extern const ElfW(Ehdr) __ehdr_start __attribute__((visibility("hidden"))); /* this command's, by the linker */

/* Is it a whole library, for this machine? */
static bool is_library(const char *data, size_t size)
{
    ElfW(Ehdr) header;

    if (size < sizeof(header))
        return false;
    memcpy(&header, data, sizeof(header));
    return memcmp(header.e_ident, __ehdr_start.e_ident, EI_VERSION) == 0 &&
           header.e_machine == __ehdr_start.e_machine && header.e_shoff <= size &&
           (size - header.e_shoff) / sizeof(ElfW(Shdr)) >= header.e_shnum;
}

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

    if (got > 0 && is_library(data, (size_t)got))
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
