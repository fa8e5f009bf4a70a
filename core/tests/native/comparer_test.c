/* SPDX-License-Identifier: Apache-2.0 */
/*
 * comparer_test.c - comparisons of random disks in memory: the first difference,
 * what strict mode sees, different lengths, errors; with a second loop and without.
 *
 * Usage: comparer_test SEED [ring|epoll]; exits 0 when every check held.
 */
#include "copy_world.h"

static struct by_loop *helper;

static int compare(bool strict, struct by_compare_progress *out)
{
    struct by_compare_params params = {
        .roots = { source.root, second.root }, .strict = strict,
        .helper = rng() % 2 ? helper : NULL,
        .parallel = 1 + rng() % 5, .chunk = SECTOR * (1 + rng() % 32),
        .tag = 60,
    };
    struct by_comparer *comparer = by_comparer_start(&params);
    struct by_event event;

    CHECK(comparer);
    event = next_event();
    CHECK(event.tag == 60 && event.kind == BY_EVENT_DONE);
    by_comparer_progress(comparer, out);
    by_comparer_free(comparer);
    return event.result;
}

static void copy_disk(struct disk *to, const struct disk *from)
{
    memcpy(to->bytes, from->bytes, SIZE);
    memcpy(to->zero, from->zero, sizeof(to->zero));
    memcpy(to->allocated, from->allocated, sizeof(to->allocated));
}

static void test_compare(void)
{
    struct by_compare_progress p;

    for (int i = 0; i < 40; i++) {
        uint64_t at = rng() % SIZE;

        reset();
        copy_disk(&second, &source);
        CHECK(compare(true, &p) == 0 && p.end == BY_COMPARE_EQUAL);
        CHECK(p.done == SIZE && p.total == SIZE);
        for (size_t b = 0; b < BLOCKS; b++) {
            second.zero[b] = second.zero[b] && rng() % 2;
            second.allocated[b] = rng() % 2;
        }
        CHECK(compare(false, &p) == 0 && p.end == BY_COMPARE_EQUAL);
        second.bytes[at] ^= 1;
        second.zero[at / BLOCK] = false;
        second.bytes[SIZE - 1] ^= 1;
        second.zero[BLOCKS - 1] = false;
        CHECK(compare(false, &p) == 0 && p.end == BY_COMPARE_DIFFERENT);
        CHECK(p.at == at / SECTOR * SECTOR || at == SIZE - 1);
    }
}

static void test_compare_strict(void)
{
    struct by_compare_progress p;

    reset();
    copy_disk(&second, &source);
    second.allocated[7] = !second.allocated[7];
    CHECK(compare(true, &p) == 0 && p.end == BY_COMPARE_STATUS);
    CHECK(p.at == 7 * BLOCK);
}

/* The longer one's end must be zeroes. */
static void test_compare_lengths(void)
{
    struct by_compare_progress p;
    uint64_t half = SIZE / 2;

    reset();
    copy_disk(&second, &source);
    memset(second.bytes + half, 0, half);
    for (size_t b = BLOCKS / 2; b < BLOCKS; b++) {
        second.zero[b] = rng() % 2;
    }
    by_node_set_length(source.node, half);
    memset(source.allocated + BLOCKS / 2, 0, BLOCKS / 2); /* its end */
    source.allocated[BLOCKS / 2 - 1] = true;
    CHECK(compare(false, &p) == 0 && p.end == BY_COMPARE_EQUAL);
    second.bytes[SIZE - SECTOR] = 1;
    second.zero[BLOCKS - 1] = false;
    CHECK(compare(false, &p) == 0 && p.end == BY_COMPARE_DIFFERENT);
    CHECK(p.at == SIZE - SECTOR);
    by_node_set_length(source.node, SIZE);
}

static void test_compare_errors(void)
{
    struct by_compare_progress p;

    reset();
    copy_disk(&second, &source);
    memset(second.zero, 0, sizeof(second.zero));
    memset(source.zero, 0, sizeof(source.zero));
    second.bad[100] = true;
    CHECK(compare(false, &p) == -EIO && p.end == BY_COMPARE_FAILED);
    CHECK(p.side == BY_COPY_READ && p.index == 1 && p.at <= 100 * SECTOR);
    source.bad_status = true;
    CHECK(compare(false, &p) == -EIO && p.end == BY_COMPARE_FAILED);
    CHECK(p.side == BY_COPY_STATUS && p.index == 0);
}

int main(int argc, char **argv)
{
    int error;

    rng_state = argc > 1 ? strtoull(argv[1], NULL, 10) : 1;
    rng_state = rng_state ? rng_state * 0x9e3779b97f4a7c15ull : 1;
    CHECK(by_start(argc > 2 && !strcmp(argv[2], "epoll")) == 0);
    open_disks();
    helper = by_loop_create("helper", &(struct by_loop_params) { 0 }, &error);
    CHECK(helper);
    test_compare();
    test_compare_strict();
    test_compare_lengths();
    test_compare_errors();
    by_loop_destroy(helper, 4);
    wait_event(4, 0);
    close_disks();
    by_stop();
    return 0;
}
