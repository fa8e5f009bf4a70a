/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pool.c - the process's worker threads, for calls that block or burn.
 *
 * A loop hands over what one round collected in one step, as a rule to one
 * worker, which runs it in order: small buffered writes to one file would
 * only queue at its inode lock if they were spread, and one wake-up serves
 * them all.  While that worker is busy with short calls, later rounds are
 * appended to its list and wake nobody.  Results travel back in batches too.
 *
 * That is wrong for calls that take long, so
 * - a loop's calls are timed, and a batch that would usually take more than
 *   250 us in a row is spread over several workers from the start;
 * - a loop with calls outstanding looks every 200 us whether a worker has
 *   been in one call for that long, and gives what waits behind it to others
 *   (by_pool_relieve); results that such a worker still holds are delivered.
 * Neither is done to calls of the same queue (by_work.queue): on other threads
 * they would wait for the same lock, and burn the processors' time with it.
 *
 * Threads are started when all are busy, up to a bound, and leave after 10 s
 * without work; the first one stays, and as many as the loops want reserved.
 * A loop with a limit of its own has no more calls with the workers than
 * that, so it cannot occupy more threads.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <time.h>

#include "pool.h"

enum { STOP_SECONDS = 5, SPREAD_MAX = 8 };
static const uint64_t long_call = 200000;      /* ns */
static const uint64_t long_batch = 250000;

struct by_pool by_pool = { .lock = PTHREAD_MUTEX_INITIALIZER };

/* -------------------------------------------------------------- handover */

static bool start_thread(struct worker *worker)
{
    pthread_t thread;
    char name[16];

    if (by_thread_start(&thread, by_worker_main, worker)) {
        return false;
    }
    snprintf(name, sizeof(name), "by-worker-%d",
             (int)(worker - by_pool.workers));
    pthread_setname_np(thread, name);
    worker->thread = thread;
    return true;
}

/* Under the pool's lock: a new thread, busy with list; null when there can
 * be none (list is then untouched). */
static struct worker *start_worker(struct works list)
{
    for (int i = 0; i < WORKERS_MAX && !by_pool.stopping; i++) {
        struct worker *worker = &by_pool.workers[i];
        bool ok;

        pthread_mutex_lock(&worker->lock);
        if (worker->state != WORKER_NONE && worker->state != WORKER_LEFT) {
            pthread_mutex_unlock(&worker->lock);
            continue;
        }
        if (worker->state == WORKER_LEFT) {
            pthread_join(worker->thread, NULL);   /* it is returning */
            worker->state = WORKER_NONE;
        }
        ok = start_thread(worker);
        if (ok) {
            worker->state = WORKER_BUSY;
            by_works_append(&worker->todo, list);
        }
        pthread_mutex_unlock(&worker->lock);
        return ok ? worker : NULL;
    }
    return NULL;
}

/* Under the pool's lock. */
static struct worker *wake_idle(struct works list)
{
    struct worker *worker = by_pool.idle;

    if (!worker) {
        return NULL;
    }
    by_pool.idle = worker->next_idle;
    pthread_mutex_lock(&worker->lock);
    worker->state = WORKER_BUSY;
    by_works_append(&worker->todo, list);
    pthread_mutex_unlock(&worker->lock);
    by_worker_wake(worker);
    return worker;
}

/* Under the pool's lock: the busy worker with the fewest waiting.  There is
 * one: the first never leaves while the pool runs. */
static struct worker *append_somewhere(struct works list)
{
    struct worker *best = &by_pool.workers[0];
    uint32_t fewest = UINT32_MAX;

    for (int i = 0; i < WORKERS_MAX; i++) {
        struct worker *worker = &by_pool.workers[i];

        pthread_mutex_lock(&worker->lock);
        if (worker->state == WORKER_BUSY && worker->todo.count < fewest) {
            fewest = worker->todo.count;
            best = worker;
        }
        pthread_mutex_unlock(&worker->lock);
    }
    pthread_mutex_lock(&best->lock);
    by_works_append(&best->todo, list);
    pthread_mutex_unlock(&best->lock);
    return best;
}

static struct worker *give(struct works list)
{
    struct worker *worker;

    pthread_mutex_lock(&by_pool.lock);
    worker = wake_idle(list);
    if (!worker) {
        worker = start_worker(list);
    }
    if (!worker) {
        worker = append_somewhere(list);
    }
    pthread_mutex_unlock(&by_pool.lock);
    return worker;
}

/* Append to the worker that has the loop's previous batch, if it is likely to
 * get there soon. */
