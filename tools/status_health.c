/* SPDX-License-Identifier: MIT
 *
 * How the spool is: the worst that is true of it, in one line, and the exit status that goes with it.
 */
#include "base/escape.h"
#include "command.h"
#include "config.h"
#include "doctor.h"
#include "exims.h"
#include "moved.h"
#include "status.h"
#include "tool.h"
#include "unit.h"
#include "ways.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define SPOOL_SPACE  (UINT64_C(10) << 20) /* Exim's defaults: with less room it takes no message */
#define SPOOL_INODES 100

static __attribute__((format(printf, 3, 4))) bool is(struct shown *shown, enum condition condition, const char *format,
                                                     ...)
{
    va_list arguments;

    shown->health = severity_of(condition);
    va_start(arguments, format);
    vsnprintf(shown->line, sizeof(shown->line), format, arguments);
    va_end(arguments);
    return true;
}

/* If @is_true, the line says so already. */
static bool is_said(struct shown *shown, enum condition condition, bool is_true)
{
    if (is_true)
        shown->health = severity_of(condition);
    return is_true;
}

static bool store_fails(struct shown *shown)
{
    const struct fastspool_status *s = &shown->numbers;

    if (shown->failure)
        return is(shown, STORE_FAILS,
                  "FAILED: %.255s; `fastspool verify` says what is damaged, `man fastspool-verify` what to do",
                  shown->failure);
    if (shown->unusable[0] && shown->stands)
        return is(shown, STATE_FAILS, "%s; until that is mended Exim takes no mail", shown->unusable);
    if (shown->recovery)
        return is(
            shown, STORE_FAILS,
            "it can't be recovered yet: %.255s%s; where that does not pass, `fastspool verify` says what is damaged",
            shown->recovery,
            s->mirror_pid ? ""
                          : "; the next start of Exim with the library tries again, and so does `fastspool run "
                            "-- true`");
    if (shown->refusal[0] && shown->view.state != SEEN_MOUNTED)
        return is(shown, CONFIGURATION_REFUSED,
                  "Exim may not use it: %s; mend that, and Exim looks again; until then %s", shown->refusal,
                  status_until_mended(false, !shown->unattended));
    if (s->commit_error == -ESTALE)
        return is(
            shown, COMMITS_FAIL,
            "a part of what it had on the disk is gone, and memory alone has that mail: syslog says which part; mount "
            "its disk, or put it back; until then Exim takes and delivers no mail; if it is lost for good, `fastspool "
            "flush --anew` writes all that is in memory to the disk anew");
    if (s->commit_error == -EROFS || shown->read_only)
        return is(
            shown, COMMITS_FAIL,
            "its disk is read-only, and Exim takes no mail: where an error has made it so (`dmesg` says that) stop "
            "Exim, unmount it, run fsck, mount it, and start Exim");
    if (s->commit_error)
        return is(shown, COMMITS_FAIL, "the last commit failed: %s; %s: it is tried again",
                  strerrordesc_np(-s->commit_error),
                  shown->locker[0] ? shown->locker : "syslog says more; see that the disk works and has room");
    return false;
}

/* What makes every call wait that needs the disk. */
static bool mirror_stands(struct shown *shown)
{
    const struct fastspool_status *s = &shown->numbers;
    unsigned long long silent = s->mirror_silent_ns / NS_PER_S, age = s->unflushed_ns / NS_PER_S, waiters = s->waiters;
    const char *wait = waiters == 1 ? "process waits" : "processes wait";

    if (!s->mirror_pid && shown->no_tool)
        return is(shown, MIRROR_STANDS, "no mirror process runs, and none can be started: %s: %s; %s", FASTSPOOL_TOOL,
                  strerrordesc_np(shown->no_tool), ways_install(false));
    if (s->mirror_pid && !shown->recovering && s->mirror_silent_ns > STATUS_SILENT)
        return is(
            shown, MIRROR_STANDS,
            "the mirror, process %ld, has given no sign of life for %llu s: it is stopped, or the disk does not "
            "answer; %llu %s, and the oldest change that is not on the disk is %llu s old; `kill -CONT %ld` lets a "
            "stopped one go on, `dmesg` says what the disk has",
            (long)s->mirror_pid, silent, waiters, wait, age, (long)s->mirror_pid);
    if (s->unflushed_ns > shown->late)
        return is(shown, MIRROR_STANDS, "a change of %llu s ago is not on the disk, and %llu %s%s", age, waiters, wait,
                  s->mirror_pid ? "" : "; no mirror process runs: `fastspool run -- true` starts one");
    return false;
}

