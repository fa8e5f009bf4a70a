/* SPDX-License-Identifier: Apache-2.0 */
/*
 * graph_rules.c - rules of the request path that a history does not show:
 * what is asked of the driver, with which flags, and what the node's length
 * is afterwards.
 *
 * Usage: graph_rules SEED [ring|epoll]; exits 0 when every check held.
 */
#include "graph_world.h"

static int copy_wait(struct world *w, uint64_t from, uint64_t to,
                     uint64_t bytes, uint32_t flags)
{
    struct by_access access = {
        .op = BY_OP_COPY_RANGE, .offset = from, .bytes = bytes,
        .target = w->root, .target_offset = to, .flags = flags,
    };

    return by_access_wait(w->root, false, &access, NULL);
}

static struct by_stats stats_of(struct by_node *node)
{
    struct by_stats stats;

    by_node_get_stats(node, &stats);
    return stats;
}

/* The root stands on the memory itself. */
static void open_bare(struct world *w, const struct by_node_ops *ops,
                      uint32_t align, bool later)
{
    open_world(w, ops, align, 0, later);
    by_root_set_node(w->root, w->base);
}

static void test_a_refused_copy_is_made_by_hand(void)
{
    for (int later = 0; later < 2; later++) {
        struct world w;

        open_bare(&w, &busy_ops, 512, later);
        for (unsigned i = 0; i < DISK; i++) {
            w.memory.bytes[i] = i / 512 + i;
        }
        memcpy(w.model, w.memory.bytes, DISK);
        memcpy(w.model + 600000, w.model + 100, 70000);
        CHECK(copy_wait(&w, 100, 600000, 70000, 0) == 0);
        CHECK(w.memory.done[BY_OP_COPY_RANGE] == 1);
        CHECK(!memcmp(w.model, w.memory.bytes, DISK));
        close_world(&w);
    }
}

/* What waits for the copy to end must not be what its writes wait for. */
static void test_a_copy_and_a_rewrite_of_both_its_ends(void)
{
    struct world w;
    struct by_access access = { .tag = 5 };
    static char buffer[3000];

    open_bare(&w, &busy_ops, 512, true);
    for (int i = 0; i < 50; i++) {
        access.op = BY_OP_COPY_RANGE;
        access.target = w.root;
        access.offset = 0;
        access.bytes = 1000;
        access.target_offset = 1500;
        CHECK(by_access_start(w.root, false, &access, NULL) == 0);
        access.op = BY_OP_WRITE;
        access.offset = 500;
        access.bytes = 1100;
        access.buffer = buffer;
        CHECK(by_access_start(w.root, false, &access, NULL) == 0);
    }
    for (int i = 0; i < 100; i++) {
        CHECK(next_event().result == 0);
    }
    close_world(&w);
}

static void test_a_durable_copy_is_flushed(void)
{
    struct world w;

    open_bare(&w, &copying_ops, 0, true);
    CHECK(copy_wait(&w, 0, 4096, 4096, 0) == 0);
    CHECK(w.memory.flushes == 0);
    CHECK(copy_wait(&w, 0, 4096, 4096, BY_REQ_FUA) == 0);
    CHECK(w.memory.flushes == 1);
    close_world(&w);
}

static void test_durable_zeroes_that_fall_back_are_flushed(void)
{
    struct world w;

    open_bare(&w, &busy_ops, 0, true);
    w.memory.fail_next = -ENOTSUP;
    CHECK(access_wait(&w, BY_OP_WRITE_ZEROES, 0, 4096, NULL, BY_REQ_FUA) == 0);
    CHECK(w.memory.done[BY_OP_WRITE] == 1);
    CHECK(w.memory.flushes == 1 || w.memory.flags[BY_OP_WRITE] & BY_REQ_FUA);
    close_world(&w);
}

