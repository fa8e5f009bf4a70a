/* SPDX-License-Identifier: Apache-2.0 */
/*
 * control.h - what the Python half of the filter compress calls.
 *
 * The build reads these declarations for cffi, so this file holds nothing but
 * comments, includes, plain structures and prototypes.
 */
#ifndef BLOCKYARD_FILTERS_COMPRESS_CONTROL_H
#define BLOCKYARD_FILTERS_COMPRESS_CONTROL_H

#include "blockyard.h"

/* Take core's table.  -EPROTO: it is for another BY_ABI_VERSION. */
int by_compress_init(uintptr_t api);
/* struct by_node_ops, as an address; its nodes have no state */
uintptr_t by_compress_ops(void);

#endif /* BLOCKYARD_FILTERS_COMPRESS_CONTROL_H */
