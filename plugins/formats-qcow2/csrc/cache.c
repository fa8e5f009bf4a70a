/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cache.c - slices of L2 tables and refcount blocks in memory.
 *
 * Requests find slices under the lock and never wait for one: a miss begins a
 * load on the request's own loop and wakes it afterwards.  Table work waits.
 * Both may ask for the same slice at once; the second waits for the first.
 */
#include <errno.h>
#include <stdlib.h>

#include "image.h"

/* A load by a loop. */
struct q2_load {
    struct by_request req;
    struct by_task task;
    struct iovec iov;
    struct by_qcow2 *q;
    struct q2_cache *cache;
    struct q2_slice *slice;
};

static void set_size(struct q2_cache *cache, uint32_t slice_bytes,
                     uint64_t bytes)
{
    uint64_t max = bytes / slice_bytes;

    cache->slice_bytes = slice_bytes;
    cache->max = max < 2 ? 2 : max > INT32_MAX ? INT32_MAX : max;
}

static int make_hash(struct q2_cache *cache)
{
    uint32_t buckets = 16;

    while (buckets < cache->max && buckets < 1u << 20) {
        buckets *= 2;
    }
    cache->hash_mask = buckets - 1;
    cache->hash = calloc(buckets, sizeof(*cache->hash));
    return cache->hash ? 0 : -ENOMEM;
}

int q2_cache_init(struct q2_cache *cache, uint32_t slice_bytes, uint64_t bytes)
{
    memset(cache, 0, sizeof(*cache));
    cache->clean.newer = cache->clean.older = &cache->clean;
    cache->dirty.newer = cache->dirty.older = &cache->dirty;
    set_size(cache, slice_bytes, bytes);
    return make_hash(cache);
}

int q2_cache_reshape(struct by_qcow2 *q, struct q2_cache *cache,
                     uint32_t slice_bytes, uint64_t bytes)
{
    struct q2_cache new = { 0 };
    int result;

    set_size(&new, slice_bytes, bytes);
    result = make_hash(&new);
    if (result < 0) {
        return result;
    }
    q2_cache_drop_all(q, cache);
    free(cache->hash);
    cache->slice_bytes = new.slice_bytes;
    cache->max = new.max;
    cache->hash = new.hash;
    cache->hash_mask = new.hash_mask;
    return 0;
}

/* -------------------------------------------------------- rings and hash */

static void ring_out(struct q2_slice *slice)
{
    slice->newer->older = slice->older;
    slice->older->newer = slice->newer;
}

static void ring_in(struct q2_slice *head, struct q2_slice *slice)
{
    slice->newer = head;
    slice->older = head->older;
    head->older->newer = slice;
    head->older = slice;
}

static struct q2_slice **bucket(struct q2_cache *cache, uint64_t offset)
{
    uint64_t number = offset / cache->slice_bytes;

    return &cache->hash[(number ^ number >> 20) & cache->hash_mask];
}

struct q2_slice *q2_cache_peek(struct q2_cache *cache, uint64_t offset)
{
    struct q2_slice *slice = *bucket(cache, offset);

    while (slice && slice->offset != offset) {
        slice = slice->hash_next;
    }
    return slice;
}

static void unhash(struct q2_cache *cache, struct q2_slice *slice)
{
    struct q2_slice **at = bucket(cache, slice->offset);

    while (*at != slice) {
        at = &(*at)->hash_next;
    }
    *at = slice->hash_next;
}

/* Out of the cache and out of memory. */
void q2_cache_remove(struct q2_cache *cache, struct q2_slice *slice)
{
    if (slice->dirty) {
        cache->ndirty--;
    }
    ring_out(slice);
    unhash(cache, slice);
    cache->count--;
    free(slice->table);
    free(slice);
}

void q2_cache_free(struct q2_cache *cache)
{
    while (cache->clean.newer && cache->clean.newer != &cache->clean) {
        q2_cache_remove(cache, cache->clean.newer);
    }
    while (cache->dirty.newer && cache->dirty.newer != &cache->dirty) {
        q2_cache_remove(cache, cache->dirty.newer);
    }
    free(cache->hash);
    cache->hash = NULL;
}

/* ------------------------------------------------------------------ room */

static struct q2_slice *oldest_idle(struct q2_cache *cache)
{
    struct q2_slice *slice = cache->clean.newer;

    while (slice != &cache->clean && (slice->pins || slice->loading)) {
        slice = slice->newer;
    }
    return slice == &cache->clean ? NULL : slice;
}

static struct q2_slice *make_slice(struct q2_cache *cache)
{
    struct q2_slice *slice = calloc(1, sizeof(*slice));

