/* SPDX-License-Identifier: Apache-2.0 */
/*
 * image.h - an open image, and what the files of this folder do for each other.
 *
 * Threads and locks.  Two kinds of code touch an image:
 *
 *  - Requests run on loops, any of them at once.  They look at tables and
 *    change them in memory, under `lock`, which is held for a few hundred
 *    nanoseconds and never while anything waits.  What they lack (a table
 *    that is not there, room in a cache) they leave to the keeper as a
 *    *chore*, and try again when it is done.
 *  - Table work (opening, flushing, growing tables, snapshots, check, amend,
 *    bitmaps) runs on threads that may wait: the keeper, and Python's worker
 *    threads.  It holds `meta` from its beginning to its end, so there is one
 *    such piece of work at a time, and takes `lock` around every look at what
 *    requests share.  Functions that say "table work" below need `meta`.
 *
 * Order of locks: meta, then lock.  Whoever holds `lock` makes no I/O.
 *
 * Order of writes.  Tables change in memory and reach the disk in q2_sync
 * (flush.c): data and new refcounts, barrier, L2, barrier, L1; what was freed
 * is given back only behind that.  A cluster that was freed is used again when
 * in addition every request that began before has ended (free.c).
 *
 * L1 and the refcount table are in memory whole, in the host's byte order; of
 * L2 tables and refcount blocks the caches hold slices, as they are on disk.
 */
#ifndef BLOCKYARD_QCOW2_IMAGE_H
#define BLOCKYARD_QCOW2_IMAGE_H

#include <pthread.h>

#include "blockyard.h"
#include "cache.h"
#include "control.h"
#include "crypto.h"
#include "format.h"

#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)

extern const struct by_api *q2_api;

/* ---------------------------------------------------------------- chores */

/* Something for the keeper; then `wait` is woken, with the result here. */
struct q2_chore {
    struct q2_chore *next;
    int (*run)(struct by_qcow2 *q, struct q2_chore *chore); /* table work */
    uint64_t arg, arg2;
    int result;
    struct q2_wait wait;
};
/* keeper.c; any thread, `lock` may be held.  A chore without a loop in its
 * wait is not touched any more once it runs: it may be added again then. */
void q2_chore_add(struct by_qcow2 *q, struct q2_chore *chore);
/* Before there are chores; when there are no requests any more: does what is
 * waiting and ends the thread. */
void q2_keeper_init(struct by_qcow2 *q);
void q2_keeper_end(struct by_qcow2 *q);

/* ------------------------------------------------------------- the image */

/* What a host cluster holds, for the overlap check (bits; BY_QCOW2_OL_*). */
struct q2_metamap;

/* An allocation that is under way: guest clusters whose mapping is about to
 * change.  Other writers of them wait. */
struct q2_alloc {
    struct q2_alloc *next;
    uint64_t first, count;      /* guest clusters */
    struct q2_wait *waiters;
};

/* Clusters to be given back. */
struct q2_freed {
    uint64_t offset;            /* in the file */
    uint64_t bytes;             /* whole clusters */
    uint8_t why;                /* enum by_qcow2_discard */
    bool sole;                  /* that was the only reference to them */
    uint64_t epoch;
};

struct q2_patience;

struct by_qcow2 {
    struct by_qcow2_settings set;   /* as Python gave it */
    uint64_t tag;                   /* of our events */
    struct by_node *node;           /* our own; null before it is there */
    struct by_node *file, *data;    /* the same but for an external data file */
    struct by_node *backing;        /* or null */

    /* Geometry.  Changes with meta held and no requests. */
    uint32_t cluster_bits;
    uint64_t cluster_size;
    uint32_t entry_bytes;           /* of L2: 8, or 16 with subclusters */
    uint32_t l2_bits;               /* entries of an L2 table, log2 */
    uint32_t l2_slice_entries;
    uint32_t subcluster_bits;       /* cluster_bits without subclusters */
    uint32_t subclusters;           /* of a cluster: 1 or 32 */
    uint32_t refcount_order;
    uint64_t refcount_max;
    uint32_t refblock_bits;         /* entries of a refcount block, log2 */
    uint64_t csize_shift, csize_mask, coffset_mask; /* compressed entries */
    uint64_t size;                  /* virtual, bytes */

