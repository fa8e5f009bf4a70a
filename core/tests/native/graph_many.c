/* SPDX-License-Identifier: Apache-2.0 */
/*
 * graph_many.c - one node that several loops use at the same time, each with
 * many requests under way, while the test drains, truncates, changes settings,
 * reads statistics and works on the node's dirty bitmaps.
 *
 * Each loop owns every third sector-and-a-half of the disk, so that the
 * blocks at the borders are shared and only the gate keeps the rewrites of
 * one loop from losing the bytes of another.
 *
 * Usage: graph_many SEED [ring|epoll]; exits 0 when every check held.
 */
#include "graph_world.h"

enum { LOOPS = 3, WINDOW = 6, STRIPE = 700, STRIPES = 150, TURNS = 1500,
       SMALL = STRIPE * STRIPES };

struct many;

/* One loop's user: WINDOW requests at a time, each on a stripe of its own. */
struct slot {
    struct by_request req;
    struct user *user;
    struct iovec iov;
    unsigned stripe;
    unsigned char bytes[STRIPE];
};

struct user {
    struct many *many;
    struct by_task task;
    struct by_root *root;
    uint64_t random;
    unsigned number, left, running;
    bool growing;
    uint64_t grown;
    struct slot slots[WINDOW];
};

struct many {
    struct world w;
    struct by_loop *loops[LOOPS];
    struct user users[LOOPS];
    unsigned char model[SMALL];   /* by stripe, its owner's */
    uint64_t top;                 /* growing: the highest end so far */
    unsigned left;                /* users at work */
    bool truncating;
    struct by_bitmap *always;     /* attached all the time, */
    struct by_bitmap *now;        /* now and then, and */
    struct by_bitmap *merged;     /* never */
};

static unsigned draw(struct user *u, unsigned below)
{
    u->random ^= u->random << 13;
    u->random ^= u->random >> 7;
    u->random ^= u->random << 17;
    return u->random % below;
}

static void submit_next(struct slot *slot);

static bool is_free(const struct user *u, const struct slot *own,
                    unsigned stripe)
{
    for (int i = 0; i < WINDOW; i++) {
        if (&u->slots[i] != own && u->slots[i].stripe == stripe) {
            return false;
        }
    }
    return true;
}

static void check_slot(struct slot *slot, int result)
{
    struct many *m = slot->user->many;

    CHECK(result == 0);
    if (slot->req.op == BY_OP_READ && !slot->user->growing) {
        CHECK(!memcmp(slot->bytes, m->model + slot->req.offset,
                      slot->req.bytes));
    }
}

static void ended(struct by_request *req, int result)
{
    struct slot *slot = req->owner;
    struct user *u = slot->user;

    check_slot(slot, result);
    u->running--;
    if (u->left) {
        submit_next(slot);
    } else if (!u->running) {
        by_event_done(100 + u->number, 0);
    }
}

static void fill_in_place(struct slot *slot)
{
    static const uint8_t ops[] = {
        BY_OP_READ, BY_OP_READ, BY_OP_WRITE, BY_OP_WRITE, BY_OP_WRITE,
        BY_OP_WRITE_ZEROES, BY_OP_FLUSH,
    };
    struct user *u = slot->user;
    struct by_request *req = &slot->req;
    unsigned char *model;

    do {
        slot->stripe = draw(u, STRIPES / LOOPS) * LOOPS + u->number;
    } while (!is_free(u, slot, slot->stripe));
    req->op = ops[draw(u, sizeof(ops))];
    req->offset = slot->stripe * STRIPE;
    req->bytes = 1 + draw(u, STRIPE);
    req->offset += draw(u, STRIPE - req->bytes + 1);
    model = u->many->model + req->offset;
    if (req->op == BY_OP_WRITE) {
        memset(slot->bytes, draw(u, 4) ? draw(u, 256) : 0, req->bytes);
        memcpy(model, slot->bytes, req->bytes);
    } else if (req->op == BY_OP_WRITE_ZEROES) {
        memset(model, 0, req->bytes);
    } else if (req->op == BY_OP_FLUSH) {
        req->offset = req->bytes = 0;
    }
    if (draw(u, 16) == 0) {
        req->flags = BY_REQ_SERIALISING;
    }
}

/* The disk's end is everybody's. */
static void fill_at_the_end(struct slot *slot)
{
    struct by_request *req = &slot->req;

    req->op = BY_OP_WRITE;
    req->bytes = 8;
    req->offset = __atomic_fetch_add(&slot->user->many->top, 8,
                                     __ATOMIC_RELAXED);
}

