/* SPDX-License-Identifier: Apache-2.0 */
/*
 * queue.c - life of a queue, and reading the kernel's requests.
 *
 * The loop waits until the descriptor is readable and then takes what is
 * there, up to a bound; each read gives one request.  When more requests are
 * in flight, or more memory is held for them, than the limits say, the kernel
 * keeps the rest until some have ended.
 *
 * The control thread makes a queue, hands it to the loop and may ask it to
 * stop; all else happens on the loop.  It has ended when it reads no more and
 * no request, wait or posted task of it is left; only then is BY_FUSE_ENDED
 * sent, and from then on only the control thread knows it.
 */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "queue.h"

#define BATCH 64              /* requests taken before others get their turn */
#define TIDE 4                /* below a limit, before reading goes on */

/* Between the control thread and the loop. */
enum { QUEUE_OPEN, QUEUE_POSTED, QUEUE_ENDED };

static void trace_life(const struct by_fuse_queue *queue, const char *name)
{
    if (queue->api->trace_on(name)) {
        queue->api->trace(name, "fd %d requests %llu in flight %llu "
                          "result %d", queue->fd,
                          (unsigned long long)queue->stats.requests,
                          (unsigned long long)queue->stats.in_flight,
                          queue->result);
    }
}

/* ------------------------------------------------------------------- end */

static void maybe_end(struct by_fuse_queue *queue)
{
    /* At the round's end, so that no caller finds the queue gone. */
    if (queue->stopping && !queue->end_due) {
        queue->end_due = true;
        queue->api->loop_defer(queue->loop, &queue->ender);
    }
}

static void stop(struct by_fuse_queue *queue, int result)
{
    if (!queue->stopping) {
        queue->stopping = true;
        queue->result = result;
        if (queue->polling) {
            queue->api->io_cancel(queue->loop, &queue->poll);
        }
    }
    maybe_end(queue);
}

/* The last thing that touches the queue. */
static void finish(struct by_fuse_queue *queue)
{
    const struct by_api *api = queue->api;
    struct by_event event = {
        .tag = queue->tag, .kind = BY_FUSE_ENDED, .result = queue->result,
        .a = queue->stats.requests,
    };
    uint32_t open = QUEUE_OPEN;

    trace_life(queue, "fuse_queue_end");
    if (queue->fd >= 0) {
        close(queue->fd);
        queue->fd = -1;
        if (queue->buffer) {
            api->buffer_put(queue->loop, queue->buffer, FUSE_MAX_IO);
        }
    }
    /* A task posted meanwhile must run first; it comes back here. */
    if (__atomic_compare_exchange_n(&queue->life, &open, QUEUE_ENDED, false,
                                    __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)) {
        api->event(&event);
    }
}

static void end(struct by_task *task)
{
    struct by_fuse_queue *queue = task->owner;

    queue->end_due = false;
    if (queue->started && !queue->polling && !queue->more_due
        && !queue->stats.in_flight) {
        finish(queue);
    }
}

/* --------------------------------------------------------------- reading */

static bool is_full(const struct by_fuse_queue *queue, uint64_t slack)
{
    const struct by_fuse_params *params = &queue->export->params;

    return queue->stats.in_flight + slack >= params->max_requests
        || (queue->stats.held && queue->stats.held >= params->max_held);
}

/* 0: a request is in head and buffer, of *bytes bytes. */
static int receive_one(struct by_fuse_queue *queue, size_t *bytes)
{
    struct iovec iov[2] = {
        { queue->head, FUSE_WRITE_HEAD },
        { queue->buffer, FUSE_MAX_IO },
    };
    ssize_t n = readv(queue->fd, iov, 2);

    fuse_count(&queue->stats.receives, 1);
    if (n <= 0) {
        /* A device has no end of file; what stands in for one may. */
        return n < 0 ? -errno : -ENODEV;
    }
    *bytes = (size_t)n;
    return 0;
}

/* All of a message but a WRITE's payload lies in head. */
static void join_head(struct by_fuse_queue *queue, size_t bytes)
{
    size_t rest = bytes > FUSE_WRITE_HEAD ? bytes - FUSE_WRITE_HEAD : 0;
    struct fuse_in_header in;

    memcpy(&in, queue->head, sizeof(in));
    if (bytes < sizeof(in) || in.opcode == FUSE_WRITE) {
        return;
    }
    if (rest > FUSE_HEAD_BYTES - FUSE_WRITE_HEAD) {
        rest = FUSE_HEAD_BYTES - FUSE_WRITE_HEAD;
    }
    memcpy(queue->head + FUSE_WRITE_HEAD, queue->buffer, rest);
}

/* A payload's buffer that went with its request is replaced. */
static bool have_buffer(struct by_fuse_queue *queue)
{
    if (!queue->buffer) {
        queue->buffer = queue->api->buffer_get(queue->loop, FUSE_MAX_IO);
    }
    return queue->buffer != NULL;
}

