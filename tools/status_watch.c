/* SPDX-License-Identifier: MIT
 *
 * fastspool status --watch: the spool on a terminal, each second anew, with a line of bars for what has happened
 * lately.
 *
 * The happy path: the terminal's other screen is taken, without cursor and echo; each second the spool is looked at
 * anew, so a store that is made or dropped meanwhile is seen; q, SIGINT, SIGTERM or SIGHUP ends it, and the terminal
 * is as before.
 *
 * Failure modes:
 *   - No terminal: a sentence, and nothing is changed.
 *   - ^Z would leave the terminal to the shell as it is: the key has no effect meanwhile.
 *   - Keys without a meaning come fast, as from a mouse wheel or a paste: each waits for its second, as the rates are
 *     of whole ones.
 *   - The terminal has too few lines, and the first ones are gone: the verdict is written over the top line.
 *   - The terminal knows no UTF-8: the bars are ASCII.
 */
#include "base/escape.h"
#include "status.h"
#include "tool.h"

#include <inttypes.h>
#include <langinfo.h>
#include <locale.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sysexits.h>
#include <termios.h>
#include <unistd.h>

#define PERIOD_MS 1000
#define HISTORY   512 /* seconds that a wide terminal can show */
#define LABEL     16  /* columns before the bars */
#define FIGURE    14  /* columns behind them */

#define TAKE_SCREEN "\033[?1049h\033[?25l"
#define GIVE_SCREEN "\033[?25h\033[?1049l"
#define HOME        "\033[H"
#define TOP         "\033[1H" /* the same place, where HOME has begun the screen */
#define CLEAR_LINE  "\033[K\n"
#define CLEAR_REST  "\033[J"

/* ---- what has happened lately ---- */

struct series {
    const char *label, *unit;
    int decimals;           /* of its last value, which is shown */
    double values[HISTORY]; /* a ring; value n is at n % HISTORY */
};

struct history {
    size_t count; /* seconds so far */
    struct series changes, messages, commit_ms, unflushed_ms;
    uint64_t last_changes, last_commits, last_commits_ns, last_at; /* at the last look; 0: none */
};

static void add(struct history *history, const struct shown *shown)
{
    const struct fastspool_status *s = &shown->numbers;
    uint64_t now = clock_monotonic(), commits = s->commits - history->last_commits;
    double seconds = (double)(now - history->last_at) / NS_PER_S;
    /* A store that was made anew counts from 0. */
    bool goes_on = history->last_at && shown->changes >= history->last_changes && s->commits >= history->last_commits;
    size_t at = history->count++ % HISTORY;

    history->changes.values[at] = goes_on ? (double)(shown->changes - history->last_changes) / seconds : 0;
    history->commit_ms.values[at] =
        goes_on && commits ? (double)(shown->commits_ns - history->last_commits_ns) / 1e6 / (double)commits : 0;
    history->messages.values[at] = (double)s->messages;
    history->unflushed_ms.values[at] = (double)s->unflushed_ns / 1e6;
    history->last_changes = shown->changes;
    history->last_commits = s->commits;
    history->last_commits_ns = shown->commits_ns;
    history->last_at = now;
}

/* ---- drawing ---- */

