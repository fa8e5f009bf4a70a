/* SPDX-License-Identifier: Apache-2.0 */
/*
 * protocol.h - the numbers of the NBD transmission phase.
 *
 * Names and values are those of the protocol document, NetworkBlockDevice/nbd
 * doc/proto.md, and of its extension EXTENDED_HEADERS.  The handshake is the
 * Python half's and has its own numbers there.
 */
#ifndef BY_NBDC_PROTOCOL_H
#define BY_NBDC_PROTOCOL_H

#include <stdint.h>
#include <string.h>

#define NBD_REQUEST_MAGIC          0x25609513u
#define NBD_SIMPLE_REPLY_MAGIC     0x67446698u
#define NBD_STRUCTURED_REPLY_MAGIC 0x668e33efu
#define NBD_EXTENDED_REQUEST_MAGIC 0x21e41c71u
#define NBD_EXTENDED_REPLY_MAGIC   0x6e8a278cu

#define NBD_REQUEST_BYTES          28
#define NBD_EXTENDED_REQUEST_BYTES 32
#define NBD_SIMPLE_REPLY_BYTES     16
#define NBD_STRUCTURED_REPLY_BYTES 20
#define NBD_EXTENDED_REPLY_BYTES   32

#define NBD_CMD_READ         0
#define NBD_CMD_WRITE        1
#define NBD_CMD_DISC         2
#define NBD_CMD_FLUSH        3
#define NBD_CMD_TRIM         4
#define NBD_CMD_CACHE        5
#define NBD_CMD_WRITE_ZEROES 6
#define NBD_CMD_BLOCK_STATUS 7

#define NBD_CMD_FLAG_FUA         0x01u
#define NBD_CMD_FLAG_NO_HOLE     0x02u
#define NBD_CMD_FLAG_DF          0x04u
#define NBD_CMD_FLAG_REQ_ONE     0x08u
#define NBD_CMD_FLAG_FAST_ZERO   0x10u
#define NBD_CMD_FLAG_PAYLOAD_LEN 0x20u

#define NBD_REPLY_FLAG_DONE 0x01u

#define NBD_REPLY_TYPE_NONE             0
#define NBD_REPLY_TYPE_OFFSET_DATA      1
#define NBD_REPLY_TYPE_OFFSET_HOLE      2
#define NBD_REPLY_TYPE_BLOCK_STATUS     5
#define NBD_REPLY_TYPE_BLOCK_STATUS_EXT 6
#define NBD_REPLY_TYPE_ERROR            0x8001u
#define NBD_REPLY_TYPE_ERROR_OFFSET     0x8002u
#define NBD_REPLY_TYPE_IS_ERROR         0x8000u

/* Transmission flags. */
#define NBD_FLAG_READ_ONLY         0x0002u
#define NBD_FLAG_SEND_FLUSH        0x0004u
#define NBD_FLAG_SEND_FUA          0x0008u
#define NBD_FLAG_SEND_TRIM         0x0020u
#define NBD_FLAG_SEND_WRITE_ZEROES 0x0040u
#define NBD_FLAG_SEND_CACHE        0x0400u
#define NBD_FLAG_SEND_FAST_ZERO    0x0800u

#define NBD_EPERM     1
#define NBD_EIO       5
#define NBD_ENOMEM    12
#define NBD_EINVAL    22
#define NBD_ENOSPC    28
#define NBD_EOVERFLOW 75
#define NBD_ENOTSUP   95
#define NBD_ESHUTDOWN 108

#define NBD_STATE_HOLE 0x1u
#define NBD_STATE_ZERO 0x2u

/* Big endian, any alignment. */
static inline uint16_t nbd_get16(const uint8_t *p)
{
    return (uint16_t)(p[0] << 8 | p[1]);
}

static inline uint32_t nbd_get32(const uint8_t *p)
{
    uint32_t value;

    memcpy(&value, p, sizeof(value));
    return __builtin_bswap32(value);
}

static inline uint64_t nbd_get64(const uint8_t *p)
{
    uint64_t value;

    memcpy(&value, p, sizeof(value));
    return __builtin_bswap64(value);
}

static inline void nbd_put16(uint8_t *p, uint16_t value)
{
    value = __builtin_bswap16(value);
    memcpy(p, &value, sizeof(value));
}

static inline void nbd_put32(uint8_t *p, uint32_t value)
{
    value = __builtin_bswap32(value);
    memcpy(p, &value, sizeof(value));
}

static inline void nbd_put64(uint8_t *p, uint64_t value)
{
    value = __builtin_bswap64(value);
    memcpy(p, &value, sizeof(value));
}

#endif /* BY_NBDC_PROTOCOL_H */
