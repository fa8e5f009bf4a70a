/* SPDX-License-Identifier: Apache-2.0 */
/*
 * debug_test.c - the debug events of writes: which, in which order, who hears
 * them, and that a request whose event is held goes on when it is let go.
 *
 * Usage: debug_test SEED [ring|epoll]; exits 0 when every check held.
 */
#include "graph_world.h"

#define MOST 64

static struct {
    pthread_mutex_t lock;
    uint32_t events[MOST];
    int count;
    uint32_t hold;              /* the event to be held; COUNT: none */
    struct by_task *held;
    struct by_loop *loop;
    uint64_t tag;               /* tells that one is held */
} heard = { .lock = PTHREAD_MUTEX_INITIALIZER, .hold = BY_DEBUG_EVENT_COUNT };

static bool listen(struct by_node *node, uint32_t event,
                   struct by_task *resume)
{
    bool hold;

    (void)node;
    pthread_mutex_lock(&heard.lock);
    CHECK(heard.count < MOST);
    heard.events[heard.count++] = event;
    hold = resume && event == heard.hold;
    if (hold) {
        heard.held = resume;
        heard.loop = by_loop_current();
        heard.hold = BY_DEBUG_EVENT_COUNT;
    }
    pthread_mutex_unlock(&heard.lock);
    if (hold) {
        by_report(heard.tag, BY_EVENT_DONE, 0, 0, 0);
    }
    return hold;
}

static const struct by_node_ops listening_ops = {
    .size = sizeof(listening_ops), .abi = BY_ABI_VERSION, .name = "memory",
    .capabilities = BY_CAP_LISTENS,
    .serves = BASIC | BY_OP_BIT(BY_OP_WRITE_ZEROES),
    .submit = memory_submit, .debug_event = listen,
};

static bool hand_on(struct by_node *node, uint32_t event,
                    struct by_task *resume)
{
    return by_debug_stop(node->children[0], event, resume);
}

static const struct by_node_ops telling_ops = {
    .size = sizeof(telling_ops), .abi = BY_ABI_VERSION, .name = "tell",
    .capabilities = BY_CAP_ANY_LOOP, .serves = 0x1ff, .submit = forward,
    .debug_event = hand_on,
};

/* A table of a plugin that knows of no events. */
static const struct by_node_ops old_ops = {
    .size = BY_NODE_OPS_LEAST, .abi = BY_ABI_VERSION, .name = "memory",
    .serves = BASIC, .submit = memory_submit, .debug_event = listen,
};

static void open_bare(struct world *w, const struct by_node_ops *ops,
                      bool later)
{
    open_world(w, ops, 512, 0, later);
    by_root_set_node(w->root, w->base);
    heard.count = 0;
}

static void expect(const uint32_t *events, int count)
{
    pthread_mutex_lock(&heard.lock);
    CHECK(heard.count == count);
    CHECK(!memcmp(heard.events, events, count * sizeof(*events)));
    heard.count = 0;
    pthread_mutex_unlock(&heard.lock);
}

#define EXPECT(...) do { \
    uint32_t events[] = { __VA_ARGS__ }; \
    expect(events, sizeof(events) / sizeof(events[0])); \
} while (0)

static void check_data(struct world *w)
{
    CHECK(!memcmp(w->model, w->memory.bytes, DISK));
}

static void put(struct world *w, uint64_t offset, uint64_t bytes)
{
    static unsigned char buffer[8192];

    for (uint64_t i = 0; i < bytes; i++) {
        buffer[i] = rng();
    }
    memcpy(w->model + offset, buffer, bytes);
    CHECK(access_wait(w, BY_OP_WRITE, offset, bytes, buffer, 0) == 0);
    check_data(w);
}

