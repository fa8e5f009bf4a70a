/* SPDX-License-Identifier: Apache-2.0 */
/*
 * check_seen.c - which L2 tables were visited.  Snapshots share most of them,
 * so each is read once for its first reference and once for all others.
 */
#include <errno.h>
#include <stdlib.h>

#include "check.h"

void q2_seen_free(struct q2_seen *seen)
{
    free(seen->tables);
    memset(seen, 0, sizeof(*seen));
}

static struct q2_seen_table *find(const struct q2_seen *seen, uint64_t offset)
{
    uint64_t at = offset * 0x9e3779b97f4a7c15ull >> 20 & seen->mask;

    while (seen->tables[at].offset && seen->tables[at].offset != offset) {
        at = (at + 1) & seen->mask;
    }
    return &seen->tables[at];
}

static int widen(struct q2_seen *seen)
{
    uint64_t slots = seen->tables ? (seen->mask + 1) * 2 : 256;
    struct q2_seen wide = { .count = seen->count, .mask = slots - 1 };

    wide.tables = calloc(slots, sizeof(*wide.tables));
    if (!wide.tables) {
        return -ENOMEM;
    }
    for (uint64_t i = 0; seen->tables && i <= seen->mask; i++) {
        if (seen->tables[i].offset) {
            *find(&wide, seen->tables[i].offset) = seen->tables[i];
        }
    }
    free(seen->tables);
    *seen = wide;
    return 0;
}

int q2_seen_add(struct q2_seen *seen, uint64_t offset, bool active)
{
    struct q2_seen_table *table;
    int result = 0;

    if (!seen->tables || seen->count * 2 > seen->mask) {
        result = widen(seen);
    }
    if (result < 0) {
        return result;
    }
    table = find(seen, offset);
    if (table->offset) {
        table->more++;
        table->active += active;
        return 0;
    }
    table->offset = offset;
    seen->count++;
    return 1;
}

uint64_t q2_seen_more(const struct q2_seen *seen, uint64_t offset)
{
    return seen->tables ? find(seen, offset)->more : 0;
}
