/* SPDX-License-Identifier: Apache-2.0 */
/*
 * power.c - guests write, zero, discard and flush while the power is cut again
 * and again: what the disk holds then must count every reference, and show
 * each sector as it was at the last flush or later.
 *
 * power SEED [fails]: the seed decides the geometry and all that happens but
 * for the threads' order; with "fails" the disk fails now and then.
 */
#include "disk.h"
#include "fsck.h"
#include "tables_control.h"

enum { LOOPS = 3, GUESTS = 6, OPS = 300, ROUNDS = 4, SECTOR = 512, KINDS = 7 };

enum kind { WRITE, ZERO, DISCARD };

/* One for each write-like operation; its number is in what it writes. */
struct history {
    uint64_t first, count;      /* sectors */
    enum kind kind;
};

struct guest {
    struct by_request req;
    struct by_task task;
    struct iovec iov;
    unsigned char *buffer;
    uint64_t chance, number;
    uint64_t *seen;             /* reads and flushes: done when they began */
    uint32_t left, index;
    enum by_op op;
    bool compressed;
};

static struct {
    struct by_loop loops[LOOPS];
    struct guest guests[GUESTS];
    struct disk *disk;
    struct by_node node;
    struct by_qcow2 *q;
    struct by_qcow2_settings set;
    uint64_t chance, deeds;
    uint64_t sectors, chunk;    /* a guest's sectors in a row */
    bool fails, device, compresses;
    pthread_mutex_t lock;
    uint32_t running;
    struct history *ops;
    uint64_t nops;
    uint64_t *latest, *done, *flushed; /* of each sector */
    uint64_t cuts;
} t = {
    .lock = PTHREAD_MUTEX_INITIALIZER,
};

/* ------------------------------------------------------- what may be there */

static void stamp(unsigned char *sector, uint64_t number, uint64_t op)
{
    memset(sector, op * 37 + number, SECTOR);
    q2_put64(sector, number + 1);
    q2_put64(sector + 8, op);
}

/* May this sector be so, when the operations `low` (0: none) to `high` may
 * have been the last there? */
static bool allowed(uint64_t number, const unsigned char *sector, uint64_t low,
                    uint64_t high)
{
    unsigned char right[SECTOR];
    uint64_t op;

    if (!sector || world_is_zero(sector, SECTOR)) {
        for (op = low; op <= high; op++) {
            if (op == 0 || (t.ops[op].kind != WRITE
                            && number - t.ops[op].first < t.ops[op].count)) {
                return true;
            }
        }
        return false;
    }
    op = q2_be64(sector + 8);
    if (op == 0 || op < low || op > high || t.ops[op].kind != WRITE
        || number - t.ops[op].first >= t.ops[op].count) {
        return false;
    }
    stamp(right, number, op);
    return !memcmp(sector, right, SECTOR);
}

static void say_sector(const char *when, uint64_t number,
                       const unsigned char *sector, uint64_t low,
                       uint64_t high)
{
    for (uint64_t op = low ? low : 1; op <= high; op++) {
        if (number - t.ops[op].first < t.ops[op].count) {
            fprintf(stderr, "operation %llu: kind %d, sectors %llu + %llu\n",
                    (unsigned long long)op, t.ops[op].kind,
                    (unsigned long long)t.ops[op].first,
                    (unsigned long long)t.ops[op].count);
        }
    }
    fprintf(stderr, "cluster bits %u, chunk %llu\n", t.set.cluster_bits,
            (unsigned long long)t.chunk);
    fprintf(stderr, "%s: sector %llu holds %llu of operation %llu, not of "
            "%llu..%llu\n", when, (unsigned long long)number,
            (unsigned long long)(sector ? q2_be64(sector) - 1 : 0),
            (unsigned long long)(sector ? q2_be64(sector + 8) : 0),
            (unsigned long long)low, (unsigned long long)high);
}

/* ------------------------------------------------------------- power cuts */

static void say_counts(struct fsck *f)
{
    for (uint64_t c = 0; c < f->clusters; c++) {
        if (f->refs[c] != fsck_count(f, c)) {
            fprintf(stderr, "cluster %llu of %llu: %llu references, refcount "
                    "%llu\n", (unsigned long long)c,
                    (unsigned long long)f->clusters,
                    (unsigned long long)f->refs[c],
                    (unsigned long long)fsck_count(f, c));
        }
    }
}

