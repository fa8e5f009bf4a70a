/* SPDX-License-Identifier: Apache-2.0 */
/* cor.h - what the files of the filter copy-on-read share. */
#ifndef BLOCKYARD_FILTERS_COR_COR_H
#define BLOCKYARD_FILTERS_COR_COR_H

#include <pthread.h>

#include "control.h"

extern const struct by_api *by_cor_api;

/*
 * A claim on a range: copies exclude each other and what changes data, which
 * does not exclude its own kind.  A claim holds once none that conflicts is
 * ahead of it in the list, so claims wait for older ones only.
 */
struct by_claim {
    struct by_claim *next, **at;    /* in the list; at points here */
    uint64_t from, to;
    bool copies, holds;
    struct by_loop *loop;
    struct by_task granted;         /* run on the loop when it holds at last */
};

struct by_cor {
    uint64_t cluster;
    uint32_t layers;
    pthread_mutex_t lock;
    struct by_claim *claims, **claims_end;
};

/* claim.c: true when the claim holds at once; else granted runs, later */
bool by_cor_claim(struct by_cor *cor, struct by_claim *claim, uint64_t from,
                  uint64_t to, bool copies);
void by_cor_unclaim(struct by_cor *cor, struct by_claim *claim);

/* read.c: READ, and PREFETCH, which copies without reading */
int by_cor_read(struct by_node *node, struct by_request *req);

#endif /* BLOCKYARD_FILTERS_COR_COR_H */
