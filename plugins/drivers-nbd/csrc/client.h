/* SPDX-License-Identifier: Apache-2.0 */
/*
 * client.h - the request half of an NBD node.
 *
 * Everything here belongs to the loop that owns the client, which is the
 * node's home loop; only orders (owner.c) come from elsewhere.  A request
 * becomes a struct nbd_call when it is submitted and stays one until it is
 * completed, whatever becomes of the connection it was sent on.
 *
 *   submit.c   a request into a command
 *   client.c   the queue of calls, which connection carries which
 *   send.c     commands out, one sendmsg a round
 *   receive.c  bytes in, payloads straight into the requests' memory
 *   read.c     what the bytes say: replies, chunk by chunk
 *   status.c   block status: extents, and those remembered
 *   connection.c  a connection's life and end
 *   owner.c    orders of the Python half, and moving between loops
 */
#ifndef BY_NBDC_CLIENT_H
#define BY_NBDC_CLIENT_H

#include <pthread.h>
#include <sys/socket.h>

#include "blockyard.h"
#include "control.h"
#include "parse.h"
#include "protocol.h"

#define NBD_RX_BYTES (64 * 1024)
#define NBD_TX_IOV   256
#define NBD_TX_BYTES (2 * 1024 * 1024) /* of one sendmsg, roughly */
#define NBD_SLOTS    128     /* commands under way on one connection */
#define NBD_SHARE    16      /* before another connection gets its turn */
#define NBD_SPANS    1024    /* pieces of a read that do not touch */
#define NBD_ERRORS   64      /* error chunks of one reply */
#define NBD_TRIES    32      /* connections that one call may see die */
#define NBD_EXTENTS  256     /* remembered of one status reply */
#define NBD_FRESH_NS 100000000ull   /* ... for so long */
#define NBD_ASK_MAX  (1ull << 30)   /* bytes asked about at once */
#define NBD_WALK     (128ull << 20) /* ... ahead of what was asked for */
/* A status reply of more than this is no honest server's. */
#define NBD_STATUS_MAX (64ull << 20)

struct nbd_connection;

struct nbd_span {
    uint64_t start, end;     /* relative to the request */
};

struct nbd_call {
    struct nbd_call *next;
    struct by_nbdc *client;
    struct by_request *req;
    uint64_t seq;            /* calls are sent again in this order */
    uint16_t type, flags;    /* of the command */
    uint64_t length;
    uint16_t slot;
    uint16_t tries;
    bool sending;            /* a sendmsg looks at it */
    bool answered;           /* its result is here, its memory in use */
    int result;

    /* Of the reply so far. */
    uint32_t errors;         /* error chunks */
    bool described;          /* a status chunk came */
    uint32_t nspans, room;   /* bytes of a read that are in place */
    struct nbd_span span;    /* the only one, mostly */
    struct nbd_span *spans;  /* or these */
    uint64_t changes;        /* the client's, when it was sent */

    uint8_t head[NBD_EXTENDED_REQUEST_BYTES];
};

struct nbd_queue {
    struct nbd_call *first, *last;
};

struct nbd_slot {
    struct nbd_call *call;
    uint32_t turn;           /* a cookie of another turn is unknown */
    uint16_t next_free;
};

/* What the next bytes are. */
enum nbd_stage {
    NBD_HEAD,                /* a reply's header */
    NBD_PREFIX,              /* what stands before a chunk's payload */
    NBD_DATA,                /* bytes of a read */
    NBD_STATUS,              /* extents */
    NBD_SKIP                 /* bytes that nobody wants */
};

struct nbd_extent {
    uint64_t bytes;
    uint32_t flags;          /* BY_STATUS_* */
};

struct nbd_connection {
    struct by_nbdc *client;
    struct by_nbdc_facts facts;
    int fd;
    bool used;               /* the place in the client's table is taken */
    bool dead;               /* shut down; waits for its operations' end */
    bool broken;             /* the server broke the protocol */
    int result;

    /* receive */
    struct by_io rx;
    bool rx_busy;
    struct msghdr rx_msg;
    struct iovec rx_iov[BY_NBDC_IOV + 1];
    uint64_t rx_direct;      /* bytes of it that go to the request */
    uint8_t *buffer;
    uint32_t start, end;
    enum nbd_stage stage;
    struct nbd_reply reply;
    struct nbd_call *call;   /* the reply's */
    uint64_t data_at;        /* where in the request */
    uint64_t left;           /* of the payload */
    uint64_t extents_at;     /* relative to the request */

    /* send */
    struct by_io tx;
    bool tx_busy;
    bool flush_due;
    struct by_task flush;
    struct msghdr tx_msg;
    uint32_t tx_at, tx_end;  /* pieces of tx_iov still to go */
    struct nbd_queue out;    /* to be sent */
    struct nbd_queue sent;   /* of the sendmsg under way */
    struct iovec tx_iov[NBD_TX_IOV];

    struct nbd_slot slots[NBD_SLOTS];
    uint16_t free_slot;      /* NBD_SLOTS: none */
    uint32_t in_flight;
};

/* Extents that a walk will ask for next. */
struct nbd_memory {
    uint64_t at, end;        /* in the export */
    uint64_t time, changes;
    uint32_t count, next;
    struct nbd_extent extents[NBD_EXTENTS];
};

struct nbd_order;

