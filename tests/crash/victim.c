/* SPDX-License-Identifier: MIT
 *
 * A process dies at a chosen step, without any help from the library.
 *
 * Stores: the victim makes its mapping of the segment read-only, so each store raises SIGSEGV.  The handler counts it,
 * makes the page writable, sets the processor's trap flag and lets the one instruction run.  The handler of the trap
 * makes the page read-only again.  At the chosen store the handler makes the mapping writable, because the kernel marks
 * the lock in it when the process dies, and the process kills itself.  An instruction that stores in a loop (rep
 * movs, rep stos) would trap after each iteration.  The handler does its iterations instead, and counts one store for
 * each REPEAT_STRIDE bytes.
 *
 * System calls: the parent traces the victim, and kills it at the chosen entry or exit.
 */
#include "victim.h"

#include "fastspool.h"
#include "store/descriptions.h"
#include "store/layout.h"
#include "store/span.h"
#include "store/store.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

#define REPEAT_STRIDE 512
#define TRAP_FLAG     0x100
#define PAGE          4096
#define OPENED_MAX    16
#define LIFETIME      60 /* s: SIGALRM kills a victim that hangs, which is then LOST */

static char *segment;
static struct span_part parts[SPAN_PARTS]; /* of the segment that the victim has mapped */
static unsigned stores, last_store;

/* Pages that the running instruction may write to. */
static char *opened[OPENED_MAX];
static int opened_count;

static void protect(char *from, uint64_t size, int protection)
{
    if (syscall(SYS_mprotect, from, size, protection) != 0)
        _exit(3);
}

static void protect_all(int protection)
{
    for (unsigned i = 0; i < SPAN_PARTS; i++)
        protect(segment + parts[i].at, parts[i].size, protection);
}

static void count_store(void)
{
    if (++stores != last_store)
        return;
    protect_all(PROT_READ | PROT_WRITE);
    syscall(SYS_kill, syscall(SYS_getpid), SIGKILL);
}

/* Do a string instruction, of which the first iteration is counted already.  False: it is another instruction. */
static bool take_turns(greg_t *registers)
{
    const unsigned char *code = (const unsigned char *)registers[REG_RIP];
    size_t unit = 1, length = 2;

    if (code[0] != 0xf3)
        return false;
    if (code[1] == 0x48) {
        unit = 8;
        length = 3;
    }
    unsigned char operation = code[length - 1];
    bool moves = operation == (unit == 8 ? 0xa5 : 0xa4), sets = operation == (unit == 8 ? 0xab : 0xaa);
    if (!moves && !sets)
        return false;
    char *to = (char *)registers[REG_RDI];
    size_t left = (size_t)registers[REG_RCX] * unit;
    char *first = segment + (to - segment) / PAGE * PAGE;
    uint64_t span = (uint64_t)(to + left - first + PAGE - 1) / PAGE * PAGE;
    protect(first, span, PROT_READ | PROT_WRITE);
    while (left > 0) {
        size_t part = left < REPEAT_STRIDE ? left : REPEAT_STRIDE;
        for (size_t i = 0; i < part; i++)
            to[i] = moves ? ((const char *)registers[REG_RSI])[i] : ((const char *)&registers[REG_RAX])[i % unit];
        to += part;
        registers[REG_RSI] += moves ? (greg_t)part : 0;
        left -= part;
        if (left > 0)
            count_store();
    }
    protect(first, span, PROT_READ);
    registers[REG_RDI] = (greg_t)to;
    registers[REG_RCX] = 0;
    registers[REG_RIP] += (greg_t)length;
    return true;
}

static void on_store(int signal_number, siginfo_t *info, void *context)
{
    ucontext_t *at = context;
    char *address = info->si_addr;

    if (address < segment || address >= segment + SEGMENT_SIZE || opened_count == OPENED_MAX) {
        signal(signal_number, SIG_DFL);
        return;
    }
    if (opened_count == 0) { /* else the same instruction goes on in the next page */
        count_store();
        if (take_turns(at->uc_mcontext.gregs))
            return;
    }
    opened[opened_count] = segment + (address - segment) / PAGE * PAGE;
    protect(opened[opened_count++], PAGE, PROT_READ | PROT_WRITE);
    at->uc_mcontext.gregs[REG_EFL] |= TRAP_FLAG;
}

