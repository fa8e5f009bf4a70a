/* SPDX-License-Identifier: Apache-2.0 */
/*
 * derive.c - keys from passphrases: PBKDF2 (RFC 8018, section 5.2).
 *
 * The library has the function too, but nobody can stop it, and the number of
 * rounds comes from the image: four thousand million of them take an hour.
 * The hash is the library's.
 */
#include <endian.h>
#include <errno.h>
#include <gcrypt.h>
#include <string.h>
#include <time.h>

#include "luks.h"

enum {
    STRETCH = 4096,             /* rounds between looks at the clock */
    MOMENT = 200000000,         /* ns in which a speed shows */
};

static uint64_t thread_cpu_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

/* How much a speed may be mistaken. */
#define SLACK 1.25

/* What a derivation may burn, and how far it is. */
struct burning {
    const bool *stop;
    uint64_t began, limit;      /* ns; a limit of 0 is none */
    double done, all;           /* rounds */
};

/* Whether it is to end now.  What would take clearly more than its limit is known
 * after a moment: nobody is to wait for the limit to tell him so. */
static int stopped(const struct burning *b)
{
    uint64_t took;

    if (b->stop && __atomic_load_n(b->stop, __ATOMIC_RELAXED)) {
        return -ECANCELED;
    }
    if (!b->limit) {
        return 0;
    }
    took = thread_cpu_ns() - b->began;
    return took > b->limit
        || (took > MOMENT
            && (double)took * b->all > SLACK * (double)b->limit * b->done)
        ? -ETIMEDOUT : 0;
}

/* HMAC of a and b, into out. */
static int mac(gcry_md_hd_t md, const void *a, size_t a_bytes, const void *b,
               size_t b_bytes, unsigned char *out, size_t digest)
{
    const unsigned char *got;

    gcry_md_reset(md);
    gcry_md_write(md, a, a_bytes);
    if (b_bytes) {
        gcry_md_write(md, b, b_bytes);
    }
    got = gcry_md_read(md, 0);
    if (!got) {
        return -EIO;
    }
    memcpy(out, got, digest);
    return 0;
}

/* One block of the output: U1 ^ U2 ^ ... */
static int block(gcry_md_hd_t md, size_t digest, const void *salt,
                 size_t salt_bytes, uint32_t index, uint64_t rounds,
                 unsigned char *sum, struct burning *b)
{
    unsigned char u[BY_LUKS_DIGEST_MAX];
    uint32_t number = htobe32(index);
    int result = mac(md, salt, salt_bytes, &number, sizeof(number), u, digest);

    memcpy(sum, u, digest);
    for (uint64_t i = 1; i < rounds && result == 0; i++) {
        if (i % STRETCH == 0) {
            b->done += STRETCH;
            result = stopped(b);
        }
        if (result == 0) {
            result = mac(md, u, digest, NULL, 0, u, digest);
        }
        for (size_t k = 0; k < digest; k++) {
            sum[k] ^= u[k];
        }
    }
    by_luks_wipe(u, sizeof(u));
    return result;
}

static int blocks(gcry_md_hd_t md, size_t digest, const void *salt,
                  size_t salt_bytes, uint64_t rounds, unsigned char *out,
                  size_t out_bytes, const bool *stop, uint64_t limit)
{
    unsigned char sum[BY_LUKS_DIGEST_MAX];
    struct burning b = {
        .stop = stop, .limit = limit, .began = thread_cpu_ns(),
        .all = (double)rounds * (double)((out_bytes + digest - 1) / digest),
    };
    int result = stopped(&b);
    uint32_t index = 1;

    while (out_bytes && result == 0) {
        size_t count = out_bytes < digest ? out_bytes : digest;

        result = block(md, digest, salt, salt_bytes, index++, rounds, sum,
                       &b);
        memcpy(out, sum, count);
        out += count;
        out_bytes -= count;
    }
    by_luks_wipe(sum, sizeof(sum));
    return result;
}

int by_luks_pbkdf2(uint32_t hash, const void *password, size_t password_bytes,
                   const void *salt, size_t salt_bytes, uint64_t rounds,
                   void *out, size_t out_bytes, const bool *stop,
                   uint64_t cpu_limit)
{
    int id = by_luks_hash_id(hash);
    gcry_md_hd_t md;
    int result;

    if (!id) {
        return -ENOTSUP;
    }
    if (!rounds) {
        return -EINVAL;
    }
    if (gcry_md_open(&md, id, GCRY_MD_FLAG_HMAC)) {
        return -ENOMEM;
    }
    result = gcry_md_setkey(md, password, password_bytes) ? -EIO : 0;
    if (result == 0) {
        result = blocks(md, gcry_md_get_algo_dlen(id), salt, salt_bytes,
                        rounds, out, out_bytes, stop, cpu_limit);
    }
    gcry_md_close(md);
    if (result < 0) {
        by_luks_wipe(out, out_bytes);
    }
    return result;
}

int by_luks_rounds_per_second(uint32_t hash, size_t out_bytes,
                              const bool *stop, uint64_t *rounds)
{
    static const unsigned char text[32] = "measure";
    unsigned char out[2 * BY_LUKS_DIGEST_MAX];
    const uint64_t enough = 100000000; /* ns */

    if (out_bytes > sizeof(out)) {
        return -EINVAL;
    }
    for (uint64_t count = 4096;; count *= 4) {
        uint64_t began = thread_cpu_ns(), took;
        int result = by_luks_pbkdf2(hash, text, sizeof(text), text,
                                    sizeof(text), count, out, out_bytes, stop,
                                    0);

        if (result < 0) {
            return result;
        }
        took = thread_cpu_ns() - began;
        if (took >= enough || count >= (uint64_t)1 << 32) {
            *rounds = (uint64_t)((double)count * 1e9 / (double)(took | 1));
            return 0;
        }
    }
}
