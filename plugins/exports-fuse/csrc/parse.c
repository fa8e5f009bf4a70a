/* SPDX-License-Identifier: Apache-2.0 */
/*
 * parse.c - a message of the kernel's (linux/fuse.h), checked.
 */
#include <errno.h>
#include <string.h>

#include "parse.h"

/* The fields of an operation; those that the message is too short for are 0,
 * as older kernels mean them. */
static void take(void *out, size_t want, const uint8_t *body, size_t have)
{
    memset(out, 0, want);
    memcpy(out, body, have < want ? have : want);
}

static bool lacks(size_t have, size_t need)
{
    return have < need;
}

static int parse_init(const uint8_t *body, size_t have,
                      struct fuse_command *out)
{
    struct {
        uint32_t major, minor, max_readahead, flags, flags2;
    } in;

    if (lacks(have, 2 * sizeof(uint32_t))) {
        return -EPROTO;
    }
    take(&in, sizeof(in), body, have);
    out->major = in.major;
    out->minor = in.minor;
    out->readahead = in.max_readahead;
    out->flags = in.flags;
    out->flags2 = in.flags & FUSE_INIT_EXT ? in.flags2 : 0;
    return 0;
}

static int parse_setattr(const uint8_t *body, size_t have,
                         struct fuse_command *out)
{
    struct fuse_setattr_in in;

    if (lacks(have, sizeof(in))) {
        return -EINVAL;
    }
    take(&in, sizeof(in), body, have);
    out->valid = in.valid;
    out->offset = in.size;
    out->mode = in.mode;
    out->uid = in.uid;
    out->gid = in.gid;
    return in.valid & FATTR_SIZE && in.size > INT64_MAX ? -EFBIG : 0;
}

static int parse_open(const uint8_t *body, size_t have,
                      struct fuse_command *out)
{
    struct fuse_open_in in;

    if (lacks(have, sizeof(in))) {
        return -EINVAL;
    }
    take(&in, sizeof(in), body, have);
    out->flags = in.flags;
    return 0;
}

static int parse_read(const uint8_t *body, size_t have,
                      struct fuse_command *out)
{
    struct fuse_read_in in;

    if (lacks(have, sizeof(in))) {
        return -EINVAL;
    }
    take(&in, sizeof(in), body, have);
    out->offset = in.offset;
    out->length = in.size;
    return in.offset > INT64_MAX || in.size > FUSE_MAX_IO ? -EINVAL : 0;
}

static int parse_write(const uint8_t *body, size_t have,
                       struct fuse_command *out)
{
    struct fuse_write_in in;

    if (lacks(have, sizeof(in))) {
        return -EINVAL;
    }
    take(&in, sizeof(in), body, sizeof(in));
    out->offset = in.offset;
    out->length = in.size;
    return in.offset > INT64_MAX || in.size > FUSE_MAX_IO
           || in.size != have - sizeof(in) ? -EINVAL : 0;
}

static int parse_fallocate(const uint8_t *body, size_t have,
                           struct fuse_command *out)
{
    struct fuse_fallocate_in in;

    if (lacks(have, sizeof(in))) {
        return -EINVAL;
    }
    take(&in, sizeof(in), body, have);
    out->offset = in.offset;
    out->length = in.length;
    out->flags = in.mode;
    if (in.offset > INT64_MAX || !in.length) {
        return -EINVAL;
    }
    return in.length > INT64_MAX - in.offset ? -EFBIG : 0;
}

static int parse_lseek(const uint8_t *body, size_t have,
                       struct fuse_command *out)
{
    struct fuse_lseek_in in;

    if (lacks(have, sizeof(in))) {
        return -EINVAL;
    }
    take(&in, sizeof(in), body, have);
    out->offset = in.offset;
    out->flags = in.whence;
    return in.offset > INT64_MAX ? -ENXIO : 0;
}

static int parse_body(const uint8_t *body, size_t have,
                      struct fuse_command *out)
{
    switch (out->opcode) {
    case FUSE_INIT:
        return parse_init(body, have, out);
    case FUSE_SETATTR:
        return parse_setattr(body, have, out);
    case FUSE_OPEN:
        return parse_open(body, have, out);
    case FUSE_READ:
        return parse_read(body, have, out);
    case FUSE_WRITE:
        return parse_write(body, have, out);
    case FUSE_FALLOCATE:
        return parse_fallocate(body, have, out);
    case FUSE_LSEEK:
        return parse_lseek(body, have, out);
    default:
        return 0;
    }
}

int fuse_parse(const uint8_t *head, size_t bytes, struct fuse_command *out)
{
    struct fuse_in_header in;
    size_t have = bytes - sizeof(in);

    memset(out, 0, sizeof(*out));
    if (lacks(bytes, sizeof(in))) {
        return -EBADMSG;
    }
    memcpy(&in, head, sizeof(in));
    if (in.len != bytes) {
        return -EBADMSG;
    }
    out->opcode = in.opcode;
    out->unique = in.unique;
    out->answered = in.opcode != FUSE_FORGET
        && in.opcode != FUSE_BATCH_FORGET;
    if (in.opcode != FUSE_WRITE && have > FUSE_HEAD_BYTES - sizeof(in)) {
        have = FUSE_HEAD_BYTES - sizeof(in);
    }
    /* There is but the one file. */
    if (in.nodeid != FUSE_ROOT_ID && in.opcode != FUSE_INIT
        && in.opcode != FUSE_INTERRUPT && in.opcode != FUSE_DESTROY
        && in.opcode != FUSE_STATFS && out->answered) {
        return -ENOENT;
    }
    return parse_body(head + sizeof(in), have, out);
}
