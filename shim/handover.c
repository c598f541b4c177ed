/* SPDX-License-Identifier: MIT
 *
 * Handing on: what becomes of spool descriptors where the store can't be used any more: in a process that becomes an
 * ordinary user, and in a program without the library.
 *
 * Happy path:
 *   - With a view each becomes a descriptor of the view: of the same file, which may be unlinked, at the same
 *     offset.  A process that leaves opens the files at their first use (later.c).
 *   - Without one, what is open for writing only becomes the pipe of a carrier (carrier.c).  What is open for
 *     reading becomes a private copy (copies.c), but for a program only descriptors 0 to 2; it doesn't inherit the
 *     others.
 *   - The number stays, and so does its close-on-exec flag.  Numbers of one description stay numbers of one
 *     description.
 *   - A process that leaves opens a file of the view at the number itself, where it can: a duplicate would be one more
 *     close, of which the server hears.
 *
 * Failure modes:
 *   - Nothing can stand for a descriptor (no memory, no descriptors): it is closed.  A program doesn't inherit it.  A
 *     process that becomes a user says so in syslog: Exim would only say "Bad file descriptor".
 *   - The exec fails: everything is as before.
 *   - Another thread closes a descriptor while a program gets another one by its number: the number is left alone.  It
 *     may be another file's by now.
 *   - An exec may follow a vfork or interrupt malloc: the notes lie on the stack, many of them in mapped memory.
 *     Without memory for them the program inherits placeholders, which it can't use.
 */
#include "handover.h"

#include "attachment.h"
#include "base/clock.h"
#include "base/fd.h"
#include "base/places.h"
#include "carrier.h"
#include "copies.h"
#include "descriptors.h"
#include "fastspool.h"
#include "later.h"
#include "paths.h"
#include "serve.h"
#include "signals.h"
#include "store/inside.h"
#include "wrapper.h"

#include <errno.h>
#include <limits.h>
#include <string.h>
#include <sys/single_threaded.h>
#include <syslog.h>

struct handed {
    uint32_t description;
    int fd;
    int flags; /* of fcntl(F_GETFD) */
    int first; /* the first entry of this description: its `new` is theirs */
    int new;   /* what stands for it, -1: nothing */
    int file;  /* of the carrier, -1: `new` is no pipe of a carrier */
    int later; /* its name in the directory of what is opened later, -1: it is not */
    int saved; /* in a program's: the process's own meanwhile, -1: it was only made close-on-exec */
};

/* ---- what stands for a descriptor ---- */

/* The view's path of @description: a file's handle, since it may be unlinked.  A directory has one name in the kernel,
 * which a handle would take from it: its path. */
static int path_in_view(struct fastspool *fs, uint32_t description, char path[PATH_MAX])
{
    struct stat st;
    int result = fastspool_fstat(fs, (int)description, &st);

    if (result < 0)
        return result;
    if (S_ISDIR(st.st_mode))
        return paths_of(fs, description, path);
    return snprintf(path, PATH_MAX, "%s/input/" PLACES_HANDLE, inside_spool(fs),
                    (unsigned long long)inside_handle(fs, description));
}

/* Open @path of the view at number @fd, whose placeholder the store has a second time as @kept.  A duplicate is made
 * only where a lower number is free, because the view's server hears of the close of each.  -errno: there is no view,
 * and the placeholder is back. */
static int open_in_place(const char *path, int flags, int fd, int kept)
{
    signals_hold();
    real.close(fd);
    int new = real.open(path, flags), error = new < 0 ? -errno : 0;
    if (new != fd && real.dup3(error ? kept : new, fd, O_CLOEXEC) >= 0 && !error) {
        real.close(new);
        new = fd;
    }
    signals_release();
    return error ? error : new;
}

/* @leaving: the placeholder at @number may go.  (Another thread could take a number that is free for a moment.)
 * -errno: there is no view. */
static int open_in_view(struct fastspool *fs, uint32_t description, int number, bool leaving)
{
    const int taken = O_ACCMODE | O_APPEND | O_NONBLOCK | O_NOATIME | O_DIRECTORY | O_PATH;
    char path[PATH_MAX];

    if (!inside_view(fs) || path_in_view(fs, description, path) < 0)
        return -ENOENT;
    int flags = (inside_flags(fs, description) & taken) | O_NOFOLLOW | O_CLOEXEC;
    int kept = leaving && __libc_single_threaded ? inside_kept(fs, description) : -1;
    int fd = kept >= 0 ? open_in_place(path, flags, number, kept) : real.open(path, flags);
    if (fd < 0)
        return kept >= 0 ? fd : -errno;
    off_t offset = inside_offset(fs, description);
    if (offset)
        real.lseek(fd, offset, SEEK_SET);
    return fd;
}

