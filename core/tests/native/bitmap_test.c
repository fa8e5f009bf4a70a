/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bitmap_test.c - dirty bitmaps: the tree of bits against an array of them,
 * bitmaps of huge nodes, and which requests set which bits.
 *
 * Usage: bitmap_test SEED [ring|epoll]; exits 0 when every check held.
 */
#include "bitmap.h"
#include "graph_world.h"

/* ---- the tree against an array */

enum { BITS = 300000, TURNS = 300 };

static unsigned char model[BITS];

static uint64_t some(uint64_t below)
{
    return rng() % below;
}

/* Many histories begin and end where parts do. */
static uint64_t some_bit(void)
{
    static const unsigned steps[] = { 1, 64, 4096, 262144 };
    uint64_t at = some(BITS) / steps[rng() % 4] * steps[rng() % 4] + some(3);

    return at ? (at - 1) % BITS : 0;
}

static uint64_t model_next(uint64_t from, bool set)
{
    while (from < BITS && model[from] != set) {
        from++;
    }
    return from < BITS ? from : BY_BITS_NONE;
}

static void compare(const struct by_bits *bits)
{
    static uint64_t words[BITS / 64 + 2];
    uint64_t first = some(BITS / 64), count = some(BITS / 64 - first) + 1;
    uint64_t set = 0;

    for (unsigned i = 0; i < BITS; i++) {
        set += model[i];
    }
    CHECK(bits->set == set);
    by_bits_read(bits, first, count, words);
    for (uint64_t i = first * 64; i < (first + count) * 64; i++) {
        CHECK((words[i / 64 - first] >> i % 64 & 1)
              == (i < BITS && model[i]));
    }
    for (int i = 0; i < 50; i++) {
        uint64_t from = some_bit(), clear = by_bits_next_clear(bits, from);

        CHECK(by_bits_next_set(bits, from) == model_next(from, true));
        CHECK((clear < BITS ? clear : BY_BITS_NONE)
              == model_next(from, false));
    }
}

static void change(struct by_bits *bits)
{
    uint64_t first = some_bit(), last = some_bit();

    switch (rng() % 5) {
    case 0:
        for (int i = 0; i < 200; i++) {
            uint64_t at = some_bit();

            by_bits_set(bits, at, at);
            model[at] = 1;
        }
        break;
    case 1:
        first = rng() % 4 ? first : BITS / 2;
        by_bits_cut(bits, first);
        memset(model + first, 0, BITS - first);
        break;
    case 2: {
        uint64_t words[3] = { rng(), UINT64_MAX, 0 };
        uint64_t at = some(BITS / 64 - 3);

        by_bits_add(bits, at, 3, words);
        for (int i = 0; i < 192; i++) {
            model[at * 64 + i] |= words[i / 64] >> i % 64 & 1;
        }
        break;
    }
    default:
        if (first > last) {
            uint64_t held = first;

            first = last;
            last = held;
        }
        by_bits_set(bits, first, last);
        memset(model + first, 1, last - first + 1);
    }
}

static void test_bits_are_what_an_array_would_be(void)
{
    for (unsigned width = 19; width <= 54; width += 7) {
        struct by_bits bits, copy;

        by_bits_init(&bits, width);
        by_bits_init(&copy, width);
        memset(model, 0, BITS);
        for (int turn = 0; turn < TURNS / 6; turn++) {
            change(&bits);
            compare(&bits);
        }
        CHECK(by_bits_copy(&copy, &bits));
        compare(&copy);
        by_bits_clear(&bits);
        CHECK(bits.set == 0 && by_bits_next_set(&bits, 0) == BY_BITS_NONE);
        by_bits_swap(&bits, &copy);
        compare(&bits);
        by_bits_clear(&bits);
        by_bits_clear(&copy);
    }
}

static void test_the_smallest_tree(void)
{
    struct by_bits bits, copy;

    by_bits_init(&bits, 3);
    by_bits_init(&copy, 3);
    by_bits_set(&bits, 1, 2);
    CHECK(by_bits_next_set(&bits, 0) == 1 && by_bits_next_clear(&bits, 1) == 3);
    CHECK(by_bits_copy(&copy, &bits) && copy.set == 2);
    by_bits_cut(&copy, 2);
    CHECK(copy.set == 1 && by_bits_next_set(&copy, 2) == BY_BITS_NONE);
    by_bits_set(&bits, 0, 4095);
    CHECK(bits.set == 4096 && by_bits_next_clear(&bits, 0) == BY_BITS_NONE);
    CHECK(by_bits_next_set(&bits, UINT64_MAX) == BY_BITS_NONE);
    by_bits_cut(&bits, UINT64_MAX);
    CHECK(bits.set == 4096);
}

