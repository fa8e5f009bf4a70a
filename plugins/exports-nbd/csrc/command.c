/* SPDX-License-Identifier: Apache-2.0 */
/*
 * command.c - a request through the node.
 *
 * A command is a chain of steps.  Each step submits one operation and names
 * the step that gets its result; what the node completes at once goes round
 * in nbd_proceed, so the stack does not grow with the chain.
 */
#include <string.h>

#include "connection.h"

/* Extents of one BLOCK_STATUS: the array, and the reply made of it; a bitmap
 * has no array. */
#define STATUS_COST (256 * 1024)
#define STATUS_COST_BITMAP (16 * NBD_STATUS_EXTENTS)
#define STATUS_COST_ONE 8192
#define SPARSE_COST 8192

static uint64_t status_cost(const struct nbd_command *command)
{
    uint64_t bitmaps = command->contexts >> NBD_FIRST_BITMAP;

    return command->flags & NBD_CMD_FLAG_REQ_ONE
        ? STATUS_COST_ONE
        : STATUS_COST + __builtin_popcountll(bitmaps) * STATUS_COST_BITMAP;
}

uint64_t nbd_cost(const struct nbd_command *command)
{
    if (command->error) {
        return 0;
    }
    switch (command->type) {
    case NBD_CMD_READ:
        return command->length + SPARSE_COST;
    case NBD_CMD_WRITE:
        return command->payload;
    case NBD_CMD_BLOCK_STATUS:
        return status_cost(command);
    default:
        return 0;
    }
}

struct nbd_request *nbd_request_new(struct by_nbd_connection *connection,
                                    const struct nbd_command *command,
                                    uint64_t charge)
{
    struct nbd_request *request;

    request = connection->api->slab_get(connection->loop, sizeof(*request));
    if (!request) {
        return NULL;
    }
    /* All but the buffers at the end, which are written before they count. */
    memset(request, 0, offsetof(struct nbd_request, own_pieces));
    request->built = NULL;
    request->connection = connection;
    request->command = *command;
    request->charge = charge;
    nbd_set_in_flight(connection, connection->in_flight + 1);
    return request;
}

void nbd_request_free(struct nbd_request *request)
{
    struct by_nbd_connection *connection = request->connection;
    const struct by_api *api = connection->api;

    if (request->data_bytes) {
        api->buffer_put(connection->loop, request->data, request->data_bytes);
    }
    if (request->extents) {
        api->buffer_put(connection->loop, request->extents,
                        request->max_extents * sizeof(struct nbd_extent));
    }
    if (request->built) {
        api->buffer_put(connection->loop, request->built,
                        request->built_bytes);
    }
    nbd_budget_give(connection, request->charge);
    api->slab_put(connection->loop, request, sizeof(*request));
    nbd_set_in_flight(connection, connection->in_flight - 1);
}

/* Memory for the payload; the length was checked against max_payload. */
bool nbd_get_data(struct nbd_request *request)
{
    struct by_nbd_connection *connection = request->connection;
    struct nbd_command *command = &request->command;
    uint64_t bytes = command->payload ? command->payload : command->length;

    if (command->type == NBD_CMD_BLOCK_STATUS && bytes <= NBD_HEAD_BYTES) {
        request->data = request->head; /* gone before a reply */
        return true;
    }
    request->data = connection->api->buffer_get(connection->loop, bytes);
    request->data_bytes = request->data ? bytes : 0;
    request->iov.iov_base = request->data;
    request->iov.iov_len = bytes;
    return request->data != NULL;
}

static void proceed(struct nbd_request *request, int result)
{
    while (result != BY_PENDING) {
        result = request->then(request, result);
    }
}

static void io_done(struct by_request *io, int result)
{
    proceed(io->owner, result);
}

int nbd_submit(struct nbd_request *request, enum by_op op, uint64_t offset,
               uint64_t bytes, uint32_t flags, nbd_step *then)
{
    struct by_nbd_connection *connection = request->connection;
    struct by_request *io = &request->io;

    memset(io, 0, sizeof(*io));
    io->size = sizeof(*io);
    io->op = op;
    io->flags = flags;
    io->offset = offset;
    io->bytes = bytes;
    io->loop = connection->loop;
    io->done = io_done;
    io->owner = request;
    if (op == BY_OP_READ || op == BY_OP_WRITE) {
        io->iov = &request->iov;
        io->niov = 1;
    } else if (op == BY_OP_BLOCK_STATUS) {
        io->u.status = &request->status;
    }
    request->then = then;
    return connection->api->root_submit(connection->root, io);
}

