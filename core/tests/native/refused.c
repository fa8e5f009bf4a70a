/* SPDX-License-Identifier: Apache-2.0 */
/*
 * refused.c - a container's profile that refuses io_uring_setup: the loop
 * runs on epoll without being told to.
 */
#include "check.h"

#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

static void refuse(unsigned number, unsigned error)
{
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS,
                 offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, number, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | error),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = { .len = sizeof(filter) / sizeof(*filter),
                                  .filter = filter };

    CHECK_EQ(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
    CHECK_EQ(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program), 0);
}

static struct by_loop *loop;
static struct by_io io, timer;
static char data[4096];
static struct iovec iov = { data, sizeof(data) };

static void read_done(struct by_io *done, int result)
{
    (void)done;
    by_event_done(CHECK_TAG, result);
}

static void timer_done(struct by_io *done, int result)
{
    (void)done;
    CHECK_EQ(result, 0);
    by_io_submit(loop, &io);
}

static void start(struct by_loop *on)
{
    io.op = BY_IO_READV;
    io.iov = &iov;
    io.niov = 1;
    io.done = read_done;
    timer.op = BY_IO_TIMER;
    timer.offset = by_loop_now(on) + 1500000;
    timer.done = timer_done;
    by_io_submit(on, &timer);
}

int main(int argc, char **argv)
{
    CHECK(argc > 2);
    refuse(__NR_io_uring_setup, !strcmp(argv[2], "ENOSYS") ? ENOSYS : EPERM);
    refuse(__NR_epoll_pwait2, EPERM);
    io.fd = open("/dev/zero", O_RDONLY);
    CHECK_EQ(by_start(0), 0);
    loop = check_loop();
    CHECK(!by_loop_has_ring(loop));
    CHECK_EQ(check_on(loop, start), 4096);
    check_destroy(loop);
    by_stop();
    return 0;
}
