/* SPDX-License-Identifier: Apache-2.0 */
/* library.c - core's table, for all drivers of this distribution. */
#include <errno.h>

#include "debug.h"

const struct by_api *by_debug_api;

int by_filters_debug_init(uintptr_t address)
{
    const struct by_api *table = (const struct by_api *)address;

    if (!table || table->abi != BY_ABI_VERSION
        || table->size < sizeof(*table)) {
        return -EPROTO;
    }
    by_debug_api = table;
    return 0;
}
