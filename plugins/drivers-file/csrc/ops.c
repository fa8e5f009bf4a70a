/* SPDX-License-Identifier: Apache-2.0 */
/* ops.c - the operations tables, and what Python makes and frees. */
#include <errno.h>
#include <linux/magic.h>
#include <stdlib.h>
#include <sys/vfs.h>

#include "file.h"

static int submit(struct by_node *node, struct by_request *req)
{
    switch (req->op) {
    case BY_OP_READ:
    case BY_OP_WRITE:
        return by_file_rw(node, req);
    case BY_OP_FLUSH:
        return by_file_flush(node, req);
    case BY_OP_DISCARD:
    case BY_OP_WRITE_ZEROES:
    case BY_OP_TRUNCATE:
        return by_file_space(node, req);
    case BY_OP_BLOCK_STATUS:
        return by_file_status(node, req);
    case BY_OP_COPY_RANGE:
        return by_file_copy(node, req);
    case BY_OP_PREFETCH:
        return by_file_prefetch(node, req);
    default:
        return -ENOTSUP;
    }
}

bool by_file_is_ours(const struct by_node *node)
{
    return node->ops->submit == submit;
}

#define COMMON .size = sizeof(struct by_node_ops), .abi = BY_ABI_VERSION,    \
    .flags = {                                                               \
        [BY_OP_WRITE] = BY_REQ_FUA,                                          \
        [BY_OP_WRITE_ZEROES] = BY_REQ_MAY_UNMAP | BY_REQ_NO_FALLBACK,        \
    },                                                                       \
    .submit = submit

#define BASIC (BY_OP_BIT(BY_OP_READ) | BY_OP_BIT(BY_OP_WRITE)                \
    | BY_OP_BIT(BY_OP_FLUSH) | BY_OP_BIT(BY_OP_TRUNCATE)                     \
    | BY_OP_BIT(BY_OP_PREFETCH) | BY_OP_BIT(BY_OP_BLOCK_STATUS))
#define SPACE (BY_OP_BIT(BY_OP_DISCARD) | BY_OP_BIT(BY_OP_WRITE_ZEROES)      \
    | BY_OP_BIT(BY_OP_COPY_RANGE))

static const struct by_node_ops tables[] = {
    [BY_FILE_REGULAR] = {
        COMMON, .name = "file", .serves = BASIC | SPACE,
        .capabilities = BY_CAP_ANY_LOOP | BY_CAP_ZERO_NEW | BY_CAP_FAST_ZERO,
    },
    [BY_FILE_DEVICE] = {
        COMMON, .name = "host_device", .serves = BASIC | SPACE,
        .capabilities = BY_CAP_ANY_LOOP | BY_CAP_FAST_ZERO,
    },
    [BY_FILE_CDROM] = {
        COMMON, .name = "host_cdrom", .serves = BASIC,
        .capabilities = BY_CAP_ANY_LOOP,
    },
};

uintptr_t by_file_ops(int kind)
{
    return (uintptr_t)&tables[kind];
}

int by_file_init(uintptr_t api)
{
    const struct by_api *table = (const struct by_api *)api;

    if (!table || table->abi != BY_ABI_VERSION
        || table->size < sizeof(*table)) {
        return -EPROTO;
    }
    by_file_api = table;
    return 0;
}

/* ext4 reserves a block at a time for what is written into a hole. */
static bool gains_by_room(int fd)
{
    struct statfs fs;

    return fstatfs(fd, &fs) == 0 && fs.f_type == EXT4_SUPER_MAGIC;
}

void by_file_change(struct by_file *file,
                    const struct by_file_settings *settings)
{
    file->fd = settings->fd;
    file->aio = settings->aio;
    file->regular = settings->regular;
    file->direct = settings->direct;
    file->makes_room = gains_by_room(settings->fd);
    file->alignment = settings->alignment ? settings->alignment : 1;
    file->max_batch = settings->aio == BY_FILE_RING ? settings->max_batch : 0;
    __atomic_store_n(&file->poisoned, 0, __ATOMIC_SEQ_CST);
    __atomic_add_fetch(&file->generation, 1, __ATOMIC_SEQ_CST);
}

struct by_file *by_file_create(const struct by_file_settings *settings)
{
    struct by_file *file = calloc(1, sizeof(*file));

    if (file) {
        by_file_change(file, settings);
    }
    return file;
}

void by_file_free(struct by_file *file)
{
    while (file && file->lanes) {
        struct by_file_lane *next = file->lanes->next;

        free(file->lanes);
        file->lanes = next;
    }
    free(file);
}

void by_file_get_stats(const struct by_file *file, struct by_file_stats *out)
{
    const struct by_file_stats *stats = &file->stats;

    out->discards_ok = __atomic_load_n(&stats->discards_ok, __ATOMIC_RELAXED);
    out->discards_failed = __atomic_load_n(&stats->discards_failed,
                                           __ATOMIC_RELAXED);
    out->discarded_bytes = __atomic_load_n(&stats->discarded_bytes,
                                           __ATOMIC_RELAXED);
}

int by_file_truncate_step(const struct by_file *file)
{
    return __atomic_load_n(&file->truncate_step, __ATOMIC_RELAXED);
}
