/* SPDX-License-Identifier: Apache-2.0 */
/* check_count.c - all references that an image has to its clusters. */
#include <errno.h>

#include "check.h"

/* Metadata, before any of it is repaired: it is not to be written over. */
static int mark(struct q2_check *check)
{
    const struct by_qcow2 *q = check->q;
    const struct by_qcow2_settings *set = &q->set;
    int result = q2_check_mark(check, 0, q->cluster_size);

    if (result == 0) {
        result = q2_check_mark(check, set->l1_offset, set->l1_size * 8ull);
    }
    if (result == 0) {
        result = q2_check_mark(check, set->reftable_offset,
                               check->reftable_size * 8);
    }
    for (uint64_t i = 0; i < check->reftable_size && result == 0; i++) {
        uint64_t offset = check->reftable[i] & Q2_REFT_OFFSET_MASK;

        if (offset) {
            result = q2_check_mark(check, offset, q->cluster_size);
        }
    }
    for (uint32_t i = 0; i < check->nsnapshots && result == 0; i++) {
        result = q2_check_mark(check, check->snapshots[i].l1_offset,
                               check->snapshots[i].l1_size * 8ull);
    }
    if (result == 0) {
        result = q2_check_mark(check, set->snapshots_offset,
                               check->snapshots_bytes);
    }
    if (result == 0 && set->bitmaps_offset) {
        result = q2_check_mark(check, set->bitmaps_offset, set->bitmaps_bytes);
    }
    if (result == 0 && set->crypto_offset) {
        result = q2_check_mark(check, set->crypto_offset, set->crypto_bytes);
    }
    return result;
}

static int one_snapshot(struct q2_check *check,
                        const struct q2_snapshot_entry *entry)
{
    const unsigned char *id = entry->bytes + 40 + entry->extra;
    const unsigned char *name = id + entry->id_bytes;
    int id_bytes = entry->id_bytes < 1024 ? (int)entry->id_bytes : 1024;
    int name_bytes = entry->name_bytes < 1024 ? (int)entry->name_bytes : 1024;

    if (q2_in_cluster(check->q, entry->l1_offset)) {
        q2_tell(check, "ERROR snapshot %.*s (%.*s) l1_offset=%#lx: L1 table is "
                "not cluster aligned; snapshot table entry corrupted\n",
                id_bytes, (const char *)id, name_bytes, (const char *)name,
                (unsigned long)entry->l1_offset);
        check->out->corruptions++;
        return 0;
    }
    if (entry->l1_size > Q2_MAX_L1_BYTES / 8) {
        q2_tell(check, "ERROR snapshot %.*s (%.*s) l1_size=%#x: L1 table is "
                "too large; snapshot table entry corrupted\n",
                id_bytes, (const char *)id, name_bytes, (const char *)name,
                entry->l1_size);
        check->out->corruptions++;
        return 0;
    }
    return q2_check_l1(check, entry->l1_offset, entry->l1_size, false);
}

static int all_snapshots(struct q2_check *check)
{
    int result = 0;

    if (check->q->set.data_file && check->nsnapshots) {
        q2_tell(check, "ERROR %d snapshots in image with data file\n",
                (int)check->nsnapshots);
        check->out->corruptions++;
    }
    for (uint32_t i = 0; i < check->nsnapshots && result == 0; i++) {
        result = q2_check_cancelled(check)
               ? -ECANCELED
               : one_snapshot(check, &check->snapshots[i]);
    }
    return result;
}

static int tables(struct q2_check *check)
{
    const struct by_qcow2_settings *set = &check->q->set;
    int result = q2_check_add(check, 0, check->q->cluster_size, 1);

    if (result == 0) {
        result = q2_check_l1(check, set->l1_offset, set->l1_size, true);
    }
    if (result == 0) {
        result = all_snapshots(check);
    }
    if (result == 0) {
        result = q2_check_shared_l2(check);
    }
    if (result == 0) {
        result = q2_check_add(check, set->snapshots_offset,
                              check->snapshots_bytes, 1);
    }
    return result;
}

int q2_check_count(struct q2_check *check)
{
    const struct by_qcow2_settings *set = &check->q->set;
    int result;

    q2_counts_free(&check->counts);
    q2_seen_free(&check->seen);
    q2_check_measure(check);
    check->out->allocated_clusters = 0;
    check->out->fragmented_clusters = 0;
    check->out->compressed_clusters = 0;
    check->copied_wrong = false;
    result = q2_counts_init(&check->counts, check->q->refcount_order);
    if (result == 0) {
        result = q2_check_load_reftable(check);
    }
    if (result == 0) {
        result = mark(check);
    }
    if (result == 0) {
        result = tables(check);
    }
    if (result == 0 && set->crypto_offset) {
        result = q2_check_add(check, set->crypto_offset, set->crypto_bytes, 1);
    }
    if (result == 0) {
        result = q2_check_bitmaps(check);
    }
    if (result == 0) {
        result = q2_check_add(check, set->reftable_offset,
                              check->reftable_size * 8, 1);
    }
    return result == 0 ? q2_check_refblocks(check) : result;
}
