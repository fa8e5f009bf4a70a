/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ring.c - the io_uring backend, through raw system calls.
 *
 * The ring is created by the loop's own thread (IORING_SETUP_SINGLE_ISSUER),
 * defers task work to our calls (DEFER_TASKRUN) and shows in a flag that some
 * is due (TASKRUN_FLAG), so that spinning needs no system call.  It is the
 * loop's only wait point: posts arrive through an eventfd with a multishot
 * poll, timers are the limit of the wait.
 *
 * No more is given to the kernel than the completion queue holds; the rest
 * waits in a backlog, so completions never overflow into kernel memory.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/io_uring.h>
#include <linux/time_types.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "ring.h"

enum { SQ_ENTRIES = 256, CQ_ENTRIES = 2048 };

/* user_data: an io's address, or one of these. */
enum { DATA_WAKE = 1, DATA_CANCEL = 2 };

static int ring_setup_call(struct io_uring_params *params)
{
    static const unsigned wanted[] = {
        IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN
            | IORING_SETUP_TASKRUN_FLAG,
        IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG,
        0
    };
    int fd = -1;

    for (unsigned i = 0; i < sizeof(wanted) / sizeof(*wanted); i++) {
        memset(params, 0, sizeof(*params));
        params->flags = wanted[i] | IORING_SETUP_CQSIZE
            | IORING_SETUP_SUBMIT_ALL | IORING_SETUP_SQE128;
        params->cq_entries = CQ_ENTRIES;
        fd = (int)syscall(__NR_io_uring_setup, SQ_ENTRIES, params);
        if (fd >= 0 || errno != EINVAL) {
            break;
        }
    }
    return fd < 0 ? -errno : fd;
}

static void *map(int fd, size_t bytes, uint64_t what)
{
    void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                    MAP_SHARED | MAP_POPULATE, fd, (off_t)what);

    return at == MAP_FAILED ? NULL : at;
}

static void point_into(struct ring *ring, const struct io_uring_params *p)
{
    char *sq = ring->rings, *cq = ring->rings;
    unsigned *array = (unsigned *)(sq + p->sq_off.array);

    ring->sq_head = (_Atomic unsigned *)(sq + p->sq_off.head);
    ring->sq_tail = (_Atomic unsigned *)(sq + p->sq_off.tail);
    ring->sq_flags = (_Atomic unsigned *)(sq + p->sq_off.flags);
    ring->sq_mask = *(unsigned *)(sq + p->sq_off.ring_mask);
    ring->cq_head = (_Atomic unsigned *)(cq + p->cq_off.head);
    ring->cq_tail = (_Atomic unsigned *)(cq + p->cq_off.tail);
    ring->cq_mask = *(unsigned *)(cq + p->cq_off.ring_mask);
    ring->cqes = (struct io_uring_cqe *)(cq + p->cq_off.cqes);
    ring->tail = atomic_load(ring->sq_tail);
    ring->head = atomic_load(ring->cq_head);
    for (unsigned i = 0; i <= ring->sq_mask; i++) {
        array[i] = i;   /* entry i is always slot i */
    }
}

static int map_ring(struct ring *ring, const struct io_uring_params *p)
{
    size_t sq = p->sq_off.array + p->sq_entries * sizeof(unsigned);
    size_t cq = p->cq_off.cqes + p->cq_entries * sizeof(struct io_uring_cqe);

    ring->rings_bytes = sq > cq ? sq : cq;
    ring->sqes_bytes = p->sq_entries * (size_t)SQE_BYTES;
    ring->rings = map(ring->fd, ring->rings_bytes, IORING_OFF_SQ_RING);
    ring->sqes = map(ring->fd, ring->sqes_bytes, IORING_OFF_SQES);
    if (!ring->rings || !ring->sqes) {
        return -ENOMEM;
    }
    point_into(ring, p);
    return 0;
}

static void ring_free(struct ring *ring)
{
    if (ring->rings) {
        munmap(ring->rings, ring->rings_bytes);
    }
    if (ring->sqes) {
        munmap(ring->sqes, ring->sqes_bytes);
    }
    if (ring->fd >= 0) {
        close(ring->fd);
    }
    free(ring);
}

