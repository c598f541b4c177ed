/* SPDX-License-Identifier: MIT
 *
 * How the spool is: the worst that is true of it, in one line, and the exit status that goes with it.
 */
#include "command.h"
#include "config.h"
#include "status.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define SPOOL_SPACE  (UINT64_C(10) << 20) /* Exim's defaults: with less room it takes no message */
#define SPOOL_INODES 100

static __attribute__((format(printf, 3, 4))) bool is(struct shown *shown, enum health health, const char *format, ...)
{
    va_list arguments;

    shown->health = health;
    va_start(arguments, format);
    vsnprintf(shown->line, sizeof(shown->line), format, arguments);
    va_end(arguments);
    return true;
}

static bool store_fails(struct shown *shown)
{
    const struct fastspool_status *s = &shown->numbers;

    if (shown->failure)
        return is(shown, MAIL_STANDS,
                  "FAILED: %.255s; `fastspool verify` says what is damaged, docs/operating.md what to do",
                  shown->failure);
    if (shown->read_only[0])
        return is(shown, MAIL_STANDS, "%s; until that is mended Exim takes no mail", shown->read_only);
    if (shown->recovery)
        return is(shown, MAIL_STANDS, "it can't be recovered yet: %.255s", shown->recovery);
    if (shown->refusal[0] && shown->view.state != SEEN_MOUNTED)
        return is(shown, MAIL_STANDS, "Exim may not use it: %s; mend that, and Exim looks again", shown->refusal);
    if (s->commit_error)
        return is(shown, MAIL_STANDS,
                  "the last commit failed: %s; see that its disk works and has room: it is tried again",
                  strerrordesc_np(-s->commit_error));
    return false;
}

/* What makes every call wait that needs the disk. */
static bool mirror_stands(struct shown *shown)
{
    const struct fastspool_status *s = &shown->numbers;
    unsigned long long silent = s->mirror_silent_ns / NS_PER_S, age = s->unflushed_ns / NS_PER_S, waiters = s->waiters;
    const char *wait = waiters == 1 ? "process waits" : "processes wait";

    if (!s->mirror_pid && shown->no_tool)
        return is(shown, MAIL_STANDS, "no mirror process runs, and none can be started: %s: %s", FASTSPOOL_TOOL,
                  strerrordesc_np(shown->no_tool));
    if (s->mirror_pid && !shown->recovering && s->mirror_silent_ns > STATUS_SILENT)
        return is(shown, MAIL_STANDS,
                  "the mirror, process %ld, has given no sign of life for %llu s: it is stopped, or the disk does not "
                  "answer; %llu %s, and the oldest change that is not on the disk is %llu s old",
                  (long)s->mirror_pid, silent, waiters, wait, age);
    if (s->unflushed_ns > shown->late)
        return is(shown, MAIL_STANDS, "a change of %llu s ago is not on the disk, and %llu %s%s", age, waiters, wait,
                  s->mirror_pid ? "" : "; no mirror process runs");
    return false;
}

/* Mail that the next Exim does not find, as `state` leads elsewhere. */
static bool is_elsewhere(struct shown *shown)
{
    char found[STATES_SENTENCE], mend[STATES_SENTENCE];

    if (!shown->other.state[0])
        return false;
    states_describe(&shown->other, found, mend);
    return is(shown, shown->other.messages ? MAIL_STANDS : ATTENTION, "%s; %s", found, mend);
}

void status_add_refusal(const struct shown *shown, char line[STATUS_LINE])
{
    static const char prefix[] = "fastspool: Exim must not start so: ";
    const char *const arguments[] = {"sh", "-c", "exec \"$0\" doctor --start 2>&1", FASTSPOOL_TOOL, NULL};
    char output[COMMAND_OUTPUT];
    size_t length = strlen(line);

    const char *why = shown->enabled && command_run(arguments, NULL, output) != 0 ? strstr(output, prefix) : NULL;
    if (!why)
        return;
    why += strlen(prefix);
    snprintf(line + length, STATUS_LINE - length, "; its start would be refused: %.*s", (int)strcspn(why, "\n"), why);
}

