/* SPDX-License-Identifier: Apache-2.0 */
/*
 * verify.c - blkverify: reads and writes go to a disk under test and to a raw
 * copy, and what is read must be the same.
 *
 * Child 0 is the raw copy, child 1 the disk under test, whose data the reader
 * gets.  A difference is reported and fails the request; others go on.
 *
 * One request runs at a time: what overlaps would reach the two disks in
 * different orders, and they would differ without a fault.
 */
#include <errno.h>
#include <string.h>

#include "debug.h"

enum { RAW, TEST, BOTH };

struct by_verifying {
    struct by_frame frame;
    struct by_node *node;
    struct by_request *req;
    struct by_verifying *next;  /* that waits */
    struct by_request subs[BOTH];
    int results[BOTH];
    uint32_t running;
    char *copy;                 /* READ: what the raw disk has */
    struct iovec iov;
};

static struct by_blkverify *state_of(const struct by_verifying *v)
{
    return v->node->state;
}

static void report(const struct by_verifying *v, uint32_t kind, uint64_t at)
{
    const struct by_event event = {
        .tag = state_of(v)->tag, .kind = kind,
        .a = v->req->offset, .b = v->req->bytes, .result = (int32_t)at,
    };

    by_debug_api->event(&event);
}

/* Where the payload differs from the copy; its length: nowhere. */
static uint64_t difference(const struct by_verifying *v)
{
    const struct by_request *req = v->req;
    uint64_t skip = req->iov_skip, at = 0;

    for (uint32_t i = 0; i < req->niov && at < req->bytes; i++) {
        const char *payload = (const char *)req->iov[i].iov_base + skip;
        uint64_t len = req->iov[i].iov_len;

        if (skip >= len) {
            skip -= len;
            continue;
        }
        len -= skip;
        len = len < req->bytes - at ? len : req->bytes - at;
        skip = 0;
        if (memcmp(payload, v->copy + at, len)) {
            while (*payload++ == v->copy[at]) {
                at++;
            }
            return at;
        }
        at += len;
    }
    return req->bytes;
}

/* Both have ended. */
static int outcome(struct by_verifying *v)
{
    bool reads = v->req->op == BY_OP_READ;
    int result = v->results[TEST];
    uint64_t at;

    if (result != v->results[RAW]) {
        report(v, reads ? BY_BLKVERIFY_READ_RESULT : BY_BLKVERIFY_WRITE_RESULT,
               0);
        return -EIO;
    }
    if (result == 0 && reads) {
        at = difference(v);
        if (at < v->req->bytes) {
            report(v, BY_BLKVERIFY_CONTENT, at);
            result = -EIO;
        }
    }
    return result;
}

static void drop(struct by_verifying *v)
{
    if (v->copy) {
        by_debug_api->buffer_put(v->req->loop, v->copy, v->req->bytes);
        v->copy = NULL;
    }
}

static int verifying_done(struct by_request *req, struct by_frame *frame,
                          int result)
{
    (void)req;
    drop((struct by_verifying *)frame);
    return result;
}

static int begin(struct by_verifying *v);

/* A request has ended; those that wait have their turns. */
static void end(struct by_verifying *v, int result)
{
    struct by_blkverify *state = state_of(v);

    by_debug_api->complete(v->req, result);
    while ((v = state->first)) {
        state->first = v->next;
        result = begin(v);
        if (result == BY_PENDING) {
            return;
        }
        by_debug_api->complete(v->req, result);
    }
    state->busy = false;
}

static void ended(struct by_request *sub, int result)
{
    struct by_verifying *v = sub->owner;

    v->results[sub == &v->subs[TEST] ? TEST : RAW] = result;
    if (--v->running == 0) {
        end(v, outcome(v));
    }
}

static void start(struct by_verifying *v, int which)
{
    struct by_request *sub = &v->subs[which];
    int result;

    *sub = *v->req;
    sub->frame = NULL;
    sub->done = ended;
    sub->owner = v;
    if (which == RAW && v->copy) {
        sub->iov = &v->iov;
        sub->niov = 1;
        sub->iov_skip = 0;
        sub->flags &= ~BY_REQ_REGISTERED;
    }
    v->running++;
    result = by_debug_api->submit(v->node->children[which], sub);
    if (result != BY_PENDING) {
        v->results[which] = result;
        v->running--;
    }
}

static int begin(struct by_verifying *v)
{
    v->running = 1; /* neither ends it while both are started */
    start(v, RAW);
    start(v, TEST);
    return --v->running ? BY_PENDING : outcome(v);
}

static void wait_for_turn(struct by_verifying *v)
{
    struct by_blkverify *state = state_of(v);

    v->next = NULL;
    if (state->first) {
        ((struct by_verifying *)state->last)->next = v;
    } else {
        state->first = v;
    }
    state->last = v;
}

static int both(struct by_node *node, struct by_request *req)
{
    struct by_verifying *v = (struct by_verifying *)
        by_debug_api->frame_push(req, sizeof(*v), verifying_done);
    int result;

    if (!v) {
        return -ENOMEM;
    }
    v->node = node;
    v->req = req;
    v->copy = NULL;
    if (req->op == BY_OP_READ) {
        v->copy = by_debug_api->buffer_get(req->loop, req->bytes);
        if (!v->copy) {
            by_debug_api->frame_pop(req);
            return -ENOMEM;
        }
        v->iov = (struct iovec) { v->copy, req->bytes };
    }
    if (state_of(v)->busy) {
        wait_for_turn(v);
        return BY_PENDING;
    }
    state_of(v)->busy = true;
    result = begin(v);
    if (result == BY_PENDING) {
        return BY_PENDING;
    }
    state_of(v)->busy = false;
    drop(v);
    by_debug_api->frame_pop(req);
    return result;
}

static int submit(struct by_node *node, struct by_request *req)
{
    switch (req->op) {
    case BY_OP_READ:
    case BY_OP_WRITE:
        return both(node, req);
    case BY_OP_FLUSH:
        return by_debug_api->submit(node->children[TEST], req);
    default: /* BLOCK_STATUS */
        return by_debug_api->submit(node->children[RAW], req);
    }
}

static const struct by_node_ops ops = {
    .size = sizeof(ops),
    .abi = BY_ABI_VERSION,
    .name = "blkverify",
    .capabilities = BY_CAP_FILTER | BY_CAP_REPEATS_READS,
    .serves = BY_OP_BIT(BY_OP_READ) | BY_OP_BIT(BY_OP_WRITE)
        | BY_OP_BIT(BY_OP_FLUSH) | BY_OP_BIT(BY_OP_BLOCK_STATUS),
    .submit = submit,
};

uintptr_t by_blkverify_ops(void)
{
    return (uintptr_t)&ops;
}
