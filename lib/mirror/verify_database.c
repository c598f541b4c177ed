/* SPDX-License-Identifier: MIT
 *
 * The verification of the database.
 *
 * The happy path: every inode is decoded, with its names, and noted; then each name must lead to a directory, no two of
 * one directory may be alike, every directory must lead up to the root; then every slice must be of a file, inside it.
 *
 * Failure modes: what is wrong with an entry is told, and the next one read.  Where LMDB can't read on, that is told.
 * Bytes of mail have no checksum in the database: a bit of them that has changed is not found.
 */
#include "base/findings.h"
#include "mirror/database_view.h"
#include "mirror/format.h"
#include "mirror/verify.h"
#include "mirror/verify_inside.h"
#include "store/layout.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>

#define DEPTH_MAX 10000u /* of the tree; paths are shorter: more is a circle */

/* A name in a directory. */
struct entry {
    uint64_t hash;
    uint32_t parent;
    uint32_t inode;
};

struct look {
    const struct database_view *view;
    struct verify_place *place;
    struct verify_inodes *inodes;
    struct verified *verified;
    struct findings *findings;
    struct entry *entries;
    size_t count, room;
    uint32_t inode; /* whose names are read */
    bool full;      /* there is no memory for more */
};

typedef void visit(struct look *look, const MDB_val *key, const MDB_val *value);

const char *verify_table_name(enum verify_table table)
{
    return table == VERIFY_INODES ? "inodes" : "data";
}

static int for_each(struct look *look, MDB_dbi table, enum verify_table number, visit *each)
{
    const char *name = verify_table_name(number);
    MDB_cursor *cursor;
    MDB_val key, value, before = {0};
    int code = mdb_cursor_open(look->view->transaction, table, &cursor);

    *look->place = (struct verify_place){.table = number};
    for (; code == 0 && (code = mdb_cursor_get(cursor, &key, &value, MDB_NEXT)) == 0 && !look->full; before = key) {
        if (before.mv_data && mdb_cmp(look->view->transaction, table, &before, &key) >= 0)
            findings_add(look->findings,
                         "database: the table \"%s\" is out of order behind inode %u, slice %u: what is there can't be "
                         "found",
                         name, look->place->inode, look->place->slice);
        each(look, &key, &value);
    }
    if (code == 0 || code == MDB_NOTFOUND) {
        mdb_cursor_close(cursor);
        return look->full ? -ENOMEM : 0;
    }
    findings_add(look->findings, "database: the table \"%s\" can't be read behind inode %u, slice %u: %s", name,
                 look->place->inode, look->place->slice, mdb_strerror(code));
    return -EIO;
}

static const struct verify_inode *known(const struct look *look, uint32_t i)
{
    static const struct verify_inode none;
    return i < look->inodes->count ? &look->inodes->inode[i] : &none;
}

/* ---- inodes ---- */

bool verify_value(const char *where, uint32_t inode, const void *value, size_t size, struct disk_inode *disk,
                  verify_name *each, void *context, struct findings *findings)
{
    struct format_names names;
    struct format_name name;
    int result = format_decode_inode(value, size, disk, &names);

    if (result < 0) {
        findings_add(findings, "%s: inode %u: %zu bytes that are neither a file nor a directory", where, inode, size);
        return false;
    }
    for (uint32_t count = 1; (result = format_next_name(&names, &name)) != 0; count++) {
        if (result < 0) {
            findings_add(findings, "%s: inode %u: name %u of %u is none that a file can have", where, inode, count,
                         disk->names);
            return false;
        }
        each(context, name.parent, name.text, name.length);
    }
    if (names.at != names.end || disk->zero != 0)
        findings_add(findings, "%s: inode %u: %zu bytes too many", where, inode, (size_t)(names.end - names.at));
    return true;
}

static uint64_t hash_of(uint32_t parent, const char *text, size_t length)
{
    uint64_t hash = UINT64_C(0xcbf29ce484222325) ^ parent;

    for (size_t i = 0; i < length; i++)
        hash = (hash ^ (unsigned char)text[i]) * UINT64_C(0x100000001b3);
    return hash ^ hash >> 29;
}

static void note_name(void *context, uint32_t parent, const char *text, size_t length)
{
    struct look *look = context;

    if (look->count == look->room) {
        size_t room = look->room ? 2 * look->room : 1024;
        struct entry *entries = realloc(look->entries, room * sizeof(*entries));
        if (!entries) {
            look->full = true;
            return;
        }
        look->entries = entries;
        look->room = room;
    }
    look->entries[look->count++] = (struct entry){hash_of(parent, text, length), parent, look->inode};
}

static void visit_inode(struct look *look, const MDB_val *key, const MDB_val *value)
{
    struct disk_inode disk;
    uint32_t i;

    if (format_parse_inode_key(key->mv_data, key->mv_size, &i) < 0) {
        findings_add(look->findings, "database: behind inode %u: a key of %zu bytes that is no inode's",
                     look->place->inode, key->mv_size);
        return;
    }
    look->place->inode = look->inode = i;
    look->verified->inodes++;
    if (!verify_value("database", i, value->mv_data, value->mv_size, &disk, note_name, look, look->findings) ||
        i >= look->inodes->count)
        return;
    look->inodes->inode[i] = (struct verify_inode){
        .size = disk.size, .generation = disk.generation, .kind = S_ISDIR(disk.mode) ? VERIFY_DIRECTORY : VERIFY_FILE};
    bool root = i == look->view->meta.root;
    if (root ? disk.names != 0 : S_ISDIR(disk.mode) ? disk.names != 1 : disk.names == 0)
        findings_add(look->findings, "database: inode %u, %s, has %u names", i,
                     root                 ? "the spool's own directory"
                     : S_ISDIR(disk.mode) ? "a directory"
                                          : "a file",
                     disk.names);
}

