/* SPDX-License-Identifier: MIT
 *
 * fastspool export: move all of the store into a plain Exim spool (lib/plain/export.c).
 *
 * The happy path:
 *   - Attach as the first process of a reboot would: the store is recovered, and its mirror runs.  No view is started.
 *   - To the spool's own directory: take the lock that says "a view lives", so that none begins and takes everything
 *     back meanwhile.
 *
 * Failure modes: a view is mounted: it has to be stopped first.  Something stays in the store: it is named, and the
 * exit status says so; another call goes on.  ^C: the messages on the way are finished, and a sentence says what
 * remains.  A death at any point: another call goes on.  The directory is another user's, who could remove the mail
 * again, or lies in the spool, or a symbolic link leads to it: it is refused.
 */
#include "plain/export.h"

#include "base/fd.h"
#include "fastspool.h"
#include "interrupt.h"
#include "move.h"
#include "plain/census.h"
#include "progress.h"
#include "spool/attach.h"
#include "store/store.h"
#include "tool.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <libgen.h>
#include <limits.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static const char usage[] =
    "usage: fastspool export [--spool DIR] [--yes] [DIRECTORY]\n"
    "Moves all messages of the store into a plain Exim spool: DIRECTORY, or the spool's own directory, over which\n"
    "then no view may be mounted (`fastspool stop`).  No Exim that has the store may run.  A message that a process\n"
    "works on stays; so does one that the plain spool has with another content.  If it is interrupted, run it again:\n"
    "no message is lost, none is in both places.\n"
    "  --yes   don't ask\n"
    "Exit status: 0 the store is empty, 1 an error, 2 something stays in the store, 64 wrong arguments.\n";

static void show_progress(const struct export_result *result)
{
    progress_at(result->files, result->total);
}

/* Along no symbolic link: it may be the mail user's, and lead to a directory of root's.  -ELOOP: there is one. */
static int open_unlinked(int above, const char *path, unsigned flags)
{
    struct open_how how = {.flags = flags | O_DIRECTORY | O_CLOEXEC, .resolve = RESOLVE_NO_SYMLINKS};
    int fd = (int)syscall(SYS_openat2, above, path, &how, sizeof(how));

    return fd < 0 ? -errno : fd;
}

static bool is_empty(int fd)
{
    int again = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *directory = again < 0 ? NULL : fdopendir(again);
    int names = 0;

    while (directory && readdir(directory))
        names++;
    if (directory)
        closedir(directory);
    else if (again >= 0)
        close(again);
    return names == 2; /* "." and ".." */
}

/* Open directory @name in @above.  It is made as the spool's own is, @spool, if it is missing: the mail user may write
 * to @above, so what is changed is no link in its place, nor another directory of root's that was moved there. */
static int open_or_make(int above, const char *name, const struct stat *spool)
{
    bool made = mkdirat(above, name, 0700) == 0;
    int fd = open_unlinked(above, name, O_RDONLY);
    struct stat st;
    int result = fd < 0 ? fd : fstat(fd, &st) < 0 ? -errno : 0;

    if (result == 0 && st.st_uid != geteuid() && (made || (st.st_uid != 0 && st.st_uid != spool->st_uid)))
        result = -EPERM;
    if (result == 0 && made && !is_empty(fd))
        result = -EPERM;
    if (result == 0 && made && (fchown(fd, spool->st_uid, spool->st_gid) < 0 || fchmod(fd, spool->st_mode & 07777) < 0))
        result = -errno;
    if (result < 0 && fd >= 0)
        close(fd);
    return result < 0 ? result : fd;
}

static bool is_in_spool(const struct fastspool *fs, const char *real)
{
    size_t length = strlen(fs->spool);

    return strncmp(real, fs->spool, length) == 0 && (real[length] == '\0' || real[length] == '/');
}