/* Saves the lookup of the descriptor in every call; not vital. */
static void register_fd(struct ring *ring)
{
    struct io_uring_rsrc_update update = { .offset = -1U,
                                           .data = (unsigned)ring->fd };

    ring->enter_fd = ring->fd;
    if (syscall(__NR_io_uring_register, ring->fd, IORING_REGISTER_RING_FDS,
                &update, 1) == 1) {
        ring->enter_fd = (int)update.offset;
        ring->enter_flags = IORING_ENTER_REGISTERED_RING;
    }
}

static int ring_setup(struct by_loop *loop)
{
    struct io_uring_params params;
    struct ring *ring = calloc(1, sizeof(*ring));
    int error;

    if (!ring) {
        return -ENOMEM;
    }
    ring->fd = ring_setup_call(&params);
    error = ring->fd < 0 ? ring->fd : map_ring(ring, &params);
    /* Linux 5.4 to 5.10 have rings without what is used here. */
    if (!error && (~params.features & (IORING_FEAT_SINGLE_MMAP
                   | IORING_FEAT_NODROP | IORING_FEAT_EXT_ARG))) {
        error = -ENOSYS;
    }
    if (error) {
        ring_free(ring);
        return error;
    }
    register_fd(ring);
    ring->rearm_wake = true;
    loop->impl = ring;
    return 0;
}

static void ring_teardown(struct by_loop *loop)
{
    ring_free(loop->impl);
    loop->impl = NULL;
}

/* ------------------------------------------------------------ submission */

static unsigned queued(const struct ring *ring)
{
    return ring->tail - atomic_load_explicit(ring->sq_head,
                                             memory_order_acquire);
}

/* Null when the submission queue is full. */
static struct io_uring_sqe *next_sqe(struct ring *ring, uint64_t data)
{
    struct io_uring_sqe *sqe;

    if (queued(ring) > ring->sq_mask) {
        return NULL;
    }
    sqe = (struct io_uring_sqe *)(ring->sqes
                                  + (ring->tail & ring->sq_mask) * SQE_BYTES);
    ring->tail++;
    memset(sqe, 0, sizeof(*sqe));
    sqe->user_data = data;
    return sqe;
}

static int enter_call(struct ring *ring, unsigned submit, unsigned wait,
                      unsigned flags, uint64_t timeout)
{
    struct __kernel_timespec ts = { (int64_t)(timeout / 1000000000),
                                    (long long)(timeout % 1000000000) };
    struct io_uring_getevents_arg arg = { .ts = (uint64_t)(uintptr_t)&ts };
    bool limited = wait && timeout != BY_NEVER;
    long n;

    if (limited) {
        flags |= IORING_ENTER_EXT_ARG;
    }
    n = syscall(__NR_io_uring_enter, ring->enter_fd, submit, wait,
                flags | ring->enter_flags, limited ? (void *)&arg : NULL,
                limited ? sizeof(arg) : _NSIG / 8);
    return n < 0 ? -errno : (int)n;
}

/* Publish the tail and call the kernel once. */
static int flush(struct ring *ring, unsigned wait, unsigned flags,
                 uint64_t timeout)
{
    atomic_store_explicit(ring->sq_tail, ring->tail, memory_order_release);
    return enter_call(ring, queued(ring), wait, flags, timeout);
}

/* Place io in the ring; false when there is no room now. */
static bool place(struct by_loop *loop, struct ring *ring, struct by_io *io)
{
    struct io_uring_sqe *sqe;

    if (ring->in_kernel >= CQ_ENTRIES - SQ_ENTRIES) {
        return false;
    }
    sqe = next_sqe(ring, (uint64_t)(uintptr_t)io);
    if (!sqe) {
        return false;
    }
    by_ring_fill(sqe, io);
    BY_IO_STATE(io) = IO_SUBMITTED;
    ring->in_kernel++;
    (void)loop;
    return true;
}

static void ring_submit_at(struct by_loop *loop, uint32_t batch)
{
    struct ring *ring = loop->impl;

    if (queued(ring) >= batch) {
        flush(ring, 0, 0, 0);
    }
}

