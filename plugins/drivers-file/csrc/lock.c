/* SPDX-License-Identifier: Apache-2.0 */
/* lock.c - locks on single bytes, and the ioctls of creation and drives. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/cdrom.h>
#include <linux/fs.h>
#include <sys/ioctl.h>

#include "file.h"

static int lock_call(int fd, int command, struct flock *lock)
{
    while (fcntl(fd, command, lock)) {
        if (errno != EINTR) {
            return -errno;
        }
    }
    return 0;
}

static struct flock one_byte(short type, int64_t byte)
{
    return (struct flock) {
        .l_type = type, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1,
    };
}

int by_file_lock(int fd, int64_t byte)
{
    struct flock lock = one_byte(F_RDLCK, byte);

    return lock_call(fd, F_OFD_SETLK, &lock);
}

int by_file_unlock(int fd, int64_t byte)
{
    struct flock lock = one_byte(F_UNLCK, byte);

    return lock_call(fd, F_OFD_SETLK, &lock);
}

int by_file_lock_test(int fd, int64_t byte)
{
    struct flock lock = one_byte(F_WRLCK, byte);
    int result = lock_call(fd, F_OFD_GETLK, &lock);

    return result ? result : lock.l_type == F_UNLCK ? 0 : -EAGAIN;
}

/* -------------------------------------------------------------- creation */

int by_file_set_nocow(int fd)
{
    int flags;

    if (ioctl(fd, FS_IOC_GETFLAGS, &flags)) {
        return -errno;
    }
    flags |= FS_NOCOW_FL;
    return ioctl(fd, FS_IOC_SETFLAGS, &flags) ? -errno : 0;
}

int by_file_set_extent_hint(int fd, uint32_t bytes)
{
    struct fsxattr attr;

    if (ioctl(fd, FS_IOC_FSGETXATTR, &attr)) {
        return -errno;
    }
    attr.fsx_xflags |= FS_XFLAG_EXTSIZE;
    attr.fsx_extsize = bytes;
    return ioctl(fd, FS_IOC_FSSETXATTR, &attr) ? -errno : 0;
}

int by_file_get_extent_hint(int fd, uint32_t *bytes)
{
    struct fsxattr attr;

    *bytes = 0;
    if (ioctl(fd, FS_IOC_FSGETXATTR, &attr)) {
        return -errno;
    }
    *bytes = attr.fsx_extsize;
    return 0;
}

/* -------------------------------------------------------- optical drives */

int by_file_disc_present(int fd)
{
    return ioctl(fd, CDROM_DRIVE_STATUS, CDSL_CURRENT) == CDS_DISC_OK;
}

int by_file_tray(int fd, bool open)
{
    return ioctl(fd, open ? CDROMEJECT : CDROMCLOSETRAY, 0) ? -errno : 0;
}

int by_file_door(int fd, bool locked)
{
    return ioctl(fd, CDROM_LOCKDOOR, (int)locked) ? -errno : 0;
}
