/* SPDX-License-Identifier: MIT
 *
 * fastspool status: one line that says whether all is well, then the numbers.  With --json: one object; with
 * --prometheus: metrics; with --watch: again and again, until somebody ends it.
 *
 * The happy path: the store is ready, its mirror gives signs of life, its commits succeed.
 *
 * Failure modes, the worst first: status_health.c has them.  Nothing here waits: not for the lock, the mirror, or the
 * view.
 */
#include "status.h"

#include "base/places.h"
#include "config.h"
#include "exims.h"
#include "spool/attach.h"
#include "spool/launch.h"
#include "spool/viewed.h"
#include "store/store.h"
#include "tool.h"
#include "ways.h"

#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sysexits.h>
#include <unistd.h>

static const char usage[] =
    "usage: fastspool status [--spool DIR] [--json | --prometheus | --watch]\n"
    "Shows the state of the spool.  --json: as one JSON object.  --prometheus: as metrics in Prometheus' text format.\n"
    "--watch: on a terminal, each second anew; q or ^C ends it.\n"
    "A view that is dead is mounted again, if root asks.\n"
    "Exit status: 0 all is well; 1 something needs attention; 2 mail stands: Exim can't take or deliver any; 3 the\n"
    "spool is not in use; 64 wrong arguments.\n";

/* ---- a look ---- */

static void look_at_commits(const struct header *header, struct shown *shown)
{
    shown->changes = LOAD(header->tickets.change);
    shown->commits_ns = LOAD(header->tickets.commits_ns);
    for (uint32_t octave = 0; octave < DURATIONS_OCTAVES; octave++)
        shown->classes[octave].commits = durations_upto(header, octave, &shown->classes[octave].below);
}

static void look_at_view(struct fastspool *fs, struct shown *shown)
{
    const struct view_state *view = &fs->header->view;

    seen_look(fs, shown->config->view, &shown->view);
    pid_t holder = launch_view_holder(fs->state);
    shown->view_pid = holder > 0 ? holder : 0;
    shown->locked = LOAD(view->locked);
    shown->conflicts = LOAD(view->conflicts);
    shown->left = LOAD(view->left);
    if (LOAD(view->status) == VIEW_MOUNTED)
        shown->hidden = shown->locked + shown->conflicts + shown->left;
    shown->again = shown->config->view && tool_mount_again(fs, shown->view.state);
}

/* Where it is installed for Exim.  `fastspool doctor` looks closer. */
static void look_at_library(struct shown *shown)
{
    static const char path[] = FASTSPOOL_TRUSTED_LIBDIR "/" EXIMS_LIBRARY;
    struct stat st;

    if (stat(path, &st) == 0 && (st.st_uid != 0 || !(st.st_mode & S_ISUID)))
        snprintf(shown->library, sizeof(shown->library), "%s is user %u's, of mode %04o, and not root's, of mode 4644",
                 path, (unsigned)st.st_uid, st.st_mode & 07777);
}

static void look_at_store(struct fastspool *fs, struct shown *shown)
{
    struct fastspool_config believed;

    shown->store = true;
    shown->failure = fastspool_status(fs, &shown->numbers) < 0 ? section_sentence(fs->header, shown->sentence) : NULL;
    look_at_commits(fs->header, shown);
    look_at_view(fs, shown);
    if (fastspool_config_load(&believed, NULL, false, shown->refusal) == 0)
        shown->refusal[0] = '\0';
    look_at_library(shown);
    shown->unattended = geteuid() == 0 && ways_are_in() && !exims_attend(shown->config, fs->spool);
    shown->recovering = LOAD(fs->header->state) == SEGMENT_RECOVERING;
    if (shown->recovering && LOAD(fs->header->recovery.error))
        shown->recovery = section_sentence(fs->header, shown->sentence);
    shown->no_tool = access(FASTSPOOL_TOOL, X_OK) < 0 ? errno : 0;
    shown->late = STATUS_SILENT + fs->header->flush_interval;
}

/* ---- no store ---- */

