/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ranges.c - random ranges enter and leave: nobody runs beside a range that
 * it clashes with, nobody overtakes one, and whoever waits runs in the end.
 *
 * Usage: ranges [SEED]; exits 0 when every check held.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../csrc/quorum.h"

#define CHECK(x) do { if (!(x)) { \
    fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #x); exit(1); } \
} while (0)

enum { COUNT = 64, SPACE = 40, STEPS = 200000 };

struct entry {
    struct by_range range;
    uint64_t born;
    bool used, runs;
};

static struct entry entries[COUNT];
static struct by_ranges ranges;
static uint64_t luck = 1, clock_now;

static uint64_t next_random(void)
{
    luck ^= luck << 13;
    luck ^= luck >> 7;
    luck ^= luck << 17;
    return luck;
}

static bool clash(const struct by_range *a, const struct by_range *b)
{
    return (a->alone || b->alone) && a->offset < b->end && b->offset < a->end;
}

/* May it run: nothing that came earlier clashes with it? */
static bool may_run(const struct entry *entry)
{
    for (int i = 0; i < COUNT; i++) {
        if (entries[i].used && entries[i].born < entry->born
            && clash(&entries[i].range, &entry->range)) {
            return false;
        }
    }
    return true;
}

static void runs(void *arg, struct by_range *range)
{
    struct entry *entry = (struct entry *)range;

    CHECK(arg == &ranges && entry->used && !entry->runs);
    entry->runs = true;
}

static void check_all(void)
{
    for (int i = 0; i < COUNT; i++) {
        CHECK(!entries[i].used || entries[i].runs == may_run(&entries[i]));
    }
}

static void enter(struct entry *entry)
{
    entry->range.offset = next_random() % SPACE;
    entry->range.end = entry->range.offset + next_random() % 6;
    entry->range.alone = next_random() % 3 == 0;
    entry->born = ++clock_now;
    entry->used = true;
    entry->runs = by_ranges_enter(&ranges, &entry->range);
}

static void leave(struct entry *entry)
{
    entry->used = false;
    by_ranges_leave(&ranges, &entry->range, runs, &ranges);
    by_ranges_leave(&ranges, &entry->range, runs, &ranges); /* no effect */
}

int main(int argc, char **argv)
{
    luck = argc > 1 ? strtoull(argv[1], NULL, 0) : 1;
    for (int step = 0; step < STEPS; step++) {
        struct entry *entry = &entries[next_random() % COUNT];

        if (!entry->used) {
            enter(entry);
        } else if (entry->runs) {
            leave(entry);
        }
        check_all();
    }
    for (int left = COUNT; left;) {
        left = 0;
        for (int i = 0; i < COUNT; i++) {
            if (entries[i].used && entries[i].runs) {
                leave(&entries[i]);
            }
            left += entries[i].used;
        }
        check_all();
    }
    CHECK(!ranges.first && !ranges.last);
    puts("ok");
    return 0;
}
