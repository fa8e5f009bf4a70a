/* SPDX-License-Identifier: Apache-2.0 */
/* copy.c - COPY_RANGE between two files, and PREFETCH. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "file.h"

/* What the kernel cannot do between these two is copied through memory. */
static int copy_error(int error)
{
    switch (error) {
    case EXDEV:
    case EINVAL:
    case EOPNOTSUPP:
    case ENOSYS:
        return -ENOTSUP;
    default:
        return -error;
    }
}

static int copy_now(struct by_work *work)
{
    struct by_file_op *op = work->owner;
    struct by_request *req = op->req;
    int target = by_file_of(req->u.copy.target)->fd;
    off_t from = req->offset;
    off_t to = req->u.copy.target_offset;
    uint64_t left = req->bytes;

    while (left) {
        ssize_t n = copy_file_range(op->file->fd, &from, target, &to, left,
                                    0);

        if (n == 0) {
            return -ENOTSUP; /* behind the source's end: zeroes to write */
        }
        if (n < 0 && errno != EINTR) {
            return copy_error(errno);
        }
        left -= n > 0 ? n : 0;
    }
    return 0;
}

static void copied(struct by_work *work, int result)
{
    struct by_file_op *op = work->owner;

    by_file_touched(by_file_of(op->req->u.copy.target));
    by_file_op_end(op, result);
}

int by_file_copy(struct by_node *node, struct by_request *req)
{
    struct by_file_op *op;

    if (!req->u.copy.target || !by_file_is_ours(req->u.copy.target)
        || !by_file_of(req->u.copy.target)->regular
        || !by_file_of(node)->regular) {
        return -ENOTSUP;
    }
    op = by_file_op_new(node, req, false);
    if (!op) {
        return -ENOMEM;
    }
    by_file_op_work(op, copy_now, copied, 0);
    return BY_PENDING;
}

static int prefetch_now(struct by_work *work)
{
    struct by_file_op *op = work->owner;

    (void)readahead(op->file->fd, op->req->offset, op->req->bytes);
    return 0;
}

static void prefetched(struct by_work *work, int result)
{
    by_file_op_end(work->owner, result);
}

int by_file_prefetch(struct by_node *node, struct by_request *req)
{
    struct by_file_op *op;

    if (by_file_of(node)->direct) {
        return 0; /* no cache to fill */
    }
    op = by_file_op_new(node, req, false);
    if (!op) {
        return -ENOMEM;
    }
    by_file_op_work(op, prefetch_now, prefetched, 0);
    return BY_PENDING;
}