    pthread_mutex_t meta;
    pthread_mutex_t lock;

    /* Under lock. */
    uint64_t *l1;                   /* l1_size entries */
    uint32_t l1_size, l1_guest;     /* all, and those of the virtual disk */
    uint64_t l1_offset;
    uint64_t l1_dirty_from, l1_dirty_to; /* entries; from >= to: clean */
    uint64_t *reftable;
    uint32_t reftable_size;         /* entries */
    uint64_t reftable_offset;
    struct q2_cache l2, rb;
    struct q2_metamap *map;
    pthread_cond_t loaded;          /* with lock: a slice ended loading */
    struct q2_alloc *allocs;
    struct q2_patience *line;       /* who waits for clusters, by line.c */
    struct q2_chore room;           /* q2_sync for a full cache; result 1
                                       while it is queued */
    bool syncing;                   /* inside q2_sync: caches may overflow */
    bool barrier;                   /* data must be stable before L2 */
    bool dirty_bit;                 /* set in the header */
    bool corrupt;                   /* no more writes; see q2_is_corrupt */

    /* alloc.c: under lock */
    uint32_t rb_slice_bits;         /* clusters of a slice of rb, log2 */
    uint64_t *roomy;                /* a bit for each such slice under the
                                       refcount table: may have a free one */
    uint64_t roomy_slices;
    uint64_t free_from;             /* no free cluster (index) below */
    uint64_t fresh;                 /* clusters from here (index) on were
                                       never used and read as zeroes */
    uint64_t file_end;              /* bytes that the file has */
    uint64_t file_floor;            /* never cut the file below this */
    uint64_t compressed_at;         /* next free byte for compressed data in a
                                       cluster begun; 0: none */

    /* free.c: under lock */
    struct q2_freed *freed;
    uint32_t nfreed, freed_max;
    uint32_t freed_sealed;          /* entries that take nothing more in */
    uint32_t freed_stable;          /* entries that may be given back */
    uint32_t freed_enough;          /* entries that could not, and stay */
    uint64_t freed_bytes, freed_held; /* of all, of those that stay */
    uint64_t sole_bytes, sole_held; /* the same of those that become free */
    struct q2_chore give_back;      /* result 1 while it is queued */
    uint64_t epoch;
    uint64_t running[2];            /* mapped requests, by epoch's parity:
                                       atomic, raised under lock */

    /* keeper.c */
    pthread_mutex_t chores_lock;
    pthread_cond_t chores_wake;
    struct q2_chore *chores, **chores_end;
    pthread_t keeper;
    bool keeper_runs, keeper_ends;

    struct q2_inflated *inflated;   /* inflated.c: the bounded cache */
    struct by_crypto *crypto;       /* null: plain */

    /* corrupt.c: under chores_lock */
    char report[256];               /* the last that was reported */
    char reports[2][256];           /* the first corruption; the first fatal */
    bool reported[2], told[2];
    struct q2_chore marking;
    bool marking_queued;

    char resize_why[256];           /* sizing.c: QEMU's sentence, or empty */
};

/* Any thread, lock held or not: tell the file, before the request that it is
 * about (or where there is none, where QEMU's documentation has the event). */
static inline void q2_event(const struct by_qcow2 *q, uint32_t event)
{
    by_debug_event(q->file, event);
}

static inline uint64_t q2_cluster(const struct by_qcow2 *q, uint64_t offset)
{
    return offset >> q->cluster_bits;
}

static inline uint64_t q2_in_cluster(const struct by_qcow2 *q, uint64_t offset)
{
    return offset & (q->cluster_size - 1);
}

/* -------------------------------------------------- store.c: table work's I/O */

/* The file's bytes; waits.  Reads behind its end are zeroes.  0 or -errno. */
int q2_pread(struct by_qcow2 *q, uint64_t offset, void *buffer, uint64_t bytes);
int q2_pwrite(struct by_qcow2 *q, uint64_t offset, const void *buffer,
              uint64_t bytes);
int q2_pzero(struct by_qcow2 *q, uint64_t offset, uint64_t bytes);
/* fdatasync of the file and of an external data file. */
int q2_barrier(struct by_qcow2 *q);
/* Any node, any operation without a payload. */
int q2_node_op(struct by_node *node, uint8_t op, uint32_t flags,
               uint64_t offset, uint64_t bytes);
