/* SPDX-License-Identifier: MIT
 *
 * Power cuts: a recovery restores all that was promised, from every state that the disk may be in.
 *
 *     power_cut [--view] [--states N] [--seed S] [--little-memory] [--fault no-sync|swapped] [--must-find]
 *
 * The happy path: for each durability, client processes receive, deliver and remove messages in the store, as Exim
 * does.  This process is their mirror, with the real journal, checkpoints and database.  All that it does to the disk
 * is recorded (record.h).  After an fsync has returned, a client notes how many events there were.  Then power cuts are
 * made all over the run, and the real code recovers the disk that each of them leaves.  What it restores must hold all
 * that was promised by then, and keep three rules: a -H has its whole -D (a name leads to a whole file); two files that
 * are always written one after the other are at most one step apart (a recovery restores one instant); lazy loses no
 * more than its window.  In some recoveries the power fails again.  In half of the runs fdatasync fails now and then
 * and loses a part of what it should sync, and the mirror dies.  With --little-memory messages are evicted, and paged
 * in when they are delivered.  With --view the clients have no library: they go through the kernel and a server of the
 * view.
 *
 * With --must-find the exit status is 0 if a loss was found.  This tests the simulator: without the journal's
 * fdatasync, with swapped writes, and as programs whose journal checks no checksum, whose recovery accepts what a dead
 * mirror wrote, whose database is not synced, and whose view says at once that a directory is synced.
 *
 * LMDB does not check what it reads, so a damaged database may make it abort, or never return.  So a child process
 * recovers.  Its death is a loss.
 */
#include "fastspool.h"
#include "fixture.h"
#include "mirror/capture.h"
#include "mirror/checkpoint.h"
#include "mirror/database.h"
#include "mirror/journal.h"
#include "mirror/journal_files.h"
#include "mirror/recovery.h"
#include "paging.h"
#include "record.h"
#include "store/descriptions.h"
#include "store/layout.h"
#include "store/segment.h"
#include "store/store.h"
#include "way.h"

#include <errno.h>
#include <getopt.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>

#define CLIENTS    4
#define MESSAGES   60 /* of each client */
#define SWINGS_MAX 100000
#define NESTED     4 /* about how many power cuts in a recovery that is cut */
#define RUNS       6 /* three modes, each with a good disk and with a failing one */
#define LIMIT      (8 * JOURNAL_FILE_MIN)
#define SMALL      (UINT64_C(5) << 19)  /* bytes of memory: the header, the tables and one chunk */
#define WINDOW     UINT64_C(1500000000) /* ns that lazy may lose: its bound is 1 s, and the machine may be busy */
#define ENDLESS    60                   /* s after which a recovery, of some ms, is taken for one that never ends */

static const char *const modes[] = {"acked", "lazy", "strict"};

/* ---- what was promised, in memory that all processes share ---- */

/* A message's steps, in order.  For each: the position in the recording when it began, and when an fsync that promises
 * it had returned; 0: not yet. */
enum step { STEP_DATA, STEP_HEADER, STEP_JOURNAL, STEP_REMOVAL, STEPS };

struct message {
    uint64_t begun[STEPS];
    uint64_t promised[STEPS];
};

struct promises {
    struct message message[CLIENTS][MESSAGES];
    uint64_t swung[SWINGS_MAX]; /* the pendulum: when it reached each number, CLOCK_MONOTONIC ns */
    uint32_t swings;
    uint32_t stop;
};
static struct promises *promises;

static uint64_t position(void)
{
    return __atomic_load_n(record_count, __ATOMIC_ACQUIRE);
}

static uint64_t now(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * UINT64_C(1000000000) + (uint64_t)time.tv_nsec;
}

/* ---- the clients ---- */

static void must(bool true_, const char *what)
{
    if (!true_) {
        fprintf(stderr, "power_cut: %s\n", what);
        _exit(3);
    }
}

static char noise[1 << 20];

