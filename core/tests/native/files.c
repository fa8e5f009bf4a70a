/* SPDX-License-Identifier: Apache-2.0 */
/*
 * files.c - file operations: data, short results, errors, and more of them at
 * a time than the rings hold.
 */
#include "check.h"

#include <fcntl.h>

#include "ring.h"

enum { MANY = 5000, BLOCK = 512, FILE_BLOCKS = 64 };

static struct by_loop *loop;
static int fd;
static unsigned char data[FILE_BLOCKS * BLOCK];
static bool submitting;

/* A list of single steps, each checked against what it must answer. */
struct step {
    uint8_t op;
    uint32_t flags;
    uint64_t offset, bytes;
    int result;
};

static struct step steps[] = {
    { BY_IO_WRITEV, 0, 0, sizeof(data), sizeof(data) },
    { BY_IO_FSYNC, 0, 0, 0, 0 },
    { BY_IO_FSYNC, 1, 0, 0, 0 },
    { BY_IO_READV, 0, 0, sizeof(data), sizeof(data) },
    { BY_IO_READV, 0, sizeof(data) - 100, 512, 100 },      /* short */
    { BY_IO_READV, 0, sizeof(data), 512, 0 },              /* at the end */
    { BY_IO_FALLOCATE, FALLOC_FL_KEEP_SIZE, 0, 1 << 20, 0 },
    { BY_IO_FALLOCATE, 0x4000, 0, 4096, -EOPNOTSUPP },     /* no such mode */
    { 200, 0, 0, 0, -EINVAL },
};
static unsigned step;
static struct by_io io;
static struct iovec iov[2];

static void next_step(struct by_loop *on);

static void step_done(struct by_io *done, int result)
{
    CHECK(done == &io);
    CHECK(!submitting);
    CHECK_EQ(result, steps[step].result);
    step++;
    next_step(by_loop_current());
}

static void next_step(struct by_loop *on)
{
    const struct step *s = &steps[step];

    if (step == sizeof(steps) / sizeof(*steps)) {
        by_event_done(CHECK_TAG, 0);
        return;
    }
    iov[0] = (struct iovec){ data, s->bytes / 2 };
    iov[1] = (struct iovec){ data + s->bytes / 2, s->bytes - s->bytes / 2 };
    io.size = sizeof(io);
    io.op = s->op;
    io.fd = fd;
    io.flags = s->flags;
    io.offset = s->offset;
    io.bytes = s->bytes;
    io.iov = iov;
    io.niov = 2;
    io.done = step_done;
    submitting = true;
    by_io_submit(on, &io);
    submitting = false;
}

static void test_steps(void)
{
    unsigned char expected[sizeof(data)];

    for (size_t i = 0; i < sizeof(data); i++) {
        data[i] = (unsigned char)(i / BLOCK + i);
    }
    memcpy(expected, data, sizeof(data));
    CHECK_EQ(check_on(loop, next_step), 0);
    CHECK(pread(fd, data, sizeof(data), 0) == sizeof(data));
    CHECK(!memcmp(expected, data, sizeof(data)));
}

/* Many at once, each its own block: every one completes, with its data. */
static struct by_io ios[MANY];
static struct iovec vectors[MANY];
static unsigned char *blocks;
static int left;

static void read_done(struct by_io *done, int result)
{
    int i = (int)(done - ios);

    CHECK(!submitting);
    CHECK_EQ(result, BLOCK);
    CHECK(!memcmp(blocks + (size_t)i * BLOCK,
                  data + (size_t)(i % FILE_BLOCKS) * BLOCK, BLOCK));
    if (--left == 0) {
        by_event_done(CHECK_TAG, 0);
    }
}

static void read_many(struct by_loop *on)
{
    left = MANY;
    submitting = true;
    for (int i = 0; i < MANY; i++) {
        vectors[i] = (struct iovec){ blocks + (size_t)i * BLOCK, BLOCK };
        ios[i].op = BY_IO_READV;
        ios[i].fd = fd;
        ios[i].iov = &vectors[i];
        ios[i].niov = 1;
        ios[i].offset = (uint64_t)(i % FILE_BLOCKS) * BLOCK;
        ios[i].done = read_done;
        by_io_submit(on, &ios[i]);
    }
    submitting = false;
}

static void test_many(int64_t batch)
{
    struct by_loop_params params = { .poll_max_ns = 32768,
                                     .aio_max_batch = batch };

    by_loop_set_params(loop, &params);
    CHECK_EQ(check_on(loop, read_many), 0);
}

/* How many operations the kernel has not been given yet. */
static unsigned withheld(struct by_loop *on)
{
    const struct ring *ring = on->impl;

    return by_loop_has_ring(on) ? ring->tail - atomic_load(ring->sq_head) : 0;
}

static int64_t limit;                /* what the smaller of the two is */
static uint32_t asked;

static void submit_some(struct by_loop *on)
{
    CHECK_EQ(withheld(on), 0);
    left = FILE_BLOCKS;
    submitting = true;
    for (unsigned i = 0; i < FILE_BLOCKS; i++) {
        by_io_submit(on, &ios[i]);
        by_loop_submit_at(on, asked);
        CHECK_EQ(withheld(on), !by_loop_has_ring(on) ? 0
                 : limit ? (i + 1) % limit : i + 1);
    }
    submitting = false;
}

/* The loop's limit and the submitter's: the smaller one holds, 0 is none. */
static void test_limits(int64_t loops, uint32_t own, int64_t expected)
{
    struct by_loop_params params = { .aio_max_batch = loops };

    by_loop_set_params(loop, &params);
    asked = own;
    limit = expected;
    CHECK_EQ(check_on(loop, submit_some), 0);
}

static void test_submit_at(void)
{
    if (!by_loop_has_ring(loop)) {
        test_limits(4, 2, 0);        /* nothing is withheld */
        return;
    }
    test_limits(0, 0, 0);
    test_limits(0, 3, 3);
    test_limits(8, 3, 3);
    test_limits(2, 3, 2);
    test_limits(0, 1, 1);
    test_limits(0, UINT32_MAX, 0);
    test_limits(INT64_MAX, 3, 3);
}

/* A command needs a ring, and a file that knows it. */
static unsigned char payload[80];

static void command_done(struct by_io *done, int result)
{
    (void)done;
    by_event_done(CHECK_TAG, result);
}

static void send_command(struct by_loop *on)
{
    memset(&io, 0, sizeof(io));
    io.op = BY_IO_COMMAND;
    io.fd = fd;
    io.msg = payload;
    io.done = command_done;
    by_io_submit(on, &io);
}

int main(int argc, char **argv)
{
    char name[] = "/tmp/by-files-XXXXXX";

    fd = mkstemp(name);
    CHECK(fd >= 0);
    unlink(name);
    check_start(argc, argv);
    loop = check_loop();
    test_steps();
    blocks = calloc(MANY, BLOCK);
    test_many(0);
    test_many(4);
    test_submit_at();
    free(blocks);
    CHECK_EQ(check_on(loop, send_command), -EOPNOTSUPP);
    check_destroy(loop);
    by_stop();
    return 0;
}
