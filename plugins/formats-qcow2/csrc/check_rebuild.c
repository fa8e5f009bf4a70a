/* SPDX-License-Identifier: Apache-2.0 */
/*
 * check_rebuild.c - a new refcount table with new blocks, written where
 * nothing is.  The header is changed when all of it is on stable storage, so
 * an image is never without refcounts that were there before.
 */
#include <errno.h>
#include <stdlib.h>

#include "check.h"

struct block {
    uint64_t index;             /* of the refcount table */
    uint64_t cluster;           /* where the block will be; 0: nowhere yet */
};

struct build {
    struct q2_check *check;
    struct block *blocks;       /* sorted */
    uint64_t count, room;
    uint64_t cursor;            /* nothing is free below */
    uint64_t table, table_clusters;
};

uint64_t q2_check_find_free(struct q2_check *check, uint64_t from,
                            uint64_t count)
{
    uint64_t run = 0, cluster = from;

    for (; run < count; cluster++) {
        bool taken = q2_counts_get(&check->counts, cluster)
                  || (check->outside.hash
                      && q2_counts_get(&check->outside, cluster));

        run = taken ? 0 : run + 1;
    }
    return cluster - run;
}

int q2_check_extend(struct q2_check *check, uint64_t bytes)
{
    int result;

    if (bytes <= by_node_length(check->q->file)) {
        return 0;
    }
    result = q2_node_truncate(check->q->file, bytes, BY_PREALLOC_OFF);
    if (result == 0) {
        check->changed = true;
        q2_check_measure(check);
    }
    return result;
}

