/* SPDX-License-Identifier: Apache-2.0 */
/*
 * zeroes.c - the requests "write zeroes" and "discard".
 *
 * What covers whole (sub)clusters changes their entries, by the keeper; the
 * edges of zeroes are written, unless they read as zeroes already, and the
 * edges of a discard are left alone.
 */
#include <errno.h>

#include "zeroes.h"

#define ZEROES 65536u
#define IOVS (((1u << Q2_MAX_CLUSTER_BITS) / ZEROES) + 1)

static const unsigned char zeroes[ZEROES] __attribute__((aligned(4096)));

struct q2_zeroing {
    struct by_frame frame;
    struct by_qcow2 *q;
    struct by_request *req;
    struct q2_emptying e;
    uint64_t at, end;               /* what is left to do */
    uint64_t from, to;              /* the whole (sub)clusters of it */
    struct q2_alloc alloc;
    struct q2_wait wait;
    struct q2_chore chore;
    struct by_request write;
    struct iovec iov[IOVS];
};

static int advance(struct q2_zeroing *z);

static void go_on(struct q2_zeroing *z, int result)
{
    if (result == 0) {
        result = advance(z);
    }
    if (result != BY_PENDING) {
        q2_api->complete(z->req, result);
    }
}

static void woken(struct by_task *task)
{
    struct q2_zeroing *z = task->owner;

    go_on(z, z->wait.result);
}

/* ----------------------------------------------------------------- edges */

static void edge_done(struct by_request *req, int result)
{
    go_on(req->owner, result);
}

static int write_edge(struct q2_zeroing *z, uint64_t guest, uint64_t bytes)
{
    uint32_t n = 0;

    for (uint64_t left = bytes; left; n++) {
        uint64_t now = left < ZEROES ? left : ZEROES;

        z->iov[n] = (struct iovec) { (void *)zeroes, now };
        left -= now;
    }
    z->write = (struct by_request) {
        .size = sizeof(z->write), .op = BY_OP_WRITE, .flags = BY_REQ_STABLE,
        .offset = guest, .bytes = bytes, .iov = z->iov, .niov = n,
        .loop = z->req->loop, .done = edge_done, .owner = z,
    };
    return q2_write(z->q, &z->write);
}

/* At most one cluster. */
static int edge(struct q2_zeroing *z, uint64_t to)
{
    struct by_qcow2 *q = z->q;
    uint64_t guest = z->at;
    struct q2_run run;
    int result;

    pthread_mutex_lock(&q->lock);
    result = q2_map(q, guest, to - guest, &run, &z->wait);
    pthread_mutex_unlock(&q->lock);
    if (result < 0) {
        return result == -EAGAIN ? BY_PENDING : result;
    }
    z->at += run.bytes;
    if (run.kind == Q2_KIND_ZERO
        || (run.kind == Q2_KIND_UNALLOCATED && !q->backing)) {
        return 0;
    }
    return z->req->flags & BY_REQ_NO_FALLBACK
        ? -ENOTSUP : write_edge(z, guest, run.bytes);
}

/* ------------------------------------------------------------- the middle */

static int empty_chore(struct by_qcow2 *q, struct q2_chore *chore)
{
    struct q2_zeroing *z = (struct q2_zeroing *)((char *)chore
        - offsetof(struct q2_zeroing, chore));
    int result = 0;

    if (q2_is_corrupt(q)) {
        return -EIO;
    }
    if (q->set.lazy_refcounts && !q->dirty_bit) {
        result = q2_mark_dirty_chore(q, chore);
    }
    if (result == 0 && q->set.data_file_raw && !z->e.discard) {
        /* The raw file itself has to read as zeroes. */
        result = q2_node_op(q->data, BY_OP_WRITE_ZEROES,
                            z->req->flags & (BY_REQ_MAY_UNMAP
                                             | BY_REQ_NO_FALLBACK),
                            z->e.from, z->e.to - z->e.from);
    }
    return result < 0 ? result : q2_empty(q, &z->e);
}

static void emptied(struct by_task *task)
{
    struct q2_zeroing *z = task->owner;

    pthread_mutex_lock(&z->q->lock);
    q2_alloc_leave(z->q, &z->alloc);
    pthread_mutex_unlock(&z->q->lock);
    z->at = z->e.to;
    go_on(z, z->chore.result);
}

static int middle(struct q2_zeroing *z)
{
    struct by_qcow2 *q = z->q;
    struct q2_alloc *holder;
    uint64_t clear, end;

    pthread_mutex_lock(&q->lock);
    clear = q2_alloc_clear(q, z->at, z->to - z->at, &holder);
    if (!clear) {
        q2_wait_add(&holder->waiters, &z->wait);
    } else {
        end = z->at + clear;
        z->e.from = z->at;
        z->e.to = end;
        z->alloc.first = q2_cluster(q, z->at);
        z->alloc.count = q2_cluster(q, end - 1) - z->alloc.first + 1;
        q2_alloc_enter(q, &z->alloc);
        z->chore.run = empty_chore;
        z->chore.wait.loop = z->req->loop;
        z->chore.wait.task.run = emptied;
        z->chore.wait.task.owner = z;
        q2_chore_add(q, &z->chore);
    }
    pthread_mutex_unlock(&q->lock);
    return BY_PENDING;
}

/* ------------------------------------------------------------ the request */

static int advance(struct q2_zeroing *z)
{
    int result = 0;

    while (z->at < z->end && result == 0) {
        if (z->at >= z->from && z->at < z->to) {
            return middle(z);
        }
        if (z->e.discard) {
            z->at = z->at < z->from ? z->from : z->end;
        } else {
            uint64_t to = z->at < z->from ? z->from : z->end;

            result = edge(z, to < z->end ? to : z->end);
        }
    }
    return result;
}

static int zeroing_done(struct by_request *req, struct by_frame *frame,
                        int result)
{
    (void)req;
    (void)frame;
    return result;
}

static int run(struct by_qcow2 *q, struct by_request *req, bool discard)
{
    uint64_t unit = discard ? q->cluster_size : 1ull << q->subcluster_bits;
    struct q2_zeroing *z;
    int result;

    if (q2_is_corrupt(q)) {
        return -EIO;
    }
    z = (struct q2_zeroing *)q2_api->frame_push(req, sizeof(*z), zeroing_done);
    if (!z) {
        return -ENOMEM;
    }
    z->q = q;
    z->req = req;
    z->e = (struct q2_emptying) {
        .discard = discard,
        .unmap = req->flags & BY_REQ_MAY_UNMAP,
    };
    z->at = req->offset;
    z->end = req->offset + req->bytes;
    z->from = (z->at + unit - 1) & ~(unit - 1);
    /* Nothing is behind the end of the disk. */
    z->to = z->end >= q->size ? z->end : z->end & ~(unit - 1);
    if (z->to < z->from) {
        z->from = z->to = z->end;
    }
    z->wait = (struct q2_wait) {
        .loop = req->loop, .task = { .run = woken, .owner = z },
    };
    result = advance(z);
    if (result != BY_PENDING) {
        q2_api->frame_pop(req);
    }
    return result;
}

int q2_write_zeroes(struct by_qcow2 *q, struct by_request *req)
{
    return run(q, req, false);
}

int q2_discard(struct by_qcow2 *q, struct by_request *req)
{
    if (q->set.version < 3 && q->backing) {
        return 0; /* the backing file would show through: leave it */
    }
    return run(q, req, true);
}
