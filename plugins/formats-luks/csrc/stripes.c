/* SPDX-License-Identifier: Apache-2.0 */
/*
 * stripes.c - the anti-forensic splitter (LUKS specification, 2.4).
 *
 * A key becomes many times its length, all of which is needed to have it
 * back: a disk that keeps old sectors somewhere has to have kept them all.
 */
#include <endian.h>
#include <errno.h>
#include <gcrypt.h>
#include <stdlib.h>
#include <string.h>

#include "luks.h"

static void add(unsigned char *sum, const unsigned char *piece, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++) {
        sum[i] ^= piece[i];
    }
}

/* Each piece of a digest's length becomes the digest of its number and of
 * itself. */
static void diffuse(int id, gcry_md_hd_t md, unsigned char *block,
                    size_t bytes)
{
    size_t digest = gcry_md_get_algo_dlen(id);
    uint32_t index = 0;

    for (size_t at = 0; at < bytes; at += digest) {
        size_t count = bytes - at < digest ? bytes - at : digest;
        uint32_t number = htobe32(index++);

        gcry_md_reset(md);
        gcry_md_write(md, &number, sizeof(number));
        gcry_md_write(md, block + at, count);
        memcpy(block + at, gcry_md_read(md, id), count);
    }
}

/* The sum of all stripes but the last. */
static int gather(uint32_t hash, const unsigned char *split, size_t bytes,
                  uint32_t stripes, unsigned char *sum)
{
    int id = by_luks_hash_id(hash);
    gcry_md_hd_t md;

    if (!id || !bytes || !stripes) {
        return id ? -EINVAL : -ENOTSUP;
    }
    if (gcry_md_open(&md, id, 0)) {
        return -ENOMEM;
    }
    memset(sum, 0, bytes);
    for (uint32_t i = 0; i + 1 < stripes; i++) {
        add(sum, split + i * bytes, bytes);
        diffuse(id, md, sum, bytes);
    }
    gcry_md_close(md);
    return 0;
}

int by_luks_split(uint32_t hash, const void *key, size_t bytes,
                  uint32_t stripes, void *out)
{
    unsigned char *last;
    int result;

    if (!bytes || !stripes) {
        return -EINVAL;
    }
    last = (unsigned char *)out + bytes * (stripes - 1);
    result = by_luks_random(out, bytes * (stripes - 1));
    if (result == 0) {
        result = gather(hash, out, bytes, stripes, last);
    }
    if (result == 0) {
        add(last, key, bytes);
    }
    return result;
}

int by_luks_merge(uint32_t hash, const void *split, size_t bytes,
                  uint32_t stripes, void *key)
{
    int result = gather(hash, split, bytes, stripes, key);

    if (result == 0) {
        add(key, (const unsigned char *)split + bytes * (stripes - 1), bytes);
    }
    return result;
}