/* The content of a message's file @what: its own part of the noise. */
static const char *content(int client, int number, char what, size_t *size)
{
    unsigned seed = (unsigned)(client * 1000 + number) * 7 + (unsigned char)what;

    *size = (size_t)rand_r(&seed) % (what == 'D' ? 15000 : 900) + 1;
    return noise + (size_t)rand_r(&seed) % (sizeof(noise) - *size);
}

static void name_of(int client, int number, char what, char name[32])
{
    snprintf(name, 32, "input/%d-%d-%c", client, number, what);
}

/* fsync until it succeeds: while the disk fails, a client waits. */
static void sync_file(int d)
{
    while (way_fsync(fs, d) < 0)
        usleep(1000);
}

static int put_file(int client, int number, char what)
{
    char name[32];
    size_t size;
    const char *bytes = content(client, number, what, &size);

    name_of(client, number, what, name);
    int d = way_open(fs, name, O_RDWR | O_CREAT, 0640);
    must(d >= 0 && way_write(fs, d, bytes, size) == (ssize_t)size, "write a file");
    return d;
}

static void promise(struct message *message, enum step step)
{
    message->promised[step] = position();
}

static void sync_directory(void)
{
    int d = way_open(fs, "input", O_RDONLY | O_DIRECTORY, 0);

    must(d >= 0, "open the directory");
    sync_file(d);
    way_close(fs, d);
}

static void receive(int client, int number, struct message *message)
{
    bool strict = fs->durability == FASTSPOOL_STRICT;
    char from[32], to[32];

    message->begun[STEP_DATA] = position();
    int d = put_file(client, number, 'D');
    sync_file(d);
    if (strict)
        promise(message, STEP_DATA);
    way_close(fs, d);
    message->begun[STEP_HEADER] = position();
    d = put_file(client, number, 'h');
    sync_file(d);
    way_close(fs, d);
    name_of(client, number, 'h', from);
    name_of(client, number, 'H', to);
    must(way_rename(fs, from, to) == 0, "rename");
    sync_directory();
    if (fs->durability != FASTSPOOL_LAZY)
        promise(message, STEP_HEADER);
}

static int find(struct fastspool *store, int client, int number, char what);

static void deliver(int client, int number, struct message *message)
{
    static const char parts[] = "JHD";
    char name[32];

    must(find(fs, client, number, 'D') == 1 && find(fs, client, number, 'H') == 1, "read a message back");

    message->begun[STEP_JOURNAL] = position();
    int d = put_file(client, number, 'J');
    sync_file(d);
    if (fs->durability == FASTSPOOL_STRICT)
        promise(message, STEP_JOURNAL);
    way_close(fs, d);
    message->begun[STEP_REMOVAL] = position();
    for (size_t i = 0; parts[i]; i++) {
        name_of(client, number, parts[i], name);
        must(way_unlink(fs, name) == 0, "unlink");
    }
    sync_directory();
    if (fs->durability != FASTSPOOL_LAZY)
        promise(message, STEP_REMOVAL);
}

static void run_client(int client)
{
    unsigned seed = (unsigned)client;

    for (int number = 0; number < MESSAGES; number++) {
        receive(client, number, &promises->message[client][number]);
        int old = number - rand_r(&seed) % 25;
        if (old >= 0 && !promises->message[client][old].begun[STEP_JOURNAL] && rand_r(&seed) % 4)
            deliver(client, old, &promises->message[client][old]);
        usleep(1000);
    }
}

/* The pendulum: two files that are always written one after the other. */
static void swing(void)
{
    int one = fastspool_open(fs, "one", O_RDWR | O_CREAT, 0640),
        other = fastspool_open(fs, "other", O_RDWR | O_CREAT, 0640);

    fs->durability = FASTSPOOL_LAZY;
    for (uint32_t n = 1; n < SWINGS_MAX; n++) {
        must(fastspool_pwrite(fs, one, &n, sizeof(n), 5000) == sizeof(n), "swing");
        must(fastspool_pwrite(fs, other, &n, sizeof(n), 9000) == sizeof(n), "swing");
        promises->swung[n] = now();
        STORE(promises->swings, n);
        while (fastspool_fsync(fs, one) < 0)
            usleep(1000);
        usleep(100);
    }
}

