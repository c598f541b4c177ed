/* SPDX-License-Identifier: MIT
 *
 * Locks of processes that take them through the kernel, or through the library, or both at once.
 *
 *      locks DIRECTORY FIRST SECOND [--random SEED COUNT] [SCENARIO...]
 *
 * FIRST and SECOND are `kernel` or `library`: who the actors A and C are, and B and D.  A library actor executes this
 * program with LD_PRELOAD; the configuration has to name it as `program`.
 *
 * Happy path: the master plays scenarios, and prints each step with its answer.  A step is "ACTOR COMMAND ARGUMENT...".
 * The actors are processes that do one command at a time; E and F are those that `fork` makes.  The output must be the
 * same on the view, for each pair of kinds, as for two kernel actors on a real file system: compare.py runs both.
 * --random plays COUNT random steps, none of which waits.
 *
 * Failure modes: an actor that doesn't answer within SECONDS is said to hang, and is killed.
 */
#include "../asleep.h"
#include "../random.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define ACTORS   6   /* A to F */
#define SLOTS_AT 20  /* descriptor of an actor's slot 0 */
#define PIPES_AT 500 /* of an actor's pipes */
#define SECONDS  10  /* for an answer, on a busy machine */
#define WAITING  150 /* ms asleep in the call, without an answer: it waits */
#define LINE     200

/* ---- the actor ---- */

static const char *const kinds[] = {[F_RDLCK] = "r", [F_WRLCK] = "w", [F_UNLCK] = "u"};

static void handler(int number)
{
    (void)number;
}

/* @what is r, w or u, and then c or e for an offset from the position or the end. */
static struct flock range(const char *what, long long start, long long length)
{
    struct flock lock = {.l_type = what[0] == 'r'   ? F_RDLCK
                                   : what[0] == 'w' ? F_WRLCK
                                   : what[0] == 'u' ? F_UNLCK
                                                    : 99,
                         .l_whence = what[1] == 'c'   ? SEEK_CUR
                                     : what[1] == 'e' ? SEEK_END
                                                      : SEEK_SET,
                         .l_start = start,
                         .l_len = length};
    return lock;
}

static void do_lock(const char *command, int fd, const char *what, long long start, long long length, char *answer)
{
    bool ofd = command[0] == 'o';
    struct flock lock = range(what, start, length);
    int number = strcmp(command + ofd, "get") == 0    ? (ofd ? F_OFD_GETLK : F_GETLK)
                 : strcmp(command + ofd, "wait") == 0 ? (ofd ? F_OFD_SETLKW : F_SETLKW)
                                                      : (ofd ? F_OFD_SETLK : F_SETLK);

    if (fcntl(fd, number, &lock) < 0)
        snprintf(answer, LINE, "%s", strerrorname_np(errno));
    else if (number != F_GETLK && number != F_OFD_GETLK)
        snprintf(answer, LINE, "0");
    else if (lock.l_type == F_UNLCK)
        snprintf(answer, LINE, "none");
    else
        snprintf(answer, LINE, "%s %lld %lld of %d", kinds[lock.l_type], (long long)lock.l_start, (long long)lock.l_len,
                 (int)lock.l_pid);
}

static int place(int low, int slot)
{
    if (low < 0)
        return -1;
    int fd = dup2(low, SLOTS_AT + slot);
    close(low);
    return fd < 0 ? -1 : 0;
}

static int do_plain(const char *command, char words[5][LINE])
{
    int slot = atoi(words[0]);
    int fd = SLOTS_AT + slot;

    if (strcmp(command, "open") == 0)
        return place(open(words[1],
                          (strcmp(words[2], "r") == 0   ? O_RDONLY
                           : strcmp(words[2], "w") == 0 ? O_WRONLY
                                                        : O_RDWR) |
                              O_CREAT,
                          0644),
                     slot);
    if (strcmp(command, "close") == 0)
        return close(fd);
    if (strcmp(command, "dup") == 0)
        return dup2(fd, SLOTS_AT + atoi(words[1])) < 0 ? -1 : 0;
    if (strcmp(command, "write") == 0)
        return (int)write(fd, "0123456789012345678901234567890123456789", (size_t)atoi(words[1]));
    if (strcmp(command, "unlink") == 0)
        return unlink(words[0]);
    if (strcmp(command, "rename") == 0)
        return rename(words[0], words[1]);
    if (strcmp(command, "link") == 0)
        return link(words[0], words[1]);
    if (strcmp(command, "flock") == 0)
        return flock(fd, (words[1][0] == 's' ? LOCK_SH : words[1][0] == 'e' ? LOCK_EX : LOCK_UN) | LOCK_NB);
    errno = ENOSYS;
    return -1;
}

