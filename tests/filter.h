/* SPDX-License-Identifier: MIT
 *
 * A process, and all that it forks, that must not make a certain system call.
 */
#ifndef FASTSPOOL_TESTS_FILTER_H
#define FASTSPOOL_TESTS_FILTER_H

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

static inline int filter_load(struct sock_filter *code, unsigned short size, unsigned flags)
{
    struct sock_fprog program = {size, code};

    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0
               ? -1
               : (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &program);
}

/** From now on the call of @number has @answer (SECCOMP_RET_...).  @flags: of seccomp(2), SECCOMP_FILTER_FLAG_....  -1:
 *  there is no such filter. */
static inline int filter_call(unsigned number, unsigned answer, unsigned flags)
{
    struct sock_filter code[] = {BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
                                 BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, number, 0, 1), BPF_STMT(BPF_RET | BPF_K, answer),
                                 BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)};

    return filter_load(code, sizeof(code) / sizeof(*code), flags);
}

/** The same where the second argument is @command, as of fcntl(2). */
static inline int filter_command(unsigned number, unsigned command, unsigned answer)
{
    struct sock_filter code[] = {BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
                                 BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, number, 0, 3),
                                 BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[1])),
                                 BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, command, 0, 1),
                                 BPF_STMT(BPF_RET | BPF_K, answer),
                                 BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)};

    return filter_load(code, sizeof(code) / sizeof(*code), 0);
}

/** From now on the call ends the process. */
static inline int filter_forbid(unsigned number)
{
    return filter_call(number, SECCOMP_RET_KILL_PROCESS, 0);
}

#endif