/* ---- the mirror ---- */

static struct journal journal;
static char error[FASTSPOOL_ERROR_MAX];

static bool must_find;

static void checkpoint(void)
{
    struct database *database;

    must(shared_database_enter(&paging_database, &database, error) == 0, error);
    if (checkpoint_run(database, &journal, error) < 0) {
        printf("a checkpoint failed: %s\n", error);
        _exit(must_find ? 0 : 3);
    }
    shared_database_leave(&paging_database, false);
}

static void want_checkpoint(void *context)
{
    (void)context;
    journal_files_want_checkpoint(&journal.pool);
}

static void *second_thread(void *argument)
{
    (void)argument;
    while (!LOAD(promises->stop)) {
        journal_files_prepare(&journal.pool);
        if (journal_files_due(&journal.pool))
            checkpoint();
        usleep(2000);
    }
    return NULL;
}

static pthread_t second;

static void begin_mirror(void)
{
    STORE(promises->stop, 0);
    must(journal_open(&journal, fs, LIMIT, error) == 0, error);
    paging_begin(fs, want_checkpoint);
    must(pthread_create(&second, NULL, second_thread, NULL) == 0, "start a thread");
}

/* The mirror ends, during a commit if @capture is one.  A thread can't be killed, so a running checkpoint completes:
 * tests/system/faults.py kills mirrors during one. */
static void end_mirror(struct capture *capture)
{
    STORE(promises->stop, 1);
    pthread_join(second, NULL);
    paging_end(fs);
    journal_close(&journal);
    if (capture) {
        free(capture->file);
        free(capture->names);
        free(capture->pieces);
        must(capture_reset(fs) == 0, "reset");
    }
}

static void commit(void)
{
    struct capture capture;

    must(capture_take(fs, &capture) == 0, "capture");
    if (capture.count == 0)
        return;
    if (journal_append(&journal, &capture, error) == 0) {
        capture_end(fs, &capture, 0, 1);
    } else {
        end_mirror(&capture);
        begin_mirror();
    }
}

/* ---- one run ---- */

static pid_t children[CLIENTS + 1];

static void start_children(enum fastspool_durability durability)
{
    for (int i = 0; i <= CLIENTS; i++) {
        children[i] = fork();
        if (children[i] == 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            fastspool_after_fork_child(fs);
            fs->mirror = false;
            fs->durability = durability;
            if (i < CLIENTS)
                run_client(i);
            else
                swing();
            _exit(0);
        }
    }
}

/* Commit until the clients are done.  With @failing an fdatasync fails now and then. */
static void serve(bool failing)
{
    int status;
    unsigned seed = 5, ended = 0;

    for (unsigned n = 0; ended < CLIENTS; n++) {
        if (failing && n % 40 == 39)
            record_fail_sync((unsigned)rand_r(&seed) % 3);
        commit();
        usleep(300);
        for (; ended < CLIENTS && waitpid(children[ended], &status, WNOHANG) != 0; ended++)
            must(status == 0, "a client failed");
    }
    kill(children[CLIENTS], SIGKILL);
    waitpid(children[CLIENTS], &status, 0);
}

static void mount_view(enum fastspool_durability durability)
{
    static char place[sizeof(fixture_directory) + 8];

    snprintf(place, sizeof(place), "%s/view", fixture_directory);
    int result = way_mount(fs, durability, place);
    if (result < 0) {
        printf("no view can be mounted here: %s\n", strerrordesc_np(-result));
        fixture_teardown();
        exit(77);
    }
}

