/* SPDX-License-Identifier: Apache-2.0 */
/*
 * control.h - what the Python half of quorum calls.
 *
 * The build reads these declarations for cffi, so this file holds nothing but
 * comments, includes, plain structures and prototypes.
 */
#ifndef BLOCKYARD_FILTERS_QUORUM_CONTROL_H
#define BLOCKYARD_FILTERS_QUORUM_CONTROL_H

#include "blockyard.h"

/* Take core's table.  -EPROTO: it is for another BY_ABI_VERSION. */
int by_filters_quorum_init(uintptr_t api);

struct by_quorum_settings {
    uint32_t threshold;    /* votes that win; 1 at least */
    bool fifo;             /* read the first child that can be read */
    bool rewrite;          /* correct children that are outvoted in a read */
    bool blkverify;        /* two children, and a difference is an error */
    uint64_t tag;          /* of the reports */
};

/*
 * What C reports with the tag, as the event's kind: one of these, with the
 * child's slot above bit 3.  a = offset, b = bytes of the request, result = 0
 * or -errno.  by_quorum_heard is called for each.
 */
enum by_quorum_report {
    BY_QUORUM_BAD_READ = 1,   /* result 0: the child was outvoted */
    BY_QUORUM_BAD_WRITE,
    BY_QUORUM_BAD_FLUSH,
    BY_QUORUM_FAILURE,        /* no quorum; slot 0 */
    BY_QUORUM_DIFFERENCE      /* blkverify: result = where in the request */
};

/* The state of one node.  Null: no memory. */
struct by_quorum *by_quorum_create(const struct by_quorum_settings *settings);
void by_quorum_free(struct by_quorum *quorum);
/* Any thread: a report has been read.  While too many are not, further ones
 * are left out. */
void by_quorum_heard(struct by_quorum *quorum);
/* struct by_node_ops, as an address */
uintptr_t by_quorum_ops(void);

#endif /* BLOCKYARD_FILTERS_QUORUM_CONTROL_H */
