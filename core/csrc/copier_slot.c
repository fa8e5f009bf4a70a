/* SPDX-License-Identifier: Apache-2.0 */
/*
 * copier_slot.c - one piece of a copy: read, then written in runs; or handed to
 * the driver as a whole.
 */
#include <errno.h>
#include <string.h>

#include "copier.h"

#define SECTOR 512

static bool is_stopped(const struct by_copier *c)
{
    return c->result || __atomic_load_n(&c->canceled, __ATOMIC_RELAXED);
}

static void request(struct copy_slot *slot, uint8_t op, uint64_t offset,
                    uint64_t bytes, void (*done)(struct by_request *, int))
{
    slot->req = (struct by_request) {
        .size = sizeof(slot->req), .op = op, .offset = offset,
        .bytes = bytes, .loop = slot->copier->loop, .done = done,
        .owner = slot,
    };
}

static void add_payload(struct copy_slot *slot, unsigned char *at)
{
    slot->iov = (struct iovec) { at, slot->req.bytes };
    slot->req.iov = &slot->iov;
    slot->req.niov = 1;
}

/* -------------------------------------------------------------- the end */

/* Those behind it may write. */
static void leave_line(struct copy_slot *slot)
{
    struct by_copier *c = slot->copier;

    if (slot->in_line) {
        slot->in_line = false;
        c->line = slot->after;
        if (!c->line) {
            c->line_end = &c->line;
        }
    }
}

static void enter_line(struct copy_slot *slot)
{
    struct by_copier *c = slot->copier;

    slot->in_line = true;
    slot->after = NULL;
    *c->line_end = slot;
    c->line_end = &slot->after;
}

/* The slot stands at the head of the line, or in none. */
static void finish(struct copy_slot *slot)
{
    struct by_copier *c = slot->copier;

    leave_line(slot);
    if (!is_stopped(c)
        && (slot->kind == COPY_DATA || !copier_is(c, BY_COPY_COUNT))) {
        __atomic_fetch_add(&c->done, slot->bytes, __ATOMIC_RELAXED);
    }
    slot->step = COPY_IDLE;
    slot->next = c->idle;
    c->idle = slot;
    c->running--;
}

/* There is something to write, or a reason not to. */
static void wait_for_turn(struct copy_slot *slot)
{
    slot->step = COPY_WAITING;
    if (!slot->in_line) {
        copy_slot_write(slot);
    }
}

/* -------------------------------------------------------------- writing */

static void run_done(struct by_request *req, int result);

static void make_write(struct copy_slot *slot)
{
    struct by_copier *c = slot->copier;

    request(slot, slot->run_zero ? BY_OP_WRITE_ZEROES : BY_OP_WRITE,
            slot->at + slot->run, slot->run_bytes, run_done);
    if (copier_is(c, BY_COPY_UNCHANGED)) {
        slot->req.flags |= BY_REQ_WRITE_UNCHANGED;
    }
    if (slot->run_zero) {
        slot->req.flags |= BY_REQ_MAY_UNMAP;
        return;
    }
    slot->req.flags |= BY_REQ_STABLE;
    if (copier_is(c, BY_COPY_COMPRESSED)) {
        slot->req.flags |= BY_REQ_COMPRESSED;
    }
    if (copier_is(c, BY_COPY_TARGET_ZERO)) {
        slot->req.flags |= BY_REQ_FRESH;
    }
    add_payload(slot, slot->buffer + slot->run);
}

static void write_failed(struct copy_slot *slot, int result)
{
    copier_fail(slot->copier, result, slot->req.offset, BY_COPY_WRITE,
                copier_range_of(slot->copier, slot->req.offset));
}

/* Those behind it may write when the last run has been sent.  Compressed data
 * go where the last ones ended, so there one has to follow the other. */
