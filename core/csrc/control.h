/* SPDX-License-Identifier: Apache-2.0 */
/*
 * control.h - what the Python half of core calls.
 *
 * The build reads the declarations below for cffi as well, so this file holds
 * nothing but comments, includes, plain structures and prototypes.  Every
 * function may be called from any Python thread and none waits for a disk or
 * for a loop, unless its comment says so; work that takes time answers with an
 * event that carries the `tag` it was given.
 */
#ifndef BLOCKYARD_CONTROL_H
#define BLOCKYARD_CONTROL_H

#include "blockyard.h"

/* ---- life: process wide */

/* Make the event queue and the worker pool (flags: 1 = never use io_uring).
 * 0 or -errno.  A second start is a no-op until by_stop. */
int by_start(uint32_t flags);
/* Join every loop and pool thread.  Waits. */
void by_stop(void);
const struct by_api *by_api_table(void);

/* ---- events */

int by_event_fd(void); /* readable while events wait; owned by core */
int by_event_take(struct by_event *out, int max); /* count; clears the fd */

enum by_event_kind {
    BY_EVENT_DONE = 1,       /* the call with this tag has ended: result */
    BY_EVENT_THRESHOLD = 2,  /* a = bytes beyond it, b = the threshold */
    BY_EVENT_LENGTH = 3,     /* a = the node's new length */
    BY_EVENT_TRACE = 4,      /* by_trace_take has lines */
    BY_EVENT_BRIDGE = 5      /* requests wait for a Python driver */
};

/* ---- loops */

struct by_loop_params {
    int64_t poll_max_ns;   /* 0 = never spin */
    int64_t poll_grow;     /* 0 = the default factor */
    int64_t poll_shrink;
    int64_t poll_weight;
    int64_t aio_max_batch; /* 0 = the default */
    int64_t thread_pool_min; /* worker threads kept for it */
    int64_t thread_pool_max; /* that its work occupies; 0 = no limit but the
                                pool's, 64 */
};

/* Start a loop thread.  Null with *error = -errno on failure. */
struct by_loop *by_loop_create(const char *name,
                               const struct by_loop_params *params,
                               int *error);
/* End it once nothing of it is left; BY_EVENT_DONE when it is gone. */
void by_loop_destroy(struct by_loop *loop, uint64_t tag);
void by_loop_set_params(struct by_loop *loop,
                        const struct by_loop_params *params);
int by_loop_thread_id(const struct by_loop *loop);
/* BY_EVENT_DONE once every loop has passed a quiescent point. */
void by_synchronise(uint64_t tag);

/* ---- nodes */

struct by_op_stats {
    uint64_t done;          /* completed successfully */
    uint64_t failed;
    uint64_t invalid;       /* refused before they entered */
    uint64_t bytes;
    uint64_t total_ns;
    uint64_t merged;
};
struct by_stats {
    struct by_op_stats op[9];   /* by enum by_op */
    uint64_t write_highest;     /* offset one past the last byte written */
    uint64_t last_access_ns;    /* CLOCK_MONOTONIC; 0 = never */
    uint64_t in_flight;
};

struct by_node *by_node_create(const struct by_node_ops *ops, void *state,
                               uint32_t nchildren, struct by_loop *home);
void by_node_set_limits(struct by_node *node, const struct by_limits *limits);
void by_node_set_length(struct by_node *node, uint64_t length);
uint64_t by_node_get_length(const struct by_node *node);
/* The node is drained.  From now on it has so many slots; new ones are null
 * pointers, and what the last ones held is forgotten.  0, or -ENOMEM with
 * nothing changed; fewer never fails. */
int by_node_set_children(struct by_node *node, uint32_t nchildren);
/* The node is drained. */
void by_node_set_child(struct by_node *node, uint32_t slot,
                       struct by_node *child);
