/* SPDX-License-Identifier: Apache-2.0 */
/*
 * check.c - checking an image: count all references, compare them with the
 * refcounts, mend what may be mended, and look at what depends on refcounts.
 */
#include <errno.h>
#include <stdlib.h>

#include "check.h"

enum { EXCHANGES = 3 };         /* of the refcount structures, at most */

int q2_check_put(struct q2_check *check, uint64_t offset, const void *bytes,
                 uint64_t count)
{
    int result = q2_check_extend(check, offset + count);

    check->changed = true;
    return result < 0 ? result : q2_pwrite(check->q, offset, bytes, count);
}

/* New refcount structures, and what they come to. */
static int exchange(struct q2_check *check, struct by_qcow2_check_result *now)
{
    struct by_qcow2_check_result *out = check->out;
    uint32_t fix = check->fix;
    int result;

    q2_tell(check, "Rebuilding refcount structure\n");
    result = q2_check_rebuild(check);
    if (result < 0) {
        q2_tell(check, "ERROR writing refblock: %s\n", strerror(-result));
        return result;
    }
    out->corruptions = 0;
    out->leaks = 0;
    out->check_errors = 0;
    check->rebuild = false;
    check->fix = 0;
    result = q2_check_count(check);
    check->fix = fix;
    *now = *out;
    return result < 0 ? result
        : q2_check_compare(check, fix & BY_QCOW2_FIX_LEAKS);
}

/*
 * Exchange the refcount structures.  What is left of the old ones is a leak
 * then, and is given back without being counted as one that was found.  A
 * file that got longer can have references in it that were behind its end:
 * the next exchange counts them.
 */
static int rebuild(struct q2_check *check)
{
    struct by_qcow2_check_result *out = check->out, was = *out, now;
    int result = exchange(check, &now);

    for (int i = 1; i < EXCHANGES && result == 0 && check->rebuild; i++) {
        result = exchange(check, &now);
    }
    if (result < 0) {
        return result;
    }
    if (check->rebuild) {
        q2_tell(check, "ERROR rebuilt refcount structure is still broken\n");
    } else if (check->fix & BY_QCOW2_FIX_LEAKS) {
        *out = now;
    }
    if (out->corruptions < was.corruptions) {
        out->corruptions_fixed += was.corruptions - out->corruptions;
    }
    if (out->leaks < was.leaks) {
        out->leaks_fixed += was.leaks - out->leaks;
    }
    return 0;
}

static int refcounts(struct q2_check *check)
{
    struct by_qcow2_check_result *out = check->out, counted;
    int result = q2_check_count(check);

    if (result == 0) {
        counted = *out;
        result = q2_check_compare(check, 0);
    }
    if (result < 0) {
        return result;
    }
    if (check->rebuild && check->fix & BY_QCOW2_FIX_ERRORS) {
        result = rebuild(check);
    } else if (check->rebuild && check->fix) {
        q2_tell(check, "ERROR need to rebuild refcount structures\n");
        result = -EIO;
    } else if (check->fix && (out->leaks || out->corruptions
                              || check->stale)) {
        *out = counted;
        result = check->changed ? q2_barrier(check->q) : 0;
        if (result == 0) {
            result = q2_check_compare(check, check->fix);
        }
    }
    if (result == 0) {
        result = q2_check_copied(check);
    }
    return result;
}

/* Nothing is wrong any more: the header may say so. */
static int conclude(struct q2_check *check)
{
    const struct by_qcow2_check_result *out = check->out;
    uint64_t doubts = check->q->set.incompatible
                    & (Q2_INCOMPAT_DIRTY | Q2_INCOMPAT_CORRUPT);
    int result = 0;

    if (check->changed) {
        result = q2_barrier(check->q);
    }
    if (result == 0 && check->fix && doubts && !out->check_errors
        && !out->corruptions) {
        check->changed = true;
        result = q2_incompatible(check->q, 0, doubts);
    }
    return result;
}

static int run(struct q2_check *check)
{
    const struct by_qcow2 *q = check->q;
    int result = q2_check_read_snapshots(check);

    if (result == 0) {
        result = refcounts(check);
        check->out->corruptions += check->snapshots_wrong;
    }
    if (result == 0) {
        result = q2_check_write_snapshots(check);
    }
    if (result == 0) {
        result = conclude(check);
    }
    check->out->image_end_offset = (check->highest + 1) << q->cluster_bits;
    check->out->total_clusters = (q->size >> q->cluster_bits)
                               + (q2_in_cluster(q, q->size) ? 1 : 0);
    return result;
}

int q2_check_file(struct by_qcow2 *q, struct by_qcow2_talk *talk, uint32_t fix,
                  struct by_qcow2_check_result *out, bool *changed)
{
    struct q2_check check = {
        .q = q, .talk = talk, .out = out, .fix = fix,
    };
    int result;

    memset(out, 0, sizeof(*out));
    result = run(&check);
    if (result == 0 && q2_check_cancelled(&check)) {
        result = -ECANCELED;
    }
    *changed = check.changed;
    q2_check_free_snapshots(&check);
    q2_counts_free(&check.counts);
    q2_counts_free(&check.disk);
    q2_counts_free(&check.outside);
    q2_seen_free(&check.seen);
    free(check.l1);
    free(check.reftable);
    return result;
}

int q2_check_dirty(struct by_qcow2 *q)
{
    struct by_qcow2_check_result out;
    bool changed;
    int result = q2_check_file(q, NULL,
                               BY_QCOW2_FIX_LEAKS | BY_QCOW2_FIX_ERRORS,
                               &out, &changed);

    return result == 0 && out.check_errors ? -EIO : result;
}
