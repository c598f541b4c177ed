/* SPDX-License-Identifier: MIT
 *
 * fastspool status: one line that says whether all is well, then the numbers.  With --json: one object.
 */
#include "base/clock.h"
#include "fastspool.h"
#include "spool/launch.h"
#include "store/store.h"
#include "tool.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define VIEW_LINE       4096
#define MS(nanoseconds) ((nanoseconds) / NS_PER_MS)

static const char usage[] =
    "usage: fastspool status [--spool DIR] [--json]\n"
    "Shows the state of the spool.  --json: as one JSON object.\n"
    "Exit status: 0 all is well; 1 the store or the last commit failed, the view hides files, or there is no store;\n"
    "2 wrong arguments.\n";

/* ---- the view ---- */

/* If @line of mountinfo is a view over a directory of @spool: the directory's name, relative to the spool. */
static bool is_view(char *line, const char *spool, char name[FASTSPOOL_PATH_MAX])
{
    char place[4 * FASTSPOOL_PATH_MAX];
    size_t length = 0;
    unsigned byte;

    if (!strstr(line, " - fuse.fastspool ") || sscanf(line, "%*s %*s %*s %*s %1019s", place) != 1)
        return false;
    for (const char *from = place; *from && length < FASTSPOOL_PATH_MAX - 1; length++) {
        bool octal = *from == '\\' && sscanf(from + 1, "%3o", &byte) == 1;
        name[length] = octal ? (char)byte : *from;
        from += octal ? 4 : 1;
    }
    name[length] = '\0';
    length = strlen(spool);
    if (strncmp(name, spool, length) != 0 || name[length] != '/')
        return false;
    memmove(name, name + length + 1, strlen(name + length + 1) + 1);
    return true;
}

/* Is @name one of @names, "input, msglog"? */
static bool is_listed(const char *names, const char *name)
{
    size_t length = strlen(name);

    for (const char *at = names; (at = strstr(at, name)); at += length) {
        if ((at == names || at[-1] == ' ') && (at[length] == ',' || at[length] == '\0'))
            return true;
    }
    return false;
}

/* "input, msglog": where a view is mounted in this mount namespace. */
static void find_mounts(const char *spool, char *names, size_t size)
{
    FILE *file = fopen("/proc/self/mountinfo", "re");
    char *line = NULL, name[FASTSPOOL_PATH_MAX];
    size_t room = 0, length = 0;

    names[0] = '\0';
    while (file && getline(&line, &room, file) > 0) {
        /* A dead view may lie below: its directory comes twice. */
        if (is_view(line, spool, name) && !is_listed(names, name) && length + strlen(name) + 3 < size)
            length += (size_t)snprintf(names + length, size - length, "%s%s", length ? ", " : "", name);
    }
    free(line);
    if (file)
        fclose(file);
}

/* One line on the view: nothing here touches it, because its server may hang. */
static void describe_view(struct fastspool *fs, char line[VIEW_LINE])
{
    char names[VIEW_LINE - 64];
    uint32_t unavailable = LOAD(fs->header->view.unavailable);
    bool lives = launch_view_lives(fs->state), is_mounted = LOAD(fs->header->view.status) == VIEW_MOUNTED;

    find_mounts(fs->spool, names, sizeof(names));
    if (lives && is_mounted)
        snprintf(line, VIEW_LINE, names[0] ? "mounted over %s" : "mounted, but not in this mount namespace%s", names);
    else if (lives)
        snprintf(line, VIEW_LINE, "starting");
    else if (is_mounted || names[0])
        snprintf(line, VIEW_LINE, "dead; the next root process that uses the spool mounts it again");
    else if (unavailable)
        snprintf(line, VIEW_LINE, "not available: %s: %s", launch_view_obstacle(LOAD(fs->header->view.obstacle)),
                 strerrordesc_np((int)unavailable) ? strerrordesc_np((int)unavailable) : "unknown error");
    else
        snprintf(line, VIEW_LINE, "off");
}

/* ---- what is shown ---- */

struct shown {
    const char *spool;
    const char *failure; /* NULL: none */
    struct fastspool_status numbers;
    char view[VIEW_LINE];
    pid_t view_pid;
    uint32_t locked; /* what the import has left on the disk, as in view_state */
    uint32_t conflicts;
    uint32_t left;
    uint32_t hidden; /* of it: by the view */
};

static void look(struct fastspool *fs, struct shown *shown)
{
    const struct view_state *view = &fs->header->view;

    shown->spool = fs->spool;
    shown->failure = fastspool_status(fs, &shown->numbers) < 0 ? fs->header->failure : NULL;
    describe_view(fs, shown->view);
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
    printf(", \"view\": ");
    tool_print_json(shown->view);
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
    printf("  view         %s\n", shown->view);
    print_left(shown);
}

int tool_status(int argc, char **argv)
{
    struct shown shown = {0};
    bool json = false;
    struct fastspool *fs = tool_attach(tool_options(argc, argv, &json, usage));

    if (!fs)
        return 1;
    look(fs, &shown);
    if (json)
        print_json(&shown);
    else
        print_text(&shown);
    fastspool_detach(fs);
    return shown.failure || shown.numbers.commit_error || shown.hidden;
}
