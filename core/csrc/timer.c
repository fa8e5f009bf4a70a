/* SPDX-License-Identifier: Apache-2.0 */
/*
 * timer.c - a loop's timers: a pairing heap threaded through the ios, so that
 * arming allocates nothing and cancelling is cheap.  The backend only ever
 * gets the nearest deadline, as the limit of its wait.
 *
 * links.child is the first child, links.next the next sibling, links.prev the
 * previous sibling or, for a first child, the parent.
 */
#include "loop_private.h"

static struct by_io *meld(struct by_io *a, struct by_io *b)
{
    if (!a || !b) {
        return a ? a : b;
    }
    if (b->offset < a->offset) {
        struct by_io *swap = a;
        a = b;
        b = swap;
    }
    by_links(b)->prev = a;
    by_links(b)->next = by_links(a)->child;
    if (by_links(a)->child) {
        by_links(by_links(a)->child)->prev = b;
    }
    by_links(a)->child = b;
    by_links(a)->next = by_links(a)->prev = NULL;
    return a;
}

/* Two passes, without recursion: pairs from the left are stacked through
 * next, then melded from the right. */
static struct by_io *meld_children(struct by_io *first)
{
    struct by_io *stack = NULL, *root = NULL;

    while (first) {
        struct by_io *second = by_links(first)->next;
        struct by_io *rest = second ? by_links(second)->next : NULL;
        struct by_io *pair;

        by_links(first)->next = by_links(first)->prev = NULL;
        if (second) {
            by_links(second)->next = by_links(second)->prev = NULL;
        }
        pair = meld(first, second);
        by_links(pair)->next = stack;
        stack = pair;
        first = rest;
    }
    while (stack) {
        struct by_io *rest = by_links(stack)->next;

        by_links(stack)->next = NULL;
        root = meld(root, stack);
        stack = rest;
    }
    return root;
}

void by_timer_add(struct by_loop *loop, struct by_io *io)
{
    struct by_io_links *links = by_links(io);

    links->child = links->next = links->prev = NULL;
    BY_IO_STATE(io) = IO_TIMER;
    loop->timers = meld(loop->timers, io);
}

void by_timer_remove(struct by_loop *loop, struct by_io *io)
{
    struct by_io_links *links = by_links(io);
    struct by_io *children = meld_children(links->child);

    if (loop->timers == io) {
        loop->timers = children;
        return;
    }
    if (by_links(links->prev)->child == io) {
        by_links(links->prev)->child = links->next;
    } else {
        by_links(links->prev)->next = links->next;
    }
    if (links->next) {
        by_links(links->next)->prev = links->prev;
    }
    loop->timers = meld(loop->timers, children);
}

/* Those due at the round's time; one armed by a done callback for a time
 * already past runs in the next round, so that others get their turn. */
unsigned by_timer_run(struct by_loop *loop)
{
    unsigned count = 0;

    while (loop->timers && loop->timers->offset <= loop->now) {
        struct by_io *io = loop->timers;

        by_timer_remove(loop, io);
        by_io_ready(loop, io, 0);
        count++;
    }
    return count;
}
