/* SPDX-License-Identifier: Apache-2.0 */
/*
 * account.c - counters of requests, kept per lane and added up when asked.
 *
 * The owning loop writes, the control thread reads: each number is stored
 * whole, and a reader may see one request's numbers half added.
 */
#include "graph.h"

static inline void add(uint64_t *counter, uint64_t n)
{
    __atomic_store_n(counter, *counter + n, __ATOMIC_RELAXED);
}

void by_account(struct by_lane *lane, uint8_t op, uint64_t offset,
                uint64_t bytes, uint64_t began, int result)
{
    struct by_op_stats *stats = &lane->stats.op[op];
    uint64_t now = by_loop_now(lane->loop);

    add(&stats->total_ns, now - began);
    __atomic_store_n(&lane->stats.last_access_ns, now, __ATOMIC_RELAXED);
    if (unlikely(result < 0)) {
        add(&stats->failed, 1);
        return;
    }
    add(&stats->done, 1);
    add(&stats->bytes, bytes);
    if (op == BY_OP_WRITE && offset + bytes > lane->stats.write_highest) {
        __atomic_store_n(&lane->stats.write_highest, offset + bytes,
                         __ATOMIC_RELAXED);
    }
}

void by_account_invalid(struct by_lane *lane, uint8_t op)
{
    add(&lane->stats.op[op].invalid, 1);
}

static inline uint64_t get(const uint64_t *counter)
{
    return __atomic_load_n(counter, __ATOMIC_RELAXED);
}

static inline uint64_t larger(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

static void add_lane(const struct by_lane *lane, struct by_stats *out)
{
    for (int op = 0; op < BY_OP_COUNT; op++) {
        const struct by_op_stats *from = &lane->stats.op[op];

        out->op[op].done += get(&from->done);
        out->op[op].failed += get(&from->failed);
        out->op[op].invalid += get(&from->invalid);
        out->op[op].bytes += get(&from->bytes);
        out->op[op].total_ns += get(&from->total_ns);
        out->op[op].merged += get(&from->merged);
    }
    out->in_flight += get(&lane->count);
    out->write_highest = larger(out->write_highest,
                                get(&lane->stats.write_highest));
    out->last_access_ns = larger(out->last_access_ns,
                                 get(&lane->stats.last_access_ns));
}

void by_lanes_stats(struct by_lane *const *lanes, struct by_stats *out)
{
    *out = (struct by_stats) { 0 };
    for (int i = 0; i < BY_MAX_LOOPS; i++) {
        const struct by_lane *lane = __atomic_load_n(&lanes[i],
                                                     __ATOMIC_ACQUIRE);

        if (lane) {
            add_lane(lane, out);
        }
    }
}
