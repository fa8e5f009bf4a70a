/* SPDX-License-Identifier: Apache-2.0 */
/* cache.h - slices of tables in memory, and requests that wait for them. */
#ifndef BLOCKYARD_QCOW2_CACHE_H
#define BLOCKYARD_QCOW2_CACHE_H

#include "blockyard.h"

struct by_qcow2;

/* --------------------------------------------------------------- waiting */

/* A request that waits for something; its task is posted to its loop, where
 * it tries again from the beginning. */
struct q2_wait {
    struct q2_wait *next;
    struct by_loop *loop;
    struct by_task task;        /* its run, set by the waiter */
    int result;                 /* -errno: what was waited for failed */
};
/* wait.c.  Under lock: put in a list; post all of a list, with a result. */
void q2_wait_add(struct q2_wait **list, struct q2_wait *wait);
void q2_wake(struct q2_wait **list, int result);

/* ---------------------------------------------------------------- caches */

struct q2_slice {
    uint64_t offset;            /* in the file */
    unsigned char *table;       /* slice_bytes, as on disk */
    struct q2_slice *hash_next;
    struct q2_slice *newer, *older; /* in one of the cache's two rings */
    uint32_t pins;              /* not to be taken away */
    bool loading, dirty, used;
    uint32_t changes;           /* bumped by each change of a dirty one */
    struct q2_wait *waiters;    /* while loading */
};

/*
 * Slices that are there are in `hash`, and in one of two rings: `clean`, where
 * room is found from the oldest on, or `dirty`, which q2_sync writes.  A ring's
 * head: head.newer is the oldest, head.older the newest.
 */
struct q2_cache {
    uint32_t slice_bytes;
    uint32_t max, count;        /* slices that may be, that are (table work
                                   may go above max for a while) */
    uint32_t ndirty;
    uint32_t hash_mask;
    struct q2_slice **hash;
    struct q2_slice clean, dirty;
    struct q2_wait *no_room;    /* until a slice is unpinned or cleaned */
};

/* cache.c */
int q2_cache_init(struct q2_cache *cache, uint32_t slice_bytes, uint64_t bytes);
void q2_cache_free(struct q2_cache *cache);
/* Table work, no requests, nothing dirty: another size; empty then.  -ENOMEM:
 * nothing has changed. */
int q2_cache_reshape(struct by_qcow2 *q, struct q2_cache *cache,
                     uint32_t slice_bytes, uint64_t bytes);
/* Under lock.  The slice of that offset, loading perhaps; take it out and free
 * it.  For the cache's own files. */
struct q2_slice *q2_cache_peek(struct q2_cache *cache, uint64_t offset);
void q2_cache_remove(struct q2_cache *cache, struct q2_slice *slice);
/* Under lock.  The slice that begins at `offset` (a multiple of slice_bytes
 * in the file), if it is there and loaded; it is the newest then. */
struct q2_slice *q2_cache_find(struct q2_cache *cache, uint64_t offset);
/* Under lock, on a loop, after a miss: begin to load it.  `wait` is woken when
 * trying again makes sense, or with an error.  0, or -errno at once. */
int q2_cache_fetch(struct by_qcow2 *q, struct q2_cache *cache, uint64_t offset,
                   struct q2_wait *wait);
/* Table work, lock not held: the slice, loaded and pinned.  0 or -errno. */
int q2_cache_get(struct by_qcow2 *q, struct q2_cache *cache, uint64_t offset,
                 struct q2_slice **out);
/* The same for a slice whose content is to be all zero, without reading; it
 * is dirty then. */
int q2_cache_get_zeroed(struct by_qcow2 *q, struct q2_cache *cache,
                        uint64_t offset, struct q2_slice **out);
/* Under lock. */
void q2_cache_pin(struct q2_slice *slice);
void q2_cache_unpin(struct q2_cache *cache, struct q2_slice *slice);
/* Under lock: the table was changed in memory; it was written (and did not
 * change meanwhile: `changes` is what it was when copied). */
void q2_cache_dirty(struct q2_cache *cache, struct q2_slice *slice);
void q2_cache_cleaned(struct q2_cache *cache, struct q2_slice *slice);
/* Under lock: the file's range is something else now; dirty or not, what is
 * cached of it is forgotten (nothing of it is pinned). */
void q2_cache_forget(struct q2_cache *cache, uint64_t offset, uint64_t bytes);
/* Table work, no requests, lock not held: forget everything, dirty too. */
void q2_cache_drop_all(struct by_qcow2 *q, struct q2_cache *cache);
/* Any thread, lock not held: give back the memory of clean slices not used
 * since the last call (cache-clean-interval). */
void q2_cache_clean_unused(struct by_qcow2 *q, struct q2_cache *cache);

#endif /* BLOCKYARD_QCOW2_CACHE_H */
