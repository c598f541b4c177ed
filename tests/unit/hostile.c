/* SPDX-License-Identifier: MIT
 *
 * A segment that the mail user has written to: what leaves it is what a file system could have, and every walk ends.
 *
 * Each test damages a store that was well, and makes the calls that meet the damage.  A call that should not end is in
 * a child with an alarm.
 */
#include "base/findings.h"
#include "fastspool.h"
#include "fixture.h"
#include "mirror/capture.h"
#include "mirror/evictor.h"
#include "store/blocks.h"
#include "store/check.h"
#include "store/inside.h"
#include "store/names.h"
#include "store/orphans.h"
#include "store/residency.h"
#include "store/snapshot.h"
#include "store/walk.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <limits.h>
#include <sys/resource.h>
#include <sys/wait.h>

static void setup(void)
{
    fixture_setup();
    checking_every(0);
    cr_assert_eq(fastspool_mkdir(fs, "input", 0750), 0);
}
TestSuite(hostile, .init = setup, .fini = fixture_teardown, .timeout = 120);

static int create(const char *path)
{
    int d = fastspool_open(fs, path, O_RDWR | O_CREAT, 0640);
    cr_assert_geq(d, 0, "%s: %s", path, strerror(-d));
    return d;
}

static uint32_t inode_of(const char *path)
{
    struct stat st;

    cr_assert_eq(fastspool_stat(fs, path, &st), 0);
    return (uint32_t)(st.st_ino - inodes_number(0));
}

static uint32_t entry_of(const char *path)
{
    return inode_at(fs, inode_of(path))->names;
}

static bool is_failed(void)
{
    return LOAD(fs->header->state) == SEGMENT_FAILED;
}

/* As the store is after the operator has mended it: the next damage can be met. */
static void mend(void)
{
    STORE(fs->header->state, SEGMENT_READY);
}

/* All names of a directory, at most @most: how many there were, or the error. */
static ssize_t list(const char *path, size_t most)
{
    struct fastspool_entry entries[7];
    uint64_t after = 0;
    ssize_t count = 0;
    size_t all = 0;
    int d = fastspool_open(fs, path, O_RDONLY | O_DIRECTORY, 0);

    cr_assert_geq(d, 0);
    while (all < most && (count = fastspool_list(fs, d, after, entries, 7)) > 0) {
        all += (size_t)count;
        after = entries[count - 1].position;
    }
    fastspool_close(fs, d);
    return count < 0 ? count : (ssize_t)all;
}

/* ---- names ---- */

static const struct bad_name {
    const char *text;
    uint8_t length;
} bad_names[] = {
    {"../../../../etc/x", 17}, {"a/b", 3}, {".", 1}, {"..", 2}, {"", 0}, {"a\0b", 3}, {"/", 1},
};
#define BAD_NAMES (sizeof(bad_names) / sizeof(*bad_names))

static void rename_in_place(uint32_t entry, const struct bad_name *bad)
{
    memcpy(WRITABLE(*name_at(fs, entry)).text, bad->text, bad->length);
    WRITABLE(name_at(fs, entry)->length) = bad->length;
}

/* No name leads out of its directory, by whatever call it leaves the store. */
Test(hostile, names)
{
    int d = fastspool_mkdir(fs, "input/directory", 0750);
    char path[PATH_MAX];

    cr_assert_eq(d, 0);
    uint32_t entry = entry_of("input/directory"), inode = inode_of("input/directory");
    d = fastspool_open(fs, "input/directory", O_RDONLY | O_DIRECTORY, 0);
    cr_assert_geq(d, 0);
    for (size_t i = 0; i < BAD_NAMES; i++) {
        rename_in_place(entry, &bad_names[i]);
        cr_assert_eq(list("input", 100), -EIO, "name %zu is listed", i);
        cr_assert(is_failed());
        mend();
        cr_assert_eq(walk_path(fs, inode, path, sizeof(path)), -EIO, "name %zu is in a path: %s", i, path);
        cr_assert(is_failed());
        mend();
        cr_assert_eq(inside_path(fs, (uint32_t)d, path, sizeof(path)), -EIO, "name %zu is in a descriptor's path", i);
        mend();
    }
}

