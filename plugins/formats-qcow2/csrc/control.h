/* SPDX-License-Identifier: Apache-2.0 */
/*
 * control.h - what the Python half of qcow2 calls.
 *
 * The build reads these declarations for cffi, so this file holds nothing but
 * comments, includes, plain structures and prototypes.
 *
 * Functions marked "waits" read or write the image: they are called on a
 * thread that may wait, never on the control loop.  "No requests": the node is
 * drained, or is not there yet.  Results are 0 or -errno.
 */
#ifndef BLOCKYARD_QCOW2_CONTROL_H
#define BLOCKYARD_QCOW2_CONTROL_H

#include "blockyard.h"

/* Take core's table.  -EPROTO: it is for another BY_ABI_VERSION. */
int by_qcow2_init(uintptr_t api);

/* Why clusters are given back: which of the pass-discard options decides. */
enum by_qcow2_discard {
    BY_QCOW2_DISCARD_NEVER = 0,
    BY_QCOW2_DISCARD_ALWAYS = 1,
    BY_QCOW2_DISCARD_REQUEST = 2,
    BY_QCOW2_DISCARD_SNAPSHOT = 3,
    BY_QCOW2_DISCARD_OTHER = 4
};

/* What is checked before a write: the bits of the overlap-check option, in
 * QEMU's order. */
enum by_qcow2_overlap {
    BY_QCOW2_OL_MAIN_HEADER = 0x01,
    BY_QCOW2_OL_ACTIVE_L1 = 0x02,
    BY_QCOW2_OL_ACTIVE_L2 = 0x04,
    BY_QCOW2_OL_REFCOUNT_TABLE = 0x08,
    BY_QCOW2_OL_REFCOUNT_BLOCK = 0x10,
    BY_QCOW2_OL_SNAPSHOT_TABLE = 0x20,
    BY_QCOW2_OL_INACTIVE_L1 = 0x40,
    BY_QCOW2_OL_INACTIVE_L2 = 0x80,
    BY_QCOW2_OL_BITMAP_DIRECTORY = 0x100
};

enum by_qcow2_compression {
    BY_QCOW2_ZLIB = 0,
    BY_QCOW2_ZSTD = 1
};

/* The header as Python has checked it, and the options. */
struct by_qcow2_settings {
    uint32_t version;           /* 2 or 3 */
    uint32_t cluster_bits;      /* 9..21 */
    uint32_t refcount_order;    /* 0..6 */
    uint32_t compression;       /* enum by_qcow2_compression */
    uint64_t size;              /* virtual, bytes */
    uint64_t l1_offset;
    uint32_t l1_size;           /* entries */
    uint32_t reftable_clusters;
    uint64_t reftable_offset;
    uint64_t snapshots_offset;
    uint32_t snapshots;
    uint32_t reserved;
    uint64_t incompatible, compatible, autoclear;
    uint64_t bitmaps_offset;    /* the bitmap directory; 0: none */
    uint64_t bitmaps_bytes;
    uint64_t crypto_offset;     /* the LUKS header inside the file; 0: none */
    uint64_t crypto_bytes;
    uint32_t crypt_method;      /* 0 none, 1 AES, 2 LUKS */

    uint32_t l2_slice_bytes;    /* l2-cache-entry-size */
    uint64_t l2_cache_bytes;
    uint64_t refcount_cache_bytes;
    uint32_t overlap;           /* BY_QCOW2_OL_* */
    uint32_t pass_discard;      /* 1 << enum by_qcow2_discard */
    bool discard_no_unref;
    bool lazy_refcounts;
    bool read_only;
    bool data_file;             /* external */
    bool data_file_raw;
    bool extended_l2;
    bool check;                 /* opened to be checked: bad tables are no
                                   reason to refuse, as far as possible */
};

/* Events (by_event.tag is the one that by_qcow2_open was given). */
enum by_qcow2_event {
    BY_QCOW2_CORRUPTED = 1      /* a: bit 0: fatal, bit 1: b is the offset in
                                   the file; result: bytes there, or -1;
                                   by_qcow2_report has the text */
};

/* ---- life */

/* An image over these nodes (data is file's address but for an external data
 * file; backing 0: none).  Waits: reads L1 and the refcount table.  *error is
 * -errno and `why`, 256 bytes, QEMU's sentence, when the answer is null. */
