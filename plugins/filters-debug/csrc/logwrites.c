/* SPDX-License-Identifier: Apache-2.0 */
/*
 * logwrites.c - blklogwrites: what changes the disk is told to a log, in the
 * format of the kernel's dm-log-writes.
 *
 * Child 0 is the disk, child 1 the log.  A request goes to the disk first, and
 * is logged when that has ended; one entry is written at a time, so that the
 * log has them in the order in which they ended and no entry that could not
 * be written leaves a gap.  The superblock counts nothing but whole entries.
 * Everything runs on the node's home loop.
 */
#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "debug.h"

#define MAGIC 0x6a736677736872ull
#define VERSION 1ull

enum { DISK, LOG };
enum { FLUSH = 1, FUA = 2, DISCARD = 4 };        /* in the log */
enum { ENTRY, DATA, SUPERBLOCK, SYNC };          /* what is on its way */
enum { MORE = BY_PENDING + 1 };

struct by_logging {
    struct by_frame frame;
    struct by_logging *next;    /* in the queue */
    struct by_node *node;
    struct by_request *req;
    struct by_request sub;
    struct iovec iov;
    uint64_t changes;           /* FLUSH: those that it may count on */
    uint64_t sectors;           /* of data in the log */
    int result;                 /* the disk's */
    uint32_t step;
};

struct by_logwrites {
    uint64_t interval;
    uint64_t next;              /* the sector behind the last entry */
    uint64_t entries, saved;    /* in the log; in its superblock */
    uint64_t changes, flushed;  /* begun; before the last flush */
    struct by_logging *first, *last;  /* that wait for the one being logged */
    bool busy;
    uint32_t sector_size;
    unsigned char *sector;      /* of the entry or superblock on its way */
};

static void put(unsigned char *at, uint64_t value)
{
    value = htole64(value);
    memcpy(at, &value, sizeof(value));
}

static void fill_superblock(const struct by_logwrites *log, unsigned char *at)
{
    memset(at, 0, log->sector_size);
    put(at, MAGIC);
    put(at + 8, VERSION);
    put(at + 16, log->entries);
    put(at + 24, log->sector_size); /* 32 bits, and zeroes behind them */
}

static void fill_entry(const struct by_logwrites *log,
                       const struct by_logging *l)
{
    const struct by_request *req = l->req;
    uint64_t flags = req->flags & BY_REQ_FUA ? FUA : 0;

    if (req->op == BY_OP_FLUSH) {
        flags = FLUSH;
    } else if (req->op == BY_OP_DISCARD) {
        flags = DISCARD;
    }
    memset(log->sector, 0, log->sector_size);
    put(log->sector, req->offset / log->sector_size);
    put(log->sector + 8, l->sectors);
    put(log->sector + 16, flags);
}

/* --------------------------------------------------------------- the log */

static void log_ended(struct by_request *sub, int result);

static bool has_data(const struct by_request *req)
{
    return req->op == BY_OP_WRITE || req->op == BY_OP_WRITE_ZEROES;
}

/* A sector of our own, at that place in the log. */
static void write_sector(struct by_logging *l, uint32_t step, uint64_t at)
{
    const struct by_logwrites *log = l->node->state;

    l->step = step;
    l->iov = (struct iovec) { log->sector, log->sector_size };
    l->sub = (struct by_request) {
        .size = sizeof(l->sub), .op = BY_OP_WRITE, .loop = l->req->loop,
        .offset = at * log->sector_size, .bytes = log->sector_size,
        .iov = &l->iov, .niov = 1, .done = log_ended, .owner = l,
    };
}

static void write_data(struct by_logging *l)
{
    const struct by_logwrites *log = l->node->state;

    l->step = DATA;
    l->sub = (struct by_request) {
        .size = sizeof(l->sub), .op = l->req->op, .loop = l->req->loop,
        .offset = (log->next + 1) * log->sector_size, .bytes = l->req->bytes,
        .iov = l->req->iov, .niov = l->req->niov,
        .iov_skip = l->req->iov_skip, .done = log_ended, .owner = l,
    };
}

