/* SPDX-License-Identifier: Apache-2.0 */
/*
 * snapshot.c - internal snapshots: taken, deleted, gone back to, looked at.
 *
 * A snapshot is an L1 table of its own whose clusters are referred to once
 * more.  References are counted on the disk before anything refers, and end
 * only when nothing refers any more; one write of the header makes a change
 * visible.  So a power cut leaves the list, and the disk, as before or as
 * after, and at worst clusters that nobody uses.  The flags that say "the
 * refcount is one" follow the refcounts, and until they are on the disk too
 * the image is marked dirty.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "tables.h"

static int refuse(const struct by_qcow2 *q)
{
    return q2_is_corrupt(q) ? -EIO : q->set.data_file ? -ENOTSUP : 0;
}

static struct by_qcow2_snapshot *find(struct by_qcow2_snapshots *list,
                                      uint32_t index)
{
    return index < list->count ? &list->entries[index] : NULL;
}

/* The snapshot's L1 table, with room for `room` entries. */
static uint64_t *read_l1(struct by_qcow2 *q,
                         const struct by_qcow2_snapshot *entry, uint64_t room,
                         int *error, char *why)
{
    uint64_t *l1;

    *error = q2_table_check(q, entry->l1_offset, entry->l1_size,
                            Q2_MAX_L1_BYTES, "Snapshot L1 table", why);
    if (*error < 0) {
        return NULL;
    }
    l1 = q2_table_read(q, entry->l1_offset, entry->l1_size, room, error);
    if (l1) {
        *error = q2_l1_check(q, l1, entry->l1_size);
    }
    if (*error < 0) {
        free(l1);
        return NULL;
    }
    for (uint64_t i = 0; l1 && i < entry->l1_size; i++) {
        l1[i] &= ~Q2_COPIED;
    }
    return l1;
}

/* ---------------------------------------------------------------- create */

/* The highest number among the ids, plus 1, as decimal digits. */
static int name_it(const struct by_qcow2_snapshots *list,
                   struct by_qcow2_snapshot *entry)
{
    unsigned long highest = 0;
    char text[24], id[32];

    for (uint32_t i = 0; i < list->count; i++) {
        const struct by_qcow2_snapshot *one = &list->entries[i];
        uint32_t n = one->id_bytes < sizeof(id) - 1
            ? one->id_bytes : sizeof(id) - 1;
        unsigned long number;

        memcpy(id, one->id, n);
        id[n] = 0;
        number = strtoul(id, NULL, 10);
        highest = number > highest ? number : highest;
    }
    entry->id_bytes = snprintf(text, sizeof(text), "%lu", highest + 1);
    entry->id = strdup(text);
    return entry->id ? 0 : -ENOMEM;
}

static int append(const struct by_qcow2 *q, struct by_qcow2_snapshots *list,
                  const struct by_qcow2_snapshot *info)
{
    struct by_qcow2_snapshot made = {
        .l1_size = q->l1_size, .date_sec = info->date_sec,
        .date_nsec = info->date_nsec, .vm_clock_nsec = info->vm_clock_nsec,
        .vm_state_bytes = info->vm_state_bytes, .disk_bytes = q->size,
        .icount = info->icount, .name_bytes = info->name_bytes,
    };
    void *entries = realloc(list->entries,
                            (list->count + 1ull) * sizeof(*list->entries));
    int result;

    if (!entries) {
        return -ENOMEM;
    }
    list->entries = entries;
    result = name_it(list, &made);
    if (result == 0) {
        made.name = malloc(info->name_bytes + 1u);
        made.unknown = malloc(1);
        if (!made.name || !made.unknown) {
            free(made.id);
            free(made.name);
            free(made.unknown);
            return -ENOMEM;
        }
        memcpy(made.name, info->name, info->name_bytes);
        list->entries[list->count++] = made;
    }
    return result;
}

