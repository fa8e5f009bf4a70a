/* SPDX-License-Identifier: Apache-2.0 */
/*
 * budget.c - bytes held for clients.
 *
 * A connection takes from the server in lumps and counts within them without
 * an atomic operation; what it does not use goes back on its tick.  The first
 * NBD_FLOOR bytes of a client are taken when it connects, so that small
 * requests are served whatever the others do.  When somebody waits for more,
 * clients that hold memory and make no progress are cut off.
 */
#include <errno.h>
#include <stdlib.h>

#include "connection.h"

#define LUMP        (1024 * 1024)
#define STALL_NS    (5 * NBD_SECOND)    /* without progress, while wanted */
#define WANTED_NS   (2 * NBD_SECOND)    /* how long a want is remembered */
#define TICK_NS     (NBD_SECOND / 2)
#define RETRY_NS    (NBD_SECOND / 200)

struct by_nbd_server {
    uint64_t limit;
    uint64_t held;       /* atomic */
    uint64_t wanted_at;  /* atomic; loop time of the last refusal, 0 never */
};

struct by_nbd_server *by_nbd_server_create(uint64_t budget)
{
    struct by_nbd_server *server = calloc(1, sizeof(*server));

    if (server) {
        server->limit = budget;
    }
    return server;
}

uint64_t by_nbd_server_held(const struct by_nbd_server *server)
{
    return __atomic_load_n(&server->held, __ATOMIC_RELAXED);
}

void by_nbd_server_free(struct by_nbd_server *server)
{
    free(server);
}

static bool reserve(struct by_nbd_connection *connection, uint64_t bytes)
{
    struct by_nbd_server *server = connection->server;
    uint64_t held = __atomic_add_fetch(&server->held, bytes,
                                       __ATOMIC_RELAXED);

    if (held > server->limit) {
        __atomic_sub_fetch(&server->held, bytes, __ATOMIC_RELAXED);
        return false;
    }
    connection->reserved += bytes;
    return true;
}

static void unreserve(struct by_nbd_connection *connection, uint64_t bytes)
{
    connection->reserved -= bytes;
    __atomic_sub_fetch(&connection->server->held, bytes, __ATOMIC_RELAXED);
}

/*
 * Control thread, before the loop knows the connection.  The floor is granted
 * beyond the limit too: how many floors there are max-connections bounds.
 */
void nbd_budget_open(struct by_nbd_connection *connection, uint64_t budget)
{
    connection->budget = budget;
    connection->reserved = NBD_FLOOR;
    __atomic_add_fetch(&connection->server->held, NBD_FLOOR,
                       __ATOMIC_RELAXED);
}

void nbd_budget_close(struct by_nbd_connection *connection)
{
    unreserve(connection, connection->reserved);
}

static bool grow(struct by_nbd_connection *connection, uint64_t need)
{
    uint64_t lump = (need + LUMP - 1) / LUMP * LUMP;

    if (reserve(connection, lump) || reserve(connection, need)) {
        nbd_tick_by(connection, TICK_NS);
        return true;
    }
    __atomic_store_n(&connection->server->wanted_at,
                     connection->api->loop_now(connection->loop),
                     __ATOMIC_RELAXED);
    connection->wants_memory = true;
    nbd_tick_by(connection, RETRY_NS);
    return false;
}

bool nbd_budget_take(struct by_nbd_connection *connection, uint64_t bytes)
{
    uint64_t held = connection->held + bytes;

    /* One request is always taken, however small the client's budget. */
    if (held > connection->budget && connection->held) {
        return false;
    }
    if (held > connection->reserved &&
        !grow(connection, held - connection->reserved)) {
        return false;
    }
    connection->wants_memory = false;
    __atomic_store_n(&connection->held, held, __ATOMIC_RELAXED);
    return true;
}

static uint64_t spare(const struct by_nbd_connection *connection)
{
    uint64_t keep = connection->held > NBD_FLOOR ? connection->held
                                                 : NBD_FLOOR;

    return connection->reserved > keep ? connection->reserved - keep : 0;
}

void nbd_budget_give(struct by_nbd_connection *connection, uint64_t bytes)
{
    __atomic_store_n(&connection->held, connection->held - bytes,
                     __ATOMIC_RELAXED);
}

bool nbd_budget_contended(struct by_nbd_connection *connection, uint64_t now)
{
    uint64_t wanted = __atomic_load_n(&connection->server->wanted_at,
                                      __ATOMIC_RELAXED);

    /* Loops' clocks differ by less than a round; mind the subtraction. */
    return wanted && (now < wanted || now - wanted < WANTED_NS);
}

bool nbd_budget_tick(struct by_nbd_connection *connection, uint64_t now)
{
    bool contended = nbd_budget_contended(connection, now);

    unreserve(connection, spare(connection));
    if (contended && connection->held > NBD_FLOOR &&
        (connection->tx_busy || connection->filling) &&
        now > connection->progress_at + STALL_NS) {
        nbd_kill(connection, -ETIMEDOUT);
        return false;
    }
    if (connection->wants_memory) {
        nbd_tick_by(connection, RETRY_NS);
        return true;
    }
    if (connection->reserved > NBD_FLOOR) {
        nbd_tick_by(connection, TICK_NS);
        return true;
    }
    return false;
}
