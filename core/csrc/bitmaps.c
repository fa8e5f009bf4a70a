/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bitmaps.c - the dirty bitmaps of a node.
 *
 * Bits are set when a request has ended, whether it failed or not, and before
 * its submitter hears of it: whoever knows of the write finds it recorded.
 * Were they set when it begins, a bitmap that is cleared in between would
 * miss data that is written after it was cleared.
 */
#include "bitmap.h"
#include "graph.h"

/* List and length change and are read in one order (SEQ_CST): either whoever
 * changes the length sees the bitmap, or attach sees the length. */
static void publish(struct by_inode *inode, struct by_bitmap *first)
{
    __atomic_store_n(&inode->bitmaps, first, __ATOMIC_SEQ_CST);
}

static uint64_t present_length(const struct by_inode *inode)
{
    return __atomic_load_n(&inode->node.length, __ATOMIC_SEQ_CST);
}

/* Locked. */
static void follow_read_only(struct by_inode *inode)
{
    bool read_only = false;

    for (struct by_bitmap *b = inode->bitmaps; b; b = b->next) {
        read_only |= b->read_only;
    }
    __atomic_store_n(&inode->frozen, read_only, __ATOMIC_RELAXED);
    by_node_follow_settings(inode);
}

void by_bitmap_attach(struct by_bitmap *bitmap, struct by_node *node)
{
    struct by_inode *inode = by_inode(node);

    by_bitmap_detach(bitmap);
    bitmap->inode = inode;
    pthread_mutex_lock(&inode->bitmaps_lock);
    bitmap->next = inode->bitmaps;
    publish(inode, bitmap);
    by_bitmap_resize(bitmap, present_length(inode));
    follow_read_only(inode);
    pthread_mutex_unlock(&inode->bitmaps_lock);
}

void by_bitmap_detach(struct by_bitmap *bitmap)
{
    struct by_inode *inode = bitmap->inode;
    struct by_bitmap *before;

    if (!inode) {
        return;
    }
    bitmap->inode = NULL;
    pthread_mutex_lock(&inode->bitmaps_lock);
    before = inode->bitmaps;
    if (before == bitmap) {
        publish(inode, bitmap->next);
    } else {
        while (before->next != bitmap) {
            before = before->next;
        }
        before->next = bitmap->next;
    }
    follow_read_only(inode);
    pthread_mutex_unlock(&inode->bitmaps_lock);
}

void by_bitmap_set_read_only(struct by_bitmap *bitmap, bool read_only)
{
    struct by_inode *inode = bitmap->inode;

    pthread_mutex_lock(&bitmap->lock);
    bitmap->read_only = read_only;
    pthread_mutex_unlock(&bitmap->lock);
    if (inode) {
        pthread_mutex_lock(&inode->bitmaps_lock);
        follow_read_only(inode);
        pthread_mutex_unlock(&inode->bitmaps_lock);
    }
}

/* Discards that are ignored change nothing. */
static bool changes_data(const struct by_tracked *tracked)
{
    const struct by_inode *inode = tracked->inode;

    switch (tracked->op) {
    case BY_OP_WRITE:
    case BY_OP_WRITE_ZEROES:
        return true;
    case BY_OP_DISCARD:
        return __atomic_load_n(&inode->discard, __ATOMIC_RELAXED)
            && (inode->node.ops->serves & BY_OP_BIT(BY_OP_DISCARD));
    default:
        return false;
    }
}

void by_bitmaps_record(const struct by_tracked *tracked)
{
    struct by_inode *inode = tracked->inode;

    if (!changes_data(tracked)) {
        return;
    }
    pthread_mutex_lock(&inode->bitmaps_lock);
    for (struct by_bitmap *b = inode->bitmaps; b; b = b->next) {
        by_bitmap_record(b, tracked->offset, tracked->bytes);
    }
    pthread_mutex_unlock(&inode->bitmaps_lock);
}

void by_bitmaps_resize(struct by_inode *inode)
{
    if (!__atomic_load_n(&inode->bitmaps, __ATOMIC_SEQ_CST)) {
        return;
    }
    pthread_mutex_lock(&inode->bitmaps_lock);
    for (struct by_bitmap *b = inode->bitmaps; b; b = b->next) {
        /* The newest length, not the caller's: two may change it at once. */
        by_bitmap_resize(b, present_length(inode));
    }
    pthread_mutex_unlock(&inode->bitmaps_lock);
}

void by_bitmaps_detach(struct by_inode *inode)
{
    while (inode->bitmaps) {
        by_bitmap_detach(inode->bitmaps);
    }
}