static void check_image(const unsigned char *bytes, uint64_t length,
                        const uint64_t *low, const uint64_t *high,
                        bool settled)
{
    bool bad;
    struct fsck f;

    fsck_run(&f, bytes, length);
    CHECK(!f.bad);
    if (f.low && !(f.incompatible & Q2_INCOMPAT_DIRTY)) {
        say_counts(&f);
        CHECK(!"a reference is not counted");
    }
    CHECK(!(f.incompatible & Q2_INCOMPAT_CORRUPT));
    if (settled) {
        /* After a failure in a snapshot the bit stays. */
        CHECK(t.fails || !(f.incompatible & Q2_INCOMPAT_DIRTY));
        CHECK(t.fails || f.low == 0);
        if (!t.fails && f.leaked) {
            say_counts(&f);
            CHECK(!"a cluster has leaked");
        }
    }
    for (uint64_t i = 0; i < t.sectors; i++) {
        const unsigned char *sector = fsck_sector(&f, i * SECTOR, &bad);

        if (bad || !allowed(i, sector, low[i], high[i])) {
            say_sector("power cut", i, sector, low[i], high[i]);
            CHECK(!"a sector is wrong");
        }
    }
    fsck_end(&f);
}

static uint64_t *copy_of(const uint64_t *what)
{
    uint64_t *copy = malloc(t.sectors * sizeof(*copy));

    memcpy(copy, what, t.sectors * sizeof(*copy));
    return copy;
}

static void cut(void)
{
    uint64_t *low, *high, length;
    unsigned char *bytes;

    pthread_mutex_lock(&t.lock);
    low = copy_of(t.flushed);
    pthread_mutex_unlock(&t.lock);
    bytes = disk_power_cut(t.disk, &length, &t.chance);
    pthread_mutex_lock(&t.lock);
    high = copy_of(t.latest);
    check_image(bytes, length, low, high, false);
    pthread_mutex_unlock(&t.lock);
    free(low);
    free(high);
    free(bytes);
    t.cuts++;
}

/* ----------------------------------------------------------------- guests */

static void next(struct guest *g);

static void check_read(struct guest *g)
{
    pthread_mutex_lock(&t.lock);
    for (uint64_t i = 0; i < g->req.bytes / SECTOR; i++) {
        uint64_t number = g->req.offset / SECTOR + i;
        const unsigned char *sector = g->buffer + i * SECTOR;

        if (!allowed(number, sector, g->seen[number], t.latest[number])) {
            say_sector("read", number, sector, g->seen[number],
                       t.latest[number]);
            CHECK(!"a sector is wrong");
        }
    }
    pthread_mutex_unlock(&t.lock);
}

static void ended(struct guest *g, int result)
{
    if (!t.fails && result && !(result == -ENOSPC && t.device)
        && !(result == -EIO && g->compressed)) {
        fprintf(stderr, "operation %d at %llu of %llu bytes: %d\n", g->op,
                (unsigned long long)g->req.offset,
                (unsigned long long)g->req.bytes, result);
        CHECK(!"a request failed");
    }
    if (result == 0 && g->op == BY_OP_READ) {
        check_read(g);
    }
    pthread_mutex_lock(&t.lock);
    if (result == 0 && g->op == BY_OP_FLUSH) {
        for (uint64_t i = 0; i < t.sectors; i++) {
            if (t.flushed[i] < g->seen[i]) {
                t.flushed[i] = g->seen[i];
            }
        }
    } else if (result == 0 && g->op != BY_OP_READ) {
        for (uint64_t i = 0; i < g->req.bytes / SECTOR; i++) {
            t.done[g->req.offset / SECTOR + i] = g->number;
        }
    }
    free(g->seen);
    g->seen = NULL;
    pthread_mutex_unlock(&t.lock);
    free(g->buffer);
    g->buffer = NULL;
    world_post(g->req.loop, &g->task);
}

static void request_done(struct by_request *req, int result)
{
    ended(req->owner, result);
}

/* Anybody's. */
static void choose_any(struct guest *g, uint64_t *first, uint64_t *count)
{
    uint64_t most = 4 * t.chunk < t.sectors ? 4 * t.chunk : t.sectors;

    *count = 1 + chance_below(&g->chance, most);
    *first = chance_below(&g->chance, t.sectors - *count + 1);
    pthread_mutex_lock(&t.lock);
    g->seen = copy_of(t.done);
    pthread_mutex_unlock(&t.lock);
}

