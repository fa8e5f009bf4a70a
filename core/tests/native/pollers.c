/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pollers.c - tenants without descriptors: work in shared memory is found on
 * every round and while spinning; before the loop sleeps each poller's end
 * gets the last word, so that nothing left in between is missed.
 */
#include "check.h"

#include <pthread.h>
#include <sys/eventfd.h>

enum { ITEMS = 30000 };

static struct by_loop *loop;

/* A ring of one number, and a kick that is sent unless it is suppressed. */
static _Atomic long offered;
static _Atomic bool suppressed;
static long taken;
static int kick;
static unsigned begins, ends;

static bool take(struct by_poller *poller)
{
    long now = atomic_load(&offered);

    (void)poller;
    if (now == taken) {
        return false;
    }
    taken = now;
    if (taken == ITEMS) {
        by_event_done(CHECK_TAG, 0);
    }
    return true;
}

static void begin(struct by_poller *poller)
{
    (void)poller;
    begins++;
    CHECK_EQ(begins, ends + 1);
    atomic_store(&suppressed, true);
}

static bool end(struct by_poller *poller)
{
    ends++;
    CHECK_EQ(begins, ends);
    atomic_store(&suppressed, false);
    return take(poller);
}

static struct by_poller poller = { .poll = take, .begin = begin, .end = end };
static struct by_io wait_kick;
static uint64_t kicks;
static struct iovec vector = { &kicks, sizeof(kicks) };

static void kicked(struct by_io *io, int result)
{
    if (result == -ECANCELED) {
        by_event_done(CHECK_TAG, 0);
        return;
    }
    CHECK_EQ(result, 8);
    take(&poller);
    by_io_submit(loop, io);
}

static void start(struct by_loop *on)
{
    by_poller_add(on, &poller);
    wait_kick.op = BY_IO_READV;
    wait_kick.fd = kick;
    wait_kick.iov = &vector;
    wait_kick.niov = 1;
    wait_kick.done = kicked;
    by_io_submit(on, &wait_kick);
}

static void finish(struct by_loop *on)
{
    by_poller_remove(on, &poller);
    by_poller_remove(on, &poller);   /* no longer there: nothing happens */
    by_io_cancel(on, &wait_kick);
}

static void *offer(void *arg)
{
    const uint64_t one = 1;

    for (long i = 1; i <= ITEMS; i++) {
        atomic_store(&offered, i);
        if (!atomic_load(&suppressed)) {
            CHECK(write(kick, &one, 8) == 8);
        }
        if (i % 1000 == 0) {
            usleep(300);
        }
        for (volatile int k = i % 3000; k > 0; k--) {
            continue;
        }
    }
    return arg;
}

int main(int argc, char **argv)
{
    pthread_t thread;
    struct check_call call = { .task.run = check_run_call, .fn = start };

    kick = eventfd(0, 0);
    check_start(argc, argv);
    loop = check_loop();
    by_loop_post(loop, &call.task);
    pthread_create(&thread, NULL, offer, NULL);
    CHECK_EQ(check_await(CHECK_TAG), 0);
    pthread_join(thread, NULL);
    CHECK_EQ(check_on(loop, finish), 0);
    check_destroy(loop);
    by_stop();
    return 0;
}
