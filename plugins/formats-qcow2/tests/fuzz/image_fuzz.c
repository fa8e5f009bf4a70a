/* SPDX-License-Identifier: Apache-2.0 */
/*
 * image_fuzz.c - the fuzz targets of the parsers in C: L1 and L2 tables,
 * refcount structures, the snapshot table, bitmap tables, compressed data.
 *
 * With clang: -fsanitize=fuzzer,address,undefined -DQCOW2_LIBFUZZER, and the
 * image in QCOW2_FUZZ_IMAGE.  Without, main makes inputs of its own:
 * image_fuzz IMAGE TARGET INPUTS SEED.
 *
 * An input is a byte that chooses the target and patches of twelve bytes each:
 * where in the target's part of the image, and eight bytes to put there.  The
 * image is then opened and everything is done to it; what is promised is that
 * each work ends with a result and does not touch the header but for its own
 * fields.
 */
#include "world.h"

#include "check.h"
#include "compressed.h"
#include "tables.h"

enum { PARTS = 512, CAPACITY = 12 << 20, PIECE = 12, PATCHES = 16 };

enum target { L1, L2, REFCOUNTS, SNAPSHOTS, BITMAPS, COMPRESSED, TARGETS };

static const char *const names[TARGETS] = {
    "l1", "l2", "refcounts", "snapshots", "bitmaps", "compressed",
};

struct part {
    uint64_t at, bytes;
};

struct parts {
    struct part part[PARTS];
    uint32_t n;
    uint64_t bytes;
};

/* The image as it was made, and where its structures are. */
static unsigned char *good;
static uint64_t good_bytes;
static struct by_qcow2_settings good_set;
static struct parts parts[TARGETS];
static struct { uint64_t at; uint32_t entries; } bitmaps[8];
static uint32_t nbitmaps;
static struct by_loop loop;

/* ---------------------------------------------------------- file in memory */

struct memory {
    struct by_node node;
    unsigned char *bytes;
};

static void carry(const struct by_request *req, unsigned char *at)
{
    uint64_t skip = req->iov_skip, left = req->bytes;

    for (uint32_t i = 0; left; i++) {
        uint64_t n = req->iov[i].iov_len;

        if (skip >= n) {
            skip -= n;
            continue;
        }
        n = n - skip < left ? n - skip : left;
        memcpy(req->op == BY_OP_READ ? (char *)req->iov[i].iov_base + skip
                                     : (char *)at,
               req->op == BY_OP_READ ? (char *)at
                                     : (char *)req->iov[i].iov_base + skip, n);
        at += n;
        left -= n;
        skip = 0;
    }
}

static int memory_submit(struct by_node *node, struct by_request *req)
{
    struct memory *memory = node->state;
    uint64_t length = by_node_length(node);

    switch (req->op) {
    case BY_OP_READ:
        if (!by_range_ok(req->offset, req->bytes, length)) {
            return -EIO; /* as core's gate does */
        }
        carry(req, memory->bytes + req->offset);
        return 0;
    case BY_OP_WRITE:
    case BY_OP_WRITE_ZEROES:
        if (!by_range_ok(req->offset, req->bytes, CAPACITY)) {
            return -ENOSPC;
        }
        if (req->op == BY_OP_WRITE) {
            carry(req, memory->bytes + req->offset);
        } else {
            memset(memory->bytes + req->offset, 0, req->bytes);
        }
        if (req->offset + req->bytes > length) {
            world_set_length(node, req->offset + req->bytes);
        }
        return 0;
    case BY_OP_TRUNCATE:
        if (req->offset > CAPACITY) {
            return -ENOSPC;
        }
        if (req->offset < length) {
            memset(memory->bytes + req->offset, 0, length - req->offset);
        }
        world_set_length(node, req->offset);
        return 0;
    case BY_OP_DISCARD:
    case BY_OP_FLUSH:
        return 0;
    default:
        return -ENOTSUP;
    }
}

static const struct by_node_ops memory_ops = {
    .size = sizeof(memory_ops), .abi = BY_ABI_VERSION, .name = "memory",
    .capabilities = BY_CAP_ANY_LOOP | BY_CAP_ZERO_NEW,
    .submit = memory_submit,
};

/* ------------------------------------------------------- where is what */

