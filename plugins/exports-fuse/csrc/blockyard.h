/* SPDX-License-Identifier: Apache-2.0 */
/*
 * blockyard.h - the one header a native plugin compiles against.
 *
 * Core hands a plugin a table of functions (struct by_api); a plugin hands
 * core a table of operations (struct by_node_ops).  Nothing links against
 * anything.  Every structure that crosses the border begins with its size, so
 * that fields can be added at its end; a plugin built for another
 * BY_ABI_VERSION is refused by name.
 *
 * Threads.  A loop is one native thread.  "On the loop" below means: called by
 * that thread.  Unless a line says "any thread", a function of struct by_api
 * may be called only on the loop it is given, and no function of a plugin's
 * table may make a call that waits on a disk, a peer or a lock that is held
 * while somebody waits.  What must wait goes to the pool (pool_submit).
 *
 * Results.  0 is success, a negative errno is failure.  submit may answer
 * BY_PENDING as well: the request is then completed later, exactly once, on
 * the loop that submitted it.
 */
#ifndef BLOCKYARD_H
#define BLOCKYARD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#define BY_ABI_VERSION 1

/* submit: the request was taken and by_api.complete will be called for it. */
#define BY_PENDING 1

struct by_api;
struct by_loop;
struct by_node;
struct by_root;
struct by_request;
struct by_frame;
struct by_task;

/* ------------------------------------------------------------- requests */

enum by_op {
    BY_OP_READ,
    BY_OP_WRITE,
    BY_OP_FLUSH,        /* offset and bytes are 0 */
    BY_OP_DISCARD,
    BY_OP_WRITE_ZEROES,
    BY_OP_TRUNCATE,     /* offset is the new length */
    BY_OP_BLOCK_STATUS,
    BY_OP_COPY_RANGE,   /* from this node to u.copy.target */
    BY_OP_PREFETCH,     /* a hint; succeeds where it is not served */
    BY_OP_COUNT
};
#define BY_OP_BIT(op) (1u << (op))

/* by_request.flags; what a node does not serve itself core emulates. */
#define BY_REQ_FUA             0x0001u /* on stable storage at completion */
#define BY_REQ_MAY_UNMAP       0x0002u /* zeroes may deallocate */
#define BY_REQ_NO_FALLBACK     0x0004u /* -ENOTSUP rather than slow zeroes */
#define BY_REQ_WRITE_UNCHANGED 0x0008u /* guest-visible data stays the same */
#define BY_REQ_COMPRESSED      0x0010u
#define BY_REQ_SERIALISING     0x0020u /* nothing overlapping runs beside it */
#define BY_REQ_REGISTERED      0x0040u /* iov lies in registered memory */
#define BY_REQ_STABLE          0x0080u /* nobody changes the payload meanwhile */
#define BY_REQ_FRESH           0x0100u /* a hint: nothing lies there as yet */

/* by_block_status.flags */
#define BY_STATUS_DATA       0x01u /* the range is backed by data here */
#define BY_STATUS_ZERO       0x02u /* the range reads as zeroes */
#define BY_STATUS_ALLOCATED  0x04u /* the range is decided by this layer */
#define BY_STATUS_OFFSET     0x08u /* host_offset and owner are valid */
#define BY_STATUS_COMPRESSED 0x10u
#define BY_STATUS_RECURSE    0x20u /* ask owner at host_offset for more */
                                /* (without ALLOCATED: it decides, not we) */
#define BY_STATUS_EOF        0x40u /* the range ends at the node's end */

/*
 * What a BLOCK_STATUS asks and gets.  The answer is about the first `bytes`
 * bytes at the request's offset: 1 <= bytes <= request.bytes on success.
 */
struct by_block_status {
    uint32_t size;
    uint32_t flags;
    uint64_t bytes;
    uint64_t host_offset;   /* in owner */
    struct by_node *owner;
    uint32_t depth;         /* layers below the asked node; 0 is the node */
    bool precise;           /* in: false allows a cheaper "data" answer */
    uint8_t reserved[3];
    uint32_t layers;        /* in: of a backing chain, how many may be asked;
                               0 is all */
    uint32_t reserved1;
};

enum by_prealloc {
    BY_PREALLOC_OFF,
    BY_PREALLOC_METADATA,
    BY_PREALLOC_FALLOC,
    BY_PREALLOC_FULL
};