/* Commits go on until the journal is full. */
static bool checkpoints_fail(struct shown *shown)
{
    int error = shown->checkpoint_error;

    return error && is(shown, NOT_CHECKPOINTED,
                       "the journal can't be written into the database, and grows: %s; mail goes on until the journal "
                       "is full; %s: %s",
                       strerrordesc_np(-error),
                       shown->numbers.mirror_pid ? "it is tried again each second"
                                                 : "the next message, or `fastspool run -- true`, starts a mirror that "
                                                   "tries it again",
                       shown->locker[0] ? shown->locker : "syslog says more");
}

/* Mail that the next Exim does not find, as `state` leads elsewhere. */
static bool is_elsewhere(struct shown *shown)
{
    char found[STATES_SENTENCE], mend[STATES_SENTENCE];

    if (!shown->other.state[0])
        return false;
    states_describe(&shown->other, found, mend);
    return is(shown, shown->other.messages ? OTHER_MAIL : OTHER_MIRROR, "%s; %s", found, mend);
}

/* Exim's own spool is not this one. */
static bool is_unnamed(struct shown *shown)
{
    return shown->unnamed[0] && is(shown, SPOOL_UNNAMED, STATUS_UNNAMED, shown->unnamed, shown->unnamed);
}

const char *status_until_mended(bool viewed, bool attended)
{
    return viewed     ? "mail goes by the view, more slowly"
           : attended ? "an Exim that has the store takes mail into it, and delivers none; what starts takes none"
                      : "Exim takes and delivers no mail";
}

bool status_add_refusal(const struct shown *shown, char line[STATUS_LINE])
{
    static const char prefix[] = "fastspool: Exim must not start so: ";
    const char *const arguments[] = {"sh",
                                     "-c",
                                     "exec \"$0\" doctor --start \"$@\" 2>&1",
                                     FASTSPOOL_TOOL,
                                     shown->enabled ? NULL : "--preload=" EXIMS_LIBRARY,
                                     NULL};
    char output[COMMAND_OUTPUT];
    size_t length = strlen(line);

    char *why = geteuid() == 0 && command_run(arguments, NULL, output) != 0 ? strstr(output, prefix) : NULL;
    if (!why)
        return false;
    why += strlen(prefix);
    why[strcspn(why, "\n")] = '\0';
    char *mend = strstr(why, DOCTOR_TO_DO); /* doctor says this sentence itself as what is to be done */
    snprintf(line + length, STATUS_LINE - length, "%s%s: %.*s%s%s", length ? "; " : "",
             shown->enabled ? "its start would be refused" : "with the library it would not be served",
             mend ? (int)(mend - why) : INT_MAX, why, mend ? "; " : "", mend ? mend + strlen(DOCTOR_TO_DO) : "");
    return true;
}

void status_add_start(const struct shown *shown, char line[STATUS_LINE], const char *format, ...)
{
    size_t length = strlen(line);
    va_list arguments;

    if (status_add_refusal(shown, line))
        return;
    va_start(arguments, format);
    vsnprintf(line + length, STATUS_LINE - length, format, arguments);
    va_end(arguments);
}

/* To @line, behind @link, why no queue run comes where none is a daemon's, and what to do; else the advice to start
 * Exim. */
static void add_jobs_or_start(const struct shown *shown, char line[STATUS_LINE], const char *link)
{
    size_t length = strlen(line);

    if (shown->jobs.alone)
        snprintf(line + length, STATUS_LINE - length, "%s%s: %s", link, jobs_describe(&shown->jobs),
                 jobs_mend(&shown->jobs));
    else
        status_add_start(shown, line, "%sstart Exim, %s", link, ways_command("start"));
}

