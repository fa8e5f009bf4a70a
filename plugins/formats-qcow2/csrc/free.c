/* SPDX-License-Identifier: Apache-2.0 */
/*
 * free.c - clusters that are given back.
 *
 * Whoever takes a reference out of a table says so at the same moment, under
 * the lock.  The cluster stays counted until two things have happened:
 *
 *  - The tables without the reference are on the disk.  Else a power cut would
 *    bring back a reference to a cluster that somebody else has by then.
 *    q2_sync notes how many entries the list has before it copies any table,
 *    so what stands before that mark is gone from all that it writes.
 *  - Every request has ended that may have looked the reference up before it
 *    was gone.  A request counts itself for the epoch in which it begins
 *    (q2_enter).  The epoch n + 1 begins only when all requests of n - 1 have
 *    ended, so two counters are enough, and what was freed in epoch n is in
 *    nobody's hands once a later epoch runs and n's counter is 0.
 *
 * Only then is it punched out of the file, and when that is over, counted down
 * in memory; others can have it from that moment on.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "image.h"

enum {
    MOST_ENTRIES = 1 << 20,     /* more is not remembered: it leaks */
    MANY_ENTRIES = 4096,        /* worth a sync of their own */
    AT_ONCE = 64,               /* clusters under one hold of the lock */
};
#define MANY_BYTES (64ull << 20)

/* -------------------------------------------------------------- the list */

static bool make_room(struct by_qcow2 *q)
{
    uint32_t max = q->freed_max ? q->freed_max * 2 : 64;
    struct q2_freed *next;

    if (q->nfreed < q->freed_max) {
        return true;
    }
    if (max > MOST_ENTRIES) {
        return false;
    }
    next = realloc(q->freed, max * sizeof(*next));
    if (next) {
        q->freed = next;
        q->freed_max = max;
    }
    return next != NULL;
}

static void append(struct by_qcow2 *q, const struct q2_freed *entry)
{
    if (make_room(q)) {
        q->freed[q->nfreed++] = *entry;
        q->freed_bytes += entry->bytes;
        q->sole_bytes += entry->sole ? entry->bytes : 0;
    }
}

static int sync_chore(struct by_qcow2 *q, struct q2_chore *chore)
{
    (void)q2_sync(q); /* what fails is found by who flushes */
    pthread_mutex_lock(&q->lock);
    chore->result = 0;
    q->freed_enough = q->nfreed;
    pthread_mutex_unlock(&q->lock);
    return 0;
}

static int apply_chore(struct by_qcow2 *q, struct q2_chore *chore)
{
    uint32_t count;

    pthread_mutex_lock(&q->lock);
    chore->result = 0;
    count = q->freed_stable;
    pthread_mutex_unlock(&q->lock);
    return count ? q2_free_apply(q, count) : 0;
}

static void add_chore(struct by_qcow2 *q,
                      int (*run)(struct by_qcow2 *, struct q2_chore *))
{
    if (!q->give_back.result) {
        q->give_back.result = 1;
        q->give_back.run = run;
        q2_chore_add(q, &q->give_back);
    }
}

void q2_free_later(struct by_qcow2 *q, uint32_t count)
{
    q->freed_stable = count;
    if (count) {
        add_chore(q, apply_chore);
    }
}

static void add(struct by_qcow2 *q, uint64_t offset, uint64_t bytes,
                enum by_qcow2_discard why, bool sole)
{
    const struct q2_freed entry = {
        .offset = offset, .bytes = bytes, .why = why, .sole = sole,
        .epoch = q->epoch,
    };
    struct q2_freed *last = q->nfreed > q->freed_sealed
        ? &q->freed[q->nfreed - 1] : NULL;
    uint64_t enough = q->file_end / 16;

    if (q->set.data_file || !bytes) {
        return;
    }
    q2_event(q, BY_DEBUG_CLUSTER_FREE);
    if (last && last->offset + last->bytes == offset && last->why == why
        && last->sole == sole && last->epoch == q->epoch) {
        last->bytes += bytes;
        q->freed_bytes += bytes;
        q->sole_bytes += sole ? bytes : 0;
    } else {
        append(q, &entry);
    }
    enough = enough < MANY_BYTES ? MANY_BYTES : enough;
    if (unlikely(q->nfreed >= MANY_ENTRIES + q->freed_enough
                 || q->freed_bytes - q->freed_held >= enough)) {
        add_chore(q, sync_chore);
    }
}

void q2_free(struct by_qcow2 *q, uint64_t offset, uint64_t bytes,
             enum by_qcow2_discard why)
{
    add(q, offset, bytes, why, false);
}

void q2_free_entry(struct by_qcow2 *q, uint64_t entry,
                   enum by_qcow2_discard why)
{
    uint64_t offset, end;