static int command_end(int actor, int end)
{
    return PIPES_AT + 4 * actor + end;
}
static int answer_end(int actor, int end)
{
    return PIPES_AT + 4 * actor + 2 + end;
}

static char program[4096];

static void live(int self);

/* Commands that end or double the process.  Returns false for any other. */
static bool do_life(int self, const char *command, char words[5][LINE], char *answer)
{
    char number[12];

    if (strcmp(command, "exit") == 0)
        _exit(0);
    if (strcmp(command, "exec") == 0) {
        snprintf(number, sizeof(number), "%d", self);
        execl(program, program, "--actor", number, "again", (char *)NULL);
        _exit(8);
    }
    if (strcmp(command, "fork") != 0)
        return false;
    pid_t pid = fork();
    if (pid == 0)
        live(words[0][0] - 'A');
    snprintf(answer, LINE, "forked %d", (int)pid);
    return true;
}

static void live(int self)
{
    char line[LINE], command[LINE], words[5][LINE], answer[LINE];
    struct sigaction action = {.sa_handler = handler};

    prctl(PR_SET_PDEATHSIG, 0);
    alarm(300);
    sigaction(SIGUSR1, &action, NULL);
    action.sa_flags = SA_RESTART;
    sigaction(SIGUSR2, &action, NULL);
    signal(SIGCHLD, SIG_IGN);
    for (;;) {
        ssize_t got = read(command_end(self, 0), line, LINE); /* whole lines of a fixed size */
        if (got < 0 && errno == EINTR)
            continue;
        if (got != LINE)
            _exit(0);
        memset(words, 0, sizeof(words));
        memset(answer, 0, sizeof(answer));
        sscanf(line, "%199s %199s %199s %199s %199s", command, words[0], words[1], words[2], words[3]);
        const char *kind = command[0] == 'o' && strcmp(command, "open") != 0 ? command + 1 : command;
        if (do_life(self, command, words, answer))
            ;
        else if (strcmp(kind, "lock") == 0 || strcmp(kind, "wait") == 0 || strcmp(kind, "get") == 0)
            do_lock(command, SLOTS_AT + atoi(words[0]), words[1], atoll(words[2]), atoll(words[3]), answer);
        else
            snprintf(answer, LINE, "%s", do_plain(command, words) < 0 ? strerrorname_np(errno) : "0");
        if (write(answer_end(self, 1), answer, LINE) != LINE)
            _exit(9);
    }
}

/* ---- the master ---- */

static const char *kind_of[2]; /* of A and C, of B and D */
static const char *directory;
static pid_t pids[ACTORS];

static void start(int actor)
{
    char number[12];

    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        snprintf(number, sizeof(number), "%d", actor);
        if (chdir(directory) < 0)
            _exit(7);
        if (strcmp(kind_of[actor % 2], "library") == 0) {
            setenv("LD_PRELOAD", "libfastspool.so", 1);
            setenv("LOCKS_DIRECTORY", directory, 1);
        }
        execl(program, program, "--actor", number, (char *)NULL);
        _exit(8);
    }
    pids[actor] = pid;
}

static void make_pipes(void)
{
    for (int i = 0; i < 2 * ACTORS; i++) {
        int ends[2];
        if (pipe(ends) < 0 || dup2(ends[0], PIPES_AT + 2 * i) < 0 || dup2(ends[1], PIPES_AT + 2 * i + 1) < 0) {
            perror("locks: pipe");
            exit(2);
        }
        close(ends[0]);
        close(ends[1]);
    }
}

/* E and F are grandchildren, which only a pidfd tells of; they reap themselves. */
static void wait_for_end(pid_t pid)
{
    for (int i = 0; i < SECONDS * 1000; i++) {
        if (waitpid(pid, NULL, WNOHANG) == pid || kill(pid, 0) < 0)
            return;
        usleep(1000);
    }
    printf("    a process does not end\n");
}

