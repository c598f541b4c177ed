/* SPDX-License-Identifier: MIT
 *
 * Every call that takes a path or a descriptor, on a file of the spool and on an ordinary one:
 *
 *      calls TABLE PLAIN SPOOL [view]
 *
 * Run it as root with the library, in a private namespace.  TABLE is docs/calls.md: what it says of a call must be
 * true, and each row that a program can reach by libc must have an act here.  PLAIN is a directory of a file system
 * with all calls.  "view": it waits for the view.
 *
 * An act is made on a new file in each place.  `served` means: the same result, and afterwards the same content, size,
 * mode and offset.  An errno means that one, and that nothing has changed.  After each act every placeholder is as
 * it was made, and the descriptor still works.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/vfs.h>
#include <sys/xattr.h>
#include <unistd.h>

#define TEXT "0123456789"

static int failures;

/* ---- the place of an act ---- */

static char directory[200];                /* where it is made */
static char file[250], new[250], sub[250]; /* a file, a name that is free, an empty directory */
static int fd, reading, naming, dirfd_;    /* of the file: O_RDWR, O_RDONLY, O_PATH; of `directory` */
static char name[32], short_name[32];      /* other names of fd: /proc/self/fd/N, /dev/fd/N */
static void *bad;                          /* memory that can't be used */
static char bytes[64];
static struct stat st;

static long closed(int number)
{
    if (number >= 0)
        close(number);
    return number < 0 ? -1 : 0;
}

static void set_up(const char *where)
{
    snprintf(directory, sizeof(directory), "%s", where);
    snprintf(file, sizeof(file), "%s/file", directory);
    snprintf(new, sizeof(new), "%s/new", directory);
    snprintf(sub, sizeof(sub), "%s/sub", directory);
    int made = open(file, O_RDWR | O_CREAT | O_EXCL, 0640);
    if (made < 0 || write(made, TEXT, 10) != 10 || mkdir(sub, 0755) < 0) {
        perror(file);
        exit(1);
    }
    close(made);
    fd = open(file, O_RDWR);
    reading = open(file, O_RDONLY);
    naming = open(file, O_PATH);
    dirfd_ = open(directory, O_RDONLY | O_DIRECTORY);
    lseek(fd, 3, SEEK_SET);
    lseek(reading, 3, SEEK_SET);
    snprintf(name, sizeof(name), "/proc/self/fd/%d", fd);
    snprintf(short_name, sizeof(short_name), "/dev/fd/%d", fd);
    memset(bytes, 0, sizeof(bytes));
}

/* What an act leaves behind, in words. */
static void describe(char *text, size_t size)
{
    char content[65] = "";
    struct stat now, at_name;
    ssize_t length = pread(fd, content, sizeof(content) - 1, 0);
    bool open_still = fstat(fd, &now) == 0;

    if (!open_still)
        memset(&now, 0, sizeof(now));
    snprintf(text, size, "%s size %ld mode %o owner %u:%u links %u offset %ld,%ld content \"%.*s\"%s%s%s",
             open_still ? "open" : "closed", (long)now.st_size, now.st_mode, now.st_uid, now.st_gid,
             (unsigned)now.st_nlink, (long)lseek(fd, 0, SEEK_CUR), (long)lseek(reading, 0, SEEK_CUR),
             length > 0 ? (int)length : 0, content, stat(file, &at_name) == 0 ? "" : ", no file",
             stat(new, &at_name) == 0 ? ", new" : "", stat(sub, &at_name) == 0 ? "" : ", no sub");
}

static void tear_down(void)
{
    close(fd);
    close(reading);
    close(naming);
    close(dirfd_);
    unlink(file);
    unlink(new);
    rmdir(new);
    rmdir(sub);
}

/* ---- the acts ---- */

static const struct act {
    const char *row, *text;
} acts[] = {
#define ACT(row, ...) {row, #__VA_ARGS__},
#include "calls.def"
#undef ACT
};
#define ACTS (sizeof(acts) / sizeof(*acts))

static long make(size_t which)
{
    size_t at = 0;

#define ACT(row, ...)  \
    if (which == at++) \
        return (long)(__VA_ARGS__);
#include "calls.def"
#undef ACT
    return -1;
}

/* ---- the table ---- */

/* A row: "| `read`, `pread` | 0, 17 | served | remark |".  The answer is "served" or errnos. */
static struct row {
    char calls[200], answer[40];
    bool seen, shown; /* has an act; one of its acts gave the errno */
} rows[400];
static int row_count;

