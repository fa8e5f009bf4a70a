/* SPDX-License-Identifier: Apache-2.0 */
/*
 * control.h - what the Python half of the file drivers calls.
 *
 * The build reads these declarations for cffi, so this file holds nothing but
 * comments, includes, plain structures and prototypes.  Functions that take a
 * descriptor make system calls that may wait: call them on a thread.  Results
 * are 0 or a negative errno unless a comment says otherwise.
 */
#ifndef BLOCKYARD_DRIVERS_FILE_CONTROL_H
#define BLOCKYARD_DRIVERS_FILE_CONTROL_H

#include "blockyard.h"

/* Take core's table.  -EPROTO: it is for another BY_ABI_VERSION. */
int by_file_init(uintptr_t api);

enum by_file_kind { BY_FILE_REGULAR, BY_FILE_DEVICE, BY_FILE_CDROM };
enum by_file_aio { BY_FILE_AUTO, BY_FILE_THREADS, BY_FILE_RING };

struct by_file_settings {
    int fd;             /* the caller's, open for the state's whole life */
    int aio;            /* enum by_file_aio */
    bool regular;       /* not a device */
    bool direct;        /* opened with O_DIRECT */
    uint32_t alignment; /* of offset and length; a power of two */
    uint32_t max_batch; /* to the ring: operations handed over at once; 0 = the
                           loop's own limit alone */
};
/* The state of one node.  Null: no memory. */
struct by_file *by_file_create(const struct by_file_settings *settings);
/* Drained: other settings from now on; a failed flush is forgotten. */
void by_file_change(struct by_file *file,
                    const struct by_file_settings *settings);
/* The node is gone. */
void by_file_free(struct by_file *file);
/* struct by_node_ops of a kind, as an address */
uintptr_t by_file_ops(int kind);

struct by_file_stats {
    uint64_t discards_ok;
    uint64_t discards_failed;
    uint64_t discarded_bytes;
};
void by_file_get_stats(const struct by_file *file, struct by_file_stats *out);

/* ---- what a descriptor is */

enum by_file_type {
    BY_FILE_TYPE_REGULAR, BY_FILE_TYPE_BLOCK, BY_FILE_TYPE_CHAR,
    BY_FILE_TYPE_OTHER
};
struct by_file_facts {
    int type;                  /* enum by_file_type */
    bool locked_read_only;     /* a block device that is set read-only */
    int64_t length;            /* bytes, or -errno: it has no end */
    uint64_t allocated;        /* bytes on the disk below */
};
int by_file_look(int fd, struct by_file_facts *out);
/* Alignments that O_DIRECT needs.  -EINVAL: none works. */
int by_file_probe(int fd, uint32_t *request, uint32_t *memory);

/* ---- locks: one byte each, owned by the open file description */

int by_file_lock(int fd, int64_t byte);      /* shared */
int by_file_unlock(int fd, int64_t byte);
/* Does somebody else hold it?  -EAGAIN: yes. */
int by_file_lock_test(int fd, int64_t byte);

/* ---- creation, length */

enum by_file_step {
    BY_FILE_STEP_NONE, BY_FILE_STEP_STAT, BY_FILE_STEP_SHRINK,
    BY_FILE_STEP_MODE, BY_FILE_STEP_RESIZE, BY_FILE_STEP_ALLOCATE,
    BY_FILE_STEP_ZEROES, BY_FILE_STEP_FLUSH, BY_FILE_STEP_DEVICE_MODE,
    BY_FILE_STEP_DEVICE_EXACT, BY_FILE_STEP_DEVICE_GROW
};
/* Give a regular file this length; *step tells what failed. */
int by_file_resize(int fd, uint64_t length, int prealloc, int *step);
/* Where the last TRUNCATE of a node failed: enum by_file_step. */
int by_file_truncate_step(const struct by_file *file);
int by_file_set_nocow(int fd);
int by_file_set_extent_hint(int fd, uint32_t bytes);
int by_file_get_extent_hint(int fd, uint32_t *bytes); /* 0: none */

/* ---- the page cache */

int by_file_drop_cache(int fd);
int by_file_is_cached(int fd, uint64_t length); /* 1: pages of it are */

/* ---- optical drives */

int by_file_disc_present(int fd);  /* 1 or 0 */
int by_file_tray(int fd, bool open);
int by_file_door(int fd, bool locked);

#endif /* BLOCKYARD_DRIVERS_FILE_CONTROL_H */
