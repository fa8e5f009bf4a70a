/* SPDX-License-Identifier: Apache-2.0 */
/*
 * posts.c - posting from many threads: nothing is lost, each poster's order
 * holds, and no wake-up is missed when the loop is just falling asleep.
 */
#include "check.h"

#include <pthread.h>

enum { POSTERS = 6, EACH = 20000, PINGS = 20000 };

static struct by_loop *loop;

struct numbered {
    struct by_task task;
    int poster, number;
};

static struct numbered *tasks[POSTERS];
static int seen[POSTERS];
static int total;

static void count(struct by_task *task)
{
    struct numbered *mine = (struct numbered *)task;

    CHECK(by_on_loop(loop));
    CHECK_EQ(mine->number, seen[mine->poster]);
    seen[mine->poster]++;
    if (++total == POSTERS * EACH) {
        by_event_done(CHECK_TAG, 0);
    }
}

static void *post_many(void *arg)
{
    int poster = (int)(intptr_t)arg;

    for (int i = 0; i < EACH; i++) {
        struct numbered *mine = &tasks[poster][i];

        mine->task.run = count;
        mine->poster = poster;
        mine->number = i;
        by_loop_post(loop, &mine->task);
        if (i % 97 == 0) {
            usleep(20);
        }
    }
    return NULL;
}

static void test_nothing_lost(void)
{
    pthread_t threads[POSTERS];

    for (int i = 0; i < POSTERS; i++) {
        tasks[i] = calloc(EACH, sizeof(*tasks[i]));
        CHECK_EQ(pthread_create(&threads[i], NULL, post_many,
                                (void *)(intptr_t)i), 0);
    }
    CHECK_EQ(check_await(CHECK_TAG), 0);
    for (int i = 0; i < POSTERS; i++) {
        pthread_join(threads[i], NULL);
        free(tasks[i]);
    }
}

/* One post at a time, and the next only when it ran: each finds the loop at
 * another moment of falling asleep. */
struct ping {
    struct by_task task;
    _Atomic int ran;
};

static void pong(struct by_task *task)
{
    atomic_store(&((struct ping *)task)->ran, 1);
}

static void *ping_many(void *arg)
{
    struct ping ping = { .task.run = pong };

    for (int i = 0; i < PINGS; i++) {
        uint64_t limit = by_clock() + 20000000000ull;

        atomic_store(&ping.ran, 0);
        by_loop_post(arg, &ping.task);
        for (int spins = 0; !atomic_load(&ping.ran); spins++) {
            if (spins > 200) {
                usleep(1);
                CHECK(by_clock() < limit);
            }
        }
        for (volatile int pause = i * 7 % 4000; pause > 0; pause--) {
            continue;
        }
    }
    return NULL;
}

static void test_no_lost_wake(void)
{
    struct by_loop_params never = { .poll_max_ns = 0 };
    pthread_t threads[2];

    by_loop_set_params(loop, &never);
    for (int i = 0; i < 2; i++) {
        pthread_create(&threads[i], NULL, ping_many, loop);
    }
    for (int i = 0; i < 2; i++) {
        pthread_join(threads[i], NULL);
    }
}

/* Deferred tasks run at the end of the round, in order, and those that they
 * defer too, before a task posted meanwhile. */
static struct by_task first, second, third, posted;
static int order;

static void run_posted(struct by_task *task)
{
    (void)task;
    CHECK_EQ(order++, 3);
    by_event_done(CHECK_TAG, 0);
}

static void run_third(struct by_task *task)
{
    (void)task;
    CHECK_EQ(order++, 2);
}

static void run_second(struct by_task *task)
{
    (void)task;
    CHECK_EQ(order++, 1);
}

static void run_first(struct by_task *task)
{
    (void)task;
    CHECK_EQ(order++, 0);
    third.run = run_third;
    by_loop_defer(loop, &third);
}

static void defer_some(struct by_loop *on)
{
    posted.run = run_posted;
    by_loop_post(on, &posted);
    first.run = run_first;
    second.run = run_second;
    by_loop_defer(on, &first);
    by_loop_defer(on, &second);
}

int main(int argc, char **argv)
{
    check_start(argc, argv);
    loop = check_loop();
    CHECK(!check_is_epoll(argc, argv) || !by_loop_has_ring(loop));
    CHECK(!by_loop_current());
    test_nothing_lost();
    CHECK_EQ(check_on(loop, defer_some), 0);
    test_no_lost_wake();
    check_destroy(loop);
    by_stop();
    return 0;
}
