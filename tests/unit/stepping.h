/* SPDX-License-Identifier: MIT
 *
 * A word of the segment that changes while a thread works, after each so many of its instructions: what another process
 * can do at any time, at every place of the code, and the same in each run.
 *
 * The happy path: stepping_begin() says which word has which two values, stepping_turn() for how many instructions
 * each, and stepping_sections() lets it change in the sections that follow.
 *
 * Failure modes: a processor whose single steps nobody has written down here has no STEPPING.
 */
#ifndef FASTSPOOL_STEPPING_H
#define FASTSPOOL_STEPPING_H

#include "base/guard.h"
#include "store/layout.h"
#include "store/section.h"
#include "store/store.h"

#include <criterion/criterion.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <syslog.h>
#include <ucontext.h>

#ifdef __x86_64__
#define STEPPING
#define STEPPING_TRAP_FLAG 0x100

static struct {
    void *word;
    uint64_t values[2]; /* the first bytes of them */
    size_t size;        /* of the word, bytes */
    unsigned count, period, phase;
    bool inside;
    struct sigaction before;
} stepping;

static inline void stepping_on_step(int signal_number, siginfo_t *info, void *context)
{
    ucontext_t *interrupted = context;
    const uint64_t *value = &stepping.values[(stepping.count++ + stepping.phase) / stepping.period % 2];

    (void)signal_number;
    (void)info;
    if (stepping.size == sizeof(uint64_t))
        __atomic_store_n((uint64_t *)stepping.word, *value, __ATOMIC_RELEASE);
    else
        __atomic_store_n((uint32_t *)stepping.word, (uint32_t)*value, __ATOMIC_RELEASE);
    if (!stepping.inside)
        interrupted->uc_mcontext.gregs[REG_EFL] &= ~STEPPING_TRAP_FLAG;
}

static inline void stepping_from_here(void)
{
    stepping.inside = true;
    __asm__ volatile(
        "lea -128(%%rsp), %%rsp; pushf; orl %0, (%%rsp); popf; lea 128(%%rsp), %%rsp" ::"i"(STEPPING_TRAP_FLAG)
        : "memory", "cc");
}

static inline void stepping_no_more(void)
{
    stepping.inside = false;
}

static inline void stepping_set(const void *word, size_t size, uint64_t one, uint64_t other)
{
    struct sigaction action = {.sa_sigaction = stepping_on_step, .sa_flags = SA_SIGINFO};

    stepping.word = (void *)(uintptr_t)word;
    stepping.size = size;
    stepping.values[0] = one;
    stepping.values[1] = other;
    setlogmask(LOG_MASK(LOG_EMERG)); /* half of the looks find damage */
    cr_assert_eq(sigaction(SIGTRAP, &action, &stepping.before), 0);
}

/* The word @field is @one and @other in turn, from the next stepping_turn() on. */
#define stepping_begin(field, one, other) stepping_set(&(field), sizeof(field), (one), (other))

static inline void stepping_end(void)
{
    sigaction(SIGTRAP, &stepping.before, NULL);
}

/* From the first instruction on the word has each value for @period instructions. */
static inline void stepping_turn(unsigned period, unsigned phase)
{
    stepping.count = 0;
    stepping.period = period;
    stepping.phase = phase;
}

/* The word changes in the sections that follow, and in them alone. */
static inline void stepping_sections(bool change)
{
    section_guard = change ? (struct section_guard){stepping_from_here, stepping_no_more} : (struct section_guard){0};
}

/* Periods and phases, in turn.  Two looks that are N instructions apart find two values where the period is the largest
 * power of two in N, whatever the phase is; the phases are for what three looks find. */
#define STEPPING_ALL(period, phase)                      \
    for (unsigned period = 1; period <= 64; period *= 2) \
        for (unsigned phase = 0; phase < 2 * period; phase += (period + 7) / 8)

#endif
#endif