static void ring_submit(struct by_loop *loop, struct by_io *io)
{
    struct ring *ring = loop->impl;
    int64_t batch;

    BY_IO_MARK(io) = 0;
    if (ring->backlog.head || !place(loop, ring, io)) {
        BY_IO_STATE(io) = IO_BACKLOG;
        by_list_append(&ring->backlog, io);
        return;
    }
    batch = atomic_load_explicit(&loop->aio_max_batch, memory_order_relaxed);
    if (batch > 0 && batch <= SQ_ENTRIES) {
        ring_submit_at(loop, (uint32_t)batch);
    }
}

static bool place_cancel(struct ring *ring, struct by_io *io)
{
    struct io_uring_sqe *sqe = next_sqe(ring, DATA_CANCEL);

    if (!sqe) {
        return false;
    }
    sqe->opcode = IORING_OP_ASYNC_CANCEL;
    sqe->fd = -1;
    sqe->addr = (uint64_t)(uintptr_t)io;
    return true;
}

/* Cancels stay ahead of later submissions: an io that completed, and is
 * submitted again before its old cancel is seen, is not hit by it. */
static void ring_cancel(struct by_loop *loop, struct by_io *io)
{
    struct ring *ring = loop->impl;

    if (BY_IO_STATE(io) == IO_BACKLOG) {
        by_list_remove(&ring->backlog, io);
        by_io_ready(loop, io, -ECANCELED);
    } else if (!(BY_IO_MARK(io) & MARK_CANCEL)) {
        BY_IO_MARK(io) |= MARK_CANCEL;
        if (ring->cancels.head || !place_cancel(ring, io)) {
            BY_IO_MARK(io) |= MARK_CANCEL_WAITS;
            by_list_append(&ring->cancels, io);
        }
    }
}

static void ring_cancel_all(struct by_loop *loop)
{
    struct ring *ring = loop->impl;
    struct io_uring_sqe *sqe;

    while (ring->backlog.head) {
        ring_cancel(loop, ring->backlog.head);
    }
    sqe = next_sqe(ring, DATA_CANCEL);
    if (sqe) {
        sqe->opcode = IORING_OP_ASYNC_CANCEL;
        sqe->fd = -1;
        sqe->cancel_flags = IORING_ASYNC_CANCEL_ANY | IORING_ASYNC_CANCEL_ALL;
    }
}

static void place_wake(struct by_loop *loop, struct ring *ring)
{
    struct io_uring_sqe *sqe = next_sqe(ring, DATA_WAKE);

    if (sqe) {
        sqe->opcode = IORING_OP_POLL_ADD;
        sqe->fd = loop->wake_fd;
        sqe->poll32_events = POLLIN;
        sqe->len = IORING_POLL_ADD_MULTI;
        ring->rearm_wake = false;
    }
}

/* Fill the ring with what waited for room in it. */
static void place_waiting(struct by_loop *loop, struct ring *ring)
{
    struct by_io *io;

    if (ring->rearm_wake) {
        place_wake(loop, ring);
    }
    while ((io = ring->cancels.head) && place_cancel(ring, io)) {
        by_list_remove(&ring->cancels, io);
        BY_IO_MARK(io) &= (uint8_t)~MARK_CANCEL_WAITS;
    }
    while (!ring->cancels.head && (io = ring->backlog.head)) {
        by_list_remove(&ring->backlog, io);
        if (!place(loop, ring, io)) {
            by_list_prepend(&ring->backlog, io);
            break;
        }
    }
}

static bool ring_has_completions(const struct ring *ring)
{
    return ring->head != atomic_load_explicit(ring->cq_tail,
                                              memory_order_acquire);
}

static bool ring_ready(struct by_loop *loop)
{
    const struct ring *ring = loop->impl;

    return ring_has_completions(ring)
        || (atomic_load_explicit(ring->sq_flags, memory_order_relaxed)
            & (IORING_SQ_TASKRUN | IORING_SQ_CQ_OVERFLOW));
}

/*
 * One system call in the usual case, none when there is nothing to submit
 * and nothing to wait for.  A backlog, or want of room for the poll that wakes
 * the loop, makes it several: each empties the submission queue.
 */
