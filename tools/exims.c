/* SPDX-License-Identifier: MIT
 *
 * The Exim processes that run on this machine: by the image that they execute, whatever they are called.
 *
 * Failure modes:
 *   - A process that ends meanwhile is none.
 *   - A process of a container has an image of its own, and is none, but where the container shares the image's file.
 *   - Root without CAP_SYS_PTRACE, as in a container, can't read the images of other users' processes: that is told,
 *     and not taken for none.
 *   - Any user can run any number of Exims, also with the library, which does not serve them: none of them hides
 *     another one, and none counts as the one that delivers the queue.
 *   - A user has an Exim's image run without a right but his own (no_new_privs, ptrace).  It gets into no spool, so it
 *     is none.  A process that read its maps or its command line could wait for ever: by a page of a FUSE's the user
 *     keeps its memory map locked.
 *   - The library is in memory, and serves nothing, as one that has lost its set-user-ID bit: decided.c knows.
 */
#include "exims.h"

#include "asked.h"
#include "base/clock.h"
#include "base/places.h"
#include "maps.h"
#include "moved.h"
#include "spool/viewed.h"

#include <dirent.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MOMENT       (NS_PER_S / 2)  /* between exec and the end of the loader's work */
#define GLANCE       (NS_PER_S / 10) /* the same, of a monitor's look at all processes */
#define COMM         15              /* bytes of a process's name that the kernel keeps */
#define COMMAND_LINE 4096            /* bytes of a command line that are looked at */
#define MOMENTS      NS_PER_S        /* of all processes: any user may have hundreds that never get the library */

/* ---- who has started it ---- */

/* The real uid at the last exec.  Exim takes its own, or root's, soon after. */
static bool read_starter(pid_t pid, uid_t *uid)
{
    char path[48];
    Elf64_auxv_t entry;
    bool found = false;

    snprintf(path, sizeof(path), "/proc/%ld/auxv", (long)pid);
    FILE *vector = fopen(path, "re");
    while (vector && !found && fread(&entry, sizeof(entry), 1, vector) == 1)
        found = entry.a_type == AT_UID;
    if (vector)
        fclose(vector);
    *uid = found ? (uid_t)entry.a_un.a_val : 0;
    return found;
}

/* Its own re-executions bear a mark. */
static bool is_marked(pid_t pid)
{
    char path[48], *variable = NULL;
    size_t room = 0;
    bool found = false;

    snprintf(path, sizeof(path), "/proc/%ld/environ", (long)pid);
    FILE *environment = fopen(path, "re");
    while (environment && !found && getdelim(&variable, &room, '\0', environment) > 0)
        found = strncmp(variable, PLACES_USERS "=", sizeof(PLACES_USERS)) == 0;
    if (environment)
        fclose(environment);
    free(variable);
    return found;
}

/* Is it root, trusted, or the owner of a spool, Exim's own, too, whatever the configuration names? */
static bool is_trusted(uid_t uid, const struct fastspool_config *config)
{
    char own[PATH_MAX];
    struct stat st;
    bool trusted = uid == 0;

    for (size_t i = 0; i < config->trusted_users && !trusted; i++)
        trusted = config->trusted_user[i] == uid;
    for (size_t i = 0; i < config->spools && !trusted; i++)
        trusted = stat(config->spool[i], &st) == 0 && st.st_uid == uid;
    return trusted || (asked_spool(config, own) && stat(own, &st) == 0 && st.st_uid == uid);
}

/* Has an ordinary user started it?  What can't be read counts as no. */
static bool is_users(pid_t pid, const struct fastspool_config *config)
{
    uid_t uid;

    return is_marked(pid) || (read_starter(pid, &uid) && !is_trusted(uid, config));
}

/* The kernel says so without looking into its memory. */
bool exims_is_powerless(pid_t pid, const struct fastspool_config *config)
{
    char path[48], line[256];
    uid_t uid[3];
    bool found = false;

    snprintf(path, sizeof(path), "/proc/%ld/status", (long)pid);
    FILE *status = fopen(path, "re");
    while (status && !found && fgets(line, sizeof(line), status))
        found = sscanf(line, "Uid: %u %u %u", &uid[0], &uid[1], &uid[2]) == 3;
    if (status)
        fclose(status);
    for (size_t i = 0; i < 3 && found; i++)
        found = !is_trusted(uid[i], config);
    return found;
}

