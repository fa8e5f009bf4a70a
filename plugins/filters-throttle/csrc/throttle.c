/* SPDX-License-Identifier: Apache-2.0 */
/*
 * throttle.c - the filter: what moves data waits for its turn, the rest and
 * what nothing limits goes on as it is.
 */
#include <errno.h>
#include <stdlib.h>

#include "throttle.h"

const struct by_api *by_throttle_api;

static int submit(struct by_node *node, struct by_request *req)
{
    bool write = req->op != BY_OP_READ;

    switch (req->op) {
    case BY_OP_READ:
    case BY_OP_WRITE:
    case BY_OP_WRITE_ZEROES:
    case BY_OP_DISCARD:
        if (by_throttle_limits_now(node->state, write)) {
            return by_throttle_pass(node, req, write);
        }
        break;
    }
    return by_throttle_api->submit(node->children[0], req);
}

static void drain_begin(struct by_node *node)
{
    by_throttle_drain(node->state, true);
}

static void drain_end(struct by_node *node)
{
    by_throttle_drain(node->state, false);
}

static bool debug_event(struct by_node *node, uint32_t event,
                        struct by_task *resume)
{
    return by_debug_stop(node->children[0], event, resume);
}

#define EVERY_FLAG (BY_REQ_FUA | BY_REQ_MAY_UNMAP | BY_REQ_NO_FALLBACK       \
    | BY_REQ_WRITE_UNCHANGED | BY_REQ_COMPRESSED | BY_REQ_REGISTERED         \
    | BY_REQ_STABLE)

/* Not COPY_RANGE: what is copied by the kernel would move unseen. */
static const struct by_node_ops ops = {
    .size = sizeof(ops),
    .abi = BY_ABI_VERSION,
    .name = "throttle",
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
    .drain_begin = drain_begin,
    .drain_end = drain_end,
    .debug_event = debug_event,
};

uintptr_t by_throttle_ops(void)
{
    return (uintptr_t)&ops;
}

int by_throttle_init(uintptr_t address)
{
    const struct by_api *table = (const struct by_api *)address;

    if (!table || table->abi != BY_ABI_VERSION
        || table->size < sizeof(*table)) {
        return -EPROTO;
    }
    by_throttle_api = table;
    return 0;
}

struct by_throttle *by_throttle_create(struct by_throttle_group *group)
{
    struct by_throttle *throttle = calloc(1, sizeof(*throttle));

    if (throttle) {
        throttle->group = group;
        throttle->end[0] = &throttle->first[0];
        throttle->end[1] = &throttle->first[1];
    }
    return throttle;
}

void by_throttle_move(struct by_throttle *throttle,
                      struct by_throttle_group *group)
{
    throttle->group = group;
}

void by_throttle_free(struct by_throttle *throttle)
{
    free(throttle);
}
