/* SPDX-License-Identifier: MIT
 *
 * What the binding finds behind the library is what dlsym(RTLD_NEXT) finds:
 *
 *     behind [PRELOAD NAME]...: once more with each library PRELOAD in between, which has NAME
 *
 * Here the program itself takes the library's place, so PRELOAD is behind it.
 */
#include "../../shim/behind.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define NAMED(name)                   \
    {                                 \
        name, BEHIND_HASH(name), NULL \
    }
static const struct behind names[] = {
#define SYMBOL(type, name, arguments) NAMED(#name),
#define WRAPPER(name)                 NAMED(#name),
#define ALIAS(other, name)            NAMED(#other),
#include "../../shim/symbols.def"
#undef SYMBOL
#undef WRAPPER
#undef ALIAS
    NAMED("memcpy"),   /* which processor it is for is found out by a call */
    NAMED("realpath"), /* an old version of it is there, too; */
    NAMED("pthread_cond_wait"),
    NAMED("regexec"),
    NAMED("_sys_errlist"),    /* old versions alone */
    NAMED("environ"),         /* no function */
    NAMED("dlsym"),           /* another library's before glibc 2.34 */
    NAMED("_dl_find_object"), /* the loader's */
    NAMED("no_such_function"),
};
#define NAMES (sizeof(names) / sizeof(*names))

/* As the tables of libraries have it. */
static uint32_t hash_of(const char *name)
{
    uint32_t hash = 5381;

    for (; *name; name++)
        hash = hash * 33 + (unsigned char)*name;
    return hash;
}

/* The number of names that are found elsewhere. */
static int compare(const char *expected)
{
    struct behind wanted[NAMES];
    int wrong = 0;

    memcpy(wanted, names, sizeof(names));
    for (size_t i = 0; i < NAMES; i++) {
        if (names[i].hash != hash_of(names[i].name) && ++wrong)
            printf("%s: its hash is wrong, so only dlsym finds it\n", names[i].name);
    }
    behind_find(wanted, NAMES);
    for (size_t i = 0; i < NAMES; i++) {
        void *next = dlsym(RTLD_NEXT, names[i].name);
        Dl_info info;
        if (wanted[i].found != next && ++wrong)
            printf("%s: found at %p, by dlsym at %p\n", names[i].name, wanted[i].found, next);
        if (expected && strcmp(names[i].name, expected) == 0 &&
            (!dladdr(next, &info) || strstr(info.dli_fname, "libc.so")) && ++wrong)
            printf("%s is libc's, so nothing is seen\n", names[i].name);
    }
    return wrong;
}

static int compare_behind(const char *program, char *preload, char *name)
{
    int status;
    pid_t child = fork();

    if (child == 0) {
        setenv("LD_PRELOAD", preload, 1);
        execl(program, program, "", name, NULL);
        _exit(127);
    }
    return child > 0 && waitpid(child, &status, 0) == child && status == 0 ? 0 : 1;
}

int main(int count, char **arguments)
{
    if (count == 3 && !*arguments[1])
        return compare(arguments[2]) != 0;
    int wrong = compare(NULL);
    for (int i = 1; i + 1 < count; i += 2)
        wrong += compare_behind(arguments[0], arguments[i], arguments[i + 1]);
    return wrong != 0;
}