static void draw_series(const struct history *history, const struct series *series, size_t width)
{
    static const char *const blocks[] = {"▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};
    static const char *const letters[] = {"_", ".", ":", "-", "=", "+", "*", "#"};
    const char *const *bars = strcmp(nl_langinfo(CODESET), "UTF-8") == 0 ? blocks : letters;
    size_t shown = history->count < width ? history->count : width;
    double most = 0;

    for (size_t i = history->count - shown; i < history->count; i++)
        most = series->values[i % HISTORY] > most ? series->values[i % HISTORY] : most;
    printf("  %-*s", LABEL - 2, series->label);
    for (size_t i = shown; i < width; i++)
        putchar(' ');
    for (size_t i = history->count - shown; i < history->count; i++)
        fputs(bars[most > 0 ? (int)(series->values[i % HISTORY] / most * 7.0 + 0.5) : 0], stdout);
    printf(" %.*f%s" CLEAR_LINE, series->decimals, series->values[(history->count - 1) % HISTORY], series->unit);
}

static void draw_numbers(const struct shown *shown)
{
    const struct fastspool_status *s = &shown->numbers;

    printf("  memory       %.1f MiB of %.0f MiB; %" PRIu64 " file%s evicted" CLEAR_LINE,
           (double)s->memory_bytes / 1048576, (double)s->memory_limit / 1048576, s->evicted_files,
           tool_plural(s->evicted_files));
    printf("  not on disk  %" PRIu64 " file%s, %.1f MiB" CLEAR_LINE, s->dirty_files, tool_plural(s->dirty_files),
           (double)s->dirty_bytes / 1048576);
    printf("  waiting      %" PRIu64 " process%s" CLEAR_LINE, s->waiters, s->waiters == 1 ? "" : "es");
    if (s->mirror_pid)
        printf("  mirror       process %ld, last sign of life %.1f s ago" CLEAR_LINE, (long)s->mirror_pid,
               (double)s->mirror_silent_ns / 1e9);
    else
        printf("  mirror       none runs" CLEAR_LINE);
}

/* With and without a store. */
static void draw_rest(const struct shown *shown)
{
    if (shown->other.messages > 0)
        printf("  elsewhere    %" PRId64 " message%s, in %s" CLEAR_LINE, shown->other.messages,
               tool_plural((uint64_t)shown->other.messages), shown->other.state);
    if (shown->without > 0)
        printf("  exims        %" PRId64 " without the library" CLEAR_LINE, shown->without);
    if (shown->view.line[0])
        printf("  view         %s" CLEAR_LINE, shown->view.line);
    if (shown->on_disk > 0)
        printf("  on the disk  %" PRId64 " message%s" CLEAR_LINE, shown->on_disk,
               tool_plural((uint64_t)shown->on_disk));
    if (shown->census.half > 0)
        printf("  half moved   %" PRIu64 " of these messages" CLEAR_LINE, shown->census.half);
}

static void draw_verdict(const struct shown *shown)
{
    char spool[ESCAPE_ROOM(FASTSPOOL_PATH_MAX)];

    if (shown->store)
        printf("%s: %s" CLEAR_LINE, escape_controls(spool, sizeof(spool), shown->spool), shown->line);
    else
        printf("%s" CLEAR_LINE "%s" CLEAR_LINE, shown->line, shown->more);
}

static void draw(const struct history *history, const struct shown *shown)
{
    struct winsize size = {0};
    size_t columns = ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col ? size.ws_col : 80;
    size_t width = columns > LABEL + FIGURE + 8 ? columns - LABEL - FIGURE : 8;

    width = width < HISTORY ? width : HISTORY;
    fputs(HOME, stdout);
    draw_verdict(shown);
    if (shown->store) {
        fputs(CLEAR_LINE, stdout);
        draw_series(history, &history->changes, width);
        draw_series(history, &history->messages, width);
        draw_series(history, &history->commit_ms, width);
        draw_series(history, &history->unflushed_ms, width);
        fputs(CLEAR_LINE, stdout);
        draw_numbers(shown);
    }
    draw_rest(shown);
    fputs(CLEAR_LINE "  q ends this" CLEAR_REST TOP, stdout);
    draw_verdict(shown);
    fflush(stdout);
}

/* ---- the terminal ---- */

static volatile sig_atomic_t ended;

static void on_signal(int number)
{
    (void)number;
    ended = 1;
}

static void catch_signals(void)
{
    static const int numbers[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT};
    struct sigaction action = {.sa_handler = on_signal};

    for (size_t i = 0; i < sizeof(numbers) / sizeof(*numbers); i++)
        sigaction(numbers[i], &action, NULL);
}

static void take_terminal(const struct termios *before)
{
    struct termios own = *before;

    own.c_lflag &= ~(tcflag_t)(ICANON | ECHO);
    own.c_cc[VSUSP] = _POSIX_VDISABLE;
    tcsetattr(STDIN_FILENO, TCSADRAIN, &own);
    fputs(TAKE_SCREEN, stdout);
}

/* Wait for the next second.  True: a key or a signal says that this is the end. */
static bool wait_ends(void)
{
    struct pollfd key = {STDIN_FILENO, POLLIN, 0};
    uint64_t until = clock_monotonic() + PERIOD_MS * NS_PER_MS;
    char pressed;

    for (uint64_t now; !ended && (now = clock_monotonic()) < until;) {
        if (poll(&key, 1, (int)((until - now) / NS_PER_MS) + 1) <= 0)
            continue;
        if (read(STDIN_FILENO, &pressed, 1) != 1 || pressed == 'q' || pressed == 'Q')
            return true;
    }
    return ended;
}

int status_watch(const struct fastspool_config *config)
{
    static struct history history = {.changes = {.label = "changes/s", .unit = ""},
                                     .messages = {.label = "messages", .unit = ""},
                                     .commit_ms = {.label = "commit", .unit = " ms", .decimals = 2},
                                     .unflushed_ms = {.label = "oldest change", .unit = " ms"}};
    struct termios before;
    struct shown shown;
    struct fastspool *fs;

    if (!isatty(STDOUT_FILENO) || tcgetattr(STDIN_FILENO, &before) < 0) {
        tool_error("--watch needs a terminal; --json and --prometheus are for programs");
        return EX_USAGE;
    }
    setlocale(LC_CTYPE, "");
    catch_signals();
    take_terminal(&before);
    do {
        status_look(config, &shown, &fs);
        if (fs)
            add(&history, &shown);
        draw(&history, &shown);
        if (fs)
            fastspool_detach(fs);
    } while (!wait_ends());
    fputs(GIVE_SCREEN, stdout);
    fflush(stdout);
    tcsetattr(STDIN_FILENO, TCSADRAIN, &before);
    return (int)shown.health;
}
