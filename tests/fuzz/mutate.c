/* SPDX-License-Identifier: MIT
 *
 * Mutations: what a user who can write the segment may write there.
 *
 * The happy path: a table is chosen, an entry of it that is in use, and a word of that entry.  The new value is one
 * that hurts: an end of a table, the entry itself, a number next to the old one, a size that no file has, a bit more or
 * less, or anything.  All links, counts, sizes, offsets, states, flags and sequences are words, so each of them gets
 * each of these.  The lock's word is one of them; sometimes it gets the id of a thread that lives.
 */
#include "mutate.h"

#include "../random.h"
#include "store/layout.h"

#include <linux/futex.h>
#include <string.h>
#include <unistd.h>

uint64_t dice_roll(struct dice *dice)
{
    return random_next(&dice->state);
}

uint64_t dice_below(struct dice *dice, uint64_t sides)
{
    return sides ? dice_roll(dice) % sides : 0;
}

/* ---- values ---- */

/* A value in the place of @old, in entry @self of a table that has handed out @used of @most entries. */
static uint64_t value(struct dice *dice, uint64_t old, uint64_t self, uint64_t used, uint64_t most)
{
    const uint64_t values[] = {0,
                               1,
                               2,
                               3,
                               self,
                               self + 1,
                               used,
                               used - 1,
                               dice_below(dice, used),
                               dice_below(dice, used),
                               most,
                               most - 1,
                               old + 1,
                               old - 1,
                               old + 4096,
                               old ^ UINT64_C(1) << dice_below(dice, 32),
                               old ^ UINT64_C(1) << dice_below(dice, 64),
                               old & ~(UINT64_C(1) << dice_below(dice, 32)),
                               UINT32_MAX,
                               UINT64_MAX,
                               INT32_MAX,
                               UINT64_C(1) << 31,
                               UINT64_C(1) << 62,
                               UINT64_C(1) << 63,
                               UINT64_C(1) << dice_below(dice, 64),
                               dice_roll(dice),
                               dice_roll(dice) & UINT16_MAX};

    return values[dice_below(dice, sizeof(values) / sizeof(*values))];
}

static void change_word(char *at, struct dice *dice, uint64_t self, uint64_t used, uint64_t most)
{
    uint64_t old = 0, new;
    size_t size = dice_below(dice, 4) ? 4 : (uintptr_t)at % 8 ? 2 : 8;

    memcpy(&old, at, size);
    new = value(dice, old, self, used, most);
    memcpy(at, &new, size);
}

/* ---- places ---- */

struct place {
    uint64_t at;
    size_t size;
    uint64_t used;
    uint64_t most;
};

static uint64_t bounded(uint64_t used, uint64_t most)
{
    return used < 1 ? 1 : used > most ? most : used;
}

static void change_entry(char *base, struct dice *dice, struct place place)
{
    uint64_t i = dice_below(dice, place.used);
    char *entry = base + place.at + i * place.size;

    change_word(entry + dice_below(dice, place.size / 4) * 4, dice, i, place.used, place.most);
}

static void change_header(char *base, struct dice *dice)
{
    const struct header *h = (const struct header *)base;
    static const size_t first = offsetof(struct header, state), end = offsetof(struct header, undo);

    change_word(base + first + dice_below(dice, (end - first) / 4) * 4, dice, 1, h->tables.inodes.used, INODES_MAX);
}

/* A holder of the lock: one that may be this process, its parent or any other, or none. */
static void change_lock(char *base, struct dice *dice)
{
    struct header *h = (struct header *)base;
    const uint32_t threads[] = {1, (uint32_t)getpid(), (uint32_t)getppid(), 1 + (uint32_t)dice_below(dice, 100),
                                (uint32_t)dice_roll(dice) & FUTEX_TID_MASK};
    const uint32_t bits[] = {0, FUTEX_WAITERS, FUTEX_OWNER_DIED, FUTEX_WAITERS | FUTEX_OWNER_DIED};

    h->section.lock = threads[dice_below(dice, sizeof(threads) / sizeof(*threads))] |
                      bits[dice_below(dice, sizeof(bits) / sizeof(*bits))];
}

