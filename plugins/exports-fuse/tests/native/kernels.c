/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kernels.c - queues under good and bad kernels, for the sanitizers.
 *
 * kernels BACKEND [rounds [seed]]: in each round every slot, which has a disk
 * of memory, is an export with two queues on different loops.  A socket that
 * keeps messages apart stands for each descriptor, and a thread for the kernel
 * behind it: one that checks its data, one that sends noise, one that asks and
 * never reads.  Some queues are stopped at a random moment.  Each must end,
 * answer what it took, and give all memory back.
 */
#include "check.h"

#include <pthread.h>
#include <fcntl.h>
#include <sys/socket.h>

#include "../../csrc/queue.h"

enum { SLOTS = 3, QUEUES = 2, LOOPS = 2, DISK = 4 << 20, TAG = 1000 };

struct kernel {
    struct slot *slot;
    struct by_fuse_queue *queue;
    pthread_t thread;
    uint64_t random, unique;
    uint64_t from;        /* its half of the disk */
    int kind, fd;
    bool ended;
};

struct slot {
    struct by_loop *loop;
    struct by_node *node;
    struct by_root *root;
    struct by_fuse_export *export;
    struct kernel kernels[QUEUES];
    uint8_t *disk;
    uint64_t random;      /* the disk's, under its home's thread or not */
    bool fails;
    int number;
};

struct held {             /* a request that the disk answers later */
    struct by_task task;
    struct by_request *req;
    struct by_loop *loop;
    int result;
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
    uint64_t piece = 1 + roll(&slot->random) % 100000;

    req->u.status->bytes = piece < req->bytes ? piece : req->bytes;
    req->u.status->flags = roll(&slot->random) % 2
        ? BY_STATUS_ZERO : BY_STATUS_DATA | BY_STATUS_ALLOCATED;
}

static void later(struct by_task *task)
{
    struct held *held = task->owner;
    struct by_request *req = held->req;
    int result = held->result;

    by_slab_put(held->loop, held, sizeof(*held));
    by_api_table()->complete(req, result);
}

static int serve(struct slot *slot, struct by_request *req)
{
    switch (req->op) {
    case BY_OP_BLOCK_STATUS:
        describe(slot, req);
        return 0;
    case BY_OP_TRUNCATE:
        return req->offset > DISK ? -EFBIG : 0;
    case BY_OP_WRITE_ZEROES:
        memset(slot->disk + req->offset, 0, req->bytes);
        return 0;
    case BY_OP_READ:
    case BY_OP_WRITE:
        copy(slot, req);
        return 0;
    default:
        return 0;
    }
}

static int disk_submit(struct by_node *node, struct by_request *req)
{
    struct slot *slot = node->state;
    struct held *held;
    int result = serve(slot, req);

    if (slot->fails && roll(&slot->random) % 64 == 0) {
        return -EIO;
    }
    if (roll(&slot->random) % 2) {
        return result;
    }
    held = by_slab_get(req->loop, sizeof(*held));
    held->task.run = later;
    held->task.owner = held;
    held->req = req;
    held->loop = req->loop;
    held->result = result;
    by_loop_post(req->loop, &held->task);
    return BY_PENDING;
}

static const struct by_node_ops disk_ops = {
    .size = sizeof(disk_ops),
    .abi = BY_ABI_VERSION,
    .name = "test-disk",
    .serves = BY_OP_BIT(BY_OP_READ) | BY_OP_BIT(BY_OP_WRITE) |
              BY_OP_BIT(BY_OP_FLUSH) | BY_OP_BIT(BY_OP_WRITE_ZEROES) |
              BY_OP_BIT(BY_OP_TRUNCATE) | BY_OP_BIT(BY_OP_BLOCK_STATUS),
    .submit = disk_submit,
};

/* -------------------------------------------------------------- kernels */

