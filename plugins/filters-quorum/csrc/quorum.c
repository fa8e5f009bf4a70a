/* SPDX-License-Identifier: Apache-2.0 */
/*
 * quorum.c - a disk that is several: what changes it goes to all children, and
 * holds when as many as the threshold have done it.
 *
 * All of a node's requests run on its home loop, so nothing here is locked.
 */
#include <errno.h>
#include <stddef.h>

#include "quorum.h"

/* ------------------------------------------------- what children are asked */

static void ended(struct by_request *sub, int result);

struct by_request *by_vote_prepare(struct by_ballot *ballot, uint32_t child)
{
    struct by_vote *vote = &ballot->votes[child];

    vote->sub = *ballot->req;
    vote->sub.frame = NULL;
    vote->sub.done = ended;
    vote->sub.owner = vote;
    return &vote->sub;
}

void by_vote_send(struct by_ballot *ballot, uint32_t child)
{
    struct by_vote *vote = &ballot->votes[child];
    int result;

    ballot->running++;
    result = by_quorum_api->submit(ballot->node->children[child], &vote->sub);
    if (result != BY_PENDING) {
        vote->result = result;
        ballot->running--;
    }
}

void by_ballot_hold(struct by_ballot *ballot)
{
    ballot->running++;
}

int by_ballot_count(struct by_ballot *ballot)
{
    return --ballot->running ? BY_PENDING : ballot->counted(ballot);
}

static int ask_all(struct by_ballot *ballot, int (*counted)(struct by_ballot *))
{
    ballot->counted = counted;
    by_ballot_hold(ballot);
    for (uint32_t i = 0; i < ballot->count; i++) {
        by_vote_prepare(ballot, i);
        by_vote_send(ballot, i);
    }
    return by_ballot_count(ballot);
}

/* ------------------------------------------------------------ what they say */

/* Enough have done it, or there is no quorum. */
static int enough(struct by_ballot *ballot, uint32_t bad_kind)
{
    uint32_t good = by_vote_failures(ballot, bad_kind);

    if (good >= by_quorum_of(ballot)->settings.threshold) {
        return 0;
    }
    if (ballot->req->op != BY_OP_FLUSH) {
        by_vote_report(ballot, BY_QUORUM_FAILURE, 0, 0);
    }
    return by_vote_error(ballot);
}

static int written(struct by_ballot *ballot)
{
    return enough(ballot, BY_QUORUM_BAD_WRITE);
}

static int flushed(struct by_ballot *ballot)
{
    return enough(ballot, BY_QUORUM_BAD_FLUSH);
}

/*
 * The children that cannot write zeroes fast: all of them, then the request
 * is refused as it asks; or some, and then these write them as they can,
 * because the others have.
 */
static int zeroed_fast(struct by_ballot *ballot)
{
    uint32_t slow = 0;

    for (uint32_t i = 0; i < ballot->count; i++) {
        slow += ballot->votes[i].result == -ENOTSUP;
    }
    if (slow == 0 || slow == ballot->count) {
        return slow ? -ENOTSUP : written(ballot);
    }
    ballot->counted = written;
    by_ballot_hold(ballot);
    for (uint32_t i = 0; i < ballot->count; i++) {
        if (ballot->votes[i].result == -ENOTSUP) {
            by_vote_prepare(ballot, i)->flags &= ~BY_REQ_NO_FALLBACK;
            by_vote_send(ballot, i);
        }
    }
    return by_ballot_count(ballot);
}

/* --------------------------------------------------------- a request's life */

static int begin(struct by_ballot *ballot)
{
    const struct by_request *req = ballot->req;

    switch (req->op) {
    case BY_OP_READ:
        return by_quorum_read(ballot);
    case BY_OP_WRITE:
        return ask_all(ballot, written);
    case BY_OP_WRITE_ZEROES:
        return ask_all(ballot, req->flags & BY_REQ_NO_FALLBACK ? zeroed_fast
                                                               : written);
    case BY_OP_FLUSH:
        return ask_all(ballot, flushed);
    default: /* BLOCK_STATUS */
        return by_quorum_status(ballot);
    }
}

static void may_run(void *arg, struct by_range *range)
{
    struct by_quorum *quorum = arg;
    struct by_ballot *ballot = (struct by_ballot *)
        ((char *)range - offsetof(struct by_ballot, range));

    ballot->next = NULL;
    *quorum->ready_end = ballot;
    quorum->ready_end = &ballot->next;
}

