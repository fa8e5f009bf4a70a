/* SPDX-License-Identifier: Apache-2.0 */
/*
 * check_l2.c - the entries of an L2 table (sections "Cluster mapping" and
 * "Extended L2 Entries").
 */
#include <errno.h>

#include "check.h"

enum { SAID = 1000 };           /* times that one sentence is said at most */
#define ALLOCATED 0xffffffffull /* of a subcluster bitmap */

struct visit {
    struct q2_check *check;
    unsigned char *table;
    uint64_t offset;            /* of the table */
    uint64_t times;             /* references to the table */
    bool active;
    uint64_t next;              /* data that follows would be there; or 0 */
};

#define complain(visit, ...)                                           \
    do {                                                               \
        (visit)->check->out->corruptions += (visit)->times;            \
        for (uint64_t said = 0; said < (visit)->times && said < SAID;  \
             said++) {                                                 \
            q2_tell((visit)->check, __VA_ARGS__);                      \
        }                                                              \
    } while (0)

static int compressed(struct visit *visit, int index, uint64_t entry,
                      uint64_t bitmap)
{
    const struct by_qcow2 *q = visit->check->q;
    uint64_t offset = entry & q->coffset_mask;
    uint64_t sectors = (entry >> q->csize_shift & q->csize_mask) + 1;
    uint64_t bytes = sectors * Q2_SECTOR - offset % Q2_SECTOR;

    if (entry & Q2_COPIED) {
        complain(visit, "ERROR: coffset=0x%lx: copied flag must never be set "
                 "for compressed clusters\n", (unsigned long)offset);
        entry &= ~Q2_COPIED;
    }
    if (q->set.data_file) {
        complain(visit, "ERROR compressed cluster %d with data file, "
                 "entry=0x%lx\n", index, (unsigned long)entry);
        return 0;
    }
    if (bitmap) {
        complain(visit, "ERROR compressed cluster %d with non-zero subcluster "
                 "allocation bitmap, entry=0x%lx\n", index,
                 (unsigned long)entry);
        return 0;
    }
    if (visit->active) {
        visit->check->out->allocated_clusters++;
        visit->check->out->compressed_clusters++;
        visit->check->out->fragmented_clusters++;
    }
    return q2_check_add(visit->check, offset, bytes, visit->times);
}

/* A cluster that holds nothing: let its entry say zeroes.  1: it does. */
static int make_zero(struct visit *visit, int index, uint64_t offset)
{
    const struct by_qcow2 *q = visit->check->q;
    struct by_qcow2_check_result *out = visit->check->out;
    unsigned char entry[16];
    bool may = visit->check->fix & BY_QCOW2_FIX_ERRORS
            && !q2_in_cluster(q, visit->offset)
            && !q2_check_is_meta(visit->check, visit->offset);
    int result;

    complain(visit, "%s offset=%lx: Preallocated cluster is not properly "
             "aligned; L2 entry corrupted.\n", may ? "Repairing" : "ERROR",
             (unsigned long)offset);
    if (!may) {
        return 0;
    }
    q2_put64(entry, q->set.extended_l2 ? 0 : Q2_ZERO);
    q2_put64(entry + 8, ALLOCATED << 32);
    result = q2_check_put(visit->check, visit->offset
                          + (uint64_t)index * q->entry_bytes,
                          entry, q->entry_bytes);
    if (result < 0) {
        q2_tell(visit->check, "ERROR: Failed to overwrite L2 table entry: %s\n",
                strerror(-result));
        out->check_errors++;
        return 0;
    }
    memcpy(visit->table + (uint64_t)index * q->entry_bytes, entry,
           q->entry_bytes);
    out->corruptions -= visit->times;
    out->corruptions_fixed += visit->times;
    return 1;
}

static int count_data(struct visit *visit, uint64_t entry)
{
    struct q2_check *check = visit->check;
    uint64_t offset = entry & Q2_OFFSET_MASK;
    int result = 0;

    if (visit->active) {
        check->out->allocated_clusters++;
        if (visit->next && offset != visit->next) {
            check->out->fragmented_clusters++;
        }
        visit->next = offset + check->q->cluster_size;
    }
    if (check->q->set.data_file) {
        check->copied_wrong |= visit->active && !(entry & Q2_COPIED);
        return 0;
    }
    if (visit->active) {
        result = q2_check_flag(check, offset, entry & Q2_COPIED);
    }
    if (result == 0) {
        result = q2_check_add(check, offset, check->q->cluster_size,
                              visit->times);
    }
    return result;
}

static int standard(struct visit *visit, int index, uint64_t entry,
                    uint64_t bitmap)
{
    const struct by_qcow2 *q = visit->check->q;
    uint64_t offset = entry & Q2_OFFSET_MASK;
    bool extended = q->set.extended_l2;
    bool holds_data = extended ? bitmap & ALLOCATED : !(entry & Q2_ZERO);
    bool at_zero = q->set.data_file && entry & Q2_COPIED
                && (extended || holds_data);

    if (!offset && !at_zero) {
        if (bitmap & ALLOCATED) {
            complain(visit, "ERROR: Unallocated cluster has non-zero "
                     "subcluster allocation map\n");
        }
        return 0;
    }
    if (bitmap >> 32 & bitmap & ALLOCATED) {
        complain(visit, "ERROR offset=%lx: Allocated cluster has corrupted "
                 "subcluster allocation bitmap\n", (unsigned long)offset);
    }
    if (q2_in_cluster(q, offset)) {
        if (holds_data) {
            complain(visit, "ERROR offset=%lx: Data cluster is not properly "
                     "aligned; L2 entry corrupted.\n", (unsigned long)offset);
        } else if (make_zero(visit, index, offset)) {
            return 0;
        }
    }
    return count_data(visit, entry);
}

static int one_entry(struct visit *visit, int index, uint64_t entry,
                     uint64_t bitmap)
{
    if (entry & Q2_COMPRESSED) {
        return compressed(visit, index, entry, bitmap);
    }
    if (entry & Q2_L2_RESERVED) {
        complain(visit, "ERROR found l2 entry with reserved bits set: %lx\n",
                 (unsigned long)entry);
    }
    return standard(visit, index, entry, bitmap);
}

int q2_check_l2(struct q2_check *check, unsigned char *table, uint64_t offset,
                uint64_t times, bool active)
{
    const struct by_qcow2 *q = check->q;
    bool extended = q->set.extended_l2;
    struct visit visit = {
        .check = check, .table = table, .offset = offset, .times = times,
        .active = active,
    };
    int result = 0, entries = 1 << q->l2_bits;

    for (int i = 0; i < entries && result == 0; i++) {
        const unsigned char *at = table + (size_t)i * q->entry_bytes;
        uint64_t entry = q2_be64(at);
        uint64_t bitmap = extended ? q2_be64(at + 8) : 0;

        if (entry | bitmap) {
            result = one_entry(&visit, i, entry, bitmap);
        }
    }
    return result;
}
