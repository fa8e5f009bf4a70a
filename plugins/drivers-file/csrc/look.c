/* SPDX-License-Identifier: Apache-2.0 */
/* look.c - what a descriptor is, and how O_DIRECT wants to be used on it. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "file.h"

#define NFS_MAGIC 0x6969
#define LARGEST 4096
#define STATX_DIO 0x2000u

static int type_of(mode_t mode)
{
    return S_ISREG(mode) ? BY_FILE_TYPE_REGULAR
        : S_ISBLK(mode) ? BY_FILE_TYPE_BLOCK
        : S_ISCHR(mode) ? BY_FILE_TYPE_CHAR : BY_FILE_TYPE_OTHER;
}

int by_file_look(int fd, struct by_file_facts *out)
{
    struct stat st;
    int read_only = 0;
    off_t end;

    memset(out, 0, sizeof(*out));
    if (fstat(fd, &st)) {
        return -errno;
    }
    out->type = type_of(st.st_mode);
    out->allocated = (uint64_t)st.st_blocks * 512;
    if (out->type != BY_FILE_TYPE_OTHER) {
        /* Not st_size: it is 0 for files of /proc, which may have no end. */
        end = lseek(fd, 0, SEEK_END);
        out->length = end < 0 ? -errno : end;
    }
    if (out->type == BY_FILE_TYPE_BLOCK
        && ioctl(fd, BLKROGET, &read_only) == 0) {
        out->locked_read_only = read_only;
    }
    return 0;
}

/* struct statx as far as it is needed; older C libraries lack its end. */
struct direct_statx {
    uint32_t mask;
    uint32_t unused[37];
    uint32_t memory, offset;    /* dio_mem_align, dio_offset_align */
    uint32_t rest[24];
};

static bool ask_statx(int fd, uint32_t *request, uint32_t *memory)
{
    struct direct_statx stx;

    memset(&stx, 0, sizeof(stx));
    if (syscall(SYS_statx, fd, "", AT_EMPTY_PATH, STATX_DIO, &stx)
        || !(stx.mask & STATX_DIO) || !stx.offset || !stx.memory) {
        return false;
    }
    *request = stx.offset;
    *memory = stx.memory;
    return true;
}

/* Only EINVAL speaks of alignment; an I/O error is none of our business. */
static bool can_read(int fd, void *buffer, size_t bytes)
{
    return pread(fd, buffer, bytes, 0) >= 0 || errno != EINVAL;
}

static uint32_t try_lengths(int fd, char *buffer)
{
    for (uint32_t n = 1; n <= LARGEST; n = n == 1 ? 512 : n * 2) {
        if (can_read(fd, buffer, n)) {
            return n == 1 ? LARGEST : n; /* a hole takes anything */
        }
    }
    return 0;
}

static uint32_t try_addresses(int fd, char *buffer, uint32_t otherwise)
{
    for (uint32_t n = 1; n <= LARGEST; n = n == 1 ? 512 : n * 2) {
        if (can_read(fd, buffer + n, LARGEST)) {
            return n == 1 ? otherwise : n;
        }
    }
    return 0;
}

static int probe_by_reading(int fd, uint32_t *request, uint32_t *memory)
{
    unsigned sector = 0;
    char *buffer;

    if (posix_memalign((void **)&buffer, LARGEST, 2 * LARGEST)) {
        return -ENOMEM;
    }
    *request = ioctl(fd, BLKSSZGET, &sector) == 0 && sector
        ? sector : try_lengths(fd, buffer);
    *memory = try_addresses(fd, buffer, *request);
    free(buffer);
    return *request && *memory ? 0 : -EINVAL;
}

int by_file_probe(int fd, uint32_t *request, uint32_t *memory)
{
    struct statfs fs;

    *request = *memory = 1;
    if (fstatfs(fd, &fs) == 0 && fs.f_type == NFS_MAGIC) {
        return 0; /* takes any byte */
    }
    return ask_statx(fd, request, memory)
        ? 0 : probe_by_reading(fd, request, memory);
}

/* ------------------------------------------------------------ page cache */

int by_file_drop_cache(int fd)
{
    int error = posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);

    return -error;
}

#define WINDOW (128ull << 20)

static int window_is_cached(int fd, uint64_t offset, size_t bytes,
                            unsigned char *pages, size_t npages)
{
    void *window = mmap(NULL, bytes, PROT_NONE, MAP_SHARED, fd, offset);
    int result = 0;

    if (window == MAP_FAILED) {
        return -errno;
    }
    if (mincore(window, bytes, pages)) {
        result = -errno;
    }
    for (size_t i = 0; result == 0 && i < npages; i++) {
        result = pages[i] & 1;
    }
    munmap(window, bytes);
    return result;
}

int by_file_is_cached(int fd, uint64_t length)
{
    size_t page = sysconf(_SC_PAGESIZE);
    unsigned char *pages = malloc(WINDOW / page);
    int result = pages ? 0 : -ENOMEM;

    for (uint64_t at = 0; result == 0 && at < length; at += WINDOW) {
        size_t bytes = length - at < WINDOW ? length - at : WINDOW;

        result = window_is_cached(fd, at, bytes, pages,
                                  (bytes + page - 1) / page);
    }
    free(pages);
    return result;
}
