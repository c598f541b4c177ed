/* SPDX-License-Identifier: MIT
 *
 * Access control lists of files (POSIX, as the kernel keeps them on tmpfs, ext4 and others): rights for single users.
 *
 * The happy path: the list of a file gives each named user some rights.  The owner, the owning group and all others
 * keep the rights that the mode gave them.
 *
 * With a list, the group's bits of a mode are its mask: what any named user can have at most.  So a mode alone no
 * longer says that a file is the owner's alone: acl_alone() does.
 *
 * Failure modes: a file system without such lists is -EOPNOTSUPP where one is set, and has none where one is read.
 */
#include "base/acl.h"

#include <errno.h>
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#define ACCESS_LIST "system.posix_acl_access"

/* The kernel's form of a list (linux/posix_acl_xattr.h); little endian, as is every machine that this runs on. */
enum { OWNER = 1, USER = 2, OWNING_GROUP = 4, MASK = 16, OTHERS = 32 };
#define VERSION 2u
#define NO_ID   UINT32_MAX

struct entry {
    uint16_t tag;
    uint16_t rights;
    uint32_t id;
};

struct acl {
    uint32_t version;
    struct entry entry[ACL_USERS_MAX + 4];
};

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "a list is little endian");

static size_t size_of(size_t entries)
{
    return offsetof(struct acl, entry) + entries * sizeof(struct entry);
}

/* The list of @fd: how many entries, 0: there is none; -errno: it can't be read, or is longer than one of ours. */
static ssize_t read_list(int fd, struct acl *list)
{
    ssize_t size = fgetxattr(fd, ACCESS_LIST, list, sizeof(*list));

    if (size < 0)
        return errno == ENODATA || errno == EOPNOTSUPP ? 0 : -errno;
    if (size < (ssize_t)size_of(0) || list->version != VERSION)
        return -EPERM;
    return ((ssize_t)size - (ssize_t)size_of(0)) / (ssize_t)sizeof(struct entry);
}

static void add(struct acl *list, size_t *count, int tag, unsigned rights, uint32_t id)
{
    list->entry[(*count)++] = (struct entry){(uint16_t)tag, (uint16_t)rights, id};
}

/* Each user once, in the order of numbers, as the kernel wants them. */
static void add_users(struct acl *list, size_t *count, const uid_t *users, size_t named, uid_t owner, unsigned rights)
{
    for (uint64_t least = 1, next; least < NO_ID; least = next + 1) {
        next = NO_ID;
        for (size_t i = 0; i < named; i++) {
            uid_t uid = users[i];
            if (uid >= least && uid < next && uid != owner)
                next = uid;
        }
        if (next < NO_ID)
            add(list, count, USER, rights, (uint32_t)next);
    }
}

/* What the owning group may do, by the list of @count entries: with a list, the mode's bits for it are the mask. */
static unsigned group_rights(const struct acl *list, ssize_t count, const struct stat *st)
{
    for (ssize_t i = 0; i < count; i++) {
        if (list->entry[i].tag == OWNING_GROUP)
            return list->entry[i].rights;
    }
    return st->st_mode >> 3 & 7;
}

/* The list that @fd should have, which has @is, of @found entries; how many entries, or -errno. */
static ssize_t wanted(int fd, const struct acl *is, ssize_t found, const uid_t *users, size_t named, unsigned rights,
                      struct acl *list)
{
    struct stat st;
    size_t count = 0;

    if (found < 0)
        return found;
    if (fstat(fd, &st) < 0)
        return -errno;
    unsigned group = group_rights(is, found, &st);
    list->version = VERSION;
    add(list, &count, OWNER, st.st_mode >> 6 & 7, NO_ID);
    add_users(list, &count, users, named, st.st_uid, rights);
    bool any = count > 1;
    add(list, &count, OWNING_GROUP, group, NO_ID);
    if (any)
        add(list, &count, MASK, group | rights, NO_ID);
    add(list, &count, OTHERS, st.st_mode & 7, NO_ID);
    return (ssize_t)count;
}

/* A list without users and mask is only a mode: the kernel keeps it as such. */
int acl_give(int fd, const uid_t *users, size_t named, unsigned rights)
{
    struct acl is, list;
    ssize_t count = fd < 0 ? -errno : wanted(fd, &is, read_list(fd, &is), users, named, rights, &list);

    if (count < 0)
        return (int)count;
    return fsetxattr(fd, ACCESS_LIST, &list, size_of((size_t)count), 0) < 0 ? -errno : 0;
}

bool acl_is(int fd, const uid_t *users, size_t named, unsigned rights)
{
    struct acl should, is;
    ssize_t found = read_list(fd, &is);

    if (found == 0 && named == 0)
        return true;
    ssize_t count = wanted(fd, &is, found, users, named, rights, &should);
    if (found == 0)
        return count == 3; /* owner, group, others: those users are the owner himself, or root */
    return count > 0 && count == found && memcmp(&should, &is, size_of((size_t)count)) == 0;
}

int acl_copy(int from, int to)
{
    struct acl list;
    ssize_t count = read_list(from, &list);

    if (count <= 0)
        return (int)count;
    return fsetxattr(to, ACCESS_LIST, &list, size_of((size_t)count), 0) < 0 ? -errno : 0;
}

/* ---- checks ---- */

bool acl_alone(int fd, const struct stat *st)
{
    struct acl list;
    ssize_t count = st->st_mode & 070 ? read_list(fd, &list) : 0;

    if (st->st_mode & 07)
        return false;
    if (!(st->st_mode & 070))
        return true;
    for (ssize_t i = 0; i < count; i++) {
        const struct entry *entry = &list.entry[i];
        if (entry->tag != OWNER && entry->tag != USER && entry->tag != MASK && entry->rights)
            return false;
    }
    return count > 0;
}

bool acl_names_only(int fd, const uid_t *users, size_t named)
{
    struct acl list;
    ssize_t count = read_list(fd, &list);

    for (ssize_t i = 0; i < count; i++) {
        bool known = list.entry[i].tag != USER;
        for (size_t user = 0; user < named && !known; user++)
            known = users[user] == list.entry[i].id;
        if (!known)
            return false;
    }
    return count >= 0;
}