/* ---- its image ---- */

/* "(deleted)" follows the path of an image that was replaced. */
static bool runs(pid_t pid, const char *image, bool *replaced)
{
    char link[48], path[PATH_MAX];
    struct stat st, running;

    snprintf(link, sizeof(link), "/proc/%ld/exe", (long)pid);
    ssize_t length = readlink(link, path, sizeof(path) - 1);
    if (length < 0)
        return false;
    path[length] = '\0';
    char *real = realpath(image, NULL);
    *replaced = real && strncmp(path, real, strlen(real)) == 0 && strcmp(path + strlen(real), " (deleted)") == 0;
    free(real);
    return *replaced || (stat(image, &st) == 0 && stat(link, &running) == 0 && st.st_dev == running.st_dev &&
                         st.st_ino == running.st_ino);
}

/* Is it in another namespace of this @kind than this process? */
static bool is_in_another(const char *kind, pid_t pid)
{
    char own_path[32], path[48];
    struct stat own, other;

    snprintf(own_path, sizeof(own_path), "/proc/self/ns/%s", kind);
    snprintf(path, sizeof(path), "/proc/%ld/ns/%s", (long)pid, kind);
    return stat(own_path, &own) == 0 && stat(path, &other) == 0 && own.st_ino != other.st_ino;
}

/* "30m", and no message's name. */
static bool is_time(const char *word)
{
    return *word >= '0' && *word <= '9' && word[strspn(word, "0123456789wdhms")] == '\0';
}

/* "-bd", "-bdf", "-bw", and with a time, also as the word behind it, "-q[q][i][f[f]][l][G<name>/]<time>".  What lists,
 * runs the queue once, also a named one ("-qGname1"), or takes one message is soon gone. */
static bool is_daemons(const char *word, const char *next)
{
    if (strncmp(word, "-bd", 3) == 0 || strncmp(word, "-bw", 3) == 0)
        return true;
    if (strncmp(word, "-q", 2) != 0)
        return false;
    word += 2 + strspn(word + 2, "qifl");
    if (*word == 'G') {
        word += strcspn(word, "/");
        word += *word == '/';
    }
    return is_time(*word ? word : next);
}

