/* SPDX-License-Identifier: Apache-2.0 */
/*
 * line.c - clusters are taken in the order in which requests came for them.
 *
 * A request that lacks something leaves it to the keeper and tries again.  Who
 * comes meanwhile would find what was made for it and go first, and a disk
 * written from its beginning to its end would not lie so in the file.  So who
 * waits for the keeper stands in a line until it has what it came for, and who
 * comes later parks behind it.  Those that wait for one L2 table hold up only
 * others that need the same.
 *
 * Nobody stands here for anything but the keeper and those before it: whoever
 * finds that it waits for something else leaves.  So the line always moves.
 */
#include <errno.h>

#include "change.h"

static void stand(struct by_qcow2 *q, struct q2_patience *p,
                  enum q2_stand how)
{
    struct q2_patience **at = &q->line;

    if (p->stands == Q2_STANDS_NOT) {
        while (*at) {
            at = &(*at)->behind;
        }
        p->behind = NULL;
        *at = p;
    }
    p->stands = how;
}

/* Must `p`, which needs this L2 table, let the other one go first? */
static bool goes_first(const struct q2_patience *other,
                       const struct q2_patience *p, uint64_t l1_index)
{
    if (other->stands == Q2_STANDS_WAITING) {
        return other->l1_index == Q2_ANY || other->l1_index == l1_index;
    }
    return other->stands == Q2_STANDS_CALLED && p->stands == Q2_STANDS_NOT;
}

int q2_line_turn(struct by_qcow2 *q, struct q2_patience *p, uint64_t l1_index)
{
    struct q2_patience *other = q->line;

    while (other && other != p) {
        if (goes_first(other, p, l1_index)) {
            stand(q, p, Q2_STANDS_PARKED);
            return -EAGAIN;
        }
        other = other->behind;
    }
    return 0;
}

int q2_leave_to_keeper(struct by_qcow2 *q, struct q2_patience *p,
                       int (*run)(struct by_qcow2 *, struct q2_chore *),
                       uint64_t arg, uint64_t l1_index)
{
    stand(q, p, Q2_STANDS_WAITING);
    p->l1_index = l1_index;
    p->chore.run = run;
    p->chore.arg = arg;
    p->chore.wait = p->wait;
    q2_chore_add(q, &p->chore);
    return -EAGAIN;
}

void q2_line_try(struct q2_patience *p)
{
    if (unlikely(p->stands != Q2_STANDS_NOT)) {
        p->stands = Q2_STANDS_CALLED;
    }
}

void q2_line_leave(struct by_qcow2 *q, struct q2_patience *p)
{
    struct q2_patience **at = &q->line, *next;

    while (*at != p) {
        at = &(*at)->behind;
    }
    *at = p->behind;
    p->stands = Q2_STANDS_NOT;
    for (next = q->line; next; next = next->behind) {
        if (next->stands == Q2_STANDS_WAITING && next->l1_index == Q2_ANY) {
            break;
        }
        if (next->stands == Q2_STANDS_PARKED) {
            next->stands = Q2_STANDS_CALLED;
            next->wait.result = 0;
            q2_api->loop_post(next->wait.loop, &next->wait.task);
        }
    }
}
