/* SPDX-License-Identifier: Apache-2.0 */
/*
 * read_fuzz.c - the fuzz target of csrc/read.c, parse.c and status.c.
 *
 * With clang: -fsanitize=fuzzer,address,undefined -DNBD_LIBFUZZER.  Without,
 * main makes replies of its own and spoils them: read_fuzz [inputs [seed]].
 *
 * An input is a byte of mode, a byte that says how the stream is cut, and
 * then a server's bytes.  What is checked is that a read that ends well had
 * every byte once, that a status answer lies inside its question, and that
 * nothing is written outside the requests' memory (which is exact).
 */
#include <errno.h>
#include <stdio.h>

#include "../../csrc/parse.c"
#include "../../csrc/read.c"
#include "../../csrc/status.c"

#define REQUIRE(condition)                                              \
    do {                                                                \
        if (!(condition)) {                                             \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__,          \
                    #condition);                                        \
            abort();                                                    \
        }                                                               \
    } while (0)

enum { CALLS = 4, AT = 4096, BYTES = 600, PIECES = 3, EXPORT = 1 << 20 };

struct work {
    struct nbd_call call;
    struct by_request req;
    struct by_block_status status;
    struct iovec iov[PIECES];
    bool answered;
};

static struct by_node node = { .length = EXPORT };
static struct by_nbdc client;
static struct nbd_connection connection;
static struct work works[CALLS];

static uint64_t now(struct by_loop *loop)
{
    (void)loop;
    return 1;
}

static const struct by_api fake_api = { .loop_now = now };

/* ---- what connection.c and client.c do */

struct nbd_call *nbd_slot_find(struct nbd_connection *c, uint64_t cookie)
{
    (void)c;
    return cookie < CALLS && !works[cookie].answered ? &works[cookie].call
                                                     : NULL;
}

void nbd_slot_give(struct nbd_connection *c, struct nbd_call *call)
{
    (void)c;
    REQUIRE(!works[call->slot].answered);
}

void nbd_call_answer(struct nbd_call *call, int result)
{
    struct work *work = &works[call->slot];

    REQUIRE(!work->answered && result <= 0);
    work->answered = true;
    if (call->type == NBD_CMD_READ && result == 0) {
        REQUIRE(is_whole(call));
    }
    if (call->type == NBD_CMD_BLOCK_STATUS && result == 0) {
        REQUIRE(work->status.bytes && work->status.bytes <= work->req.bytes);
    }
    free(call->spans);
    call->spans = NULL;
}

/* ---- */

static void prepare(struct work *work, int number)
{
    static const int types[CALLS] = {
        NBD_CMD_READ, NBD_CMD_BLOCK_STATUS, NBD_CMD_READ, NBD_CMD_WRITE,
    };
    uint64_t bytes = number == 2 ? 1 : BYTES, each = bytes / PIECES;

    memset(work, 0, sizeof(*work));
    work->req.offset = AT;
    work->req.bytes = bytes;
    work->req.iov = work->iov;
    work->req.niov = PIECES;
    work->req.u.status = number == 1 ? &work->status : NULL;
    for (int i = 0; i < PIECES; i++) {
        uint64_t len = i == PIECES - 1 ? bytes - each * i : each;

        work->iov[i] = (struct iovec) { malloc(len ? len : 1), len };
    }
    work->call.client = &client;
    work->call.req = &work->req;
    work->call.type = types[number];
    work->call.slot = number;
    work->call.length = bytes;
}

static void clean(struct work *work)
{
    free(work->call.spans);
    for (int i = 0; i < PIECES; i++) {
        free(work->iov[i].iov_base);
    }
}

/* As receive.c: data straight into a request is only counted here. */
static int feed(const uint8_t *bytes, size_t count)
{
    uint32_t kept = connection.end - connection.start;
    uint8_t *exact;
    int result = 0;

    if (!kept && connection.stage == NBD_DATA && count) {
        uint64_t n = connection.left < count ? connection.left : count;

        fill(&works[connection.call->slot].req, connection.data_at, bytes, n);
        result = nbd_read_direct(&connection, n);
        bytes += n;
        count -= n;
    }
    /* A copy of its own, so that the sanitizer sees one byte too far. */
    exact = malloc(kept + count + 1);
    if (kept) {
        memcpy(exact, connection.buffer + connection.start, kept);
    }
    memcpy(exact + kept, bytes, count);
    free(connection.buffer);
    connection.buffer = exact;
    connection.start = 0;
    connection.end = kept + count;
    return result < 0 ? result : nbd_read(&connection);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    size_t cut;

    if (size < 2) {
        return 0;
    }
    memset(&client, 0, sizeof(client));
    memset(&connection, 0, sizeof(connection));
    client.api = &fake_api;
    client.node = &node;
    client.facts.block = data[0] & 8 ? 512 : 1;
    connection.client = &client;
    connection.facts.mode = data[0] % 3;
    connection.facts.context = 1 + (data[0] >> 4) % 2;
    connection.facts.context_id = 1;
    for (int i = 0; i < CALLS; i++) {
        prepare(&works[i], i);
    }
    cut = 1 + data[1];
    for (data += 2, size -= 2; size; ) {
        size_t n = cut < size ? cut : size;

        if (feed(data, n) < 0) {
            break;
        }
        data += n;
        size -= n;
    }
    for (int i = 0; i < CALLS; i++) {
        clean(&works[i]);
    }
    free(connection.buffer);
    return 0;
}