/* Give back what it holds; others may run then. */
static void leave(struct by_ballot *ballot)
{
    struct by_quorum *quorum = by_quorum_of(ballot);

    for (uint32_t i = 0; i < ballot->count; i++) {
        if (ballot->votes[i].copy) {
            by_quorum_api->buffer_put(ballot->req->loop, ballot->votes[i].copy,
                                      ballot->req->bytes);
        }
    }
    by_ranges_leave(&quorum->ranges, &ballot->range, may_run, quorum);
}

static void finish(struct by_ballot *ballot, int result)
{
    struct by_request *req = ballot->req;

    leave(ballot);
    by_quorum_api->complete(req, result);
}

/* In a loop, however many of them end at once and let others run. */
static void run_ready(struct by_quorum *quorum)
{
    if (quorum->running_ready) {
        return;
    }
    quorum->running_ready = true;
    while (quorum->ready) {
        struct by_ballot *ballot = quorum->ready;
        int result;

        quorum->ready = ballot->next;
        if (!quorum->ready) {
            quorum->ready_end = &quorum->ready;
        }
        result = begin(ballot);
        if (result != BY_PENDING) {
            finish(ballot, result);
        }
    }
    quorum->running_ready = false;
}

static void ended(struct by_request *sub, int result)
{
    struct by_vote *vote = sub->owner;
    struct by_ballot *ballot = vote->ballot;
    struct by_quorum *quorum = by_quorum_of(ballot);

    vote->result = result;
    result = by_ballot_count(ballot);
    if (result != BY_PENDING) {
        finish(ballot, result);
        run_ready(quorum);
    }
}

static int ballot_done(struct by_request *req, struct by_frame *frame,
                       int result)
{
    (void)req;
    (void)frame;
    return result;
}

static struct by_ballot *make(struct by_node *node, struct by_request *req)
{
    struct by_ballot *ballot = (struct by_ballot *)by_quorum_api->frame_push(
        req, sizeof(*ballot) + node->nchildren * sizeof(ballot->votes[0]),
        ballot_done);

    if (!ballot) {
        return NULL;
    }
    ballot->node = node;
    ballot->req = req;
    ballot->range.listed = false;
    ballot->running = 0;
    ballot->count = node->nchildren;
    ballot->turn = 0;
    for (uint32_t i = 0; i < ballot->count; i++) {
        ballot->votes[i].ballot = ballot;
        ballot->votes[i].copy = NULL;
    }
    return ballot;
}

/* Whether it may run beside all that runs now. */
static bool enter(struct by_ballot *ballot)
{
    const struct by_request *req = ballot->req;

    if (req->op == BY_OP_FLUSH || req->op == BY_OP_BLOCK_STATUS) {
        return true;
    }
    ballot->range.offset = req->offset;
    ballot->range.end = req->offset + req->bytes;
    ballot->range.alone = req->op != BY_OP_READ;
    return by_ranges_enter(&by_quorum_of(ballot)->ranges, &ballot->range);
}

static int submit(struct by_node *node, struct by_request *req)
{
    struct by_ballot *ballot = make(node, req);
    int result;

    if (!ballot) {
        return -ENOMEM;
    }
    if (!enter(ballot)) {
        return BY_PENDING;
    }
    result = begin(ballot);
    if (result != BY_PENDING) {
        /* Nobody has come meanwhile who could wait for it. */
        leave(ballot);
        by_quorum_api->frame_pop(req);
    }
    return result;
}

static const struct by_node_ops ops = {
    .size = sizeof(ops),
    .abi = BY_ABI_VERSION,
    .name = "quorum",
    .capabilities = BY_CAP_REPEATS_READS | BY_CAP_FAST_ZERO,
    .serves = BY_OP_BIT(BY_OP_READ) | BY_OP_BIT(BY_OP_WRITE)
        | BY_OP_BIT(BY_OP_FLUSH) | BY_OP_BIT(BY_OP_WRITE_ZEROES)
        | BY_OP_BIT(BY_OP_BLOCK_STATUS),
    .submit = submit,
};

uintptr_t by_quorum_ops(void)
{
    return (uintptr_t)&ops;
}
