/* SPDX-License-Identifier: Apache-2.0 */
/*
 * zero_entries.c - L2 entries that come to read as zeroes.
 *
 * A discard gives the cluster back and shows zeroes from then on, so that a
 * backing file does not show through (version 3; version 2 cannot say it).
 * Zeroes keep the cluster for the next write unless they may unmap.
 */
#include <errno.h>

#include "zeroes.h"

#define ALL_ZERO (~0ull << 32)

struct q2_new_entry {
    uint64_t entry, bitmap;
    bool keep;                  /* the host cluster */
    bool part;                  /* other subclusters are not concerned */
};

/* The subclusters of [from, to) in the cluster that begins at `start`. */
static uint32_t covered(const struct by_qcow2 *q, const struct q2_emptying *e,
                        uint64_t start)
{
    uint64_t end = start + q->cluster_size;
    uint64_t from = e->from > start ? e->from : start;
    uint64_t to = e->to < end ? e->to : end;
    uint32_t first = (from - start) >> q->subcluster_bits;
    uint32_t last = (to - 1 - start) >> q->subcluster_bits;

    return (last == 31 ? ~0u : (2u << last) - 1) & ~((1u << first) - 1);
}

static int part_of_cluster(const struct q2_run *run, uint32_t bits,
                           struct q2_new_entry *new)
{
    if (run->kind == Q2_KIND_COMPRESSED) {
        return -ENOTSUP;
    }
    new->keep = new->part = true;
    new->entry = run->entry;
    new->bitmap = (run->bitmap & ~(uint64_t)bits) | (uint64_t)bits << 32;
    return new->bitmap != run->bitmap;
}

static bool has_data(const struct by_qcow2 *q, const struct q2_run *run,
                     uint32_t bits)
{
    if (run->kind == Q2_KIND_COMPRESSED) {
        return true;
    }
    return q->set.extended_l2 ? run->bitmap & bits : run->kind == Q2_KIND_DATA;
}

/* 1: the entry changes to *new; 0: it stays; -ENOTSUP. */
static int decide(const struct by_qcow2 *q, const struct q2_emptying *e,
                  const struct q2_run *run, uint64_t start,
                  struct q2_new_entry *new)
{
    bool extended = q->set.extended_l2;
    bool there = run->has_host || run->kind == Q2_KIND_COMPRESSED;
    uint32_t bits = extended ? covered(q, e, start) : 0;

    if (e->widened && has_data(q, run, bits)) {
        return -ENOTSUP; /* a write was faster */
    }
    if (extended && bits != ~0u) {
        return part_of_cluster(run, bits, new);
    }
    if (e->discard) {
        if (!there && (!q->backing || run->kind == Q2_KIND_ZERO)
            && (!extended || !q->backing || run->bitmap == ALL_ZERO)) {
            return 0;
        }
        new->keep = q->set.discard_no_unref && run->has_host;
    } else {
        if (q->set.version < 3) {
            return there || q->backing ? -ENOTSUP : 0;
        }
        new->keep = run->has_host && (!e->unmap || q->set.discard_no_unref);
    }
    new->entry = new->keep ? run->entry : 0;
    new->bitmap = extended ? ALL_ZERO : 0;
    if (!extended && q->set.version >= 3) {
        new->entry |= Q2_ZERO;
    }
    return new->entry != run->entry || new->bitmap != run->bitmap;
}

/* Ranges of the data file that go although nothing is freed. */
static bool gather_kept(struct q2_emptying *e, uint64_t host, uint64_t bytes)
{
    if (e->kept && e->kept_at + e->kept != host) {
        return false;
    }
    if (!e->kept) {
        e->kept_at = host;
    }
    e->kept += bytes;
    return true;
}

static bool passes_on(const struct by_qcow2 *q, const struct q2_emptying *e,
                      const struct q2_new_entry *new)
{
    return (q->set.pass_discard & (1u << BY_QCOW2_DISCARD_REQUEST))
        && (q->set.data_file || (new->keep && q->set.discard_no_unref))
        && (e->discard || e->unmap) && !new->part;
}

/* A discard is a hint: its failure is nobody's. */
static void pass_kept(struct by_qcow2 *q, struct q2_emptying *e)
{
    if (e->kept) {
        (void)q2_node_op(q->data, BY_OP_DISCARD, 0, e->kept_at, e->kept);
        e->kept = 0;
    }
}

/* Under lock.  Entries of one slice from spot on; *guest moves on.  -EAGAIN:
 * pass_kept is due. */
static int empty_slice(struct by_qcow2 *q, struct q2_emptying *e,
                       struct q2_spot *spot, uint64_t *guest)
{
    for (; spot->left && *guest < e->to; spot->left--, spot->index++) {
        uint64_t start = *guest & ~(q->cluster_size - 1);
        unsigned char *at = spot->slice->table
            + (uint64_t)spot->index * q->entry_bytes;
        struct q2_new_entry new = { 0 };
        struct q2_run run;
        int result = q2_describe(q, spot->slice, spot->index, start, &run);

        if (result == 0) {
            result = decide(q, e, &run, start, &new);
        }
        if (result < 0) {
            return result;
        }
        if (result) {
            if (!spot->own) {
                return -EMLINK;
            }
            if (run.has_host && passes_on(q, e, &new)
                && !gather_kept(e, run.host, q->cluster_size)) {
                return -EAGAIN;
            }
            q2_put64(at, new.entry);
            if (q->set.extended_l2) {
                q2_put64(at + 8, new.bitmap);
            }
            q->barrier = true;
            q2_cache_dirty(&q->l2, spot->slice);
            if (!new.keep) {
                q2_free_entry(q, run.entry, BY_QCOW2_DISCARD_REQUEST);
            }
        }
        *guest = start + q->cluster_size;
    }
    return 0;
}

/* Of a range without an L2 table: is there nothing to do? */
static bool is_nothing(const struct by_qcow2 *q, const struct q2_emptying *e)
{
    return !q->backing && (e->discard || q->set.version < 3);
}

int q2_empty(struct by_qcow2 *q, struct q2_emptying *e)
{
    uint64_t guest = e->from;
    int result = 0;

    while (guest < e->to && result == 0) {
        struct q2_spot spot;

        result = q2_find_wait(q, guest, &spot);
        if (result == -ENOENT && is_nothing(q, e)) {
            guest = (guest & ~(q->cluster_size - 1))
                + ((uint64_t)spot.left << q->cluster_bits);
            result = 0;
            continue;
        }
        if (result == -ENOENT) {
            result = q->set.version < 3 ? -ENOTSUP
                                        : q2_l2_make(q, spot.l1_index);
            continue;
        }
        if (result < 0) {
            break;
        }
        pthread_mutex_lock(&q->lock);
        result = empty_slice(q, e, &spot, &guest);
        q2_cache_unpin(&q->l2, spot.slice);
        pthread_mutex_unlock(&q->lock);
        if (result == -EMLINK) {
            result = q2_l2_make(q, spot.l1_index);
        } else if (result == -EAGAIN) {
            pass_kept(q, e);
            result = 0;
        }
    }
    pass_kept(q, e);
    return result;
}
