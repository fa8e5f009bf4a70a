/* SPDX-License-Identifier: Apache-2.0 */
/*
 * l1_grow.c - another L1 table for the disk, larger or with other entries.
 *
 * It is written to new clusters; one write of the header, within a sector,
 * changes over.  A power cut leaves one table or the other, and clusters that
 * nobody refers to.
 */
#include <errno.h>
#include <stdlib.h>

#include "tables.h"

/* Write the table to new clusters; it is stable at the end. */
static int place(struct by_qcow2 *q, const uint64_t *l1, uint32_t entries,
                 uint64_t *offset)
{
    uint64_t bytes = q2_table_bytes(q, entries);
    int result;

    *offset = 0;
    if (!entries) {
        return q2_sync(q);
    }
    q2_event(q, BY_DEBUG_L1_GROW_ALLOC_TABLE);
    result = q2_alloc_wait(q, bytes, offset);
    if (result < 0) {
        return result;
    }
    q2_event(q, BY_DEBUG_L1_GROW_WRITE_TABLE);
    result = q2_table_write(q, 0, *offset, l1, entries);
    if (result == 0) {
        result = q2_sync(q);
    }
    if (result == 0) {
        pthread_mutex_lock(&q->lock);
        result = q2_map_add(q, *offset, bytes, BY_QCOW2_OL_ACTIVE_L1);
        pthread_mutex_unlock(&q->lock);
    }
    if (result < 0) {
        (void)q2_refcount_add(q, q2_cluster(q, *offset),
                              q2_cluster(q, bytes), -1);
    }
    return result;
}

/* The fields from the size (or, with the same size, L1's) to L1's offset. */
static int change_over(struct by_qcow2 *q, uint64_t offset, uint32_t entries,
                       uint64_t size)
{
    unsigned char fields[24];
    uint32_t skip = size == q->size ? 12 : 0;
    int result;

    q2_put64(fields, size);
    q2_put32(fields + 8, q->set.crypt_method);
    q2_put32(fields + 12, entries);
    q2_put64(fields + 16, offset);
    q2_event(q, BY_DEBUG_L1_GROW_ACTIVATE_TABLE);
    result = q2_header_put(q, Q2_AT_SIZE + skip, fields + skip,
                           sizeof(fields) - skip);
    return result < 0 ? result : q2_barrier(q);
}

static int replace(struct by_qcow2 *q, uint64_t *l1, uint32_t entries,
                   uint64_t size, bool *tried)
{
    uint64_t *old = q->l1;
    uint64_t old_offset = q->l1_offset, offset;
    uint32_t old_size = q->l1_size;
    int result = place(q, l1, entries, &offset);

    if (result < 0) {
        return result;
    }
    /* Should this fail it may yet be on the disk: the clusters stay. */
    *tried = true;
    result = change_over(q, offset, entries, size);
    if (result < 0) {
        return result;
    }
    pthread_mutex_lock(&q->lock);
    q->l1 = l1;
    q->l1_size = entries;
    q->l1_offset = offset;
    q->l1_dirty_from = q->l1_dirty_to = 0;
    q->size = size;
    q->l1_guest = q2_l1_entries(q, size);
    q->set.l1_offset = offset;
    q->set.l1_size = entries;
    q->set.size = size;
    pthread_mutex_unlock(&q->lock);
    free(old);
    return old_size ? q2_drop_table(q, old_offset, (uint64_t)old_size * 8,
                                    BY_QCOW2_OL_ACTIVE_L1,
                                    BY_QCOW2_DISCARD_OTHER) : 0;
}

int q2_l1_switch(struct by_qcow2 *q, uint64_t *l1, uint32_t entries,
                 uint64_t size, bool *tried)
{
    int result = q2_sync(q);

    *tried = false;
    if (result == 0) {
        result = replace(q, l1, entries, size, tried);
    }
    return result;
}

int q2_l1_grow(struct by_qcow2 *q, uint64_t entries, char *why)
{
    const char *text = "Failed to grow the L1 table";
    uint64_t *l1;
    bool tried;
    int result;

    if (entries <= q->l1_size) {
        return 0;
    }
    if (entries > Q2_MAX_L1_BYTES / 8) {
        return q2_say(why, -EFBIG, "%s", text);
    }
    l1 = calloc(entries, 8);
    if (!l1) {
        return q2_say(why, -ENOMEM, "%s", text);
    }
    result = q2_sync(q); /* what L1 refers to is there when L1 is */
    if (result == 0) {
        memcpy(l1, q->l1, (uint64_t)q->l1_size * 8);
        result = replace(q, l1, entries, q->size, &tried);
        if (q->l1 == l1) {
            return result;
        }
    }
    free(l1);
    return q2_say(why, result, "%s", text);
}
