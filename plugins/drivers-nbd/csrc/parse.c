/* SPDX-License-Identifier: Apache-2.0 */
/*
 * parse.c - the headers of replies (doc/proto.md, "Simple reply message" and
 * "Structured reply chunk message"; the extension EXTENDED_HEADERS).
 *
 * A server that agreed to structured replies may still answer what carries no
 * data by a simple one; whether the command carries data is the caller's to
 * know.  With extended headers every reply is an extended one.
 */
#include <errno.h>

#include "control.h"
#include "parse.h"
#include "protocol.h"

static enum nbd_parsed parse_simple(const uint8_t *bytes, size_t count,
                                    struct nbd_reply *reply)
{
    if (count < NBD_SIMPLE_REPLY_BYTES) {
        return NBD_PARSED_MORE;
    }
    reply->simple = reply->done = true;
    reply->error = nbd_get32(bytes + 4);
    reply->cookie = nbd_get64(bytes + 8);
    reply->type = NBD_REPLY_TYPE_NONE;
    reply->length = 0;
    reply->used = NBD_SIMPLE_REPLY_BYTES;
    return NBD_PARSED_REPLY;
}

static enum nbd_parsed parse_chunk(const uint8_t *bytes, size_t count,
                                   bool extended, struct nbd_reply *reply)
{
    uint32_t size = extended ? NBD_EXTENDED_REPLY_BYTES
                             : NBD_STRUCTURED_REPLY_BYTES;
    uint16_t flags;

    if (count < size) {
        return NBD_PARSED_MORE;
    }
    flags = nbd_get16(bytes + 4);
    if (flags & ~NBD_REPLY_FLAG_DONE) {
        return NBD_PARSED_BROKEN;
    }
    reply->simple = false;
    reply->done = flags & NBD_REPLY_FLAG_DONE;
    reply->error = 0;
    reply->type = nbd_get16(bytes + 6);
    reply->cookie = nbd_get64(bytes + 8);
    /* The extended header repeats the request's offset before the length. */
    reply->length = extended ? nbd_get64(bytes + 24) : nbd_get32(bytes + 16);
    reply->used = size;
    return NBD_PARSED_REPLY;
}

enum nbd_parsed nbd_parse_reply(const uint8_t *bytes, size_t count,
                                uint32_t mode, struct nbd_reply *reply)
{
    if (count < 4) {
        return NBD_PARSED_MORE;
    }
    switch (nbd_get32(bytes)) {
    case NBD_SIMPLE_REPLY_MAGIC:
        if (mode != BY_NBDC_EXTENDED) {
            return parse_simple(bytes, count, reply);
        }
        return NBD_PARSED_BROKEN;
    case NBD_STRUCTURED_REPLY_MAGIC:
        if (mode == BY_NBDC_STRUCTURED) {
            return parse_chunk(bytes, count, false, reply);
        }
        return NBD_PARSED_BROKEN;
    case NBD_EXTENDED_REPLY_MAGIC:
        if (mode == BY_NBDC_EXTENDED) {
            return parse_chunk(bytes, count, true, reply);
        }
        return NBD_PARSED_BROKEN;
    default:
        return NBD_PARSED_BROKEN;
    }
}

int nbd_result(uint32_t error)
{
    switch (error) {
    case 0:
        return 0;
    case NBD_EPERM:
        return -EPERM;
    case NBD_EIO:
        return -EIO;
    case NBD_ENOMEM:
        return -ENOMEM;
    case NBD_ENOSPC:
        return -ENOSPC;
    case NBD_EOVERFLOW:
        return -EOVERFLOW;
    case NBD_ENOTSUP:
        return -ENOTSUP;
    case NBD_ESHUTDOWN:
        return -ESHUTDOWN;
    default: /* "if it does not recognise the error, treat it as EINVAL" */
        return -EINVAL;
    }
}