static bool follow(struct by_loop *loop, struct works list, uint64_t usual)
{
    struct worker *worker = loop->worker;
    uint64_t begun;
    bool ok;

    if (!worker) {
        return false;
    }
    pthread_mutex_lock(&worker->lock);
    begun = atomic_load_explicit(&worker->begun, memory_order_relaxed);
    /* Not begun: it is about to look at its list once more. */
    ok = worker->state == WORKER_BUSY
        && (!begun || begun > loop->now || loop->now - begun < long_call)
        && (list.head->queue
            || (worker->todo.count + list.count) * usual < long_batch);
    if (ok) {
        by_works_append(&worker->todo, list);
    }
    pthread_mutex_unlock(&worker->lock);
    return ok;
}

/* Append to the worker that has others of the queue, however long it takes. */
static bool join_queue(struct worker *worker, struct works list)
{
    uint32_t queue = list.head->queue;
    bool ok;

    if (!worker) {
        return false;
    }
    pthread_mutex_lock(&worker->lock);
    ok = worker->state == WORKER_BUSY
        && ((atomic_load_explicit(&worker->begun, memory_order_relaxed)
             && worker->queue == queue)
            || (worker->todo.count && worker->todo.tail->queue == queue));
    if (ok) {
        by_works_append(&worker->todo, list);
    }
    pthread_mutex_unlock(&worker->lock);
    return ok;
}

/* At most SPREAD_MAX parts: whether more threads help than there are
 * processors is seen when the first ones block (by_pool_relieve). */
static uint32_t batch_size(uint32_t count, uint64_t usual)
{
    uint64_t fit = usual ? long_batch / usual : count;
    uint32_t least = (count + SPREAD_MAX - 1) / SPREAD_MAX;

    return fit < least ? least : fit < count ? (uint32_t)fit : count;
}

/* The round's list, or as much of it as the loop may have handed over. */
static struct works take_round(struct by_loop *loop)
{
    struct works list = { loop->work_head, loop->work_last,
                          loop->work_count };
    int64_t max = atomic_load_explicit(&loop->pool_max, memory_order_relaxed);
    struct works now = list;

    if (max > 0 && loop->handed + list.count > (uint64_t)max) {
        uint64_t room = loop->handed < (uint64_t)max
            ? (uint64_t)max - loop->handed : 0;

        now = room ? by_works_cut(&list, (uint32_t)room)
            : (struct works){ NULL, NULL, 0 };
    } else {
        list = (struct works){ NULL, NULL, 0 };
    }
    loop->work_head = list.head;
    loop->work_last = list.tail;
    loop->work_count = list.count;
    loop->handed += now.count;
    return now;
}

/* Take out the calls of this queue; the list keeps the others. */
static struct works take_queue(struct works *list, uint32_t queue)
{
    struct works taken = { NULL, NULL, 0 }, others = { NULL, NULL, 0 };

    while (list->count) {
        struct works one = by_works_cut(list, 1);

        by_works_append(one.head->queue == queue ? &taken : &others, one);
    }
    *list = others;
    return taken;
}

/* Are they all of this queue? */
static bool is_queue(const struct works *list, uint32_t queue)
{
    const struct by_work *work = list->head;
    uint32_t left = list->count;

    while (left && work->queue == queue) {
        work = work->next;
        left--;
    }
    return !left;
}

static void hand_over_queue(struct by_loop *loop, struct works list)
{
    void **has = &loop->queue_workers[list.head->queue % BY_QUEUES];

    if (!join_queue(*has, list)) {
        if (!follow(loop, list, 0)) {
            loop->worker = give(list);
        }
        *has = loop->worker;
    }
}

static void hand_over(struct by_loop *loop, struct works list)
{
    uint64_t usual = atomic_load_explicit(&loop->work_ns,
                                         memory_order_relaxed);
    uint32_t size = batch_size(list.count, usual);

    if (follow(loop, list, usual)) {
        return;
    }
    while (list.count) {
        loop->worker = give(by_works_cut(&list, size));
    }
}

void by_pool_flush(struct by_loop *loop)
{
    struct works list = take_round(loop);

    if (!list.count) {
        return;
    }
    loop->relief_due = loop->now + long_call;
    while (list.count) {
        uint32_t queue = list.head->queue;
        struct works alike = is_queue(&list, queue)
            ? by_works_cut(&list, list.count) : take_queue(&list, queue);

        if (queue) {
            hand_over_queue(loop, alike);
        } else {
            hand_over(loop, alike);
        }
    }
}

void by_pool_submit(struct by_loop *loop, struct by_work *work)
{
    work->next = NULL;
    work->loop = loop;
    work->result = 0;
    if (loop->work_last) {
        loop->work_last->next = work;
    } else {
        loop->work_head = work;
    }
    loop->work_last = work;
    loop->work_count++;
    loop->works++;
}

/* ---------------------------------------------------------------- relief */

struct relief {
    struct works stuck;     /* waited behind a long call */
    unsigned holders;       /* workers in a long call */
    bool held;              /* something waits or is undelivered somewhere */
};

