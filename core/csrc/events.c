/* SPDX-License-Identifier: Apache-2.0 */
/*
 * events.c - what C tells Python: one queue for the process and an eventfd
 * that is readable while the queue is not empty.  A burst of events costs one
 * write; Python takes them in batches.
 *
 * The queue doubles as it fills.  Completions are never dropped: each was
 * asked for by Python, which bounds them.  Should memory run out, the poster
 * waits for Python to take some.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "loop_private.h"

static struct {
    pthread_mutex_t lock;
    struct by_event *ring;
    uint32_t size;          /* a power of two */
    uint32_t head, count;
    bool signalled;         /* fd is readable */
    int fd;
} queue = { .lock = PTHREAD_MUTEX_INITIALIZER, .fd = -1 };

int by_events_start(void)
{
    int error = 0;

    pthread_mutex_lock(&queue.lock);
    if (queue.fd < 0) {
        queue.fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        error = queue.fd < 0 ? -errno : 0;
        queue.signalled = false;
    }
    pthread_mutex_unlock(&queue.lock);
    return error;
}

/* Events of loops that ended late are dropped with the queue. */
void by_events_stop(void)
{
    pthread_mutex_lock(&queue.lock);
    if (queue.fd >= 0) {
        close(queue.fd);
    }
    queue.fd = -1;
    free(queue.ring);
    queue.ring = NULL;
    queue.size = queue.head = queue.count = 0;
    pthread_mutex_unlock(&queue.lock);
}

int by_event_fd(void)
{
    int fd;

    pthread_mutex_lock(&queue.lock);
    fd = queue.fd;
    pthread_mutex_unlock(&queue.lock);
    return fd;
}

static bool grow(void)
{
    uint32_t size = queue.size ? queue.size * 2 : 256;
    struct by_event *ring = size ? malloc(size * sizeof(*ring)) : NULL;

    if (!ring) {
        return false;
    }
    for (uint32_t i = 0; i < queue.count; i++) {
        ring[i] = queue.ring[(queue.head + i) & (queue.size - 1)];
    }
    free(queue.ring);
    queue.ring = ring;
    queue.size = size;
    queue.head = 0;
    return true;
}

static void signal_taker(void)
{
    uint64_t one = 1;

    if (!queue.signalled) {
        queue.signalled = true;
        while (write(queue.fd, &one, sizeof(one)) < 0 && errno == EINTR) {
            continue;
        }
    }
}

void by_event_push(const struct by_event *event)
{
    pthread_mutex_lock(&queue.lock);
    while (queue.fd >= 0 && queue.count == queue.size && !grow()) {
        pthread_mutex_unlock(&queue.lock);
        usleep(1000);
        pthread_mutex_lock(&queue.lock);
    }
    if (queue.fd >= 0) {
        queue.ring[(queue.head + queue.count) & (queue.size - 1)] = *event;
        queue.count++;
        signal_taker();
    }
    pthread_mutex_unlock(&queue.lock);
}

void by_event_done(uint64_t tag, int result)
{
    if (tag) {
        by_event_push(&(struct by_event){
            .tag = tag, .kind = BY_EVENT_DONE, .result = result });
    }
}

int by_event_take(struct by_event *out, int max)
{
    uint64_t value;
    int n = 0;

    pthread_mutex_lock(&queue.lock);
    while (n < max && queue.count) {
        out[n++] = queue.ring[queue.head];
        queue.head = (queue.head + 1) & (queue.size - 1);
        queue.count--;
    }
    if (!queue.count && queue.signalled) {
        queue.signalled = false;
        while (read(queue.fd, &value, sizeof(value)) < 0 && errno == EINTR) {
            continue;
        }
    }
    pthread_mutex_unlock(&queue.lock);
    return n;
}