static void read_command(pid_t pid, struct exims_process *process)
{
    char path[48], text[COMMAND_LINE];
    size_t most = sizeof(process->command) - 1;

    snprintf(path, sizeof(path), "/proc/%ld/cmdline", (long)pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t size = fd < 0 ? 0 : read(fd, text, sizeof(text) - 1);
    if (fd >= 0)
        close(fd);
    size_t length = size > 0 ? (size_t)size : 0;
    text[length] = '\0';
    for (size_t at = 0, next; at < length; at = next) {
        next = at + strlen(text + at) + 1;
        process->daemon = process->daemon || is_daemons(text + at, next < length ? text + next : "");
        process->configured = process->configured || strncmp(text + at, "-C", 2) == 0;
    }
    while (length > 0 && text[length - 1] == '\0')
        length--;
    length = length < most ? length : most;
    for (size_t i = 0; i < length; i++)
        process->command[i] = text[i] < ' ' || text[i] > '~' ? ' ' : text[i];
    process->command[length] = '\0';
}

/* Exim's daemon works in its spool directory. */
static bool is_foreign(pid_t pid, const struct fastspool_config *config)
{
    char link[48];
    struct stat own, other;
    bool found = false;

    snprintf(link, sizeof(link), "/proc/%ld/cwd", (long)pid);
    if (stat(link, &other) < 0)
        return false;
    for (size_t i = 0; i < config->spools && !found; i++)
        found = stat(config->spool[i], &own) < 0 || (own.st_dev == other.st_dev && own.st_ino == other.st_ino);
    return !found;
}

/* ---- is it served? ---- */

/* The library's own word, and before it has one, what it will decide by. */
static void look_at_library(struct exims_process *process, const struct fastspool_config *config,
                            enum decision *decision)
{
    process->library = decided_has(process->pid, decision);
    process->users = process->library && *decision != SERVE && is_users(process->pid, config);
    process->served = process->library && (*decision == SERVE || (*decision == UNDECIDED && !process->users));
}

static void wait_for_library(struct exims_process *process, const struct fastspool_config *config, uint64_t *patience)
{
    uint64_t began = clock_monotonic(), most = *patience < MOMENT ? *patience : MOMENT, waited = 0;
    enum decision decision;

    for (look_at_library(process, config, &decision); decision == UNDECIDED && waited < most;) {
        clock_sleep(NS_PER_S / 20);
        if (exims_is_powerless(process->pid, config)) /* by now: what a delivery executes, say */
            break;
        look_at_library(process, config, &decision);
        waited = clock_monotonic() - began;
    }
    *patience -= waited < *patience ? waited : *patience;
}

/* ---- all of them ---- */

static bool is_any(pid_t pid, const struct fastspool_config *config, const char *image, bool *replaced)
{
    bool found = image && runs(pid, image, replaced);

    for (size_t i = 0; i < config->programs && !found; i++)
        found = runs(pid, config->program[i], replaced);
    return found;
}

/* A store in use is never given back.  So its memory was removed by hand, or the locks that show the use; or its state
 * directory was moved, or hidden.  (What is mounted in a user namespace any user may have put there, and root would be
 * told to unmount what is there in his own.) */
static bool is_stranded(const struct fastspool_config *config, struct exims_process *process)
{
    pid_t pid = process->pid;

    return maps_find(pid, "/fastspool.", "/" PLACES_SEGMENT " (deleted)\n") ||
           moved_find(pid, config, process->moved) ||
           (!process->elsewhere && !is_in_another("user", pid) && moved_below(pid, process->moved, process->over));
}

static bool take(pid_t pid, const struct fastspool_config *config, const char *image, struct exims_process *process,
                 uint64_t *patience)
{
    *process = (struct exims_process){.pid = pid};
    if (!is_any(pid, config, image, &process->replaced) || exims_is_powerless(pid, config))
        return false;
    process->elsewhere = is_in_another("pid", pid);
    wait_for_library(process, config, patience);
    read_command(pid, process);
    process->foreign = process->daemon && process->configured && is_foreign(pid, config);
    process->stranded = process->served && process->daemon && is_stranded(config, process);
    return is_any(pid, config, image, &process->replaced); /* or it has ended */
}

static size_t each_of(const struct fastspool_config *config, const char *image, uint64_t patience, exims_visit *each,
                      void *context)
{
    DIR *directory = opendir("/proc");
    size_t number = 0;
    bool ended = false;

    for (struct dirent *entry; directory && !ended && (entry = readdir(directory));) {
        pid_t pid = (pid_t)atol(entry->d_name);
        struct exims_process process;
        if (pid <= 0 || !take(pid, config, image, &process, &patience))
            continue;
        number++;
        ended = each(context, &process);
    }
    if (directory)
        closedir(directory);
    return number;
}

size_t exims_each(const struct fastspool_config *config, const char *image, exims_visit *each, void *context)
{
    return each_of(config, image, MOMENTS, each, context);
}

struct count {
    size_t all;
    struct exims_found *found;
};

static bool count_without(void *context, const struct exims_process *process)
{
    struct count *count = context;
    struct exims_found *found = count->found;
    bool counts = !process->served && !process->users && !process->elsewhere && !process->foreign;

    count->all += counts;
    found->daemons += counts && process->daemon;
    if (counts && process->daemon && !found->plain)
        found->plain = process->pid;
    if (process->stranded && !found->stranded) { /* /proc has them by number: the daemon stands before its children */
        found->stranded = process->pid;
        strcpy(found->moved, process->moved);
        strcpy(found->over, process->over);
    }
    found->configured = found->configured || (process->served && process->configured);
    if (process->served && process->daemon && !found->served)
        found->served = process->pid;
    return false;
}

bool exims_is_blind(const struct exims_process *process, const char *runtime)
{
    char root[32], path[FASTSPOOL_PATH_MAX + sizeof(root)];
    struct stat st;

    if (!process->served || !process->daemon || process->stranded || process->elsewhere || process->configured ||
        maps_find(process->pid, "/fastspool.", "/" PLACES_SEGMENT "\n"))
        return false;
    snprintf(root, sizeof(root), "/proc/%ld/root", (long)process->pid);
    snprintf(path, sizeof(path), "%s%s", root, runtime);
    return stat(runtime, &st) == 0 && stat(path, &st) < 0 && errno == ENOENT &&
           stat(root, &st) == 0; /* it lives still */
}

struct blind {
    const char *runtime;
    pid_t found;
};

static bool look_for_blind(void *context, const struct exims_process *process)
{
    struct blind *blind = context;

    if (exims_is_blind(process, blind->runtime))
        blind->found = process->pid;
    return blind->found != 0;
}

pid_t exims_find_blind(const struct fastspool_config *config, const char *runtime)
{
    struct blind blind = {.runtime = runtime};

    each_of(config, NULL, 0, look_for_blind, &blind);
    return blind.found;
}

const char *exims_bind(const char *runtime)
{
    return strncmp(runtime, "/dev/shm/", 9) == 0
               ? "take what gives it a /dev/shm of its own out of its unit, or say `BindPaths=/dev/shm` there"
               : "take TemporaryFileSystem=, or what else gives it a /run of its own, out of its unit, or say "
                 "`BindPaths=" PLACES_REGISTRY "` there";
}

/* Is @pid called like one of the images? */
static bool is_called(pid_t pid, const struct fastspool_config *config)
{
    char path[48], name[32] = "";
    bool found = false;

    snprintf(path, sizeof(path), "/proc/%ld/comm", (long)pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t length = fd < 0 ? 0 : read(fd, name, sizeof(name) - 1);
    if (fd >= 0)
        close(fd);
    name[length > 0 ? length - 1 : 0] = '\0'; /* the newline */
    for (size_t i = 0; i < config->programs && !found; i++) {
        const char *slash = strrchr(config->program[i], '/');
        found = name[0] && strncmp(slash ? slash + 1 : config->program[i], name, COMM) == 0;
    }
    return found;
}

size_t exims_hidden(const struct fastspool_config *config)
{
    DIR *directory = opendir("/proc");
    size_t hidden = 0;

    for (struct dirent *entry; directory && (entry = readdir(directory));) {
        char link[48], path[8];
        pid_t pid = (pid_t)atol(entry->d_name);
        snprintf(link, sizeof(link), "/proc/%ld/exe", (long)pid);
        hidden += pid > 0 && readlink(link, path, sizeof(path)) < 0 && (errno == EACCES || errno == EPERM) &&
                  is_called(pid, config);
    }
    if (directory)
        closedir(directory);
    return hidden;
}

int64_t exims_without(const struct fastspool_config *config, struct exims_found *found)
{
    struct count without = {.found = found};

    *found = (struct exims_found){0};
    each_of(config, NULL, GLANCE, count_without, &without);
    return exims_hidden(config) ? -1 : (int64_t)without.all;
}

/* Does it have the store, or will it with its first call?  Waits for nothing.  *@daemon: and is a daemon. */
static bool attends(pid_t pid, const struct fastspool_config *config, bool on_view, bool *daemon)
{
    struct exims_process process = {.pid = pid};
    enum decision decision;

    if (!is_any(pid, config, NULL, &process.replaced) || exims_is_powerless(pid, config))
        return false;
    look_at_library(&process, config, &decision);
    if (!process.served && (!on_view || is_users(pid, config)))
        return false;
    read_command(pid, &process);
    if (process.daemon && process.configured && is_foreign(pid, config))
        return false;
    *daemon = *daemon || process.daemon;
    return true;
}

bool exims_attend(const struct fastspool_config *config, const char *spool, bool *daemon)
{
    DIR *directory = opendir("/proc");
    bool on_view = viewed(spool) > 0, found = false, stays = false;

    for (struct dirent *entry; directory && !(daemon ? stays : found) && (entry = readdir(directory));) {
        pid_t pid = (pid_t)atol(entry->d_name);
        found = (pid > 0 && attends(pid, config, on_view, &stays)) || found;
    }
    if (directory)
        closedir(directory);
    bool hidden = !(daemon ? stays : found) && exims_hidden(config) > 0;
    if (daemon)
        *daemon = stays || hidden;
    return found || hidden;
}
