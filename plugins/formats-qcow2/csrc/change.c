/* SPDX-License-Identifier: Apache-2.0 */
/*
 * change.c - carry out a planned change: read what is copied, write it with
 * the payload in one piece, and then let the L2 entries show it.
 */
#include <errno.h>

#include "change.h"

static size_t iov_bytes(const struct q2_change *c)
{
    return c->niov * sizeof(struct iovec);
}

/* The end, good or bad: others may change these clusters again. */
static int finish(struct q2_change *c, int result)
{
    struct by_qcow2 *q = c->q;
    struct by_loop *loop = c->of->loop;

    pthread_mutex_lock(&q->lock);
    if (result == 0) {
        q2_change_link(c);
    } else if (!c->reuse && !q->set.data_file) {
        q2_alloc_undo(q, c->host, c->alloc.count);
    }
    q2_cache_unpin(&q->l2, c->slice);
    q2_alloc_leave(q, &c->alloc);
    pthread_mutex_unlock(&q->lock);
    if (c->iov) {
        q2_api->slab_put(loop, c->iov, iov_bytes(c));
    }
    if (c->copied) {
        q2_api->buffer_put(loop, c->copied, c->head + c->tail);
    }
    return result;
}

static void write_done(struct by_request *req, int result)
{
    struct q2_change *c = req->owner;

    c->done(c, finish(c, result));
}

/* Head, payload and tail as one payload. */
static int gather(struct q2_change *c)
{
    struct iovec *iov;
    int n = 0;

    c->niov = c->of->niov + 2;
    iov = q2_api->slab_get(c->of->loop, iov_bytes(c));
    if (!iov) {
        return -ENOMEM;
    }
    c->iov = iov;
    if (c->head) {
        iov[n++] = (struct iovec) { c->copied, c->head };
    }
    n += by_iov_slice(c->of->iov, c->of->niov, c->of->iov_skip + c->skip,
                      c->bytes, iov + n, c->of->niov);
    if (c->tail) {
        iov[n++] = (struct iovec) { c->copied + c->head, c->tail };
    }
    c->write.iov = iov;
    c->write.niov = n;
    c->write.iov_skip = 0;
    c->write.flags &= ~BY_REQ_REGISTERED;
    return 0;
}

static int write_out(struct q2_change *c)
{
    struct by_qcow2 *q = c->q;
    uint64_t guest = c->guest - c->head;
    uint64_t first = c->alloc.first << q->cluster_bits;
    int result = c->result;

    q2_sub_request(&c->write, c->of, BY_OP_WRITE, c->host + (guest - first),
                   c->skip, c->head + c->bytes + c->tail, write_done, c);
    c->write.flags &= ~BY_REQ_WRITE_UNCHANGED;
    if (!c->reuse) {
        c->write.flags |= BY_REQ_FRESH;
    }
    if (result == 0 && (c->head || c->tail)) {
        result = gather(c);
    }
    if (result == 0) {
        by_debug_event(q->file, BY_DEBUG_WRITE_AIO);
        if (c->head || c->tail) {
            q2_event(q, BY_DEBUG_COW_WRITE);
        }
        result = q->crypto ? q2_write_encrypted(q, guest, &c->write)
                           : q2_api->submit(q->data, &c->write);
    }
    return result == BY_PENDING ? result : finish(c, result);
}

/* ---------------------------------------------------------------- copies */

static void read_done(struct by_request *req, int result)
{
    struct q2_change *c = req->owner;

    if (result < 0) {
        c->result = result;
    }
    if (--c->reading == 0) {
        result = write_out(c);
        if (result != BY_PENDING) {
            c->done(c, result);
        }
    }
}

/* What the disk showed there before, zeroes behind its end. */
static void fetch(struct q2_change *c, int side, uint64_t guest,
                  uint64_t bytes, bool zero, unsigned char *to)
{
    uint64_t size = c->q->size;
    uint64_t there = zero || guest >= size ? 0 : size - guest;
    struct by_request *read = &c->reads[side];
    int result;

    if (there < bytes) {
        memset(to + there, 0, bytes - there);
    } else {
        there = bytes;
    }
    if (!there) {
        return;
    }
    c->ends[side] = (struct iovec) { to, there };
    *read = (struct by_request) {
        .size = sizeof(*read), .op = BY_OP_READ, .offset = guest,
        .bytes = there, .iov = &c->ends[side], .niov = 1,
        .loop = c->of->loop, .done = read_done, .owner = c,
    };
    c->reading++;
    q2_event(c->q, BY_DEBUG_COW_READ);
    result = q2_read(c->q, read);
    if (result != BY_PENDING) {
        c->reading--;
        if (result < 0) {
            c->result = result;
        }
    }
}

int q2_change_start(struct q2_change *c, const struct by_request *of,
                    uint64_t skip,
                    void (*done)(struct q2_change *change, int result),
                    void *owner)
{
    c->of = of;
    c->skip = skip;
    c->done = done;
    c->owner = owner;
    c->iov = NULL;
    c->copied = NULL;
    c->result = 0;
    if (!(c->head + c->tail)) {
        return write_out(c);
    }
    c->copied = q2_api->buffer_get(of->loop, c->head + c->tail);
    if (!c->copied) {
        return finish(c, -ENOMEM);
    }
    c->reading = 1;
    fetch(c, 0, c->from, c->head, c->head_zero, c->copied);
    fetch(c, 1, c->guest + c->bytes, c->tail, c->tail_zero,
          c->copied + c->head);
    return --c->reading ? BY_PENDING : write_out(c);
}
