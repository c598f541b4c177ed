/* SPDX-License-Identifier: MIT
 *
 * fastspool verify: is the spool well, in memory and on the disk?  It changes neither.
 *
 * The store in memory is looked at as a snapshot, the disk as of one checkpoint (lib/mirror/verify.c), so a mirror and
 * Exim may run.  Without a store in memory the disk alone is verified.
 */
#include "mirror/verify.h"
#include "base/escape.h"
#include "base/findings.h"
#include "base/rights.h"
#include "config.h"
#include "fastspool.h"
#include "interrupt.h"
#include "look.h"
#include "mirror/dump.h"
#include "progress.h"
#include "store/check.h"
#include "store/layout.h"
#include "store/snapshot.h"
#include "store/store.h"
#include "tool.h"

#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FINDINGS_MOST 200u
#define HISTORY_SHOWN 20u

static const char usage[] =
    "usage: fastspool verify [--spool DIR] [--json]\n"
    "Checks the store in memory, the journal and the database, and changes nothing.  A mirror may run.\n"
    "Exit status: 0 all is well, 1 something is wrong, 64 wrong arguments.\n";

struct verification {
    struct look look;
    struct fastspool *store; /* a snapshot of it; NULL: there is none in memory */
    bool recovering;
    struct verified disk;
    struct findings *findings;
    uint32_t of_memory; /* the first findings */
};

/* ---- what is in memory ---- */

static void verify_memory(struct verification *v)
{
    struct fastspool *fs = v->look.fs;

    if (!fs) {
        if (v->look.why[0])
            findings_add(v->findings, "%s", v->look.why);
        return;
    }
    int result = snapshot_take(fs, &v->store);
    if (result < 0) {
        findings_add(v->findings, "it can't be copied: %s", strerrordesc_np(-result));
        return;
    }
    v->recovering = v->store->header->state == SEGMENT_RECOVERING;
    if (v->recovering)
        return;
    result = check_snapshot(v->store, v->findings);
    if (result < 0)
        findings_add(v->findings, "it can't be checked: %s", strerrordesc_np(-result));
}

static void verify_all(struct verification *v)
{
    struct rights rights = rights_of_owner(v->look.owner, v->look.group);

    verify_memory(v);
    v->of_memory = v->findings->count;
    bool compared = v->store && !v->recovering;
    int result =
        verify_disk(v->look.state, compared ? v->look.fs : NULL, compared ? v->store : NULL, &v->disk, v->findings);
    if (result < 0)
        findings_add(v->findings, "the disk was not verified: %s", strerrordesc_np(-result));
    rights_back(rights);
}

/* ---- printing ---- */

static void print_counts(const struct verification *v)
{
    const struct verified *d = &v->disk;
    const struct header *h = v->store ? v->store->header : NULL;

    if (!h)
        printf("  memory    no store\n");
    else if (v->recovering)
        printf("  memory    a store that is being recovered, not checked\n");
    else
        printf("  memory    %u inodes, %u names, %u descriptions, %" PRIu64 " blocks in %u chunks; %" PRIu64
               " files evicted\n",
               h->tables.inodes.count, h->tables.names.count, h->tables.descriptions.count, h->blocks.used,
               h->blocks.chunks_used, h->residency.evicted);
    if (d->database)
        printf("  database  %" PRIu64 " inodes, %" PRIu64 " names, %" PRIu64 " slices of %" PRIu64
               " bytes, up to batch %" PRIu64 "\n",
               d->inodes, d->names, d->slices, d->bytes, d->batch);
    else
        printf("  database  none\n");
    printf("  journal   %" PRIu64 " files, %" PRIu64 " batches of %" PRIu64 " records, up to batch %" PRIu64 "\n",
           d->files, d->batches, d->records, d->last);
}

static void print_text(const struct verification *v)
{
    const struct findings *f = v->findings;

    char spool[ESCAPE_ROOM(FASTSPOOL_PATH_MAX)];

    escape_bytes(spool, sizeof(spool), v->look.spool, strlen(v->look.spool));
    if (f->count == 0)
        printf("%s: %s\n", spool, v->recovering ? "the disk is well, and memory is being recovered" : "all is well");
    else
        printf("%s: %u thing%s wrong\n", spool, f->count, f->count == 1 ? " is" : "s are");
    for (uint32_t i = 0; i < findings_kept(f); i++)
        printf("%s%s\n", i < v->of_memory ? "memory: " : "", f->sentence[i]);
    if (f->count > findings_kept(f))
        printf("and %u more\n", f->count - findings_kept(f));
    print_counts(v);
    if (f->count && v->store)
        dump_history(v->store->header, HISTORY_SHOWN, stdout);
}

static void print_json(const struct verification *v)
{
    const struct findings *f = v->findings;
    const struct verified *d = &v->disk;
    const struct {
        const char *name;
        uint64_t value;
    } numbers[] = {
        {"database_inodes", d->inodes},  {"database_names", d->names},    {"database_slices", d->slices},
        {"database_bytes", d->bytes},    {"database_batch", d->batch},    {"journal_files", d->files},
        {"journal_batches", d->batches}, {"journal_records", d->records}, {"journal_batch", d->last},
        {"evicted_files", d->evicted},
    };

    printf("{\"spool\": ");
    tool_print_json(v->look.spool);
    printf(", \"well\": %s, \"wrong\": %u, \"memory\": \"%s\"", f->count ? "false" : "true", f->count,
           !v->store       ? "none"
           : v->recovering ? "recovering"
                           : "checked");
    for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++)
        printf(", \"%s\": %" PRIu64, numbers[i].name, numbers[i].value);
    printf(", \"findings\": [");
    for (uint32_t i = 0; i < findings_kept(f); i++) {
        char sentence[FINDING_MAX + 16];
        snprintf(sentence, sizeof(sentence), "%s%s", i < v->of_memory ? "memory: " : "", f->sentence[i]);
        printf("%s", i ? ", " : "");
        tool_print_json(sentence);
    }
    printf("]}\n");
}

int tool_verify(int argc, char **argv)
{
    struct verification v = {.findings = findings_new(FINDINGS_MOST)};
    bool json = false;
    const char *spool = tool_only_options(argc, argv, &json, usage);

    if (!v.findings)
        return tool_error("there is no memory");
    if (look_begin(&v.look, spool) != 0)
        return 1;
    interrupt_says("nothing was changed, and not all was looked at");
    progress_begin("verifying");
    verify_all(&v);
    progress_end();
    if (json)
        print_json(&v);
    else
        print_text(&v);
    bool well = v.findings->count == 0;
    if (v.store)
        snapshot_free(v.store);
    findings_free(v.findings, FINDINGS_MOST);
    look_end(&v.look);
    return !well;
}
