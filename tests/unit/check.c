/* SPDX-License-Identifier: MIT
 *
 * The check of the segment's invariants: it finds each of them broken, and says so with the place.
 *
 * Each mutant changes a word of a store that is well, is found with the words that are expected, and is taken back.
 */
#include "store/check.h"
#include "base/findings.h"
#include "evicting.h"
#include "fastspool.h"
#include "fixture.h"
#include "store/change.h"
#include "store/history.h"
#include "store/layout.h"
#include "store/names.h"
#include "store/residency.h"
#include "store/section.h"
#include "store/snapshot.h"
#include "store/store.h"

#include <signal.h>

#define HUGE_SIZE ((INODE_DIRECT + INDEX_ENTRIES + 3) * BLOCK_SIZE) /* has two levels of index blocks */
#define LONG_NAME "t/a-name-that-is-longer-than-an-entry-of-the-table-and-goes-on-in-two-more-entries-0123456789"

static struct findings *findings;

/* ---- words that are taken back ---- */

static struct {
    uint64_t offset;
    uint64_t before;
} changed[16];
static int changes;

/* Change a field; take_back() restores it. */
#define MUTATE(field, value)                                                         \
    do {                                                                             \
        uint64_t at_ = ((uint64_t)((const char *)&(field)-fs->base)) & ~UINT64_C(7); \
        changed[changes].offset = at_;                                               \
        changed[changes++].before = *(const uint64_t *)(fs->base + at_);             \
        WRITABLE(field) = (value);                                                   \
    } while (0)

static void take_back(void)
{
    while (changes > 0) {
        changes--;
        WRITABLE(*(const uint64_t *)(fs->base + changed[changes].offset)) = changed[changes].before;
    }
}

/* ---- the scene ---- */

static uint32_t small, big, huge, linked, directory, lengthy, dirty;
static int opened;

static const struct inode *inode(uint32_t i)
{
    return inode_at(fs, i);
}

static const struct name *name_of(uint32_t i)
{
    return name_at(fs, inode(i)->names);
}

static void setup(void)
{
    durable_setup();
    findings = findings_new(100);
    cr_assert_eq(fastspool_mkdir(fs, "t", 0750), 0);
    cr_assert_eq(fastspool_mkdir(fs, "t/dir", 0750), 0);
    fill("t/evicted", 5, 5000);
    persist();
    evict(0);
    cr_assert(evicted("t/evicted"));
    fill("t/small", 1, 10);
    fill("t/big", 2, 25000);
    put("t/huge", 0, "x", 1, HUGE_SIZE - 1);
    fill("t/linked", 3, 100);
    cr_assert_eq(fastspool_link(fs, "t/linked", "t/second"), 0);
    fill(LONG_NAME, 4, 10);
    fill("t/removed", 7, 10);
    persist();
    cr_assert_eq(fastspool_unlink(fs, "t/removed"), 0);
    fill("t/dirty", 8, 5000);
    opened = fastspool_open(fs, "t/small", O_RDONLY, 0);
    cr_assert_gt(opened, 0);
    small = number("t/small");
    big = number("t/big");
    huge = number("t/huge");
    linked = number("t/linked");
    directory = number("t/dir");
    lengthy = number(LONG_NAME);
    dirty = number("t/dirty");
}

static void teardown(void)
{
    findings_free(findings, 100);
    durable_teardown();
}

TestSuite(check, .init = setup, .fini = teardown, .timeout = 60);

static int check(void)
{
    findings->count = 0;
    return check_segment(fs, findings);
}

static bool told(const char *words)
{
    for (uint32_t i = 0; i < findings_kept(findings); i++) {
        if (strstr(findings->sentence[i], words))
            return true;
    }
    return false;
}

/* ---- the mutants ---- */

static const struct header *h(void)
{
    return fs->header;
}

static void must_be_well(const char *when)
{
    cr_assert_eq(check(), 0, "%s: %s", when, findings->sentence[0]);
}

