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

static const char *const names[] = {
#define SYMBOL(type, name, arguments) #name,
#define WRAPPER(name)                 #name,
#define ALIAS(other, name)            #other,
#include "../../shim/symbols.def"
#undef SYMBOL
#undef WRAPPER
#undef ALIAS
    "memcpy",   /* which processor it is for is found out by a call */
    "realpath", /* an old version of it is there, too; */
    "pthread_cond_wait",
    "regexec",
    "_sys_errlist",    /* old versions alone */
    "environ",         /* no function */
    "dlsym",           /* another library's before glibc 2.34 */
    "_dl_find_object", /* the loader's */
    "no_such_function",
};
#define NAMES (sizeof(names) / sizeof(*names))

/* The number of names that are found elsewhere. */
static int compare(const char *expected)
{
    struct behind wanted[NAMES];
    int wrong = 0;

    for (size_t i = 0; i < NAMES; i++)
        wanted[i].name = names[i];
    behind_find(wanted, NAMES);
    for (size_t i = 0; i < NAMES; i++) {
        void *next = dlsym(RTLD_NEXT, names[i]);
        Dl_info info;
        if (wanted[i].found != next && ++wrong)
            printf("%s: found at %p, by dlsym at %p\n", names[i], wanted[i].found, next);
        if (expected && strcmp(names[i], expected) == 0 &&
            (!dladdr(next, &info) || strstr(info.dli_fname, "libc.so")) && ++wrong)
            printf("%s is libc's, so nothing is seen\n", names[i]);
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
