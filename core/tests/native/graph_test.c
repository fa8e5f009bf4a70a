/* SPDX-License-Identifier: Apache-2.0 */
/*
 * graph_test.c - the request path over a node in memory that answers at once,
 * later or out of order, with and without limits, against a plain model.
 *
 * Usage: graph_test SEED [ring|epoll]; exits 0 when every check held.
 */
#include "graph_world.h"

/* ---- random histories against a model */

static struct by_access random_access(void)
{
    static const uint8_t ops[] = {
        BY_OP_READ, BY_OP_WRITE, BY_OP_WRITE, BY_OP_WRITE_ZEROES,
        BY_OP_FLUSH, BY_OP_DISCARD,
    };
    struct by_access access = { .op = ops[rng() % sizeof(ops)] };
    uint64_t size = 1 + rng() % (rng() % 3 ? 5000 : 200000);

    if (access.op != BY_OP_FLUSH) {
        access.offset = rng() % (DISK - size);
        access.bytes = size;
    }
    access.flags = rng() % 4 ? 0 : BY_REQ_FUA;
    if (rng() % 8 == 0) {
        access.flags |= BY_REQ_SERIALISING;
    }
    return access;
}

/* Eight lanes of the disk that do not overlap, so that the model is exact
 * while eight requests run at a time; blocks at the borders are shared, which
 * is what the gate is for. */
static void history(struct world *w, int rounds)
{
    enum { N = 8 };
    static unsigned char buffers[N][DISK / N + 64];
    struct by_access access[N];

    for (int round = 0; round < rounds; round++) {
        for (int i = 0; i < N; i++) {
            uint64_t lane = DISK / N * i, room = DISK / N;
            struct by_access *a = &access[i];

            *a = random_access();
            if (a->op != BY_OP_FLUSH) {
                a->offset = lane + rng() % room;
                if (a->bytes > lane + room - a->offset) {
                    a->bytes = lane + room - a->offset;
                }
            }
            a->buffer = buffers[i] + rng() % 64;
            a->tag = 100 + i;
            memset(a->buffer, rng() % 3 ? (int)rng() : 0, a->bytes);
            if (a->op == BY_OP_WRITE) {
                memcpy(w->model + a->offset, a->buffer, a->bytes);
            } else if (a->op == BY_OP_WRITE_ZEROES) {
                memset(w->model + a->offset, 0, a->bytes);
            }
            CHECK(by_access_start(w->root, false, a, NULL) == 0);
        }
        for (int left = N; left; left--) {
            CHECK(next_event().result == 0);
        }
        for (int i = 0; i < N; i++) {
            if (access[i].op == BY_OP_READ) {
                CHECK(!memcmp(access[i].buffer, w->model + access[i].offset,
                              access[i].bytes));
            }
        }
    }
    CHECK(!memcmp(w->model, w->memory.bytes, DISK));
}

static void test_histories(void)
{
    static const struct { uint32_t align; uint64_t max; } limits[] = {
        { 0, 0 }, { 512, 0 }, { 4096, 16384 }, { 1, 3000 }, { 512, 1536 },
    };

    for (size_t i = 0; i < sizeof(limits) / sizeof(limits[0]); i++) {
        for (int later = 0; later < 2; later++) {
            struct world w;

            open_world(&w, i % 2 ? &zeroing_ops : &plain_ops,
                       limits[i].align, limits[i].max, later);
            by_node_set_detect_zeroes(w.base, i % 3);
            history(&w, 60);
            close_world(&w);
        }
    }
}

/* ---- single rules */

static void test_bounds_and_rights(void)
{
    struct world w;
    char buffer[512] = { 0 };

    open_world(&w, &plain_ops, 0, 0, false);
    CHECK(access_wait(&w, BY_OP_READ, DISK, 1, buffer, 0) == -EIO);
    CHECK(access_wait(&w, BY_OP_READ, UINT64_MAX, 2, buffer, 0) == -EIO);
    CHECK(access_wait(&w, BY_OP_WRITE, DISK - 1, 2, buffer, 0) == -EIO);
    by_root_set_writable(w.root, false, false);
    CHECK(access_wait(&w, BY_OP_WRITE, 0, 1, buffer, 0) == -EPERM);
    CHECK(access_wait(&w, BY_OP_READ, DISK - 1, 1, buffer, 0) == 0);
    w.memory.fail_next = -ENOSPC;
    CHECK(access_wait(&w, BY_OP_READ, 0, 1, buffer, 0) == -ENOSPC);
    close_world(&w);
}

static void test_fua_is_a_flush_behind(void)
{
    struct world w;
    char buffer[512] = { 0 };

    open_world(&w, &plain_ops, 0, 0, true);
    CHECK(access_wait(&w, BY_OP_WRITE, 0, 512, buffer, BY_REQ_FUA) == 0);
    CHECK(w.memory.flushes == 1);
    by_root_set_writethrough(w.root, true);
    CHECK(access_wait(&w, BY_OP_WRITE, 0, 512, buffer, 0) == 0);
    CHECK(w.memory.flushes == 2);
    by_node_set_no_flush(w.base, true);
    CHECK(access_wait(&w, BY_OP_WRITE, 0, 512, buffer, 0) == 0);
    CHECK(access_wait(&w, BY_OP_FLUSH, 0, 0, NULL, 0) == 0);
    CHECK(w.memory.flushes == 2);
    close_world(&w);
}

