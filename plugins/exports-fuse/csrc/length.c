/* SPDX-License-Identifier: Apache-2.0 */
/*
 * length.c - the node's length, and one request at a time that changes it.
 *
 * Of two writes beyond the end each wants the node as long as it needs; were
 * both to set it, the later one could cut off what the other has written.  So
 * whoever changes the length does so alone, on whichever loop it is, and one
 * that only wants more room looks again when its turn has come.
 */
#include <errno.h>

#include "queue.h"

uint64_t fuse_length(const struct by_fuse_export *export)
{
    return export->api->root_length(export->root);
}

static void my_turn(struct by_task *task)
{
    fuse_proceed(task->owner, 0);
}

/* 0 when it is the request's turn; else `then` runs when it is. */
static int enter(struct fuse_request *request, fuse_step *then)
{
    struct by_fuse_export *export = request->queue->export;
    bool alone;

    request->then = then;
    request->next = NULL;
    request->task.run = my_turn;
    pthread_mutex_lock(&export->lock);
    alone = !export->first;
    if (alone) {
        export->first = request;
    } else {
        export->last->next = request;
    }
    export->last = request;
    pthread_mutex_unlock(&export->lock);
    return alone ? 0 : BY_PENDING;
}

static void leave(struct fuse_request *request)
{
    struct by_fuse_export *export = request->queue->export;
    struct fuse_request *next;

    pthread_mutex_lock(&export->lock);
    next = export->first = request->next;
    pthread_mutex_unlock(&export->lock);
    if (next) {
        export->api->loop_post(next->queue->loop, &next->task);
    }
}

static int changed(struct fuse_request *request, int result)
{
    leave(request);
    if (!result) {
        fuse_changed(request->queue->export);
    }
    request->then = request->after;
    return result;
}

static int truncate(struct fuse_request *request, uint64_t length)
{
    request->io.u.truncate.prealloc = request->prealloc;
    request->io.u.truncate.exact = true;
    return fuse_submit(request, BY_OP_TRUNCATE, length, 0, 0, changed);
}

static int set_now(struct fuse_request *request, int result)
{
    (void)result;
    return truncate(request, request->end);
}

int fuse_set_length(struct fuse_request *request, uint64_t length,
                    enum by_prealloc prealloc, fuse_step *then)
{
    if (length > FUSE_MAX_LENGTH) {
        request->then = then;
        return -EFBIG;
    }
    request->end = length;
    request->prealloc = prealloc;
    request->after = then;
    return enter(request, set_now);
}

static int grow_now(struct fuse_request *request, int result)
{
    if (request->end <= fuse_length(request->queue->export)) {
        leave(request);
        request->then = request->after;
        return result;
    }
    return truncate(request, request->end);
}

int fuse_grow(struct fuse_request *request, fuse_step *then)
{
    request->then = then;
    if (request->end <= fuse_length(request->queue->export)) {
        return 0;
    }
    if (request->end > FUSE_MAX_LENGTH) {
        return -EIO;
    }
    request->prealloc = BY_PREALLOC_OFF;
    request->after = then;
    return enter(request, grow_now);
}
