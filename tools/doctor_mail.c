/* SPDX-License-Identifier: MIT
 *
 * fastspool doctor: the store, the view, and mail outside of them.
 *
 * Happy path: `fastspool status` says that all is well, the view is mounted, and no message lies on the disk.
 *
 * Failure modes: the disk below a view can't be looked at by a kernel before 5.2: then nothing is said about it.
 */
#include "base/places.h"
#include "config.h"
#include "doctor.h"
#include "exims.h"
#include "seen.h"
#include "spool/exim.h"
#include "spool/launch.h"
#include "spool/viewed.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#define NAMES "%.200s"

/* ---- the store ---- */

/* `fastspool status` is the judge of a store. */
void doctor_store(struct doctor *doctor)
{
    const char *const arguments[] = {FASTSPOOL_TOOL, "status", "--spool", doctor->spool, NULL};
    char output[COMMAND_OUTPUT];

    if (!doctor->spool[0] || doctor->refusal[0]) /* of that "configuration" has told, and status would say no more */
        return;
    if (!doctor->fs) {
        bool none = doctor->attached == -ENOENT;
        doctor_tell(doctor, none ? DOCTOR_OK : DOCTOR_WRONG, none ? NULL : "see `fastspool verify`", "%s", doctor->why);
        return;
    }
    int status = command_run(arguments, NULL, output);
    output[strcspn(output, "\n")] = '\0';
    doctor_tell(doctor,
                status == 0   ? DOCTOR_OK
                : status == 1 ? DOCTOR_ATTENTION
                              : DOCTOR_WRONG,
                status == 0                            ? NULL
                : strstr(output, "`fastspool doctor`") ? "what the other lines say"
                                                       : "see `fastspool status`",
                "%s", output);
}

void doctor_unattended(struct doctor *doctor)
{
    struct fastspool_status status;
    char database[PLACES_PATH_MAX];

    if (!doctor->spool[0])
        return;
    places_in_state(doctor->state, PLACES_DATABASE "/data.mdb", database);
    bool disk = access(database, F_OK) == 0;
    if (!doctor->fs && disk)
        doctor_tell(doctor, DOCTOR_ATTENTION, "start Exim with the library: it brings back what is there",
                    "%s may hold mail, and no store is in memory", doctor->state);
    else if (!doctor->fs)
        doctor_tell(doctor, DOCTOR_OK, NULL, "none: the spool has not been used with fastspool");
    else if (fastspool_status(doctor->fs, &status) < 0)
        return; /* "store" has said why */
    else if (status.messages > 0 && !exims_attend(&doctor->config, doctor->spool))
        doctor_tell(doctor, DOCTOR_WRONG,
                    "start Exim with the library (`fastspool enable`), or `fastspool export` to leave",
                    "%" PRIu64 " messages stand: no Exim that runs has them", status.messages);
    else
        doctor_tell(doctor, DOCTOR_OK, NULL, "%" PRIu64 " messages", status.messages);
}

/* ---- the view ---- */

void doctor_view(struct doctor *doctor)
{
    enum view_obstacle obstacle;
    struct seen seen = {.state = SEEN_OFF};
    int error = doctor->config.view ? launch_view_obstructed(&obstacle) : 0;

    if (!doctor->spool[0])
        return;
    if (doctor->fs)
        seen_look(doctor->fs, doctor->config.view, &seen);
    if (error)
        doctor_tell(doctor, DOCTOR_ATTENTION,
                    "let this machine or container mount it, or say `view = off` and see \"readers\"",
                    "no view can be mounted: %s: %s", launch_view_obstacle(obstacle), strerrordesc_np(error));
    else if (!doctor->config.view && seen.state != SEEN_MOUNTED && seen.state != SEEN_DEAD)
        doctor_tell(doctor, DOCTOR_OK, NULL, "off, as the configuration says");
    else if (!doctor->fs)
        doctor_tell(doctor, DOCTOR_OK, NULL, "none yet: the start of Exim with the library mounts it");
    else
        doctor_tell(doctor,
                    seen.state == SEEN_MOUNTED                                ? DOCTOR_OK
                    : seen.state == SEEN_DEAD || seen.state == SEEN_UNMOUNTED ? DOCTOR_WRONG
                                                                              : DOCTOR_ATTENTION,
                    seen.state == SEEN_DEAD || seen.state == SEEN_UNMOUNTED ? "`fastspool run -- true`" : NULL, "%s",
                    seen.line);
}

/* ---- mail on the plain disk ---- */

