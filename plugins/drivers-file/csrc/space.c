/* SPDX-License-Identifier: Apache-2.0 */
/*
 * space.c - operations that move the border between data and holes: DISCARD,
 * WRITE_ZEROES and TRUNCATE.  All of them wait for the file system, so they
 * run on the pool.
 *
 * A file system that does not know an operation is asked once.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

#include "file.h"

#define PUNCH (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE)

static bool known_missing(const bool *flag)
{
    return __atomic_load_n(flag, __ATOMIC_RELAXED);
}

/* Keep what is learnt from an answer. */
static int learn(bool *flag, int result)
{
    if (result == -ENOTSUP) {
        __atomic_store_n(flag, true, __ATOMIC_RELAXED);
    }
    return result;
}

static int allocate(const struct by_file_op *op, int mode)
{
    while (fallocate(op->file->fd, mode, op->req->offset, op->req->bytes)) {
        if (errno != EINTR) {
            return by_file_unsupported(-errno);
        }
    }
    return 0;
}

static int device_range(const struct by_file_op *op, unsigned long command,
                        uint64_t offset, uint64_t bytes)
{
    uint64_t range[2] = { offset, bytes };

    while (ioctl(op->file->fd, command, range)) {
        if (errno != EINTR) {
            return by_file_unsupported(-errno);
        }
    }
    return 0;
}

/* ---------------------------------------------------------------- discard */

/* Devices discard whole sectors; what sticks out keeps its content. */
static int discard_device(const struct by_file_op *op)
{
    uint64_t sector = BY_FILE_SECTOR;
    uint64_t from = (op->req->offset + sector - 1) & ~(sector - 1);
    uint64_t to = (op->req->offset + op->req->bytes) & ~(sector - 1);

    return from < to ? device_range(op, BLKDISCARD, from, to - from) : 0;
}

static int discard(struct by_work *work)
{
    struct by_file_op *op = work->owner;
    struct by_file *file = op->file;

    if (known_missing(&file->no_punch)) {
        return -ENOTSUP;
    }
    return learn(&file->no_punch, file->regular
                 ? allocate(op, PUNCH) : discard_device(op));
}

static void count_discard(struct by_file *file, uint64_t bytes, int result)
{
    struct by_file_stats *stats = &file->stats;

    if (result) {
        __atomic_add_fetch(&stats->discards_failed, 1, __ATOMIC_RELAXED);
    } else {
        __atomic_add_fetch(&stats->discards_ok, 1, __ATOMIC_RELAXED);
        __atomic_add_fetch(&stats->discarded_bytes, bytes, __ATOMIC_RELAXED);
    }
}

/* ----------------------------------------------------------- write zeroes */

/* Deallocate, where the file system then promises zeroes. */
static int zero_and_free(struct by_file_op *op)
{
    int result = allocate(op, PUNCH);

    return result == -EINVAL || result == -EBUSY ? -ENOTSUP : result;
}

/* Some file systems refuse unaligned ranges with EINVAL: then the next way
 * is tried as well. */
static int zero_regular(struct by_file_op *op)
{
    struct by_file *file = op->file;
    int result = -ENOTSUP;

    if (!known_missing(&file->no_zero_range)) {
        result = learn(&file->no_zero_range,
                       allocate(op, FALLOC_FL_ZERO_RANGE));
        if (result != -ENOTSUP && result != -EINVAL) {
            return result;
        }
    }
    if (known_missing(&file->no_fallocate)) {
        return -ENOTSUP;
    }
    if (!known_missing(&file->no_punch)) {
        result = learn(&file->no_punch, allocate(op, PUNCH));
        if (result == 0) {
            return learn(&file->no_fallocate, allocate(op, 0));
        }
        if (result != -ENOTSUP && result != -EINVAL) {
            return result;
        }
    }
    if (op->req->offset >= by_node_length(op->node)) {
        return learn(&file->no_fallocate, allocate(op, 0)); /* it grows */
    }
    return -ENOTSUP;
}

/* BLKZEROOUT writes zeroes itself where the device cannot: that is slow, so
 * not for who asked for speed or nothing. */
