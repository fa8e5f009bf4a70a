/* SPDX-License-Identifier: Apache-2.0 */
/*
 * mount.c - the system calls around a mount.  They may wait.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <unistd.h>

#include <linux/fuse.h>

#include "control.h"

#define DEVICE "/dev/fuse"

const char *by_fuse_type(void)
{
    return "fuse.blockyard";
}

int by_fuse_mount(const char *path, const char *options, bool read_only)
{
    unsigned long flags = MS_NOSUID | MS_NODEV | MS_NOATIME
        | (read_only ? MS_RDONLY : 0);

    return mount("blockyard", path, by_fuse_type(), flags, options) < 0
        ? -errno : 0;
}

int by_fuse_unmount(const char *path)
{
    return umount2(path, MNT_DETACH | UMOUNT_NOFOLLOW) < 0 ? -errno : 0;
}

int by_fuse_clone(int fd)
{
    uint32_t from = (uint32_t)fd;
    int clone = open(DEVICE, O_RDWR | O_CLOEXEC | O_NONBLOCK);

    if (clone >= 0 && ioctl(clone, FUSE_DEV_IOC_CLONE, &from) == 0) {
        return clone;
    }
    if (clone >= 0) {
        close(clone);
    }
    /* Whoever got the first one from fusermount3 may be refused here. */
    clone = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    return clone < 0 ? -errno : clone;
}
