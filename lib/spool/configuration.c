/* SPDX-License-Identifier: MIT
 *
 * Configuration: /etc/fastspool.conf, lines of `key = value`, and the environment.
 *
 * The happy path: defaults; then the file, if there is one; then FASTSPOOL_*, if the caller allows the environment.
 * This runs inside other programs, some of them set-user-ID.  So it uses neither malloc nor stdio streams.  Without the
 * environment it believes only a file that root owns and root alone can write.
 *
 * Failure modes: -EINVAL, and one sentence that names the file and the line.  No value is guessed.  But the rest is
 * read, and a file that can't be trusted, too, for the spools and programs that it names: whoever asks must not take
 * those for ordinary directories and programs.
 */
#include "spool/configuration.h"

#include "base/cgroup.h"
#include "base/clock.h"
#include "base/error.h"
#include "config.h"
#include "fastspool.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define FILE_MAX 16384 /* bytes of a configuration file */
#define GROWS    1024  /* by so much while it is read */

#define BYTE_ORDER_MARK "\xef\xbb\xbf" /* some editors write it before the first line */

/* The source of a value, for the error sentence: "/etc/fastspool.conf:3" or "FASTSPOOL_MEMORY". */
struct origin {
    const char *file;
    int line; /* 0: an environment variable */
    char *error;
};

static int refuse(const struct origin *origin, const char *what, const char *value)
{
    return origin->line
               ? error_set(origin->error, -EINVAL, "%s:%d: %s `%.100s`", origin->file, origin->line, what, value)
               : error_set(origin->error, -EINVAL, "%s: %s `%.100s`", origin->file, what, value);
}

/* ---- letters: whatever the program's language is ---- */

static char upper(char letter)
{
    return letter >= 'a' && letter <= 'z' ? (char)(letter - 'a' + 'A') : letter;
}

static bool is_space(char letter)
{
    return letter == ' ' || (letter >= '\t' && letter <= '\r');
}

/* ---- values ---- */

/* The limit of memory in this file of a control group; "max": none. */
static bool take_less(const char *directory, const char *name, uint64_t *least)
{
    char path[strlen(directory) + 1 + strlen(name) + 1], text[32];

    strcpy(stpcpy(stpcpy(path, directory), "/"), name); /* printf(3) would be most of the look */
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t size = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
    if (fd >= 0)
        close(fd);
    text[size > 0 ? size : 0] = '\0';
    uint64_t limit = strtoull(text, NULL, 10);
    if (limit > 0 && limit < *least)
        *least = limit;
    return size >= 0;
}

static int take_groups_limit(const char *directory, void *least)
{
    if (!take_less(directory, "memory.max", least)) /* version 2 */
        take_less(directory, "memory.limit_in_bytes", least);
    return 0;
}

/* The machine's memory, or what the control groups of this process leave it of that. */
static uint64_t memory_there_is(void)
{
    long pages = sysconf(_SC_PHYS_PAGES), size = sysconf(_SC_PAGESIZE);
    uint64_t memory = pages > 0 && size > 0 ? (uint64_t)pages * (uint64_t)size : UINT64_C(1) << 30;

    cgroup_any_above("memory", take_groups_limit, &memory);
    return memory;
}

/* "512M", "2G", or "25%" of the memory that there is. */
static int parse_memory(const char *text, uint64_t *bytes)
{
    static const char units[] = "KMGT";
    char *end;

    errno = 0;
    unsigned long long number = strtoull(text, &end, 10);
    if (end == text || *text == '-' || errno)
        return -1;
    if (strcmp(end, "%") == 0) {
        if (number < 1 || number > 100)
            return -1;
        *bytes = memory_there_is() / 100 * number;
        return 0;
    }
    const char *unit = *end ? strchr(units, upper(*end)) : NULL;
    unsigned shift = unit ? 10 * (unsigned)(unit - units + 1) : 0;
    if ((*end && (!unit || end[1])) || number > UINT64_MAX >> shift || number == 0)
        return -1;
    *bytes = (uint64_t)number << shift;
    return 0;
}

/* "100ms", "1s", "500us". */
static int parse_duration(const char *text, uint64_t *nanoseconds)
{
    static const struct {
        const char *unit;
        uint64_t factor;
    } units[] = {{"us", NS_PER_US}, {"ms", NS_PER_MS}, {"s", NS_PER_S}};
    char *end;

    errno = 0;
    unsigned long long number = strtoull(text, &end, 10);
    if (end == text || *text == '-' || errno)
        return -1;
    for (size_t i = 0; i < sizeof(units) / sizeof(*units); i++) {
        if (strcmp(end, units[i].unit) == 0 && number > 0 && number <= 3600 * NS_PER_S / units[i].factor) {
            *nanoseconds = number * units[i].factor;
            return 0;
        }
    }
    return -1;
}

