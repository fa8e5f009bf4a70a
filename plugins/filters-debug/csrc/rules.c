/* SPDX-License-Identifier: Apache-2.0 */
/*
 * rules.c - the rules of blkdebug, and the number that is its state.
 *
 * An event goes through the rules that name it and suit the state as it was
 * before.  Errors to inject become active, in the place of those that were
 * active before; an event without such a rule leaves those alone.  Of several
 * new states the one of the rule that was defined first holds.  A request
 * meets the first active error, in the order of their definition, that is of
 * its kind and at its place (QEMU, docs/devel/testing/blkdebug.rst).
 */
#include <errno.h>
#include <stdlib.h>

#include "debug.h"

struct by_blkdebug *by_blkdebug_create(
    const struct by_blkdebug_settings *settings)
{
    struct by_blkdebug *debug = calloc(1, sizeof(*debug));

    if (debug) {
        debug->settings = *settings;
        debug->state = 1;
        pthread_mutex_init(&debug->lock, NULL);
    }
    return debug;
}

int by_blkdebug_add(struct by_blkdebug *debug,
                    const struct by_blkdebug_rule *rule)
{
    struct by_rule *new = calloc(1, sizeof(*new));

    if (!new) {
        return -ENOMEM;
    }
    new->rule = *rule;
    pthread_mutex_lock(&debug->lock);
    new->next = debug->rules;
    debug->rules = new;
    pthread_mutex_unlock(&debug->lock);
    return 0;
}

void by_rules_free(struct by_blkdebug *debug)
{
    while (debug->rules) {
        struct by_rule *rule = debug->rules;

        debug->rules = rule->next;
        free(rule);
    }
}

/* Under lock: it is in no list of active ones any more. */
static void drop(struct by_blkdebug *debug, struct by_rule *rule)
{
    struct by_rule **at = &debug->rules;

    while (*at != rule) {
        at = &(*at)->next;
    }
    *at = rule->next;
    free(rule);
}

bool by_rules_drop_break(struct by_blkdebug *debug, uint64_t id)
{
    for (struct by_rule *rule = debug->rules; rule; rule = rule->next) {
        if (rule->rule.action == BY_BLKDEBUG_SUSPEND && rule->rule.id == id) {
            drop(debug, rule);
            return true;
        }
    }
    return false;
}

void by_rules_event(struct by_blkdebug *debug, uint32_t event,
                    void (*hit)(void *arg, uint64_t id), void *arg)
{
    int64_t new_state = debug->state;
    bool injects = false;
    struct by_rule *rule, *next;

    for (rule = debug->rules; rule; rule = next) {
        const struct by_blkdebug_rule *r = &rule->rule;

        next = rule->next;
        if (r->event != event || (r->state && r->state != debug->state)
            || (r->action == BY_BLKDEBUG_SUSPEND && debug->drains)) {
            continue;
        }
        switch (r->action) {
        case BY_BLKDEBUG_INJECT:
            rule->next_active = injects ? debug->active : NULL;
            __atomic_store_n(&debug->active, rule, __ATOMIC_RELAXED);
            injects = true;
            break;
        case BY_BLKDEBUG_SET_STATE:
            new_state = r->new_state;
            break;
        default:
            hit(arg, r->id);
            drop(debug, rule);
        }
    }
    debug->state = new_state;
}

static bool meets(const struct by_blkdebug_rule *rule, uint32_t iotype,
                  uint64_t offset, uint64_t bytes)
{
    return (rule->iotypes & iotype)
        && (rule->offset == -1
            || (rule->offset >= 0 && (uint64_t)rule->offset >= offset
                && (uint64_t)rule->offset - offset < bytes));
}

int by_blkdebug_check(struct by_blkdebug *debug, uint32_t iotype,
                      uint64_t offset, uint64_t bytes, uint64_t *delay_ns,
                      bool *immediately)
{
    struct by_rule **at, *rule;
    int error = 0;

    *delay_ns = 0;
    *immediately = true;
    if (!__atomic_load_n(&debug->active, __ATOMIC_RELAXED)) {
        return 0;
    }
    pthread_mutex_lock(&debug->lock);
    for (at = &debug->active; *at; at = &(*at)->next_active) {
        if (meets(&(*at)->rule, iotype, offset, bytes)) {
            break;
        }
    }
    rule = *at;
    if (rule) {
        error = rule->rule.error;
        *delay_ns = rule->rule.delay_ns;
        *immediately = rule->rule.immediately;
        if (rule->rule.once) {
            __atomic_store_n(at, rule->next_active, __ATOMIC_RELAXED);
            drop(debug, rule);
        }
    }
    pthread_mutex_unlock(&debug->lock);
    return -error;
}
