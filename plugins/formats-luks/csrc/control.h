/* SPDX-License-Identifier: Apache-2.0 */
/*
 * control.h - what the Python half of the LUKS format calls.
 *
 * The build reads these declarations for cffi, so this file holds nothing but
 * comments, includes, plain structures and prototypes.  Results are 0 or
 * -errno.  "Burns": not on the control loop.
 */
#ifndef BLOCKYARD_FORMATS_LUKS_CONTROL_H
#define BLOCKYARD_FORMATS_LUKS_CONTROL_H

#include "blockyard.h"
#include "crypto.h"

/* The library is there and works: 0, or -ENOSYS. */
int by_luks_library(void);
/* Take core's table.  -EPROTO: it is for another BY_ABI_VERSION. */
int by_luks_init(uintptr_t api);

enum by_luks_cipher {
    BY_LUKS_AES,
    BY_LUKS_CAST5,
    BY_LUKS_SERPENT,
    BY_LUKS_TWOFISH,
    BY_LUKS_SM4
};

enum by_luks_mode {
    BY_LUKS_ECB,
    BY_LUKS_CBC,
    BY_LUKS_XTS,
    BY_LUKS_CTR
};

enum by_luks_ivgen {
    BY_LUKS_PLAIN,
    BY_LUKS_PLAIN64,
    BY_LUKS_ESSIV
};

enum by_luks_hash {
    BY_LUKS_MD5,
    BY_LUKS_SHA1,
    BY_LUKS_SHA224,
    BY_LUKS_SHA256,
    BY_LUKS_SHA384,
    BY_LUKS_SHA512,
    BY_LUKS_RIPEMD160,
    BY_LUKS_SM3
};

/* How a disk is encrypted. */
struct by_luks_method {
    uint32_t cipher;        /* enum by_luks_cipher */
    uint32_t mode;          /* enum by_luks_mode */
    uint32_t ivgen;         /* enum by_luks_ivgen */
    uint32_t ivgen_hash;    /* enum by_luks_hash; with BY_LUKS_ESSIV only */
};

/*
 * A cipher with its key, which is copied.  The length of the key chooses the
 * variant of the cipher; with BY_LUKS_XTS it is two keys.  -ENOTSUP: the
 * library has no such cipher, mode or length.
 */
int by_luks_crypto_open(const struct by_luks_method *method, const void *key,
                        size_t bytes, struct by_crypto **out);
/* Nobody uses it any more.  Wipes the keys. */
void by_luks_crypto_close(struct by_crypto *crypto);
/* What crypto.h's functions do. */
int by_luks_encrypt(struct by_crypto *crypto, uint64_t offset, void *buf,
                    size_t bytes);
int by_luks_decrypt(struct by_crypto *crypto, uint64_t offset, void *buf,
                    size_t bytes);

/* Bytes of a digest; 0: the library has no such hash. */
uint32_t by_luks_digest_bytes(uint32_t hash);
/*
 * PBKDF2 with HMAC (RFC 8018, 5.2).  Burns.  *stop becomes true from another
 * thread to end it: -ECANCELED.  -ETIMEDOUT: the processor time of this thread
 * reached cpu_limit (nanoseconds; 0: none).
 */
int by_luks_pbkdf2(uint32_t hash, const void *password, size_t password_bytes,
                   const void *salt, size_t salt_bytes, uint64_t rounds,
                   void *out, size_t out_bytes, const bool *stop,
                   uint64_t cpu_limit);
/* How many rounds for out_bytes take a second of this processor.  Burns. */
int by_luks_rounds_per_second(uint32_t hash, size_t out_bytes,
                              const bool *stop, uint64_t *rounds);
/*
 * Anti-forensic splitting (LUKS specification, 2.4): a key of `bytes` bytes
 * as bytes * stripes, and back.
 */
int by_luks_split(uint32_t hash, const void *key, size_t bytes,
                  uint32_t stripes, void *out);
int by_luks_merge(uint32_t hash, const void *split, size_t bytes,
                  uint32_t stripes, void *key);
/* Bytes fit for keys, the kernel's. */
int by_luks_random(void *out, size_t bytes);
/* Not left out by a compiler. */
void by_luks_wipe(void *buf, size_t bytes);

struct by_luks;
/* struct by_node_ops, as an address */
uintptr_t by_luks_ops(void);
/* The state of one node; null: no memory.  crypto stays the caller's. */
struct by_luks *by_luks_create(struct by_crypto *crypto,
                               uint64_t payload_offset);
void by_luks_free(struct by_luks *luks);

#endif /* BLOCKYARD_FORMATS_LUKS_CONTROL_H */
