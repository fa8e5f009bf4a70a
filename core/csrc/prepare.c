/* SPDX-License-Identifier: Apache-2.0 */
/*
 * prepare.c - what a node's settings make of a request, and what core does
 * for operations that the driver does not serve.
 */
#include <errno.h>

#include "graph.h"

static void watch_threshold(struct by_inode *inode,
                            const struct by_request *req)
{
    uint64_t limit = __atomic_load_n(&inode->threshold, __ATOMIC_ACQUIRE);
    uint64_t end = by_end(req->offset, req->bytes);

    /* Once: whoever swaps the threshold for 0 reports it. */
    if (limit && end > limit
        && __atomic_compare_exchange_n(&inode->threshold, &limit, 0, false,
                                       __ATOMIC_ACQ_REL, __ATOMIC_RELAXED)) {
        by_report(__atomic_load_n(&inode->threshold_tag, __ATOMIC_RELAXED),
                  BY_EVENT_THRESHOLD, 0, end - limit, limit);
    }
}

static bool payload_is_zero(const struct by_request *req)
{
    uint64_t skip = req->iov_skip, left = req->bytes;

    for (uint32_t i = 0; i < req->niov && left; i++) {
        uint64_t len = req->iov[i].iov_len;
        uint64_t now;

        if (skip >= len) {
            skip -= len;
            continue;
        }
        now = len - skip < left ? len - skip : left;
        if (!by_is_zero((char *)req->iov[i].iov_base + skip, now)) {
            return false;
        }
        left -= now;
        skip = 0;
    }
    return true;
}

/* Zeroes are written as zeroes; the payload is not looked at again, so a
 * guest that changes it meanwhile gains nothing. */
static void detect_zeroes(struct by_inode *inode, struct by_request *req)
{
    int mode = __atomic_load_n(&inode->detect_zeroes, __ATOMIC_RELAXED);

    if (mode && payload_is_zero(req)) {
        req->op = BY_OP_WRITE_ZEROES;
        req->flags &= ~BY_REQ_COMPRESSED;
        if (mode == 2) {
            req->flags |= BY_REQ_MAY_UNMAP;
        }
    }
}

static bool serves(const struct by_inode *inode, uint8_t op)
{
    return inode->node.ops->serves & BY_OP_BIT(op);
}

static bool flushes_nothing(const struct by_inode *inode)
{
    return __atomic_load_n(&inode->no_flush, __ATOMIC_RELAXED)
        || !serves(inode, BY_OP_FLUSH);
}

/* Zeroes may become writes, in part or as a whole. */
static bool knows_fua(const struct by_inode *inode, uint8_t op)
{
    const uint32_t *flags = inode->node.ops->flags;

    return (flags[op] & BY_REQ_FUA)
        && (op != BY_OP_WRITE_ZEROES || (flags[BY_OP_WRITE] & BY_REQ_FUA));
}

/* FUA: the driver's, a flush behind, or nothing where flushes are off. */
static int durable(struct by_inode *inode, struct by_request *req)
{
    if (!(req->flags & BY_REQ_FUA) || knows_fua(inode, req->op)) {
        return 0;
    }
    req->flags &= ~BY_REQ_FUA;
    if (flushes_nothing(inode)) {
        return 0;
    }
    return by_fua_push(inode, req) ? 0 : -ENOMEM;
}

/* A frame that durable pushed is popped by whoever returns at once. */
static int run(struct by_inode *inode, struct by_request *req,
               int (*step)(struct by_inode *, struct by_request *))
{
    struct by_frame *before = req->frame;
    int result = durable(inode, req);

    if (result == 0) {
        result = step(inode, req);
    }
    if (result != BY_PENDING && req->frame != before) {
        result = req->frame->done(req, req->frame, result);
        if (result != BY_PENDING) {
            by_frame_pop(req);
        }
    }
    return result;
}

static int split(struct by_inode *inode, struct by_request *req)
{
    return run(inode, req, by_split);
}

/* What the driver does not serve needs no cutting at its limits. */
static int zeroes(struct by_inode *inode, struct by_request *req)
{
    return run(inode, req, serves(inode, req->op) ? by_split : by_zeroes);
}

/* What is compressed has no events, and a write that rewrites others (see
 * align.c) announces itself later, when it has read. */
static bool announces(const struct by_inode *inode,
                      const struct by_request *req)
{
    return by_debug_heard(&inode->node) && !(req->flags & BY_REQ_COMPRESSED)
        && (req->op == BY_OP_WRITE_ZEROES || !by_align_rewrites(inode, req));
}

/* No hint: who asks for compression counts on the room that it saves. */
static bool knows_compression(const struct by_inode *inode,
                              const struct by_request *req)
{
    return !(req->flags & BY_REQ_COMPRESSED & ~inode->node.ops->flags[req->op]);
}

static int prepare_write(struct by_inode *inode, struct by_request *req)
{
    int (*step)(struct by_inode *, struct by_request *) = split;

    watch_threshold(inode, req);
    if (req->op == BY_OP_WRITE) {
        detect_zeroes(inode, req);
    }
    if (req->op == BY_OP_WRITE) {
        if (!serves(inode, BY_OP_WRITE) || !knows_compression(inode, req)) {
            return -ENOTSUP;
        }
    } else {
        step = zeroes;
        if (!__atomic_load_n(&inode->discard, __ATOMIC_RELAXED)) {
            req->flags &= ~BY_REQ_MAY_UNMAP;
        }
    }
    return unlikely(announces(inode, req)) ? by_debug_write(inode, req, step)
                                           : step(inode, req);
}

static bool changes_data(uint8_t op)
{
    return op == BY_OP_WRITE || op == BY_OP_WRITE_ZEROES
        || op == BY_OP_DISCARD || op == BY_OP_TRUNCATE;
}

int by_prepare(struct by_inode *inode, struct by_request *req)
{
    if (unlikely(__atomic_load_n(&inode->frozen, __ATOMIC_RELAXED)
                 && changes_data(req->op))) {
        return -EPERM;
    }
    req->flags &= ~BY_REQ_SERIALISING;
    switch (req->op) {
    case BY_OP_WRITE:
    case BY_OP_WRITE_ZEROES:
        return prepare_write(inode, req);
    case BY_OP_FLUSH:
        return flushes_nothing(inode) ? 0 : by_to_driver(inode, req);
    case BY_OP_DISCARD:
        return !__atomic_load_n(&inode->discard, __ATOMIC_RELAXED)
            || !serves(inode, BY_OP_DISCARD)
            ? 0 : run(inode, req, by_split);
    case BY_OP_PREFETCH:
        return serves(inode, BY_OP_PREFETCH) ? by_to_driver(inode, req) : 0;
    case BY_OP_BLOCK_STATUS:
        return by_status(inode, req);
    case BY_OP_COPY_RANGE:
        return by_copy(inode, req);
    case BY_OP_TRUNCATE:
        return serves(inode, BY_OP_TRUNCATE) ? by_to_driver(inode, req)
                                             : -ENOTSUP;
    default:
        return serves(inode, req->op) ? by_split(inode, req) : -ENOTSUP;
    }
}
