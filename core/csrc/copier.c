/* SPDX-License-Identifier: Apache-2.0 */
/*
 * copier.c - the life of a copier: it starts pieces of the plan while there
 * are idle slots, lets one slot after the other write, keeps to its rate, and
 * ends when nothing is left in flight.
 *
 * Unless writes may go out of order, the slots stand in line as they were
 * started, and one may write when the one before it has sent its last write.
 * So the target sees writes from front to back while several are in flight.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "copier.h"

#define DEFAULT_PARALLEL 8
#define MAX_PARALLEL 64
#define DEFAULT_CHUNK (1u << 20)
#define MAX_CHUNK (64u << 20)
#define MAX_ZEROES (1ull << 30) /* of one request */
#define SECTOR 512
#define STARTS 64               /* before others have their turn on the loop */

int copier_send(struct by_copier *c, struct by_root *root,
                struct by_request *req)
{
    return copier_is(c, BY_COPY_INNER) ? by_root_enter(root, req)
                                       : by_root_submit(root, req);
}

void copier_fail(struct by_copier *c, int result, uint64_t at,
                 enum by_copy_side side, uint32_t range)
{
    if (c->result) {
        return;
    }
    c->result = result;
    __atomic_store_n(&c->failure.failed_at, at, __ATOMIC_RELAXED);
    __atomic_store_n(&c->failure.failed_range, range, __ATOMIC_RELAXED);
    __atomic_store_n(&c->failure.failed_side, side, __ATOMIC_RELEASE);
}

/* ------------------------------------------------------------- the pump */

static bool is_stopped(const struct by_copier *c)
{
    return c->result || __atomic_load_n(&c->canceled, __ATOMIC_RELAXED);
}

static void kicked(void *owner)
{
    copier_pump(owner);
}

static void timed(struct by_io *io, int result)
{
    struct by_copier *c = io->owner;

    (void)result;
    c->timing = false;
    copier_pump(c);
}

/* Must the next request wait?  Then the pump comes back in time. */
static bool is_too_early(struct by_copier *c)
{
    uint64_t rate = __atomic_load_n(&c->rate, __ATOMIC_RELAXED);

    if (!rate || c->counting || c->free_at <= by_loop_now(c->loop)) {
        return false;
    }
    if (!c->timing) {
        c->timing = true;
        c->timer.op = BY_IO_TIMER;
        c->timer.size = sizeof(c->timer);
        c->timer.offset = c->free_at;
        c->timer.done = timed;
        c->timer.owner = c;
        by_io_submit(c->loop, &c->timer);
    }
    return true;
}

static void charge(struct by_copier *c, uint64_t bytes)
{
    uint64_t rate = __atomic_load_n(&c->rate, __ATOMIC_RELAXED);
    uint64_t now = by_loop_now(c->loop);

    if (rate) {
        if (c->free_at < now) {
            c->free_at = now;
        }
        c->free_at += (unsigned __int128)bytes * 1000000000u / rate;
    }
}

static void count_done(struct by_copier *c, uint64_t bytes)
{
    __atomic_fetch_add(&c->done, bytes, __ATOMIC_RELAXED);
}

/* What needs no request: it is passed over, or only counted. */
static bool pass_over(struct by_copier *c)
{
    uint64_t bytes = c->extent.end - c->extent.at;
    bool zero = c->extent.kind == COPY_ZERO;

    if (c->counting) {
        if (c->extent.kind == COPY_DATA) {
            __atomic_fetch_add(&c->total, bytes, __ATOMIC_RELAXED);
        }
    } else if (c->extent.kind == COPY_SKIP
               || (zero && copier_zero_there(c, c->extent.at, bytes))) {
        if (!copier_is(c, BY_COPY_COUNT)) {
            count_done(c, bytes);
        }
    } else {
        return false;
    }
    c->extent.at = c->extent.end;
    return true;
}