static int zero_device(struct by_file_op *op)
{
    struct by_file *file = op->file;
    int result;

    if ((op->req->flags & BY_REQ_NO_FALLBACK)
        || known_missing(&file->no_zeroout)) {
        return -ENOTSUP;
    }
    result = learn(&file->no_zeroout, device_range(op, BLKZEROOUT,
                                                   op->req->offset,
                                                   op->req->bytes));
    return result == -EINVAL ? -ENOTSUP : result; /* not whole sectors */
}

static int write_zeroes(struct by_work *work)
{
    struct by_file_op *op = work->owner;
    bool grows = !by_range_ok(op->req->offset, op->req->bytes,
                              by_node_length(op->node));

    /* A hole behind the end would leave the file as short as it was. */
    if ((op->req->flags & BY_REQ_MAY_UNMAP) && !grows) {
        int result = zero_and_free(op);

        if (result != -ENOTSUP) {
            return result;
        }
    }
    return op->file->regular ? zero_regular(op) : zero_device(op);
}

/* --------------------------------------------------------------- truncate */

static int truncate_device(struct by_file_op *op, int *step)
{
    uint64_t length = by_node_length(op->node);

    if (op->req->u.truncate.prealloc != BY_PREALLOC_OFF) {
        *step = BY_FILE_STEP_DEVICE_MODE;
        return -ENOTSUP;
    }
    if (op->req->offset != length && op->req->u.truncate.exact) {
        *step = BY_FILE_STEP_DEVICE_EXACT;
        return -ENOTSUP;
    }
    if (op->req->offset > length) {
        *step = BY_FILE_STEP_DEVICE_GROW;
        return -EINVAL;
    }
    return 0;
}

static int truncate_now(struct by_work *work)
{
    struct by_file_op *op = work->owner;
    int step = BY_FILE_STEP_NONE;
    int result;

    result = op->file->regular
        ? by_file_resize(op->file->fd, op->req->offset,
                         op->req->u.truncate.prealloc, &step)
        : truncate_device(op, &step);
    __atomic_store_n(&op->file->truncate_step, step, __ATOMIC_RELAXED);
    return result;
}

/* A node's length counts in sectors, as QEMU's does; a device's stays. */
static uint64_t length_after(const struct by_file_op *op)
{
    return op->file->regular
        ? (op->req->offset + BY_FILE_SECTOR - 1)
              & ~(uint64_t)(BY_FILE_SECTOR - 1)
        : by_node_length(op->node);
}

/* ------------------------------------------------------------------- ends */

static void space_done(struct by_work *work, int result)
{
    struct by_file_op *op = work->owner;
    struct by_file *file = op->file;

    __atomic_add_fetch(&file->generation, 1, __ATOMIC_SEQ_CST);
    by_file_touched(file);
    if (op->req->op == BY_OP_DISCARD) {
        count_discard(file, op->req->bytes, result);
        result = result == -ENOTSUP ? 0 : result; /* it was but a hint */
    }
    if (op->req->op == BY_OP_TRUNCATE && result == 0) {
        by_file_api->node_set_length(op->node, length_after(op));
    }
    by_file_op_end(op, result);
}

int by_file_space(struct by_node *node, struct by_request *req)
{
    struct by_file_op *op;

    if (!req->bytes && req->op != BY_OP_TRUNCATE) {
        return 0; /* which fallocate refuses */
    }
    op = by_file_op_new(node, req, false);
    if (!op) {
        return -ENOMEM;
    }
    /* Data that a lane remembers may be holes from now on. */
    __atomic_add_fetch(&op->file->generation, 1, __ATOMIC_SEQ_CST);
    switch (req->op) {
    case BY_OP_DISCARD:
        by_file_op_work(op, discard, space_done, 0);
        break;
    case BY_OP_WRITE_ZEROES:
        by_file_op_work(op, write_zeroes, space_done, 0);
        break;
    default:
        by_file_op_work(op, truncate_now, space_done, 0);
    }
    return BY_PENDING;
}