static void run(enum fastspool_durability durability, bool failing, bool small, bool view, enum record_fault fault)
{
    char path[FASTSPOOL_PATH_MAX + 16];

    fixture_setup();
    memset(promises, 0, sizeof(*promises));
    must(mkdir(fs->state, 0700) == 0, "make the state directory");
    snprintf(path, sizeof(path), "%s/mirror.lock", fs->state);
    int lock = open(path, O_RDWR | O_CREAT, 0600);
    must(flock(lock, LOCK_EX) == 0, "take the mirror's lock");
    must(fastspool_mkdir(fs, "input", 0750) == 0, "mkdir");
    if (small)
        segment_limit(fs->header, SMALL);
    if (view)
        mount_view(durability);
    record_begin(fs->state, fault);
    begin_mirror();
    start_children(durability);
    serve(failing);
    if (view)
        way_unmount();
    end_mirror(NULL);
    record_end();
    close(lock);
}

/* ---- what a recovery restores ---- */

struct counts {
    uint64_t states, nested, batches, losses;
};
static struct counts *counts; /* in memory that all processes share */
static int verbose = 5;

__attribute__((format(printf, 1, 2))) static void lost(const char *format, ...)
{
    va_list arguments;

    counts->losses++;
    if (verbose-- <= 0)
        return;
    va_start(arguments, format);
    vprintf(format, arguments);
    va_end(arguments);
    putchar('\n');
}

/* With --must-find the first loss is enough. */
static bool found(void)
{
    return must_find && counts->losses > 0;
}

/* Read a file.  Its size; -1: there is none. */
static ssize_t read_file(struct fastspool *store, const char *name, char *bytes, size_t size)
{
    int d = way_open(store, name, O_RDONLY, 0);
    ssize_t got = d < 0 ? -1 : way_read(store, d, bytes, size);

    if (d >= 0)
        way_close(store, d);
    return got;
}

/* 1: file @what is there, whole; 0: it is not there; -1: it is not as it was written. */
static int find(struct fastspool *store, int client, int number, char what)
{
    static char found[20000];
    char name[32];
    size_t full;

    name_of(client, number, what, name);
    ssize_t size = read_file(store, name, found, sizeof(found));
    const char *written = content(client, number, what == 'H' ? 'h' : what, &full);
    if (size < 0)
        return 0;
    return (size_t)size == full && memcmp(found, written, full) == 0 ? 1 : -1;
}

static void check_message(struct fastspool *store, int client, int number, uint64_t cut)
{
    const struct message *message = &promises->message[client][number];
    int data = find(store, client, number, 'D'), header = find(store, client, number, 'H');
    bool removing = message->begun[STEP_REMOVAL] && message->begun[STEP_REMOVAL] <= cut;
    struct {
        bool promised;
    } step[STEPS];

    for (int s = 0; s < STEPS; s++)
        step[s].promised = message->promised[s] && message->promised[s] <= cut;
    if (step[STEP_DATA].promised && !removing && data != 1)
        lost("cut %lu: message %d-%d: its -D was synced, and is %d", (unsigned long)cut, client, number, data);
    if (step[STEP_HEADER].promised && !removing && (data != 1 || header != 1))
        lost("cut %lu: message %d-%d was acknowledged: -D %d, -H %d", (unsigned long)cut, client, number, data, header);
    if (step[STEP_JOURNAL].promised && !removing && find(store, client, number, 'J') != 1)
        lost("cut %lu: message %d-%d: its -J was synced", (unsigned long)cut, client, number);
    if (step[STEP_REMOVAL].promised && (data || header))
        lost("cut %lu: message %d-%d was removed, and is back", (unsigned long)cut, client, number);
    if (header && (header != 1 || data != 1))
        lost("cut %lu: message %d-%d is not whole: -D %d, -H %d", (unsigned long)cut, client, number, data, header);
}

static void check_pendulum(struct fastspool *store, uint64_t cut)
{
    static char bytes[10000];
    uint32_t one = 0, other = 0;

    if (read_file(store, "one", bytes, sizeof(bytes)) >= 5004)
        memcpy(&one, bytes + 5000, sizeof(one));
    if (read_file(store, "other", bytes, sizeof(bytes)) >= 9004)
        memcpy(&other, bytes + 9000, sizeof(other));
    if (one != other && one != other + 1)
        lost("cut %lu: the pendulum's files are not of one instant: %u and %u", (unsigned long)cut, one, other);
    uint64_t at = cut ? record_events[cut - 1].time : 0;
    if (one < LOAD(promises->swings) && promises->swung[one + 1] + WINDOW < at)
        lost("cut %lu: a change that is %.2f s old is lost", (unsigned long)cut,
             (double)(at - promises->swung[one + 1]) / 1e9);
}

