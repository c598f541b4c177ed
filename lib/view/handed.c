/* SPDX-License-Identifier: MIT
 *
 * Directories of files that a process hands on to itself.
 *
 * A process that becomes an ordinary user has files open that it mostly never uses, and whose permissions would keep it
 * out afterwards.  To open each at once is six requests a file.  So while it is root it opens one directory of all of
 * them, and each file by that at its first use (shim/later.c).
 *
 * Happy path:
 *   - The directory's name tells the files' handles, and how each was open.  The kernel finds it for root and the owner
 *     alone, and no listing has it.
 *   - Its descriptor is the right to its files: everybody may write to it, but nobody else gets there.
 *   - A look-up in it finds nothing, so that the kernel makes a file: it asks the server once instead of twice, and
 *     checks no permission of the file.  What is made is the file itself.
 *   - The server has the files open as long as the directory is open, as if each were.
 *   - The first open of each counts for root, which has let the process have it: other ordinary users who take all of
 *     their share stop no delivery.  A second open counts for the user.
 *
 * Failure modes:
 *   - Another access mode than the file was open with: there is no such file.
 *   - Too many open files, or no memory: there is no such directory, and the process opens each file by its handle.
 *   - The process dies before it has opened what it has looked up: that is kept until the kernel forgets it.
 *   - The server dies: the directory is dead, as open files are.
 */
#include "view/handed.h"

#include "base/places.h"
#include "fastspool.h"
#include "view/shares.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <uthash.h>

#define NODES (UINT64_C(1) << 63) /* above every handle */

struct file {
    uint64_t handle;
    int access;      /* of open(2) */
    int description; /* keeps the file; 0: the directory is not open */
    bool opened;     /* by the directory, at least once */
};

struct directory {
    uint64_t node;
    int opens;
    int files;
    struct file file[PLACES_HANDED_MOST];
    UT_hash_handle hh;
};

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER; /* of all below */
static struct directory *directories;
static uint64_t made; /* so many */

bool handed_is(uint64_t node)
{
    return node >= NODES;
}

static struct directory *find(uint64_t node)
{
    struct directory *directory;

    HASH_FIND(hh, directories, &node, sizeof(node), directory);
    return directory;
}

/* ---- making ---- */

/* False: @name is not of the form. */
static bool parse(struct directory *directory, const char *name)
{
    unsigned long long number;
    int access, length = 0;

    if (sscanf(name, PLACES_HANDED_START, &number, &length) != 1 || length == 0)
        return false;
    for (name += length; *name; name += length) {
        length = 0;
        if (directory->files == PLACES_HANDED_MOST ||
            sscanf(name, PLACES_HANDED_FORM, &access, &number, &length) != 2 || length == 0)
            return false;
        directory->file[directory->files++] = (struct file){number, access, 0, false};
    }
    return directory->files > 0;
}

uint64_t handed_make(const char *name)
{
    struct directory new = {0}, *directory = parse(&new, name) ? malloc(sizeof(*directory)) : NULL;

    if (!directory)
        return 0;
    *directory = new;
    pthread_mutex_lock(&mutex);
    uint64_t node = directory->node = NODES + ++made;
    HASH_ADD(hh, directories, node, sizeof(directory->node), directory);
    pthread_mutex_unlock(&mutex);
    return node;
}

/* Nobody has @directory open. */
static void end(struct directory *directory)
{
    HASH_DEL(directories, directory);
    free(directory);
}

void handed_forget(uint64_t node)
{
    if (!handed_is(node))
        return;
    pthread_mutex_lock(&mutex);
    struct directory *directory = find(node);
    if (directory)
        end(directory);
    pthread_mutex_unlock(&mutex);
}

/* ---- opening and closing ---- */

/* Its files are of root's share: root has let the process have them. */
static void close_files(struct fastspool *fs, struct directory *directory)
{
    for (int i = 0; i < directory->files && directory->file[i].description; i++) {
        fastspool_close(fs, directory->file[i].description);
        shares_give(SHARE_OPEN, 0);
        directory->file[i].description = 0;
    }
}

static int open_files(struct fastspool *fs, struct directory *directory)
{
    int result = 0;

    for (int i = 0; i < directory->files && result >= 0; i++) {
        char path[32];
        snprintf(path, sizeof(path), "//%llx", (unsigned long long)directory->file[i].handle);
        if (!shares_take(SHARE_OPEN, 0)) {
            result = -ENFILE;
        } else if ((result = fastspool_open(fs, path, O_PATH, 0)) < 0) {
            shares_give(SHARE_OPEN, 0);
        } else {
            directory->file[i].description = result;
        }
    }
    if (result < 0)
        close_files(fs, directory);
    return result < 0 ? result : 0;
}

int handed_open(struct fastspool *fs, uint64_t node)
{
    pthread_mutex_lock(&mutex);
    struct directory *directory = find(node);
    int result = !directory ? -ENOENT : directory->opens ? 0 : open_files(fs, directory);
    if (result == 0)
        directory->opens++;
    pthread_mutex_unlock(&mutex);
    return result;
}

void handed_close(struct fastspool *fs, uint64_t node)
{
    pthread_mutex_lock(&mutex);
    struct directory *directory = find(node);
    if (directory && --directory->opens == 0) {
        close_files(fs, directory);
        end(directory);
    }
    pthread_mutex_unlock(&mutex);
}

/* ---- using ---- */

struct stat handed_attributes(uint64_t node)
{
    return (struct stat){.st_ino = node, .st_mode = S_IFDIR | 0733, .st_nlink = 2};
}

uint64_t handed_file(uint64_t node, const char *name, int flags, uid_t *share)
{
    uint64_t handle = 0;
    char *rest;
    unsigned long number = strtoul(name, &rest, 10);

    pthread_mutex_lock(&mutex);
    struct directory *directory = find(node);
    if (directory && directory->opens && !*rest && number < (unsigned long)directory->files &&
        directory->file[number].access == (flags & O_ACCMODE) && !(flags & O_TRUNC)) {
        struct file *file = &directory->file[number];
        handle = file->handle;
        if (!file->opened)
            *share = 0;
        file->opened = true;
    }
    pthread_mutex_unlock(&mutex);
    return handle;
}
