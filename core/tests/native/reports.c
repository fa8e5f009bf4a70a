/* SPDX-License-Identifier: Apache-2.0 */
/*
 * reports.c - events and traces: none lost, the descriptor readable exactly
 * while events wait, names switched by pattern; quiescent points.
 */
#include "check.h"

#include <pthread.h>

enum { SENDERS = 4, EACH = 30000, LOOPS = 5, TRACE_TAG = 90 };

static bool readable(void)
{
    struct pollfd pfd = { .fd = by_event_fd(), .events = POLLIN };

    return poll(&pfd, 1, 0) == 1;
}

static void *send_many(void *arg)
{
    for (uint64_t i = 0; i < EACH; i++) {
        by_event_push(&(struct by_event){ .tag = (uintptr_t)arg, .a = i });
    }
    return NULL;
}

static void test_events(void)
{
    pthread_t threads[SENDERS];
    uint64_t next[SENDERS + 1] = { 0 };
    struct by_event taken[100];
    int total = 0;

    CHECK(!readable());
    for (uintptr_t i = 0; i < SENDERS; i++) {
        pthread_create(&threads[i], NULL, send_many, (void *)(i + 1));
    }
    while (total < SENDERS * EACH) {
        struct pollfd pfd = { .fd = by_event_fd(), .events = POLLIN };
        int n;

        CHECK(poll(&pfd, 1, 30000) == 1);
        n = by_event_take(taken, total % 7 ? 100 : 3);
        CHECK(n > 0);
        for (int i = 0; i < n; i++) {
            CHECK_EQ(taken[i].a, next[taken[i].tag]++);
        }
        total += n;
    }
    for (int i = 0; i < SENDERS; i++) {
        pthread_join(threads[i], NULL);
    }
    CHECK(!readable());
    CHECK_EQ(by_event_take(taken, 100), 0);
}

static void test_part_taken(void)
{
    struct by_event taken[2];

    by_event_done(5, 0);
    by_event_done(0, 0);   /* nobody's */
    by_event_done(6, -EIO);
    CHECK_EQ(by_event_take(taken, 1), 1);
    CHECK(readable());
    CHECK_EQ(by_event_take(taken, 2), 1);
    CHECK_EQ(taken[0].tag, 6);
    CHECK_EQ(taken[0].result, -EIO);
    CHECK(!readable());
}

static void test_trace(void)
{
    char lines[1000];
    int n;

    by_trace_register("t_begin");
    by_trace_register("t_end");
    by_trace_event(TRACE_TAG);
    CHECK(!by_trace_on("t_begin"));
    CHECK_EQ(by_trace_set("t_*", true), 2);
    CHECK(by_trace_on("t_begin"));
    CHECK(by_trace_on("t_later"));       /* the pattern is remembered */
    CHECK(!by_trace_on("other"));
    CHECK_EQ(by_trace_set("t_end", false), 1);
    CHECK(!by_trace_on("t_end"));
    by_trace("t_begin", "number %d", 42);
    by_trace("t_begin", "%0600d", 1);    /* cut, still one line */
    CHECK_EQ(check_await(TRACE_TAG), 0);
    n = by_trace_take(lines, 100);
    CHECK(n > 20 && lines[n - 1] == '\n');
    lines[n] = 0;
    CHECK(strstr(lines, " t_begin number 42\n"));
    n = by_trace_take(lines, sizeof(lines));
    CHECK(n > 400 && lines[n - 1] == '\n');
    CHECK_EQ(by_trace_take(lines, sizeof(lines)), 0);
    for (int i = 0; by_trace_name(i); i++) {
        CHECK_EQ(by_trace_state(i), !strcmp(by_trace_name(i), "t_begin")
                                    || !strcmp(by_trace_name(i), "t_later"));
    }
    CHECK(!by_trace_name(1000) && !by_trace_name(-1));
    CHECK(by_trace_set("*", false) >= 4);
    CHECK(!by_trace_on("t_begin"));
}

/* A loop busy in a callback has not passed until it returns. */
static _Atomic bool inside, leave;

static void stay(struct by_task *task)
{
    (void)task;
    atomic_store(&inside, true);
    while (!atomic_load(&leave)) {
        usleep(100);
    }
}

static void count_loop(struct by_loop *loop, void *arg)
{
    CHECK(by_loop_index(loop) < BY_MAX_LOOPS);
    ++*(int *)arg;
}

static void test_synchronise(void)
{
    struct by_loop *loops[LOOPS];
    struct by_task task = { .run = stay };
    int count = 0;

    by_synchronise(11);                  /* without loops: at once */
    CHECK_EQ(check_await(11), 0);
    for (int i = 0; i < LOOPS; i++) {
        loops[i] = check_loop();
        CHECK(by_loop_at(by_loop_index(loops[i])) == loops[i]);
        CHECK(by_loop_thread_id(loops[i]) > 0);
    }
    by_loop_each(count_loop, &count);
    CHECK_EQ(count, LOOPS);
    CHECK_EQ(by_loop_count(), LOOPS);
    by_loop_post(loops[2], &task);
    while (!atomic_load(&inside)) {
        usleep(100);
    }
    by_synchronise(12);
    usleep(20000);
    CHECK(!readable());
    atomic_store(&leave, true);
    CHECK_EQ(check_await(12), 0);
    for (int i = 0; i < LOOPS; i++) {
        check_destroy(loops[i]);
    }
    CHECK_EQ(by_loop_count(), 0);
}

int main(int argc, char **argv)
{
    check_start(argc, argv);
    CHECK_EQ(by_start(0), 0);            /* a second start does nothing */
    test_part_taken();
    test_events();
    test_trace();
    test_synchronise();
    by_stop();
    by_stop();
    check_start(argc, argv);             /* and again */
    check_destroy(check_loop());
    by_stop();
    return 0;
}
