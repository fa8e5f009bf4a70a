/* SPDX-License-Identifier: Apache-2.0 */
/*
 * storm.c - writes that are cut where the image answers differently.
 *
 * Usage: storm ring|epoll [SEED]; exits 0 when every check held.
 */
#include "../../csrc/control.h"
#include "storm.h"

#define CLUSTER 4096

static struct disk disk;

/* Every third cluster is one that is not to be compressed. */
static bool is_plain(uint64_t cluster)
{
    return cluster % 3 == 0;
}

static void answer_status(const struct by_request *req)
{
    struct by_block_status *status = req->u.status;
    bool plain = is_plain(req->offset / CLUSTER);
    uint64_t bytes = CLUSTER - req->offset % CLUSTER;

    status->bytes = bytes < req->bytes ? bytes : req->bytes;
    status->flags = plain ? BY_STATUS_DATA | BY_STATUS_ALLOCATED : 0;
}

static int image_submit(struct by_node *node, struct by_request *req)
{
    if (req->op == BY_OP_BLOCK_STATUS) {
        answer_status(req);
        return 0;
    }
    if (req->op == BY_OP_WRITE) {
        for (uint64_t at = req->offset; at < req->offset + req->bytes;
             at += CLUSTER) {
            CHECK(is_plain(at / CLUSTER)
                  == !(req->flags & BY_REQ_COMPRESSED));
        }
    }
    return disk_submit(node, req);
}

static const struct by_node_ops image_ops = {
    .size = sizeof(image_ops),
    .abi = BY_ABI_VERSION,
    .name = "image",
    .capabilities = BY_CAP_ANY_LOOP,
    .serves = BY_OP_BIT(BY_OP_READ) | BY_OP_BIT(BY_OP_WRITE)
        | BY_OP_BIT(BY_OP_FLUSH) | BY_OP_BIT(BY_OP_WRITE_ZEROES)
        | BY_OP_BIT(BY_OP_BLOCK_STATUS),
    .flags = { [BY_OP_WRITE] = BY_REQ_COMPRESSED },
    .submit = image_submit,
};

int main(int argc, char **argv)
{
    struct by_node *image, *node;

    storm_start(argc, argv);
    CHECK(by_compress_init((uintptr_t)api) == 0);
    image = make_node(&image_ops, &disk, 0, CLUSTER);
    node = make_node((const struct by_node_ops *)by_compress_ops(), NULL, 1,
                     CLUSTER);
    by_node_set_child(node, 0, image);
    roots[0] = make_root(node);
    storm_run(disk.bytes, NULL);
    free_node(node);
    free_node(image);
    for (int i = 0; i < LOOPS * LANES; i++) {
        CHECK(!memcmp(disk.bytes + lanes[i].start, lanes[i].model, PART));
    }
    storm_stop();
    return 0;
}