bool status_plain_stands(const struct shown *shown, char line[STATUS_LINE])
{
    if (shown->on_disk <= 0 || !shown->enabled || !shown->unattended || shown->without != 0 ||
        shown->view.state == SEEN_MOUNTED || shown->jobs.file[0])
        return false;
    snprintf(line, STATUS_LINE, "%" PRId64 " message%s on the plain disk stand%s", shown->on_disk,
             shown->on_disk == 1 ? "" : "s", shown->on_disk == 1 ? "s" : "");
    add_jobs_or_start(shown, line, ": ");
    return true;
}

bool status_half_moved(const struct census *c, char line[STATUS_LINE])
{
    if (c->half == 0)
        return false;
    const char *call = !c->exports    ? "`fastspool import` again to finish"
                       : c->elsewhere ? "`fastspool export DIRECTORY` again to finish, with the directory of before"
                                      : "`fastspool export` again to finish, or `fastspool import` to take all back";
    char word[ESCAPE_WORD_ROOM(FASTSPOOL_PATH_MAX)], again[sizeof(word) + 160];
    snprintf(again, sizeof(again),
             "`fastspool export %s` again to finish, if that is the directory of before: a file that the mail user can "
             "write says so",
             escape_word(word, sizeof(word), c->to));
    snprintf(line, STATUS_LINE, "%" PRIu64 " message%s half moved, and no Exim finds %s: run %s", c->half,
             c->half == 1 ? " is" : "s are", c->half == 1 ? "it" : "them",
             c->elsewhere && c->to[0] == '/' ? again : call);
    return true;
}

bool status_is_stranded(const struct shown *shown, char line[STATUS_LINE])
{
    char word[ESCAPE_WORD_ROOM(MOUNTPOINT_PLACE)];

    if (!shown->found.stranded)
        return false;
    if (shown->found.over[0])
        return snprintf(line, STATUS_LINE, "Exim, process %ld, " MOVED_BELOW ": " MOVED_UNMOUNT,
                        (long)shown->found.stranded, shown->found.moved, shown->found.over,
                        escape_word(word, sizeof(word), shown->found.over)) > 0;
    if (shown->found.moved[0])
        return snprintf(line, STATUS_LINE, "Exim, process %ld, " MOVED_FOUND ": " MOVED_MEND,
                        (long)shown->found.stranded, shown->found.moved) > 0;
    snprintf(line, STATUS_LINE,
             "Exim, process %ld, has a store that was removed by hand, its memory or its locks, and takes no mail",
             (long)shown->found.stranded);
    status_add_start(shown, line, ": restart Exim, %s; where that does not end it, `kill %ld`", ways_command("restart"),
                     (long)shown->found.stranded);
    return true;
}

bool status_differs(const struct shown *shown, char line[STATUS_LINE])
{
    if (!shown->differs[0])
        return false;
    snprintf(line, STATUS_LINE, "%s: an Exim that starts takes no mail, and one that runs delivers none; %s",
             shown->differs, ways_install_both());
    return true;
}

bool status_is_left(const struct shown *shown, uint64_t messages, char line[STATUS_LINE])
{
    char word[ESCAPE_WORD_ROOM(FASTSPOOL_PATH_MAX)];

    if (!shown->exims[0] || shown->found.configured)
        return false;
    if (messages == 0)
        snprintf(
            line, STATUS_LINE,
            "Exim's spool_directory is another one, %s, and what it takes there is on that disk alone: say `spool = "
            "%s` in " FASTSPOOL_CONFIG ", or give Exim this one",
            shown->exims, shown->exims);
    else
        snprintf(line, STATUS_LINE,
                 "%" PRIu64
                 " message%s: Exim's spool_directory is another one, %s; give Exim this one again, and "
                 "restart it; or stop Exim, and `fastspool export --yes %s` moves %s there",
                 messages, messages == 1 ? " stands" : "s stand", shown->exims,
                 escape_word(word, sizeof(word), shown->exims), messages == 1 ? "it" : "them");
    return true;
}

