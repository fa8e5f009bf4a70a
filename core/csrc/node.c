/* SPDX-License-Identifier: Apache-2.0 */
/*
 * node.c - a node's life and its settings.
 *
 * Settings change from the control thread while requests run.  Each change
 * writes its word and then the plan's; a request sees the old one or the new
 * one.  What must not be seen half (children, limits, home) changes only
 * while the node is drained.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "bitmap.h"
#include "graph.h"

struct by_lane *by_lane_make(struct by_lane **lanes, struct by_loop *loop)
{
    struct by_lane *lane = calloc(1, sizeof(*lane));

    if (!lane) {
        return NULL;
    }
    lane->loop = loop;
    lane->in_flight.next = lane->in_flight.prev = &lane->in_flight;
    lane->parked_end = &lane->parked;
    /* In one order with the look for serialising requests that follows:
     * either it finds one, or that one sees the lane (lane_is_alone). */
    __atomic_store_n(&lanes[by_loop_index(loop)], lane, __ATOMIC_SEQ_CST);
    return lane;
}

void by_lanes_free(struct by_lane **lanes)
{
    for (int i = 0; i < BY_MAX_LOOPS; i++) {
        free(lanes[i]);
    }
}

static uint64_t limit_for(const struct by_limits *limits, int op)
{
    switch (op) {
    case BY_OP_READ:
    case BY_OP_WRITE:
        return limits->max_transfer;
    case BY_OP_WRITE_ZEROES:
        return limits->max_write_zeroes;
    case BY_OP_DISCARD:
        return limits->max_discard;
    default:
        return 0;
    }
}

static bool has_payload(int op)
{
    return op == BY_OP_READ || op == BY_OP_WRITE;
}

static bool changes_data(int op)
{
    return has_payload(op) || op == BY_OP_DISCARD || op == BY_OP_WRITE_ZEROES;
}

/* What core itself has to do for this operation on this node. */
static bool needs_prepare(const struct by_inode *inode, int op)
{
    const struct by_node_ops *ops = inode->node.ops;

    if (!(ops->serves & BY_OP_BIT(op))) {
        return true;
    }
    switch (op) {
    case BY_OP_WRITE:
        return inode->detect_zeroes
            || __atomic_load_n(&inode->threshold, __ATOMIC_RELAXED)
            || by_debug_heard(&inode->node)
            || (ops->capabilities & BY_CAP_REPEATS_READS)
            || __atomic_load_n(&inode->frozen, __ATOMIC_RELAXED);
    case BY_OP_FLUSH:
        return inode->no_flush;
    case BY_OP_DISCARD:
        return !inode->discard
            || __atomic_load_n(&inode->frozen, __ATOMIC_RELAXED);
    case BY_OP_WRITE_ZEROES:
    case BY_OP_TRUNCATE:
    case BY_OP_COPY_RANGE:
    case BY_OP_BLOCK_STATUS:
        return true;
    default:
        return false;
    }
}

/* Requests run meanwhile: nothing else of the plan depends on settings. */
static void follow_settings(struct by_inode *inode, int op)
{
    __atomic_store_n(&inode->plan[op].prepare, needs_prepare(inode, op),
                     __ATOMIC_RELEASE);
}

void by_node_follow_settings(struct by_inode *inode)
{
    for (int op = 0; op < BY_OP_COUNT; op++) {
        follow_settings(inode, op);
    }
}

