/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tables.c - table work on a qcow2 file: tables FILE [OPTION...] WORK...
 *
 * The plugin's C over files that are read and written with plain system
 * calls.  Options: data=FILE, backing=FILE, readonly, overlap=BITS, small (the
 * smallest caches), cuts=N:FOLDER:SEED (write images as N power cuts would
 * have left them), fail=N (the N-th write or flush fails, and all behind it).
 * Each work prints a line.  A work that fails ends the program with 1; a
 * broken promise with another code.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tables.h"

#define DIE(...) do { \
    fprintf(stderr, __VA_ARGS__); \
    fputc('\n', stderr); \
    exit(2); \
} while (0)

/* ---------------------------------------------------- files, and their log */

struct entry {
    uint8_t op;
    uint64_t offset, bytes;
    unsigned char *data;        /* null: zeroes */
};

struct file {
    struct by_node node;
    int fd;
    bool logged;
    struct entry *log;
    uint64_t n;
    unsigned char *before;      /* what it held at the start */
    uint64_t before_bytes;
};

static pthread_mutex_t files_lock = PTHREAD_MUTEX_INITIALIZER;
static long fail_at = -1, ops_done;
static uint64_t chance;

static uint64_t draw(uint64_t below)
{
    chance ^= chance << 13;
    chance ^= chance >> 7;
    chance ^= chance << 17;
    return chance % below;
}

static void note(struct file *file, const struct by_request *req)
{
    struct entry *e;

    if (!file->logged || req->op == BY_OP_READ) {
        return;
    }
    if (!(file->n & (file->n + 1))) {
        file->log = realloc(file->log, (file->n + 1) * 2 * sizeof(*e));
    }
    e = &file->log[file->n++];
    *e = (struct entry) { req->op, req->offset, req->bytes, NULL };
    if (req->op == BY_OP_WRITE) {
        e->data = malloc(req->bytes);
        memcpy(e->data, req->iov->iov_base, req->bytes);
    }
}

static int all(struct file *file, bool write, char *at, uint64_t bytes,
               uint64_t offset)
{
    while (bytes) {
        ssize_t n = write ? pwrite(file->fd, at, bytes, offset)
            : pread(file->fd, at, bytes, offset);

        if (n <= 0) {
            return n < 0 ? -errno : -EIO;
        }
        at += n;
        offset += n;
        bytes -= n;
    }
    return 0;
}

static int zeroes(struct file *file, uint64_t bytes, uint64_t offset)
{
    char *none = calloc(1, bytes ? bytes : 1);
    int result = all(file, true, none, bytes, offset);

    free(none);
    return result;
}

static int serve(struct file *file, struct by_request *req)
{
    uint64_t end = req->offset + req->bytes;

    if (req->op != BY_OP_READ && fail_at >= 0 && ops_done++ >= fail_at) {
        return -ENOSPC;
    }
    note(file, req);
    switch (req->op) {
    case BY_OP_READ:
        if (end > file->node.length) {
            DIE("read beyond the end");
        }
        return all(file, false, req->iov->iov_base, req->bytes, req->offset);
    case BY_OP_WRITE:
    case BY_OP_WRITE_ZEROES:
        if (end > file->node.length) {
            file->node.length = end;
        }
        return req->op == BY_OP_WRITE
            ? all(file, true, req->iov->iov_base, req->bytes, req->offset)
            : zeroes(file, req->bytes, req->offset);
    case BY_OP_DISCARD:
        if (req->offset >= file->node.length) {
            return 0;
        }
        end = end < file->node.length ? end : file->node.length;
        return zeroes(file, end - req->offset, req->offset);
    case BY_OP_TRUNCATE:
        file->node.length = req->offset;
        if (ftruncate(file->fd, req->offset) < 0) {
            return -errno;
        }
        return 0;
    case BY_OP_FLUSH:
        return 0;
    default:
        DIE("op %d", req->op);
    }
}

static int wait_for(struct by_node *node, struct by_request *req)
{
    int result;

    pthread_mutex_lock(&files_lock);
    result = serve((struct file *)node, req);
    pthread_mutex_unlock(&files_lock);
    return result;
}

static bool is_zero(const void *bytes, size_t count)
{
    const char *at = bytes;

    return !count || (!*at && !memcmp(at, at + 1, count - 1));
}

static void event(const struct by_event *e)
{
    (void)e;
}

