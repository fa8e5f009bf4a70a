/* SPDX-License-Identifier: Apache-2.0 */
/* luks.h - what the files of the LUKS format share. */
#ifndef BLOCKYARD_FORMATS_LUKS_H
#define BLOCKYARD_FORMATS_LUKS_H

#include "blockyard.h"
#include "control.h"

#define BY_LUKS_SECTOR 512u
#define BY_LUKS_DIGEST_MAX 64u

#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)

/* library.c: libgcrypt's numbers for ours; 0: it has no such thing */
int by_luks_cipher_id(uint32_t cipher, size_t key_bytes);
int by_luks_hash_id(uint32_t hash);
/* What takes a loop about ten microseconds at most. */
uint32_t by_luks_inline_bytes(uint32_t cipher);

#endif /* BLOCKYARD_FORMATS_LUKS_H */