    size_t align = cache->slice_bytes < 4096 ? cache->slice_bytes : 4096;

    if (slice && posix_memalign((void **)&slice->table, align,
                                cache->slice_bytes)) {
        free(slice);
        slice = NULL;
    }
    return slice;
}

/* A slice for `offset`, loading and in no one's hands.  *full: all are dirty
 * or in use. */
static struct q2_slice *take(struct q2_cache *cache, uint64_t offset,
                             bool beyond, bool *full)
{
    struct q2_slice *slice = NULL, **at;

    *full = false;
    while (cache->count > cache->max && (slice = oldest_idle(cache))) {
        q2_cache_remove(cache, slice);
    }
    slice = cache->count >= cache->max ? oldest_idle(cache) : NULL;
    if (slice) {
        ring_out(slice);
        unhash(cache, slice);
    } else if (cache->count >= cache->max && !beyond) {
        *full = true;
        return NULL;
    } else {
        slice = make_slice(cache);
        if (!slice) {
            return NULL;
        }
        cache->count++;
    }
    slice->offset = offset;
    slice->loading = true;
    slice->used = true;
    at = bucket(cache, offset);
    slice->hash_next = *at;
    *at = slice;
    ring_in(&cache->clean, slice);
    return slice;
}

static void end_loading(struct by_qcow2 *q, struct q2_cache *cache,
                        struct q2_slice *slice, int result)
{
    slice->loading = false;
    q2_wake(&slice->waiters, result);
    pthread_cond_broadcast(&q->loaded);
    if (result < 0) {
        q2_cache_remove(cache, slice);
    }
    q2_wake(&cache->no_room, 0);
}

/* ------------------------------------------------------------- for loops */

struct q2_slice *q2_cache_find(struct q2_cache *cache, uint64_t offset)
{
    struct q2_slice *slice = q2_cache_peek(cache, offset);

    if (unlikely(!slice || slice->loading)) {
        return NULL;
    }
    slice->used = true;
    if (!slice->dirty && cache->clean.older != slice) {
        ring_out(slice);
        ring_in(&cache->clean, slice);
    }
    return slice;
}

static void load_end(struct q2_load *load, int result)
{
    struct by_qcow2 *q = load->q;

    pthread_mutex_lock(&q->lock);
    end_loading(q, load->cache, load->slice, result);
    pthread_mutex_unlock(&q->lock);
    free(load);
}

static void load_done(struct by_request *req, int result)
{
    load_end(req->owner, result);
}

/* QEMU tells of refcounts not when it loads but when it changes them. */
static void announce_load(const struct by_qcow2 *q,
                          const struct q2_cache *cache)
{
    if (cache == &q->l2) {
        q2_event(q, BY_DEBUG_L2_LOAD);
    }
}

static void load_start(struct by_task *task)
{
    struct q2_load *load = task->owner;
    uint64_t end = by_node_length(load->q->file);
    uint64_t there = load->req.offset < end ? end - load->req.offset : 0;
    int result = 0;

    announce_load(load->q, load->cache);
    if (there < load->req.bytes) {
        memset(load->slice->table + there, 0, load->req.bytes - there);
        load->req.bytes = load->iov.iov_len = there;
    }
    if (load->req.bytes) {
        result = q2_api->submit(load->q->file, &load->req);
    }
    if (result != BY_PENDING) {
        load_end(load, result);
    }
}

static int begin_load(struct by_qcow2 *q, struct q2_cache *cache,
                      struct q2_slice *slice, struct by_loop *loop)
{
    struct q2_load *load = calloc(1, sizeof(*load));

    if (!load) {
        return -ENOMEM;
    }
    load->q = q;
    load->cache = cache;
    load->slice = slice;
    load->iov.iov_base = slice->table;
    load->iov.iov_len = cache->slice_bytes;
    load->req = (struct by_request) {
        .size = sizeof(load->req), .op = BY_OP_READ, .offset = slice->offset,
        .bytes = cache->slice_bytes, .iov = &load->iov, .niov = 1,
        .loop = loop, .done = load_done, .owner = load,
    };
    load->task.run = load_start;
    load->task.owner = load;
    q2_api->loop_defer(loop, &load->task); /* not under the lock */
    return 0;
}

static int sync_chore(struct by_qcow2 *q, struct q2_chore *chore)
{
    int result = q2_sync(q);

    pthread_mutex_lock(&q->lock);
    chore->result = 0;
    q2_wake(&q->l2.no_room, result);
    q2_wake(&q->rb.no_room, result);
    pthread_mutex_unlock(&q->lock);
    return 0;
}

