/* SPDX-License-Identifier: Apache-2.0 */
/*
 * control.h - what the Python half of the raw format calls.
 *
 * The build reads these declarations for cffi, so this file holds nothing but
 * comments, includes, plain structures and prototypes.
 */
#ifndef BLOCKYARD_FORMATS_RAW_CONTROL_H
#define BLOCKYARD_FORMATS_RAW_CONTROL_H

#include "blockyard.h"

/* Take core's table.  -EPROTO: it is for another BY_ABI_VERSION. */
int by_raw_init(uintptr_t api);

struct by_raw_settings {
    uint64_t offset;    /* where the image begins in the file, bytes */
    uint64_t size;      /* its length, if fixed */
    bool fixed;         /* a size was given: no resizing */
    bool guarded;       /* the format was guessed: watch the first sector */
};
/* The state of one node.  Null: no memory. */
struct by_raw *by_raw_create(const struct by_raw_settings *settings);
/* The node is drained. */
void by_raw_change(struct by_raw *raw, const struct by_raw_settings *settings);
void by_raw_free(struct by_raw *raw);
/* struct by_node_ops, as an address */
uintptr_t by_raw_ops(void);

/*
 * Would this first sector (512 bytes) be taken for another format's header?
 * The name of the format, or null.
 */
const char *by_raw_other_format(const void *sector);

#endif /* BLOCKYARD_FORMATS_RAW_CONTROL_H */
