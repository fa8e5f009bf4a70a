/* SPDX-License-Identifier: Apache-2.0 */
/*
 * logstorm.c - blklogwrites under requests from two loops at once, on a disk
 * and a log that answer at once or later, and fail at times.  Every request
 * must end exactly once, the log must have whole entries only, and what it
 * says must be what the disk has.
 *
 * Usage: logstorm ring|epoll [SEED]; exits 0 when every check held.
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
#define ROUNDS 200
#define SECTOR 512
#define LENGTH ((uint64_t)LOOPS * LANES * PART)
#define LOG_LENGTH ((uint64_t)LOOPS * LANES * ROUNDS * (PART + SECTOR) \
    + SECTOR)

enum { TAG_GONE = 50 };

/* A disk in memory; on the home loop only, as the filter is. */
struct memory {
    unsigned char *bytes;
    uint64_t length, luck;
    bool tells;                 /* a write that fails has written */
};

struct answer {
    struct by_task task;
    struct by_request *req;
    int result;
};

struct lane {
    struct by_request req;
    struct by_task task;
    struct by_loop *loop;
    struct iovec iov;
    uint64_t luck, from;
    int round;
    bool clean;                 /* its last change is in the log */
    unsigned char payload[PART];
};

static const struct by_api *api;
static struct by_root *root;
static atomic_int ended;

static uint64_t next_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

/* ---------------------------------------------------------------- memory */

static void answered(struct by_task *task)
{
    struct answer *answer = task->owner;
    struct by_request *req = answer->req;
    int result = answer->result;

    free(answer);
    api->complete(req, result);
}

static void carry_out(struct memory *memory, struct by_request *req)
{
    struct iovec iov[4];
    int n = by_iov_slice(req->iov, req->niov, req->iov_skip, req->bytes, iov,
                         4);
    unsigned char *at = memory->bytes + req->offset;

    CHECK(by_range_ok(req->offset, req->bytes, memory->length));
    if (req->op == BY_OP_WRITE_ZEROES || req->op == BY_OP_DISCARD) {
        memset(at, 0, req->bytes);
        return;
    }
    CHECK(n >= 0);
    for (int i = 0; i < n; i++) {
        if (req->op == BY_OP_READ) {
            memcpy(iov[i].iov_base, at, iov[i].iov_len);
        } else if (req->op == BY_OP_WRITE) {
            memcpy(at, iov[i].iov_base, iov[i].iov_len);
        }
        at += iov[i].iov_len;
    }
}

static int memory_submit(struct by_node *node, struct by_request *req)
{
    struct memory *memory = node->state;
    int result = next_random(&memory->luck) % 16 ? 0 : -EIO;
    struct answer *answer;

    if (result == 0 || memory->tells) {
        carry_out(memory, req);
    }
    if (next_random(&memory->luck) % 2) {
        return result;
    }
    answer = calloc(1, sizeof(*answer));
    CHECK(answer);
    answer->req = req;
    answer->result = result;
    answer->task.run = answered;
    answer->task.owner = answer;
    api->loop_post(req->loop, &answer->task);
    return BY_PENDING;
}

static const struct by_node_ops memory_ops = {
    .size = sizeof(memory_ops), .abi = BY_ABI_VERSION, .name = "memory",
    .capabilities = BY_CAP_ANY_LOOP,
    .serves = BY_OP_BIT(BY_OP_READ) | BY_OP_BIT(BY_OP_WRITE)
        | BY_OP_BIT(BY_OP_FLUSH) | BY_OP_BIT(BY_OP_WRITE_ZEROES)
        | BY_OP_BIT(BY_OP_DISCARD),
    .submit = memory_submit,
};

/* ----------------------------------------------------------------- lanes */

