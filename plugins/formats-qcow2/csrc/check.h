/* SPDX-License-Identifier: Apache-2.0 */
/*
 * check.h - what the files check*.c do for each other.
 *
 * A check knows an image by its settings and its file alone: it looks at
 * nothing that is cached and changes nothing in memory but `set`, so it runs
 * before an image's tables are loaded as well.  Table work, no requests.
 */
#ifndef BLOCKYARD_QCOW2_CHECK_H
#define BLOCKYARD_QCOW2_CHECK_H

#include "check_control.h"
#include "image.h"

/* ----------------------------------------------------- check_counts.c */

/*
 * References counted, for 64 host clusters that follow each other, packed as
 * a refcount block has them.  Only those exist that were referred to, so
 * memory follows the tables that were read (at most 21 bytes for each of
 * their bytes with 16 bit refcounts), not the length of the file.
 */
enum { Q2_GRANULE_BITS = 6, Q2_GRANULE = 64 };

struct q2_granule {
    uint64_t index;             /* cluster >> Q2_GRANULE_BITS */
    struct q2_granule *next;
    uint64_t copied, shared;    /* the active tables refer to it with the
                                   flag COPIED, or without it */
    uint64_t meta;              /* metadata, but no L2 table */
    unsigned char refs[];
};

struct q2_counts {
    uint32_t order;             /* refcount_order */
    uint32_t granule_bytes;     /* of refs */
    uint64_t max;               /* of a refcount */
    uint64_t count, mask;
    struct q2_granule **hash;
    struct q2_granule *last;    /* found last */
    void *pool;
    uint32_t pool_left;
};

int q2_counts_init(struct q2_counts *counts, uint32_t order);
void q2_counts_free(struct q2_counts *counts);
/* Null: nothing refers to these clusters. */
struct q2_granule *q2_counts_find(struct q2_counts *counts, uint64_t index);
/* Null: no memory. */
struct q2_granule *q2_counts_make(struct q2_counts *counts, uint64_t index);
uint64_t q2_counts_get(struct q2_counts *counts, uint64_t cluster);
/* In the order of their clusters, a null pointer at the end; for free(). */
struct q2_granule **q2_counts_sorted(struct q2_counts *counts);
/* Refcounts as they are on disk (section "Refcounts"). */
uint64_t q2_packed_get(const void *refs, uint32_t order, uint64_t index);
void q2_packed_put(void *refs, uint32_t order, uint64_t index,
                   uint64_t value);

/* -------------------------------------------------------- check_seen.c */

/* L2 tables that were visited, and how many more references each has. */
struct q2_seen_table {
    uint64_t offset;
    uint64_t more;
    uint64_t active;            /* of them, those of the active L1 table */
};

struct q2_seen {
    struct q2_seen_table *tables; /* offset 0: none */
    uint64_t count, mask;
};

void q2_seen_free(struct q2_seen *seen);
/* 1: the first time; 0: it was there, and is counted once more; -ENOMEM. */
int q2_seen_add(struct q2_seen *seen, uint64_t offset, bool active);
/* How many more; 0 as well when it was never visited. */
uint64_t q2_seen_more(const struct q2_seen *seen, uint64_t offset);

/* -------------------------------------------------------- check_read.c */

/* Tables of one cluster each, read ahead of use by threads of their own. */
struct q2_reader;

/* offsets: kept by the caller until q2_reader_end.  Null: no memory. */
struct q2_reader *q2_reader_begin(struct by_qcow2 *q, const uint64_t *offsets,
                                  uint64_t count);
/* The next of them, valid until the next call.  0 or -errno. */
int q2_reader_next(struct q2_reader *reader, unsigned char **table);
void q2_reader_end(struct q2_reader *reader);

/* --------------------------------------------------------------- a check */

struct q2_snapshot_entry {
    uint64_t l1_offset;
    uint32_t l1_size;
    uint32_t extra;             /* bytes kept of the extra data */
    uint32_t id_bytes, name_bytes;
    unsigned char *bytes;       /* 40 fixed, extra, id, name */
};

