/* SPDX-License-Identifier: Apache-2.0 */
/*
 * status.c - BLOCK_STATUS: data and holes, from SEEK_DATA and SEEK_HOLE.
 *
 * Both look into the file system's own tables and may wait for the disk.  A
 * visit to the pool therefore finds the next data as well when it finds a
 * hole, and the lane remembers it: going through a sparse file costs one
 * visit for each pair.  Holes are never remembered, because another process
 * may fill them; data that has become a hole is still read correctly.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <unistd.h>

#include "file.h"

static void answer(struct by_node *node, struct by_request *req,
                   uint32_t flags, uint64_t bytes)
{
    struct by_block_status *status = req->u.status;
    uint64_t length = by_node_length(node);
    uint64_t align = by_file_of(node)->alignment;

    bytes = (bytes + align - 1) & ~(align - 1); /* of a length's last block */
    if (bytes > req->bytes) {
        bytes = req->bytes;
    }
    status->flags = flags | BY_STATUS_ALLOCATED | BY_STATUS_OFFSET;
    if (length <= req->offset || length - req->offset <= bytes) {
        status->flags |= BY_STATUS_EOF;
    }
    status->bytes = bytes;
    status->host_offset = req->offset;
    status->owner = node;
    status->depth = 0;
}

/* Where the data at `start` ends. */
static int find_end(int fd, uint64_t start, uint64_t *end)
{
    off_t hole = lseek(fd, start, SEEK_HOLE);

    if (hole < 0) {
        return -errno;
    }
    *end = hole;
    return (uint64_t)hole > start ? 0 : -EBUSY; /* a hole came meanwhile */
}

/*
 * op->found: the first data at or behind the request's offset.  -ENXIO when
 * there is none up to the end of the file.
 */
static int find(struct by_work *work)
{
    struct by_file_op *op = work->owner;
    off_t data = lseek(op->file->fd, op->req->offset, SEEK_DATA);

    if (data < 0) {
        return -errno;
    }
    if ((uint64_t)data < op->req->offset) {
        return -EIO;
    }
    op->found.start = op->found.end = data;
    if (find_end(op->file->fd, data, &op->found.end)) {
        op->found.end = data; /* nothing to remember */
        return (uint64_t)data == op->req->offset ? -EBUSY : 0;
    }
    return 0;
}

static void found(struct by_work *work, int result)
{
    struct by_file_op *op = work->owner;
    struct by_request *req = op->req;
    struct by_file_lane *lane = by_file_lane_of(op->file, req->loop);

    if (result == -ENXIO) {
        answer(op->node, req, BY_STATUS_ZERO, req->bytes);
    } else if (result < 0) {
        answer(op->node, req, BY_STATUS_DATA, req->bytes); /* who knows */
    } else if (op->found.start > req->offset) {
        answer(op->node, req, BY_STATUS_ZERO,
               (op->found.start - req->offset)
               & ~(uint64_t)(op->file->alignment - 1));
        if (req->u.status->bytes == 0) { /* data begins inside the block */
            answer(op->node, req, BY_STATUS_DATA, op->file->alignment);
        }
    } else {
        answer(op->node, req, BY_STATUS_DATA, op->found.end - req->offset);
    }
    if (lane && result == 0) {
        lane->extent = op->found;
    }
    by_file_op_end(op, 0);
}

static const struct by_file_extent *remembered(struct by_file *file,
                                               struct by_file_lane *lane,
                                               uint64_t offset)
{
    const struct by_file_extent *extent = &lane->extent;

    return extent->start <= offset && offset < extent->end
        && extent->generation == __atomic_load_n(&file->generation,
                                                 __ATOMIC_SEQ_CST)
        ? extent : NULL;
}

int by_file_status(struct by_node *node, struct by_request *req)
{
    struct by_file *file = by_file_of(node);
    struct by_file_lane *lane = by_file_lane_of(file, req->loop);
    const struct by_file_extent *extent;
    struct by_file_op *op;

    if (!req->u.status->precise || !file->regular) {
        answer(node, req, BY_STATUS_DATA, req->bytes);
        return 0;
    }
    extent = lane ? remembered(file, lane, req->offset) : NULL;
    if (extent) {
        answer(node, req, BY_STATUS_DATA, extent->end - req->offset);
        return 0;
    }
    op = by_file_op_new(node, req, false);
    if (!op) {
        return -ENOMEM;
    }
    op->found.generation = __atomic_load_n(&file->generation,
                                           __ATOMIC_SEQ_CST);
    by_file_op_work(op, find, found, 0);
    return BY_PENDING;
}
