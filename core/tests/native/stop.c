/* SPDX-License-Identifier: Apache-2.0 */
/*
 * stop.c - by_stop with work outstanding: what waits is cancelled, what a
 * done callback starts again is cancelled again, and it ends in a bounded
 * time even when a pool call hangs.
 */
#include "check.h"

#include <sys/socket.h>

static struct by_loop *loop;
static struct by_io receive, timer;
static struct by_work hung;
static struct iovec iov;
static struct msghdr msg;
static char byte;
static int sockets[2], cancels;
static bool hang;

static void cancelled(struct by_io *io, int result)
{
    CHECK_EQ(result, -ECANCELED);
    if (++cancels < 6) {
        by_io_submit(loop, io);
    }
}

static int sleep_long(struct by_work *work)
{
    (void)work;
    sleep(20);
    return 0;
}

static void never(struct by_work *work, int result)
{
    (void)work;
    (void)result;
    CHECK(false);
}

static void start(struct by_loop *on)
{
    memset(&receive, 0, sizeof(receive));
    memset(&timer, 0, sizeof(timer));
    iov = (struct iovec){ &byte, 1 };
    msg = (struct msghdr){ .msg_iov = &iov, .msg_iovlen = 1 };
    receive.op = BY_IO_RECVMSG;
    receive.fd = sockets[0];
    receive.msg = &msg;
    receive.done = cancelled;
    by_io_submit(on, &receive);
    timer.op = BY_IO_TIMER;
    timer.offset = by_clock() + 3600000000000ull;
    timer.done = cancelled;
    by_io_submit(on, &timer);
    if (hang) {
        hung.run = sleep_long;
        hung.done = never;
        by_pool_submit(on, &hung);
    }
    by_event_done(CHECK_TAG, 0);
}

static uint64_t stop_after(int argc, char **argv)
{
    uint64_t begun;

    cancels = 0;
    check_start(argc, argv);
    loop = check_loop();
    CHECK_EQ(check_on(loop, start), 0);
    usleep(2000);
    begun = by_clock();
    by_stop();
    CHECK_EQ(cancels, 7);
    return by_clock() - begun;
}

int main(int argc, char **argv)
{
    CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, sockets), 0);
    CHECK(stop_after(argc, argv) < 3000000000ull);
    hang = argc > 2;
    if (hang) {
        CHECK(stop_after(argc, argv) < 12000000000ull);
    }
    return 0;
}
