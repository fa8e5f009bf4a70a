/* SPDX-License-Identifier: Apache-2.0 */
/*
 * keeper.c - the thread that does an image's table work for its requests.
 *
 * Most images need it rarely, so it is made when the first chore comes.  A
 * chore belongs to whoever added it, and again so from the moment it is done:
 * nothing of it is touched after its task was posted (or, when nobody waits
 * for it, from the moment it begins).
 */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>

#include "image.h"

void q2_keeper_init(struct by_qcow2 *q)
{
    pthread_mutex_init(&q->chores_lock, NULL);
    pthread_cond_init(&q->chores_wake, NULL);
    q->chores = NULL;
    q->chores_end = &q->chores;
    q->keeper_runs = q->keeper_ends = false;
}

/* Under chores_lock: the first chore.  When it is a guest's flush, all flushes
 * that wait: one answers for them, as none of them has begun. */
static struct q2_chore *take(struct by_qcow2 *q)
{
    struct q2_chore *first = q->chores, *last = first;
    struct q2_chore **at;

    q->chores = first->next;
    first->next = NULL;
    if (first->run == q2_flush_chore) {
        at = &q->chores;
        while (*at) {
            struct q2_chore *chore = *at;

            if (chore->run == q2_flush_chore) {
                *at = chore->next;
                chore->next = NULL;
                last->next = chore;
                last = chore;
            } else {
                at = &chore->next;
            }
        }
        q->chores_end = at;
    }
    if (!q->chores) {
        q->chores_end = &q->chores;
    }
    return first;
}

static void finish(struct q2_chore *chore, int result)
{
    while (chore) {
        struct q2_chore *next = chore->next;

        chore->result = result;
        chore->wait.result = result;
        q2_api->loop_post(chore->wait.loop, &chore->wait.task);
        chore = next;
    }
}

static void work_off(struct by_qcow2 *q, struct q2_chore *chore)
{
    bool waits = chore->wait.loop != NULL;
    int result;

    pthread_mutex_lock(&q->meta);
    result = chore->run(q, chore);
    pthread_mutex_unlock(&q->meta);
    if (waits) {
        finish(chore, result);
    }
}

static void *keeper_main(void *argument)
{
    struct by_qcow2 *q = argument;

    pthread_mutex_lock(&q->chores_lock);
    for (;;) {
        struct q2_chore *chore;

        while (!q->chores && !q->keeper_ends) {
            pthread_cond_wait(&q->chores_wake, &q->chores_lock);
        }
        if (!q->chores) {
            break;
        }
        chore = take(q);
        pthread_mutex_unlock(&q->chores_lock);
        work_off(q, chore);
        pthread_mutex_lock(&q->chores_lock);
    }
    pthread_mutex_unlock(&q->chores_lock);
    return NULL;
}

/* Under chores_lock.  The thread takes no signals: they are the daemon's. */
static int start(struct by_qcow2 *q)
{
    sigset_t all, before;
    int result;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    result = -pthread_create(&q->keeper, NULL, keeper_main, q);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (result == 0) {
        pthread_setname_np(q->keeper, "by-qcow2");
        q->keeper_runs = true;
    }
    return result;
}

void q2_chore_add(struct by_qcow2 *q, struct q2_chore *chore)
{
    int result = 0;

    chore->next = NULL;
    pthread_mutex_lock(&q->chores_lock);
    if (!q->keeper_runs) {
        result = start(q);
    }
    *q->chores_end = chore;
    q->chores_end = &chore->next;
    if (result < 0 && chore->wait.loop) {
        /* No thread: a request is told so.  What nobody waits for stays, and
         * is done when a thread can be made, or at the end. */
        struct q2_chore **at = &q->chores;

        while (*at != chore) {
            at = &(*at)->next;
        }
        *at = NULL;
        q->chores_end = at;
    } else {
        pthread_cond_signal(&q->chores_wake);
        chore = NULL;
    }
    pthread_mutex_unlock(&q->chores_lock);
    finish(chore, result);
}

void q2_keeper_end(struct by_qcow2 *q)
{
    bool runs;

    pthread_mutex_lock(&q->chores_lock);
    q->keeper_ends = true;
    runs = q->keeper_runs;
    pthread_cond_signal(&q->chores_wake);
    pthread_mutex_unlock(&q->chores_lock);
    if (runs) {
        pthread_join(q->keeper, NULL);
    } else {
        keeper_main(q); /* there could be no thread */
    }
    pthread_cond_destroy(&q->chores_wake);
    pthread_mutex_destroy(&q->chores_lock);
}
