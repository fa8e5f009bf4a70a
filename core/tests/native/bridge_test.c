/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bridge_test.c - many callers through a bridge whose server, a thread as
 * Python's would be, answers in batches, out of order, and some twice; with
 * drains meanwhile, one of them at the end of the node.
 *
 * Usage: bridge_test ring|epoll; exits 0 when every check held.
 */
#include <pthread.h>

#include "check.h"
#include "control.h"

enum { CALLERS = 6, TURNS = 300, PIECE = 8192, DISK = CALLERS * PIECE,
       IN_FLIGHT = 4, DRAINED = 90, FREED = 91, BAD = 3 };

static unsigned char disk[DISK];
static struct by_bridge *bridge;
static struct by_root *root;
static atomic_bool ending;
static atomic_int most, running;

static void serve(const struct by_bridge_request *request)
{
    struct by_status status = { .flags = BY_STATUS_ZERO, .bytes = 512 };
    int result = 0;

    switch (request->op) {
    case BY_OP_READ:
        memcpy(request->buffer, disk + request->offset, request->bytes);
        break;
    case BY_OP_WRITE:
        memcpy(disk + request->offset, request->buffer, request->bytes);
        break;
    case BY_OP_BLOCK_STATUS:
        atomic_fetch_sub(&running, 1);
        by_bridge_complete_status(bridge, request->handle, &status);
        return;
    case BY_OP_FLUSH:
        result = -EIO;
        break;
    }
    atomic_fetch_sub(&running, 1);
    by_bridge_complete(bridge, request->handle, result);
    /* Stale by now, or somebody else's: no more than ignored. */
    by_bridge_complete(bridge, request->handle, -EINVAL);
    by_bridge_complete(bridge, request->handle + (7ull << 40), -EINVAL);
    by_bridge_complete(bridge, UINT32_MAX, -EINVAL);
}

static void *server(void *arg)
{
    (void)arg;
    while (!atomic_load(&ending)) {
        struct pollfd pfd = { .fd = by_bridge_fd(bridge), .events = POLLIN };
        struct by_bridge_request batch[3];
        int n;

        poll(&pfd, 1, 50);
        n = by_bridge_take(bridge, batch, 3);
        if (atomic_fetch_add(&running, n) + n > atomic_load(&most)) {
            atomic_store(&most, atomic_load(&running));
        }
        while (n > 0) {
            serve(&batch[--n]);
        }
    }
    return NULL;
}

static int request(uint32_t op, uint64_t offset, struct by_extent *pieces,
                   uint32_t npieces, struct by_status *status)
{
    struct by_access access = {
        .op = op, .offset = offset, .pieces = pieces, .npieces = npieces,
    };

    for (uint32_t i = 0; i < npieces; i++) {
        access.bytes += pieces[i].bytes;
    }
    if (op == BY_OP_BLOCK_STATUS) {
        access.bytes = PIECE;
    }
    return by_access_wait(root, false, &access, status);
}

/* One caller keeps to its own part of the disk. */
static void *caller(void *arg)
{
    uint64_t number = (uintptr_t)arg, at = number * PIECE;
    unsigned char out[PIECE], in[PIECE];

    for (unsigned turn = 0; turn < TURNS; turn++) {
        struct by_extent whole = { out, PIECE };
        struct by_extent split[3] = { { in, 1 + turn }, { in + 1 + turn, 99 },
                                      { in + 100 + turn, PIECE - 100 - turn } };
        struct by_status status;

        memset(out, (int)(number * 31 + turn), sizeof(out));
        CHECK_EQ(request(BY_OP_WRITE, at, &whole, 1, NULL), 0);
        CHECK_EQ(request(BY_OP_READ, at, split, 3, NULL), 0);
        CHECK(!memcmp(in, out, PIECE));
        CHECK_EQ(request(BY_OP_BLOCK_STATUS, at, NULL, 0, &status), 0);
        CHECK_EQ(status.bytes, 512);
        CHECK_EQ(status.flags & BY_STATUS_ZERO, BY_STATUS_ZERO);
        CHECK_EQ(request(BY_OP_FLUSH, 0, NULL, 0, NULL), -EIO);
    }
    return NULL;
}

static void drain_now_and_then(struct by_node *node)
{
    for (int i = 0; i < 20; i++) {
        by_drain_begin(&root, 1, &node, 1, DRAINED);
        CHECK_EQ(check_await(DRAINED), 0);
        by_drain_end(&root, 1, &node, 1, DRAINED);
        CHECK_EQ(check_await(DRAINED), 0);
        usleep(2000);
    }
}

int main(int argc, char **argv)
{
    uint32_t flags[BY_OP_COUNT] = { 0 };
    uint32_t serves = BY_OP_BIT(BY_OP_READ) | BY_OP_BIT(BY_OP_WRITE)
                    | BY_OP_BIT(BY_OP_FLUSH) | BY_OP_BIT(BY_OP_BLOCK_STATUS);
    pthread_t callers[CALLERS], thread;
    struct by_limits limits = { .size = sizeof(limits), .max_iov = BAD };
    struct by_loop *loop;
    struct by_node *node;

    check_start(argc, argv);
    loop = check_loop();
    bridge = by_bridge_create("test", 0, serves, flags, IN_FLIGHT);
    CHECK(bridge);
    node = by_node_create(by_bridge_ops(bridge), bridge, 0, loop);
    by_node_set_limits(node, &limits);
    by_node_set_length(node, DISK);
    root = by_root_create(node);
    by_root_set_writable(root, true, false);
    CHECK_EQ(pthread_create(&thread, NULL, server, NULL), 0);
    for (uintptr_t i = 0; i < CALLERS; i++) {
        CHECK_EQ(pthread_create(&callers[i], NULL, caller, (void *)i), 0);
    }
    drain_now_and_then(node);
    for (int i = 0; i < CALLERS; i++) {
        pthread_join(callers[i], NULL);
    }
    CHECK(atomic_load(&most) <= IN_FLIGHT);
    by_root_free(root, FREED);
    CHECK_EQ(check_await(FREED), 0);
    by_node_free(node, FREED);
    CHECK_EQ(check_await(FREED), 0);
    atomic_store(&ending, true);
    pthread_join(thread, NULL);
    by_bridge_free(bridge);
    check_destroy(loop);
    by_stop();
    return 0;
}
