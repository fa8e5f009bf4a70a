/* SPDX-License-Identifier: Apache-2.0 */
/*
 * group.c - requests that wait for their turn.
 *
 * What a waiting request may do is decided under the group's lock by whoever
 * changes something: a timer that ran out, a drain, new limits.  It is done
 * on the request's own loop, by its task: begin, arm the timer, cancel it.  A
 * request begins when it is released, no task is on its way and no timer is
 * with the loop; then nobody else points to it.
 */
#include <errno.h>
#include <stdlib.h>
#include <time.h>

#include "throttle.h"

static uint64_t now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * UINT64_C(1000000000) + now.tv_nsec;
}

/* ------------------------------------------------- the lines; lock is held */

static void stand_in_line(struct by_line *line, struct by_throttle *member,
                          bool write)
{
    member->next[write] = NULL;
    *line->end = member;
    line->end = &member->next[write];
}

static void append(struct by_throttle_group *group, struct by_waiting *w)
{
    struct by_throttle *member = w->member;

    if (!member->first[w->write]) {
        stand_in_line(&group->line[w->write], member, w->write);
    }
    w->next = NULL;
    *member->end[w->write] = w;
    member->end[w->write] = &w->next;
}

static struct by_waiting *take_first(struct by_throttle *member, bool write)
{
    struct by_waiting *w = member->first[write];

    member->first[write] = w->next;
    if (!w->next) {
        member->end[write] = &member->first[write];
    }
    return w;
}

/* Of the node whose turn it is, which then goes to the end of the line. */
static struct by_waiting *take_turn(struct by_line *line, bool write)
{
    struct by_throttle *member = line->first;
    struct by_waiting *w = take_first(member, write);

    line->first = member->next[write];
    if (!line->first) {
        line->end = &line->first;
    }
    if (member->first[write]) {
        stand_in_line(line, member, write);
    }
    return w;
}

static void leave_line(struct by_line *line, struct by_throttle *member,
                       bool write)
{
    struct by_throttle **at = &line->first;

    while (*at != member) {
        at = &(*at)->next[write];
    }
    *at = member->next[write];
    if (!*at) {
        line->end = at;
    }
}

static void wake(struct by_waiting *w)
{
    struct by_loop *loop = w->req->loop;

    if (w->posted) {
        return;
    }
    w->posted = true;
    if (by_throttle_api->loop_current() == loop) {
        by_throttle_api->loop_defer(loop, &w->task);
    } else {
        by_throttle_api->loop_post(loop, &w->task);
    }
}

static void release(struct by_throttle_group *group, struct by_waiting *w)
{
    by_buckets_add(&group->buckets, w->write, w->req->bytes);
    if (group->line[w->write].carrier == w) {
        group->line[w->write].carrier = NULL;
    }
    w->released = true;
    wake(w);
}

/* Who waits longest for this line's next step has the timer. */
static void find_carrier(struct by_line *line, bool write)
{
    if (!line->carrier && line->first) {
        line->carrier = line->first->first[write];
        wake(line->carrier);
    }
}

/* Let begin what may begin. */
static void advance(struct by_throttle_group *group, bool write)
{
    struct by_line *line = &group->line[write];
    uint64_t now = now_ns();

    while (line->first && !by_buckets_wait(&group->buckets, write, now)) {
        release(group, take_turn(line, write));
    }
    find_carrier(line, write);
}

/* ------------------------------------------------- on the request's loop */

static void begin(struct by_waiting *w)
{
    struct by_request *req = w->req;
    int result = by_throttle_api->submit(w->node->children[0], req);

    if (result != BY_PENDING) {
        by_throttle_api->complete(req, result);
    }
}

static void timer_done(struct by_io *io, int result)
{
    struct by_waiting *w = io->owner;
    struct by_throttle_group *group = w->member->group;
    bool may_begin;

    (void)result; /* cancelled or not: look again */
    pthread_mutex_lock(&group->lock);
    w->armed = false;
    may_begin = w->released && !w->posted;
    if (!w->released) {
        if (group->line[w->write].carrier == w) {
            group->line[w->write].carrier = NULL;
        }
        advance(group, w->write);
    }
    pthread_mutex_unlock(&group->lock);
    if (may_begin) {
        begin(w);
    }
}

