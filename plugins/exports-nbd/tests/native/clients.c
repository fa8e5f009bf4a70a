/* SPDX-License-Identifier: Apache-2.0 */
/*
 * clients.c - connections under good and bad clients, for the sanitizers.
 *
 * clients BACKEND [rounds [seed]]: in each round every slot, which has a disk
 * of memory, gets a client in a thread of its own: one that checks its data,
 * one that sends noise, one that asks and never reads.  Some are shut down at
 * a random moment, softly or hard.  Each must end, and give all memory back.
 */
#include "check.h"

#include <pthread.h>
#include <sys/socket.h>

#include "../../csrc/connection.h"

enum { SLOTS = 6, LOOPS = 2, DISK = 1 << 20 };

struct slot {
    struct by_loop *loop;
    struct by_node *node;
    struct by_root *root;
    uintptr_t bitmaps[2];
    struct by_nbd_connection *connection;
    uint8_t *disk;
    uint64_t random;       /* the disk's */
    uint64_t seed;         /* the client's */
    int kind, fd;
    struct nbd_rules rules;
    bool cut;              /* the server may end it early */
    pthread_t thread;
    bool closed;
};

struct held {              /* a request that the disk answers later */
    struct by_task task;
    struct by_request *req;
    struct by_loop *loop;
};

