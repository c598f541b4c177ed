/* SPDX-License-Identifier: MIT
 *
 * Names: from a directory and a name to an inode, and from a directory to all its names.
 *
 * The happy path: every name is an entry of one table, and in three lists: the chain of its hash bucket (lookup), the
 * names of its directory in order of birth (listing), and the names of its inode (commit).  The hash is linear: an
 * insertion that makes more names than buckets splits one bucket.  So a lookup costs the same among ten names and a
 * million, and no insertion rehashes the table.
 *
 * A lookup costs mostly page faults: names lie scattered, and each process of Exim touches each page for the first
 * time.  So a chain link carries a filter of the names behind it (CHAIN_FILTER), and most misses end at the bucket.  A
 * removal may leave bits that stand for no name.  A split computes the filters of its names anew.
 *
 * Failure modes:
 *   - Every index is checked before it is followed, and no walk takes more steps than there are names.
 *   - Under the lock, a list that leads nowhere means a damaged segment.
 *   - A name that no file can have stays in the segment (names_read()).
 */
#include "store/names.h"

#include "base/clock.h"
#include "base/filename.h"
#include "store/change.h"
#include "store/doubt.h"
#include "store/inodes.h"
#include "store/layout.h"
#include "store/section.h"
#include "store/store.h"
#include "store/table.h"

#include <errno.h>
#include <limits.h>
#include <string.h>

/* The mirror has the pages of all names mapped, so it splits buckets ahead of the insertions: until there are this many
 * more than names.  That costs a quarter of a byte of memory a name. */
#define AHEAD_SHARE 16u
#define AHEAD_LEAST 1024u
#define SPLIT_STEP  64 /* buckets that one section splits: each changes some six words */

uint32_t names_most(const struct fastspool *fs)
{
    uint32_t used = LOAD(fs->header->tables.names.used), mapped = LOAD(fs->span.names);
    return used < mapped ? used : mapped;
}

/* ---- hashing ---- */

static uint64_t hash_word(uint64_t hash, uint64_t word)
{
    hash = (hash ^ word) * UINT64_C(0xff51afd7ed558ccd);
    return hash ^ hash >> 32;
}

static inline uint64_t word_at(const char *text)
{
    uint64_t word;

    memcpy(&word, text, sizeof(word));
    return word;
}

/* The last @size bytes of a name, 1 to 7, by loads that overlap: a memcpy of them would be a call. */
static inline uint64_t last_word(const char *text, size_t size)
{
    const unsigned char *bytes = (const unsigned char *)text;
    uint32_t first, last;

    if (size < sizeof(first))
        return bytes[0] | (uint64_t)bytes[size / 2] << 8 * (size / 2) | (uint64_t)bytes[size - 1] << 8 * (size - 1);
    memcpy(&first, text, sizeof(first));
    memcpy(&last, text + size - sizeof(last), sizeof(last));
    return first | (uint64_t)last << 8 * (size - sizeof(last));
}

static inline uint64_t hash_text(const struct fastspool *fs, uint32_t parent, const char *text, size_t length)
{
    uint64_t hash = fs->header->hash_seed ^ (parent * UINT64_C(0x9e3779b97f4a7c15));
    size_t rest = length;

    for (; rest >= sizeof(uint64_t); text += sizeof(uint64_t), rest -= sizeof(uint64_t))
        hash = hash_word(hash, word_at(text));
    if (rest > 0)
        hash = hash_word(hash, last_word(text, rest));
    hash = (hash ^ length) * UINT64_C(0xc4ceb9fe1a85ec53);
    return hash ^ hash >> 29;
}

uint64_t names_hash(const struct fastspool *fs, uint32_t parent, const char *text, size_t length)
{
    return hash_text(fs, parent, text, length);
}

/* The largest power of two that is at most @buckets. */
static uint32_t hash_level(uint32_t buckets)
{
    return buckets ? UINT32_C(1) << (31 - __builtin_clz(buckets)) : 1;
}

static inline uint32_t hash_bucket(uint64_t hash, uint32_t buckets)
{
    const uint32_t mask = UINT32_MAX >> __builtin_clz(buckets | 1); /* twice the level - 1 */
    const uint32_t bucket = (uint32_t)hash & mask;

    return bucket < buckets ? bucket : bucket & mask >> 1;
}

/* The bit of a name in the filters of the links that lead to it. */
static uint32_t filter_bit(uint64_t hash)
{
    return NAMES_MAX << (hash >> 61);
}

