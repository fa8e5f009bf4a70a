/* SPDX-License-Identifier: Apache-2.0 */
/*
 * attributes.c - GETATTR and SETATTR.
 *
 * What a node occupies only the control thread finds out.  After a change it
 * is asked, once for all who ask at that time, and their answers wait for it;
 * not for long, though: it may itself be what asked for the attributes.
 */
#include <errno.h>
#include <sys/stat.h>
#include <time.h>

#include "queue.h"

#define PATIENCE 100000000 /* ns */

uint64_t fuse_now(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_REALTIME, &ts);
    return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

void fuse_changed(struct by_fuse_export *export)
{
    if (!__atomic_load_n(&export->changed, __ATOMIC_RELAXED)) {
        __atomic_store_n(&export->changed, true, __ATOMIC_RELEASE);
    }
}

static void set_times(struct fuse_attr *attr, uint64_t at)
{
    attr->atime = attr->mtime = attr->ctime = at / 1000000000;
    attr->atimensec = attr->mtimensec = attr->ctimensec = at % 1000000000;
}

/* Valid for no time at all: the node's length may change under the file. */
static int answer_attributes(struct fuse_request *request)
{
    struct by_fuse_export *export = request->queue->export;
    struct fuse_attr_out out = { .attr_valid = 0 };
    struct fuse_attr *attr = &out.attr;

    attr->ino = FUSE_ROOT_ID;
    attr->size = fuse_length(export);
    attr->blocks = (__atomic_load_n(&export->allocated, __ATOMIC_RELAXED)
                    + 511) / 512;
    attr->mode = __atomic_load_n(&export->mode, __ATOMIC_RELAXED);
    attr->nlink = 1;
    attr->uid = __atomic_load_n(&export->uid, __ATOMIC_RELAXED);
    attr->gid = __atomic_load_n(&export->gid, __ATOMIC_RELAXED);
    attr->blksize = export->params.block_size;
    set_times(attr, __atomic_load_n(&export->changed_at, __ATOMIC_RELAXED));
    return fuse_reply(request, &out, sizeof(out));
}

/* ------------------------------------------------------ what it occupies */

/* With the lock held. */
static void ask(struct by_fuse_export *export)
{
    struct by_event event = { .tag = export->tag, .kind = BY_FUSE_CHANGED };

    if (export->waiting && !export->asked) {
        export->asked = true;
        export->asked_for = export->changes;
        export->api->event(&event);
    }
}

static void timed_out(struct by_io *io, int result)
{
    struct fuse_request *request = io->owner;
    struct by_fuse_export *export = request->queue->export;
    struct fuse_request **at;

    (void)result;
    pthread_mutex_lock(&export->lock);
    for (at = &export->waiting; *at && *at != request; at = &(*at)->next) {
    }
    request->told |= *at != NULL;
    if (*at) {
        *at = request->next;
    }
    pthread_mutex_unlock(&export->lock);
    request->timed = false;
    if (request->told) {
        answer_attributes(request);
    }
}

/* The control thread has answered; the timer's memory is the request's. */
static void told(struct by_task *task)
{
    struct fuse_request *request = task->owner;

    request->told = true;
    if (request->timed) {
        request->queue->api->io_cancel(request->queue->loop, &request->timer);
    } else {
        answer_attributes(request);
    }
}

/* False: the request is answered when it is known. */
static bool know_allocated(struct fuse_request *request)
{
    struct by_fuse_queue *queue = request->queue;
    struct by_fuse_export *export = queue->export;
    bool known;

    pthread_mutex_lock(&export->lock);
    if (__atomic_exchange_n(&export->changed, false, __ATOMIC_ACQ_REL)) {
        export->changes++;
        __atomic_store_n(&export->changed_at, fuse_now(), __ATOMIC_RELAXED);
    }
    known = export->known == export->changes;
    if (!known) {
        request->wanted = export->changes;
        request->next = export->waiting;
        request->task.run = told;
        request->timed = true;
        export->waiting = request;
        ask(export);
    }
    pthread_mutex_unlock(&export->lock);
    if (!known) {
        request->timer = (struct by_io) {
            .size = sizeof(request->timer), .op = BY_IO_TIMER,
            .offset = export->api->loop_now(queue->loop) + PATIENCE,
            .done = timed_out, .owner = request,
        };
        export->api->io_submit(queue->loop, &request->timer);
    }
    return known;
}

void by_fuse_set_allocated(struct by_fuse_export *export, uint64_t bytes)
{
    struct fuse_request **at = &export->waiting, *request;

    __atomic_store_n(&export->allocated, bytes, __ATOMIC_RELAXED);
    pthread_mutex_lock(&export->lock);
    export->known = export->asked_for;
    export->asked = false;
    while ((request = *at)) {
        if (request->wanted > export->known) {
            at = &request->next;
            continue;
        }
        *at = request->next;
        export->api->loop_post(request->queue->loop, &request->task);
    }
    ask(export);
    pthread_mutex_unlock(&export->lock);
}

/* --------------------------------------------------------------- requests */

int fuse_getattr(struct fuse_request *request, int result)
{
    (void)result;
    return know_allocated(request) ? answer_attributes(request) : BY_PENDING;
}

/* 0, or why these attributes cannot be had. */
static int check_attributes(const struct by_fuse_export *export,
                            const struct fuse_command *command)
{
    const uint32_t known = FATTR_SIZE | FATTR_MODE | FATTR_UID | FATTR_GID
        | FATTR_FH | FATTR_LOCKOWNER | FATTR_CTIME | FATTR_KILL_SUIDGID;
    const uint32_t times = FATTR_ATIME | FATTR_MTIME | FATTR_ATIME_NOW
        | FATTR_MTIME_NOW;
    uint32_t valid = command->valid;

    /* A change of the length may come with the time; that is ours to tell. */
    if (valid & ~(known | (valid & FATTR_SIZE ? times : 0))) {
        return -EOPNOTSUPP;
    }
    if (valid & FATTR_MODE) {
        if (!export->params.writable
            && command->mode & (S_IWUSR | S_IWGRP | S_IWOTH)) {
            return -EROFS;
        }
        if (!export->params.allow_other
            && command->mode & (S_IRWXG | S_IRWXO)) {
            return -EPERM;
        }
    }
    if (valid & (FATTR_UID | FATTR_GID) && !export->params.allow_other) {
        return -EOPNOTSUPP;
    }
    return valid & FATTR_SIZE && !export->params.writable ? -EACCES : 0;
}

static int set_attributes(struct fuse_request *request, int result)
{
    struct by_fuse_export *export = request->queue->export;
    const struct fuse_command *command = &request->command;

    if (result) {
        return fuse_reply_result(request, result);
    }
    if (command->valid & FATTR_MODE) {
        __atomic_store_n(&export->mode, (command->mode & 07777) | S_IFREG,
                         __ATOMIC_RELAXED);
    }
    if (command->valid & FATTR_UID) {
        __atomic_store_n(&export->uid, command->uid, __ATOMIC_RELAXED);
    }
    if (command->valid & FATTR_GID) {
        __atomic_store_n(&export->gid, command->gid, __ATOMIC_RELAXED);
    }
    return answer_attributes(request);
}

int fuse_setattr(struct fuse_request *request, int result)
{
    const struct fuse_command *command = &request->command;

    result = check_attributes(request->queue->export, command);
    if (!result && command->valid & FATTR_SIZE) {
        return fuse_set_length(request, command->offset, BY_PREALLOC_OFF,
                               set_attributes);
    }
    return set_attributes(request, result);
}
