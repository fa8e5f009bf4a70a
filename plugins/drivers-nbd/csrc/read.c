/* SPDX-License-Identifier: Apache-2.0 */
/*
 * read.c - what a server's bytes say.
 *
 * Nothing here trusts the server.  A reply belongs to a command that is under
 * way, by a cookie that is used once; the data of a read lies inside the read
 * and never twice in the same place; a reply ends after as many chunks as can
 * say something.  Everything else is -EPROTO, and the connection's end.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "client.h"

/* Longest payload of an error chunk: its numbers, and any text. */
#define ERROR_MAX (128 * 1024)
#define ERROR_PREFIX 6

/* ---- pieces of a read */

static struct nbd_span *spans_of(struct nbd_call *call)
{
    return call->spans ? call->spans : &call->span;
}

static bool make_room(struct nbd_call *call)
{
    uint32_t room = call->room ? call->room * 2 : 8;
    struct nbd_span *spans;

    if (call->nspans < (call->room ? call->room : 1)) {
        return true;
    }
    if (call->nspans >= NBD_SPANS) {
        return false;
    }
    spans = realloc(call->spans, room * sizeof(*spans));
    if (!spans) {
        return false;
    }
    if (!call->spans) {
        spans[0] = call->span;
    }
    call->spans = spans;
    call->room = room;
    return true;
}

static int insert_span(struct nbd_call *call, uint32_t at,
                       struct nbd_span span)
{
    struct nbd_span *spans;

    if (!make_room(call)) {
        return -EPROTO;
    }
    spans = spans_of(call);
    memmove(spans + at + 1, spans + at, (call->nspans - at) * sizeof(*spans));
    spans[at] = span;
    call->nspans++;
    return 0;
}

static void remove_span(struct nbd_call *call, uint32_t at)
{
    struct nbd_span *spans = spans_of(call);

    call->nspans--;
    memmove(spans + at, spans + at + 1, (call->nspans - at) * sizeof(*spans));
}

/* [start, end) of the request comes now; -EPROTO if a part came before. */
static int add_span(struct nbd_call *call, uint64_t start, uint64_t end)
{
    struct nbd_span *spans = spans_of(call);
    uint32_t i = call->nspans;
    bool left, right;

    while (i && spans[i - 1].start > start) {
        i--;
    }
    if ((i && spans[i - 1].end > start) ||
        (i < call->nspans && spans[i].start < end)) {
        return -EPROTO;
    }
    left = i && spans[i - 1].end == start;
    right = i < call->nspans && spans[i].start == end;
    if (left && right) {
        spans[i - 1].end = spans[i].end;
        remove_span(call, i);
    } else if (left) {
        spans[i - 1].end = end;
    } else if (right) {
        spans[i].start = start;
    } else {
        return insert_span(call, i, (struct nbd_span) { start, end });
    }
    return 0;
}

static bool is_whole(struct nbd_call *call)
{
    const struct nbd_span *span = spans_of(call);

    return call->nspans == 1 && span->start == 0 &&
           span->end == call->req->bytes;
}

/* Fill `count` bytes of the request from `at` on; zeroes where no bytes. */
static void fill(const struct by_request *req, uint64_t at,
                 const uint8_t *bytes, uint64_t count)
{
    uint64_t skip = req->iov_skip + at;

    for (uint32_t i = 0; i < req->niov && count; i++) {
        uint64_t len = req->iov[i].iov_len;

        if (skip >= len) {
            skip -= len;
            continue;
        }
        len = len - skip < count ? len - skip : count;
        if (bytes) {
            memcpy((uint8_t *)req->iov[i].iov_base + skip, bytes, len);
            bytes += len;
        } else {
            memset((uint8_t *)req->iov[i].iov_base + skip, 0, len);
        }
        count -= len;
        skip = 0;
    }
}

/* ---- a chunk ends, and maybe its reply */

static bool says_enough(struct nbd_call *call)
{
    if (call->result < 0) {
        return true;
    }
    if (call->type == NBD_CMD_READ) {
        return is_whole(call);
    }
    return call->type != NBD_CMD_BLOCK_STATUS ||
           (call->described && call->req->u.status->bytes);
}

static int end_chunk(struct nbd_connection *connection)
{
    struct nbd_call *call = connection->call;

    connection->stage = NBD_HEAD;
    if (!connection->reply.done) {
        return 0;
    }
    if (!says_enough(call)) {
        return -EPROTO;
    }
    connection->call = NULL;
    nbd_slot_give(connection, call);
    nbd_call_answer(call, call->result);
    return 0;
}

/* ---- a chunk begins */

