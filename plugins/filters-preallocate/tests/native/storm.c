/* SPDX-License-Identifier: Apache-2.0 */
/*
 * storm.c - writes that go past the file's end beside others that do: zeroes
 * that overtook one of them would wipe it out.
 *
 * Usage: storm ring|epoll [SEED]; exits 0 when every check held.
 */
#include "../../csrc/control.h"
#include "storm.h"

static struct disk disk;

/* Zeroes take their time: what does not wait for them is wiped out. */
static void zero_late(struct by_task *task)
{
    struct later *later = task->owner;

    later->result = serve(&disk, later->req);
    answer(task);
}

static int file_submit(struct by_node *node, struct by_request *req)
{
    struct later *later;

    if (req->op != BY_OP_WRITE_ZEROES) {
        return disk_submit(node, req);
    }
    later = calloc(1, sizeof(*later));
    later->task.run = zero_late;
    later->task.owner = later;
    later->req = req;
    api->loop_post(req->loop, &later->task);
    return BY_PENDING;
}

static const struct by_node_ops file_ops = {
    .size = sizeof(file_ops),
    .abi = BY_ABI_VERSION,
    .name = "file",
    .capabilities = BY_CAP_ANY_LOOP,
    .serves = BY_OP_BIT(BY_OP_READ) | BY_OP_BIT(BY_OP_WRITE)
        | BY_OP_BIT(BY_OP_FLUSH) | BY_OP_BIT(BY_OP_WRITE_ZEROES),
    .submit = file_submit,
};

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
    file = make_node(&file_ops, &disk, 0, 512);
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
