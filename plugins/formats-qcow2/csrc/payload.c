/* SPDX-License-Identifier: Apache-2.0 */
/* payload.c - a request's memory: pieces of it, zeroes in it. */
#include "requests.h"

void q2_payload_zero(const struct by_request *req, uint64_t skip,
                     uint64_t bytes)
{
    skip += req->iov_skip;
    for (uint32_t i = 0; i < req->niov && bytes; i++) {
        uint64_t len = req->iov[i].iov_len;

        if (skip >= len) {
            skip -= len;
            continue;
        }
        len = len - skip < bytes ? len - skip : bytes;
        memset((char *)req->iov[i].iov_base + skip, 0, len);
        bytes -= len;
        skip = 0;
    }
}

void q2_payload_copy(const struct by_request *req, uint64_t skip, void *buffer,
                     uint64_t bytes, bool out)
{
    char *at = buffer;

    skip += req->iov_skip;
    for (uint32_t i = 0; i < req->niov && bytes; i++) {
        uint64_t len = req->iov[i].iov_len;
        char *memory;

        if (skip >= len) {
            skip -= len;
            continue;
        }
        memory = (char *)req->iov[i].iov_base + skip;
        len = len - skip < bytes ? len - skip : bytes;
        memcpy(out ? at : memory, out ? memory : at, len);
        at += len;
        bytes -= len;
        skip = 0;
    }
}

void q2_sub_request(struct by_request *sub, const struct by_request *of,
                    uint8_t op, uint64_t offset, uint64_t skip, uint64_t bytes,
                    void (*done)(struct by_request *, int), void *owner)
{
    *sub = (struct by_request) {
        .size = sizeof(*sub),
        .op = op,
        .flags = of->flags & (BY_REQ_WRITE_UNCHANGED | BY_REQ_STABLE
                              | BY_REQ_REGISTERED),
        .niov = of->niov,
        .iov = of->iov,
        .iov_skip = of->iov_skip + skip,
        .offset = offset,
        .bytes = bytes,
        .loop = of->loop,
        .done = done,
        .owner = owner,
    };
}
