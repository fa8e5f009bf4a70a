/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bitmap_tables.c - sections "Bitmap table" and "Bitmap data": a bitmap's
 * bytes in the file.
 */
#include <errno.h>
#include <stdlib.h>

#include "tables.h"

#define ALL_ONES 1ull
#define RESERVED 0xff000000000001feull

static uint64_t chunks_of(const struct by_qcow2 *q, uint64_t bytes)
{
    return q2_cluster(q, bytes) + (q2_in_cluster(q, bytes) != 0);
}

/* The table lies in the file, which bounds what is read of it. */
static uint64_t *read_table(struct by_qcow2 *q, uint64_t offset,
                            uint64_t entries, int *error)
{
    uint64_t end = by_node_length(q->file);

    if (q2_in_cluster(q, offset) || !offset
        || !by_range_ok(offset, entries * 8, end)) {
        *error = -EINVAL;
        return NULL;
    }
    return q2_table_read(q, offset, entries, 0, error);
}

static bool is_bad(const struct by_qcow2 *q, uint64_t entry)
{
    uint64_t offset = entry & Q2_OFFSET_MASK;

    return (entry & RESERVED) || q2_in_cluster(q, offset)
        || (offset && (entry & ALL_ONES));
}

int by_qcow2_bitmap_load(struct by_qcow2 *q, uint64_t table_offset,
                         uint32_t entries, void *out, uint64_t bytes)
{
    uint64_t *table;
    int result;

    if (chunks_of(q, bytes) != entries) {
        return -EINVAL;
    }
    if (!entries) {
        return 0;
    }
    pthread_mutex_lock(&q->meta);
    table = read_table(q, table_offset, entries, &result);
    for (uint32_t i = 0; i < entries && result == 0; i++) {
        uint64_t at = (uint64_t)i << q->cluster_bits;
        uint64_t n = bytes - at < q->cluster_size
            ? bytes - at : q->cluster_size;
        unsigned char *chunk = (unsigned char *)out + at;

        if (is_bad(q, table[i])) {
            result = -EINVAL;
        } else if (table[i] & Q2_OFFSET_MASK) {
            result = q2_pread(q, table[i] & Q2_OFFSET_MASK, chunk, n);
        } else {
            memset(chunk, table[i] & ALL_ONES ? 0xff : 0, n);
        }
    }
    pthread_mutex_unlock(&q->meta);
    free(table);
    return result;
}

/* ----------------------------------------------------------------- store */

static bool is_ones(const unsigned char *bytes, uint64_t count)
{
    return bytes[0] == 0xff && !memcmp(bytes, bytes + 1, count - 1);
}

/* A whole cluster of `n` bytes and zeroes. */
static int write_chunk(struct by_qcow2 *q, uint64_t offset,
                       const unsigned char *bytes, uint64_t n)
{
    unsigned char *whole = NULL;
    int result;

    if (n < q->cluster_size) {
        whole = calloc(1, q->cluster_size);
        if (!whole) {
            return -ENOMEM;
        }
        memcpy(whole, bytes, n);
        bytes = whole;
    }
    pthread_mutex_lock(&q->lock);
    result = q2_overlap_check(q, 0, offset, q->cluster_size);
    pthread_mutex_unlock(&q->lock);
    if (result == 0) {
        result = q2_pwrite(q, offset, bytes, q->cluster_size);
    }
    free(whole);
    return result;
}

static int store_chunk(struct by_qcow2 *q, const unsigned char *bytes,
                       uint64_t n, uint64_t *entry)
{
    int result;

    *entry = 0;
    if (q2_api->is_zero(bytes, n)) {
        return 0;
    }
    if (n == q->cluster_size && is_ones(bytes, n)) {
        *entry = ALL_ONES;
        return 0;
    }
    result = q2_alloc_wait(q, q->cluster_size, entry);
    if (result < 0) {
        *entry = 0;
        return result;
    }
    return write_chunk(q, *entry, bytes, n);
}

static int store(struct by_qcow2 *q, const unsigned char *data, uint64_t bytes,
                 uint64_t *table, uint64_t entries, uint64_t *offset)
{
    uint64_t room = q2_table_bytes(q, entries);
    int result = 0;

    for (uint64_t i = 0; i < entries && result == 0; i++) {
        uint64_t at = i << q->cluster_bits;
        uint64_t n = bytes - at < q->cluster_size
            ? bytes - at : q->cluster_size;

        result = store_chunk(q, data + at, n, &table[i]);
    }
    if (result == 0) {
        result = q2_alloc_wait(q, room, offset);
    }
    if (result < 0) {
        return result;
    }
    result = q2_table_write(q, 0, *offset, table, entries);
    if (result == 0) {
        result = q2_sync(q);
    }
    if (result < 0) {
        (void)q2_refcount_add(q, q2_cluster(q, *offset),
                              q2_cluster(q, room), -1);
    }
    return result;
}

int by_qcow2_bitmap_store(struct by_qcow2 *q, const void *data, uint64_t bytes,
                          uint64_t *table_offset, uint32_t *entries)
{
    uint64_t count = chunks_of(q, bytes), *table;
    int result;

    *table_offset = 0;
    *entries = count;
    if (!count || count > UINT32_MAX / 8) {
        return count ? -EFBIG : -EINVAL;
    }
    table = calloc(count, 8);
    if (!table) {
        return -ENOMEM;
    }
    pthread_mutex_lock(&q->meta);
    result = q2_is_corrupt(q) ? -EIO
        : store(q, data, bytes, table, count, table_offset);
    if (result < 0) {
        for (uint64_t i = 0; i < count; i++) {
            if (table[i] & Q2_OFFSET_MASK) {
                (void)q2_refcount_add(q, q2_cluster(q, table[i]), 1, -1);
            }
        }
        *table_offset = 0;
    }
    pthread_mutex_unlock(&q->meta);
    free(table);
    return result;
}

/* ------------------------------------------------------------------ free */

int by_qcow2_bitmap_free(struct by_qcow2 *q, uint64_t table_offset,
                         uint32_t entries)
{
    uint64_t *table;
    int result;

    if (!entries) {
        return 0;
    }
    pthread_mutex_lock(&q->meta);
    table = read_table(q, table_offset, entries, &result);
    for (uint32_t i = 0; i < entries && result == 0; i++) {
        uint64_t offset = table[i] & Q2_OFFSET_MASK;

        if (offset && !is_bad(q, table[i])) {
            result = q2_drop(q, offset, q->cluster_size,
                             BY_QCOW2_DISCARD_OTHER);
        }
    }
    if (result == 0) {
        result = q2_drop(q, table_offset, q2_table_bytes(q, entries),
                         BY_QCOW2_DISCARD_OTHER);
    }
    pthread_mutex_unlock(&q->meta);
    free(table);
    return result;
}
