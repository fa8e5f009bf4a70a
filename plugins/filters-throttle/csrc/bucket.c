/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bucket.c - leaky buckets, used as meters (QEMU, docs/throttle.txt).
 *
 * What has been carried fills a bucket, which leaks at the average rate.  A
 * request may begin while the bucket is not overfull, and then adds all of
 * itself, so that one of any size gets through.  A bucket with bursts holds
 * burst * seconds; one without holds a tenth of a second of the average,
 * because a client that asks for one request after the other would get less
 * than its rate otherwise.
 *
 * Bursts that are longer than a second have a rate to keep themselves: a
 * second level leaks at the burst rate and holds a tenth of a second of it.
 */
#include <string.h>

#include "bucket.h"

#define NS 1e9
/* Nobody waits longer than this at a time; then it is looked at again. */
#define LONGEST (24 * 3600 * NS)

static const struct {
    bool counts_bytes, reads, writes;
} kinds[BY_THROTTLE_BUCKETS] = {
    { true, true, true }, { true, true, false }, { true, false, true },
    { false, true, true }, { false, true, false }, { false, false, true },
};

static bool concerns(int kind, bool write)
{
    return write ? kinds[kind].writes : kinds[kind].reads;
}

void by_buckets_set(struct by_buckets *buckets,
                    const struct by_throttle_limits *limits, uint64_t now)
{
    memset(buckets, 0, sizeof(*buckets));
    for (int i = 0; i < BY_THROTTLE_BUCKETS; i++) {
        buckets->bucket[i].rate = limits->rates[i];
    }
    buckets->request_size = limits->request_size;
    buckets->leaked = now;
}

bool by_buckets_limit(const struct by_buckets *buckets, bool write)
{
    for (int i = 0; i < BY_THROTTLE_BUCKETS; i++) {
        if (concerns(i, write) && buckets->bucket[i].rate.average > 0) {
            return true;
        }
    }
    return false;
}

static double less(double level, double leak)
{
    return level > leak ? level - leak : 0;
}

static void leak(struct by_buckets *buckets, uint64_t now)
{
    double seconds = now > buckets->leaked ? (now - buckets->leaked) / NS : 0;

    for (int i = 0; i < BY_THROTTLE_BUCKETS; i++) {
        struct by_bucket *b = &buckets->bucket[i];

        b->level = less(b->level, b->rate.average * seconds);
        b->burst_level = less(b->burst_level, b->rate.burst * seconds);
    }
    if (now > buckets->leaked) {
        buckets->leaked = now;
    }
}

/* Seconds until what is above the brim has leaked. */
static double overfull(double level, double size, double rate)
{
    return level > size ? (level - size) / rate : 0;
}

static double wait_for(const struct by_bucket *b)
{
    double size = b->rate.burst > 0 ? b->rate.burst * b->rate.seconds
                                    : b->rate.average / 10;
    double wait, burst;

    if (!(b->rate.average > 0)) {
        return 0;
    }
    wait = overfull(b->level, size, b->rate.average);
    if (b->rate.seconds > 1 && b->rate.burst > 0) {
        burst = overfull(b->burst_level, b->rate.burst / 10, b->rate.burst);
        wait = burst > wait ? burst : wait;
    }
    return wait;
}

uint64_t by_buckets_wait(struct by_buckets *buckets, bool write, uint64_t now)
{
    double longest = 0;

    leak(buckets, now);
    for (int i = 0; i < BY_THROTTLE_BUCKETS; i++) {
        double wait = concerns(i, write) ? wait_for(&buckets->bucket[i]) : 0;

        longest = wait > longest ? wait : longest;
    }
    longest *= NS;
    if (longest > LONGEST) {
        return LONGEST;
    }
    return (uint64_t)longest + (longest > (uint64_t)longest);
}

void by_buckets_add(struct by_buckets *buckets, bool write, uint64_t bytes)
{
    double requests = buckets->request_size && bytes > buckets->request_size
        ? (double)bytes / buckets->request_size : 1;

    for (int i = 0; i < BY_THROTTLE_BUCKETS; i++) {
        struct by_bucket *b = &buckets->bucket[i];
        double units = kinds[i].counts_bytes ? bytes : requests;

        if (concerns(i, write)) {
            b->level += units;
            b->burst_level += units;
        }
    }
}

void by_throttle_foretell(const struct by_throttle_limits *limits,
                          const struct by_throttle_arrival *arrivals,
                          uint32_t count, uint64_t *begins)
{
    struct by_buckets buckets;
    uint64_t now = 0, wait;

    by_buckets_set(&buckets, limits, 0);
    for (uint32_t i = 0; i < count; i++) {
        const struct by_throttle_arrival *a = &arrivals[i];

        now = a->at > now ? a->at : now;
        while ((wait = by_buckets_wait(&buckets, a->write, now))) {
            now += wait;
        }
        by_buckets_add(&buckets, a->write, a->bytes);
        begins[i] = now;
    }
}