static void sync_log(struct by_logging *l)
{
    l->step = SYNC;
    l->sub = (struct by_request) {
        .size = sizeof(l->sub), .op = BY_OP_FLUSH, .loop = l->req->loop,
        .done = log_ended, .owner = l,
    };
}

/* What its submitter hears: of the disk first. */
static int outcome(struct by_logging *l, int result)
{
    struct by_logwrites *log = l->node->state;

    if (l->req->op == BY_OP_FLUSH && result == 0
        && log->flushed < l->changes) {
        log->flushed = l->changes;
    }
    return l->result ? l->result : result;
}

/* The entry is whole.  MORE: the superblock has to be told. */
static int count(struct by_logging *l)
{
    struct by_logwrites *log = l->node->state;

    log->next += 1 + (has_data(l->req) ? l->sectors : 0);
    log->entries++;
    if (l->req->op != BY_OP_FLUSH && log->entries % log->interval) {
        return outcome(l, 0);
    }
    fill_superblock(log, log->sector);
    write_sector(l, SUPERBLOCK, 0);
    return MORE;
}

/* A step has ended: MORE with the next one in sub, or the outcome. */
static int follow(struct by_logging *l, int result)
{
    struct by_logwrites *log = l->node->state;

    if (result < 0) {
        return outcome(l, result);
    }
    switch (l->step) {
    case ENTRY:
        if (!has_data(l->req)) {
            return count(l);
        }
        write_data(l);
        return MORE;
    case DATA:
        return count(l);
    case SUPERBLOCK:
        log->saved = log->entries;
        sync_log(l);
        return MORE;
    default:
        return outcome(l, 0);
    }
}

/* Steps until one takes its time. */
static int go(struct by_logging *l, int next)
{
    while (next == MORE) {
        int result = by_debug_api->submit(l->node->children[LOG], &l->sub);

        next = result == BY_PENDING ? BY_PENDING : follow(l, result);
    }
    return next;
}

/* Nothing else is being logged. */
static int begin(struct by_logging *l)
{
    struct by_logwrites *log = l->node->state;
    uint64_t most = INT64_MAX / log->sector_size;

    l->sectors = l->req->bytes / log->sector_size
        + (l->req->bytes % log->sector_size != 0);
    if (!by_range_ok(log->next + 1, has_data(l->req) ? l->sectors : 0, most)) {
        return outcome(l, -EFBIG);
    }
    fill_entry(log, l);
    write_sector(l, ENTRY, log->next);
    return go(l, MORE);
}

static struct by_logging *next_one(struct by_logwrites *log)
{
    struct by_logging *l = log->first;

    if (l) {
        log->first = l->next;
    } else {
        log->busy = false;
    }
    return l;
}

/* The log is not looked at once its last request has ended: who waited for
 * that may take it away. */
static void log_ended(struct by_request *sub, int result)
{
    struct by_logging *l = sub->owner;

    result = go(l, follow(l, result));
    while (result != BY_PENDING) {
        struct by_logging *next = next_one(l->node->state);

        by_debug_api->complete(l->req, result);
        if (!next) {
            return;
        }
        l = next;
        result = begin(l);
    }
}

/* -------------------------------------------------------------- the disk */

/* A write that failed may have changed something; one that was not tried has
 * not, and a flush that failed is none. */
static bool is_logged(const struct by_request *req, int result)
{
    return result == 0 || (req->op != BY_OP_FLUSH && result != -ENOTSUP);
}

static int disk_done(struct by_logging *l, int result)
{
    struct by_logwrites *log = l->node->state;

    l->result = result;
    if (!is_logged(l->req, result)) {
        return result;
    }
    if (log->busy) {
        l->next = NULL;
        if (log->first) {
            log->last->next = l;
        } else {
            log->first = l;
        }
        log->last = l;
        return BY_PENDING;
    }
    log->busy = true;
    result = begin(l);
    if (result != BY_PENDING) {
        log->busy = false; /* nobody came while it went on here */
    }
    return result;
}

static void disk_ended(struct by_request *sub, int result)
{
    struct by_logging *l = sub->owner;

    result = disk_done(l, result);
    if (result != BY_PENDING) {
        by_debug_api->complete(l->req, result);
    }
}

