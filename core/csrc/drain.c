/* SPDX-License-Identifier: Apache-2.0 */
/*
 * drain.c - wait until a part of the graph is idle.
 *
 * The roots are closed first, then the nodes are told, then rounds over all
 * loops look whether anything is still in flight.  Because a node may start
 * something in another one between two looks, the end is two rounds in a row
 * that found nothing in flight and nothing started in between.
 *
 * A round that finds requests in flight marks their lanes as watched; the
 * loop that empties a watched lane starts the next round of all that wait.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "graph.h"

struct by_drain {
    struct by_root **roots;
    struct by_node **nodes;
    uint32_t nroots, nnodes;
    uint64_t tag;
    uint64_t in_flight, started;    /* of this round, added atomically */
    uint64_t started_before;
    uint64_t emptied;               /* the counter when the round began */
    bool idle_before;
    bool *tell;                     /* by node: this drain is its first */
    struct by_drain *next;          /* waiting */
};

/* Drains between two rounds, and how often a watched lane became empty. */
static pthread_mutex_t waiting_lock = PTHREAD_MUTEX_INITIALIZER;
static struct by_drain *waiting;
static uint64_t emptied;

static void copy_members(struct by_drain *d, struct by_root **roots,
                         struct by_node **nodes)
{
    d->roots = (struct by_root **)(d + 1);
    d->nodes = (struct by_node **)(d->roots + d->nroots);
    memcpy(d->roots, roots, d->nroots * sizeof(*roots));
    memcpy(d->nodes, nodes, d->nnodes * sizeof(*nodes));
    d->tell = (bool *)(d->nodes + d->nnodes);
}

static struct by_drain *drain_make(struct by_root **roots, uint32_t nroots,
                                   struct by_node **nodes, uint32_t nnodes)
{
    struct by_drain *d = calloc(1, sizeof(*d)
        + ((size_t)nroots + nnodes) * sizeof(void *) + nnodes * sizeof(bool));

    if (d) {
        d->nroots = nroots;
        d->nnodes = nnodes;
        copy_members(d, roots, nodes);
    }
    return d;
}

static struct by_lane *lane_of(const struct by_drain *d, uint32_t i,
                               struct by_loop *loop)
{
    struct by_lane **lanes = i < d->nroots
        ? d->roots[i]->lanes : by_inode(d->nodes[i - d->nroots])->lanes;

    return lanes[by_loop_index(loop)];
}

/* ---- the rounds */

static void start_round(struct by_drain *d);

/* One look at one loop's lanes. */
static void look(void *arg, struct by_loop *loop)
{
    struct by_drain *d = arg;
    uint64_t in_flight = 0, started = 0;

    for (uint32_t i = 0; i < d->nroots + d->nnodes; i++) {
        struct by_lane *lane = lane_of(d, i, loop);

        if (lane) {
            lane->watched = lane->count != 0;
            in_flight += lane->count;
            started += lane->started;
        }
    }
    __atomic_add_fetch(&d->in_flight, in_flight, __ATOMIC_RELAXED);
    __atomic_add_fetch(&d->started, started, __ATOMIC_RELAXED);
}

static void finish(struct by_drain *d)
{
    by_report(d->tag, BY_EVENT_DONE, 0, 0, 0);
    free(d);
}

/* False when a lane became empty since the round began: look again. */
static bool wait_for_empty_lane(struct by_drain *d)
{
    bool waits;

    pthread_mutex_lock(&waiting_lock);
    waits = d->emptied == emptied;
    if (waits) {
        d->next = waiting;
        waiting = d;
    }
    pthread_mutex_unlock(&waiting_lock);
    return waits;
}

void by_drain_lane_empty(struct by_lane *lane)
{
    struct by_drain *d;

    lane->watched = false;
    pthread_mutex_lock(&waiting_lock);
    __atomic_add_fetch(&emptied, 1, __ATOMIC_RELEASE);
    d = waiting;
    waiting = NULL;
    pthread_mutex_unlock(&waiting_lock);
    while (d) {
        struct by_drain *next = d->next;

        start_round(d);
        d = next;
    }
}

static void looked(void *arg)
{
    struct by_drain *d = arg;
    bool idle = d->in_flight == 0;

    if (idle && d->idle_before && d->started == d->started_before) {
        finish(d);
        return;
    }
    d->idle_before = idle;
    d->started_before = d->started;
    if (idle || !wait_for_empty_lane(d)) {
        start_round(d);
    }
}

