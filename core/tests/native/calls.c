/* SPDX-License-Identifier: Apache-2.0 */
/*
 * calls.c - how many system calls the ring needs: the process traces itself
 * and counts io_uring_enter.  x86-64 only; elsewhere it checks nothing.
 */
#include "check.h"

#if !defined(__x86_64__)
int main(void)
{
    return 0;
}
#else

#include <fcntl.h>
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/wait.h>

enum { DEPTH = 32, ROUNDS = 100 };

static struct by_io ios[DEPTH];
static struct iovec vectors[DEPTH];
static char data[DEPTH][4096];
static int fd, left, rounds = ROUNDS;

static void start_round(struct by_loop *loop);

static void read_done(struct by_io *io, int result)
{
    (void)io;
    CHECK_EQ(result, 4096);
    if (--left == 0) {
        if (--rounds) {
            start_round(by_loop_current());
        } else {
            by_event_done(CHECK_TAG, 0);
        }
    }
}

static void start_round(struct by_loop *loop)
{
    left = DEPTH;
    for (int i = 0; i < DEPTH; i++) {
        vectors[i] = (struct iovec){ data[i], 4096 };
        ios[i].op = BY_IO_READV;
        ios[i].fd = fd;
        ios[i].iov = &vectors[i];
        ios[i].niov = 1;
        ios[i].offset = (uint64_t)i * 4096;
        ios[i].done = read_done;
        by_io_submit(loop, &ios[i]);
    }
}

static int child(void)
{
    char name[] = "/tmp/by-calls-XXXXXX";
    struct by_loop *loop;

    fd = mkstemp(name);
    CHECK(fd >= 0 && write(fd, data, sizeof(data)) == sizeof(data));
    unlink(name);
    CHECK_EQ(by_start(0), 0);
    loop = check_loop();
    if (!by_loop_has_ring(loop)) {
        return 77;
    }
    CHECK_EQ(check_on(loop, start_round), 0);
    check_destroy(loop);
    by_stop();
    return 0;
}

static long counted;

/* Each call stops its thread twice: before and after. */
static void count_stop(pid_t thread)
{
    struct user_regs_struct regs;

    if (ptrace(PTRACE_GETREGS, thread, 0, &regs) == 0
        && regs.orig_rax == __NR_io_uring_enter) {
        counted++;
    }
}

static int trace(pid_t first)
{
    int status;

    CHECK(waitpid(first, &status, 0) == first);
    ptrace(PTRACE_SETOPTIONS, first, 0,
           PTRACE_O_TRACECLONE | PTRACE_O_TRACESYSGOOD);
    ptrace(PTRACE_SYSCALL, first, 0, 0);
    for (;;) {
        pid_t thread = waitpid(-1, &status, __WALL);
        int signal = 0;

        CHECK(thread > 0);
        if (WIFEXITED(status)) {
            if (thread == first) {
                return WEXITSTATUS(status);
            }
            continue;
        }
        if (WIFSTOPPED(status) && WSTOPSIG(status) == (SIGTRAP | 0x80)) {
            count_stop(thread);
        } else if (WSTOPSIG(status) != SIGTRAP
                   && WSTOPSIG(status) != SIGSTOP) {
            signal = WSTOPSIG(status);
        }
        ptrace(PTRACE_SYSCALL, thread, 0, signal);
    }
}

int main(void)
{
    pid_t first = fork();
    int code;

    if (first == 0) {
        CHECK_EQ(ptrace(PTRACE_TRACEME, 0, 0, 0), 0);
        raise(SIGSTOP);
        exit(child());
    }
    code = trace(first);
    counted /= 2;
    fprintf(stderr, "%ld calls for %d reads\n", counted, DEPTH * ROUNDS);
    CHECK(code == 0 || code == 77);
    /* Beside the rounds: arming the wake-up, sleeping before and after. */
    CHECK(code == 77 || counted <= ROUNDS + 10);
    return 0;
}
#endif
