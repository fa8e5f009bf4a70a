/* SPDX-License-Identifier: Apache-2.0 */
/*
 * read.c - a read that leaves behind what it has read from further down.
 *
 * It goes piece by piece, each as long as the image below answers alike.  What
 * the image has, or what is not to be copied, is read as it is.  The rest is
 * read by whole clusters into a buffer, written back there, and handed out of
 * the buffer.  Between reading and writing nobody else changes the clusters: a
 * claim keeps those away who come through this node, and after it is held the
 * image is asked once more, because somebody may have come before.
 */
#include <errno.h>
#include <string.h>

#include "cor.h"

#define LARGEST (1u << 20)  /* copied at a time, unless a cluster is larger */

enum step { ASK, DIRECT, ASK_AGAIN, FETCH, STORE };

struct by_copying {
    struct by_frame frame;
    struct by_cor *cor;
    struct by_node *node;
    struct by_request *req;
    struct by_request inner;
    struct by_block_status status;
    struct by_claim claim;
    enum step step;
    uint64_t at, end;           /* what is left of the request */
    uint64_t piece;             /* bytes of it in this step */
    uint64_t from, to;          /* the clusters */
    char *buffer;
    struct iovec iov;
};

static void advance(struct by_copying *c, int result);

static void inner_done(struct by_request *inner, int result)
{
    advance(inner->owner, result);
}

static int send(struct by_copying *c, uint8_t op, uint64_t from, uint64_t to)
{
    c->inner = (struct by_request) {
        .size = sizeof(c->inner),
        .op = op,
        .offset = from,
        .bytes = to - from,
        .loop = c->req->loop,
        .done = inner_done,
        .owner = c,
    };
    if (op == BY_OP_BLOCK_STATUS) {
        c->inner.u.status = &c->status;
    } else if (op != BY_OP_WRITE_ZEROES) {
        c->inner.iov = &c->iov;
        c->inner.niov = 1;
    }
    if (op == BY_OP_WRITE || op == BY_OP_WRITE_ZEROES) {
        c->inner.flags = BY_REQ_WRITE_UNCHANGED | BY_REQ_STABLE;
    }
    return by_cor_api->submit(c->node->children[0], &c->inner);
}

static int ask(struct by_copying *c, enum step step, uint64_t from,
               uint64_t to)
{
    c->step = step;
    c->status = (struct by_block_status) {
        .size = sizeof(c->status),
        .precise = true,
        .layers = c->cor->layers ? c->cor->layers : 1,
    };
    return send(c, BY_OP_BLOCK_STATUS, from, to);
}

/* Is what was asked about to be copied?  What is not in the layers that count
 * is not, and without a bottom whatever the image itself has not, is. */
static bool to_be_copied(const struct by_copying *c)
{
    bool allocated = c->status.flags & BY_STATUS_ALLOCATED;

    return c->cor->layers ? allocated && c->status.depth > 0 : !allocated;
}

static bool prefetches(const struct by_copying *c)
{
    return c->req->op == BY_OP_PREFETCH;
}

static int read_direct(struct by_copying *c)
{
    const struct by_request *req = c->req;

    c->step = DIRECT;
    if (prefetches(c)) {
        return 0;
    }
    c->inner = (struct by_request) {
        .size = sizeof(c->inner),
        .op = BY_OP_READ,
        .flags = req->flags & BY_REQ_REGISTERED,
        .offset = c->at,
        .bytes = c->piece,
        .iov = req->iov,
        .niov = req->niov,
        .iov_skip = req->iov_skip + (c->at - req->offset),
        .loop = req->loop,
        .done = inner_done,
        .owner = c,
    };
    return by_cor_api->submit(c->node->children[0], &c->inner);
}

static void choose_clusters(struct by_copying *c)
{
    uint64_t mask = c->cor->cluster - 1;
    uint64_t most = c->cor->cluster > LARGEST ? c->cor->cluster : LARGEST;
    uint64_t length = by_node_length(c->node->children[0]);

    c->from = c->at & ~mask;
    c->to = (c->at + c->piece + mask) & ~mask;
    c->to = c->to - c->from > most ? c->from + most : c->to;
    c->to = c->to > length ? length : c->to;
    if (c->at + c->piece > c->to) {
        c->piece = c->to - c->at;
    }
}

static int claim_clusters(struct by_copying *c)
{
    choose_clusters(c);
    c->step = ASK_AGAIN;
    c->claim.loop = c->req->loop;
    if (!by_cor_claim(c->cor, &c->claim, c->from, c->to, true)) {
        return BY_PENDING;
    }
    return ask(c, ASK_AGAIN, c->at, c->at + c->piece);
}

