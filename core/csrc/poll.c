/* SPDX-License-Identifier: Apache-2.0 */
/*
 * poll.c - spinning before sleeping.
 *
 * A loop that runs dry watches its pollers, its posts and its completion
 * queue for a short window before it sleeps, because being woken costs both
 * sides more than the next request usually takes to come.  Each wait teaches:
 *
 * - the wait would have been covered by poll_max_ns: the window grows, from
 *   4 us, by the factor poll_grow (default 2), up to poll_max_ns;
 * - it was longer: the window shrinks by poll_shrink (default 2), and below
 *   1 us it closes.
 *
 * The decision is taken on a mean in which the newest wait counts for
 * 1 / 2^poll_weight (default 3), so that one stray pause does not undo it; a
 * single wait counts for at most twice poll_max_ns.
 *
 * Spinning takes a processor from those who might do the awaited work, so it
 * backs off when processors are short.  Two rules:
 *
 * - no spinning at all on one processor, and never on more than all but one
 *   of them at a time (other processors are where the events come from);
 * - between two looks at the clock in the spin nothing long can happen except
 *   losing the processor: after a gap of 8 us the thread's count of
 *   involuntary context switches is read, and if it moved since it was last
 *   read, somebody needed this processor more.  Then there is no spinning
 *   for 1 ms; for double that, up to 16 ms, when it happens again before
 *   eight times the last hold have passed without it, else for half.
 */
#define _GNU_SOURCE
#include <sys/resource.h>

#include "loop_private.h"

static const uint64_t start_window = 4000;
static const uint64_t close_window = 1000;
static const uint64_t gap = 8000;
static const uint64_t first_hold = 1000000, last_hold = 16000000;
static const uint64_t calm = 8;   /* holds */

static _Atomic unsigned spinning;

static inline void relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield" ::: "memory");
#else
    __asm__ volatile("" ::: "memory");
#endif
}

void by_poller_add(struct by_loop *loop, struct by_poller *poller)
{
    poller->next = loop->pollers;
    loop->pollers = poller;
    if (loop->spin.active && poller->begin) {
        poller->begin(poller);
    }
}

void by_poller_remove(struct by_loop *loop, struct by_poller *poller)
{
    struct by_poller **at = &loop->pollers;

    while (*at && *at != poller) {
        at = &(*at)->next;
    }
    if (!*at) {
        return;
    }
    *at = poller->next;
    if (loop->spin.active && poller->end) {
        poller->end(poller);
    }
}

bool by_pollers_run(struct by_loop *loop)
{
    struct by_poller *poller = loop->pollers, *next;
    bool found = false;

    for (; poller; poller = next) {
        next = poller->next;   /* poll may remove its poller */
        found |= poller->poll(poller);
    }
    return found;
}

/* The peers stay silent from the first spin until the next sleep. */
static void pollers_begin(struct by_loop *loop)
{
    if (loop->spin.active) {
        return;
    }
    loop->spin.active = true;
    for (struct by_poller *p = loop->pollers, *next; p; p = next) {
        next = p->next;
        if (p->begin) {
            p->begin(p);
        }
    }
}

bool by_spin_end(struct by_loop *loop)
{
    bool found = false;

    if (!loop->spin.active) {
        return false;
    }
    loop->spin.active = false;
    for (struct by_poller *p = loop->pollers, *next; p; p = next) {
        next = p->next;
        if (p->end) {
            found |= p->end(p);
        }
    }
    return found;
}

static long preemptions(void)
{
    struct rusage usage;

    return getrusage(RUSAGE_THREAD, &usage) ? 0 : usage.ru_nivcsw;
}

static void hold(struct by_spin *spin, uint64_t now)
{
    bool soon = now - spin->held_until < calm * spin->penalty;

    if (spin->penalty < first_hold) {
        spin->penalty = first_hold;
    } else if (soon && spin->penalty < last_hold) {
        spin->penalty *= 2;
    } else if (!soon && spin->penalty > first_hold) {
        spin->penalty /= 2;
    }
    spin->held_until = now + spin->penalty;
}

