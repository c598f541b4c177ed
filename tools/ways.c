/* SPDX-License-Identifier: MIT
 *
 * The ways by which Exim gets the library.
 *
 * Happy path, Debian: /etc/default/exim4 is read by the service's script or unit, by cron's jobs and by ppp's.  So all
 * that these start has the library, and not only the daemon.  A drop-in of the service adds the check before a start,
 * and the unit of the view (fastspool@.service) where it is installed.
 * Where systemd is not process 1 (another init, a container, a chroot), the lines in /etc/default/exim4 make the check,
 * for the service's script.  A systemd that is installed gets its drop-in all the same, for the next boot.
 *
 * Another LD_PRELOAD that is there is kept, behind the library.
 *
 * Failure modes: another file of the system's that sets LD_PRELOAD is not known.  `fastspool doctor` says what comes of
 * all of them.
 */
#include "ways.h"

#include "asked.h"
#include "base/places.h"
#include "config.h"
#include "exims.h"
#include "fastspool.h"
#include "inset.h"
#include "installed.h"
#include "lock.h"
#include "progress.h"
#include "tool.h"

#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define DROP_IN(unit) "/etc/systemd/system/" unit ".d/fastspool.conf"
#define OURS \
    EXIMS_LIBRARY ":\n" /* in /etc/ld.so.preload: the colon, which the loader passes by, tells it from others' */
#define RUNNING "/run/systemd/system"

const char *const ways_files[] = {DROP_IN("exim4.service"), DROP_IN("exim.service"), WAYS_DEFAULTS, WAYS_EVERYWHERE,
                                  NULL};

/* ---- what there is ---- */

/* Is systemd process 1?  As sd_booted(3) looks. */
bool ways_booted(void)
{
    return access(RUNNING, F_OK) == 0;
}

static bool has_systemd(void)
{
    return ways_booted() || access("/lib/systemd/systemd", X_OK) == 0;
}

/* Debian's is exim4, a unit or made from /etc/init.d/exim4; elsewhere it is called exim. */
static bool is_called_exim(void)
{
    static const char *const places[] = {"/etc/systemd/system/exim.service", "/usr/lib/systemd/system/exim.service",
                                         "/lib/systemd/system/exim.service", NULL};
    bool found = false;

    for (size_t i = 0; places[i] && !found; i++)
        found = access(places[i], F_OK) == 0;
    return found;
}

/* The value of LD_PRELOAD in @text, the variables of a unit as systemctl(1) shows them. */
static void take_preload(const char *text, char value[COMMAND_OUTPUT])
{
    const char *found = strstr(text, "LD_PRELOAD=");

    value[0] = '\0';
    if (!found)
        return;
    bool quoted = found > text && found[-1] == '"';
    found += strlen("LD_PRELOAD=");
    snprintf(value, COMMAND_OUTPUT, "%.*s", (int)strcspn(found, quoted ? "\"\n" : " \n"), found);
}

void ways_of_service(char value[COMMAND_OUTPUT])
{
    const char *const show[] = {"systemctl", "show", "--property=Environment",
                                is_called_exim() ? "exim.service" : "exim4.service", NULL};
    char text[COMMAND_OUTPUT];

    value[0] = '\0';
    if (ways_booted() && command_run(show, NULL, text) == 0)
        take_preload(text, value);
}

void ways_of_defaults(const char *given, char value[COMMAND_OUTPUT])
{
    static const char *const script[] = {"sh", "-c", ". " WAYS_DEFAULTS " >&2; exec printenv LD_PRELOAD", NULL};
    char text[COMMAND_OUTPUT];

    if (access(WAYS_DEFAULTS, R_OK) == 0 && command_run(script, given[0] ? given : NULL, text) <= 1)
        strcpy(value, text);
    else
        memmove(value, given, strlen(given) + 1);
}

/* ---- what to write ---- */

/* "libfastspool.so", and behind it what @others names besides. */
static void with_others(const char *others, char value[COMMAND_OUTPUT])
{
    char list[COMMAND_OUTPUT], *rest = NULL;

    snprintf(list, sizeof(list), "%s", others);
    size_t used = (size_t)snprintf(value, COMMAND_OUTPUT, "%s", EXIMS_LIBRARY);
    for (char *name = strtok_r(list, ": ", &rest); name; name = strtok_r(NULL, ": ", &rest)) {
        if (!strstr(name, EXIMS_LIBRARY) && used + strlen(name) + 2 < COMMAND_OUTPUT)
            used += (size_t)snprintf(value + used, COMMAND_OUTPUT - used, ":%s", name);
    }
}

void ways_value(char value[COMMAND_OUTPUT])
{
    char now[COMMAND_OUTPUT];

    ways_of_service(now);
    ways_of_defaults(now, now);
    with_others(now, value);
}

