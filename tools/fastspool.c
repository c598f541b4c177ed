/* SPDX-License-Identifier: MIT
 *
 * The command: `fastspool SUBCOMMAND ...`.
 */
#include "fastspool.h"
#include "base/error.h"
#include "base/escape.h"
#include "config.h"
#include "progress.h"
#include "spool/attach.h"
#include "spool/launch.h"
#include "store/store.h"
#include "tool.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sysexits.h>
#include <unistd.h>

static const struct subcommand {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *summary;
} subcommands[] = {
    {"run", tool_run, "run a command on the spool"},
    {"status", tool_status, "show the state of the spool"},
    {"doctor", tool_doctor, "check this machine and this Exim, and say what to do"},
    {"enable", tool_enable, "give Exim the library, from its next start on"},
    {"disable", tool_disable, "take it away again, and leave every other byte as it is"},
    {"ls", tool_ls, "list the spool's files"},
    {"cat", tool_cat, "print a file of the spool"},
    {"flush", tool_flush, "wait until every change is on the disk"},
    {"stop", tool_stop, "flush, then end the view and the mirror process"},
    {"export", tool_export, "move all messages of the store into a plain spool"},
    {"import", tool_import, "move the messages on the plain disk into the store"},
    {"backup", tool_backup, "copy the state of a running spool"},
    {"compact", tool_compact, "give back the disk that a large queue has left"},
    {"verify", tool_verify, "check memory, journal and database"},
    {"dump", tool_dump, "print memory, journal or database as text"},
    {"mirror", tool_mirror, "run the mirror process (the library starts it)"},
    {"view", tool_view, "mount the spool for programs without the library (the library starts it)"},
};
#define SUBCOMMANDS (sizeof(subcommands) / sizeof(*subcommands))
#define SENTENCE    16384 /* the longest has two paths and their escapes */

int tool_error(const char *format, ...)
{
    char sentence[SENTENCE], shown[ESCAPE_ROOM(SENTENCE)];
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(sentence, sizeof(sentence), format, arguments);
    va_end(arguments);
    progress_pause();
    fflush(stdout); /* the two may go to one place */
    fprintf(stderr, "fastspool: %s\n", escape_controls(shown, sizeof(shown), sentence));
    return 1;
}

int tool_refused(int result, const char *error)
{
    return result == -EACCES && geteuid() != 0 ? tool_error("%s; run it as root or the spool's owner", error)
                                               : tool_error("%s", error);
}

bool tool_confirm(bool yes, const char *question)
{
    char answer[16] = "";

    if (yes)
        return true;
    fflush(stdout);
    if (!isatty(STDIN_FILENO)) {
        tool_error("nobody can be asked \"%s\", as this is no terminal: say --yes", question);
        return false;
    }
    printf("%s [y/N] ", question);
    fflush(stdout);
    if (!fgets(answer, sizeof(answer), stdin))
        putchar('\n'); /* ^D ends no line */
    return answer[0] == 'y' || answer[0] == 'Y';
}

/* Bytes of the UTF-8 character that begins at @text; 0: it is none. */
static size_t character(const char *text)
{
    const unsigned char *c = (const unsigned char *)text;
    size_t length = c[0] < 0x80 ? 1 : c[0] >= 0xf0 && c[0] <= 0xf4 ? 4 : c[0] >= 0xe0 && c[0] < 0xf0 ? 3 : 2;

    if (length == 2 && (c[0] < 0xc2 || c[0] > 0xdf))
        return 0;
    for (size_t i = 1; i < length; i++) {
        if ((c[i] & 0xc0) != 0x80)
            return 0;
    }
    bool bad = (c[0] == 0xe0 && c[1] < 0xa0) || (c[0] == 0xed && c[1] > 0x9f) || (c[0] == 0xf0 && c[1] < 0x90) ||
               (c[0] == 0xf4 && c[1] > 0x8f);
    return bad ? 0 : length;
}

