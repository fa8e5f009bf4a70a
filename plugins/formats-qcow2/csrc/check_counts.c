/* SPDX-License-Identifier: Apache-2.0 */
/* check_counts.c - counted references, kept only where there are any. */
#include <errno.h>
#include <stdlib.h>

#include "check.h"

enum { POOL = 256 };            /* granules of one piece of memory */

struct piece {
    struct piece *next;
    uint64_t room[];
};

static size_t granule_size(const struct q2_counts *counts)
{
    return sizeof(struct q2_granule) + counts->granule_bytes;
}

int q2_counts_init(struct q2_counts *counts, uint32_t order)
{
    memset(counts, 0, sizeof(*counts));
    counts->order = order;
    counts->granule_bytes = (Q2_GRANULE << order) / 8;
    counts->max = order == 6 ? UINT64_MAX : (1ull << (1u << order)) - 1;
    counts->mask = 1023;
    counts->hash = calloc(counts->mask + 1, sizeof(*counts->hash));
    return counts->hash ? 0 : -ENOMEM;
}

void q2_counts_free(struct q2_counts *counts)
{
    struct piece *piece = counts->pool;

    while (piece) {
        struct piece *next = piece->next;

        free(piece);
        piece = next;
    }
    free(counts->hash);
    memset(counts, 0, sizeof(*counts));
}

static uint64_t slot_of(const struct q2_counts *counts, uint64_t index)
{
    return (index * 0x9e3779b97f4a7c15ull >> 20) & counts->mask;
}

struct q2_granule *q2_counts_find(struct q2_counts *counts, uint64_t index)
{
    struct q2_granule *granule = counts->last;

    if (granule && granule->index == index) {
        return granule;
    }
    granule = counts->hash[slot_of(counts, index)];
    while (granule && granule->index != index) {
        granule = granule->next;
    }
    if (granule) {
        counts->last = granule;
    }
    return granule;
}

/* Twice the slots; without memory the chains get longer instead. */
static void widen(struct q2_counts *counts)
{
    uint64_t slots = (counts->mask + 1) * 2;
    struct q2_granule **old = counts->hash, **wide;

    wide = calloc(slots, sizeof(*wide));
    if (!wide) {
        return;
    }
    counts->hash = wide;
    counts->mask = slots - 1;
    for (uint64_t i = 0; i < slots / 2; i++) {
        struct q2_granule *granule = old[i];

        while (granule) {
            struct q2_granule *next = granule->next;
            uint64_t slot = slot_of(counts, granule->index);

            granule->next = wide[slot];
            wide[slot] = granule;
            granule = next;
        }
    }
    free(old);
}

struct q2_granule *q2_counts_make(struct q2_counts *counts, uint64_t index)
{
    struct q2_granule *granule = q2_counts_find(counts, index);
    size_t bytes = granule_size(counts);
    struct piece *piece = counts->pool;
    uint64_t slot;

    if (granule) {
        return granule;
    }
    if (!counts->pool_left) {
        piece = calloc(1, sizeof(*piece) + POOL * bytes);
        if (!piece) {
            return NULL;
        }
        piece->next = counts->pool;
        counts->pool = piece;
        counts->pool_left = POOL;
    }
    counts->pool_left--;
    granule = (void *)((char *)piece->room + counts->pool_left * bytes);
    if (counts->count++ > counts->mask) {
        widen(counts);
    }
    slot = slot_of(counts, index);
    granule->index = index;
    granule->next = counts->hash[slot];
    counts->hash[slot] = granule;
    counts->last = granule;
    return granule;
}

uint64_t q2_counts_get(struct q2_counts *counts, uint64_t cluster)
{
    struct q2_granule *granule =
        q2_counts_find(counts, cluster >> Q2_GRANULE_BITS);

    return granule ? q2_packed_get(granule->refs, counts->order,
                                   cluster % Q2_GRANULE)
                   : 0;
}

static int by_index(const void *a, const void *b)
{
    const struct q2_granule *x = *(struct q2_granule *const *)a;
    const struct q2_granule *y = *(struct q2_granule *const *)b;

    return x->index < y->index ? -1 : x->index > y->index;
}

struct q2_granule **q2_counts_sorted(struct q2_counts *counts)
{
    struct q2_granule **all = malloc((counts->count + 1) * sizeof(*all));
    uint64_t n = 0;

    if (!all) {
        return NULL;
    }
    for (uint64_t i = 0; i <= counts->mask; i++) {
        struct q2_granule *granule = counts->hash[i];

        for (; granule; granule = granule->next) {
            all[n++] = granule;
        }
    }
    qsort(all, n, sizeof(*all), by_index);
    all[n] = NULL;
    return all;
}

uint64_t q2_packed_get(const void *refs, uint32_t order, uint64_t index)
{
    const unsigned char *p = refs;

    switch (order) {
    case 3:
        return p[index];
    case 4:
        return q2_be16(p + index * 2);
    case 5:
        return q2_be32(p + index * 4);
    case 6:
        return q2_be64(p + index * 8);
    default: {
        uint32_t bits = 1u << order;
        uint64_t bit = index << order;

        return p[bit / 8] >> bit % 8 & ((1u << bits) - 1);
    }
    }
}

void q2_packed_put(void *refs, uint32_t order, uint64_t index, uint64_t value)
{
    unsigned char *p = refs;

    switch (order) {
    case 3:
        p[index] = value;
        break;
    case 4:
        q2_put16(p + index * 2, value);
        break;
    case 5:
        q2_put32(p + index * 4, value);
        break;
    case 6:
        q2_put64(p + index * 8, value);
        break;
    default: {
        uint32_t mask = (1u << (1u << order)) - 1;
        uint64_t bit = index << order;

        p[bit / 8] = (p[bit / 8] & ~(mask << bit % 8)) | value << bit % 8;
    }
    }
}