/* What the driver refuses of a piece costs the other pieces nothing. */
static void test_only_a_refused_piece_is_written(void)
{
    struct world w;

    open_bare(&w, &busy_ops, 0, true);
    w.memory.limits.max_write_zeroes = 4096;
    by_node_set_limits(w.base, &w.memory.limits);
    memset(w.memory.bytes, 7, DISK);
    w.memory.fail_next = -ENOTSUP;
    CHECK(access_wait(&w, BY_OP_WRITE_ZEROES, 0, 4 * 4096, NULL, 0) == 0);
    CHECK(w.memory.done[BY_OP_WRITE_ZEROES] == 4);
    CHECK(w.memory.done[BY_OP_WRITE] == 1);
    CHECK(w.memory.bytes[4 * 4096 - 1] == 0 && w.memory.bytes[4 * 4096] == 7);
    w.memory.fail_next = -EIO;
    CHECK(access_wait(&w, BY_OP_WRITE_ZEROES, 0, 4 * 4096, NULL, 0) == -EIO);
    close_world(&w);
}

static void test_ignored_discards_unmap_nothing(void)
{
    struct world w;

    open_bare(&w, &busy_ops, 0, true);
    CHECK(access_wait(&w, BY_OP_WRITE_ZEROES, 0, 4096, NULL,
                      BY_REQ_MAY_UNMAP) == 0);
    CHECK(w.memory.flags[BY_OP_WRITE_ZEROES] & BY_REQ_MAY_UNMAP);
    by_node_set_discard(w.base, false);
    CHECK(access_wait(&w, BY_OP_WRITE_ZEROES, 0, 4096, NULL,
                      BY_REQ_MAY_UNMAP) == 0);
    CHECK(!(w.memory.flags[BY_OP_WRITE_ZEROES] & BY_REQ_MAY_UNMAP));
    close_world(&w);
}

/* Pieces of a size that is no multiple of a block would share blocks. */
static void test_limits_between_blocks(void)
{
    struct world w;

    open_bare(&w, &busy_ops, 512, true);
    w.memory.limits.max_write_zeroes = 1300;
    w.memory.limits.max_discard = 100;
    by_node_set_limits(w.base, &w.memory.limits);
    memset(w.memory.bytes, 7, DISK);
    memset(w.model, 7, DISK);
    memset(w.model + 512, 0, 50000);
    CHECK(access_wait(&w, BY_OP_WRITE_ZEROES, 512, 50000, NULL, 0) == 0);
    CHECK(!memcmp(w.model, w.memory.bytes, DISK));
    CHECK(w.memory.done[BY_OP_WRITE_ZEROES] == (50000 / 512 + 1) / 2);
    CHECK(access_wait(&w, BY_OP_DISCARD, 512, 1024, NULL, 0) == 0);
    CHECK(w.memory.done[BY_OP_DISCARD] == 2);
    close_world(&w);
}

/* The driver's word counts, also where the length stays as it was. */
static void test_truncate_leaves_the_drivers_length(void)
{
    struct world w;

    open_bare(&w, &busy_ops, 0, true);
    w.memory.in_sectors = true;
    CHECK(access_wait(&w, BY_OP_TRUNCATE, 1000, 0, NULL, 0) == 0);
    CHECK(by_node_get_length(w.base) == 1024);
    CHECK(access_wait(&w, BY_OP_TRUNCATE, 1000, 0, NULL, 0) == 0);
    CHECK(by_node_get_length(w.base) == 1024);
    CHECK(access_wait(&w, BY_OP_TRUNCATE, INT64_MAX + 1ull, 0, NULL, 0)
          == -EFBIG);
    close_world(&w);
}

static void test_requests_of_nothing(void)
{
    static const uint8_t ops[] = {
        BY_OP_READ, BY_OP_WRITE, BY_OP_WRITE_ZEROES, BY_OP_DISCARD,
        BY_OP_PREFETCH,
    };
    struct world w;
    char byte = 1;

    open_bare(&w, &busy_ops, 512, true);
    memset(w.memory.bytes, 7, ROOM);
    for (size_t i = 0; i < sizeof(ops); i++) {
        CHECK(access_wait(&w, ops[i], 0, 0, &byte, 0) == 0);
        CHECK(access_wait(&w, ops[i], 100, 0, &byte, 0) == 0);
        CHECK(access_wait(&w, ops[i], DISK, 0, &byte, 0) == 0);
        CHECK(access_wait(&w, ops[i], DISK + 1, 0, &byte, 0) == -EIO);
    }
    CHECK(copy_wait(&w, 100, 200, 0, 0) == 0);
    CHECK(access_wait(&w, BY_OP_BLOCK_STATUS, 0, 0, NULL, 0) == -EINVAL);
    CHECK(w.memory.bytes[0] == 7 && w.memory.bytes[DISK] == 7);
    close_world(&w);
}