struct q2_check {
    struct by_qcow2 *q;
    struct by_qcow2_talk *talk;
    struct by_qcow2_check_result *out;
    uint32_t fix;
    bool rebuild;               /* refcounts cannot be mended in place */
    bool copied_wrong;          /* COPIED may differ from refcount 1 */
    bool changed;               /* something was written */
    uint64_t file_bytes;
    uint64_t clusters;          /* to look at: those of the file */
    uint64_t highest;           /* last cluster in use */
    struct q2_counts counts;
    struct q2_counts disk;      /* refcounts that differ, as they are there */
    struct q2_counts outside;   /* what is referred to behind the file's end:
                                   nothing new is put there */
    bool outside_unknown;       /* ... and more than could be kept */
    bool stale;                 /* refcounts behind the file's end that
                                   nothing accounts for */
    struct q2_seen seen;
    uint64_t *l1;               /* the active one, as in the file */
    uint32_t l1_size;           /* 0: could not be read */
    uint64_t *reftable;
    uint64_t reftable_size;

    struct q2_snapshot_entry *snapshots;
    uint32_t nsnapshots;
    uint64_t snapshots_bytes;   /* the table's length in the file */
    int64_t snapshots_wrong;    /* corruptions that a new table mends */
};

/* check.c: write to the file. */
int q2_check_put(struct q2_check *check, uint64_t offset, const void *bytes,
                 uint64_t count);

/* All answer 0 or -errno, the latter when the check cannot go on. */

/* check_say.c */
void q2_tell(struct q2_check *check, const char *format, ...)
             __attribute__((format(printf, 2, 3)));
bool q2_check_cancelled(struct q2_check *check);
void q2_check_steps(struct q2_check *check, uint64_t more);
void q2_check_step(struct q2_check *check);
void q2_talk_end(struct by_qcow2_talk *talk);

/* check_add.c: `times` references to [offset, offset + bytes) of the file. */
int q2_check_add(struct q2_check *check, uint64_t offset, uint64_t bytes,
                 uint64_t times);
/* It is metadata, which repairs must not write over. */
int q2_check_mark(struct q2_check *check, uint64_t offset, uint64_t bytes);
bool q2_check_is_meta(struct q2_check *check, uint64_t offset);
/* The active tables refer to the cluster at offset. */
int q2_check_flag(struct q2_check *check, uint64_t offset, bool copied);
/* Take the file's length again. */
void q2_check_measure(struct q2_check *check);

/* check_l1.c, check_l2.c */
int q2_check_l1(struct q2_check *check, uint64_t offset, uint32_t size,
                bool active);
int q2_check_shared_l2(struct q2_check *check);
int q2_check_l2(struct q2_check *check, unsigned char *table, uint64_t offset,
                uint64_t times, bool active);

/* check_count.c: all references. */
int q2_check_count(struct q2_check *check);
/* check_bitmaps.c */
int q2_check_bitmaps(struct q2_check *check);
/* check_refblocks.c */
int q2_check_load_reftable(struct q2_check *check);
int q2_check_refblocks(struct q2_check *check);
/* check_compare.c: fix as in by_qcow2_check. */
int q2_check_compare(struct q2_check *check, uint32_t fix);
/* What the file says now; -EIO: nothing that can be read. */
int q2_check_refcount(struct q2_check *check, uint64_t cluster,
                      uint64_t *value);
/* -ENOENT: there is no block for it. */
int q2_check_put_refcount(struct q2_check *check, uint64_t cluster,
                          uint64_t value);
/* check_rebuild.c: new refcount structures from what was counted. */
int q2_check_rebuild(struct q2_check *check);
/* The first of `count` clusters from `from` on that nothing refers to. */
uint64_t q2_check_find_free(struct q2_check *check, uint64_t from,
                            uint64_t count);
/* Let the file be at least as long. */
int q2_check_extend(struct q2_check *check, uint64_t bytes);
/* check_copied.c */
int q2_check_copied(struct q2_check *check);
/* check_snapshots.c: read the table. */
int q2_check_read_snapshots(struct q2_check *check);
void q2_check_free_snapshots(struct q2_check *check);
/* check_resnap.c: write it anew where it was wrong. */
int q2_check_write_snapshots(struct q2_check *check);

/* check.c: by_qcow2_check on the file alone, silent without talk.  `set` has
 * the header's new fields afterwards; *changed: the file was written to. */
int q2_check_file(struct by_qcow2 *q, struct by_qcow2_talk *talk, uint32_t fix,
                  struct by_qcow2_check_result *out, bool *changed);
/* A dirty image is opened to be written: mend it.  -EIO when that fails. */
int q2_check_dirty(struct by_qcow2 *q);

#endif /* BLOCKYARD_QCOW2_CHECK_H */
