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
    "Exit status: 0 all is well; 1 the store or the last commit failed, or there is no store; 2 wrong arguments.\n";

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
    bool lives = launch_view_lives(fs), is_mounted = LOAD(fs->header->view.status) == VIEW_MOUNTED;

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

/* ---- output ---- */

static void print_json(const char *spool, const struct fastspool_status *s, bool failed, const char *view,
                       pid_t view_pid)
{
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
        {"view_pid", (uint64_t)view_pid},
    };

    printf("{\"spool\": ");
    tool_print_json(spool);
    printf(", \"durability\": \"%s\"", fastspool_durability_name(s->durability));
    for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++)
        printf(", \"%s\": %" PRIu64, numbers[i].name, numbers[i].value);
    printf(", \"view\": ");
    tool_print_json(view);
    printf(", \"failed\": %s}\n", failed ? "true" : "false");
}

static void print_text(const char *spool, const struct fastspool_status *s, const char *failure, const char *view)
{
    if (failure)
        printf("%s: FAILED: %s\n", spool, failure);
    else if (s->commit_error)
        printf("%s: the last commit failed: %s\n", spool, strerrordesc_np(-s->commit_error));
    else if (!s->mirror_pid)
        printf("%s: no mirror process runs; the next message starts one\n", spool);
    else
        printf("%s: all is well\n", spool);
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
    printf("  view         %s\n", view);
}

int tool_status(int argc, char **argv)
{
    struct fastspool_status status;
    char view[VIEW_LINE];
    bool json = false;
    struct fastspool *fs = tool_attach(tool_options(argc, argv, &json, usage));

    if (!fs)
        return 1;
    bool failed = fastspool_status(fs, &status) < 0;
    describe_view(fs, view);
    if (json)
        print_json(fs->spool, &status, failed, view, launch_view_holder(fs));
    else
        print_text(fs->spool, &status, failed ? fs->header->failure : NULL, view);
    fastspool_detach(fs);
    return failed || status.commit_error;
}
