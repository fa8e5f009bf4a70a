/* SPDX-License-Identifier: Apache-2.0 */
/*
 * streams.c - sockets, pipes and eventfds, blocking and not: what is not
 * ready waits without holding the loop up, and can be cancelled; timers.
 */
#include "check.h"

#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

static struct by_loop *loop;
static struct by_io io, timer, other;
static struct iovec iov;
static struct msghdr msg;
static char buffer[1 << 20];
static int here, there;       /* ends of what is tested */
static bool vectored;         /* READV/WRITEV in place of messages */

static void report(struct by_io *done, int result)
{
    (void)done;
    by_event_done(CHECK_TAG, result);
}

static void prepare(uint8_t op, size_t bytes)
{
    memset(&io, 0, sizeof(io));
    memset(&msg, 0, sizeof(msg));
    iov = (struct iovec){ buffer, bytes };
    msg.msg_iov = &iov;
    msg.msg_iovlen = 1;
    io.size = sizeof(io);
    io.op = op;
    io.fd = here;
    io.msg = &msg;
    io.iov = &iov;
    io.niov = 1;
    io.done = report;
}

static void start_receive(struct by_loop *on)
{
    prepare(vectored ? BY_IO_READV : BY_IO_RECVMSG, 64);
    by_io_submit(on, &io);
}

/* Runs while the receive waits: the loop is not held up. */
static void timer_fired(struct by_io *done, int result)
{
    (void)done;
    CHECK_EQ(result, 0);
    CHECK(write(there, "12345678", 8) == 8);
}

static void receive_later(struct by_loop *on)
{
    start_receive(on);
    memset(&timer, 0, sizeof(timer));
    timer.op = BY_IO_TIMER;
    timer.offset = by_loop_now(on) + 5000000;
    timer.done = timer_fired;
    by_io_submit(on, &timer);
}

static void receive_cancelled(struct by_loop *on)
{
    start_receive(on);
    by_io_cancel(on, &io);
    by_io_cancel(on, &io);   /* once is enough, twice does no harm */
}

static void cancel_later_fired(struct by_io *done, int result)
{
    (void)done;
    CHECK_EQ(result, 0);
    by_io_cancel(loop, &io);
}

static void receive_cancelled_later(struct by_loop *on)
{
    start_receive(on);
    memset(&timer, 0, sizeof(timer));
    timer.op = BY_IO_TIMER;
    timer.offset = by_loop_now(on) + 3000000;
    timer.done = cancel_later_fired;
    by_io_submit(on, &timer);
}

static void poll_in(struct by_loop *on)
{
    prepare(BY_IO_POLL, 0);
    io.flags = POLLIN;
    by_io_submit(on, &io);
    memset(&timer, 0, sizeof(timer));
    timer.op = BY_IO_TIMER;
    timer.offset = by_loop_now(on) + 1000000;
    timer.done = timer_fired;
    by_io_submit(on, &timer);
}

static void poll_cancelled(struct by_loop *on)
{
    prepare(BY_IO_POLL, 0);
    io.flags = POLLIN;
    by_io_submit(on, &io);
    by_io_cancel(on, &io);
}

static void test_pair(bool nonblocking)
{
    if (nonblocking) {
        CHECK_EQ(fcntl(here, F_SETFL, O_NONBLOCK | O_RDWR), 0);
    }
    CHECK_EQ(check_on(loop, receive_later), 8);
    CHECK_EQ(check_on(loop, receive_cancelled), -ECANCELED);
    CHECK_EQ(check_on(loop, receive_cancelled_later), -ECANCELED);
    CHECK_EQ(check_on(loop, poll_in), POLLIN);
    CHECK(read(here, buffer, 8) == 8);
    CHECK_EQ(check_on(loop, poll_cancelled), -ECANCELED);
    close(here);
    close(there);
}

static void test_kinds(void)
{
    int fds[2];

    for (int kind = 0; kind < 4; kind++) {
        CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
        here = fds[0];
        there = fds[1];
        vectored = kind & 2;
        test_pair(kind & 1);
    }
    for (int kind = 0; kind < 2; kind++) {
        CHECK_EQ(pipe(fds), 0);
        here = fds[0];
        there = fds[1];
        test_pair(kind);
        here = there = eventfd(0, 0);
        there = dup(here);
        test_pair(kind);
    }
    vectored = false;
}

/* A send of more than the peer's buffer goes on as the peer reads; the other
 * direction works at the same time on the same descriptor. */
static size_t sent, drained;
static int ended;

static void send_more(struct by_loop *on);

static void sent_some(struct by_io *done, int result)
{
    (void)done;
    CHECK(result > 0);
    sent += (size_t)result;
    send_more(loop);
}

