/* SPDX-License-Identifier: MIT
 *
 * fastspool status: one line that says whether all is well, then the numbers.  With --json: one object.
 *
 * The happy path: the store is ready, its mirror gives signs of life, its commits succeed.
 *
 * Failure modes, the worst first: judge() has them.  Nothing here waits: not for the lock, the mirror, or the view.
 */
#include "base/clock.h"
#include "base/places.h"
#include "config.h"
#include "fastspool.h"
#include "seen.h"
#include "spool/attach.h"
#include "spool/launch.h"
#include "store/section.h"
#include "store/store.h"
#include "tool.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MS(nanoseconds) ((nanoseconds) / NS_PER_MS)

static const char usage[] =
    "usage: fastspool status [--spool DIR] [--json]\n"
    "Shows the state of the spool.  --json: as one JSON object.\n"
    "A view that is dead is mounted again, if root asks.\n"
    "Exit status: 0 all is well; 1 something needs attention; 2 mail stands: Exim can't take or deliver any; 3 the\n"
    "spool is not in use; 64 wrong arguments.\n";

#define SILENT    (5 * NS_PER_S) /* a mirror that has given no sign of life for so long is frozen, or its disk is */
#define LINE_SIZE (2 * FASTSPOOL_ERROR_MAX)

enum health { WELL = 0, ATTENTION = 1, MAIL_STANDS = 2, NOT_IN_USE = 3 };

/* ---- what is shown ---- */

struct shown {
    const char *spool;
    const char *failure;             /* NULL: none */
    const char *recovery;            /* why it can't go on, NULL: it can */
    char sentence[SECTION_SENTENCE]; /* of either */
    bool recovering;
    char refusal[FASTSPOOL_ERROR_MAX]; /* why Exim does not believe the configuration, "": it does */
    int no_tool;                       /* errno: no mirror can be started */
    uint64_t late;                     /* age in ns from which on a change should be on the disk */
    struct fastspool_status numbers;
    struct seen view;
    pid_t view_pid;
    uint32_t locked; /* what the import has left on the disk, as in view_state */
    uint32_t conflicts;
    uint32_t left;
    uint32_t hidden; /* of it: by the view */
    bool again;      /* a view that was dead is started again */
    enum health health;
    char line[LINE_SIZE]; /* why */
};

/* @wanted: the configuration says `view = auto`. */
static void look(struct fastspool *fs, bool wanted, struct shown *shown)
{
    const struct view_state *view = &fs->header->view;

    shown->spool = fs->spool;
    shown->failure = fastspool_status(fs, &shown->numbers) < 0 ? section_sentence(fs->header, shown->sentence) : NULL;
    seen_look(fs, wanted, &shown->view);
    shown->view_pid = launch_view_holder(fs->state);
    shown->locked = LOAD(view->locked);
    shown->conflicts = LOAD(view->conflicts);
    shown->left = LOAD(view->left);
    if (LOAD(view->status) == VIEW_MOUNTED)
        shown->hidden = shown->locked + shown->conflicts + shown->left;
    struct fastspool_config believed;
    if (fastspool_config_load(&believed, NULL, false, shown->refusal) == 0)
        shown->refusal[0] = '\0';
    shown->recovering = LOAD(fs->header->state) == SEGMENT_RECOVERING;
    if (shown->recovering && LOAD(fs->header->recovery.error))
        shown->recovery = section_sentence(fs->header, shown->sentence);
    shown->no_tool = access(FASTSPOOL_TOOL, X_OK) < 0 ? errno : 0;
    shown->late = SILENT + fs->header->flush_interval;
}

/* ---- the judgement ---- */

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
        return is(shown, MAIL_STANDS, "FAILED: %.255s", shown->failure);
    if (shown->recovery)
        return is(shown, MAIL_STANDS, "it can't be recovered yet: %.255s", shown->recovery);
    if (shown->refusal[0])
        return is(shown, MAIL_STANDS, "Exim may not use it: %s", shown->refusal);
    if (s->commit_error)
        return is(shown, MAIL_STANDS, "the last commit failed: %s", strerrordesc_np(-s->commit_error));
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
    if (s->mirror_pid && !shown->recovering && s->mirror_silent_ns > SILENT)
        return is(shown, MAIL_STANDS,
                  "the mirror, process %ld, has given no sign of life for %llu s: it is stopped, or the disk does not "
                  "answer; %llu %s, and the oldest change that is not on the disk is %llu s old",
                  (long)s->mirror_pid, silent, waiters, wait, age);
    if (s->unflushed_ns > shown->late)
        return is(shown, MAIL_STANDS, "a change of %llu s ago is not on the disk, and %llu %s%s", age, waiters, wait,
                  s->mirror_pid ? "" : "; no mirror process runs");
    return false;
}