/* A copy of the active L1 table, with more references to what it leads to. */
static int copy_l1(struct by_qcow2 *q, uint64_t *l1, uint64_t *offset)
{
    uint64_t bytes = q2_table_bytes(q, q->l1_size);
    int result = 0;

    *offset = 0;
    if (!q->l1_size) {
        return 0;
    }
    for (uint32_t i = 0; i < q->l1_size; i++) {
        l1[i] = q->l1[i] & ~Q2_COPIED;
    }
    result = q2_l1_check(q, l1, q->l1_size);
    if (result == 0) {
        result = q2_alloc_wait(q, bytes, offset);
    }
    if (result < 0) {
        return result;
    }
    result = q2_table_write(q, 0, *offset, l1, q->l1_size);
    if (result == 0) {
        result = q2_tree_add(q, q->l1, q->l1_size);
    }
    if (result < 0) {
        (void)q2_refcount_add(q, q2_cluster(q, *offset),
                              q2_cluster(q, bytes), -1);
    }
    return result;
}

static int undo_copy(struct by_qcow2 *q, const uint64_t *l1, uint64_t offset)
{
    int result = q2_tree_drop(q, l1, q->l1_size), step;

    if (q->l1_size) {
        step = q2_drop(q, offset, q2_table_bytes(q, q->l1_size),
                       BY_QCOW2_DISCARD_SNAPSHOT);
        result = result < 0 ? result : step;
    }
    step = q2_sync(q);
    result = result < 0 ? result : step;
    step = q2_tree_flags(q);
    result = result < 0 ? result : step;
    step = q2_sync(q);
    return result < 0 ? result : step;
}

/* VM state is in the snapshot now; in the disk it would only be copied with
 * each further one. */
static int drop_vm_state(struct by_qcow2 *q, uint64_t bytes)
{
    uint64_t first = (uint64_t)q->l1_guest << q->l2_bits;
    uint64_t end = (uint64_t)q->l1_size << q->l2_bits;
    uint64_t count = q2_cluster(q, bytes) + (q2_in_cluster(q, bytes) != 0);

    if (first >= end || !count) {
        return 0;
    }
    count = count < end - first ? count : end - first;
    return q2_clear(q, first, count, false, BY_QCOW2_DISCARD_NEVER);
}

static int create(struct by_qcow2 *q, struct by_qcow2_snapshots *list,
                  const struct by_qcow2_snapshot *info)
{
    struct by_qcow2_snapshot *made;
    bool tried = false;
    uint64_t *l1 = calloc(q->l1_size ? q->l1_size : 1, 8);
    int result = l1 ? append(q, list, info) : -ENOMEM;

    if (result < 0) {
        free(l1);
        return result;
    }
    made = &list->entries[list->count - 1];
    result = copy_l1(q, l1, &made->l1_offset);
    if (result < 0) {
        free(l1);
        return result;
    }
    result = q2_sync(q); /* the references count */
    if (result == 0) {
        result = q2_tree_flags(q);
    }
    if (result == 0) {
        result = q2_sync(q); /* nobody writes in place any more */
    }
    if (result == 0) {
        result = q2_snapshots_write(q, list, list->bytes, &tried);
    }
    if (result < 0 && !tried) {
        (void)undo_copy(q, l1, made->l1_offset);
    }
    free(l1);
    if (result == 0) {
        result = q2_snapshot_map(q, made, true);
    }
    if (result == 0) {
        result = drop_vm_state(q, made->vm_state_bytes);
    }
    return result < 0 ? result : q2_sync(q);
}

