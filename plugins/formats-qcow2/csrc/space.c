/* SPDX-License-Identifier: Apache-2.0 */
/*
 * space.c - where there may be room: in the refcounts, and in the file.
 *
 * A bit for each slice of refcounts says whether it may count a free cluster.
 * The search for a free one (alloc.c) passes a full slice once, clears its
 * bit, and comes back only when something in it was freed; so neither a full
 * image nor one that is freed in many places makes it look at everything.
 *
 * The file grows in steps of many clusters.  What lies behind `fresh` was
 * never used since, and reads as zeroes where the file says so.
 */
#include <errno.h>
#include <stdlib.h>

#include "image.h"

#define MAX_STEP (64ull << 20)
#define MIN_STEP_CLUSTERS 64

/* ------------------------------------------------------------- refcounts */

/* How many slices this many entries of the refcount table have; not more than
 * there can be clusters. */
static uint64_t slices_of(const struct by_qcow2 *q, uint64_t reftable_size)
{
    uint64_t most = (1ull << (56 - q->cluster_bits)) >> q->rb_slice_bits;
    uint64_t slices = reftable_size << (q->refblock_bits - q->rb_slice_bits);

    return slices < most ? slices : most;
}

static uint64_t words(uint64_t slices)
{
    return slices / 64 + 1;
}

int q2_space_resize(struct by_qcow2 *q, uint32_t reftable_size)
{
    uint64_t slices = slices_of(q, reftable_size);
    uint64_t *next = malloc(words(slices) * sizeof(*next)), *before;

    if (!next) {
        return -ENOMEM;
    }
    memset(next, 0xff, words(slices) * sizeof(*next));
    pthread_mutex_lock(&q->lock);
    if (q->roomy && q->roomy_slices <= slices) {
        /* Whole words; the old end's unused bits say "maybe" already. */
        memcpy(next, q->roomy, words(q->roomy_slices) * sizeof(*next));
    }
    before = q->roomy;
    q->roomy = next;
    q->roomy_slices = slices;
    pthread_mutex_unlock(&q->lock);
    free(before);
    return 0;
}

void q2_space_free(struct by_qcow2 *q)
{
    free(q->roomy);
    q->roomy = NULL;
    q->roomy_slices = 0;
}

int q2_space_init(struct by_qcow2 *q)
{
    uint32_t bits = q->rb.slice_bytes * 8;

    q2_space_free(q);
    q->rb_slice_bits = __builtin_ctz(bits) - q->refcount_order;
    pthread_mutex_lock(&q->lock);
    q->free_from = 0;
    q->compressed_at = 0;
    q->file_end = by_node_length(q->file);
    q->file_floor = q->file_end;
    q->fresh = q->file->ops->capabilities & BY_CAP_ZERO_NEW
        ? q2_cluster(q, q->file_end + q->cluster_size - 1) : UINT64_MAX;
    pthread_mutex_unlock(&q->lock);
    return q2_space_resize(q, q->reftable_size);
}

void q2_space_freed(struct by_qcow2 *q, uint64_t cluster)
{
    uint64_t slice = cluster >> q->rb_slice_bits;

    if (slice < q->roomy_slices) {
        q->roomy[slice / 64] |= 1ull << slice % 64;
    }
    if (cluster < q->free_from) {
        q->free_from = cluster;
    }
}

void q2_space_full(struct by_qcow2 *q, uint64_t slice)
{
    if (slice < q->roomy_slices) {
        q->roomy[slice / 64] &= ~(1ull << slice % 64);
    }
}

uint64_t q2_space_next(const struct by_qcow2 *q, uint64_t slice)
{
    uint64_t word;

    if (slice >= q->roomy_slices) {
        return UINT64_MAX;
    }
    word = q->roomy[slice / 64] & ~0ull << slice % 64;
    slice &= ~63ull;
    while (!word) {
        slice += 64;
        if (slice >= q->roomy_slices) {
            return UINT64_MAX;
        }
        word = q->roomy[slice / 64];
    }
    slice += __builtin_ctzll(word);
    return slice < q->roomy_slices ? slice : UINT64_MAX;
}

/* -------------------------------------------------------------- the file */

/* The file has `bytes` now. */
static void reached(struct by_qcow2 *q, uint64_t bytes)
{
    pthread_mutex_lock(&q->lock);
    if (q->file_end < bytes) {
        q->file_end = bytes;
    }
    pthread_mutex_unlock(&q->lock);
}

uint64_t q2_file_step(const struct by_qcow2 *q, uint64_t have)
{
    uint64_t step = MIN_STEP_CLUSTERS * q->cluster_size;

    step = step < have / 16 ? have / 16 : step;
    return step > MAX_STEP ? MAX_STEP : step;
}

int q2_file_reach(struct by_qcow2 *q, uint64_t end)
{
    uint64_t have = by_node_length(q->file), step;
    int result;

    if (end > 1ull << 56) {
        return -EFBIG;
    }
    end = (end + q->cluster_size - 1) & ~(q->cluster_size - 1);
    reached(q, have);
    if (end <= have) {
        return 0;
    }
    step = (have + q2_file_step(q, have)) & ~(q->cluster_size - 1);
    result = q2_node_truncate(q->file, step < end ? end : step,
                              BY_PREALLOC_OFF);
    if (result < 0 && step > end) {
        result = q2_node_truncate(q->file, end, BY_PREALLOC_OFF);
    }
    have = by_node_length(q->file);
    reached(q, have);
    if (have >= end) {
        return 0;
    }
    switch (result) {
    case 0:
    case -ENOTSUP: case -EINVAL: case -EPERM: case -EACCES: case -ENOTTY:
        return -ENOSPC; /* this file has the size that it has */
    default:
        return result;
    }
}

/* How many clusters there are up to the last one that is used, at most
 * `end` and at least `floor`. */
static int used_end(struct by_qcow2 *q, uint64_t floor, uint64_t *end)
{
    while (*end > floor) {
        uint64_t value;
        int result = q2_refcount_get(q, *end - 1, &value);

        if (result < 0) {
            return result;
        }
        if (value) {
            break;
        }
        --*end;
    }
    return 0;
}

int q2_file_trim(struct by_qcow2 *q)
{
    uint64_t length = by_node_length(q->file), end, keep;
    int result;

    end = q2_cluster(q, length + q->cluster_size - 1);
    result = used_end(q, q2_cluster(q, q->file_floor), &end);
    if (result < 0) {
        return result;
    }
    keep = end << q->cluster_bits;
    keep = keep < q->file_floor ? q->file_floor : keep;
    if (keep >= length) {
        return 0;
    }
    if (q2_node_truncate(q->file, keep, BY_PREALLOC_OFF) < 0) {
        return 0; /* it need not be */
    }
    pthread_mutex_lock(&q->lock);
    q->file_end = keep;
    if (q->fresh != UINT64_MAX) {
        q->fresh = q2_cluster(q, keep + q->cluster_size - 1);
    }
    pthread_mutex_unlock(&q->lock);
    return 0;
}
