/* SPDX-License-Identifier: Apache-2.0 */
/*
 * graph_world.h - what the tests of the request path share: a node in memory
 * that answers at once, later or out of order, a filter above it, a root, and
 * waiting for events.
 */
#ifndef BLOCKYARD_GRAPH_WORLD_H
#define BLOCKYARD_GRAPH_WORLD_H

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "graph.h"

#define DISK (1u << 20)
#define ROOM (2 * DISK) /* that the memory has, for nodes that grow */
#define CHECK(x) do { \
    if (!(x)) { \
        fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #x); \
        abort(); \
    } \
} while (0)

#pragma GCC diagnostic ignored "-Wunused-function"
#pragma GCC diagnostic ignored "-Wunused-const-variable"

static uint64_t rng_state;

static uint64_t rng(void)
{
    rng_state ^= rng_state << 13;
    rng_state ^= rng_state >> 7;
    rng_state ^= rng_state << 17;
    return rng_state;
}

/* ---- a disk in memory */

struct memory {
    unsigned char *bytes;
    struct by_limits limits;
    bool later;
    bool in_sectors;             /* its length counts so, as a file's does */
    int fail_next;
    uint64_t flushes, submitted; /* atomic, as all that follows */
    uint64_t done[BY_OP_COUNT];
    uint32_t flags[BY_OP_COUNT]; /* of the last request */
};

static inline uint64_t count(uint64_t *counter)
{
    return __atomic_add_fetch(counter, 1, __ATOMIC_RELAXED);
}

struct memory_op {
    struct by_frame frame;
    struct by_task task;
    struct by_request *req;
    struct by_node *node;
    int hops;
};

static void transfer(struct memory *m, struct by_request *req)
{
    struct iovec iov[1024];
    int n = by_iov_slice(req->iov, req->niov, req->iov_skip, req->bytes, iov,
                         1024);
    uint64_t at = req->offset;

    CHECK(n >= 0);
    for (int i = 0; i < n; i++) {
        uintptr_t mask = m->limits.memory_alignment
            ? m->limits.memory_alignment - 1 : 0;

        CHECK(!((uintptr_t)iov[i].iov_base & mask));
        if (req->op == BY_OP_READ) {
            memcpy(iov[i].iov_base, m->bytes + at, iov[i].iov_len);
        } else {
            memcpy(m->bytes + at, iov[i].iov_base, iov[i].iov_len);
        }
        at += iov[i].iov_len;
    }
    CHECK(at == req->offset + req->bytes);
}

static int act(struct by_node *node, struct by_request *req)
{
    struct memory *m = node->state;

    count(&m->done[req->op]);
    __atomic_store_n(&m->flags[req->op], req->flags, __ATOMIC_RELAXED);
    if (m->fail_next) {
        int result = m->fail_next;

        m->fail_next = 0;
        return result;
    }
    switch (req->op) {
    case BY_OP_READ:
    case BY_OP_WRITE:
        transfer(m, req);
        return 0;
    case BY_OP_WRITE_ZEROES:
        memset(m->bytes + req->offset, 0, req->bytes);
        return 0;
    case BY_OP_FLUSH:
        count(&m->flushes);
        return 0;
    case BY_OP_DISCARD:
        return 0;
    case BY_OP_TRUNCATE:
        if (m->in_sectors) {
            by_node_set_length(node, (req->offset + 511) & ~511ull);
        }
        return 0;
    default:
        return -ENOTSUP;
    }
}

static int memory_done(struct by_request *req, struct by_frame *frame,
                       int result)
{
    (void)req;
    (void)frame;
    return result;
}

static void act_later(struct by_task *task)
{
    struct memory_op *op = task->owner;
    struct by_request *req = op->req;

    if (op->hops-- > 0) {
        by_loop_post(req->loop, &op->task);
        return;
    }
    by_complete(req, act(op->node, req));
}

static int memory_submit(struct by_node *node, struct by_request *req)
{
    struct memory *m = node->state;
    uint32_t align = m->limits.request_alignment;
    uint64_t number = count(&m->submitted);
    struct memory_op *op;

    if (align && req->op <= BY_OP_WRITE_ZEROES && req->op != BY_OP_FLUSH) {
        CHECK(!((req->offset | req->bytes) & (align - 1)));
    }
    if (m->limits.max_transfer && req->op <= BY_OP_WRITE) {
        CHECK(req->bytes <= m->limits.max_transfer);
    }
    if (!m->later) {
        return act(node, req);
    }
    op = (struct memory_op *)by_frame_push(req, sizeof(*op), memory_done);
    CHECK(op);
    op->req = req;
    op->node = node;
    op->hops = number * 7 % 4;
    op->task.run = act_later;
    op->task.owner = op;
    by_loop_post(req->loop, &op->task);
    return BY_PENDING;
}

#define BASIC (BY_OP_BIT(BY_OP_READ) | BY_OP_BIT(BY_OP_WRITE) \
               | BY_OP_BIT(BY_OP_FLUSH) | BY_OP_BIT(BY_OP_TRUNCATE))