/* By the bare name: another is of no use to Exim's re-executions. */
static bool has_library(const char *preload)
{
    char list[COMMAND_OUTPUT], *rest = NULL;
    bool found = false;

    snprintf(list, sizeof(list), "%s", preload);
    for (char *name = strtok_r(list, ": ", &rest); name && !found; name = strtok_r(NULL, ": ", &rest))
        found = strcmp(name, EXIMS_LIBRARY) == 0;
    return found;
}

bool ways_by_defaults(void)
{
    char value[COMMAND_OUTPUT];

    ways_of_defaults("", value);
    return has_library(value);
}

/* The units of the views, where they are installed: they start before Exim, and with it.  "": none is. */
static void of_views(char *text, size_t room)
{
    static const char *const units[] = {"/etc/systemd/system/fastspool@.service",
                                        "/usr/lib/systemd/system/fastspool@.service",
                                        "/lib/systemd/system/fastspool@.service"};
    struct fastspool_config config;
    char error[FASTSPOOL_ERROR_MAX], name[COMMAND_OUTPUT];
    bool installed = false;
    size_t used = 0;

    text[0] = '\0';
    for (size_t i = 0; i < sizeof(units) / sizeof(*units) && !installed; i++)
        installed = access(units[i], F_OK) == 0;
    if (!installed || fastspool_config_load(&config, NULL, false, error) < 0 || !config.view)
        return;
    for (size_t i = 0; i < config.spools; i++) {
        const char *const escape[] = {"systemd-escape", "--path", "--template=fastspool@.service", config.spool[i],
                                      NULL};
        if (command_run(escape, NULL, name) == 0 && used + 2 * strlen(name) + 32 < room)
            used += (size_t)snprintf(text + used, room - used, "%sWants=%s\nAfter=%s\n", used ? "" : "[Unit]\n", name,
                                     name);
    }
}

static void of_service(bool check, struct way *way)
{
    char now[COMMAND_OUTPUT], value[COMMAND_OUTPUT], views[4096];

    ways_of_service(now);
    with_others(now, value);
    way->path = is_called_exim() ? ways_files[1] : ways_files[0];
    of_views(views, sizeof(views));
    way->what = check ? "the service gives Exim the library, and its start fails where Exim would not be served"
                      : "the service gives Exim the library";
    /* Of use where the unit, or another drop-in, says ProtectSystem=strict. */
    snprintf(way->text, sizeof(way->text),
             "%s[Service]\nEnvironment=\"LD_PRELOAD=%s\"\nReadWritePaths=-" PLACES_REGISTRY "\n%s", views, value,
             check ? "ExecStartPre=!" FASTSPOOL_TOOL " doctor --start\n" : ""); /* as root, whatever User= says */
    way->done = inset_is(way->path, way->text);
}

/* Also read by systemd (EnvironmentFile=), which passes by what is no assignment. */
static void of_defaults(bool check, struct way *way)
{
    char now[COMMAND_OUTPUT], value[COMMAND_OUTPUT];

    ways_of_defaults("", now);
    with_others(now, value);
    way->path = WAYS_DEFAULTS;
    way->what = check ? "its script, cron's jobs and ppp's give Exim the library; the script's start fails where Exim "
                        "would not be served"
                      : "its service, cron's jobs and ppp's give Exim the library";
    snprintf(way->text, sizeof(way->text), "LD_PRELOAD=%s\nexport LD_PRELOAD\n%s", value,
             check ? "case \"${1-}\" in start | restart | force-reload) " FASTSPOOL_TOOL
                     " doctor --start || exit 1 ;; esac\n"
                   : "");
    bool by_another = !check && has_library(now) && !inset_is_in(way->path);
    way->done = by_another || inset_is(way->path, way->text);
}

static void of_all(struct way *way)
{
    way->path = WAYS_EVERYWHERE;
    way->what = "every program has the library";
    strcpy(way->text, OURS);
    way->done = inset_has_head(way->path, way->text);
}

size_t ways_find(bool check, bool everywhere, struct way ways[WAYS_MAX])
{
    size_t count = 0;

    if (has_systemd())
        of_service(check, &ways[count++]);
    if (access(WAYS_DEFAULTS, F_OK) == 0)
        of_defaults(check && !ways_booted(), &ways[count++]);
    if (everywhere)
        of_all(&ways[count++]);
    return count;
}

int ways_put(const struct way *way, char error[ERROR_MAX])
{
    return strcmp(way->path, WAYS_EVERYWHERE) == 0 ? inset_put_head(way->path, way->text, error)
                                                   : inset_put(way->path, way->text, error);
}

