/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fsck.h - an image's references against its refcounts, by code that shares
 * nothing with what is tested, and the guest's view of it.
 */
#ifndef BLOCKYARD_QCOW2_FSCK_H
#define BLOCKYARD_QCOW2_FSCK_H

#include <zlib.h>

#include "world.h"

struct fsck {
    const unsigned char *bytes;
    uint64_t length, capacity;
    uint32_t cluster_bits, order, version;
    uint64_t cluster, size, l1, reftable, incompatible;
    uint32_t l1_size, reftable_clusters;
    uint64_t *refs;             /* of each cluster of the capacity */
    uint64_t clusters;
    uint64_t low, leaked, used; /* clusters with too few, too many; with any */
    bool bad;                   /* a reference beyond all bounds */
    unsigned char *plain;       /* of the compressed cluster looked at last */
    uint64_t plain_entry;
};

static inline const unsigned char *fsck_at(struct fsck *f, uint64_t offset,
                                           uint64_t bytes)
{
    static const unsigned char zeroes[1 << 21];

    if (!by_range_ok(offset, bytes, f->capacity)) {
        f->bad = true;
        return zeroes;
    }
    return f->bytes + offset;
}

static inline void fsck_refer(struct fsck *f, uint64_t offset, uint64_t bytes,
                              const char *what)
{
    for (uint64_t c = offset >> f->cluster_bits;
         c <= (offset + bytes - 1) >> f->cluster_bits; c++) {
        if (c >= f->clusters) {
            f->bad = true;
            fprintf(stderr, "%s beyond the file: %#llx\n", what,
                    (unsigned long long)offset);
            return;
        }
        f->refs[c]++;
    }
}

static inline uint64_t fsck_count(struct fsck *f, uint64_t cluster)
{
    uint32_t bits = f->cluster_bits + 3 - f->order;
    uint64_t index = cluster >> bits, in = cluster & ((1ull << bits) - 1);
    uint64_t block, value = 0;
    const unsigned char *at;

    if (index >= (uint64_t)f->reftable_clusters << f->cluster_bits >> 3) {
        return 0;
    }
    block = q2_be64(fsck_at(f, f->reftable + index * 8, 8));
    if (!block) {
        return 0;
    }
    at = fsck_at(f, block, f->cluster);
    if (f->order < 3) {
        uint64_t bit = in << f->order;

        return at[bit >> 3] >> (bit & 7) & ((1u << (1u << f->order)) - 1);
    }
    for (uint32_t i = 0; i < 1u << (f->order - 3); i++) {
        value = value << 8 | at[(in << (f->order - 3)) + i];
    }
    return value;
}

static inline void fsck_l2(struct fsck *f, uint64_t l2)
{
    const unsigned char *table = fsck_at(f, l2, f->cluster);

    for (uint64_t i = 0; i < f->cluster / 8; i++) {
        uint64_t entry = q2_be64(table + i * 8);

        if (entry & Q2_COMPRESSED) {
            uint32_t shift = 62 - (f->cluster_bits - 8);
            uint64_t offset = entry & ((1ull << shift) - 1);
            uint64_t sectors = (entry & ~(3ull << 62)) >> shift;
            uint64_t end = (offset & ~511ull) + (sectors + 1) * 512;

            fsck_refer(f, offset, end - offset, "compressed data");
        } else if (entry & Q2_OFFSET_MASK) {
            fsck_refer(f, entry & Q2_OFFSET_MASK, f->cluster, "data");
        }
    }
}

static inline void fsck_l1(struct fsck *f, uint64_t l1, uint32_t entries)
{
    if (entries) {
        fsck_refer(f, l1, entries * 8ull, "L1");
    }
    for (uint32_t i = 0; i < entries && !f->bad; i++) {
        uint64_t l2 = q2_be64(fsck_at(f, l1 + i * 8ull, 8)) & Q2_OFFSET_MASK;

        if (l2) {
            fsck_refer(f, l2, f->cluster, "L2");
            fsck_l2(f, l2);
        }
    }
}

static inline void fsck_snapshots(struct fsck *f)
{
    uint32_t n = q2_be32(f->bytes + Q2_AT_NB_SNAPSHOTS);
    uint64_t table = q2_be64(f->bytes + Q2_AT_SNAPSHOTS_OFFSET), at = table;

    while (n-- && !f->bad) {
        const unsigned char *e = fsck_at(f, at, 40);
        uint64_t bytes = 40 + q2_be32(e + 36) + q2_be16(e + 12)
            + q2_be16(e + 14);

        fsck_l1(f, q2_be64(e), q2_be32(e + 8));
        at += (bytes + 7) & ~7ull;
    }
    if (at != table) {
        fsck_refer(f, table, at - table, "snapshot table");
    }
}

