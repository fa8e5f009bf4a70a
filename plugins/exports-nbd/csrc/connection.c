/* SPDX-License-Identifier: Apache-2.0 */
/*
 * connection.c - life and end of a connection.
 *
 * The control thread makes it, hands it to the loop and may ask it to stop;
 * all else happens on the loop.  It has ended when it reads no more and no
 * operation, request, timer or posted task of it is left; only then is
 * BY_NBD_CLOSED sent, and from then on only the control thread knows it.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "connection.h"

void nbd_progress(struct by_nbd_connection *connection)
{
    connection->progress_at = connection->api->loop_now(connection->loop);
}

static void trace_life(const struct by_nbd_connection *connection,
                       const char *name)
{
    if (connection->api->trace_on(name)) {
        connection->api->trace(name, "fd %d requests %llu in flight %u "
                               "result %d", connection->fd,
                               (unsigned long long)connection->stats.requests,
                               connection->in_flight, connection->result);
    }
}

/* ------------------------------------------------------------- the timer */

/* See that tick runs within delay_ns. */
void nbd_tick_by(struct by_nbd_connection *connection, uint64_t delay_ns)
{
    const struct by_api *api = connection->api;
    uint64_t due = api->loop_now(connection->loop) + delay_ns;

    if (!connection->timer_busy) {
        connection->timer_busy = true;
        connection->timer_cut = false;
        connection->timer_due = due;
        connection->timer.offset = due;
        api->io_submit(connection->loop, &connection->timer);
    } else if (due < connection->timer_due && !connection->timer_cut) {
        connection->timer_cut = true; /* what is due sets it again */
        api->io_cancel(connection->loop, &connection->timer);
    }
}

static void check_stop(struct by_nbd_connection *connection, uint64_t now)
{
    if (!connection->stop_due || connection->dead) {
        return;
    }
    if (now >= connection->stop_due) {
        nbd_kill(connection, connection->result ? connection->result
                                                : -ETIMEDOUT);
    } else {
        nbd_tick_by(connection, connection->stop_due - now);
    }
}

/* Nothing of the connection is under way but perhaps the timer. */
static bool is_quiet(const struct by_nbd_connection *connection)
{
    return connection->stopping && connection->started &&
           !connection->rx_busy && !connection->tx_busy &&
           !connection->flush_due && !connection->in_flight;
}

static void tick(struct by_io *io, int result)
{
    struct by_nbd_connection *connection = io->owner;
    uint64_t now = connection->api->loop_now(connection->loop);

    (void)result;
    connection->timer_busy = false;
    if (!is_quiet(connection)) {
        check_stop(connection, now);
        nbd_budget_tick(connection, now);
    }
    if (connection->wants_memory && connection->paused &&
        !connection->stopping) {
        nbd_parse_buffer(connection);
    }
    nbd_maybe_end(connection);
}

/* ------------------------------------------------------------------- end */

static void release(struct by_nbd_connection *connection)
{
    if (connection->fd >= 0) {
        close(connection->fd);
    }
    nbd_budget_close(connection);
    free(connection->buffer);
    connection->buffer = NULL;
    connection->fd = -1;
}

/* The last thing that touches the connection. */
static void finish(struct by_nbd_connection *connection)
{
    struct by_event event = {
        .tag = connection->tag,
        .kind = BY_NBD_CLOSED,
        .result = connection->result,
        .a = connection->stats.requests,
        .b = connection->stats.bytes_in + connection->stats.bytes_out,
    };
    const struct by_api *api = connection->api;
    uint32_t open = NBD_OPEN;

    trace_life(connection, "nbd_connection_end");
    release(connection);
    /* A task posted meanwhile must run first; it comes back here. */
    if (__atomic_compare_exchange_n(&connection->life, &open, NBD_ENDED,
                                    false, __ATOMIC_SEQ_CST,
                                    __ATOMIC_SEQ_CST)) {
        api->event(&event);
    }
}

static void end(struct by_task *task)
{
    struct by_nbd_connection *connection = task->owner;
    struct nbd_request *filling = connection->filling;

    connection->end_due = false;
    if (filling && !connection->rx_busy) {
        connection->filling = NULL;
        nbd_request_free(filling);
    }
    if (!is_quiet(connection)) {
        return;
    }
    if (!connection->timer_busy) {
        finish(connection);
    } else if (!connection->timer_cut) {
        connection->timer_cut = true;
        connection->api->io_cancel(connection->loop, &connection->timer);
    }
}

/*
 * Go on with the end, when one has been begun.  It happens at the round's end,
 * so that no caller finds the connection gone under its feet.
 */
void nbd_maybe_end(struct by_nbd_connection *connection)
{
    if (connection->stopping && !connection->end_due) {
        connection->end_due = true;
        connection->api->loop_defer(connection->loop, &connection->ender);
    }
}

/* Read no more; what is in flight is finished and answered. */
void nbd_stop(struct by_nbd_connection *connection, int result,
              uint64_t bound_ns)
{
    uint64_t due = connection->api->loop_now(connection->loop) + bound_ns;

    if (!connection->stopping) {
        connection->stopping = true;
        connection->result = result;
        nbd_receive_cancel(connection);
    }
    if (!connection->stop_due || due < connection->stop_due) {
        connection->stop_due = due;
    }
    if (!connection->dead) {
        nbd_tick_by(connection, bound_ns);
    }
    nbd_maybe_end(connection);
}

