/* SPDX-License-Identifier: Apache-2.0 */
/*
 * root.c - where requests enter the graph: bounds, rights, and the place
 * where a drain lets them wait.
 */
#include <errno.h>
#include <stdlib.h>

#include "graph.h"

struct by_rooted {
    struct by_frame frame;
    struct by_root *root;
    struct by_lane *lane;
    struct by_root *target;     /* COPY_RANGE: where it writes; else null */
    struct by_lane *target_lane;
    struct by_request *req;
    struct by_rooted *next;     /* parked */
    uint64_t began;
    uint32_t flags;
};

struct by_root *by_root_create(struct by_node *node)
{
    struct by_root *root = calloc(1, sizeof(*root));

    if (root) {
        root->inode = by_inode(node);
    }
    return root;
}

void by_root_set_node(struct by_root *root, struct by_node *node)
{
    __atomic_store_n(&root->inode, by_inode(node), __ATOMIC_RELEASE);
}

void by_root_set_writable(struct by_root *root, bool writable, bool growable)
{
    __atomic_store_n(&root->writable, writable, __ATOMIC_RELEASE);
    __atomic_store_n(&root->growable, growable, __ATOMIC_RELEASE);
}

void by_root_set_writethrough(struct by_root *root, bool writethrough)
{
    __atomic_store_n(&root->writethrough, writethrough, __ATOMIC_RELEASE);
}

void by_root_get_stats(const struct by_root *root, struct by_stats *out)
{
    by_lanes_stats(root->lanes, out);
}

/* Any loop asks, the control thread changes. */
static inline bool is(const bool *setting)
{
    return __atomic_load_n(setting, __ATOMIC_RELAXED);
}

uint64_t by_root_length(const struct by_root *root)
{
    return by_node_length(by_root_node(root));
}

const struct by_limits *by_root_limits(const struct by_root *root)
{
    return &by_root_node(root)->limits;
}

struct by_node *by_root_node(const struct by_root *root)
{
    return &__atomic_load_n(&root->inode, __ATOMIC_ACQUIRE)->node;
}

static bool changes(const struct by_request *req)
{
    return BY_OP_BIT(req->op) & (BY_OP_BIT(BY_OP_WRITE)
        | BY_OP_BIT(BY_OP_DISCARD) | BY_OP_BIT(BY_OP_WRITE_ZEROES)
        | BY_OP_BIT(BY_OP_TRUNCATE));
}

/* 0, or why the request may not enter. */
static int refuse(const struct by_root *root, const struct by_request *req)
{
    uint64_t length = by_root_length(root);
    bool grows = is(&root->growable) && (req->op == BY_OP_WRITE
                                    || req->op == BY_OP_WRITE_ZEROES);

    if (changes(req) && !is(&root->writable)) {
        return -EPERM;
    }
    if (req->op == BY_OP_TRUNCATE) {
        return req->offset > INT64_MAX ? -EFBIG : 0;
    }
    return by_range_ok(req->offset, req->bytes, grows ? INT64_MAX : length)
        ? 0 : -EIO;
}

static int may_write(const struct by_root *root, uint64_t offset,
                     uint64_t bytes)
{
    if (!is(&root->writable)) {
        return -EPERM;
    }
    return by_range_ok(offset, bytes, is(&root->growable)
                       ? INT64_MAX : by_root_length(root)) ? 0 : -EIO;
}

static void leave(struct by_lane *lane)
{
    if (unlikely(by_lane_leave(lane) == 0 && lane->watched)) {
        by_drain_lane_empty(lane);
    }
}

static int rooted_done(struct by_request *req, struct by_frame *frame,
                       int result)
{
    struct by_rooted *rooted = (struct by_rooted *)frame;
    struct by_lane *lane = rooted->lane;

    by_account(lane, req->op, req->offset, req->bytes, rooted->began, result);
    req->flags = rooted->flags;
    leave(lane);
    if (unlikely(rooted->target)) {
        leave(rooted->target_lane);
    }
    return result;
}

/* Both ends of a copy are in use; the target's node is the root's of now. */
static int enter_target(struct by_rooted *rooted)
{
    struct by_request *req = rooted->req;

    by_lane_enter(rooted->target_lane);
    if (is(&rooted->target->writethrough)) {
        req->flags |= BY_REQ_FUA;
    }
    req->u.copy.target = by_root_node(rooted->target);
    return may_write(rooted->target, req->u.copy.target_offset, req->bytes);
}

