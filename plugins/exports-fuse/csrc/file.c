/* SPDX-License-Identifier: Apache-2.0 */
/*
 * file.c - an export's memory, and INIT, OPEN and STATFS.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "queue.h"

/* Requests that the kernel keeps in flight by itself: asynchronous ones. */
#define BACKGROUND 512
/* READ, WRITE, FALLOCATE and LSEEK as they are here are those of 7.31. */
#define OLDEST 31

struct by_fuse_export *by_fuse_create(uintptr_t api, uintptr_t root,
                                      const struct by_fuse_params *params,
                                      uint64_t tag)
{
    struct by_fuse_export *export = calloc(1, sizeof(*export));

    if (!export) {
        return NULL;
    }
    export->api = (const struct by_api *)api;
    export->root = (struct by_root *)root;
    export->params = *params;
    export->tag = tag;
    export->mode = S_IFREG | S_IRUSR | (params->writable ? S_IWUSR : 0);
    export->uid = params->uid;
    export->gid = params->gid;
    export->allocated = params->allocated;
    export->changed_at = fuse_now();
    if (!export->params.max_requests) {
        export->params.max_requests = 1;
    }
    pthread_mutex_init(&export->lock, NULL);
    return export;
}

void by_fuse_destroy(struct by_fuse_export *export)
{
    pthread_mutex_destroy(&export->lock);
    free(export);
}

/*
 * To open with O_TRUNC is how programs replace a file that they then write
 * anew.  What could not grow again keeps its length: OPEN is told of O_TRUNC,
 * and ignores it.
 */
static int answer_init(struct fuse_request *request)
{
    const struct fuse_command *command = &request->command;
    bool growable = request->queue->export->params.growable;
    uint32_t flags = FUSE_ASYNC_READ | FUSE_BIG_WRITES | FUSE_ASYNC_DIO
        | FUSE_MAX_PAGES | FUSE_INIT_EXT
        | (growable ? 0 : FUSE_ATOMIC_O_TRUNC);
    uint32_t flags2 = (uint32_t)(FUSE_DIRECT_IO_ALLOW_MMAP >> 32);
    struct fuse_init_out out = {
        .major = FUSE_KERNEL_VERSION,
        .minor = command->minor < FUSE_KERNEL_MINOR_VERSION
            ? command->minor : FUSE_KERNEL_MINOR_VERSION,
        .max_readahead = command->readahead,
        .flags = command->flags & flags,
        .max_background = BACKGROUND,
        .congestion_threshold = BACKGROUND / 4 * 3,
        .max_write = FUSE_MAX_IO,
        .time_gran = 1,
        .max_pages = FUSE_MAX_IO / 4096,
        .flags2 = command->flags2 & flags2,
    };

    return fuse_reply(request, &out, sizeof(out));
}

int fuse_init(struct fuse_request *request, int result)
{
    const struct fuse_command *command = &request->command;
    struct fuse_init_out only = { .major = FUSE_KERNEL_VERSION,
                                  .minor = FUSE_KERNEL_MINOR_VERSION };

    (void)result;
    if (command->major > FUSE_KERNEL_VERSION) {
        /* It asks again, in our version. */
        return fuse_reply(request, &only, sizeof(only));
    }
    if (command->major < FUSE_KERNEL_VERSION || command->minor < OLDEST) {
        return fuse_reply_result(request, -EPROTO);
    }
    return answer_init(request);
}

/* No page cache lies between: what is written by others, a job for example,
 * is read at once. */
int fuse_open(struct fuse_request *request, int result)
{
    struct fuse_open_out out = {
        .open_flags = FOPEN_DIRECT_IO | FOPEN_PARALLEL_DIRECT_WRITES,
    };

    (void)result;
    /* Nothing is written through it, so closing it need not flush. */
    if ((request->command.flags & O_ACCMODE) == O_RDONLY) {
        out.open_flags |= FOPEN_NOFLUSH;
    }
    return fuse_reply(request, &out, sizeof(out));
}

int fuse_statfs(struct fuse_request *request, int result)
{
    struct fuse_statfs_out out = {
        .st = { .bsize = 512, .frsize = 512, .namelen = 255 },
    };

    (void)result;
    return fuse_reply(request, &out, sizeof(out));
}

int by_fuse_check_api(uintptr_t api)
{
    const struct by_api *table = (const struct by_api *)api;

    return table->abi == BY_ABI_VERSION && table->size >= sizeof(*table)
           ? 0 : -EPROTO;
}
