/* SPDX-License-Identifier: Apache-2.0 */
/*
 * stress.c - everything at once, from a fixed seed: loops that come and go
 * while threads post to them, receives that are cancelled at random moments,
 * timers, file reads, pool calls and deferred tasks.  Every one ends exactly
 * once and every loop ends when its last one has.
 */
#include "check.h"

#include <fcntl.h>
#include <pthread.h>
#include <sys/socket.h>

enum { GENERATIONS = 12, LOOPS = 3, ACTORS = 40, TURNS = 60, POSTS = 300 };

static int file;

/* One actor does TURNS things in a row on its loop, then is finished. */
struct actor {
    struct by_task task;
    struct by_io io;
    struct by_work work;
    struct iovec iov;
    struct msghdr msg;
    struct by_loop *loop;
    unsigned seed;
    int turns;
    bool busy;                /* something is under way: exactly one */
    char data[256];
};

struct stage {
    struct by_loop *loop;
    struct actor actors[ACTORS];
    int sockets[2];
    struct by_task posts[POSTS];
    pthread_t poster;
    _Atomic int open;         /* actors and posts not finished */
};

static struct stage stages[LOOPS];

static struct stage *stage_of(struct by_loop *loop)
{
    for (int i = 0; i < LOOPS; i++) {
        if (stages[i].loop == loop) {
            return &stages[i];
        }
    }
    CHECK(false);
    return NULL;
}

static void finished(struct by_loop *loop)
{
    if (atomic_fetch_sub(&stage_of(loop)->open, 1) == 1) {
        by_event_done(CHECK_TAG, 0);
    }
}

static void act(struct actor *actor);

static void ended(struct actor *actor)
{
    CHECK(by_on_loop(actor->loop));
    CHECK(actor->busy);
    actor->busy = false;
    act(actor);
}

static void io_ended(struct by_io *io, int result)
{
    struct actor *actor = io->owner;

    switch (io->op) {
    case BY_IO_TIMER:
    case BY_IO_RECVMSG:
        CHECK(result == 0 || result == -ECANCELED || result == 1);
        break;
    case BY_IO_POLL:
        CHECK(result > 0 || result == -ECANCELED);
        break;
    default:
        CHECK(result == (int)sizeof(actor->data) || result == -ECANCELED);
    }
    ended(actor);
}

static void task_ended(struct by_task *task)
{
    ended(task->owner);
}

static int work_run(struct by_work *work)
{
    struct actor *actor = work->owner;

    if (actor->seed % 50 == 0) {
        usleep(500);
    }
    return pread(file, actor->data, sizeof(actor->data), 0) > 0 ? 1 : -EIO;
}

static void work_ended(struct by_work *work, int result)
{
    CHECK_EQ(result, 1);
    ended(work->owner);
}

static void start_io(struct actor *actor, uint8_t op)
{
    struct by_io *io = &actor->io;

    actor->iov = (struct iovec){ actor->data, op == BY_IO_RECVMSG
                                 ? 1 : sizeof(actor->data) };
    actor->msg.msg_iov = &actor->iov;
    actor->msg.msg_iovlen = 1;
    io->size = sizeof(*io);
    io->op = op;
    io->fd = op == BY_IO_READV ? file : stage_of(actor->loop)->sockets[0];
    io->flags = op == BY_IO_POLL ? POLLIN : 0;
    io->offset = op == BY_IO_TIMER
        ? by_loop_now(actor->loop) + (uint64_t)rand_r(&actor->seed) % 300000
        : 0;
    io->iov = &actor->iov;
    io->niov = 1;
    io->msg = &actor->msg;
    io->done = io_ended;
    io->owner = actor;
    by_io_submit(actor->loop, io);
}

/* Receives must be cancelled by somebody, or they would wait for ever. */
static void cancel_neighbour(struct actor *actor)
{
    struct stage *stage = stage_of(actor->loop);
    struct actor *other = &stage->actors[(unsigned)rand_r(&actor->seed)
                                         % ACTORS];

    if (other->io.done) {
        by_io_cancel(actor->loop, &other->io);
    }
}

static void act(struct actor *actor)
{
    static const uint8_t ops[] = { BY_IO_READV, BY_IO_TIMER, BY_IO_RECVMSG,
                                   BY_IO_POLL };
    unsigned choice = (unsigned)rand_r(&actor->seed) % 8;

    cancel_neighbour(actor);
    if (actor->turns-- == 0) {
        finished(actor->loop);
        return;
    }
    actor->busy = true;
    if (choice < 4) {
        start_io(actor, ops[choice]);
    } else if (choice == 4) {
        by_pool_submit(actor->loop, &actor->work);
    } else if (choice == 5) {
        by_loop_defer(actor->loop, &actor->task);
    } else {
        by_loop_post(actor->loop, &actor->task);
    }
}

