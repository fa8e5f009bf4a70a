/* SPDX-License-Identifier: Apache-2.0 */
/*
 * amend_refcounts.c - another width of refcounts.
 *
 * All refcounts are written anew beside the old ones, in clusters that the
 * old ones count, and one write of the header, within a sector, changes over.
 * A power cut before or behind that leaves a whole set of refcounts, in which
 * the other one's clusters are in use by nobody.
 *
 * The clusters for the new blocks need refcounts themselves, and may need
 * further blocks: so all refcounts are looked through until nothing lacks.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "tables.h"

#define WANTED 1ull             /* an entry that is to get its block */

struct widen {
    struct by_qcow2_progress *progress;
    uint32_t order;
    uint32_t block_bits;        /* entries of a new block, log2 */
    uint64_t max;
    uint64_t *table;            /* the new refcount table */
    uint64_t room, used;        /* entries */
    uint64_t offset, clusters;  /* where it will be; 0: nowhere yet */
    char *why;
};

static int step(struct widen *w, uint64_t total)
{
    struct by_qcow2_progress *p = w->progress;

    if (!p) {
        return 0;
    }
    if (total) {
        __atomic_add_fetch(&p->total, total, __ATOMIC_RELAXED);
        return 0;
    }
    __atomic_add_fetch(&p->done, 1, __ATOMIC_RELAXED);
    return __atomic_load_n(&p->cancel, __ATOMIC_RELAXED) ? -ECANCELED : 0;
}

/* ------------------------------------------------------------ what lacks */

static int want(struct by_qcow2 *q, struct widen *w, uint64_t cluster,
                uint64_t value)
{
    uint64_t index = cluster >> w->block_bits;

    if (value > w->max) {
        q2_say(w->why, 0, "Cannot decrease refcount entry width to %u bits: "
               "Cluster at offset %#" PRIx64 " has a refcount of %" PRIu64,
               1u << w->order, cluster << q->cluster_bits, value);
        return -EINVAL;
    }
    if (index >= Q2_MAX_REFTABLE_BYTES / 8) {
        return -EFBIG;
    }
    if (index >= w->room) {
        uint64_t room = (index + 1) * 2;
        uint64_t *table = realloc(w->table, room * 8);

        if (!table) {
            return -ENOMEM;
        }
        memset(table + w->room, 0, (room - w->room) * 8);
        w->table = table;
        w->room = room;
    }
    if (!w->table[index]) {
        w->table[index] = WANTED;
        w->used = w->used > index ? w->used : index + 1;
        return 1;
    }
    return 0;
}

/* One slice of refcounts; 1: new blocks are wanted. */
static int look_at_slice(struct by_qcow2 *q, struct widen *w, uint64_t first)
{
    struct q2_slice *slice;
    int result = q2_cache_get(q, &q->rb, q2_refcount_slice(q, first), &slice);
    int any = 0;

    if (result < 0) {
        return result;
    }
    for (uint64_t i = 0; result >= 0 && i < 1ull << q->rb_slice_bits; i++) {
        uint64_t value = q2_refcount_read(q, slice->table, i);

        if (value) {
            result = want(q, w, first + i, value);
            any |= result;
        }
    }
    pthread_mutex_lock(&q->lock);
    q2_cache_unpin(&q->rb, slice);
    pthread_mutex_unlock(&q->lock);
    return result < 0 ? result : any;
}

/* All refcounts.  1: new blocks are wanted. */
static int look(struct by_qcow2 *q, struct widen *w)
{
    uint64_t per_block = 1ull << q->refblock_bits;
    int any = 0;

    step(w, q->reftable_size);
    for (uint32_t i = 0; i < q->reftable_size; i++) {
        int result = step(w, 0);

        if (result == 0 && q->reftable[i] & Q2_REFT_OFFSET_MASK) {
            result = q2_block_check(q, i);
            for (uint64_t c = 0; result >= 0 && c < per_block;
                 c += 1ull << q->rb_slice_bits) {
                result = look_at_slice(q, w, i * per_block + c);
                any |= result > 0;
            }
        }
        if (result < 0) {
            return result;
        }
    }
    return any;
}

