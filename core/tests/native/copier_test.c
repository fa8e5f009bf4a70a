/* SPDX-License-Identifier: Apache-2.0 */
/*
 * copier_test.c - copies of random disks in memory against a plain model: ranges,
 * layers, what is missing, units, holes, salvage, errors, cancelling, on disks
 * that answer at once and on disks that answer later.
 *
 * Usage: copier_test SEED [ring|epoll]; exits 0 when every check held.
 */
#include "copy_world.h"

static unsigned char before[SIZE];

struct job {
    struct by_copy_params params;
    struct by_copy_range ranges[3];
    struct by_copy_progress progress;
    uint64_t unreadable;        /* bytes */
};

static struct by_copy_range range(struct disk *d, uint64_t offset,
                                  uint64_t bytes, uint64_t to)
{
    return (struct by_copy_range) {
        .source = d ? d->root : NULL, .offset = offset, .bytes = bytes,
        .target_offset = to,
    };
}

/* Concatenated, with a gap before the third. */
static void make_job(struct job *job)
{
    uint64_t first = SECTOR * (1 + rng() % 150);
    uint64_t more = SECTOR * (1 + rng() % 150);

    memset(job, 0, sizeof(*job));
    job->ranges[0] = range(&source, SECTOR * (rng() % 8), first, 0);
    job->ranges[1] = range(&second, 0, more, first);
    job->ranges[2] = range(rng() % 4 ? &source : NULL,
                           SIZE - SECTOR * (rng() % 100), SECTOR * 60,
                           first + more + SECTOR * (rng() % 50));
    job->params = (struct by_copy_params) {
        .target = target.root, .ranges = job->ranges, .nranges = 3,
        .parallel = 1 + rng() % 9, .chunk = SECTOR * (1 + rng() % 64),
        .sparse = rng() % 3 ? SECTOR << rng() % 6 : 0, .tag = 50,
    };
    if (rng() % 2) {
        job->params.flags |= BY_COPY_OUT_OF_ORDER;
    }
    if (rng() % 4 == 0) {
        job->params.flags |= BY_COPY_COUNT;
    }
    if (rng() % 3 == 0) {
        job->params.flags |= BY_COPY_OFFLOAD; /* refused, and then read */
    }
    target.in_order = !(job->params.flags & BY_COPY_OUT_OF_ORDER);
    memcpy(before, target.bytes, SIZE);
}

static int await(struct job *job, struct by_copier *copier)
{
    struct by_event event;

    for (;;) {
        event = next_event();
        CHECK(event.tag == 50);
        if (event.kind == BY_EVENT_DONE) {
            break;
        }
        if (event.kind == BY_EVENT_UNREADABLE) {
            CHECK(event.result == -EIO && event.b == SECTOR);
            job->unreadable += event.b;
        }
    }
    by_copier_progress(copier, &job->progress);
    by_copier_free(copier);
    return event.result;
}

static int copy(struct job *job)
{
    struct by_copier *copier = by_copier_start(&job->params);

    CHECK(copier);
    return await(job, copier);
}

static struct disk *disk_of(struct by_root *root)
{
    return root == source.root ? &source : root ? &second : NULL;
}

static unsigned char byte_of(const struct by_copy_range *r, uint64_t into)
{
    struct disk *d = disk_of(r->source);
    uint64_t at = r->offset + into;

    return d && at < SIZE && !d->bad[at / SECTOR] ? d->bytes[at] : 0;
}

static bool is_left(const struct job *job, const struct by_copy_range *r,
                    uint64_t into)
{
    uint64_t at = r->offset + into, to = r->target_offset + into;
    struct disk *d = disk_of(r->source);

    return (r->layers && d && at < SIZE && !d->allocated[at / BLOCK])
        || ((job->params.flags & BY_COPY_MISSING)
            && target.allocated[to / BLOCK]);
}

/* Is every byte what the ranges say?  In units, more may have been copied. */
static void check_target(const struct job *job)
{
    uint64_t at = 0;

    for (uint32_t i = 0; i < job->params.nranges; i++) {
        const struct by_copy_range *r = &job->ranges[i];

        CHECK(!memcmp(before + at, target.bytes + at, r->target_offset - at));
        for (uint64_t into = 0; into < r->bytes; into++) {
            unsigned char old = before[r->target_offset + into];
            unsigned char new = byte_of(r, into);
            unsigned char now = target.bytes[r->target_offset + into];

            if (!is_left(job, r, into)) {
                CHECK(now == new);
            } else {
                CHECK(now == old || (job->params.unit && now == new));
            }
        }
        at = r->target_offset + r->bytes;
    }
    CHECK(!memcmp(before + at, target.bytes + at, SIZE - at));
}

static void test_copies(void)
{
    struct job job;

    for (int i = 0; i < 60; i++) {
        reset();
        make_job(&job);
        if (rng() % 3 == 0) {
            job.ranges[0].layers = job.ranges[1].layers = 1;
        }
        if (rng() % 3 == 0) {
            job.params.flags |= BY_COPY_MISSING;
        }
        if (rng() % 3 == 0) {
            job.params.unit = SECTOR << rng() % 6;
            job.params.flags |= rng() % 2 ? BY_COPY_COMPRESSED : 0;
        }
        CHECK(copy(&job) == 0);
        check_target(&job);
        CHECK((job.params.flags & (BY_COPY_COUNT | BY_COPY_OFFLOAD))
              || job.progress.done == job.progress.total);
    }
}