/* Under the worker's lock: is there anything that others could do? */
static bool holds(const struct worker *worker)
{
    return worker->done.count
        || !is_queue(&worker->todo, worker->queue)
        || (worker->todo.count && !worker->queue);
}

/* Under the worker's lock: cut out what need not wait for the call in hand. */
static struct works cut_stuck(struct worker *worker)
{
    struct works waits = { NULL, NULL, 0 }, stuck;

    if (worker->queue) {
        waits = take_queue(&worker->todo, worker->queue);
    }
    stuck = worker->todo;
    worker->todo = waits;
    return stuck;
}

static void inspect(struct worker *worker, uint64_t now,
                    struct relief *relief)
{
    struct works due = { NULL, NULL, 0 };
    uint64_t begun;

    pthread_mutex_lock(&worker->lock);
    begun = atomic_load_explicit(&worker->begun, memory_order_relaxed);
    relief->held |= holds(worker);
    if (worker->state == WORKER_BUSY && begun && begun < now
        && now - begun >= long_call) {
        relief->holders++;
        due = worker->done;
        worker->done = (struct works){ NULL, NULL, 0 };
        by_works_append(&relief->stuck, cut_stuck(worker));
    }
    pthread_mutex_unlock(&worker->lock);
    by_works_deliver(due);
}

/* The more are stuck already, the more are tried at once. */
static void spread(struct relief *relief)
{
    uint32_t parts = relief->holders + 1;
    uint32_t size = (relief->stuck.count + parts - 1) / parts;

    while (relief->stuck.count) {
        give(by_works_cut(&relief->stuck, size));
    }
}

uint64_t by_pool_relieve(struct by_loop *loop)
{
    struct relief relief = { .held = false };

    if (loop->relief_due == BY_NEVER || !loop->works) {
        loop->relief_due = BY_NEVER;
        return BY_NEVER;
    }
    if (loop->now < loop->relief_due) {
        return loop->relief_due - loop->now;
    }
    for (int i = 0; i < WORKERS_MAX; i++) {
        inspect(&by_pool.workers[i], loop->now, &relief);
    }
    spread(&relief);
    loop->relief_due = relief.held ? loop->now + long_call : BY_NEVER;
    return relief.held ? long_call : BY_NEVER;
}

/* ------------------------------------------------------------------ life */

static void prepare(void)
{
    for (int i = 0; i < WORKERS_MAX; i++) {
        pthread_mutex_init(&by_pool.workers[i].lock, NULL);
    }
    by_pool.ready = true;
}

void by_pool_reserve(int64_t threads)
{
    const struct works nothing = { NULL, NULL, 0 };
    int have = 0;

    pthread_mutex_lock(&by_pool.lock);
    by_pool.keep = threads < 1 ? 1 : threads > WORKERS_MAX ? WORKERS_MAX
                                                           : (int)threads;
    for (int i = 0; i < WORKERS_MAX; i++) {
        struct worker *worker = &by_pool.workers[i];

        pthread_mutex_lock(&worker->lock);
        have += worker->state == WORKER_IDLE || worker->state == WORKER_BUSY;
        pthread_mutex_unlock(&worker->lock);
    }
    while (have < by_pool.keep && start_worker(nothing)) {
        have++;
    }
    pthread_mutex_unlock(&by_pool.lock);
}

int by_pool_start(void)
{
    bool ok;

    pthread_mutex_lock(&by_pool.lock);
    if (!by_pool.ready) {
        prepare();
    }
    atomic_store(&by_pool.stopping, false);
    by_pool.keep = 1;
    ok = start_worker((struct works){ NULL, NULL, 0 });
    pthread_mutex_unlock(&by_pool.lock);
    return ok ? 0 : -EAGAIN;
}

/* A thread that hangs in a call (a dead server) is left behind: it touches
 * nothing of Python's. */
static bool join_worker(struct worker *worker, const struct timespec *until)
{
    enum worker_state state;

    pthread_mutex_lock(&worker->lock);
    state = worker->state;
    pthread_mutex_unlock(&worker->lock);
    by_worker_wake(worker);
    if (state == WORKER_NONE) {
        return true;
    }
    if (pthread_timedjoin_np(worker->thread, NULL, until)) {
        pthread_detach(worker->thread);
        return false;
    }
    worker->state = WORKER_NONE;
    return true;
}

bool by_pool_stop(void)
{
    struct timespec until;
    bool all = true;

    pthread_mutex_lock(&by_pool.lock);
    atomic_store(&by_pool.stopping, true);
    pthread_mutex_unlock(&by_pool.lock);
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += STOP_SECONDS;
    for (int i = 0; i < WORKERS_MAX; i++) {
        all &= join_worker(&by_pool.workers[i], &until);
    }
    return all;
}
