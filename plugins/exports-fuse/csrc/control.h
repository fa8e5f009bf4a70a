/* SPDX-License-Identifier: Apache-2.0 */
/*
 * control.h - what the Python half calls; cffi reads the declarations below,
 * so this file holds only comments, includes, plain structures and prototypes.
 *
 * An export is one file that the kernel shows.  A queue reads the kernel's
 * requests from a descriptor and answers them, on one loop, until the event
 * BY_FUSE_ENDED; an export may have several.  Nothing but by_fuse_mount and
 * by_fuse_unmount waits.  Any thread, but one thread at a time for each object.
 */
#ifndef BY_FUSE_CONTROL_H
#define BY_FUSE_CONTROL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum by_fuse_event {
    /* A queue's: it reads no more and nothing of it is in flight.  result: 0
     * after by_fuse_stop, -ENODEV when the file was unmounted, else why
     * reading failed; a = requests. */
    BY_FUSE_ENDED = 1,
    /* An export's: somebody asked for the attributes after a change, and waits
     * for by_fuse_set_allocated with what the node occupies now. */
    BY_FUSE_CHANGED
};

struct by_fuse_params {
    bool writable;         /* else the mount is read-only too */
    bool growable;         /* writes beyond the end make the node longer */
    bool allow_other;      /* others than the owner may be given rights */
    uint32_t uid, gid;     /* the file's owner */
    uint32_t block_size;   /* st_blksize; a power of two */
    uint64_t allocated;    /* bytes that the node occupies */
    uint32_t max_requests; /* of a queue in flight */
    uint64_t max_held;     /* bytes of memory held for them; one request of at
                              most 1 MiB is always taken */
};

struct by_fuse_stats {
    uint64_t requests;
    uint64_t failed;       /* answered with an error */
    uint64_t unanswered;   /* the kernel did not want the answer any more */
    uint64_t bytes_read;
    uint64_t bytes_written;
    uint64_t receives;     /* system calls */
    uint64_t in_flight;
    uint64_t held;         /* bytes of memory for requests */
};

/* api: blockyard's table, as an integer (struct by_api). 0, or -EPROTO when
 * it is another version's. */
int by_fuse_check_api(uintptr_t api);

/* The name of the file system type in mount tables, and its source. */
const char *by_fuse_type(void);
/* mount(2), of this type; options name the descriptor.  Negative errno. */
int by_fuse_mount(const char *path, const char *options, bool read_only);
/* Unmount what is mounted last at path, also while it is used. */
int by_fuse_unmount(const char *path);
/* Another descriptor for the same mount, with a queue of its own in the kernel
 * where that is possible.  Negative errno. */
int by_fuse_clone(int fd);

/* api and root are blockyard's pointers as integers.  Null: no memory. */
struct by_fuse_export *by_fuse_create(uintptr_t api, uintptr_t root,
                                      const struct by_fuse_params *params,
                                      uint64_t tag);
void by_fuse_set_allocated(struct by_fuse_export *export, uint64_t bytes);
/* No queue is left. */
void by_fuse_destroy(struct by_fuse_export *export);

/* Serve fd, which is non-blocking, on the loop.  The descriptor is the queue's
 * from now on, unless null is returned (*error: -errno). */
struct by_fuse_queue *by_fuse_start(struct by_fuse_export *export,
                                    uintptr_t loop, int fd, uint64_t tag,
                                    int *error);
/* Read no more, answer what is in flight; BY_FUSE_ENDED follows. */
void by_fuse_stop(struct by_fuse_queue *queue);
void by_fuse_get_stats(const struct by_fuse_queue *queue,
                       struct by_fuse_stats *out);
/* BY_FUSE_ENDED has come. */
void by_fuse_free(struct by_fuse_queue *queue);

#endif /* BY_FUSE_CONTROL_H */
