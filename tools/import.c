/* SPDX-License-Identifier: MIT
 *
 * fastspool import: move what lies on the plain disk of the spool into the store (lib/plain/import.c).
 *
 * The happy path: attach as `fastspool export` does, keep a view from beginning, and import as the spool's owner.  An
 * Exim with the library may run: it sees each message once.
 *
 * Failure modes: a view is mounted: it imports by itself.  Something stays on the disk: syslog names it, and the exit
 * status says so.  A death at any point: another call goes on.
 */
#include "plain/import.h"
#include "base/rights.h"
#include "fastspool.h"
#include "move.h"
#include "store/store.h"
#include "tool.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <syslog.h>
#include <unistd.h>

static const char usage[] =
    "usage: fastspool import [--spool DIR]\n"
    "Moves the messages that lie on the disk of the spool into the store.  A view does so by itself.  A message that "
    "a\n"
    "process works on stays; so does one that the store has with another content.  If it is interrupted, run it "
    "again:\n"
    "no message is lost, none is in both places.\n"
    "Exit status: 0 nothing is left on the disk, 1 an error, 2 something stays there, 64 wrong arguments.\n";

static int import_all(struct fastspool *fs)
{
    struct import_result result = {0};
    struct stat st;
    int fd = open(fs->spool, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (fd < 0 || fstat(fd, &st) < 0)
        return tool_error("cannot open %s: %s", fs->spool, strerrordesc_np(errno));
    int code = geteuid() == 0 ? rights_become(st.st_uid, st.st_gid) : 0;
    if (code < 0)
        return tool_error("cannot act as the owner of %s: %s", fs->spool, strerrordesc_np(-code));
    code = import_run(fs, fd, false, &result);
    close(fd);
    printf("imported %" PRIu64 " messages in %" PRIu64 " files\n", result.messages, result.files);
    if (result.locked || result.conflicts || result.left)
        printf(
            "on the disk stay: %u that processes work on, %u of which the store has others, %u that can't be taken\n",
            result.locked, result.conflicts, result.left);
    if (code < 0)
        return tool_error("%s; run it again: nothing is lost", result.error);
    return result.locked || result.conflicts || result.left ? 2 : 0;
}

int tool_import(int argc, char **argv)
{
    const char *spool = tool_only_options(argc, argv, NULL, usage);
    struct fastspool *fs = move_begin(spool, true);

    if (!fs)
        return 1;
    openlog("fastspool", LOG_PID, LOG_MAIL);
    int result = import_all(fs);
    fastspool_detach(fs);
    return result;
}
