/* SPDX-License-Identifier: Apache-2.0 */
/*
 * preallocate.c - a file that grows in large steps.
 *
 * A write that goes past the file's end first has zeroes written from there
 * on, as far as the options say, if the file can do that without writing
 * data.  They are serialising in the file's node, so that whatever overlaps
 * them waits there; the write itself is the first of those.  What is behind
 * the data reads as zeroes therefore, and growing the data by a truncation
 * within it costs nothing.
 *
 * All of it runs on the node's home loop (no BY_CAP_ANY_LOOP), so the ends
 * need no lock; the control thread touches them only when nothing runs.
 */
#include <errno.h>
#include <stdlib.h>

#include "control.h"

static const struct by_api *api;

struct by_preallocate {
    uint64_t size, align;
    bool active;
    uint64_t data_end;          /* what was written, or truncated to */
    uint64_t file_end;          /* with what is preallocated */
};

struct by_growing {
    struct by_frame frame;
    struct by_preallocate *p;
    struct by_node *node;
    struct by_request *req;
    struct by_request zeroes;
    uint64_t from;              /* where the file ended */
};

static int forward(struct by_node *node, struct by_request *req)
{
    return api->submit(node->children[0], req);
}

static uint64_t load(const uint64_t *value)
{
    return __atomic_load_n(value, __ATOMIC_RELAXED);
}

/* Where the file is to end when data ends there; no less, if that is far. */
static uint64_t end_for(const struct by_preallocate *p, uint64_t end)
{
    uint64_t size = load(&p->size), align = load(&p->align);
    uint64_t most = INT64_MAX;

    if (end > most || size > most - end) {
        return end;
    }
    end += size;
    return end % align && align - end % align <= most - end
        ? end + (align - end % align) : end;
}

static int grown(struct by_growing *g, int result);

static void zeroes_done(struct by_request *zeroes, int result)
{
    struct by_growing *g = zeroes->owner;

    result = grown(g, result);
    if (result != BY_PENDING) {
        api->complete(g->req, result);
    }
}

/* Where zeroes cannot be had cheaply the write goes on without them. */
static int grown(struct by_growing *g, int result)
{
    if (result < 0 && g->p->file_end == g->zeroes.offset + g->zeroes.bytes) {
        uint64_t length = by_node_length(g->node->children[0]);

        g->p->file_end = length > g->from ? length : g->from;
    }
    return forward(g->node, g->req);
}

static int write_done(struct by_request *req, struct by_frame *frame,
                      int result)
{
    struct by_growing *g = (struct by_growing *)frame;
    uint64_t end = req->offset + req->bytes;

    if (result == 0 && end > g->p->file_end) {
        g->p->file_end = end;
    }
    return result;
}

static int grow(struct by_preallocate *p, struct by_node *node,
                struct by_request *req)
{
    struct by_growing *g = (struct by_growing *)
        api->frame_push(req, sizeof(*g), write_done);
    uint64_t end = end_for(p, req->offset + req->bytes);
    int result;

    if (!g) {
        return -ENOMEM;
    }
    g->p = p;
    g->node = node;
    g->req = req;
    g->from = p->file_end;
    g->zeroes = (struct by_request) {
        .size = sizeof(g->zeroes),
        .op = BY_OP_WRITE_ZEROES,
        .flags = BY_REQ_NO_FALLBACK | BY_REQ_SERIALISING,
        .offset = p->file_end,
        .bytes = end - p->file_end,
        .loop = req->loop,
        .done = zeroes_done,
        .owner = g,
    };
    p->file_end = end;
    result = forward(node, &g->zeroes);
    if (result != BY_PENDING) {
        result = grown(g, result);
    }
    if (result != BY_PENDING) {
        result = write_done(req, &g->frame, result);
        api->frame_pop(req);
    }
    return result;
}

static int write(struct by_preallocate *p, struct by_node *node,
                 struct by_request *req)
{
    uint64_t end = req->offset + req->bytes;

