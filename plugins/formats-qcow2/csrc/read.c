/* SPDX-License-Identifier: Apache-2.0 */
/*
 * read.c - reads.
 *
 * Most are of one run that is there: the request itself goes on to the data
 * file, or to the backing node, with its offset moved.  Others are cut into
 * parts, a few of which run at a time.
 */
#include <errno.h>

#include "requests.h"

#define PARTS 8

struct q2_reading;

struct q2_read_part {
    struct by_request req;
    struct q2_reading *r;
    struct q2_read_part *next;      /* in idle */
    bool entered;
    uint64_t epoch;
};

struct q2_reading {
    struct by_frame frame;
    struct by_qcow2 *q;
    struct by_request *req;
    uint64_t at, left, skip;        /* what has not begun */
    uint32_t running;
    bool waiting;
    int result;
    struct q2_wait wait;
    struct q2_read_part *idle;
    struct q2_read_part parts[PARTS];
};

/* ------------------------------------------------------------ in place */

struct q2_read_frame {
    struct by_frame frame;
    struct by_qcow2 *q;
    uint64_t epoch;
};

static int frame_done(struct by_request *req, struct by_frame *frame,
                      int result)
{
    struct q2_read_frame *f = (struct q2_read_frame *)frame;

    (void)req;
    q2_leave(f->q, f->epoch);
    return result;
}

static int forward(struct by_qcow2 *q, struct by_request *req, uint64_t host,
                   uint64_t epoch)
{
    struct q2_read_frame *f = (struct q2_read_frame *)
        q2_api->frame_push(req, sizeof(*f), frame_done);
    uint64_t guest = req->offset;
    int result;

    if (unlikely(!f)) {
        q2_leave(q, epoch);
        return -ENOMEM;
    }
    f->q = q;
    f->epoch = epoch;
    req->offset = host;
    q2_event(q, BY_DEBUG_READ_AIO);
    result = q2_api->submit(q->data, req);
    if (result != BY_PENDING) {
        q2_leave(q, epoch);
        q2_api->frame_pop(req);
        req->offset = guest;
    }
    return result;
}

/* --------------------------------------------------------------- in parts */

static int advance(struct q2_reading *r);

static void give_back(struct q2_read_part *part)
{
    struct q2_reading *r = part->r;

    if (part->entered) {
        q2_leave(r->q, part->epoch);
        part->entered = false;
    }
    part->next = r->idle;
    r->idle = part;
    r->running--;
}

static void ended(struct q2_read_part *part, int result)
{
    struct q2_reading *r = part->r;

    give_back(part);
    if (result < 0 && r->result == 0) {
        r->result = result;
    }
}

static void part_done(struct by_request *sub, int result)
{
    struct q2_read_part *part = sub->owner;
    struct q2_reading *r = part->r;

    ended(part, result);
    result = advance(r);
    if (result != BY_PENDING) {
        q2_api->complete(r->req, result);
    }
}

/* Of the backing node, what is behind its end reads as zeroes. */
static int read_backing(struct q2_read_part *part, struct q2_run *run)
{
    struct q2_reading *r = part->r;
    uint64_t end = r->q->backing ? by_node_length(r->q->backing) : 0;

    if (end <= r->at) {
        q2_payload_zero(r->req, r->skip, run->bytes);
        return 0;
    }
    if (run->bytes > end - r->at) {
        run->bytes = end - r->at;
    }
    q2_sub_request(&part->req, r->req, BY_OP_READ, r->at, r->skip, run->bytes,
                   part_done, part);
    q2_event(r->q, BY_DEBUG_READ_BACKING_AIO);
    return q2_api->submit(r->q->backing, &part->req);
}

static int read_run(struct q2_read_part *part, struct q2_run *run)
{
    struct q2_reading *r = part->r;
    struct by_qcow2 *q = r->q;

    switch (run->kind) {
    case Q2_KIND_ZERO:
        q2_payload_zero(r->req, r->skip, run->bytes);
        return 0;
    case Q2_KIND_UNALLOCATED:
        return read_backing(part, run);
    case Q2_KIND_COMPRESSED:
        q2_sub_request(&part->req, r->req, BY_OP_READ, r->at, r->skip,
                       run->bytes, part_done, part);
        return q2_read_compressed(q, run->entry, &part->req);
    default:
        q2_sub_request(&part->req, r->req, BY_OP_READ, run->host, r->skip,
                       run->bytes, part_done, part);
        q2_event(q, BY_DEBUG_READ_AIO);
        return q->crypto ? q2_read_encrypted(q, r->at, &part->req)
                         : q2_api->submit(q->data, &part->req);
    }
}

