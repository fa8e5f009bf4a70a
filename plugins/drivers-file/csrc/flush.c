/* SPDX-License-Identifier: Apache-2.0 */
/*
 * flush.c - fdatasync, shared by all that wait for one.
 *
 * A flush covers the writes that had ended when it was submitted.  Those that
 * arrive while an fdatasync runs therefore wait for the next one, together.
 *
 * Linux reports a failed write-back once and drops the pages, so the next
 * fdatasync would succeed although data is lost.  The first failure poisons
 * the file: every later flush fails until it is reopened.
 */
#include <errno.h>
#include <string.h>

#include "file.h"

void by_file_touched(struct by_file *file)
{
    /* Mostly it is set already; do not fight for the cache line. */
    if (!__atomic_load_n(&file->dirty, __ATOMIC_SEQ_CST)) {
        __atomic_store_n(&file->dirty, true, __ATOMIC_SEQ_CST);
    }
}

static void start(struct by_file_lane *lane);

static void end_all(struct by_file_op *op, int result)
{
    while (op) {
        struct by_file_op *next = op->next;

        by_file_op_end(op, result);
        op = next;
    }
}

static int poison(struct by_file *file, int result)
{
    int expected = 0;

    if (result < 0) {
        __atomic_compare_exchange_n(&file->poisoned, &expected, -result,
                                    false, __ATOMIC_SEQ_CST,
                                    __ATOMIC_SEQ_CST);
    }
    return by_file_poisoned(file);
}

static void synced(struct by_io *io, int result)
{
    struct by_file_lane *lane = io->owner;
    struct by_file_op *op = lane->syncing;

    if (result == -EINTR) {
        by_file_api->io_submit(lane->loop, io);
        return;
    }
    result = poison(lane->file, result);
    __atomic_sub_fetch(&lane->file->syncs, 1, __ATOMIC_SEQ_CST);
    lane->syncing = NULL;
    if (lane->unsynced) {
        start(lane);
    }
    end_all(op, result);
}

static void start(struct by_file_lane *lane)
{
    struct by_file *file = lane->file;

    lane->syncing = lane->unsynced;
    lane->unsynced = NULL;
    /* In this order: who sees clean data also sees who makes it so. */
    __atomic_add_fetch(&file->syncs, 1, __ATOMIC_SEQ_CST);
    __atomic_store_n(&file->dirty, false, __ATOMIC_SEQ_CST);
    memset(&lane->sync, 0, sizeof(lane->sync));
    lane->sync.size = sizeof(lane->sync);
    lane->sync.op = BY_IO_FSYNC;
    lane->sync.flags = 1;
    lane->sync.fd = file->fd;
    lane->sync.done = synced;
    lane->sync.owner = lane;
    by_file_api->io_submit(lane->loop, &lane->sync);
}

void by_file_sync(struct by_file_lane *lane, struct by_file_op *op)
{
    op->next = lane->unsynced;
    lane->unsynced = op;
    if (!lane->syncing) {
        start(lane);
    }
}

int by_file_flush(struct by_node *node, struct by_request *req)
{
    struct by_file *file = by_file_of(node);
    struct by_file_lane *lane;
    struct by_file_op *op;

    if (!__atomic_load_n(&file->dirty, __ATOMIC_SEQ_CST)
        && !__atomic_load_n(&file->syncs, __ATOMIC_SEQ_CST)) {
        return by_file_poisoned(file);
    }
    lane = by_file_lane_of(file, req->loop);
    op = lane ? by_file_op_new(node, req, false) : NULL;
    if (!op) {
        return -ENOMEM;
    }
    by_file_sync(lane, op);
    return BY_PENDING;
}
