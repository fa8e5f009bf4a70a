/* SPDX-License-Identifier: Apache-2.0 */
/*
 * receive.c - bytes in.
 *
 * One receive is under way at a time.  It fills the connection's buffer, from
 * which every complete command is taken at once; when a payload is incomplete
 * the next receive goes straight into the request's memory, and what follows
 * the payload into the buffer behind it.
 */
#include <errno.h>
#include <linux/sockios.h>
#include <string.h>
#include <sys/ioctl.h>

#include "connection.h"

/* From here on a payload is worth a receive of its own that waits for all. */
#define WAIT_ALL (64 * 1024)

/*
 * A client that sends as fast as it is answered, and is woken for each reply,
 * would wake us for each command.  While it has replies enough to read, its
 * next commands can gather for a moment: nobody waits for them.
 */
#define BEHIND  6144              /* bytes in its socket, overhead counted */
#define THIN    2                 /* commands of a receive, at most */
#define THIN_ROW 8                /* such receives before we look */
#define HOLD_NS 40000

static void receive_done(struct by_io *io, int result);
static void hold_done(struct by_io *io, int result);

void nbd_receive_init(struct by_nbd_connection *connection)
{
    connection->rx.size = sizeof(connection->rx);
    connection->rx.op = BY_IO_RECVMSG;
    connection->rx.fd = connection->fd;
    connection->rx.msg = &connection->rx_msg;
    connection->rx.done = receive_done;
    connection->rx.owner = connection;
    connection->rx_msg.msg_iov = connection->rx_iov;
    connection->hold.size = sizeof(connection->hold);
    connection->hold.op = BY_IO_TIMER;
    connection->hold.done = hold_done;
    connection->hold.owner = connection;
}

void nbd_receive_cancel(struct by_nbd_connection *connection)
{
    if (connection->rx_busy) {
        connection->api->io_cancel(connection->loop, connection->rx_held
                                   ? &connection->hold : &connection->rx);
    }
}

/* What is left is less than a command: move it to the front. */
static void compact(struct by_nbd_connection *connection)
{
    uint32_t left = connection->end - connection->start;

    if (connection->start && left) {
        memmove(connection->buffer, connection->buffer + connection->start,
                left);
    }
    connection->start = 0;
    connection->end = left;
}

static void arm(struct by_nbd_connection *connection)
{
    struct iovec *iov = connection->rx_iov;
    int n = 0;

    if (connection->stopping || connection->paused || connection->rx_busy) {
        return;
    }
    compact(connection);
    connection->rx.flags = 0;
    if (connection->filling) {
        iov[n].iov_base = connection->fill_at;
        iov[n++].iov_len = connection->fill_left;
    }
    if (connection->filling && connection->fill_left >= WAIT_ALL) {
        connection->rx.flags = MSG_WAITALL;
    } else {
        iov[n].iov_base = connection->buffer + connection->end;
        iov[n++].iov_len = NBD_RX_BYTES - connection->end;
    }
    connection->rx_msg.msg_iovlen = n;
    connection->rx_busy = true;
    nbd_count(&connection->stats.receives, 1);
    connection->api->io_submit(connection->loop, &connection->rx);
}

/* The payload of `filling` is complete. */
static void filled(struct by_nbd_connection *connection)
{
    struct nbd_request *request = connection->filling;

    connection->filling = NULL;
    if (request->command.type == NBD_CMD_BLOCK_STATUS) {
        nbd_parse_status_payload(request->data, &connection->rules,
                                 &request->command);
    }
    nbd_request_run(request);
}

/* `count` more bytes of the payload are in place. */
static void fill(struct by_nbd_connection *connection, uint64_t count)
{
    connection->fill_at += count;
    connection->fill_left -= count;
    if (!connection->fill_left) {
        filled(connection);
    }
}

/* Serve payloads from the buffer; true when commands may follow. */
static bool take_payload(struct by_nbd_connection *connection)
{
    uint64_t have = connection->end - connection->start;

    if (connection->drain) {
        uint64_t n = connection->drain < have ? connection->drain : have;

        connection->drain -= n;
        connection->start += n;
        return !connection->drain;
    }
    if (connection->filling) {
        uint64_t n = connection->fill_left < have ? connection->fill_left
                                                  : have;

        memcpy(connection->fill_at, connection->buffer + connection->start,
               n);
        connection->start += n;
        fill(connection, n);
    }
    return !connection->filling;
}

/* Take the payload of a good command, or throw that of a bad one away. */
static void expect_payload(struct by_nbd_connection *connection,
                           struct nbd_request *request)
{
    struct nbd_command *command = &request->command;

    if (!command->error && !nbd_get_data(request)) {
        command->error = NBD_ENOMEM;
        command->message = "No memory";
    }
    if (command->error) {
        connection->drain = command->payload;
        if (command->hang_up) {
            nbd_stop(connection, -EPROTO, 2 * NBD_SECOND);
        }
        nbd_request_run(request);
        return;
    }
    connection->filling = request;
    connection->fill_at = request->data;
    connection->fill_left = command->payload;
}

