/* SPDX-License-Identifier: Apache-2.0 */
/* cache_forget.c - slices that are not wanted any more. */
#include "image.h"

void q2_cache_forget(struct q2_cache *cache, uint64_t offset, uint64_t bytes)
{
    uint64_t end = offset + bytes;

    if (bytes / cache->slice_bytes > cache->count) {
        struct q2_slice *rings[] = { &cache->clean, &cache->dirty };

        for (int i = 0; i < 2; i++) {
            struct q2_slice *slice = rings[i]->newer, *next;

            for (; slice != rings[i]; slice = next) {
                next = slice->newer;
                if (slice->offset >= offset && slice->offset < end
                    && !slice->pins && !slice->loading) {
                    q2_cache_remove(cache, slice);
                }
            }
        }
        return;
    }
    for (; offset < end; offset += cache->slice_bytes) {
        struct q2_slice *slice = q2_cache_peek(cache, offset);

        if (slice && !slice->pins && !slice->loading) {
            q2_cache_remove(cache, slice);
        }
    }
}

void q2_cache_drop_all(struct by_qcow2 *q, struct q2_cache *cache)
{
    pthread_mutex_lock(&q->lock);
    while (cache->clean.newer != &cache->clean) {
        q2_cache_remove(cache, cache->clean.newer);
    }
    while (cache->dirty.newer != &cache->dirty) {
        q2_cache_remove(cache, cache->dirty.newer);
    }
    pthread_mutex_unlock(&q->lock);
}

void q2_cache_clean_unused(struct by_qcow2 *q, struct q2_cache *cache)
{
    struct q2_slice *slice, *next;

    pthread_mutex_lock(&q->lock);
    for (slice = cache->clean.newer; slice != &cache->clean; slice = next) {
        next = slice->newer;
        if (!slice->used && !slice->pins && !slice->loading) {
            q2_cache_remove(cache, slice);
        } else {
            slice->used = false;
        }
    }
    pthread_mutex_unlock(&q->lock);
}
