/* SPDX-License-Identifier: Apache-2.0 */
/*
 * servers.c - a client under good and bad servers, for the sanitizers.
 *
 * servers BACKEND [rounds [seed]]: workers in threads write, read and compare,
 * each in its part of a disk of memory that servers in threads serve.  Servers
 * hang up, break the protocol and forget to answer at random; the main thread
 * connects again as the Python half would, moves the node between two loops,
 * and stops it in the end.  Everything must end, and what was acknowledged
 * must be there.
 */
#include "check.h"

#include <pthread.h>
#include <sys/socket.h>

#include "graph.h"

#include "../../csrc/client.h"

enum { WORKERS = 4, PART = 1 << 16, DISK = WORKERS * PART, TAG = 77 };

struct server {
    pthread_t thread;
    int fd;
    int mode;
    uint64_t random;
};

static uint8_t disk[DISK];
static pthread_mutex_t disk_lock = PTHREAD_MUTEX_INITIALIZER;
static struct by_node *node;
static struct by_nbdc *client;
static struct server servers[4096];
static int nservers;
static bool patient;

static uint64_t roll(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

/* -------------------------------------------------------------- servers */

static bool send_all(int fd, const void *data, size_t bytes)
{
    const uint8_t *at = data;

    while (bytes) {
        ssize_t n = send(fd, at, bytes, MSG_NOSIGNAL);

        if (n <= 0) {
            return false;
        }
        at += n;
        bytes -= n;
    }
    return true;
}

static size_t put_chunk(uint8_t *at, int mode, int type, uint64_t cookie,
                        uint64_t length)
{
    bool extended = mode == BY_NBDC_EXTENDED;

    nbd_put32(at, extended ? NBD_EXTENDED_REPLY_MAGIC
                           : NBD_STRUCTURED_REPLY_MAGIC);
    nbd_put16(at + 4, NBD_REPLY_FLAG_DONE);
    nbd_put16(at + 6, type);
    nbd_put64(at + 8, cookie);
    if (extended) {
        nbd_put64(at + 16, 0);
        nbd_put64(at + 24, length);
        return 32;
    }
    nbd_put32(at + 16, length);
    return 20;
}

static size_t put_head(uint8_t *at, int mode, bool reads, uint64_t cookie,
                       uint64_t offset, uint64_t length)
{
    size_t n;

    if (mode == BY_NBDC_SIMPLE || (mode == BY_NBDC_STRUCTURED && !reads)) {
        nbd_put32(at, NBD_SIMPLE_REPLY_MAGIC);
        nbd_put32(at + 4, 0);
        nbd_put64(at + 8, cookie);
        return 16;
    }
    n = put_chunk(at, mode, reads ? 1 : 0, cookie, reads ? 8 + length : 0);
    if (reads) {
        nbd_put64(at + n, offset);
        n += 8;
    }
    return n;
}

static bool answer(struct server *server, uint8_t *out, int type,
                   uint64_t cookie, uint64_t offset, uint64_t length)
{
    bool reads = type == NBD_CMD_READ;
    size_t n = put_head(out, server->mode, reads, cookie, offset, length);

    if (roll(&server->random) % 400 == 0) {
        /* The magic: another cookie could acknowledge what was not done. */
        out[roll(&server->random) % 4] ^= 1 << roll(&server->random) % 8;
    }
    if (reads) {
        pthread_mutex_lock(&disk_lock);
        memcpy(out + n, disk + offset, length);
        pthread_mutex_unlock(&disk_lock);
        n += length;
    }
    return send_all(server->fd, out, n);
}

/* One command; false when the connection is over. */
static bool serve(struct server *server, uint8_t *in, uint8_t *out)
{
    bool extended = server->mode == BY_NBDC_EXTENDED;
    size_t size = extended ? 32 : 28;
    uint64_t offset, length;
    int type;

    if (recv(server->fd, in, size, MSG_WAITALL) != (ssize_t)size) {
        return false;
    }
    type = nbd_get16(in + 6);
    offset = nbd_get64(in + 16);
    length = extended ? nbd_get64(in + 24) : nbd_get32(in + 24);
    if (type == NBD_CMD_DISC || roll(&server->random) % 300 == 0) {
        return false;
    }
    CHECK(offset <= DISK && length <= DISK - offset);
    if (type == NBD_CMD_WRITE) {
        if (recv(server->fd, out, length, MSG_WAITALL) != (ssize_t)length) {
            return false;
        }
        pthread_mutex_lock(&disk_lock);
        memcpy(disk + offset, out, length);
        pthread_mutex_unlock(&disk_lock);
    }
    return answer(server, out, type, nbd_get64(in + 8), offset, length);
}

static void *run_server(void *arg)
{
    struct server *server = arg;
    uint8_t *in = malloc(64), *out = malloc(DISK + 64);

    while (serve(server, in, out)) {
    }
    close(server->fd);
    free(in);
    free(out);
    return NULL;
}

static void connect_one(uint64_t *random)
{
    struct server *server = &servers[nservers++];
    struct by_nbdc_facts facts = {
        .mode = roll(random) % 3, .flags = NBD_FLAG_SEND_FLUSH, .block = 1,
    };
    int pair[2];

    CHECK(nservers < (int)(sizeof(servers) / sizeof(*servers)));
    CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    server->fd = pair[1];
    server->mode = facts.mode;
    server->random = roll(random) | 1;
    pthread_create(&server->thread, NULL, run_server, server);
    CHECK_EQ(by_nbdc_add(client, pair[0], &facts), 0);
}

/* -------------------------------------------------------------- workers */

struct worker {
    pthread_t thread;
    uint64_t base, random;
    int ended, failed;          /* atomic */
    uint8_t model[PART];
    bool known[PART];           /* a write that failed leaves it open */
};

static int ask(int op, uint64_t offset, uint8_t *data, uint64_t bytes)
{
    uint64_t half = bytes / 2;
    struct iovec iov[2] = { { data, half }, { data + half, bytes - half } };
    struct by_request req = {
        .size = sizeof(req), .op = op, .offset = offset, .bytes = bytes,
        .iov = iov, .niov = op == BY_OP_FLUSH ? 0 : 2,
    };

    return by_api_table()->wait(node, &req);
}

static void check_read(struct worker *worker, uint8_t *data, uint64_t at,
                       uint64_t bytes)
{
    if (ask(BY_OP_READ, worker->base + at, data, bytes) < 0) {
        __atomic_add_fetch(&worker->failed, 1, __ATOMIC_RELAXED);
        return;
    }
    for (uint64_t i = 0; i < bytes; i++) {
        CHECK(!worker->known[at + i] || data[i] == worker->model[at + i]);
    }
}

static void write_some(struct worker *worker, uint8_t *data, uint64_t at,
                       uint64_t bytes)
{
    int result;

    memset(data, (int)roll(&worker->random), bytes);
    result = ask(BY_OP_WRITE, worker->base + at, data, bytes);
    __atomic_add_fetch(&worker->failed, result < 0, __ATOMIC_RELAXED);
    memcpy(worker->model + at, data, bytes);
    memset(worker->known + at, result == 0, bytes);
}

static void *run_worker(void *arg)
{
    struct worker *worker = arg;
    uint8_t *data = malloc(PART);

    for (int i = 0; i < 150; i++) {
        uint64_t bytes = 1 + roll(&worker->random)
            % (roll(&worker->random) % 4 ? 3000 : PART - 1);
        uint64_t at = roll(&worker->random) % (PART - bytes);

        if (roll(&worker->random) % 2) {
            write_some(worker, data, at, bytes);
        } else {
            check_read(worker, data, at, bytes);
        }
        if (roll(&worker->random) % 16 == 0) {
            ask(BY_OP_FLUSH, 0, NULL, 0);
        }
    }
    free(data);
    __atomic_store_n(&worker->ended, 1, __ATOMIC_RELEASE);
    return NULL;
}

/* ------------------------------------------------- as the Python half */

/* False when nothing came for a moment. */
static bool take_events(uint64_t *random, bool *stopped)
{
    struct pollfd pfd = { .fd = by_event_fd(), .events = POLLIN };
    struct by_event events[8];
    int n;

    if (poll(&pfd, 1, 10) != 1) {
        return false;
    }
    n = by_event_take(events, 8);
    for (int i = 0; i < n; i++) {
        if (events[i].tag != TAG) {
            continue;
        }
        *stopped = *stopped || events[i].kind == BY_NBDC_STOPPED;
        if (events[i].kind == BY_NBDC_LOST && !events[i].a && !*stopped) {
            connect_one(random);
        } else if (events[i].kind == BY_NBDC_BUSY) {
            connect_one(random);
        }
    }
    return true;
}

static void work(struct worker *workers, uint64_t *random)
{
    bool stopped = false;

    for (int i = 0; i < WORKERS; i++) {
        workers[i].random = roll(random) | 1;
        workers[i].ended = 0;
        pthread_create(&workers[i].thread, NULL, run_worker, &workers[i]);
    }
    for (int i = 0; i < WORKERS; ) {
        take_events(random, &stopped);
        if (roll(random) % 50 == 0) {
            by_nbdc_cut(client);
        }
        if (roll(random) % 20 == 0) {
            patient = !patient;
            by_nbdc_set_patient(client, patient);
        }
        if (__atomic_load_n(&workers[i].ended, __ATOMIC_ACQUIRE)) {
            pthread_join(workers[i].thread, NULL);
            i++;
        }
    }
}

static void move(struct by_loop *loop)
{
    struct by_node *nodes[] = { node };
    struct by_root *none[1];

    CHECK_EQ(by_drain_begin(none, 0, nodes, 1, 3), 0);
    CHECK_EQ(check_await(3), 0);
    by_node_set_home(node, loop);
    CHECK_EQ(by_drain_end(none, 0, nodes, 1, 4), 0);
    CHECK_EQ(check_await(4), 0);
}

static void round_of(struct by_loop **loops, uint64_t *random)
{
    struct worker *workers = calloc(WORKERS, sizeof(*workers));
    struct by_nbdc_facts facts = { .block = 1,
                                   .flags = NBD_FLAG_SEND_FLUSH };
    bool stopped = false;

    nservers = 0;
    memset(disk, 0, sizeof(disk));
    for (int i = 0; i < WORKERS; i++) {
        workers[i].base = i * PART;
        memset(workers[i].known, 1, PART);
    }
    client = by_nbdc_create((uintptr_t)loops[0], &facts, TAG);
    CHECK(client);
    node = by_node_create((struct by_node_ops *)by_nbdc_ops(client), client,
                          0, loops[0]);
    by_node_set_limits(node, &(struct by_limits) { .max_iov = BY_NBDC_IOV });
    by_node_set_length(node, DISK);
    patient = true;
    by_nbdc_set_patient(client, true);
    connect_one(random);
    for (int phase = 0; phase < 3; phase++) {
        work(workers, random);
        while (take_events(random, &stopped)) {
        }
        move(loops[(phase + 1) % 2]);
        connect_one(random); /* events of the move may have been dropped */
    }
    CHECK_EQ(by_nbdc_stop(client), 0);
    while (!stopped) {
        take_events(random, &stopped);
    }
    by_node_free(node, 6);
    CHECK_EQ(check_await(6), 0);
    by_nbdc_free(client);
    for (int i = 0; i < nservers; i++) {
        pthread_join(servers[i].thread, NULL);
    }
    free(workers);
}

int main(int argc, char **argv)
{
    int rounds = argc > 2 ? atoi(argv[2]) : 5;
    uint64_t random = 88172645463325252ull + (argc > 3 ? atoi(argv[3]) : 0);
    struct by_loop *loops[2];

    check_start(argc, argv);
    CHECK_EQ(by_nbdc_init((uintptr_t)by_api_table()), 0);
    loops[0] = check_loop();
    loops[1] = check_loop();
    while (rounds--) {
        round_of(loops, &random);
    }
    check_destroy(loops[0]);
    check_destroy(loops[1]);
    by_stop();
    return 0;
}