bool status_plain_stands(const struct shown *shown, char line[STATUS_LINE])
{
    if (shown->on_disk <= 0 || !shown->enabled || !shown->unattended || shown->without != 0 ||
        shown->view.state == SEEN_MOUNTED)
        return false;
    snprintf(line, STATUS_LINE, "%" PRId64 " message%s on the plain disk stand%s: start Exim", shown->on_disk,
             shown->on_disk == 1 ? "" : "s", shown->on_disk == 1 ? "s" : "");
    status_add_refusal(shown, line);
    return true;
}

bool status_half_moved(const struct shown *shown, char line[STATUS_LINE])
{
    const struct census *c = &shown->census;

    if (c->half == 0 || shown->moves)
        return false;
    snprintf(line, STATUS_LINE,
             "%" PRIu64 " message%s half moved, and no Exim finds %s: run `fastspool %s` again to finish%s", c->half,
             c->half == 1 ? " is" : "s are", c->half == 1 ? "it" : "them", c->exports ? "export" : "import",
             c->exports ? ", or `fastspool import` to take all back" : "");
    return true;
}

/* Where a killed import or export has left it. */
static bool mail_is_half_moved(struct shown *shown)
{
    bool is_half = status_half_moved(shown, shown->line);

    if (is_half)
        shown->health = MAIL_STANDS;
    return is_half;
}

/* What the store, or the disk, lacks is an Exim. */
static bool exim_fails(struct shown *shown)
{
    uint64_t messages = shown->numbers.messages;

    if (messages > 0 && shown->unattended) {
        is(shown, MAIL_STANDS, "%" PRIu64 " message%s: no Exim runs that has the store; %s", messages,
           messages == 1 ? " stands" : "s stand",
           !shown->enabled      ? "start Exim with the library (`fastspool enable`), or `fastspool export` to leave"
           : shown->without > 0 ? "restart Exim, which runs without the library"
                                : "start Exim");
        status_add_refusal(shown, shown->line);
        return true;
    }
    if (status_plain_stands(shown, shown->line)) {
        shown->health = MAIL_STANDS;
        return true;
    }
    if (shown->library[0])
        return is(shown, ATTENTION, "Exim's re-executions do not load the library: %s", shown->library);
    return false;
}

static bool view_fails(struct shown *shown)
{
    if (shown->view.state == SEEN_DEAD)
        return is(shown, ATTENTION,
                  "the view is dead: programs without the library see an error, mailq an empty queue; %s",
                  shown->view.mend);
    if (shown->view.state == SEEN_STARTING && shown->view.late)
        return is(shown, ATTENTION,
                  "the view is not mounted after %u s: programs without the library miss messages; syslog says why",
                  shown->view.late);
    if (shown->view.state == SEEN_UNMOUNTED)
        return is(shown, ATTENTION, "the view is not mounted: programs without the library see an empty queue; %s",
                  shown->view.mend);
    if (shown->hidden)
        return is(shown, ATTENTION, "the view hides %" PRIu32 " messages or files of the disk", shown->hidden);
    return false;
}

void status_judge(struct shown *shown)
{
    const struct fastspool_status *s = &shown->numbers;

    if (store_fails(shown) || mirror_stands(shown))
        return;
    if (!shown->recovering && (s->room_bytes < SPOOL_SPACE || s->room_files < SPOOL_INODES))
        is(shown, MAIL_STANDS,
           "there is room for %.1f MiB and %" PRIu64
           " files only: Exim answers 452, by its check_spool_space (10 MiB) or check_spool_inodes (100)",
           (double)s->room_bytes / (1 << 20), s->room_files);
    else if ((shown->other.messages && is_elsewhere(shown)) || mail_is_half_moved(shown) || exim_fails(shown) ||
             view_fails(shown) || is_elsewhere(shown))
        return;
    else if (shown->refusal[0])
        is(shown, ATTENTION, "mail goes by the view alone, more slowly, until this is mended: %s", shown->refusal);
    else if (shown->recovering)
        is(shown, ATTENTION, "it is starting: %u%% is recovered from the disk, and its counts are not whole yet",
           shown->recovered);
    else if (shown->view.state == SEEN_STARTING)
        is(shown, WELL,
           "the view is starting: until it is mounted programs without the library count too few messages, and "
           "`fastspool run -- mailq` shows them all");
    else if (!s->mirror_pid)
        is(shown, ATTENTION,
           "no mirror process runs; the next message starts one, and so does `fastspool run -- true`");
    else
        is(shown, WELL, "all is well");
}
