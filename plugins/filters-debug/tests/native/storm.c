/* SPDX-License-Identifier: Apache-2.0 */
/*
 * storm.c - blkdebug under requests from two loops at once, while another
 * thread raises events, sets breakpoints and lets go what they hold.  Every
 * request must end exactly once, and what is written be what is read.
 *
 * Usage: storm ring|epoll [SEED]; exits 0 when every check held.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "../../../../core/csrc/control.h"
#include "../../csrc/control.h"

#define CHECK(x) do { if (!(x)) { \
    fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #x); exit(1); } \
} while (0)

#define LOOPS 2
#define LANES 8                 /* requests at a time, for each loop */
#define PART 4096               /* of the disk, for each lane */
#define ROUNDS 400
#define LENGTH ((uint64_t)LOOPS * LANES * PART)

enum { TAG_DONE = 1, TAG_GONE = 50 };

static const struct by_api *api;
static struct by_root *root;
static unsigned char memory[LENGTH];
static uint64_t seed = 1;
static atomic_int ended;

static uint64_t next_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

static int memory_submit(struct by_node *node, struct by_request *req)
{
    struct iovec iov[4];
    int n = by_iov_slice(req->iov, req->niov, req->iov_skip, req->bytes, iov,
                         4);
    unsigned char *at = memory + req->offset;

    (void)node;
    if (req->op != BY_OP_READ && req->op != BY_OP_WRITE) {
        return 0;
    }
    CHECK(n >= 0 && by_range_ok(req->offset, req->bytes, LENGTH));
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

static const struct by_node_ops memory_ops = {
    .size = sizeof(memory_ops), .abi = BY_ABI_VERSION, .name = "memory",
    .capabilities = BY_CAP_ANY_LOOP,
    .serves = BY_OP_BIT(BY_OP_READ) | BY_OP_BIT(BY_OP_WRITE)
        | BY_OP_BIT(BY_OP_FLUSH),
    .submit = memory_submit,
};

struct lane {
    struct by_request req;
    struct by_task task;
    struct by_loop *loop;
    struct iovec iov;
    uint64_t luck, from;
    int round;
    unsigned char payload[512], model[512];
};

static void finished(struct by_request *req, int result)
{
    struct lane *lane = req->owner;

    CHECK(result == 0 || result == -EIO);
    if (result == 0 && req->op == BY_OP_WRITE) {
        memcpy(lane->model, lane->payload, sizeof(lane->model));
    } else if (result == 0 && req->op == BY_OP_READ) {
        CHECK(!memcmp(lane->model, lane->payload, sizeof(lane->model)));
    }
    if (++lane->round == ROUNDS) {
        ended++;
    } else {
        api->loop_post(lane->loop, &lane->task);
    }
}

static void go(struct by_task *task)
{
    struct lane *lane = task->owner;
    uint8_t ops[] = { BY_OP_READ, BY_OP_WRITE, BY_OP_FLUSH };
    uint8_t op = ops[next_random(&lane->luck) % 3];
    int result;

    lane->iov.iov_base = lane->payload;
    lane->iov.iov_len = sizeof(lane->payload);
    memset(lane->payload, next_random(&lane->luck), sizeof(lane->payload));
    lane->req = (struct by_request) {
        .size = sizeof(lane->req), .op = op, .loop = lane->loop,
        .offset = op == BY_OP_FLUSH ? 0 : lane->from,
        .bytes = op == BY_OP_FLUSH ? 0 : sizeof(lane->payload),
        .iov = &lane->iov, .niov = op == BY_OP_FLUSH ? 0 : 1,
        .done = finished, .owner = lane,
    };
    result = api->root_submit(root, &lane->req);
    if (result != BY_PENDING) {
        finished(&lane->req, result);
    }
}

static void wait_for(uint64_t tag)
{
    struct by_event event = { 0 };
    struct pollfd fd = { .fd = by_event_fd(), .events = POLLIN };

    while (event.tag != tag) {
        while (by_event_take(&event, 1) != 1) {
            CHECK(poll(&fd, 1, 20000) == 1);
        }
    }
}

static void add(struct by_blkdebug *debug, uint32_t action, uint32_t event,
                uint64_t id)
{
    struct by_blkdebug_rule rule = {
        .action = action, .event = event, .error = EIO, .iotypes = 31,
        .offset = -1, .once = true, .id = id, .immediately = id & 1,
        .delay_ns = id % 3 == 0 ? 1000 : 0,
    };

    CHECK(by_blkdebug_add(debug, &rule) == 0);
}

/* Until all requests have ended. */
static void meddle(struct by_blkdebug *debug)
{
    struct timespec pause = { .tv_nsec = 20000 };
    struct by_event event;
    uint64_t luck = seed | 1, id = 1;

    while (ended < LOOPS * LANES) {
        uint32_t event_number = next_random(&luck) % 2 ? BY_DEBUG_PWRITEV
                                                       : BY_DEBUG_PWRITEV_DONE;

        id++;
        switch (next_random(&luck) % 3) {
        case 0:
            add(debug, BY_BLKDEBUG_INJECT, BY_DEBUG_READ_AIO, id);
            by_blkdebug_raise(debug, BY_DEBUG_READ_AIO);
            break;
        case 1:
            add(debug, BY_BLKDEBUG_SUSPEND, BY_DEBUG_READ_AIO, id);
            by_blkdebug_raise(debug, BY_DEBUG_READ_AIO);
            break;
        default:
            add(debug, BY_BLKDEBUG_SUSPEND, event_number, id);
        }
        nanosleep(&pause, NULL);
        (void)by_event_take(&event, 1);
        for (uint64_t old = id > 4 ? id - 4 : 1; old <= id; old++) {
            by_blkdebug_resume(debug, old);
        }
        if (id > 8) {
            by_blkdebug_remove(debug, id - 8);
        }
    }
}

int main(int argc, char **argv)
{
    struct by_blkdebug_settings settings = { .tag = 9 };
    struct by_loop_params params = { .poll_max_ns = 0 };
    struct by_limits limits = {
        .size = sizeof(limits), .request_alignment = 1024,
    };
    static struct lane lanes[LOOPS * LANES];
    struct by_loop *loops[LOOPS];
    struct by_node *base, *top;
    struct by_blkdebug *debug;
    int error = 0;

    seed = argc > 2 ? strtoull(argv[2], NULL, 0) : 1;
    CHECK(by_start(argc > 1 && !strcmp(argv[1], "epoll")) == 0);
    api = by_api_table();
    CHECK(by_filters_debug_init((uintptr_t)api) == 0);
    for (int i = 0; i < LOOPS; i++) {
        loops[i] = by_loop_create("storm", &params, &error);
        CHECK(loops[i]);
    }
    debug = by_blkdebug_create(&settings);
    base = by_node_create(&memory_ops, NULL, 0, loops[0]);
    by_node_set_length(base, LENGTH);
    top = by_node_create((const struct by_node_ops *)by_blkdebug_ops(), debug,
                         1, loops[0]);
    by_node_set_limits(top, &limits);
    by_node_set_length(top, LENGTH);
    by_node_set_child(top, 0, base);
    root = by_root_create(top);
    by_root_set_writable(root, true, false);
    for (int i = 0; i < LOOPS * LANES; i++) {
        struct lane *lane = &lanes[i];

        lane->loop = loops[i % LOOPS];
        lane->luck = seed * 77 + i + 1;
        lane->from = (uint64_t)i * PART + 512; /* so that blocks are rewritten */
        lane->task.run = go;
        lane->task.owner = lane;
        api->loop_post(lane->loop, &lane->task);
    }
    meddle(debug);
    CHECK(by_root_free(root, TAG_GONE) == 0);
    wait_for(TAG_GONE);
    CHECK(by_node_free(top, TAG_GONE + 1) == 0);
    wait_for(TAG_GONE + 1);
    CHECK(by_node_free(base, TAG_GONE + 2) == 0);
    wait_for(TAG_GONE + 2);
    by_blkdebug_free(debug);
    for (int i = 0; i < LOOPS; i++) {
        by_loop_destroy(loops[i], TAG_GONE + 3);
        wait_for(TAG_GONE + 3);
    }
    by_stop();
    puts("ok");
    return 0;
}
