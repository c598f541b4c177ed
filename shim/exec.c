/* SPDX-License-Identifier: MIT
 *
 * Executing programs: which program gets the library, and what becomes of spool descriptors.
 *
 * Happy path:
 *   - Exim empties its environment and executes itself.  So if LD_PRELOAD brought the library, it is put back, by bare
 *     name, for the process's own image and for the programs that the configuration names.  (In secure execution the
 *     loader takes the library from its trusted directory and removes the variable.  It is put back there, too.)
 *   - A process that an ordinary user started isn't served, and marks those programs (serve.h), so that they aren't.
 *   - A program with the library finds its descriptors by their identity.
 *   - A program without the library can't use a placeholder: handover.c.
 *   - The new environment and arguments lie on the stack: an exec may follow a vfork or interrupt malloc.
 *
 * Failure modes:
 *   - An exec that fails leaves the descriptors as they were.
 */
#include "attachment.h"
#include "base/places.h"
#include "base/unconst.h"
#include "descriptors.h"
#include "handover.h"
#include "image.h"
#include "later.h"
#include "serve.h"
#include "store/inside.h"
#include "wrapper.h"

#include <alloca.h>
#include <errno.h>
#include <limits.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

extern char **environ;

/* ---- the environment ---- */

#define PRELOAD "LD_PRELOAD="
#define MARK    PLACES_USERS "=1"

static size_t count_of(char *const list[])
{
    size_t count = 0;
    while (list && list[count])
        count++;
    return count;
}

static char *const *preload_variable(char *const environment[])
{
    for (char *const *entry = environment; entry && *entry; entry++) {
        if (strncmp(*entry, PRELOAD, strlen(PRELOAD)) == 0)
            return entry;
    }
    return NULL;
}

static bool has_library(char *const environment[])
{
    char *const *entry = preload_variable(environment);
    return entry && strstr(*entry, IMAGE_LIBRARY) != NULL;
}

/* Bytes of the variable with the library in front. */
static size_t variable_size(char *const environment[])
{
    char *const *entry = preload_variable(environment);
    return sizeof(PRELOAD IMAGE_LIBRARY) + 1 + (entry ? strlen(*entry) : 0);
}

/* A copy of @environment in @copy (count + 2 pointers), with @variable in place of @old. */
static void with_variable(char *const environment[], char **copy, char *const *old, char *variable)
{
    size_t count = 0;

    for (char *const *entry = environment; entry && *entry; entry++) {
        if (entry != old)
            copy[count++] = *entry;
    }
    copy[count++] = variable;
    copy[count] = NULL;
}

/* The same, with the library, in @variable. */
static void with_library(char *const environment[], char **copy, char *variable)
{
    char *const *old = preload_variable(environment);

    strcpy(variable, PRELOAD IMAGE_LIBRARY);
    if (old && (*old)[strlen(PRELOAD)]) {
        strcat(variable, ":");
        strcat(variable, *old + strlen(PRELOAD));
    }
    with_variable(environment, copy, old, variable);
}

/* ---- what a program gets ---- */

struct plan {
    bool add_library;
    bool add_mark;
    struct handover handover;
};

static bool has_view(struct fastspool *fs, const void *unused)
{
    (void)unused;
    return inside_view(fs);
}

/* @st: the program's file, NULL: unknown. */
static void prepare(struct plan *plan, const struct stat *st, char *const environment[])
{
    bool program = st && serve_is_program(st);
    bool set_id = st && (st->st_mode & (S_ISUID | S_ISGID));

    *plan = (struct plan){.add_mark = program && serve_is_users()};
    if (!serve_active())
        return;
    later_use_all();
    plan->add_library = program && serve_by_preload() && !has_library(environment);
    bool gets_it = program;
    if (!attachment_is(has_view, NULL)) /* else any other has the view (serve.c) */
        gets_it = gets_it || serve_is_global() || (has_library(environment) && !set_id);
    if (!gets_it)
        descriptors_discover();
    attachment_each(inside_shared);
    if (!gets_it && attachment_any())
        handover_begin(&plan->handover);
}