static int make_blocks(struct by_qcow2 *q, struct widen *w)
{
    for (uint64_t i = 0; i < w->used; i++) {
        int result;

        if (w->table[i] != WANTED) {
            continue;
        }
        result = q2_alloc_wait(q, q->cluster_size, &w->table[i]);
        if (result < 0) {
            w->table[i] = 0;
            return q2_say(w->why, result, "Failed to allocate refblock");
        }
    }
    return 0;
}

/* Room for the table; 1: it has moved. */
static int make_table(struct by_qcow2 *q, struct widen *w)
{
    uint64_t bytes = q2_table_bytes(q, w->used);
    uint64_t clusters = q2_cluster(q, bytes);
    int result;

    if (clusters <= w->clusters) {
        return 0;
    }
    if (w->clusters) {
        (void)q2_refcount_add(q, q2_cluster(q, w->offset), w->clusters, -1);
        w->clusters = 0;
    }
    result = q2_alloc_wait(q, bytes, &w->offset);
    if (result < 0) {
        return q2_say(w->why, result, "Failed to allocate the new reftable");
    }
    w->clusters = clusters;
    return 1;
}

static int provide(struct by_qcow2 *q, struct widen *w)
{
    int result;

    do {
        result = look(q, w);
        if (result > 0) {
            int made = make_blocks(q, w);

            result = made < 0 ? made : result;
        }
        if (result >= 0) {
            int made = make_table(q, w);

            result = made ? made : result;
        }
    } while (result > 0);
    return result;
}

/* ----------------------------------------------------------------- write */

static int write_block(struct by_qcow2 *q, struct widen *w, uint64_t index,
                       unsigned char *block)
{
    const struct by_qcow2 shape = { .refcount_order = w->order };
    uint64_t first = index << w->block_bits, offset = w->table[index];
    int result = step(w, 0);

    memset(block, 0, q->cluster_size);
    for (uint64_t i = 0; result == 0 && i < 1ull << w->block_bits; i++) {
        uint64_t value;

        if (!q2_refcount_slice(q, first + i)) {
            continue;
        }
        result = q2_refcount_get(q, first + i, &value);
        if (result == 0 && value) {
            q2_refcount_write(&shape, block, i, value);
        }
    }
    if (result < 0) {
        return result;
    }
    pthread_mutex_lock(&q->lock);
    result = q2_overlap_check(q, 0, offset, q->cluster_size);
    pthread_mutex_unlock(&q->lock);
    if (result < 0) {
        return q2_say(w->why, result, "Overlap check failed");
    }
    result = q2_pwrite(q, offset, block, q->cluster_size);
    return result < 0 ? q2_say(w->why, result, "Failed to write refblock") : 0;
}

static int write_all(struct by_qcow2 *q, struct widen *w)
{
    unsigned char *block = malloc(q->cluster_size);
    int result = block ? 0 : -ENOMEM;

    step(w, w->used);
    for (uint64_t i = 0; i < w->used && result == 0; i++) {
        result = w->table[i] ? write_block(q, w, i, block) : step(w, 0);
    }
    free(block);
    if (result < 0) {
        return result;
    }
    result = q2_table_write(q, 0, w->offset, w->table, w->used);
    if (result < 0) {
        return q2_say(w->why, result, "Failed to write the new reftable");
    }
    result = q2_sync(q);
    return result < 0
        ? q2_say(w->why, result, "Failed to flush the refblock cache") : 0;
}

static int change_header(struct by_qcow2 *q, const struct widen *w)
{
    unsigned char header[Q2_HEADER_V3];
    uint32_t from = Q2_AT_REFTABLE_OFFSET, to = Q2_AT_REFCOUNT_ORDER + 4;
    int result = q2_pread(q, 0, header, sizeof(header));

    if (result < 0) {
        return result;
    }
    q2_put64(header + Q2_AT_REFTABLE_OFFSET, w->offset);
    q2_put32(header + Q2_AT_REFTABLE_CLUSTERS, w->clusters);
    q2_put32(header + Q2_AT_REFCOUNT_ORDER, w->order);
    result = q2_header_put(q, from, header + from, to - from);
    return result < 0 ? result : q2_barrier(q);
}

/* ---------------------------------------------------------------- switch */

