/* SPDX-License-Identifier: Apache-2.0 */
/* status.c - block status: what the tables say of a range. */
#include <errno.h>

#include "requests.h"

struct q2_asking {
    struct by_frame frame;
    struct by_qcow2 *q;
    struct by_request *req;
    struct q2_wait wait;
};

static void answer(const struct by_qcow2 *q, const struct q2_run *run,
                   struct by_request *req)
{
    struct by_block_status *status = req->u.status;

    status->bytes = run->bytes;
    status->flags = 0;
    status->owner = NULL;
    status->depth = 0;
    /* Subclusters without data have their place, as their neighbours have. */
    if (run->has_host && !q->crypto
        && (run->kind != Q2_KIND_UNALLOCATED || !q->backing)) {
        status->flags |= BY_STATUS_OFFSET;
        status->host_offset = run->host;
        status->owner = q->data;
    }
    switch (run->kind) {
    case Q2_KIND_ZERO:
        status->flags |= BY_STATUS_ZERO | BY_STATUS_ALLOCATED;
        break;
    case Q2_KIND_COMPRESSED:
        status->flags |= BY_STATUS_DATA | BY_STATUS_ALLOCATED
            | BY_STATUS_COMPRESSED;
        break;
    case Q2_KIND_DATA:
        status->flags |= BY_STATUS_DATA | BY_STATUS_ALLOCATED;
        if (!q->crypto) {
            status->flags |= BY_STATUS_RECURSE;
        }
        break;
    default:
        if (q->backing) {
            status->flags |= BY_STATUS_RECURSE;
            status->owner = q->backing;
            status->host_offset = req->offset;
        } else {
            status->flags |= BY_STATUS_ZERO;
        }
    }
}

/* 0, -errno, or -EAGAIN: the wait is woken. */
static int ask(struct by_qcow2 *q, struct by_request *req,
               struct q2_wait *wait)
{
    struct q2_run run;
    int result;

    pthread_mutex_lock(&q->lock);
    result = q2_map(q, req->offset, req->bytes, &run, wait);
    pthread_mutex_unlock(&q->lock);
    if (result == 0) {
        answer(q, &run, req);
    }
    return result;
}

static void woken(struct by_task *task)
{
    struct q2_asking *a = task->owner;
    int result = a->wait.result;

    if (result == 0) {
        result = ask(a->q, a->req, &a->wait);
    }
    if (result != -EAGAIN) {
        q2_api->complete(a->req, result);
    }
}

static int asking_done(struct by_request *req, struct by_frame *frame,
                       int result)
{
    (void)req;
    (void)frame;
    return result;
}

int q2_status(struct by_qcow2 *q, struct by_request *req)
{
    struct q2_asking *a;
    int result = ask(q, req, NULL);

    if (result != -EAGAIN) {
        return result;
    }
    a = (struct q2_asking *)q2_api->frame_push(req, sizeof(*a), asking_done);
    if (!a) {
        return -ENOMEM;
    }
    a->q = q;
    a->req = req;
    a->wait = (struct q2_wait) {
        .loop = req->loop, .task = { .run = woken, .owner = a },
    };
    result = ask(q, req, &a->wait);
    if (result == -EAGAIN) {
        return BY_PENDING;
    }
    q2_api->frame_pop(req);
    return result;
}
