/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bits.c - the tree of bits.h.
 *
 * A node on level n has 64 parts of 2^(6n) bits; level 1 is the lowest.
 * Recursion is as deep as the tree, eight levels at most.
 */
#include <stdlib.h>
#include <string.h>

#include "bits.h"

#define ALL UINT64_MAX

static inline uint64_t bit(unsigned i)
{
    return 1ull << i;
}

static inline uint64_t min64(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* The bits from..to of a word. */
static inline uint64_t span(unsigned from, unsigned to)
{
    return (ALL << from) & (ALL >> (63 - to));
}

static inline bool is_set(uint64_t mask, unsigned i)
{
    return mask >> i & 1;
}

/* Bits of one part of a node on this level. */
static inline uint64_t part_bits(int level)
{
    return 1ull << (6 * level);
}

static void free_node(struct by_bits_node *node, int level);

static void free_parts(struct by_bits_node *node, int level)
{
    uint64_t parts = level > 1 ? node->any & ~node->full : 0;

    for (; parts; parts &= parts - 1) {
        free_node(node->child[__builtin_ctzll(parts)], level - 1);
    }
}

static void free_node(struct by_bits_node *node, int level)
{
    free_parts(node, level);
    free(node);
}

static uint64_t count_node(const struct by_bits_node *node, int level)
{
    uint64_t parts = node->any & ~node->full;
    uint64_t count = __builtin_popcountll(node->full) * part_bits(level);

    for (; parts; parts &= parts - 1) {
        unsigned i = __builtin_ctzll(parts);

        count += level > 1 ? count_node(node->child[i], level - 1)
                           : (uint64_t)__builtin_popcountll(node->word[i]);
    }
    return count;
}

void by_bits_init(struct by_bits *bits, unsigned width)
{
    memset(bits, 0, sizeof(*bits));
    bits->levels = width > 12 ? (width - 1) / 6 : 1;
}

void by_bits_clear(struct by_bits *bits)
{
    int levels = bits->levels;

    free_parts(&bits->top, levels);
    memset(bits, 0, sizeof(*bits));
    bits->levels = levels;
}

void by_bits_swap(struct by_bits *a, struct by_bits *b)
{
    struct by_bits held = *a;

    *a = *b;
    *b = held;
}

/* ------------------------------------------------------------- setting */

/* A part whose bits are all set from now on; how many were not. */
static uint64_t fill_part(struct by_bits_node *node, int level, unsigned i)
{
    uint64_t before = 0;

    if (level > 1 && is_set(node->any, i)) {
        before = count_node(node->child[i], level - 1);
        free_node(node->child[i], level - 1);
        node->child[i] = NULL;
    } else if (level == 1) {
        before = __builtin_popcountll(node->word[i]);
        node->word[i] = ALL;
    }
    node->any |= bit(i);
    node->full |= bit(i);
    return part_bits(level) - before;
}

/* The child of a part that is not full, made if need be; null: no memory. */
static struct by_bits_node *child_of(struct by_bits_node *node, unsigned i)
{
    if (!is_set(node->any, i)) {
        node->child[i] = calloc(1, sizeof(*node));
        if (!node->child[i]) {
            return NULL;
        }
        node->any |= bit(i);
    }
    return node->child[i];
}

/* A part that is full has no child. */
static void fold(struct by_bits_node *node, unsigned i)
{
    if (node->child[i]->full == ALL) {
        free(node->child[i]);
        node->child[i] = NULL;
        node->full |= bit(i);
    }
}

static uint64_t set_word(struct by_bits_node *node, unsigned i, uint64_t more)
{
    uint64_t before = node->word[i];

    node->word[i] |= more;
    node->any |= bit(i);
    if (node->word[i] == ALL) {
        node->full |= bit(i);
    }
    return __builtin_popcountll(node->word[i] & ~before);
}

/* Set from..to, counted from the node's first bit; how many were not. */
static uint64_t set_node(struct by_bits_node *node, int level, uint64_t from,
                         uint64_t to)
{
    uint64_t bits = part_bits(level), added = 0;

    for (unsigned i = from / bits; i <= to / bits; i++) {
        uint64_t base = i * bits;
        uint64_t first = from > base ? from - base : 0;
        uint64_t last = min64(to - base, bits - 1);
        struct by_bits_node *child;

        if (is_set(node->full, i)) {
            continue;
        }
        if (first == 0 && last == bits - 1) {
            added += fill_part(node, level, i);
        } else if (level == 1) {
            added += set_word(node, i, span(first, last));
        } else if ((child = child_of(node, i))) {
            added += set_node(child, level - 1, first, last);
            fold(node, i);
        } else {
            added += fill_part(node, level, i);
        }
    }
    return added;
}

void by_bits_set(struct by_bits *bits, uint64_t first, uint64_t last)
{
    bits->set += set_node(&bits->top, bits->levels, first, last);
}

static uint64_t add_word(struct by_bits_node *node, int level, uint64_t index,
                         uint64_t more)
{
    unsigned i = index >> (6 * (level - 1)) & 63;
    struct by_bits_node *child;
    uint64_t added;

    if (is_set(node->full, i)) {
        return 0;
    }
    if (level == 1) {
        return set_word(node, i, more);
    }
    child = child_of(node, i);
    if (!child) {
        return fill_part(node, level, i);
    }
    added = add_word(child, level - 1, index, more);
    fold(node, i);
    return added;
}

void by_bits_add(struct by_bits *bits, uint64_t first, uint64_t count,
                 const uint64_t *in)
{
    for (uint64_t i = 0; i < count; i++) {
        if (in[i]) {
            bits->set += add_word(&bits->top, bits->levels, first + i, in[i]);
        }
    }
}

/* ------------------------------------------------------------ clearing */

/* A full part becomes a child with every bit set. */
static struct by_bits_node *unfold(struct by_bits_node *node, int level,
                                   unsigned i)
{
    struct by_bits_node *child = calloc(1, sizeof(*child));

    if (child) {
        child->any = child->full = ALL;
        if (level == 2) {
            memset(child->word, 0xff, sizeof(child->word));
        }
        node->child[i] = child;
        node->full &= ~bit(i);
    }
    return child;
}

static uint64_t drop_parts(struct by_bits_node *node, int level,
                           uint64_t which)
{
    uint64_t parts = node->any & which, removed = 0;

    for (; parts; parts &= parts - 1) {
        unsigned i = __builtin_ctzll(parts);

        if (level == 1) {
            removed += __builtin_popcountll(node->word[i]);
            node->word[i] = 0;
        } else if (is_set(node->full, i)) {
            removed += part_bits(level);
        } else {
            removed += count_node(node->child[i], level - 1);
            free_node(node->child[i], level - 1);
            node->child[i] = NULL;
        }
    }
    node->any &= ~which;
    node->full &= ~which;
    return removed;
}

static uint64_t cut_word(struct by_bits_node *node, unsigned i, unsigned from)
{
    uint64_t gone = node->word[i] & (ALL << from);

    node->word[i] &= ~gone;
    if (gone) {
        node->full &= ~bit(i);
    }
    if (!node->word[i]) {
        node->any &= ~bit(i);
    }
    return __builtin_popcountll(gone);
}

static uint64_t cut_node(struct by_bits_node *node, int level, uint64_t from)
{
    unsigned i = from / part_bits(level);
    uint64_t into = from % part_bits(level), removed;
    struct by_bits_node *child;

    if (into == 0) {
        return drop_parts(node, level, ALL << i);
    }
    removed = i < 63 ? drop_parts(node, level, ALL << (i + 1)) : 0;
    if (!is_set(node->any, i)) {
        return removed;
    }
    if (level == 1) {
        return removed + cut_word(node, i, into);
    }
    child = is_set(node->full, i) ? unfold(node, level, i) : node->child[i];
    if (child) {
        removed += cut_node(child, level - 1, into);
        if (!child->any) {
            drop_parts(node, level, bit(i));
        }
    }
    return removed;
}

void by_bits_cut(struct by_bits *bits, uint64_t first)
{
    if (first < 64 * part_bits(bits->levels)) {
        bits->set -= cut_node(&bits->top, bits->levels, first);
    }
}

/* ------------------------------------------------------------- looking */

/* Of those of the parts from i on, the first; 64: none. */
static unsigned first_from(uint64_t parts, unsigned i)
{
    parts = i < 64 ? parts & (ALL << i) : 0;
    return parts ? (unsigned)__builtin_ctzll(parts) : 64;
}

static uint64_t next_in_word(uint64_t word, unsigned from)
{
    unsigned i = first_from(word, from);

    return i < 64 ? i : BY_BITS_NONE;
}

static uint64_t next_set(const struct by_bits_node *node, int level,
                         uint64_t from)
{
    uint64_t bits = part_bits(level), into = from % bits;
    unsigned i = from / bits;

    for (; (i = first_from(node->any, i)) < 64; i++, into = 0) {
        uint64_t base = i * bits, found;

        if (base > from) {
            into = 0;
        }
        if (is_set(node->full, i)) {
            return base + into;
        }
        found = level == 1 ? next_in_word(node->word[i], into)
                           : next_set(node->child[i], level - 1, into);
        if (found != BY_BITS_NONE) {
            return base + found;
        }
    }
    return BY_BITS_NONE;
}

static uint64_t next_clear(const struct by_bits_node *node, int level,
                           uint64_t from)
{
    uint64_t bits = part_bits(level), into = from % bits;
    unsigned i = from / bits;

    for (; (i = first_from(~node->full, i)) < 64; i++, into = 0) {
        uint64_t base = i * bits, found;

        if (base > from) {
            into = 0;
        }
        if (!is_set(node->any, i)) {
            return base + into;
        }
        found = level == 1 ? next_in_word(~node->word[i], into)
                           : next_clear(node->child[i], level - 1, into);
        if (found != BY_BITS_NONE) {
            return base + found;
        }
    }
    return BY_BITS_NONE;
}

static bool is_inside(const struct by_bits *bits, uint64_t from)
{
    return from >> 6 < part_bits(bits->levels);
}

uint64_t by_bits_next_set(const struct by_bits *bits, uint64_t from)
{
    return is_inside(bits, from) ? next_set(&bits->top, bits->levels, from)
                                 : BY_BITS_NONE;
}

uint64_t by_bits_next_clear(const struct by_bits *bits, uint64_t from)
{
    return is_inside(bits, from) ? next_clear(&bits->top, bits->levels, from)
                                 : BY_BITS_NONE;
}

static void read_node(const struct by_bits_node *node, int level,
                      uint64_t first, uint64_t count, uint64_t *out)
{
    uint64_t words = part_bits(level) / 64;

    while (count) {
        unsigned i = first / words;
        uint64_t now = min64(count, words - first % words);

        if (is_set(node->full, i)) {
            memset(out, 0xff, now * sizeof(*out));
        } else if (!is_set(node->any, i)) {
            memset(out, 0, now * sizeof(*out));
        } else if (level == 1) {
            *out = node->word[i];
        } else {
            read_node(node->child[i], level - 1, first % words, now, out);
        }
        first += now;
        count -= now;
        out += now;
    }
}

void by_bits_read(const struct by_bits *bits, uint64_t first, uint64_t count,
                  uint64_t *out)
{
    read_node(&bits->top, bits->levels, first, count, out);
}

/* ------------------------------------------------------------- copying */

static bool copy_parts(struct by_bits_node *to, const struct by_bits_node *from,
                       int level)
{
    uint64_t parts = from->any & ~from->full;

    to->any = to->full = from->full;
    for (; parts; parts &= parts - 1) {
        unsigned i = __builtin_ctzll(parts);

        to->child[i] = calloc(1, sizeof(*to));
        if (!to->child[i]) {
            return false;
        }
        to->any |= bit(i);
        if (level == 2) {
            *to->child[i] = *from->child[i];
        } else if (!copy_parts(to->child[i], from->child[i], level - 1)) {
            return false;
        }
    }
    return true;
}

bool by_bits_copy(struct by_bits *to, const struct by_bits *from)
{
    if (from->levels == 1) {
        to->top = from->top;
    } else if (!copy_parts(&to->top, &from->top, from->levels)) {
        by_bits_clear(to);
        return false;
    }
    to->set = from->set;
    return true;
}