int ways_take(const char *file, char error[ERROR_MAX])
{
    return strcmp(file, WAYS_EVERYWHERE) == 0 ? inset_take_head(file, OURS, error) : inset_take(file, error);
}

bool ways_is_in(const char *file)
{
    return strcmp(file, WAYS_EVERYWHERE) == 0 ? inset_has_head(file, OURS) : inset_is_in(file);
}

bool ways_are_in(void)
{
    bool found = false;

    for (size_t i = 0; ways_files[i] && !found; i++)
        found = ways_is_in(ways_files[i]);
    return found;
}

/* Is the file at @path another one than @before, or was it changed?  It is @before now. */
static bool has_changed(const char *path, struct stat *before)
{
    struct stat st = {0};

    bool there = stat(path, &st) == 0; /* else of the number 0 */
    bool changed = st.st_dev != before->st_dev || st.st_ino != before->st_ino ||
                   st.st_ctim.tv_sec != before->st_ctim.tv_sec || st.st_ctim.tv_nsec != before->st_ctim.tv_nsec;
    *before = there ? st : (struct stat){0};
    return changed;
}

/* Does the loader give it to @exim without a variable?  Asked again when a file has changed that decides it, as
 * `status --watch` looks each second. */
static bool is_needed(const char *exim, const struct stat *spool)
{
    static struct stat image, library, everywhere;
    static uid_t user;
    static int needed = -1;

    bool changed = has_changed(exim, &image);
    changed |= has_changed(INSTALLED_LIBRARY, &library);
    changed |= has_changed(WAYS_EVERYWHERE, &everywhere);
    if (changed || user != spool->st_uid || needed < 0)
        needed = command_maps_library(exim, spool->st_uid, spool->st_gid, NULL);
    user = spool->st_uid;
    return needed == 1;
}

bool ways_need(const struct fastspool_config *config)
{
    const char *exim = asked_exim(config);
    struct stat st;

    return exim && config->spools && stat(config->spool[0], &st) == 0 && st.st_uid != 0 && is_needed(exim, &st);
}

bool ways_lead(const struct fastspool_config *config)
{
    return ways_are_in() || ways_need(config);
}

/* A lock file of root's: users could lock a file that they can read. */
int ways_lock(void)
{
    mkdir(PLACES_REGISTRY, 0755);
    int fd = open(PLACES_WAYS_LOCK, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);

    if (fd < 0)
        return tool_error("cannot open %s: %s", PLACES_WAYS_LOCK, strerrordesc_np(errno));
    progress_begin("waiting for another call to end");
    int result = lock_take(fd, NULL, NULL);
    progress_end();
    if (result < 0 && result != -EWOULDBLOCK)
        return tool_error("cannot lock %s: %s", PLACES_WAYS_LOCK, strerrordesc_np(-result));
    return result == 0
               ? 0
               : tool_error("another `fastspool enable` or `fastspool disable` runs: try again when it has ended");
}

bool ways_is_unit(const char *name)
{
    return strcmp(name, is_called_exim() ? "exim.service" : "exim4.service") == 0;
}

/* For systemd Debian's service is active when its daemon has died (RemainAfterExit=), and `start` starts none. */
const char *ways_command(const char *verb)
{
    static char command[64];
    const char *name = is_called_exim() ? "exim" : "exim4";

    snprintf(command, sizeof(command), "/etc/init.d/%s", name);
    bool script = access(command, X_OK) == 0;
    if (ways_booted())
        snprintf(command, sizeof(command), "`systemctl %s %s`", strcmp(verb, "start") == 0 ? "restart" : verb, name);
    else
        snprintf(command, sizeof(command), script ? "`/etc/init.d/%s %s`" : "as this system does", name, verb);
    return command;
}

static bool is_packaged(void)
{
    glob_t found;
    bool packaged = glob("/var/lib/dpkg/info/libfastspool0*.list", 0, NULL, &found) == 0;

    globfree(&found);
    return packaged;
}

const char *ways_install_both(void)
{
    return is_packaged() ? "install both of one version: `dpkg --configure -a && apt-get install --reinstall "
                           "libfastspool0 fastspool`"
                         : "install both of one version: `meson install -C build`, where they were built";
}

const char *ways_install(bool library)
{
    if (!is_packaged())
        return library ? "install the library again: `meson install -C build`, where it was built"
                       : "install it again: `meson install -C build`, where it was built";
    return library ? "install the library again: `apt-get install --reinstall libfastspool0`"
                   : "install it again: `apt-get install --reinstall fastspool`";
}

void ways_reload(void)
{
    static const char *const reload[] = {"systemctl", "daemon-reload", NULL};
    char output[COMMAND_OUTPUT];

    if (!ways_booted())
        return;
    progress_begin("reloading systemd's units");
    command_run(reload, NULL, output);
    progress_end();
}
