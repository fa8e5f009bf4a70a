/* SPDX-License-Identifier: Apache-2.0 */
/*
 * slab.c - a loop's small pieces.  Sizes are rounded up to cache lines; each
 * has a free list, and new pieces are cut from chunks.  Pieces are used and
 * freed by one thread, so there is no lock; memory goes back to the system
 * when the loop ends, which bounds it by the loop's own peak.
 */
#include <stdlib.h>
#include <string.h>

#include "loop_private.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#define POISON(p, n) __asan_poison_memory_region((p), (n))
#define UNPOISON(p, n) __asan_unpoison_memory_region((p), (n))
#else
#define POISON(p, n) ((void)(p), (void)(n))
#define UNPOISON(p, n) ((void)(p), (void)(n))
#endif

enum { PIECE_MAX = 4096, CLASSES = PIECE_MAX / BY_CACHE_LINE,
       CHUNK = 64 * 1024 };

struct piece {
    struct piece *next;
};

struct chunk {
    struct chunk *next;
} __attribute__((aligned(BY_CACHE_LINE)));

struct by_slab {
    struct piece *free[CLASSES];
    char *fresh, *fresh_end;   /* the uncut part of the newest chunk */
    struct chunk *chunks;
};

struct by_slab *by_slab_create(void)
{
    return calloc(1, sizeof(struct by_slab));
}

void by_slab_destroy(struct by_slab *slab)
{
    if (!slab) {
        return;
    }
    while (slab->chunks) {
        struct chunk *chunk = slab->chunks;

        slab->chunks = chunk->next;
        UNPOISON(chunk, CHUNK);
        free(chunk);
    }
    free(slab);
}

static size_t class_of(size_t bytes)
{
    return bytes ? (bytes - 1) / BY_CACHE_LINE : 0;
}

static void keep(struct by_slab *slab, void *memory, size_t class)
{
    struct piece *piece = memory;

    piece->next = slab->free[class];
    slab->free[class] = piece;
    POISON(piece + 1, (class + 1) * BY_CACHE_LINE - sizeof(*piece));
}

/* What is left of the old chunk becomes one piece of its size. */
static bool refill(struct by_slab *slab)
{
    size_t left = (size_t)(slab->fresh_end - slab->fresh);
    struct chunk *chunk = aligned_alloc(BY_CACHE_LINE, CHUNK);

    if (!chunk) {
        return false;
    }
    if (left) {
        keep(slab, slab->fresh, class_of(left));
    }
    chunk->next = slab->chunks;
    slab->chunks = chunk;
    slab->fresh = (char *)(chunk + 1);
    slab->fresh_end = (char *)chunk + CHUNK;
    return true;
}

void *by_slab_get(struct by_loop *loop, size_t bytes)
{
    struct by_slab *slab = loop->slab;
    size_t class = class_of(bytes);
    size_t size = (class + 1) * BY_CACHE_LINE;
    struct piece *piece;

    if (__builtin_expect(class >= CLASSES, 0)) {
        return aligned_alloc(BY_CACHE_LINE, size);
    }
    piece = slab->free[class];
    if (piece) {
        UNPOISON(piece, size);
        slab->free[class] = piece->next;
        return piece;
    }
    if ((size_t)(slab->fresh_end - slab->fresh) < size && !refill(slab)) {
        return NULL;
    }
    piece = (struct piece *)slab->fresh;
    slab->fresh += size;
    return piece;
}

void by_slab_put(struct by_loop *loop, void *piece, size_t bytes)
{
    size_t class = class_of(bytes);

    if (!piece) {
        return;
    }
    if (__builtin_expect(class >= CLASSES, 0)) {
        free(piece);
    } else {
        keep(loop->slab, piece, class);
    }
}