static void end_actor(int actor)
{
    if (!pids[actor])
        return;
    kill(pids[actor], SIGKILL);
    wait_for_end(pids[actor]);
    pids[actor] = 0;
}

/* Name the process of an answer such as "w 0 5 of 1234". */
static void name_process(char *answer)
{
    char *pid = strstr(answer, " of ");

    if (!pid)
        return;
    int number = atoi(pid + 4);
    for (int a = 0; a < ACTORS; a++) {
        if (pids[a] && pids[a] == number) {
            snprintf(pid + 4, 8, "%c", 'A' + a);
            return;
        }
    }
    snprintf(pid + 4, 16, "%s", number > 0 ? "somebody" : number < 0 ? "-1" : "0");
}

static bool receive(int actor, int milliseconds, char *answer)
{
    struct pollfd ready = {.fd = answer_end(actor, 0), .events = POLLIN};

    if (poll(&ready, 1, milliseconds) <= 0)
        return false;
    if (read(answer_end(actor, 0), answer, LINE) != LINE)
        exit(2);
    if (strncmp(answer, "forked ", 7) == 0)
        strcpy(answer, "0");
    name_process(answer);
    return true;
}

/* The answer of a call that may wait.  False: it waits, and has begun to. */
static bool receive_or_wait(int actor, char *answer)
{
    for (int i = 0; i < SECONDS * 1000 && !asleep_in(pids[actor], SYS_fcntl); i++) {
        if (receive(actor, 1, answer))
            return true;
    }
    return receive(actor, WAITING, answer);
}

static void send_command(int actor, const char *command)
{
    char line[LINE] = "";

    if (!pids[actor])
        start(actor);
    snprintf(line, sizeof(line), "%s", command);
    if (write(command_end(actor, 1), line, LINE) != LINE)
        exit(2);
}

/* fork: the answer holds the child's pid, which name_process() needs. */
static void do_fork(int actor, const char *command, char *answer)
{
    struct pollfd ready = {.fd = answer_end(actor, 0), .events = POLLIN};
    int child = command[5] - 'A';

    send_command(actor, command);
    if (poll(&ready, 1, SECONDS * 1000) <= 0 || read(answer_end(actor, 0), answer, LINE) != LINE) {
        strcpy(answer, "hangs");
        return;
    }
    pids[child] = (pid_t)atoi(answer + 7);
    strcpy(answer, "0");
}

static void play_life(int actor, const char *command, char *answer)
{
    pid_t pid = pids[actor];

    strcpy(answer, "0");
    if (strcmp(command, "kill") == 0) {
        kill(pid, SIGKILL);
    } else {
        send_command(actor, "exit");
    }
    wait_for_end(pid);
    pids[actor] = 0;
}

/* One step.  Ends with & : it is expected to wait, and `done` takes its answer later. */
static void play(const char *step, char *answer)
{
    int actor = step[0] - 'A';
    char command[LINE];

    snprintf(command, sizeof(command), "%s", step + 2);
    bool waits = strchr(command, '&') != NULL;
    if (strcmp(command, "kill") == 0 || strcmp(command, "exit") == 0) {
        play_life(actor, command, answer);
    } else if (strcmp(command, "signal") == 0 || strcmp(command, "restart") == 0) {
        kill(pids[actor], command[0] == 's' ? SIGUSR1 : SIGUSR2);
        strcpy(answer, "0");
    } else if (strcmp(command, "waits") == 0) {
        if (!receive(actor, WAITING, answer))
            strcpy(answer, "yes");
    } else if (strcmp(command, "done") == 0) {
        if (!receive(actor, SECONDS * 1000, answer))
            strcpy(answer, "hangs");
    } else if (strncmp(command, "fork", 4) == 0) {
        do_fork(actor, command, answer);
    } else if (strcmp(command, "exec") == 0) {
        send_command(actor, command);
        send_command(actor, "flock 99 u"); /* the new image answers */
        strcpy(answer, receive(actor, SECONDS * 1000, answer) ? "0" : "hangs");
    } else {
        send_command(actor, command);
        if (waits ? !receive_or_wait(actor, answer) : !receive(actor, SECONDS * 1000, answer))
            strcpy(answer, waits ? "waits" : "hangs");
    }
}