static int map_all(struct by_qcow2 *q, const uint64_t *table, uint64_t entries,
                   uint64_t offset, uint64_t bytes, bool add)
{
    int result = 0;

    pthread_mutex_lock(&q->lock);
    if (add) {
        result = q2_map_add(q, offset, bytes, BY_QCOW2_OL_REFCOUNT_TABLE);
    } else {
        q2_map_remove(q, offset, bytes, BY_QCOW2_OL_REFCOUNT_TABLE);
    }
    for (uint64_t i = 0; i < entries && result == 0; i++) {
        uint64_t block = table[i] & Q2_REFT_OFFSET_MASK;

        if (block && add) {
            result = q2_map_add(q, block, q->cluster_size,
                                BY_QCOW2_OL_REFCOUNT_BLOCK);
        } else if (block) {
            q2_map_remove(q, block, q->cluster_size,
                          BY_QCOW2_OL_REFCOUNT_BLOCK);
        }
    }
    pthread_mutex_unlock(&q->lock);
    return result;
}

/* The tables in memory are the new ones; w has the old ones afterwards. */
static int change_memory(struct by_qcow2 *q, struct widen *w)
{
    uint64_t entries = (w->clusters << q->cluster_bits) / 8;
    uint64_t *table = realloc(w->table, entries * 8), *old = q->reftable;
    uint64_t old_size = q->reftable_size, old_offset = q->reftable_offset;
    uint64_t floor = q->file_floor;
    int result;

    if (!table) {
        return -ENOMEM;
    }
    if (entries > w->used) {
        memset(table + w->used, 0, (entries - w->used) * 8);
    }
    q2_cache_drop_all(q, &q->rb);
    map_all(q, old, old_size, old_offset, old_size * 8, false);
    result = map_all(q, table, w->used, w->offset, entries * 8, true);
    pthread_mutex_lock(&q->lock);
    q->reftable = table;
    q->reftable_size = entries;
    q->reftable_offset = w->offset;
    q->refcount_order = q->set.refcount_order = w->order;
    q->refcount_max = w->max;
    q->refblock_bits = w->block_bits;
    pthread_mutex_unlock(&q->lock);
    w->table = old;
    w->used = old_size;
    w->offset = old_offset;
    w->clusters = q2_cluster(q, old_size * 8);
    if (result == 0) {
        result = q2_space_init(q);
    }
    q->file_floor = floor;
    return result;
}

/* The clusters of the set of refcounts that is not in use. */
static int drop_all(struct by_qcow2 *q, const struct widen *w)
{
    int result = 0;

    for (uint64_t i = 0; i < w->used; i++) {
        uint64_t block = w->table[i] & Q2_REFT_OFFSET_MASK;
        int one = block ? q2_drop(q, block, q->cluster_size,
                                  BY_QCOW2_DISCARD_OTHER) : 0;

        result = result < 0 ? result : one;
    }
    if (w->clusters) {
        int one = q2_drop(q, w->offset, w->clusters << q->cluster_bits,
                          BY_QCOW2_DISCARD_OTHER);

        result = result < 0 ? result : one;
    }
    return result;
}

static int change(struct by_qcow2 *q, struct widen *w)
{
    int result = q2_sync(q), end;

    if (result == 0) {
        result = provide(q, w);
    }
    if (result == 0) {
        result = write_all(q, w);
    }
    if (result < 0) {
        (void)drop_all(q, w);
        (void)q2_sync(q);
        return result;
    }
    result = change_header(q, w);
    if (result < 0) { /* it may be there: nothing is given back */
        return q2_say(w->why, result, "Failed to update the qcow2 header");
    }
    result = change_memory(q, w);
    end = result < 0 ? result : drop_all(q, w);
    result = end < 0 ? end : q2_sync(q);
    return result;
}

int by_qcow2_change_refcounts(struct by_qcow2 *q, uint32_t order,
                              struct by_qcow2_progress *progress, char *why)
{
    struct widen w = { .progress = progress, .order = order, .why = why };
    int result = -EINVAL;

    *why = 0;
    pthread_mutex_lock(&q->meta);
    if (order <= 6 && q->set.version >= 3) {
        w.block_bits = q->cluster_bits + 3 - order;
        w.max = order == 6 ? INT64_MAX : (1ull << (1u << order)) - 1;
        result = q2_is_corrupt(q) ? -EIO
            : order == q->refcount_order ? 0 : change(q, &w);
    }
    pthread_mutex_unlock(&q->meta);
    free(w.table);
    return result;
}