const char *fastspool_durability_name(enum fastspool_durability durability)
{
    static const char *const names[] = {"acked", "lazy", "strict"};
    return (unsigned)durability < sizeof(names) / sizeof(*names) ? names[durability] : "unknown";
}

static int parse_durability(const char *text, enum fastspool_durability *durability)
{
    for (int d = FASTSPOOL_ACKED; d <= FASTSPOOL_STRICT; d++) {
        if (strcmp(text, fastspool_durability_name((enum fastspool_durability)d)) == 0) {
            *durability = (enum fastspool_durability)d;
            return 0;
        }
    }
    return -1;
}

static int parse_view(const char *text, bool *view)
{
    *view = strcmp(text, "auto") == 0;
    return *view || strcmp(text, "off") == 0 ? 0 : -1;
}

static int parse_path(const char *text, char path[FASTSPOOL_PATH_MAX])
{
    size_t length = strlen(text);

    while (length > 1 && text[length - 1] == '/')
        length--;
    if (text[0] != '/' || length >= FASTSPOOL_PATH_MAX)
        return -1;
    memcpy(path, text, length);
    path[length] = '\0';
    return 0;
}

/* ---- keys ---- */

static int add_path(const struct origin *origin, const char *value, char (*paths)[FASTSPOOL_PATH_MAX], size_t *count,
                    size_t most)
{
    if (*count == most)
        return refuse(origin, "too many values for this key; remove", value);
    if (parse_path(value, paths[*count]) < 0)
        return refuse(origin, "needs an absolute path of less than 256 bytes, not", value);
    (*count)++;
    return 0;
}

/* The number in a line of /etc/passwd, "NAME:PASSWORD:NUMBER:...", if it is that of @name. */
static bool is_user(const char *line, const char *name, unsigned long *uid)
{
    size_t length = strlen(name);
    const char *password = line + length + 1, *number;
    char *end;

    if (length == 0 || strncmp(line, name, length) != 0 || line[length] != ':' || !(number = strchr(password, ':')))
        return false;
    *uid = strtoull(number + 1, &end, 10);
    return number[1] >= '0' && number[1] <= '9' && *end == ':';
}

/* Reads line by line, whatever the file's size.  A line that does not fit @text is no user's. */
static bool find_in(int fd, const char *name, unsigned long *uid)
{
    char text[2048];
    size_t length = 0;
    bool found = false, skip = false;

    for (ssize_t got; !found && (got = read(fd, text + length, sizeof(text) - 1 - length)) > 0;) {
        char *line = text, *end;
        length += (size_t)got;
        text[length] = '\0';
        for (; !found && (end = strchr(line, '\n')); line = end + 1, skip = false) {
            *end = '\0';
            found = !skip && is_user(line, name, uid);
        }
        length -= (size_t)(line - text);
        skip = skip || length == sizeof(text) - 1;
        length = skip ? 0 : length;
        memmove(text, line, length);
        text[length] = '\0';
    }
    return found || (length > 0 && is_user(text, name, uid)); /* the last line, without its end */
}

/* From /etc/passwd itself, and only where root alone can write it.  getpwnam_r(3) would load the modules that
 * nsswitch.conf names, with malloc, sockets and code of their own, into whatever set-user-ID program this is; and what
 * a directory service answers is not what root alone can write.  Users of such services are named by number. */
static bool find_user(const char *name, unsigned long *uid)
{
    struct stat st;
    int fd = open("/etc/passwd", O_RDONLY | O_CLOEXEC | O_NOCTTY);
    bool found = fd >= 0 && !strchr(name, ':') && fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_uid == 0 &&
                 !(st.st_mode & 022) && find_in(fd, name, uid);

    if (fd >= 0)
        close(fd);
    return found;
}

static int add_user(const struct origin *origin, const char *value, struct fastspool_config *config)
{
    char *end;
    unsigned long uid = strtoull(value, &end, 10);

    if (config->trusted_users == FASTSPOOL_TRUSTED_MAX)
        return refuse(origin, "too many trusted users; remove", value);
    bool number = *value >= '0' && *value <= '9' && !*end;
    if ((!number && !find_user(value, &uid)) || uid >= UINT32_MAX)
        return refuse(origin, "neither a user's number nor the name of one in /etc/passwd:", value);
    config->trusted_user[config->trusted_users++] = (uid_t)uid;
    return 0;
}

