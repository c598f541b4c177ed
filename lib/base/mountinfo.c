/* SPDX-License-Identifier: MIT
 *
 * Reading mountinfo.
 */
#include "base/mountinfo.h"

#include <stdlib.h>
#include <string.h>

void mountinfo_unescape(const char *text, char path[PATH_MAX])
{
    size_t length = 0;
    unsigned byte;

    for (; *text && *text != ' ' && length < PATH_MAX - 1; length++) {
        bool octal = *text == '\\' && sscanf(text + 1, "%3o", &byte) == 1;
        path[length] = octal ? (char)byte : *text;
        text += octal ? 4 : 1;
    }
    path[length] = '\0';
}

bool mountinfo_next(FILE *file, struct mountinfo *mount)
{
    char *line = NULL;
    size_t size = 0;
    int root = 0, place = 0;
    bool is = file && getline(&line, &size, file) > 0 &&
              sscanf(line, "%d %d %*u:%u %n%*s %n", &mount->id, &mount->parent, &mount->minor, &root, &place) == 3 &&
              place > 0;

    if (is) {
        mountinfo_unescape(line + root, mount->root);
        mountinfo_unescape(line + place, mount->place);
        mount->fuse = strstr(line, " - fuse");
        mount->view = strstr(line, " - " MOUNTINFO_VIEW " ");
    }
    free(line);
    return is;
}

bool mountinfo_has_view(const char *spool)
{
    FILE *file = fopen("/proc/self/mountinfo", "re");
    size_t length = strlen(spool);
    struct mountinfo mount;
    bool has = false;

    while (!has && mountinfo_next(file, &mount))
        has = mount.view && strncmp(mount.place, spool, length) == 0 && mount.place[length] == '/';
    if (file)
        fclose(file);
    return has;
}