/* The table's entry `index` is needed. */
static int need(struct build *build, uint64_t index)
{
    uint64_t low = 0, high = build->count;

    while (low < high) {
        uint64_t middle = (low + high) / 2;

        if (build->blocks[middle].index < index) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    if (low < build->count && build->blocks[low].index == index) {
        return 0;
    }
    if (build->count == build->room) {
        uint64_t room = build->room ? build->room * 2 : 64;
        struct block *more = realloc(build->blocks, room * sizeof(*more));

        if (!more) {
            return -ENOMEM;
        }
        build->blocks = more;
        build->room = room;
    }
    memmove(build->blocks + low + 1, build->blocks + low,
            (build->count - low) * sizeof(*build->blocks));
    build->blocks[low] = (struct block){ .index = index };
    build->count++;
    return 0;
}

/* Clusters for something new; what they need is noted. */
static int take(struct build *build, uint64_t count, uint64_t *cluster)
{
    struct q2_check *check = build->check;
    uint64_t at = q2_check_find_free(check, build->cursor, count);
    int result = 0;

    if (at + count > (uint64_t)INT64_MAX >> check->q->cluster_bits) {
        return -EFBIG;
    }
    if (count == 1) {
        build->cursor = at + 1;
    }
    for (uint64_t i = at; i < at + count && result == 0; i++) {
        struct q2_granule *granule =
            q2_counts_make(&check->counts, i >> Q2_GRANULE_BITS);

        if (!granule) {
            return -ENOMEM;
        }
        q2_packed_put(granule->refs, check->counts.order, i % Q2_GRANULE, 1);
        result = need(build, i >> check->q->refblock_bits);
    }
    *cluster = at;
    return result;
}

static void give_back(struct build *build, uint64_t cluster, uint64_t count)
{
    for (uint64_t i = cluster; i < cluster + count; i++) {
        struct q2_granule *granule =
            q2_counts_find(&build->check->counts, i >> Q2_GRANULE_BITS);

        q2_packed_put(granule->refs, build->check->counts.order,
                      i % Q2_GRANULE, 0);
    }
}

/* Places for all blocks; those of new blocks can need blocks themselves. */
static int place_blocks(struct build *build)
{
    bool again = true;
    int result = 0;

    while (again && result == 0) {
        again = false;
        for (uint64_t i = 0; i < build->count && result == 0; i++) {
            uint64_t index = build->blocks[i].index, cluster;

            if (build->blocks[i].cluster) {
                continue;
            }
            again = true;
            result = take(build, 1, &cluster);
            while (build->blocks[i].index != index) {
                i++; /* it moved behind new ones */
            }
            build->blocks[i].cluster = cluster;
        }
    }
    return result;
}

static int place_table(struct build *build)
{
    uint32_t bits = build->check->q->cluster_bits;
    uint64_t bytes, clusters;
    int result = place_blocks(build);

    while (result == 0) {
        bytes = (build->blocks[build->count - 1].index + 1) * 8;
        clusters = (bytes + (1ull << bits) - 1) >> bits;
        if (clusters << bits > Q2_MAX_REFTABLE_BYTES) {
            return -EFBIG;
        }
        if (build->table_clusters >= clusters) {
            return 0;
        }
        if (build->table) {
            give_back(build, build->table, build->table_clusters);
        }
        build->table_clusters = clusters;
        result = take(build, clusters, &build->table);
        if (result == 0) {
            result = place_blocks(build);
        }
    }
    return result;
}

static int write_blocks(struct build *build)
{
    struct q2_check *check = build->check;
    uint64_t size = check->q->cluster_size;
    uint32_t granules = check->q->refblock_bits - Q2_GRANULE_BITS;
    uint64_t bytes = check->counts.granule_bytes;
    unsigned char *block = malloc(size);
    int result = block ? 0 : -ENOMEM;

    for (uint64_t i = 0; i < build->count && result == 0; i++) {
        uint64_t first = build->blocks[i].index << granules;

        memset(block, 0, size);
        for (uint64_t j = 0; j < 1ull << granules; j++) {
            struct q2_granule *granule = q2_counts_find(&check->counts,
                                                        first + j);

            if (granule) {
                memcpy(block + j * bytes, granule->refs, bytes);
            }
        }
        result = q2_check_cancelled(check)
               ? -ECANCELED
               : q2_check_put(check, build->blocks[i].cluster
                                     << check->q->cluster_bits, block, size);
    }
    free(block);
    return result;
}

static int write_table(struct build *build)
{
    struct q2_check *check = build->check;
    uint64_t bytes = build->table_clusters << check->q->cluster_bits;
    unsigned char *table = calloc(1, bytes);
    int result;

    if (!table) {
        return -ENOMEM;
    }
    for (uint64_t i = 0; i < build->count; i++) {
        q2_put64(table + build->blocks[i].index * 8,
                 build->blocks[i].cluster << check->q->cluster_bits);
    }
    result = q2_check_put(check, build->table << check->q->cluster_bits,
                          table, bytes);
    free(table);
    return result;
}

static int write_header(struct build *build)
{
    struct by_qcow2_settings *set = &build->check->q->set;
    uint64_t offset = build->table << build->check->q->cluster_bits;
    unsigned char fields[12];
    int result;

    q2_put64(fields, offset);
    q2_put32(fields + 8, build->table_clusters);
    result = q2_barrier(build->check->q);
    if (result == 0) {
        result = q2_check_put(build->check, Q2_AT_REFTABLE_OFFSET, fields,
                              sizeof(fields));
    }
    if (result == 0) {
        result = q2_barrier(build->check->q);
    }
    if (result == 0) {
        set->reftable_offset = offset;
        set->reftable_clusters = build->table_clusters;
    }
    return result;
}

static bool is_used(const struct q2_check *check,
                    const struct q2_granule *granule)
{
    unsigned char any = 0;

    for (uint32_t i = 0; i < check->counts.granule_bytes; i++) {
        any |= granule->refs[i];
    }
    return any;
}

/* Blocks for all that has references. */
static int needed(struct build *build)
{
    struct q2_check *check = build->check;
    struct q2_granule **all = q2_counts_sorted(&check->counts);
    uint32_t granules = check->q->refblock_bits - Q2_GRANULE_BITS;
    int result = all ? 0 : -ENOMEM;

    for (uint64_t i = 0; result == 0 && all[i]; i++) {
        if (is_used(check, all[i])) {
            result = need(build, all[i]->index >> granules);
        }
    }
    free(all);
    return result;
}

/* The end of what is to be written, in clusters. */
static uint64_t end_of(const struct build *build)
{
    uint64_t end = build->table + build->table_clusters;

    for (uint64_t i = 0; i < build->count; i++) {
        if (build->blocks[i].cluster >= end) {
            end = build->blocks[i].cluster + 1;
        }
    }
    return end;
}

int q2_check_rebuild(struct q2_check *check)
{
    struct build build = { .check = check, .cursor = 1 };
    int result = needed(&build);

    if (result == 0) {
        result = place_table(&build);
    }
    if (result == 0) {
        result = q2_check_extend(check, end_of(&build)
                                        << check->q->cluster_bits);
    }
    if (result == 0) {
        result = write_blocks(&build);
    }
    if (result == 0) {
        result = write_table(&build);
    }
    if (result == 0) {
        result = write_header(&build);
    }
    free(build.blocks);
    return result;
}
