/* SPDX-License-Identifier: Apache-2.0 */
/* resize.c - the length of a regular file, with preallocation. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "file.h"

#define PIECE (1024 * 1024)
#define FIRST_BLOCK 4096

static int fail(int *step, int where, int error)
{
    *step = where;
    return -error;
}

/*
 * Write the first block of a file that has become longer than nothing: what
 * probes for O_DIRECT's alignment by reading learns nothing from a hole.
 * Best effort.
 */
static void write_first_block(int fd, uint64_t length)
{
    size_t bytes = length < FIRST_BLOCK ? BY_FILE_SECTOR : FIRST_BLOCK;
    void *block;

    if (posix_memalign(&block, FIRST_BLOCK, FIRST_BLOCK) == 0) {
        memset(block, 0, FIRST_BLOCK);
        while (pwrite(fd, block, bytes, 0) < 0 && errno == EINTR) {
        }
        free(block);
    }
}

static int set_length(int fd, uint64_t length)
{
    while (ftruncate(fd, length)) {
        if (errno != EINTR) {
            return -errno;
        }
    }
    return 0;
}

static int allocate_new(int fd, uint64_t old, uint64_t length, int *step)
{
    int error;

    do {
        error = posix_fallocate(fd, old, length - old);
    } while (error == EINTR);
    if (error) {
        return fail(step, BY_FILE_STEP_ALLOCATE, error);
    }
    if (old == 0) {
        write_first_block(fd, length);
    }
    return 0;
}

static int write_zeroes_to(int fd, uint64_t from, uint64_t to)
{
    char *zeroes;
    int result = 0;

    if (posix_memalign((void **)&zeroes, FIRST_BLOCK, PIECE)) {
        return -ENOMEM;
    }
    memset(zeroes, 0, PIECE);
    while (from < to && result == 0) {
        uint64_t bytes = to - from < PIECE ? to - from : PIECE;
        ssize_t n = pwrite(fd, zeroes, bytes, from);

        if (n > 0) {
            from += n;
        } else if (n == 0 || errno != EINTR) {
            result = n ? -errno : -ENOSPC;
        }
    }
    free(zeroes);
    return result;
}

static int fill_new(int fd, uint64_t old, uint64_t length, int *step)
{
    int result = set_length(fd, length); /* fewer fragments than growing */

    if (result) {
        return fail(step, BY_FILE_STEP_RESIZE, -result);
    }
    result = write_zeroes_to(fd, old, length);
    if (result) {
        return fail(step, BY_FILE_STEP_ZEROES, -result);
    }
    return fsync(fd) ? fail(step, BY_FILE_STEP_FLUSH, errno) : 0;
}

static int plain(int fd, uint64_t old, uint64_t length, int *step)
{
    int result = set_length(fd, length);

    if (result) {
        return fail(step, BY_FILE_STEP_RESIZE, -result);
    }
    if (old == 0 && length) {
        write_first_block(fd, length);
    }
    return 0;
}

int by_file_resize(int fd, uint64_t length, int prealloc, int *step)
{
    struct stat st;
    uint64_t old;
    int result;

    *step = BY_FILE_STEP_NONE;
    if (length > INT64_MAX) {
        return fail(step, BY_FILE_STEP_RESIZE, EFBIG);
    }
    if (fstat(fd, &st)) {
        return fail(step, BY_FILE_STEP_STAT, errno);
    }
    old = st.st_size;
    if (old > length && prealloc != BY_PREALLOC_OFF) {
        return fail(step, BY_FILE_STEP_SHRINK, ENOTSUP);
    }
    switch (prealloc) {
    case BY_PREALLOC_OFF:
        return plain(fd, old, length, step);
    case BY_PREALLOC_FALLOC:
        result = old == length ? 0 : allocate_new(fd, old, length, step);
        break;
    case BY_PREALLOC_FULL:
        result = fill_new(fd, old, length, step);
        break;
    default:
        return fail(step, BY_FILE_STEP_MODE, ENOTSUP);
    }
    if (result) {
        (void)set_length(fd, old); /* the failure is reported anyway */
    }
    return result;
}
