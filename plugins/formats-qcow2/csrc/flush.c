/* SPDX-License-Identifier: Apache-2.0 */
/*
 * flush.c - bring the tables to the disk, so that a power cut at any moment
 * leaves an image in which whatever is referred to is counted.
 *
 * A power cut keeps any subset of what was written since the last barrier (a
 * sector whole or not at all).  What must hold for every such subset:
 *
 *  (1) A cluster that any table on the disk refers to has a refcount on the
 *      disk that is not lower than the number of references.
 *  (2) An L2 entry's data, and an L1 entry's L2 table, are on the disk when
 *      the entry is.
 *
 * In memory, refcounts go up before a reference is made and down only when its
 * end is on the disk (free.c).  So refcounts in memory are never too low for
 * what is in memory or on the disk, and may be written at any time.  A data
 * write has ended before its L2 entry changes in memory.  Hence q2_sync:
 *
 *   copy L1's dirty entries
 *   copy dirty L2 slices          refers to what was made before
 *   write dirty refcounts         as they are after that copy: (1) for it
 *   barrier                       data and refcounts are stable: (2)
 *   write the copied L2           every order and subset is good
 *   barrier                       L2 is stable
 *   write the copied L1           what it refers to was in L2 or on the disk
 *   barrier                       what was freed before the first copy is
 *                                 referred to by nothing on the disk
 *   give back what was freed      refcounts go down, in memory
 *
 * Copies are made under the lock in small steps.  Requests change tables in
 * between; what they change is newer than the copy of L1 and maybe in that of
 * L2, and always counted by the refcounts that are written afterwards.  L2 is
 * done in batches, each with the refcounts before it; the barrier of one batch
 * serves the one before.
 *
 * A slice is clean when it was written and has not changed since it was
 * copied.  After an error everything is dirty as before, and written again by
 * the next one.  New refcount blocks and tables do not wait for this: grow.c.
 *
 * With lazy refcounts (1) need not hold while the header's dirty bit is set:
 * whoever opens the image then counts anew.  A guest's flush leaves refcounts
 * out in that case.
 */
#include <errno.h>
#include <stdlib.h>

#include "image.h"

enum {
    BYTES_AT_ONCE = 65536,      /* copied under one hold of the lock */
    LINKS_AT_ONCE = 256,        /* slices looked at under one */
    ENTRIES_AT_ONCE = 4096,     /* of L1 */
};
#define BATCH_BYTES (4u << 20)

/* ------------------------------------------------- dirty slices of a cache */

struct item {
    struct q2_slice *slice;     /* pinned */
    uint64_t offset;
    uint32_t changes;           /* when it was copied */
    bool written;
};

struct dirty {
    struct q2_cache *cache;
    struct item *items;
    uint32_t count;
    uint32_t type;              /* of metadata */
    unsigned char *buffer;
    uint32_t batch;             /* slices that it holds */
};

static int by_offset(const void *one, const void *other)
{
    const struct item *a = one, *b = other;

    return a->offset < b->offset ? -1 : a->offset > b->offset;
}

/* All slices that are dirty now, pinned, in the file's order. */
static int collect(struct by_qcow2 *q, struct q2_cache *cache, uint32_t type,
                   struct dirty *dirty)
{
    struct q2_slice *slice;
    uint32_t max;

    *dirty = (struct dirty) { .cache = cache, .type = type };
    pthread_mutex_lock(&q->lock);
    max = cache->ndirty;
    pthread_mutex_unlock(&q->lock);
    if (!max) {
        return 0;
    }
    dirty->batch = BATCH_BYTES / cache->slice_bytes;
    dirty->batch = dirty->batch < max ? dirty->batch : max;
    dirty->batch = dirty->batch ? dirty->batch : 1;
    dirty->items = malloc(max * sizeof(*dirty->items));
    if (!dirty->items
        || posix_memalign((void **)&dirty->buffer, 4096,
                          (size_t)dirty->batch * cache->slice_bytes)) {
        free(dirty->items);
        return -ENOMEM;
    }
    pthread_mutex_lock(&q->lock);
    slice = cache->dirty.newer; /* the oldest; new ones come behind */
    while (slice != &cache->dirty && dirty->count < max) {
        q2_cache_pin(slice);
        dirty->items[dirty->count++] = (struct item) {
            .slice = slice, .offset = slice->offset,
        };
        if (dirty->count % LINKS_AT_ONCE == 0) {
            pthread_mutex_unlock(&q->lock); /* it stays: it is pinned */
            pthread_mutex_lock(&q->lock);
        }
        slice = slice->newer;
    }
    pthread_mutex_unlock(&q->lock);
    qsort(dirty->items, dirty->count, sizeof(*dirty->items), by_offset);
    return 0;
}

