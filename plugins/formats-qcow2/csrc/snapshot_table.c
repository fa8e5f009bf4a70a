/* SPDX-License-Identifier: Apache-2.0 */
/*
 * snapshot_table.c - section "Snapshots": the table as it is in the file.
 *
 * Entries have any length, so the table's end is known when it was read; it
 * is read in steps, up to the most bytes that a table may have.
 */
#include <errno.h>
#include <stdlib.h>

#include "tables.h"

enum {
    HEAD = 40,                  /* bytes of an entry before its extra data */
    KNOWN_EXTRA = 24,
    MAX_EXTRA = 1024,
    STEP = 64 << 10,
};

struct reader {
    struct by_qcow2 *q;
    unsigned char *bytes;
    uint64_t have, room;
};

/* The table's first `bytes` bytes are there.  No more than one entry beyond
 * the limit is asked for. */
static int need(struct reader *reader, uint64_t bytes)
{
    uint64_t more;
    int result;

    if (bytes <= reader->have) {
        return 0;
    }
    more = bytes - reader->have < STEP ? STEP : bytes - reader->have;
    if (reader->have + more > reader->room) {
        uint64_t room = (reader->have + more) * 2;
        void *next = realloc(reader->bytes, room);

        if (!next) {
            return -ENOMEM;
        }
        reader->bytes = next;
        reader->room = room;
    }
    result = q2_pread(reader->q, reader->q->set.snapshots_offset
                      + reader->have, reader->bytes + reader->have, more);
    reader->have += result == 0 ? more : 0;
    return result;
}

static void *keep(const void *bytes, uint64_t count)
{
    void *copy = malloc(count ? count : 1);

    if (copy) {
        memcpy(copy, bytes, count);
    }
    return copy;
}

static void read_fields(const struct by_qcow2 *q, const unsigned char *raw,
                        struct by_qcow2_snapshot *entry)
{
    const unsigned char *extra = raw + HEAD;

    entry->l1_offset = q2_be64(raw);
    entry->l1_size = q2_be32(raw + 8);
    entry->id_bytes = q2_be16(raw + 12);
    entry->name_bytes = q2_be16(raw + 14);
    entry->date_sec = q2_be32(raw + 16);
    entry->date_nsec = q2_be32(raw + 20);
    entry->vm_clock_nsec = q2_be64(raw + 24);
    entry->vm_state_bytes = q2_be32(raw + 32);
    entry->extra_bytes = q2_be32(raw + 36);
    entry->disk_bytes = q->size;
    entry->icount = UINT64_MAX;
    if (entry->extra_bytes >= 8) {
        entry->vm_state_bytes = q2_be64(extra);
    }
    if (entry->extra_bytes >= 16) {
        entry->disk_bytes = q2_be64(extra + 8);
    }
    if (entry->extra_bytes >= KNOWN_EXTRA) {
        entry->icount = q2_be64(extra + 16);
    }
}

/* One entry, at *at; *at is behind it then. */
static int read_entry(struct reader *reader, uint64_t *at, uint32_t number,
                      struct by_qcow2_snapshot *entry, char *why)
{
    const unsigned char *raw;
    uint64_t bytes;
    int result = need(reader, *at + HEAD + KNOWN_EXTRA);

    if (result < 0) {
        return q2_say(why, result, "Failed to read snapshot table");
    }
    read_fields(reader->q, reader->bytes + *at, entry);
    if (entry->extra_bytes > MAX_EXTRA) {
        q2_say(why, 0, "Too much extra metadata in snapshot table entry %u",
               number);
        return -EFBIG;
    }
    bytes = HEAD + entry->extra_bytes + entry->id_bytes + entry->name_bytes;
    result = need(reader, *at + bytes);
    if (result < 0) {
        return q2_say(why, result, "Failed to read snapshot table");
    }
    if (*at + bytes > Q2_MAX_SNAPSHOTS_BYTES) {
        q2_say(why, 0, "Snapshot table is too big");
        return -EFBIG;
    }
    raw = reader->bytes + *at + HEAD;
    if (entry->extra_bytes > KNOWN_EXTRA) {
        entry->unknown_bytes = entry->extra_bytes - KNOWN_EXTRA;
    }
    entry->unknown = keep(raw + KNOWN_EXTRA, entry->unknown_bytes);
    raw += entry->extra_bytes;
    entry->id = keep(raw, entry->id_bytes);
    entry->name = keep(raw + entry->id_bytes, entry->name_bytes);
    *at += bytes;
    return entry->unknown && entry->id && entry->name
        ? 0 : q2_say(why, -ENOMEM, "Failed to read snapshot table");
}