/* The frame is pushed and the request counts as in flight from here on. */
static int enter(struct by_rooted *rooted)
{
    struct by_root *root = rooted->root;
    struct by_request *req = rooted->req;
    int result;

    by_lane_enter(rooted->lane);
    if (is(&root->writethrough) && changes(req)) {
        req->flags |= BY_REQ_FUA;
    }
    result = refuse(root, req); /* again: parked requests meet a new length */
    if (unlikely(rooted->target)) {
        int other = enter_target(rooted);

        result = result ? result : other;
    }
    if (likely(result == 0)) {
        result = by_submit(by_root_node(root), req);
    }
    if (result != BY_PENDING) {
        rooted_done(req, &rooted->frame, result);
        by_frame_pop(req);
    }
    return result;
}

static int park(struct by_rooted *rooted, struct by_lane *lane)
{
    rooted->next = NULL;
    *lane->parked_end = rooted;
    lane->parked_end = &rooted->next;
    return BY_PENDING;
}

static inline bool is_closed(const struct by_root *root)
{
    return __atomic_load_n(&root->quiesced, __ATOMIC_ACQUIRE);
}

/* A copy waits at one end while it is closed, then looks at the other again,
 * and never keeps one busy while it waits at the other. */
static int try_to_enter(struct by_rooted *rooted)
{
    if (unlikely(is_closed(rooted->root))) {
        return park(rooted, rooted->lane);
    }
    if (unlikely(rooted->target && is_closed(rooted->target))) {
        return park(rooted, rooted->target_lane);
    }
    return enter(rooted);
}

/* Null with *result set when the request cannot enter. */
static struct by_rooted *admit(struct by_root *root, struct by_request *req,
                               int *result)
{
    struct by_lane *lane = by_lane_of(root->lanes, req->loop);
    struct by_rooted *rooted;

    req->frame = NULL;
    *result = unlikely(!lane) ? -ENOMEM : refuse(root, req);
    if (unlikely(*result < 0)) {
        if (lane) {
            by_account_invalid(lane, req->op);
        }
        return NULL;
    }
    rooted = (struct by_rooted *)by_frame_push(req, sizeof(*rooted),
                                               rooted_done);
    if (unlikely(!rooted)) {
        *result = -ENOMEM;
        return NULL;
    }
    rooted->root = root;
    rooted->lane = lane;
    rooted->target = NULL;
    rooted->req = req;
    rooted->began = by_loop_now(req->loop);
    rooted->flags = req->flags;
    return rooted;
}

int by_root_submit(struct by_root *root, struct by_request *req)
{
    int result;
    struct by_rooted *rooted = admit(root, req, &result);

    if (unlikely(!rooted)) {
        return result;
    }
    if (unlikely(is_closed(root) || rooted->lane->parked)) {
        return park(rooted, rooted->lane);
    }
    return enter(rooted);
}

int by_root_enter(struct by_root *root, struct by_request *req)
{
    int result;
    struct by_rooted *rooted = admit(root, req, &result);

    return rooted ? enter(rooted) : result;
}

int by_root_copy(struct by_root *root, struct by_root *target,
                 struct by_request *req, bool inner)
{
    struct by_lane *lane = by_lane_of(target->lanes, req->loop);
    int result = lane ? may_write(target, req->u.copy.target_offset,
                                  req->bytes) : -ENOMEM;
    struct by_rooted *rooted;

    if (result < 0) {
        return result;
    }
    rooted = admit(root, req, &result);
    if (!rooted) {
        return result;
    }
    rooted->target = target;
    rooted->target_lane = lane;
    return inner ? enter(rooted) : try_to_enter(rooted);
}

/* In order, until the last one or the next drain. */
void by_root_unpark(struct by_root *root, struct by_lane *lane)
{
    while (lane->parked && !is_closed(root)) {
        struct by_rooted *rooted = lane->parked;
        struct by_request *req = rooted->req;
        int result;

        lane->parked = rooted->next;
        if (!lane->parked) {
            lane->parked_end = &lane->parked;
        }
        result = try_to_enter(rooted);
        if (result != BY_PENDING) {
            by_complete(req, result);
        }
    }
}

static void nothing(void *arg, struct by_loop *loop)
{
    (void)arg;
    (void)loop;
}

static void root_unused(void *arg)
{
    struct by_root *root = arg;
    uint64_t tag = root->free_tag;

    by_lanes_free(root->lanes);
    free(root);
    by_report(tag, BY_EVENT_DONE, 0, 0, 0);
}

int by_root_free(struct by_root *root, uint64_t tag)
{
    root->free_tag = tag;
    return by_everywhere(nothing, root_unused, root);
}