/* ---- bitmaps of no node */

static void test_the_longest_node(void)
{
    struct by_bitmap *fine = by_bitmap_create(512, INT64_MAX);
    struct by_bitmap *rough = by_bitmap_create(1u << 31, INT64_MAX);
    bool dirty;

    by_bitmap_set(fine, INT64_MAX - 1, UINT64_MAX);
    CHECK(by_bitmap_count(fine) == 1);
    CHECK(by_bitmap_next_dirty(fine, 0) == (1ull << 63) - 512);
    CHECK(by_bitmap_status(fine, 7, UINT64_MAX, &dirty)
          == (1ull << 63) - 519 && !dirty);
    by_bitmap_merge(rough, fine);
    CHECK(by_bitmap_count(rough) == 1);
    by_bitmap_set(fine, 0, UINT64_MAX);
    CHECK(by_bitmap_count(fine) == 1ull << 54);
    CHECK(by_bitmap_next_clean(fine, 0) == UINT64_MAX);
    by_bitmap_merge(rough, fine);
    CHECK(by_bitmap_count(rough) == 1ull << 32);
    by_bitmap_resize(fine, 12345);
    CHECK(by_bitmap_count(fine) == 25);
    by_bitmap_resize(fine, INT64_MAX);
    CHECK(by_bitmap_count(fine) == 25);
    CHECK(by_bitmap_status(fine, 12799, 3, &dirty) == 1 && dirty);
    CHECK(by_bitmap_status(fine, INT64_MAX, 3, &dirty) == 0);
    CHECK(by_bitmap_swap(fine, rough) == -EINVAL);
    by_bitmap_free(fine);
    by_bitmap_free(rough);
}

static void test_what_cannot_be_made(void)
{
    CHECK(!by_bitmap_create(0, 512));
    CHECK(!by_bitmap_create(256, 512));
    CHECK(!by_bitmap_create(513, 512));
    CHECK(!by_bitmap_create(512, 1ull << 63));
}

static void test_bytes_keep_to_the_end(void)
{
    struct by_bitmap *b = by_bitmap_create(512, 512 * 77 - 3);
    struct by_bitmap *none = by_bitmap_create(512, 0);
    unsigned char ones[24], out[24];

    memset(ones, 0xff, sizeof(ones));
    by_bitmap_deserialise(b, 0, ones, sizeof(ones));
    CHECK(by_bitmap_count(b) == 77);
    by_bitmap_serialise(b, 0, out, sizeof(out));
    CHECK(!memcmp(out, ones, 9) && out[9] == 0x1f);
    for (int i = 10; i < 24; i++) {
        CHECK(out[i] == 0);
    }
    by_bitmap_serialise(b, 8, out, 3);
    CHECK(out[0] == 0xff && out[1] == 0x1f && out[2] == 0);
    by_bitmap_deserialise(b, 1u << 20, ones, sizeof(ones));
    by_bitmap_deserialise(b, UINT64_MAX - 7, ones, 8);
    by_bitmap_serialise(b, UINT64_MAX - 7, out, 8);
    CHECK(by_bitmap_count(b) == 77 && out[0] == 0);
    by_bitmap_deserialise(none, 0, ones, sizeof(ones));
    by_bitmap_set(none, 0, 512);
    CHECK(by_bitmap_count(none) == 0);
    by_bitmap_free(b);
    by_bitmap_free(none);
}

