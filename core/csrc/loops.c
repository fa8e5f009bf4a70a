/* SPDX-License-Identifier: Apache-2.0 */
/*
 * loops.c - the life of loops: start, end, the list of those that live, and
 * waiting until each has passed a quiescent point.
 *
 * A loop's structure and eventfd are used again by later loops and freed by
 * by_stop only: a poster may still be about to wake a loop that has ended.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "loop_private.h"

static struct {
    pthread_mutex_t lock;
    pthread_cond_t started;
    struct by_loop *slots[BY_MAX_LOOPS];   /* kept when the loop ends */
    bool live[BY_MAX_LOOPS];
    bool running;                          /* between by_start and by_stop */
    bool never_ring;
} loops = { .lock = PTHREAD_MUTEX_INITIALIZER,
            .started = PTHREAD_COND_INITIALIZER };

/* --------------------------------------------------------------- threads */

/* With all signals blocked: they are for Python's threads. */
int by_thread_start(pthread_t *thread, void *(*run)(void *), void *arg)
{
    sigset_t all, old;
    int error;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    error = pthread_create(thread, NULL, run, arg);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return -error;
}

static bool refused(int error)
{
    return error == -EPERM || error == -ENOSYS || error == -EACCES
        || error == -ENOMEM || error == -EINVAL;
}

static int set_up_backend(struct by_loop *loop)
{
    int error = -ENOSYS;

    if (!__atomic_load_n(&loops.never_ring, __ATOMIC_RELAXED)) {
        loop->backend = &by_ring_backend;
        error = loop->backend->setup(loop);
        if (error == -EPERM || error == -ENOSYS) {
            __atomic_store_n(&loops.never_ring, true, __ATOMIC_RELAXED);
        }
    }
    if (refused(error)) {
        loop->backend = &by_epoll_backend;
        error = loop->backend->setup(loop);
    }
    return error;
}

static int set_up(struct by_loop *loop)
{
    int error;

    by_loop_self = loop;
    loop->thread_id = (int)syscall(__NR_gettid);
    prctl(PR_SET_TIMERSLACK, 1000ul, 0, 0, 0);
    loop->slab = by_slab_create();
    loop->buffers = by_buffers_create();
    error = loop->slab && loop->buffers ? set_up_backend(loop) : -ENOMEM;
    if (error) {
        by_slab_destroy(loop->slab);
        by_buffers_destroy(loop->buffers);
        loop->slab = NULL;
        loop->buffers = NULL;
    }
    return error;
}

static void tear_down(struct by_loop *loop)
{
    loop->backend->teardown(loop);
    by_slab_destroy(loop->slab);
    by_buffers_destroy(loop->buffers);
    loop->slab = NULL;
    loop->buffers = NULL;
}

static void announce(struct by_loop *loop, int error)
{
    pthread_mutex_lock(&loops.lock);
    loop->start_error = error;
    pthread_cond_broadcast(&loops.started);
    pthread_mutex_unlock(&loops.lock);
}

static void *loop_main(void *arg)
{
    struct by_loop *loop = arg;
    int error = set_up(loop);
    uint64_t tag;

    announce(loop, error);
    if (!error) {
        if (by_trace_on("loop_create")) {
            by_trace("loop_create", "%s %s", loop->name,
                     by_loop_has_ring(loop) ? "io_uring" : "epoll");
        }
        by_loop_run(loop);
        if (by_trace_on("loop_end")) {
            by_trace("loop_end", "%s", loop->name);
        }
        tear_down(loop);
        tag = loop->end_tag;
        by_event_done(tag, 0);
    }
    atomic_store_explicit(&loop->exited, 1, memory_order_release);
    return NULL;
}

/* -------------------------------------------------------------- creation */

static void set_params(struct by_loop *loop, const struct by_loop_params *p)
{
    static const struct by_loop_params defaults = { .poll_max_ns = 32768 };

    p = p ? p : &defaults;
    atomic_store_explicit(&loop->poll_max_ns, p->poll_max_ns,
                          memory_order_relaxed);
    atomic_store_explicit(&loop->poll_grow, p->poll_grow,
                          memory_order_relaxed);
    atomic_store_explicit(&loop->poll_shrink, p->poll_shrink,
                          memory_order_relaxed);
    atomic_store_explicit(&loop->poll_weight, p->poll_weight,
                          memory_order_relaxed);
    atomic_store_explicit(&loop->aio_max_batch, p->aio_max_batch,
                          memory_order_relaxed);
    atomic_store_explicit(&loop->pool_min, p->thread_pool_min,
                          memory_order_relaxed);
    atomic_store_explicit(&loop->pool_max, p->thread_pool_max,
                          memory_order_relaxed);
}

