/* SPDX-License-Identifier: Apache-2.0 */
/*
 * library.c - libgcrypt: made ready once, and its names for things.
 *
 * Its secure memory is not used: there is little of it, locked as it is, and
 * running out of it would fail requests.  Handles wipe what they hold when
 * they are closed, and so does everything here.
 */
#include <errno.h>
#include <gcrypt.h>
#include <pthread.h>
#include <string.h>
#include <sys/random.h>

#include "luks.h"

static int library_result = -ENOSYS;
static bool fast_aes;

/* Whether the processor has instructions for it (in the library's list of what
 * it uses: intel-aesni, arm-aes, ppc-vcrypto). */
static bool find_fast_aes(void)
{
    char *list = gcry_get_config(0, "hwflist");
    bool found = list && (strstr(list, "aes") || strstr(list, "vcrypto"));

    gcry_free(list);
    return found;
}

/* Another user of the library in this process may have been faster. */
static void make_ready(void)
{
    if (!gcry_control(GCRYCTL_INITIALIZATION_FINISHED_P)) {
        if (!gcry_check_version("1.8.0")) {
            return;
        }
        gcry_control(GCRYCTL_DISABLE_SECMEM, 0);
        gcry_control(GCRYCTL_INITIALIZATION_FINISHED, 0);
    }
    fast_aes = find_fast_aes();
    library_result = 0;
}

int by_luks_library(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;

    pthread_once(&once, make_ready);
    return library_result;
}

uint32_t by_luks_inline_bytes(uint32_t cipher)
{
    return cipher == BY_LUKS_AES && fast_aes ? 32768 : 1024;
}

static int by_key(size_t bytes, int of16, int of24, int of32)
{
    return bytes == 16 ? of16 : bytes == 24 ? of24 : bytes == 32 ? of32 : 0;
}

int by_luks_cipher_id(uint32_t cipher, size_t bytes)
{
    int id = 0;

    switch (cipher) {
    case BY_LUKS_AES:
        id = by_key(bytes, GCRY_CIPHER_AES128, GCRY_CIPHER_AES192,
                    GCRY_CIPHER_AES256);
        break;
    case BY_LUKS_CAST5:
        id = by_key(bytes, GCRY_CIPHER_CAST5, 0, 0);
        break;
    case BY_LUKS_SERPENT:
        id = by_key(bytes, GCRY_CIPHER_SERPENT128, GCRY_CIPHER_SERPENT192,
                    GCRY_CIPHER_SERPENT256);
        break;
    case BY_LUKS_TWOFISH:
        id = by_key(bytes, GCRY_CIPHER_TWOFISH128, 0, GCRY_CIPHER_TWOFISH);
        break;
    case BY_LUKS_SM4:
        id = by_key(bytes, GCRY_CIPHER_SM4, 0, 0);
        break;
    default:
        break;
    }
    return id && gcry_cipher_test_algo(id) == 0 ? id : 0;
}

int by_luks_hash_id(uint32_t hash)
{
    static const int ids[] = {
        [BY_LUKS_MD5] = GCRY_MD_MD5,
        [BY_LUKS_SHA1] = GCRY_MD_SHA1,
        [BY_LUKS_SHA224] = GCRY_MD_SHA224,
        [BY_LUKS_SHA256] = GCRY_MD_SHA256,
        [BY_LUKS_SHA384] = GCRY_MD_SHA384,
        [BY_LUKS_SHA512] = GCRY_MD_SHA512,
        [BY_LUKS_RIPEMD160] = GCRY_MD_RMD160,
        [BY_LUKS_SM3] = GCRY_MD_SM3,
    };

    if (hash >= sizeof(ids) / sizeof(ids[0])
        || gcry_md_test_algo(ids[hash]) != 0) {
        return 0;
    }
    return ids[hash];
}

uint32_t by_luks_digest_bytes(uint32_t hash)
{
    int id = by_luks_hash_id(hash);

    return id ? gcry_md_get_algo_dlen(id) : 0;
}

int by_luks_random(void *out, size_t bytes)
{
    unsigned char *at = out;

    while (bytes) {
        ssize_t got = getrandom(at, bytes, 0);

        if (got < 0 && errno != EINTR) {
            return -errno;
        }
        got = got < 0 ? 0 : got;
        at += got;
        bytes -= (size_t)got;
    }
    return 0;
}

void by_luks_wipe(void *buf, size_t bytes)
{
    explicit_bzero(buf, bytes);
}
