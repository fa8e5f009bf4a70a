/* SPDX-License-Identifier: Apache-2.0 */
/* debug.h - what the files of blkdebug share. */
#ifndef BLOCKYARD_FILTERS_DEBUG_DEBUG_H
#define BLOCKYARD_FILTERS_DEBUG_DEBUG_H

#include <pthread.h>

#include "blockyard.h"
#include "control.h"

extern const struct by_api *by_debug_api;

/* A rule; in `rules`, and while it waits for requests in `active` too. */
struct by_rule {
    struct by_rule *next, *next_active;
    struct by_blkdebug_rule rule;
};

/* Something that a breakpoint holds: a request at our door, or the task of
 * whoever announced the event. */
struct by_held {
    struct by_held *next;
    uint64_t id;
    struct by_loop *loop;
    struct by_task *resume;     /* the announcer's, or our own below */
    struct by_task task;
    struct by_node *node;
    struct by_request *req;
};

struct by_blkdebug {
    struct by_blkdebug_settings settings;
    pthread_mutex_t lock;
    /* Under lock. */
    int64_t state;
    uint32_t drains;            /* breakpoints hold nothing meanwhile */
    struct by_rule *rules;      /* the last one added first */
    struct by_rule *active;     /* that requests are held against */
    uint64_t written, flushed;  /* atomic: changes, and how many of them the
                                   last flush has met */
    struct by_held *held;       /* the newest first */
    struct by_held *wanted;     /* the next request from `loop` (null: from
                                   anywhere) is to be held; the oldest first */
};

/* rules.c.  Under lock: the event happens; the ids of the breakpoints that it
 * meets, which are gone then, are handed to `hit`. */
void by_rules_event(struct by_blkdebug *debug, uint32_t event,
                    void (*hit)(void *arg, uint64_t id), void *arg);
void by_rules_free(struct by_blkdebug *debug);
/* Under lock: is there such a breakpoint?  It is gone then. */
bool by_rules_drop_break(struct by_blkdebug *debug, uint64_t id);

/* suspend.c.  An event that may be held: by_node_ops.debug_event. */
bool by_blkdebug_announced(struct by_node *node, uint32_t event,
                           struct by_task *resume);
/* On the loop: hold this request if an event wants that.  True: held; it goes
 * on with `again`. */
bool by_blkdebug_hold(struct by_node *node, struct by_request *req,
                      void (*again)(struct by_task *task));
/* Let everything go on; a drain more, or less. */
void by_blkdebug_release(struct by_blkdebug *debug, int drains);

#endif /* BLOCKYARD_FILTERS_DEBUG_DEBUG_H */
