/* SPDX-License-Identifier: Apache-2.0 */
/*
 * guard.c - keep a guest from choosing the format of its own image.
 *
 * When nobody said that an image is raw and it was only guessed, whoever
 * writes it could write another format's header into the first sector, and
 * the next guess would be that format, backing file and all.  Such writes
 * fail with EPERM.  The sector is copied before it is looked at: the guest's
 * memory may change while it is read.
 */
#include <errno.h>
#include <string.h>

#include "raw.h"

#define IS(magic) (memcmp(s, magic, sizeof(magic) - 1) == 0)
#define IS_AT(at, magic) (memcmp(s + (at), magic, sizeof(magic) - 1) == 0)

static uint32_t le32(const unsigned char *p)
{
    return p[0] | p[1] << 8 | p[2] << 16 | (uint32_t)p[3] << 24;
}

static uint32_t be32(const unsigned char *p)
{
    return (uint32_t)p[0] << 24 | p[1] << 16 | p[2] << 8 | p[3];
}

/* A descriptor in text: comments and empty lines, then "version=N". */
static bool is_vmdk_text(const char *s)
{
    const char *end = s + BY_RAW_SECTOR;

    while (s < end) {
        const char *eol = memchr(s, '\n', end - s);

        if (*s != '#' && *s != ' ' && *s != '\r' && *s != '\n') {
            return end - s > 9 && memcmp(s, "version=", 8) == 0
                && s[8] >= '1' && s[8] <= '3';
        }
        if (*s == ' ' || *s == '\r') {
            s++;
            continue;
        }
        s = eol ? eol + 1 : end;
    }
    return false;
}

const char *by_raw_other_format(const void *sector)
{
    const unsigned char *s = sector;
    static const char cloop[] = "#!/bin/sh\n#V2.0 Format\n"
        "modprobe cloop file=$0 && mount -r -t iso9660 /dev/cloop $1\n";

    if (IS("QFI\xfb") && be32(s + 4) >= 1) {
        return be32(s + 4) == 1 ? "qcow" : "qcow2";
    }
    if (IS("COWD") || IS("KDMV") || is_vmdk_text(sector)) {
        return "vmdk";
    }
    if ((IS("WithoutFreeSpace") || IS("WithouFreSpacExt"))
        && le32(s + 16) == 2) {
        return "parallels";
    }
    if (IS("Bochs Virtual HD Image\0") && IS_AT(32, "Redolog\0")
        && IS_AT(48, "Growing\0")) {
        return "bochs";
    }
    return IS("QED\0") ? "qed"
        : IS("vhdxfile") ? "vhdx"
        : IS("conectix") ? "vpc"
        : IS("LUKS\xba\xbe") ? "luks"
        : le32(s + 64) == 0xbeda107f ? "vdi"
        : IS(cloop) ? "cloop" : NULL;
}

/* -------------------------------------------------------------- the write */

struct by_raw_guard {
    struct by_frame frame;
    struct iovec *iov;              /* the copy, and the rest of the payload */
    uint32_t niov;
    unsigned char sector[BY_RAW_SECTOR] __attribute__((aligned(8)));
};

static size_t iov_bytes(uint32_t niov)
{
    return niov * sizeof(struct iovec);
}

static int guard_done(struct by_request *req, struct by_frame *frame,
                      int result)
{
    struct by_raw_guard *guard = (struct by_raw_guard *)frame;

    if (guard->iov) {
        by_raw_api->slab_put(req->loop, guard->iov, iov_bytes(guard->niov));
    }
    return result;
}

static void copy_sector(const struct by_request *req, unsigned char *out)
{
    uint64_t skip = req->iov_skip, left = BY_RAW_SECTOR;

    for (uint32_t i = 0; i < req->niov && left; i++) {
        uint64_t len = req->iov[i].iov_len;

        if (skip >= len) {
            skip -= len;
            continue;
        }
        len = len - skip < left ? len - skip : left;
        memcpy(out, (char *)req->iov[i].iov_base + skip, len);
        out += len;
        left -= len;
        skip = 0;
    }
}

static int write_copy(struct by_node *node, struct by_request *req,
                      struct by_raw_guard *guard)
{
    int n;

    guard->niov = req->niov + 1;
    guard->iov = by_raw_api->slab_get(req->loop, iov_bytes(guard->niov));
    if (!guard->iov) {
        return -ENOMEM;
    }
    guard->iov[0].iov_base = guard->sector;
    guard->iov[0].iov_len = BY_RAW_SECTOR;
    n = by_iov_slice(req->iov, req->niov, req->iov_skip + BY_RAW_SECTOR,
                     req->bytes - BY_RAW_SECTOR, guard->iov + 1, req->niov);
    req->iov = guard->iov;
    req->niov = 1 + n;
    req->iov_skip = 0;
    req->flags &= ~BY_REQ_REGISTERED;
    req->offset += by_raw_settings_of(node)->offset;
    by_debug_event(node->children[0], BY_DEBUG_WRITE_AIO);
    return by_raw_api->submit(node->children[0], req);
}

int by_raw_guarded_write(struct by_node *node, struct by_request *req)
{
    struct by_raw_guard *guard;
    int result = -EPERM;

    /* Core aligns to sectors where the first one is watched. */
    if (req->offset || req->bytes < BY_RAW_SECTOR) {
        return -EINVAL;
    }
    if (by_raw_settings_of(node)->fixed
        && req->bytes > by_raw_settings_of(node)->size) {
        return -ENOSPC;
    }
    guard = (struct by_raw_guard *)
        by_raw_api->frame_push(req, sizeof(*guard), guard_done);
    if (!guard) {
        return -ENOMEM;
    }
    guard->iov = NULL;
    copy_sector(req, guard->sector);
    if (!by_raw_other_format(guard->sector)) {
        result = write_copy(node, req, guard);
    }
    if (result != BY_PENDING) {
        result = guard_done(req, &guard->frame, result);
        by_raw_api->frame_pop(req);
    }
    return result;
}
