/* SPDX-License-Identifier: Apache-2.0 */
/*
 * comparer.c - do two roots hold the same bytes?  Block status is walked on
 * both at once; where both are zeroes nothing is read, where one is, the other
 * is looked at for zeroes.
 *
 * Several chunks are read at a time, and once one differs those before it are
 * still awaited, so that the first difference is the one that is told.  A chunk
 * is read and looked at on the loop of its slot: half of the slots may belong to
 * a second loop.  Everything else happens on the comparer's own.
 */
#include <errno.h>
#include <stdlib.h>

#include "comparer.h"

#define DEFAULT_PARALLEL 8
#define MAX_PARALLEL 64
#define DEFAULT_CHUNK (256u << 10)
#define MAX_CHUNK (64u << 20)
#define STARTS 4

static void pump(struct by_comparer *c);

static inline uint64_t min64(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* The earliest end counts; on the loop. */
static void found(struct by_comparer *c, uint32_t end, uint64_t at,
                  uint32_t side, uint32_t index, int result)
{
    if (c->progress.end && c->progress.at <= at) {
        return;
    }
    c->result = result;
    __atomic_store_n(&c->progress.at, at, __ATOMIC_RELAXED);
    __atomic_store_n(&c->progress.side, side, __ATOMIC_RELAXED);
    __atomic_store_n(&c->progress.index, index, __ATOMIC_RELAXED);
    __atomic_store_n(&c->progress.end, end, __ATOMIC_RELAXED);
}

static bool is_stopped(const struct by_comparer *c)
{
    return c->progress.end || __atomic_load_n(&c->canceled, __ATOMIC_RELAXED);
}

static void count_done(struct by_comparer *c, uint64_t bytes)
{
    __atomic_fetch_add(&c->progress.done, bytes, __ATOMIC_RELAXED);
}

/* --------------------------------------------------------------- chunks */

void compare_slot_over(struct compare_slot *slot)
{
    struct by_comparer *c = slot->comparer;

    if (slot->result < 0) {
        found(c, BY_COMPARE_FAILED, slot->at, BY_COPY_READ, slot->failed,
              slot->result);
    } else if (slot->same < slot->bytes) {
        found(c, BY_COMPARE_DIFFERENT, slot->at + slot->same, 0, 0, 0);
    }
    count_done(c, slot->bytes);
    slot->next = c->idle;
    c->idle = slot;
    c->running--;
    pump(c);
}

static void start(struct by_comparer *c)
{
    struct compare_slot *slot = c->idle;

    c->idle = slot->next;
    c->running++;
    slot->at = c->pos;
    slot->bytes = min64(c->extent_end - c->pos, c->chunk);
    slot->zero[0] = c->zero[0];
    slot->zero[1] = c->zero[1];
    c->pos += slot->bytes;
    slot->task.run = compare_slot_carry;
    if (slot->loop == c->loop) {
        compare_slot_carry(&slot->task);
    } else {
        by_loop_post(slot->loop, &slot->task);
    }
}

/* ------------------------------------------------------------ the extents */

static void status_done(struct by_request *req, int result);

/* Past its end an image is zeroes that nobody has allocated. */
static int ask(struct by_comparer *c, int i)
{
    struct compare_asking *a = &c->asking[i];

    a->answer = (struct by_block_status) {
        .size = sizeof(a->answer), .precise = true,
        .flags = BY_STATUS_ZERO, .bytes = c->ask_bytes,
    };
    if (c->pos >= c->lengths[i]) {
        return 0;
    }
    a->req = (struct by_request) {
        .size = sizeof(a->req), .op = BY_OP_BLOCK_STATUS, .offset = c->pos,
        .bytes = c->ask_bytes, .loop = c->loop, .done = status_done,
        .owner = a, .u.status = &a->answer,
    };
    return by_root_submit(c->roots[i], &a->req);
}

/* What strict mode holds against each other. */
static uint32_t told(const struct compare_asking *a)
{
    return a->answer.flags & (BY_STATUS_DATA | BY_STATUS_ZERO
                              | BY_STATUS_ALLOCATED);
}

static void answered(struct by_comparer *c)
{
    uint64_t bytes = c->ask_bytes;

    for (int i = 0; i < 2; i++) {
        if (c->ask_result[i] < 0) {
            found(c, BY_COMPARE_FAILED, c->pos, BY_COPY_STATUS, i,
                  c->ask_result[i]);
            return;
        }
        bytes = min64(bytes, c->asking[i].answer.bytes);
        c->zero[i] = c->asking[i].answer.flags & BY_STATUS_ZERO;
    }
    if (c->strict && c->pos < c->common
        && told(&c->asking[0]) != told(&c->asking[1])) {
        found(c, BY_COMPARE_STATUS, c->pos, 0, 0, 0);
        return;
    }
    c->extent_end = c->pos + bytes;
    if (c->zero[0] && c->zero[1]) {
        count_done(c, bytes);
        c->pos = c->extent_end;
    }
}

static void status_done(struct by_request *req, int result)
{
    struct compare_asking *a = req->owner;
    struct by_comparer *c = a->comparer;

    c->ask_result[a - c->asking] = result;
    if (--c->asked == 0) {
        answered(c);
        pump(c);
    }
}

static void look_ahead(struct by_comparer *c)
{
    uint64_t end = c->pos < c->common ? c->common : c->progress.total;

    c->ask_bytes = end - c->pos;
    c->asked = 0;
    for (int i = 0; i < 2; i++) {
        c->ask_result[i] = ask(c, i);
        c->asked += c->ask_result[i] == BY_PENDING;
    }
    if (!c->asked) {
        answered(c);
    }
}

/* -------------------------------------------------------------- the pump */

static bool advance(struct by_comparer *c)
{
    if (is_stopped(c) || c->asked || c->pos == c->progress.total) {
        return false;
    }
    if (c->pos == c->extent_end) {
        look_ahead(c);
        return !c->asked;
    }
    if (!c->idle) {
        return false;
    }
    start(c);
    return true;
}

static bool is_over(const struct by_comparer *c)
{
    return !c->running && !c->asked
        && (is_stopped(c) || c->pos == c->progress.total);
}

static void end(struct by_comparer *c)
{
    uint64_t tag = c->tag;
    int result = c->result;

    if (!c->progress.end && __atomic_load_n(&c->canceled, __ATOMIC_RELAXED)) {
        result = -ECANCELED;
    }
    if (by_kick_end(&c->kick)) {
        by_report(tag, BY_EVENT_DONE, result, 0, 0);
    }
}

static void pump(struct by_comparer *c)
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
    } else if (is_over(c)) {
        end(c);
    }
}