static int read_all(struct by_qcow2 *q, struct by_qcow2_snapshots *list,
                    char *why)
{
    struct reader reader = { .q = q };
    uint64_t room = 0, at = 0;
    int result = 0;

    while (list->count < q->set.snapshots && result == 0) {
        if (list->count == room) { /* as many as the file turns out to have */
            void *entries;

            room = room ? room * 2 : 16;
            entries = realloc(list->entries, room * sizeof(*list->entries));
            if (!entries) {
                result = q2_say(why, -ENOMEM, "Failed to read snapshot table");
                break;
            }
            list->entries = entries;
        }
        memset(&list->entries[list->count], 0, sizeof(*list->entries));
        at = (at + 7) & ~7ull;
        list->count++;
        result = read_entry(&reader, &at, list->count - 1,
                            &list->entries[list->count - 1], why);
    }
    list->bytes = at;
    free(reader.bytes);
    return result;
}

struct by_qcow2_snapshots *q2_snapshots_read(struct by_qcow2 *q, int *error,
                                             char *why)
{
    struct by_qcow2_snapshots *list = calloc(1, sizeof(*list));

    *error = list ? 0 : -ENOMEM;
    if (!list || !q->set.snapshots) {
        return list;
    }
    if (q->set.snapshots > Q2_MAX_SNAPSHOTS) {
        q2_say(why, 0, "Snapshot table too large");
        *error = -EINVAL;
    } else if (q2_in_cluster(q, q->set.snapshots_offset)
               || !by_range_ok(q->set.snapshots_offset,
                               2ull * Q2_MAX_SNAPSHOTS_BYTES, INT64_MAX)) {
        q2_say(why, 0, "Snapshot table offset invalid");
        *error = -EINVAL;
    } else {
        *error = read_all(q, list, why);
    }
    if (*error < 0) {
        by_qcow2_snapshots_free(list);
        list = NULL;
    }
    return list;
}

struct by_qcow2_snapshots *by_qcow2_snapshots_read(struct by_qcow2 *q,
                                                   int *error, char *why)
{
    struct by_qcow2_snapshots *list;

    *why = 0;
    pthread_mutex_lock(&q->meta);
    list = q2_snapshots_read(q, error, why);
    pthread_mutex_unlock(&q->meta);
    return list;
}

void by_qcow2_snapshots_free(struct by_qcow2_snapshots *list)
{
    for (uint32_t i = 0; list && i < list->count; i++) {
        free(list->entries[i].id);
        free(list->entries[i].name);
        free(list->entries[i].unknown);
    }
    if (list) {
        free(list->entries);
        free(list);
    }
}

/* ----------------------------------------------------------------- write */

static uint64_t entry_bytes(const struct by_qcow2_snapshot *entry)
{
    return HEAD + KNOWN_EXTRA + entry->unknown_bytes + entry->id_bytes
        + entry->name_bytes;
}

static uint64_t table_bytes(const struct by_qcow2_snapshots *list)
{
    uint64_t bytes = 0;

    for (uint32_t i = 0; i < list->count; i++) {
        bytes = ((bytes + 7) & ~7ull) + entry_bytes(&list->entries[i]);
    }
    return bytes;
}

static void put_entry(unsigned char *raw,
                      const struct by_qcow2_snapshot *entry)
{
    q2_put64(raw, entry->l1_offset);
    q2_put32(raw + 8, entry->l1_size);
    q2_put16(raw + 12, entry->id_bytes);
    q2_put16(raw + 14, entry->name_bytes);
    q2_put32(raw + 16, entry->date_sec);
    q2_put32(raw + 20, entry->date_nsec);
    q2_put64(raw + 24, entry->vm_clock_nsec);
    /* Who knows no extra data takes a large state for none. */
    q2_put32(raw + 32, entry->vm_state_bytes > UINT32_MAX
             ? 0 : entry->vm_state_bytes);
    q2_put32(raw + 36, KNOWN_EXTRA + entry->unknown_bytes);
    raw += HEAD;
    q2_put64(raw, entry->vm_state_bytes);
    q2_put64(raw + 8, entry->disk_bytes);
    q2_put64(raw + 16, entry->icount);
    raw += KNOWN_EXTRA;
    memcpy(raw, entry->unknown, entry->unknown_bytes);
    raw += entry->unknown_bytes;
    memcpy(raw, entry->id, entry->id_bytes);
    memcpy(raw + entry->id_bytes, entry->name, entry->name_bytes);
}

