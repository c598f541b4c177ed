/* SPDX-License-Identifier: MIT
 *
 * Ends of inodes in the journal: an array, sorted where it is searched.
 */
#include "mirror/ends.h"

#include <errno.h>
#include <stdlib.h>

#define ROOM_LEAST 256u /* ends */

int ends_add(struct ends *ends, uint32_t inode, uint64_t batch)
{
    if (ends->count == ends->room) {
        size_t room = ends->room ? 2 * ends->room : ROOM_LEAST;
        struct end *larger = reallocarray(ends->end, room, sizeof(*larger));
        if (!larger)
            return -ENOMEM;
        ends->end = larger;
        ends->room = room;
    }
    ends->end[ends->count++] = (struct end){batch, inode};
    return 0;
}

void ends_free(struct ends *ends)
{
    free(ends->end);
    *ends = (struct ends){.unknown = ends->unknown};
}

static int compare(uint64_t a, uint64_t b)
{
    return (a > b) - (a < b);
}

static int by_inode(const void *a, const void *b)
{
    const struct end *one = a, *other = b;

    return one->inode != other->inode ? compare(one->inode, other->inode) : compare(one->batch, other->batch);
}

void ends_sort(struct ends *ends)
{
    if (ends->count)
        qsort(ends->end, ends->count, sizeof(*ends->end), by_inode);
}

uint64_t ends_last(const struct ends *ends, uint32_t inode)
{
    size_t from = 0, to = ends->count; /* the first end of a later inode lies in [from, to] */

    while (from < to) {
        size_t middle = from + (to - from) / 2;
        if (ends->end[middle].inode <= inode)
            from = middle + 1;
        else
            to = middle;
    }
    return from > 0 && ends->end[from - 1].inode == inode ? ends->end[from - 1].batch : 0;
}
