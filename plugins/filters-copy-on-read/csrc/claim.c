/* SPDX-License-Identifier: Apache-2.0 */
/* claim.c - ranges that are being copied or changed. */
#include "cor.h"

static bool conflict(const struct by_claim *a, const struct by_claim *b)
{
    return (a->copies || b->copies) && a->from < b->to && b->from < a->to;
}

static bool may_hold(const struct by_cor *cor, const struct by_claim *claim)
{
    const struct by_claim *older = cor->claims;

    while (older != claim && !conflict(older, claim)) {
        older = older->next;
    }
    return older == claim;
}

bool by_cor_claim(struct by_cor *cor, struct by_claim *claim, uint64_t from,
                  uint64_t to, bool copies)
{
    bool holds;

    claim->from = from;
    claim->to = to;
    claim->copies = copies;
    pthread_mutex_lock(&cor->lock);
    claim->next = NULL;
    claim->at = cor->claims_end;
    *cor->claims_end = claim;
    cor->claims_end = &claim->next;
    holds = claim->holds = may_hold(cor, claim);
    pthread_mutex_unlock(&cor->lock);
    return holds;
}

void by_cor_unclaim(struct by_cor *cor, struct by_claim *claim)
{
    pthread_mutex_lock(&cor->lock);
    *claim->at = claim->next;
    if (claim->next) {
        claim->next->at = claim->at;
    } else {
        cor->claims_end = claim->at;
    }
    for (struct by_claim *c = claim->next; c; c = c->next) {
        if (!c->holds && conflict(claim, c) && may_hold(cor, c)) {
            c->holds = true;
            by_cor_api->loop_post(c->loop, &c->granted);
        }
    }
    pthread_mutex_unlock(&cor->lock);
}
