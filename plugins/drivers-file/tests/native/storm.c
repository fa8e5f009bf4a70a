/* SPDX-License-Identifier: Apache-2.0 */
/*
 * storm.c - one file under requests of every kind from several loops at once,
 * each lane of requests holding its own part of the file to a model.
 *
 * Usage: storm ring|epoll FILE [auto|threads|ring|direct] [SEED]; exits 0 when
 * every check held.  storm bench FILE HOW SECONDS OP DEPTH BYTES measures;
 * storm batch FILE HOW LIMIT prints the batch that the loop is asked to use.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "../../../../core/csrc/control.h"
#include "../../csrc/control.h"

#define CHECK(x) do { if (!(x)) { \
    fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #x); exit(1); } \
} while (0)

#define LOOPS 2
#define LANES 24                /* requests at a time, for each loop */
#define PART (128 * 1024)       /* of the file, for each lane */
#define ROUNDS 150

enum { TAG_DONE = 1, TAG_GONE = 100 };

static const struct by_api *api;
static struct by_root *root;
static struct by_node *node;
static uint64_t seed = 1;
static uint32_t max_batch;

struct lane {
    struct by_task task;
    struct by_loop *loop;
    struct by_request req;
    struct by_block_status status;
    struct iovec iov[3];
    unsigned char *buffer, *model;
    uint64_t start, random;
    int round;
    bool verifying;
};

static atomic_int running;

static uint64_t next_random(struct lane *lane)
{
    lane->random ^= lane->random << 13;
    lane->random ^= lane->random >> 7;
    lane->random ^= lane->random << 17;
    return lane->random;
}

static void step(struct lane *lane);

static void check_read(struct lane *lane)
{
    struct by_request *req = &lane->req;

    CHECK(!memcmp(lane->buffer, lane->model + (req->offset - lane->start),
                  req->bytes));
}

static void check_status(struct lane *lane)
{
    uint64_t at = lane->req.offset - lane->start;

    CHECK(lane->status.bytes > 0 && lane->status.bytes <= lane->req.bytes);
    if (lane->status.flags & BY_STATUS_ZERO) {
        for (uint64_t i = 0; i < lane->status.bytes; i++) {
            CHECK(lane->model[at + i] == 0);
        }
    }
}

static void done(struct by_request *req, int result)
{
    struct lane *lane = req->owner;

    if (result) {
        fprintf(stderr, "operation %d at %llu+%llu: %d\n", req->op,
                (unsigned long long)req->offset,
                (unsigned long long)req->bytes, result);
        exit(1);
    }
    if (req->op == BY_OP_READ) {
        check_read(lane);
    } else if (req->op == BY_OP_BLOCK_STATUS) {
        check_status(lane);
    }
    step(lane);
}

static void set_iov(struct lane *lane, uint64_t bytes)
{
    uint64_t first = bytes / 3;

    lane->iov[0] = (struct iovec) { lane->buffer, first };
    lane->iov[1] = (struct iovec) { lane->buffer + first, bytes - first };
    lane->req.iov = lane->iov;
    lane->req.niov = 2;
}

static void fill_write(struct lane *lane, uint64_t at, uint64_t bytes)
{
    unsigned char value = next_random(lane);

    memset(lane->buffer, value, bytes);
    memset(lane->model + at, value, bytes);
    lane->req.flags = next_random(lane) % 16 ? 0 : BY_REQ_FUA;
}

/* What sticks out of whole blocks keeps its content. */
static void expect_discard(struct lane *lane, uint64_t from, uint64_t to)
{
    uint64_t align = node->limits.request_alignment
        ? node->limits.request_alignment : 1;

    from = (from + align - 1) & ~(align - 1);
    to &= ~(align - 1);
    if (from < to) {
        memset(lane->model + from, 0, to - from);
    }
}

static void choose(struct lane *lane)
{
    static const uint8_t ops[] = {
        BY_OP_READ, BY_OP_READ, BY_OP_WRITE, BY_OP_WRITE, BY_OP_WRITE,
        BY_OP_FLUSH, BY_OP_DISCARD, BY_OP_WRITE_ZEROES, BY_OP_BLOCK_STATUS,
        BY_OP_BLOCK_STATUS, BY_OP_PREFETCH,
    };
    struct by_request *req = &lane->req;
    uint64_t at = next_random(lane) % PART;
    uint64_t bytes = 1 + next_random(lane) % (PART - at);

    memset(req, 0, sizeof(*req));
    req->size = sizeof(*req);
    req->loop = lane->loop;
    req->done = done;
    req->owner = lane;
    req->op = ops[next_random(lane) % sizeof(ops)];
    if (next_random(lane) % 2 && bytes > 5000) {
        bytes = 5000;
    }
    if (req->op == BY_OP_FLUSH) {
        return;
    }
    req->offset = lane->start + at;
    req->bytes = bytes;
    set_iov(lane, bytes);
    if (req->op == BY_OP_WRITE) {
        fill_write(lane, at, bytes);
    } else if (req->op == BY_OP_DISCARD) {
        expect_discard(lane, at, at + bytes);
    } else if (req->op == BY_OP_WRITE_ZEROES) {
        req->flags = next_random(lane) % 2 ? BY_REQ_MAY_UNMAP : 0;
        memset(lane->model + at, 0, bytes);
    } else if (req->op == BY_OP_BLOCK_STATUS) {
        lane->status = (struct by_block_status) {
            .size = sizeof(lane->status), .precise = true,
        };
        req->u.status = &lane->status;
    }
}

