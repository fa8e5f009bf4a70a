/* SPDX-License-Identifier: Apache-2.0 */
/*
 * crypto.h - the cipher of an encrypted disk, as request paths use it.
 *
 * A format that keeps encrypted data (luks, qcow2) is handed the address of a
 * struct by_crypto by the Python half of blockyard_formats_luks, and carries
 * a copy of this file.  Both functions may be called from any thread, by many
 * at once.  They wait for nobody, but burn: what is longer than inline_bytes
 * belongs in the pool.
 */
#ifndef BLOCKYARD_CRYPTO_H
#define BLOCKYARD_CRYPTO_H

#include <stddef.h>
#include <stdint.h>

struct by_crypto {
    uint32_t size;          /* of this structure */
    uint32_t sector_size;   /* bytes; a power of two */

    /* In place.  offset is where the first byte is on the disk, from which
     * each sector's initialization vector comes; offset and bytes are
     * multiples of sector_size.  0, -EINVAL, -ENOMEM or -EIO; what buf holds
     * after a failure is nobody's business. */
    int (*encrypt)(struct by_crypto *crypto, uint64_t offset, void *buf,
                   size_t bytes);
    int (*decrypt)(struct by_crypto *crypto, uint64_t offset, void *buf,
                   size_t bytes);

    void *state;
    /* Requests up to this length are worth doing on the loop itself. */
    uint32_t inline_bytes;
    uint32_t reserved;
};

#endif /* BLOCKYARD_CRYPTO_H */
