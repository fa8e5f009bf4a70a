/* SPDX-License-Identifier: Apache-2.0 */
/*
 * send.c - commands out.
 *
 * Commands of a round leave together in one sendmsg at its end, payloads from
 * where they lie; while one is under way the next ones gather.
 */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "client.h"

static void send_done(struct by_io *io, int result);
static void flush(struct by_task *task);

void nbd_send_init(struct nbd_connection *connection)
{
    memset(&connection->tx, 0, sizeof(connection->tx));
    connection->tx.size = sizeof(connection->tx);
    connection->tx.op = BY_IO_SENDMSG;
    connection->tx.fd = connection->fd;
    connection->tx.flags = MSG_NOSIGNAL;
    connection->tx.msg = &connection->tx_msg;
    connection->tx.done = send_done;
    connection->tx.owner = connection;
    connection->flush.run = flush;
    connection->flush.owner = connection;
}

static uint32_t put_header(const struct nbd_connection *connection,
                           uint8_t *at, uint16_t flags, uint16_t type,
                           uint64_t cookie, uint64_t offset, uint64_t length)
{
    bool extended = connection->facts.mode == BY_NBDC_EXTENDED;

    if (extended && type == NBD_CMD_WRITE) {
        flags |= NBD_CMD_FLAG_PAYLOAD_LEN;
    }
    nbd_put32(at, extended ? NBD_EXTENDED_REQUEST_MAGIC : NBD_REQUEST_MAGIC);
    nbd_put16(at + 4, flags);
    nbd_put16(at + 6, type);
    nbd_put64(at + 8, cookie);
    nbd_put64(at + 16, offset);
    if (extended) {
        nbd_put64(at + 24, length);
        return NBD_EXTENDED_REQUEST_BYTES;
    }
    nbd_put32(at + 24, length);
    return NBD_REQUEST_BYTES;
}

static void put_call(struct nbd_connection *connection, struct nbd_call *call,
                     struct iovec *iov)
{
    uint64_t offset = call->req->offset;

    if (call->type == NBD_CMD_BLOCK_STATUS) {
        offset &= ~(uint64_t)(connection->client->facts.block - 1);
        nbd_count(&call->client->stats.asked, 1);
    }
    call->changes = call->client->changes;
    call->sending = true;
    iov->iov_base = call->head;
    iov->iov_len = put_header(connection, call->head, call->flags, call->type,
                              nbd_slot_cookie(connection, call), offset,
                              call->length);
}

/* Describe the call behind `n` pieces; answers their number then, or -1. */
static int put_pieces(struct nbd_connection *connection,
                      struct nbd_call *call, int n)
{
    const struct by_request *req = call->req;
    int more = 0;

    if (n == NBD_TX_IOV) {
        return -1;
    }
    if (call->type == NBD_CMD_WRITE) {
        more = by_iov_slice(req->iov, req->niov, req->iov_skip, req->bytes,
                            connection->tx_iov + n + 1, NBD_TX_IOV - n - 1);
        if (more < 0) {
            return -1;
        }
    }
    nbd_slot_take(connection, call);
    put_call(connection, call, &connection->tx_iov[n]);
    return n + 1 + more;
}

static void gather(struct nbd_connection *connection)
{
    uint64_t bytes = 0;
    int n = 0;

    while (connection->out.first && bytes < NBD_TX_BYTES) {
        struct nbd_call *call = connection->out.first;
        int pieces = put_pieces(connection, call, n);

        if (pieces < 0) {
            break;
        }
        n = pieces;
        bytes += call->type == NBD_CMD_WRITE ? call->length : 0;
        nbd_pop(&connection->out);
        nbd_push(&connection->sent, call);
    }
    connection->tx_at = 0;
    connection->tx_end = n;
}

static void transmit(struct nbd_connection *connection)
{
    connection->tx_msg.msg_iov = connection->tx_iov + connection->tx_at;
    connection->tx_msg.msg_iovlen = connection->tx_end - connection->tx_at;
    connection->tx_busy = true;
    nbd_count(&connection->client->stats.sends, 1);
    connection->client->api->io_submit(connection->client->loop,
                                       &connection->tx);
}

static void flush(struct by_task *task)
{
    struct nbd_connection *connection = task->owner;

    connection->flush_due = false;
    if (!connection->dead && !connection->tx_busy && connection->out.first) {
        gather(connection);
        transmit(connection);
    }
    nbd_connection_settle(connection);
}

void nbd_send(struct nbd_connection *connection, struct nbd_call *call)
{
    connection->in_flight++;
    nbd_push(&connection->out, call);
    if (!connection->tx_busy && !connection->flush_due) {
        connection->flush_due = true;
        connection->client->api->loop_defer(connection->client->loop,
                                            &connection->flush);
    }
}

/* The sendmsg is over: what was answered meanwhile can end now. */
static void let_go(struct nbd_connection *connection)
{
    struct nbd_queue sent = connection->sent;
    struct nbd_call *call;

    connection->sent.first = NULL;
    while ((call = nbd_pop(&sent))) {
        call->sending = false;
        if (call->answered) {
            nbd_call_end(call, call->result);
        }
    }
}

static void advance(struct nbd_connection *connection, uint64_t bytes)
{
    while (connection->tx_at < connection->tx_end) {
        struct iovec *piece = &connection->tx_iov[connection->tx_at];

        if (bytes < piece->iov_len) {
            piece->iov_base = (uint8_t *)piece->iov_base + bytes;
            piece->iov_len -= bytes;
            return;
        }
        bytes -= piece->iov_len;
        connection->tx_at++;
    }
}

static void send_done(struct by_io *io, int result)
{
    struct nbd_connection *connection = io->owner;

    connection->tx_busy = false;
    if (result > 0) {
        advance(connection, result);
        nbd_count(&connection->client->stats.progress, result);
    } else if (result != -EINTR && result != -EAGAIN) {
        nbd_connection_fail(connection, result ? result : -EPIPE, false);
    }
    if (!connection->dead && connection->tx_at < connection->tx_end) {
        transmit(connection);
        return;
    }
    let_go(connection);
    if (!connection->dead && connection->out.first) {
        gather(connection);
        transmit(connection);
    }
    nbd_connection_settle(connection);
}

/* A server that takes no more needs no goodbye: never wait for it. */
void nbd_send_goodbye(struct nbd_connection *connection)
{
    uint8_t head[NBD_EXTENDED_REQUEST_BYTES];
    uint32_t bytes;

    if (connection->dead || connection->tx_busy || connection->out.first) {
        return;
    }
    bytes = put_header(connection, head, 0, NBD_CMD_DISC, 0, 0, 0);
    if (send(connection->fd, head, bytes, MSG_DONTWAIT | MSG_NOSIGNAL) < 0) {
        return; /* it will see the end of the stream */
    }
}
