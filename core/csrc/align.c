/* SPDX-License-Identifier: Apache-2.0 */
/*
 * align.c - requests whose offset, length or memory the driver cannot take.
 *
 * They go through an aligned buffer that covers the whole blocks which the
 * request touches.  A write first reads the blocks that it covers in part;
 * the gate has made sure that nobody else writes them meanwhile.
 */
#include <errno.h>
#include <string.h>

#include "graph.h"

enum by_bounce_step { BY_READ_HEAD, BY_READ_TAIL, BY_WRITE_ALL, BY_READ_ALL };

struct by_bounce {
    struct by_frame frame;
    struct by_inode *inode;
    struct by_request *req;
    struct by_request inner;
    struct iovec iov;
    char *buffer;
    uint64_t from, to;          /* the whole blocks */
    enum by_bounce_step step;
};

bool by_align_rewrites(const struct by_inode *inode,
                       const struct by_request *req)
{
    return (req->op == BY_OP_WRITE || req->op == BY_OP_WRITE_ZEROES)
        && ((req->offset | req->bytes) & inode->plan[req->op].align_mask);
}

static bool may_change(const struct by_inode *inode,
                       const struct by_request *req)
{
    return req->op == BY_OP_WRITE
        && (inode->node.ops->capabilities & BY_CAP_REPEATS_READS)
        && !(req->flags & BY_REQ_STABLE);
}

bool by_align_bounces(const struct by_inode *inode,
                      const struct by_request *req)
{
    const struct by_plan *plan = &inode->plan[req->op];
    uintptr_t bits = req->iov_skip;

    if (((req->offset | req->bytes) & plan->align_mask)
        || req->niov > plan->max_iov || may_change(inode, req)) {
        return true;
    }
    if (!plan->memory_mask) {
        return false;
    }
    for (uint32_t i = 0; i < req->niov; i++) {
        bits |= (uintptr_t)req->iov[i].iov_base | req->iov[i].iov_len;
    }
    return bits & plan->memory_mask;
}

/* Between the request's payload and its place in the buffer. */
static void copy_payload(struct by_bounce *b, bool to_buffer)
{
    const struct by_request *req = b->req;
    char *at = b->buffer + (req->offset - b->from);
    uint64_t skip = req->iov_skip, left = req->bytes;

    for (uint32_t i = 0; i < req->niov && left; i++) {
        uint64_t len = req->iov[i].iov_len;
        char *payload = (char *)req->iov[i].iov_base + skip;

        if (skip >= len) {
            skip -= len;
            continue;
        }
        len = len - skip < left ? len - skip : left;
        memcpy(to_buffer ? at : payload, to_buffer ? payload : at, len);
        at += len;
        left -= len;
        skip = 0;
    }
}

static void inner_done(struct by_request *inner, int result)
{
    struct by_bounce *b = inner->owner;

    by_complete(b->req, result);
}

static int transfer(struct by_bounce *b, uint8_t op, uint64_t from,
                    uint64_t to)
{
    by_request_init(&b->inner, b->req, op, from, to - from, inner_done, b);
    if (op == BY_OP_WRITE) {
        b->inner.flags |= BY_REQ_STABLE | (b->req->flags & BY_REQ_FUA);
    }
    b->inner.flags &= ~BY_REQ_REGISTERED;
    b->iov.iov_base = b->buffer + (from - b->from);
    b->iov.iov_len = to - from;
    b->inner.iov = &b->iov;
    b->inner.niov = 1;
    return by_to_driver(b->inode, &b->inner);
}

static int write_all(struct by_bounce *b)
{
    b->step = BY_WRITE_ALL;
    if (b->req->op == BY_OP_WRITE_ZEROES) {
        memset(b->buffer + (b->req->offset - b->from), 0, b->req->bytes);
    } else {
        copy_payload(b, true);
    }
    return transfer(b, BY_OP_WRITE, b->from, b->to);
}

static int read_tail(struct by_bounce *b)
{
    uint64_t block = b->inode->plan[BY_OP_WRITE].align_mask + 1;
    uint64_t end = b->req->offset + b->req->bytes;
    bool read_already = b->req->offset != b->from && b->to - b->from == block;

    b->step = BY_READ_TAIL;
    if (end == b->to || read_already) {
        return 0;
    }
    return transfer(b, BY_OP_READ, b->to - block, b->to);
}

static int read_head(struct by_bounce *b)
{
    uint64_t block = b->inode->plan[BY_OP_WRITE].align_mask + 1;

    b->step = BY_READ_HEAD;
    if (b->req->offset == b->from) {
        return 0;
    }
    return transfer(b, BY_OP_READ, b->from, b->from + block);
}

/* One step's result leads to the next, until one is pending or the last. */
static int advance(struct by_bounce *b, int result)
{
    while (result == 0) {
        switch (b->step) {
        case BY_READ_HEAD:
            result = read_tail(b);
            break;
        case BY_READ_TAIL:
            result = write_all(b);
            if (result == 0) {
                return 0;
            }
            break;
        case BY_READ_ALL:
            copy_payload(b, false);
            return 0;
        case BY_WRITE_ALL:
            return 0;
        }
    }
    return result;
}

static void drop(struct by_bounce *b)
{
    by_buffer_put(b->req->loop, b->buffer, b->to - b->from);
    b->buffer = NULL;
}

static int bounce_done(struct by_request *req, struct by_frame *frame,
                       int result)
{
    struct by_bounce *b = (struct by_bounce *)frame;

    (void)req;
    result = advance(b, result);
    if (result != BY_PENDING) {
        drop(b);
    }
    return result;
}

static int bounce(struct by_inode *inode, struct by_request *req)
{
    uint64_t mask = inode->plan[req->op].align_mask;
    struct by_bounce *b = (struct by_bounce *)
        by_frame_push(req, sizeof(*b), bounce_done);
    int result;

    if (!b) {
        return -ENOMEM;
    }
    b->inode = inode;
    b->req = req;
    b->from = req->offset & ~mask;
    b->to = (req->offset + req->bytes + mask) & ~mask;
    b->buffer = by_buffer_get(req->loop, b->to - b->from);
    if (!b->buffer) {
        by_frame_pop(req);
        return -ENOMEM;
    }
    if (req->op == BY_OP_READ) {
        b->step = BY_READ_ALL;
        result = transfer(b, BY_OP_READ, b->from, b->to);
    } else {
        result = read_head(b);
    }
    result = advance(b, result);
    if (result != BY_PENDING) {
        drop(b);
        by_frame_pop(req);
    }
    return result;
}

int by_align(struct by_inode *inode, struct by_request *req)
{
    bool ragged = (req->offset | req->bytes) & inode->plan[req->op].align_mask;

    switch (req->op) {
    case BY_OP_READ:
    case BY_OP_WRITE:
        return by_align_bounces(inode, req) ? bounce(inode, req)
                                            : by_to_driver(inode, req);
    case BY_OP_WRITE_ZEROES:
        return ragged ? bounce(inode, req) : by_to_driver(inode, req);
    case BY_OP_DISCARD:
        return ragged ? 0 : by_to_driver(inode, req); /* advice only */
    default:
        return by_to_driver(inode, req);
    }
}