static void copy(struct by_qcow2 *q, struct dirty *dirty, uint32_t first,
                 uint32_t count)
{
    uint32_t bytes = dirty->cache->slice_bytes;

    for (uint32_t i = 0; i < count;) {
        uint32_t end = i + (bytes < BYTES_AT_ONCE ? BYTES_AT_ONCE / bytes : 1);

        pthread_mutex_lock(&q->lock);
        for (; i < end && i < count; i++) {
            struct item *item = &dirty->items[first + i];

            memcpy(dirty->buffer + (size_t)i * bytes, item->slice->table,
                   bytes);
            item->changes = item->slice->changes;
        }
        pthread_mutex_unlock(&q->lock);
    }
}

static int write_at(struct by_qcow2 *q, uint32_t type, uint64_t offset,
                    const void *bytes, uint64_t count)
{
    int result;

    pthread_mutex_lock(&q->lock);
    result = q2_overlap_check(q, type, offset, count);
    pthread_mutex_unlock(&q->lock);
    return result < 0 ? result : q2_pwrite(q, offset, bytes, count);
}

/* Neighbours in one write. */
static int write_copies(struct by_qcow2 *q, struct dirty *dirty,
                        uint32_t first, uint32_t count)
{
    uint32_t bytes = dirty->cache->slice_bytes, n;
    int result = 0;

    for (uint32_t i = 0; result == 0 && i < count; i += n) {
        struct item *item = &dirty->items[first + i];

        n = 1;
        while (i + n < count
               && item[n].offset == item->offset + (uint64_t)n * bytes) {
            n++;
        }
        q2_event(q, dirty->cache == &q->l2 ? BY_DEBUG_L2_UPDATE
                                           : BY_DEBUG_REFBLOCK_UPDATE_PART);
        result = write_at(q, dirty->type, item->offset,
                          dirty->buffer + (size_t)i * bytes,
                          (uint64_t)n * bytes);
        for (uint32_t k = 0; result == 0 && k < n; k++) {
            item[k].written = true;
        }
    }
    return result;
}

/* What was written is clean if `stable`, and all are let go. */
static void let_go(struct by_qcow2 *q, struct dirty *dirty, bool stable)
{
    for (uint32_t i = 0; i < dirty->count;) {
        uint32_t end = i + LINKS_AT_ONCE;

        pthread_mutex_lock(&q->lock);
        for (; i < end && i < dirty->count; i++) {
            struct item *item = &dirty->items[i];

            if (stable && item->written
                && item->slice->changes == item->changes) {
                q2_cache_cleaned(dirty->cache, item->slice);
            }
            q2_cache_unpin(dirty->cache, item->slice);
        }
        pthread_mutex_unlock(&q->lock);
    }
    free(dirty->items);
    free(dirty->buffer);
}

int q2_sync_refcounts(struct by_qcow2 *q)
{
    struct dirty dirty;
    int result = collect(q, &q->rb, BY_QCOW2_OL_REFCOUNT_BLOCK, &dirty);
    uint32_t n;

    if (result < 0) {
        return result;
    }
    for (uint32_t i = 0; result == 0 && i < dirty.count; i += n) {
        n = dirty.count - i;
        n = n < dirty.batch ? n : dirty.batch;
        copy(q, &dirty, i, n);
        result = write_copies(q, &dirty, i, n);
    }
    let_go(q, &dirty, true);
    return result;
}

/* --------------------------------------------------------------------- L1 */

struct l1_copy {
    uint64_t from, to;          /* entries */
    unsigned char *bytes;
};

static int l1_copy(struct by_qcow2 *q, struct l1_copy *l1)
{
    l1->bytes = NULL;
    pthread_mutex_lock(&q->lock);
    l1->from = q->l1_dirty_from;
    l1->to = q->l1_dirty_to < q->l1_size ? q->l1_dirty_to : q->l1_size;
    pthread_mutex_unlock(&q->lock);
    if (l1->from >= l1->to) {
        return 0;
    }
    l1->bytes = malloc((l1->to - l1->from) * 8);
    if (!l1->bytes) {
        return -ENOMEM;
    }
    pthread_mutex_lock(&q->lock);
    q->l1_dirty_from = UINT64_MAX;
    q->l1_dirty_to = 0;
    for (uint64_t i = l1->from; i < l1->to; i++) {
        q2_put64(l1->bytes + (i - l1->from) * 8, q->l1[i]);
        if (i % ENTRIES_AT_ONCE == 0) {
            pthread_mutex_unlock(&q->lock);
            pthread_mutex_lock(&q->lock);
        }
    }
    pthread_mutex_unlock(&q->lock);
    return 0;
}

static int l1_write(struct by_qcow2 *q, const struct l1_copy *l1)
{
    q2_event(q, BY_DEBUG_L1_UPDATE);
    return write_at(q, BY_QCOW2_OL_ACTIVE_L1, q->l1_offset + l1->from * 8,
                    l1->bytes, (l1->to - l1->from) * 8);
}

