/* SPDX-License-Identifier: Apache-2.0 */
/*
 * check_snapshots.c - the snapshot table (section "Snapshots"), read with
 * tolerance: what is too much is left out when errors may be repaired.
 */
#include <errno.h>
#include <stdlib.h>

#include "check.h"

enum {
    FIXED = 40,                 /* bytes of an entry before the extra data */
    EXTRA = 16,                 /* that version 3 wants */
    MAX_EXTRA = 1024,
    WINDOW = 256 << 10,
};

struct window {
    uint64_t offset, bytes;
    unsigned char *buffer;
};

void q2_check_free_snapshots(struct q2_check *check)
{
    for (uint32_t i = 0; i < check->nsnapshots; i++) {
        free(check->snapshots[i].bytes);
    }
    free(check->snapshots);
    check->snapshots = NULL;
    check->nsnapshots = 0;
}

/* bytes: at most 128 KiB and some. */
static int look(struct q2_check *check, struct window *window, uint64_t offset,
                uint64_t bytes, const unsigned char **at)
{
    if (offset < window->offset
        || offset + bytes > window->offset + window->bytes) {
        int result = q2_pread(check->q, offset, window->buffer, WINDOW);

        window->offset = offset;
        window->bytes = result == 0 ? WINDOW : 0;
        if (result < 0) {
            q2_tell(check, "ERROR failed to read the snapshot table: Failed to "
                    "read snapshot table\n");
            return result;
        }
    }
    *at = window->buffer + (offset - window->offset);
    return 0;
}

static int too_much_extra(struct q2_check *check, uint32_t index,
                          uint32_t extra)
{
    if (!(check->fix & BY_QCOW2_FIX_ERRORS)) {
        q2_tell(check, "ERROR failed to read the snapshot table: Too much extra"
                " metadata in snapshot table entry %u\nYou can force-remove "
                "this extra metadata with qemu-img check -r all\n", index);
        return -EFBIG;
    }
    q2_tell(check, "Discarding too much extra metadata in snapshot table entry "
            "%u (%u > %u)\n", index, extra, (unsigned)MAX_EXTRA);
    check->snapshots_wrong++;
    return 0;
}

/* One entry at *offset, which is behind it then. */
static int one(struct q2_check *check, struct window *window, uint32_t index,
               uint64_t *offset)
{
    struct q2_snapshot_entry *entry = &check->snapshots[index];
    const unsigned char *at;
    uint64_t begins = *offset, names;
    uint32_t extra;
    int result = look(check, window, begins, FIXED, &at);

    if (result < 0) {
        return result;
    }
    entry->l1_offset = q2_be64(at);
    entry->l1_size = q2_be32(at + 8);
    entry->id_bytes = q2_be16(at + 12);
    entry->name_bytes = q2_be16(at + 14);
    extra = q2_be32(at + 36);
    entry->extra = extra < MAX_EXTRA ? extra : MAX_EXTRA;
    if (extra > MAX_EXTRA) {
        result = too_much_extra(check, index, extra);
    }
    names = entry->id_bytes + entry->name_bytes;
    entry->bytes = malloc(FIXED + entry->extra + names);
    if (result < 0 || !entry->bytes) {
        return result < 0 ? result : -ENOMEM;
    }
    result = look(check, window, begins, FIXED + entry->extra, &at);
    if (result == 0) {
        memcpy(entry->bytes, at, FIXED + entry->extra);
        result = look(check, window, begins + FIXED + extra, names, &at);
    }
    if (result == 0) {
        memcpy(entry->bytes + FIXED + entry->extra, at, names);
        *offset = begins + ((names + extra + FIXED + 7) & ~7ull);
    }
    return result;
}

/* The table would be longer than any that is written. */
static int too_long(struct q2_check *check, uint32_t index)
{
    uint32_t left = check->q->set.snapshots - index;

    if (!(check->fix & BY_QCOW2_FIX_ERRORS)) {
        q2_tell(check, "ERROR failed to read the snapshot table: Snapshot table"
                " is too big\nYou can force-remove all %u overhanging "
                "snapshots with qemu-img check -r all\n", left);
        return -EFBIG;
    }
    q2_tell(check, "Discarding %u overhanging snapshots (snapshot table is too "
            "big)\n", left);
    check->snapshots_wrong += left;
    return 0;
}

static int all(struct q2_check *check, struct window *window, uint32_t count)
{
    uint64_t begins = check->q->set.snapshots_offset, offset = begins;
    int result = 0;

    for (uint32_t i = 0; i < count && result == 0; i++) {
        uint64_t next = offset;

        if (i % 256 == 0 && q2_check_cancelled(check)) {
            return -ECANCELED;
        }
        check->nsnapshots = i + 1;
        result = one(check, window, i, &next);
        if (result == 0 && (next - begins > Q2_MAX_SNAPSHOTS_BYTES
                            || next > INT64_MAX)) {
            free(check->snapshots[i].bytes);
            check->nsnapshots = i;
            result = too_long(check, i);
            break;
        }
        offset = result == 0 ? next : offset;
    }
    check->snapshots_bytes = offset - begins;
    return result;
}

/* Version 3 wants the two fields of the extra data that came first. */
static void complete(struct q2_check *check)
{
    bool mend = check->fix & BY_QCOW2_FIX_ERRORS;

    for (uint32_t i = 0; i < check->nsnapshots; i++) {
        if (check->q->set.version >= 3 && check->snapshots[i].extra < EXTRA) {
            q2_tell(check, "%s snapshot table entry %u is incomplete\n",
                    mend ? "Repairing" : "ERROR", i);
            check->snapshots_wrong++;
        }
    }
}

int q2_check_read_snapshots(struct q2_check *check)
{
    const struct by_qcow2_settings *set = &check->q->set;
    struct window window = { 0 };
    uint32_t count = set->snapshots;
    int result = 0;

    if (!count) {
        return 0;
    }
    if (count > Q2_MAX_SNAPSHOTS && !(check->fix & BY_QCOW2_FIX_ERRORS)) {
        q2_tell(check, "ERROR snapshot table too large\nYou can force-remove "
                "all %u overhanging snapshots with qemu-img check -r all\n",
                count - Q2_MAX_SNAPSHOTS);
        return -EFBIG;
    }
    if (q2_in_cluster(check->q, set->snapshots_offset)
        || set->snapshots_offset > INT64_MAX - (1ull << 40)) {
        q2_tell(check, "ERROR snapshot table offset invalid\n");
        return -EINVAL;
    }
    if (count > Q2_MAX_SNAPSHOTS) {
        q2_tell(check, "Discarding %u overhanging snapshots\n",
                count - Q2_MAX_SNAPSHOTS);
        check->snapshots_wrong += count - Q2_MAX_SNAPSHOTS;
        count = Q2_MAX_SNAPSHOTS;
    }
    check->snapshots = calloc(count, sizeof(*check->snapshots));
    window.buffer = malloc(WINDOW);
    if (check->snapshots && window.buffer) {
        result = all(check, &window, count);
    } else {
        result = -ENOMEM;
    }
    free(window.buffer);
    if (result == 0) {
        complete(check);
    }
    return result;
}