/* The exec reports the error, not this. */
static bool look(int dirfd, const char *path, struct stat *st, int flags)
{
    int saved = errno;
    bool found = real.fstatat(dirfd, path, st, flags) == 0;

    errno = saved;
    return found;
}

/* The program's environment, on the caller's stack. */
#define PLANNED_ENVIRONMENT(plan, environment)                                \
    ({                                                                        \
        char *const *planned_ = (environment);                                \
        if ((plan).add_library) {                                             \
            char **copy_ = alloca((count_of(planned_) + 2) * sizeof(*copy_)); \
            char *variable_ = alloca(variable_size(planned_));                \
            with_library(planned_, copy_, variable_);                         \
            planned_ = copy_;                                                 \
        } else if ((plan).add_mark) {                                         \
            char **copy_ = alloca((count_of(planned_) + 2) * sizeof(*copy_)); \
            with_variable(planned_, copy_, NULL, UNCONST(MARK));              \
            planned_ = copy_;                                                 \
        }                                                                     \
        planned_;                                                             \
    })

/* ---- exec ---- */

EXPORT int execve(const char *path, char *const arguments[], char *const environment[])
{
    struct stat st;
    struct plan plan;

    BOUND();
    if (!serve_active() && !serve_is_users())
        return real.execve(path, arguments, environment);
    prepare(&plan, look(AT_FDCWD, path, &st, 0) ? &st : NULL, environment);
    int result = real.execve(path, arguments, PLANNED_ENVIRONMENT(plan, environment));
    handover_undo(&plan.handover);
    return result;
}

EXPORT int execv(const char *path, char *const arguments[])
{
    return execve(path, arguments, environ);
}

EXPORT int fexecve(int fd, char *const arguments[], char *const environment[])
{
    struct stat st;
    struct plan plan;

    BOUND();
    if (!serve_active() && !serve_is_users())
        return real.fexecve(fd, arguments, environment);
    prepare(&plan, look(fd, "", &st, AT_EMPTY_PATH) ? &st : NULL, environment);
    int result = real.fexecve(fd, arguments, PLANNED_ENVIRONMENT(plan, environment));
    handover_undo(&plan.handover);
    return result;
}

EXPORT int execveat(int dirfd, const char *path, char *const arguments[], char *const environment[], int flags)
{
    struct stat st;
    struct plan plan;

    BOUND();
    if (!serve_active() && !serve_is_users())
        return real.execveat(dirfd, path, arguments, environment, flags);
    prepare(&plan, look(dirfd, path, &st, flags & AT_EMPTY_PATH) ? &st : NULL, environment);
    int result = real.execveat(dirfd, path, arguments, PLANNED_ENVIRONMENT(plan, environment), flags);
    handover_undo(&plan.handover);
    return result;
}

/* Search PATH for @file.  False: nothing was found. */
static bool search(const char *file, char found[PATH_MAX], struct stat *st)
{
    const char *list = getenv("PATH");

    if (strchr(file, '/'))
        return snprintf(found, PATH_MAX, "%s", file) < PATH_MAX && look(AT_FDCWD, file, st, 0);
    for (list = list ? list : "/bin:/usr/bin"; *list; list += *list == ':') {
        size_t length = strcspn(list, ":");
        if (snprintf(found, PATH_MAX, "%.*s/%s", (int)length, length ? list : ".", file) < PATH_MAX &&
            look(AT_FDCWD, found, st, 0) && S_ISREG(st->st_mode) && (st->st_mode & 0111))
            return true;
        list += length;
    }
    return false;
}

EXPORT int execvpe(const char *file, char *const arguments[], char *const environment[])
{
    char found[PATH_MAX];
    struct stat st;
    struct plan plan;

    BOUND();
    if (!serve_active() && !serve_is_users())
        return real.execvpe(file, arguments, environment);
    prepare(&plan, search(file, found, &st) ? &st : NULL, environment);
    int result = real.execvpe(file, arguments, PLANNED_ENVIRONMENT(plan, environment));
    handover_undo(&plan.handover);
    return result;
}

