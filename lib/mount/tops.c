/* SPDX-License-Identifier: MIT
 *
 * The table of top directories.
 *
 * Failure modes: queues come and go for years, and the server, which is the mail user's, may name what is not there: a
 * place is used again when its directory is gone.
 */
#include "mount/tops.h"

#include <string.h>

static struct top *free_place(struct tops *tops)
{
    if (tops->count < TOPS_MAX)
        return &tops->top[tops->count++];
    for (size_t i = 0; i < TOPS_MAX; i++) {
        struct top *top = &tops->top[i];
        if (!top->present && !top->known && !top->mounted)
            return top;
    }
    return NULL;
}

struct top *tops_find(struct tops *tops, const char *name)
{
    for (size_t i = 0; i < tops->count; i++) {
        if (strcmp(tops->top[i].name, name) == 0)
            return &tops->top[i];
    }
    struct top *top = strlen(name) < MOUNTS_NAME ? free_place(tops) : NULL;
    if (top) {
        *top = (struct top){0};
        strcpy(top->name, name);
    }
    return top;
}

static bool is_named(const struct top *top, char (*names)[MOUNTS_NAME], size_t count)
{
    size_t i = 0;

    while (i < count && strcmp(top->name, names[i]) != 0)
        i++;
    return i < count;
}

bool tops_present(struct tops *tops, char (*names)[MOUNTS_NAME], size_t count)
{
    bool all = true;

    for (size_t i = 0; i < tops->count; i++) { /* first: what is gone makes room for what is new */
        struct top *top = &tops->top[i];
        top->present = is_named(top, names, count);
        if (!top->present)
            top->known = top->mounted = false;
    }
    for (size_t i = 0; i < count; i++) {
        struct top *top = tops_find(tops, names[i]);
        all = all && top;
        if (top)
            top->present = true;
    }
    return all;
}

void tops_forget(struct tops *tops)
{
    for (size_t i = 0; i < tops->count; i++)
        tops->top[i].known = tops->top[i].mounted = false;
}
