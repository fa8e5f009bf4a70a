/* SPDX-License-Identifier: Apache-2.0 */
/*
 * status.c - what is known to be zero: what all children know to be zero.
 *
 * The first child that holds data makes data of it, as far as any of them
 * does.  A child that cannot say counts as data.
 */
#include "quorum.h"

static int compared(struct by_ballot *ballot)
{
    struct by_block_status *status = ballot->req->u.status;
    uint64_t zero = ballot->req->bytes, data = 0;

    for (uint32_t i = 0; i < ballot->count; i++) {
        const struct by_vote *vote = &ballot->votes[i];
        uint64_t bytes = vote->result < 0 ? ballot->req->bytes
                                          : vote->status.bytes;

        if (vote->result == 0 && (vote->status.flags & BY_STATUS_ZERO)) {
            zero = bytes < zero ? bytes : zero;
        } else {
            data = bytes > data ? bytes : data;
        }
    }
    status->flags = BY_STATUS_ALLOCATED
        | (data ? BY_STATUS_DATA : BY_STATUS_ZERO);
    status->bytes = data ? data : zero;
    status->owner = NULL;
    status->depth = 0;
    return 0;
}

int by_quorum_status(struct by_ballot *ballot)
{
    ballot->counted = compared;
    by_ballot_hold(ballot);
    for (uint32_t i = 0; i < ballot->count; i++) {
        struct by_vote *vote = &ballot->votes[i];

        vote->status = (struct by_block_status) {
            .size = sizeof(vote->status),
            .precise = ballot->req->u.status->precise,
        };
        by_vote_prepare(ballot, i)->u.status = &vote->status;
        by_vote_send(ballot, i);
    }
    return by_ballot_count(ballot);
}
