/* SPDX-License-Identifier: Apache-2.0 */
/*
 * buffer.c - a loop's payload buffers: page aligned, rounded up to one of
 * four sizes per power of two, and kept for reuse up to a bound, because
 * fresh pages cost more to fault in than most requests cost otherwise.  What
 * nobody has used for a second goes back to the system.
 */
#include <stdlib.h>
#include <sys/mman.h>

#include "loop_private.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#define POISON(p, n) __asan_poison_memory_region((p), (n))
#define UNPOISON(p, n) __asan_unpoison_memory_region((p), (n))
#else
#define POISON(p, n) ((void)(p), (void)(n))
#define UNPOISON(p, n) ((void)(p), (void)(n))
#endif

/* Beyond the largest class, 64 MiB, buffers are not kept. */
enum { PAGE = 4096, STEPS = 4, CLASSES = 13 * STEPS };
static const size_t kept_max = 32u << 20;
static const uint64_t keep_ns = 1000000000;

struct kept {
    struct kept *next;
};

struct by_buffers {
    struct kept *free[CLASSES];
    size_t bytes;              /* kept now */
    uint64_t used;             /* when one was last kept */
};

/* Sizes in pages: 1 to 8, then 10, 12, 14, 16, 20, 24, 28, 32, 40 ... */
static unsigned class_of(size_t bytes, size_t *size)
{
    size_t pages = bytes ? (bytes + PAGE - 1) / PAGE : 1;
    unsigned shift = 0;
    size_t steps;

    if (pages > 2 * STEPS) {
        shift = 61 - (unsigned)__builtin_clzl(pages - 1);
    }
    steps = (pages + ((size_t)1 << shift) - 1) >> shift;
    *size = (steps << shift) * PAGE;
    return shift * STEPS + (unsigned)steps - 1;
}

struct by_buffers *by_buffers_create(void)
{
    return calloc(1, sizeof(struct by_buffers));
}

static void unmap(void *buffer, size_t size)
{
    UNPOISON(buffer, size);
    munmap(buffer, size);
}

static void *map(size_t size)
{
    void *buffer = mmap(NULL, size, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    return buffer == MAP_FAILED ? NULL : buffer;
}

static size_t size_of(unsigned class)
{
    unsigned shift = class < 2 * STEPS ? 0 : class / STEPS - 1;

    return ((size_t)(class - shift * STEPS + 1) << shift) * PAGE;
}

static void release(struct by_buffers *buffers)
{
    for (unsigned class = 0; class < CLASSES && buffers->bytes; class++) {
        while (buffers->free[class]) {
            struct kept *kept = buffers->free[class];

            buffers->free[class] = kept->next;
            buffers->bytes -= size_of(class);
            unmap(kept, size_of(class));
        }
    }
}

void by_buffers_destroy(struct by_buffers *buffers)
{
    if (buffers) {
        release(buffers);
        free(buffers);
    }
}

uint64_t by_buffers_relax(struct by_loop *loop)
{
    struct by_buffers *buffers = loop->buffers;
    uint64_t idle = loop->now - buffers->used;

    if (!buffers->bytes) {
        return BY_NEVER;
    }
    if (idle < keep_ns) {
        return keep_ns - idle;
    }
    release(buffers);
    return BY_NEVER;
}

void *by_buffer_get(struct by_loop *loop, size_t bytes)
{
    struct by_buffers *buffers = loop->buffers;
    size_t size;
    unsigned class;
    struct kept *kept;

    if (bytes > SIZE_MAX / 4) {
        return NULL;
    }
    class = class_of(bytes, &size);
    if (class >= CLASSES || !buffers->free[class]) {
        return map(size);
    }
    kept = buffers->free[class];
    UNPOISON(kept, size);
    buffers->free[class] = kept->next;
    buffers->bytes -= size;
    return kept;
}

void by_buffer_put(struct by_loop *loop, void *buffer, size_t bytes)
{
    struct by_buffers *buffers = loop->buffers;
    size_t size;
    unsigned class = class_of(bytes, &size);
    struct kept *kept = buffer;

    if (!buffer) {
        return;
    }
    if (class >= CLASSES || buffers->bytes + size > kept_max) {
        unmap(buffer, size);
        return;
    }
    kept->next = buffers->free[class];
    buffers->free[class] = kept;
    buffers->bytes += size;
    buffers->used = loop->now;
    POISON(kept + 1, size - sizeof(*kept));
}