/* A name whose rest is missing, or goes on in the first part. */
Test(hostile, long_names)
{
    char name[256] = "input/";

    memset(name + 6, 'n', 240);
    fastspool_close(fs, create(name));
    const struct name *entry = name_at(fs, entry_of(name));
    const uint32_t more = entry->more;
    WRITABLE(entry->more) = 0;
    cr_assert_eq(list("input", 100), -EIO);
    mend();
    WRITABLE(entry->more) = more;
    WRITABLE(entry->length) = 0;
    cr_assert_eq(list("input", 100), -EIO);
}

/* ---- names that follow each other ---- */

/* A list of names that leads back to its start, to itself, or into another directory, is no endless one. */
Test(hostile, endless_directory)
{
    for (int i = 0; i < 20; i++) {
        char path[32];
        snprintf(path, sizeof(path), "input/%d", i);
        fastspool_close(fs, create(path));
    }
    fastspool_mkdir(fs, "other", 0750);
    fastspool_close(fs, create("other/x"));
    cr_assert_eq(list("input", 100), 20);
    const struct name *last = name_at(fs, entry_of("input/19"));
    const uint32_t leads_to[] = {entry_of("input/19"), entry_of("input/0"), entry_of("input/12"), entry_of("other/x")};
    for (size_t i = 0; i < sizeof(leads_to) / sizeof(*leads_to); i++) {
        WRITABLE(last->next) = leads_to[i];
        cr_assert_eq(list("input", 100), -EIO, "leads to %u", leads_to[i]);
        cr_assert(is_failed());
        mend();
    }
    WRITABLE(last->next) = 0;
    cr_assert_eq(list("input", 100), 20);
}

/* Birth numbers that a position has no room for: what is left of them would lead a listing back. */
Test(hostile, endless_positions)
{
    for (int i = 0; i < 20; i++) {
        char path[32];
        snprintf(path, sizeof(path), "input/%d", i);
        fastspool_close(fs, create(path));
        WRITABLE(name_at(fs, entry_of(path))->born) |= UINT64_C(1) << 40;
    }
    cr_assert_eq(list("input", 100), -EIO);
}

/* ---- attributes ---- */

static void look_at(const char *path, int d, int expected, const char *what)
{
    struct stat st;
    uint64_t handle;

    cr_assert_eq(fastspool_stat(fs, path, &st), expected, "%s", what);
    mend();
    cr_assert_eq(fastspool_fstat(fs, d, &st), expected, "%s", what);
    mend();
    cr_assert_eq(fastspool_lookup(fs, path, &handle, &st), expected, "%s", what);
    mend();
}

/* No attributes that no file of the store can have. */
Test(hostile, attributes)
{
    int d = create("input/x");
    const struct inode *inode = inode_at(fs, inode_of("input/x"));
    const struct inode before = *inode;
    char byte;

    WRITABLE(inode->mode) = S_IFBLK | 0666;
    look_at("input/x", d, -EIO, "a device");
    WRITABLE(inode->mode) = S_IFLNK | 0777;
    look_at("input/x", d, -EIO, "a link");
    WRITABLE(*inode) = before;
    WRITABLE(inode->size) = UINT64_C(1) << 62;
    look_at("input/x", d, -EIO, "2^62 bytes");
    cr_assert_eq(fastspool_pread(fs, d, &byte, 1, 0), -EIO);
    mend();
    WRITABLE(inode->size) = UINT64_MAX;
    look_at("input/x", d, -EIO, "-1 bytes");
    cr_assert_eq(fastspool_write(fs, d, "x", 1), -EIO);
    mend();
    WRITABLE(*inode) = before;
    WRITABLE(inode->uid) = UINT32_MAX;
    look_at("input/x", d, -EIO, "nobody's");
    WRITABLE(*inode) = before;
    WRITABLE(inode->links) = UINT32_MAX;
    look_at("input/x", d, -EIO, "links");
    WRITABLE(*inode) = before;
    look_at("input/x", d, 0, "as before");
}

/* A set-ID bit shows where the spool's owner could have set it. */
Test(hostile, set_id)
{
    int d = create("input/x");
    const struct inode *inode = inode_at(fs, inode_of("input/x"));
    struct stat st;

    fs->owner = 100;
    fs->group = 101;
    WRITABLE(inode->mode) = S_IFREG | 06755;
    cr_assert_eq(fastspool_fstat(fs, d, &st), 0);
    cr_assert_eq(st.st_mode, S_IFREG | 0755, "root's: %o", st.st_mode);
    WRITABLE(inode->uid) = 100;
    cr_assert_eq(fastspool_fstat(fs, d, &st), 0);
    cr_assert_eq(st.st_mode, S_IFREG | 04755, "the owner's, of another group: %o", st.st_mode);
    WRITABLE(inode->gid) = 101;
    cr_assert_eq(fastspool_fstat(fs, d, &st), 0);
    cr_assert_eq(st.st_mode, S_IFREG | 06755, "the owner's: %o", st.st_mode);
}

