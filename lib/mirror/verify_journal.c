/* SPDX-License-Identifier: MIT
 *
 * The verification of the journal: every batch that a recovery would read, and why each file ends where it does.
 *
 * The happy path: the files are scanned, each record of each batch is decoded, and every file ends in zeros or in what
 * an earlier use of it left.
 *
 * Failure modes.  A batch that can't be read is damage, or a write that a power cut tore; the latter nobody was
 * promised.  It is damage
 *   - where a later batch names one before it that is missing;
 *   - where memory knows that a later one was durable;
 *   - where the file goes on with whole batches of the same use behind it: the mirror writes one only when those before
 *     it are durable.
 * Where none of that is so, and no memory can tell, the sentence says that it may be either.
 */
#include "base/findings.h"
#include "base/places.h"
#include "mirror/format.h"
#include "mirror/journal_scan.h"
#include "mirror/verify.h"
#include "mirror/verify_inside.h"
#include "store/layout.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct look {
    int directory;
    struct findings *findings;
    uint64_t files, records;
    uint32_t root;
    uint64_t told; /* of file number - 1: its end has been told already */
};

/* ---- batches ---- */

static void ignore_name(void *context, uint32_t parent, const char *text, size_t length)
{
    (void)context;
    (void)parent;
    (void)text;
    (void)length;
}

static void check_record(struct look *look, const char *where, const struct record *record, const void *value)
{
    struct disk_inode disk;

    look->records++;
    if (record->kind == RECORD_INODE)
        verify_value(where, record->inode, value, record->size, &disk, ignore_name, NULL, look->findings);
    else if (record->kind == RECORD_SLICE ? record->size == 0 || record->size > SLICE_SIZE : record->size != 0)
        findings_add(look->findings, "%s: a record of kind %u of inode %u, slice %u, has %u bytes", where, record->kind,
                     record->inode, record->slice, record->size);
}

static int check_batch(void *context, const struct journal_batch *batch)
{
    struct look *look = context;
    const char *at = batch->records, *end = batch->records + batch->size;
    struct record record;
    const void *value;
    char where[96];
    int result;

    snprintf(where, sizeof(where), "journal: file %04u, byte %llu, batch %llu", batch->file,
             (unsigned long long)batch->offset, (unsigned long long)batch->number);
    while ((result = format_next(&at, end, &record, &value)) > 0)
        check_record(look, where, &record, value);
    if (result < 0)
        findings_add(look->findings, "%s: the record %zu bytes from its end makes no sense", where, (size_t)(end - at));
    if (batch->root == 0 || batch->root >= INODES_MAX || (look->root && batch->root != look->root))
        findings_add(look->findings, "%s: the spool's directory is inode %u, and was inode %u before", where,
                     batch->root, look->root);
    look->root = batch->root;
    return 0;
}

/* ---- the ends of files ---- */

/* The first block from @offset on that is no hole of the file: a sparse file may be as long as it likes. */
static uint64_t next_data(int fd, uint64_t offset)
{
    off_t data = lseek(fd, (off_t)offset, SEEK_DATA);

    return data >= 0 ? (uint64_t)data / FORMAT_BLOCK * FORMAT_BLOCK : errno == ENXIO ? INT64_MAX : offset;
}

/* The first whole head of a batch of this use of the file behind @offset; 0: there is none. */
static uint64_t find_batch(const struct look *look, const struct journal_listed *file, uint64_t offset,
                           uint64_t *number)
{
    char name[PLACES_NAME_MAX], block[FORMAT_BLOCK];
    struct batch_head head;
    uint64_t found = 0;
    ssize_t got;

    places_journal_file(file->name, name);
    int fd = openat(look->directory, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0)
        return 0;
    for (offset = next_data(fd, offset + FORMAT_BLOCK);
         !found && offset < INT64_MAX && (got = pread(fd, block, sizeof(block), (off_t)offset)) > 0;
         offset = next_data(fd, offset + FORMAT_BLOCK)) {
        if (format_batch_head(block, (size_t)got, file->head.salt, file->size, &head) == JOURNAL_WHOLE)
            found = offset;
    }
    close(fd);
    *number = found ? head.number : 0;
    return found;
}

