/* SPDX-License-Identifier: MIT
 *
 * What the library has decided for a process.
 *
 * A library without its set-user-ID bit is loaded by an Exim that root starts, and serves nothing there.  Whether a
 * store is attached is no answer, either: an Exim that is served may not have needed its spool yet.  So the library's
 * own word counts (base/decision.h).
 *
 * Happy path: the library's data is mapped to be written, and has the mark, and behind it the word.
 *
 * Failure modes:
 *   - The process ends meanwhile, or may not be looked at: it has no library.
 *   - A library without the mark, a process that has just begun, or a machine where nobody may read another process's
 *     memory (Yama's ptrace_scope 3): UNDECIDED.
 *   - The process is the mail user's, who writes what he likes: then he is believed about his own process.
 */
#include "decided.h"

#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define PIECE 65536 /* bytes of the library's data that are looked at: it has fewer */

/* Find the mark in memory from @start to @end. */
static bool read_word(pid_t pid, uint64_t start, uint64_t end, uint32_t *word)
{
    static const char mark[] = DECISION_MARK;
    char path[32], data[PIECE];
    size_t size = end - start < sizeof(data) ? (size_t)(end - start) : sizeof(data);

    snprintf(path, sizeof(path), "/proc/%ld/mem", (long)pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t got = fd < 0 ? -1 : pread(fd, data, size, (off_t)start);
    if (fd >= 0)
        close(fd);
    const char *found = got > 0 ? memmem(data, (size_t)got, mark, sizeof(mark)) : NULL;
    size_t at = found ? (size_t)(found - data) + offsetof(struct decision_word, decision) : 0;
    if (!found || at + sizeof(*word) > (size_t)got)
        return false;
    memcpy(word, data + at, sizeof(*word));
    return true;
}

bool decided_has(pid_t pid, enum decision *decision)
{
    char path[48], line[PATH_MAX + 128];
    bool has = false, found = false;
    uint32_t word = UNDECIDED;

    snprintf(path, sizeof(path), "/proc/%ld/maps", (long)pid);
    FILE *maps = fopen(path, "re");
    while (maps && !found && fgets(line, sizeof(line), maps)) {
        uint64_t start, end;
        char rights[8];
        if (!strstr(line, "/" DECIDED_LIBRARY))
            continue;
        has = true;
        found = sscanf(line, "%" SCNx64 "-%" SCNx64 " %7s", &start, &end, rights) == 3 && rights[1] == 'w' &&
                start < end && read_word(pid, start, end, &word);
    }
    if (maps)
        fclose(maps);
    *decision = word <= SERVE ? (enum decision)word : UNDECIDED;
    return has;
}
