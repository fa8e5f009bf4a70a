/* SPDX-License-Identifier: Apache-2.0 */
/* tables.c - what all table work needs: sentences, tables as arrays, the end
 * of references, and the mark of steps that are not one. */
#define _GNU_SOURCE /* strerror_r that answers the text */
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "tables.h"

int q2_say(char *why, int error, const char *format, ...)
{
    va_list args;
    int n;

    if (!why) {
        return error;
    }
    va_start(args, format);
    n = vsnprintf(why, Q2_WHY, format, args);
    va_end(args);
    if (error < 0 && n >= 0 && n < Q2_WHY) {
        char text[128];

        snprintf(why + n, Q2_WHY - n, ": %s",
                 strerror_r(-error, text, sizeof(text)));
    }
    return error;
}

int q2_table_check(const struct by_qcow2 *q, uint64_t offset, uint64_t entries,
                   uint64_t max_bytes, const char *name, char *why)
{
    if (entries > max_bytes / 8) {
        q2_say(why, 0, "%s too large", name);
        return -EFBIG;
    }
    if (q2_in_cluster(q, offset)
        || !by_range_ok(offset, entries * 8, INT64_MAX)) {
        q2_say(why, 0, "%s offset invalid", name);
        return -EINVAL;
    }
    return 0;
}

uint64_t q2_table_bytes(const struct by_qcow2 *q, uint64_t entries)
{
    return (entries * 8 + q->cluster_size - 1) & ~(q->cluster_size - 1);
}

uint64_t q2_l1_entries(const struct by_qcow2 *q, uint64_t bytes)
{
    uint32_t bits = q->cluster_bits + q->l2_bits;

    return (bytes >> bits) + ((bytes & ((1ull << bits) - 1)) != 0);
}

uint64_t *q2_table_read(struct by_qcow2 *q, uint64_t offset, uint64_t entries,
                        uint64_t room, int *error)
{
    uint64_t *table;

    if (room < entries) {
        room = entries;
    }
    table = calloc(room ? room : 1, 8);
    *error = table ? q2_pread(q, offset, table, entries * 8) : -ENOMEM;
    if (*error < 0) {
        free(table);
        return NULL;
    }
    for (uint64_t i = 0; i < entries; i++) {
        table[i] = be64toh(table[i]);
    }
    return table;
}

int q2_table_write(struct by_qcow2 *q, uint32_t ignore, uint64_t offset,
                   const uint64_t *entries, uint64_t count)
{
    uint64_t bytes = q2_table_bytes(q, count);
    uint64_t *table;
    int result;

    if (!count) {
        return 0;
    }
    table = calloc(1, bytes);
    if (!table) {
        return -ENOMEM;
    }
    for (uint64_t i = 0; i < count; i++) {
        table[i] = htobe64(entries[i]);
    }
    pthread_mutex_lock(&q->lock);
    result = q2_overlap_check(q, ignore, offset, bytes);
    pthread_mutex_unlock(&q->lock);
    if (result == 0) {
        result = q2_pwrite(q, offset, table, bytes);
    }
    free(table);
    return result;
}

int q2_drop(struct by_qcow2 *q, uint64_t offset, uint64_t bytes,
            enum by_qcow2_discard why)
{
    if (!bytes) {
        return 0;
    }
    if (q->set.data_file) {
        return q2_refcount_add(q, q2_cluster(q, offset),
                               q2_cluster(q, bytes - 1) + 1, -1);
    }
    pthread_mutex_lock(&q->lock);
    q2_free(q, offset, bytes, why);
    pthread_mutex_unlock(&q->lock);
    return 0;
}

int q2_drop_table(struct by_qcow2 *q, uint64_t offset, uint64_t bytes,
                  uint32_t overlap, enum by_qcow2_discard why)
{
    bytes = (bytes + q->cluster_size - 1) & ~(q->cluster_size - 1);
    pthread_mutex_lock(&q->lock);
    q2_map_remove(q, offset, bytes, overlap);
    pthread_mutex_unlock(&q->lock);
    return q2_drop(q, offset, bytes, why);
}

int q2_unsure_begin(struct by_qcow2 *q, struct q2_unsure *unsure)
{
    unsure->marked = q->set.version >= 3
        && !(q->set.incompatible & Q2_INCOMPAT_DIRTY);
    return unsure->marked ? q2_incompatible(q, Q2_INCOMPAT_DIRTY, 0) : 0;
}

int q2_unsure_end(struct by_qcow2 *q, struct q2_unsure *unsure, int result)
{
    int end = 0;

    if (unsure->marked && result == 0 && !q->dirty_bit) {
        end = q2_incompatible(q, 0, Q2_INCOMPAT_DIRTY);
    }
    return result < 0 ? result : end;
}
