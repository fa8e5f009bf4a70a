/* SPDX-License-Identifier: Apache-2.0 */
/*
 * storm.h - a filter under requests of every length from several loops at
 * once, above disks in memory that answer now or later and fail at times.
 * Each lane of requests holds its own part of a disk to a model.
 *
 * The program of a plugin's that includes this builds the graph, calls
 * storm_run, and exits 0 when every check held.
 */
#ifndef BLOCKYARD_STORM_H
#define BLOCKYARD_STORM_H

#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../csrc/control.h"

#define CHECK(x) do { if (!(x)) { \
    fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #x); exit(1); } \
} while (0)

#define LOOPS 2
#define LANES 12                /* requests at a time, for each loop */
#define PART (128 * 1024)       /* of the disk, for each lane */
#define ROUNDS 120
#define SKIP 3000               /* bytes before the payload, at most */
#define LENGTH ((uint64_t)LOOPS * LANES * PART)

enum { TAG_DONE = 1, TAG_GONE = 100 };

static const struct by_api *api;
static struct by_root *roots[2];
static int nroots = 1;
static uint64_t seed = 1;
static int failures = 32;       /* one request in so many; 0: none */

static uint64_t next_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

/* ----------------------------------------------------------------- memory */

struct disk {
    unsigned char bytes[LENGTH + PART];
    bool reliable;              /* never fails */
};

static _Thread_local uint64_t luck;

struct later {
    struct by_task task;
    struct by_request *req;
    int result;
};

static void answer(struct by_task *task)
{
    struct later *later = task->owner;
    struct by_request *req = later->req;
    int result = later->result;

    free(later);
    api->complete(req, result);
}

static int move(struct disk *disk, struct by_request *req)
{
    struct iovec iov[16];
    int n = by_iov_slice(req->iov, req->niov, req->iov_skip, req->bytes, iov,
                         16);
    unsigned char *at = disk->bytes + req->offset;

    CHECK(n >= 0 && by_range_ok(req->offset, req->bytes, sizeof(disk->bytes)));
    for (int i = 0; i < n; i++) {
        if (req->op == BY_OP_READ) {
            memcpy(iov[i].iov_base, at, iov[i].iov_len);
        } else {
            memcpy(at, iov[i].iov_base, iov[i].iov_len);
        }
        at += iov[i].iov_len;
    }
    return 0;
}

static int serve(struct disk *disk, struct by_request *req)
{
    switch (req->op) {
    case BY_OP_READ:
    case BY_OP_WRITE:
        return move(disk, req);
    case BY_OP_WRITE_ZEROES:
        CHECK(by_range_ok(req->offset, req->bytes, sizeof(disk->bytes)));
        memset(disk->bytes + req->offset, 0, req->bytes);
        return 0;
    default:
        return 0;
    }
}

static int disk_submit(struct by_node *node, struct by_request *req)
{
    struct disk *disk = node->state;
    struct later *later;
    uint64_t chance;
    int result;

    if (!luck) {
        luck = seed * 0x9e3779b97f4a7c15 + (uintptr_t)&luck;
    }
    chance = next_random(&luck);
    result = failures && !disk->reliable && chance % failures == 0
        ? -EIO : serve(disk, req);
    if (chance >> 32 & 1) {
        return result;
    }
    later = calloc(1, sizeof(*later));
    later->task.run = answer;
    later->task.owner = later;
    later->req = req;
    later->result = result;
    api->loop_post(req->loop, &later->task);
    return BY_PENDING;
}

static const struct by_node_ops disk_ops = {
    .size = sizeof(disk_ops),
    .abi = BY_ABI_VERSION,
    .name = "memory",
    .capabilities = BY_CAP_ANY_LOOP,
    .serves = BY_OP_BIT(BY_OP_READ) | BY_OP_BIT(BY_OP_WRITE)
        | BY_OP_BIT(BY_OP_FLUSH) | BY_OP_BIT(BY_OP_WRITE_ZEROES),
    .submit = disk_submit,
};