struct by_qcow2 *by_qcow2_open(const struct by_qcow2_settings *settings,
                               uintptr_t file, uintptr_t data,
                               uintptr_t backing, uint64_t tag, int *error,
                               char *why);
/* No requests.  Nothing is written any more; waits for the keeper. */
void by_qcow2_free(struct by_qcow2 *q);
/* struct by_node_ops, as an address; a read-only image's differ. */
uintptr_t by_qcow2_ops(void);
/* The node that was made of it.  No requests yet. */
void by_qcow2_set_node(struct by_qcow2 *q, uintptr_t node);
/* No requests: children were replaced. */
void by_qcow2_set_children(struct by_qcow2 *q, uintptr_t file, uintptr_t data,
                           uintptr_t backing);
/* No requests; waits.  Options change (reopen): caches, overlap, discards,
 * lazy refcounts; the header's fields are those of before. */
int by_qcow2_reconfigure(struct by_qcow2 *q,
                         const struct by_qcow2_settings *settings);
/* struct by_crypto of the luks format, or 0. */
void by_qcow2_set_crypto(struct by_qcow2 *q, uintptr_t crypto);

/* Waits.  All tables to the disk; what a guest's flush does. */
int by_qcow2_flush(struct by_qcow2 *q);
/* No requests; waits.  A clean end: tables written, freed clusters given
 * back, the dirty bit cleared, the file's unused tail cut off. */
int by_qcow2_settle(struct by_qcow2 *q);
/* No requests; waits.  Forget what is cached and read the tables again (an
 * image that was somebody else's meanwhile); settings as for open. */
int by_qcow2_reload(struct by_qcow2 *q,
                    const struct by_qcow2_settings *settings, char *why);
/* The text of the last corruption; bytes is the size of out. */
void by_qcow2_report(struct by_qcow2 *q, char *out, int bytes);
/* QEMU's sentence about the last resize by a request that failed, or empty. */
void by_qcow2_resize_why(struct by_qcow2 *q, char *out, int bytes);
/* Give back the memory of table slices not used since the last call. */
void by_qcow2_clean_caches(struct by_qcow2 *q);

struct by_qcow2_state {
    uint64_t size;
    uint64_t l1_offset;
    uint32_t l1_size;
    uint32_t reftable_clusters;
    uint64_t reftable_offset;
    uint64_t incompatible, compatible, autoclear;
    uint64_t l2_cached, refcounts_cached;   /* bytes in use by the caches */
    uint64_t l2_dirty, refcounts_dirty;
    uint64_t freed;                         /* ranges to be given back */
    bool corrupt;
};
void by_qcow2_get_state(struct by_qcow2 *q, struct by_qcow2_state *out);

/* ---- the header's other bytes */

/* Waits.  Write Python's header (with extensions and names: at most one
 * cluster) in place, under the tables' lock, with a barrier before and behind
 * it.  Fields that C owns are taken from C. */
int by_qcow2_write_header(struct by_qcow2 *q, const void *header,
                          uint32_t bytes);
/* Waits.  Contiguous clusters for something of Python's (a LUKS header, a
 * bitmap directory), as metadata of this overlap type (0: none), and back. */
int by_qcow2_allocate(struct by_qcow2 *q, uint64_t bytes, uint32_t overlap,
                      uint64_t *offset);
int by_qcow2_release(struct by_qcow2 *q, uint64_t offset, uint64_t bytes,
                     uint32_t overlap);
/* Waits.  Bytes of the file that Python owns (checked for overlap but for
 * `overlap`'s own type). */
int by_qcow2_write_file(struct by_qcow2 *q, uint64_t offset, const void *data,
                        uint64_t bytes, uint32_t overlap);
int by_qcow2_read_file(struct by_qcow2 *q, uint64_t offset, void *data,
                       uint64_t bytes);

/* Where a machine's state begins, as an offset behind the disk's end. */
uint64_t by_qcow2_machine_offset(struct by_qcow2 *q);
/* Waits.  Write the state from the buffer (save), or read it; the offset
 * counts from the state's first byte. */
int by_qcow2_machine_state(struct by_qcow2 *q, uint64_t offset, void *buffer,
                           uint64_t bytes, bool save);

#endif /* BLOCKYARD_QCOW2_CONTROL_H */