/* ---- walks ---- */

#define PATIENCE 60   /* seconds of a call that has to end */
#define NOTHING  (-1) /* result of one that had nothing to do */

/* Run @call in a child: its result.  0, which none of them returns: it had no end. */
static int ended(int (*call)(void))
{
    int status;
    pid_t child = fork();

    if (child == 0) {
        alarm(PATIENCE);
        _exit(-call() & 0xff);
    }
    cr_assert_eq(waitpid(child, &status, 0), child);
    mend();
    return WIFEXITED(status) ? -WEXITSTATUS(status) : 0;
}

static void many(const char *directory, int files)
{
    fastspool_mkdir(fs, directory, 0750);
    for (int i = 0; i < files; i++) {
        char path[64];
        snprintf(path, sizeof(path), "%s/%d", directory, i);
        fastspool_close(fs, create(path));
    }
}

static char long_name[256] = "input/";

static int unlink_long(void)
{
    return fastspool_unlink(fs, long_name);
}

/* A name whose rest follows itself, or leads to another name or out of the table. */
Test(hostile, unlink_endless)
{
    memset(long_name + 6, 'n', 240);
    fastspool_close(fs, create(long_name));
    fastspool_close(fs, create("input/other"));
    const struct name *name = name_at(fs, entry_of(long_name));
    const struct name_more *more = (const struct name_more *)name_at(fs, name->more);
    const uint32_t leads_to[] = {name->more, entry_of("input/other"), NAMES_MAX - 1, 0}, before = more->more;
    for (size_t i = 0; i < sizeof(leads_to) / sizeof(*leads_to); i++) {
        WRITABLE(more->more) = leads_to[i];
        cr_assert_eq(ended(unlink_long), i == 0 ? -EIO : -ENOENT, "leads to %u", leads_to[i]);
    }
    WRITABLE(more->more) = before;
    cr_assert_eq(fastspool_unlink(fs, long_name), 0);
    cr_assert_eq(list("input", 100), 1);
}

static int stat_missing(void)
{
    struct stat st;
    int result = 0;

    for (int i = 0; i < 2000 && result != -EIO; i++) {
        char path[32];
        snprintf(path, sizeof(path), "input/missing%d", i);
        result = fastspool_stat(fs, path, &st);
    }
    return result;
}

/* Hash chains that lead back: no name is "missing". */
Test(hostile, chains)
{
    many("many", 3000);
    uint32_t buckets = fs->header->tables.buckets;
    for (uint32_t b = 0; b < buckets; b++) {
        uint32_t i = *bucket_at(fs, b) & CHAIN_INDEX;
        if (i)
            WRITABLE(name_at(fs, i)->chain) = i | CHAIN_FILTER;
        WRITABLE(*bucket_at(fs, b)) |= CHAIN_FILTER;
    }
    cr_assert_eq(ended(stat_missing), -EIO);
}

/* A directory with two names is found by a thread that has just walked through one of them, too. */
Test(hostile, directory_of_two_names)
{
    many("input/a", 1);
    many("input/b", 1);
    const struct name *name = name_at(fs, entry_of("input/b"));
    WRITABLE(name->inode) = inode_of("input/a");
    cr_assert_eq(fastspool_unlink(fs, "input/b/0"), -EIO);
    cr_assert(is_failed());
}

/* Of a walk that has 2^24 steps at most, and not 2^32: some seconds of a processor. */
static void be_brief(void)
{
    const struct rlimit seconds = {3, 3};
    setrlimit(RLIMIT_CPU, &seconds);
}

static int take(void)
{
    struct capture capture;
    be_brief();
    return capture_take(fs, &capture);
}

static int reset(void)
{
    be_brief();
    return capture_reset(fs);
}

static int release_held(void)
{
    return blocks_release_held(fs);
}

static int evict(void)
{
    bool unready;
    return evictor_run(fs, 0, 0, &unready) == 0 ? NOTHING : -EIO;
}

static int free_orphans(void)
{
    return orphans_free(fs);
}

