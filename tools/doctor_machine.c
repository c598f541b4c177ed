/* SPDX-License-Identifier: MIT
 *
 * fastspool doctor: memory, disk, and what the system may do to either.
 *
 * Happy path: `memory` fits into the file system of the store and into the control group; the state directory lies on a
 * disk, and its fdatasync takes the time that a disk takes.
 *
 * Failure modes:
 *   - The state directory does not exist yet: the spool's file system counts.
 *   - A disk that lies, and takes its time for it, is believed.
 */
#include "asked.h"
#include "base/atomic.h"
#include "base/cgroup.h"
#include "base/clock.h"
#include "base/escape.h"
#include "base/places.h"
#include "base/rights.h"
#include "config.h"
#include "doctor.h"
#include "exims.h"
#include "memory.h"
#include "mirrors.h"
#include "mountpoint.h"
#include "spool/launch.h"
#include "spool/record.h"
#include "spool/runtime.h"
#include "status.h"
#include "store/layout.h"
#include "store/residency.h"
#include "store/segment.h"
#include "store/store.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define MIB(bytes)      ((bytes) >> 20)
#define SYNCS           15
#define IMPLAUSIBLE     (4 * NS_PER_US) /* no disk has written, and told so, after that time; a loop device has in 8 */
#define BLOCK           4096
#define FIRST_NAMESPACE 0xEFFFFFFCu /* the kernel's number of the PID namespace that the machine begins with */
#define EVERY_USER      UINT32_MAX  /* how many the user namespace that the machine begins with maps */
#define NOBODY          65534u      /* whom the kernel shows for a user that a namespace has not (overflowuid) */
#define FIRST_USER      1000u       /* systemd-logind's RemoveIPC spares the users below */

/* ---- memory ---- */

/* What the file system @size of the store can have.  Root's tmpfs grows (spool/runtime.h). */
static uint64_t room_of(const struct doctor *doctor, const struct statvfs *size)
{
    uint64_t room = (uint64_t)size->f_blocks * size->f_frsize;
    long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
    uint64_t machine = pages > 0 && page > 0 ? (uint64_t)pages * (uint64_t)page : 0;

    return runtime_is_own(doctor->runtime) && room < machine ? machine : room;
}

struct group_limit {
    uint64_t bytes;
    char directory[PATH_MAX]; /* of the group that has it */
};

/* The least `memory.max` on the way up to the root group. */
static int take_limit(const char *directory, void *context)
{
    struct group_limit *least = context;
    char path[PATH_MAX];
    unsigned long long limit;

    snprintf(path, sizeof(path), "%s/memory.max", directory);
    FILE *file = fopen(path, "re");
    if (file && fscanf(file, "%llu", &limit) == 1 && limit < least->bytes) {
        least->bytes = limit;
        strcpy(least->directory, directory);
    }
    if (file)
        fclose(file);
    return 0;
}

/* The rest of a control group is Exim's processes' and the page cache's.  @mirror: it is the mirror's, which has what a
 * recovery or a page-in brings into memory, and no more. */
static bool fits_limit(struct doctor *doctor, const struct group_limit *limit, bool mirror)
{
    const char *name = strrchr(limit->directory, '/'), *unit = name && strchr(name, '.') ? name + 1 : NULL;
    uint64_t memory = doctor->config.memory;
    char mend[PATH_MAX + 96];

    if (memory <= limit->bytes / 2)
        return true;
    snprintf(mend, sizeof(mend), "lower `memory`, or raise that limit (%s%s)",
             unit ? "MemoryMax= of " : "a container's by --memory", unit ? unit : "");
    doctor_tell(doctor, memory > limit->bytes && !mirror ? DOCTOR_WRONG : DOCTOR_ATTENTION, mend,
                "`memory` is %" PRIu64 " MiB, and the control group %s%s has %" PRIu64 " MiB for all", MIB(memory),
                limit->directory, mirror ? ", of the mirror," : "", MIB(limit->bytes));
    return false;
}

/* Of this process, as before a start of Exim, and of the mirror, which may be a service's of its own. */
static bool fits_group(struct doctor *doctor)
{
    struct group_limit own = {.bytes = UINT64_MAX}, mirrors = own;
    pid_t mirror = doctor->spool[0] ? mirrors_find(doctor->state, doctor->owner) : 0;

    cgroup_any_above("memory", take_limit, &own);
    if (mirror > 0)
        cgroup_any_above_of(mirror, "memory", take_limit, &mirrors);
    bool other = mirrors.bytes != own.bytes || strcmp(mirrors.directory, own.directory) != 0;
    bool fits = fits_limit(doctor, &own, false);
    return (!other || fits_limit(doctor, &mirrors, true)) && fits;
}

