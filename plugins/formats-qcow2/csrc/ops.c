/* SPDX-License-Identifier: Apache-2.0 */
/* ops.c - the driver's operations, each of which has a file of its own. */
#include <errno.h>

#include "requests.h"

const struct by_api *q2_api;

/* ----------------------------------------------------------------- flush */

struct q2_flushing {
    struct by_frame frame;
    struct by_request *req;
    struct q2_chore chore;
};

static void flushed(struct by_task *task)
{
    struct q2_flushing *f = task->owner;

    q2_api->complete(f->req, f->chore.result);
}

static int flushing_done(struct by_request *req, struct by_frame *frame,
                         int result)
{
    (void)req;
    (void)frame;
    return result;
}

/* Tables are the keeper's; where none changed, only the file is flushed. */
static int flush(struct by_qcow2 *q, struct by_request *req)
{
    struct q2_flushing *f;
    bool tables;

    q2_event(q, BY_DEBUG_FLUSH_TO_OS);
    pthread_mutex_lock(&q->lock);
    tables = q2_flush_needed(q) || q->data != q->file;
    pthread_mutex_unlock(&q->lock);
    if (!tables) {
        q2_event(q, BY_DEBUG_FLUSH_TO_DISK);
        return q2_api->submit(q->file, req);
    }
    f = (struct q2_flushing *)q2_api->frame_push(req, sizeof(*f),
                                                 flushing_done);
    if (!f) {
        return -ENOMEM;
    }
    f->req = req;
    f->chore.run = q2_flush_chore;
    f->chore.wait = (struct q2_wait) {
        .loop = req->loop, .task = { .run = flushed, .owner = f },
    };
    q2_chore_add(q, &f->chore);
    return BY_PENDING;
}

/* ------------------------------------------------------------- the table */

static int submit(struct by_node *node, struct by_request *req)
{
    struct by_qcow2 *q = node->state;

    switch (req->op) {
    case BY_OP_READ:
        return q2_read(q, req);
    case BY_OP_WRITE:
        return q2_write(q, req);
    case BY_OP_WRITE_ZEROES:
        return q2_write_zeroes(q, req);
    case BY_OP_DISCARD:
        return q2_discard(q, req);
    case BY_OP_FLUSH:
        return flush(q, req);
    case BY_OP_TRUNCATE:
        return q2_truncate(q, req);
    case BY_OP_BLOCK_STATUS:
        return q2_status(q, req);
    default:
        return -ENOTSUP;
    }
}

static const struct by_node_ops ops = {
    .size = sizeof(ops),
    .abi = BY_ABI_VERSION,
    .name = "qcow2",
    .capabilities = BY_CAP_ANY_LOOP | BY_CAP_ZERO_NEW | BY_CAP_FAST_ZERO,
    .serves = BY_OP_BIT(BY_OP_READ) | BY_OP_BIT(BY_OP_WRITE)
        | BY_OP_BIT(BY_OP_FLUSH) | BY_OP_BIT(BY_OP_DISCARD)
        | BY_OP_BIT(BY_OP_WRITE_ZEROES) | BY_OP_BIT(BY_OP_TRUNCATE)
        | BY_OP_BIT(BY_OP_BLOCK_STATUS),
    .flags = {
        [BY_OP_READ] = BY_REQ_REGISTERED,
        [BY_OP_WRITE] = BY_REQ_REGISTERED | BY_REQ_STABLE | BY_REQ_COMPRESSED
            | BY_REQ_WRITE_UNCHANGED,
        [BY_OP_WRITE_ZEROES] = BY_REQ_MAY_UNMAP | BY_REQ_NO_FALLBACK
            | BY_REQ_WRITE_UNCHANGED,
    },
    .submit = submit,
};

uintptr_t by_qcow2_ops(void)
{
    return (uintptr_t)&ops;
}

int by_qcow2_init(uintptr_t api)
{
    const struct by_api *table = (const struct by_api *)api;

    if (table->abi != BY_ABI_VERSION || table->size < sizeof(*table)) {
        return -EPROTO;
    }
    q2_api = table;
    return 0;
}