static void send_more(struct by_loop *on)
{
    if (sent == sizeof(buffer)) {
        by_io_cancel(on, &other);
        return;
    }
    prepare(BY_IO_SENDMSG, sizeof(buffer) - sent);
    io.done = sent_some;
    by_io_submit(on, &io);
}

/* The last byte was read, and the last send has seen its end. */
static void both_ended(void)
{
    if (++ended == 2) {
        by_event_done(CHECK_TAG, 0);
    }
}

static void drain_some(struct by_io *done, int result)
{
    static char sink[65536];
    ssize_t n;

    CHECK(result == 0 || result == -ECANCELED);
    n = recv(there, sink, sizeof(sink), MSG_DONTWAIT);
    drained += n > 0 ? (size_t)n : 0;
    if (drained < sizeof(buffer)) {
        done->offset = by_loop_now(loop) + 100000;
        by_io_submit(loop, done);
    } else {
        both_ended();
    }
}

static void other_cancelled(struct by_io *done, int result)
{
    (void)done;
    CHECK_EQ(result, -ECANCELED);
    both_ended();
}

static void send_much(struct by_loop *on)
{
    memset(&other, 0, sizeof(other));
    other.op = BY_IO_POLL;
    other.fd = here;
    other.flags = POLLIN;
    other.done = other_cancelled;
    by_io_submit(on, &other);
    send_more(on);
    memset(&timer, 0, sizeof(timer));
    timer.op = BY_IO_TIMER;
    timer.offset = by_loop_now(on) + 1000000;
    timer.done = drain_some;
    by_io_submit(on, &timer);
}

static void test_send(bool nonblocking)
{
    int fds[2];

    CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
    here = fds[0];
    there = fds[1];
    sent = drained = 0;
    ended = 0;
    if (nonblocking) {
        CHECK_EQ(fcntl(here, F_SETFL, O_NONBLOCK | O_RDWR), 0);
    }
    CHECK_EQ(check_on(loop, send_much), 0);
    close(there);
    close(here);
}

static void send_one(struct by_loop *on)
{
    prepare(BY_IO_SENDMSG, 1);
    by_io_submit(on, &io);
}

/* The peer is gone: an error or the end, and no signal. */
static void test_broken(void)
{
    int fds[2];

    CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
    here = fds[0];
    close(fds[1]);
    CHECK_EQ(check_on(loop, send_one), -EPIPE);
    CHECK_EQ(check_on(loop, start_receive), 0);
    close(here);
    CHECK_EQ(check_on(loop, start_receive), -EBADF);
}

/* More waiting and more cancelled at one time than the rings hold. */
enum { CROWD = 6000 };
static struct by_io crowd[CROWD];
static int crowd_left;

static void crowd_done(struct by_io *done, int result)
{
    (void)done;
    CHECK_EQ(result, -ECANCELED);
    if (--crowd_left == 0) {
        by_event_done(CHECK_TAG, 0);
    }
}

static void cancel_crowd(struct by_io *done, int result)
{
    (void)done;
    CHECK_EQ(result, 0);
    for (int i = 0; i < CROWD; i++) {
        by_io_cancel(loop, &crowd[i]);
    }
}

static void crowd_wait(struct by_loop *on)
{
    crowd_left = CROWD;
    for (int i = 0; i < CROWD; i++) {
        crowd[i].op = BY_IO_POLL;
        crowd[i].fd = here;
        crowd[i].flags = POLLIN;
        crowd[i].done = crowd_done;
        by_io_submit(on, &crowd[i]);
    }
    memset(&timer, 0, sizeof(timer));
    timer.op = BY_IO_TIMER;
    timer.offset = by_loop_now(on) + 3000000;
    timer.done = cancel_crowd;
    by_io_submit(on, &timer);
}

static void test_crowd(void)
{
    int fds[2];

    CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
    here = fds[0];
    for (int i = 0; i < 3; i++) {
        CHECK_EQ(check_on(loop, crowd_wait), 0);
    }
    close(fds[0]);
    close(fds[1]);
}

/* A descriptor number that is closed and used again is armed again. */
static void test_reuse(void)
{
    for (int i = 0; i < 3; i++) {
        int fds[2];

        CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
        here = fds[0];
        there = fds[1];
        CHECK_EQ(check_on(loop, receive_later), 8);
        close(here);
        close(there);
    }
}

int main(int argc, char **argv)
{
    check_start(argc, argv);
    loop = check_loop();
    test_kinds();
    test_send(false);
    test_send(true);
    test_broken();
    test_reuse();
    test_crowd();
    check_destroy(loop);
    by_stop();
    return 0;
}
