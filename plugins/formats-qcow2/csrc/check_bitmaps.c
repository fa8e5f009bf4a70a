/* SPDX-License-Identifier: Apache-2.0 */
/*
 * check_bitmaps.c - what persistent bitmaps refer to (sections "Bitmap
 * directory" and "Bitmap table").
 */
#include <errno.h>
#include <stdlib.h>

#include "check.h"

enum {
    ENTRY = 24,                 /* of the directory, without names */
    MAX_DIRECTORY = 64 << 20,
    MAX_TABLE = 0x8000000,      /* entries */
    PART = 128 << 10,           /* entries read at once */
};

static int entries(struct q2_check *check, const uint64_t *table,
                   uint64_t count)
{
    uint64_t bad = 0xff000000000001feull;
    int result = 0;

    for (uint64_t i = 0; i < count && result == 0; i++) {
        uint64_t entry = be64toh(table[i]);
        uint64_t offset = entry & Q2_OFFSET_MASK;

        if (entry & bad || (offset && entry & 1)
            || q2_in_cluster(check->q, offset)) {
            check->out->corruptions++;
        } else if (offset) {
            result = q2_check_add(check, offset, check->q->cluster_size, 1);
        }
    }
    return result;
}

/* One table, in parts: it can be much longer than the file. */
static int one_table(struct q2_check *check, uint64_t offset, uint64_t size)
{
    uint64_t *part;
    int result = q2_check_add(check, offset, size * 8, 1);

    if (result < 0 || offset >= check->file_bytes) {
        return result;
    }
    if (size > (check->file_bytes - offset) / 8) {
        size = (check->file_bytes - offset) / 8;
    }
    part = malloc(PART * 8);
    if (!part) {
        return -ENOMEM;
    }
    for (uint64_t at = 0; at < size && result == 0; at += PART) {
        uint64_t count = size - at < PART ? size - at : PART;

        result = q2_check_cancelled(check)
               ? -ECANCELED
               : q2_pread(check->q, offset + at * 8, part, count * 8);
        if (result == 0) {
            result = entries(check, part, count);
        }
    }
    free(part);
    return result;
}

static int directory(struct q2_check *check, const unsigned char *bytes,
                     uint64_t count)
{
    uint64_t at = 0;
    int result = 0;

    while (at < count && result == 0) {
        const unsigned char *entry = bytes + at;
        uint64_t offset, length;
        uint32_t size;

        if (count - at < ENTRY) {
            check->out->corruptions++;
            return -EINVAL;
        }
        offset = q2_be64(entry);
        size = q2_be32(entry + 8);
        length = ENTRY + (uint64_t)q2_be16(entry + 18) + q2_be32(entry + 20);
        length = (length + 7) & ~7ull;
        if (length > count - at || !size || size > MAX_TABLE || !offset
            || q2_in_cluster(check->q, offset)) {
            check->out->corruptions++;
            return -EINVAL;
        }
        result = one_table(check, offset, size);
        at += length;
    }
    return result;
}

int q2_check_bitmaps(struct q2_check *check)
{
    const struct by_qcow2_settings *set = &check->q->set;
    uint64_t bytes = set->bitmaps_bytes;
    unsigned char *list;
    int result;

    if (!set->bitmaps_offset) {
        return 0;
    }
    if (bytes > MAX_DIRECTORY) {
        check->out->corruptions++;
        return -EINVAL;
    }
    result = q2_check_add(check, set->bitmaps_offset, bytes, 1);
    list = malloc(bytes ? bytes : 1);
    if (result == 0) {
        result = list ? q2_pread(check->q, set->bitmaps_offset, list, bytes)
                      : -ENOMEM;
    }
    if (result == 0) {
        result = directory(check, list, bytes);
    }
    free(list);
    return result;
}
