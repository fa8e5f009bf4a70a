/* SPDX-License-Identifier: Apache-2.0 */
/*
 * zeroes.c - one piece of a request to write zeroes: by the driver, or, where
 * it cannot, by writing zeroes from one shared buffer, a chunk after the
 * other.  The other pieces are the driver's all the same.
 */
#include <errno.h>

#include "graph.h"

static const char zero_bytes[BY_CHUNK] __attribute__((aligned(4096)));
const struct iovec by_zero_iov = {
    .iov_base = (void *)zero_bytes,
    .iov_len = BY_CHUNK,
};

struct by_zeroing {
    struct by_frame frame;
    struct by_inode *inode;
    struct by_request *req;
    struct by_request piece;
    uint64_t offset, left;
    bool writing;
};

static void piece_done(struct by_request *piece, int result)
{
    struct by_zeroing *z = piece->owner;

    by_complete(z->req, result);
}

static int write_next(struct by_zeroing *z)
{
    int result = 0;

    while (z->left && result == 0) {
        uint64_t now = z->left < BY_CHUNK ? z->left : BY_CHUNK;

        by_request_init(&z->piece, z->req, BY_OP_WRITE, z->offset, now,
                        piece_done, z);
        z->piece.flags |= BY_REQ_STABLE | (z->req->flags & BY_REQ_FUA);
        z->piece.iov = &by_zero_iov;
        z->piece.niov = 1;
        z->offset += now;
        z->left -= now;
        result = by_split(z->inode, &z->piece);
    }
    return result;
}

static int zeroing_done(struct by_request *req, struct by_frame *frame,
                        int result)
{
    struct by_zeroing *z = (struct by_zeroing *)frame;

    if (z->writing) {
        return result < 0 ? result : write_next(z);
    }
    if (result != -ENOTSUP || (req->flags & BY_REQ_NO_FALLBACK)) {
        return result;
    }
    z->writing = true;
    return write_next(z);
}

int by_zeroes(struct by_inode *inode, struct by_request *req)
{
    struct by_zeroing *z = (struct by_zeroing *)
        by_frame_push(req, sizeof(*z), zeroing_done);
    int result;

    if (!z) {
        return -ENOMEM;
    }
    z->inode = inode;
    z->req = req;
    z->offset = req->offset;
    z->left = req->bytes;
    z->writing = false;
    result = inode->node.ops->serves & BY_OP_BIT(BY_OP_WRITE_ZEROES)
        ? by_align(inode, req) : -ENOTSUP;
    if (result != BY_PENDING) {
        result = zeroing_done(req, &z->frame, result);
    }
    if (result != BY_PENDING) {
        by_frame_pop(req);
    }
    return result;
}