/* What is not written is zero already, and zeroes are not written. */
static void test_zero_target(void)
{
    struct job job;

    for (int i = 0; i < 30; i++) {
        reset();
        make_job(&job);
        if (rng() % 2) {
            memset(target.bytes, 0, SIZE);
            job.params.flags |= BY_COPY_TARGET_ZERO;
        } else {
            memset(target.bytes + job.ranges[1].target_offset, 0,
                   job.ranges[1].bytes);
            job.ranges[1].target_zero = 1;
            job.params.unit = rng() % 2 ? SECTOR << rng() % 6 : 0;
        }
        memcpy(before, target.bytes, SIZE);
        CHECK(copy(&job) == 0);
        check_target(&job);
    }
}

/* Bytes that the reference has as well are not touched. */
static void test_reference(void)
{
    struct job job;

    for (int i = 0; i < 20; i++) {
        reset();
        make_job(&job);
        job.params.nranges = 1;
        job.ranges[0] = range(&source, 0, SECTOR * 400, 0);
        job.params.sparse = rng() % 2 ? 4096 : 0;
        job.params.unit = SECTOR;
        job.params.reference = reference.root;
        for (int s = 0; s < 400; s++) {
            if (rng() % 3) {
                memcpy(reference.bytes + s * SECTOR, source.bytes + s * SECTOR,
                       SECTOR);
                reference.zero[s * SECTOR / BLOCK] = false;
            }
        }
        for (size_t b = 0; b < BLOCKS; b++) {
            if (reference.zero[b]) {
                memset(reference.bytes + b * BLOCK, 0, BLOCK);
            }
        }
        CHECK(copy(&job) == 0);
        for (uint64_t at = 0; at < SIZE; at++) {
            CHECK(target.bytes[at] == before[at]
                  || target.bytes[at] == source.bytes[at]);
            CHECK(at >= SECTOR * 400
                  || source.bytes[at] == reference.bytes[at]
                  || target.bytes[at] == source.bytes[at]);
        }
    }
}

static void test_salvage(void)
{
    struct job job;
    uint64_t lost = 0;

    for (int i = 0; i < 20; i++) {
        reset();
        make_job(&job);
        lost = 0;
        job.params.nranges = 1;
        job.ranges[0] = range(&source, 0, SECTOR * 300, 0);
        job.params.flags |= BY_COPY_SALVAGE;
        job.params.flags &= ~BY_COPY_OFFLOAD;
        source.bad_status = rng() % 2;
        for (int s = 0; s < 300; s++) {
            source.bad[s] = rng() % 8 == 0;
            lost += source.bad[s] && (!source.zero[s * SECTOR / BLOCK]
                                      || source.bad_status
                                      || !job.params.sparse) ? SECTOR : 0;
        }
        CHECK(copy(&job) == 0);
        check_target(&job);
        CHECK(job.unreadable == lost);
    }
}

static void test_errors(void)
{
    struct job job;

    reset();
    make_job(&job);
    job.params.sparse = 0;
    job.params.nranges = 1;
    job.ranges[0] = range(&source, 0, SECTOR * 100, 0);
    source.bad[20] = true;
    CHECK(copy(&job) == -EIO);
    CHECK(job.progress.failed_side == BY_COPY_READ
          && job.progress.failed_range == 0);

    reset();
    make_job(&job);
    job.params.sparse = 0;
    target.fail_write = 2;
    CHECK(copy(&job) == -ENOSPC);
    CHECK(job.progress.failed_side == BY_COPY_WRITE);

    reset();
    make_job(&job);
    second.bad_status = true;
    CHECK(copy(&job) == -EIO);
    CHECK(job.progress.failed_side == BY_COPY_STATUS
          && job.progress.failed_range == 1
          && job.progress.failed_at == job.ranges[1].target_offset);

    make_job(&job);
    job.ranges[1].target_offset--;
    CHECK(!by_copier_start(&job.params));
    job.ranges[1].target_offset++;
    job.params.unit = 3;
    CHECK(!by_copier_start(&job.params));
}

static void test_cancel(void)
{
    struct job job;

    for (int i = 0; i < 30; i++) {
        struct by_copier *copier;
        int result;

        reset();
        make_job(&job);
        job.params.rate = rng() % 2 ? 100 << 20 : 1 << 20;
        job.params.sparse = 0;
        copier = by_copier_start(&job.params);
        CHECK(copier);
        by_copier_set_paused(copier, rng() % 2);
        by_copier_set_rate(copier, rng() % 2 ? 0 : 1 << 20);
        by_copier_cancel(copier);
        result = await(&job, copier);
        CHECK(result == 0 || result == -ECANCELED);
    }
}

/* At 2 MiB/s, 128 KiB take at least 40 ms beyond the first chunk. */
static void test_rate(void)
{
    struct job job;
    uint64_t began;

    reset();
    make_job(&job);
    job.params.nranges = 1;
    job.ranges[0] = range(&source, 0, 128 << 10, 0);
    job.params.chunk = 16 << 10;
    job.params.sparse = 0;
    job.params.rate = 2 << 20;
    began = by_clock();
    CHECK(copy(&job) == 0);
    CHECK(by_clock() - began >= 40000000);
    check_target(&job);
}

int main(int argc, char **argv)
{
    rng_state = argc > 1 ? strtoull(argv[1], NULL, 10) : 1;
    rng_state = rng_state ? rng_state * 0x9e3779b97f4a7c15ull : 1;
    CHECK(by_start(argc > 2 && !strcmp(argv[2], "epoll")) == 0);
    open_disks();
    test_copies();
    test_zero_target();
    test_reference();
    test_salvage();
    test_errors();
    test_cancel();
    test_rate();
    close_disks();
    by_stop();
    return 0;
}
