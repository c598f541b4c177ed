/* SPDX-License-Identifier: MIT
 *
 * fastspool status: one line that says whether all is well, then the numbers.  With --json: one object.
 */
#include "base/clock.h"
#include "base/places.h"
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
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MS(nanoseconds) ((nanoseconds) / NS_PER_MS)

static const char usage[] =
    "usage: fastspool status [--spool DIR] [--json]\n"
    "Shows the state of the spool.  --json: as one JSON object.\n"
    "A view that is dead is mounted again, if root asks.\n"
    "Exit status: 0 all is well; 1 the store or the last commit failed, the view is dead or hides files, or there is "
    "no\n"
    "store; 2 wrong arguments.\n";

/* ---- what is shown ---- */

struct shown {
    const char *spool;
    const char *failure; /* NULL: none */
    char sentence[SECTION_SENTENCE];
    struct fastspool_status numbers;
    struct seen view;
    pid_t view_pid;
    uint32_t locked; /* what the import has left on the disk, as in view_state */
    uint32_t conflicts;
    uint32_t left;
    uint32_t hidden; /* of it: by the view */
    bool again;      /* a view that was dead is started again */
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
    printf(", \"view_state\": \"%s\", \"view\": ", seen_name(shown->view.state));
    tool_print_json(shown->view.line);
    printf(", \"failed\": %s}\n", shown->failure ? "true" : "false");
}

static void print_verdict(const struct shown *shown)
{
    const struct fastspool_status *s = &shown->numbers;

    printf("%s: ", shown->spool);
    if (shown->failure)
        printf("FAILED: %s\n", shown->failure);
    else if (s->commit_error)
        printf("the last commit failed: %s\n", strerrordesc_np(-s->commit_error));
    else if (shown->view.state == SEEN_DEAD)
        printf("the view is dead: programs without the library see an error, mailq an empty queue; %s\n",
               shown->again ? "it is being mounted again" : shown->view.mend);
    else if (shown->hidden)
        printf("the view hides %" PRIu32 " messages or files of the disk\n", shown->hidden);
    else if (!s->mirror_pid)
        printf("no mirror process runs; the next message starts one\n");
    else
        printf("all is well\n");
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

    print_verdict(shown);
    printf("  durability   %s\n", fastspool_durability_name(s->durability));
    printf("  messages     %" PRIu64 "\n", s->messages);
    printf("  files        %" PRIu64 ", %" PRIu64 " open descriptions\n", s->files, s->descriptions);
    printf("  memory       %.1f MiB of %.0f MiB\n", (double)s->memory_bytes / 1048576,
           (double)s->memory_limit / 1048576);
    printf("  evicted      %" PRIu64 " files; %" PRIu64 " evictions and %" PRIu64 " page-ins so far\n",
           s->evicted_files, s->evictions, s->brought_back);
    printf("  room         for %.1f MiB and %" PRIu64 " files\n", (double)s->room_bytes / 1048576, s->room_files);
    printf("  not on disk  %" PRIu64 " files, %.1f MiB; the oldest change is %" PRIu64 " ms old\n", s->dirty_files,
           (double)s->dirty_bytes / 1048576, MS(s->unflushed_ns));
    printf("  commits      %" PRIu64 "; median %.1f ms, 99th percentile %.1f ms\n", s->commits,
           (double)s->commit_p50_ns / 1e6, (double)s->commit_p99_ns / 1e6);
    if (s->mirror_pid)
        printf("  mirror       process %ld\n", (long)s->mirror_pid);
    printf("  view         %s\n", shown->view.line);
    print_left(shown);
}

/* After a reboot, and before anybody with the library has come.  Where the database is, there may be mail. */
static void say_disk(const struct fastspool_config *config)
{
    char path[PATH_MAX];
    const char *state = config->state[0] ? config->state : PLACES_STATE;

    snprintf(path, sizeof(path), "%s%s%s/" PLACES_DATABASE "/data.mdb", config->state[0] ? "" : config->spool[0],
             config->state[0] ? "" : "/", state);
    if (access(path, F_OK) == 0)
        tool_error(
            "mail that it has on the disk is not counted here, and is not lost: the next start of Exim with the "
            "library brings it back, and so does `fastspool view %s`",
            config->spool[0]);
}

static struct fastspool *attach(const struct fastspool_config *config)
{
    struct fastspool *fs = NULL;
    char error[FASTSPOOL_ERROR_MAX];
    int result = attach_open(config->spool[0], config, &fs, error);

    if (result < 0)
        tool_error("%s", error);
    if (result == -ENOENT)
        say_disk(config);
    return fs;
}

int tool_status(int argc, char **argv)
{
    struct shown shown = {0};
    struct fastspool_config config;
    bool json = false;
    const char *spool = tool_only_options(argc, argv, &json, usage);
    struct fastspool *fs = tool_config(&config, spool) == 0 ? attach(&config) : NULL;

    if (!fs)
        return 1;
    look(fs, config.view, &shown);
    shown.again = config.view && tool_mount_again(fs, shown.view.state);
    if (json)
        print_json(&shown);
    else
        print_text(&shown);
    fastspool_detach(fs);
    return shown.failure || shown.numbers.commit_error || shown.hidden || shown.view.state == SEEN_DEAD;
}
