/* SPDX-License-Identifier: Apache-2.0 */
/*
 * inflate.c - decoders.  Each thread keeps one of each kind that it used.
 */
#include <errno.h>
#include <libdeflate.h>
#include <pthread.h>
#include <stdlib.h>
#include <zlib.h>
#include <zstd.h>

#include "compressed.h"

struct decoders {
    struct libdeflate_decompressor *deflate;
    ZSTD_DCtx *zstd;
};

static pthread_key_t key;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static bool have_key;

static void drop(void *kept)
{
    struct decoders *d = kept;

    if (d->deflate) {
        libdeflate_free_decompressor(d->deflate);
    }
    ZSTD_freeDCtx(d->zstd);
    free(d);
}

static void make_key(void)
{
    have_key = pthread_key_create(&key, drop) == 0;
}

static struct decoders *mine(void)
{
    struct decoders *d;

    pthread_once(&once, make_key);
    if (!have_key) {
        return NULL;
    }
    d = pthread_getspecific(key);
    if (!d) {
        d = calloc(1, sizeof(*d));
        if (d && pthread_setspecific(key, d)) {
            free(d);
            d = NULL;
        }
    }
    return d;
}

/* A stream that would give more than is asked for is good as well; only zlib
 * stops in the middle of one. */
static int inflate_beginning(const void *in, size_t in_bytes, void *out,
                             size_t out_bytes)
{
    z_stream z = {
        .next_in = (void *)in, .avail_in = in_bytes,
        .next_out = out, .avail_out = out_bytes,
    };
    int result;

    if (inflateInit2(&z, -15) != Z_OK) {
        return -ENOMEM;
    }
    result = inflate(&z, Z_FINISH);
    inflateEnd(&z);
    return (result == Z_STREAM_END || result == Z_BUF_ERROR)
        && z.avail_out == 0 ? 0 : -EIO;
}

static int inflate_zlib(struct decoders *d, const void *in, size_t in_bytes,
                        void *out, size_t out_bytes)
{
    enum libdeflate_result result;
    size_t used, made;

    if (!d->deflate) {
        d->deflate = libdeflate_alloc_decompressor();
    }
    if (!d->deflate) {
        return -ENOMEM;
    }
    result = libdeflate_deflate_decompress_ex(d->deflate, in, in_bytes, out,
                                              out_bytes, &used, &made);
    if (result == LIBDEFLATE_SUCCESS) {
        return made == out_bytes ? 0 : -EIO;
    }
    return result == LIBDEFLATE_INSUFFICIENT_SPACE
        ? inflate_beginning(in, in_bytes, out, out_bytes) : -EIO;
}

static int inflate_zstd(struct decoders *d, const void *in, size_t in_bytes,
                        void *out, size_t out_bytes)
{
    ZSTD_inBuffer from = { in, in_bytes, 0 };
    ZSTD_outBuffer to = { out, out_bytes, 0 };

    if (!d->zstd) {
        d->zstd = ZSTD_createDCtx();
    }
    if (!d->zstd) {
        return -ENOMEM;
    }
    ZSTD_DCtx_reset(d->zstd, ZSTD_reset_session_only);
    while (to.pos < to.size) {
        size_t in_before = from.pos, out_before = to.pos;

        if (ZSTD_isError(ZSTD_decompressStream(d->zstd, &to, &from))
            || (from.pos == in_before && to.pos == out_before)) {
            return -EIO;
        }
    }
    return 0;
}

int q2_inflate(uint32_t compression, const void *in, size_t in_bytes,
               void *out, size_t out_bytes)
{
    struct decoders *d = mine();

    if (!d) {
        return -ENOMEM;
    }
    return compression == BY_QCOW2_ZSTD
        ? inflate_zstd(d, in, in_bytes, out, out_bytes)
        : inflate_zlib(d, in, in_bytes, out, out_bytes);
}
