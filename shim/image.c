/* SPDX-License-Identifier: MIT
 *
 * The image: which program this process runs, and how it came to have the library.
 *
 * Happy path:
 *   - /proc/self/exe is the image.  The configuration names the MTA's by their paths, and files are compared, so a link
 *     is as good.
 *   - The library comes by LD_PRELOAD, by /etc/ld.so.preload, or because the image needs it.
 *
 * Failure modes:
 *   - No /proc: the image is what it was executed as, which its caller has chosen.
 *   - An upgrade has removed the image: its old path decides.
 */
#include "image.h"

#include "behind.h"
#include "config.h"
#include "fastspool.h"
#include "wrapper.h"

#include <limits.h>
#include <link.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>

/* ---- how the library came in ---- */

static bool names_us(const char *entry, size_t length)
{
    while (length > 0 && entry[length - 1] != '/')
        length--;
    return strncmp(entry + length, IMAGE_LIBRARY, strlen(IMAGE_LIBRARY)) == 0;
}

const char *image_preload(size_t *length)
{
    *length = 0;
    for (const char *list = getenv("LD_PRELOAD"); list && *list; list += *length + (list[*length] != '\0')) {
        *length = strcspn(list, ": ");
        if (*length && names_us(list, *length))
            return list;
    }
    return NULL;
}

bool image_links(void)
{
    const struct link_map *map = _r_debug.r_map; /* the first is the program's */
    const char *strings = NULL;

    for (const ElfW(Dyn) *entry = map ? map->l_ld : NULL; entry && entry->d_tag != DT_NULL; entry++) {
        if (entry->d_tag == DT_STRTAB)
            strings = (const char *)entry->d_un.d_ptr;
    }
    for (const ElfW(Dyn) *entry = map ? map->l_ld : NULL; strings && entry && entry->d_tag != DT_NULL; entry++) {
        if (entry->d_tag == DT_NEEDED && names_us(strings + entry->d_un.d_val, strlen(strings + entry->d_un.d_val)))
            return true;
    }
    return false;
}

bool image_is_preloaded_for_all(void)
{
    char text[4096];
    int fd = real.open("/etc/ld.so.preload", O_RDONLY | O_CLOEXEC);
    ssize_t size = fd >= 0 ? real.read(fd, text, sizeof(text) - 1) : 0;
    if (fd >= 0)
        real.close(fd);
    text[size > 0 ? size : 0] = '\0';
    return strstr(text, IMAGE_LIBRARY) != NULL;
}

const char *image_installation_problem(void)
{
    const struct link_map *library = behind_own();
    struct stat ours, theirs;

    if (!library || real.stat(library->l_name, &ours) < 0)
        return "its own file can't be found";
    if (real.stat(FASTSPOOL_TRUSTED_LIBDIR "/" IMAGE_LIBRARY, &theirs) < 0 || ours.st_dev != theirs.st_dev ||
        ours.st_ino != theirs.st_ino)
        return "it is not installed as " FASTSPOOL_TRUSTED_LIBDIR "/" IMAGE_LIBRARY
               ", the only place from which Exim's own re-executions load it";
    if (!(ours.st_mode & S_ISUID))
        return "the library file " FASTSPOOL_TRUSTED_LIBDIR "/" IMAGE_LIBRARY
               " is not set-user-ID (chmod 4644), so Exim's own re-executions would not load it";
    if (ours.st_uid != 0 || (ours.st_mode & 022))
        return "users other than root can write to the library file";
    return NULL;
}

/* ---- which program this is ---- */

/* What the image was executed as.  Its caller has chosen that, and may have the path lead elsewhere by now. */
static const char *executed_as(void)
{
    const char *path = (const char *)(uintptr_t)getauxval(AT_EXECFN);
    return path && *path == '/' ? path : "";
}

void image_path(char *path)
{
    ssize_t length = real.readlink("/proc/self/exe", path, PATH_MAX - 1);

    if (length > 0)
        path[length] = '\0';
    else
        snprintf(path, PATH_MAX, "%s", executed_as());
}

bool image_find(struct stat *image, bool *by_proc)
{
    *by_proc = real.stat("/proc/self/exe", image) == 0;
    return *by_proc || real.stat(executed_as(), image) == 0;
}

bool image_has_listed_path(const struct fastspool_config *config)
{
    static const char deleted[] = " (deleted)";
    char path[PATH_MAX];

    image_path(path);
    size_t length = strlen(path), suffix = strlen(deleted);
    if (length > suffix && strcmp(path + length - suffix, deleted) == 0)
        path[length - suffix] = '\0';
    for (size_t i = 0; i < config->programs; i++) {
        if (strcmp(config->program[i], path) == 0)
            return true;
    }
    return false;
}

bool image_is_program(const struct fastspool_config *config, const struct stat *image)
{
    for (size_t i = 0; i < config->programs; i++) {
        struct stat st;
        if (real.stat(config->program[i], &st) == 0 && st.st_dev == image->st_dev && st.st_ino == image->st_ino)
            return true;
    }
    return false;
}

bool image_is_listed(const struct fastspool_config *config, const struct stat *image)
{
    return image_is_program(config, image) || image_has_listed_path(config);
}

bool image_is_tool(const struct stat *image)
{
    struct stat tool;
    return real.stat(FASTSPOOL_TOOL, &tool) == 0 && tool.st_dev == image->st_dev && tool.st_ino == image->st_ino;
}
