/* SPDX-License-Identifier: Apache-2.0 */
/*
 * copy_world.h - four disks in memory that know which of their blocks are
 * allocated and which are zeroes, and a root on each.
 */
#ifndef BLOCKYARD_COPY_WORLD_H
#define BLOCKYARD_COPY_WORLD_H

#include "graph_world.h"

#define SIZE (256u << 10)
#define BLOCK 4096              /* what is allocated or not */
#define BLOCKS (SIZE / BLOCK)
#define SECTOR 512

struct disk {
    unsigned char bytes[SIZE];
    bool allocated[BLOCKS];
    bool zero[BLOCKS];          /* the status says so */
    bool bad[SIZE / SECTOR];    /* cannot be read */
    bool later, in_order, bad_status;
    uint64_t highest, number;
    int fail_write;             /* the how-manieth fails; 0: none */
    struct by_node *node;
    struct by_root *root;
};

struct disk_op {
    struct by_frame frame;
    struct by_task task;
    struct by_request *req;
    struct disk *disk;
    uint64_t hops;
};

static int status_of(struct disk *d, struct by_request *req)
{
    uint64_t first = req->offset / BLOCK, i = first;
    uint64_t length = by_node_length(d->node);

    if (d->bad_status) {
        return -EIO;
    }
    while (i < BLOCKS && d->allocated[i] == d->allocated[first]
           && d->zero[i] == d->zero[first]) {
        i++;
    }
    req->u.status->bytes = i * BLOCK - req->offset;
    if (req->u.status->bytes > req->bytes) {
        req->u.status->bytes = req->bytes;
    }
    CHECK(req->offset + req->u.status->bytes <= length);
    req->u.status->flags = (d->allocated[first] ? BY_STATUS_ALLOCATED : 0)
        | (d->zero[first] ? BY_STATUS_ZERO : BY_STATUS_DATA);
    return 0;
}

static int read_disk(struct disk *d, struct by_request *req)
{
    for (uint64_t at = req->offset; at < req->offset + req->bytes; at++) {
        if (d->bad[at / SECTOR]) {
            return -EIO;
        }
    }
    memcpy((char *)req->iov->iov_base + req->iov_skip, d->bytes + req->offset,
           req->bytes);
    return 0;
}

static int write_disk(struct disk *d, struct by_request *req)
{
    if (d->fail_write && --d->fail_write == 0) {
        return -ENOSPC;
    }
    if (req->op == BY_OP_WRITE) {
        memcpy(d->bytes + req->offset,
               (char *)req->iov->iov_base + req->iov_skip, req->bytes);
    } else {
        memset(d->bytes + req->offset, 0, req->bytes);
    }
    return 0;
}

static int disk_act(struct disk *d, struct by_request *req)
{
    switch (req->op) {
    case BY_OP_READ:
        return read_disk(d, req);
    case BY_OP_BLOCK_STATUS:
        return status_of(d, req);
    default:
        return write_disk(d, req);
    }
}

static int disk_done(struct by_request *req, struct by_frame *frame,
                     int result)
{
    (void)req;
    (void)frame;
    return result;
}

static void disk_later(struct by_task *task)
{
    struct disk_op *op = task->owner;

    if (op->hops--) {
        by_loop_post(op->req->loop, &op->task);
    } else {
        by_complete(op->req, disk_act(op->disk, op->req));
    }
}

static int disk_submit(struct by_node *node, struct by_request *req)
{
    struct disk *d = node->state;
    struct disk_op *op;

    if (req->op == BY_OP_WRITE || req->op == BY_OP_WRITE_ZEROES) {
        CHECK(!d->in_order || req->offset >= d->highest);
        d->highest = req->offset;
    }
    if (!d->later) {
        return disk_act(d, req);
    }
    op = (struct disk_op *)by_frame_push(req, sizeof(*op), disk_done);
    CHECK(op);
    op->req = req;
    op->disk = d;
    op->hops = d->number++ * 7 % 4;
    op->task = (struct by_task) { .run = disk_later, .owner = op };
    by_loop_post(req->loop, &op->task);
    return BY_PENDING;
}

static const struct by_node_ops disk_ops = {
    .size = sizeof(disk_ops), .abi = BY_ABI_VERSION, .name = "disk",
    .serves = BY_OP_BIT(BY_OP_READ) | BY_OP_BIT(BY_OP_WRITE)
        | BY_OP_BIT(BY_OP_WRITE_ZEROES) | BY_OP_BIT(BY_OP_BLOCK_STATUS),
    .flags = { [BY_OP_WRITE] = BY_REQ_COMPRESSED },
    .submit = disk_submit,
};

/* -------------------------------------------------------------- the world */

static struct by_loop *loop;
static struct disk source, second, target, reference;
static struct disk *const disks[] = { &source, &second, &target, &reference };

static void fill(struct disk *d)
{
    for (size_t i = 0; i < BLOCKS; i++) {
        unsigned char *at = d->bytes + i * BLOCK;
        uint64_t kind = rng() % 4;

        d->allocated[i] = rng() % 2;
        d->zero[i] = kind == 0;
        for (int s = 0; s < BLOCK / SECTOR; s++) {
            bool zero = kind == 0 || (kind == 1 && rng() % 2);

            memset(at + s * SECTOR, zero ? 0 : (int)(1 + rng() % 200), SECTOR);
        }
    }
}

static void reset(void)
{
    bool later = rng() % 2;

    for (size_t i = 0; i < sizeof(disks) / sizeof(disks[0]); i++) {
        struct disk *d = disks[i];

        d->later = later;
        memset(d->bad, 0, sizeof(d->bad));
        d->in_order = d->bad_status = false;
        d->highest = 0;
        d->fail_write = 0;
        fill(d);
    }
}

static void open_disks(void)
{
    struct by_loop_params params = { .poll_max_ns = 0 };
    int error;

    loop = by_loop_create("test", &params, &error);
    CHECK(loop);
    for (size_t i = 0; i < sizeof(disks) / sizeof(disks[0]); i++) {
        struct disk *d = disks[i];

        d->node = by_node_create(&disk_ops, d, 0, loop);
        by_node_set_length(d->node, SIZE);
        d->root = by_root_create(d->node);
        by_root_set_writable(d->root, true, false);
    }
}

static void close_disks(void)
{
    for (size_t i = 0; i < sizeof(disks) / sizeof(disks[0]); i++) {
        CHECK(by_root_free(disks[i]->root, 1) == 0);
        wait_event(1, 0);
        CHECK(by_node_free(disks[i]->node, 2) == 0);
        wait_event(2, 0);
    }
    by_loop_destroy(loop, 3);
    wait_event(3, 0);
}

#endif /* BLOCKYARD_COPY_WORLD_H */
