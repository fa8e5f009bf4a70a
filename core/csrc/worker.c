/* SPDX-License-Identifier: Apache-2.0 */
/*
 * worker.c - a pool thread: runs its list in order, returns results in
 * batches, sleeps when the list is empty and leaves after 10 s of that.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "pool.h"

enum { IDLE_SECONDS = 10 };
static const uint64_t report_after = 50000;   /* ns */

/* ------------------------------------------------------------- the lists */

void by_works_append(struct works *to, struct works from)
{
    if (!from.count) {
        return;
    }
    if (to->count) {
        to->tail->next = from.head;
    } else {
        to->head = from.head;
    }
    to->tail = from.tail;
    to->count += from.count;
}

struct works by_works_cut(struct works *list, uint32_t n)
{
    struct works part = { list->head, list->head, n };

    if (n >= list->count) {
        part = *list;
        *list = (struct works){ NULL, NULL, 0 };
        return part;
    }
    for (uint32_t i = 1; i < n; i++) {
        part.tail = part.tail->next;
    }
    list->head = part.tail->next;
    list->count -= n;
    part.tail->next = NULL;
    return part;
}

/* --------------------------------------------------------------- results */

void by_works_deliver(struct works done)
{
    struct by_loop *loop;
    struct by_work *top;

    if (!done.count) {
        return;
    }
    loop = done.head->loop;
    top = atomic_load_explicit(&loop->finished, memory_order_relaxed);
    do {
        done.tail->next = top;
    } while (!atomic_compare_exchange_weak_explicit(
                 &loop->finished, &top, done.head, memory_order_acq_rel,
                 memory_order_relaxed));
    if (!top) {
        by_loop_post(loop, &loop->finished_task);
    }
}

/* On the loop: run done for what came back, oldest first. */
void by_pool_finished(struct by_task *task)
{
    struct by_loop *loop = task->owner;
    struct by_work *top = atomic_exchange_explicit(&loop->finished, NULL,
                                                   memory_order_acq_rel);
    struct by_work *list = NULL;

    while (top) {
        struct by_work *next = top->next;

        top->next = list;
        list = top;
        top = next;
    }
    while (list) {
        struct by_work *next = list->next;

        loop->works--;
        loop->handed--;
        list->done(list, list->result);
        list = next;
    }
}

/* Follows the median: a call that lost its processor for once, or waited
 * for a disk, does not make the next batches look long. */
static void learn(struct by_loop *loop, uint64_t took)
{
    uint64_t usual = atomic_load_explicit(&loop->work_ns,
                                          memory_order_relaxed);
    uint64_t step = usual / 8 + 100;

    if (took > usual) {
        usual = took - usual > step ? usual + step : took;
    } else {
        usual = usual - took > step ? usual - step : took;
    }
    atomic_store_explicit(&loop->work_ns, usual, memory_order_relaxed);
}

/* --------------------------------------------------------------- workers */

/* Under the worker's lock: note the result; what must be delivered now. */
static struct works note_done(struct worker *worker, struct by_work *work,
                              uint64_t now)
{
    struct works out = { NULL, NULL, 0 };

    if (worker->done.count && worker->done.head->loop != work->loop) {
        out = worker->done;
        worker->done = (struct works){ NULL, NULL, 0 };
    }
    if (!worker->done.count) {
        worker->done.tail = work;
        worker->done_since = now;
    }
    work->next = worker->done.head;
    worker->done.head = work;
    worker->done.count++;
    return out;
}

static struct works take_done(struct worker *worker, bool all, uint64_t now)
{
    struct works out = { NULL, NULL, 0 };

    if (worker->done.count
        && (all || now - worker->done_since > report_after)) {
        out = worker->done;
        worker->done = (struct works){ NULL, NULL, 0 };
    }
    return out;
}

/* Between two calls: note one, take the next, deliver what is due. */
static struct by_work *turn(struct worker *worker, struct by_work *last,
                            uint64_t now)
{
    struct works other = { NULL, NULL, 0 }, due;
    struct by_work *next = NULL;

    pthread_mutex_lock(&worker->lock);
    if (last) {
        other = note_done(worker, last, now);
    }
    if (worker->todo.count) {
        next = by_works_cut(&worker->todo, 1).head;
        worker->queue = next->queue;
    }
    due = take_done(worker, !next, now);
    atomic_store_explicit(&worker->begun, next ? now : 0,
                          memory_order_relaxed);
    pthread_mutex_unlock(&worker->lock);
    by_works_deliver(other);
    by_works_deliver(due);
    return next;
}

static void work_off(struct worker *worker)
{
    uint64_t now = by_clock();
    struct by_work *work = turn(worker, NULL, now);

    while (work) {
        uint64_t end;

        work->result = work->run(work);
        end = by_clock();
        learn(work->loop, end - now);
        now = end;
        work = turn(worker, work, now);
    }
}

static void idle_remove(struct worker *worker)
{
    struct worker **at = &by_pool.idle;

    while (*at && *at != worker) {
        at = &(*at)->next_idle;
    }
    if (*at) {
        *at = worker->next_idle;
    }
}

/* False when the thread should leave. */
static bool leave_or_stay(struct worker *worker)
{
    bool stay;

    pthread_mutex_lock(&by_pool.lock);
    pthread_mutex_lock(&worker->lock);
    stay = worker->state == WORKER_BUSY
        || (worker - by_pool.workers < by_pool.keep && !by_pool.stopping);
    if (!stay) {
        idle_remove(worker);
        worker->state = WORKER_LEFT;
    }
    pthread_mutex_unlock(&worker->lock);
    pthread_mutex_unlock(&by_pool.lock);
    return stay;
}

static void become_idle(struct worker *worker)
{
    pthread_mutex_lock(&by_pool.lock);
    pthread_mutex_lock(&worker->lock);
    if (!worker->todo.count) {
        worker->state = WORKER_IDLE;
        worker->next_idle = by_pool.idle;
        by_pool.idle = worker;
    }
    pthread_mutex_unlock(&worker->lock);
    pthread_mutex_unlock(&by_pool.lock);
}

void by_worker_wake(struct worker *worker)
{
    atomic_fetch_add_explicit(&worker->wakeups, 1, memory_order_release);
    syscall(__NR_futex, &worker->wakeups, FUTEX_WAKE_PRIVATE, 1, NULL, NULL,
            0);
}

static bool is_busy(struct worker *worker)
{
    bool busy;

    pthread_mutex_lock(&worker->lock);
    busy = worker->state == WORKER_BUSY;
    pthread_mutex_unlock(&worker->lock);
    return busy;
}

/* Wait for work; false when none came for long or the pool stops. */
static bool wait_for_work(struct worker *worker)
{
    const struct timespec limit = { .tv_sec = IDLE_SECONDS };
    bool timed_out = false;

    for (;;) {
        uint32_t seen = atomic_load_explicit(&worker->wakeups,
                                             memory_order_acquire);

        if (is_busy(worker)) {
            return true;
        }
        if (timed_out || atomic_load(&by_pool.stopping)) {
            return false;
        }
        timed_out = syscall(__NR_futex, &worker->wakeups, FUTEX_WAIT_PRIVATE,
                            seen, &limit, NULL, 0) < 0 && errno == ETIMEDOUT;
    }
}

void *by_worker_main(void *arg)
{
    struct worker *worker = arg;

    for (;;) {
        work_off(worker);
        become_idle(worker);
        while (!wait_for_work(worker)) {
            if (!leave_or_stay(worker)) {
                return NULL;
            }
        }
    }
}