/* Room for all inodes, up to the one with the highest number. */
static int make_room(struct look *look)
{
    MDB_cursor *cursor;
    MDB_val key, value;
    uint32_t last = 0;

    *look->place = (struct verify_place){.table = VERIFY_INODES};
    if (mdb_cursor_open(look->view->transaction, look->view->database.inodes, &cursor) == 0) {
        if (mdb_cursor_get(cursor, &key, &value, MDB_LAST) == 0 &&
            format_parse_inode_key(key.mv_data, key.mv_size, &last) < 0)
            last = INODES_MAX - 1;
        mdb_cursor_close(cursor);
    }
    look->inodes->count = last + 1;
    look->inodes->inode = calloc(look->inodes->count, sizeof(*look->inodes->inode));
    return look->inodes->inode ? 0 : -ENOMEM;
}

/* ---- the tree ---- */

static int by_hash(const void *a, const void *b)
{
    const struct entry *one = a, *other = b;

    return one->hash < other->hash ? -1 : one->hash > other->hash;
}

static void check_entries(struct look *look)
{
    qsort(look->entries, look->count, sizeof(*look->entries), by_hash);
    for (size_t n = 0; n < look->count; n++) {
        const struct entry *entry = &look->entries[n];
        if (known(look, entry->parent)->kind != VERIFY_DIRECTORY)
            findings_add(look->findings, "database: inode %u has a name in directory %u, which is none", entry->inode,
                         entry->parent);
        else if (entry->inode < look->inodes->count)
            look->inodes->inode[entry->inode].above = entry->parent;
        if (n > 0 && entry->hash == entry[-1].hash && entry->parent == entry[-1].parent)
            findings_add(look->findings, "database: inodes %u and %u have the same name in directory %u",
                         entry[-1].inode, entry->inode, entry->parent);
    }
}

static void check_way_up(struct look *look, uint32_t i)
{
    uint32_t above = i;

    for (uint32_t steps = 0; above != look->view->meta.root; steps++) {
        if (known(look, above)->kind != VERIFY_DIRECTORY || steps > DEPTH_MAX) {
            findings_add(look->findings, "database: directory %u does not lead up to the root, but to inode %u", i,
                         above);
            return;
        }
        above = known(look, above)->above;
    }
}

static void check_tree(struct look *look)
{
    uint64_t root = look->view->meta.root;

    check_entries(look);
    if (root != 0 ? root >= look->inodes->count || known(look, (uint32_t)root)->kind != VERIFY_DIRECTORY
                  : look->verified->inodes != 0) {
        findings_add(look->findings, "database: the spool's own directory, inode %llu, is missing",
                     (unsigned long long)root);
        return;
    }
    for (uint32_t i = 1; i < look->inodes->count; i++) {
        if (look->inodes->inode[i].kind == VERIFY_DIRECTORY)
            check_way_up(look, i);
    }
}

/* ---- slices ---- */

static void visit_slice(struct look *look, const MDB_val *key, const MDB_val *value)
{
    uint32_t i, slice;

    if (format_parse_slice_key(key->mv_data, key->mv_size, &i, &slice) < 0) {
        findings_add(look->findings, "database: behind slice %u of inode %u: a key of %zu bytes that is no slice's",
                     look->place->slice, look->place->inode, key->mv_size);
        return;
    }
    look->place->inode = i;
    look->place->slice = slice;
    look->verified->slices++;
    look->verified->bytes += value->mv_size;
    const struct verify_inode *inode = known(look, i);
    if (inode->kind != VERIFY_FILE)
        findings_add(look->findings, "database: slice %u of inode %u is of no file", slice, i);
    else if (value->mv_size == 0 || value->mv_size > SLICE_SIZE ||
             (uint64_t)slice * SLICE_SIZE + value->mv_size > inode->size)
        findings_add(look->findings, "database: slice %u of inode %u has %zu bytes, and the file has %llu", slice, i,
                     value->mv_size, (unsigned long long)inode->size);
    /* All of it is read, so that a page that is missing is noticed here. */
    (void)format_crc(FORMAT_CRC, value->mv_data, value->mv_size);
}

/* ---- all of it ---- */

int verify_database(const struct database_view *view, struct verify_place *place, struct verify_inodes *inodes,
                    struct verified *verified, struct findings *findings)
{
    struct look look = {.view = view, .place = place, .inodes = inodes, .verified = verified, .findings = findings};
    int result = make_room(&look);

    verified->database = true;
    verified->batch = view->meta.batch;
    if (result == 0)
        result = for_each(&look, view->database.inodes, VERIFY_INODES, visit_inode);
    if (result == 0) {
        check_tree(&look);
        result = for_each(&look, view->database.data, VERIFY_DATA, visit_slice);
    }
    verified->names = look.count;
    free(look.entries);
    *place = (struct verify_place){0};
    return result;
}
