/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bencher.c - requests that are sent for their own sake, to see how fast they
 * are: one kind, one size, a fixed number in flight, flushes in between.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "kick.h"

#define STARTS 256              /* before others have their turn on the loop */

struct bench_slot {
    struct by_bencher *bencher;
    struct bench_slot *next;
    struct by_request req;
    struct iovec iov;
};

struct by_bencher {
    struct by_bench_params params;
    struct by_loop *loop;
    uint64_t length, left, offset, began;
    bool flush_due;

    bool canceled;              /* any thread */
    struct by_kick kick;

    int result;
    uint64_t running;
    bool pumping;
    unsigned char *buffer;
    size_t buffer_bytes;
    struct bench_slot *idle;
    struct bench_slot slots[];
};

static void pump(struct by_bencher *b);

static bool is_stopped(const struct by_bencher *b)
{
    return b->result || __atomic_load_n(&b->canceled, __ATOMIC_RELAXED);
}

static void ended(struct bench_slot *slot, int result)
{
    struct by_bencher *b = slot->bencher;

    if (result < 0 && b->result == 0) {
        b->result = result;
    }
    b->running--;
    slot->next = b->idle;
    b->idle = slot;
}

static void request_done(struct by_request *req, int result)
{
    struct bench_slot *slot = req->owner;
    struct by_bencher *b = slot->bencher;

    ended(slot, result);
    pump(b);
}

static void send(struct by_bencher *b, uint8_t op, uint64_t offset,
                 uint64_t bytes)
{
    struct bench_slot *slot = b->idle;
    int result;

    b->idle = slot->next;
    b->running++;
    slot->req = (struct by_request) {
        .size = sizeof(slot->req), .op = op, .offset = offset,
        .bytes = bytes, .loop = b->loop, .done = request_done, .owner = slot,
    };
    if (bytes) {
        slot->iov = (struct iovec) {
            b->buffer + (slot - b->slots) * bytes, bytes,
        };
        slot->req.iov = &slot->iov;
        slot->req.niov = 1;
    }
    result = by_root_submit(b->params.root, &slot->req);
    if (result != BY_PENDING) {
        ended(slot, result);
    }
}

static void send_next(struct by_bencher *b)
{
    uint64_t offset = b->offset;

    b->left--;
    b->offset += b->params.step;
    if (b->length) {
        b->offset %= b->length;
    }
    b->flush_due = b->params.flush_interval
        && b->left % b->params.flush_interval == 0;
    send(b, b->params.write ? BY_OP_WRITE : BY_OP_READ, offset,
         b->params.bytes);
}

/* One slot is there for the flush alone. */
static bool advance(struct by_bencher *b)
{
    if (is_stopped(b) || !b->idle) {
        return false;
    }
    if (b->flush_due) {
        if (b->running && !b->params.no_drain) {
            return false;
        }
        b->flush_due = false;
        send(b, BY_OP_FLUSH, 0, 0);
        return true;
    }
    if (!b->left || b->running >= b->params.depth) {
        return false;
    }
    send_next(b);
    return true;
}

static void end(struct by_bencher *b)
{
    uint64_t tag = b->params.tag, took = by_clock() - b->began;
    int result = b->result;

    if (!result && __atomic_load_n(&b->canceled, __ATOMIC_RELAXED)) {
        result = -ECANCELED;
    }
    if (by_kick_end(&b->kick)) {
        by_buffer_put(b->loop, b->buffer, b->buffer_bytes);
        by_report(tag, BY_EVENT_DONE, result, took, 0);
    }
}

static void pump(struct by_bencher *b)
{
    int left = STARTS;

    if (b->pumping) {
        return;
    }
    b->pumping = true;
    while (left && advance(b)) {
        left--;
    }
    b->pumping = false;
    if (!left) {
        by_kick_send(&b->kick);
    } else if (!b->running
               && (is_stopped(b) || !(b->left || b->flush_due))) {
        end(b);
    }
}

static void kicked(void *owner)
{
    struct by_bencher *b = owner;

    if (!b->buffer && !b->result) {
        b->buffer = by_buffer_get(b->loop, b->buffer_bytes);
        if (b->buffer) {
            memset(b->buffer, b->params.pattern, b->buffer_bytes);
        } else {
            b->result = -ENOMEM;
        }
        b->began = by_clock();
    }
    pump(b);
}

struct by_bencher *by_bencher_start(const struct by_bench_params *params)
{
    uint64_t depth = params->depth < params->count ? params->depth
                                                   : params->count;
    struct by_bencher *b;

    if (!depth || depth > INT32_MAX || params->bytes > INT32_MAX) {
        return NULL;
    }
    b = calloc(1, sizeof(*b) + (depth + 1) * sizeof(b->slots[0]));
    if (!b) {
        return NULL;
    }
    b->params = *params;
    b->params.depth = depth;
    b->loop = by_root_node(params->root)->home;
    b->length = by_root_length(params->root);
    b->left = params->count;
    b->offset = params->offset;
    b->buffer_bytes = (depth + 1) * params->bytes;
    by_kick_init(&b->kick, b->loop, kicked, b);
    for (uint64_t i = depth + 1; i--; ) {
        b->slots[i].bencher = b;
        b->slots[i].next = b->idle;
        b->idle = &b->slots[i];
    }
    by_kick_send(&b->kick);
    return b;
}

void by_bencher_cancel(struct by_bencher *b)
{
    __atomic_store_n(&b->canceled, true, __ATOMIC_RELAXED);
    by_kick_send(&b->kick);
}

void by_bencher_free(struct by_bencher *b)
{
    by_kick_destroy(&b->kick);
    free(b);
}
