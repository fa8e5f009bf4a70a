/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gate.c - serialising requests: nothing that overlaps runs beside them.
 *
 * A serialising request R enters the node's list of active ones, which every
 * later request looks at under the gate's lock while the list is not empty,
 * and waits there if it overlaps.  Then R asks each lane, in that lane's
 * thread, for requests that were under way before; each that overlaps is
 * marked with a blocker, and R goes on when the last of them has left.
 *
 * No cycle is possible: a request that waits at the gate is not waited for,
 * and a request past the gate waits for nothing here.
 */
#include <errno.h>

#include "graph.h"

struct by_blocker {
    struct by_blocker *next;
    struct by_tracked *serialising;
};

static struct by_tracked *tracked_of(struct by_request *req)
{
    return (struct by_tracked *)req->frame;
}

static bool overlap(const struct by_tracked *a, const struct by_tracked *b)
{
    return a->from < b->to && b->from < a->to;
}

/* The range that this request reads or changes. */
static void set_range(struct by_tracked *t, struct by_inode *inode)
{
    uint64_t mask = inode->plan[t->op].align_mask;
    uint64_t length = by_node_length(&inode->node);

    switch (t->op) {
    case BY_OP_TRUNCATE:
        t->lengths = __atomic_load_n(&inode->lengths, __ATOMIC_ACQUIRE);
        t->from = t->offset < length ? t->offset : length;
        t->to = UINT64_MAX;
        break;
    case BY_OP_FLUSH:
    case BY_OP_BLOCK_STATUS:
    case BY_OP_PREFETCH:
        t->from = t->to = 0;
        break;
    default:
        t->from = t->offset & ~mask;
        t->to = by_end(t->offset, t->bytes);
        t->to = t->to > UINT64_MAX - mask ? UINT64_MAX
                                          : (t->to + mask) & ~mask;
    }
}

static bool wants_alone(const struct by_inode *inode,
                        const struct by_request *req)
{
    return (req->flags & BY_REQ_SERIALISING) || req->op == BY_OP_TRUNCATE
        || by_align_rewrites(inode, req);
}

/* Nothing that overlaps is left; or memory was out while we looked. */
static int pass(struct by_inode *inode, struct by_request *req)
{
    int error = __atomic_load_n(&tracked_of(req)->error, __ATOMIC_RELAXED);

    return error ? error : by_prepare(inode, req);
}

static void again(struct by_task *task)
{
    struct by_tracked *t = task->owner;

    by_resume(t->inode, t->req, by_gate);
}

static void go_on(struct by_task *task)
{
    struct by_tracked *t = task->owner;

    by_resume(t->inode, t->req, pass);
}

static void wake(struct by_tracked *t, void (*run)(struct by_task *))
{
    t->wake.run = run;
    t->wake.owner = t;
    by_loop_post(t->lane->loop, &t->wake);
}

static struct by_tracked *find_active(struct by_inode *inode,
                                      const struct by_tracked *t)
{
    struct by_tracked *a = inode->active;

    while (a && !overlap(a, t)) {
        a = a->next;
    }
    return a;
}

static void unblock(struct by_tracked *serialising)
{
    if (__atomic_sub_fetch(&serialising->blockers, 1, __ATOMIC_ACQ_REL) == 0) {
        wake(serialising, go_on);
    }
}

/* In the lane's thread: who was here before? */
static void scan_lane(struct by_tracked *r, struct by_lane *lane)
{
    struct by_link *link = lane->in_flight.next;

    for (; link != &lane->in_flight; link = link->next) {
        struct by_tracked *t = (struct by_tracked *)((char *)link
            - offsetof(struct by_tracked, link));
        struct by_blocker *blocker;

        if (t == r || t->waiting || t->is_serialising) {
            continue;
        }
        set_range(t, r->inode);
        if (!overlap(t, r)) {
            continue;
        }
        blocker = by_slab_get(lane->loop, sizeof(*blocker));
        if (!blocker) {
            __atomic_store_n(&r->error, -ENOMEM, __ATOMIC_RELAXED);
            return;
        }
        blocker->serialising = r;
        blocker->next = t->blocks;
        t->blocks = blocker;
        __atomic_add_fetch(&r->blockers, 1, __ATOMIC_RELAXED);
    }
}

