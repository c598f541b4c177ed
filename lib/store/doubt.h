/* SPDX-License-Identifier: MIT
 *
 * Doubt: something that was read from the segment makes no sense.
 */
#ifndef FASTSPOOL_DOUBT_H
#define FASTSPOOL_DOUBT_H

#include <errno.h>
#include <stdint.h>

struct fastspool;

/** In a read or a section: @what is wrong; static.  Returns -EUCLEAN.  The function returns it, up to the read's end or
 *  out of the body. */
int doubt(const char *what);
/** The segment is damaged, by what was doubted last: -EIO. */
int doubt_is_damage(const struct fastspool *fs);
/** After the read or the section: its @result.  If that is -EUCLEAN, the segment is damaged (section_damaged()): -EIO.
 */
static inline int doubt_settle(const struct fastspool *store, int result)
{
    return __builtin_expect(result == -EUCLEAN, 0) ? doubt_is_damage(store) : result;
}
/** What stands in the segment as the result of another process's work, 0 or a negative errno.  -EIO: it is neither. */
int doubt_result(int32_t said);

#endif