/* What MUTATE() has done is found, with @words, and taken back. */
static void is_found(const char *mutant, const char *words)
{
    int found = check();

    cr_expect_gt(found, 0, "%s: NOT FOUND", mutant);
    cr_expect(told(words), "%s: \"%s\" isn't told, but: %s; %s", mutant, words, found > 0 ? findings->sentence[0] : "",
              found > 1 ? findings->sentence[1] : "");
    take_back();
    must_be_well(mutant);
}

Test(check, header)
{
    checking_every(0);
    MUTATE(h()->section.undo_count, 3);
    is_found("an undo entry is left", "undo entries are left");
    MUTATE(h()->section.rollbacks, h()->section.rollbacks + 1);
    is_found("a rollback that did not end", "a rollback has begun");
    MUTATE(h()->tables.inodes.used, h()->tables.inodes.capacity + 1);
    is_found("a table beyond its memory", "the table of inodes uses");
    MUTATE(h()->tree.root, small);
    is_found("a root that is a file", "there is no root");
    MUTATE(h()->tickets.durable, h()->tickets.change + 1);
    is_found("durable before it was made", "more than before");
}

/* verify looks at a snapshot, and must not call a store well that has failed. */
Test(check, states)
{
    static const struct {
        uint32_t state;
        const char *words;
    } states[] = {{SEGMENT_FAILED, "the store has failed"}, {77, "the store is in state 77"}};

    checking_every(0);
    for (size_t i = 0; i < sizeof(states) / sizeof(*states); i++) {
        struct fastspool *snapshot;
        MUTATE(h()->state, states[i].state);
        findings->count = 0;
        cr_assert_eq(snapshot_take(fs, &snapshot), 0);
        cr_expect_gt(check_snapshot(snapshot, findings), 0, "state %u: NOT FOUND", states[i].state);
        cr_expect(told(states[i].words), "%s", findings->sentence[0]);
        snapshot_free(snapshot);
        take_back();
    }
    MUTATE(h()->section.sequence, h()->section.sequence | 1);
    is_found("a section without an end", "a section has begun and not ended");
}

Test(check, descriptions)
{
    checking_every(0);
    MUTATE(description_at(fs, (uint32_t)opened)->inode, 900);
    is_found("a description of no inode", "leads to inode 900");
    MUTATE(description_at(fs, (uint32_t)opened)->generation, 77);
    is_found("a description of an earlier file", "generation 77");
    MUTATE(description_at(fs, (uint32_t)opened)->locker, 77);
    is_found("a noted lock that its file does not know", "has a noted lock, and its inode");
    MUTATE(inode_at(fs, description_at(fs, (uint32_t)opened)->inode)->flags,
           inode_at(fs, description_at(fs, (uint32_t)opened)->inode)->flags | INODE_NOTED);
    is_found("a file that has no noted lock", "inodes with a noted lock");
    MUTATE(description_at(fs, (uint32_t)opened)->state, 9);
    is_found("a description in no state", "has the state 9");
    MUTATE(h()->tables.descriptions.free, (uint32_t)opened);
    is_found("a free description that is open", "the list of free descriptions leads to");
    MUTATE(h()->tables.descriptions.count, 40);
    is_found("descriptions counted wrong", "the table counts 40");
    MUTATE(inode(small)->opens, 0);
    is_found("opens counted wrong", "counts 0 descriptions, and has 1");
}

Test(check, inodes)
{
    checking_every(0);
    MUTATE(h()->tables.inodes.count, 3);
    is_found("inodes counted wrong", "inodes, the store counts 3");
    MUTATE(h()->tree.files, 3);
    is_found("files counted wrong", "files, the store counts 3");
    MUTATE(inode(small)->mode, S_IFLNK | 0640);
    is_found("a mode that there is not", "neither file nor directory");
    MUTATE(inode(small)->ticket, h()->tickets.change + 5);
    is_found("a ticket that was not given", "has ticket");
    MUTATE(h()->tables.inodes.free, small);
    is_found("a free inode in use", "the list of free inodes");
    MUTATE(h()->tables.inodes.free, 5000);
    is_found("the free inodes lead out", "the list of free inodes leads to inode 5000, out of the table");
    MUTATE(inode(small)->flags, 0);
    is_found("an inode is lost", "is not in the list of free inodes");
}

