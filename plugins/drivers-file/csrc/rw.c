/* SPDX-License-Identifier: Apache-2.0 */
/*
 * rw.c - reads and writes.
 *
 * The ring takes them, but for small buffered writes: those block for next to
 * nothing, and a pool thread that makes the calls one after the other is
 * cheaper than a ring that hands each to a kernel thread.  The pool is given
 * what a round of the loop brought in one step, and spreads it only when the
 * calls turn out to take long.  (Batches of our own were tried: they are
 * slower, because the loop and the writer then wait for each other.)  Long
 * buffered reads go there too: the ring copies them out of the page cache on
 * the loop's own thread, and whoever else the loop serves waits meanwhile.
 * And so do long buffered writes where nothing lies as yet, if the file system
 * is one that reserves room for a page after the other: room that is made in
 * one step before them costs a third of the write less.
 *
 * A read behind the end of the file is zeroes.  Short results are continued.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/uio.h>

#include "file.h"

static uint64_t position(const struct by_file_op *op)
{
    return op->req->offset + (op->req->bytes - op->left);
}

/* With O_DIRECT nothing can follow a result that ends inside a block. */
static bool ends_unaligned(const struct by_file_op *op)
{
    return op->file->direct
        && ((op->req->bytes - op->left) & (op->file->alignment - 1));
}

/* RWF_DSYNC only without the page cache: a failure must not be taken for one
 * of the write itself while pages are lost (see flush.c). */
static int write_flags(const struct by_file_op *op)
{
    return (op->req->flags & BY_REQ_FUA) && op->file->direct ? RWF_DSYNC : 0;
}

/* A write has ended; FUA may still need a flush. */
static void written(struct by_file_op *op, int result)
{
    struct by_file_lane *lane;

    by_file_touched(op->file); /* a failed write may have changed something */
    if (likely(result != 0 || !(op->req->flags & BY_REQ_FUA))) {
        by_file_op_end(op, result);
        return;
    }
    if (op->file->direct) {
        by_file_op_end(op, by_file_poisoned(op->file));
        return;
    }
    lane = by_file_lane_of(op->file, op->req->loop);
    if (lane) {
        by_file_sync(lane, op);
    } else {
        by_file_op_end(op, -ENOMEM);
    }
}

/* ------------------------------------------------------ on a pool thread */

static int read_now(struct by_work *work)
{
    struct by_file_op *op = work->owner;

    while (op->left) {
        ssize_t n = preadv(op->file->fd, op->iov, op->niov, position(op));

        if (n < 0) {
            if (errno == EINTR) {
                continue;
            }
            if (errno != EINVAL || !ends_unaligned(op)) {
                return -errno;
            }
            n = 0;
        }
        if (n == 0) {
            by_file_op_zero_rest(op);
            break;
        }
        by_file_op_advance(op, n);
    }
    return 0;
}

static bool needs_room(const struct by_file *file,
                       const struct by_request *req)
{
    return (req->flags & BY_REQ_FRESH) && req->bytes >= BY_FILE_ROOM
        && file->makes_room && !file->direct
        && !__atomic_load_n(&file->no_room, __ATOMIC_RELAXED);
}

/* Whether there is no room is the write's to say. */
static void make_room(struct by_file *file, const struct by_request *req)
{
    if (fallocate(file->fd, FALLOC_FL_KEEP_SIZE, req->offset, req->bytes)
        && by_file_unsupported(-errno) == -ENOTSUP) {
        __atomic_store_n(&file->no_room, true, __ATOMIC_RELAXED);
    }
}

static int write_now(struct by_work *work)
{
    struct by_file_op *op = work->owner;

    if (needs_room(op->file, op->req)) {
        make_room(op->file, op->req);
    }
    while (op->left) {
        ssize_t n = pwritev2(op->file->fd, op->iov, op->niov, position(op),
                             write_flags(op));

        if (n < 0) {
            if (errno == EINTR) {
                continue;
            }
            return -errno;
        }
        if (n == 0) {
            return -ENOSPC;
        }
        by_file_op_advance(op, n);
    }
    return 0;
}

static void read_now_done(struct by_work *work, int result)
{
    by_file_op_end(work->owner, result);
}

static void write_now_done(struct by_work *work, int result)
{
    written(work->owner, result);
}

/* Buffered writes to one regular file take turns at its inode's lock. */
static uint32_t queue_of(const struct by_file *file)
{
    return file->regular && !file->direct ? (uint32_t)file->fd + 1 : 0;
}

static void to_pool(struct by_file_op *op)
{
    if (op->req->op == BY_OP_READ) {
        by_file_op_work(op, read_now, read_now_done, 0);
    } else {
        by_file_op_work(op, write_now, write_now_done,
                        queue_of(op->file));
    }
}

/* ----------------------------------------------------------- on the ring */

static void to_ring(struct by_file_op *op);

static void read_done(struct by_io *io, int result)
{
    struct by_file_op *op = io->owner;

    if (unlikely(result == -EAGAIN || result == -EINTR)) {
        to_pool(op);
        return;
    }
    if (unlikely(result < 0)) {
        if (result != -EINVAL || !ends_unaligned(op)) {
            by_file_op_end(op, result);
            return;
        }
        result = 0;
    }
    by_file_op_advance(op, result);
    if (likely(!op->left)) {
        by_file_op_end(op, 0);
    } else if (result == 0 || ends_unaligned(op)) {
        by_file_op_zero_rest(op);
        by_file_op_end(op, 0);
    } else {
        to_ring(op);
    }
}

static void write_done(struct by_io *io, int result)
{
    struct by_file_op *op = io->owner;

    if (unlikely(result == -EAGAIN || result == -EINTR)) {
        to_pool(op);
        return;
    }
    if (unlikely(result <= 0)) {
        written(op, result < 0 ? result : -ENOSPC);
        return;
    }
    by_file_op_advance(op, result);
    if (likely(!op->left)) {
        written(op, 0);
    } else {
        to_ring(op);
    }
}

static void to_ring(struct by_file_op *op)
{
    struct by_io *io = &op->as.io;
    struct by_loop *loop = op->req->loop;
    uint32_t batch = op->file->max_batch;
    bool read = op->req->op == BY_OP_READ;

    io->op = read ? BY_IO_READV : BY_IO_WRITEV;
    io->done = read ? read_done : write_done;
    io->fd = op->file->fd;
    io->flags = read ? 0 : write_flags(op);
    io->offset = position(op);
    io->bytes = op->left;
    io->iov = op->iov;
    io->niov = op->niov;
    io->owner = op;
    by_file_api->io_submit(loop, io);
    if (unlikely(batch)) {
        by_file_api->loop_submit_at(loop, batch);
    }
}

/* ----------------------------------------------------------------- both */

static bool goes_to_pool(const struct by_file *file,
                         const struct by_request *req)
{
    if (unlikely(file->aio == BY_FILE_THREADS)) {
        return true;
    }
    if (file->direct || file->aio != BY_FILE_AUTO) {
        return false;
    }
    return req->op == BY_OP_WRITE
        ? req->bytes <= BY_FILE_SMALL || needs_room(file, req)
        : req->bytes > BY_FILE_LONG;
}

int by_file_rw(struct by_node *node, struct by_request *req)
{
    struct by_file_op *op;

    if (unlikely(!req->bytes)) {
        return 0;
    }
    op = by_file_op_new(node, req, true);
    if (unlikely(!op)) {
        return -ENOMEM;
    }
    if (goes_to_pool(op->file, req)) {
        to_pool(op);
    } else {
        to_ring(op);
    }
    return BY_PENDING;
}