static void read_table(const char *path)
{
    char line[1000];
    FILE *table = fopen(path, "r");

    while (table && fgets(line, sizeof(line), table)) {
        struct row *row = &rows[row_count];
        if (sscanf(line, "| %199[^|] |%*[^|]| %39[^ |] |", row->calls, row->answer) == 2 && row->calls[0] == '`')
            row_count++;
    }
    if (table)
        fclose(table);
}

static struct row *find_row(const char *call)
{
    char quoted[60];

    snprintf(quoted, sizeof(quoted), "`%s`", call);
    for (int i = 0; i < row_count; i++) {
        if (strstr(rows[i].calls, quoted))
            return &rows[i];
    }
    return NULL;
}

/* ---- an act in both places ---- */

struct outcome {
    long result;
    int error;
    char state[400];
};

static void try(const char *where, size_t which, struct outcome *outcome)
{
    set_up(where);
    errno = 0;
    outcome->result = make(which);
    outcome->error = outcome->result == -1 ? errno : 0;
    describe(outcome->state, sizeof(outcome->state));
    tear_down();
}

/* Is every placeholder as it was made? */
static const char *placeholder_harm(void)
{
    static char harm[360];
    char path[300];
    glob_t found;

    if (glob("/dev/shm/fastspool.*/p??", 0, NULL, &found) != 0 || found.gl_pathc < 64)
        return "some are missing";
    harm[0] = '\0';
    for (size_t i = 0; i < found.gl_pathc; i++) {
        snprintf(path, sizeof(path), "%s", found.gl_pathv[i]);
        if (stat(path, &st) < 0 || (st.st_mode & 07777) != 0700 || st.st_uid != 0 || listxattr(path, NULL, 0) > 0)
            snprintf(harm, sizeof(harm), "%s has mode %o, owner %u", path, st.st_mode & 07777, st.st_uid);
    }
    globfree(&found);
    return harm[0] ? harm : NULL;
}

static const char *error_name(int error)
{
    return error ? strerrorname_np(error) : "success";
}

static void compare(size_t which, const char *plain, const char *spool)
{
    struct row *row = find_row(acts[which].row);
    struct outcome want, got;

    try(plain, which, &want);
    try(spool, which, &got);
    const char *harm = placeholder_harm();
    bool same = want.result == got.result && want.error == got.error && strcmp(want.state, got.state) == 0;
    bool refused = row && strcmp(row->answer, error_name(got.error)) == 0;
    if (row) {
        row->seen = true;
        row->shown = row->shown || refused || strcmp(row->answer, "served") == 0;
    }
    if (row && (same || refused) && !harm)
        return;
    failures++;
    printf("not ok - %s: %s\n    ordinary: %ld %s, %s\n    spool:    %ld %s, %s\n", acts[which].row, acts[which].text,
           want.result, error_name(want.error), want.state, got.result, error_name(got.error), got.state);
    if (!row)
        printf("    the table has no row of it\n");
    if (harm)
        printf("    placeholder: %s\n", harm);
}

static bool view_comes(const char *spool)
{
    char line[1000], wanted[400];

    snprintf(wanted, sizeof(wanted), " %s fuse.fastspool ", spool);
    for (int i = 0; i < 500; i++, usleep(10000)) {
        FILE *mounts = fopen("/proc/self/mounts", "r");
        bool found = false;
        while (mounts && fgets(line, sizeof(line), mounts))
            found = found || strstr(line, wanted);
        if (mounts)
            fclose(mounts);
        if (found)
            return true;
    }
    return false;
}

int main(int argc, char **argv)
{
    char spool[220];

    if (argc < 4)
        return 2;
    umask(0);
    read_table(argv[1]);
    snprintf(spool, sizeof(spool), "%s/input", argv[3]);
    mkdir(spool, 0755);
    if (argc > 4 && !view_comes(spool))
        return 77;
    bad = mmap(NULL, 3 * 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    bad = (char *)bad + 4096;
    mprotect((char *)bad - 4096, 4096, PROT_READ | PROT_WRITE);
    for (size_t i = 0; i < ACTS; i++)
        compare(i, argv[2], spool);
    for (int i = 0; i < row_count; i++) {
        if (rows[i].shown)
            continue;
        failures++;
        printf("not ok - the table's row %s: %s\n", rows[i].calls,
               rows[i].seen ? "no act gives this errno" : "has no act in calls.def");
    }
    printf("%zu acts, %d rows, %d failures\n", ACTS, row_count, failures);
    return failures != 0 || row_count < 10;
}
