/* SPDX-License-Identifier: Apache-2.0 */
/*
 * processors.c - how many processors this process may use: by affinity and by
 * a container's quota.  Counted once; it only decides about spinning.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <unistd.h>

#include "loop_private.h"

static unsigned processors = 1;

/* A container's share in whole processors; 0 = unlimited. */
static unsigned quota(void)
{
    char text[64];
    long long share, period;
    ssize_t n;
    int fd = open("/sys/fs/cgroup/cpu.max", O_RDONLY | O_CLOEXEC);

    if (fd < 0) {
        return 0;
    }
    n = read(fd, text, sizeof(text) - 1);
    close(fd);
    if (n <= 0) {
        return 0;
    }
    text[n] = 0;
    if (sscanf(text, "%lld %lld", &share, &period) != 2 || period <= 0) {
        return 0;
    }
    return share > period ? (unsigned)(share / period) : 1;
}

void by_processors_count(void)
{
    cpu_set_t set;
    unsigned n = 1, limit = quota();

    if (sched_getaffinity(0, sizeof(set), &set) == 0) {
        n = (unsigned)CPU_COUNT(&set);
    }
    processors = limit && limit < n ? limit : n;
}

unsigned by_processors(void)
{
    return processors;
}
