/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kick.h - "go on", said from any thread to work that lives on one loop.
 *
 * However often it is said before the loop comes to it, the work runs once.  When
 * the work is over it says so, and is told whether a kick is still on its way: it
 * then has to wait for that one, and nobody can send another afterwards.
 */
#ifndef BLOCKYARD_KICK_H
#define BLOCKYARD_KICK_H

#include <pthread.h>

#include "graph.h"

struct by_kick {
    struct by_loop *loop;
    void (*run)(void *owner);   /* on the loop */
    void *owner;
    pthread_mutex_t lock;
    bool posted, ended;
    struct by_task task;
};

void by_kick_init(struct by_kick *kick, struct by_loop *loop,
                  void (*run)(void *owner), void *owner);
/* Any thread; without effect once it has ended. */
void by_kick_send(struct by_kick *kick);
/* On the loop.  False: one is on its way, which will run. */
bool by_kick_end(struct by_kick *kick);
/* After by_kick_end has answered true. */
void by_kick_destroy(struct by_kick *kick);

#endif /* BLOCKYARD_KICK_H */