/* Dirty again, unless it is on the disk. */
static void l1_end(struct by_qcow2 *q, struct l1_copy *l1, bool stable)
{
    if (!stable && l1->bytes) {
        pthread_mutex_lock(&q->lock);
        if (q->l1_dirty_from > l1->from) {
            q->l1_dirty_from = l1->from;
        }
        if (q->l1_dirty_to < l1->to) {
            q->l1_dirty_to = l1->to;
        }
        pthread_mutex_unlock(&q->lock);
    }
    free(l1->bytes);
}

/* ----------------------------------------------------------------- q2_sync */

/* L2, with the refcounts and the barrier before each batch; without L2 the
 * refcounts only. */
static int write_l2(struct by_qcow2 *q, struct dirty *l2, bool refcounts)
{
    uint32_t i = 0, n = 0;
    int result = 0;

    do {
        n = l2->count - i;
        n = n < l2->batch ? n : l2->batch;
        copy(q, l2, i, n);
        if (refcounts) {
            result = q2_sync_refcounts(q);
        }
        if (result == 0 && n) {
            result = q2_barrier(q);
        }
        if (result == 0 && n) {
            result = write_copies(q, l2, i, n);
        }
        i += n;
    } while (result == 0 && i < l2->count);
    return result;
}

/* All but giving back; *freed: how many entries of the list may be. */
static int write_tables(struct by_qcow2 *q, bool lazily, uint32_t *freed)
{
    struct dirty l2;
    struct l1_copy l1;
    bool refcounts;
    int result;

    pthread_mutex_lock(&q->lock);
    *freed = q->freed_sealed = q->nfreed;
    q2_epoch_advance(q);
    refcounts = !(lazily && q->set.lazy_refcounts && q->dirty_bit);
    pthread_mutex_unlock(&q->lock);
    result = l1_copy(q, &l1);
    if (result < 0) {
        return result;
    }
    result = collect(q, &q->l2, BY_QCOW2_OL_ACTIVE_L2, &l2);
    if (result < 0) {
        l1_end(q, &l1, false);
        return result;
    }
    result = write_l2(q, &l2, refcounts);
    if (result == 0 && l1.bytes) {
        result = q2_barrier(q);
        if (result == 0) {
            result = l1_write(q, &l1);
        }
    }
    if (result == 0) {
        result = q2_barrier(q);
    }
    l1_end(q, &l1, result == 0);
    let_go(q, &l2, result == 0);
    return result;
}

static void syncing(struct by_qcow2 *q, bool on)
{
    pthread_mutex_lock(&q->lock);
    q->syncing = on;
    pthread_mutex_unlock(&q->lock);
}

int q2_sync(struct by_qcow2 *q)
{
    uint32_t freed;
    int result;

    if (q2_is_corrupt(q)) {
        return -EIO;
    }
    if (q->set.read_only) {
        return 0;
    }
    syncing(q, true);
    result = write_tables(q, false, &freed);
    if (result == 0) {
        result = q2_free_apply(q, freed);
    }
    syncing(q, false);
    return result;
}

int q2_flush_chore(struct by_qcow2 *q, struct q2_chore *chore)
{
    uint32_t freed;
    int result;

    (void)chore;
    if (q2_is_corrupt(q)) {
        return -EIO;
    }
    syncing(q, true);
    result = write_tables(q, true, &freed);
    pthread_mutex_lock(&q->lock);
    q->syncing = false;
    if (result == 0) {
        q2_free_later(q, freed); /* the guest need not wait for that */
    }
    pthread_mutex_unlock(&q->lock);
    q2_event(q, BY_DEBUG_FLUSH_TO_DISK);
    return result;
}

static bool has_dirty(const struct by_qcow2 *q)
{
    return q->l2.ndirty || q->rb.ndirty || q->l1_dirty_from < q->l1_dirty_to;
}

bool q2_flush_needed(const struct by_qcow2 *q)
{
    bool lazy = q->set.lazy_refcounts && q->dirty_bit;

    return q->syncing || q->l2.ndirty || q->l1_dirty_from < q->l1_dirty_to
        || (q->rb.ndirty && !lazy);
}

int q2_settle(struct by_qcow2 *q)
{
    int result;
    bool more;

    if (q->set.read_only) {
        return 0;
    }
    /* What is given back makes refcounts dirty: twice is the rule. */
    for (int i = 0; i < 8; i++) {
        result = q2_sync(q);
        if (result < 0) {
            return result;
        }
        pthread_mutex_lock(&q->lock);
        more = q->nfreed || has_dirty(q);
        pthread_mutex_unlock(&q->lock);
        if (!more) {
            break;
        }
    }
    result = q2_file_trim(q);
    if (result == 0) {
        result = q2_barrier(q); /* for refcounts that were written early */
    }
    if (result == 0 && q->dirty_bit) {
        result = q2_incompatible(q, 0, Q2_INCOMPAT_DIRTY);
        if (result == 0) {
            pthread_mutex_lock(&q->lock);
            q->dirty_bit = false;
            pthread_mutex_unlock(&q->lock);
        }
    }
    return result;
}