/* False: the queue has gone. */
static bool ask(struct kernel *kernel, uint32_t opcode, const void *body,
                size_t bytes, const void *data, size_t data_bytes)
{
    struct fuse_in_header in = {
        .len = (uint32_t)(sizeof(in) + bytes + data_bytes),
        .opcode = opcode, .unique = ++kernel->unique, .nodeid = FUSE_ROOT_ID,
    };
    struct iovec iov[3] = {
        { &in, sizeof(in) }, { (void *)body, bytes },
        { (void *)data, data_bytes },
    };
    struct msghdr msg = { .msg_iov = iov, .msg_iovlen = 3 };

    return sendmsg(kernel->fd, &msg, MSG_NOSIGNAL) >= 0;
}

/* The answer's error, or 1: there is none.  out has room for FUSE_MAX_IO. */
static int answer(struct kernel *kernel, void *out, size_t *bytes)
{
    struct fuse_out_header head;
    struct iovec iov[2] = {
        { &head, sizeof(head) }, { out, FUSE_MAX_IO },
    };
    struct msghdr msg = { .msg_iov = iov, .msg_iovlen = 2 };
    ssize_t n = recvmsg(kernel->fd, &msg, 0);

    if (n <= 0) {
        return 1;
    }
    CHECK(n >= (ssize_t)sizeof(head));
    CHECK_EQ(head.len, n);
    CHECK_EQ(head.unique, kernel->unique);
    CHECK(head.error <= 0 && head.error > -512);
    *bytes = (size_t)n - sizeof(head);
    CHECK(!head.error || !*bytes);
    return head.error;
}

static bool begin_session(struct kernel *kernel, void *buffer)
{
    struct fuse_init_in in = {
        .major = FUSE_KERNEL_VERSION, .minor = FUSE_KERNEL_MINOR_VERSION,
        .flags = ~0u, .flags2 = ~0u,
    };
    struct fuse_init_out *out = buffer;
    size_t bytes;

    if (!ask(kernel, FUSE_INIT, &in, sizeof(in), NULL, 0)
        || answer(kernel, buffer, &bytes) > 0) {
        return false;
    }
    CHECK_EQ(bytes, sizeof(*out));
    CHECK_EQ(out->max_write, FUSE_MAX_IO);
    return true;
}

/* What is written is read again: nobody else writes to this half. */
static void good(struct kernel *kernel, uint8_t *buffer)
{
    uint8_t *data = malloc(100000);

    for (int i = 0; i < 100; i++) {
        struct fuse_write_in in = { .size = 0 };
        struct fuse_read_in read = { .fh = 0 };
        size_t bytes;
        int error;

        in.size = 1 + (uint32_t)(roll(&kernel->random) % 99999);
        in.offset = kernel->from + roll(&kernel->random) % (DISK / 2 - in.size);
        memset(data, (int)roll(&kernel->random), in.size);
        if (!ask(kernel, FUSE_WRITE, &in, sizeof(in), data, in.size)
            || (error = answer(kernel, buffer, &bytes)) > 0) {
            break;
        }
        if (error) {
            continue;
        }
        CHECK_EQ(((struct fuse_write_out *)buffer)->size, in.size);
        read.offset = in.offset;
        read.size = in.size;
        if (!ask(kernel, FUSE_READ, &read, sizeof(read), NULL, 0)
            || (error = answer(kernel, buffer, &bytes)) > 0) {
            break;
        }
        if (!error) {
            CHECK_EQ(bytes, in.size);
            CHECK(!memcmp(buffer, data, bytes));
        }
    }
    free(data);
}

/* Any request, with any values. */
static bool ask_anything(struct kernel *kernel, uint32_t opcode)
{
    uint64_t body[12];
    uint64_t *random = &kernel->random;

    for (unsigned i = 0; i < 12; i++) {
        body[i] = roll(random) % 3 ? roll(random) % DISK : roll(random);
    }
    switch (opcode) {
    case FUSE_LSEEK:
        body[2] = 3 + roll(random) % 3;
        break;
    case FUSE_FALLOCATE:
        body[3] = (uint64_t[]) { 0, 3, 16, 17 }[roll(random) % 4];
        break;
    case FUSE_SETATTR:
        body[0] = roll(random) % 2 ? FATTR_SIZE : roll(random) % 512;
        break;
    default:
        break;
    }
    return ask(kernel, opcode, body, 8 * (roll(random) % 16 ? 11 : 3),
               NULL, 0);
}