/*
 * One request.  The submitter owns the structure, the iovec array and the
 * memory it names, and keeps all three alive and unmoved until completion.
 * Core and the layers below change fields of a request they forward; what the
 * submitter set reads the same again at completion.
 *
 * The payload is the `bytes` bytes that begin `iov_skip` bytes into iov.
 */
struct by_request {
    uint32_t size;
    uint8_t op;              /* enum by_op */
    uint8_t reserved0;
    uint16_t reserved1;
    uint32_t flags;          /* BY_REQ_* */
    uint32_t niov;
    uint64_t offset;
    uint64_t bytes;
    const struct iovec *iov;
    uint64_t iov_skip;
    struct by_loop *loop;    /* the loop that submits; set by the submitter */

    /* On the loop.  Not called when submit answered anything but BY_PENDING. */
    void (*done)(struct by_request *req, int result);
    void *owner;             /* the submitter's; nobody else touches it */

    union {
        struct by_block_status *status;
        struct {
            struct by_node *target;
            uint64_t target_offset;
        } copy;
        struct {
            uint32_t prealloc; /* enum by_prealloc */
            bool exact;        /* a longer result is a failure */
        } truncate;
        uint64_t reserved[3];
    } u;

    struct by_frame *frame;  /* core's and the layers' stack; 0 at submit */
    uint64_t reserved2[2];
};

/*
 * A layer's own state for one request that it forwards (by_api.frame_push).
 * done runs on the loop before the frame is returned to the slab; what it
 * returns is the result that the layer above sees, or BY_PENDING when it has
 * started more work and will call by_api.complete again by itself.
 */
struct by_frame {
    struct by_frame *below;  /* the frame pushed before this one */
    int (*done)(struct by_request *req, struct by_frame *frame, int result);
    uint32_t bytes;          /* of the slab piece */
    uint32_t reserved;
    /* the layer's fields follow */
};

/* ---------------------------------------------------------------- nodes */

/* by_node_ops.capabilities */
#define BY_CAP_ANY_LOOP      0x01u /* submit may be called on every loop */
#define BY_CAP_FILTER        0x02u /* shows child 0's data unchanged */
#define BY_CAP_ZERO_NEW      0x04u /* truncate's new area reads as zeroes */
#define BY_CAP_FAST_ZERO     0x08u /* BY_REQ_NO_FALLBACK is worth trying */
#define BY_CAP_REPEATS_READS 0x10u /* reads a write's payload twice: copy it
                                      unless it is BY_REQ_STABLE */
#define BY_CAP_LISTENS       0x20u /* acts on debug events itself */

/* What a driver tells a child before the request that it is about, or behind
 * it (by_debug_event): QAPI's BlkdebugEvent, in its order. */
enum by_debug_event {
    BY_DEBUG_L1_UPDATE, BY_DEBUG_L1_GROW_ALLOC_TABLE,
    BY_DEBUG_L1_GROW_WRITE_TABLE, BY_DEBUG_L1_GROW_ACTIVATE_TABLE,
    BY_DEBUG_L2_LOAD, BY_DEBUG_L2_UPDATE, BY_DEBUG_L2_UPDATE_COMPRESSED,
    BY_DEBUG_L2_ALLOC_COW_READ, BY_DEBUG_L2_ALLOC_WRITE, BY_DEBUG_READ_AIO,
    BY_DEBUG_READ_BACKING_AIO, BY_DEBUG_READ_COMPRESSED, BY_DEBUG_WRITE_AIO,
    BY_DEBUG_WRITE_COMPRESSED, BY_DEBUG_VMSTATE_LOAD, BY_DEBUG_VMSTATE_SAVE,
    BY_DEBUG_COW_READ, BY_DEBUG_COW_WRITE, BY_DEBUG_REFTABLE_LOAD,
    BY_DEBUG_REFTABLE_GROW, BY_DEBUG_REFTABLE_UPDATE, BY_DEBUG_REFBLOCK_LOAD,
    BY_DEBUG_REFBLOCK_UPDATE, BY_DEBUG_REFBLOCK_UPDATE_PART,
    BY_DEBUG_REFBLOCK_ALLOC, BY_DEBUG_REFBLOCK_ALLOC_HOOKUP,
    BY_DEBUG_REFBLOCK_ALLOC_WRITE, BY_DEBUG_REFBLOCK_ALLOC_WRITE_BLOCKS,
    BY_DEBUG_REFBLOCK_ALLOC_WRITE_TABLE, BY_DEBUG_REFBLOCK_ALLOC_SWITCH_TABLE,
    BY_DEBUG_CLUSTER_ALLOC, BY_DEBUG_CLUSTER_ALLOC_BYTES,
    BY_DEBUG_CLUSTER_FREE, BY_DEBUG_FLUSH_TO_OS, BY_DEBUG_FLUSH_TO_DISK,
    BY_DEBUG_PWRITEV_RMW_HEAD, BY_DEBUG_PWRITEV_RMW_AFTER_HEAD,
    BY_DEBUG_PWRITEV_RMW_TAIL, BY_DEBUG_PWRITEV_RMW_AFTER_TAIL,
    BY_DEBUG_PWRITEV, BY_DEBUG_PWRITEV_ZERO, BY_DEBUG_PWRITEV_DONE,
    BY_DEBUG_EMPTY_IMAGE_PREPARE, BY_DEBUG_L1_SHRINK_WRITE_TABLE,
    BY_DEBUG_L1_SHRINK_FREE_L2_CLUSTERS, BY_DEBUG_COR_WRITE,
    BY_DEBUG_CLUSTER_ALLOC_SPACE, BY_DEBUG_NONE, BY_DEBUG_EVENT_COUNT
};

