/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bits.h - a set of bits, most of which are alike: what nobody set takes no
 * memory, and neither does what is set as a whole.
 *
 * It is a tree of nodes with 64 parts each; those of the lowest hold words.
 * Each node knows of its parts which have a bit and which lack none, so the
 * next bit and the next gap are found without looking at what lies between.
 * There is no lock here.  Memory that is out sets more bits than were asked
 * for, never less.
 */
#ifndef BLOCKYARD_BITS_H
#define BLOCKYARD_BITS_H

#include <stdbool.h>
#include <stdint.h>

#define BY_BITS_NONE UINT64_MAX

struct by_bits_node {
    uint64_t any;   /* parts with a bit */
    uint64_t full;  /* parts with all bits: they have no child */
    union {
        struct by_bits_node *child[64]; /* where any is set and full is not */
        uint64_t word[64];              /* in the lowest */
    };
};

struct by_bits {
    uint64_t set;   /* how many */
    int levels;     /* of nodes below and with top */
    struct by_bits_node top;
};

/* For 2^width bits, at most 54: none is set. */
void by_bits_init(struct by_bits *bits, unsigned width);
/* Leaves it as by_bits_init does. */
void by_bits_clear(struct by_bits *bits);
/* `to` is initialised alike and empty; false, and still empty: no memory. */
bool by_bits_copy(struct by_bits *to, const struct by_bits *from);
void by_bits_swap(struct by_bits *a, struct by_bits *b);

/* Set first..last. */
void by_bits_set(struct by_bits *bits, uint64_t first, uint64_t last);
/* Clear all from `first` on; those that memory is out for stay. */
void by_bits_cut(struct by_bits *bits, uint64_t first);
/* The first bit from `from` on that is set, or clear; or BY_BITS_NONE. */
uint64_t by_bits_next_set(const struct by_bits *bits, uint64_t from);
uint64_t by_bits_next_clear(const struct by_bits *bits, uint64_t from);

/* 64 bits at a time: the words first..first + count - 1. */
void by_bits_read(const struct by_bits *bits, uint64_t first, uint64_t count,
                  uint64_t *out);
void by_bits_add(struct by_bits *bits, uint64_t first, uint64_t count,
                 const uint64_t *in);

#endif /* BLOCKYARD_BITS_H */
