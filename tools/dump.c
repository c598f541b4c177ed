/* SPDX-License-Identifier: MIT
 *
 * fastspool dump: the segment, the journal or the database as text, for a bug report.  It changes nothing; a mirror and
 * Exim may run.
 */
#include "mirror/dump.h"
#include "base/rights.h"
#include "look.h"
#include "store/snapshot.h"
#include "tool.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char usage[] =
    "usage: fastspool dump journal|database|segment [--spool DIR] [--bodies]\n"
    "Prints it as text, and changes nothing.  A mirror may run.\n"
    "  --bodies  with what the mails say; else there are sizes and checksums.  Names of files and addresses are\n"
    "            shown.\n"
    "Exit status: 0 all of it is printed, 1 not, 64 wrong arguments.\n";

static int print_segment(const struct look *look, bool bodies)
{
    struct fastspool *snapshot;

    if (!look->fs)
        return look->why[0] ? tool_error("%s", look->why) : tool_error("%s: no store in memory", look->spool);
    int result = snapshot_take(look->fs, &snapshot);
    if (result < 0)
        return tool_error("%s: copy the segment: %s", look->spool, strerrordesc_np(-result));
    dump_segment(look->fs, snapshot, bodies, stdout);
    snapshot_free(snapshot);
    return 0;
}

static int print_part(const struct look *look, const char *part, bool bodies)
{
    if (strcmp(part, "segment") == 0)
        return print_segment(look, bodies);
    int result = strcmp(part, "journal") == 0 ? dump_journal(look->state, bodies, stdout)
                                              : dump_database(look->state, bodies, stdout);
    return result < 0 ? tool_error("%s: read the %s: %s", look->spool, part, strerrordesc_np(-result)) : 0;
}

int tool_dump(int argc, char **argv)
{
    static const struct option options[] = {{"spool", required_argument, NULL, 's'},
                                            {"bodies", no_argument, NULL, 'b'},
                                            {"help", no_argument, NULL, 'h'},
                                            {0}};
    bool bodies = false;
    const char *spool = tool_options_of(argc, argv, options, &bodies, usage);
    struct look look;

    const char *part = *tool_operands(argc, argv, 1, 1, "one of journal, database and segment", usage);
    if (strcmp(part, "journal") != 0 && strcmp(part, "database") != 0 && strcmp(part, "segment") != 0)
        tool_wrong(usage, "dump needs one of journal, database and segment, and not `%s`", part);
    if (look_begin(&look, spool) != 0)
        return 1;
    struct rights rights = rights_of_owner(look.owner, look.group);
    int result = print_part(&look, part, bodies);
    rights_back(rights);
    look_end(&look);
    return result;
}