/* After a reboot, and before anybody with the library has come.  Where the database is, there may be mail. */
static enum health look_at_disk(struct shown *shown)
{
    char path[PATH_MAX];
    const char *state = shown->config->state;

    snprintf(path, sizeof(path), "%s%s%s/" PLACES_DATABASE "/data.mdb", state[0] ? "" : shown->spool,
             state[0] ? "" : "/", state[0] ? state : PLACES_STATE);
    if (access(path, F_OK) < 0)
        return NOT_IN_USE;
    snprintf(shown->more, sizeof(shown->more),
             "mail that it has on the disk is not counted here, and is not lost: the next start of Exim with the "
             "library brings it back, and so does `fastspool view %s`",
             shown->spool);
    return ATTENTION;
}

/* What is mounted without a store shows nothing, or is about to bring one back. */
static void look_at_mounts(struct shown *shown)
{
    bool mounted = viewed(shown->spool) > 0;

    shown->view.state = mounted ? SEEN_MOUNTED : shown->config->view ? SEEN_UNMOUNTED : SEEN_OFF;
    if (shown->view.state == SEEN_OFF)
        strcpy(shown->view.line, "off");
    else
        snprintf(shown->view.line, sizeof(shown->view.line), "%s; there is no store in memory",
                 mounted ? "mounted" : "not mounted");
}

/* Where there is no store to ask.  What keeps this process from it keeps Exim, too, but for a lack of rights. */
static enum health without_store(struct shown *shown, int result)
{
    if (access(shown->spool, F_OK) < 0 || result == -EACCES)
        return ATTENTION;
    return result == -ENOENT ? look_at_disk(shown) : MAIL_STANDS;
}

/* ---- the subcommand ---- */

void status_look(const struct fastspool_config *config, struct shown *shown, struct fastspool **fs)
{
    *shown = (struct shown){.config = config, .spool = config->spool[0]};
    int result = attach_open(config->spool[0], config, fs, shown->line);

    if (result < 0) {
        *fs = NULL;
        shown->health = without_store(shown, result);
        look_at_mounts(shown);
    } else {
        shown->spool = (*fs)->spool;
        look_at_store(*fs, shown);
        status_judge(shown);
    }
    shown->on_disk = messages_on_disk(shown->spool, shown->store && shown->view.state == SEEN_MOUNTED);
}

static int print(const struct fastspool_config *config, char form)
{
    struct shown shown;
    struct fastspool *fs;

    status_look(config, &shown, &fs);
    if (form == 'p') {
        status_print_prometheus(&shown, fs);
    } else if (form == 'j') {
        status_print_json(&shown);
    } else if (!shown.store) {
        tool_error("%s", shown.line);
        if (shown.more[0])
            tool_error("%s", shown.more);
    } else {
        status_print_text(&shown);
    }
    if (fs)
        fastspool_detach(fs);
    return (int)shown.health;
}

/* 's', 'j', 'p' or 'w': the first letter of what was asked for.  Does not return where the arguments are wrong. */
static char parse(int argc, char **argv, const char **spool)
{
    static const struct option options[] = {{"spool", required_argument, NULL, 's'}, {"json", no_argument, NULL, 'j'},
                                            {"prometheus", no_argument, NULL, 'p'},  {"watch", no_argument, NULL, 'w'},
                                            {"help", no_argument, NULL, 'h'},        {0}};
    char form = 's';
    int option;

    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1 && strchr("sjpw", option)) {
        if (option == 's')
            *spool = optarg;
        else if (form == 's' || form == option)
            form = (char)option;
        else
            break;
    }
    if (option == -1 && optind == argc)
        return form;
    fputs(usage, option == 'h' ? stdout : stderr);
    exit(option == 'h' ? 0 : EX_USAGE);
}

int tool_status(int argc, char **argv)
{
    struct fastspool_config config;
    const char *spool = NULL;
    char form = parse(argc, argv, &spool);

    if (tool_config(&config, spool) != 0)
        return config.spools ? MAIL_STANDS : NOT_IN_USE;
    return form == 'w' ? status_watch(&config) : print(&config, form);
}
