/* SPDX-License-Identifier: Apache-2.0 */
/* check_refblocks.c - the refcount table and what it refers to. */
#include <errno.h>
#include <stdlib.h>

#include "check.h"

int q2_check_load_reftable(struct q2_check *check)
{
    const struct by_qcow2_settings *set = &check->q->set;
    uint64_t bytes = (uint64_t)set->reftable_clusters
                   << check->q->cluster_bits;
    int result;

    if (bytes > Q2_MAX_REFTABLE_BYTES) {
        return -EFBIG;
    }
    free(check->reftable);
    check->reftable_size = 0;
    check->reftable = malloc(bytes ? bytes : 8);
    if (!check->reftable) {
        return -ENOMEM;
    }
    result = q2_pread(check->q, set->reftable_offset, check->reftable, bytes);
    if (result < 0) {
        return result;
    }
    check->reftable_size = bytes / 8;
    for (uint64_t i = 0; i < check->reftable_size; i++) {
        check->reftable[i] = be64toh(check->reftable[i]);
    }
    return 0;
}

/* A file is not made longer than this for a block that may well be nonsense;
 * new structures are written instead. */
static uint64_t longest(const struct q2_check *check)
{
    return check->file_bytes > INT64_MAX / 4 ? INT64_MAX
         : check->file_bytes * 2 + (1ull << 30);
}

/* Make the file long enough for the block.  Its new part is zeroes. */
static int lengthen(struct q2_check *check, uint64_t index, uint64_t offset)
{
    struct by_qcow2_check_result *out = check->out;
    uint64_t end = offset + check->q->cluster_size;
    int result = -EFBIG;

    q2_tell(check, "Repairing refcount block %lu is outside image\n",
            (unsigned long)index);
    if (end > offset && end <= longest(check)) {
        result = q2_check_extend(check, end);
    }
    if (result == 0) {
        result = q2_check_add(check, offset, check->q->cluster_size, 1);
        out->corruptions--;
        out->corruptions_fixed++;
        return result;
    }
    check->rebuild = true;
    q2_tell(check, "ERROR could not resize image: %s\n", strerror(-result));
    return 0;
}

static int one_block(struct q2_check *check, uint64_t index, uint64_t entry)
{
    struct by_qcow2_check_result *out = check->out;
    uint64_t offset = entry & Q2_REFT_OFFSET_MASK;
    uint64_t cluster = q2_cluster(check->q, offset), count;
    int result;

    if (entry & Q2_REFT_RESERVED) {
        q2_tell(check, "ERROR refcount table entry %lu has reserved bits set\n",
                (unsigned long)index);
        out->corruptions++;
        check->rebuild = true;
        return 0;
    }
    if (q2_in_cluster(check->q, offset)) {
        q2_tell(check, "ERROR refcount block %lu is not cluster aligned; "
                "refcount table entry corrupted\n", (unsigned long)index);
        out->corruptions++;
        check->rebuild = true;
        return 0;
    }
    if (cluster >= check->clusters) {
        out->corruptions++;
        if (check->fix & BY_QCOW2_FIX_ERRORS) {
            return lengthen(check, index, offset);
        }
        q2_tell(check, "ERROR refcount block %lu is outside image\n",
                (unsigned long)index);
        return 0;
    }
    result = q2_check_add(check, offset, check->q->cluster_size, 1);
    count = q2_counts_get(&check->counts, cluster);
    if (result == 0 && count != 1) {
        q2_tell(check, "ERROR refcount block %lu refcount=%lu\n",
                (unsigned long)index, (unsigned long)count);
        out->corruptions++;
        check->rebuild = true;
    }
    return result;
}

int q2_check_refblocks(struct q2_check *check)
{
    int result = 0;

    for (uint64_t i = 0; i < check->reftable_size && result == 0; i++) {
        if (check->reftable[i]) {
            result = one_block(check, i, check->reftable[i]);
        }
    }
    return result;
}