/* Some of a chunk that is the guest's own. */
static void choose_range(struct guest *g, uint64_t *first, uint64_t *count)
{
    uint64_t stride = t.chunk * GUESTS;
    uint64_t chunk = chance_below(&g->chance, t.sectors / stride);
    uint64_t from = chance_below(&g->chance, t.chunk);

    *first = chunk * stride + g->index * t.chunk + from;
    *count = 1 + chance_below(&g->chance, t.chunk - from);
    if (chance_below(&g->chance, 3) == 0) {
        *first -= from;
        *count = t.chunk;
    }
}

/* Discards keep what is not a whole cluster. */
static void align(uint64_t *first, uint64_t *count)
{
    uint64_t per = t.set.cluster_bits > 9 ? 1ull << (t.set.cluster_bits - 9)
                                          : 1;
    uint64_t from = (*first + per - 1) / per * per;
    uint64_t to = (*first + *count) / per * per;

    if (to > from) {
        *first = from;
        *count = to - from;
    } else {
        *count = 0;
    }
}

static void begin(struct guest *g, enum kind kind, uint64_t first,
                  uint64_t count)
{
    pthread_mutex_lock(&t.lock);
    g->number = ++t.nops;
    t.ops[g->number] = (struct history) { first, count, kind };
    for (uint64_t i = 0; i < count; i++) {
        t.latest[first + i] = g->number;
    }
    pthread_mutex_unlock(&t.lock);
}

/* Some writes are of one whole cluster, compressed; they fail where there is
 * something already. */
static void maybe_compress(struct guest *g, uint64_t *first, uint64_t *count)
{
    uint64_t from = *first, n = *count, per = 1ull << (t.set.cluster_bits - 9);

    align(&from, &n);
    if (n && t.compresses && chance_below(&g->chance, 2)) {
        g->compressed = true;
        *first = from;
        *count = per;
    }
}

static void choose(struct guest *g, uint64_t *first, uint64_t *count)
{
    uint64_t dice = chance_below(&g->chance, 20);

    choose_range(g, first, count);
    g->compressed = false;
    if (dice < 9) {
        g->op = BY_OP_WRITE;
        maybe_compress(g, first, count);
        begin(g, WRITE, *first, *count);
    } else if (dice < 12) {
        g->op = BY_OP_READ;
        choose_any(g, first, count);
    } else if (dice < 14) {
        g->op = BY_OP_WRITE_ZEROES;
        begin(g, ZERO, *first, *count);
    } else if (dice < 17) {
        align(first, count);
        g->op = *count ? BY_OP_DISCARD : BY_OP_READ;
        if (*count) {
            begin(g, DISCARD, *first, *count);
        } else {
            choose_any(g, first, count);
        }
    } else {
        g->op = BY_OP_FLUSH;
        pthread_mutex_lock(&t.lock);
        g->seen = copy_of(t.done);
        pthread_mutex_unlock(&t.lock);
        *first = *count = 0;
    }
}

static void next(struct guest *g)
{
    uint64_t first, count;
    int result;

    if (!g->left) {
        pthread_mutex_lock(&t.lock);
        t.running--;
        pthread_mutex_unlock(&t.lock);
        return;
    }
    g->left--;
    choose(g, &first, &count);
    g->buffer = malloc(count * SECTOR + 1);
    for (uint64_t i = 0; g->op == BY_OP_WRITE && i < count; i++) {
        stamp(g->buffer + i * SECTOR, first + i, g->number);
    }
    g->iov = (struct iovec) { g->buffer, count * SECTOR };
    g->req = (struct by_request) {
        .size = sizeof(g->req), .op = g->op, .offset = first * SECTOR,
        .bytes = count * SECTOR, .iov = &g->iov, .niov = 1,
        .loop = &t.loops[g->index % LOOPS], .done = request_done, .owner = g,
        .flags = g->op == BY_OP_WRITE_ZEROES && chance_below(&g->chance, 2)
            ? BY_REQ_MAY_UNMAP : 0,
    };
    if (g->compressed) {
        g->req.flags |= BY_REQ_COMPRESSED;
    }
    if (g->op == BY_OP_DISCARD || g->op == BY_OP_WRITE_ZEROES) {
        g->req.niov = 0;
    }
    result = world_submit(&t.node, &g->req);
    if (result != BY_PENDING) {
        ended(g, result);
    }
}

