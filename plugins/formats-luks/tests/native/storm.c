/* SPDX-License-Identifier: Apache-2.0 */
/*
 * storm.c - an encrypted disk under requests of every length from several
 * loops at once, above a disk in memory that answers now or later and fails at
 * times.  Each lane of requests holds its own part to a model; in the end the
 * memory is decrypted and compared as well.
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

#include "../../../../core/csrc/control.h"
#include "../../csrc/control.h"

#define CHECK(x) do { if (!(x)) { \
    fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #x); exit(1); } \
} while (0)

#define LOOPS 2
#define LANES 12                /* requests at a time, for each loop */
#define PART (128 * 1024)       /* of the disk, for each lane */
#define ROUNDS 120
#define PAYLOAD 8192
#define SKIP 3000               /* bytes before the payload, at most */
#define LENGTH ((uint64_t)LOOPS * LANES * PART)

enum { TAG_DONE = 1, TAG_GONE = 100 };

static const struct by_api *api;
static struct by_root *root;
static uint64_t seed = 1;

static uint64_t next_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

/* ----------------------------------------------------------------- memory */

static unsigned char memory[PAYLOAD + LENGTH];
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

static int move(struct by_request *req)
{
    struct iovec iov[16];
    int n = by_iov_slice(req->iov, req->niov, req->iov_skip, req->bytes, iov,
                         16);
    unsigned char *at = memory + req->offset;

    CHECK(n >= 0 && by_range_ok(req->offset, req->bytes, sizeof(memory)));
    CHECK(req->offset >= PAYLOAD && !(req->flags & BY_REQ_REGISTERED));
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

static int memory_submit(struct by_node *node, struct by_request *req)
{
    struct later *later;
    uint64_t chance;
    int result;

    (void)node;
    if (!luck) {
        luck = seed * 0x9e3779b97f4a7c15 + (uintptr_t)&luck;
    }
    chance = next_random(&luck);
    result = chance % 32 == 0 ? -EIO
        : req->op == BY_OP_FLUSH || req->op == BY_OP_PREFETCH ? 0 : move(req);
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

static const struct by_node_ops memory_ops = {
    .size = sizeof(memory_ops),
    .abi = BY_ABI_VERSION,
    .name = "memory",
    .capabilities = BY_CAP_ANY_LOOP,
    .serves = BY_OP_BIT(BY_OP_READ) | BY_OP_BIT(BY_OP_WRITE)
        | BY_OP_BIT(BY_OP_FLUSH) | BY_OP_BIT(BY_OP_PREFETCH),
    .submit = memory_submit,
};

/* ------------------------------------------------------------------ lanes */

struct lane {
    struct by_task task;
    struct by_loop *loop;
    struct by_request req;
    struct iovec iov[3];
    unsigned char *base, *buffer, *model;
    uint64_t start, random, skip;
    int round;
    bool again;                 /* the write failed: its part is open */
};

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
        BY_OP_WRITE_ZEROES, BY_OP_PREFETCH, BY_OP_DISCARD,
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

/* A failed write is sent again with the same payload, and its flush too. */
static void judge(struct lane *lane, int result)
{
    struct by_request *req = &lane->req;
    uint64_t at = req->offset - lane->start;

    CHECK(result == 0 || result == -EIO);
    lane->again = result && (req->op == BY_OP_WRITE
                             || req->op == BY_OP_WRITE_ZEROES);
    if (lane->again) {
        begin_request(lane, BY_OP_WRITE, at, req->bytes);
        memcpy(lane->buffer, lane->model + at, req->bytes);
    } else if (result == 0 && req->op == BY_OP_READ) {
        CHECK(!memcmp(lane->buffer, lane->model + at, req->bytes));
    } else if (result == 0 && req->op == BY_OP_WRITE) {
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
        result = api->root_submit(root, &lane->req);
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

static void start_lane(struct lane *lane, struct by_loop *loop, int number)
{
    lane->loop = loop;
    lane->start = (uint64_t)number * PART;
    lane->random = seed * 0x9e3779b97f4a7c15 + number + 1;
    lane->round = ROUNDS;
    lane->base = malloc(SKIP + PART);
    lane->model = calloc(1, PART);
    lane->task.run = begin;
    lane->task.owner = lane;
    api->loop_post(loop, &lane->task);
}

/* ------------------------------------------------------------------- main */

static void await_tag(uint64_t tag)
{
    struct by_event event;

    for (;;) {
        struct pollfd wait = { .fd = by_event_fd(), .events = POLLIN };

        CHECK(poll(&wait, 1, 60000) == 1);
        while (by_event_take(&event, 1) == 1) {
            if (event.tag == tag) {
                return;
            }
        }
    }
}

static struct by_crypto *open_cipher(void)
{
    static const struct by_luks_method method = {
        .cipher = BY_LUKS_AES, .mode = BY_LUKS_XTS, .ivgen = BY_LUKS_PLAIN64,
    };
    struct by_crypto *crypto;
    unsigned char key[64];

    CHECK(by_luks_library() == 0);
    CHECK(by_luks_random(key, sizeof(key)) == 0);
    CHECK(by_luks_crypto_open(&method, key, sizeof(key), &crypto) == 0);
    CHECK(by_luks_encrypt(crypto, 0, memory + PAYLOAD, LENGTH) == 0);
    return crypto;
}

static void free_node(struct by_node *node)
{
    by_node_free(node, TAG_GONE);
    await_tag(TAG_GONE);
}

int main(int argc, char **argv)
{
    static const struct by_limits limits = {
        .size = sizeof(limits), .request_alignment = 512,
        .max_transfer = 65536, .max_iov = 16,
    };
    static struct lane lanes[LOOPS * LANES];
    struct by_node *disk, *node;
    struct by_loop *loops[LOOPS];
    struct by_crypto *crypto;
    struct by_luks *luks;
    int error;

    CHECK(argc > 1);
    seed = argc > 2 ? strtoull(argv[2], NULL, 0) : 1;
    CHECK(by_start(!strcmp(argv[1], "epoll")) == 0);
    api = by_api_table();
    CHECK(by_luks_init((uintptr_t)api) == 0);
    crypto = open_cipher();
    luks = by_luks_create(crypto, PAYLOAD);
    for (int i = 0; i < LOOPS; i++) {
        loops[i] = by_loop_create("storm", NULL, &error);
        CHECK(loops[i]);
    }
    disk = by_node_create(&memory_ops, NULL, 0, loops[0]);
    by_node_set_limits(disk, &limits);
    by_node_set_length(disk, sizeof(memory));
    node = by_node_create((const struct by_node_ops *)by_luks_ops(), luks, 1,
                          loops[0]);
    by_node_set_limits(node, &limits);
    by_node_set_length(node, LENGTH);
    by_node_set_child(node, 0, disk);
    root = by_root_create(node);
    by_root_set_writable(root, true, false);
    atomic_store(&running, LOOPS * LANES);
    for (int i = 0; i < LOOPS * LANES; i++) {
        start_lane(&lanes[i], loops[i % LOOPS], i);
    }
    await_tag(TAG_DONE);
    by_root_free(root, TAG_GONE);
    await_tag(TAG_GONE);
    free_node(node);
    free_node(disk);
    by_luks_free(luks);
    for (int i = 0; i < LOOPS; i++) {
        by_loop_destroy(loops[i], TAG_GONE);
        await_tag(TAG_GONE);
    }
    CHECK(by_luks_decrypt(crypto, 0, memory + PAYLOAD, LENGTH) == 0);
    for (int i = 0; i < LOOPS * LANES; i++) {
        CHECK(!memcmp(memory + PAYLOAD + lanes[i].start, lanes[i].model,
                      PART));
        free(lanes[i].base);
        free(lanes[i].model);
    }
    by_luks_crypto_close(crypto);
    by_stop();
    return 0;
}
