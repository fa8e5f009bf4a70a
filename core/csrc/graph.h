/* SPDX-License-Identifier: Apache-2.0 */
/*
 * graph.h - nodes, roots and requests as core's own files see them.
 *
 * A request that enters a node is *tracked*: a frame is pushed on it, and the
 * frame hangs in the list of the node's *lane* for the submitting loop.  Lanes
 * are what makes many loops cheap: everything in one belongs to one thread, so
 * neither the lists nor the counters need a lock or an atomic addition.
 *
 * Whatever needs to know about all lanes (a drain, a serialising request, the
 * end of a node) first publishes its wish in the node or root, then visits
 * each loop with a posted task.  When the task runs, all that the loop had
 * submitted before it could see the wish is in the lane's list.
 */
#ifndef BLOCKYARD_GRAPH_H
#define BLOCKYARD_GRAPH_H

#include <pthread.h>

#include "blockyard.h"
#include "control.h"
#include "loop.h"

#define BY_MAX_DEPTH 256 /* nodes between a root and the end of the graph */

#define BY_CHUNK (1u << 20) /* bounced or emulated at a time */

#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)

struct by_tracked;
struct by_rooted;

/* Doubly linked, the head in the lane. */
struct by_link {
    struct by_link *next, *prev;
};

struct by_lane {
    struct by_loop *loop;
    struct by_link in_flight;   /* by_tracked.link */
    uint64_t count;             /* of in_flight */
    uint64_t started;           /* ever; tells two rounds of a drain apart */
    bool watched;               /* a drain wants to know when count is 0 */
    struct by_rooted *parked;   /* roots only: the queue, oldest first */
    struct by_rooted **parked_end;
    struct by_stats stats;
};

/* What a request must fulfil to go straight to the driver, by operation. */
struct by_plan {
    uint64_t align_mask;        /* offset | bytes */
    uint64_t max_bytes;
    uintptr_t memory_mask;      /* iov base | len */
    uint32_t flags;             /* the driver honours these */
    uint32_t max_iov;
    bool prepare;               /* something else has to look at it */
};

struct by_inode {               /* "inside a node": the whole of by_node */
    struct by_node node;
    struct by_node **children;
    struct by_plan plan[BY_OP_COUNT];
    struct by_lane *lanes[BY_MAX_LOOPS];
    int discard, no_flush, detect_zeroes;
    uint64_t threshold, threshold_tag, tag;
    uint32_t drains;
    uint32_t lengths;           /* how often the length was set */

    struct by_bitmap *bitmaps;  /* bitmap.h */
    pthread_mutex_t bitmaps_lock;
    bool frozen;                /* for a bitmap's sake: nothing may change */

    uint32_t serialising;       /* requests in active */
    pthread_mutex_t gate;       /* over active and what hangs on it */
    struct by_tracked *active;

    uint64_t free_tag;
};

/* One request inside one node. */
struct by_tracked {
    struct by_frame frame;
    struct by_inode *inode;
    struct by_lane *lane;
    struct by_request *req;
    struct by_link link;
    uint64_t began;             /* ns */

    /* As the layer above set them; restored when the request leaves. */
    uint64_t offset, bytes, iov_skip;
    const struct iovec *iov;
    uint32_t flags, niov;
    uint8_t op;

    bool waiting;               /* at the gate, or for its own parts:
                                   nobody waits for it */
    bool is_serialising;
    int error;                  /* met while looking for blockers */
    uint32_t lengths;           /* TRUNCATE: the node's, before */
    uint32_t blockers;          /* what a serialising one still waits for */
    uint64_t from, to;          /* the range that must not be shared */
    struct by_blocker *blocks;  /* serialising requests that wait for this */
    struct by_tracked *waiters; /* of an active serialising request */
    struct by_tracked *next;    /* in active, or in waiters */
    struct by_task wake;
};

struct by_root {
    struct by_inode *inode;
    struct by_lane *lanes[BY_MAX_LOOPS];
    uint32_t quiesced;          /* nested drains */
    bool writable, growable, writethrough;
    uint64_t free_tag;
};

static inline struct by_inode *by_inode(struct by_node *node)
{
    return (struct by_inode *)node;
}

/* node.c: the lane of an array for a loop, made at first use; null: memory */
struct by_lane *by_lane_make(struct by_lane **lanes, struct by_loop *loop);

static inline struct by_lane *by_lane_of(struct by_lane **lanes,
                                         struct by_loop *loop)
{
    struct by_lane *lane = lanes[by_loop_index(loop)];

    return likely(lane) ? lane : by_lane_make(lanes, loop);
}

/* On the lane's loop, while others may read the count; what is left. */
static inline void by_lane_enter(struct by_lane *lane)
{
    __atomic_store_n(&lane->count, lane->count + 1, __ATOMIC_RELAXED);
    lane->started++;
}

static inline uint64_t by_lane_leave(struct by_lane *lane)
{
    uint64_t left = lane->count - 1;

    __atomic_store_n(&lane->count, left, __ATOMIC_RELAXED);
    return left;
}

/* node.c: the node is at least this long; any loop */
void by_node_grow(struct by_node *node, uint64_t length);

/* node.c: settings changed, and with them what requests need */
void by_node_follow_settings(struct by_inode *inode);

