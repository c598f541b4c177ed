/* SPDX-License-Identifier: MIT
 *
 * fastspool enable: Exim's next start has the library, and fails where it would not be served.
 *
 * The happy path: this machine is checked, as by `fastspool doctor --start`; what will be written is said; the operator
 * agrees; it is written.  `fastspool disable` takes away every byte of it.  A second call finds nothing to do.
 *
 * Failure modes:
 *   - Exim would not be served: the reasons, and nothing is written.
 *   - A file can't be written: what was written before is taken away again.
 *   - There is no view: who will not see the queue is said.
 */
#include "doctor.h"
#include "exims.h"
#include "spool/launch.h"
#include "tool.h"
#include "ways.h"

#include "config.h"

#include <getopt.h>
#include <stdio.h>
#include <string.h>
#include <sysexits.h>
#include <unistd.h>

static const char usage[] =
    "usage: fastspool enable [--yes] [--no-check] [--everywhere]\n"
    "Gives Exim the library, from its next start on: by a drop-in of its systemd service and by /etc/default/exim4,\n"
    "as found on this machine.  Says what it will write, and asks.\n"
    "--yes: don't ask.\n"
    "--no-check: even where Exim would not be served; and no start of Exim fails for that reason.\n"
    "--everywhere: every program gets the library, by /etc/ld.so.preload; for machines without a view.\n"
    "Exit status: 0 it is written, or was before; 1 not; 64 wrong arguments; 77 it has to be run as root.\n";

struct wish {
    bool yes;
    bool check;
    bool everywhere;
};

/* With the LD_PRELOAD that will be written. */
static bool is_fit(void)
{
    char value[COMMAND_OUTPUT];
    const char *const doctor[] = {FASTSPOOL_TOOL, "doctor", "--start", "--preload", value, NULL};

    ways_value(value);
    if (command_show(doctor, NULL) == 0)
        return true;
    tool_error("nothing was written: mend the above, or say --no-check");
    return false;
}

static size_t say(const struct way ways[], size_t count)
{
    size_t open = 0;

    for (size_t i = 0; i < count; i++) {
        if (ways[i].done)
            continue;
        if (open++ == 0)
            puts("`fastspool enable` will write, and `fastspool disable` will take away again:");
        printf("  %s: %s\n", ways[i].path, ways[i].what);
    }
    return open;
}

/* Of all files or of none. */
static int put(const struct way ways[], size_t count)
{
    char error[ERROR_MAX], further[ERROR_MAX];

    for (size_t i = 0; i < count; i++) {
        if (ways[i].done || ways_put(&ways[i], error) == 0)
            continue;
        for (size_t before = 0; before < i; before++) {
            if (!ways[before].done)
                ways_take(ways[before].path, further);
        }
        return tool_error("nothing was changed: %s", error);
    }
    return 0;
}

/* What is not seen by whom. */
static void say_view(const struct wish *wish)
{
    struct fastspool_config config;
    char error[FASTSPOOL_ERROR_MAX];
    enum view_obstacle obstacle;

    if (wish->everywhere || fastspool_config_load(&config, NULL, false, error) < 0)
        return;
    if (!config.view)
        puts("There will be no view, as the configuration says `view = off`.");
    else if (launch_view_obstructed(&obstacle))
        printf("There will be no view: this machine does not allow it (%s).\n", launch_view_obstacle(obstacle));
    else
        return;
    puts(
        "So mailq, exiqgrep, monitors and cron's jobs see an empty queue, and what they send lies on the disk until\n"
        "Exim's next queue run.  `fastspool enable --everywhere` gives every program the library.");
}

static int enable(const struct wish *wish)
{
    static struct way ways[WAYS_MAX];

    if (wish->check && !is_fit())
        return 1;
    size_t count = ways_find(wish->check, wish->everywhere, ways);
    if (count == 0)
        return tool_error(
            "found neither systemd nor %s: start Exim with LD_PRELOAD=%s by the means of this system, "
            "or say --everywhere",
            WAYS_DEFAULTS, EXIMS_LIBRARY);
    if (say(ways, count) == 0) {
        puts("Exim gets the library already: there is nothing to do.");
        return 0;
    }
    say_view(wish);
    if (!tool_confirm(wish->yes, "Write this?"))
        return tool_error("nothing was written");
    if (put(ways, count) != 0)
        return 1;
    ways_reload();
    printf("Done.  Now restart Exim (%s), and see what `fastspool doctor` says.\n", ways_command("restart"));
    return 0;
}

int tool_enable(int argc, char **argv)
{
    static const struct option options[] = {{"yes", no_argument, NULL, 'y'},
                                            {"no-check", no_argument, NULL, 'n'},
                                            {"everywhere", no_argument, NULL, 'e'},
                                            {"help", no_argument, NULL, 'h'},
                                            {0}};
    struct wish wish = {.check = true};

    for (int option; (option = tool_option(argc, argv, options, usage)) != -1;) {
        if (option == 'y') {
            wish.yes = true;
        } else if (option == 'n') {
            wish.check = false;
        } else {
            wish.everywhere = true;
        }
    }
    tool_operands(argc, argv, 0, 0, NULL, usage);
    if (geteuid() == 0)
        return ways_lock() != 0 ? 1 : enable(&wish);
    tool_error("only root can write the files of Exim's service: run `fastspool enable` as root");
    return EX_NOPERM;
}
