/* SPDX-License-Identifier: Apache-2.0 */
/*
 * check.h - what every native test program shares: checks that end the
 * program with a line, loops to run on, and waiting for events.
 *
 * A program's first argument is "ring" or "epoll": the backend to test.
 */
#ifndef BLOCKYARD_CHECK_H
#define BLOCKYARD_CHECK_H

#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "loop.h"

#define CHECK(condition) do { \
    if (!(condition)) { \
        fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition); \
        exit(1); \
    } \
} while (0)

#define CHECK_EQ(a, b) do { \
    long long a_ = (long long)(a), b_ = (long long)(b); \
    if (a_ != b_) { \
        fprintf(stderr, "%s:%d: %s is %lld, not %lld\n", __FILE__, __LINE__, \
                #a, a_, b_); \
        exit(1); \
    } \
} while (0)

static inline bool check_is_epoll(int argc, char **argv)
{
    return argc > 1 && !strcmp(argv[1], "epoll");
}

static inline void check_start(int argc, char **argv)
{
    CHECK_EQ(by_start(check_is_epoll(argc, argv) ? 1 : 0), 0);
}

static inline struct by_loop *check_loop(void)
{
    int error;
    struct by_loop *loop = by_loop_create("test", NULL, &error);

    CHECK_EQ(error, 0);
    CHECK(loop);
    return loop;
}

/* Wait for the event with this tag; others are dropped. */
static inline int check_await(uint64_t tag)
{
    for (;;) {
        struct pollfd pfd = { .fd = by_event_fd(), .events = POLLIN };
        struct by_event events[1];

        CHECK(poll(&pfd, 1, 30000) == 1);
        if (by_event_take(events, 1) == 1 && events[0].tag == tag) {
            return events[0].result;
        }
    }
}

/* Run fn on the loop and wait until it has posted CHECK_DONE. */
enum { CHECK_TAG = 77, CHECK_GONE = 78 };

struct check_call {
    struct by_task task;
    void (*fn)(struct by_loop *loop);
};

static inline void check_run_call(struct by_task *task)
{
    ((struct check_call *)task)->fn(by_loop_current());
}

/* fn must lead to by_event_done(CHECK_TAG, ...); answers that result. */
static inline int check_on(struct by_loop *loop, void (*fn)(struct by_loop *))
{
    struct check_call call = { .task.run = check_run_call, .fn = fn };

    by_loop_post(loop, &call.task);
    return check_await(CHECK_TAG);
}

static inline void check_destroy(struct by_loop *loop)
{
    by_loop_destroy(loop, CHECK_GONE);
    CHECK_EQ(check_await(CHECK_GONE), 0);
}

#endif /* BLOCKYARD_CHECK_H */
