/* SPDX-License-Identifier: Apache-2.0 */
/* change_link.c - what was written becomes what the disk shows. */
#include "change.h"

/* The subclusters of cluster `i` that the host holds now. */
static uint32_t written_bits(const struct q2_change *c, uint64_t i)
{
    const struct by_qcow2 *q = c->q;
    uint64_t start = (c->alloc.first + i) << q->cluster_bits;
    uint64_t end = start + q->cluster_size;
    uint64_t from = c->from > start ? c->from : start;
    uint64_t to = c->to < end ? c->to : end;
    uint32_t first = (from - start) >> q->subcluster_bits;
    uint32_t last = (to - 1 - start) >> q->subcluster_bits;

    return (last == 31 ? ~0u : (2u << last) - 1) & ~((1u << first) - 1);
}

static void link_bitmap(struct q2_change *c, uint64_t i, unsigned char *at,
                        uint64_t old)
{
    uint32_t bits = written_bits(c, i);
    uint64_t bitmap = old & Q2_COMPRESSED ? 0 : q2_be64(at + 8);

    q2_put64(at + 8, (bitmap | bits) & ~((uint64_t)bits << 32));
}

void q2_change_link(struct q2_change *c)
{
    struct by_qcow2 *q = c->q;

    for (uint64_t i = 0; i < c->alloc.count; i++) {
        unsigned char *at = c->slice->table
            + (uint64_t)(c->index + i) * q->entry_bytes;
        uint64_t old = q2_be64(at);

        q2_put64(at, (c->host + (i << q->cluster_bits)) | Q2_COPIED);
        if (q->set.extended_l2) {
            link_bitmap(c, i, at, old);
        }
        if (!c->reuse && !q->set.data_file) {
            q2_free_entry(q, old, BY_QCOW2_DISCARD_NEVER);
        }
    }
    q->barrier = true;
    q2_cache_dirty(&q->l2, c->slice);
}
