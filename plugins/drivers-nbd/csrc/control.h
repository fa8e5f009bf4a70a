/* SPDX-License-Identifier: Apache-2.0 */
/*
 * control.h - what the Python half calls.
 *
 * Also read by cffi: nothing but comments, includes, plain structures and
 * prototypes.  All of it is called on the control thread and never waits.
 *
 * A client is the request half of one node.  It has up to
 * BY_NBDC_CONNECTIONS connections, which the Python half makes, negotiates
 * and hands over.  Requests that find none wait while the client is patient,
 * and fail with EIO when it is not.
 */
#ifndef BY_NBDC_CONTROL_H
#define BY_NBDC_CONTROL_H

#include <stdbool.h>
#include <stdint.h>

struct by_nbdc;

enum by_nbdc_limits {
    BY_NBDC_CONNECTIONS = 4,
    BY_NBDC_IOV = 128          /* entries in one request's scatter list */
};

/* How replies look; the later include the former. */
enum by_nbdc_mode {
    BY_NBDC_SIMPLE = 0,
    BY_NBDC_STRUCTURED = 1,
    BY_NBDC_EXTENDED = 2
};

/* What the answers of BLOCK_STATUS mean. */
enum by_nbdc_context {
    BY_NBDC_NO_CONTEXT = 0,
    BY_NBDC_FLAGS = 1,         /* base:allocation, or read as if it were */
    BY_NBDC_DEPTH = 2          /* qemu:allocation-depth, read the same way */
};

/* Of one connection. */
struct by_nbdc_facts {
    uint32_t mode;             /* enum by_nbdc_mode */
    uint32_t context;          /* enum by_nbdc_context */
    uint32_t context_id;
    uint32_t flags;            /* the transmission flags */
    uint32_t block;            /* status requests are multiples of this */
    uint32_t reserved;
};

enum by_nbdc_event {
    BY_NBDC_LOST = 1,    /* a connection ended: result; a = those left */
    BY_NBDC_WANTED = 2,  /* a request failed for want of a connection */
    BY_NBDC_BUSY = 3,    /* more requests than one connection carries well */
    BY_NBDC_STOPPED = 4  /* nothing runs any more; the client may be freed */
};

struct by_nbdc_stats {
    uint64_t requests;   /* taken from core */
    uint64_t resent;     /* because their connection was lost */
    uint64_t progress;   /* bytes that came, and connections */
    uint64_t in_flight;
    uint64_t waiting;    /* without a connection */
    uint64_t connections;
    uint64_t receives, sends;
    uint64_t asked;      /* block status commands */
};

/* Core's table; 0, or -EPROTO if it is another version's. */
int by_nbdc_init(uintptr_t api);

/* A client that `loop` serves, without a connection.  `facts` are those that
 * every later connection is held to by the Python half.  Null: no memory. */
struct by_nbdc *by_nbdc_create(uintptr_t loop,
                               const struct by_nbdc_facts *facts,
                               uint64_t tag);
/* The node's operations; they live as long as the client. */
uintptr_t by_nbdc_ops(struct by_nbdc *client);

/* Requests that find no connection wait (true) or fail (false).  False also
 * fails those that wait. */
void by_nbdc_set_patient(struct by_nbdc *client, bool patient);
/* Hand over a connection; the descriptor goes with it whatever happens.
 * -ENOMEM, with the descriptor closed. */
int by_nbdc_add(struct by_nbdc *client, int fd,
                const struct by_nbdc_facts *facts);
/* End every connection, and fail what was under way on it. */
void by_nbdc_cut(struct by_nbdc *client);
/* Say goodbye, close, and report BY_NBDC_STOPPED once; -ENOMEM: it will not. */
int by_nbdc_stop(struct by_nbdc *client);
/* After BY_NBDC_STOPPED, or before the first by_nbdc_add. */
void by_nbdc_free(struct by_nbdc *client);
void by_nbdc_get_stats(const struct by_nbdc *client,
                       struct by_nbdc_stats *out);

#endif /* BY_NBDC_CONTROL_H */
