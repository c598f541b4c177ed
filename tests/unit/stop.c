/* SPDX-License-Identifier: MIT
 *
 * fastspool stop, where it can't be said who lives: it says so, and ends nothing; and where each view is stopped.
 */
#include "base/clock.h"
#include "spool/launch.h"
#include "store/layout.h"

#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>

static int answers[2], looks; /* of the first look whether a mirror or view lives, and of all others */
static pid_t holder, stopped;
static unsigned signals, sent_kills;
static uint64_t instant;
static pid_t next;  /* who lives after a kill; 0: nobody, for one look */
static bool nobody; /* at the next look */
static bool ends;   /* the view, between the look and pidfd_open(2) */

static inline int play_lives(void);
static inline uint64_t play_clock(void);
static inline void play_sleep(uint64_t time);
static inline long play_syscall(long call, long argument, int number);

#define launch_lives(fs)                     play_lives()
#define launch_view_lives(state)             play_lives()
#define launch_view_holder(state)            holder
#define clock_monotonic()                    play_clock()
#define clock_sleep(time)                    play_sleep(time)
#define SYSCALL(call, argument, number, ...) play_syscall(call, argument, number)
#define syscall(...)                         SYSCALL(__VA_ARGS__, 0)
#include "../../tools/stop.c"
#undef launch_lives
#undef launch_view_lives
#undef launch_view_holder
#undef syscall
#undef clock_monotonic
#undef clock_sleep

#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

static inline int play_lives(void)
{
    bool gone = nobody;

    nobody = false;
    return gone ? 0 : answers[looks++ > 0];
}

static inline uint64_t play_clock(void)
{
    return instant;
}

static inline void play_sleep(uint64_t time)
{
    instant += time;
}

/* pidfd_open(2), and pidfd_send_signal(2). */
static inline long play_syscall(long call, long argument, int number)
{
    (void)argument;
    if (call == SYS_pidfd_open && ends) {
        holder = 0;
        nobody = true;
    }
    if (call == SYS_pidfd_open)
        return open("/dev/null", O_RDONLY);
    signals++;
    if (number == SIGKILL) {
        cr_assert_lt(++sent_kills, 10, "it kills one after the other");
        nobody = next == 0;
        holder = next ? next : holder;
    }
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

int tool_option(int argc, char **argv, const struct option *options, const char *text)
{
    (void)argc;
    (void)argv;
    (void)options;
    (void)text;
    return -1;
}

char **tool_operands(int argc, char **argv, int least, int most, const char *needs, const char *text)
{
    (void)argc;
    (void)least;
    (void)most;
    (void)needs;
    (void)text;
    return argv;
}

uint64_t tool_number(const char *option, const char *of, const char *text, uint64_t least, const char *usage_text)
{
    (void)option;
    (void)of;
    (void)text;
    (void)usage_text;
    return least;
}

void standstill_begin(const char *spool, const struct fastspool_config *config, struct fastspool *fs)
{
    (void)spool;
    (void)config;
    (void)fs;
}

void standstill_end(void)
{
}

void standstill_limit(uint64_t seconds, const char *sentence)
{
    (void)seconds;
    (void)sentence;
}

int tool_config(struct fastspool_config *config, const char *spool)
{
    (void)config;
    (void)spool;
    return 1;
}

const char *tool_path(const char *option, const char *text, const char *usage_text)
{
    (void)option;
    (void)usage_text;
    return text;
}

const char *tool_of_spool(const char *spool, char words[TOOL_OF_SPOOL])
{
    (void)words;
    return spool;
}

bool beside_users(const struct fastspool_config *config, const struct fastspool *fs)
{
    (void)config;
    (void)fs;
    return false;
}

int states_census(const char *state, struct census *census)
{
    (void)state;
    (void)census;
    return -1;
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
    return stopped;
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
    pid_t killed;

    answers[0] = answers[1] = -EMFILE;
    expect(end_view(&of_store, &killed), "/srv/spool: can't look whether a view runs: Too many open files");
    answers[0] = answers[1] = 1;
    holder = -ENFILE;
    expect(end_view(&of_store, &killed), "/srv/spool: can't look whether a view runs: Too many open files in system");
    cr_assert(killed == 0 && signals == 0);
    cr_assert_eq(header.view.starting, 0);
}

/* The number of a view that has ended may be another process's: that gets no signal. */
Test(stop, number_of_another)
{
    pid_t killed;

    holder = 1234;
    answers[0] = answers[1] = 1;
    ends = true;
    cr_assert_eq(end_view(&of_store, &killed), 0);
    cr_assert(killed == 0 && signals == 0);
}

/* Each new view is stopped, too: some are killed, and it is said that the mounts stay. */
Test(stop, stopped_again_and_again)
{
    holder = stopped = 1234;
    answers[0] = answers[1] = 1;
    instant = NS_PER_S;
    expect(end_mounted_view(&of_store), "3 views of /srv/spool were stopped or frozen");
    cr_assert_eq(sent_kills, 3);
}

/* In a sandbox nobody may look what the holder of the lock executes: no process 0 is told of. */
Test(stop, holder_unseen)
{
    pid_t killed;

    holder = 0;
    answers[0] = answers[1] = 1;
    instant = NS_PER_S;
    expect(end_view(&of_store, &killed), "a view of /srv/spool still runs after a minute, and which process that is");
    cr_assert(killed == 0 && signals == 0);
}

/* One that is killed, and there still, is told from one that has come since. */
Test(stop, another_has_come)
{
    pid_t killed;

    holder = stopped = 1234;
    answers[0] = answers[1] = 1;
    next = 1234;
    expect(end_view(&of_store, &killed), "process 1234, was killed, and is there still");
    next = 1235;
    expect(end_view(&of_store, &killed),
           "a view of /srv/spool, process 1235, still runs a minute after the first signal");
    cr_assert_eq(killed, 1234);
}