Test(check, lists)
{
    checking_every(0);
    MUTATE(inode(dirty)->flags, inode(dirty)->flags & ~INODE_DIRTY);
    is_found("dirty without the flag", "is in the dirty list");
    MUTATE(h()->tickets.dirty.head, 0);
    is_found("the dirty list is lost", "is not in the dirty list");
    MUTATE(inode(dirty)->list.next, dirty);
    is_found("the dirty list is a circle", "is twice in the dirty list");
    MUTATE(inode(dirty)->list.prev, 1234);
    is_found("the dirty list one way only", "the dirty list does not agree both ways");
    MUTATE(h()->tickets.dirty_bytes, 1);
    is_found("dirty bytes counted wrong", "bytes of dirty data, the store counts 1");
    MUTATE(h()->tickets.dirty_files, 77);
    is_found("dirty files counted wrong", "dirty inodes, the store counts 77");
    MUTATE(inode(dirty)->dirty_from, 9);
    is_found("less than no dirty data", "has less than no dirty data");
    MUTATE(h()->residency.clean.tail, 0);
    MUTATE(h()->residency.cold.tail, 0);
    is_found("the clean list has no end", "list ends at inode");
    MUTATE(h()->residency.clean_files, 0);
    is_found("clean files counted wrong", "clean files, the store counts 0");
    MUTATE(h()->residency.evicted, 9);
    is_found("evicted files counted wrong", "evicted files, the store counts 9");
    MUTATE(h()->residency.spilled, 9);
    is_found("spilled files counted wrong", "spilled files, the store counts 9");
    MUTATE(inode(big)->flags, inode(big)->flags | INODE_WANTED);
    is_found("wanted and in memory", "is wanted, and not evicted");
    MUTATE(inode(big)->flags, inode(big)->flags | INODE_SPILLED);
    is_found("spilled and in memory", "is spilled, has flags");
    MUTATE(inode(lengthy)->flags, INODE_USED | INODE_EVICTED);
    MUTATE(inode(lengthy)->size, 0);
    is_found("evicted and empty", "is evicted, of 0 bytes");
    MUTATE(inode(big)->flags, inode(big)->flags | INODE_EVICTED | INODE_AHEAD);
    is_found("prefetched and forgotten", "is prefetched");
}

Test(check, names)
{
    checking_every(0);
    MUTATE(inode(linked)->links, 1);
    is_found("links counted wrong", "counts 1 links, and has 2");
    MUTATE(name_of(linked)->sibling, 0);
    is_found("a second name is lost", "is missing in its inode's list");
    MUTATE(name_of(small)->inode, big);
    is_found("a name of another inode", "which is of inode");
    MUTATE(name_of(small)->inode, 0);
    is_found("a name is free and in lists", "does not belong in");
    MUTATE(name_of(small)->parent, 1);
    is_found("a name of another directory", "doesn't fit the list of directory");
    MUTATE(name_of(small)->next, 0);
    is_found("a directory's list is cut", "is missing in its directory's list");
    MUTATE(name_of(big)->prev, 0);
    is_found("a directory's list one way only", "doesn't fit the list of directory");
    MUTATE(name_of(big)->born, 0);
    is_found("a birth out of order", "doesn't fit the list of directory");
    MUTATE(name_of(dirty)->born, UINT64_C(1) << 60);
    is_found("a birth that was not given", "has birth number");
    MUTATE(name_of(small)->text[0], 'S');
    is_found("a text in the wrong chain", "is not found where it is looked up");
    MUTATE(name_of(small)->text[0], '/');
    is_found("a name with a slash", "is none that a file can have");
    MUTATE(name_of(small)->length, 0);
    is_found("a name of no bytes", "is none that a file can have");
    MUTATE(name_of(lengthy)->more, 0);
    is_found("a long name is cut", "the rest of a long name leads to name 0");
    MUTATE(name_of(small)->more, name_of(lengthy)->more);
    is_found("a short name goes on", "goes on too long");
    MUTATE(h()->tables.names.free, 1);
    is_found("a free name in use", "does not belong in the list of free names");
    MUTATE(h()->tables.names.count, 2);
    is_found("names counted wrong", "names are in use, the table counts 2");
}

