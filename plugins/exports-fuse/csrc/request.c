/* SPDX-License-Identifier: Apache-2.0 */
/*
 * request.c - a request's way from its message to its answer.
 */
#include <errno.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include "queue.h"

/* A payload up to here is copied to memory of its size, and the large buffer
 * that it came in is used again at once. */
#define COPIED (32 * 1024)

static struct fuse_request *request_new(struct by_fuse_queue *queue)
{
    struct fuse_request *request =
        queue->api->slab_get(queue->loop, sizeof(*request));

    if (request) {
        memset(request, 0, sizeof(*request));
        request->queue = queue;
        request->task.owner = request;
        fuse_count(&queue->stats.in_flight, 1);
    }
    return request;
}

static void request_free(struct fuse_request *request)
{
    struct by_fuse_queue *queue = request->queue;

    if (request->data) {
        queue->api->buffer_put(queue->loop, request->data,
                               request->data_bytes);
        fuse_count(&queue->stats.held, -request->data_bytes);
    }
    queue->api->slab_put(queue->loop, request, sizeof(*request));
    fuse_count(&queue->stats.in_flight, -(uint64_t)1);
    fuse_more(queue);
}

/* ---------------------------------------------------------------- answers */

static bool transmit(struct by_fuse_queue *queue, struct iovec *iov, int n)
{
    ssize_t sent;

    do {
        sent = writev(queue->fd, iov, n);
    } while (sent < 0 && errno == EINTR);
    return sent >= 0;
}

/* Where the answer's data cannot be taken, an error can; that fails too when
 * the kernel does not want any answer any more, which is no error of ours. */
static void answer(struct by_fuse_queue *queue, uint64_t unique, int error,
                   const void *body, size_t bytes)
{
    struct fuse_out_header out = { .error = error, .unique = unique };
    struct iovec iov[2] = { { &out, sizeof(out) }, { (void *)body, bytes } };

    out.len = sizeof(out) + bytes;
    if (error) {
        fuse_count(&queue->stats.failed, 1);
    }
    if (transmit(queue, iov, bytes ? 2 : 1)) {
        return;
    }
    if (errno != ENOENT && errno != ENODEV) {
        out.len = sizeof(out);
        out.error = -errno > -512 ? -errno : -EIO;
        if (transmit(queue, iov, 1)) {
            return;
        }
    }
    fuse_count(&queue->stats.unanswered, 1);
}

int fuse_reply(struct fuse_request *request, const void *body, size_t bytes)
{
    answer(request->queue, request->command.unique, 0, body, bytes);
    request_free(request);
    return BY_PENDING;
}

int fuse_reply_data(struct fuse_request *request, size_t bytes)
{
    fuse_count(&request->queue->stats.bytes_read, bytes);
    return fuse_reply(request, request->data, bytes);
}

/* The kernel takes errors below 512 only, and knows no ENOTSUP of a driver's
 * but EOPNOTSUPP, which is the same number. */
int fuse_reply_result(struct fuse_request *request, int result)
{
    if (result < -511) {
        result = -EIO;
    }
    answer(request->queue, request->command.unique, result, NULL, 0);
    request_free(request);
    return BY_PENDING;
}

int fuse_reply_nothing(struct fuse_request *request)
{
    request_free(request);
    return BY_PENDING;
}

/* ------------------------------------------------------------------ steps */

void fuse_proceed(struct fuse_request *request, int result)
{
    fuse_step *then;

    do {
        then = request->then;
        result = then(request, result);
    } while (result != BY_PENDING);
}

static void io_done(struct by_request *io, int result)
{
    fuse_proceed(io->owner, result);
}

int fuse_submit(struct fuse_request *request, enum by_op op, uint64_t offset,
                uint64_t bytes, uint32_t flags, fuse_step *then)
{
    struct by_request *io = &request->io;
    bool payload = op == BY_OP_READ || op == BY_OP_WRITE;

    request->then = then;
    request->iov = (struct iovec) { request->data, bytes };
    io->size = sizeof(*io);
    io->op = op;
    io->flags = flags;
    io->offset = offset;
    io->bytes = bytes;
    io->iov = payload ? &request->iov : NULL;
    io->niov = payload;
    io->iov_skip = 0;
    io->loop = request->queue->loop;
    io->done = io_done;
    io->owner = request;
    return request->queue->api->root_submit(request->queue->export->root, io);
}

/* ----------------------------------------------------------------- begin */

static int refuse(struct fuse_request *request, int result)
{
    (void)result;
    return request->command.answered ? fuse_reply_result(request, -ENOSYS)
                                     : fuse_reply_nothing(request);
}

static int succeed(struct fuse_request *request, int result)
{
    (void)result;
    return fuse_reply_result(request, 0);
}

/* What is not here the kernel does by itself, or fails with its own errno, once
 * it was told ENOSYS: INTERRUPT, ACCESS, POLL, IOCTL, STATX, locks, names. */
static fuse_step *step_of(uint32_t opcode)
{
    switch (opcode) {
    case FUSE_READ:
        return fuse_read;
    case FUSE_WRITE:
        return fuse_write;
    case FUSE_FLUSH:
    case FUSE_FSYNC:
        return fuse_flush;
    case FUSE_FALLOCATE:
        return fuse_fallocate;
    case FUSE_LSEEK:
        return fuse_lseek;
    case FUSE_OPEN:
        return fuse_open;
    case FUSE_GETATTR:
        return fuse_getattr;
    case FUSE_SETATTR:
        return fuse_setattr;
    case FUSE_STATFS:
        return fuse_statfs;
    case FUSE_INIT:
        return fuse_init;
    case FUSE_RELEASE:
    case FUSE_DESTROY:
        return succeed;
    default:
        return refuse;
    }
}

/* The payload is in the queue's buffer; the request gets it, or a copy. */
static bool take_payload(struct fuse_request *request)
{
    struct by_fuse_queue *queue = request->queue;
    size_t bytes = request->command.length;

    if (bytes > COPIED) {
        request->data = queue->buffer;
        request->data_bytes = FUSE_MAX_IO;
        queue->buffer = NULL;
    } else if (bytes) {
        request->data = queue->api->buffer_get(queue->loop, bytes);
        if (!request->data) {
            return false;
        }
        request->data_bytes = bytes;
        memcpy(request->data, queue->buffer, bytes);
    }
    fuse_count(&queue->stats.held, request->data_bytes);
    return true;
}

/* Of a message that is none only its length may be used. */
void fuse_handle(struct by_fuse_queue *queue, size_t bytes)
{
    struct fuse_command command;
    struct fuse_request *request;
    int error = fuse_parse(queue->head, bytes, &command);

    fuse_count(&queue->stats.requests, 1);
    if (error == -EBADMSG || (error && !command.answered)) {
        fuse_count(&queue->stats.failed, 1);
        return;
    }
    request = error ? NULL : request_new(queue);
    if (!request) {
        answer(queue, command.unique, error ? error : -ENOMEM, NULL, 0);
        return;
    }
    request->command = command;
    if (command.opcode == FUSE_WRITE && !take_payload(request)) {
        fuse_reply_result(request, -ENOMEM);
        return;
    }
    request->then = step_of(command.opcode);
    fuse_proceed(request, 0);
}
