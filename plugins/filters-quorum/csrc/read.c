/* SPDX-License-Identifier: Apache-2.0 */
/*
 * read.c - reads: the first child that can be read, or all of them and a vote.
 *
 * The first child reads into the payload, the others into buffers.  As a rule
 * they all agree, and then comparing is all there is to do.  Somebody else
 * may change the payload meanwhile (a guest its memory): what is written to a
 * child that was outvoted comes from a buffer where there is one.
 */
#include <errno.h>
#include <string.h>

#include "quorum.h"

/* ---------------------------------------------------------------- contents */

/* Call `piece` for each part of the payload until it answers less than the
 * part's length; the bytes it has seen to in all. */
static uint64_t walk(const struct by_request *req, char *copy,
                     uint64_t (*piece)(char *payload, char *copy, uint64_t len))
{
    uint64_t skip = req->iov_skip, at = 0;

    for (uint32_t i = 0; i < req->niov && at < req->bytes; i++) {
        uint64_t len = req->iov[i].iov_len, left = req->bytes - at, done;

        if (skip >= len) {
            skip -= len;
            continue;
        }
        len = len - skip < left ? len - skip : left;
        done = piece((char *)req->iov[i].iov_base + skip, copy + at, len);
        at += done;
        if (done < len) {
            break;
        }
        skip = 0;
    }
    return at;
}

/* How many bytes are the same. */
static uint64_t same(char *a, char *b, uint64_t len)
{
    uint64_t n = 0;

    if (memcmp(a, b, len) == 0) {
        return len;
    }
    while (n < len && a[n] == b[n]) {
        n++;
    }
    return n;
}

static uint64_t copy_in(char *payload, char *copy, uint64_t len)
{
    memcpy(payload, copy, len);
    return len;
}

/* Where what the two have read differs first; the length: nowhere. */
static uint64_t difference(const struct by_ballot *ballot, uint32_t a,
                           uint32_t b)
{
    char *one = ballot->votes[a].copy, *other = ballot->votes[b].copy;

    if (one && other) {
        return same(one, other, ballot->req->bytes);
    }
    return walk(ballot->req, one ? one : other, same);
}

static bool agree(const struct by_ballot *ballot, uint32_t a, uint32_t b)
{
    return difference(ballot, a, b) == ballot->req->bytes;
}

/* ------------------------------------------------------------------ voting */

/* Sort what was read into versions; false: there is only one. */
static bool sort(struct by_ballot *ballot)
{
    uint32_t versions = 0;

    for (uint32_t i = 0; i < ballot->count; i++) {
        struct by_vote *vote = &ballot->votes[i];

        if (vote->result < 0) {
            continue;
        }
        vote->version = i;
        for (uint32_t j = 0; j < i; j++) {
            const struct by_vote *earlier = &ballot->votes[j];

            if (earlier->result == 0 && earlier->version == j
                && agree(ballot, j, i)) {
                vote->version = j;
                break;
            }
        }
        versions += vote->version == i;
    }
    return versions > 1;
}

static uint32_t votes_for(const struct by_ballot *ballot, uint32_t version)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < ballot->count; i++) {
        n += ballot->votes[i].result == 0
            && ballot->votes[i].version == version;
    }
    return n;
}

/* The version with most votes, how many these are in *votes; of several, the
 * one that was first seen last. */
static uint32_t winner_of(const struct by_ballot *ballot, uint32_t *votes)
{
    uint32_t winner = 0;

    *votes = 0;
    for (uint32_t i = 0; i < ballot->count; i++) {
        uint32_t n = ballot->votes[i].result == 0
            && ballot->votes[i].version == i ? votes_for(ballot, i) : 0;

        if (n && n >= *votes) {
            *votes = n;
            winner = i;
        }
    }
    return winner;
}

/* The versions that lost, and in each its children, from the last. */
static void report_outvoted(struct by_ballot *ballot, uint32_t winner)
{
    for (uint32_t v = ballot->count; v-- > 0;) {
        if (v == winner) {
            continue;
        }
        for (uint32_t i = ballot->count; i-- > v;) {
            if (ballot->votes[i].result == 0 && ballot->votes[i].version == v) {
                by_vote_report(ballot, BY_QUORUM_BAD_READ, i, 0);
            }
        }
    }
}

/* A child whose buffer has the version, or the version itself. */
static uint32_t holder_of(const struct by_ballot *ballot, uint32_t version)
{
    for (uint32_t i = version; i < ballot->count; i++) {
        if (ballot->votes[i].result == 0 && ballot->votes[i].copy
            && ballot->votes[i].version == version) {
            return i;
        }
    }
    return version;
}

/* The reader gets the version; it was read into the payload, or is copied. */
static void deliver(const struct by_ballot *ballot, uint32_t version)
{
    if (ballot->votes[version].copy) {
        walk(ballot->req, ballot->votes[version].copy, copy_in);
    }
}

