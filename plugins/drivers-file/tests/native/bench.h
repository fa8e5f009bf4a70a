/* SPDX-License-Identifier: Apache-2.0 */
/* bench.h - storm's measuring: one loop, one operation, a depth. */

static uint64_t bench_bytes, bench_span, bench_done;
static uint8_t bench_op;

static double seconds_now(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec + now.tv_nsec / 1e9;
}

static double bench_end;

static void bench_step(struct lane *lane);

static void bench_done_one(struct by_request *req, int result)
{
    CHECK(result == 0);
    bench_done++;
    bench_step(req->owner);
}

static void bench_step(struct lane *lane)
{
    struct by_request *req = &lane->req;
    int result;

    do {
        if (seconds_now() > bench_end) {
            end(lane);
            return;
        }
        memset(req, 0, sizeof(*req));
        req->size = sizeof(*req);
        req->loop = lane->loop;
        req->done = bench_done_one;
        req->owner = lane;
        req->op = bench_op;
        req->offset = next_random(lane) % (bench_span / bench_bytes)
            * bench_bytes;
        req->bytes = bench_bytes;
        lane->iov[0] = (struct iovec) { lane->buffer, bench_bytes };
        req->iov = lane->iov;
        req->niov = 1;
        result = api->root_submit(root, req);
        CHECK(result == 0 || result == BY_PENDING);
        bench_done += result == 0;
    } while (result == 0);
}

static void bench_begin(struct by_task *task)
{
    bench_step(task->owner);
}

static double cpu_seconds(void)
{
    struct rusage use;

    getrusage(RUSAGE_SELF, &use);
    return use.ru_utime.tv_sec + use.ru_stime.tv_sec
        + (use.ru_utime.tv_usec + use.ru_stime.tv_usec) / 1e6;
}

/* storm bench FILE HOW SECONDS read|write DEPTH BYTES */
static int bench(int argc, char **argv)
{
    static struct lane lanes[256];
    struct by_loop_params params = { .poll_max_ns = 32768 };
    struct by_loop *loop;
    double began, cpu;
    int error, fd, depth;

    CHECK(argc == 8);
    CHECK(by_start(0) == 0);
    api = by_api_table();
    CHECK(by_file_init((uintptr_t)api) == 0);
    open_file(argv[2], argv[3], &fd);
    bench_span = lseek(fd, 0, SEEK_END);
    by_node_set_length(node, bench_span);
    loop = by_loop_create("bench", &params, &error);
    by_node_set_home(node, loop);
    root = by_root_create(node);
    by_root_set_writable(root, true, false);
    bench_op = argv[5][0] == 'w' ? BY_OP_WRITE : BY_OP_READ;
    depth = atoi(argv[6]);
    bench_bytes = strtoull(argv[7], NULL, 0);
    atomic_store(&running, depth);
    cpu = cpu_seconds();
    began = seconds_now();
    bench_end = began + atof(argv[4]);
    for (int i = 0; i < depth; i++) {
        lanes[i].loop = loop;
        lanes[i].random = i + 1;
        CHECK(!posix_memalign((void **)&lanes[i].buffer, 4096, bench_bytes));
        memset(lanes[i].buffer, i + 1, bench_bytes);
        lanes[i].task.run = bench_begin;
        lanes[i].task.owner = &lanes[i];
        api->loop_post(loop, &lanes[i].task);
    }
    await_tag(TAG_DONE);
    printf("%s %s depth %d: %.0f/s, %.2f us CPU\n", argv[3], argv[5], depth,
           bench_done / (seconds_now() - began),
           (cpu_seconds() - cpu) / bench_done * 1e6);
    return 0;
}
