/* SPDX-License-Identifier: Apache-2.0 */
/*
 * l2.c - what a guest offset is: section "Cluster mapping" of the format.
 *
 * Every entry is looked at here before anybody uses it.  A bad one is reported
 * and marks the image corrupt, as it says that the tables cannot be trusted.
 */
#include <errno.h>
#include <inttypes.h>

#include "image.h"

/* Where the slice is in the file: 0, -ENOENT, -EIO. */
static int locate(struct by_qcow2 *q, uint64_t guest, struct q2_spot *spot,
                  uint64_t *offset)
{
    uint64_t l1_index = guest >> (q->cluster_bits + q->l2_bits);
    uint64_t index = q2_cluster(q, guest) & ((1ull << q->l2_bits) - 1);
    uint64_t entry;

    if (l1_index >= q->l1_size) {
        return -EIO;
    }
    entry = q->l1[l1_index];
    spot->l1_index = l1_index;
    spot->index = index & (q->l2_slice_entries - 1);
    spot->left = q->l2_slice_entries - spot->index;
    spot->own = entry & Q2_COPIED;
    *offset = entry & Q2_OFFSET_MASK;
    if (!*offset) {
        spot->left = (1u << q->l2_bits) - index;
        return -ENOENT;
    }
    if (unlikely(q2_in_cluster(q, *offset))) {
        return q2_corrupt(q, true, -1, -1, "L2 table offset %#" PRIx64
                          " unaligned (L1 index: %#" PRIx64 ")", *offset,
                          l1_index);
    }
    *offset += (index - spot->index) * q->entry_bytes;
    return 0;
}

int q2_find(struct by_qcow2 *q, uint64_t guest, struct q2_spot *spot,
            struct q2_wait *wait)
{
    uint64_t offset;
    int result = locate(q, guest, spot, &offset);

    if (result < 0) {
        return result;
    }
    spot->slice = q2_cache_find(&q->l2, offset);
    if (likely(spot->slice)) {
        return 0;
    }
    if (wait) {
        result = q2_cache_fetch(q, &q->l2, offset, wait);
    }
    return result < 0 ? result : -EAGAIN;
}

int q2_find_wait(struct by_qcow2 *q, uint64_t guest, struct q2_spot *spot)
{
    uint64_t offset;
    int result;

    pthread_mutex_lock(&q->lock);
    result = locate(q, guest, spot, &offset);
    pthread_mutex_unlock(&q->lock);
    return result < 0 ? result : q2_cache_get(q, &q->l2, offset, &spot->slice);
}

/* ----------------------------------------------------------- one entry */

static int bad(struct by_qcow2 *q, const struct q2_slice *slice,
               uint32_t index, const char *what, uint64_t offset)
{
    uint64_t table = slice->offset & ~(q->cluster_size - 1);

    index += (slice->offset - table) / q->entry_bytes;
    if (offset) {
        return q2_corrupt(q, true, -1, -1, "%s %#" PRIx64 " unaligned (L2 "
                          "offset: %#" PRIx64 ", L2 index: %#" PRIx32 ")",
                          what, offset, table, index);
    }
    return q2_corrupt(q, true, -1, -1, "%s (L2 offset: %#" PRIx64
                      ", L2 index: %#" PRIx32 ")", what, table, index);
}

/* The kind of the subcluster `sub`, and how many from there on are of it.
 * -EINVAL: the bits contradict each other. */
static int subcluster_kind(const struct q2_run *run, uint32_t sub,
                           uint32_t *count)
{
    uint32_t data = run->bitmap, zero = run->bitmap >> 32;
    uint32_t state = (data >> sub & 1) | (zero >> sub & 1) << 1;
    uint32_t n = 1;

    while (sub + n < Q2_SUBCLUSTERS
           && ((data >> (sub + n) & 1) | (zero >> (sub + n) & 1) << 1)
              == state) {
        n++;
    }
    *count = n;
    if (state == 3 || (state == 1 && !run->has_host)) {
        return -EINVAL;
    }
    return state == 2 ? Q2_KIND_ZERO
        : state ? Q2_KIND_DATA : Q2_KIND_UNALLOCATED;
}

static int describe_subclusters(struct by_qcow2 *q,
                                const struct q2_slice *slice, uint32_t index,
                                uint64_t guest, struct q2_run *run)
{
    uint64_t in_cluster = q2_in_cluster(q, guest);
    uint32_t sub = in_cluster >> q->subcluster_bits, count;
    int kind;

    run->bitmap = q2_bitmap(q, slice, index);
    kind = subcluster_kind(run, sub, &count);
    if (kind < 0) {
        return bad(q, slice, index, "Invalid cluster entry found ", 0);
    }
    run->kind = kind;
    run->bytes = ((uint64_t)(sub + count) << q->subcluster_bits) - in_cluster;
    return 0;
}

