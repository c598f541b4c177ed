/* SPDX-License-Identifier: MIT
 *
 * Binding: every function of symbols.def is looked up once.
 *
 * Happy path:
 *   - The constructor looks up all of them.  A wrapper that another library's constructor calls earlier does it first.
 *   - The look-up finds the next library behind this one (behind.c).  So another preloaded library keeps its place.
 *   - Of two threads that bind at once, one fills the table and seals it.  The other waits for that copy.
 *
 * Failure modes:
 *   - A function that this libc lacks stays NULL.  No program linked against this libc can call it.
 */
#include "real.h"

#include "base/fd.h"
#include "behind.h"

#include <errno.h>
#include <sched.h>
#include <stddef.h>

struct real real SEALED_LAST;
bool real_unbound = true;

/* One behind the other, in the table's order: an array of pointers would be relocated in each process. */
static const struct names {
#define SYMBOL(type, name, arguments) char name[sizeof(#name)];
#define WRAPPER(name)
#define ALIAS(other, name)
#include "symbols.def"
#undef SYMBOL
} names = {
#define SYMBOL(type, name, arguments) #name,
#include "symbols.def"
#undef SYMBOL
};

static const struct {
    uint32_t hash;
    uint16_t at; /* where in `names` */
} places[] = {
#define SYMBOL(type, name, arguments) {BEHIND_HASH(#name), offsetof(struct names, name)},
#include "symbols.def"
#undef SYMBOL
#undef WRAPPER
#undef ALIAS
};
#define BINDINGS (sizeof(places) / sizeof(*places))

/* A look-up may come back here, by malloc: so nothing is claimed before all are done. */
void real_bind(void)
{
    static bool filling;
    struct behind functions[BINDINGS];
    int saved = errno;

    for (size_t i = 0; i < BINDINGS; i++)
        functions[i] = (struct behind){.name = (const char *)&names + places[i].at, .hash = places[i].hash};
    behind_find(functions, BINDINGS);
    if (__atomic_exchange_n(&filling, true, __ATOMIC_ACQ_REL)) {
        while (__atomic_load_n(&real_unbound, __ATOMIC_ACQUIRE))
            sched_yield();
    } else {
        void **entries = (void **)&real; /* each is a function's pointer */
        for (size_t i = 0; i < BINDINGS; i++)
            entries[i] = functions[i].found;
        sealed_close(real);
        __atomic_store_n(&real_unbound, false, __ATOMIC_RELEASE);
    }
    errno = saved;
}

__attribute__((constructor)) static void bind_at_load(void)
{
    if (real_unbound)
        real_bind();
}

bool real_path_of(int fd, char *path, size_t size)
{
    char link[FD_LINK_MAX];

    fd_link(fd, link);
    ssize_t length = real.readlink(link, path, size - 1);
    if (length <= 0 || path[0] != '/')
        return false;
    path[length] = '\0';
    return true;
}
