/* SPDX-License-Identifier: Apache-2.0 */
/*
 * raw.c - the image is the file, or a part of it.
 *
 * Requests are forwarded as they are, with the offset moved; core puts back
 * what the layer above had set.  Only what core does not put back, or what
 * has a result to look at, takes a frame.
 */
#include <errno.h>
#include <stdlib.h>

#include "raw.h"

const struct by_api *by_raw_api;

struct by_raw_frame {
    struct by_frame frame;
    struct by_node *node;
    uint64_t offset;                /* as the layer above set it */
    struct by_node *copy_target;
    uint64_t copy_target_offset;
};

/* Where the image's bytes are in the file, or -errno: a part of a file that
 * was given as a part must not be left. */
static int place(const struct by_node *node, const struct by_request *req,
                 uint64_t *offset)
{
    const struct by_raw_settings *s = by_raw_settings_of(node);

    if (s->fixed && !by_range_ok(req->offset, req->bytes, s->size)) {
        return req->op == BY_OP_READ || req->op == BY_OP_BLOCK_STATUS
            ? -EINVAL : -ENOSPC;
    }
    if (s->offset > INT64_MAX || req->offset > INT64_MAX - s->offset) {
        return -EINVAL;
    }
    *offset = req->offset + s->offset;
    return 0;
}

static int forward(struct by_node *node, struct by_request *req)
{
    uint64_t offset;
    int result = place(node, req, &offset);

    if (result < 0) {
        return result;
    }
    req->offset = offset;
    return by_raw_api->submit(node->children[0], req);
}

static bool needs_guard(const struct by_node *node,
                        const struct by_request *req)
{
    return by_raw_settings_of(node)->guarded && req->bytes
        && req->offset < BY_RAW_SECTOR;
}

/* ---------------------------------------------------------- with a frame */

static struct by_raw_frame *push(struct by_node *node, struct by_request *req,
        int (*done)(struct by_request *, struct by_frame *, int))
{
    struct by_raw_frame *f = (struct by_raw_frame *)
        by_raw_api->frame_push(req, sizeof(*f), done);

    if (f) {
        f->node = node;
        f->offset = req->offset;
    }
    return f;
}

/* Ended at once: nobody but us runs done and takes the frame off. */
static int end_now(struct by_request *req, int result)
{
    if (result != BY_PENDING) {
        result = req->frame->done(req, req->frame, result);
        by_raw_api->frame_pop(req);
    }
    return result;
}

static int status_done(struct by_request *req, struct by_frame *frame,
                       int result)
{
    req->offset = ((struct by_raw_frame *)frame)->offset;
    return result;
}

/* The child's answer is the image's, at another place. */
static int status(struct by_node *node, struct by_request *req)
{
    if (!by_raw_settings_of(node)->offset) {
        return forward(node, req);
    }
    return push(node, req, status_done)
        ? end_now(req, forward(node, req)) : -ENOMEM;
}

static int truncate_done(struct by_request *req, struct by_frame *frame,
                         int result)
{
    struct by_raw_frame *f = (struct by_raw_frame *)frame;
    uint64_t length = by_node_length(f->node->children[0]);
    uint64_t offset = by_raw_settings_of(f->node)->offset;

    req->offset = f->offset;
    if (result == 0) {
        by_raw_api->node_set_length(f->node,
                                    length > offset ? length - offset : 0);
    }
    return result;
}

static int truncate_file(struct by_node *node, struct by_request *req)
{
    if (by_raw_settings_of(node)->fixed) {
        return -ENOTSUP;
    }
    return push(node, req, truncate_done)
        ? end_now(req, forward(node, req)) : -ENOMEM;
}

static int copy_done(struct by_request *req, struct by_frame *frame,
                     int result)
{
    struct by_raw_frame *f = (struct by_raw_frame *)frame;

    req->u.copy.target = f->copy_target;
    req->u.copy.target_offset = f->copy_target_offset;
    return result;
}