struct plain {
    unsigned messages; /* that Exim without the library would see */
    unsigned taken;    /* whose import was interrupted */
};

/* The -H files in directory @name of @parent, and in its split subdirectories. */
static void count_in(int parent, const char *name, bool split, struct plain *plain)
{
    int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    DIR *directory = fd < 0 ? NULL : fdopendir(fd);

    for (struct dirent *entry; directory && (entry = readdir(directory));) {
        if (strncmp(entry->d_name, PLACES_TAKEN, strlen(PLACES_TAKEN)) == 0)
            plain->taken += exim_shows(entry->d_name + strlen(PLACES_TAKEN));
        else if (exim_shows(entry->d_name))
            plain->messages++;
        else if (split && entry->d_name[0] != '.' && entry->d_name[1] == '\0')
            count_in(fd, entry->d_name, false, plain);
    }
    if (directory)
        closedir(directory);
    else if (fd >= 0)
        close(fd);
}

/* Of the spool and of each named queue: the directories of @spool that have an `input`. */
static void count_queues(int spool, struct plain *plain)
{
    char path[PATH_MAX];
    DIR *directory = fdopendir(spool);

    count_in(spool, "input", true, plain);
    for (struct dirent *entry; directory && (entry = readdir(directory));) {
        snprintf(path, sizeof(path), "%s/input", entry->d_name);
        if (entry->d_name[0] != '.')
            count_in(spool, path, true, plain);
    }
    if (directory)
        closedir(directory);
}

/* Where a view is mounted, the directories below it: a clone of the spool's own mount has no other one. */
void doctor_plain(struct doctor *doctor)
{
    struct plain plain = {0};
    bool view = doctor->spool[0] && viewed(doctor->spool) != 0;

    if (!doctor->spool[0])
        return;
    int spool = open_tree(AT_FDCWD, doctor->spool, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
    int fd = spool < 0 && !view ? open(doctor->spool, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
                                : openat(spool, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd >= 0)
        count_queues(fd, &plain);
    if (spool >= 0)
        close(spool);
    if (fd < 0)
        doctor_tell(doctor, DOCTOR_ATTENTION, NULL, "the disk below the view can't be looked at: %s",
                    strerrordesc_np(errno));
    else if (plain.messages == 0 && plain.taken == 0)
        doctor_tell(doctor, DOCTOR_OK, NULL, "none%s", view ? ", below the view, too" : "");
    else if (plain.messages && view)
        doctor_tell(doctor, DOCTOR_WRONG, "syslog says why each stays; see \"on the disk\" of `fastspool status`",
                    "the view hides %u messages of the disk", plain.messages);
    else
        doctor_tell(doctor, DOCTOR_ATTENTION, "start Exim with the library: it delivers them, and a view imports them",
                    "%u messages on the plain disk, and %u whose import was interrupted", plain.messages, plain.taken);
}

/* ---- readers without the library ---- */

/* What reads or fills the queue from cron.  exim_tidydb works on SPOOL/db alone, which is on the disk. */
void doctor_readers(struct doctor *doctor)
{
    static const char *const search[] = {
        "sh", "-c",
        "grep -lsrE '(^|[^[:alnum:]_])(mailq|exiqgrep|exipick|exiqsumm|exim4?|sendmail|mail)([^[:alnum:]_]|$)' "
        "/etc/crontab /etc/cron.d /etc/cron.hourly /etc/cron.daily /etc/cron.weekly /etc/cron.monthly "
        "/var/spool/cron/crontabs /etc/ppp/ip-up.d | sort | tr '\\n' ' '",
        NULL};
    char found[COMMAND_OUTPUT];

    if (!doctor->spool[0])
        return;
    if (viewed(doctor->spool) > 0) {
        doctor_tell(doctor, DOCTOR_OK, NULL, "every program sees the queue, by the view");
        return;
    }
    command_run(search, NULL, found);
    bool will = doctor->config.view && !doctor->fs;
    if (will)
        doctor_tell(doctor, DOCTOR_OK, NULL, "every program will see the queue, when the view is mounted");
    else
        doctor_tell(doctor, DOCTOR_ATTENTION, "`fastspool run -- COMMAND`, or " EXIMS_LIBRARY " in /etc/ld.so.preload",
                    "without a view, programs without the library see an empty queue, and what they send lies on the "
                    "disk: mailq, exiqgrep, monitors%s" NAMES,
                    found[0] ? ", and of cron and ppp " : "", found);
}
