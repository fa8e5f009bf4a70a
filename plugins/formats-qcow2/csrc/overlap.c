/* SPDX-License-Identifier: Apache-2.0 */
/*
 * overlap.c - where the file's metadata is, so that nothing else is written
 * there and nobody gets such a cluster as a new one.
 *
 * A hash of words: a cluster's index and, in the low bits, the types of what
 * it holds.  Eight neighbours have their words in one cache line, so a write
 * of many clusters is looked up at the speed of a scan.  A cluster whose types
 * have all gone stays in the hash until it grows.
 *
 * The same cluster may be added more than once as the same type (a table that
 * several snapshots share): how often more is kept apart, as it is rare.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "image.h"

#define TYPE_BITS 9
#define TYPES ((1u << TYPE_BITS) - 1)
#define MOST_CLUSTERS (1ull << 22)      /* that one call may add */

struct again {
    uint64_t key;               /* cluster and type's number, plus 1; 0: none */
    uint64_t times;             /* beyond the first */
};

struct q2_metamap {
    uint64_t *words;            /* (cluster + 1) << TYPE_BITS | types */
    uint64_t mask, used;
    struct again *again;
    uint64_t again_mask, again_used;
};

static uint64_t mix(uint64_t x)
{
    x *= 0x9e3779b97f4a7c15ull;
    return x ^ x >> 29;
}

/* ------------------------------------------------------------- the words */

/* The cluster's word, or the empty one where it would be. */
static uint64_t *look(const struct q2_metamap *map, uint64_t cluster)
{
    uint64_t at = (mix(cluster >> 3) << 3 | (cluster & 7)) & map->mask;

    while (map->words[at] && map->words[at] >> TYPE_BITS != cluster + 1) {
        at = (at + 1) & map->mask;
    }
    return &map->words[at];
}

static int make_room(struct q2_metamap *map)
{
    struct q2_metamap next = { 0 };
    uint64_t live = 0, size = 64;

    if (map->words && map->used < map->mask / 2) {
        return 0;
    }
    for (uint64_t i = 0; map->words && i <= map->mask; i++) {
        live += (map->words[i] & TYPES) != 0;
    }
    while (size / 4 < live + 1) {
        size *= 2;
    }
    next.mask = size - 1;
    next.words = calloc(size, sizeof(*next.words));
    if (!next.words) {
        return -ENOMEM;
    }
    for (uint64_t i = 0; map->words && i <= map->mask; i++) {
        if (map->words[i] & TYPES) {
            *look(&next, (map->words[i] >> TYPE_BITS) - 1) = map->words[i];
        }
    }
    free(map->words);
    map->words = next.words;
    map->mask = next.mask;
    map->used = live;
    return 0;
}

/* -------------------------------------------------------- more than once */

static struct again *look_again(const struct q2_metamap *map, uint64_t key)
{
    uint64_t at = mix(key) & map->again_mask;

    while (map->again[at].key && map->again[at].key != key) {
        at = (at + 1) & map->again_mask;
    }
    return &map->again[at];
}

static int make_room_again(struct q2_metamap *map)
{
    struct q2_metamap next = { 0 };
    uint64_t live = 0, size = 64;

    if (map->again && map->again_used < map->again_mask / 2) {
        return 0;
    }
    for (uint64_t i = 0; map->again && i <= map->again_mask; i++) {
        live += map->again[i].times != 0;
    }
    while (size / 4 < live + 1) {
        size *= 2;
    }
    next.again_mask = size - 1;
    next.again = calloc(size, sizeof(*next.again));
    if (!next.again) {
        return -ENOMEM;
    }
    for (uint64_t i = 0; map->again && i <= map->again_mask; i++) {
        if (map->again[i].times) {
            *look_again(&next, map->again[i].key) = map->again[i];
        }
    }
    free(map->again);
    map->again = next.again;
    map->again_mask = next.again_mask;
    map->again_used = live;
    return 0;
}

static uint64_t again_key(uint64_t cluster, uint32_t type)
{
    return (cluster << 4 | (uint64_t)__builtin_ctz(type)) + 1;
}

/* -------------------------------------------------------- add and remove */

static int add_one(struct q2_metamap *map, uint64_t cluster, uint32_t type)
{
    uint64_t *word;
    struct again *again;
    int result = make_room(map);

    if (result < 0) {
        return result;
    }
    word = look(map, cluster);
    if (!(*word & type)) {
        map->used += *word == 0;
        *word = (*word & TYPES) | (cluster + 1) << TYPE_BITS | type;
        return 0;
    }
    result = make_room_again(map);
    if (result < 0) {
        return result;
    }
    again = look_again(map, again_key(cluster, type));
    map->again_used += again->key == 0;
    again->key = again_key(cluster, type);
    again->times++;
    return 0;
}

