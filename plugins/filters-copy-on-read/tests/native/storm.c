/* SPDX-License-Identifier: Apache-2.0 */
/*
 * storm.c - reads that copy and writes that change, on the same clusters: a
 * copy that overtook a write would bring old data back.
 *
 * Usage: storm ring|epoll [SEED]; exits 0 when every check held.
 */
#include "../../csrc/control.h"
#include "storm.h"

#define BLOCK 512
#define CLUSTER (1 << 20)  /* of many lanes */

static struct disk base, top;
static bool allocated[LENGTH / BLOCK];
static struct by_node *base_node;

/* What is copied is what is there, whoever has allocated it meanwhile. */
static void check_unchanged(const struct by_request *req)
{
    const unsigned char *at = top.bytes + req->offset;

    CHECK(by_range_ok(req->offset, req->bytes, LENGTH));
    if (req->op == BY_OP_WRITE_ZEROES) {
        CHECK(api->is_zero(at, req->bytes));
    } else {
        struct iovec iov;

        CHECK(by_iov_slice(req->iov, req->niov, req->iov_skip, req->bytes,
                           &iov, 1) == 1);
        CHECK(!memcmp(iov.iov_base, at, req->bytes));
    }
}

static void answer_status(const struct by_request *req)
{
    struct by_block_status *status = req->u.status;
    uint64_t first = req->offset / BLOCK, n = 1;
    bool here = __atomic_load_n(&allocated[first], __ATOMIC_RELAXED);

    while (n * BLOCK < req->bytes
           && __atomic_load_n(&allocated[first + n], __ATOMIC_RELAXED)
              == here) {
        n++;
    }
    status->bytes = n * BLOCK < req->bytes ? n * BLOCK : req->bytes;
    status->flags = here ? BY_STATUS_DATA | BY_STATUS_ALLOCATED
                         : BY_STATUS_RECURSE;
    status->owner = here ? NULL : base_node;
    status->host_offset = req->offset;
}

static int image_submit(struct by_node *node, struct by_request *req)
{
    if (req->op == BY_OP_BLOCK_STATUS) {
        answer_status(req);
        return 0;
    }
    if (req->op == BY_OP_WRITE || req->op == BY_OP_WRITE_ZEROES) {
        for (uint64_t i = 0; i < req->bytes; i += BLOCK) {
            __atomic_store_n(&allocated[(req->offset + i) / BLOCK], true,
                             __ATOMIC_RELAXED);
        }
    }
    if (req->flags & BY_REQ_WRITE_UNCHANGED) {
        check_unchanged(req);
        req->op = BY_OP_PREFETCH; /* nothing to be done, now or later */
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
    .submit = image_submit,
};

int main(int argc, char **argv)
{
    struct by_node *image, *node;
    struct by_cor *cor;
    uint64_t copied = 0, state;

    storm_start(argc, argv);
    CHECK(by_cor_init((uintptr_t)api) == 0);
    state = seed;
    for (uint64_t i = 0; i < LENGTH; i++) {
        base.bytes[i] = i / CLUSTER % 5 ? next_random(&state) : 0;
    }
    memcpy(top.bytes, base.bytes, LENGTH); /* what reads through it give */
    cor = by_cor_create();
    by_cor_set(cor, CLUSTER, seed % 2 ? 0 : 2);
    base_node = make_node(&disk_ops, &base, 0, BLOCK);
    image = make_node(&image_ops, &top, 0, BLOCK);
    node = make_node((const struct by_node_ops *)by_cor_ops(), cor, 1, 1);
    by_node_set_child(node, 0, image);
    roots[0] = make_root(node);
    storm_run(base.bytes, NULL);
    free_node(node);
    free_node(image);
    free_node(base_node);
    by_cor_free(cor);
    for (int i = 0; i < LOOPS * LANES; i++) {
        for (uint64_t at = 0; at < PART; at += BLOCK) {
            uint64_t where = lanes[i].start + at;

            copied += allocated[where / BLOCK];
            CHECK(!memcmp(top.bytes + where, lanes[i].model + at, BLOCK));
        }
    }
    CHECK(copied > LENGTH / BLOCK / 2);
    storm_stop();
    return 0;
}
