/* SPDX-License-Identifier: Apache-2.0 */
/* amend.c - another version of the format, and the end of the dirty bit. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "tables.h"

static int mark_clean(struct by_qcow2 *q)
{
    int result = q2_sync(q);

    if (result == 0) { /* what was given back is counted down there too */
        result = q2_sync(q);
    }
    if (result == 0 && q->set.version >= 3) {
        result = q2_incompatible(q, 0, Q2_INCOMPAT_DIRTY);
    }
    if (result == 0) {
        pthread_mutex_lock(&q->lock);
        q->dirty_bit = false;
        pthread_mutex_unlock(&q->lock);
    }
    return result;
}

int by_qcow2_mark_clean(struct by_qcow2 *q)
{
    int result;

    pthread_mutex_lock(&q->meta);
    result = mark_clean(q);
    pthread_mutex_unlock(&q->meta);
    return result;
}

/* Version 3 wants the disk's size with each snapshot. */
static int fit_snapshots(struct by_qcow2 *q, char *why)
{
    struct by_qcow2_snapshots *list;
    bool short_one = false, tried;
    int result;

    list = q2_snapshots_read(q, &result, why);
    if (!list) {
        return result;
    }
    for (uint32_t i = 0; i < list->count; i++) {
        short_one = short_one || list->entries[i].extra_bytes < 16;
    }
    if (short_one) {
        result = q2_snapshots_write(q, list, list->bytes, &tried);
        if (result < 0) {
            q2_say(why, result, "Failed to update the snapshot table");
        }
    }
    by_qcow2_snapshots_free(list);
    return result;
}

/* Snapshots that version 2 describes too. */
static int check_snapshots(struct by_qcow2 *q, char *why)
{
    struct by_qcow2_snapshots *list;
    int result;

    list = q2_snapshots_read(q, &result, why);
    for (uint32_t i = 0; list && i < list->count; i++) {
        if (list->entries[i].vm_state_bytes > UINT32_MAX
            || list->entries[i].disk_bytes != q->size) {
            q2_say(why, 0, "Internal snapshots prevent downgrade of image");
            result = -ENOTSUP;
        }
    }
    by_qcow2_snapshots_free(list);
    return result;
}

static int refuse_downgrade(struct by_qcow2 *q, char *why)
{
    uint64_t features;
    int result;

    if (q->refcount_order != 4) {
        q2_say(why, 0, "compat=0.10 requires refcount_bits=16");
        return -ENOTSUP;
    }
    if (q->set.data_file) {
        q2_say(why, 0, "Cannot downgrade an image with a data file");
        return -ENOTSUP;
    }
    result = check_snapshots(q, why);
    if (result < 0) {
        return result;
    }
    result = mark_clean(q);
    if (result < 0) {
        return q2_say(why, result, "Failed to make the image clean");
    }
    features = q->set.incompatible & ~Q2_INCOMPAT_COMPRESSION;
    if (features) {
        q2_say(why, 0, "Cannot downgrade an image with incompatible features "
               "0x%" PRIx64 " set", features);
        return -ENOTSUP;
    }
    return 0;
}

static int downgrade(struct by_qcow2 *q, struct by_qcow2_progress *progress,
                     char *why)
{
    int result = refuse_downgrade(q, why);

    if (result < 0) {
        return result;
    }
    result = q2_expand_zeroes(q, progress);
    if (result < 0) {
        return q2_say(why, result,
                      "Failed to turn zero into data clusters");
    }
    if (!(q->set.incompatible & Q2_INCOMPAT_COMPRESSION)) {
        return 0;
    }
    result = q2_has_compressed(q);
    if (result < 0) {
        q2_say(why, 0, "Failed to check block status");
        return -EINVAL;
    }
    if (result) {
        q2_say(why, 0, "Cannot downgrade an image with zstd compression type "
               "and existing compressed clusters");
        return -ENOTSUP;
    }
    return 0;
}

static void fill_in(const struct by_qcow2 *q, unsigned char *header)
{
    q2_put64(header + Q2_AT_SIZE, q->size);
    q2_put32(header + Q2_AT_L1_SIZE, q->l1_size);
    q2_put64(header + Q2_AT_L1_OFFSET, q->l1_offset);
    q2_put64(header + Q2_AT_REFTABLE_OFFSET, q->reftable_offset);
    q2_put32(header + Q2_AT_REFTABLE_CLUSTERS,
             q->reftable_size * 8ull >> q->cluster_bits);
    q2_put32(header + Q2_AT_NB_SNAPSHOTS, q->set.snapshots);
    q2_put64(header + Q2_AT_SNAPSHOTS_OFFSET, q->set.snapshots_offset);
    if (q2_be32(header + 4) >= 3) {
        q2_put32(header + Q2_AT_REFCOUNT_ORDER, q->refcount_order);
    }
}

static int put_header(struct by_qcow2 *q, const unsigned char *header)
{
    int result = q2_sync(q);

    if (result == 0) {
        result = q2_header_put(q, 0, header, q->cluster_size);
    }
    if (result == 0) {
        result = q2_barrier(q);
    }
    if (result < 0) {
        return result;
    }
    q->set.version = q2_be32(header + 4);
    q->set.incompatible = q->set.compatible = q->set.autoclear = 0;
    if (q->set.version >= 3) {
        q->set.incompatible = q2_be64(header + Q2_AT_INCOMPATIBLE);
        q->set.compatible = q2_be64(header + Q2_AT_COMPATIBLE);
        q->set.autoclear = q2_be64(header + Q2_AT_AUTOCLEAR);
    } else {
        q->set.compression = BY_QCOW2_ZLIB;
        q->set.lazy_refcounts = false;
    }
    return 0;
}

int by_qcow2_change_version(struct by_qcow2 *q, const void *header,
                            uint32_t bytes, struct by_qcow2_progress *progress,
                            char *why)
{
    unsigned char *made;
    uint32_t version;
    int result;

    *why = 0;
    if (bytes < Q2_HEADER_V2 || bytes > q->cluster_size) {
        return -EINVAL;
    }
    version = q2_be32((const unsigned char *)header + 4);
    if (version < 2 || version > 3
        || (version == 3 && bytes < Q2_HEADER_V3)) {
        return -EINVAL;
    }
    made = calloc(1, q->cluster_size);
    if (!made) {
        return -ENOMEM;
    }
    memcpy(made, header, bytes);
    pthread_mutex_lock(&q->meta);
    result = q2_is_corrupt(q) ? -EIO : 0;
    if (result == 0 && version > q->set.version) {
        result = fit_snapshots(q, why);
    } else if (result == 0 && version < q->set.version) {
        result = downgrade(q, progress, why);
    }
    if (result == 0) {
        fill_in(q, made);
        result = put_header(q, made);
        if (result < 0) {
            q2_say(why, result, "Failed to update the image header");
        }
    }
    pthread_mutex_unlock(&q->meta);
    free(made);
    return result;
}
