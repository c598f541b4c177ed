/* SPDX-License-Identifier: MIT
 *
 * The store that this process has attached.
 */
#ifndef FASTSPOOL_ATTACHMENT_H
#define FASTSPOOL_ATTACHMENT_H

#include "base/atomic.h"

struct fastspool;

/** serve.c sets it. */
extern struct fastspool *attachment_store;

/** The attached store, without attaching.  NULL: none. */
static inline struct fastspool *attachment(void)
{
    return LOAD(attachment_store);
}

#endif