static const struct by_node_ops plain_ops = {
    .size = sizeof(plain_ops), .abi = BY_ABI_VERSION, .name = "memory",
    .serves = BASIC, .submit = memory_submit,
};
static const struct by_node_ops zeroing_ops = {
    .size = sizeof(zeroing_ops), .abi = BY_ABI_VERSION, .name = "memory",
    .capabilities = BY_CAP_REPEATS_READS,
    .serves = BASIC | BY_OP_BIT(BY_OP_WRITE_ZEROES),
    .submit = memory_submit,
};

/* Every operation, every loop; copies are refused when they are tried. */
static const struct by_node_ops busy_ops = {
    .size = sizeof(busy_ops), .abi = BY_ABI_VERSION, .name = "memory",
    .capabilities = BY_CAP_ANY_LOOP,
    .serves = BASIC | BY_OP_BIT(BY_OP_WRITE_ZEROES) | BY_OP_BIT(BY_OP_DISCARD)
        | BY_OP_BIT(BY_OP_COPY_RANGE),
    .flags = { [BY_OP_WRITE_ZEROES] = BY_REQ_FUA },
    .submit = memory_submit,
};

static int copying_submit(struct by_node *node, struct by_request *req)
{
    struct memory *m = node->state;

    if (req->op != BY_OP_COPY_RANGE) {
        return memory_submit(node, req);
    }
    memmove(m->bytes + req->u.copy.target_offset, m->bytes + req->offset,
            req->bytes);
    return 0;
}

/* Copies inside one memory. */
static const struct by_node_ops copying_ops = {
    .size = sizeof(copying_ops), .abi = BY_ABI_VERSION, .name = "memory",
    .capabilities = BY_CAP_ANY_LOOP,
    .serves = BASIC | BY_OP_BIT(BY_OP_COPY_RANGE), .submit = copying_submit,
};

static int forward(struct by_node *node, struct by_request *req)
{
    return by_submit(node->children[0], req);
}

static const struct by_node_ops filter_ops = {
    .size = sizeof(filter_ops), .abi = BY_ABI_VERSION, .name = "pass",
    .capabilities = BY_CAP_ANY_LOOP | BY_CAP_FILTER, .serves = 0x1ff,
    .submit = forward,
};

/* ---- waiting for events */

static struct by_event next_event(void)
{
    struct by_event event;
    struct pollfd fd = { .fd = by_event_fd(), .events = POLLIN };

    while (by_event_take(&event, 1) != 1) {
        CHECK(poll(&fd, 1, 20000) == 1);
    }
    return event;
}

static void wait_event(uint64_t tag, int expected)
{
    struct by_event event;

    do {
        event = next_event();
    } while (event.tag != tag);
    CHECK(event.result == expected);
}

/* ---- two loops, a node, a filter above it and a root */

struct world {
    struct by_loop *loops[2];
    struct memory memory;
    struct by_node *base, *top;
    struct by_root *root;
    unsigned char *model;
};

static void open_world(struct world *w, const struct by_node_ops *ops,
                       uint32_t align, uint64_t max, bool later)
{
    struct by_loop_params params = { .poll_max_ns = 0 };
    int error = 0;

    memset(w, 0, sizeof(*w));
    for (int i = 0; i < 2; i++) {
        w->loops[i] = by_loop_create("test", &params, &error);
        CHECK(w->loops[i]);
    }
    w->memory.bytes = calloc(1, ROOM);
    w->model = calloc(1, DISK);
    w->memory.later = later;
    w->memory.limits = (struct by_limits) {
        .size = sizeof(struct by_limits), .request_alignment = align,
        .memory_alignment = align, .max_transfer = max,
    };
    w->base = by_node_create(ops, &w->memory, 0, w->loops[0]);
    CHECK(w->base);
    by_node_set_limits(w->base, &w->memory.limits);
    by_node_set_length(w->base, DISK);
    w->top = by_node_create(&filter_ops, NULL, 1, w->loops[1]);
    by_node_set_length(w->top, DISK);
    by_node_set_child(w->top, 0, w->base);
    w->root = by_root_create(w->top);
    by_root_set_writable(w->root, true, false);
}

static void close_world(struct world *w)
{
    CHECK(by_root_free(w->root, 1) == 0);
    wait_event(1, 0);
    CHECK(by_node_free(w->top, 2) == 0);
    wait_event(2, 0);
    CHECK(by_node_free(w->base, 3) == 0);
    wait_event(3, 0);
    for (int i = 0; i < 2; i++) {
        by_loop_destroy(w->loops[i], 4);
        wait_event(4, 0);
    }
    free(w->memory.bytes);
    free(w->model);
}

static int access_wait(struct world *w, uint8_t op, uint64_t offset,
                       uint64_t bytes, void *buffer, uint32_t flags)
{
    struct by_access access = {
        .op = op, .offset = offset, .bytes = bytes, .buffer = buffer,
        .flags = flags,
    };

    return by_access_wait(w->root, false, &access, NULL);
}

#endif /* BLOCKYARD_GRAPH_WORLD_H */