/* Ends what the last actors still wait for. */
static void sweep(struct by_io *io, int result)
{
    struct stage *stage = io->owner;

    CHECK_EQ(result, 0);
    for (int i = 0; i < ACTORS; i++) {
        by_io_cancel(stage->loop, &stage->actors[i].io);
    }
    if (atomic_load(&stage->open)) {
        io->offset = by_loop_now(stage->loop) + 200000;
        by_io_submit(stage->loop, io);
    } else {
        free(io);
    }
}

static void begin(struct by_loop *loop)
{
    struct stage *stage = stage_of(loop);
    struct by_io *timer = calloc(1, sizeof(*timer));

    for (int i = 0; i < ACTORS; i++) {
        act(&stage->actors[i]);
    }
    timer->op = BY_IO_TIMER;
    timer->owner = stage;
    timer->done = sweep;
    timer->offset = by_loop_now(loop) + 100000;
    by_io_submit(loop, timer);
}

static void post_ran(struct by_task *task)
{
    finished(((struct stage *)task->owner)->loop);
}

static void *post_some(void *arg)
{
    struct stage *stage = arg;

    for (int i = 0; i < POSTS; i++) {
        stage->posts[i].run = post_ran;
        stage->posts[i].owner = stage;
        by_loop_post(stage->loop, &stage->posts[i]);
        if (i % 16 == 0) {
            usleep(50);
        }
    }
    return NULL;
}

static void set_stage(struct stage *stage, unsigned seed)
{
    memset(stage, 0, sizeof(*stage));
    CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, stage->sockets), 0);
    atomic_store(&stage->open, ACTORS + POSTS);
    stage->loop = check_loop();
    for (int i = 0; i < ACTORS; i++) {
        struct actor *actor = &stage->actors[i];

        actor->loop = stage->loop;
        actor->seed = seed * 1000 + (unsigned)i;
        actor->turns = TURNS;
        actor->task.run = task_ended;
        actor->task.owner = actor;
        actor->work.run = work_run;
        actor->work.done = work_ended;
        actor->work.owner = actor;
    }
}

static void play(unsigned seed)
{
    struct check_call calls[LOOPS];

    for (int i = 0; i < LOOPS; i++) {
        set_stage(&stages[i], seed + (unsigned)i);
    }
    for (int i = 0; i < LOOPS; i++) {
        calls[i] = (struct check_call){ .task.run = check_run_call,
                                        .fn = begin };
        by_loop_post(stages[i].loop, &calls[i].task);
        pthread_create(&stages[i].poster, NULL, post_some, &stages[i]);
    }
    /* Under load: they end when nothing of theirs is left. */
    for (int i = 0; i < LOOPS; i++) {
        pthread_join(stages[i].poster, NULL);
    }
    for (int i = 0; i < LOOPS; i++) {
        by_loop_destroy(stages[i].loop, 1000 + (uint64_t)i);
    }
    for (int left = 2 * LOOPS; left; left--) {
        struct pollfd pfd = { .fd = by_event_fd(), .events = POLLIN };
        struct by_event event;

        CHECK(poll(&pfd, 1, 60000) == 1);
        CHECK_EQ(by_event_take(&event, 1), 1);
    }
    for (int i = 0; i < LOOPS; i++) {
        CHECK_EQ(atomic_load(&stages[i].open), 0);
        close(stages[i].sockets[0]);
        close(stages[i].sockets[1]);
    }
}

int main(int argc, char **argv)
{
    char name[] = "/tmp/by-stress-XXXXXX";
    char zeroes[4096] = { 0 };
    unsigned first, count;

    file = mkstemp(name);
    CHECK(file >= 0 && write(file, zeroes, sizeof(zeroes)) == sizeof(zeroes));
    unlink(name);
    check_start(argc, argv);
    /* For soaking: another first seed, and how many from there. */
    first = argc > 2 ? (unsigned)atoi(argv[2]) : 0;
    count = argc > 3 ? (unsigned)atoi(argv[3]) : GENERATIONS;
    for (unsigned seed = first; seed < first + count; seed++) {
        play(seed * 10);
    }
    by_stop();
    return 0;
}
