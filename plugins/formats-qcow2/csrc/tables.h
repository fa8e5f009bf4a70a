/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tables.h - what resizing, snapshots, amending and bitmaps share.
 *
 * All of it is table work: `meta` is held, nobody else changes L1, and what
 * is resized or replaced has no requests.
 */
#ifndef BLOCKYARD_QCOW2_TABLES_H
#define BLOCKYARD_QCOW2_TABLES_H

#include "image.h"
#include "tables_control.h"

#define Q2_WHY 256              /* bytes of a `why` */

/* ------------------------------------------------------------- tables.c */

/* Put a sentence in why (may be null), with the error's text behind a colon
 * when error is negative; answers error. */
int q2_say(char *why, int error, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* A table of 8-byte entries that the file names: aligned, in the range of
 * offsets, no larger than max_bytes.  -EINVAL or -EFBIG with QEMU's sentence
 * about `name`. */
int q2_table_check(const struct by_qcow2 *q, uint64_t offset, uint64_t entries,
                   uint64_t max_bytes, const char *name, char *why);
/* The entries, in the host's byte order, and zeroes up to `room` entries;
 * null without memory or with *error. */
uint64_t *q2_table_read(struct by_qcow2 *q, uint64_t offset, uint64_t entries,
                        uint64_t room, int *error);
/* Write such a table to clusters of its own, the rest of the last cluster as
 * zeroes, after the overlap check but for types in `ignore`.  No barrier. */
int q2_table_write(struct by_qcow2 *q, uint32_t ignore, uint64_t offset,
                   const uint64_t *entries, uint64_t count);
/* Bytes of a table in whole clusters. */
uint64_t q2_table_bytes(const struct by_qcow2 *q, uint64_t entries);
/* L1 entries that a disk of this size needs. */
uint64_t q2_l1_entries(const struct by_qcow2 *q, uint64_t bytes);
/* References to clusters of the file end at once: what referred to them is
 * not on the disk any more.  Discards them as the options say. */
int q2_drop(struct by_qcow2 *q, uint64_t offset, uint64_t bytes,
            enum by_qcow2_discard why);
/* An active table's clusters are free when the disk knows: out of the map and
 * of the caches, then q2_drop. */
int q2_drop_table(struct by_qcow2 *q, uint64_t offset, uint64_t bytes,
                  uint32_t overlap, enum by_qcow2_discard why);

/* The disk's tables change in steps that are not one for a checker: what is
 * between them is marked with the dirty bit (version 3), so that whoever opens
 * the image after a power cut repairs it.  begin answers 0 or -errno; end
 * clears the bit again if begin has set it and `result` is 0. */
struct q2_unsure {
    bool marked;
};
int q2_unsure_begin(struct by_qcow2 *q, struct q2_unsure *unsure);
int q2_unsure_end(struct by_qcow2 *q, struct q2_unsure *unsure, int result);

/* --------------------------------------------------------------- walk.c */

/* References that an L2 table makes: runs of clusters. */
struct q2_refs {
    struct q2_ref {
        uint64_t cluster, count;
    } *runs;
    uint32_t n, room;
};

/* The L2 table that an entry of an L1 table names: 0 (none), its offset, or
 * -EIO: reported.  index is for the report. */
int q2_l1_entry_check(struct by_qcow2 *q, uint64_t entry, uint32_t index);
/* All of a table: each is good, and no L2 table is named twice (which nobody
 * writes, and which would make a walk as long as an image's author likes).
 * -EIO: reported. */
int q2_l1_check(struct by_qcow2 *q, const uint64_t *l1, uint32_t entries);
/* Call fn for entries [first, first + count) of the L2 table; *entry and
 * *bitmap (of subclusters, 0 without) may be changed, which fn tells by
 * answering 1.  Ends at a negative answer, with it. */
struct q2_at {
    uint64_t l2_offset;
    uint32_t index;             /* in the table */
    void *owner;
};
typedef int (*q2_entry_fn)(struct by_qcow2 *q, const struct q2_at *at,
                           uint64_t *entry, uint64_t *bitmap);
int q2_l2_each(struct by_qcow2 *q, uint64_t l2_offset, uint32_t first,
               uint32_t count, q2_entry_fn fn, void *owner);
/* What an L2 entry refers to in the file: whole clusters, 0 bytes for
 * nothing.  -EIO: it is bad, and was reported. */
int q2_entry_refs(struct by_qcow2 *q, const struct q2_at *at, uint64_t entry,
                  uint64_t *offset, uint64_t *bytes);
/* Gather the references of a table, itself not counted; runs are the
 * caller's to free. */
int q2_l2_refs(struct by_qcow2 *q, uint64_t l2_offset, struct q2_refs *refs);
/* One more reference to all that these L1 entries lead to, L2 tables
 * included.  On failure nothing has changed. */
int q2_tree_add(struct by_qcow2 *q, const uint64_t *l1, uint32_t entries);
/* One less, at once; nothing on the disk refers by these entries any more. */
int q2_tree_drop(struct by_qcow2 *q, const uint64_t *l1, uint32_t entries);
/* Make the flags "the refcount is one" of the active tables true. */
int q2_tree_flags(struct by_qcow2 *q);
/* The L2 tables of these L1 entries are (are not any more) metadata of this
 * type, for the overlap check; entries that are bad are passed over. */
int q2_tree_map(struct by_qcow2 *q, const uint64_t *l1, uint32_t entries,
                uint32_t type, bool add);

/* -------------------------------------------------------------- clear.c */

/* Guest clusters [first, first + count) refer to nothing: they are
 * unallocated, or read as zeroes (zero; not with version 2: -ENOTSUP).  What
 * they had is freed with `why`.  In memory: q2_sync brings it to the disk. */
int q2_clear(struct by_qcow2 *q, uint64_t first, uint64_t count, bool zero,
             enum by_qcow2_discard why);

/* -------------------------------------------------------------- l1_grow.c */

/* The active L1 table has at least this many entries. */
int q2_l1_grow(struct by_qcow2 *q, uint64_t entries, char *why);
/* Make `l1` (allocated with malloc, kept) the active L1 table of a disk of
 * `size` bytes: written to new clusters and switched to by one write of the
 * header.  The old table's own clusters are given back, what it refers to is
 * the caller's.  Where q->l1 is not `l1` afterwards, it failed and `l1` is
 * still the caller's; *tried: the header's write failed, so that the disk may
 * refer to what `l1` leads to. */
int q2_l1_switch(struct by_qcow2 *q, uint64_t *l1, uint32_t entries,
                 uint64_t size, bool *tried);

/* -------------------------------------------------------------- resize.c */

/* See by_qcow2_resize and by_qcow2_resize_head; no requests behind the
 * smaller of the two sizes. */
int q2_resize_to(struct by_qcow2 *q, uint64_t size, uint32_t prealloc,
                 bool exact, char *why);
int q2_resize_head(struct by_qcow2 *q, uint64_t *offset, uint64_t *bytes);
/* Truncate the external data file. */
int q2_data_truncate(struct by_qcow2 *q, uint64_t size, uint32_t prealloc,
                     bool exact);

/* ---------------------------------------------------- shrink_refcounts.c */

/* Refcount blocks that count nothing but themselves are given back. */
int q2_shrink_refcounts(struct by_qcow2 *q);

/* ---------------------------------------------------------- preallocate.c */

/* Clusters for guest bytes [from, to) that have none. */
int q2_preallocate(struct by_qcow2 *q, uint64_t from, uint64_t to,
                   uint32_t prealloc, char *why);

/* ------------------------------------------------------- snapshot_table.c */

/* With `meta` held. */
struct by_qcow2_snapshots *q2_snapshots_read(struct by_qcow2 *q, int *error,
                                             char *why);
/* The list becomes the image's, by one write of the header; the old table is
 * given back.  *tried: the header was or may be changed. */
int q2_snapshots_write(struct by_qcow2 *q,
                       const struct by_qcow2_snapshots *list,
                       uint64_t old_bytes, bool *tried);
/* At opening (and reloading), after the active tables: read and check the
 * snapshot table, and enter what the overlap check guards of it. */
int q2_snapshots_open(struct by_qcow2 *q, char *why);
/* Enter a snapshot's tables, or take them out. */
int q2_snapshot_map(struct by_qcow2 *q, const struct by_qcow2_snapshot *entry,
                    bool add);

/* -------------------------------------------------------- amend_expand.c */

/* Zero clusters of all tables get data clusters, or become unallocated. */
int q2_expand_zeroes(struct by_qcow2 *q, struct by_qcow2_progress *progress);
/* Is any cluster of any table compressed?  1, 0 or -errno. */
int q2_has_compressed(struct by_qcow2 *q);

#endif /* BLOCKYARD_QCOW2_TABLES_H */
