/* SPDX-License-Identifier: Apache-2.0 */
/*
 * space.c - FALLOCATE, and LSEEK for data and holes.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <string.h>
#include <unistd.h>

#include "queue.h"

/* -------------------------------------------------------------- fallocate */

static int have_zeroed(struct fuse_request *request, int result)
{
    if (!result) {
        fuse_changed(request->queue->export);
    }
    return fuse_reply_result(request, result);
}

/* What of the range lies within the file; FALLOC_FL_KEEP_SIZE or it has grown. */
static int zero(struct fuse_request *request, int result)
{
    const struct fuse_command *command = &request->command;
    bool punch = command->flags & FALLOC_FL_PUNCH_HOLE;
    uint64_t length = fuse_length(request->queue->export);
    uint64_t end = command->offset + command->length;

    if (result) {
        return fuse_reply_result(request, result);
    }
    if (command->offset >= length) {
        return fuse_reply_result(request, command->offset > length ? -EIO : 0);
    }
    if (end > length) {
        end = length;
    }
    return fuse_submit(request, BY_OP_WRITE_ZEROES, command->offset,
                       end - command->offset,
                       BY_REQ_NO_FALLBACK | (punch ? BY_REQ_MAY_UNMAP : 0),
                       have_zeroed);
}

static int have_allocated(struct fuse_request *request, int result)
{
    return fuse_reply_result(request, result);
}

/* Allocation exists as a part of growing only. */
static int allocate(struct fuse_request *request)
{
    const struct fuse_command *command = &request->command;

    if (command->offset < fuse_length(request->queue->export)) {
        return fuse_reply_result(request, -EOPNOTSUPP);
    }
    return fuse_set_length(request, command->offset + command->length,
                           BY_PREALLOC_FALLOC, have_allocated);
}

int fuse_fallocate(struct fuse_request *request, int result)
{
    const struct fuse_command *command = &request->command;

    if (!request->queue->export->params.writable) {
        return fuse_reply_result(request, -EACCES);
    }
    request->end = command->offset + command->length;
    switch (command->flags) {
    case 0:
        return allocate(request);
    case FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE:
    case FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE:
        return zero(request, result);
    case FALLOC_FL_ZERO_RANGE:
        return fuse_grow(request, zero);
    default:
        return fuse_reply_result(request, -EOPNOTSUPP);
    }
}

/* ------------------------------------------------------------------ lseek */

#define TURN 256       /* questions before others get their turn */
#define QUESTIONS 65536 /* of one search; what is not known by then is data */

static int found(struct fuse_request *request, uint64_t at)
{
    struct fuse_lseek_out out = { .offset = at };

    return fuse_reply(request, &out, sizeof(out));
}

static int look(struct fuse_request *request, int result);

static void look_again(struct by_task *task)
{
    fuse_proceed(task->owner, 0);
}

static int have_looked(struct fuse_request *request, int result)
{
    const struct by_block_status *status = &request->status;
    bool data = (status->flags & (BY_STATUS_DATA | BY_STATUS_ZERO))
        == BY_STATUS_DATA;

    if (result) {
        return fuse_reply_result(request, result);
    }
    if (data == (request->command.flags == SEEK_DATA)) {
        return found(request, request->at);
    }
    request->at += status->bytes;
    request->then = look;
    if (request->asked % TURN) {
        return 0;
    }
    request->task.run = look_again;
    request->queue->api->loop_post(request->queue->loop, &request->task);
    return BY_PENDING;
}

static int look(struct fuse_request *request, int result)
{
    uint64_t length = fuse_length(request->queue->export);
    bool for_data = request->command.flags == SEEK_DATA;

    (void)result;
    if (request->at >= length) {
        return for_data ? fuse_reply_result(request, -ENXIO)
                        : found(request, length);
    }
    if (request->asked++ == QUESTIONS) {
        return found(request, for_data ? request->at : length);
    }
    memset(&request->status, 0, sizeof(request->status));
    request->status.size = sizeof(request->status);
    request->status.precise = true;
    request->io.u.status = &request->status;
    return fuse_submit(request, BY_OP_BLOCK_STATUS, request->at,
                       length - request->at, 0, have_looked);
}

int fuse_lseek(struct fuse_request *request, int result)
{
    const struct fuse_command *command = &request->command;
    uint64_t length = fuse_length(request->queue->export);

    if (command->flags != SEEK_DATA && command->flags != SEEK_HOLE) {
        return fuse_reply_result(request, -EINVAL);
    }
    if (command->offset > length) {
        return fuse_reply_result(request, -ENXIO);
    }
    request->at = command->offset;
    return look(request, result);
}