/* The reader is told nothing of a child that cannot be corrected. */
static int rewritten(struct by_ballot *ballot)
{
    (void)ballot;
    return 0;
}

/* Nothing that changes this range runs before the ballot ends. */
static int rewrite(struct by_ballot *ballot, uint32_t winner)
{
    uint32_t holder = holder_of(ballot, winner);

    ballot->counted = rewritten;
    by_ballot_hold(ballot);
    for (uint32_t i = 0; i < ballot->count; i++) {
        struct by_request *sub;

        if (ballot->votes[i].result < 0 || ballot->votes[i].version == winner) {
            continue;
        }
        sub = by_vote_prepare(ballot, i);
        sub->op = BY_OP_WRITE;
        sub->flags = 0;
        if (ballot->votes[holder].copy) {
            sub->flags = BY_REQ_STABLE;
            sub->iov = &ballot->votes[holder].iov;
            sub->niov = 1;
            sub->iov_skip = 0;
        }
        by_vote_send(ballot, i);
    }
    return by_ballot_count(ballot);
}

static int disagreed(struct by_ballot *ballot)
{
    const struct by_quorum_settings *settings =
        &by_quorum_of(ballot)->settings;
    uint32_t votes, winner = winner_of(ballot, &votes);

    if (settings->blkverify) {
        by_vote_report(ballot, BY_QUORUM_DIFFERENCE, 0,
                       (int)difference(ballot, 0, 1));
        return -EIO;
    }
    if (votes < settings->threshold) {
        by_vote_report(ballot, BY_QUORUM_FAILURE, 0, 0);
        return -EIO;
    }
    report_outvoted(ballot, winner);
    deliver(ballot, winner);
    return settings->rewrite ? rewrite(ballot, winner) : 0;
}

static uint32_t first_good(const struct by_ballot *ballot)
{
    uint32_t i = 0;

    while (ballot->votes[i].result < 0) {
        i++;
    }
    return i;
}

static int voted(struct by_ballot *ballot)
{
    uint32_t good = by_vote_failures(ballot, BY_QUORUM_BAD_READ);

    if (good < by_quorum_of(ballot)->settings.threshold) {
        by_vote_report(ballot, BY_QUORUM_FAILURE, 0, 0);
        return by_vote_error(ballot);
    }
    if (sort(ballot)) {
        return disagreed(ballot);
    }
    deliver(ballot, first_good(ballot));
    return 0;
}

/* ------------------------------------------------------------------ asking */

static bool make_copies(struct by_ballot *ballot)
{
    const struct by_request *req = ballot->req;

    for (uint32_t i = 1; i < ballot->count; i++) {
        struct by_vote *vote = &ballot->votes[i];

        vote->copy = by_quorum_api->buffer_get(req->loop, req->bytes);
        if (!vote->copy) {
            return false;
        }
        vote->iov = (struct iovec) { vote->copy, req->bytes };
    }
    return true;
}

static int read_all(struct by_ballot *ballot)
{
    if (!make_copies(ballot)) {
        return -ENOMEM;
    }
    ballot->counted = voted;
    by_ballot_hold(ballot);
    for (uint32_t i = 0; i < ballot->count; i++) {
        struct by_request *sub = by_vote_prepare(ballot, i);

        if (i) {
            sub->iov = &ballot->votes[i].iov;
            sub->niov = 1;
            sub->iov_skip = 0;
            sub->flags &= ~BY_REQ_REGISTERED;
        }
        by_vote_send(ballot, i);
    }
    return by_ballot_count(ballot);
}

/* The child in turn has failed, and there is another. */
static bool fails_over(struct by_ballot *ballot)
{
    int result = ballot->votes[ballot->turn].result;

    if (result == 0) {
        return false;
    }
    by_vote_report(ballot, BY_QUORUM_BAD_READ, ballot->turn, result);
    if (ballot->turn + 1 == ballot->count) {
        return false;
    }
    ballot->turn++;
    return true;
}

static int read_one(struct by_ballot *ballot)
{
    do {
        by_vote_prepare(ballot, ballot->turn);
        by_vote_send(ballot, ballot->turn);
        if (ballot->running) {
            return BY_PENDING;
        }
    } while (fails_over(ballot));
    return ballot->votes[ballot->turn].result;
}

static int read_late(struct by_ballot *ballot)
{
    return fails_over(ballot) ? read_one(ballot)
                              : ballot->votes[ballot->turn].result;
}

int by_quorum_read(struct by_ballot *ballot)
{
    if (by_quorum_of(ballot)->settings.fifo) {
        ballot->counted = read_late;
        return read_one(ballot);
    }
    return read_all(ballot);
}
