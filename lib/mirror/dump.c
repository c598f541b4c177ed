/* SPDX-License-Identifier: MIT
 *
 * Dumps of the disk: the journal and the database as text.
 *
 * The happy path: journal and database hold the same values, which are decoded here for both.
 *
 * Failure modes: what can't be decoded is shown as such, with its size.  The database is read in a child of its own: a
 * damaged page can kill whoever reads it, and all up to there has been shown then.  The mail user may have written its
 * pages, so the child has his rights and no terminal, and what it says is looked through.
 */
#include "mirror/dump.h"

#include "base/error.h"
#include "base/escape.h"
#include "base/places.h"
#include "base/rights.h"
#include "mirror/database_view.h"
#include "mirror/format.h"
#include "mirror/journal_scan.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* ---- values ---- */

void dump_time(uint64_t time, FILE *out)
{
    time_t seconds = (time_t)(time / 1000000000);
    char text[32];
    struct tm tm;

    strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%S", gmtime_r(&seconds, &tm));
    fprintf(out, "%s.%09uZ", text, (unsigned)(time % 1000000000));
}

/* The value of an inode, with its names: the rest of a line, and a line a name. */
static void dump_inode(const void *value, size_t size, FILE *out)
{
    char text[ESCAPE_ROOM(UINT8_MAX)];
    struct format_names names;
    struct format_name name;
    struct disk_inode disk;
    int result;

    if (format_decode_inode(value, size, &disk, &names) < 0) {
        fprintf(out, " %zu bytes that make no sense\n", size);
        return;
    }
    fprintf(out, " %s mode %04o owner %u:%u size %llu generation %u mtime ", S_ISDIR(disk.mode) ? "directory" : "file",
            disk.mode & 07777, disk.uid, disk.gid, (unsigned long long)disk.size, disk.generation);
    dump_time(disk.mtime, out);
    fputc('\n', out);
    while ((result = format_next_name(&names, &name)) > 0)
        fprintf(out, "    name \"%s\" in directory %u\n", escape_bytes(text, sizeof(text), name.text, name.length),
                name.parent);
    if (result < 0)
        fprintf(out, "    %zu bytes of names that make no sense\n", (size_t)(names.end - names.at));
}

void dump_bytes(const void *bytes, size_t size, bool bodies, FILE *out)
{
    const char *at = bytes, *end = at + size;

    fprintf(out, " %zu bytes, checksum %08x\n", size, format_crc(FORMAT_CRC, bytes, size));
    while (bodies && at < end) {
        const char *newline = memchr(at, '\n', (size_t)(end - at));
        size_t length = newline ? (size_t)(newline - at) : (size_t)(end - at);
        fputs("    | ", out);
        for (size_t done = 0; done < length; done += 64) {
            char text[ESCAPE_ROOM(64)];
            fputs(escape_bytes(text, sizeof(text), at + done, length - done < 64 ? length - done : 64), out);
        }
        fputs(newline ? "\n" : " (no newline)\n", out);
        at += length + (newline != NULL);
    }
}

/* ---- the journal ---- */

struct dump {
    FILE *out;
    bool bodies;
};

static void dump_record(const struct dump *dump, const struct record *record, const void *value)
{
    static const char *const kinds[] = {
        [RECORD_INODE] = "inode", [RECORD_GONE] = "gone", [RECORD_SLICE] = "slice", [RECORD_HOLE] = "hole"};

    fprintf(dump->out, "  %s %u", kinds[record->kind], record->inode);
    if (record->kind == RECORD_SLICE || record->kind == RECORD_HOLE)
        fprintf(dump->out, ", number %u:", record->slice);
    if (record->kind == RECORD_INODE)
        dump_inode(value, record->size, dump->out);
    else if (record->kind == RECORD_SLICE)
        dump_bytes(value, record->size, dump->bodies, dump->out);
    else
        fputc('\n', dump->out);
}

static int dump_batch(void *context, const struct journal_batch *batch)
{
    const struct dump *dump = context;
    const char *at = batch->records, *end = batch->records + batch->size;
    struct record record;
    const void *value;
    int result;

    fprintf(dump->out, "batch %llu in file %04u at byte %llu, behind batch %llu, %zu bytes, root %u\n",
            (unsigned long long)batch->number, batch->file, (unsigned long long)batch->offset,
            (unsigned long long)batch->previous, batch->size, batch->root);
    while ((result = format_next(&at, end, &record, &value)) > 0)
        dump_record(dump, &record, value);
    if (result < 0)
        fprintf(dump->out, "  %zu bytes that make no sense\n", (size_t)(end - at));
    return 0;
}

static void dump_end(void *context, const struct journal_scanned *scanned)
{
    const struct dump *dump = context;
    const struct journal_listed *file = scanned->file;

    fprintf(dump->out, "file %04u of %llu bytes", file->name, (unsigned long long)file->size);
    if (file->reason != JOURNAL_WHOLE) {
        fprintf(dump->out, " is no file of batches: %s\n", journal_scan_reason(file->reason));
        return;
    }
    fprintf(dump->out, ", from batch %llu on, follows batch %llu, salt %016llx: %llu whole batches; at byte %llu: %s\n",
            (unsigned long long)file->head.first, (unsigned long long)file->head.follows,
            (unsigned long long)file->head.salt, (unsigned long long)scanned->batches,
            (unsigned long long)scanned->read.offset, journal_scan_reason(scanned->read.reason));
    if (scanned->counted.offset != scanned->read.offset)
        fprintf(dump->out, "  from byte %llu on: %s\n", (unsigned long long)scanned->counted.offset,
                journal_scan_reason(scanned->counted.reason));
}