static const uint32_t opcodes[] = {
    FUSE_GETATTR, FUSE_SETATTR, FUSE_OPEN, FUSE_READ, FUSE_WRITE, FUSE_STATFS,
    FUSE_RELEASE, FUSE_FSYNC, FUSE_FLUSH, FUSE_LSEEK, FUSE_FALLOCATE,
    FUSE_LOOKUP, FUSE_GETXATTR, FUSE_INTERRUPT, FUSE_POLL, 4711,
};

static void strange(struct kernel *kernel, uint8_t *buffer)
{
    size_t bytes;

    for (int i = 0; i < 200; i++) {
        uint32_t opcode = opcodes[roll(&kernel->random) % 16];

        if (!ask_anything(kernel, opcode)
            || answer(kernel, buffer, &bytes) > 0) {
            return;
        }
    }
}

/* Not even messages. */
static void noise(struct kernel *kernel, uint8_t *buffer)
{
    for (int i = 0; i < 200; i++) {
        size_t bytes = 1 + roll(&kernel->random) % 300;

        for (size_t at = 0; at < bytes; at += 8) {
            uint64_t n = roll(&kernel->random);

            memcpy(buffer + at, &n, 8);
        }
        if (roll(&kernel->random) % 2) {
            uint32_t len = (uint32_t)bytes;

            memcpy(buffer, &len, sizeof(len));
        }
        if (send(kernel->fd, buffer, bytes, MSG_NOSIGNAL) < 0) {
            return;
        }
        while (recv(kernel->fd, buffer, 4096, MSG_DONTWAIT) > 0) {
        }
    }
}

/* Asks for much, until nobody takes it any more, and reads no answer. */
static void deaf(struct kernel *kernel, uint8_t *buffer)
{
    struct timeval limit = { .tv_usec = 20000 };

    (void)buffer;
    setsockopt(kernel->fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
    for (int i = 0; i < 400; i++) {
        struct fuse_read_in in = { .size = FUSE_MAX_IO };

        if (!ask(kernel, FUSE_READ, &in, sizeof(in), NULL, 0)) {
            return;
        }
    }
}

static void *run_kernel(void *arg)
{
    static void (*const kinds[])(struct kernel *, uint8_t *) = {
        good, good, strange, noise, deaf,
    };
    struct kernel *kernel = arg;
    uint8_t *buffer = malloc(FUSE_MAX_IO + 4096);

    if (kernel->kind == 3 || begin_session(kernel, buffer)) {
        kinds[kernel->kind](kernel, buffer);
    }
    close(kernel->fd);
    free(buffer);
    return NULL;
}

/* ---------------------------------------------------------------- rounds */

static void begin_queue(struct slot *slot, struct by_loop **loops, int i,
                        uint64_t *random)
{
    struct kernel *kernel = &slot->kernels[i];
    int pair[2], error, size = 4 << 20;

    CHECK_EQ(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair), 0);
    for (int k = 0; k < 2; k++) {
        setsockopt(pair[k], SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof(size));
    }
    CHECK(!fcntl(pair[0], F_SETFL, O_NONBLOCK));
    *kernel = (struct kernel) {
        .slot = slot, .fd = pair[1], .random = roll(random) | 1,
        .from = (uint64_t)i * (DISK / 2),
    };
    kernel->queue = by_fuse_start(
        slot->export, (uintptr_t)loops[(slot->number + i) % LOOPS], pair[0],
        TAG + 10 * slot->number + i, &error);
    CHECK(kernel->queue);
}

