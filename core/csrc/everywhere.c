/* SPDX-License-Identifier: Apache-2.0 */
/*
 * everywhere.c - one visit to every live loop.
 *
 * A loop runs posted tasks between rounds, so a visit is a quiescent point of
 * that loop, and what the visitor published before is visible to it.
 */
#include <errno.h>
#include <stdlib.h>

#include "graph.h"

struct by_tour;

struct by_visit {
    struct by_task task;
    struct by_tour *tour;
    struct by_loop *loop;
};

struct by_tour {
    void (*visit)(void *arg, struct by_loop *loop);
    void (*last)(void *arg);
    void *arg;
    uint32_t pending;
    struct by_visit visits[BY_MAX_LOOPS];
};

static void leave(struct by_tour *tour)
{
    if (__atomic_sub_fetch(&tour->pending, 1, __ATOMIC_ACQ_REL) == 0) {
        tour->last(tour->arg);
        free(tour);
    }
}

static void arrive(struct by_task *task)
{
    struct by_visit *visit = (struct by_visit *)task;
    struct by_tour *tour = visit->tour;

    tour->visit(tour->arg, visit->loop);
    leave(tour);
}

static void invite(struct by_loop *loop, void *arg)
{
    struct by_tour *tour = arg;
    struct by_visit *visit = &tour->visits[by_loop_index(loop)];

    visit->task.run = arrive;
    visit->tour = tour;
    visit->loop = loop;
    __atomic_add_fetch(&tour->pending, 1, __ATOMIC_RELAXED);
    by_loop_post(loop, &visit->task);
}

int by_everywhere(void (*visit)(void *arg, struct by_loop *loop),
                  void (*last)(void *arg), void *arg)
{
    struct by_tour *tour = calloc(1, sizeof(*tour));

    if (!tour) {
        return -ENOMEM;
    }
    tour->visit = visit;
    tour->last = last;
    tour->arg = arg;
    tour->pending = 1;
    by_loop_each(invite, tour);
    leave(tour);
    return 0;
}