int q2_node_truncate(struct by_node *node, uint64_t bytes, uint32_t prealloc);
/* Fields of the header, in place, without a barrier. */
int q2_header_put64(struct by_qcow2 *q, uint32_t at, uint64_t value);
int q2_header_put(struct by_qcow2 *q, uint32_t at, const void *value,
                  uint32_t bytes);
/* Set and clear bits of the incompatible features, with a barrier behind. */
int q2_incompatible(struct by_qcow2 *q, uint64_t set, uint64_t clear);

/* ------------------------------------------------------------- refcount.c */

/* One refcount of a slice. */
uint64_t q2_refcount_read(const struct by_qcow2 *q, const void *table,
                          uint64_t index);
void q2_refcount_write(const struct by_qcow2 *q, void *table, uint64_t index,
                       uint64_t value);
/* Table work: the refcount of a host cluster (index); 0 where there is no
 * block.  0 or -errno. */
int q2_refcount_get(struct by_qcow2 *q, uint64_t cluster, uint64_t *value);
/* Table work: add delta to the refcounts of `count` clusters, making blocks
 * as needed.  -ERANGE: a refcount would leave its range (what was changed is
 * changed back).  Decrements are immediate: see q2_free for those that must
 * wait for the disk. */
int q2_refcount_add(struct by_qcow2 *q, uint64_t cluster, uint64_t count,
                    int64_t delta);
/* Under lock: the offset of the slice of rb that counts this cluster; 0 where
 * there is no block. */
uint64_t q2_refcount_slice(const struct by_qcow2 *q, uint64_t cluster);
/* Table work: is the refcount table's entry good?  Reports if not, -EIO. */
int q2_block_check(struct by_qcow2 *q, uint64_t index);
/* Under lock: this cluster's refcount has become 0. */
void q2_refcount_gone(struct by_qcow2 *q, uint64_t cluster);
/* Table work (grow.c): a block for this entry of the refcount table, which
 * has none, and a larger table if need be; on the disk when this returns.
 * [first, first + count) are clusters that it may not occupy. */
int q2_block_make(struct by_qcow2 *q, uint64_t index, uint64_t first,
                  uint64_t count);

/* ---------------------------------------------------------------- space.c */

/* Table work, no requests: begin anew with what is in q->reftable and with
 * the file's length; at opening and when the tables were read again. */
int q2_space_init(struct by_qcow2 *q);
void q2_space_free(struct by_qcow2 *q);
/* Table work: the refcount table has this many entries now. */
int q2_space_resize(struct by_qcow2 *q, uint32_t reftable_size);
/* Under lock: this cluster is free now; find the next slice that may have a
 * free cluster (UINT64_MAX: none), this one is full. */
void q2_space_freed(struct by_qcow2 *q, uint64_t cluster);
uint64_t q2_space_next(const struct by_qcow2 *q, uint64_t slice);
void q2_space_full(struct by_qcow2 *q, uint64_t slice);
/* How many bytes a file of this length grows by at least. */
uint64_t q2_file_step(const struct by_qcow2 *q, uint64_t have);
/* Table work: the file has at least this many bytes (whole clusters), and
 * some more so that this is rare.  -ENOSPC where it cannot grow. */
int q2_file_reach(struct by_qcow2 *q, uint64_t end);
/* Table work, no requests: cut what q2_file_reach has added and nobody uses. */
int q2_file_trim(struct by_qcow2 *q);

/* ---------------------------------------------------------------- alloc.c */

/* Table work: contiguous clusters for `bytes`, refcount 1 each; content is
 * undefined.  0 or -errno (-EFBIG: no such offset). */
int q2_alloc_wait(struct by_qcow2 *q, uint64_t bytes, uint64_t *offset);
/* The same from cluster `from` on; `what` is QEMU's word for what they are to
 * be, for its report of a cluster 0 that is free. */
int q2_alloc_for(struct by_qcow2 *q, uint64_t from, uint64_t count,
                 const char *what, uint64_t *offset);
/* Under lock, on a loop: up to *count contiguous clusters, at least one.
 * -EAGAIN: something is missing that table work (q2_alloc_prepare, with the
 * number asked for) provides. */