/* A look at the clock after one turn; false: the processor was lost. */
static bool still_alone(struct by_spin *spin, uint64_t before, uint64_t now)
{
    long count;

    if (now - before < gap) {
        return true;
    }
    count = preemptions();
    if (count == spin->preempted) {
        return true;
    }
    spin->preempted = count;
    hold(spin, now);
    return false;
}

static bool something(struct by_loop *loop)
{
    return by_loop_posted(loop) || loop->backend->ready(loop)
        || by_pollers_run(loop);
}

/* Returns with `now` set to the end of the spin. */
static bool spin_until(struct by_loop *loop, uint64_t end, uint64_t *now)
{
    struct by_spin *spin = &loop->spin;
    bool found = false;

    while (!(found = something(loop)) && *now < end) {
        uint64_t before = *now;

        relax();
        *now = by_clock();
        if (!still_alone(spin, before, *now)) {
            found = something(loop);
            break;
        }
    }
    return found;
}

bool by_spin_wanted(struct by_loop *loop)
{
    struct by_spin *spin = &loop->spin;

    if (!spin->idle_since) {
        spin->idle_since = loop->now;
    }
    return spin->window && loop->now >= spin->held_until
        && atomic_load_explicit(&loop->poll_max_ns, memory_order_relaxed) > 0;
}

bool by_spin(struct by_loop *loop)
{
    struct by_spin *spin = &loop->spin;
    uint64_t now, end;
    bool found;

    if (atomic_fetch_add(&spinning, 1) + 1 >= by_processors()) {
        atomic_fetch_sub(&spinning, 1);
        return false;
    }
    spin->idle_since = now = by_clock();
    end = now + spin->window;
    if (by_timer_next(loop) < end) {
        end = by_timer_next(loop);
    }
    pollers_begin(loop);
    found = spin_until(loop, end, &now);
    atomic_fetch_sub(&spinning, 1);
    if (found) {
        loop->now = now;
        by_spin_learn(loop);
    }
    return found;
}

static void tell(const char *name, const struct by_loop *loop, uint64_t old)
{
    if (by_trace_on(name)) {
        by_trace(name, "%s old %llu new %llu", loop->name,
                 (unsigned long long)old,
                 (unsigned long long)loop->spin.window);
    }
}

static void grow(struct by_loop *loop, uint64_t max, int64_t factor)
{
    struct by_spin *spin = &loop->spin;
    uint64_t old = spin->window;

    spin->window = spin->window
        ? spin->window * (factor > 0 ? (uint64_t)factor : 2) : start_window;
    if (spin->window > max) {
        spin->window = max;
    }
    tell("poll_grow", loop, old);
}

static void shrink(struct by_loop *loop, int64_t divisor)
{
    struct by_spin *spin = &loop->spin;
    uint64_t old = spin->window;

    if (!old) {
        return;
    }
    spin->window /= divisor > 0 ? (uint64_t)divisor : 2;
    if (spin->window < close_window) {
        spin->window = 0;
    }
    tell("poll_shrink", loop, old);
}

void by_spin_learn(struct by_loop *loop)
{
    struct by_spin *spin = &loop->spin;
    uint64_t max = (uint64_t)atomic_load_explicit(&loop->poll_max_ns,
                                                  memory_order_relaxed);
    int64_t weight = atomic_load_explicit(&loop->poll_weight,
                                          memory_order_relaxed);
    uint64_t waited;

    if (!spin->idle_since) {
        return;
    }
    waited = loop->now > spin->idle_since ? loop->now - spin->idle_since : 0;
    spin->idle_since = 0;
    if (waited > 2 * max) {
        waited = 2 * max;
    }
    weight = weight > 0 && weight < 32 ? weight : 3;
    spin->average += (waited >> weight);
    spin->average -= spin->average >> weight;
    if (spin->average > max) {
        shrink(loop, atomic_load(&loop->poll_shrink));
    } else if (waited > spin->window && waited <= max) {
        grow(loop, max, atomic_load(&loop->poll_grow));
    }
}
