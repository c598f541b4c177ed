/* SPDX-License-Identifier: MIT
 *
 * The status of a spool: the store's numbers, and the number of messages, which depends on Exim's names.
 */
#include "config.h"
#include "fastspool.h"
#include "spool/exim.h"
#include "store/status.h"

const char *fastspool_version(void)
{
    return FASTSPOOL_VERSION;
}

static void count(void *context, const char *path, uint32_t inode)
{
    (void)inode;
    *(uint64_t *)context += exim_is_message(path);
}

int fastspool_status(struct fastspool *fs, struct fastspool_status *status)
{
    int result = status_numbers(fs, status);

    status_each(fs, count, &status->messages);
    return result;
}
