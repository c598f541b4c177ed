/* SPDX-License-Identifier: MIT
 *
 * Corrupt a segment that others use: words change, some milliseconds apart.
 *
 *     corrupt SEGMENT SEED SECONDS
 *
 * Failure modes: exit status 1 if the segment can't be mapped.
 */
#include "base/clock.h"
#include "mutate.h"
#include "store/layout.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>

int main(int argc, char **argv)
{
    int fd = argc == 4 ? open(argv[1], O_RDWR | O_CLOEXEC) : -1;
    char *base = fd < 0 ? MAP_FAILED : mmap(NULL, SEGMENT_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

    if (base == MAP_FAILED)
        return 1;
    struct dice dice = {strtoull(argv[2], NULL, 0)};
    for (uint64_t end = clock_monotonic() + strtoull(argv[3], NULL, 0) * NS_PER_S; clock_monotonic() < end;) {
        mutate_segment(base, &dice);
        clock_sleep(dice_below(&dice, 20) * NS_PER_MS);
    }
    return 0;
}