static bool view_fails(struct shown *shown)
{
    if (shown->view.state == SEEN_DEAD)
        return is(shown, ATTENTION,
                  "the view is dead: programs without the library see an error, mailq an empty queue; %s",
                  shown->again ? "it is being mounted again" : shown->view.mend);
    if (shown->view.state == SEEN_STARTING && shown->view.late)
        return is(shown, ATTENTION,
                  "the view is not mounted after %u s: programs without the library miss messages; syslog says why",
                  shown->view.late);
    if (shown->hidden)
        return is(shown, ATTENTION, "the view hides %" PRIu32 " messages or files of the disk", shown->hidden);
    return false;
}

static void judge(struct shown *shown)
{
    const struct fastspool_status *s = &shown->numbers;

    if (store_fails(shown) || mirror_stands(shown))
        return;
    if (!shown->recovering && (!s->room_bytes || !s->room_files))
        is(shown, MAIL_STANDS, "there is no room for another file: Exim answers 452");
    else if (view_fails(shown))
        return;
    else if (shown->recovering)
        is(shown, ATTENTION, "it is being recovered from the disk");
    else if (shown->view.state == SEEN_STARTING)
        is(shown, WELL, "the view is starting");
    else if (!s->mirror_pid)
        is(shown, WELL, "no mirror process runs; the next message starts one");
    else
        is(shown, WELL, "all is well");
}

/* ---- output ---- */

static void print_json(const struct shown *shown)
{
    const struct fastspool_status *s = &shown->numbers;
    const struct {
        const char *name;
        uint64_t value;
    } numbers[] = {
        {"messages", s->messages},
        {"files", s->files},
        {"memory_bytes", s->memory_bytes},
        {"memory_limit", s->memory_limit},
        {"open_bytes", s->open_bytes},
        {"evicted_files", s->evicted_files},
        {"spilled_files", s->spilled_files},
        {"evictions", s->evictions},
        {"brought_back", s->brought_back},
        {"room_bytes", s->room_bytes},
        {"room_files", s->room_files},
        {"dirty_bytes", s->dirty_bytes},
        {"dirty_files", s->dirty_files},
        {"unflushed_ms", MS(s->unflushed_ns)},
        {"commit_ms", MS(s->commit_ns)},
        {"commits", s->commits},
        {"commit_p50_ns", s->commit_p50_ns},
        {"commit_p99_ns", s->commit_p99_ns},
        {"descriptions", s->descriptions},
        {"commit_error", (uint64_t)-s->commit_error},
        {"mirror_pid", (uint64_t)s->mirror_pid},
        {"mirror_silent_ms", MS(s->mirror_silent_ns)},
        {"waiters", s->waiters},
        {"health", shown->health},
        {"view_pid", (uint64_t)shown->view_pid},
        {"disk_locked", shown->locked},
        {"disk_conflicts", shown->conflicts},
        {"disk_left", shown->left},
        {"disk_hidden", shown->hidden},
    };

    printf("{\"spool\": ");
    tool_print_json(shown->spool);
    printf(", \"durability\": \"%s\"", fastspool_durability_name(s->durability));
    for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++)
        printf(", \"%s\": %" PRIu64, numbers[i].name, numbers[i].value);
    printf(", \"line\": ");
    tool_print_json(shown->line);
    printf(", \"view_state\": \"%s\", \"view\": ", seen_name(shown->view.state));
    tool_print_json(shown->view.line);
    printf(", \"failed\": %s}\n", shown->failure ? "true" : "false");
}

