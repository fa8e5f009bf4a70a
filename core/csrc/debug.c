/* SPDX-License-Identifier: Apache-2.0 */
/*
 * debug.c - the debug events that core itself announces: a node's writes.
 *
 * They are for the node that is written to and those which its driver hands
 * events on to.  Where nobody listens, a write does not come here.  The events
 * of a read-modify-write are align.c's.
 */
#include <errno.h>

#include "graph.h"

struct by_debugged {
    struct by_frame frame;
    struct by_inode *inode;
    struct by_request *req;
    struct by_task resume;
    int (*step)(struct by_inode *, struct by_request *);
    int result;
    bool ended;                 /* the write has; its result is above */
};

bool by_debug_heard(const struct by_node *node)
{
    while (node && node->ops->size > BY_NODE_OPS_LEAST
           && node->ops->debug_event) {
        if (node->ops->capabilities & BY_CAP_LISTENS) {
            return true;
        }
        node = node->nchildren ? node->children[0] : NULL;
    }
    return false;
}

static void over(struct by_task *task)
{
    struct by_debugged *d = task->owner;

    by_complete(d->req, d->result);
}

/* The write has ended, and so it is told; nobody is told of a failed one. */
static int ended(struct by_debugged *d, int result)
{
    d->ended = true;
    d->result = result;
    d->resume.run = over;
    return result == 0
        && by_debug_stop(&d->inode->node, BY_DEBUG_PWRITEV_DONE, &d->resume)
        ? BY_PENDING : result;
}

static int debugged_done(struct by_request *req, struct by_frame *frame,
                         int result)
{
    struct by_debugged *d = (struct by_debugged *)frame;

    (void)req;
    return d->ended ? result : ended(d, result);
}

static void go_on(struct by_task *task)
{
    struct by_debugged *d = task->owner;

    by_resume(d->inode, d->req, d->step);
}

int by_debug_write(struct by_inode *inode, struct by_request *req,
                   int (*step)(struct by_inode *, struct by_request *))
{
    uint32_t event = req->op == BY_OP_WRITE ? BY_DEBUG_PWRITEV
                                            : BY_DEBUG_PWRITEV_ZERO;
    struct by_debugged *d = (struct by_debugged *)
        by_frame_push(req, sizeof(*d), debugged_done);
    int result;

    if (!d) {
        return -ENOMEM;
    }
    d->inode = inode;
    d->req = req;
    d->step = step;
    d->ended = false;
    d->resume.run = go_on;
    d->resume.owner = d;
    if (by_debug_stop(&inode->node, event, &d->resume)) {
        return BY_PENDING;
    }
    result = step(inode, req);
    if (result != BY_PENDING) {
        result = ended(d, result);
    }
    if (result != BY_PENDING) {
        by_frame_pop(req);
    }
    return result;
}
