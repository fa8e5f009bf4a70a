/* SPDX-License-Identifier: Apache-2.0 */
/*
 * write.c - writes: in place where the cluster is ours, by a change of the
 * mapping elsewhere.  A write of a single run in place goes on as it is;
 * others are cut into parts, a few of which run at a time.
 */
#include <errno.h>

#include "change.h"

#define PARTS 4

struct q2_writing;

struct q2_write_part {
    struct q2_writing *w;
    struct q2_write_part *next;     /* in idle */
    bool changes;                   /* the mapping */
    union {
        struct {
            struct by_request req;
            uint64_t host, epoch;
        };
        struct q2_change change;
    };
};

struct q2_writing {
    struct by_frame frame;
    struct by_qcow2 *q;
    struct by_request *req;
    uint64_t at, left, skip;        /* what has not begun */
    uint32_t running;
    bool waiting;
    int result;
    struct q2_patience patience;
    struct q2_write_part *idle;
    struct q2_write_part parts[PARTS];
};

/* ------------------------------------------------------------- in place */

struct q2_write_frame {
    struct by_frame frame;
    struct by_qcow2 *q;
    uint64_t epoch;
};

static int frame_done(struct by_request *req, struct by_frame *frame,
                      int result)
{
    struct q2_write_frame *f = (struct q2_write_frame *)frame;

    (void)req;
    q2_leave(f->q, f->epoch);
    return result;
}

static int forward(struct by_qcow2 *q, struct by_request *req, uint64_t host,
                   uint64_t epoch)
{
    struct q2_write_frame *f = (struct q2_write_frame *)
        q2_api->frame_push(req, sizeof(*f), frame_done);
    int result;

    if (unlikely(!f)) {
        q2_leave(q, epoch);
        return -ENOMEM;
    }
    f->q = q;
    f->epoch = epoch;
    req->offset = host;
    by_debug_event(q->file, BY_DEBUG_WRITE_AIO);
    result = q2_api->submit(q->data, req);
    if (result != BY_PENDING) {
        q2_leave(q, epoch);
        q2_api->frame_pop(req);
    }
    return result;
}

/* Under lock.  May this run be written as it is?  1, 0 or -EIO. */
static int in_place(struct by_qcow2 *q, const struct q2_run *run)
{
    if (run->kind != Q2_KIND_DATA || !run->copied) {
        return 0;
    }
    if (unlikely(!q->set.data_file
                 && q2_overlap_check(q, 0, run->host, run->bytes) < 0)) {
        return -EIO;
    }
    return 1;
}

/* --------------------------------------------------------------- in parts */

static int advance(struct q2_writing *w);

static void ended(struct q2_write_part *part, int result)
{
    struct q2_writing *w = part->w;

    if (!part->changes) {
        q2_leave(w->q, part->epoch);
    }
    part->next = w->idle;
    w->idle = part;
    w->running--;
    if (result < 0 && w->result == 0) {
        w->result = result;
    }
}

static void go_on(struct q2_writing *w)
{
    int result = advance(w);

    if (result != BY_PENDING) {
        q2_api->complete(w->req, result);
    }
}

static void request_done(struct by_request *sub, int result)
{
    struct q2_write_part *part = sub->owner;

    ended(part, result);
    go_on(part->w);
}

static void change_done(struct q2_change *change, int result)
{
    struct q2_write_part *part = change->owner;

    ended(part, result);
    go_on(part->w);
}

/* Under lock: what the next part is.  *bytes: its length. */
static int plan(struct q2_writing *w, struct q2_write_part *part,
                uint64_t *bytes)
{
    struct by_qcow2 *q = w->q;
    struct q2_alloc *holder;
    struct q2_run run;
    uint64_t clear = q2_alloc_clear(q, w->at, w->left, &holder);
    int result;

    if (!clear) {
        q2_wait_add(&holder->waiters, &w->patience.wait);
        return -EAGAIN;
    }
    result = q2_map(q, w->at, clear, &run, &w->patience.wait);
    if (result < 0) {
        return result;
    }
    result = in_place(q, &run);
    if (result < 0) {
        return result;
    }
    part->changes = !result;
    if (part->changes) {
        result = q2_change_plan(q, &part->change, w->at, clear, &run,
                                &w->patience);
        *bytes = part->change.bytes;
        return result;
    }
    part->host = run.host;
    part->epoch = q2_enter(q);
    *bytes = run.bytes;
    return 0;
}

