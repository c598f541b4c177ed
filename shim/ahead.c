/* SPDX-License-Identifier: MIT
 *
 * What stands before the library in the search order, such as libeatmydata: a program calls that, and the library only
 * what that passes on.
 *
 * Happy path:
 *   - No library was loaded before this one, and nothing is looked up.
 *   - Otherwise each function of symbols.def is looked up as a program would.  (The program itself may define one for
 *     its own use.)
 *
 * Failure modes:
 *   - fsync, fdatasync, syncfs or sync are another library's: the caller refuses to serve.
 *   - Another function is: the caller says so.  It may pass its calls on.
 *   - A function that is replaced in another way (a patched table, dlsym(3) with a handle) is not seen.
 */
#include "ahead.h"

#include "behind.h"
#include "wrapper.h"

#include <dlfcn.h>
#include <link.h>
#include <string.h>

/* One behind the other: an array of pointers would be relocated in each process. */
static const char names[] =
#define SYMBOL(type, name, arguments) #name "\0"
#define WRAPPER(name)                 #name "\0"
#define ALIAS(other, name)            #other "\0"
#include "symbols.def"
#undef SYMBOL
#undef WRAPPER
#undef ALIAS
    "";

/* Is there a library between the program and this one?  (The kernel's has no name.) */
static bool any_before(const struct link_map *own)
{
    const struct link_map *map = _r_debug.r_map;

    for (map = map ? map->l_next : NULL; map && map != own; map = map->l_next) {
        if (strchr(map->l_name, '/'))
            return true;
    }
    return false;
}

static bool syncs(const char *name)
{
    return strstr(name, "sync") && strcmp(name, "sync_file_range") != 0 && strncmp(name, "aio", 3) != 0;
}

bool ahead_lies(char *text, size_t size)
{
    const struct link_map *program = _r_debug.r_map, *own = behind_own();
    Dl_info first;
    size_t others = 0;

    *text = '\0';
    if (!own || !any_before(own))
        return false;
    for (const char *name = names; *name; name += strlen(name) + 1) {
        void *function = dlsym(RTLD_DEFAULT, name);
        if (!function || !dladdr(function, &first) || (ElfW(Addr))first.dli_fbase == own->l_addr ||
            (program && (ElfW(Addr))first.dli_fbase == program->l_addr))
            continue;
        if (syncs(name)) {
            snprintf(text, size,
                     "%s stands before the library for %s, so what it says of a spool file would be a lie; name "
                     "libfastspool.so before it in LD_PRELOAD",
                     first.dli_fname, name);
            return true;
        }
        if (others++ == 0)
            snprintf(text, size,
                     "%s stands before the library for %s: what it does not pass on never reaches the spool; name "
                     "libfastspool.so before it in LD_PRELOAD",
                     first.dli_fname, name);
    }
    return false;
}
