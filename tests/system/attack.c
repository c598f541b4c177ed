/* SPDX-License-Identifier: MIT
 *
 * What a compromised mail user can write to the lock and to the numbers in the segment, while root works:
 *
 *     attack SEGMENT scribble NUMBER...   write nonsense to the lock's word and behind it, until killed
 *     attack SEGMENT name NUMBER          write the number of a thread to the lock's word, once, while nobody has it
 *     attack SEGMENT keep NUMBER          the same again and again, with a sequence count that moves, until killed
 *     attack SEGMENT replace OLD NEW      every word about the mirror that is OLD becomes NEW
 *
 * "ready" on standard output says that it has begun.  Exit status 1: the segment can't be mapped.
 */
#include "store/layout.h"

#include <fcntl.h>
#include <linux/futex.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define WILD UINT64_C(0x4141414141414140) /* a pointer of the attacker's choice */

static void scribble(struct section_state *section, char **numbers, int count)
{
    volatile uint32_t *lock = &section->lock;

    for (unsigned round = 0;; round++) {
        uint32_t number = (uint32_t)atoi(numbers[round % (unsigned)count]);
        const uint32_t words[] = {number, number | FUTEX_WAITERS, 0, FUTEX_OWNER_DIED, FUTEX_TID_MASK, UINT32_MAX};
        for (volatile uint64_t *word = (uint64_t *)section; (char *)(word + 1) <= (char *)&section->sequence; word++) {
            if ((char *)word > (char *)lock + 16) /* the pointers of a robust mutex, where there is one */
                *word = WILD;
        }
        if (round % 64 == 0)
            *lock = words[round / 64 % 6];
    }
}

static void keep(struct section_state *section, uint32_t number)
{
    volatile uint32_t *lock = &section->lock, *sequence = &section->sequence;

    for (;;) {
        *lock = number;
        *sequence += 2;
        usleep(10000);
    }
}

static void replace(uint32_t *words, uint32_t old, uint32_t new)
{
    for (size_t i = 0; i < sizeof(struct mirror_state) / sizeof(*words); i++)
        words[i] = words[i] == old ? new : words[i];
}

int main(int argc, char **argv)
{
    int fd = argc > 3 ? open(argv[1], O_RDWR) : -1;
    struct header *header = mmap(NULL, HEADER_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

    if (header == MAP_FAILED) {
        perror("attack");
        return 1;
    }
    puts("ready");
    fflush(stdout);
    if (strcmp(argv[2], "scribble") == 0)
        scribble(&header->section, argv + 3, argc - 3);
    else if (strcmp(argv[2], "keep") == 0)
        keep(&header->section, (uint32_t)atoi(argv[3]));
    else if (strcmp(argv[2], "replace") == 0)
        replace((uint32_t *)&header->mirror, (uint32_t)atoi(argv[3]), (uint32_t)atoi(argv[4]));
    else
        while (!__sync_bool_compare_and_swap(&header->section.lock, 0, (uint32_t)atoi(argv[3])))
            ;
    return 0;
}