static void expect(struct nbd_connection *connection, enum nbd_stage stage,
                   uint64_t left)
{
    connection->stage = stage;
    connection->left = left;
}

static int begin_simple(struct nbd_connection *connection)
{
    struct nbd_call *call = connection->call;
    bool structured = connection->facts.mode != BY_NBDC_SIMPLE;

    call->result = nbd_result(connection->reply.error);
    if (call->type != NBD_CMD_READ) {
        return end_chunk(connection);
    }
    if (structured) {
        return -EPROTO;
    }
    if (call->result < 0) {
        return end_chunk(connection);
    }
    connection->data_at = 0;
    expect(connection, NBD_DATA, call->req->bytes);
    return add_span(call, 0, call->req->bytes);
}

static int begin_error(struct nbd_connection *connection)
{
    uint64_t length = connection->reply.length;

    if (length < ERROR_PREFIX || length > ERROR_MAX ||
        ++connection->call->errors > NBD_ERRORS) {
        return -EPROTO;
    }
    expect(connection, NBD_PREFIX, length);
    return 0;
}

static int begin_status(struct nbd_connection *connection)
{
    uint64_t length = connection->reply.length;
    bool extended = connection->reply.type == NBD_REPLY_TYPE_BLOCK_STATUS_EXT;
    uint32_t prefix = extended ? 8 : 4, each = extended ? 16 : 8;

    if (connection->call->type != NBD_CMD_BLOCK_STATUS ||
        extended != (connection->facts.mode == BY_NBDC_EXTENDED) ||
        connection->call->described || length < prefix + each ||
        length > NBD_STATUS_MAX || (length - prefix) % each) {
        return -EPROTO;
    }
    expect(connection, NBD_PREFIX, length);
    return 0;
}

static int begin_chunk(struct nbd_connection *connection)
{
    const struct nbd_reply *reply = &connection->reply;
    bool reads = connection->call->type == NBD_CMD_READ;

    if (reply->type & NBD_REPLY_TYPE_IS_ERROR) {
        return begin_error(connection);
    }
    switch (reply->type) {
    case NBD_REPLY_TYPE_NONE:
        return reply->done && !reply->length ? end_chunk(connection)
                                             : -EPROTO;
    case NBD_REPLY_TYPE_OFFSET_DATA:
        expect(connection, NBD_PREFIX, reply->length);
        return reads && reply->length > 8 ? 0 : -EPROTO;
    case NBD_REPLY_TYPE_OFFSET_HOLE:
        expect(connection, NBD_PREFIX, reply->length);
        return reads && reply->length == 12 ? 0 : -EPROTO;
    case NBD_REPLY_TYPE_BLOCK_STATUS:
    case NBD_REPLY_TYPE_BLOCK_STATUS_EXT:
        return begin_status(connection);
    default:
        return -EPROTO;
    }
}

/* ---- the stages; each answers how many bytes it took, or -EPROTO */

static int take_head(struct nbd_connection *connection, const uint8_t *bytes,
                     uint32_t have)
{
    struct nbd_reply *reply = &connection->reply;
    enum nbd_parsed parsed = nbd_parse_reply(bytes, have,
                                             connection->facts.mode, reply);
    int result;

    if (parsed == NBD_PARSED_MORE) {
        return 0;
    }
    if (parsed == NBD_PARSED_BROKEN) {
        return -EPROTO;
    }
    connection->call = nbd_slot_find(connection, reply->cookie);
    if (!connection->call) {
        return -EPROTO;
    }
    result = reply->simple ? begin_simple(connection)
                           : begin_chunk(connection);
    return result < 0 ? result : (int)reply->used;
}

/* Where a chunk of a read lies in its request. */
static int place(struct nbd_connection *connection, uint64_t offset,
                 uint64_t bytes)
{
    struct nbd_call *call = connection->call;

    if (!bytes || offset < call->req->offset ||
        !by_range_ok(offset - call->req->offset, bytes, call->req->bytes)) {
        return -EPROTO;
    }
    connection->data_at = offset - call->req->offset;
    return add_span(call, connection->data_at, connection->data_at + bytes);
}

static int take_hole(struct nbd_connection *connection, const uint8_t *bytes)
{
    uint32_t count = nbd_get32(bytes + 8);
    int result = place(connection, nbd_get64(bytes), count);

    if (result == 0) {
        fill(connection->call->req, connection->data_at, NULL, count);
        result = end_chunk(connection);
    }
    return result;
}