static void begin(struct slot *slot, struct by_loop **loops, uint64_t *random)
{
    struct by_fuse_params params = {
        .writable = true, .growable = roll(random) % 2,
        .allow_other = roll(random) % 2, .block_size = 4096,
        .max_requests = 1 + (uint32_t)(roll(random) % 40),
        .max_held = roll(random) % (3 << 20),
    };
    bool bad = roll(random) % 2;

    slot->random = roll(random) | 1;
    slot->fails = bad;
    by_node_set_length(slot->node, DISK);
    slot->export = by_fuse_create((uintptr_t)by_api_table(),
                                  (uintptr_t)slot->root, &params,
                                  TAG + 10 * slot->number + 9);
    CHECK(slot->export);
    for (int i = 0; i < QUEUES; i++) {
        begin_queue(slot, loops, i, random);
        /* Those that check share the disk with none that changes it. */
        slot->kernels[i].kind = bad ? 2 + (int)(roll(random) % 3) : i % 2;
    }
    for (int i = 0; i < QUEUES; i++) {
        pthread_create(&slot->kernels[i].thread, NULL, run_kernel,
                       &slot->kernels[i]);
    }
}

static void take_events(struct slot *slots)
{
    struct pollfd pfd = { .fd = by_event_fd(), .events = POLLIN };
    struct by_event events[8];
    int n;

    CHECK(poll(&pfd, 1, 30000) == 1);
    n = by_event_take(events, 8);
    for (int i = 0; i < n; i++) {
        struct slot *slot = &slots[(events[i].tag - TAG) / 10];

        if (events[i].kind == BY_FUSE_ENDED) {
            slot->kernels[(events[i].tag - TAG) % 10].ended = true;
        } else {
            CHECK_EQ(events[i].kind, BY_FUSE_CHANGED);
            by_fuse_set_allocated(slot->export, events[i].tag);
        }
    }
}

static void end(struct slot *slots, struct slot *slot)
{
    struct by_fuse_stats stats;

    for (int i = 0; i < QUEUES; i++) {
        struct kernel *kernel = &slot->kernels[i];

        while (!kernel->ended) {
            take_events(slots);
        }
        pthread_join(kernel->thread, NULL);
        by_fuse_get_stats(kernel->queue, &stats);
        CHECK_EQ(stats.in_flight, 0);
        CHECK_EQ(stats.held, 0);
        by_fuse_free(kernel->queue);
    }
    CHECK(!slot->export->first);
    CHECK(!slot->export->waiting);
}

static void round_of(struct slot *slots, struct by_loop **loops,
                     uint64_t *random)
{
    for (int i = 0; i < SLOTS; i++) {
        begin(&slots[i], loops, random);
    }
    usleep(roll(random) % 3000);
    for (int i = 0; i < SLOTS * QUEUES; i++) {
        if (roll(random) % 2) {
            by_fuse_stop(slots[i / QUEUES].kernels[i % QUEUES].queue);
            by_fuse_stop(slots[i / QUEUES].kernels[i % QUEUES].queue);
        }
    }
    for (int i = 0; i < SLOTS; i++) {
        end(slots, &slots[i]);
    }
    for (int i = 0; i < SLOTS; i++) {
        by_fuse_destroy(slots[i].export);
    }
}

int main(int argc, char **argv)
{
    int rounds = argc > 2 ? atoi(argv[2]) : 50;
    uint64_t random = 88172645463325252ull + (argc > 3 ? atoi(argv[3]) : 0);
    struct by_loop *loops[LOOPS];
    struct slot slots[SLOTS] = { 0 };

    check_start(argc, argv);
    for (int i = 0; i < LOOPS; i++) {
        loops[i] = check_loop();
    }
    for (int i = 0; i < SLOTS; i++) {
        slots[i].number = i;
        slots[i].loop = loops[i % LOOPS];
        slots[i].disk = calloc(1, DISK);
        slots[i].node = by_node_create(&disk_ops, &slots[i], 0,
                                       slots[i].loop);
        slots[i].root = by_root_create(slots[i].node);
        by_root_set_writable(slots[i].root, true, false);
    }
    while (rounds--) {
        round_of(slots, loops, &random);
    }
    for (int i = 0; i < SLOTS; i++) {
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
    return 0;
}
