/* SPDX-License-Identifier: MIT
 *
 * Numbers on a command line: a wrong one is a sentence, and exit status 2.
 */
#ifndef FASTSPOOL_BENCH_ARGUMENT_H
#define FASTSPOOL_BENCH_ARGUMENT_H

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/** The number in @text, from @least to @most.  @what: its name in the sentence. */
static inline unsigned long argument_number(const char *what, const char *text, unsigned long least, unsigned long most)
{
    char *end = NULL;
    unsigned long number = text && isdigit((unsigned char)*text) ? strtoul(text, &end, 10) : 0;

    if (end && *end == '\0' && strlen(text) < 19 && number >= least && number <= most)
        return number;
    fprintf(stderr, "%s: %s must be a number from %lu to %lu, and is `%s`\n", program_invocation_short_name, what,
            least, most, text ? text : "missing");
    exit(2);
}

#endif
