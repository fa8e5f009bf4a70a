/* SPDX-License-Identifier: Apache-2.0 */
/*
 * format_new.c - new, empty images.
 *
 * Cluster 0 is the header's; behind it are the refcount table, its blocks,
 * the L1 table and, if wanted, room for an encryption header.
 */
#include <errno.h>
#include <stdlib.h>

#include "tables.h"

struct layout {
    uint64_t cluster_size;
    uint64_t reftable_clusters, blocks, l1_clusters, crypto_clusters;
    uint64_t clusters;          /* all */
};

static uint64_t divide_up(uint64_t n, uint64_t by)
{
    return n / by + (n % by != 0);
}

static int lay_out(const struct by_qcow2_settings *set, struct layout *out)
{
    uint64_t size = 1ull << (set->cluster_bits & 31), per_block, l2, l1;

    if (set->version < 2 || set->version > 3
        || set->cluster_bits < Q2_MIN_CLUSTER_BITS
        || set->cluster_bits > Q2_MAX_CLUSTER_BITS
        || set->refcount_order > 6
        || (set->version == 2 && set->refcount_order != 4)
        || (set->extended_l2 && set->cluster_bits < 14)) {
        return -EINVAL;
    }
    if (set->size > INT64_MAX || set->crypto_bytes > 1ull << 40) {
        return -EFBIG;
    }
    l2 = size / (set->extended_l2 ? 16 : 8); /* entries */
    l1 = divide_up(set->size, size * l2);
    if (l1 > Q2_MAX_L1_BYTES / 8) {
        return -EFBIG;
    }
    per_block = size * 8 >> set->refcount_order;
    *out = (struct layout) {
        .cluster_size = size, .reftable_clusters = 1, .blocks = 1,
        .l1_clusters = divide_up(l1 * 8, size),
        .crypto_clusters = divide_up(set->crypto_bytes, size),
    };
    for (;;) {
        uint64_t all = 1 + out->reftable_clusters + out->blocks
            + out->l1_clusters + out->crypto_clusters;
        uint64_t blocks = divide_up(all, per_block);
        uint64_t table = divide_up(blocks * 8, size);

        if (blocks == out->blocks && table == out->reftable_clusters) {
            out->clusters = all;
            break;
        }
        out->blocks = blocks; /* neither ever shrinks, so this ends */
        out->reftable_clusters = table;
    }
    return out->reftable_clusters * size > Q2_MAX_REFTABLE_BYTES ? -EFBIG : 0;
}

int by_qcow2_layout(struct by_qcow2_settings *set)
{
    struct layout at;
    uint64_t next = 1;
    int result = lay_out(set, &at);

    if (result < 0) {
        return result;
    }
    set->reftable_offset = next * at.cluster_size;
    set->reftable_clusters = at.reftable_clusters;
    next += at.reftable_clusters + at.blocks;
    set->l1_offset = at.l1_clusters ? next * at.cluster_size : 0;
    set->l1_size = divide_up(set->size, at.cluster_size * (at.cluster_size
                             / (set->extended_l2 ? 16 : 8)));
    next += at.l1_clusters;
    set->crypto_offset = at.crypto_clusters ? next * at.cluster_size : 0;
    return 0;
}

static int put(struct by_node *node, uint64_t offset, const void *data,
               uint64_t bytes)
{
    struct iovec iov = { .iov_base = (void *)data, .iov_len = bytes };
    struct by_request req = {
        .size = sizeof(req), .op = BY_OP_WRITE, .offset = offset,
        .bytes = bytes, .iov = &iov, .niov = 1, .flags = BY_REQ_STABLE,
    };

    return q2_api->wait(node, &req);
}

static int flush(struct by_node *node)
{
    return q2_node_op(node, BY_OP_FLUSH, 0, 0, 0);
}

/* Refcount `index` of a block becomes 1; the block is all zeroes there. */
static void count_one(unsigned char *block, uint32_t order, uint64_t index)
{
    switch (order) {
    case 0: case 1: case 2:
        block[index >> (3 - order)] |=
            1u << ((index & ((8u >> order) - 1)) << order);
        break;
    default:
        block[((index + 1) << (order - 3)) - 1] = 1;
    }
}

/* Refcount table and blocks. */
static int put_refcounts(struct by_node *node, const struct layout *at,
                         uint32_t order)
{
    uint64_t size = at->cluster_size, per_block = size * 8 >> order;
    uint64_t bytes = at->reftable_clusters * size;
    uint64_t *table = calloc(1, bytes);
    unsigned char *block = malloc(size);
    uint64_t offset = size + bytes;
    int result = table && block ? 0 : -ENOMEM;

    for (uint64_t i = 0; i < at->blocks && result == 0; i++) {
        memset(block, 0, size);
        for (uint64_t c = i * per_block;
             c < at->clusters && c < (i + 1) * per_block; c++) {
            count_one(block, order, c - i * per_block);
        }
        table[i] = htobe64(offset + i * size);
        result = put(node, offset + i * size, block, size);
    }
    if (result == 0) {
        result = put(node, size, table, bytes);
    }
    free(block);
    free(table);
    return result;
}

/* L1 and the encryption header's clusters. */
static int put_zeroes(struct by_node *node, const struct layout *at)
{
    uint64_t from = 1 + at->reftable_clusters + at->blocks;

    return from == at->clusters ? 0
        : q2_node_op(node, BY_OP_WRITE_ZEROES, 0, from * at->cluster_size,
                     (at->clusters - from) * at->cluster_size);
}

int by_qcow2_format(uintptr_t file, const struct by_qcow2_settings *settings,
                    const void *header, uint32_t bytes)
{
    struct by_node *node = (struct by_node *)file;
    struct by_qcow2_settings wanted = *settings;
    unsigned char *first;
    struct layout at;
    int result = by_qcow2_layout(&wanted);

    if (result == 0) {
        result = lay_out(settings, &at);
    }
    if (result < 0) {
        return result;
    }
    if (wanted.l1_offset != settings->l1_offset
        || wanted.l1_size != settings->l1_size
        || wanted.reftable_offset != settings->reftable_offset
        || wanted.reftable_clusters != settings->reftable_clusters
        || wanted.crypto_offset != settings->crypto_offset
        || bytes < Q2_HEADER_V2 || bytes > at.cluster_size) {
        return -EINVAL;
    }
    first = calloc(1, at.cluster_size);
    if (!first) {
        return -ENOMEM;
    }
    if (by_node_length(node) < at.clusters * at.cluster_size) {
        result = q2_node_truncate(node, at.clusters * at.cluster_size,
                                  BY_PREALLOC_OFF);
    }
    if (result == 0) { /* what was here is no image from now on */
        result = put(node, 0, first, at.cluster_size);
    }
    if (result == 0) {
        result = flush(node);
    }
    if (result == 0) {
        result = put_refcounts(node, &at, settings->refcount_order);
    }
    if (result == 0) {
        result = put_zeroes(node, &at);
    }
    if (result == 0) {
        result = flush(node);
    }
    if (result == 0) {
        memcpy(first, header, bytes);
        result = put(node, 0, first, at.cluster_size);
    }
    if (result == 0) {
        result = flush(node);
    }
    free(first);
    return result;
}
