/* SPDX-License-Identifier: Apache-2.0 */
/*
 * check_image.c - check or repair a qcow2 file: check_image FILE [FIX].
 *
 * The files check*.c of the plugin over a file that is read and written with
 * plain system calls.  The text of the check goes to stderr, its numbers to
 * stdout.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "check.h"

static int fd_of(struct by_node *node)
{
    return (int)(intptr_t)node->state;
}

static int whole(struct by_node *node, struct by_request *req)
{
    uint64_t done = 0;

    while (done < req->bytes) {
        char *at = (char *)req->iov->iov_base + done;
        ssize_t n = req->op == BY_OP_READ
            ? pread(fd_of(node), at, req->bytes - done, req->offset + done)
            : pwrite(fd_of(node), at, req->bytes - done, req->offset + done);

        if (n <= 0) {
            return n < 0 ? -errno : -EIO;
        }
        done += n;
    }
    return 0;
}

static int wait_for(struct by_node *node, struct by_request *req)
{
    uint64_t end = req->offset + req->bytes;

    switch (req->op) {
    case BY_OP_READ:
    case BY_OP_WRITE:
        if (end > by_node_length(node)) {
            return -EIO; /* as core's gate does */
        }
        return whole(node, req);
    case BY_OP_TRUNCATE:
        if (ftruncate(fd_of(node), req->offset) < 0) {
            return -errno;
        }
        node->length = req->offset;
        return 0;
    case BY_OP_FLUSH:
        return 0;
    default:
        return -ENOTSUP;
    }
}

static const struct by_api api = {
    .size = sizeof(api), .abi = BY_ABI_VERSION, .wait = wait_for,
};

/* Section "Header extensions": those that refer to clusters. */
static void extensions(struct by_qcow2_settings *set,
                       const unsigned char *header, uint32_t at, uint32_t end)
{
    while (at + 8 <= end) {
        uint32_t type = q2_be32(header + at), bytes = q2_be32(header + at + 4);

        at += 8;
        if (!type || bytes > end - at) {
            return;
        }
        if (type == 0x23852875 && set->autoclear & Q2_AUTOCLEAR_BITMAPS
            && bytes >= 24) {
            set->bitmaps_bytes = q2_be64(header + at + 8);
            set->bitmaps_offset = q2_be64(header + at + 16);
        }
        if (type == 0x0537be77 && bytes >= 16) {
            set->crypto_offset = q2_be64(header + at);
            set->crypto_bytes = q2_be64(header + at + 8);
        }
        at += (bytes + 7) & ~7u;
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
    set->extended_l2 = set->incompatible & Q2_INCOMPAT_EXTL2;
}

static void geometry(struct by_qcow2 *q)
{
    uint32_t bits = q->set.cluster_bits;

    q->cluster_bits = bits;
    q->cluster_size = 1ull << bits;
    q->entry_bytes = q->set.extended_l2 ? 16 : 8;
    q->l2_bits = bits - (q->set.extended_l2 ? 4 : 3);
    q->refcount_order = q->set.refcount_order;
    q->refblock_bits = bits + 3 - q->refcount_order;
    q->csize_shift = 62 - (bits - 8);
    q->csize_mask = (1ull << (bits - 8)) - 1;
    q->coffset_mask = (1ull << q->csize_shift) - 1;
    q->size = q->set.size;
}

static void *print(void *talk)
{
    char text[4096];
    int bytes;

    while ((bytes = by_qcow2_talk_read(talk, text, sizeof(text), 1000)) >= 0) {
        fwrite(text, 1, bytes, stderr);
    }
    return NULL;
}

static void report(int result, bool changed,
                   const struct by_qcow2_check_result *out)
{
    printf("{\"result\": %d, \"changed\": %d, \"corruptions\": %ld, "
           "\"leaks\": %ld, \"check-errors\": %ld, "
           "\"corruptions-fixed\": %ld, \"leaks-fixed\": %ld, "
           "\"image-end-offset\": %ld, \"total-clusters\": %ld, "
           "\"allocated-clusters\": %ld, \"fragmented-clusters\": %ld, "
           "\"compressed-clusters\": %ld}\n",
           result, changed, out->corruptions, out->leaks, out->check_errors,
           out->corruptions_fixed, out->leaks_fixed, out->image_end_offset,
           out->total_clusters, out->allocated_clusters,
           out->fragmented_clusters, out->compressed_clusters);
}

int main(int argc, char **argv)
{
    static unsigned char header[2 << 20];
    struct by_qcow2 q = { 0 };
    struct by_qcow2_check_result out;
    struct by_qcow2_talk *talk = by_qcow2_talk_new();
    struct by_node node = { .size = sizeof(node) };
    struct stat st;
    pthread_t printer;
    bool changed;
    int fd, result;
    uint32_t fix = argc > 2 ? atoi(argv[2]) : 0;

    fd = argc > 1 ? open(argv[1], O_RDWR) : -1;
    if (fd < 0 || fstat(fd, &st) < 0 || !talk
        || pread(fd, header, sizeof(header), 0) < Q2_HEADER_V2) {
        perror("check_image");
        return 2;
    }
    by_qcow2_init((uintptr_t)&api);
    node.length = st.st_size;
    node.state = (void *)(intptr_t)fd;
    q.file = q.data = &node;
    settings(&q.set, header);
    geometry(&q);
    pthread_create(&printer, NULL, print, talk);
    result = q2_check_file(&q, talk, fix, &out, &changed);
    q2_talk_end(talk);
    pthread_join(printer, NULL);
    by_qcow2_talk_free(talk);
    report(result, changed, &out);
    close(fd);
    return result < 0;
}