/* The table in new clusters, stable. */
static int place(struct by_qcow2 *q, const struct by_qcow2_snapshots *list,
                 uint64_t bytes, uint64_t *offset)
{
    uint64_t whole = q2_table_bytes(q, (bytes + 7) / 8), at = 0;
    unsigned char *raw = calloc(1, whole);
    int result = raw ? q2_alloc_wait(q, whole, offset) : -ENOMEM;

    if (result < 0) {
        free(raw);
        return result;
    }
    for (uint32_t i = 0; i < list->count; i++) {
        at = (at + 7) & ~7ull;
        put_entry(raw + at, &list->entries[i]);
        at += entry_bytes(&list->entries[i]);
    }
    pthread_mutex_lock(&q->lock);
    result = q2_overlap_check(q, 0, *offset, whole);
    pthread_mutex_unlock(&q->lock);
    if (result == 0) {
        result = q2_pwrite(q, *offset, raw, whole);
    }
    if (result == 0) {
        result = q2_sync(q);
    }
    if (result == 0) {
        pthread_mutex_lock(&q->lock);
        result = q2_map_add(q, *offset, bytes, BY_QCOW2_OL_SNAPSHOT_TABLE);
        pthread_mutex_unlock(&q->lock);
    }
    if (result < 0) {
        (void)q2_refcount_add(q, q2_cluster(q, *offset),
                              q2_cluster(q, whole), -1);
    }
    free(raw);
    return result;
}

int q2_snapshots_write(struct by_qcow2 *q,
                       const struct by_qcow2_snapshots *list,
                       uint64_t old_bytes, bool *tried)
{
    uint64_t bytes = table_bytes(list), offset = 0;
    uint64_t old_offset = q->set.snapshots_offset;
    unsigned char fields[12];
    int result = 0;

    *tried = false;
    if (bytes > Q2_MAX_SNAPSHOTS_BYTES || list->count > Q2_MAX_SNAPSHOTS) {
        return -EFBIG;
    }
    if (bytes) {
        result = place(q, list, bytes, &offset);
    }
    if (result < 0) {
        return result;
    }
    *tried = true;
    q2_put32(fields, list->count);
    q2_put64(fields + 4, offset);
    result = q2_header_put(q, Q2_AT_NB_SNAPSHOTS, fields, sizeof(fields));
    if (result == 0) {
        result = q2_barrier(q);
    }
    if (result < 0) {
        return result; /* it may be there all the same: nothing is freed */
    }
    q->set.snapshots = list->count;
    q->set.snapshots_offset = offset;
    return old_bytes ? q2_drop_table(q, old_offset, old_bytes,
                                     BY_QCOW2_OL_SNAPSHOT_TABLE,
                                     BY_QCOW2_DISCARD_SNAPSHOT) : 0;
}

/* --------------------------------------------------------------- the map */

int q2_snapshot_map(struct by_qcow2 *q, const struct by_qcow2_snapshot *entry,
                    bool add)
{
    uint64_t *l1;
    int result = q2_table_check(q, entry->l1_offset, entry->l1_size,
                                Q2_MAX_L1_BYTES, "Snapshot L1 table", NULL);

    if (result < 0 || !entry->l1_size) {
        return 0; /* such a one is refused when it is used */
    }
    pthread_mutex_lock(&q->lock);
    if (add) {
        result = q2_map_add(q, entry->l1_offset, entry->l1_size * 8ull,
                            BY_QCOW2_OL_INACTIVE_L1);
    } else {
        q2_map_remove(q, entry->l1_offset, entry->l1_size * 8ull,
                      BY_QCOW2_OL_INACTIVE_L1);
    }
    pthread_mutex_unlock(&q->lock);
    if (result < 0 || !(q->set.overlap & BY_QCOW2_OL_INACTIVE_L2)) {
        return result;
    }
    l1 = q2_table_read(q, entry->l1_offset, entry->l1_size, 0, &result);
    if (l1) {
        result = q2_tree_map(q, l1, entry->l1_size, BY_QCOW2_OL_INACTIVE_L2,
                             add);
    }
    free(l1);
    return result;
}

int q2_snapshots_open(struct by_qcow2 *q, char *why)
{
    struct by_qcow2_snapshots *list;
    int result;

    if (!q->set.snapshots) {
        return 0;
    }
    list = q2_snapshots_read(q, &result, why);
    if (!list && q->set.check) { /* who checks will see it */
        *why = 0;
        return 0;
    }
    if (!list) {
        return result;
    }
    pthread_mutex_lock(&q->lock);
    result = q2_map_add(q, q->set.snapshots_offset, list->bytes,
                        BY_QCOW2_OL_SNAPSHOT_TABLE);
    pthread_mutex_unlock(&q->lock);
    for (uint32_t i = 0; i < list->count && result == 0; i++) {
        result = q2_snapshot_map(q, &list->entries[i], true);
    }
    by_qcow2_snapshots_free(list);
    return result < 0
        ? q2_say(why, result, "Failed to read snapshot table") : 0;
}