static int logging_done(struct by_request *req, struct by_frame *frame,
                        int result)
{
    (void)req;
    (void)frame;
    return result;
}

static int logged(struct by_node *node, struct by_request *req)
{
    struct by_logwrites *log = node->state;
    struct by_logging *l = (struct by_logging *)
        by_debug_api->frame_push(req, sizeof(*l), logging_done);
    int result;

    if (!l) {
        return -ENOMEM;
    }
    if (req->op != BY_OP_FLUSH) {
        log->changes++;
    }
    l->changes = log->changes;
    l->node = node;
    l->req = req;
    l->sub = *req;
    l->sub.frame = NULL;
    l->sub.done = disk_ended;
    l->sub.owner = l;
    result = by_debug_api->submit(node->children[DISK], &l->sub);
    if (result != BY_PENDING) {
        result = disk_done(l, result);
    }
    if (result != BY_PENDING) {
        by_debug_api->frame_pop(req);
    }
    return result;
}

static int submit(struct by_node *node, struct by_request *req)
{
    const struct by_logwrites *log = node->state;

    switch (req->op) {
    case BY_OP_WRITE:
    case BY_OP_WRITE_ZEROES:
    case BY_OP_DISCARD:
        return logged(node, req);
    case BY_OP_FLUSH:
        /* With nothing behind the last one it is no news, as in QEMU. */
        if (log->changes != log->flushed) {
            return logged(node, req);
        }
        /* fall through */
    default:
        return by_debug_api->submit(node->children[DISK], req);
    }
}

static bool debug_event(struct by_node *node, uint32_t event,
                        struct by_task *resume)
{
    return by_debug_stop(node->children[DISK], event, resume);
}

static const struct by_node_ops ops = {
    .size = sizeof(ops),
    .abi = BY_ABI_VERSION,
    .name = "blklogwrites",
    .capabilities = BY_CAP_FILTER | BY_CAP_ZERO_NEW | BY_CAP_FAST_ZERO
        | BY_CAP_REPEATS_READS,
    .serves = BY_OP_BIT(BY_OP_READ) | BY_OP_BIT(BY_OP_WRITE)
        | BY_OP_BIT(BY_OP_FLUSH) | BY_OP_BIT(BY_OP_DISCARD)
        | BY_OP_BIT(BY_OP_WRITE_ZEROES) | BY_OP_BIT(BY_OP_TRUNCATE)
        | BY_OP_BIT(BY_OP_BLOCK_STATUS) | BY_OP_BIT(BY_OP_PREFETCH),
    .flags = {
        [BY_OP_READ] = BY_REQ_REGISTERED,
        [BY_OP_WRITE] = BY_REQ_FUA | BY_REQ_WRITE_UNCHANGED | BY_REQ_STABLE,
        [BY_OP_WRITE_ZEROES] = BY_REQ_FUA | BY_REQ_WRITE_UNCHANGED
            | BY_REQ_MAY_UNMAP | BY_REQ_NO_FALLBACK,
    },
    .submit = submit,
    .debug_event = debug_event,
};

uintptr_t by_logwrites_ops(void)
{
    return (uintptr_t)&ops;
}

/* ----------------------------------------------------- the control half */

struct by_logwrites *by_logwrites_create(
    const struct by_logwrites_settings *settings)
{
    struct by_logwrites *log = calloc(1, sizeof(*log));
    void *sector;

    if (!log) {
        return NULL;
    }
    if (posix_memalign(&sector, 4096, settings->sector_size)) {
        free(log);
        return NULL;
    }
    log->sector = sector;
    log->sector_size = settings->sector_size;
    log->interval = settings->interval;
    log->next = settings->next;
    log->entries = log->saved = settings->entries;
    return log;
}

uint32_t by_logwrites_superblock(struct by_logwrites *log, void *out)
{
    if (log->saved == log->entries) {
        return 0;
    }
    fill_superblock(log, out);
    log->saved = log->entries;
    return log->sector_size;
}

void by_logwrites_free(struct by_logwrites *log)
{
    if (log) {
        free(log->sector);
        free(log);
    }
}