static void kicked(void *owner)
{
    pump(owner);
}

/* ------------------------------------------------------------------ life */

static void prepare(struct by_comparer *c, const struct by_compare_params *p)
{
    uint64_t chunk = p->chunk ? min64(p->chunk, MAX_CHUNK) : DEFAULT_CHUNK;

    c->loop = by_root_node(p->roots[0])->home;
    c->strict = p->strict;
    c->tag = p->tag;
    c->chunk = chunk < COMPARE_SECTOR
        ? COMPARE_SECTOR : chunk / COMPARE_SECTOR * COMPARE_SECTOR;
    by_kick_init(&c->kick, c->loop, kicked, c);
    for (int i = 0; i < 2; i++) {
        c->roots[i] = p->roots[i];
        c->lengths[i] = by_root_length(p->roots[i]);
        c->asking[i].comparer = c;
    }
    c->common = min64(c->lengths[0], c->lengths[1]);
    c->progress.total = c->lengths[0] + c->lengths[1] - c->common;
    for (uint32_t i = c->nslots; i--; ) {
        struct compare_slot *slot = &c->slots[i];

        slot->comparer = c;
        slot->loop = p->helper && i % 2 ? p->helper : c->loop;
        slot->task.owner = slot;
        slot->sides[0].slot = slot->sides[1].slot = slot;
        slot->next = c->idle;
        c->idle = slot;
    }
}

struct by_comparer *by_comparer_start(const struct by_compare_params *p)
{
    uint32_t nslots = p->parallel ? p->parallel : DEFAULT_PARALLEL;
    struct by_comparer *c;

    if (!p->roots[0] || !p->roots[1] || nslots > MAX_PARALLEL) {
        return NULL;
    }
    c = calloc(1, sizeof(*c) + nslots * sizeof(c->slots[0]));
    if (!c) {
        return NULL;
    }
    c->nslots = nslots;
    prepare(c, p);
    by_kick_send(&c->kick);
    return c;
}

void by_comparer_progress(const struct by_comparer *c,
                          struct by_compare_progress *out)
{
    *out = (struct by_compare_progress) {
        .done = __atomic_load_n(&c->progress.done, __ATOMIC_RELAXED),
        .total = c->progress.total,
        .at = __atomic_load_n(&c->progress.at, __ATOMIC_RELAXED),
        .end = __atomic_load_n(&c->progress.end, __ATOMIC_RELAXED),
        .side = __atomic_load_n(&c->progress.side, __ATOMIC_RELAXED),
        .index = __atomic_load_n(&c->progress.index, __ATOMIC_RELAXED),
    };
}

void by_comparer_cancel(struct by_comparer *c)
{
    __atomic_store_n(&c->canceled, true, __ATOMIC_RELAXED);
    by_kick_send(&c->kick);
}

void by_comparer_free(struct by_comparer *c)
{
    by_kick_destroy(&c->kick);
    free(c);
}
