/* SPDX-License-Identifier: Apache-2.0 */
/* op.c - the life of one operation, and the lanes. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "file.h"

const struct by_api *by_file_api;

static bool copy_payload(struct by_file_op *op, struct by_request *req)
{
    int n = req->niov > INT32_MAX ? INT32_MAX : (int)req->niov;

    if (n > BY_FILE_IOV) {
        op->iov_all = by_file_api->slab_get(req->loop,
                                            n * sizeof(struct iovec));
        op->niov_all = n;
    }
    if (!op->iov_all) {
        return false;
    }
    n = by_iov_slice(req->iov, req->niov, req->iov_skip, req->bytes,
                     op->iov_all, n);
    op->iov = op->iov_all;
    op->niov = n;
    op->left = req->bytes;
    return true;
}

struct by_file_op *by_file_op_new(struct by_node *node, struct by_request *req,
                                  bool with_payload)
{
    struct by_file_op *op = by_file_api->slab_get(req->loop, sizeof(*op));

    if (unlikely(!op)) {
        return NULL;
    }
    memset(op, 0, offsetof(struct by_file_op, iov_small));
    op->as.io.size = sizeof(op->as.io);
    op->file = by_file_of(node);
    op->node = node;
    op->req = req;
    op->iov_all = op->iov_small;
    if (with_payload && unlikely(!copy_payload(op, req))) {
        by_file_op_free(op);
        return NULL;
    }
    return op;
}

void by_file_op_free(struct by_file_op *op)
{
    struct by_loop *loop = op->req->loop;

    if (op->niov_all && op->iov_all) {
        by_file_api->slab_put(loop, op->iov_all,
                              op->niov_all * sizeof(struct iovec));
    }
    by_file_api->slab_put(loop, op, sizeof(*op));
}

void by_file_op_end(struct by_file_op *op, int result)
{
    struct by_request *req = op->req;

    by_file_op_free(op);
    by_file_api->complete(req, result);
}

void by_file_op_advance(struct by_file_op *op, uint64_t bytes)
{
    op->left -= bytes;
    while (bytes && bytes >= op->iov->iov_len) {
        bytes -= op->iov->iov_len;
        op->iov++;
        op->niov--;
    }
    if (bytes) {
        op->iov->iov_base = (char *)op->iov->iov_base + bytes;
        op->iov->iov_len -= bytes;
    }
}

void by_file_op_zero_rest(struct by_file_op *op)
{
    for (uint32_t i = 0; i < op->niov; i++) {
        memset(op->iov[i].iov_base, 0, op->iov[i].iov_len);
    }
    op->left = 0;
}

void by_file_op_work(struct by_file_op *op, int (*run)(struct by_work *),
                     void (*done)(struct by_work *, int), uint32_t queue)
{
    memset(&op->as.work, 0, sizeof(op->as.work));
    op->as.work.run = run;
    op->as.work.done = done;
    op->as.work.owner = op;
    op->as.work.queue = queue;
    by_file_api->pool_submit(op->req->loop, &op->as.work);
}

static struct by_file_lane *make_lane(struct by_file *file,
                                      struct by_loop *loop)
{
    struct by_file_lane *lane = calloc(1, sizeof(*lane));

    if (!lane) {
        return NULL;
    }
    lane->loop = loop;
    lane->file = file;
    lane->next = __atomic_load_n(&file->lanes, __ATOMIC_RELAXED);
    while (!__atomic_compare_exchange_n(&file->lanes, &lane->next, lane, true,
                                        __ATOMIC_RELEASE, __ATOMIC_RELAXED)) {
    }
    return lane;
}

struct by_file_lane *by_file_lane_of(struct by_file *file,
                                     struct by_loop *loop)
{
    struct by_file_lane *lane = __atomic_load_n(&file->lanes,
                                                __ATOMIC_ACQUIRE);

    while (lane && lane->loop != loop) {
        lane = lane->next;
    }
    return likely(lane) ? lane : make_lane(file, loop);
}

int by_file_unsupported(int error)
{
    switch (error) {
    case -ENODEV:
    case -ENOSYS:
    case -EOPNOTSUPP:
    case -ENOTTY:
        return -ENOTSUP;
    default:
        return error;
    }
}