static void test_far_away(void)
{
    struct world w;
    char buffer[16];

    open_bare(&w, &busy_ops, 4096, true);
    by_root_set_writable(w.root, true, true);
    CHECK(access_wait(&w, BY_OP_WRITE, INT64_MAX - 8, 16, buffer, 0) == -EIO);
    CHECK(access_wait(&w, BY_OP_READ, INT64_MAX - 8, 16, buffer, 0) == -EIO);
    CHECK(copy_wait(&w, 0, INT64_MAX - 8, 16, 0) == -EIO);
    CHECK(copy_wait(&w, 0, UINT64_MAX - 8, 16, 0) == -EIO);
    CHECK(copy_wait(&w, UINT64_MAX - 8, 0, 16, 0) == -EIO);
    CHECK(access_wait(&w, BY_OP_DISCARD, 1, UINT64_MAX, NULL, 0) == -EIO);
    close_world(&w);
}

/* A file of 4096-byte blocks whose last block is not whole. */
static void test_a_length_inside_a_block(void)
{
    struct world w;
    char buffer[3000];

    open_bare(&w, &busy_ops, 4096, true);
    by_node_set_length(w.base, 10000);
    memset(w.memory.bytes, 7, 10000);
    memset(buffer, 9, sizeof(buffer));
    CHECK(access_wait(&w, BY_OP_WRITE, 9999, 1, buffer, 0) == 0);
    CHECK(access_wait(&w, BY_OP_WRITE, 9999, 2, buffer, 0) == -EIO);
    CHECK(by_node_get_length(w.base) == 10000);
    CHECK(access_wait(&w, BY_OP_WRITE_ZEROES, 8190, 1000, NULL, 0) == 0);
    CHECK(access_wait(&w, BY_OP_READ, 7000, 3000, buffer, 0) == 0);
    CHECK(buffer[0] == 7 && buffer[1189] == 7 && buffer[1190] == 0);
    CHECK(buffer[2189] == 0 && buffer[2190] == 7 && buffer[2999] == 9);
    CHECK(w.memory.bytes[10000] == 0);
    by_root_set_writable(w.root, true, true);
    CHECK(access_wait(&w, BY_OP_WRITE, 9990, 100, buffer, 0) == 0);
    CHECK(by_node_get_length(w.base) == 10090);
    close_world(&w);
}

/* A copy writes to its target, so that one's drain holds it as well, and it
 * goes to the node that the target's root has in the end. */
static void test_a_drained_target_holds_a_copy(void)
{
    struct world w, other;
    struct by_event event;
    struct by_access access = {
        .op = BY_OP_COPY_RANGE, .bytes = 4096, .tag = 40,
    };

    for (int later = 0; later < 2; later++) {
        open_bare(&w, &busy_ops, 0, later);
        open_bare(&other, &busy_ops, 0, later);
        access.target = other.root;
        memset(w.memory.bytes, 9, 4096);
        CHECK(by_drain_begin(&other.root, 1, &other.top, 1, 41) == 0);
        wait_event(41, 0);
        CHECK(by_access_start(w.root, false, &access, NULL) == 0);
        CHECK(by_drain_begin(&w.root, 1, &w.base, 1, 42) == 0);
        wait_event(42, 0);
        CHECK(by_drain_end(&w.root, 1, &w.base, 1, 43) == 0);
        wait_event(43, 0);
        CHECK(other.memory.done[BY_OP_WRITE] == 0);
        by_root_set_node(other.root, other.top);
        CHECK(by_drain_end(&other.root, 1, &other.top, 1, 44) == 0);
        for (int left = 2; left; left--) {
            event = next_event();
            CHECK(event.result == 0 && (event.tag == 40 || event.tag == 44));
        }
        CHECK(other.memory.done[BY_OP_WRITE] == 1);
        CHECK(!memcmp(w.memory.bytes, other.memory.bytes, 4096));
        CHECK(stats_of(other.top).op[BY_OP_WRITE].done == 1);
        close_world(&w);
        close_world(&other);
    }
}

