/* SPDX-License-Identifier: Apache-2.0 */
/*
 * parse.h - bytes of a client into a checked command.
 *
 * Everything a client says in the transmission phase is checked here, once:
 * what leaves with error 0 lies within the export, is allowed on it, and asks
 * for no more memory than rules.max_payload.  No loop, no socket, no memory of
 * its own, so the fuzz target links this file alone.
 */
#ifndef BY_NBD_PARSE_H
#define BY_NBD_PARSE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum nbd_mode {
    NBD_MODE_SIMPLE,     /* simple replies only */
    NBD_MODE_STRUCTURED,
    NBD_MODE_EXTENDED
};

/* Metadata contexts; the bit's number is the context id on the wire. */
#define NBD_CONTEXT_ALLOCATION 0x1u /* base:allocation */
#define NBD_CONTEXT_DEPTH      0x2u /* qemu:allocation-depth */
#define NBD_FIRST_BITMAP       2    /* qemu:dirty-bitmap:..., and those after */
#define NBD_CONTEXTS           64   /* at most */

/* Longest payload of a BLOCK_STATUS that can be a good one. */
#define NBD_STATUS_PAYLOAD_MAX (8 + 4 * NBD_CONTEXTS)

/* What the handshake settled. */
struct nbd_rules {
    enum nbd_mode mode;
    uint64_t contexts;     /* bits of those that were negotiated */
    uint32_t max_payload;  /* bytes of one READ, WRITE or CACHE */
    bool read_only;
    uint64_t size;         /* of the export as the client was told */
};

struct nbd_command {
    uint64_t cookie;
    uint64_t offset;
    uint64_t length;       /* effect length; 0 when error is set */
    uint64_t payload;      /* bytes that follow the header */
    uint64_t wire_offset;  /* as sent: extended replies repeat it */
    uint16_t type;
    uint16_t flags;
    uint32_t error;        /* NBD_E*: answer so, drain the payload */
    const char *message;   /* static; with error */
    uint64_t contexts;     /* BLOCK_STATUS: those to answer */
    bool hang_up;          /* answer, then drop: the payload is too much */
};

enum nbd_parsed {
    NBD_PARSED_MORE,    /* the header is not complete */
    NBD_PARSED_BROKEN,  /* not NBD: drop the client */
    NBD_PARSED_COMMAND
};

/* Bytes of a request header in this mode. */
size_t nbd_header_bytes(const struct nbd_rules *rules);

/* Look at the header that begins at `bytes`. */
enum nbd_parsed nbd_parse(const uint8_t *bytes, size_t available,
                          const struct nbd_rules *rules,
                          struct nbd_command *out);

/*
 * The payload of a BLOCK_STATUS with PAYLOAD_LEN: sets length and contexts, or
 * error.  `bytes` holds command->payload bytes.
 */
void nbd_parse_status_payload(const uint8_t *bytes,
                              const struct nbd_rules *rules,
                              struct nbd_command *command);

/* NBD's number for a system error (positive errno); QEMU's mapping. */
uint32_t nbd_error_of(int error);

#endif /* BY_NBD_PARSE_H */
