/* SPDX-License-Identifier: Apache-2.0 */
/*
 * refcount.c - the refcounts of host clusters (section "Host cluster
 * management"): entries of every width, and changes that table work makes.
 *
 * Requests change refcounts too (alloc.c), so each slice is looked at and
 * changed under the lock, in steps that are short.
 */
#include <errno.h>
#include <inttypes.h>

#include "image.h"

/* What is done under one hold of the lock: clusters, and bytes that become
 * free (each slice of them is looked for in the caches). */
enum { AT_ONCE = 2048, FREED_AT_ONCE = 4 << 20 };

/* ---------------------------------------------------------------- entries */

uint64_t q2_refcount_read(const struct by_qcow2 *q, const void *table,
                          uint64_t index)
{
    const unsigned char *bytes = table;
    uint32_t bits;

    switch (q->refcount_order) {
    case 6:
        return q2_be64(bytes + index * 8);
    case 5:
        return q2_be32(bytes + index * 4);
    case 4:
        return q2_be16(bytes + index * 2);
    case 3:
        return bytes[index];
    default: /* from the least significant bit of each byte on */
        bits = 1u << q->refcount_order;
        return bytes[index * bits / 8] >> (index * bits % 8)
            & ((1u << bits) - 1);
    }
}

void q2_refcount_write(const struct by_qcow2 *q, void *table, uint64_t index,
                       uint64_t value)
{
    unsigned char *bytes = table, *byte;
    uint32_t bits, shift;

    switch (q->refcount_order) {
    case 6:
        q2_put64(bytes + index * 8, value);
        break;
    case 5:
        q2_put32(bytes + index * 4, value);
        break;
    case 4:
        q2_put16(bytes + index * 2, value);
        break;
    case 3:
        bytes[index] = value;
        break;
    default:
        bits = 1u << q->refcount_order;
        byte = &bytes[index * bits / 8];
        shift = index * bits % 8;
        *byte = (*byte & ~(((1u << bits) - 1) << shift)) | value << shift;
    }
}

/* ----------------------------------------------------------------- blocks */

uint64_t q2_refcount_slice(const struct by_qcow2 *q, uint64_t cluster)
{
    uint64_t index = cluster >> q->refblock_bits;
    uint64_t within = cluster & ((1ull << q->refblock_bits) - 1);
    uint64_t block;

    if (index >= q->reftable_size) {
        return 0;
    }
    block = q->reftable[index] & Q2_REFT_OFFSET_MASK;
    return block
        ? block + (within >> q->rb_slice_bits) * q->rb.slice_bytes : 0;
}

int q2_block_check(struct by_qcow2 *q, uint64_t index)
{
    uint64_t block, end;
    uint32_t times;
    int result = 0;

    pthread_mutex_lock(&q->lock);
    block = q->reftable[index] & Q2_REFT_OFFSET_MASK;
    end = q->file_end;
    times = q2_map_times(q, q2_cluster(q, block), BY_QCOW2_OL_REFCOUNT_BLOCK);
    if (block && !q2_in_cluster(q, block) && block < end && times <= 1) {
        /* Refcounts that lie in another table are not refcounts. */
        result = q2_overlap_check(q, BY_QCOW2_OL_REFCOUNT_BLOCK, block,
                                  q->cluster_size);
    }
    pthread_mutex_unlock(&q->lock);
    if (q2_in_cluster(q, block)) {
        return q2_corrupt(q, true, -1, -1, "Refblock offset %#" PRIx64
                          " unaligned (reftable index: %#" PRIx64 ")",
                          block, index);
    }
    if (block >= end) {
        return q2_corrupt(q, true, -1, -1, "Refblock offset %#" PRIx64
                          " beyond the end of the file (reftable index: %#"
                          PRIx64 ")", block, index);
    }
    if (times > 1) {
        return q2_corrupt(q, true, -1, -1, "Refblock offset %#" PRIx64
                          " used more than once (reftable index: %#" PRIx64
                          ")", block, index);
    }
    return result;
}

/* The slice that counts this cluster, pinned.  1: there is no block. */
static int get(struct by_qcow2 *q, uint64_t cluster, struct q2_slice **slice)
{
    uint64_t offset;
    int result;

    /* Nobody else changes the refcount table while we hold meta. */
    offset = q2_refcount_slice(q, cluster);
    if (!offset) {
        return 1;
    }
    result = q2_block_check(q, cluster >> q->refblock_bits);
    return result < 0 ? result : q2_cache_get(q, &q->rb, offset, slice);
}

