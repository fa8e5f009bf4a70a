/* SPDX-License-Identifier: Apache-2.0 */
/*
 * copier_runs.c - what a piece that was read consists of: runs of data, of
 * zeroes, and of what the reference has as well, told apart in grains.
 */
#include <string.h>

#include "copier.h"

enum run_kind { RUN_DATA, RUN_HOLE, RUN_SAME };

static uint64_t grain_end(const struct copy_slot *slot, uint64_t from)
{
    uint64_t grain = slot->copier->grain;

    return min64(((slot->at + from) & ~(grain - 1)) + grain - slot->at,
                 slot->bytes);
}

/* Where the zeroes that begin at `from` end, by grains. */
static uint64_t zeroes_end(const struct copy_slot *slot, uint64_t from)
{
    while (from < slot->bytes) {
        uint64_t end = grain_end(slot, from);

        if (!by_is_zero(slot->buffer + from, end - from)) {
            break;
        }
        from = end;
    }
    return from;
}

static bool is_end(const struct by_copier *c, uint64_t at)
{
    const struct by_copy_range *last = &c->ranges[c->nranges - 1];

    return at >= last->target_offset + last->bytes;
}

/* Few zeroes are written as data among other data, and alone they are none. */
static bool is_hole(const struct copy_slot *slot, uint64_t from, uint64_t to)
{
    const struct by_copier *c = slot->copier;

    return to > from
        && (to - from >= c->sparse || to - from == slot->bytes
            || is_end(c, slot->at + to));
}

static uint64_t data_end(const struct copy_slot *slot, uint64_t from)
{
    while (from < slot->bytes) {
        uint64_t end = zeroes_end(slot, from);

        if (is_hole(slot, from, end)) {
            break;
        }
        from = end < slot->bytes ? grain_end(slot, end) : end;
    }
    return from;
}

static bool is_same(const struct copy_slot *slot, uint64_t from, uint64_t to)
{
    return !memcmp(slot->buffer + from, slot->other + from, to - from);
}

static uint64_t same_end(const struct copy_slot *slot, uint64_t from,
                         bool same)
{
    while (from < slot->bytes) {
        uint64_t end = grain_end(slot, from);

        if (is_same(slot, from, end) != same) {
            break;
        }
        from = end;
    }
    return from;
}

/* Where, in the piece, the source has ended: what it lacks are zeroes that are
 * to be zeroes over the reference as well. */
static uint64_t source_end(const struct copy_slot *slot)
{
    const struct by_copier *c = slot->copier;
    const struct by_copy_range *range =
        &c->ranges[copier_range_of(c, slot->at)];
    uint64_t length = range->source ? by_root_length(range->source) : 0;
    uint64_t offset = range->offset + (slot->at - range->target_offset);
    uint64_t end = length > offset ? length - offset : 0;
    uint64_t unit = c->unit ? c->unit : 1;

    if (end >= slot->bytes) {
        return slot->bytes;
    }
    return min64(end + (unit - (slot->at + end) % unit) % unit, slot->bytes);
}

static enum run_kind look(const struct copy_slot *slot, uint64_t from,
                          uint64_t *end)
{
    const struct by_copier *c = slot->copier;
    uint64_t limit = slot->bytes;

    if (c->reference) {
        *end = same_end(slot, from, true);
        if (*end > from) {
            return RUN_SAME;
        }
        limit = same_end(slot, from, false);
        *end = source_end(slot);
        if (from >= *end) {
            *end = limit;
            return RUN_HOLE;
        }
        limit = min64(limit, *end);
    }
    *end = limit;
    if (slot->kind == COPY_ZERO) {
        return RUN_HOLE;
    }
    if (!c->sparse) {
        return RUN_DATA;
    }
    *end = min64(zeroes_end(slot, from), limit);
    if (is_hole(slot, from, *end) || (c->reference && *end == limit)) {
        return RUN_HOLE;
    }
    *end = min64(data_end(slot, from), limit);
    return RUN_DATA;
}

bool copy_find_run(struct copy_slot *slot)
{
    bool zeroed = !slot->copier->reference
        && copier_zero_there(slot->copier, slot->at, slot->bytes);

    while (slot->run < slot->bytes) {
        uint64_t end;
        enum run_kind kind = look(slot, slot->run, &end);

        slot->run_bytes = end - slot->run;
        slot->run_zero = kind == RUN_HOLE;
        if (kind == RUN_DATA || (kind == RUN_HOLE && !zeroed)) {
            return true;
        }
        slot->run = end;
    }
    return false;
}
