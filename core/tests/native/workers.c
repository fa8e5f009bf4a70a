/* SPDX-License-Identifier: Apache-2.0 */
/*
 * workers.c - the pool: results, order within a batch of short calls, calls
 * that block do not hold others up, queues, several loops at once.
 */
#include "check.h"

enum { WORKS = 64, SLEEP_MS = 30 };

static struct by_loop *loop;
static struct by_work works[WORKS];
static int left, rounds;
static int sleepers;           /* how many of the first ones block */
static int last_number;

static int short_call(struct by_work *work)
{
    int number = (int)(work - works);

    CHECK(!by_loop_current());
    CHECK_EQ(number, last_number + 1);   /* one worker, in order */
    last_number = number;
    return number * 3 - 5;
}

static void start_round(struct by_loop *on);

static void short_done(struct by_work *work, int result)
{
    CHECK(by_on_loop(loop));
    CHECK_EQ(result, (int)(work - works) * 3 - 5);
    if (--left == 0) {
        if (--rounds) {
            start_round(loop);
        } else {
            by_event_done(CHECK_TAG, 0);
        }
    }
}

static void start_round(struct by_loop *on)
{
    left = WORKS;
    last_number = -1;
    for (int i = 0; i < WORKS; i++) {
        works[i].run = short_call;
        works[i].done = short_done;
        by_pool_submit(on, &works[i]);
    }
}

/* The first ones of a batch sleep; the short ones behind them must not wait
 * for all of them in a row. */
static int sleeping_call(struct by_work *work)
{
    if (work - works < sleepers) {
        usleep(SLEEP_MS * 1000);
    }
    return 0;
}

static void sleeping_done(struct by_work *work, int result)
{
    (void)work;
    CHECK_EQ(result, 0);
    if (--left == 0) {
        by_event_done(CHECK_TAG, 0);
    }
}

static void start_sleeping(struct by_loop *on)
{
    left = WORKS;
    for (int i = 0; i < WORKS; i++) {
        works[i].run = sleeping_call;
        works[i].done = sleeping_done;
        by_pool_submit(on, &works[i]);
    }
}

static void test_blocking(int blocked)
{
    uint64_t start = by_clock(), took;

    sleepers = blocked;
    CHECK_EQ(check_on(loop, start_sleeping), 0);
    took = by_clock() - start;
    /* In a row it would take blocked * SLEEP_MS; far from it. */
    CHECK(took < (uint64_t)blocked * SLEEP_MS * 1000000 / 2
                 + SLEEP_MS * 3000000ull);
}

/* Several loops, one pool, each work resubmitted from its own done. */
enum { LOOPS = 3, EACH = 16, TURNS = 500 };

struct crowd {
    struct by_task task;
    struct by_work works[EACH];
    int turns[EACH];
    int left;
    struct by_loop *loop;
};

static struct crowd crowds[LOOPS];
static _Atomic int crowds_left = LOOPS;

static int burn(struct by_work *work)
{
    (void)work;
    for (volatile int i = 0; i < 300; i++) {
        continue;
    }
    return 4;
}

static void crowd_done(struct by_work *work, int result)
{
    struct crowd *crowd = work->owner;
    int i = (int)(work - crowd->works);

    CHECK_EQ(result, 4);
    CHECK(by_on_loop(crowd->loop));
    if (++crowd->turns[i] < TURNS) {
        by_pool_submit(crowd->loop, work);
    } else if (--crowd->left == 0
               && atomic_fetch_sub(&crowds_left, 1) == 1) {
        by_event_done(CHECK_TAG, 0);
    }
}

static void crowd_start(struct by_task *task)
{
    struct crowd *crowd = task->owner;

    crowd->left = EACH;
    for (int i = 0; i < EACH; i++) {
        crowd->works[i].run = burn;
        crowd->works[i].done = crowd_done;
        crowd->works[i].owner = crowd;
        by_pool_submit(crowd->loop, &crowd->works[i]);
    }
}

static void test_crowds(void)
{
    for (int i = 0; i < LOOPS; i++) {
        crowds[i].loop = check_loop();
        crowds[i].task.run = crowd_start;
        crowds[i].task.owner = &crowds[i];
    }
    for (int i = 0; i < LOOPS; i++) {
        by_loop_post(crowds[i].loop, &crowds[i].task);
    }
    CHECK_EQ(check_await(CHECK_TAG), 0);
    for (int i = 0; i < LOOPS; i++) {
        check_destroy(crowds[i].loop);
    }
}

/* A loop's own limit: no more of its calls at one time. */
static _Atomic int running, most;

static int counted_call(struct by_work *work)
{
    int now = atomic_fetch_add(&running, 1) + 1;

    (void)work;
    if (now > atomic_load(&most)) {
        atomic_store(&most, now);
    }
    usleep(1000);
    atomic_fetch_sub(&running, 1);
    return 0;
}

static void start_counted(struct by_loop *on)
{
    left = WORKS;
    for (int i = 0; i < WORKS; i++) {
        works[i].run = counted_call;
        works[i].done = sleeping_done;
        by_pool_submit(on, &works[i]);
    }
}

static void test_limit(int64_t limit)
{
    struct by_loop_params params = { .thread_pool_min = 3,
                                     .thread_pool_max = limit };

    by_loop_set_params(loop, &params);
    atomic_store(&most, 0);
    CHECK_EQ(check_on(loop, start_counted), 0);
    CHECK(atomic_load(&most) <= limit);
    CHECK(atomic_load(&most) > 1 || limit == 1);
}

/* Calls of a queue run one at a time and in order, however long they take,
 * and those behind them that are of none do not wait for them. */
enum { QUEUE = 7, LONG_US = 2000 };

static _Atomic int queued_done, overtook;

static int queued_call(struct by_work *work)
{
    CHECK_EQ(atomic_fetch_add(&running, 1), 0);
    CHECK_EQ(atomic_load(&queued_done) * 2, (int)(work - works));
    usleep(LONG_US);
    atomic_fetch_add(&queued_done, 1);
    atomic_fetch_sub(&running, 1);
    return 0;
}

static int free_call(struct by_work *work)
{
    if (work - works > 2 * atomic_load(&queued_done) + 2) {
        atomic_fetch_add(&overtook, 1);
    }
    return 0;
}

static void start_queued(struct by_loop *on)
{
    left = WORKS;
    for (int i = 0; i < WORKS; i++) {
        works[i].run = i % 2 ? free_call : queued_call;
        works[i].done = sleeping_done;
        works[i].queue = i % 2 ? 0 : QUEUE;
        by_pool_submit(on, &works[i]);
    }
}

static void test_queue(void)
{
    CHECK_EQ(check_on(loop, start_queued), 0);
    CHECK_EQ(atomic_load(&queued_done), WORKS / 2);
    CHECK(atomic_load(&overtook) > 0);
    for (int i = 0; i < WORKS; i++) {
        works[i].queue = 0;
    }
}

int main(int argc, char **argv)
{
    check_start(argc, argv);
    loop = check_loop();
    test_blocking(1);
    test_blocking(8);
    test_blocking(WORKS);
    test_queue();
    check_destroy(loop);
    loop = check_loop();   /* forgets how long calls took */
    rounds = 1;
    CHECK_EQ(check_on(loop, start_round), 0);
    test_crowds();
    test_limit(1);
    test_limit(5);
    check_destroy(loop);
    by_stop();
    return 0;
}