/*
 * A driver's request half.  Control methods (open, close, reopen...) are the
 * Python half's.  `serves` tells which operations submit takes; core answers
 * the rest: FLUSH and PREFETCH succeed, DISCARD succeeds without effect,
 * WRITE_ZEROES becomes writes, BLOCK_STATUS says data, others are -ENOTSUP.
 * `flags[op]` tells which BY_REQ_* a driver honours; core emulates FUA with a
 * flush and drops hints.
 */
struct by_node_ops {
    uint32_t size;
    uint32_t abi;              /* BY_ABI_VERSION */
    const char *name;          /* the driver's QMP name */
    uint32_t capabilities;     /* BY_CAP_* */
    uint32_t serves;           /* BY_OP_BIT()s */
    uint32_t flags[BY_OP_COUNT];

    /* On the loop req->loop (BY_CAP_ANY_LOOP) or the home loop.  Offset and
     * length are within limits and aligned to them.  Never calls complete
     * itself before it returned: what is done at once is returned. */
    int (*submit)(struct by_node *node, struct by_request *req);

    /* On the home loop; optional.  Between the two the node starts nothing of
     * its own and holds nothing back (a throttle queue is let go). */
    void (*drain_begin)(struct by_node *node);
    void (*drain_end)(struct by_node *node);

    /* On `loop`, optional: the loop will / will no longer submit here. */
    int (*attach)(struct by_node *node, struct by_loop *loop);
    void (*detach)(struct by_node *node, struct by_loop *loop);

    /* Control thread, optional, node drained: memory for BY_REQ_REGISTERED. */
    int (*register_memory)(struct by_node *node, void *base, size_t bytes);
    void (*unregister_memory)(struct by_node *node, void *base, size_t bytes);

    /* Control thread, nothing in flight, no loop holds the node any more. */
    void (*free)(struct by_node *node);

    /* Any thread, optional: an event (enum by_debug_event) of the driver above.
     * Never waits.  True, with `resume` only, and then on a loop: the event is
     * held; the caller goes on when `resume` runs, later, on that loop.  With
     * a null `resume` the next request from there is held in its place.
     * A driver that only hands events on has no BY_CAP_LISTENS. */
    bool (*debug_event)(struct by_node *node, uint32_t event,
                        struct by_task *resume);
};
/* What every table has, those of before debug_event too. */
#define BY_NODE_OPS_LEAST offsetof(struct by_node_ops, debug_event)

/* Zero means "no limit", or 1 for an alignment.  Bytes everywhere. */
struct by_limits {
    uint32_t size;
    uint32_t request_alignment;    /* offset and length; a power of two */
    uint32_t memory_alignment;     /* each iovec's base and length */
    uint32_t max_iov;
    uint64_t max_transfer;         /* multiple of request_alignment */
    uint64_t max_write_zeroes;
    uint64_t max_discard;
    uint32_t discard_alignment;    /* preferred */
    uint32_t write_zeroes_alignment;
    uint32_t optimal_transfer;
    uint32_t cluster_size;         /* 0: none */
    uint64_t reserved[4];
};

/*
 * The part of a node that drivers may read.  children[] changes only while
 * the node is drained; slots are those the driver's Python half declares, in
 * that order, and an absent optional child is a null pointer.
 */