/* Under the lock: what all live loops want reserved, they share. */
static void reserve(void)
{
    int64_t most = 0;

    for (int i = 0; i < BY_MAX_LOOPS; i++) {
        int64_t min = loops.live[i]
            ? atomic_load(&loops.slots[i]->pool_min) : 0;

        most = min > most ? min : most;
    }
    by_pool_reserve(most);
}

void by_loop_set_params(struct by_loop *loop, const struct by_loop_params *p)
{
    pthread_mutex_lock(&loops.lock);
    set_params(loop, p);
    reserve();
    pthread_mutex_unlock(&loops.lock);
}

/* Under the lock: a slot's structure, clean but for the eventfd. */
static struct by_loop *renew(int index)
{
    struct by_loop *loop = loops.slots[index];
    int wake_fd;

    if (loop) {
        pthread_join(loop->thread, NULL);   /* exited: at most returning */
        wake_fd = loop->wake_fd;
    } else {
        wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        loop = wake_fd < 0 ? NULL
            : aligned_alloc(BY_CACHE_LINE, sizeof(*loop));
        if (!loop) {
            if (wake_fd >= 0) {
                close(wake_fd);
            }
            return NULL;
        }
    }
    memset(loop, 0, sizeof(*loop));
    loop->wake_fd = wake_fd;
    loop->index = index;
    loop->start_error = 1;
    loop->deferred_tail = &loop->deferred;
    loop->relief_due = BY_NEVER;
    loop->finished_task.run = by_pool_finished;
    loop->finished_task.owner = loop;
    return loop;
}

static struct by_loop *claim_slot(void)
{
    for (int i = 0; i < BY_MAX_LOOPS; i++) {
        struct by_loop *loop = loops.slots[i];

        if (!loop || (!loops.live[i] && atomic_load_explicit(
                          &loop->exited, memory_order_acquire))) {
            return renew(i);
        }
    }
    errno = EAGAIN;
    return NULL;
}

/* Under the lock, which the wait lets go. */
static int start_loop(struct by_loop *loop)
{
    int error = by_thread_start(&loop->thread, loop_main, loop);

    if (error) {
        loops.slots[loop->index] = NULL;   /* a used one may still be woken:
                                              it is not freed */
        return error;
    }
    loops.slots[loop->index] = loop;
    pthread_setname_np(loop->thread, loop->name);
    while (loop->start_error > 0) {
        pthread_cond_wait(&loops.started, &loops.lock);
    }
    loops.live[loop->index] = !loop->start_error;
    return loop->start_error;
}

struct by_loop *by_loop_create(const char *name,
                               const struct by_loop_params *params,
                               int *error)
{
    struct by_loop *loop = NULL;
    int result = -ESRCH;

    pthread_mutex_lock(&loops.lock);
    if (loops.running) {
        errno = ENOMEM;
        loop = claim_slot();
        result = -errno;
    }
    if (loop) {
        set_params(loop, params);
        snprintf(loop->name, sizeof(loop->name), "by-%s", name);
        result = start_loop(loop);
        reserve();
    }
    pthread_mutex_unlock(&loops.lock);
    if (error) {
        *error = result;
    }
    return result ? NULL : loop;
}

static void wake(struct by_loop *loop)
{
    const uint64_t one = 1;

    while (write(loop->wake_fd, &one, sizeof(one)) < 0 && errno == EINTR) {
        continue;
    }
}

void by_loop_destroy(struct by_loop *loop, uint64_t tag)
{
    pthread_mutex_lock(&loops.lock);
    loops.live[loop->index] = false;
    loop->end_tag = tag;
    atomic_store_explicit(&loop->ending, 1, memory_order_release);
    reserve();
    pthread_mutex_unlock(&loops.lock);
    wake(loop);
}

int by_loop_thread_id(const struct by_loop *loop)
{
    return loop->thread_id;
}

/* -------------------------------------------------------------- the list */

struct by_loop *by_loop_at(int index)
{
    struct by_loop *loop = NULL;

    pthread_mutex_lock(&loops.lock);
    if (index >= 0 && index < BY_MAX_LOOPS && loops.live[index]) {
        loop = loops.slots[index];
    }
    pthread_mutex_unlock(&loops.lock);
    return loop;
}

