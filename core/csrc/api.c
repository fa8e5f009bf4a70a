/* SPDX-License-Identifier: Apache-2.0 */
/* api.c - the table that native plugins are given. */
#include "graph.h"

static struct by_api table;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void fill(void)
{
    table.size = sizeof(table);
    table.abi = BY_ABI_VERSION;
    table.submit = by_submit;
    table.wait = by_wait;
    table.complete = by_complete;
    table.frame_push = by_frame_push;
    table.frame_pop = by_frame_pop;
    table.root_submit = by_root_submit;
    table.root_length = by_root_length;
    table.root_limits = by_root_limits;
    table.root_node = by_root_node;
    table.node_set_length = by_node_set_length;
    by_loop_fill_api(&table);
}

const struct by_api *by_api_table(void)
{
    pthread_once(&once, fill);
    return &table;
}
