/* SPDX-License-Identifier: MIT
 *
 * Messages that take a closer look to count: the frozen ones in the store, and those that lie on the disk.
 *
 * Failure modes:
 *   - The data of a -H file has left memory: it is left where it is, and counted as unread.  To bring back what is cold
 *     at every look of a monitor would push out what Exim works with.
 *   - An import was killed: as long as .import/new is there nothing is decided, and the disk has those messages; then
 *     the store has them.  Each is counted once.
 *   - A view covers the disk: a second, private mount of the disk shows it, which only root may make.
 */
#include "base/places.h"
#include "fastspool.h"
#include "spool/exim.h"
#include "status.h"
#include "store/status.h"
#include "store/store.h"
#include "store/walk.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <unistd.h>

/* ---- frozen ---- */

#define HEAD_SIZE 16384 /* of a -H file: its lines about the message come first */

struct frozen {
    struct fastspool *fs;
    uint64_t frozen, unread;
};

/* The line behind @line, NULL: there is none.  Behind "-aclm NAME LENGTH" stand so many bytes, and they may be a
 * sender's: lines in them say nothing about the message. */
static const char *next_line(const char *line)
{
    const char *end = strchr(line, '\n'), *word = line + strspn(line, "-");
    size_t length;

    if (end && strncmp(word, "acl", 3) == 0 && sscanf(word, "acl%*[cm] %*[^ \n] %zu", &length) == 1)
        end = length < strlen(end) ? strchr(end + 1 + length, '\n') : NULL;
    return end ? end + 1 : NULL;
}

/* Is one of the lines about the message, which begin with "-", "-frozen TIME"?  @head: of a -H file.  Its first three
 * lines are its name, the user, and the sender; the lines about the message end where one begins otherwise. */
static bool says_frozen(const char *head)
{
    const char *line = head;

    for (int n = 0; line; n++, line = next_line(line)) {
        if (n > 3 && *line != '-')
            return false;
        if (strncmp(line, "-frozen ", 8) == 0)
            return true;
    }
    return false;
}

static void look_whether_frozen(void *context, uint32_t inode)
{
    struct frozen *counts = context;
    char path[32], head[HEAD_SIZE + 1];

    if (!inode_valid(counts->fs, inode))
        return;
    if (LOAD(inode_at(counts->fs, inode)->flags) & INODE_EVICTED) {
        counts->unread++;
        return;
    }
    snprintf(path, sizeof(path), "//%" PRIx64, walk_handle(counts->fs, inode));
    int description = fastspool_open(counts->fs, path, O_RDONLY, 0);
    if (description < 0)
        return; /* gone */
    ssize_t size = fastspool_read(counts->fs, description, head, HEAD_SIZE);
    fastspool_close(counts->fs, description);
    if (size < 0)
        return;
    head[size] = '\0';
    counts->frozen += says_frozen(head);
}

uint64_t messages_frozen(struct fastspool *fs, uint64_t *unread)
{
    struct frozen counts = {.fs = fs};

    status_each(fs, exim_is_header, look_whether_frozen, &counts);
    *unread = counts.unread;
    return counts.frozen;
}

/* ---- on their way into the store ---- */

static bool is_staged(const char *name, const char *directory)
{
    return exim_is_message(name, "input") && strcmp(directory, PLACES_IMPORT) == 0;
}

uint64_t messages_staged(struct fastspool *fs)
{
    struct stat st;

    return fastspool_stat(fs, PLACES_STAGED, &st) == 0 ? status_count(fs, is_staged) : 0;
}

/* ---- on the disk ---- */

static DIR *open_beneath(int directory, const char *name)
{
    int fd = openat(directory, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;

    if (fd >= 0 && !dir)
        close(fd);
    return dir;
}

/* A message that an import has taken, and that the store has. */
static bool is_taken(const char *name)
{
    return strncmp(name, PLACES_TAKEN, strlen(PLACES_TAKEN)) == 0;
}

/* The messages in `input` of directory @above, and in its split directories, whose names have one letter.  @taken: also
 * those that an import has taken. */
static int64_t count_input(int above, const char *input, bool split, bool taken)
{
    DIR *dir = open_beneath(above, input);
    int64_t count = 0;

    if (!dir)
        return 0;
    for (const struct dirent *entry; (entry = readdir(dir));) {
        size_t length = strlen(entry->d_name);
        if (exim_is_message(entry->d_name, "input"))
            count += taken || !is_taken(entry->d_name);
        else if (split && length == 1 && entry->d_name[0] != '.')
            count += count_input(dirfd(dir), entry->d_name, false, taken);
    }
    closedir(dir);
    return count;
}

/* Of the spool, and of each named queue. */
static int64_t count_queues(int spool, bool taken)
{
    DIR *dir = open_beneath(spool, ".");
    int64_t count = count_input(spool, "input", true, taken);

    for (const struct dirent *entry; dir && (entry = readdir(dir));) {
        DIR *queue = entry->d_name[0] != '.' ? open_beneath(spool, entry->d_name) : NULL;
        if (!queue)
            continue;
        count += count_input(dirfd(queue), "input", true, taken);
        closedir(queue);
    }
    if (dir)
        closedir(dir);
    return count;
}

int64_t messages_on_disk(const char *spool, bool hidden, bool taken)
{
    int fd = hidden ? open_tree(AT_FDCWD, spool, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC)
                    : open(spool, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int64_t count = fd >= 0 && faccessat(fd, ".", R_OK, AT_EACCESS) == 0 ? count_queues(fd, taken) : -(int64_t)errno;

    if (fd >= 0)
        close(fd);
    return count;
}
