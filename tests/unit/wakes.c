/* SPDX-License-Identifier: MIT
 *
 * A model of the waiters for a commit and of what wakes them, run through every order of its steps.
 *
 * It has waiters (tickets_wait(), and wait_for_bounds(), which sleeps in no group) and a mirror (committer_gather(),
 * commit(), capture_end()).  A mirror may die at any step, and another one follows; a commit may fail; a signal may end
 * a sleep.  A step is what happens at one instant: an atomic access, a section, a call of futex(2).  No waiter looks at
 * a clock, so none is saved by the look that it takes ten times a second in the store.
 *
 * In the end each waiter has its change on the disk, or an error.  A waiter that sleeps where no step is left has lost
 * its wake-up.  Each round of a loop counts something, so every way has an end.
 *
 * Each rule is also broken, and then a wake-up must be lost: else the model proves nothing.
 */
#include <criterion/criterion.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define WAITERS 3
#define BOUNDS  (WAITERS - 1)       /* the waiter of wait_for_bounds() */
#define NEVER   UINT8_MAX           /* as header.mirror.enough: more than there are */
#define MOST    (UINT32_C(1) << 24) /* states */
#define BUCKETS (2 * MOST)

/* How many changes each waiter makes and waits for, and what may happen meanwhile. */
struct play {
    uint8_t rounds[WAITERS], deaths, failures, signals;
    bool is_long;
};
static const struct play plays[] = {
    {{1, 2, 0}, .deaths = 1},
    {{1, 2, 0}, .failures = 1},
    {{1, 2, 0}, .signals = 1},
    {{0, 2, 1}, .failures = 1},
    {{0, 2, 1}, .signals = 1, .is_long = true},
    {{0, 2, 1}, .deaths = 1, .is_long = true},
    {{1, 2, 0}, .deaths = 1, .failures = 1, .is_long = true},
    {{1, 1, 1}, .is_long = true},
};

/* What keeps wake-ups from being lost. */
enum rule {
    NEXT_ALONE_SLEEPS_ON, /* the end of a commit wakes all but those whom the next one will serve */
    CAPTURED_IS_NOT_NEXT, /* whose change is captured does not wait for the next capture */
    EVENT_FIRST,          /* a waiter loads the event, and then looks what is durable */
    DURABLE_FIRST,        /* the mirror says what is durable, and then counts the event */
    ENOUGH_FIRST,         /* the mirror says how many waiters are enough, and then sleeps */
    OWN_ENOUGH,           /* who has woken the mirror takes back what it has said before, not what it says then */
    COUNT_FIRST,          /* the mirror counts its waiters, and then captures */
    NEW_MIRROR_COMMITS,   /* a new mirror waits for nobody before its first commit */
    NOTHING_IS_AN_EVENT,  /* a capture that finds nothing to write wakes all */
    RULES
};
static enum rule broken; /* RULES: none */

/* What a process does next: first a waiter's steps, then the mirror's. */
enum step { CHANGE, COUNT, ASK, WAKE, TAKE_BACK, EVENT, LOOK, GROUP, SLEEP, ASLEEP, AWAKE, DONE };
enum mirror_step { GATHER, SAY_ENOUGH, DOZE, DOZING, DOZED, BEGIN, CAPTURE, WRITE, END, END_EVENT, END_WAKE, DEAD };

struct waiter {
    uint8_t step;    /* enum step */
    uint8_t rounds;  /* changes that it still makes */
    uint8_t ticket;  /* of its last change */
    uint8_t counted; /* what it has made of `wanted` */
    uint8_t enough;  /* as it has loaded it */
    uint8_t event;   /* as it has loaded it */
    uint8_t group;   /* the capture for which it sleeps; 0: any */
};

/* All of bytes, so equal states have equal bytes.  What a process needs no more is 0. */
struct state {
    struct waiter waiter[WAITERS];
    /* in the segment */
    uint8_t change, captured, capture, durable, event, failed, wanted, enough;
    uint8_t dirtied; /* the last change that left something to write */
    /* the mirror's */
    uint8_t step;          /* enum mirror_step */
    uint8_t served;        /* the value of `wanted` of which no waiter is left */
    uint8_t before;        /* that value at the capture that has begun */
    uint8_t seen, until;   /* of `wanted`: as the mirror begins to sleep, and what is to wake it */
    uint8_t ticket, error; /* of the capture that is written; 0: there was nothing to write */
    /* what may still happen */
    uint8_t deaths, failures, signals;
};

/* ---- the waiters ---- */

/* futex_wake() of header.mirror.wanted. */
static void wake_mirror(struct state *s)
{
    if (s->step == DOZING)
        s->step = DOZED;
}