static const struct by_api api = {
    .size = sizeof(api), .abi = BY_ABI_VERSION, .wait = wait_for,
    .is_zero = is_zero, .event = event,
};
static const struct by_node_ops file_ops = {
    .size = sizeof(file_ops), .abi = BY_ABI_VERSION, .name = "file",
    .capabilities = BY_CAP_ANY_LOOP | BY_CAP_ZERO_NEW,
};

static struct file *open_file(const char *name)
{
    struct file *file = calloc(1, sizeof(*file));
    struct stat st;

    file->fd = open(name, O_RDWR | O_CREAT, 0600);
    if (file->fd < 0 || fstat(file->fd, &st) < 0) {
        DIE("%s: %m", name);
    }
    file->node.size = sizeof(file->node);
    file->node.ops = &file_ops;
    file->node.length = st.st_size;
    return file;
}

/* ------------------------------------------------------------ power cuts */

static void keep_before(struct file *file)
{
    file->logged = true;
    file->before_bytes = file->node.length;
    file->before = malloc(file->before_bytes + 1);
    if (all(file, false, (char *)file->before, file->before_bytes, 0) < 0) {
        DIE("cannot read the file");
    }
}

static void play(unsigned char *image, uint64_t room, const struct entry *e,
                 int percent)
{
    for (uint64_t at = 0; at < e->bytes;) {
        uint64_t here = e->offset + at, n = 512 - here % 512;

        n = n < e->bytes - at ? n : e->bytes - at;
        if (here + n <= room && draw(100) < (uint64_t)percent) {
            if (e->data) {
                memcpy(image + here, e->data + at, n);
            } else {
                memset(image + here, 0, n);
            }
        }
        at += n;
    }
}

/* What is there after the log's first `end` entries and a cut. */
static void cut(const struct file *file, uint64_t end, const char *name)
{
    static const int kept[] = { 0, 10, 50, 90, 100 };
    uint64_t stable = 0, length = file->before_bytes, room = length;
    int percent = kept[draw(5)], fd;
    unsigned char *image;

    for (uint64_t i = 0; i < end; i++) {
        const struct entry *e = &file->log[i];

        if (e->op == BY_OP_FLUSH) {
            stable = i;
        } else if (e->offset + e->bytes > room) {
            room = e->offset + e->bytes;
        }
    }
    image = calloc(1, room + 1);
    memcpy(image, file->before, file->before_bytes);
    for (uint64_t i = 0; i < end; i++) {
        const struct entry *e = &file->log[i];

        if (e->op == BY_OP_TRUNCATE) {
            if (e->offset < length) {
                memset(image + e->offset, 0, length - e->offset);
            }
            length = e->offset;
        } else if (e->op != BY_OP_FLUSH
                   && (e->op != BY_OP_DISCARD || e->offset < length)) {
            play(image, room, e, i < stable ? 100 : percent);
            if (e->op != BY_OP_DISCARD && length < e->offset + e->bytes) {
                length = e->offset + e->bytes;
            }
        }
    }
    fd = open(name, O_RDWR | O_CREAT | O_TRUNC, 0600);
    if (fd < 0 || pwrite(fd, image, length, 0) != (ssize_t)length) {
        DIE("%s: %m", name);
    }
    close(fd);
    free(image);
}

static void cuts(const struct file *file, const char *how)
{
    int n, seed, at;
    char name[4096];

    if (sscanf(how, "%d:%d:%n", &n, &seed, &at) != 2) {
        DIE("cuts=N:SEED:FOLDER");
    }
    chance = 88172645463325252ull + seed;
    for (int i = 0; i < n; i++) {
        snprintf(name, sizeof(name), "%s/cut%d", how + at, i);
        cut(file, draw(file->n + 1), name);
    }
}

/* ------------------------------------------------------------- the header */

static void extensions(struct by_qcow2_settings *set, const unsigned char *h,
                       uint32_t at, uint32_t end)
{
    while (at + 8 <= end && q2_be32(h + at)) {
        if (q2_be32(h + at) == 0x23852875
            && set->autoclear & Q2_AUTOCLEAR_BITMAPS) {
            set->bitmaps_bytes = q2_be64(h + at + 16);
            set->bitmaps_offset = q2_be64(h + at + 24);
        }
        at += 8 + ((q2_be32(h + at + 4) + 7) & ~7u);
    }
}