/* The link to an entry whose own link is @rest. */
static uint32_t chain_link(uint32_t entry, uint64_t hash, uint32_t rest)
{
    return entry | filter_bit(hash) | (rest & CHAIN_FILTER);
}

/* ---- the text of a name ---- */

int names_text(const struct fastspool *fs, uint32_t entry, char *text)
{
    const struct name *name = name_at(fs, entry);
    size_t length = LOAD(name->length);
    size_t done = length < NAME_INLINE ? length : NAME_INLINE;
    uint32_t more = name->more;

    memcpy(text, name->text, done);
    while (done < length && names_valid(fs, more)) {
        const struct name_more *rest = (const struct name_more *)name_at(fs, more);
        size_t part = length - done < NAME_MORE ? length - done : NAME_MORE;
        memcpy(text + done, rest->text, part);
        done += part;
        more = rest->more;
    }
    text[done] = '\0';
    return (int)done;
}

int names_read(const struct fastspool *fs, uint32_t entry, char *text)
{
    uint8_t said = LOAD(name_at(fs, entry)->length);
    int length = names_text(fs, entry, text);

    return length == said && filename_possible(text, said) ? length : doubt("a name is none that a file can have");
}

uint32_t names_beside(const struct fastspool *fs, uint32_t entry, bool behind)
{
    uint32_t other = behind ? name_at(fs, entry)->next : name_at(fs, entry)->prev;
    return names_valid(fs, other) ? other : 0;
}

/* Has a long name this text?  (By itself: it needs memory.) */
static __attribute__((noinline)) bool same_long(const struct fastspool *fs, uint32_t entry, const char *text,
                                                size_t length)
{
    char whole[256];

    return (size_t)names_text(fs, entry, whole) == length && memcmp(whole, text, length) == 0;
}

/* Are @length bytes, which fit an entry, the same?  By loads that overlap: a memcmp would be a call. */
static inline bool same_bytes(const char *text, const char *other, size_t length)
{
    if (length < sizeof(uint64_t))
        return length == 0 || last_word(text, length) == last_word(other, length);
    const size_t last = length - sizeof(uint64_t);
    for (size_t at = 0; at < last; at += sizeof(uint64_t)) {
        if (word_at(text + at) != word_at(other + at))
            return false;
    }
    return word_at(text + last) == word_at(other + last);
}

static inline bool same_text(const struct fastspool *fs, uint32_t entry, const struct name *name, const char *text,
                             size_t length)
{
    if (name->length != length)
        return false;
    return length <= NAME_INLINE ? same_bytes(name->text, text, length) : same_long(fs, entry, text, length);
}

static uint64_t hash_entry(const struct fastspool *fs, uint32_t entry)
{
    char text[256];
    int length = names_text(fs, entry, text);

    return names_hash(fs, name_at(fs, entry)->parent, text, (size_t)length);
}

/* ---- looking up ---- */

int names_find(const struct fastspool *fs, uint32_t parent, const char *text, size_t length, uint64_t *hash,
               uint32_t *inode)
{
    const uint32_t buckets = LOAD(fs->header->tables.buckets), most = names_most(fs);
    const uint64_t sought = hash_text(fs, parent, text, length);

    *hash = sought;
    *inode = 0;
    if (buckets == 0 || buckets > LOAD(fs->header->tables.buckets_capacity))
        return 0; /* there was never a name */
    uint32_t link = LOAD(*bucket_at(fs, hash_bucket(sought, buckets)));
    for (uint32_t steps = 0; link & filter_bit(sought); steps++) {
        const uint32_t i = link & CHAIN_INDEX;
        if (i == 0 || i >= most || steps > most)
            return doubt("a hash chain of names has no end, or leads nowhere");
        const struct name *name = name_at(fs, i);
        if (name->parent == parent && same_text(fs, i, name, text, length)) {
            *inode = LOAD(name->inode);
            return (int)i;
        }
        link = LOAD(name->chain);
    }
    return 0;
}

/* ---- adding ---- */

static inline void give_entry(struct fastspool *fs, uint32_t i, const struct name *name)
{
    SET(fs, name->inode, 0);
    table_give(fs, TABLE_NAMES, i);
}