/* Too little for any store is found here, with its line: later it would be an error of every process's attaching. */
static int set_memory(const struct origin *origin, const char *value, uint64_t *memory)
{
    if (parse_memory(value, memory) < 0)
        return refuse(origin, "needs a size like 512M or 25%, not", value);
    return *memory < CONFIGURATION_MEMORY_LEAST
               ? refuse(origin, "needs at least 4M, a size like 512M or 25%, not", value)
               : 0;
}

static int set(const struct origin *origin, struct fastspool_config *config, const char *key, const char *value)
{
    if (strcmp(key, "spool") == 0)
        return add_path(origin, value, config->spool, &config->spools, FASTSPOOL_SPOOLS_MAX);
    if (strcmp(key, "program") == 0)
        return add_path(origin, value, config->program, &config->programs, FASTSPOOL_PROGRAMS_MAX);
    if (strcmp(key, "trusted_user") == 0)
        return add_user(origin, value, config);
    if (strcmp(key, "state") == 0)
        return parse_path(value, config->state) < 0 ? refuse(origin, "needs an absolute path, not", value) : 0;
    if (strcmp(key, "runtime") == 0)
        return parse_path(value, config->runtime) < 0 ? refuse(origin, "needs an absolute path, not", value) : 0;
    if (strcmp(key, "memory") == 0)
        return set_memory(origin, value, &config->memory);
    if (strcmp(key, "flush_interval") == 0)
        return parse_duration(value, &config->flush_interval) < 0
                   ? refuse(origin, "needs a duration like 100ms or 1s, not", value)
                   : 0;
    if (strcmp(key, "durability") == 0)
        return parse_durability(value, &config->durability) < 0
                   ? refuse(origin, "needs acked, lazy or strict, not", value)
                   : 0;
    if (strcmp(key, "view") == 0)
        return parse_view(value, &config->view) < 0 ? refuse(origin, "needs auto or off, not", value) : 0;
    return refuse(origin, "unknown key", key);
}

/* ---- the file ---- */

static char *trim(char *text)
{
    while (is_space(*text))
        text++;
    size_t length = strlen(text);
    while (length > 0 && is_space(text[length - 1]))
        text[--length] = '\0';
    return text;
}

static int parse_line(const struct origin *origin, struct fastspool_config *config, char *line)
{
    line[strcspn(line, "#")] = '\0';
    line = trim(line);
    if (strncmp(line, BYTE_ORDER_MARK, strlen(BYTE_ORDER_MARK)) == 0) /* nobody sees it in what follows */
        return refuse(origin, "begins with a byte order mark: take it away, or type the line anew:",
                      line + strlen(BYTE_ORDER_MARK));
    if (!*line)
        return 0;
    char *equals = strchr(line, '=');
    if (!equals)
        return refuse(origin, "needs the form `key = value`, not", line);
    *equals = '\0';
    const char *value = trim(equals + 1), *key = trim(line);
    return *value ? set(origin, config, key, value) : refuse(origin, "no value for", key);
}

/* All lines.  The first error counts, @result if there was one before. */
static int parse_file(struct origin *origin, struct fastspool_config *config, char *text, int result)
{
    char further[FASTSPOOL_ERROR_MAX];

    for (origin->line = 1; text; origin->line++) {
        char *line = strsep(&text, "\n");
        origin->error = result < 0 ? further : origin->error;
        int parsed = parse_line(origin, config, line);
        result = result < 0 ? result : parsed;
    }
    return result;
}

static int check_owner(const struct origin *origin, const struct stat *st)
{
    if (!S_ISREG(st->st_mode))
        return error_set(origin->error, -EINVAL,
                         "%s: is %s, and has to be a regular file: move it away, and put the file there", origin->file,
                         S_ISDIR(st->st_mode)    ? "a directory"
                         : S_ISFIFO(st->st_mode) ? "a FIFO"
                                                 : "no file of text");
    if (st->st_uid != 0 || (st->st_mode & 022))
        return error_set(origin->error, -EINVAL,
                         "%s: must be a file that root owns and root alone can write: `chown root %s && chmod go-w %s`",
                         origin->file, origin->file, origin->file);
    return 0;
}

/* @room: as large as the file is, for each page of stack is a page fault in each process that decides. */
static int read_file(struct origin *origin, struct fastspool_config *config, int fd, size_t room, int result)
{
    char text[room];
    ssize_t length = read(fd, text, room);

    if (length < 0 || (size_t)length == room) {
        return result < 0 ? result
                          : error_set(origin->error, -EINVAL, "%s: cannot be read, or is longer than %d bytes",
                                      origin->file, FILE_MAX - 1);
    }
    text[length] = '\0';
    return parse_file(origin, config, text, result);
}

