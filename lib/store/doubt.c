/* SPDX-License-Identifier: MIT
 *
 * Doubt: something that was read from the segment makes no sense.
 *
 * A reader without the lock may also have met a change.  So whatever it finds is a doubt at first.
 *
 * The happy path:
 *   1. A function finds nonsense and returns doubt(), as any error.
 *   2. The caller's sequence check discards the result, and the reader reads again.  Or the read holds.
 *   3. doubt_settle() then makes it damage: EIO, a line in syslog, and the segment is FAILED.
 *
 * Failure modes: none.
 */
#include "store/doubt.h"

#include "store/section.h"

#define ERRNO_MAX 4095 /* of the kernel's */

static __thread const char *doubted __attribute__((tls_model("initial-exec")));

int doubt(const char *what)
{
    doubted = what;
    return -EUCLEAN;
}

int doubt_is_damage(const struct fastspool *fs)
{
    return section_damaged(fs, doubted);
}

int doubt_result(int32_t said)
{
    return said <= 0 && said >= -ERRNO_MAX ? said : -EIO;
}
