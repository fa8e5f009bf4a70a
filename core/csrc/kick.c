/* SPDX-License-Identifier: Apache-2.0 */
/* kick.c - see kick.h. */
#include "kick.h"

static void arrive(struct by_task *task)
{
    struct by_kick *kick = task->owner;

    pthread_mutex_lock(&kick->lock);
    kick->posted = false;
    pthread_mutex_unlock(&kick->lock);
    kick->run(kick->owner);
}

void by_kick_init(struct by_kick *kick, struct by_loop *loop,
                  void (*run)(void *owner), void *owner)
{
    *kick = (struct by_kick) {
        .loop = loop, .run = run, .owner = owner,
        .task = { .run = arrive, .owner = kick },
    };
    pthread_mutex_init(&kick->lock, NULL);
}

void by_kick_send(struct by_kick *kick)
{
    pthread_mutex_lock(&kick->lock);
    if (!kick->posted && !kick->ended) {
        kick->posted = true;
        by_loop_post(kick->loop, &kick->task);
    }
    pthread_mutex_unlock(&kick->lock);
}

bool by_kick_end(struct by_kick *kick)
{
    pthread_mutex_lock(&kick->lock);
    kick->ended = !kick->posted;
    pthread_mutex_unlock(&kick->lock);
    return kick->ended;
}

void by_kick_destroy(struct by_kick *kick)
{
    pthread_mutex_destroy(&kick->lock);
}
