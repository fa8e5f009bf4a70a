/* SPDX-License-Identifier: Apache-2.0 */
/*
 * copier.h - what the files of the copier share.
 *
 * copier_plan.c finds out what is next to copy, copier_slot.c carries one piece
 * of it, and copier.c lets both run.  Everything here belongs to the loop's thread,
 * except what is marked otherwise.
 *
 * Positions are the target's.
 */
#ifndef BLOCKYARD_COPIER_H
#define BLOCKYARD_COPIER_H

#include "kick.h"

enum copy_kind {
    COPY_DATA,      /* read it */
    COPY_ZERO,      /* it reads as zeroes */
    COPY_SKIP       /* leave the target as it is */
};

struct copy_extent {
    uint64_t at, end;           /* empty when they are the same */
    enum copy_kind kind;
};

enum copy_step {
    COPY_IDLE,
    COPY_READING,
    COPY_REFERRING,             /* reading the reference */
    COPY_WAITING,               /* for its turn to write */
    COPY_OFFLOADING,
    COPY_WRITING
};

struct copy_slot {
    struct by_copier *copier;
    struct copy_slot *next;     /* in idle */
    struct copy_slot *after;    /* in the line of those that wait to write */
    struct by_request req;
    struct iovec iov;
    unsigned char *buffer, *other; /* chunk bytes each; other: reference's */
    uint64_t at, bytes;
    uint64_t filled;            /* of buffer */
    uint64_t limit;             /* bytes of a read, less while salvaging */
    uint64_t run, run_bytes;    /* what is written next, from at on */
    bool run_zero;
    bool in_line;
    enum copy_kind kind;
    enum copy_step step;
};

struct by_copier {
    struct by_loop *loop;
    struct by_root *target, *reference;
    struct by_copy_range *ranges;
    uint32_t nranges, flags, nslots, unit;
    uint64_t chunk, grain, sparse, tag;
    bool offload;

    /* Any thread. */
    bool canceled, paused;
    uint64_t rate, done, total;
    struct by_copy_progress failure;
    struct by_kick kick;

    struct by_io timer;
    bool timing;
    uint64_t free_at;           /* when the rate allows the next request */

    /* copier_plan.c */
    uint32_t range;             /* that pos is in */
    uint64_t pos;
    struct copy_extent extent;
    bool counting, asking;
    enum { ASK_NOTHING, ASK_TARGET, ASK_SOURCE, ASK_REFERENCE } stage;
    uint64_t ask_bytes;
    uint64_t ask_limit;         /* less than all after failures */
    struct by_request ask;
    struct by_block_status answer;

    int result;
    uint32_t running;
    bool pumping;
    struct copy_slot *idle, *line, **line_end;
    struct copy_slot slots[];
};

static inline uint64_t min64(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static inline bool copier_is(const struct by_copier *c, uint32_t flag)
{
    return c->flags & flag;
}

/* Send a request of the copier's own into a root. */
int copier_send(struct by_copier *c, struct by_root *root,
                struct by_request *req);
/* The copy has failed; the first failure is told. */
void copier_fail(struct by_copier *c, int result, uint64_t at,
                 enum by_copy_side side, uint32_t range);
void copier_pump(struct by_copier *c);

/* Do these bytes of the target read as zeroes when nothing is written? */
bool copier_zero_there(const struct by_copier *c, uint64_t at,
                       uint64_t bytes);
/* The range that holds a position of the plan. */
uint32_t copier_range_of(const struct by_copier *c, uint64_t at);

/*
 * Find what is next.  0: extent holds it, whole units of it where there are
 * units.  1: there is no more.  BY_PENDING: the answer is awaited, and pump is
 * called again.  Or the failure.
 */
int copy_plan(struct by_copier *c);

/* copier_runs.c: the next run from slot->run on that has to be written; false
 * and slot->run == slot->bytes: there is none. */
bool copy_find_run(struct copy_slot *slot);

/* Take `bytes` from the extent and carry them. */
void copy_slot_start(struct copy_slot *slot, uint64_t bytes);
/* The slot at the head of the line may write. */
void copy_slot_write(struct copy_slot *slot);

#endif /* BLOCKYARD_COPIER_H */
