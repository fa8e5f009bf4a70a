/* SPDX-License-Identifier: Apache-2.0 */
/*
 * amend_expand.c - what must be done to tables that version 2 is to read:
 * it knows no zero clusters.  All tables are walked, snapshots' too.
 */
#include <errno.h>
#include <stdlib.h>

#include "tables.h"

/* Work on all L2 tables under all L1 tables; l2_count: how many refer to
 * this one. */
struct every {
    int (*work)(struct by_qcow2 *q, uint64_t l2_offset, uint64_t l2_count);
    struct by_qcow2_progress *progress;
};

static int every_l2(struct by_qcow2 *q, const uint64_t *l1, uint32_t entries,
                    const struct every *every)
{
    struct by_qcow2_progress *progress = every->progress;
    int result = 0;

    for (uint32_t i = 0; i < entries && result == 0; i++) {
        uint64_t l2 = l1[i] & Q2_OFFSET_MASK, count;

        if (progress) {
            if (__atomic_load_n(&progress->cancel, __ATOMIC_RELAXED)) {
                return -ECANCELED;
            }
            __atomic_add_fetch(&progress->done, 1, __ATOMIC_RELAXED);
        }
        if (!l2) {
            continue;
        }
        result = q2_l1_entry_check(q, l1[i], i);
        if (result == 0) {
            result = q2_refcount_get(q, q2_cluster(q, l2), &count);
        }
        if (result == 0) {
            result = every->work(q, l2, count);
        }
    }
    return result;
}

static int every_table(struct by_qcow2 *q, const struct every *every)
{
    struct by_qcow2_snapshots *list;
    uint64_t total = q->l1_size;
    int result;

    list = q2_snapshots_read(q, &result, NULL);
    if (!list) {
        return result;
    }
    for (uint32_t i = 0; i < list->count; i++) {
        total += list->entries[i].l1_size;
    }
    if (every->progress) {
        __atomic_add_fetch(&every->progress->total, total, __ATOMIC_RELAXED);
    }
    result = every_l2(q, q->l1, q->l1_size, every);
    for (uint32_t i = 0; i < list->count && result == 0; i++) {
        const struct by_qcow2_snapshot *entry = &list->entries[i];
        uint64_t *l1 = NULL;

        result = q2_table_check(q, entry->l1_offset, entry->l1_size,
                                Q2_MAX_L1_BYTES, "Snapshot L1 table", NULL);
        if (result == 0) {
            l1 = q2_table_read(q, entry->l1_offset, entry->l1_size, 0,
                               &result);
        }
        if (l1) {
            result = every_l2(q, l1, entry->l1_size, every);
        }
        free(l1);
    }
    by_qcow2_snapshots_free(list);
    return result;
}

/* ---------------------------------------------------------------- expand */

/* A cluster of zeroes for an entry that `count` tables show. */
static int make_cluster(struct by_qcow2 *q, uint64_t count, uint64_t *offset)
{
    uint64_t cluster;
    int result = q2_alloc_wait(q, q->cluster_size, offset);

    if (result < 0) {
        return result;
    }
    cluster = q2_cluster(q, *offset);
    if (count > 1) {
        result = q2_refcount_add(q, cluster, 1, count - 1);
        count = result < 0 ? 1 : count;
    }
    if (result == 0) {
        result = q2_pzero(q, *offset, q->cluster_size);
    }
    if (result < 0) {
        (void)q2_refcount_add(q, cluster, 1, -(int64_t)count);
    }
    return result;
}

/* The cluster that it has: zeroes there, if no other entry shows its data.
 * 1: another one does. */
static int zero_in_place(struct by_qcow2 *q, uint64_t offset, uint64_t count)
{
    uint64_t refcount;
    int result = q2_refcount_get(q, q2_cluster(q, offset), &refcount);

    if (result < 0) {
        return result;
    }
    if (refcount != count) {
        return 1;
    }
    pthread_mutex_lock(&q->lock);
    result = q2_overlap_check(q, 0, offset, q->cluster_size);
    pthread_mutex_unlock(&q->lock);
    return result < 0 ? result : q2_pzero(q, offset, q->cluster_size);
}

static int expand_entry(struct by_qcow2 *q, const struct q2_at *at,
                        uint64_t *entry, uint64_t *bitmap)
{
    uint64_t count = *(uint64_t *)at->owner, offset, bytes, made;
    int result;

    (void)bitmap;
    if ((*entry & Q2_COMPRESSED) || !(*entry & Q2_ZERO)) {
        return 0;
    }
    result = q2_entry_refs(q, at, *entry, &offset, &bytes);
    if (result < 0) {
        return result;
    }
    if (!bytes && !q->backing) {
        *entry = 0;
        return 1;
    }
    pthread_mutex_lock(&q->lock);
    q->barrier = true;
    pthread_mutex_unlock(&q->lock);
    made = offset;
    result = bytes ? zero_in_place(q, offset, count) : 1;
    if (result == 1) {
        result = make_cluster(q, count, &made);
    }
    if (result < 0) {
        return result;
    }
    if (bytes && made != offset) {
        pthread_mutex_lock(&q->lock);
        for (uint64_t i = 0; i < count; i++) {
            q2_free(q, offset, bytes, BY_QCOW2_DISCARD_OTHER);
        }
        pthread_mutex_unlock(&q->lock);
    }
    *entry = made | (count == 1 ? Q2_COPIED : 0);
    return 1;
}

static int expand_table(struct by_qcow2 *q, uint64_t l2, uint64_t count)
{
    if (!count) {
        return q2_corrupt(q, true, -1, -1, "L2 table %#llx has no reference "
                          "count", (unsigned long long)l2);
    }
    return q2_l2_each(q, l2, 0, 1u << q->l2_bits, expand_entry, &count);
}

int q2_expand_zeroes(struct by_qcow2 *q, struct by_qcow2_progress *progress)
{
    struct every every = { .work = expand_table, .progress = progress };
    int result = every_table(q, &every), synced = q2_sync(q);

    return result < 0 ? result : synced;
}

/* ------------------------------------------------------------ compressed */

static int is_compressed(struct by_qcow2 *q, const struct q2_at *at,
                         uint64_t *entry, uint64_t *bitmap)
{
    (void)q;
    (void)at;
    (void)bitmap;
    return *entry & Q2_COMPRESSED ? -EEXIST : 0;
}

static int look_for_compressed(struct by_qcow2 *q, uint64_t l2, uint64_t count)
{
    (void)count;
    return q2_l2_each(q, l2, 0, 1u << q->l2_bits, is_compressed, NULL);
}

int q2_has_compressed(struct by_qcow2 *q)
{
    struct every every = { .work = look_for_compressed };
    int result = every_table(q, &every);

    return result == -EEXIST ? 1 : result;
}