static void pause_reading(struct by_nbd_connection *connection)
{
    connection->paused = true;
}

static void trace_command(struct by_nbd_connection *connection,
                          const struct nbd_command *command)
{
    static const char name[] = "nbd_receive_request";

    if (connection->api->trace_on(name)) {
        connection->api->trace(name, "fd %d cookie 0x%llx type %u flags 0x%x "
                               "offset %llu length %llu error %u",
                               connection->fd,
                               (unsigned long long)command->cookie,
                               command->type, command->flags,
                               (unsigned long long)command->offset,
                               (unsigned long long)command->length,
                               command->error);
    }
}

/* A whole header was parsed; false when there is no room to run it now. */
static bool accept_command(struct by_nbd_connection *connection,
                           const struct nbd_command *command)
{
    uint64_t cost = nbd_cost(command);
    struct nbd_request *request;

    if (connection->in_flight >= connection->max_requests ||
        !nbd_budget_take(connection, cost)) {
        return false;
    }
    request = nbd_request_new(connection, command, cost);
    if (!request) {
        nbd_budget_give(connection, cost);
        nbd_kill(connection, -ENOMEM);
        return true;
    }
    nbd_count(&connection->stats.requests, 1);
    trace_command(connection, command);
    if (command->payload) {
        expect_payload(connection, request);
    } else {
        nbd_request_run(request);
    }
    return true;
}

/* One command from the buffer; false when nothing more can be done now. */
static bool take_command(struct by_nbd_connection *connection)
{
    struct nbd_command command;
    enum nbd_parsed parsed;

    parsed = nbd_parse(connection->buffer + connection->start,
                       connection->end - connection->start,
                       &connection->rules, &command);
    if (parsed == NBD_PARSED_MORE) {
        return false;
    }
    if (parsed == NBD_PARSED_BROKEN) {
        nbd_kill(connection, -EPROTO);
        return false;
    }
    if (command.type == NBD_CMD_DISC) {
        nbd_stop(connection, 0, 10 * NBD_SECOND);
        return false;
    }
    if (!accept_command(connection, &command)) {
        pause_reading(connection);
        return false;
    }
    connection->start += nbd_header_bytes(&connection->rules);
    return true;
}

/*
 * Take what the buffer holds and ask for more.  Called when bytes came and
 * when a request has ended that others waited for.
 */
static void parse(struct by_nbd_connection *connection)
{
    connection->paused = false;
    while (!connection->stopping && connection->start < connection->end) {
        if (!take_payload(connection) || !take_command(connection)) {
            break;
        }
    }
}

void nbd_parse_buffer(struct by_nbd_connection *connection)
{
    parse(connection);
    arm(connection);
}

/* Share `result` bytes out over what the receive had asked for. */
static void received(struct by_nbd_connection *connection, uint64_t count)
{
    nbd_count(&connection->stats.bytes_in, count);
    nbd_progress(connection);
    if (connection->filling) {
        uint64_t n = connection->fill_left < count ? connection->fill_left
                                                   : count;

        connection->end += count - n;
        fill(connection, n);
    } else {
        connection->end += count;
    }
}

/* On TCP this counts what is not acknowledged, and so never holds. */
static bool is_behind(const struct by_nbd_connection *connection)
{
    int bytes = 0;

    return !ioctl(connection->fd, SIOCOUTQ, &bytes) && bytes >= BEHIND;
}

/* `commands` came with this receive. */
static void consider_hold(struct by_nbd_connection *connection,
                          uint64_t commands)
{
    if (!connection->holding && (commands > THIN ||
                                 ++connection->thin_receives < THIN_ROW)) {
        connection->thin_receives *= commands <= THIN;
        return;
    }
    connection->thin_receives = 0;
    connection->holding = is_behind(connection);
    if (connection->holding && !connection->rx_busy) {
        const struct by_api *api = connection->api;

        connection->rx_busy = connection->rx_held = true;
        connection->hold.offset = api->loop_now(connection->loop) + HOLD_NS;
        api->io_submit(connection->loop, &connection->hold);
    }
}

static void hold_done(struct by_io *io, int result)
{
    struct by_nbd_connection *connection = io->owner;

    (void)result;
    connection->rx_busy = connection->rx_held = false;
    if (connection->stopping) {
        nbd_maybe_end(connection);
    } else {
        nbd_parse_buffer(connection);
    }
}

static void receive_done(struct by_io *io, int result)
{
    struct by_nbd_connection *connection = io->owner;
    uint64_t before;

    connection->rx_busy = false;
    if (connection->stopping) {
        nbd_maybe_end(connection);
        return;
    }
    if (result == -EINTR || result == -EAGAIN) {
        arm(connection);
        return;
    }
    if (result <= 0) {
        /* The end of file without DISC: what came before is finished. */
        nbd_stop(connection, result ? result : -ECONNRESET, 10 * NBD_SECOND);
        return;
    }
    before = connection->stats.requests;
    received(connection, result);
    parse(connection);
    if (!connection->stopping && !connection->paused) {
        consider_hold(connection, connection->stats.requests - before);
    }
    arm(connection);
}