void by_node_set_home(struct by_node *node, struct by_loop *home);
/* 0 off, 1 on (write zeroes), 2 unmap (write zeroes that may deallocate) */
void by_node_set_detect_zeroes(struct by_node *node, int mode);
/* false: discards succeed without reaching the driver */
void by_node_set_discard(struct by_node *node, bool unmap);
/* true: flushes succeed without reaching the driver */
void by_node_set_no_flush(struct by_node *node, bool no_flush);
/* 0 switches it off; one BY_EVENT_THRESHOLD, then it is off. */
void by_node_set_threshold(struct by_node *node, uint64_t bytes, uint64_t tag);
uint64_t by_node_get_threshold(const struct by_node *node);
/* BY_EVENT_LENGTH whenever the driver changes the length; 0 = silent. */
void by_node_set_tag(struct by_node *node, uint64_t tag);
void by_node_get_stats(const struct by_node *node, struct by_stats *out);
/* Nothing is in flight and no root or child points here; with
 * the event BY_EVENT_DONE(tag) the memory is gone.  0 or -ENOMEM. */
int by_node_free(struct by_node *node, uint64_t tag);

/* ---- roots */

struct by_root *by_root_create(struct by_node *node);
/* Drained.  Where requests enter from now on. */
void by_root_set_node(struct by_root *root, struct by_node *node);
/* What the root's owner may do: writes beyond it are -EPERM; growable roots
 * may write past the end. */
void by_root_set_writable(struct by_root *root, bool writable, bool growable);
/* true: every write is FUA (the export's writethrough) */
void by_root_set_writethrough(struct by_root *root, bool writethrough);
void by_root_get_stats(const struct by_root *root, struct by_stats *out);
/* Drained or idle; BY_EVENT_DONE when no loop holds it.  0 or -ENOMEM. */
int by_root_free(struct by_root *root, uint64_t tag);

/* ---- drain */

/*
 * Park new requests at the roots, call the nodes' drain_begin, and send
 * BY_EVENT_DONE(tag) once none of the roots and nodes has a request in
 * flight.  Nests: a root is open again when each begin has met its end.
 * 0, or -ENOMEM with nothing begun.
 */
int by_drain_begin(struct by_root **roots, uint32_t nroots,
                    struct by_node **nodes, uint32_t nnodes, uint64_t tag);
/* Let the parked requests in; BY_EVENT_DONE(tag) when every loop has begun
 * to, and the arguments are no longer used.  0, or -ENOMEM with nothing
 * ended. */
int by_drain_end(struct by_root **roots, uint32_t nroots,
                 struct by_node **nodes, uint32_t nnodes, uint64_t tag);

/* ---- access from Python */

struct by_extent {           /* struct iovec, by another name */
    void *base;
    size_t bytes;
};
struct by_access {
    uint32_t op;            /* enum by_op */
    uint32_t flags;         /* BY_REQ_* */
    uint64_t offset;
    uint64_t bytes;
    void *buffer;           /* READ and WRITE: alive until the event */
    uint64_t tag;           /* 0: no event, use by_access_wait */
    uint32_t prealloc;      /* TRUNCATE */
    uint32_t exact;
    struct by_root *target; /* COPY_RANGE */
    uint64_t target_offset;
    const struct by_extent *pieces; /* for buffer: `bytes` in all, and */
    uint32_t npieces;               /* alive as long; at most 1024; 0: buffer */
    uint32_t layers;        /* BLOCK_STATUS: of a backing chain; 0 is all */
};
struct by_status {          /* BLOCK_STATUS's answer */
    uint32_t flags;         /* BY_STATUS_* */
    uint32_t depth;
    uint64_t bytes;
    uint64_t host_offset;
    uint64_t owner;         /* address of the owning by_node, 0 = none */
};
/* Submit on the root's home loop.  inner: not parked by drain (a Python
 * driver's child, a job that runs inside a drained section).  `status` is for
 * BLOCK_STATUS, alive until the end.  BY_EVENT_DONE(tag). 0 or -ENOMEM. */
