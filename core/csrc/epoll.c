/* SPDX-License-Identifier: Apache-2.0 */
/*
 * epoll.c - the backend where io_uring is refused: readiness from epoll, and
 * the worker pool for files, which are always "ready" and always block.
 *
 * An io is first tried when the round ends; what would block waits on its
 * descriptor.  Registrations are one-shot and armed anew for every wait, so a
 * descriptor number that was closed and used again needs no notice.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "epoll.h"

enum { EVENTS_MAX = 128 };
#define WAKE_DATA UINT64_MAX

/* What waits on one descriptor. */
struct watch {
    struct by_io_list waiting;
    uint32_t armed;           /* while something waits: at least its events */
};

struct poll_set {
    int fd;
    bool no_pwait2;
    struct by_io_list pending;    /* submitted, not yet tried */
    struct watch *watches;        /* by descriptor */
    int nwatches;
    int nevents;                  /* taken by ready(), not yet handled */
    struct epoll_event events[EVENTS_MAX];
};

static int epoll_setup(struct by_loop *loop)
{
    struct epoll_event event = { .events = EPOLLIN | EPOLLET,
                                 .data.u64 = WAKE_DATA };
    struct poll_set *set = calloc(1, sizeof(*set));
    int error;

    if (!set) {
        return -ENOMEM;
    }
    set->fd = epoll_create1(EPOLL_CLOEXEC);
    if (set->fd < 0
        || epoll_ctl(set->fd, EPOLL_CTL_ADD, loop->wake_fd, &event) < 0) {
        error = -errno;
        if (set->fd >= 0) {
            close(set->fd);
        }
        free(set);
        return error;
    }
    loop->impl = set;
    return 0;
}

static void epoll_teardown(struct by_loop *loop)
{
    struct poll_set *set = loop->impl;

    close(set->fd);
    free(set->watches);
    free(set);
    loop->impl = NULL;
}

/* --------------------------------------------------------------- waiting */

static struct watch *watch_of(struct poll_set *set, int fd)
{
    if (fd >= set->nwatches) {
        int n = (fd | 63) + 1;
        struct watch *watches = realloc(set->watches,
                                        (size_t)n * sizeof(*watches));
        if (!watches) {
            return NULL;
        }
        memset(watches + set->nwatches, 0,
               (size_t)(n - set->nwatches) * sizeof(*watches));
        set->watches = watches;
        set->nwatches = n;
    }
    return &set->watches[fd];
}

static uint32_t wanted(const struct watch *watch)
{
    uint32_t events = 0;

    for (struct by_io *io = watch->waiting.head; io; io = by_links(io)->next) {
        events |= by_tryio_events(io);
    }
    return events;
}

static int arm(struct poll_set *set, int fd, uint32_t events)
{
    struct epoll_event event = { .events = events | EPOLLONESHOT,
                                 .data.u64 = (uint64_t)fd };

    set->watches[fd].armed = events;
    if (epoll_ctl(set->fd, EPOLL_CTL_MOD, fd, &event) == 0) {
        return 0;
    }
    if (errno == ENOENT
        && epoll_ctl(set->fd, EPOLL_CTL_ADD, fd, &event) == 0) {
        return 0;
    }
    return -errno;
}

static void wait_for(struct by_loop *loop, struct poll_set *set,
                     struct by_io *io)
{
    struct watch *watch = watch_of(set, io->fd);
    uint32_t events;
    int error;

    if (!watch) {
        by_io_ready(loop, io, -ENOMEM);
        return;
    }
    events = by_tryio_events(io);
    if (watch->waiting.head) {
        events |= watch->armed;
    }
    error = watch->waiting.head && events == watch->armed
        ? 0 : arm(set, io->fd, events);
    BY_IO_STATE(io) = IO_WAITING;
    by_list_append(&watch->waiting, io);
    if (error) {
        by_list_remove(&watch->waiting, io);
        if (error == -EPERM && io->op == BY_IO_POLL) {
            /* A file: poll(2) calls it always ready. */
            error = (int)(io->flags & (POLLIN | POLLOUT));
        }
        by_io_ready(loop, io, error);
    }
}

static void try_now(struct by_loop *loop, struct poll_set *set,
                    struct by_io *io)
{
    int result = by_tryio(loop, io);

    if (result == BY_TRY_WAIT) {
        wait_for(loop, set, io);
    } else if (result != BY_TRY_POOLED) {
        by_io_ready(loop, io, result);
    }
}

/* Only those submitted before: what they lead to gets its turn later. */
static void try_pending(struct by_loop *loop, struct poll_set *set)
{
    struct by_io *io;

    while ((io = set->pending.head)) {
        by_list_remove(&set->pending, io);
        try_now(loop, set, io);
    }
}

