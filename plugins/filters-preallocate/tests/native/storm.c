/* SPDX-License-Identifier: Apache-2.0 */
/*
 * storm.c - writes that go past the file's end beside others that do: zeroes
 * that overtook one of them would wipe it out.
 *
 * Usage: storm ring|epoll [SEED]; exits 0 when every check held.
 */
#include "storm.h"

static struct disk disk;

int main(int argc, char **argv)
{
    struct by_node *file, *node;
    struct by_preallocate *p;
    uint64_t data_end;

    storm_start(argc, argv);
    CHECK(by_preallocate_init((uintptr_t)api) == 0);
    p = by_preallocate_create();
    by_preallocate_set(p, seed % 2 ? 0 : 1000, PART);
    CHECK(!by_preallocate_end(p, &data_end));
    by_preallocate_begin(p, 0);
    file = make_node(&disk_ops, &disk, 0, 512);
    node = make_node((const struct by_node_ops *)by_preallocate_ops(), p, 1,
                     1);
    by_node_set_child(node, 0, file);
    roots[0] = make_root(node);
    storm_run(disk.bytes, NULL);
    by_preallocate_end(p, &data_end);
    CHECK(data_end > LENGTH - PART && data_end <= LENGTH);
    free_node(node);
    free_node(file);
    by_preallocate_free(p);
    for (int i = 0; i < LOOPS * LANES; i++) {
        CHECK(!memcmp(disk.bytes + lanes[i].start, lanes[i].model, PART));
    }
    storm_stop();
    return 0;
}