/* ------------------------------------------------------------------ lanes */

struct lane {
    struct by_task task;
    struct by_root *root;
    struct by_loop *loop;
    struct by_request req;
    struct iovec iov[3];
    unsigned char *base, *buffer, *model;
    uint64_t start, random, skip;
    int round;
    bool again;                 /* the write failed: its part is open */
};

static struct lane lanes[LOOPS * LANES];
static atomic_int running;

static void set_iov(struct lane *lane, uint64_t bytes)
{
    uint64_t first = bytes / 3, second = bytes / 2;

    lane->iov[0] = (struct iovec) { lane->base, lane->skip + first };
    lane->iov[1] = (struct iovec) { lane->buffer + first, second - first };
    lane->iov[2] = (struct iovec) { lane->buffer + second, bytes - second };
    lane->req.iov = lane->iov;
    lane->req.niov = 3;
    lane->req.iov_skip = lane->skip;
}

static void done(struct by_request *req, int result);

static void begin_request(struct lane *lane, uint8_t op, uint64_t at,
                          uint64_t bytes)
{
    lane->req = (struct by_request) {
        .size = sizeof(lane->req),
        .op = op,
        .offset = op == BY_OP_FLUSH ? 0 : lane->start + at,
        .bytes = op == BY_OP_FLUSH ? 0 : bytes,
        .loop = lane->loop,
        .done = done,
        .owner = lane,
    };
    if (op != BY_OP_FLUSH) {
        set_iov(lane, bytes);
    }
}

static void choose(struct lane *lane)
{
    static const uint8_t ops[] = {
        BY_OP_READ, BY_OP_READ, BY_OP_WRITE, BY_OP_WRITE, BY_OP_FLUSH,
        BY_OP_WRITE_ZEROES, BY_OP_PREFETCH, BY_OP_READ,
    };
    uint64_t at = next_random(&lane->random) % PART;
    uint64_t bytes = 1 + next_random(&lane->random) % (PART - at);

    if (next_random(&lane->random) % 2 && bytes > 5000) {
        bytes = 5000;
    }
    if (next_random(&lane->random) % 2) {
        at &= ~511ull;
        bytes = (bytes + 511) & ~511ull;
        bytes = bytes < PART - at ? bytes : PART - at;
    }
    lane->skip = next_random(&lane->random) % SKIP;
    lane->buffer = lane->base + lane->skip;
    begin_request(lane, ops[next_random(&lane->random) % sizeof(ops)], at,
                  bytes);
    if (lane->req.op == BY_OP_WRITE) {
        for (uint64_t i = 0; i < bytes; i++) {
            lane->buffer[i] = next_random(&lane->random);
        }
        memcpy(lane->model + at, lane->buffer, bytes);
        lane->req.flags = BY_REQ_FUA;
    } else if (lane->req.op == BY_OP_WRITE_ZEROES) {
        memset(lane->model + at, 0, bytes);
    }
}

/* A failed write is sent again with the same payload. */
static void judge(struct lane *lane, int result)
{
    struct by_request *req = &lane->req;
    uint64_t at = req->offset - lane->start;

    CHECK(result == 0 || (failures && result == -EIO));
    lane->again = result && (req->op == BY_OP_WRITE
                             || req->op == BY_OP_WRITE_ZEROES);
    if (lane->again) {
        begin_request(lane, BY_OP_WRITE, at, req->bytes);
        memcpy(lane->buffer, lane->model + at, req->bytes);
    } else if (result == 0 && (req->op == BY_OP_READ
                               || req->op == BY_OP_WRITE)) {
        CHECK(!memcmp(lane->buffer, lane->model + at, req->bytes));
    }
}

static void end(void)
{
    struct by_event event = { .tag = TAG_DONE };

    if (atomic_fetch_sub(&running, 1) == 1) {
        api->event(&event);
    }
}

