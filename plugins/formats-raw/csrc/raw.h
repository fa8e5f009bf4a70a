/* SPDX-License-Identifier: Apache-2.0 */
/* raw.h - what the files of the raw format share. */
#ifndef BLOCKYARD_FORMATS_RAW_H
#define BLOCKYARD_FORMATS_RAW_H

#include "blockyard.h"
#include "control.h"

#define BY_RAW_SECTOR 512

extern const struct by_api *by_raw_api;

struct by_raw {
    struct by_raw_settings settings;
};

/* guard.c: a write that covers the first sector of a guessed image */
int by_raw_guarded_write(struct by_node *node, struct by_request *req);

static inline const struct by_raw_settings *by_raw_settings_of(
    const struct by_node *node)
{
    return &((const struct by_raw *)node->state)->settings;
}

#endif /* BLOCKYARD_FORMATS_RAW_H */