/* Read the table, do the work, marked as unsure. */
static int with_table(struct by_qcow2 *q, uint32_t index, char *why,
                      const struct by_qcow2_snapshot *info,
                      int (*work)(struct by_qcow2 *,
                                  struct by_qcow2_snapshots *, uint32_t,
                                  const struct by_qcow2_snapshot *, char *))
{
    struct by_qcow2_snapshots *list = NULL;
    struct q2_unsure unsure = { false };
    int result, consistent, end;

    *why = 0;
    pthread_mutex_lock(&q->meta);
    result = refuse(q);
    if (result == 0) {
        list = q2_snapshots_read(q, &result, why);
    }
    if (result == 0 && !info && index >= list->count) {
        q2_say(why, 0, "Can't find the snapshot");
        result = -ENOENT;
    }
    if (result == 0) {
        result = q2_sync(q);
    }
    if (result == 0) {
        result = q2_unsure_begin(q, &unsure);
    }
    if (result == 0) {
        result = work(q, list, index, info, why);
        consistent = result;
        /* A corrupt image is not written to any more, and its tables may lead
         * to each other without end. */
        if (result < 0 && !q2_is_corrupt(q) && q2_tree_flags(q) == 0) {
            consistent = q2_sync(q); /* at worst something leaks */
        }
        end = q2_unsure_end(q, &unsure, consistent);
        result = result < 0 ? result : end;
    }
    by_qcow2_snapshots_free(list);
    pthread_mutex_unlock(&q->meta);
    return result;
}

static int do_create(struct by_qcow2 *q, struct by_qcow2_snapshots *list,
                     uint32_t index, const struct by_qcow2_snapshot *info,
                     char *why)
{
    (void)index;
    (void)why;
    return list->count >= Q2_MAX_SNAPSHOTS ? -EFBIG : create(q, list, info);
}

int by_qcow2_snapshot_create(struct by_qcow2 *q,
                             const struct by_qcow2_snapshot *info, char *why)
{
    return with_table(q, 0, why, info, do_create);
}

/* ---------------------------------------------------------------- delete */

static int do_delete(struct by_qcow2 *q, struct by_qcow2_snapshots *list,
                     uint32_t index, const struct by_qcow2_snapshot *info,
                     char *why)
{
    struct by_qcow2_snapshot gone = *find(list, index);
    bool tried;
    int result, step;
    uint64_t *l1 = read_l1(q, &gone, 0, &result, why);

    (void)info;
    if (!l1) {
        return result;
    }
    (void)q2_snapshot_map(q, &gone, false);
    memmove(&list->entries[index], &list->entries[index + 1],
            (list->count - index - 1ull) * sizeof(gone));
    list->count--;
    result = q2_snapshots_write(q, list, list->bytes, &tried);
    if (result < 0 && q->set.snapshots > list->count) {
        (void)q2_snapshot_map(q, &gone, true);
        q2_say(why, result, "Failed to remove snapshot from snapshot list");
    } else {
        result = q2_tree_drop(q, l1, gone.l1_size);
        step = !gone.l1_size ? 0
            : q2_drop(q, gone.l1_offset, q2_table_bytes(q, gone.l1_size),
                      BY_QCOW2_DISCARD_SNAPSHOT);
        result = result < 0 ? result : step;
        step = q2_sync(q);
        result = result < 0 ? result : step;
        if (result < 0) {
            q2_say(why, result, "Failed to free the cluster and L1 table");
        }
        step = q2_tree_flags(q);
        step = step < 0 ? step : q2_sync(q);
        if (step < 0 && result == 0) {
            result = q2_say(why, step,
                            "Failed to update snapshot status in disk");
        }
    }
    free(l1);
    free(gone.id);
    free(gone.name);
    free(gone.unknown);
    return result;
}

int by_qcow2_snapshot_delete(struct by_qcow2 *q, uint32_t index, char *why)
{
    return with_table(q, index, why, NULL, do_delete);
}

/* ----------------------------------------------------------------- apply */

/* The disk's own tables, as they were, are nobody's now. */
static int drop_old(struct by_qcow2 *q, const uint64_t *old, uint32_t entries)
{
    int result = q2_tree_map(q, old, entries, BY_QCOW2_OL_ACTIVE_L2, false);
    int step = q2_tree_map(q, q->l1, q->l1_size, BY_QCOW2_OL_ACTIVE_L2, true);

    result = result < 0 ? result : step;
    step = q2_tree_drop(q, old, entries);
    result = result < 0 ? result : step;
    step = q2_sync(q);
    result = result < 0 ? result : step;
    step = q2_tree_flags(q);
    step = step < 0 ? step : q2_sync(q);
    return result < 0 ? result : step;
}

