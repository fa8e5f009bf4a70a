/* SPDX-License-Identifier: Apache-2.0 */
/* zeroes.h - write zeroes and discard: changes of the mapping without data. */
#ifndef BLOCKYARD_QCOW2_ZEROES_H
#define BLOCKYARD_QCOW2_ZEROES_H

#include "requests.h"

/* A range whose entries change. */
struct q2_emptying {
    uint64_t from, to;          /* guest bytes, on (sub)cluster borders */
    bool discard;               /* else: zeroes */
    bool unmap;                 /* zeroes may give clusters back */
    bool widened;               /* only where no data is: to the border of a
                                   (sub)cluster that reads as zeroes */
    uint64_t kept_at, kept;     /* in the data file: discarded, not freed */
};

/* zero_entries.c, table work: change them.  -ENOTSUP: what is there cannot
 * read as zeroes without being written (nothing more was changed). */
int q2_empty(struct by_qcow2 *q, struct q2_emptying *e);

#endif /* BLOCKYARD_QCOW2_ZEROES_H */
