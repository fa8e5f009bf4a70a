/* SPDX-License-Identifier: Apache-2.0 */
/*
 * world.h - what a native test of the format runs in: loops, core's table of
 * functions, and a disk in memory.
 *
 * The disk knows what is stable.  A write goes to a log, which a flush empties
 * up to where it was when the flush was submitted; power_cut() answers the
 * stable bytes with any subset of the logged sectors on top.
 */
#ifndef BLOCKYARD_QCOW2_WORLD_H
#define BLOCKYARD_QCOW2_WORLD_H

#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "image.h"

#define CHECK(condition) do { \
    if (!(condition)) { \
        fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition); \
        abort(); \
    } \
} while (0)

/* --------------------------------------------------------------- chance */

static inline uint64_t chance_next(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15ull;

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ z >> 27) * 0x94d049bb133111ebull;
    return z ^ z >> 31;
}

static inline uint64_t chance_below(uint64_t *state, uint64_t n)
{
    return chance_next(state) % n;
}

/* ---------------------------------------------------------------- loops */

struct by_loop {
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    struct by_task *tasks, **end;
    bool ends;
};

static __thread struct by_loop *world_loop;

static void world_post(struct by_loop *loop, struct by_task *task)
{
    pthread_mutex_lock(&loop->lock);
    task->next = NULL;
    *loop->end = task;
    loop->end = &task->next;
    pthread_cond_signal(&loop->wake);
    pthread_mutex_unlock(&loop->lock);
}

static void *world_loop_main(void *argument)
{
    struct by_loop *loop = argument;

    world_loop = loop;
    pthread_mutex_lock(&loop->lock);
    while (loop->tasks || !loop->ends) {
        struct by_task *task = loop->tasks;

        if (!task) {
            pthread_cond_wait(&loop->wake, &loop->lock);
            continue;
        }
        loop->tasks = task->next;
        if (!loop->tasks) {
            loop->end = &loop->tasks;
        }
        pthread_mutex_unlock(&loop->lock);
        task->run(task);
        pthread_mutex_lock(&loop->lock);
    }
    pthread_mutex_unlock(&loop->lock);
    return NULL;
}

static inline void world_loop_start(struct by_loop *loop)
{
    pthread_mutex_init(&loop->lock, NULL);
    pthread_cond_init(&loop->wake, NULL);
    loop->tasks = NULL;
    loop->end = &loop->tasks;
    loop->ends = false;
    CHECK(!pthread_create(&loop->thread, NULL, world_loop_main, loop));
}

static inline void world_loop_stop(struct by_loop *loop)
{
    pthread_mutex_lock(&loop->lock);
    loop->ends = true;
    pthread_cond_signal(&loop->wake);
    pthread_mutex_unlock(&loop->lock);
    pthread_join(loop->thread, NULL);
    pthread_cond_destroy(&loop->wake);
    pthread_mutex_destroy(&loop->lock);
}

/* ------------------------------------------------------- core's functions */

/* What the layer above had set, beside each frame. */
struct world_kept {
    uint64_t offset, bytes, iov_skip;
    const struct iovec *iov;
    uint32_t niov, flags;
    uint64_t padding;
};

static struct by_frame *world_push(struct by_request *req, size_t bytes,
        int (*done)(struct by_request *, struct by_frame *, int))
{
    struct world_kept *kept = malloc(sizeof(*kept) + bytes);
    struct by_frame *frame = (struct by_frame *)(kept + 1);

    *kept = (struct world_kept) {
        req->offset, req->bytes, req->iov_skip, req->iov, req->niov,
        req->flags, 0,
    };
    frame->below = req->frame;
    frame->done = done;
    frame->bytes = bytes;
    req->frame = frame;
    return frame;
}

static void world_pop(struct by_request *req)
{
    struct world_kept *kept = (struct world_kept *)req->frame - 1;

    req->frame = req->frame->below;
    req->offset = kept->offset;
    req->bytes = kept->bytes;
    req->iov_skip = kept->iov_skip;
    req->iov = kept->iov;
    req->niov = kept->niov;
    req->flags = kept->flags;
    free(kept);
}

