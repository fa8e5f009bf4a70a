/* SPDX-License-Identifier: Apache-2.0 */
/*
 * alloc.c - clusters that nobody uses.
 *
 * First fit, from `free_from` on, by the refcounts in the cache.  Requests
 * take what is at hand and never wait; table work brings what they lack.  A
 * cluster that holds metadata is never handed out, whatever its refcount says:
 * the image is corrupt then.
 */
#include <errno.h>

#include "image.h"

enum {
    SLICES_AT_ONCE = 16,        /* looked at under one hold of the lock */
    MOST_AT_ONCE = 4096,        /* clusters taken under one */
    MOST_PREPARED = 65536,
};

/* ---------------------------------------------------------------- search */

static uint64_t within(const struct by_qcow2 *q, uint64_t cluster)
{
    return cluster & ((1ull << q->rb_slice_bits) - 1);
}

/* Is one of this word's entries zero?  The order of bytes does not matter. */
static bool has_zero(uint64_t word, uint32_t order)
{
    static const uint64_t ones[] = {
        ~0ull, 0x5555555555555555ull, 0x1111111111111111ull,
        0x0101010101010101ull, 0x0001000100010001ull, 0x0000000100000001ull,
        1,
    };
    uint64_t low = ones[order], high = low << ((1u << order) - 1);

    if (order == 0) {
        return word != ~0ull;
    }
    return ((word - low) & ~word & high) != 0;
}

/* The first entry from `at` on that is zero; the number of entries: none. */
static uint64_t find_zero(const struct by_qcow2 *q, const void *table,
                          uint64_t at)
{
    uint64_t end = 1ull << q->rb_slice_bits;
    uint64_t per_word = 64 >> q->refcount_order;

    while (at < end) {
        uint64_t word;

        if (at % per_word == 0) {
            memcpy(&word, (const char *)table + at / per_word * 8, 8);
            if (!has_zero(word, q->refcount_order)) {
                at += per_word;
                continue;
            }
        }
        if (q2_refcount_read(q, table, at) == 0) {
            break;
        }
        at++;
    }
    return at;
}

/* Under lock: the first free cluster from *from on, by slices that are there.
 * -EAGAIN: it was not found up to *from; there something lacks, or it is
 * time to let others at the lock. */
static int search(struct by_qcow2 *q, uint64_t *from, struct q2_slice **slice)
{
    bool first = *from <= q->free_from;
    int result = -EAGAIN;

    if (first) {
        *from = q->free_from;
    }
    for (int i = 0; i < SLICES_AT_ONCE; i++) {
        uint64_t here = *from >> q->rb_slice_bits;
        uint64_t next = q2_space_next(q, here);
        uint64_t offset, at;

        if (next == UINT64_MAX) {
            uint64_t end = q->roomy_slices << q->rb_slice_bits;

            *from = *from < end ? end : *from;
            break;
        }
        if (next != here) {
            *from = next << q->rb_slice_bits;
        }
        offset = q2_refcount_slice(q, *from);
        *slice = offset ? q2_cache_find(&q->rb, offset) : NULL;
        if (!*slice) {
            break;
        }
        at = find_zero(q, (*slice)->table, within(q, *from));
        if (at >> q->rb_slice_bits == 0) {
            *from = next << q->rb_slice_bits | at;
            result = 0;
            break;
        }
        if (first || within(q, *from) == 0) {
            q2_space_full(q, next);
        }
        *from = (next + 1) << q->rb_slice_bits;
    }
    if (first) {
        q->free_from = *from;
    }
    return result;
}

/* Under lock: how many from `cluster` on are free, up to count and to the end
 * of the slice. */
static uint64_t free_run(const struct by_qcow2 *q,
                         const struct q2_slice *slice, uint64_t cluster,
                         uint64_t count)
{
    uint64_t at = within(q, cluster), n = 0;
    uint64_t left = (1ull << q->rb_slice_bits) - at;

    count = count < left ? count : left;
    while (n < count && q2_refcount_read(q, slice->table, at + n) == 0) {
        n++;
    }
    return n;
}