int by_access_start(struct by_root *root, bool inner,
                    const struct by_access *access, struct by_status *status);
/* The same, and wait here for the result.  Not on the control thread. */
int by_access_wait(struct by_root *root, bool inner,
                   const struct by_access *access, struct by_status *status);

/* ---- the bridge to drivers written in Python */

struct by_bridge_request {
    uint64_t handle;        /* for by_bridge_complete */
    uint32_t op;
    uint32_t flags;
    uint64_t offset;
    uint64_t bytes;
    void *buffer;           /* READ: fill; WRITE: read; contiguous */
    uint32_t prealloc;
    uint32_t exact;
};
/* Operations table, served operations and flags of one Python driver. */
struct by_bridge *by_bridge_create(const char *driver, uint32_t capabilities,
                                   uint32_t serves, const uint32_t *flags,
                                   uint32_t max_in_flight);
const struct by_node_ops *by_bridge_ops(struct by_bridge *bridge);
int by_bridge_fd(struct by_bridge *bridge); /* readable: requests wait */
int by_bridge_take(struct by_bridge *bridge, struct by_bridge_request *out,
                   int max);
void by_bridge_complete(struct by_bridge *bridge, uint64_t handle, int result);
/* BLOCK_STATUS's answer; an owner of 0 is the driver's own node. */
void by_bridge_complete_status(struct by_bridge *bridge, uint64_t handle,
                               const struct by_status *answer);
void by_bridge_free(struct by_bridge *bridge); /* its node is gone */

/* ---- dirty bitmaps */

/*
 * Which parts of a node have changed: a bit for each `granularity` bytes.  A
 * bitmap is made alone and then attached to a node, whose length it follows
 * and whose changes it records while it is enabled.  Any thread may call all
 * of this; each call is whole for itself.  Memory grows with what is set, and
 * where it is out, a bitmap calls more dirty than there is and never less.
 */
struct by_bitmap;

/* granularity: a power of two from 512 up; length: bytes, at most INT64_MAX.
 * Clean, enabled, writable.  Null: no memory, or a wrong number. */
struct by_bitmap *by_bitmap_create(uint32_t granularity, uint64_t length);
/* The same content again, attached to no node; null: no memory. */
struct by_bitmap *by_bitmap_copy(struct by_bitmap *bitmap);
/* Nobody else uses it; it is taken off its node. */
void by_bitmap_free(struct by_bitmap *bitmap);

/* Record the node's changes from now on: of all requests that complete after
 * the call.  Taken off by detach, or when the node is freed. */
void by_bitmap_attach(struct by_bitmap *bitmap, struct by_node *node);
void by_bitmap_detach(struct by_bitmap *bitmap);
/* Whether changes are recorded. */
void by_bitmap_set_enabled(struct by_bitmap *bitmap, bool enabled);
bool by_bitmap_get_enabled(struct by_bitmap *bitmap);
/* While a node has a bitmap that is read-only, what would change its data is
 * refused with -EPERM. */
void by_bitmap_set_read_only(struct by_bitmap *bitmap, bool read_only);

uint64_t by_bitmap_length(struct by_bitmap *bitmap); /* of the node, bytes */
uint64_t by_bitmap_count(struct by_bitmap *bitmap);  /* bits that are set */
/* The range is dirty; what lies past the end is ignored. */
void by_bitmap_set(struct by_bitmap *bitmap, uint64_t offset, uint64_t bytes);
void by_bitmap_clear(struct by_bitmap *bitmap);
/* Exchange contents; what is past the end of either is forgotten.  -EINVAL if
 * their granularities differ. */
int by_bitmap_swap(struct by_bitmap *bitmap, struct by_bitmap *other);
/* Set in `to` what is set in `from`. */
void by_bitmap_merge(struct by_bitmap *to, struct by_bitmap *from);

/* The bytes at `offset`, up to `bytes` and the end, that are all dirty or all
 * clean: how many (0 past the end), and which in *dirty. */