struct by_node {
    uint32_t size;
    uint32_t nchildren;
    const struct by_node_ops *ops;
    void *state;                   /* the driver's */
    struct by_node *const *children;
    struct by_limits limits;
    uint64_t length;               /* bytes; read with by_node_length */
    struct by_loop *home;
    uint64_t reserved[4];
};

static inline uint64_t by_node_length(const struct by_node *node)
{
    return __atomic_load_n(&node->length, __ATOMIC_ACQUIRE);
}

/* ---------------------------------------------------------------- loops */

enum by_io_op {
    BY_IO_READV,      /* fd, iov, niov, offset; flags = RWF_* */
    BY_IO_WRITEV,
    BY_IO_FSYNC,      /* flags: 1 = data only */
    BY_IO_FALLOCATE,  /* flags = mode, offset, bytes */
    BY_IO_RECVMSG,    /* msg; flags = MSG_* */
    BY_IO_SENDMSG,
    BY_IO_POLL,       /* flags = POLLIN..., one shot; result = revents */
    BY_IO_TIMER,      /* offset = deadline, CLOCK_MONOTONIC ns; result 0 */
    BY_IO_COMMAND,    /* IORING_OP_URING_CMD; ring loops only, else -ENOTSUP */
    BY_IO_OP_COUNT
};

/*
 * One operation in a loop.  The caller owns it, keeps it and what it names
 * alive until done runs, and may reuse it from then on, in done too.  Result:
 * >= 0 as the system call's, or a negative errno (-ECANCELED after cancel).
 * done runs from the loop's own stack frame, never inside io_submit.
 * Socket operations may be used on blocking and non-blocking descriptors and
 * never block the loop.  Short results are possible and are the caller's.
 */
struct by_io {
    uint32_t size;
    uint8_t op;              /* enum by_io_op */
    uint8_t reserved0[3];
    int fd;
    uint32_t flags;
    uint32_t niov;
    uint32_t reserved1;
    uint64_t offset;
    uint64_t bytes;
    const struct iovec *iov;
    void *msg;               /* struct msghdr; for COMMAND the 80-byte payload */
    void (*done)(struct by_io *io, int result);
    void *owner;
    uint64_t internal[6];    /* the loop's; 0 when the io is first used */
};

/* A call on a loop: loop_post from any thread, loop_defer from the loop. */
struct by_task {
    struct by_task *next;    /* the loop's */
    void (*run)(struct by_task *task);
    void *owner;
};

/*
 * A tenant that can be asked whether it has work without a system call (a
 * ring in shared memory).  poll runs on every round and while the loop spins;
 * it does the work it finds and answers whether there was any.  begin and end
 * (optional) switch the peer's notifications off and on around spinning; end
 * answers true when work came in between.
 */
struct by_poller {
    bool (*poll)(struct by_poller *poller);
    void (*begin)(struct by_poller *poller);
    bool (*end)(struct by_poller *poller);
    struct by_poller *next;  /* the loop's */
    void *owner;
};

/* A call that may block or burn: run on a pool thread, done on the loop. */
struct by_work {
    struct by_work *next;    /* the pool's */
    int (*run)(struct by_work *work);
    void (*done)(struct by_work *work, int result);
    void *owner;
    struct by_loop *loop;    /* the pool's */
    int result;              /* the pool's */
    uint32_t queue;          /* not 0: calls of one queue would only wait for
                                each other (for an inode's lock, say), so they
                                run one after another, on one thread */
};

/* --------------------------------------------------------------- events */

/*
 * What C tells Python.  A tag is handed out by Python with each thing that
 * can report; kind is the reporter's own numbering.
 */
struct by_event {
    uint64_t tag;
    uint32_t kind;
    int32_t result;
    uint64_t a, b;
};

/* ------------------------------------------------------------- the table */

struct by_api {
    uint32_t size;
    uint32_t abi;

    /* Requests.  submit: send req into `node` from a layer above it (an inner
     * request: it is not parked by drain).  complete: end a request that a
     * node's submit answered with BY_PENDING, on req->loop. */
    int (*submit)(struct by_node *node, struct by_request *req);
    void (*complete)(struct by_request *req, int result);
    /* Push `bytes` (sizeof the layer's own struct, by_frame first) with done;
     * null when memory is out.  pop without forwarding: frame_pop. */
    struct by_frame *(*frame_push)(struct by_request *req, size_t bytes,
            int (*done)(struct by_request *, struct by_frame *, int));
    void (*frame_pop)(struct by_request *req);

