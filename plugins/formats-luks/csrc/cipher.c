/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cipher.c - sectors in and out of a cipher, on any number of threads.
 *
 * A handle of the library serves one thread at a time, and setting its key
 * costs more than a sector does.  So handles with the key set are kept, as
 * many as were ever needed at once up to a bound, and each call takes one.
 */
#include <endian.h>
#include <errno.h>
#include <gcrypt.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "luks.h"

enum { KEPT_MAX = 64, KEY_MAX = 64, BLOCK_MAX = 16 };

/* What one call uses. */
struct context {
    struct context *next;
    gcry_cipher_hd_t data;
    gcry_cipher_hd_t iv;            /* null but with ESSIV */
};

struct state {
    struct by_crypto crypto;
    struct by_luks_method method;
    int data_id, data_mode, iv_id;
    size_t block;                   /* of the data's cipher, bytes */
    size_t key_bytes, iv_key_bytes;
    unsigned char key[KEY_MAX];
    unsigned char iv_key[BY_LUKS_DIGEST_MAX];

    pthread_mutex_t lock;
    struct context *free;
    unsigned kept;
};

/* -------------------------------------------------------------- contexts */

static void context_free(struct context *context)
{
    gcry_cipher_close(context->data);
    gcry_cipher_close(context->iv);
    free(context);
}

static int open_handle(gcry_cipher_hd_t *handle, int id, int mode,
                       const void *key, size_t bytes)
{
    gcry_error_t error = gcry_cipher_open(handle, id, mode, 0);

    if (error) {
        return gcry_err_code(error) == GPG_ERR_ENOMEM ? -ENOMEM : -ENOTSUP;
    }
    return gcry_cipher_setkey(*handle, key, bytes) ? -EINVAL : 0;
}

static int context_make(const struct state *s, struct context **out)
{
    struct context *context = calloc(1, sizeof(*context));
    int result = context ? 0 : -ENOMEM;

    if (result == 0) {
        result = open_handle(&context->data, s->data_id, s->data_mode,
                             s->key, s->key_bytes);
    }
    if (result == 0 && s->iv_id) {
        result = open_handle(&context->iv, s->iv_id, GCRY_CIPHER_MODE_ECB,
                             s->iv_key, s->iv_key_bytes);
    }
    if (result < 0 && context) {
        context_free(context);
    }
    *out = result < 0 ? NULL : context;
    return result;
}

static int context_take(struct state *s, struct context **out)
{
    struct context *context;

    pthread_mutex_lock(&s->lock);
    context = s->free;
    if (likely(context)) {
        s->free = context->next;
        s->kept--;
    }
    pthread_mutex_unlock(&s->lock);
    *out = context;
    return likely(context) ? 0 : context_make(s, out);
}

static void context_give(struct state *s, struct context *context)
{
    pthread_mutex_lock(&s->lock);
    if (likely(s->kept < KEPT_MAX)) {
        context->next = s->free;
        s->free = context;
        s->kept++;
        context = NULL;
    }
    pthread_mutex_unlock(&s->lock);
    if (unlikely(context)) {
        context_free(context);
    }
}

/* --------------------------------------------------------------- sectors */

/* The initialization vector of a sector: LUKS specification, "plain", and
 * dm-crypt's documentation for "plain64" and "essiv". */
static gcry_error_t set_iv(const struct state *s, struct context *context,
                           uint64_t sector)
{
    unsigned char iv[BLOCK_MAX] = { 0 };
    uint64_t number = htole64(s->method.ivgen == BY_LUKS_PLAIN
                              ? (uint32_t)sector : sector);
    gcry_error_t error = 0;

    memcpy(iv, &number, sizeof(number));
    if (context->iv) {
        error = gcry_cipher_encrypt(context->iv, iv, s->block, NULL, 0);
    }
    if (error) {
        return error;
    }
    return s->method.mode == BY_LUKS_CTR
        ? gcry_cipher_setctr(context->data, iv, s->block)
        : gcry_cipher_setiv(context->data, iv, s->block);
}

static int crypt_sectors(const struct state *s, struct context *context,
                         bool encrypt, uint64_t offset, unsigned char *buf,
                         size_t bytes)
{
    uint64_t sector = offset / BY_LUKS_SECTOR;
    gcry_error_t error = 0;

    for (size_t i = 0; i < bytes && !error; i += BY_LUKS_SECTOR) {
        if (s->method.mode != BY_LUKS_ECB) {
            error = set_iv(s, context, sector++);
        }
        if (likely(!error)) {
            error = encrypt
                ? gcry_cipher_encrypt(context->data, buf + i, BY_LUKS_SECTOR,
                                      NULL, 0)
                : gcry_cipher_decrypt(context->data, buf + i, BY_LUKS_SECTOR,
                                      NULL, 0);
        }
    }
    return error ? -EIO : 0;
}

