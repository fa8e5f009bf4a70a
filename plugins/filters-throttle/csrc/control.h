/* SPDX-License-Identifier: Apache-2.0 */
/*
 * control.h - what the Python half of the filter throttle calls.
 *
 * The build reads these declarations for cffi, so this file holds nothing but
 * comments, includes, plain structures and prototypes.
 */
#ifndef BLOCKYARD_FILTERS_THROTTLE_CONTROL_H
#define BLOCKYARD_FILTERS_THROTTLE_CONTROL_H

#include "blockyard.h"

/* Take core's table.  -EPROTO: it is for another BY_ABI_VERSION. */
int by_throttle_init(uintptr_t api);

/* One bucket's: units a second, of which one leaks and one comes in bursts. */
struct by_throttle_rate {
    double average;     /* 0: no limit */
    double burst;       /* 0: no bursts */
    double seconds;     /* of a burst */
};
struct by_throttle_limits {
    /* bytes: total, read, write; then requests: total, read, write */
    struct by_throttle_rate rates[6];
    uint64_t request_size;  /* a larger request counts in proportion; 0: once */
};

/* A group, unlimited at first.  Null: no memory. */
struct by_throttle_group *by_throttle_group_create(void);
/* Empty the buckets and let these limits hold for what is waiting too. */
void by_throttle_group_set(struct by_throttle_group *group,
                           const struct by_throttle_limits *limits);
/* No node is in it. */
void by_throttle_group_free(struct by_throttle_group *group);

/* The state of one node.  Null: no memory. */
struct by_throttle *by_throttle_create(struct by_throttle_group *group);
/* The node is drained. */
void by_throttle_move(struct by_throttle *throttle,
                      struct by_throttle_group *group);
void by_throttle_free(struct by_throttle *throttle);
/* struct by_node_ops, as an address */
uintptr_t by_throttle_ops(void);

struct by_throttle_arrival {
    uint64_t at;        /* ns; never before the one ahead */
    uint64_t bytes;
    bool write;
};
/*
 * When do requests begin that arrive like this in a group of one node?  Each
 * begins in turn; begins[i] is in ns.  This is the arithmetic alone, for
 * whoever wants to know what limits mean.
 */
void by_throttle_foretell(const struct by_throttle_limits *limits,
                          const struct by_throttle_arrival *arrivals,
                          uint32_t count, uint64_t *begins);

#endif /* BLOCKYARD_FILTERS_THROTTLE_CONTROL_H */