static void start(struct q2_reading *r, struct q2_run *run, uint64_t epoch)
{
    struct q2_read_part *part = r->idle;
    int result;

    r->idle = part->next;
    r->running++;
    part->entered = true;
    part->epoch = epoch;
    result = read_run(part, run);
    r->at += run->bytes;
    r->skip += run->bytes;
    r->left -= run->bytes;
    if (result != BY_PENDING) {
        ended(part, result);
    }
}

/* The result, or BY_PENDING while parts run or a table is awaited. */
static int advance(struct q2_reading *r)
{
    struct by_qcow2 *q = r->q;

    while (r->left && r->idle && r->result == 0 && !r->waiting) {
        struct q2_run run;
        uint64_t epoch = 0;
        int result;

        pthread_mutex_lock(&q->lock);
        result = q2_map(q, r->at, r->left, &run, &r->wait);
        if (result == 0) {
            epoch = q2_enter(q);
        }
        r->waiting = result == -EAGAIN;
        pthread_mutex_unlock(&q->lock);
        if (result == 0) {
            start(r, &run, epoch);
        } else if (result != -EAGAIN) {
            r->result = result;
        }
    }
    return r->running || r->waiting ? BY_PENDING : r->result;
}

static void woken(struct by_task *task)
{
    struct q2_reading *r = task->owner;
    int result;

    r->waiting = false;
    if (r->wait.result < 0 && r->result == 0) {
        r->result = r->wait.result;
    }
    result = advance(r);
    if (result != BY_PENDING) {
        q2_api->complete(r->req, result);
    }
}

static int reading_done(struct by_request *req, struct by_frame *frame,
                        int result)
{
    (void)req;
    (void)frame;
    return result;
}

static int read_in_parts(struct by_qcow2 *q, struct by_request *req)
{
    struct q2_reading *r = (struct q2_reading *)
        q2_api->frame_push(req, sizeof(*r), reading_done);
    int result;

    if (!r) {
        return -ENOMEM;
    }
    r->q = q;
    r->req = req;
    r->at = req->offset;
    r->left = req->bytes;
    r->skip = 0;
    r->running = 0;
    r->waiting = false;
    r->result = 0;
    r->wait.loop = req->loop;
    r->wait.task.run = woken;
    r->wait.task.owner = r;
    r->idle = NULL;
    for (int i = 0; i < PARTS; i++) {
        r->parts[i].r = r;
        r->parts[i].entered = false;
        r->parts[i].next = r->idle;
        r->idle = &r->parts[i];
    }
    result = advance(r);
    if (result != BY_PENDING) {
        q2_api->frame_pop(req);
    }
    return result;
}

int q2_read(struct by_qcow2 *q, struct by_request *req)
{
    struct q2_run run;
    uint64_t epoch = 0;
    int result;

    if (unlikely(!req->bytes)) {
        return 0;
    }
    pthread_mutex_lock(&q->lock);
    result = q2_map(q, req->offset, req->bytes, &run, NULL);
    if (likely(result == 0)) {
        epoch = q2_enter(q);
    }
    pthread_mutex_unlock(&q->lock);
    if (unlikely(result < 0)) {
        return result == -EAGAIN ? read_in_parts(q, req) : result;
    }
    if (likely(run.bytes == req->bytes)) {
        if (run.kind == Q2_KIND_DATA && likely(!q->crypto)) {
            return forward(q, req, run.host, epoch);
        }
        q2_leave(q, epoch);
        if (run.kind == Q2_KIND_ZERO
            || (run.kind == Q2_KIND_UNALLOCATED && !q->backing)) {
            q2_payload_zero(req, 0, req->bytes);
            return 0;
        }
        if (run.kind == Q2_KIND_UNALLOCATED
            && by_range_ok(req->offset, req->bytes,
                           by_node_length(q->backing))) {
            q2_event(q, BY_DEBUG_READ_BACKING_AIO);
            return q2_api->submit(q->backing, req);
        }
        return read_in_parts(q, req);
    }
    q2_leave(q, epoch);
    return read_in_parts(q, req);
}
