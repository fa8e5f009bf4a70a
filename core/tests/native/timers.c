/* SPDX-License-Identifier: Apache-2.0 */
/*
 * timers.c - timers fire in the order of their deadlines, not early, each
 * once, and the cancelled ones at once with -ECANCELED.
 */
#include "check.h"

enum { TIMERS = 3000, SPAN = 50000000 };

static struct by_loop *loop;
static struct by_io timers[TIMERS];
static bool cancelled[TIMERS];
static int fired, stopped;
static uint64_t last;

static void on_timer(struct by_io *io, int result)
{
    int i = (int)(io - timers);

    if (cancelled[i]) {
        CHECK_EQ(result, -ECANCELED);
        stopped++;
    } else {
        CHECK_EQ(result, 0);
        CHECK(by_clock() >= io->offset);
        CHECK(io->offset >= last);
        last = io->offset;
        fired++;
    }
    if (fired + stopped == TIMERS) {
        by_event_done(CHECK_TAG, fired);
    }
}

static void arm(struct by_loop *on)
{
    unsigned seed = 7;

    for (int i = 0; i < TIMERS; i++) {
        timers[i].op = BY_IO_TIMER;
        timers[i].offset = by_loop_now(on) + (uint64_t)rand_r(&seed) % SPAN;
        timers[i].done = on_timer;
        by_io_submit(on, &timers[i]);
    }
    for (int i = 0; i < TIMERS; i += 3) {
        int victim = rand_r(&seed) % TIMERS;

        cancelled[victim] = true;
        by_io_cancel(on, &timers[victim]);
    }
}

/* Re-armed from its own done for a time already past: the loop still serves
 * others (the post that ends it). */
static _Atomic bool enough;

static void again(struct by_io *io, int result)
{
    CHECK_EQ(result, 0);
    if (atomic_load(&enough)) {
        by_event_done(CHECK_TAG, 0);
        return;
    }
    by_io_submit(loop, io);
}

static void arm_past(struct by_loop *on)
{
    memset(timers, 0, sizeof(timers));
    timers[0].op = BY_IO_TIMER;
    timers[0].offset = 1;
    timers[0].done = again;
    by_io_submit(on, &timers[0]);
}

static void set_enough(struct by_task *task)
{
    (void)task;
    atomic_store(&enough, true);
}

int main(int argc, char **argv)
{
    struct by_task stop = { .run = set_enough };
    struct check_call call = { .task.run = check_run_call, .fn = arm_past };
    int expected = TIMERS;

    check_start(argc, argv);
    loop = check_loop();
    fired = check_on(loop, arm);
    for (int i = 0; i < TIMERS; i++) {
        expected -= cancelled[i];
    }
    CHECK_EQ(fired, expected);
    by_loop_post(loop, &call.task);
    usleep(2000);
    by_loop_post(loop, &stop);
    CHECK_EQ(check_await(CHECK_TAG), 0);
    check_destroy(loop);
    by_stop();
    return 0;
}
