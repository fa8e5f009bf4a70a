/* SPDX-License-Identifier: Apache-2.0 */
/* parse.c - see parse.h.  Section names are doc/proto.md's. */
#include "parse.h"

#include <errno.h>

#include "protocol.h"

size_t nbd_header_bytes(const struct nbd_rules *rules)
{
    return rules->mode == NBD_MODE_EXTENDED ? NBD_EXTENDED_REQUEST_BYTES
                                            : NBD_REQUEST_BYTES;
}

static void refuse(struct nbd_command *command, uint32_t error,
                   const char *message)
{
    if (!command->error) {
        command->error = error;
        command->message = message;
    }
}

/* "Command flags": what a command may carry in this mode. */
static uint16_t allowed_flags(const struct nbd_command *command,
                              const struct nbd_rules *rules)
{
    /* FUA is to be taken on every command, see bit 0. */
    uint16_t flags = NBD_CMD_FLAG_FUA;

    switch (command->type) {
    case NBD_CMD_READ:
        flags |= rules->mode == NBD_MODE_SIMPLE ? 0 : NBD_CMD_FLAG_DF;
        break;
    case NBD_CMD_WRITE:
        flags |= rules->mode == NBD_MODE_EXTENDED ? NBD_CMD_FLAG_PAYLOAD_LEN
                                                  : 0;
        break;
    case NBD_CMD_WRITE_ZEROES:
        flags |= NBD_CMD_FLAG_NO_HOLE | NBD_CMD_FLAG_FAST_ZERO;
        break;
    case NBD_CMD_BLOCK_STATUS:
        flags |= NBD_CMD_FLAG_REQ_ONE;
        /* Only clients that negotiated contexts were told of the payload. */
        if (rules->mode == NBD_MODE_EXTENDED && rules->contexts) {
            flags |= NBD_CMD_FLAG_PAYLOAD_LEN;
        }
        break;
    default:
        break;
    }
    return flags;
}

static bool changes_data(uint16_t type)
{
    return type == NBD_CMD_WRITE || type == NBD_CMD_TRIM ||
           type == NBD_CMD_WRITE_ZEROES;
}

/* "Error values": past the end is ENOSPC for what writes. */
static void check_bounds(struct nbd_command *command,
                         const struct nbd_rules *rules)
{
    if (command->offset <= rules->size &&
        command->length <= rules->size - command->offset) {
        return;
    }
    if (command->type == NBD_CMD_WRITE ||
        command->type == NBD_CMD_WRITE_ZEROES) {
        refuse(command, NBD_ENOSPC, "operation past EOF");
    } else {
        refuse(command, NBD_EINVAL, "operation past EOF");
    }
}

/* "Size constraints": what would have to be held in memory. */
static void check_size(struct nbd_command *command,
                       const struct nbd_rules *rules)
{
    if (command->length <= rules->max_payload) {
        return;
    }
    if (command->type == NBD_CMD_WRITE) {
        refuse(command, NBD_EINVAL, "request is larger than the maximum");
    } else if (command->type == NBD_CMD_READ ||
               command->type == NBD_CMD_CACHE) {
        refuse(command, NBD_EOVERFLOW, "request is larger than the maximum");
    }
}

static void check_status(struct nbd_command *command,
                         const struct nbd_rules *rules)
{
    if (!rules->contexts) {
        refuse(command, NBD_EINVAL, "CMD_BLOCK_STATUS not negotiated");
    } else if (!command->length) {
        refuse(command, NBD_EINVAL, "need non-zero length");
    }
}

static void check_known(struct nbd_command *command)
{
    if (command->type > NBD_CMD_BLOCK_STATUS) {
        refuse(command, NBD_EINVAL, "invalid request type");
    }
}

static void check(struct nbd_command *command, const struct nbd_rules *rules)
{
    check_known(command);
    if (command->flags & ~allowed_flags(command, rules)) {
        refuse(command, NBD_EINVAL, "unsupported flags for command");
    }
    check_size(command, rules);
    if (rules->read_only && changes_data(command->type)) {
        refuse(command, NBD_EPERM, "Export is read-only");
    }
    check_bounds(command, rules);
    if (command->type == NBD_CMD_BLOCK_STATUS) {
        check_status(command, rules);
    }
    if (command->error) {
        command->length = 0;
    }
}