static void wait_for_more(struct by_fuse_queue *queue)
{
    if (!queue->stopping && !queue->polling && !queue->paused) {
        queue->polling = true;
        queue->api->io_submit(queue->loop, &queue->poll);
    }
}

/* True while there may be more to read at once. */
static bool receive_next(struct by_fuse_queue *queue)
{
    size_t bytes = 0;
    int result = have_buffer(queue) ? receive_one(queue, &bytes) : -ENOMEM;

    switch (result) {
    case 0:
        join_head(queue, bytes);
        fuse_handle(queue, bytes);
        return true;
    case -EINTR:
    case -ENOENT: /* the request went away while it was read */
        return true;
    case -EAGAIN:
        return false;
    case -ENOMEM:
        if (queue->stats.in_flight) {
            queue->paused = true; /* its end brings us back */
            return false;
        }
        /* fall through */
    default:
        stop(queue, result);
        return false;
    }
}

static void receive(struct by_fuse_queue *queue)
{
    int taken = 0;

    queue->paused = false;
    while (!queue->stopping && taken < BATCH) {
        if (is_full(queue, 0)) {
            queue->paused = true;
            break;
        }
        if (!receive_next(queue)) {
            break;
        }
        taken++;
    }
    wait_for_more(queue);
}

static void readable(struct by_io *io, int result)
{
    struct by_fuse_queue *queue = io->owner;

    queue->polling = false;
    if (result < 0 && result != -ECANCELED) {
        stop(queue, result);
    }
    if (queue->stopping) {
        maybe_end(queue);
    } else {
        receive(queue);
    }
}

static void more(struct by_task *task)
{
    struct by_fuse_queue *queue = task->owner;

    queue->more_due = false;
    if (queue->stopping) {
        maybe_end(queue);
    } else {
        receive(queue);
    }
}

/* A request has ended: is there room for others, or was it the last? */
void fuse_more(struct by_fuse_queue *queue)
{
    if (queue->stopping) {
        maybe_end(queue);
    } else if (queue->paused && !queue->more_due
               && (!is_full(queue, TIDE) || !queue->stats.in_flight)) {
        queue->more_due = true;
        queue->api->loop_defer(queue->loop, &queue->more);
    }
}

/* ------------------------------------------------------ begin and control */

static void start(struct by_task *task)
{
    struct by_fuse_queue *queue = task->owner;

    queue->started = true;
    trace_life(queue, "fuse_queue_start");
    if (queue->stopping) {
        maybe_end(queue);
    } else {
        receive(queue);
    }
}

static void posted_stop(struct by_task *task)
{
    struct by_fuse_queue *queue = task->owner;

    __atomic_store_n(&queue->life, QUEUE_OPEN, __ATOMIC_SEQ_CST);
    if (queue->fd < 0) {
        finish(queue);
    } else {
        stop(queue, 0);
    }
}

void by_fuse_stop(struct by_fuse_queue *queue)
{
    uint32_t open = QUEUE_OPEN;

    if (__atomic_compare_exchange_n(&queue->life, &open, QUEUE_POSTED, false,
                                    __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)) {
        queue->api->loop_post(queue->loop, &queue->posted);
    }
}

static void own_task(struct by_task *task, void (*run)(struct by_task *),
                     struct by_fuse_queue *queue)
{
    task->run = run;
    task->owner = queue;
}

struct by_fuse_queue *by_fuse_start(struct by_fuse_export *export,
                                    uintptr_t loop, int fd, uint64_t tag,
                                    int *error)
{
    struct by_fuse_queue *queue = calloc(1, sizeof(*queue));

    *error = queue ? 0 : -ENOMEM;
    if (!queue) {
        return NULL;
    }
    queue->api = export->api;
    queue->export = export;
    queue->loop = (struct by_loop *)loop;
    queue->fd = fd;
    queue->tag = tag;
    queue->poll = (struct by_io) {
        .size = sizeof(queue->poll), .op = BY_IO_POLL, .fd = fd,
        .flags = POLLIN, .done = readable, .owner = queue,
    };
    own_task(&queue->starter, start, queue);
    own_task(&queue->more, more, queue);
    own_task(&queue->ender, end, queue);
    own_task(&queue->posted, posted_stop, queue);
    queue->api->loop_post(queue->loop, &queue->starter);
    return queue;
}

void by_fuse_get_stats(const struct by_fuse_queue *queue,
                       struct by_fuse_stats *out)
{
    const uint64_t *from = (const uint64_t *)&queue->stats;
    uint64_t *to = (uint64_t *)out;

    for (size_t i = 0; i < sizeof(*out) / sizeof(*to); i++) {
        to[i] = __atomic_load_n(&from[i], __ATOMIC_RELAXED);
    }
}

void by_fuse_free(struct by_fuse_queue *queue)
{
    free(queue);
}
