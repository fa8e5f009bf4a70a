/* SPDX-License-Identifier: Apache-2.0 */
/* shrink_refcounts.c - refcount blocks that count nothing are given back. */
#include <errno.h>
#include <stdlib.h>

#include "tables.h"

/* The slice of the block counts nothing but, perhaps, the block. */
static bool counts_nothing(const struct by_qcow2 *q,
                           const struct q2_slice *slice, uint64_t first,
                           uint64_t self)
{
    uint64_t entries = 1ull << q->rb_slice_bits;

    if (q2_api->is_zero(slice->table, q->rb.slice_bytes)) {
        return true;
    }
    if (self < first || self >= first + entries) {
        return false;
    }
    for (uint64_t i = 0; i < entries; i++) {
        if (first + i != self && q2_refcount_read(q, slice->table, i)) {
            return false;
        }
    }
    return q2_refcount_read(q, slice->table, self - first) == 1;
}

/* 1: the block is unused, and out of the refcount table in memory. */
static int take_out(struct by_qcow2 *q, uint32_t index)
{
    uint64_t block = q->reftable[index] & Q2_REFT_OFFSET_MASK;
    uint64_t first = (uint64_t)index << q->refblock_bits;
    uint32_t n = q->cluster_size / q->rb.slice_bytes, got = 0;
    struct q2_slice **slices = calloc(n, sizeof(*slices));
    bool unused = true;
    int result = slices ? 0 : -ENOMEM;

    while (result == 0 && unused && got < n) {
        result = q2_cache_get(q, &q->rb, block + (uint64_t)got
                              * q->rb.slice_bytes, &slices[got]);
        if (result == 0) {
            unused = counts_nothing(q, slices[got], first + ((uint64_t)got
                                    << q->rb_slice_bits),
                                    q2_cluster(q, block));
            got++;
        }
    }
    pthread_mutex_lock(&q->lock);
    for (uint32_t i = 0; i < got; i++) { /* again: nothing moves now */
        unused = unused && counts_nothing(q, slices[i], first + ((uint64_t)i
                                          << q->rb_slice_bits),
                                          q2_cluster(q, block));
        q2_cache_unpin(&q->rb, slices[i]);
    }
    if (result == 0 && unused) {
        q->reftable[index] = 0;
    }
    pthread_mutex_unlock(&q->lock);
    free(slices);
    return result < 0 ? result : unused;
}

static int write_entries(struct by_qcow2 *q, uint32_t from, uint32_t to)
{
    uint64_t bytes = (uint64_t)(to - from) * 8, *raw = malloc(bytes);
    uint64_t offset = q->reftable_offset + (uint64_t)from * 8;
    int result;

    if (!raw) {
        return -ENOMEM;
    }
    for (uint32_t i = from; i < to; i++) {
        raw[i - from] = htobe64(q->reftable[i]);
    }
    pthread_mutex_lock(&q->lock);
    result = q2_overlap_check(q, BY_QCOW2_OL_REFCOUNT_TABLE, offset, bytes);
    pthread_mutex_unlock(&q->lock);
    if (result == 0) {
        result = q2_pwrite(q, offset, raw, bytes);
    }
    free(raw);
    return result < 0 ? result : q2_barrier(q);
}

/* The blocks are nobody's now. */
static int give_back(struct by_qcow2 *q, const uint64_t *blocks, uint32_t from,
                     uint32_t to)
{
    int first = 0;

    for (uint32_t i = from; i < to; i++) {
        uint64_t block = blocks[i - from];
        int result = 0;

        if (!block) {
            continue;
        }
        pthread_mutex_lock(&q->lock);
        q2_cache_forget(&q->rb, block, q->cluster_size);
        q2_map_remove(q, block, q->cluster_size, BY_QCOW2_OL_REFCOUNT_BLOCK);
        pthread_mutex_unlock(&q->lock);
        /* One that counted itself has gone with itself. */
        if (q2_cluster(q, block) >> q->refblock_bits != i) {
            result = q2_drop(q, block, q->cluster_size,
                             BY_QCOW2_DISCARD_ALWAYS);
        }
        first = first ? first : result;
    }
    return first;
}

int q2_shrink_refcounts(struct by_qcow2 *q)
{
    uint32_t from = q->reftable_size, to = 0;
    uint64_t *blocks = calloc(q->reftable_size ? q->reftable_size : 1, 8);
    int result = blocks ? q2_sync(q) : -ENOMEM;

    for (uint32_t i = 0; result == 0 && i < q->reftable_size; i++) {
        uint64_t entry = q->reftable[i];

        if (!(entry & Q2_REFT_OFFSET_MASK)) {
            continue;
        }
        result = q2_block_check(q, i);
        if (result == 0) {
            result = take_out(q, i);
        }
        if (result == 1) {
            from = from < i ? from : i;
            to = i + 1;
            blocks[i] = entry & Q2_REFT_OFFSET_MASK;
            result = 0;
        }
    }
    if (from < to) {
        int written = write_entries(q, from, to);

        if (written == 0) {
            written = give_back(q, blocks + from, from, to);
        } else {
            pthread_mutex_lock(&q->lock);
            for (uint32_t i = from; i < to; i++) {
                q->reftable[i] |= blocks[i];
            }
            pthread_mutex_unlock(&q->lock);
        }
        result = result < 0 ? result : written;
    }
    free(blocks);
    return result < 0 ? result : q2_sync(q);
}
