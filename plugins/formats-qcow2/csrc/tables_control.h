/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tables_control.h - what the Python half of qcow2 calls to lay out, resize
 * and change an image's tables: new images, sizes, snapshots, versions,
 * refcount widths, bitmaps.
 *
 * The build reads these declarations for cffi, as those of control.h: nothing
 * but comments, includes, plain structures and prototypes.
 *
 * Every function reads or writes the image and waits.  Those with an image
 * (q) need it without requests; they take the tables' lock.  Results are 0 or
 * -errno; `why`, where there is one, is 256 bytes and holds a sentence as QEMU
 * says it when the result is negative (empty: the errno says it all).
 */
#ifndef BLOCKYARD_QCOW2_TABLES_CONTROL_H
#define BLOCKYARD_QCOW2_TABLES_CONTROL_H

#include "control.h"

/* Where long work is, for another thread to read; that thread may set cancel,
 * and the work ends with -ECANCELED and a consistent image. */
struct by_qcow2_progress {
    uint64_t done, total;
    uint32_t cancel;
    uint32_t reserved;
};

/* ---- new images */

/* Where a new, empty image has what.  In: version, cluster_bits,
 * refcount_order, size, extended_l2, crypto_bytes.  Out: l1_offset, l1_size,
 * reftable_offset, reftable_clusters, crypto_offset (0 without crypto_bytes).
 * -EINVAL: a field is out of range; -EFBIG: too large for the format. */
int by_qcow2_layout(struct by_qcow2_settings *settings);
/* Write it: tables first, then the header, at most one cluster that Python
 * built from the layout.  What the file held is lost, at no point is it half
 * an image.  `file` is a struct by_node. */
int by_qcow2_format(uintptr_t file, const struct by_qcow2_settings *settings,
                    const void *header, uint32_t bytes);

/* ---- size */

/* The virtual size becomes `bytes`.  `exact`: an external data file has
 * exactly this length afterwards.  The range that by_qcow2_resize_head tells
 * has been overwritten with zeroes before.  The node's length is the caller's
 * to set, and whether the bitmaps allow it the caller has asked. */
int by_qcow2_resize(struct by_qcow2 *q, uint64_t bytes, uint32_t prealloc,
                    bool exact, char *why);
/* What lies behind the end in the last (sub)cluster may be other than zeroes:
 * this range (0 bytes: none) must be overwritten with them, as a guest would,
 * before the image grows. */
int by_qcow2_resize_head(struct by_qcow2 *q, uint64_t *offset,
                         uint64_t *bytes);
/* Clusters for all of the virtual disk that has none; an external data file
 * gets its length (with BY_PREALLOC_OFF nothing else). */
int by_qcow2_preallocate(struct by_qcow2 *q, uint32_t prealloc, char *why);

/* Nothing of the disk is allocated any more: all of it reads from the backing
 * node, or as zeroes.  Snapshots and VM state stay. */
int by_qcow2_make_empty(struct by_qcow2 *q, char *why);

/* ---- snapshots */

struct by_qcow2_snapshot {
    uint64_t l1_offset;
    uint32_t l1_size;           /* entries */
    uint32_t date_sec, date_nsec;
    uint32_t extra_bytes;       /* of extra data, as found */
    uint64_t vm_clock_nsec;
    uint64_t vm_state_bytes;
    uint64_t disk_bytes;        /* the image's where the table has none */
    uint64_t icount;            /* all ones: none */
    char *id, *name;            /* not terminated */
    uint16_t id_bytes, name_bytes;
    unsigned char *unknown;     /* extra data behind icount */
    uint32_t unknown_bytes;
};

struct by_qcow2_snapshots {
    uint32_t count;
    uint64_t bytes;             /* of the table */
    struct by_qcow2_snapshot *entries;
};

/* The table as it is in the file; null with *error and why. */
struct by_qcow2_snapshots *by_qcow2_snapshots_read(struct by_qcow2 *q,
                                                   int *error, char *why);
void by_qcow2_snapshots_free(struct by_qcow2_snapshots *list);
/* A snapshot of the disk as it is.  Of `info` are used: name, date_*,
 * vm_clock_nsec, vm_state_bytes, icount; the id is the highest plus one.
 * -EFBIG: too many; -ENOTSUP: external data file. */
int by_qcow2_snapshot_create(struct by_qcow2 *q,
                             const struct by_qcow2_snapshot *info, char *why);
/* By number in the table; -ENOENT: there is none. */
int by_qcow2_snapshot_delete(struct by_qcow2 *q, uint32_t index, char *why);
/* The disk becomes what it was, its size too (by_qcow2_get_state). */
int by_qcow2_snapshot_apply(struct by_qcow2 *q, uint32_t index, char *why);
/* Read-only images: show the snapshot instead of the disk; with_size: with
 * its own size, else with the disk's. */
int by_qcow2_snapshot_load(struct by_qcow2 *q, uint32_t index, bool with_size,
                           char *why);

/* ---- amending */

/* Another width of refcounts; version 3. */
int by_qcow2_change_refcounts(struct by_qcow2 *q, uint32_t order,
                              struct by_qcow2_progress *progress, char *why);
/* Become the version that `header` says (at most one cluster; fields that C
 * owns are filled in): the tables are made fit for it, then it is written.
 * Down to 2: zero clusters get data clusters, all feature bits are cleared.
 * The settings' version and features are the header's afterwards. */
int by_qcow2_change_version(struct by_qcow2 *q, const void *header,
                            uint32_t bytes, struct by_qcow2_progress *progress,
                            char *why);
/* All tables to the disk, and the dirty bit cleared. */
int by_qcow2_mark_clean(struct by_qcow2 *q);

/* ---- bitmaps */

/* The data of a stored bitmap (section "Bitmap table") into `out`.  The
 * table must have exactly the entries that `bytes` needs; -EINVAL otherwise
 * and for bad entries. */
int by_qcow2_bitmap_load(struct by_qcow2 *q, uint64_t table_offset,
                         uint32_t entries, void *out, uint64_t bytes);
/* Store data in new clusters; those that are all zeroes or all ones take no
 * cluster.  On stable storage at the end; nothing refers to the table yet. */
int by_qcow2_bitmap_store(struct by_qcow2 *q, const void *data, uint64_t bytes,
                          uint64_t *table_offset, uint32_t *entries);
/* Give back a bitmap's table and data; nothing refers to them any more. */
int by_qcow2_bitmap_free(struct by_qcow2 *q, uint64_t table_offset,
                         uint32_t entries);

#endif /* BLOCKYARD_QCOW2_TABLES_CONTROL_H */
