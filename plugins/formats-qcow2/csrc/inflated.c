/* SPDX-License-Identifier: Apache-2.0 */
/*
 * inflated.c - a bounded cache of clusters in the clear.  Small reads come in
 * crowds: the first inflates the cluster, the others wait for it and copy.
 */
#include <errno.h>
#include <stdlib.h>

#include "compressed.h"

#define BYTES (8u << 20)
#define FEWEST 4u

struct q2_inflated {
    pthread_mutex_t lock;
    struct q2_plain ring;       /* newer: the oldest */
    uint32_t count, max;
    struct q2_wait *no_room;
};

int q2_inflated_init(struct by_qcow2 *q)
{
    struct q2_inflated *cache = calloc(1, sizeof(*cache));

    if (!cache) {
        return -ENOMEM;
    }
    pthread_mutex_init(&cache->lock, NULL);
    cache->ring.newer = cache->ring.older = &cache->ring;
    cache->max = BYTES >> q->cluster_bits;
    if (cache->max < FEWEST) {
        cache->max = FEWEST;
    } else if (cache->max > 256) {
        cache->max = 256;
    }
    q->inflated = cache;
    return 0;
}

static void out_of_ring(struct q2_plain *plain)
{
    plain->newer->older = plain->older;
    plain->older->newer = plain->newer;
}

static void newest(struct q2_inflated *cache, struct q2_plain *plain)
{
    plain->newer = &cache->ring;
    plain->older = cache->ring.older;
    cache->ring.older->newer = plain;
    cache->ring.older = plain;
}

void q2_inflated_free(struct by_qcow2 *q)
{
    struct q2_inflated *cache = q->inflated;

    if (!cache) {
        return;
    }
    while (cache->ring.newer != &cache->ring) {
        struct q2_plain *plain = cache->ring.newer;

        out_of_ring(plain);
        free(plain->data);
        free(plain);
    }
    pthread_mutex_destroy(&cache->lock);
    free(cache);
    q->inflated = NULL;
}

static struct q2_plain *find(struct q2_inflated *cache, uint64_t at)
{
    struct q2_plain *plain = cache->ring.older;

    while (plain != &cache->ring && plain->at != at) {
        plain = plain->older;
    }
    return plain == &cache->ring ? NULL : plain;
}

/* An unused one, or the oldest that nobody uses. */
static struct q2_plain *room(struct by_qcow2 *q, struct q2_inflated *cache)
{
    struct q2_plain *plain = cache->ring.newer;

    if (cache->count < cache->max) {
        plain = calloc(1, sizeof(*plain));
        if (plain && !(plain->data = malloc(q->cluster_size))) {
            free(plain);
            plain = NULL;
        }
        cache->count += plain != NULL;
        return plain;
    }
    while (plain != &cache->ring && plain->users) {
        plain = plain->newer;
    }
    if (plain == &cache->ring) {
        return NULL;
    }
    out_of_ring(plain);
    return plain;
}

int q2_plain_get(struct by_qcow2 *q, uint64_t at, struct q2_wait *wait,
                 struct q2_plain **out)
{
    struct q2_inflated *cache = q->inflated;
    struct q2_plain *plain;
    int result = 0;

    pthread_mutex_lock(&cache->lock);
    plain = find(cache, at);
    if (plain && plain->making) {
        q2_wait_add(&plain->waiters, wait);
        result = -EAGAIN;
    } else if (plain) {
        out_of_ring(plain);
    } else if ((plain = room(q, cache))) {
        plain->at = at;
        plain->making = true;
        result = 1;
    } else if (cache->count) {
        q2_wait_add(&cache->no_room, wait);
        result = -EAGAIN;
    } else {
        result = -ENOMEM;
    }
    if (result >= 0) {
        newest(cache, plain);
        plain->users++;
        *out = plain;
    }
    pthread_mutex_unlock(&cache->lock);
    return result;
}

void q2_plain_made(struct by_qcow2 *q, struct q2_plain *plain, int result)
{
    struct q2_inflated *cache = q->inflated;

    pthread_mutex_lock(&cache->lock);
    plain->making = false;
    if (result < 0) {
        plain->at = UINT64_MAX;
    }
    q2_wake(&plain->waiters, result);
    pthread_mutex_unlock(&cache->lock);
}

void q2_plain_put(struct by_qcow2 *q, struct q2_plain *plain)
{
    struct q2_inflated *cache = q->inflated;

    pthread_mutex_lock(&cache->lock);
    if (--plain->users == 0) {
        q2_wake(&cache->no_room, 0);
    }
    pthread_mutex_unlock(&cache->lock);
}

void q2_plain_forget(struct by_qcow2 *q, uint64_t at)
{
    struct q2_inflated *cache = q->inflated;
    struct q2_plain *plain;

    pthread_mutex_lock(&cache->lock);
    plain = find(cache, at);
    if (plain) {
        plain->at = UINT64_MAX; /* no data begin there */
    }
    pthread_mutex_unlock(&cache->lock);
}