static void remove_one(struct q2_metamap *map, uint64_t cluster, uint32_t type)
{
    uint64_t *word = look(map, cluster);
    struct again *again;

    if (!(*word & type)) {
        return;
    }
    again = map->again ? look_again(map, again_key(cluster, type)) : NULL;
    if (again && again->times) {
        again->times--;
    } else {
        *word &= ~(uint64_t)type;
    }
}

int q2_map_add(struct by_qcow2 *q, uint64_t offset, uint64_t bytes,
               uint32_t type)
{
    uint64_t first = q2_cluster(q, offset), end;
    int result = 0;

    type &= TYPES;
    if (!bytes || !type) {
        return 0;
    }
    if (!by_range_ok(offset, bytes, 1ull << 56)) {
        return -EFBIG;
    }
    end = q2_cluster(q, offset + bytes - 1) + 1;
    if (end - first > MOST_CLUSTERS) {
        return -EFBIG;
    }
    if (!q->map) {
        q->map = calloc(1, sizeof(*q->map));
        if (!q->map) {
            return -ENOMEM;
        }
    }
    for (uint64_t c = first; c < end; c++) {
        result = add_one(q->map, c, type);
        if (result < 0) {
            while (c-- > first) {
                remove_one(q->map, c, type);
            }
            break;
        }
    }
    return result;
}

void q2_map_remove(struct by_qcow2 *q, uint64_t offset, uint64_t bytes,
                   uint32_t type)
{
    uint64_t end;

    type &= TYPES;
    if (!bytes || !type || !q->map || !q->map->words
        || !by_range_ok(offset, bytes, 1ull << 56)) {
        return;
    }
    end = q2_cluster(q, offset + bytes - 1) + 1;
    for (uint64_t c = q2_cluster(q, offset); c < end; c++) {
        remove_one(q->map, c, type);
    }
}

void q2_map_clear(struct by_qcow2 *q)
{
    if (q->map) {
        free(q->map->words);
        free(q->map->again);
        free(q->map);
        q->map = NULL;
    }
}

/* -------------------------------------------------------------- look up */

/* The header is at 0 whether anybody says so or not. */
static uint32_t types_of(const struct by_qcow2 *q, uint64_t cluster)
{
    uint32_t types = cluster == 0 ? BY_QCOW2_OL_MAIN_HEADER : 0;

    if (q->map && q->map->words) {
        types |= *look(q->map, cluster) & TYPES;
    }
    return types;
}

uint32_t q2_map_types(const struct by_qcow2 *q, uint64_t cluster,
                      uint64_t count, uint64_t *first)
{
    uint32_t types = 0;

    for (uint64_t i = 0; i < count; i++) {
        uint32_t one = types_of(q, cluster + i);

        if (one && !types && first) {
            *first = cluster + i;
        }
        types |= one;
    }
    return types;
}

uint32_t q2_map_times(const struct by_qcow2 *q, uint64_t cluster, uint32_t type)
{
    if (!type || !(types_of(q, cluster) & type)) {
        return 0;
    }
    return q->map && q->map->again
        ? 1 + look_again(q->map, again_key(cluster, type))->times : 1;
}

static const char *name_of(uint32_t types)
{
    static const char *const names[TYPE_BITS] = {
        "qcow2_header", "active L1 table", "active L2 table", "refcount table",
        "refcount block", "snapshot table", "inactive L1 table",
        "inactive L2 table", "bitmap directory",
    };

    return names[__builtin_ctz(types)];
}

int q2_overlap_report(struct by_qcow2 *q, uint32_t types, uint64_t offset,
                      uint64_t bytes)
{
    return q2_corrupt(q, true, offset, bytes, "Preventing invalid write on "
                      "metadata (overlaps with %s)", name_of(types));
}

int q2_overlap_check(struct by_qcow2 *q, uint32_t ignore, uint64_t offset,
                     uint64_t bytes)
{
    uint32_t watched = q->set.overlap & ~ignore & TYPES, types;
    uint64_t first = q2_cluster(q, offset);

    if (!bytes || !watched) {
        return 0;
    }
    if (!by_range_ok(offset, bytes, INT64_MAX)) {
        return -EFBIG;
    }
    types = watched & q2_map_types(q, first,
        q2_cluster(q, offset + bytes - 1) + 1 - first, NULL);
    return likely(!types) ? 0 : q2_overlap_report(q, types, offset, bytes);
}
