/* SPDX-License-Identifier: Apache-2.0 */
/*
 * loop_private.h - what the files that make up the loop share.
 *
 * A loop is struct by_loop plus one backend: ring.c or epoll.c.  Everything
 * in the structure belongs to the loop's thread except the first part, which
 * others write.
 */
#ifndef BLOCKYARD_LOOP_PRIVATE_H
#define BLOCKYARD_LOOP_PRIVATE_H

#include <pthread.h>
#include <stdatomic.h>

#include "loop.h"

#define BY_NEVER UINT64_MAX
#define BY_CACHE_LINE 64
#define BY_QUEUES 8

/*
 * by_io.reserved0[0] while the loop holds the io.  The io is its owner's in
 * state IDLE and nowhere else.
 */
enum by_io_state {
    IO_IDLE,
    IO_BACKLOG,   /* not yet seen by the backend; links in use */
    IO_SUBMITTED, /* the kernel's (or, on epoll, the pool's) */
    IO_WAITING,   /* epoll: until its descriptor is ready; links in use */
    IO_TIMER,     /* in the timer heap; links in use */
    IO_READY      /* done is due; links and result in use */
};
#define BY_IO_STATE(io) ((io)->reserved0[0])
/* The backend's own marks on it. */
#define BY_IO_MARK(io) ((io)->reserved0[1])

/* by_io.internal in all states but SUBMITTED on epoll (there a by_work). */
struct by_io_links {
    struct by_io *next;
    struct by_io *prev;
    struct by_io *child;     /* timer heap */
    int64_t result;          /* READY */
    uint64_t spare[2];
};
_Static_assert(sizeof(struct by_io_links) ==
               sizeof(((struct by_io *)0)->internal), "links fill internal");

static inline struct by_io_links *by_links(struct by_io *io)
{
    return (struct by_io_links *)io->internal;
}

/* Doubly linked, so that a cancelled io leaves in one step. */
struct by_io_list {
    struct by_io *head;
    struct by_io *tail;
};

static inline void by_list_append(struct by_io_list *list, struct by_io *io)
{
    struct by_io_links *links = by_links(io);

    links->next = NULL;
    links->prev = list->tail;
    if (list->tail) {
        by_links(list->tail)->next = io;
    } else {
        list->head = io;
    }
    list->tail = io;
}

static inline void by_list_prepend(struct by_io_list *list, struct by_io *io)
{
    struct by_io_links *links = by_links(io);

    links->prev = NULL;
    links->next = list->head;
    if (list->head) {
        by_links(list->head)->prev = io;
    } else {
        list->tail = io;
    }
    list->head = io;
}

static inline void by_list_remove(struct by_io_list *list, struct by_io *io)
{
    struct by_io_links *links = by_links(io);

    if (links->prev) {
        by_links(links->prev)->next = links->next;
    } else {
        list->head = links->next;
    }
    if (links->next) {
        by_links(links->next)->prev = links->prev;
    } else {
        list->tail = links->prev;
    }
}

/* One way of waiting.  All on the loop. */
struct by_backend {
    int (*setup)(struct by_loop *loop);
    void (*teardown)(struct by_loop *loop);
    void (*submit)(struct by_loop *loop, struct by_io *io);
    void (*cancel)(struct by_loop *loop, struct by_io *io);
    /* Optional: hand what was submitted to the kernel without waiting, if it
     * is `batch` operations or more. */
    void (*submit_at)(struct by_loop *loop, uint32_t batch);
    /* Hand what was submitted to the kernel; wait until something is there
     * or `timeout` ns have passed (0: do not wait, BY_NEVER: no limit). */
    void (*enter)(struct by_loop *loop, uint64_t timeout);
    /* Run done for what has completed; how many. */
    unsigned (*reap)(struct by_loop *loop);
    /* Cancel all it has; for by_stop. */
    void (*cancel_all)(struct by_loop *loop);
    /* Would enter(0) and reap find something?  No system call. */
    bool (*ready)(struct by_loop *loop);
};
extern const struct by_backend by_ring_backend;
extern const struct by_backend by_epoll_backend;

/* Adaptive spinning (poll.c). */
struct by_spin {
    uint64_t window;      /* ns to spin before the next sleep */
    uint64_t average;     /* weighted ns from idle to the next event */
    uint64_t held_until;  /* no spinning before this time */
    uint64_t penalty;     /* length of the next hold */
    uint64_t idle_since;  /* when the present wait began; 0 = busy */
    long preempted;       /* ru_nivcsw when last looked at */
    bool active;          /* pollers have been told to begin */
};

struct by_slab;
struct by_buffers;

