/* SPDX-License-Identifier: MIT
 *
 * Sections that count: each adds one to a row of words.  Half of them changed is a section that was not whole.
 */
#ifndef FASTSPOOL_TESTS_COUNTING_H
#define FASTSPOOL_TESTS_COUNTING_H

#include "fixture.h"
#include "store/layout.h"
#include "store/section.h"
#include "store/store.h"
#include "store/table.h"

#include <criterion/criterion.h>
#include <sys/wait.h>

#define WORDS 10

/* The words that the sections change are no store's. */
static inline void counting_setup(void)
{
    fixture_setup();
    checking_every(0);
    cr_assert_eq(table_grow(fs, TABLE_BUCKETS), 0);
}

static inline const uint64_t *word(int i)
{
    return (const uint64_t *)(fs->base + BUCKETS_AT) + i;
}

static inline uint32_t lock_word(void)
{
    return LOAD(fs->header->section.lock);
}

/* What happens in the middle of a section. */
typedef void happening(void *argument);
struct scene {
    happening *event;
    void *argument;
};

static inline int change(struct fastspool *store, void *argument)
{
    const struct scene *scene = argument;

    for (int i = 0; i < WORDS; i++) {
        SET(store, *word(i), *word(i) + 1);
        if (i == WORDS / 2 && scene && scene->event)
            scene->event(scene->argument);
    }
    return 0;
}

static inline int run_section(happening *event, void *argument)
{
    struct scene scene = {event, argument};
    return section_run(fs, change, &scene);
}

/* All words have changed together, @times. */
static inline void words_are(uint64_t times)
{
    for (int i = 0; i < WORDS; i++)
        cr_assert_eq(*word(i), times, "word %d is %llu, not %llu", i, (unsigned long long)*word(i),
                     (unsigned long long)times);
    cr_assert_eq(fs->header->section.undo_count, 0);
}

static inline int end_of(pid_t pid)
{
    int status;
    cr_assert_eq(waitpid(pid, &status, 0), pid);
    return status;
}

#endif