static void test_zeroes_fall_back_or_not(void)
{
    struct world w;
    char buffer[512];

    open_world(&w, &plain_ops, 0, 0, true);
    memset(buffer, 7, sizeof(buffer));
    CHECK(access_wait(&w, BY_OP_WRITE, 100, 512, buffer, 0) == 0);
    CHECK(access_wait(&w, BY_OP_WRITE_ZEROES, 100, 256, NULL,
                      BY_REQ_NO_FALLBACK) == -ENOTSUP);
    CHECK(w.memory.bytes[100] == 7);
    CHECK(access_wait(&w, BY_OP_WRITE_ZEROES, 100, 256, NULL, 0) == 0);
    CHECK(w.memory.bytes[100] == 0 && w.memory.bytes[356] == 7);
    close_world(&w);
}

static void test_threshold_reports_once(void)
{
    struct world w;
    struct by_event event;
    char buffer[512] = { 0 };

    open_world(&w, &plain_ops, 0, 0, false);
    by_node_set_threshold(w.top, 1000, 77);
    CHECK(access_wait(&w, BY_OP_WRITE, 0, 512, buffer, 0) == 0);
    CHECK(access_wait(&w, BY_OP_WRITE, 600, 512, buffer, 0) == 0);
    CHECK(access_wait(&w, BY_OP_WRITE, 6000, 512, buffer, 0) == 0);
    CHECK(by_event_take(&event, 1) == 1);
    CHECK(event.tag == 77 && event.kind == BY_EVENT_THRESHOLD);
    CHECK(event.a == 112 && event.b == 1000);
    CHECK(by_event_take(&event, 1) == 0);
    CHECK(by_node_get_threshold(w.top) == 0);
    close_world(&w);
}

static void test_drain_parks_and_nests(void)
{
    struct world w;
    struct by_node *nodes[2];
    char buffer[4096] = { 0 };
    struct by_access access = {
        .op = BY_OP_WRITE, .bytes = 4096, .buffer = buffer, .tag = 9,
    };
    struct by_stats stats;
    int ended = 0;

    open_world(&w, &plain_ops, 512, 0, true);
    nodes[0] = w.top;
    nodes[1] = w.base;
    for (int i = 0; i < 50; i++) {
        CHECK(by_access_start(w.root, false, &access, NULL) == 0);
    }
    CHECK(by_drain_begin(&w.root, 1, nodes, 2, 20) == 0);
    CHECK(by_drain_begin(&w.root, 1, nodes, 2, 21) == 0);
    for (int begun = 0; begun < 2;) {
        struct by_event event = next_event();

        ended += event.tag == 9;
        begun += event.tag == 20 || event.tag == 21;
    }
    by_node_get_stats(w.base, &stats);
    CHECK(stats.in_flight == 0);
    w.memory.submitted = 0;
    CHECK(by_access_start(w.root, false, &access, NULL) == 0);
    CHECK(by_drain_end(&w.root, 1, nodes, 2, 22) == 0);
    wait_event(22, 0);
    CHECK(w.memory.submitted == 0);
    access.tag = 10;
    CHECK(by_access_start(w.root, true, &access, NULL) == 0);
    wait_event(10, 0);
    CHECK(w.memory.submitted == 1);
    CHECK(by_drain_end(&w.root, 1, nodes, 2, 23) == 0);
    for (int parked = 51 - ended; parked;) {
        parked -= next_event().tag == 9;
    }
    CHECK(w.memory.submitted == 1 + 51u - ended);
    close_world(&w);
}

static void test_statistics(void)
{
    struct world w;
    struct by_stats stats;
    char buffer[512] = { 0 };

    open_world(&w, &plain_ops, 0, 0, true);
    CHECK(access_wait(&w, BY_OP_WRITE, 1000, 512, buffer, 0) == 0);
    CHECK(access_wait(&w, BY_OP_READ, 0, 512, buffer, 0) == 0);
    CHECK(access_wait(&w, BY_OP_READ, DISK, 512, buffer, 0) == -EIO);
    by_root_get_stats(w.root, &stats);
    CHECK(stats.op[BY_OP_WRITE].done == 1);
    CHECK(stats.op[BY_OP_WRITE].bytes == 512);
    CHECK(stats.op[BY_OP_READ].done == 1);
    CHECK(stats.op[BY_OP_READ].invalid == 1);
    CHECK(stats.write_highest == 1512);
    CHECK(stats.in_flight == 0);
    close_world(&w);
}

static void test_truncate_sets_the_length(void)
{
    struct world w;

    open_world(&w, &plain_ops, 0, 0, true);
    CHECK(access_wait(&w, BY_OP_TRUNCATE, DISK / 2, 0, NULL, 0) == 0);
    CHECK(by_node_get_length(w.base) == DISK / 2);
    CHECK(by_node_get_length(w.top) == DISK / 2);
    close_world(&w);
}

int main(int argc, char **argv)
{
    rng_state = argc > 1 ? strtoull(argv[1], NULL, 0) | 1 : 88172645463325252u;
    CHECK(by_start(argc > 2 && !strcmp(argv[2], "epoll")) == 0);
    test_bounds_and_rights();
    test_fua_is_a_flush_behind();
    test_zeroes_fall_back_or_not();
    test_threshold_reports_once();
    test_drain_parks_and_nests();
    test_statistics();
    test_truncate_sets_the_length();
    test_histories();
    by_stop();
    puts("ok");
    return 0;
}
