/* SPDX-License-Identifier: MIT
 *
 * Path names: formats the names that contain a number, and parses them.
 */
#include "base/places.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void places_in_state(const char *state, const char *name, char path[PLACES_PATH_MAX])
{
    snprintf(path, PLACES_PATH_MAX, "%.255s/%s", state, name);
}

void places_note(const char *spool, unsigned number, char path[PLACES_PATH_MAX])
{
    snprintf(path, PLACES_PATH_MAX, number ? "%.255s/" PLACES_NOTE ".%u" : "%.255s/" PLACES_NOTE, spool, number);
}

void places_spill(const char *state, uint32_t inode, uint32_t generation, char path[PLACES_PATH_MAX])
{
    snprintf(path, PLACES_PATH_MAX, "%.255s/" PLACES_SPILL "/%u-%u", state, inode, generation);
}

int places_parse_spill(const char *name, uint32_t *inode, uint32_t *generation)
{
    return sscanf(name, "%u-%u", inode, generation) == 2 ? 0 : -1;
}

void places_journal_file(uint32_t number, char name[PLACES_NAME_MAX])
{
    snprintf(name, PLACES_NAME_MAX, "%04u", number);
}

int places_parse_journal_file(const char *name, uint32_t *number)
{
    char *end;

    *number = (uint32_t)strtoull(name, &end, 10);
    return *end || end == name ? -1 : 0;
}

int places_runtime(const char *base, uint64_t id, char *path, int size)
{
    return snprintf(path, (size_t)size, "%s/fastspool.%016llx", base, (unsigned long long)id) >= size ? -1 : 0;
}

void places_placeholder(unsigned number, char name[PLACES_NAME_MAX])
{
    /* Not by snprintf(3): each forked child would pay for four more pages of libc. */
    name[0] = 'p';
    name[1] = (char)('0' + number / 10 % 10);
    name[2] = (char)('0' + number % 10);
    name[3] = '\0';
}

#define DIGITS 16 /* of a number in hexadecimal */

void places_copied(uint64_t number, char copied[PLACES_COPIED_MAX])
{
    strcpy(copied, PLACES_COPIED);
    if (number)
        snprintf(copied + strlen(PLACES_COPIED), PLACES_COPIED_MAX - strlen(PLACES_COPIED), "%016llx.",
                 (unsigned long long)number);
}

const char *places_of_copy(const char *name)
{
    if (strncmp(name, PLACES_COPIED, strlen(PLACES_COPIED)) != 0)
        return NULL;
    name += strlen(PLACES_COPIED);
    return strspn(name, "0123456789abcdef") == DIGITS && name[DIGITS] == '.' ? name + DIGITS + 1 : name;
}

/* FNV-1a. */
static unsigned long long hash_of(const char *spool, size_t length)
{
    uint64_t hash = UINT64_C(0xcbf29ce484222325);

    for (size_t i = 0; i < length; i++)
        hash = (hash ^ (unsigned char)spool[i]) * UINT64_C(0x100000001b3);
    return hash;
}

void places_registered(const char *spool, size_t length, char path[PLACES_PATH_MAX])
{
    snprintf(path, PLACES_PATH_MAX, PLACES_REGISTRY "/%016llx", hash_of(spool, length));
}

void places_of_spool(const char *spool, char directory[PLACES_NAME_MAX], char size[PLACES_NAME_MAX])
{
    snprintf(directory, PLACES_NAME_MAX, "%016llx", hash_of(spool, strlen(spool)));
    snprintf(size, PLACES_NAME_MAX, "%s" PLACES_SIZE, directory);
}

void places_view_of_spool(const char *spool, char name[PLACES_NAME_MAX])
{
    snprintf(name, PLACES_NAME_MAX, ".%016llx.view", hash_of(spool, strlen(spool)));
}