static void finished(struct by_request *req, int result)
{
    struct lane *lane = req->owner;

    CHECK(result == 0 || result == -EIO);
    if (req->op != BY_OP_READ && req->op != BY_OP_FLUSH) {
        lane->clean = result == 0;
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
    uint8_t ops[] = { BY_OP_READ, BY_OP_WRITE, BY_OP_WRITE, BY_OP_FLUSH,
                      BY_OP_WRITE_ZEROES, BY_OP_DISCARD };
    uint8_t op = ops[next_random(&lane->luck) % sizeof(ops)];
    bool flush = op == BY_OP_FLUSH;
    bool payload = op == BY_OP_READ || op == BY_OP_WRITE;
    int result;

    lane->iov = (struct iovec) { lane->payload, PART };
    memset(lane->payload, next_random(&lane->luck), PART);
    lane->req = (struct by_request) {
        .size = sizeof(lane->req), .op = op, .loop = lane->loop,
        .offset = flush ? 0 : lane->from, .bytes = flush ? 0 : PART,
        .iov = payload ? &lane->iov : NULL, .niov = payload,
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

/* --------------------------------------------------------------- the log */

static uint64_t number(const unsigned char *at)
{
    uint64_t value;

    memcpy(&value, at, sizeof(value));
    return value;
}

/* Do again what the log says. */
static void replay(const unsigned char *log, unsigned char *disk)
{
    uint64_t entries = number(log + 16), at = SECTOR, seen = 0;

    CHECK(number(log) == 0x6a736677736872ull && number(log + 8) == 1);
    for (; seen < entries; seen++) {
        uint64_t to = number(log + at) * SECTOR;
        uint64_t bytes = number(log + at + 8) * SECTOR;
        uint64_t flags = number(log + at + 16);

        at += SECTOR;
        CHECK(flags == 0 || flags == 1 || flags == 4);
        CHECK(flags == 1 ? !bytes && !to : bytes == PART && to % PART == 0);
        CHECK(by_range_ok(to, bytes, LENGTH));
        if (flags == 4) {
            memset(disk + to, 0, bytes);
        } else {
            memcpy(disk + to, log + at, bytes);
            at += bytes;
        }
        CHECK(at <= LOG_LENGTH);
    }
    CHECK(seen > 0);
}

static void run(struct lane *lanes, struct by_loop **loops, uint64_t seed)
{
    struct timespec pause = { .tv_nsec = 1000000 };

    for (int i = 0; i < LOOPS * LANES; i++) {
        struct lane *lane = &lanes[i];

        lane->loop = loops[i % LOOPS];
        lane->luck = seed * 77 + i + 1;
        lane->from = (uint64_t)i * PART;
        lane->clean = true;
        lane->task.run = go;
        lane->task.owner = lane;
        api->loop_post(lane->loop, &lane->task);
    }
    while (ended < LOOPS * LANES) {
        nanosleep(&pause, NULL);
    }
}

/* Where the last change is in the log. */
static void compare(const struct lane *lanes, const unsigned char *disk,
                    const unsigned char *again)
{
    int compared = 0;

    for (int i = 0; i < LOOPS * LANES; i++) {
        if (lanes[i].clean) {
            CHECK(!memcmp(disk + lanes[i].from, again + lanes[i].from, PART));
            compared++;
        }
    }
    CHECK(compared > 0);
}

static struct by_node *make_memory(struct memory *memory, struct by_loop *home)
{
    struct by_node *node = by_node_create(&memory_ops, memory, 0, home);

    CHECK(node);
    by_node_set_length(node, memory->length);
    return node;
}

int main(int argc, char **argv)
{
    uint64_t seed = argc > 2 ? strtoull(argv[2], NULL, 0) : 1;
    struct by_logwrites_settings settings = {
        .interval = 5, .next = 1, .sector_size = SECTOR,
    };
    struct by_loop_params params = { .poll_max_ns = 0 };
    struct by_limits limits = {
        .size = sizeof(limits), .request_alignment = SECTOR,
    };
    static struct lane lanes[LOOPS * LANES];
    static unsigned char again[LENGTH], sector[SECTOR];
    struct memory disk = { calloc(1, LENGTH), LENGTH, seed * 3 + 1, true };
    struct memory log = { calloc(1, LOG_LENGTH), LOG_LENGTH, seed * 5 + 1,
                          false };
    struct by_loop *loops[LOOPS];
    struct by_node *nodes[3];
    struct by_logwrites *state;
    int error = 0;

    CHECK(disk.bytes && log.bytes);
    CHECK(by_start(argc > 1 && !strcmp(argv[1], "epoll")) == 0);
    api = by_api_table();
    CHECK(by_filters_debug_init((uintptr_t)api) == 0);
    for (int i = 0; i < LOOPS; i++) {
        loops[i] = by_loop_create("storm", &params, &error);
        CHECK(loops[i]);
    }
    state = by_logwrites_create(&settings);
    nodes[0] = by_node_create((const struct by_node_ops *)by_logwrites_ops(),
                              state, 2, loops[0]);
    nodes[1] = make_memory(&disk, loops[0]);
    nodes[2] = make_memory(&log, loops[0]);
    by_node_set_limits(nodes[0], &limits);
    by_node_set_length(nodes[0], LENGTH);
    by_node_set_child(nodes[0], 0, nodes[1]);
    by_node_set_child(nodes[0], 1, nodes[2]);
    root = by_root_create(nodes[0]);
    by_root_set_writable(root, true, false);
    run(lanes, loops, seed);
    CHECK(by_root_free(root, TAG_GONE) == 0);
    wait_for(TAG_GONE);
    for (int i = 0; i < 3; i++) {
        CHECK(by_node_free(nodes[i], TAG_GONE + 1 + i) == 0);
        wait_for(TAG_GONE + 1 + i);
    }
    if (by_logwrites_superblock(state, sector)) {
        memcpy(log.bytes, sector, SECTOR);
    }
    CHECK(by_logwrites_superblock(state, sector) == 0);
    by_logwrites_free(state);
    replay(log.bytes, again);
    compare(lanes, disk.bytes, again);
    for (int i = 0; i < LOOPS; i++) {
        by_loop_destroy(loops[i], TAG_GONE + 9);
        wait_for(TAG_GONE + 9);
    }
    free(disk.bytes);
    free(log.bytes);
    by_stop();
    puts("ok");
    return 0;
}