/* tickets_wait() or wait_for_bounds() returns. */
static void end_wait(struct waiter *w)
{
    *w = (struct waiter){.step = w->rounds > 0 ? CHANGE : DONE, .rounds = w->rounds};
}

/* Waiter 0 makes changes that come to nothing: a file that is gone before a capture has seen it. */
static void make_change(struct state *s, struct waiter *w)
{
    w->rounds--;
    w->ticket = ++s->change;
    if (w != &s->waiter[0])
        s->dirtied = s->change;
    w->step = w == &s->waiter[BOUNDS] ? EVENT : COUNT;
}

/* capture_of() */
static uint8_t group_of(const struct state *s, uint8_t ticket)
{
    return s->capture + (s->captured < ticket || broken == CAPTURED_IS_NOT_NEXT);
}

/* await_awake() */
static void count_again(struct state *s, const struct waiter *w)
{
    if (s->event == w->event) {
        s->wanted++;
        wake_mirror(s);
    }
}

/* futex_count_to(), event, durable, error, capture_of(), futex_wait_in(); in wait_for_bounds() event, durable, error,
 * futex_count(), futex_wait(). */
static void step_of_waiter(struct state *s, struct waiter *w)
{
    const bool bounds = w == &s->waiter[BOUNDS];
    const uint8_t first = broken == EVENT_FIRST ? LOOK : EVENT, second = broken == EVENT_FIRST ? EVENT : LOOK;

    if (w->step == CHANGE) {
        make_change(s, w);
    } else if (w->step == COUNT) {
        w->counted = ++s->wanted;
        w->step = bounds ? WAKE : ASK;
    } else if (w->step == ASK) {
        w->step = w->counted >= s->enough ? WAKE : first;
        w->enough = w->step == WAKE ? s->enough : 0;
        w->counted = 0;
    } else if (w->step == WAKE) {
        wake_mirror(s);
        w->counted = 0;
        w->step = bounds ? SLEEP : TAKE_BACK;
    } else if (w->step == TAKE_BACK) {
        if (s->enough == w->enough || broken == OWN_ENOUGH)
            s->enough = NEVER;
        w->enough = 0;
        w->step = first;
    } else if (w->step == EVENT) {
        w->event = s->event;
        w->step = first == EVENT ? second : GROUP;
    } else if (w->step == LOOK) {
        w->step = first == LOOK ? second : GROUP;
        if (s->durable >= w->ticket)
            end_wait(w);
    } else if (w->step == GROUP) {
        w->group = bounds ? 0 : group_of(s, w->ticket);
        w->step = bounds ? COUNT : SLEEP;
        if (s->failed)
            end_wait(w);
    } else if (w->step == SLEEP) {
        w->step = s->event == w->event ? ASLEEP : AWAKE;
    } else if (w->step == AWAKE) {
        count_again(s, w);
        w->event = w->group = 0;
        w->step = first;
    }
}

/* futex_count() and futex_count_without() of header.tickets.commit_event.  @group: sleeps on; 0: none does. */
static void wake_waiters(struct state *s, uint8_t group)
{
    for (int i = 0; i < WAITERS; i++) {
        if (s->waiter[i].step == ASLEEP && (group == 0 || s->waiter[i].group != group))
            s->waiter[i].step = AWAKE;
    }
}

/* ---- the mirror ---- */

static void meet(const struct state *state);

/* committer_gather(): it begins, or waits for one more.  Where there is a waiter, it may do either. */
static void gather(struct state *s)
{
    struct state begins = *s;

    begins.step = BEGIN;
    if (s->wanted != s->served)
        meet(&begins);
    s->seen = s->wanted;
    s->until = s->wanted + 1;
    s->step = broken == ENOUGH_FIRST ? DOZE : SAY_ENOUGH;
}

/* capture_body() */
static void capture(struct state *s)
{
    bool any = s->dirtied > s->durable;

    if (any) {
        s->capture++;
        s->captured = s->ticket = s->change;
    } else {
        s->durable = s->change;
    }
    s->served = s->before;
    s->before = 0;
    s->step = any ? WRITE : broken == NOTHING_IS_AN_EVENT ? GATHER : END_EVENT;
}

static void end_commit(struct state *s)
{
    bool succeeded = s->ticket && !s->error;

    wake_waiters(s, succeeded ? s->capture + (broken != NEXT_ALONE_SLEEPS_ON) : 0);
    if (succeeded && broken == DURABLE_FIRST)
        s->durable = s->ticket;
    s->step = s->error ? BEGIN : GATHER;
    s->ticket = s->error = 0;
}

/* The mirror is dead, and another one begins. */
static void begin_anew(struct state *s)
{
    s->served = s->wanted;
    s->before = s->seen = s->until = s->ticket = s->error = 0;
    s->step = broken == NEW_MIRROR_COMMITS ? GATHER : BEGIN;
}