/*
 * Which bytes follow the header.  A compact WRITE always has its length of
 * them; with extended headers the flag says so, and a WRITE without it is
 * read as if it had been set, as QEMU does.
 */
static void find_payload(struct nbd_command *command,
                         const struct nbd_rules *rules)
{
    bool flagged = rules->mode == NBD_MODE_EXTENDED &&
                   (command->flags & NBD_CMD_FLAG_PAYLOAD_LEN);

    if (command->type != NBD_CMD_WRITE && !flagged) {
        return;
    }
    command->payload = command->length;
    /* EXTENDED_HEADERS, "Request message": more than the maximum is cause
     * for a hard disconnect.  What 32 bits can say is drained instead. */
    command->hang_up = command->payload > UINT32_MAX;
    if (command->type != NBD_CMD_WRITE) {
        command->length = 0;
    }
}

enum nbd_parsed nbd_parse(const uint8_t *bytes, size_t available,
                          const struct nbd_rules *rules,
                          struct nbd_command *out)
{
    bool extended = rules->mode == NBD_MODE_EXTENDED;
    uint32_t magic = extended ? NBD_EXTENDED_REQUEST_MAGIC
                              : NBD_REQUEST_MAGIC;

    if (available >= 4 && nbd_get32(bytes) != magic) {
        return NBD_PARSED_BROKEN;
    }
    if (available < nbd_header_bytes(rules)) {
        return NBD_PARSED_MORE;
    }
    *out = (struct nbd_command){
        .flags = nbd_get16(bytes + 4),
        .type = nbd_get16(bytes + 6),
        .cookie = nbd_get64(bytes + 8),
        .offset = nbd_get64(bytes + 16),
        .wire_offset = nbd_get64(bytes + 16),
        .length = extended ? nbd_get64(bytes + 24) : nbd_get32(bytes + 24),
        .contexts = rules->contexts,
    };
    find_payload(out, rules);
    if (out->type == NBD_CMD_BLOCK_STATUS && out->payload &&
        out->payload <= NBD_STATUS_PAYLOAD_MAX && rules->contexts) {
        return NBD_PARSED_COMMAND; /* nbd_parse_status_payload goes on */
    }
    if (out->type == NBD_CMD_BLOCK_STATUS && out->payload) {
        refuse(out, NBD_EINVAL, "CMD_BLOCK_STATUS payload not valid");
    }
    check(out, rules);
    return NBD_PARSED_COMMAND;
}

void nbd_parse_status_payload(const uint8_t *bytes,
                              const struct nbd_rules *rules,
                              struct nbd_command *command)
{
    uint64_t payload = command->payload;

    command->contexts = 0;
    if (payload < 8 || payload > NBD_STATUS_PAYLOAD_MAX || payload % 4) {
        refuse(command, NBD_EINVAL, "CMD_BLOCK_STATUS payload not valid");
        return;
    }
    command->length = nbd_get64(bytes);
    for (uint64_t at = 8; at < payload; at += 4) {
        uint32_t id = nbd_get32(bytes + at);
        uint64_t bit = id < NBD_CONTEXTS ? 1ull << id : 0;

        /* Unknown, not negotiated, or named twice. */
        if (!(bit & rules->contexts) || (bit & command->contexts)) {
            refuse(command, NBD_EINVAL, "CMD_BLOCK_STATUS payload not valid");
        }
        command->contexts |= bit;
    }
    if (!command->contexts) {
        refuse(command, NBD_EINVAL, "CMD_BLOCK_STATUS payload not valid");
    }
    check(command, rules);
}

uint32_t nbd_error_of(int error)
{
    switch (error) {
    case 0:
        return 0;
    case EPERM:
    case EROFS:
        return NBD_EPERM;
    case EIO:
        return NBD_EIO;
    case ENOMEM:
        return NBD_ENOMEM;
    case EDQUOT:
    case EFBIG:
    case ENOSPC:
        return NBD_ENOSPC;
    case EOVERFLOW:
        return NBD_EOVERFLOW;
    case ENOTSUP:
        return NBD_ENOTSUP;
    case ESHUTDOWN:
        return NBD_ESHUTDOWN;
    default:
        return NBD_EINVAL;
    }
}
