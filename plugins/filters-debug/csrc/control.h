/* SPDX-License-Identifier: Apache-2.0 */
/*
 * control.h - what the Python half of blkdebug, blkverify and
 * blklogwrites calls.
 *
 * The build reads these declarations for cffi, so this file holds nothing but
 * comments, includes, plain structures and prototypes.
 */
#ifndef BLOCKYARD_FILTERS_DEBUG_CONTROL_H
#define BLOCKYARD_FILTERS_DEBUG_CONTROL_H

#include "blockyard.h"

/* Take core's table.  -EPROTO: it is for another BY_ABI_VERSION. */
int by_filters_debug_init(uintptr_t api);

/* ------------------------------------------------------------- blkdebug */

/* What a rule does when its event happens. */
enum by_blkdebug_action {
    BY_BLKDEBUG_INJECT,
    BY_BLKDEBUG_SET_STATE,
    BY_BLKDEBUG_SUSPEND
};

/* Bits of the kinds of request that an error meets, QAPI's BlkdebugIOType. */
enum by_blkdebug_iotype {
    BY_BLKDEBUG_READ = 1,
    BY_BLKDEBUG_WRITE = 2,
    BY_BLKDEBUG_WRITE_ZEROES = 4,
    BY_BLKDEBUG_DISCARD = 8,
    BY_BLKDEBUG_FLUSH = 16,
    BY_BLKDEBUG_BLOCK_STATUS = 32
};

struct by_blkdebug_rule {
    uint32_t action;        /* enum by_blkdebug_action */
    uint32_t event;         /* enum by_debug_event */
    int64_t state;          /* 0: any */
    int64_t new_state;      /* SET_STATE */
    int32_t error;          /* INJECT: positive; 0 injects none */
    uint32_t iotypes;       /* INJECT: enum by_blkdebug_iotype */
    int64_t offset;         /* INJECT: bytes, -1 for any */
    uint64_t delay_ns;      /* INJECT: before the request goes on or fails */
    bool once, immediately; /* INJECT */
    uint64_t id;            /* SUSPEND: of the breakpoint */
};

struct by_blkdebug_settings {
    uint64_t write_zeroes_least; /* smaller ones are not supported */
    uint64_t tag;                /* of BY_BLKDEBUG_SUSPENDED */
};

/* Kinds of the events that C reports with the tag. */
enum by_blkdebug_report {
    BY_BLKDEBUG_SUSPENDED = 1    /* a = the breakpoint's id */
};

/* The state of one node.  Null: no memory. */
struct by_blkdebug *by_blkdebug_create(
    const struct by_blkdebug_settings *settings);
void by_blkdebug_free(struct by_blkdebug *debug);
/* Any thread.  0 or -ENOMEM. */
int by_blkdebug_add(struct by_blkdebug *debug,
                    const struct by_blkdebug_rule *rule);
/* Let what this breakpoint holds go on; how many requests. */
uint32_t by_blkdebug_resume(struct by_blkdebug *debug, uint64_t id);
/* The same, and take the breakpoint away if it is still waiting. */
uint32_t by_blkdebug_remove(struct by_blkdebug *debug, uint64_t id);
/* The event happens. */
void by_blkdebug_raise(struct by_blkdebug *debug, uint32_t event);
/* What a request of this kind meets now: 0 or -errno.  *delay_ns and
 * *immediately are the rule's that applies; a `once` is used up. */
int by_blkdebug_check(struct by_blkdebug *debug, uint32_t iotype,
                      uint64_t offset, uint64_t bytes, uint64_t *delay_ns,
                      bool *immediately);
/* struct by_node_ops, as an address */
uintptr_t by_blkdebug_ops(void);

/* ------------------------------------------------------------ blkverify */

/* Kinds of the events that C reports: a = offset, b = bytes of the request.
 * The state of a node is one uint64_t, their tag. */
enum by_blkverify_report {
    BY_BLKVERIFY_CONTENT = 1,    /* result = where in it the first difference is */
    BY_BLKVERIFY_READ_RESULT,    /* one disk has failed, or both differently */
    BY_BLKVERIFY_WRITE_RESULT
};
/* struct by_node_ops, as an address */
/* A node's state; all but the tag begins as zero and is C's. */
struct by_blkverify {
    uint64_t tag;
    bool busy;
    void *first, *last;    /* requests that wait for their turn */
};
uintptr_t by_blkverify_ops(void);

/* --------------------------------------------------------- blklogwrites */

struct by_logwrites_settings {
    uint64_t interval;           /* of entries, behind which the superblock is
                                    written; not 0 */
    uint64_t next;               /* the log's sector for the next entry */
    uint64_t entries;            /* that are in the log */
    uint32_t sector_size;        /* bytes; a power of two, 32 at least */
};

/* The state of one node.  Null: no memory. */
struct by_logwrites *by_logwrites_create(
    const struct by_logwrites_settings *settings);
void by_logwrites_free(struct by_logwrites *log);
/* Node drained.  The superblock, for whoever writes it now: its bytes, which
 * are a sector; 0: the log has it. */
uint32_t by_logwrites_superblock(struct by_logwrites *log, void *out);
/* struct by_node_ops, as an address */
uintptr_t by_logwrites_ops(void);

#endif /* BLOCKYARD_FILTERS_DEBUG_CONTROL_H */
