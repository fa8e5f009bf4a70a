/* SPDX-License-Identifier: Apache-2.0 */
/*
 * zeroes.c - the requests "write zeroes" and "discard".
 *
 * What covers whole (sub)clusters changes their entries, by the keeper.  At
 * an edge the whole (sub)cluster is made zero if the rest of it reads as
 * zeroes already, or else the zeroes are written.  The edges of a discard are
 * left alone.
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
    uint64_t edge, part;            /* an edge's end; how far it was asked */
    struct by_block_status status;
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

/* --------------------------------------------------------------- entries */

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

static int write_instead(struct q2_zeroing *z);

/* Few enough zeroes to be written from here: a compressed cluster has parts
 * that no entry can make zero, and behind a disk that grows nobody else can
 * write them. */
static bool is_short(const struct q2_zeroing *z)
{
    return !z->e.discard && z->e.to - z->e.from <= z->q->cluster_size;
}

static void emptied(struct by_task *task)
{
    struct q2_zeroing *z = task->owner;
    int result = z->chore.result;

    pthread_mutex_lock(&z->q->lock);
    q2_alloc_leave(z->q, &z->alloc);
    pthread_mutex_unlock(&z->q->lock);
    if (z->e.widened) {
        z->e.widened = false;
        if (result == -ENOTSUP) {
            result = write_instead(z);
        } else {
            z->at = z->edge;
        }
    } else if (result == -ENOTSUP && is_short(z)) {
        z->edge = z->e.to;
        result = write_instead(z);
    } else {
        z->at = z->e.to;
    }
    go_on(z, result);
}

/* What nobody else is changing of [from, to), from its beginning on. */
static int empty(struct q2_zeroing *z, uint64_t from, uint64_t to)
{
    struct by_qcow2 *q = z->q;
    struct q2_alloc *holder;
    uint64_t clear, end;

    pthread_mutex_lock(&q->lock);
    clear = q2_alloc_clear(q, from, to - from, &holder);
    if (!clear) {
        z->e.widened = false; /* looked at again then */
        q2_wait_add(&holder->waiters, &z->wait);
    } else {
        end = from + clear;
        z->e.from = from;
        z->e.to = end;
        z->alloc.first = q2_cluster(q, from);
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

/* ------------------------------------------------- the rest of an edge */

/* The edge's (sub)cluster: [start, stop). */
static uint64_t unit_start(const struct q2_zeroing *z)
{
    return z->at & ~((1ull << z->q->subcluster_bits) - 1);
}

static uint64_t unit_stop(const struct q2_zeroing *z)
{
    uint64_t stop = unit_start(z) + (1ull << z->q->subcluster_bits);
    /* A disk that grows has its last cluster zeroed behind its end first. */
    uint64_t last = z->end < z->q->size ? z->q->size : z->end;

    return stop < last ? stop : last;
}

static int write_instead(struct q2_zeroing *z)
{
    uint64_t guest = z->at;

    if (z->req->flags & BY_REQ_NO_FALLBACK) {
        return -ENOTSUP;
    }
    z->at = z->edge;
    return write_edge(z, guest, z->edge - guest);
}

/* Where the rest of the (sub)cluster goes on that was not asked about yet, and
 * where that part ends; false: there is none. */
static bool next_part(struct q2_zeroing *z, uint64_t *end)
{
    uint64_t length = by_node_length(z->q->backing);

    if (z->part >= (z->at < length ? z->at : length) && z->part < z->edge) {
        z->part = z->edge;
    }
    *end = z->part < z->at ? z->at : unit_stop(z);
    *end = *end < length ? *end : length;
    return z->part < *end;
}

static int ask_below(struct q2_zeroing *z);

static void asked(struct by_request *req, int result)
{
    struct q2_zeroing *z = req->owner;

    if (result == 0 && !(z->status.flags & BY_STATUS_ZERO)) {
        result = write_instead(z);
    } else if (result == 0) {
        z->part += z->status.bytes;
        result = ask_below(z);
    }
    go_on(z, result);
}

/* Of the rest of the (sub)cluster: does the backing file read as zeroes? */
static int ask_below(struct q2_zeroing *z)
{
    uint64_t end;
    int result;

    while (next_part(z, &end)) {
        z->status = (struct by_block_status) {
            .size = sizeof(z->status),
        };
        z->write = (struct by_request) {
            .size = sizeof(z->write), .op = BY_OP_BLOCK_STATUS,
            .offset = z->part, .bytes = end - z->part, .loop = z->req->loop,
            .done = asked, .owner = z, .u.status = &z->status,
        };
        result = q2_api->submit(z->q->backing, &z->write);
        if (result != 0) {
            return result;
        }
        if (!(z->status.flags & BY_STATUS_ZERO)) {
            return write_instead(z);
        }
        z->part += z->status.bytes;
    }
    z->e.widened = true;
    return empty(z, unit_start(z), unit_stop(z));
}

/* At most one (sub)cluster. */
static int edge(struct q2_zeroing *z, uint64_t to)
{
    struct by_qcow2 *q = z->q;
    uint64_t start = unit_start(z), stop = unit_stop(z);
    struct q2_run run;
    int result;

    z->edge = to < stop ? to : stop;
    pthread_mutex_lock(&q->lock);
    result = q2_map(q, start, stop - start, &run, &z->wait);
    pthread_mutex_unlock(&q->lock);
    if (result < 0) {
        return result == -EAGAIN ? BY_PENDING : result;
    }
    if (run.kind == Q2_KIND_ZERO
        || (run.kind == Q2_KIND_UNALLOCATED && !q->backing
            && (q->set.version < 3 || q->set.data_file_raw))) {
        z->at = z->edge;
        return 0;
    }
    if (run.kind != Q2_KIND_UNALLOCATED || run.bytes < stop - start
        || q->set.version < 3 || q->set.data_file_raw) {
        return write_instead(z);
    }
    z->part = start;
    if (q->backing) {
        return ask_below(z);
    }
    z->e.widened = true;
    return empty(z, start, stop);
}

/* ------------------------------------------------------------ the request */

static int advance(struct q2_zeroing *z)
{
    int result = 0;

    while (z->at < z->end && result == 0) {
        if (z->at >= z->from && z->at < z->to) {
            return empty(z, z->at, z->to);
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
