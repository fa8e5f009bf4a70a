/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cor.c - the filter: reads copy, what changes data keeps clear of copies, and
 * the rest goes on as it is.
 */
#include <errno.h>
#include <stdlib.h>

#include "cor.h"

const struct by_api *by_cor_api;

/* A change that must not meet a copy. */
struct by_change {
    struct by_frame frame;
    struct by_cor *cor;
    struct by_node *node;
    struct by_request *req;
    struct by_claim claim;
};

static int change_done(struct by_request *req, struct by_frame *frame,
                       int result)
{
    struct by_change *change = (struct by_change *)frame;

    (void)req;
    by_cor_unclaim(change->cor, &change->claim);
    return result;
}

static void granted(struct by_task *task)
{
    struct by_change *change = task->owner;
    struct by_request *req = change->req;
    int result = by_cor_api->submit(change->node->children[0], req);

    if (result != BY_PENDING) {
        by_cor_api->complete(req, result);
    }
}

static int change(struct by_node *node, struct by_request *req)
{
    struct by_change *change = (struct by_change *)
        by_cor_api->frame_push(req, sizeof(*change), change_done);
    bool truncates = req->op == BY_OP_TRUNCATE;
    uint64_t to = req->offset + req->bytes;
    int result;

    if (!change) {
        return -ENOMEM;
    }
    change->cor = node->state;
    change->node = node;
    change->req = req;
    change->claim.loop = req->loop;
    change->claim.granted = (struct by_task) { NULL, granted, change };
    if (!by_cor_claim(change->cor, &change->claim,
                      truncates ? 0 : req->offset,
                      truncates ? UINT64_MAX : to, false)) {
        return BY_PENDING;
    }
    result = by_cor_api->submit(node->children[0], req);
    if (result != BY_PENDING) {
        result = change_done(req, &change->frame, result);
        by_cor_api->frame_pop(req);
    }
    return result;
}

static int submit(struct by_node *node, struct by_request *req)
{
    switch (req->op) {
    case BY_OP_READ:
    case BY_OP_PREFETCH:
        return by_cor_read(node, req);
    case BY_OP_WRITE:
    case BY_OP_WRITE_ZEROES:
    case BY_OP_DISCARD:
    case BY_OP_TRUNCATE:
        return change(node, req);
    default:
        return by_cor_api->submit(node->children[0], req);
    }
}

static bool debug_event(struct by_node *node, uint32_t event,
                        struct by_task *resume)
{
    return by_debug_stop(node->children[0], event, resume);
}

#define EVERY_FLAG (BY_REQ_FUA | BY_REQ_MAY_UNMAP | BY_REQ_NO_FALLBACK       \
    | BY_REQ_WRITE_UNCHANGED | BY_REQ_COMPRESSED | BY_REQ_REGISTERED         \
    | BY_REQ_STABLE)

/* Not COPY_RANGE: it would read past the copying. */
static const struct by_node_ops ops = {
    .size = sizeof(ops),
    .abi = BY_ABI_VERSION,
    .name = "copy-on-read",
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

uintptr_t by_cor_ops(void)
{
    return (uintptr_t)&ops;
}

int by_cor_init(uintptr_t address)
{
    const struct by_api *table = (const struct by_api *)address;

    if (!table || table->abi != BY_ABI_VERSION
        || table->size < sizeof(*table)) {
        return -EPROTO;
    }
    by_cor_api = table;
    return 0;
}

struct by_cor *by_cor_create(void)
{
    struct by_cor *cor = calloc(1, sizeof(*cor));

    if (cor) {
        cor->cluster = 1;
        cor->claims_end = &cor->claims;
        pthread_mutex_init(&cor->lock, NULL);
    }
    return cor;
}

void by_cor_set(struct by_cor *cor, uint64_t cluster, uint32_t layers)
{
    cor->cluster = cluster;
    cor->layers = layers;
}

void by_cor_free(struct by_cor *cor)
{
    pthread_mutex_destroy(&cor->lock);
    free(cor);
}