/* Recover the disk into @store.  False: it can't be, for what is in `error`. */
static bool recover(struct fastspool *store, struct recovered *recovered)
{
    int left = 0;

    descriptions_pool_close(store); /* they belong to the state before */
    STORE(store->header->state, SEGMENT_RECOVERING);
    alarm(ENDLESS);
    int result = recovery_run(store, recovered, error);
    if (result == 0) {
        STORE(store->header->state, SEGMENT_READY);
        left = paging_all(store);
    }
    alarm(0);
    if (left > 0)
        snprintf(error, sizeof(error), "%d files can't be paged in", left);
    return result == 0 && left == 0;
}

/* Recover the disk into @store, and check what was restored. */
static void check_state(struct fastspool *store, uint64_t cut)
{
    struct recovered recovered;

    counts->states++;
    if (!recover(store, &recovered)) {
        lost("cut %lu: the recovery failed: %s", (unsigned long)cut, error);
        return;
    }
    counts->batches += recovered.batches;
    if (recovered.missing)
        lost("cut %lu: %lu batches are missing", (unsigned long)cut, (unsigned long)recovered.missing);
    for (int client = 0; client < CLIENTS; client++) {
        for (int number = 0; number < MESSAGES; number++) {
            if (promises->message[client][number].begun[STEP_DATA])
                check_message(store, client, number, cut);
        }
    }
    check_pendulum(store, cut);
}

/* Make a store to recover into, once a run. */
static struct fastspool *second_store(void)
{
    struct fastspool_config config = {.memory = FIXTURE_MEMORY, .flush_interval = 100000000};
    struct fastspool *store = calloc(1, sizeof(*store));
    struct stat of_spool, of_runtime;

    strcpy(store->spool, fs->spool);
    snprintf(store->runtime, sizeof(store->runtime), "%.64s/second", fixture_directory);
    snprintf(store->state, sizeof(store->state), "%.64s/cut", fixture_directory);
    must(mkdir(store->runtime, 0700) == 0, "make a runtime directory");
    store->spool_fd = dup(fs->spool_fd);
    store->runtime_fd = open(store->runtime, O_RDONLY | O_DIRECTORY);
    store->segment_fd = store->locks_fd = store->presence_fd = -1;
    must(segment_create(store->runtime_fd, store->spool_fd, &config, error) == 0, error);
    must(fstat(store->spool_fd, &of_spool) == 0 && fstat(store->runtime_fd, &of_runtime) == 0, "look at both");
    must(segment_open(store, &of_spool, &of_runtime, error) == 0, error);
    return store;
}

/* Run @work in a child, whose death is a loss. */
static void in_child(void (*work)(struct fastspool *store, uint64_t number, unsigned seed), struct fastspool *store,
                     uint64_t number, unsigned seed)
{
    int status;
    pid_t pid = fork();

    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        work(store, number, seed);
        _exit(0);
    }
    must(pid > 0 && waitpid(pid, &status, 0) == pid && (status == 0 || WIFSIGNALED(status)), "a child failed");
    if (status != 0)
        lost("%s", WTERMSIG(status) == SIGALRM ? "a recovery does not end" : strsignal(WTERMSIG(status)));
}

/* The power fails again at some writes of a recovery, and the next recovery must keep the promises too. */
static void cut_recovery(struct fastspool *store, uint64_t cut, unsigned seed)
{
    struct event *events;
    struct recovered recovered;

    record_nested(store->state);
    struct disk *disk = disk_new();
    disk_load(disk, store->state);
    bool whole = recover(store, &recovered); /* if not, check_state() reports it */
    uint64_t count = record_nested_end(&events);
    snprintf(store->state, sizeof(store->state), "%.64s/again", fixture_directory);
    for (uint64_t i = 0; whole && i < count && !found(); i++) {
        disk_play(disk, &events[i]);
        if ((uint64_t)rand_r(&seed) % count < NESTED) {
            disk_cut(disk, store->state, &seed);
            check_state(store, cut);
            counts->nested++;
        }
    }
}

