/* SPDX-License-Identifier: Apache-2.0 */
/*
 * trace.c - named trace points.  While none is on, asking costs one load.
 * Otherwise a name is looked up in a small table that is only appended to, so
 * that readers need no lock.  Lines wait in a ring for Python; when it is
 * full, new ones are counted and dropped: tracing never holds a loop up.
 */
#define _GNU_SOURCE
#include <fnmatch.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "loop_private.h"

enum { NAMES_MAX = 512, PATTERNS_MAX = 64, LINE_MAX_ = 512,
       LOG_BYTES = 256 * 1024 };

struct point {
    _Atomic(const char *) name;
    _Atomic bool on;
};

static struct {
    pthread_mutex_t lock;
    struct point points[NAMES_MAX];
    _Atomic int count;
    _Atomic int active;                 /* patterns that switched on */
    char *patterns[PATTERNS_MAX];       /* for names that come later */
    int npatterns;
    char *log;                          /* LOG_BYTES, whole lines */
    uint32_t used;
    uint64_t dropped;
    bool announced;
    uint64_t tag;
} trace = { .lock = PTHREAD_MUTEX_INITIALIZER };

static struct point *find(const char *name)
{
    int count = atomic_load_explicit(&trace.count, memory_order_acquire);

    for (int i = 0; i < count; i++) {
        const char *known = atomic_load_explicit(&trace.points[i].name,
                                                 memory_order_relaxed);
        if (known == name || !strcmp(known, name)) {
            return &trace.points[i];
        }
    }
    return NULL;
}

static bool matches_any(const char *name)
{
    for (int i = 0; i < trace.npatterns; i++) {
        if (!fnmatch(trace.patterns[i], name, 0)) {
            return true;
        }
    }
    return false;
}

/* Under the lock.  The table's bound drops only names, never a request. */
static struct point *add(const char *name)
{
    struct point *point = find(name);
    int count = atomic_load(&trace.count);

    if (point || count == NAMES_MAX) {
        return point;
    }
    point = &trace.points[count];
    atomic_store(&point->name, name);
    atomic_store(&point->on, matches_any(name));
    atomic_store_explicit(&trace.count, count + 1, memory_order_release);
    return point;
}

void by_trace_register(const char *name)
{
    pthread_mutex_lock(&trace.lock);
    add(name);
    pthread_mutex_unlock(&trace.lock);
}

bool by_trace_on(const char *name)
{
    struct point *point;

    if (!atomic_load_explicit(&trace.active, memory_order_relaxed)) {
        return false;
    }
    point = find(name);
    if (!point) {
        pthread_mutex_lock(&trace.lock);
        point = add(name);
        pthread_mutex_unlock(&trace.lock);
    }
    return point && atomic_load_explicit(&point->on, memory_order_relaxed);
}

/* Under the lock.  Remember `on` patterns; forget those switched off. */
static void keep_pattern(const char *pattern, bool on)
{
    for (int i = 0; i < trace.npatterns; i++) {
        if (!fnmatch(pattern, trace.patterns[i], 0)
            || !strcmp(pattern, trace.patterns[i])) {
            free(trace.patterns[i]);
            trace.patterns[i--] = trace.patterns[--trace.npatterns];
        }
    }
    if (on && trace.npatterns < PATTERNS_MAX) {
        char *copy = strdup(pattern);

        if (copy) {
            trace.patterns[trace.npatterns++] = copy;
        }
    }
}

int by_trace_set(const char *pattern, bool on)
{
    int matched = 0, active = 0, count;

    pthread_mutex_lock(&trace.lock);
    keep_pattern(pattern, on);
    count = atomic_load(&trace.count);
    for (int i = 0; i < count; i++) {
        if (!fnmatch(pattern, atomic_load(&trace.points[i].name), 0)) {
            atomic_store(&trace.points[i].on, on);
            matched++;
        }
        active += atomic_load(&trace.points[i].on);
    }
    atomic_store(&trace.active, active + trace.npatterns);
    pthread_mutex_unlock(&trace.lock);
    return matched;
}

const char *by_trace_name(int index)
{
    if (index < 0 || index >= atomic_load(&trace.count)) {
        return NULL;
    }
    return atomic_load(&trace.points[index].name);
}

bool by_trace_state(int index)
{
    return by_trace_name(index) && atomic_load(&trace.points[index].on);
}

void by_trace_event(uint64_t tag)
{
    pthread_mutex_lock(&trace.lock);
    trace.tag = tag;
    trace.announced = false;
    pthread_mutex_unlock(&trace.lock);
}

/* Under the lock; answers the tag to announce, or 0. */
static uint64_t append(const char *line, size_t length)
{
    if (!trace.log) {
        trace.log = malloc(LOG_BYTES);
    }
    if (!trace.log || trace.used + length > LOG_BYTES) {
        trace.dropped++;
        return 0;
    }
    memcpy(trace.log + trace.used, line, length);
    trace.used += (uint32_t)length;
    if (trace.announced) {
        return 0;
    }
    trace.announced = true;
    return trace.tag;
}

void by_trace(const char *name, const char *format, ...)
{
    char line[LINE_MAX_];
    struct timespec ts;
    uint64_t tag;
    va_list args;
    int n, m;

    clock_gettime(CLOCK_REALTIME, &ts);
    n = snprintf(line, sizeof(line) - 1, "%lld.%06ld %s ",
                 (long long)ts.tv_sec, ts.tv_nsec / 1000, name);
    if (n < 0 || n >= (int)sizeof(line) - 1) {
        return;
    }
    va_start(args, format);
    m = vsnprintf(line + n, sizeof(line) - 1 - (size_t)n, format, args);
    va_end(args);
    n = m < 0 ? n : n + m;
    if (n > (int)sizeof(line) - 2) {
        n = (int)sizeof(line) - 2;
    }
    line[n++] = '\n';
    pthread_mutex_lock(&trace.lock);
    tag = append(line, (size_t)n);
    pthread_mutex_unlock(&trace.lock);
    if (tag) {
        by_event_push(&(struct by_event){ .tag = tag,
                                          .kind = BY_EVENT_TRACE });
    }
}

/* The part of the log that fits in max and ends with a line's end. */
static uint32_t whole_lines(uint32_t max)
{
    uint32_t n = trace.used < max ? trace.used : max;

    while (n && trace.log[n - 1] != '\n') {
        n--;
    }
    return n;
}

int by_trace_take(char *out, int max)
{
    uint32_t n;

    if (max <= 0) {
        return 0;
    }
    pthread_mutex_lock(&trace.lock);
    n = whole_lines((uint32_t)max);
    if (n) {
        memcpy(out, trace.log, n);
        memmove(trace.log, trace.log + n, trace.used - n);
        trace.used -= n;
    }
    if (!trace.used) {
        trace.announced = false;
    }
    if (!n && trace.dropped && max >= 64) {
        n = (uint32_t)snprintf(out, 64, "0.000000 trace_dropped %llu\n",
                               (unsigned long long)trace.dropped);
        trace.dropped = 0;
    }
    pthread_mutex_unlock(&trace.lock);
    return (int)n;
}
