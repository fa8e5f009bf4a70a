/* SPDX-License-Identifier: Apache-2.0 */
/*
 * grow.c - new refcount blocks, and a larger refcount table.
 *
 * A new block lies in the range that it counts, and counts itself: nobody
 * uses that range yet, as without a block all its refcounts are 0.  So a block
 * is whole the moment the table refers to it, and nothing else has to be on
 * the disk for that.  A new table comes with the blocks that count the
 * clusters of both.
 *
 * Order on disk: block, barrier, the table's entry; or blocks and table,
 * barrier, the header's fields (one write of 12 bytes in one sector), barrier,
 * and only then is the old table free.  What is counted by a new block is
 * referred to only by tables that q2_sync writes behind a barrier, which makes
 * the entry stable as well.
 */
#include <errno.h>
#include <stdlib.h>

#include "image.h"

/* Does [first, first + count) meet metadata?  Then it is not to be had. */
static int check_free(struct by_qcow2 *q, uint64_t first, uint64_t count)
{
    uint64_t at;
    uint32_t types;
    int result = 0;

    pthread_mutex_lock(&q->lock);
    types = q2_map_types(q, first, count, &at);
    if (types && at == 0) {
        result = q2_corrupt(q, true, -1, -1, "Preventing invalid allocation "
                            "of refcount block at offset 0");
    } else if (types) {
        result = q2_overlap_report(q, q2_map_types(q, at, 1, NULL),
                                   at << q->cluster_bits, q->cluster_size);
    }
    pthread_mutex_unlock(&q->lock);
    return result;
}

/* A block's content at `at`, which counts those of [first, first + count) that
 * are in its range. */
static int write_block(struct by_qcow2 *q, uint64_t at, uint64_t index,
                       uint64_t first, uint64_t count, uint32_t event)
{
    uint64_t from = index << q->refblock_bits;
    uint64_t to = from + (1ull << q->refblock_bits);
    unsigned char *block = calloc(1, q->cluster_size);
    int result;

    if (!block) {
        return -ENOMEM;
    }
    for (uint64_t c = first; c < first + count; c++) {
        if (c >= from && c < to) {
            q2_refcount_write(q, block, c - from, 1);
        }
    }
    q2_event(q, event);
    result = q2_pwrite(q, at << q->cluster_bits, block, q->cluster_size);
    free(block);
    return result;
}

/* Under lock: what was a free range is metadata now. */
static int taken(struct by_qcow2 *q, uint64_t first, uint64_t count,
                 uint32_t type)
{
    uint64_t offset = first << q->cluster_bits;
    uint64_t bytes = count << q->cluster_bits;

    q2_cache_forget(&q->l2, offset, bytes);
    q2_cache_forget(&q->rb, offset, bytes);
    if (q->fresh < first + count) {
        q->fresh = first + count;
    }
    return q2_map_add(q, offset, bytes, type);
}

/* ----------------------------------------------------------------- blocks */

/* The table's entry, on disk and in memory. */
static int set_entry(struct by_qcow2 *q, uint64_t index, uint64_t block)
{
    uint64_t at = q->reftable_offset + index * 8;
    unsigned char entry[8];
    int result;

    pthread_mutex_lock(&q->lock);
    result = q2_overlap_check(q, BY_QCOW2_OL_REFCOUNT_TABLE, at,
                              sizeof(entry));
    if (result == 0) {
        result = taken(q, block, 1, BY_QCOW2_OL_REFCOUNT_BLOCK);
    }
    pthread_mutex_unlock(&q->lock);
    if (result < 0) {
        return result;
    }
    q2_put64(entry, block << q->cluster_bits);
    q2_event(q, BY_DEBUG_REFBLOCK_ALLOC_HOOKUP);
    result = q2_pwrite(q, at, entry, sizeof(entry));
    pthread_mutex_lock(&q->lock);
    if (result < 0) {
        q2_map_remove(q, block << q->cluster_bits, q->cluster_size,
                      BY_QCOW2_OL_REFCOUNT_BLOCK);
    } else {
        q->reftable[index] = block << q->cluster_bits;
        for (uint64_t c = index << q->refblock_bits;
             c < (index + 1) << q->refblock_bits;
             c += 1ull << q->rb_slice_bits) {
            q2_space_freed(q, c);
        }
    }
    pthread_mutex_unlock(&q->lock);
    return result;
}

