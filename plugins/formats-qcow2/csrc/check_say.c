/* SPDX-License-Identifier: Apache-2.0 */
/* check_say.c - the text of a check, and its progress, for whoever watches. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "check.h"

enum {
    TEXT = 64 << 10,
    TOLD = 1 << 17              /* messages; nobody reads more, and tables that
                                   overlap could make them billions */
};

struct by_qcow2_talk {
    pthread_mutex_t lock;
    pthread_cond_t readable, writable;
    uint32_t from, bytes;       /* of text, a ring */
    bool ended, cancelled;
    uint64_t done, total;
    uint32_t told;              /* the check's alone */
    char text[TEXT];
};

struct by_qcow2_talk *by_qcow2_talk_new(void)
{
    struct by_qcow2_talk *talk = calloc(1, sizeof(*talk));
    pthread_condattr_t attributes;

    if (!talk) {
        return NULL;
    }
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_mutex_init(&talk->lock, NULL);
    pthread_cond_init(&talk->readable, &attributes);
    pthread_cond_init(&talk->writable, &attributes);
    pthread_condattr_destroy(&attributes);
    return talk;
}

void by_qcow2_talk_free(struct by_qcow2_talk *talk)
{
    if (talk) {
        pthread_cond_destroy(&talk->readable);
        pthread_cond_destroy(&talk->writable);
        pthread_mutex_destroy(&talk->lock);
        free(talk);
    }
}

static int take(struct by_qcow2_talk *talk, char *out, int bytes)
{
    int taken = 0;

    while (taken < bytes && talk->bytes) {
        uint32_t part = TEXT - talk->from;

        part = part < talk->bytes ? part : talk->bytes;
        part = part < (uint32_t)(bytes - taken) ? part
                                                : (uint32_t)(bytes - taken);
        memcpy(out + taken, talk->text + talk->from, part);
        talk->from = (talk->from + part) % TEXT;
        talk->bytes -= part;
        taken += part;
    }
    return taken;
}

int by_qcow2_talk_read(struct by_qcow2_talk *talk, char *out, int bytes,
                       int milliseconds)
{
    struct timespec until;
    int taken, result = 0;

    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += milliseconds / 1000;
    until.tv_nsec += milliseconds % 1000 * 1000000l;
    if (until.tv_nsec >= 1000000000l) {
        until.tv_sec++;
        until.tv_nsec -= 1000000000l;
    }
    pthread_mutex_lock(&talk->lock);
    while (!talk->bytes && !talk->ended && result != ETIMEDOUT) {
        result = pthread_cond_timedwait(&talk->readable, &talk->lock, &until);
    }
    taken = take(talk, out, bytes);
    if (!taken && talk->ended) {
        taken = -1;
    }
    pthread_cond_signal(&talk->writable);
    pthread_mutex_unlock(&talk->lock);
    return taken;
}

void by_qcow2_talk_cancel(struct by_qcow2_talk *talk)
{
    pthread_mutex_lock(&talk->lock);
    talk->cancelled = true;
    pthread_cond_broadcast(&talk->writable);
    pthread_mutex_unlock(&talk->lock);
}

void by_qcow2_talk_progress(struct by_qcow2_talk *talk, uint64_t *done,
                            uint64_t *total)
{
    pthread_mutex_lock(&talk->lock);
    *done = talk->done;
    *total = talk->total;
    pthread_mutex_unlock(&talk->lock);
}

void q2_talk_end(struct by_qcow2_talk *talk)
{
    if (talk) {
        pthread_mutex_lock(&talk->lock);
        talk->ended = true;
        pthread_cond_broadcast(&talk->readable);
        pthread_mutex_unlock(&talk->lock);
    }
}

static void put(struct by_qcow2_talk *talk, const char *line, uint32_t bytes)
{
    pthread_mutex_lock(&talk->lock);
    while (bytes && !talk->cancelled) {
        uint32_t end = (talk->from + talk->bytes) % TEXT;
        uint32_t part = talk->bytes == TEXT ? 0
                      : end < talk->from ? talk->from - end : TEXT - end;

        if (!part) {
            pthread_cond_signal(&talk->readable);
            pthread_cond_wait(&talk->writable, &talk->lock);
            continue;
        }
        part = part < bytes ? part : bytes;
        memcpy(talk->text + end, line, part);
        talk->bytes += part;
        line += part;
        bytes -= part;
    }
    pthread_cond_signal(&talk->readable);
    pthread_mutex_unlock(&talk->lock);
}

void q2_tell(struct q2_check *check, const char *format, ...)
{
    char line[4096];            /* names in it are cut before that */
    va_list arguments;
    int bytes;

    if (!check->talk || check->talk->told > TOLD) {
        return;
    }
    if (check->talk->told++ == TOLD) {
        format = "What else is wrong is counted, but not told.\n";
    }
    va_start(arguments, format);
    bytes = vsnprintf(line, sizeof(line), format, arguments);
    va_end(arguments);
    if (bytes > 0) {
        put(check->talk, line,
            (size_t)bytes < sizeof(line) ? bytes : (int)sizeof(line) - 1);
    }
}

bool q2_check_cancelled(struct q2_check *check)
{
    bool cancelled;

    if (!check->talk) {
        return false;
    }
    pthread_mutex_lock(&check->talk->lock);
    cancelled = check->talk->cancelled;
    pthread_mutex_unlock(&check->talk->lock);
    return cancelled;
}

void q2_check_steps(struct q2_check *check, uint64_t more)
{
    if (check->talk) {
        pthread_mutex_lock(&check->talk->lock);
        check->talk->total += more;
        pthread_mutex_unlock(&check->talk->lock);
    }
}

void q2_check_step(struct q2_check *check)
{
    if (check->talk) {
        pthread_mutex_lock(&check->talk->lock);
        check->talk->done++;
        pthread_mutex_unlock(&check->talk->lock);
    }
}
