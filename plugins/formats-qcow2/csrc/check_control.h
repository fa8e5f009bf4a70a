/* SPDX-License-Identifier: Apache-2.0 */
/*
 * check_control.h - checking and repairing an image, for the Python half.
 *
 * Read by the build like control.h: comments, includes, plain structures and
 * prototypes only.  "Waits" and "no requests" mean what they mean there.
 */
#ifndef BLOCKYARD_QCOW2_CHECK_CONTROL_H
#define BLOCKYARD_QCOW2_CHECK_CONTROL_H

#include "control.h"

/* What may be repaired. */
enum by_qcow2_fix {
    BY_QCOW2_FIX_LEAKS = 1,     /* refcounts that are too high */
    BY_QCOW2_FIX_ERRORS = 2     /* all else */
};

struct by_qcow2_check_result {
    int64_t corruptions, leaks; /* those that are still there */
    int64_t check_errors;       /* what could not be looked at */
    int64_t corruptions_fixed, leaks_fixed;
    int64_t image_end_offset;   /* behind the last cluster in use, bytes */
    int64_t total_clusters;     /* of the virtual disk */
    int64_t allocated_clusters, fragmented_clusters, compressed_clusters;
};

/* What a check that runs and its watcher say to each other: the text, how far
 * it is, whether it shall end.  Null when memory is out. */
struct by_qcow2_talk;
struct by_qcow2_talk *by_qcow2_talk_new(void);
/* The check has ended, nobody reads. */
void by_qcow2_talk_free(struct by_qcow2_talk *talk);
/* Any thread; waits up to `milliseconds`.  The next bytes of the text, at
 * most `bytes`, lines as qemu-img writes them; 0: there were none in this
 * time; -1: the check has ended and everything was read.  The text that waits
 * to be read is bounded, and the check waits while nobody reads it.  What is
 * told in all is bounded too, for images that are wrong all over. */
int by_qcow2_talk_read(struct by_qcow2_talk *talk, char *out, int bytes,
                       int milliseconds);
/* Any thread.  The check ends soon, with -ECANCELED. */
void by_qcow2_talk_cancel(struct by_qcow2_talk *talk);
/* Any thread.  Steps made of those that are known now. */
void by_qcow2_talk_progress(struct by_qcow2_talk *talk, uint64_t *done,
                            uint64_t *total);

/* No requests; waits.  Compare the refcounts with the references there are,
 * and mend what `fix` (BY_QCOW2_FIX_*) names.  talk: null for silence.  The
 * dirty and corrupt bits are cleared when something was to be mended and
 * nothing is wrong any more.  A result is there for 0 only.
 * -EIO: nothing can be mended without more of `fix`; -ENOMEM; -ECANCELED;
 * errors of writing. */
int by_qcow2_check(struct by_qcow2 *q, struct by_qcow2_talk *talk,
                   uint32_t fix, struct by_qcow2_check_result *out);

#endif /* BLOCKYARD_QCOW2_CHECK_CONTROL_H */
