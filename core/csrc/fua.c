/* SPDX-License-Identifier: Apache-2.0 */
/* fua.c - FUA on a driver that only knows flush. */
#include "graph.h"

struct by_fua {
    struct by_frame frame;
    struct by_inode *inode;
    struct by_request *req;
    struct by_request flush;
    bool flushed;
};

static void flush_done(struct by_request *flush, int result)
{
    struct by_fua *fua = flush->owner;

    fua->flushed = true;
    by_complete(fua->req, result);
}

/* First the request's own end, then the flush's. */
static int fua_done(struct by_request *req, struct by_frame *frame, int result)
{
    struct by_fua *fua = (struct by_fua *)frame;

    if (result < 0 || fua->flushed) {
        return result;
    }
    by_request_init(&fua->flush, req, BY_OP_FLUSH, 0, 0, flush_done, fua);
    return by_to_driver(fua->inode, &fua->flush);
}

bool by_fua_push(struct by_inode *inode, struct by_request *req)
{
    struct by_fua *fua = (struct by_fua *)by_frame_push(req, sizeof(*fua),
                                                        fua_done);

    if (!fua) {
        return false;
    }
    fua->inode = inode;
    fua->req = req;
    fua->flushed = false;
    return true;
}
