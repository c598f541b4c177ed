/* SPDX-License-Identifier: MIT
 *
 * Messages that take a closer look to count: the frozen ones in the store.
 *
 * Failure modes:
 *   - The data of a -H file has left memory: it is left where it is, and counted as unread.  To bring back what is cold
 *     at every look of a monitor would push out what Exim works with.
 */
#include "fastspool.h"
#include "spool/exim.h"
#include "status.h"
#include "store/status.h"
#include "store/store.h"
#include "store/walk.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

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

static void look_whether_frozen(void *context, const char *name, uint32_t inode)
{
    struct frozen *counts = context;
    char path[32], head[HEAD_SIZE + 1];

    if (!exim_is_message(name) || !inode_valid(counts->fs, inode))
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

    status_each(fs, look_whether_frozen, &counts);
    *unread = counts.unread;
    return counts.frozen;
}
