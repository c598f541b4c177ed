/* SPDX-License-Identifier: MIT
 *
 * When a process was started, as what, and how it is now: words of /proc/PID/stat and status.
 */
#include "base/started.h"

#include "base/clock.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define AFTER_NAME 20 /* words from the name to it */
#define WORDS      1024

/* "PID (NAME) STATE ...", or "". */
static void read_words(pid_t pid, char text[WORDS])
{
    char path[32];

    snprintf(path, sizeof(path), "/proc/%ld/stat", (long)pid);
    int fd = pid > 0 ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    ssize_t size = fd < 0 ? 0 : read(fd, text, WORDS - 1);
    if (fd >= 0)
        close(fd);
    text[size > 0 ? size : 0] = '\0';
}

uint64_t started_at(pid_t pid, char name[STARTED_NAME])
{
    char text[WORDS];

    read_words(pid, text);
    const char *word = strrchr(text, ')'), *begin = strchr(text, '('); /* the name may have blanks and parentheses */
    size_t length = word && begin ? (size_t)(word - begin) - 1 : 0;
    snprintf(name, STARTED_NAME, "%.*s", (int)length, length ? begin + 1 : "");
    for (int i = 0; word && i < AFTER_NAME; i++)
        word = strchr(word + 1, ' ');
    return word ? strtoull(word, NULL, 10) * (NS_PER_S / (uint64_t)sysconf(_SC_CLK_TCK)) : 0;
}

pid_t started_parent(pid_t pid)
{
    char text[WORDS];
    long parent = 0;

    read_words(pid, text);
    const char *word = strrchr(text, ')');
    return word && sscanf(word, ") %*c %ld", &parent) == 1 ? (pid_t)parent : 0;
}

bool started_look(pid_t pid, struct started_now *now)
{
    char path[32], line[256];
    unsigned found = 0;

    snprintf(path, sizeof(path), "/proc/%ld/status", (long)pid);
    FILE *file = pid > 0 ? fopen(path, "re") : NULL;
    while (file && found < 3 && fgets(line, sizeof(line), file))
        found += sscanf(line, "State: %c", &now->state) == 1 || sscanf(line, "Uid: %*u %u", &now->uid) == 1 ||
                 sscanf(line, "voluntary_ctxt_switches: %" SCNu64, &now->switches) == 1;
    if (file)
        fclose(file);
    return found == 3;
}

bool started_is_stopped(pid_t pid)
{
    struct started_now now;

    return started_look(pid, &now) && (now.state == 'T' || now.state == 't');
}