    if (q->set.data_file) {
        return;
    }
    if (entry & Q2_COMPRESSED) {
        offset = entry & q->coffset_mask;
        end = (offset & ~(uint64_t)(Q2_SECTOR - 1))
            + (((entry >> q->csize_shift) & q->csize_mask) + 1) * Q2_SECTOR;
        offset &= ~(q->cluster_size - 1);
        end = (end + q->cluster_size - 1) & ~(q->cluster_size - 1);
        q2_free(q, offset, end - offset, why);
        return;
    }
    offset = entry & Q2_OFFSET_MASK;
    if (q2_in_cluster(q, offset)) {
        (void)q2_corrupt(q, false, -1, -1,
                         "Cannot free unaligned cluster %#" PRIx64, offset);
    } else if (offset) {
        add(q, offset, q->cluster_size, why, entry & Q2_COPIED);
    }
}

bool q2_free_instead(struct by_qcow2 *q, uint64_t bytes)
{
    uint64_t worth = q2_file_step(q, by_node_length(q->file)) / 8;
    bool enough;

    worth = worth < bytes ? bytes : worth;
    pthread_mutex_lock(&q->lock);
    enough = q->sole_bytes - q->sole_held >= worth;
    pthread_mutex_unlock(&q->lock);
    return enough && q2_sync(q) == 0; /* what fails is found by who flushes */
}

void q2_alloc_undo(struct by_qcow2 *q, uint64_t offset, uint64_t count)
{
    uint64_t per = 1ull << q->rb_slice_bits;

    for (uint64_t c = q2_cluster(q, offset); count--; c++) {
        uint64_t at = q2_refcount_slice(q, c);
        struct q2_slice *slice = at ? q2_cache_find(&q->rb, at) : NULL;

        if (!slice || q2_refcount_read(q, slice->table, c & (per - 1)) != 1) {
            q2_free(q, c << q->cluster_bits, q->cluster_size,
                    BY_QCOW2_DISCARD_NEVER);
            continue;
        }
        q2_refcount_write(q, slice->table, c & (per - 1), 0);
        q2_cache_dirty(&q->rb, slice);
        q2_space_freed(q, c);
        if (q->compressed_at && q2_cluster(q, q->compressed_at) == c) {
            q->compressed_at = 0;
        }
    }
}

void q2_epoch_advance(struct by_qcow2 *q)
{
    if (!__atomic_load_n(&q->running[(q->epoch + 1) & 1], __ATOMIC_ACQUIRE)) {
        q->epoch++;
    }
}

/* Under lock: what was freed in an epoch below this is in nobody's hands. */
static uint64_t over_below(struct by_qcow2 *q)
{
    q2_epoch_advance(q);
    if (!q->epoch || __atomic_load_n(&q->running[(q->epoch - 1) & 1],
                                     __ATOMIC_ACQUIRE)) {
        return q->epoch ? q->epoch - 1 : 0;
    }
    return q->epoch;
}

/* ------------------------------------------------------------ giving back */

/* A run of clusters in one slice whose refcounts are alike. */
struct run {
    struct q2_slice *slice;
    uint64_t at, count;         /* entries of the slice */
    uint64_t value;             /* 1: they become free; else only counted */
};

/* Under lock. */
static void find_run(struct by_qcow2 *q, struct run *run, uint64_t cluster,
                     uint64_t most)
{
    uint64_t n = 1;

    run->at = cluster & ((1ull << q->rb_slice_bits) - 1);
    run->value = q2_refcount_read(q, run->slice->table, run->at);
    while (n < most && q2_refcount_read(q, run->slice->table, run->at + n)
                       == run->value) {
        n++;
    }
    run->count = n;
    if (run->value == 1 && q->compressed_at
        && q2_cluster(q, q->compressed_at) - cluster < n) {
        q->compressed_at = 0; /* nobody may begin to use it again */
    }
}

/* Under lock: does it hold metadata, as if two things were in one place? */
static bool is_metadata(struct by_qcow2 *q, struct run *run, uint64_t cluster)
{
    uint64_t first;

    if (run->value != 1
        || likely(!q2_map_types(q, cluster, run->count, &first))) {
        return false;
    }
    if (first > cluster) {
        run->count = first - cluster;
        return false;
    }
    run->count = 1;
    (void)q2_corrupt(q, false, cluster << q->cluster_bits, q->cluster_size,
                     "Cannot free cluster %#" PRIx64 ", which holds metadata",
                     cluster << q->cluster_bits);
    return true;
}

