/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tryio.c - one io by plain system calls: at once when it cannot block, on a
 * pool thread when it is about a file.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "epoll.h"

_Static_assert(sizeof(struct by_work) <=
               sizeof(((struct by_io *)0)->internal), "by_work fits");

void by_tryio_mark(struct by_io *io, bool cancelled)
{
    __atomic_store_n(&BY_IO_MARK(io), cancelled, __ATOMIC_RELAXED);
}

uint32_t by_tryio_events(const struct by_io *io)
{
    switch (io->op) {
    case BY_IO_POLL:
        return io->flags;
    case BY_IO_READV:
    case BY_IO_RECVMSG:
        return POLLIN;
    default:
        return POLLOUT;
    }
}

/* ----------------------------------------------------------- on a worker */

static int answer(ssize_t n)
{
    return n < 0 ? -errno : (int)n;
}

static int file_call(const struct by_io *io)
{
    switch (io->op) {
    case BY_IO_READV:
        return answer(preadv2(io->fd, io->iov, (int)io->niov,
                              (off_t)io->offset, (int)io->flags));
    case BY_IO_WRITEV:
        return answer(pwritev2(io->fd, io->iov, (int)io->niov,
                               (off_t)io->offset, (int)io->flags));
    case BY_IO_FSYNC:
        return answer(io->flags & 1 ? fdatasync(io->fd) : fsync(io->fd));
    default:
        return answer(fallocate(io->fd, (int)io->flags, (off_t)io->offset,
                                (off_t)io->bytes));
    }
}

static int run_file(struct by_work *work)
{
    struct by_io *io = work->owner;
    int result;

    if (__atomic_load_n(&BY_IO_MARK(io), __ATOMIC_RELAXED)) {
        return -ECANCELED;
    }
    do {
        result = file_call(io);
    } while (result == -EINTR);
    return result;
}

static void file_done(struct by_work *work, int result)
{
    by_io_finish(work->loop, work->owner, result);
}

static int to_pool(struct by_loop *loop, struct by_io *io)
{
    struct by_work *work = (struct by_work *)io->internal;

    BY_IO_STATE(io) = IO_SUBMITTED;
    work->run = run_file;
    work->done = file_done;
    work->owner = io;
    work->queue = 0;
    by_pool_submit(loop, work);
    return BY_TRY_POOLED;
}

/* ----------------------------------------------------------- on the loop */

bool by_is_file(int fd)
{
    struct stat st;

    return fstat(fd, &st) == 0 && (S_ISREG(st.st_mode) || S_ISBLK(st.st_mode)
                                   || S_ISDIR(st.st_mode));
}

/* A driver without RWF_NOWAIT: ask for readiness first, then call. */
static int stream_when_ready(const struct by_io *io)
{
    struct pollfd pfd = { .fd = io->fd,
                          .events = (short)by_tryio_events(io) };

    if (poll(&pfd, 1, 0) == 0) {
        return -EAGAIN;
    }
    return io->op == BY_IO_READV
        ? answer(readv(io->fd, io->iov, (int)io->niov))
        : answer(writev(io->fd, io->iov, (int)io->niov));
}

static int stream_call(const struct by_io *io)
{
    int flags = (int)io->flags | RWF_NOWAIT;
    int result = io->op == BY_IO_READV
        ? answer(preadv2(io->fd, io->iov, (int)io->niov, -1, flags))
        : answer(pwritev2(io->fd, io->iov, (int)io->niov, -1, flags));

    return result == -EOPNOTSUPP ? stream_when_ready(io) : result;
}

static int message_call(struct by_io *io)
{
    int flags = (int)io->flags | MSG_DONTWAIT | MSG_NOSIGNAL;

    return io->op == BY_IO_RECVMSG ? answer(recvmsg(io->fd, io->msg, flags))
                                   : answer(sendmsg(io->fd, io->msg, flags));
}

static int wait_unless(bool immediate, int result)
{
    if (result == -EINTR) {
        return BY_TRY_WAIT;   /* tried again as soon as it is ready */
    }
    return result == -EAGAIN && !immediate ? BY_TRY_WAIT : result;
}

int by_tryio(struct by_loop *loop, struct by_io *io)
{
    switch (io->op) {
    case BY_IO_READV:
    case BY_IO_WRITEV:
        if (by_is_file(io->fd)) {
            return to_pool(loop, io);
        }
        return wait_unless(io->flags & RWF_NOWAIT, stream_call(io));
    case BY_IO_FSYNC:
    case BY_IO_FALLOCATE:
        return to_pool(loop, io);
    case BY_IO_RECVMSG:
    case BY_IO_SENDMSG:
        return wait_unless(io->flags & MSG_DONTWAIT, message_call(io));
    case BY_IO_POLL:
        return BY_TRY_WAIT;
    default:
        return -ENOTSUP;   /* commands need a ring */
    }
}