/* Merged by words, by areas, and where granularities differ. */
static void test_merging(void)
{
    for (int i = 0; i < 30; i++) {
        uint64_t length = some(1ull << 26) + 1;
        struct by_bitmap *from = by_bitmap_create(512, length);
        struct by_bitmap *same = by_bitmap_create(512, length);
        struct by_bitmap *rough = by_bitmap_create(65536, length);

        for (int n = some(40); n >= 0; n--) {
            uint64_t at = some(length);

            by_bitmap_set(from, at, some(n % 3 ? 4096 : length));
        }
        by_bitmap_merge(same, from);
        by_bitmap_merge(rough, from);
        by_bitmap_merge(same, same);
        CHECK(by_bitmap_count(same) == by_bitmap_count(from));
        for (uint64_t at = 0; at < length; at += 512) {
            bool in_from, in_same, in_rough;

            by_bitmap_status(from, at, 1, &in_from);
            by_bitmap_status(same, at, 1, &in_same);
            by_bitmap_status(rough, at, 1, &in_rough);
            CHECK(in_from == in_same && (!in_from || in_rough));
            if (in_rough && at % 65536 == 0) {
                CHECK(by_bitmap_next_dirty(from, at) < at + 65536);
            }
        }
        by_bitmap_free(from);
        by_bitmap_free(same);
        by_bitmap_free(rough);
    }
}

/* ---- what requests set */

static void open_bare(struct world *w, const struct by_node_ops *ops,
                      bool later)
{
    open_world(w, ops, 512, 0, later);
    by_root_set_node(w->root, w->base);
}

static bool only(struct by_bitmap *b, uint64_t first, uint64_t end)
{
    bool good = by_bitmap_next_dirty(b, 0) == first
        && by_bitmap_next_clean(b, first) == end
        && by_bitmap_next_dirty(b, end) == UINT64_MAX;

    by_bitmap_clear(b);
    return good;
}

static void test_what_changes_data_is_recorded(void)
{
    for (int later = 0; later < 2; later++) {
        static unsigned char bytes[8192];
        struct by_bitmap *b = by_bitmap_create(4096, 0);
        struct world w;
        struct by_access copy = {
            .op = BY_OP_COPY_RANGE, .offset = 65536, .bytes = 4096,
            .target_offset = 8192,
        };

        open_bare(&w, &busy_ops, later);
        by_bitmap_attach(b, w.base);
        CHECK(by_bitmap_length(b) == DISK);
        CHECK(access_wait(&w, BY_OP_READ, 0, 8192, bytes, 0) == 0);
        CHECK(access_wait(&w, BY_OP_FLUSH, 0, 0, NULL, 0) == 0);
        CHECK(by_bitmap_count(b) == 0);
        CHECK(access_wait(&w, BY_OP_WRITE, 4095, 2, bytes, 0) == 0);
        CHECK(only(b, 0, 8192));
        CHECK(access_wait(&w, BY_OP_WRITE_ZEROES, 4096, 4096, NULL, 0) == 0);
        CHECK(only(b, 4096, 8192));
        w.memory.fail_next = -EIO;
        CHECK(access_wait(&w, BY_OP_WRITE, 40960, 512, bytes, 0) == -EIO);
        CHECK(only(b, 40960, 45056));
        CHECK(access_wait(&w, BY_OP_DISCARD, 0, 4096, NULL, 0) == 0);
        CHECK(only(b, 0, 4096));
        by_node_set_discard(w.base, false);
        CHECK(access_wait(&w, BY_OP_DISCARD, 0, 4096, NULL, 0) == 0);
        CHECK(by_bitmap_count(b) == 0);
        copy.target = w.root;
        CHECK(by_access_wait(w.root, false, &copy, NULL) == 0);
        CHECK(only(b, 8192, 12288));
        by_bitmap_set_enabled(b, false);
        CHECK(access_wait(&w, BY_OP_WRITE, 0, 512, bytes, 0) == 0);
        CHECK(by_bitmap_count(b) == 0);
        by_bitmap_set_enabled(b, true);
        by_bitmap_detach(b);
        CHECK(access_wait(&w, BY_OP_WRITE, 0, 512, bytes, 0) == 0);
        CHECK(by_bitmap_count(b) == 0);
        by_bitmap_free(b);
        close_world(&w);
    }
}

static void test_copies_inside_the_driver_are_recorded(void)
{
    struct by_bitmap *b = by_bitmap_create(4096, 0);
    struct world w;
    struct by_access copy = {
        .op = BY_OP_COPY_RANGE, .offset = 65536, .bytes = 4096,
        .target_offset = 8192,
    };

    open_bare(&w, &copying_ops, false);
    by_bitmap_attach(b, w.base);
    copy.target = w.root;
    CHECK(by_access_wait(w.root, false, &copy, NULL) == 0);
    CHECK(only(b, 8192, 12288));
    by_bitmap_set_read_only(b, true);
    CHECK(by_access_wait(w.root, false, &copy, NULL) == -EPERM);
    close_world(&w);
    by_bitmap_free(b);
}

