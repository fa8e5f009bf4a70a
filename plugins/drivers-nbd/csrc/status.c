/* SPDX-License-Identifier: Apache-2.0 */
/*
 * status.c - block status.
 *
 * A first question asks for one extent.  One that begins where the last
 * answer ended is a walk: then the server is asked for all it can tell, and
 * what the next questions will ask for is remembered for a moment, or until
 * something is written here.  Others may write to the export as well, so a
 * moment is short.
 *
 * The meaning of base:allocation's bits is given to every context that is
 * asked for in its place (x-dirty-bitmap): bit 0 is "no data", bit 1 is
 * "zeroes", and an allocation depth counts as at most 2.
 */
#include <errno.h>

#include "client.h"

static uint32_t meaning(uint32_t context, uint64_t flags)
{
    uint32_t status = BY_STATUS_OFFSET;

    if (context == BY_NBDC_DEPTH && flags > 2) {
        flags = 2;
    }
    if (!(flags & NBD_STATE_HOLE)) {
        status |= BY_STATUS_DATA;
    }
    if (flags & NBD_STATE_ZERO) {
        status |= BY_STATUS_ZERO;
    }
    if (status & (BY_STATUS_DATA | BY_STATUS_ZERO)) {
        status |= BY_STATUS_ALLOCATED;
    }
    return status;
}

/* ---- asking */

static void answer(struct by_nbdc *client, struct by_request *req,
                   uint64_t bytes, uint32_t flags)
{
    req->u.status->bytes = bytes < req->bytes ? bytes : req->bytes;
    req->u.status->flags = flags;
    client->walk_at = req->offset + req->u.status->bytes;
}

bool nbd_status_known(struct by_nbdc *client, struct by_request *req)
{
    struct nbd_memory *memory = &client->memory;
    struct nbd_extent *extent = &memory->extents[memory->next];
    uint64_t bytes;

    req->u.status->bytes = 0;
    if (!req->u.status->precise) {
        answer(client, req, req->bytes, meaning(BY_NBDC_FLAGS, 0));
        return true;
    }
    if (memory->next >= memory->count || memory->at != req->offset ||
        memory->changes != client->changes ||
        client->api->loop_now(req->loop) - memory->time > NBD_FRESH_NS) {
        return false;
    }
    answer(client, req, extent->bytes, extent->flags);
    bytes = req->u.status->bytes;
    memory->at += bytes;
    extent->bytes -= bytes;
    memory->next += !extent->bytes;
    return true;
}

static uint64_t ahead(struct by_nbdc *client, const struct by_request *req)
{
    uint64_t left = by_node_length(client->node) - req->offset;

    return left < NBD_WALK ? left : NBD_WALK;
}

/* Bytes from the command's beginning on, which is on a block. */
uint64_t nbd_status_wish(struct by_nbdc *client, const struct by_request *req,
                         uint16_t *flags)
{
    uint64_t mask = client->facts.block - 1;
    uint64_t lead = req->offset & mask;
    uint64_t bytes = req->bytes < NBD_ASK_MAX ? req->bytes : NBD_ASK_MAX;

    if (!req->offset || req->offset != client->walk_at) {
        *flags = NBD_CMD_FLAG_REQ_ONE;
    } else if (bytes < ahead(client, req)) {
        bytes = ahead(client, req);
    }
    return (lead + bytes + mask) & ~mask;
}

/* ---- answers */

void nbd_status_begin(struct nbd_call *call)
{
    call->described = true;
    call->req->u.status->bytes = 0;
    call->client->memory.count = call->client->memory.next = 0;
}

/* Two answers may come at a time, in pieces: keep what is in one row. */
static void remember(struct nbd_call *call, uint64_t at, uint64_t bytes,
                     uint32_t flags)
{
    struct by_nbdc *client = call->client;
    struct nbd_memory *memory = &client->memory;

    if (memory->count == 0) {
        memory->at = memory->end = at;
        memory->changes = call->changes;
        memory->time = client->api->loop_now(call->req->loop);
    }
    if (memory->count == NBD_EXTENTS || memory->changes != call->changes ||
        memory->end != at) {
        return;
    }
    memory->end += bytes;
    memory->extents[memory->count++] = (struct nbd_extent) { bytes, flags };
}

int nbd_status_extent(struct nbd_call *call, uint32_t context, uint64_t at,
                      uint64_t bytes, uint64_t flags)
{
    const struct by_request *req = call->req;
    uint64_t lead = req->offset & (call->client->facts.block - 1);
    uint64_t limit = call->length; /* an extent may reach beyond */
    uint64_t end;
    uint32_t state = meaning(context, flags);

    if (!bytes || at > UINT64_MAX - bytes) {
        return -EPROTO;
    }
    if (at >= limit) {
        return 0;
    }
    end = bytes < limit - at ? at + bytes : limit;
    if (end <= lead) {
        return 0;
    }
    at = at > lead ? at : lead;
    if (at == lead) {
        answer(call->client, call->req, end - at, state);
        at += req->u.status->bytes;
    }
    if (at < end && req->u.status->bytes) {
        remember(call, req->offset - lead + at, end - at, state);
    }
    return 0;
}