uint64_t by_bitmap_status(struct by_bitmap *bitmap, uint64_t offset,
                          uint64_t bytes, bool *dirty);
/* The first byte from `offset` on that is dirty, or clean; UINT64_MAX: none
 * before the end. */
uint64_t by_bitmap_next_dirty(struct by_bitmap *bitmap, uint64_t offset);
uint64_t by_bitmap_next_clean(struct by_bitmap *bitmap, uint64_t offset);

/*
 * The bitmap as bytes: bit 0 of byte 0 is the first, those past the end are 0
 * (qcow2's bitmap data).  `at` and `bytes` count bytes of that form; `at` is
 * a multiple of 8.  deserialise adds what is set and ignores what is past the
 * end.
 */
void by_bitmap_serialise(struct by_bitmap *bitmap, uint64_t at, void *out,
                         uint64_t bytes);
void by_bitmap_deserialise(struct by_bitmap *bitmap, uint64_t at,
                           const void *in, uint64_t bytes);

/* ---- copying */

/*
 * A copier moves ranges of bytes from one or several roots to another, on the
 * target's home loop.  Every job that copies is one of these: what differs is
 * which ranges, and what may be left out.
 */
struct by_copier;

enum by_copy_flag {
    BY_COPY_OUT_OF_ORDER = 1,  /* writes need not go from front to back */
    BY_COPY_OFFLOAD = 2,       /* try BY_OP_COPY_RANGE first */
    BY_COPY_SALVAGE = 4,       /* unreadable sectors become zeroes */
    BY_COPY_COMPRESSED = 8,    /* write `unit`s flagged BY_REQ_COMPRESSED */
    BY_COPY_TARGET_ZERO = 16,  /* what is not written reads as zeroes there */
    BY_COPY_MISSING = 32,      /* only where the target's own layer decides
                                  nothing (its backing chain is not asked) */
    BY_COPY_INNER = 64,        /* a drain does not park the requests */
    BY_COPY_UNCHANGED = 128,   /* BY_REQ_WRITE_UNCHANGED */
    BY_COPY_COUNT = 256        /* walk the ranges before, for progress' sake */
};

/* Ascending in the target, without overlaps; gaps are left alone. */
struct by_copy_range {
    struct by_root *source;    /* null: zeroes; past its end: zeroes too */
    uint64_t offset;           /* in source */
    uint64_t bytes;
    uint64_t target_offset;
    uint32_t layers;           /* of source's backing chain: what they do not
                                  decide is left alone; 0: all is copied */
    uint32_t target_zero;      /* 1: here, what is not written reads as zeroes */
};

struct by_copy_params {
    struct by_root *target;
    const struct by_copy_range *ranges; /* copied by the call */
    uint32_t nranges;
    uint32_t flags;            /* BY_COPY_* */
    struct by_root *reference; /* or null: what reads the same there, at the
                                  target's offset, is left alone */
    uint32_t parallel;         /* requests in flight; 0: 8 */
    uint32_t unit;             /* writes begin and end at multiples of it, or
                                  at the end of a range; 0: no matter */
    uint64_t chunk;            /* bytes read at a time; 0: the default */
    uint64_t sparse;           /* this many zero bytes in a row become a hole;
                                  0: zeroes are written as data */
    uint64_t rate;             /* bytes per second; 0: no limit */
    uint64_t tag;              /* of its events */
};

enum by_copy_side { BY_COPY_STATUS = 1, BY_COPY_READ, BY_COPY_WRITE };

struct by_copy_progress {
    uint64_t done, total;      /* bytes that hold data; total is that of the
                                  ranges, or with BY_COPY_COUNT of the data */
    uint64_t failed_at;        /* in the target; valid once it has failed */
    uint32_t failed_side;      /* enum by_copy_side; 0: nothing failed */
    uint32_t failed_range;     /* index */
};

/* BY_EVENT_DONE(tag) ends a copier: 0, -ECANCELED or the first error.  With
 * SALVAGE there are BY_EVENT_UNREADABLE before it. */