#ifndef NBD_LIBFUZZER

static uint64_t state = 88172645463325252ull;

static uint64_t roll(void)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
}

static size_t put_chunk(uint8_t *at, int mode, uint16_t type, bool done,
                        uint64_t cookie, uint64_t length)
{
    bool extended = mode == BY_NBDC_EXTENDED;

    nbd_put32(at, extended ? NBD_EXTENDED_REPLY_MAGIC
                           : NBD_STRUCTURED_REPLY_MAGIC);
    nbd_put16(at + 4, done ? NBD_REPLY_FLAG_DONE : 0);
    nbd_put16(at + 6, type);
    nbd_put64(at + 8, cookie);
    if (extended) {
        nbd_put64(at + 16, AT);
        nbd_put64(at + 24, length);
        return 32;
    }
    nbd_put32(at + 16, length);
    return 20;
}

static size_t put_simple(uint8_t *at)
{
    uint64_t cookie = roll() % CALLS;
    bool error = roll() % 2;

    nbd_put32(at, NBD_SIMPLE_REPLY_MAGIC);
    nbd_put32(at + 4, error ? roll() % 120 : 0);
    nbd_put64(at + 8, cookie);
    return 16 + (error ? 0 : cookie == 0 ? BYTES : cookie == 2);
}

static size_t put_status(uint8_t *at, int mode)
{
    bool extended = mode == BY_NBDC_EXTENDED;
    uint32_t count = 1 + roll() % 6, prefix = extended ? 8 : 4;
    uint32_t each = extended ? 16 : 8;
    size_t n = put_chunk(at, mode, extended ? 6 : 5, roll() % 2, 1,
                         prefix + count * each);

    nbd_put32(at + n, 1);
    nbd_put32(at + n + 4, count);
    n += prefix;
    for (; count; count--, n += each) {
        uint64_t length = roll() % 5 ? roll() % 400 : roll();

        if (extended) {
            nbd_put64(at + n, length);
            nbd_put64(at + n + 8, roll() % 4);
        } else {
            nbd_put32(at + n, length);
            nbd_put32(at + n + 4, roll() % 4);
        }
    }
    return n;
}

static size_t put_piece(uint8_t *at, int mode)
{
    static uint64_t next;
    uint64_t length = 1 + roll() % 200, start = roll() % 4 ? next : roll();
    bool hole = roll() % 3 == 0;
    size_t n;

    start %= BYTES;
    if (length > BYTES - start && roll() % 8) {
        length = BYTES - start;
    }
    next = start + length;
    n = put_chunk(at, mode, hole ? 2 : 1, roll() % 6 == 0, 0,
                  hole ? 12 : 8 + length);
    nbd_put64(at + n, AT + start);
    nbd_put32(at + n + 8, length);
    return n + (hole ? 12 : 8 + length);
}

static size_t put_reply(uint8_t *at, int mode)
{
    size_t n;

    if (mode == BY_NBDC_SIMPLE || roll() % 12 == 0) {
        return put_simple(at);
    }
    switch (roll() % 5) {
    case 0:
        return put_status(at, mode);
    case 1:
        n = put_chunk(at, mode, 0x8001 + roll() % 3, roll() % 2,
                      roll() % CALLS, 6 + 4);
        nbd_put32(at + n, roll() % 120);
        nbd_put16(at + n + 4, 4);
        return n + 10;
    case 2:
        return put_chunk(at, mode, 0, roll() % 8, roll() % CALLS, 0);
    default:
        return put_piece(at, mode);
    }
}

static size_t make_input(uint8_t *input, size_t room)
{
    size_t size = 2;

    for (size_t i = 0; i < room; i++) {
        input[i] = 0;
    }
    input[0] = roll();
    input[1] = roll() % 3 ? 255 : roll();
    while (size + 1100 < room && roll() % 24) {
        size += put_reply(input + size, input[0] % 3);
    }
    for (uint64_t noise = roll() % 3; noise && size > 2; noise--) {
        input[2 + roll() % (size - 2)] ^= 1 << roll() % 8;
    }
    return size;
}

int main(int argc, char **argv)
{
    long inputs = argc > 1 ? atol(argv[1]) : 1000000;
    static uint8_t input[16384];

    state ^= argc > 2 ? strtoull(argv[2], NULL, 0) * 0x9e3779b97f4a7c15ull
                      : 0;
    for (long i = 0; i < inputs; i++) {
        LLVMFuzzerTestOneInput(input, make_input(input, sizeof(input)));
    }
    printf("%ld inputs\n", inputs);
    return 0;
}

#endif
