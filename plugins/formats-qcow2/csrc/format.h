/* SPDX-License-Identifier: Apache-2.0 */
/*
 * format.h - qcow2 as it is on disk (docs/interop/qcow2.txt of QEMU, the
 * format's specification; section names are quoted where they matter).
 * Everything is big endian.
 */
#ifndef BLOCKYARD_QCOW2_FORMAT_H
#define BLOCKYARD_QCOW2_FORMAT_H

#include <endian.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

enum {
    Q2_MIN_CLUSTER_BITS = 9,
    Q2_MAX_CLUSTER_BITS = 21,
    Q2_SUBCLUSTERS = 32,
    Q2_SECTOR = 512,
    Q2_HEADER_V2 = 72,
    Q2_HEADER_V3 = 104,
};

/* Tables no larger than the format's users build them. */
#define Q2_MAX_L1_BYTES (32u << 20)
#define Q2_MAX_REFTABLE_BYTES (8u << 20)
#define Q2_MAX_SNAPSHOTS 65536u
#define Q2_MAX_SNAPSHOTS_BYTES (64u << 20)
#define Q2_MAX_BITMAPS 65535u

/* Section "Header": where fields that C writes are. */
enum {
    Q2_AT_BACKING_OFFSET = 8,
    Q2_AT_BACKING_SIZE = 16,
    Q2_AT_SIZE = 24,
    Q2_AT_L1_SIZE = 36,
    Q2_AT_L1_OFFSET = 40,
    Q2_AT_REFTABLE_OFFSET = 48,
    Q2_AT_REFTABLE_CLUSTERS = 56,
    Q2_AT_NB_SNAPSHOTS = 60,
    Q2_AT_SNAPSHOTS_OFFSET = 64,
    Q2_AT_INCOMPATIBLE = 72,
    Q2_AT_COMPATIBLE = 80,
    Q2_AT_AUTOCLEAR = 88,
    Q2_AT_REFCOUNT_ORDER = 96,
};

#define Q2_INCOMPAT_DIRTY       (1ull << 0)
#define Q2_INCOMPAT_CORRUPT     (1ull << 1)
#define Q2_INCOMPAT_DATA_FILE   (1ull << 2)
#define Q2_INCOMPAT_COMPRESSION (1ull << 3)
#define Q2_INCOMPAT_EXTL2       (1ull << 4)
#define Q2_COMPAT_LAZY          (1ull << 0)
#define Q2_AUTOCLEAR_BITMAPS    (1ull << 0)
#define Q2_AUTOCLEAR_RAW        (1ull << 1)

/* Sections "Cluster mapping" and "Refcounts": entries of L1, L2 and the
 * refcount table. */
#define Q2_OFFSET_MASK   0x00fffffffffffe00ull
#define Q2_COPIED        (1ull << 63) /* the refcount is exactly one */
#define Q2_COMPRESSED    (1ull << 62)
#define Q2_ZERO          1ull         /* reads as zeroes; version 3 */
#define Q2_L1_RESERVED   0x7f000000000001ffull
#define Q2_L2_RESERVED   0x3f000000000001feull
#define Q2_REFT_OFFSET_MASK 0xfffffffffffffe00ull
#define Q2_REFT_RESERVED 0x1ffull

static inline uint64_t q2_be64(const void *p)
{
    uint64_t v;

    memcpy(&v, p, sizeof(v));
    return be64toh(v);
}

static inline uint32_t q2_be32(const void *p)
{
    uint32_t v;

    memcpy(&v, p, sizeof(v));
    return be32toh(v);
}

static inline uint16_t q2_be16(const void *p)
{
    uint16_t v;

    memcpy(&v, p, sizeof(v));
    return be16toh(v);
}

static inline void q2_put64(void *p, uint64_t v)
{
    v = htobe64(v);
    memcpy(p, &v, sizeof(v));
}

static inline void q2_put32(void *p, uint32_t v)
{
    v = htobe32(v);
    memcpy(p, &v, sizeof(v));
}

static inline void q2_put16(void *p, uint16_t v)
{
    v = htobe16(v);
    memcpy(p, &v, sizeof(v));
}

#endif /* BLOCKYARD_QCOW2_FORMAT_H */
