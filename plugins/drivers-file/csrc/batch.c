/* SPDX-License-Identifier: Apache-2.0 */
/*
 * batch.c - small buffered writes, handed to the pool many at a time.
 *
 * What one round of the loop brought is collected until the round's end and
 * then given away as one piece of work.  One piece is under way at a time:
 * two threads would only wait for each other at the file's lock, spinning.
 * What comes meanwhile waits in the queue, so that batches grow with the
 * load.  Writes in flight have no order among each other.
 */
#include <stddef.h>
#include <string.h>

#include "file.h"

static int run_batch(struct by_work *work)
{
    struct by_file_lane *lane = work->owner;

    for (struct by_file_op *op = lane->batch; op; op = op->next) {
        op->result = by_file_write_now(op);
    }
    return 0;
}

static void hand_over(struct by_file_lane *lane);

static void batch_done(struct by_work *work, int result)
{
    struct by_file_lane *lane = work->owner;
    struct by_file_op *op = lane->batch;

    (void)result;
    lane->batch = NULL;
    hand_over(lane);
    while (op) {
        struct by_file_op *next = op->next;

        by_file_written(op, op->result);
        op = next;
    }
}

/* The oldest `limit` writes of the queue. */
static struct by_file_op *take(struct by_file_lane *lane, uint32_t limit)
{
    struct by_file_op *first = lane->queue;
    struct by_file_op **end = &lane->queue;

    while (*end && limit) {
        end = &(*end)->next;
        limit--;
    }
    lane->queue = *end;
    *end = NULL;
    if (!lane->queue) {
        lane->queue_end = &lane->queue;
    }
    return first;
}

static uint32_t batch_limit(const struct by_file *file)
{
    return file->max_batch && file->max_batch < BY_FILE_BATCH
        ? file->max_batch : BY_FILE_BATCH;
}

static void hand_over(struct by_file_lane *lane)
{
    if (lane->queue && !lane->batch) {
        lane->batch = take(lane, batch_limit(lane->file));
        by_file_api->pool_submit(lane->loop, &lane->work);
    }
}

static void round_ends(struct by_task *task)
{
    struct by_file_lane *lane = task->owner;

    lane->deferred = false;
    hand_over(lane);
}

void by_file_batch_add(struct by_file_lane *lane, struct by_file_op *op)
{
    op->next = NULL;
    *lane->queue_end = op;
    lane->queue_end = &op->next;
    if (!lane->deferred && !lane->batch) {
        lane->deferred = true;
        by_file_api->loop_defer(lane->loop, &lane->task);
    }
}

void by_file_batch_init(struct by_file_lane *lane)
{
    lane->queue_end = &lane->queue;
    lane->task.run = round_ends;
    lane->task.owner = lane;
    lane->work.run = run_batch;
    lane->work.done = batch_done;
    lane->work.owner = lane;
}
