/* SPDX-License-Identifier: Apache-2.0 */
/*
 * blkdebug.c - requests that meet the rules, and go on to the image if none
 * of them says otherwise.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "debug.h"

/* A request that fails later, or is late. */
struct by_late {
    union {
        struct by_io timer;
        struct by_task task;
    };
    struct by_node *node;
    struct by_request *req;
    int error;
};

static int submit(struct by_node *node, struct by_request *req);

static uint32_t iotype_of(uint8_t op)
{
    switch (op) {
    case BY_OP_READ:
        return BY_BLKDEBUG_READ;
    case BY_OP_WRITE:
        return BY_BLKDEBUG_WRITE;
    case BY_OP_WRITE_ZEROES:
        return BY_BLKDEBUG_WRITE_ZEROES;
    case BY_OP_DISCARD:
        return BY_BLKDEBUG_DISCARD;
    case BY_OP_FLUSH:
        return BY_BLKDEBUG_FLUSH;
    case BY_OP_BLOCK_STATUS:
        return BY_BLKDEBUG_BLOCK_STATUS;
    default:
        return 0;
    }
}

static void end(struct by_late *late)
{
    struct by_node *node = late->node;
    struct by_request *req = late->req;
    int result = late->error;

    by_debug_api->slab_put(req->loop, late, sizeof(*late));
    if (result == 0) {
        result = by_debug_api->submit(node->children[0], req);
    }
    if (result != BY_PENDING) {
        by_debug_api->complete(req, result);
    }
}

static void timer_ended(struct by_io *timer, int result)
{
    (void)result;
    end(timer->owner);
}

static void task_ran(struct by_task *task)
{
    end(task->owner);
}

static int later(struct by_node *node, struct by_request *req, int error,
                 uint64_t delay_ns)
{
    struct by_late *late = by_debug_api->slab_get(req->loop, sizeof(*late));
    uint64_t now;

    if (!late) {
        return error ? error : -ENOMEM;
    }
    memset(late, 0, sizeof(*late));
    late->node = node;
    late->req = req;
    late->error = error;
    if (!delay_ns) {
        late->task.run = task_ran;
        late->task.owner = late;
        by_debug_api->loop_post(req->loop, &late->task);
        return BY_PENDING;
    }
    now = by_debug_api->loop_now(req->loop);
    late->timer.size = sizeof(late->timer);
    late->timer.op = BY_IO_TIMER;
    late->timer.offset = delay_ns > INT64_MAX - now ? INT64_MAX
                                                    : now + delay_ns;
    late->timer.done = timer_ended;
    late->timer.owner = late;
    by_debug_api->io_submit(req->loop, &late->timer);
    return BY_PENDING;
}

/* What the image is not asked for, as it would be too small for it. */
static int too_small(const struct by_blkdebug *debug,
                     const struct by_request *req)
{
    if (req->op == BY_OP_WRITE_ZEROES
        && req->bytes < debug->settings.write_zeroes_least) {
        return -ENOTSUP;
    }
    return 0;
}

/* A flush with nothing behind the last one meets no rule, as in QEMU. */
static bool flushes_nothing(struct by_blkdebug *debug,
                            const struct by_request *req)
{
    uint64_t written;

    if (req->op == BY_OP_WRITE || req->op == BY_OP_WRITE_ZEROES
        || req->op == BY_OP_DISCARD || req->op == BY_OP_TRUNCATE) {
        __atomic_add_fetch(&debug->written, 1, __ATOMIC_RELAXED);
    }
    if (req->op != BY_OP_FLUSH) {
        return false;
    }
    written = __atomic_load_n(&debug->written, __ATOMIC_RELAXED);
    return __atomic_load_n(&debug->flushed, __ATOMIC_RELAXED) == written;
}

static void flush_passes(struct by_blkdebug *debug,
                         const struct by_request *req)
{
    if (req->op == BY_OP_FLUSH) {
        __atomic_store_n(&debug->flushed,
                         __atomic_load_n(&debug->written, __ATOMIC_RELAXED),
                         __ATOMIC_RELAXED);
    }
}

static int submit(struct by_node *node, struct by_request *req)
{
    struct by_blkdebug *debug = node->state;
    uint32_t iotype = iotype_of(req->op);
    uint64_t delay_ns = 0;
    bool immediately = true;
    int error;

    error = too_small(debug, req);
    if (error) {
        return error;
    }
    if (iotype && !flushes_nothing(debug, req)) {
        error = by_blkdebug_check(debug, iotype, req->offset, req->bytes,
                                  &delay_ns, &immediately);
    }
    if (error == 0) {
        flush_passes(debug, req);
    }
    if (delay_ns || (error && !immediately)) {
        return later(node, req, error, delay_ns);
    }
    return error ? error : by_debug_api->submit(node->children[0], req);
}

static void again(struct by_task *task)
{
    struct by_held *held = task->owner;
    struct by_request *req = held->req;
    int result = BY_PENDING;

    if (!by_blkdebug_hold(held->node, req, again)) {
        result = submit(held->node, req);
    }
    free(held);
    if (result != BY_PENDING) {
        by_debug_api->complete(req, result);
    }
}

static int arrive(struct by_node *node, struct by_request *req)
{
    return by_blkdebug_hold(node, req, again) ? BY_PENDING
                                              : submit(node, req);
}

static void drain_begin(struct by_node *node)
{
    by_blkdebug_release(node->state, 1);
}

static void drain_end(struct by_node *node)
{
    by_blkdebug_release(node->state, -1);
}

#define EVERY_FLAG (BY_REQ_FUA | BY_REQ_MAY_UNMAP | BY_REQ_NO_FALLBACK       \
    | BY_REQ_WRITE_UNCHANGED | BY_REQ_COMPRESSED | BY_REQ_REGISTERED         \
    | BY_REQ_STABLE)

static const struct by_node_ops ops = {
    .size = sizeof(ops),
    .abi = BY_ABI_VERSION,
    .name = "blkdebug",
    .capabilities = BY_CAP_ANY_LOOP | BY_CAP_FILTER | BY_CAP_ZERO_NEW
        | BY_CAP_FAST_ZERO | BY_CAP_LISTENS,
    .serves = (BY_OP_BIT(BY_OP_COUNT) - 1) & ~BY_OP_BIT(BY_OP_COPY_RANGE),
    .flags = {
        [BY_OP_READ] = EVERY_FLAG,
        [BY_OP_WRITE] = EVERY_FLAG,
        [BY_OP_WRITE_ZEROES] = EVERY_FLAG,
        [BY_OP_DISCARD] = EVERY_FLAG,
    },
    .submit = arrive,
    .drain_begin = drain_begin,
    .drain_end = drain_end,
    .debug_event = by_blkdebug_announced,
};

uintptr_t by_blkdebug_ops(void)
{
    return (uintptr_t)&ops;
}
