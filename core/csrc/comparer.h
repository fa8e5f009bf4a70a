/* SPDX-License-Identifier: Apache-2.0 */
/* comparer.h - what a comparison and its chunks know of each other. */
#ifndef BLOCKYARD_COMPARER_H
#define BLOCKYARD_COMPARER_H

#include "kick.h"

#define COMPARE_SECTOR 512

struct compare_side {
    struct compare_slot *slot;
    struct by_request req;
    struct iovec iov;
    unsigned char *buffer;
};

struct compare_slot {
    struct by_comparer *comparer;
    struct compare_slot *next;
    struct by_loop *loop;
    struct by_task task;        /* the way to the slot's loop and back */
    struct compare_side sides[2];
    uint64_t at, bytes;
    bool zero[2];
    uint32_t reads;             /* in flight */
    int result;                 /* of the reads: the first error */
    uint32_t failed;            /* the side that had it */
    uint64_t same;              /* bytes before the first difference */
};

struct compare_asking {
    struct by_comparer *comparer;
    struct by_request req;
    struct by_block_status answer;
};

struct by_comparer {
    struct by_loop *loop;
    struct by_root *roots[2];
    uint64_t chunk, tag, lengths[2], common;
    uint32_t nslots;
    bool strict;

    /* Any thread. */
    bool canceled;
    struct by_compare_progress progress;
    struct by_kick kick;

    uint64_t pos;
    uint64_t extent_end;        /* data from pos to here */
    bool zero[2];               /* of the extent */
    struct compare_asking asking[2];
    uint32_t asked;             /* answers that are awaited */
    uint64_t ask_bytes;
    int ask_result[2];

    int result;
    uint32_t running;
    bool pumping;
    struct compare_slot *idle;
    struct compare_slot slots[];
};

/* A chunk begins, on its slot's loop: the task is the slot's. */
void compare_slot_carry(struct by_task *task);
/* It is over, on the comparer's loop: `same` or `result` is set. */
void compare_slot_over(struct compare_slot *slot);

#endif /* BLOCKYARD_COMPARER_H */