static void add_part(enum target target, uint64_t at, uint64_t bytes)
{
    struct parts *p = &parts[target];

    if (p->n < PARTS && by_range_ok(at, bytes, good_bytes) && bytes >= 8) {
        p->part[p->n++] = (struct part) { at, bytes };
        p->bytes += bytes;
    }
}

static void find_l2(uint64_t at)
{
    uint64_t size = 1ull << good_set.cluster_bits;
    uint32_t step = good_set.extended_l2 ? 16 : 8;
    struct by_qcow2 q = { .csize_shift = 62 - (good_set.cluster_bits - 8) };

    q.csize_mask = (1ull << (good_set.cluster_bits - 8)) - 1;
    q.coffset_mask = (1ull << q.csize_shift) - 1;
    add_part(L2, at, size);
    for (uint64_t i = 0; i < size; i += step) {
        uint64_t entry = q2_be64(good + at + i);

        if (entry & Q2_COMPRESSED) {
            add_part(COMPRESSED, q2_packed_at(&q, entry),
                     q2_packed_bytes(&q, entry));
        }
    }
}

/* Sections "Bitmaps extension" and "Bitmap directory". */
static void find_bitmaps(void)
{
    uint64_t at = q2_be32(good + 100), size = 1ull << good_set.cluster_bits;

    while (at + 32 <= size && q2_be32(good + at)) {
        uint32_t type = q2_be32(good + at), bytes = q2_be32(good + at + 4);

        if (type == 0x23852875) {
            uint32_t count = q2_be32(good + at + 8);
            uint64_t entry = q2_be64(good + at + 24);

            good_set.bitmaps_bytes = q2_be64(good + at + 16);
            good_set.bitmaps_offset = entry;
            for (; count && nbitmaps < 8; count--) {
                uint64_t table = q2_be64(good + entry);
                uint32_t entries = q2_be32(good + entry + 8);
                uint32_t name = good[entry + 18] << 8 | good[entry + 19];

                bitmaps[nbitmaps].at = table;
                bitmaps[nbitmaps++].entries = entries;
                add_part(BITMAPS, table, entries * 8);
                entry += (24 + q2_be32(good + entry + 20) + name + 7) & ~7ull;
            }
        }
        at += 8 + ((bytes + 7) & ~7u);
    }
}

static void find_parts(void)
{
    const struct by_qcow2_settings *s = &good_set;
    uint64_t size = 1ull << s->cluster_bits;

    add_part(L1, s->l1_offset, s->l1_size * 8ull);
    for (uint32_t i = 0; i < s->l1_size; i++) {
        uint64_t l2 = q2_be64(good + s->l1_offset + i * 8) & Q2_OFFSET_MASK;

        if (l2) {
            find_l2(l2);
        }
    }
    add_part(REFCOUNTS, s->reftable_offset, 64);
    for (uint32_t i = 0; i < 8; i++) {
        uint64_t block = q2_be64(good + s->reftable_offset + i * 8);

        if (block) {
            add_part(REFCOUNTS, block, size);
        }
    }
    add_part(SNAPSHOTS, s->snapshots_offset, 64ull * s->snapshots);
    find_bitmaps();
}

static void read_header(void)
{
    const unsigned char *h = good;
    struct by_qcow2_settings *s = &good_set;

    s->version = q2_be32(h + 4);
    s->cluster_bits = q2_be32(h + 20);
    s->size = q2_be64(h + 24);
    s->l1_size = q2_be32(h + 36);
    s->l1_offset = q2_be64(h + 40);
    s->reftable_offset = q2_be64(h + 48);
    s->reftable_clusters = q2_be32(h + 56);
    s->snapshots = q2_be32(h + 60);
    s->snapshots_offset = q2_be64(h + 64);
    s->incompatible = q2_be64(h + 72);
    s->compatible = q2_be64(h + 80);
    s->autoclear = q2_be64(h + 88);
    s->refcount_order = q2_be32(h + 96);
    s->compression = s->incompatible & Q2_INCOMPAT_COMPRESSION ? 1 : 0;
    s->extended_l2 = s->incompatible & Q2_INCOMPAT_EXTL2;
    s->l2_slice_bytes = 512;
    s->l2_cache_bytes = 64 << 10;
    s->refcount_cache_bytes = 16 << 10;
    s->overlap = 0x1ff;
    s->pass_discard = 0x1f;
}

