/* SPDX-License-Identifier: MIT
 *
 * Pointers that a program gives to a system call.
 *
 * Happy path:
 *   - A system call without an effect touches the memory, once per page (0.1 us): it is EFAULT for a bad pointer.
 *   - To read: rt_sigprocmask(2) with an operation that does not exist copies the set first.
 *   - To write: futex(2), FUTEX_WAKE_OP, with the operation `or 0`, which is atomic.
 *
 * Failure modes:
 *   - A kernel or a filter that knows neither call: every pointer counts as good.
 *   - Another thread unmaps the memory after the look: SIGSEGV, as for any other code of the program.
 */
#include "pointers.h"

#include "real.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <stdint.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define PAGE 4096u /* or a part of a larger one */

static bool bad(long result)
{
    return result < 0 && errno == EFAULT;
}

static bool can_read(uintptr_t at)
{
    const uintptr_t word = at & ~(uintptr_t)7; /* in the same page */
    return !bad(real.syscall(SYS_rt_sigprocmask, -1, word, NULL, sizeof(uint64_t)));
}

static bool can_write(uintptr_t at)
{
    uint32_t nobody = 0;
    const uintptr_t word = at & ~(uintptr_t)3;
    return !bad(real.syscall(SYS_futex, &nobody, FUTEX_WAKE_OP | FUTEX_PRIVATE_FLAG, 0, 0, word,
                             FUTEX_OP(FUTEX_OP_OR, 0, FUTEX_OP_CMP_EQ, 0)));
}

static size_t good(uintptr_t start, size_t size, bool (*can)(uintptr_t at))
{
    int saved = errno;
    size_t done = 0;

    while (done < size && can(start + done)) {
        size_t page = PAGE - (start + done) % PAGE;
        done = page < size - done ? done + page : size;
    }
    errno = saved;
    return done;
}

size_t pointers_readable(const void *pointer, size_t size)
{
    return good((uintptr_t)pointer, size, can_read);
}

size_t pointers_writable(void *pointer, size_t size)
{
    return good((uintptr_t)pointer, size, can_write);
}

bool pointers_text(const char *text)
{
    for (size_t done = 0; done < PATH_MAX;) {
        size_t page = PAGE - ((uintptr_t)text + done) % PAGE;
        if (pointers_readable(text + done, 1) == 0)
            return false;
        if (memchr(text + done, '\0', page))
            return true;
        done += page;
    }
    return true;
}