static void test_the_events_of_writes(void)
{
    for (int later = 0; later < 2; later++) {
        struct world w;

        open_bare(&w, &listening_ops, later);
        put(&w, 1024, 2048);
        EXPECT(BY_DEBUG_PWRITEV, BY_DEBUG_PWRITEV_DONE);
        put(&w, 1000, 24);              /* the end of a block */
        EXPECT(BY_DEBUG_PWRITEV_RMW_HEAD, BY_DEBUG_PWRITEV_RMW_AFTER_HEAD,
               BY_DEBUG_PWRITEV, BY_DEBUG_PWRITEV_DONE);
        put(&w, 1024, 24);              /* its beginning */
        EXPECT(BY_DEBUG_PWRITEV_RMW_TAIL, BY_DEBUG_PWRITEV_RMW_AFTER_TAIL,
               BY_DEBUG_PWRITEV, BY_DEBUG_PWRITEV_DONE);
        put(&w, 1000, 1000);            /* two ends with a block between */
        EXPECT(BY_DEBUG_PWRITEV_RMW_HEAD, BY_DEBUG_PWRITEV_RMW_AFTER_HEAD,
               BY_DEBUG_PWRITEV_RMW_TAIL, BY_DEBUG_PWRITEV_RMW_AFTER_TAIL,
               BY_DEBUG_PWRITEV, BY_DEBUG_PWRITEV_DONE);
        put(&w, 1000, 100);             /* one read brings both ends */
        EXPECT(BY_DEBUG_PWRITEV_RMW_HEAD, BY_DEBUG_PWRITEV_RMW_TAIL,
               BY_DEBUG_PWRITEV_RMW_AFTER_HEAD,
               BY_DEBUG_PWRITEV_RMW_AFTER_TAIL,
               BY_DEBUG_PWRITEV, BY_DEBUG_PWRITEV_DONE);
        put(&w, 1100, 100);             /* inside one block */
        EXPECT(BY_DEBUG_PWRITEV_RMW_HEAD, BY_DEBUG_PWRITEV_RMW_TAIL,
               BY_DEBUG_PWRITEV_RMW_AFTER_HEAD,
               BY_DEBUG_PWRITEV_RMW_AFTER_TAIL,
               BY_DEBUG_PWRITEV, BY_DEBUG_PWRITEV_DONE);
        CHECK(access_wait(&w, BY_OP_WRITE_ZEROES, 512, 512, NULL, 0) == 0);
        memset(w.model + 512, 0, 512);
        check_data(&w);
        EXPECT(BY_DEBUG_PWRITEV_ZERO, BY_DEBUG_PWRITEV_DONE);
        close_world(&w);
    }
}

static void test_events_that_are_held(void)
{
    static const uint32_t events[] = {
        BY_DEBUG_PWRITEV_RMW_HEAD, BY_DEBUG_PWRITEV_RMW_AFTER_HEAD,
        BY_DEBUG_PWRITEV_RMW_TAIL, BY_DEBUG_PWRITEV_RMW_AFTER_TAIL,
        BY_DEBUG_PWRITEV, BY_DEBUG_PWRITEV_DONE,
    };

    for (int i = 0; i < 12; i++) {
        static char buffer[1000] = "held";
        struct by_access access = {
            .op = BY_OP_WRITE, .offset = i < 6 ? 1000 : 1024,
            .bytes = i < 6 ? 1000 : 512, .buffer = buffer, .tag = 7,
        };
        struct world w;

        if (i >= 6 && i < 10) {
            continue; /* a whole block is not read */
        }
        open_bare(&w, &listening_ops, i & 1);
        heard.tag = 6;
        heard.hold = events[i % 6];
        CHECK(by_access_start(w.root, false, &access, NULL) == 0);
        wait_event(6, 0);
        CHECK(!strcmp((char *)w.memory.bytes + access.offset,
                      i % 6 == 5 ? "held" : ""));
        by_loop_post(heard.loop, heard.held);
        wait_event(7, 0);
        memcpy(w.model + access.offset, buffer, access.bytes);
        check_data(&w);
        close_world(&w);
    }
}

static void test_nobody_is_told_of_a_failed_write(void)
{
    struct world w;
    char buffer[512] = "";

    open_bare(&w, &listening_ops, false);
    w.memory.fail_next = -EIO;
    CHECK(access_wait(&w, BY_OP_WRITE, 512, 512, buffer, 0) == -EIO);
    EXPECT(BY_DEBUG_PWRITEV);
    close_world(&w);
}

static void test_who_hears(void)
{
    struct world w;
    struct by_node *teller;

    open_bare(&w, &listening_ops, false);
    teller = by_node_create(&telling_ops, NULL, 1, w.loops[0]);
    CHECK(teller && !by_debug_heard(teller));
    by_node_set_child(teller, 0, w.top);
    CHECK(!by_debug_heard(teller)); /* a filter without the function */
    by_node_set_child(teller, 0, w.base);
    CHECK(by_debug_heard(teller));
    by_node_set_length(teller, DISK);
    by_root_set_node(w.root, teller);
    put(&w, 0, 512);
    EXPECT(BY_DEBUG_PWRITEV, BY_DEBUG_PWRITEV, BY_DEBUG_PWRITEV_DONE,
           BY_DEBUG_PWRITEV_DONE);
    by_node_free(teller, 8);
    wait_event(8, 0);
    close_world(&w);
    open_bare(&w, &old_ops, false);
    put(&w, 0, 512);
    by_debug_event(w.base, BY_DEBUG_L2_LOAD);
    CHECK(heard.count == 0 && !by_debug_heard(w.base));
    close_world(&w);
}

int main(int argc, char **argv)
{
    rng_state = argc > 1 ? strtoull(argv[1], NULL, 0) | 1 : 1;
    CHECK(by_start(argc > 2 && !strcmp(argv[2], "epoll")) == 0);
    test_the_events_of_writes();
    test_events_that_are_held();
    test_nobody_is_told_of_a_failed_write();
    test_who_hears();
    by_stop();
    puts("ok");
    return 0;
}