/* A sandbox of its service. */
static bool exim_is_blind(struct shown *shown)
{
    return shown->blind && is(shown, EXIM_BLIND, "Exim, process %ld: " EXIMS_BLIND "; %s", (long)shown->blind,
                              shown->runtime, exims_bind(shown->runtime));
}

/* By a link. */
static bool spool_is_miscalled(struct shown *shown)
{
    bool viewed = shown->view.state == SEEN_MOUNTED;

    return shown->miscalled[0] &&
           is(shown, viewed ? SPOOL_MISCALLED_ON_VIEW : SPOOL_MISCALLED,
              "Exim's spool_directory is %s, a link that `spool` in " FASTSPOOL_CONFIG
              " does not name, and the library goes by no other: %s; say `spool = %s` there, and restart Exim",
              shown->miscalled, viewed ? "Exim works on the view, more slowly" : "Exim does not use the store",
              shown->miscalled);
}

/* Exim's spool_directory was changed. */
static bool spool_is_left(struct shown *shown)
{
    uint64_t messages = shown->numbers.messages;
    return is_said(shown, messages ? MAIL_LEFT : SPOOL_LEFT, status_is_left(shown, messages, shown->line));
}

/* What the store, or the disk, lacks is an Exim. */
static bool exim_fails(struct shown *shown)
{
    uint64_t messages = shown->numbers.messages;

    if (messages > 0 && shown->unattended && !shown->jobs.served) {
        const char *leave = shown->enabled ? "" : "; or `fastspool export` to leave";
        bool plain = shown->without > 0;
        is(shown, MAIL_UNATTENDED, "%" PRIu64 " message%s: no Exim runs that has the store%s", messages,
           messages == 1 ? " stands" : "s stand", plain ? ", and what runs has not got the library" : "");
        if (plain && !shown->jobs.alone)
            status_add_start(shown, shown->line, "; %s%s", unit_restart(shown->found.plain, shown->enabled), leave);
        else if (shown->jobs.alone)
            add_jobs_or_start(shown, shown->line, "; ");
        else
            status_add_start(shown, shown->line, "; %sstart Exim, %s%s",
                             shown->enabled ? "" : "`fastspool enable`, and ", ways_command("start"), leave);
        return true;
    }
    return is_said(shown, PLAIN_UNATTENDED, status_plain_stands(shown, shown->line));
}

/* What a daemon that has the store takes is in the store.  Its deliveries are re-executions. */
static bool library_is_lost(struct shown *shown)
{
    bool viewed = shown->view.state == SEEN_MOUNTED && !shown->fatal;

    return shown->library[0] &&
           is(shown, viewed || shown->unattended ? LIBRARY_LOST : LIBRARY_LOST_ON_DISK, "Exim's re-executions %s%s: %s",
              shown->fatal ? "end at once with the library" : "do not load the library",
              viewed              ? ", and work on the view, more slowly"
              : shown->unattended ? ""
                                  : "; it takes mail, and delivers none",
              shown->library);
}

/* Exim has it all the same. */
static bool library_is_exposed(struct shown *shown)
{
    return shown->exposed[0] && is(shown, LIBRARY_EXPOSED, "%s", shown->exposed);
}

/* Nobody has them: not those either of which the store has others. */
static bool view_hides_mail(struct shown *shown)
{
    int64_t messages = (shown->on_disk > 0 ? shown->on_disk : 0) + shown->conflicts;

    char word[ESCAPE_WORD_ROOM(FASTSPOOL_PATH_MAX)];

    return shown->view.state == SEEN_MOUNTED && messages > 0 &&
           is(shown, PLAIN_HIDDEN, "the view hides %" PRId64 " message%s of the disk; " STATUS_HIDDEN, messages,
              tool_plural((uint64_t)messages), escape_word(word, sizeof(word), shown->spool));
}

/* What takes mail, and does not use the store. */
static bool exim_is_plain(struct shown *shown)
{
    bool viewed = shown->view.state == SEEN_MOUNTED;

    if (shown->found.daemons == 0)
        return false;
    is(shown, viewed ? EXIM_ON_VIEW : EXIM_ON_DISK, "%zu Exim daemon%s without the library, %s", shown->found.daemons,
       shown->found.daemons == 1 ? " runs" : "s run",
       viewed ? "on the view, more slowly" : "and sees, and takes, mail on the disk alone");
    status_add_start(shown, shown->line, "; %s", unit_restart(shown->found.plain, shown->enabled));
    return true;
}

