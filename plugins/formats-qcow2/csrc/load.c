/* SPDX-License-Identifier: Apache-2.0 */
/*
 * load.c - open an image: its geometry, L1 and the refcount table.
 *
 * Python has read the header and refused what the format does not allow; what
 * memory safety rests on is looked at again here.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "compressed.h"
#include "tables.h"

static bool is_power_of_two(uint64_t n)
{
    return n && !(n & (n - 1));
}

static bool are_sane(const struct by_qcow2_settings *s)
{
    uint64_t cluster = 1ull << s->cluster_bits;

    return (s->version == 2 || s->version == 3)
        && s->cluster_bits >= Q2_MIN_CLUSTER_BITS
        && s->cluster_bits <= Q2_MAX_CLUSTER_BITS
        && s->refcount_order <= 6
        && (!s->extended_l2 || s->cluster_bits >= 14)
        && is_power_of_two(s->l2_slice_bytes)
        && s->l2_slice_bytes >= Q2_SECTOR && s->l2_slice_bytes <= cluster
        && (uint64_t)s->l1_size * 8 <= Q2_MAX_L1_BYTES
        && s->reftable_clusters <= Q2_MAX_REFTABLE_BYTES >> s->cluster_bits
        && !(s->l1_offset & (cluster - 1))
        && !(s->reftable_offset & (cluster - 1))
        && s->l1_offset <= INT64_MAX && s->reftable_offset <= INT64_MAX
        && s->size <= INT64_MAX;
}

static void set_geometry(struct by_qcow2 *q)
{
    const struct by_qcow2_settings *s = &q->set;

    q->cluster_bits = s->cluster_bits;
    q->cluster_size = 1ull << s->cluster_bits;
    q->entry_bytes = s->extended_l2 ? 16 : 8;
    q->l2_bits = s->cluster_bits - (s->extended_l2 ? 4 : 3);
    q->l2_slice_entries = s->l2_slice_bytes / q->entry_bytes;
    q->subclusters = s->extended_l2 ? Q2_SUBCLUSTERS : 1;
    q->subcluster_bits = s->cluster_bits - (s->extended_l2 ? 5 : 0);
    q->refcount_order = s->refcount_order;
    q->refcount_max = s->refcount_order == 6
        ? INT64_MAX : (1ull << (1u << s->refcount_order)) - 1;
    q->refblock_bits = s->cluster_bits + 3 - s->refcount_order;
    q->csize_shift = 62 - (s->cluster_bits - 8);
    q->csize_mask = (1ull << (s->cluster_bits - 8)) - 1;
    q->coffset_mask = (1ull << q->csize_shift) - 1;
    q->size = s->size;
    q->dirty_bit = s->incompatible & Q2_INCOMPAT_DIRTY;
}

/* Entries in the host's byte order. */
static int read_table(struct by_qcow2 *q, uint64_t offset, uint64_t entries,
                      uint64_t **out)
{
    uint64_t *table = malloc(entries ? entries * 8 : 8);
    int result;

    if (!table) {
        return -ENOMEM;
    }
    if (offset == q->set.reftable_offset) {
        q2_event(q, BY_DEBUG_REFTABLE_LOAD);
    }
    result = q2_pread(q, offset, table, entries * 8);
    if (result < 0) {
        free(table);
        return result;
    }
    for (uint64_t i = 0; i < entries; i++) {
        table[i] = be64toh(table[i]);
    }
    *out = table;
    return 0;
}

/* What the overlap check knows of the active tables. */
static int map_tables(struct by_qcow2 *q)
{
    int result = q2_map_add(q, 0, q->cluster_size,
                            BY_QCOW2_OL_MAIN_HEADER);

    if (result == 0 && q->l1_size) {
        result = q2_map_add(q, q->l1_offset, q->l1_size * 8ull,
                            BY_QCOW2_OL_ACTIVE_L1);
    }
    if (result == 0) {
        result = q2_map_add(q, q->reftable_offset, q->reftable_size * 8ull,
                            BY_QCOW2_OL_REFCOUNT_TABLE);
    }
    for (uint32_t i = 0; i < q->l1_size && result == 0; i++) {
        uint64_t l2 = q->l1[i] & Q2_OFFSET_MASK;

        if (l2 && !q2_in_cluster(q, l2)) {
            result = q2_map_add(q, l2, q->cluster_size,
                                BY_QCOW2_OL_ACTIVE_L2);
        }
    }
    for (uint32_t i = 0; i < q->reftable_size && result == 0; i++) {
        uint64_t block = q->reftable[i] & Q2_REFT_OFFSET_MASK;

        if (block && !q2_in_cluster(q, block)) {
            result = q2_map_add(q, block, q->cluster_size,
                                BY_QCOW2_OL_REFCOUNT_BLOCK);
        }
    }
    if (result == 0 && q->set.bitmaps_offset && q->set.bitmaps_bytes) {
        result = q2_map_add(q, q->set.bitmaps_offset, q->set.bitmaps_bytes,
                            BY_QCOW2_OL_BITMAP_DIRECTORY);
    }
    return result;
}