static int submit(struct by_node *node, struct by_request *req);

/* Where the copied bytes go below `target`, if that is one of ours. */
static int place_copy(const struct by_node *target,
                      const struct by_request *req, uint64_t *offset)
{
    const struct by_request to = {
        .op = BY_OP_WRITE,
        .offset = req->u.copy.target_offset,
        .bytes = req->bytes,
    };

    return target->ops->submit != submit || needs_guard(target, &to)
        ? -ENOTSUP : place(target, &to, offset);
}

static int copy(struct by_node *node, struct by_request *req)
{
    struct by_node *target = req->u.copy.target;
    uint64_t offset = 0;
    int result = target ? place_copy(target, req, &offset) : -ENOTSUP;
    struct by_raw_frame *f;

    if (result < 0) {
        return result;
    }
    f = push(node, req, copy_done);
    if (!f) {
        return -ENOMEM;
    }
    f->copy_target = target;
    f->copy_target_offset = req->u.copy.target_offset;
    req->u.copy.target = target->children[0];
    req->u.copy.target_offset = offset;
    return end_now(req, forward(node, req));
}

/* ------------------------------------------------------------- the table */

static int submit(struct by_node *node, struct by_request *req)
{
    switch (req->op) {
    case BY_OP_FLUSH:
        by_debug_event(node->children[0], BY_DEBUG_FLUSH_TO_OS);
        by_debug_event(node->children[0], BY_DEBUG_FLUSH_TO_DISK);
        return by_raw_api->submit(node->children[0], req);
    case BY_OP_BLOCK_STATUS:
        return status(node, req);
    case BY_OP_TRUNCATE:
        return truncate_file(node, req);
    case BY_OP_COPY_RANGE:
        return copy(node, req);
    case BY_OP_READ:
        by_debug_event(node->children[0], BY_DEBUG_READ_AIO);
        return forward(node, req);
    case BY_OP_WRITE:
        if (needs_guard(node, req)) {
            return by_raw_guarded_write(node, req);
        }
        by_debug_event(node->children[0], BY_DEBUG_WRITE_AIO);
        return forward(node, req);
    default:
        return forward(node, req);
    }
}

#define EVERY_FLAG (BY_REQ_FUA | BY_REQ_MAY_UNMAP | BY_REQ_NO_FALLBACK       \
    | BY_REQ_WRITE_UNCHANGED | BY_REQ_REGISTERED | BY_REQ_STABLE)

static const struct by_node_ops ops = {
    .size = sizeof(ops),
    .abi = BY_ABI_VERSION,
    .name = "raw",
    .capabilities = BY_CAP_ANY_LOOP | BY_CAP_ZERO_NEW | BY_CAP_FAST_ZERO,
    .serves = BY_OP_BIT(BY_OP_COUNT) - 1,
    .flags = {
        [BY_OP_READ] = EVERY_FLAG,
        [BY_OP_WRITE] = EVERY_FLAG,
        [BY_OP_WRITE_ZEROES] = EVERY_FLAG,
        [BY_OP_DISCARD] = EVERY_FLAG,
        [BY_OP_COPY_RANGE] = EVERY_FLAG,
    },
    .submit = submit,
};

uintptr_t by_raw_ops(void)
{
    return (uintptr_t)&ops;
}

int by_raw_init(uintptr_t address)
{
    const struct by_api *table = (const struct by_api *)address;

    if (!table || table->abi != BY_ABI_VERSION
        || table->size < sizeof(*table)) {
        return -EPROTO;
    }
    by_raw_api = table;
    return 0;
}

void by_raw_change(struct by_raw *raw, const struct by_raw_settings *settings)
{
    raw->settings = *settings;
}

struct by_raw *by_raw_create(const struct by_raw_settings *settings)
{
    struct by_raw *raw = malloc(sizeof(*raw));

    if (raw) {
        by_raw_change(raw, settings);
    }
    return raw;
}

void by_raw_free(struct by_raw *raw)
{
    free(raw);
}