static void submit_next(struct slot *slot)
{
    struct user *u = slot->user;
    int result;

    do {
        slot->req = (struct by_request) {
            .size = sizeof(slot->req), .loop = by_loop_current(),
            .done = ended, .owner = slot, .iov = &slot->iov, .niov = 1,
        };
        slot->iov = (struct iovec) { slot->bytes, STRIPE };
        (u->growing ? fill_at_the_end : fill_in_place)(slot);
        u->left--;
        result = by_root_submit(u->root, &slot->req);
        if (result != BY_PENDING) {
            check_slot(slot, result);
        }
    } while (result != BY_PENDING && u->left);
    u->running += result == BY_PENDING;
}

static void begin(struct by_task *task)
{
    struct user *u = task->owner;

    for (int i = 0; i < WINDOW && u->left; i++) {
        u->slots[i].user = u;
        submit_next(&u->slots[i]);
    }
    if (!u->running) {
        by_event_done(100 + u->number, 0);
    }
}

static void open_bitmaps(struct many *m)
{
    m->always = by_bitmap_create(512, 0);
    m->now = by_bitmap_create(4096, 0);
    m->merged = by_bitmap_create(512, by_node_get_length(m->w.base));
    by_bitmap_attach(m->always, m->w.base);
}

static void open_many(struct many *m, uint32_t align, bool later,
                      bool through_home, bool growing)
{
    memset(m, 0, sizeof(*m));
    m->left = LOOPS;
    open_world(&m->w, through_home ? &plain_ops : &busy_ops, align, 0, later);
    by_node_set_length(m->w.base, growing ? 0 : SMALL);
    by_node_set_length(m->w.top, growing ? 0 : SMALL);
    for (unsigned i = 0; i < LOOPS; i++) {
        struct user *u = &m->users[i];

        m->loops[i] = by_loop_create("many", NULL, NULL);
        CHECK(m->loops[i]);
        u->many = m;
        u->number = i;
        u->random = rng() | 1;
        u->left = TURNS;
        u->growing = growing;
        u->root = by_root_create(i % 2 || growing ? m->w.base : m->w.top);
        by_root_set_writable(u->root, true, growing);
        for (int k = 0; k < WINDOW; k++) {
            u->slots[k].stripe = UINT32_MAX;
        }
        u->task = (struct by_task) { .run = begin, .owner = u };
    }
    open_bitmaps(m);
    for (int i = 0; i < LOOPS; i++) {
        by_loop_post(m->loops[i], &m->users[i].task);
    }
}

static void close_bitmaps(struct many *m)
{
    by_bitmap_free(m->now);
    by_bitmap_free(m->always);
    by_bitmap_free(m->merged);
}

static void close_many(struct many *m)
{
    for (int i = 0; i < LOOPS; i++) {
        CHECK(by_root_free(m->users[i].root, 6) == 0);
        wait_event(6, 0);
    }
    close_bitmaps(m);
    close_world(&m->w);
    for (int i = 0; i < LOOPS; i++) {
        by_loop_destroy(m->loops[i], 7);
        wait_event(7, 0);
    }
}

static void note(struct many *m, const struct by_event *event)
{
    CHECK(event->result == 0);
    m->left -= event->tag >= 100 && event->tag < 100 + LOOPS;
    m->truncating &= event->tag != 30;
}

static void wait_noting(struct many *m, uint64_t tag)
{
    struct by_event event;

    do {
        event = next_event();
        note(m, &event);
    } while (event.tag != tag);
}

static void take_one(struct many *m)
{
    struct by_event event;

    if (by_event_take(&event, 1) == 1) {
        note(m, &event);
    }
}

static void check_idle(struct many *m)
{
    struct by_stats stats;

    by_node_get_stats(m->w.base, &stats);
    CHECK(stats.in_flight == 0);
    by_node_get_stats(m->w.top, &stats);
    CHECK(stats.in_flight == 0);
    for (int i = 0; i < LOOPS; i++) {
        by_root_get_stats(m->users[i].root, &stats);
        CHECK(stats.in_flight == 0);
    }
}