    if (end > p->data_end) {
        p->data_end = end;
    }
    return end > p->file_end ? grow(p, node, req) : forward(node, req);
}

static int truncate_done(struct by_request *req, struct by_frame *frame,
                         int result)
{
    struct by_preallocate *p = ((struct by_growing *)frame)->p;

    if (result == 0) {
        p->data_end = p->file_end = req->offset;
    }
    return result;
}

static int set_end(struct by_preallocate *p, struct by_node *node,
                   struct by_request *req)
{
    struct by_growing *g;
    int result;

    if (req->u.truncate.prealloc == BY_PREALLOC_OFF
        && req->offset >= p->data_end && req->offset <= p->file_end) {
        p->data_end = req->offset;
        return 0;
    }
    g = (struct by_growing *)api->frame_push(req, sizeof(*g), truncate_done);
    if (!g) {
        return -ENOMEM;
    }
    g->p = p;
    result = forward(node, req);
    if (result != BY_PENDING) {
        result = truncate_done(req, &g->frame, result);
        api->frame_pop(req);
    }
    return result;
}

static int submit(struct by_node *node, struct by_request *req)
{
    struct by_preallocate *p = node->state;

    if (__atomic_load_n(&p->active, __ATOMIC_ACQUIRE)) {
        switch (req->op) {
        case BY_OP_WRITE:
        case BY_OP_WRITE_ZEROES:
            return write(p, node, req);
        case BY_OP_TRUNCATE:
            return set_end(p, node, req);
        }
    }
    return forward(node, req);
}

static bool debug_event(struct by_node *node, uint32_t event,
                        struct by_task *resume)
{
    return by_debug_stop(node->children[0], event, resume);
}

#define EVERY_FLAG (BY_REQ_FUA | BY_REQ_MAY_UNMAP | BY_REQ_NO_FALLBACK       \
    | BY_REQ_WRITE_UNCHANGED | BY_REQ_COMPRESSED | BY_REQ_REGISTERED         \
    | BY_REQ_STABLE)

/* Not COPY_RANGE, which could write past the end unseen. */
static const struct by_node_ops ops = {
    .size = sizeof(ops),
    .abi = BY_ABI_VERSION,
    .name = "preallocate",
    .capabilities = BY_CAP_FILTER | BY_CAP_ZERO_NEW | BY_CAP_FAST_ZERO,
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

uintptr_t by_preallocate_ops(void)
{
    return (uintptr_t)&ops;
}

int by_preallocate_init(uintptr_t address)
{
    const struct by_api *table = (const struct by_api *)address;

    if (!table || table->abi != BY_ABI_VERSION
        || table->size < sizeof(*table)) {
        return -EPROTO;
    }
    api = table;
    return 0;
}

struct by_preallocate *by_preallocate_create(void)
{
    struct by_preallocate *p = calloc(1, sizeof(*p));

    if (p) {
        p->align = 1;
    }
    return p;
}

void by_preallocate_set(struct by_preallocate *p, uint64_t size,
                        uint64_t align)
{
    __atomic_store_n(&p->size, size, __ATOMIC_RELAXED);
    __atomic_store_n(&p->align, align, __ATOMIC_RELAXED);
}

void by_preallocate_begin(struct by_preallocate *p, uint64_t length)
{
    p->data_end = p->file_end = length;
    __atomic_store_n(&p->active, true, __ATOMIC_RELEASE);
}

bool by_preallocate_end(struct by_preallocate *p, uint64_t *data_end)
{
    bool longer = __atomic_load_n(&p->active, __ATOMIC_ACQUIRE)
        && p->file_end > p->data_end;

    *data_end = p->data_end;
    __atomic_store_n(&p->active, false, __ATOMIC_RELEASE);
    return longer;
}

void by_preallocate_free(struct by_preallocate *p)
{
    free(p);
}
