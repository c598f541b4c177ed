/* SPDX-License-Identifier: MIT
 *
 * The rhythm of commits, in a time that the tests make: a machine of two processors, clients that wait for commits, and
 * disks that differ in how long those take.
 */
#include "mirror/rhythm.h"
#include "base/clock.h"

#include <criterion/criterion.h>

#define TICK       (20 * NS_PER_US)
#define PROCESSORS 2
#define WORK       (1100 * NS_PER_US) /* of a message, on one processor */
#define SECONDS    10
#define ALL        (PROCESSORS * NS_PER_S / WORK) /* messages/s that the processors can do */

/* After @count commits of @duration, each 20th of them of @other. */
static uint64_t half_after(uint64_t half, int count, uint64_t duration, uint64_t other)
{
    for (int i = 1; i <= count; i++)
        half = rhythm_half(half, i % 20 ? duration : other);
    return half;
}

/* How long others are waited for goes by a usual commit: those that waited for a processor do not count by their
 * length, and a disk that has become slower, or faster, does. */
Test(rhythm, usual_duration)
{
    uint64_t half = half_after(0, 400, NS_PER_MS, 200 * NS_PER_MS);

    cr_assert(half > NS_PER_MS / 2 && half < 2 * NS_PER_MS, "%llu ns", (unsigned long long)half);
    half = half_after(half, 100, 10 * NS_PER_MS, 10 * NS_PER_MS);
    cr_assert(half > 8 * NS_PER_MS && half < 13 * NS_PER_MS, "%llu ns", (unsigned long long)half);
    half = half_after(half, 100, 100 * NS_PER_US, 3 * NS_PER_S);
    cr_assert(half < 200 * NS_PER_US, "%llu ns", (unsigned long long)half);
    cr_assert_gt(half_after(1, 20, 0, 0), 0); /* 0 means that there was none */
}

struct disk {
    uint64_t usual; /* what a commit takes, ns */
    uint32_t each;  /* every so many commits one takes `slow`; 0: none does */
    uint64_t slow;
    uint64_t slice; /* or: only `each` commits begin in a slice of so many ns; 0: any number */
    uint32_t begun; /* all of them, or those in this slice */
    uint64_t from;  /* when this slice began */
};

static uint64_t next_commit(struct disk *disk, uint64_t now)
{
    if (!disk->slice)
        return disk->each && ++disk->begun % disk->each == 0 ? disk->slow : disk->usual;
    if (now >= disk->from + disk->slice) {
        disk->from = now - now % disk->slice;
        disk->begun = 0;
    }
    if (disk->begun++ < disk->each)
        return disk->usual;
    disk->from += disk->slice;
    disk->begun = 1;
    return disk->from - now + disk->usual;
}

struct machine {
    struct rhythm rhythm;
    struct disk *disk;
    uint32_t waits;                     /* for a commit, of one message */
    uint32_t working, waiting, written; /* clients: at work or before it, before a commit, in one */
    uint64_t busy[PROCESSORS];          /* until when; 0: not */
    uint64_t first, begun, ends;        /* the first waiter, and the commit; 0: none */
    uint32_t wanted, captured;          /* waiters of all time, and those before the commit */
    uint64_t served, longest;           /* clients by commits; the longest wait for others to join */
    uint32_t random;
};

/* The clients at work, each for half to one and a half times as long as the others in the mean. */
static void work(struct machine *m, uint64_t now)
{
    const uint64_t mean = WORK / m->waits;

    for (int i = 0; i < PROCESSORS; i++) {
        if (m->busy[i] && now >= m->busy[i]) {
            m->busy[i] = 0;
            m->working--;
            m->waiting++;
            m->wanted++;
        }
    }
    for (int i = 0; i < PROCESSORS; i++) {
        const uint32_t other = m->busy[1 - i] ? 1 : 0;
        m->random = m->random * 1664525 + 1013904223;
        if (!m->busy[i] && m->working > other)
            m->busy[i] = now + mean / 2 + mean * (m->random >> 16) / 65536;
    }
}

static void commit(struct machine *m, uint64_t now)
{
    uint32_t enough;

    if (m->ends && now >= m->ends) {
        rhythm_keep(&m->rhythm, m->captured, m->wanted, m->begun, now);
        m->served += m->written;
        m->working += m->written;
        m->ends = m->written = 0;
    }
    if (m->ends || m->waiting == 0)
        return;
    m->first = m->first ? m->first : now;
    if (rhythm_wait(&m->rhythm, m->wanted - m->rhythm.captured, m->first, now, &enough) > 0)
        return;
    m->longest = now - m->first > m->longest ? now - m->first : m->longest;
    m->captured = m->wanted;
    m->written = m->waiting;
    m->begun = now;
    m->ends = now + next_commit(m->disk, now);
    m->first = m->waiting = 0;
}