static void settings(struct by_qcow2_settings *set, const unsigned char *h)
{
    set->version = q2_be32(h + 4);
    set->cluster_bits = q2_be32(h + 20);
    set->size = q2_be64(h + 24);
    set->crypt_method = q2_be32(h + 32);
    set->l1_size = q2_be32(h + 36);
    set->l1_offset = q2_be64(h + 40);
    set->reftable_offset = q2_be64(h + 48);
    set->reftable_clusters = q2_be32(h + 56);
    set->snapshots = q2_be32(h + 60);
    set->snapshots_offset = q2_be64(h + 64);
    set->refcount_order = 4;
    if (set->version >= 3) {
        set->incompatible = q2_be64(h + 72);
        set->compatible = q2_be64(h + 80);
        set->autoclear = q2_be64(h + 88);
        set->refcount_order = q2_be32(h + 96);
        extensions(set, h, q2_be32(h + 100), 1u << set->cluster_bits);
    }
    set->data_file = set->incompatible & Q2_INCOMPAT_DATA_FILE;
    set->data_file_raw = set->data_file && set->autoclear & Q2_AUTOCLEAR_RAW;
    set->extended_l2 = set->incompatible & Q2_INCOMPAT_EXTL2;
    set->compression = set->incompatible & Q2_INCOMPAT_COMPRESSION ? 1 : 0;
    set->l2_slice_bytes = set->cluster_bits < 12 ? 1u << set->cluster_bits
        : 4096;
    set->l2_cache_bytes = set->refcount_cache_bytes = 1 << 20;
    set->pass_discard = 0x1e;
}

/* Another version's header: no extensions, the same backing name. */
static uint32_t make_header(unsigned char *out, const unsigned char *old,
                            uint32_t version)
{
    uint64_t name = q2_be64(old + 8);
    uint32_t bytes = q2_be32(old + 16), at = 160;

    memset(out, 0, 512);
    memcpy(out, old, 72);
    q2_put32(out + 4, version);
    if (version == 3) {
        q2_put32(out + 96, 4);
        q2_put32(out + 100, 104);
    }
    if (name && bytes < 300) {
        memcpy(out + at, old + name, bytes);
        q2_put64(out + 8, at);
    }
    return 512;
}

/* -------------------------------------------------------------- the works */

struct world {
    struct file *file, *data, *backing;
    struct by_qcow2 *q;
    struct by_qcow2_settings set;
    char why[256];
};

static const char *word(const char *works, const char *name)
{
    size_t n = strlen(name);

    return !strncmp(works, name, n) && works[n] == ':' ? works + n + 1 : NULL;
}

static int list(struct world *w)
{
    int result;
    struct by_qcow2_snapshots *list = by_qcow2_snapshots_read(w->q, &result,
                                                              w->why);

    for (uint32_t i = 0; list && i < list->count; i++) {
        const struct by_qcow2_snapshot *s = &list->entries[i];

        printf("%.*s %.*s vm=%llu disk=%llu extra=%u icount=%lld\n",
               s->id_bytes, s->id, s->name_bytes, s->name,
               (unsigned long long)s->vm_state_bytes,
               (unsigned long long)s->disk_bytes, s->extra_bytes,
               (long long)s->icount);
    }
    by_qcow2_snapshots_free(list);
    return result;
}

static int snapshot(struct world *w, const char *name)
{
    struct by_qcow2_snapshot info = {
        .name = (char *)name, .name_bytes = strcspn(name, ":"),
        .date_sec = 1700000000, .date_nsec = 5, .vm_clock_nsec = 7000000000,
        .icount = UINT64_MAX,
    };
    const char *vm = strchr(name, ':');

    info.vm_state_bytes = vm ? strtoull(vm + 1, NULL, 0) : 0;
    return by_qcow2_snapshot_create(w->q, &info, w->why);
}

/* The disk's data, without a backing node's, to a file. */
static int dump(struct world *w, const char *name)
{
    FILE *out = fopen(name, "w");
    char *buffer = malloc(1 << 21);
    int result = 0;

    for (uint64_t at = 0; at < w->q->size && result == 0;) {
        uint64_t n = w->q->size - at < 1 << 21 ? w->q->size - at : 1 << 21;
        struct q2_run run;

        result = q2_map_wait(w->q, at, n, &run);
        if (result < 0) {
            break;
        }
        memset(buffer, 0, run.bytes);
        if (run.kind == Q2_KIND_DATA) {
            struct iovec iov = { buffer, run.bytes };
            struct by_request req = {
                .op = BY_OP_READ, .offset = run.host, .bytes = run.bytes,
                .iov = &iov, .niov = 1,
            };

            result = wait_for(w->q->data, &req);
        } else if (run.kind == Q2_KIND_COMPRESSED) {
            result = -ENOTSUP;
        }
        fwrite(buffer, 1, run.bytes, out);
        at += run.bytes;
    }
    free(buffer);
    fclose(out);
    return result;
}

