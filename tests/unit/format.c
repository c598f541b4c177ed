/* SPDX-License-Identifier: MIT
 *
 * Keys and values read back from the disk: what is whole comes back, and what makes no sense is refused.
 */
#include "mirror/format.h"
#include "store/layout.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

static char value[1024];

/* The value of a file with one name: of @length, whatever the bytes are. */
static size_t value_of(const char *text, uint32_t length, size_t bytes)
{
    const struct disk_inode disk = {.mode = S_IFREG | 0640, .names = 1};
    const struct disk_name name = {.parent = 7, .length = length};

    memcpy(value, &disk, sizeof(disk));
    memcpy(value + sizeof(disk), &name, sizeof(name));
    memcpy(value + sizeof(disk) + sizeof(name), text, bytes);
    return sizeof(disk) + sizeof(name) + bytes;
}

static int next(const char *text, uint32_t length, size_t bytes, struct format_name *name)
{
    struct disk_inode disk;
    struct format_names names;

    cr_assert_eq(format_decode_inode(value, value_of(text, length, bytes), &disk, &names), 0);
    int result = format_next_name(&names, name);
    cr_assert(result != 1 || format_next_name(&names, name) == 0);
    return result;
}

Test(format, names)
{
    static const char *const good[] = {"a", "..a", "...", "1tZxYz-0001-H", ".x"}, *const bad[] = {".", "..", "/", "a/b",
                                                                                                  "a/"};
    char longest[256];
    struct format_name name;

    for (size_t i = 0; i < sizeof(good) / sizeof(*good); i++) {
        cr_assert_eq(next(good[i], (uint32_t)strlen(good[i]), strlen(good[i]), &name), 1, "%s", good[i]);
        cr_assert_eq(name.parent, 7);
        cr_assert_eq(name.length, strlen(good[i]));
        cr_assert_eq(memcmp(name.text, good[i], name.length), 0);
    }
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
        cr_assert_eq(next(bad[i], (uint32_t)strlen(bad[i]), strlen(bad[i]), &name), -EBADMSG, "%s", bad[i]);
    cr_assert_eq(next("a\0b", 3, 3, &name), -EBADMSG, "a NUL in a name");
    cr_assert_eq(next("", 0, 0, &name), -EBADMSG, "no name");
    cr_assert_eq(next("abc", 4, 3, &name), -EBADMSG, "a name that leaves its value");
    cr_assert_eq(next("abc", UINT32_MAX, 3, &name), -EBADMSG);
    memset(longest, 'a', sizeof(longest));
    cr_assert_eq(next(longest, 255, 255, &name), 1);
    cr_assert_eq(next(longest, 256, 256, &name), -EBADMSG);
}

Test(format, more_names_than_there_are)
{
    struct disk_inode disk = {.mode = S_IFREG | 0640, .names = 2};
    struct format_names names;
    struct format_name name;
    size_t size = value_of("abc", 3, 3);

    memcpy(value, &disk, sizeof(disk));
    cr_assert_eq(format_decode_inode(value, size, &disk, &names), 0);
    cr_assert_eq(format_next_name(&names, &name), 1);
    cr_assert_eq(format_next_name(&names, &name), -EBADMSG);
}

Test(format, inodes)
{
    struct disk_inode disk = {.mode = S_IFDIR | 0750}, got;

    cr_assert_eq(format_decode_inode(&disk, sizeof(disk), &got, NULL), 0);
    cr_assert_eq(got.mode, disk.mode);
    cr_assert_eq(format_decode_inode(&disk, sizeof(disk) - 1, &got, NULL), -EBADMSG);
    disk.mode = S_IFLNK | 0777;
    cr_assert_eq(format_decode_inode(&disk, sizeof(disk), &got, NULL), -EBADMSG);
    disk.mode = (UINT32_C(1) << 16) | S_IFREG;
    cr_assert_eq(format_decode_inode(&disk, sizeof(disk), &got, NULL), -EBADMSG);
}

Test(format, keys)
{
    struct format_key key = format_slice_key(0x010203, 0x04050607), inode_key = format_inode_key(0x010203);
    uint32_t inode = 0, slice = 0;

    cr_assert_eq(key.size, 8);
    cr_assert_eq(memcmp(key.bytes, "\0\1\2\3\4\5\6\7", 8), 0, "big endian");
    cr_assert_eq(format_parse_slice_key(key.bytes, key.size, &inode, &slice), 0);
    cr_assert(inode == 0x010203 && slice == 0x04050607);
    cr_assert_eq(format_parse_inode_key(inode_key.bytes, inode_key.size, &inode), 0);
    cr_assert_eq(inode, 0x010203);
    cr_assert_eq(format_parse_inode_key(key.bytes, key.size, &inode), -EBADMSG);
    cr_assert_eq(format_parse_slice_key(key.bytes, 7, &inode, &slice), -EBADMSG);
    key = format_inode_key(0);
    cr_assert_eq(format_parse_inode_key(key.bytes, key.size, &inode), -EBADMSG);
    key = format_inode_key(INODES_MAX);
    cr_assert_eq(format_parse_inode_key(key.bytes, key.size, &inode), -EBADMSG);
    cr_assert_eq(memcmp(format_meta_key().bytes, "store", format_meta_key().size), 0);
}

Test(format, meta)
{
    struct disk_meta meta = {.format = DATABASE_FORMAT, .root = 1, .batch = 2}, got;

    cr_assert_eq(format_decode_meta(&meta, sizeof(meta), &got), 0);
    cr_assert_eq(got.batch, 2);
    cr_assert_eq(format_decode_meta(&meta, sizeof(meta) + 1, &got), -EBADMSG);
    meta.format++;
    cr_assert_eq(format_decode_meta(&meta, sizeof(meta), &got), -EBADMSG);
}
