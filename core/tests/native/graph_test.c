/* SPDX-License-Identifier: Apache-2.0 */
/*
 * graph_test.c - the request path over a node in memory that answers at once,
 * later or out of order, with and without limits, against a plain model.
 *
 * Usage: graph_test SEED [ring|epoll]; exits 0 when every check held.
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "graph.h"

#define DISK (1u << 20)
#define CHECK(x) do { if (!(x)) { \
    fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #x); abort(); } } while (0)

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
    int fail_next;
    uint64_t flushes, submitted;
};

struct memory_op {
    struct by_frame frame;
    struct by_task task;
    struct by_request *req;
    struct memory *memory;
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

static int act(struct memory *m, struct by_request *req)
{
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
        m->flushes++;
        return 0;
    case BY_OP_TRUNCATE:
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
    by_complete(req, act(op->memory, req));
}

static int memory_submit(struct by_node *node, struct by_request *req)
{
    struct memory *m = node->state;
    uint32_t align = m->limits.request_alignment;
    struct memory_op *op;

    m->submitted++;
    if (align && req->op <= BY_OP_WRITE_ZEROES && req->op != BY_OP_FLUSH) {
        CHECK(!((req->offset | req->bytes) & (align - 1)));
    }
    if (m->limits.max_transfer && req->op <= BY_OP_WRITE) {
        CHECK(req->bytes <= m->limits.max_transfer);
    }
    if (!m->later) {
        return act(m, req);
    }
    op = (struct memory_op *)by_frame_push(req, sizeof(*op), memory_done);
    CHECK(op);
    op->req = req;
    op->memory = m;
    op->hops = m->submitted * 7 % 4;
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

/* ---- random histories against a model */

struct world {
    struct by_loop *loops[2];
    struct memory memory;
    struct by_node *base, *top;
    struct by_root *root;
    unsigned char *model;
};

static struct by_access random_access(void)
{
    static const uint8_t ops[] = {
        BY_OP_READ, BY_OP_WRITE, BY_OP_WRITE, BY_OP_WRITE_ZEROES,
        BY_OP_FLUSH, BY_OP_DISCARD,
    };
    struct by_access access = { .op = ops[rng() % sizeof(ops)] };
    uint64_t size = 1 + rng() % (rng() % 3 ? 5000 : 200000);

    if (access.op != BY_OP_FLUSH) {
        access.offset = rng() % (DISK - size);
        access.bytes = size;
    }
    access.flags = rng() % 4 ? 0 : BY_REQ_FUA;
    if (rng() % 8 == 0) {
        access.flags |= BY_REQ_SERIALISING;
    }
    return access;
}

/* Eight lanes of the disk that do not overlap, so that the model is exact
 * while eight requests run at a time; blocks at the borders are shared, which
 * is what the gate is for. */
static void history(struct world *w, int rounds)
{
    enum { N = 8 };
    static unsigned char buffers[N][DISK / N + 64];
    struct by_access access[N];

    for (int round = 0; round < rounds; round++) {
        for (int i = 0; i < N; i++) {
            uint64_t lane = DISK / N * i, room = DISK / N;
            struct by_access *a = &access[i];

            *a = random_access();
            if (a->op != BY_OP_FLUSH) {
                a->offset = lane + rng() % room;
                if (a->bytes > lane + room - a->offset) {
                    a->bytes = lane + room - a->offset;
                }
            }
            a->buffer = buffers[i] + rng() % 64;
            a->tag = 100 + i;
            memset(a->buffer, rng() % 3 ? (int)rng() : 0, a->bytes);
            if (a->op == BY_OP_WRITE) {
                memcpy(w->model + a->offset, a->buffer, a->bytes);
            } else if (a->op == BY_OP_WRITE_ZEROES) {
                memset(w->model + a->offset, 0, a->bytes);
            }
            CHECK(by_access_start(w->root, false, a, NULL) == 0);
        }
        for (int left = N; left; left--) {
            CHECK(next_event().result == 0);
        }
        for (int i = 0; i < N; i++) {
            if (access[i].op == BY_OP_READ) {
                CHECK(!memcmp(access[i].buffer, w->model + access[i].offset,
                              access[i].bytes));
            }
        }
    }
    CHECK(!memcmp(w->model, w->memory.bytes, DISK));
}

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
    w->memory.bytes = calloc(1, DISK);
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

