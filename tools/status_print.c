/* SPDX-License-Identifier: MIT
 *
 * The status as text, and as one JSON object.
 */
#include "base/escape.h"
#include "status.h"
#include "tool.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define MS(nanoseconds) ((nanoseconds) / NS_PER_MS)

static void print_text(const char *name, const char *text)
{
    printf(", \"%s\": ", name);
    tool_print_json(text);
}

/* Without a store there are no numbers. */
static void print_numbers(const struct shown *shown)
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
        {"largest_bytes", s->largest_bytes},
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
        {"view_pid", (uint64_t)shown->view_pid},
        {"disk_locked", shown->locked},
        {"disk_conflicts", shown->conflicts},
        {"disk_left", shown->left},
        {"disk_hidden", shown->hidden},
    };

    print_text("durability", fastspool_durability_name(s->durability));
    print_text("pages", shown->pages);
    for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++)
        printf(", \"%s\": %" PRIu64, numbers[i].name, numbers[i].value);
    printf(", \"failed\": %s, \"recovering\": %s", shown->failure ? "true" : "false",
           shown->recovering ? "true" : "false");
}

void status_print_json(const struct shown *shown)
{
    printf("{\"spool\": ");
    tool_print_json(shown->spool);
    printf(", \"store\": %s, \"health\": %d",
           shown->store     ? "true"
           : shown->unknown ? "null"
                            : "false",
           (int)shown->health);
    if (shown->store)
        print_numbers(shown);
    if (shown->in_state >= 0)
        printf(", \"state_messages\": %" PRId64, shown->in_state);
    if (shown->other.state[0]) {
        print_text("other_state", shown->other.state);
        printf(", \"other_state_messages\": %" PRId64, shown->other.messages);
    }
    if (shown->without >= 0)
        printf(", \"exims_without_library\": %" PRId64, shown->without);
    if (shown->on_disk >= 0)
        printf(", \"disk_messages\": %" PRId64 ", \"half_moved\": %" PRIu64, shown->on_disk, shown->census.half);
    print_text("line", shown->line);
    print_text("more", shown->more);
    if (shown->view.line[0]) {
        if (shown->view.state == SEEN_UNKNOWN)
            printf(", \"view_state\": null");
        else
            print_text("view_state", seen_name(shown->view.state));
        print_text("view", shown->view.line);
    }
    puts("}");
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

void status_print_rest(const struct shown *shown)
{
    if (!shown->store && shown->on_disk > 0)
        printf("  on the disk  %" PRId64 " message%s, besides what it has\n", shown->on_disk,
               tool_plural((uint64_t)shown->on_disk));
    if (shown->census.half > 0)
        printf("  half moved   %" PRIu64 " of these messages\n", shown->census.half);
    if (shown->other.messages > 0)
        printf("  elsewhere    %" PRId64 " message%s, in %s\n", shown->other.messages,
               tool_plural((uint64_t)shown->other.messages), shown->other.state);
    if (shown->without > 0)
        printf("  exims        %" PRId64 " without the library\n", shown->without);
    if (shown->view.line[0])
        printf("  view         %s\n", shown->view.line);
}

void status_print_text(const struct shown *shown)
{
    const struct fastspool_status *s = &shown->numbers;
    char spool[ESCAPE_ROOM(FASTSPOOL_PATH_MAX)];

    printf("%s: %s\n", escape_controls(spool, sizeof(spool), shown->spool), shown->line);
    printf("  durability   %s\n", fastspool_durability_name(s->durability));
    printf("  messages     %" PRIu64 "%s", s->messages, shown->recovering ? " so far" : "");
    printf(shown->on_disk > 0 ? "; and %" PRId64 " on the disk\n" : "\n", shown->on_disk);
    printf("  files        %" PRIu64 ", %" PRIu64 " open description%s\n", s->files, s->descriptions,
           tool_plural(s->descriptions));
    printf("  memory       %.1f MiB of %.0f MiB; open files hold %.1f MiB\n", (double)s->memory_bytes / 1048576,
           (double)s->memory_limit / 1048576, (double)s->open_bytes / 1048576);
    if (shown->pages[0])
        printf("  pages        %s\n", shown->pages);
    printf("  evicted      %" PRIu64 " file%s; %" PRIu64 " eviction%s and %" PRIu64 " page-in%s so far",
           s->evicted_files, tool_plural(s->evicted_files), s->evictions, tool_plural(s->evictions), s->brought_back,
           tool_plural(s->brought_back));
    printf(s->spilled_files == 0   ? "\n"
           : s->spilled_files == 1 ? "; %" PRIu64 " open file is read from the disk\n"
                                   : "; %" PRIu64 " open files are read from the disk\n",
           s->spilled_files);
    printf("  room         for %.1f MiB and %" PRIu64 " file%s; for a message of %.1f MiB at most\n",
           (double)s->room_bytes / 1048576, s->room_files, tool_plural(s->room_files),
           (double)s->largest_bytes / 1048576);
    printf("  not on disk  %" PRIu64 " file%s, %.1f MiB; the oldest change is %" PRIu64 " ms old\n", s->dirty_files,
           tool_plural(s->dirty_files), (double)s->dirty_bytes / 1048576, MS(s->unflushed_ns));
    printf("  commits      %" PRIu64 "; median %.1f ms, 99th percentile %.1f ms\n", s->commits,
           (double)s->commit_p50_ns / 1e6, (double)s->commit_p99_ns / 1e6);
    if (s->mirror_pid)
        printf("  mirror       process %ld, last sign of life %.1f s ago\n", (long)s->mirror_pid,
               (double)s->mirror_silent_ns / 1e9);
    else
        puts("  mirror       none runs");
    printf("  waiting      %" PRIu64 " process%s\n", s->waiters, s->waiters == 1 ? "" : "es");
    status_print_rest(shown);
    print_left(shown);
}
