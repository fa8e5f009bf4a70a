/* SPDX-License-Identifier: Apache-2.0 */
/*
 * node.c - the requests of an encrypted disk.
 *
 * What is on the disk passes through a buffer of the loop's, both ways:
 * whoever owns the payload may look at it or change it at any time, and must
 * find neither the disk's text nor half of a sector's work in it.  Short
 * requests are worked on at once, longer ones in the pool, and those by as
 * many threads as there are requests.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "luks.h"

static const struct by_api *api;

struct by_luks {
    struct by_crypto *crypto;
    uint64_t payload_offset;
};

struct luks_frame {
    struct by_frame frame;
    struct by_node *node;
    struct by_request *req;
    struct iovec buffer;
    /* As the layer above set them. */
    const struct iovec *iov;
    uint64_t iov_skip;
    uint64_t offset;
    uint32_t niov;
    bool worked;                    /* the cipher has done its part */
    struct by_work work;
};

static const struct by_luks *luks_of(const struct by_node *node)
{
    return node->state;
}

/* ----------------------------------------------------- buffer and payload */

static void copy(const struct luks_frame *f, bool out)
{
    uint64_t skip = f->iov_skip, left = f->buffer.iov_len;
    char *at = f->buffer.iov_base;

    for (uint32_t i = 0; i < f->niov && left; i++) {
        uint64_t len = f->iov[i].iov_len;
        char *payload = (char *)f->iov[i].iov_base + skip;

        if (skip >= len) {
            skip -= len;
            continue;
        }
        len = len - skip < left ? len - skip : left;
        memcpy(out ? payload : at, out ? at : payload, len);
        at += len;
        left -= len;
        skip = 0;
    }
}

/* On any thread. */
static int run_cipher(struct luks_frame *f)
{
    struct by_crypto *crypto = luks_of(f->node)->crypto;
    int result;

    if (f->req->op == BY_OP_WRITE) {
        copy(f, false);
        return crypto->encrypt(crypto, f->offset, f->buffer.iov_base,
                               f->buffer.iov_len);
    }
    result = crypto->decrypt(crypto, f->offset, f->buffer.iov_base,
                             f->buffer.iov_len);
    if (result == 0) {
        copy(f, true);
    }
    return result;
}

static int run_work(struct by_work *work)
{
    return run_cipher(work->owner);
}

static int to_pool(struct luks_frame *f,
                   void (*done)(struct by_work *work, int result))
{
    f->work.run = run_work;
    f->work.done = done;
    f->work.owner = f;
    api->pool_submit(f->req->loop, &f->work);
    return BY_PENDING;
}

static bool is_short(const struct luks_frame *f)
{
    return f->buffer.iov_len <= luks_of(f->node)->crypto->inline_bytes;
}

/* ---------------------------------------------------------------- the way */

static void read_worked(struct by_work *work, int result)
{
    struct luks_frame *f = work->owner;

    f->worked = true;
    api->complete(f->req, result);
}

static int transfer_done(struct by_request *req, struct by_frame *frame,
                         int result)
{
    struct luks_frame *f = (struct luks_frame *)frame;

    if (result == 0 && !f->worked) {
        if (!is_short(f)) {
            return to_pool(f, read_worked);
        }
        result = run_cipher(f);
    }
    api->buffer_put(req->loop, f->buffer.iov_base, f->buffer.iov_len);
    return result;
}

static int send(struct luks_frame *f)
{
    struct by_request *req = f->req;

    req->iov = &f->buffer;
    req->niov = 1;
    req->iov_skip = 0;
    req->flags &= ~BY_REQ_REGISTERED;
    req->flags |= BY_REQ_STABLE;
    req->offset = f->offset + luks_of(f->node)->payload_offset;
    return api->submit(f->node->children[0], req);
}

static void write_worked(struct by_work *work, int result)
{
    struct luks_frame *f = work->owner;

    f->worked = true;
    if (result == 0) {
        result = send(f);
    }
    if (result != BY_PENDING) {
        api->complete(f->req, result);
    }
}

static int begin(struct luks_frame *f)
{
    int result;

    if (f->req->op == BY_OP_READ) {
        return send(f);
    }
    if (!is_short(f)) {
        return to_pool(f, write_worked);
    }
    result = run_cipher(f);
    f->worked = true;
    return result == 0 ? send(f) : result;
}

