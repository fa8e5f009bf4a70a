/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ringop.c - how each by_io operation reads as a submission queue entry.
 */
#include <poll.h>
#include <string.h>
#include <sys/socket.h>

#include "ring.h"

/* One buffer goes as READ or WRITE: the kernel then imports no vector. */
static void fill_rw(struct io_uring_sqe *sqe, const struct by_io *io,
                    uint8_t plain, uint8_t vector)
{
    sqe->off = io->offset;
    sqe->rw_flags = (int)io->flags;
    if (io->niov == 1 && io->iov->iov_len <= 0x7ffff000) {
        sqe->opcode = plain;
        sqe->addr = (uint64_t)(uintptr_t)io->iov->iov_base;
        sqe->len = (uint32_t)io->iov->iov_len;
    } else {
        sqe->opcode = vector;
        sqe->addr = (uint64_t)(uintptr_t)io->iov;
        sqe->len = io->niov;
    }
}

/* A message of one buffer and nothing else goes as RECV or SEND. */
static void fill_msg(struct io_uring_sqe *sqe, const struct by_io *io,
                     uint8_t plain, uint8_t full)
{
    struct msghdr *msg = io->msg;

    sqe->msg_flags = io->flags;
    if (msg->msg_iovlen == 1 && !msg->msg_name && !msg->msg_controllen
        && msg->msg_iov->iov_len <= 0x7ffff000) {
        msg->msg_flags = 0;
        sqe->opcode = plain;
        sqe->addr = (uint64_t)(uintptr_t)msg->msg_iov->iov_base;
        sqe->len = (uint32_t)msg->msg_iov->iov_len;
    } else {
        sqe->opcode = full;
        sqe->addr = (uint64_t)(uintptr_t)msg;
        sqe->len = 1;
    }
}

static void fill_poll(struct io_uring_sqe *sqe, unsigned events)
{
    sqe->opcode = IORING_OP_POLL_ADD;
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    events = (events << 16) | (events >> 16);
#endif
    sqe->poll32_events = events;
}

static void fill_fallocate(struct io_uring_sqe *sqe, const struct by_io *io)
{
    sqe->opcode = IORING_OP_FALLOCATE;
    sqe->len = io->flags;
    sqe->off = io->offset;
    sqe->addr = io->bytes;
}

static void fill_command(struct io_uring_sqe *sqe, const struct by_io *io)
{
    sqe->opcode = IORING_OP_URING_CMD;
    sqe->off = io->flags;   /* cmd_op; the other half must be 0 */
    sqe->addr = (uint64_t)(uintptr_t)io->iov;
    sqe->len = io->niov;
    memcpy((char *)sqe + SQE_BYTES - COMMAND_BYTES, io->msg, COMMAND_BYTES);
}

static unsigned events_for(const struct by_io *io)
{
    return io->op == BY_IO_READV || io->op == BY_IO_RECVMSG ? POLLIN
                                                            : POLLOUT;
}

void by_ring_fill(struct io_uring_sqe *sqe, struct by_io *io)
{
    sqe->fd = io->fd;
    if (BY_IO_MARK(io) & MARK_POLL) {
        fill_poll(sqe, events_for(io));
        return;
    }
    switch (io->op) {
    case BY_IO_READV:
        fill_rw(sqe, io, IORING_OP_READ, IORING_OP_READV);
        break;
    case BY_IO_WRITEV:
        fill_rw(sqe, io, IORING_OP_WRITE, IORING_OP_WRITEV);
        break;
    case BY_IO_FSYNC:
        sqe->opcode = IORING_OP_FSYNC;
        sqe->fsync_flags = io->flags & 1 ? IORING_FSYNC_DATASYNC : 0;
        break;
    case BY_IO_FALLOCATE:
        fill_fallocate(sqe, io);
        break;
    case BY_IO_RECVMSG:
        fill_msg(sqe, io, IORING_OP_RECV, IORING_OP_RECVMSG);
        break;
    case BY_IO_SENDMSG:
        fill_msg(sqe, io, IORING_OP_SEND, IORING_OP_SENDMSG);
        break;
    case BY_IO_POLL:
        fill_poll(sqe, io->flags);
        break;
    default:
        fill_command(sqe, io);
        break;
    }
}