static void ring_enter(struct by_loop *loop, uint64_t timeout)
{
    struct ring *ring = loop->impl;
    unsigned wait;
    int n;

    place_waiting(loop, ring);
    while ((ring->rearm_wake || ring->backlog.head || ring->cancels.head)
           && queued(ring) > ring->sq_mask) {
        if (flush(ring, 0, IORING_ENTER_GETEVENTS, 0) < 0) {
            break;
        }
        place_waiting(loop, ring);
    }
    wait = timeout && !ring_has_completions(ring);
    if (!wait && ring->tail == atomic_load(ring->sq_head)
        && !(atomic_load(ring->sq_flags)
             & (IORING_SQ_TASKRUN | IORING_SQ_CQ_OVERFLOW))) {
        return;
    }
    n = flush(ring, wait, IORING_ENTER_GETEVENTS, timeout);
    if (n == -EAGAIN || n == -EBUSY) {
        /* The kernel is short of memory; take what is done, then retry. */
        enter_call(ring, 0, wait && timeout > 1000000, IORING_ENTER_GETEVENTS,
                   1000000);
    }
}

/* ------------------------------------------------------------ completion */

/* The descriptor is non-blocking and not ready: wait for it, then repeat.
 * Not for files, which are always "ready": some file systems refuse to try
 * without blocking when the file is open with O_NONBLOCK. */
static bool must_wait(struct by_io *io, int result)
{
    if (result != -EAGAIN || (BY_IO_MARK(io) & MARK_CANCEL)) {
        return false;
    }
    switch (io->op) {
    case BY_IO_RECVMSG:
    case BY_IO_SENDMSG:
        return !(io->flags & MSG_DONTWAIT);
    case BY_IO_READV:
    case BY_IO_WRITEV:
        return !(io->flags & RWF_NOWAIT) && !by_is_file(io->fd);
    default:
        return false;
    }
}

static void resubmit(struct by_loop *loop, struct ring *ring,
                     struct by_io *io, uint8_t mark)
{
    BY_IO_MARK(io) = mark;
    if (ring->backlog.head || !place(loop, ring, io)) {
        BY_IO_STATE(io) = IO_BACKLOG;
        by_list_append(&ring->backlog, io);
    }
}

static void complete(struct by_loop *loop, struct ring *ring,
                     struct by_io *io, int result)
{
    bool polled = BY_IO_MARK(io) & MARK_POLL;

    ring->in_kernel--;
    if (BY_IO_MARK(io) & MARK_CANCEL_WAITS) {
        by_list_remove(&ring->cancels, io);
    }
    if (polled && result >= 0 && !(BY_IO_MARK(io) & MARK_CANCEL)) {
        resubmit(loop, ring, io, 0);
    } else if (polled && result >= 0) {
        by_io_finish(loop, io, -ECANCELED);
    } else if (must_wait(io, result)) {
        resubmit(loop, ring, io, MARK_POLL);
    } else {
        if (result == -EINTR && (BY_IO_MARK(io) & MARK_CANCEL)) {
            result = -ECANCELED;   /* interrupted in a kernel worker */
        }
        by_io_finish(loop, io, result);
    }
}

static unsigned ring_reap(struct by_loop *loop)
{
    struct ring *ring = loop->impl;
    unsigned tail, count = 0;

    if (!ring_has_completions(ring) && ring_ready(loop)) {
        flush(ring, 0, IORING_ENTER_GETEVENTS, 0);   /* run task work */
    }
    tail = atomic_load_explicit(ring->cq_tail, memory_order_acquire);

    while (ring->head != tail) {
        struct io_uring_cqe *cqe = &ring->cqes[ring->head & ring->cq_mask];
        uint64_t data = cqe->user_data;
        int result = cqe->res;
        bool more = cqe->flags & IORING_CQE_F_MORE;

        ring->head++;
        atomic_store_explicit(ring->cq_head, ring->head,
                              memory_order_release);
        if (data > DATA_CANCEL) {
            complete(loop, ring, (struct by_io *)(uintptr_t)data, result);
            count++;
        } else if (data == DATA_WAKE && !more) {
            ring->rearm_wake = true;
        }
    }
    return count;
}

const struct by_backend by_ring_backend = {
    .setup = ring_setup,
    .teardown = ring_teardown,
    .submit = ring_submit,
    .submit_at = ring_submit_at,
    .cancel = ring_cancel,
    .cancel_all = ring_cancel_all,
    .enter = ring_enter,
    .reap = ring_reap,
    .ready = ring_ready,
};
