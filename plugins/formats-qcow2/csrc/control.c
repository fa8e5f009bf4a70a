/* SPDX-License-Identifier: Apache-2.0 */
/* control.c - what Python asks of an open image, one call for each. */
#include <errno.h>
#include <stdlib.h>

#include "tables.h"

void by_qcow2_set_node(struct by_qcow2 *q, uintptr_t node)
{
    q->node = (struct by_node *)node;
}

void by_qcow2_set_children(struct by_qcow2 *q, uintptr_t file, uintptr_t data,
                           uintptr_t backing)
{
    q->file = (struct by_node *)file;
    q->data = (struct by_node *)data;
    q->backing = (struct by_node *)backing;
}

void by_qcow2_set_crypto(struct by_qcow2 *q, uintptr_t crypto)
{
    q->crypto = (struct by_crypto *)crypto;
}

int by_qcow2_flush(struct by_qcow2 *q)
{
    int result;

    pthread_mutex_lock(&q->meta);
    result = q2_sync(q);
    pthread_mutex_unlock(&q->meta);
    return result;
}

int by_qcow2_settle(struct by_qcow2 *q)
{
    int result;

    pthread_mutex_lock(&q->meta);
    result = q2_settle(q);
    pthread_mutex_unlock(&q->meta);
    return result;
}

void by_qcow2_report(struct by_qcow2 *q, char *out, int bytes)
{
    pthread_mutex_lock(&q->chores_lock);
    strncpy(out, q->report, bytes - 1);
    out[bytes - 1] = 0;
    pthread_mutex_unlock(&q->chores_lock);
}

void by_qcow2_resize_why(struct by_qcow2 *q, char *out, int bytes)
{
    pthread_mutex_lock(&q->meta);
    strncpy(out, q->resize_why, bytes - 1);
    out[bytes - 1] = 0;
    pthread_mutex_unlock(&q->meta);
}

void by_qcow2_clean_caches(struct by_qcow2 *q)
{
    q2_cache_clean_unused(q, &q->l2);
    q2_cache_clean_unused(q, &q->rb);
}

void by_qcow2_get_state(struct by_qcow2 *q, struct by_qcow2_state *out)
{
    pthread_mutex_lock(&q->lock);
    *out = (struct by_qcow2_state) {
        .size = q->size,
        .l1_offset = q->l1_offset,
        .l1_size = q->l1_size,
        .reftable_clusters = q->reftable_size * 8ull >> q->cluster_bits,
        .reftable_offset = q->reftable_offset,
        .incompatible = q->set.incompatible,
        .compatible = q->set.compatible,
        .autoclear = q->set.autoclear,
        .l2_cached = (uint64_t)q->l2.count * q->l2.slice_bytes,
        .refcounts_cached = (uint64_t)q->rb.count * q->rb.slice_bytes,
        .l2_dirty = (uint64_t)q->l2.ndirty * q->l2.slice_bytes,
        .refcounts_dirty = (uint64_t)q->rb.ndirty * q->rb.slice_bytes,
        .freed = q->nfreed,
        .corrupt = q2_is_corrupt(q),
    };
    pthread_mutex_unlock(&q->lock);
}

/* ------------------------------------------------------ Python's own bytes */

/* What C has changed since Python built the header. */
static void fill_in(struct by_qcow2 *q, unsigned char *header)
{
    q2_put64(header + Q2_AT_SIZE, q->size);
    q2_put32(header + Q2_AT_L1_SIZE, q->l1_size);
    q2_put64(header + Q2_AT_L1_OFFSET, q->l1_offset);
    q2_put64(header + Q2_AT_REFTABLE_OFFSET, q->reftable_offset);
    q2_put32(header + Q2_AT_REFTABLE_CLUSTERS,
             q->reftable_size * 8ull >> q->cluster_bits);
    q2_put32(header + Q2_AT_NB_SNAPSHOTS, q->set.snapshots);
    q2_put64(header + Q2_AT_SNAPSHOTS_OFFSET, q->set.snapshots_offset);
}

