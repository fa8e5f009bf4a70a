/* SPDX-License-Identifier: Apache-2.0 */
/*
 * receive.c - bytes in.
 *
 * One receive is always under way, so that the end of a server is noticed
 * when it comes.  It fills the connection's buffer; when the buffer ends
 * inside the data of a read, the next receive goes straight into the
 * request's memory, and what follows the data into the buffer.
 */
#include <errno.h>
#include <string.h>

#include "client.h"

/* From here on data is worth a receive of its own that waits for all. */
#define WAIT_ALL (64 * 1024)

static void receive_done(struct by_io *io, int result);

void nbd_receive_init(struct nbd_connection *connection)
{
    memset(&connection->rx, 0, sizeof(connection->rx));
    connection->rx.size = sizeof(connection->rx);
    connection->rx.op = BY_IO_RECVMSG;
    connection->rx.fd = connection->fd;
    connection->rx.msg = &connection->rx_msg;
    connection->rx.done = receive_done;
    connection->rx.owner = connection;
    connection->rx_msg.msg_iov = connection->rx_iov;
}

/* What is left is less than its stage needs: move it to the front. */
static void compact(struct nbd_connection *connection)
{
    uint32_t left = connection->end - connection->start;

    if (connection->start && left) {
        memmove(connection->buffer, connection->buffer + connection->start,
                left);
    }
    connection->start = 0;
    connection->end = left;
}

/* Describe the rest of the data; answers the number of pieces. */
static int aim(struct nbd_connection *connection)
{
    const struct by_request *req;

    if (connection->stage != NBD_DATA) {
        connection->rx_direct = 0;
        return 0;
    }
    req = connection->call->req;
    connection->rx_direct = connection->left;
    return by_iov_slice(req->iov, req->niov,
                        req->iov_skip + connection->data_at, connection->left,
                        connection->rx_iov, BY_NBDC_IOV);
}

void nbd_receive(struct nbd_connection *connection)
{
    struct iovec *iov = connection->rx_iov;
    int n;

    if (connection->dead || connection->rx_busy ||
        connection->client->leaving) {
        return;
    }
    compact(connection);
    n = aim(connection);
    if (n < 0) { /* more pieces than a receive takes: through the buffer */
        connection->rx_direct = 0;
        n = 0;
    }
    connection->rx.flags = 0;
    if (connection->rx_direct >= WAIT_ALL) {
        connection->rx.flags = MSG_WAITALL;
    } else {
        iov[n].iov_base = connection->buffer + connection->end;
        iov[n++].iov_len = NBD_RX_BYTES - connection->end;
    }
    connection->rx_msg.msg_iovlen = n;
    connection->rx_busy = true;
    nbd_count(&connection->client->stats.receives, 1);
    connection->client->api->io_submit(connection->client->loop,
                                       &connection->rx);
}

/* Share the bytes out over what the receive had asked for. */
static int received(struct nbd_connection *connection, uint64_t count)
{
    uint64_t direct = count < connection->rx_direct ? count
                                                    : connection->rx_direct;
    int result = 0;

    nbd_count(&connection->client->stats.progress, count);
    connection->end += count - direct;
    if (direct) {
        result = nbd_read_direct(connection, direct);
    }
    return result < 0 ? result : nbd_read(connection);
}

static void receive_done(struct by_io *io, int result)
{
    struct nbd_connection *connection = io->owner;
    struct by_nbdc *client = connection->client;

    connection->rx_busy = false;
    if (connection->dead || (result == -ECANCELED && client->leaving)) {
        nbd_connection_settle(connection);
        return;
    }
    if (result > 0) {
        if (received(connection, result) < 0) {
            nbd_connection_fail(connection, -EPROTO, true);
        }
    } else if (result != -EINTR && result != -EAGAIN) {
        nbd_connection_fail(connection, result ? result : -ECONNRESET, false);
    }
    nbd_receive(connection);
    if (client->waiting.first) {
        nbd_pump(client);
    }
    nbd_connection_settle(connection);
}
