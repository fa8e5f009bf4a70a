/* SPDX-License-Identifier: Apache-2.0 */
/*
 * file.h - one open file and its operations, as the driver's own files see
 * them.
 *
 * Any loop may submit.  What belongs to one loop (the flushes that share one
 * fdatasync, the extent found last) hangs in the file's *lane* for that loop
 * and needs no lock; what belongs to all is written atomically.
 */
#ifndef BLOCKYARD_DRIVERS_FILE_H
#define BLOCKYARD_DRIVERS_FILE_H

#include "blockyard.h"
#include "control.h"

#define BY_FILE_SMALL (64 * 1024)   /* buffered writes up to here: the pool */
#define BY_FILE_LONG (4 << 20)      /* buffered reads above this: the pool */
#define BY_FILE_ROOM (256 * 1024)   /* fresh writes from here on: room first */
#define BY_FILE_IOV 4
#define BY_FILE_SECTOR 512

#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)

extern const struct by_api *by_file_api;

struct by_file_op;
struct by_file_lane;

/* The allocation at the place that was asked for last. */
struct by_file_extent {
    uint64_t start, end;            /* data, and end is not */
    uint64_t generation;
};

/* One file on one loop. */
struct by_file_lane {
    struct by_file_lane *next;
    struct by_loop *loop;
    struct by_file *file;

    struct by_file_op *syncing;     /* covered by the fdatasync under way */
    struct by_file_op *unsynced;    /* came after it began */
    struct by_io sync;

    struct by_file_extent extent;
};

struct by_file {
    int fd;
    int aio;
    bool regular, direct;
    bool makes_room;                /* the file system gains by it, see rw.c */
    uint32_t alignment;
    uint32_t max_batch;             /* 0: none; only with BY_FILE_RING */

    struct by_file_lane *lanes;     /* grows at its head only */

    /* Atomic from here on. */
    int poisoned;                   /* errno of a failed fdatasync */
    bool dirty;                     /* written since the last one */
    uint32_t syncs;                 /* fdatasyncs under way */
    uint64_t generation;            /* of holes: moves when some may appear */
    bool no_zero_range, no_punch, no_fallocate, no_zeroout, no_room;
    int truncate_step;
    struct by_file_stats stats;
};

/* One request on its way. */
struct by_file_op {
    union {
        struct by_io io;
        struct by_work work;
    } as;
    struct by_file_op *next;        /* among those that wait for a flush */
    struct by_file *file;
    struct by_node *node;
    struct by_request *req;
    uint64_t left;                  /* bytes of payload still to be moved */
    struct iovec *iov;              /* where they are */
    struct iovec *iov_all;
    uint32_t niov, niov_all;
    struct by_file_extent found;    /* BLOCK_STATUS */
    struct iovec iov_small[BY_FILE_IOV];
};

/* op.c: null when memory is out; with_payload copies the scatter list */
struct by_file_op *by_file_op_new(struct by_node *node, struct by_request *req,
                                  bool with_payload);
void by_file_op_free(struct by_file_op *op);
void by_file_op_end(struct by_file_op *op, int result);
/* `bytes` of the payload have been moved. */
void by_file_op_advance(struct by_file_op *op, uint64_t bytes);
void by_file_op_zero_rest(struct by_file_op *op);
/* Run on the pool; done is by_file_op_end or the caller's own; queue is
 * by_work's. */
void by_file_op_work(struct by_file_op *op, int (*run)(struct by_work *),
                     void (*done)(struct by_work *, int), uint32_t queue);
/* Null when memory is out. */
struct by_file_lane *by_file_lane_of(struct by_file *file,
                                     struct by_loop *loop);

/* Each answers as by_node_ops.submit does. */
int by_file_rw(struct by_node *node, struct by_request *req);     /* rw.c */
int by_file_flush(struct by_node *node, struct by_request *req);  /* flush.c */
int by_file_space(struct by_node *node, struct by_request *req);  /* space.c */
int by_file_status(struct by_node *node, struct by_request *req); /* status.c */
int by_file_copy(struct by_node *node, struct by_request *req);   /* copy.c */
int by_file_prefetch(struct by_node *node, struct by_request *req);

/* flush.c: end op once everything written before is on stable storage */
void by_file_sync(struct by_file_lane *lane, struct by_file_op *op);
void by_file_touched(struct by_file *file); /* data changed */

/* ops.c: may target be written with copy_file_range? */
bool by_file_is_ours(const struct by_node *node);

static inline struct by_file *by_file_of(const struct by_node *node)
{
    return node->state;
}

/* 0, or what every flush has to answer. */
static inline int by_file_poisoned(const struct by_file *file)
{
    return -__atomic_load_n(&file->poisoned, __ATOMIC_SEQ_CST);
}

/* What file systems and drivers answer for "not here" becomes one errno. */
int by_file_unsupported(int error);

#endif /* BLOCKYARD_DRIVERS_FILE_H */
