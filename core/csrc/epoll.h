/* SPDX-License-Identifier: Apache-2.0 */
/*
 * epoll.h - between the epoll backend (epoll.c) and its single tries
 * (tryio.c).
 */
#ifndef BLOCKYARD_EPOLL_H
#define BLOCKYARD_EPOLL_H

#include "loop_private.h"

/* Beside a result: neither is an errno nor a count. */
enum { BY_TRY_WAIT = -100000, BY_TRY_POOLED = -100001 };

/* Do io without waiting; or say that its descriptor must be waited for; or
 * give it to the pool, which completes it. */
int by_tryio(struct by_loop *loop, struct by_io *io);
/* The readiness that io waits for, in poll's bits (epoll's are the same). */
uint32_t by_tryio_events(const struct by_io *io);
/* Cancelled or not, as the pool's worker sees it before it begins. */
void by_tryio_mark(struct by_io *io, bool cancelled);

#endif /* BLOCKYARD_EPOLL_H */