static void step_of_mirror(struct state *s)
{
    if (s->step == GATHER) {
        gather(s);
    } else if (s->step == SAY_ENOUGH) {
        s->enough = s->until;
        s->step = DOZE;
    } else if (s->step == DOZE) {
        s->step = s->wanted == s->seen ? DOZING : DOZED;
    } else if (s->step == DOZED || s->step == DOZING) { /* who waits for a group looks at the clock */
        s->enough = NEVER;
        s->seen = s->until = 0;
        s->step = GATHER;
    } else if (s->step == BEGIN) {
        s->before = s->wanted;
        s->step = CAPTURE;
    } else if (s->step == CAPTURE) {
        capture(s);
    } else if (s->step == WRITE) {
        s->step = END;
    } else if (s->step == END) {
        if (!s->error && broken != DURABLE_FIRST)
            s->durable = s->ticket;
        s->served = broken == COUNT_FIRST ? s->wanted : s->served;
        s->step = END_EVENT;
    } else if (s->step == END_EVENT) {
        s->failed = s->ticket ? s->error : s->failed;
        s->event++;
        s->step = END_WAKE;
    } else if (s->step == END_WAKE) {
        end_commit(s);
    } else {
        begin_anew(s);
    }
}

/* ---- every order ---- */

static struct state *met;
static uint32_t *bucket, count; /* bucket: number in `met` and 1, by hash */

static void meet(const struct state *state)
{
    uint64_t hash = UINT64_C(0xcbf29ce484222325);

    for (size_t i = 0; i < sizeof(*state); i++)
        hash = (hash ^ ((const uint8_t *)state)[i]) * UINT64_C(0x100000001b3);
    uint32_t at = (uint32_t)(hash ^ hash >> 29) % BUCKETS;
    for (; bucket[at]; at = (at + 1) % BUCKETS) {
        if (memcmp(&met[bucket[at] - 1], state, sizeof(*state)) == 0)
            return;
    }
    cr_assert_lt(count, MOST, "the model has too many states");
    met[count++] = *state;
    bucket[at] = count;
}

/* Meet what a rare event makes of @s. */
static void meet_misfortunes(const struct state *s)
{
    struct state failed = *s, dead = *s;

    for (int i = 0; i < WAITERS && s->signals; i++) {
        struct state next = *s;
        next.signals--;
        next.waiter[i].step = AWAKE;
        if (s->waiter[i].step == ASLEEP)
            meet(&next);
    }
    failed.failures--;
    failed.error = 1;
    failed.step = END;
    if (s->failures && s->step == WRITE)
        meet(&failed);
    dead.deaths--;
    dead.step = DEAD;
    if (s->deaths && s->step != DEAD)
        meet(&dead);
}

/* Meet what follows @s.  False: nothing does by itself, and somebody sleeps. */
static bool go_on(const struct state *s)
{
    bool moves = s->step != DOZING || s->seen != s->served, all_done = true;

    for (int i = 0; i < WAITERS; i++) {
        struct state next = *s;
        all_done = all_done && s->waiter[i].step == DONE;
        if (s->waiter[i].step == DONE || s->waiter[i].step == ASLEEP)
            continue;
        step_of_waiter(&next, &next.waiter[i]);
        meet(&next);
        moves = true;
    }
    if (all_done)
        return true;
    struct state next = *s;
    step_of_mirror(&next);
    if (s->step != DOZING || s->seen != s->served)
        meet(&next);
    meet_misfortunes(s);
    return moves;
}

/* Does no order of the play's steps lose a wake-up? */
static bool holds(const struct play *play)
{
    struct state first = {.deaths = play->deaths, .failures = play->failures, .signals = play->signals};
    bool all = true;

    for (int i = 0; i < WAITERS; i++) {
        first.waiter[i].rounds = play->rounds[i];
        end_wait(&first.waiter[i]);
    }
    count = 0;
    bucket = calloc(BUCKETS, sizeof(*bucket));
    meet(&first);
    for (uint32_t at = 0; at < count && all; at++) {
        const struct state s = met[at];
        all = go_on(&s);
    }
    free(bucket);
    return all;
}

static bool all_hold(void)
{
    bool all = true;

    for (size_t i = 0; i < sizeof(plays) / sizeof(*plays) && all; i++)
        all = (plays[i].is_long && !getenv("FASTSPOOL_TEST_LONG")) || holds(&plays[i]);
    return all;
}

Test(wakes, none_is_lost, .timeout = 600)
{
    met = malloc(MOST * sizeof(*met));
    broken = RULES;
    cr_assert(all_hold(), "one is lost");
    for (broken = 0; broken < RULES; broken++)
        cr_assert_not(all_hold(), "none is lost without rule %d", broken);
    free(met);
}