static uint64_t within(const struct by_qcow2 *q, uint64_t cluster)
{
    return cluster & ((1ull << q->rb_slice_bits) - 1);
}

int q2_refcount_get(struct by_qcow2 *q, uint64_t cluster, uint64_t *value)
{
    struct q2_slice *slice;
    int result = get(q, cluster, &slice);

    *value = 0;
    if (result == 0) {
        pthread_mutex_lock(&q->lock);
        *value = q2_refcount_read(q, slice->table, within(q, cluster));
        q2_cache_unpin(&q->rb, slice);
        pthread_mutex_unlock(&q->lock);
    }
    return result < 0 ? result : 0;
}

/* ------------------------------------------------------------------- add */

void q2_refcount_gone(struct by_qcow2 *q, uint64_t cluster)
{
    uint64_t offset = cluster << q->cluster_bits;

    q2_space_freed(q, cluster);
    if (q->compressed_at && q2_cluster(q, q->compressed_at) == cluster) {
        q->compressed_at = 0;
    }
    q2_cache_forget(&q->l2, offset, q->cluster_size);
    q2_cache_forget(&q->rb, offset, q->cluster_size);
}

static bool in_range(const struct by_qcow2 *q, uint64_t value, int64_t delta)
{
    return delta > 0 ? value <= q->refcount_max
                       && q->refcount_max - value >= (uint64_t)delta
                     : value >= -(uint64_t)delta;
}

/* Under lock: all of them, or none. */
static int add_in_slice(struct by_qcow2 *q, struct q2_slice *slice,
                        uint64_t cluster, uint64_t count, int64_t delta)
{
    uint64_t at = within(q, cluster);

    for (uint64_t i = 0; i < count; i++) {
        if (!in_range(q, q2_refcount_read(q, slice->table, at + i), delta)) {
            return -ERANGE;
        }
    }
    for (uint64_t i = 0; i < count; i++) {
        uint64_t value = q2_refcount_read(q, slice->table, at + i) + delta;

        q2_refcount_write(q, slice->table, at + i, value);
        if (value == 0) {
            q2_refcount_gone(q, cluster + i);
        }
    }
    if (delta > 0 && q->fresh < cluster + count) {
        q->fresh = cluster + count; /* whoever counts it, writes it */
    }
    q2_cache_dirty(&q->rb, slice);
    return 0;
}

static int add(struct by_qcow2 *q, uint64_t cluster, uint64_t count,
               int64_t delta, uint64_t *done)
{
    uint64_t end = cluster + count, most = AT_ONCE;

    if (delta < 0 && most > (uint64_t)FREED_AT_ONCE >> q->cluster_bits) {
        most = FREED_AT_ONCE >> q->cluster_bits;
    }
    for (uint64_t c = cluster; c < end; c = cluster + *done) {
        uint64_t n = (1ull << q->rb_slice_bits) - within(q, c);
        struct q2_slice *slice;
        int result;

        q2_event(q, BY_DEBUG_REFBLOCK_LOAD);
        result = get(q, c, &slice);
        if (result == 1) {
            result = delta < 0 ? -ERANGE
                : q2_block_make(q, c >> q->refblock_bits, cluster, count);
            if (result < 0) {
                return result;
            }
            continue;
        }
        if (result < 0) {
            return result;
        }
        n = n > end - c ? end - c : n;
        n = n > most ? most : n;
        pthread_mutex_lock(&q->lock);
        result = add_in_slice(q, slice, c, n, delta);
        q2_cache_unpin(&q->rb, slice);
        pthread_mutex_unlock(&q->lock);
        if (result < 0) {
            return result;
        }
        *done += n;
    }
    return 0;
}

int q2_refcount_add(struct by_qcow2 *q, uint64_t cluster, uint64_t count,
                    int64_t delta)
{
    uint64_t done = 0, undone = 0;
    int result;

    if (!count || !delta) {
        return 0;
    }
    if (!by_range_ok(cluster, count, 1ull << (56 - q->cluster_bits))) {
        return -EFBIG;
    }
    if (q2_is_corrupt(q)) {
        return -EIO;
    }
    result = add(q, cluster, count, delta, &done);
    if (result < 0 && done) {
        (void)add(q, cluster, done, -delta, &undone);
    }
    return result;
}
