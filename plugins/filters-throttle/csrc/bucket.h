/* SPDX-License-Identifier: Apache-2.0 */
/* bucket.h - the arithmetic of limits; its user sees to locking. */
#ifndef BLOCKYARD_FILTERS_THROTTLE_BUCKET_H
#define BLOCKYARD_FILTERS_THROTTLE_BUCKET_H

#include "control.h"

#define BY_THROTTLE_BUCKETS 6

struct by_bucket {
    struct by_throttle_rate rate;
    double level;       /* leaks at the average rate */
    double burst_level; /* leaks at the burst rate */
};

struct by_buckets {
    struct by_bucket bucket[BY_THROTTLE_BUCKETS];
    uint64_t request_size;
    uint64_t leaked;    /* ns: up to when */
};

/* Empty, with these limits. */
void by_buckets_set(struct by_buckets *buckets,
                    const struct by_throttle_limits *limits, uint64_t now);
/* Does anything limit this direction? */
bool by_buckets_limit(const struct by_buckets *buckets, bool write);
/* ns until a request may begin; 0: now. */
uint64_t by_buckets_wait(struct by_buckets *buckets, bool write, uint64_t now);
/* It has begun. */
void by_buckets_add(struct by_buckets *buckets, bool write, uint64_t bytes);

#endif /* BLOCKYARD_FILTERS_THROTTLE_BUCKET_H */
