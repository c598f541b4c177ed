/* SPDX-License-Identifier: MIT
 *
 * Encoding and decoding of what lies on the disk.
 *
 * The happy path: a batch has for each captured inode its record, then the slices that its dirty blocks reach, whole,
 * straight from the segment.  Slices are the database's, not the store's blocks, so a dirty block touches one or two of
 * them: that is why a capture has a block more at each side.
 *
 * Failure modes: the sink's error ends the encoding.  Decoding trusts nothing: what leaves its value or is out of range
 * is -EBADMSG.
 */
#include "mirror/format.h"

#include "base/filename.h"
#include "base/unconst.h"
#include "mirror/capture.h"
#include "store/layout.h"
#include "store/store.h"

#include <arpa/inet.h>
#include <errno.h>
#include <isa-l/crc.h>
#include <string.h>

static size_t padded(size_t size)
{
    return (size + 7) / 8 * 8;
}

uint32_t format_slices(uint64_t size)
{
    return (uint32_t)((size + SLICE_SIZE - 1) / SLICE_SIZE);
}

/* ---- the slices of a captured file ---- */

struct span {
    uint32_t from, to; /* slices [from, to) */
};

static struct span dirty_slices(const struct inode *inode)
{
    uint32_t slices = format_slices(inode->size);
    struct span span = {(uint32_t)((uint64_t)inode->dirty_from * BLOCK_SIZE / SLICE_SIZE),
                        (uint32_t)(((uint64_t)inode->dirty_to * BLOCK_SIZE + SLICE_SIZE - 1) / SLICE_SIZE)};

    if (!S_ISREG(inode->mode) || inode->dirty_from == inode->dirty_to)
        return (struct span){0, 0};
    if (span.to > slices)
        span.to = slices;
    return span;
}

/* The piece that is the block with byte @offset of a captured file, 0: a hole. */
static uint32_t piece_of(const struct captured *file, uint64_t offset)
{
    uint32_t index = (uint32_t)(offset / BLOCK_SIZE) - file->first;
    return index < file->count ? file->pieces[index] : 0;
}

/* The record of one slice: a hole where no block lies under it.  (A slice is smaller than a block: it reaches two.) */
static struct record slice_record(const struct captured *file, uint32_t slice)
{
    uint64_t offset = (uint64_t)slice * SLICE_SIZE, left = file->state.size - offset;
    uint32_t size = left < SLICE_SIZE ? (uint32_t)left : SLICE_SIZE;
    bool hole = !piece_of(file, offset) && !piece_of(file, offset + size - 1);

    return (struct record){hole ? RECORD_HOLE : RECORD_SLICE, file->inode, slice, hole ? 0 : size};
}

static uint32_t names_size(const struct captured *file)
{
    size_t size = 0;

    for (size_t i = 0; i < file->names; i++)
        size += sizeof(struct disk_name) + file->name[i].length;
    return (uint32_t)size;
}

static uint64_t file_size(const struct captured *file)
{
    uint64_t size = sizeof(struct record);
    struct span span = dirty_slices(&file->state);

    if (file->state.links == 0)
        return size;
    size += padded(sizeof(struct disk_inode) + names_size(file));
    for (uint32_t slice = span.from; slice < span.to; slice++)
        size += sizeof(struct record) + padded(slice_record(file, slice).size);
    return size;
}

uint64_t format_size(const struct capture *capture)
{
    uint64_t size = 0;

    for (size_t i = 0; i < capture->count; i++)
        size += file_size(&capture->file[i]);
    return size;
}

/* ---- encoding ---- */

static int pad(format_sink *sink, void *context, size_t size)
{
    static const char zeros[8];
    return padded(size) == size ? 0 : sink(context, zeros, padded(size) - size);
}

static int encode_inode(const struct captured *file, format_sink *sink, void *context)
{
    const struct inode *inode = &file->state;
    const struct disk_inode disk = {
        inode->generation, inode->mode,           inode->uid, inode->gid, inode->size, inode->atime, inode->mtime,
        inode->ctime,      (uint32_t)file->names, 0};
    const struct record record = {RECORD_INODE, file->inode, 0, (uint32_t)sizeof(disk) + names_size(file)};
    int result = sink(context, &record, sizeof(record));

    if (result == 0)
        result = sink(context, &disk, sizeof(disk));
    for (size_t i = 0; result == 0 && i < file->names; i++) {
        const struct disk_name name = {.parent = file->name[i].parent, .length = file->name[i].length};
        result = sink(context, &name, sizeof(name));
        if (result == 0)
            result = sink(context, file->name[i].text, name.length);
    }
    return result ? result : pad(sink, context, record.size);
}

