/* SPDX-License-Identifier: Apache-2.0 */
/*
 * access.c - requests that Python makes: one posted task there, one event or
 * one wake-up back.
 */
#include <errno.h>
#include <stdlib.h>

#include "graph.h"

#define MAX_PIECES 1024 /* IOV_MAX */

_Static_assert(sizeof(struct by_extent) == sizeof(struct iovec)
                   && offsetof(struct by_extent, bytes)
                          == offsetof(struct iovec, iov_len),
               "pieces are iovecs");

struct by_calling {
    struct by_task task;
    struct by_request req;
    struct iovec iov;
    struct by_root *root, *target;
    bool inner;
    struct by_block_status native;
    struct by_status *status;
    uint64_t tag;

    /* by_access_wait; the waiter owns the memory then. */
    pthread_mutex_t lock;
    pthread_cond_t ended;
    bool waited_for, over;
    int result;
};

static void fill_status(struct by_calling *call)
{
    call->status->flags = call->native.flags;
    call->status->depth = call->native.depth;
    call->status->bytes = call->native.bytes;
    call->status->host_offset = call->native.host_offset;
    call->status->owner = (uintptr_t)call->native.owner;
}

static void end(struct by_calling *call, int result)
{
    if (result == 0 && call->status) {
        fill_status(call);
    }
    if (!call->waited_for) {
        by_report(call->tag, BY_EVENT_DONE, result, 0, 0);
        free(call);
        return;
    }
    pthread_mutex_lock(&call->lock);
    call->result = result;
    call->over = true;
    pthread_cond_signal(&call->ended);
    pthread_mutex_unlock(&call->lock);
}

static void request_done(struct by_request *req, int result)
{
    end(req->owner, result);
}

static int enter(struct by_calling *call)
{
    struct by_request *req = &call->req;

    if (req->op == BY_OP_COPY_RANGE) {
        return by_root_copy(call->root, call->target, req, call->inner);
    }
    if (!call->inner) {
        return by_root_submit(call->root, req);
    }
    return by_root_enter(call->root, req);
}

static void arrive(struct by_task *task)
{
    struct by_calling *call = task->owner;
    int result = enter(call);

    if (result != BY_PENDING) {
        end(call, result);
    }
}

static bool has_payload(const struct by_access *access)
{
    return access->op == BY_OP_READ || access->op == BY_OP_WRITE;
}

static void fill_request(struct by_calling *call,
                         const struct by_access *access)
{
    struct by_request *req = &call->req;

    call->iov.iov_base = access->buffer;
    call->iov.iov_len = access->bytes;
    req->size = sizeof(*req);
    req->op = access->op;
    req->flags = access->flags;
    req->offset = access->offset;
    req->bytes = access->bytes;
    if (has_payload(access)) {
        req->iov = access->npieces ? (const struct iovec *)access->pieces
                                   : &call->iov;
        req->niov = access->npieces ? access->npieces : 1;
    }
    req->done = request_done;
    req->owner = call;
}

static void fill_operation(struct by_calling *call,
                           const struct by_access *access)
{
    struct by_request *req = &call->req;

    switch (access->op) {
    case BY_OP_BLOCK_STATUS:
        call->native.size = sizeof(call->native);
        call->native.precise = true;
        call->native.layers = access->layers;
        req->u.status = &call->native;
        break;
    case BY_OP_COPY_RANGE:
        call->target = access->target;
        req->u.copy.target_offset = access->target_offset;
        break;
    case BY_OP_TRUNCATE:
        req->u.truncate.prealloc = access->prealloc;
        req->u.truncate.exact = access->exact;
        break;
    }
}

static struct by_calling *call_make(struct by_root *root, bool inner,
                                    const struct by_access *access,
                                    struct by_status *status)
{
    struct by_calling *call = calloc(1, sizeof(*call));

    if (call) {
        call->root = root;
        call->inner = inner;
        call->status = access->op == BY_OP_BLOCK_STATUS ? status : NULL;
        call->tag = access->tag;
        call->task.run = arrive;
        call->task.owner = call;
        fill_request(call, access);
        fill_operation(call, access);
    }
    return call;
}

static void send(struct by_calling *call)
{
    call->req.loop = by_root_node(call->root)->home;
    by_loop_post(call->req.loop, &call->task);
}

/* The pieces are as long together as the request. */
static bool pieces_fit(const struct by_access *access)
{
    uint64_t left = access->bytes;

    if (access->npieces > MAX_PIECES) {
        return false;
    }
    for (uint32_t i = 0; i < access->npieces; i++) {
        if (access->pieces[i].bytes > left) {
            return false;
        }
        left -= access->pieces[i].bytes;
    }
    return !access->npieces || (left == 0 && has_payload(access));
}

static bool makes_sense(const struct by_access *access,
                        const struct by_status *status)
{
    return access->op < BY_OP_COUNT && pieces_fit(access)
        && (access->op != BY_OP_BLOCK_STATUS || status)
        && (access->op != BY_OP_COPY_RANGE || access->target);
}

int by_access_start(struct by_root *root, bool inner,
                    const struct by_access *access, struct by_status *status)
{
    struct by_calling *call;

    if (!makes_sense(access, status)) {
        return -EINVAL;
    }
    call = call_make(root, inner, access, status);
    if (!call) {
        return -ENOMEM;
    }
    send(call);
    return 0;
}

static int wait_for(struct by_calling *call)
{
    pthread_mutex_lock(&call->lock);
    while (!call->over) {
        pthread_cond_wait(&call->ended, &call->lock);
    }
    pthread_mutex_unlock(&call->lock);
    return call->result;
}

int by_access_wait(struct by_root *root, bool inner,
                   const struct by_access *access, struct by_status *status)
{
    struct by_calling *call;
    int result;

    if (!makes_sense(access, status)) {
        return -EINVAL;
    }
    call = call_make(root, inner, access, status);
    if (!call) {
        return -ENOMEM;
    }
    pthread_mutex_init(&call->lock, NULL);
    pthread_cond_init(&call->ended, NULL);
    call->waited_for = true;
    send(call);
    result = wait_for(call);
    pthread_cond_destroy(&call->ended);
    pthread_mutex_destroy(&call->lock);
    free(call);
    return result;
}
