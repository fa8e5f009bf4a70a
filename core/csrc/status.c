/* SPDX-License-Identifier: Apache-2.0 */
/*
 * status.c - block status: what the driver knows, what the file below adds.
 *
 * A format that answers BY_STATUS_RECURSE has data at host_offset of owner;
 * where owner's own answer there is "zero", the format's data reads as zeroes
 * as well.  Without BY_STATUS_ALLOCATED owner is a backing node and its whole
 * answer holds, one layer deeper; zeroes behind its end count as its own.
 * Answers end on the node's request alignment, so that whoever walks a disk
 * by them stays aligned.
 */
#include <errno.h>

#include "graph.h"

struct by_asking {
    struct by_frame frame;
    struct by_inode *inode;
    struct by_request *req;
    struct by_request inner;
    struct by_block_status below;
    bool below_asked;
    bool chain;                 /* below is a backing node */
};

static void all_data(struct by_request *req)
{
    struct by_block_status *status = req->u.status;

    status->flags = BY_STATUS_DATA | BY_STATUS_ALLOCATED;
    status->bytes = req->bytes;
    status->owner = NULL;
    status->depth = 0;
}

static void align_answer(const struct by_inode *inode, struct by_request *req)
{
    struct by_block_status *status = req->u.status;
    uint64_t mask = inode->plan[BY_OP_READ].align_mask;
    uint64_t end = req->offset + status->bytes;

    if (!(end & mask) || status->bytes >= req->bytes) {
        return;
    }
    if ((end & ~mask) > req->offset) {
        status->bytes = (end & ~mask) - req->offset;
        return;
    }
    end = (end | mask) + 1;
    status->bytes = end - req->offset < req->bytes ? end - req->offset
                                                   : req->bytes;
    status->flags = BY_STATUS_DATA | BY_STATUS_ALLOCATED;
}

static void inner_done(struct by_request *inner, int result)
{
    struct by_asking *a = inner->owner;

    by_complete(a->req, result);
}

static int ask_below(struct by_asking *a)
{
    struct by_block_status *status = a->req->u.status;

    a->below_asked = true;
    a->below = (struct by_block_status) {
        .size = sizeof(a->below), .precise = status->precise,
        .layers = a->chain && status->layers ? status->layers - 1 : 0,
    };
    by_request_init(&a->inner, a->req, BY_OP_BLOCK_STATUS,
                    status->host_offset, status->bytes, inner_done, a);
    a->inner.u.status = &a->below;
    return by_submit(status->owner, &a->inner);
}

/* An error below takes nothing from what the format itself has said. */
static void merge_below(struct by_asking *a, int result)
{
    struct by_block_status *status = a->req->u.status;

    if (result == 0 && (a->below.flags & BY_STATUS_ZERO)) {
        status->flags |= BY_STATUS_ZERO;
        if (a->below.bytes < status->bytes) {
            status->bytes = a->below.bytes;
        }
    }
}

/* The backing node decides. */
static int adopt(struct by_asking *a, int result)
{
    struct by_block_status *status = a->req->u.status;

    if (result < 0) {
        return result;
    }
    status->flags = a->below.flags & ~BY_STATUS_EOF;
    status->host_offset = a->below.host_offset;
    status->owner = a->below.owner;
    status->depth = a->below.depth + 1;
    if (a->below.bytes < status->bytes) {
        status->bytes = a->below.bytes;
    }
    return 0;
}

/* Of a chain, what lies behind the backing node's end is zeroes of its. */
static bool ends_before(struct by_asking *a)
{
    struct by_block_status *status = a->req->u.status;
    uint64_t length = by_node_length(status->owner);

    if (status->host_offset >= length) {
        status->flags = BY_STATUS_ZERO | BY_STATUS_ALLOCATED;
        status->owner = NULL;
        status->depth = 1;
        return true;
    }
    if (status->bytes > length - status->host_offset) {
        status->bytes = length - status->host_offset;
    }
    return false;
}

/* Is there something below to ask? */
static bool asks_below(struct by_asking *a)
{
    struct by_block_status *status = a->req->u.status;

    if (!(status->flags & BY_STATUS_RECURSE) || !status->owner
        || status->owner == &a->inode->node /* would never end */
        || status->bytes == 0 || status->bytes > a->req->bytes) {
        return false;
    }
    a->chain = !(status->flags & BY_STATUS_ALLOCATED);
    if (a->chain) {
        return status->layers != 1 && !ends_before(a);
    }
    return !(status->flags & BY_STATUS_ZERO) && status->precise;
}

static int finish(struct by_asking *a)
{
    struct by_request *req = a->req;
    struct by_block_status *status = req->u.status;

    if (status->bytes == 0 || status->bytes > req->bytes) {
        return -EIO; /* the driver broke its word */
    }
    status->flags &= ~BY_STATUS_RECURSE;
    align_answer(a->inode, req);
    if (req->offset + status->bytes >= by_node_length(&a->inode->node)) {
        status->flags |= BY_STATUS_EOF;
    }
    return 0;
}

static int asking_done(struct by_request *req, struct by_frame *frame,
                       int result)
{
    struct by_asking *a = (struct by_asking *)frame;

    (void)req;
    if (!a->below_asked) {
        if (result < 0) {
            return result;
        }
        if (asks_below(a)) {
            result = ask_below(a);
            if (result == BY_PENDING) {
                return result;
            }
        }
    }
    if (a->below_asked && a->chain) {
        result = adopt(a, result);
        if (result < 0) {
            return result;
        }
    } else if (a->below_asked) {
        merge_below(a, result);
    }
    return finish(a);
}

static int first_answer(struct by_inode *inode, struct by_request *req)
{
    const struct by_node_ops *ops = inode->node.ops;

    if (ops->serves & BY_OP_BIT(BY_OP_BLOCK_STATUS)) {
        return by_to_driver(inode, req);
    }
    if ((ops->capabilities & BY_CAP_FILTER) && inode->children[0]) {
        return by_submit(inode->children[0], req);
    }
    all_data(req);
    return 0;
}

int by_status(struct by_inode *inode, struct by_request *req)
{
    struct by_asking *a;
    int result;

    if (req->bytes == 0) {
        return -EINVAL;
    }
    a = (struct by_asking *)by_frame_push(req, sizeof(*a), asking_done);
    if (!a) {
        return -ENOMEM;
    }
    a->inode = inode;
    a->req = req;
    a->below_asked = false;
    a->chain = false;
    result = first_answer(inode, req);
    if (result != BY_PENDING) {
        result = asking_done(req, &a->frame, result);
    }
    if (result != BY_PENDING) {
        by_frame_pop(req);
    }
    return result;
}
