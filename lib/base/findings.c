/* SPDX-License-Identifier: MIT
 *
 * Findings: a list of sentences of a fixed length, so that adding one takes no memory.
 *
 * Failure modes: more findings than there is room for are counted only.  The sentences are about what may be anybody's
 * bytes, and end on a terminal: nothing but printable ASCII gets into one.
 */
#include "base/findings.h"

#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/mman.h>

static size_t size_of(uint32_t most)
{
    return sizeof(struct findings) + (size_t)most * FINDING_MAX;
}

struct findings *findings_new(uint32_t most)
{
    struct findings *findings =
        mmap(NULL, size_of(most), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    if (findings == MAP_FAILED)
        return NULL;
    findings->most = most;
    return findings;
}

void findings_free(struct findings *findings, uint32_t most)
{
    if (findings)
        munmap(findings, size_of(most));
}

void findings_add(struct findings *findings, const char *format, ...)
{
    va_list arguments;

    if (findings->count < findings->most) {
        char *sentence = findings->sentence[findings->count];
        va_start(arguments, format);
        vsnprintf(sentence, FINDING_MAX, format, arguments);
        va_end(arguments);
        for (; *sentence; sentence++) {
            if (*sentence < ' ' || *sentence > '~')
                *sentence = '?';
        }
    }
    findings->count++;
}

void findings_join(struct findings *findings, const struct findings *from, uint32_t most)
{
    uint32_t count = from->count;

    for (uint32_t i = 0; i < count && i < most; i++)
        findings_add(findings, "%.*s", FINDING_MAX - 1, from->sentence[i]);
    if (count > most)
        findings->count += count - most;
}

uint32_t findings_kept(const struct findings *findings)
{
    return findings->count < findings->most ? findings->count : findings->most;
}