void tool_print_json(const char *text)
{
    putchar('"');
    for (size_t length; *text; text += length ? length : 1) {
        unsigned char c = (unsigned char)*text;
        length = character(text);
        if (length == 0)
            fputs("\\ufffd", stdout);
        else if (length > 1)
            fwrite(text, 1, length, stdout);
        else if (c == '"' || c == '\\')
            printf("\\%c", c);
        else if (c < 0x20)
            printf("\\u%04x", c);
        else
            putchar(c);
    }
    putchar('"');
}

/* Two names of one directory are one spool. */
static void drop_same(struct fastspool_config *config)
{
    struct stat st[FASTSPOOL_SPOOLS_MAX];
    size_t kept = 0;

    for (size_t i = 0; i < config->spools; i++) {
        bool same = false, exists = stat(config->spool[i], &st[kept]) == 0;
        st[kept].st_nlink = exists;
        for (size_t before = 0; before < kept && exists && !same; before++)
            same = st[before].st_nlink && st[before].st_dev == st[kept].st_dev && st[before].st_ino == st[kept].st_ino;
        if (!same && kept != i)
            strcpy(config->spool[kept], config->spool[i]);
        kept += !same;
    }
    config->spools = kept;
}

/* A state is one spool's: for the others a call would end that one's view, or count its mail once more. */
static int refuse_state(const struct fastspool_config *config, char error[FASTSPOOL_ERROR_MAX])
{
    char word[ESCAPE_WORD_ROOM(FASTSPOOL_PATH_MAX)];

    return error_set(error, -EINVAL,
                     "FASTSPOOL_STATE is the state of one spool, and the configuration names %zu: say which one, as by "
                     "`FASTSPOOL_SPOOL=%s`",
                     config->spools, escape_word(word, sizeof(word), config->spool[0]));
}

int tool_load_config(struct fastspool_config *config, const char *spool, char error[FASTSPOOL_ERROR_MAX])
{
    int result = fastspool_config_load(config, NULL, true, error);

    if (spool) {
        strcpy(config->spool[0], spool);
        config->spools = 1;
    }
    drop_same(config);
    if (result < 0)
        return result;
    if (config->spools > 1 && getenv("FASTSPOOL_STATE"))
        return refuse_state(config, error);
    return config->spools ? 0
                          : error_set(error, -ENOENT, "no spool: configure one or give --spool; none of %s exists",
                                      FASTSPOOL_SPOOLS);
}

int tool_config(struct fastspool_config *config, const char *spool)
{
    char error[FASTSPOOL_ERROR_MAX];

    return tool_load_config(config, spool, error) < 0 ? tool_error("%s", error) : 0;
}

struct fastspool_config tool_config_of(const struct fastspool_config *config, size_t number)
{
    struct fastspool_config one = *config;

    memcpy(one.spool[0], config->spool[number], sizeof(one.spool[0]));
    one.spools = 1;
    return one;
}

int tool_config_of_one(struct fastspool_config *config, const char *spool)
{
    char word[ESCAPE_WORD_ROOM(FASTSPOOL_PATH_MAX)];

    if (tool_config(config, spool) != 0)
        return 1;
    return config->spools == 1 ? 0
                               : tool_error("the configuration names %zu spools: say which one, as by `--spool %s`",
                                            config->spools, escape_word(word, sizeof(word), config->spool[0]));
}

struct fastspool *tool_attach(const char *spool)
{
    struct fastspool_config config;
    struct fastspool *fs = NULL;
    char error[FASTSPOOL_ERROR_MAX], word[ESCAPE_WORD_ROOM(FASTSPOOL_PATH_MAX)];

    if (tool_config_of_one(&config, spool) != 0)
        return NULL;
    int result = attach_open(config.spool[0], &config, &fs, error);
    bool exists = result == -ENOENT && access(config.spool[0], F_OK) == 0;
    if (exists && tool_check_spool(&config, true) == 0)
        tool_error(
            "%s has no store in memory, as before its first use, after `fastspool stop` or a reboot: start Exim with "
            "the library, or run `fastspool run%s%s -- true`, and try again",
            config.spool[0], spool ? " --spool " : "", spool ? escape_word(word, sizeof(word), config.spool[0]) : "");
    else if (result < 0 && !exists)
        tool_refused(result, error);
    return fs;
}

