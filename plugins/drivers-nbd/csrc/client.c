/* SPDX-License-Identifier: Apache-2.0 */
/*
 * client.c - the queue of calls: which connection carries which, and how each
 * of them ends.
 */
#include <errno.h>
#include <stdlib.h>

#include "client.h"

void nbd_report(struct by_nbdc *client, enum by_nbdc_event kind, int result,
                uint64_t a)
{
    client->api->event(&(struct by_event) {
        .tag = client->tag, .kind = kind, .result = result, .a = a,
    });
}

/* ---- ends */

void nbd_call_forget(struct nbd_call *call)
{
    free(call->spans);
    call->spans = NULL;
    call->nspans = call->room = call->errors = 0;
    call->described = call->answered = call->sending = false;
    call->result = 0;
}

void nbd_call_end(struct nbd_call *call, int result)
{
    struct by_nbdc *client = call->client;
    struct by_request *req = call->req;
    bool changed = call->type == NBD_CMD_WRITE ||
                   call->type == NBD_CMD_TRIM ||
                   call->type == NBD_CMD_WRITE_ZEROES;

    client->changes += changed;
    nbd_call_forget(call);
    nbd_count(&client->stats.in_flight, -1);
    client->api->slab_put(req->loop, call, sizeof(*call));
    client->api->complete(req, result);
}

void nbd_call_answer(struct nbd_call *call, int result)
{
    if (call->sending) {
        /* The kernel still looks at the request's memory. */
        call->answered = true;
        call->result = result;
        return;
    }
    nbd_call_end(call, result);
}

/* ---- the queue */

/* Its connection was lost: back to its place among those that wait. */
void nbd_call_again(struct nbd_call *call)
{
    struct by_nbdc *client = call->client;
    struct nbd_queue *queue = &client->waiting;
    struct nbd_call **at = &queue->first;

    nbd_call_forget(call);
    while (*at && (*at)->seq < call->seq) {
        at = &(*at)->next;
    }
    call->next = *at;
    *at = call;
    if (!call->next) {
        queue->last = call;
    }
    nbd_count(&client->stats.waiting, 1);
    nbd_count(&client->stats.resent, 1);
}

void nbd_fail_waiting(struct by_nbdc *client, int result)
{
    struct nbd_queue queue = client->waiting;
    struct nbd_call *call;

    client->waiting.first = NULL;
    while ((call = nbd_pop(&queue))) {
        nbd_count(&client->stats.waiting, -1);
        nbd_call_end(call, result);
    }
}

static bool carries(const struct nbd_connection *connection)
{
    return connection && !connection->dead &&
           connection->in_flight < NBD_SLOTS;
}

/*
 * One connection takes a fair number of commands before the next one gets
 * any: what goes out together costs one system call.
 */
static struct nbd_connection *choose(struct by_nbdc *client)
{
    struct nbd_connection *best = NULL;

    for (int i = 0; i < BY_NBDC_CONNECTIONS; i++) {
        struct nbd_connection *connection = client->connections[i];

        if (!carries(connection)) {
            continue;
        }
        if (connection->in_flight < NBD_SHARE) {
            return connection;
        }
        if (!best || connection->in_flight < best->in_flight) {
            best = connection;
        }
    }
    if (best && !client->busy) {
        client->busy = true;
        nbd_report(client, BY_NBDC_BUSY, 0, 0);
    }
    return best;
}

void nbd_pump(struct by_nbdc *client)
{
    struct nbd_connection *connection;

    while (client->waiting.first && (connection = choose(client))) {
        nbd_count(&client->stats.waiting, -1);
        nbd_send(connection, nbd_pop(&client->waiting));
    }
}