static void start(struct by_copier *c)
{
    struct copy_slot *slot = c->idle;
    uint64_t most = c->extent.kind == COPY_ZERO ? MAX_ZEROES : c->chunk;
    uint64_t into = c->grain < most ? c->extent.at & (c->grain - 1) : 0;
    uint64_t bytes = min64(c->extent.end - c->extent.at, most - into);

    c->idle = slot->next;
    c->running++;
    if (c->extent.kind == COPY_DATA) {
        charge(c, bytes);
    }
    copy_slot_start(slot, bytes);
}

/* True when something was done, so that it is worth trying again. */
static bool advance(struct by_copier *c)
{
    int result;

    if (c->line && c->line->step == COPY_WAITING) {
        copy_slot_write(c->line);
        return true;
    }
    if (is_stopped(c) || __atomic_load_n(&c->paused, __ATOMIC_RELAXED)) {
        return false;
    }
    result = copy_plan(c);
    if (result == 0) {
        if (pass_over(c)) {
            return true;
        }
        if (!c->idle || is_too_early(c)) {
            return false;
        }
        start(c);
        return true;
    }
    return result < 0;
}

static bool is_over(struct by_copier *c)
{
    bool finished = !is_stopped(c) && copy_plan(c) == 1;

    return (finished || is_stopped(c))
        && !c->running && !c->asking && !c->timing;
}

static void let_buffers_go(struct by_copier *c)
{
    for (uint32_t i = 0; i < c->nslots; i++) {
        struct copy_slot *slot = &c->slots[i];

        by_buffer_put(c->loop, slot->buffer, c->chunk);
        by_buffer_put(c->loop, slot->other, c->chunk);
        slot->buffer = slot->other = NULL;
    }
}

/* Nobody may post any more; then the event, behind which all is Python's. */
static void end(struct by_copier *c)
{
    uint64_t tag = c->tag;
    int result = c->result;

    if (!result && __atomic_load_n(&c->canceled, __ATOMIC_RELAXED)) {
        result = -ECANCELED;
    }
    if (by_kick_end(&c->kick)) {
        let_buffers_go(c);
        by_report(tag, BY_EVENT_DONE, result, 0, 0);
    }
}

void copier_pump(struct by_copier *c)
{
    int left = STARTS;

    if (c->pumping) {
        return;
    }
    c->pumping = true;
    while (left && advance(c)) {
        left--;
    }
    c->pumping = false;
    if (!left) {
        by_kick_send(&c->kick);
        return;
    }
    if (is_stopped(c) && c->timing) {
        by_io_cancel(c->loop, &c->timer);
    }
    if (is_over(c)) {
        end(c);
    }
}

/* ------------------------------------------------------------------ life */

static bool range_ok(const struct by_copy_range *range, uint64_t from)
{
    return range->target_offset >= from
        && by_range_ok(range->target_offset, range->bytes, INT64_MAX)
        && by_range_ok(range->offset, range->bytes, INT64_MAX);
}

static bool makes_sense(const struct by_copy_params *p)
{
    uint64_t from = 0;

    for (uint32_t i = 0; i < p->nranges; i++) {
        if (!range_ok(&p->ranges[i], from)) {
            return false;
        }
        from = p->ranges[i].target_offset + p->ranges[i].bytes;
    }
    return p->target && !(p->unit & (p->unit - 1))
        && p->unit <= MAX_CHUNK && p->parallel <= MAX_PARALLEL
        && (!(p->flags & BY_COPY_COMPRESSED) || p->unit);
}

static uint64_t power_below(uint64_t bytes)
{
    return 1ull << (63 - __builtin_clzll(bytes));
}