/* In a store with `memory` that is empty. */
static bool takes_large(struct doctor *doctor)
{
    static struct header empty;
    char line[STATUS_LINE];

    segment_limit(&empty, doctor->config.memory);
    if (!status_refuses_large(residency_largest(&empty), asked_message_limit(doctor->options), line))
        return true;
    doctor_tell(doctor, doctor_verdict(severity_of(LARGE_REFUSED)), NULL, "%s", line);
    return false;
}

/* A change of `memory` waits for the next mirror. */
static void tell_memory(struct doctor *doctor, uint64_t room)
{
    uint64_t memory = doctor->config.memory, now = doctor->fs ? LOAD(doctor->fs->header->memory_limit) : memory;
    char until[96] = "";

    if (MIB(now) != MIB(memory))
        snprintf(until, sizeof(until),
                 "; %" PRIu64 " MiB until Exim is stopped, and `fastspool stop` has ended the store", MIB(now));
    doctor_tell(doctor, DOCTOR_OK, NULL, "`memory` is %" PRIu64 " MiB, of %" PRIu64 " MiB that %s %s%s", MIB(memory),
                MIB(room), doctor->runtime, runtime_is_own(doctor->runtime) ? "can grow to" : "has", until);
}

/* Is a view mounted of a store whose memory process 1 sees at @runtime, and this process, in the sandbox of a service,
 * not?  (Where a mirror alone has it, that ends for Exim, and Exim makes one of its own.) */