/* ---- scenarios: a name, then steps, separated by semicolons ---- */

#define BOTH "A open 0 f rw; B open 0 f rw; "

static const char *const scenarios[][2] = {
    {"write", BOTH "A lock 0 w 0 10; B lock 0 w 0 10; B lock 0 r 5 1; B lock 0 r 9 100; B lock 0 w 10 5; B get 0 r 0 0;"
                   "A get 0 w 0 0; A lock 0 u 0 0; B lock 0 w 0 10; A lock 0 r 3 1; A get 0 r 3 1"},
    {"read", BOTH "A lock 0 r 0 10; B lock 0 r 0 10; B lock 0 w 5 1; A lock 0 w 5 1; B get 0 r 0 0; B get 0 w 0 0;"
                  "A lock 0 u 0 10; B lock 0 w 5 1; A lock 0 r 5 1; A lock 0 r 4 1; A get 0 r 0 0"},
    {"upgrade and downgrade",
     BOTH "A lock 0 w 0 10; A lock 0 r 0 5; B lock 0 r 0 5; B lock 0 r 4 2; A lock 0 w 0 5;"
          "B lock 0 u 0 0; A lock 0 w 0 5; B lock 0 r 0 1; A lock 0 w 2 3; A get 0 w 0 0; B get 0 w 0 0"},
    {"ranges",
     BOTH "A lock 0 w 0 100; A lock 0 u 40 20; B lock 0 w 40 20; B lock 0 w 39 1; B lock 0 w 60 1; B lock 0 r 40 21;"
          "A lock 0 r 10 10; B lock 0 r 10 10; B lock 0 r 9 1; B lock 0 w 10 1; A lock 0 w 100 0; B lock 0 w 100000 1;"
          "B lock 0 u 0 0; A lock 0 w 0 0; B get 0 r 0 0; B get 0 r 5000000 1; A lock 0 u 5 0; B lock 0 w 5 0;"
          "B get 0 w 0 0; A get 0 r 0 0; A lock 0 w 4294967295 1; A lock 0 w 0 4294967296"},
    {"ranges that are refused", BOTH "A lock 0 w -1 1; A lock 0 w 5 -6; A lock 0 w 5 -5; B get 0 w 0 0; A lock 0 x 0 1;"
                                     "A get 0 u 0 1; A lock 0 wc -1 1; A lock 99 w 0 1; B lock 0 w 5 1"},
    {"whence",
     BOTH "A write 0 20; A lock 0 wc 0 1; B get 0 w 0 0; A lock 0 we -5 3; B get 0 w 0 18; B lock 0 w 20 1;"
          "A lock 0 wc -20 5; B get 0 r 0 10; A lock 0 we -20 0; B get 0 r 0 0; A lock 0 uc 0 0; B lock 0 w 20 0;"
          "A lock 0 we 5 -3; B get 0 r 0 0"},
    {"modes",
     "A open 0 f rw; A open 1 f r; A open 2 f w; B open 0 f r; B open 1 f w; A lock 1 w 0 1; A lock 2 r 0 1;"
     "A lock 1 r 0 1; A lock 2 w 5 1; B lock 0 r 0 1; B lock 1 w 0 1; B lock 0 r 5 1; B get 0 w 5 1; B get 1 r 5 1;"
     "A get 1 w 0 1; A wait 1 w 0 1"},
    {"close", BOTH "A lock 0 w 0 10; A close 0; B lock 0 w 0 10"},
    {"close of another",
     BOTH "A open 1 f r; A lock 0 w 0 10; B lock 0 w 0 1; A close 1; B lock 0 w 0 1; B get 0 w 0 0"},
    {"close of a duplicate",
     BOTH "A dup 0 1; A lock 0 w 0 10; A close 1; B lock 0 w 0 10; A lock 0 r 0 1; A lock 0 r 10 1"},
    {"close of another file",
     BOTH "A open 1 g rw; A lock 0 w 0 10; A close 1; B lock 0 w 0 10; B open 1 g rw; A close 0;"
          "B lock 0 w 0 10; B lock 1 w 0 10"},
    {"close by a new file in its place", BOTH "A open 1 g rw; A lock 0 w 0 10; A dup 1 0; B lock 0 w 0 10"},
    {"open and close by name", BOTH "A lock 0 w 0 10; A open 1 f r; B lock 0 w 0 1; A dup 0 1; B lock 0 w 0 1"},
    {"link", BOTH "A link f h; A lock 0 w 0 10; B open 1 h rw; B lock 1 w 0 10; B get 1 w 0 0; A open 1 h r; A close 1;"
                  "B lock 1 w 0 10"},
    {"rename", BOTH "A lock 0 w 0 10; A rename f h; B open 1 h rw; B lock 1 w 0 10; B open 2 f rw; B lock 2 w 0 10;"
                    "A unlink h; B lock 0 w 0 10; A close 0; B lock 0 w 0 10; B lock 1 w 5 10"},
    {"unlinked",
     BOTH "B unlink f; A lock 0 w 0 10; B lock 0 w 0 1; B open 1 f rw; B lock 1 w 0 1; A kill; B lock 0 w 0 1"},
    {"death", BOTH "A lock 0 w 0 10; A kill; B lock 0 w 0 10; B get 0 w 0 0"},
    {"exit", BOTH "A lock 0 r 0 10; B lock 0 w 0 1; A exit; B lock 0 w 0 10"},
    {"death while another waits",
     BOTH "A lock 0 w 0 10; B wait 0 w 0 10 &; A kill; B done; C open 0 f rw; C lock 0 r 0 1"},
    {"fork", BOTH "A lock 0 w 0 10; A fork E; E lock 0 w 0 10; E lock 0 r 0 1; E get 0 r 0 0; A get 0 r 0 0; E close 0;"
                  "B lock 0 w 0 1; E exit; B lock 0 w 0 1; A close 0; B lock 0 w 0 1"},
    {"fork, and the child is killed", BOTH "A lock 0 w 0 10; A fork E; E kill; B lock 0 w 0 1; A kill; B lock 0 w 0 1"},
    {"fork, and the parent dies",
     BOTH "A lock 0 w 0 10; A fork E; A kill; B lock 0 w 0 10; E lock 0 w 0 1; E lock 0 w 10 1;"
          "B lock 0 w 10 1; E kill; B lock 0 w 10 1"},
    {"the child's lock", BOTH "A fork E; E lock 0 w 0 10; A close 0; B lock 0 w 0 1; B get 0 w 0 0; A open 0 f rw;"
                              "A lock 0 r 0 1; E exit; B lock 0 w 0 1; A lock 0 r 0 1"},
    {"fork of a fork",
     BOTH "A fork E; E fork F; F lock 0 w 0 5; E lock 0 w 5 5; A lock 0 w 4 2; B get 0 w 0 5; B get 0 w 5 5;"
          "F kill; B lock 0 w 0 5; E kill; B lock 0 w 0 10"},
    {"exec", BOTH "A lock 0 w 0 10; A exec; B lock 0 w 0 10; B get 0 w 0 0; A lock 0 r 0 5; B lock 0 r 0 5; A close 0;"
                  "B lock 0 w 0 10"},
    {"exec without locks", BOTH "A exec; A lock 0 w 0 10; B lock 0 w 0 10; A close 0; B lock 0 w 0 10"},
    {"dup",
     BOTH "A dup 0 1; A lock 1 w 0 10; B lock 0 w 0 1; A lock 0 u 0 5; B lock 0 w 0 5; A close 0; B lock 0 w 5 5"},
    {"reader waits for a downgrade",
     BOTH "A lock 0 w 0 10; B wait 0 r 0 10 &; A lock 0 r 0 10; B done; A lock 0 w 0 1"},
    {"waits for a part",
     BOTH "A lock 0 w 0 10; B wait 0 w 5 5 &; A lock 0 u 0 5; B waits; A lock 0 u 5 5; B done; A lock 0 r 5 1"},
    {"waits for a close", BOTH "A lock 0 w 0 10; B wait 0 w 0 10 &; A close 0; B done; C open 0 f rw; C lock 0 w 0 1"},
    {"waits for several",
     BOTH "C open 0 f rw; A lock 0 r 0 5; C lock 0 r 5 5; B wait 0 w 0 10 &; A close 0; B waits; C kill;"
          "B done; A open 0 f rw; A lock 0 r 9 1"},
    {"killed while waiting",
     BOTH "C open 0 f rw; A lock 0 w 0 10; B wait 0 w 0 10 &; B kill; A close 0; C lock 0 w 0 10;"
          "D open 0 f rw; D lock 0 w 0 1"},
    {"killed while others wait",
     BOTH "C open 0 f rw; D open 0 f rw; A lock 0 w 0 10; B wait 0 w 0 10 &; D wait 0 w 0 10 &;"
          "B kill; A close 0; D done; C lock 0 w 0 1; D close 0; C lock 0 w 0 1"},
    {"the holder dies while a dead one waited",
     BOTH "D open 0 f rw; A lock 0 w 0 10; B wait 0 w 0 10 &; B kill; A kill;"
          "D lock 0 w 0 10"},
    {"interrupted",
     BOTH "C open 0 f rw; A lock 0 w 0 10; B wait 0 w 0 10 &; B signal; B done; A close 0; C lock 0 w 0 10;"
          "C close 0; B lock 0 w 0 10"},
    {"interrupted and again",
     BOTH "A lock 0 w 0 10; B wait 0 w 0 10 &; B signal; B done; B wait 0 w 0 10 &; B signal; B done;"
          "B wait 0 r 0 10 &; A lock 0 r 0 10; B done; A lock 0 w 0 1"},
    {"restarted",
     BOTH "A lock 0 w 0 10; B wait 0 w 0 10 &; B restart; B waits; A close 0; B done; A open 0 f rw; A lock 0 r 0 1"},
    {"readers wait together",
     BOTH "C open 0 f rw; D open 0 f rw; A lock 0 w 0 10; B wait 0 r 0 10 &; C wait 0 r 0 10 &;"
          "D wait 0 r 5 1 &; A close 0; B done; C done; D done; A open 0 f rw; A lock 0 w 0 1"},
    {"waiting does not hold up others",
     BOTH "C open 0 f rw; C open 1 g rw; D open 0 g rw; A lock 0 w 0 10; B wait 0 w 0 10 &;"
          "D wait 0 w 50 1; C lock 1 w 0 10; D lock 0 w 0 1; C lock 0 w 20 1; C write 1 10; B waits;"
          "A close 0; B done"},
    {"several holders",
     BOTH "C open 0 f rw; D open 0 f rw; A lock 0 w 0 10; B lock 0 w 20 10; D lock 0 r 40 10; C lock 0 r 45 10;"
          "C get 0 w 0 1; C get 0 w 20 1; C get 0 r 20 0; C get 0 w 40 1; A get 0 w 20 1; B get 0 w 0 1; B get 0 r 0 0;"
          "A get 0 w 41 1; A get 0 w 52 1; A kill; D get 0 w 20 1; D get 0 w 52 1; C get 0 w 45 1"},
    {"deadlock", BOTH "A lock 0 w 0 1; B lock 0 w 1 1; A wait 0 w 1 1 &; B wait 0 w 0 1 &; B kill; A done"},
    {"unlock of nothing",
     BOTH "A lock 0 u 0 0; B lock 0 w 0 1; A lock 0 u 0 0; A lock 0 r 0 1; B lock 0 u 0 0; A lock 0 r 0 1"},
    {"files",
     "A open 0 f rw; A open 1 g rw; B open 0 f rw; B open 1 g rw; A lock 0 w 0 10; B lock 1 w 0 10; A lock 1 r 0 1;"
     "B lock 0 r 0 1; A get 1 r 0 0; B get 0 r 0 0; A close 0; B lock 0 w 0 1; A lock 1 r 0 1"},
    {"locks of the open file description", BOTH
     "A olock 0 w 0 10; B olock 0 w 0 10; B oget 0 w 0 0; B lock 0 w 0 1; A lock 0 w 0 1; A open 1 f rw; A olock 1 r 0 "
     "1;"
     "A dup 0 2; A close 0; B olock 0 w 0 1; A close 1; B olock 0 w 0 1; A close 2; B olock 0 w 0 10; A open 0 f rw;"
     "A olock 0 r 0 1; A get 0 r 0 0; B lock 0 w 20 5; A olock 0 w 20 5; A olock 0 w 25 5; B lock 0 w 25 5"},
    {"description's locks and forks",
     BOTH "A olock 0 w 0 10; A fork E; E olock 0 w 0 5; E olock 0 u 0 5; B olock 0 w 0 5; B olock 0 w 5 5;"
          "A kill; B olock 0 w 5 5; E kill; B olock 0 w 5 5"},
    {"description's locks and exec",
     BOTH "A olock 0 w 0 10; A exec; B olock 0 w 0 10; A olock 0 u 0 5; B olock 0 w 0 5; A kill;"
          "B olock 0 w 0 10"},
    {"description's locks and waiting",
     BOTH "A olock 0 w 0 10; B owait 0 w 0 10 &; A close 0; B done; A open 0 f rw;"
          "A owait 0 w 0 1 &; A signal; A done; A owait 0 w 0 1 &; A kill; B olock 0 u 0 0; C open 0 f rw;"
          "C olock 0 w 0 10"},
    {"description's locks and processes'",
     BOTH "A olock 0 r 0 10; B lock 0 r 0 10; B lock 0 w 0 1; A lock 0 w 5 1; B close 0; A lock 0 w 5 1;"
          "A olock 0 u 0 0; A lock 0 w 5 1"},
    {"flock", BOTH "A flock 0 e; B flock 0 e; B flock 0 s; A dup 0 1; A close 0; B flock 0 e; A close 1; B flock 0 e;"
                   "A open 0 f r; A flock 0 s; B kill; A flock 0 s; A fork E; A kill; C open 0 f rw; C flock 0 e; E "
                   "kill; C flock 0 e"},
    {"flock and record locks",
     BOTH "A flock 0 e; B lock 0 w 0 1; A lock 0 w 0 1; A lock 0 w 1 1; B flock 0 s; A close 0; B flock 0 s"},
};