/* The mirror's own walks. */
Test(hostile, lists_of_inodes)
{
    const struct header *h = fs->header;

    fastspool_close(fs, create("input/x"));
    uint32_t x = inode_of("input/x"), head = h->tickets.dirty.head, inodes = h->tables.inodes.used,
             names = h->tables.names.used;
    const struct inode before = *inode_at(fs, x);
    WRITABLE(inode_at(fs, x)->list.next) = head;
    cr_assert_eq(ended(take), -EIO, "the dirty list leads back");
    STORE(h->tickets.committing, 1);
    cr_assert_eq(ended(reset), -EIO, "the dirty list leads back, for a new mirror");
    WRITABLE(h->tickets.committing) = 0;
    WRITABLE(h->tables.inodes.used) = UINT32_MAX;
    WRITABLE(inode_at(fs, x)->links) = 0;
    WRITABLE(inode_at(fs, x)->list.next) = x;
    cr_assert_eq(ended(take), -EIO, "the dirty list leads back, in a table without end");
    STORE(h->tickets.committing, 1);
    cr_assert_eq(ended(reset), -EIO, "the dirty list leads back, in a table without end, for a new mirror");
    WRITABLE(h->tickets.committing) = 0;
    WRITABLE(h->tables.inodes.used) = inodes;
    WRITABLE(*inode_at(fs, x)) = before;
    WRITABLE(inode_at(fs, x)->links) = NAMES_MAX;
    WRITABLE(name_at(fs, before.names)->sibling) = before.names;
    cr_assert_eq(ended(take), -EIO, "an inode's names lead back");
    WRITABLE(h->tables.names.used) = UINT32_MAX;
    cr_assert_eq(ended(take), -EIO, "an inode's names lead back, in a table without end");
    WRITABLE(h->tables.names.used) = names;
    WRITABLE(name_at(fs, before.names)->sibling) = 0;
    WRITABLE(*inode_at(fs, x)) = before;
    WRITABLE(inode_at(fs, x)->dirty_from) = 5;
    cr_assert_eq(ended(take), -EIO, "more is dirty than there is");
    WRITABLE(*inode_at(fs, x)) = before;
    WRITABLE(h->tree.orphans) = x;
    cr_assert_eq(ended(free_orphans), -EIO, "a file in use is an orphan");
    WRITABLE(h->tree.orphans) = 0;
    cr_assert_eq(fastspool_access(fs, "input/x", F_OK, true), 0);
}

/* Results of other processes' work that are none: no call returns one, or takes it for success. */
Test(hostile, results)
{
    static const struct {
        int32_t said;
        int result;
    } cases[] = {{-ENOSPC, -ENOSPC}, {5, -EIO}, {INT32_MAX, -EIO}, {INT32_MIN, -EIO}, {-4096, -EIO}};
    const struct header *h = fs->header;
    struct fastspool_status status;

    fs->keeper = NULL; /* no mirror is started */
    fastspool_close(fs, create("input/x"));
    uint32_t x = inode_of("input/x");
    const struct inode *inode = inode_at(fs, x), before = *inode;
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        STORE(h->tickets.commit_error, cases[i].said);
        cr_assert_eq(fastspool_flush(fs, 0), cases[i].result, "a commit: %d", cases[i].said);
        fastspool_status(fs, &status);
        cr_assert_eq(status.commit_error, cases[i].result, "a commit's status: %d", cases[i].said);
        WRITABLE(inode->flags) = (uint16_t)(before.flags | INODE_EVICTED);
        WRITABLE(inode->pagein_error) = cases[i].said;
        cr_assert_eq(residency_wait(fs, x, before.generation), cases[i].result, "a page-in: %d", cases[i].said);
        WRITABLE(*inode) = before;
    }
}

static int unlink_x(void)
{
    return fastspool_unlink(fs, "input/x");
}

/* A bad name does not get to the disk either. */
Test(hostile, captured_names)
{
    fastspool_close(fs, create("input/x"));
    uint32_t entry = entry_of("input/x");
    for (size_t i = 0; i < BAD_NAMES; i++) {
        rename_in_place(entry, &bad_names[i]);
        cr_assert_eq(ended(take), -EIO, "name %zu", i);
    }
}