static void visit(void *arg, struct by_loop *loop)
{
    struct by_tracked *r = arg;
    struct by_lane *lane = r->inode->lanes[by_loop_index(loop)];

    if (lane) {
        scan_lane(r, lane);
    }
}

static void visited(void *arg)
{
    unblock(arg);
}

static bool lane_is_alone(const struct by_inode *inode,
                          const struct by_lane *lane)
{
    for (int i = 0; i < BY_MAX_LOOPS; i++) {
        const struct by_lane *other = __atomic_load_n(&inode->lanes[i],
                                                      __ATOMIC_SEQ_CST);

        if (other && other != lane) {
            return false;
        }
    }
    return true;
}

static void activate(struct by_inode *inode, struct by_tracked *t)
{
    t->is_serialising = true;
    t->waiters = NULL;
    t->next = inode->active;
    inode->active = t;
    __atomic_add_fetch(&inode->serialising, 1, __ATOMIC_SEQ_CST);
}

static int wait_for_others(struct by_inode *inode, struct by_request *req)
{
    struct by_tracked *t = tracked_of(req);

    t->blockers = 1;
    t->error = 0;
    if (lane_is_alone(inode, t->lane)) {
        scan_lane(t, t->lane);
        if (__atomic_sub_fetch(&t->blockers, 1, __ATOMIC_ACQ_REL) == 0) {
            return pass(inode, req);
        }
    } else if (by_everywhere(visit, visited, t) < 0) {
        return -ENOMEM;
    }
    return BY_PENDING;
}

int by_gate(struct by_inode *inode, struct by_request *req)
{
    struct by_tracked *t = tracked_of(req);
    bool alone = wants_alone(inode, req);
    struct by_tracked *ahead;

    if (likely(!alone && !__atomic_load_n(&inode->serialising,
                                          __ATOMIC_SEQ_CST))) {
        return by_prepare(inode, req);
    }
    set_range(t, inode);
    pthread_mutex_lock(&inode->gate);
    ahead = find_active(inode, t);
    t->waiting = ahead != NULL;
    if (ahead) {
        t->next = ahead->waiters;
        ahead->waiters = t;
    } else if (alone) {
        activate(inode, t);
    }
    pthread_mutex_unlock(&inode->gate);
    if (ahead) {
        return BY_PENDING;
    }
    return alone ? wait_for_others(inode, req) : by_prepare(inode, req);
}

static void deactivate(struct by_tracked *t)
{
    struct by_inode *inode = t->inode;
    struct by_tracked **at = &inode->active;
    struct by_tracked *waiter;

    pthread_mutex_lock(&inode->gate);
    while (*at != t) {
        at = &(*at)->next;
    }
    *at = t->next;
    waiter = t->waiters;
    __atomic_sub_fetch(&inode->serialising, 1, __ATOMIC_SEQ_CST);
    pthread_mutex_unlock(&inode->gate);
    while (waiter) {
        struct by_tracked *next = waiter->next;

        wake(waiter, again);
        waiter = next;
    }
}

void by_gate_leave(struct by_tracked *t)
{
    while (t->blocks) {
        struct by_blocker *blocker = t->blocks;

        t->blocks = blocker->next;
        unblock(blocker->serialising);
        by_slab_put(t->lane->loop, blocker, sizeof(*blocker));
    }
    if (t->is_serialising) {
        deactivate(t);
    }
}

void by_gate_let_go(struct by_tracked *t)
{
    by_gate_leave(t);
    t->is_serialising = false;
    t->waiting = true;
}