/* In the range that the block counts, at its first cluster that is not one of
 * [first, first + count). */
static int make_within(struct by_qcow2 *q, uint64_t index, uint64_t block)
{
    int result = check_free(q, block, 1);

    if (result == 0) {
        result = q2_file_reach(q, (block + 1) << q->cluster_bits);
    }
    if (result == 0) {
        result = write_block(q, block, index, block, 1,
                             BY_DEBUG_REFBLOCK_ALLOC_WRITE);
    }
    if (result == 0) {
        result = q2_barrier(q);
    }
    return result < 0 ? result : set_entry(q, index, block);
}

/* The range is the caller's whole: behind that, counted by another block,
 * which must be on the disk as well. */
static int make_behind(struct by_qcow2 *q, uint64_t index, uint64_t first,
                       uint64_t count)
{
    uint64_t offset;
    int result = q2_alloc_for(q, first + count, 1, "refcount block", &offset);

    if (result < 0) {
        return result;
    }
    result = write_block(q, q2_cluster(q, offset), index, 0, 0,
                         BY_DEBUG_REFBLOCK_ALLOC_WRITE);
    if (result == 0) {
        result = q2_sync_refcounts(q);
    }
    if (result == 0) {
        result = q2_barrier(q);
    }
    if (result < 0) {
        (void)q2_refcount_add(q, q2_cluster(q, offset), 1, -1);
        return result;
    }
    return set_entry(q, index, q2_cluster(q, offset));
}

/* ------------------------------------------------------------------ table */

struct area {
    uint64_t first;             /* cluster: the blocks, behind them the table */
    uint64_t blocks, clusters;  /* of the table */
    uint64_t entries;           /* that it has then */
};

/* Where the new table goes: behind all that the old one counts, and behind
 * the caller's clusters. */
static int plan(const struct by_qcow2 *q, uint64_t entries, uint64_t behind,
                struct area *area)
{
    uint64_t per_cluster = q->cluster_size / 8, index, last;
    uint64_t most = Q2_MAX_REFTABLE_BYTES / 8;

    area->first = (uint64_t)q->reftable_size << q->refblock_bits;
    area->first = area->first < behind ? behind : area->first;
    index = area->first >> q->refblock_bits;
    if (entries < q->reftable_size + (uint64_t)q->reftable_size / 2) {
        entries = q->reftable_size + (uint64_t)q->reftable_size / 2;
        entries = entries > most ? most : entries;
    }
    area->blocks = 1;
    for (;;) {
        area->clusters = (entries + per_cluster - 1) / per_cluster;
        last = (area->first + area->blocks + area->clusters - 1)
            >> q->refblock_bits;
        if (last < entries && last - index < area->blocks) {
            break;
        }
        entries = last < entries ? entries : last + 1;
        area->blocks = last - index + 1;
        if (entries > most) {
            return -EFBIG;
        }
    }
    area->entries = area->clusters * per_cluster;
    return area->entries > most
        || (area->first + area->blocks + area->clusters)
           > 1ull << (56 - q->cluster_bits) ? -EFBIG : 0;
}