static int take_error(struct nbd_connection *connection, const uint8_t *bytes)
{
    struct nbd_call *call = connection->call;
    int result = nbd_result(nbd_get32(bytes));

    if (result == 0 ||
        nbd_get16(bytes + 4) > connection->left - ERROR_PREFIX) {
        return -EPROTO;
    }
    call->result = call->result ? call->result : result;
    connection->left -= ERROR_PREFIX;
    connection->stage = NBD_SKIP;
    return connection->left ? 0 : end_chunk(connection);
}

static int take_context(struct nbd_connection *connection,
                        const uint8_t *bytes, uint32_t prefix)
{
    if (nbd_get32(bytes) != connection->facts.context_id ||
        (prefix == 8 &&
         nbd_get32(bytes + 4) != (connection->left - prefix) / 16)) {
        return -EPROTO;
    }
    nbd_status_begin(connection->call);
    connection->extents_at = 0;
    expect(connection, NBD_STATUS, connection->left - prefix);
    return 0;
}

static uint32_t prefix_bytes(uint16_t type)
{
    if (type & NBD_REPLY_TYPE_IS_ERROR) {
        return ERROR_PREFIX;
    }
    switch (type) {
    case NBD_REPLY_TYPE_OFFSET_HOLE:
        return 12;
    case NBD_REPLY_TYPE_BLOCK_STATUS:
        return 4;
    default:
        return 8;
    }
}

static int take_prefix(struct nbd_connection *connection,
                       const uint8_t *bytes, uint32_t have)
{
    uint16_t type = connection->reply.type;
    uint32_t prefix = prefix_bytes(type);
    int result;

    if (have < prefix) {
        return 0;
    }
    if (type & NBD_REPLY_TYPE_IS_ERROR) {
        result = take_error(connection, bytes);
    } else if (type == NBD_REPLY_TYPE_OFFSET_HOLE) {
        result = take_hole(connection, bytes);
    } else if (type == NBD_REPLY_TYPE_OFFSET_DATA) {
        expect(connection, NBD_DATA, connection->left - prefix);
        result = place(connection, nbd_get64(bytes), connection->left);
    } else {
        result = take_context(connection, bytes, prefix);
    }
    return result < 0 ? result : (int)prefix;
}

static int advance(struct nbd_connection *connection, uint64_t count)
{
    connection->data_at += count;
    connection->left -= count;
    return connection->left ? 0 : end_chunk(connection);
}

static int take_data(struct nbd_connection *connection, const uint8_t *bytes,
                     uint32_t have)
{
    uint64_t n = have < connection->left ? have : connection->left;
    int result;

    fill(connection->call->req, connection->data_at, bytes, n);
    result = advance(connection, n);
    return result < 0 ? result : (int)n;
}

static int take_extents(struct nbd_connection *connection,
                        const uint8_t *bytes, uint32_t have)
{
    bool extended = connection->facts.mode == BY_NBDC_EXTENDED;
    uint32_t each = extended ? 16 : 8, used = 0;

    while (connection->left && have - used >= each) {
        const uint8_t *at = bytes + used;
        uint64_t length = extended ? nbd_get64(at) : nbd_get32(at);
        uint64_t flags = extended ? nbd_get64(at + 8) : nbd_get32(at + 4);

        if (nbd_status_extent(connection->call, connection->facts.context,
                              connection->extents_at, length, flags) < 0) {
            return -EPROTO;
        }
        connection->extents_at += length;
        connection->left -= each;
        used += each;
    }
    if (!connection->left && end_chunk(connection) < 0) {
        return -EPROTO;
    }
    return used;
}

static int take_rest(struct nbd_connection *connection, uint32_t have)
{
    uint64_t n = have < connection->left ? have : connection->left;
    int result = advance(connection, n);

    return result < 0 ? result : (int)n;
}

static int take(struct nbd_connection *connection, const uint8_t *bytes,
                uint32_t have)
{
    switch (connection->stage) {
    case NBD_HEAD:
        return take_head(connection, bytes, have);
    case NBD_PREFIX:
        return take_prefix(connection, bytes, have);
    case NBD_DATA:
        return take_data(connection, bytes, have);
    case NBD_STATUS:
        return take_extents(connection, bytes, have);
    default:
        return take_rest(connection, have);
    }
}

int nbd_read(struct nbd_connection *connection)
{
    while (connection->start < connection->end && !connection->dead) {
        int used = take(connection, connection->buffer + connection->start,
                        connection->end - connection->start);

        if (used < 0) {
            return used;
        }
        if (used == 0) {
            break;
        }
        connection->start += used;
    }
    return 0;
}

int nbd_read_direct(struct nbd_connection *connection, uint64_t count)
{
    return advance(connection, count);
}