static void start_round(struct by_drain *d)
{
    d->in_flight = d->started = 0;
    d->emptied = __atomic_load_n(&emptied, __ATOMIC_ACQUIRE);
    if (by_everywhere(look, looked, d) < 0) {
        by_report(d->tag, BY_EVENT_DONE, -ENOMEM, 0, 0);
        free(d);
    }
}

/* ---- begin and end */

static void tell_begin(void *arg, struct by_loop *loop)
{
    struct by_drain *d = arg;

    for (uint32_t i = 0; i < d->nnodes; i++) {
        struct by_node *node = d->nodes[i];

        if (d->tell[i] && node->home == loop) {
            node->ops->drain_begin(node);
        }
    }
}

static void tell_end(void *arg, struct by_loop *loop)
{
    struct by_drain *d = arg;

    for (uint32_t i = 0; i < d->nnodes; i++) {
        struct by_node *node = d->nodes[i];

        if (d->tell[i] && node->ops->drain_end && node->home == loop) {
            node->ops->drain_end(node);
        }
    }
    for (uint32_t i = 0; i < d->nroots; i++) {
        struct by_lane *lane = lane_of(d, i, loop);

        if (lane) {
            by_root_unpark(d->roots[i], lane);
        }
    }
}

static void told(void *arg)
{
    start_round(arg);
}

static void ended(void *arg)
{
    struct by_drain *d = arg;

    by_report(d->tag, BY_EVENT_DONE, 0, 0, 0);
    free(d);
}

int by_drain_begin(struct by_root **roots, uint32_t nroots,
                   struct by_node **nodes, uint32_t nnodes, uint64_t tag)
{
    struct by_drain *d = drain_make(roots, nroots, nodes, nnodes);
    int result;

    if (!d) {
        return -ENOMEM;
    }
    d->tag = tag;
    for (uint32_t i = 0; i < nroots; i++) {
        __atomic_add_fetch(&roots[i]->quiesced, 1, __ATOMIC_SEQ_CST);
    }
    for (uint32_t i = 0; i < nnodes; i++) {
        uint32_t before = __atomic_fetch_add(&by_inode(nodes[i])->drains, 1,
                                             __ATOMIC_SEQ_CST);

        d->tell[i] = before == 0 && nodes[i]->ops->drain_begin;
    }
    result = by_everywhere(tell_begin, told, d);
    if (result < 0) {
        for (uint32_t i = 0; i < nroots; i++) {
            __atomic_sub_fetch(&roots[i]->quiesced, 1, __ATOMIC_SEQ_CST);
        }
        for (uint32_t i = 0; i < nnodes; i++) {
            __atomic_sub_fetch(&by_inode(nodes[i])->drains, 1,
                               __ATOMIC_SEQ_CST);
        }
        free(d);
    }
    return result;
}

/* As if the end had not been asked for. */
static void drain_again(const struct by_drain *d)
{
    for (uint32_t i = 0; i < d->nroots; i++) {
        __atomic_add_fetch(&d->roots[i]->quiesced, 1, __ATOMIC_SEQ_CST);
    }
    for (uint32_t i = 0; i < d->nnodes; i++) {
        __atomic_add_fetch(&by_inode(d->nodes[i])->drains, 1,
                           __ATOMIC_SEQ_CST);
    }
}

int by_drain_end(struct by_root **roots, uint32_t nroots,
                 struct by_node **nodes, uint32_t nnodes, uint64_t tag)
{
    struct by_drain *d = drain_make(roots, nroots, nodes, nnodes);
    int result;

    if (!d) {
        return -ENOMEM;
    }
    d->tag = tag;
    for (uint32_t i = 0; i < nnodes; i++) {
        d->tell[i] = __atomic_sub_fetch(&by_inode(nodes[i])->drains, 1,
                                        __ATOMIC_SEQ_CST) == 0;
    }
    for (uint32_t i = 0; i < nroots; i++) {
        __atomic_sub_fetch(&roots[i]->quiesced, 1, __ATOMIC_SEQ_CST);
    }
    result = by_everywhere(tell_end, ended, d);
    if (result < 0) {
        drain_again(d);
        free(d);
    }
    return result;
}