/* Blocks and table to the disk, and where the header says they are. */
static int write_area(struct by_qcow2 *q, const struct area *area,
                      const uint64_t *table)
{
    uint64_t count = area->blocks + area->clusters, bytes = area->entries * 8;
    uint64_t index = area->first >> q->refblock_bits;
    uint64_t offset = (area->first + area->blocks) << q->cluster_bits;
    unsigned char *out = malloc(bytes), fields[12];
    int result = out ? 0 : -ENOMEM;

    for (uint64_t i = 0; result == 0 && i < area->blocks; i++) {
        result = write_block(q, area->first + i, index + i, area->first,
                             count, BY_DEBUG_REFBLOCK_ALLOC_WRITE_BLOCKS);
    }
    if (result == 0) {
        for (uint64_t i = 0; i < area->entries; i++) {
            q2_put64(out + i * 8, table[i]);
        }
        q2_event(q, BY_DEBUG_REFBLOCK_ALLOC_WRITE_TABLE);
        result = q2_pwrite(q, offset, out, bytes);
    }
    free(out);
    if (result == 0) {
        result = q2_barrier(q);
    }
    if (result < 0) {
        return result;
    }
    q2_put64(fields, offset);
    q2_put32(fields + 8, area->clusters);
    q2_event(q, BY_DEBUG_REFBLOCK_ALLOC_SWITCH_TABLE);
    result = q2_header_put(q, Q2_AT_REFTABLE_OFFSET, fields, sizeof(fields));
    if (result == 0) {
        result = q2_barrier(q);
    }
    if (result < 0) { /* whether it is there is unknown: the old one, please */
        q2_put64(fields, q->reftable_offset);
        q2_put32(fields + 8, (uint64_t)q->reftable_size * 8
                             >> q->cluster_bits);
        (void)q2_header_put(q, Q2_AT_REFTABLE_OFFSET, fields, sizeof(fields));
    }
    return result;
}

/* In memory; `table` becomes the image's. */
static int switch_to(struct by_qcow2 *q, const struct area *area,
                     uint64_t *table)
{
    uint64_t *before = q->reftable, old = q->reftable_offset;
    uint64_t old_bytes = (uint64_t)q->reftable_size * 8;
    int result;

    pthread_mutex_lock(&q->lock);
    result = taken(q, area->first, area->blocks, BY_QCOW2_OL_REFCOUNT_BLOCK);
    if (result == 0) {
        result = taken(q, area->first + area->blocks, area->clusters,
                       BY_QCOW2_OL_REFCOUNT_TABLE);
    }
    q2_map_remove(q, old, old_bytes, BY_QCOW2_OL_REFCOUNT_TABLE);
    q->reftable = table;
    q->reftable_size = area->entries;
    q->reftable_offset = (area->first + area->blocks) << q->cluster_bits;
    pthread_mutex_unlock(&q->lock);
    free(before);
    if (old_bytes) {
        /* That it fails costs space only. */
        (void)q2_refcount_add(q, q2_cluster(q, old),
                              old_bytes >> q->cluster_bits, -1);
    }
    return result;
}

static int grow(struct by_qcow2 *q, uint64_t entries, uint64_t behind)
{
    struct area area = { 0 };
    uint64_t *table;
    int result = plan(q, entries, behind, &area);

    q2_event(q, BY_DEBUG_REFTABLE_GROW);
    if (result == 0) {
        result = check_free(q, area.first, area.blocks + area.clusters);
    }
    if (result == 0) {
        result = q2_file_reach(q, (area.first + area.blocks + area.clusters)
                                  << q->cluster_bits);
    }
    table = result == 0 ? calloc(area.entries, sizeof(*table)) : NULL;
    if (!table) {
        return result < 0 ? result : -ENOMEM;
    }
    memcpy(table, q->reftable, q->reftable_size * sizeof(*table));
    for (uint64_t i = 0; i < area.blocks; i++) {
        table[(area.first >> q->refblock_bits) + i] =
            (area.first + i) << q->cluster_bits;
    }
    result = q2_space_resize(q, area.entries);
    if (result == 0) {
        result = write_area(q, &area, table);
    }
    if (result < 0) {
        free(table);
        (void)q2_space_resize(q, q->reftable_size);
        return result;
    }
    return switch_to(q, &area, table);
}

int q2_block_make(struct by_qcow2 *q, uint64_t index, uint64_t first,
                  uint64_t count)
{
    uint64_t from = index << q->refblock_bits;
    uint64_t to = from + (1ull << q->refblock_bits);

    if (q2_is_corrupt(q)) {
        return -EIO;
    }
    if (index >= q->reftable_size) {
        int result = grow(q, index + 1, first + count);

        if (result < 0 || q->reftable[index]) {
            return result;
        }
    }
    if (first <= from && first + count > from) {
        from = first + count;
    }
    return from < to ? make_within(q, index, from)
                     : make_behind(q, index, first, count);
}