/* Under lock: none of them holds metadata, or fewer of them are to be taken;
 * `what` is what the caller makes of them, if QEMU has a word for it. */
static int check_metadata(struct by_qcow2 *q, uint64_t cluster,
                          uint64_t *count, const char *what)
{
    uint64_t first, offset = cluster << q->cluster_bits;

    if (likely(!q2_map_types(q, cluster, *count, &first))) {
        return 0;
    }
    if (first > cluster) {
        *count = first - cluster;
        return 0;
    }
    if (cluster == 0 && what) {
        return q2_corrupt(q, true, -1, -1, "Preventing invalid allocation of "
                          "%s at offset 0", what);
    }
    return q2_overlap_report(q, q2_map_types(q, cluster, 1, NULL), offset,
                             q->cluster_size);
}

/* Under lock: they are the caller's. */
static void claim(struct by_qcow2 *q, struct q2_slice *slice, uint64_t cluster,
                  uint64_t count)
{
    for (uint64_t i = 0; i < count; i++) {
        q2_refcount_write(q, slice->table, within(q, cluster) + i, 1);
    }
    q2_cache_dirty(&q->rb, slice);
    if (q->free_from == cluster) {
        q->free_from = cluster + count;
    }
    if (q->fresh < cluster + count) {
        q->fresh = cluster + count;
    }
}

static bool out_of_format(const struct by_qcow2 *q, uint64_t cluster,
                          uint64_t count)
{
    return !by_range_ok(cluster, count, 1ull << (56 - q->cluster_bits));
}

/* -------------------------------------------------------------- on loops */

static int take(struct by_qcow2 *q, uint64_t *count, uint64_t *cluster,
                bool *fresh, const char *what)
{
    uint64_t there = q2_cluster(q, q->file_end), most = *count;
    struct q2_slice *slice;
    int result;

    *cluster = 0;
    if (unlikely(q2_is_corrupt(q))) {
        return -EIO;
    }
    result = search(q, cluster, &slice);
    if (result == 0 && *cluster >= there) {
        result = -EAGAIN;
    }
    if (unlikely(result < 0)) {
        return result;
    }
    most = most > MOST_AT_ONCE ? MOST_AT_ONCE : most ? most : 1;
    most = most > there - *cluster ? there - *cluster : most;
    *fresh = *cluster >= q->fresh;
    if (!*fresh && most > q->fresh - *cluster) {
        most = q->fresh - *cluster;
    }
    *count = free_run(q, slice, *cluster, most);
    result = check_metadata(q, *cluster, count, what);
    if (result == 0) {
        claim(q, slice, *cluster, *count);
    }
    return result;
}

int q2_alloc_try(struct by_qcow2 *q, uint64_t *count, uint64_t *offset,
                 bool *fresh)
{
    uint64_t cluster;
    int result = take(q, count, &cluster, fresh, NULL);

    *offset = cluster << q->cluster_bits;
    if (result == 0) {
        q2_event(q, BY_DEBUG_CLUSTER_ALLOC);
        q2_event(q, BY_DEBUG_REFBLOCK_LOAD);
        q2_event(q, BY_DEBUG_REFBLOCK_ALLOC);
    }
    return result;
}

/* Under lock: the slice that counts this cluster, if it is at hand. */
static struct q2_slice *at_hand(struct by_qcow2 *q, uint64_t cluster)
{
    uint64_t offset = q2_refcount_slice(q, cluster);

    return offset ? q2_cache_find(&q->rb, offset) : NULL;
}

/* Compressed data goes on where it ended, into the next cluster too if that
 * is free.  -ENOENT: not possible there. */