/* The plain spool @path.  *@real: its real path.  -EXDEV: it is the spool itself, or below it. */
static int open_target(const struct fastspool *fs, const char *path, char real[PATH_MAX])
{
    char directory[PATH_MAX], name[PATH_MAX];
    struct stat st;

    if (fstat(fs->spool_fd, &st) < 0)
        return -errno;
    if (snprintf(directory, sizeof(directory), "%s", path) >= PATH_MAX)
        return -ENAMETOOLONG;
    strcpy(name, directory);
    int above = open_unlinked(AT_FDCWD, dirname(directory), O_PATH);
    int result = above < 0 ? above : fd_path(above, directory, real, PATH_MAX);
    int fd = result < 0 ? result : is_in_spool(fs, real) ? -EXDEV : open_or_make(above, basename(name), &st);
    result = fd < 0 ? fd : fd_path(fd, path, real, PATH_MAX);
    if (above >= 0)
        close(above);
    if (result == 0 && is_in_spool(fs, real))
        result = -EXDEV;
    if (result < 0 && fd >= 0)
        close(fd);
    return result < 0 ? result : fd;
}

static int64_t count_left(struct fastspool *fs)
{
    struct census census;

    census_take(&census, fs, false);
    return (int64_t)census.store;
}

static int say_result(struct fastspool *fs, const char *to, const struct export_result *result, int code)
{
    if (result->files > 0 || code == 0)
        printf("exported %" PRIu64 " message%s in %" PRIu64 " file%s to %s\n", result->messages,
               tool_plural(result->messages), result->files, tool_plural(result->files), to);
    if (result->locked || result->conflicts || result->left)
        printf("in the store stay: %u that processes work on, %u of which the disk has others, %u that can't be made\n",
               result->locked, result->conflicts, result->left);
    fflush(stdout);
    if (code < 0 && interrupt_came())
        return move_interrupted("export", count_left(fs), "in the store");
    if (code < 0)
        return move_failed("export", code, result->error);
    return result->locked || result->conflicts || result->left ? 2 : 0;
}

static int export_to(struct fastspool *fs, const char *path)
{
    struct export_result result = {.progress = show_progress, .tell = move_tell, .ended = interrupt_came};
    char real[PATH_MAX] = "";
    int fd = path ? open_target(fs, path, real) : open(fs->spool, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (fd == -EXDEV)
        return tool_error("%s is the spool itself, or below it: give no directory, or another one", path);
    if (path && fd == -ELOOP)
        return tool_error("a symbolic link leads to %s, and whoever owns it could turn it: give the real path", path);
    if (path && fd == -EPERM)
        return tool_error("%s belongs to a user who is neither root nor the spool's owner: give another one", path);
    if (path && fd < 0)
        return tool_error("cannot open %s: %s", path, strerrordesc_np(-fd));
    if (fd < 0)
        return tool_error("cannot open %s: %s", fs->spool, strerrordesc_np(errno));
    interrupt_note(MOVE_CUT_OFF("export"));
    progress_begin("exporting");
    int code = export_run(fs, fd, path ? real : NULL, &result);
    progress_end();
    move_told();
    close(fd);
    return say_result(fs, path ? real : fs->spool, &result, code);
}

int tool_export(int argc, char **argv)
{
    static const struct option known[] = {{"spool", required_argument, NULL, 's'},
                                          {"yes", no_argument, NULL, 'y'},
                                          {"help", no_argument, NULL, 'h'},
                                          {0}};
    bool yes = false;
    const char *spool = tool_options_of(argc, argv, known, &yes, usage);
    const char *path = *tool_operands(argc, argv, 0, 1, NULL, usage);
    struct fastspool *fs = move_begin(spool, path ? MOVE_ELSEWHERE : MOVE_OUT);
    if (!fs)
        return 1;
    char question[2 * PATH_MAX + 64];
    snprintf(question, sizeof(question), "Move all messages of %s to %s?", fs->spool, path ? path : "the plain disk");
    int result = tool_confirm(yes, question) ? export_to(fs, path) : tool_error("nothing was moved");
    return move_end(fs, result);
}
