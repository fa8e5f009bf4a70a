/* SPDX-License-Identifier: Apache-2.0 */
/*
 * compressed_write.c - write clusters compressed: several at a time in the
 * pool, each put where the last one's data ended.  A cluster that does not
 * get smaller is written as any other.
 */
#include <errno.h>

#include "change.h"
#include "compressed.h"

#define PARTS 4

struct q2_packing;

struct q2_pack {
    struct q2_packing *p;
    struct q2_pack *next;           /* in idle */
    struct q2_alloc alloc;
    bool entered;
    struct q2_patience patience;
    struct by_work work;
    struct by_request write;
    struct iovec iov;
    struct q2_slice *slice;
    uint32_t index;
    uint64_t guest, skip, bytes;    /* bytes: up to the disk's end */
    unsigned char *plain;           /* a cluster, and room for it packed */
    uint64_t packed, at;            /* bytes, and where in the file */
};

struct q2_packing {
    struct by_frame frame;
    struct by_qcow2 *q;
    struct by_request *req;
    uint64_t at, left;
    uint32_t running;
    int result;
    struct q2_pack *idle;
    struct q2_pack packs[PARTS];
};

static int advance(struct q2_packing *p);
static int begin(struct q2_pack *k);
static int put(struct q2_pack *k);

/* -------------------------------------------------------------- the ends */

static void leave(struct q2_pack *k)
{
    struct by_qcow2 *q = k->p->q;

    pthread_mutex_lock(&q->lock);
    if (k->slice) {
        q2_cache_unpin(&q->l2, k->slice);
        k->slice = NULL;
    }
    if (k->entered) {
        q2_alloc_leave(q, &k->alloc);
        k->entered = false;
    }
    if (k->patience.stands != Q2_STANDS_NOT) {
        q2_line_leave(q, &k->patience);
    }
    pthread_mutex_unlock(&q->lock);
}

static int end(struct q2_pack *k, int result)
{
    struct q2_packing *p = k->p;

    leave(k);
    if (k->plain) {
        q2_api->buffer_put(p->req->loop, k->plain, 2 * p->q->cluster_size);
        k->plain = NULL;
    }
    k->next = p->idle;
    p->idle = k;
    p->running--;
    if (result < 0 && p->result == 0) {
        p->result = result;
    }
    return result;
}

/* A step ended, not inside another. */
static void stepped(struct q2_pack *k, int result)
{
    struct q2_packing *p = k->p;

    if (result == BY_PENDING) {
        return;
    }
    end(k, result);
    result = advance(p);
    if (result != BY_PENDING) {
        q2_api->complete(p->req, result);
    }
}

/* ------------------------------------------------------------- the steps */

static void link_packed(struct q2_pack *k)
{
    struct by_qcow2 *q = k->p->q;
    unsigned char *entry = k->slice->table
        + (uint64_t)k->index * q->entry_bytes;
    uint64_t old = q2_be64(entry);

    q2_plain_forget(q, k->at);
    q2_event(q, BY_DEBUG_L2_UPDATE_COMPRESSED);
    q2_put64(entry, q2_packed_entry(q, k->at, k->packed));
    if (q->set.extended_l2) {
        q2_put64(entry + 8, 0);
    }
    q2_free_entry(q, old, BY_QCOW2_DISCARD_NEVER);
    q->barrier = true;
    q2_cache_dirty(&q->l2, k->slice);
}

static int written(struct q2_pack *k, int result)
{
    struct by_qcow2 *q = k->p->q;

    pthread_mutex_lock(&q->lock);
    if (result == 0) {
        link_packed(k);
    } else {
        q2_free_entry(q, q2_packed_entry(q, k->at, k->packed),
                      BY_QCOW2_DISCARD_NEVER);
    }
    pthread_mutex_unlock(&q->lock);
    return result;
}

static void write_done(struct by_request *write, int result)
{
    struct q2_pack *k = write->owner;

    stepped(k, written(k, result));
}

/* Under lock: where it goes. */
static int place(struct q2_pack *k)
{
    struct by_qcow2 *q = k->p->q;
    struct q2_spot spot;
    int result = q2_change_find(q, k->guest, &spot, &k->patience);

    if (result < 0) {
        return result;
    }
    if (q2_entry(q, spot.slice, spot.index) & Q2_COPIED) {
        return -EIO; /* compressed data replace nothing */
    }
    result = q2_line_turn(q, &k->patience, spot.l1_index);
    if (result < 0) {
        return result;
    }
    result = q2_alloc_bytes(q, k->packed, &k->at);
    if (result == -EAGAIN) {
        return q2_leave_to_keeper(q, &k->patience, q2_alloc_prepare, 1,
                                  Q2_ANY);
    }
    if (result < 0) {
        return result;
    }
    k->slice = spot.slice;
    k->index = spot.index;
    q2_cache_pin(k->slice);
    return 0;
}

static void put_again(struct by_task *task)
{
    struct q2_pack *k = task->owner;
    const struct q2_wait *wait = task == &k->patience.wait.task
        ? &k->patience.wait : &k->patience.chore.wait;

    stepped(k, wait->result < 0 ? wait->result : put(k));
}

