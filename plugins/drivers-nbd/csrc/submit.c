/* SPDX-License-Identifier: Apache-2.0 */
/*
 * submit.c - a request into a command.
 *
 * Lengths fit into 32 bits whatever the mode is: the limits and status.c see
 * to it, so that a call can be sent again to a server that knows less.
 */
#include <errno.h>
#include <string.h>

#include "client.h"

static uint16_t fua(const struct by_request *req)
{
    return req->flags & BY_REQ_FUA ? NBD_CMD_FLAG_FUA : 0;
}

static uint16_t zero_flags(const struct by_request *req)
{
    return fua(req)
        | (req->flags & BY_REQ_MAY_UNMAP ? 0 : NBD_CMD_FLAG_NO_HOLE)
        | (req->flags & BY_REQ_NO_FALLBACK ? NBD_CMD_FLAG_FAST_ZERO : 0);
}

/* False: there is no such command. */
static bool translate(struct nbd_call *call)
{
    const struct by_request *req = call->req;

    call->length = req->bytes;
    switch (req->op) {
    case BY_OP_READ:
        call->type = NBD_CMD_READ;
        return true;
    case BY_OP_WRITE:
        call->type = NBD_CMD_WRITE;
        call->flags = fua(req);
        return true;
    case BY_OP_FLUSH:
        call->type = NBD_CMD_FLUSH;
        return true;
    case BY_OP_DISCARD:
        call->type = NBD_CMD_TRIM;
        call->flags = fua(req);
        return true;
    case BY_OP_WRITE_ZEROES:
        call->type = NBD_CMD_WRITE_ZEROES;
        call->flags = zero_flags(req);
        return true;
    case BY_OP_PREFETCH:
        call->type = NBD_CMD_CACHE;
        return true;
    case BY_OP_BLOCK_STATUS:
        call->type = NBD_CMD_BLOCK_STATUS;
        call->length = nbd_status_wish(call->client, req, &call->flags);
        return true;
    default:
        return false;
    }
}

/* The server decides how long its export is; what needs no change is fine. */
static int truncate_here(struct by_node *node, const struct by_request *req)
{
    uint64_t length = by_node_length(node);

    if (req->u.truncate.exact && req->offset != length) {
        return -ENOTSUP;
    }
    return req->offset > length ? -EINVAL : 0;
}

static bool changes_data(const struct by_request *req)
{
    return req->op == BY_OP_WRITE || req->op == BY_OP_DISCARD ||
           req->op == BY_OP_WRITE_ZEROES;
}

/* True when the request is answered without the server: *result. */
static bool answered_here(struct by_node *node, struct by_request *req,
                          int *result)
{
    struct by_nbdc *client = node->state;

    if (req->op == BY_OP_TRUNCATE) {
        *result = truncate_here(node, req);
        return true;
    }
    if (req->op == BY_OP_BLOCK_STATUS) {
        req->u.status->owner = node;
        req->u.status->host_offset = req->offset;
        req->u.status->depth = 0;
        *result = 0;
        return nbd_status_known(client, req);
    }
    *result = 0;
    return !req->bytes && req->op != BY_OP_FLUSH;
}

static bool cannot_be_sent(struct by_nbdc *client)
{
    if (client->patient || nbd_connection_count(client)) {
        return false;
    }
    if (!client->wanted) {
        client->wanted = true;
        nbd_report(client, BY_NBDC_WANTED, 0, 0);
    }
    return true;
}

/* On the loop that owns the client: the call takes its place in the queue. */
static void enter(struct nbd_call *call)
{
    struct by_nbdc *client = call->client;

    if (!translate(call)) {
        nbd_call_end(call, -ENOTSUP);
        return;
    }
    client->changes += changes_data(call->req);
    call->seq = client->seq++;
    nbd_count(&client->stats.requests, 1);
    nbd_count(&client->stats.waiting, 1);
    nbd_push(&client->waiting, call);
    nbd_pump(client);
}

static struct nbd_call *call_of(struct by_nbdc *client,
                                struct by_request *req)
{
    struct nbd_call *call = client->api->slab_get(req->loop, sizeof(*call));

    if (call) {
        memset(call, 0, sizeof(*call));
        call->client = client;
        call->req = req;
    }
    return call;
}

int nbd_submit(struct by_node *node, struct by_request *req)
{
    struct by_nbdc *client = node->state;
    bool here = nbd_here(client, req->loop);
    struct nbd_call *call;
    int result;

    client->node = node;
    if (here && answered_here(node, req, &result)) {
        return result;
    }
    if (here && cannot_be_sent(client)) {
        return -EIO;
    }
    call = call_of(client, req);
    if (!call) {
        return -ENOMEM;
    }
    if (here) {
        nbd_count(&client->stats.in_flight, 1);
        enter(call);
    } else {
        nbd_arrive_later(client, call, req->loop);
    }
    return BY_PENDING;
}

void nbd_submit_again(struct nbd_call *call)
{
    struct by_nbdc *client = call->client;
    int result;

    nbd_count(&client->stats.in_flight, 1);
    if (answered_here(client->node, call->req, &result)) {
        nbd_call_end(call, result);
    } else if (cannot_be_sent(client)) {
        nbd_call_end(call, -EIO);
    } else {
        enter(call);
    }
}

/* ---- what the server can do is what the node serves */

static uint32_t served(const struct by_nbdc_facts *facts)
{
    uint32_t ops = BY_OP_BIT(BY_OP_READ) | BY_OP_BIT(BY_OP_TRUNCATE);

    if (!(facts->flags & NBD_FLAG_READ_ONLY)) {
        ops |= BY_OP_BIT(BY_OP_WRITE);
        ops |= facts->flags & NBD_FLAG_SEND_TRIM
            ? BY_OP_BIT(BY_OP_DISCARD) : 0;
        ops |= facts->flags & NBD_FLAG_SEND_WRITE_ZEROES
            ? BY_OP_BIT(BY_OP_WRITE_ZEROES) : 0;
    }
    ops |= facts->flags & NBD_FLAG_SEND_FLUSH ? BY_OP_BIT(BY_OP_FLUSH) : 0;
    ops |= facts->flags & NBD_FLAG_SEND_CACHE ? BY_OP_BIT(BY_OP_PREFETCH) : 0;
    ops |= facts->context ? BY_OP_BIT(BY_OP_BLOCK_STATUS) : 0;
    return ops;
}

void nbd_set_abilities(struct by_nbdc *client)
{
    struct by_node_ops *ops = &client->ops;
    uint32_t flags = client->facts.flags;

    ops->serves = served(&client->facts);
    if (flags & NBD_FLAG_SEND_FUA) {
        ops->flags[BY_OP_WRITE] = BY_REQ_FUA;
        ops->flags[BY_OP_DISCARD] = BY_REQ_FUA;
        ops->flags[BY_OP_WRITE_ZEROES] = BY_REQ_FUA;
    }
    ops->flags[BY_OP_WRITE_ZEROES] |= BY_REQ_MAY_UNMAP;
    if (flags & NBD_FLAG_SEND_FAST_ZERO) {
        ops->flags[BY_OP_WRITE_ZEROES] |= BY_REQ_NO_FALLBACK;
        ops->capabilities |= BY_CAP_FAST_ZERO;
    }
}
