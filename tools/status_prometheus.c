/* SPDX-License-Identifier: MIT
 *
 * The status as metrics, in Prometheus' text format.  exim_queue and exim_queue_frozen have the names of exim_exporter,
 * so that what watches an Exim without fastspool goes on working.
 *
 * Where there is no store, the metrics of the store are missing, and while it is being recovered those of the queue: a
 * monitor must not take "unknown" for 0.
 */
#include "status.h"
#include "tool.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SECONDS(nanoseconds) ((double)(nanoseconds) / NS_PER_S)

/* ---- families ---- */

#define FAMILIES_MAX 64

/* All values of one metric: the format wants them in one place. */
static struct family {
    const char *name;
    FILE *stream;
    char *text;
    size_t size;
} families[FAMILIES_MAX];
static size_t family_count;
static FILE *out; /* of the family that is being filled */

static void begin(const char *name, const char *type, const char *help)
{
    size_t i = 0;

    while (i < family_count && strcmp(families[i].name, name) != 0)
        i++;
    struct family *family = &families[i];
    if (i == family_count) {
        *family = (struct family){.name = name};
        family->stream = i < FAMILIES_MAX - 1 ? open_memstream(&family->text, &family->size) : NULL;
        if (!family->stream)
            exit(tool_error("there is no memory for the metrics"));
        fprintf(family->stream, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
        family_count++;
    }
    out = family->stream;
}

void status_print_prometheus(void)
{
    for (size_t i = 0; i < family_count; i++) {
        fclose(families[i].stream);
        fputs(families[i].text, stdout);
        free(families[i].text);
    }
    family_count = 0;
}

/* ---- values ---- */

/* As a label's value: backslash, quote and newline are escaped. */
static void print_label(const char *text)
{
    for (; *text; text++) {
        if (*text == '\n')
            fputs("\\n", out);
        else if (*text == '\\' || *text == '"')
            fprintf(out, "\\%c", *text);
        else
            putc(*text, out);
    }
}

/* One value of metric @name; @label with @value: a second label, NULL: none. */
static void value(const struct shown *shown, const char *name, const char *label, const char *text, double number)
{
    fprintf(out, "%s{spool=\"", name);
    print_label(shown->spool);
    putc('"', out);
    if (label) {
        fprintf(out, ",%s=\"", label);
        print_label(text);
        putc('"', out);
    }
    fprintf(out, "} %.15g\n", number);
}

static void gauge(const struct shown *shown, const char *name, double number, const char *help)
{
    begin(name, "gauge", help);
    value(shown, name, NULL, NULL, number);
}

static void counter(const struct shown *shown, const char *name, uint64_t number, const char *help)
{
    begin(name, "counter", help);
    value(shown, name, NULL, NULL, (double)number);
}

static void print_messages(const struct shown *shown, struct fastspool *fs)
{
    uint64_t unread, frozen = messages_frozen(fs, &unread);

    gauge(shown, "exim_queue", (double)shown->numbers.messages, "Messages in the store, of all queues.");
    gauge(shown, "exim_queue_frozen", (double)frozen, "Frozen messages in the store, of those in memory.");
    gauge(shown, "fastspool_queue_unread", (double)unread,
          "Messages of which is not known whether they are frozen: they are not in memory.");
}

static void print_commits(const struct shown *shown)
{
    static const char name[] = "fastspool_commit_seconds";
    const struct fastspool_status *s = &shown->numbers;
    char bound[32];

    begin(name, "histogram", "Durations of the commits that succeeded.");
    for (size_t i = 0; i < DURATIONS_OCTAVES; i++) {
        snprintf(bound, sizeof(bound), "%.6g", SECONDS(shown->classes[i].below));
        value(shown, "fastspool_commit_seconds_bucket", "le", bound, (double)shown->classes[i].commits);
    }
    value(shown, "fastspool_commit_seconds_bucket", "le", "+Inf", (double)s->commits);
    value(shown, "fastspool_commit_seconds_sum", NULL, NULL, SECONDS(shown->commits_ns));
    value(shown, "fastspool_commit_seconds_count", NULL, NULL, (double)s->commits);
    gauge(shown, "fastspool_commit_failing", s->commit_error != 0, "1: the last commit failed.");
}

static void print_disk(const struct shown *shown)
{
    const struct fastspool_status *s = &shown->numbers;

    gauge(shown, "fastspool_unflushed_seconds", SECONDS(s->unflushed_ns),
          "Age of the oldest change that is not on the disk.");
    gauge(shown, "fastspool_unflushed_bytes", (double)s->dirty_bytes, "Data that is not on the disk.");
    gauge(shown, "fastspool_unflushed_files", (double)s->dirty_files, "Files with changes that are not on the disk.");
    gauge(shown, "fastspool_waiters", (double)s->waiters,
          "Processes that wait for a commit, for data from the disk, or for memory.");
    gauge(shown, "fastspool_mirror_up", s->mirror_pid != 0, "1: a mirror process runs.");
    gauge(shown, "fastspool_mirror_silent_seconds", SECONDS(s->mirror_silent_ns),
          "Time since the mirror's last sign of life.");
}

static void print_memory(const struct shown *shown)
{
    const struct fastspool_status *s = &shown->numbers;

    gauge(shown, "fastspool_memory_bytes", (double)s->memory_bytes, "Memory of the store.");
    gauge(shown, "fastspool_memory_limit_bytes", (double)s->memory_limit, "The most memory that it takes.");
    gauge(shown, "fastspool_memory_open_bytes", (double)s->open_bytes, "Memory that open files hold.");
    gauge(shown, "fastspool_files", (double)s->files, "Files in the store.");
    gauge(shown, "fastspool_evicted_files", (double)s->evicted_files, "Files whose data is on the disk alone.");
    gauge(shown, "fastspool_spilled_files", (double)s->spilled_files, "Open files that are read from the disk.");
    gauge(shown, "fastspool_room_bytes", (double)s->room_bytes, "Room for more data.");
    gauge(shown, "fastspool_room_files", (double)s->room_files, "Room for more files.");
    counter(shown, "fastspool_evictions_total", s->evictions, "Files whose data has left memory.");
    counter(shown, "fastspool_pageins_total", s->brought_back, "Files whose data came back from the disk.");
    counter(shown, "fastspool_changes_total", shown->changes, "Changes of files and directories.");
}

static void print_view(const struct shown *shown)
{
    static const char name[] = "fastspool_view_state";

    begin(name, "gauge", "1: the view is in this state.");
    for (enum seen_state state = SEEN_MOUNTED; state <= SEEN_UNAVAILABLE; state++)
        value(shown, name, "state", seen_name(state), state == shown->view.state);
    gauge(shown, "fastspool_disk_locked", shown->locked, "Messages that the import left: a process works on them.");
    gauge(shown, "fastspool_disk_conflicts", shown->conflicts,
          "Messages and files that the import left: the store has others.");
    gauge(shown, "fastspool_disk_left", shown->left, "Files that the import left: they can't be taken.");
    gauge(shown, "fastspool_disk_hidden", shown->hidden, "Messages and files of the disk that the view hides.");
}

/* ---- the metrics ---- */

void status_add_prometheus(const struct shown *shown, struct fastspool *fs)
{
    begin("fastspool_info", "gauge", "The version of this command; always 1.");
    value(shown, "fastspool_info", "version", fastspool_version(), 1);
    gauge(shown, "fastspool_up", shown->store, "1: there is a store in memory, and this process may see it.");
    gauge(shown, "fastspool_health", shown->health,
          "0: all is well; 1: something needs attention; 2: mail stands; 3: the spool is not in use.");
    gauge(shown, "fastspool_configuration_wrong", shown->refusal[0] != '\0',
          "1: the configuration can't be used, and Exim is refused the spool.");
    if (shown->without >= 0)
        gauge(shown, "fastspool_exims_without_library", (double)shown->without,
              "Exims that run without the library, or are not served by it, of any spool: they have the view, or the "
              "disk alone.");
    if (shown->in_state >= 0)
        gauge(shown, "fastspool_state_messages", (double)shown->in_state,
              "Messages in the state on the disk, while no store is in memory.");
    if (shown->other.messages >= 0)
        gauge(shown, "fastspool_other_state_messages", (double)shown->other.messages,
              "Messages in another state directory of the spool, which `state` does not name, or in that of Exim's own "
              "spool, which no `spool` names.");
    if (shown->on_disk >= 0) {
        gauge(shown, "fastspool_disk_messages", (double)shown->on_disk,
              "Messages that lie on the disk, not in the store.");
        gauge(shown, "fastspool_half_moved_messages", (double)shown->census.half,
              "Messages of the store and the disk that an import or export has moved by half: no Exim finds them.");
    }
    if (!fs)
        return;
    gauge(shown, "fastspool_recovering", shown->recovering,
          "1: the store is being recovered from the disk; until then nobody knows the queue.");
    if (!shown->recovering)
        print_messages(shown, fs);
    print_commits(shown);
    print_disk(shown);
    print_memory(shown);
    print_view(shown);
}