int dump_journal(const char *state, bool bodies, FILE *out)
{
    struct dump dump = {out, bodies};
    const struct journal_scan scan = {.upto = UINT64_MAX, .visit = dump_batch, .ended = dump_end, .context = &dump};
    struct journal_found found;
    char path[PLACES_PATH_MAX];

    places_in_state(state, PLACES_JOURNAL, path);
    int directory = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (directory < 0)
        return -errno;
    int result = journal_scan(directory, &scan, &found);
    close(directory);
    if (result < 0)
        return result;
    fprintf(out, "%llu batches count, %llu bytes, the last one is %llu, the highest number anywhere %llu\n",
            (unsigned long long)found.batches, (unsigned long long)found.bytes, (unsigned long long)found.last,
            (unsigned long long)found.highest);
    if (found.missing)
        fprintf(out, "in %llu place%s batches are missing, the first behind batch %llu, file %04u, byte %llu: %s\n",
                (unsigned long long)found.missing, found.missing == 1 ? "" : "s", (unsigned long long)found.hole_after,
                found.hole.file, (unsigned long long)found.hole.offset, journal_scan_reason(found.hole.reason));
    return 0;
}

/* ---- the database ---- */

static void dump_entry(const struct dump *dump, bool data, const MDB_val *key, const MDB_val *value)
{
    uint32_t inode, slice;

    if (data ? format_parse_slice_key(key->mv_data, key->mv_size, &inode, &slice) < 0
             : format_parse_inode_key(key->mv_data, key->mv_size, &inode) < 0) {
        char text[ESCAPE_ROOM(64)];
        fprintf(dump->out, "  a key that makes no sense: \"%s\"\n",
                escape_bytes(text, sizeof(text), key->mv_data, key->mv_size < 64 ? key->mv_size : 64));
        return;
    }
    if (data) {
        fprintf(dump->out, "slice %u, number %u:", inode, slice);
        dump_bytes(value->mv_data, value->mv_size, dump->bodies, dump->out);
    } else {
        fprintf(dump->out, "inode %u", inode);
        dump_inode(value->mv_data, value->mv_size, dump->out);
    }
}

static int dump_table(const struct dump *dump, const struct database_view *view, MDB_dbi table, bool data)
{
    MDB_cursor *cursor;
    MDB_val key, value;
    int code = mdb_cursor_open(view->transaction, table, &cursor);

    while (code == 0 && !ferror(dump->out) && (code = mdb_cursor_get(cursor, &key, &value, MDB_NEXT)) == 0)
        dump_entry(dump, data, &key, &value);
    int result = ferror(dump->out) ? -errno : 0;
    if (result < 0 || code == MDB_NOTFOUND) {
        mdb_cursor_close(cursor);
        return result;
    }
    fprintf(dump->out, "the table can't be read on: %s\n", mdb_strerror(code));
    return -EBADMSG;
}

static int dump_view(const struct dump *dump, const char *path)
{
    struct database_view view;
    char why[ERROR_MAX];
    int result = database_view_open(&view, path, false, why);

    if (result < 0) {
        fprintf(dump->out, "%s\n", why);
        return result;
    }
    fprintf(dump->out, "database up to batch %llu, root %llu, LMDB's transaction %llu\n",
            (unsigned long long)view.meta.batch, (unsigned long long)view.meta.root, (unsigned long long)view.number);
    result = dump_table(dump, &view, view.database.inodes, false);
    if (result == 0)
        result = dump_table(dump, &view, view.database.data, true);
    if (!database_view_whole(&view))
        fprintf(dump->out, "the mirror has made checkpoints meanwhile: what is shown may be of two instants\n");
    database_view_close(&view);
    return result;
}

/* Everything that the child writes, which the mail user may have led astray: of its bytes those that a dump has. */
static void pass_on(int from, FILE *out)
{
    char bytes[BUFSIZ];
    ssize_t got;

    while ((got = read(from, bytes, sizeof(bytes))) > 0 || (got < 0 && errno == EINTR)) {
        for (ssize_t i = 0; i < got; i++)
            putc((bytes[i] >= ' ' && bytes[i] <= '~') || bytes[i] == '\n' ? bytes[i] : '?', out);
    }
}

static void dump_in_child(struct dump dump, const char *path, pid_t parent, int out)
{
    int result = rights_confine(parent, out);

    if (result == 0) {
        dump.out = fdopen(STDOUT_FILENO, "w");
        result = dump.out ? 0 : -ENOMEM;
    }
    if (result == 0) {
        setvbuf(dump.out, NULL, _IOLBF, BUFSIZ); /* all lines before the page that kills */
        result = dump_view(&dump, path);
        result = fflush(dump.out) != 0 ? -errno : result;
    }
    _exit(-result);
}

int dump_database(const char *state, bool bodies, FILE *out)
{
    char path[PLACES_PATH_MAX];
    int status, ends[2];

    places_in_state(state, PLACES_DATABASE, path);
    fflush(out);
    if (pipe2(ends, O_CLOEXEC) < 0)
        return -errno;
    pid_t parent = getpid(), child = fork();
    if (child == 0)
        dump_in_child((struct dump){.bodies = bodies}, path, parent, ends[1]);
    close(ends[1]);
    if (child > 0)
        pass_on(ends[0], out);
    close(ends[0]);
    if (child < 0 || waitpid(child, &status, 0) != child)
        return -errno;
    if (WIFSIGNALED(status))
        fprintf(out, "a page is damaged: whoever reads it dies of signal %d (%s)\n", WTERMSIG(status),
                strsignal(WTERMSIG(status)));
    return WIFEXITED(status) ? -WEXITSTATUS(status) : -EBADMSG;
}
