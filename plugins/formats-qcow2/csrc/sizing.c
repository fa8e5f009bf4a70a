/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sizing.c - the request "truncate": the keeper changes the tables, after what
 * lies behind the present end in the last cluster was overwritten with zeroes.
 */
#include <errno.h>

#include "requests.h"
#include "tables.h"

struct q2_sizing {
    struct by_frame frame;
    struct by_qcow2 *q;
    struct by_request *req;
    struct q2_chore chore;
    struct by_request zero;
    uint64_t head_at, head;
};

static struct q2_sizing *of_chore(struct q2_chore *chore)
{
    return (struct q2_sizing *)((char *)chore
                                - offsetof(struct q2_sizing, chore));
}

static int head_chore(struct by_qcow2 *q, struct q2_chore *chore)
{
    struct q2_sizing *s = of_chore(chore);

    s->head = 0;
    return s->req->offset > q->size
        ? q2_resize_head(q, &s->head_at, &s->head) : 0;
}

static int size_chore(struct by_qcow2 *q, struct q2_chore *chore)
{
    const struct by_request *req = of_chore(chore)->req;

    q->resize_why[0] = 0;
    return q2_resize_to(q, req->offset, req->u.truncate.prealloc,
                        req->u.truncate.exact, q->resize_why);
}

static void sized(struct by_task *task)
{
    struct q2_sizing *s = task->owner;

    q2_api->complete(s->req, s->chore.result);
}

static void leave_to_keeper(struct q2_sizing *s,
                            int (*run)(struct by_qcow2 *, struct q2_chore *),
                            void (*done)(struct by_task *))
{
    s->chore.run = run;
    s->chore.wait.task.run = done;
    q2_chore_add(s->q, &s->chore);
}

static void zeroed(struct by_request *zero, int result)
{
    struct q2_sizing *s = zero->owner;

    if (result < 0) {
        q2_api->complete(s->req, result);
    } else {
        leave_to_keeper(s, size_chore, sized);
    }
}

static void looked(struct by_task *task)
{
    struct q2_sizing *s = task->owner;
    int result = s->chore.result;

    if (result == 0 && s->head) {
        s->zero = (struct by_request) {
            .size = sizeof(s->zero), .op = BY_OP_WRITE_ZEROES,
            .offset = s->head_at, .bytes = s->head, .loop = s->req->loop,
            .done = zeroed, .owner = s,
        };
        result = q2_write_zeroes(s->q, &s->zero);
        if (result == BY_PENDING) {
            return;
        }
    }
    s->zero.owner = s;
    zeroed(&s->zero, result);
}

static int sizing_done(struct by_request *req, struct by_frame *frame,
                       int result)
{
    (void)req;
    (void)frame;
    return result;
}

int q2_truncate(struct by_qcow2 *q, struct by_request *req)
{
    struct q2_sizing *s;

    if (q2_is_corrupt(q)) {
        return -EIO;
    }
    s = (struct q2_sizing *)q2_api->frame_push(req, sizeof(*s), sizing_done);
    if (!s) {
        return -ENOMEM;
    }
    s->q = q;
    s->req = req;
    s->chore.wait = (struct q2_wait) {
        .loop = req->loop, .task = { .owner = s },
    };
    leave_to_keeper(s, head_chore, looked);
    return BY_PENDING;
}