static void want_room(struct by_qcow2 *q, struct q2_cache *cache,
                      struct q2_wait *wait)
{
    q2_wait_add(&cache->no_room, wait);
    if (cache->ndirty && !q->room.result) {
        q->room.result = 1;
        q->room.run = sync_chore;
        q2_chore_add(q, &q->room);
    }
}

int q2_cache_fetch(struct by_qcow2 *q, struct q2_cache *cache, uint64_t offset,
                   struct q2_wait *wait)
{
    struct q2_slice *slice = q2_cache_peek(cache, offset);
    bool full;
    int result;

    if (!by_range_ok(offset, cache->slice_bytes, INT64_MAX)) {
        return -EIO;
    }
    if (!slice) {
        slice = take(cache, offset, false, &full);
        if (full) {
            want_room(q, cache, wait);
            return 0;
        }
        if (!slice) {
            return -ENOMEM;
        }
        result = begin_load(q, cache, slice, wait->loop);
        if (result < 0) {
            slice->loading = false;
            q2_cache_remove(cache, slice);
            return result;
        }
    }
    q2_wait_add(&slice->waiters, wait);
    return 0;
}

/* -------------------------------------------------------- for table work */

/* The slice, pinned and loading for us, or there already. */
static int reserve(struct by_qcow2 *q, struct q2_cache *cache, uint64_t offset,
                   struct q2_slice **out)
{
    bool tried = q->syncing, full;

    for (;;) {
        struct q2_slice *slice = q2_cache_peek(cache, offset);

        if (slice && slice->loading) {
            pthread_cond_wait(&q->loaded, &q->lock);
            continue;
        }
        if (slice) {
            slice->pins++;
            *out = slice;
            return 0;
        }
        slice = take(cache, offset, tried, &full);
        if (slice) {
            slice->pins++;
            *out = slice;
            return 1;
        }
        if (!full) {
            return -ENOMEM;
        }
        tried = true; /* room by writing, or beyond the bound */
        if (cache->ndirty) {
            pthread_mutex_unlock(&q->lock);
            (void)q2_sync(q);
            pthread_mutex_lock(&q->lock);
        }
    }
}

int q2_cache_get(struct by_qcow2 *q, struct q2_cache *cache, uint64_t offset,
                 struct q2_slice **out)
{
    struct q2_slice *slice;
    int result;

    if (!by_range_ok(offset, cache->slice_bytes, INT64_MAX)) {
        return -EIO;
    }
    pthread_mutex_lock(&q->lock);
    result = reserve(q, cache, offset, &slice);
    if (result == 1) {
        pthread_mutex_unlock(&q->lock);
        announce_load(q, cache);
        result = q2_pread(q, offset, slice->table, cache->slice_bytes);
        pthread_mutex_lock(&q->lock);
        if (result < 0) {
            slice->pins--;
        }
        end_loading(q, cache, slice, result);
    }
    pthread_mutex_unlock(&q->lock);
    if (result == 0) {
        *out = slice;
    }
    return result;
}

int q2_cache_get_zeroed(struct by_qcow2 *q, struct q2_cache *cache,
                        uint64_t offset, struct q2_slice **out)
{
    struct q2_slice *slice;
    int result;

    if (!by_range_ok(offset, cache->slice_bytes, INT64_MAX)) {
        return -EIO;
    }
    pthread_mutex_lock(&q->lock);
    result = reserve(q, cache, offset, &slice);
    if (result >= 0) {
        memset(slice->table, 0, cache->slice_bytes);
        if (result == 1) {
            end_loading(q, cache, slice, 0);
        }
        q2_cache_dirty(cache, slice);
        *out = slice;
        result = 0;
    }
    pthread_mutex_unlock(&q->lock);
    return result;
}

/* ---------------------------------------------------------------- states */

void q2_cache_pin(struct q2_slice *slice)
{
    slice->pins++;
}

void q2_cache_unpin(struct q2_cache *cache, struct q2_slice *slice)
{
    if (--slice->pins == 0 && !slice->dirty) {
        q2_wake(&cache->no_room, 0);
    }
}

void q2_cache_dirty(struct q2_cache *cache, struct q2_slice *slice)
{
    slice->changes++;
    if (!slice->dirty) {
        slice->dirty = true;
        cache->ndirty++;
        ring_out(slice);
        ring_in(&cache->dirty, slice);
    }
}

void q2_cache_cleaned(struct q2_cache *cache, struct q2_slice *slice)
{
    if (slice->dirty) {
        slice->dirty = false;
        cache->ndirty--;
        ring_out(slice);
        ring_in(&cache->clean, slice);
        q2_wake(&cache->no_room, 0);
    }
}
