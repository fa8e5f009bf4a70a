/* SPDX-License-Identifier: Apache-2.0 */
/*
 * check_read.c - tables read ahead of their use.  Tables that are near each
 * other in the file are read in one piece; several pieces are under way at
 * once.
 */
#include <errno.h>
#include <stdlib.h>

#include "check.h"

enum {
    PIECES = 6,
    THREADS = 3,
    SPAN = 1 << 20,             /* of a piece, unless a table is longer */
    GAP = 64 << 10,             /* read rather than left out */
};

struct piece {
    uint64_t first, count;      /* of offsets */
    unsigned char *buffer;
    uint64_t size;
    int result;
    bool ready;
};

struct q2_reader {
    struct by_qcow2 *q;
    const uint64_t *offsets;
    uint64_t count;
    pthread_mutex_t lock;
    pthread_cond_t claimable, ready;
    uint64_t next;              /* offsets before it were claimed */
    uint64_t claimed, used;     /* pieces */
    uint64_t at;                /* in the piece that is used */
    bool ends;
    uint32_t nthreads;
    pthread_t threads[THREADS];
    struct piece pieces[PIECES];
};

/* Under lock: the next piece to be read; null when all were claimed. */
static struct piece *claim(struct q2_reader *reader)
{
    uint64_t cluster = reader->q->cluster_size;
    uint64_t first = reader->next, base = reader->offsets[first];
    uint64_t end = base + cluster, n = first + 1;
    struct piece *piece = &reader->pieces[reader->claimed++ % PIECES];

    for (; n < reader->count; n++) {
        uint64_t offset = reader->offsets[n];

        if (offset < end || offset - end > GAP
            || offset + cluster - base > SPAN) {
            break;
        }
        end = offset + cluster;
    }
    piece->first = first;
    piece->count = n - first;
    piece->ready = false;
    reader->next = n;
    return piece;
}

static void fill(struct q2_reader *reader, struct piece *piece)
{
    uint64_t base = reader->offsets[piece->first];
    uint64_t bytes = reader->offsets[piece->first + piece->count - 1]
                   + reader->q->cluster_size - base;

    if (piece->size < bytes) {
        free(piece->buffer);
        piece->buffer = malloc(bytes);
        piece->size = piece->buffer ? bytes : 0;
    }
    piece->result = piece->buffer
                  ? q2_pread(reader->q, base, piece->buffer, bytes)
                  : -ENOMEM;
}

static void *read_ahead(void *argument)
{
    struct q2_reader *reader = argument;

    pthread_mutex_lock(&reader->lock);
    while (!reader->ends && reader->next < reader->count) {
        struct piece *piece;

        if (reader->claimed - reader->used >= PIECES) {
            pthread_cond_wait(&reader->claimable, &reader->lock);
            continue;
        }
        piece = claim(reader);
        pthread_mutex_unlock(&reader->lock);
        fill(reader, piece);
        pthread_mutex_lock(&reader->lock);
        piece->ready = true;
        pthread_cond_signal(&reader->ready);
    }
    pthread_mutex_unlock(&reader->lock);
    return NULL;
}

struct q2_reader *q2_reader_begin(struct by_qcow2 *q, const uint64_t *offsets,
                                  uint64_t count)
{
    struct q2_reader *reader = calloc(1, sizeof(*reader));

    if (!reader) {
        return NULL;
    }
    reader->q = q;
    reader->offsets = offsets;
    reader->count = count;
    pthread_mutex_init(&reader->lock, NULL);
    pthread_cond_init(&reader->claimable, NULL);
    pthread_cond_init(&reader->ready, NULL);
    while (count > 4 && reader->nthreads < THREADS
           && pthread_create(&reader->threads[reader->nthreads], NULL,
                             read_ahead, reader) == 0) {
        reader->nthreads++;
    }
    return reader;
}

/* The piece that holds the table after the last; it is read. */
static struct piece *current(struct q2_reader *reader)
{
    struct piece *piece = &reader->pieces[reader->used % PIECES];

    if (reader->at && reader->at == piece->count) {
        pthread_mutex_lock(&reader->lock);
        reader->used++;
        reader->at = 0;
        pthread_cond_signal(&reader->claimable);
        pthread_mutex_unlock(&reader->lock);
        piece = &reader->pieces[reader->used % PIECES];
    }
    if (reader->at) {
        return piece;
    }
    if (!reader->nthreads) {
        fill(reader, claim(reader));
        return piece;
    }
    pthread_mutex_lock(&reader->lock);
    while (reader->claimed == reader->used || !piece->ready) {
        pthread_cond_wait(&reader->ready, &reader->lock);
    }
    pthread_mutex_unlock(&reader->lock);
    return piece;
}

int q2_reader_next(struct q2_reader *reader, unsigned char **table)
{
    struct piece *piece = current(reader);
    uint64_t base = reader->offsets[piece->first];
    uint64_t offset = reader->offsets[piece->first + reader->at++];

    *table = piece->buffer + (offset - base);
    if (piece->result == 0 || piece->count == 1) {
        return piece->result;
    }
    /* What lies between the tables may be what cannot be read. */
    return piece->buffer ? q2_pread(reader->q, offset, *table,
                                    reader->q->cluster_size)
                         : piece->result;
}

void q2_reader_end(struct q2_reader *reader)
{
    pthread_mutex_lock(&reader->lock);
    reader->ends = true;
    pthread_cond_broadcast(&reader->claimable);
    pthread_mutex_unlock(&reader->lock);
    for (uint32_t i = 0; i < reader->nthreads; i++) {
        pthread_join(reader->threads[i], NULL);
    }
    for (int i = 0; i < PIECES; i++) {
        free(reader->pieces[i].buffer);
    }
    pthread_cond_destroy(&reader->ready);
    pthread_cond_destroy(&reader->claimable);
    pthread_mutex_destroy(&reader->lock);
    free(reader);
}