/* Data and zeroes are told apart in grains. */
static void set_sizes(struct by_copier *c, const struct by_copy_params *p)
{
    uint32_t align = by_root_limits(p->target)->request_alignment;
    uint64_t chunk = p->chunk ? min64(p->chunk, MAX_CHUNK) : DEFAULT_CHUNK;

    c->unit = p->unit;
    c->sparse = p->sparse / SECTOR * SECTOR;
    if (p->sparse && !c->sparse) {
        c->sparse = SECTOR;
    }
    c->grain = c->sparse ? power_below(c->sparse) : SECTOR;
    if (c->grain < align) {
        c->grain = align;
    }
    if (c->grain < c->unit) {
        c->grain = c->unit;
    }
    if (c->sparse && c->sparse < c->grain) {
        c->sparse = c->grain;
    }
    c->chunk = chunk / SECTOR * SECTOR;
    if (c->unit) {
        c->chunk = chunk < c->unit ? c->unit : chunk & ~(uint64_t)(c->unit - 1);
    } else if (!c->chunk) {
        c->chunk = SECTOR;
    }
}

static void set_total(struct by_copier *c)
{
    c->counting = copier_is(c, BY_COPY_COUNT);
    for (uint32_t i = 0; i < c->nranges && !c->counting; i++) {
        c->total += c->ranges[i].bytes;
    }
}

static void prepare(struct by_copier *c, const struct by_copy_params *p)
{
    c->loop = by_root_node(p->target)->home;
    c->target = p->target;
    c->reference = p->reference;
    c->flags = p->flags;
    c->rate = p->rate;
    c->tag = p->tag;
    c->offload = copier_is(c, BY_COPY_OFFLOAD);
    by_kick_init(&c->kick, c->loop, kicked, c);
    c->line_end = &c->line;
    c->ask_limit = UINT64_MAX;
    set_sizes(c, p);
    set_total(c);
    for (uint32_t i = c->nslots; i--; ) {
        c->slots[i].copier = c;
        c->slots[i].next = c->idle;
        c->idle = &c->slots[i];
    }
}

struct by_copier *by_copier_start(const struct by_copy_params *p)
{
    uint32_t nslots = p->parallel ? p->parallel : DEFAULT_PARALLEL;
    struct by_copier *c;

    if (!makes_sense(p)) {
        return NULL;
    }
    c = calloc(1, sizeof(*c) + nslots * sizeof(c->slots[0]));
    if (!c) {
        return NULL;
    }
    c->nslots = nslots;
    c->nranges = p->nranges;
    c->ranges = calloc(p->nranges ? p->nranges : 1, sizeof(c->ranges[0]));
    if (!c->ranges) {
        free(c);
        return NULL;
    }
    if (p->nranges) {
        memcpy(c->ranges, p->ranges, p->nranges * sizeof(c->ranges[0]));
        c->pos = c->ranges[0].target_offset;
    }
    prepare(c, p);
    by_kick_send(&c->kick);
    return c;
}

void by_copier_progress(const struct by_copier *c,
                        struct by_copy_progress *out)
{
    out->failed_side = __atomic_load_n(&c->failure.failed_side,
                                       __ATOMIC_ACQUIRE);
    out->failed_at = __atomic_load_n(&c->failure.failed_at, __ATOMIC_RELAXED);
    out->failed_range = __atomic_load_n(&c->failure.failed_range,
                                        __ATOMIC_RELAXED);
    out->done = __atomic_load_n(&c->done, __ATOMIC_RELAXED);
    out->total = __atomic_load_n(&c->total, __ATOMIC_RELAXED);
}

void by_copier_set_rate(struct by_copier *c, uint64_t rate)
{
    __atomic_store_n(&c->rate, rate, __ATOMIC_RELAXED);
    by_kick_send(&c->kick);
}

void by_copier_set_paused(struct by_copier *c, bool paused)
{
    __atomic_store_n(&c->paused, paused, __ATOMIC_RELAXED);
    by_kick_send(&c->kick);
}

void by_copier_cancel(struct by_copier *c)
{
    __atomic_store_n(&c->canceled, true, __ATOMIC_RELAXED);
    by_kick_send(&c->kick);
}

void by_copier_free(struct by_copier *c)
{
    by_kick_destroy(&c->kick);
    free(c->ranges);
    free(c);
}