Test(check, directories)
{
    checking_every(0);
    MUTATE(inode(name_of(small)->parent)->dir.entries, 1);
    is_found("a directory counts wrong", "counts 1 names");
    MUTATE(inode(name_of(small)->parent)->dir.last, 0);
    is_found("a directory has no end", "and lists");
    MUTATE(inode(directory)->dir.parent, directory);
    is_found("a directory above itself", "does not lead up to the root");
}

Test(check, blocks)
{
    uint32_t block = inode(big)->map.direct[0];
    const struct chunk *chunk = chunk_at(fs, block / CHUNK_BLOCKS);

    checking_every(0);
    MUTATE(inode(small)->map.direct[0], inode(big)->map.direct[0]);
    is_found("a block of two files", "belongs to inode");
    MUTATE(inode(small)->map.direct[0], UINT32_MAX);
    is_found("a block out of the chunks", "out of the chunks");
    MUTATE(inode(small)->map.direct[0], inode(big)->map.direct[0] | 3 << PIECE_FIRST | 3 << PIECE_MISSING);
    is_found("a part of another file's block", "belongs to inode");
    MUTATE(chunk->free[0], chunk->free[0] | 1u << BLOCK_PARTS); /* the first part of block 1 */
    is_found("a part in use is free", "is free, not in quarantine, and reached 1 times");
    MUTATE(inode(small)->map.direct[0], block | 1 << PIECE_FIRST);
    is_found("a piece that ends behind its block", "out of the chunks");
    MUTATE(inode(small)->map.direct[0], block | 1 << 28);
    is_found("a piece of no kind", "out of the chunks");
    MUTATE(inode(big)->map.indirect, inode(big)->map.indirect | 1 << PIECE_MISSING);
    is_found("an index block that is not whole", "leads to index block");
    MUTATE(((const uint32_t *)piece_at(fs, inode(big)->map.indirect))[0],
           ((const uint32_t *)piece_at(fs, inode(big)->map.indirect))[0] | 1 << PIECE_MISSING);
    is_found("a block behind the direct ones that is not whole", "is not a whole one");
    MUTATE(inode(big)->map.direct[1], 0);
    is_found("a block is lost", "not free, not in quarantine, and reached 0 times");
    MUTATE(inode(big)->size, 5000);
    is_found("a block behind the end", "which ends at block 2, has block");
    MUTATE(inode(big)->map.indirect, 0);
    is_found("an index block is lost", "counts 32 parts of blocks, and has 16");
    MUTATE(inode(huge)->map.double_indirect, inode(big)->map.indirect);
    is_found("an index block of two files", "and to another");
    MUTATE(inode(big)->parts, 1);
    is_found("blocks counted wrong", "counts 1 parts of blocks");
    MUTATE(chunk->free[block % CHUNK_BLOCKS * BLOCK_PARTS / 64], UINT64_MAX);
    is_found("a block in use is free", "is free, not in quarantine, and reached 1 times");
}

