/* SPDX-License-Identifier: Apache-2.0 */
/*
 * status.c - what the node knows about a range: BLOCK_STATUS, and the holes
 * that a READ need not send.
 */
#include <string.h>

#include "connection.h"

#define STATUS_CALLS   4096   /* of one command, so that it ends soon */
#define SPARSE_EXTENTS 32     /* of one READ; beyond it all is data */
#define SPARSE_MIN     (64 * 1024) /* a READ worth a question that may wait */
#define SPARSE_RETRY   16     /* one in so many small READs asks again */

static int ask(struct nbd_request *request, bool precise, nbd_step *then)
{
    const struct nbd_command *command = &request->command;

    memset(&request->status, 0, sizeof(request->status));
    request->status.size = sizeof(request->status);
    request->status.precise = precise;
    request->asked++;
    return nbd_submit(request, BY_OP_BLOCK_STATUS,
                      command->offset + request->covered,
                      command->length - request->covered, 0, then);
}

/* base:allocation's flags of what the node said. */
static uint32_t state_of(const struct by_block_status *status)
{
    return (status->flags & BY_STATUS_DATA ? 0 : NBD_STATE_HOLE) |
           (status->flags & BY_STATUS_ZERO ? NBD_STATE_ZERO : 0);
}

/* qemu:allocation-depth: 0 is unallocated, 1 the node itself. */
static uint32_t depth_of(const struct by_block_status *status)
{
    return status->flags & BY_STATUS_ALLOCATED ? status->depth + 1 : 0;
}

static bool get_extents(struct nbd_request *request, uint32_t limit)
{
    struct by_nbd_connection *connection = request->connection;

    request->extents = connection->api->buffer_get(
        connection->loop, limit * sizeof(struct nbd_extent));
    request->max_extents = request->extents ? limit : 0;
    request->limit = limit;
    return request->extents != NULL;
}

/* Add the answer; false when there is no room for one more extent. */
static bool add_extent(struct nbd_request *request)
{
    uint64_t left = request->command.length - request->covered;
    struct nbd_extent extent = {
        .bytes = request->status.bytes,
        .state = state_of(&request->status),
        .depth = depth_of(&request->status),
    };
    struct nbd_extent *last = NULL;

    if (request->nextents) {
        last = &request->extents[request->nextents - 1];
    }
    if (!extent.bytes || extent.bytes > left) {
        extent.bytes = left; /* a driver's mistake shall not loop us */
    }
    if (last && last->state == extent.state && last->depth == extent.depth) {
        last->bytes += extent.bytes;
    } else if (request->nextents == request->limit) {
        return false;
    } else {
        request->extents[request->nextents++] = extent;
    }
    request->covered += extent.bytes;
    return true;
}

static bool more_wanted(const struct nbd_request *request)
{
    return request->covered < request->command.length &&
           request->asked < STATUS_CALLS;
}

static int step_status(struct nbd_request *request, int result)
{
    if (result) {
        return nbd_reply_failure(request, result, "can't get block status");
    }
    if (add_extent(request) && more_wanted(request)) {
        return ask(request, true, step_status);
    }
    return nbd_reply_status(request);
}

int nbd_status_begin(struct nbd_request *request)
{
    bool one = request->command.flags & NBD_CMD_FLAG_REQ_ONE;

    request->limit = one ? 1 : NBD_STATUS_EXTENTS;
    if (!(request->command.contexts
          & (NBD_CONTEXT_ALLOCATION | NBD_CONTEXT_DEPTH))) {
        return nbd_reply_status(request); /* bitmaps alone */
    }
    if (!get_extents(request, request->limit)) {
        return nbd_reply_error(request, NBD_ENOMEM, "No memory");
    }
    return ask(request, true, step_status);
}

/* ------------------------------------------------------- a READ's holes */

static int step_read(struct nbd_request *request, int result)
{
    if (result) {
        return nbd_reply_failure(request, result, "reading from file failed");
    }
    return request->nextents > 1 ? nbd_reply_extents(request)
                                 : nbd_reply_data(request);
}

static int read_data(struct nbd_request *request)
{
    if (!nbd_get_data(request)) {
        return nbd_reply_error(request, NBD_ENOMEM, "No memory");
    }
    return nbd_submit(request, BY_OP_READ, request->command.offset,
                      request->command.length, 0, step_read);
}

static int step_holes(struct nbd_request *request, int result)
{
    if (result) {
        /* It was only an attempt to save work; the read itself decides. */
        request->nextents = 0;
        return read_data(request);
    }
    if (add_extent(request) && more_wanted(request)) {
        return ask(request, false, step_holes);
    }
    if (request->covered < request->command.length) {
        request->nextents = 0; /* too scattered to be worth it */
    }
    if (request->nextents == 1 &&
        request->extents[0].state & NBD_STATE_ZERO) {
        return nbd_reply_hole(request);
    }
    return read_data(request);
}

/* Only zero or not counts here. */
static int step_first_hole(struct nbd_request *request, int result)
{
    uint64_t length = request->command.length;
    bool zero = !result && request->status.flags & BY_STATUS_ZERO;

    request->connection->holes_cheap &= zero;
    if (!result && request->status.bytes >= length) {
        return zero ? nbd_reply_hole(request) : read_data(request);
    }
    if (result || length < SPARSE_MIN ||
        !get_extents(request, SPARSE_EXTENTS)) {
        return read_data(request);
    }
    return step_holes(request, result);
}

/*
 * Worth asking: a large read always, because the answer costs little beside
 * it; a small one only while the node answers at once and says zero, and now
 * and then to find that out again.
 */
static bool worth_asking(struct nbd_request *request)
{
    struct by_nbd_connection *connection = request->connection;

    if (connection->rules.mode == NBD_MODE_SIMPLE ||
        request->command.flags & NBD_CMD_FLAG_DF) {
        return false;
    }
    return request->command.length >= SPARSE_MIN || connection->holes_cheap ||
           (!connection->status_waits &&
            ++connection->status_skips % SPARSE_RETRY == 0);
}

int nbd_read_begin(struct nbd_request *request, int result)
{
    int answer;

    if (result) {
        return nbd_reply_failure(request, result, "flush failed");
    }
    if (!worth_asking(request)) {
        return read_data(request);
    }
    request->connection->holes_cheap = true;
    answer = ask(request, false, step_first_hole);
    request->connection->status_waits = answer == BY_PENDING;
    request->connection->holes_cheap = answer != BY_PENDING;
    return answer;
}
