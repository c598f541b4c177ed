/* SPDX-License-Identifier: MIT
 *
 * The scan of the disk: all files of the served directories, of the spool and of each queue, and of their split
 * subdirectories.  It only lists names: what they are is looked at when they are copied.  A message is listed once, by
 * its -D file, so a million messages take some 50 MB as long as the pass runs.  What a killed export has copied, and
 * nobody wants any more, is removed.
 *
 * Failure modes: what is no regular file stays on the disk, with a line in syslog, and so does what lies deeper than
 * Exim's directories.  A symbolic link to a directory is not followed.  A directory is found between its mkdir(2) and
 * its chown(2): the next pass sees that it is another than before, and changes the store's.  The store refuses the
 * owner or the mode of a directory: the pass fails, and the next one tries again.  A directory of the disk has lost its
 * mode: it stays, and the line has the command.
 */
#include "base/escape.h"
#include "base/places.h"
#include "fastspool.h"
#include "plain/disk.h"
#include "plain/import.h"
#include "plain/import_inside.h"
#include "spool/exim.h"
#include "store/inside.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <uthash.h>

struct import_directory {
    uid_t uid;
    gid_t gid;
    mode_t mode;
    bool owed; /* to the store: a pass that fails may leave it so */
    UT_hash_handle hh;
    char path[];
};

/* A copy of @path in `text`; its offset. */
static int keep(struct import *im, const char *path, uint32_t *offset)
{
    if (im->text_size > UINT32_MAX)
        return -ENOMEM; /* more than the store has names for */
    for (*offset = (uint32_t)im->text_size;; path++) {
        if (import_grow(&im->text, im->text_size, &im->text_room, 1) < 0)
            return -ENOMEM;
        if ((im->text[im->text_size++] = *path) == '\0')
            return 0;
    }
}

/* Is @path found by -D file @key, which the disk has? */
static bool goes_with(const struct import *im, const char *path, const char *key)
{
    char member[PATH_MAX];
    struct stat st;
    bool found = false;

    for (unsigned n = 0; !found && exim_member(key, n, member); n++)
        found = strcmp(member, path) == 0;
    int fd = found ? disk_open(im->disk, key, O_PATH, &st) : -1;
    if (fd < 0)
        return false;
    close(fd);
    return S_ISREG(st.st_mode);
}

static int add_found(struct import *im, const char *path)
{
    char plain[PATH_MAX], key[PATH_MAX];
    const char *name = strrchr(path, '/') + 1;
    struct found found = {0};
    int result = import_grow(&im->found, im->found_count, &im->found_room, sizeof(found));

    snprintf(plain, sizeof(plain), "%s", path);
    if (strncmp(name, PLACES_TAKEN, strlen(PLACES_TAKEN)) == 0)
        snprintf(plain + (name - path), sizeof(plain) - (size_t)(name - path), "%s", name + strlen(PLACES_TAKEN));
    bool other = exim_family(plain, key) && strcmp(key, path) != 0;
    if (other && goes_with(im, path, key))
        return 0;
    if (result == 0)
        result = keep(im, path, &found.path);
    found.key = found.path;
    if (result == 0 && other)
        result = keep(im, key, &found.key);
    if (result == 0)
        im->found[im->found_count++] = found;
    return result;
}

/* Note how the disk's directory @path is.  One that has changed since it was noted is owed to the store.  NULL: no
 * memory. */
static struct import_directory *note_directory(struct import *im, const char *path, const struct stat *st)
{
    struct import_directory *known, **all = &im->result->directories;

    HASH_FIND_STR(*all, path, known);
    if (known) {
        known->owed |= known->uid != st->st_uid || known->gid != st->st_gid || known->mode != st->st_mode;
    } else {
        if (!(known = calloc(1, sizeof(*known) + strlen(path) + 1)))
            return NULL;
        strcpy(known->path, path);
        HASH_ADD_STR(*all, path, known);
    }
    known->uid = st->st_uid;
    known->gid = st->st_gid;
    known->mode = st->st_mode;
    return known;
}

/* The directory @path in the store, as it is on the disk.  One that the store has stays as it is, until the disk's
 * changes. */
static int make_directory(struct import *im, const char *path, const struct stat *st)
{
    struct import_directory *known = note_directory(im, path, st);
    int result = known ? fastspool_mkdir(im->fs, path, st->st_mode & 07777) : -ENOMEM;

    if (result == 0)
        known->owed = true;
    if (result == -EEXIST)
        result = 0;
    if (result == 0 && known->owed) {
        result = fastspool_chown(im->fs, path, st->st_uid, st->st_gid);
        if (result == 0)
            result = fastspool_chmod(im->fs, path, st->st_mode & 07777);
        known->owed = result < 0;
    }
    return result < 0 ? import_fail(im, result, "make", path) : 0;
}

