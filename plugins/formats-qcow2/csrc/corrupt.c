/* SPDX-License-Identifier: Apache-2.0 */
/*
 * corrupt.c - what happens when an image's tables contradict each other.
 *
 * Found anywhere, under the lock too, so only memory changes at once: the
 * image takes no more writes, and Python hears of it.  The keeper sets the
 * header's corrupt bit and tells standard error.  One report of each severity
 * is made; the rest is silence.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

#include "image.h"

static void tell(bool fatal, const char *text)
{
    if (fatal) {
        fprintf(stderr, "qcow2: Marking image as corrupt: %s; further "
                "corruption events will be suppressed\n", text);
    } else {
        fprintf(stderr, "qcow2: Image is corrupt: %s; further non-fatal "
                "corruption events will be suppressed\n", text);
    }
}

/* A chore: what must wait. */
static int mark(struct by_qcow2 *q, struct q2_chore *chore)
{
    char texts[2][sizeof(q->reports[0])];
    bool todo[2];

    (void)chore;
    pthread_mutex_lock(&q->chores_lock);
    for (int i = 0; i < 2; i++) {
        todo[i] = q->reported[i] && !q->told[i];
        q->told[i] = q->reported[i];
        memcpy(texts[i], q->reports[i], sizeof(texts[i]));
    }
    q->marking_queued = false;
    pthread_mutex_unlock(&q->chores_lock);
    for (int i = 0; i < 2; i++) {
        if (todo[i]) {
            tell(i, texts[i]);
        }
    }
    if (todo[1] && q->set.version >= 3) {
        (void)q2_incompatible(q, Q2_INCOMPAT_CORRUPT, 0);
    }
    return 0;
}

static void send(struct by_qcow2 *q, bool fatal, int64_t offset, int64_t bytes)
{
    struct by_event event = {
        .tag = q->tag,
        .kind = BY_QCOW2_CORRUPTED,
        .result = bytes < 0 || bytes > INT32_MAX ? -1 : (int32_t)bytes,
        .a = (fatal ? 1 : 0) | (offset >= 0 ? 2 : 0),
        .b = offset >= 0 ? (uint64_t)offset : 0,
    };

    q2_api->event(&event);
}

int q2_corrupt(struct by_qcow2 *q, bool fatal, int64_t offset, int64_t bytes,
               const char *format, ...)
{
    va_list arguments;
    bool queue;

    fatal = fatal && !q->set.read_only;
    pthread_mutex_lock(&q->chores_lock);
    if (q->reported[1] || q->reported[fatal]) {
        pthread_mutex_unlock(&q->chores_lock);
        return -EIO;
    }
    va_start(arguments, format);
    vsnprintf(q->report, sizeof(q->report), format, arguments);
    va_end(arguments);
    memcpy(q->reports[fatal], q->report, sizeof(q->report));
    q->reported[fatal] = true;
    queue = !q->marking_queued;
    q->marking_queued = true;
    pthread_mutex_unlock(&q->chores_lock);
    if (fatal) {
        __atomic_store_n(&q->corrupt, true, __ATOMIC_RELEASE);
    }
    send(q, fatal, offset, bytes);
    if (queue) {
        q->marking.run = mark;
        q2_chore_add(q, &q->marking);
    }
    return -EIO;
}
