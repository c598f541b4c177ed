/* SPDX-License-Identifier: MIT
 *
 * The mount that a path lies in: its file system and its options, of the line in /proc/self/mountinfo that has the
 * number which the kernel says for the path.
 */
#include "mountpoint.h"

#include "base/mountinfo.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The number of the mount, -1: unknown. */
static int number_of(const char *path)
{
    char info[64], line[256];
    int number = -1, fd = open(path, O_PATH | O_CLOEXEC);

    if (fd < 0)
        return -1;
    snprintf(info, sizeof(info), "/proc/self/fdinfo/%d", fd);
    FILE *file = fopen(info, "re");
    while (file && number < 0 && fgets(line, sizeof(line), file))
        sscanf(line, "mnt_id: %d", &number);
    if (file)
        fclose(file);
    close(fd);
    return number;
}

/* "ID PARENT MAJOR:MINOR ROOT PLACE OPTIONS [TAG...] - TYPE SOURCE OPTIONS" */
static bool parse(const char *line, int number, struct mountpoint *mount)
{
    char own[512] = "", of_system[512] = "";
    int id, place = 0;
    const char *second = strstr(line, " - ");

    if (!second || sscanf(line, "%d %*d %*s %*s %n%*s %511s", &id, &place, own) != 2 || id != number ||
        sscanf(second, " - %63s %*s %511s", mount->type, of_system) < 1)
        return false;
    mountinfo_unescape(line + place, mount->place);
    snprintf(mount->options, sizeof(mount->options), "%s,%s", own, of_system);
    mount->read_only = strcmp(of_system, "ro") == 0 || strncmp(of_system, "ro,", strlen("ro,")) == 0 ||
                       mountpoint_has(mount, "emergency_ro");       /* ext4 since Linux 6.15, after an error */
    mount->bound = strncmp(own, "ro", 2) == 0 && !mount->read_only; /* the kernel has it first */
    return true;
}

bool mountpoint_of(const char *path, struct mountpoint *mount)
{
    char *line = NULL;
    size_t room = 0;
    bool found = false;
    int number = number_of(path);
    FILE *file = number < 0 ? NULL : fopen("/proc/self/mountinfo", "re");

    while (file && !found && getline(&line, &room, file) > 0)
        found = parse(line, number, mount);
    if (file)
        fclose(file);
    free(line);
    return found;
}

/* Where option @name begins; NULL: there is none. */
static const char *find(const struct mountpoint *mount, const char *name)
{
    size_t length = strlen(name);

    for (const char *at = mount->options; *at; at += *at == ',') {
        size_t size = strcspn(at, ",");
        if (size >= length && strncmp(at, name, length) == 0 && (size == length || at[length] == '='))
            return at;
        at += size;
    }
    return NULL;
}

bool mountpoint_has(const struct mountpoint *mount, const char *option)
{
    return find(mount, option) != NULL;
}

/* The value of option @name, "huge": "always"; "" if it has none. */
static void copy_value(const struct mountpoint *mount, const char *name, char value[MOUNTPOINT_VALUE])
{
    const char *found = find(mount, name);

    value[0] = '\0';
    if (found && found[strlen(name)] == '=')
        snprintf(value, MOUNTPOINT_VALUE, "%.*s", (int)strcspn(found + strlen(name) + 1, ","),
                 found + strlen(name) + 1);
}

bool mountpoint_is_huge(const struct mountpoint *mount, char value[MOUNTPOINT_VALUE], char kernel[MOUNTPOINT_KERNEL])
{
    FILE *file = fopen("/sys/kernel/mm/transparent_hugepage/shmem_enabled", "re");

    if (!file || !fgets(kernel, MOUNTPOINT_KERNEL, file))
        strcpy(kernel, "unknown");
    if (file)
        fclose(file);
    kernel[strcspn(kernel, "\n")] = '\0';
    copy_value(mount, "huge", value);
    bool asked = strcmp(value, "always") == 0 || strcmp(value, "within_size") == 0;
    return (asked && !strstr(kernel, "[deny]")) || strstr(kernel, "[force]");
}
