/* SPDX-License-Identifier: Apache-2.0 */
/* batch.h - which batch a file's requests ask the loop for. */

static atomic_uint batch_asked;

static void batch_ask(struct by_loop *loop, uint32_t operations)
{
    CHECK(loop == by_api_table()->loop_current());
    atomic_store(&batch_asked, operations);
}

static void batch_done(struct by_request *req, int result)
{
    CHECK(result == 0);
    end(req->owner);
}

static void batch_begin(struct by_task *task)
{
    struct lane *lane = task->owner;
    struct by_request *req = &lane->req;

    req->size = sizeof(*req);
    req->loop = lane->loop;
    req->done = batch_done;
    req->owner = lane;
    req->op = BY_OP_READ;
    req->bytes = 512;
    lane->iov[0] = (struct iovec) { lane->buffer, req->bytes };
    req->iov = lane->iov;
    req->niov = 1;
    CHECK(api->root_submit(root, req) == BY_PENDING);
}

/* storm batch FILE HOW LIMIT */
static int batch(int argc, char **argv)
{
    struct lane lane = { .task = { .run = batch_begin } };
    struct by_api watched;
    struct by_file *file;
    int error, fd;

    CHECK(argc == 5);
    CHECK(by_start(0) == 0);
    api = by_api_table();
    watched = *api;
    watched.loop_submit_at = batch_ask;
    CHECK(by_file_init((uintptr_t)&watched) == 0);
    max_batch = strtoul(argv[4], NULL, 0);
    file = open_file(argv[2], argv[3], &fd);
    CHECK(ftruncate(fd, 4096) == 0);
    by_node_set_length(node, 4096);
    lane.loop = by_loop_create("batch", NULL, &error);
    by_node_set_home(node, lane.loop);
    root = by_root_create(node);
    lane.task.owner = &lane;
    CHECK(!posix_memalign((void **)&lane.buffer, 4096, 4096));
    atomic_store(&running, 1);
    api->loop_post(lane.loop, &lane.task);
    await_tag(TAG_DONE);
    close_file(file, fd);
    by_loop_destroy(lane.loop, TAG_GONE + 2);
    await_tag(TAG_GONE + 2);
    free(lane.buffer);
    by_stop();
    printf("%u\n", atomic_load(&batch_asked));
    return 0;
}