static void write_runs(struct copy_slot *slot)
{
    struct by_copier *c = slot->copier;
    bool early = !copier_is(c, BY_COPY_COMPRESSED);

    while (slot->run < slot->bytes && !is_stopped(c)) {
        int result;

        make_write(slot);
        slot->run += slot->run_bytes;
        copy_find_run(slot);
        result = copier_send(c, c->target, &slot->req);
        if (early && slot->run == slot->bytes) {
            leave_line(slot);
        }
        if (result == BY_PENDING) {
            return;
        }
        if (result < 0) {
            write_failed(slot, result);
        }
    }
    finish(slot);
}

static void run_done(struct by_request *req, int result)
{
    struct copy_slot *slot = req->owner;

    if (result < 0) {
        write_failed(slot, result);
    }
    write_runs(slot);
    copier_pump(slot->copier);
}

/* ----------------------------------------------------------- offloading */

static void read_on(struct copy_slot *slot);

static void offloaded(struct copy_slot *slot, int result)
{
    if (result < 0 && !is_stopped(slot->copier)) {
        slot->copier->offload = false;
        slot->step = COPY_READING;
        read_on(slot);
    } else {
        finish(slot);
    }
}

static void offload_done(struct by_request *req, int result)
{
    struct copy_slot *slot = req->owner;

    offloaded(slot, result);
    copier_pump(slot->copier);
}

/* Only what lies inside one source can be handed over. */
static bool can_offload(const struct copy_slot *slot)
{
    const struct by_copier *c = slot->copier;
    const struct by_copy_range *range;
    uint64_t into;

    if (!c->offload || c->reference || slot->kind != COPY_DATA) {
        return false;
    }
    range = &c->ranges[copier_range_of(c, slot->at)];
    into = slot->at - range->target_offset;
    return range->source && into + slot->bytes <= range->bytes
        && by_range_ok(range->offset + into, slot->bytes,
                       by_root_length(range->source));
}

static void offload(struct copy_slot *slot)
{
    struct by_copier *c = slot->copier;
    const struct by_copy_range *range = &c->ranges[copier_range_of(c,
                                                                   slot->at)];
    int result;

    slot->step = COPY_OFFLOADING;
    request(slot, BY_OP_COPY_RANGE,
            range->offset + (slot->at - range->target_offset), slot->bytes,
            offload_done);
    slot->req.flags |= BY_REQ_NO_FALLBACK;
    slot->req.u.copy.target_offset = slot->at;
    result = by_root_copy(range->source, c->target, &slot->req,
                          copier_is(c, BY_COPY_INNER));
    if (result != BY_PENDING) {
        offloaded(slot, result);
    }
}

void copy_slot_write(struct copy_slot *slot)
{
    slot->step = COPY_WRITING;
    if (is_stopped(slot->copier)) {
        finish(slot);
    } else if (slot->filled == 0 && can_offload(slot)) {
        offload(slot);
    } else if (slot->kind == COPY_DATA && slot->filled == 0) {
        slot->step = COPY_READING;
        read_on(slot);
    } else {
        slot->run = 0;
        copy_find_run(slot);
        write_runs(slot);
    }
}

/* -------------------------------------------------------------- reading */

static void filled(struct copy_slot *slot, uint64_t bytes)
{
    slot->filled += bytes;
    slot->limit = min64(slot->limit * 2, slot->copier->chunk);
}

/* Salvaging: less at a time, until a sector is known to be lost. */
static void read_result(struct copy_slot *slot, int result)
{
    struct by_copier *c = slot->copier;
    uint64_t bytes = slot->req.bytes, at = slot->at + slot->filled;

    if (result >= 0) {
        filled(slot, bytes);
    } else if (!copier_is(c, BY_COPY_SALVAGE)) {
        copier_fail(c, result, at, BY_COPY_READ, copier_range_of(c, at));
    } else if (bytes > SECTOR) {
        slot->limit = (bytes / 2 + SECTOR - 1) / SECTOR * SECTOR;
    } else {
        by_report(c->tag, BY_EVENT_UNREADABLE, result, at, bytes);
        memset(slot->buffer + slot->filled, 0, bytes);
        filled(slot, bytes);
    }
}