/* Store the part of a name that does not fit its entry in further entries, the last one first. */
static int add_rest(struct fastspool *fs, const char *text, size_t length, uint32_t *first)
{
    *first = 0;
    size_t parts = (length - NAME_INLINE + NAME_MORE - 1) / NAME_MORE;
    while (parts-- > 0) {
        size_t from = NAME_INLINE + parts * NAME_MORE;
        size_t size = length - from < NAME_MORE ? length - from : NAME_MORE;
        struct name_more rest = {.inode = NAME_CONTINUES, .more = *first};
        int result = table_take(fs, TABLE_NAMES, first);
        if (result < 0)
            return result;
        memcpy(rest.text, text + from, size);
        section_copy(fs, name_at(fs, *first), &rest, sizeof(rest));
    }
    return 0;
}

/* Split the next bucket in turn: distribute its names between it and a new bucket at the end. */
static __attribute__((noinline)) int split_bucket(struct fastspool *fs)
{
    const struct header *h = fs->header;
    uint32_t new = h->tables.buckets, chains[2] = {0, 0};

    if (new >= BUCKETS_MAX)
        return 0;
    if (new >= h->tables.buckets_capacity)
        return section_want(TABLE_BUCKETS);
    const uint32_t *old = bucket_at(fs, new - hash_level(new));
    SET(fs, h->tables.buckets, new + 1);
    /* A chain that leads back has an end here: its links are set anew on the way.  Where the undo log is full they
     * aren't, and the section fails. */
    for (uint32_t i = *old & CHAIN_INDEX, next, steps = 0; names_valid(fs, i) && steps < UNDO_MAX; i = next, steps++) {
        const struct name *name = name_at(fs, i);
        uint64_t hash = hash_entry(fs, i);
        uint32_t *chain = &chains[hash_bucket(hash, new + 1) == new];
        next = name->chain & CHAIN_INDEX;
        SET(fs, name->chain, *chain);
        *chain = chain_link(i, hash, *chain);
    }
    SET(fs, *old, chains[0]);
    SET(fs, *bucket_at(fs, new), chains[1]);
    return 0;
}

static int split_ahead(struct fastspool *fs, void *argument)
{
    const struct header *h = fs->header;
    uint64_t wanted = h->tables.names.count + (uint64_t)h->tables.names.count / AHEAD_SHARE + AHEAD_LEAST;
    int result = 0;

    (void)argument;
    if (wanted > BUCKETS_MAX)
        wanted = BUCKETS_MAX;
    for (int step = 0; step < SPLIT_STEP && result == 0 && h->tables.buckets < wanted; step++)
        result = split_bucket(fs);
    return result < 0 ? result : h->tables.buckets < wanted;
}

int names_split_ahead(struct fastspool *fs)
{
    int result;

    do
        result = change_run(fs, split_ahead, NULL);
    while (result > 0);
    return result == -ENOSPC ? 0 : result; /* no memory now: insertions will split */
}

/* The names of directory @i, which is @directory, have changed. */
static inline void touch_directory(struct fastspool *fs, uint32_t i, const struct inode *directory, uint64_t now)
{
    SET(fs, directory->mtime, now);
    SET(fs, directory->ctime, now);
    inodes_dirty(fs, i);
}

/* Room for one more name among the buckets. */
static inline int make_room(struct fastspool *fs)
{
    const struct header *h = fs->header;
    const uint32_t buckets = h->tables.buckets;

    if (buckets > h->tables.buckets_capacity)
        return section_want(TABLE_BUCKETS);
    return h->tables.names.count >= buckets ? split_bucket(fs) : 0;
}

/* A name of inode @i, whose next name is @sibling, behind the others of directory @parent, which is @directory.  Its
 * entry in *@entry. */
static inline int enter(struct fastspool *fs, uint32_t parent, const struct inode *directory, const char *text,
                        size_t length, uint64_t hash, uint32_t i, uint32_t sibling, uint32_t *entry)
{
    const struct header *h = fs->header;
    uint32_t new, rest = 0;
    int result = make_room(fs);

    if (result == 0 && length > NAME_INLINE)
        result = add_rest(fs, text, length, &rest);
    if (result == 0)
        result = table_take(fs, TABLE_NAMES, &new);
    if (result < 0)
        return result;
    const uint32_t *bucket = bucket_at(fs, hash_bucket(hash, h->tables.buckets));
    const uint32_t last = LOAD(directory->dir.last), chain = LOAD(*bucket);
    const uint64_t born = h->tree.born + 1;
    if (last && !names_valid(fs, last))
        return section_damaged(fs, "a directory's list of names leads nowhere");
    SET(fs, h->tree.born, born);
    struct name name = {.born = born,
                        .inode = i,
                        .parent = parent,
                        .chain = chain,
                        .prev = last,
                        .sibling = sibling,
                        .more = rest,
                        .length = (uint8_t)length};
    memcpy(name.text, text, length < NAME_INLINE ? length : NAME_INLINE);
    section_copy(fs, name_at(fs, new), &name, sizeof(name));
    SET(fs, *bucket, chain_link(new, hash, chain));
    if (last)
        SET(fs, name_at(fs, last)->next, new);
    SET_TWO(fs, directory->dir.first, last ? directory->dir.first : new, directory->dir.last, new);
    SET(fs, directory->dir.entries, directory->dir.entries + 1);
    *entry = new;
    return 0;
}

