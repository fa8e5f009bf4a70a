/* SPDX-License-Identifier: Apache-2.0 */
/*
 * parse.h - the headers of replies, as bytes that anybody may have sent.
 *
 * No state and no memory: what is more than one header is read.c's.
 */
#ifndef BY_NBDC_PARSE_H
#define BY_NBDC_PARSE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum nbd_parsed {
    NBD_PARSED_MORE,    /* the header is not complete */
    NBD_PARSED_REPLY,
    NBD_PARSED_BROKEN   /* no reply in this mode begins so */
};

struct nbd_reply {
    uint64_t cookie;
    uint64_t length;    /* of the payload behind a chunk's header */
    uint32_t error;     /* of a simple reply, as it came */
    uint16_t type;      /* NBD_REPLY_TYPE_* */
    bool simple;
    bool done;          /* the last chunk; always set in a simple reply */
    uint32_t used;      /* bytes of the header */
};

enum nbd_parsed nbd_parse_reply(const uint8_t *bytes, size_t count,
                                uint32_t mode, struct nbd_reply *reply);

/* The errno for an error number of the protocol, negative. */
int nbd_result(uint32_t error);

#endif /* BY_NBDC_PARSE_H */
