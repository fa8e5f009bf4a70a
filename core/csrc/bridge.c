/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bridge.c - requests to drivers that are written in Python, and back.
 *
 * A bridge is the native half of one such driver.  submit hangs the request in
 * a queue and signals an eventfd; a Python thread takes requests in batches,
 * serves them, and hands each back by its handle, which is then completed on
 * the loop that submitted it.  No native thread ever waits for Python, and
 * none holds the lock for longer than it takes to move a batch.
 *
 * At most `max_in_flight` requests are with Python at one time; the rest wait
 * in the queue, which costs nothing but the frame that each request has here.
 * A handle names a slot and the slot's generation, so that an answer given
 * twice, or to nothing, is ignored.
 */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "graph.h"

/* One request in the bridge, on the request's own stack of frames. */
struct by_bridged {
    struct by_frame frame;
    struct by_bridge *bridge;
    struct by_node *node;
    struct by_request *req;
    struct by_bridged *next;    /* in the queue */
    void *buffer;               /* contiguous payload; null without one */
    bool bounced;               /* buffer is the loop's, not the submitter's */
    struct by_task task;
    int result;
};

struct by_slot {
    struct by_bridged *held;    /* null: free */
    uint32_t generation;
    uint32_t next_free;
};

struct by_bridge {
    struct by_node_ops ops;
    char name[64];              /* ops.name */
    int fd;
    pthread_mutex_t lock;       /* over what follows */
    struct by_bridged *first, **last;
    uint32_t free_slot;         /* index, or nslots */
    uint32_t nslots;
    bool signalled;             /* the eventfd is up */
    struct by_slot slots[];
};

/* ------------------------------------------------------------- payload */

static bool has_payload(const struct by_request *req)
{
    return (req->op == BY_OP_READ || req->op == BY_OP_WRITE) && req->bytes;
}

static void copy_payload(const struct by_request *req, char *flat, bool out)
{
    uint64_t skip = req->iov_skip, left = req->bytes;

    for (uint32_t i = 0; i < req->niov && left; i++) {
        uint64_t len = req->iov[i].iov_len;
        char *part = (char *)req->iov[i].iov_base + skip;

        if (skip >= len) {
            skip -= len;
            continue;
        }
        len = len - skip < left ? len - skip : left;
        memcpy(out ? part : flat, out ? flat : part, len);
        flat += len;
        left -= len;
        skip = 0;
    }
}

/* The payload as one piece: where it lies when it is one, else a bounce. */
static int flatten(struct by_bridged *held)
{
    struct by_request *req = held->req;
    struct iovec one;

    if (!has_payload(req)) {
        return 0;
    }
    if (by_iov_slice(req->iov, req->niov, req->iov_skip, req->bytes, &one,
                     1) == 1) {
        held->buffer = one.iov_base;
        return 0;
    }
    held->buffer = by_buffer_get(req->loop, req->bytes);
    if (!held->buffer) {
        return -ENOMEM;
    }
    held->bounced = true;
    if (req->op == BY_OP_WRITE) {
        copy_payload(req, held->buffer, false);
    }
    return 0;
}

/* ------------------------------------------------------- loop to Python */

/* The lock is held.  The eventfd is written once per batch, not per request. */
static void signal_taker(struct by_bridge *bridge)
{
    uint64_t one = 1;

    if (!bridge->signalled && bridge->first &&
        bridge->free_slot < bridge->nslots) {
        bridge->signalled = true;
        if (write(bridge->fd, &one, sizeof(one)) < 0) {
            /* Only a full counter fails, and that one is readable. */
        }
    }
}

/* Runs on the submitting loop, just before the request leaves the bridge. */
static int bridged_done(struct by_request *req, struct by_frame *frame,
                        int result)
{
    struct by_bridged *held = (struct by_bridged *)frame;

    if (held->bounced) {
        if (req->op == BY_OP_READ && result == 0) {
            copy_payload(req, held->buffer, true);
        }
        by_buffer_put(req->loop, held->buffer, req->bytes);
    }
    return result;
}

static int bridge_submit(struct by_node *node, struct by_request *req)
{
    struct by_bridge *bridge = node->state;
    struct by_bridged *held;
    int ret;

    held = (struct by_bridged *)by_frame_push(req, sizeof(*held),
                                              bridged_done);
    if (!held) {
        return -ENOMEM;
    }
    memset((char *)held + sizeof(held->frame), 0,
           sizeof(*held) - sizeof(held->frame));
    held->bridge = bridge;
    held->node = node;
    held->req = req;
    ret = flatten(held);
    if (ret < 0) {
        by_frame_pop(req);
        return ret;
    }
    pthread_mutex_lock(&bridge->lock);
    *bridge->last = held;
    bridge->last = &held->next;
    signal_taker(bridge);
    pthread_mutex_unlock(&bridge->lock);
    return BY_PENDING;
}

static void describe(const struct by_bridged *held, uint64_t handle,
                     struct by_bridge_request *out)
{
    const struct by_request *req = held->req;
    bool truncate = req->op == BY_OP_TRUNCATE;

    *out = (struct by_bridge_request){
        .handle = handle,
        .op = req->op,
        .flags = req->flags,
        .offset = req->offset,
        .bytes = req->bytes,
        .buffer = held->buffer,
        .prealloc = truncate ? req->u.truncate.prealloc : 0,
        .exact = truncate && req->u.truncate.exact,
    };
}

