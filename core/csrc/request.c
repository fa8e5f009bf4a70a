/* SPDX-License-Identifier: Apache-2.0 */
/*
 * request.c - the way of a request into a node and out of it.
 *
 * submit tracks the request in the node's lane and sends it to the driver.
 * A request that needs more than that (by_plan_fits) goes the long way
 * through gate, prepare, split and align, each of which may hold it, change
 * it or replace it by others, and all of which end at the driver.
 */
#include <errno.h>

#include "bitmap.h"
#include "graph.h"

struct by_frame *by_frame_push(struct by_request *req, size_t bytes,
        int (*done)(struct by_request *, struct by_frame *, int))
{
    struct by_frame *frame = by_slab_get(req->loop, bytes);

    if (likely(frame)) {
        frame->below = req->frame;
        frame->done = done;
        frame->bytes = bytes;
        req->frame = frame;
    }
    return frame;
}

void by_frame_pop(struct by_request *req)
{
    struct by_frame *frame = req->frame;

    req->frame = frame->below;
    by_slab_put(req->loop, frame, frame->bytes);
}

void by_complete(struct by_request *req, int result)
{
    while (req->frame) {
        result = req->frame->done(req, req->frame, result);
        if (result == BY_PENDING) {
            return;
        }
        by_frame_pop(req);
    }
    req->done(req, result);
}

void by_resume(struct by_inode *inode, struct by_request *req,
               int (*step)(struct by_inode *, struct by_request *))
{
    int result = step(inode, req);

    if (result != BY_PENDING) {
        by_complete(req, result);
    }
}

void by_request_init(struct by_request *sub, const struct by_request *of,
                     uint8_t op, uint64_t offset, uint64_t bytes,
                     void (*done)(struct by_request *, int), void *owner)
{
    *sub = (struct by_request) {
        .size = sizeof(*sub),
        .op = op,
        .flags = of->flags & (BY_REQ_WRITE_UNCHANGED | BY_REQ_STABLE
                              | BY_REQ_REGISTERED | BY_REQ_COMPRESSED
                              | BY_REQ_FRESH),
        .offset = offset,
        .bytes = bytes,
        .loop = of->loop,
        .done = done,
        .owner = owner,
    };
}

static bool memory_fits(const struct by_request *req, uintptr_t mask)
{
    uintptr_t bits = req->iov_skip;

    for (uint32_t i = 0; i < req->niov; i++) {
        bits |= (uintptr_t)req->iov[i].iov_base | req->iov[i].iov_len;
    }
    return !(bits & mask);
}

bool by_plan_fits(const struct by_inode *inode, const struct by_request *req)
{
    const struct by_plan *plan = &inode->plan[req->op];

    if (unlikely(__atomic_load_n(&plan->prepare, __ATOMIC_RELAXED)
                 | ((req->offset | req->bytes) & plan->align_mask)
                 | (req->bytes > plan->max_bytes)
                 | (req->flags & ~plan->flags)
                 | (req->niov > plan->max_iov))) {
        return false;
    }
    return likely(!plan->memory_mask) || memory_fits(req, plan->memory_mask);
}

/* Growing by writing, and what truncate did, show in the node's length. */
static void follow_length(struct by_tracked *tracked)
{
    struct by_node *node = &tracked->inode->node;
    uint64_t end = by_end(tracked->offset, tracked->bytes);

    if (tracked->op == BY_OP_TRUNCATE) {
        if (tracked->lengths == __atomic_load_n(&tracked->inode->lengths,
                                                __ATOMIC_ACQUIRE)) {
            by_node_set_length(node, tracked->offset);
        }
    } else if ((tracked->op == BY_OP_WRITE
                || tracked->op == BY_OP_WRITE_ZEROES)
               && unlikely(end > by_node_length(node))) {
        by_node_grow(node, end);
    }
}

static void leave(struct by_tracked *tracked, int result)
{
    struct by_request *req = tracked->req;
    struct by_lane *lane = tracked->lane;

    if (result == 0) {
        follow_length(tracked);
    }
    if (unlikely(__atomic_load_n(&tracked->inode->bitmaps,
                                 __ATOMIC_RELAXED) != NULL)) {
        by_bitmaps_record(tracked);
    }
    by_account(lane, tracked->op, tracked->offset, tracked->bytes,
               tracked->began, result);
    tracked->link.prev->next = tracked->link.next;
    tracked->link.next->prev = tracked->link.prev;
    if (unlikely(tracked->blocks || tracked->is_serialising)) {
        by_gate_leave(tracked);
    }
    req->op = tracked->op;
    req->flags = tracked->flags;
    req->offset = tracked->offset;
    req->bytes = tracked->bytes;
    req->iov = tracked->iov;
    req->niov = tracked->niov;
    req->iov_skip = tracked->iov_skip;
    if (unlikely(by_lane_leave(lane) == 0 && lane->watched)) {
        by_drain_lane_empty(lane);
    }
}

static int tracked_done(struct by_request *req, struct by_frame *frame,
                        int result)
{
    (void)req;
    leave((struct by_tracked *)frame, result);
    return result;
}

struct by_tracked *by_track(struct by_inode *inode, struct by_request *req)
{
    struct by_lane *lane = by_lane_of(inode->lanes, req->loop);
    struct by_tracked *tracked;

    if (unlikely(!lane)) {
        return NULL;
    }
    tracked = (struct by_tracked *)by_frame_push(req, sizeof(*tracked),
                                                 tracked_done);
    if (unlikely(!tracked)) {
        return NULL;
    }
    tracked->inode = inode;
    tracked->lane = lane;
    tracked->req = req;
    tracked->began = by_loop_now(req->loop);
    tracked->op = req->op;
    tracked->flags = req->flags;
    tracked->offset = req->offset;
    tracked->bytes = req->bytes;
    tracked->iov = req->iov;
    tracked->niov = req->niov;
    tracked->iov_skip = req->iov_skip;
    tracked->waiting = false;
    tracked->is_serialising = false;
    tracked->blocks = NULL;
    tracked->link.next = &lane->in_flight;
    tracked->link.prev = lane->in_flight.prev;
    tracked->link.prev->next = &tracked->link;
    lane->in_flight.prev = &tracked->link;
    by_lane_enter(lane);
    return tracked;
}

void by_untrack(struct by_request *req, int result)
{
    leave((struct by_tracked *)req->frame, result);
    by_frame_pop(req);
}

int by_submit(struct by_node *node, struct by_request *req)
{
    struct by_inode *inode = by_inode(node);
    int result;

    if (unlikely(!(node->ops->capabilities & BY_CAP_ANY_LOOP)
                 && req->loop != node->home)) {
        return by_hop(inode, req);
    }
    if (unlikely(!by_track(inode, req))) {
        return -ENOMEM;
    }
    if (likely(by_plan_fits(inode, req)
               && !__atomic_load_n(&inode->serialising, __ATOMIC_SEQ_CST))) {
        result = by_to_driver(inode, req);
    } else {
        result = by_gate(inode, req);
    }
    if (result != BY_PENDING) {
        by_untrack(req, result);
    }
    return result;
}
