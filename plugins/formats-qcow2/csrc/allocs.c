/* SPDX-License-Identifier: Apache-2.0 */
/* allocs.c - changes of the mapping that are under way, a few at a time. */
#include "requests.h"

uint64_t q2_alloc_clear(struct by_qcow2 *q, uint64_t guest, uint64_t bytes,
                        struct q2_alloc **holder)
{
    struct q2_alloc *alloc;

    *holder = NULL;
    for (alloc = q->allocs; alloc; alloc = alloc->next) {
        uint64_t from = alloc->first << q->cluster_bits;
        uint64_t to = from + (alloc->count << q->cluster_bits);

        if (to <= guest || from >= guest + bytes) {
            continue;
        }
        if (from <= guest) {
            *holder = alloc;
            return 0;
        }
        bytes = from - guest;
    }
    return bytes;
}

void q2_alloc_enter(struct by_qcow2 *q, struct q2_alloc *alloc)
{
    alloc->waiters = NULL;
    alloc->next = q->allocs;
    q->allocs = alloc;
}

void q2_alloc_leave(struct by_qcow2 *q, struct q2_alloc *alloc)
{
    struct q2_alloc **at = &q->allocs;

    while (*at != alloc) {
        at = &(*at)->next;
    }
    *at = alloc->next;
    q2_wake(&alloc->waiters, 0);
}
