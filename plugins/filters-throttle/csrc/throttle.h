/* SPDX-License-Identifier: Apache-2.0 */
/*
 * throttle.h - groups, the nodes in them, and the requests that wait.
 *
 * A group has two lines, for reads and for writes.  In a line stand the nodes
 * that have requests waiting, and the node whose turn it was goes to the end:
 * so each gets its share, however many requests the others bring.
 *
 * There is no timer but those of waiting requests: of each line one request,
 * the carrier, has a timer in the loop that it came on.  A loop therefore owes
 * a group nothing once its own requests are done.
 */
#ifndef BLOCKYARD_FILTERS_THROTTLE_THROTTLE_H
#define BLOCKYARD_FILTERS_THROTTLE_THROTTLE_H

#include <pthread.h>

#include "bucket.h"

extern const struct by_api *by_throttle_api;

/* A request that waits. */
struct by_waiting {
    struct by_frame frame;
    struct by_throttle *member;
    struct by_node *node;
    struct by_request *req;
    struct by_waiting *next;        /* of the same node and direction */
    bool write;

    /* Under the group's lock. */
    bool posted;                    /* task is on its way to the loop */
    bool released;                  /* it may begin */
    bool retime;                    /* its timer is for limits of old */

    /* The loop's. */
    bool armed;                     /* timer is with the loop */
    struct by_task task;
    struct by_io timer;
};

/* One node, in one group. */
struct by_throttle {
    struct by_throttle_group *group;

    /* Under the group's lock. */
    bool drained;                   /* nothing waits here */
    struct by_waiting *first[2], **end[2];
    struct by_throttle *next[2];    /* in the group's line */
};

struct by_line {
    struct by_throttle *first, **end;
    struct by_waiting *carrier;
    bool limited;                   /* read without the lock */
};

struct by_throttle_group {
    pthread_mutex_t lock;
    struct by_buckets buckets;
    struct by_line line[2];         /* reads, writes */
};

/* group.c: forward a request now, or when its turn has come */
int by_throttle_pass(struct by_node *node, struct by_request *req, bool write);
void by_throttle_drain(struct by_throttle *member, bool drained);

static inline bool by_throttle_limits_now(const struct by_throttle *member,
                                          bool write)
{
    return __atomic_load_n(&member->group->line[write].limited,
                           __ATOMIC_RELAXED);
}

#endif /* BLOCKYARD_FILTERS_THROTTLE_THROTTLE_H */
