/* SPDX-License-Identifier: Apache-2.0 */
/* library.c - core's table, and the life of a node's state. */
#include <errno.h>
#include <stdlib.h>

#include "quorum.h"

const struct by_api *by_quorum_api;

int by_filters_quorum_init(uintptr_t address)
{
    const struct by_api *table = (const struct by_api *)address;

    if (!table || table->abi != BY_ABI_VERSION
        || table->size < sizeof(*table)) {
        return -EPROTO;
    }
    by_quorum_api = table;
    return 0;
}

struct by_quorum *by_quorum_create(const struct by_quorum_settings *settings)
{
    struct by_quorum *quorum = calloc(1, sizeof(*quorum));

    if (quorum) {
        quorum->settings = *settings;
        quorum->ready_end = &quorum->ready;
    }
    return quorum;
}

void by_quorum_free(struct by_quorum *quorum)
{
    free(quorum);
}

void by_quorum_heard(struct by_quorum *quorum)
{
    __atomic_sub_fetch(&quorum->unheard, 1, __ATOMIC_RELAXED);
}