static bool is_hidden(const struct doctor *doctor, char runtime[FASTSPOOL_PATH_MAX])
{
    char path[FASTSPOOL_PATH_MAX + sizeof("/proc/1/root")];
    struct record record;

    struct rights rights = rights_of_owner(doctor->owner, doctor->group);
    int fd = open(doctor->state, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    bool known = fd >= 0 && record_read(fd, &record) == 0;
    if (fd >= 0)
        close(fd);
    rights_back(rights);
    if (!known || access(record.runtime, F_OK) == 0 || errno != ENOENT || launch_view_lives(doctor->state) <= 0)
        return false;
    strcpy(runtime, record.runtime);
    snprintf(path, sizeof(path), "/proc/1/root%s", runtime);
    return access(path, F_OK) == 0;
}

void doctor_memory(struct doctor *doctor)
{
    struct statvfs size;
    uint64_t memory = doctor->config.memory;
    const char *place = doctor->runtime;
    char found[MEMORY_FOUND], mend[MEMORY_MEND], hidden[FASTSPOOL_PATH_MAX];

    if (doctor->spool[0] && is_hidden(doctor, hidden)) {
        doctor_tell(doctor, DOCTOR_WRONG, exims_bind(hidden), EXIMS_BLIND, hidden);
        return;
    }
    if (!place[0] || (!doctor->config.runtime[0] && access(place, F_OK) < 0 && rights_may_mount())) {
        if (fits_group(doctor) && takes_large(doctor))
            doctor_tell(doctor, DOCTOR_OK, NULL, "`memory` is %" PRIu64 " MiB, in a tmpfs that Exim's start will mount",
                        MIB(memory));
        return;
    }
    bool refused = memory_refuses(place, doctor->owner, doctor->group, found, mend);
    if (!refused && statvfs(place, &size) < 0) {
        snprintf(found, sizeof(found), "%.256s, the place of the store: %s", place, strerrordesc_np(errno));
        refused = true;
    }
    if (refused) {
        doctor_tell(doctor, DOCTOR_WRONG, mend, "%s", found);
        return;
    }
    uint64_t room = room_of(doctor, &size);
    bool fits = fits_group(doctor);
    if (room && room < memory)
        doctor_tell(doctor, DOCTOR_ATTENTION,
                    runtime_is_own(place) ? "lower `memory` in " FASTSPOOL_CONFIG ": this machine has no more"
                                          : "`mount -o remount,size=...` it (a container's /dev/shm by --shm-size), or "
                                            "lower `memory` in " FASTSPOOL_CONFIG,
                    "`memory` is %" PRIu64 " MiB, and %s has only %" PRIu64 " MiB", MIB(memory), place, MIB(room));
    else if (fits && takes_large(doctor))
        tell_memory(doctor, room);
}

void doctor_huge_pages(struct doctor *doctor)
{
    char value[MOUNTPOINT_VALUE], kernel[MOUNTPOINT_KERNEL];
    struct mountpoint mount;

    if (!doctor->runtime[0] || !mountpoint_of(doctor->runtime, &mount))
        return;
    bool huge = mountpoint_is_huge(&mount, value, kernel);
    doctor_tell(
        doctor, DOCTOR_OK, NULL,
        "%s: %s, by huge=%s of that mount; the kernel's shmem_enabled, %s, is for it only where it says [deny] or "
        "[force]",
        doctor->runtime, huge ? "2 MiB where the machine has them" : "4 KiB", value[0] ? value : "never", kernel);
}

/* ---- the disk ---- */

static const char *on_disk(const struct doctor *doctor)
{
    return access(doctor->state, F_OK) == 0 ? doctor->state : doctor->spool;
}

static bool is_one_of(const char *type, const char *const types[])
{
    bool found = false;

    for (size_t i = 0; types[i] && !found; i++)
        found = strncmp(type, types[i], strlen(types[i])) == 0;
    return found;
}

void doctor_disk(struct doctor *doctor)
{
    static const char *const memory[] = {"tmpfs", "ramfs", "devtmpfs", NULL};
    static const char *const doubtful[] = {"nfs",  "cifs", "smb",       "fuse",     "9p", "overlay",
                                           "ceph", "aufs", "glusterfs", "virtiofs", NULL};
    struct mountpoint mount;
    const char *place = on_disk(doctor);
    char word[ESCAPE_WORD_ROOM(sizeof(mount.place))], mend[sizeof(word) + PATH_MAX];

    if (!doctor->spool[0] || !mountpoint_of(place, &mount))
        return;
    if (mount.bound)
        snprintf(mend, sizeof(mend), MOUNTPOINT_BOUND, doctor->spool);
    else
        snprintf(mend, sizeof(mend), "`dmesg` says why; then `mount -o remount,rw %s`",
                 escape_word(word, sizeof(word), mount.place));
    if (is_one_of(mount.type, memory))
        doctor_tell(doctor, DOCTOR_WRONG, "set `state` to a directory on a disk, or mount one there",
                    "%s is on %s, which is memory: a power cut or a reboot loses all mail", place, mount.type);
    else if (is_one_of(mount.type, doubtful))
        doctor_tell(doctor, DOCTOR_ATTENTION, "set `state` to a directory on a file system of this machine's disk",
                    "%s is on %s, whose fdatasync and locks may be worth less than a disk's", place, mount.type);
    else if (mount.read_only || mount.bound)
        doctor_tell(doctor, DOCTOR_WRONG, mend, "%s is on %s, mounted over %s to be read only", place, mount.type,
                    mount.place);
    else
        doctor_tell(doctor, DOCTOR_OK, NULL, "%s is on %s, mounted over %s", place, mount.type, mount.place);
}

void doctor_barriers(struct doctor *doctor)
{
    static const char *const off[] = {"nobarrier", "barrier=0", "barrier=none", NULL};
    struct mountpoint mount;
    const char *found = NULL;

    if (!doctor->spool[0] || !mountpoint_of(on_disk(doctor), &mount))
        return;
    for (size_t i = 0; off[i] && !found; i++)
        found = mountpoint_has(&mount, off[i]) ? off[i] : NULL;
    if (found)
        doctor_tell(doctor, DOCTOR_ATTENTION, "mount it without, unless the disk's cache outlives a power cut",
                    "%s is mounted with %s: a power cut may lose what an fsync confirmed", mount.place, found);
    else
        doctor_tell(doctor, DOCTOR_OK, NULL, "%s is mounted with barriers", mount.place);
}

static int compare(const void *a, const void *b)
{
    const uint64_t *x = a, *y = b;
    return *x < *y ? -1 : *x > *y;
}

/* The median of SYNCS times that a write of a block and its fdatasync take; 0: errno says why not.  The file has no
 * name, and goes with the descriptor. */
static uint64_t median_sync(const char *place)
{
    static const char block[BLOCK];
    uint64_t times[SYNCS];
    int fd = open(place, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    bool good = fd >= 0 && pwrite(fd, block, BLOCK, 0) == BLOCK && fdatasync(fd) == 0;

    for (size_t i = 0; good && i < SYNCS; i++) {
        uint64_t began = clock_precise();
        good = pwrite(fd, block, BLOCK, 0) == BLOCK && fdatasync(fd) == 0;
        times[i] = clock_precise() - began;
    }
    int error = errno;
    if (fd >= 0)
        close(fd);
    errno = error;
    if (!good)
        return 0;
    qsort(times, SYNCS, sizeof(times[0]), compare);
    return times[SYNCS / 2];
}

void doctor_syncs(struct doctor *doctor)
{
    const char *place = on_disk(doctor);

    if (!doctor->spool[0])
        return;
    uint64_t median = median_sync(place);
    double us = (double)median / (double)NS_PER_US;
    if (!median && errno == EROFS)
        return; /* "disk" has told */
    if (!median)
        doctor_tell(doctor, DOCTOR_ATTENTION, "make room, or see the kernel's log", "no file can be synced in %s: %s",
                    place, strerrordesc_np(errno));
    else if (median < IMPLAUSIBLE)
        doctor_tell(doctor, DOCTOR_WRONG,
                    "find what makes fdatasync a lie: a preloaded library, memory as a disk, a virtual machine that "
                    "ignores flushes",
                    "fdatasync in %s takes %.1f us: no disk is as fast", place, us);
    else
        doctor_tell(doctor, DOCTOR_OK, NULL, "fdatasync in %s takes %.2f ms, %.0f a second", place, us / 1000,
                    1e6 / us);
}

/* ---- what the system does to processes and memory ---- */

/* Has the user namespace of this process all users of the machine? */
static bool has_all_users(void)
{
    FILE *map = fopen("/proc/self/uid_map", "re");
    unsigned long inside = 0, outside = 0, count = EVERY_USER;

    bool read = map && fscanf(map, "%lu %lu %lu", &inside, &outside, &count) == 3;
    if (map)
        fclose(map);
    return !read || (inside == 0 && count >= EVERY_USER);
}

/* A user that the namespace lacks is shown as nobody, as the owner of files, too; and root can't become him. */
void doctor_users(struct doctor *doctor)
{
    doctor->lacks_users = doctor->spool[0] && doctor->owner == NOBODY && !has_all_users();
    if (doctor->lacks_users)
        doctor_tell(
            doctor, DOCTOR_WRONG, "take PrivateUsers= out of Exim's service, or map that user into the container",
            "this process lives in a user namespace without the owner of %s, as whom Exim has to run", doctor->spool);
}

void doctor_namespace(struct doctor *doctor)
{
    struct stat st;

    if (stat("/proc/self/ns/pid", &st) < 0)
        doctor_tell(doctor, DOCTOR_WRONG, "mount /proc", "/proc/self/ns/pid: %s", strerrordesc_np(errno));
    else if (st.st_ino == FIRST_NAMESPACE)
        doctor_tell(doctor, DOCTOR_OK, NULL, "in the machine's own PID namespace");
    else
        doctor_tell(doctor, DOCTOR_OK, NULL,
                    "in a container's PID namespace: all processes of the spool have to live in it");
}

/* The last word counts: the files of logind.conf.d follow logind.conf. */
static bool is_spared_by_logind(void)
{
    static const char *const script[] = {
        "sh", "-c",
        "cat /etc/systemd/logind.conf /usr/lib/systemd/logind.conf.d/*.conf /etc/systemd/logind.conf.d/*.conf "
        "/run/systemd/logind.conf.d/*.conf 2>/dev/null | sed -n 's/^[[:space:]]*RemoveIPC=//p' | tail -n 1",
        NULL};
    char value[COMMAND_OUTPUT];

    command_run(script, NULL, value);
    return strcmp(value, "no") == 0 || strcmp(value, "false") == 0 || strcmp(value, "0") == 0 ||
           strcmp(value, "off") == 0;
}

void doctor_remove_ipc(struct doctor *doctor)
{
    if (!doctor->spool[0])
        return;
    if (access("/run/systemd/system", F_OK) < 0)
        doctor_tell(doctor, DOCTOR_OK, NULL, "no systemd runs, which could remove the store from memory");
    else if (doctor->owner < FIRST_USER)
        doctor_tell(doctor, DOCTOR_OK, NULL, "systemd spares user %u, the spool's owner, a system user",
                    (unsigned)doctor->owner);
    else if (strncmp(doctor->runtime, PLACES_MEMORY, strlen(PLACES_MEMORY)) != 0 || is_spared_by_logind())
        doctor_tell(doctor, DOCTOR_OK, NULL, "systemd leaves the store in memory");
    else
        doctor_tell(doctor, DOCTOR_WRONG,
                    "RemoveIPC=no in /etc/systemd/logind.conf, or `runtime` on a tmpfs of its own",
                    "user %u, the spool's owner, is no system user: systemd removes the store from %s when that user "
                    "logs out",
                    (unsigned)doctor->owner, PLACES_MEMORY);
}
