/* SPDX-License-Identifier: MIT
 *
 * The history: a ring in the header.
 *
 * The happy path: each section and each commit leaves an entry as it ends, under the lock.  It is made as cheap as may
 * be: the name is copied in one piece, whatever its length, the clock is the coarse one, and the number of the thread
 * is the one in the lock's word.  (getpid() would be a system call, and a number that is kept in the
 * process would be its parent's after a fork.)  Another processor may have made the entry that stood there, 256
 * sections ago: so the line of the next but one is asked for now, and has come when it is needed.
 *
 * Failure modes: entries aren't undo-logged.  A process that is killed here leaves half an entry, and whoever writes
 * to the segment may write anything into it: history_read() bounds and escapes all of it.
 */
#include "store/history.h"

#include "store/layout.h"

#include <stddef.h>

bool history_read(const struct header *header, uint32_t back, struct history_line *line)
{
    const struct history_entry *entry = &header->history[(header->history_count - 1 - back) % HISTORY_MAX];

    if (back >= HISTORY_MAX || back >= header->history_count || entry->kind == 0)
        return false;
    *line = (struct history_line){entry->kind, entry->when, entry->thread, entry->result, ""};
    for (size_t i = 0; i < HISTORY_NAME && entry->name[i]; i++)
        line->name[i] = entry->name[i] > ' ' && entry->name[i] <= '~' ? entry->name[i] : '?';
    return true;
}

const char *history_kind_name(enum history_kind kind)
{
    switch (kind) {
    case HISTORY_SECTION:
        return "section";
    case HISTORY_ROLLBACK:
        return "rollback";
    case HISTORY_COMMIT:
        return "commit";
    }
    return "nonsense";
}