static void count_down(struct by_qcow2 *q, const struct run *run,
                       uint64_t cluster)
{
    for (uint64_t i = 0; i < run->count; i++) {
        uint64_t value = q2_refcount_read(q, run->slice->table, run->at + i);

        if (value == 0) {
            continue;
        }
        q2_refcount_write(q, run->slice->table, run->at + i, value - 1);
        if (value == 1) {
            q2_refcount_gone(q, cluster + i);
        }
    }
    q2_cache_dirty(&q->rb, run->slice);
}

/* One run from `cluster` on, at most `most` clusters; how many it were. */
static int give_back_run(struct by_qcow2 *q, uint64_t cluster, uint64_t most,
                         uint8_t why, uint64_t *count)
{
    uint64_t offset = q2_refcount_slice(q, cluster);
    uint64_t left = (1ull << q->rb_slice_bits)
        - (cluster & ((1ull << q->rb_slice_bits) - 1));
    struct run run;
    bool keep;
    int result;

    left = left < most ? left : most;
    left = left < AT_ONCE ? left : AT_ONCE;
    *count = left;
    if (!offset) {
        return 0; /* nobody counts it */
    }
    result = q2_block_check(q, cluster >> q->refblock_bits);
    if (result == 0) {
        q2_event(q, BY_DEBUG_REFBLOCK_LOAD);
        result = q2_cache_get(q, &q->rb, offset, &run.slice);
    }
    if (result < 0) {
        return result;
    }
    pthread_mutex_lock(&q->lock);
    find_run(q, &run, cluster, left);
    keep = run.value == 0 || is_metadata(q, &run, cluster);
    pthread_mutex_unlock(&q->lock);
    *count = run.count;
    if (!keep && run.value == 1 && q->set.pass_discard >> why & 1) {
        (void)q2_node_op(q->file, BY_OP_DISCARD, 0,
                         cluster << q->cluster_bits,
                         run.count << q->cluster_bits);
    }
    pthread_mutex_lock(&q->lock);
    if (!keep) {
        count_down(q, &run, cluster);
    }
    q2_cache_unpin(&q->rb, run.slice);
    pthread_mutex_unlock(&q->lock);
    return 0;
}

static int give_back(struct by_qcow2 *q, const struct q2_freed *entry)
{
    uint64_t cluster = q2_cluster(q, entry->offset), count;
    uint64_t end = q2_cluster(q, entry->offset + entry->bytes);

    for (; cluster < end; cluster += count) {
        int result = give_back_run(q, cluster, end - cluster, entry->why,
                                   &count);
        bool many;

        if (result < 0) {
            return result;
        }
        pthread_mutex_lock(&q->lock);
        many = q->rb.ndirty > q->rb.max / 2;
        pthread_mutex_unlock(&q->lock);
        if (many) {
            (void)q2_sync_refcounts(q);
        }
    }
    return 0;
}

/* The list's first `count` entries become the caller's. */
static struct q2_freed *detach(struct by_qcow2 *q, uint32_t count,
                               uint64_t *over)
{
    struct q2_freed *mine = NULL, *rest = NULL;
    uint32_t room = 0;

    pthread_mutex_lock(&q->lock);
    while (room < q->nfreed - count + 1) { /* at least one, to have a list */
        room = (q->nfreed - count) * 2 + 64;
        pthread_mutex_unlock(&q->lock);
        free(rest);
        rest = malloc(room * sizeof(*rest));
        if (!rest) {
            return NULL;
        }
        pthread_mutex_lock(&q->lock);
    }
    mine = q->freed;
    memcpy(rest, mine + count, (q->nfreed - count) * sizeof(*rest));
    q->freed = rest;
    q->freed_max = room;
    q->nfreed -= count;
    q->freed_sealed = q->freed_stable = 0;
    q->freed_held = q->sole_held = 0;
    for (uint32_t i = 0; i < count; i++) {
        q->freed_bytes -= mine[i].bytes;
        q->sole_bytes -= mine[i].sole ? mine[i].bytes : 0;
    }
    *over = over_below(q);
    pthread_mutex_unlock(&q->lock);
    return mine;
}

int q2_free_apply(struct by_qcow2 *q, uint32_t count)
{
    struct q2_freed *mine;
    uint64_t over;
    int result = 0;

    if (!count) {
        return 0;
    }
    mine = detach(q, count, &over);
    if (!mine) {
        return -ENOMEM;
    }
    for (uint32_t i = 0; i < count; i++) {
        if (result == 0 && mine[i].epoch < over) {
            result = give_back(q, &mine[i]);
        } else { /* next time */
            pthread_mutex_lock(&q->lock);
            append(q, &mine[i]);
            q->freed_held += mine[i].bytes;
            q->sole_held += mine[i].sole ? mine[i].bytes : 0;
            pthread_mutex_unlock(&q->lock);
        }
    }
    free(mine);
    return result;
}