/* Cut the power @count times, evenly over the run, and again during some of the recoveries. */
static void cut_power(struct fastspool *store, uint64_t count, unsigned seed)
{
    struct disk *disk = disk_new();
    uint64_t events = *record_count, done = 0;

    for (uint64_t cut = 1; cut <= events && !found(); cut++) {
        disk_play(disk, &record_events[cut - 1]);
        for (; done * events < cut * count && !found(); done++) {
            disk_cut(disk, store->state, &seed);
            if (done % 16 == 0)
                in_child(cut_recovery, store, cut, (unsigned)rand_r(&seed));
            if (found())
                break;
            if (done % 16 == 0)
                disk_cut(disk, store->state, &seed);
            check_state(store, cut);
            if (done % 8 == 0) /* a second recovery of the disk that the first one left must pass too */
                check_state(store, cut);
        }
    }
    disk_free(disk);
}

/* ---- all runs ---- */

static void *shared_memory(size_t size)
{
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    must(memory != MAP_FAILED, "map memory");
    return memory;
}

int main(int argc, char **argv)
{
    static const struct option options[] = {{"states", required_argument, NULL, 's'},
                                            {"seed", required_argument, NULL, 'r'},
                                            {"fault", required_argument, NULL, 'f'},
                                            {"must-find", no_argument, NULL, 'm'},
                                            {"little-memory", no_argument, NULL, 'l'},
                                            {"view", no_argument, NULL, 'v'},
                                            {0}};
    uint64_t wanted = getenv("FASTSPOOL_TEST_LONG") ? 200000 : 3000;
    enum record_fault fault = FAULT_NONE;
    unsigned seed = 1;
    bool small = false, view = false;

    for (int option; (option = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        if (option == 's')
            wanted = strtoull(optarg, NULL, 10);
        else if (option == 'r')
            seed = (unsigned)strtoul(optarg, NULL, 10);
        else if (option == 'f')
            fault = strcmp(optarg, "no-sync") == 0 ? FAULT_NO_SYNC : FAULT_SWAPPED;
        else if (option == 'm')
            must_find = true;
        else if (option == 'l')
            small = true;
        else if (option == 'v')
            view = true;
        else
            return 2;
    }
    for (size_t i = 0; i < sizeof(noise); i++)
        noise[i] = (char)rand();
    setlinebuf(stdout); /* nothing is lost with a child, and nothing is said twice */
    promises = shared_memory(sizeof(*promises));
    counts = shared_memory(sizeof(*counts));
    for (unsigned r = 0; r < RUNS; r++) {
        bool failing = r / 3;
        uint64_t before = counts->states;
        run((enum fastspool_durability)(r % 3), failing, small, view, fault);
        struct fastspool *store = second_store();
        in_child(cut_power, store, wanted / RUNS + 1, seed + r);
        fixture_detach(store);
        printf("%s%s%s: %lu events, %lu files evicted and %lu paged in, %lu states recovered, %lu losses so far\n",
               modes[r % 3], failing ? ", an fdatasync fails now and then" : "", small ? ", little memory" : "",
               (unsigned long)*record_count, (unsigned long)fs->header->residency.evictions,
               (unsigned long)fs->header->residency.brought_back, (unsigned long)(counts->states - before),
               (unsigned long)counts->losses);
        must(!small || fs->header->residency.evictions > 0, "nothing was evicted");
        fixture_teardown();
        if (found())
            break;
    }
    printf(
        "%lu states, %lu of them left by a power cut in a recovery, %lu batches recovered from the journal, %lu "
        "losses\n",
        (unsigned long)counts->states, (unsigned long)counts->nested, (unsigned long)counts->batches,
        (unsigned long)counts->losses);
    return must_find ? counts->losses == 0 : counts->losses != 0;
}