/* A queue run, or one that takes a message: what it leaves stands when it has ended. */
static bool exim_passes(struct shown *shown)
{
    uint64_t messages = shown->numbers.messages;

    if (messages == 0 || !shown->passing || shown->jobs.served)
        return false;
    is(shown, EXIM_PASSES, "%" PRIu64 " message%s, and no Exim daemon runs: the Exim that has the store ends soon",
       messages, tool_plural(messages));
    add_jobs_or_start(shown, shown->line, "; ");
    return true;
}

/* What waits for cron's next queue run does not stand. */
static void all_is_well(struct shown *shown)
{
    uint64_t messages = shown->numbers.messages;

    if (messages > 0 && shown->jobs.served)
        is(shown, IN_ORDER, "all is well: %" PRIu64 " message%s for the next queue run; %s", messages,
           messages == 1 ? " waits" : "s wait", jobs_describe(&shown->jobs));
    else
        is(shown, IN_ORDER, "all is well");
}

/* What has been opened stays open. */
static bool state_is_lost(struct shown *shown)
{
    return shown->unusable[0] &&
           is(shown, STATE_LOST,
              "%s; mail is taken now, as the mirror, process %ld, has open what it needs; when it needs more of that, "
              "and after its end, Exim takes none",
              shown->unusable, (long)shown->numbers.mirror_pid);
}

/* The one that is there has its memory, whatever becomes of the place. */
static bool memory_is_lost(struct shown *shown)
{
    return shown->memory[0] &&
           is(shown, MEMORY_LOST, "mail is taken now, and none after `fastspool stop` or a reboot: %s", shown->memory);
}

static bool view_fails(struct shown *shown)
{
    char word[ESCAPE_WORD_ROOM(FASTSPOOL_PATH_MAX)];

    if (shown->view.stopped)
        return is(shown, VIEW_STOPPED,
                  "the view, process %ld, does not answer: programs without the library wait, as does mailq; %s",
                  (long)shown->view.stopped, shown->view.mend);
    if (shown->view.state == SEEN_DEAD)
        return is(shown, VIEW_DEAD,
                  "the view is dead: programs without the library see an error, mailq an empty queue; %s",
                  shown->view.mend);
    if (shown->view.locker[0] && shown->view.state != SEEN_MOUNTED)
        return is(shown, VIEW_LOCKED, "no view can be mounted, and programs without the library see an empty queue: %s",
                  shown->view.locker);
    if (shown->view.state == SEEN_STARTING && shown->view.late)
        return is(shown, VIEW_STARTING,
                  "the view is not mounted after %u s: programs without the library miss messages; syslog says why",
                  shown->view.late);
    if (shown->view.state == SEEN_UNMOUNTED)
        return is(shown, VIEW_UNMOUNTED, "the view is not mounted: programs without the library see an empty queue; %s",
                  shown->view.mend);
    if (shown->view.covered)
        return is(shown, VIEW_COVERED, "the view is %s: programs without the library do not see the store; %s",
                  shown->view.line, shown->view.mend);
    if (shown->hidden)
        return is(shown, VIEW_HIDES, "the view hides %" PRIu32 " message%s or file%s of the disk; " STATUS_HIDDEN,
                  shown->hidden, tool_plural(shown->hidden), tool_plural(shown->hidden),
                  escape_word(word, sizeof(word), shown->spool));
    if (shown->view.locker[0])
        return is(shown, VIEW_LAST, "the view is mounted, and after its end no other one can be: %s",
                  shown->view.locker);
    return false;
}

/* What fits into `memory`, and not into what is left of it, gets 451 after its data.  (The path is as the mail user has
 * written it into the state.) */