EXPORT int execvp(const char *file, char *const arguments[])
{
    return execvpe(file, arguments, environ);
}

/* execl(3), execlp, execle: the arguments as an array on the stack.  @list then stands at execle's environment. */
#define COLLECT(first, list, arguments)                            \
    do {                                                           \
        va_list counting_;                                         \
        size_t count_ = 1;                                         \
        va_copy(counting_, list);                                  \
        while (va_arg(counting_, char *))                          \
            count_++;                                              \
        va_end(counting_);                                         \
        (arguments) = alloca((count_ + 1) * sizeof(*(arguments))); \
        (arguments)[0] = UNCONST(first);                           \
        for (size_t i_ = 1; i_ <= count_; i_++)                    \
            (arguments)[i_] = va_arg(list, char *);                \
    } while (0)

EXPORT int execl(const char *path, const char *first, ...)
{
    char **arguments;
    va_list list;

    va_start(list, first);
    COLLECT(first, list, arguments);
    va_end(list);
    return execve(path, arguments, environ);
}

EXPORT int execlp(const char *file, const char *first, ...)
{
    char **arguments;
    va_list list;

    va_start(list, first);
    COLLECT(first, list, arguments);
    va_end(list);
    return execvpe(file, arguments, environ);
}

EXPORT int execle(const char *path, const char *first, ...)
{
    char **arguments;
    va_list list;

    va_start(list, first);
    COLLECT(first, list, arguments);
    char *const *environment = va_arg(list, char *const *);
    va_end(list);
    return execve(path, arguments, environment);
}

/* ---- spawn ---- */

EXPORT int posix_spawn(pid_t *pid, const char *path, const posix_spawn_file_actions_t *actions,
                       const posix_spawnattr_t *attributes, char *const arguments[], char *const environment[])
{
    struct stat st;
    struct plan plan;

    BOUND();
    if (!serve_active() && !serve_is_users())
        return real.posix_spawn(pid, path, actions, attributes, arguments, environment);
    prepare(&plan, look(AT_FDCWD, path, &st, 0) ? &st : NULL, environment);
    int result = real.posix_spawn(pid, path, actions, attributes, arguments, PLANNED_ENVIRONMENT(plan, environment));
    handover_undo(&plan.handover);
    return result;
}

EXPORT int posix_spawnp(pid_t *pid, const char *file, const posix_spawn_file_actions_t *actions,
                        const posix_spawnattr_t *attributes, char *const arguments[], char *const environment[])
{
    char found[PATH_MAX];
    struct stat st;
    struct plan plan;

    BOUND();
    if (!serve_active() && !serve_is_users())
        return real.posix_spawnp(pid, file, actions, attributes, arguments, environment);
    prepare(&plan, search(file, found, &st) ? &st : NULL, environment);
    int result = real.posix_spawnp(pid, file, actions, attributes, arguments, PLANNED_ENVIRONMENT(plan, environment));
    handover_undo(&plan.handover);
    return result;
}

/* The shell, with this process's environment. */
static void prepare_shell(struct plan *plan)
{
    struct stat st;
    prepare(plan, look(AT_FDCWD, "/bin/sh", &st, 0) ? &st : NULL, environ);
}

EXPORT int system(const char *command)
{
    struct plan plan;

    BOUND();
    if (!serve_active() && !serve_is_users())
        return real.system(command);
    prepare_shell(&plan);
    int result = real.system(command);
    handover_undo(&plan.handover);
    return result;
}

EXPORT FILE *popen(const char *command, const char *mode)
{
    struct plan plan;

    BOUND();
    if (!serve_active() && !serve_is_users())
        return real.popen(command, mode);
    prepare_shell(&plan);
    FILE *result = real.popen(command, mode);
    handover_undo(&plan.handover);
    return result;
}
