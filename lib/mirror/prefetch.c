/* SPDX-License-Identifier: MIT
 *
 * Read-ahead: who opens evicted files in the order of their names gets the next ones brought along.
 *
 * Each fault costs the opener two changes of process, and on a machine whose other processor sleeps these are most of
 * it. (Measured, `exim -bp` of 100,000 evicted messages on a virtual machine: 80 us a message more than of those in
 * memory, 4.4 with this.)  exim -bp and a queue run in order open -H of one message after the other, by the time of
 * arrival, which is nearly the order of the directory's list.
 *
 * The happy path: somebody has opened a file, and before the pager brings it back, it looks who that is.  If one of the
 * names shortly before it in its directory, with the same ending (-H), is where a reader was, it is the same reader:
 * the names behind it with this ending are asked for, twice as many as the last time, and he is at the last of them
 * now.  If not, it is a new reader, for whom nothing is asked before he has come again, and once more; so one who opens
 * here and there, costs hardly anything.  Nor who leaves out more than every third, as a queue run does, whose random
 * order is a half of the messages backwards and then the other half: he is a new reader again.  What was asked for is
 * brought back first, for the opener to be woken once.  It is AHEAD until somebody opens it: that is no second opening,
 * which would make it hot.
 *
 * Failure modes: where memory is near the mark at which eviction begins, nothing is asked for; where it gets short
 * meanwhile, or the file can't be read, the request is given up in silence (pager.c): who opens it asks again.
 */
#include "mirror/prefetch.h"

#include "mirror/pagein.h"
#include "store/change.h"
#include "store/layout.h"
#include "store/names.h"
#include "store/residency.h"
#include "store/store.h"

#define FILES_MOST 64u    /* that are asked for at once: each may change twelve words */
#define SIZE_MOST  16384u /* bytes: of a larger one the waking is not what costs */
#define FOLLOWED   2u     /* times that a reader has come again before files are asked for him */
#define BACK_MOST  6u     /* names between a reader's last one and his next: two messages or more */
#define NAMES_MOST 4u     /* names that are looked at for each file: of a message's there are three */

struct following {
    struct ahead *ahead;
    const struct pagein *pagein;
    int most;
    int asked;
};

/* The last two characters of a name: which of a message's files it is. */
static uint32_t ending_of(const struct fastspool *fs, uint32_t entry)
{
    char text[256];
    int length = names_text(fs, entry, text);

    return length < 2 ? 0 : (uint32_t)text[length - 2] << 8 | (uint8_t)text[length - 1];
}

/* The reader who was shortly before this name: where his last name has gone since, its place still tells. */
static struct stream *find_reader(const struct fastspool *fs, struct ahead *ahead, uint32_t entry, uint32_t ending)
{
    const struct name *name = name_at(fs, entry);
    uint64_t from = 0;

    for (uint32_t looks = 0; looks < BACK_MOST && entry; looks++)
        entry = names_beside(fs, entry, false);
    if (entry)
        from = name_at(fs, entry)->born;
    for (struct stream *stream = ahead->stream; stream < ahead->stream + AHEAD_STREAMS; stream++) {
        if (stream->used && stream->parent == name->parent && stream->ending == ending && stream->born >= from &&
            stream->born < name->born)
            return stream;
    }
    return NULL;
}

/* A new reader takes the place of the one who has not come for longest. */
static struct stream *forget_reader(struct ahead *ahead)
{
    struct stream *oldest = ahead->stream;

    for (struct stream *stream = ahead->stream; stream < ahead->stream + AHEAD_STREAMS; stream++) {
        if (stream->used < oldest->used)
            oldest = stream;
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

/* Ask for the next @most files behind @entry that are not in memory, as far as there is memory for them.  The reader is
 * at the last of them. */
static int ask(struct fastspool *fs, struct stream *stream, uint32_t entry, uint32_t most)
{
    const struct header *h = fs->header;
    uint64_t used = residency_in_use(h), high = residency_high(h), room = high > used ? high - used : 0;
    uint32_t asked = 0;

    for (uint32_t looks = 0; looks < most * NAMES_MOST && asked < most; looks++) {
        entry = names_beside(fs, entry, true);
        if (entry == 0)
            break;
        uint32_t i = name_at(fs, entry)->inode;
        if (ending_of(fs, entry) != stream->ending)
            continue;
        if (worth_it(fs, i)) {
            uint64_t bytes = (inode_at(fs, i)->size / BLOCK_SIZE + 1) * BLOCK_SIZE;
            if (bytes > room)
                break;
            room -= bytes;
            residency_want_ahead(fs, i);
            asked++;
        }
        stream->born = name_at(fs, entry)->born;
    }
    return (int)asked;
}

static uint32_t files_for(uint32_t followed)
{
    uint32_t more = followed - FOLLOWED + 1;
    return followed < FOLLOWED ? 0 : more < 32 && 1u << more < FILES_MOST ? 1u << more : FILES_MOST;
}

/* Did the reader open what was asked for him the last time, all but a third at the most?  It lies before @entry. */
static bool was_useful(const struct fastspool *fs, const struct stream *stream, uint32_t entry)
{
    uint32_t files = files_for(stream->followed), unopened = 0;

    for (uint32_t looks = 0; looks < files * NAMES_MOST + BACK_MOST; looks++) {
        entry = names_beside(fs, entry, false);
        if (entry == 0)
            break;
        if (inode_valid(fs, name_at(fs, entry)->inode) && ending_of(fs, entry) == stream->ending)
            unopened += !!(inode_at(fs, name_at(fs, entry)->inode)->flags & INODE_AHEAD);
    }
    return unopened * 3 <= files;
}

static int follow(struct fastspool *fs, void *argument)
{
    struct following *following = argument;
    struct ahead *ahead = following->ahead;
    uint32_t i = following->pagein->inode, entry = inode_at(fs, i)->names;

    if (!inode_valid(fs, i) || inode_at(fs, i)->generation != following->pagein->generation || entry == 0)
        return 0;
    uint32_t ending = ending_of(fs, entry), most = (uint32_t)following->most;
    struct stream *stream = find_reader(fs, ahead, entry, ending);
    uint32_t followed = stream && was_useful(fs, stream, entry) ? stream->followed + 1 : 0, files = files_for(followed);
    if (stream == NULL)
        stream = forget_reader(ahead);
    *stream = (struct stream){name_at(fs, entry)->born, name_at(fs, entry)->parent, ending, followed, ++ahead->uses};
    following->asked = ask(fs, stream, entry, files < most ? files : most);
    return 0;
}

int ahead_follow(struct fastspool *fs, struct ahead *ahead, const struct pagein *pagein, int most)
{
    struct following following = {ahead, pagein, most, 0};
    int result = change_run(fs, follow, &following);

    return result < 0 ? result : following.asked;
}
