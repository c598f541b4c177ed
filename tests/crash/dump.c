/* SPDX-License-Identifier: MIT
 *
 * The tree as the public calls show it, as text, so that two states can be compared and a difference read.
 *
 * The happy path: each directory is listed a few names at a time, each name looked at by its path, each file read to
 * its end.  Failure modes: what fails is written into the text with its errno, where the file's line would be; a
 * listing that does not end is cut.
 */
#include "dump.h"

#include "fastspool.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define OLD     1577836800 /* 2020: test scenes date their files before, the clock is behind */
#define ENDLESS 100000     /* names of a directory that no test makes */

static void write_content(struct fastspool *fs, const char *path, FILE *out)
{
    static char buffer[65536];
    uint64_t hash = UINT64_C(0xcbf29ce484222325);
    int d = fastspool_open(fs, path, O_RDONLY, 0);
    ssize_t got = d;

    while (d >= 0 && (got = fastspool_read(fs, d, buffer, sizeof(buffer))) > 0) {
        for (ssize_t i = 0; i < got; i++)
            hash = (hash ^ (unsigned char)buffer[i]) * UINT64_C(0x100000001b3);
    }
    if (d >= 0)
        fastspool_close(fs, d);
    if (got < 0)
        fprintf(out, " unreadable (%s)", strerrorname_np(-(int)got));
    else
        fprintf(out, " %016llx", (unsigned long long)hash);
}

static void write_directory(struct fastspool *fs, const char *path, FILE *out);

static void write_file(struct fastspool *fs, const char *path, const struct fastspool_entry *entry, FILE *out)
{
    struct stat st;
    int result = fastspool_stat(fs, path, &st);

    fprintf(out, "%s:", path);
    if (result < 0) {
        fprintf(out, " %s\n", strerrorname_np(-result));
        return;
    }
    fprintf(out, " %o %u:%u links %u size %lld atime %s mtime %s", st.st_mode, st.st_uid, st.st_gid,
            (unsigned)st.st_nlink, (long long)st.st_size, st.st_atime < OLD ? "old" : "new",
            st.st_mtime < OLD ? "old" : "new");
    if (entry && (st.st_ino != entry->inode || (entry->type == 4) != S_ISDIR(st.st_mode)))
        fprintf(out, " listed as another");
    if (S_ISREG(st.st_mode))
        write_content(fs, path, out);
    fputc('\n', out);
    if (S_ISDIR(st.st_mode))
        write_directory(fs, path, out);
}

static void write_directory(struct fastspool *fs, const char *path, FILE *out)
{
    struct fastspool_entry entries[8];
    int d = fastspool_open(fs, path, O_RDONLY | O_DIRECTORY, 0);
    uint64_t after = 0;
    ssize_t got = d, names = 0;

    while (d >= 0 && names < ENDLESS && (got = fastspool_list(fs, d, after, entries, 8)) > 0) {
        for (ssize_t i = 0; i < got; i++) {
            char below[4096];
            snprintf(below, sizeof(below), "%.3800s/%s", path, entries[i].name);
            write_file(fs, below, &entries[i], out);
        }
        after = entries[got - 1].position;
        names += got;
    }
    if (d >= 0)
        fastspool_close(fs, d);
    if (got < 0 || names >= ENDLESS)
        fprintf(out, "%s: the listing does not work (%zd)\n", path, got);
}

char *dump_text(struct fastspool *fs, const char *path)
{
    char *text = NULL;
    size_t size;
    FILE *out = open_memstream(&text, &size);

    if (!out)
        abort();
    write_file(fs, path, NULL, out);
    fclose(out);
    return text;
}