static bool memory_is_filled(struct shown *shown)
{
    char above[FASTSPOOL_PATH_MAX], word[ESCAPE_WORD_ROOM(FASTSPOOL_PATH_MAX)];

    if (!shown->spared)
        return false;
    snprintf(above, sizeof(above), "%.*s", (int)(strrchr(shown->runtime, '/') - shown->runtime), shown->runtime);
    return is(shown, MEMORY_FILLED,
              "other files leave the store %.1f of %.1f MiB: a message that finds no room there gets 451 "
              "after its data; `ls -la %s` says whose they are",
              (double)shown->spared / (1 << 20), (double)shown->numbers.memory_limit / (1 << 20),
              escape_word(word, sizeof(word), above));
}

bool status_refuses_large(uint64_t largest, uint64_t exim, char line[STATUS_LINE])
{
    if (exim <= largest)
        return false;
    snprintf(line, STATUS_LINE,
             "a message of more than about %.1f MiB gets 451 after its data, as it does not fit into memory, and Exim "
             "takes mail of up to %.1f MiB: raise `memory` in " FASTSPOOL_CONFIG
             ", or lower message_size_limit in Exim's configuration, so that it gets 552 before",
             (double)largest / (1 << 20), (double)exim / (1 << 20));
    return true;
}

void status_judge(struct shown *shown)
{
    const struct fastspool_status *s = &shown->numbers;
    char word[ESCAPE_WORD_ROOM(FASTSPOOL_PATH_MAX)];

    if (store_fails(shown) || is_said(shown, QUEUE_CLOSED, shown->queues == QUEUES_REFUSED) || mirror_stands(shown))
        return;
    if (!shown->recovering && (s->room_bytes < SPOOL_SPACE || s->room_files < SPOOL_INODES))
        is(shown, NO_ROOM,
           "there is room for %.1f MiB and %" PRIu64
           " files only: Exim answers 452, by its check_spool_space (10 MiB) or check_spool_inodes (100); `df -h %s` "
           "and `df -i` say whether that disk is full, else raise `memory` in " FASTSPOOL_CONFIG,
           (double)s->room_bytes / (1 << 20), s->room_files,
           escape_word(word, sizeof(word), shown->config->state[0] ? shown->config->state : shown->spool));
    else if ((shown->other.messages && is_elsewhere(shown)) || is_unnamed(shown) ||
             is_said(shown, MAIL_HALF_MOVED, !shown->moves && status_half_moved(&shown->census, shown->line)) ||
             is_said(shown, EXIM_STRANDED, status_is_stranded(shown, shown->line)) ||
             is_said(shown, LIBRARY_DIFFERS, status_differs(shown, shown->line)) || exim_fails(shown) ||
             spool_is_left(shown) || spool_is_miscalled(shown) || exim_is_blind(shown) || library_is_lost(shown) ||
             library_is_exposed(shown) || view_hides_mail(shown) || state_is_lost(shown) || memory_is_lost(shown) ||
             view_fails(shown) || is_elsewhere(shown))
        return;
    else if (shown->refusal[0])
        is(shown, CONFIGURATION_REFUSED_ON_VIEW, "%s until this is mended: %s",
           shown->unattended && shown->without == 0 && shown->enabled ? "no Exim runs, and its start is refused"
                                                                      : "mail goes by the view alone, more slowly,",
           shown->refusal);
    else if (shown->recovering)
        is(shown, RECOVERING, "it is starting: %u%% is recovered from the disk, and its counts are not whole yet",
           shown->recovered);
    else if (shown->view.state == SEEN_STARTING)
        is(shown, VIEW_STARTING,
           "the view is starting: until it is mounted programs without the library count too few messages, and "
           "`fastspool run -- mailq` shows them all");
    else if (checkpoints_fail(shown) || exim_is_plain(shown) || exim_passes(shown))
        return;
    else if (!s->mirror_pid)
        is(shown, NO_MIRROR,
           "no mirror process runs; the next message starts one, and so does `fastspool run -- true`");
    else if (!memory_is_filled(shown) && !is_said(shown, QUEUES_MANY, shown->queues == QUEUES_UNSEEN) &&
             !is_said(shown, LARGE_REFUSED, status_refuses_large(s->largest_bytes, shown->exim_limit, shown->line)))
        all_is_well(shown);
}
