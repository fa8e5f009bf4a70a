/* SPDX-License-Identifier: Apache-2.0 */
/*
 * check_open.c - checking an image that is open: the file is made to hold
 * what memory holds, and memory takes what was mended.
 */
#include <errno.h>
#include <stdlib.h>

#include "check.h"

enum {
    BITMAPS = 0x23852875,       /* section "Header extensions" */
    CRYPTO = 0x0537be77,
    AT_HEADER_LENGTH = 100,
};

/* What extensions of the header refer to, as they are in the file now. */
static void extensions(struct by_qcow2_settings *set,
                       const unsigned char *header, uint64_t end)
{
    uint64_t at = set->version < 3 ? Q2_HEADER_V2
                                   : q2_be32(header + AT_HEADER_LENGTH);

    set->bitmaps_offset = set->bitmaps_bytes = 0;
    set->crypto_offset = set->crypto_bytes = 0;
    while (at + 8 <= end) {
        uint32_t type = q2_be32(header + at), bytes = q2_be32(header + at + 4);

        at += 8;
        if (!type || bytes > end - at) {
            return;
        }
        if (type == BITMAPS && bytes >= 24
            && set->autoclear & Q2_AUTOCLEAR_BITMAPS) {
            set->bitmaps_bytes = q2_be64(header + at + 8);
            set->bitmaps_offset = q2_be64(header + at + 16);
        } else if (type == CRYPTO && bytes >= 16 && set->crypt_method == 2) {
            set->crypto_offset = q2_be64(header + at);
            set->crypto_bytes = q2_be64(header + at + 8);
        }
        at += (bytes + 7ull) & ~7ull;
    }
}

static int take_header(struct by_qcow2 *q)
{
    struct by_qcow2_settings *set = &q->set;
    unsigned char *header = malloc(q->cluster_size);
    int result = header ? q2_pread(q, 0, header, q->cluster_size) : -ENOMEM;

    if (result == 0) {
        set->size = q->size;
        set->l1_offset = q->l1_offset;
        set->l1_size = q->l1_size;
        set->reftable_offset = q->reftable_offset;
        set->reftable_clusters = q->reftable_size * 8ull >> q->cluster_bits;
        if (set->version >= 3) {
            set->autoclear = q2_be64(header + Q2_AT_AUTOCLEAR);
        }
        extensions(set, header, q->cluster_size);
    }
    free(header);
    return result;
}

static bool has_news(struct by_qcow2 *q)
{
    bool news;

    pthread_mutex_lock(&q->lock);
    news = q->l2.ndirty || q->rb.ndirty || q->nfreed
        || q->l1_dirty_from < q->l1_dirty_to;
    pthread_mutex_unlock(&q->lock);
    return news;
}

static int check(struct by_qcow2 *q, struct by_qcow2_talk *talk, uint32_t fix,
                 struct by_qcow2_check_result *out, bool *changed)
{
    /* Settling cuts off what refcounts say is unused: not where nothing is
     * to be written, for they may be wrong. */
    int result = has_news(q) ? q2_settle(q) : 0;

    if (result == 0) {
        result = take_header(q);
    }
    return result == 0 ? q2_check_file(q, talk, fix, out, changed) : result;
}

int by_qcow2_check(struct by_qcow2 *q, struct by_qcow2_talk *talk,
                   uint32_t fix, struct by_qcow2_check_result *out)
{
    struct by_qcow2_settings settings;
    bool changed = false;
    char why[256];
    int result = -EACCES;

    memset(out, 0, sizeof(*out));
    pthread_mutex_lock(&q->meta);
    if (!fix || !q->set.read_only) {
        result = check(q, talk, fix, out, &changed);
    }
    settings = q->set;
    pthread_mutex_unlock(&q->meta);
    if (changed) {
        int again = by_qcow2_reload(q, &settings, why);

        result = result ? result : again;
    }
    if (talk) {
        q2_talk_end(talk);
    }
    return result;
}