static int start(struct q2_write_part *part, uint64_t bytes)
{
    struct q2_writing *w = part->w;
    struct by_qcow2 *q = w->q;

    if (part->changes) {
        return q2_change_start(&part->change, w->req, w->skip, change_done,
                               part);
    }
    q2_sub_request(&part->req, w->req, BY_OP_WRITE, part->host, w->skip,
                   bytes, request_done, part);
    by_debug_event(q->file, BY_DEBUG_WRITE_AIO);
    return q->crypto ? q2_write_encrypted(q, w->at, &part->req)
                     : q2_api->submit(q->data, &part->req);
}

static void next_part(struct q2_writing *w)
{
    struct q2_write_part *part = w->idle;
    uint64_t bytes = 0;
    int result;

    pthread_mutex_lock(&w->q->lock);
    q2_line_try(&w->patience);
    result = plan(w, part, &bytes);
    w->waiting = result == -EAGAIN;
    if (unlikely(w->patience.stands == Q2_STANDS_CALLED)
        && (result < 0 || bytes == w->left || !part->next)) {
        q2_line_leave(w->q, &w->patience);
    }
    pthread_mutex_unlock(&w->q->lock);
    if (result < 0) {
        w->result = w->waiting ? 0 : result;
        return;
    }
    w->idle = part->next;
    w->running++;
    result = start(part, bytes);
    w->at += bytes;
    w->skip += bytes;
    w->left -= bytes;
    if (result != BY_PENDING) {
        ended(part, result);
    }
}

/* The keeper could not help, so that nothing was tried. */
static void give_up(struct q2_writing *w)
{
    pthread_mutex_lock(&w->q->lock);
    q2_line_leave(w->q, &w->patience);
    pthread_mutex_unlock(&w->q->lock);
}

static int advance(struct q2_writing *w)
{
    while (w->left && w->idle && w->result == 0 && !w->waiting) {
        next_part(w);
    }
    /* While it waits, others change where it stands. */
    if (!w->waiting && unlikely(w->patience.stands != Q2_STANDS_NOT)) {
        give_up(w);
    }
    return w->running || w->waiting ? BY_PENDING : w->result;
}

static void woken(struct by_task *task)
{
    struct q2_writing *w = task->owner;

    w->waiting = false;
    if (task == &w->patience.chore.wait.task
        && w->patience.chore.wait.result < 0 && w->result == 0) {
        w->result = w->patience.chore.wait.result;
    }
    if (task == &w->patience.wait.task && w->patience.wait.result < 0
        && w->result == 0) {
        w->result = w->patience.wait.result;
    }
    go_on(w);
}

static int writing_done(struct by_request *req, struct by_frame *frame,
                        int result)
{
    (void)req;
    (void)frame;
    return result;
}

static int write_in_parts(struct by_qcow2 *q, struct by_request *req)
{
    struct q2_writing *w = (struct q2_writing *)
        q2_api->frame_push(req, sizeof(*w), writing_done);
    int result;

    if (!w) {
        return -ENOMEM;
    }
    w->q = q;
    w->req = req;
    w->at = req->offset;
    w->left = req->bytes;
    w->skip = 0;
    w->running = 0;
    w->waiting = false;
    w->result = 0;
    w->patience.stands = Q2_STANDS_NOT;
    w->patience.wait = (struct q2_wait) {
        .loop = req->loop, .task = { .run = woken, .owner = w },
    };
    w->idle = NULL;
    for (int i = 0; i < PARTS; i++) {
        w->parts[i].w = w;
        w->parts[i].next = w->idle;
        w->idle = &w->parts[i];
    }
    result = advance(w);
    if (result != BY_PENDING) {
        q2_api->frame_pop(req);
    }
    return result;
}

int q2_write(struct by_qcow2 *q, struct by_request *req)
{
    struct q2_alloc *holder;
    struct q2_run run;
    uint64_t epoch = 0;
    int result;

    if (unlikely(!req->bytes)) {
        return 0;
    }
    if (unlikely(q2_is_corrupt(q))) {
        return -EIO;
    }
    if (unlikely(req->flags & BY_REQ_COMPRESSED)) {
        return q2_write_compressed(q, req);
    }
    if (unlikely(q->crypto)) {
        return write_in_parts(q, req);
    }
    pthread_mutex_lock(&q->lock);
    result = q2_alloc_clear(q, req->offset, req->bytes, &holder) == req->bytes
        ? q2_map(q, req->offset, req->bytes, &run, NULL) : -EAGAIN;
    if (likely(result == 0)) {
        result = run.bytes == req->bytes ? in_place(q, &run) : 0;
    }
    if (likely(result == 1)) {
        epoch = q2_enter(q);
    }
    pthread_mutex_unlock(&q->lock);
    if (likely(result == 1)) {
        return forward(q, req, run.host, epoch);
    }
    return result == 0 || result == -EAGAIN ? write_in_parts(q, req) : result;
}