static int put(struct q2_pack *k)
{
    struct by_qcow2 *q = k->p->q;
    int result;

    k->patience.wait.task.run = put_again;
    pthread_mutex_lock(&q->lock);
    q2_line_try(&k->patience);
    result = place(k);
    if (k->patience.stands == Q2_STANDS_CALLED) {
        q2_line_leave(q, &k->patience);
    }
    pthread_mutex_unlock(&q->lock);
    if (result < 0) {
        return result == -EAGAIN ? BY_PENDING : result;
    }
    k->iov = (struct iovec) { k->plain + q->cluster_size, k->packed };
    k->write = (struct by_request) {
        .size = sizeof(k->write), .op = BY_OP_WRITE, .flags = BY_REQ_STABLE,
        .offset = k->at, .bytes = k->packed, .iov = &k->iov, .niov = 1,
        .loop = k->p->req->loop, .done = write_done, .owner = k,
    };
    q2_event(q, BY_DEBUG_WRITE_COMPRESSED);
    result = q2_api->submit(q->file, &k->write);
    return result == BY_PENDING ? result : written(k, result);
}

static void plain_done(struct by_request *write, int result)
{
    stepped(write->owner, result);
}

static int write_plain(struct q2_pack *k)
{
    struct q2_packing *p = k->p;

    leave(k);
    q2_sub_request(&k->write, p->req, BY_OP_WRITE, k->guest, k->skip,
                   k->bytes, plain_done, k);
    return q2_write(p->q, &k->write);
}

static int pack(struct by_work *work)
{
    struct q2_pack *k = work->owner;
    struct by_qcow2 *q = k->p->q;
    int64_t result = q2_deflate(q->set.compression, k->plain, q->cluster_size,
                                k->plain + q->cluster_size,
                                q->cluster_size - 1);

    k->packed = result < 0 ? 0 : result;
    return result < 0 ? result : 0;
}

static void packed(struct by_work *work, int result)
{
    struct q2_pack *k = work->owner;

    stepped(k, result < 0 ? result : k->packed ? put(k) : write_plain(k));
}

static void begin_again(struct by_task *task)
{
    struct q2_pack *k = task->owner;

    stepped(k, begin(k));
}

static int begin(struct q2_pack *k)
{
    struct q2_packing *p = k->p;
    struct by_qcow2 *q = p->q;
    struct q2_alloc *holder;

    k->patience.stands = Q2_STANDS_NOT;
    k->patience.wait = (struct q2_wait) {
        .loop = p->req->loop, .task = { .run = begin_again, .owner = k },
    };
    pthread_mutex_lock(&q->lock);
    k->entered = q2_alloc_clear(q, k->guest, q->cluster_size, &holder)
        == q->cluster_size;
    if (k->entered) {
        k->alloc.first = q2_cluster(q, k->guest);
        k->alloc.count = 1;
        q2_alloc_enter(q, &k->alloc);
    } else {
        q2_wait_add(&holder->waiters, &k->patience.wait);
    }
    pthread_mutex_unlock(&q->lock);
    if (!k->entered) {
        return BY_PENDING;
    }
    k->plain = q2_api->buffer_get(p->req->loop, 2 * q->cluster_size);
    if (!k->plain) {
        return -ENOMEM;
    }
    q2_payload_copy(p->req, k->skip, k->plain, k->bytes, true);
    memset(k->plain + k->bytes, 0, q->cluster_size - k->bytes);
    k->work = (struct by_work) { .run = pack, .done = packed, .owner = k };
    q2_api->pool_submit(p->req->loop, &k->work);
    return BY_PENDING;
}

/* ------------------------------------------------------------ the request */

static int advance(struct q2_packing *p)
{
    while (p->left && p->idle && p->result == 0) {
        struct q2_pack *k = p->idle;
        uint64_t now = p->left < p->q->cluster_size ? p->left
                                                    : p->q->cluster_size;
        int result;

        p->idle = k->next;
        p->running++;
        k->p = p;
        k->guest = p->at;
        k->skip = p->at - p->req->offset;
        k->bytes = now;
        k->plain = NULL;
        k->slice = NULL;
        p->at += now;
        p->left -= now;
        result = begin(k);
        if (result != BY_PENDING) {
            end(k, result);
        }
    }
    return p->running ? BY_PENDING : p->result;
}

static int packing_done(struct by_request *req, struct by_frame *frame,
                        int result)
{
    (void)req;
    (void)frame;
    return result;
}

int q2_write_compressed(struct by_qcow2 *q, struct by_request *req)
{
    uint64_t last = req->offset + req->bytes;
    struct q2_packing *p;
    int result;

    /* Compressed clusters have no cipher: an encrypted image would show them. */
    if (q->set.data_file || q->crypto) {
        return -ENOTSUP;
    }
    if (q2_in_cluster(q, req->offset)
        || (q2_in_cluster(q, last) && last != q->size)) {
        return -EINVAL;
    }
    p = (struct q2_packing *)q2_api->frame_push(req, sizeof(*p), packing_done);
    if (!p) {
        return -ENOMEM;
    }
    p->q = q;
    p->req = req;
    p->at = req->offset;
    p->left = req->bytes;
    p->running = 0;
    p->result = 0;
    p->idle = NULL;
    for (int i = 0; i < PARTS; i++) {
        p->packs[i].next = p->idle;
        p->idle = &p->packs[i];
    }
    result = advance(p);
    if (result != BY_PENDING) {
        q2_api->frame_pop(req);
    }
    return result;
}
