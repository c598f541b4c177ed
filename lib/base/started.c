/* SPDX-License-Identifier: MIT
 *
 * When a process was started, and as what: words of /proc/PID/stat.
 */
#include "base/started.h"

#include "base/clock.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define AFTER_NAME 20 /* words from the name to it */

uint64_t started_at(pid_t pid, char name[STARTED_NAME])
{
    char path[32], text[1024];
    size_t size = 0;

    snprintf(path, sizeof(path), "/proc/%ld/stat", (long)pid);
    FILE *file = pid > 0 ? fopen(path, "re") : NULL;
    if (file) {
        size = fread(text, 1, sizeof(text) - 1, file);
        fclose(file);
    }
    text[size] = '\0';
    const char *word = strrchr(text, ')'), *begin = strchr(text, '('); /* the name may have blanks and parentheses */
    size_t length = word && begin ? (size_t)(word - begin) - 1 : 0;
    snprintf(name, STARTED_NAME, "%.*s", (int)length, length ? begin + 1 : "");
    for (int i = 0; word && i < AFTER_NAME; i++)
        word = strchr(word + 1, ' ');
    return word ? strtoull(word, NULL, 10) * (NS_PER_S / (uint64_t)sysconf(_SC_CLK_TCK)) : 0;
}
