/* SPDX-License-Identifier: Apache-2.0 */
/*
 * comparer_slot.c - one chunk of a comparison, read from both sides and looked at
 * on the loop of its slot.
 */
#include <errno.h>
#include <string.h>

#include "comparer.h"

static inline uint64_t sector_at(uint64_t at, uint64_t bytes)
{
    return bytes - at < COMPARE_SECTOR ? bytes - at : COMPARE_SECTOR;
}

static uint64_t first_difference(const struct compare_slot *slot)
{
    const unsigned char *a = slot->sides[0].buffer;
    const unsigned char *b = slot->sides[1].buffer;
    uint64_t at = 0;

    while (at < slot->bytes) {
        uint64_t bytes = sector_at(at, slot->bytes);

        if (memcmp(a + at, b + at, bytes)) {
            break;
        }
        at += bytes;
    }
    return at;
}

static uint64_t first_data(const unsigned char *buffer, uint64_t bytes)
{
    uint64_t at = 0;

    while (at < bytes && by_is_zero(buffer + at, sector_at(at, bytes))) {
        at += sector_at(at, bytes);
    }
    return at;
}

/* Where the chunk's sides differ; its length when they do not. */
static uint64_t difference(const struct compare_slot *slot)
{
    const struct compare_side *a = &slot->sides[0], *b = &slot->sides[1];

    if (a->req.bytes && b->req.bytes) {
        return memcmp(a->buffer, b->buffer, slot->bytes)
            ? first_difference(slot) : slot->bytes;
    }
    a = a->req.bytes ? a : b;
    return by_is_zero(a->buffer, slot->bytes)
        ? slot->bytes : first_data(a->buffer, slot->bytes);
}

static void arrive_back(struct by_task *task)
{
    compare_slot_over(task->owner);
}

/* On the slot's loop: nothing is in flight. */
static void look(struct compare_slot *slot)
{
    struct by_comparer *c = slot->comparer;

    if (slot->result == 0) {
        slot->same = difference(slot);
    }
    for (int i = 0; i < 2; i++) {
        by_buffer_put(slot->loop, slot->sides[i].buffer, c->chunk);
        slot->sides[i].buffer = NULL;
    }
    if (slot->loop == c->loop) {
        compare_slot_over(slot);
        return;
    }
    slot->task.run = arrive_back;
    by_loop_post(c->loop, &slot->task);
}

static void read_done(struct by_request *req, int result)
{
    struct compare_side *side = req->owner;
    struct compare_slot *slot = side->slot;

    if (result < 0 && slot->result == 0) {
        slot->result = result;
        slot->failed = side - slot->sides;
    }
    if (--slot->reads == 0) {
        look(slot);
    }
}

static int read_side(struct compare_side *side, struct by_root *root)
{
    struct compare_slot *slot = side->slot;

    side->buffer = by_buffer_get(slot->loop, slot->comparer->chunk);
    if (!side->buffer) {
        return -ENOMEM;
    }
    side->iov = (struct iovec) { side->buffer, slot->bytes };
    side->req = (struct by_request) {
        .size = sizeof(side->req), .op = BY_OP_READ, .offset = slot->at,
        .bytes = slot->bytes, .iov = &side->iov, .niov = 1,
        .loop = slot->loop, .done = read_done, .owner = side,
    };
    return by_root_submit(root, &side->req);
}

/* On the slot's loop.  One read is held back, so that the chunk is looked at
 * only when both were sent. */
void compare_slot_carry(struct by_task *task)
{
    struct compare_slot *slot = task->owner;

    slot->reads = 1;
    slot->result = 0;
    for (int i = 0; i < 2; i++) {
        slot->sides[i].req.owner = &slot->sides[i];
        slot->sides[i].req.bytes = 0;
    }
    for (int i = 0; i < 2; i++) {
        int result = 0;

        if (!slot->zero[i]) {
            slot->reads++;
            result = read_side(&slot->sides[i], slot->comparer->roots[i]);
            if (result != BY_PENDING) {
                read_done(&slot->sides[i].req, result);
            }
        }
    }
    if (--slot->reads == 0) {
        look(slot);
    }
}
