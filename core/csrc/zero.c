/* SPDX-License-Identifier: Apache-2.0 */
/*
 * zero.c - are these bytes all zero?  Most buffers that are not zero show it
 * in their first bytes, their last or their middle; those are looked at
 * before the whole is read.
 */
#include <string.h>

#include "loop.h"

static uint64_t word_at(const unsigned char *p)
{
    uint64_t word;

    memcpy(&word, p, sizeof(word));
    return word;
}

static bool small_is_zero(const unsigned char *p, size_t count)
{
    unsigned char any = 0;

    while (count--) {
        any |= *p++;
    }
    return !any;
}

/* count >= 64; the last block overlaps the one before. */
static bool words_are_zero(const unsigned char *p, size_t count)
{
    const unsigned char *last = p + count - 64;

    for (;;) {
        uint64_t any = 0;

        for (int i = 0; i < 64; i += 8) {
            any |= word_at(p + i);
        }
        if (any) {
            return false;
        }
        if (p == last) {
            return true;
        }
        p = p + 64 > last ? last : p + 64;
    }
}

#if defined(__x86_64__)
#include <immintrin.h>

__attribute__((target("avx2")))
static bool avx2_is_zero(const unsigned char *p, size_t count)
{
    const unsigned char *last = p + count - 128;

    for (;;) {
        const __m256i *v = (const __m256i *)p;
        __m256i any = _mm256_or_si256(
            _mm256_or_si256(_mm256_loadu_si256(v), _mm256_loadu_si256(v + 1)),
            _mm256_or_si256(_mm256_loadu_si256(v + 2),
                            _mm256_loadu_si256(v + 3)));

        if (!_mm256_testz_si256(any, any)) {
            return false;
        }
        if (p == last) {
            return true;
        }
        p = p + 128 > last ? last : p + 128;
    }
}

static bool wide_is_zero(const unsigned char *p, size_t count)
{
    /* The answer is one load of libgcc's table, filled at start-up. */
    if (count >= 128 && __builtin_cpu_supports("avx2")) {
        return avx2_is_zero(p, count);
    }
    return words_are_zero(p, count);
}
#else
static bool wide_is_zero(const unsigned char *p, size_t count)
{
    return words_are_zero(p, count);
}
#endif

bool by_is_zero(const void *bytes, size_t count)
{
    const unsigned char *p = bytes;

    if (count < 64) {
        return small_is_zero(p, count);
    }
    if (word_at(p) | word_at(p + count / 2 - 4) | word_at(p + count - 8)) {
        return false;
    }
    return wide_is_zero(p, count);
}