static void guest_run(struct by_task *task)
{
    next(task->owner);
}

static void cut_while_running(void)
{
    pthread_mutex_lock(&t.lock);
    while (t.running) {
        pthread_mutex_unlock(&t.lock);
        cut();
        pthread_mutex_lock(&t.lock);
    }
    pthread_mutex_unlock(&t.lock);
}

static void run_guests(void)
{
    t.running = GUESTS;
    for (uint32_t i = 0; i < GUESTS; i++) {
        struct guest *g = &t.guests[i];

        g->index = i;
        g->left = OPS / GUESTS;
        g->chance = chance_next(&t.chance);
        g->task.run = guest_run;
        g->task.owner = g;
        world_post(&t.loops[i % LOOPS], &g->task);
    }
    cut_while_running();
}

/* A snapshot more or less, as many as refcounts allow and at most three. */
static void *change_snapshots(void *unused)
{
    static uint32_t count;
    struct by_qcow2_snapshot info = { .name = "x", .name_bytes = 1 };
    char why[256];
    int result;

    if (count == (t.set.refcount_order == 1 ? 2 : 3)
        || (count && chance_below(&t.deeds, 3) == 0)) {
        result = by_qcow2_snapshot_delete(t.q, chance_below(&t.deeds, count),
                                          why);
        count -= result == 0;
    } else {
        result = by_qcow2_snapshot_create(t.q, &info, why);
        count += result == 0;
    }
    if (!t.fails && result) {
        fprintf(stderr, "snapshots, %u: %d %s, refcount order %u\n", count,
                result, why, t.set.refcount_order);
        CHECK(!"a snapshot failed");
    }
    pthread_mutex_lock(&t.lock);
    t.running--;
    pthread_mutex_unlock(&t.lock);
    return unused;
}

static void run_snapshots(void)
{
    pthread_t thread;

    if (t.set.refcount_order == 0) {
        return; /* a cluster cannot be in two */
    }
    t.running = 1;
    CHECK(!pthread_create(&thread, NULL, change_snapshots, NULL));
    cut_while_running();
    pthread_join(thread, NULL);
}

/* -------------------------------------------------------------- the image */

static void make_settings(void)
{
    uint32_t bits = 9 + chance_below(&t.chance, 5);
    uint64_t cluster = 1ull << bits;

    t.sectors = (GUESTS << chance_below(&t.chance, 3)) * 256;
    t.chunk = 1u << chance_below(&t.chance, 7);
    t.chunk -= t.chunk > 2 ? chance_below(&t.chance, 2) : 0;
    t.set = (struct by_qcow2_settings) {
        .version = 3, .cluster_bits = bits,
        .refcount_order = chance_below(&t.chance, KINDS),
        .size = t.sectors * SECTOR,
        .l2_slice_bytes = cluster < 4096 && chance_below(&t.chance, 2)
            ? cluster : 512,
        .l2_cache_bytes = cluster << chance_below(&t.chance, 6),
        .refcount_cache_bytes = cluster << chance_below(&t.chance, 4),
        .overlap = 0x1ff,
        .pass_discard = 1 << BY_QCOW2_DISCARD_ALWAYS
            | (chance_below(&t.chance, 2) ? 0x1f : 0),
        .lazy_refcounts = chance_below(&t.chance, 4) == 0,
    };
    /* Narrow refcounts leave compressed clusters no room for a snapshot. */
    t.compresses = chance_below(&t.chance, 2)
        && t.set.refcount_order != 1 && t.set.refcount_order != 2;
}