/* The same, and the socket is cut: no reply is sent any more. */
void nbd_kill(struct by_nbd_connection *connection, int result)
{
    if (!connection->dead) {
        connection->dead = true;
        trace_life(connection, "nbd_connection_cut");
        shutdown(connection->fd, SHUT_RDWR);
        nbd_send_drop(connection);
        nbd_stop(connection, result, 0);
    }
}

/* -------------------------------------------------- begin and control */

static void start(struct by_task *task)
{
    struct by_nbd_connection *connection = task->owner;

    connection->started = true;
    connection->holes_cheap = true; /* until an answer says otherwise */
    trace_life(connection, "nbd_connection_start");
    nbd_progress(connection);
    nbd_parse_buffer(connection);
    nbd_maybe_end(connection);
}

static void posted_stop(struct by_task *task)
{
    struct by_nbd_connection *connection = task->owner;

    __atomic_store_n(&connection->life, NBD_OPEN, __ATOMIC_SEQ_CST);
    if (!connection->buffer) {
        finish(connection);
    } else if (__atomic_load_n(&connection->posted_hard, __ATOMIC_SEQ_CST)) {
        nbd_kill(connection, 0);
    } else {
        nbd_stop(connection, 0, __atomic_load_n(&connection->posted_bound,
                                                __ATOMIC_RELAXED));
    }
}

void by_nbd_shutdown(struct by_nbd_connection *connection, bool hard,
                     uint64_t bound_ns)
{
    uint32_t open = NBD_OPEN;

    /* Written before life is read: a task on its way sees it. */
    __atomic_store_n(&connection->posted_bound, bound_ns, __ATOMIC_RELAXED);
    if (hard) {
        __atomic_store_n(&connection->posted_hard, 1, __ATOMIC_SEQ_CST);
    }
    if (__atomic_compare_exchange_n(&connection->life, &open, NBD_POSTED,
                                    false, __ATOMIC_SEQ_CST,
                                    __ATOMIC_SEQ_CST)) {
        connection->api->loop_post(connection->loop, &connection->posted);
    }
}

static void fill_in(struct by_nbd_connection *connection,
                    const struct by_nbd_params *params)
{
    connection->rules.mode = params->mode;
    connection->rules.contexts = params->contexts;
    connection->bitmap_status =
        (by_nbd_bitmap_status *)params->bitmap_status;
    for (uint32_t i = 0; i < params->nbitmaps; i++) {
        connection->bitmaps[i] = (struct by_bitmap *)params->bitmaps[i];
    }
    connection->rules.max_payload = params->max_payload;
    connection->rules.read_only = params->read_only;
    connection->rules.size = params->size;
    connection->max_requests = params->max_requests ? params->max_requests
                                                    : 1;
    connection->timer.size = sizeof(connection->timer);
    connection->timer.op = BY_IO_TIMER;
    connection->timer.done = tick;
    connection->timer.owner = connection;
    connection->starter.run = start;
    connection->starter.owner = connection;
    connection->ender.run = end;
    connection->ender.owner = connection;
    connection->posted.run = posted_stop;
    connection->posted.owner = connection;
    nbd_receive_init(connection);
    nbd_send_init(connection);
    nbd_budget_open(connection, params->budget);
}

struct by_nbd_connection *by_nbd_start(struct by_nbd_server *server,
                                       uintptr_t api, uintptr_t loop,
                                       uintptr_t root, int fd,
                                       const struct by_nbd_params *params,
                                       const void *early, size_t early_bytes,
                                       uint64_t tag, int *error)
{
    struct by_nbd_connection *connection = calloc(1, sizeof(*connection));
    uint8_t *buffer = aligned_alloc(4096, NBD_RX_BYTES);

    *error = -ENOMEM;
    if (!connection || !buffer || early_bytes > NBD_RX_BYTES) {
        goto fail;
    }
    connection->api = (const struct by_api *)api;
    connection->loop = (struct by_loop *)loop;
    connection->root = (struct by_root *)root;
    connection->server = server;
    connection->fd = fd;
    connection->tag = tag;
    connection->buffer = buffer;
    fill_in(connection, params);
    if (early_bytes) {
        memcpy(buffer, early, early_bytes);
    }
    connection->end = early_bytes;
    connection->api->loop_post(connection->loop, &connection->starter);
    *error = 0;
    return connection;

fail:
    free(connection);
    free(buffer);
    return NULL;
}

void by_nbd_get_stats(const struct by_nbd_connection *connection,
                      struct by_nbd_stats *out)
{
    const uint64_t *from = (const uint64_t *)&connection->stats;
    uint64_t *to = (uint64_t *)out;

    for (size_t i = 0; i < sizeof(*out) / sizeof(*to); i++) {
        to[i] = __atomic_load_n(&from[i], __ATOMIC_RELAXED);
    }
    out->in_flight = __atomic_load_n(&connection->in_flight,
                                     __ATOMIC_RELAXED);
    out->held = __atomic_load_n(&connection->held, __ATOMIC_RELAXED);
}

void by_nbd_free(struct by_nbd_connection *connection)
{
    free(connection);
}

int by_nbd_check_api(uintptr_t api)
{
    const struct by_api *table = (const struct by_api *)api;

    return table->abi == BY_ABI_VERSION && table->size >= sizeof(*table)
           ? 0 : -EPROTO;
}
