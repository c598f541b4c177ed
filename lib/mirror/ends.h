/* SPDX-License-Identifier: MIT
 *
 * Ends: which inodes end in the journal, and in which batch.  What ends there before a checkpoint needs no copy of it.
 */
#ifndef FASTSPOOL_ENDS_H
#define FASTSPOOL_ENDS_H

#include <stddef.h>
#include <stdint.h>

/** Most ends that are kept while they are written: 16 MiB of them. */
#define ENDS_MAX (UINT32_C(1) << 20)

/** A batch says that an inode is gone. */
struct end {
    uint64_t batch; /* its number */
    uint32_t inode;
};

/** A set of them, in any order.  All zeros is an empty one. */
struct ends {
    struct end *end;
    size_t count;
    size_t room;      /* how many it has memory for */
    uint64_t unknown; /* of batches up to this number, ends may be missing */
};

/** Add one.  0 or -ENOMEM: the set is as it was. */
int ends_add(struct ends *ends, uint32_t inode, uint64_t batch);
/** Make it empty, and free its memory.  What is unknown stays so. */
void ends_free(struct ends *ends);

/** Order it for ends_last(). */
void ends_sort(struct ends *ends);
/** The last batch in which @inode ends; 0: none does. */
uint64_t ends_last(const struct ends *ends, uint32_t inode);

#endif