int by_qcow2_write_header(struct by_qcow2 *q, const void *header,
                          uint32_t bytes)
{
    unsigned char *copy;
    int result;

    if (bytes < Q2_HEADER_V2 || bytes > q->cluster_size) {
        return -EINVAL;
    }
    copy = calloc(1, q->cluster_size);
    if (!copy) {
        return -ENOMEM;
    }
    memcpy(copy, header, bytes);
    pthread_mutex_lock(&q->meta);
    fill_in(q, copy);
    result = q2_sync(q);
    if (result == 0) {
        result = q2_barrier(q);
    }
    if (result == 0) {
        result = q2_header_put(q, 0, copy, q->cluster_size);
    }
    if (result == 0) {
        result = q2_barrier(q);
    }
    if (result == 0 && q->set.version >= 3) {
        q->set.incompatible = q2_be64(copy + Q2_AT_INCOMPATIBLE);
        q->set.compatible = q2_be64(copy + Q2_AT_COMPATIBLE);
        q->set.autoclear = q2_be64(copy + Q2_AT_AUTOCLEAR);
        pthread_mutex_lock(&q->lock);
        q->dirty_bit = q->set.incompatible & Q2_INCOMPAT_DIRTY;
        pthread_mutex_unlock(&q->lock);
    }
    pthread_mutex_unlock(&q->meta);
    free(copy);
    return result;
}

int by_qcow2_allocate(struct by_qcow2 *q, uint64_t bytes, uint32_t overlap,
                      uint64_t *offset)
{
    uint64_t whole = (bytes + q->cluster_size - 1) & ~(q->cluster_size - 1);
    int result;

    if (!bytes || bytes > INT64_MAX / 2) {
        return -EINVAL;
    }
    pthread_mutex_lock(&q->meta);
    result = q2_alloc_wait(q, whole, offset);
    if (result == 0 && overlap) {
        pthread_mutex_lock(&q->lock);
        result = q2_map_add(q, *offset, whole, overlap);
        if (result < 0) {
            q2_alloc_undo(q, *offset, whole >> q->cluster_bits);
        }
        pthread_mutex_unlock(&q->lock);
    }
    pthread_mutex_unlock(&q->meta);
    return result;
}

int by_qcow2_release(struct by_qcow2 *q, uint64_t offset, uint64_t bytes,
                     uint32_t overlap)
{
    uint64_t whole = (bytes + q->cluster_size - 1) & ~(q->cluster_size - 1);

    if (q2_in_cluster(q, offset) || !by_range_ok(offset, whole, INT64_MAX)) {
        return -EINVAL;
    }
    pthread_mutex_lock(&q->meta);
    pthread_mutex_lock(&q->lock);
    if (overlap) {
        q2_map_remove(q, offset, whole, overlap);
    }
    pthread_mutex_unlock(&q->lock);
    (void)q2_drop(q, offset, whole, BY_QCOW2_DISCARD_OTHER);
    pthread_mutex_unlock(&q->meta);
    return 0;
}

int by_qcow2_write_file(struct by_qcow2 *q, uint64_t offset, const void *data,
                        uint64_t bytes, uint32_t overlap)
{
    int result;

    if (!by_range_ok(offset, bytes, INT64_MAX)) {
        return -EFBIG;
    }
    pthread_mutex_lock(&q->meta);
    pthread_mutex_lock(&q->lock);
    result = bytes ? q2_overlap_check(q, overlap, offset, bytes) : 0;
    pthread_mutex_unlock(&q->lock);
    if (result == 0) {
        result = q2_pwrite(q, offset, data, bytes);
    }
    pthread_mutex_unlock(&q->meta);
    return result;
}

int by_qcow2_read_file(struct by_qcow2 *q, uint64_t offset, void *data,
                       uint64_t bytes)
{
    return q2_pread(q, offset, data, bytes);
}
