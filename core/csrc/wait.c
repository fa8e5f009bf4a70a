/* SPDX-License-Identifier: Apache-2.0 */
/*
 * wait.c - a request from a thread that may wait: work on tables that a
 * format does on a thread of its own reads like any other program.
 */
#include <errno.h>

#include "graph.h"

struct by_waiting {
    struct by_task task;
    struct by_node *node;
    struct by_request *req;
    pthread_mutex_t lock;
    pthread_cond_t ended;
    bool over;
    int result;
};

static void end(struct by_waiting *w, int result)
{
    pthread_mutex_lock(&w->lock);
    w->result = result;
    w->over = true;
    pthread_cond_signal(&w->ended);
    pthread_mutex_unlock(&w->lock);
}

static void request_done(struct by_request *req, int result)
{
    end(req->owner, result);
}

static void arrive(struct by_task *task)
{
    struct by_waiting *w = task->owner;
    int result = by_submit(w->node, w->req);

    if (result != BY_PENDING) {
        end(w, result);
    }
}

int by_wait(struct by_node *node, struct by_request *req)
{
    struct by_waiting w = {
        .task = { .run = arrive },
        .node = node,
        .req = req,
        .lock = PTHREAD_MUTEX_INITIALIZER,
        .ended = PTHREAD_COND_INITIALIZER,
    };

    if (by_loop_current()) {
        return -EDEADLK;
    }
    w.task.owner = &w;
    req->loop = node->home;
    req->done = request_done;
    req->owner = &w;
    by_loop_post(req->loop, &w.task);
    pthread_mutex_lock(&w.lock);
    while (!w.over) {
        pthread_cond_wait(&w.ended, &w.lock);
    }
    pthread_mutex_unlock(&w.lock);
    pthread_cond_destroy(&w.ended);
    pthread_mutex_destroy(&w.lock);
    return w.result;
}
