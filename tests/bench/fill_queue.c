/* SPDX-License-Identifier: MIT
 *
 * Make a queue of any length, and time the store's calls with that queue present.
 *
 *      fill_queue SPOOL fill FIRST COUNT               make COUNT messages from number FIRST on, through the C API
 *      fill_queue SPOOL plain FIRST COUNT              the same in plain files, like an Exim without the library
 *      fill_queue SPOOL measure FIRST COUNT ALL        time the calls of the C API
 *      fill_queue SPOOL measure-plain FIRST COUNT ALL  time the same calls on the real file system
 *
 * The measurements print nanoseconds per call: create a file of COUNT messages, look up one of them, look up one of the
 * messages [0, ALL), remove a file.
 *
 * A message looks like one that Exim 4.96 has deferred: a -D with 4 kB of text, a -H and a log, in a split spool.  Its
 * 16-character ID carries a time in the past.  Run as root; the program continues as the spool's owner.
 *
 * Failure modes: a failed call is printed and ends the program.
 */
#include "fastspool.h"

#include "argument.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define TIME_FIRST UINT64_C(1795400000) /* arrival of the first message; PER_SECOND follow each second */
#define PER_SECOND 16u
#define BODY       4000u

#define MESSAGES_MAX 1000000000 /* what FIRST, COUNT and ALL may be */

static const char digits[] = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

static struct fastspool *store; /* NULL: use libc */

static void failed(const char *what, const char *path, long error)
{
    fprintf(stderr, "fill_queue: %s %s: %s\n", what, path, strerror((int)error));
    exit(1);
}

static long checked(long result, const char *what, const char *path)
{
    if (result < 0)
        failed(what, path, store ? -result : errno);
    return result;
}

/* ---- a message ---- */

struct message {
    uint64_t time; /* s */
    char id[17];
    char data[64], header[64], log[64]; /* paths below the spool */
};

static void base62(char *text, int length, uint64_t number)
{
    while (length-- > 0) {
        text[length] = digits[number % 62];
        number /= 62;
    }
}

static void name_message(struct message *m, uint64_t number)
{
    m->time = TIME_FIRST + number / PER_SECOND;
    base62(m->id, 6, m->time);
    m->id[6] = '-';
    base62(m->id + 7, 6, 1000 + number % PER_SECOND);
    m->id[13] = '-';
    base62(m->id + 14, 2, number % PER_SECOND * (2000 / PER_SECOND)); /* half milliseconds, by which Exim sorts */
    m->id[16] = '\0';
    snprintf(m->data, sizeof(m->data), "input/%c/%s-D", m->id[5], m->id);
    snprintf(m->header, sizeof(m->header), "input/%c/%s-H", m->id[5], m->id);
    snprintf(m->log, sizeof(m->log), "msglog/%c/%s", m->id[5], m->id);
}

static size_t write_body(char *text, const struct message *m)
{
    static char lines[BODY + 1];

    for (size_t at = 0; lines[BODY - 1] == '\0'; at += 76)
        snprintf(lines + at, sizeof(lines) - at, "%075zu\n", at);
    lines[BODY - 1] = '\n';
    size_t head = (size_t)sprintf(text, "%s-D\n", m->id);
    memcpy(text + head, lines, BODY - head);
    return BODY;
}

/* A header line of a -H file: its length in three digits, a letter for its kind, its text. */
static size_t write_header_line(char *text, char kind, const char *line)
{
    return (size_t)sprintf(text, "%03zu%c %s\n", strlen(line) + 1, kind, line);
}