/* Links that don't agree both ways: nothing is written where they lead. */
Test(hostile, links)
{
    const uint32_t bad[] = {INODES_MAX - 1, UINT32_MAX, 1};

    fastspool_close(fs, create("input/x"));
    const struct inode *inode = inode_at(fs, inode_of("input/x"));
    const struct name *name = name_at(fs, inode->names);
    const uint32_t *const links[] = {&inode->list.next, &inode->list.prev, &name->next, &name->prev};
    for (size_t l = 0; l < sizeof(links) / sizeof(*links); l++) {
        const uint32_t before = *links[l];
        for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
            if (before == bad[i])
                continue;
            WRITABLE(*links[l]) = bad[i];
            cr_assert_eq(ended(unlink_x), -EIO, "link %zu leads to %u", l, bad[i]);
        }
        WRITABLE(*links[l]) = before;
    }
    cr_assert_eq(fastspool_unlink(fs, "input/x"), 0);
}

static int file_x;

static int read_x(void)
{
    static char got[BLOCK_SIZE], zeros[BLOCK_SIZE];

    if (fastspool_pread(fs, file_x, got, sizeof(got), 0) != sizeof(got))
        return -EPROTO;
    return memcmp(got, zeros, sizeof(got)) == 0 ? NOTHING : -EILSEQ;
}

static int write_x(void)
{
    ssize_t result = fastspool_pwrite(fs, file_x, "x", 1, 5);
    return result < 0 ? (int)result : NOTHING;
}

static int cut_x(void)
{
    return fastspool_ftruncate(fs, file_x, 100);
}

static int empty_x(void)
{
    return fastspool_ftruncate(fs, file_x, 0);
}

/* Pieces that end behind their block, where another file has its bytes, or no memory is; and such as there are none. */
Test(hostile, pieces)
{
    static char bytes[BLOCK_SIZE];

    file_x = create("input/x");
    cr_assert_eq(fastspool_pwrite(fs, file_x, bytes, BLOCK_SIZE, 0), BLOCK_SIZE);
    memset(bytes, 'y', sizeof(bytes));
    cr_assert_eq(fastspool_pwrite(fs, create("input/y"), bytes, BLOCK_SIZE, 0), BLOCK_SIZE);
    const struct inode *inode = inode_at(fs, inode_of("input/x"));
    const uint32_t before = inode->map.direct[0], last = fs->header->blocks.chunks_used * CHUNK_BLOCKS - 1;
    cr_assert_eq(inode_at(fs, inode_of("input/y"))->map.direct[0], before + 1);
    const uint32_t bad[] = {
        before | 1u << PIECE_FIRST, before | 3u << PIECE_FIRST, before | 3u << PIECE_FIRST | 2u << PIECE_MISSING,
        last | 3u << PIECE_FIRST,   before | 1u << 28,          UINT32_MAX};
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
        WRITABLE(inode->map.direct[0]) = bad[i];
        cr_assert_eq(ended(read_x), NOTHING, "a reader follows %x", bad[i]);
        cr_assert_eq(ended(write_x), -EIO, "a writer follows %x", bad[i]);
        cr_assert_eq(ended(cut_x), -EIO, "a truncation follows %x", bad[i]);
        cr_assert_eq(ended(empty_x), -EIO, "%x is freed", bad[i]);
    }
    WRITABLE(inode->map.direct[0]) = before;
    cr_assert_eq(empty_x(), 0);
}

/* The lists of the evictor and of the quarantine. */
Test(hostile, endless_memory)
{
    static const char bytes[3 * BLOCK_SIZE];
    const struct header *h = fs->header;
    int d = create("input/x");

    cr_assert_eq(fastspool_write(fs, d, bytes, sizeof(bytes)), sizeof(bytes));
    WRITABLE(h->blocks.chunks_held) = 1;
    WRITABLE(chunk_at(fs, 0)->held_next) = 1;
    cr_assert_eq(ended(release_held), -EIO, "the quarantine leads back");
    WRITABLE(h->blocks.chunks_held) = 0;
    struct capture capture;
    cr_assert_eq(capture_take(fs, &capture), 0);
    cr_assert_eq(capture_end(fs, &capture, 0, 0), 0);
    cr_assert_eq(h->residency.clean_files, 1);
    WRITABLE(h->residency.clean_files) = UINT64_MAX / 2;
    cr_assert_eq(ended(evict), NOTHING, "an open file is looked at for ever");
    WRITABLE(h->tables.inodes.used) = UINT32_MAX;
    cr_assert_eq(ended(evict), NOTHING, "an open file is looked at for ever, in a table without end");
}