static void read_done(struct by_request *req, int result)
{
    struct copy_slot *slot = req->owner;

    read_result(slot, result);
    read_on(slot);
    copier_pump(slot->copier);
}

/* 0 when zeroes were put there, or as submit. */
static int read_piece(struct copy_slot *slot)
{
    struct by_copier *c = slot->copier;
    uint64_t at = slot->at + slot->filled;
    const struct by_copy_range *range = &c->ranges[copier_range_of(c, at)];
    uint64_t into = at - range->target_offset;
    uint64_t length = range->source ? by_root_length(range->source) : 0;
    uint64_t bytes = min64(min64(slot->bytes - slot->filled,
                                 range->bytes - into), slot->limit);
    int result;

    if (range->offset + into >= length) {
        memset(slot->buffer + slot->filled, 0, bytes);
        filled(slot, bytes);
        return 0;
    }
    bytes = min64(bytes, length - (range->offset + into));
    request(slot, BY_OP_READ, range->offset + into, bytes, read_done);
    add_payload(slot, slot->buffer + slot->filled);
    result = copier_send(c, range->source, &slot->req);
    if (result != BY_PENDING) {
        read_result(slot, result);
    }
    return result;
}

static void refer_done(struct by_request *req, int result)
{
    struct copy_slot *slot = req->owner;

    if (result < 0) {
        copier_fail(slot->copier, result, slot->at, BY_COPY_READ, UINT32_MAX);
    }
    wait_for_turn(slot);
    copier_pump(slot->copier);
}

/* What the target would show without the copy; zeroes past its end. */
static void refer(struct copy_slot *slot)
{
    struct by_copier *c = slot->copier;
    uint64_t length = by_root_length(c->reference);
    uint64_t bytes = slot->at < length
        ? min64(slot->bytes, length - slot->at) : 0;
    int result = 0;

    slot->step = COPY_REFERRING;
    memset(slot->other + bytes, 0, slot->bytes - bytes);
    if (bytes) {
        request(slot, BY_OP_READ, slot->at, bytes, refer_done);
        add_payload(slot, slot->other);
        result = copier_send(c, c->reference, &slot->req);
    }
    if (result == BY_PENDING) {
        return;
    }
    if (result < 0) {
        copier_fail(c, result, slot->at, BY_COPY_READ, UINT32_MAX);
    }
    wait_for_turn(slot);
}

static bool have_buffers(struct copy_slot *slot)
{
    struct by_copier *c = slot->copier;

    if (!slot->buffer) {
        slot->buffer = by_buffer_get(c->loop, c->chunk);
    }
    if (c->reference && !slot->other) {
        slot->other = by_buffer_get(c->loop, c->chunk);
    }
    return slot->buffer && (slot->other || !c->reference);
}

static void read_on(struct copy_slot *slot)
{
    struct by_copier *c = slot->copier;

    if (!have_buffers(slot)) {
        copier_fail(c, -ENOMEM, slot->at, BY_COPY_READ,
                    copier_range_of(c, slot->at));
    }
    while (!is_stopped(c) && slot->filled < slot->bytes) {
        if (read_piece(slot) == BY_PENDING) {
            return;
        }
    }
    if (c->reference && !is_stopped(c)) {
        refer(slot);
    } else {
        wait_for_turn(slot);
    }
}

void copy_slot_start(struct copy_slot *slot, uint64_t bytes)
{
    struct by_copier *c = slot->copier;

    slot->at = c->extent.at;
    slot->bytes = bytes;
    slot->kind = c->extent.kind;
    slot->filled = 0;
    slot->limit = c->chunk;
    c->extent.at += bytes;
    if (!copier_is(c, BY_COPY_OUT_OF_ORDER)) {
        enter_line(slot);
    }
    if (slot->kind == COPY_ZERO || can_offload(slot)) {
        wait_for_turn(slot);
    } else {
        slot->step = COPY_READING;
        read_on(slot);
    }
}
