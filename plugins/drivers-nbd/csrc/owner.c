/* SPDX-License-Identifier: Apache-2.0 */
/*
 * owner.c - who the client belongs to: a loop, which carries out what the
 * Python half orders, or, between two loops, nobody.
 *
 * A node moves to another loop while nothing is in flight, but a receive is
 * always under way.  Whoever on the new loop first has to do with the client
 * sends for it; the old loop ends its operations and lets go; requests that
 * come meanwhile wait on the new loop, and orders wait in their list.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client.h"

static struct by_loop *owner_of(const struct by_nbdc *client)
{
    return __atomic_load_n(&client->loop, __ATOMIC_ACQUIRE);
}

bool nbd_here(struct by_nbdc *client, struct by_loop *loop)
{
    return owner_of(client) == loop;
}

/* ---- orders, on the owner */

static void cut_all(struct by_nbdc *client, bool goodbye)
{
    for (int i = 0; i < BY_NBDC_CONNECTIONS; i++) {
        struct nbd_connection *connection = client->connections[i];

        if (connection) {
            if (goodbye) {
                nbd_send_goodbye(connection);
            }
            nbd_connection_fail(connection, goodbye ? 0 : -ETIMEDOUT, true);
        }
    }
}

static void set_patient(struct by_nbdc *client, bool patient)
{
    client->patient = patient;
    if (!patient && !nbd_connection_count(client)) {
        nbd_fail_waiting(client, -EIO);
    }
}

static void carry_out(struct by_nbdc *client, const struct nbd_order *order)
{
    switch (order->kind) {
    case NBD_ADD:
        if (nbd_connection_open(client, order->fd, &order->facts) < 0) {
            nbd_report(client, BY_NBDC_LOST, -ENOMEM,
                       nbd_connection_count(client));
        }
        break;
    case NBD_PATIENT:
        set_patient(client, order->patient);
        break;
    case NBD_CUT:
        cut_all(client, false);
        break;
    case NBD_STOP:
        client->stopping = true;
        client->patient = false;
        cut_all(client, true);
        nbd_fail_waiting(client, -EIO);
        break;
    }
}

/* Oldest first; null when this loop is not the owner. */
static struct nbd_order *take_orders(struct by_nbdc *client)
{
    struct nbd_order *orders = NULL;

    pthread_mutex_lock(&client->lock);
    client->posted = false;
    if (client->loop == client->api->loop_current()) {
        orders = client->orders;
        client->orders = NULL;
    } else if (client->loop && client->orders) {
        client->posted = true;
        client->api->loop_post(client->loop, &client->task);
    }
    pthread_mutex_unlock(&client->lock);
    return orders;
}

static void run_orders(struct by_task *task)
{
    struct by_nbdc *client = task->owner;
    struct nbd_order *order = take_orders(client);

    if (!order) {
        return; /* another loop's, by now */
    }
    while (order) {
        struct nbd_order *next = order->next;

        carry_out(client, order);
        free(order);
        order = next;
    }
    nbd_stop_if_idle(client);
}

void nbd_stop_if_idle(struct by_nbdc *client)
{
    if (client->stopping && !client->stopped &&
        !nbd_connection_count(client)) {
        client->stopped = true;
        nbd_report(client, BY_NBDC_STOPPED, 0, 0);
    }
}

/* ---- moving */

static void arrive(struct by_task *task);
static void leave(struct by_task *task);

static void send_for(struct by_nbdc *client, struct by_loop *loop)
{
    struct by_loop *owner = owner_of(client);

    if (!client->next_loop && owner) {
        client->next_loop = loop;
        client->move.run = leave;
        client->api->loop_post(owner, &client->move);
    }
}

void nbd_arrive_later(struct by_nbdc *client, struct nbd_call *call,
                      struct by_loop *loop)
{
    nbd_push(&client->arrived, call);
    send_for(client, loop);
}

/* On the home loop, which may have changed since drain_begin. */
void nbd_drain_end(struct by_node *node)
{
    struct by_nbdc *client = node->state;
    struct by_loop *loop = client->api->loop_current();

    if (!nbd_here(client, loop)) {
        send_for(client, loop);
    }
}

/* On the old loop. */
static void leave(struct by_task *task)
{
    struct by_nbdc *client = task->owner;

    client->leaving = true;
    for (int i = 0; i < BY_NBDC_CONNECTIONS; i++) {
        struct nbd_connection *connection = client->connections[i];

        if (connection && connection->rx_busy) {
            client->api->io_cancel(client->loop, &connection->rx);
        }
    }
    nbd_leave_if_idle(client);
}

static bool is_idle(const struct by_nbdc *client)
{
    for (int i = 0; i < BY_NBDC_CONNECTIONS; i++) {
        const struct nbd_connection *connection = client->connections[i];

        if (connection && (connection->rx_busy || connection->tx_busy ||
                           connection->flush_due)) {
            return false;
        }
    }
    return true;
}

bool nbd_leave_if_idle(struct by_nbdc *client)
{
    struct by_loop *next = client->next_loop;

    if (!client->leaving || !is_idle(client)) {
        return false;
    }
    client->leaving = false;
    client->move.run = arrive;
    pthread_mutex_lock(&client->lock);
    __atomic_store_n(&client->loop, NULL, __ATOMIC_RELEASE);
    pthread_mutex_unlock(&client->lock);
    client->api->loop_post(next, &client->move);
    return true;
}

static void take_over(struct by_nbdc *client)
{
    pthread_mutex_lock(&client->lock);
    __atomic_store_n(&client->loop, client->next_loop, __ATOMIC_RELEASE);
    if (client->orders && !client->posted) {
        client->posted = true;
        client->api->loop_post(client->loop, &client->task);
    }
    pthread_mutex_unlock(&client->lock);
    client->next_loop = NULL;
}

/* On the new loop. */
static void arrive(struct by_task *task)
{
    struct by_nbdc *client = task->owner;
    struct nbd_queue arrived = client->arrived;
    struct nbd_call *call;

    take_over(client);
    client->memory.count = 0;
    for (int i = 0; i < BY_NBDC_CONNECTIONS; i++) {
        struct nbd_connection *connection = client->connections[i];

        if (connection) {
            nbd_receive_init(connection);
            nbd_send_init(connection);
            nbd_receive(connection);
        }
    }
    client->arrived.first = NULL;
    while ((call = nbd_pop(&arrived))) {
        nbd_submit_again(call);
    }
}

/* ---- the control thread */

int nbd_give_order(struct by_nbdc *client, struct nbd_order order)
{
    struct nbd_order *copy = malloc(sizeof(*copy));

    if (!copy) {
        return -ENOMEM;
    }
    *copy = order;
    copy->next = NULL;
    pthread_mutex_lock(&client->lock);
    if (client->orders) {
        client->orders_end->next = copy;
    } else {
        client->orders = copy;
    }
    client->orders_end = copy;
    if (client->loop && !client->posted) {
        client->posted = true;
        client->api->loop_post(client->loop, &client->task);
    }
    pthread_mutex_unlock(&client->lock);
    return 0;
}

void nbd_owner_init(struct by_nbdc *client, struct by_loop *loop)
{
    pthread_mutex_init(&client->lock, NULL);
    client->loop = loop;
    client->task.run = run_orders;
    client->task.owner = client;
    client->move.owner = client;
}

void nbd_owner_end(struct by_nbdc *client)
{
    while (client->orders) {
        struct nbd_order *next = client->orders->next;

        if (client->orders->kind == NBD_ADD) {
            close(client->orders->fd);
        }
        free(client->orders);
        client->orders = next;
    }
    pthread_mutex_destroy(&client->lock);
}