static void make_plan(struct by_inode *inode, int op)
{
    const struct by_limits *limits = &inode->node.limits;
    struct by_plan *plan = &inode->plan[op];
    uint64_t max = limit_for(limits, op);

    plan->align_mask = changes_data(op) && limits->request_alignment
        ? limits->request_alignment - 1 : 0;
    plan->memory_mask = has_payload(op) && limits->memory_alignment
        ? limits->memory_alignment - 1 : 0;
    /* Pieces run beside each other, so they must not share a block. */
    if (max & plan->align_mask) {
        max = max > plan->align_mask ? max & ~plan->align_mask
                                     : plan->align_mask + 1;
    }
    plan->max_bytes = max ? max : UINT64_MAX;
    plan->max_iov = has_payload(op) && limits->max_iov
        ? limits->max_iov : UINT32_MAX;
    /* Hints that no driver has to know; FUA is emulated elsewhere. */
    plan->flags = inode->node.ops->flags[op] | BY_REQ_STABLE
        | BY_REQ_REGISTERED | BY_REQ_WRITE_UNCHANGED | BY_REQ_MAY_UNMAP
        | BY_REQ_NO_FALLBACK | BY_REQ_FRESH;
    if (!(inode->node.ops->serves & BY_OP_BIT(BY_OP_FLUSH))) {
        plan->flags |= BY_REQ_FUA; /* nothing to flush: always stable */
    }
    follow_settings(inode, op);
}

static void make_plans(struct by_inode *inode)
{
    for (int op = 0; op < BY_OP_COUNT; op++) {
        make_plan(inode, op);
    }
}

struct by_node *by_node_create(const struct by_node_ops *ops, void *state,
                               uint32_t nchildren, struct by_loop *home)
{
    struct by_inode *inode;

    if (!ops || ops->size < BY_NODE_OPS_LEAST || ops->abi != BY_ABI_VERSION) {
        return NULL;
    }
    inode = calloc(1, sizeof(*inode));
    if (!inode) {
        return NULL;
    }
    inode->children = calloc(nchildren + 1, sizeof(inode->children[0]));
    if (!inode->children) {
        free(inode);
        return NULL;
    }
    inode->node.size = sizeof(inode->node);
    inode->node.ops = ops;
    inode->node.state = state;
    inode->node.nchildren = nchildren;
    inode->node.children = inode->children;
    inode->node.home = home;
    inode->node.limits.size = sizeof(inode->node.limits);
    inode->discard = true;
    pthread_mutex_init(&inode->gate, NULL);
    pthread_mutex_init(&inode->bitmaps_lock, NULL);
    make_plans(inode);
    return &inode->node;
}

void by_node_set_limits(struct by_node *node, const struct by_limits *limits)
{
    node->limits = *limits;
    node->limits.size = sizeof(node->limits);
    make_plans(by_inode(node));
}

static void report_length(struct by_node *node, uint64_t before,
                          uint64_t length)
{
    by_report(__atomic_load_n(&by_inode(node)->tag, __ATOMIC_RELAXED),
              BY_EVENT_LENGTH, 0, length, before);
}

void by_node_set_length(struct by_node *node, uint64_t length)
{
    uint64_t before = __atomic_exchange_n(&node->length, length,
                                          __ATOMIC_SEQ_CST);

    __atomic_add_fetch(&by_inode(node)->lengths, 1, __ATOMIC_RELEASE);
    if (before != length) {
        by_bitmaps_resize(by_inode(node));
        report_length(node, before, length);
    }
}

void by_node_grow(struct by_node *node, uint64_t length)
{
    uint64_t before = by_node_length(node);

    while (before < length) {
        if (__atomic_compare_exchange_n(&node->length, &before, length, false,
                                        __ATOMIC_SEQ_CST, __ATOMIC_ACQUIRE)) {
            by_bitmaps_resize(by_inode(node));
            report_length(node, before, length);
            return;
        }
    }
}

uint64_t by_node_get_length(const struct by_node *node)
{
    return by_node_length(node);
}

int by_node_set_children(struct by_node *node, uint32_t nchildren)
{
    struct by_inode *inode = by_inode(node);
    struct by_node **children = inode->children;

    if (nchildren > node->nchildren) {
        children = realloc(children, (nchildren + 1) * sizeof(*children));
        if (!children) {
            return -ENOMEM;
        }
        memset(children + node->nchildren, 0,
               (nchildren + 1 - node->nchildren) * sizeof(*children));
        inode->children = children;
        node->children = children;
    }
    node->nchildren = nchildren;
    return 0;
}