static void load(const char *path)
{
    FILE *file = fopen(path, "rb");

    CHECK(file && fseek(file, 0, SEEK_END) == 0);
    good_bytes = ftell(file);
    CHECK(good_bytes >= 4096 && good_bytes < CAPACITY);
    good = malloc(good_bytes);
    rewind(file);
    CHECK(fread(good, 1, good_bytes, file) == good_bytes);
    fclose(file);
    read_header();
    find_parts();
    CHECK(by_qcow2_init((uintptr_t)&world_api) == 0);
    world_loop_start(&loop);
}

/* -------------------------------------------------------- all that is done */

static unsigned char buffer[1 << 20];

static int ask(struct by_node *node, uint32_t op, uint32_t flags,
               uint64_t offset, uint64_t bytes)
{
    struct iovec iov = { buffer, bytes };
    struct by_block_status status = { .size = sizeof(status) };
    struct by_request req = {
        .size = sizeof(req), .op = op, .flags = flags, .offset = offset,
        .bytes = bytes, .iov = &iov, .niov = 1,
    };

    if (op == BY_OP_BLOCK_STATUS) {
        req.u.status = &status;
    }
    if (op != BY_OP_READ && op != BY_OP_WRITE) {
        req.iov = NULL;
        req.niov = 0;
    }
    return world_wait(node, &req);
}

static void serve_guest(struct by_node *node, uint64_t *chance)
{
    uint64_t size = by_node_length(node), piece = sizeof(buffer);
    uint64_t cluster = 1ull << good_set.cluster_bits;

    for (uint64_t at = 0; at < size; at += piece) {
        (void)ask(node, BY_OP_READ, 0, at, at + piece < size ? piece
                                                            : size - at);
    }
    for (int i = 0; i < 8; i++) {
        uint64_t bytes = 512 * (1 + chance_below(chance, 64));
        uint64_t at = chance_below(chance, (size - bytes) / 512 + 1) * 512;

        switch (chance_below(chance, 5)) {
        case 0:
            (void)ask(node, BY_OP_WRITE, 0, at, bytes);
            break;
        case 1:
            (void)ask(node, BY_OP_WRITE_ZEROES, BY_REQ_MAY_UNMAP, at, bytes);
            break;
        case 2:
            (void)ask(node, BY_OP_DISCARD, 0, at, bytes);
            break;
        case 3:
            (void)ask(node, BY_OP_BLOCK_STATUS, 0, at, bytes);
            break;
        default:
            at &= ~(cluster - 1);
            (void)ask(node, BY_OP_WRITE, BY_REQ_COMPRESSED, at, cluster);
        }
    }
    (void)ask(node, BY_OP_FLUSH, 0, 0, 0);
}

static void serve_manager(struct by_qcow2 *q, uint64_t *chance)
{
    struct by_qcow2_snapshot info = { .name = (char *)"x", .name_bytes = 1 };
    struct by_qcow2_snapshots *list;
    char why[256];
    int error;

    list = by_qcow2_snapshots_read(q, &error, why);
    if (list) {
        by_qcow2_snapshots_free(list);
    }
    for (uint32_t i = 0; i < nbitmaps; i++) {
        (void)by_qcow2_bitmap_load(q, bitmaps[i].at, bitmaps[i].entries,
                                   buffer, 1 + chance_below(chance, 4096));
    }
    switch (chance_below(chance, 6)) {
    case 0:
        (void)by_qcow2_snapshot_create(q, &info, why);
        break;
    case 1:
        (void)by_qcow2_snapshot_delete(q, chance_below(chance, 2), why);
        break;
    case 2:
        (void)by_qcow2_snapshot_apply(q, chance_below(chance, 2), why);
        break;
    case 3:
        (void)by_qcow2_resize(q, chance_below(chance, 4096) * 4096, 0, true,
                              why);
        break;
    case 4:
        (void)by_qcow2_change_refcounts(q, chance_below(chance, 7), NULL, why);
        break;
    default:
        if (nbitmaps) {
            (void)by_qcow2_bitmap_free(q, bitmaps[0].at, bitmaps[0].entries);
        }
    }
}

static void check_it(struct memory *memory, struct by_qcow2 *q,
                     uint64_t *chance)
{
    struct by_qcow2_check_result out;

    (void)by_qcow2_check(q, NULL, chance_below(chance, 2) * 3, &out);
    CHECK(!memcmp(memory->bytes, good, 4));
    CHECK(q2_be32(memory->bytes + 20) == good_set.cluster_bits);
}

