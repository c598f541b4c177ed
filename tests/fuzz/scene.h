/* SPDX-License-Identifier: MIT
 *
 * The scene of a fuzzer of the store: real operations make it, and none of them may fail.  A store of fixture.h is
 * `fs`.
 */
#ifndef FUZZ_SCENE_H
#define FUZZ_SCENE_H

#include "fixture.h"
#include "mirror/capture.h"
#include "mirror/journal.h"

#include <fcntl.h>

/* @result: a negative errno ends the program. */
static void must(long result, const char *what)
{
    if (result < 0)
        fixture_fail(what, strerrordesc_np((int)-result));
}

/* A file @path that begins with @bytes. */
static void scene_put(const char *path, const char *bytes, size_t size)
{
    int d = fastspool_open(fs, path, O_RDWR | O_CREAT, 0640);

    must(d, path);
    must(fastspool_write(fs, d, bytes, size), path);
    must(fastspool_close(fs, d), path);
}

static void scene_commit(struct journal *journal)
{
    char error[FASTSPOOL_ERROR_MAX];
    struct capture capture;

    must(capture_take(fs, &capture), "capture");
    must(journal_append(journal, &capture, error), error);
    must(capture_end(fs, &capture, 0, 1), "end the commit");
}

#endif
