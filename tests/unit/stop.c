/* SPDX-License-Identifier: MIT
 *
 * fastspool stop, where it can't be said who lives: it says so, and ends nothing.
 */
#include "spool/launch.h"
#include "store/layout.h"

#include <signal.h>
#include <stdarg.h>
#include <stdio.h>

static int answers[2], looks; /* of the first look whether a mirror or view lives, and of all others */
static pid_t holder;
static unsigned signals;

static inline int play_lives(void);
static inline int play_kill(pid_t pid, int signal_number);

#define launch_lives(fs)          play_lives()
#define launch_view_lives(state)  play_lives()
#define launch_view_holder(state) holder
#define kill                      play_kill
#include "../../tools/stop.c"
#undef launch_lives
#undef launch_view_lives
#undef launch_view_holder
#undef kill

#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

static inline int play_lives(void)
{
    return answers[looks++ > 0];
}

static inline int play_kill(pid_t pid, int signal_number)
{
    (void)pid;
    (void)signal_number;
    signals++;
    return 0;
}

/* ---- the rest of the tool ---- */

static char said[1024];

int tool_error(const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(said, sizeof(said), format, arguments);
    va_end(arguments);
    return 1;
}

void progress_begin(const char *what)
{
    (void)what;
}

void progress_pause(void)
{
}

void progress_end(void)
{
}

void interrupt_says(const char *sentence)
{
    (void)sentence;
}

const char *tool_only_options(int argc, char **argv, bool *json, const char *text)
{
    (void)argc;
    (void)argv;
    (void)json;
    (void)text;
    return NULL;
}

int tool_config(struct fastspool_config *config, const char *spool)
{
    (void)config;
    (void)spool;
    return 1;
}

bool tool_mount_again(struct fastspool *fs, enum seen_state state)
{
    (void)fs;
    (void)state;
    return false;
}

void seen_look(struct fastspool *fs, bool wanted, struct seen *seen)
{
    (void)fs;
    (void)wanted;
    seen->state = SEEN_OFF;
}

pid_t seen_stopped(const char *state)
{
    (void)state;
    return 0;
}

int look_begin(struct look *look, const char *spool)
{
    (void)look;
    (void)spool;
    return 1;
}

void look_end(struct look *look)
{
    (void)look;
}

/* ---- tests ---- */

static struct header header;
static struct fastspool store = {.header = &header, .spool = "/srv/spool"};
static struct look of_store = {.fs = &store, .spool = "/srv/spool"};

static void expect(int result, const char *sentence)
{
    cr_assert_eq(result, 1);
    cr_assert_not_null(strstr(said, sentence), "it says %s", said);
}

TestSuite(stop, .timeout = 30);

/* Before the mirror is asked to end, and after. */
Test(stop, mirror)
{
    for (int first = 0; first < 2; first++) {
        answers[0] = first ? 1 : -EMFILE;
        answers[1] = -EMFILE;
        looks = 0;
        expect(end_mirror(&store), "/srv/spool: can't look whether its mirror lives: Too many open files");
        cr_assert_eq(header.mirror.ending, first);
    }
}

Test(stop, view)
{
    bool killed = false;

    answers[0] = answers[1] = -EMFILE;
    expect(end_view(&of_store, &killed), "/srv/spool: can't look whether a view runs: Too many open files");
    answers[0] = answers[1] = 1;
    holder = -ENFILE;
    expect(end_view(&of_store, &killed), "/srv/spool: can't look whether a view runs: Too many open files in system");
    cr_assert(!killed && signals == 0);
    cr_assert_eq(header.view.starting, 0);
}
