/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hop.c - a request for a node that only its home loop may submit to.
 *
 * The frame belongs to the loop that the request came from; between the two
 * posts the request belongs to the home loop, and so do all frames above.
 */
#include <errno.h>

#include "graph.h"

struct by_hopping {
    struct by_frame frame;
    struct by_task task;
    struct by_inode *inode;
    struct by_request *req;
    struct by_loop *from;
    int result;
    bool back;
};

static void arrive_back(struct by_task *task)
{
    struct by_hopping *hop = task->owner;

    hop->back = true;
    by_complete(hop->req, hop->result);
}

static int hop_done(struct by_request *req, struct by_frame *frame, int result)
{
    struct by_hopping *hop = (struct by_hopping *)frame;

    if (hop->back) {
        return result;
    }
    hop->result = result;
    hop->task.run = arrive_back;
    req->loop = hop->from;
    by_loop_post(hop->from, &hop->task);
    return BY_PENDING;
}

static void arrive(struct by_task *task)
{
    struct by_hopping *hop = task->owner;
    int result = by_submit(&hop->inode->node, hop->req);

    if (result != BY_PENDING) {
        by_complete(hop->req, result);
    }
}

int by_hop(struct by_inode *inode, struct by_request *req)
{
    struct by_hopping *hop = (struct by_hopping *)
        by_frame_push(req, sizeof(*hop), hop_done);
    struct by_loop *home = inode->node.home;

    if (!hop) {
        return -ENOMEM;
    }
    hop->inode = inode;
    hop->req = req;
    hop->from = req->loop;
    hop->back = false;
    hop->task.run = arrive;
    hop->task.owner = hop;
    req->loop = home;
    by_loop_post(home, &hop->task);
    return BY_PENDING;
}