static void arm(struct by_throttle_group *group, struct by_waiting *w)
{
    uint64_t now = now_ns();

    w->armed = true;
    w->retime = false;
    w->timer.offset = now + by_buckets_wait(&group->buckets, w->write, now);
    by_throttle_api->io_submit(w->req->loop, &w->timer);
}

static void run_task(struct by_task *task)
{
    struct by_waiting *w = task->owner;
    struct by_throttle_group *group = w->member->group;
    bool may_begin, cancel;

    pthread_mutex_lock(&group->lock);
    w->posted = false;
    may_begin = w->released && !w->armed;
    cancel = w->armed && (w->released || w->retime);
    if (!w->released && !w->armed && group->line[w->write].carrier == w) {
        arm(group, w);
    }
    pthread_mutex_unlock(&group->lock);
    if (cancel) {
        by_throttle_api->io_cancel(w->req->loop, &w->timer);
    } else if (may_begin) {
        begin(w);
    }
}

static int passed(struct by_request *req, struct by_frame *frame, int result)
{
    (void)req;
    (void)frame;
    return result;
}

static int wait_in_line(struct by_throttle_group *group, struct by_node *node,
                        struct by_request *req, bool write)
{
    struct by_waiting *w = (struct by_waiting *)
        by_throttle_api->frame_push(req, sizeof(*w), passed);

    if (!w) {
        return -ENOMEM;
    }
    *w = (struct by_waiting) {
        .frame = w->frame,
        .member = node->state,
        .node = node,
        .req = req,
        .write = write,
        .task = { .run = run_task, .owner = w },
        .timer = {
            .size = sizeof(w->timer),
            .op = BY_IO_TIMER,
            .fd = -1,
            .done = timer_done,
            .owner = w,
        },
    };
    append(group, w);
    find_carrier(&group->line[write], write);
    return BY_PENDING;
}

int by_throttle_pass(struct by_node *node, struct by_request *req, bool write)
{
    struct by_throttle *member = node->state;
    struct by_throttle_group *group = member->group;
    int result = 0;

    pthread_mutex_lock(&group->lock);
    if (member->drained
        || (!group->line[write].first
            && !by_buckets_wait(&group->buckets, write, now_ns()))) {
        by_buckets_add(&group->buckets, write, req->bytes);
    } else {
        result = wait_in_line(group, node, req, write);
    }
    pthread_mutex_unlock(&group->lock);
    return result ? result
                  : by_throttle_api->submit(node->children[0], req);
}

void by_throttle_drain(struct by_throttle *member, bool drained)
{
    struct by_throttle_group *group = member->group;

    pthread_mutex_lock(&group->lock);
    member->drained = drained;
    for (int write = 0; drained && write < 2; write++) {
        if (member->first[write]) {
            leave_line(&group->line[write], member, write);
            while (member->first[write]) {
                release(group, take_first(member, write));
            }
            find_carrier(&group->line[write], write);
        }
    }
    pthread_mutex_unlock(&group->lock);
}

/* ------------------------------------------------- on the control thread */

struct by_throttle_group *by_throttle_group_create(void)
{
    struct by_throttle_group *group = calloc(1, sizeof(*group));

    if (group) {
        pthread_mutex_init(&group->lock, NULL);
        group->line[0].end = &group->line[0].first;
        group->line[1].end = &group->line[1].first;
    }
    return group;
}

void by_throttle_group_set(struct by_throttle_group *group,
                           const struct by_throttle_limits *limits)
{
    pthread_mutex_lock(&group->lock);
    by_buckets_set(&group->buckets, limits, now_ns());
    for (int write = 0; write < 2; write++) {
        struct by_line *line = &group->line[write];

        __atomic_store_n(&line->limited,
                         by_buckets_limit(&group->buckets, write),
                         __ATOMIC_RELAXED);
        advance(group, write);
        if (line->carrier) {
            line->carrier->retime = true;
            wake(line->carrier);
        }
    }
    pthread_mutex_unlock(&group->lock);
}

void by_throttle_group_free(struct by_throttle_group *group)
{
    pthread_mutex_destroy(&group->lock);
    free(group);
}