static void granted(struct by_task *task)
{
    struct by_copying *c = task->owner;
    int result = ask(c, ASK_AGAIN, c->at, c->at + c->piece);

    if (result != BY_PENDING) {
        advance(c, result);
    }
}

/* The second answer may have been a shorter one. */
static void shrink_clusters(struct by_copying *c)
{
    uint64_t mask = c->cor->cluster - 1;
    uint64_t to = (c->at + c->piece + mask) & ~mask;

    c->to = to < c->to ? to : c->to;
}

static int fetch(struct by_copying *c)
{
    c->step = FETCH;
    c->buffer = by_cor_api->buffer_get(c->req->loop, c->to - c->from);
    if (!c->buffer) {
        return -ENOMEM;
    }
    c->iov = (struct iovec) { c->buffer, c->to - c->from };
    return send(c, BY_OP_READ, c->from, c->to);
}

static int store(struct by_copying *c)
{
    c->step = STORE;
    by_debug_event(c->node->children[0], BY_DEBUG_COR_WRITE);
    return send(c, by_cor_api->is_zero(c->buffer, c->to - c->from)
                ? BY_OP_WRITE_ZEROES : BY_OP_WRITE, c->from, c->to);
}

static void hand_out(struct by_copying *c)
{
    const struct by_request *req = c->req;
    const char *from = c->buffer + (c->at - c->from);
    uint64_t skip = req->iov_skip + (c->at - req->offset), left = c->piece;

    for (uint32_t i = 0; i < req->niov && left && !prefetches(c); i++) {
        uint64_t len = req->iov[i].iov_len;

        if (skip >= len) {
            skip -= len;
            continue;
        }
        len = len - skip < left ? len - skip : left;
        memcpy((char *)req->iov[i].iov_base + skip, from, len);
        from += len;
        left -= len;
        skip = 0;
    }
}

static void let_go(struct by_copying *c)
{
    if (c->buffer) {
        by_cor_api->buffer_put(c->req->loop, c->buffer, c->to - c->from);
        c->buffer = NULL;
    }
    by_cor_unclaim(c->cor, &c->claim);
}

static int next_piece(struct by_copying *c)
{
    c->at += c->piece;
    return c->at == c->end ? 0 : ask(c, ASK, c->at, c->end);
}

/* The step that follows one that has ended well. */
static int next_step(struct by_copying *c)
{
    switch (c->step) {
    case ASK:
        c->piece = c->status.bytes;
        return to_be_copied(c) ? claim_clusters(c) : read_direct(c);
    case ASK_AGAIN:
        c->piece = c->status.bytes;
        if (to_be_copied(c)) {
            shrink_clusters(c);
            return fetch(c);
        }
        let_go(c);
        return read_direct(c);
    case FETCH:
        return store(c);
    case STORE:
        hand_out(c);
        let_go(c);
        return next_piece(c);
    default:
        return next_piece(c);
    }
}

static bool ended(const struct by_copying *c)
{
    return c->at == c->end;
}

/* One step after the other, until one is pending, fails or is the last. */
static int go_on(struct by_copying *c, int result)
{
    while (result == 0 && !ended(c)) {
        result = next_step(c);
    }
    if (result < 0 && (c->step == FETCH || c->step == STORE
                       || c->step == ASK_AGAIN)) {
        let_go(c);
    }
    return result;
}

static void advance(struct by_copying *c, int result)
{
    result = go_on(c, result);
    if (result != BY_PENDING) {
        by_cor_api->complete(c->req, result);
    }
}

static int copying_done(struct by_request *req, struct by_frame *frame,
                        int result)
{
    (void)req;
    (void)frame;
    return result;
}

int by_cor_read(struct by_node *node, struct by_request *req)
{
    struct by_copying *c;
    int result;

    if (!req->bytes) {
        return 0;
    }
    c = (struct by_copying *)
        by_cor_api->frame_push(req, sizeof(*c), copying_done);
    if (!c) {
        return -ENOMEM;
    }
    c->cor = node->state;
    c->node = node;
    c->req = req;
    c->at = req->offset;
    c->end = req->offset + req->bytes;
    c->buffer = NULL;
    c->claim.granted = (struct by_task) { .run = granted, .owner = c };
    result = go_on(c, ask(c, ASK, c->at, c->end));
    if (result != BY_PENDING) {
        by_cor_api->frame_pop(req);
    }
    return result;
}