static int read_tables(struct by_qcow2 *q, char *why)
{
    const struct by_qcow2_settings *s = &q->set;
    uint64_t per_l1 = 1ull << (q->cluster_bits + q->l2_bits);
    int result;

    q->l1_size = s->l1_size;
    q->l1_guest = s->size / per_l1 + (s->size % per_l1 != 0);
    q->l1_offset = s->l1_offset;
    q->l1_dirty_from = q->l1_dirty_to = 0;
    q->reftable_size = ((uint64_t)s->reftable_clusters << q->cluster_bits) / 8;
    q->reftable_offset = s->reftable_offset;
    if (s->size / per_l1 + (s->size % per_l1 != 0) > s->l1_size) {
        return q2_say(why, -EINVAL, "L1 table is too small");
    }
    result = read_table(q, q->reftable_offset, q->reftable_size, &q->reftable);
    if (result < 0) {
        return q2_say(why, result, "Could not initialize refcount handling");
    }
    result = read_table(q, q->l1_offset, q->l1_size, &q->l1);
    if (result < 0) {
        return q2_say(why, result, "Could not read L1 table");
    }
    result = map_tables(q);
    if (result == 0) {
        result = q2_space_init(q);
    }
    return result < 0 ? result : q2_snapshots_open(q, why);
}

static int make_caches(struct by_qcow2 *q)
{
    uint64_t block = q->cluster_size < 4096 ? q->cluster_size : 4096;
    int result = q2_cache_init(&q->l2, q->set.l2_slice_bytes,
                               q->set.l2_cache_bytes);

    return result < 0 ? result
        : q2_cache_init(&q->rb, block, q->set.refcount_cache_bytes);
}

static void forget_tables(struct by_qcow2 *q)
{
    q2_space_free(q);
    q2_map_clear(q);
    free(q->l1);
    free(q->reftable);
    q->l1 = q->reftable = NULL;
    q->l1_size = q->reftable_size = 0;
}

static int load(struct by_qcow2 *q, const struct by_qcow2_settings *settings,
                char *why)
{
    int result;

    why[0] = 0;
    if (!are_sane(settings)) {
        return -EINVAL;
    }
    q->set = *settings;
    set_geometry(q);
    result = make_caches(q);
    if (result == 0) {
        result = q2_inflated_init(q);
    }
    return result < 0 ? result : read_tables(q, why);
}

struct by_qcow2 *by_qcow2_open(const struct by_qcow2_settings *settings,
                               uintptr_t file, uintptr_t data,
                               uintptr_t backing, uint64_t tag, int *error,
                               char *why)
{
    struct by_qcow2 *q = calloc(1, sizeof(*q));

    if (!q) {
        *error = -ENOMEM;
        return NULL;
    }
    pthread_mutex_init(&q->meta, NULL);
    pthread_mutex_init(&q->lock, NULL);
    pthread_cond_init(&q->loaded, NULL);
    q2_keeper_init(q);
    q->tag = tag;
    by_qcow2_set_children(q, file, data, backing);
    pthread_mutex_lock(&q->meta);
    *error = load(q, settings, why);
    pthread_mutex_unlock(&q->meta);
    if (*error < 0) {
        by_qcow2_free(q);
        return NULL;
    }
    return q;
}

void by_qcow2_free(struct by_qcow2 *q)
{
    q2_keeper_end(q);
    forget_tables(q);
    q2_inflated_free(q);
    if (q->l2.hash) {
        q2_cache_free(&q->l2);
    }
    if (q->rb.hash) {
        q2_cache_free(&q->rb);
    }
    free(q->freed);
    pthread_cond_destroy(&q->loaded);
    pthread_mutex_destroy(&q->lock);
    pthread_mutex_destroy(&q->meta);
    free(q);
}

int by_qcow2_reload(struct by_qcow2 *q,
                    const struct by_qcow2_settings *settings, char *why)
{
    int result;

    pthread_mutex_lock(&q->meta);
    q2_cache_drop_all(q, &q->l2);
    q2_cache_drop_all(q, &q->rb);
    q2_cache_free(&q->l2);
    q2_cache_free(&q->rb);
    q2_inflated_free(q);
    forget_tables(q);
    q->nfreed = 0;
    q->compressed_at = 0;
    result = load(q, settings, why);
    pthread_mutex_unlock(&q->meta);
    return result;
}

/* Nothing is dirty, no requests. */
static int reshape_caches(struct by_qcow2 *q,
                          const struct by_qcow2_settings *set)
{
    int result = q2_cache_reshape(q, &q->l2, set->l2_slice_bytes,
                                  set->l2_cache_bytes);

    if (result == 0) {
        q->set.l2_slice_bytes = set->l2_slice_bytes;
        q->l2_slice_entries = set->l2_slice_bytes / q->entry_bytes;
        result = q2_cache_reshape(q, &q->rb, q->rb.slice_bytes,
                                  set->refcount_cache_bytes);
    }
    return result;
}

int by_qcow2_reconfigure(struct by_qcow2 *q,
                         const struct by_qcow2_settings *settings)
{
    struct by_qcow2_settings set = q->set;
    int result = 0;

    set.l2_slice_bytes = settings->l2_slice_bytes;
    set.l2_cache_bytes = settings->l2_cache_bytes;
    set.refcount_cache_bytes = settings->refcount_cache_bytes;
    set.overlap = settings->overlap;
    set.pass_discard = settings->pass_discard;
    set.discard_no_unref = settings->discard_no_unref;
    set.lazy_refcounts = settings->lazy_refcounts;
    set.read_only = settings->read_only;
    if (!are_sane(&set)) {
        return -EINVAL;
    }
    pthread_mutex_lock(&q->meta);
    if (q->l2.ndirty || q->rb.ndirty || q->nfreed) {
        result = q2_settle(q);
    }
    if (result == 0 && (set.l2_slice_bytes != q->set.l2_slice_bytes
                        || set.l2_cache_bytes != q->set.l2_cache_bytes
                        || set.refcount_cache_bytes
                           != q->set.refcount_cache_bytes)) {
        result = reshape_caches(q, &set);
    }
    if (result == 0) {
        set.incompatible = q->set.incompatible;
        q->set = set;
    }
    pthread_mutex_unlock(&q->meta);
    return result;
}