/* Only where there is something to say. */
static void print_left(const struct shown *shown)
{
    const struct {
        uint32_t number;
        const char *why;
    } reasons[] = {{shown->locked, "that processes work on"},
                   {shown->conflicts, "of which the store has others"},
                   {shown->left, "that can't be taken"}};
    const char *separator = "  on the disk  ";

    for (size_t i = 0; i < sizeof(reasons) / sizeof(reasons[0]); i++) {
        if (!reasons[i].number)
            continue;
        printf("%s%" PRIu32 " %s", separator, reasons[i].number, reasons[i].why);
        separator = ", ";
    }
    if (shown->locked || shown->conflicts || shown->left)
        printf("%s\n", shown->hidden ? ": hidden by the view" : "");
}

static void print_text(const struct shown *shown)
{
    const struct fastspool_status *s = &shown->numbers;

    printf("%s: %s\n", shown->spool, shown->line);
    printf("  durability   %s\n", fastspool_durability_name(s->durability));
    printf("  messages     %" PRIu64 "\n", s->messages);
    printf("  files        %" PRIu64 ", %" PRIu64 " open descriptions\n", s->files, s->descriptions);
    printf("  memory       %.1f MiB of %.0f MiB; open files hold %.1f MiB\n", (double)s->memory_bytes / 1048576,
           (double)s->memory_limit / 1048576, (double)s->open_bytes / 1048576);
    printf("  evicted      %" PRIu64 " files; %" PRIu64 " evictions and %" PRIu64 " page-ins so far\n",
           s->evicted_files, s->evictions, s->brought_back);
    printf("  room         for %.1f MiB and %" PRIu64 " files\n", (double)s->room_bytes / 1048576, s->room_files);
    printf("  not on disk  %" PRIu64 " files, %.1f MiB; the oldest change is %" PRIu64 " ms old\n", s->dirty_files,
           (double)s->dirty_bytes / 1048576, MS(s->unflushed_ns));
    printf("  commits      %" PRIu64 "; median %.1f ms, 99th percentile %.1f ms\n", s->commits,
           (double)s->commit_p50_ns / 1e6, (double)s->commit_p99_ns / 1e6);
    if (s->mirror_pid)
        printf("  mirror       process %ld, last sign of life %.1f s ago\n", (long)s->mirror_pid,
               (double)s->mirror_silent_ns / 1e9);
    printf("  waiting      %" PRIu64 " processes\n", s->waiters);
    printf("  view         %s\n", shown->view.line);
    print_left(shown);
}

/* After a reboot, and before anybody with the library has come.  Where the database is, there may be mail. */
static enum health say_disk(const struct fastspool_config *config)
{
    char path[PATH_MAX];
    const char *state = config->state[0] ? config->state : PLACES_STATE;

    snprintf(path, sizeof(path), "%s%s%s/" PLACES_DATABASE "/data.mdb", config->state[0] ? "" : config->spool[0],
             config->state[0] ? "" : "/", state);
    if (access(path, F_OK) < 0)
        return NOT_IN_USE;
    tool_error(
        "mail that it has on the disk is not counted here, and is not lost: the next start of Exim with the "
        "library brings it back, and so does `fastspool view %s`",
        config->spool[0]);
    return ATTENTION;
}

/* Where there is no store to ask.  What keeps this process from it keeps Exim, too, but for a lack of rights. */
static enum health without_store(const struct fastspool_config *config, int result, const char *error)
{
    tool_error("%s", error);
    if (access(config->spool[0], F_OK) < 0 || result == -EACCES)
        return ATTENTION;
    return result == -ENOENT ? say_disk(config) : MAIL_STANDS;
}

int tool_status(int argc, char **argv)
{
    struct shown shown = {0};
    struct fastspool_config config;
    struct fastspool *fs;
    char error[FASTSPOOL_ERROR_MAX];
    bool json = false;
    const char *spool = tool_only_options(argc, argv, &json, usage);

    if (tool_config(&config, spool) != 0)
        return config.spools ? MAIL_STANDS : NOT_IN_USE;
    int result = attach_open(config.spool[0], &config, &fs, error);
    if (result < 0)
        return (int)without_store(&config, result, error);
    look(fs, config.view, &shown);
    shown.again = config.view && tool_mount_again(fs, shown.view.state);
    judge(&shown);
    if (json)
        print_json(&shown);
    else
        print_text(&shown);
    fastspool_detach(fs);
    return (int)shown.health;
}
