/* SPDX-License-Identifier: Apache-2.0 */
/*
 * copy.c - copy a range from one node to another: by the driver when both
 * ends are its own, else by reading and writing a chunk at a time.
 *
 * Chunks are requests of their own in both nodes, and the copy lets its range
 * go meanwhile: a serialising request that waited for it could hold back the
 * very write that the copy waits for.
 */
#include <errno.h>

#include "graph.h"

struct by_copying {
    struct by_frame frame;
    struct by_inode *inode;
    struct by_request *req;
    struct by_request inner;
    struct iovec iov;
    void *buffer;
    uint64_t offset;            /* the request's, which an offloaded write
                                   to the target leaves changed */
    uint64_t done, now;
    enum { BY_OFFLOADED, BY_READING, BY_WRITING } step;
};

static void inner_done(struct by_request *inner, int result)
{
    struct by_copying *c = inner->owner;

    by_complete(c->req, result);
}

/* The copy's own stay in the source. */
static struct by_tracked *tracked_of(struct by_copying *c)
{
    return (struct by_tracked *)c->frame.below;
}

static int read_chunk(struct by_copying *c)
{
    uint64_t left = c->req->bytes - c->done;

    c->step = BY_READING;
    c->now = left < BY_CHUNK ? left : BY_CHUNK;
    c->iov.iov_base = c->buffer;
    c->iov.iov_len = c->now;
    by_request_init(&c->inner, c->req, BY_OP_READ, c->offset + c->done,
                    c->now, inner_done, c);
    c->inner.iov = &c->iov;
    c->inner.niov = 1;
    c->inner.flags |= tracked_of(c)->flags & BY_REQ_SERIALISING;
    return by_submit(&c->inode->node, &c->inner);
}

static int write_chunk(struct by_copying *c)
{
    c->step = BY_WRITING;
    by_request_init(&c->inner, c->req, BY_OP_WRITE,
                    c->req->u.copy.target_offset + c->done, c->now,
                    inner_done, c);
    c->inner.flags |= BY_REQ_STABLE | (c->req->flags & BY_REQ_FUA);
    c->inner.iov = &c->iov;
    c->inner.niov = 1;
    c->done += c->now;
    return by_submit(c->req->u.copy.target, &c->inner);
}

static int begin_chunks(struct by_copying *c)
{
    by_gate_let_go(tracked_of(c));
    c->buffer = by_buffer_get(c->req->loop, BY_CHUNK);
    return c->buffer ? read_chunk(c) : -ENOMEM;
}

static int advance(struct by_copying *c, int result)
{
    if (c->step == BY_OFFLOADED) {
        if (result != -ENOTSUP || (c->req->flags & BY_REQ_NO_FALLBACK)) {
            return result;
        }
        result = begin_chunks(c);
    }
    while (result == 0) {
        if (c->step == BY_READING) {
            result = write_chunk(c);
        } else if (c->done == c->req->bytes) {
            return 0;
        } else {
            result = read_chunk(c);
        }
    }
    return result;
}

static int copying_done(struct by_request *req, struct by_frame *frame,
                        int result)
{
    struct by_copying *c = (struct by_copying *)frame;

    result = advance(c, result);
    if (result != BY_PENDING && c->buffer) {
        by_buffer_put(req->loop, c->buffer, BY_CHUNK);
        c->buffer = NULL;
    }
    return result;
}

static bool can_offload(const struct by_inode *from, const struct by_inode *to,
                        uint32_t flags)
{
    return !(flags & BY_REQ_FUA & ~from->node.ops->flags[BY_OP_COPY_RANGE])
        && from->node.ops == to->node.ops
        && (from->node.ops->serves & BY_OP_BIT(BY_OP_COPY_RANGE))
        && (from->node.ops->capabilities & BY_CAP_ANY_LOOP)
        && !__atomic_load_n(&to->threshold, __ATOMIC_RELAXED)
        && !__atomic_load_n(&to->frozen, __ATOMIC_RELAXED)
        && !__atomic_load_n(&to->serialising, __ATOMIC_RELAXED);
}

/* The driver copies; the target counts it as a write of its own. */
static int offload(struct by_inode *inode, struct by_request *req)
{
    struct by_inode *target = by_inode(req->u.copy.target);
    struct by_tracked *written;
    int result;

    if (!can_offload(inode, target, req->flags)) {
        return -ENOTSUP;
    }
    written = by_track(target, req);
    if (!written) {
        return -ENOMEM;
    }
    written->op = BY_OP_WRITE;
    written->offset = req->u.copy.target_offset;
    result = by_to_driver(inode, req);
    if (result != BY_PENDING) {
        by_untrack(req, result);
    }
    return result;
}

int by_copy(struct by_inode *inode, struct by_request *req)
{
    struct by_copying *c = (struct by_copying *)
        by_frame_push(req, sizeof(*c), copying_done);
    int result;

    if (!c) {
        return -ENOMEM;
    }
    c->inode = inode;
    c->req = req;
    c->buffer = NULL;
    c->offset = req->offset;
    c->done = 0;
    c->step = BY_OFFLOADED;
    result = offload(inode, req);
    if (result != BY_PENDING) {
        result = copying_done(req, &c->frame, result);
    }
    if (result != BY_PENDING) {
        by_frame_pop(req);
    }
    return result;
}
