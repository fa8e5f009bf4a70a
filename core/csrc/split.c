/* SPDX-License-Identifier: Apache-2.0 */
/*
 * split.c - requests larger than the driver takes, in pieces of which a few
 * run at a time.
 *
 * A piece is cut at the alignment, so that only the first and the last can be
 * unaligned; those alone are read, changed and written back.
 */
#include <errno.h>

#include "graph.h"

#define BY_PIECES 8 /* at a time */

struct by_splitting;

struct by_piece {
    struct by_request req;
    struct by_splitting *splitting;
    struct by_piece *next;      /* in idle */
};

struct by_splitting {
    struct by_frame frame;
    struct by_inode *inode;
    struct by_request *req;
    uint64_t at, left, skip, max;
    uint32_t running;
    int result;
    struct by_piece *idle;
    struct by_piece pieces[BY_PIECES];
};

/* Does this request pass through a buffer of core's? */
static bool bounces(const struct by_inode *inode, const struct by_request *req)
{
    return (req->op == BY_OP_READ || req->op == BY_OP_WRITE)
        && by_align_bounces(inode, req);
}

static uint64_t largest_piece(const struct by_inode *inode,
                              const struct by_request *req)
{
    uint64_t max = inode->plan[req->op].max_bytes;

    return bounces(inode, req) && max > BY_CHUNK ? BY_CHUNK : max;
}

static bool is_ragged(const struct by_inode *inode,
                      const struct by_request *req)
{
    return (req->op == BY_OP_WRITE_ZEROES || req->op == BY_OP_DISCARD)
        && ((req->offset | req->bytes) & inode->plan[req->op].align_mask);
}

/* A piece that others follow ends where the driver likes it, if it can: what
 * lies across two pieces would be neither's to discard. */
static uint64_t to_preferred(const struct by_splitting *s, uint64_t now)
{
    const struct by_limits *limits = &s->inode->node.limits;
    uint64_t unit = s->req->op == BY_OP_DISCARD ? limits->discard_alignment
        : s->req->op == BY_OP_WRITE_ZEROES ? limits->write_zeroes_alignment : 0;
    uint64_t over;

    if (unit == 0 || unit & s->inode->plan[s->req->op].align_mask) {
        return now;
    }
    over = (s->at + now) % unit;
    return over < now ? now - over : now;
}

/* How much of what is left the next piece takes. */
static uint64_t next_piece(const struct by_splitting *s)
{
    uint64_t mask = s->inode->plan[s->req->op].align_mask;
    uint64_t into = s->at & mask;
    uint64_t now = s->left;

    if (is_ragged(s->inode, s->req)) {
        if (into) {
            uint64_t head = mask + 1 - into;

            return now < head ? now : head;
        }
        if (now > mask && (now & mask)) {
            now &= ~mask;
        }
    }
    if (now > s->max - into) {
        now = s->max - into;
    }
    return now < s->left ? to_preferred(s, now) : now;
}

static void give_back(struct by_piece *piece)
{
    piece->next = piece->splitting->idle;
    piece->splitting->idle = piece;
    piece->splitting->running--;
}

static int issue(struct by_splitting *s);

static void piece_done(struct by_request *req, int result)
{
    struct by_piece *piece = (struct by_piece *)req;
    struct by_splitting *s = piece->splitting;

    give_back(piece);
    if (result < 0 && s->result == 0) {
        s->result = result;
    }
    result = issue(s);
    if (result != BY_PENDING) {
        by_complete(s->req, result);
    }
}

static int pass(struct by_inode *inode, struct by_request *req)
{
    return req->op == BY_OP_WRITE_ZEROES ? by_zeroes(inode, req)
                                         : by_align(inode, req);
}

static void start(struct by_splitting *s, uint64_t now)
{
    struct by_piece *piece = s->idle;
    int result;

    s->idle = piece->next;
    s->running++;
    by_request_init(&piece->req, s->req, s->req->op, s->at, now, piece_done,
                    NULL);
    piece->req.flags = s->req->flags;
    piece->req.iov = s->req->iov;
    piece->req.niov = s->req->niov;
    piece->req.iov_skip = s->skip;
    s->at += now;
    s->skip += now;
    s->left -= now;
    result = pass(s->inode, &piece->req);
    if (result != BY_PENDING) {
        give_back(piece);
        if (result < 0 && s->result == 0) {
            s->result = result;
        }
    }
}

/* The result, or BY_PENDING while pieces run. */
static int issue(struct by_splitting *s)
{
    while (s->left && s->idle && s->result == 0) {
        start(s, next_piece(s));
    }
    return s->running ? BY_PENDING : s->result;
}

static int splitting_done(struct by_request *req, struct by_frame *frame,
                          int result)
{
    (void)req;
    (void)frame;
    return result;
}

static int split(struct by_inode *inode, struct by_request *req, uint64_t max)
{
    struct by_splitting *s = (struct by_splitting *)
        by_frame_push(req, sizeof(*s), splitting_done);
    int result;

    if (!s) {
        return -ENOMEM;
    }
    s->inode = inode;
    s->req = req;
    s->at = req->offset;
    s->left = req->bytes;
    s->skip = req->iov_skip;
    s->max = max;
    s->running = 0;
    s->result = 0;
    s->idle = NULL;
    for (int i = 0; i < BY_PIECES; i++) {
        s->pieces[i].splitting = s;
        s->pieces[i].next = s->idle;
        s->idle = &s->pieces[i];
    }
    result = issue(s);
    if (result != BY_PENDING) {
        by_frame_pop(req);
    }
    return result;
}

int by_split(struct by_inode *inode, struct by_request *req)
{
    uint64_t max = largest_piece(inode, req);
    uint64_t into = req->offset & inode->plan[req->op].align_mask;

    /* Whole blocks have to fit, not only the bytes asked for. */
    if (likely(req->bytes <= max - into && !is_ragged(inode, req))) {
        return pass(inode, req);
    }
    return split(inode, req, max);
}
