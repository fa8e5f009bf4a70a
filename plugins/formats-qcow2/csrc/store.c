/* SPDX-License-Identifier: Apache-2.0 */
/*
 * store.c - the file's bytes for table work: calls that wait.
 */
#include <errno.h>

#include "image.h"

static int transfer(struct by_node *node, uint8_t op, uint64_t offset,
                    const void *buffer, uint64_t bytes)
{
    struct iovec iov = { .iov_base = (void *)buffer, .iov_len = bytes };
    struct by_request req = {
        .size = sizeof(req), .op = op, .offset = offset, .bytes = bytes,
        .iov = &iov, .niov = 1, .flags = BY_REQ_STABLE,
    };

    return q2_api->wait(node, &req);
}

static bool is_offset(uint64_t offset, uint64_t bytes)
{
    return by_range_ok(offset, bytes, INT64_MAX);
}

int q2_pread(struct by_qcow2 *q, uint64_t offset, void *buffer, uint64_t bytes)
{
    uint64_t end = by_node_length(q->file);
    uint64_t there = offset < end ? end - offset : 0;

    if (!is_offset(offset, bytes)) {
        return -EFBIG;
    }
    if (there < bytes) {
        memset((char *)buffer + there, 0, bytes - there);
    } else {
        there = bytes;
    }
    return there ? transfer(q->file, BY_OP_READ, offset, buffer, there) : 0;
}

int q2_pwrite(struct by_qcow2 *q, uint64_t offset, const void *buffer,
              uint64_t bytes)
{
    if (!is_offset(offset, bytes)) {
        return -EFBIG;
    }
    return bytes ? transfer(q->file, BY_OP_WRITE, offset, buffer, bytes) : 0;
}

int q2_node_op(struct by_node *node, uint8_t op, uint32_t flags,
               uint64_t offset, uint64_t bytes)
{
    struct by_request req = {
        .size = sizeof(req), .op = op, .flags = flags, .offset = offset,
        .bytes = bytes,
    };

    if (!is_offset(offset, bytes)) {
        return -EFBIG;
    }
    return q2_api->wait(node, &req);
}

int q2_pzero(struct by_qcow2 *q, uint64_t offset, uint64_t bytes)
{
    return bytes ? q2_node_op(q->file, BY_OP_WRITE_ZEROES, 0, offset, bytes)
                 : 0;
}

int q2_node_truncate(struct by_node *node, uint64_t bytes, uint32_t prealloc)
{
    struct by_request req = {
        .size = sizeof(req), .op = BY_OP_TRUNCATE, .offset = bytes,
        .u.truncate.prealloc = prealloc,
    };

    return bytes > INT64_MAX ? -EFBIG : q2_api->wait(node, &req);
}

int q2_barrier(struct by_qcow2 *q)
{
    int result = q2_node_op(q->file, BY_OP_FLUSH, 0, 0, 0);

    if (result == 0 && q->data != q->file) {
        result = q2_node_op(q->data, BY_OP_FLUSH, 0, 0, 0);
    }
    return result;
}

int q2_header_put(struct by_qcow2 *q, uint32_t at, const void *value,
                  uint32_t bytes)
{
    return q2_pwrite(q, at, value, bytes);
}

int q2_header_put64(struct by_qcow2 *q, uint32_t at, uint64_t value)
{
    unsigned char field[8];

    q2_put64(field, value);
    return q2_header_put(q, at, field, sizeof(field));
}

int q2_incompatible(struct by_qcow2 *q, uint64_t set, uint64_t clear)
{
    uint64_t features = (q->set.incompatible | set) & ~clear;
    int result;

    if (features == q->set.incompatible) {
        return 0;
    }
    result = q2_header_put64(q, Q2_AT_INCOMPATIBLE, features);
    if (result == 0) {
        result = q2_barrier(q);
    }
    if (result == 0) {
        q->set.incompatible = features;
    }
    return result;
}
