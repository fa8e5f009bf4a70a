/* SPDX-License-Identifier: Apache-2.0 */
/*
 * change.h - a write that changes the mapping: new clusters, or subclusters of
 * a cluster that is there, with what must be copied around the payload.
 */
#ifndef BLOCKYARD_QCOW2_CHANGE_H
#define BLOCKYARD_QCOW2_CHANGE_H

#include "requests.h"

struct q2_change {
    struct by_qcow2 *q;
    struct q2_alloc alloc;      /* the guest clusters */
    struct q2_slice *slice;     /* pinned, holds their entries */
    uint32_t index;             /* of the first */
    bool reuse;                 /* the host clusters are in the entries */
    uint64_t host;              /* of the first cluster */
    uint64_t guest, bytes;      /* the payload's place */
    uint64_t from, to;          /* the guest range that the host holds then */
    uint64_t head, tail;        /* bytes written before and behind the payload */
    bool head_zero, tail_zero;  /* they are zeroes, without a look */

    const struct by_request *of;    /* the payload, `skip` bytes into it */
    uint64_t skip;
    unsigned char *copied;      /* head, then tail */
    struct iovec ends[2];
    struct by_request reads[2];
    uint32_t reading;
    struct iovec *iov;
    uint32_t niov;
    struct by_request write;
    int result;
    void (*done)(struct q2_change *change, int result);
    void *owner;
};

enum q2_stand {
    Q2_STANDS_NOT,              /* in line */
    Q2_STANDS_WAITING,          /* for the keeper */
    Q2_STANDS_PARKED,           /* behind one that waits, or was called */
    Q2_STANDS_CALLED,           /* tries, or its task is posted */
};
#define Q2_ANY UINT64_MAX

/* What a plan that has to wait needs. */
struct q2_patience {
    struct q2_wait wait;
    struct q2_chore chore;      /* its wait wakes as `wait` does */
    struct q2_patience *behind;
    enum q2_stand stands;
    uint64_t l1_index;          /* of the table that it waits for, or Q2_ANY */
};

/* change_plan.c, under lock.  The entry of `guest` in a table that may be
 * changed.  0, -EAGAIN: patience is woken, -errno. */
int q2_change_find(struct by_qcow2 *q, uint64_t guest, struct q2_spot *spot,
                   struct q2_patience *patience);
/* Under lock.  Plan a write of [guest, guest + bytes), or of
 * its beginning, whose first byte `run` describes; no change of others touches
 * the range.  0: change->bytes are planned, and q2_change_start is next.
 * -EAGAIN: patience is woken.  -errno. */
int q2_change_plan(struct by_qcow2 *q, struct q2_change *change,
                   uint64_t guest, uint64_t bytes, const struct q2_run *run,
                   struct q2_patience *patience);

/* line.c, under lock.  May this one take clusters now for entries of that L2
 * table?  0; -EAGAIN: others came first, and patience is woken. */
int q2_line_turn(struct by_qcow2 *q, struct q2_patience *patience,
                 uint64_t l1_index);
/* Have the keeper do this; patience is woken, and those that come later wait
 * behind it: all, or those that need this L2 table.  -EAGAIN. */
int q2_leave_to_keeper(struct by_qcow2 *q, struct q2_patience *patience,
                       int (*run)(struct by_qcow2 *, struct q2_chore *),
                       uint64_t arg, uint64_t l1_index);
/* It tries now, wherever it stands.  If it stands as one that was called behind
 * that, it did not come to wait for the keeper or the line again. */
void q2_line_try(struct q2_patience *patience);
/* One that stands in line has what it came for, or waits for something else:
 * call those that parked behind it. */
void q2_line_leave(struct by_qcow2 *q, struct q2_patience *patience);

/* change.c, on the loop.  Write the part of `of`'s payload that begins `skip`
 * bytes into it.  BY_PENDING: `done` will be called; else the result. */
int q2_change_start(struct q2_change *change, const struct by_request *of,
                    uint64_t skip,
                    void (*done)(struct q2_change *change, int result),
                    void *owner);
/* change_link.c, under lock: the entries show what was written. */
void q2_change_link(struct q2_change *change);

#endif /* BLOCKYARD_QCOW2_CHANGE_H */
