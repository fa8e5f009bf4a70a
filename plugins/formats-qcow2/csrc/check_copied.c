/* SPDX-License-Identifier: Apache-2.0 */
/*
 * check_copied.c - the flag COPIED of the active tables: set where the
 * refcount is one, and nowhere else.  Looked at after refcounts are right as
 * far as they can be.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "check.h"

enum { SAID = 1000 };           /* times that one sentence is said at most */

struct flags {
    struct q2_check *check;
    bool mend;
    uint64_t *list;             /* L2 tables, each once */
    uint64_t count, at;
    struct q2_reader *reader;
};

static void tell(struct flags *flags, uint64_t times, bool mend,
                 const char *what, uint64_t entry, uint64_t refcount)
{
    struct by_qcow2_check_result *out = flags->check->out;

    *(mend ? &out->corruptions_fixed : &out->corruptions) += times;
    for (uint64_t i = 0; i < times && i < SAID; i++) {
        q2_tell(flags->check, "%s OFLAG_COPIED %s_entry=%lx refcount=%lu\n",
                mend ? "Repairing" : "ERROR", what, (unsigned long)entry,
                (unsigned long)refcount);
    }
}

/* 1: the entry was wrong and is right now. */
static int one_data(struct flags *flags, unsigned char *at, uint64_t times,
                    bool mend)
{
    struct q2_check *check = flags->check;
    uint64_t entry = q2_be64(at), refcount = 1;
    uint64_t offset = entry & Q2_OFFSET_MASK;
    bool data_file = check->q->set.data_file;

    if (entry & Q2_COMPRESSED || !offset) {
        return 0; /* with a data file, offset 0 is data by its flag alone */
    }
    if (!data_file && q2_check_refcount(check, q2_cluster(check->q, offset),
                                        &refcount) < 0) {
        return 0;
    }
    if ((refcount == 1) == !!(entry & Q2_COPIED)) {
        return 0;
    }
    tell(flags, times, mend, "data cluster: l2", entry, refcount);
    if (!mend) {
        return 0;
    }
    q2_put64(at, refcount == 1 ? entry | Q2_COPIED : entry & ~Q2_COPIED);
    return 1;
}

static int one_table(struct flags *flags, uint64_t offset)
{
    struct q2_check *check = flags->check;
    uint64_t times = 1 + (flags->mend ? 0 : q2_seen_more(&check->seen,
                                                         offset));
    struct by_qcow2_check_result before = *check->out;
    unsigned char *table;
    int entries = 1 << check->q->l2_bits, changed = 0;
    bool may = flags->mend && !q2_in_cluster(check->q, offset);
    int result = q2_reader_next(flags->reader, &table);

    if (result < 0) {
        q2_tell(check, "ERROR: I/O error in check_refcounts_l2\n");
        check->out->check_errors++;
        return 0;
    }
    for (int i = 0; i < entries; i++) {
        changed += one_data(flags, table + (size_t)i * check->q->entry_bytes,
                            times, may);
    }
    q2_check_step(check);
    if (!changed) {
        return 0;
    }
    if (q2_check_is_meta(check, offset)) {
        q2_tell(check, "ERROR: Could not write L2 table; metadata overlap check"
                " failed: %s\n", strerror(EIO));
        result = -EIO;
    } else {
        result = q2_check_put(check, offset, table, check->q->cluster_size);
        if (result < 0) {
            q2_tell(check, "ERROR: Could not write L2 table: %s\n",
                    strerror(-result));
        }
    }
    if (result < 0) {
        *check->out = before;
        check->out->corruptions += changed;
        check->out->check_errors++;
    }
    return 0;
}

static int one_l1(struct flags *flags, uint32_t index, uint64_t entry,
                  uint64_t refcount)
{
    struct q2_check *check = flags->check;
    uint64_t at = check->q->set.l1_offset + index * 8ull;
    /* Not where something else is as well. */
    bool may = flags->mend
            && q2_counts_get(&check->counts, q2_cluster(check->q, at)) == 1;
    unsigned char bytes[8];
    char what[48];

    snprintf(what, sizeof(what), "L2 cluster: l1_index=%u l1", index);
    tell(flags, 1, may, what, entry, refcount);
    q2_put64(bytes, refcount == 1 ? entry | Q2_COPIED : entry & ~Q2_COPIED);
    return may ? q2_check_put(check, at, bytes, sizeof(bytes)) : 0;
}

static int one_entry(struct flags *flags, uint32_t index)
{
    struct q2_check *check = flags->check;
    uint64_t entry = be64toh(check->l1[index]), refcount = 0;
    uint64_t offset = entry & Q2_OFFSET_MASK;
    int result = offset ? q2_check_refcount(check,
                                            q2_cluster(check->q, offset),
                                            &refcount) : 0;

    if (result < 0) {
        result = 0; /* that was said before */
    } else if ((refcount == 1) != !!(entry & Q2_COPIED)) {
        result = one_l1(flags, index, entry, refcount);
    }
    if (result == 0 && flags->at < flags->count
        && flags->list[flags->at] == offset) {
        flags->at++;
        result = one_table(flags, offset);
    }
    return result;
}

static int walk(struct flags *flags)
{
    struct q2_check *check = flags->check;
    struct q2_seen seen = { 0 };
    int result = 0;

    for (uint32_t i = 0; i < check->l1_size && result >= 0; i++) {
        uint64_t offset = be64toh(check->l1[i]) & Q2_OFFSET_MASK;

        if (offset && offset < check->file_bytes) {
            result = q2_seen_add(&seen, offset, true);
            if (result > 0) {
                flags->list[flags->count++] = offset;
            }
        }
    }
    if (result >= 0) {
        struct q2_seen all = check->seen;

        check->seen = seen; /* how often the active table names each */
        q2_check_steps(check, flags->count);
        flags->reader = q2_reader_begin(check->q, flags->list, flags->count);
        result = flags->reader ? 0 : -ENOMEM;
        for (uint32_t i = 0; i < check->l1_size && result == 0; i++) {
            result = q2_check_cancelled(check) ? -ECANCELED
                                               : one_entry(flags, i);
        }
        check->seen = all;
    }
    if (flags->reader) {
        q2_reader_end(flags->reader);
    }
    q2_seen_free(&seen);
    return result;
}

int q2_check_copied(struct q2_check *check)
{
    struct by_qcow2_check_result *out = check->out;
    struct flags flags = { .check = check };
    int result;

    if (!check->copied_wrong) {
        return 0;
    }
    flags.mend = check->fix & BY_QCOW2_FIX_ERRORS
              || (check->fix & BY_QCOW2_FIX_LEAKS && !out->corruptions
                  && !out->leaks && !out->check_errors);
    flags.list = malloc((check->l1_size + 1ull) * sizeof(*flags.list));
    if (!flags.list) {
        return -ENOMEM;
    }
    result = walk(&flags);
    free(flags.list);
    return result;
}