void by_lanes_free(struct by_lane **lanes);
void by_lanes_stats(struct by_lane *const *lanes, struct by_stats *out);

/* account.c: what one ended request adds to its lane */
void by_account(struct by_lane *lane, uint8_t op, uint64_t offset,
                uint64_t bytes, uint64_t began, int result);
/* One that was refused before it entered. */
void by_account_invalid(struct by_lane *lane, uint8_t op);

/* request.c */
struct by_tracked *by_track(struct by_inode *inode, struct by_request *req);
void by_untrack(struct by_request *req, int result); /* what is on top */
int by_submit(struct by_node *node, struct by_request *req);
/* wait.c: by_api.wait */
int by_wait(struct by_node *node, struct by_request *req);
void by_complete(struct by_request *req, int result);
struct by_frame *by_frame_push(struct by_request *req, size_t bytes,
        int (*done)(struct by_request *, struct by_frame *, int));
void by_frame_pop(struct by_request *req);
/* A request of core's own, for the same loop as the one it serves. */
void by_request_init(struct by_request *sub, const struct by_request *of,
                     uint8_t op, uint64_t offset, uint64_t bytes,
                     void (*done)(struct by_request *, int), void *owner);
/* Straight to the driver: the last step of every way through a node. */
static inline int by_to_driver(struct by_inode *inode, struct by_request *req)
{
    return inode->node.ops->submit(&inode->node, req);
}
/* Go on with a request that was held: run step, complete unless pending. */
void by_resume(struct by_inode *inode, struct by_request *req,
               int (*step)(struct by_inode *, struct by_request *));
/* May the request go straight to the driver? */
bool by_plan_fits(const struct by_inode *inode, const struct by_request *req);

/* The steps that a request takes which does not fit, in this order; each
 * answers as submit does and calls the next. */
int by_gate(struct by_inode *inode, struct by_request *req);      /* gate.c */
int by_prepare(struct by_inode *inode, struct by_request *req);   /* prepare.c */
int by_split(struct by_inode *inode, struct by_request *req);     /* split.c */
int by_align(struct by_inode *inode, struct by_request *req);     /* align.c */

/* gate.c: a tracked request that blocks somebody, or that others wait for */
void by_gate_leave(struct by_tracked *tracked);
/* Nobody waits for this request any more: its parts pass the gate. */
void by_gate_let_go(struct by_tracked *tracked);
/* align.c: does this read or write pass through a buffer of core's? */
bool by_align_bounces(const struct by_inode *inode,
                      const struct by_request *req);
/* Must this request be alone on its range? (it rewrites what it read) */
bool by_align_rewrites(const struct by_inode *inode,
                       const struct by_request *req);

/* zeroes.c: one piece of zeroes, by the driver, or by writing them */
int by_zeroes(struct by_inode *inode, struct by_request *req);
/* 1 MiB that reads as zeroes */
extern const struct iovec by_zero_iov;

/* fua.c: push the flush that a driver without FUA needs behind a request;
 * false when memory is out */
bool by_fua_push(struct by_inode *inode, struct by_request *req);

/* debug.c: does anybody listen to the node's events? */
bool by_debug_heard(const struct by_node *node);
/* A write with its events around it; step is how it goes on. */
int by_debug_write(struct by_inode *inode, struct by_request *req,
                   int (*step)(struct by_inode *, struct by_request *));

/* copy.c */
int by_copy(struct by_inode *inode, struct by_request *req);

/* status.c: follow what a driver answered with BY_STATUS_RECURSE */
int by_status(struct by_inode *inode, struct by_request *req);

/* hop.c: over to the node's home loop and back */
int by_hop(struct by_inode *inode, struct by_request *req);

/* root.c */
int by_root_submit(struct by_root *root, struct by_request *req);
/* The same for a request that a drain must not park. */
int by_root_enter(struct by_root *root, struct by_request *req);
/* COPY_RANGE to where `target` stands, which a drain of either holds. */
int by_root_copy(struct by_root *root, struct by_root *target,
                 struct by_request *req, bool inner);
uint64_t by_root_length(const struct by_root *root);
const struct by_limits *by_root_limits(const struct by_root *root);
struct by_node *by_root_node(const struct by_root *root);
void by_root_unpark(struct by_root *root, struct by_lane *lane);

/* drain.c: a watched lane has become empty */
void by_drain_lane_empty(struct by_lane *lane);

/*
 * everywhere.c: run visit(arg, loop) on every live loop, then last(arg) on
 * whichever loop was the last.  Any thread.  Without a loop, last runs here.
 */
int by_everywhere(void (*visit)(void *arg, struct by_loop *loop),
                  void (*last)(void *arg), void *arg);

/* A range's end that cannot overflow. */
static inline uint64_t by_end(uint64_t offset, uint64_t bytes)
{
    return bytes > UINT64_MAX - offset ? UINT64_MAX : offset + bytes;
}

static inline void by_report(uint64_t tag, uint32_t kind, int result,
                             uint64_t a, uint64_t b)
{
    struct by_event event = {
        .tag = tag, .kind = kind, .result = result, .a = a, .b = b,
    };

    if (tag) {
        by_event_push(&event);
    }
}

#endif /* BLOCKYARD_GRAPH_H */