Test(check, chunks)
{
    checking_every(0);
    MUTATE(chunk_at(fs, 0)->free_count, 1);
    is_found("free blocks counted wrong", "and counts 1, 0 and 0");
    MUTATE(chunk_at(fs, 0)->broken_count, 1);
    is_found("free parts counted wrong", "and counts ");
    MUTATE(chunk_at(fs, 0)->held_count, 1);
    is_found("held parts counted wrong", "and counts ");
    MUTATE(h()->blocks.broken.head, 900);
    is_found("a chunk with free parts that there is not",
             "chunk 899 doesn't belong in the list of those with free parts");
    MUTATE(h()->blocks.broken.tail, 900);
    is_found("the list of chunks with free parts ends elsewhere", "list of chunks with free parts ends at");
    MUTATE(chunk_at(fs, 0)->state, CHUNK_LEAVING);
    is_found("a chunk leaves with blocks in it", "and its chunk 0 is not present");
    MUTATE(chunk_at(fs, 0)->state, 5);
    is_found("a chunk in no state", "has the state 5");
    MUTATE(chunk_at(fs, 0)->held[3], 1);
    is_found("a quarantine that no list has", "and 1 held ones");
    MUTATE(h()->blocks.partial.head, 0);
    is_found("chunks with free blocks are lost", "list of chunks with free blocks ends at");
    MUTATE(h()->blocks.partial.tail, UINT32_MAX);
    is_found("the list ends where no chunk can be", "not at 4294967294");
    MUTATE(h()->blocks.partial.head, 900);
    is_found("a chunk that there is not", "chunk 899 doesn't belong");
    MUTATE(h()->blocks.chunks_held, 1);
    is_found("a chunk in the quarantine", "doesn't belong in the list of the quarantine");
    MUTATE(h()->blocks.chunks_absent, 1);
    is_found("a present chunk is absent", "doesn't belong in the list of absent ones");
    MUTATE(h()->blocks.used, 1);
    is_found("blocks in use counted wrong", "blocks in use, the store counts 1");
    MUTATE(h()->blocks.total, 1);
    is_found("blocks in all counted wrong", "blocks in all, the store counts 1");
    MUTATE(h()->blocks.held, 1);
    is_found("quarantine counted wrong", "blocks in quarantine, the store counts 1");
    MUTATE(h()->tables.memory_bytes, 1);
    is_found("memory counted wrong", "bytes of memory, the store counts 1");
}

/* All problems are told, not the first one. */
Test(check, finds_all)
{
    checking_every(0);
    MUTATE(inode(small)->opens, 0);
    MUTATE(inode(linked)->links, 1);
    MUTATE(h()->blocks.total, 1);
    cr_assert_eq(check(), 3);
    take_back();
}

/* ---- deaths ---- */

static int die_in_body(struct fastspool *store, void *argument)
{
    (void)argument;
    SET(store, inode(linked)->links, 7);
    SET(store, store->header->tree.files, 99);
    kill(getpid(), SIGKILL);
    return 0;
}

static void die(void)
{
    pid_t pid = fork();

    if (pid == 0) {
        change_run(fs, die_in_body, NULL);
        _exit(0);
    }
    cr_assert_eq(waitpid(pid, NULL, 0), pid);
    cr_assert_eq(h()->section.undo_count, 2);
}

/* A death is repaired; without the rollback, or with an undo entry less, it is found. */
Test(check, rollback)
{
    uint64_t files = h()->tree.files;

    die();
    must_be_well("after a death");
    checking_every(0);
    die();
    WRITABLE(h()->section.undo_count) = 0;
    cr_assert_gt(check(), 0);
    cr_assert(told("counts 7 links") && told("files, the store counts 99"));
    WRITABLE(h()->tree.files) = files;
    WRITABLE(inode(linked)->links) = 2;
    must_be_well("again");
    die();
    WRITABLE(h()->section.undo_count) = 1;
    cr_assert_eq(check(), 1);
    cr_assert(told("files, the store counts 99"));
}

/* Whatever stands in the segment, the check ends, and leaves it as it is. */
Test(check, nonsense)
{
    unsigned seed = 5;

    checking_every(0);
    for (int round = 0; round < 1500; round++) {
        static const uint64_t at[] = {INODES_AT,  NAMES_AT,  DESCRIPTIONS_AT,
                                      BUCKETS_AT, CHUNKS_AT, offsetof(struct header, tree)};
        const uint32_t *words = (const uint32_t *)(fs->base + at[(size_t)rand_r(&seed) % 6]);
        WRITABLE(words[rand_r(&seed) % (round % 2 ? 24 : 512)]) = (uint32_t)rand_r(&seed) << (rand_r(&seed) % 3);
        cr_assert_geq(check(), 0);
    }
    cr_assert_gt(findings->count, 0);
}
