/* SPDX-License-Identifier: MIT
 *
 * The store that this process has attached.
 */
#include "attachment.h"

struct fastspool *attachment_store;