/* The host cluster that the entry names: is there one, may it be there? */
static int describe_host(struct by_qcow2 *q, const struct q2_slice *slice,
                         uint32_t index, uint64_t guest, struct q2_run *run)
{
    uint64_t offset = run->entry & Q2_OFFSET_MASK;

    /* Offset 0 is a cluster of an external data file. */
    run->has_host = offset || (q->set.data_file && run->copied);
    if (unlikely(q2_in_cluster(q, offset))) {
        return bad(q, slice, index, run->kind == Q2_KIND_ZERO
                   ? "Preallocated zero cluster offset"
                   : "Cluster allocation offset", offset);
    }
    run->host = offset + q2_in_cluster(q, guest);
    if (unlikely(q->set.data_file && run->has_host && run->host != guest)) {
        return q2_corrupt(q, true, -1, -1, "External data file host cluster "
                          "offset %#" PRIx64 " does not match guest cluster "
                          "offset: %#" PRIx64 ", L2 index: %#" PRIx32 ")",
                          offset, guest - q2_in_cluster(q, guest), index);
    }
    return 0;
}

int q2_describe(struct by_qcow2 *q, const struct q2_slice *slice,
                uint32_t index, uint64_t guest, struct q2_run *run)
{
    int result;

    run->entry = q2_entry(q, slice, index);
    run->bitmap = 0;
    run->bytes = q->cluster_size - q2_in_cluster(q, guest);
    run->host = 0;
    run->has_host = false;
    run->copied = run->entry & Q2_COPIED;
    if (run->entry & Q2_COMPRESSED) {
        run->kind = Q2_KIND_COMPRESSED;
        run->copied = false;
        if (q->entry_bytes == 16) {
            run->bitmap = q2_bitmap(q, slice, index);
            if (run->bitmap) {
                return bad(q, slice, index, "Invalid cluster entry found ", 0);
            }
        }
        return q->set.data_file
            ? bad(q, slice, index, "Compressed cluster entry found in image "
                  "with external data file", 0) : 0;
    }
    run->kind = Q2_KIND_DATA;
    if (!q->set.extended_l2 && (run->entry & Q2_ZERO)) {
        run->kind = Q2_KIND_ZERO;
        if (q->set.version < 3) {
            return bad(q, slice, index,
                       "Zero cluster entry found in pre-v3 image", 0);
        }
    }
    result = describe_host(q, slice, index, guest, run);
    if (result < 0) {
        return result;
    }
    if (q->set.extended_l2) {
        return describe_subclusters(q, slice, index, guest, run);
    }
    if (run->kind == Q2_KIND_DATA && !run->has_host) {
        run->kind = Q2_KIND_UNALLOCATED;
    }
    return 0;
}

/* ---------------------------------------------------------------- a run */

static bool continues(const struct q2_run *run, const struct q2_run *next)
{
    return run->kind == next->kind && run->copied == next->copied
        && run->has_host == next->has_host && run->kind != Q2_KIND_COMPRESSED
        && (!run->has_host || run->host + run->bytes == next->host);
}

static int map_slice(struct by_qcow2 *q, const struct q2_spot *spot,
                     uint64_t guest, uint64_t bytes, struct q2_run *run)
{
    struct q2_run next;
    uint32_t i = 0;
    int result = q2_describe(q, spot->slice, spot->index, guest, run);

    while (result == 0 && run->bytes < bytes) {
        uint64_t at = guest + run->bytes;

        if (!q2_in_cluster(q, at)) {
            i++;
        }
        if (i >= spot->left
            || q2_describe(q, spot->slice, spot->index + i, at, &next) < 0
            || !continues(run, &next)) {
            break;
        }
        run->bytes += next.bytes;
    }
    if (run->bytes > bytes) {
        run->bytes = bytes;
    }
    return result;
}

static int nothing_mapped(struct by_qcow2 *q, const struct q2_spot *spot,
                          uint64_t guest, uint64_t bytes, struct q2_run *run)
{
    uint64_t there = ((uint64_t)spot->left << q->cluster_bits)
        - q2_in_cluster(q, guest);

    *run = (struct q2_run) {
        .kind = Q2_KIND_UNALLOCATED,
        .bytes = there < bytes ? there : bytes,
    };
    return 0;
}

int q2_map(struct by_qcow2 *q, uint64_t guest, uint64_t bytes,
           struct q2_run *run, struct q2_wait *wait)
{
    struct q2_spot spot;
    int result = q2_find(q, guest, &spot, wait);

    if (result == -ENOENT) {
        return nothing_mapped(q, &spot, guest, bytes, run);
    }
    return result < 0 ? result : map_slice(q, &spot, guest, bytes, run);
}

int q2_map_wait(struct by_qcow2 *q, uint64_t guest, uint64_t bytes,
                struct q2_run *run)
{
    struct q2_spot spot;
    int result = q2_find_wait(q, guest, &spot);

    if (result == -ENOENT) {
        return nothing_mapped(q, &spot, guest, bytes, run);
    }
    if (result == 0) {
        pthread_mutex_lock(&q->lock);
        result = map_slice(q, &spot, guest, bytes, run);
        q2_cache_unpin(&q->l2, spot.slice);
        pthread_mutex_unlock(&q->lock);
    }
    return result;
}
