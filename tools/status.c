/* SPDX-License-Identifier: MIT
 *
 * fastspool status: one line that says whether all is well, then the numbers.  With --json: one object.
 */
#include "base/clock.h"
#include "fastspool.h"
#include "store/store.h"
#include "tool.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define MS(nanoseconds) ((nanoseconds) / NS_PER_MS)

static const char usage[] =
    "usage: fastspool status [--spool DIR] [--json]\n"
    "Shows the state of the spool.  --json: as one JSON object.\n"
    "Exit status: 0 all is well; 1 the store or the last commit failed, or there is no store; 2 wrong arguments.\n";

static void print_json(const char *spool, const struct fastspool_status *s, bool failed)
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
    };

    printf("{\"spool\": ");
    tool_print_json(spool);
    printf(", \"durability\": \"%s\"", fastspool_durability_name(s->durability));
    for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++)
        printf(", \"%s\": %" PRIu64, numbers[i].name, numbers[i].value);
    printf(", \"failed\": %s}\n", failed ? "true" : "false");
}

static void print_text(const char *spool, const struct fastspool_status *s, const char *failure)
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
}

int tool_status(int argc, char **argv)
{
    struct fastspool_status status;
    bool json = false;
    struct fastspool *fs = tool_attach(tool_options(argc, argv, &json, usage));

    if (!fs)
        return 1;
    bool failed = fastspool_status(fs, &status) < 0;
    if (json)
        print_json(fs->spool, &status, failed);
    else
        print_text(fs->spool, &status, failed ? fs->header->failure : NULL);
    fastspool_detach(fs);
    return failed || status.commit_error;
}