static int transfer(struct by_node *node, struct by_request *req)
{
    struct luks_frame *f = (struct luks_frame *)
        api->frame_push(req, sizeof(*f), transfer_done);
    int result;

    if (!f) {
        return -ENOMEM;
    }
    f->node = node;
    f->req = req;
    f->iov = req->iov;
    f->niov = req->niov;
    f->iov_skip = req->iov_skip;
    f->offset = req->offset;
    f->worked = false;
    memset(&f->work, 0, sizeof(f->work));
    f->buffer.iov_len = req->bytes;
    f->buffer.iov_base = api->buffer_get(req->loop, req->bytes);
    if (!f->buffer.iov_base) {
        api->frame_pop(req);
        return -ENOMEM;
    }
    result = begin(f);
    if (result != BY_PENDING) {
        result = transfer_done(req, &f->frame, result);
    }
    if (result != BY_PENDING) {
        api->frame_pop(req);
    }
    return result;
}

/* ----------------------------------------------------------------- length */

struct resize_frame {
    struct by_frame frame;
    struct by_node *node;
    uint64_t payload_offset;
};

static int resized(struct by_request *req, struct by_frame *frame, int result)
{
    struct resize_frame *f = (struct resize_frame *)frame;
    uint64_t length = by_node_length(f->node->children[0]);

    (void)req;
    if (result == 0) {
        length -= length < f->payload_offset ? length : f->payload_offset;
        api->node_set_length(f->node, (length + BY_LUKS_SECTOR - 1)
                                      / BY_LUKS_SECTOR * BY_LUKS_SECTOR);
    }
    return result;
}

static int resize(struct by_node *node, struct by_request *req)
{
    uint64_t payload = luks_of(node)->payload_offset;
    struct resize_frame *f;
    int result;

    if (req->offset > INT64_MAX - payload) {
        return -EFBIG;
    }
    f = (struct resize_frame *)api->frame_push(req, sizeof(*f), resized);
    if (!f) {
        return -ENOMEM;
    }
    f->node = node;
    f->payload_offset = payload;
    req->offset += payload;
    result = api->submit(node->children[0], req);
    if (result != BY_PENDING) {
        result = resized(req, &f->frame, result);
        api->frame_pop(req);
    }
    return result;
}

/* -------------------------------------------------------------- the table */

static int submit(struct by_node *node, struct by_request *req)
{
    switch (req->op) {
    case BY_OP_READ:
    case BY_OP_WRITE:
        /* Opened to tell about itself: there is no key. */
        return luks_of(node)->crypto ? transfer(node, req) : -EACCES;
    case BY_OP_TRUNCATE:
        return resize(node, req);
    case BY_OP_PREFETCH:
        req->offset += luks_of(node)->payload_offset;
        return api->submit(node->children[0], req);
    case BY_OP_FLUSH:
        return api->submit(node->children[0], req);
    default:
        return -ENOTSUP;
    }
}

static const struct by_node_ops ops = {
    .size = sizeof(ops),
    .abi = BY_ABI_VERSION,
    .name = "luks",
    .capabilities = BY_CAP_ANY_LOOP,
    .serves = BY_OP_BIT(BY_OP_READ) | BY_OP_BIT(BY_OP_WRITE)
        | BY_OP_BIT(BY_OP_FLUSH) | BY_OP_BIT(BY_OP_TRUNCATE)
        | BY_OP_BIT(BY_OP_PREFETCH),
    .flags = {
        [BY_OP_READ] = BY_REQ_REGISTERED | BY_REQ_STABLE,
        [BY_OP_WRITE] = BY_REQ_FUA | BY_REQ_WRITE_UNCHANGED
            | BY_REQ_REGISTERED | BY_REQ_STABLE,
    },
    .submit = submit,
};

uintptr_t by_luks_ops(void)
{
    return (uintptr_t)&ops;
}

int by_luks_init(uintptr_t address)
{
    const struct by_api *table = (const struct by_api *)address;

    if (!table || table->abi != BY_ABI_VERSION
        || table->size < sizeof(*table)) {
        return -EPROTO;
    }
    api = table;
    return 0;
}

struct by_luks *by_luks_create(struct by_crypto *crypto,
                               uint64_t payload_offset)
{
    struct by_luks *luks = malloc(sizeof(*luks));

    if (luks) {
        luks->crypto = crypto;
        luks->payload_offset = payload_offset;
    }
    return luks;
}

void by_luks_free(struct by_luks *luks)
{
    free(luks);
}