static int do_apply(struct by_qcow2 *q, struct by_qcow2_snapshots *list,
                    uint32_t index, const struct by_qcow2_snapshot *info,
                    char *why)
{
    const struct by_qcow2_snapshot *entry = find(list, index);
    uint64_t guest = q2_l1_entries(q, entry->disk_bytes), room;
    uint32_t old_entries = q->l1_size;
    uint64_t *l1, *old;
    bool tried;
    int result;

    (void)info;
    if (entry->disk_bytes != q->size && q->set.version < 3) {
        q2_say(why, 0, "Can't resize a v2 image which has snapshots");
        return -ENOTSUP;
    }
    if (entry->disk_bytes > INT64_MAX || entry->disk_bytes % Q2_SECTOR
        || guest > Q2_MAX_L1_BYTES / 8) {
        return -EFBIG;
    }
    room = guest > entry->l1_size ? guest : entry->l1_size;
    l1 = read_l1(q, entry, room, &result, why);
    if (!l1) {
        return result;
    }
    old = malloc(old_entries * 8ull + 1);
    result = old ? q2_tree_add(q, l1, entry->l1_size) : -ENOMEM;
    if (result < 0) {
        free(old);
        free(l1);
        return result;
    }
    memcpy(old, q->l1, old_entries * 8ull);
    result = q2_l1_switch(q, l1, room, entry->disk_bytes, &tried);
    if (q->l1 == l1) {
        int step = drop_old(q, old, old_entries);

        result = result < 0 ? result : step;
    } else {
        if (!tried) {
            (void)q2_tree_drop(q, l1, entry->l1_size);
            (void)q2_sync(q);
        }
        free(l1);
    }
    free(old);
    return result;
}

int by_qcow2_snapshot_apply(struct by_qcow2 *q, uint32_t index, char *why)
{
    return with_table(q, index, why, NULL, do_apply);
}

/* ------------------------------------------------------------------ load */

static int show(struct by_qcow2 *q, const struct by_qcow2_snapshot *entry,
                bool with_size, char *why)
{
    uint64_t size = with_size ? entry->disk_bytes : q->size, guest, room;
    uint64_t *l1, *old = q->l1;
    int result;

    guest = q2_l1_entries(q, size);
    if (size > INT64_MAX || guest > Q2_MAX_L1_BYTES / 8) {
        return -EFBIG;
    }
    room = guest > entry->l1_size ? guest : entry->l1_size;
    l1 = read_l1(q, entry, room, &result, why);
    if (!l1) {
        return *why ? result
            : q2_say(why, result, "Failed to read l1 table for snapshot");
    }
    pthread_mutex_lock(&q->lock);
    q->l1 = l1;
    q->l1_size = room;
    q->l1_offset = entry->l1_offset;
    q->l1_guest = guest;
    q->size = size;
    pthread_mutex_unlock(&q->lock);
    free(old);
    return 0;
}

int by_qcow2_snapshot_load(struct by_qcow2 *q, uint32_t index, bool with_size,
                           char *why)
{
    struct by_qcow2_snapshots *list;
    int result;

    *why = 0;
    if (!q->set.read_only) {
        return -EROFS;
    }
    pthread_mutex_lock(&q->meta);
    list = q2_snapshots_read(q, &result, why);
    if (list && index >= list->count) {
        q2_say(why, 0, "Can't find snapshot");
        result = -ENOENT;
    } else if (list) {
        result = show(q, find(list, index), with_size, why);
    }
    by_qcow2_snapshots_free(list);
    pthread_mutex_unlock(&q->meta);
    return result;
}
