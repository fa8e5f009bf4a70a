/* SPDX-License-Identifier: Apache-2.0 */
/*
 * damaged.c - images whose refcounts lie: no write is given a cluster that is
 * in use, the image is marked corrupt, and the report is QEMU's.
 */
#include "disk.h"

enum { CLUSTER = 65536, DISK = 1 << 20, L1 = 3 * CLUSTER };

struct damage {
    uint64_t at, value;         /* eight bytes of the image */
    const char *report;
};

static const struct damage damages[] = {
    { CLUSTER, 0x22a00,
      "Refblock offset 0x22a00 unaligned (reftable index: 0)" },
    { CLUSTER, 1ull << 40, "Refblock offset 0x10000000000 beyond the end "
      "of the file (reftable index: 0)" },
    { CLUSTER, L1, "Preventing invalid write on metadata (overlaps with "
      "active L1 table)" },
    { CLUSTER, CLUSTER, "Preventing invalid write on metadata (overlaps "
      "with refcount table)" },
    { CLUSTER + 8, 2 * CLUSTER, "Refblock offset 0x20000 used more than "
      "once (reftable index: 0)" },
    { CLUSTER, 0, "Preventing invalid write on metadata (overlaps with "
      "refcount table)" },
    { 2 * CLUSTER, 0,
      "Preventing invalid allocation of L2 table at offset 0" },
    { 2 * CLUSTER, 0x0001000100010000, "Preventing invalid write on "
      "metadata (overlaps with active L1 table)" },
};

static void make(struct disk *disk, struct by_qcow2_settings *set)
{
    unsigned char *image = calloc(4, CLUSTER);

    *set = (struct by_qcow2_settings) {
        .version = 3, .cluster_bits = 16, .refcount_order = 4, .size = DISK,
        .l1_offset = L1, .l1_size = 1, .reftable_offset = CLUSTER,
        .reftable_clusters = 1, .l2_slice_bytes = 4096,
        .l2_cache_bytes = CLUSTER, .refcount_cache_bytes = CLUSTER,
        .overlap = 0x1ff,
    };
    memcpy(image, "QFI\xfb", 4);
    q2_put32(image + 4, 3);
    q2_put64(image + CLUSTER, 2 * CLUSTER);
    q2_put64(image + 2 * CLUSTER, 0x0001000100010001);
    disk_fill(disk, 0, image, 4 * CLUSTER);
    free(image);
}

static void check_one(struct by_loop *loop, const struct damage *damage)
{
    static unsigned char data[CLUSTER];
    struct disk *disk = disk_make(4 << 20, 1, loop);
    struct iovec iov = { data, sizeof(data) };
    struct by_request req = {
        .size = sizeof(req), .op = BY_OP_WRITE, .bytes = sizeof(data),
        .iov = &iov, .niov = 1,
    };
    struct by_qcow2_settings set;
    unsigned char entry[8], *before = malloc(4 * CLUSTER);
    struct by_qcow2 *q;
    struct by_node node;
    char text[256];
    int error;

    make(disk, &set);
    q2_put64(entry, damage->value);
    disk_fill(disk, damage->at, entry, sizeof(entry));
    memcpy(before, disk->now, 4 * CLUSTER);
    q = by_qcow2_open(&set, (uintptr_t)&disk->node, (uintptr_t)&disk->node, 0,
                      1, &error, text);
    CHECK(q);
    node = (struct by_node) {
        .size = sizeof(node), .state = q, .home = loop, .length = DISK,
        .ops = (const struct by_node_ops *)by_qcow2_ops(),
    };
    by_qcow2_set_node(q, (uintptr_t)&node);
    CHECK(world_wait(&node, &req) == -EIO);
    by_qcow2_report(q, text, sizeof(text));
    if (strcmp(text, damage->report)) {
        fprintf(stderr, "%s\nnot\n%s\n", text, damage->report);
        CHECK(!"another report");
    }
    CHECK(world_wait(&node, &req) == -EIO);
    by_qcow2_free(q);
    /* Nothing but the corrupt bit has changed. */
    CHECK(q2_be64(disk->now + Q2_AT_INCOMPATIBLE) == Q2_INCOMPAT_CORRUPT);
    memset(disk->now + Q2_AT_INCOMPATIBLE, 0, 8);
    CHECK(!memcmp(before, disk->now, 4 * CLUSTER));
    disk_free(disk);
    free(before);
}

int main(void)
{
    struct by_loop loop;

    CHECK(by_qcow2_init((uintptr_t)&world_api) == 0);
    world_loop_start(&loop);
    for (size_t i = 0; i < sizeof(damages) / sizeof(*damages); i++) {
        check_one(&loop, &damages[i]);
        CHECK((size_t)world_events == i + 1);
    }
    world_loop_stop(&loop);
    return 0;
}