enum by_copy_event {
    BY_EVENT_UNREADABLE = 16,        /* a = offset in target, b = bytes */
    BY_EVENT_UNREADABLE_STATUS = 17
};

/* Started at once.  Null: no memory, or parameters without sense. */
struct by_copier *by_copier_start(const struct by_copy_params *params);
void by_copier_progress(const struct by_copier *copier,
                        struct by_copy_progress *out);
void by_copier_set_rate(struct by_copier *copier, uint64_t rate);
/* true: start no more requests, those in flight end. */
void by_copier_set_paused(struct by_copier *copier, bool paused);
/* Start nothing more; BY_EVENT_DONE when nothing is in flight. */
void by_copier_cancel(struct by_copier *copier);
/* After BY_EVENT_DONE. */
void by_copier_free(struct by_copier *copier);

/* ---- comparing */

/*
 * A comparer looks for the first byte that differs between two roots.  Where
 * one is shorter than the other, it is taken for zeroes.
 */
struct by_comparer;

struct by_compare_params {
    struct by_root *roots[2];
    struct by_loop *helper;    /* or null: it carries half of the chunks */
    bool strict;               /* what is allocated must be the same too */
    uint32_t parallel;         /* 0: the default */
    uint64_t chunk;
    uint64_t tag;
};

enum by_compare_end {
    BY_COMPARE_EQUAL = 0,
    BY_COMPARE_DIFFERENT = 1,  /* at = the first different sector */
    BY_COMPARE_STATUS = 2,     /* strict: at = where allocation differs */
    BY_COMPARE_FAILED = 3      /* at, side and index tell where */
};

struct by_compare_progress {
    uint64_t done, total;
    uint64_t at;
    uint32_t end;              /* enum by_compare_end, valid once it is over */
    uint32_t side;             /* BY_COPY_STATUS or BY_COPY_READ */
    uint32_t index;            /* of the root that failed */
    uint32_t reserved;
};

/* Started at once; BY_EVENT_DONE(tag): 0, -ECANCELED or the first error. */
struct by_comparer *by_comparer_start(const struct by_compare_params *params);
void by_comparer_progress(const struct by_comparer *comparer,
                          struct by_compare_progress *out);
void by_comparer_cancel(struct by_comparer *comparer);
void by_comparer_free(struct by_comparer *comparer); /* after the event */

/* ---- sending requests for their own sake */

/* Sends a number of requests of one kind and size, so many at a time, and tells
 * how long that took.  On the root's home loop. */
struct by_bencher;

struct by_bench_params {
    struct by_root *root;
    uint64_t count, depth;     /* requests; depth: in flight */
    uint64_t bytes;            /* of each */
    uint64_t offset, step;     /* of the first, to the next; modulo length */
    uint64_t flush_interval;   /* a flush whenever so many divide what is
                                  left; 0: none */
    bool write;
    bool no_drain;             /* a flush waits for no write */
    uint8_t pattern;           /* what is written */
    uint64_t tag;
};

/* Started at once; BY_EVENT_DONE(tag): the first error, or 0 with the event's a
 * = nanoseconds.  Null: no memory. */
struct by_bencher *by_bencher_start(const struct by_bench_params *params);
/* Start nothing more. */
void by_bencher_cancel(struct by_bencher *bencher);
void by_bencher_free(struct by_bencher *bencher); /* after the event */

/* ---- tracing */

/* Switch names that match a shell pattern; answers how many matched. */
int by_trace_set(const char *pattern, bool on);
/* The i-th known name, or null past the end. */
const char *by_trace_name(int index);
bool by_trace_state(int index);
/* Lines as "seconds.micros name text\n"; answers bytes written. */
int by_trace_take(char *out, int max);
void by_trace_event(uint64_t tag); /* BY_EVENT_TRACE when lines wait */

#endif /* BLOCKYARD_CONTROL_H */
