/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bitmap.c - a dirty bitmap: its content, and nothing of its node.
 *
 * A bitmap's lock is held for a few words or one area at a time; what goes
 * over more of it takes the lock again and again, so that requests that end
 * meanwhile do not wait long.
 */
#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "bitmap.h"

#define SLICE_WORDS 512 /* under the lock at a time */
#define SLICE_BITS  (SLICE_WORDS * 64)

static inline uint64_t min64(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* Bits that the length takes; locked. */
static uint64_t bits_of(const struct by_bitmap *bitmap)
{
    uint64_t whole = bitmap->length >> bitmap->shift;

    return whole << bitmap->shift < bitmap->length ? whole + 1 : whole;
}

static struct by_bitmap *make(unsigned shift, uint64_t length)
{
    struct by_bitmap *bitmap = calloc(1, sizeof(*bitmap));

    if (bitmap) {
        pthread_mutex_init(&bitmap->lock, NULL);
        bitmap->shift = shift;
        bitmap->length = length;
        bitmap->enabled = true;
        by_bits_init(&bitmap->bits, 63 - shift);
    }
    return bitmap;
}

struct by_bitmap *by_bitmap_create(uint32_t granularity, uint64_t length)
{
    if (granularity < 512 || (granularity & (granularity - 1))
        || length > INT64_MAX) {
        return NULL;
    }
    return make(__builtin_ctz(granularity), length);
}

struct by_bitmap *by_bitmap_copy(struct by_bitmap *bitmap)
{
    struct by_bitmap *copy = make(bitmap->shift, 0);
    bool copied;

    if (!copy) {
        return NULL;
    }
    pthread_mutex_lock(&bitmap->lock);
    copy->length = bitmap->length;
    copied = by_bits_copy(&copy->bits, &bitmap->bits);
    pthread_mutex_unlock(&bitmap->lock);
    if (!copied) {
        by_bitmap_free(copy);
        return NULL;
    }
    return copy;
}

void by_bitmap_free(struct by_bitmap *bitmap)
{
    by_bitmap_detach(bitmap);
    by_bits_clear(&bitmap->bits);
    pthread_mutex_destroy(&bitmap->lock);
    free(bitmap);
}

void by_bitmap_set_enabled(struct by_bitmap *bitmap, bool enabled)
{
    pthread_mutex_lock(&bitmap->lock);
    bitmap->enabled = enabled;
    pthread_mutex_unlock(&bitmap->lock);
}

bool by_bitmap_get_enabled(struct by_bitmap *bitmap)
{
    bool enabled;

    pthread_mutex_lock(&bitmap->lock);
    enabled = bitmap->enabled;
    pthread_mutex_unlock(&bitmap->lock);
    return enabled;
}

uint64_t by_bitmap_length(struct by_bitmap *bitmap)
{
    uint64_t length;

    pthread_mutex_lock(&bitmap->lock);
    length = bitmap->length;
    pthread_mutex_unlock(&bitmap->lock);
    return length;
}

uint64_t by_bitmap_count(struct by_bitmap *bitmap)
{
    uint64_t count;

    pthread_mutex_lock(&bitmap->lock);
    /* More may be set than there is when memory was out. */
    count = min64(bitmap->bits.set, bits_of(bitmap));
    pthread_mutex_unlock(&bitmap->lock);
    return count;
}

/* ------------------------------------------------------------- changing */

/* Locked. */
static void set_range(struct by_bitmap *bitmap, uint64_t offset,
                      uint64_t bytes)
{
    if (bytes && offset < bitmap->length) {
        uint64_t last = offset + min64(bytes, bitmap->length - offset) - 1;

        by_bits_set(&bitmap->bits, offset >> bitmap->shift,
                    last >> bitmap->shift);
    }
}

void by_bitmap_set(struct by_bitmap *bitmap, uint64_t offset, uint64_t bytes)
{
    pthread_mutex_lock(&bitmap->lock);
    set_range(bitmap, offset, bytes);
    pthread_mutex_unlock(&bitmap->lock);
}

void by_bitmap_record(struct by_bitmap *bitmap, uint64_t offset,
                      uint64_t bytes)
{
    pthread_mutex_lock(&bitmap->lock);
    if (bitmap->enabled && !bitmap->read_only) {
        set_range(bitmap, offset, bytes);
    }
    pthread_mutex_unlock(&bitmap->lock);
}

/* Locked. */
static void cut(struct by_bitmap *bitmap)
{
    by_bits_cut(&bitmap->bits, bits_of(bitmap));
}

void by_bitmap_resize(struct by_bitmap *bitmap, uint64_t length)
{
    pthread_mutex_lock(&bitmap->lock);
    if (length < bitmap->length) {
        bitmap->length = length;
        cut(bitmap);
    }
    bitmap->length = length;
    pthread_mutex_unlock(&bitmap->lock);
}

void by_bitmap_clear(struct by_bitmap *bitmap)
{
    struct by_bits old;

    by_bits_init(&old, 63 - bitmap->shift);
    pthread_mutex_lock(&bitmap->lock);
    by_bits_swap(&old, &bitmap->bits);
    pthread_mutex_unlock(&bitmap->lock);
    by_bits_clear(&old);
}

int by_bitmap_swap(struct by_bitmap *bitmap, struct by_bitmap *other)
{
    struct by_bitmap *first = bitmap < other ? bitmap : other;
    struct by_bitmap *second = bitmap < other ? other : bitmap;

    if (bitmap->shift != other->shift) {
        return -EINVAL;
    }
    if (bitmap == other) {
        return 0;
    }
    pthread_mutex_lock(&first->lock);
    pthread_mutex_lock(&second->lock);
    by_bits_swap(&bitmap->bits, &other->bits);
    cut(bitmap);
    cut(other);
    pthread_mutex_unlock(&second->lock);
    pthread_mutex_unlock(&first->lock);
    return 0;
}

/* Add words, of those in the bitmap; locked. */
static void add_words(struct by_bitmap *bitmap, uint64_t first,
                      uint64_t count, uint64_t *words)
{
    uint64_t bits = bits_of(bitmap), whole = bits / 64;

    if (first + count > whole) {
        if (first > whole) {
            return;
        }
        count = whole - first;
        if (bits % 64) {
            words[count++] &= (1ull << bits % 64) - 1;
        }
    }
    by_bits_add(&bitmap->bits, first, count, words);
}

/* Read words; what lies past the end is 0.  Locked. */
static void read_words(const struct by_bitmap *bitmap, uint64_t first,
                       uint64_t count, uint64_t *words)
{
    uint64_t bits = bits_of(bitmap), whole = bits / 64;
    uint64_t now = 0;

    if (first <= whole) {
        now = min64(count, whole - first + (bits % 64 != 0));
        by_bits_read(&bitmap->bits, first, now, words);
        if (first + now > whole) {
            words[now - 1] &= (1ull << bits % 64) - 1;
        }
    }
    memset(words + now, 0, (count - now) * sizeof(*words));
}

/* ------------------------------------------------------------- looking */

/* The first bit from one on that is set (or clear), in bits; locked. */
static uint64_t next_bit(const struct by_bitmap *bitmap, uint64_t from,
                         bool set)
{
    uint64_t found = set ? by_bits_next_set(&bitmap->bits, from)
                         : by_bits_next_clear(&bitmap->bits, from);

    return found < bits_of(bitmap) ? found : BY_BITS_NONE;
}

/* The same in bytes, not before the offset. */
static uint64_t next_byte(struct by_bitmap *bitmap, uint64_t offset, bool set)
{
    uint64_t found = BY_BITS_NONE, at;

    pthread_mutex_lock(&bitmap->lock);
    if (offset < bitmap->length) {
        found = next_bit(bitmap, offset >> bitmap->shift, set);
    }
    pthread_mutex_unlock(&bitmap->lock);
    if (found == BY_BITS_NONE) {
        return UINT64_MAX;
    }
    at = found << bitmap->shift;
    return at > offset ? at : offset;
}

uint64_t by_bitmap_next_dirty(struct by_bitmap *bitmap, uint64_t offset)
{
    return next_byte(bitmap, offset, true);
}

uint64_t by_bitmap_next_clean(struct by_bitmap *bitmap, uint64_t offset)
{
    return next_byte(bitmap, offset, false);
}

uint64_t by_bitmap_status(struct by_bitmap *bitmap, uint64_t offset,
                          uint64_t bytes, bool *dirty)
{
    uint64_t end = 0;

    *dirty = false;
    pthread_mutex_lock(&bitmap->lock);
    if (offset < bitmap->length) {
        uint64_t at = offset >> bitmap->shift, next;

        *dirty = next_bit(bitmap, at, true) == at;
        next = next_bit(bitmap, at, !*dirty);
        end = next == BY_BITS_NONE ? bitmap->length : next << bitmap->shift;
    }
    pthread_mutex_unlock(&bitmap->lock);
    return end ? min64(bytes, end - offset) : 0;
}

/* ------------------------------------------------------------- merging */

/* What comes next of a bitmap: an area, or words.  In bits, from *at on,
 * which is left behind it; false at the end. */
struct portion {
    uint64_t first, last;   /* of an area; */
    bool in_words;          /* else of words, from first / 64 on */
    uint64_t words[SLICE_WORDS];
};

static bool take(struct by_bitmap *from, uint64_t *at, bool may_be_words,
                 struct portion *out)
{
    uint64_t first, end;

    pthread_mutex_lock(&from->lock);
    first = next_bit(from, *at, true);
    if (first == BY_BITS_NONE) {
        pthread_mutex_unlock(&from->lock);
        return false;
    }
    end = next_bit(from, first, false);
    if (end == BY_BITS_NONE) {
        end = bits_of(from);
    }
    out->first = first;
    out->last = end - 1;
    out->in_words = may_be_words && end - first < SLICE_BITS;
    *at = end;
    if (out->in_words) {
        out->first = first / 64 * 64;
        read_words(from, out->first / 64, SLICE_WORDS, out->words);
        *at = out->first + SLICE_BITS;
    }
    pthread_mutex_unlock(&from->lock);
    return true;
}

void by_bitmap_merge(struct by_bitmap *to, struct by_bitmap *from)
{
    bool alike = to->shift == from->shift;
    struct portion now;
    uint64_t at = 0;

    while (to != from && take(from, &at, alike, &now)) {
        pthread_mutex_lock(&to->lock);
        if (now.in_words) {
            add_words(to, now.first / 64, SLICE_WORDS, now.words);
        } else {
            set_range(to, now.first << from->shift,
                      (now.last - now.first + 1) << from->shift);
        }
        pthread_mutex_unlock(&to->lock);
    }
}

/* ------------------------------------------------------------- as bytes */

void by_bitmap_serialise(struct by_bitmap *bitmap, uint64_t at, void *out,
                         uint64_t bytes)
{
    char *to = out;

    for (uint64_t done = 0; done < bytes;) {
        uint64_t now = min64(bytes - done, SLICE_WORDS * 8);
        uint64_t words[SLICE_WORDS], count = (now + 7) / 8;

        pthread_mutex_lock(&bitmap->lock);
        read_words(bitmap, (at + done) / 8, count, words);
        pthread_mutex_unlock(&bitmap->lock);
        for (uint64_t i = 0; i < count; i++) {
            words[i] = htole64(words[i]);
        }
        memcpy(to + done, words, now);
        done += now;
    }
}

void by_bitmap_deserialise(struct by_bitmap *bitmap, uint64_t at,
                           const void *in, uint64_t bytes)
{
    const char *from = in;

    for (uint64_t done = 0; done < bytes;) {
        uint64_t now = min64(bytes - done, SLICE_WORDS * 8);
        uint64_t words[SLICE_WORDS + 1] = { 0 }, count = (now + 7) / 8;

        memcpy(words, from + done, now);
        for (uint64_t i = 0; i < count; i++) {
            words[i] = le64toh(words[i]);
        }
        pthread_mutex_lock(&bitmap->lock);
        add_words(bitmap, (at + done) / 8, count, words);
        pthread_mutex_unlock(&bitmap->lock);
        done += now;
    }
}
