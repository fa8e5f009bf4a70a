/* SPDX-License-Identifier: Apache-2.0 */
/*
 * connection.h - one client in the transmission phase.
 *
 * Everything here belongs to the connection's loop.  A command becomes a
 * struct nbd_request when its header is parsed and stays one until the last
 * byte of its reply is sent; that is what in_flight counts and what holds
 * memory, so a client that does not read its replies stops being read.
 *
 *   receive.c   bytes in: headers, payloads, what is drained
 *   command.c   a request through the node, step by step
 *   status.c    block status: extents, and the holes of a read
 *   reply.c     a finished request into bytes
 *   send.c      bytes out, one sendmsg a round
 *   budget.c    how much memory a client and a server hold
 *   connection.c  life and end
 */
#ifndef BY_NBD_CONNECTION_H
#define BY_NBD_CONNECTION_H

#include <sys/socket.h>

#include "blockyard.h"
#include "control.h"
#include "parse.h"
#include "protocol.h"

#define NBD_RX_BYTES   (64 * 1024)      /* of one receive */
#define NBD_TX_IOV     256              /* pieces of one sendmsg */
#define NBD_TX_BYTES   (2 * 1024 * 1024) /* of one sendmsg, roughly */
#define NBD_HEAD_BYTES 48               /* longest reply header and prefix */
#define NBD_FLOOR      (256 * 1024)     /* every client may hold so much */
#define NBD_SECOND     1000000000ull
#define NBD_STATUS_EXTENTS 4096 /* of one context; the client asks again */

struct nbd_connection;
struct nbd_request;

/* What runs when a step of the request has its result; it answers the result
 * of the next step it began, or BY_PENDING when there is nothing to do now. */
typedef int nbd_step(struct nbd_request *request, int result);

struct nbd_extent {
    uint64_t bytes;
    uint32_t state;  /* NBD_STATE_* */
    uint32_t depth;  /* qemu:allocation-depth's number */
};

struct nbd_request {
    struct by_request io;
    struct by_nbd_connection *connection;
    struct nbd_request *next;     /* in the queue of replies */
    nbd_step *then;
    struct nbd_command command;

    uint64_t charge;              /* bytes taken from the budget */
    void *data;                   /* payload; null when there is none */
    struct iovec iov;             /* the same, for io */
    uint64_t data_bytes;

    /* Extents of a BLOCK_STATUS or of a READ with holes. */
    struct nbd_extent *extents;
    uint32_t nextents, max_extents;
    uint32_t asked;               /* status calls so far */
    uint32_t limit;               /* extents wanted at most */
    uint64_t covered;             /* bytes that extents describe */
    struct by_block_status status;

    /* The reply: pieces[sent..npieces) are still to go. */
    struct iovec *pieces;
    uint32_t npieces, sent;
    struct iovec own_pieces[2];
    void *built;                  /* memory of a reply with many pieces */
    uint64_t built_bytes;
    uint8_t head[NBD_HEAD_BYTES];
};

/* Between the control thread and the loop; see connection.c. */
enum nbd_life { NBD_OPEN, NBD_POSTED, NBD_ENDED };

struct by_nbd_connection {
    const struct by_api *api;
    struct by_loop *loop;
    struct by_root *root;
    struct by_nbd_server *server;
    struct nbd_rules rules;
    by_nbd_bitmap_status *bitmap_status;
    struct by_bitmap *bitmaps[NBD_CONTEXTS - NBD_FIRST_BITMAP];
    int fd;

    bool stopping;       /* nothing more is read */
    bool dead;           /* the socket is cut: replies go nowhere */
    bool paused;         /* the limit of requests or bytes was met */
    bool wants_memory;   /* paused for the server's budget */
    bool holes_cheap;    /* the last status came at once and said zero */
    bool status_waits;   /* the last status did not come at once */
    uint8_t status_skips;
    int result;          /* for BY_NBD_CLOSED */

    /* receive */
    struct by_io rx;
    bool rx_busy;
    struct msghdr rx_msg;
    struct iovec rx_iov[2];
    uint8_t *buffer;              /* NBD_RX_BYTES */
    uint32_t start, end;          /* bytes not yet parsed */
    struct nbd_request *filling;  /* its payload comes next... */
    uint8_t *fill_at;             /* ...here */
    uint64_t fill_left;
    uint64_t drain;               /* bytes to be thrown away first */
    struct by_io hold;            /* a timer in place of a receive */
    bool rx_held;                 /* rx_busy is the timer's */
    bool holding;                 /* the client was behind last time */
    uint8_t thin_receives;        /* in a row, of hardly any command */

