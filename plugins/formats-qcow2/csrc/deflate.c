/* SPDX-License-Identifier: Apache-2.0 */
/*
 * deflate.c - encoders.  Deflate streams keep to a window of 4 KiB, which is
 * all that other readers of the format provide for.
 */
#include <errno.h>
#include <zlib.h>
#include <zstd.h>

#include "compressed.h"

#define WINDOW_BITS 12

static int64_t deflate_zlib(const void *in, size_t in_bytes, void *out,
                            size_t out_bytes)
{
    z_stream z = {
        .next_in = (void *)in, .avail_in = in_bytes,
        .next_out = out, .avail_out = out_bytes,
    };
    int result = deflateInit2(&z, Z_DEFAULT_COMPRESSION, Z_DEFLATED,
                              -WINDOW_BITS, 9, Z_DEFAULT_STRATEGY);

    if (result != Z_OK) {
        return result == Z_MEM_ERROR ? -ENOMEM : -EIO;
    }
    result = deflate(&z, Z_FINISH);
    deflateEnd(&z);
    return result == Z_STREAM_END ? (int64_t)(out_bytes - z.avail_out)
        : result == Z_OK || result == Z_BUF_ERROR ? 0 : -EIO;
}

static int64_t deflate_zstd(const void *in, size_t in_bytes, void *out,
                            size_t out_bytes)
{
    ZSTD_CCtx *context = ZSTD_createCCtx();
    size_t result;

    if (!context) {
        return -ENOMEM;
    }
    result = ZSTD_compressCCtx(context, out, out_bytes, in, in_bytes,
                               ZSTD_CLEVEL_DEFAULT);
    ZSTD_freeCCtx(context);
    return ZSTD_isError(result) ? 0 : (int64_t)result;
}

int64_t q2_deflate(uint32_t compression, const void *in, size_t in_bytes,
                   void *out, size_t out_bytes)
{
    return compression == BY_QCOW2_ZSTD
        ? deflate_zstd(in, in_bytes, out, out_bytes)
        : deflate_zlib(in, in_bytes, out, out_bytes);
}