static int change_version(struct world *w, const char *argument)
{
    struct by_qcow2_progress progress = { 0 };
    unsigned char old[4096], header[512];
    int result = by_qcow2_read_file(w->q, 0, old, sizeof(old));

    if (result == 0) {
        result = by_qcow2_change_version(
            w->q, header, make_header(header, old, atoi(argument)), &progress,
            w->why);
    }
    if (result == 0 && progress.done != progress.total) {
        DIE("progress %llu of %llu", (unsigned long long)progress.done,
            (unsigned long long)progress.total);
    }
    return result;
}

static int change_refcounts(struct world *w, const char *argument)
{
    struct by_qcow2_progress progress = {
        .cancel = strchr(argument, 'c') != NULL,
    };
    int result = by_qcow2_change_refcounts(w->q, atoi(argument), &progress,
                                           w->why);

    if (result == 0 && progress.done != progress.total) {
        DIE("progress %llu of %llu", (unsigned long long)progress.done,
            (unsigned long long)progress.total);
    }
    return result;
}

/* Store a file's bytes as a bitmap, load them, give them back. */
static int bitmap(struct world *w, const char *name)
{
    struct file *in = open_file(name);
    uint64_t bytes = in->node.length, offset;
    unsigned char *data = malloc(bytes), *again = malloc(bytes);
    uint32_t entries;
    int result = all(in, false, (char *)data, bytes, 0);

    if (result == 0) {
        result = by_qcow2_bitmap_store(w->q, data, bytes, &offset, &entries);
    }
    if (result == 0) {
        memset(again, 0x5a, bytes);
        result = by_qcow2_bitmap_load(w->q, offset, entries, again, bytes);
        if (result == 0 && memcmp(data, again, bytes)) {
            DIE("another bitmap");
        }
        printf("entries %u\n", entries);
    }
    if (result == 0) {
        result = by_qcow2_bitmap_free(w->q, offset, entries);
    }
    free(data);
    free(again);
    close(in->fd);
    free(in);
    return result;
}

static int bitmap_bad(struct world *w, const char *argument)
{
    unsigned long long offset, entries, bytes;
    char *out;
    int result;

    sscanf(argument, "%llu:%llu:%llu", &offset, &entries, &bytes);
    out = malloc(bytes + 1);
    result = by_qcow2_bitmap_load(w->q, offset, entries, out, bytes);
    free(out);
    return result;
}

static int resize(struct world *w, const char *argument)
{
    char *end;
    uint64_t bytes = strtoull(argument, &end, 0), at, head;
    int result = bytes > w->q->size
        ? by_qcow2_resize_head(w->q, &at, &head) : 0;

    if (result < 0) {
        return result;
    }
    if (bytes > w->q->size && head) {
        printf("head %llu %llu\n", (unsigned long long)at,
               (unsigned long long)head);
    }
    return by_qcow2_resize(w->q, bytes, *end == ':' ? atoi(end + 1) : 0, true,
                           w->why);
}

static int work(struct world *w, const char *works)
{
    const char *a;

    if ((a = word(works, "resize"))) {
        return resize(w, a);
    } else if ((a = word(works, "preallocate"))) {
        return by_qcow2_preallocate(w->q, atoi(a), w->why);
    } else if ((a = word(works, "snapshot"))) {
        return snapshot(w, a);
    } else if ((a = word(works, "delete"))) {
        return by_qcow2_snapshot_delete(w->q, atoi(a), w->why);
    } else if ((a = word(works, "apply"))) {
        return by_qcow2_snapshot_apply(w->q, atoi(a), w->why);
    } else if ((a = word(works, "load"))) {
        return by_qcow2_snapshot_load(w->q, atoi(a), true, w->why);
    } else if ((a = word(works, "dump"))) {
        return dump(w, a);
    } else if ((a = word(works, "version"))) {
        return change_version(w, a);
    } else if ((a = word(works, "refcounts"))) {
        return change_refcounts(w, a);
    } else if ((a = word(works, "bitmap"))) {
        return bitmap(w, a);
    } else if ((a = word(works, "badbitmap"))) {
        return bitmap_bad(w, a);
    } else if (!strcmp(works, "list")) {
        return list(w);
    } else if (!strcmp(works, "clean")) {
        return by_qcow2_mark_clean(w->q);
    }
    DIE("what is %s", works);
}