void by_node_set_child(struct by_node *node, uint32_t slot,
                       struct by_node *child)
{
    if (slot < node->nchildren) {
        __atomic_store_n(&by_inode(node)->children[slot], child,
                         __ATOMIC_RELEASE);
        follow_settings(by_inode(node), BY_OP_WRITE);
    }
}

void by_node_set_home(struct by_node *node, struct by_loop *home)
{
    __atomic_store_n(&node->home, home, __ATOMIC_RELEASE);
}

void by_node_set_detect_zeroes(struct by_node *node, int mode)
{
    __atomic_store_n(&by_inode(node)->detect_zeroes, mode, __ATOMIC_RELAXED);
    follow_settings(by_inode(node), BY_OP_WRITE);
}

void by_node_set_discard(struct by_node *node, bool unmap)
{
    __atomic_store_n(&by_inode(node)->discard, unmap, __ATOMIC_RELAXED);
    follow_settings(by_inode(node), BY_OP_DISCARD);
}

void by_node_set_no_flush(struct by_node *node, bool no_flush)
{
    __atomic_store_n(&by_inode(node)->no_flush, no_flush, __ATOMIC_RELAXED);
    follow_settings(by_inode(node), BY_OP_FLUSH);
}

void by_node_set_threshold(struct by_node *node, uint64_t bytes, uint64_t tag)
{
    struct by_inode *inode = by_inode(node);

    __atomic_store_n(&inode->threshold_tag, tag, __ATOMIC_RELAXED);
    __atomic_store_n(&inode->threshold, bytes, __ATOMIC_RELEASE);
    follow_settings(inode, BY_OP_WRITE);
}

uint64_t by_node_get_threshold(const struct by_node *node)
{
    const struct by_inode *inode = (const struct by_inode *)node;

    return __atomic_load_n(&inode->threshold, __ATOMIC_ACQUIRE);
}

void by_node_set_tag(struct by_node *node, uint64_t tag)
{
    __atomic_store_n(&by_inode(node)->tag, tag, __ATOMIC_RELAXED);
}

void by_node_get_stats(const struct by_node *node, struct by_stats *out)
{
    by_lanes_stats(((const struct by_inode *)node)->lanes, out);
}

static void nothing(void *arg, struct by_loop *loop)
{
    (void)arg;
    (void)loop;
}

/* Where the driver's own half is freed: it may wait, so not on a loop. */
struct by_burial {
    struct by_work work;
    struct by_inode *inode;
};

static int bury(struct by_work *work)
{
    struct by_inode *inode = ((struct by_burial *)work)->inode;
    uint64_t tag = inode->free_tag;

    if (inode->node.ops->free) {
        inode->node.ops->free(&inode->node);
    }
    by_lanes_free(inode->lanes);
    pthread_mutex_destroy(&inode->gate);
    pthread_mutex_destroy(&inode->bitmaps_lock);
    free(inode->children);
    free(inode);
    by_report(tag, BY_EVENT_DONE, 0, 0, 0);
    return 0;
}

static void buried(struct by_work *work, int result)
{
    (void)result;
    free(work);
}

static void node_unused(void *arg)
{
    struct by_burial *burial = arg;
    struct by_loop *loop = by_loop_current();

    if (loop) {
        by_pool_submit(loop, &burial->work);
    } else {
        bury(&burial->work);
        free(burial);
    }
}

int by_node_free(struct by_node *node, uint64_t tag)
{
    struct by_burial *burial = calloc(1, sizeof(*burial));

    if (!burial) {
        return -ENOMEM;
    }
    burial->inode = by_inode(node);
    by_bitmaps_detach(burial->inode);
    burial->inode->free_tag = tag;
    burial->work.run = bury;
    burial->work.done = buried;
    return by_everywhere(nothing, node_unused, burial);
}
