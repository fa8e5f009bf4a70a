/* SPDX-License-Identifier: Apache-2.0 */
/* compressed.h - compressed clusters. */
#ifndef BLOCKYARD_QCOW2_COMPRESSED_H
#define BLOCKYARD_QCOW2_COMPRESSED_H

#include "requests.h"

/* inflate.c, any thread: fill `out` from the beginning of `in`, behind whose
 * data anything may follow.  0, -EIO: that does not give `out_bytes` bytes;
 * -ENOMEM. */
int q2_inflate(uint32_t compression, const void *in, size_t in_bytes,
               void *out, size_t out_bytes);
/* deflate.c, any thread.  Bytes of what was made; 0: it does not fit in
 * out_bytes; -errno. */
int64_t q2_deflate(uint32_t compression, const void *in, size_t in_bytes,
                   void *out, size_t out_bytes);

/* ------------------------------------------------------------ inflated.c */

/* A cluster in the clear: there, or being made by whoever got it first. */
struct q2_plain {
    struct q2_plain *newer, *older;
    uint64_t at;                /* of its data in the file; 0: unused */
    uint32_t users;
    bool making;
    struct q2_wait *waiters;    /* while it is made */
    unsigned char *data;        /* cluster_size bytes */
};

int q2_inflated_init(struct by_qcow2 *q);
void q2_inflated_free(struct by_qcow2 *q);
/* On a loop.  The cluster whose data are at `at`, with one more user.  1: the
 * caller has to make it and says so by q2_plain_made; 0: it is there;
 * -EAGAIN: somebody makes it, or there is no room; wait is woken. */
int q2_plain_get(struct by_qcow2 *q, uint64_t at, struct q2_wait *wait,
                 struct q2_plain **out);
void q2_plain_made(struct by_qcow2 *q, struct q2_plain *plain, int result);
void q2_plain_put(struct by_qcow2 *q, struct q2_plain *plain);
/* The data at `at` are others now. */
void q2_plain_forget(struct by_qcow2 *q, uint64_t at);

/* ---------------------------------------------------------- L2's entries */

/* Section "Compressed Clusters Descriptor". */
static inline uint64_t q2_packed_at(const struct by_qcow2 *q, uint64_t entry)
{
    return entry & q->coffset_mask;
}

static inline uint64_t q2_packed_bytes(const struct by_qcow2 *q,
                                       uint64_t entry)
{
    uint64_t sectors = ((entry >> q->csize_shift) & q->csize_mask) + 1;

    return sectors * Q2_SECTOR - (q2_packed_at(q, entry) & (Q2_SECTOR - 1));
}

static inline uint64_t q2_packed_entry(const struct by_qcow2 *q, uint64_t at,
                                       uint64_t bytes)
{
    uint64_t more = (at + bytes - 1) / Q2_SECTOR - at / Q2_SECTOR;

    return Q2_COMPRESSED | more << q->csize_shift | at;
}

#endif /* BLOCKYARD_QCOW2_COMPRESSED_H */