static void say_closed(uint32_t description, int error)
{
    syslog(LOG_MAIL | LOG_ERR,
           "fastspool: %s: a file of it is closed in a process that becomes an ordinary user, as it can't have a copy "
           "in memory (memfd_create: %s): allow that, or mount the view",
           inside_spool(attachment_of(description)), strerrordesc_np(-error));
}

/* Find what stands for the description of @handed.  @leaving: a private copy may be, whatever its
 * number. */
static void find_new(struct handed *handed, struct carried *carried, int *pipes, bool leaving)
{
    bool copies = leaving || handed->fd < 3;
    bool writing = (inside_flags(OF(handed->description)) & O_ACCMODE) == O_WRONLY;

    handed->new = open_in_view(OF(handed->description), handed->fd, leaving);
    if (handed->new < 0 && writing && carrier_pipe(&carried[*pipes], handed->description) == 0) {
        handed->file = *pipes;
        handed->new = carried[(*pipes)++].out;
    } else if (handed->new < 0 && !writing && copies) {
        handed->new = copies_new(handed->description);
        if (handed->new < 0 && leaving)
            say_closed(handed->description, handed->new);
    }
}

/* ---- all of them ---- */

static void count_one(int fd, uint32_t description, void *argument)
{
    int *count = argument;

    (void)fd;
    (void)description;
    ++*count;
}

static void note(int fd, uint32_t description, void *argument)
{
    struct handover *handover = argument;
    int flags = real.fcntl(fd, F_GETFD);

    if (flags < 0 || handover->count == handover->room)
        return;
    handover->handed[handover->count] = (struct handed){description, fd, flags, handover->count, -1, -1, -1, -1};
    handover->count++;
}

/* Memory for @size bytes of notes.  NULL: there is none. */
static struct handed *take_memory(struct handover *handover, size_t size)
{
    if (size <= sizeof(handover->few))
        return (struct handed *)handover->few;
    void *memory = real.mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        return NULL;
    handover->size = size;
    return memory;
}

static void give_memory(struct handover *handover)
{
    if (handover->size)
        munmap(handover->handed, handover->size);
    handover->handed = NULL;
}

/* Note the descriptors.  Room for as many carried files follows the notes. */
static bool collect(struct handover *handover)
{
    handover->handed = NULL;
    handover->count = handover->room = 0;
    handover->size = 0;
    descriptors_each(count_one, &handover->room);
    if (handover->room == 0)
        return false;
    struct handed *memory =
        take_memory(handover, (size_t)handover->room * (sizeof(struct handed) + sizeof(struct carried)));
    if (!memory)
        return false;
    handover->handed = memory;
    descriptors_each(note, handover);
    for (int i = 0; i < handover->count; i++) {
        memory[i].first = 0;
        while (memory[memory[i].first].description != memory[i].description)
            memory[i].first++;
    }
    return true;
}

/* Close-on-exec descriptors stay out of a program. */
static bool is_handed(const struct handed *handed, bool leaving)
{
    return leaving || !(handed->flags & FD_CLOEXEC);
}

static void find_all(struct handover *handover, bool leaving)
{
    struct handed *all = handover->handed;
    struct carried *carried = (struct carried *)(all + handover->room);
    int pipes = 0;

    for (int i = 0; i < handover->count; i++) {
        struct handed *handed = &all[i], *first = &all[handed->first];
        if (!is_handed(handed, leaving) || handed->later >= 0)
            continue;
        if (first->new < 0)
            find_new(first, carried, &pipes, leaving);
        handed->new = first->new;
        handed->file = first->file;
    }
    if (pipes == 0 || carrier_start(carried, pipes, leaving) == 0)
        return;
    for (int i = 0; i < handover->count; i++) {
        if (all[i].file >= 0)
            all[i].new = -1;
    }
}

/* Every number has its duplicate now. */
static void close_new(struct handover *handover)
{
    for (int i = 0; i < handover->count; i++) {
        if (handover->handed[i].new < 0)
            continue;
        for (int j = handover->count - 1; j > i; j--) {
            if (handover->handed[j].new == handover->handed[i].new)
                handover->handed[j].new = -1;
        }
        if (handover->handed[i].new != handover->handed[i].fd)
            real.close(handover->handed[i].new);
    }
}

/* ---- leaving ---- */

/* Can @handed be opened later, by the directory of @fs?  An ordinary user may not open another's file with O_NOATIME.
 */
static bool can_wait(const struct handed *handed, const struct fastspool *fs)
{
    struct stat st;

    return attachment_of(handed->description) == fs &&
           !(inside_flags(OF(handed->description)) & (O_NOATIME | O_PATH)) &&
           fastspool_fstat(OF(handed->description), &st) == 0 && S_ISREG(st.st_mode);
}

/* Choose what is opened later, and make @path that of its directory.  (The kernel would ask twice for a name that it
 * knows.)  Returns how many files. */