static uint64_t roll(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

/* ------------------------------------------------------- disks of memory */

static void copy(struct slot *slot, struct by_request *req)
{
    uint8_t *at = slot->disk + req->offset;
    struct iovec iov[4];
    int n = by_iov_slice(req->iov, req->niov, req->iov_skip, req->bytes, iov,
                         4);

    for (int i = 0; i < n; i++) {
        if (req->op == BY_OP_READ) {
            memcpy(iov[i].iov_base, at, iov[i].iov_len);
        } else {
            memcpy(at, iov[i].iov_base, iov[i].iov_len);
        }
        at += iov[i].iov_len;
    }
}

static void describe(struct slot *slot, struct by_request *req)
{
    uint64_t left = DISK - req->offset, piece = 1 + roll(&slot->random) % left;

    req->u.status->bytes = piece < req->bytes ? piece : req->bytes;
    req->u.status->flags = by_is_zero(slot->disk + req->offset,
                                      req->u.status->bytes)
        ? BY_STATUS_ZERO : BY_STATUS_DATA | BY_STATUS_ALLOCATED;
}

static void later(struct by_task *task)
{
    struct held *held = task->owner;
    struct by_request *req = held->req;
    struct by_loop *loop = held->loop;

    by_slab_put(loop, held, sizeof(*held));
    by_api_table()->complete(req, 0);
}

static int disk_submit(struct by_node *node, struct by_request *req)
{
    struct slot *slot = node->state;
    struct held *held;

    if (req->op == BY_OP_BLOCK_STATUS) {
        describe(slot, req);
    } else if (req->op == BY_OP_WRITE_ZEROES) {
        memset(slot->disk + req->offset, 0, req->bytes);
    } else if (req->op == BY_OP_READ || req->op == BY_OP_WRITE) {
        copy(slot, req);
    }
    if (roll(&slot->random) % 64 == 0) {
        return -EIO;
    }
    if (roll(&slot->random) % 2) {
        return 0;
    }
    held = by_slab_get(req->loop, sizeof(*held));
    held->task.run = later;
    held->task.owner = held;
    held->req = req;
    held->loop = req->loop;
    by_loop_post(req->loop, &held->task);
    return BY_PENDING;
}

static const struct by_node_ops disk_ops = {
    .size = sizeof(disk_ops),
    .abi = BY_ABI_VERSION,
    .name = "test-disk",
    .capabilities = BY_CAP_ANY_LOOP,
    .serves = BY_OP_BIT(BY_OP_READ) | BY_OP_BIT(BY_OP_WRITE) |
              BY_OP_BIT(BY_OP_FLUSH) | BY_OP_BIT(BY_OP_WRITE_ZEROES) |
              BY_OP_BIT(BY_OP_BLOCK_STATUS),
    .submit = disk_submit,
};

/* -------------------------------------------------------------- clients */

static bool send_all(struct slot *slot, const void *data, size_t bytes)
{
    const uint8_t *at = data;

    while (bytes) {
        ssize_t n = send(slot->fd, at, bytes, MSG_NOSIGNAL);

        if (n <= 0) {
            return false;
        }
        at += n;
        bytes -= n;
    }
    return true;
}

static bool recv_all(struct slot *slot, void *data, size_t bytes)
{
    return recv(slot->fd, data, bytes, MSG_WAITALL) == (ssize_t)bytes;
}

static size_t put_header(struct slot *slot, uint8_t *at, int type, int flags,
                         uint64_t offset, uint64_t length)
{
    bool extended = slot->rules.mode == NBD_MODE_EXTENDED;

    nbd_put32(at, extended ? NBD_EXTENDED_REQUEST_MAGIC : NBD_REQUEST_MAGIC);
    nbd_put16(at + 4, flags);
    nbd_put16(at + 6, type);
    nbd_put64(at + 8, offset);
    nbd_put64(at + 16, offset);
    if (extended) {
        nbd_put64(at + 24, length);
        return 32;
    }
    nbd_put32(at + 24, (uint32_t)length);
    return 28;
}

/* -1 the connection ended, else the error; data of a READ is put in place. */
static int get_simple(struct slot *slot, uint8_t *data, uint64_t length)
{
    uint8_t head[16];
    uint32_t error;

    if (!recv_all(slot, head, sizeof(head))) {
        return -1;
    }
    CHECK_EQ(nbd_get32(head), NBD_SIMPLE_REPLY_MAGIC);
    error = nbd_get32(head + 4);
    if (!error && data && !recv_all(slot, data, length)) {
        return -1;
    }
    return (int)error;
}

static bool get_chunk(struct slot *slot, uint8_t *data, uint64_t offset,
                      int *error, bool *done)
{
    uint8_t head[32], small[4200];
    bool extended = slot->rules.mode == NBD_MODE_EXTENDED;
    uint64_t bytes;
    uint16_t type;

    if (!recv_all(slot, head, extended ? 32 : 20)) {
        return false;
    }
    *done = nbd_get16(head + 4) & NBD_REPLY_FLAG_DONE;
    type = nbd_get16(head + 6);
    bytes = extended ? nbd_get64(head + 24) : nbd_get32(head + 16);
    if (type == NBD_REPLY_TYPE_OFFSET_DATA) {
        return recv_all(slot, small, 8) &&
               recv_all(slot, data + (nbd_get64(small) - offset), bytes - 8);
    }
    CHECK(bytes <= sizeof(small));
    if (bytes && !recv_all(slot, small, bytes)) {
        return false;
    }
    if (type == NBD_REPLY_TYPE_OFFSET_HOLE) {
        memset(data + (nbd_get64(small) - offset), 0, nbd_get32(small + 8));
    } else if (type == NBD_REPLY_TYPE_ERROR) {
        *error = (int)nbd_get32(small);
    }
    return true;
}

static int get_reply(struct slot *slot, uint8_t *data, uint64_t offset,
                     uint64_t length)
{
    bool read = data != NULL, done = false;
    int error = 0;

    if (slot->rules.mode == NBD_MODE_SIMPLE ||
        (slot->rules.mode == NBD_MODE_STRUCTURED && !read)) {
        uint8_t magic[4];

        /* Errors are chunks in structured mode. */
        if (recv(slot->fd, magic, 4, MSG_PEEK | MSG_WAITALL) != 4) {
            return -1;
        }
        if (nbd_get32(magic) == NBD_SIMPLE_REPLY_MAGIC) {
            return get_simple(slot, data, length);
        }
    }
    while (!done) {
        if (!get_chunk(slot, data, offset, &error, &done)) {
            return -1;
        }
    }
    return error;
}

/* Write, read again, compare; both may fail with EIO or be cut off. */
static bool check_data(struct slot *slot, uint64_t *random, uint8_t *mine,
                       uint8_t *theirs)
{
    uint64_t length = roll(random) % 3 ? roll(random) % 9000
                                       : roll(random) % 300000;
    uint64_t offset = roll(random) % (DISK - length);
    uint8_t *data = mine + 32;
    size_t head;
    int wrote, error;

    memset(data, roll(random) % 3 ? (int)roll(random) : 0, length);
    head = put_header(slot, mine, NBD_CMD_WRITE,
                      slot->rules.mode == NBD_MODE_EXTENDED
                      ? NBD_CMD_FLAG_PAYLOAD_LEN : 0, offset, length);
    memmove(data - head, mine, head);
    if (!send_all(slot, data - head, head + length)) {
        return false;
    }
    wrote = get_reply(slot, NULL, offset, 0);
    head = put_header(slot, mine, NBD_CMD_READ, 0, offset, length);
    if (wrote < 0 || !send_all(slot, mine, head)) {
        return false;
    }
    error = get_reply(slot, theirs, offset, length);
    put_header(slot, mine, 0, 0, 0, 0);
    if (!wrote && !error) {
        CHECK(!memcmp(data, theirs, length));
    }
    return error >= 0;
}

static void run_good(struct slot *slot, uint64_t *random)
{
    uint8_t *mine = malloc(32 + 300000), *theirs = malloc(300000), bye[32];
    int times = (int)(roll(random) % 30);

    while (times-- && check_data(slot, random, mine, theirs)) {
    }
    if (roll(random) % 2) {
        send_all(slot, bye, put_header(slot, bye, NBD_CMD_DISC, 0, 0, 0));
        CHECK(slot->cut || recv(slot->fd, bye, 1, 0) == 0);
    }
    free(mine);
    free(theirs);
}

static void run_noise(struct slot *slot, uint64_t *random)
{
    uint8_t data[600], dump[65536];
    int times = (int)(roll(random) % 60);

    while (times--) {
        size_t n = put_header(slot, data, (int)(roll(random) % 10),
                              roll(random) % 3 ? 0 : (int)roll(random) % 64,
                              roll(random) % (DISK + 5000),
                              roll(random) % (roll(random) % 2 ? 500 : DISK));
        size_t extra = roll(random) % 500;

        if (roll(random) % 20 == 0) {
            data[roll(random) % n] ^= 1 << roll(random) % 8;
        }
        if (send(slot->fd, data, n + extra, MSG_NOSIGNAL | MSG_DONTWAIT) < 0) {
            usleep(100);
        }
        while (recv(slot->fd, dump, sizeof(dump), MSG_DONTWAIT) > 0) {
        }
    }
}

static void run_deaf(struct slot *slot, uint64_t *random)
{
    uint8_t data[32];

    for (int i = 0; i < 500; i++) {
        size_t n = put_header(slot, data, NBD_CMD_READ, 0, 0,
                              roll(random) % DISK);

        if (send(slot->fd, data, n, MSG_NOSIGNAL | MSG_DONTWAIT) < 0) {
            break;
        }
    }
    usleep(roll(random) % 5000);
}

static void *client(void *arg)
{
    static void (*const kinds[])(struct slot *, uint64_t *) = {
        run_good, run_good, run_noise, run_deaf,
    };
    struct slot *slot = arg;
    uint64_t random = slot->seed;

    kinds[slot->kind](slot, &random);
    close(slot->fd);
    return NULL;
}

/* --------------------------------------------------------------- rounds */

static void begin(struct slot *slot, struct by_nbd_server *server,
                  uint64_t *random, int number)
{
    struct by_nbd_params params = {
        .mode = roll(random) % 3, .contexts = roll(random) % 16,
        .bitmap_status = (uintptr_t)by_bitmap_status, .nbitmaps = 2,
        .bitmaps = slot->bitmaps,
        .max_payload = DISK, .max_requests = 1 + roll(random) % 40,
        .size = DISK, .budget = 2 << 20, .read_only = roll(random) % 8 == 0,
    };
    int pair[2], error;

    slot->kind = (int)(roll(random) % 4);
    slot->random = roll(random) | 1;
    slot->seed = roll(random) | 1;
    slot->cut = roll(random) % 2;
    slot->closed = false;
    slot->rules.mode = params.mode;
    CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    slot->fd = pair[1];
    slot->connection = by_nbd_start(
        server, (uintptr_t)by_api_table(), (uintptr_t)slot->loop,
        (uintptr_t)slot->root, pair[0], &params, NULL, 0, 1000 + number,
        &error);
    CHECK(slot->connection);
    pthread_create(&slot->thread, NULL, client, slot);
}

static void take_events(struct slot *slots)
{
    struct pollfd pfd = { .fd = by_event_fd(), .events = POLLIN };
    struct by_event events[8];
    int n;

    CHECK(poll(&pfd, 1, 30000) == 1);
    n = by_event_take(events, 8);
    for (int i = 0; i < n; i++) {
        CHECK_EQ(events[i].kind, BY_NBD_CLOSED);
        slots[events[i].tag - 1000].closed = true;
    }
}

static void round_of(struct slot *slots, struct by_nbd_server *server,
                     uint64_t *random)
{
    struct by_nbd_stats stats;

    for (int i = 0; i < SLOTS; i++) {
        begin(&slots[i], server, random, i);
    }
    usleep(roll(random) % 3000);
    for (int i = 0; i < SLOTS; i++) {
        by_nbd_get_stats(slots[i].connection, &stats);
        if (slots[i].cut) {
            by_nbd_shutdown(slots[i].connection, roll(random) % 2, 20000000);
            by_nbd_shutdown(slots[i].connection, roll(random) % 2, 10000000);
        }
    }
    for (int i = 0; i < SLOTS; i++) {
        pthread_join(slots[i].thread, NULL);
        while (!slots[i].closed) {
            take_events(slots);
        }
        by_nbd_free(slots[i].connection);
    }
    CHECK_EQ(by_nbd_server_held(server), 0);
}

int main(int argc, char **argv)
{
    int rounds = argc > 2 ? atoi(argv[2]) : 50;
    uint64_t random = 88172645463325252ull + (argc > 3 ? atoi(argv[3]) : 0);
    struct by_nbd_server *server = by_nbd_server_create(6 << 20);
    struct by_loop *loops[LOOPS];
    struct slot slots[SLOTS] = { 0 };

    check_start(argc, argv);
    for (int i = 0; i < LOOPS; i++) {
        loops[i] = check_loop();
    }
    for (int i = 0; i < SLOTS; i++) {
        slots[i].loop = loops[i % LOOPS];
        slots[i].disk = calloc(1, DISK);
        slots[i].node = by_node_create(&disk_ops, &slots[i], 0,
                                       slots[i].loop);
        by_node_set_length(slots[i].node, DISK);
        slots[i].root = by_root_create(slots[i].node);
        by_root_set_writable(slots[i].root, true, false);
        for (int k = 0; k < 2; k++) {
            struct by_bitmap *bitmap = by_bitmap_create(512 << k, 0);

            by_bitmap_attach(bitmap, slots[i].node);
            slots[i].bitmaps[k] = (uintptr_t)bitmap;
        }
    }
    while (rounds--) {
        round_of(slots, server, &random);
    }
    for (int i = 0; i < SLOTS; i++) {
        by_bitmap_free((struct by_bitmap *)slots[i].bitmaps[0]);
        by_bitmap_free((struct by_bitmap *)slots[i].bitmaps[1]);
        by_root_free(slots[i].root, 5);
        CHECK_EQ(check_await(5), 0);
        by_node_free(slots[i].node, 6);
        CHECK_EQ(check_await(6), 0);
        free(slots[i].disk);
    }
    for (int i = 0; i < LOOPS; i++) {
        check_destroy(loops[i]);
    }
    by_stop();
    by_nbd_server_free(server);
    return 0;
}