int names_add(struct fastspool *fs, uint32_t parent, const char *text, size_t length, uint64_t hash, uint32_t i)
{
    const struct inode *directory = inode_at(fs, parent), *inode = inode_at(fs, i);
    const uint64_t now = clock_realtime();
    uint32_t entry;
    int result = enter(fs, parent, directory, text, length, hash, i, LOAD(inode->names), &entry);

    if (result < 0)
        return result;
    SET(fs, inode->names, entry);
    SET(fs, inode->links, inode->links + 1);
    SET(fs, inode->ctime, now);
    if (S_ISDIR(inode->mode)) {
        SET(fs, inode->dir.parent, parent);
        SET(fs, directory->links, directory->links + 1);
    }
    inodes_dirty(fs, i);
    touch_directory(fs, parent, directory, now);
    return 0;
}

/* ---- removing ---- */

/* The link to entry @i in the singly linked list that goes on at *@link, which leads to another entry.  NULL: there is
 * none.  (By itself: mostly the list starts with the entry.) */
static __attribute__((noinline)) const uint32_t *link_behind(const struct fastspool *fs, const uint32_t *link,
                                                             uint32_t i, size_t next)
{
    const uint32_t most = names_most(fs);

    for (uint32_t steps = 0; steps <= most; steps++) {
        const uint32_t at = LOAD(*link) & CHAIN_INDEX;
        if (at == i)
            return link;
        if (!names_valid(fs, at))
            break;
        link = (const uint32_t *)((const char *)name_at(fs, at) + next);
    }
    section_damaged(fs, "a name is missing in one of its lists");
    return NULL;
}

/* The link to entry @i in the singly linked list that starts at *@link.  @next: offset of the link in struct name. (The
 * links of hash chains have a filter above the index, the others have zeros there.)  NULL: the section is damaged. */
static inline const uint32_t *link_to(const struct fastspool *fs, const uint32_t *link, uint32_t i, size_t next)
{
    return (LOAD(*link) & CHAIN_INDEX) == i ? link : link_behind(fs, link, i, next);
}

/* Take entry @i, between the names @prev and @next, 0: the end, out of the list of its directory. */
static inline int unlink_from_directory(struct fastspool *fs, const struct inode *directory, uint32_t i, uint32_t prev,
                                        uint32_t next)
{
    const uint32_t *ahead = prev ? &name_at(fs, prev)->next : &directory->dir.first;
    const uint32_t *behind = next ? &name_at(fs, next)->prev : &directory->dir.last;

    if ((prev && !names_valid(fs, prev)) || (next && !names_valid(fs, next)) || *ahead != i || *behind != i)
        return section_damaged(fs, "a directory's list of names does not agree both ways");
    SET(fs, *ahead, next);
    SET(fs, *behind, prev);
    SET(fs, directory->dir.entries, directory->dir.entries - 1);
    return 0;
}

/* Free the entries with the rest of a long name. */
static __attribute__((noinline)) int give_rest(struct fastspool *fs, const struct name *name)
{
    uint32_t parts = name->length > NAME_INLINE ? (name->length - NAME_INLINE + NAME_MORE - 1) / NAME_MORE : 0;

    for (uint32_t more = name->more, next; more || parts > 0; more = next, parts--) {
        if (parts == 0 || !names_valid(fs, more) || name_at(fs, more)->inode != NAME_CONTINUES)
            return section_damaged(fs, "the rest of a long name has no end, or leads nowhere");
        next = ((const struct name_more *)name_at(fs, more))->more;
        give_entry(fs, more, name_at(fs, more));
    }
    return 0;
}

const uint64_t *names_successor(const struct name *name)
{
    return (const uint64_t *)((const char *)name + offsetof(struct name, text) / 8 * 8 + 8);
}