#define SCENARIOS (int)(sizeof(scenarios) / sizeof(scenarios[0]))

static void play_scenario(const char *name, const char *steps)
{
    char path[4200], answer[LINE];
    char *copy = strdup(steps), *rest = copy;
    int count = 0;

    make_pipes();
    for (char *step; (step = strsep(&rest, ";"));) {
        while (isspace((unsigned char)*step))
            step++;
        if (!*step)
            continue;
        play(step, answer);
        printf("%s %d: %s = %s\n", name, ++count, step, answer);
        if (strcmp(answer, "hangs") == 0)
            break;
    }
    free(copy);
    for (int a = ACTORS - 1; a >= 0; a--)
        end_actor(a);
    for (const char *file = "fgh"; *file; file++) {
        snprintf(path, sizeof(path), "%s/%c", directory, *file);
        unlink(path);
    }
}

/* ---- many owners at once ---- */

#define OWNERS 200

static int held_bytes(void)
{
    char step[LINE], answer[LINE];
    int held = 0;

    for (int i = 0; i < OWNERS; i++) {
        snprintf(step, sizeof(step), "A lock 0 w %d 1", i);
        play(step, answer);
        held += strcmp(answer, "EAGAIN") == 0;
        snprintf(step, sizeof(step), "A lock 0 u %d 1", i);
        play(step, answer);
    }
    return held;
}