/* A drain now and then, nested now and then; inside it nothing moves. */
static void drain_once(struct many *m)
{
    struct by_root *roots[LOOPS];
    struct by_node *nodes[2] = { m->w.top, m->w.base };
    bool twice = rng() % 3 == 0;
    uint64_t submitted;

    for (int i = 0; i < LOOPS; i++) {
        roots[i] = m->users[i].root;
    }
    CHECK(by_drain_begin(roots, LOOPS, nodes, 2, 20) == 0);
    if (twice) {
        CHECK(by_drain_begin(roots, 1, nodes + 1, 1, 21) == 0);
        wait_noting(m, 21);
        CHECK(by_drain_end(roots, 1, nodes + 1, 1, 22) == 0);
    } else {
        wait_noting(m, 20);
        check_idle(m);
        submitted = __atomic_load_n(&m->w.memory.submitted, __ATOMIC_RELAXED);
        usleep(rng() % 300);
        CHECK(submitted == __atomic_load_n(&m->w.memory.submitted,
                                           __ATOMIC_RELAXED));
    }
    CHECK(by_drain_end(roots, LOOPS, nodes, 2, 23) == 0);
    wait_noting(m, 23);
}

/* From the control thread, while requests run. */
static void disturb(struct many *m)
{
    struct by_stats stats;

    by_node_set_detect_zeroes(m->w.base, rng() % 3);
    by_node_set_threshold(m->w.base, rng() % SMALL, 0);
    by_node_set_discard(m->w.base, rng() % 2);
    by_node_set_no_flush(m->w.base, rng() % 2);
    by_root_set_writethrough(m->users[0].root, rng() % 2);
    by_node_get_stats(m->w.base, &stats);
    by_root_get_stats(m->users[0].root, &stats);
    usleep(rng() % 500);
}

/* None of this makes a bit of `always` and `merged` together get lost. */
static void use_bitmaps(struct many *m)
{
    static unsigned char bytes[64];
    bool dirty;

    switch (rng() % 8) {
    case 0:
        by_bitmap_attach(m->now, m->w.base);
        break;
    case 1:
        by_bitmap_detach(m->now);
        break;
    case 2:
        by_bitmap_set_enabled(m->now, rng() % 2);
        break;
    case 3:
        by_bitmap_merge(m->now, m->always);
        break;
    case 4:
        by_bitmap_clear(m->now);
        break;
    case 5: {
        struct by_bitmap *held = by_bitmap_create(512, DISK);

        by_bitmap_swap(m->always, held);
        by_bitmap_merge(m->merged, held);
        by_bitmap_free(held);
        break;
    }
    case 6:
        by_bitmap_serialise(m->always, 0, bytes, sizeof(bytes));
        break;
    default:
        by_bitmap_status(m->always, rng() % SMALL, SMALL, &dirty);
    }
}

/* Beyond all stripes: it waits for each rewrite of the last block. */
static void truncate_start(struct many *m)
{
    struct by_access access = {
        .op = BY_OP_TRUNCATE, .offset = SMALL + rng() % 5000, .tag = 30,
    };

    m->truncating = true;
    CHECK(by_access_start(m->w.root, false, &access, NULL) == 0);
}

static void test_one_disk(uint32_t align, bool later, bool through_home)
{
    static struct many m;

    open_many(&m, align, later, through_home, false);
    by_root_set_node(m.w.root, m.w.base);
    while (m.left || m.truncating) {
        if (m.left && !m.truncating && rng() % 2) {
            truncate_start(&m);
        }
        if (rng() % 2) {
            drain_once(&m);
        } else {
            disturb(&m);
        }
        use_bitmaps(&m);
        take_one(&m);
    }
    by_bitmap_merge(m.merged, m.always);
    for (unsigned i = 0; i < SMALL; i++) {
        bool dirty = false;

        by_bitmap_status(m.merged, i, 1, &dirty);
        CHECK(dirty || !m.model[i]);
    }
    CHECK(!memcmp(m.model, m.w.memory.bytes, SMALL));
    close_many(&m);
}

/* The length only grows, and ends where the last write did. */
static void test_growing(bool later)
{
    static struct many m;
    uint64_t length = 0;

    open_many(&m, 0, later, false, true);
    while (m.left) {
        uint64_t now = by_node_get_length(m.w.base);

        CHECK(now >= length);
        length = now;
        take_one(&m);
    }
    CHECK(by_node_get_length(m.w.base) == m.top);
    CHECK(m.top == 8ull * LOOPS * TURNS);
    CHECK(by_bitmap_length(m.always) == m.top);
    CHECK(by_bitmap_next_clean(m.always, 0) == UINT64_MAX);
    close_many(&m);
}

int main(int argc, char **argv)
{
    rng_state = argc > 1 ? strtoull(argv[1], NULL, 0) | 1 : 88172645463325252u;
    CHECK(by_start(argc > 2 && !strcmp(argv[2], "epoll")) == 0);
    for (int later = 0; later < 2; later++) {
        test_growing(later);
        test_one_disk(512, later, false);
        test_one_disk(0, later, false);
        test_one_disk(512, later, true);
    }
    by_stop();
    puts("ok");
    return 0;
}
