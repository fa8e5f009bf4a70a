/* SPDX-License-Identifier: Apache-2.0 */
/*
 * reply.c - a finished request into bytes.
 *
 * A common reply is a header in the request itself and, for a read, its data:
 * two pieces.  Replies with many chunks are built in memory of their own.
 */
#include "connection.h"

/* A reply of any mode but simple: one chunk's header; answers its bytes. */
static uint32_t put_chunk(uint8_t *at, const struct nbd_request *request,
                          uint16_t flags, uint16_t type, uint64_t payload)
{
    const struct nbd_command *command = &request->command;
    bool extended = request->connection->rules.mode == NBD_MODE_EXTENDED;

    nbd_put32(at, extended ? NBD_EXTENDED_REPLY_MAGIC
                           : NBD_STRUCTURED_REPLY_MAGIC);
    nbd_put16(at + 4, flags);
    nbd_put16(at + 6, type);
    nbd_put64(at + 8, command->cookie);
    if (!extended) {
        nbd_put32(at + 16, (uint32_t)payload);
        return NBD_STRUCTURED_REPLY_BYTES;
    }
    nbd_put64(at + 16, command->wire_offset);
    nbd_put64(at + 24, payload);
    return NBD_EXTENDED_REPLY_BYTES;
}

static uint32_t put_simple(uint8_t *at, const struct nbd_request *request,
                           uint32_t error)
{
    nbd_put32(at, NBD_SIMPLE_REPLY_MAGIC);
    nbd_put32(at + 4, error);
    nbd_put64(at + 8, request->command.cookie);
    return NBD_SIMPLE_REPLY_BYTES;
}

/* Send head[0..bytes) and, when body is not null, what it names. */
static int send_head(struct nbd_request *request, uint32_t bytes,
                     const void *body, uint64_t body_bytes)
{
    request->pieces = request->own_pieces;
    request->pieces[0].iov_base = request->head;
    request->pieces[0].iov_len = bytes;
    request->pieces[1].iov_base = (void *)body;
    request->pieces[1].iov_len = body_bytes;
    request->npieces = body_bytes ? 2 : 1;
    nbd_send_queue(request);
    return BY_PENDING;
}

/* READ has structured replies where they were negotiated, and with extended
 * headers every reply has; else the short form will do. */
static bool replies_simply(const struct nbd_request *request)
{
    enum nbd_mode mode = request->connection->rules.mode;

    return mode == NBD_MODE_SIMPLE ||
           (mode == NBD_MODE_STRUCTURED &&
            request->command.type != NBD_CMD_READ);
}

int nbd_reply_done(struct nbd_request *request)
{
    uint32_t bytes = replies_simply(request)
        ? put_simple(request->head, request, 0)
        : put_chunk(request->head, request, NBD_REPLY_FLAG_DONE,
                    NBD_REPLY_TYPE_NONE, 0);

    return send_head(request, bytes, NULL, 0);
}

int nbd_reply_error(struct nbd_request *request, uint32_t error,
                    const char *message)
{
    size_t length = strlen(message);
    uint8_t *head = request->head;
    uint32_t bytes;

    if (request->connection->rules.mode == NBD_MODE_SIMPLE) {
        return send_head(request, put_simple(head, request, error), NULL, 0);
    }
    bytes = put_chunk(head, request, NBD_REPLY_FLAG_DONE,
                      NBD_REPLY_TYPE_ERROR, 6 + length);
    nbd_put32(head + bytes, error);
    nbd_put16(head + bytes + 4, (uint16_t)length);
    return send_head(request, bytes + 6, message, length);
}

/* result: negative errno of the node. */
int nbd_reply_failure(struct nbd_request *request, int result,
                      const char *message)
{
    nbd_count(&request->connection->stats.failed, 1);
    return nbd_reply_error(request, nbd_error_of(-result), message);
}

int nbd_reply_data(struct nbd_request *request)
{
    const struct nbd_command *command = &request->command;
    uint8_t *head = request->head;
    uint32_t bytes;

    if (request->connection->rules.mode == NBD_MODE_SIMPLE) {
        bytes = put_simple(head, request, 0);
    } else {
        bytes = put_chunk(head, request, NBD_REPLY_FLAG_DONE,
                          NBD_REPLY_TYPE_OFFSET_DATA, 8 + command->length);
        nbd_put64(head + bytes, command->offset);
        bytes += 8;
    }
    return send_head(request, bytes, request->data, command->length);
}

static uint32_t put_hole(uint8_t *at, const struct nbd_request *request,
                         uint16_t flags, uint64_t offset, uint64_t length)
{
    uint32_t bytes = put_chunk(at, request, flags,
                               NBD_REPLY_TYPE_OFFSET_HOLE, 12);

    nbd_put64(at + bytes, offset);
    nbd_put32(at + bytes + 8, (uint32_t)length);
    return bytes + 12;
}

int nbd_reply_hole(struct nbd_request *request)
{
    const struct nbd_command *command = &request->command;
    uint32_t bytes = put_hole(request->head, request, NBD_REPLY_FLAG_DONE,
                              command->offset, command->length);

    return send_head(request, bytes, NULL, 0);
}

static uint8_t *get_built(struct nbd_request *request, uint64_t bytes)
{
    struct by_nbd_connection *connection = request->connection;

    request->built = connection->api->buffer_get(connection->loop, bytes);
    request->built_bytes = bytes;
    return request->built;
}

static void add_piece(struct nbd_request *request, void *base, uint64_t bytes)
{
    request->pieces[request->npieces].iov_base = base;
    request->pieces[request->npieces++].iov_len = bytes;
}

