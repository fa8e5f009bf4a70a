/* SPDX-License-Identifier: Apache-2.0 */
/* check_add.c - counting what refers to a host cluster. */
#include <errno.h>

#include "check.h"

enum {
    SAID = 1000,                /* times that one sentence is said at most */
    OUTSIDE = 1 << 20,          /* granules kept of what is outside */
};

void q2_check_measure(struct q2_check *check)
{
    uint64_t bytes = by_node_length(check->q->file);

    check->file_bytes = (bytes + Q2_SECTOR - 1) & ~(uint64_t)(Q2_SECTOR - 1);
    check->clusters = check->file_bytes >> check->q->cluster_bits;
    if (q2_in_cluster(check->q, check->file_bytes)) {
        check->clusters++;
    }
}

/* Behind the file's end by a cluster or more: nothing can be there. */
static bool is_outside(const struct q2_check *check, uint64_t offset,
                       uint64_t bytes)
{
    uint64_t limit = check->file_bytes + check->q->cluster_size;

    return bytes >= limit || offset >= limit - bytes;
}

/* Best effort: a table may well claim more than can be kept. */
static void note_outside(struct q2_check *check, uint64_t offset, uint64_t bytes)
{
    struct q2_counts *outside = &check->outside;
    uint64_t first = q2_cluster(check->q, offset);
    uint64_t last = bytes - 1 > UINT64_MAX - offset
                  ? first : q2_cluster(check->q, offset + bytes - 1);

    if (!check->fix) {
        return;
    }
    if (!outside->hash && q2_counts_init(outside, 0) < 0) {
        check->outside_unknown = true;
        return;
    }
    for (uint64_t i = first; i <= last; i++) {
        struct q2_granule *granule =
            outside->count < OUTSIDE
            ? q2_counts_make(outside, i >> Q2_GRANULE_BITS) : NULL;

        if (!granule) {
            check->outside_unknown = true;
            return;
        }
        q2_packed_put(granule->refs, 0, i % Q2_GRANULE, 1);
    }
}

static void overflow(struct q2_check *check, uint64_t cluster, uint64_t times)
{
    check->out->corruptions += times;
    for (uint64_t i = 0; i < times && i < SAID; i++) {
        q2_tell(check, "ERROR: overflow cluster offset=0x%lx\n",
                (unsigned long)(cluster << check->q->cluster_bits));
        q2_tell(check, "Use qemu-img amend to increase the refcount entry width"
                " or qemu-img convert to create a clean copy if the image "
                "cannot be opened for writing\n");
    }
}

static int count_one(struct q2_check *check, uint64_t cluster, uint64_t times)
{
    struct q2_counts *counts = &check->counts;
    struct q2_granule *granule;
    uint64_t value, room;

    granule = q2_counts_make(counts, cluster >> Q2_GRANULE_BITS);
    if (!granule) {
        return -ENOMEM;
    }
    cluster %= Q2_GRANULE;
    value = q2_packed_get(granule->refs, counts->order, cluster);
    room = counts->max - value;
    q2_packed_put(granule->refs, counts->order, cluster,
                  value + (times < room ? times : room));
    if (times > room) {
        overflow(check, granule->index * Q2_GRANULE + cluster, times - room);
    }
    return 0;
}

int q2_check_add(struct q2_check *check, uint64_t offset, uint64_t bytes,
                 uint64_t times)
{
    uint64_t first, last;
    int result = 0;

    if (!bytes) {
        return 0;
    }
    if (is_outside(check, offset, bytes)) {
        note_outside(check, offset, bytes);
        check->out->corruptions += times;
        for (uint64_t i = 0; i < times && i < SAID; i++) {
            q2_tell(check, "ERROR: counting reference for region exceeding the "
                    "end of the file by one cluster or more: offset 0x%lx size "
                    "0x%lx\n", (unsigned long)offset, (unsigned long)bytes);
        }
        return 0;
    }
    first = q2_cluster(check->q, offset);
    last = q2_cluster(check->q, offset + bytes - 1);
    if (last >= check->clusters) {
        check->clusters = last + 1;
    }
    for (uint64_t cluster = first; cluster <= last && result == 0; cluster++) {
        result = count_one(check, cluster, times);
    }
    return result;
}

int q2_check_mark(struct q2_check *check, uint64_t offset, uint64_t bytes)
{
    uint64_t first, last;

    if (!bytes) {
        return 0;
    }
    if (is_outside(check, offset, bytes)) {
        note_outside(check, offset, bytes);
        return 0;
    }
    first = q2_cluster(check->q, offset);
    last = q2_cluster(check->q, offset + bytes - 1);
    for (uint64_t cluster = first; cluster <= last; cluster++) {
        struct q2_granule *granule =
            q2_counts_make(&check->counts, cluster >> Q2_GRANULE_BITS);

        if (!granule) {
            return -ENOMEM;
        }
        granule->meta |= 1ull << cluster % Q2_GRANULE;
    }
    return 0;
}

bool q2_check_is_meta(struct q2_check *check, uint64_t offset)
{
    uint64_t cluster = q2_cluster(check->q, offset);
    struct q2_granule *granule =
        q2_counts_find(&check->counts, cluster >> Q2_GRANULE_BITS);

    return granule && granule->meta >> cluster % Q2_GRANULE & 1;
}

int q2_check_flag(struct q2_check *check, uint64_t offset, bool copied)
{
    uint64_t cluster = q2_cluster(check->q, offset);
    struct q2_granule *granule;

    if (cluster >= check->clusters) {
        check->copied_wrong |= copied; /* its refcount is 0 */
        return 0;
    }
    granule = q2_counts_make(&check->counts, cluster >> Q2_GRANULE_BITS);
    if (!granule) {
        return -ENOMEM;
    }
    *(copied ? &granule->copied : &granule->shared) |=
        1ull << cluster % Q2_GRANULE;
    return 0;
}
