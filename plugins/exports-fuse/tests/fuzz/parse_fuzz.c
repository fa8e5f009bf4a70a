/* SPDX-License-Identifier: Apache-2.0 */
/*
 * parse_fuzz.c - the fuzz target of csrc/parse.c.
 *
 * With clang: -fsanitize=fuzzer,address,undefined -DFUSE_LIBFUZZER.  Without,
 * main mutates messages of its own: parse_fuzz [inputs [seed]].
 *
 * An input is a message.  What is checked is parse.h's promise.
 */
#include <stdio.h>
#include <stdlib.h>

#include "../../csrc/parse.c"

#define REQUIRE(condition)                                              \
    do {                                                                \
        if (!(condition)) {                                             \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__,          \
                    #condition);                                        \
            abort();                                                    \
        }                                                               \
    } while (0)

static void check_good(const struct fuse_command *command, size_t bytes)
{
    switch (command->opcode) {
    case FUSE_WRITE:
        REQUIRE(command->length == bytes - FUSE_WRITE_HEAD);
        /* fall through */
    case FUSE_READ:
        REQUIRE(command->length <= FUSE_MAX_IO);
        REQUIRE(command->offset <= INT64_MAX);
        break;
    case FUSE_FALLOCATE:
        REQUIRE(command->length > 0);
        REQUIRE(command->offset <= INT64_MAX);
        REQUIRE(command->offset + command->length <= INT64_MAX);
        break;
    case FUSE_LSEEK:
        REQUIRE(command->offset <= INT64_MAX);
        break;
    case FUSE_SETATTR:
        REQUIRE(!(command->valid & FATTR_SIZE)
                || command->offset <= INT64_MAX);
        break;
    default:
        break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuse_command command;
    size_t head = size < FUSE_HEAD_BYTES ? size : FUSE_HEAD_BYTES;
    uint32_t opcode = 0;
    uint8_t *exact;
    int error;

    if (size >= 8) {
        memcpy(&opcode, data + 4, sizeof(opcode));
    }
    if (opcode == FUSE_WRITE && head > FUSE_WRITE_HEAD) {
        head = FUSE_WRITE_HEAD;
    }
    /* A copy of its own, so that the sanitizer sees one byte too far. */
    exact = malloc(head ? head : 1);
    memcpy(exact, data, head);
    error = fuse_parse(exact, size, &command);
    free(exact);
    REQUIRE(error <= 0);
    REQUIRE(error > -512);
    REQUIRE(error == -EBADMSG || command.opcode == opcode);
    REQUIRE(error || command.answered || command.opcode == FUSE_FORGET
            || command.opcode == FUSE_BATCH_FORGET);
    if (!error) {
        check_good(&command, size);
    }
    return 0;
}

#ifndef FUSE_LIBFUZZER

static uint64_t state = 88172645463325252ull;

static uint64_t roll(void)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
}

/* Mostly small, or near a border. */
static uint64_t number(void)
{
    static const uint64_t near[] = {
        0, 1, FUSE_MAX_IO, INT64_MAX, UINT64_MAX, 1ull << 32,
    };
    uint64_t n = near[roll() % (sizeof(near) / sizeof(*near))];

    return roll() % 3 ? n + roll() % 5 - 2 : roll() >> roll() % 64;
}

static size_t message(uint8_t *out, size_t max)
{
    static const uint32_t opcodes[] = {
        FUSE_INIT, FUSE_SETATTR, FUSE_READ, FUSE_WRITE, FUSE_FALLOCATE,
        FUSE_LSEEK, FUSE_FORGET, FUSE_GETATTR, 4000,
    };
    size_t bytes = roll() % 4 ? 40 + roll() % 90 : roll() % max;
    struct fuse_in_header in = {
        .len = (uint32_t)(roll() % 8 ? bytes : roll()),
        .opcode = opcodes[roll() % (sizeof(opcodes) / sizeof(*opcodes))],
        .unique = roll(), .nodeid = roll() % 8 ? FUSE_ROOT_ID : roll(),
    };

    for (size_t i = 0; i < max; i += 8) {
        uint64_t n = number();

        memcpy(out + i, &n, 8);
    }
    memcpy(out, &in, sizeof(in));
    if (in.opcode == FUSE_WRITE && roll() % 2 && bytes >= FUSE_WRITE_HEAD) {
        uint32_t payload = (uint32_t)(bytes - FUSE_WRITE_HEAD);

        memcpy(out + sizeof(in) + offsetof(struct fuse_write_in, size),
               &payload, sizeof(payload));
    }
    return bytes;
}

int main(int argc, char **argv)
{
    long inputs = argc > 1 ? atol(argv[1]) : 100000;
    static uint8_t bytes[4096];

    state += argc > 2 ? (uint64_t)atol(argv[2]) : 0;
    while (inputs--) {
        LLVMFuzzerTestOneInput(bytes, message(bytes, sizeof(bytes)));
    }
    return 0;
}

#endif