static void fd_ready(struct by_loop *loop, struct poll_set *set, int fd,
                     uint32_t events)
{
    struct watch *watch = &set->watches[fd];
    struct by_io_list list = watch->waiting;
    struct by_io *io, *next;
    const uint32_t broken = EPOLLERR | EPOLLHUP;

    watch->waiting = (struct by_io_list){ NULL, NULL };
    watch->armed = 0;         /* one-shot: it has fired */
    for (io = list.head; io; io = next) {
        uint32_t mine = events & (by_tryio_events(io) | broken);

        next = by_links(io)->next;
        if (!mine) {
            by_list_append(&watch->waiting, io);
        } else if (io->op == BY_IO_POLL) {
            by_io_ready(loop, io, (int)mine);
        } else {
            try_now(loop, set, io);
        }
    }
    if (watch->waiting.head) {
        arm(set, fd, wanted(watch));
    }
}

static void handle_events(struct by_loop *loop, struct poll_set *set)
{
    int n = set->nevents;

    set->nevents = 0;
    for (int i = 0; i < n; i++) {
        if (set->events[i].data.u64 != WAKE_DATA) {
            fd_ready(loop, set, (int)set->events[i].data.u64,
                     set->events[i].events);
        }
    }
}

/* -------------------------------------------------------------- the loop */

static void epoll_submit(struct by_loop *loop, struct by_io *io)
{
    struct poll_set *set = loop->impl;

    BY_IO_STATE(io) = IO_BACKLOG;
    by_tryio_mark(io, false);
    by_list_append(&set->pending, io);
}

static void epoll_cancel(struct by_loop *loop, struct by_io *io)
{
    struct poll_set *set = loop->impl;

    if (BY_IO_STATE(io) == IO_BACKLOG) {
        by_list_remove(&set->pending, io);
        by_io_ready(loop, io, -ECANCELED);
    } else if (BY_IO_STATE(io) == IO_WAITING) {
        by_list_remove(&set->watches[io->fd].waiting, io);
        by_io_ready(loop, io, -ECANCELED);
    } else {
        by_tryio_mark(io, true);   /* heeded until a worker begins it */
    }
}

static void epoll_cancel_all(struct by_loop *loop)
{
    struct poll_set *set = loop->impl;

    while (set->pending.head) {
        epoll_cancel(loop, set->pending.head);
    }
    for (int fd = 0; fd < set->nwatches; fd++) {
        while (set->watches[fd].waiting.head) {
            epoll_cancel(loop, set->watches[fd].waiting.head);
        }
    }
}

static void wait_ms(struct poll_set *set, uint64_t timeout)
{
    int ms = timeout >= 1000000ull * INT32_MAX
        ? -1 : (int)((timeout + 999999) / 1000000);

    set->nevents = epoll_wait(set->fd, set->events, EVENTS_MAX, ms);
}

static void wait_ns(struct poll_set *set, uint64_t timeout)
{
    struct timespec ts = { (time_t)(timeout / 1000000000),
                           (long)(timeout % 1000000000) };

    set->nevents = (int)syscall(__NR_epoll_pwait2, set->fd, set->events,
                                EVENTS_MAX,
                                timeout == BY_NEVER ? NULL : &ts, NULL, 0);
    if (set->nevents < 0 && (errno == ENOSYS || errno == EPERM)) {
        set->no_pwait2 = true;   /* a container's profile */
    }
}

static void wait_events(struct poll_set *set, uint64_t timeout)
{
    if (timeout && timeout != BY_NEVER && !set->no_pwait2) {
        wait_ns(set, timeout);
        if (set->nevents >= 0 || !set->no_pwait2) {
            goto out;
        }
    }
    wait_ms(set, timeout);
out:
    if (set->nevents < 0) {
        set->nevents = 0;   /* EINTR */
    }
}

static bool epoll_ready(struct by_loop *loop)
{
    struct poll_set *set = loop->impl;

    if (set->pending.head || loop->ready.head || set->nevents) {
        return true;
    }
    wait_events(set, 0);
    return set->nevents > 0;
}

static void epoll_enter(struct by_loop *loop, uint64_t timeout)
{
    struct poll_set *set = loop->impl;

    try_pending(loop, set);
    by_pool_flush(loop);   /* trying may have handed files to the pool */
    if (!set->nevents) {
        wait_events(set, loop->ready.head ? 0 : timeout);
    }
    handle_events(loop, set);
}

static unsigned epoll_reap(struct by_loop *loop)
{
    (void)loop;
    return 0;   /* completions go through the loop's ready list */
}

const struct by_backend by_epoll_backend = {
    .setup = epoll_setup,
    .teardown = epoll_teardown,
    .submit = epoll_submit,
    .cancel = epoll_cancel,
    .cancel_all = epoll_cancel_all,
    .enter = epoll_enter,
    .reap = epoll_reap,
    .ready = epoll_ready,
};
