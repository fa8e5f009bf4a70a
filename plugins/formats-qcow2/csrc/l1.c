/* SPDX-License-Identifier: Apache-2.0 */
/* l1.c - the L1 table in memory, and L2 tables that are made under it. */
#include <errno.h>
#include <inttypes.h>

#include "image.h"

void q2_l1_set(struct by_qcow2 *q, uint32_t index, uint64_t entry)
{
    pthread_mutex_lock(&q->lock);
    q->l1[index] = entry;
    if (q->l1_dirty_from >= q->l1_dirty_to) {
        q->l1_dirty_from = index;
        q->l1_dirty_to = index + 1;
    } else if (index < q->l1_dirty_from) {
        q->l1_dirty_from = index;
    } else if (index >= q->l1_dirty_to) {
        q->l1_dirty_to = index + 1;
    }
    pthread_mutex_unlock(&q->lock);
}

/* One slice of the new table: zeroes, or the old table's. */
static int fill_slice(struct by_qcow2 *q, uint64_t old, uint64_t new)
{
    struct q2_slice *from = NULL, *to;
    int result = 0;

    if (old) {
        q2_event(q, BY_DEBUG_L2_ALLOC_COW_READ);
        result = q2_cache_get(q, &q->l2, old, &from);
    }
    if (result == 0) {
        result = q2_cache_get_zeroed(q, &q->l2, new, &to);
    }
    pthread_mutex_lock(&q->lock);
    if (result == 0) {
        if (from) {
            memcpy(to->table, from->table, q->l2.slice_bytes);
            q2_cache_dirty(&q->l2, to);
        }
        q2_cache_unpin(&q->l2, to);
    }
    if (from) {
        q2_cache_unpin(&q->l2, from);
    }
    pthread_mutex_unlock(&q->lock);
    return result;
}

static int fill(struct by_qcow2 *q, uint64_t old, uint64_t new)
{
    int result = 0;

    for (uint64_t at = 0; result == 0 && at < q->cluster_size;
         at += q->l2.slice_bytes) {
        result = fill_slice(q, old ? old + at : 0, new + at);
    }
    return result;
}

int q2_l2_make(struct by_qcow2 *q, uint32_t l1_index)
{
    uint64_t entry = q->l1[l1_index];
    uint64_t old = entry & Q2_OFFSET_MASK, new;
    int result;

    if (old && (entry & Q2_COPIED)) {
        return 0; /* somebody else's chore has made it */
    }
    if (q2_in_cluster(q, old)) {
        return q2_corrupt(q, true, old, -1, "L2 table offset %#" PRIx64
                          " unaligned (L1 index: %#" PRIx32 ")", old,
                          l1_index);
    }
    result = q2_alloc_wait(q, q->cluster_size, &new);
    if (result < 0) {
        return result;
    }
    pthread_mutex_lock(&q->lock);
    q2_cache_forget(&q->l2, new, q->cluster_size);
    pthread_mutex_unlock(&q->lock);
    /* Lazily or not, a table is counted before anything leads to it. */
    result = q->set.lazy_refcounts ? q2_sync_refcounts(q) : 0;
    if (result == 0) {
        result = fill(q, old, new);
    }
    q2_event(q, BY_DEBUG_L2_ALLOC_WRITE);
    pthread_mutex_lock(&q->lock);
    if (result == 0) {
        result = q2_map_add(q, new, q->cluster_size, BY_QCOW2_OL_ACTIVE_L2);
    }
    if (result < 0) {
        q2_cache_forget(&q->l2, new, q->cluster_size);
        q2_alloc_undo(q, new, 1);
    } else if (old) {
        q2_map_remove(q, old, q->cluster_size, BY_QCOW2_OL_ACTIVE_L2);
        q2_free(q, old, q->cluster_size, BY_QCOW2_DISCARD_OTHER);
    }
    pthread_mutex_unlock(&q->lock);
    if (result == 0) {
        q2_l1_set(q, l1_index, new | Q2_COPIED);
    }
    return result;
}

int q2_l2_make_chore(struct by_qcow2 *q, struct q2_chore *chore)
{
    return q2_is_corrupt(q) ? -EIO : q2_l2_make(q, chore->arg);
}

int q2_mark_dirty_chore(struct by_qcow2 *q, struct q2_chore *chore)
{
    int result = q2_incompatible(q, Q2_INCOMPAT_DIRTY, 0);

    (void)chore;
    if (result == 0) {
        pthread_mutex_lock(&q->lock);
        q->dirty_bit = true;
        pthread_mutex_unlock(&q->lock);
    }
    return result;
}