static int append_bytes(struct by_qcow2 *q, uint64_t bytes)
{
    uint64_t first = q2_cluster(q, q->compressed_at), refcount, one = 1;
    struct q2_slice *slice = at_hand(q, first), *next = NULL;

    if (!slice) {
        return -EAGAIN;
    }
    refcount = q2_refcount_read(q, slice->table, within(q, first));
    if (refcount == 0 || refcount == q->refcount_max) {
        return -ENOENT;
    }
    if (q2_in_cluster(q, q->compressed_at) + bytes > q->cluster_size) {
        next = at_hand(q, first + 1);
        if (!next || first + 1 >= q2_cluster(q, q->file_end)
            || !free_run(q, next, first + 1, 1)
            || q2_map_types(q, first + 1, 1, NULL)) {
            return -ENOENT;
        }
        claim(q, next, first + 1, one);
    }
    q2_refcount_write(q, slice->table, within(q, first), refcount + 1);
    q2_cache_dirty(&q->rb, slice);
    return 0;
}

int q2_alloc_bytes(struct by_qcow2 *q, uint64_t bytes, uint64_t *offset)
{
    uint64_t cluster, count = 1;
    int result = -ENOENT;
    bool fresh;

    if (unlikely(q2_is_corrupt(q))) {
        return -EIO;
    }
    if (!bytes || bytes > q->cluster_size) {
        return -EINVAL;
    }
    if (q->compressed_at) {
        result = append_bytes(q, bytes);
    }
    if (result == -ENOENT) {
        result = take(q, &count, &cluster, &fresh, "compressed cluster");
        if (result == 0) {
            q->compressed_at = cluster << q->cluster_bits;
        }
    }
    if (result < 0) {
        return result;
    }
    *offset = q->compressed_at;
    q->compressed_at += bytes;
    if (!q2_in_cluster(q, q->compressed_at)) {
        q->compressed_at = 0; /* the next one is not ours */
    }
    if (*offset + bytes - 1 > q->coffset_mask) {
        q->compressed_at = 0;
        q2_free(q, *offset & ~(q->cluster_size - 1),
                ((*offset + bytes - 1) | (q->cluster_size - 1)) + 1
                - (*offset & ~(q->cluster_size - 1)), BY_QCOW2_DISCARD_NEVER);
        return -EFBIG;
    }
    q2_event(q, BY_DEBUG_CLUSTER_ALLOC_BYTES);
    return 0;
}

/* -------------------------------------------------------------- table work */

/* What lacks for counting `cluster`: a block, or its slice in the cache. */
static int supply(struct by_qcow2 *q, uint64_t cluster, uint64_t first,
                  uint64_t count)
{
    uint64_t offset = q2_refcount_slice(q, cluster);
    uint64_t index = cluster >> q->refblock_bits;
    struct q2_slice *slice;
    int result;

    if (out_of_format(q, cluster, 1)) {
        return -EFBIG;
    }
    if (!offset) {
        return q2_block_make(q, index, first, count);
    }
    result = q2_block_check(q, index);
    if (result == 0) {
        result = q2_cache_get(q, &q->rb, offset, &slice);
    }
    if (result == 0) {
        pthread_mutex_lock(&q->lock);
        q2_cache_unpin(&q->rb, slice);
        pthread_mutex_unlock(&q->lock);
    }
    return result;
}

/* Have what a search needs, up to a free cluster, and what compressed data needs
 * to go on.  A block that has to be made leaves room for `count` clusters from
 * there on, so that they are in one piece. */
static int find_free(struct by_qcow2 *q, uint64_t count, uint64_t *from)
{
    uint64_t per_block = 1ull << q->refblock_bits;
    struct q2_slice *slice;
    uint64_t compressed_at;
    int result;

    for (;;) {
        if (q2_is_corrupt(q)) {
            return -EIO;
        }
        *from = 0;
        pthread_mutex_lock(&q->lock);
        result = search(q, from, &slice);
        if (result == 0) {
            q2_cache_pin(slice); /* the other one would drive it out */
        }
        compressed_at = q->compressed_at;
        pthread_mutex_unlock(&q->lock);
        if (result == 0) {
            break;
        }
        result = supply(q, *from, *from,
                        count < per_block ? count : per_block - 1);
        if (result < 0) {
            return result;
        }
    }
    if (compressed_at) {
        result = supply(q, q2_cluster(q, compressed_at), 0, 0);
    }
    pthread_mutex_lock(&q->lock);
    q2_cache_unpin(&q->rb, slice);
    pthread_mutex_unlock(&q->lock);
    return result;
}