static inline void fsck_run(struct fsck *f, const unsigned char *bytes,
                            uint64_t length)
{
    *f = (struct fsck) {
        .bytes = bytes, .length = length,
        .cluster_bits = q2_be32(bytes + 20), .order = 4,
        .version = q2_be32(bytes + 4), .size = q2_be64(bytes + Q2_AT_SIZE),
        .l1 = q2_be64(bytes + Q2_AT_L1_OFFSET),
        .l1_size = q2_be32(bytes + Q2_AT_L1_SIZE),
        .reftable = q2_be64(bytes + Q2_AT_REFTABLE_OFFSET),
        .reftable_clusters = q2_be32(bytes + Q2_AT_REFTABLE_CLUSTERS),
    };
    if (f->version >= 3) {
        f->incompatible = q2_be64(bytes + Q2_AT_INCOMPATIBLE);
        f->order = q2_be32(bytes + Q2_AT_REFCOUNT_ORDER);
    }
    f->cluster = 1ull << f->cluster_bits;
    f->clusters = (length + f->cluster - 1) >> f->cluster_bits;
    f->capacity = f->clusters << f->cluster_bits;
    f->refs = calloc(f->clusters, sizeof(*f->refs));
    fsck_refer(f, 0, f->cluster, "header");
    fsck_refer(f, f->reftable, (uint64_t)f->reftable_clusters
                               << f->cluster_bits, "refcount table");
    for (uint64_t i = 0; i < (uint64_t)f->reftable_clusters
                             << f->cluster_bits >> 3; i++) {
        uint64_t block = q2_be64(fsck_at(f, f->reftable + i * 8, 8));

        if (block) {
            fsck_refer(f, block, f->cluster, "refcount block");
        }
    }
    fsck_l1(f, f->l1, f->l1_size);
    fsck_snapshots(f);
    for (uint64_t c = 0; c < f->clusters; c++) {
        uint64_t count = fsck_count(f, c);

        f->low += f->refs[c] > count;
        f->leaked += f->refs[c] < count;
        f->used += count != 0;
    }
}

static inline void fsck_end(struct fsck *f)
{
    free(f->refs);
    free(f->plain);
}

/* The entry for a guest offset; 0: none. */
static inline uint64_t fsck_entry(struct fsck *f, uint64_t guest)
{
    uint32_t l2_bits = f->cluster_bits - 3;
    uint64_t index = guest >> f->cluster_bits;
    uint64_t l2 = q2_be64(fsck_at(f, f->l1 + (index >> l2_bits) * 8, 8))
        & Q2_OFFSET_MASK;

    return l2 ? q2_be64(fsck_at(f, l2 + (index & ((1ull << l2_bits) - 1)) * 8,
                                8)) : 0;
}

/* The cluster of a compressed entry; null: it cannot be inflated. */
static inline const unsigned char *fsck_inflate(struct fsck *f, uint64_t entry)
{
    uint32_t shift = 62 - (f->cluster_bits - 8);
    uint64_t offset = entry & ((1ull << shift) - 1);
    uint64_t sectors = (entry & ~(3ull << 62)) >> shift;
    z_stream z = { 0 };
    int result;

    if (f->plain && f->plain_entry == entry) {
        return f->plain;
    }
    free(f->plain);
    f->plain = malloc(f->cluster);
    f->plain_entry = entry;
    z.avail_in = (offset & ~511ull) + (sectors + 1) * 512 - offset;
    z.next_in = (unsigned char *)fsck_at(f, offset, z.avail_in);
    z.next_out = f->plain;
    z.avail_out = f->cluster;
    CHECK(inflateInit2(&z, -12) == Z_OK);
    result = inflate(&z, Z_FINISH);
    inflateEnd(&z);
    return result == Z_STREAM_END && !z.avail_out ? f->plain : NULL;
}

/* A guest's sector; null: zeroes.  *bad: it cannot be read. */
static inline const unsigned char *fsck_sector(struct fsck *f, uint64_t guest,
                                               bool *bad)
{
    uint64_t entry = fsck_entry(f, guest);
    const unsigned char *plain;

    *bad = false;
    if (entry & Q2_COMPRESSED) {
        plain = fsck_inflate(f, entry);
        *bad = !plain;
        return plain ? plain + (guest & (f->cluster - 1)) : NULL;
    }
    if (entry & Q2_ZERO || !(entry & Q2_OFFSET_MASK)) {
        return NULL;
    }
    return fsck_at(f, (entry & Q2_OFFSET_MASK) + (guest & (f->cluster - 1)),
                   512);
}

#endif /* BLOCKYARD_QCOW2_FSCK_H */