/* The lock is held; there is a first request and a free slot. */
static uint64_t occupy_slot(struct by_bridge *bridge)
{
    uint32_t index = bridge->free_slot;
    struct by_slot *slot = &bridge->slots[index];

    slot->held = bridge->first;
    bridge->free_slot = slot->next_free;
    bridge->first = slot->held->next;
    if (!bridge->first) {
        bridge->last = &bridge->first;
    }
    return (uint64_t)slot->generation << 32 | index;
}

int by_bridge_take(struct by_bridge *bridge, struct by_bridge_request *out,
                   int max)
{
    uint64_t count;
    int n = 0;

    pthread_mutex_lock(&bridge->lock);
    while (n < max && bridge->first && bridge->free_slot < bridge->nslots) {
        struct by_bridged *held = bridge->first;

        describe(held, occupy_slot(bridge), &out[n]);
        n++;
    }
    if (bridge->signalled) {
        bridge->signalled = false;
        if (read(bridge->fd, &count, sizeof(count)) < 0) {
            /* Nobody but this function reads, so there was something. */
        }
    }
    signal_taker(bridge);
    pthread_mutex_unlock(&bridge->lock);
    return n;
}

/* ------------------------------------------------------- Python to loop */

static void finish(struct by_task *task)
{
    struct by_bridged *held = task->owner;

    by_complete(held->req, held->result);
}

/* Take a request out of its slot; null when the handle is stale. */
static struct by_bridged *release_slot(struct by_bridge *bridge,
                                       uint64_t handle)
{
    uint32_t index = (uint32_t)handle;
    struct by_bridged *held = NULL;

    pthread_mutex_lock(&bridge->lock);
    if (index < bridge->nslots && bridge->slots[index].held &&
        bridge->slots[index].generation == handle >> 32) {
        struct by_slot *slot = &bridge->slots[index];

        held = slot->held;
        slot->held = NULL;
        slot->generation++;
        slot->next_free = bridge->free_slot;
        bridge->free_slot = index;
        signal_taker(bridge);
    }
    pthread_mutex_unlock(&bridge->lock);
    return held;
}

static void send_back(struct by_bridged *held, int result)
{
    held->result = result;
    held->task.run = finish;
    held->task.owner = held;
    by_loop_post(held->req->loop, &held->task);
}

void by_bridge_complete(struct by_bridge *bridge, uint64_t handle, int result)
{
    struct by_bridged *held = release_slot(bridge, handle);

    if (held) {
        send_back(held, result > 0 ? 0 : result);
    }
}

void by_bridge_complete_status(struct by_bridge *bridge, uint64_t handle,
                               const struct by_status *answer)
{
    struct by_bridged *held = release_slot(bridge, handle);
    struct by_block_status *status;

    if (!held) {
        return;
    }
    status = held->req->op == BY_OP_BLOCK_STATUS ? held->req->u.status : NULL;
    if (!status || !answer->bytes || answer->bytes > held->req->bytes) {
        send_back(held, -EIO);
        return;
    }
    status->flags = answer->flags;
    status->bytes = answer->bytes;
    status->depth = answer->depth;
    status->host_offset = answer->host_offset;
    status->owner = answer->owner ? (struct by_node *)(uintptr_t)answer->owner
                                  : held->node;
    send_back(held, 0);
}

/* ----------------------------------------------------------------- life */

static void bridge_init(struct by_bridge *bridge, const char *driver,
                        uint32_t capabilities, uint32_t serves,
                        const uint32_t *flags)
{
    strncpy(bridge->name, driver, sizeof(bridge->name) - 1);
    bridge->ops = (struct by_node_ops){
        .size = sizeof(bridge->ops),
        .abi = BY_ABI_VERSION,
        .name = bridge->name,
        .capabilities = capabilities | BY_CAP_ANY_LOOP,
        .serves = serves,
        .submit = bridge_submit,
    };
    memcpy(bridge->ops.flags, flags, sizeof(bridge->ops.flags));
    bridge->last = &bridge->first;
    for (uint32_t i = 0; i < bridge->nslots; i++) {
        bridge->slots[i].next_free = i + 1;
    }
    pthread_mutex_init(&bridge->lock, NULL);
}

struct by_bridge *by_bridge_create(const char *driver, uint32_t capabilities,
                                   uint32_t serves, const uint32_t *flags,
                                   uint32_t max_in_flight)
{
    uint32_t nslots = max_in_flight ? max_in_flight : 1;
    struct by_bridge *bridge;

    bridge = calloc(1, sizeof(*bridge) + nslots * sizeof(struct by_slot));
    if (!bridge) {
        return NULL;
    }
    bridge->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (bridge->fd < 0) {
        free(bridge);
        return NULL;
    }
    bridge->nslots = nslots;
    bridge_init(bridge, driver, capabilities, serves, flags);
    return bridge;
}

const struct by_node_ops *by_bridge_ops(struct by_bridge *bridge)
{
    return &bridge->ops;
}

int by_bridge_fd(struct by_bridge *bridge)
{
    return bridge->fd;
}

void by_bridge_free(struct by_bridge *bridge)
{
    close(bridge->fd);
    pthread_mutex_destroy(&bridge->lock);
    free(bridge);
}