/* Visit each entry of the disk's directory @path. */
static int each_entry(struct import *im, const char *path, int fd, visitor *visit)
{
    DIR *directory = fdopendir(fd);
    const struct dirent *entry;
    struct stat st;
    int result = 0;

    if (!directory) {
        close(fd);
        return import_fail(im, -errno, "list", path);
    }
    while (result == 0 && (errno = 0, entry = readdir(directory))) {
        char below[PATH_MAX];
        int type = entry->d_type;
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        if (type == DT_UNKNOWN && fstatat(fd, entry->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0)
            type = (int)IFTODT(st.st_mode);
        snprintf(below, sizeof(below), "%s%s%s", path, *path ? "/" : "", entry->d_name);
        result = visit(im, below, type);
    }
    if (result == 0 && errno != 0)
        result = import_fail(im, -errno, "list", path);
    closedir(directory);
    return result;
}

/* An open of directory @path has failed.  One that is not there, that a link leads to, or that the owner may not enter
 * is none of Exim's; about any other nothing is known, and the pass fails. */
static int skip_directory(struct import *im, const char *path, int error)
{
    bool absent = error == -ENOENT || error == -ENOTDIR || error == -ELOOP || error == -EACCES;

    return absent ? 0 : import_fail(im, error, "open", path);
}

/* A copy of an export that was killed before its decision, or of a message that was delivered since: what was decided
 * has been finished before the scan.  One with another number may be another store's, to which the same file says that
 * the message has not been shown: without the file it would count as delivered. */
static int remove_copy(struct import *im, const char *path, const char *name)
{
    bool own = im->copied[0] && strncmp(name, im->copied, strlen(im->copied)) == 0;
    int result = own ? disk_unlink(im->disk, path) : 0;

    return result < 0 && result != -ENOENT ? import_leave(im, path, strerrordesc_np(-result)) : 0;
}

static int scan_file(struct import *im, const char *path, int type)
{
    const char *name = strrchr(path, '/') + 1;

    if (type == DT_REG && places_of_copy(name))
        return remove_copy(im, path, name);
    if (type == DT_REG)
        return add_found(im, path) < 0 ? import_fail(im, -ENOMEM, "scan", path) : 0;
    return import_leave(im, path, type == DT_DIR ? "a directory, deeper than Exim's" : "no regular file");
}

/* A directory that can't be opened.  Where its owner may not, as after a chmod or chown by hand: with the command that
 * mends it, which a view hides from each other path.  (All below one name in the spool: the owner may put a link in the
 * place of that, which chown -R does not follow, or of a directory on the way to another.) */
static int leave_closed(struct import *im, const char *path, int error)
{
    char place[PATH_MAX], word[ESCAPE_WORD_ROOM(PATH_MAX)], spool[ESCAPE_WORD_ROOM(FASTSPOOL_PATH_MAX)];
    char mend[sizeof(word) + sizeof(spool) + 64], why[sizeof(mend) + 2 * sizeof(spool)];
    const char *top = im->result->tell ? inside_spool(im->fs) : "/mnt";
    struct stat st, own;

    if (error != -EACCES || fstatat(im->disk, path, &st, AT_SYMLINK_NOFOLLOW) < 0 || fstat(im->disk, &own) < 0)
        return import_leave(im, path, strerrordesc_np(-error));
    bool is_own = st.st_uid == own.st_uid;
    snprintf(place, sizeof(place), "%s/%.*s", top, (int)(is_own ? strlen(path) : strcspn(path, "/")), path);
    escape_word(word, sizeof(word), place);
    if (is_own)
        snprintf(mend, sizeof(mend), "chmod u+rwx %s", word);
    else
        snprintf(mend, sizeof(mend), "chown -R --reference=%s %s", escape_word(spool, sizeof(spool), top), word);
    escape_word(spool, sizeof(spool), inside_spool(im->fs));
    if (im->result->tell)
        snprintf(why, sizeof(why), "%s: as root, run `%s`", strerrordesc_np(-error), mend);
    else
        snprintf(why, sizeof(why), "%s: as root, run `mount --bind %s /mnt && %s && umount /mnt`",
                 strerrordesc_np(-error), spool, mend);
    return import_leave(im, path, why);
}

static int scan_directory(struct import *im, const char *path, visitor *visit)
{
    struct stat st;
    int fd = disk_open(im->disk, path, O_RDONLY | O_DIRECTORY, &st), result;

    if (fd < 0)
        return fd == -ENOENT ? 0 : leave_closed(im, path, fd);
    if ((result = make_directory(im, path, &st)) == 0)
        return each_entry(im, path, fd, visit);
    close(fd);
    return result;
}

static int scan_split(struct import *im, const char *path, int type)
{
    return type == DT_DIR ? scan_directory(im, path, scan_file) : scan_file(im, path, type);
}

static int scan_of_queue(struct import *im, const char *path, int type)
{
    char queue[PATH_MAX];
    struct stat st;

    (void)type;
    if (!exim_is_place(path))
        return 0;
    snprintf(queue, sizeof(queue), "%.*s", (int)(strrchr(path, '/') - path), path);
    int fd = disk_open(im->disk, queue, O_PATH, &st), result;
    if (fd < 0)
        return skip_directory(im, queue, fd);
    close(fd);
    result = make_directory(im, queue, &st);
    return result < 0 ? result : scan_directory(im, path, scan_split);
}

static int scan_top(struct import *im, const char *path, int type)
{
    struct stat st;

    if (exim_is_place(path))
        return scan_directory(im, path, scan_split);
    if ((type != DT_DIR && type != DT_UNKNOWN) || path[0] == '.')
        return 0;
    int fd = disk_open(im->disk, path, O_RDONLY | O_DIRECTORY, &st);
    return fd < 0 ? skip_directory(im, path, fd) : each_entry(im, path, fd, scan_of_queue);
}

static int compare(const void *a, const void *b, void *text)
{
    const struct found *x = a, *y = b;
    const char *paths = text;
    int order = strcmp(paths + x->key, paths + y->key);

    return order ? order : strcmp(paths + x->path, paths + y->path);
}

int scan_run(struct import *im)
{
    struct stat st;
    int fd = disk_open(im->disk, ".", O_RDONLY | O_DIRECTORY, &st);
    int result = fd < 0 ? import_fail(im, fd, "open", ".") : each_entry(im, "", fd, scan_top);

    if (result == 0 && im->found_count > 0)
        qsort_r(im->found, im->found_count, sizeof(*im->found), compare, im->text);
    return result;
}
