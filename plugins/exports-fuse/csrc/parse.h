/* SPDX-License-Identifier: Apache-2.0 */
/*
 * parse.h - a message of the kernel's, checked.
 *
 * Of what fuse_parse lets through everything holds that the comments say;
 * what it refuses it answers with an errno, and nothing else of it is used.
 */
#ifndef BY_FUSE_PARSE_H
#define BY_FUSE_PARSE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <linux/fuse.h>

/* Newer than some systems' header. */
#ifndef FOPEN_NOFLUSH
#define FOPEN_NOFLUSH (1 << 5)
#endif
#ifndef FOPEN_PARALLEL_DIRECT_WRITES
#define FOPEN_PARALLEL_DIRECT_WRITES (1 << 6)
#endif
#ifndef FUSE_INIT_EXT
#define FUSE_INIT_EXT (1 << 30)
#endif
#ifndef FUSE_DIRECT_IO_ALLOW_MMAP
#define FUSE_DIRECT_IO_ALLOW_MMAP (1ull << 36)
#endif

/* Payload of one request: 256 pages, the kernel's usual limit. */
#define FUSE_MAX_IO (1u << 20)
/* What comes before the payload of a WRITE; the rest of a message that is
 * none follows in the same memory. */
#define FUSE_WRITE_HEAD (sizeof(struct fuse_in_header) \
                         + sizeof(struct fuse_write_in))
#define FUSE_HEAD_BYTES 256

struct fuse_command {
    uint32_t opcode;
    uint64_t unique;
    bool answered;        /* the kernel waits for a reply */
    uint64_t offset;      /* READ, WRITE, FALLOCATE, LSEEK: <= INT64_MAX */
    uint64_t length;      /* READ, WRITE: <= FUSE_MAX_IO; FALLOCATE: > 0, and
                             offset + length <= INT64_MAX */
    uint32_t flags;       /* OPEN's and INIT's, FALLOCATE's mode, LSEEK's whence */
    uint32_t flags2;      /* INIT's */
    uint32_t major, minor, readahead; /* INIT's */
    uint32_t valid;       /* SETATTR's; size in offset <= INT64_MAX */
    uint32_t mode, uid, gid;
};

/*
 * `head` holds the first FUSE_HEAD_BYTES of a message of `bytes` bytes, of a
 * WRITE its first FUSE_WRITE_HEAD only.  0; or a negative errno to answer
 * with; -EBADMSG: not even that is possible.  opcode, unique and answered are
 * set unless it is -EBADMSG.
 */
int fuse_parse(const uint8_t *head, size_t bytes, struct fuse_command *out);

#endif /* BY_FUSE_PARSE_H */
