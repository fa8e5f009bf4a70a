/* SPDX-License-Identifier: Apache-2.0 */
/*
 * preallocate.c - host clusters for guest clusters that nobody has written.
 *
 * They read as before: what was never used in the file is zero there, what
 * was used is overwritten with zeroes.  With subclusters an entry gets its
 * cluster and no subcluster; with a backing node only clusters that do not
 * show it get one.
 */
#include <errno.h>

#include "tables.h"

#define BATCH_BYTES (256ull << 20)

struct prealloc {
    uint64_t from;              /* cluster of the file to look from */
    uint64_t host, have;        /* clusters at hand */
    uint64_t wanted;            /* at most: guest clusters that are left */
    uint64_t guest;             /* of the table's first entry */
    uint64_t backed;            /* guest bytes that a backing node has */
};

/* Clusters from `at` on that lie in a row where nothing has been used yet: a
 * new refcount block takes the first one of the range that it counts. */
static uint64_t in_a_row(const struct by_qcow2 *q, uint64_t at)
{
    uint64_t per = 1ull << q->refblock_bits, in = at & (per - 1);

    return in ? per - in : per - 1;
}

/* What `count` clusters from `at` on take, with the blocks between them. */
static uint64_t with_blocks(const struct by_qcow2 *q, uint64_t at,
                            uint64_t count)
{
    uint64_t per = 1ull << q->refblock_bits;
    uint64_t row = at & (per - 1) ? in_a_row(q, at) : 0;

    return count <= row ? count : count + (count - row + per - 2) / (per - 1);
}

/* Clusters that will read as zeroes. */
static int provide(struct by_qcow2 *q, struct prealloc *p)
{
    uint64_t count = p->wanted, fresh, recycled, row;
    uint64_t most = BATCH_BYTES >> q->cluster_bits;
    int result;

    count = count < most ? count : most;
    pthread_mutex_lock(&q->lock);
    fresh = q->fresh;
    pthread_mutex_unlock(&q->lock);
    if (fresh != UINT64_MAX) {
        row = in_a_row(q, p->from > fresh ? p->from : fresh);
        count = count < row ? count : row;
    }
    do {
        result = q2_alloc_for(q, p->from, count, "data cluster", &p->host);
    } while (result == -ENOSPC && (count /= 2) > 0);
    if (result < 0) {
        return result;
    }
    recycled = fresh > q2_cluster(q, p->host)
        ? fresh - q2_cluster(q, p->host) : 0;
    recycled = recycled < count ? recycled : count;
    if (recycled && !q->set.extended_l2) {
        pthread_mutex_lock(&q->lock);
        q->barrier = true;
        pthread_mutex_unlock(&q->lock);
        result = q2_pzero(q, p->host, recycled << q->cluster_bits);
    }
    if (result < 0) {
        (void)q2_refcount_add(q, q2_cluster(q, p->host), count, -1);
        return result;
    }
    p->have = count;
    return 0;
}

static int give(struct by_qcow2 *q, const struct q2_at *at, uint64_t *entry,
                uint64_t *bitmap)
{
    struct prealloc *p = at->owner;
    uint64_t guest = p->guest + ((uint64_t)at->index << q->cluster_bits);
    bool zero = !q->set.extended_l2 && (*entry & Q2_ZERO);
    int result = 0;

    (void)bitmap;
    if ((*entry & (Q2_OFFSET_MASK | Q2_COMPRESSED))
        || (q->set.data_file && (*entry & Q2_COPIED))
        || (!zero && !q->set.extended_l2 && guest < p->backed)) {
        p->wanted--;
        return 0;
    }
    if (q->set.data_file) {
        *entry = guest | Q2_COPIED;
        if (q->set.extended_l2) {
            *bitmap = UINT32_MAX;
        }
        return 1;
    }
    if (!p->have) {
        result = provide(q, p);
    }
    if (result < 0) {
        return result;
    }
    *entry = p->host | Q2_COPIED | (zero ? Q2_ZERO : 0);
    p->host += q->cluster_size;
    p->have--;
    p->wanted--;
    return 1;
}