static void on_step(int signal_number, siginfo_t *info, void *context)
{
    ucontext_t *at = context;

    (void)signal_number;
    (void)info;
    at->uc_mcontext.gregs[REG_EFL] &= ~TRAP_FLAG;
    while (opened_count > 0)
        protect(opened[--opened_count], PAGE, PROT_READ);
}

/* Parts that were mapped meanwhile were not watched: then `least` of span.c is too small for these tests. */
static void check_span(const struct fastspool *fs)
{
    struct span_part now[SPAN_PARTS];

    span_parts(fs, now);
    if (memcmp(now, parts, sizeof(now)) != 0)
        _exit(3);
}

static void watch_stores(struct fastspool *fs, unsigned step)
{
    struct sigaction action = {.sa_flags = SA_SIGINFO | SA_NODEFER};

    segment = &WRITABLE(*fs->base);
    stores = 0;
    last_store = step;
    action.sa_sigaction = on_store;
    sigaction(SIGSEGV, &action, NULL);
    action.sa_sigaction = on_step;
    sigaction(SIGTRAP, &action, NULL);
    span_parts(fs, parts);
    protect_all(PROT_READ);
}

/* A pipe without data: end of file means that the victim and all that it forked have ended. */
static int family;

static pid_t fork_victim(struct fastspool *fs)
{
    int ends[2];

    if (pipe2(ends, O_CLOEXEC) < 0) {
        perror("pipe");
        abort();
    }
    fflush(NULL);
    descriptions_shared(fs);
    pid_t pid = fork();
    close(ends[pid == 0 ? 0 : 1]);
    family = ends[0];
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        fastspool_after_fork_child(fs);
        alarm(LIFETIME);
    } else if (pid < 0) {
        perror("fork");
        abort();
    }
    return pid;
}

/* The victim has ended with @status.  Wait for what it forked: that may live a little longer, with files open. */
static enum victim_end end_of(int status)
{
    struct pollfd end = {.fd = family};

    while (poll(&end, 1, LIFETIME * 1000) < 0 && errno == EINTR)
        ;
    close(family);
    if (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL)
        return VICTIM_KILLED;
    return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? VICTIM_DONE : VICTIM_LOST;
}

enum victim_end victim_of_stores(struct fastspool *fs, const struct deed *deed, unsigned step)
{
    int status;
    pid_t pid = fork_victim(fs);

    if (pid == 0) {
        if (deed->prepare)
            deed->prepare(fs);
        watch_stores(fs, step);
        if (deed->run)
            deed->run(fs);
        protect_all(PROT_READ | PROT_WRITE);
        check_span(fs);
        _exit(0);
    }
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    return end_of(status);
}

/* Let the traced process run to its next stop.  False: it has ended, with *@status. */
static bool next_stop(pid_t pid, int request, int *status)
{
    int deliver = WIFSTOPPED(*status) && WSTOPSIG(*status) != SIGSTOP && WSTOPSIG(*status) != (SIGTRAP | 0x80) &&
                          WSTOPSIG(*status) != SIGTRAP
                      ? WSTOPSIG(*status)
                      : 0;

    if (ptrace(request, pid, NULL, (void *)(long)deliver) < 0 && errno != ESRCH)
        return false;
    return waitpid(pid, status, 0) == pid && WIFSTOPPED(*status);
}

enum victim_end victim_of_calls(struct fastspool *fs, const struct deed *deed, unsigned step)
{
    struct user_regs_struct registers;
    int status;
    pid_t pid = fork_victim(fs);

    if (pid == 0) {
        if (deed->prepare)
            deed->prepare(fs);
        ptrace(PTRACE_TRACEME, 0, NULL, NULL);
        raise(SIGSTOP);
        if (deed->run)
            deed->run(fs);
        _exit(0);
    }
    if (waitpid(pid, &status, 0) != pid || !WIFSTOPPED(status)) {
        close(family);
        return VICTIM_LOST;
    }
    ptrace(PTRACE_SETOPTIONS, pid, NULL, (void *)(PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL));
    for (unsigned calls = 0; next_stop(pid, PTRACE_SYSCALL, &status);) {
        if (WSTOPSIG(status) != (SIGTRAP | 0x80))
            continue;
        ptrace(PTRACE_GETREGS, pid, NULL, &registers);
        if (registers.orig_rax == SYS_exit_group) {
            ptrace(PTRACE_DETACH, pid, NULL, NULL);
            waitpid(pid, &status, 0);
            break;
        }
        if (++calls == step) {
            kill(pid, SIGKILL);
            waitpid(pid, &status, 0);
            break;
        }
    }
    return end_of(status);
}
