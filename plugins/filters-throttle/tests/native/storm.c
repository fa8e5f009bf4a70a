/* SPDX-License-Identifier: Apache-2.0 */
/*
 * storm.c - two nodes in one group whose limits come and go, one of which is
 * drained now and then and changes its group.
 *
 * Usage: storm ring|epoll [SEED]; exits 0 when every check held.
 */
#include <unistd.h>

#include "../../csrc/control.h"
#include "storm.h"

static struct disk disks[2];
static struct by_node *nodes[2];
static struct by_throttle *states[2];
static struct by_throttle_group *groups[2];

static void drain(int which, bool begin)
{
    int (*function)(struct by_root **, uint32_t, struct by_node **, uint32_t,
                    uint64_t) = begin ? by_drain_begin : by_drain_end;

    CHECK(function(&roots[which], 1, &nodes[which], 1, TAG_GONE) == 0);
    await_tag(TAG_GONE);
}

static void set_limits(struct by_throttle_group *group, int turn)
{
    struct by_throttle_limits limits = {
        .rates = { [0 ... 5] = { .seconds = 1 } },
    };

    limits.rates[turn % 2 ? 0 : 1].average = turn % 4 ? 3e7 : 0;
    limits.rates[turn % 3 ? 3 : 4] = (struct by_throttle_rate) {
        .average = 2000, .burst = turn % 5 ? 0 : 5000,
        .seconds = turn % 5 ? 1 : 2,
    };
    limits.request_size = turn % 2 ? 4096 : 0;
    by_throttle_group_set(group, &limits);
}

/* Hardly anything moves until the drain lets it. */
static void starve(int turn)
{
    struct by_throttle_limits limits = {
        .rates = { [0 ... 5] = { .seconds = 1 } },
    };

    limits.rates[3].average = 1;
    by_throttle_group_set(groups[0], &limits);
    by_throttle_group_set(groups[1], &limits);
    usleep(2000);
    drain(turn % 2, true);
    by_throttle_move(states[turn % 2], groups[turn / 2 % 2]);
    drain(turn % 2, false);
}

static void meanwhile(void)
{
    static int turn;

    turn++;
    if (turn % 8 == 0) {
        starve(turn / 8);
    }
    set_limits(groups[0], turn);
    set_limits(groups[1], turn + 1);
    usleep(turn % 7 * 1000);
    while (by_event_fd() >= 0) {
        struct by_event event;

        if (by_event_take(&event, 1) != 1) {
            break;
        }
        finished |= event.tag == TAG_DONE;
    }
}

int main(int argc, char **argv)
{
    storm_start(argc, argv);
    CHECK(by_throttle_init((uintptr_t)api) == 0);
    nroots = 2;
    for (int i = 0; i < 2; i++) {
        groups[i] = by_throttle_group_create();
    }
    for (int i = 0; i < 2; i++) {
        struct by_node *disk = make_node(&disk_ops, &disks[i], 0, 512);

        states[i] = by_throttle_create(groups[0]);
        nodes[i] = make_node((const struct by_node_ops *)by_throttle_ops(),
                             states[i], 1, 1);
        by_node_set_child(nodes[i], 0, disk);
        roots[i] = make_root(nodes[i]);
    }
    storm_run(disks[0].bytes, meanwhile);
    for (int i = 0; i < 2; i++) {
        struct by_node *disk = nodes[i]->children[0];

        free_node(nodes[i]);
        free_node(disk);
        by_throttle_free(states[i]);
    }
    for (int i = 0; i < LOOPS * LANES; i++) {
        CHECK(!memcmp(disks[i / LOOPS % 2].bytes + lanes[i].start,
                      lanes[i].model, PART));
    }
    by_throttle_group_free(groups[0]);
    by_throttle_group_free(groups[1]);
    storm_stop();
    return 0;
}