/* All L2 tables first, so that what follows them in the file is data. */
static int make_tables(struct by_qcow2 *q, uint64_t first, uint64_t end)
{
    int result = 0;

    for (uint64_t i = first >> q->l2_bits;
         i << q->l2_bits < end && result == 0; i++) {
        result = i < q->l1_size ? q2_l1_entry_check(q, q->l1[i], i) : -EINVAL;
        if (result == 0) {
            result = q2_l2_make(q, i);
        }
    }
    return result;
}

/* Room at the file's end, allocated in the way asked for. */
static int reserve(struct by_qcow2 *q, struct prealloc *p, uint32_t prealloc)
{
    uint64_t base, bytes;
    int result;

    pthread_mutex_lock(&q->lock);
    base = q->fresh;
    if (base != UINT64_MAX && q->file_end > base << q->cluster_bits) {
        q->file_end = base << q->cluster_bits;
    }
    pthread_mutex_unlock(&q->lock);
    if (base == UINT64_MAX) {
        return 0; /* no file that grows */
    }
    if (!by_range_ok(base, p->wanted, 1ull << (55 - q->cluster_bits))) {
        return -EFBIG;
    }
    bytes = (base + with_blocks(q, base, p->wanted)) << q->cluster_bits;
    p->from = base;
    if (by_node_length(q->file) > base << q->cluster_bits) {
        result = q2_node_truncate(q->file, base << q->cluster_bits,
                                  BY_PREALLOC_OFF);
        if (result < 0) {
            return result;
        }
    }
    result = q2_node_truncate(q->file, bytes, prealloc);
    return result < 0 ? result : q2_file_reach(q, bytes);
}

static int fill(struct by_qcow2 *q, struct prealloc *p, uint64_t first,
                uint64_t end)
{
    uint64_t per = 1ull << q->l2_bits;
    int result = 0;

    while (first < end && result == 0) {
        uint64_t in = first & (per - 1);
        uint64_t n = end - first < per - in ? end - first : per - in;

        p->guest = (first - in) << q->cluster_bits;
        result = q2_l2_each(q, q->l1[first >> q->l2_bits] & Q2_OFFSET_MASK,
                            in, n, give, p);
        first += n;
    }
    if (p->have) { /* more than turned out to be needed */
        (void)q2_refcount_add(q, q2_cluster(q, p->host), p->have, -1);
    }
    return result;
}

int q2_preallocate(struct by_qcow2 *q, uint64_t from, uint64_t to,
                   uint32_t prealloc, char *why)
{
    uint64_t first = q2_cluster(q, from);
    uint64_t end = q2_cluster(q, to) + (q2_in_cluster(q, to) != 0);
    struct prealloc p = { .wanted = end - first };
    int result;

    if (q->backing) {
        p.backed = by_node_length(q->backing);
    }
    result = first < end ? make_tables(q, first, end) : 0;
    if (result < 0) {
        return q2_say(why, result, "Allocating clusters failed");
    }
    if (prealloc > BY_PREALLOC_METADATA && !q->set.data_file && first < end) {
        result = reserve(q, &p, prealloc);
        if (result < 0) {
            return q2_say(why, result, "Failed to resize underlying file");
        }
    }
    result = fill(q, &p, first, end);
    if (result < 0) {
        return q2_say(why, result, "Allocating clusters failed");
    }
    if (q->set.data_file && by_node_length(q->data) < to) {
        result = q2_data_truncate(q, to, prealloc == BY_PREALLOC_METADATA
                                  ? BY_PREALLOC_OFF : prealloc, false);
    }
    return result;
}

int by_qcow2_preallocate(struct by_qcow2 *q, uint32_t prealloc, char *why)
{
    int result = 0;

    *why = 0;
    if (prealloc > BY_PREALLOC_FULL) {
        return -EINVAL;
    }
    pthread_mutex_lock(&q->meta);
    if (prealloc != BY_PREALLOC_OFF) {
        result = q2_preallocate(q, 0, q->size, prealloc, why);
        if (result == 0) {
            result = q2_say(why, q2_sync(q),
                            "Failed to flush the preallocated area to disk");
        }
    } else if (q->set.data_file) {
        result = q2_data_truncate(q, q->size, prealloc, false);
    }
    pthread_mutex_unlock(&q->meta);
    if (result == 0) {
        *why = 0;
    }
    return result;
}