static void step(struct lane *lane)
{
    while (lane->again || lane->round-- > 0) {
        int result;

        if (!lane->again) {
            choose(lane);
        }
        result = api->root_submit(lane->root, &lane->req);
        if (result == BY_PENDING) {
            return;
        }
        judge(lane, result);
    }
    end();
}

static void done(struct by_request *req, int result)
{
    judge(req->owner, result);
    step(req->owner);
}

static void begin(struct by_task *task)
{
    step(task->owner);
}

/* `content` is what the disk holds at first. */
static void start_lane(int number, struct by_loop *loop,
                       const unsigned char *content)
{
    struct lane *lane = &lanes[number];

    lane->root = roots[number / LOOPS % nroots];
    lane->loop = loop;
    lane->start = (uint64_t)number * PART;
    lane->random = seed * 0x9e3779b97f4a7c15 + number + 1;
    lane->round = ROUNDS;
    lane->base = malloc(SKIP + PART);
    lane->model = malloc(PART);
    memcpy(lane->model, content + lane->start, PART);
    lane->task.run = begin;
    lane->task.owner = lane;
    api->loop_post(loop, &lane->task);
}

/* ------------------------------------------------------------------- main */

static bool finished;

static void await_tag(uint64_t tag)
{
    struct by_event event;

    for (;;) {
        struct pollfd wait = { .fd = by_event_fd(), .events = POLLIN };

        if (tag == TAG_DONE && finished) {
            return;
        }
        CHECK(poll(&wait, 1, 60000) == 1);
        while (by_event_take(&event, 1) == 1) {
            finished |= event.tag == TAG_DONE;
            if (event.tag == tag) {
                return;
            }
        }
    }
}

static struct by_loop *loops[LOOPS];

static void storm_start(int argc, char **argv)
{
    int error;

    CHECK(argc > 1);
    seed = argc > 2 ? strtoull(argv[2], NULL, 0) : 1;
    CHECK(by_start(!strcmp(argv[1], "epoll")) == 0);
    api = by_api_table();
    for (int i = 0; i < LOOPS; i++) {
        loops[i] = by_loop_create("storm", NULL, &error);
        CHECK(loops[i]);
    }
}

static struct by_node *make_node(const struct by_node_ops *ops, void *state,
                                 uint32_t nchildren, uint32_t alignment)
{
    struct by_limits limits = {
        .size = sizeof(limits), .request_alignment = alignment,
        .max_transfer = alignment > 1 ? 65536 : 0,
        .max_iov = alignment > 1 ? 16 : 0,
    };
    struct by_node *node = by_node_create(ops, state, nchildren, loops[0]);

    CHECK(node);
    by_node_set_limits(node, &limits);
    by_node_set_length(node, LENGTH);
    return node;
}

static struct by_root *make_root(struct by_node *node)
{
    struct by_root *root = by_root_create(node);

    by_root_set_writable(root, true, false);
    return root;
}

/* All lanes to their end; `meanwhile` is called again and again. */
static void storm_run(const unsigned char *content, void (*meanwhile)(void))
{
    atomic_store(&running, LOOPS * LANES);
    for (int i = 0; i < LOOPS * LANES; i++) {
        start_lane(i, loops[i % LOOPS], content);
    }
    while (meanwhile && !finished) {
        meanwhile();
    }
    await_tag(TAG_DONE);
    for (int i = 0; i < nroots; i++) {
        by_root_free(roots[i], TAG_GONE);
        await_tag(TAG_GONE);
    }
}

static void free_node(struct by_node *node)
{
    by_node_free(node, TAG_GONE);
    await_tag(TAG_GONE);
}

static void storm_stop(void)
{
    for (int i = 0; i < LOOPS; i++) {
        by_loop_destroy(loops[i], TAG_GONE);
        await_tag(TAG_GONE);
    }
    for (int i = 0; i < LOOPS * LANES; i++) {
        free(lanes[i].base);
        free(lanes[i].model);
    }
    by_stop();
}

#endif /* BLOCKYARD_STORM_H */
