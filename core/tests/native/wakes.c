/* SPDX-License-Identifier: Apache-2.0 */
/*
 * wakes.c - the poll that wakes a ring's loop has ended just when a round
 * fills the submission queue to its last entry: posts wake the loop all the
 * same.
 */
#include "check.h"

#include <sys/socket.h>

#include "ring.h"

enum { MANY = 256, TURNS = 1000 };   /* the submission queue's entries */

static struct by_io ios[MANY];
static struct msghdr msg;
static struct iovec iov;
static char byte;
static int sockets[2];
static int turns, left;
static struct by_task filler, poster;

static void received(struct by_io *io, int result)
{
    (void)io;
    (void)result;
    if (!--left) {
        by_event_done(CHECK_TAG, 0);
    }
}

static void submit_all(struct by_loop *loop)
{
    for (int i = 0; i < MANY; i++) {
        ios[i] = (struct by_io){ .size = sizeof(ios[i]),
                                 .op = BY_IO_RECVMSG, .fd = sockets[0],
                                 .msg = &msg, .done = received };
        by_io_submit(loop, &ios[i]);
    }
    left = MANY;
    by_event_done(CHECK_TAG, 0);
}

/* Until the end of the poll has been seen. */
static void fill(struct by_task *task)
{
    struct by_loop *loop = by_loop_current();
    struct ring *ring = loop->impl;

    if (ring->rearm_wake) {
        submit_all(loop);
    } else {
        CHECK(turns++ < TURNS);
        by_loop_post(loop, task);
    }
}

static void end_the_poll(struct by_loop *loop)
{
    loop->backend->cancel_all(loop);
    filler.run = fill;
    by_loop_post(loop, &filler);
}

static void answer(struct by_task *task)
{
    (void)task;
    by_event_done(CHECK_TAG, 0);
}

int main(int argc, char **argv)
{
    struct by_loop *loop;

    check_start(argc, argv);
    loop = check_loop();
    if (!by_loop_has_ring(loop)) {
        return 0;
    }
    CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, sockets), 0);
    iov = (struct iovec){ &byte, 1 };
    msg = (struct msghdr){ .msg_iov = &iov, .msg_iovlen = 1 };
    by_loop_set_params(loop, &(struct by_loop_params){ .poll_max_ns = 0 });
    usleep(100000);   /* the poll is armed */
    CHECK_EQ(check_on(loop, end_the_poll), 0);
    usleep(100000);   /* it sleeps */
    poster.run = answer;
    by_loop_post(loop, &poster);
    CHECK_EQ(check_await(CHECK_TAG), 0);
    shutdown(sockets[1], SHUT_WR);
    CHECK_EQ(check_await(CHECK_TAG), 0);
    check_destroy(loop);
    by_stop();
    return 0;
}
