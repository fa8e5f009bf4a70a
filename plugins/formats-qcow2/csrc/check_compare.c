/* SPDX-License-Identifier: Apache-2.0 */
/*
 * check_compare.c - refcounts on disk against references counted, in the
 * order of the clusters; what lies in neither has refcount 0 and no
 * reference, and is not looked at.
 */
#include <errno.h>
#include <stdlib.h>

#include "check.h"

struct sweep {
    struct q2_check *check;
    uint32_t fix;
    struct q2_granule **granules, **at; /* sorted; the next of them */
    struct q2_reader *reader;
    unsigned char *block;       /* of this table entry; null: all zero */
    bool dirty;                 /* block was changed */
};

static int is_block(uint64_t entry, const struct by_qcow2 *q)
{
    uint64_t offset = entry & Q2_REFT_OFFSET_MASK;

    return offset && !q2_in_cluster(q, offset);
}

/* One cluster whose refcount is not what it should be. */
static void differs(struct sweep *sweep, uint64_t cluster, uint64_t index,
                    uint64_t refcount, uint64_t reference)
{
    struct q2_check *check = sweep->check;
    struct by_qcow2_check_result *out = check->out;
    bool leak = refcount > reference;
    bool mend = sweep->fix & (leak ? BY_QCOW2_FIX_LEAKS : BY_QCOW2_FIX_ERRORS);

    if (!refcount) {
        check->rebuild = true; /* it could be allocated once more */
        mend = false;
    }
    q2_tell(check, "%s cluster %lu refcount=%lu reference=%lu\n",
            mend ? "Repairing" : leak ? "Leaked" : "ERROR",
            (unsigned long)cluster, (unsigned long)refcount,
            (unsigned long)reference);
    if (mend) {
        q2_packed_put(sweep->block, check->counts.order, index, reference);
        sweep->dirty = true;
        ++*(leak ? &out->leaks_fixed : &out->corruptions_fixed);
    } else {
        ++*(leak ? &out->leaks : &out->corruptions);
    }
}

/* Does COPIED say what the refcounts say?  value: the 64 as they are. */
static int look_at_flags(struct q2_check *check, struct q2_granule *granule,
                         const unsigned char *value)
{
    uint64_t one = 0;

    if (!(granule->copied | granule->shared)) {
        return 0;
    }
    for (unsigned i = 0; i < Q2_GRANULE; i++) {
        uint64_t refcount = q2_packed_get(value, check->counts.order, i);

        one |= (uint64_t)(refcount == 1) << i;
    }
    check->copied_wrong |= (granule->copied & ~one) || (granule->shared & one);
    if (memcmp(value, granule->refs, check->counts.granule_bytes) != 0) {
        struct q2_granule *there = q2_counts_make(&check->disk,
                                                  granule->index);

        if (!there) {
            return -ENOMEM;
        }
        memcpy(there->refs, value, check->counts.granule_bytes);
    }
    return 0;
}

/* The 64 clusters from `cluster` on; granule: null when nothing refers to
 * them; value: their refcounts as they are. */
static int sixty_four(struct sweep *sweep, uint64_t cluster,
                      struct q2_granule *granule, const unsigned char *value)
{
    static const unsigned char none[Q2_GRANULE * 8];
    struct q2_check *check = sweep->check;
    uint32_t order = check->counts.order, bytes = check->counts.granule_bytes;
    const unsigned char *refs = granule ? granule->refs : none;
    uint64_t mask = (1ull << check->q->refblock_bits) - 1;
    uint64_t count = check->clusters - cluster, last;

    count = count < Q2_GRANULE ? count : Q2_GRANULE;
    if (memcmp(value, refs, bytes) != 0) {
        for (uint64_t i = 0; i < count; i++) {
            uint64_t refcount = q2_packed_get(value, order, i);
            uint64_t reference = q2_packed_get(refs, order, i);

            if (refcount | reference) {
                check->highest = cluster + i;
            }
            if (refcount != reference) {
                differs(sweep, cluster + i, (cluster + i) & mask, refcount,
                        reference);
            }
        }
    } else if (memcmp(refs, none, bytes) != 0) {
        for (last = count; last && !q2_packed_get(refs, order, last - 1);) {
            last--;
        }
        check->highest = last ? cluster + last - 1 : check->highest;
    }
    return granule ? look_at_flags(check, granule, value) : 0;
}

/* What a bad entry of the table would say nobody knows. */
static void unreadable(struct sweep *sweep, uint64_t from, uint64_t to,
                       int error)
{
    struct q2_check *check = sweep->check;

    check->copied_wrong = true;
    for (uint64_t cluster = from; cluster < to; cluster++) {
        if (cluster > INT32_MAX) {
            check->out->check_errors += to - cluster;
            return;
        }
        if (cluster % 1024 == 0 && q2_check_cancelled(check)) {
            return;
        }
        q2_tell(check, "Can't get refcount for cluster %lu: %s\n",
                (unsigned long)cluster, strerror(error));
        check->out->check_errors++;
    }
}