/* Messages a second of @clients, each of whose messages waits for @waits commits. */
static uint64_t messages(struct machine *m, struct disk *disk, uint32_t clients, uint32_t waits)
{
    *m = (struct machine){.disk = disk, .waits = waits, .working = clients};
    for (uint64_t now = TICK; now < SECONDS * NS_PER_S; now += TICK) {
        work(m, now);
        commit(m, now);
    }
    return m->served / waits / SECONDS;
}

/* A disk lets ten commits a tenth of a second through at once, and holds up the next one until it is over.  They are
 * not used up by groups of a few waiters: the clients keep the processors busy, and where they wait too often for that,
 * each commit is for nearly all of them. */
Test(rhythm, a_disk_that_counts)
{
    static const struct {
        uint32_t clients, waits;
        uint64_t least;
    } loads[] = {{8, 1, 780}, {32, 1, ALL * 92 / 100}, {64, 1, ALL * 97 / 100}, {32, 3, 1000}, {64, 3, ALL * 85 / 100}};

    for (size_t i = 0; i < sizeof(loads) / sizeof(*loads); i++) {
        struct disk disk = {.usual = 300 * NS_PER_US, .each = 10, .slice = 100 * NS_PER_MS};
        struct machine m;
        uint64_t rate = messages(&m, &disk, loads[i].clients, loads[i].waits);
        cr_expect_geq(rate, loads[i].least, "%u clients, %u waits a message: %llu messages/s", loads[i].clients,
                      loads[i].waits, (unsigned long long)rate);
    }
}

/* Where each commit takes the same time, half of the clients work while the other half's commit is written. */
Test(rhythm, a_disk_that_is_slow)
{
    struct disk five = {.usual = 5 * NS_PER_MS}, ten = {.usual = 10 * NS_PER_MS};
    struct machine m;

    cr_expect_geq(messages(&m, &ten, 8, 1), 530); /* but so few wait for each other */
    cr_expect_geq(messages(&m, &five, 32, 1), ALL * 97 / 100);
    cr_expect_geq(messages(&m, &ten, 32, 1), ALL * 85 / 100);
    cr_expect_geq(messages(&m, &ten, 64, 1), ALL * 97 / 100);
}

/* How long the one waiter of 32 clients is kept at most that comes after any of @commits. */
static uint64_t longest_wait(struct disk *disk, int commits)
{
    struct rhythm rhythm = {0};
    uint64_t now = 1, longest = 0;
    uint32_t wanted = 0, enough;

    for (int i = 0; i < commits; i++) {
        uint64_t begun = now, wait;
        wanted += 32;
        now += next_commit(disk, now);
        rhythm_keep(&rhythm, wanted, wanted, begun, now);
        const uint64_t first = now;
        while ((wait = rhythm_wait(&rhythm, 1, first, now, &enough)) > 0)
            now += wait;
        longest = now - first > longest ? now - first : longest;
    }
    return longest;
}

/* One commit in twenty that takes 200 times as long makes no group wait for that, and one that hangs for seconds makes
 * none wait for longer than a usual commit's multiple. */
Test(rhythm, a_commit_that_hung)
{
    struct disk often = {.usual = NS_PER_MS, .each = 20, .slow = 200 * NS_PER_MS};
    struct disk once = {.usual = NS_PER_MS, .each = 400, .slow = 3 * NS_PER_S};

    uint64_t longest = longest_wait(&often, 400);
    cr_expect_leq(longest, 35 * NS_PER_MS, "%llu ns", (unsigned long long)longest);
    longest = longest_wait(&once, 600);
    cr_expect_leq(longest, 20 * NS_PER_MS, "%llu ns", (unsigned long long)longest);
}

/* Nor do two that hang one after the other, though no commit between them was too fast. */
Test(rhythm, commits_that_hang_in_a_row)
{
    struct rhythm rhythm = {0};
    uint64_t now = 1;
    uint32_t wanted = 0, enough;

    for (int i = 0; i < 102; i++) {
        const uint64_t begun = now;
        wanted += 32;
        now += i < 100 ? NS_PER_MS : 3 * NS_PER_S;
        rhythm_keep(&rhythm, wanted, wanted, begun, now);
    }
    const uint64_t wait = rhythm_wait(&rhythm, 1, now, now, &enough);
    cr_expect_leq(wait, 20 * NS_PER_MS, "%llu ns", (unsigned long long)wait);
}

/* A client alone is never kept waiting for others. */
Test(rhythm, a_client_alone)
{
    struct disk disk = {.usual = 300 * NS_PER_US, .each = 10, .slice = 100 * NS_PER_MS};
    struct machine m;

    cr_expect_geq(messages(&m, &disk, 1, 1), 98);
    cr_expect_eq(m.longest, 0, "%llu ns", (unsigned long long)m.longest);
}
