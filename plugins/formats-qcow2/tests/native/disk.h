/* SPDX-License-Identifier: Apache-2.0 */
/* disk.h - the disk of world.h: a node with a log of what is not stable. */
#ifndef BLOCKYARD_QCOW2_DISK_H
#define BLOCKYARD_QCOW2_DISK_H

#include "world.h"

enum { DISK_SECTOR = 512 };

struct disk_write {
    uint64_t offset, bytes;
    unsigned char *data;
};

struct disk_op {
    struct by_task task;
    struct disk_op *next;
    struct by_request *req;
    uint64_t mark;              /* FLUSH: the log up to here */
    uint32_t held;              /* while so many others pass */
    int result;
};

struct disk {
    struct by_node node;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    pthread_t thread;
    uint64_t chance;
    unsigned char *now, *stable;
    uint64_t capacity;
    struct disk_write *log;
    uint64_t nlog, log_max, log_first; /* log[0] has the number log_first */
    struct disk_op *ops;
    uint32_t nops;
    uint32_t fails;             /* one in so many; 0: none */
    bool ends;
    bool refuses_growth;        /* a device */
    uint64_t flushes, writes, discards;
};

/* Under the disk's lock. */
static void disk_log(struct disk *disk, uint64_t offset, uint64_t bytes,
                     const struct by_request *from, int fill)
{
    struct disk_write *w;

    if (disk->nlog == disk->log_max) {
        disk->log_max = disk->log_max ? disk->log_max * 2 : 64;
        disk->log = realloc(disk->log, disk->log_max * sizeof(*disk->log));
    }
    w = &disk->log[disk->nlog++];
    w->offset = offset;
    w->bytes = bytes;
    w->data = malloc(bytes ? bytes : 1);
    if (from) {
        uint64_t skip = from->iov_skip, at = 0;

        for (uint32_t i = 0; i < from->niov && at < bytes; i++) {
            uint64_t len = from->iov[i].iov_len;

            if (skip >= len) {
                skip -= len;
                continue;
            }
            len = len - skip < bytes - at ? len - skip : bytes - at;
            memcpy(w->data + at, (char *)from->iov[i].iov_base + skip, len);
            at += len;
            skip = 0;
        }
        CHECK(at == bytes);
    } else {
        memset(w->data, fill, bytes);
    }
    memcpy(disk->now + offset, w->data, bytes);
}

static void disk_stabilize(struct disk *disk, uint64_t mark)
{
    uint64_t n = mark > disk->log_first ? mark - disk->log_first : 0;

    for (uint64_t i = 0; i < n; i++) {
        memcpy(disk->stable + disk->log[i].offset, disk->log[i].data,
               disk->log[i].bytes);
        free(disk->log[i].data);
    }
    if (!n) {
        return;
    }
    memmove(disk->log, disk->log + n, (disk->nlog - n) * sizeof(*disk->log));
    disk->nlog -= n;
    disk->log_first += n;
}

static int disk_read(struct disk *disk, const struct by_request *req)
{
    uint64_t skip = req->iov_skip, at = 0;

    CHECK(by_range_ok(req->offset, req->bytes, disk->node.length));
    for (uint32_t i = 0; i < req->niov && at < req->bytes; i++) {
        uint64_t len = req->iov[i].iov_len;

        if (skip >= len) {
            skip -= len;
            continue;
        }
        len = len - skip < req->bytes - at ? len - skip : req->bytes - at;
        memcpy((char *)req->iov[i].iov_base + skip,
               disk->now + req->offset + at, len);
        at += len;
        skip = 0;
    }
    CHECK(at == req->bytes);
    return 0;
}

static int disk_truncate(struct disk *disk, uint64_t length)
{
    uint64_t before = disk->node.length;

    if (disk->refuses_growth) {
        return -ENOTSUP;
    }
    if (length > disk->capacity) {
        return -ENOSPC;
    }
    if (length < before) {
        disk_log(disk, length, before - length, NULL, 0);
    }
    world_set_length(&disk->node, length);
    return 0;
}

/* Under the lock. */
static int disk_do(struct disk *disk, struct by_request *req, uint64_t mark)
{
    if (disk->fails && req->op != BY_OP_TRUNCATE
        && chance_below(&disk->chance, disk->fails) == 0) {
        return -EIO;
    }
    switch (req->op) {
    case BY_OP_READ:
        return disk_read(disk, req);
    case BY_OP_WRITE:
        disk->writes++;
        if (!by_range_ok(req->offset, req->bytes, disk->capacity)) {
            return -ENOSPC;
        }
        disk_log(disk, req->offset, req->bytes, req, 0);
        if (req->offset + req->bytes > disk->node.length) {
            world_set_length(&disk->node, req->offset + req->bytes);
        }
        return 0;
    case BY_OP_WRITE_ZEROES:
        if (!by_range_ok(req->offset, req->bytes, disk->node.length)) {
            return -EINVAL;
        }
        disk_log(disk, req->offset, req->bytes, NULL, 0);
        return 0;
    case BY_OP_DISCARD: /* whoever discards does not care what is there */
        disk->discards++;
        if (by_range_ok(req->offset, req->bytes, disk->node.length)) {
            disk_log(disk, req->offset, req->bytes, NULL, 0xdd);
        }
        return 0;
    case BY_OP_FLUSH:
        disk->flushes++;
        disk_stabilize(disk, mark);
        return 0;
    case BY_OP_TRUNCATE:
        return disk_truncate(disk, req->offset);
    default:
        return -ENOTSUP;
    }
}