int q2_alloc_prepare(struct by_qcow2 *q, struct q2_chore *chore)
{
    uint64_t count = chore->arg > MOST_PREPARED ? MOST_PREPARED : chore->arg;
    uint64_t from;
    int result;

    count = count ? count : 1;
    result = find_free(q, count, &from);
    if (result == 0
        && (from + count) << q->cluster_bits > by_node_length(q->file)
        && q2_free_instead(q, count << q->cluster_bits)) {
        result = find_free(q, count, &from);
    }
    if (result < 0) {
        return result;
    }
    result = q2_file_reach(q, (from + count) << q->cluster_bits);
    if (result == -ENOSPC || result == -EFBIG) { /* fewer will do */
        result = q2_file_reach(q, (from + 1) << q->cluster_bits);
    }
    return result;
}

/* Claim [first, first + count), slice by slice.  1: *from is behind a cluster
 * that is in use. */
static int claim_run(struct by_qcow2 *q, uint64_t first, uint64_t count,
                     const char *what, uint64_t *from)
{
    uint64_t done = 0;
    int result = 0;

    while (result == 0 && done < count) {
        uint64_t c = first + done, n, left;
        struct q2_slice *slice;

        result = supply(q, c, first, count);
        if (result < 0) {
            break;
        }
        pthread_mutex_lock(&q->lock);
        slice = at_hand(q, c);
        if (slice) {
            left = (1ull << q->rb_slice_bits) - within(q, c);
            left = left > count - done ? count - done : left;
            left = left > MOST_AT_ONCE ? MOST_AT_ONCE : left;
            n = free_run(q, slice, c, left);
            if (n < left) {
                *from = c + n + 1;
                result = 1;
            } else {
                result = check_metadata(q, c, &n, what);
                if (result == 0) {
                    claim(q, slice, c, n);
                    done += n;
                }
            }
        }
        pthread_mutex_unlock(&q->lock);
    }
    if (result != 0 && done) {
        (void)q2_refcount_add(q, first, done, -1);
    }
    return result;
}

int q2_alloc_for(struct by_qcow2 *q, uint64_t from, uint64_t count,
                 const char *what, uint64_t *offset)
{
    q2_event(q, BY_DEBUG_CLUSTER_ALLOC);
    for (;;) {
        struct q2_slice *slice;
        int result;

        if (q2_is_corrupt(q)) {
            return -EIO;
        }
        pthread_mutex_lock(&q->lock);
        result = search(q, &from, &slice);
        pthread_mutex_unlock(&q->lock);
        if (out_of_format(q, from, count)) {
            return -EFBIG;
        }
        if (result < 0) {
            result = supply(q, from, from, count);
            if (result < 0) {
                return result;
            }
            continue;
        }
        result = q2_file_reach(q, (from + count) << q->cluster_bits);
        if (result == 0) {
            *offset = from << q->cluster_bits;
            q2_event(q, BY_DEBUG_REFBLOCK_LOAD);
            q2_event(q, BY_DEBUG_REFBLOCK_ALLOC);
            result = claim_run(q, from, count, what, &from);
        }
        if (result <= 0) {
            return result;
        }
    }
}

int q2_alloc_wait(struct by_qcow2 *q, uint64_t bytes, uint64_t *offset)
{
    if (!bytes || bytes > 1ull << 56) {
        return bytes ? -EFBIG : -EINVAL;
    }
    return q2_alloc_for(q, 0, q2_cluster(q, bytes + q->cluster_size - 1),
                        "L2 table", offset);
}