static pid_t hold_byte(const char *path, int byte, int ready)
{
    pid_t pid = fork();

    if (pid == 0) {
        struct flock lock = {.l_type = F_WRLCK, .l_start = byte, .l_len = 1};
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        int fd = open(path, O_RDWR);
        char result = fd >= 0 && fcntl(fd, F_SETLK, &lock) == 0 ? '+' : '-';
        if (write(ready, &result, 1) == 1)
            pause();
        _exit(0);
    }
    return pid;
}

static void many_owners(void)
{
    char path[4200], answer[LINE], results[OWNERS];
    pid_t owners[OWNERS];
    int ready[2], good = 0;

    make_pipes();
    play("A open 0 f rw", answer);
    printf("owners 1: open %s\n", answer);
    snprintf(path, sizeof(path), "%s/f", directory);
    if (pipe(ready) < 0)
        exit(2);
    fflush(stdout);
    for (int i = 0; i < OWNERS; i++)
        owners[i] = hold_byte(path, i, ready[1]);
    for (int i = 0; i < OWNERS; i++)
        good += read(ready[0], results + i, 1) == 1 && results[i] == '+';
    printf("owners 2: %d locked, %d held\n", good, held_bytes());
    for (int i = 0; i < OWNERS; i += 2)
        kill(owners[i], SIGKILL);
    for (int i = 0; i < OWNERS; i += 2)
        waitpid(owners[i], NULL, 0);
    printf("owners 3: half of them dead, %d held\n", held_bytes());
    for (int i = 1; i < OWNERS; i += 2)
        kill(owners[i], SIGKILL);
    for (int i = 1; i < OWNERS; i += 2)
        waitpid(owners[i], NULL, 0);
    printf("owners 4: all dead, %d held\n", held_bytes());
    end_actor(0);
    unlink(path);
    close(ready[0]);
    close(ready[1]);
}