static void test_histories(void)
{
    static const struct { uint32_t align; uint64_t max; } limits[] = {
        { 0, 0 }, { 512, 0 }, { 4096, 16384 }, { 1, 3000 }, { 512, 1536 },
    };

    for (size_t i = 0; i < sizeof(limits) / sizeof(limits[0]); i++) {
        for (int later = 0; later < 2; later++) {
            struct world w;

            open_world(&w, i % 2 ? &zeroing_ops : &plain_ops,
                       limits[i].align, limits[i].max, later);
            by_node_set_detect_zeroes(w.base, i % 3);
            history(&w, 60);
            close_world(&w);
        }
    }
}

/* ---- single rules */

static int access_wait(struct world *w, uint8_t op, uint64_t offset,
                       uint64_t bytes, void *buffer, uint32_t flags)
{
    struct by_access access = {
        .op = op, .offset = offset, .bytes = bytes, .buffer = buffer,
        .flags = flags,
    };

    return by_access_wait(w->root, false, &access, NULL);
}

static void test_bounds_and_rights(void)
{
    struct world w;
    char buffer[512] = { 0 };

    open_world(&w, &plain_ops, 0, 0, false);
    CHECK(access_wait(&w, BY_OP_READ, DISK, 1, buffer, 0) == -EIO);
    CHECK(access_wait(&w, BY_OP_READ, UINT64_MAX, 2, buffer, 0) == -EIO);
    CHECK(access_wait(&w, BY_OP_WRITE, DISK - 1, 2, buffer, 0) == -EIO);
    by_root_set_writable(w.root, false, false);
    CHECK(access_wait(&w, BY_OP_WRITE, 0, 1, buffer, 0) == -EPERM);
    CHECK(access_wait(&w, BY_OP_READ, DISK - 1, 1, buffer, 0) == 0);
    w.memory.fail_next = -ENOSPC;
    CHECK(access_wait(&w, BY_OP_READ, 0, 1, buffer, 0) == -ENOSPC);
    close_world(&w);
}

static void test_fua_is_a_flush_behind(void)
{
    struct world w;
    char buffer[512] = { 0 };

    open_world(&w, &plain_ops, 0, 0, true);
    CHECK(access_wait(&w, BY_OP_WRITE, 0, 512, buffer, BY_REQ_FUA) == 0);
    CHECK(w.memory.flushes == 1);
    by_root_set_writethrough(w.root, true);
    CHECK(access_wait(&w, BY_OP_WRITE, 0, 512, buffer, 0) == 0);
    CHECK(w.memory.flushes == 2);
    by_node_set_no_flush(w.base, true);
    CHECK(access_wait(&w, BY_OP_WRITE, 0, 512, buffer, 0) == 0);
    CHECK(access_wait(&w, BY_OP_FLUSH, 0, 0, NULL, 0) == 0);
    CHECK(w.memory.flushes == 2);
    close_world(&w);
}

static void test_zeroes_fall_back_or_not(void)
{
    struct world w;
    char buffer[512];

    open_world(&w, &plain_ops, 0, 0, true);
    memset(buffer, 7, sizeof(buffer));
    CHECK(access_wait(&w, BY_OP_WRITE, 100, 512, buffer, 0) == 0);
    CHECK(access_wait(&w, BY_OP_WRITE_ZEROES, 100, 256, NULL,
                      BY_REQ_NO_FALLBACK) == -ENOTSUP);
    CHECK(w.memory.bytes[100] == 7);
    CHECK(access_wait(&w, BY_OP_WRITE_ZEROES, 100, 256, NULL, 0) == 0);
    CHECK(w.memory.bytes[100] == 0 && w.memory.bytes[356] == 7);
    close_world(&w);
}