static void disk_op_done(struct by_task *task)
{
    struct disk_op *op = task->owner;
    struct by_request *req = op->req;
    int result = op->result;

    free(op);
    world_complete(req, result);
}

/* Under the lock: one of those that are not held back; if all are, the
 * oldest. */
static struct disk_op **disk_choose(struct disk *disk)
{
    struct disk_op **at, **oldest = &disk->ops, **chosen = NULL;
    uint64_t n = 0;

    for (at = &disk->ops; *at; at = &(*at)->next) {
        oldest = at;
        if ((*at)->held) {
            (*at)->held--;
        } else if (chance_below(&disk->chance, ++n) == 0) {
            chosen = at;
        }
    }
    return chosen ? chosen : oldest;
}

/* What is queued ends in any order, some of it late. */
static void *disk_main(void *argument)
{
    struct disk *disk = argument;

    pthread_mutex_lock(&disk->lock);
    while (disk->nops || !disk->ends) {
        struct disk_op **at, *op;

        if (!disk->nops) {
            pthread_cond_wait(&disk->wake, &disk->lock);
            continue;
        }
        at = disk_choose(disk);
        op = *at;
        *at = op->next;
        disk->nops--;
        op->result = disk_do(disk, op->req, op->mark);
        pthread_mutex_unlock(&disk->lock);
        world_post(op->req->loop, &op->task);
        pthread_mutex_lock(&disk->lock);
    }
    pthread_mutex_unlock(&disk->lock);
    return NULL;
}

static int disk_submit(struct by_node *node, struct by_request *req)
{
    struct disk *disk = node->state;
    uint64_t mark;
    int result = BY_PENDING;

    pthread_mutex_lock(&disk->lock);
    mark = disk->log_first + disk->nlog;
    if (chance_below(&disk->chance, 4) == 0) {
        result = disk_do(disk, req, mark);
    } else {
        struct disk_op *op = calloc(1, sizeof(*op));

        op->task.run = disk_op_done;
        op->task.owner = op;
        op->req = req;
        op->mark = mark;
        op->held = chance_below(&disk->chance, 8) ? 0 : 64;
        op->next = disk->ops;
        disk->ops = op;
        disk->nops++;
        pthread_cond_signal(&disk->wake);
    }
    pthread_mutex_unlock(&disk->lock);
    return result;
}

static const struct by_node_ops disk_ops = {
    .size = sizeof(disk_ops),
    .abi = BY_ABI_VERSION,
    .name = "disk",
    .capabilities = BY_CAP_ANY_LOOP | BY_CAP_ZERO_NEW,
    .submit = disk_submit,
};

static inline struct disk *disk_make(uint64_t capacity, uint64_t seed,
                                     struct by_loop *home)
{
    struct disk *disk = calloc(1, sizeof(*disk));

    disk->node = (struct by_node) {
        .size = sizeof(disk->node), .ops = &disk_ops, .state = disk,
        .home = home,
    };
    disk->capacity = capacity;
    disk->now = calloc(1, capacity);
    disk->stable = calloc(1, capacity);
    disk->chance = seed;
    pthread_mutex_init(&disk->lock, NULL);
    pthread_cond_init(&disk->wake, NULL);
    CHECK(!pthread_create(&disk->thread, NULL, disk_main, disk));
    return disk;
}

static inline void disk_free(struct disk *disk)
{
    pthread_mutex_lock(&disk->lock);
    disk->ends = true;
    pthread_cond_signal(&disk->wake);
    pthread_mutex_unlock(&disk->lock);
    pthread_join(disk->thread, NULL);
    disk_stabilize(disk, disk->log_first + disk->nlog);
    free(disk->log);
    free(disk->now);
    free(disk->stable);
    pthread_cond_destroy(&disk->wake);
    pthread_mutex_destroy(&disk->lock);
    free(disk);
}

/* Bytes behind every request: what is there at the start. */
static inline void disk_fill(struct disk *disk, uint64_t offset,
                             const void *bytes, uint64_t count)
{
    memcpy(disk->now + offset, bytes, count);
    memcpy(disk->stable + offset, bytes, count);
    if (disk->node.length < offset + count) {
        disk->node.length = offset + count;
    }
}

/* What the disk holds when the power goes now; the caller frees it. */
static inline unsigned char *disk_power_cut(struct disk *disk,
                                            uint64_t *length, uint64_t *chance)
{
    static const uint32_t kept[] = { 0, 5, 50, 95, 100 };
    uint32_t percent = kept[chance_below(chance, 5)];
    unsigned char *bytes;

    pthread_mutex_lock(&disk->lock);
    *length = disk->node.length;
    bytes = calloc(1, *length + (1 << 21)); /* whole clusters can be read */
    memcpy(bytes, disk->stable, *length);
    for (uint64_t i = 0; i < disk->nlog; i++) {
        struct disk_write *w = &disk->log[i];

        for (uint64_t at = 0; at < w->bytes;) {
            uint64_t n = DISK_SECTOR - (w->offset + at) % DISK_SECTOR;

            n = n < w->bytes - at ? n : w->bytes - at;
            if (w->offset + at + n <= *length
                && chance_below(chance, 100) < percent) {
                memcpy(bytes + w->offset + at, w->data + at, n);
            }
            at += n;
        }
    }
    pthread_mutex_unlock(&disk->lock);
    return bytes;
}

#endif /* BLOCKYARD_QCOW2_DISK_H */
