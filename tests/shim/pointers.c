/* SPDX-License-Identifier: MIT
 *
 * Names in memory that a constructor has taken from the break before the library's ran: each page of it is looked at
 * once, and where there is no memory a name is EFAULT as often as it is given.  In memory that may be gone at the next
 * call, as a mapping, a name is looked at once a call; among a library's constants, while it is loaded, it is not.
 *
 *     pointers DIRECTORY
 *
 * The caller counts the looks (pointers.sh).
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define PAGE  4096
#define PAGES 3
#define CALLS 100

static char *early;

/* Runs before the constructor of any library. */
static void take_memory(void)
{
    early = sbrk(PAGES * PAGE);
}

__attribute__((section(".preinit_array"), used)) static void (*const before_all)(void) = take_memory;

/* @calls of stat(2) give @error, 0: none. */
static int gives(const char *path, int calls, int error)
{
    struct stat st;

    for (int i = 0; i < calls; i++) {
        int result = stat(path, &st) < 0 ? errno : 0;
        if (result != error) {
            printf("stat: %s, call %d\n", strerror(result), i);
            return 1;
        }
    }
    return 0;
}

int main(int argc, char **argv)
{
    static const int order[PAGES] = {2, 0, 1};
    unsigned char there;
    int failed = argc != 2 || early == (char *)-1;

    for (int i = 0; i < PAGES && !failed; i++) {
        char *path = early + order[i] * PAGE;
        snprintf(path, PAGE, "%s", argv[1]);
        failed = gives(path, CALLS, 0);
    }
    char *mapped = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (!failed && mapped != MAP_FAILED) {
        snprintf(mapped, PAGE, "%s", argv[1]);
        failed = gives(mapped, CALLS / 10, 0);
    }
    if (!failed)
        failed = gives(strerrorname_np(ENOENT), CALLS / 10, ENOENT); /* libc's constant, as a name */
    char *below = (char *)((size_t)early & ~(size_t)(PAGE - 1)) - PAGE;
    if (failed || mincore(below, PAGE, &there) == 0) /* else the kernel has left a gap behind the program, at random */
        return 1;
    return gives(below, CALLS / 10, EFAULT);
}
