/* SPDX-License-Identifier: Apache-2.0 */
/*
 * loop.c - what a loop does: one round after another.
 *
 * A round runs what has completed, what was posted, the timers, the pollers
 * and last the deferred tasks; then one call hands everything the round
 * submitted to the kernel and, when nothing is left to do, waits there.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "loop_private.h"

__thread struct by_loop *by_loop_self
    __attribute__((tls_model("initial-exec"), visibility("hidden")));
struct by_task by_asleep;

enum {
    DEFER_PASSES = 8           /* tasks that defer again: then a new round */
};
static const uint64_t FORCE_NS = 2000000000; /* by_stop waits for cancels */

uint64_t by_clock(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

struct by_loop *by_loop_current(void)
{
    return by_loop_self;
}

uint64_t by_loop_now(struct by_loop *loop)
{
    return loop->now;
}

bool by_loop_has_ring(const struct by_loop *loop)
{
    return loop->backend == &by_ring_backend;
}

int by_loop_index(const struct by_loop *loop)
{
    return loop->index;
}

/* ----------------------------------------------------------------- posts */

/*
 * `posted` is a stack whose bottom is either null, the loop is awake and will
 * look, or by_asleep: then the one poster who replaced it wakes the loop.
 * Going to sleep is the step null -> by_asleep, so no post falls between.
 */
void by_loop_post(struct by_loop *loop, struct by_task *task)
{
    struct by_task *top = atomic_load_explicit(&loop->posted,
                                               memory_order_relaxed);
    const uint64_t one = 1;
    int wake_fd = loop->wake_fd;   /* the loop may end once task has run */

    do {
        task->next = top == &by_asleep ? NULL : top;
    } while (!atomic_compare_exchange_weak_explicit(
                 &loop->posted, &top, task, memory_order_acq_rel,
                 memory_order_relaxed));
    if (top == &by_asleep) {
        while (write(wake_fd, &one, sizeof(one)) < 0 && errno == EINTR) {
            continue;
        }
    }
}

bool by_loop_posted(const struct by_loop *loop)
{
    return atomic_load_explicit(&loop->posted, memory_order_relaxed);
}

/* Take all, oldest first; also ends the sleep. */
static struct by_task *take_posted(struct by_loop *loop)
{
    struct by_task *top, *list = NULL;

    if (!by_loop_posted(loop)) {
        return NULL;
    }
    top = atomic_exchange_explicit(&loop->posted, NULL, memory_order_acq_rel);
    if (top == &by_asleep) {
        return NULL;
    }
    while (top) {
        struct by_task *next = top->next;

        top->next = list;
        list = top;
        top = next;
    }
    return list;
}

static bool fall_asleep(struct by_loop *loop)
{
    struct by_task *none = NULL;

    return atomic_compare_exchange_strong_explicit(
        &loop->posted, &none, &by_asleep, memory_order_acq_rel,
        memory_order_relaxed);
}

static unsigned run_list(struct by_task *task)
{
    unsigned count = 0;

    while (task) {
        struct by_task *next = task->next;   /* run may free it */

        task->run(task);
        task = next;
        count++;
    }
    return count;
}

void by_loop_defer(struct by_loop *loop, struct by_task *task)
{
    task->next = NULL;
    *loop->deferred_tail = task;
    loop->deferred_tail = &task->next;
}

static unsigned run_deferred(struct by_loop *loop)
{
    unsigned count = 0;

    for (int pass = 0; pass < DEFER_PASSES && loop->deferred; pass++) {
        struct by_task *list = loop->deferred;

        loop->deferred = NULL;
        loop->deferred_tail = &loop->deferred;
        count += run_list(list);
    }
    return count;
}

/* ------------------------------------------------------------------- ios */

void by_io_ready(struct by_loop *loop, struct by_io *io, int result)
{
    BY_IO_STATE(io) = IO_READY;
    by_links(io)->result = result;
    by_list_append(&loop->ready, io);
}

void by_io_submit(struct by_loop *loop, struct by_io *io)
{
    loop->in_flight++;
    if (io->op < BY_IO_TIMER) {
        loop->backend->submit(loop, io);
    } else if (io->op == BY_IO_TIMER) {
        by_timer_add(loop, io);
    } else if (io->op == BY_IO_COMMAND) {
        loop->backend->submit(loop, io);
    } else {
        by_io_ready(loop, io, -EINVAL);
    }
}

void by_io_cancel(struct by_loop *loop, struct by_io *io)
{
    switch (BY_IO_STATE(io)) {
    case IO_IDLE:
    case IO_READY:
        break;   /* done has run, or is about to with its own result */
    case IO_TIMER:
        by_timer_remove(loop, io);
        by_io_ready(loop, io, -ECANCELED);
        break;
    default:
        loop->backend->cancel(loop, io);
        break;
    }
}

void by_loop_submit_at(struct by_loop *loop, uint32_t batch)
{
    if (batch && loop->backend->submit_at) {
        loop->backend->submit_at(loop, batch);
    }
}

/* What became ready before now; later additions wait for the next round. */
static unsigned run_ready(struct by_loop *loop)
{
    struct by_io *last = loop->ready.tail;
    unsigned count = 0;

    while (last) {
        struct by_io *io = loop->ready.head;

        by_list_remove(&loop->ready, io);
        by_io_finish(loop, io, (int)by_links(io)->result);
        count++;
        if (io == last) {
            break;
        }
    }
    return count;
}

/* ---------------------------------------------------------------- rounds */

static unsigned run_round(struct by_loop *loop)
{
    struct by_task *posted = take_posted(loop);   /* first: from here on
                                                     posts wake nobody */
    unsigned count;

    loop->now = by_clock();
    count = loop->backend->reap(loop);
    count += run_list(posted);
    count += by_timer_run(loop);
    count += run_ready(loop);
    if (loop->pollers) {
        count += by_pollers_run(loop);
    }
    count += run_deferred(loop);
    if (loop->work_head) {
        by_pool_flush(loop);
    }
    return count;
}

static bool has_work(struct by_loop *loop)
{
    return loop->ready.head || loop->deferred || by_loop_posted(loop)
        || loop->backend->ready(loop);
}

/* How long the loop may sleep at most. */
static uint64_t sleep_limit(struct by_loop *loop, uint64_t relief)
{
    uint64_t deadline = by_timer_next(loop), now;
    uint64_t relax = by_buffers_relax(loop);

    relief = relax < relief ? relax : relief;

    if (atomic_load_explicit(&loop->ending, memory_order_relaxed) == 2
        && relief > FORCE_NS / 100) {
        relief = FORCE_NS / 100;
    }
    if (deadline == BY_NEVER) {
        return relief;
    }
    now = by_clock();
    deadline = deadline > now ? deadline - now : 0;
    return deadline < relief ? deadline : relief;
}

static void sleep_until_work(struct by_loop *loop, uint64_t relief)
{
    uint64_t limit = sleep_limit(loop, relief);

    if (by_spin_end(loop) || loop->deferred || loop->ready.head
        || !fall_asleep(loop)) {
        limit = 0;
    }
    loop->backend->enter(loop, limit);
}

/* Submit, and wait unless there is more to do.  A loop that does not spin
 * does both in one system call. */
static void end_round(struct by_loop *loop, uint64_t relief)
{
    if (loop->ready.head || loop->deferred) {
        loop->backend->enter(loop, 0);
        return;
    }
    if (by_spin_wanted(loop)) {
        loop->backend->enter(loop, 0);
        if (has_work(loop)) {
            by_spin_busy(loop);
            return;
        }
        if (by_spin(loop)) {
            return;
        }
    }
    sleep_until_work(loop, relief);
}

/* ------------------------------------------------------------------- end */

/* The mark of a sleeper is no post. */
static bool has_posts(const struct by_loop *loop)
{
    struct by_task *top = atomic_load_explicit(&loop->posted,
                                               memory_order_relaxed);

    return top && top != &by_asleep;
}

static bool is_empty(const struct by_loop *loop)
{
    return !loop->in_flight && !loop->works && !loop->pollers
        && !loop->deferred && !has_posts(loop);
}

/* by_stop: nobody will end what is left, so it is cancelled, again and again
 * while done callbacks start more, and at last left behind. */
static bool force_end(struct by_loop *loop, uint64_t *give_up)
{
    if (!*give_up) {
        *give_up = loop->now + FORCE_NS;
    }
    while (loop->timers) {
        by_io_cancel(loop, loop->timers);
    }
    loop->backend->cancel_all(loop);
    return loop->now >= *give_up;
}

static bool must_end(struct by_loop *loop, uint64_t *give_up)
{
    uint32_t ending = atomic_load_explicit(&loop->ending,
                                           memory_order_acquire);

    if (!ending) {
        return false;
    }
    return is_empty(loop) || (ending == 2 && force_end(loop, give_up));
}

void by_loop_run(struct by_loop *loop)
{
    uint64_t give_up = 0;

    for (;;) {
        unsigned count = run_round(loop);
        uint64_t relief = by_pool_relieve(loop);

        if (must_end(loop, &give_up)) {
            return;
        }
        if (count) {
            by_spin_learn(loop);
        }
        end_round(loop, relief);
    }
}
