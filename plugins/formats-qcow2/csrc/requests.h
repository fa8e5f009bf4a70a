/* SPDX-License-Identifier: Apache-2.0 */
/* requests.h - what serves requests, and a request's memory. */
#ifndef BLOCKYARD_QCOW2_REQUESTS_H
#define BLOCKYARD_QCOW2_REQUESTS_H

#include "image.h"

/* These take requests as by_node_ops.submit does, and may be given requests
 * of our own that no node has seen.  read.c, write.c, zeroes.c, status.c. */
int q2_read(struct by_qcow2 *q, struct by_request *req);
int q2_write(struct by_qcow2 *q, struct by_request *req);
int q2_write_zeroes(struct by_qcow2 *q, struct by_request *req);
int q2_discard(struct by_qcow2 *q, struct by_request *req);
int q2_status(struct by_qcow2 *q, struct by_request *req);
/* sizing.c: BY_OP_TRUNCATE.  q->resize_why says why it failed. */
int q2_truncate(struct by_qcow2 *q, struct by_request *req);
/* compressed_read.c, compressed_write.c: read from the compressed cluster of this L2 entry; the
 * request's offset is the guest's.  Write `req`, compressed. */
int q2_read_compressed(struct by_qcow2 *q, uint64_t entry,
                       struct by_request *req);
int q2_write_compressed(struct by_qcow2 *q, struct by_request *req);
/* encrypted.c: the request's offset is the data file's, `guest` the disk's. */
int q2_read_encrypted(struct by_qcow2 *q, uint64_t guest,
                      struct by_request *req);
int q2_write_encrypted(struct by_qcow2 *q, uint64_t guest,
                       struct by_request *req);

/* allocs.c, under lock: guest clusters whose mapping is about to change.
 * How many bytes of [guest, guest + bytes) no change touches, from guest on;
 * 0: *holder changes the first. */
uint64_t q2_alloc_clear(struct by_qcow2 *q, uint64_t guest, uint64_t bytes,
                        struct q2_alloc **holder);
void q2_alloc_enter(struct by_qcow2 *q, struct q2_alloc *alloc);
/* Takes it out and wakes who waits. */
void q2_alloc_leave(struct by_qcow2 *q, struct q2_alloc *alloc);

/* -------------------------------------------------------------- payload.c */

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

#endif /* BLOCKYARD_QCOW2_REQUESTS_H */
