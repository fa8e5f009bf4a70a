/* SPDX-License-Identifier: Apache-2.0 */
/*
 * null.c - a disk that forgets what is written and answers when it is told to.
 *
 * Reads always fill the buffer with zeroes, with read-zeroes or without: a
 * buffer holds what another client has read before, and that is nobody's
 * business.  It costs a memset, which is nothing beside sending the bytes.
 * What read-zeroes adds is the promise, in block status.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "control.h"

struct by_null {
    struct by_null_settings settings;
};

/* One request that is made to wait. */
struct by_null_wait {
    struct by_io timer;
    struct by_request *req;
};

static const struct by_api *api;

static void clear(const struct by_request *req)
{
    uint64_t skip = req->iov_skip, left = req->bytes;

    for (uint32_t i = 0; i < req->niov && left; i++) {
        uint64_t len = req->iov[i].iov_len;

        if (skip >= len) {
            skip -= len;
            continue;
        }
        len = len - skip < left ? len - skip : left;
        memset((char *)req->iov[i].iov_base + skip, 0, len);
        left -= len;
        skip = 0;
    }
}

static void woken(struct by_io *timer, int result)
{
    struct by_null_wait *wait = timer->owner;
    struct by_request *req = wait->req;

    (void)result;
    api->slab_put(req->loop, wait, sizeof(*wait));
    api->complete(req, 0);
}

static uint64_t later(uint64_t now, uint64_t ns)
{
    return ns > INT64_MAX - now ? INT64_MAX : now + ns;
}

static int wait_for(uint64_t ns, struct by_request *req)
{
    struct by_null_wait *wait = api->slab_get(req->loop, sizeof(*wait));

    if (!wait) {
        return -ENOMEM;
    }
    memset(wait, 0, sizeof(*wait));
    wait->req = req;
    wait->timer.size = sizeof(wait->timer);
    wait->timer.op = BY_IO_TIMER;
    wait->timer.offset = later(api->loop_now(req->loop), ns);
    wait->timer.done = woken;
    wait->timer.owner = wait;
    api->io_submit(req->loop, &wait->timer);
    return BY_PENDING;
}

static int status(struct by_node *node, struct by_request *req)
{
    const struct by_null *null = node->state;
    struct by_block_status *answer = req->u.status;

    answer->flags = BY_STATUS_OFFSET;
    if (null->settings.read_zeroes) {
        answer->flags |= BY_STATUS_ZERO | BY_STATUS_ALLOCATED;
    }
    answer->bytes = req->bytes;
    answer->host_offset = req->offset;
    answer->owner = node;
    answer->depth = 0;
    return 0;
}

static int submit(struct by_node *node, struct by_request *req)
{
    const struct by_null *null = node->state;

    if (req->op == BY_OP_BLOCK_STATUS) {
        return status(node, req);
    }
    if (req->op == BY_OP_READ) {
        clear(req);
    }
    return null->settings.latency_ns
        ? wait_for(null->settings.latency_ns, req) : 0;
}

#define COMMON .size = sizeof(struct by_node_ops), .abi = BY_ABI_VERSION,    \
    .capabilities = BY_CAP_ANY_LOOP, .submit = submit,                       \
    .serves = BY_OP_BIT(BY_OP_READ) | BY_OP_BIT(BY_OP_WRITE)                 \
        | BY_OP_BIT(BY_OP_FLUSH) | BY_OP_BIT(BY_OP_BLOCK_STATUS),            \
    .flags = { [BY_OP_WRITE] = BY_REQ_FUA }

static const struct by_node_ops co_ops = { COMMON, .name = "null-co" };
static const struct by_node_ops aio_ops = { COMMON, .name = "null-aio" };

uintptr_t by_null_ops(bool aio)
{
    return (uintptr_t)(aio ? &aio_ops : &co_ops);
}

int by_null_init(uintptr_t address)
{
    const struct by_api *table = (const struct by_api *)address;

    if (!table || table->abi != BY_ABI_VERSION
        || table->size < sizeof(*table)) {
        return -EPROTO;
    }
    api = table;
    return 0;
}

struct by_null *by_null_create(const struct by_null_settings *settings)
{
    struct by_null *null = malloc(sizeof(*null));

    if (null) {
        null->settings = *settings;
    }
    return null;
}

void by_null_free(struct by_null *null)
{
    free(null);
}
