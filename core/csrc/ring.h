/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ring.h - the io_uring backend's own structures (ring.c, ringop.c).
 */
#ifndef BLOCKYARD_RING_H
#define BLOCKYARD_RING_H

#include <linux/io_uring.h>

#include "loop_private.h"

/* IORING_SETUP_SQE128: commands carry 80 bytes. */
enum { SQE_BYTES = 128, COMMAND_BYTES = 80 };

/* BY_IO_MARK */
enum {
    MARK_POLL = 1,          /* a readiness poll runs in its place */
    MARK_CANCEL = 2,        /* cancel was asked for */
    MARK_CANCEL_WAITS = 4   /* ... and is in ring.cancels */
};

struct ring {
    /* The shared memory's parts. */
    _Atomic unsigned *sq_head, *sq_tail, *sq_flags;
    _Atomic unsigned *cq_head, *cq_tail;
    struct io_uring_cqe *cqes;
    char *sqes;
    unsigned sq_mask, cq_mask;
    /* Ours. */
    unsigned tail;               /* of the submission queue, unpublished */
    unsigned head;               /* of the completion queue */
    unsigned in_kernel;          /* ios placed and not reaped */
    int fd, enter_fd;
    unsigned enter_flags;
    bool rearm_wake;
    struct by_io_list backlog;   /* for want of room */
    struct by_io_list cancels;   /* ios whose cancel wants room */
    void *rings;
    size_t rings_bytes, sqes_bytes;
};

/* Describe io (or the poll in its place) in a cleared entry. */
void by_ring_fill(struct io_uring_sqe *sqe, struct by_io *io);

#endif /* BLOCKYARD_RING_H */