int q2_alloc_try(struct by_qcow2 *q, uint64_t *count, uint64_t *offset,
                 bool *fresh);
int q2_alloc_prepare(struct by_qcow2 *q, struct q2_chore *chore);
/* The same for compressed data: 1..cluster_size bytes at any byte offset, one
 * more reference to each cluster that they touch. */
int q2_alloc_bytes(struct by_qcow2 *q, uint64_t bytes, uint64_t *offset);
/* Under lock: undo q2_alloc_try of what nobody has seen. */
void q2_alloc_undo(struct by_qcow2 *q, uint64_t offset, uint64_t count);

/* --------------------------------------------------------------- free.c */

/* Under lock: one reference to each of these clusters ends once the tables
 * that still hold it are on disk.  Does nothing with an external data file:
 * its clusters have no refcounts, and a discard must not come after the next
 * write there, so the request itself makes it.  Whoever frees a table takes
 * it out of the map; the caches forget it when its refcount is 0. */
void q2_free(struct by_qcow2 *q, uint64_t offset, uint64_t bytes,
             enum by_qcow2_discard why);
/* Under lock: what an L2 entry refers to. */
void q2_free_entry(struct by_qcow2 *q, uint64_t entry,
                   enum by_qcow2_discard why);
/* Table work: rather than have the file grow for this many bytes, have as much
 * given back, if what was freed is worth it.  True: search again. */
bool q2_free_instead(struct by_qcow2 *q, uint64_t bytes);
/* Under lock: a request that uses mapped clusters begins and ends. */
static inline uint64_t q2_enter(struct by_qcow2 *q)
{
    __atomic_add_fetch(&q->running[q->epoch & 1], 1, __ATOMIC_RELAXED);
    return q->epoch;
}
/* Any thread, lock held or not. */
static inline void q2_leave(struct by_qcow2 *q, uint64_t epoch)
{
    __atomic_sub_fetch(&q->running[epoch & 1], 1, __ATOMIC_RELEASE);
}
/* Under lock: begin the next epoch if the one before this one is over. */
void q2_epoch_advance(struct by_qcow2 *q);
/* Under lock, behind a barrier: as q2_free_apply, but as a chore. */
void q2_free_later(struct by_qcow2 *q, uint32_t count);
/* Table work, behind a barrier: give back what was freed before `count`. */
int q2_free_apply(struct by_qcow2 *q, uint32_t count);

/* -------------------------------------------------------------- flush.c */

/* Table work: write the refcounts that changed, without a barrier: they may be
 * on the disk at any time, as they are never lower than what they count. */
int q2_sync_refcounts(struct by_qcow2 *q);
/* Table work: bring all tables to the disk in order.  Ends with a barrier. */
int q2_sync(struct by_qcow2 *q);
/* A chore: a guest's flush.  As q2_sync, but leaves refcounts in memory when
 * lazy refcounts allow it.  All that wait are served by one. */
int q2_flush_chore(struct by_qcow2 *q, struct q2_chore *chore);
/* Under lock: are there tables that a guest's flush must write? */
bool q2_flush_needed(const struct by_qcow2 *q);
/* Table work, no requests: q2_sync until nothing is left to give back. */
int q2_settle(struct by_qcow2 *q);

/* ----------------------------------------------------------------- l1.c */

/* Table work, lock not held: change an entry in memory; q2_sync writes it. */
void q2_l1_set(struct by_qcow2 *q, uint32_t index, uint64_t entry);
/* Table work: an L2 table of our own at this index (a new one, or a copy of
 * one that a snapshot shares). */
int q2_l2_make(struct by_qcow2 *q, uint32_t l1_index);
/* The same as a chore; arg is the index. */
int q2_l2_make_chore(struct by_qcow2 *q, struct q2_chore *chore);
/* Table work: lazy refcounts: the dirty bit is on the disk when this ends. */
int q2_mark_dirty_chore(struct by_qcow2 *q, struct q2_chore *chore);

/* ----------------------------------------------------------------- l2.c */

/* Where the L2 entry of a guest offset is. */
struct q2_spot {
    struct q2_slice *slice;
    uint32_t index;             /* in the slice */
    uint32_t left;              /* entries of the slice from there on */
    uint32_t l1_index;
    bool own;                   /* no snapshot shares the table */
};