/* What a process would leave that dies in a section. */
static void change_undo(char *base, struct dice *dice)
{
    struct header *h = (struct header *)base;
    uint64_t count = dice_below(dice, 8) ? dice_below(dice, 20) : dice_roll(dice);

    for (uint64_t i = 0; i < 20; i++)
        h->undo[i] = (struct undo){value(dice, h->undo[i].offset, HEADER_SIZE, NAMES_AT, SEGMENT_SIZE) &
                                       ~(uint64_t)(dice_below(dice, 8) ? 7 : 0),
                                   dice_roll(dice)};
    h->section.undo_count = (uint32_t)count;
    if (dice_below(dice, 2))
        h->section.sequence |= 1;
}

static void change_text(char *base, struct dice *dice, uint64_t used)
{
    static const char *const texts[] = {"../../../../etc/x", "..", ".", "a/b", "/", "\033[31m\r\n", "\001\002"};
    const char *text = texts[dice_below(dice, sizeof(texts) / sizeof(*texts))];
    struct name *name = (struct name *)(base + NAMES_AT) + dice_below(dice, used);

    memcpy(name->text, text, strlen(text) + 1);
    name->length = (uint8_t)(dice_below(dice, 2) ? strlen(text) : dice_roll(dice));
}

/* A word of a block: of an index block, with luck. */
static void change_block(char *base, struct dice *dice)
{
    uint64_t blocks = bounded(((struct header *)base)->blocks.used, 200);
    char *block = base + DATA_AT + dice_below(dice, blocks + 1) * BLOCK_SIZE;

    change_word(block + dice_below(dice, 32) * 4, dice, 1, blocks, CHUNKS_MAX * CHUNK_BLOCKS);
}

void mutate_segment(char *base, struct dice *dice)
{
    const struct tables_state *t = &((const struct header *)base)->tables;
    uint64_t inodes = bounded(t->inodes.used, 400), names = bounded(t->names.used, 400);

    switch (dice_below(dice, 17)) {
    case 0:
    case 1:
    case 2:
        change_header(base, dice);
        break;
    case 3:
        change_undo(base, dice);
        break;
    case 4:
    case 5:
    case 6:
    case 7:
        change_entry(base, dice, (struct place){INODES_AT, sizeof(struct inode), inodes, INODES_MAX});
        break;
    case 8:
    case 9:
    case 10:
        change_entry(base, dice, (struct place){NAMES_AT, sizeof(struct name), names, NAMES_MAX});
        break;
    case 11:
        change_text(base, dice, names);
        break;
    case 12:
        change_entry(base, dice,
                     (struct place){DESCRIPTIONS_AT, sizeof(struct description), bounded(t->descriptions.used, 100),
                                    DESCRIPTIONS_MAX});
        break;
    case 13:
        change_entry(base, dice, (struct place){CHUNKS_AT, sizeof(struct chunk), 4, CHUNKS_MAX});
        break;
    case 14:
        change_entry(base, dice, (struct place){BUCKETS_AT, sizeof(uint32_t), bounded(t->buckets, 4096), NAMES_MAX});
        break;
    case 15:
        change_lock(base, dice);
        break;
    default:
        change_block(base, dice);
    }
}

/* ---- files ---- */

size_t mutate_bytes(char *bytes, size_t size, struct dice *dice)
{
    size_t at = dice_below(dice, size), length = 1 + dice_below(dice, 1 + dice_below(dice, 8192)), other;

    if (size < 16)
        return size;
    if (dice_below(dice, 2)) /* near the start of a page there is more to hurt */
        at = at / 4096 * 4096 + dice_below(dice, 128);
    at = at > size - 8 ? size - 8 : at;
    length = length < size - at ? length : size - at;
    switch (dice_below(dice, 7)) {
    case 0:
        bytes[at] ^= (char)(1 << dice_below(dice, 8));
        break;
    case 1:
    case 2:
        change_word(bytes + at / 8 * 8, dice, at / 4096, size / 4096, size);
        break;
    case 3:
        memset(bytes + at, 0, length);
        break;
    case 4:
        while (length > 0)
            bytes[at + --length] = (char)dice_roll(dice);
        break;
    case 5: /* another page in its place */
        other = dice_below(dice, size / 4096) * 4096;
        at = at / 4096 * 4096;
        if (at + 4096 <= size && other + 4096 <= size)
            memmove(bytes + at, bytes + other, 4096);
        break;
    default:
        return dice_below(dice, 4) ? size : at;
    }
    return size;
}
