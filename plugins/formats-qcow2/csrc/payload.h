/* SPDX-License-Identifier: Apache-2.0 */
/* payload.h - a request's memory: pieces of it, zeroes in it. */
#ifndef BLOCKYARD_QCOW2_PAYLOAD_H
#define BLOCKYARD_QCOW2_PAYLOAD_H

#include "image.h"

/* Fill `bytes` bytes that begin `skip` bytes into the payload with zeroes. */
void q2_payload_zero(const struct by_request *req, uint64_t skip,
                     uint64_t bytes);
/* Copy them to the buffer (out), or the buffer to them. */
void q2_payload_copy(const struct by_request *req, uint64_t skip, void *buffer,
                     uint64_t bytes, bool out);
/* A request of our own for that part of the payload. */
void q2_sub_request(struct by_request *sub, const struct by_request *of,
                    uint8_t op, uint64_t offset, uint64_t skip, uint64_t bytes,
                    void (*done)(struct by_request *, int), void *owner);

#endif /* BLOCKYARD_QCOW2_PAYLOAD_H */
