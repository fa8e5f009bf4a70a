/* SPDX-License-Identifier: Apache-2.0 */
/* quorum.h - what the files of quorum share. */
#ifndef BLOCKYARD_FILTERS_QUORUM_QUORUM_H
#define BLOCKYARD_FILTERS_QUORUM_QUORUM_H

#include "blockyard.h"
#include "control.h"

extern const struct by_api *by_quorum_api;

/* ---------------------------------------------------------- ranges.c */

/*
 * Bytes that a request is about.  What changes data runs alone on its range,
 * so that overlapping requests reach all children in one order, and no read
 * compares children of which only some have been written.
 */
struct by_range {
    struct by_range *next, *prev;   /* in order of arrival */
    uint64_t offset, end;
    uint32_t blockers;              /* earlier ones that it waits for */
    bool alone;
    bool listed;
};

struct by_ranges {
    struct by_range *first, *last;
};

/* True: nothing is in the way.  Otherwise it is answered by some
 * by_ranges_leave, later. */
bool by_ranges_enter(struct by_ranges *ranges, struct by_range *range);
/* Calls `free` for each range that nothing is in the way of any more. */
void by_ranges_leave(struct by_ranges *ranges, struct by_range *range,
                     void (*free)(void *arg, struct by_range *range),
                     void *arg);

/* ---------------------------------------------------------- quorum.c */

struct by_ballot;

/* What one child is asked, and says. */
struct by_vote {
    struct by_request sub;
    struct by_ballot *ballot;
    int result;
    uint32_t version;       /* READ: the first child that read the same */
    char *copy;             /* READ: what it read; null: it is the payload */
    struct iovec iov;       /* of copy, or of what is written there */
    struct by_block_status status;
};

/* A request, while the children are asked. */
struct by_ballot {
    struct by_frame frame;
    struct by_node *node;
    struct by_request *req;
    struct by_range range;
    struct by_ballot *next;     /* that may run */
    /* All that were asked have answered: the request's result, or BY_PENDING
     * when more has been asked. */
    int (*counted)(struct by_ballot *ballot);
    uint32_t running;
    uint32_t count;             /* of votes; the children when it began */
    uint32_t turn;              /* fifo: the child that is asked */
    struct by_vote votes[];
};

struct by_quorum {
    struct by_quorum_settings settings;
    struct by_ranges ranges;
    struct by_ballot *ready, **ready_end;   /* nothing is in their way */
    bool running_ready;
    uint32_t unheard;           /* atomic: reports that Python has not read */
};

static inline struct by_quorum *by_quorum_of(const struct by_ballot *ballot)
{
    return ballot->node->state;
}

/* Prepare what the child is asked: the request itself, to be changed. */
struct by_request *by_vote_prepare(struct by_ballot *ballot, uint32_t child);
/* Send what was prepared.  The child answers at once or later. */
void by_vote_send(struct by_ballot *ballot, uint32_t child);
/* Between the two nothing ends the ballot.  counted's answer, or BY_PENDING:
 * it is called later. */
void by_ballot_hold(struct by_ballot *ballot);
int by_ballot_count(struct by_ballot *ballot);

/* ------------------------------------------------------------ vote.c */

/* Tell Python of a child, or of the whole. */
void by_vote_report(struct by_ballot *ballot, uint32_t kind, uint32_t child,
                    int result);
/* The children that failed are reported; how many did not. */
uint32_t by_vote_failures(struct by_ballot *ballot, uint32_t kind);
/* Among those that failed: the error of most. */
int by_vote_error(const struct by_ballot *ballot);

/* -------------------------------------------------- read.c, status.c */

int by_quorum_read(struct by_ballot *ballot);
int by_quorum_status(struct by_ballot *ballot);

#endif /* BLOCKYARD_FILTERS_QUORUM_QUORUM_H */
