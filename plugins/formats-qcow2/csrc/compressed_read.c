/* SPDX-License-Identifier: Apache-2.0 */
/* compressed_read.c - read from a compressed cluster, by way of the cache. */
#include <errno.h>

#include "compressed.h"

struct q2_unpacking {
    struct by_frame frame;
    struct by_qcow2 *q;
    struct by_request *req;
    uint64_t entry;
    struct q2_plain *plain;
    struct q2_wait wait;
    struct by_request read;
    struct iovec iov;
    struct by_work work;
    unsigned char *packed;
    uint64_t there;             /* bytes of it that the file has */
};

static void copy_out(struct q2_unpacking *u)
{
    uint64_t in_cluster = q2_in_cluster(u->q, u->req->offset);

    q2_payload_copy(u->req, 0, u->plain->data + in_cluster, u->req->bytes,
                    false);
    q2_plain_put(u->q, u->plain);
}

static int made(struct q2_unpacking *u, int result)
{
    q2_plain_made(u->q, u->plain, result);
    if (u->packed) {
        q2_api->buffer_put(u->req->loop, u->packed, u->iov.iov_len);
    }
    if (result < 0) {
        q2_plain_put(u->q, u->plain);
    } else {
        copy_out(u);
    }
    return result;
}

static int unpack(struct by_work *work)
{
    struct q2_unpacking *u = work->owner;

    return q2_inflate(u->q->set.compression, u->packed, u->there,
                      u->plain->data, u->q->cluster_size);
}

static void unpacked(struct by_work *work, int result)
{
    struct q2_unpacking *u = work->owner;

    q2_api->complete(u->req, made(u, result));
}

static void inflate(struct q2_unpacking *u)
{
    u->work.run = unpack;
    u->work.done = unpacked;
    u->work.owner = u;
    q2_api->pool_submit(u->req->loop, &u->work);
}

static void packed_read(struct by_request *read, int result)
{
    struct q2_unpacking *u = read->owner;

    if (result < 0) {
        q2_api->complete(u->req, made(u, result));
    } else {
        inflate(u);
    }
}

/* Behind the end of the file there is nothing to read. */
static int fetch(struct q2_unpacking *u)
{
    uint64_t at = q2_packed_at(u->q, u->entry);
    uint64_t bytes = q2_packed_bytes(u->q, u->entry);
    uint64_t end = by_node_length(u->q->file);
    int result;

    u->packed = NULL;
    u->there = at >= end ? 0 : end - at < bytes ? end - at : bytes;
    if (!u->there) {
        return made(u, -EIO);
    }
    u->iov.iov_len = u->there;
    u->packed = q2_api->buffer_get(u->req->loop, u->there);
    if (!u->packed) {
        return made(u, -ENOMEM);
    }
    u->iov.iov_base = u->packed;
    u->read = (struct by_request) {
        .size = sizeof(u->read), .op = BY_OP_READ, .offset = at,
        .bytes = u->there, .iov = &u->iov, .niov = 1, .loop = u->req->loop,
        .done = packed_read, .owner = u,
    };
    q2_event(u->q, BY_DEBUG_READ_COMPRESSED);
    result = q2_api->submit(u->q->file, &u->read);
    if (result < 0) {
        return made(u, result);
    }
    if (result == 0) {
        inflate(u);
    }
    return BY_PENDING;
}

static int try_it(struct q2_unpacking *u)
{
    int result = q2_plain_get(u->q, q2_packed_at(u->q, u->entry), &u->wait,
                              &u->plain);

    if (result == 0) {
        copy_out(u);
    } else if (result == 1) {
        result = fetch(u);
    } else if (result == -EAGAIN) {
        result = BY_PENDING;
    }
    return result;
}

static void woken(struct by_task *task)
{
    struct q2_unpacking *u = task->owner;
    int result = u->wait.result < 0 ? u->wait.result : try_it(u);

    if (result != BY_PENDING) {
        q2_api->complete(u->req, result);
    }
}

static int unpacking_done(struct by_request *req, struct by_frame *frame,
                          int result)
{
    (void)req;
    (void)frame;
    return result;
}

int q2_read_compressed(struct by_qcow2 *q, uint64_t entry,
                       struct by_request *req)
{
    struct q2_unpacking *u = (struct q2_unpacking *)
        q2_api->frame_push(req, sizeof(*u), unpacking_done);
    int result;

    if (!u) {
        return -ENOMEM;
    }
    u->q = q;
    u->req = req;
    u->entry = entry;
    u->wait = (struct q2_wait) {
        .loop = req->loop, .task = { .run = woken, .owner = u },
    };
    result = try_it(u);
    if (result != BY_PENDING) {
        q2_api->frame_pop(req);
    }
    return result;
}
