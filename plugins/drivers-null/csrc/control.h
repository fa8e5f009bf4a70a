/* SPDX-License-Identifier: Apache-2.0 */
/*
 * control.h - what the Python half of the null drivers calls.
 *
 * The build reads these declarations for cffi, so this file holds nothing but
 * comments, includes, plain structures and prototypes.
 */
#ifndef BLOCKYARD_DRIVERS_NULL_CONTROL_H
#define BLOCKYARD_DRIVERS_NULL_CONTROL_H

#include "blockyard.h"

/* Take core's table.  -EPROTO: it is for another BY_ABI_VERSION. */
int by_null_init(uintptr_t api);

struct by_null_settings {
    uint64_t latency_ns;   /* 0: answer at once */
    bool read_zeroes;      /* a promise: block status says zero, too */
};
/* The state of one node.  Null: no memory. */
struct by_null *by_null_create(const struct by_null_settings *settings);
void by_null_free(struct by_null *state);
/* struct by_node_ops, as an address; aio: null-aio's, else null-co's */
uintptr_t by_null_ops(bool aio);

#endif /* BLOCKYARD_DRIVERS_NULL_CONTROL_H */