static void open_it(struct memory *memory, uint64_t *chance)
{
    struct by_node node;
    struct by_qcow2 *q;
    char why[256];
    int error;

    q = by_qcow2_open(&good_set, (uintptr_t)&memory->node,
                      (uintptr_t)&memory->node, 0, 1, &error, why);
    if (!q) {
        return;
    }
    node = (struct by_node) {
        .size = sizeof(node), .state = q, .home = &loop,
        .length = good_set.size,
        .ops = (const struct by_node_ops *)by_qcow2_ops(),
    };
    by_qcow2_set_node(q, (uintptr_t)&node);
    serve_guest(&node, chance);
    serve_manager(q, chance);
    (void)by_qcow2_settle(q);
    check_it(memory, q, chance);
    by_qcow2_free(q);
}

/* --------------------------------------------------------------- an input */

static void patch(struct memory *memory, const struct parts *p,
                  const uint8_t *piece)
{
    uint64_t at = q2_be32(piece) % (p->bytes - 7);

    for (uint32_t i = 0; i < p->n; i++) {
        if (at < p->part[i].bytes) {
            at = at + 8 <= p->part[i].bytes ? at : p->part[i].bytes - 8;
            memcpy(memory->bytes + p->part[i].at + at, piece + 4, 8);
            return;
        }
        at -= p->part[i].bytes;
    }
}

static void one_input(const uint8_t *input, size_t bytes)
{
    const struct parts *p = &parts[bytes ? input[0] % TARGETS : 0];
    struct memory memory = {
        .node = {
            .size = sizeof(memory.node), .ops = &memory_ops,
            .state = &memory, .home = &loop, .length = good_bytes,
        },
        .bytes = calloc(1, CAPACITY),
    };
    uint64_t chance = bytes;

    CHECK(p->bytes >= 8);
    memcpy(memory.bytes, good, good_bytes);
    for (size_t i = 1; i + PIECE <= bytes; i += PIECE) {
        patch(&memory, p, input + i);
        chance += q2_be64(input + i + 4);
    }
    open_it(&memory, &chance);
    free(memory.bytes);
}

#ifdef QCOW2_LIBFUZZER
int LLVMFuzzerTestOneInput(const uint8_t *input, size_t bytes)
{
    if (!good) {
        load(getenv("QCOW2_FUZZ_IMAGE"));
    }
    one_input(input, bytes);
    return 0;
}
#else
static uint64_t value(uint64_t *chance, const struct parts *p)
{
    uint64_t at = chance_below(chance, p->n);
    uint64_t there = q2_be64(good + p->part[at].at);

    switch (chance_below(chance, 7)) {
    case 0:
        return chance_next(chance);
    case 1:
        return ~0ull << chance_below(chance, 64);
    case 2:
        return 1ull << chance_below(chance, 64);
    case 3:
        return there ^ 1ull << chance_below(chance, 64);
    case 4:
        return chance_below(chance, 2 * good_bytes >> good_set.cluster_bits)
               << good_set.cluster_bits
               | chance_below(chance, 4) << 62;
    case 5:
        return 0;
    default:
        return there;
    }
}

int main(int argc, char **argv)
{
    uint8_t input[1 + PIECE * PATCHES];
    int target = 0;

    CHECK(argc == 5);
    load(argv[1]);
    while (target < TARGETS && strcmp(argv[2], names[target])) {
        target++;
    }
    CHECK(target < TARGETS);
    for (uint64_t i = 0, chance = strtoull(argv[4], NULL, 0),
         count = strtoull(argv[3], NULL, 0); i < count; i++) {
        uint32_t patches = 1 + chance_below(&chance, 3) * chance_below(&chance, 6);

        input[0] = target;
        for (uint32_t k = 0; k < patches; k++) {
            uint8_t *piece = input + 1 + k * PIECE;
            bool whole = chance_below(&chance, 4);
            uint32_t at = chance_next(&chance);

            q2_put32(piece, whole ? at & ~7u : at);
            q2_put64(piece + 4, value(&chance, &parts[target]));
        }
        one_input(input, 1 + patches * PIECE);
    }
    world_loop_stop(&loop);
    free(good);
    return 0;
}
#endif
