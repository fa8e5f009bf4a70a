/* SPDX-License-Identifier: Apache-2.0 */
/* check_refcount.c - single refcounts on disk, after they were compared. */
#include <errno.h>

#include "check.h"

/* The 8 bytes of a block that hold the refcount; *index: in them. */
static int place(struct q2_check *check, uint64_t cluster, uint64_t *offset,
                 uint64_t *index)
{
    uint32_t bits = check->q->refblock_bits;
    uint32_t packed = 6 - check->counts.order; /* refcounts of 8 bytes, log2 */
    uint64_t entry = cluster >> bits;
    uint64_t in_block = cluster & ((1ull << bits) - 1);
    uint64_t block = entry < check->reftable_size
                   ? check->reftable[entry] & Q2_REFT_OFFSET_MASK : 0;

    if (!block) {
        return -ENOENT;
    }
    if (q2_in_cluster(check->q, block)) {
        return -EIO;
    }
    *offset = block + (in_block >> packed << 3);
    *index = in_block & ((1ull << packed) - 1);
    return 0;
}

static int from_disk(struct q2_check *check, uint64_t cluster, uint64_t *value)
{
    unsigned char bytes[8];
    uint64_t offset, index;
    int result = place(check, cluster, &offset, &index);

    if (result == 0) {
        result = q2_pread(check->q, offset, bytes, sizeof(bytes));
    }
    if (result == 0) {
        *value = q2_packed_get(bytes, check->counts.order, index);
    } else if (result == -ENOENT) {
        *value = 0;
        result = 0;
    }
    return result;
}

int q2_check_refcount(struct q2_check *check, uint64_t cluster,
                      uint64_t *value)
{
    uint64_t entry = cluster >> check->q->refblock_bits;

    if (cluster >= check->clusters) {
        return from_disk(check, cluster, value);
    }
    if (entry < check->reftable_size
        && q2_in_cluster(check->q,
                         check->reftable[entry] & Q2_REFT_OFFSET_MASK)) {
        return -EIO;
    }
    *value = q2_counts_find(&check->disk, cluster >> Q2_GRANULE_BITS)
           ? q2_counts_get(&check->disk, cluster)
           : q2_counts_get(&check->counts, cluster);
    return 0;
}

int q2_check_put_refcount(struct q2_check *check, uint64_t cluster,
                          uint64_t value)
{
    unsigned char bytes[8];
    uint64_t offset, index;
    int result = place(check, cluster, &offset, &index);

    if (result == 0) {
        result = q2_pread(check->q, offset, bytes, sizeof(bytes));
    }
    if (result == 0) {
        q2_packed_put(bytes, check->counts.order, index, value);
        result = q2_check_put(check, offset, bytes, sizeof(bytes));
    }
    return result;
}
