/* SPDX-License-Identifier: MIT
 *
 * Pins: files that stay while a call looks at them a second time.
 *
 * The kernel first looks a name up, and then asks about the file that it was told of: for its attributes, to open it,
 * to change it.  On a real file system the first step holds the inode.  Here another process may put a new file in its
 * place in between, and the old one is gone: -ESTALE.  The kernel then makes the whole call again, but only once.
 *
 * Happy path: a thread that was told so has each file (and directory) on its way opened when it looks again, so that
 * the file outlives the loss of its name until the thread has looked at PINS others.  So the call has the files that
 * its names had at an instant within it.  Files that nobody replaces cost nothing.
 *
 * Failure modes:
 *   - A thread looks at no other files: its pins are taken out after KEPT.  So the data of a file without a name takes
 *     memory no longer.
 *   - Two threads whose numbers share a place, or processes of another PID namespace, which have number 0, take each
 *     other's pins out.  Each may get ESTALE.
 *   - The file can't be opened: it is looked up without a pin.  One that was evicted is paged in, as by an open.
 *   - The server dies: its open files are closed, as those of any process.
 */
#include "view/pins.h"

#include "base/atomic.h"
#include "base/clock.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <unistd.h>

#define KEPT   NS_PER_S /* longer than a call takes from one step to the next */
#define PINS   4u       /* of a thread: a rename looks at two directories, and then at a name in each */
#define PLACES 1024u

struct pin {
    uint64_t since;
    int description; /* 0: none */
};

/* Of the threads whose number, cut to the table, is the index. */
static struct place {
    uint64_t stale_at; /* the last -ESTALE, CLOCK_MONOTONIC ns; 0: none */
    unsigned looks;    /* the next pin is the one of this number, cut */
    struct pin pins[PINS];
} places[PLACES];
static unsigned used = PLACES; /* of them */

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER; /* of the pins */

static struct place *place_of(pid_t pid)
{
    return &places[(unsigned)pid % used];
}

unsigned pins_begin(uint64_t files)
{
    uint64_t most = files / 16 / PINS;

    used = most == 0 ? 1 : most < PLACES ? (unsigned)most : PLACES;
    return used * PINS;
}

void pins_stale(pid_t pid)
{
    STORE(place_of(pid)->stale_at, clock_monotonic());
}

static bool looks_again(pid_t pid)
{
    uint64_t at = LOAD(place_of(pid)->stale_at);
    return at && clock_monotonic() - at < KEPT;
}

/* Put @description in, or 0 for none, if what is there has been for as long as @kept. */
static void replace(struct fastspool *fs, struct pin *pin, int description, uint64_t kept)
{
    int before = 0;

    pthread_mutex_lock(&mutex);
    uint64_t now = clock_monotonic();
    if (now - pin->since >= kept) {
        before = pin->description;
        *pin = (struct pin){now, description};
    }
    pthread_mutex_unlock(&mutex);
    if (before)
        fastspool_close(fs, before);
}

int pins_lookup(struct fastspool *fs, pid_t pid, const char *path, uint64_t *handle, struct stat *st)
{
    int d = looks_again(pid) ? fastspool_open(fs, path, O_PATH, 0) : 0;

    if (d == -ENOENT)
        return d;
    if (d <= 0)
        return fastspool_lookup(fs, path, handle, st);
    int result = fastspool_flookup(fs, d, handle, st);
    struct place *place = place_of(pid);
    replace(fs, &place->pins[__atomic_fetch_add(&place->looks, 1, __ATOMIC_RELAXED) % PINS], d, 0);
    return result;
}

static void *take_old_out(void *fs)
{
    for (;;) {
        sleep(1);
        for (size_t i = 0; i < used * PINS; i++)
            replace(fs, &places[i / PINS].pins[i % PINS], 0, KEPT);
    }
    return NULL;
}

int pins_start(struct fastspool *fs)
{
    pthread_t thread;
    return -pthread_create(&thread, NULL, take_old_out, fs);
}