static int choose(struct handover *handover, const struct fastspool *fs, char path[PATH_MAX])
{
    size_t length = (size_t)snprintf(path, PATH_MAX, "%s/input/" PLACES_HANDED, inside_spool(fs),
                                     (unsigned long long)clock_monotonic());
    int files = 0;

    for (int i = 0; i < handover->count; i++) {
        struct handed *handed = &handover->handed[i];
        handed->later = handover->handed[handed->first].later;
        if (handed->first != i || files == PLACES_HANDED_MOST || !can_wait(handed, fs))
            continue;
        length += (size_t)snprintf(path + length, PATH_MAX - length, PLACES_HANDED_FILE,
                                   inside_flags(OF(handed->description)) & O_ACCMODE,
                                   (unsigned long long)inside_handle(OF(handed->description)));
        handed->later = files++;
    }
    return files;
}

/* The directory by which this process will open at their first use what it mostly never uses.  -1: there is none. */
static int open_directory(struct handover *handover)
{
    struct fastspool *fs = attachment_of(handover->handed[0].description);
    char path[PATH_MAX];

    if (!inside_view(fs) || !__libc_single_threaded || handover->count > LATER_NUMBERS ||
        choose(handover, fs, path) == 0)
        return -1;
    int directory = real.open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    for (int i = 0; i < handover->count && directory < 0; i++)
        handover->handed[i].later = -1;
    return directory;
}

/* The store's descriptors of @handover's files go, all at once: they follow each other. */
static void close_kept(const struct handover *handover)
{
    int kept[LATER_NUMBERS];

    for (int i = 0; i < handover->count; i++)
        kept[i] = inside_give(OF(handover->handed[i].description), false);
    fd_close_all(kept, (size_t)handover->count);
}

static void put_directory(const struct handed *handed, int directory)
{
    const int taken = O_ACCMODE | O_APPEND | O_NONBLOCK;
    int closed = handed->flags & FD_CLOEXEC ? O_CLOEXEC : 0;

    if (real.dup3(directory, handed->fd, closed) < 0)
        return;
    later_add(handed->fd, handed->later, (inside_flags(OF(handed->description)) & taken) | closed,
              inside_offset(OF(handed->description)));
    descriptors_set_later(handed->fd);
}

static int put_in_place(const struct handed *handed)
{
    bool stays = !(handed->flags & FD_CLOEXEC);

    if (handed->new != handed->fd)
        return real.dup3(handed->new, handed->fd, stays ? 0 : O_CLOEXEC);
    return stays ? real.fcntl(handed->fd, F_SETFD, 0) : 0;
}

static void replace(const struct handed *handed, int directory)
{
    descriptors_detach(handed->fd);
    if (handed->later >= 0)
        put_directory(handed, directory);
    else if (handed->new < 0)
        real.close(handed->fd);
    else if (put_in_place(handed) >= 0 && handed->file >= 0)
        descriptors_set_carried(handed->fd, handed->file);
    else
        descriptors_set(handed->fd, 0);
    descriptors_leave(handed->description);
}

void handover_leave(void)
{
    struct handover handover;

    if (collect(&handover)) {
        int directory = open_directory(&handover);
        find_all(&handover, true);
        if (directory >= 0)
            close_kept(&handover);
        for (int i = 0; i < handover.count; i++)
            replace(&handover.handed[i], directory);
        close_new(&handover);
        if (directory >= 0)
            later_keep(directory);
        give_memory(&handover);
    }
    serve_leave();
}

/* ---- a program ---- */

void handover_begin(struct handover *handover)
{
    int saved = errno;

    if (!collect(handover)) {
        errno = saved;
        return;
    }
    find_all(handover, false);
    for (int i = 0; i < handover->count; i++) {
        struct handed *handed = &handover->handed[i];
        if (!is_handed(handed, false))
            continue;
        handed->saved = handed->new < 0 ? -1 : real.fcntl(handed->fd, F_DUPFD_CLOEXEC, 3);
        if (!descriptors_stands(handed->fd, handed->description)) /* looked at last: another thread may close it */
            continue;
        if (handed->saved >= 0)
            real.dup2(handed->new, handed->fd);
        else
            real.fcntl(handed->fd, F_SETFD, handed->flags | FD_CLOEXEC);
    }
    close_new(handover);
    errno = saved;
}

void handover_undo(struct handover *handover)
{
    int saved = errno;

    for (int i = 0; handover->handed && i < handover->count; i++) {
        struct handed *handed = &handover->handed[i];
        bool stands = descriptors_stands(handed->fd, handed->description);
        if (stands && handed->saved >= 0)
            real.dup2(handed->saved, handed->fd);
        else if (stands && is_handed(handed, false))
            real.fcntl(handed->fd, F_SETFD, handed->flags);
        if (handed->saved >= 0)
            real.close(handed->saved);
    }
    give_memory(handover);
    errno = saved;
}