/* ---- random steps ---- */

static uint64_t state;

static unsigned some(unsigned below)
{
    return (unsigned)(random_next(&state) % below);
}

static bool is_open[ACTORS][3]; /* slots 0 and 1 are descriptors of f, slot 2 of g */

static void random_step(char *step)
{
    unsigned a = some(4), slot = some(3), dice = some(100);
    unsigned start = some(4) ? some(12) : some(5000), length = some(5) ? some(6) + 1 : 0;
    char actor = (char)('A' + a);

    if (dice < 4 || (!is_open[a][slot] && some(5))) {
        snprintf(step, LINE, "%c open %u %c rw", actor, slot, slot == 2 ? 'g' : 'f');
        is_open[a][slot] = true;
    } else if (dice < 8) {
        snprintf(step, LINE, "%c close %u", actor, slot);
        is_open[a][slot] = false;
    } else if (dice < 10) {
        snprintf(step, LINE, "%c dup 0 1", actor);
        is_open[a][1] = is_open[a][0];
    } else if (dice < 12) {
        snprintf(step, LINE, "%c kill", actor);
        memset(is_open[a], 0, sizeof(is_open[a]));
    } else if (dice < 30) {
        snprintf(step, LINE, "%c get %u %c %u %u", actor, slot, "rw"[some(2)], start, length);
    } else {
        snprintf(step, LINE, "%c lock %u %c %u %u", actor, slot, "rrwwu"[some(5)], start, length);
    }
}

