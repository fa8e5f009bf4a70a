/* SPDX-License-Identifier: Apache-2.0 */
/*
 * change_plan.c - which clusters a write changes, where it puts them, and what
 * it has to copy around the payload.
 *
 * A new cluster holds all that the old mapping showed of it.  With subclusters
 * only those count that were there, and what lies between them and the write.
 */
#include <errno.h>

#include "change.h"

static bool is_ours(const struct q2_run *run)
{
    return run->has_host && run->copied;
}

/* How many clusters from the first on are changed in the same way. */
static uint64_t count_alike(struct by_qcow2 *q, const struct q2_spot *spot,
                            uint64_t guest, uint64_t bytes, bool reuse,
                            const struct q2_run *run)
{
    uint64_t first = q2_cluster(q, guest);
    uint64_t max = q2_cluster(q, guest + bytes - 1) - first + 1;
    uint64_t host = run->host - q2_in_cluster(q, guest), n = 1;
    struct q2_run next;

    if (reuse && q->set.extended_l2) {
        return 1;
    }
    for (; n < max && n < spot->left; n++) {
        if (q2_describe(q, spot->slice, spot->index + n,
                        (first + n) << q->cluster_bits, &next) < 0
            || is_ours(&next) != reuse
            || (reuse && (next.kind != run->kind
                          || next.host != host + (n << q->cluster_bits)))) {
            break;
        }
    }
    return n;
}

/* The host clusters: those in the entries, the data file's at the same place,
 * or new ones.  May lower *count. */
static int place(struct by_qcow2 *q, struct q2_change *c, uint64_t *count,
                 const struct q2_run *run, bool *fresh,
                 struct q2_patience *patience, uint64_t l1_index)
{
    int result = 0;

    *fresh = false;
    if (q->set.data_file) {
        c->host = c->guest & ~(q->cluster_size - 1);
        return 0;
    }
    if (c->reuse) {
        c->host = run->host - q2_in_cluster(q, c->guest);
        return q2_overlap_check(q, 0, c->host, *count << q->cluster_bits);
    }
    if (unlikely(q->line)) {
        result = q2_line_turn(q, patience, l1_index);
    }
    if (likely(result == 0)) {
        result = q2_alloc_try(q, count, &c->host, fresh);
        if (unlikely(result == -EAGAIN)) {
            return q2_leave_to_keeper(q, patience, q2_alloc_prepare, *count,
                                      Q2_ANY);
        }
    }
    return result;
}

/* Do subclusters of an old host cluster move along? */
static uint32_t moving(const struct q2_change *c, const struct q2_run *run)
{
    return c->reuse ? 0 : (uint32_t)run->bitmap;
}

/* Is [at, ...) of the first or last cluster, up to its end that is copied,
 * zeroes?  `run` describes `at` or a byte of the same (sub)cluster. */
static bool shows_zeroes(const struct by_qcow2 *q, const struct q2_run *run,
                         uint64_t at)
{
    return run->kind == Q2_KIND_ZERO
        || (run->kind == Q2_KIND_UNALLOCATED
            && (!q->backing || by_node_length(q->backing) <= at));
}

static void plan_head(struct by_qcow2 *q, struct q2_change *c,
                      const struct q2_run *run)
{
    uint64_t cluster = c->guest & ~(q->cluster_size - 1);
    uint32_t bits = moving(c, run), sub;

    c->from = cluster;
    if (q->set.extended_l2 && run->kind != Q2_KIND_COMPRESSED) {
        sub = (c->guest - cluster) >> q->subcluster_bits;
        if (bits && (uint32_t)__builtin_ctz(bits) < sub) {
            sub = __builtin_ctz(bits);
        } else {
            bits = 0;
        }
        c->from += (uint64_t)sub << q->subcluster_bits;
    }
    c->head = c->guest - c->from;
    c->head_zero = !bits && shows_zeroes(q, run, c->from);
}

static int plan_tail(struct by_qcow2 *q, struct q2_change *c,
                     const struct q2_spot *spot)
{
    uint64_t end = c->guest + c->bytes, last = end - 1;
    uint64_t cluster = last & ~(q->cluster_size - 1);
    uint32_t bits, sub;
    struct q2_run run;
    int result = q2_describe(q, spot->slice,
                             spot->index + c->alloc.count - 1, last, &run);

    if (result < 0) {
        return result;
    }
    bits = moving(c, &run);
    c->to = cluster + q->cluster_size;
    if (q->set.extended_l2 && run.kind != Q2_KIND_COMPRESSED) {
        sub = (last - cluster) >> q->subcluster_bits;
        if (bits && 31u - __builtin_clz(bits) > sub) {
            sub = 31 - __builtin_clz(bits);
        } else {
            bits = 0;
        }
        c->to = cluster + ((uint64_t)(sub + 1) << q->subcluster_bits);
    }
    c->tail = c->to - end;
    c->tail_zero = end >= q->size || (!bits && shows_zeroes(q, &run, end));
    return 0;
}

static int plan_copies(struct by_qcow2 *q, struct q2_change *c,
                       const struct q2_spot *spot, const struct q2_run *run,
                       bool fresh)
{
    plan_head(q, c, run);
    if (plan_tail(q, c, spot) < 0) {
        return -EIO;
    }
    if (fresh && !q->crypto) { /* zeroes are there */
        c->head = c->head_zero ? 0 : c->head;
        c->tail = c->tail_zero ? 0 : c->tail;
    }
    return 0;
}

int q2_change_find(struct by_qcow2 *q, uint64_t guest, struct q2_spot *spot,
                   struct q2_patience *patience)
{
    int result;

    if (unlikely(q->set.lazy_refcounts && !q->dirty_bit)) {
        return q2_leave_to_keeper(q, patience, q2_mark_dirty_chore, 0,
                                  Q2_ANY);
    }
    result = q2_find(q, guest, spot, &patience->wait);
    if (result == -ENOENT || (result == 0 && !spot->own)) {
        return q2_leave_to_keeper(q, patience, q2_l2_make_chore,
                                  spot->l1_index, spot->l1_index);
    }
    return result;
}

int q2_change_plan(struct by_qcow2 *q, struct q2_change *c, uint64_t guest,
                   uint64_t bytes, const struct q2_run *run,
                   struct q2_patience *patience)
{
    struct q2_spot spot;
    uint64_t count, end;
    bool fresh;
    int result;

    result = q2_change_find(q, guest, &spot, patience);
    if (result < 0) {
        return result;
    }
    c->q = q;
    c->guest = guest;
    c->reuse = is_ours(run);
    if (c->reuse && q->set.extended_l2 && bytes > run->bytes) {
        bytes = run->bytes;
    }
    count = count_alike(q, &spot, guest, bytes, c->reuse, run);
    result = place(q, c, &count, run, &fresh, patience, spot.l1_index);
    if (result < 0) {
        return result;
    }
    c->alloc.first = q2_cluster(q, guest);
    c->alloc.count = count;
    end = (c->alloc.first + count) << q->cluster_bits;
    c->bytes = end - guest < bytes ? end - guest : bytes;
    result = plan_copies(q, c, &spot, run, fresh);
    if (result < 0) {
        if (!c->reuse && !q->set.data_file) {
            q2_alloc_undo(q, c->host, count);
        }
        return result;
    }
    c->slice = spot.slice;
    c->index = spot.index;
    q2_cache_pin(c->slice);
    q2_alloc_enter(q, &c->alloc);
    return 0;
}
