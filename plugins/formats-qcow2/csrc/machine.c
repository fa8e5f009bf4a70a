/* SPDX-License-Identifier: Apache-2.0 */
/*
 * machine.c - the state of a machine, saved behind the disk's end.
 *
 * It is mapped by L1 and L2 as the disk is, from the first L1 entry on that
 * the disk does not need.  No guest reads it, so that it goes past core, for
 * which the disk ends where it does for guests.
 */
#include <errno.h>
#include <semaphore.h>

#include "control.h"
#include "requests.h"
#include "tables.h"

struct q2_machine {
    struct by_task task;
    struct by_request req;
    struct iovec iov;
    struct by_qcow2 *q;
    sem_t ended;
    int result;
};

static void ended(struct by_request *req, int result)
{
    struct q2_machine *m = req->owner;

    m->result = result;
    sem_post(&m->ended);
}

static void begin(struct by_task *task)
{
    struct q2_machine *m = task->owner;
    int result = m->req.op == BY_OP_WRITE ? q2_write(m->q, &m->req)
                                          : q2_read(m->q, &m->req);

    if (result != BY_PENDING) {
        ended(&m->req, result);
    }
}

/* Send it on the loop that serves the node, and wait here. */
static int transfer(struct by_qcow2 *q, uint8_t op, uint64_t guest,
                    void *buffer, uint64_t bytes)
{
    struct q2_machine m = {
        .task = { .run = begin, .owner = &m },
        .iov = { buffer, bytes },
        .q = q,
    };

    m.req = (struct by_request) {
        .size = sizeof(m.req), .op = op, .flags = BY_REQ_STABLE,
        .offset = guest, .bytes = bytes, .iov = &m.iov, .niov = 1,
        .loop = q->node->home, .done = ended, .owner = &m,
    };
    if (sem_init(&m.ended, 0, 0) < 0) {
        return -errno;
    }
    q2_api->loop_post(q->node->home, &m.task);
    while (sem_wait(&m.ended) < 0) {
        ; /* a signal */
    }
    sem_destroy(&m.ended);
    return m.result;
}

uint64_t by_qcow2_machine_offset(struct by_qcow2 *q)
{
    return q2_l1_entries(q, q->size) << (q->cluster_bits + q->l2_bits);
}

int by_qcow2_machine_state(struct by_qcow2 *q, uint64_t offset, void *buffer,
                           uint64_t bytes, bool save)
{
    uint64_t from = by_qcow2_machine_offset(q), end;
    int result = 0;

    if (!by_range_ok(offset, bytes, INT64_MAX)
        || !by_range_ok(from, offset + bytes, INT64_MAX)) {
        return -EFBIG;
    }
    end = from + offset + bytes;
    if (save) {
        pthread_mutex_lock(&q->meta);
        result = q2_l1_grow(q, q2_l1_entries(q, end), NULL);
        pthread_mutex_unlock(&q->meta);
    }
    return result == 0 && bytes
        ? transfer(q, save ? BY_OP_WRITE : BY_OP_READ, from + offset, buffer,
                   bytes)
        : result;
}