struct by_loop {
    /* Written by any thread. */
    _Atomic(struct by_task *) posted __attribute__((aligned(BY_CACHE_LINE)));
    _Atomic(struct by_work *) finished;  /* from the pool, newest first */
    _Atomic uint64_t work_ns;            /* its pool work's usual duration */
    struct by_task finished_task;
    _Atomic int64_t poll_max_ns, poll_grow, poll_shrink, poll_weight;
    _Atomic int64_t aio_max_batch, pool_min, pool_max;
    _Atomic uint32_t ending;             /* 1 = when empty, 2 = by force */
    _Atomic uint32_t exited;
    int wake_fd;                         /* lives until by_stop */
    int index;

    /* The loop's own. */
    uint64_t now __attribute__((aligned(BY_CACHE_LINE)));
    const struct by_backend *backend;
    void *impl;                          /* the backend's */
    struct by_task *deferred, **deferred_tail;
    struct by_poller *pollers;
    struct by_io *timers;                /* heap root */
    struct by_io_list ready;
    uint64_t in_flight;                  /* ios of any kind, timers too */
    uint64_t works;                      /* handed or to be handed */
    uint64_t handed;                     /* those that workers have */
    struct by_work *work_head, *work_last;  /* this round's */
    uint32_t work_count;
    uint64_t relief_due;
    void *worker;                        /* that took its last batch */
    void *queue_workers[BY_QUEUES];      /* and its last of a queue (modulo) */
    struct by_spin spin;
    struct by_slab *slab;
    struct by_buffers *buffers;

    /* Control. */
    pthread_t thread;
    int thread_id;
    int start_error;
    uint64_t end_tag;
    char name[16];
};

/* What sits in `posted` while the loop sleeps: the poster that finds it
 * wakes the loop, later ones need not. */
extern struct by_task by_asleep;

/* loop.c */
/* done is called with result in this round, from the loop's frame. */
void by_io_ready(struct by_loop *loop, struct by_io *io, int result);
/* The backend's or the timer's last word about an io. */
static inline void by_io_finish(struct by_loop *loop, struct by_io *io,
                                int result)
{
    BY_IO_STATE(io) = IO_IDLE;
    loop->in_flight--;
    io->done(io, result);
}
bool by_loop_posted(const struct by_loop *loop);
void by_loop_run(struct by_loop *loop);

/* loops.c */
int by_thread_start(pthread_t *thread, void *(*run)(void *), void *arg);

/* processors.c */
unsigned by_processors(void);
void by_processors_count(void);

/* tryio.c */
/* A regular file, a block device or a directory: poll says nothing of it. */
bool by_is_file(int fd);

/* timer.c */
void by_timer_add(struct by_loop *loop, struct by_io *io);
void by_timer_remove(struct by_loop *loop, struct by_io *io);
unsigned by_timer_run(struct by_loop *loop);
static inline uint64_t by_timer_next(const struct by_loop *loop)
{
    return loop->timers ? loop->timers->offset : BY_NEVER;
}

/* poll.c */
bool by_pollers_run(struct by_loop *loop);
/* Does the loop spin before it sleeps now?  Also notes that it is idle. */
bool by_spin_wanted(struct by_loop *loop);
/* It was not idle after all. */
static inline void by_spin_busy(struct by_loop *loop)
{
    loop->spin.idle_since = 0;
}
/* Spin for a while; true when there is work now. */
bool by_spin(struct by_loop *loop);
/* The loop is about to sleep: let the peers notify again; true when one had
 * work after all. */
bool by_spin_end(struct by_loop *loop);
/* Work was found after a wait: learn from how long it took. */
void by_spin_learn(struct by_loop *loop);

/* pool.c */
int by_pool_start(void);
/* False: a thread hangs in a call and was left behind. */
bool by_pool_stop(void);
/* Have this many threads and keep them; any thread. */
void by_pool_reserve(int64_t threads);
/* Hand over what the round collected. */
void by_pool_flush(struct by_loop *loop);
void by_pool_finished(struct by_task *task);
/* Give work that waits behind a stuck worker to others; answers the ns
 * after which to look again, or BY_NEVER. */
uint64_t by_pool_relieve(struct by_loop *loop);

/* slab.c, buffer.c */
struct by_slab *by_slab_create(void);
void by_slab_destroy(struct by_slab *slab);
struct by_buffers *by_buffers_create(void);
void by_buffers_destroy(struct by_buffers *buffers);
/* Let go what has not been used lately; answers the ns after which to come
 * again, or BY_NEVER. */
uint64_t by_buffers_relax(struct by_loop *loop);

/* events.c */
int by_events_start(void);
void by_events_stop(void);

#endif /* BLOCKYARD_LOOP_PRIVATE_H */