    /* send */
    struct by_io tx;
    bool tx_busy;
    bool flush_due;
    struct by_task flush;
    struct msghdr tx_msg;
    struct nbd_request *out_first, *out_last;

    /* limits */
    uint32_t max_requests;
    uint32_t in_flight;
    uint64_t budget, held, reserved;

    /* a slow tick: end of a soft stop, memory given back or waited for */
    struct by_io timer;
    bool timer_busy;
    bool timer_cut;               /* cancelled, its end is on the way */
    uint64_t timer_due;
    uint64_t stop_due;            /* 0: none */
    uint64_t progress_at;

    /* control */
    bool started;
    bool end_due;
    struct by_task starter, ender, posted;
    uint32_t life;                /* enum nbd_life; atomic */
    uint32_t posted_hard;         /* atomic */
    uint64_t posted_bound;        /* atomic */
    uint64_t tag;
    struct by_nbd_stats stats;    /* written by the loop, read by anybody */

    struct iovec tx_iov[NBD_TX_IOV];
};

/* Counters are read by other threads. */
static inline void nbd_count(uint64_t *counter, uint64_t more)
{
    __atomic_store_n(counter, *counter + more, __ATOMIC_RELAXED);
}

static inline void nbd_set_in_flight(struct by_nbd_connection *connection,
                                     uint32_t count)
{
    __atomic_store_n(&connection->in_flight, count, __ATOMIC_RELAXED);
}

/* receive.c */
void nbd_receive_init(struct by_nbd_connection *connection);
void nbd_parse_buffer(struct by_nbd_connection *connection);
void nbd_receive_cancel(struct by_nbd_connection *connection);

/* command.c */
struct nbd_request *nbd_request_new(struct by_nbd_connection *connection,
                                    const struct nbd_command *command,
                                    uint64_t charge);
void nbd_request_free(struct nbd_request *request);
void nbd_request_run(struct nbd_request *request);
int nbd_submit(struct nbd_request *request, enum by_op op, uint64_t offset,
               uint64_t bytes, uint32_t flags, nbd_step *then);
bool nbd_get_data(struct nbd_request *request);
/* Bytes that this command will hold while it runs. */
uint64_t nbd_cost(const struct nbd_command *command);

/* status.c */
int nbd_status_begin(struct nbd_request *request);
int nbd_read_begin(struct nbd_request *request, int result);

/* reply.c: each ends the request and answers BY_PENDING. */
int nbd_reply_done(struct nbd_request *request);
int nbd_reply_error(struct nbd_request *request, uint32_t error,
                    const char *message);
int nbd_reply_failure(struct nbd_request *request, int result,
                      const char *message);
int nbd_reply_data(struct nbd_request *request);
int nbd_reply_hole(struct nbd_request *request);
int nbd_reply_extents(struct nbd_request *request); /* a READ in pieces */
int nbd_reply_status(struct nbd_request *request);

/* send.c */
void nbd_send_init(struct by_nbd_connection *connection);
void nbd_send_queue(struct nbd_request *request);
void nbd_send_drop(struct by_nbd_connection *connection);

/* budget.c */
void nbd_budget_open(struct by_nbd_connection *connection, uint64_t budget);
void nbd_budget_close(struct by_nbd_connection *connection);
bool nbd_budget_take(struct by_nbd_connection *connection, uint64_t bytes);
void nbd_budget_give(struct by_nbd_connection *connection, uint64_t bytes);
/* On the tick; true while it is still needed. */
bool nbd_budget_tick(struct by_nbd_connection *connection, uint64_t now);
bool nbd_budget_contended(struct by_nbd_connection *connection, uint64_t now);

/* connection.c */
void nbd_stop(struct by_nbd_connection *connection, int result,
              uint64_t bound_ns);
void nbd_kill(struct by_nbd_connection *connection, int result);
void nbd_progress(struct by_nbd_connection *connection);
void nbd_tick_by(struct by_nbd_connection *connection, uint64_t delay_ns);
void nbd_maybe_end(struct by_nbd_connection *connection);

#endif /* BY_NBD_CONNECTION_H */
