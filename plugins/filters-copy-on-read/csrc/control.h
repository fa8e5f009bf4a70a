/* SPDX-License-Identifier: Apache-2.0 */
/*
 * control.h - what the Python half of the filter copy-on-read calls.
 *
 * The build reads these declarations for cffi, so this file holds nothing but
 * comments, includes, plain structures and prototypes.
 */
#ifndef BLOCKYARD_FILTERS_COR_CONTROL_H
#define BLOCKYARD_FILTERS_COR_CONTROL_H

#include "blockyard.h"

/* Take core's table.  -EPROTO: it is for another BY_ABI_VERSION. */
int by_cor_init(uintptr_t api);

/* The state of one node.  Null: no memory. */
struct by_cor *by_cor_create(void);
/*
 * The node is drained.  cluster: bytes that are copied as a whole, a power of
 * two.  layers: how many images of the chain give what is copied, the one that
 * is copied into included; 0: whatever is not there is copied.
 */
void by_cor_set(struct by_cor *cor, uint64_t cluster, uint32_t layers);
void by_cor_free(struct by_cor *cor);
/* struct by_node_ops, as an address */
uintptr_t by_cor_ops(void);

#endif /* BLOCKYARD_FILTERS_COR_CONTROL_H */