void by_loop_each(void (*visit)(struct by_loop *loop, void *arg), void *arg)
{
    pthread_mutex_lock(&loops.lock);
    for (int i = 0; i < BY_MAX_LOOPS; i++) {
        if (loops.live[i]) {
            visit(loops.slots[i], arg);
        }
    }
    pthread_mutex_unlock(&loops.lock);
}

int by_loop_count(void)
{
    int count = 0;

    pthread_mutex_lock(&loops.lock);
    for (int i = 0; i < BY_MAX_LOOPS; i++) {
        count += loops.live[i];
    }
    pthread_mutex_unlock(&loops.lock);
    return count;
}

/* A posted task runs from the loop's own frame: nothing else is on its stack,
 * which is what a quiescent point means. */
struct passage {
    struct by_task tasks[BY_MAX_LOOPS];
    _Atomic int waiting;
    uint64_t tag;
};

static void passed(struct by_task *task)
{
    struct passage *passage = task->owner;

    if (atomic_fetch_sub(&passage->waiting, 1) == 1) {
        by_event_done(passage->tag, 0);
        free(passage);
    }
}

static void post_passage(struct by_loop *loop, void *arg)
{
    struct passage *passage = arg;
    struct by_task *task = &passage->tasks[loop->index];

    task->run = passed;
    task->owner = passage;
    atomic_fetch_add(&passage->waiting, 1);
    by_loop_post(loop, task);
}

void by_synchronise(uint64_t tag)
{
    struct passage *passage = malloc(sizeof(*passage));

    if (!passage) {
        by_event_done(tag, -ENOMEM);
        return;
    }
    passage->tag = tag;
    atomic_init(&passage->waiting, 1);   /* ours, until all are posted */
    by_loop_each(post_passage, passage);
    passed(&(struct by_task){ .owner = passage });
}

/* ------------------------------------------------------------ start, stop */

int by_start(uint32_t flags)
{
    int error = 0;

    pthread_mutex_lock(&loops.lock);
    if (!loops.running) {
        error = by_events_start();
        if (!error) {
            error = by_pool_start();
        }
        by_trace_register("poll_grow");
        by_trace_register("poll_shrink");
        by_trace_register("loop_create");
        by_trace_register("loop_end");
        loops.never_ring = flags & 1;
        by_processors_count();
        loops.running = !error;
    }
    pthread_mutex_unlock(&loops.lock);
    return error;
}

static void end_all(void)
{
    for (int i = 0; i < BY_MAX_LOOPS; i++) {
        if (loops.slots[i]) {
            loops.live[i] = false;
            atomic_store_explicit(&loops.slots[i]->ending, 2,
                                  memory_order_release);
            wake(loops.slots[i]);
        }
    }
}

static void free_all(void)
{
    for (int i = 0; i < BY_MAX_LOOPS; i++) {
        if (loops.slots[i]) {
            close(loops.slots[i]->wake_fd);
            free(loops.slots[i]);
            loops.slots[i] = NULL;
        }
    }
}

/* The slots stay as they are without the lock: nothing starts any more. */
void by_stop(void)
{
    bool was_running;

    pthread_mutex_lock(&loops.lock);
    was_running = loops.running;
    loops.running = false;
    if (was_running) {
        end_all();
    }
    pthread_mutex_unlock(&loops.lock);
    if (!was_running) {
        return;
    }
    for (int i = 0; i < BY_MAX_LOOPS; i++) {
        if (loops.slots[i]) {
            pthread_join(loops.slots[i]->thread, NULL);
        }
    }
    /* A worker left behind still reports to its loop some day. */
    if (by_pool_stop()) {
        free_all();
    } else {
        memset(loops.slots, 0, sizeof(loops.slots));
    }
    by_events_stop();
}

void by_loop_fill_api(struct by_api *api)
{
    api->loop_current = by_loop_current;
    api->loop_now = by_loop_now;
    api->io_submit = by_io_submit;
    api->io_cancel = by_io_cancel;
    api->loop_post = by_loop_post;
    api->loop_defer = by_loop_defer;
    api->poller_add = by_poller_add;
    api->poller_remove = by_poller_remove;
    api->loop_has_ring = by_loop_has_ring;
    api->slab_get = by_slab_get;
    api->slab_put = by_slab_put;
    api->buffer_get = by_buffer_get;
    api->buffer_put = by_buffer_put;
    api->pool_submit = by_pool_submit;
    api->event = by_event_push;
    api->trace_on = by_trace_on;
    api->trace = by_trace;
    api->is_zero = by_is_zero;
    api->loop_submit_at = by_loop_submit_at;
}
