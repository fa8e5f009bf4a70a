/* SPDX-License-Identifier: Apache-2.0 */
/*
 * storm.c - a quorum of disks that fail at times.  Whatever is read is what
 * was written last, or the read fails.  With an odd seed, two of three decide
 * and who is outvoted is corrected; with an even one three decide, and a
 * fourth child comes and goes.
 *
 * Usage: storm ring|epoll [SEED]; exits 0 when every check held.
 */
#include <unistd.h>

#include "../../csrc/control.h"
#include "storm.h"

enum { DISKS = 4 };

static struct disk disks[DISKS];
static struct by_node *nodes[DISKS], *top;
static uint32_t threshold;
static bool fourth;

static void drain(bool begin)
{
    int (*function)(struct by_root **, uint32_t, struct by_node **, uint32_t,
                    uint64_t) = begin ? by_drain_begin : by_drain_end;

    CHECK(function(roots, 1, &top, 1, TAG_GONE) == 0);
    await_tag(TAG_GONE);
}

/* What two of the first three have; or none, where a write has failed and is
 * going to be sent again. */
static int truth(uint64_t at)
{
    unsigned char a = disks[0].bytes[at], b = disks[1].bytes[at];
    unsigned char c = disks[2].bytes[at];

    return a == b || a == c ? a : b == c ? b : -1;
}

/* A child that comes has the right content. */
static void come_or_go(void)
{
    drain(true);
    fourth = !fourth;
    if (fourth) {
        for (uint64_t i = 0; i < LENGTH; i++) {
            disks[3].bytes[i] = truth(i);
        }
        CHECK(by_node_set_children(top, 4) == 0);
        by_node_set_child(top, 3, nodes[3]);
    } else {
        CHECK(by_node_set_children(top, 3) == 0);
    }
    drain(false);
}

static void meanwhile(void)
{
    usleep(1000);
    if (threshold == 3) {
        come_or_go();
    } else {
        drain(true);
        drain(false);
    }
}

int main(int argc, char **argv)
{
    struct by_quorum_settings settings = { .tag = 9 };
    struct by_quorum *quorum;

    storm_start(argc, argv);
    CHECK(by_filters_quorum_init((uintptr_t)api) == 0);
    threshold = seed % 2 ? 2 : 3;
    settings.threshold = threshold;
    settings.rewrite = true;
    quorum = by_quorum_create(&settings);
    top = make_node((const struct by_node_ops *)by_quorum_ops(), quorum, 3, 1);
    for (int i = 0; i < DISKS; i++) {
        nodes[i] = make_node(&disk_ops, &disks[i], 0, i == 1 ? 512 : 1);
        if (i < 3) {
            by_node_set_child(top, i, nodes[i]);
        }
    }
    roots[0] = make_root(top);
    storm_run(disks[0].bytes, meanwhile);
    free_node(top);
    for (int i = 0; i < DISKS; i++) {
        free_node(nodes[i]);
    }
    by_quorum_free(quorum);
    for (int i = 0; i < LOOPS * LANES; i++) {
        for (uint64_t j = 0; j < PART; j++) {
            CHECK(truth(lanes[i].start + j) == lanes[i].model[j]);
        }
    }
    storm_stop();
    return 0;
}
