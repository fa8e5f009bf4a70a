/* SPDX-License-Identifier: Apache-2.0 */
/*
 * loop.h - what the rest of core's C may use of loops, pool, slab and events.
 *
 * "On the loop" means: by the loop's own thread.  Everything else may be
 * called from any thread where its comment says so.
 */
#ifndef BLOCKYARD_LOOP_H
#define BLOCKYARD_LOOP_H

#include "blockyard.h"
#include "control.h"

/* Live loops at one time; indexes are below it and are used again. */
#define BY_MAX_LOOPS 64

/* The loop whose thread this is, or null; any thread, one load. */
extern __thread struct by_loop *by_loop_self
    __attribute__((tls_model("initial-exec"), visibility("hidden")));

static inline bool by_on_loop(const struct by_loop *loop)
{
    return by_loop_self == loop;
}

/* A small integer below BY_MAX_LOOPS, the loop's for its whole life. */
int by_loop_index(const struct by_loop *loop);
/* The live loop with this index or null.  Control thread: nobody else
 * creates and destroys loops, so the answer holds until it does. */
struct by_loop *by_loop_at(int index);
/* Call visit for every live loop; loops neither come nor go meanwhile.  Any
 * thread; visit must not create or destroy loops. */
void by_loop_each(void (*visit)(struct by_loop *loop, void *arg), void *arg);
/* How many loops are live. */
int by_loop_count(void);

/* by_api's members of the same names. */
struct by_loop *by_loop_current(void);
uint64_t by_loop_now(struct by_loop *loop);
void by_loop_post(struct by_loop *loop, struct by_task *task);
void by_loop_defer(struct by_loop *loop, struct by_task *task);
bool by_loop_has_ring(const struct by_loop *loop);
void by_io_submit(struct by_loop *loop, struct by_io *io);
void by_io_cancel(struct by_loop *loop, struct by_io *io);
void by_loop_submit_at(struct by_loop *loop, uint32_t batch);
void by_poller_add(struct by_loop *loop, struct by_poller *poller);
void by_poller_remove(struct by_loop *loop, struct by_poller *poller);

void *by_slab_get(struct by_loop *loop, size_t bytes);
void by_slab_put(struct by_loop *loop, void *piece, size_t bytes);
void *by_buffer_get(struct by_loop *loop, size_t bytes);
void by_buffer_put(struct by_loop *loop, void *buffer, size_t bytes);

/* Handed to the workers at the end of the round, the whole round's at once. */
void by_pool_submit(struct by_loop *loop, struct by_work *work);

/* Any thread.  Nothing is lost: the queue grows. */
void by_event_push(const struct by_event *event);
/* BY_EVENT_DONE with this tag; tag 0 is nobody and sends nothing. */
void by_event_done(uint64_t tag, int result);

bool by_trace_on(const char *name);
void by_trace(const char *name, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* Make a name known to by_trace_name before its first use.  Any thread. */
void by_trace_register(const char *name);

bool by_is_zero(const void *bytes, size_t count);

/* CLOCK_MONOTONIC in ns, read now; any thread. */
uint64_t by_clock(void);

/* Fill the members of the table that this part of core serves. */
void by_loop_fill_api(struct by_api *api);

#endif /* BLOCKYARD_LOOP_H */