/* Header, refcount table, one block, L1, in this order. */
static void make_image(void)
{
    struct by_qcow2_settings *s = &t.set;
    uint64_t cluster = 1ull << s->cluster_bits;
    uint64_t l2_covers = cluster * cluster / 8;
    uint64_t l1_clusters;
    unsigned char *image;
    struct by_qcow2 q = { .refcount_order = s->refcount_order };

    s->l1_size = (s->size + l2_covers - 1) / l2_covers;
    l1_clusters = (s->l1_size * 8ull + cluster - 1) / cluster;
    s->reftable_offset = cluster;
    s->reftable_clusters = 1;
    s->l1_offset = 3 * cluster;
    image = calloc(3 + l1_clusters, cluster);
    memcpy(image, "QFI\xfb", 4);
    q2_put32(image + 4, s->version);
    q2_put32(image + 20, s->cluster_bits);
    q2_put64(image + Q2_AT_SIZE, s->size);
    q2_put32(image + Q2_AT_L1_SIZE, s->l1_size);
    q2_put64(image + Q2_AT_L1_OFFSET, s->l1_offset);
    q2_put64(image + Q2_AT_REFTABLE_OFFSET, s->reftable_offset);
    q2_put32(image + Q2_AT_REFTABLE_CLUSTERS, 1);
    q2_put32(image + Q2_AT_REFCOUNT_ORDER, s->refcount_order);
    q2_put32(image + 100, Q2_HEADER_V3);
    q2_put64(image + cluster, 2 * cluster);
    for (uint64_t i = 0; i < 3 + l1_clusters; i++) {
        q2_refcount_write(&q, image + 2 * cluster, i, 1);
    }
    disk_fill(t.disk, 0, image, (3 + l1_clusters) * cluster);
    free(image);
}

static void open_image(void)
{
    char why[256];
    int error;

    t.q = by_qcow2_open(&t.set, (uintptr_t)&t.disk->node,
                        (uintptr_t)&t.disk->node, 0, 1, &error, why);
    CHECK(t.q);
    t.node = (struct by_node) {
        .size = sizeof(t.node),
        .ops = (const struct by_node_ops *)by_qcow2_ops(), .state = t.q,
        .home = &t.loops[0], .length = t.set.size,
    };
    by_qcow2_set_node(t.q, (uintptr_t)&t.node);
}

/* Without requests: all is as it should be, and nothing is left over. */
static void settle(void)
{
    uint32_t fails = t.disk->fails;
    uint64_t length;
    unsigned char *bytes;

    pthread_mutex_lock(&t.disk->lock);
    t.disk->fails = 0;
    pthread_mutex_unlock(&t.disk->lock);
    CHECK(by_qcow2_settle(t.q) == 0);
    bytes = disk_power_cut(t.disk, &length, &t.chance);
    check_image(bytes, length, t.done, t.latest, true);
    free(bytes);
    pthread_mutex_lock(&t.disk->lock);
    t.disk->fails = fails;
    pthread_mutex_unlock(&t.disk->lock);
}

int main(int argc, char **argv)
{
    uint64_t seed = argc > 1 ? strtoull(argv[1], NULL, 0) : 1;

    t.chance = t.deeds = seed;
    t.fails = argc > 2 && !strcmp(argv[2], "fails");
    CHECK(by_qcow2_init((uintptr_t)&world_api) == 0);
    for (int i = 0; i < LOOPS; i++) {
        world_loop_start(&t.loops[i]);
    }
    make_settings();
    t.ops = calloc(OPS * ROUNDS + 1, sizeof(*t.ops));
    t.latest = calloc(t.sectors, sizeof(*t.latest));
    t.done = calloc(t.sectors, sizeof(*t.done));
    t.flushed = calloc(t.sectors, sizeof(*t.flushed));
    t.disk = disk_make(32 << 20, chance_next(&t.chance), &t.loops[0]);
    make_image();
    open_image();
    t.disk->fails = t.fails ? 40 : 0;
    for (int round = 0; round < ROUNDS; round++) {
        run_guests();
        if (chance_below(&t.chance, 2)) {
            settle();
        }
        run_snapshots();
    }
    settle();
    by_qcow2_free(t.q);
    fprintf(stderr, "seed %llu: %llu cuts, %llu flushes, %llu writes, "
            "%llu discards, %llu operations\n", (unsigned long long)seed,
            (unsigned long long)t.cuts, (unsigned long long)t.disk->flushes,
            (unsigned long long)t.disk->writes,
            (unsigned long long)t.disk->discards, (unsigned long long)t.nops);
    for (int i = 0; i < LOOPS; i++) {
        world_loop_stop(&t.loops[i]);
    }
    disk_free(t.disk);
    free(t.ops);
    free(t.latest);
    free(t.done);
    free(t.flushed);
    return 0;
}
