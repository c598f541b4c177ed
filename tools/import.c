/* SPDX-License-Identifier: MIT
 *
 * fastspool import: move what lies on the plain disk of the spool into the store (lib/plain/import.c).
 *
 * The happy path: attach as `fastspool export` does, keep a view from beginning, and import as the spool's owner.  An
 * Exim with the library may run: it sees each message once.
 *
 * Failure modes: a view is mounted: it imports by itself.  Something stays on the disk: it is named, and the exit
 * status says so.  ^C: the messages on the way are finished, and a sentence says what remains.  A death at any point:
 * another call goes on.
 */
#include "plain/import.h"
#include "base/rights.h"
#include "fastspool.h"
#include "interrupt.h"
#include "move.h"
#include "plain/census.h"
#include "progress.h"
#include "standstill.h"
#include "store/store.h"
#include "tool.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char usage[] =
    "usage: fastspool import [--spool DIR]\n"
    "Moves the messages that lie on the disk of the spool into the store.  A view does so by itself.  Where Exims\n"
    "run, one has to have the store.  A message that a process works on stays; so does one that the store has with\n"
    "another content.  If it is interrupted, run it again: no message is lost, none is in both places.\n"
    "Exit status: 0 nothing is left on the disk, 1 an error, 2 something stays there, 64 wrong arguments.\n";

static void show_progress(const struct import_result *result)
{
    progress_at(result->done, result->total);
}

static int64_t count_left(struct fastspool *fs)
{
    struct census census;

    census_take(&census, fs, false);
    return census.disk;
}

static int say_result(struct fastspool *fs, const struct import_result *result, int code)
{
    if (result->files > 0 || code == 0)
        printf("imported %" PRIu64 " message%s in %" PRIu64 " file%s\n", result->messages,
               tool_plural(result->messages), result->files, tool_plural(result->files));
    if (result->locked || result->conflicts || result->left)
        printf(
            "on the disk stay: %u that processes work on, %u of which the store has others, %u that can't be taken\n",
            result->locked, result->conflicts, result->left);
    fflush(stdout);
    if (code < 0 && interrupt_came())
        return move_interrupted("import", count_left(fs), "on the disk");
    if (code < 0)
        return move_failed("import", code, result->error);
    return result->locked || result->conflicts || result->left ? 2 : 0;
}

/* For good: no thread may keep root's rights, not that which looks at what stands still. */
static int become_owner(struct fastspool *fs, const struct stat *st)
{
    standstill_end();
    int result = geteuid() == 0 ? rights_become(st->st_uid, st->st_gid) : 0;

    if (result == 0)
        standstill_begin(fs->spool, NULL, fs);
    return result;
}

static int import_all(struct fastspool *fs)
{
    struct import_result result = {.progress = show_progress, .tell = move_tell, .ended = interrupt_came};
    struct stat st;
    int fd = open(fs->spool, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (fd < 0 || fstat(fd, &st) < 0)
        return tool_error("cannot open %s: %s", fs->spool, strerrordesc_np(errno));
    int code = become_owner(fs, &st);
    if (code < 0)
        return tool_error("cannot act as the owner of %s: %s", fs->spool, strerrordesc_np(-code));
    interrupt_note(MOVE_CUT_OFF("import"));
    progress_begin("importing");
    code = import_run(fs, fd, false, &result);
    progress_end();
    move_told();
    close(fd);
    return say_result(fs, &result, code);
}

int tool_import(int argc, char **argv)
{
    const char *spool = tool_only_options(argc, argv, NULL, usage);
    struct fastspool *fs = move_begin(spool, MOVE_IN);

    if (!fs)
        return 1;
    return move_end(fs, import_all(fs));
}