static size_t write_header(char *text, const struct message *m, uid_t uid, gid_t gid)
{
    char received[300], date[40];
    struct tm tm;
    time_t time = (time_t)m->time;
    size_t at =
        (size_t)sprintf(text,
                        "%s-H\nDebian-exim %u %u\n<load@sink.test>\n%llu 0\n-received_time_usec .016765\n"
                        "-received_time_complete %llu.018865\n--helo_name load.test\n-host_address [127.0.0.1]:33528\n"
                        "-interface_address [127.0.0.1]:2525\n-received_protocol esmtp\n-body_linecount 53\n"
                        "-max_received_linelength 75\nXX\n1\nuser@sink.test\n\n",
                        m->id, uid, gid, (unsigned long long)m->time, (unsigned long long)m->time);

    strftime(date, sizeof(date), "%a, %d %b %Y %H:%M:%S +0000", gmtime_r(&time, &tm));
    snprintf(received, sizeof(received),
             "Received: from [127.0.0.1] (helo=load.test)\n\tby mail.test with esmtp (Exim 4.96)\n"
             "\t(envelope-from <load@sink.test>)\n\tid %s\n\tfor user@sink.test;\n\t%s",
             m->id, date);
    at += write_header_line(text + at, 'P', received);
    at += write_header_line(text + at, 'F', "From: load@sink.test");
    at += write_header_line(text + at, 'T', "To: user@sink.test");
    return at + write_header_line(text + at, ' ', "Subject: load");
}

static size_t write_log(char *text, const struct message *m)
{
    char date[40];
    struct tm tm;
    time_t time = (time_t)m->time;

    strftime(date, sizeof(date), "%Y-%m-%d %H:%M:%S", gmtime_r(&time, &tm));
    return (size_t)sprintf(text,
                           "%s Received from load@sink.test H=(load.test) [127.0.0.1] P=esmtp S=4208\n"
                           "%s user@sink.test R=remote T=smtp defer (111): Connection refused\n",
                           date, date);
}

/* ---- files ---- */

/* Make a file.  With lazy durability the sync waits only if the mirror falls behind. */
static void make_file(const char *path, const char *bytes, size_t size)
{
    const int flags = O_RDWR | O_CREAT | O_EXCL;
    int fd = (int)checked(store ? fastspool_open(store, path, flags, 0640) : open(path, flags, 0640), "make", path);

    checked(store ? fastspool_write(store, fd, bytes, size) : write(fd, bytes, size), "write", path);
    if (store)
        checked(fastspool_fsync(store, fd), "sync", path);
    checked(store ? fastspool_close(store, fd) : close(fd), "close", path);
}

static void make_directory(const char *path)
{
    int result = store ? fastspool_mkdir(store, path, 0750) : mkdir(path, 0750) < 0 ? -errno : 0;

    if (result < 0 && result != -EEXIST)
        failed("make", path, -result);
}

static void make_directories(void)
{
    char path[16];

    make_directory("input");
    make_directory("msglog");
    for (const char *digit = digits; *digit; digit++) {
        snprintf(path, sizeof(path), "input/%c", *digit);
        make_directory(path);
        snprintf(path, sizeof(path), "msglog/%c", *digit);
        make_directory(path);
    }
}

static void make_message(uint64_t number)
{
    char text[BODY + 100];
    struct message m;

    name_message(&m, number);
    make_file(m.data, text, write_body(text, &m));
    make_file(m.header, text, write_header(text, &m, geteuid(), getegid()));
    make_file(m.log, text, write_log(text, &m));
}

/* ---- what the calls cost ---- */

#define ROUNDS 7
#define LOOKS  50000u

enum what { MAKE, LOOK_UP_OWN, LOOK_UP_ANY, REMOVE, KINDS };

static double now(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec * 1e9 + (double)time.tv_nsec;
}

static void look_up(uint64_t number)
{
    struct message m;
    struct stat st;

    name_message(&m, number);
    const char *path = number % 2 ? m.data : m.header;
    checked(store ? fastspool_stat(store, path, &st) : stat(path, &st), "look at", path);
}

static void remove_file(const char *path)
{
    checked(store ? fastspool_unlink(store, path) : unlink(path), "remove", path);
}

