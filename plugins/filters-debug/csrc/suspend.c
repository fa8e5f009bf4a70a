/* SPDX-License-Identifier: Apache-2.0 */
/*
 * suspend.c - breakpoints of blkdebug.
 *
 * Whoever announces an event and can wait (core, around a write) is held
 * itself.  Who cannot is held by the request that follows its event: the next
 * one that arrives here from the same loop or, when the event came from a
 * thread that is no loop, from anywhere.
 */
#include <errno.h>
#include <stdlib.h>

#include "debug.h"

static struct by_held *make(uint64_t id)
{
    struct by_held *held = calloc(1, sizeof(*held));

    if (held) {
        held->id = id;
        held->loop = by_debug_api->loop_current();
    }
    return held;
}

static void report(const struct by_blkdebug *debug, uint64_t id)
{
    const struct by_event event = {
        .tag = debug->settings.tag, .kind = BY_BLKDEBUG_SUSPENDED, .a = id,
    };

    if (event.tag) {
        by_debug_api->event(&event);
    }
}

/* ------------------------------------------------------------- being held */

struct by_hitting {
    struct by_blkdebug *debug;
    struct by_task *resume;
    bool held;
};

/* Without memory there is no breakpoint. */
static void hit(void *arg, uint64_t id)
{
    struct by_hitting *h = arg;
    struct by_held *held = make(id), **at = &h->debug->wanted;

    if (!held) {
        return;
    }
    if (h->resume && !h->held) {
        h->held = true;
        held->resume = h->resume;
        held->next = h->debug->held;
        h->debug->held = held;
        report(h->debug, id);
        return;
    }
    while (*at) {
        at = &(*at)->next;
    }
    __atomic_store_n(at, held, __ATOMIC_RELAXED);
}

bool by_blkdebug_announced(struct by_node *node, uint32_t event,
                           struct by_task *resume)
{
    struct by_blkdebug *debug = node->state;
    struct by_hitting h = { .debug = debug, .resume = resume };

    pthread_mutex_lock(&debug->lock);
    by_rules_event(debug, event, hit, &h);
    pthread_mutex_unlock(&debug->lock);
    return h.held;
}

void by_blkdebug_raise(struct by_blkdebug *debug, uint32_t event)
{
    struct by_hitting h = { .debug = debug };

    pthread_mutex_lock(&debug->lock);
    by_rules_event(debug, event, hit, &h);
    pthread_mutex_unlock(&debug->lock);
}

bool by_blkdebug_hold(struct by_node *node, struct by_request *req,
                      void (*again)(struct by_task *task))
{
    struct by_blkdebug *debug = node->state;
    struct by_held **at = &debug->wanted, *held;

    if (__builtin_expect(!__atomic_load_n(at, __ATOMIC_RELAXED), 1)) {
        return false;
    }
    pthread_mutex_lock(&debug->lock);
    while (*at && (*at)->loop && (*at)->loop != req->loop) {
        at = &(*at)->next;
    }
    held = *at;
    if (held) {
        __atomic_store_n(at, held->next, __ATOMIC_RELAXED);
        held->next = debug->held;
        debug->held = held;
        held->node = node;
        held->req = req;
        held->loop = req->loop;
        held->task.run = again;
        held->task.owner = held;
        held->resume = &held->task;
        report(debug, held->id);
    }
    pthread_mutex_unlock(&debug->lock);
    return held != NULL;
}

/* -------------------------------------------------------------- going on */

/* Its own task is a part of it and frees it; an announcer's is not. */
static void let_go(struct by_held *held)
{
    struct by_task *resume = held->resume;
    struct by_loop *loop = held->loop;

    if (resume != &held->task) {
        free(held);
    }
    by_debug_api->loop_post(loop, resume);
}

/* Under lock: out of the list, all or those of one breakpoint. */
static struct by_held *take(struct by_held **list, bool all, uint64_t id)
{
    struct by_held *taken = NULL;

    while (*list) {
        struct by_held *held = *list;

        if (all || held->id == id) {
            __atomic_store_n(list, held->next, __ATOMIC_RELAXED);
            held->next = taken;
            taken = held;
        } else {
            list = &held->next;
        }
    }
    return taken;
}

static uint32_t finish(struct by_held *held, struct by_held *wanted)
{
    uint32_t count = 0;

    while (held) {
        struct by_held *next = held->next;

        let_go(held);
        held = next;
        count++;
    }
    while (wanted) {
        struct by_held *next = wanted->next;

        free(wanted);
        wanted = next;
    }
    return count;
}

uint32_t by_blkdebug_resume(struct by_blkdebug *debug, uint64_t id)
{
    struct by_held *held;

    pthread_mutex_lock(&debug->lock);
    held = take(&debug->held, false, id);
    pthread_mutex_unlock(&debug->lock);
    return finish(held, NULL);
}

uint32_t by_blkdebug_remove(struct by_blkdebug *debug, uint64_t id)
{
    struct by_held *held, *wanted;

    pthread_mutex_lock(&debug->lock);
    (void)by_rules_drop_break(debug, id);
    wanted = take(&debug->wanted, false, id);
    held = take(&debug->held, false, id);
    pthread_mutex_unlock(&debug->lock);
    return finish(held, wanted);
}

void by_blkdebug_release(struct by_blkdebug *debug, int drains)
{
    struct by_held *held, *wanted;

    pthread_mutex_lock(&debug->lock);
    debug->drains += drains;
    wanted = take(&debug->wanted, true, 0);
    held = take(&debug->held, true, 0);
    pthread_mutex_unlock(&debug->lock);
    (void)finish(held, wanted);
}

void by_blkdebug_free(struct by_blkdebug *debug)
{
    if (debug) {
        by_blkdebug_release(debug, 0);
        by_rules_free(debug);
        pthread_mutex_destroy(&debug->lock);
        free(debug);
    }
}
