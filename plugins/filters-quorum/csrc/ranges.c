/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ranges.c - who waits for whom.
 *
 * Each range counts the earlier ones that it must not run beside; whoever
 * leaves tells those that came behind it.  So ranges that have nothing to do
 * with each other run side by side, and others in their order.
 */
#include "quorum.h"

static bool clash(const struct by_range *a, const struct by_range *b)
{
    return (a->alone || b->alone) && a->offset < b->end && b->offset < a->end;
}

bool by_ranges_enter(struct by_ranges *ranges, struct by_range *range)
{
    range->blockers = 0;
    for (const struct by_range *r = ranges->first; r; r = r->next) {
        range->blockers += clash(r, range);
    }
    range->next = NULL;
    range->prev = ranges->last;
    *(ranges->last ? &ranges->last->next : &ranges->first) = range;
    ranges->last = range;
    range->listed = true;
    return range->blockers == 0;
}

void by_ranges_leave(struct by_ranges *ranges, struct by_range *range,
                     void (*free)(void *arg, struct by_range *range),
                     void *arg)
{
    if (!range->listed) {
        return;
    }
    range->listed = false;
    *(range->prev ? &range->prev->next : &ranges->first) = range->next;
    *(range->next ? &range->next->prev : &ranges->last) = range->prev;
    for (struct by_range *r = range->next; r; r = r->next) {
        if (clash(r, range) && --r->blockers == 0) {
            free(arg, r);
        }
    }
}