static int move_down(void)
{
    return fastspool_rename(fs, "input/a", "input/b/a", 0);
}

/* Directories above themselves, and with two names. */
Test(hostile, directories)
{
    char path[PATH_MAX];
    struct stat st;

    fastspool_mkdir(fs, "input/a", 0750);
    fastspool_mkdir(fs, "input/b", 0750);
    uint32_t a = inode_of("input/a"), b = inode_of("input/b"), entry = entry_of("input/b");
    const struct name before = *name_at(fs, entry);
    WRITABLE(inode_at(fs, b)->dir.parent) = b;
    cr_assert_eq(ended(move_down), -EIO);
    WRITABLE(inode_at(fs, b)->dir.parent) = before.parent;
    WRITABLE(name_at(fs, entry)->parent) = b;
    cr_assert_eq(walk_path(fs, b, path, sizeof(path)), -ENAMETOOLONG);
    WRITABLE(*name_at(fs, entry)) = before;
    WRITABLE(name_at(fs, entry)->inode) = a;
    cr_assert_eq(fastspool_stat(fs, "input/b", &st), -EIO, "two names of a directory");
    mend();
    cr_assert_eq(list("input", 100), -EIO);
    mend();
    WRITABLE(name_at(fs, entry)->inode) = INODES_MAX - 1;
    cr_assert_eq(fastspool_stat(fs, "input/b", &st), -EIO);
    mend();
    WRITABLE(*name_at(fs, entry)) = before;
    cr_assert_eq(fastspool_stat(fs, "input/b", &st), 0);
}

static int create_y(void)
{
    return fastspool_open(fs, "input/y", O_RDWR | O_CREAT, 0640);
}

/* Free lists that lead to entries in use. */
Test(hostile, free_lists)
{
    fastspool_close(fs, create("input/x"));
    const struct table *const tables[] = {&fs->header->tables.inodes, &fs->header->tables.names};
    const uint32_t used[] = {inode_of("input/x"), entry_of("input/x")};
    for (int t = 0; t < 2; t++) {
        const uint32_t before = tables[t]->free;
        WRITABLE(tables[t]->free) = used[t];
        cr_assert_eq(ended(create_y), -EIO);
        WRITABLE(tables[t]->free) = before;
    }
}

static int create_at_the_top(void)
{
    return fastspool_open(fs, "y", O_RDWR | O_CREAT, 0640);
}

/* A bucket is split whose names are more than the undo log holds, and whose last two lead to each other: their links
 * are not set anew any more. */
Test(hostile, chain_that_is_split)
{
    const struct header *h = fs->header;
    uint32_t level = 1, first = 0, last = 0, next = 0;

    many("many", UNDO_MAX + 100);
    for (uint32_t i = entry_of("many/0"); i < h->tables.names.used; i++) {
        WRITABLE(name_at(fs, i)->chain) = next; /* no filter: whoever looks a name up ends here */
        first = first ? first : i;
        last = i;
        next = i;
    }
    WRITABLE(name_at(fs, first)->chain) = first + 1;
    while (2 * level <= h->tables.buckets)
        level *= 2;
    WRITABLE(*bucket_at(fs, h->tables.buckets - level)) = last;
    WRITABLE(h->tables.names.count) = h->tables.buckets;
    cr_assert_eq(ended(create_at_the_top), -EIO);
    cr_assert(strstr(h->failure, "undo log"), "%s", h->failure);
}

/* A listing that goes on where no name is any more: the list leads back, and the table says that it has no end. */
static int list_behind(void)
{
    struct fastspool_entry entry;
    int d = fastspool_open(fs, "many", O_RDONLY | O_DIRECTORY, 0);

    be_brief();
    ssize_t count = fastspool_list(fs, d, name_at(fs, entry_of("many/1"))->born << 24, &entry, 1);
    return count < 0 ? (int)count : NOTHING;
}

Test(hostile, listing_that_goes_on)
{
    many("many", 3);
    WRITABLE(name_at(fs, entry_of("many/0"))->next) = entry_of("many/0");
    WRITABLE(name_at(fs, entry_of("many/2"))->prev) = entry_of("many/2");
    WRITABLE(fs->header->tables.names.used) = UINT32_MAX;
    cr_assert_eq(ended(list_behind), NOTHING);
}

