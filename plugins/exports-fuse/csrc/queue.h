/* SPDX-License-Identifier: Apache-2.0 */
/*
 * queue.h - what the C files of the FUSE export share.
 *
 * A request goes: read (queue.c), found to be well formed (parse.c), served
 * (data.c, space.c, attributes.c, file.c), in steps of which each begins the next; answered
 * and freed (request.c).  All of it on the queue's loop.
 */
#ifndef BY_FUSE_QUEUE_H
#define BY_FUSE_QUEUE_H

#include <pthread.h>

#include "blockyard.h"
#include "control.h"
#include "parse.h"

/* Core's BDRV_MAX_LENGTH: what a node may be long. */
#define FUSE_MAX_LENGTH ((uint64_t)INT64_MAX & ~(((uint64_t)1 << 30) - 1))

struct fuse_request;

/* What runs when a step of the request has its result; it answers the result
 * of the next step it began, or BY_PENDING when there is nothing to do now. */
typedef int fuse_step(struct fuse_request *request, int result);

struct fuse_request {
    struct by_request io;
    struct by_fuse_queue *queue;
    struct fuse_request *next;    /* waiting, see struct by_fuse_export */
    fuse_step *then;
    struct fuse_command command;
    uint64_t end;                 /* of the command's range, as it is meant */
    fuse_step *after;             /* what follows a change of the length */
    enum by_prealloc prealloc;    /* of that */
    void *data;                   /* payload; null when there is none */
    uint64_t data_bytes;          /* memory held for it */
    struct iovec iov;             /* the payload, for io */
    struct by_block_status status;
    uint64_t at;                  /* of a search for data or a hole */
    uint32_t asked;               /* its questions so far */
    uint64_t wanted;              /* of the export's `changes` */
    bool timed, told;             /* the timer runs; the answer has come */
    struct by_io timer;
    struct by_task task;
};

struct by_fuse_export {
    const struct by_api *api;
    struct by_root *root;
    struct by_fuse_params params;
    uint64_t tag;

    /* The file's attributes; any loop, atomic. */
    uint32_t mode, uid, gid;
    uint64_t allocated;
    uint64_t changed_at;          /* ns since the epoch */
    bool changed;                 /* since `changes` was counted up */

    /* The rest under the lock, which nobody holds for long. */
    pthread_mutex_t lock;
    /* Those that wait for what the node occupies; see attributes.c. */
    struct fuse_request *waiting;
    bool asked;                   /* the control thread has been, */
    uint64_t asked_for;           /* when this was `changes`, */
    uint64_t changes, known;      /* and for this it has answered */
    /* The request that may change the length, and those after it. */
    struct fuse_request *first, *last;
};

struct by_fuse_queue {
    const struct by_api *api;
    struct by_fuse_export *export;
    struct by_loop *loop;
    int fd;

    struct by_io poll;
    bool polling;
    bool stopping;                /* nothing more is read */
    bool started;
    bool paused;                  /* a limit was met */
    bool more_due;                /* the task `more` is deferred */
    bool end_due;                 /* the task `ender` is deferred */
    int result;                   /* for BY_FUSE_ENDED */
    struct by_task starter, more, ender, posted;
    uint32_t life;                /* enum in queue.c; atomic */
    uint64_t tag;
    struct by_fuse_stats stats;   /* written by the loop, read by anybody */

    uint8_t head[FUSE_HEAD_BYTES];
    uint8_t *buffer;              /* FUSE_MAX_IO; null: could not be had */
};

/* Counters are read by other threads. */
static inline void fuse_count(uint64_t *counter, uint64_t more)
{
    __atomic_store_n(counter, *counter + more, __ATOMIC_RELAXED);
}

/* queue.c */
void fuse_more(struct by_fuse_queue *queue);

/* request.c */
void fuse_handle(struct by_fuse_queue *queue, size_t bytes);
void fuse_proceed(struct fuse_request *request, int result);
int fuse_submit(struct fuse_request *request, enum by_op op, uint64_t offset,
                uint64_t bytes, uint32_t flags, fuse_step *then);
/* Each ends the request and answers BY_PENDING. */
int fuse_reply(struct fuse_request *request, const void *body, size_t bytes);
int fuse_reply_data(struct fuse_request *request, size_t bytes);
int fuse_reply_result(struct fuse_request *request, int result);
int fuse_reply_nothing(struct fuse_request *request);

/* data.c */
int fuse_read(struct fuse_request *request, int result);
int fuse_write(struct fuse_request *request, int result);
int fuse_flush(struct fuse_request *request, int result);

/* space.c */
int fuse_fallocate(struct fuse_request *request, int result);
int fuse_lseek(struct fuse_request *request, int result);

/* length.c */
uint64_t fuse_length(const struct by_fuse_export *export);
/* Make the node `length` bytes long, which request->end says from then on. */
int fuse_set_length(struct fuse_request *request, uint64_t length,
                    enum by_prealloc prealloc, fuse_step *then);
/* Make the node at least request->end bytes long. */
int fuse_grow(struct fuse_request *request, fuse_step *then);

/* attributes.c */
uint64_t fuse_now(void);
void fuse_changed(struct by_fuse_export *export);
int fuse_getattr(struct fuse_request *request, int result);
int fuse_setattr(struct fuse_request *request, int result);

/* file.c */
int fuse_init(struct fuse_request *request, int result);
int fuse_open(struct fuse_request *request, int result);
int fuse_statfs(struct fuse_request *request, int result);

#endif /* BY_FUSE_QUEUE_H */