/* FILE SIZE CLUSTER_BITS ORDER VERSION EXTENDED CRYPTO */
static int format(char **argv)
{
    struct by_qcow2_settings set = {
        .size = strtoull(argv[1], NULL, 0), .cluster_bits = atoi(argv[2]),
        .refcount_order = atoi(argv[3]), .version = atoi(argv[4]),
        .extended_l2 = atoi(argv[5]),
        .crypto_bytes = strtoull(argv[6], NULL, 0),
    };
    struct file *file = open_file(argv[0]);
    unsigned char h[112] = "QFI\xfb";
    int result = by_qcow2_layout(&set);

    if (result == 0) {
        q2_put32(h + 4, set.version);
        q2_put32(h + 20, set.cluster_bits);
        q2_put64(h + 24, set.size);
        q2_put32(h + 36, set.l1_size);
        q2_put64(h + 40, set.l1_offset);
        q2_put64(h + 48, set.reftable_offset);
        q2_put32(h + 56, set.reftable_clusters);
        if (set.version == 3) {
            q2_put64(h + 72, set.extended_l2 ? Q2_INCOMPAT_EXTL2 : 0);
            q2_put32(h + 96, set.refcount_order);
            q2_put32(h + 100, 104);
        }
        result = by_qcow2_format((uintptr_t)file, &set, h,
                                 set.version == 3 ? 104 : 72);
    }
    printf("format %d\n", result);
    close(file->fd);
    free(file);
    return result < 0;
}

static void end_file(struct file *file)
{
    if (file) {
        for (uint64_t i = 0; i < file->n; i++) {
            free(file->log[i].data);
        }
        free(file->log);
        free(file->before);
        close(file->fd);
        free(file);
    }
}

static bool option(struct world *w, const char *argument, const char **how)
{
    if (!strncmp(argument, "data=", 5)) {
        w->data = open_file(argument + 5);
    } else if (!strncmp(argument, "backing=", 8)) {
        w->backing = open_file(argument + 8);
    } else if (!strncmp(argument, "overlap=", 8)) {
        w->set.overlap = strtoul(argument + 8, NULL, 0);
    } else if (!strncmp(argument, "fail=", 5)) {
        fail_at = atol(argument + 5);
    } else if (!strncmp(argument, "cuts=", 5)) {
        *how = argument + 5;
        keep_before(w->file);
    } else if (!strcmp(argument, "small")) {
        w->set.l2_cache_bytes = w->set.refcount_cache_bytes = 0;
        w->set.l2_slice_bytes = 512;
    } else if (!strcmp(argument, "readonly")) {
        w->set.read_only = true;
    } else {
        return false;
    }
    return true;
}

static int run(struct world *w, int argc, char **argv)
{
    int result = 0;

    for (int i = 0; i < argc && result == 0; i++) {
        w->why[0] = 0;
        result = work(w, argv[i]);
        printf("%s %d %s\n", argv[i], result, result < 0 ? w->why : "");
    }
    if (!w->set.read_only) {
        int settled = by_qcow2_settle(w->q);

        if (settled < 0 && fail_at < 0 && !q2_is_corrupt(w->q)) {
            DIE("settle %d", settled);
        }
    }
    return result;
}

int main(int argc, char **argv)
{
    static unsigned char header[2 << 20];
    struct world w = { 0 };
    const char *how = NULL;
    int at = 2, result, error;

    by_qcow2_init((uintptr_t)&api);
    if (argc == 9 && !strcmp(argv[1], "format")) {
        return format(argv + 2);
    }
    if (argc < 3) {
        DIE("tables FILE WORK...");
    }
    w.file = open_file(argv[1]);
    if (pread(w.file->fd, header, sizeof(header), 0) < Q2_HEADER_V2) {
        DIE("no header");
    }
    settings(&w.set, header);
    while (at < argc && option(&w, argv[at], &how)) {
        at++;
    }
    w.q = by_qcow2_open(&w.set, (uintptr_t)w.file,
                        (uintptr_t)(w.data ? w.data : w.file),
                        (uintptr_t)w.backing, 1, &error, w.why);
    if (!w.q) {
        printf("open %d %s\n", error, w.why);
        result = 1;
    } else {
        result = run(&w, argc - at, argv + at) < 0;
        by_qcow2_free(w.q);
    }
    if (how) {
        cuts(w.file, how);
    }
    end_file(w.file);
    end_file(w.data);
    end_file(w.backing);
    return result;
}
