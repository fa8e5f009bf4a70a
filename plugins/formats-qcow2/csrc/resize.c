/* SPDX-License-Identifier: Apache-2.0 */
/*
 * resize.c - another virtual size.
 *
 * Growing: L1 first, then what the new area is, the header's size last, so
 * that nobody sees the area before it reads as zeroes.  Shrinking: what lies
 * behind the new end is freed, then the size; the L1 table keeps its length.
 */
#include <errno.h>

#include "tables.h"

static uint64_t up_to_clusters(const struct by_qcow2 *q, uint64_t bytes)
{
    return q2_cluster(q, bytes) + (q2_in_cluster(q, bytes) != 0);
}

int q2_data_truncate(struct by_qcow2 *q, uint64_t size, uint32_t prealloc,
                     bool exact)
{
    struct by_request req = {
        .size = sizeof(req), .op = BY_OP_TRUNCATE, .offset = size,
        .u.truncate = { .prealloc = prealloc, .exact = exact },
    };

    return q2_api->wait(q->data, &req);
}

static int set_size(struct by_qcow2 *q, uint64_t size, char *why)
{
    int result = q2_sync(q);

    if (result == 0) {
        result = q2_header_put64(q, Q2_AT_SIZE, size);
    }
    if (result == 0) {
        result = q2_barrier(q);
    }
    if (result < 0) {
        return q2_say(why, result, "Failed to update the image size");
    }
    pthread_mutex_lock(&q->lock);
    q->size = size;
    q->set.size = size;
    q->l1_guest = q2_l1_entries(q, size);
    pthread_mutex_unlock(&q->lock);
    return 0;
}

static int shrink(struct by_qcow2 *q, uint64_t size, bool exact, char *why)
{
    uint64_t first = up_to_clusters(q, size);
    uint64_t end = (uint64_t)q->l1_size << q->l2_bits;
    int result = 0;

    if (first < end) {
        result = q2_clear(q, first, end - first, false,
                          BY_QCOW2_DISCARD_ALWAYS);
    }
    if (result < 0) {
        return q2_say(why, result, "Failed to discard cropped clusters");
    }
    result = set_size(q, size, why);
    if (result < 0) {
        return result;
    }
    if (q->set.data_file) {
        result = q2_data_truncate(q, size, BY_PREALLOC_OFF, exact);
        if (result < 0) {
            return result;
        }
    }
    result = q2_shrink_refcounts(q);
    return result < 0
        ? q2_say(why, result, "Failed to discard unused refblocks") : 0;
}

/* The new area refers to nothing (VM state may have been there), and what
 * the backing node has there does not shine through. */
static int empty(struct by_qcow2 *q, uint64_t size, char *why)
{
    uint64_t first = up_to_clusters(q, q->size);
    uint64_t end = up_to_clusters(q, size), covered = first;
    int result = 0;

    if (q->backing && by_node_length(q->backing) > q->size) {
        covered = up_to_clusters(q, by_node_length(q->backing));
        covered = covered < end ? covered : end;
    }
    if (covered > first) {
        result = q2_clear(q, first, covered - first, true,
                          BY_QCOW2_DISCARD_OTHER);
        first = covered;
    }
    if (result == 0 && first < end) {
        result = q2_clear(q, first, end - first, false,
                          BY_QCOW2_DISCARD_OTHER);
    }
    return result < 0
        ? q2_say(why, result, "Failed to zero out new clusters") : 0;
}

static int grow(struct by_qcow2 *q, uint64_t size, uint32_t prealloc,
                bool exact, char *why)
{
    int result = q2_l1_grow(q, q2_l1_entries(q, size), why);

    if (result == 0 && size > q->size) {
        result = empty(q, size, why);
    }
    if (result < 0) {
        return result;
    }
    if (q->set.data_file && prealloc == BY_PREALLOC_OFF) {
        result = q2_data_truncate(q, size, prealloc, exact);
    } else if (prealloc != BY_PREALLOC_OFF) {
        result = q2_preallocate(q, q->size, size, prealloc, why);
    }
    return result < 0 ? result : set_size(q, size, why);
}

int q2_resize_to(struct by_qcow2 *q, uint64_t size, uint32_t prealloc,
                 bool exact, char *why)
{
    if (prealloc > BY_PREALLOC_FULL) {
        return -EINVAL;
    }
    if (size % Q2_SECTOR) {
        q2_say(why, 0, "The new size must be a multiple of %u", Q2_SECTOR);
        return -EINVAL;
    }
    if (size > INT64_MAX) {
        return -EFBIG;
    }
    if (q2_is_corrupt(q)) {
        return -EIO;
    }
    if (q->set.snapshots && q->set.version < 3) {
        q2_say(why, 0, "Can't resize a v2 image which has snapshots");
        return -ENOTSUP;
    }
    if (size < q->size) {
        if (prealloc != BY_PREALLOC_OFF) {
            q2_say(why, 0,
                   "Preallocation can't be used for shrinking an image");
            return -EINVAL;
        }
        return shrink(q, size, exact, why);
    }
    if (q->set.data_file_raw && prealloc == BY_PREALLOC_OFF) {
        prealloc = BY_PREALLOC_METADATA; /* the tables show all of the file */
    }
    return grow(q, size, prealloc, exact, why);
}

int q2_resize_head(struct by_qcow2 *q, uint64_t *offset, uint64_t *bytes)
{
    uint64_t end = up_to_clusters(q, q->size) << q->cluster_bits;
    uint64_t at = q->size;
    bool backed = q->backing && by_node_length(q->backing) > q->size;

    *offset = q->size;
    *bytes = 0;
    while (at < end) {
        struct q2_run run;
        int result = q2_map_wait(q, at, end - at, &run);

        if (result < 0) {
            return result;
        }
        if (run.kind == Q2_KIND_DATA || run.kind == Q2_KIND_COMPRESSED
            || (run.kind == Q2_KIND_UNALLOCATED && backed)) {
            *bytes = end - q->size;
            break;
        }
        at += run.bytes;
    }
    return 0;
}

int by_qcow2_resize(struct by_qcow2 *q, uint64_t bytes, uint32_t prealloc,
                    bool exact, char *why)
{
    bool shrinks;
    int result;

    *why = 0;
    pthread_mutex_lock(&q->meta);
    shrinks = bytes < q->size;
    result = q2_resize_to(q, bytes, prealloc, exact, why);
    if (result == 0 && shrinks) { /* cut off what the file had at its end */
        q->file_floor = 0;
        result = q2_settle(q);
    }
    pthread_mutex_unlock(&q->meta);
    return result;
}

int by_qcow2_resize_head(struct by_qcow2 *q, uint64_t *offset,
                         uint64_t *bytes)
{
    int result;

    pthread_mutex_lock(&q->meta);
    result = q2_resize_head(q, offset, bytes);
    pthread_mutex_unlock(&q->meta);
    return result;
}
