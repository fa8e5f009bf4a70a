/* SPDX-License-Identifier: Apache-2.0 */
/* check_l1.c - an L1 table and the L2 tables it refers to. */
#include <errno.h>
#include <stdlib.h>

#include "check.h"

/* The tables that are visited now: those met for the first time. */
static int choose(struct q2_check *check, const uint64_t *l1, uint32_t size,
                  bool active, uint64_t *list, uint64_t *count)
{
    uint64_t n = 0;

    for (uint32_t i = 0; i < size; i++) {
        uint64_t offset = be64toh(l1[i]) & Q2_OFFSET_MASK;
        int first = offset ? q2_seen_add(&check->seen, offset, active) : 0;

        if (first < 0) {
            return first;
        }
        if (first && offset < check->file_bytes) {
            list[n++] = offset; /* what is behind the end has no entries */
        }
    }
    *count = n;
    q2_check_steps(check, n);
    return 0;
}

static int one_entry(struct q2_check *check, uint64_t entry, bool active)
{
    uint64_t offset = entry & Q2_OFFSET_MASK;
    int result;

    if (entry & Q2_L1_RESERVED) {
        q2_tell(check, "ERROR found L1 entry with reserved bits set: %lx\n",
                (unsigned long)entry);
        check->out->corruptions++;
    }
    if (!offset) {
        check->copied_wrong |= active && entry & Q2_COPIED;
        return 0;
    }
    result = q2_check_add(check, offset, check->q->cluster_size, 1);
    if (q2_in_cluster(check->q, offset)) {
        q2_tell(check, "ERROR l2_offset=%lx: Table is not cluster aligned; L1 "
                "entry corrupted\n", (unsigned long)offset);
        check->out->corruptions++;
    }
    if (result == 0 && active) {
        result = q2_check_flag(check, offset, entry & Q2_COPIED);
    }
    return result;
}

static int next_table(struct q2_check *check, struct q2_reader *reader,
                      uint64_t offset, uint64_t times, bool active)
{
    unsigned char *table;
    int result = q2_reader_next(reader, &table);

    if (result < 0) {
        q2_tell(check, "ERROR: I/O error in check_refcounts_l2\n");
        check->out->check_errors++;
        return result;
    }
    q2_check_step(check);
    if (q2_check_cancelled(check)) {
        return -ECANCELED;
    }
    return q2_check_l2(check, table, offset, times, active);
}

static int walk(struct q2_check *check, const uint64_t *l1, uint32_t size,
                bool active)
{
    uint64_t *list = malloc(((uint64_t)size + 1) * sizeof(*list));
    uint64_t count = 0, at = 0;
    struct q2_reader *reader = NULL;
    int result = -ENOMEM;

    if (list) {
        result = choose(check, l1, size, active, list, &count);
    }
    if (result == 0) {
        reader = q2_reader_begin(check->q, list, count);
        result = reader ? 0 : -ENOMEM;
    }
    for (uint32_t i = 0; i < size && result == 0; i++) {
        uint64_t entry = be64toh(l1[i]);

        if (!entry) {
            continue;
        }
        result = one_entry(check, entry, active);
        if (result == 0 && at < count && list[at] == (entry & Q2_OFFSET_MASK)) {
            result = next_table(check, reader, list[at], 1, active);
            at++;
        }
    }
    if (reader) {
        q2_reader_end(reader);
    }
    free(list);
    return result;
}

int q2_check_l1(struct q2_check *check, uint64_t offset, uint32_t size,
                bool active)
{
    uint64_t bytes = (uint64_t)size * 8;
    uint64_t *l1;
    int result;

    if (!size) {
        return 0;
    }
    if (bytes > Q2_MAX_L1_BYTES) {
        return -EFBIG;
    }
    result = q2_check_add(check, offset, bytes, 1);
    l1 = malloc(bytes);
    if (result < 0 || !l1) {
        free(l1);
        return result < 0 ? result : -ENOMEM;
    }
    result = q2_pread(check->q, offset, l1, bytes);
    if (result < 0) {
        q2_tell(check, "ERROR: I/O error in check_refcounts_l1\n");
        check->out->check_errors++;
    } else {
        result = walk(check, l1, size, active);
    }
    if (active && result == 0) {
        free(check->l1);
        check->l1 = l1;
        check->l1_size = size;
    } else {
        free(l1);
    }
    return result;
}

static int by_offset(const void *a, const void *b)
{
    const struct q2_seen_table *x = a, *y = b;

    return x->offset < y->offset ? -1 : x->offset > y->offset;
}

/* All further references of a table; guest clusters that several entries of
 * the active table map count for each of them. */
static int one_shared(struct q2_check *check, struct q2_reader *reader,
                      const struct q2_seen_table *table)
{
    struct by_qcow2_check_result was = *check->out, *now = check->out;
    int result = next_table(check, reader, table->offset, table->more,
                            table->active > 0);

    now->allocated_clusters = was.allocated_clusters + table->active
        * (now->allocated_clusters - was.allocated_clusters);
    now->fragmented_clusters = was.fragmented_clusters + table->active
        * (now->fragmented_clusters - was.fragmented_clusters);
    now->compressed_clusters = was.compressed_clusters + table->active
        * (now->compressed_clusters - was.compressed_clusters);
    return result;
}

static int shared(struct q2_check *check, struct q2_seen_table *tables,
                  uint64_t *offsets)
{
    struct q2_reader *reader;
    uint64_t n = 0;
    int result = 0;

    for (uint64_t i = 0; i <= check->seen.mask; i++) {
        struct q2_seen_table *table = &check->seen.tables[i];

        if (table->more && table->offset < check->file_bytes) {
            tables[n++] = *table;
        }
    }
    qsort(tables, n, sizeof(*tables), by_offset);
    for (uint64_t i = 0; i < n; i++) {
        offsets[i] = tables[i].offset;
    }
    q2_check_steps(check, n);
    reader = q2_reader_begin(check->q, offsets, n);
    if (!reader) {
        return -ENOMEM;
    }
    for (uint64_t i = 0; i < n && result == 0; i++) {
        result = one_shared(check, reader, &tables[i]);
    }
    q2_reader_end(reader);
    return result;
}

/* The references of tables that were met more than once. */
int q2_check_shared_l2(struct q2_check *check)
{
    uint64_t count = check->seen.count;
    struct q2_seen_table *tables;
    uint64_t *offsets;
    int result = -ENOMEM;

    if (!count) {
        return 0;
    }
    tables = malloc(count * sizeof(*tables));
    offsets = malloc(count * sizeof(*offsets));
    if (tables && offsets) {
        result = shared(check, tables, offsets);
    }
    free(tables);
    free(offsets);
    return result;
}