    /* Roots: where requests enter the graph.  Checks bounds and permission to
     * write, parks while drained, then as submit. */
    int (*root_submit)(struct by_root *root, struct by_request *req);
    uint64_t (*root_length)(const struct by_root *root);
    const struct by_limits *(*root_limits)(const struct by_root *root);
    struct by_node *(*root_node)(const struct by_root *root);

    /* Nodes. */
    void (*node_set_length)(struct by_node *node, uint64_t length);

    /* Loops. */
    struct by_loop *(*loop_current)(void);   /* any thread; null outside */
    uint64_t (*loop_now)(struct by_loop *loop); /* ns, as of this round */
    void (*io_submit)(struct by_loop *loop, struct by_io *io);
    void (*io_cancel)(struct by_loop *loop, struct by_io *io);
    void (*loop_post)(struct by_loop *loop, struct by_task *task); /* any */
    void (*loop_defer)(struct by_loop *loop, struct by_task *task); /* at the
                                 end of this round, before the loop submits */
    void (*poller_add)(struct by_loop *loop, struct by_poller *poller);
    void (*poller_remove)(struct by_loop *loop, struct by_poller *poller);
    bool (*loop_has_ring)(const struct by_loop *loop);

    /* Memory: small pieces from the loop's slab (freed on the same loop with
     * the same size; null when memory is out), and payload buffers, page
     * aligned, kept for reuse. */
    void *(*slab_get)(struct by_loop *loop, size_t bytes);
    void (*slab_put)(struct by_loop *loop, void *piece, size_t bytes);
    void *(*buffer_get)(struct by_loop *loop, size_t bytes);
    void (*buffer_put)(struct by_loop *loop, void *buffer, size_t bytes);

    /* The worker pool. */
    void (*pool_submit)(struct by_loop *loop, struct by_work *work);

    /* Reports to Python; any thread. */
    void (*event)(const struct by_event *event);
    /* Tracing: name is a static string; `on` is asked first.  Any thread. */
    bool (*trace_on)(const char *name);
    void (*trace)(const char *name, const char *format, ...)
        __attribute__((format(printf, 2, 3)));

    /* Bytes that are all zero, found at memory speed; any thread. */
    bool (*is_zero)(const void *bytes, size_t count);

    /* Send req into `node` as submit does and wait for its end; any thread
     * but a loop's (-EDEADLK).  loop, done and owner are set here. */
    int (*wait)(struct by_node *node, struct by_request *req);

    /* On the loop, behind io_submit: hand what is queued to the kernel now if
     * that is `batch` operations or more, not only at the end of the round.
     * 0, and a loop without a ring: no effect. */
    void (*loop_submit_at)(struct by_loop *loop, uint32_t batch);
};

/* ---------------------------------------------------------- header only */

/* The event happens now.  True: held, see by_node_ops.debug_event. */
static inline bool by_debug_stop(struct by_node *child, uint32_t event,
                                 struct by_task *resume)
{
    const struct by_node_ops *ops = child->ops;

    return __builtin_expect(ops->size > BY_NODE_OPS_LEAST
                            && ops->debug_event != NULL, 0)
        && ops->debug_event(child, event, resume);
}

/* The same for whoever cannot wait here. */
static inline void by_debug_event(struct by_node *child, uint32_t event)
{
    (void)by_debug_stop(child, event, NULL);
}

/*
 * Copy the description of `bytes` bytes, `skip` bytes into iov, to out.
 * Answers the count of entries written, or -1 when more than max are needed.
 */
static inline int by_iov_slice(const struct iovec *iov, uint32_t niov,
                               uint64_t skip, uint64_t bytes,
                               struct iovec *out, int max)
{
    int n = 0;

    for (uint32_t i = 0; i < niov && bytes; i++) {
        uint64_t len = iov[i].iov_len;

        if (skip >= len) {
            skip -= len;
            continue;
        }
        if (n == max) {
            return -1;
        }
        len -= skip;
        if (len > bytes) {
            len = bytes;
        }
        out[n].iov_base = (char *)iov[i].iov_base + skip;
        out[n].iov_len = len;
        n++;
        skip = 0;
        bytes -= len;
    }
    return n;
}

/* [offset, offset + bytes) lies in [0, limit], no overflow. */
static inline bool by_range_ok(uint64_t offset, uint64_t bytes, uint64_t limit)
{
    return bytes <= limit && offset <= limit - bytes;
}

#endif /* BLOCKYARD_H */