static inline uint64_t q2_entry(const struct by_qcow2 *q,
                                const struct q2_slice *slice, uint32_t index)
{
    return q2_be64(slice->table + (uint64_t)index * q->entry_bytes);
}

/* Extended L2 only. */
static inline uint64_t q2_bitmap(const struct by_qcow2 *q,
                                 const struct q2_slice *slice, uint32_t index)
{
    return q2_be64(slice->table + (uint64_t)index * q->entry_bytes + 8);
}

/* What a guest range is. */
enum q2_kind {
    Q2_KIND_UNALLOCATED,        /* the backing node's, else zeroes */
    Q2_KIND_ZERO,
    Q2_KIND_DATA,
    Q2_KIND_COMPRESSED,
};

struct q2_run {
    enum q2_kind kind;
    bool copied;                /* the host cluster is ours alone */
    bool has_host;              /* host is valid (ZERO with a cluster too) */
    uint64_t bytes;
    uint64_t host;              /* of the first byte */
    uint64_t entry, bitmap;     /* L2's, of the first cluster */
};

/* Under lock.  0; -ENOENT: there is no L2 table (left is what it would have);
 * -EAGAIN: `wait` is woken when the table is there, or, without a `wait`,
 * nothing was begun; -EIO: the tables are bad, or could not be read. */
int q2_find(struct by_qcow2 *q, uint64_t guest, struct q2_spot *spot,
            struct q2_wait *wait);
/* Table work: the same, waiting; the slice is pinned on success. */
int q2_find_wait(struct by_qcow2 *q, uint64_t guest, struct q2_spot *spot);
/* Under lock.  What the guest range from `guest` on is, up to the end of its
 * (sub)cluster, by the entry at `index`.  0, or -EIO for a bad entry. */
int q2_describe(struct by_qcow2 *q, const struct q2_slice *slice,
                uint32_t index, uint64_t guest, struct q2_run *run);
/* Under lock.  What [guest, guest + bytes) is, as far as it is of one kind
 * and contiguous in the host; results as of q2_find but for -ENOENT. */
int q2_map(struct by_qcow2 *q, uint64_t guest, uint64_t bytes,
           struct q2_run *run, struct q2_wait *wait);
/* Table work, lock not held: the same, waiting. */
int q2_map_wait(struct by_qcow2 *q, uint64_t guest, uint64_t bytes,
                struct q2_run *run);

/* ------------------------------------------------------------ overlap.c */

/* Metadata in the file, for the overlap check.  Under lock or table work
 * before there are requests. */
int q2_map_add(struct by_qcow2 *q, uint64_t offset, uint64_t bytes,
               uint32_t type);
void q2_map_remove(struct by_qcow2 *q, uint64_t offset, uint64_t bytes,
                   uint32_t type);
void q2_map_clear(struct by_qcow2 *q);
/* Under lock: the types of all metadata in these clusters; *first: the first
 * cluster of them that holds any. */
uint32_t q2_map_types(const struct by_qcow2 *q, uint64_t cluster,
                      uint64_t count, uint64_t *first);
/* Under lock: how often was this cluster added as this type? */
uint32_t q2_map_times(const struct by_qcow2 *q, uint64_t cluster,
                      uint32_t type);
/* Reports that a write would meet metadata of these types.  -EIO. */
int q2_overlap_report(struct by_qcow2 *q, uint32_t types, uint64_t offset,
                      uint64_t bytes);
/* Under lock: does a write of [offset, bytes) of the file meet metadata, but
 * for types in `ignore`?  Reports, marks the image corrupt, -EIO. */
int q2_overlap_check(struct by_qcow2 *q, uint32_t ignore, uint64_t offset,
                     uint64_t bytes);

/* ------------------------------------------------------------ corrupt.c */

/* Under lock or not: an entry is bad.  fatal: the image gets its corrupt bit
 * and takes no more writes.  Answers -EIO. */
int q2_corrupt(struct by_qcow2 *q, bool fatal, int64_t offset, int64_t bytes,
               const char *format, ...) __attribute__((format(printf, 5, 6)));
static inline bool q2_is_corrupt(const struct by_qcow2 *q)
{
    return __atomic_load_n(&q->corrupt, __ATOMIC_ACQUIRE);
}

#endif /* BLOCKYARD_QCOW2_IMAGE_H */
