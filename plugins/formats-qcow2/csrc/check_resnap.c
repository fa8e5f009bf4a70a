/* SPDX-License-Identifier: Apache-2.0 */
/*
 * check_resnap.c - a new snapshot table in place of one that was incomplete
 * or too long.  The header names it when all of it is on stable storage.
 */
#include <errno.h>
#include <stdlib.h>

#include "check.h"

enum { FIXED = 40, EXTRA = 24 };

static uint64_t entry_bytes(const struct q2_snapshot_entry *entry)
{
    uint64_t extra = entry->extra > EXTRA ? entry->extra : EXTRA;

    return (FIXED + extra + entry->id_bytes + entry->name_bytes + 7) & ~7ull;
}

/* The entry with all extra data that is known; `to` is zeroes. */
static void write_entry(const struct q2_check *check, unsigned char *to,
                        const struct q2_snapshot_entry *entry)
{
    uint32_t extra = entry->extra > EXTRA ? entry->extra : EXTRA;

    memcpy(to, entry->bytes, FIXED + entry->extra);
    q2_put32(to + 36, extra);
    if (entry->extra < 8) {
        q2_put64(to + 40, q2_be32(to + 32)); /* bytes of the VM's state */
    }
    if (entry->extra < 16) {
        q2_put64(to + 48, check->q->size);
    }
    if (entry->extra < 24) {
        q2_put64(to + 56, UINT64_MAX); /* no instruction count */
    }
    memcpy(to + FIXED + extra, entry->bytes + FIXED + entry->extra,
           entry->id_bytes + entry->name_bytes);
}

static int put_header(struct q2_check *check, uint64_t offset)
{
    struct by_qcow2_settings *set = &check->q->set;
    unsigned char fields[12];
    int result;

    q2_put32(fields, check->nsnapshots);
    q2_put64(fields + 4, offset);
    result = q2_barrier(check->q);
    if (result == 0) {
        result = q2_check_put(check, Q2_AT_NB_SNAPSHOTS, fields,
                              sizeof(fields));
    }
    if (result == 0) {
        result = q2_barrier(check->q);
    }
    if (result == 0) {
        set->snapshots = check->nsnapshots;
        set->snapshots_offset = offset;
    }
    return result;
}

/* The old table's clusters lose a reference. */
static int let_go(struct q2_check *check, uint64_t offset)
{
    uint64_t first = q2_cluster(check->q, offset), last, refcount;
    int result = 0;

    if (!check->snapshots_bytes) {
        return 0;
    }
    last = q2_cluster(check->q, offset + check->snapshots_bytes - 1);
    for (uint64_t i = first; i <= last && result == 0; i++) {
        if (i < check->clusters
            && q2_check_refcount(check, i, &refcount) == 0 && refcount) {
            result = q2_check_put_refcount(check, i, refcount - 1);
        }
    }
    return result;
}

/* Clusters that have a refcount block. */
static int find_place(struct q2_check *check, uint64_t clusters, uint64_t *at)
{
    uint32_t bits = check->q->refblock_bits;
    uint64_t from = 1, most = (uint64_t)INT64_MAX >> check->q->cluster_bits;

    for (;;) {
        uint64_t first = q2_check_find_free(check, from, clusters);
        uint64_t last = first + clusters - 1, entry = first >> bits;

        while (entry <= last >> bits && entry < check->reftable_size
               && check->reftable[entry] & Q2_REFT_OFFSET_MASK) {
            entry++;
        }
        if (entry > last >> bits) {
            *at = first;
            return 0;
        }
        if (entry >= check->reftable_size || last > most) {
            return -ENOSPC;
        }
        from = (entry + 1) << bits;
    }
}

static int write_table(struct q2_check *check, uint64_t bytes)
{
    uint64_t clusters = (bytes + check->q->cluster_size - 1)
                      >> check->q->cluster_bits;
    unsigned char *table = calloc(1, bytes);
    uint64_t first, at = 0, offset;
    int result = table ? find_place(check, clusters, &first) : -ENOMEM;

    if (result == 0) {
        offset = first << check->q->cluster_bits;
        result = q2_check_extend(check, offset
                                 + (clusters << check->q->cluster_bits));
    }
    for (uint64_t i = 0; i < clusters && result == 0; i++) {
        result = q2_check_put_refcount(check, first + i, 1);
        if (first + i > check->highest) {
            check->highest = first + i;
        }
    }
    for (uint32_t i = 0; i < check->nsnapshots && result == 0; i++) {
        write_entry(check, table + at, &check->snapshots[i]);
        at += entry_bytes(&check->snapshots[i]);
    }
    if (result == 0) {
        result = q2_check_put(check, offset, table, bytes);
    }
    if (result == 0) {
        result = put_header(check, offset);
    }
    free(table);
    return result;
}

int q2_check_write_snapshots(struct q2_check *check)
{
    struct by_qcow2_check_result *out = check->out;
    uint64_t old = check->q->set.snapshots_offset, bytes = 0;
    int result;

    if (!check->snapshots_wrong || !(check->fix & BY_QCOW2_FIX_ERRORS)) {
        return 0;
    }
    for (uint32_t i = 0; i < check->nsnapshots; i++) {
        bytes += entry_bytes(&check->snapshots[i]);
    }
    result = bytes ? write_table(check, bytes) : put_header(check, 0);
    if (result == 0) {
        result = let_go(check, old);
    }
    if (result < 0) {
        q2_tell(check, "ERROR failed to update snapshot table: %s\n",
                strerror(-result));
        out->check_errors++;
        return result;
    }
    out->corruptions -= check->snapshots_wrong;
    out->corruptions_fixed += check->snapshots_wrong;
    return 0;
}