static bool is_normal(enum journal_reason reason)
{
    return reason == JOURNAL_FILE_END || reason == JOURNAL_ZEROS || reason == JOURNAL_MAGIC || reason == JOURNAL_SALT ||
           reason == JOURNAL_FOLLOWS || reason == JOURNAL_HELD || reason == JOURNAL_GONE;
}

static void check_file(void *context, const struct journal_scanned *scanned)
{
    struct look *look = context;
    const struct journal_listed *file = scanned->file;
    const struct journal_end *end = &scanned->read;
    uint64_t number;

    look->files++;
    if (file->reason != JOURNAL_WHOLE) {
        if (journal_scan_is_foreign(file) || (file->reason == JOURNAL_CUT_SHORT && file->size > 0))
            findings_add(look->findings, "journal: file %04u, %llu bytes, has no head that can be read: %s", file->name,
                         (unsigned long long)file->size, journal_scan_reason(file->reason));
        return;
    }
    if (end->reason == JOURNAL_HELD || end->reason == JOURNAL_GONE)
        return;
    uint64_t behind = find_batch(look, file, end->offset, &number);
    if (!behind)
        return;
    findings_add(look->findings, "journal: file %04u, byte %llu: %s; and batch %llu is whole behind it, at byte %llu",
                 file->name, (unsigned long long)end->offset, journal_scan_reason(end->reason),
                 (unsigned long long)number, (unsigned long long)behind);
    look->told = (uint64_t)file->name + 1;
}

/* ---- the chain ---- */

static void check_chain(struct look *look, const struct verify_known *known, const struct journal_found *found)
{
    uint64_t durable = known->durable;
    const struct journal_end *end = &found->end, *hole = &found->hole;

    if (found->detached && known->database)
        findings_add(look->findings,
                     "journal: it begins behind a batch that the database, which ends with batch %llu, does not hold: "
                     "a file is missing, or database and journal are of different times",
                     (unsigned long long)known->above);
    else if (found->detached)
        findings_add(look->findings,
                     "journal: its first batches are missing, and there is no database that holds them");
    if (found->missing)
        findings_add(
            look->findings,
            "journal: batches are missing in %llu place%s, the first behind batch %llu, where file %04u ends at "
            "byte %llu: %s",
            (unsigned long long)found->missing, found->missing == 1 ? "" : "s", (unsigned long long)found->hole_after,
            hole->file, (unsigned long long)hole->offset, journal_scan_reason(hole->reason));
    if (found->last < durable) {
        if (end->offset)
            findings_add(
                look->findings,
                "journal: batch %llu was durable, and reading ends with batch %llu, in file %04u at byte %llu: "
                "%s",
                (unsigned long long)durable, (unsigned long long)found->last, end->file,
                (unsigned long long)end->offset, journal_scan_reason(end->reason));
        else
            findings_add(look->findings, "journal: batch %llu was durable, and neither a file nor the database has it",
                         (unsigned long long)durable);
    } else if (durable == 0 && end->offset && !is_normal(end->reason) && look->told != (uint64_t)end->file + 1) {
        findings_add(look->findings,
                     "journal: file %04u, byte %llu: %s.  A power cut leaves that of a batch that nobody was promised; "
                     "without one it is damage",
                     end->file, (unsigned long long)end->offset, journal_scan_reason(end->reason));
    }
}

int verify_journal(int directory, const struct verify_known *known, struct verified *verified,
                   struct findings *findings)
{
    struct look look = {.directory = directory, .findings = findings};
    const struct journal_scan scan = {
        .above = known->above, .upto = UINT64_MAX, .visit = check_batch, .ended = check_file, .context = &look};
    struct journal_found found = {.last = known->above};
    int result = directory < 0 ? 0 : journal_scan(directory, &scan, &found);

    if (result < 0) {
        findings_add(findings, "journal: it can't be read: %s", strerrordesc_np(-result));
        return result;
    }
    verified->files = look.files;
    verified->records = look.records;
    verified->batches = found.batches;
    verified->last = found.last;
    check_chain(&look, known, &found);
    return 0;
}