struct by_nbdc {
    struct by_node_ops ops;
    struct by_nbdc_facts facts;
    const struct by_api *api;
    struct by_node *node;    /* once it has submitted */
    uint64_t tag;
    bool patient;
    bool wanted;             /* BY_NBDC_WANTED was reported */
    bool busy;               /* BY_NBDC_BUSY was */
    bool stopping, stopped;
    bool leaving;            /* for another loop */
    uint64_t seq;
    uint64_t changes;        /* of data, begun or ended */
    uint64_t walk_at;        /* where the last status answer ended */
    struct nbd_queue waiting;
    struct nbd_memory memory;
    struct nbd_connection *connections[BY_NBDC_CONNECTIONS];
    struct by_nbdc_stats stats;

    /* owner.c */
    pthread_mutex_t lock;
    struct by_loop *loop;    /* null while between two; atomic */
    struct nbd_order *orders, *orders_end;
    bool posted;
    struct by_task task;     /* to carry out orders */
    struct by_task move;     /* to leave, and to arrive */
    struct by_loop *next_loop;
    struct nbd_queue arrived; /* before the client did */
};

static inline void nbd_count(uint64_t *counter, uint64_t more)
{
    __atomic_store_n(counter, *counter + more, __ATOMIC_RELAXED);
}

static inline void nbd_push(struct nbd_queue *queue, struct nbd_call *call)
{
    call->next = NULL;
    if (queue->first) {
        queue->last->next = call;
    } else {
        queue->first = call;
    }
    queue->last = call;
}

static inline struct nbd_call *nbd_pop(struct nbd_queue *queue)
{
    struct nbd_call *call = queue->first;

    if (call) {
        queue->first = call->next;
    }
    return call;
}

/* submit.c */
int nbd_submit(struct by_node *node, struct by_request *req);
/* For a call that was made on this loop before the client came here. */
void nbd_submit_again(struct nbd_call *call);
void nbd_set_abilities(struct by_nbdc *client);

/* client.c */
/* Complete the request; the call is gone. */
void nbd_call_end(struct nbd_call *call, int result);
/* The reply is complete: end the call, now or when it has been sent. */
void nbd_call_answer(struct nbd_call *call, int result);
/* Back into the queue. */
void nbd_call_again(struct nbd_call *call);
void nbd_pump(struct by_nbdc *client);
void nbd_fail_waiting(struct by_nbdc *client, int result);
void nbd_report(struct by_nbdc *client, enum by_nbdc_event kind, int result,
                uint64_t a);

/* send.c */
void nbd_send_init(struct nbd_connection *connection);
void nbd_send(struct nbd_connection *connection, struct nbd_call *call);
void nbd_send_goodbye(struct nbd_connection *connection);

/* receive.c */
void nbd_receive_init(struct nbd_connection *connection);
void nbd_receive(struct nbd_connection *connection);

/* read.c: take what the buffer holds; -EPROTO when it makes no sense. */
int nbd_read(struct nbd_connection *connection);
/* Bytes that went straight to the request of an NBD_DATA stage. */
int nbd_read_direct(struct nbd_connection *connection, uint64_t count);
void nbd_call_forget(struct nbd_call *call);

/* status.c */
bool nbd_status_known(struct by_nbdc *client, struct by_request *req);
uint64_t nbd_status_wish(struct by_nbdc *client, const struct by_request *req,
                         uint16_t *flags);
/* The first bytes of a status chunk, behind the context's id. */
void nbd_status_begin(struct nbd_call *call);
/* One extent; -EPROTO when there can be none such. */
int nbd_status_extent(struct nbd_call *call, uint32_t context, uint64_t at,
                      uint64_t bytes, uint64_t flags);

/* connection.c */
int nbd_connection_open(struct by_nbdc *client, int fd,
                        const struct by_nbdc_facts *facts);
/* Cut it; what it carried is sent again, or fails where `broken`. */
void nbd_connection_fail(struct nbd_connection *connection, int result,
                         bool broken);
/* Something that it waited for has ended. */
void nbd_connection_settle(struct nbd_connection *connection);
uint32_t nbd_connection_count(const struct by_nbdc *client);
struct nbd_slot *nbd_slot_take(struct nbd_connection *connection,
                               struct nbd_call *call);
void nbd_slot_give(struct nbd_connection *connection, struct nbd_call *call);
struct nbd_call *nbd_slot_find(struct nbd_connection *connection,
                               uint64_t cookie);
uint64_t nbd_slot_cookie(const struct nbd_connection *connection,
                         const struct nbd_call *call);

/* owner.c */
enum nbd_order_kind { NBD_ADD, NBD_PATIENT, NBD_CUT, NBD_STOP };

struct nbd_order {
    struct nbd_order *next;
    enum nbd_order_kind kind;
    bool patient;
    int fd;
    struct by_nbdc_facts facts;
};

int nbd_give_order(struct by_nbdc *client, struct nbd_order order);
void nbd_owner_init(struct by_nbdc *client, struct by_loop *loop);
void nbd_owner_end(struct by_nbdc *client);
bool nbd_here(struct by_nbdc *client, struct by_loop *loop);
void nbd_arrive_later(struct by_nbdc *client, struct nbd_call *call,
                      struct by_loop *loop);
void nbd_drain_end(struct by_node *node);
/* True when the client is another loop's from now on. */
bool nbd_leave_if_idle(struct by_nbdc *client);
/* Its report is the last that is done with the client here. */
void nbd_stop_if_idle(struct by_nbdc *client);

#endif /* BY_NBDC_CLIENT_H */
