/* SPDX-License-Identifier: Apache-2.0 */
/*
 * memory.c - slab pieces and payload buffers do not overlap, are aligned and
 * come back; is_zero agrees with a plain loop.
 */
#include "check.h"

enum { PIECES = 2000 };

static struct by_loop *loop;

static void test_pieces(struct by_loop *on)
{
    static unsigned char *pieces[PIECES];
    static size_t sizes[PIECES];
    unsigned seed = 3;

    for (int turn = 0; turn < 20000; turn++) {
        int i = rand_r(&seed) % PIECES;

        if (pieces[i]) {
            for (size_t k = 0; k < sizes[i]; k++) {
                CHECK_EQ(pieces[i][k], (unsigned char)i);
            }
            by_slab_put(on, pieces[i], sizes[i]);
            pieces[i] = NULL;
        } else {
            sizes[i] = (size_t)rand_r(&seed) % (turn % 50 ? 600 : 9000);
            pieces[i] = by_slab_get(on, sizes[i]);
            CHECK(pieces[i]);
            CHECK_EQ((uintptr_t)pieces[i] % 64, 0);
            memset(pieces[i], i, sizes[i]);
        }
    }
    for (int i = 0; i < PIECES; i++) {
        by_slab_put(on, pieces[i], sizes[i]);
    }
    by_event_done(CHECK_TAG, 0);
}

static void test_buffers(struct by_loop *on)
{
    static const size_t sizes[] = {
        0, 1, 4096, 4097, 8192, 20000, 65536, 65537, 100000, 1 << 20,
        (1 << 20) + 1, 3 << 20, 32 << 20, 33 << 20, 64 << 20, 65 << 20,
        300u << 20
    };
    unsigned char *first, *again;

    for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
        first = by_buffer_get(on, sizes[i]);
        CHECK(first);
        CHECK_EQ((uintptr_t)first % 4096, 0);
        if (sizes[i]) {
            first[0] = 1;
            first[sizes[i] - 1] = 1;
        }
        by_buffer_put(on, first, sizes[i]);
        if (sizes[i] <= 1 << 20) {
            again = by_buffer_get(on, sizes[i]);
            CHECK(again == first);
            by_buffer_put(on, again, sizes[i]);
        }
    }
    CHECK(!by_buffer_get(on, SIZE_MAX / 2));
    by_event_done(CHECK_TAG, 0);
}

/* Two of one size are two; a kept one is not handed out twice. */
static void test_pairs(struct by_loop *on)
{
    for (size_t size = 1; size < 3 << 20; size += size / 3 + 1) {
        char *a = by_buffer_get(on, size), *b = by_buffer_get(on, size);

        CHECK(a && b && a != b);
        memset(a, 1, size);
        memset(b, 2, size);
        CHECK_EQ(a[size - 1], 1);
        by_buffer_put(on, a, size);
        by_buffer_put(on, b, size);
    }
    by_event_done(CHECK_TAG, 0);
}

/* What was kept goes back when the loop has been idle for a while: the next
 * one of that size has fresh pages. */
static void fill_one(struct by_loop *on)
{
    char *one = by_buffer_get(on, 1 << 20);

    memset(one, 7, 1 << 20);
    by_buffer_put(on, one, 1 << 20);
    by_event_done(CHECK_TAG, 0);
}

static void look_at_one(struct by_loop *on)
{
    char *one = by_buffer_get(on, 1 << 20);

    CHECK(by_is_zero(one, 1 << 20));
    by_buffer_put(on, one, 1 << 20);
    by_event_done(CHECK_TAG, 0);
}

static void test_zero(void)
{
    static unsigned char bytes[1200];

    for (size_t start = 0; start < 40; start += 13) {
        for (size_t count = 0; count < 700; count++) {
            CHECK(by_is_zero(bytes + start, count));
            for (size_t at = 0; at < count; at += count / 37 + 1) {
                bytes[start + at] = 0x80;
                CHECK(!by_is_zero(bytes + start, count));
                bytes[start + at] = 0;
            }
            bytes[start + count] = 1;      /* outside */
            CHECK(by_is_zero(bytes + start, count));
            bytes[start + count] = 0;
        }
    }
}

int main(int argc, char **argv)
{
    check_start(argc, argv);
    loop = check_loop();
    CHECK_EQ(check_on(loop, test_pieces), 0);
    CHECK_EQ(check_on(loop, test_buffers), 0);
    CHECK_EQ(check_on(loop, test_pairs), 0);
    CHECK_EQ(check_on(loop, fill_one), 0);
    usleep(1500000);
    CHECK_EQ(check_on(loop, look_at_one), 0);
    test_zero();
    check_destroy(loop);
    by_stop();
    return 0;
}