static void test_bitmaps_follow_the_length(void)
{
    static unsigned char bytes[4096];
    struct by_bitmap *a = by_bitmap_create(4096, 0);
    struct by_bitmap *b = by_bitmap_create(512, 0);
    struct world w;

    open_bare(&w, &plain_ops, false);
    by_bitmap_attach(a, w.base);
    by_bitmap_attach(b, w.base);
    by_root_set_writable(w.root, true, true);
    CHECK(access_wait(&w, BY_OP_WRITE, DISK, 4096, bytes, 0) == 0);
    CHECK(by_bitmap_length(a) == DISK + 4096 && by_bitmap_count(a) == 1);
    CHECK(by_bitmap_length(b) == DISK + 4096 && by_bitmap_count(b) == 8);
    CHECK(access_wait(&w, BY_OP_TRUNCATE, DISK + 512, 0, NULL, 0) == 0);
    CHECK(by_bitmap_count(a) == 1 && by_bitmap_count(b) == 1);
    CHECK(access_wait(&w, BY_OP_TRUNCATE, DISK, 0, NULL, 0) == 0);
    CHECK(by_bitmap_count(a) == 0 && by_bitmap_count(b) == 0);
    CHECK(access_wait(&w, BY_OP_TRUNCATE, 2 * DISK, 0, NULL, 0) == 0);
    CHECK(by_bitmap_length(a) == 2 * DISK && by_bitmap_count(a) == 0);
    close_world(&w); /* takes them off */
    by_bitmap_free(a);
    by_bitmap_free(b);
}

static void test_a_read_only_bitmap_freezes_the_node(void)
{
    static unsigned char bytes[512];
    struct by_bitmap *a = by_bitmap_create(4096, 0);
    struct by_bitmap *b = by_bitmap_create(4096, 0);
    struct world w;

    open_bare(&w, &busy_ops, false);
    by_bitmap_set_read_only(a, true);
    by_bitmap_attach(a, w.base);
    by_bitmap_attach(b, w.base);
    for (int i = 0; i < 2; i++) {
        CHECK(access_wait(&w, BY_OP_WRITE, 0, 512, bytes, 0) == -EPERM);
        CHECK(access_wait(&w, BY_OP_WRITE_ZEROES, 0, 512, NULL, 0) == -EPERM);
        CHECK(access_wait(&w, BY_OP_DISCARD, 0, 512, NULL, 0) == -EPERM);
        CHECK(access_wait(&w, BY_OP_TRUNCATE, 512, 0, NULL, 0) == -EPERM);
        CHECK(access_wait(&w, BY_OP_READ, 0, 512, bytes, 0) == 0);
        CHECK(by_bitmap_count(a) == 0);
        by_bitmap_set_read_only(b, true);
    }
    by_bitmap_set_read_only(a, false);
    CHECK(access_wait(&w, BY_OP_DISCARD, 0, 512, NULL, 0) == -EPERM);
    by_bitmap_free(b);
    by_bitmap_clear(a);
    CHECK(access_wait(&w, BY_OP_WRITE, 0, 512, bytes, 0) == 0);
    CHECK(by_bitmap_count(a) == 1);
    close_world(&w);
    by_bitmap_free(a);
}

int main(int argc, char **argv)
{
    rng_state = argc > 1 ? strtoull(argv[1], NULL, 0) | 1 : 88172645463325252u;
    CHECK(by_start(argc > 2 && !strcmp(argv[2], "epoll")) == 0);
    test_bits_are_what_an_array_would_be();
    test_the_smallest_tree();
    test_the_longest_node();
    test_what_cannot_be_made();
    test_bytes_keep_to_the_end();
    test_merging();
    test_what_changes_data_is_recorded();
    test_copies_inside_the_driver_are_recorded();
    test_bitmaps_follow_the_length();
    test_a_read_only_bitmap_freezes_the_node();
    by_stop();
    puts("ok");
    return 0;
}
