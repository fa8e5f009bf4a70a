/* SPDX-License-Identifier: Apache-2.0 */
/* vote.c - what fails, and which error is the whole's. */
#include "quorum.h"

enum { UNHEARD_MAX = 1024 };

void by_vote_report(struct by_ballot *ballot, uint32_t kind, uint32_t child,
                    int result)
{
    struct by_quorum *quorum = by_quorum_of(ballot);
    const struct by_event event = {
        .tag = quorum->settings.tag, .kind = kind | child << 3,
        .result = result, .a = ballot->req->offset, .b = ballot->req->bytes,
    };

    /* Monitors are told once in a second; a disk that fails all the time
     * must not fill the memory with it meanwhile. */
    if (__atomic_load_n(&quorum->unheard, __ATOMIC_RELAXED) < UNHEARD_MAX) {
        __atomic_add_fetch(&quorum->unheard, 1, __ATOMIC_RELAXED);
        by_quorum_api->event(&event);
    }
}

uint32_t by_vote_failures(struct by_ballot *ballot, uint32_t kind)
{
    uint32_t good = 0;

    for (uint32_t i = 0; i < ballot->count; i++) {
        if (ballot->votes[i].result < 0) {
            by_vote_report(ballot, kind, i, ballot->votes[i].result);
        } else {
            good++;
        }
    }
    return good;
}

/* How many children failed like this one; 0: an earlier one did. */
static uint32_t votes_of(const struct by_ballot *ballot, uint32_t child)
{
    int result = ballot->votes[child].result;
    uint32_t n = 0;

    for (uint32_t i = 0; i < ballot->count; i++) {
        if (ballot->votes[i].result == result) {
            if (i < child) {
                return 0;
            }
            n++;
        }
    }
    return n;
}

/* Of errors with as many votes, the one that was first seen last. */
int by_vote_error(const struct by_ballot *ballot)
{
    uint32_t most = 1;
    int error = 0;

    for (uint32_t i = 0; i < ballot->count; i++) {
        uint32_t votes = ballot->votes[i].result < 0 ? votes_of(ballot, i) : 0;

        if (votes >= most) {
            most = votes;
            error = ballot->votes[i].result;
        }
    }
    return error;
}
