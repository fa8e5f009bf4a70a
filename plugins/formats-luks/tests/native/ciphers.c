/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ciphers.c - every way to encrypt, from many threads at once, and arguments
 * that fit nothing.  Usage: ciphers; exits 0 when every check held.
 */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../csrc/control.h"

#define CHECK(x) do { if (!(x)) { \
    fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #x); exit(1); } \
} while (0)

enum { THREADS = 4, BYTES = 16384, TIMES = 20 };

static unsigned char expected[BYTES];

static void *hammer(void *argument)
{
    struct by_crypto *crypto = argument;
    unsigned char *buffer = malloc(BYTES);

    for (int i = 0; i < TIMES; i++) {
        memset(buffer, 0x5a, BYTES);
        CHECK(crypto->encrypt(crypto, 512 * 77, buffer, BYTES) == 0);
        CHECK(!memcmp(buffer, expected, BYTES));
        CHECK(crypto->decrypt(crypto, 512 * 77, buffer, BYTES) == 0);
        for (int k = 0; k < BYTES; k++) {
            CHECK(buffer[k] == 0x5a);
        }
    }
    free(buffer);
    return NULL;
}

static void check_one(const struct by_luks_method *method, size_t key_bytes)
{
    unsigned char *key = malloc(key_bytes);
    pthread_t threads[THREADS];
    struct by_crypto *crypto;
    int result;

    memset(key, 7, key_bytes);
    key[0] = 1;
    result = by_luks_crypto_open(method, key, key_bytes, &crypto);
    free(key);
    if (result < 0) {
        CHECK(result == -ENOTSUP && !crypto);
        return;
    }
    CHECK(crypto->size >= sizeof(*crypto) && crypto->sector_size == 512);
    memset(expected, 0x5a, BYTES);
    CHECK(crypto->encrypt(crypto, 512 * 77, expected, BYTES) == 0);
    CHECK(crypto->encrypt(crypto, 1, expected, 512) == -EINVAL);
    CHECK(crypto->decrypt(crypto, 0, expected, 511) == -EINVAL);
    CHECK(crypto->decrypt(crypto, 0, NULL, 0) == 0);
    for (int i = 0; i < THREADS; i++) {
        CHECK(!pthread_create(&threads[i], NULL, hammer, crypto));
    }
    for (int i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
    }
    by_luks_crypto_close(crypto);
}

static void check_methods(void)
{
    struct by_luks_method m;

    for (m.cipher = 0; m.cipher <= BY_LUKS_SM4 + 1u; m.cipher++) {
        for (m.mode = 0; m.mode <= BY_LUKS_CTR + 1u; m.mode++) {
            for (m.ivgen = 0; m.ivgen <= BY_LUKS_ESSIV + 1u; m.ivgen++) {
                m.ivgen_hash = m.ivgen == BY_LUKS_ESSIV ? BY_LUKS_SHA256 : 99;
                for (size_t bytes = 16; bytes <= 72; bytes += 8) {
                    check_one(&m, bytes);
                }
                check_one(&m, 1);
                check_one(&m, 33);
            }
        }
    }
    m = (struct by_luks_method) {
        BY_LUKS_AES, BY_LUKS_CBC, BY_LUKS_ESSIV, BY_LUKS_MD5,
    };
    for (; m.ivgen_hash <= BY_LUKS_SM3 + 1u; m.ivgen_hash++) {
        check_one(&m, 32);
    }
}

static void check_keys(void)
{
    static unsigned char split[64 * 4000];
    unsigned char key[64], back[64], out[100];
    bool stop = true;
    uint64_t rounds = 0;

    for (uint32_t hash = 0; hash <= BY_LUKS_SM3; hash++) {
        for (size_t bytes = 1; bytes <= sizeof(key); bytes += 7) {
            CHECK(by_luks_random(key, bytes) == 0);
            CHECK(by_luks_split(hash, key, bytes, 4000, split) == 0);
            CHECK(by_luks_merge(hash, split, bytes, 4000, back) == 0);
            CHECK(!memcmp(key, back, bytes));
            CHECK(by_luks_split(hash, key, bytes, 1, split) == 0);
            CHECK(!memcmp(key, split, bytes));
        }
        CHECK(by_luks_pbkdf2(hash, "", 0, "", 0, 1, out, sizeof(out), NULL,
                             0) == 0);
        CHECK(by_luks_pbkdf2(hash, "a", 1, "b", 1, 0, out, 20, NULL, 0)
              == -EINVAL);
        CHECK(by_luks_pbkdf2(hash, "a", 1, "b", 1, 9, out, 20, &stop, 0)
              == -ECANCELED);
        CHECK(by_luks_pbkdf2(hash, "a", 1, "b", 1, 1u << 31, out, 20, NULL,
                             1000000) == -ETIMEDOUT);
        CHECK(by_luks_rounds_per_second(hash, 20, &stop, &rounds)
              == -ECANCELED);
        CHECK(by_luks_digest_bytes(hash) >= 16);
    }
    CHECK(by_luks_rounds_per_second(BY_LUKS_SHA1, 20, NULL, &rounds) == 0);
    CHECK(rounds > 0);
    CHECK(by_luks_rounds_per_second(BY_LUKS_SHA1, 1000, NULL, &rounds)
          == -EINVAL);
    CHECK(by_luks_digest_bytes(99) == 0);
    CHECK(by_luks_split(99, key, 16, 4000, split) == -ENOTSUP);
    CHECK(by_luks_merge(BY_LUKS_SHA1, split, 16, 0, back) == -EINVAL);
    CHECK(by_luks_split(BY_LUKS_SHA1, key, 0, 4000, split) == -EINVAL);
    CHECK(by_luks_pbkdf2(99, "a", 1, "b", 1, 9, out, 20, NULL, 0)
          == -ENOTSUP);
}

int main(void)
{
    CHECK(by_luks_library() == 0);
    check_methods();
    check_keys();
    by_luks_crypto_close(NULL);
    return 0;
}
