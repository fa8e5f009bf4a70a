/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pool.h - between the pool's hand-over (pool.c) and its threads (worker.c).
 */
#ifndef BLOCKYARD_POOL_H
#define BLOCKYARD_POOL_H

#include "loop_private.h"

enum { WORKERS_MAX = 64 };

enum worker_state { WORKER_NONE, WORKER_IDLE, WORKER_BUSY, WORKER_LEFT };

/* A list of work; empty when count is 0, whatever the pointers say. */
struct works {
    struct by_work *head, *tail;
    uint32_t count;
};

struct worker {
    pthread_mutex_t lock;
    _Atomic uint32_t wakeups;   /* the futex an idle worker sleeps on */
    enum worker_state state;
    struct works todo;
    struct works done;          /* newest first, all of one loop */
    _Atomic uint64_t begun;     /* when the call in hand began; 0 = none */
    uint32_t queue;             /* of that call */
    uint64_t done_since;        /* when the first of done ended */
    struct worker *next_idle;   /* under the pool's lock */
    pthread_t thread;
} __attribute__((aligned(BY_CACHE_LINE)));

struct by_pool {
    pthread_mutex_t lock;       /* taken before a worker's */
    struct worker workers[WORKERS_MAX];
    struct worker *idle;
    _Atomic bool stopping;
    int keep;                   /* threads that stay when idle */
    bool ready;
};
extern struct by_pool by_pool;

void by_works_append(struct works *to, struct works from);
/* The first n of list, which keeps the rest. */
struct works by_works_cut(struct works *list, uint32_t n);
/* Send results, all of one loop, to it. */
void by_works_deliver(struct works done);

void *by_worker_main(void *worker);
/* A plain futex: a condition variable takes the lock as contended when it
 * wakes, which costs another system call. */
void by_worker_wake(struct worker *worker);

#endif /* BLOCKYARD_POOL_H */