/* ---- block status */

static struct by_block_status told;

static int status_submit(struct by_node *node, struct by_request *req)
{
    struct by_block_status *status = req->u.status;

    CHECK(req->op == BY_OP_BLOCK_STATUS);
    status->flags = told.flags;
    status->bytes = told.bytes;
    status->owner = told.flags & BY_STATUS_RECURSE ? node : NULL;
    status->host_offset = req->offset;
    return 0;
}

static const struct by_node_ops status_ops = {
    .size = sizeof(status_ops), .abi = BY_ABI_VERSION, .name = "status",
    .serves = BASIC | BY_OP_BIT(BY_OP_BLOCK_STATUS), .submit = status_submit,
};

static int ask(struct world *w, uint64_t offset, uint64_t bytes,
               uint32_t flags, uint64_t answer, struct by_status *status)
{
    struct by_access access = {
        .op = BY_OP_BLOCK_STATUS, .offset = offset, .bytes = bytes,
    };

    told.flags = flags;
    told.bytes = answer;
    return by_access_wait(w->root, false, &access, status);
}

static void test_what_drivers_say_of_blocks(void)
{
    struct world w;
    struct by_status status;

    open_bare(&w, &status_ops, 512, false);
    by_node_set_length(w.base, 10000);
    CHECK(ask(&w, 0, 4096, BY_STATUS_ZERO, 0, &status) == -EIO);
    CHECK(ask(&w, 0, 4096, BY_STATUS_ZERO, 4097, &status) == -EIO);
    CHECK(ask(&w, 0, 4096, BY_STATUS_ZERO, UINT64_MAX, &status) == -EIO);
    CHECK(ask(&w, 0, 4096, BY_STATUS_ZERO, 1000, &status) == 0);
    CHECK(status.bytes == 512 && status.flags == BY_STATUS_ZERO);
    CHECK(ask(&w, 100, 4096, BY_STATUS_ZERO, 100, &status) == 0);
    CHECK(status.bytes == 412 && !(status.flags & BY_STATUS_ZERO));
    CHECK(ask(&w, 9728, 272, BY_STATUS_ZERO, 272, &status) == 0);
    CHECK(status.bytes == 272);
    CHECK(status.flags == (BY_STATUS_ZERO | BY_STATUS_EOF));
    CHECK(ask(&w, 9728, 273, BY_STATUS_ZERO, 272, &status) == -EIO);
    CHECK(ask(&w, 0, 4096, BY_STATUS_DATA | BY_STATUS_RECURSE, 512,
              &status) == 0);
    CHECK(status.bytes == 512 && status.flags == BY_STATUS_DATA);
    close_world(&w);
}

int main(int argc, char **argv)
{
    rng_state = argc > 1 ? strtoull(argv[1], NULL, 0) | 1 : 88172645463325252u;
    CHECK(by_start(argc > 2 && !strcmp(argv[2], "epoll")) == 0);
    struct { const char *name; void (*run)(void); } tests[] = {
#define TEST(name) { #name, test_##name }
        TEST(a_refused_copy_is_made_by_hand),
        TEST(a_copy_and_a_rewrite_of_both_its_ends),
        TEST(a_durable_copy_is_flushed),
        TEST(a_drained_target_holds_a_copy),
        TEST(durable_zeroes_that_fall_back_are_flushed),
        TEST(only_a_refused_piece_is_written),
        TEST(ignored_discards_unmap_nothing),
        TEST(limits_between_blocks),
        TEST(truncate_leaves_the_drivers_length),
        TEST(requests_of_nothing),
        TEST(far_away),
        TEST(a_length_inside_a_block),
        TEST(what_drivers_say_of_blocks),
    };

    for (size_t i = 0; i < sizeof(tests) / sizeof(tests[0]); i++) {
        if (argc <= 3 || !strcmp(argv[3], tests[i].name)) {
            tests[i].run();
        }
    }
    by_stop();
    puts("ok");
    return 0;
}
