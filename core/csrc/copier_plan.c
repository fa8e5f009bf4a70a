/* SPDX-License-Identifier: Apache-2.0 */
/*
 * copier_plan.c - what is next to copy: by what the source, and where only
 * what is missing is copied the target, say of their block status.
 *
 * Where the copy has units, an extent that ends inside of one is cut back to
 * whole units; one that has no whole unit is made one, and its bytes are read,
 * whatever they are.
 */
#include <errno.h>

#include "copier.h"

#define SECTOR 512

static uint64_t range_end(const struct by_copy_range *range)
{
    return range->target_offset + range->bytes;
}

uint32_t copier_range_of(const struct by_copier *c, uint64_t at)
{
    uint32_t low = 0, high = c->nranges - 1;

    while (low < high) {
        uint32_t middle = low + (high - low) / 2;

        if (at < range_end(&c->ranges[middle])) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    return low;
}

bool copier_zero_there(const struct by_copier *c, uint64_t at, uint64_t bytes)
{
    uint32_t i;

    if (copier_is(c, BY_COPY_TARGET_ZERO)) {
        return true;
    }
    for (i = copier_range_of(c, at);
         i < c->nranges && c->ranges[i].target_offset < at + bytes; i++) {
        if (!c->ranges[i].target_zero) {
            return false;
        }
    }
    return true;
}

/* The end of the ranges that follow each other without a gap. */
static uint64_t region_end(const struct by_copier *c)
{
    uint32_t i = c->range;

    while (i + 1 < c->nranges
           && c->ranges[i + 1].target_offset == range_end(&c->ranges[i])) {
        i++;
    }
    return range_end(&c->ranges[i]);
}

/* False when there is none any more. */
static bool find_range(struct by_copier *c)
{
    while (c->range < c->nranges && c->pos >= range_end(&c->ranges[c->range])) {
        c->range++;
    }
    if (c->range == c->nranges) {
        return false;
    }
    if (c->pos < c->ranges[c->range].target_offset) {
        c->pos = c->ranges[c->range].target_offset;
    }
    return true;
}

/* ------------------------------------------------------------- answers */

/* The extent that follows has these many bytes and this kind. */
static void found(struct by_copier *c, uint64_t bytes, enum copy_kind kind)
{
    if (c->extent.at == c->extent.end) {
        c->extent.at = c->pos;
        c->extent.kind = kind;
    } else if (c->extent.kind != kind) {
        uint64_t whole = c->extent.end & ~(uint64_t)(c->unit - 1);

        if (whole > c->extent.at) {
            c->extent.end = c->pos = whole;
            c->range = copier_range_of(c, whole);
            return;
        }
        c->extent.kind = COPY_DATA;
        bytes = min64(bytes, whole + c->unit - c->extent.end);
    }
    c->pos += bytes;
    c->extent.end = c->pos;
}

static enum copy_kind kind_of(const struct by_copier *c)
{
    const struct by_copy_range *range = &c->ranges[c->range];
    uint32_t flags = c->answer.flags;

    if (range->layers && !(flags & BY_STATUS_ALLOCATED)) {
        return COPY_SKIP;
    }
    /* With a reference, zeroes on both sides are the same in any case. */
    return (c->sparse || c->reference) && (flags & BY_STATUS_ZERO)
        ? COPY_ZERO : COPY_DATA;
}

/* Salvaging: less at a time, until the status of a sector is known to be lost. */
static int failed(struct by_copier *c, int result)
{
    uint64_t bytes = c->ask_bytes;

    if (!copier_is(c, BY_COPY_SALVAGE) || c->stage != ASK_SOURCE) {
        copier_fail(c, result, c->pos, BY_COPY_STATUS, c->range);
        return result;
    }
    if (bytes > SECTOR) {
        c->ask_limit = (bytes / 2 + SECTOR - 1) / SECTOR * SECTOR;
        return 0;
    }
    by_report(c->tag, BY_EVENT_UNREADABLE_STATUS, result, c->pos, bytes);
    found(c, bytes, COPY_DATA);
    return 0;
}

/* -------------------------------------------------------------- asking */

static void asked(struct by_request *req, int result);

static int ask(struct by_copier *c, struct by_root *root, uint64_t offset,
               uint32_t layers)
{
    c->answer = (struct by_block_status) {
        .size = sizeof(c->answer), .precise = true, .layers = layers,
    };
    c->ask = (struct by_request) {
        .size = sizeof(c->ask), .op = BY_OP_BLOCK_STATUS, .offset = offset,
        .bytes = c->ask_bytes, .loop = c->loop, .done = asked, .owner = c,
        .u.status = &c->answer,
    };
    return copier_send(c, root, &c->ask);
}

/* Beyond its end a source is zeroes, of its own layer. */
static int ask_source(struct by_copier *c)
{
    const struct by_copy_range *range = &c->ranges[c->range];
    uint64_t offset = range->offset + (c->pos - range->target_offset);
    uint64_t length = range->source ? by_root_length(range->source) : 0;

    c->stage = ASK_SOURCE;
    if (offset >= length) {
        c->answer = (struct by_block_status) {
            .bytes = c->ask_bytes,
            .flags = BY_STATUS_ZERO | BY_STATUS_ALLOCATED,
        };
        return 0;
    }
    c->ask_bytes = min64(c->ask_bytes, length - offset);
    return ask(c, range->source, offset, range->layers);
}

/* What lies past the target's end is not there yet. */
static int ask_target(struct by_copier *c)
{
    uint64_t length = by_root_length(c->target);

    if (!copier_is(c, BY_COPY_MISSING) || c->pos >= length) {
        return ask_source(c);
    }
    c->stage = ASK_TARGET;
    c->ask_bytes = min64(c->ask_bytes, length - c->pos);
    return ask(c, c->target, c->pos, 1);
}

/* Zeroes that the target shows by itself need no copy. */
static int ask_reference(struct by_copier *c)
{
    uint64_t length = by_root_length(c->reference);

    c->stage = ASK_REFERENCE;
    if (c->pos >= length) {
        return 0; /* the answer that is there says zero */
    }
    c->ask_bytes = min64(c->ask_bytes, length - c->pos);
    return ask(c, c->reference, c->pos, 0);
}

/* An answer's next question, or 0 when the extent is found. */
static int next_stage(struct by_copier *c)
{
    bool zero = c->answer.flags & BY_STATUS_ZERO;

    c->ask_bytes = min64(c->answer.bytes, c->ask_bytes);
    if (c->stage == ASK_TARGET) {
        if (!(c->answer.flags & BY_STATUS_ALLOCATED)) {
            return ask_source(c);
        }
        found(c, c->ask_bytes, COPY_SKIP);
    } else if (c->stage == ASK_REFERENCE) {
        found(c, c->ask_bytes, zero ? COPY_SKIP : COPY_DATA);
    } else if (c->reference && kind_of(c) == COPY_ZERO) {
        return ask_reference(c);
    } else {
        found(c, c->ask_bytes, kind_of(c));
    }
    c->stage = ASK_NOTHING;
    return 0;
}

/* Every answer passes here; what it leads to is the result. */
static int answered(struct by_copier *c, int result)
{
    while (result == 0 && c->stage != ASK_NOTHING) {
        result = next_stage(c);
    }
    if (result < 0) {
        result = failed(c, result);
    } else if (result == 0 && c->ask_limit <= UINT64_MAX / 2) {
        c->ask_limit *= 2;
    }
    c->asking = result == BY_PENDING;
    return result;
}

static void asked(struct by_request *req, int result)
{
    struct by_copier *c = req->owner;

    c->asking = false;
    answered(c, result);
    copier_pump(c);
}

/* ------------------------------------------------------------- the plan */

/* Is what was found whole units, so that it can be carried? */
static bool is_whole(const struct by_copier *c)
{
    return c->extent.at < c->extent.end
        && (!c->unit || !(c->extent.end & (c->unit - 1))
            || c->extent.end == region_end(c));
}

static void begin_again(struct by_copier *c)
{
    c->counting = false;
    c->range = 0;
    c->pos = c->nranges ? c->ranges[0].target_offset : 0;
    c->extent.at = c->extent.end = 0;
}

int copy_plan(struct by_copier *c)
{
    while (!is_whole(c)) {
        int result;

        if (c->asking) {
            return BY_PENDING;
        }
        if (!find_range(c)) {
            if (!c->counting) {
                return 1;
            }
            begin_again(c);
            continue;
        }
        c->ask_bytes = min64(range_end(&c->ranges[c->range]) - c->pos,
                             c->ask_limit);
        result = answered(c, ask_target(c));
        if (result) {
            return result;
        }
    }
    return 0;
}