/* A table that says that it has more entries than it can have: none of them is handed out. */
Test(hostile, tables_without_end)
{
    fastspool_close(fs, create("input/x"));
    const struct table *const tables[] = {&fs->header->tables.inodes, &fs->header->tables.names,
                                          &fs->header->tables.descriptions};
    const uint32_t most[] = {INODES_MAX, NAMES_MAX, DESCRIPTIONS_MAX};
    for (int t = 0; t < 3; t++) {
        const struct table before = *tables[t];
        for (int d = 0; d < 20; d++) /* none is left in the process's pool */
            cr_assert_geq(fastspool_open(fs, "input/x", O_RDONLY, 0), 0);
        WRITABLE(*tables[t]) = (struct table){2 * most[t], most[t], 0, 1};
        cr_assert_eq(ended(create_y), -EIO, "table %d", t);
        cr_assert(strstr(fs->header->failure, "the list of free"), "table %d: %s", t, fs->header->failure);
        WRITABLE(*tables[t]) = before;
    }
}

static int give_back(void)
{
    return blocks_give_back(fs, 0) == 0 ? NOTHING : -EIO;
}

/* More chunks than there can be. */
Test(hostile, chunks_without_end)
{
    WRITABLE(fs->header->blocks.chunks_used) = UINT32_MAX;
    cr_assert_eq(ended(give_back), NOTHING);
}

/* What a child has written to its findings decides nothing about the memory of its parent. */
Test(hostile, findings_of_a_child)
{
    struct findings *first = findings_new(10), *second = findings_new(10);
    struct findings *low = first < second ? first : second, *high = first < second ? second : first;
    low->most = (uint32_t)(((uintptr_t)high - (uintptr_t)low) / FINDING_MAX) + 10;
    findings_free(low, 10);
    findings_add(high, "it is there");
    cr_assert_eq(high->count, 1);
    findings_free(high, 10);
}

static int take_snapshot(void)
{
    struct fastspool *snapshot;
    struct rusage usage;
    int result = snapshot_take(fs, &snapshot);

    getrusage(RUSAGE_SELF, &usage);
    return result < 0 ? result : usage.ru_maxrss < 512 * 1024 && usage.ru_minflt < 100000 ? NOTHING : -ENOMEM;
}

static int check_all(void)
{
    struct findings *findings = findings_new(50);
    struct rusage usage;
    int result = check_segment(fs, findings);

    getrusage(RUSAGE_SELF, &usage);
    return result < 0 ? result : usage.ru_maxrss < 512 * 1024 ? NOTHING : -ENOMEM;
}

/* Tables that say that they are larger than memory: nobody reads the holes.  (Reading one takes memory.)  The check
 * walks through those of its copy, which take none. */
Test(hostile, holes)
{
    struct fastspool_status status;
    const struct header *h = fs->header;
    struct stat before, after;

    WRITABLE(h->tables.names.used) = NAMES_MAX;
    cr_assert_eq(fstat(fs->segment_fd, &before), 0);
    fastspool_status(fs, &status);
    cr_assert_eq(fstat(fs->segment_fd, &after), 0);
    cr_assert_leq(after.st_blocks, before.st_blocks + 64, "%lld blocks", (long long)after.st_blocks);
    WRITABLE(h->tables.inodes.used) = INODES_MAX;
    WRITABLE(h->tables.inodes.capacity) = INODES_MAX;
    WRITABLE(h->tables.names.capacity) = NAMES_MAX;
    cr_assert_eq(ended(take_snapshot), NOTHING);
    cr_assert_eq(ended(check_all), NOTHING);
}

/* Files that all have the same index blocks: nobody copies them for each, with the lock held. */
Test(hostile, shared_index_blocks)
{
    static const char bytes[BLOCK_SIZE];
    int d = create("input/large");

    cr_assert_eq(fastspool_pwrite(fs, d, bytes, sizeof(bytes), 4400000), sizeof(bytes));
    const struct inode *large = inode_at(fs, inode_of("input/large"));
    uint32_t top = large->map.double_indirect;
    cr_assert_neq(top, 0);
    many("many", 100);
    cr_assert_eq(ended(take_snapshot), NOTHING);
    for (uint32_t e = 0; e < INDEX_ENTRIES; e++)
        WRITABLE(((const uint32_t *)piece_at(fs, top))[e]) = top;
    for (uint32_t i = 2; i < fs->header->tables.inodes.used; i++)
        WRITABLE(inode_at(fs, i)->map.double_indirect) = top;
    cr_assert_eq(ended(take_snapshot), -EUCLEAN);
}