/* Take name @entry, which is @name, out of its chain and of its directory, which is @directory, and free it. */
static inline int leave(struct fastspool *fs, uint32_t entry, const struct name *name, uint64_t hash,
                        const struct inode *directory)
{
    const uint32_t prev = LOAD(name->prev), next = LOAD(name->next);
    const uint32_t *bucket = bucket_at(fs, hash_bucket(hash, fs->header->tables.buckets));
    const uint32_t *link = link_to(fs, bucket, entry, offsetof(struct name, chain));
    int result = link ? unlink_from_directory(fs, directory, entry, prev, next) : -EIO;

    if (result < 0)
        return result;
    SET(fs, *link, name->chain);
    result = name->more || name->length > NAME_INLINE ? give_rest(fs, name) : 0;
    if (result < 0)
        return result;
    const uint64_t *successor = names_successor(name);
    SET(fs, *successor, next ? name_at(fs, next)->born : 0);
    give_entry(fs, entry, name);
    return 0;
}

int names_remove(struct fastspool *fs, uint32_t entry, uint64_t hash)
{
    const struct name *name = name_at(fs, entry);
    const uint32_t parent = LOAD(name->parent), i = LOAD(name->inode);
    const struct inode *directory = inode_in_use(fs, parent), *inode = inode_in_use(fs, i);

    if (!inode || !directory || !S_ISDIR(directory->mode))
        return section_damaged(fs, "a name leads to no file");
    const uint64_t now = clock_realtime();
    const uint32_t *link = link_to(fs, &inode->names, entry, offsetof(struct name, sibling));
    int result = link ? leave(fs, entry, name, hash, directory) : -EIO;
    if (result < 0)
        return result;
    SET(fs, *link, name->sibling);
    SET(fs, inode->links, inode->links - 1);
    SET(fs, inode->ctime, now);
    if (S_ISDIR(inode->mode))
        SET(fs, directory->links, directory->links - 1);
    inodes_dirty(fs, i);
    touch_directory(fs, parent, directory, now);
    return 0;
}

int names_move(struct fastspool *fs, uint32_t entry, uint64_t hash, uint32_t parent, const char *text, size_t length,
               uint64_t new_hash)
{
    const struct name *name = name_at(fs, entry);
    const uint32_t before = LOAD(name->parent), i = LOAD(name->inode);
    const struct inode *from = inode_in_use(fs, before), *to = inode_at(fs, parent), *inode = inode_in_use(fs, i);
    uint32_t new;

    if (!inode || !from || !S_ISDIR(from->mode))
        return section_damaged(fs, "a name leads to no file");
    const uint64_t now = clock_realtime();
    const uint32_t *link = link_to(fs, &inode->names, entry, offsetof(struct name, sibling));
    int result = link ? enter(fs, parent, to, text, length, new_hash, i, LOAD(name->sibling), &new) : -EIO;
    if (result == 0)
        result = leave(fs, entry, name, hash, from);
    if (result < 0)
        return result;
    SET(fs, *link, new);
    SET(fs, inode->ctime, now);
    if (S_ISDIR(inode->mode) && from != to) {
        SET(fs, inode->dir.parent, parent);
        SET(fs, to->links, to->links + 1);
        SET(fs, from->links, from->links - 1);
    }
    inodes_dirty(fs, i);
    touch_directory(fs, parent, to, now);
    if (from != to)
        touch_directory(fs, before, from, now);
    return 0;
}

int names_replace(struct fastspool *fs, uint32_t entry, uint32_t i)
{
    const struct name *name = name_at(fs, entry);
    const uint64_t now = clock_realtime();
    uint32_t old = name->inode;

    if (!inode_valid(fs, old) || !inode_valid(fs, name->parent))
        return section_damaged(fs, "a name leads to no file");
    const uint32_t *link = link_to(fs, &inode_at(fs, old)->names, entry, offsetof(struct name, sibling));
    if (!link)
        return -EIO;
    SET(fs, *link, name->sibling);
    SET(fs, inode_at(fs, old)->links, inode_at(fs, old)->links - 1);
    SET(fs, inode_at(fs, old)->ctime, now);
    SET(fs, name->sibling, inode_at(fs, i)->names);
    SET(fs, name->inode, i);
    SET(fs, inode_at(fs, i)->names, entry);
    SET(fs, inode_at(fs, i)->links, inode_at(fs, i)->links + 1);
    SET(fs, inode_at(fs, i)->ctime, now);
    if (S_ISDIR(inode_at(fs, i)->mode))
        SET(fs, inode_at(fs, i)->dir.parent, name->parent);
    inodes_dirty(fs, old);
    inodes_dirty(fs, i);
    touch_directory(fs, name->parent, inode_at(fs, name->parent), now);
    return 0;
}