static void test_threshold_reports_once(void)
{
    struct world w;
    struct by_event event;
    char buffer[512] = { 0 };

    open_world(&w, &plain_ops, 0, 0, false);
    by_node_set_threshold(w.top, 1000, 77);
    CHECK(access_wait(&w, BY_OP_WRITE, 0, 512, buffer, 0) == 0);
    CHECK(access_wait(&w, BY_OP_WRITE, 600, 512, buffer, 0) == 0);
    CHECK(access_wait(&w, BY_OP_WRITE, 6000, 512, buffer, 0) == 0);
    CHECK(by_event_take(&event, 1) == 1);
    CHECK(event.tag == 77 && event.kind == BY_EVENT_THRESHOLD);
    CHECK(event.a == 112 && event.b == 1000);
    CHECK(by_event_take(&event, 1) == 0);
    CHECK(by_node_get_threshold(w.top) == 0);
    close_world(&w);
}

static void test_drain_parks_and_nests(void)
{
    struct world w;
    struct by_node *nodes[2];
    char buffer[4096] = { 0 };
    struct by_access access = {
        .op = BY_OP_WRITE, .bytes = 4096, .buffer = buffer, .tag = 9,
    };
    struct by_stats stats;
    int ended = 0;

    open_world(&w, &plain_ops, 512, 0, true);
    nodes[0] = w.top;
    nodes[1] = w.base;
    for (int i = 0; i < 50; i++) {
        CHECK(by_access_start(w.root, false, &access, NULL) == 0);
    }
    CHECK(by_drain_begin(&w.root, 1, nodes, 2, 20) == 0);
    CHECK(by_drain_begin(&w.root, 1, nodes, 2, 21) == 0);
    for (int begun = 0; begun < 2;) {
        struct by_event event = next_event();

        ended += event.tag == 9;
        begun += event.tag == 20 || event.tag == 21;
    }
    by_node_get_stats(w.base, &stats);
    CHECK(stats.in_flight == 0);
    w.memory.submitted = 0;
    CHECK(by_access_start(w.root, false, &access, NULL) == 0);
    CHECK(by_drain_end(&w.root, 1, nodes, 2, 22) == 0);
    wait_event(22, 0);
    CHECK(w.memory.submitted == 0);
    access.tag = 10;
    CHECK(by_access_start(w.root, true, &access, NULL) == 0);
    wait_event(10, 0);
    CHECK(w.memory.submitted == 1);
    CHECK(by_drain_end(&w.root, 1, nodes, 2, 23) == 0);
    for (int parked = 51 - ended; parked;) {
        parked -= next_event().tag == 9;
    }
    CHECK(w.memory.submitted == 1 + 51u - ended);
    close_world(&w);
}

static void test_statistics(void)
{
    struct world w;
    struct by_stats stats;
    char buffer[512] = { 0 };

    open_world(&w, &plain_ops, 0, 0, true);
    CHECK(access_wait(&w, BY_OP_WRITE, 1000, 512, buffer, 0) == 0);
    CHECK(access_wait(&w, BY_OP_READ, 0, 512, buffer, 0) == 0);
    CHECK(access_wait(&w, BY_OP_READ, DISK, 512, buffer, 0) == -EIO);
    by_root_get_stats(w.root, &stats);
    CHECK(stats.op[BY_OP_WRITE].done == 1);
    CHECK(stats.op[BY_OP_WRITE].bytes == 512);
    CHECK(stats.op[BY_OP_READ].done == 1);
    CHECK(stats.op[BY_OP_READ].invalid == 1);
    CHECK(stats.write_highest == 1512);
    CHECK(stats.in_flight == 0);
    close_world(&w);
}

static void test_truncate_sets_the_length(void)
{
    struct world w;

    open_world(&w, &plain_ops, 0, 0, true);
    CHECK(access_wait(&w, BY_OP_TRUNCATE, DISK / 2, 0, NULL, 0) == 0);
    CHECK(by_node_get_length(w.base) == DISK / 2);
    CHECK(by_node_get_length(w.top) == DISK / 2);
    close_world(&w);
}

int main(int argc, char **argv)
{
    rng_state = argc > 1 ? strtoull(argv[1], NULL, 0) | 1 : 88172645463325252u;
    CHECK(by_start(argc > 2 && !strcmp(argv[2], "epoll")) == 0);
    test_bounds_and_rights();
    test_fua_is_a_flush_behind();
    test_zeroes_fall_back_or_not();
    test_threshold_reports_once();
    test_drain_parks_and_nests();
    test_statistics();
    test_truncate_sets_the_length();
    test_histories();
    by_stop();
    puts("ok");
    return 0;
}