static int world_submit(struct by_node *node, struct by_request *req)
{
    CHECK(world_loop == req->loop);
    return node->ops->submit(node, req);
}

static void world_complete(struct by_request *req, int result)
{
    CHECK(world_loop == req->loop);
    while (req->frame) {
        result = req->frame->done(req, req->frame, result);
        if (result == BY_PENDING) {
            return;
        }
        world_pop(req);
    }
    req->done(req, result);
}

struct world_wait {
    struct by_task task;
    struct by_node *node;
    struct by_request *req;
    pthread_mutex_t lock;
    pthread_cond_t ended;
    bool over;
    int result;
};

static void world_wait_end(struct world_wait *w, int result)
{
    pthread_mutex_lock(&w->lock);
    w->result = result;
    w->over = true;
    pthread_cond_signal(&w->ended);
    pthread_mutex_unlock(&w->lock);
}

static void world_wait_done(struct by_request *req, int result)
{
    world_wait_end(req->owner, result);
}

static void world_wait_run(struct by_task *task)
{
    struct world_wait *w = task->owner;
    int result = world_submit(w->node, w->req);

    if (result != BY_PENDING) {
        world_wait_end(w, result);
    }
}

static int world_wait(struct by_node *node, struct by_request *req)
{
    struct world_wait w = {
        .task = { .run = world_wait_run }, .node = node, .req = req,
        .lock = PTHREAD_MUTEX_INITIALIZER, .ended = PTHREAD_COND_INITIALIZER,
    };

    CHECK(!world_loop);
    w.task.owner = &w;
    req->loop = node->home;
    req->done = world_wait_done;
    req->owner = &w;
    world_post(req->loop, &w.task);
    pthread_mutex_lock(&w.lock);
    while (!w.over) {
        pthread_cond_wait(&w.ended, &w.lock);
    }
    pthread_mutex_unlock(&w.lock);
    return w.result;
}

static struct by_loop *world_current(void)
{
    return world_loop;
}

static void world_set_length(struct by_node *node, uint64_t length)
{
    __atomic_store_n(&node->length, length, __ATOMIC_RELEASE);
}

static void *world_get(struct by_loop *loop, size_t bytes)
{
    (void)loop;
    return malloc(bytes);
}

static void world_put(struct by_loop *loop, void *piece, size_t bytes)
{
    (void)loop;
    (void)bytes;
    free(piece);
}

static int world_events;
static struct by_event world_event_last;

static void world_event(const struct by_event *event)
{
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

    pthread_mutex_lock(&lock);
    world_event_last = *event;
    pthread_mutex_unlock(&lock);
    __atomic_add_fetch(&world_events, 1, __ATOMIC_SEQ_CST);
}

static bool world_trace_on(const char *name)
{
    (void)name;
    return false;
}

static bool world_is_zero(const void *bytes, size_t count)
{
    const char *at = bytes;

    while (count && !*at) {
        at++;
        count--;
    }
    return !count;
}

static int world_work_result(struct by_work *work)
{
    work->result = work->run(work);
    return work->result;
}

static void world_work_done(struct by_task *task)
{
    struct by_work *work = task->owner;

    free(task);
    work->done(work, work->result);
}

/* Not on another thread: that it is asynchronous is what matters here. */
static void world_pool(struct by_loop *loop, struct by_work *work)
{
    struct by_task *task = malloc(sizeof(*task));

    work->loop = loop;
    world_work_result(work);
    task->run = world_work_done;
    task->owner = work;
    world_post(loop, task);
}

static const struct by_api world_api = {
    .size = sizeof(world_api),
    .abi = BY_ABI_VERSION,
    .submit = world_submit,
    .complete = world_complete,
    .frame_push = world_push,
    .frame_pop = world_pop,
    .node_set_length = world_set_length,
    .loop_current = world_current,
    .loop_post = world_post,
    .loop_defer = world_post,
    .slab_get = world_get,
    .slab_put = world_put,
    .buffer_get = world_get,
    .buffer_put = world_put,
    .pool_submit = world_pool,
    .event = world_event,
    .trace_on = world_trace_on,
    .is_zero = world_is_zero,
    .wait = world_wait,
};

#endif /* BLOCKYARD_QCOW2_WORLD_H */
