/* SPDX-License-Identifier: Apache-2.0 */
/*
 * encrypted.c - data that are encrypted in the file.  Ciphertext is in buffers
 * of our own, so that neither is the payload changed by a write nor does a
 * guest see ciphertext in a read's memory.  Short ones are done on the loop,
 * others in the pool.
 */
#include <errno.h>

#include "requests.h"

struct q2_sealed {
    struct by_frame frame;
    struct by_qcow2 *q;
    struct by_request *req;
    uint64_t place;             /* on the disk, for the cipher */
    struct by_request io;
    struct iovec iov;
    struct by_work work;
    unsigned char *buffer;
};

/* LUKS counts sectors of the file, AES those of the disk. */
static uint64_t cipher_offset(const struct by_qcow2 *q, uint64_t host,
                              uint64_t guest)
{
    return q->set.crypt_method == 2 ? host : guest;
}

static int sealed_done(struct by_request *req, struct by_frame *frame,
                       int result)
{
    struct q2_sealed *s = (struct q2_sealed *)frame;

    q2_api->buffer_put(req->loop, s->buffer, s->iov.iov_len);
    return result;
}

static struct q2_sealed *prepare(struct by_qcow2 *q, uint64_t guest,
                                 struct by_request *req, uint8_t op,
                                 void (*done)(struct by_request *, int))
{
    unsigned char *buffer = q2_api->buffer_get(req->loop, req->bytes);
    struct q2_sealed *s;

    if (!buffer) {
        return NULL;
    }
    s = (struct q2_sealed *)q2_api->frame_push(req, sizeof(*s), sealed_done);
    if (!s) {
        q2_api->buffer_put(req->loop, buffer, req->bytes);
        return NULL;
    }
    s->q = q;
    s->req = req;
    s->place = cipher_offset(q, req->offset, guest);
    s->buffer = buffer;
    s->iov = (struct iovec) { buffer, req->bytes };
    s->io = (struct by_request) {
        .size = sizeof(s->io), .op = op, .flags = BY_REQ_STABLE,
        .offset = req->offset, .bytes = req->bytes, .iov = &s->iov, .niov = 1,
        .loop = req->loop, .done = done, .owner = s,
    };
    return s;
}

/* Ended before submit returned. */
static int end_now(struct q2_sealed *s, int result)
{
    struct by_request *req = s->req;

    if (result != BY_PENDING) {
        sealed_done(req, &s->frame, result);
        q2_api->frame_pop(req);
    }
    return result;
}

static bool is_short(const struct q2_sealed *s)
{
    return s->req->bytes <= s->q->crypto->inline_bytes;
}

static void to_pool(struct q2_sealed *s, int (*run)(struct by_work *),
                    void (*done)(struct by_work *, int))
{
    s->work = (struct by_work) { .run = run, .done = done, .owner = s };
    q2_api->pool_submit(s->req->loop, &s->work);
}

/* ------------------------------------------------------------------ read */

static int decrypt(struct by_work *work)
{
    struct q2_sealed *s = work->owner;

    return s->q->crypto->decrypt(s->q->crypto, s->place, s->buffer,
                                 s->iov.iov_len);
}

static void decrypted(struct by_work *work, int result)
{
    struct q2_sealed *s = work->owner;

    if (result == 0) {
        q2_payload_copy(s->req, 0, s->buffer, s->iov.iov_len, false);
    }
    q2_api->complete(s->req, result);
}

static int got(struct q2_sealed *s, int result)
{
    if (result == 0 && !is_short(s)) {
        to_pool(s, decrypt, decrypted);
        return BY_PENDING;
    }
    if (result == 0) {
        s->work.owner = s;
        result = decrypt(&s->work);
    }
    if (result == 0) {
        q2_payload_copy(s->req, 0, s->buffer, s->iov.iov_len, false);
    }
    return result;
}

static void read_done(struct by_request *io, int result)
{
    struct q2_sealed *s = io->owner;

    result = got(s, result);
    if (result != BY_PENDING) {
        q2_api->complete(s->req, result);
    }
}

int q2_read_encrypted(struct by_qcow2 *q, uint64_t guest,
                      struct by_request *req)
{
    struct q2_sealed *s = prepare(q, guest, req, BY_OP_READ, read_done);
    int result;

    if (!s) {
        return -ENOMEM;
    }
    result = q2_api->submit(q->data, &s->io);
    return end_now(s, result == BY_PENDING ? result : got(s, result));
}

/* ----------------------------------------------------------------- write */

static void write_done(struct by_request *io, int result)
{
    struct q2_sealed *s = io->owner;

    q2_api->complete(s->req, result);
}

static int encrypt(struct by_work *work)
{
    struct q2_sealed *s = work->owner;

    return s->q->crypto->encrypt(s->q->crypto, s->place, s->buffer,
                                 s->iov.iov_len);
}

static void encrypted(struct by_work *work, int result)
{
    struct q2_sealed *s = work->owner;

    if (result == 0) {
        result = q2_api->submit(s->q->data, &s->io);
    }
    if (result != BY_PENDING) {
        q2_api->complete(s->req, result);
    }
}

int q2_write_encrypted(struct by_qcow2 *q, uint64_t guest,
                       struct by_request *req)
{
    struct q2_sealed *s = prepare(q, guest, req, BY_OP_WRITE, write_done);
    int result;

    if (!s) {
        return -ENOMEM;
    }
    q2_payload_copy(req, 0, s->buffer, req->bytes, true);
    if (!is_short(s)) {
        to_pool(s, encrypt, encrypted);
        return BY_PENDING;
    }
    s->work.owner = s;
    result = encrypt(&s->work);
    return end_now(s, result < 0 ? result
                                 : q2_api->submit(q->data, &s->io));
}
