/* SPDX-License-Identifier: Apache-2.0 */
/*
 * connection.c - a connection's life and end, and its table of commands.
 *
 * A connection that fails is shut down at once and buried when its last
 * operation has ended, for until then the kernel may look at the memory of
 * requests.  Then every call that it carried goes back into the queue, in the
 * order of submission, or fails.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client.h"

/* ---- slots: a cookie is a slot and how often it was used before */

struct nbd_slot *nbd_slot_take(struct nbd_connection *connection,
                               struct nbd_call *call)
{
    uint16_t index = connection->free_slot;
    struct nbd_slot *slot = &connection->slots[index];

    connection->free_slot = slot->next_free;
    slot->call = call;
    call->slot = index;
    return slot;
}

void nbd_slot_give(struct nbd_connection *connection, struct nbd_call *call)
{
    struct nbd_slot *slot = &connection->slots[call->slot];

    slot->call = NULL;
    slot->turn++;
    slot->next_free = connection->free_slot;
    connection->free_slot = call->slot;
    connection->in_flight--;
}

uint64_t nbd_slot_cookie(const struct nbd_connection *connection,
                         const struct nbd_call *call)
{
    return (uint64_t)connection->slots[call->slot].turn << 32 | call->slot;
}

struct nbd_call *nbd_slot_find(struct nbd_connection *connection,
                               uint64_t cookie)
{
    uint32_t index = (uint32_t)cookie;

    if (index >= NBD_SLOTS ||
        connection->slots[index].turn != (uint32_t)(cookie >> 32)) {
        return NULL;
    }
    return connection->slots[index].call;
}

/* ---- the table of connections */

uint32_t nbd_connection_count(const struct by_nbdc *client)
{
    uint32_t count = 0;

    for (int i = 0; i < BY_NBDC_CONNECTIONS; i++) {
        count += client->connections[i] != NULL;
    }
    return count;
}

static struct nbd_connection **place_of(struct by_nbdc *client,
                                        struct nbd_connection *connection)
{
    for (int i = 0; i < BY_NBDC_CONNECTIONS; i++) {
        if (client->connections[i] == connection) {
            return &client->connections[i];
        }
    }
    return NULL;
}

static struct nbd_connection *make(struct by_nbdc *client, int fd,
                                   const struct by_nbdc_facts *facts)
{
    struct nbd_connection *connection = calloc(1, sizeof(*connection));
    uint8_t *buffer = malloc(NBD_RX_BYTES);

    if (!connection || !buffer) {
        free(connection);
        free(buffer);
        return NULL;
    }
    connection->client = client;
    connection->facts = *facts;
    connection->fd = fd;
    connection->buffer = buffer;
    for (uint16_t i = 0; i < NBD_SLOTS; i++) {
        connection->slots[i].next_free = i + 1;
    }
    nbd_receive_init(connection);
    nbd_send_init(connection);
    return connection;
}

int nbd_connection_open(struct by_nbdc *client, int fd,
                        const struct by_nbdc_facts *facts)
{
    struct nbd_connection **place = place_of(client, NULL);
    struct nbd_connection *connection = place && !client->stopping
        ? make(client, fd, facts) : NULL;

    if (!connection) {
        close(fd);
        return -ENOMEM;
    }
    *place = connection;
    client->wanted = false;
    nbd_count(&client->stats.progress, 1);
    nbd_count(&client->stats.connections, 1);
    nbd_receive(connection);
    nbd_pump(client);
    return 0;
}

/* ---- the end */

void nbd_connection_fail(struct nbd_connection *connection, int result,
                         bool broken)
{
    struct by_nbdc *client = connection->client;

    if (connection->dead) {
        return;
    }
    connection->dead = true;
    connection->broken = broken;
    connection->result = result;
    shutdown(connection->fd, SHUT_RDWR);
    if (!connection->flush_due) {
        /* Never here: the caller is still at work on the connection. */
        connection->flush_due = true;
        client->api->loop_defer(client->loop, &connection->flush);
    }
}

static void end_or_send_again(struct nbd_connection *connection,
                              struct nbd_call *call)
{
    if (connection->broken || ++call->tries >= NBD_TRIES) {
        nbd_call_end(call, -EIO);
    } else {
        nbd_call_again(call);
    }
}

static void hand_back(struct nbd_connection *connection)
{
    struct nbd_call *call;

    for (int i = 0; i < NBD_SLOTS; i++) {
        call = connection->slots[i].call;
        if (call) {
            end_or_send_again(connection, call);
        }
    }
    while ((call = nbd_pop(&connection->out))) {
        end_or_send_again(connection, call);
    }
}

static void bury(struct nbd_connection *connection)
{
    struct by_nbdc *client = connection->client;
    uint32_t left;

    *place_of(client, connection) = NULL;
    left = nbd_connection_count(client);
    client->busy = client->busy && left;
    nbd_count(&client->stats.connections, -1);
    hand_back(connection);
    nbd_report(client, BY_NBDC_LOST, connection->result, left);
    close(connection->fd);
    free(connection->buffer);
    free(connection);
    if (left) {
        nbd_pump(client);
    } else if (!client->patient) {
        nbd_fail_waiting(client, -EIO);
    }
}

void nbd_connection_settle(struct nbd_connection *connection)
{
    struct by_nbdc *client = connection->client;

    if (connection->dead && !connection->rx_busy && !connection->tx_busy &&
        !connection->flush_due) {
        bury(connection);
    }
    if (!nbd_leave_if_idle(client)) {
        nbd_stop_if_idle(client);
    }
}