static void remove_message(uint64_t number)
{
    struct message m;

    name_message(&m, number);
    remove_file(m.data);
    remove_file(m.header);
    remove_file(m.log);
}

/* Look up random messages of [first, first + count). */
static void look_about(uint64_t first, uint64_t count)
{
    static uint64_t number = 1;

    for (uint64_t look = 0; look < LOOKS; look++) {
        number = number * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        look_up(first + (number >> 33) % count);
    }
}

/* One round, in nanoseconds per file. */
static void measure_round(uint64_t first, uint64_t count, uint64_t all, double taken[KINDS])
{
    double begun = now();

    for (uint64_t number = first; number < first + count; number++)
        make_message(number);
    taken[MAKE] = (now() - begun) / (double)(3 * count);
    begun = now();
    look_about(first, count);
    taken[LOOK_UP_OWN] = (now() - begun) / LOOKS;
    begun = now();
    look_about(all ? 0 : first, all ? all : count);
    taken[LOOK_UP_ANY] = (now() - begun) / LOOKS;
    begun = now();
    for (uint64_t number = first; number < first + count; number++)
        remove_message(number);
    taken[REMOVE] = (now() - begun) / (double)(3 * count);
    if (store)
        checked(fastspool_flush(store, 0), "flush", "the spool");
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

/* Print the medians of all rounds but the first. */
static void measure(uint64_t first, uint64_t count, uint64_t all)
{
    double taken[KINDS], every[KINDS][ROUNDS];

    for (int round = -1; round < ROUNDS; round++) {
        measure_round(first, count, all, taken);
        for (int kind = 0; kind < KINDS && round >= 0; kind++)
            every[kind][round] = taken[kind];
    }
    for (int kind = 0; kind < KINDS; kind++) {
        qsort(every[kind], ROUNDS, sizeof(double), by_value);
        printf("%.1f%c", every[kind][ROUNDS / 2], kind + 1 < KINDS ? ' ' : '\n');
    }
}

/* ---- all of it ---- */

static void attach(const char *spool)
{
    struct fastspool_config config;
    char error[FASTSPOOL_ERROR_MAX];

    if (fastspool_config_load(&config, NULL, true, error) == 0) {
        config.durability = FASTSPOOL_LAZY;
        if (fastspool_attach(spool, &config, &store, error) == 0)
            return;
    }
    fprintf(stderr, "fill_queue: %s\n", error);
    exit(1);
}

static bool known(const char *what)
{
    static const char *const all[] = {"fill", "plain", "measure", "measure-plain"};
    bool found = false;

    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
        found = found || strcmp(what, all[i]) == 0;
    return found;
}

int main(int argc, char **argv)
{
    struct stat st;

    if (argc < 5 || argc > 6 || !known(argv[2])) {
        fprintf(stderr, "usage: fill_queue SPOOL fill|plain|measure|measure-plain FIRST COUNT [ALL]\n");
        return 2;
    }
    const char *spool = argv[1], *what = argv[2];
    uint64_t first = argument_number("FIRST", argv[3], 0, MESSAGES_MAX);
    uint64_t count = argument_number("COUNT", argv[4], 0, MESSAGES_MAX);
    uint64_t all = argc > 5 ? argument_number("ALL", argv[5], 0, MESSAGES_MAX) : 0;
    if (stat(spool, &st) < 0 || setgid(st.st_gid) < 0 || setuid(st.st_uid) < 0 || chdir(spool) < 0)
        failed("become the owner of", spool, errno);
    umask(0);
    if (!strstr(what, "plain"))
        attach(spool);
    make_directories();
    if (strncmp(what, "measure", strlen("measure")) == 0) {
        measure(first, count, all);
    } else {
        for (uint64_t number = first; number < first + count; number++)
            make_message(number);
        if (store)
            checked(fastspool_flush(store, 0), "flush", spool);
    }
    if (store)
        fastspool_detach(store);
    return 0;
}
