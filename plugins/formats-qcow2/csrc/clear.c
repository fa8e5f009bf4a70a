/* SPDX-License-Identifier: Apache-2.0 */
/* clear.c - guest clusters that come to refer to nothing. */
#include <errno.h>
#include <stdlib.h>

#include "tables.h"

struct clear {
    bool zero;
    enum by_qcow2_discard why;
};

static int clear_entry(struct by_qcow2 *q, const struct q2_at *at,
                       uint64_t *entry, uint64_t *bitmap)
{
    const struct clear *clear = at->owner;
    bool extended = q->set.extended_l2;
    uint64_t made = clear->zero && !extended ? Q2_ZERO : 0;
    uint64_t bits = clear->zero && extended ? ~0ull << 32 : 0;
    uint64_t offset, bytes;
    int result;

    if (*entry == made && *bitmap == bits) {
        return 0;
    }
    result = q2_entry_refs(q, at, *entry, &offset, &bytes);
    if (result < 0) {
        return result;
    }
    pthread_mutex_lock(&q->lock);
    if (bytes) {
        q2_free(q, offset, bytes, clear->why);
    }
    pthread_mutex_unlock(&q->lock);
    *entry = made;
    *bitmap = bits;
    return 1;
}

/* A whole table goes, and what it refers to. */
static int clear_table(struct by_qcow2 *q, uint32_t l1_index,
                       enum by_qcow2_discard why)
{
    uint64_t l2 = q->l1[l1_index] & Q2_OFFSET_MASK;
    struct q2_refs refs;
    int result = q2_l2_refs(q, l2, &refs);

    if (result < 0) {
        return result;
    }
    q2_l1_set(q, l1_index, 0);
    if (q->set.data_file) { /* its references end at once */
        result = q2_sync(q);
    }
    pthread_mutex_lock(&q->lock);
    for (uint32_t i = 0; i < refs.n; i++) {
        q2_free(q, refs.runs[i].cluster << q->cluster_bits,
                refs.runs[i].count << q->cluster_bits, why);
    }
    pthread_mutex_unlock(&q->lock);
    free(refs.runs);
    return result < 0 ? result
        : q2_drop_table(q, l2, q->cluster_size, BY_QCOW2_OL_ACTIVE_L2, why);
}

int q2_clear(struct by_qcow2 *q, uint64_t first, uint64_t count, bool zero,
             enum by_qcow2_discard why)
{
    struct clear clear = { .zero = zero, .why = why };
    uint64_t per = 1ull << q->l2_bits, end = first + count;
    int result = 0;

    if (zero && q->set.version < 3) {
        return -ENOTSUP;
    }
    while (first < end && result == 0) {
        uint64_t index = first >> q->l2_bits, in = first & (per - 1);
        uint64_t n = end - first < per - in ? end - first : per - in;

        if (index >= q->l1_size) {
            return zero ? -EINVAL : 0;
        }
        first += n;
        if (!(q->l1[index] & Q2_OFFSET_MASK) && !zero) {
            continue;
        }
        result = q2_l1_entry_check(q, q->l1[index], index);
        if (result == 0 && n == per && !zero) {
            result = clear_table(q, index, why);
            continue;
        }
        if (result == 0) {
            result = q2_l2_make(q, index);
        }
        if (result == 0) {
            result = q2_l2_each(q, q->l1[index] & Q2_OFFSET_MASK, in, n,
                                clear_entry, &clear);
        }
    }
    return result;
}

int by_qcow2_make_empty(struct by_qcow2 *q, char *why)
{
    uint64_t clusters = q2_cluster(q, q->size + q->cluster_size - 1);
    int result;

    why[0] = 0;
    pthread_mutex_lock(&q->meta);
    result = q2_clear(q, 0, clusters, false, BY_QCOW2_DISCARD_ALWAYS);
    if (result == 0) {
        result = q2_sync(q);
    }
    pthread_mutex_unlock(&q->meta);
    return result;
}
