/* SPDX-License-Identifier: Apache-2.0 */
/*
 * control.h - what the Python half of the filter preallocate calls.
 *
 * The build reads these declarations for cffi, so this file holds nothing but
 * comments, includes, plain structures and prototypes.
 */
#ifndef BLOCKYARD_FILTERS_PREALLOCATE_CONTROL_H
#define BLOCKYARD_FILTERS_PREALLOCATE_CONTROL_H

#include "blockyard.h"

/* Take core's table.  -EPROTO: it is for another BY_ABI_VERSION. */
int by_preallocate_init(uintptr_t api);

/* The state of one node, which does nothing yet.  Null: no memory. */
struct by_preallocate *by_preallocate_create(void);
/* Bytes: how much is preallocated at a time, and what its end is aligned to
 * (at least 1).  Any thread. */
void by_preallocate_set(struct by_preallocate *p, uint64_t size,
                        uint64_t align);
/* The file is this long, and nobody else writes to it: preallocate from now
 * on.  No write is in flight. */
void by_preallocate_begin(struct by_preallocate *p, uint64_t length);
/* No write is in flight, and none comes: preallocate no more.  True when the
 * file is longer than its data, of which *data_end is the end. */
bool by_preallocate_end(struct by_preallocate *p, uint64_t *data_end);
void by_preallocate_free(struct by_preallocate *p);
/* struct by_node_ops, as an address */
uintptr_t by_preallocate_ops(void);

#endif /* BLOCKYARD_FILTERS_PREALLOCATE_CONTROL_H */