/* The clusters that one block holds, or would hold. */
static int one_block(struct sweep *sweep, uint64_t from, uint64_t to)
{
    static const unsigned char none[Q2_GRANULE * 8];
    struct q2_check *check = sweep->check;
    uint64_t cluster = from;
    int result = 0;

    while (cluster < to && result == 0) {
        struct q2_granule *granule = *sweep->at;
        uint64_t index = cluster >> Q2_GRANULE_BITS;
        const unsigned char *value = none;

        if (granule && granule->index < index) {
            sweep->at++;
            continue;
        }
        if (sweep->block) {
            value = sweep->block + (cluster - from) / Q2_GRANULE
                                   * check->counts.granule_bytes;
        } else if (!granule || granule->index << Q2_GRANULE_BITS >= to) {
            return 0;
        } else {
            index = granule->index;
            cluster = index << Q2_GRANULE_BITS;
        }
        result = sixty_four(sweep, cluster,
                            granule && granule->index == index ? granule
                                                               : NULL,
                            value);
        cluster += Q2_GRANULE;
    }
    return result;
}

/* Refcounts behind the file's end: leaks as soon as the file is that long.
 * What tables refer to there is counted as QEMU counts it, and stays. */
static void behind_the_end(struct sweep *sweep, uint64_t from, uint64_t to)
{
    struct q2_check *check = sweep->check;
    uint64_t entries = 1ull << check->q->refblock_bits;

    for (uint64_t i = to - from; i < entries; i++) {
        if (!q2_packed_get(sweep->block, check->counts.order, i)
            || (check->outside.hash
                && q2_counts_get(&check->outside, from + i))) {
            continue;
        }
        check->stale = true;
        if (sweep->fix & BY_QCOW2_FIX_LEAKS) {
            q2_packed_put(sweep->block, check->counts.order, i, 0);
            sweep->dirty = true;
        }
    }
}

static int one_entry(struct sweep *sweep, uint64_t index, uint64_t from,
                     uint64_t to)
{
    struct q2_check *check = sweep->check;
    uint64_t entry = index < check->reftable_size ? check->reftable[index] : 0;
    uint64_t offset = entry & Q2_REFT_OFFSET_MASK;
    int result = 0;

    sweep->block = NULL;
    sweep->dirty = false;
    if (q2_in_cluster(check->q, offset)) {
        unreadable(sweep, from, to, EIO);
        return 0;
    }
    if (is_block(entry, check->q)) {
        result = q2_reader_next(sweep->reader, &sweep->block);
        q2_check_step(check);
    }
    if (result < 0) {
        unreadable(sweep, from, to, result == -EFBIG ? EIO : -result);
        return 0;
    }
    result = one_block(sweep, from, to);
    if (result == 0 && sweep->block && !check->outside_unknown) {
        behind_the_end(sweep, from, to);
    }
    if (result == 0 && sweep->dirty) {
        result = q2_check_put(check, offset, sweep->block,
                              check->q->cluster_size);
    }
    return result;
}

static int all_entries(struct sweep *sweep, uint64_t *offsets)
{
    struct q2_check *check = sweep->check;
    uint64_t bits = check->q->refblock_bits, blocks = 0;
    uint64_t ends = check->clusters ? ((check->clusters - 1) >> bits) + 1 : 0;
    int result = 0;

    for (uint64_t i = 0; i < check->reftable_size && i < ends; i++) {
        if (is_block(check->reftable[i], check->q)) {
            offsets[blocks++] = check->reftable[i] & Q2_REFT_OFFSET_MASK;
        }
    }
    q2_check_steps(check, blocks);
    sweep->reader = q2_reader_begin(check->q, offsets, blocks);
    if (!sweep->reader) {
        return -ENOMEM;
    }
    for (uint64_t i = 0; i < ends && result == 0; i++) {
        uint64_t from = i << bits, to = (i + 1) << bits;

        if (i >= check->reftable_size) {
            if (!*sweep->at) {
                break; /* a sparse file has many clusters */
            }
            if ((*sweep->at)->index << Q2_GRANULE_BITS >= to) {
                i = ((*sweep->at)->index << Q2_GRANULE_BITS >> bits) - 1;
                continue;
            }
        }
        result = q2_check_cancelled(check)
               ? -ECANCELED
               : one_entry(sweep, i, from,
                           to < check->clusters ? to : check->clusters);
    }
    q2_reader_end(sweep->reader);
    return result;
}

int q2_check_compare(struct q2_check *check, uint32_t fix)
{
    struct sweep sweep = { .check = check, .fix = fix };
    uint64_t *offsets = malloc((check->reftable_size + 1) * sizeof(*offsets));
    int result = -ENOMEM;

    q2_counts_free(&check->disk);
    sweep.granules = q2_counts_sorted(&check->counts);
    sweep.at = sweep.granules;
    check->highest = 0;
    if (offsets && sweep.granules) {
        result = q2_counts_init(&check->disk, check->counts.order);
    }
    if (result == 0) {
        result = all_entries(&sweep, offsets);
    }
    free(sweep.granules);
    free(offsets);
    return result;
}
