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
 *   - A file that can't be read does not differ: whoever asks has seen that it is there.
 *   - Nor does what is no library of this machine's, or a part of one: the loader says what comes of that.
 *   - A library without the mark is of a version before it, or none of ours.
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

extern const ElfW(Ehdr) __ehdr_start __attribute__((visibility("hidden"))); /* of this program; the linker makes it */

/* Is it one of this machine's, with all that the loader maps? */
static bool is_whole(const char *data, size_t size)
{
    const size_t kind = offsetof(ElfW(Ehdr), e_ident[EI_OSABI]);
    ElfW(Ehdr) head;
    ElfW(Phdr) part;

    if (size < sizeof(head))
        return false;
    memcpy(&head, data, sizeof(head));
    if (memcmp(&head, &__ehdr_start, kind) != 0 || head.e_machine != __ehdr_start.e_machine || head.e_phoff > size ||
        (size - head.e_phoff) / sizeof(part) < head.e_phnum)
        return false;
    for (size_t i = 0; i < head.e_phnum; i++) {
        memcpy(&part, data + head.e_phoff + i * sizeof(part), sizeof(part));
        if (part.p_type == PT_LOAD && (part.p_offset > size || part.p_filesz > size - part.p_offset))
            return false;
    }
    return true;
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

    bool is = got > 0 && is_whole(data, (size_t)got);
    if (is)
        *version = version_in(data, (size_t)got);
    free(data);
    return is;
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