static int run(struct by_crypto *crypto, bool encrypt, uint64_t offset,
               void *buf, size_t bytes)
{
    struct state *s = crypto->state;
    struct context *context;
    int result;

    if (unlikely((offset | bytes) % BY_LUKS_SECTOR)) {
        return -EINVAL;
    }
    result = context_take(s, &context);
    if (likely(result == 0)) {
        result = crypt_sectors(s, context, encrypt, offset, buf, bytes);
        context_give(s, context);
    }
    return result;
}

int by_luks_encrypt(struct by_crypto *crypto, uint64_t offset, void *buf,
                    size_t bytes)
{
    return run(crypto, true, offset, buf, bytes);
}

int by_luks_decrypt(struct by_crypto *crypto, uint64_t offset, void *buf,
                    size_t bytes)
{
    return run(crypto, false, offset, buf, bytes);
}

/* ------------------------------------------------------- opening, closing */

static int mode_id(uint32_t mode)
{
    static const int ids[] = {
        [BY_LUKS_ECB] = GCRY_CIPHER_MODE_ECB,
        [BY_LUKS_CBC] = GCRY_CIPHER_MODE_CBC,
        [BY_LUKS_XTS] = GCRY_CIPHER_MODE_XTS,
        [BY_LUKS_CTR] = GCRY_CIPHER_MODE_CTR,
    };

    return mode < sizeof(ids) / sizeof(ids[0]) ? ids[mode] : 0;
}

/* The key of the vectors is the hash of the data's key, and chooses the
 * variant of the cipher by its own length. */
static int prepare_essiv(struct state *s)
{
    int hash = by_luks_hash_id(s->method.ivgen_hash);

    if (!hash) {
        return -ENOTSUP;
    }
    s->iv_key_bytes = gcry_md_get_algo_dlen(hash);
    s->iv_id = by_luks_cipher_id(s->method.cipher, s->iv_key_bytes);
    if (!s->iv_id) {
        return -ENOTSUP;
    }
    gcry_md_hash_buffer(hash, s->iv_key, s->key, s->key_bytes);
    return 0;
}

static int prepare(struct state *s)
{
    bool two = s->method.mode == BY_LUKS_XTS;
    size_t one_key = two ? s->key_bytes / 2 : s->key_bytes;

    if (two && s->key_bytes % 2) {
        return -ENOTSUP;
    }
    s->data_id = by_luks_cipher_id(s->method.cipher, one_key);
    s->data_mode = mode_id(s->method.mode);
    if (!s->data_id || !s->data_mode || s->method.ivgen > BY_LUKS_ESSIV) {
        return -ENOTSUP;
    }
    s->block = gcry_cipher_get_algo_blklen(s->data_id);
    if (s->block > BLOCK_MAX || (two && s->block != BLOCK_MAX)) {
        return -ENOTSUP;
    }
    return s->method.ivgen == BY_LUKS_ESSIV ? prepare_essiv(s) : 0;
}

int by_luks_crypto_open(const struct by_luks_method *method, const void *key,
                        size_t bytes, struct by_crypto **out)
{
    struct state *s = bytes <= KEY_MAX ? calloc(1, sizeof(*s)) : NULL;
    struct context *context = NULL;
    int result;

    *out = NULL;
    if (!s) {
        return bytes <= KEY_MAX ? -ENOMEM : -ENOTSUP;
    }
    s->crypto = (struct by_crypto) {
        .size = sizeof(s->crypto),
        .sector_size = BY_LUKS_SECTOR,
        .encrypt = by_luks_encrypt,
        .decrypt = by_luks_decrypt,
        .state = s,
        .inline_bytes = by_luks_inline_bytes(method->cipher),
    };
    s->method = *method;
    memcpy(s->key, key, bytes);
    s->key_bytes = bytes;
    pthread_mutex_init(&s->lock, NULL);
    result = prepare(s);
    if (result == 0) {
        result = context_make(s, &context);
    }
    if (result < 0) {
        by_luks_crypto_close(&s->crypto);
        return result;
    }
    context_give(s, context);
    *out = &s->crypto;
    return 0;
}

void by_luks_crypto_close(struct by_crypto *crypto)
{
    struct state *s = crypto ? crypto->state : NULL;
    struct context *context;

    if (!s) {
        return;
    }
    while ((context = s->free)) {
        s->free = context->next;
        context_free(context);
    }
    pthread_mutex_destroy(&s->lock);
    by_luks_wipe(s, sizeof(*s));
    free(s);
}
