/* SPDX-License-Identifier: MIT
 *
 * Directories that the kernel knows, and asks about also when they are removed.
 *
 * A process may sit in a directory, hold it open, or be on its way through it, while another one removes it.  Before
 * each call there the kernel asks for the directory's attributes, to check the permissions.  On a real file system the
 * directory is still an inode, without links, and the call is ENOENT.  The store drops it at once, and "stale" would
 * come to the process.
 *
 * Happy path: a directory's last attributes are kept from the first time that the kernel learns of it until it has
 * forgotten it as often.  They are few: one for each directory of the spool.
 *
 * Failure modes: no memory to keep them: a removed directory is -ESTALE.
 */
#include "view/directories.h"

#include <pthread.h>
#include <stdlib.h>
#include <uthash.h>

struct directory {
    uint64_t node;
    uint64_t count; /* of the times that the kernel was told of it and has not forgotten */
    struct stat st;
    UT_hash_handle hh;
};

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER; /* of all below */
static struct directory *directories;

static struct directory *find(uint64_t node)
{
    struct directory *directory;

    HASH_FIND(hh, directories, &node, sizeof(node), directory);
    return directory;
}

void directories_add(uint64_t node, const struct stat *st)
{
    pthread_mutex_lock(&mutex);
    struct directory *directory = find(node);
    if (!directory && (directory = calloc(1, sizeof(*directory)))) {
        directory->node = node;
        HASH_ADD(hh, directories, node, sizeof(directory->node), directory);
    }
    if (directory) {
        directory->st = *st;
        directory->count++;
    }
    pthread_mutex_unlock(&mutex);
}

void directories_forget(uint64_t node, uint64_t count)
{
    pthread_mutex_lock(&mutex);
    struct directory *directory = find(node);
    if (directory && (directory->count -= count) == 0) {
        HASH_DEL(directories, directory);
        free(directory);
    }
    pthread_mutex_unlock(&mutex);
}

bool directories_removed(uint64_t node, struct stat *st)
{
    pthread_mutex_lock(&mutex);
    const struct directory *directory = find(node);
    if (directory) {
        *st = directory->st;
        st->st_nlink = 0;
    }
    pthread_mutex_unlock(&mutex);
    return directory != NULL;
}
