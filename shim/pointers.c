/* SPDX-License-Identifier: MIT
 *
 * Pointers that a program gives to a system call.
 *
 * Happy path:
 *   - Most pointers lead to where memory always is: the stack above this frame, the heap of brk(2), the program's own
 *     segments, what a library has for reading.  That costs no system call.
 *   - For any other a system call without an effect touches the memory, once per page (0.1 to 0.4 us): it is EFAULT
 *     for a bad pointer.
 *   - To read: rt_sigprocmask(2) with an operation that does not exist copies the set first.  NULL, which would be no
 *     set, is bad.
 *   - To write: futex(2), FUTEX_WAKE_OP, with the operation `or 0`, which is atomic.
 *
 * Failure modes:
 *   - A kernel or a filter that knows neither call: every pointer counts as good.
 *   - Another thread unmaps the memory after the look: SIGSEGV, as for any other code of the program.
 */
#include "pointers.h"

#include "base/atomic.h"
#include "real.h"

#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <link.h>
#include <linux/futex.h>
#include <stdint.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/syscall.h>
#include <unistd.h>

#define PAGE 4096u /* or a part of a larger one */

/* ---- where memory always is ---- */

#define SEGMENTS   8
#define STACK_SPAN (UINT64_C(64) << 20) /* the kernel keeps 128 MiB below the stack's start free of mappings */

extern void *__libc_stack_end; /* of the first thread */

static struct segment {
    uintptr_t start, end;
    bool writable;
} segments[SEGMENTS]; /* of the program; what it writes is the last one */
static size_t segment_count;
static uintptr_t program_end, heap; /* `heap`: its lowest address that is known */

/* What is relocated is made read-only later. */
static uintptr_t end_of_relro(const ElfW(Phdr) * headers, size_t count, const ElfW(Phdr) * load)
{
    for (size_t i = 0; i < count; i++) {
        if (headers[i].p_type == PT_GNU_RELRO && headers[i].p_vaddr >= load->p_vaddr &&
            headers[i].p_vaddr < load->p_vaddr + load->p_memsz)
            return headers[i].p_vaddr + headers[i].p_memsz;
    }
    return load->p_vaddr;
}

__attribute__((constructor)) static void find_memory(void)
{
    const ElfW(Phdr) *headers = (const ElfW(Phdr) *)getauxval(AT_PHDR);
    const size_t count = getauxval(AT_PHNUM);
    const uintptr_t base = _r_debug.r_map ? _r_debug.r_map->l_addr : 0;

    heap = (uintptr_t)sbrk(0); /* constructors that ran before may have moved it: see learn() */
    for (size_t i = 0; headers && i < count && segment_count < SEGMENTS; i++) {
        const ElfW(Phdr) *load = &headers[i];
        bool writable = load->p_flags & PF_W;
        if (load->p_type == PT_LOAD && (load->p_flags & PF_R))
            segments[segment_count++] =
                (struct segment){base + (writable ? end_of_relro(headers, count, load) : load->p_vaddr),
                                 base + load->p_vaddr + load->p_memsz, writable};
        if (load->p_type == PT_LOAD && base + load->p_vaddr + load->p_memsz > program_end)
            program_end = base + load->p_vaddr + load->p_memsz;
    }
}

/* There is memory at @at.  Between the program and the heap's end nothing but the heap is. */
static void learn(uintptr_t at)
{
    if (at >= program_end && at < LOAD(heap))
        STORE(heap, at);
}

/* The end of the library's segment at @at, 0: there is none. */
static uintptr_t end_in_library(uintptr_t at)
{
    struct dl_find_object found;

    if (_dl_find_object((void *)at, &found) < 0)
        return 0;
    const ElfW(Ehdr) *header = found.dlfo_map_start;
    const ElfW(Phdr) *load = (const ElfW(Phdr) *)((const char *)header + header->e_phoff);
    for (int i = 0; i < header->e_phnum; i++, load++) {
        const uintptr_t start = found.dlfo_link_map->l_addr + load->p_vaddr;
        if (load->p_type == PT_LOAD && (load->p_flags & PF_R) && at >= start && at < start + load->p_memsz)
            return start + load->p_memsz;
    }
    return 0;
}

/* Where the memory at @at that is surely there ends, 0: none is. */
static uintptr_t surely_until(uintptr_t at, bool writing)
{
    const uintptr_t frame = (uintptr_t)__builtin_frame_address(0), stack = (uintptr_t)__libc_stack_end;

    if (at >= frame && at < stack && stack - frame < STACK_SPAN)
        return stack;
    for (size_t i = segment_count; at < program_end && i-- > 0;) {
        if (at >= segments[i].start && at < segments[i].end && (segments[i].writable || !writing))
            return segments[i].end;
    }
    const uintptr_t heap_start = LOAD(heap);
    if (heap_start && at >= heap_start) {
        const uintptr_t heap_end = (uintptr_t)sbrk(0);
        if (at < heap_end)
            return heap_end;
    }
    return writing ? 0 : end_in_library(at);
}

/* How many of @size bytes at @at are surely there? */
static size_t surely(uintptr_t at, size_t size, bool writing)
{
    const uintptr_t end = surely_until(at, writing);
    return !end ? 0 : end - at < size ? end - at : size;
}

/* ---- a look at a page ---- */

static bool bad(long result)
{
    return result < 0 && errno == EFAULT;
}

static bool can_read(uintptr_t at)
{
    const uintptr_t word = at & ~(uintptr_t)7; /* in the same page */
    return word && !bad(real.syscall(SYS_rt_sigprocmask, -1, word, NULL, sizeof(uint64_t)));
}

static bool can_write(uintptr_t at)
{
    uint32_t nobody = 0;
    const uintptr_t word = at & ~(uintptr_t)3;
    return !bad(real.syscall(SYS_futex, &nobody, FUTEX_WAKE_OP | FUTEX_PRIVATE_FLAG, 0, 0, word,
                             FUTEX_OP(FUTEX_OP_OR, 0, FUTEX_OP_CMP_EQ, 0)));
}

static size_t good(uintptr_t start, size_t size, bool (*can)(uintptr_t at), bool writing)
{
    size_t done = surely(start, size, writing);

    if (done == size)
        return size;
    int saved = errno;
    while (done < size && can(start + done)) {
        learn(start + done);
        size_t page = PAGE - (start + done) % PAGE;
        done = page < size - done ? done + page : size;
    }
    errno = saved;
    return done;
}

size_t pointers_readable(const void *pointer, size_t size)
{
    return good((uintptr_t)pointer, size, can_read, false);
}

size_t pointers_writable(void *pointer, size_t size)
{
    return good((uintptr_t)pointer, size, can_write, true);
}

bool pointers_text(const char *text)
{
    size_t done = surely((uintptr_t)text, PATH_MAX, false);

    if (done && memchr(text, '\0', done))
        return true;
    while (done < PATH_MAX) {
        size_t page = PAGE - ((uintptr_t)text + done) % PAGE;
        if (pointers_readable(text + done, 1) == 0)
            return false;
        if (memchr(text + done, '\0', page))
            return true;
        done += page;
    }
    return false;
}