/* A descriptor, or an error with its sentence. */
static int open_file(const char *path, char *error)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    return fd < 0 ? error_set(error, -errno, "cannot open %s: %s", path, strerrordesc_np(errno)) : fd;
}

/* -ENOENT: there is no file, which counts as one without lines.  A link, however, was made to lead to a file.  A file
 * that is there now was just put in its place by an editor. */
static int open_missing(const char *path, char *error)
{
    struct stat st;

    if (lstat(path, &st) < 0)
        return -ENOENT;
    return S_ISLNK(st.st_mode)
               ? error_set(error, -EINVAL,
                           "%s: is a link to what is not there: put that there, or the file itself here", path)
               : open_file(path, error);
}

static int load_file(struct fastspool_config *config, const char *path, bool trusted_only, char *error)
{
    struct origin origin = {.file = path, .error = error};
    struct stat st;
    int fd = open_file(path, error);

    if (fd == -ENOENT && (fd = open_missing(path, error)) == -ENOENT)
        return 0;
    if (fd < 0)
        return fd;
    if (fstat(fd, &st) < 0) {
        close(fd);
        return error_set(error, -EIO, "cannot look at %s", path);
    }
    bool small = S_ISREG(st.st_mode) && st.st_size < FILE_MAX - GROWS;
    int result = trusted_only ? check_owner(&origin, &st) : 0;
    result = read_file(&origin, config, fd, small ? (size_t)st.st_size + GROWS : FILE_MAX, result);
    close(fd);
    return result;
}

/* ---- the environment and the defaults ---- */

static int load_environment(struct fastspool_config *config, char *error)
{
    static const char *const keys[] = {"spool", "durability", "memory", "flush_interval", "state", "runtime", "view"};

    for (size_t i = 0; i < sizeof(keys) / sizeof(*keys); i++) {
        char variable[40] = "FASTSPOOL_";
        for (size_t c = 0; keys[i][c]; c++)
            variable[10 + c] = upper(keys[i][c]);
        const struct origin origin = {.file = variable, .error = error};
        const char *value = getenv(variable);
        if (!value)
            continue;
        if (i == 0)
            config->spools = 0; /* FASTSPOOL_SPOOL replaces the configured ones */
        int result = set(&origin, config, keys[i], value);
        if (result < 0)
            return result;
    }
    return 0;
}

/* Add each part of a list like PATH.  @existing: only those that exist. */
static void defaults(const char *list, bool existing, char (*paths)[FASTSPOOL_PATH_MAX], size_t *count, size_t most)
{
    while (*list && *count < most) {
        size_t length = strcspn(list, ":");
        struct stat st;
        if (length > 0 && length < FASTSPOOL_PATH_MAX) {
            memcpy(paths[*count], list, length);
            paths[*count][length] = '\0';
            if (!existing || stat(paths[*count], &st) == 0)
                (*count)++;
        }
        list += length + (list[length] == ':');
    }
}

uint64_t configuration_memory(uint64_t memory)
{
    return memory ? memory : memory_there_is() / 4;
}

int configuration_read(struct fastspool_config *config, const char *path, bool environment,
                       char error[FASTSPOOL_ERROR_MAX])
{
    /* Not of all its 9 kB: of the lists only what is counted means something. */
    config->spools = config->programs = config->trusted_users = 0;
    config->memory = 0;
    config->spool[0][0] = config->state[0] = config->runtime[0] = '\0';
    config->durability = FASTSPOOL_ACKED;
    config->flush_interval = 100 * NS_PER_MS;
    config->view = true;
    char further[FASTSPOOL_ERROR_MAX];
    int result = load_file(config, path ? path : FASTSPOOL_CONFIG, !environment, error);
    int more = environment ? load_environment(config, result < 0 ? further : error) : 0;
    result = result < 0 ? result : more;
    if (config->spools == 0)
        defaults(FASTSPOOL_SPOOLS, true, config->spool, &config->spools, 1);
    if (config->programs == 0)
        defaults(FASTSPOOL_PROGRAMS, false, config->program, &config->programs, FASTSPOOL_PROGRAMS_MAX);
    return result;
}

int fastspool_config_load(struct fastspool_config *config, const char *path, bool environment,
                          char error[FASTSPOOL_ERROR_MAX])
{
    int result = configuration_read(config, path, environment, error);

    config->memory = configuration_memory(config->memory);
    return result;
}