/* ------------------------------------------------------------ the steps */

static int step_written(struct nbd_request *request, int result)
{
    return result ? nbd_reply_failure(request, result,
                                      "writing to file failed")
                  : nbd_reply_done(request);
}

static int step_flushed(struct nbd_request *request, int result)
{
    return result ? nbd_reply_failure(request, result, "flush failed")
                  : nbd_reply_done(request);
}

static int step_discarded(struct nbd_request *request, int result)
{
    if (result) {
        return nbd_reply_failure(request, result, "discard failed");
    }
    if (request->command.flags & NBD_CMD_FLAG_FUA) {
        return nbd_submit(request, BY_OP_FLUSH, 0, 0, 0, step_flushed);
    }
    return nbd_reply_done(request);
}

static int step_cached(struct nbd_request *request, int result)
{
    return result ? nbd_reply_failure(request, result, "caching data failed")
                  : nbd_reply_done(request);
}

static int begin_write_zeroes(struct nbd_request *request)
{
    const struct nbd_command *command = &request->command;
    uint32_t flags = 0;

    flags |= command->flags & NBD_CMD_FLAG_FUA ? BY_REQ_FUA : 0;
    flags |= command->flags & NBD_CMD_FLAG_NO_HOLE ? 0 : BY_REQ_MAY_UNMAP;
    flags |= command->flags & NBD_CMD_FLAG_FAST_ZERO ? BY_REQ_NO_FALLBACK : 0;
    return nbd_submit(request, BY_OP_WRITE_ZEROES, command->offset,
                      command->length, flags, step_written);
}

static int begin_write(struct nbd_request *request)
{
    const struct nbd_command *command = &request->command;
    uint32_t flags = BY_REQ_STABLE; /* the memory is ours alone */

    flags |= command->flags & NBD_CMD_FLAG_FUA ? BY_REQ_FUA : 0;
    return nbd_submit(request, BY_OP_WRITE, command->offset, command->length,
                      flags, step_written);
}

/* FUA on a READ: what QEMU makes of it is a flush first. */
static int begin_read(struct nbd_request *request)
{
    if (request->command.flags & NBD_CMD_FLAG_FUA) {
        return nbd_submit(request, BY_OP_FLUSH, 0, 0, 0, nbd_read_begin);
    }
    return nbd_read_begin(request, 0);
}

/* Commands of no bytes succeed without a word to the node. */
static bool does_nothing(const struct nbd_command *command)
{
    return !command->length && command->type != NBD_CMD_FLUSH;
}

static int begin(struct nbd_request *request, int result)
{
    const struct nbd_command *command = &request->command;

    (void)result;
    if (command->error) {
        nbd_count(&request->connection->stats.refused, 1);
        return nbd_reply_error(request, command->error, command->message);
    }
    if (does_nothing(command)) {
        return nbd_reply_done(request);
    }
    switch (command->type) {
    case NBD_CMD_READ:
        return begin_read(request);
    case NBD_CMD_WRITE:
        return begin_write(request);
    case NBD_CMD_FLUSH:
        return nbd_submit(request, BY_OP_FLUSH, 0, 0, 0, step_flushed);
    case NBD_CMD_TRIM:
        return nbd_submit(request, BY_OP_DISCARD, command->offset,
                          command->length, 0, step_discarded);
    case NBD_CMD_CACHE:
        return nbd_submit(request, BY_OP_PREFETCH, command->offset,
                          command->length, 0, step_cached);
    case NBD_CMD_WRITE_ZEROES:
        return begin_write_zeroes(request);
    default: /* BLOCK_STATUS: the parser lets nothing else through */
        return nbd_status_begin(request);
    }
}

void nbd_request_run(struct nbd_request *request)
{
    request->then = begin;
    proceed(request, 0);
}