/* Data and holes in turn; the data lies in place in request->data. */
int nbd_reply_extents(struct nbd_request *request)
{
    uint64_t per = 2 * sizeof(struct iovec) + NBD_HEAD_BYTES;
    uint64_t at = 0;
    uint8_t *built = get_built(request, request->nextents * per);

    if (!built) {
        return nbd_reply_data(request);
    }
    request->pieces = (struct iovec *)built;
    built += request->nextents * 2 * sizeof(struct iovec);
    for (uint32_t i = 0; i < request->nextents; i++) {
        const struct nbd_extent *extent = &request->extents[i];
        uint64_t offset = request->command.offset + at;
        bool last = i + 1 == request->nextents;
        uint16_t flags = last ? NBD_REPLY_FLAG_DONE : 0;

        if (extent->state & NBD_STATE_ZERO) {
            add_piece(request, built, put_hole(built, request, flags, offset,
                                               extent->bytes));
        } else {
            uint32_t head = put_chunk(built, request, flags,
                                      NBD_REPLY_TYPE_OFFSET_DATA,
                                      8 + extent->bytes);

            nbd_put64(built + head, offset);
            add_piece(request, built, head + 8);
            add_piece(request, (uint8_t *)request->data + at, extent->bytes);
        }
        built += NBD_HEAD_BYTES;
        at += extent->bytes;
    }
    nbd_send_queue(request);
    return BY_PENDING;
}

/* ---------------------------------------------------------- BLOCK_STATUS */

static uint32_t value_of(const struct nbd_extent *extent, int context)
{
    return 1ull << context == NBD_CONTEXT_DEPTH ? extent->depth
                                                : extent->state;
}

static uint8_t *put_descriptor(uint8_t *at, bool extended, uint64_t bytes,
                               uint32_t value)
{
    if (extended) {
        nbd_put64(at, bytes);
        nbd_put64(at + 8, value);
        return at + 16;
    }
    nbd_put32(at, (uint32_t)bytes);
    nbd_put32(at + 4, value);
    return at + 8;
}

/* All extents as this context sees them; equal neighbours become one. */
static uint8_t *put_descriptors(uint8_t *at,
                                const struct nbd_request *request,
                                int context, uint32_t *count)
{
    bool extended = request->connection->rules.mode == NBD_MODE_EXTENDED;

    *count = 0;
    for (uint32_t i = 0; i < request->nextents;) {
        uint32_t value = value_of(&request->extents[i], context);
        uint64_t bytes = 0;

        while (i < request->nextents &&
               value_of(&request->extents[i], context) == value) {
            bytes += request->extents[i++].bytes;
        }
        at = put_descriptor(at, extended, bytes, value);
        ++*count;
    }
    return at;
}

/* What a bitmap says, which nobody has to wait for. */
static uint8_t *put_bitmap(uint8_t *at, const struct nbd_request *request,
                           int context, uint32_t *count)
{
    struct by_nbd_connection *connection = request->connection;
    const struct nbd_command *command = &request->command;
    bool extended = connection->rules.mode == NBD_MODE_EXTENDED;
    uint64_t offset = command->offset, left = command->length;

    for (*count = 0; left && *count < request->limit; ++*count) {
        bool dirty;
        uint64_t bytes = connection->bitmap_status(
            connection->bitmaps[context - NBD_FIRST_BITMAP], offset, left,
            &dirty);

        if (!bytes) {
            bytes = left; /* it is shorter than the export was */
        }
        at = put_descriptor(at, extended, bytes, dirty ? NBD_STATE_DIRTY : 0);
        offset += bytes;
        left -= bytes;
    }
    return at;
}

/* One chunk: the answer for one context, whose id is the context's number. */
static uint8_t *put_context(uint8_t *at, const struct nbd_request *request,
                            int context, bool last)
{
    bool extended = request->connection->rules.mode == NBD_MODE_EXTENDED;
    uint32_t head = extended ? NBD_EXTENDED_REPLY_BYTES
                             : NBD_STRUCTURED_REPLY_BYTES;
    uint32_t prefix = extended ? 8 : 4;
    uint32_t count;
    uint8_t *end = (context < NBD_FIRST_BITMAP ? put_descriptors : put_bitmap)(
        at + head + prefix, request, context, &count);

    put_chunk(at, request, last ? NBD_REPLY_FLAG_DONE : 0,
              extended ? NBD_REPLY_TYPE_BLOCK_STATUS_EXT
                       : NBD_REPLY_TYPE_BLOCK_STATUS,
              end - at - head);
    nbd_put32(at + head, context);
    if (extended) {
        nbd_put32(at + head + 4, count);
    }
    return end;
}

int nbd_reply_status(struct nbd_request *request)
{
    uint64_t contexts = request->command.contexts;
    uint64_t bitmaps = __builtin_popcountll(contexts >> NBD_FIRST_BITMAP);
    uint64_t room = NBD_FIRST_BITMAP *
                    (NBD_HEAD_BYTES + 16ull * request->nextents) +
                    bitmaps * (NBD_HEAD_BYTES + 16ull * request->limit);
    uint8_t *built = get_built(request, room), *at = built;

    if (!built) {
        return nbd_reply_error(request, NBD_ENOMEM, "No memory");
    }
    for (int i = 0; i < NBD_CONTEXTS; i++) {
        if (contexts & 1ull << i) {
            contexts &= ~(1ull << i);
            at = put_context(at, request, i, !contexts);
        }
    }
    request->pieces = request->own_pieces;
    add_piece(request, built, at - built);
    nbd_send_queue(request);
    return BY_PENDING;
}