static void end(struct lane *lane)
{
    struct by_event event = { .tag = TAG_DONE };

    (void)lane;
    if (atomic_fetch_sub(&running, 1) == 1) {
        api->event(&event);
    }
}

static void step(struct lane *lane)
{
    while (lane->round-- > 0) {
        int result;

        choose(lane);
        result = api->root_submit(root, &lane->req);
        if (result == BY_PENDING) {
            return;
        }
        CHECK(result == 0);
        if (lane->req.op == BY_OP_READ) {
            check_read(lane);
        } else if (lane->req.op == BY_OP_BLOCK_STATUS) {
            check_status(lane);
        }
    }
    end(lane);
}

static void begin(struct by_task *task)
{
    step(task->owner);
}

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

static void start_lane(struct lane *lane, struct by_loop *loop, int number)
{
    lane->loop = loop;
    lane->start = (uint64_t)number * PART;
    lane->random = seed * 0x9e3779b97f4a7c15 + number + 1;
    lane->round = ROUNDS;
    CHECK(!posix_memalign((void **)&lane->buffer, 4096, PART));
    lane->model = calloc(1, PART);
    lane->task.run = begin;
    lane->task.owner = lane;
    api->loop_post(loop, &lane->task);
}

static struct by_file *open_file(const char *path, const char *how, int *fd)
{
    struct by_file_settings settings = { .regular = true, .alignment = 1 };
    struct by_limits limits = { .size = sizeof(limits), .max_iov = 1024 };
    bool direct = !strcmp(how, "direct");
    struct by_file *file;

    *fd = open(path, O_RDWR | O_CREAT | (direct ? O_DIRECT : 0), 0600);
    CHECK(*fd >= 0);
    if (direct) {
        CHECK(by_file_probe(*fd, &limits.request_alignment,
                            &limits.memory_alignment) == 0);
        settings.alignment = limits.request_alignment;
    }
    settings.fd = *fd;
    settings.max_batch = max_batch;
    settings.direct = direct;
    settings.aio = !strcmp(how, "threads") ? BY_FILE_THREADS
        : !strcmp(how, "ring") ? BY_FILE_RING : BY_FILE_AUTO;
    file = by_file_create(&settings);
    CHECK(file);
    node = by_node_create((const struct by_node_ops *)
                          by_file_ops(BY_FILE_REGULAR), file, 0, NULL);
    CHECK(node);
    by_node_set_limits(node, &limits);
    return file;
}

static void close_file(struct by_file *file, int fd)
{
    by_root_free(root, TAG_GONE);
    await_tag(TAG_GONE);
    by_node_free(node, TAG_GONE + 1);
    await_tag(TAG_GONE + 1);
    by_file_free(file);
    close(fd);
}

#include "bench.h"
#include "batch.h"

int main(int argc, char **argv)
{
    static struct lane lanes[LOOPS * LANES];
    struct by_loop *loops[LOOPS];
    struct by_file *file;
    int error, fd;

    CHECK(argc > 2);
    if (!strcmp(argv[1], "bench")) {
        return bench(argc, argv);
    }
    if (!strcmp(argv[1], "batch")) {
        return batch(argc, argv);
    }
    seed = argc > 4 ? strtoull(argv[4], NULL, 0) : 1;
    CHECK(by_start(!strcmp(argv[1], "epoll")) == 0);
    api = by_api_table();
    CHECK(by_file_init((uintptr_t)api) == 0);
    file = open_file(argv[2], argc > 3 ? argv[3] : "auto", &fd);
    CHECK(ftruncate(fd, LOOPS * LANES * PART) == 0);
    by_node_set_length(node, LOOPS * LANES * PART);
    for (int i = 0; i < LOOPS; i++) {
        loops[i] = by_loop_create("storm", NULL, &error);
        CHECK(loops[i]);
    }
    by_node_set_home(node, loops[0]);
    root = by_root_create(node);
    by_root_set_writable(root, true, false);
    atomic_store(&running, LOOPS * LANES);
    for (int i = 0; i < LOOPS * LANES; i++) {
        start_lane(&lanes[i], loops[i % LOOPS], i);
    }
    await_tag(TAG_DONE);
    close_file(file, fd);
    for (int i = 0; i < LOOPS; i++) {
        by_loop_destroy(loops[i], TAG_GONE + 2);
        await_tag(TAG_GONE + 2);
    }
    for (int i = 0; i < LOOPS * LANES; i++) {
        free(lanes[i].buffer);
        free(lanes[i].model);
    }
    by_stop();
    return 0;
}
