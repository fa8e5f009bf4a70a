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

/* In this order; those with a name of an event do no more than announce it. */
enum by_bounce_step {
    BY_BEGIN,
    BY_RMW_HEAD, BY_RMW_TAIL_TOO, BY_READ_HEAD, BY_RMW_AFTER_HEAD,
    BY_RMW_AFTER_TAIL_TOO,
    BY_RMW_TAIL, BY_READ_TAIL, BY_RMW_AFTER_TAIL,
    BY_PWRITEV, BY_WRITE_ALL, BY_PWRITEV_DONE, BY_BOUNCED
};

struct by_bounce {
    struct by_frame frame;
    struct by_inode *inode;
    struct by_request *req;
    struct by_request inner;
    struct by_task resume;      /* behind an event that was held */
    struct iovec iov;
    char *buffer;
    uint64_t from, to;          /* the whole blocks */
    bool head, tail;            /* covered in part */
    bool together;              /* one read brings both */
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
    if (b->req->op == BY_OP_WRITE_ZEROES) {
        memset(b->buffer + (b->req->offset - b->from), 0, b->req->bytes);
    } else {
        copy_payload(b, true);
    }
    return transfer(b, BY_OP_WRITE, b->from, b->to);
}

static int read_head(struct by_bounce *b)
{
    uint64_t block = b->inode->plan[BY_OP_WRITE].align_mask + 1;

    return transfer(b, BY_OP_READ, b->from,
                    b->together ? b->to : b->from + block);
}

static int read_tail(struct by_bounce *b)
{
    uint64_t block = b->inode->plan[BY_OP_WRITE].align_mask + 1;

    return transfer(b, BY_OP_READ, b->to - block, b->to);
}

static void resumed(struct by_task *task)
{
    struct by_bounce *b = task->owner;

    by_complete(b->req, 0);
}

/* An event of this node's, if it is to be: 0, or BY_PENDING when it is held. */
static int announce(struct by_bounce *b, bool wanted, uint32_t event)
{
    b->resume.run = resumed;
    b->resume.owner = b;
    return wanted && by_debug_stop(&b->inode->node, event, &b->resume)
        ? BY_PENDING : 0;
}

static int take_step(struct by_bounce *b)
{
    bool too = b->together && b->tail, apart = !b->together && b->tail;

    switch (b->step) {
    case BY_RMW_HEAD:
        return announce(b, b->head, BY_DEBUG_PWRITEV_RMW_HEAD);
    case BY_RMW_TAIL_TOO:
        return announce(b, too, BY_DEBUG_PWRITEV_RMW_TAIL);
    case BY_READ_HEAD:
        return b->head || b->together ? read_head(b) : 0;
    case BY_RMW_AFTER_HEAD:
        return announce(b, b->head, BY_DEBUG_PWRITEV_RMW_AFTER_HEAD);
    case BY_RMW_AFTER_TAIL_TOO:
        return announce(b, too, BY_DEBUG_PWRITEV_RMW_AFTER_TAIL);
    case BY_RMW_TAIL:
        return announce(b, apart, BY_DEBUG_PWRITEV_RMW_TAIL);
    case BY_READ_TAIL:
        return apart ? read_tail(b) : 0;
    case BY_RMW_AFTER_TAIL:
        return announce(b, apart, BY_DEBUG_PWRITEV_RMW_AFTER_TAIL);
    case BY_PWRITEV:
        return announce(b, b->head || b->tail, BY_DEBUG_PWRITEV);
    case BY_WRITE_ALL:
        return write_all(b);
    case BY_PWRITEV_DONE:
        return announce(b, b->head || b->tail, BY_DEBUG_PWRITEV_DONE);
    default:
        return 0;
    }
}

/* One step's result leads to the next, until one is pending or the last. */
static int advance(struct by_bounce *b, int result)
{
    if (b->req->op == BY_OP_READ) {
        if (result == 0) {
            copy_payload(b, false);
        }
        return result;
    }
    while (result == 0 && b->step < BY_BOUNCED) {
        b->step++;
        result = take_step(b);
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
    b->head = req->offset != b->from;
    b->tail = req->offset + req->bytes != b->to;
    b->together = b->head && b->tail && b->to - b->from <= 2 * (mask + 1);
    b->step = BY_BEGIN;
    b->buffer = by_buffer_get(req->loop, b->to - b->from);
    if (!b->buffer) {
        by_frame_pop(req);
        return -ENOMEM;
    }
    result = req->op == BY_OP_READ
        ? transfer(b, BY_OP_READ, b->from, b->to) : 0;
    if (result != BY_PENDING) {
        result = advance(b, result);
    }
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
