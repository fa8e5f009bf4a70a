/* SPDX-License-Identifier: Apache-2.0 */
/*
 * data.c - READ, WRITE, FLUSH and FSYNC.
 */
#include <errno.h>

#include "queue.h"

static int have_read(struct fuse_request *request, int result)
{
    return result ? fuse_reply_result(request, result)
                  : fuse_reply_data(request, request->io.bytes);
}

/* Behind the end there is nothing, which is no error. */
int fuse_read(struct fuse_request *request, int result)
{
    struct by_fuse_queue *queue = request->queue;
    uint64_t offset = request->command.offset;
    uint64_t bytes = request->command.length;
    uint64_t length = fuse_length(queue->export);

    (void)result;
    if (offset >= length || !bytes) {
        return fuse_reply(request, NULL, 0);
    }
    if (bytes > length - offset) {
        bytes = length - offset;
    }
    request->data = queue->api->buffer_get(queue->loop, bytes);
    if (!request->data) {
        return fuse_reply_result(request, -ENOMEM);
    }
    request->data_bytes = bytes;
    fuse_count(&queue->stats.held, bytes);
    return fuse_submit(request, BY_OP_READ, offset, bytes, 0, have_read);
}

static int have_written(struct fuse_request *request, int result)
{
    struct fuse_write_out out = { .size = request->io.bytes };

    if (result) {
        return fuse_reply_result(request, result);
    }
    fuse_changed(request->queue->export);
    fuse_count(&request->queue->stats.bytes_written, out.size);
    return fuse_reply(request, &out, sizeof(out));
}

/* The node may have become shorter meanwhile: what fits is written. */
static int write_up_to(struct fuse_request *request, int result)
{
    const struct fuse_command *command = &request->command;
    uint64_t length = fuse_length(request->queue->export);
    uint64_t end = request->end < length ? request->end : length;

    if (result) {
        return fuse_reply_result(request, result);
    }
    if (end <= command->offset) {
        return fuse_reply_result(request, command->length ? -EIO : 0);
    }
    return fuse_submit(request, BY_OP_WRITE, command->offset,
                       end - command->offset, BY_REQ_STABLE, have_written);
}

int fuse_write(struct fuse_request *request, int result)
{
    const struct by_fuse_export *export = request->queue->export;
    const struct fuse_command *command = &request->command;
    struct fuse_write_out nothing = { .size = 0 };

    (void)result;
    if (!export->params.writable) {
        return fuse_reply_result(request, -EACCES);
    }
    if (!command->length) {
        return fuse_reply(request, &nothing, sizeof(nothing));
    }
    request->end = command->offset + command->length;
    return export->params.growable ? fuse_grow(request, write_up_to)
                                   : write_up_to(request, 0);
}

static int have_flushed(struct fuse_request *request, int result)
{
    return fuse_reply_result(request, result);
}

int fuse_flush(struct fuse_request *request, int result)
{
    (void)result;
    if (!request->queue->export->params.writable) {
        return fuse_reply_result(request, 0);
    }
    return fuse_submit(request, BY_OP_FLUSH, 0, 0, 0, have_flushed);
}