static int encode_slice(struct fastspool *fs, const struct captured *file, uint32_t slice, format_sink *sink,
                        void *context)
{
    static const char zeros[BLOCK_SIZE];
    const struct record record = slice_record(file, slice);
    uint64_t offset = (uint64_t)slice * SLICE_SIZE;
    int result = sink(context, &record, sizeof(record));

    for (uint32_t done = 0; result == 0 && done < record.size;) {
        uint32_t from = (uint32_t)((offset + done) % BLOCK_SIZE);
        uint32_t piece = piece_of(file, offset + done), room = piece ? piece_size(piece) : 0;
        uint32_t to = from < room ? room : BLOCK_SIZE; /* behind the piece are zeros */
        uint32_t part = record.size - done < to - from ? record.size - done : to - from;
        result = sink(context, from < room ? piece_at(fs, piece) + from : zeros, part);
        done += part;
    }
    return result ? result : pad(sink, context, record.size);
}

int format_encode(struct fastspool *fs, const struct capture *capture, format_sink *sink, void *context)
{
    int result = 0;

    for (size_t i = 0; result == 0 && i < capture->count; i++) {
        const struct captured *file = &capture->file[i];
        const struct record gone = {RECORD_GONE, file->inode, 0, 0};
        struct span span = dirty_slices(&file->state);
        if (file->state.links == 0) {
            result = sink(context, &gone, sizeof(gone));
            continue;
        }
        result = encode_inode(file, sink, context);
        for (uint32_t slice = span.from; result == 0 && slice < span.to; slice++)
            result = encode_slice(fs, file, slice, sink, context);
    }
    return result;
}

/* ---- reading ---- */

int format_next(const char **at, const char *end, struct record *record, const void **value)
{
    size_t left = (size_t)(end - *at);

    if (left == 0)
        return 0;
    if (left < sizeof(*record))
        return -EBADMSG;
    memcpy(record, *at, sizeof(*record));
    if (record->kind < RECORD_INODE || record->kind > RECORD_HOLE || record->inode == 0 ||
        record->inode >= INODES_MAX || padded(record->size) > left - sizeof(*record))
        return -EBADMSG;
    *value = *at + sizeof(*record);
    *at += sizeof(*record) + padded(record->size);
    return 1;
}

/* ---- the database ---- */

static const char meta_key[] = "store";

static struct format_key key_of(const uint32_t *numbers, size_t count)
{
    struct format_key key = {.size = count * sizeof(uint32_t)};

    for (size_t i = 0; i < count; i++) {
        uint32_t number = htonl(numbers[i]);
        memcpy(key.bytes + i * sizeof(number), &number, sizeof(number));
    }
    return key;
}

struct format_key format_inode_key(uint32_t inode)
{
    return key_of(&inode, 1);
}

struct format_key format_slice_key(uint32_t inode, uint32_t slice)
{
    const uint32_t numbers[2] = {inode, slice};

    return key_of(numbers, 2);
}

struct format_key format_meta_key(void)
{
    struct format_key key = {.size = sizeof(meta_key)};

    _Static_assert(sizeof(meta_key) <= sizeof(key.bytes), "the key fits");
    memcpy(key.bytes, meta_key, sizeof(meta_key));
    return key;
}

static uint32_t number_at(const void *bytes, size_t i)
{
    uint32_t number;

    memcpy(&number, (const char *)bytes + i * sizeof(number), sizeof(number));
    return ntohl(number);
}

static int parse(const void *bytes, size_t size, size_t expected, uint32_t *inode)
{
    if (size != expected)
        return -EBADMSG;
    *inode = number_at(bytes, 0);
    return *inode > 0 && *inode < INODES_MAX ? 0 : -EBADMSG;
}

int format_parse_inode_key(const void *bytes, size_t size, uint32_t *inode)
{
    return parse(bytes, size, sizeof(uint32_t), inode);
}

int format_parse_slice_key(const void *bytes, size_t size, uint32_t *inode, uint32_t *slice)
{
    int result = parse(bytes, size, 2 * sizeof(uint32_t), inode);

    if (result == 0)
        *slice = number_at(bytes, 1);
    return result;
}

int format_decode_inode(const void *value, size_t size, struct disk_inode *disk, struct format_names *names)
{
    const char *bytes = value;

    if (size < sizeof(*disk))
        return -EBADMSG;
    memcpy(disk, bytes, sizeof(*disk));
    if ((!S_ISREG(disk->mode) && !S_ISDIR(disk->mode)) || disk->mode > UINT16_MAX || disk->size > FILE_SIZE_MAX ||
        disk->uid == (uid_t)-1 || disk->gid == (gid_t)-1 || (S_ISDIR(disk->mode) && disk->names > 1))
        return -EBADMSG;
    if (names)
        *names = (struct format_names){bytes + sizeof(*disk), bytes + size, disk->names};
    return 0;
}

