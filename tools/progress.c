/* SPDX-License-Identifier: MIT
 *
 * Progress on a terminal.
 *
 * The happy path: a timer's signal draws the line, from the first second on, so the work that is shown need not know of
 * it.  Where the caller says how far it is, the line has a bar.
 *
 * Failure modes: no terminal: no timer, no line.  The signal comes anywhere, also where the work has lent rights: its
 * handler writes to standard error, and touches nothing else but this file's own words.
 */
#include "progress.h"

#include "base/atomic.h"
#include "base/clock.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/time.h>
#include <unistd.h>

#define BAR   40 /* characters */
#define EVERY 250000

static struct {
    const char *what;
    uint64_t began;
    uint64_t done, total;
    uint32_t shown; /* the cursor stands behind a line that has no end */
} line;

static size_t put(char *to, size_t at, const char *text)
{
    size_t length = strlen(text);

    memcpy(to + at, text, length);
    return at + length;
}

static size_t put_number(char *to, size_t at, uint64_t number)
{
    char digits[20];
    size_t count = 0;

    do
        digits[count++] = (char)('0' + number % 10);
    while ((number /= 10) > 0);
    while (count > 0)
        to[at++] = digits[--count];
    return at;
}

static void draw(int signal)
{
    int saved = errno;
    uint64_t done = LOAD(line.done), total = LOAD(line.total);
    size_t filled = total == 0 ? 0 : done < total ? (size_t)(done * BAR / total) : BAR;
    char text[256];

    (void)signal;
    size_t at = put(text, put(text, 0, "\rfastspool: "), line.what);
    if (total > 0) {
        at = put(text, at, " [");
        for (size_t i = 0; i < BAR; i++)
            text[at++] = i < filled ? '#' : '.';
        at = put(text, at, "]");
    }
    at = put(text, put_number(text, put(text, at, " "), (clock_monotonic() - line.began) / NS_PER_S), " s");
    if (write(STDERR_FILENO, text, at) > 0)
        STORE(line.shown, 1);
    errno = saved;
}

static void set_timer(suseconds_t every)
{
    const struct itimerval timer = {.it_interval = {.tv_usec = every}, .it_value = {.tv_sec = every > 0}};

    setitimer(ITIMER_REAL, &timer, NULL);
}

void progress_begin(const char *what)
{
    const struct sigaction action = {.sa_handler = draw, .sa_flags = SA_RESTART};

    if (!isatty(STDERR_FILENO))
        return;
    line.what = what;
    line.began = clock_monotonic();
    progress_at(0, 0);
    sigaction(SIGALRM, &action, NULL);
    set_timer(EVERY);
}

void progress_at(uint64_t done, uint64_t total)
{
    STORE(line.done, done);
    STORE(line.total, total);
}

void progress_pause(void)
{
    if (LOAD(line.shown) && write(STDERR_FILENO, "\n", 1) > 0)
        STORE(line.shown, 0);
}

void progress_end(void)
{
    set_timer(0);
    if (LOAD(line.shown))
        draw(SIGALRM);
    progress_pause();
}
