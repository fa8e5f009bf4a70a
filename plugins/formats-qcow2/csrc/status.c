/* SPDX-License-Identifier: Apache-2.0 */
/* status.c - block status: what the tables say of a range. */
#include <errno.h>

#include "requests.h"

/* L1 entries that one question looks at. */
enum { MOST_TABLES = 1 << 17 };

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

/* Where a whole L2 table is missing, look on for more of them: who walks along
 * a disk of exabytes must not come by each.  Under lock, and so not for ever. */
static void look_on(const struct by_qcow2 *q, const struct by_request *req,
                    struct q2_run *run)
{
    const uint64_t per_l1 = 1ull << (q->cluster_bits + q->l2_bits);
    uint64_t at = req->offset + run->bytes;

    if (run->kind != Q2_KIND_UNALLOCATED || run->has_host) {
        return;
    }
    for (int n = 0; n < MOST_TABLES && run->bytes < req->bytes; n++) {
        uint64_t left = req->bytes - run->bytes;
        uint64_t index = at / per_l1;

        if (at % per_l1 || index >= q->l1_size
            || (q->l1[index] & Q2_OFFSET_MASK)) {
            return;
        }
        run->bytes += left < per_l1 ? left : per_l1;
        at += per_l1;
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
    if (result == 0) {
        look_on(q, req, &run);
    }
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
