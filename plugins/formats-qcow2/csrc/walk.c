/* SPDX-License-Identifier: Apache-2.0 */
/*
 * walk.c - what tables refer to: all clusters under an L1 table, the active
 * one or a snapshot's, and how often they are referred to.
 *
 * L2 tables are read through the cache of slices, a snapshot's too: it may
 * share them with the disk.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "tables.h"

enum { DROPS_A_SYNC = 65536 }; /* freed ranges that may wait for q2_sync */

int q2_l1_entry_check(struct by_qcow2 *q, uint64_t entry, uint32_t index)
{
    uint64_t offset = entry & Q2_OFFSET_MASK;

    if (q2_in_cluster(q, offset)) {
        return q2_corrupt(q, true, -1, -1, "L2 table offset %#" PRIx64
                          " unaligned (L1 index: %#" PRIx32 ")", offset,
                          index);
    }
    return 0;
}

static int by_value(const void *one, const void *other)
{
    uint64_t a = *(const uint64_t *)one, b = *(const uint64_t *)other;

    return a < b ? -1 : a > b;
}

int q2_l1_check(struct by_qcow2 *q, const uint64_t *l1, uint32_t entries)
{
    uint64_t *sorted = malloc(entries * 8ull + 1);
    uint32_t n = 0;
    int result = sorted ? 0 : -ENOMEM;

    for (uint32_t i = 0; i < entries && result == 0; i++) {
        if (l1[i] & Q2_OFFSET_MASK) {
            sorted[n++] = l1[i] & Q2_OFFSET_MASK;
            result = q2_l1_entry_check(q, l1[i], i);
        }
    }
    if (result == 0) {
        qsort(sorted, n, sizeof(*sorted), by_value);
    }
    for (uint32_t i = 1; i < n && result == 0; i++) {
        if (sorted[i] == sorted[i - 1]) {
            result = q2_corrupt(q, true, -1, -1, "L2 table offset %#" PRIx64
                                " used more than once", sorted[i]);
        }
    }
    free(sorted);
    return result;
}

/* One slice: entries [first, end) of it. */
static int each_of_slice(struct by_qcow2 *q, struct q2_slice *slice,
                         uint32_t first, uint32_t end, uint32_t base,
                         struct q2_at *at, q2_entry_fn fn)
{
    bool changed = false;
    int result = 0;

    for (uint32_t i = first; i < end && result >= 0; i++) {
        unsigned char *raw = slice->table + (uint64_t)i * q->entry_bytes;
        uint64_t entry = q2_be64(raw), bitmap = 0;

        if (q->entry_bytes == 16) {
            bitmap = q2_be64(raw + 8);
        }
        at->index = base + i;
        result = fn(q, at, &entry, &bitmap);
        if (result > 0) {
            pthread_mutex_lock(&q->lock);
            q2_put64(raw, entry);
            if (q->entry_bytes == 16) {
                q2_put64(raw + 8, bitmap);
            }
            pthread_mutex_unlock(&q->lock);
            changed = true;
        }
    }
    pthread_mutex_lock(&q->lock);
    if (changed) {
        q2_cache_dirty(&q->l2, slice);
    }
    q2_cache_unpin(&q->l2, slice);
    pthread_mutex_unlock(&q->lock);
    return result < 0 ? result : 0;
}

int q2_l2_each(struct by_qcow2 *q, uint64_t l2_offset, uint32_t first,
               uint32_t count, q2_entry_fn fn, void *owner)
{
    struct q2_at at = { .l2_offset = l2_offset, .owner = owner };
    uint32_t per = q->l2_slice_entries, end = first + count;
    int result = 0;

    while (first < end && result == 0) {
        uint32_t base = first - first % per;
        uint32_t stop = end - base < per ? end - base : per;
        struct q2_slice *slice;

        result = q2_cache_get(q, &q->l2,
                              l2_offset + (uint64_t)base * q->entry_bytes,
                              &slice);
        if (result == 0) {
            result = each_of_slice(q, slice, first - base, stop, base, &at,
                                   fn);
        }
        first = base + stop;
    }
    return result;
}