int format_next_name(struct format_names *names, struct format_name *name)
{
    struct disk_name disk;

    if (names->left == 0)
        return 0;
    if ((size_t)(names->end - names->at) < sizeof(disk))
        return -EBADMSG;
    memcpy(&disk, names->at, sizeof(disk));
    const char *text = names->at + sizeof(disk);
    if (disk.length > (size_t)(names->end - text) || !filename_possible(text, disk.length))
        return -EBADMSG;
    *name = (struct format_name){disk.parent, text, disk.length};
    names->at = text + disk.length;
    names->left--;
    return 1;
}

int format_decode_meta(const void *value, size_t size, struct disk_meta *meta)
{
    if (size != sizeof(*meta))
        return -EBADMSG;
    memcpy(meta, value, sizeof(*meta));
    return meta->format == DATABASE_FORMAT ? 0 : -EBADMSG;
}

/* ---- the journal's files ---- */

#define HEAD_MAGIC  UINT64_C(0x314c4e524a505346) /* "FSPJRNL1" */
#define BATCH_MAGIC UINT64_C(0x3148435441425346) /* "FSBATCH1" */
#define TAIL_MAGIC  UINT64_C(0x31444e4554414246) /* "FBATEND1" */

#define CRC_PIECE (1u << 20) /* bytes of one call: the library takes an int */

uint32_t format_crc(uint32_t crc, const void *bytes, size_t size)
{
    const char *from = bytes;

    for (size_t done = 0; done < size; done += CRC_PIECE)
        crc = crc32_iscsi((unsigned char *)UNCONST(from + done),
                          (int)(size - done < CRC_PIECE ? size - done : CRC_PIECE), crc);
    return crc;
}

void format_seal_file_head(struct journal_head *head)
{
    head->magic = HEAD_MAGIC;
    head->crc = format_crc(FORMAT_CRC, head, offsetof(struct journal_head, crc));
}

void format_seal_batch_head(struct batch_head *head)
{
    head->magic = BATCH_MAGIC;
    head->crc = format_crc(FORMAT_CRC, head, offsetof(struct batch_head, crc));
}

struct batch_tail format_batch_tail(uint64_t number, uint32_t crc)
{
    return (struct batch_tail){.magic = TAIL_MAGIC, .number = number, .crc = crc};
}

uint64_t format_batch_space(uint64_t payload)
{
    uint64_t size = sizeof(struct batch_head) + payload + sizeof(struct batch_tail);
    return (size + FORMAT_BLOCK - 1) / FORMAT_BLOCK * FORMAT_BLOCK;
}

/* What is there instead of a head. */
static enum journal_reason other_than_head(const char *block, size_t got)
{
    for (size_t i = 0; i < got; i++) {
        if (block[i])
            return JOURNAL_MAGIC;
    }
    return JOURNAL_ZEROS;
}

enum journal_reason format_file_head(const char *block, size_t got, struct journal_head *head)
{
    if (got < sizeof(*head))
        return JOURNAL_CUT_SHORT;
    memcpy(head, block, sizeof(*head));
    if (head->magic != HEAD_MAGIC)
        return other_than_head(block, got);
    return head->crc == format_crc(FORMAT_CRC, head, offsetof(struct journal_head, crc)) ? JOURNAL_WHOLE
                                                                                         : JOURNAL_HEAD_CHECKSUM;
}

enum journal_reason format_batch_head(const char *block, size_t got, uint64_t salt, uint64_t room,
                                      struct batch_head *head)
{
    if (got < sizeof(*head))
        return JOURNAL_CUT_SHORT;
    memcpy(head, block, sizeof(*head));
    if (head->magic != BATCH_MAGIC)
        return other_than_head(block, got);
    if (head->salt != salt)
        return JOURNAL_SALT;
    if (head->crc != format_crc(FORMAT_CRC, head, offsetof(struct batch_head, crc)))
        return JOURNAL_HEAD_CHECKSUM;
    return head->size > room ? JOURNAL_TOO_LARGE : JOURNAL_WHOLE;
}

enum journal_reason format_batch_body(const struct batch_head *head, const char *body)
{
    struct batch_tail tail;

    memcpy(&tail, body + head->size, sizeof(tail));
    if (tail.magic != TAIL_MAGIC || tail.number != head->number)
        return JOURNAL_TAIL;
    if (tail.crc != format_crc(FORMAT_CRC, body, head->size))
        return JOURNAL_PAYLOAD_CHECKSUM;
    return JOURNAL_WHOLE;
}