bool tool_mount_again(struct fastspool *fs, enum seen_state state)
{
    if (state != SEEN_DEAD || geteuid() != 0)
        return false;
    launch_view(fs);
    return !LOAD(fs->header->view.unavailable);
}

static int usage(FILE *to)
{
    fputs("usage: fastspool SUBCOMMAND [ARGUMENT...]\n\n", to);
    for (size_t i = 0; i < SUBCOMMANDS; i++)
        fprintf(to, "  %-8s %s\n", subcommands[i].name, subcommands[i].summary);
    fputs("\nfastspool help SUBCOMMAND shows its options.\n", to);
    return to == stdout ? 0 : EX_USAGE;
}

static const struct subcommand *find(const char *name)
{
    for (size_t i = 0; i < SUBCOMMANDS; i++) {
        if (strcmp(name, subcommands[i].name) == 0)
            return &subcommands[i];
    }
    tool_error("unknown subcommand `%s`", name);
    usage(stderr);
    return NULL;
}

/* A program that ignores the ends of its children leaves that to what it starts: no wait would find one.  `run` passes
 * it on to its command. */
static void see_children(const struct subcommand *subcommand)
{
    if (subcommand->run != tool_run)
        signal(SIGCHLD, SIG_DFL);
}

/* `help SUBCOMMAND` is `SUBCOMMAND --help`. */
static int help(char *name)
{
    static char option[] = "--help";
    char *argv[] = {name, option, NULL};
    const struct subcommand *subcommand = find(name);

    return subcommand ? subcommand->run(2, argv) : EX_USAGE;
}

static bool is_help(const char *word)
{
    return strcmp(word, "help") == 0 || strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0;
}

static bool output_was_closed; /* by the caller, who wants none */

/* The numbers of closed standard streams are taken, or a sentence would be written to a file of the journal's. */
static void take_streams(void)
{
    int fd;

    while ((fd = open("/", O_PATH | O_CLOEXEC)) >= 0 && fd <= STDERR_FILENO)
        output_was_closed = output_was_closed || fd == STDOUT_FILENO;
    if (fd >= 0)
        close(fd);
}

/* Runs at each exit: nobody must take an output for whole that is not. */
static void check_output(int status, void *unused)
{
    (void)status;
    (void)unused;
    bool flushed = fflush(stdout) == 0;
    const char *why = flushed ? "a part of it is lost" : strerrordesc_np(errno);

    if (output_was_closed || (flushed && !ferror(stdout)))
        return;
    tool_error("cannot write to standard output: %s", why);
    _exit(EX_IOERR);
}

int main(int argc, char **argv)
{
    take_streams();
    on_exit(check_output, NULL);
    if (argc < 2) {
        tool_error("it needs a SUBCOMMAND");
        return usage(stderr);
    }
    if (strcmp(argv[1], "help") == 0 && argc > 3) {
        tool_error("help takes no further argument like `%s`", argv[3]);
        return usage(stderr);
    }
    if (strcmp(argv[1], "help") == 0 && argc > 2 && !is_help(argv[2]))
        return help(argv[2]);
    if (argv[1][0] == '-' && argc > 2 && (is_help(argv[1]) || strcmp(argv[1], "--version") == 0)) {
        tool_error("%s takes no argument like `%s`", argv[1], argv[2]);
        return usage(stderr);
    }
    if (is_help(argv[1]))
        return usage(stdout);
    if (strcmp(argv[1], "--version") == 0) {
        printf("fastspool %s\n", fastspool_version());
        return 0;
    }
    const struct subcommand *subcommand = find(argv[1]);
    if (!subcommand)
        return EX_USAGE;
    char name[32]; /* getopt(3) begins its sentences with it */
    snprintf(name, sizeof(name), "fastspool: %s", subcommand->name);
    argv[1] = name;
    see_children(subcommand);
    return subcommand->run(argc - 1, argv + 1);
}
