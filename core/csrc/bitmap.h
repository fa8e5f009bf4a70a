/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bitmap.h - dirty bitmaps as core's own files see them; control.h says what
 * they are.
 *
 * bits.c holds what is set, bitmap.c is one bitmap, bitmaps.c those of a node.
 *
 * Locks: a node's bitmaps_lock is over its list, a bitmap's lock over its
 * content; in this order.  The control thread changes the list, and every
 * loop goes through it when a request that changes data has ended.
 */
#ifndef BLOCKYARD_BITMAP_H
#define BLOCKYARD_BITMAP_H

#include <pthread.h>

#include "bits.h"
#include "control.h"

struct by_inode;
struct by_tracked;

struct by_bitmap {
    pthread_mutex_t lock;
    struct by_bits bits;
    uint64_t length;            /* of the node, bytes */
    unsigned shift;             /* of the granularity; never changes */
    bool enabled, read_only;

    struct by_inode *inode;     /* the control thread's */
    struct by_bitmap *next;     /* of the node's; bitmaps_lock */
};

/* Set, if the bitmap is enabled. */
void by_bitmap_record(struct by_bitmap *bitmap, uint64_t offset,
                      uint64_t bytes);
/* Follow the node: what is cut off is forgotten, what is new is clean. */
void by_bitmap_resize(struct by_bitmap *bitmap, uint64_t length);

/* bitmaps.c: a request that may have changed the node's data has ended;
 * before whoever submitted it knows.  The node has bitmaps. */
void by_bitmaps_record(const struct by_tracked *tracked);
/* The node's length is another one. */
void by_bitmaps_resize(struct by_inode *inode);
/* The node ends. */
void by_bitmaps_detach(struct by_inode *inode);

#endif /* BLOCKYARD_BITMAP_H */
