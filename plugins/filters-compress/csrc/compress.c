/* SPDX-License-Identifier: Apache-2.0 */
/*
 * compress.c - the filter: writes go on as compressed ones, the rest as it is.
 * The node's limits say whole clusters, and core sees to those.
 *
 * Data that does not shrink is stored as it is, and no compressed cluster can
 * take its place later: what the image has uncompressed is written so again.
 */
#include <errno.h>

#include "control.h"

static const struct by_api *api;

/* A write goes piece by piece, each as long as the image answers alike. */
struct by_writing {
    struct by_frame frame;
    struct by_node *node;
    struct by_request *req;
    struct by_request inner;
    struct by_block_status status;
    uint64_t at, end;           /* what is left of the request */
    bool asked;
};

static void advance(struct by_request *inner, int result);

static int send(struct by_writing *w, uint8_t op, uint64_t bytes)
{
    const struct by_request *req = w->req;

    w->inner = (struct by_request) {
        .size = sizeof(w->inner),
        .op = op,
        .flags = req->flags,
        .offset = w->at,
        .bytes = bytes,
        .iov = req->iov,
        .niov = req->niov,
        .iov_skip = req->iov_skip + (w->at - req->offset),
        .loop = req->loop,
        .done = advance,
        .owner = w,
    };
    if (op == BY_OP_BLOCK_STATUS) {
        w->inner.u.status = &w->status;
        w->inner.flags = 0;
    }
    return api->submit(w->node->children[0], &w->inner);
}

static int ask(struct by_writing *w)
{
    w->asked = true;
    w->status = (struct by_block_status) {
        .size = sizeof(w->status), .layers = 1,
    };
    return send(w, BY_OP_BLOCK_STATUS, w->end - w->at);
}

/* Compressed clusters cannot take the place of others (QEMU fails there). */
static int write_piece(struct by_writing *w)
{
    bool has_cluster = (w->status.flags & BY_STATUS_ALLOCATED)
        && (w->status.flags & BY_STATUS_OFFSET
            || !(w->status.flags & BY_STATUS_ZERO));

    w->asked = false;
    w->req->flags |= BY_REQ_COMPRESSED;
    if (has_cluster && !(w->status.flags & BY_STATUS_COMPRESSED)) {
        w->req->flags &= ~BY_REQ_COMPRESSED;
    }
    return send(w, BY_OP_WRITE, w->status.bytes);
}

static int go_on(struct by_writing *w, int result)
{
    while (result == 0) {
        if (w->asked) {
            result = write_piece(w);
        } else {
            w->at += w->inner.bytes;
            if (w->at == w->end) {
                return 0;
            }
            result = ask(w);
        }
    }
    return result;
}

static void advance(struct by_request *inner, int result)
{
    struct by_writing *w = inner->owner;

    result = go_on(w, result);
    if (result != BY_PENDING) {
        api->complete(w->req, result);
    }
}

static int written(struct by_request *req, struct by_frame *frame, int result)
{
    (void)req;
    (void)frame;
    return result;
}

static int write_all(struct by_node *node, struct by_request *req)
{
    struct by_writing *w;
    int result;

    if (!req->bytes) {
        return 0;
    }
    w = (struct by_writing *)api->frame_push(req, sizeof(*w), written);
    if (!w) {
        return -ENOMEM;
    }
    w->node = node;
    w->req = req;
    w->at = req->offset;
    w->end = req->offset + req->bytes;
    result = go_on(w, ask(w));
    if (result != BY_PENDING) {
        api->frame_pop(req);
    }
    return result;
}

static int submit(struct by_node *node, struct by_request *req)
{
    return req->op == BY_OP_WRITE ? write_all(node, req)
                                  : api->submit(node->children[0], req);
}

static bool debug_event(struct by_node *node, uint32_t event,
                        struct by_task *resume)
{
    return by_debug_stop(node->children[0], event, resume);
}

#define EVERY_FLAG (BY_REQ_FUA | BY_REQ_MAY_UNMAP | BY_REQ_NO_FALLBACK       \
    | BY_REQ_WRITE_UNCHANGED | BY_REQ_COMPRESSED | BY_REQ_REGISTERED         \
    | BY_REQ_STABLE)

/* Not COPY_RANGE: what is copied so is not compressed. */
static const struct by_node_ops ops = {
    .size = sizeof(ops),
    .abi = BY_ABI_VERSION,
    .name = "compress",
    .capabilities = BY_CAP_ANY_LOOP | BY_CAP_FILTER | BY_CAP_ZERO_NEW
        | BY_CAP_FAST_ZERO,
    .serves = BY_OP_BIT(BY_OP_READ) | BY_OP_BIT(BY_OP_WRITE)
        | BY_OP_BIT(BY_OP_FLUSH) | BY_OP_BIT(BY_OP_DISCARD)
        | BY_OP_BIT(BY_OP_WRITE_ZEROES) | BY_OP_BIT(BY_OP_TRUNCATE)
        | BY_OP_BIT(BY_OP_PREFETCH),
    .flags = {
        [BY_OP_READ] = EVERY_FLAG,
        [BY_OP_WRITE] = EVERY_FLAG,
        [BY_OP_WRITE_ZEROES] = EVERY_FLAG,
        [BY_OP_DISCARD] = EVERY_FLAG,
    },
    .submit = submit,
    .debug_event = debug_event,
};

uintptr_t by_compress_ops(void)
{
    return (uintptr_t)&ops;
}

int by_compress_init(uintptr_t address)
{
    const struct by_api *table = (const struct by_api *)address;

    if (!table || table->abi != BY_ABI_VERSION
        || table->size < sizeof(*table)) {
        return -EPROTO;
    }
    api = table;
    return 0;
}
