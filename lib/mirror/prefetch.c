/* SPDX-License-Identifier: MIT
 *
 * Prefetch: sequential readers of evicted files get the next ones paged in with the one they open.
 *
 * Each page-in costs the reader two context switches between processes, and on a machine whose other processor sleeps
 * these are most of it.  (Measured, `exim -bp` of 100,000 evicted messages on a virtual machine: 80 us a message more
 * than in memory without prefetch, 4.4 with it.)  exim -bp and a queue run in order open -H of one message after the
 * other, by the time of arrival, which is nearly the order of the directory's list.
 *
 * The happy path: before a file is paged in, look for its reader.  If a reader was at one of the names shortly before
 * it in its directory, with the same ending (-H), it is the same reader: prefetch the names behind it with this ending,
 * twice as many as the last time, and note that the reader is at the last of them.  If not, it is a new reader, for
 * which nothing is prefetched until it has come again twice: opening here and there costs hardly anything.  A reader
 * that leaves out more than every third file is new again: a queue run in random order reads one half of the messages
 * backwards, and then the other half.  Prefetches are answered first, so that the reader is woken once.  The files are
 * AHEAD until they are opened: that first opening does not count as a second one, which would make them part of the
 * working set.
 *
 * Failure modes:
 *  - Memory is near the mark at which eviction begins: nothing is prefetched.
 *  - Memory gets short meanwhile, or the file cannot be read: the request is given up silently (pager.c).  Opening the
 *    file requests it again.
 */
#include "mirror/prefetch.h"

#include "mirror/pagein.h"
#include "store/change.h"
#include "store/layout.h"
#include "store/names.h"
#include "store/residency.h"
#include "store/store.h"

#define FILES_MOST 64u    /* to prefetch at once: each may change twelve words */
#define SIZE_MOST  16384u /* bytes: for a larger file the wakeups are not the cost */
#define FOLLOWED   2u     /* times that a reader comes again before files are prefetched for it */
#define BACK_MOST  6u     /* names between a reader's last file and its next: two messages or more */
#define NAMES_MOST 4u     /* names to look at for each file: a message has three */

struct following {
    struct prefetch *prefetch;
    const struct pagein *pagein;
    int most;
    int requested;
};

/* The last two characters of a name: which of a message's files it is. */
static uint32_t ending_of(const struct fastspool *fs, uint32_t entry)
{
    char text[256];
    int length = names_text(fs, entry, text);

    return length < 2 ? 0 : (uint32_t)text[length - 2] << 8 | (uint8_t)text[length - 1];
}

/* The reader that was shortly before this name: its last name may be gone, but `born` still tells its place. */
static struct prefetch_reader *find_reader(const struct fastspool *fs, struct prefetch *prefetch, uint32_t entry,
                                           uint32_t ending)
{
    const struct name *name = name_at(fs, entry);
    uint64_t from = 0;

    for (uint32_t looks = 0; looks < BACK_MOST && entry; looks++)
        entry = names_beside(fs, entry, false);
    if (entry)
        from = name_at(fs, entry)->born;
    for (struct prefetch_reader *reader = prefetch->reader; reader < prefetch->reader + PREFETCH_READERS; reader++) {
        if (reader->used && reader->parent == name->parent && reader->ending == ending && reader->born >= from &&
            reader->born < name->born)
            return reader;
    }
    return NULL;
}

/* A new reader takes the place of the least recent one. */
static struct prefetch_reader *forget_reader(struct prefetch *prefetch)
{
    struct prefetch_reader *oldest = prefetch->reader;

    for (struct prefetch_reader *reader = prefetch->reader; reader < prefetch->reader + PREFETCH_READERS; reader++) {
        if (reader->used < oldest->used)
            oldest = reader;
    }
    return oldest;
}

static bool worth_it(const struct fastspool *fs, uint32_t i)
{
    const struct inode *inode = inode_at(fs, i);

    return inode_valid(fs, i) && inode->opens == 0 && inode->size <= SIZE_MOST &&
           (inode->flags & (INODE_EVICTED | INODE_WANTED | INODE_UNREADABLE)) == INODE_EVICTED &&
           inode->pagein_error == 0;
}

/* Request the next @most files behind @entry that are not in memory, as long as there is memory for them.  The reader
 * is at the last of them then. */
static int request(struct fastspool *fs, struct prefetch_reader *reader, uint32_t entry, uint32_t most)
{
    const struct header *h = fs->header;
    uint64_t used = residency_in_use(h), high = residency_high(h), room = high > used ? high - used : 0;
    uint32_t requested = 0;

    for (uint32_t looks = 0; looks < most * NAMES_MOST && requested < most; looks++) {
        entry = names_beside(fs, entry, true);
        if (entry == 0)
            break;
        uint32_t i = name_at(fs, entry)->inode;
        if (ending_of(fs, entry) != reader->ending)
            continue;
        if (worth_it(fs, i)) {
            uint64_t bytes = (inode_at(fs, i)->size / BLOCK_SIZE + 1) * BLOCK_SIZE;
            if (bytes > room)
                break;
            room -= bytes;
            residency_want_ahead(fs, i);
            requested++;
        }
        reader->born = name_at(fs, entry)->born;
    }
    return (int)requested;
}

static uint32_t files_for(uint32_t followed)
{
    uint32_t more = followed - FOLLOWED + 1;
    return followed < FOLLOWED ? 0 : more < 32 && 1u << more < FILES_MOST ? 1u << more : FILES_MOST;
}

/* Did the reader open at least two thirds of the files of the last time?  They lie before @entry. */
static bool was_useful(const struct fastspool *fs, const struct prefetch_reader *reader, uint32_t entry)
{
    uint32_t files = files_for(reader->followed), unopened = 0;

    for (uint32_t looks = 0; looks < files * NAMES_MOST + BACK_MOST; looks++) {
        entry = names_beside(fs, entry, false);
        if (entry == 0)
            break;
        if (inode_valid(fs, name_at(fs, entry)->inode) && ending_of(fs, entry) == reader->ending)
            unopened += !!(inode_at(fs, name_at(fs, entry)->inode)->flags & INODE_AHEAD);
    }
    return unopened * 3 <= files;
}

static int follow(struct fastspool *fs, void *argument)
{
    struct following *following = argument;
    struct prefetch *prefetch = following->prefetch;
    uint32_t i = following->pagein->inode, entry = inode_at(fs, i)->names;

    if (!inode_valid(fs, i) || inode_at(fs, i)->generation != following->pagein->generation || !names_valid(fs, entry))
        return 0;
    uint32_t ending = ending_of(fs, entry), most = (uint32_t)following->most;
    struct prefetch_reader *reader = find_reader(fs, prefetch, entry, ending);
    uint32_t followed = reader && was_useful(fs, reader, entry) ? reader->followed + 1 : 0, files = files_for(followed);
    if (reader == NULL)
        reader = forget_reader(prefetch);
    *reader = (struct prefetch_reader){name_at(fs, entry)->born, name_at(fs, entry)->parent, ending, followed,
                                       ++prefetch->uses};
    following->requested = request(fs, reader, entry, files < most ? files : most);
    return 0;
}

int prefetch_follow(struct fastspool *fs, struct prefetch *prefetch, const struct pagein *pagein, int most)
{
    struct following following = {prefetch, pagein, most, 0};
    int result = change_run(fs, follow, &following);

    return result < 0 ? result : following.requested;
}