static void play_random(uint64_t seed, long count)
{
    char step[LINE], answer[LINE];

    state = seed;
    make_pipes();
    for (long number = 1; number <= count; number++) {
        random_step(step);
        if (strcmp(step + 2, "kill") == 0 && !pids[step[0] - 'A'])
            continue;
        play(step, answer);
        if (strncmp(step + 2, "get", 3) == 0 && isspace((unsigned char)answer[1]))
            strcpy(answer, "a lock"); /* which of several it names is the kernel's secret */
        printf("random-%llu %ld: %s = %s\n", (unsigned long long)seed, number, step, answer);
    }
    for (int a = 0; a < ACTORS; a++)
        end_actor(a);
}

/* ---- the program ---- */

static bool is_wanted(const char *name, int count, char **names)
{
    for (int i = 0; i < count; i++) {
        if (strcmp(name, names[i]) == 0)
            return true;
    }
    return count == 0;
}

int main(int argc, char **argv)
{
    ssize_t length = readlink("/proc/self/exe", program, sizeof(program) - 1);

    if (length < 0)
        return 2;
    if (argc >= 3 && strcmp(argv[1], "--actor") == 0)
        live(atoi(argv[2]));
    if (argc < 4) {
        fprintf(stderr, "usage: locks DIRECTORY kernel|library kernel|library [--random SEED COUNT] [SCENARIO...]\n");
        return 2;
    }
    directory = argv[1];
    kind_of[0] = argv[2];
    kind_of[1] = argv[3];
    signal(SIGPIPE, SIG_IGN);
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (argc >= 7 && strcmp(argv[4], "--random") == 0) {
        play_random(strtoull(argv[5], NULL, 10), atol(argv[6]));
        return 0;
    }
    for (int i = 0; i < SCENARIOS; i++) {
        if (is_wanted(scenarios[i][0], argc - 4, argv + 4))
            play_scenario(scenarios[i][0], scenarios[i][1]);
    }
    if (is_wanted("owners", argc - 4, argv + 4))
        many_owners();
    return 0;
}