int q2_entry_refs(struct by_qcow2 *q, const struct q2_at *at, uint64_t entry,
                  uint64_t *offset, uint64_t *bytes)
{
    uint64_t mask = ~(q->cluster_size - 1);

    *offset = entry & Q2_OFFSET_MASK;
    *bytes = 0;
    if (entry & Q2_COMPRESSED) {
        uint64_t from = entry & q->coffset_mask & ~(uint64_t)(Q2_SECTOR - 1);
        uint64_t sectors = (entry >> q->csize_shift & q->csize_mask) + 1;

        if (q->set.data_file || from > Q2_OFFSET_MASK - sectors * Q2_SECTOR) {
            return q2_corrupt(q, true, -1, -1, "Compressed cluster entry "
                              "found in normal cluster (L2 offset: %#" PRIx64
                              ", L2 index: %#" PRIx32 ")", at->l2_offset,
                              at->index);
        }
        *offset = from & mask;
        *bytes = ((from + sectors * Q2_SECTOR - 1) & mask) + q->cluster_size
            - *offset;
        return 0;
    }
    if (q2_in_cluster(q, *offset)) {
        return q2_corrupt(q, true, -1, -1, "Cluster allocation offset %#"
                          PRIx64 " unaligned (L2 offset: %#" PRIx64
                          ", L2 index: %#" PRIx32 ")", *offset, at->l2_offset,
                          at->index);
    }
    if (*offset && !q->set.data_file) {
        *bytes = q->cluster_size;
    }
    return 0;
}

/* ---------------------------------------------------------------- gather */

static int gather(struct by_qcow2 *q, const struct q2_at *at, uint64_t *entry,
                  uint64_t *bitmap)
{
    struct q2_refs *refs = at->owner;
    struct q2_ref *last = refs->n ? &refs->runs[refs->n - 1] : NULL;
    uint64_t offset, bytes, cluster;
    int result = q2_entry_refs(q, at, *entry, &offset, &bytes);

    (void)bitmap;
    if (result < 0 || !bytes) {
        return result;
    }
    cluster = q2_cluster(q, offset);
    if (last && last->cluster + last->count == cluster) {
        last->count += q2_cluster(q, bytes);
        return 0;
    }
    if (refs->n == refs->room) {
        uint32_t room = refs->room ? refs->room * 2 : 64;
        void *runs = realloc(refs->runs, room * sizeof(*refs->runs));

        if (!runs) {
            return -ENOMEM;
        }
        refs->runs = runs;
        refs->room = room;
    }
    refs->runs[refs->n++] = (struct q2_ref) { cluster, q2_cluster(q, bytes) };
    return 0;
}

int q2_l2_refs(struct by_qcow2 *q, uint64_t l2_offset, struct q2_refs *refs)
{
    int result;

    *refs = (struct q2_refs) { 0 };
    result = q2_l2_each(q, l2_offset, 0, 1u << q->l2_bits, gather, refs);
    if (result < 0) {
        free(refs->runs);
        *refs = (struct q2_refs) { 0 };
    }
    return result;
}

/* ------------------------------------------------------------ one more */

/* What is referred to has references: a cluster that has none is not given
 * its first here, as whoever wrote that entry did not own it. */
static int add_run(struct by_qcow2 *q, const struct q2_ref *run)
{
    for (uint64_t i = 0; i < run->count; i++) {
        uint64_t value;
        int result = q2_refcount_get(q, run->cluster + i, &value);

        if (result < 0) {
            return result;
        }
        if (!value) {
            return q2_corrupt(q, false, -1, -1, "Cluster %#" PRIx64 " is in "
                              "use and has no reference count",
                              (run->cluster + i) << q->cluster_bits);
        }
    }
    return q2_refcount_add(q, run->cluster, run->count, 1);
}

static int add_table(struct by_qcow2 *q, uint64_t l2_offset)
{
    struct q2_ref self = { q2_cluster(q, l2_offset), 1 };
    struct q2_refs refs;
    uint32_t done = 0;
    int result = q2_l2_refs(q, l2_offset, &refs);

    if (result == 0) {
        result = add_run(q, &self);
    }
    if (result < 0) {
        free(refs.runs);
        return result;
    }
    while (done < refs.n && result == 0) {
        result = add_run(q, &refs.runs[done]);
        done += result == 0;
    }
    if (result < 0) {
        while (done-- > 0) {
            (void)q2_refcount_add(q, refs.runs[done].cluster,
                                  refs.runs[done].count, -1);
        }
        (void)q2_refcount_add(q, self.cluster, 1, -1);
    }
    free(refs.runs);
    return result;
}

