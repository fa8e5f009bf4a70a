/* SPDX-License-Identifier: Apache-2.0 */
/*
 * send.c - bytes out.
 *
 * Replies that become ready in a round leave together in one sendmsg at the
 * round's end; while one is under way the next ones gather.  A sendmsg that
 * takes only a part is continued from where it stopped.
 */
#include <errno.h>

#include "connection.h"

static void send_done(struct by_io *io, int result);
static void flush(struct by_task *task);

void nbd_send_init(struct by_nbd_connection *connection)
{
    connection->tx.size = sizeof(connection->tx);
    connection->tx.op = BY_IO_SENDMSG;
    connection->tx.fd = connection->fd;
    connection->tx.flags = MSG_NOSIGNAL;
    connection->tx.msg = &connection->tx_msg;
    connection->tx.done = send_done;
    connection->tx.owner = connection;
    connection->tx_msg.msg_iov = connection->tx_iov;
    connection->flush.run = flush;
    connection->flush.owner = connection;
}

static void flush_soon(struct by_nbd_connection *connection)
{
    if (!connection->flush_due) {
        connection->flush_due = true;
        connection->api->loop_defer(connection->loop, &connection->flush);
    }
}

/* Pieces of the queue's replies, in order, up to the limits of a sendmsg. */
static int gather(struct by_nbd_connection *connection)
{
    struct nbd_request *request = connection->out_first;
    uint64_t bytes = 0;
    int n = 0;

    for (; request; request = request->next) {
        for (uint32_t i = request->sent; i < request->npieces; i++) {
            if (n == NBD_TX_IOV || bytes >= NBD_TX_BYTES) {
                return n;
            }
            connection->tx_iov[n++] = request->pieces[i];
            bytes += request->pieces[i].iov_len;
        }
    }
    return n;
}

static void transmit(struct by_nbd_connection *connection)
{
    connection->tx_msg.msg_iovlen = gather(connection);
    connection->tx_busy = true;
    nbd_count(&connection->stats.sends, 1);
    connection->api->io_submit(connection->loop, &connection->tx);
}

/* The end of a round in which a reply got ready or a request ended. */
static void flush(struct by_task *task)
{
    struct by_nbd_connection *connection = task->owner;

    connection->flush_due = false;
    if (connection->dead) {
        nbd_send_drop(connection);
        nbd_maybe_end(connection);
        return;
    }
    if (connection->out_first && !connection->tx_busy) {
        transmit(connection);
    }
}

void nbd_send_queue(struct nbd_request *request)
{
    struct by_nbd_connection *connection = request->connection;

    request->next = NULL;
    if (connection->out_first) {
        connection->out_last->next = request;
    } else {
        connection->out_first = request;
    }
    connection->out_last = request;
    if (!connection->tx_busy) {
        flush_soon(connection);
    }
}

/* The client is gone; what sendmsg still looks at waits for its end. */
void nbd_send_drop(struct by_nbd_connection *connection)
{
    struct nbd_request *request;

    while (!connection->tx_busy && (request = connection->out_first)) {
        connection->out_first = request->next;
        nbd_request_free(request);
    }
}

/* `left` bytes more of this reply are sent; answers what is left over. */
static uint64_t consume(struct nbd_request *request, uint64_t left)
{
    while (request->sent < request->npieces) {
        struct iovec *piece = &request->pieces[request->sent];

        if (left < piece->iov_len) {
            piece->iov_base = (uint8_t *)piece->iov_base + left;
            piece->iov_len -= left;
            return 0;
        }
        left -= piece->iov_len;
        request->sent++;
    }
    return left;
}

static void sent(struct by_nbd_connection *connection, uint64_t bytes)
{
    struct nbd_request *request;

    nbd_count(&connection->stats.bytes_out, bytes);
    nbd_progress(connection);
    while (bytes && (request = connection->out_first)) {
        bytes = consume(request, bytes);
        if (request->sent < request->npieces) {
            return;
        }
        connection->out_first = request->next;
        nbd_request_free(request);
    }
}

static void send_done(struct by_io *io, int result)
{
    struct by_nbd_connection *connection = io->owner;

    connection->tx_busy = false;
    if (result > 0) {
        sent(connection, result);
    } else if (result < 0 && result != -EINTR && result != -EAGAIN) {
        nbd_kill(connection, result);
    }
    if (connection->dead) {
        nbd_send_drop(connection);
    } else if (connection->out_first) {
        flush_soon(connection);
    }
    if (connection->paused && !connection->stopping) {
        nbd_parse_buffer(connection);
    }
    nbd_maybe_end(connection);
}