int q2_tree_add(struct by_qcow2 *q, const uint64_t *l1, uint32_t entries)
{
    int result = 0;

    for (uint32_t i = 0; i < entries; i++) {
        if (!(l1[i] & Q2_OFFSET_MASK)) {
            continue;
        }
        result = q2_l1_entry_check(q, l1[i], i);
        if (result == 0) {
            result = add_table(q, l1[i] & Q2_OFFSET_MASK);
        }
        if (result < 0) {
            (void)q2_tree_drop(q, l1, i);
            break;
        }
    }
    return result;
}

/* ------------------------------------------------------------- one less */

int q2_tree_drop(struct by_qcow2 *q, const uint64_t *l1, uint32_t entries)
{
    uint64_t waiting = 0;
    int first = 0;

    for (uint32_t i = 0; i < entries; i++) {
        uint64_t l2 = l1[i] & Q2_OFFSET_MASK;
        struct q2_refs refs;
        int result;

        if (!l2) {
            continue;
        }
        result = q2_l1_entry_check(q, l1[i], i);
        if (result == 0) {
            result = q2_l2_refs(q, l2, &refs);
        }
        if (result < 0) { /* what the table refers to leaks */
            first = first ? first : result;
            continue;
        }
        for (uint32_t n = 0; n < refs.n; n++) {
            result = q2_drop(q, refs.runs[n].cluster << q->cluster_bits,
                             refs.runs[n].count << q->cluster_bits,
                             BY_QCOW2_DISCARD_SNAPSHOT);
            first = first ? first : result;
        }
        waiting += refs.n + 1;
        free(refs.runs);
        result = q2_drop(q, l2, q->cluster_size, BY_QCOW2_DISCARD_SNAPSHOT);
        if (result == 0 && waiting > DROPS_A_SYNC) {
            result = q2_sync(q);
            waiting = 0;
        }
        first = first ? first : result;
    }
    return first;
}

/* ---------------------------------------------------------------- flags */

static int set_flag(struct by_qcow2 *q, const struct q2_at *at,
                    uint64_t *entry, uint64_t *bitmap)
{
    uint64_t offset, bytes, count, made;
    int result = q2_entry_refs(q, at, *entry, &offset, &bytes);

    (void)bitmap;
    if (result < 0 || !bytes || (*entry & Q2_COMPRESSED)) {
        return result;
    }
    result = q2_refcount_get(q, q2_cluster(q, offset), &count);
    if (result < 0) {
        return result;
    }
    made = count == 1 ? *entry | Q2_COPIED : *entry & ~Q2_COPIED;
    result = made != *entry;
    *entry = made;
    return result;
}

int q2_tree_flags(struct by_qcow2 *q)
{
    int result = 0;

    for (uint32_t i = 0; i < q->l1_size && result == 0; i++) {
        uint64_t entry = q->l1[i], l2 = entry & Q2_OFFSET_MASK, count;

        if (!l2) {
            continue;
        }
        result = q2_l1_entry_check(q, entry, i);
        if (result == 0) {
            result = q2_refcount_get(q, q2_cluster(q, l2), &count);
        }
        if (result < 0) {
            break;
        }
        result = q2_l2_each(q, l2, 0, 1u << q->l2_bits, set_flag, NULL);
        if ((count == 1) != !!(entry & Q2_COPIED)) {
            q2_l1_set(q, i, entry ^ Q2_COPIED);
        }
    }
    return result;
}

/* -------------------------------------------------------------- the map */

int q2_tree_map(struct by_qcow2 *q, const uint64_t *l1, uint32_t entries,
                uint32_t type, bool add)
{
    int result = 0;

    pthread_mutex_lock(&q->lock);
    for (uint32_t i = 0; i < entries && result == 0; i++) {
        uint64_t l2 = l1[i] & Q2_OFFSET_MASK;

        if (!l2 || q2_in_cluster(q, l2)) {
            continue;
        }
        if (add) {
            result = q2_map_add(q, l2, q->cluster_size, type);
        } else {
            q2_map_remove(q, l2, q->cluster_size, type);
        }
    }
    pthread_mutex_unlock(&q->lock);
    return result;
}
